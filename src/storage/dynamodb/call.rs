//! One operation of the protocol: signed, sent, and sent again where that may help and does no harm.

use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::DynamoOptions;
use super::refusal::Refusal;
use crate::cancel::Cancel;
use crate::error::{Context, Error, Kind, Result};
use crate::sigv4::{self, Key, PathRule};
use crate::storage::signed::{self, Unsigned};
use crate::storage::transport::{self, SILENCE_LIMIT};

/// How often a request is sent at most.
const ATTEMPTS: u32 = 8;

/// The pause after the first attempt, which doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest answer. A page has 1 MiB of data by the protocol, and is longer as JSON.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// May a request be sent again?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Whatever came of it: sent twice, it does what it does once.
    Always,
    /// Only where the server cannot have done anything.
    IfNothingWasDone,
}

/// Sends requests to one server.
pub(super) struct Caller {
    options: DynamoOptions,
    /// The address as the header `Host` has it.
    host: String,
    agent: ureq::Agent,
    cancel: Cancel,
    pub(super) first_pause: Duration,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Why an attempt failed.
struct Failure {
    error: Error,
    /// Can another attempt end otherwise?
    is_passing: bool,
    /// May the server have done what it was asked?
    may_be_done: bool,
}

impl Caller {
    pub(super) fn new(options: DynamoOptions, cancel: &Cancel) -> Result<Caller> {
        let host = signed::host(&options.address, "tables")?;
        let (agent, cancel) = (transport::agent(cancel, SILENCE_LIMIT), cancel.clone());
        Ok(Caller { options, host, agent, cancel, first_pause: FIRST_PAUSE })
    }

    /// Carries out `operation` on `table`, which is empty where there is none, and reads its answer.
    pub(super) fn call<A: DeserializeOwned>(
        &self,
        operation: &'static str,
        table: &str,
        request: &impl Serialize,
        repeat: Repeat,
    ) -> Result<A> {
        let story = || match table {
            "" => format!("failed at {operation} at `{}`", self.host),
            table => format!("failed at {operation} of table `{table}`"),
        };
        let body = serde_json::to_vec(request)
            .map_err(|error| Error::from_source(Kind::Other, "failed to write the request as JSON", error))
            .context(story)?;
        let mut attempt = 0;
        let answer = loop {
            self.cancel.check().context(story)?;
            let failure = match self.attempt(operation, &body) {
                Ok(answer) => break answer,
                Err(failure) => failure,
            };
            attempt += 1;
            let is_allowed = repeat == Repeat::Always || !failure.may_be_done;
            if !failure.is_passing || !is_allowed {
                return Err(failure.error.context(story()));
            }
            if attempt == ATTEMPTS {
                return Err(failure.error.context(format!("{}, {ATTEMPTS} times in a row", story())));
            }
            log::debug!("{operation} `{table}` is sent again: {}", failure.error);
            self.pause(attempt - 1).context(story)?;
        };
        serde_json::from_slice(&answer)
            .map_err(|error| {
                Error::from_source(Kind::Other, "the answer is not what the protocol describes", error)
            })
            .context(story)
    }

    /// Waits before what would be the attempt after `earlier` pauses.
    pub(super) fn pause(&self, earlier: u32) -> Result<()> {
        signed::pause(self.first_pause, earlier, &self.cancel)
    }

    /// The body of the answer to one request.
    fn attempt(&self, operation: &str, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let target = format!("DynamoDB_20120810.{operation}");
        let headers = [("content-type", "application/x-amz-json-1.0"), ("x-amz-target", target.as_str())];
        let unsigned = Unsigned {
            method: "POST",
            host: &self.host,
            path: "/",
            path_rule: PathRule::Normalized,
            query: &[],
            headers: &headers,
            payload_hash: &sigv4::hash(body),
            key: Key {
                access: &self.options.access_key,
                secret: &self.options.secret_key,
                region: &self.options.region,
                service: "dynamodb",
            },
        };
        let request = unsigned.sign().body(body).map_err(|error| {
            let error = Error::from_source(Kind::Usage, "a key or the region cannot be sent", error);
            Failure { error, is_passing: false, may_be_done: false }
        })?;
        let mut response = self.agent.run(request).map_err(|error| self.unanswered(error))?;
        let status = response.status();
        let answer = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
        let answer = answer.map_err(|error| self.unanswered(error))?;
        log::trace!("{operation} -> {status}, {} bytes", answer.len());
        if status.is_success() {
            return Ok(answer);
        }
        let refusal = Refusal::parse(status.as_u16(), &answer);
        let is_passing = refusal.is_throttling() || refusal.is_server_fault();
        let may_be_done = refusal.is_server_fault() && !refusal.is_throttling();
        let error = Error::with_kind(refusal.kind(), refusal.sentence(&self.options.secret_key));
        Err(Failure { error, is_passing, may_be_done })
    }

    /// What it means that no whole answer came.
    fn unanswered(&self, error: ureq::Error) -> Failure {
        let host = &self.host;
        let lasting = |error: Error| Failure { error, is_passing: false, may_be_done: true };
        if self.cancel.is_triggered() {
            return lasting(Error::with_kind(Kind::Cancelled, "interrupted"));
        }
        match error {
            ureq::Error::Io(error) if error.kind() == ErrorKind::TimedOut => {
                lasting(Error::from_source(Kind::Timeout, format!("no answer from `{host}`"), error))
            }
            error @ ureq::Error::Timeout(_) => {
                lasting(Error::from_source(Kind::Timeout, format!("`{host}` cannot be reached"), error))
            }
            ureq::Error::Io(error) => Failure {
                may_be_done: error.kind() != ErrorKind::ConnectionRefused,
                error: Error::from_source(Kind::Disconnected, format!("no answer from `{host}`"), error),
                is_passing: true,
            },
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => {
                lasting(Error::from_source(Kind::Disconnected, format!("`{host}` cannot be reached"), error))
            }
            other => {
                lasting(Error::from_source(Kind::Other, format!("the answer of `{host}` is not HTTP"), other))
            }
        }
    }
}
