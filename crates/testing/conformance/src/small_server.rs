//! A small HTTP server for tests of services that issue credentials.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

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

type Answer = dyn Fn(&Request) -> (u16, String) + Send + Sync;

/// A server on the loopback interface, which runs until the process ends.
#[derive(Debug)]
pub struct SmallServer {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl SmallServer {
    /// Answers every request with a status and a body.
    pub fn start(answer: impl Fn(&Request) -> (u16, String) + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let answer: Arc<Answer> = Arc::new(answer);
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

fn serve(stream: &TcpStream, answer: &Answer, record: &Mutex<Vec<Request>>) -> Result<()> {
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
    let (status, body) = answer(&request);
    record.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    let length = body.len();
    let mut stream = stream;
    // Clients of EC2's metadata service require the last header; others ignore it.
    write!(
        stream,
        "HTTP/1.1 {status} OK\r\nContent-Length: {length}\r\nConnection: close\r\n\
         X-Aws-Ec2-Metadata-Token-Ttl-Seconds: 21600\r\n\r\n{body}"
    )?;
    Ok(())
}
