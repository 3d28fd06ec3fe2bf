//! A port that leads to a server, counts connections, and fails some requests on their way.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What happens to a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// Its first request is answered with this status and this body, and no more.
    Answer(&'static str, &'static str),
    /// The answer of its first request ends before it is whole.
    Short,
    /// It is closed once a request has come.
    Cut,
}

/// A server that has too much to do.
pub(super) const BUSY: Fault =
    Fault::Answer("503 Slow", "<Error><Code>SlowDown</Code><Message>slow down</Message></Error>");

/// Where to connect, and what has come.
pub(super) struct Relay {
    pub(super) address: String,
    connections: Arc<AtomicUsize>,
}

impl Relay {
    /// Leads to `server`, but for the first connections, which have a fault each.
    pub(super) fn start(server: &str, faults: &'static [Fault]) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let (server, counter) = (server.to_string(), connections.clone());
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let near = near.unwrap();
                let number = counter.fetch_add(1, Ordering::Relaxed);
                if let Some(fault) = faults.get(number) {
                    std::thread::spawn(move || fail(near, *fault));
                    continue;
                }
                let Ok(far) = TcpStream::connect(&server) else { continue };
                far.set_nodelay(true).unwrap();
                near.set_nodelay(true).unwrap();
                let back = (far.try_clone().unwrap(), near.try_clone().unwrap());
                std::thread::spawn(move || pass(back));
                std::thread::spawn(move || pass((near, far)));
            }
        });
        Relay { address, connections }
    }

    /// How many connections have come.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

fn fail(mut near: TcpStream, fault: Fault) {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        let read = near.read(&mut piece).unwrap_or(0);
        if read == 0 {
            return;
        }
        request.extend_from_slice(&piece[..read]);
    }
    let answer = match fault {
        Fault::Answer(status, body) => {
            format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        }
        Fault::Short => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhel".to_string(),
        Fault::Cut => return,
    };
    let _ = near.write_all(answer.as_bytes());
    let _ = near.shutdown(Shutdown::Write);
    // Read on, so that the answer is not lost to a reset.
    while near.read(&mut piece).is_ok_and(|read| read > 0) {}
}

fn pass((mut from, mut to): (TcpStream, TcpStream)) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
