//! The server, with everything that tests ask of it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::azure::{AzureDialect, AzureOptions};
use crate::count::{RequestCounts, RequestRecord};
use crate::dialect::Dialect;
use crate::fault::Faults;
use crate::front::Front;
use crate::google::{GoogleDialect, GoogleOptions};
use crate::hold::Hold;
use crate::listen::listen;
use crate::operation::Operation;
use crate::s3::{Options, S3Dialect};
use crate::stored::{Buckets, StoredObject};

/// Maximum time that [`BucketServer::stop`] waits until the port is closed.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A cloud storage server on a port of 127.0.0.1, with its own threads.
///
/// All methods can be called from synchronous and from asynchronous code. Dropping the server stops it.
#[derive(Debug)]
pub struct BucketServer {
    front: Arc<Front>,
    address: SocketAddr,
    running: Mutex<Option<Running>>,
    /// `None` only during drop.
    runtime: Option<Runtime>,
}

/// An open port.
#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    stopped: mpsc::Receiver<Infallible>,
}

impl BucketServer {
    /// Starts an S3 server on a free port, with the bucket `bucket`.
    ///
    /// # Errors
    ///
    /// Fails if the port or the threads cannot be opened.
    pub fn start(options: Options) -> io::Result<Self> {
        Self::with(None, |_| Ok(Arc::new(S3Dialect::new(options)?)))
    }

    /// Starts an Azure server with the container `bucket`: Azurite behind this crate's counters and faults.
    ///
    /// Methods that access the buckets ask Azurite, uncounted. They take some milliseconds, and panic if
    /// Azurite fails.
    ///
    /// # Errors
    ///
    /// Fails if Azurite is not installed or does not start, or if the port is in use.
    pub fn start_azure(options: &AzureOptions) -> io::Result<Self> {
        Self::with(options.port, |runtime| Ok(Arc::new(AzureDialect::start(options, runtime.handle())?)))
    }

    /// Starts a Google Cloud Storage server on a free port, with the bucket `bucket`.
    ///
    /// # Errors
    ///
    /// Fails if the port or the threads cannot be opened.
    pub fn start_google(options: GoogleOptions) -> io::Result<Self> {
        Self::with(None, |_| Ok(Arc::new(GoogleDialect::new(options))))
    }

