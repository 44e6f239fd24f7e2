//! The requests of the audit.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetPublicAccessBlock.html>,
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketVersioning.html>,
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketLifecycleConfiguration.html>

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::RANGE;
use http::{HeaderValue, Uri};
use object_store::client::{HttpRequest, HttpRequestBody, HttpService as _};
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use serde::de::IgnoredAny;
use storage_plugin::{Anonymous, Answer, BucketAudit, PublicAccess, Reply, Versions, anonymous};

use crate::request::S3Http;
use crate::restore::ENCODED;

const LIFECYCLE_PERMISSION: &str = "s3:GetLifecycleConfiguration";
/// Error codes for a setting that the bucket does not have.
const NO_BLOCK: &str = "NoSuchPublicAccessBlockConfiguration";
const NO_LIFECYCLE: &str = "NoSuchLifecycleConfiguration";

/// Asks about one bucket.
pub(crate) struct ObjectAudit {
    /// The bucket's URL without a slash at the end.
    url: String,
    http: S3Http,
}

impl ObjectAudit {
    /// Asks about the bucket at `url`.
    pub(crate) fn new(url: &str, http: S3Http) -> Self {
        Self { url: url.trim_end_matches('/').to_owned(), http }
    }

    /// A request that is not signed; `None` if the URL is not valid.
    fn request(&self, rest: &str) -> Option<HttpRequest> {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = format!("{}{rest}", self.url).parse::<Uri>().ok()?;
        Some(request)
    }

    async fn anonymous(&self, request: Option<HttpRequest>) -> Answer<Anonymous> {
        match request {
            // Not through the layer that signs.
            Some(request) => anonymous(&self.http.http, request, &[]).await,
            None => Answer::Unknown("the URL is not valid".to_owned()),
        }
    }

    /// Asks for a setting of the bucket.
    async fn setting(&self, name: &str) -> Reply {
        match self.request(&format!("?{name}")) {
            Some(request) => Reply::of(self.http.call(request)).await,
            None => Reply::Failed("the URL is not valid".to_owned()),
        }
    }

    async fn rules(&self) -> Answer<Vec<Rule>> {
        match self.setting("lifecycle").await {
            Reply::Answered(_, body) => document(&body, |document| match document {
                Document::LifecycleConfiguration(lifecycle) => Some(lifecycle.rules),
                _ => None,
            }),
            Reply::Refused(404, Some(code)) if code == NO_LIFECYCLE => Answer::Known(Vec::new()),
            reply => reply.unanswered(LIFECYCLE_PERMISSION),
        }
    }
}

/// Reads a document. A server that does not know a setting may ignore it, and list the objects.
fn document<T>(body: &Bytes, read: impl FnOnce(Document) -> Option<T>) -> Answer<T> {
    match quick_xml::de::from_reader(&body[..]) {
        Ok(Document::ListBucketResult(_)) => Answer::NotSupported,
        document => {
            let unknown = || Answer::Unknown("the server's answer is not understood".to_owned());
            document.ok().and_then(read).map_or_else(unknown, Answer::Known)
        }
    }
}

