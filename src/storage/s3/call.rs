//! One request to S3: signed, sent, tried again where that may help, its failure told in words.

use std::fmt;
use std::io::{self, Read};
use std::time::Duration;

use ureq::http::{self, Response};
use ureq::{Body, SendBody};

use super::S3Client;
use crate::error::{Error, Kind, Result};
use crate::sigv4::{self, Key, PathRule};
use crate::storage::signed::{self, Unsigned};
use crate::storage::xml;

/// How often a request is sent at most: for 7 s, in which a server that was killed and started again can be used.
const ATTEMPTS: u32 = 8;

/// How often at most where what was sent came garbled, for which waiting does nothing.
const ATTEMPTS_IF_GARBLED: u32 = 3;

/// How long to wait before the second attempt; twice as long before each further one, up to 2 s.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// What to ask oneself where a storage does not take what is written: one with a full disk answers 500 and no more
/// (SeaweedFS), or nothing at all (JuiceFS).
const FULL: &str = " (is the disk of the storage full? its log says more)";

/// How much an operation puts up with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) attempts: u32,
    pub(super) first_pause: Duration,
}

impl Patience {
    /// That of an operation somebody wants to have done.
    pub(super) const USUAL: Patience = Patience { attempts: ATTEMPTS, first_pause: FIRST_PAUSE };

    /// That of cleaning up after one that failed, for which nobody waits gladly.
    pub(super) const OF_CLEAN_UP: Patience = Patience { attempts: 3, first_pause: FIRST_PAUSE };
}

/// Far more than a list of 1000 keys of 1024 bytes, each written as `%XX`.
const MAX_ANSWER_BYTES: u64 = 16 << 20;

/// What is asked.
pub(super) struct Call<'a> {
    pub(super) method: &'a str,
    pub(super) bucket: &'a str,
    /// Empty: the bucket itself.
    pub(super) key: &'a str,
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) headers: &'a [(&'a str, &'a str)],
    /// Whether sending it twice does no harm if an answer was lost.
    pub(super) repeats: Repeats,
}

/// May a request whose answer was lost be sent again?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeats {
    Safely,
    OnlyIfRefused,
}

impl<'a> Call<'a> {
    /// A request that may be sent again, about a key, or with an empty one about a bucket.
    pub(super) fn new(method: &'a str, bucket: &'a str, key: &'a str) -> Call<'a> {
        Call { method, bucket, key, query: &[], headers: &[], repeats: Repeats::Safely }
    }

    fn writes(&self) -> bool {
        matches!(self.method, "PUT" | "POST")
    }
}

impl fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.method)?;
        match (self.bucket, self.key) {
            ("", _) => f.write_str("the list of buckets"),
            (bucket, "") => write!(f, "bucket `{bucket}`"),
            (bucket, key) => write!(f, "object `{key}` in bucket `{bucket}`"),
        }
    }
}

/// What is sent with a request.
pub(super) enum Payload<'a> {
    Bytes(&'a [u8]),
    /// Read anew for each attempt, and not signed, since its hash would be known only after reading it.
    Stream {
        size_bytes: u64,
        open: &'a dyn Fn() -> Box<dyn Read + 'a>,
    },
}

/// An answer of success, whose body is not read yet.
pub(super) type Answer = Response<Body>;

/// Why an attempt failed, and how many are worth while where one fails so: 1 where another would do no better.
struct Failure {
    error: Error,
    attempts: u32,
}

impl S3Client {
    /// Sends a request until it is answered in a way that another attempt would not change.
    pub(super) fn send(&self, call: &Call<'_>, payload: &Payload<'_>) -> Result<Answer> {
        self.attempt(call, || self.send_once(call, payload))
    }

    /// Like [`S3Client::send`], and gives the whole answer.
    pub(super) fn ask(&self, call: &Call<'_>, body: &[u8]) -> Result<Vec<u8>> {
        self.attempt(call, || {
            let answer = self.send_once(call, &Payload::Bytes(body))?;
            let content = self.read(call, answer)?;
            // A long operation has answered with 200 before it knew that it would fail.
            match xml::fault(&content) {
                Some(fault) => Err(self.refusal(call, 200, &fault.code, &fault.message)),
                None => Ok(content),
            }
        })
    }

    /// Does what reads the answer of a request, too, until it is done.
    pub(super) fn attempt_reading<T>(
        &self,
        call: &Call<'_>,
        mut read: impl FnMut(Answer) -> Result<T>,
    ) -> Result<T> {
        self.attempt(call, || {
            let answer = self.send_once(call, &Payload::Bytes(&[]))?;
            read(answer).map_err(|error| {
                let attempts = if error.is_disconnected() { ATTEMPTS } else { 1 };
                Failure { error, attempts }
            })
        })
    }

