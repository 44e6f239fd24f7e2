//! The requests of the audit.
//!
//! <https://learn.microsoft.com/rest/api/storageservices/get-container-properties>,
//! <https://learn.microsoft.com/rest/api/storageservices/get-blob-service-properties>,
//! <https://learn.microsoft.com/rest/api/storageservices/list-blobs>

use async_trait::async_trait;
use http::header::RANGE;
use http::{HeaderName, Method};
use object_store::path::Path;
use serde::Deserialize;
use storage_plugin::{Anonymous, Answer, BucketAudit, PublicAccess, Reply, Versions, anonymous};
use url::Url;

use crate::container::{Container, request};

/// The version of the protocol. Without it, anonymous requests would have the oldest one.
const VERSION: (HeaderName, &str) = (HeaderName::from_static("x-ms-version"), "2021-12-02");
const PUBLIC_ACCESS: HeaderName = HeaderName::from_static("x-ms-blob-public-access");
/// Codes with which Azure hides a private container, or refuses since the account forbids public access.
const HIDDEN: [&str; 2] = ["ResourceNotFound", "PublicAccessNotPermitted"];
/// Days until Azure discards uncommitted blocks.
const UNCOMMITTED: u64 = 7;

#[derive(Debug, Deserialize)]
struct ServiceProperties {
    #[serde(rename = "DeleteRetentionPolicy")]
    soft_delete: Option<SoftDelete>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SoftDelete {
    enabled: bool,
    days: Option<u64>,
}

impl Container {
    async fn anonymous(&self, url: &Url, headers: &[(HeaderName, &'static str)]) -> Answer<Anonymous> {
        match request(Method::GET, url, headers, String::new()) {
            Ok(request) => anonymous(&self.http.http, request, &HIDDEN).await,
            Err(_) => Answer::Unknown("the URL is not valid".to_owned()),
        }
    }
}

#[async_trait]
impl BucketAudit for Container {
    async fn anonymous_list(&self) -> Answer<Anonymous> {
        let mut url = self.url.clone();
        url.set_query(Some("restype=container&comp=list&maxresults=1"));
        self.anonymous(&url, &[VERSION]).await
    }

    async fn anonymous_read(&self, name: &str) -> Answer<Anonymous> {
        match Path::parse(name) {
            Ok(path) => self.anonymous(&self.blob_url(&path), &[VERSION, (RANGE, "bytes=0-0")]).await,
            Err(_) => Answer::Unknown("the object has an unusual name".to_owned()),
        }
    }

    async fn public_access(&self) -> Answer<PublicAccess> {
        let mut url = self.url.clone();
        url.set_query(Some("restype=container"));
        match Reply::of(self.send(Method::GET, &url, &[], String::new())).await {
            Reply::Answered(headers, _) => {
                let shown = match headers.get(PUBLIC_ACCESS) {
                    None => "private container",
                    Some(level) if level == "blob" => "everyone can read blobs",
                    Some(_) => "everyone can list and read blobs",
                };
                Answer::Known(PublicAccess {
                    is_blocked: !headers.contains_key(PUBLIC_ACCESS),
                    shown: shown.to_owned(),
                    advice: "make it private: az storage container set-permission --name CONTAINER --public-access off; and \
                             forbid it for the account: az storage account update --allow-blob-public-access false",
                })
            }
            reply => reply.unanswered("the role Storage Blob Data Reader on the container"),
        }
    }

    async fn versions(&self, root: &str) -> Answer<Versions> {
        let mut list = self.url.clone();
        list.set_query(Some("restype=container&comp=list&include=versions&maxresults=10"));
        list.query_pairs_mut().append_pair("prefix", root);
        let has_versions = match Reply::of(self.send(Method::GET, &list, &[], String::new())).await {
            Reply::Answered(_, body) => has_version(&body),
            // The answer about soft delete counts.
            _ => false,
        };
        if has_versions {
            return Answer::Known(Versions::Kept {
                shown: "blob versioning is on, or was".to_owned(),
                days: None,
                advice: "switch it off: az storage account blob-service-properties update --enable-versioning false; or add a \
                         lifecycle rule of the account that deletes previous versions, which is not seen here",
            });
        }
        let mut url = self.url.clone();
        // Never fails: HTTP URLs have a path.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop();
        }
        url.set_query(Some("restype=service&comp=properties"));
        match Reply::of(self.send(Method::GET, &url, &[], String::new())).await {
            Reply::Answered(_, body) => soft_delete(&body),
            reply => reply.unanswered("Microsoft.Storage/storageAccounts/blobServices/read on the account"),
        }
    }

    async fn unfinished_uploads(&self, _root: &str) -> Answer<Option<u64>> {
        Answer::Known(Some(UNCOMMITTED))
    }
}

/// Whether blobs in a list have versions. Blobs from before versioning was switched on have none.
fn has_version(body: &[u8]) -> bool {
    String::from_utf8_lossy(body).contains("<VersionId>")
}

/// Reads the properties of the account's blob service. They do not say whether it keeps versions, which also keep blobs
/// that are deleted, whatever soft delete says: so the answer is never that nothing remains.
fn soft_delete(body: &[u8]) -> Answer<Versions> {
    let text = String::from_utf8_lossy(body);
    let state = match quick_xml::de::from_str(text.trim_start_matches('\u{feff}')) {
        Ok(ServiceProperties { soft_delete: Some(SoftDelete { enabled: true, days: None }) }) => {
            return Answer::Known(Versions::Kept {
                shown: "soft delete is on".to_owned(),
                days: None,
                advice: "limit it: az storage account blob-service-properties update --enable-delete-retention true \
                         --delete-retention-days 30",
            });
        }
        Ok(ServiceProperties { soft_delete: Some(SoftDelete { enabled: true, days: Some(days) }) }) => {
            format!("soft delete is on for {days} days")
        }
        Ok(ServiceProperties { .. }) => "soft delete is off".to_owned(),
        Err(_) => return Answer::Unknown("the server's answer is not understood".to_owned()),
    };
    Answer::Unknown(format!("{state}, and Azure does not say whether the account keeps versions of blobs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_delete_is_read() {
        let properties = |policy: &str| {
            let text = format!(
                "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><StorageServiceProperties><Logging><Version>1.0</Version>\
                 </Logging>{policy}</StorageServiceProperties>"
            );
            soft_delete(text.as_bytes())
        };
        let is_unknown = |answer: Answer<Versions>, text: &str| match answer {
            Answer::Unknown(reason) => assert!(reason.contains(text), "{reason}"),
            known => panic!("{known:?}"),
        };
        let on = "<DeleteRetentionPolicy><Enabled>true</Enabled><Days>30</Days></DeleteRetentionPolicy>";
        is_unknown(properties(on), "on for 30 days");
        let endless = "<DeleteRetentionPolicy><Enabled>true</Enabled></DeleteRetentionPolicy>";
        assert!(matches!(properties(endless), Answer::Known(Versions::Kept { days: None, .. })));
        let off = "<DeleteRetentionPolicy><Enabled>false</Enabled></DeleteRetentionPolicy>";
        is_unknown(properties(off), "soft delete is off");
        is_unknown(properties(""), "soft delete is off");
        is_unknown(soft_delete(b"{}"), "not understood");
    }

    #[test]
    fn versions_are_seen_in_a_list() {
        let list =
            |fields: &str| format!("<EnumerationResults><Blobs><Blob><Name>a</Name>{fields}</Blob></Blobs>");
        assert!(has_version(list("<VersionId>2026-01-01T00:00:00.0000000Z</VersionId>").as_bytes()));
        assert!(!has_version(list("").as_bytes()));
    }
}
