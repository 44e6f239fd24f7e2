//! The identifier of a key: `https://NAME.vault.azure.net/keys/KEY/VERSION`.

use std::fmt;

use url::Url;

/// A key in a vault, or one version of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyId {
    /// `https://NAME.vault.azure.net/`
    vault: Url,
    name: String,
    version: Option<String>,
}

impl KeyId {
    /// Parses an identifier with or without version.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let vault = vault(&url)?;
        let mut segments: Vec<_> = url.path_segments()?.collect();
        segments.pop_if(|segment| segment.is_empty());
        let (name, version) = match segments[..] {
            ["keys", name] => (name, None),
            ["keys", name, version] => (name, Some(version)),
            _ => return None,
        };
        let is_plain = is_name(name) && version.is_none_or(is_name);
        is_plain.then(|| Self { vault, name: name.to_owned(), version: version.map(str::to_owned) })
    }

    /// Returns the key `name` of the vault at `base`.
    pub(crate) fn in_vault(base: &str, name: &str) -> Option<Self> {
        let url = Url::parse(base).ok().filter(|url| url.path() == "/")?;
        is_name(name).then_some(Self { vault: vault(&url)?, name: name.to_owned(), version: None })
    }

    /// Returns the URL of the vault.
    pub(crate) fn vault(&self) -> &Url {
        &self.vault
    }

    /// Returns the vault's host.
    pub(crate) fn host(&self) -> &str {
        self.vault.host_str().unwrap_or_default()
    }

    pub(crate) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Parses the identifier of a version of this key, whose letters may have another case.
    pub(crate) fn parse_version(&self, text: &str) -> Option<Self> {
        let other = Self::parse(text)?;
        let is_same = other.vault == self.vault && other.name.eq_ignore_ascii_case(&self.name);
        (is_same && other.version.is_some()).then_some(other)
    }

    /// Returns the URL of the key, or of an operation with it.
    pub(crate) fn url(&self, operation: Option<&str>) -> Url {
        const API_VERSION: &str = "api-version=7.4";
        let parts = [Some("keys"), Some(self.name.as_str()), self.version(), operation];
        let mut url = self.vault.clone();
        url.set_path(&parts.into_iter().flatten().collect::<Vec<_>>().join("/"));
        url.set_query(Some(API_VERSION));
        url
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}keys/{}", self.vault, self.name)?;
        self.version.iter().try_for_each(|version| write!(f, "/{version}"))
    }
}

/// Returns the root of a URL with nothing but scheme, host, port and path.
fn vault(url: &Url) -> Option<Url> {
    let mut vault = url.clone();
    vault.set_path("/");
    let authority = format!("https://{}", &url[url::Position::BeforeHost..url::Position::AfterPort]);
    (vault.as_str() == format!("{authority}/")).then_some(vault)
}

/// Whether `text` can be the name of a key or a version. It becomes part of a path.
fn is_name(text: &str) -> bool {
    (1..=127).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_parsed() {
        for (text, expected) in [
            ("https://v.vault.azure.net/keys/k", "https://v.vault.azure.net/keys/k"),
            ("https://V.vault.azure.net:443/keys/k/", "https://v.vault.azure.net/keys/k"),
            ("https://v.vault.azure.net/keys/k/0a1b", "https://v.vault.azure.net/keys/k/0a1b"),
            ("https://localhost:8443/keys/k-1/0a1b/", "https://localhost:8443/keys/k-1/0a1b"),
        ] {
            assert_eq!(KeyId::parse(text).unwrap().to_string(), expected);
        }
        let key = KeyId::in_vault("https://v.vault.azure.net", "k").unwrap();
        assert_eq!(key.to_string(), "https://v.vault.azure.net/keys/k");
        let version = key.parse_version("https://v.vault.azure.net/keys/k/1").unwrap();
        let url = "https://v.vault.azure.net/keys/k/1/wrapkey?api-version=7.4";
        assert_eq!(version.url(Some("wrapkey")).as_str(), url);
        assert_eq!(key.url(None).as_str(), "https://v.vault.azure.net/keys/k?api-version=7.4");
    }

    #[test]
    fn other_urls_are_refused() {
        for text in [
            "",
            "k",
            "http://v.vault.azure.net/keys/k",
            "https://user@v.vault.azure.net/keys/k",
            "https://:password@v.vault.azure.net/keys/k",
            "https://v.vault.azure.net/keys/k?x=y",
            "https://v.vault.azure.net/keys/k#x",
            "https://v.vault.azure.net/secrets/k",
            "https://v.vault.azure.net/keys",
            "https://v.vault.azure.net/keys//1",
            "https://v.vault.azure.net/keys/k/1/2",
            "https://v.vault.azure.net/keys/k/%2e%2e",
            "https://v.vault.azure.net/keys/k/1%2fdecrypt%3f",
            "https:///keys/k",
            "file:///keys/k",
        ] {
            assert_eq!(KeyId::parse(text), None, "{text}");
        }
        for (base, name) in [
            ("https://v.vault.azure.net/keys", "k"),
            ("https://v.vault.azure.net", "k/1"),
            ("https://v.vault.azure.net", ""),
            ("http://v.vault.azure.net", "k"),
        ] {
            assert_eq!(KeyId::in_vault(base, name), None, "{base} {name}");
        }
    }

    #[test]
    fn only_versions_of_the_key_are_accepted() {
        let key = KeyId::parse("https://v.vault.azure.net/keys/images/1").unwrap();
        for same in ["https://v.vault.azure.net/keys/images/2", "https://V.vault.azure.net:443/keys/Images/1"]
        {
            assert!(key.parse_version(same).is_some(), "{same}");
        }
        for other in [
            "https://v.vault.azure.net/keys/images",
            "https://v.vault.azure.net/keys/other/1",
            "https://v.vault.azure.net:8443/keys/images/1",
            "https://w.vault.azure.net/keys/images/1",
            "https://v.vault.azure.net.attacker.example/keys/images/1",
            "https://v.vault.azure.net@attacker.example/keys/images/1",
            "https://attacker.example/keys/images/1",
            "http://v.vault.azure.net/keys/images/1",
        ] {
            assert_eq!(key.parse_version(other), None, "{other}");
        }
    }
}