    fn attempt<T>(
        &self,
        call: &Call<'_>,
        mut once: impl FnMut() -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        for attempt in 1.. {
            match once() {
                Err(failure) if attempt < failure.attempts.min(self.patience.attempts) => {
                    log::debug!("attempt {attempt}: {}", failure.error);
                    signed::pause(self.patience.first_pause, attempt - 1, &self.cancel)
                        .map_err(|error| self.story(call, error))?;
                }
                outcome => return outcome.map_err(|failure| failure.error),
            }
        }
        unreachable!("the last attempt returns")
    }

    fn send_once(&self, call: &Call<'_>, payload: &Payload<'_>) -> std::result::Result<Answer, Failure> {
        let lasting = |error| Failure { error, attempts: 1 };
        self.cancel.check().map_err(|error| lasting(self.story(call, error)))?;
        let path = match (call.bucket, call.key) {
            ("", _) => "/".to_string(),
            (bucket, "") => format!("/{bucket}"),
            (bucket, key) => format!("/{bucket}/{key}"),
        };
        let (payload_hash, length) = match payload {
            Payload::Bytes(bytes) => (sigv4::hash(bytes), bytes.len() as u64),
            Payload::Stream { size_bytes, .. } => (sigv4::UNSIGNED_PAYLOAD.to_string(), *size_bytes),
        };
        let mut headers = vec![("x-amz-content-sha256", payload_hash.as_str())];
        headers.extend_from_slice(call.headers);
        let options = &self.options;
        let unsigned = Unsigned {
            method: call.method,
            host: &self.address,
            path: &path,
            path_rule: PathRule::S3,
            query: call.query,
            headers: &headers,
            payload_hash: &payload_hash,
            key: Key {
                access: &options.access_key,
                secret: &options.secret_key,
                region: &options.region,
                service: "s3",
            },
        };
        let mut request = unsigned.sign();
        let has_body = call.writes();
        if has_body {
            request = request.header("content-length", length);
        }
        let request = request.body(()).map_err(|error| {
            lasting(self.story(call, Error::from_source(Kind::Usage, "no request can say this", error)))
        })?;
        let answer = self.run(request, has_body, payload).map_err(|error| self.unanswered(call, error))?;
        log::trace!("{call}: {}", answer.status());
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status().as_u16();
        let content = self.read(call, answer)?;
        let fault = xml::fault(&content).unwrap_or_default();
        Err(self.refusal(call, status, &fault.code, &fault.message))
    }

    fn run(
        &self,
        request: http::Request<()>,
        has_body: bool,
        payload: &Payload<'_>,
    ) -> std::result::Result<Answer, ureq::Error> {
        if !has_body {
            return self.agent.run(request);
        }
        let (parts, ()) = request.into_parts();
        match payload {
            Payload::Bytes(bytes) => self.agent.run(http::Request::from_parts(parts, *bytes)),
            Payload::Stream { open, .. } => {
                let mut stream = open();
                self.agent.run(http::Request::from_parts(parts, SendBody::from_reader(&mut stream)))
            }
        }
    }

    fn read(&self, call: &Call<'_>, answer: Answer) -> std::result::Result<Vec<u8>, Failure> {
        let read = answer.into_body().with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
        read.map_err(|error| self.unanswered(call, error))
    }

    /// What it means that no whole answer came.
    fn unanswered(&self, call: &Call<'_>, error: ureq::Error) -> Failure {
        let broken = match &error {
            ureq::Error::Io(error) => Some(error.kind()),
            _ => None,
        };
        let was_nothing_done = broken == Some(io::ErrorKind::ConnectionRefused);
        let mut error = self.broken(error);
        if broken == Some(io::ErrorKind::TimedOut) && error.is_timeout() && call.writes() {
            error = Error::with_kind(Kind::Timeout, format!("{error}{FULL}"));
        }
        let error = self.story(call, error);
        let may_repeat = call.repeats == Repeats::Safely || was_nothing_done;
        let attempts = if error.is_disconnected() && may_repeat { ATTEMPTS } else { 1 };
        Failure { error, attempts }
    }

