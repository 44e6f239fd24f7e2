//! Azure's connection strings: `Name=value;Name=value`, as the portal shows them.

use percent_encoding::percent_decode_str;
use url::Url;

use crate::credentials::Credentials;
use crate::endpoint;
use crate::options::Account;
use crate::shared_key::AccountKey;

/// The account of every emulator, and its key, which is public.
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";
const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const EMULATOR_ENDPOINT: &str = "http://127.0.0.1:10000/devstoreaccount1";

/// What is wrong with a connection string, to follow the option's name, without any part that may be secret.
type Problem = String;

/// The values that the plugin uses. The other names are for queues, tables and files.
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

/// Parses a connection string.
pub(crate) fn parse(text: &str) -> Result<Account, Problem> {
    let values = values(text)?;
    if values.development.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return emulator();
    }
    let endpoint = match values.endpoint {
        Some(text) => {
            let expected = || format!("must have a BlobEndpoint of the form {}", endpoint::EXPECTED);
            endpoint::parse(text, values.name).ok_or_else(expected)?
        }
        None => standard_endpoint(&values)?,
    };
    let credentials = match (values.key, values.signature) {
        (Some(_), _) if values.name.is_none() => {
            return Err("must have an AccountName together with its AccountKey".to_owned());
        }
        (Some(key), _) => Credentials::Key(AccountKey::parse(key).ok_or(
            "must have a valid base64 AccountKey; copy the entire connection string, including the trailing `=` of the key",
        )?),
        (None, Some(signature)) => Credentials::Signature(query(signature)?),
        (None, None) => return Err("must have an AccountKey or a SharedAccessSignature".to_owned()),
    };
    let name = values.name.map_or_else(|| endpoint::account_name(&endpoint), str::to_owned);
    Ok(Account { name, endpoint, credentials })
}

fn values(text: &str) -> Result<Values<'_>, Problem> {
    let mut values = Values::default();
    for pair in text.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (untrimmed, value) =
            pair.split_once('=').ok_or("must be Name=value pairs separated by semicolons")?;
        let name = untrimmed.trim();
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
        if value.trim().is_empty() {
            return Err(format!("must not have an empty {name}"));
        }
        if slot.replace(value.trim()).is_some() {
            return Err(format!("must not have {name} twice"));
        }
    }
    Ok(values)
}

fn emulator() -> Result<Account, Problem> {
    let unusable = || "names an emulator that this release does not know".to_owned();
    Ok(Account {
        name: EMULATOR_ACCOUNT.to_owned(),
        endpoint: endpoint::parse(EMULATOR_ENDPOINT, Some(EMULATOR_ACCOUNT)).ok_or_else(unusable)?,
        credentials: Credentials::Key(AccountKey::parse(EMULATOR_KEY).ok_or_else(unusable)?),
    })
}

fn standard_endpoint(values: &Values<'_>) -> Result<Url, Problem> {
    let name = values.name.ok_or("must have an AccountName or a BlobEndpoint")?;
    if !endpoint::is_account_name(name) {
        // The value is not quoted, because it may be the key in the wrong place.
        return Err("must have an AccountName of 3 to 24 lowercase letters and digits".to_owned());
    }
    let scheme = values.protocol.map_or_else(|| "https".to_owned(), str::to_ascii_lowercase);
    if !matches!(scheme.as_str(), "http" | "https") {
        return Err(format!("must have https or http as DefaultEndpointsProtocol{}", got(&scheme)));
    }
    let suffix = values.suffix.unwrap_or(endpoint::PUBLIC_CLOUD).trim_matches('.');
    endpoint::standard(&scheme, name, suffix).ok_or_else(|| {
        format!("must have a domain such as core.windows.net as EndpointSuffix{}", got(suffix))
    })
}

/// Quotes a value at the end of a message, unless it may contain a key: another separator than a semicolon
/// makes a key part of the value before it, and a connection string may stand in the wrong option.
pub(crate) fn got(text: &str) -> String {
    /// The longest name of a container.
    const LONGEST: usize = 63;
    if text.contains('=') || text.len() > LONGEST { String::new() } else { format!(", got {text:?}") }
}

/// Parses the parameters of a shared access signature, with or without a leading `?`.
fn query(signature: &str) -> Result<Vec<(String, String)>, Problem> {
    let malformed = || "must have a SharedAccessSignature of the form sv=…&sig=…".to_owned();
    let decode =
        |text: &str| percent_decode_str(text).decode_utf8().map(String::from).map_err(|_| malformed());
    let parameter = |pair: &str| {
        let (name, value) = pair.split_once('=').ok_or_else(malformed)?;
        Ok((decode(name)?, decode(value)?))
    };
    let encoded = signature.trim_start_matches('?').split('&').filter(|pair| !pair.is_empty());
    let pairs = encoded.map(parameter).collect::<Result<Vec<_>, Problem>>()?;
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
    fn string_from_the_portal_is_parsed() {
        let text = format!(
            "DefaultEndpointsProtocol=https;AccountName=hospital;AccountKey={KEY};EndpointSuffix=core.windows.net"
        );
        let account = parse(&text).unwrap();
        assert_eq!(account.name, "hospital");
        assert_eq!(account.endpoint.as_str(), "https://hospital.blob.core.windows.net/");
        assert!(
            matches!(account.credentials, Credentials::Key(key) if key.key == AccountKey::parse(KEY).unwrap().key)
        );
    }

    #[test]
    fn missing_values_have_defaults() {
        let shortest = format!("AccountName=hospital;AccountKey={KEY}");
        assert_eq!(endpoint_of(&shortest), "https://hospital.blob.core.windows.net/");
        let china = format!("{shortest};EndpointSuffix=core.chinacloudapi.cn");
        assert_eq!(endpoint_of(&china), "https://hospital.blob.core.chinacloudapi.cn/");
        let clear = format!("{shortest};DefaultEndpointsProtocol=http");
        assert_eq!(endpoint_of(&clear), "http://hospital.blob.core.windows.net/");
    }

    #[test]
    fn endpoint_overrides_its_parts() {
        for (spelled, expected) in [
            ("https://images.hospital.org", "https://images.hospital.org/"),
            ("http://127.0.0.1:10000/hospital/", "http://127.0.0.1:10000/hospital"),
        ] {
            let text = format!(
                "DefaultEndpointsProtocol=https;AccountName=hospital;AccountKey={KEY};BlobEndpoint={spelled};\
                 QueueEndpoint=https://queues"
            );
            assert_eq!(endpoint_of(&text), expected);
        }
    }

    #[test]
    fn signature_needs_no_account_name() {
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
    fn path_of_a_host_with_the_account_is_a_container() {
        let text = |host: &str| {
            format!(
                "AccountName=hospital;BlobEndpoint=https://{host}/hospital;SharedAccessSignature=?{SIGNATURE}"
            )
        };
        assert!(parse(&text("storage.test")).is_ok());
        assert!(parse(&text("hospital.blob.core.windows.net")).is_err());
    }

    #[test]
    fn development_storage_is_the_local_emulator() {
        let account = parse("UseDevelopmentStorage=true").unwrap();
        assert_eq!(account.name, "devstoreaccount1");
        assert_eq!(account.endpoint.as_str(), "http://127.0.0.1:10000/devstoreaccount1");
    }

    #[test]
    fn case_and_whitespace_do_not_matter() {
        let text = format!(" accountname = hospital ;\r\n ACCOUNTKEY={KEY};\n");
        assert_eq!(endpoint_of(&text), "https://hospital.blob.core.windows.net/");
    }
}
