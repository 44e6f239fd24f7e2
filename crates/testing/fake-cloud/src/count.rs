//! Counts of requests, bodies and connections, and a record of the last requests.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use http::request::Parts;
use http::{StatusCode, header};
use parking_lot::Mutex;

use crate::operation::Operation;

/// How many requests the record keeps.
const RECORDED: usize = 10_000;

/// How often each operation was asked for, answered or not, since the start or the last reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestCounts {
    by_operation: [u64; Operation::ALL.len()],
    /// Requests of any kind.
    pub total: u64,
    /// Bytes of request bodies that were read, framing of `aws-chunked` bodies included.
    pub body_bytes_received: u64,
    /// Bytes of answer bodies that were handed to the connection.
    pub body_bytes_sent: u64,
}

macro_rules! accessors {
    ($($(#[$doc:meta])* $name:ident => $operation:ident,)*) => {
        $($(#[$doc])* #[must_use] pub fn $name(&self) -> u64 { self.of(Operation::$operation) })*
    };
}

impl RequestCounts {
    /// The count of one operation.
    #[must_use]
    pub fn of(&self, operation: Operation) -> u64 {
        self.by_operation.get(operation as usize).copied().unwrap_or(0)
    }

    accessors! {
        /// Whole objects put.
        put_object => PutObject,
        /// `GET`s without a range.
        get_object => GetObject,
        /// `GET`s with a range.
        get_object_range => GetObjectRange,
        /// `HEAD`s of objects.
        head_object => HeadObject,
        /// Single deletes.
        delete_object => DeleteObject,
        /// Bulk deletes.
        delete_objects => DeleteObjects,
        /// Listings.
        list_objects_v2 => ListObjectsV2,
        /// Multipart uploads begun.
        create_multipart_upload => CreateMultipartUpload,
        /// Parts uploaded.
        upload_part => UploadPart,
        /// Multipart uploads completed.
        complete_multipart_upload => CompleteMultipartUpload,
        /// Multipart uploads aborted.
        abort_multipart_upload => AbortMultipartUpload,
        /// `HEAD`s of the bucket.
        head_bucket => HeadBucket,
        /// Buckets created.
        create_bucket => CreateBucket,
        /// Tokens asked for.
        token => Token,
        /// Everything else.
        other => Other,
    }
}

/// One request, as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// What it asked for.
    pub operation: Operation,
    /// HTTP method.
    pub method: String,
    /// Path as sent, percent signs and all.
    pub path: String,
    /// Query as sent, empty without one.
    pub query: String,
    /// The `Range` header, or `x-ms-range`.
    pub range: Option<String>,
    /// The status of the answer; `None` while there is none, or when the connection was cut instead.
    pub status: Option<u16>,
}

/// The running counts of a server.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    by_operation: [AtomicU64; Operation::ALL.len()],
    pub(crate) body_bytes_received: AtomicU64,
    pub(crate) body_bytes_sent: AtomicU64,
    pub(crate) connections_accepted: AtomicU64,
    pub(crate) connections_open: AtomicU64,
    records: Mutex<Records>,
}

#[derive(Debug, Default)]
struct Records {
    last: VecDeque<RequestRecord>,
    /// Number of the record at the front.
    first: u64,
}

impl Counters {
    /// Counts and records a request; the number returned is for [`Counters::answered`].
    pub(crate) fn arrived(&self, operation: Operation, head: &Parts) -> u64 {
        if let Some(count) = self.by_operation.get(operation as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let range = head.headers.get(header::RANGE).or_else(|| head.headers.get("x-ms-range"));
        let range = range.map(|value| String::from_utf8_lossy(value.as_bytes()).into());
        let record = RequestRecord {
            operation,
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or("").to_owned(),
            range,
            status: None,
        };
        let mut records = self.records.lock();
        if records.last.len() == RECORDED {
            records.last.pop_front();
            records.first += 1;
        }
        records.last.push_back(record);
        records.first + records.last.len() as u64 - 1
    }

    /// Notes the status of the answer to a request, if it is still recorded.
    pub(crate) fn answered(&self, number: u64, status: StatusCode) {
        let mut records = self.records.lock();
        let index = number.checked_sub(records.first).and_then(|index| usize::try_from(index).ok());
        if let Some(record) = index.and_then(|index| records.last.get_mut(index)) {
            record.status = Some(status.as_u16());
        }
    }

    pub(crate) fn requests(&self) -> RequestCounts {
        let mut counts = RequestCounts {
            body_bytes_received: self.body_bytes_received.load(Ordering::Relaxed),
            body_bytes_sent: self.body_bytes_sent.load(Ordering::Relaxed),
            ..RequestCounts::default()
        };
        for (count, atomic) in counts.by_operation.iter_mut().zip(&self.by_operation) {
            *count = atomic.load(Ordering::Relaxed);
        }
        counts.total = counts.by_operation.iter().sum();
        counts
    }

    pub(crate) fn records(&self) -> Vec<RequestRecord> {
        self.records.lock().last.iter().cloned().collect()
    }

    /// Back to zero, but for the connections that are open.
    pub(crate) fn reset(&self) {
        for count in self.by_operation.iter().chain([
            &self.body_bytes_received,
            &self.body_bytes_sent,
            &self.connections_accepted,
        ]) {
            count.store(0, Ordering::Relaxed);
        }
        let mut records = self.records.lock();
        records.first += records.last.len() as u64;
        records.last.clear();
    }
}
