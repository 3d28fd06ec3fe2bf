//! The Python process that runs an `input.py`, and the lines of JSON that we talk with it.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Benchmark;
use super::command::{Group, last_lines, shown};
use super::installer;
use super::layout::log_line;
use crate::cancel::Cancel;
use crate::docker::{ContainerSpec, Engine, Lifetime, OwnedContainer, Owner};
use crate::error::{Context, Error, Kind, Result};
use crate::files::{self, Access, TempFolder};
use crate::runtime::RuntimeImage;

const SCRIPT: &str = include_str!("input_worker.py");
/// How often a wait looks at the cancel token.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the process may take until it has connected, on a machine that is busy.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long the process may take to end once it has nothing more to do.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// The Python that runs an `input.py`.
#[derive(Clone, Debug)]
pub(super) enum Interpreter<'a> {
    /// A program of this host.
    Program(PathBuf),
    /// `python3` in a container.
    Image { engine: &'a Engine, image: RuntimeImage },
}

/// A running process, connected to us.
#[derive(Debug)]
pub(super) struct Worker {
    // Fields are dropped in this order: the process ends before its folder goes.
    stream: UnixStream,
    received: Vec<u8>,
    process: Process,
    /// What to call the interpreter in an error.
    pub(super) interpreter: String,
    folder: TempFolder,
    shown_bytes: usize,
    cancel: Cancel,
    verbose: bool,
}

#[derive(Debug)]
enum Process {
    Host(Group),
    Container(Box<Engine>, OwnedContainer),
}

/// What comes from the process.
#[derive(Debug)]
pub(super) enum Message {
    /// It asks us to do something, with these arguments as it wrote them, and waits for the answer.
    Callback(String, Box<RawValue>),
    /// Its call's result.
    Result(Value),
    /// The lines that say what went wrong in it, and the module that it has not.
    Failure(Vec<String>, Option<String>),
}

impl Worker {
    /// Starts the process, and has it load `script`.
    pub(super) fn start(
        benchmark: &Benchmark,
        interpreter: Interpreter<'_>,
        cancel: &Cancel,
        verbose: bool,
    ) -> Result<Worker> {
        let folder = TempFolder::create()?;
        let at = |name: &str| folder.path().join(name);
        files::write(&at("input_worker.py"), SCRIPT.as_bytes(), Access::Owner)?;
        files::create_folder(&at("root"))?;
        if let Some(data) = &benchmark.data_root {
            let link = at("root/benchmarks-data");
            symlink(data, &link).context(|| format!("failed to make link `{}`", link.display()))?;
        }
        let socket = at("socket");
        let about = || format!("failed to listen on `{}`", socket.display());
        let listener = UnixListener::bind(&socket).context(about)?;
        listener.set_nonblocking(true).context(about)?;
        let arguments = [at("input_worker.py"), socket.clone(), at("output")];
        let (mut process, interpreter) = match interpreter {
            Interpreter::Program(python) => {
                let shown = python.display().to_string();
                (start_on_host(&python, &arguments, folder.path())?, shown)
            }
            Interpreter::Image { engine, image } => {
                let shown = format!("the image `{}`", image.reference);
                (start_in_container(engine, &image, benchmark, &arguments, folder.path())?, shown)
            }
        };
        let deadline = Instant::now() + START_LIMIT;
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context(about),
            }
            cancel.check()?;
            if let Some(status) = process.ended()? {
                let lines = process.output(&at("output"));
                return Err(Error::new(format!("{interpreter} ended with {status}{}", last_lines(&lines))));
            }
            if Instant::now() > deadline {
                let message = format!("{interpreter} did not start within {} s", START_LIMIT.as_secs());
                return Err(Error::with_kind(Kind::Timeout, message));
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(Some(LOOK_EVERY)))
            .context(about)?;
        let (received, cancel) = (Vec::new(), cancel.clone());
        Ok(Worker { stream, received, process, interpreter, folder, shown_bytes: 0, cancel, verbose })
    }

    /// The first message: what to load.
    pub(super) fn load(&mut self, script: &Path, benchmark: &Benchmark) -> Result<Message> {
        let project_root = self.folder.path().join("root");
        self.send(&json!({ "script": script, "data": benchmark.data, "project_root": project_root }))?;
        self.receive()
    }

    pub(super) fn send(&mut self, message: &Value) -> Result<()> {
        let line = format!("{message}\n");
        match self.stream.write_all(line.as_bytes()) {
            Ok(()) => Ok(()),
            // The process is gone, and `receive` says how.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            Err(error) => {
                Err(error).context(|| "failed to talk to the process that runs `input.py`".to_string())
            }
        }
    }

    /// The next message; what the script printed until then is logged.
    pub(super) fn receive(&mut self) -> Result<Message> {
        let line = self.receive_line();
        self.show_output();
        parse(&line?)
    }

    fn receive_line(&mut self) -> Result<Vec<u8>> {
        let mut piece = [0; 65536];
        let mut searched = 0;
        loop {
            if let Some(end) = self.received[searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.received.split_off(searched + end + 1);
                return Ok(std::mem::replace(&mut self.received, rest));
            }
            searched = self.received.len();
            self.cancel.check()?;
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(self.death()),
                Ok(count) => self.received.extend_from_slice(&piece[..count]),
                Err(error) if is_try_again(error.kind()) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(self.death()),
                Err(error) => {
                    return Err(error)
                        .context(|| "failed to talk to the process that runs `input.py`".to_string());
                }
            }
        }
    }

    /// The process closed its end, so it is about to end.
    fn death(&mut self) -> Error {
        let deadline = Instant::now() + STOP_LIMIT;
        let status = loop {
            match self.process.ended() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
                Ok(None) => break "no answer".to_string(),
                Err(error) => return error,
            }
        };
        let lines = self.process.output(&self.folder.path().join("output"));
        Error::new(format!("the process that runs `input.py` ended with {status}{}", last_lines(&lines)))
    }

    fn show_output(&mut self) {
        let output = fs::read(self.folder.path().join("output")).unwrap_or_default();
        let new = output.get(self.shown_bytes..).unwrap_or_default();
        let new = String::from_utf8_lossy(new).into_owned();
        self.shown_bytes = output.len();
        new.lines().for_each(|line| log_line(self.verbose, "input.py", line));
    }

    /// Ends the process, which has nothing more to do.
    pub(super) fn stop(mut self) -> Result<()> {
        // At the end of its input it ends by itself.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        let deadline = Instant::now() + STOP_LIMIT;
        while self.process.ended()?.is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.show_output();
        match self.process {
            Process::Host(group) => drop(group),
            Process::Container(_, container) => container.remove()?,
        }
        Ok(())
    }
}

