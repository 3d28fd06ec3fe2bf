//! What a cold start and a warm invocation cost over a bare client's, in turns in one run, and what many instances leave.
//!
//! `cargo bench --bench instances` prints medians in ms and µs, their ratios, and this program's resident memory while
//! 200 instances come and go (`--instances N`: another number). `cargo bench --bench instances -- warm` is that part alone.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark is a program of its own")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use sebs_lite::benchmark::{Benchmark, Search};
use sebs_lite::cache::Cache;
use sebs_lite::cancel::Cancel;
use sebs_lite::cgroup::Memory;
use sebs_lite::docker::{ContainerSpec, Engine, HostConfig, LogConfig};
use sebs_lite::faas::{CodePackage, FunctionConfig, StartKind, System};
use sebs_lite::local::{BuildChoices, HttpTrigger, Local, LocalOptions, TriggerOptions, prepare};
use sebs_lite::progress::Progress;

const PARTS: [&str; 3] = ["cold", "warm", "many"];
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
    // `warm`, say, for that part alone.
    let is_asked = |part: &str| {
        let mut asked = std::env::args().skip(1).filter(|word| PARTS.contains(&word.as_str())).peekable();
        asked.peek().is_none() || asked.any(|word| word == part)
    };
    if is_asked("cold") {
        cold(&engine, &mut local, &package);
    }
    if is_asked("warm") {
        warm(&engine, &mut local, &package);
    }
    if is_asked("many") {
        many(&mut local, &package);
    }
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
    let [bare, platform] = samples.each_mut().map(|times| median(times) * 1e3);
    println!("cold start: bare client {bare:.1} ms, platform {platform:.1} ms, ratio {:.3}", platform / bare);
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

/// A round trip on a kept connection to one and the same instance: by a raw socket, by the trigger alone, and by the
/// platform. They take turns, and who is first does, too: who comes after a pause finds colder caches.
fn warm(engine: &Engine, local: &mut Local, package: &CodePackage) {
    let config = FunctionConfig::from_package(package);
    let mut function = local.create_function(package, "sebs-lite-bench-warm", &config).unwrap();
    local.invoke(&mut function, "{}").unwrap();
    let address = function.instances[0].url.parse().unwrap();
    let mut raw = TcpStream::connect(address).unwrap();
    raw.set_nodelay(true).unwrap();
    let options = TriggerOptions {
        timeout: None,
        keeps_connection: true,
        max_payload: LocalOptions::default().max_payload,
    };
    let mut trigger = HttpTrigger::new(address, options, &Cancel::new());
    let mut exchange = Vec::new();
    let mut times: [Vec<Duration>; 3] = Default::default();
    for round in 0..WARM_ROUNDS {
        for turn in 0..3 {
            let who = (round + turn) % 3;
            let begin = Instant::now();
            let result = match who {
                0 => {
                    round_trip(&mut raw);
                    None
                }
                1 => Some(trigger.sync_invoke("{}").unwrap().0),
                _ => Some(local.invoke(&mut function, "{}").unwrap()),
            };
            times[who].push(begin.elapsed());
            if let Some(result) = result {
                assert!(!result.stats.failure && !result.stats.cold_start);
                exchange.push(Duration::from_micros(result.times.client));
            }
        }
    }
    let [raw, trigger, whole] = times.each_mut().map(|times| median(times) * 1e6);
    println!("warm invocation, medians of {WARM_ROUNDS} rounds at a load of {}", load());
    println!("  a round trip by a raw socket         {raw:6.1} µs");
    for (what, took) in [
        ("the exchange, as it is measured", median(&mut exchange) * 1e6),
        ("the trigger, which takes in the reply", trigger),
        ("the whole call", whole),
    ] {
        println!("  {what:36} {took:7.1} µs, ratio {:.3}", took / raw);
    }
    let id = &function.instances[0].instance_id;
    let pid = i32::try_from(engine.inspect_container(id).unwrap().state.pid).unwrap();
    let counters = Memory::of_process(pid, Some(id)).unwrap();
    let usage = alone(|| drop((counters.cpu().unwrap(), counters.oom_kills().unwrap())));
    let peak = alone(|| drop(counters.peak().unwrap()));
    let reset = alone(|| drop(counters.reset_peak().unwrap()));
    println!(
        "  of which, by themselves: processor time and kills {usage:.2} µs, twice; the kernel's peak {peak:.2} µs, \
         twice; its reset {reset:.2} µs"
    );
    local.stop(&mut function).unwrap();
}

fn round_trip(stream: &mut TcpStream) {
    let request =
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    stream.write_all(request.as_bytes()).unwrap();
    assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
}

/// Median of a job's time in µs, with nothing in between.
fn alone(job: impl Fn()) -> f64 {
    let mut times: Vec<Duration> = (0..WARM_ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            job();
            begin.elapsed()
        })
        .collect();
    median(&mut times) * 1e6
}

/// How many processes wanted a processor in the last minute.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap();
    text.split(' ').next().unwrap().to_string()
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

/// In seconds.
fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}
