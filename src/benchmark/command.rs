//! Runs one command on this host to its end, in a process group of its own, and keeps what it printed.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::cancel::Cancel;
use crate::error::{Context, Error, Kind, Result};

/// How often a wait looks at the cancel token and the child.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long output may still come after the command's end, from what it left behind in the background.
const LATE_OUTPUT: Duration = Duration::from_secs(1);

/// How a command ended.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// Did it end with 0?
    pub(super) success: bool,
    /// `exit status: 1`, `signal: 9 (SIGKILL)`.
    pub(super) status: String,
    /// The lines of stdout and stderr, as they came.
    pub(super) lines: Vec<String>,
}

impl Outcome {
    /// An error unless it succeeded: `<what> ended with <status>`, and the last lines that say why.
    pub(super) fn check(self, what: &str) -> Result<Outcome> {
        if self.success {
            return Ok(self);
        }
        Err(Error::new(format!("{what} ended with {}{}", self.status, last_lines(&self.lines))))
    }
}

/// The last lines that are not blank, for the end of an error: each on its own line, nothing where there is none.
pub(super) fn last_lines(lines: &[String]) -> String {
    const SHOWN: usize = 12;
    let mut last: Vec<&str> = lines
        .iter()
        .rev()
        .map(|line| line.trim_end())
        .filter(|line| !line.is_empty() && !line.starts_with("[notice]"))
        .take(SHOWN)
        .collect();
    last.reverse();
    last.iter().map(|line| format!("\n    {line}")).collect()
}

/// Runs `command` without input until it ends.
///
/// # Errors
/// It cannot be started (not found is `is_not_found`), or `cancel` was triggered: then its process group is dead.
pub(super) fn run(mut command: Command, cancel: &Cancel, mut on_line: impl FnMut(&str)) -> Result<Outcome> {
    cancel.check()?;
    let name = command.get_program().to_string_lossy().into_owned();
    let about = || format!("failed to run `{name}`");
    let (reader, writer) = std::io::pipe().context(about)?;
    let second = writer.try_clone().context(about)?;
    log::debug!("running {}", shown(&command));
    let child = command.stdin(Stdio::null()).stdout(writer).stderr(second).process_group(0).spawn();
    // The command holds the pipe's ends to write to, and the output would never end while it is there.
    drop(command);
    let child = child.context(about);
    let mut group =
        Group(child.map_err(|error| if error.is_not_found() { error.unavailable() } else { error })?);
    let (sender, lines) = mpsc::channel();
    // Ends with the pipe; after `LATE_OUTPUT` nobody waits for it any more.
    let started = std::thread::Builder::new().name("output".to_string()).spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_string();
            if sender.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    started.context(about)?;
    let mut kept = Vec::new();
    let mut ended = None;
    loop {
        match lines.recv_timeout(LOOK_EVERY) {
            Ok(line) => {
                on_line(&line);
                kept.push(line);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) if ended.is_some() => break,
            // The output was closed before the end.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(5)),
        }
        cancel.check()?;
        if ended.is_none() && group.0.try_wait().context(about)?.is_some() {
            ended = Some(Instant::now());
        }
        if ended.is_some_and(|at| at.elapsed() > LATE_OUTPUT) {
            break;
        }
    }
    let status = group.0.wait().context(about)?;
    Ok(Outcome { success: status.success(), status: status.to_string(), lines: kept })
}

/// Program and arguments, for a log: an environment may hold secrets, which `Debug` would show.
pub(super) fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("{word:?}"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// A child that leads a process group, which is killed with all in it when this is dropped.
#[derive(Debug)]
pub(super) struct Group(pub(super) Child);

impl Drop for Group {
    fn drop(&mut self) {
        // The group may have members left when its leader has ended; where it has none, there is nothing to kill.
        let _ = killpg(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// The first file called `name` that can be run in one of the folders of `PATH`.
///
/// # Errors
/// There is none.
pub(super) fn on_path(name: &str) -> Result<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok() && file.is_file())
        .ok_or_else(|| Error::with_kind(Kind::NotFound, format!("`{name}` is not installed on this machine")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_status_are_kept_and_a_failure_shows_the_last_lines() {
        let mut seen = Vec::new();
        let outcome =
            run(shell("echo one; echo two >&2"), &Cancel::new(), |line| seen.push(line.to_string()));
        assert_eq!(outcome.unwrap().lines, ["one", "two"]);
        assert_eq!(seen, ["one", "two"]);
        let failed = run(shell("echo why; exit 3"), &Cancel::new(), |_| ()).unwrap();
        let error = failed.check("`it`").unwrap_err().to_string();
        assert_eq!(error, "`it` ended with exit status: 3\n    why");
        let missing = run(Command::new("/no/such/program"), &Cancel::new(), |_| ()).unwrap_err();
        assert!(missing.is_not_found() && missing.to_string().contains("/no/such/program"), "{missing}");
    }

    #[test]
    fn what_is_shown_of_a_command_is_not_its_environment() {
        let mut command = shell("echo \"$TOKEN\"");
        command.env("TOKEN", "hush").env_remove("HOME").current_dir("/");
        assert_eq!(shown(&command), r#""sh" "-c" "echo \"$TOKEN\"""#);
    }

    #[test]
    fn a_cancelled_command_is_killed_with_its_children() {
        let cancel = Cancel::new();
        let mut child = None;
        let error = run(shell("sleep 600 & echo $!; wait"), &cancel, |line| {
            child = line.parse::<i32>().ok();
            cancel.trigger();
        })
        .unwrap_err();
        assert!(error.is_cancelled());
        let stat = format!("/proc/{}/stat", child.unwrap());
        // Killed; until init reaps it, it may still be there as a zombie.
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::fs::read_to_string(&stat).is_ok_and(|text| !text.contains(") Z ")) {
            assert!(Instant::now() < deadline, "the child lives on");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_daemon_left_behind_does_not_hold_the_command_up() {
        let begin = Instant::now();
        let outcome = run(shell("sleep 600 & echo done"), &Cancel::new(), |_| ()).unwrap();
        assert!(outcome.success && begin.elapsed() < Duration::from_secs(60));
        assert_eq!(outcome.lines, ["done"]);
    }
}
