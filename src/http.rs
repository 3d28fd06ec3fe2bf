//! One timed HTTP/1.1 exchange over TCP, spoken by ourselves because its instants are the measurement.
//!
//! A request leaves in one write with `TCP_NODELAY`, so that neither Nagle's algorithm nor a delayed acknowledgement
//! is measured. Nothing is looked up and nothing is encrypted: the peer is a function on this machine.

mod answer;
mod connect;
mod connection;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::cancel::Cancel;
use crate::clock::Instant;
use crate::error::{Error, Kind, Result};

use answer::{BodyLength, ChunkScan, join_chunks, parse_head};
use connect::connect;
use connection::{Connection, Watch};

/// The longest head of an answer, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// How many times longer than its data a chunked body may be: a chunk of one byte takes six.
const MAX_FRAMING_FACTOR: u64 = 8;

/// How much is read at once: at first, and of a longer answer.
const FIRST_PIECE_BYTES: usize = 4 * 1024;
const PIECE_BYTES: usize = 64 * 1024;

/// What to send.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// `GET` or `POST`.
    pub method: &'a str,
    /// Path and query: `/alive`.
    pub path: &'a str,
    /// Sent as `application/json`, with its length; `None`: no body.
    pub body: Option<&'a [u8]>,
}

/// When the parts of an exchange took place.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Before the connection was asked for.
    pub begin: Instant,
    /// The request could be sent: the connection stood.
    pub connected: Instant,
    /// The first byte of the answer had come; `None` if none came.
    pub first_byte: Option<Instant>,
    /// The last byte had come, or the exchange failed.
    pub end: Instant,
    /// Was a connection used that an earlier exchange had left open?
    pub reused_connection: bool,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The `Content-Type`, if one was sent.
    pub content_type: Option<String>,
    /// The whole body.
    pub body: Vec<u8>,
}

/// How long an exchange may take.
#[derive(Clone, Debug)]
pub struct Limits<'a> {
    /// For the connection to stand.
    pub connect: Duration,
    /// For the whole exchange; `None`: as long as it takes.
    pub total: Option<Duration>,
    /// The most bytes that a body may have.
    pub max_body_bytes: u64,
    /// Ends the exchange within 100 ms once it is triggered.
    pub cancel: &'a Cancel,
    /// Ends it as soon, like a connection that broke, once it is triggered by somebody who knows that the peer will not
    /// answer; `None`: there is nobody.
    pub peer_lost: Option<&'a Cancel>,
}

/// Does a server give any HTTP answer to a GET of `path`, with so long for the connection and for the whole exchange?
///
/// # Errors
/// `is_cancelled` alone.
pub(crate) fn answers(
    address: SocketAddr,
    path: &str,
    (connect, total): (Duration, Duration),
    cancel: &Cancel,
) -> Result<bool> {
    let limits = Limits { connect, total: Some(total), max_body_bytes: 1 << 20, cancel, peer_lost: None };
    let request = Request { method: "GET", path, body: None };
    match Client::new(address, false).send(&request, &limits).1 {
        Ok(_) => Ok(true),
        Err(error) if error.is_cancelled() => Err(error),
        Err(_) => Ok(false),
    }
}

/// A peer, and the connection that the last exchange with it left open, where connections are kept.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    /// The address as a request names it.
    host: String,
    keeps_connection: bool,
    idle: Option<Connection>,
}

impl Client {
    /// A client of the server at `address`; with `keeps_connection` it opens a new connection only where it must.
    pub fn new(address: SocketAddr, keeps_connection: bool) -> Client {
        Client { address, host: address.to_string(), keeps_connection, idle: None }
    }

    /// Sends a request and reads the whole answer. The instants are told in any case.
    ///
    /// # Errors
    /// `is_disconnected`: refused, reset, or closed before the answer was whole. `is_timeout`: a limit passed.
    /// `is_cancelled`. Anything else: the answer is not HTTP, or too long. Nothing is ever sent a second time.
    pub fn send(&mut self, request: &Request<'_>, limits: &Limits<'_>) -> (Timing, Result<Response>) {
        let message = self.message(request);
        let begin = Instant::now();
        let mut timing =
            Timing { begin, connected: begin, first_byte: None, end: begin, reused_connection: false };
        let outcome = self.exchange(&message, limits, &mut timing);
        if outcome.is_err() {
            timing.end = Instant::now();
        }
        let outcome = outcome.and_then(|(response, connection)| {
            self.idle = connection.filter(|_| self.keeps_connection);
            response.finish()
        });
        let story = || format!("{} http://{}{}", request.method, self.address, request.path);
        (timing, outcome.map_err(|error| error.context(story())))
    }

