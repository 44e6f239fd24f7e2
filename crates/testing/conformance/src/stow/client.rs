//! A client that sends the body of a STOW-RS request in pieces, and can stop anywhere.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use real_orthanc::Orthanc;
use serde_json::Value;

/// Content type of requests.
pub(super) const RELATED: &str = r#"multipart/related; type="application/dicom"; boundary="frontier""#;
/// Maximum time without a byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum size of a chunk, in bytes.
const CHUNK: usize = 256 * 1024;

/// A request that is being sent with `Transfer-Encoding: chunked`. Dropping it closes the connection.
#[derive(Debug)]
pub(super) struct Upload(TcpStream);

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// All headers, as they were sent.
    pub(super) headers: String,
    pub(super) body: Vec<u8>,
}

impl Upload {
    /// Begins a request to `path` with additional headers.
    pub(super) fn begin(orthanc: &Orthanc, path: &str, content_type: &str, headers: &[&str]) -> Result<Self> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, orthanc.http_port()))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let others: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: orthanc\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\
             Content-Type: {content_type}\r\n{others}\r\n"
        )?;
        Ok(Self(stream))
    }

    /// Begins a request for any study.
    pub(super) fn to(orthanc: &Orthanc) -> Result<Self> {
        Self::begin(orthanc, "/stow-rs/studies", RELATED, &[])
    }

    /// Sends bytes of the body.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        for chunk in bytes.chunks(CHUNK) {
            let mut framed = format!("{:x}\r\n", chunk.len()).into_bytes();
            framed.extend_from_slice(chunk);
            framed.extend_from_slice(b"\r\n");
            self.0.write_all(&framed)?;
        }
        Ok(())
    }

    /// Sends the beginning of a part.
    pub(super) fn begin_part(&mut self) -> io::Result<()> {
        self.send(b"\r\n--frontier\r\nContent-Type: application/dicom\r\n\r\n")
    }

    /// Sends a part.
    pub(super) fn part(&mut self, file: &[u8]) -> io::Result<()> {
        self.begin_part()?;
        self.send(file)
    }

    /// Sends the end of the body, and reads the answer.
    pub(super) fn finish(mut self) -> Result<Answer> {
        self.send(b"\r\n--frontier--\r\n")?;
        self.0.write_all(b"0\r\n\r\n")?;
        self.answer()
    }

    /// Reads the answer.
    pub(super) fn answer(mut self) -> Result<Answer> {
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        // Orthanc leaves the connection open for a while.
        loop {
            if let Some(answer) = Answer::parse(&bytes) {
                return Ok(answer);
            }
            let length = self.0.read(&mut buffer)?;
            ensure!(length > 0, "the answer ends early: {}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&buffer[..length]);
        }
    }
}

impl Answer {
    /// Parses an answer, if it is complete.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]);
        let (line, headers) = head.split_once("\r\n")?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let answer = Self { status, headers: headers.to_owned(), body: bytes[end + 4..].to_vec() };
        let length: usize = answer.header("content-length").map_or(Some(0), |length| length.parse().ok())?;
        (answer.body.len() >= length).then_some(answer)
    }

    /// Returns the first header with this name. Some generations of Orthanc send `Content-Type` twice.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as JSON.
    pub(super) fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("{}\n{}", self.headers, self.text()))
    }

    /// Returns the instances of a sequence, with their failure reasons if they have any, sorted.
    pub(super) fn instances(&self, sequence: &str) -> Result<Vec<(String, Option<u64>)>> {
        let body = self.json()?;
        let items = body[sequence]["Value"].as_array().cloned().unwrap_or_default();
        let mut instances: Vec<_> = items
            .iter()
            .map(|item| {
                let uid = item["00081155"]["Value"][0].as_str().unwrap_or_default().to_owned();
                (uid, item["00081197"]["Value"][0].as_u64())
            })
            .collect();
        instances.sort();
        Ok(instances)
    }
}

/// `ReferencedSOPSequence`: the stored instances.
pub(super) const STORED: &str = "00081199";
/// `FailedSOPSequence`.
pub(super) const FAILED: &str = "00081198";

/// Sends files in one request.
pub(super) fn send<'a>(orthanc: &Orthanc, files: impl IntoIterator<Item = &'a Vec<u8>>) -> Result<Answer> {
    let mut upload = Upload::to(orthanc)?;
    for file in files {
        upload.part(file)?;
    }
    upload.finish()
}
