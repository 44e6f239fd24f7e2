//! Azure's connection strings: `Name=value;Name=value`, as the portal shows them.

use object_store::azure::AzureAccessKey;
use percent_encoding::percent_decode_str;
use url::{Host, Url};

use crate::account::{Account, Credentials, PUBLIC_CLOUD, endpoint, is_account_name, spelled_endpoint};

/// The account that every emulator has, and its key, which everybody knows.
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";
const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const EMULATOR_ENDPOINT: &str = "http://127.0.0.1:10000/devstoreaccount1";

/// What is wrong with a connection string, to follow the option's name; without any part that could be secret.
pub(crate) type Problem = String;

/// The values of the names that matter here. Other ones are of queues, tables and files.
#[derive(Default)]
struct Values<'a> {
    protocol: Option<&'a str>,
    name: Option<&'a str>,
    key: Option<&'a str>,
    suffix: Option<&'a str>,
    endpoint: Option<&'a str>,
    signature: Option<&'a str>,
    development: Option<&'a str>,
}

/// Reads a connection string.
pub(crate) fn parse(text: &str) -> Result<Account, Problem> {
    let values = values(text)?;
    if values.development.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return emulator();
    }
    let endpoint = match values.endpoint {
        Some(spelled) => spelled_endpoint(spelled)
            .ok_or("has a BlobEndpoint that is no URL: https://host[:port][/path] is needed")?,
        None => standard_endpoint(&values)?,
    };
    let name = match values.name {
        Some(name) => name.to_owned(),
        None => name_in(&endpoint),
    };
    let credentials = match (values.key, values.signature) {
        (Some(_), _) if values.name.is_none() => {
            return Err("has an AccountKey and no AccountName: both are needed".to_owned());
        }
        (Some(key), _) => Credentials::Key(AzureAccessKey::try_new(key).map_err(
            |_| "has an AccountKey that is no base64: copy the whole connection string from the portal, with the = at its end",
        )?),
        (None, Some(signature)) => Credentials::Signature(query(signature)?),
        (None, None) => {
            return Err("has neither an AccountKey nor a SharedAccessSignature: one of them is needed".to_owned());
        }
    };
    Ok(Account { name, endpoint, credentials })
}

fn values(text: &str) -> Result<Values<'_>, Problem> {
    let mut values = Values::default();
    for pair in text.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair
            .split_once('=')
            .ok_or("is malformed: Name=value pairs with semicolons between are needed")?;
        let name = name.trim();
        let slot = match name.to_ascii_lowercase().as_str() {
            "defaultendpointsprotocol" => &mut values.protocol,
            "accountname" => &mut values.name,
            "accountkey" => &mut values.key,
            "endpointsuffix" => &mut values.suffix,
            "blobendpoint" => &mut values.endpoint,
            "sharedaccesssignature" => &mut values.signature,
            "usedevelopmentstorage" => &mut values.development,
            _ => continue,
        };
        let value = value.trim();
        if value.is_empty() {
            return Err(format!("has an empty {name}: a value is needed"));
        }
        if slot.replace(value).is_some() {
            return Err(format!("has {name} twice: once is needed"));
        }
    }
    Ok(values)
}

fn emulator() -> Result<Account, Problem> {
    let unusable = || "asks for an emulator, which is not known".to_owned();
    Ok(Account {
        name: EMULATOR_ACCOUNT.to_owned(),
        endpoint: spelled_endpoint(EMULATOR_ENDPOINT).ok_or_else(unusable)?,
        credentials: Credentials::Key(AzureAccessKey::try_new(EMULATOR_KEY).map_err(|_| unusable())?),
    })
}

