//! Which process an id means, for as long as it lives: whether it does, and how it is ended.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::str::FromStr;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::clock::Instant;
use crate::error::{Context, Error, Kind, Result};

/// How long a process may take to be gone after SIGKILL: one that waits for a disk or a network may not go at all.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// How often a process is looked at where the kernel cannot tell of its end.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// One process of this machine, whether or not it still lives: its id may have been given to another since, but that
/// one was started later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its process id, in the namespace of who asked.
    pub pid: i32,
    /// When it was started, in clock ticks since boot: field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
    /// The kernel's boot id.
    pub boot_id: String,
}

/// How a process came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It had ended before it was asked to.
    AlreadyGone,
    /// It ended when it was asked to, by SIGTERM.
    Terminated,
    /// It did not, and was killed.
    Killed,
}

/// What was found out about a process id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// There is such a process, started then.
    Started(u64),
    /// There is none, or only what its parent has not collected yet.
    Gone,
    /// There is one that we may not look at.
    Hidden,
}

impl Identity {
    /// The process that has that id.
    ///
    /// # Errors
    /// `is_not_found` where there is none; others where it is not ours to see.
    pub fn of(pid: i32) -> Result<Identity> {
        Identity::from_found(pid, look_up(pid))
    }

    /// This process.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn current() -> Result<Identity> {
        // Not by its id, which a `/proc` of another namespace counts differently.
        let stat = fs::read_to_string("/proc/self/stat");
        let stat = stat.context(|| "failed to read `/proc/self/stat`".to_string())?;
        Identity::from_found(Pid::this().as_raw(), parse_stat(&stat))
    }

    fn from_found(pid: i32, found: Found) -> Result<Identity> {
        match found {
            Found::Started(start_ticks) => Ok(Identity { pid, start_ticks, boot_id: boot_id()? }),
            Found::Gone => Err(Error::with_kind(Kind::NotFound, format!("there is no process {pid}"))),
            Found::Hidden => Err(Error::new(format!("process {pid} cannot be looked at in `/proc`"))),
        }
    }

    /// Does it live, as far as this process can see?
    pub fn is_alive(&self) -> bool {
        boot_id().is_ok_and(|boot_id| boot_id == self.boot_id)
            && look_up(self.pid) == Found::Started(self.start_ticks)
    }

    /// Asks the process to end, by SIGTERM, waits for that as long as `grace`, and only then kills it. It need not be
    /// a child of this one; one that is remains to be waited for by who started it. No other process is ever signalled,
    /// even if it has been given the same id meanwhile.
    ///
    /// # Errors
    /// It may not be signalled, or cannot be looked at, or is not gone 10 s after SIGKILL (`is_timeout`).
    pub fn end(&self, grace: Duration) -> Result<Ended> {
        self.end_inner(grace).context(|| format!("failed to end process {}", self.pid))
    }

    fn end_inner(&self, grace: Duration) -> Result<Ended> {
        if boot_id()? != self.boot_id {
            return Ok(Ended::AlreadyGone);
        }
        let Some(handle) = Handle::open(self)? else { return Ok(Ended::AlreadyGone) };
        if !handle.signal(Signal::SIGTERM)? {
            return Ok(Ended::AlreadyGone);
        }
        // One that was stopped takes up a signal only when it goes on.
        handle.signal(Signal::SIGCONT)?;
        if handle.is_gone_within(grace)? {
            return Ok(Ended::Terminated);
        }
        log::warn!("process {} has not ended {} s after SIGTERM: killing it", self.pid, grace.as_secs_f64());
        handle.signal(Signal::SIGKILL)?;
        if handle.is_gone_within(KILL_LIMIT)? {
            return Ok(Ended::Killed);
        }
        let limit = KILL_LIMIT.as_secs();
        Err(Error::with_kind(Kind::Timeout, format!("it is not gone {limit} s after SIGKILL")))
    }
}

/// What one process can be signalled by.
enum Handle<'a> {
    /// A descriptor of that very process.
    Descriptor(OwnedFd),
    /// Its id, where the kernel is older than 5.3: looked up before each use, which leaves a moment for another process
    /// to be given it.
    Id(&'a Identity),
}

