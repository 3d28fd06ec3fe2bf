//! One request to the engine: its address, how long it may last, its answer, and what went wrong in words.

use std::error;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use ureq::http::{Method, Request, Response};
use ureq::{Body, SendBody};

use super::Engine;
use super::transport;
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::wire::{self, Interrupted, Manners};

/// For calls that the engine answers from memory or by a short job. An engine that is busy with many containers, or
/// is just being started through its socket, has been seen to take tens of seconds; one that takes more hangs.
pub(super) const QUICK: Duration = Duration::from_secs(60);

/// How refusals end that are conflicts whatever their status: a name that is taken, a container that does not run.
const CONFLICTS: [&str; 2] = ["that name is already in use", "container state improper"];

/// How refusals end that mean that something is not there whatever their status: it went while the engine looked.
pub(super) const MISSING: [&str; 4] =
    ["no such container", "no such volume", "image not known", "layer not known"];

/// How every address begins; `docker` is the name of no host.
const ORIGIN: &str = "http://docker";

/// A request in the making.
#[derive(Clone)]
pub(super) struct Call<'a> {
    engine: &'a Engine,
    method: Method,
    target: String,
    limit: Option<Duration>,
    content_type: Option<&'static str>,
    header: Option<(&'static str, String)>,
    body: Vec<u8>,
    /// Does it do no harm to make it twice?
    is_repeatable: bool,
}

/// What the engine sent, after a status that says it did what was asked.
pub(super) struct Answer<'a> {
    engine: &'a Engine,
    response: Response<Body>,
    limit: Option<Duration>,
}

impl Engine {
    /// A call of the API version agreed on: `path` begins with a slash and its parts are [`escaped`].
    pub(super) fn call(&self, method: Method, path: &str) -> Call<'_> {
        self.call_unversioned(method, &format!("/v{}{path}", self.api_version()))
    }

    /// A call that every API version answers alike.
    pub(super) fn call_unversioned(&self, method: Method, path: &str) -> Call<'_> {
        let target = format!("{ORIGIN}{path}");
        let is_repeatable = method != Method::POST;
        Call {
            engine: self,
            method,
            target,
            limit: Some(QUICK),
            content_type: None,
            header: None,
            body: Vec::new(),
            is_repeatable,
        }
    }

    pub(super) fn get(&self, path: &str) -> Call<'_> {
        self.call(Method::GET, path)
    }

    pub(super) fn post(&self, path: &str) -> Call<'_> {
        self.call(Method::POST, path)
    }

    pub(super) fn delete(&self, path: &str) -> Call<'_> {
        self.call(Method::DELETE, path)
    }
}

impl<'a> Call<'a> {
    /// One more `name=value` in the query.
    pub(super) fn query(mut self, name: &str, value: &str) -> Self {
        self.target.push(if self.target.contains('?') { '&' } else { '?' });
        self.target.push_str(name);
        self.target.push('=');
        self.target.push_str(&escaped(value));
        self
    }

