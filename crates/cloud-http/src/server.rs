//! URLs of the server that was asked last.

use std::fmt;

use http::Uri;
use http::uri::{Authority, Scheme};
use parking_lot::Mutex;
use reqwest::Url;

/// The server that was asked last. Parsing the host is most of the cost of parsing a URL, and usually there is only one.
#[derive(Default)]
pub(crate) struct LastServer(Mutex<Option<(Scheme, Authority, Url)>>);

impl fmt::Debug for LastServer {
    /// Without the URL, which may have a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastServer").finish_non_exhaustive()
    }
}

impl LastServer {
    /// Returns `uri` as a URL; `None` if it is not valid.
    pub(crate) fn url(&self, uri: &Uri) -> Option<Url> {
        let scheme = uri.scheme()?;
        let authority = uri.authority()?;
        let mut url = self.server(scheme, authority)?;
        url.set_path(uri.path());
        url.set_query(uri.query());
        Some(url)
    }

    fn server(&self, scheme: &Scheme, authority: &Authority) -> Option<Url> {
        let mut last = self.0.lock();
        if let Some((last_scheme, last_authority, url)) = &*last
            && last_scheme == scheme
            // Not by its `==`, which ignores the case of user and password.
            && last_authority.as_str() == authority.as_str()
        {
            return Some(url.clone());
        }
        let url: Url = format!("{scheme}://{authority}/").parse().ok()?;
        *last = Some((scheme.clone(), authority.clone(), url.clone()));
        Some(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_those_of_the_whole_text() {
        let server = LastServer::default();
        for text in [
            "http://127.0.0.1:9000/bucket/a.dcm",
            "http://127.0.0.1:9000/bucket/b%20c%2Fd+e~f/../g/./h//i",
            "http://127.0.0.1:9000",
            "http://127.0.0.1:9000?",
            "http://127.0.0.1:9001/?list-type=2&prefix=a%2Fb'c+d",
            "http://127.0.0.1:9001/bucket?uploads",
            "https://Bucket.S3.example.org:443/a\\b|c\"d^ef{g}",
            "https://Bucket.S3.example.org/%C3%A9:@!$&'()*+,;=/?a=?b/c|d",
            "https://user:PASSWORD@example.org/a",
            "https://user:password@example.org/a",
            "http://[fd00::1]:9000/a",
        ] {
            let uri: Uri = text.parse().unwrap();
            let expected: Url = uri.to_string().parse().unwrap();
            assert_eq!(server.url(&uri).unwrap().as_str(), expected.as_str());
            assert_eq!(server.url(&uri), Some(expected), "asked again");
        }
        assert_eq!(server.url(&Uri::from_static("/a")), None);
    }
}
