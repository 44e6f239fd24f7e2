//! Simultaneous clients of Orthanc: HTTP/1.1 with keep-alive on plain sockets, because the clients of the benchmark
//! share the processor with the server that they measure. Understands only answers of Orthanc.

use std::io::{IoSlice, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

const BUFFER: usize = 256 * 1024;
/// A server that stops answering ends the run instead of hanging it.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A keep-alive connection to Orthanc.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// The head of an answer. The beginning of the body, as far as it was received with the head, is in the buffer.
struct Head {
    status: u16,
    length: usize,
    body_start: usize,
    filled: usize,
}

impl Connection {
    fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { stream, buffer: vec![0; BUFFER] })
    }

    /// Stores a file and returns Orthanc's answer.
    pub(crate) fn upload(&mut self, file: &[u8]) -> Result<Value> {
        let (status, body) = self.exchange("POST", "/instances", file)?;
        let json: Value =
            serde_json::from_slice(&body).with_context(|| format!("upload: HTTP status {status}"))?;
        ensure!(status == 200, "upload: HTTP status {status}, {json}");
        Ok(json)
    }

    /// Reads the file of an instance and compares it with what was stored.
    pub(crate) fn read(&mut self, id: &str, expected: &[u8]) -> Result<()> {
        self.send("GET", &format!("/instances/{id}/file"), &[])?;
        let head = self.head()?;
        ensure!(head.status == 200, "read: HTTP status {}", head.status);
        ensure!(head.length == expected.len(), "read: {} bytes instead of {}", head.length, expected.len());
        let mut done = 0;
        let mut received = head.body_start..head.filled;
        loop {
            let bytes = &self.buffer[received];
            ensure!(expected[done..].starts_with(bytes), "read: wrong bytes after byte {done} of {id}");
            done += bytes.len();
            if done == expected.len() {
                return Ok(());
            }
            received = 0..self.receive(0)?;
        }
    }

    /// Deletes an instance.
    pub(crate) fn delete(&mut self, id: &str) -> Result<()> {
        let (status, _) = self.exchange("DELETE", &format!("/instances/{id}"), &[])?;
        ensure!(status == 200, "delete: HTTP status {status}");
        Ok(())
    }

    fn send(&mut self, method: &str, path: &str, body: &[u8]) -> Result<()> {
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        // One system call, if the socket takes everything.
        let written = self.stream.write_vectored(&[IoSlice::new(head.as_bytes()), IoSlice::new(body)])?;
        self.stream.write_all(head.as_bytes().get(written..).unwrap_or_default())?;
        self.stream.write_all(&body[written.saturating_sub(head.len())..])?;
        Ok(())
    }

    /// Sends a body whose length is not announced. Returns the status and the body of the answer.
    pub(crate) fn post_in_chunks(
        &mut self,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> Result<(u16, Vec<u8>)> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        self.stream.write_all(head.as_bytes())?;
        for chunk in body.chunks(BUFFER) {
            self.stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
            self.stream.write_all(chunk)?;
            self.stream.write_all(b"\r\n")?;
        }
        self.stream.write_all(b"0\r\n\r\n")?;
        self.answer()
    }

    fn exchange(&mut self, method: &str, path: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
        self.send(method, path, body)?;
        self.answer()
    }

    /// Reads an answer with its body.
    fn answer(&mut self) -> Result<(u16, Vec<u8>)> {
        let head = self.head()?;
        let mut answer = self.buffer[head.body_start..head.filled].to_vec();
        while answer.len() < head.length {
            let more = self.receive(0)?;
            answer.extend_from_slice(&self.buffer[..more]);
        }
        Ok((head.status, answer))
    }

    fn head(&mut self) -> Result<Head> {
        let mut filled = 0;
        loop {
            filled += self.receive(filled)?;
            let received = &self.buffer[..filled];
            let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
                ensure!(filled < 16 * 1024, "the answer's head is too long");
                continue;
            };
            let text = std::str::from_utf8(&received[..end])?;
            let (status, length) = parse_head(text).with_context(|| format!("unexpected answer: {text}"))?;
            return Ok(Head { status, length, body_start: end + 4, filled });
        }
    }

    fn receive(&mut self, offset: usize) -> Result<usize> {
        match self.stream.read(&mut self.buffer[offset..])? {
            0 => bail!("Orthanc closed the connection"),
            length => Ok(length),
        }
    }
}