fn standard_endpoint(values: &Values<'_>) -> Result<Url, Problem> {
    let name = values.name.ok_or("has neither an AccountName nor a BlobEndpoint: one of them is needed")?;
    if !is_account_name(name) {
        // Not the value: it may be the key, in the wrong place.
        return Err(
            "has an AccountName that cannot be one: 3 to 24 letters from a to z and digits are needed"
                .to_owned(),
        );
    }
    let scheme = values.protocol.map_or_else(|| "https".to_owned(), str::to_ascii_lowercase);
    if !matches!(scheme.as_str(), "http" | "https") {
        return Err(format!("has the DefaultEndpointsProtocol {scheme:?}: https or http is needed"));
    }
    let suffix = values.suffix.unwrap_or(PUBLIC_CLOUD).trim_matches('.');
    endpoint(&scheme, name, suffix)
        .ok_or_else(|| format!("has the EndpointSuffix {suffix:?}: a domain as core.windows.net is needed"))
}

/// The account in `https://account.blob.core.windows.net` or `http://127.0.0.1:10000/account`.
fn name_in(endpoint: &Url) -> String {
    let in_path = endpoint.path_segments().and_then(|mut path| path.next()).filter(|name| !name.is_empty());
    let in_host = match endpoint.host() {
        Some(Host::Domain(domain)) => domain.split('.').next(),
        _ => None,
    };
    in_path.or(in_host).unwrap_or_default().to_owned()
}

