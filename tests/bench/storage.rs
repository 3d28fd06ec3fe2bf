//! How fast objects and items are stored and read: our clients beside boto3 and minio-py, in turns, on the same servers.
//!
//! `cargo bench --bench storage` needs a Docker engine, Python 3 and PyPI. It prints, for each step, client and number
//! of threads, how many operations a second there were, the best of its rounds. `-- OBJECTS ITEMS` sets how many.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark is a program of its own")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use sebs_lite::cancel::Cancel;
use sebs_lite::docker::{ContainerSpec, Engine, HostConfig, Lifetime, OwnedContainer, Owner, PortBinding};
use sebs_lite::storage::{DynamoClient, DynamoOptions, Item, S3Client, S3Options, item_from_json};

const ACCESS_KEY: &str = "sebs-lite-bench";
const SECRET_KEY: &str = "a key for a benchmark";
const PACKAGES: [&str; 3] = ["boto3==1.44.5", "botocore==1.44.5", "minio==7.2.20"];
const ROUNDS: usize = 2;
const THREADS: [usize; 2] = [1, 4];
/// The size of an object.
const BYTES: usize = 1024;

/// The same steps for Python's clients: `PROGRAM WHAT ADDRESS ACCESS SECRET COUNT THREADS` prints a name and the seconds
/// of each step, one a line.
const OTHERS: &str = include_str!("storage.py");

/// What is measured: operations a second by the names of step, client and number of threads.
type Rates = BTreeMap<(String, String, usize), f64>;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let (objects, items) = (numbers.next().unwrap_or(10_000), numbers.next().unwrap_or(5_000));
    let engine = Engine::connect(&Cancel::new()).unwrap();
    let python = python();
    let mut rates = Rates::new();
    for (name, count) in [("seaweedfs", objects), ("juicefs", objects), ("dynoxide", items)] {
        let (container, address) = start(&engine, name);
        let mut note = |client: &str, threads: usize, step: &str, seconds: f64| {
            let rate = rates.entry((format!("{name} {step}"), client.to_string(), threads)).or_default();
            *rate = rate.max(count as f64 / seconds);
        };
        for threads in THREADS {
            for _ in 0..ROUNDS {
                let steps = match name {
                    "dynoxide" => tables(&address, count, threads),
                    _ => self::objects(&address, count, threads),
                };
                steps.into_iter().for_each(|(step, seconds)| note("sebs-lite", threads, step, seconds));
                let others: &[&str] = if name == "dynoxide" { &["boto3"] } else { &["boto3", "minio-py"] };
                for client in others {
                    let kind = if name == "dynoxide" { "tables" } else { client };
                    let output = Command::new(&python)
                        .args(["-c", OTHERS, kind, &address, ACCESS_KEY, SECRET_KEY])
                        .args([count.to_string(), threads.to_string(), BYTES.to_string()])
                        .output()
                        .unwrap();
                    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                    for line in String::from_utf8(output.stdout).unwrap().lines() {
                        let (step, seconds) = line.split_once(' ').unwrap();
                        note(client, threads, step, seconds.parse().unwrap());
                    }
                }
            }
        }
        container.remove().unwrap();
    }
    print(&rates, objects, items);
}

fn print(rates: &Rates, objects: usize, items: usize) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let count = std::thread::available_parallelism().unwrap();
    println!(
        "machine: {count} × {}, load {}",
        model.trim_matches(['\t', ':', ' ']),
        read("/proc/loadavg").trim()
    );
    println!(
        "{objects} objects of {BYTES} bytes, {items} items; operations a second, best of {ROUNDS} rounds"
    );
    println!("{:28} {:>7} {:>10} {:>10} {:>10}", "step", "threads", "sebs-lite", "boto3", "minio-py");
    let mut steps: Vec<(&String, usize)> = rates.keys().map(|(step, _, threads)| (step, *threads)).collect();
    steps.dedup();
    steps.sort();
    steps.dedup();
    for (step, threads) in steps {
        let [ours, boto3, minio] = ["sebs-lite", "boto3", "minio-py"].map(|client| {
            rates
                .get(&(step.clone(), client.to_string(), threads))
                .map_or("-".into(), |rate| format!("{rate:.0}"))
        });
        println!("{step:28} {threads:>7} {ours:>10} {boto3:>10} {minio:>10}");
    }
}

/// A Python environment with the other clients, made once below `target`.
fn python() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-storage-python");
    let python = folder.join("bin/python");
    if !folder.join("complete").exists() {
        let mut venv = Command::new("python3");
        assert!(venv.args(["-m", "venv", "--clear"]).arg(&folder).status().unwrap().success());
        let mut pip = Command::new(&python);
        assert!(pip.args(["-m", "pip", "install", "--quiet"]).args(PACKAGES).status().unwrap().success());
        std::fs::write(folder.join("complete"), "").unwrap();
    }
    python
}

