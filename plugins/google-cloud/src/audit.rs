//! The requests of the audit: the bucket's settings in the JSON interface.
//!
//! <https://cloud.google.com/storage/docs/json_api/v1/buckets/get>

use async_trait::async_trait;
use cloud_http::CloudHttp;
use http::header::{AUTHORIZATION, RANGE};
use http::{HeaderValue, Uri};
use object_store::client::{HttpRequest, HttpRequestBody, HttpService as _};
use object_store::gcp::GcpCredentialProvider;
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use serde_json::Value;
use storage_plugin::{Anonymous, Answer, BucketAudit, PublicAccess, Reply, Versions, anonymous};
use url::Url;

use crate::deletion::{ENCODED, bearer, failed};

const PERMISSION: &str = "storage.buckets.get on the bucket";
const DAY: u64 = 24 * 60 * 60;
/// Asks about one bucket.
pub(crate) struct ObjectAudit {
    credentials: GcpCredentialProvider,
    /// The address without a slash at the end.
    endpoint: String,
    bucket: String,
    http: CloudHttp,
}

/// The fields of a bucket that are asked for, each of which may be absent.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Bucket {
    iam_configuration: IamConfiguration,
    versioning: Versioning,
    soft_delete_policy: SoftDelete,
    lifecycle: Lifecycle,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct IamConfiguration {
    /// `enforced` or `inherited`.
    public_access_prevention: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Versioning {
    enabled: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SoftDelete {
    /// A number in a string.
    retention_duration_seconds: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Lifecycle {
    rule: Vec<Rule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rule {
    action: Value,
    condition: Value,
}

impl ObjectAudit {
    pub(crate) fn new(
        endpoint: &Url,
        bucket: &str,
        credentials: GcpCredentialProvider,
        http: &CloudHttp,
    ) -> Self {
        let endpoint = endpoint.as_str().trim_end_matches('/').to_owned();
        Self { credentials, endpoint, bucket: bucket.to_owned(), http: http.clone() }
    }

    /// A request without credentials.
    fn request(&self, path: &str) -> object_store::Result<HttpRequest> {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        let uri = format!("{}/{path}", self.endpoint).parse::<Uri>();
        *request.uri_mut() = uri.map_err(|error| failed(Box::new(error)))?;
        Ok(request)
    }

    async fn anonymous(&self, path: &str, range: Option<&'static str>) -> Answer<Anonymous> {
        let Ok(mut request) = self.request(path) else {
            return Answer::Unknown("the URL is not valid".to_owned());
        };
        request.headers_mut().extend(range.map(|range| (RANGE, HeaderValue::from_static(range))));
        anonymous(&self.http, request, &[]).await
    }

    /// Asks for some fields of the bucket.
    async fn settings(&self, fields: &str) -> Answer<Bucket> {
        let reply = Reply::of(async {
            let mut request = self.request(&format!("storage/v1/b/{}?fields={fields}", self.bucket))?;
            request.headers_mut().insert(AUTHORIZATION, bearer(&self.credentials).await?);
            self.http.call(request).await.map_err(|error| failed(Box::new(error)))
        });
        match reply.await {
            Reply::Answered(_, body) => serde_json::from_slice(&body).map_or_else(
                |_| Answer::Unknown("the server's answer is not understood".to_owned()),
                Answer::Known,
            ),
            reply => reply.unanswered(PERMISSION),
        }
    }
}

#[async_trait]
impl BucketAudit for ObjectAudit {
    async fn anonymous_list(&self) -> Answer<Anonymous> {
        self.anonymous(&format!("{}?list-type=2&max-keys=1", self.bucket), None).await
    }

    async fn anonymous_read(&self, name: &str) -> Answer<Anonymous> {
        let name: Vec<_> =
            name.split('/').map(|part| utf8_percent_encode(part, ENCODED).to_string()).collect();
        self.anonymous(&format!("{}/{}", self.bucket, name.join("/")), Some("bytes=0-0")).await
    }

    async fn public_access(&self) -> Answer<PublicAccess> {
        self.settings("iamConfiguration").await.map(|bucket| {
            let is_blocked = bucket.iam_configuration.public_access_prevention == "enforced";
            let state = if is_blocked { "enforced" } else { "not enforced for this bucket" };
            PublicAccess {
                is_blocked,
                shown: format!("public access prevention: {state}"),
                advice: "enforce it: gcloud storage buckets update gs://BUCKET --public-access-prevention; a constraint of \
                         the organization is not seen here",
            }
        })
    }

    async fn versions(&self, root: &str) -> Answer<Versions> {
        let bucket = self.settings("versioning,softDeletePolicy,lifecycle").await;
        bucket.map(|bucket| bucket.versions(root))
    }

    async fn unfinished_uploads(&self, root: &str) -> Answer<Option<u64>> {
        self.settings("lifecycle")
            .await
            .map(|bucket| bucket.shortest(root, "AbortIncompleteMultipartUpload", "age"))
    }
}

impl Bucket {
    fn versions(&self, root: &str) -> Versions {
        let seconds = &self.soft_delete_policy.retention_duration_seconds;
        let seconds = seconds.as_u64().or_else(|| seconds.as_str()?.parse().ok()).unwrap_or_default();
        let soft_delete = seconds.div_ceil(DAY);
        let advice = "add a lifecycle rule that deletes noncurrent objects (docs/retention.md)";
        match (self.versioning.enabled, soft_delete) {
            (false, 0) => Versions::Off,
            (false, days) => {
                Versions::Kept { shown: "soft delete is on".to_owned(), days: Some(days), advice }
            }
            (true, _) => {
                let days = self.shortest(root, "Delete", "daysSinceNoncurrentTime");
                // What the rule deletes is kept by soft delete.
                let days = days.map(|days| days.saturating_add(soft_delete));
                Versions::Kept { shown: "versioning is on".to_owned(), days, advice }
            }
        }
    }

    /// The shortest time that a rule with this action for everything below `root` sets.
    fn shortest(&self, root: &str, action: &str, condition: &str) -> Option<u64> {
        self.lifecycle.rule.iter().filter_map(|rule| rule.days(root, action, condition)).min()
    }
}

impl Rule {
    /// The days of a condition, if the rule has this action for everything below `root`: all of its conditions must be known,
    /// since all of them must be met.
    fn days(&self, root: &str, action: &str, condition: &str) -> Option<u64> {
        let conditions = self.condition.as_object()?;
        let begins = |prefix: &Value| prefix.as_str().is_some_and(|prefix| root.starts_with(prefix));
        let is_met = |(name, value): (&String, &Value)| match name.as_str() {
            "matchesPrefix" => value.as_array().is_some_and(|prefixes| prefixes.iter().any(begins)),
            // Noncurrent objects are not live.
            "isLive" => action == "Delete" && *value == Value::Bool(false),
            name => name == condition,
        };
        let is_for_everything = self.action["type"] == action && conditions.iter().all(is_met);
        is_for_everything.then(|| conditions.get(condition)?.as_u64()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bucket(fields: Value) -> Bucket {
        serde_json::from_value(fields).unwrap()
    }

    #[test]
    fn versions_have_a_limit_or_none() {
        let days = |fields: Value| match bucket(fields).versions("orthanc/") {
            Versions::Off => Some(0),
            Versions::Kept { days, .. } => days,
        };
        let rule =
            |condition: Value| json!({"rule": [{"action": {"type": "Delete"}, "condition": condition}]});
        let on = json!({"enabled": true});
        assert_eq!(days(json!({})), Some(0));
        assert_eq!(days(json!({"softDeletePolicy": {"retentionDurationSeconds": "0"}})), Some(0));
        assert_eq!(days(json!({"softDeletePolicy": {"retentionDurationSeconds": "604800"}})), Some(7));
        assert_eq!(days(json!({"versioning": on})), None);
        let expiring = rule(json!({"daysSinceNoncurrentTime": 90}));
        assert_eq!(days(json!({"versioning": on, "lifecycle": expiring})), Some(90));
        let others = rule(json!({"daysSinceNoncurrentTime": 90, "matchesPrefix": ["other/"]}));
        assert_eq!(days(json!({"versioning": on, "lifecycle": others})), None);
        let some = rule(json!({"daysSinceNoncurrentTime": 90, "matchesSuffix": [".dcm"]}));
        assert_eq!(days(json!({"versioning": on, "lifecycle": some})), None);
        for limit in [
            json!({"numNewerVersions": 3}),
            json!({"isLive": true}),
            json!({"age": 400}),
            json!({"daysSinceCustomTime": 1}),
            json!({"noncurrentTimeBefore": "2020-01-01"}),
            json!({"unknown": 1}),
        ] {
            let mut condition = json!({"daysSinceNoncurrentTime": 90});
            condition.as_object_mut().unwrap().extend(limit.as_object().unwrap().clone());
            assert_eq!(days(json!({"versioning": on, "lifecycle": rule(condition)})), None, "{limit}");
        }
        let not_live = rule(json!({"daysSinceNoncurrentTime": 90, "isLive": false}));
        assert_eq!(days(json!({"versioning": on, "lifecycle": not_live})), Some(90));
        let both = json!({
            "versioning": on, "lifecycle": rule(json!({"daysSinceNoncurrentTime": 90})),
            "softDeletePolicy": {"retentionDurationSeconds": "604800"},
        });
        assert_eq!(days(both), Some(97));
    }
}
