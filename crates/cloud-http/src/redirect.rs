//! Redirects: which are followed, and to which server.
//!
//! The method and the body are kept (307 and 308), and so are the credentials. They must not reach another
//! site, and never an unencrypted one after an encrypted one.

use http::header::LOCATION;
use http::{HeaderMap, StatusCode, Uri};
use object_store::client::HttpResponse;

/// Domains of clouds, whose own redirects may lead to any of their hosts.
const CLOUDS: [&str; 5] =
    ["amazonaws.com", "amazonaws.com.cn", "core.windows.net", "core.chinacloudapi.cn", "googleapis.com"];
/// Maximum number of redirects of one request.
pub const MAX_REDIRECTS: usize = 2;

/// Returns the address to which the request for `uri` is to be sent again, with the same method and body; `None` if
/// `response` is not such a redirect, or leads to a server that must not see the request.
///
/// A request whose signature contains the host must be signed again.
pub fn redirect_target(uri: &Uri, response: &HttpResponse) -> Option<Uri> {
    let is_kept =
        matches!(response.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let target = location(uri, response.headers()).filter(|_| is_kept)?;
    let is_encrypted = |uri: &Uri| uri.scheme_str() == Some("https");
    let is_weaker = is_encrypted(uri) && !is_encrypted(&target);
    (!is_weaker && is_same_site(uri.host()?, target.host()?)).then_some(target)
}

/// Returns the absolute address in `Location`.
fn location(uri: &Uri, headers: &HeaderMap) -> Option<Uri> {
    let text = headers.get(LOCATION)?.to_str().ok()?;
    let target: Uri = text.parse().ok()?;
    if target.scheme().is_some() {
        return Some(target).filter(|target| matches!(target.scheme_str(), Some("http" | "https")));
    }
    // `//host/path` would otherwise be taken for a path.
    let path = text.starts_with('/') && !text.starts_with("//");
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = target.into_parts().path_and_query.filter(|_| path);
    Uri::from_parts(parts).ok().filter(|_| path)
}

/// Returns the server in `Location`, for messages: its path and query can be secret.
pub(crate) fn server(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let target = location(uri, headers)?;
    let host = target.host()?;
    let port = target.port().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{}://{host}{port}", target.scheme_str()?))
}

fn is_same_site(from: &str, to: &str) -> bool {
    let [from, to] = [from, to].map(|host| host.trim_end_matches('.').to_ascii_lowercase());
    let is_below = |host: &str, domain: &str| {
        host.strip_suffix(domain).is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('.'))
    };
    is_below(&to, &from) || CLOUDS.iter().any(|cloud| is_below(&from, cloud) && is_below(&to, cloud))
}

#[cfg(test)]
mod tests {
    use object_store::client::HttpResponseBody;

    use super::*;

    fn target(status: u16, from: &str, to: &str) -> Option<String> {
        let mut response = HttpResponse::new(HttpResponseBody::from(Vec::<u8>::new()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response.headers_mut().insert(LOCATION, to.parse().unwrap());
        redirect_target(&from.parse().unwrap(), &response).map(|uri| uri.to_string())
    }

    #[test]
    fn redirects_within_a_site_are_followed() {
        for (from, to, expected) in [
            ("http://a.test/b", "http://a.test:9000/c?d=e", "http://a.test:9000/c?d=e"),
            ("http://a.test:9000/b?x=y", "/c?d=e", "http://a.test:9000/c?d=e"),
            ("http://a.test/b", "https://A.test/b", "https://A.test/b"),
            ("https://s3.a.test/b", "https://bucket.s3.a.test/", "https://bucket.s3.a.test/"),
            (
                "https://bucket.s3.amazonaws.com/k",
                "https://bucket.s3.eu-central-1.amazonaws.com/k",
                "https://bucket.s3.eu-central-1.amazonaws.com/k",
            ),
        ] {
            assert_eq!(target(307, from, to).as_deref(), Some(expected));
            assert_eq!(target(308, from, to).as_deref(), Some(expected));
        }
    }

    #[test]
    fn other_redirects_are_not_followed() {
        for (from, to) in [
            ("https://a.test/b", "http://a.test/b"),
            ("https://a.test/b", "https://b.test/b"),
            ("https://a.test/b", "https://evil-a.test/b"),
            ("https://storage.hospital.test/b", "https://evil.hospital.test/b"),
            ("https://a.test/b", "//b.test/b"),
            ("https://a.test/b", "ftp://a.test/b"),
            ("https://a.test/b", "b"),
            ("https://a.test/b", "https://user@b.test/@a.test"),
            ("http://127.0.0.1/b", "http://127.0.0.2/b"),
            ("https://a.amazonaws.com/", "https://a.amazonaws.com.evil.test/"),
        ] {
            assert_eq!(target(307, from, to), None, "{from} {to}");
        }
        for status in [200, 301, 302, 303, 304] {
            assert_eq!(target(status, "http://a.test/b", "/c"), None);
        }
    }
}
