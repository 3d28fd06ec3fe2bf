//! How many ticks the probe takes, how late and at what cost, beside the bare system call and a shell for each sample.
//!
//! `cargo bench --bench probe` samples a cgroup counter of this machine, opened as often as there are targets. Each case
//! is a process of its own, so that its memory is. The last column says what all other processes used meanwhile:
//! figures are worth comparing only where it is small. `SEBS_LITE_BENCH_SECONDS` sets the length of a case (3).

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark is a program of its own")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};
use sebs_lite::probe::{Output, Probe, ProbeOptions, Target};
use serde::{Deserialize, Serialize};

const CASE: &str = "SEBS_LITE_BENCH_CASE";

const INTERVALS_US: [u64; 4] = [10_000, 1_000, 100, 50];

/// Reads of one measurement of the bare call.
const BARE_READS: u32 = 200_000;

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Case {
    interval_us: u64,
    targets: usize,
    realtime: bool,
}

#[derive(Serialize, Deserialize)]
struct Figures {
    planned: u64,
    taken: u64,
    lost: u64,
    late_p50_ns: u64,
    late_p99_ns: u64,
    late_max_ns: u64,
    seconds: f64,
    sampler_cpu_ns: u64,
    writer_cpu_ns: u64,
    file_bytes: u64,
    rss_kib: u64,
    policy: String,
}

fn main() {
    if let Ok(case) = std::env::var(CASE) {
        println!("{}", serde_json::to_string(&run(serde_json::from_str(&case).unwrap())).unwrap());
        return;
    }
    println!("counter  {}", counter().display());
    println!("load     {}", fs::read_to_string("/proc/loadavg").unwrap().trim());
    println!("\nbare pread in a tight loop, CPU a call");
    let bare_ns = [1, 16, 64].map(|descriptors| {
        let nanoseconds = bare_read_ns(descriptors);
        println!("  {descriptors:2} descriptors {nanoseconds:6.0} ns");
        nanoseconds
    });
    println!(
        "\n× bare: of that; × grid: of the same timer and the same reads on the same grid, and nothing else"
    );
    println!(
        "\ninterval targets    ticks lateness p50     p99      max  sampler  writer   CPU a sample (× bare, × grid)  bytes a sample   RSS  others"
    );
    let mut grids_ns = BTreeMap::new();
    for realtime in [false, true] {
        println!("{}", if realtime { "SCHED_FIFO, memory locked" } else { "without rights" });
        for (targets, bare_ns) in [1, 16, 64].into_iter().zip(bare_ns) {
            for interval_us in INTERVALS_US {
                let case = Case { interval_us, targets, realtime };
                let grid = grids_ns.entry((targets, interval_us));
                let grid_ns =
                    *grid.or_insert_with(|| bare_grid_ns(targets, Duration::from_micros(interval_us)));
                show(case, bare_ns, grid_ns);
            }
        }
    }
    println!("\na shell for each sample (`sh -c 'cat …'`), one target");
    for interval_us in INTERVALS_US {
        shell(Duration::from_micros(interval_us));
    }
}

fn show(case: Case, bare_ns: f64, grid_ns: f64) {
    let others = Others::begin();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.env(CASE, serde_json::to_string(&case).unwrap()).stdout(Stdio::piped());
    let output = child.spawn().unwrap().wait_with_output().unwrap();
    let figures: Figures = serde_json::from_slice(&output.stdout).unwrap();
    let percent = |cpu_ns: u64| cpu_ns as f64 / figures.seconds / 1e7;
    let samples = figures.taken.max(1) as f64;
    println!(
        "{:5} µs {:7} {:7.2} % {:9.1} µs {:7.1} {:8.0} {:6.2} % {:5.2} % {:8.2} µs ({:6.2}, {:5.2}) {:15.1} {:8.1} MB {:5.0} %{}{}",
        case.interval_us,
        case.targets,
        figures.taken as f64 / figures.planned as f64 * 100.0,
        figures.late_p50_ns as f64 / 1e3,
        figures.late_p99_ns as f64 / 1e3,
        figures.late_max_ns as f64 / 1e3,
        percent(figures.sampler_cpu_ns),
        percent(figures.writer_cpu_ns),
        figures.sampler_cpu_ns as f64 / samples / 1e3,
        figures.sampler_cpu_ns as f64 / samples / bare_ns,
        figures.sampler_cpu_ns as f64 / samples / grid_ns,
        figures.file_bytes as f64 / samples,
        figures.rss_kib as f64 * 1024.0 / 1e6,
        others.percent(),
        if figures.lost > 0 { format!("  {} lost", figures.lost) } else { String::new() },
        if case.realtime == (figures.policy == "SCHED_FIFO") { "" } else { "  policy not granted" },
    );
}

