//! The page at `/object-storage/app/`: what state the storage is in, and where a study is.
//!
//! The page is one document without external resources, since hospitals' networks are closed. Its parts are in
//! `page/`: `index.html` with the style sheet and the scripts inserted. This crate does no I/O.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// The path of the page in Orthanc, as the plugin's `RootUri`.
pub const PATH: &str = "/object-storage/app/";

/// Adds a link to the page to the patients, studies and series of Orthanc Explorer.
pub const EXPLORER: &str = include_str!("../page/explorer.js");

const DOCUMENT: &str = include_str!("../page/index.html");

/// The style sheets: a later one has precedence.
const STYLES: [&str; 3] =
    [include_str!("../page/base.css"), include_str!("../page/parts.css"), include_str!("../page/media.css")];

/// The scripts, which share one scope: what a script uses while it is loaded must come before it.
const SCRIPTS: [&str; 16] = [
    include_str!("../page/dom.js"),
    include_str!("../page/format.js"),
    include_str!("../page/http.js"),
    include_str!("../page/poll.js"),
    include_str!("../page/dialog.js"),
    include_str!("../page/charts.js"),
    include_str!("../page/history.js"),
    include_str!("../page/overview.js"),
    include_str!("../page/jobs.js"),
    include_str!("../page/places.js"),
    include_str!("../page/studies.js"),
    include_str!("../page/actions.js"),
    include_str!("../page/study.js"),
    include_str!("../page/reports.js"),
    include_str!("../page/security.js"),
    include_str!("../page/main.js"),
];

static PAGE: LazyLock<Page> = LazyLock::new(Page::assemble);

/// The page, and the headers that it needs.
#[derive(Debug)]
pub struct Page {
    document: String,
    policy: String,
    etag: String,
}

impl Page {
    /// Returns the page.
    pub fn get() -> &'static Self {
        &PAGE
    }

    /// The HTML document.
    pub fn document(&self) -> &str {
        &self.document
    }

    /// The value of `Content-Security-Policy`: nothing but the document's own script and style may run, and it may talk
    /// to its own server only.
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// The value of `ETag`, which another document does not have.
    pub fn etag(&self) -> &str {
        &self.etag
    }

    fn assemble() -> Self {
        let style = STYLES.concat();
        let script = SCRIPTS.concat();
        let document = DOCUMENT.replace("/*STYLE*/", &style).replace("/*SCRIPT*/", &script);
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'self'; require-trusted-types-for 'script'; trusted-types 'none'",
            source_hash(&script),
            source_hash(&style),
        );
        let mut etag = String::from("\"");
        for byte in &digest(&SHA256, document.as_bytes()).as_ref()[..12] {
            // Writing into a string cannot fail.
            let _ = write!(etag, "{byte:02x}");
        }
        etag.push('"');
        Self { document, policy, etag }
    }
}

/// The hash of an inline script or style in a Content-Security-Policy.
fn source_hash(text: &str) -> String {
    format!("sha256-{}", BASE64.encode(digest(&SHA256, text.as_bytes())))
}

#[cfg(test)]
mod tests;
