//! The life of a container: create, start, inspect, list, wait, logs, pause, stop, kill, remove.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::call::{Answer, Call, QUICK, escaped};
use super::frames::{Framing, Splitter, Stream};
use super::labels::{self, Labelled};
use super::{ContainerInspect, ContainerSpec, ContainerSummary, Created, Engine, Scope};
use crate::error::{Context, Error, Result};

/// What a container has written so far, each output for itself and both in the order of arrival.
#[derive(Clone, Debug, Default)]
pub struct Logs {
    /// All of its standard output; with a terminal, of both.
    pub stdout: Vec<u8>,
    /// All of its standard error.
    pub stderr: Vec<u8>,
    /// Whose turn it was, and for how many bytes.
    turns: Vec<(Stream, usize)>,
}

impl Logs {
    /// Both outputs as one text, in the order in which the engine got them; what is no UTF-8 is replaced.
    pub fn combined(&self) -> String {
        let mut bytes = Vec::with_capacity(self.stdout.len() + self.stderr.len());
        let (mut stdout, mut stderr) = (self.stdout.as_slice(), self.stderr.as_slice());
        for (stream, length) in &self.turns {
            let output = if *stream == Stream::Stdout { &mut stdout } else { &mut stderr };
            // The outputs are public: a caller may have cut them.
            let (turn, rest) = output.split_at((*length).min(output.len()));
            bytes.extend_from_slice(turn);
            *output = rest;
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn push(&mut self, stream: Stream, bytes: &[u8]) {
        let output = if stream == Stream::Stdout { &mut self.stdout } else { &mut self.stderr };
        output.extend_from_slice(bytes);
        match self.turns.last_mut() {
            Some((last, length)) if *last == stream => *length += bytes.len(),
            _ => self.turns.push((stream, bytes.len())),
        }
    }
}

impl Engine {
    /// Creates a container that does not run yet. Whoever calls this owns its removal:
    /// [`create_owned`](Engine::create_owned) takes care of that.
    ///
    /// # Errors
    /// `is_not_found` when the image is not there, `is_conflict` when the name is taken.
    pub fn create_container(&self, name: &str, spec: &ContainerSpec) -> Result<Created> {
        self.creation(name, spec).and_then(Creation::run)
    }

    /// A creation that only has to be sent.
    pub(super) fn creation(&self, name: &str, spec: &ContainerSpec) -> Result<Creation<'_>> {
        let failure = format!("failed to create container `{name}` from image `{}`", spec.image);
        match self.post("/containers/create").query("name", name).json(spec) {
            Ok(call) => Ok(Creation { call, failure }),
            Err(error) => Err(error.context(failure)),
        }
    }

    /// Starts a container; one that runs is left alone.
    ///
    /// # Errors
    /// When the container is not there (`is_not_found`), or its command or its mounts are not as the engine needs
    /// them.
    pub fn start_container(&self, id: &str) -> Result<()> {
        let start = || self.post(&path(id, "/start")).repeatable().perform();
        start().context(|| format!("failed to start {}", named(id)))
    }

    /// A container as it is now.
    ///
    /// # Errors
    /// `is_not_found` when there is none of that id or name.
    pub fn inspect_container(&self, id: &str) -> Result<ContainerInspect> {
        let inspect = || self.get(&path(id, "/json")).fetch();
        inspect().context(|| format!("failed to inspect {}", named(id)))
    }

    /// The containers that have all these labels, `name` or `name=value` each.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub fn list_containers(&self, labels: &[&str], scope: Scope) -> Result<Vec<ContainerSummary>> {
        let all = if scope == Scope::All { "1" } else { "0" };
        let list = || labels::filter(self.get("/containers/json").query("all", all), labels)?.fetch();
        let listed = labels::listed(list).context(|| "failed to list containers".to_string())?;
        Ok(labels::with_all(listed, labels))
    }

    /// Waits until a container does not run, and says how it ended: its exit code.
    ///
    /// One that was never started does not run either: its exit code is 0.
    ///
    /// # Errors
    /// `is_timeout` once `limit` has passed; without one the wait lasts as long as the container.
    pub fn wait_container(&self, id: &str, limit: Option<Duration>) -> Result<i64> {
        self.wait_inner(id, limit).context(|| format!("failed to wait for the end of {}", named(id)))
    }

