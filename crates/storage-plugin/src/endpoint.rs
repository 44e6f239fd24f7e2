//! Addresses of servers.

use url::{Host, Url};

/// The address of a server, where `text` is one and nothing more: `http` or `https`, a host, perhaps a path.
pub fn parse_endpoint(text: &str) -> Option<Url> {
    let url: Url = text.parse().ok()?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.has_host();
    (plain && matches!(url.scheme(), "http" | "https")).then_some(url)
}

/// Whether what is sent to `endpoint` can be read or changed on its way, which is worth a warning: `http`, and not on
/// this machine.
pub fn warn_if_exposed(endpoint: &Url) -> bool {
    let exposed = is_exposed(endpoint);
    if exposed {
        tracing::warn!("the endpoint {endpoint} is not encrypted: use https");
    }
    exposed
}

fn is_exposed(endpoint: &Url) -> bool {
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
    fn only_http_beyond_this_machine_is_exposed() {
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
    fn an_endpoint_is_an_address_and_nothing_more() {
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
