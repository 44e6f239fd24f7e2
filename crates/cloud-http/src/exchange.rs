//! Observation of the server's responses during an operation.

use std::cell::RefCell;
use std::future::Future;
use std::time::Duration;

use crate::archive::ArchiveState;
use crate::checksum::Checksum;

tokio::task_local! {
    static EXCHANGE: RefCell<Exchange>;
}

/// The server's last response to the requests of one operation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Number of requests sent.
    pub requests: u32,
    /// The HTTP status of the last response.
    pub status: Option<u16>,
    /// The server's id of the last request (`x-amz-request-id` and similar), for the provider's support.
    pub request_id: Option<String>,
    /// How long the server asked to wait before the next request.
    pub retry_after: Option<Duration>,
    /// The error code in the response (`NoSuchBucket`, `SlowDown`, …), if the server refused the request.
    pub code: Option<String>,
    /// The server's explanation: one line of at most 200 characters.
    pub message: Option<String>,
    /// Whether the server refused the credentials or the time of the signature, and another attempt will have others.
    pub renewed: bool,
    /// The checksum of the whole object, if the response to a read contains one.
    pub checksum: Option<Checksum>,
    /// The MD5 of the whole object, if the response to a read contains one, perhaps besides another checksum.
    pub md5: Option<[u8; 16]>,
    /// Whether the server keeps the object encrypted under a key of a key service or of the client (S3), so that its ETag
    /// is no MD5.
    pub has_other_e_tag: bool,
    /// Whether the object of a read is in an archive tier.
    pub archive: ArchiveState,
    /// Whether the response does not come from the storage service: a web page, or a 404 without a code of the
    /// service.
    pub foreign: bool,
    /// Whether a response to a read does not say how large the object is.
    pub no_length: bool,
    /// Whether the server sent the whole object for a range, which was cut out.
    pub ignores_ranges: bool,
}

/// The content of a server's error body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The error code.
    pub code: Option<String>,
    /// The explanation.
    pub message: Option<String>,
    /// The server's id of the request.
    pub request_id: Option<String>,
}

/// Runs `operation`, and returns its result and the server's responses to its requests.
///
/// Only requests sent by the task that runs `operation` are observed, as are those of `object_store`.
pub async fn observe<T>(operation: impl Future<Output = T>) -> (T, Exchange) {
    EXCHANGE
        .scope(RefCell::default(), async {
            let result = operation.await;
            (result, EXCHANGE.with(RefCell::take))
        })
        .await
}

/// Observes an operation within another observed operation, which observes the same exchange.
pub async fn observe_nested<T>(operation: impl Future<Output = T>) -> (T, Exchange) {
    let (result, exchange) = observe(operation).await;
    note(|outer| *outer = Exchange { requests: outer.requests + exchange.requests, ..exchange.clone() });
    (result, exchange)
}

/// Updates the exchange of the observed operation, if there is one.
pub(crate) fn note(change: impl FnOnce(&mut Exchange)) {
    // Requests for credentials are sent outside of observed operations, so a missing exchange is not an
    // error.
    let _ = EXCHANGE.try_with(|exchange| change(&mut exchange.borrow_mut()));
}
