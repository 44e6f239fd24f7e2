//! Shortens texts of servers for messages, and removes credentials and signatures from them.
//!
//! Servers and proxies quote parts of requests in their errors: an access key, a signature, a token, a URL with
//! its query, the string that was signed.

use std::fmt;
use std::sync::Arc;

use crate::names::shown_text;

/// Maximum number of characters to keep of a server's text.
const MAX_LENGTH: usize = 200;
/// Maximum number of characters to look at.
const MAX_SCANNED: usize = 4096;
/// What replaces the rest.
const GAP: &str = "…";
/// A text is cut after these phrases.
const BEFORE_SIGNED_TEXT: [&str; 4] =
    ["string to sign", "stringtosign", "canonical request", "canonicalrequest"];
/// Words that are followed by a credential.
const SCHEMES: [&str; 5] = ["bearer", "basic", "sharedkey", "sharedkeylite", "aws4-hmac-sha256"];
/// The ends of the names whose values are secret, without `-` and `_`.
const SECRET_NAMES: [&str; 14] = [
    "accesskey",
    "accesskeyid",
    "secretkey",
    "accountkey",
    "apikey",
    "secret",
    "password",
    "pwd",
    "signature",
    "sig",
    "token",
    "credential",
    "credentials",
    "authorization",
];
/// The shortest string of capital letters and digits that is taken for an access key.
const SHORTEST_ACCESS_KEY: usize = 16;
/// The shortest string of mixed characters that is taken for a key, a signature or a token.
const SHORTEST_SECRET: usize = 20;
/// The shortest configured secret that is removed. Shorter ones are parts of ordinary words.
const SHORTEST_CONFIGURED: usize = 4;

/// Returns the first line of a server's text for messages: without control characters, credentials and
/// signatures, and of limited length. Within [`hiding_names`](crate::hiding_names), without UIDs too.
pub fn one_line(text: &str) -> String {
    shorten(&clean_line(text))
}

/// As [`one_line`], but not shortened yet.
pub(crate) fn clean_line(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let clean: String = line.chars().filter(|letter| !letter.is_control()).take(MAX_SCANNED).collect();
    shown_text(without_secrets(&clean))
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_LENGTH) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}{GAP}", &text[..end]),
    }
}

fn without_secrets(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let signed =
        BEFORE_SIGNED_TEXT.iter().filter_map(|phrase| Some(lower.find(phrase)? + phrase.len())).min();
    let mut clean = Vec::new();
    let mut previous = "";
    for word in line[..signed.unwrap_or(line.len())].split(' ') {
        let announced = SCHEMES.contains(&trimmed(previous).to_ascii_lowercase().as_str())
            || (previous.ends_with([':', '=']) && is_secret_name(previous));
        clean.push(if announced && !is_plain(word) { GAP.to_owned() } else { clean_word(word) });
        previous = word;
    }
    let gap = if signed.is_some() { GAP } else { "" };
    clean.join(" ") + gap
}

/// Whether `word` is an ordinary word, such as "authentication" after "Basic".
fn is_plain(word: &str) -> bool {
    let letters = trimmed(word);
    letters.len() < SHORTEST_SECRET && letters.bytes().all(|byte| byte.is_ascii_lowercase())
}

fn trimmed(word: &str) -> &str {
    word.trim_matches(|letter: char| !letter.is_alphanumeric())
}

fn is_secret_name(name: &str) -> bool {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let lower = name.to_ascii_lowercase();
    lower.starts_with("xamz") || SECRET_NAMES.iter().any(|secret| lower.ends_with(secret))
}

/// Removes the query and the user of a URL, the values of secret names, and what looks like a key.
fn clean_word(word: &str) -> String {
    let mut word = word.to_owned();
    if let Some(query) = word.find('?').filter(|query| word[*query..].contains('=')) {
        word.truncate(query + 1);
        word.push_str(GAP);
    }
    if let Some(scheme) = word.find("://")
        && let Some(host) = word[scheme..].find('@')
    {
        word.replace_range(scheme + 3..scheme + host, GAP);
    }
    let separators = ['&', ';', ',', '<', '>', '"', '\''];
    let pairs = word.split_inclusive(separators).map(|pair| {
        let end = pair.strip_suffix(separators).map_or(pair.len(), str::len);
        match pair[..end].split_once(['=', ':']) {
            Some((name, value)) if !value.is_empty() && is_secret_name(name) => {
                format!("{name}={GAP}{}", &pair[end..])
            }
            _ => without_keys(pair),
        }
    });
    pairs.collect()
}

