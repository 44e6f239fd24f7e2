//! What was learnt of the server during an operation.

use std::cell::RefCell;
use std::future::Future;
use std::time::Duration;

use crate::checksum::Checksum;

tokio::task_local! {
    static EXCHANGE: RefCell<Exchange>;
}

/// The last answer of the server to the requests of one operation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Requests made.
    pub requests: u32,
    /// The HTTP status of the last answer.
    pub status: Option<u16>,
    /// The server's name for the last request (`x-amz-request-id` and the like), for its support.
    pub request_id: Option<String>,
    /// How long the server asks to wait before the next request.
    pub retry_after: Option<Duration>,
    /// The error code in the answer (`NoSuchBucket`, `SlowDown`, …), where the server refused.
    pub code: Option<String>,
    /// The server's explanation: one line of at most 200 characters.
    pub message: Option<String>,
    /// The checksum of the whole object, where the answer to a read has one.
    pub checksum: Option<Checksum>,
}

/// What a server's error body says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The error code.
    pub code: Option<String>,
    /// The explanation.
    pub message: Option<String>,
    /// The server's name for the request.
    pub request_id: Option<String>,
}

/// Runs `operation` and returns with its result what the server answered on the way.
///
/// Requests are noticed when they are made by the task that runs `operation`, as those of `object_store` are.
pub async fn observe<T>(operation: impl Future<Output = T>) -> (T, Exchange) {
    EXCHANGE
        .scope(RefCell::default(), async {
            let result = operation.await;
            (result, EXCHANGE.with(RefCell::take))
        })
        .await
}

/// As [`observe`], for an operation that is a step of another observed one, which gets to know the exchange as well.
pub async fn observe_nested<T>(operation: impl Future<Output = T>) -> (T, Exchange) {
    let (result, exchange) = observe(operation).await;
    note(|outer| *outer = Exchange { requests: outer.requests + exchange.requests, ..exchange.clone() });
    (result, exchange)
}

/// Notes something about the operation that is being observed, if one is.
pub(crate) fn note(change: impl FnOnce(&mut Exchange)) {
    // Nobody need watch: credentials are fetched outside of an operation.
    let _ = EXCHANGE.try_with(|exchange| change(&mut exchange.borrow_mut()));
}