    /// The error of an answer that is none of success.
    fn refusal(&self, call: &Call<'_>, status: u16, code: &str, message: &str) -> Failure {
        let kind = match (code, status) {
            ("NoSuchKey" | "NoSuchBucket" | "NoSuchUpload", _) | ("", 404) => Kind::NotFound,
            ("BucketAlreadyOwnedByYou" | "BucketAlreadyExists" | "BucketNotEmpty", _) => Kind::Conflict,
            _ => Kind::Other,
        };
        let advice = match (code, status) {
            ("RequestTimeTooSkewed", _) => " (do the clocks of both machines agree?)",
            ("AuthorizationHeaderMalformed", _) => " (is the region right?)",
            ("BadDigest" | "XAmzContentSHA256Mismatch", _) => {
                " (did a file change while it was sent, or is the network at fault?)"
            }
            ("SignatureDoesNotMatch", _) => " (is the secret key right?)",
            ("InvalidAccessKeyId", _) => " (is the access key right?)",
            ("", 403) => " (are the keys right, and may they do this?)",
            (_, 301 | 307) => " (is the region right?)",
            ("XMinioStorageFull", _) | (_, 507) => FULL,
            (_, 500) if call.writes() => FULL,
            _ => "",
        };
        let words =
            [code, message].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ");
        let colon = if words.is_empty() { "" } else { ": " };
        let answer = format!("the storage answered {status}{colon}{words}{advice}");
        let attempts = match (code, status) {
            ("BadDigest" | "XAmzContentSHA256Mismatch", _) => ATTEMPTS_IF_GARBLED,
            ("SlowDown" | "InternalError" | "ServiceUnavailable" | "RequestTimeout", _)
            | (_, 429 | 500 | 502 | 503 | 504) => ATTEMPTS,
            _ => 1,
        };
        Failure { error: self.story(call, Error::with_kind(kind, answer)), attempts }
    }

    /// The error of an exchange that came to no end.
    pub(super) fn broken(&self, error: ureq::Error) -> Error {
        let kind = match &error {
            _ if self.cancel.is_triggered() => return Error::with_kind(Kind::Cancelled, "interrupted"),
            ureq::Error::Io(error) => return self.broken_stream(error),
            ureq::Error::Timeout(_) => Kind::Timeout,
            ureq::Error::BodyExceedsLimit(_) => Kind::Other,
            _ => Kind::Disconnected,
        };
        Error::from_source(kind, "the exchange broke", error)
    }

    pub(super) fn broken_stream(&self, error: &io::Error) -> Error {
        if self.cancel.is_triggered() {
            return Error::with_kind(Kind::Cancelled, "interrupted");
        }
        let kind = match error.kind() {
            io::ErrorKind::TimedOut => Kind::Timeout,
            // What reads a file that is sent says this of a failure of its own.
            io::ErrorKind::InvalidData => Kind::Other,
            _ => Kind::Disconnected,
        };
        Error::with_kind(kind, format!("the exchange broke: {error}"))
    }

