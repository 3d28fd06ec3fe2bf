//! Says what became of an instance that gave no answer.

use std::net::SocketAddr;
use std::time::Duration;

use crate::cancel::Cancel;
use crate::clock::Instant;
use crate::docker::{ContainerInspect, ContainerState, Engine, log_tail};
use crate::error::Result;

use super::ready::answers;
use super::whereabouts::{RESTARTED, loss, was_restarted};

/// How long the end of a container is waited for after its connection broke, before its server is asked whether it lives.
const END_SEEN_WITHIN: Duration = Duration::from_secs(2);

/// How long a container may neither end nor answer: a busy engine tells of an end seconds after the process is gone.
const END_LIMIT: Duration = Duration::from_secs(30);

/// How the cause begins where the kernel killed the function's own process.
const OUT_OF_MEMORY: &str = "the kernel killed the function's process for want of memory";

const KILLED_FROM_OUTSIDE: &str = "the function's process was killed from outside (signal 9)";
const PAUSED: &str = "its container is paused";
const GONE: &str = "its container is gone";
const ENDED: &str = "its container has ended";

/// What an instance is known by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// Id of its container.
    pub(super) id: &'a str,
    /// Where it is invoked.
    pub(super) address: SocketAddr,
    /// When its container was started, as the engine told when the instance became known.
    pub(super) started_at: &'a str,
}

/// The instance in question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspect<'a> {
    pub(super) place: Place<'a>,
    /// When it was invoked.
    pub(super) begin: Instant,
    /// Its limit; 0: none.
    pub(super) memory_mb: u64,
    /// How many processes of it the kernel had killed before, for want of memory, as far as that is known.
    pub(super) earlier_kills: u64,
    /// How many it has killed since; `None`: its counter cannot be read any more, or there is none.
    pub(super) oom_kills: Option<u64>,
    /// How many it has killed since in the control group above, others among them; `None`: that is not counted.
    pub(super) killed_above: Option<u64>,
}

/// Why an instance gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) text: String,
    /// Did the kernel kill a process of it for want of memory?
    pub(super) is_out_of_memory: bool,
}

/// What the engine says of an instance that gives no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing that would keep it from answering.
    Able,
    /// It may answer once somebody lets it run again.
    Paused,
    /// Its processes have ended.
    Ended,
    /// It cannot answer any more, for this reason.
    Lost(&'static str),
}

impl Cause {
    fn new(text: impl Into<String>) -> Cause {
        Cause { text: text.into(), is_out_of_memory: false }
    }
}

/// What became of an instance whose connection broke: `None` if it lives.
///
/// # Errors
/// The engine does not tell, or the cancel token was triggered.
pub(super) fn cause_of_death(
    engine: &Engine,
    cancel: &Cancel,
    suspect: &Suspect<'_>,
) -> Result<Option<Cause>> {
    let Place { id, address, .. } = suspect.place;
    let deadline = Instant::now().after(END_LIMIT);
    loop {
        match engine.wait_container(id, Some(END_SEEN_WITHIN)) {
            Ok(_) => break,
            Err(error) if error.is_not_found() => return Ok(Some(Cause::new(GONE))),
            Err(error) if !error.is_timeout() => return Err(error),
            Err(_) => {}
        }
        // First, since an address that it has lost may be another's by now, which answers.
        match standing(engine, suspect.place)? {
            Standing::Able => {}
            Standing::Ended => break,
            Standing::Paused => return Ok(Some(Cause::new(PAUSED))),
            Standing::Lost(why) => return Ok(Some(Cause::new(why))),
        }
        if answers(address, END_SEEN_WITHIN, cancel)? {
            return Ok(None);
        }
        if Instant::now() >= deadline {
            let waited = END_LIMIT.as_secs();
            return Ok(Some(Cause::new(format!(
                "the connection to the function broke, and its server has not answered for {waited} s"
            ))));
        }
    }
    end_of(engine, suspect).map(Some)
}

