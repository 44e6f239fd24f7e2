//! What a browser relies on, and what nobody may add by mistake.

use super::*;

/// The text between two markers.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let from = text.find(start).unwrap() + start.len();
    &text[from..from + text[from..].find(end).unwrap()]
}

#[test]
fn page_is_small() {
    let size = Page::get().document().len();
    assert!(size <= 150_000, "{size}");
    assert!(EXPLORER.len() <= 4_000);
}

#[test]
fn policy_has_the_hashes_of_what_the_browser_sees() {
    let page = Page::get();
    let document = page.document();
    let script = between(document, "<script type=\"module\">", "</script>");
    let style = between(document, "<style>", "</style>");
    assert!(page.policy().contains(&format!("script-src '{}'", source_hash(script))), "{}", page.policy());
    assert!(page.policy().contains(&format!("style-src '{}'", source_hash(style))), "{}", page.policy());
    assert!(page.policy().starts_with("default-src 'none';"));
    assert!(!page.policy().contains("unsafe"));
    // A browser reads CRLF as LF, so that the hashes would differ.
    assert!(!document.contains('\r'));
    // A second script or style would be blocked.
    assert_eq!(document.matches("<script").count(), 1);
    assert_eq!(document.matches("<style").count(), 1);
}

#[test]
fn page_has_no_external_resource() {
    let known = ["http://www.w3.org/2000/svg"];
    for text in [Page::get().document(), EXPLORER] {
        for (at, _) in text.match_indices("://") {
            let start = text[..at].rfind(|c: char| !c.is_ascii_alphabetic()).map_or(0, |before| before + 1);
            assert!(known.iter().any(|url| text[start..].starts_with(url)), "{}", &text[start..at + 30]);
        }
        assert!(!text.contains("src=\"") && !text.contains("@import") && !text.contains("url("));
    }
}

#[test]
fn server_strings_cannot_become_markup() {
    let forbidden = [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "DOMParser",
        "srcdoc",
        "javascript:",
        "createContextualFragment",
        "setHTMLUnsafe",
    ];
    for (script, name) in SCRIPTS.iter().chain([&EXPLORER]).zip(0..) {
        for word in forbidden {
            assert!(!script.contains(word), "script {name}: {word}");
        }
    }
    // No handlers in attributes: the policy blocks them.
    for attribute in ["onclick=", "onload=", "onerror=", "onsubmit=", "style=\""] {
        assert!(!DOCUMENT.contains(attribute), "{attribute}");
    }
}

#[test]
fn requests_are_relative_and_not_cached() {
    let script = SCRIPTS.concat();
    // One place that knows where Orthanc is.
    assert_eq!(script.matches("fetch(").count(), 1);
    assert_eq!(script.matches("cache: \"no-store\"").count(), 1);
    assert!(!script.contains("XMLHttpRequest"));
}

#[test]
fn ids_are_unique_and_exist() {
    let ids: Vec<&str> =
        DOCUMENT.match_indices(" id=\"").map(|(at, _)| between(&DOCUMENT[at..], " id=\"", "\"")).collect();
    let mut unique = ids.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), ids.len());
    let script = SCRIPTS.concat();
    for (at, _) in script.match_indices("byId(\"") {
        let id = between(&script[at..], "byId(\"", "\"");
        assert!(ids.contains(&id), "{id}");
    }
}

#[test]
fn etag_is_a_quoted_hash() {
    let etag = Page::get().etag();
    assert_eq!(etag.len(), 26);
    assert!(etag.trim_matches('"').bytes().all(|byte| byte.is_ascii_hexdigit()), "{etag}");
}