    fn wait_inner(&self, id: &str, limit: Option<Duration>) -> Result<i64> {
        let call = self.post(&path(id, "/wait")).repeatable();
        let call = match limit {
            Some(limit) => call.within(limit),
            None => call.without_limit(),
        };
        let ended: Waited = call.fetch()?;
        match ended.error {
            Some(error) if !error.message.is_empty() => Err(Error::new(error.message)),
            _ => Ok(ended.status_code),
        }
    }

    /// What a container has written so far; with `tail`, the last lines of both outputs together, as many as it says.
    ///
    /// It is as much as the engine keeps: one whose configuration limits log files (`max-size`) drops the oldest.
    ///
    /// # Errors
    /// When the container is not there (`is_not_found`), or its engine keeps no logs.
    pub fn container_logs(&self, id: &str, tail: Option<usize>) -> Result<Logs> {
        let mut logs = Logs::default();
        let tail = tail.map_or_else(|| "all".to_string(), |lines| lines.to_string());
        self.persist(|| {
            logs = Logs::default();
            self.read_logs(id, &[("tail", &tail)], &mut |stream, bytes| logs.push(stream, bytes))
        })?;
        Ok(logs)
    }

    /// Hands all that a container has written, and what it goes on to write, to `sink` until the container ends.
    ///
    /// # Errors
    /// As [`container_logs`](Engine::container_logs).
    pub fn follow_logs(&self, id: &str, sink: &mut dyn FnMut(Stream, &[u8])) -> Result<()> {
        self.read_logs(id, &[("follow", "1")], sink)
    }

    fn read_logs(&self, id: &str, query: &[(&str, &str)], sink: &mut dyn FnMut(Stream, &[u8])) -> Result<()> {
        let mut read = || {
            // Engines before 1.42 do not say in the answer which of the two formats it has.
            let framing =
                if self.inspect_container(id)?.config.tty { Framing::Raw } else { Framing::Multiplexed };
            let mut call = self.get(&path(id, "/logs")).query("stdout", "1").query("stderr", "1");
            for (name, value) in query {
                call = call.query(name, value);
            }
            let mut splitter = Splitter::new(framing);
            // Logs are as long as they are, and followed as long as the container lives.
            call.without_limit().send()?.for_each_piece(|piece| splitter.push(piece, sink))?;
            splitter.finish()
        };
        read().context(|| format!("failed to read the logs of {}", named(id)))
    }

    /// Asks a container to end (SIGTERM, or its image's stop signal) and kills it `timeout` later, in whole seconds,
    /// rounded up. One that does not run, or is not there any more, is fine.
    ///
    /// # Errors
    /// When the engine cannot be reached, or the container does not die.
    pub fn stop_container(&self, id: &str, timeout: Duration) -> Result<()> {
        let seconds = timeout.as_secs().saturating_add(u64::from(timeout.subsec_nanos() > 0));
        let stop = || {
            let call = self.post(&path(id, "/stop")).repeatable().query("t", &seconds.to_string());
            // It takes what it was given, and then as long as any call.
            call.within(Duration::from_secs(seconds).saturating_add(QUICK)).perform()
        };
        let stopped = stop().or_else(|error| match error.is_conflict() {
            // Podman stops none that is frozen.
            true => self.unpause_container(id).and_then(|()| stop()).map_err(|_| error),
            false => Err(error),
        });
        unless_gone(stopped).context(|| format!("failed to stop {}", named(id)))
    }

    /// Sends a signal, `SIGKILL` or `KILL`, to a container's first process.
    ///
    /// # Errors
    /// `is_not_found` when the container is not there, `is_conflict` when it does not run.
    pub fn kill_container(&self, id: &str, signal: &str) -> Result<()> {
        let call = self.post(&path(id, "/kill")).query("signal", signal);
        // Nobody is killed twice; other signals may mean something each time.
        let call = if signal.ends_with("KILL") { call.repeatable() } else { call };
        call.perform().context(|| format!("failed to send {signal} to {}", named(id)))
    }