/// Status and body length of an answer's head.
fn parse_head(text: &str) -> Option<(u16, usize)> {
    let mut lines = text.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = lines.filter_map(|line| line.split_once(':'));
    let (_, length) = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    Some((status, length.trim().parse().ok()?))
}

/// Runs `job` for the numbers below `count` on `clients` threads with a connection each. Returns the time from the
/// common start to the last answer, and the results in the order of the numbers. The first error ends the run.
pub(crate) fn run<T: Send + Default + Clone>(
    port: u16,
    clients: usize,
    count: usize,
    job: impl Fn(&mut Connection, usize) -> Result<T> + Sync,
) -> Result<(Duration, Vec<T>)> {
    let mut connections = (0..clients).map(|_| Connection::open(port)).collect::<Result<Vec<_>>>()?;
    let next = AtomicUsize::new(0);
    let results = Mutex::new(vec![T::default(); count]);
    let barrier = Barrier::new(clients + 1);
    let client = |connection: &mut Connection| -> Result<()> {
        barrier.wait();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return Ok(());
            }
            let result = job(connection, index).inspect_err(|_| next.store(count, Ordering::Relaxed))?;
            results.lock().unwrap_or_else(PoisonError::into_inner)[index] = result;
        }
    };
    let (time, ended) = thread::scope(|scope| {
        let client = &client;
        let threads: Vec<_> =
            connections.iter_mut().map(|connection| scope.spawn(move || client(connection))).collect();
        barrier.wait();
        let start = Instant::now();
        let panicked = |_| Err(anyhow!("a client panicked"));
        let ended: Vec<_> =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect();
        (start.elapsed(), ended)
    });
    ended.into_iter().collect::<Result<()>>()?;
    Ok((time, results.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

#[cfg(test)]
mod tests {
    use real_orthanc::{Orthanc, dicom};

    use super::*;

    #[test]
    fn heads_are_parsed() {
        assert_eq!(parse_head("HTTP/1.1 200 OK\r\nA: b\r\ncontent-length: 12"), Some((200, 12)));
        assert_eq!(parse_head("HTTP/1.1 404 Not Found\r\nContent-Length:0"), Some((404, 0)));
        assert_eq!(parse_head("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked"), None);
        assert_eq!(parse_head("nonsense"), None);
    }

    #[test]
    fn clients_store_read_compare_and_delete() {
        let orthanc = Orthanc::builder().start().unwrap();
        let port = orthanc.http_port();
        let mut files: Vec<_> = dicom::ct_series(20, 256, 256).map(Result::unwrap).collect();
        files.push(dicom::multi_frame(5).unwrap());
        let count = files.len();
        let (_, answers) = run(port, 4, count, |connection, index| connection.upload(&files[index])).unwrap();
        let id = |index: usize| answers[index]["ID"].as_str().unwrap();
        run(port, 4, count, |connection, index| connection.read(id(index), &files[index])).unwrap();

        let mut changed = files[0].clone();
        *changed.last_mut().unwrap() ^= 1;
        assert!(run(port, 1, 1, |connection, _| connection.read(id(0), &changed)).is_err());
        let (_, again) = run(port, 1, 1, |connection, _| connection.upload(&files[0])).unwrap();
        assert_eq!(again[0]["Status"], "AlreadyStored");

        run(port, 4, count, |connection, index| connection.delete(id(index))).unwrap();
        assert!(run(port, 1, 1, |connection, _| connection.delete(id(0))).is_err());
    }
}