    /// The same where `value` says something.
    pub(super) fn query_unless_empty(self, name: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.query(name, value) }
    }

    /// As [`Call::query`], with the value as JSON.
    pub(super) fn query_json(self, name: &str, value: &impl Serialize) -> Result<Self> {
        let json = serde_json::to_string(value);
        Ok(self.query(name, &json.map_err(|error| unsendable(&error))?))
    }

    /// A body of JSON.
    pub(super) fn json(mut self, body: &impl Serialize) -> Result<Self> {
        self.body = serde_json::to_vec(body).map_err(|error| unsendable(&error))?;
        self.content_type = Some("application/json");
        Ok(self)
    }

    /// A header, whose value no log shows.
    pub(super) fn header(mut self, name: &'static str, value: String) -> Self {
        self.header = Some((name, value));
        self
    }

    /// How long the call may last from its first byte to the last of its answer, instead of [`QUICK`].
    pub(super) fn within(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// For calls that last as long as what they wait for; the cancel token still ends them.
    pub(super) fn without_limit(mut self) -> Self {
        self.limit = None;
        self
    }

    /// For a POST that may be made twice: what it asks for is then there already.
    pub(super) fn repeatable(mut self) -> Self {
        self.is_repeatable = true;
        self
    }

    /// Sends it and waits for the head of the answer. An engine that nobody reaches is waited for.
    pub(super) fn send(self) -> Result<Answer<'a>> {
        loop {
            match self.exchange() {
                Err(error) if is_unsent(&error) => {
                    self.engine.wait_until_back(self.engine.call_failure(error, self.limit))?;
                }
                sent => return self.answer(sent),
            }
        }
    }

    /// As [`Call::send`], but does not wait for an engine that is away.
    pub(super) fn send_once(self) -> Result<Answer<'a>> {
        self.engine.check_cancel()?;
        let sent = self.exchange();
        self.answer(sent)
    }

    /// The whole answer, as JSON. Where it is lost, a call that may be made twice is.
    pub(super) fn fetch<T: DeserializeOwned>(self) -> Result<T> {
        self.persist(|call| call.send()?.json())
    }

    /// Waits for the end of an answer that has nothing to say. Where it is lost, a call that may be made twice is.
    pub(super) fn perform(self) -> Result<()> {
        self.persist(|call| call.send()?.done())
    }

    fn persist<T>(self, exchange: impl Fn(Call<'a>) -> Result<T>) -> Result<T> {
        if self.is_repeatable { self.engine.persist(|| exchange(self.clone())) } else { exchange(self) }
    }

    fn exchange(&self) -> Result<Response<Body>, ureq::Error> {
        wire::check(self.engine.cancel.as_ref())?;
        let agent = &self.engine.agent;
        match self.method {
            Method::POST => self.run(agent, self.body.as_slice()),
            _ => self.run(agent, ()),
        }
    }

    /// Sends it with a tar archive as its body, which may have any length.
    ///
    /// The upload has a connection of its own: should the engine refuse it half-way, the archive is read no further. An
    /// engine that nobody reaches is waited for, before the first byte.
    pub(super) fn upload(self, archive: &mut dyn Read) -> Result<Answer<'a>> {
        self.engine.settle()?;
        self.engine.check_cancel()?;
        let stopped = Arc::new(AtomicBool::new(false));
        let engine = self.engine;
        let manners =
            Manners { cancel: engine.cancel.clone(), silence: None, peer_stopped_reading: stopped.clone() };
        let agent = transport::agent(engine.socket.clone(), manners);
        let cancel = engine.cancel.as_ref();
        let mut upload = Upload { archive, stopped, cancel, failure: None };
        let mut call = self;
        call.content_type = Some("application/x-tar");
        let sent = call.run(&agent, SendBody::from_reader(&mut upload));
        match upload.failure {
            Some(failure) => {
                Err(Error::from_source(Kind::Other, "failed to read the archive to be sent", failure))
            }
            None => call.answer(sent),
        }
    }

    fn run(&self, agent: &ureq::Agent, body: impl ureq::AsSendBody) -> Result<Response<Body>, ureq::Error> {
        let mut request = Request::builder().method(self.method.clone()).uri(&self.target);
        if let Some(content_type) = self.content_type {
            request = request.header("Content-Type", content_type);
        }
        if let Some((name, value)) = &self.header {
            request = request.header(*name, value);
        }
        let request = request.body(body)?;
        let request = agent.configure_request(request).timeout_global(self.limit).build();
        agent.run(request)
    }

    fn answer(self, sent: Result<Response<Body>, ureq::Error>) -> Result<Answer<'a>> {
        let response = sent.map_err(|error| self.engine.call_failure(error, self.limit))?;
        let status = response.status();
        // Without the query, which may hold a proxy's password among the arguments of a build.
        let path = self.target.split('?').next().unwrap_or_default();
        log::trace!("{} {path} -> {status}", self.method);
        self.engine.presence.note_answer();
        let mut answer = Answer { engine: self.engine, response, limit: self.limit };
        // 304: it was started, or stopped, already.
        if status.is_success() || status.as_u16() == 304 {
            return Ok(answer);
        }
        let mut body = Vec::new();
        // A refusal whose text is cut off is still that refusal.
        let _ = answer.reader().take(1 << 20).read_to_end(&mut body);
        let call = format!("{} {}", self.method, path.trim_start_matches(ORIGIN));
        let refusal = refusal(status.as_u16(), &body, &call);
        if status.is_server_error() && self.engine.is_away() {
            // What it could not do was for want of what it had ended already.
            return Err(self.engine.lost(format!("it was about to end: {refusal}")));
        }
        Err(refusal)
    }
}

