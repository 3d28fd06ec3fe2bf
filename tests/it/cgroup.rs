//! The kernel's counters of real containers: known sizes, spikes that are over, kills, the end.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sebs_lite::cgroup::{
    Counter, Location, Memory, PeakReset, Reading, Subject, Version, charge_batch_bytes, is_gone,
};
use sebs_lite::docker::{ContainerSpec, Engine, HostConfig, Lifetime, OwnedContainer, Owner};

use crate::benchmark::python_image;
use crate::program::Ended;
use crate::support::{self, wait_until};

const MIB: u64 = 1 << 20;

/// What Python itself may take or give back between two readings, its page tables included.
const NOISE: u64 = MIB / 2;

/// Does one step each time it gets SIGUSR1, and says when it is done.
const STEPS: &str = "
import mmap, os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
def allocate(mib):
    pages = mmap.mmap(-1, mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        pages.madvise(mmap.MADV_NOHUGEPAGE)
    except OSError:
        pass
    for offset in range(0, mib << 20, mmap.PAGESIZE):
        pages[offset] = 1
    return pages
def eat():
    child = os.fork()
    if child == 0:
        allocate(256)
        os._exit(0)
    print('child', os.WTERMSIG(os.waitpid(child, 0)[1]), flush=True)
allocate(1).close()
step = 0
while True:
    print('step', step, flush=True)
    signal.sigwait([signal.SIGUSR1])
    if STEPS[step] == 'hold':
        held = allocate(64)
    elif STEPS[step] == 'spike':
        allocate(32).close()
    elif STEPS[step] == 'eat':
        eat()
    step += 1
";

/// A container that climbs step by step.
struct Climber {
    engine: Engine,
    container: OwnedContainer,
    pid: i32,
}

impl Climber {
    fn start(engine: &Engine, steps: &[&str], limit_bytes: u64) -> Climber {
        let program = format!("STEPS = {steps:?}\n{STEPS}");
        let spec = ContainerSpec {
            image: python_image(engine).id,
            entrypoint: Some(Vec::new()),
            cmd: vec!["python3".to_string(), "-c".to_string(), program],
            host_config: HostConfig {
                memory: limit_bytes,
                memory_swap: limit_bytes,
                network_mode: "none".to_string(),
                ..HostConfig::default()
            },
            ..ContainerSpec::default()
        };
        let owner = Owner::current().unwrap();
        let container =
            engine.create_owned(&owner, &Lifetime::Run, &support::unique("cgroup"), spec).unwrap();
        engine.start_container(container.id()).unwrap();
        let pid = engine.inspect_container(container.id()).unwrap().state.pid.try_into().unwrap();
        let climber = Climber { engine: engine.clone(), container, pid };
        climber.wait_for("step 0\n");
        climber
    }

    fn memory(&self) -> Memory {
        Memory::of_process(self.pid, Some(self.container.id())).unwrap()
    }

    fn climb_to(&self, step: u32) {
        self.engine.kill_container(self.container.id(), "SIGUSR1").unwrap();
        self.wait_for(&format!("step {step}\n"));
    }

    fn wait_for(&self, line: &str) {
        wait_until(line, || {
            let logs = self.engine.container_logs(self.container.id(), None).unwrap().combined();
            assert!(!logs.contains("Traceback"), "{logs}");
            logs.contains(line)
        });
    }
}

fn number(reading: Reading<Counter>) -> u64 {
    reading.value().unwrap().value().unwrap()
}

#[track_caller]
fn assert_near(measured: u64, expected: u64) {
    let bound = charge_batch_bytes().unwrap() + NOISE;
    assert!(measured.abs_diff(expected) <= bound, "{measured} is not {expected} ± {bound}");
}

#[test]
fn a_container_is_measured_to_the_charge_batch_and_its_spikes_are_in_the_peak() {
    let Some(engine) = support::engine() else { return };
    let climber = Climber::start(&engine, &["hold", "spike", "spike"], 0);
    let memory = climber.memory();
    println!("{:?}", memory.location());
    assert!(memory.location().group.contains(climber.container.id()));
    assert_eq!(memory.location().subject, Subject::Container);
    let before = memory.current().unwrap();
    climber.climb_to(1);
    let held = memory.current().unwrap();
    println!("before {before}, held {held}, batch {}", charge_batch_bytes().unwrap());
    assert_near(held - before, 64 * MIB);
    // The kernel may tell its statistics 2 s late.
    wait_until("64 MiB are anonymous", || {
        let stat = memory.stat().unwrap().value().unwrap();
        let anon = stat.anon_bytes.value().unwrap();
        assert!(stat.file_bytes.value().is_some() && stat.inactive_file_bytes.value().is_some(), "{stat:?}");
        assert!(anon <= held + charge_batch_bytes().unwrap(), "{anon} of {held}");
        anon >= 64 * MIB
    });
    println!("{:?}", memory.stat().unwrap());
    climber.climb_to(2);
    let whole_life = number(memory.peak().unwrap());
    println!("peak {whole_life}");
    assert!(whole_life + charge_batch_bytes().unwrap() >= held + 32 * MIB);
    match memory.reset_peak().unwrap() {
        PeakReset::Done => {
            let fresh = number(memory.peak().unwrap());
            println!("peak after reset {fresh}");
            assert_near(fresh, held);
            climber.climb_to(3);
            let spike = number(memory.peak().unwrap());
            println!("peak after a spike {spike}, current {}", memory.current().unwrap());
            assert_near(spike, held + 32 * MIB);
            assert_near(memory.current().unwrap(), held);
        }
        PeakReset::Unsupported(reason) => {
            println!("no reset: {reason}");
            let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
            assert!(memory.location().version == Version::V2 || !is_root);
            assert_eq!(number(memory.peak().unwrap()), whole_life);
        }
        PeakReset::Gone => panic!("it still runs"),
    }
    let cpu = memory.cpu().unwrap().value().unwrap();
    println!("{cpu:?}");
    assert!(cpu.usage_us.value() > Some(1000), "{cpu:?}");
}

#[test]
fn a_sampler_reads_the_same_file() {
    let Some(engine) = support::engine() else { return };
    let climber = Climber::start(&engine, &[], 0);
    let memory = climber.memory();
    let file = memory.current_file().unwrap();
    for _ in 0..3 {
        let mut buffer = [0; 32];
        let length = file.read_at(&mut buffer, 0).unwrap();
        assert_near(sebs_lite::cgroup::parse_counter(&buffer[..length]).unwrap(), memory.current().unwrap());
    }
}

#[test]
fn a_process_that_the_kernel_kills_for_memory_is_counted() {
    let Some(engine) = support::engine() else { return };
    let climber = Climber::start(&engine, &["eat"], 64 * MIB);
    let memory = climber.memory();
    let events = memory.events().unwrap().value().unwrap();
    assert_eq!(events.oom_kill, Counter::Value(0));
    climber.climb_to(1);
    climber.wait_for("child 9\n");
    let events = memory.events().unwrap().value().unwrap();
    println!("{events:?}");
    assert_eq!(events.oom_kill, Counter::Value(1));
    // Some kernels with v1 do not count it, and then it must not pass for none.
    let is_blind = memory.location().version == Version::V1 && events.max.reason().is_some();
    assert!(is_blind || events.max.value() > Some(0), "{events:?}");
    assert_near(number(memory.peak().unwrap()), 64 * MIB);
    // The engine has heard of it, too; of nothing in a container that has none.
    let calm = Climber::start(&engine, &[], 0);
    let heard = |climber: &Climber| {
        let heard = engine.kill_events(climber.container.id(), Duration::from_secs(600)).unwrap();
        heard.iter().filter(|event| *event == "oom").count()
    };
    assert_eq!((heard(&climber) > 0, heard(&calm)), (true, 0));
}

#[test]
fn what_is_gone_says_so() {
    let Some(engine) = support::engine() else { return };
    let climber = Climber::start(&engine, &[], 0);
    let (memory, pid, id) = (climber.memory(), climber.pid, climber.container.id().to_string());
    let stranger = Location::of_process(std::process::id().try_into().unwrap(), Some(&"ab".repeat(32)));
    let stranger = stranger.unwrap_err().to_string();
    println!("{stranger}");
    assert!(stranger.contains("no part of which is named after the container"), "{stranger}");
    climber.container.remove().unwrap();
    wait_until("the kernel has removed the group", || memory.current().is_err());
    assert!(is_gone(&memory.current().unwrap_err()));
    assert_eq!(memory.peak().unwrap(), Reading::Gone);
    assert_eq!(memory.reset_peak().unwrap(), PeakReset::Gone);
    assert_eq!(memory.stat().unwrap(), Reading::Gone);
    assert_eq!(memory.events().unwrap(), Reading::Gone);
    assert_eq!(memory.cpu().unwrap(), Reading::Gone);
    let ended = Memory::of_process(pid, Some(&id)).unwrap_err();
    println!("{ended}");
    assert!(ended.is_not_found(), "{ended}");
}

#[test]
fn our_own_group_is_found_and_never_written_to() {
    let memory = Memory::of_process(std::process::id().try_into().unwrap(), None).unwrap();
    assert_eq!(memory.location().subject, Subject::Process);
    assert!(memory.current().unwrap() > MIB);
    assert!(matches!(memory.reset_peak().unwrap(), PeakReset::Unsupported(_)));
}

#[test]
fn what_the_program_tells_of_functions_is_what_the_kernel_counts() {
    let Some(engine) = support::engine() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/counters-check");
    let mut command = Command::new(script);
    command.env("DOCKER_HOST", format!("unix://{}", engine.socket().display()));
    let ended = Ended::from(command.arg(env!("CARGO_BIN_EXE_sebs-lite")).output().unwrap());
    ended.expect(0, &["agrees  CPUs that a living instance is limited to: 0.2", "all agrees"]);
}