    /// Closes the connection that is kept, if there is one.
    pub fn close(&mut self) {
        self.idle = None;
    }

    fn message(&self, request: &Request<'_>) -> Vec<u8> {
        let body = request.body.unwrap_or_default();
        let mut message = Vec::with_capacity(256 + request.path.len() + body.len());
        let mut add = |text: &str| message.extend_from_slice(text.as_bytes());
        [request.method, " ", request.path, " HTTP/1.1\r\nHost: ", &self.host].into_iter().for_each(&mut add);
        add("\r\nAccept: */*\r\nConnection: ");
        add(if self.keeps_connection { "keep-alive\r\n" } else { "close\r\n" });
        if request.body.is_some() {
            add("Content-Type: application/json\r\nContent-Length: ");
            add(&body.len().to_string());
            add("\r\n");
        }
        add("\r\n");
        message.extend_from_slice(body);
        message
    }

    fn exchange(
        &mut self,
        message: &[u8],
        limits: &Limits<'_>,
        timing: &mut Timing,
    ) -> Result<(Incoming, Option<Connection>)> {
        let mut connection = match self.idle.take().filter(Connection::is_quiet) {
            Some(connection) => {
                timing.reused_connection = true;
                connection
            }
            None => Connection::new(connect(self.address, limits, timing.begin)?),
        };
        timing.connected = Instant::now();
        let watch = Watch {
            deadline: limits.total.map(|total| timing.begin.after(total)),
            cancel: limits.cancel,
            peer_lost: limits.peer_lost,
        };
        let response = match connection.write_all(message, &watch) {
            Ok(()) => read_response(&mut connection, limits, &watch, timing)?,
            // A server may refuse a large body before it has read it: its answer says why.
            Err(error) if error.is_disconnected() => {
                let refused = read_response(&mut connection, limits, &watch, timing).ok();
                Incoming { keeps_open: false, ..refused.ok_or(error)? }
            }
            Err(error) => return Err(error),
        };
        // Closing the connection is no part of the exchange.
        timing.end = Instant::now();
        let connection = response.keeps_open.then_some(connection);
        Ok((response, connection))
    }
}

/// An answer whose head has been understood and whose body has been read.
struct Incoming {
    status: u16,
    content_type: Option<String>,
    body: Vec<u8>,
    is_chunked: bool,
    keeps_open: bool,
}

impl Incoming {
    /// Takes the chunks apart; kept out of the measured time.
    fn finish(self) -> Result<Response> {
        let body = if self.is_chunked { join_chunks(&self.body)? } else { self.body };
        Ok(Response { status: self.status, content_type: self.content_type, body })
    }
}

fn read_response(
    connection: &mut Connection,
    limits: &Limits<'_>,
    watch: &Watch<'_>,
    timing: &mut Timing,
) -> Result<Incoming> {
    // Read into here and then copied: a body's own buffer would have to be zeroed before each read.
    let mut piece = [0; FIRST_PIECE_BYTES];
    let mut received = Vec::with_capacity(FIRST_PIECE_BYTES);
    let head = loop {
        match parse_head(&received)? {
            // 100 Continue and its like come before the answer proper.
            Some(head) if head.status < 200 => drop(received.drain(..head.length)),
            Some(head) => break head,
            None if received.len() > MAX_HEAD_BYTES => {
                return Err(Error::new("the head of the answer is too long"));
            }
            None => {
                if connection.read_some(&mut received, &mut piece, watch)? == 0 {
                    return Err(closed_early(received.len()));
                }
                timing.first_byte.get_or_insert_with(Instant::now);
            }
        }
    };
    let mut body = received.split_off(head.length);
    let length = if head.status == 204 || head.status == 304 { BodyLength::Known(0) } else { head.body };
    let most = limits.max_body_bytes;
    if let BodyLength::Known(length) = length {
        check_length(length, most)?;
        // Where it cannot be had at once, it may turn out not to be needed.
        let _ = body.try_reserve(length as usize);
    }
    let mut chunks = ChunkScan::default();
    let most_framed = most.saturating_mul(MAX_FRAMING_FACTOR).saturating_add(MAX_HEAD_BYTES as u64);
    let mut is_whole = |body: &[u8]| match length {
        BodyLength::Known(length) => Ok(body.len() as u64 >= length),
        BodyLength::Chunked => {
            let is_whole = chunks.is_whole(body)?;
            check_length(chunks.data_bytes(), most)?;
            if body.len() as u64 > most_framed {
                return Err(Error::new(
                    "the answer is not HTTP: its chunks have more around them than in them",
                ));
            }
            Ok(is_whole)
        }
        BodyLength::UntilClose => check_length(body.len() as u64, most).map(|()| false),
    };
    let mut piece = Vec::new();
    while !is_whole(&body)? {
        piece.resize(PIECE_BYTES, 0);
        if connection.read_some(&mut body, &mut piece, watch)? == 0 {
            if length == BodyLength::UntilClose {
                break;
            }
            return Err(closed_early(body.len()));
        }
    }
    if let BodyLength::Known(length) = length {
        body.truncate(length as usize);
    }
    let keeps_open = head.keeps_open && length != BodyLength::UntilClose;
    Ok(Incoming {
        status: head.status,
        content_type: head.content_type,
        body,
        is_chunked: length == BodyLength::Chunked,
        keeps_open,
    })
}

