//! Real servers of objects and of tables in containers, and an independent client of both, for the tests of ours.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use sebs_lite::cancel::Cancel;
use sebs_lite::docker::{ContainerSpec, Engine, HostConfig, Lifetime, OwnedContainer, Owner, PortBinding};
use sebs_lite::storage::{DynamoClient, DynamoOptions, S3Client, S3Options};

use crate::support::{storage_image, unique};

pub(crate) const ACCESS_KEY: &str = "sebs-lite-test";
pub(crate) const SECRET_KEY: &str = "a secret that nobody may see";

/// What serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Objects.
    SeaweedFs,
    /// Objects, by MinIO's own code for HTTP, keys and errors.
    JuiceFs,
    /// Tables.
    Dynoxide,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::SeaweedFs => "seaweedfs",
            Kind::JuiceFs => "juicefs",
            Kind::Dynoxide => "dynoxide",
        }
    }

    fn spec(self) -> ContainerSpec {
        let (cmd, env): (&[&str], Vec<String>) = match self {
            Kind::SeaweedFs => (
                &["-s3.allowDeleteBucketNotEmpty=false"],
                vec![
                    format!("AWS_ACCESS_KEY_ID={ACCESS_KEY}"),
                    format!("AWS_SECRET_ACCESS_KEY={SECRET_KEY}"),
                    "GOMEMLIMIT=384MiB".to_string(),
                ],
            ),
            Kind::JuiceFs => (
                &["server", "/data"],
                vec![format!("MINIO_ROOT_USER={ACCESS_KEY}"), format!("MINIO_ROOT_PASSWORD={SECRET_KEY}")],
            ),
            Kind::Dynoxide => (&[], Vec::new()),
        };
        ContainerSpec {
            cmd: cmd.iter().map(ToString::to_string).collect(),
            env,
            host_config: HostConfig {
                tmpfs: BTreeMap::from([("/tmp".to_string(), String::new())]),
                ..HostConfig::default()
            },
            ..ContainerSpec::default()
        }
    }

    fn port(self) -> &'static str {
        if self == Kind::Dynoxide { "8000/tcp" } else { "9000/tcp" }
    }
}

/// A server of a test's own, removed when dropped.
pub(crate) struct Server {
    engine: Engine,
    kind: Kind,
    pub(crate) container: OwnedContainer,
    /// `host:port` for this host, which another start may change.
    pub(crate) address: String,
    /// `host:port` for other containers on the default bridge.
    pub(crate) inner_address: String,
}

impl Server {
    pub(crate) fn start(engine: &Engine, kind: Kind) -> Server {
        Server::start_with(engine, kind, |_| {})
    }

    /// A server whose container `change` has its say about.
    pub(crate) fn start_with(engine: &Engine, kind: Kind, change: impl FnOnce(&mut ContainerSpec)) -> Server {
        let binding = PortBinding { host_ip: "127.0.0.1".to_string(), host_port: String::new() };
        let mut spec = kind.spec();
        spec.image = storage_image(engine, kind.name());
        spec.exposed_ports = vec![kind.port().to_string()];
        spec.host_config.port_bindings = BTreeMap::from([(kind.port().to_string(), vec![binding])]);
        change(&mut spec);
        let owner = Owner::current().unwrap();
        let container = engine.create_owned(&owner, &Lifetime::Run, &unique(kind.name()), spec).unwrap();
        let mut server = Server {
            engine: engine.without_cancel(),
            kind,
            container,
            address: String::new(),
            inner_address: String::new(),
        };
        server.start_again();
        server
    }

