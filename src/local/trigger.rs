//! The HTTP trigger of a function on this machine: one request, timed, and what became of it.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cancel::Cancel;
use crate::clock::{Anchor, Instant};
use crate::error::{Context, Error, Result};
use crate::faas::{ExecutionResult, TriggerType};
use crate::http::{Client, Limits, Request, Response, Timing};
use crate::units::Bytes;

/// How long a connection to a function on this machine may take to stand; the kernel answers in microseconds, and a
/// full listen queue makes a client wait 1 s for each retry.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How invocations are made.
#[derive(Clone, Debug)]
pub struct TriggerOptions {
    /// The longest an invocation may take; `None`: no limit.
    pub timeout: Option<Duration>,
    /// Is the connection of one invocation left open for the next? SeBS opens one for each.
    pub keeps_connection: bool,
    /// The most bytes that an answer may have.
    pub max_payload: Bytes,
}

/// Why an invocation got no answer that could be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The function answered that it failed, or with what is no answer; its instance lives.
    Answered,
    /// No answer within the time-out: the instance may still be at work.
    TimedOut,
    /// The connection broke or none could be made: the instance may be dead.
    Disconnected,
}

/// Invokes one instance by HTTP.
#[derive(Debug)]
pub struct HttpTrigger {
    address: SocketAddr,
    options: TriggerOptions,
    client: Client,
    cancel: Cancel,
    anchor: Anchor,
}

impl HttpTrigger {
    /// A trigger of the function server at `address`.
    pub fn new(address: SocketAddr, options: TriggerOptions, cancel: &Cancel) -> HttpTrigger {
        let client = Client::new(address, options.keeps_connection);
        HttpTrigger { address, options, client, cancel: cancel.clone(), anchor: Anchor::now() }
    }

    /// Where the instance is invoked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Limits the invocations to come.
    pub(super) fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.options.timeout = timeout;
    }

    /// Invokes the function with a JSON object and waits for the answer. A failed invocation is a result too, with the
    /// times up to its failure; beside it stands what kind of failure it was.
    ///
    /// # Errors
    /// Only `is_cancelled`.
    pub fn sync_invoke(&mut self, payload: &str) -> Result<(ExecutionResult, Option<Failure>)> {
        self.invoke_unless(payload, None)
    }

    /// As [`HttpTrigger::sync_invoke`], until `peer_lost` is triggered, after which the instance counts as disconnected.
    pub(super) fn invoke_unless(
        &mut self,
        payload: &str,
        peer_lost: Option<&Cancel>,
    ) -> Result<(ExecutionResult, Option<Failure>)> {
        let limits = Limits {
            connect: CONNECT_LIMIT,
            total: self.options.timeout,
            max_body_bytes: self.options.max_payload.0,
            cancel: &self.cancel,
            peer_lost,
        };
        let request = Request { method: "POST", path: "/", body: Some(payload.as_bytes()) };
        let (timing, outcome) = self.client.send(&request, &limits);
        let mut result = ExecutionResult::empty();
        self.record_times(&timing, &mut result);
        let failure = match outcome {
            Ok(response) => take_in(&response, &mut result).err().map(|error| {
                result.fail(error.to_string());
                Failure::Answered
            }),
            Err(error) if error.is_cancelled() => return Err(error),
            Err(error) if error.is_timeout() => {
                result.fail(match self.options.timeout {
                    Some(limit) if timing.end.since(timing.begin) >= limit => {
                        format!(
                            "timed out: no answer within the function's limit of {} s",
                            limit.as_secs_f64()
                        )
                    }
                    _ => error.to_string(),
                });
                Some(Failure::TimedOut)
            }
            Err(error) if error.is_disconnected() => {
                result.fail(error.to_string());
                Some(Failure::Disconnected)
            }
            Err(error) => {
                result.fail(error.to_string());
                Some(Failure::Answered)
            }
        };
        Ok((result, failure))
    }

    /// Invokes the function on a thread of its own, over a connection of its own.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn async_invoke(&self, payload: String) -> Result<PendingInvocation> {
        let mut trigger = HttpTrigger::new(self.address, self.options.clone(), &self.cancel);
        let thread = std::thread::Builder::new()
            .name("invocation".to_string())
            .spawn(move || trigger.sync_invoke(&payload))
            .context(|| "failed to start a thread for an invocation".to_string())?;
        Ok(PendingInvocation { thread })
    }

    /// Closes the connection that is kept, if there is one. A socket that outlives its container stalls the next one
    /// that is given the same address.
    pub fn close(&mut self) {
        self.client.close();
    }

    fn record_times(&self, timing: &Timing, result: &mut ExecutionResult) {
        let since_begin = |instant: Instant| instant.since(timing.begin);
        result.times.client = since_begin(timing.end).as_micros() as u64;
        result.times.client_begin = self.anchor.rfc3339(timing.begin);
        result.times.client_end = self.anchor.rfc3339(timing.end);
        result.times.http_startup = since_begin(timing.connected).as_secs_f64();
        result.times.http_first_byte_return =
            timing.first_byte.map(|instant| since_begin(instant).as_secs_f64());
        result.invocation.reused_connection = timing.reused_connection;
        result.invocation.begin_monotonic_ns = Some(timing.begin.0);
        result.invocation.end_monotonic_ns = Some(timing.end.0);
    }
}