/// One case, in a process of its own.
fn run(case: Case) -> Figures {
    let path = std::env::temp_dir().join(format!("sebs-lite-bench-{}", std::process::id()));
    let mut options = ProbeOptions::new(Duration::from_micros(case.interval_us));
    options.realtime = case.realtime;
    options.output = Output::Stream(path.clone());
    let probe = Probe::start(options).unwrap();
    let begin = Instant::now();
    for number in 0..case.targets {
        let counter = File::open(counter()).unwrap();
        probe.add(Target { label: format!("target-{number}"), counter }).unwrap();
    }
    std::thread::sleep(seconds());
    let policy = probe.header().scheduling.policy.clone().unwrap();
    let recording = probe.stop().unwrap();
    let seconds = begin.elapsed().as_secs_f64();
    let end = recording.end.unwrap();
    // Of the last target, which is read last: the latest of all.
    let lateness = recording.targets.last().unwrap().lateness.unwrap();
    let sum = |of: fn(&sebs_lite::probe::TargetSummary) -> u64| recording.targets.iter().map(of).sum();
    let figures = Figures {
        planned: sum(|target| target.planned()),
        taken: sum(|target| target.taken),
        lost: sum(|target| target.lost),
        late_p50_ns: lateness.p50_ns,
        late_p99_ns: lateness.p99_ns,
        late_max_ns: lateness.max_ns,
        seconds,
        sampler_cpu_ns: end.sampler_cpu_ns,
        writer_cpu_ns: end.writer_cpu_ns,
        file_bytes: fs::metadata(&path).unwrap().len(),
        rss_kib: status_kib("VmHWM:"),
        policy,
    };
    fs::remove_file(&path).unwrap();
    figures
}

fn seconds() -> Duration {
    let seconds = std::env::var("SEBS_LITE_BENCH_SECONDS").map_or(3.0, |text| text.parse().unwrap());
    Duration::from_secs_f64(seconds)
}

/// The cost of the one system call that a sample needs, in a process that does nothing else: the best of five loops.
fn bare_read_ns(descriptors: usize) -> f64 {
    let files: Vec<File> = (0..descriptors).map(|_| File::open(counter()).unwrap()).collect();
    let mut text = [0; 32];
    let mut loop_ns = || {
        let begin = cpu(ClockId::CLOCK_THREAD_CPUTIME_ID);
        for number in 0..BARE_READS as usize {
            std::hint::black_box(files[number % descriptors].read_at(&mut text, 0).unwrap());
        }
        (cpu(ClockId::CLOCK_THREAD_CPUTIME_ID) - begin).as_nanos() as f64 / f64::from(BARE_READS)
    };
    (0..5).map(|_| loop_ns()).min_by(f64::total_cmp).unwrap()
}