impl Process {
    /// How it ended; `None`: it runs.
    fn ended(&mut self) -> Result<Option<String>> {
        match self {
            Process::Host(group) => {
                let status = group.0.try_wait().context(|| "failed to wait for a process".to_string())?;
                Ok(status.map(|status| status.to_string()))
            }
            Process::Container(engine, container) => {
                let state = engine.inspect_container(container.id())?.state;
                Ok((!state.running).then(|| format!("exit status: {}", state.exit_code)))
            }
        }
    }

    /// The lines that it printed, to its file or before it opened that.
    fn output(&self, path: &Path) -> Vec<String> {
        let mut text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        if let (Process::Container(engine, container), true) = (self, text.is_empty())
            && let Ok(logs) = engine.container_logs(container.id(), Some(20))
        {
            text = logs.combined();
        }
        text.lines().map(str::to_string).collect()
    }
}

fn start_on_host(python: &Path, arguments: &[PathBuf], folder: &Path) -> Result<Process> {
    let about = || format!("failed to start `{}`", python.display());
    let output = fs::File::create(folder.join("output")).context(about)?;
    let errors = output.try_clone().context(about)?;
    let mut command = Command::new(python);
    command.args(arguments).current_dir(folder).env("TMPDIR", folder).process_group(0);
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    log::debug!("running {}", shown(&command));
    Ok(Process::Host(Group(command.spawn().context(about)?)))
}

/// Every path that both sides speak of is mounted where it is on the host.
fn start_in_container(
    engine: &Engine,
    image: &RuntimeImage,
    benchmark: &Benchmark,
    arguments: &[PathBuf],
    folder: &Path,
) -> Result<Process> {
    let mut binds =
        vec![format!("{0}:{0}", folder.display()), format!("{0}:{0}:ro", benchmark.path.display())];
    binds.extend(benchmark.data_root.iter().map(|data| format!("{0}:{0}:ro", data.display())));
    let spec = ContainerSpec {
        image: image.id.clone(),
        entrypoint: Some(vec!["python3".to_string()]),
        cmd: arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect(),
        env: vec![format!("TMPDIR={}", folder.display()), "HOME=/tmp".to_string()],
        user: engine.info()?.caller(),
        working_dir: folder.to_string_lossy().into_owned(),
        host_config: installer::confined(binds),
        ..ContainerSpec::default()
    };
    let name = format!("sebs-lite-input-{}", files::random_hex(12));
    let container = engine.create_owned(&Owner::current()?, &Lifetime::Run, &name, spec)?;
    engine.start_container(container.id())?;
    Ok(Process::Container(Box::new(engine.clone()), container))
}

fn parse(line: &[u8]) -> Result<Message> {
    let broken = || Error::new("the process that runs `input.py` sent what is not a message");
    #[derive(Deserialize)]
    struct Call {
        callback: String,
        arguments: Box<RawValue>,
    }
    // Numbers keep the digits that JSON's own values have not.
    if let Ok(Call { callback, arguments }) = serde_json::from_slice(line) {
        return Ok(Message::Callback(callback, arguments));
    }
    let message: Value = serde_json::from_slice(line).map_err(|_| broken())?;
    let text_of = |value: &Value| value.as_str().map(str::to_string);
    if let Some(error) = message.get("error") {
        let lines = error["lines"].as_array().ok_or_else(broken)?;
        return Ok(Message::Failure(
            lines.iter().filter_map(text_of).collect(),
            text_of(&error["missing_module"]),
        ));
    }
    Ok(Message::Result(message.get("result").ok_or_else(broken)?.clone()))
}

fn is_try_again(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart() {
        let callback = parse(br#"{"callback": "upload", "arguments": [0, "k", "/f"]}"#).unwrap();
        assert!(
            matches!(callback, Message::Callback(name, arguments) if name == "upload" && arguments.get() == r#"[0, "k", "/f"]"#)
        );
        assert!(matches!(parse(br#"{"result": null}"#).unwrap(), Message::Result(Value::Null)));
        let failure = parse(br#"{"error": {"lines": ["a", "b"], "missing_module": "PIL"}}"#).unwrap();
        assert!(
            matches!(failure, Message::Failure(lines, Some(module)) if lines == ["a", "b"] && module == "PIL")
        );
        assert!(parse(b"{}").is_err() && parse(b"x").is_err());
    }
}
