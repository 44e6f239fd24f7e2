//! A small HTTP server for tests of services that issue credentials.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

/// The header with the lifetime of a session with EC2's metadata service, in seconds.
pub const METADATA_LIFETIME: &str = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds";

/// The parts of a request that the tests inspect.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET /path?query`.
    pub target: String,
    /// `name: value`, the names in lower case.
    pub headers: Vec<String>,
    /// The body.
    pub body: String,
}

impl Request {
    /// Whether it has this header with this value.
    pub fn has(&self, name: &str, value: &str) -> bool {
        self.headers.contains(&format!("{name}: {value}"))
    }
}

/// An answer: the status, additional headers, the body. A `Content-Length` among the headers replaces the true one.
#[derive(Debug, Clone)]
pub struct Answer(pub u16, pub Vec<(&'static str, String)>, pub String);

impl From<(u16, String)> for Answer {
    fn from((status, body): (u16, String)) -> Self {
        Self(status, Vec::new(), body)
    }
}

type Answering = dyn Fn(&Request) -> Answer + Send + Sync;

/// A server on the loopback interface, which runs until the process ends.
#[derive(Debug)]
pub struct SmallServer {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl SmallServer {
    /// Answers every request with a status and a body, or an [`Answer`].
    pub fn start<A: Into<Answer>>(answer: impl Fn(&Request) -> A + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let answer: Arc<Answering> = Arc::new(move |request: &Request| answer(request).into());
        let record = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answer = Arc::clone(&answer);
                let record = Arc::clone(&record);
                // A client may close its connection early.
                std::thread::spawn(move || serve(&stream, &*answer, &record).ok());
            }
        });
        Ok(Self { port, requests })
    }

    /// Returns the server's URL with this path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Returns all requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(stream: &TcpStream, answer: &Answering, record: &Mutex<Vec<Request>>) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let first = lines.first().context("no request")?;
    let target = first.rsplit_once(' ').map_or(first.as_str(), |(target, _)| target).to_owned();
    let headers: Vec<_> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| format!("{}: {value}", name.to_ascii_lowercase()))
        .collect();
    let length = headers.iter().find_map(|header| header.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let request = Request { target, headers, body: String::from_utf8(body)? };
    let Answer(status, mut headers, body) = answer(&request);
    record.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    // Clients of EC2's metadata service require the last header; others ignore it.
    let usual = [("Content-Length", body.len().to_string()), (METADATA_LIFETIME, "21600".to_owned())];
    for (name, value) in usual {
        if !headers.iter().any(|header| header.0 == name) {
            headers.push((name, value));
        }
    }
    let mut head = format!("HTTP/1.1 {status} OK\r\nConnection: close\r\n");
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n")?;
    }
    let mut stream = stream;
    stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
    Ok(())
}
