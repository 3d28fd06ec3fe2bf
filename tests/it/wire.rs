//! A function server as a process of this host, and a client that sends it any bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sebs_lite::faas::Language;
use sebs_lite::runtime;
use serde_json::Value;

use crate::support::Folder;

/// Long enough for the busiest machine: it ends a test that would hang.
const LIMIT: Duration = Duration::from_secs(60);

/// An interpreter of this host that a server is tested with.
#[derive(Debug)]
pub(crate) struct Interpreter {
    pub(crate) language: Language,
    pub(crate) version: String,
    executable: PathBuf,
}

/// Every Python that the server is made for. A host without one cannot run these tests.
pub(crate) fn pythons() -> &'static [Interpreter] {
    static FOUND: OnceLock<Vec<Interpreter>> = OnceLock::new();
    let found = FOUND.get_or_init(|| interpreters(Language::Python, &[3, 7]));
    assert!(!found.is_empty(), "these tests need a python3, 3.7 or later");
    found
}

/// Every Python, and every Node.js where there is one.
pub(crate) fn all() -> impl Iterator<Item = &'static Interpreter> {
    pythons().iter().chain(nodes())
}

/// Every Node.js that the server is made for; there may be none.
pub(crate) fn nodes() -> &'static [Interpreter] {
    static FOUND: OnceLock<Vec<Interpreter>> = OnceLock::new();
    FOUND.get_or_init(|| interpreters(Language::Nodejs, &[14]))
}

fn interpreters(language: Language, oldest: &[u32]) -> Vec<Interpreter> {
    runtime::host_interpreters(language)
        .filter(|found| found.numbers.as_slice() >= oldest)
        .map(|found| Interpreter { language, version: found.version(), executable: found.executable })
        .collect()
}

/// The code of a function in the languages that a test is run with.
#[derive(Clone, Copy)]
pub(crate) struct Code {
    pub(crate) python: &'static str,
    pub(crate) nodejs: &'static str,
}

/// A package, and how its server is started.
pub(crate) struct Setup<'a> {
    interpreter: &'a Interpreter,
    pub(crate) folder: Folder,
    /// The folder with `run_server.sh`.
    sebs: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl<'a> Setup<'a> {
    pub(crate) fn new(interpreter: &'a Interpreter, code: Code) -> Setup<'a> {
        let folder = Folder::create();
        let (name, program, text) = match interpreter.language {
            Language::Python => ("function.py", "python3", code.python),
            Language::Nodejs => ("function.js", "node", code.nodejs),
        };
        folder.put(&format!("package/function/{name}"), text);
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        std::os::unix::fs::symlink(&interpreter.executable, folder.path().join("bin").join(program)).unwrap();
        let sebs =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("src/runtime").join(interpreter.language.name());
        Setup { interpreter, folder, sebs, environment: Vec::new() }
    }

    pub(crate) fn env(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_string()));
        self
    }

    pub(crate) fn sebs(mut self, folder: PathBuf) -> Self {
        self.sebs = folder;
        self
    }

    /// Runs the interpreter itself, to its successful end.
    pub(crate) fn interpret(&self, arguments: &[&str]) {
        let status = Command::new(&self.interpreter.executable)
            .args(arguments)
            .current_dir(self.folder.path())
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Starts the server, and waits until it answers.
    pub(crate) fn start(self) -> Server {
        for _ in 0..5 {
            // Another process may take the port before the server does.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut server =
                Server { process: self.spawn(port), port, folder: None, about: self.interpreter.about() };
            if server.becomes_ready() {
                server.folder = Some(self.folder);
                return server;
            }
        }
        let log = std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default();
        panic!("{} does not answer: {log}", self.interpreter.about());
    }

    fn spawn(&self, port: u16) -> Child {
        let root = self.folder.path();
        let log = |name: &str| std::fs::File::create(root.join(name)).unwrap();
        let path = format!("{}:{}", root.join("bin").display(), std::env::var("PATH").unwrap());
        Command::new("/bin/bash")
            .arg(self.sebs.join("run_server.sh"))
            .arg(port.to_string())
            .current_dir("/")
            .env("PATH", path)
            .env("SEBS_LITE_FUNCTION_DIR", root.join("package"))
            .envs(self.environment.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null())
            .stdout(log("stdout"))
            .stderr(log("stderr"))
            .spawn()
            .unwrap()
    }
}

