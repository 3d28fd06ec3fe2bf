//! How much the timed HTTP exchange adds to a bare socket: both against one loopback server, in turns, in one run.
//!
//! `cargo bench --bench exchange` prints the median and the 99th percentile of each, in µs, and the ratio of medians.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark is a program of its own")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use sebs_lite::cancel::Cancel;
use sebs_lite::http::{Client, Limits, Request};

const ROUNDS: usize = 5_000;
const EVENT: &[u8] = br#"{"username": "me", "random_len": 10}"#;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

fn main() {
    let address = serve();
    for keeps_connection in [true, false] {
        let mut bare = Bare { address, keeps_connection, stream: None };
        let cancel = Cancel::new();
        let limits = Limits {
            connect: Duration::from_secs(5),
            total: Some(Duration::from_secs(5)),
            max_body_bytes: 1 << 20,
            cancel: &cancel,
            peer_lost: None,
        };
        let mut client = Client::new(address, keeps_connection);
        let request = Request { method: "POST", path: "/", body: Some(EVENT) };
        let mut samples = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            let begin = Instant::now();
            bare.round_trip();
            samples[0].push(begin.elapsed());
            let begin = Instant::now();
            let (_, response) = client.send(&request, &limits);
            samples[1].push(begin.elapsed());
            assert_eq!(response.unwrap().status, 200);
        }
        let connection = if keeps_connection { "kept connection" } else { "new connection" };
        println!("{connection}, {ROUNDS} round trips each");
        let [bare, exchange] = samples.map(|mut times| {
            times.sort();
            (times[ROUNDS / 2], times[ROUNDS * 99 / 100])
        });
        for (name, (median, p99)) in [("bare socket", bare), ("exchange", exchange)] {
            println!("  {name:12} p50 {:8.1} µs   p99 {:8.1} µs", micros(median), micros(p99));
        }
        println!("  ratio of medians {:.2}", micros(exchange.0) / micros(bare.0));
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// A server that answers each request at once, on as many connections as come.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || answer(stream.unwrap()));
        }
    });
    address
}

fn answer(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut received = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(read) => received.extend_from_slice(&piece[..read]),
        }
        if received.ends_with(EVENT) {
            received.clear();
            if stream.write_all(ANSWER).is_err() {
                return;
            }
        }
    }
}

/// The least that a round trip can be: one write of a message that is there already, and reads until the answer is.
struct Bare {
    address: SocketAddr,
    keeps_connection: bool,
    stream: Option<TcpStream>,
}

impl Bare {
    fn round_trip(&mut self) {
        let mut stream = self.stream.take().unwrap_or_else(|| {
            let stream = TcpStream::connect(self.address).unwrap();
            stream.set_nodelay(true).unwrap();
            stream
        });
        let head =
            format!("POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n", self.address, EVENT.len());
        stream.write_all(&[head.as_bytes(), EVENT].concat()).unwrap();
        let mut received = Vec::new();
        let mut piece = [0; 4096];
        while received.len() < ANSWER.len() {
            let read = stream.read(&mut piece).unwrap();
            received.extend_from_slice(&piece[..read]);
        }
        self.stream = self.keeps_connection.then_some(stream);
    }
}
