//! The name of a key in AWS KMS.

use std::fmt;

/// Maximum length of a name that AWS KMS accepts, in bytes.
const LONGEST: usize = 2048;

/// A key's id or ARN, or an alias or its ARN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key(String);

impl Key {
    /// Returns `None` if `text` cannot be the name of a key.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let key = Self(text.to_owned());
        let resource =
            if text.starts_with("arn:") { key.arn().map(|[_, _, resource]| resource)? } else { text };
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || "-_/:".contains(letter);
        let is_plain = !text.is_empty() && text.len() <= LONGEST && text.chars().all(allowed);
        let is_name = match resource.split_once('/') {
            Some(("alias", name)) => !name.is_empty(),
            Some(("key", id)) => resource != text && !id.is_empty(),
            Some(_) => false,
            None => resource == text && !resource.contains(':'),
        };
        (is_plain && is_name).then_some(key)
    }

    /// Region, account and resource, if this is an ARN: `arn:aws:kms:eu-central-1:111122223333:key/1234…`.
    fn arn(&self) -> Option<[&str; 3]> {
        let parts: Vec<_> = self.0.splitn(6, ':').collect();
        let &["arn", _partition, "kms", region, account, resource] = &parts[..] else { return None };
        (!region.is_empty() && !account.is_empty()).then_some([region, account, resource])
    }

    /// The region, if the name contains it.
    pub(super) fn region(&self) -> Option<&str> {
        self.arn().map(|[region, ..]| region)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn is_alias(&self) -> bool {
        self.arn().map_or(&*self.0, |[_, _, resource]| resource).starts_with("alias/")
    }

    /// The name to send when a file key is unwrapped, so that AWS KMS refuses one that was wrapped with any other key:
    /// otherwise somebody else, whose key the credentials may also decrypt with, could put objects of their own into the
    /// bucket.
    ///
    /// A key keeps its id and its ARN when it is rotated, and AWS KMS finds the version. Copies of a multi-Region key in
    /// other regions share its id, and each unwraps what another one wrapped. An alias, however, can be given to another
    /// key. What was wrapped with the former one must stay readable, so an alias is not sent.
    pub(super) fn for_decrypt(&self) -> Option<&str> {
        (!self.is_alias()).then_some(&self.0)
    }

    /// Whether the account of the key with this ARN, which unwrapped a file key, is the right one as far as that is known.
    pub(super) fn is_in_account_of(&self, arn: &str) -> bool {
        let other = Self(arn.to_owned());
        self.arn().is_none_or(|[_, account, _]| other.arn().is_some_and(|[_, other, _]| other == account))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";

    fn arn(resource: &str) -> String {
        format!("arn:aws:kms:eu-central-1:111122223333:{resource}")
    }

    #[test]
    fn names_are_recognized() {
        for (name, region, is_sent) in [
            (ID.to_owned(), None, true),
            (format!("mrk-{ID}"), None, true),
            ("alias/orthanc/images".to_owned(), None, false),
            (arn(&format!("key/{ID}")), Some("eu-central-1"), true),
            (arn("alias/orthanc"), Some("eu-central-1"), false),
            (format!("arn:aws-cn:kms:cn-north-1:1:key/{ID}"), Some("cn-north-1"), true),
        ] {
            let key = Key::parse(&name).unwrap();
            assert_eq!((key.region(), key.for_decrypt()), (region, is_sent.then_some(&*name)), "{name}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "alias/",
            "key/1234",
            "a b",
            "alias/ü",
            "alias:x",
            "https://kms.eu-central-1.amazonaws.com",
            "arn:aws:kms:eu-central-1:111122223333",
            "arn:aws:kms:eu-central-1:111122223333:1234",
            "arn:aws:kms:eu-central-1:111122223333:grant/1",
            "arn:aws:kms::111122223333:key/1234",
            "arn:aws:s3:eu-central-1:111122223333:key/1234",
            "arn:aws:kms:eu-central-1:111122223333:key/",
            "arn:aws:kms:eu-central-1:111122223333:key/\"",
        ] {
            assert_eq!(Key::parse(text), None, "{text}");
        }
        assert_eq!(Key::parse(&format!("alias/{}", "x".repeat(LONGEST))), None);
    }

    #[test]
    fn accounts_are_compared() {
        let [one, other] =
            ["111122223333", "444455556666"].map(|account| format!("arn:aws:kms:r:{account}:key/1"));
        let alias = Key::parse(&arn("alias/orthanc")).unwrap();
        assert!(alias.is_in_account_of(&one));
        assert!(!alias.is_in_account_of(&other));
        assert!(!alias.is_in_account_of("1234"));
        assert!(Key::parse("alias/orthanc").unwrap().is_in_account_of(&other), "the account is unknown");
    }
}