    /// Removes a container, running or not, with the volumes that have no name. One that is not there, or is being
    /// removed by somebody else, is fine.
    ///
    /// # Errors
    /// When the engine cannot be reached, or the container cannot be killed.
    pub fn remove_container(&self, id: &str) -> Result<()> {
        self.remove_container_within(id, QUICK)
    }

    pub(super) fn remove_container_within(&self, id: &str, limit: Duration) -> Result<()> {
        let remove = || {
            let call = self.delete(&path(id, "")).query("force", "1").query("v", "1");
            call.within(limit).perform()
        };
        let removed = match unless_gone(remove()) {
            Err(error) if error.is_conflict() && error.to_string().contains("already in progress") => Ok(()),
            other => other,
        };
        removed.context(|| format!("failed to remove {}", named(id)))
    }

    /// Freezes all processes of a container.
    ///
    /// # Errors
    /// When it is not there (`is_not_found`), or does not run, or is frozen (`is_conflict`).
    pub fn pause_container(&self, id: &str) -> Result<()> {
        let pause = || self.post(&path(id, "/pause")).perform();
        pause().context(|| format!("failed to pause {}", named(id)))
    }

    /// Lets the processes of a frozen container go on.
    ///
    /// # Errors
    /// When it is not there (`is_not_found`), or is not frozen.
    pub fn unpause_container(&self, id: &str) -> Result<()> {
        let unpause = || self.post(&path(id, "/unpause")).perform();
        unpause().context(|| format!("failed to unpause {}", named(id)))
    }
}

impl Labelled for ContainerSummary {
    fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }
}

/// A creation that only has to be sent.
pub(super) struct Creation<'a> {
    call: Call<'a>,
    failure: String,
}

impl Creation<'_> {
    pub(super) fn run(self) -> Result<Created> {
        self.call.send().and_then(Answer::json).context(|| self.failure)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Waited {
    status_code: i64,
    error: Option<WaitError>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WaitError {
    #[serde(default)]
    message: String,
}

pub(super) fn path(id: &str, rest: &str) -> String {
    format!("/containers/{}{rest}", escaped(id))
}

fn unless_gone(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

/// Does this error of a start say that a port to be published is in use?
pub(crate) fn is_port_taken(error: &Error) -> bool {
    let text = error.to_string();
    text.contains("port is already allocated") || text.contains("address already in use")
}

/// The last lines that a container wrote, as the end of an error's text; empty if there are none.
pub(crate) fn log_tail(engine: &Engine, id: &str) -> String {
    const LINES: usize = 8;
    match engine.container_logs(id, Some(LINES)) {
        Ok(logs) => {
            let text = logs.combined();
            let text = text.trim();
            if text.is_empty() { String::new() } else { format!("; the last it wrote:\n{text}") }
        }
        Err(error) => {
            log::debug!("no log of container `{id}`: {error}");
            String::new()
        }
    }
}

/// A container in an error's text: a name as it is, the first digits of an id.
pub(super) fn named(id: &str) -> String {
    format!("container `{}`", short_id(id).unwrap_or(id))
}

/// The first digits of a container's id, as people know it; `None` of any other text.
pub(crate) fn short_id(text: &str) -> Option<&str> {
    let is_id = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| &text[..12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combined_logs_are_in_the_order_of_arrival() {
        let mut logs = Logs::default();
        for (stream, text) in [
            (Stream::Stdout, "one "),
            (Stream::Stdout, "two "),
            (Stream::Stderr, "three "),
            (Stream::Stdout, "four"),
        ] {
            logs.push(stream, text.as_bytes());
        }
        assert_eq!(logs.combined(), "one two three four");
        assert_eq!((logs.stdout.as_slice(), logs.stderr.as_slice()), (&b"one two four"[..], &b"three "[..]));
        assert_eq!(logs.turns.len(), 3);
    }

    #[test]
    fn an_id_is_shortened_and_a_name_is_not() {
        assert_eq!(named(&"0123456789abcdef".repeat(4)), "container `0123456789ab`");
        assert_eq!(named("sebs-lite-x"), "container `sebs-lite-x`");
    }
}
