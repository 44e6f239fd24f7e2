//! The securing guide of the Orthanc Book, checked against Orthanc's configuration and what is known of the machine and
//! the bucket.
//!
//! The crate does no I/O: callers measure the [`Facts`]. The answer has one [`Finding`] for each id, in a fixed order.
//! No finding contains a secret: of `RegisteredUsers`, only numbers are shown.
//!
//! <https://orthanc.uclouvain.be/book/faq/security.html>
//!
//! ```
//! use security_audit::{Facts, Severity, audit};
//!
//! let configuration = serde_json::json!({"RemoteAccessAllowed": true, "ExecuteLuaEnabled": true});
//! let findings = audit(configuration.as_object().unwrap(), &Facts::default());
//! let script = findings.iter().find(|finding| finding.id == "http-execute-lua").unwrap();
//! assert_eq!((script.severity, script.value.as_str()), (Severity::Critical, "true"));
//! ```

mod bucket;
mod dicom;
mod facts;
mod finding;
mod general;
mod http;
mod lua;
mod modalities;
mod options;
mod storage;
mod users;

use serde_json::{Map, Value};

pub use facts::{
    Access, Anonymous, Answer, BucketFacts, Encryption, Facts, FileFact, LuaScript, PublicAccess,
    StorageFacts, Version, Versions,
};
pub use finding::{Area, Finding, Severity};
pub use lua::defines_filter;

use options::Options;

/// Checks Orthanc's whole configuration, with comments removed and environment variables substituted.
pub fn audit(configuration: &Map<String, Value>, facts: &Facts) -> Vec<Finding> {
    let options = Options::new(configuration);
    [
        general::check(&options, facts),
        http::check(&options, facts),
        dicom::check(&options, facts),
        storage::check(&options, facts),
        bucket::check(&facts.storage),
    ]
    .concat()
}

#[cfg(test)]
mod tests;