/// The cost of a read on a grid, of which each wake-up pays its share: for a second, by a thread of its own.
fn bare_grid_ns(descriptors: usize, interval: Duration) -> f64 {
    let measure = move || {
        let files: Vec<File> = (0..descriptors).map(|_| File::open(counter()).unwrap()).collect();
        let mut text = [0; 32];
        nix::sys::prctl::set_timerslack(1).unwrap();
        let interval_ns = interval.as_nanos() as i64;
        let begin_ns = monotonic_ns();
        let mut now_ns = begin_ns;
        let mut reads = 0;
        while now_ns < begin_ns + 1_000_000_000 {
            // Deadlines that have passed are left out.
            let due_ns = begin_ns + ((now_ns - begin_ns) / interval_ns + 1) * interval_ns;
            let due = TimeSpec::new(due_ns / 1_000_000_000, due_ns % 1_000_000_000);
            clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &due).unwrap();
            for file in &files {
                std::hint::black_box(file.read_at(&mut text, 0).unwrap());
                reads += 1;
            }
            now_ns = monotonic_ns();
        }
        cpu(ClockId::CLOCK_THREAD_CPUTIME_ID).as_nanos() as f64 / f64::from(reads)
    };
    std::thread::spawn(measure).join().unwrap()
}

fn monotonic_ns() -> i64 {
    cpu(ClockId::CLOCK_MONOTONIC).as_nanos() as i64
}

/// What SeBS does for each sample, without the Python around it, on the same kind of grid.
fn shell(interval: Duration) {
    let command = format!("cat {}", counter().display());
    let others = Others::begin();
    let begin = Instant::now();
    let (mut samples, mut planned) = (0_u32, 0_u32);
    while begin.elapsed() < seconds() {
        let due = interval * planned;
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
        let output = Command::new("sh").args(["-c", &command]).output().unwrap();
        assert!(!output.stdout.is_empty());
        samples += 1;
        planned = (begin.elapsed().as_nanos() / interval.as_nanos()) as u32 + 1;
    }
    let elapsed = begin.elapsed().as_secs_f64();
    let used = others.own_seconds();
    println!(
        "{:5} µs {:8.2} % of ticks {:8.0} samples/s {:6.1} % CPU {:8.1} µs CPU a sample   others {:3.0} %",
        interval.as_micros(),
        f64::from(samples) / f64::from(planned) * 100.0,
        f64::from(samples) / elapsed,
        used / elapsed * 100.0,
        used / f64::from(samples) * 1e6,
        others.percent(),
    );
}

/// A counter of a cgroup that is not the root, which has none (v2) or one that costs more (v1).
fn counter() -> PathBuf {
    for (root, name) in
        [("/sys/fs/cgroup/memory", "memory.usage_in_bytes"), ("/sys/fs/cgroup", "memory.current")]
    {
        let groups = fs::read_dir(root).into_iter().flatten().map(|entry| entry.unwrap().path());
        let mut counters: Vec<PathBuf> = groups.map(|group| group.join(name)).collect();
        counters.sort();
        if let Some(counter) = counters.into_iter().find(|counter| counter.exists()) {
            return counter;
        }
    }
    panic!("this machine shows no memory counter of a cgroup");
}

/// What other processes use of the processors, in percent of one.
struct Others {
    begin: Instant,
    busy: Duration,
    own: Duration,
}

impl Others {
    fn begin() -> Others {
        Others { begin: Instant::now(), busy: busy(), own: own() }
    }

    fn own_seconds(&self) -> f64 {
        (own() - self.own).as_secs_f64()
    }

    fn percent(&self) -> f64 {
        let busy = (busy() - self.busy).as_secs_f64();
        (busy - self.own_seconds()).max(0.0) / self.begin.elapsed().as_secs_f64() * 100.0
    }
}

/// CPU time of this process and of its children that have ended.
fn own() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let children: u64 = fields[13..15].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    cpu(ClockId::CLOCK_PROCESS_CPUTIME_ID) + ticks(children)
}

/// CPU time of all: user, nice, system, irq and softirq of `/proc/stat`.
fn busy() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let fields: Vec<u64> =
        stat.lines().next().unwrap().split_whitespace().skip(1).map(|field| field.parse().unwrap()).collect();
    ticks(fields[0] + fields[1] + fields[2] + fields[5] + fields[6])
}

/// The unit of those files, which is 1/100 s wherever Linux runs.
fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * 10)
}

fn cpu(clock: ClockId) -> Duration {
    clock_gettime(clock).unwrap().into()
}

fn status_kib(key: &str) -> u64 {
    let status = fs::read_to_string(Path::new("/proc/self/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