    fn with(
        port: Option<u16>,
        dialect: impl FnOnce(&Runtime) -> io::Result<Arc<dyn Dialect>>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.unwrap_or(0)))?;
        let address = listener.local_addr()?;
        let runtime =
            Builder::new_multi_thread().worker_threads(2).thread_name("fake-cloud").enable_all().build()?;
        let front = Arc::new(Front::new(dialect(&runtime)?));
        let server = Self { front, address, running: Mutex::new(None), runtime: Some(runtime) };
        server.run(listener)?;
        Ok(server)
    }

    fn run(&self, listener: TcpListener) -> io::Result<()> {
        let Some(runtime) = &self.runtime else { return Ok(()) };
        listener.set_nonblocking(true)?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (stop, stop_asked) = oneshot::channel();
        let (at_end, stopped) = mpsc::channel();
        runtime.spawn(listen(listener, Arc::clone(&self.front), stop_asked, at_end));
        *self.running.lock() = Some(Running { stop, stopped });
        Ok(())
    }

    /// Returns `http://127.0.0.1:PORT`, which is the same after [`BucketServer::start_again`].
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Closes the port and cuts every connection. Objects and counters remain. Does nothing if already
    /// stopped.
    pub fn stop(&self) {
        if let Some(running) = self.running.lock().take() {
            // Fails only if the task has already ended.
            let _ = running.stop.send(());
            // The sender is dropped without sending when the port is closed.
            let _ = running.stopped.recv_timeout(STOP_LIMIT);
        }
    }

    /// Opens the same port again after [`BucketServer::stop`]. Does nothing while running.
    ///
    /// # Errors
    ///
    /// Fails if another program has taken the port.
    pub fn start_again(&self) -> io::Result<()> {
        if self.running.lock().is_some() {
            return Ok(());
        }
        self.run(TcpListener::bind(self.address)?)
    }

    fn buckets(&self) -> &dyn Buckets {
        self.front.dialect.buckets()
    }

    /// Returns all objects of a bucket by key, none if the bucket does not exist.
    #[must_use]
    pub fn objects(&self, bucket: &str) -> BTreeMap<String, StoredObject> {
        let keys = self.keys(bucket).into_iter();
        keys.filter_map(|key| self.object(bucket, &key).map(|object| (key, object))).collect()
    }

    /// Returns the keys of a bucket in order.
    #[must_use]
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        self.buckets().keys(bucket)
    }

    /// Returns one object.
    #[must_use]
    pub fn object(&self, bucket: &str, key: &str) -> Option<StoredObject> {
        self.buckets().object(bucket, key)
    }

    /// Puts an object without a request; creates the bucket if necessary.
    pub fn insert(&self, bucket: &str, key: &str, bytes: impl Into<Bytes>) {
        self.buckets().insert(bucket, key, bytes.into());
    }

    /// Removes an object without a request, and returns it.
    pub fn remove(&self, bucket: &str, key: &str) -> Option<StoredObject> {
        self.buckets().remove(bucket, key)
    }

    /// Refuses the deletion of an object from now on: with 403, or 412 in Azure.
    pub fn protect(&self, bucket: &str, key: &str) {
        self.buckets().protect(bucket, key);
    }

    /// Moves an object to an archive tier, where it cannot be read, or deletes the copy that a restore has made. In S3, the
    /// class is that of the object if it is an archive, or else `GLACIER`. In Google, archived objects can be read.
    pub fn archive(&self, bucket: &str, key: &str) {
        self.buckets().archive(bucket, key);
    }

    /// Returns the keys of objects that are being restored, in order.
    #[must_use]
    pub fn restoring(&self, bucket: &str) -> Vec<String> {
        self.buckets().restoring(bucket)
    }

    /// Ends the restore of an object, which can be read from now on. Does nothing if it is not being restored.
    pub fn end_restore(&self, bucket: &str, key: &str) {
        self.buckets().end_restore(bucket, key);
    }

    /// Returns the keys of multipart uploads that were neither completed nor aborted.
    #[must_use]
    pub fn unfinished_uploads(&self, bucket: &str) -> Vec<String> {
        self.buckets().unfinished_uploads(bucket)
    }

    /// Empties all buckets, unfinished uploads included.
    pub fn clear(&self) {
        self.buckets().clear();
    }

    /// Returns the counters of requests.
    #[must_use]
    pub fn requests(&self) -> RequestCounts {
        self.front.counters.requests()
    }

    /// Returns the last 10,000 requests in the order of arrival.
    #[must_use]
    pub fn last_requests(&self) -> Vec<RequestRecord> {
        self.front.counters.records()
    }

    /// Returns the number of connections accepted.
    #[must_use]
    pub fn connections_accepted(&self) -> u64 {
        self.front.counters.connections_accepted()
    }

    /// Returns the number of connections open now.
    #[must_use]
    pub fn connections_open(&self) -> u64 {
        self.front.counters.connections_open()
    }

    /// Resets all counters except the number of open connections, and clears the record of requests.
    pub fn reset_counts(&self) {
        self.front.counters.reset();
    }

    /// Returns the fault rules.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.front.faults
    }

    /// Delays every request by this time before carrying it out, like a line with this round-trip time.
    pub fn latency(&self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.front.latency.store(nanos, Ordering::Relaxed);
    }

    /// Limits each direction of each connection to this many bytes per second; `None` means unlimited.
    pub fn bandwidth_per_connection(&self, bytes_per_second: Option<u64>) {
        self.front.bandwidth.store(bytes_per_second.unwrap_or(0), Ordering::Relaxed);
    }

    /// Holds requests for an operation until the [`Hold`] is released or dropped.
    #[must_use]
    pub fn hold(&self, operation: Operation) -> Hold {
        self.front.holds.hold(operation, None)
    }

    /// Like [`BucketServer::hold`], only for keys that contain `text`.
    #[must_use]
    pub fn hold_key(&self, operation: Operation, text: impl Into<String>) -> Hold {
        self.front.holds.hold(operation, Some(text.into()))
    }
}

impl Drop for BucketServer {
    fn drop(&mut self) {
        self.stop();
        if let Some(runtime) = self.runtime.take() {
            // Waiting for the threads would panic inside another runtime.
            runtime.shutdown_background();
        }
    }
}
