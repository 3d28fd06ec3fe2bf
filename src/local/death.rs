//! Says what became of an instance that gave no answer.

use std::net::SocketAddr;
use std::time::Duration;

use crate::cancel::Cancel;
use crate::clock::Instant;
use crate::docker::{ContainerInspect, Engine, log_tail};
use crate::error::Result;

use super::container::{answers, bridge_address, published_address};

/// How long the end of a container is waited for after its connection broke, before its server is asked whether it lives.
const END_SEEN_WITHIN: Duration = Duration::from_secs(2);

/// How long a container may neither end nor answer: a busy engine tells of an end seconds after the process is gone.
const END_LIMIT: Duration = Duration::from_secs(30);

/// How the cause begins where the kernel killed the instance.
pub(super) const OUT_OF_MEMORY: &str = "the kernel killed the function's process for want of memory";

/// The instance in question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspect<'a> {
    /// Id of its container.
    pub(super) id: &'a str,
    /// Where it was invoked.
    pub(super) address: SocketAddr,
    /// Its limit; 0: none.
    pub(super) memory_mb: u64,
    /// Processes of it that the kernel was seen to kill meanwhile, for want of memory.
    pub(super) oom_kills: u64,
}

/// What became of an instance whose connection broke: `None` if it lives.
///
/// # Errors
/// The engine does not tell, or the cancel token was triggered.
pub(super) fn cause_of_death(
    engine: &Engine,
    cancel: &Cancel,
    suspect: &Suspect<'_>,
) -> Result<Option<String>> {
    let Suspect { id, address, .. } = *suspect;
    let deadline = Instant::now().after(END_LIMIT);
    loop {
        match engine.wait_container(id, Some(END_SEEN_WITHIN)) {
            Ok(_) => break,
            Err(error) if error.is_not_found() => return Ok(Some(gone())),
            Err(error) if !error.is_timeout() => return Err(error),
            Err(_) => {}
        }
        // First, since an address that it has lost may be another's by now, which answers.
        if let Some(hindrance) = hindrance(engine, id, address)? {
            return Ok(Some(hindrance));
        }
        if answers(address, END_SEEN_WITHIN, cancel)? {
            return Ok(None);
        }
        if Instant::now() >= deadline {
            let waited = END_LIMIT.as_secs();
            return Ok(Some(format!(
                "the connection to the function broke, and its server has not answered for {waited} s"
            )));
        }
    }
    end_of(engine, suspect).map(Some)
}

/// Why an instance gave no answer in time, as far as something else than its handler explains it; `None`: nothing is known.
///
/// # Errors
/// The engine does not tell.
pub(super) fn cause_of_silence(engine: &Engine, suspect: &Suspect<'_>) -> Result<Option<String>> {
    match engine.inspect_container(suspect.id) {
        Ok(inspected) if !inspected.state.running => end_of(engine, suspect).map(Some),
        Ok(inspected) => Ok(hindrance_of(&inspected, suspect.address).map(str::to_string)),
        Err(error) if error.is_not_found() => Ok(Some(gone())),
        Err(error) => Err(error),
    }
}

/// How a container ended that does not run.
fn end_of(engine: &Engine, suspect: &Suspect<'_>) -> Result<String> {
    let Suspect { id, memory_mb, oom_kills, .. } = *suspect;
    let state = match engine.inspect_container(id) {
        Ok(inspected) if inspected.state.status == "removing" => return Ok(gone()),
        Ok(inspected) => inspected.state,
        Err(error) if error.is_not_found() => return Ok(gone()),
        Err(error) => return Err(error),
    };
    let tail = log_tail(engine, id);
    Ok(match state.exit_code {
        _ if state.oom_killed || oom_kills > 0 => {
            format!("{OUT_OF_MEMORY}: it used more than its memory limit of {memory_mb} MB{tail}")
        }
        137 if memory_mb > 0 => format!(
            "the function's process was killed (signal 9): by the kernel, if it used more than its memory limit of \
             {memory_mb} MB, or from outside{tail}"
        ),
        code => format!("the function's process ended with exit code {code}{tail}"),
    })
}

/// Why a container that runs cannot answer, as far as somebody else's doing explains it; `None`: nothing is known.
///
/// # Errors
/// The engine does not tell.
fn hindrance(engine: &Engine, id: &str, address: SocketAddr) -> Result<Option<String>> {
    match engine.inspect_container(id) {
        Ok(inspected) => Ok(hindrance_of(&inspected, address).map(str::to_string)),
        Err(error) if error.is_not_found() => Ok(Some(gone())),
        Err(error) => Err(error),
    }
}

fn hindrance_of(inspected: &ContainerInspect, address: SocketAddr) -> Option<&'static str> {
    if inspected.state.paused {
        return Some("its container is paused");
    }
    let is_there = [bridge_address(inspected), published_address(inspected)]
        .into_iter()
        .flatten()
        .any(|own| own == address);
    (inspected.state.running && !is_there).then_some("its container was disconnected from its network")
}

fn gone() -> String {
    "its container is gone".to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_did_to_a_container_is_named() {
        let address = "172.17.0.9:9000".parse().unwrap();
        let mut container = ContainerInspect::default();
        container.state.running = true;
        assert_eq!(
            hindrance_of(&container, address),
            Some("its container was disconnected from its network")
        );
        container.network_settings.ip_address = "172.17.0.9".to_string();
        assert_eq!(hindrance_of(&container, address), None);
        container.state.paused = true;
        assert_eq!(hindrance_of(&container, address), Some("its container is paused"));
    }
}