impl Interpreter {
    /// A call of the interpreter itself.
    pub(crate) fn command(&self) -> Command {
        Command::new(&self.executable)
    }

    /// What an assertion names.
    pub(crate) fn about(&self) -> String {
        format!("{} {} ({})", self.language, self.version, self.executable.display())
    }
}

/// A running server, killed when dropped.
pub(crate) struct Server {
    process: Child,
    port: u16,
    folder: Option<Folder>,
    pub(crate) about: String,
}

impl Server {
    fn becomes_ready(&mut self) -> bool {
        let start = Instant::now();
        while self.process.try_wait().unwrap().is_none() && start.elapsed() < LIMIT {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        false
    }

    pub(crate) fn connect(&self) -> Wire {
        self.connect_to("127.0.0.1")
    }

    pub(crate) fn connect_to(&self, address: &str) -> Wire {
        let address = SocketAddr::new(address.parse().unwrap(), self.port);
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Wire { reader: BufReader::new(stream) }
    }

    /// One invocation on a connection of its own: status and reply.
    pub(crate) fn invoke(&self, event: &str) -> (u16, Value) {
        self.connect().invoke(event)
    }

    /// The handler's return value for an event.
    pub(crate) fn output(&self, event: &str) -> Value {
        let (status, mut reply) = self.invoke(event);
        assert_eq!(status, 200, "{}: {reply}", self.about);
        reply["result"]["output"].take()
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder.as_ref().unwrap().path().join(below)
    }

    /// What it has written to `stdout` or `stderr` by now.
    pub(crate) fn log(&self, stream: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path(stream)).unwrap()).into_owned()
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.process.id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Waits for the end of the process: its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < LIMIT, "{} does not end", self.about);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the function has made a file below the folder.
    pub(crate) fn wait_for(&self, below: &str) {
        let start = Instant::now();
        while !self.path(below).exists() {
            assert!(start.elapsed() < LIMIT, "{}: no {below}: {}", self.about, self.log("stderr"));
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One connection.
pub(crate) struct Wire {
    reader: BufReader<TcpStream>,
}

/// What a server answers to one request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn has_header(&self, line: &str) -> bool {
        self.head.to_lowercase().lines().any(|found| found == line.to_lowercase())
    }
}

impl Wire {
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// A request with a body, and the length of it.
    pub(crate) fn send_request(&mut self, method: &str, path: &str, body: &[u8]) {
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        self.send([head.as_bytes(), body].concat());
    }

    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.send_request(method, path, body);
        self.answer()
    }

    pub(crate) fn invoke(&mut self, event: &str) -> (u16, Value) {
        let answer = self.ask("POST", "/", event.as_bytes());
        assert!(answer.has_header("content-type: application/json"), "{answer:?}");
        (answer.status, answer.json())
    }

    /// The next answer, whose length must be given unless it is an interim one.
    pub(crate) fn answer(&mut self) -> Answer {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(self.reader.read_line(&mut head).unwrap(), 0, "the connection ended after: {head:?}");
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
        });
        assert!(length.is_some() || status == 100, "{head}");
        let mut body = vec![0; length.unwrap_or(0)];
        self.reader.read_exact(&mut body).unwrap();
        Answer { status, head, body }
    }

    /// What one `read` of the socket gives.
    pub(crate) fn read_once(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 64 * 1024];
        let length = self.reader.get_mut().read(&mut bytes).unwrap();
        bytes.truncate(length);
        bytes
    }

    /// Has the server ended the connection in good order, with nothing more to say?
    pub(crate) fn is_ended(&mut self) -> bool {
        self.reader.fill_buf().is_ok_and(<[u8]>::is_empty)
    }
}