/// The parameters of a shared access signature, with or without a `?` before them.
fn query(signature: &str) -> Result<Vec<(String, String)>, Problem> {
    let malformed = || "has a malformed SharedAccessSignature: sv=…&sig=… is needed".to_owned();
    let decode =
        |text: &str| percent_decode_str(text).decode_utf8().map(String::from).map_err(|_| malformed());
    let pairs = signature.trim_start_matches('?').split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| {
        let (name, value) = pair.split_once('=').ok_or_else(malformed)?;
        Ok((decode(name)?, decode(value)?))
    });
    let pairs = pairs.collect::<Result<Vec<_>, Problem>>()?;
    let has = |wanted: &str| pairs.iter().any(|(name, _)| name == wanted);
    if has("sv") && has("sig") { Ok(pairs) } else { Err(malformed()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "c2VjcmV0LWtleS1vZi10ZXN0cw==";
    const SIGNATURE: &str = "sv=2022-11-02&ss=b&sig=abc%2Bdef%3D";

    fn endpoint_of(text: &str) -> String {
        parse(text).unwrap().endpoint.to_string()
    }

    #[test]
    fn a_string_from_the_portal_is_understood() {
        let text = format!(
            "DefaultEndpointsProtocol=https;AccountName=hospital;AccountKey={KEY};EndpointSuffix=core.windows.net"
        );
        let account = parse(&text).unwrap();
        assert_eq!(account.name, "hospital");
        assert_eq!(account.endpoint.as_str(), "https://hospital.blob.core.windows.net/");
        assert!(
            matches!(account.credentials, Credentials::Key(key) if key == AzureAccessKey::try_new(KEY).unwrap())
        );
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let shortest = format!("AccountName=hospital;AccountKey={KEY}");
        assert_eq!(endpoint_of(&shortest), "https://hospital.blob.core.windows.net/");
        let china = format!("{shortest};EndpointSuffix=core.chinacloudapi.cn");
        assert_eq!(endpoint_of(&china), "https://hospital.blob.core.chinacloudapi.cn/");
        let clear = format!("{shortest};DefaultEndpointsProtocol=http");
        assert_eq!(endpoint_of(&clear), "http://hospital.blob.core.windows.net/");
    }

    #[test]
    fn an_endpoint_wins_over_its_parts() {
        for (spelled, expected) in [
            ("https://images.hospital.org", "https://images.hospital.org/"),
            ("http://127.0.0.1:10000/devstoreaccount1/", "http://127.0.0.1:10000/devstoreaccount1"),
        ] {
            let text = format!(
                "DefaultEndpointsProtocol=https;AccountName=hospital;AccountKey={KEY};BlobEndpoint={spelled};\
                 QueueEndpoint=https://queues"
            );
            assert_eq!(endpoint_of(&text), expected);
        }
    }

    #[test]
    fn a_signature_needs_no_account_name() {
        for (endpoint, name) in [
            ("https://hospital.blob.core.windows.net/", "hospital"),
            ("http://127.0.0.1:1/account", "account"),
        ] {
            let account =
                parse(&format!("BlobEndpoint={endpoint};SharedAccessSignature={SIGNATURE}")).unwrap();
            assert_eq!(account.name, name);
            let Credentials::Signature(pairs) = account.credentials else { panic!("no signature") };
            assert_eq!(pairs[2], ("sig".to_owned(), "abc+def=".to_owned()));
        }
        parse(&format!("AccountName=hospital;SharedAccessSignature=?{SIGNATURE}")).unwrap();
    }

    #[test]
    fn development_storage_is_the_emulator_on_this_machine() {
        let account = parse("UseDevelopmentStorage=true").unwrap();
        assert_eq!(account.name, "devstoreaccount1");
        assert_eq!(account.endpoint.as_str(), "http://127.0.0.1:10000/devstoreaccount1");
    }

    #[test]
    fn names_are_found_in_any_case_with_blanks_and_line_ends_around() {
        let text = format!(" accountname = hospital ;\r\n ACCOUNTKEY={KEY};\n");
        assert_eq!(endpoint_of(&text), "https://hospital.blob.core.windows.net/");
    }

    #[test]
    fn mistakes_are_told_without_secrets() {
        for (text, expected) in [
            ("hunter2", "is malformed: Name=value pairs with semicolons between are needed"),
            (
                "AccountName=hospital",
                "has neither an AccountKey nor a SharedAccessSignature: one of them is needed",
            ),
            (
                "AccountKey=aHVudGVyMg==",
                "has neither an AccountName nor a BlobEndpoint: one of them is needed",
            ),
            (
                "BlobEndpoint=https://x;AccountKey=aHVudGVyMg==",
                "has an AccountKey and no AccountName: both are needed",
            ),
            (
                "AccountName=hospital;AccountKey=hunter2!",
                "has an AccountKey that is no base64: copy the whole connection string from the portal, with the = at its end",
            ),
            ("AccountName=;AccountKey=aHVudGVyMg==", "has an empty AccountName: a value is needed"),
            ("AccountName=a;AccountName=b", "has AccountName twice: once is needed"),
            (
                "AccountName=My Account;AccountKey=aHVudGVyMg==",
                "has an AccountName that cannot be one: 3 to 24 letters from a to z and digits are needed",
            ),
            (
                "AccountName=hospital;AccountKey=aHVudGVyMg==;DefaultEndpointsProtocol=ftp",
                "has the DefaultEndpointsProtocol \"ftp\": https or http is needed",
            ),
            (
                "AccountName=hospital;AccountKey=aHVudGVyMg==;EndpointSuffix=a b",
                "has the EndpointSuffix \"a b\": a domain as core.windows.net is needed",
            ),
            (
                "BlobEndpoint=https://user:hunter2@host;AccountName=hospital;AccountKey=aHVudGVyMg==",
                "has a BlobEndpoint that is no URL: https://host[:port][/path] is needed",
            ),
            (
                "AccountName=hospital;SharedAccessSignature=hunter2",
                "has a malformed SharedAccessSignature: sv=…&sig=… is needed",
            ),
            (
                "AccountName=hospital;SharedAccessSignature=sv=1",
                "has a malformed SharedAccessSignature: sv=…&sig=… is needed",
            ),
            (
                "UseDevelopmentStorage=false",
                "has neither an AccountName nor a BlobEndpoint: one of them is needed",
            ),
        ] {
            let problem = parse(text).unwrap_err();
            assert_eq!(problem, expected);
            assert!(!problem.contains("hunter2") && !problem.contains("aHVudGVyMg"), "{problem}");
        }
    }
}
