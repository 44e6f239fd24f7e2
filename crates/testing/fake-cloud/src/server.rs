//! The server as a test sees it.

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
use crate::stored::{StoredObject, UnfinishedUpload};

/// How long [`BucketServer::stop`] waits for the port to be closed.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// An S3 server on a free port of 127.0.0.1, with its own threads and its buckets in memory.
///
/// No method blocks for long, and all may be called from synchronous code as from a runtime. Dropping it ends all.
#[derive(Debug)]
pub struct BucketServer {
    front: Arc<Front>,
    address: SocketAddr,
    connection_limit: usize,
    running: Mutex<Option<Running>>,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

/// A listener at work.
#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    stopped: mpsc::Receiver<Infallible>,
}

impl BucketServer {
    /// Starts an S3 server.
    ///
    /// # Errors
    ///
    /// When the port is taken or the threads cannot be started.
    pub fn start(options: Options) -> io::Result<Self> {
        let (port, connection_limit) = (options.port, options.connection_limit);
        Self::with(port, connection_limit, |_| Ok(Arc::new(S3Dialect::new(options))))
    }

    /// Starts an Azure server: Azurite, with everything of this type before it.
    ///
    /// Methods that look into the buckets ask Azurite, uncounted, and take some milliseconds; they panic if it is gone.
    ///
    /// # Errors
    ///
    /// When Azurite is not installed or does not start, or the port is taken.
    pub fn start_azure(options: &AzureOptions) -> io::Result<Self> {
        Self::with(options.port, options.connection_limit, |runtime| {
            Ok(Arc::new(AzureDialect::start(options, runtime.handle())?))
        })
    }

    /// Starts a Google Cloud Storage server.
    ///
    /// # Errors
    ///
    /// When the port is taken or the threads cannot be started.
    pub fn start_google(options: GoogleOptions) -> io::Result<Self> {
        let (port, connection_limit) = (options.port, options.connection_limit);
        Self::with(port, connection_limit, |_| Ok(Arc::new(GoogleDialect::new(options))))
    }

    /// Starts a server of any kind; its dialect may use its threads.
    fn with(
        port: Option<u16>,
        connection_limit: usize,
        dialect: impl FnOnce(&Runtime) -> io::Result<Arc<dyn Dialect>>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.unwrap_or(0)))?;
        let address = listener.local_addr()?;
        let runtime =
            Builder::new_multi_thread().worker_threads(2).thread_name("fake-cloud").enable_all().build()?;
        let front = Arc::new(Front::new(dialect(&runtime)?));
        let server =
            Self { front, address, connection_limit, running: Mutex::new(None), runtime: Some(runtime) };
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
        runtime.spawn(listen(listener, Arc::clone(&self.front), self.connection_limit, stop_asked, at_end));
        *self.running.lock() = Some(Running { stop, stopped });
        Ok(())
    }

    /// `http://127.0.0.1:PORT`, the same after a stop and a new start.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Closes the port and cuts every connection, whatever goes on. Objects and counts stay. Twice is as good as once.
    pub fn stop(&self) {
        if let Some(running) = self.running.lock().take() {
            // It has ended already if nobody listens.
            let _ = running.stop.send(());
            // The sender is dropped at the end and sends nothing.
            let _ = running.stopped.recv_timeout(STOP_LIMIT);
        }
    }

    /// Opens the same port again after [`BucketServer::stop`]; does nothing while running.
    ///
    /// # Errors
    ///
    /// When another program took the port meanwhile.
    pub fn start_again(&self) -> io::Result<()> {
        if self.running.lock().is_some() {
            return Ok(());
        }
        self.run(TcpListener::bind(self.address)?)
    }

    /// All objects of a bucket by key; none for a bucket that does not exist.
    #[must_use]
    pub fn objects(&self, bucket: &str) -> BTreeMap<String, StoredObject> {
        self.front.dialect.objects(bucket)
    }

    /// The keys of a bucket in order, without a look at the content.
    #[must_use]
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        self.front.dialect.keys(bucket)
    }

    /// One object.
    #[must_use]
    pub fn object(&self, bucket: &str, key: &str) -> Option<StoredObject> {
        self.front.dialect.object(bucket, key)
    }

    /// Puts an object without a request; creates the bucket if need be.
    pub fn insert(&self, bucket: &str, key: &str, bytes: impl Into<Bytes>) {
        self.front.dialect.insert(bucket, key, bytes.into());
    }

    /// Removes an object without a request, and returns it.
    pub fn remove(&self, bucket: &str, key: &str) -> Option<StoredObject> {
        self.front.dialect.remove(bucket, key)
    }

    /// Multipart uploads that were neither completed nor aborted, oldest first.
    #[must_use]
    pub fn unfinished_uploads(&self, bucket: &str) -> Vec<UnfinishedUpload> {
        self.front.dialect.unfinished_uploads(bucket)
    }

    /// Empties all buckets, unfinished uploads included.
    pub fn clear(&self) {
        self.front.dialect.clear();
    }

    /// Requests so far.
    #[must_use]
    pub fn requests(&self) -> RequestCounts {
        self.front.counters.requests()
    }

    /// The last 10,000 requests in the order they arrived.
    #[must_use]
    pub fn last_requests(&self) -> Vec<RequestRecord> {
        self.front.counters.records()
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn connections_accepted(&self) -> u64 {
        self.front.counters.connections_accepted.load(Ordering::SeqCst)
    }

    /// Connections open now.
    #[must_use]
    pub fn connections_open(&self) -> u64 {
        self.front.counters.connections_open.load(Ordering::SeqCst)
    }

    /// Sets all counts to zero, but for open connections, and forgets the last requests.
    pub fn reset_counts(&self) {
        self.front.counters.reset();
    }

    /// The fault rules.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.front.faults
    }

    /// Lets every request wait so long before it is carried out, as on a line with this round-trip time.
    pub fn latency(&self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.front.latency.store(nanos, Ordering::Relaxed);
    }

    /// Limits each connection to so many bytes for each second and direction; `None` and 0 are without limit.
    pub fn bandwidth_per_connection(&self, bytes_per_second: Option<u64>) {
        self.front.bandwidth.store(bytes_per_second.unwrap_or(0), Ordering::Relaxed);
    }

    /// Holds back requests for an operation from now until the [`Hold`] is released or dropped.
    #[must_use]
    pub fn hold(&self, operation: Operation) -> Hold {
        self.front.holds.hold(operation, None)
    }

    /// As [`BucketServer::hold`], only for keys that contain `part`.
    #[must_use]
    pub fn hold_key(&self, operation: Operation, part: impl Into<String>) -> Hold {
        self.front.holds.hold(operation, Some(part.into()))
    }
}

impl Drop for BucketServer {
    fn drop(&mut self) {
        self.stop();
        if let Some(runtime) = self.runtime.take() {
            // Waiting for the threads would panic inside of another runtime.
            runtime.shutdown_background();
        }
    }
}
