//! The name of a key.

use storage_plugin::{ConfigError, Section};

const KEY: &str = "Key";
const EXPECTED: &str = "must be projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY";
/// The collections in a name, each of which is followed by an identifier.
const COLLECTIONS: [&str; 4] = ["projects", "locations", "keyRings", "cryptoKeys"];
const VERSION: &str = "/cryptoKeyVersions/";

/// Reads the option `Key`. A version is refused: the service wraps with the primary version, and finds the version of a
/// ciphertext itself, so that a version in the configuration would only seem to have an effect.
pub(super) fn read(section: &mut Section<'_>) -> Result<String, ConfigError> {
    let key = section.required(KEY)?;
    let key = key.trim();
    let problem = match key.split_once(VERSION) {
        None if is_name(key) => return Ok(key.to_owned()),
        Some((name, version)) if is_name(name) => {
            format!("must name a key, not a version of it; remove {:?}", format!("{VERSION}{version}"))
        }
        _ if key.starts_with(COLLECTIONS[0]) => format!("{EXPECTED}, got {key:?}"),
        // The value may be a secret.
        _ => EXPECTED.to_owned(),
    };
    Err(section.error(KEY, problem))
}

/// Whether `name` is the resource name of a key, which is safe as a part of a URL.
fn is_name(name: &str) -> bool {
    let mut parts = name.split('/');
    let is_known = COLLECTIONS.iter().all(|collection| {
        // The names of some projects begin with a domain: `example.com:project`.
        let others: &[u8] = if *collection == COLLECTIONS[0] { b"-_.:" } else { b"-_" };
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || others.contains(&byte);
        let is_identifier =
            |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_allowed);
        parts.next() == Some(collection) && parts.next().is_some_and(is_identifier)
    });
    is_known && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_keys_are_accepted() {
        let good = "projects/p-1/locations/europe-west3/keyRings/Ring_1/cryptoKeys/1-key";
        let of_domain = good.replace("p-1", "example.com:p-1");
        for name in [good, &of_domain] {
            assert!(is_name(name), "{name}");
        }
        let version = format!("{good}/cryptoKeyVersions/1");
        let full = format!("//cloudkms.googleapis.com/{good}");
        let moved = good.replace("Ring_1", "..");
        let parent = good.replace("p-1", "..");
        let query = format!("{good}?a=b");
        let method = format!("{good}:encrypt");
        let encoded = format!("{good}%2F");
        let lines = format!("{good}\r\nX: y");
        for name in
            ["", good.split_at(8).1, &version, &full, &moved, &parent, &query, &method, &encoded, &lines]
        {
            assert!(!is_name(name), "{name}");
        }
        for part in ["p-1", "europe-west3", "Ring_1", "1-key", "keyRings"] {
            assert!(!is_name(&good.replace(part, "")), "no {part}");
        }
    }
}
