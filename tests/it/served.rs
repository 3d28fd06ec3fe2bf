//! A function that is deployed on the local platform by a test, and a gate that its handlers wait at.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use sebs_lite::benchmark::{Benchmark, Search};
use sebs_lite::cache::Cache;
use sebs_lite::cancel::Cancel;
use sebs_lite::docker::Engine;
use sebs_lite::faas::{CodePackage, Function, FunctionConfig, System};
use sebs_lite::local::{BuildChoices, Local, LocalOptions, prepare};
use sebs_lite::progress::Progress;

use crate::program::{self, Place};
use crate::support::{containers, unique};

/// A handler that says that it is at work by a connection to the gate, and goes on once it gets a byte; without a gate in
/// its event it does not wait.
pub(crate) const WAITS_AT_GATE: &str = "
import socket, struct

def gateway():
    for line in open('/proc/net/route').read().splitlines()[1:]:
        fields = line.split()
        if fields[1] == '00000000':
            return socket.inet_ntoa(struct.pack('<L', int(fields[2], 16)))

def handler(event):
    if event.get('gate'):
        with socket.create_connection((gateway(), event['gate']), timeout=120) as gate:
            gate.recv(1)
    return {'result': 'first'}
";

/// Where handlers wait.
pub(crate) struct Gate(TcpListener);

impl Gate {
    pub(crate) fn open() -> Gate {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Gate(listener)
    }

    /// The event of a handler that is to wait here.
    pub(crate) fn event(&self) -> String {
        format!("{{\"gate\": {}}}", self.port())
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// Waits until a handler waits.
    pub(crate) fn arrival(&self) -> TcpStream {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match self.0.accept() {
                Ok((stream, _)) => return stream,
                Err(error) => assert!(Instant::now() < deadline, "no handler came: {error}"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until so many handlers wait, all at the same time, and lets them go.
    pub(crate) fn let_through(&self, count: usize) {
        let waiting: Vec<TcpStream> = (0..count).map(|_| self.arrival()).collect();
        waiting.into_iter().for_each(let_go);
    }
}

pub(crate) fn let_go(mut waiting: TcpStream) {
    waiting.write_all(b"x").unwrap();
}

/// A function, and the platform that it is deployed on.
pub(crate) struct Served {
    pub(crate) place: Place,
    pub(crate) name: String,
    pub(crate) package: CodePackage,
    pub(crate) config: FunctionConfig,
    pub(crate) local: Local,
    pub(crate) function: Function,
}

impl Served {
    pub(crate) fn start(engine: &Engine, code: &str, options: LocalOptions) -> Served {
        let name = unique("served");
        let place = Place::create(&name);
        let (package, mut local) = prepared(engine, &place, code, options);
        let config = FunctionConfig { timeout: 120, ..FunctionConfig::from_package(&package) };
        let function = local.get_function(&package, Some(&name), &config).unwrap();
        Served { place, name, package, config, local, function }
    }

    /// The package with other code.
    pub(crate) fn other_package(&self, engine: &Engine, code: &str) -> CodePackage {
        prepared(engine, &self.place, code, LocalOptions::default()).0
    }

    pub(crate) fn containers(&self, engine: &Engine) -> Vec<String> {
        containers(engine, &self.name)
    }

    /// Ends the platform, after which there must be no container.
    pub(crate) fn end(mut self, engine: &Engine) {
        self.local.shutdown().unwrap();
        assert_eq!(self.containers(engine), [""; 0]);
    }
}

pub(crate) fn prepared(
    engine: &Engine,
    place: &Place,
    code: &str,
    options: LocalOptions,
) -> (CodePackage, Local) {
    let cancel = Cancel::new();
    let path = program::function(place, "function-of-a-test", code);
    let cache = Cache::open(&place.path("cache"), &cancel).unwrap();
    let extract_to = place.path("bundled");
    let search = Search { roots: &[], data: None, extract_to: &extract_to };
    let benchmark = Benchmark::find(&path, &search).unwrap();
    let prepared =
        prepare(&benchmark, &BuildChoices::default(), engine, &cache, &cancel, &Progress::quiet()).unwrap();
    (prepared.package, Local::new(engine.without_cancel(), cache, options, &cancel).unwrap())
}
