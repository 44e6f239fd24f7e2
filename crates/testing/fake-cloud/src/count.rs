//! Counters of requests, bytes and connections, and a record of the last requests.

use std::collections::VecDeque;

use http::request::Parts;
use http::{StatusCode, header};
use parking_lot::Mutex;

use crate::operation::Operation;

/// Maximum number of requests in the record.
const RECORDED: usize = 10_000;

/// Number of requests for each operation since the start or the last reset, answered or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestCounts {
    by_operation: [u64; Operation::Other as usize + 1],
    /// Number of all requests.
    pub total: u64,
    /// Bytes of request bodies that the server read, framing of `aws-chunked` bodies included.
    pub body_bytes_received: u64,
    /// Bytes of answer bodies that the server passed to the connection.
    pub body_bytes_sent: u64,
}

impl RequestCounts {
    /// Returns the number of requests for one operation.
    #[must_use]
    pub fn of(&self, operation: Operation) -> u64 {
        self.by_operation.get(operation as usize).copied().unwrap_or(0)
    }
}

/// One request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// The operation.
    pub operation: Operation,
    /// The HTTP method.
    pub method: String,
    /// The path as sent, percent-encoded.
    pub path: String,
    /// The `Range` header, or `x-ms-range`.
    pub range: Option<String>,
    /// The status of the answer; `None` before the answer, or if the connection was cut instead.
    pub status: Option<u16>,
}

/// The running counters of a server.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    requests: RequestCounts,
    connections_accepted: u64,
    connections_open: u64,
    records: VecDeque<RequestRecord>,
    /// Number of the record at the front.
    first: u64,
}

impl Counters {
    /// Counts and records a request. The number returned is for [`Counters::answered`].
    pub(crate) fn arrived(&self, operation: Operation, head: &Parts) -> u64 {
        let range = head.headers.get(header::RANGE).or_else(|| head.headers.get("x-ms-range"));
        let record = RequestRecord {
            operation,
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            range: range.map(|value| String::from_utf8_lossy(value.as_bytes()).into()),
            status: None,
        };
        let mut state = self.0.lock();
        state.requests.total += 1;
        if let Some(count) = state.requests.by_operation.get_mut(operation as usize) {
            *count += 1;
        }
        if state.records.len() == RECORDED {
            state.records.pop_front();
            state.first += 1;
        }
        state.records.push_back(record);
        state.first + state.records.len() as u64 - 1
    }

    /// Records the status of the answer to a request, if its record still exists.
    pub(crate) fn answered(&self, number: u64, status: StatusCode) {
        let mut state = self.0.lock();
        let index = number.checked_sub(state.first).and_then(|index| usize::try_from(index).ok());
        if let Some(record) = index.and_then(|index| state.records.get_mut(index)) {
            record.status = Some(status.as_u16());
        }
    }

    pub(crate) fn received(&self, bytes: u64) {
        self.0.lock().requests.body_bytes_received += bytes;
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.0.lock().requests.body_bytes_sent += bytes;
    }

    pub(crate) fn connected(&self) {
        let mut state = self.0.lock();
        state.connections_accepted += 1;
        state.connections_open += 1;
    }

    pub(crate) fn disconnected(&self) {
        self.0.lock().connections_open -= 1;
    }

    pub(crate) fn requests(&self) -> RequestCounts {
        self.0.lock().requests
    }

    pub(crate) fn records(&self) -> Vec<RequestRecord> {
        self.0.lock().records.iter().cloned().collect()
    }

    pub(crate) fn connections_accepted(&self) -> u64 {
        self.0.lock().connections_accepted
    }

    pub(crate) fn connections_open(&self) -> u64 {
        self.0.lock().connections_open
    }

    /// Resets everything except the number of open connections.
    pub(crate) fn reset(&self) {
        let mut state = self.0.lock();
        state.requests = RequestCounts::default();
        state.connections_accepted = 0;
        state.first += state.records.len() as u64;
        state.records.clear();
    }
}