impl Answer<'_> {
    /// A header's value, where there is one that is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The body as it comes in; an error of the reader is put into words by [`Answer::failure`].
    pub(super) fn reader(&mut self) -> impl Read {
        self.response.body_mut().as_reader()
    }

    /// Hands each piece of the body to `sink` until its end.
    pub(super) fn for_each_piece(mut self, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let amount = match self.response.body_mut().as_reader().read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(amount) => amount,
                Err(error) => return Err(self.failure(error)),
            };
            sink(&buffer[..amount])?;
        }
    }

    /// The whole body.
    pub(super) fn bytes(mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        match self.response.body_mut().as_reader().read_to_end(&mut body) {
            Ok(_) => Ok(body),
            Err(error) => Err(self.failure(error)),
        }
    }

    /// The whole body, as JSON.
    pub(super) fn json<T: DeserializeOwned>(self) -> Result<T> {
        let engine = self.engine;
        let body = self.bytes()?;
        if body.is_empty() {
            // The head of an answer that is waited for comes long before its body.
            return Err(engine.lost("it closed the connection without an answer"));
        }
        serde_json::from_slice(&body).map_err(|error| {
            Error::from_source(Kind::Other, "the engine's answer is not what its API describes", error)
        })
    }

    /// Reads the body to its end, so that the connection can be kept.
    pub(super) fn done(self) -> Result<()> {
        self.bytes().map(drop)
    }

    /// What a failure to read the body means.
    pub(super) fn failure(&self, error: io::Error) -> Error {
        match error.downcast::<ureq::Error>() {
            Ok(error) => self.engine.call_failure(error, self.limit),
            Err(error) => self.engine.call_failure(ureq::Error::Io(error), self.limit),
        }
    }
}

impl Engine {
    pub(super) fn check_cancel(&self) -> Result<()> {
        self.cancel.as_ref().map_or(Ok(()), |cancel| cancel.check())
    }

    fn call_failure(&self, error: ureq::Error, limit: Option<Duration>) -> Error {
        match error {
            ureq::Error::Other(reason) if is_interrupted(&*reason) => {
                Error::with_kind(Kind::Cancelled, "interrupted")
            }
            ureq::Error::Timeout(_) => {
                let limit = limit.unwrap_or_default().as_secs_f64();
                Error::with_kind(Kind::Timeout, format!("the engine did not answer within {limit} s"))
            }
            ureq::Error::Io(error) => self.lost(error),
            // The engine, or what else listens there, does not speak HTTP to its end.
            other => Error::from_source(Kind::Other, "the engine's answer is not HTTP", other),
        }
    }

    pub(super) fn lost(&self, reason: impl Into<Box<dyn error::Error + Send + Sync>>) -> Error {
        let message = format!("no answer from the engine at `{}`", self.socket.display());
        Error::from_source(Kind::Disconnected, message, reason)
    }
}

/// Was nobody there to send it to?
fn is_unsent(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Io(error) if transport::is_nobody_there(error))
}