/// An invocation under way.
#[derive(Debug)]
pub struct PendingInvocation {
    thread: JoinHandle<Result<(ExecutionResult, Option<Failure>)>>,
}

impl PendingInvocation {
    /// Has the answer come, so that [`PendingInvocation::wait`] does not block?
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// As [`HttpTrigger::sync_invoke`].
    pub fn wait(self) -> Result<(ExecutionResult, Option<Failure>)> {
        self.thread.join().unwrap_or_else(|_| Err(Error::new("the thread of an invocation panicked")))
    }
}

/// What the function server answers when a handler failed.
#[derive(serde::Deserialize)]
struct ServerFailure {
    error: ServerError,
    #[serde(default)]
    request_id: String,
    #[serde(default)]
    is_cold: bool,
}

#[derive(serde::Deserialize)]
struct ServerError {
    r#type: String,
    message: String,
}

fn take_in(response: &Response, result: &mut ExecutionResult) -> Result<()> {
    if response.status == 200 {
        return result.parse_reply(&response.body);
    }
    if let Ok(failure) = serde_json::from_slice::<ServerFailure>(&response.body) {
        result.request_id = failure.request_id;
        result.stats.cold_start = failure.is_cold;
        if let Some(output) =
            std::str::from_utf8(&response.body).ok().and_then(|text| serde_json::from_str(text).ok())
        {
            result.output = output;
        }
        return Err(Error::new(format!("{}: {}", failure.error.r#type, failure.error.message)));
    }
    const EXCERPT: usize = 300;
    let text = String::from_utf8_lossy(&response.body[..response.body.len().min(EXCERPT)])
        .replace(['\r', '\n'], " ");
    Err(Error::new(format!("the function server answered with status {}: {}", response.status, text.trim())))
}

/// Says whether functions can be invoked that way here.
///
/// # Errors
/// A usage error: only HTTP is supported.
pub fn check_trigger(kind: TriggerType) -> Result<()> {
    if kind == TriggerType::Http {
        return Ok(());
    }
    Err(Error::usage(format!("trigger `{kind}` is not supported on the local platform: it has `HTTP` alone")))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn invoke(answer: &'static str) -> (ExecutionResult, Option<Failure>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let options = TriggerOptions {
            timeout: Some(Duration::from_secs(5)),
            keeps_connection: false,
            max_payload: Bytes(1 << 20),
        };
        let trigger = HttpTrigger::new(address, options, &Cancel::new());
        trigger.async_invoke("{}".to_string()).unwrap().wait().unwrap()
    }

    #[test]
    fn an_answer_with_status_200_is_a_result_with_all_its_times() {
        let (result, failure) = invoke(concat!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
            r#"{"begin": "1.0", "end": "1.5", "request_id": "r", "is_cold": true, "result": {"output": 7}}"#
        ));
        assert_eq!(failure, None);
        assert_eq!((result.times.benchmark, result.request_id.as_str()), (Some(500_000), "r"));
        let first_byte = result.times.http_first_byte_return.unwrap();
        assert!(result.times.http_startup > 0.0 && result.times.http_startup <= first_byte);
        assert!(first_byte * 1e6 <= result.times.client as f64 + 1.0);
    }

    #[test]
    fn a_failed_handler_is_a_result_that_says_why() {
        let (result, failure) = invoke(concat!(
            "HTTP/1.1 500 Error\r\nConnection: close\r\n\r\n",
            r#"{"error": {"type": "ValueError", "message": "boom", "traceback": "…"}, "request_id": "r", "is_cold": true}"#
        ));
        assert_eq!(failure, Some(Failure::Answered));
        assert!(result.stats.failure && result.stats.cold_start);
        assert_eq!(result.invocation.error.as_deref(), Some("ValueError: boom"));
        assert!(result.output.get().contains("traceback"));
    }

    #[test]
    fn html_and_a_dropped_connection_are_failures_too() {
        let (html, failure) = invoke("HTTP/1.1 413 No\r\nConnection: close\r\n\r\n<html>too large</html>");
        assert_eq!(failure, Some(Failure::Answered));
        assert_eq!(
            html.invocation.error.as_deref(),
            Some("the function server answered with status 413: <html>too large</html>")
        );
        let (dropped, failure) = invoke("");
        assert_eq!(failure, Some(Failure::Disconnected));
        assert!(dropped.stats.failure && dropped.times.http_first_byte_return.is_none());
    }
}
