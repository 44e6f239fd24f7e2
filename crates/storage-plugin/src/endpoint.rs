//! Addresses of servers.

use url::{Host, Url};

use crate::config::{ConfigError, Section};

/// Parses a server URL: `http(s)`, host, optional port and path.
pub fn parse_endpoint(text: &str) -> Option<Url> {
    let url: Url = text.parse().ok()?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.has_host();
    (plain && matches!(url.scheme(), "http" | "https")).then_some(url)
}

/// Parses `text`, the value of `option`, as the address of a server in which `https://` may be missing. A path would become
/// part of the names of objects, which could not be found any more once it is corrected.
///
/// # Errors
///
/// Returns an error about `option` if `text` is anything else. The message does not quote a value that may
/// hold a password or a signature.
pub fn endpoint_option(section: &Section<'_>, option: &str, text: &str) -> Result<Url, ConfigError> {
    const EXPECTED: &str = "must be [https://]host[:port]";
    let text = text.trim();
    let address = text.trim_end_matches('/');
    let parsed = if text.contains("://") {
        parse_endpoint(address)
    } else {
        parse_endpoint(&format!("https://{address}"))
    };
    let has_path = parsed.as_ref().is_some_and(|url| url.path() != "/");
    parsed.filter(|_| !has_path).ok_or_else(|| {
        let host = text.split_once("://").map_or(text, |(_scheme, host)| host);
        let port = host.split_once(':').map_or("", |(_host, port)| port.trim_end_matches('/'));
        // In an address whose host was forgotten, a password stands where the port should be.
        let may_be_secret = text.contains(['@', '?', '#']) || port.contains(|c: char| !c.is_ascii_digit());
        let problem = if may_be_secret {
            format!("{EXPECTED} without user name, password, path, query or fragment")
        } else {
            let without_path = if has_path { " without a path" } else { "" };
            format!("{EXPECTED}{without_path}, got {text:?}")
        };
        section.error(option, problem)
    })
}

/// Whether others can read or change what is sent to `endpoint`: `http` to another machine. Logs a warning if
/// so.
pub fn warn_if_exposed(endpoint: &Url) -> bool {
    let exposed = is_exposed(endpoint);
    if exposed {
        tracing::warn!("the endpoint {endpoint} is not encrypted; use https");
    }
    exposed
}

/// As [`warn_if_exposed`], without the warning.
pub(crate) fn is_exposed(endpoint: &Url) -> bool {
    let loopback = match endpoint.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    endpoint.scheme() == "http" && !loopback
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_to_other_machines_is_exposed() {
        let exposed = |url: &str| is_exposed(&url.parse().unwrap());
        assert!(exposed("http://minio:9000"));
        assert!(exposed("http://192.168.1.2:9000"));
        for safe in [
            "https://minio",
            "http://localhost:9000",
            "http://b.localhost",
            "http://127.0.0.1:1",
            "http://[::1]:1",
        ] {
            assert!(!exposed(safe), "{safe}");
        }
    }

    #[test]
    fn endpoint_is_nothing_but_an_address() {
        for good in ["http://127.0.0.1:10000/devstoreaccount1", "https://storage.googleapis.com"] {
            assert!(parse_endpoint(good).is_some(), "{good}");
        }
        for bad in [
            "storage",
            "ftp://storage",
            "https://",
            "https://user@storage",
            "https://:hunter2@storage",
            "https://storage?a=b",
            "https://storage#a",
            "mailto:a@b",
        ] {
            assert!(parse_endpoint(bad).is_none(), "{bad}");
        }
    }
}
