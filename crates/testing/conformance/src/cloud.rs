//! All that differs between the clouds.

use std::fmt::Debug;
use std::io;
use std::ops::RangeInclusive;

use fake_cloud::BucketServer;
use serde_json::Value;
use storage_plugin::Provider;

/// A cloud whose plugin has to pass the suite.
///
/// Every difference has a name here, and no test asks which cloud it runs for.
pub trait Cloud: Debug + Send + Sync + 'static {
    /// The plugin's own part, for tests of the engine on its protocol.
    type Provider: Provider;

    /// The plugin's cargo package.
    const PLUGIN: &'static str;
    /// The plugin's name, with which its log lines begin.
    const NAME: &'static str;
    /// What the plugin says of itself.
    const DESCRIPTION: &'static str;
    /// Its section of Orthanc's configuration.
    const SECTION: &'static str;

    /// The bucket that the server has.
    const BUCKET: &'static str;
    /// How log lines name the bucket: with its name, once.
    const URL: &'static str;
    /// The option with the bucket's name.
    const BUCKET_OPTION: &'static str;
    /// The option that lets the HTTP client log.
    const HTTP_LOG_OPTION: &'static str = "EnableHttpLogs";

    /// The server's error code for a missing object.
    const NO_SUCH_OBJECT: &'static str;
    /// The server's error code for a missing bucket.
    const NO_SUCH_BUCKET: &'static str;
    /// What this cloud calls an error that S3 calls so.
    fn error_code(of_s3: &str) -> &str {
        of_s3
    }

    /// The name under which the cloud lists an object that was stored under this name.
    fn stored_name(name: &str) -> String {
        name.to_owned()
    }

    /// What log lines call the checksum that comes with a whole object.
    const CHECKSUM: &'static str;
    /// Requests of a start: the check of the bucket, and what it takes to sign it.
    const REQUESTS_AT_START: u64 = 1;
    /// Requests with which an upload in parts begins, before the first part.
    const REQUESTS_BEFORE_PARTS: u64 = 1;
    /// Whether the parts of an upload can be dropped. Otherwise the cloud forgets them by itself, some day.
    const PARTS_CAN_BE_DROPPED: bool = true;

    /// The feature of `object_store` for this cloud. Those of other clouds must not be linked.
    const STORE_FEATURE: &'static str;
    /// How the names of packages begin that have no business in this plugin.
    const FOREIGN_PACKAGES: &'static [&'static str];

    /// A server with an empty bucket, which is [`BUCKET`](Self::BUCKET).
    ///
    /// # Errors
    ///
    /// When it does not start.
    fn server() -> io::Result<BucketServer>;

    /// The section for the bucket of [`server`](Self::server), behind `endpoint` (`http://127.0.0.1:1234`).
    ///
    /// Transfers in parts must be off: a busy machine makes connections slow, and the tests count requests.
    fn section(endpoint: &str) -> Value;

    /// A server, and its section, with a secret of every kind that there is.
    ///
    /// # Errors
    ///
    /// When it does not start.
    fn with_every_secret() -> io::Result<(BucketServer, Value)>;

    /// Texts that must not be in any log: the secrets of both sections, and how signatures of requests begin.
    fn secrets() -> Vec<String>;

    /// Changes of the section of [`section`](Self::section) or [`with_every_secret`](Self::with_every_secret) with which
    /// the server behind `endpoint` refuses to serve.
    fn refusals(endpoint: &str) -> Vec<Refusal>;

    /// The options that are this cloud's own, but for those that are not of a simple kind.
    fn options() -> Vec<(&'static str, OptionKind)>;

    /// Changes of the section in which all options of this cloud have a value, even if it is the default.
    fn every_option() -> Value;

    /// Whether it could be the number of a request in an answer of the server.
    fn is_request_id(text: &str) -> bool {
        text.len() == 16 && text.bytes().all(|letter| letter.is_ascii_hexdigit())
    }
}

/// Credentials or the like that the server does not accept.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Changes of the section.
    pub changes: Value,
    /// How the error line goes on after the bucket.
    pub cause: String,
    /// What must not be in the log.
    pub secret: Option<String>,
}

/// What values an option takes.
#[derive(Debug, Clone)]
pub enum OptionKind {
    /// Any text.
    Text,
    /// A text that messages do not show.
    Secret,
    /// True or false.
    Flag,
    /// One of these.
    Choice(&'static [&'static str]),
    /// A whole number.
    Number(RangeInclusive<i64>),
}