    /// Starts what was killed, with the data that it had; waits until it can be used.
    pub(crate) fn start_again(&mut self) {
        self.engine.start_container(self.container.id()).unwrap();
        let network = self.engine.inspect_container(self.container.id()).unwrap().network_settings;
        let published = network.ports[self.kind.port()].as_ref().unwrap();
        self.address = format!("127.0.0.1:{}", published[0].host_port);
        let port = self.kind.port().trim_end_matches("/tcp");
        self.inner_address = format!("{}:{port}", network.address().unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Err(error) = self.try_use() {
            if Instant::now() > deadline {
                let logs = self.engine.container_logs(self.container.id(), Some(20)).unwrap();
                panic!("{:?} is not ready: {error}\n{}", self.kind, logs.combined());
            }
        }
    }

    /// Writes, where it can be written to: a server may answer long before.
    fn try_use(&self) -> sebs_lite::Result<()> {
        if self.kind == Kind::Dynoxide {
            return self.tables().list_tables().map(drop);
        }
        let client = self.objects();
        if !client.bucket_exists("ready")? {
            client.create_bucket("ready")?;
        }
        client.put_bytes("ready", "probe", b"1")?;
        client.clean_bucket("ready", "")?;
        client.remove_bucket("ready")
    }

    pub(crate) fn kill(&self) {
        self.engine.kill_container(self.container.id(), "KILL").unwrap();
    }

    pub(crate) fn remove(self) {
        self.container.remove().unwrap();
    }

    pub(crate) fn objects(&self) -> S3Client {
        S3Client::new(object_options(&self.address), &Cancel::new()).unwrap()
    }

    pub(crate) fn tables(&self) -> DynamoClient {
        DynamoClient::new(table_options(&self.address), &Cancel::new()).unwrap()
    }
}

pub(crate) fn object_options(address: &str) -> S3Options {
    S3Options {
        address: address.to_string(),
        access_key: ACCESS_KEY.to_string(),
        secret_key: SECRET_KEY.to_string(),
        region: "us-east-1".to_string(),
    }
}

pub(crate) fn table_options(address: &str) -> DynamoOptions {
    DynamoOptions {
        address: address.to_string(),
        access_key: ACCESS_KEY.to_string(),
        secret_key: SECRET_KEY.to_string(),
        region: "us-east-1".to_string(),
    }
}

/// What stands for the client that most people have, and what it needs itself.
const PYTHON_PACKAGES: [&str; 7] = [
    "boto3==1.44.5",
    "botocore==1.44.5",
    "jmespath==1.1.0",
    "python-dateutil==2.9.0.post0",
    "s3transfer==0.19.3",
    "six==1.17.0",
    "urllib3==2.8.0",
];

/// Runs a Python program that has boto3, `objects` and `tables`, clients of the server, and gives what it prints.
pub(crate) fn boto3(server: &Server, program: &str) -> String {
    let preamble = "import boto3, json, sys\n\
                    def client(name):\n    \
                        return boto3.client(name, endpoint_url='http://' + sys.argv[1], aws_access_key_id=sys.argv[2],\n        \
                            aws_secret_access_key=sys.argv[3], region_name='us-east-1')\n\
                    objects, tables = client('s3'), client('dynamodb')\n";
    let ran = Command::new(python())
        .args(["-c", &format!("{preamble}{program}"), &server.address, ACCESS_KEY, SECRET_KEY])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

/// The Python of an environment that has the packages, made once below `target`.
fn python() -> PathBuf {
    static MADE: Mutex<()> = Mutex::new(());
    let _alone = MADE.lock().unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(PYTHON_PACKAGES[0].replace("==", "-"));
    let python = folder.join("bin/python");
    let mark = folder.join("complete");
    if !mark.exists() {
        let run = |command: &mut Command| {
            let ran = command.output().unwrap();
            assert!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr));
        };
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
        let mut pip = Command::new(&python);
        run(pip.args(["-m", "pip", "install", "--quiet"]).args(PYTHON_PACKAGES));
        std::fs::write(mark, "").unwrap();
    }
    python
}

/// A port that passes connections on to a server, and what may happen to them on their way.
pub(crate) struct Proxy {
    /// `host:port`.
    pub(crate) address: String,
    road: Arc<(Mutex<Road>, Condvar)>,
    /// How many bytes came for the server.
    sent: Arc<AtomicU64>,
}

/// Where a proxy leads to.
struct Road {
    server: String,
    /// How many connections end at once before the next are kept waiting; `None`: the server is there.
    outage: Option<u32>,
}

