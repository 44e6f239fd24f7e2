//! Requests that the server carries out, but whose answer is lost on the way.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Cloud;
use crate::servers::Server;
use crate::servers::fixture::Fixture;
use crate::servers::large;

tests! {
    EveryCloud:
        store_survives_a_lost_answer,
        completion_survives_a_lost_answer,
        deletion_survives_a_lost_answer,
}

/// Whether this first line of a request is of the kind whose answer is to be lost.
type IsChosen = fn(&str) -> bool;

/// Forwards connections, and closes one of them instead of forwarding the answer to the first chosen request.
struct LosingProxy {
    address: SocketAddr,
    is_armed: Arc<AtomicBool>,
}

impl LosingProxy {
    /// Starts a proxy, whose threads end with this process.
    fn start(server: &Server, is_chosen: IsChosen) -> Result<Self> {
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()?));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let is_armed = Arc::new(AtomicBool::new(true));
        let armed = Arc::clone(&is_armed);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(target) else { continue };
                let line = Line { is_armed: Arc::clone(&armed), is_chosen, is_lost: Arc::default() };
                // The streams are closed when both directions have ended.
                let _ = line.forward(client, server);
            }
        });
        Ok(Self { address, is_armed })
    }

    /// Checks that an answer was lost.
    fn expect_lost(&self) -> Result<()> {
        ensure!(!self.is_armed.load(Ordering::SeqCst), "no answer was lost");
        Ok(())
    }
}

/// One connection.
#[derive(Clone)]
struct Line {
    is_armed: Arc<AtomicBool>,
    is_chosen: IsChosen,
    /// Whether the next bytes of the server are the answer to lose.
    is_lost: Arc<AtomicBool>,
}

impl Line {
    fn forward(&self, client: TcpStream, server: TcpStream) -> io::Result<()> {
        let requests = (client.try_clone()?, server.try_clone()?);
        let (upwards, downwards) = (self.clone(), self.clone());
        thread::spawn(move || copy(requests, |bytes| upwards.sees_request(bytes)));
        thread::spawn(move || copy((server, client), |_| !downwards.is_lost.load(Ordering::SeqCst)));
        Ok(())
    }

    /// Looks at bytes of the client, which begins each request with new ones. They are always forwarded.
    fn sees_request(&self, bytes: &[u8]) -> bool {
        let first_line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let first_line = String::from_utf8_lossy(first_line);
        if first_line.ends_with(" HTTP/1.1") && (self.is_chosen)(&first_line) {
            let was_armed = self.is_armed.swap(false, Ordering::SeqCst);
            self.is_lost.fetch_or(was_armed, Ordering::SeqCst);
        }
        true
    }
}

/// Copies bytes as long as `may_pass` says so, and then closes both streams.
fn copy((mut from, mut to): (TcpStream, TcpStream), may_pass: impl Fn(&[u8]) -> bool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if !may_pass(&buffer[..length]) || to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        // Fails if the other direction has closed it already.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn is_completion(line: &str) -> bool {
    line.starts_with("POST ") && line.contains("uploadId=") || line.contains("comp=blocklist")
}

fn is_store(line: &str) -> bool {
    line.starts_with("PUT ") && !line.contains("partNumber=") && !line.contains("comp=")
}

fn is_deletion(line: &str) -> bool {
    line.starts_with("DELETE ")
        || line.starts_with("POST ") && (line.contains("?delete") || line.contains("comp=batch"))
}

fn store_survives_a_lost_answer<C: Cloud>() -> Result<()> {
    let proxy = LosingProxy::start(Server::of_this_process()?, is_store)?;
    let fixture = Fixture::<C>::through(proxy.address, &json!({}))?;
    let study = fixture.store(0, 3)?;
    proxy.expect_lost()?;
    fixture.expect_readable(&study)?;
    fixture.delete(&study[0].uploaded.study, &study)?;
    fixture.expect_no_errors()
}

/// Some servers do not know the upload any more when the completion is repeated.
fn completion_survives_a_lost_answer<C: Cloud>() -> Result<()> {
    let proxy = LosingProxy::start(Server::of_this_process()?, is_completion)?;
    let fixture = Fixture::<C>::through(proxy.address, &large::in_parts::<C>())?;
    let stored = large::store_in_parts(&fixture)?;
    proxy.expect_lost()?;
    fixture.expect_readable(&stored)?;
    fixture.delete(&stored[0].uploaded.study, &stored[..1])?;
    fixture.expect_no_errors()
}

fn deletion_survives_a_lost_answer<C: Cloud>() -> Result<()> {
    let proxy = LosingProxy::start(Server::of_this_process()?, is_deletion)?;
    let fixture = Fixture::<C>::through(proxy.address, &json!({}))?;
    let study = fixture.store(0, 20)?;
    fixture.delete(&study[0].uploaded.study, &study)?;
    proxy.expect_lost()?;
    fixture.expect_no_errors()
}