/// Why an instance gave no answer in time, as far as something else than its handler explains it; `None`: nothing is known.
///
/// # Errors
/// The engine does not tell.
pub(super) fn cause_of_silence(engine: &Engine, suspect: &Suspect<'_>) -> Result<Option<Cause>> {
    Ok(match standing(engine, suspect.place)? {
        Standing::Able => None,
        Standing::Paused => Some(Cause::new(PAUSED)),
        Standing::Ended => Some(end_of(engine, suspect)?),
        Standing::Lost(why) => Some(Cause::new(why)),
    })
}

/// What became of an idle instance whose processes have ended.
///
/// # Errors
/// The engine does not tell.
pub(super) fn cause_of_lapse(engine: &Engine, suspect: &Suspect<'_>) -> Result<Cause> {
    let mut found = standing(engine, suspect.place)?;
    if matches!(found, Standing::Able | Standing::Paused) {
        // The engine learns a little later than the kernel that they have.
        match engine.wait_container(suspect.place.id, Some(END_SEEN_WITHIN)) {
            Err(error) if !error.is_timeout() && !error.is_not_found() => return Err(error),
            _ => found = standing(engine, suspect.place)?,
        }
    }
    match found {
        Standing::Able | Standing::Paused => Ok(Cause::new(ENDED)),
        Standing::Ended => manner_of_end(engine, suspect),
        Standing::Lost(why) => Ok(Cause::new(why)),
    }
}

/// Can an instance answer, as far as the engine knows?
///
/// # Errors
/// The engine does not tell.
pub(super) fn standing(engine: &Engine, place: Place<'_>) -> Result<Standing> {
    match engine.inspect_container(place.id) {
        Ok(inspected) => Ok(standing_of(&inspected, place)),
        Err(error) if error.is_not_found() => Ok(Standing::Lost(GONE)),
        Err(error) => Err(error),
    }
}

fn standing_of(inspected: &ContainerInspect, place: Place<'_>) -> Standing {
    if inspected.state.paused {
        return Standing::Paused;
    }
    if !inspected.state.running {
        return Standing::Ended;
    }
    loss(inspected, place.address, place.started_at).map_or(Standing::Able, Standing::Lost)
}

/// How a container ended that does not run, with the last that it wrote.
fn end_of(engine: &Engine, suspect: &Suspect<'_>) -> Result<Cause> {
    let cause = manner_of_end(engine, suspect)?;
    // Its log has gone, or is that of another start.
    if [GONE, RESTARTED].contains(&cause.text.as_str()) {
        return Ok(cause);
    }
    Ok(Cause { text: cause.text + &log_tail(engine, suspect.place.id), ..cause })
}

/// How a container ended that does not run.
fn manner_of_end(engine: &Engine, suspect: &Suspect<'_>) -> Result<Cause> {
    let state = match engine.inspect_container(suspect.place.id) {
        Ok(inspected) if inspected.state.status == "removing" => return Ok(Cause::new(GONE)),
        Ok(inspected) if was_restarted(&inspected, suspect.place.started_at) => {
            return Ok(Cause::new(RESTARTED));
        }
        Ok(inspected) => inspected.state,
        Err(error) if error.is_not_found() => return Ok(Cause::new(GONE)),
        Err(error) => return Err(error),
    };
    let mut cause = cause_of_end(&state, suspect);
    let is_counted = suspect.oom_kills.is_some() || suspect.killed_above.is_some();
    if state.exit_code == 137 && !cause.is_out_of_memory && !is_counted {
        let heard = match engine.kill_events(suspect.place.id, Instant::now().since(suspect.begin)) {
            // How it ended is known all the same.
            Err(error) if !error.is_cancelled() => {
                log::debug!("{error}");
                Vec::new()
            }
            heard => heard?,
        };
        let oom_kills = heard.iter().filter(|event| *event == "oom").count() as u64;
        if oom_kills > 0 {
            cause = cause_of_end(&state, &Suspect { oom_kills: Some(oom_kills), ..*suspect });
        } else if !heard.is_empty() {
            cause = Cause::new(KILLED_FROM_OUTSIDE);
        }
    }
    Ok(cause)
}

