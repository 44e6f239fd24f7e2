//! Finds out that a server speaks TLS where it was addressed as `http://`.
//!
//! Such servers answer with a page that says so, with bytes that are not HTTP, or close the connection.

use std::time::Duration;

use http::{StatusCode, Uri};
use reqwest::Method;

use crate::error::TransportError;

/// How long to wait for the answer to a TLS handshake.
const LIMIT: Duration = Duration::from_secs(3);

/// Whether a refusal says that TLS is needed: those of nginx, Apache, Go and Tomcat, which have status 400.
pub(crate) fn demands_tls(uri: &Uri, status: StatusCode, body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body).to_lowercase();
    let is_meant = || {
        ["https port", "https server", "ssl-enabled server", "requires tls"]
            .iter()
            .any(|part| text.contains(part))
    };
    is_plain(uri) && status == StatusCode::BAD_REQUEST && is_meant()
}

/// Replaces an error that TLS would explain, if the server at `uri` turns out to speak it.
pub(crate) async fn explain(client: &reqwest::Client, uri: &Uri, error: TransportError) -> TransportError {
    let is_unclear = matches!(error, TransportError::Interrupted { .. } | TransportError::Protocol { .. });
    if is_unclear && is_plain(uri) && speaks_tls(client, uri).await { TransportError::OnlyTls } else { error }
}

fn is_plain(uri: &Uri) -> bool {
    uri.scheme_str() == Some("http")
}

/// Whether the server answers a TLS handshake. A certificate that is not trusted is an answer, too.
async fn speaks_tls(client: &reqwest::Client, uri: &Uri) -> bool {
    let port = uri.port_u16().unwrap_or(80);
    let Some(Ok(url)) = uri.host().map(|host| format!("https://{host}:{port}/").parse()) else {
        return false;
    };
    let mut request = reqwest::Request::new(Method::HEAD, url);
    *request.timeout_mut() = Some(LIMIT);
    match client.execute(request).await {
        Ok(_) => true,
        Err(error) => matches!(TransportError::from_reqwest(&error), TransportError::Certificate { .. }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_that_demand_tls_are_recognized() {
        let demands = |uri: &str, status: u16, body: &str| {
            demands_tls(&uri.parse().unwrap(), StatusCode::from_u16(status).unwrap(), body.as_bytes())
        };
        for body in [
            "<html><body>The plain HTTP request was sent to HTTPS port</body></html>",
            "Client sent an HTTP request to an HTTPS server.\n",
            "Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />",
            "Bad Request\r\nThis combination of host and port requires TLS.\r\n",
        ] {
            assert!(demands("http://host:9000/b", 400, body), "{body}");
            assert!(!demands("https://host:9000/b", 400, body), "{body}");
            assert!(!demands("http://host:9000/b", 403, body), "{body}");
        }
        assert!(!demands("http://host/b", 400, "<Error><Code>InvalidRequest</Code></Error>"));
    }
}