/// Replaces each run of the letters of keys, if a part of it looks like one.
fn without_keys(text: &str) -> String {
    let is_key_letter = |letter: char| letter.is_ascii_alphanumeric() || "+/=_~-.".contains(letter);
    let mut clean = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_key_letter) {
        let (before, after) = rest.split_at(start);
        let end = after.find(|letter| !is_key_letter(letter)).unwrap_or(after.len());
        let (run, remaining) = after.split_at(end);
        clean.push_str(before);
        let is_key = run.split(['-', '.']).any(looks_like_a_key) || run.split('.').any(is_base64url);
        let is_secret = is_key && !is_name_of_google(run);
        clean.push_str(if is_secret { GAP } else { run });
        rest = remaining;
    }
    clean + rest
}

/// Whether `text` is the resource name of a key in Google Cloud KMS or of a version of it.
fn is_name_of_google(text: &str) -> bool {
    text.starts_with("projects/") && text.contains("/keyRings/")
}

/// Whether `text` looks like a key in base64url, whose dashes are not those between words: a fifth are capital letters.
fn is_base64url(text: &str) -> bool {
    let letters = text.replace('-', "");
    let count = |is: fn(&u8) -> bool| letters.bytes().filter(is).count();
    let is_mixed = count(u8::is_ascii_digit) > 0 && count(u8::is_ascii_lowercase) > 0;
    is_mixed && count(u8::is_ascii_uppercase) * 5 >= letters.len() && looks_like_a_key(&letters)
}

/// Whether `text` is a long string of capital letters and digits, or of mixed characters without words: the kind
/// of character changes often, other than after a capital letter.
fn looks_like_a_key(text: &str) -> bool {
    #[derive(PartialEq)]
    enum Kind {
        Lower,
        Upper,
        Digit,
        Other,
    }
    let kinds: Vec<Kind> = text
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' => Kind::Lower,
            b'A'..=b'Z' => Kind::Upper,
            b'0'..=b'9' => Kind::Digit,
            _ => Kind::Other,
        })
        .collect();
    let has = |kind: &Kind| kinds.contains(kind);
    if has(&Kind::Upper) && !has(&Kind::Lower) && !has(&Kind::Other) {
        return kinds.len() >= SHORTEST_SECRET || (kinds.len() >= SHORTEST_ACCESS_KEY && has(&Kind::Digit));
    }
    let is_change = |pair: &[Kind]| pair[0] != pair[1] && !(pair[0] == Kind::Upper && pair[1] == Kind::Lower);
    kinds.len() >= SHORTEST_SECRET
        && kinds.windows(2).filter(|pair| is_change(pair)).count() * 5 >= kinds.len()
}

/// The configured secrets, which no message may contain, even if they look like words.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Arc<[String]>);

