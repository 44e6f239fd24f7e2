//! Requests for objects whose names must not be in any log: they have UIDs of studies, for example.

tokio::task_local! {
    static HIDDEN: bool;
}

/// What replaces a name.
const GAP: &str = "…";
/// The shortest sequence of digits that is taken for a UID.
const SHORTEST_NUMBER: usize = 8;

/// Runs `operation`. If `hides` is true, its log lines and messages do not contain the paths of its requests. In texts of the
/// server, everything that resembles a UID is left out: servers quote the names of objects.
pub fn hiding_names<F: Future>(hides: bool, operation: F) -> impl Future<Output = F::Output> {
    HIDDEN.scope(hides, operation)
}

fn are_hidden() -> bool {
    HIDDEN.try_with(|hides| *hides).unwrap_or(false)
}

/// Returns the path of a request for the log.
pub(crate) fn shown_path(path: &str) -> &str {
    if are_hidden() { GAP } else { path }
}

/// Returns a text of a server for the log. It must not have been shortened: a part of a UID need not resemble one.
pub(crate) fn shown_text(text: String) -> String {
    if are_hidden() { without_uids(&text) } else { text }
}

/// Removes everything that resembles a UID.
pub fn without_uids(text: &str) -> String {
    let is_uid = |part: &str| part.matches('.').count() >= 2 || part.len() >= SHORTEST_NUMBER;
    let mut shown = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|letter: char| letter.is_ascii_digit()) {
        let (before, found) = rest.split_at(start);
        let end = found.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(found.len());
        let (number, after) = found.split_at(end);
        shown.push_str(before);
        shown.push_str(if is_uid(number) { GAP } else { number });
        rest = after;
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn uids_are_removed_where_names_are_hidden() {
        const TEXT: &str =
            "bucket/in/1.2.840.1/1.2.3/12345678901.dcm (1.2.840.1%2F1.2): 403, 16 MiB in 0.5 s";
        let shown = || (shown_path("/b/1.2.3"), shown_text(TEXT.to_owned()));
        assert_eq!(shown(), ("/b/1.2.3", TEXT.to_owned()));
        let hidden = hiding_names(true, async { shown() }).await;
        assert_eq!(hiding_names(false, async { shown() }).await, shown());
        // The name has another dot after the last UID.
        assert_eq!(hidden, ("…", "bucket/in/…/…/…dcm (…%2F1.2): 403, 16 MiB in 0.5 s".to_owned()));
    }
}
