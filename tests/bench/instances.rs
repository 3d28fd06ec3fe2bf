//! What a cold start and a warm invocation cost over a bare client's, in turns in one run, and what many instances leave.
//!
//! `cargo bench --bench instances` prints medians in ms and µs, their ratios, and this program's resident memory while
//! 200 instances come and go (`--instances N`: another number).

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark is a program of its own")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use sebs_lite::benchmark::{Benchmark, Search};
use sebs_lite::cache::Cache;
use sebs_lite::cancel::Cancel;
use sebs_lite::docker::{ContainerSpec, Engine, HostConfig, LogConfig};
use sebs_lite::faas::{CodePackage, FunctionConfig, StartKind, System};
use sebs_lite::local::{BuildChoices, Local, LocalOptions, prepare};
use sebs_lite::progress::Progress;

const COLD_ROUNDS: usize = 25;
const WARM_ROUNDS: usize = 3_000;
const CODE: &str = "def handler(event):\n    return {'result': 1}\n";
const CONFIG: &str = r#"{"timeout": 20, "memory": 128, "languages": ["python"], "modules": []}"#;

fn main() {
    let folder = std::env::temp_dir().join(format!("sebs-lite-bench-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("bare/python")).unwrap();
    std::fs::write(folder.join("bare/config.json"), CONFIG).unwrap();
    std::fs::write(folder.join("bare/python/function.py"), CODE).unwrap();
    let cancel = Cancel::new();
    let engine = Engine::connect(&cancel).unwrap();
    let cache = Cache::open(&folder.join("cache"), &cancel).unwrap();
    let search = Search { roots: &[], data: None, extract_to: &folder.join("bundled") };
    let benchmark = Benchmark::find(folder.join("bare").to_str().unwrap(), &search).unwrap();
    let choices = BuildChoices::default();
    let package =
        prepare(&benchmark, &choices, &engine, &cache, &cancel, &Progress::quiet()).unwrap().package;
    let options = LocalOptions { keeps_connection: true, ..LocalOptions::default() };
    let mut local = Local::new(engine.clone(), cache, options, &cancel).unwrap();
    cold(&engine, &mut local, &package);
    warm(&mut local, &package);
    many(&mut local, &package);
    local.shutdown().unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}

/// From nothing to the first answer of the server: the platform's own time, and that of a client that only creates,
/// starts and asks.
fn cold(engine: &Engine, local: &mut Local, package: &CodePackage) {
    let config = FunctionConfig::from_package(package);
    let mut function = local.create_function(package, "sebs-lite-bench-cold", &config).unwrap();
    local.stop(&mut function).unwrap();
    let mut samples = [Vec::new(), Vec::new()];
    for round in 0..COLD_ROUNDS {
        samples[0].push(bare_start(engine, package, &config, round));
        let begin = Instant::now();
        local.ensure_instances(&mut function, 1).unwrap();
        samples[1].push(begin.elapsed());
        local.stop(&mut function).unwrap();
    }
    show("cold start", &mut samples, 1e3, "ms");
}

fn bare_start(engine: &Engine, package: &CodePackage, config: &FunctionConfig, round: usize) -> Duration {
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    let spec = ContainerSpec {
        image: package.image_id.clone(),
        cmd: ["/bin/bash", "/sebs/run_server.sh", "9000"].map(str::to_string).to_vec(),
        env: vec!["HOME=/tmp".to_string()],
        user: format!("{uid}:{gid}"),
        host_config: HostConfig {
            binds: vec![format!("{}:/function:ro", package.location.display())],
            memory: config.memory << 20,
            memory_swap: config.memory << 20,
            pids_limit: Some(config.pids_limit),
            network_mode: "bridge".to_string(),
            security_opt: vec!["no-new-privileges".to_string()],
            cap_drop: vec!["ALL".to_string()],
            log_config: Some(LogConfig::readable()),
            init: true,
            ..HostConfig::default()
        },
        ..ContainerSpec::default()
    };
    let begin = Instant::now();
    let name = format!("sebs-lite-bench-{}-{round}", std::process::id());
    let id = engine.create_container(&name, &spec).unwrap().id;
    engine.start_container(&id).unwrap();
    let inspected = engine.inspect_container(&id).unwrap();
    let address = SocketAddr::new(inspected.network_settings.address().unwrap().parse().unwrap(), 9000);
    while !answers(address) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = begin.elapsed();
    engine.remove_container(&id).unwrap();
    took
}

fn answers(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(250)) else {
        return false;
    };
    let request = format!("GET /alive HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut answer = [0; 64];
    stream.write_all(request.as_bytes()).is_ok() && stream.read(&mut answer).is_ok_and(|read| read > 0)
}

/// A round trip on a kept connection to one and the same instance, by the platform and by a raw socket.
fn warm(local: &mut Local, package: &CodePackage) {
    let config = FunctionConfig::from_package(package);
    let mut function = local.create_function(package, "sebs-lite-bench-warm", &config).unwrap();
    local.invoke(&mut function, "{}").unwrap();
    let mut raw = TcpStream::connect(function.instances[0].url.as_str()).unwrap();
    raw.set_nodelay(true).unwrap();
    let request =
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    let mut piece = [0; 64 * 1024];
    let (mut exchange, mut whole) = ([Vec::new(), Vec::new()], Vec::new());
    for _ in 0..WARM_ROUNDS {
        let begin = Instant::now();
        raw.write_all(request.as_bytes()).unwrap();
        assert!(raw.read(&mut piece).unwrap() > 0);
        exchange[0].push(begin.elapsed());
        let begin = Instant::now();
        let result = local.invoke(&mut function, "{}").unwrap();
        whole.push(begin.elapsed());
        assert!(!result.stats.failure && !result.stats.cold_start);
        exchange[1].push(Duration::from_micros(result.times.client));
    }
    let mut call = [exchange[0].clone(), whole];
    show("warm invocation, as it is measured", &mut exchange, 1e6, "µs");
    show("warm invocation, the whole call", &mut call, 1e6, "µs");
    local.stop(&mut function).unwrap();
}

fn many(local: &mut Local, package: &CodePackage) {
    let config = FunctionConfig::from_package(package);
    let mut function = local.create_function(package, "sebs-lite-bench-many", &config).unwrap();
    let count = std::env::args().skip_while(|word| word != "--instances").nth(1);
    let count: usize = count.map_or(200, |count| count.parse().unwrap());
    let invoker = local.invoker(&function);
    println!("{count} instances, one invocation each");
    for number in 1..=count {
        assert!(invoker.invoke("{}", StartKind::Cold).unwrap().stats.cold_start);
        if number == 1 || number % (count / 5).max(1) == 0 {
            let files = std::fs::read_dir("/proc/self/fd").unwrap().count();
            println!("  after {number:4}: {:6.1} MB resident, {files} files open", resident_kb() / 1e3);
        }
    }
    local.stop(&mut function).unwrap();
}

fn resident_kb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Prints the median of a bare client and that of the platform, and the ratio of the two.
fn show(what: &str, samples: &mut [Vec<Duration>; 2], per_second: f64, unit: &str) {
    let [bare, platform] = samples.each_mut().map(|times| {
        times.sort();
        times[times.len() / 2].as_secs_f64() * per_second
    });
    println!(
        "{what}: bare client {bare:.1} {unit}, platform {platform:.1} {unit}, ratio {:.3}",
        platform / bare
    );
}