impl Handle<'_> {
    /// `None`: the process is gone.
    fn open(identity: &Identity) -> Result<Option<Handle<'_>>> {
        let handle = match open_descriptor(identity.pid) {
            Ok(descriptor) => Handle::Descriptor(descriptor),
            Err(Errno::ENOSYS) => Handle::Id(identity),
            // EINVAL: a thread has the id, so no process does.
            Err(Errno::ESRCH | Errno::EINVAL) => return Ok(None),
            Err(error) => return Err(Error::new(format!("failed to open it: {error}"))),
        };
        // Only now: what is found to be that process is what was opened, since it was there first.
        match look_up(identity.pid) {
            Found::Started(start) if start == identity.start_ticks => Ok(Some(handle)),
            Found::Started(_) | Found::Gone => Ok(None),
            Found::Hidden => Err(Error::new("it cannot be looked at in `/proc`")),
        }
    }

    /// Sends a signal; `false` if the process is gone.
    fn signal(&self, signal: Signal) -> Result<bool> {
        let sent = match self {
            Handle::Descriptor(descriptor) => send_by_descriptor(descriptor, signal),
            Handle::Id(identity) if !identity.is_alive() => Err(Errno::ESRCH),
            Handle::Id(identity) => signal::kill(Pid::from_raw(identity.pid), signal),
        };
        match sent {
            Ok(()) => Ok(true),
            Err(Errno::ESRCH) => Ok(false),
            Err(error) => Err(Error::new(format!("failed to send it {signal}: {error}"))),
        }
    }

    fn is_gone_within(&self, limit: Duration) -> Result<bool> {
        let deadline = Instant::now().after(limit);
        loop {
            let left = deadline.since(Instant::now());
            match self {
                // Readable once the process has ended, collected by its parent or not.
                Handle::Descriptor(descriptor) => {
                    let mut watched = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
                    // Rounded up: what is left is waited for, not polled for.
                    let limit_ms = (left.as_micros().div_ceil(1000)).min(60_000) as u16;
                    match poll(&mut watched, PollTimeout::from(limit_ms)) {
                        Ok(0) | Err(Errno::EINTR) => {}
                        Ok(_) => return Ok(true),
                        Err(error) => return Err(Error::new(format!("failed to wait for it: {error}"))),
                    }
                }
                Handle::Id(identity) if !identity.is_alive() => return Ok(true),
                Handle::Id(_) => std::thread::sleep(LOOK_EVERY.min(left)),
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }
}

#[expect(unsafe_code, reason = "nix has no pidfd_open")]
fn open_descriptor(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes two numbers, and touches no memory of ours.
    let descriptor = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}

#[expect(unsafe_code, reason = "nix has no pidfd_send_signal")]
fn send_by_descriptor(descriptor: &OwnedFd, signal: Signal) -> Result<(), Errno> {
    let (descriptor, no_info) = (descriptor.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: the descriptor is open as long as it is borrowed, and without a siginfo the kernel makes its own.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, descriptor, signal as i32, no_info, 0) };
    Errno::result(sent).map(drop)
}

/// Which start of this machine it is.
pub(crate) fn boot_id() -> Result<String> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(PATH).context(|| format!("failed to read `{PATH}`"))?;
    Ok(text.trim().to_string())
}

/// What there is of that id.
pub(crate) fn look_up(pid: i32) -> Found {
    if pid <= 0 {
        return Found::Hidden;
    }
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => parse_stat(&stat),
        // With `hidepid`, /proc shows only one's own: a signal that is none tells them from those that are gone.
        Err(_) if signal::kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH) => Found::Gone,
        Err(_) => Found::Hidden,
    }
}

/// The words that a process was started with; `None` where they cannot be read.
pub(crate) fn command_line(pid: i32) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    Some(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

/// The fields of a `/proc/PID/stat` from the third on, which is the state (proc_pid_stat(5)).
pub(crate) struct StatFields<'a>(Vec<&'a str>);

impl StatFields<'_> {
    /// `None` where the text is no such file's.
    pub(crate) fn of(stat: &str) -> Option<StatFields<'_>> {
        // The name in parentheses may hold anything, blanks and parentheses too.
        let (_, after_name) = stat.rsplit_once(')')?;
        Some(StatFields(after_name.split_whitespace().collect()))
    }

    /// The field of that number in proc_pid_stat(5), which is 3 or more.
    pub(crate) fn text(&self, number: usize) -> Option<&str> {
        self.0.get(number - 3).copied()
    }

    /// The same, as a number.
    pub(crate) fn number<T: FromStr>(&self, number: usize) -> Option<T> {
        self.text(number)?.parse().ok()
    }
}

