//! The documents of requests and answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crypto_envelope::{FileKey, KeyServiceError};
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

use super::key::Key;

/// Larger than any request with a file key, so that it is never moved to another place, which would not be wiped.
const REQUEST_SIZE: usize = 4096;
/// Length of a file key.
const KEY_LEN: usize = 32;
/// Length of a file key in base64.
const KEY_TEXT_LEN: usize = 44;
/// Maximum length of a ciphertext of AWS KMS.
const LONGEST_CIPHERTEXT: usize = 6144;

/// What AWS KMS authenticates with the file key, and notes in its log of each request (CloudTrail).
#[derive(Serialize)]
struct EncryptionContext {
    #[serde(rename = "orthanc-object-storage")]
    format: &'static str,
}

const CONTEXT: EncryptionContext = EncryptionContext { format: "A2" };

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Encrypt<'a> {
    key_id: &'a str,
    plaintext: &'a str,
    encryption_context: EncryptionContext,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Encrypted {
    ciphertext_blob: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Decrypt<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<&'a str>,
    ciphertext_blob: String,
    encryption_context: EncryptionContext,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Decrypted {
    key_id: String,
    #[serde(deserialize_with = "wiped")]
    plaintext: Zeroizing<String>,
}

/// An answer cannot be used. The message contains nothing of it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("the answer has no ciphertext; check Endpoint in AwsKms")]
    NoCiphertext,
    #[error("the answer has no key of 32 bytes; check Endpoint in AwsKms")]
    NoFileKey,
    #[error(
        "the file key was wrapped with a key of another account, so somebody else may have stored the object; to accept \
         it, name that key in PreviousMasterKeys"
    )]
    OtherAccount,
}

/// The request to wrap a file key.
pub(super) fn encrypt(key: &Key, file_key: &FileKey) -> Result<Zeroizing<Vec<u8>>, KeyServiceError> {
    let mut text = Zeroizing::new([0; KEY_TEXT_LEN]);
    // Neither fails: the length is fixed, and base64 is UTF-8.
    BASE64.encode_slice(file_key.expose(), &mut *text).map_err(|_| impossible())?;
    let plaintext = std::str::from_utf8(&*text).map_err(|_| impossible())?;
    write(&Encrypt { key_id: key.as_str(), plaintext, encryption_context: CONTEXT })
}