/// A server whose data is in memory, since the disk is nobody's merit here; once it can be used.
fn start(engine: &Engine, name: &str) -> (OwnedContainer, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/storage-images");
    let made = Command::new(script).args(["--cache", env!("CARGO_TARGET_TMPDIR"), name]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let port = if name == "dynoxide" { "8000/tcp" } else { "9000/tcp" };
    let binding = PortBinding { host_ip: "127.0.0.1".to_string(), host_port: String::new() };
    let spec = ContainerSpec {
        image: String::from_utf8(made.stdout).unwrap().trim().to_string(),
        cmd: if name == "juicefs" { vec!["server".to_string(), "/data".to_string()] } else { Vec::new() },
        env: vec![
            format!("AWS_ACCESS_KEY_ID={ACCESS_KEY}"),
            format!("AWS_SECRET_ACCESS_KEY={SECRET_KEY}"),
            format!("MINIO_ROOT_USER={ACCESS_KEY}"),
            format!("MINIO_ROOT_PASSWORD={SECRET_KEY}"),
        ],
        exposed_ports: vec![port.to_string()],
        host_config: HostConfig {
            port_bindings: BTreeMap::from([(port.to_string(), vec![binding])]),
            tmpfs: ["/tmp", "/data"].map(|path| (path.to_string(), "mode=1777".to_string())).into(),
            ..HostConfig::default()
        },
        ..ContainerSpec::default()
    };
    let owner = Owner::current().unwrap();
    let full = format!("sebs-lite-bench-{name}-{}", std::process::id());
    let container = engine.create_owned(&owner, &Lifetime::Run, &full, spec).unwrap();
    engine.start_container(container.id()).unwrap();
    let inspected = engine.inspect_container(container.id()).unwrap();
    let published = inspected.network_settings.ports[port].as_ref().unwrap();
    let address = format!("127.0.0.1:{}", published[0].host_port);
    let deadline = Instant::now() + std::time::Duration::from_secs(60);
    let is_ready = || match name {
        "dynoxide" => dynamo(&address).list_tables().is_ok(),
        _ => {
            s3(&address).create_bucket("bench").is_ok() && s3(&address).put_bytes("bench", "x", b"x").is_ok()
        }
    };
    while !is_ready() {
        assert!(Instant::now() < deadline, "{name} is not ready");
        let _ = s3(&address).remove_bucket("bench");
    }
    (container, address)
}

fn s3(address: &str) -> S3Client {
    let options = S3Options {
        address: address.to_string(),
        access_key: ACCESS_KEY.to_string(),
        secret_key: SECRET_KEY.to_string(),
        region: "us-east-1".to_string(),
    };
    S3Client::new(options, &Cancel::new()).unwrap()
}

fn dynamo(address: &str) -> DynamoClient {
    let options = DynamoOptions {
        address: address.to_string(),
        access_key: ACCESS_KEY.to_string(),
        secret_key: SECRET_KEY.to_string(),
        region: "us-east-1".to_string(),
    };
    DynamoClient::new(options, &Cancel::new()).unwrap()
}

fn seconds(step: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    step();
    begin.elapsed().as_secs_f64()
}

/// Does `each` for all of `list`, a part of it on each thread.
fn spread<T: Sync>(list: &[T], threads: usize, each: impl Fn(&T) + Sync) {
    std::thread::scope(|scope| {
        for part in list.chunks(list.len().div_ceil(threads)) {
            let each = &each;
            scope.spawn(move || part.iter().for_each(each));
        }
    });
}

fn objects(address: &str, count: usize, threads: usize) -> Vec<(&'static str, f64)> {
    let client = s3(address);
    client.clean_bucket("bench", "").unwrap();
    let keys: Vec<String> = (0..count).map(|number| format!("folder/{number:06}")).collect();
    let content = [b'x'; BYTES];
    let put = seconds(|| spread(&keys, threads, |key| client.put_bytes("bench", key, &content).unwrap()));
    let get = seconds(|| {
        spread(&keys, threads, |key| assert_eq!(client.get_bytes("bench", key, 4096).unwrap().len(), BYTES));
    });
    let list = seconds(|| assert_eq!(client.list("bench", "folder/").unwrap().len(), count));
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    let delete = seconds(|| client.delete_many("bench", &names).unwrap());
    vec![("put", put), ("get", get), ("list", list), ("delete", delete)]
}

fn tables(address: &str, count: usize, threads: usize) -> Vec<(&'static str, f64)> {
    let client = dynamo(address);
    if client.table_exists("bench").unwrap() {
        client.delete_table("bench").unwrap();
    }
    client.create_table("bench", "id", Some("at")).unwrap();
    let text = "x".repeat(200);
    let item = |n: usize| format!(r#"{{"id":"{}","at":"{n:06}","number":{n},"text":"{text}"}}"#, n % 7);
    let items: Vec<Item> = (0..count).map(|number| item_from_json(&item(number)).unwrap()).collect();
    let key = |item: &Item| Item::from(["id", "at"].map(|name| (name.to_string(), item[name].clone())));
    let keys: Vec<Item> = items.iter().map(key).collect();
    let put = seconds(|| spread(&items, threads, |item| client.put_item("bench", item).unwrap()));
    let get =
        seconds(|| spread(&keys, threads, |key| assert!(client.get_item("bench", key).unwrap().is_some())));
    let scan = seconds(|| assert_eq!(client.scan("bench").unwrap().len(), count));
    let parts: Vec<&[Item]> = items.chunks(count.div_ceil(threads)).collect();
    let batch = seconds(|| spread(&parts, threads, |part| client.write_batch("bench", part).unwrap()));
    vec![("put", put), ("get", get), ("scan", scan), ("batch", batch)]
}