/// What `/proc/PID/stat` says: the state is field 3, the number of threads field 20 and the start time field 22.
fn parse_stat(stat: &str) -> Found {
    let Some(fields) = StatFields::of(stat) else { return Found::Hidden };
    let (Some(state), Some(threads), Some(start)) =
        (fields.text(3), fields.number::<u64>(20), fields.number(22))
    else {
        return Found::Hidden;
    };
    // A process whose first thread has ended shows as a zombie, too, as long as others go on.
    if matches!(state, "Z" | "X") && threads <= 1 { Found::Gone } else { Found::Started(start) }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    /// A shell that has said that it is ready.
    fn shell(script: &str) -> (Child, Identity) {
        let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let identity = Identity::of(child.id() as i32).unwrap();
        (child, identity)
    }

    #[test]
    fn a_process_is_read_from_its_stat_line_whatever_its_name() {
        let stat = |state: &str, threads: u32| {
            format!("42 (a) (b c) {state} 1 42 42 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 {threads} 0 777 1 2")
        };
        assert_eq!(parse_stat(&stat("S", 3)), Found::Started(777));
        assert_eq!(parse_stat(&stat("Z", 1)), Found::Gone);
        assert_eq!(parse_stat(&stat("Z", 2)), Found::Started(777));
        assert_eq!(parse_stat("42 (sh) S 1"), Found::Hidden);
    }

    #[test]
    fn this_process_lives_and_is_known_by_its_words() {
        let current = Identity::current().unwrap();
        assert!(current.is_alive());
        let words = command_line(current.pid).unwrap();
        assert_eq!(words[0], std::env::args().next().unwrap());
        assert!(!Identity { start_ticks: current.start_ticks + 1, ..current.clone() }.is_alive());
        assert!(!Identity { boot_id: "another".to_string(), ..current }.is_alive());
        // Beyond what the kernel gives out (pid_max is 2²² at most).
        assert!(Identity::of(1 << 23).unwrap_err().is_not_found());
    }

    #[test]
    fn a_process_that_ended_is_gone_before_and_after_its_parent_has_collected_it() {
        let (mut child, identity) = shell("echo ready; exec sleep 60");
        child.kill().unwrap();
        let deadline = Instant::now().after(GRACE);
        while identity.is_alive() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(identity.end(GRACE).unwrap(), Ended::AlreadyGone);
        child.wait().unwrap();
        assert_eq!(identity.end(GRACE).unwrap(), Ended::AlreadyGone);
        assert!(!identity.is_alive());
    }

    #[test]
    fn a_process_that_was_given_the_id_of_another_is_left_alone() {
        let (mut child, identity) = shell("echo ready; exec sleep 60");
        let earlier = Identity { start_ticks: identity.start_ticks - 1, ..identity.clone() };
        assert_eq!(earlier.end(GRACE).unwrap(), Ended::AlreadyGone);
        let earlier_boot = Identity { boot_id: "another".to_string(), ..identity.clone() };
        assert_eq!(earlier_boot.end(GRACE).unwrap(), Ended::AlreadyGone);
        assert!(identity.is_alive() && child.try_wait().unwrap().is_none());
        assert_eq!(identity.end(GRACE).unwrap(), Ended::Terminated);
        child.wait().unwrap();
    }

    #[test]
    fn one_that_was_stopped_ends_when_asked_to_and_one_that_will_not_is_killed_after_its_grace() {
        let (mut stopped, identity) = shell("echo ready; exec sleep 60");
        signal::kill(Pid::from_raw(identity.pid), Signal::SIGSTOP).unwrap();
        assert_eq!(identity.end(GRACE).unwrap(), Ended::Terminated);
        stopped.wait().unwrap();
        let (mut stubborn, identity) = shell("trap '' TERM; echo ready; exec sleep 60");
        let begin = Instant::now();
        assert_eq!(identity.end(Duration::from_millis(200)).unwrap(), Ended::Killed);
        assert!(Instant::now().since(begin) >= Duration::from_millis(200));
        stubborn.wait().unwrap();
    }

    #[test]
    fn without_descriptors_of_processes_the_id_serves() {
        let (mut child, identity) = shell("echo ready; exec sleep 60");
        let handle = Handle::Id(&identity);
        assert!(!handle.is_gone_within(Duration::ZERO).unwrap());
        assert!(handle.signal(Signal::SIGTERM).unwrap());
        assert!(handle.is_gone_within(GRACE).unwrap());
        assert!(!handle.signal(Signal::SIGTERM).unwrap());
        child.wait().unwrap();
    }
}