/// The request to unwrap a file key.
pub(super) fn decrypt(key: &Key, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyServiceError> {
    let ciphertext_blob = BASE64.encode(wrapped);
    write(&Decrypt { key_id: key.for_decrypt(), ciphertext_blob, encryption_context: CONTEXT })
}

/// The wrapped file key in an answer.
pub(super) fn encrypted(answer: &[u8]) -> Result<Vec<u8>, Unusable> {
    let answer: Encrypted = serde_json::from_slice(answer).map_err(|_| Unusable::NoCiphertext)?;
    let ciphertext = BASE64.decode(answer.ciphertext_blob).map_err(|_| Unusable::NoCiphertext)?;
    if ciphertext.is_empty() || ciphertext.len() > LONGEST_CIPHERTEXT {
        return Err(Unusable::NoCiphertext);
    }
    Ok(ciphertext)
}

/// The file key in an answer.
pub(super) fn decrypted(key: &Key, answer: &[u8]) -> Result<FileKey, Unusable> {
    let answer: Decrypted = serde_json::from_slice(answer).map_err(|_| Unusable::NoFileKey)?;
    // One byte more than a key, which is how much the decoder asks for.
    let mut bytes = Zeroizing::new([0; KEY_LEN + 1]);
    let decoded = BASE64.decode_slice(&*answer.plaintext, &mut *bytes).map_err(|_| Unusable::NoFileKey)?;
    let file_key =
        bytes.first_chunk::<KEY_LEN>().filter(|_| decoded == KEY_LEN).ok_or(Unusable::NoFileKey)?;
    if !key.is_in_account_of(&answer.key_id) {
        return Err(Unusable::OtherAccount);
    }
    Ok(FileKey::new(file_key))
}

fn write(document: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, KeyServiceError> {
    let mut body = Zeroizing::new(Vec::with_capacity(REQUEST_SIZE));
    serde_json::to_writer(&mut *body, document).map_err(|_| impossible())?;
    Ok(body)
}

fn wiped<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

fn impossible() -> KeyServiceError {
    KeyServiceError::Refused("cannot write the request to AWS KMS".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234";

    fn key(name: &str) -> Key {
        Key::parse(name).unwrap()
    }

    #[test]
    fn requests_are_exact() {
        let text = |body: Zeroizing<Vec<u8>>| String::from_utf8(body.to_vec()).unwrap();
        let wrap = encrypt(&key("alias/images"), &FileKey::new(&[0; 32])).unwrap();
        assert_eq!(wrap.capacity(), REQUEST_SIZE);
        assert_eq!(
            text(wrap),
            "{\"KeyId\":\"alias/images\",\"Plaintext\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\",\
             \"EncryptionContext\":{\"orthanc-object-storage\":\"A2\"}}"
        );
        let context = "\"EncryptionContext\":{\"orthanc-object-storage\":\"A2\"}}";
        let unwrap = |name: &str| text(decrypt(&key(name), b"wrapped").unwrap());
        let expected = format!("{{\"KeyId\":\"{ARN}\",\"CiphertextBlob\":\"d3JhcHBlZA==\",{context}");
        assert_eq!(unwrap(ARN), expected);
        assert_eq!(unwrap("alias/images"), format!("{{\"CiphertextBlob\":\"d3JhcHBlZA==\",{context}"));
    }

    /// The buffer of a request must not grow, since the former one would not be wiped.
    #[test]
    fn longest_request_fits_in_its_buffer() {
        let longest = key(&format!("alias/{}", "x".repeat(2042)));
        assert_eq!(encrypt(&longest, &FileKey::new(&[0; 32])).unwrap().capacity(), REQUEST_SIZE);
    }

    #[test]
    fn answers_are_checked() {
        let wrapped = |blob: &str| encrypted(format!("{{\"CiphertextBlob\":{blob}}}").as_bytes());
        assert_eq!(wrapped("\"d3JhcHBlZA==\""), Ok(b"wrapped".to_vec()));
        let long = |len: usize| format!("\"{}\"", BASE64.encode(vec![7; len]));
        assert_eq!(wrapped(&long(LONGEST_CIPHERTEXT)).map(|bytes| bytes.len()), Ok(LONGEST_CIPHERTEXT));
        for bad in ["\"\"", "\"?\"", "7", "null", &long(LONGEST_CIPHERTEXT + 1)] {
            assert_eq!(wrapped(bad), Err(Unusable::NoCiphertext), "{bad}");
        }
        let unwrapped = |name: &str, bytes: &[u8]| {
            let text = BASE64.encode(bytes).replace('/', "\\/");
            let answer = format!("{{\"KeyId\":\"{ARN}\",\"Plaintext\":\"{text}\",\"More\":1}}");
            decrypted(&key(name), answer.as_bytes()).map(|file_key| *file_key.expose())
        };
        for name in [ARN, "alias/images", "arn:aws:kms:eu-central-1:111122223333:alias/images"] {
            assert_eq!(unwrapped(name, &[0xff; 32]), Ok([0xff; 32]));
            for len in [0, 1, 31, 33, 34, 64, 5000] {
                assert_eq!(unwrapped(name, &vec![0xff; len]), Err(Unusable::NoFileKey), "{len}");
            }
        }
        let other = "arn:aws:kms:eu-central-1:444455556666:alias/images";
        assert_eq!(unwrapped(other, &[0xff; 32]), Err(Unusable::OtherAccount));
        for bad in
            ["", "[]", "{}", "null", "<html>", "{\"Plaintext\":\"x\"}", "{\"KeyId\":1,\"Plaintext\":2}"]
        {
            assert_eq!(decrypted(&key(ARN), bad.as_bytes()).err(), Some(Unusable::NoFileKey), "{bad}");
        }
    }
}