impl Secrets {
    pub(crate) fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        Self(secrets.into_iter().filter(|secret| secret.len() >= SHORTEST_CONFIGURED).collect())
    }

    /// As [`one_line`], without these secrets, which the end of the line could otherwise cut.
    pub(crate) fn one_line(&self, text: &str) -> String {
        shorten(&self.0.iter().fold(clean_line(text), |line, secret| line.replace(secret, GAP)))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_signatures_are_removed() {
        for (text, expected) in [
            ("the key AKIAIOSFODNN7EXAMPLE is unknown", "the key … is unknown"),
            ("key wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "key …"),
            ("no key GK31c2f218a2e44f485b94239e", "no key …"),
            ("signature 'aHVudGVyMg8S4J3nkM2wHk9q/1yAcXQ2JtVw6Zk0b5E=' differs", "signature '…' differs"),
            ("hash 6d5a1c1bb7f0c0c2a0f1de1f0e5d3c2b1a09f8e7", "hash …"),
            ("value rK2w-bD9xQ-Lk_3Zt-a8VhPq-7Yc-uEoN1s-gT4m-Jf0 is wrong", "value … is wrong"),
            ("bad Authorization: Bearer ya29.hunter2", "bad Authorization: … …"),
            ("Bearer hunter2 expired", "Bearer … expired"),
            ("Basic authentication is off", "Basic authentication is off"),
            ("token eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJhIjoxfQ.c2ln", "token …"),
            ("GET https://a.test/b/c?X-Amz-Signature=hunter2&y=1 failed", "GET https://a.test/b/c?… failed"),
            ("/b/c?sv=1&sig=hunter2", "/b/c?…"),
            ("https://user:hunter2@proxy.test:3128/ refused", "https://…@proxy.test:3128/ refused"),
            ("sv=1&sig=hunter2&se=2", "sv=1&sig=…&se=2"),
            ("X-Amz-Credential=hunter2/20260101, Signature=hunter2", "X-Amz-Credential=…, Signature=…"),
            ("AccountKey=hunter2;AccountName=x", "AccountKey=…;AccountName=x"),
            ("password: hunter2 is wrong", "password: … is wrong"),
            ("sig=hunter2\"", "sig=…\""),
            ("Server used following string to sign: 'PUT hunter2", "Server used following string to sign…"),
            ("the CanonicalRequest was GET", "the CanonicalRequest…"),
            (
                "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1 is not enabled.",
                "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1 is not enabled.",
            ),
        ] {
            assert_eq!(one_line(text), expected, "{text}");
        }
    }

    #[test]
    fn keys_in_base64url_are_removed() {
        // Deterministic: xorshift.
        let mut state = 1_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 32).unwrap()
        };
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut key = || (0..43).map(|_| char::from(letters[random() % 64])).collect::<String>();
        let is_kept = |key: String| one_line(&key) == key;
        let kept = (0..10_000).filter(|_| is_kept(key())).count();
        // Nobody can tell them from words.
        assert!(kept < 50, "{kept}");
    }

    #[test]
    fn texts_of_servers_are_kept() {
        for text in [
            "The AWS Access Key Id you provided does not exist in our records.",
            "The specified key does not exist.",
            "Missing required header for this request: Content-MD5 OR x-amz-checksum-*",
            "Unsupported header 'x-amz-checksum-crc64nvme' received for this API call.",
            "X-Amz-Sdk-Checksum-Algorithm and X-Amz-Checksum-Crc64nvme are not supported",
            "XAmzContentChecksumMismatch, XAmzContentSHA256Mismatch",
            "orthanc@my-project.iam.gserviceaccount.com does not have storage.objects.get access",
            "AADSTS700016: Application with identifier '8d5a7f1e-2b3c-4d5e-8f90-a1b2c3d4e5f6' was not found",
            "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-central-1'",
            "no object fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11.dcm",
            "no object Hospital-A/fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11.dcm",
            "RequestId:8D5A7F1E-2B3C-4D5E-8F90-A1B2C3D4E5F6 Time:2026-11-27T02:19:00.1234567Z",
            "arn:aws:kms:eu-central-1:111122223333:key/8d5a7f1e-2b3c-4d5e-8f90-a1b2c3d4e5f6 is disabled",
            "InvalidSAS-Token2 for AES256-GCM-SHA384 and RSA-OAEP-256",
            "Zugriff verweigert: ungültig",
        ] {
            assert_eq!(one_line(text), text);
        }
    }

    #[test]
    fn line_is_short() {
        let text = format!("first\x01 line\nsecond {}", "x".repeat(1000));
        assert_eq!(one_line(&text), "first line");
        let long = one_line(&"ä ".repeat(500_000));
        assert_eq!(long.chars().count(), MAX_LENGTH + 1);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn configured_secrets_are_removed() {
        let secrets = Secrets::new(["minioadmin".to_owned(), "no".to_owned(), String::new()]);
        assert_eq!(secrets.one_line("no minioadmin here"), "no … here");
        // Nothing is left of one where the line is cut.
        let cut = format!("{} minioadmin", "a ".repeat(97));
        assert_eq!(secrets.one_line(&cut), format!("{} …", "a ".repeat(97)));
        assert_eq!(format!("{secrets:?}"), "Secrets(1)");
    }
}