/// What a proxy does with a piece of what comes, knowing how many bytes came before: `None` ends the connection.
pub(crate) type Meddle = fn(before: u64, piece: &mut [u8]) -> Option<()>;

/// The same for what has a memory.
pub(crate) trait Meddler: Fn(u64, &mut [u8]) -> Option<()> + Send + Sync + 'static {}

impl<F: Fn(u64, &mut [u8]) -> Option<()> + Send + Sync + 'static> Meddler for F {}

/// Changes nothing.
pub(crate) const PASS: Meddle = |_, _| Some(());

/// Ends the first connection on which the answer comes that an upload in parts is complete, and notes that it has.
pub(crate) fn cut_end(is_cut: &Arc<AtomicBool>) -> impl Meddler + use<> {
    let is_cut = is_cut.clone();
    move |_, piece: &mut [u8]| {
        let mark = b"CompleteMultipartUploadResult";
        let is_end = piece.windows(mark.len()).any(|window| window == mark);
        (!is_end || is_cut.swap(true, Ordering::Relaxed)).then_some(())
    }
}

impl Proxy {
    /// To the server, `forth` meddles with what is sent to it, and `back` with its answers.
    pub(crate) fn start(server: &str, forth: impl Meddler, back: impl Meddler) -> Proxy {
        let (forth, back) = (Arc::new(forth), Arc::new(back));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let [sent, received] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
        let road = Road { server: server.to_string(), outage: None };
        let road = Arc::new((Mutex::new(road), Condvar::new()));
        let proxy = Proxy { address, road: road.clone(), sent: sent.clone() };
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let near = near.unwrap();
                // Dropped where the server is gone: the client sees that the connection ends.
                let Some(far) = connect(&road) else { continue };
                let answer = (far.try_clone().unwrap(), near.try_clone().unwrap());
                let (sent, received) = (sent.clone(), received.clone());
                let (forth, back) = (forth.clone(), back.clone());
                std::thread::spawn(move || pass(answer, &received, &*back));
                std::thread::spawn(move || pass((near, far), &sent, &*forth));
            }
        });
        proxy
    }

    /// Ends as many new connections as a server would have that is gone for a while, and keeps those after them waiting
    /// until it is back.
    pub(crate) fn lead_nowhere(&self, connections: u32) {
        self.road.0.lock().unwrap().outage = Some(connections);
    }

    /// Leads to a server that was started again.
    pub(crate) fn lead_to(&self, server: &str) {
        *self.road.0.lock().unwrap() = Road { server: server.to_string(), outage: None };
        self.road.1.notify_all();
    }

    /// How many bytes came for the server.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until so many bytes came for the server, from somebody who is still at work.
    pub(crate) fn wait_for(&self, bytes: u64, is_at_work: impl Fn() -> bool) {
        wait_until(|| self.sent() >= bytes, is_at_work);
    }

    /// Waits until as many connections have ended as were to end, of somebody who is still at work.
    pub(crate) fn wait_for_outage(&self, is_at_work: impl Fn() -> bool) {
        wait_until(|| self.road.0.lock().unwrap().outage == Some(0), is_at_work);
    }
}

fn wait_until(is_so: impl Fn() -> bool, is_at_work: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline && is_at_work(), "it did not come to that");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A connection to the server, if it is there.
fn connect((road, is_changed): &(Mutex<Road>, Condvar)) -> Option<TcpStream> {
    let mut road = road.lock().unwrap();
    if let Some(left @ 1..) = &mut road.outage {
        *left -= 1;
        return None;
    }
    let road = is_changed.wait_while(road, |road| road.outage.is_some()).unwrap();
    TcpStream::connect(&road.server).ok()
}

fn pass((mut from, mut to): (TcpStream, TcpStream), passed: &AtomicU64, meddle: &impl Meddler) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(read) = from.read(&mut piece)
        && read > 0
        && meddle(passed.fetch_add(read as u64, Ordering::Relaxed), &mut piece[..read]).is_some()
        && to.write_all(&piece[..read]).is_ok()
    {}
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
