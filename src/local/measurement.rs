//! A probe that outlives the command that starts it: a process of its own, which samples a deployment's containers.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use crate::cancel::Cancel;
use crate::clock::Instant;
use crate::error::{Context, Error, Kind, Result};
use crate::process::{self, Ended, Identity};

/// How long the process may take until it samples every container.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// How long it may take to complete its file once it was asked to end.
const END_LIMIT: Duration = Duration::from_secs(10);

/// How long it may go on after it has closed its standard output without a word.
const EXIT_LIMIT: Duration = Duration::from_secs(5);

/// SeBS's own sampler, as its command line names it.
const SEBS_SAMPLER: &str = "measureMem.py";

/// What a process of its own is to sample, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasurementOptions {
    /// The program `sebs-lite`, whose command `measure` does the sampling.
    pub program: PathBuf,
    /// From one sample to the next.
    pub interval: Duration,
    /// The file for the samples, new or empty. What the process has to say goes to its neighbour `<file>.log`.
    pub file: PathBuf,
    /// In which format.
    pub format: RecordingFormat,
    /// Ask for SCHED_FIFO and locked memory; what is not granted is a warning.
    pub realtime: bool,
    /// Keep the sampling thread on this CPU, counted from 0.
    pub cpu: Option<usize>,
}

/// The format of a file of samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordingFormat {
    /// A [`Recording`](crate::probe::Recording).
    #[default]
    Recording,
    /// The lines of text that SeBS's own `local stop` reads.
    Sebs,
}

impl RecordingFormat {
    /// The name, as it is typed and stands in files.
    pub fn name(self) -> &'static str {
        match self {
            RecordingFormat::Recording => "recording",
            RecordingFormat::Sebs => "sebs",
        }
    }

    /// How the names of such files end.
    pub(super) fn ending(self) -> &'static str {
        match self {
            RecordingFormat::Recording => "recording",
            RecordingFormat::Sebs => "txt",
        }
    }
}

impl FromStr for RecordingFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<RecordingFormat> {
        let all = [RecordingFormat::Recording, RecordingFormat::Sebs];
        let found = all.into_iter().find(|format| format.name() == text);
        found.ok_or_else(|| {
            Error::usage(format!("format `{text}` is not known: it must be `recording` or `sebs`"))
        })
    }
}

/// What a deployment file says of the sampling of memory: SeBS's two keys, and ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryMeasurements {
    /// The processes that sample.
    pub pids: Vec<i32>,
    /// The file that they write, absolute.
    pub file: PathBuf,
    /// The same processes, told apart from those that are given their ids later; SeBS does not say.
    #[serde(default)]
    pub processes: Vec<Identity>,
    /// The format of the file; SeBS does not say, and knows its own alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<RecordingFormat>,
    /// From one sample to the next; SeBS does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_ns: Option<u64>,
}

impl MemoryMeasurements {
    /// Of sampling that has not begun.
    pub fn planned(options: &MeasurementOptions) -> MemoryMeasurements {
        MemoryMeasurements {
            pids: Vec::new(),
            file: options.file.clone(),
            processes: Vec::new(),
            format: Some(options.format),
            interval_ns: Some(options.interval.as_nanos() as u64),
        }
    }

    /// The processes that sample, as far as they can be told, and a warning for each that may not be signalled.
    ///
    /// An id without a start time is believed only of a process whose command line says that it samples into this very
    /// file. Where there is no id at all, since whoever started the process was killed, it is looked for by that.
    pub(super) fn processes(&self) -> (Vec<Identity>, Vec<String>) {
        let (mut found, mut warnings) = (self.processes.clone(), Vec::new());
        let is_sampler =
            |pid: i32| process::command_line(pid).is_some_and(|words| samples_into(&words, &self.file));
        for pid in self.pids.iter().copied() {
            if found.iter().any(|known| known.pid == pid) {
                continue;
            }
            match Identity::of(pid) {
                // Looked at after its start time was: the words are this very process's, or it is gone.
                Ok(identity) if is_sampler(pid) => found.push(identity),
                Ok(_) => warnings.push(format!(
                    "process {pid} is left alone: the file does not say when it was started, and its command line is none of a \
                     sampler of `{}`",
                    self.file.display()
                )),
                Err(error) if error.is_not_found() => {}
                Err(error) => warnings.push(error.to_string()),
            }
        }
        if self.pids.is_empty() && found.is_empty() {
            let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
            let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
            found.extend(pids.filter_map(|pid| Identity::of(pid).ok()).filter(|found| is_sampler(found.pid)));
        }
        (found, warnings)
    }