fn check_length(bytes: u64, most: u64) -> Result<()> {
    if bytes > most {
        return Err(Error::new(format!("the answer is longer than {most} bytes")));
    }
    Ok(())
}

fn disconnected(error: io::Error) -> Error {
    Error::from_source(Kind::Disconnected, "the connection broke", error)
}

fn closed_early(received: usize) -> Error {
    Error::with_kind(
        Kind::Disconnected,
        format!("the connection was closed after {received} bytes of an answer"),
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// A server that takes one connection, waits for an empty line, and answers with `answers`, a piece at a time.
    fn serve(answers: &'static [&'static [u8]]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            let mut request = Vec::new();
            while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                let mut piece = [0; 1024];
                let read = stream.read(&mut piece).unwrap();
                request.extend_from_slice(&piece[..read]);
            }
            for answer in answers {
                stream.write_all(answer).unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        address
    }

    fn ask(address: SocketAddr) -> (Timing, Result<Response>) {
        ask_within(address, 1 << 20)
    }

    fn ask_within(address: SocketAddr, max_body_bytes: u64) -> (Timing, Result<Response>) {
        let limits = Limits {
            connect: Duration::from_secs(5),
            total: Some(Duration::from_secs(10)),
            max_body_bytes,
            cancel: &Cancel::new(),
            peer_lost: None,
        };
        let request = Request { method: "POST", path: "/", body: Some(b"{}") };
        Client::new(address, false).send(&request, &limits)
    }

    #[test]
    fn a_body_of_known_length_is_read_to_its_end() {
        let (timing, response) = ask(serve(&[
            b"HTTP/1.1 200 OK\r\nContent-Le",
            b"ngth: 5\r\nContent-Type: a/b\r\n\r\nhel",
            b"lo",
        ]));
        let response = response.unwrap();
        assert_eq!((response.status, response.body.as_slice()), (200, b"hello".as_slice()));
        assert_eq!(response.content_type.as_deref(), Some("a/b"));
        let first_byte = timing.first_byte.unwrap();
        assert!(
            timing.begin <= timing.connected && timing.connected <= first_byte && first_byte <= timing.end
        );
    }

    #[test]
    fn a_chunked_body_is_put_together_wherever_it_was_cut() {
        let (_, response) = ask(serve(&[
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nWi",
            b"ki\r",
            b"\n5\r\npedia\r\n0\r\nTrailer: yes\r",
            b"\n\r\n",
        ]));
        assert_eq!(response.unwrap().body, b"Wikipedia");
    }

    #[test]
    fn a_body_without_a_length_ends_with_the_connection() {
        assert_eq!(ask(serve(&[b"HTTP/1.0 200 OK\r\n\r\nall", b" of it"])).1.unwrap().body, b"all of it");
    }

    #[test]
    fn an_answer_that_is_cut_or_no_http_is_an_error_that_says_so() {
        let cut = ask(serve(&[b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhel"])).1.unwrap_err();
        assert!(cut.is_disconnected() && cut.to_string().contains("after 3 bytes"), "{cut}");
        let none = ask(serve(&[])).1.unwrap_err();
        assert!(none.is_disconnected(), "{none}");
        let other = ask(serve(&[b"220 smtp ready\r\n"])).1.unwrap_err();
        assert!(other.to_string().contains("not HTTP"), "{other}");
        let chunks =
            ask(serve(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"])).1.unwrap_err();
        assert!(chunks.to_string().contains("chunks"), "{chunks}");
    }

    #[test]
    fn a_silent_server_is_given_up_at_the_deadline_on_cancel_and_when_it_is_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let cancel = Cancel::new();
        let mut limits = Limits {
            connect: Duration::from_secs(5),
            total: Some(Duration::from_millis(30)),
            max_body_bytes: 10,
            cancel: &cancel,
            peer_lost: None,
        };
        let request = Request { method: "GET", path: "/alive", body: None };
        let late = Client::new(address, true).send(&request, &limits).1.unwrap_err();
        assert!(late.is_timeout() && late.to_string().contains("/alive"), "{late}");
        limits.total = None;
        let canceller = cancel.clone();
        let thread = std::thread::spawn(move || canceller.trigger());
        assert!(Client::new(address, true).send(&request, &limits).1.unwrap_err().is_cancelled());
        thread.join().unwrap();
        let (calm, lost) = (Cancel::new(), Cancel::new());
        let limits = Limits { cancel: &calm, peer_lost: Some(&lost), ..limits };
        std::thread::scope(|scope| {
            scope.spawn(|| lost.trigger());
            let error = Client::new(address, true).send(&request, &limits).1.unwrap_err();
            assert!(error.is_disconnected() && error.to_string().contains("no answer can come"), "{error}");
        });
    }

    #[test]
    fn a_server_that_sends_a_little_now_and_then_is_given_up_as_well() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                while stream.write_all(b"x").is_ok() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        let cancel = Cancel::new();
        let mut limits = Limits {
            connect: Duration::from_secs(5),
            total: Some(Duration::from_millis(30)),
            max_body_bytes: u64::MAX,
            cancel: &cancel,
            peer_lost: None,
        };
        let request = Request { method: "GET", path: "/", body: None };
        assert!(Client::new(address, false).send(&request, &limits).1.unwrap_err().is_timeout());
        limits.total = None;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                cancel.trigger();
            });
            assert!(Client::new(address, false).send(&request, &limits).1.unwrap_err().is_cancelled());
        });
    }

    #[test]
    fn a_chunk_of_impossible_size_is_an_answer_that_is_cut_or_too_long() {
        let answer =
            || serve(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc"]);
        assert!(ask_within(answer(), u64::MAX).1.unwrap_err().is_disconnected());
        let error = ask(answer()).1.unwrap_err();
        assert!(error.to_string().contains("longer than 1048576 bytes"), "{error}");
    }

    #[test]
    fn a_body_may_be_as_long_as_the_limit_and_no_byte_longer() {
        let answers: [&[&[u8]]; 4] = [
            &[b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcdef"],
            &[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n0\r\n\r\n"],
            &[
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n1\r\nc\r\n",
                b"1\r\nd\r\n1\r\ne\r\n1\r\nf\r\n0\r\n\r\n",
            ],
            &[b"HTTP/1.1 200 OK\r\n\r\nabc", b"def"],
        ];
        for answer in answers {
            assert_eq!(ask_within(serve(answer), 6).1.unwrap().body, b"abcdef");
            let error = ask_within(serve(answer), 5).1.unwrap_err();
            assert!(error.to_string().contains("longer than 5 bytes"), "{error}");
        }
        // A length that is told is believed: nothing is waited for.
        let told: [&[&[u8]]; 2] = [
            &[b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"],
            &[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n"],
        ];
        for answer in told {
            let error = ask_within(serve(answer), 5).1.unwrap_err();
            assert!(error.to_string().contains("longer than 5 bytes"), "{error}");
        }
    }

    #[test]
    fn a_kept_connection_is_used_again_unless_the_server_hung_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (hung_up, knows) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for answers in [2, 1] {
                let (mut stream, _) = listener.accept().unwrap();
                for _ in 0..answers {
                    let mut request = [0; 1024];
                    assert!(stream.read(&mut request).unwrap() > 0);
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx").unwrap();
                }
                drop(stream);
                hung_up.send(()).unwrap();
            }
        });
        let cancel = Cancel::new();
        let limits = Limits {
            connect: Duration::from_secs(5),
            total: None,
            max_body_bytes: 10,
            cancel: &cancel,
            peer_lost: None,
        };
        let mut client = Client::new(address, true);
        let request = Request { method: "GET", path: "/", body: None };
        assert!(!client.send(&request, &limits).0.reused_connection);
        assert!(client.send(&request, &limits).0.reused_connection);
        knows.recv().unwrap();
        let (timing, response) = client.send(&request, &limits);
        assert!(!timing.reused_connection && response.is_ok());
    }
}
