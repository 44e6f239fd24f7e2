//! The settings of a bucket in the JSON interface.
//!
//! <https://cloud.google.com/storage/docs/json_api/v1/buckets#resource>

use http::request::Parts;
use http::{Method, Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::dialect::{AnswerBody, Refusal, document};
use crate::operation::query_value;
use crate::settings::BucketSettings;

const CONTENT_TYPE: &str = "application/json; charset=UTF-8";

/// The bucket whose settings a request asks for.
pub(crate) fn bucket(head: &Parts) -> Option<&str> {
    let bucket = head.uri.path().strip_prefix("/storage/v1/b/")?;
    (head.method == Method::GET && !bucket.contains('/')).then_some(bucket)
}

/// Answers with the fields that the request asks for.
pub(crate) fn answer(head: &Parts, settings: &BucketSettings) -> Result<Response<AnswerBody>, Refusal> {
    if !settings.can_be_asked {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "Permission storage.buckets.get denied",
        ));
    }
    let prevention = if settings.blocks_public_access { "enforced" } else { "inherited" };
    let rule = |action: &str, condition: &str, days: Option<i32>| {
        days.map(|days| json!({"action": {"type": action}, "condition": {condition: days}}))
    };
    let rules = [
        rule("AbortIncompleteMultipartUpload", "age", settings.upload_days),
        rule("Delete", "daysSinceNoncurrentTime", settings.noncurrent_days),
    ];
    let rules: Vec<_> = rules.into_iter().flatten().collect();
    let mut fields = Map::from_iter([
        ("iamConfiguration".to_owned(), json!({"publicAccessPrevention": prevention})),
        ("softDeletePolicy".to_owned(), json!({"retentionDurationSeconds": "0"})),
    ]);
    // Google leaves out what is not set.
    if settings.keeps_versions {
        fields.insert("versioning".to_owned(), json!({"enabled": true}));
    }
    if !rules.is_empty() {
        fields.insert("lifecycle".to_owned(), json!({"rule": rules}));
    }
    if let Some(wanted) = query_value(head, "fields") {
        fields.retain(|name, _| wanted.split(',').any(|wanted| wanted == name));
    }
    Ok(document(&head.method, StatusCode::OK, CONTENT_TYPE, Value::Object(fields).to_string()))
}

/// Returns the document of a refusal.
pub(crate) fn error(refusal: &Refusal) -> String {
    let Refusal { status, code, message } = refusal;
    json!({"error": {
        "code": status.as_u16(), "message": message, "errors": [{"reason": code, "message": message, "domain": "global"}],
    }})
    .to_string()
}
