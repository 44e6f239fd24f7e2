//! Everything that differs between the clouds.

use std::fmt::Debug;
use std::io;
use std::ops::RangeInclusive;

use fake_cloud::BucketServer;
use serde_json::Value;
use storage_plugin::Provider;

use crate::KeyServer;

/// A cloud whose plugin must pass the suite.
///
/// Every difference between clouds is an item of this trait, and no test asks which cloud it runs for.
pub trait Cloud: Debug + Send + Sync + 'static {
    /// The provider in the plugin's crate, for tests of the bucket client.
    type Provider: Provider;

    /// Whether the normal run tests the code that all clouds share with this cloud.
    const WHOLE_SUITE: bool = false;

    /// The plugin's cargo package.
    const PLUGIN: &'static str;
    /// The plugin's name, which begins its log lines.
    const NAME: &'static str;
    /// The description that the plugin registers.
    const DESCRIPTION: &'static str;
    /// The plugin's section of Orthanc's configuration.
    const SECTION: &'static str;

    /// The bucket of the server.
    const BUCKET: &'static str;
    /// The URL of the bucket in log lines, which contains the bucket's name once.
    const URL: &'static str;
    /// The option with the bucket's name.
    const BUCKET_OPTION: &'static str;
    /// The option that logs the HTTP client's requests.
    const HTTP_LOG_OPTION: &'static str = "EnableHttpLogs";

    /// The server's error code for a missing object.
    const NO_SUCH_OBJECT: &'static str;
    /// The server's error code for the completion of an upload in parts that has been completed already.
    const NO_SUCH_UPLOAD: &'static str = "NoSuchUpload";
    /// The server's error code for a missing bucket.
    const NO_SUCH_BUCKET: &'static str;
    /// The server's error code for credentials that lack the permission to read.
    const MISSING_PERMISSION: &'static str = "AccessDenied";
    /// Returns this cloud's equivalent of an error code of S3.
    fn error_code(of_s3: &str) -> &str {
        of_s3
    }

    /// Returns the name under which the cloud lists an object that was stored as `name`.
    fn stored_name(name: &str) -> String {
        name.to_owned()
    }

    /// Whether archived objects must be restored before they can be read.
    const HAS_ARCHIVES: bool = true;

    /// Requests of a start without encryption: a read, a write and a deletion.
    const REQUESTS_AT_START: u64 = 3;
    /// Requests of an upload in parts before the first part.
    const REQUESTS_BEFORE_PARTS: u64 = 1;
    /// Whether an upload in parts can be aborted. If not, the cloud discards its parts some days later.
    const PARTS_CAN_BE_DROPPED: bool = true;

    /// Reads of an object that was uploaded in parts until it is confirmed: none if the server has its checksum.
    const READS_TO_CONFIRM_PARTS: u64 = 0;

    /// Requests for the checksum of an object that was read as a range, and whose ETag does not do.
    const CHECKSUM_REQUESTS: u64 = 0;
    /// Whether the server's checksum is an MD5, which is not computed where tags show that the bytes are right.
    const CHECKSUM_IS_MD5: bool = false;

    /// Maximum number of objects that one request deletes.
    const LARGEST_DELETION: u64;

    /// The feature of `object_store` for this cloud. Those of other clouds must not be linked.
    const STORE_FEATURE: &'static str;
    /// Prefixes of the names of packages that this plugin must not link.
    const FOREIGN_PACKAGES: &'static [&'static str];

    /// Starts a server with an empty bucket called [`BUCKET`](Self::BUCKET).
    fn server() -> io::Result<BucketServer>;

    /// Starts this cloud's key service.
    fn key_server() -> anyhow::Result<Box<dyn KeyServer>>;

    /// Whether the versions of a key in the key service can be disabled one by one.
    const KEYS_HAVE_VERSIONS: bool = true;

    /// Returns the section for the bucket of [`server`](Self::server) at `endpoint`
    /// (`http://127.0.0.1:1234`).
    ///
    /// The section must switch off transfers in parts: the tests count requests, and connections are slow on
    /// a busy machine.
    fn section(endpoint: &str) -> Value;

    /// Starts a server and returns a section for it with secrets of every kind.
    fn with_every_secret() -> io::Result<(BucketServer, Value)>;

    /// Returns texts that no log may contain: the secrets of both sections and the prefixes of signatures.
    fn secrets() -> Vec<String>;

    /// Returns changes of the section of [`section`](Self::section) or
    /// [`with_every_secret`](Self::with_every_secret) with which the server at `endpoint` refuses all
    /// requests.
    fn refusals(endpoint: &str) -> Vec<Refusal>;

    /// Returns the options of this cloud only that have a simple kind.
    fn options() -> Vec<(&'static str, OptionKind)>;

    /// Returns changes of the section that set all options of this cloud.
    fn every_option() -> Value;

    /// The options that each variant of the packaged sample leaves commented out, so that all variants together use all
    /// options.
    const SAMPLE_VARIANTS: &'static [&'static [&'static str]];

    /// Returns the values of samples that are only examples, each with one that works with the server at `endpoint`.
    fn example_values(endpoint: &str) -> Vec<(&'static str, String)>;

    /// Returns environment variables with credentials, for samples without.
    fn credentials_in_environment() -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Whether `text` has the form of a request id of the server.
    fn is_request_id(text: &str) -> bool {
        text.len() == 16 && text.bytes().all(|letter| letter.is_ascii_hexdigit())
    }
}

/// Credentials or other options that the server refuses.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Changes of the section.
    pub changes: Value,
    /// Status and code of the server's answer, which the error line contains: `HTTP 403 AccessDenied`.
    pub answer: String,
    /// The wrong secret, which no log may contain.
    pub secret: Option<String>,
}

/// The values that an option takes.
#[derive(Debug, Clone)]
pub enum OptionKind {
    /// Any string.
    Text,
    /// A string that messages do not show.
    Secret,
    /// True or false.
    Flag,
    /// One of these strings.
    Choice(&'static [&'static str]),
    /// An integer in this range.
    Number(RangeInclusive<i64>),
}