fn is_interrupted(reason: &(dyn error::Error + Send + Sync + 'static)) -> bool {
    reason.is::<Interrupted>()
}

fn unsendable(error: &serde_json::Error) -> Error {
    Error::new(format!("failed to write the request as JSON: {error}"))
}

/// The error that an engine's answer to `call` is: `{"message": "…"}` by its API, else whatever text there is. It
/// `is_unavailable` where the engine has no such call at all.
fn refusal(status: u16, body: &[u8], call: &str) -> Error {
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
    }
    let told = serde_json::from_slice::<Refusal>(body).ok();
    let is_known_call = told.as_ref().is_none_or(|refusal| refusal.message != "page not found");
    let text = match &told {
        Some(refusal) => refusal.message.clone(),
        None => String::from_utf8_lossy(body).into_owned(),
    };
    let text = text.trim();
    if status == 404 && (told.is_none() || !is_known_call) {
        return Error::new(format!("the engine does not know `{call}` (404: {text})")).unavailable();
    }
    let kind = match status {
        404 => Kind::NotFound,
        409 => Kind::Conflict,
        // Podman 4.3 has the words and not always the status.
        500 if CONFLICTS.iter().any(|words| text.ends_with(words)) => Kind::Conflict,
        500 if MISSING.iter().any(|words| text.ends_with(words)) => Kind::NotFound,
        _ => Kind::Other,
    };
    if text.is_empty() {
        return Error::with_kind(kind, format!("the engine answered with status {status}"));
    }
    if text.contains("is too old. Minimum supported API version") {
        let known = super::HIGHEST_API;
        return Error::with_kind(
            kind,
            format!("{text} (this sebs-lite speaks up to {}.{}: use a newer one)", known.0, known.1),
        );
    }
    Error::with_kind(kind, text)
}

/// `text` as a part of a path or a query: all but letters, digits and `-._~` in percent notation.
pub(super) fn escaped(text: &str) -> String {
    escaped_but(text, b"")
}

/// An image's reference as the middle of a path, where its slashes and colons stay what they are.
pub(super) fn escaped_reference(reference: &str) -> String {
    escaped_but(reference, b"/:@")
}

fn escaped_but(text: &str, plain: &[u8]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || plain.contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// An archive on its way: it ends early once the engine has hung up or the caller gives up, and its own failure is kept
/// apart from the connection's.
struct Upload<'a> {
    archive: &'a mut dyn Read,
    stopped: Arc<AtomicBool>,
    cancel: Option<&'a Cancel>,
    failure: Option<io::Error>,
}

impl Read for Upload<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        wire::check(self.cancel).map_err(ureq::Error::into_io)?;
        if self.stopped.load(Ordering::Relaxed) {
            return Ok(0);
        }
        loop {
            match self.archive.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let told = io::Error::new(error.kind(), "the archive could not be read");
                    self.failure = Some(error);
                    return Err(told);
                }
                read => return read,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_the_engine_says() {
        let refusal = |status: u16, body: &[u8]| refusal(status, body, "POST /v1.41/containers/x/update");
        let error = refusal(404, br#"{"message":"No such container: x"}"#);
        assert_eq!(error.to_string(), "No such container: x");
        assert!(error.is_not_found());
        assert!(refusal(409, b"{\"message\":\"in use\"}").is_conflict());
        assert_eq!(refusal(502, b"Bad Gateway\n").to_string(), "Bad Gateway");
        assert_eq!(refusal(500, b"").to_string(), "the engine answered with status 500");
        for body in [b"{\"message\":\"page not found\"}".as_slice(), b"Not Found\n"] {
            let unknown = refusal(404, body);
            assert!(!unknown.is_not_found(), "{unknown}");
            assert!(
                unknown.to_string().contains("does not know `POST /v1.41/containers/x/update`"),
                "{unknown}"
            );
        }
        let taken = br#"{"cause":"that name is already in use","message":"container create: creating container
            storage: the container name \"x\" is already in use by 0f: that name is already in use","response":500}"#;
        let full = refusal(500, b"{\"message\":\"no space left\"}");
        assert!(!full.is_conflict() && !full.is_not_found());
        let went = br#"{"message":"container 0f does not exist in database: no such container"}"#;
        assert!(refusal(500, went).is_not_found());
        assert!(refusal(500, &taken.map(|byte| if byte == b'\n' { b' ' } else { byte })).is_conflict());
    }

    #[test]
    fn what_an_address_does_not_take_is_escaped() {
        assert_eq!(escaped("a b/c?d=é"), "a%20b%2Fc%3Fd%3D%C3%A9");
        assert_eq!(escaped_reference("localhost:5000/a/b:1.0@sha256:0f"), "localhost:5000/a/b:1.0@sha256:0f");
    }
}
