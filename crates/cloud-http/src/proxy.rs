//! Which requests go through a proxy.

use std::fmt;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{NoProxy, Proxy};

use crate::error::HttpConfigError;

/// This machine, link-local addresses and the clouds' metadata services. A proxy could read the credentials
/// that these services issue, and would ask for its own.
const NEVER_PROXIED: &str = "localhost,127.0.0.0/8,::1,::ffff:127.0.0.0/104,\
                             169.254.0.0/16,fe80::/10,fd00:ec2::/32,::ffff:169.254.0.0/112,\
                             metadata.google.internal,metadata.goog,metadata";
/// Environment variables that name another metadata service.
const METADATA_SERVICES: [&str; 6] = [
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "GCE_METADATA_HOST",
    "GCE_METADATA_IP",
    "IDENTITY_ENDPOINT",
    "MSI_ENDPOINT",
];

/// The proxies of a client, and the hosts that are reached without one. Strings are empty if there is none.
#[derive(Default)]
pub(crate) struct Rules {
    http: String,
    https: String,
    all: String,
    direct: String,
}

impl Rules {
    /// The proxy of `option`, none if it is empty; if it is missing, those of the environment, whose variables
    /// have the same meaning as for `reqwest`.
    pub(crate) fn new(option: Option<&str>, variable: impl Fn(&str) -> Option<String>) -> Self {
        let either = |upper, lower| variable(upper).or_else(|| variable(lower)).unwrap_or_default();
        let mut direct = vec![NEVER_PROXIED.to_owned(), either("NO_PROXY", "no_proxy")];
        direct.extend(METADATA_SERVICES.iter().filter_map(|name| unencrypted_host(&variable(name)?)));
        let direct = direct.join(",");
        match option {
            Some(proxy) => Self { all: proxy.to_owned(), direct, ..Self::default() },
            // A web server sets this variable for CGI programs, and `HTTP_PROXY` is then a header of the request.
            None if variable("REQUEST_METHOD").is_some() => Self::default(),
            None => Self {
                http: either("HTTP_PROXY", "http_proxy"),
                https: either("HTTPS_PROXY", "https_proxy"),
                all: either("ALL_PROXY", "all_proxy"),
                direct,
            },
        }
    }
}

impl fmt::Debug for Rules {
    /// Omits the addresses, which may contain passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rules(…)")
    }
}

/// Returns the proxies of a client, of which the first that applies to a request is used.
pub(crate) fn proxies(rules: &Rules, option: Option<&str>) -> Result<Vec<Proxy>, HttpConfigError> {
    let exclude = |proxy: Proxy| proxy.no_proxy(NoProxy::from_string(&rules.direct));
    let all = Proxy::all(&rules.all);
    if option.is_some_and(|option| !option.is_empty()) {
        return Ok(vec![exclude(all.map_err(|_| HttpConfigError::Proxy)?)]);
    }
    let of_environment = [Proxy::http(&rules.http), Proxy::https(&rules.https), all];
    // An address that is empty or not valid means no proxy.
    Ok(of_environment.into_iter().flatten().map(exclude).collect())
}

/// Returns the proxy through which a client with this [`HttpOptions::proxy`] sends requests to `server`, without
/// user and password; `None` if it sends them directly.
///
/// [`HttpOptions::proxy`]: crate::HttpOptions::proxy
pub fn proxy_for(option: Option<&str>, server: &str) -> Option<String> {
    used(&Rules::new(option, |name| std::env::var(name).ok()), server)
}

/// As [`proxy_for`], by the rules of a client.
pub(crate) fn used(rules: &Rules, server: &str) -> Option<String> {
    let matcher = Matcher::builder()
        .http(rules.http.as_str())
        .https(rules.https.as_str())
        .all(rules.all.as_str())
        .no(rules.direct.as_str())
        .build();
    let proxy = matcher.intercept(&server.parse().ok()?)?;
    let authority = proxy.uri().authority()?.as_str();
    let host = authority.rsplit_once('@').map_or(authority, |(_user, host)| host);
    Some(format!("{}://{host}", proxy.uri().scheme_str()?))
}

