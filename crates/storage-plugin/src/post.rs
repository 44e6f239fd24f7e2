//! Requests that change something.
//!
//! A browser sends the user's credentials with each request, also with one that another web site causes. Such a site can
//! send a form, but JSON only if the server allows it in an answer to `OPTIONS`, which Orthanc does not give. So a request
//! of a web page must be JSON. Programs such as curl do not say that they are web pages, and need not.

use orthanc_ffi::{Method, RestFailure, RestRequest};

/// Refuses everything but `POST`, and what a form of another web site can send.
///
/// # Errors
///
/// The refusal.
pub(crate) fn only_post(request: &RestRequest<'_>) -> Result<(), RestFailure> {
    if request.method() != Method::Post {
        return Err(RestFailure::MethodNotAllowed { allow: "POST" });
    }
    expect_json_of_web_pages(|name| request.header(name))
}

/// Refuses a body of a web page that is not JSON. `header` returns a header by its name in lower case.
///
/// # Errors
///
/// The refusal.
fn expect_json_of_web_pages<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Result<(), RestFailure> {
    // Browsers send `Origin` with each POST; `none` is what a user enters.
    let other_site = header("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"));
    if header("origin").is_none() && !other_site {
        return Ok(());
    }
    let content_type = header("content-type").unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = "a request of a web page must have the Content-Type application/json, so that no other web site can \
                   send it for the user";
    Err(RestFailure::Status { status: 415, message: message.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_accepted(headers: &[(&str, &'static str)]) -> bool {
        let find = |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        match expect_json_of_web_pages(find) {
            Ok(()) => true,
            Err(RestFailure::Status { status: 415, .. }) => false,
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn refusal() {
        let form = |name: &str| (name == "origin").then_some("https://example.com");
        let RestFailure::Status { status, message } = expect_json_of_web_pages(form).unwrap_err() else {
            panic!("not a status");
        };
        insta::with_settings!({
            snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/../testing/messages"),
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, { insta::assert_snapshot!("web-pages", format!("form of another web site\n    {status} {message}")) });
    }

    #[test]
    fn web_pages_must_send_json() {
        let json = ("content-type", "application/json");
        let with_charset = ("content-type", "Application/JSON ; charset=utf-8");
        let form = ("content-type", "application/x-www-form-urlencoded");
        let text = ("content-type", "text/plain; application/json");
        let looks_similar = ("content-type", "application/json-patch+json");
        let origin = ("origin", "https://example.com");
        let sandbox = ("origin", "null");
        let cross_site = ("sec-fetch-site", "cross-site");
        let same_site = ("sec-fetch-site", "same-site");
        let same_origin = ("sec-fetch-site", "same-origin");
        let entered = ("sec-fetch-site", "none");
        for (headers, accepted) in [
            // Programs.
            (&[][..], true),
            (&[form], true),
            (&[json], true),
            (&[entered, form], true),
            // Web pages.
            (&[origin, json], true),
            (&[origin, with_charset], true),
            (&[origin, cross_site, json], true),
            (&[origin], false),
            (&[origin, form], false),
            (&[origin, text], false),
            (&[origin, looks_similar], false),
            (&[origin, same_origin, text], false),
            (&[sandbox, form], false),
            (&[cross_site, form], false),
            (&[same_site, form], false),
            (&[same_origin, form], true),
        ] {
            assert_eq!(is_accepted(headers), accepted, "{headers:?}");
        }
    }
}