fn cause_of_end(state: &ContainerState, suspect: &Suspect<'_>) -> Cause {
    let Suspect { memory_mb, earlier_kills, oom_kills, killed_above, .. } = *suspect;
    // The engine does not say when it was, forgets no earlier one, and on v2 misses some that end the container.
    let engine_says = state.oom_killed && earlier_kills == 0 && killed_above != Some(0);
    let is_likely = state.exit_code == 137 && killed_above > Some(0);
    let is_out_of_memory = oom_kills.map_or(engine_says || is_likely, |kills| kills > 0);
    let text = match state.exit_code {
        137 if is_out_of_memory && memory_mb == 0 => {
            format!("{OUT_OF_MEMORY}: this machine had none left")
        }
        137 if is_out_of_memory => {
            format!("{OUT_OF_MEMORY}: it used more than its memory limit of {memory_mb} MiB")
        }
        137 if oom_kills.or(killed_above) == Some(0) => {
            "the function's process was killed (signal 9), and not for want of memory".to_string()
        }
        137 if memory_mb > 0 => format!(
            "the function's process was killed (signal 9): by the kernel, if it used more than its memory limit of \
             {memory_mb} MiB, or from outside"
        ),
        code if is_out_of_memory => format!(
            "the function's process ended with exit code {code}, after the kernel had killed one of its instance for \
             want of memory"
        ),
        code => format!("the function's process ended with exit code {code}"),
    };
    Cause { text, is_out_of_memory }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_did_to_a_container_is_named() {
        let address = "172.17.0.9:9000".parse().unwrap();
        let place = Place { id: "a", address, started_at: "" };
        let mut container = ContainerInspect::default();
        assert_eq!(standing_of(&container, place), Standing::Ended);
        container.state.running = true;
        assert_eq!(
            standing_of(&container, place),
            Standing::Lost("its container was disconnected from its network")
        );
        container.network_settings.ip_address = "172.17.0.9".to_string();
        assert_eq!(standing_of(&container, place), Standing::Able);
        container.state.paused = true;
        assert_eq!(standing_of(&container, place), Standing::Paused);
    }

    #[test]
    fn a_kill_for_memory_is_told_from_any_other_end() {
        let told = |exit_code, oom_killed, memory_mb, earlier_kills, (oom_kills, killed_above)| {
            let state = ContainerState { exit_code, oom_killed, ..ContainerState::default() };
            let address = "172.17.0.9:9000".parse().unwrap();
            let place = Place { id: "x", address, started_at: "" };
            let begin = Instant::now();
            let cause = cause_of_end(
                &state,
                &Suspect { place, begin, memory_mb, earlier_kills, oom_kills, killed_above },
            );
            (cause.is_out_of_memory, cause.text)
        };
        let limit = "it used more than its memory limit of 128 MiB";
        for (told, is_out_of_memory, text) in [
            (told(137, false, 128, 0, (Some(1), None)), true, limit),
            (told(137, true, 128, 0, (None, None)), true, limit),
            (told(137, true, 0, 0, (None, None)), true, "this machine had none left"),
            // It was another process, in an earlier invocation, that the engine tells of.
            (told(137, true, 128, 1, (Some(0), None)), false, "and not for want of memory"),
            (told(137, true, 128, 1, (None, None)), false, "by the kernel, if"),
            (told(137, false, 128, 0, (None, None)), false, "or from outside"),
            // The engine has missed it.
            (told(137, false, 128, 0, (None, Some(1))), true, limit),
            (told(137, false, 128, 0, (None, Some(0))), false, "and not for want of memory"),
            (told(3, false, 128, 0, (None, Some(1))), false, "ended with exit code 3"),
            (told(3, true, 128, 0, (None, None)), true, "exit code 3, after the kernel had killed one"),
            (told(3, true, 128, 1, (Some(0), None)), false, "ended with exit code 3"),
        ] {
            assert!(told.0 == is_out_of_memory && told.1.contains(text), "{told:?}: {text}");
        }
    }
}