/// Returns the host of `[http://]host[:port][/path]`; `None` for `https`, where a proxy reads nothing.
fn unencrypted_host(address: &str) -> Option<String> {
    let (scheme, rest) = address.split_once("://").unwrap_or(("http", address));
    if !scheme.eq_ignore_ascii_case("http") {
        return None;
    }
    let authority = rest.split(['/', '?']).next()?;
    let host = match authority.strip_prefix('[') {
        Some(address) => address.split(']').next()?,
        None => authority.split(':').next()?,
    };
    (!host.is_empty()).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{Ipv4Addr, TcpListener};
    use std::sync::Arc;
    use std::time::Duration;

    use parking_lot::Mutex;

    use super::*;

    fn proxies_of(
        option: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<Proxy>, HttpConfigError> {
        proxies(&Rules::new(option, variable), option)
    }

    /// A proxy that answers every request itself, and records its first line.
    struct SmallProxy {
        url: String,
        asked: Arc<Mutex<Vec<String>>>,
    }

    impl SmallProxy {
        fn start() -> Self {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let asked = Arc::<Mutex<Vec<_>>>::default();
            let record = Arc::clone(&asked);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                    record.lock().extend(lines.next());
                    lines.find(String::is_empty);
                    let _ = (&stream).write_all(b"HTTP/1.1 204 OK\r\nConnection: close\r\n\r\n");
                }
            });
            Self { url, asked }
        }

        /// Sends a request to each of `hosts`, and returns the number of those that the proxy has seen.
        async fn seen(&self, option: bool, variables: &[(&str, &str)], urls: &[&str]) -> usize {
            let variables: BTreeMap<_, _> = variables.iter().copied().collect();
            let variable = |name: &str| variables.get(name).map(|value| (*value).replace("PROXY", &self.url));
            let rules = Rules::new(option.then_some(self.url.as_str()), variable);
            let described = urls.iter().filter(|url| used(&rules, url).is_some()).count();
            let mut builder = reqwest::Client::builder().timeout(Duration::from_millis(500)).no_proxy();
            for proxy in proxies_of(option.then_some(self.url.as_str()), variable).unwrap() {
                builder = builder.proxy(proxy);
            }
            let client = builder.build().unwrap();
            for url in urls {
                // Fails unless the proxy answers. Nothing listens on these ports.
                let _ = client.get(*url).send().await;
            }
            let seen = std::mem::take(&mut *self.asked.lock()).len();
            assert_eq!(described, seen, "{variables:?}");
            seen
        }
    }

    const ENVIRONMENTS: [&[(&str, &str)]; 5] = [
        &[("HTTP_PROXY", "PROXY"), ("HTTPS_PROXY", "PROXY")],
        &[("http_proxy", "PROXY"), ("https_proxy", "PROXY")],
        &[("ALL_PROXY", "PROXY")],
        &[("all_proxy", "PROXY")],
        &[("ALL_PROXY", "PROXY"), ("NO_PROXY", "hospital.test")],
    ];

    #[tokio::test]
    async fn metadata_services_are_never_asked_through_a_proxy() {
        let services = [
            "http://169.254.169.254:1/",
            "http://169.254.170.2:1/",
            "http://169.254.170.23:1/",
            "http://[fd00:ec2::23]:1/",
            "http://[fd00:ec2::254]:1/",
            "http://[fe80::1]:1/",
            "http://[::ffff:169.254.169.254]:1/",
            "http://metadata.google.internal:1/",
            "http://localhost:1/",
            "http://127.0.0.1:1/",
            "http://127.8.8.8:1/",
            "http://[::1]:1/",
            "https://localhost:1/",
        ];
        let proxy = SmallProxy::start();
        for variables in ENVIRONMENTS {
            assert_eq!(proxy.seen(false, variables, &services).await, 0, "{variables:?}");
            assert_eq!(proxy.seen(false, variables, &["http://storage.test/"]).await, 1, "{variables:?}");
            assert_eq!(proxy.seen(false, variables, &["https://storage.test/"]).await, 1, "{variables:?}");
        }
        assert_eq!(proxy.seen(true, &[], &services).await, 0);
        assert_eq!(proxy.seen(true, &[], &["http://storage.test/", "https://storage.test/"]).await, 2);
    }

    #[tokio::test]
    async fn services_named_in_the_environment_are_never_asked_through_a_proxy() {
        let proxy = SmallProxy::start();
        for (name, value) in [
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://imds.test:1/path"),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "HTTP://imds.test/role?a=b"),
            ("GCE_METADATA_HOST", "imds.test:1"),
            ("GCE_METADATA_IP", "imds.test"),
            ("IDENTITY_ENDPOINT", "http://imds.test/msi/token"),
        ] {
            let variables = [("ALL_PROXY", "PROXY"), (name, value)];
            assert_eq!(proxy.seen(false, &variables, &["http://imds.test:1/"]).await, 0, "{name}");
            assert_eq!(proxy.seen(false, &variables, &["http://storage.test/"]).await, 1, "{name}");
        }
        let encrypted =
            [("ALL_PROXY", "PROXY"), ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "https://imds.test/")];
        assert_eq!(proxy.seen(false, &encrypted, &["https://imds.test/"]).await, 1);
    }

    #[tokio::test]
    async fn no_proxy_applies_to_option_and_environment() {
        let proxy = SmallProxy::start();
        let urls = ["http://hospital.test:1/", "https://a.hospital.test:1/", "http://10.1.2.3:1/"];
        for name in ["NO_PROXY", "no_proxy"] {
            let excluded = (name, "hospital.test, 10.0.0.0/8");
            assert_eq!(proxy.seen(true, &[excluded], &urls).await, 0, "{name}");
            assert_eq!(proxy.seen(false, &[("ALL_PROXY", "PROXY"), excluded], &urls).await, 0, "{name}");
            assert_eq!(proxy.seen(true, &[excluded], &["http://storage.test/"]).await, 1, "{name}");
        }
        assert_eq!(proxy.seen(true, &[], &urls).await, 3);
    }

    #[tokio::test]
    async fn environment_has_the_usual_meaning() {
        let proxy = SmallProxy::start();
        let urls = ["http://storage.test/", "https://storage.test/"];
        for (variables, expected) in [
            (&[][..], 0),
            (&[("HTTP_PROXY", "PROXY")], 1),
            (&[("HTTPS_PROXY", "PROXY")], 1),
            (&[("HTTPS_PROXY", ""), ("ALL_PROXY", "PROXY")], 2),
            // An upper-case variable hides the other, even if it is empty.
            (&[("ALL_PROXY", ""), ("all_proxy", "PROXY")], 0),
            (&[("REQUEST_METHOD", "GET"), ("ALL_PROXY", "PROXY")], 0),
        ] {
            assert_eq!(proxy.seen(false, variables, &urls).await, expected, "{variables:?}");
        }
        let environment = |name: &str| (name == "ALL_PROXY").then(|| proxy.url.clone());
        assert!(proxies_of(Some(""), environment).unwrap().is_empty());
        assert_eq!(used(&Rules::new(Some(""), environment), "http://storage.test/"), None);
        let invalid = proxies_of(Some("http://"), |_| None).unwrap_err();
        assert!(matches!(invalid, HttpConfigError::Proxy));
    }

    #[test]
    fn description_of_a_proxy_has_no_password() {
        for option in ["http://user:hunter2@proxy.test:3128", "user:hunter2@proxy.test:3128"] {
            let described = proxy_for(Some(option), "https://storage.test/");
            assert_eq!(described.as_deref(), Some("http://proxy.test:3128"));
        }
    }
}
