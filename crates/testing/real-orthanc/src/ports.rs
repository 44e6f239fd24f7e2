//! Free TCP ports on the loopback that stay free.
//!
//! A server that restarts needs the same port. The kernel assigns ports of its ephemeral range, which
//! binding port 0 returns, to any outgoing connection in the meantime, so these ports are below that range.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// Above the well-known and commonly configured ports, below Linux' default ephemeral range (32768 to 60999).
const LOWEST: u16 = 12_000;
const HIGHEST: u16 = 32_000;
const TRIES: usize = 200;

/// A port on which no process listens. Another process may take it before the caller does, so callers must
/// retry.
pub fn free_port() -> io::Result<u16> {
    bind_free().and_then(|listener| Ok(listener.local_addr()?.port()))
}

/// A listener on a port outside the ephemeral range.
pub(crate) fn bind_free() -> io::Result<TcpListener> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..TRIES {
        // All interfaces, because Orthanc binds them all: a port is free only if it is free everywhere.
        let port = random_port();
        let free = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).map(drop);
        match free.and_then(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, port))) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn random_port() -> u16 {
    // Each `RandomState` is different, and the system seeds the first of each thread: parallel test
    // processes rarely collide.
    let random = RandomState::new().hash_one(std::process::id());
    let offset = random % u64::from(HIGHEST - LOWEST);
    LOWEST + u16::try_from(offset).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_are_not_ephemeral() {
        let held: Vec<_> = (0..50).map(|_| bind_free().unwrap()).collect();
        let ports: std::collections::HashSet<_> =
            held.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        assert!(ports.iter().all(|port| (LOWEST..HIGHEST).contains(port)));
        assert_eq!(ports.len(), 50);
    }
}