#[derive(Debug, Deserialize)]
enum Document {
    PublicAccessBlockConfiguration(PublicAccessBlock),
    VersioningConfiguration(Versioning),
    LifecycleConfiguration(Lifecycle),
    ListBucketResult(IgnoredAny),
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct PublicAccessBlock {
    block_public_acls: bool,
    ignore_public_acls: bool,
    block_public_policy: bool,
    restrict_public_buckets: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Versioning {
    /// `Enabled` or `Suspended`; absent if it was never enabled.
    status: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Lifecycle {
    #[serde(rename = "Rule", default)]
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Rule {
    status: String,
    filter: Option<Elements>,
    prefix: Option<String>,
    abort_incomplete_multipart_upload: Option<Elements>,
    noncurrent_version_expiration: Option<Elements>,
}

/// Elements by their names. All conditions of a rule must be known, since all of them must be met.
type Elements = BTreeMap<String, Element>;

#[derive(Debug, Deserialize)]
struct Element {
    #[serde(rename = "$text", default)]
    text: String,
}

/// The text of the element `name` (empty without one); `None` if there are others.
fn only<'e>(elements: &'e Elements, name: &str) -> Option<&'e str> {
    let others = elements.keys().any(|other| other != name && !other.starts_with(['@', '$']));
    (!others).then(|| elements.get(name).map_or("", |element| element.text.as_str()))
}

/// The number in the only element, `name`.
fn days(elements: Option<&Elements>, name: &str) -> Option<u64> {
    only(elements?, name)?.trim().parse().ok()
}

impl Rule {
    /// Whether the rule applies to everything below `root`. Rules with other conditions than a prefix do not.
    fn covers(&self, root: &str) -> bool {
        let own = || Some(self.prefix.as_deref().unwrap_or_default());
        let prefix = self.filter.as_ref().map_or_else(own, |filter| only(filter, "Prefix"));
        self.status == "Enabled" && prefix.is_some_and(|prefix| root.starts_with(prefix))
    }

    /// Days until the rule deletes noncurrent versions, however few there are of an object.
    fn noncurrent_days(&self) -> Option<u64> {
        days(self.noncurrent_version_expiration.as_ref(), "NoncurrentDays")
    }

    fn upload_days(&self) -> Option<u64> {
        days(self.abort_incomplete_multipart_upload.as_ref(), "DaysAfterInitiation")
    }
}

/// The shortest time that a rule for everything below `root` sets.
fn shortest(rules: &[Rule], root: &str, days: impl Fn(&Rule) -> Option<u64>) -> Option<u64> {
    rules.iter().filter(|rule| rule.covers(root)).filter_map(days).min()
}

#[async_trait]
impl BucketAudit for ObjectAudit {
    async fn anonymous_list(&self) -> Answer<Anonymous> {
        self.anonymous(self.request("?list-type=2&max-keys=1")).await
    }

    async fn anonymous_read(&self, name: &str) -> Answer<Anonymous> {
        let mut request = self.request(&format!("/{}", utf8_percent_encode(name, ENCODED)));
        if let Some(request) = &mut request {
            request.headers_mut().insert(RANGE, HeaderValue::from_static("bytes=0-0"));
        }
        self.anonymous(request).await
    }

    async fn public_access(&self) -> Answer<PublicAccess> {
        let access = |is_blocked, shown: &str| PublicAccess {
            is_blocked,
            shown: format!("public access block: {shown}"),
            advice: "block it: aws s3api put-public-access-block --bucket BUCKET --public-access-block-configuration \
                     BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true; a \
                     block of the whole account is not seen here",
        };
        match self.setting("publicAccessBlock").await {
            Reply::Answered(_, body) => document(&body, |document| match document {
                Document::PublicAccessBlockConfiguration(block) => Some(match block {
                    PublicAccessBlock {
                        block_public_acls: true,
                        ignore_public_acls: true,
                        block_public_policy: true,
                        restrict_public_buckets: true,
                    } => access(true, "on"),
                    _ => access(false, "incomplete"),
                }),
                _ => None,
            }),
            Reply::Refused(404, Some(code)) if code == NO_BLOCK => Answer::Known(access(false, "off")),
            reply => reply.unanswered("s3:GetBucketPublicAccessBlock"),
        }
    }

    async fn versions(&self, root: &str) -> Answer<Versions> {
        let status = match self.setting("versioning").await {
            Reply::Answered(_, body) => document(&body, |document| match document {
                Document::VersioningConfiguration(versioning) => Some(versioning.status),
                _ => None,
            }),
            reply => reply.unanswered("s3:GetBucketVersioning"),
        };
        let status = match status {
            Answer::Known(Some(status)) => status,
            others => return others.map(|_| Versions::Off),
        };
        match self.rules().await {
            Answer::NotSupported => Answer::Known(kept(&status, None)),
            rules => rules.map(|rules| kept(&status, shortest(&rules, root, Rule::noncurrent_days))),
        }
    }

    async fn unfinished_uploads(&self, root: &str) -> Answer<Option<u64>> {
        self.rules().await.map(|rules| shortest(&rules, root, Rule::upload_days))
    }
}

fn kept(status: &str, days: Option<u64>) -> Versions {
    // A server's text is not passed on.
    let shown = if status == "Enabled" { "versioning is on" } else { "versioning is suspended" };
    let advice = "add a lifecycle rule for everything below RootPath with NoncurrentVersionExpiration (docs/retention.md)";
    Versions::Kept { shown: shown.to_owned(), days, advice }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<Rule> {
        let text = format!(
            "<LifecycleConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{text}</LifecycleConfiguration>"
        );
        match quick_xml::de::from_str(&text).unwrap() {
            Document::LifecycleConfiguration(lifecycle) => lifecycle.rules,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_rules_for_everything_count() {
        const ABORT: &str = "<AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation>\
                             </AbortIncompleteMultipartUpload>";
        for (conditions, expected) in [
            ("<Status>Enabled</Status><Filter/>", Some(7)),
            ("<Status>Enabled</Status><Filter></Filter>", Some(7)),
            ("<Status>Enabled</Status><Prefix></Prefix>", Some(7)),
            ("<Status>Enabled</Status><Prefix>orthanc/</Prefix>", Some(7)),
            ("<Status>Enabled</Status><Filter><Prefix>orth</Prefix></Filter>", Some(7)),
            ("<Status>Disabled</Status><Filter/>", None),
            ("<Status>Enabled</Status><Filter><Prefix>other/</Prefix></Filter>", None),
            ("<Status>Enabled</Status><Filter><Prefix>orthanc/a/</Prefix></Filter>", None),
            ("<Status>Enabled</Status><Filter><Tag><Key>a</Key><Value>b</Value></Tag></Filter>", None),
            (
                "<Status>Enabled</Status><Filter><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan></Filter>",
                None,
            ),
            ("<Status>Enabled</Status><Filter><And><Prefix>a</Prefix></And></Filter>", None),
            ("<Status>Enabled</Status><Filter><Prefix>orth</Prefix><Unknown>1</Unknown></Filter>", None),
        ] {
            let rules = rules(&format!(
                "<Rule><ID>x</ID>{conditions}{ABORT}</Rule><Rule><Status>Enabled</Status></Rule>"
            ));
            assert_eq!(shortest(&rules, "orthanc/", Rule::upload_days), expected, "{conditions}");
        }
        assert!(rules("").is_empty());
    }

    #[test]
    fn rules_that_keep_some_versions_do_not_count() {
        for (conditions, expected) in [
            ("<NoncurrentDays>30</NoncurrentDays>", Some(30)),
            ("<NoncurrentDays>30</NoncurrentDays><NewerNoncurrentVersions>3</NewerNoncurrentVersions>", None),
            ("<NewerNoncurrentVersions>3</NewerNoncurrentVersions>", None),
            ("<NoncurrentDays>30</NoncurrentDays><Unknown><A/></Unknown>", None),
            ("", None),
        ] {
            let rules = rules(&format!(
                "<Rule><Status>Enabled</Status><Filter/>\n<NoncurrentVersionExpiration>\n {conditions}\n\
                 </NoncurrentVersionExpiration></Rule>"
            ));
            assert_eq!(shortest(&rules, "orthanc/", Rule::noncurrent_days), expected, "{conditions}");
        }
    }

    #[test]
    fn other_documents_are_no_settings() {
        let read = |text: &str| document(&Bytes::copy_from_slice(text.as_bytes()), |_| Some(()));
        assert_eq!(read("<VersioningConfiguration/>"), Answer::Known(()));
        assert_eq!(read("<ListBucketResult><Name>b</Name></ListBucketResult>"), Answer::NotSupported);
        for other in ["", "{}", "<html/>", "<Versioning"] {
            assert!(matches!(read(other), Answer::Unknown(_)), "{other}");
        }
    }
}