    /// The file for what the process has to say.
    pub(super) fn log(&self) -> PathBuf {
        log_of(&self.file)
    }
}

/// A process that samples.
#[derive(Debug)]
pub(super) struct Measurement {
    pub(super) ready: Ready,
    /// For its parent to collect it, once it has ended.
    pub(super) child: Child,
}

impl Measurement {
    /// Starts the process, and waits until it samples all these containers. On any error it is gone.
    pub(super) fn start(
        options: &MeasurementOptions,
        container_ids: &[String],
        cancel: &Cancel,
    ) -> Result<Measurement> {
        let log = log_of(&options.file);
        let outcome = Measurement::start_inner(options, container_ids, &log, cancel);
        if outcome.is_err() {
            let _ = fs::remove_file(&log);
        }
        outcome.context(|| "failed to start the process that samples memory".to_string())
    }

    fn start_inner(
        options: &MeasurementOptions,
        container_ids: &[String],
        log: &Path,
        cancel: &Cancel,
    ) -> Result<Measurement> {
        let about = || format!("failed to make `{}`", log.display());
        // Appended to, so that it can be emptied while it is open.
        let said = File::options().create(true).append(true).open(log).context(about)?;
        let program = absolute(&options.program)?;
        let mut command = Command::new(&program);
        command.arg("measure").arg("--detach");
        for id in container_ids {
            command.args(["--container-id", id]);
        }
        command.args(["--measure-interval", &format!("{}ns", options.interval.as_nanos())]);
        command.arg("--measurement-file").arg(&options.file);
        command.args(["--format", options.format.name()]);
        if options.realtime {
            command.arg("--realtime");
        }
        if let Some(cpu) = options.cpu {
            command.args(["--cpu", &cpu.to_string()]);
        }
        // It holds neither the caller's terminal nor the folder that the caller works in.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(said).current_dir("/");
        keep_inherited_from(&mut command);
        let mut child =
            command.spawn().context(|| format!("failed to run `{}`", options.program.display()))?;
        let ready = wait_until_ready(&mut child, cancel).and_then(|ready| {
            // What it has warned of so far stands in its line, too.
            let emptied = File::options().write(true).open(log).and_then(|log| log.set_len(0));
            emptied.context(about).map(|()| ready)
        });
        match ready {
            Ok(ready) => Ok(Measurement { ready, child }),
            Err(error) => {
                // Until it is waited for, nobody else is given its id.
                let _ = child.kill();
                let _ = child.wait();
                Err(if error.is_cancelled() { error } else { explain(error, log) })
            }
        }
    }
}

/// Asks a process that samples to complete its file and end.
pub(super) fn end(identity: &Identity) -> Result<Ended> {
    identity.end(END_LIMIT)
}

/// The one line of JSON by which `measure --detach` tells who started it that it samples.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The process that samples.
    #[serde(flatten)]
    pub identity: Identity,
    /// From one sample to the next.
    pub interval_ns: u64,
    /// What was wished for and not granted, a sentence each.
    #[serde(default)]
    pub warnings: Vec<String>,
}

fn wait_until_ready(child: &mut Child, cancel: &Cancel) -> Result<Ready> {
    const LOOK_EVERY_MS: u8 = 100;
    const MOST_BYTES: usize = 1 << 20;
    let deadline = Instant::now().after(READY_LIMIT);
    let mut stdout = child.stdout.take().ok_or_else(|| Error::new("it has no standard output"))?;
    let (mut line, mut piece) = (Vec::new(), [0; 4096]);
    while !line.contains(&b'\n') {
        cancel.check()?;
        if Instant::now() >= deadline {
            let limit = READY_LIMIT.as_secs();
            return Err(Error::with_kind(Kind::Timeout, format!("it was not ready within {limit} s")));
        }
        let mut watched = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, LOOK_EVERY_MS) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(Error::new(format!("failed to wait for its first line: {error}"))),
        }
        let read = stdout.read(&mut piece).context(|| "failed to read its first line".to_string())?;
        line.extend_from_slice(&piece[..read]);
        if read == 0 || line.len() > MOST_BYTES {
            return Err(Error::new(match exit_status(child) {
                Some(status) => format!("it ended before it was ready: {status}"),
                None => "it did not say that it was ready".to_string(),
            }));
        }
    }
    let end = line.iter().position(|byte| *byte == b'\n').unwrap_or(line.len());
    serde_json::from_slice(&line[..end]).map_err(|error| {
        let line = String::from_utf8_lossy(&line[..end.min(300)]).into_owned();
        Error::new(format!("its first line is not understood ({error}): {line}"))
    })
}