    pub(super) fn story(&self, call: &Call<'_>, error: Error) -> Error {
        error.context(format!("failed to {call} at http://{}", self.address))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::*;
    use crate::cancel::Cancel;
    use crate::storage::{S3Options, transport};

    /// A server that gives one answer a connection, and the first lines of what it was asked.
    fn serve(answers: &'static [&'static str]) -> (S3Client, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = at(&listener, &Cancel::new());
        let asked = std::thread::spawn(move || {
            let answer = |answer: &&str| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.push(byte[0]);
                }
                stream.write_all(answer.as_bytes()).unwrap();
                String::from_utf8(request).unwrap().lines().next().unwrap().to_string()
            };
            answers.iter().map(answer).collect()
        });
        (client, asked)
    }

    /// A client without the pauses that a test has no time for.
    fn at(listener: &TcpListener, cancel: &Cancel) -> S3Client {
        let options = S3Options {
            address: listener.local_addr().unwrap().to_string(),
            access_key: "who".to_string(),
            secret_key: "hush".to_string(),
            region: "us-east-1".to_string(),
        };
        let patience = Patience { first_pause: Duration::from_millis(1), ..Patience::USUAL };
        S3Client { patience, ..S3Client::new(options, cancel).unwrap() }
    }

    const BUSY: &str = "HTTP/1.1 503 Slow\r\nConnection: close\r\nContent-Length: 64\r\n\r\n\
        <Error><Code>SlowDown</Code><Message>Slow down</Message></Error>";

    #[test]
    fn what_may_pass_is_tried_again() {
        let (client, asked) = serve(&[
            BUSY,
            "",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\nhel",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        ]);
        assert_eq!(client.get_bytes("b", "a b+%", 10).unwrap(), b"hello");
        assert_eq!(asked.join().unwrap(), ["GET /b/a%20b%2B%25 HTTP/1.1"; 4]);
    }

    #[test]
    fn what_stays_busy_is_an_error_after_eight_attempts() {
        let (client, asked) = serve(&[BUSY; 8]);
        let error = client.delete("b", "k").unwrap_err().to_string();
        assert!(error.contains("DELETE object `k` in bucket `b`"), "{error}");
        assert!(error.contains("503: SlowDown, Slow down"), "{error}");
        assert_eq!(asked.join().unwrap().len(), 8);
    }

    #[test]
    fn what_was_refused_is_not_tried_again() {
        let (client, asked) =
            serve(&["HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"]);
        let error = client.put_bytes("b", "k", b"").unwrap_err().to_string();
        assert!(error.contains("403") && error.contains("are the keys right"), "{error}");
        assert_eq!(asked.join().unwrap().len(), 1);
    }

    #[test]
    fn an_error_that_comes_with_success_is_one() {
        let (client, asked) = serve(&["HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 41\r\n\r\n\
             <Error><Code>AccessDenied</Code> </Error>"]);
        let error = client.list("b", "").unwrap_err().to_string();
        assert!(error.contains("200: AccessDenied"), "{error}");
        asked.join().unwrap();
    }

    const FULL_DISK: &str = "HTTP/1.1 507 Full\r\nConnection: close\r\nContent-Length: 95\r\n\r\n\
        <Error><Code>XMinioStorageFull</Code><Message>Storage backend has reached its</Message></Error>";
    const FAILED: &str = "HTTP/1.1 500 Failed\r\nConnection: close\r\nContent-Length: 42\r\n\r\n\
        <Error><Code>InternalError</Code> </Error>";

    #[test]
    fn a_storage_that_may_be_full_is_asked_about() {
        let (client, asked) = serve(&[FULL_DISK]);
        let error = client.put_bytes("b", "k", b"").unwrap_err().to_string();
        assert!(error.contains("`k` in bucket `b`") && error.contains("507: XMinioStorageFull"), "{error}");
        assert!(error.contains("has reached its (is the disk of the storage full?"), "{error}");
        asked.join().unwrap();
        let (client, asked) = serve(&[FAILED; 16]);
        let error = client.put_bytes("b", "k", b"").unwrap_err().to_string();
        assert!(error.contains("500: InternalError (is the disk of the storage full?"), "{error}");
        let error = client.head("b", "k").unwrap_err().to_string();
        assert!(error.contains("500") && !error.contains("full?"), "{error}");
        asked.join().unwrap();
    }

    #[test]
    fn nobody_there_is_tried_again_even_where_a_lost_answer_would_not_be() {
        let client = at(&TcpListener::bind("127.0.0.1:0").unwrap(), &Cancel::new());
        let begin = Call { repeats: Repeats::OnlyIfRefused, ..Call::new("POST", "b", "k") };
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(client.unanswered(&begin, ureq::Error::Io(refused)).attempts, ATTEMPTS);
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(client.unanswered(&begin, ureq::Error::Io(reset())).attempts, 1);
        let put = Call::new("PUT", "b", "k");
        assert_eq!(client.unanswered(&put, ureq::Error::Io(reset())).attempts, ATTEMPTS);
        let unreachable = client.unanswered(&put, ureq::Error::Timeout(ureq::Timeout::Connect));
        assert_eq!((unreachable.attempts, unreachable.error.is_timeout()), (1, true));
        assert!(!unreachable.error.to_string().contains("full?"), "{}", unreachable.error);
    }

    #[test]
    fn an_upload_that_the_server_stops_reading_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = at(&listener, &Cancel::new());
        let agent = transport::agent(&client.cancel, Duration::from_millis(1));
        let client = S3Client { agent, ..client };
        let error = client.put_bytes("b", "k", &[0; 100]).unwrap_err();
        assert!(error.is_timeout() && error.to_string().contains("disk of the storage full?"), "{error}");
        assert!(client.head("b", "k").unwrap_err().is_timeout());
        // Neither was sent again: the server has had its chance.
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.incoming().take_while(std::result::Result::is_ok).count(), 2);
    }

    #[test]
    fn a_silent_server_is_given_up_on_cancel() {
        // The answer that does not come, the upload that is not taken, and the answer to an upload that was taken.
        for (method, size_bytes, taken_bytes) in
            [("HEAD", 0, 1), ("PUT", 64 << 20, 1 << 20), ("PUT", 1 << 20, 1 << 20)]
        {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let cancel = Cancel::new();
            let client = at(&listener, &cancel);
            std::thread::scope(|scope| {
                let asked = scope.spawn(|| {
                    let content = vec![0; size_bytes];
                    client.send(&Call::new(method, "b", "k"), &Payload::Bytes(&content)).unwrap_err()
                });
                let (mut connection, _) = listener.accept().unwrap();
                connection.read_exact(&mut vec![0; taken_bytes]).unwrap();
                cancel.trigger();
                assert!(asked.join().unwrap().is_cancelled(), "{method}");
                drop(connection);
            });
        }
    }
}
