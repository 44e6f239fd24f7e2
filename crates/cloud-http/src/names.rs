//! Requests for objects whose names must not be in any log: they have UIDs of studies, for example.

use std::sync::Arc;

tokio::task_local! {
    /// The name that is hidden with everything that resembles a UID.
    static HIDDEN: Option<Arc<str>>;
}

/// What replaces a name.
const GAP: &str = "…";
/// The shortest sequence of digits that is taken for a UID.
const SHORTEST_NUMBER: usize = 8;
/// The shortest name that is removed wherever it occurs. Shorter ones are parts of ordinary words.
const SHORTEST_NAME: usize = 4;

/// Runs `operation`. If there is a `name`, log lines and messages do not contain the paths of its requests. In texts of the
/// server, the name and everything that resembles a UID are left out: servers quote the names of objects.
pub fn hiding_names<F: Future>(name: Option<Arc<str>>, operation: F) -> impl Future<Output = F::Output> {
    HIDDEN.scope(name, operation)
}

fn hidden() -> Option<Arc<str>> {
    HIDDEN.try_with(Clone::clone).ok().flatten()
}

/// Returns the path of a request for the log.
pub(crate) fn shown_path(path: &str) -> &str {
    if hidden().is_some() { GAP } else { path }
}

/// Returns a text of a server for the log. It must not have been shortened: a part of a UID need not resemble one.
pub(crate) fn shown_text(text: String) -> String {
    match hidden() {
        Some(name) => without_name(&text, &name),
        None => text,
    }
}

/// Removes `name`, also where some of its characters are percent-encoded, and everything that resembles a UID.
pub fn without_name(text: &str, name: &str) -> String {
    if name.len() < SHORTEST_NAME {
        return without_uids(text);
    }
    let mut shown = String::new();
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let length = match quoted_length(rest, name) {
            Some(length) => {
                shown.push_str(GAP);
                length
            }
            None => {
                shown.push(letter);
                letter.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    without_uids(&shown)
}

/// Returns how many bytes `name` takes at the beginning of `text`, percent-encoded or not.
fn quoted_length(text: &str, name: &str) -> Option<usize> {
    let mut rest = text.as_bytes();
    for byte in name.bytes() {
        rest = match rest {
            [first, after @ ..] if *first == byte => after,
            [b'%', high, low, after @ ..] if hex(*high, *low) == Some(byte) => after,
            _ => return None,
        };
    }
    Some(text.len() - rest.len())
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |letter: u8| char::from(letter).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? * 16 + digit(low)?)
}

/// Removes everything that resembles a UID. Its dots may be percent-encoded.
fn without_uids(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|letter: char| letter.is_ascii_digit()) {
        let (before, found) = rest.split_at(start);
        let (length, is_uid) = number(found);
        let (number, after) = found.split_at(length);
        shown.push_str(before);
        shown.push_str(if is_uid { GAP } else { number });
        rest = after;
    }
    shown.push_str(rest);
    shown
}

/// Returns the length of the digits and dots at the beginning of `text`, and whether they resemble a UID.
fn number(text: &str) -> (usize, bool) {
    let mut rest = text.as_bytes();
    let mut dots = 0;
    let mut others = 0;
    loop {
        rest = match rest {
            [b'0'..=b'9', after @ ..] => {
                others += 1;
                after
            }
            [b'.', after @ ..] | [b'%', b'2', b'E' | b'e', after @ ..] => {
                dots += 1;
                after
            }
            _ => return (text.len() - rest.len(), dots >= 2 || dots + others >= SHORTEST_NUMBER),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UIDS: &str = "bucket/in/1.2.840.1/1.2.3/12345678901.dcm (1.2.840.1%2F1.2): 403, 16 MiB in 0.5 s";

    #[tokio::test]
    async fn uids_are_removed_where_names_are_hidden() {
        let shown = || (shown_path("/b/1.2.3"), shown_text(UIDS.to_owned()));
        assert_eq!(shown(), ("/b/1.2.3", UIDS.to_owned()));
        let hidden = hiding_names(Some("name".into()), async { shown() }).await;
        assert_eq!(hiding_names(None, async { shown() }).await, shown());
        // The name has another dot after the last UID.
        assert_eq!(hidden, ("…", "bucket/in/…/…/…dcm (…%2F1.2): 403, 16 MiB in 0.5 s".to_owned()));
    }

    #[test]
    fn names_are_removed_in_each_encoding() {
        let name = "1.2/3.4/é.dcm";
        for text in ["1.2/3.4/é.dcm", "1.2%2F3.4%2f%C3%A9.dcm", "1%2E2/3.4/%c3%a9%2edcm"] {
            assert_eq!(without_name(&format!("no é {text}: 3.4 %"), name), "no é …: 3.4 %", "{text}");
        }
        // Percent-encoded dots are dots.
        assert_eq!(without_name("/1%2E2%2e840/x", name), "/…/x");
        // A name that is part of ordinary words, or is not known.
        for name in ["", "a"] {
            assert_eq!(without_name("a 1.2.3 bucket", name), "a … bucket");
        }
    }
}
