//! The options of `AwsKms`.

use http::Uri;
use storage_plugin::{ConfigError, Section, endpoint_option, warn_if_exposed};

use super::key::Key;
use crate::endpoint::{amazon, check_region};
use crate::options::{Credentials, credentials};

const KEY_ID: &str = "KeyId";
const REGION: &str = "Region";
const ENDPOINT: &str = "Endpoint";

#[derive(Debug)]
pub(super) struct Options {
    pub(super) key: Key,
    pub(super) region: String,
    pub(super) credentials: Credentials,
    pub(super) url: Uri,
}

impl Options {
    /// Reads the options. `own` is the plugin's section, for those that are missing.
    pub(super) fn read(section: &mut Section<'_>, own: &mut Section<'_>) -> Result<Self, ConfigError> {
        // The value is not quoted, because it may be a secret in the wrong place.
        let expected =
            "must be the ARN of a key or of an alias in AWS KMS, the id of a key, or \"alias/NAME\"";
        let key =
            Key::parse(section.required(KEY_ID)?.trim()).ok_or_else(|| section.error(KEY_ID, expected))?;
        let endpoint = section.non_empty(ENDPOINT)?;
        let region = region(section, own, &key, endpoint.is_none())?;
        let url = url(section, endpoint, &region)?;
        let credentials = match credentials(section)? {
            Credentials::DefaultChain => credentials(own)?,
            given => given,
        };
        Ok(Self { key, region, credentials, url })
    }
}

fn region(
    section: &mut Section<'_>,
    own: &mut Section<'_>,
    key: &Key,
    is_amazon: bool,
) -> Result<String, ConfigError> {
    let given = section.non_empty(REGION)?.map(|region| region.trim().to_owned());
    match (given, key.region()) {
        // AWS KMS finds a key by its ARN only in its region.
        (Some(given), Some(of_key)) if given != of_key => {
            Err(section.error(REGION, format!("must be {of_key:?}, the region in KeyId, or be removed")))
        }
        (Some(region), _) => check_region(section, &region, is_amazon).map(|()| region),
        (None, Some(region)) => Ok(region.to_owned()),
        (None, None) => {
            let region = own.required(REGION)?.trim().to_owned();
            check_region(own, &region, is_amazon).map(|()| region)
        }
    }
}

fn url(section: &Section<'_>, endpoint: Option<String>, region: &str) -> Result<Uri, ConfigError> {
    let url = endpoint_option(section, ENDPOINT, &endpoint.unwrap_or_else(|| amazon("kms", region)))?;
    if warn_if_exposed(&url) {
        return Err(section.error(ENDPOINT, "must begin with https://, since file keys are sent there"));
    }
    url.as_str().parse().map_err(|_| section.error(ENDPOINT, "is not valid"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ARN: &str = "arn:aws:kms:eu-west-3:111122223333:key/1234";

    fn read(service: &Value) -> Options {
        let own =
            json!({"Region": "eu-central-1", "AccessKey": "own", "SecretKey": "own", "Endpoint": "minio"});
        let configuration = json!({"AwsKms": service, "S": own});
        let section = |name| Section::find(configuration.as_object().unwrap(), name).unwrap().unwrap();
        Options::read(&mut section("AwsKms"), &mut section("S")).unwrap()
    }

    #[test]
    fn region_and_endpoint_follow_from_the_key() {
        for (service, region, url) in [
            (json!({"KeyId": "alias/a"}), "eu-central-1", "https://kms.eu-central-1.amazonaws.com/"),
            (
                json!({"KeyId": "alias/a", "Region": "eu-west-1"}),
                "eu-west-1",
                "https://kms.eu-west-1.amazonaws.com/",
            ),
            (json!({"KeyId": ARN}), "eu-west-3", "https://kms.eu-west-3.amazonaws.com/"),
            (
                json!({"KeyId": ARN, "Region": "eu-west-3"}),
                "eu-west-3",
                "https://kms.eu-west-3.amazonaws.com/",
            ),
            (json!({"KeyId": ARN, "Endpoint": "vpce-1.kms.test"}), "eu-west-3", "https://vpce-1.kms.test/"),
            (
                json!({"KeyId": ARN, "Endpoint": "http://127.0.0.1:5000/"}),
                "eu-west-3",
                "http://127.0.0.1:5000/",
            ),
            (
                json!({"KeyId": "arn:aws-cn:kms:cn-north-1:1:key/1"}),
                "cn-north-1",
                "https://kms.cn-north-1.amazonaws.com.cn/",
            ),
            (
                json!({"KeyId": "alias/a", "Region": "us-gov-west-1"}),
                "us-gov-west-1",
                "https://kms.us-gov-west-1.amazonaws.com/",
            ),
        ] {
            let options = read(&service);
            assert_eq!((&*options.region, options.url.to_string()), (region, url.to_owned()), "{service}");
        }
    }

    #[test]
    fn own_credentials_are_used_unless_there_are_others() {
        let key = |service| match read(&service).credentials {
            Credentials::Static { access_key, .. } => access_key.expose().to_owned(),
            Credentials::DefaultChain => "chain".to_owned(),
        };
        assert_eq!(key(json!({"KeyId": ARN})), "own");
        assert_eq!(key(json!({"KeyId": ARN, "AccessKey": "a", "SecretKey": "b", "SessionToken": "c"})), "a");
    }
}