/// How it ended, if it does soon.
fn exit_status(child: &mut Child) -> Option<std::process::ExitStatus> {
    let deadline = Instant::now().after(EXIT_LIMIT);
    while Instant::now() < deadline {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

/// The error that the process itself told of, if it did; else what is known, and what it said.
fn explain(error: Error, log: &Path) -> Error {
    let text = fs::read_to_string(log).unwrap_or_default();
    match text.lines().rev().find_map(|line| line.strip_prefix("sebs-lite: ")) {
        Some(told) => Error::new(told),
        None if text.trim().is_empty() => error,
        None => Error::new(format!("{error}; it said: {}", text.trim())),
    }
}

/// Are these the words of a process that samples into that file: SeBS's own, or ours?
fn samples_into(words: &[String], file: &Path) -> bool {
    let program = words.first().and_then(|word| Path::new(word).file_name()).unwrap_or_default();
    let ours =
        program.to_string_lossy().contains("sebs-lite") && words.get(1).is_some_and(|word| word == "measure");
    let sebs = words.iter().any(|word| Path::new(word).ends_with(SEBS_SAMPLER));
    (ours || sebs) && words.iter().any(|word| Path::new(word) == file)
}

/// Lets the process have none of the files that the caller itself was started with: the lock of a `flock` that a script
/// took would be held for as long as it samples. A kernel older than 5.11 lets it have them.
#[expect(unsafe_code, reason = "std has no other way to keep what was inherited from a child")]
fn keep_inherited_from(command: &mut Command) {
    let close = || {
        let (first, last): (libc::c_uint, libc::c_uint) = (3, libc::c_uint::MAX);
        // SAFETY: the call takes three numbers; the descriptors stay open until the program is replaced.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) };
        Ok(())
    };
    // SAFETY: between fork and exec there is but one system call, which neither allocates nor takes a lock.
    unsafe { command.pre_exec(close) };
}

/// The program at a path that still holds in another folder; a bare name is left to `PATH`.
fn absolute(program: &Path) -> Result<PathBuf> {
    if program.components().count() <= 1 {
        return Ok(program.to_path_buf());
    }
    std::path::absolute(program).context(|| format!("failed to find `{}`", program.display()))
}

fn log_of(file: &Path) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(".log");
    path.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::files::{self, Access, TempFolder};

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_string).collect()
    }

    #[test]
    fn a_sampler_is_known_by_its_words_and_its_file() {
        let file = Path::new("/tmp/a.txt");
        for line in [
            "python3 /x/sebs/local/measureMem.py --container-id ab --measurement-file /tmp/a.txt",
            "/usr/bin/sebs-lite measure --detach --measurement-file /tmp/a.txt",
        ] {
            assert!(samples_into(&words(line), file), "{line}");
            assert!(!samples_into(&words(line), Path::new("/tmp/b.txt")), "{line}");
        }
        for line in ["vi /tmp/a.txt", "vi measure /tmp/a.txt", "sebs-lite profile /tmp/a.txt", ""] {
            assert!(!samples_into(&words(line), file), "{line}");
        }
    }

    /// What starts, with a program that is this script; its arguments are those of `measure`.
    fn start(folder: &Path, script: &str, cancel: &Cancel) -> Result<Measurement> {
        let program = folder.join("program");
        files::write(&program, format!("#!/bin/sh\n{script}").as_bytes(), Access::Everyone).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let options = MeasurementOptions {
            program,
            interval: Duration::from_millis(1),
            file: folder.join("x.recording"),
            format: RecordingFormat::Recording,
            realtime: false,
            cpu: Some(1),
        };
        Measurement::start(&options, &["ab".to_string(), "cd".to_string()], cancel)
    }

    /// Prints the line for the shell itself.
    const READY: &str = "start=$(sed 's/.*)//' /proc/$$/stat | cut -d' ' -f21)\n\
        boot=$(cat /proc/sys/kernel/random/boot_id)\n\
        echo \"{\\\"pid\\\": $$, \\\"start_ticks\\\": $start, \\\"boot_id\\\": \\\"$boot\\\", \
        \\\"interval_ns\\\": 1000000, \\\"warnings\\\": [\\\"no\\\"]}\"\nexec >/dev/null\n";

    #[test]
    fn a_process_that_is_ready_is_known_and_ends_when_asked_to() {
        let folder = TempFolder::create().unwrap();
        let script =
            format!("echo \"$@\" >\"$(dirname \"$0\")/words\"\necho early >&2\n{READY}exec sleep 60\n");
        let mut started = start(folder.path(), &script, &Cancel::new()).unwrap();
        let identity = Identity::of(started.child.id() as i32).unwrap();
        let warnings = vec!["no".to_string()];
        assert_eq!(started.ready, Ready { identity: identity.clone(), interval_ns: 1_000_000, warnings });
        assert_eq!(files::read_text(&folder.path().join("x.recording.log")).unwrap(), "");
        let told = files::read_text(&folder.path().join("words")).unwrap();
        let file = folder.path().join("x.recording");
        assert_eq!(
            told,
            format!(
                "measure --detach --container-id ab --container-id cd --measure-interval 1000000ns --measurement-file {} \
                 --format recording --cpu 1\n",
                file.display()
            )
        );
        assert_eq!(end(&identity).unwrap(), Ended::Terminated);
        started.child.wait().unwrap();
    }

    #[test]
    fn one_that_fails_or_says_nothing_of_use_is_gone_and_the_error_is_its_own() {
        let folder = TempFolder::create().unwrap();
        let failed = |script: &str| start(folder.path(), script, &Cancel::new()).unwrap_err().to_string();
        let told = failed("echo warning: x >&2; echo 'sebs-lite: no such container' >&2; exit 1");
        assert!(told.ends_with("samples memory: no such container"), "{told}");
        assert!(failed("exit 7").contains("exit status: 7"));
        assert!(failed("echo hello; exec sleep 60").contains("not understood"));
        assert!(failed("exec >&-; exit 3").contains("exit status: 3"));
        assert!(!folder.path().join("x.recording.log").exists());
    }

    #[test]
    fn what_the_caller_was_started_with_is_not_kept_open() {
        let folder = TempFolder::create().unwrap();
        let lock = folder.path().join("lock");
        // Such a copy is open in every child.
        let _inherited = nix::unistd::dup(File::create(&lock).unwrap()).unwrap();
        let script = format!("ls -l /proc/self/fd >\"$(dirname \"$0\")/open\"\n{READY}exec sleep 60\n");
        let mut started = start(folder.path(), &script, &Cancel::new()).unwrap();
        let open = files::read_text(&folder.path().join("open")).unwrap();
        assert!(open.contains("/open") && !open.contains("/lock"), "{open}");
        started.child.kill().unwrap();
        started.child.wait().unwrap();
    }

    #[test]
    fn who_gives_up_waiting_leaves_no_process() {
        let folder = TempFolder::create().unwrap();
        let cancel = Cancel::new();
        let pid_file = folder.path().join("pid");
        let script = format!("echo $$ > {}\nexec sleep 60\n", pid_file.display());
        let pid = std::thread::scope(|scope| {
            let started = scope.spawn(|| start(folder.path(), &script, &cancel));
            let pid = loop {
                if let Ok(pid) = fs::read_to_string(&pid_file).unwrap_or_default().trim().parse::<i32>() {
                    break pid;
                }
                std::thread::sleep(Duration::from_millis(1));
            };
            cancel.trigger();
            assert!(started.join().unwrap().unwrap_err().is_cancelled());
            pid
        });
        assert!(Identity::of(pid).unwrap_err().is_not_found());
    }
}
