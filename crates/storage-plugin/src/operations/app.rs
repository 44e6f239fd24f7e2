//! `GET /object-storage/app/`: the page, which shows what the other routes answer.

use orthanc_ffi::{Orthanc, OrthancError, RestAnswer};
use storage_app::{EXPLORER, PATH, Page};

use super::only_get;

/// Registers the page, and the links to it in Orthanc Explorer.
pub(crate) fn register(orthanc: &Orthanc) -> Result<(), OrthancError> {
    // Orthanc matches paths without the slash at their end. The page finds Orthanc in either case.
    orthanc.register_rest("/object-storage/app", |request| {
        only_get(request)?;
        Ok(answer(Page::get(), request.header("if-none-match")))
    })?;
    orthanc.set_root_uri(PATH)?;
    orthanc.extend_explorer(EXPLORER)
}

/// The page, or that the browser has it already.
fn answer(page: &Page, known: Option<&str>) -> RestAnswer {
    let is_known = known.is_some_and(|known| has_tag(known, page.etag()));
    let body = if is_known { "" } else { page.document() };
    let answer = RestAnswer::bytes("text/html; charset=utf-8", body)
        .with_header("Content-Security-Policy", page.policy())
        .with_header("X-Content-Type-Options", "nosniff")
        .with_header("Referrer-Policy", "no-referrer")
        .with_header("Cache-Control", "no-cache")
        .with_header("ETag", page.etag());
    if is_known { answer.with_status(304) } else { answer }
}

/// Whether the value of `If-None-Match` has this tag. A proxy that compresses answers makes their tags weak.
fn has_tag(known: &str, etag: &str) -> bool {
    let mut tags = known.split(',').map(str::trim);
    tags.any(|tag| tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_tag_of_a_proxy_is_known() {
        for known in ["\"a1\"", "W/\"a1\"", "\"b2\", W/\"a1\""] {
            assert!(has_tag(known, "\"a1\""), "{known}");
        }
        for other in ["", "W/", "\"b2\"", "W/\"b2\"", "a1"] {
            assert!(!has_tag(other, "\"a1\""), "{other}");
        }
    }
}
