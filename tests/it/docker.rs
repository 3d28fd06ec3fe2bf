//! The engine client against the real engine of this machine.

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use sebs_lite::cancel::Cancel;
use sebs_lite::docker::{
    BuildOptions, ContainerSpec, Engine, ExecSpec, HostConfig, Lifetime, OwnedContainer, Owner, PortBinding,
    Scope, Stream, sweep,
};
use sebs_lite::progress::Progress;

use crate::support::{TestImage, engine, unique};

/// A script for `/bin/sh`, without network, since a network takes most of a start's time.
fn script(image: &TestImage, script: &str) -> ContainerSpec {
    ContainerSpec {
        image: image.reference.clone(),
        cmd: vec!["/bin/sh".into(), "-c".into(), script.into()],
        host_config: HostConfig { network_mode: "none".into(), ..HostConfig::default() },
        ..ContainerSpec::default()
    }
}

fn create(engine: &Engine, spec: ContainerSpec) -> OwnedContainer {
    engine.create_owned(&Owner::current().unwrap(), &Lifetime::Run, &unique("c"), spec).unwrap()
}

fn started(engine: &Engine, spec: ContainerSpec) -> OwnedContainer {
    let container = create(engine, spec);
    engine.start_container(container.id()).unwrap();
    container
}

/// A program that ends when this is dropped, however the test ends.
struct Helper(Child);

impl Helper {
    fn start() -> Helper {
        Helper(Command::new("sleep").arg("600").stdout(Stdio::null()).spawn().unwrap())
    }

    fn owner(&self) -> Owner {
        let pid = self.0.id();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let start = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap();
        Owner { pid: pid as i32, start: start.parse().unwrap(), ..Owner::current().unwrap() }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until_gone(engine: &Engine, id: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !engine.inspect_container(id).is_err_and(|error| error.is_not_found()) {
        assert!(Instant::now() < deadline, "container {id} is still there");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until that is the last line that a container wrote.
fn until_written(engine: &Engine, id: &str, line: &str) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while engine.container_logs(id, Some(1)).unwrap().combined() != line {
        assert!(Instant::now() < deadline, "the container has not written all of its lines");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_engine_says_what_it_is() {
    let Some(engine) = engine() else { return };
    let ping = engine.ping().unwrap();
    let version = engine.version().unwrap();
    let info = engine.info().unwrap();
    assert_eq!(ping.api_version, version.api_version);
    assert_eq!(version.version, info.server_version);
    assert_eq!(version.kernel_version, info.kernel_version);
    assert_eq!(info.os_type, "linux");
    assert!(info.ncpu > 0 && info.mem_total > 1 << 28, "{info:?}");
    assert!(
        !info.id.is_empty() && !info.storage_driver.is_empty() && !info.cgroup_driver.is_empty(),
        "{info:?}"
    );
    assert!(engine.api_version().starts_with("1."));
}

#[test]
fn a_container_lives_from_create_to_remove() {
    let Some(engine) = engine() else { return };
    let image = TestImage::import(&engine);
    let mut spec = script(&image, "echo out $GREETING $EXTRA; sleep 0.05; echo err >&2; exit 7");
    spec.env = vec!["EXTRA=more".into()];
    spec.labels.insert("sebs-lite.test.life".into(), image.reference.clone());
    spec.host_config.memory = 64 << 20;
    let container = create(&engine, spec);
    let created = engine.inspect_container(container.id()).unwrap();
    assert_eq!((created.state.status.as_str(), created.state.running), ("created", false));
    assert_eq!(created.image, image.id);
    assert_eq!(created.host_config.memory, 64 << 20);
    assert_eq!(created.host_config.network_mode, "none");
    assert_eq!(created.config.labels["sebs-lite.lifetime"], "run");
    assert_eq!(created.network_settings.address(), None);
    assert!(created.config.env.contains(&"EXTRA=more".to_string()));

    engine.start_container(container.id()).unwrap();
    engine.start_container(&created.name).unwrap();
    assert_eq!(engine.wait_container(container.id(), Some(Duration::from_secs(60))).unwrap(), 7);
    assert_eq!(engine.wait_container(container.id(), None).unwrap(), 7);
    let ended = engine.inspect_container(container.id()).unwrap();
    assert_eq!((ended.state.status.as_str(), ended.state.exit_code, ended.state.pid), ("exited", 7, 0));

    let logs = engine.container_logs(container.id(), None).unwrap();
    assert_eq!(String::from_utf8_lossy(&logs.stdout), "out hello more\n");
    assert_eq!(String::from_utf8_lossy(&logs.stderr), "err\n");
    // The engine copies the two streams independently of each other: either may come first.
    assert!(["out hello more\nerr\n", "err\nout hello more\n"].contains(&logs.combined().as_str()));

    let label = format!("sebs-lite.test.life={}", image.reference);
    let listed = engine.list_containers(&["sebs-lite=1", &label], Scope::All).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].names.as_slice(), listed[0].id.as_str()),
        (&[created.name.clone()][..], container.id())
    );
    assert_eq!((listed[0].state.as_str(), listed[0].image_id.as_str()), ("exited", image.id.as_str()));
    assert!(engine.list_containers(&[&label], Scope::Running).unwrap().is_empty());

    let id = container.id().to_string();
    container.remove().unwrap();
    assert!(engine.inspect_container(&id).unwrap_err().is_not_found());
    engine.remove_container(&id).unwrap();
    engine.stop_container(&id, Duration::ZERO).unwrap();
    let error = engine.start_container(&id).unwrap_err();
    assert!(error.is_not_found());
    assert!(
        error.to_string().starts_with(&format!("failed to start container `{}`: ", &id[..12])),
        "{error}"
    );
}

#[test]
fn the_engine_s_own_words_say_why_a_container_cannot_be_made_or_started() {
    let Some(engine) = engine() else { return };
    let image = TestImage::import(&engine);
    let absent = ContainerSpec { image: "sebs-lite-test/absent:1".into(), ..ContainerSpec::default() };
    let error = engine.create_container(&unique("c"), &absent).unwrap_err();
    assert!(error.is_not_found());
    assert!(error.to_string().to_lowercase().contains("no such image"), "{error}");

    let container = create(&engine, ContainerSpec { cmd: vec!["/bin/nothing".into()], ..script(&image, "") });
    let error = engine.start_container(container.id()).unwrap_err();
    assert!(error.to_string().contains("/bin/nothing"), "{error}");

    let name = engine.inspect_container(container.id()).unwrap().name;
    let owner = Owner::current().unwrap();
    let taken = engine.create_owned(&owner, &Lifetime::Run, &name, script(&image, "")).unwrap_err();
    assert!(taken.is_conflict(), "{taken}");
    engine.inspect_container(container.id()).unwrap();
}

#[test]
fn a_published_port_and_an_address_are_told() {
    let Some(engine) = engine() else { return };
    let image = TestImage::import(&engine);
    let binding = PortBinding { host_ip: "127.0.0.1".into(), host_port: String::new() };
    let mut spec = script(&image, "sleep 600");
    spec.exposed_ports = vec!["9000/tcp".into()];
    spec.host_config.network_mode = String::new();
    spec.host_config.port_bindings.insert("9000/tcp".into(), vec![binding]);
    let container = started(&engine, spec);
    let settings = engine.inspect_container(container.id()).unwrap().network_settings;
    let published = settings.ports["9000/tcp"].as_ref().unwrap();
    assert_eq!(published[0].host_ip, "127.0.0.1");
    assert!(published[0].host_port.parse::<u16>().unwrap() > 0);
    settings.address().unwrap().parse::<std::net::Ipv4Addr>().unwrap();
    assert_eq!(settings.networks["bridge"].ip_address, settings.address().unwrap());
}

#[test]
fn a_container_can_be_paused_signalled_and_stopped() {
    let Some(engine) = engine() else { return };
    let image = TestImage::import(&engine);
    let trapping = "trap 'exit 3' TERM; echo trapped; while :; do sleep 0.02; done";
    let container = started(&engine, script(&image, trapping));
    // The first process of a container is not ended by a signal that it does not handle yet.
    until_written(&engine, container.id(), "trapped\n");
    engine.pause_container(container.id()).unwrap();
    let paused = engine.inspect_container(container.id()).unwrap().state;
    assert!(paused.paused && paused.running);
    engine.unpause_container(container.id()).unwrap();
    engine.stop_container(container.id(), Duration::from_secs(30)).unwrap();
    engine.stop_container(container.id(), Duration::from_secs(30)).unwrap();
    assert_eq!(engine.wait_container(container.id(), None).unwrap(), 3);
    assert!(engine.kill_container(container.id(), "KILL").unwrap_err().is_conflict());

    let container = started(&engine, script(&image, "sleep 600"));
    engine.kill_container(container.id(), "SIGKILL").unwrap();
    assert_eq!(engine.wait_container(container.id(), None).unwrap(), 137);
}

#[test]
fn a_command_in_a_container_gives_its_outputs_and_its_exit_code() {
    let Some(engine) = engine() else { return };
    let image = TestImage::import(&engine);
    let container = started(&engine, script(&image, "sleep 600"));
    let shell = |script: &str| vec!["/bin/sh".to_string(), "-c".to_string(), script.to_string()];
    let spec = ExecSpec {
        cmd: shell("echo $A $(pwd); echo no >&2; exit 5"),
        env: vec!["A=b".into()],
        working_dir: "/bin".into(),
        ..ExecSpec::default()
    };
    let output = engine.exec(container.id(), &spec).unwrap();
    assert_eq!(output.exit_code, 5);
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"b /bin\n"[..], &b"no\n"[..]));

    let loud =
        ExecSpec { cmd: shell("yes | head -c 3000000; yes n | head -c 1000000 >&2"), ..ExecSpec::default() };
    let output = engine.exec(container.id(), &loud).unwrap();
    assert_eq!((output.exit_code, output.stdout.len(), output.stderr.len()), (0, 3_000_000, 1_000_000));

    let absent = ExecSpec { cmd: vec!["/bin/nothing".into()], ..ExecSpec::default() };
    let output = engine.exec(container.id(), &absent).unwrap();
    assert!(output.exit_code == 126 || output.exit_code == 127, "{output:?}");
    engine.kill_container(container.id(), "KILL").unwrap();
    engine.wait_container(container.id(), None).unwrap();
    assert!(engine.exec(container.id(), &spec).unwrap_err().is_conflict());
}

#[test]
fn logs_of_twenty_megabytes_come_whole() {
    let Some(engine) = engine() else { return };
    let image = TestImage::import(&engine);
    // Long lines, so that what the engine writes beside each does not bring it to a limit on its log files.
    let line = "0123456789abcdef".repeat(256)[1..].to_string();
    // It does not end by itself: an engine waits only so long for the rest of what an ended container wrote.
    let loud = format!("yes {line} | head -c {}; echo end; sleep 600", 20 << 20);
    let container = started(&engine, script(&image, &loud));
    until_written(&engine, container.id(), "end\n");
    let logs = engine.container_logs(container.id(), None).unwrap();
    assert_eq!((logs.stdout.len(), logs.stderr.len()), ((20 << 20) + 4, 0));
    assert!(logs.stdout[..20 << 20].chunks(4096).all(|chunk| chunk == format!("{line}\n").as_bytes()));
    let tail = engine.container_logs(container.id(), Some(2)).unwrap();
    assert_eq!(tail.combined(), format!("{line}\nend\n"));
}

#[test]
fn logs_are_followed_until_the_container_ends() {
    let Some(engine) = engine() else { return };
    let image = TestImage::import(&engine);
    let container =
        started(&engine, script(&image, "for i in 1 2 3; do echo $i; sleep 0.1; done; echo end >&2"));
    let mut seen = Vec::new();
    let mut sink = |stream, bytes: &[u8]| seen.push((stream, String::from_utf8_lossy(bytes).into_owned()));
    engine.follow_logs(container.id(), &mut sink).unwrap();
    let expected = [
        (Stream::Stdout, "1\n"),
        (Stream::Stdout, "2\n"),
        (Stream::Stdout, "3\n"),
        (Stream::Stderr, "end\n"),
    ];
    let expected: Vec<_> = expected.into_iter().map(|(stream, text)| (stream, text.to_string())).collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_wait_ends_at_its_limit_and_when_the_caller_gives_up() {
    let Some(engine) = engine() else { return };
    let image = TestImage::import(&engine);
    let container = started(&engine, script(&image, "sleep 600"));
    let late = engine.wait_container(container.id(), Some(Duration::from_millis(30))).unwrap_err();
    assert!(late.is_timeout() && late.to_string().contains("0.03 s"), "{late}");

    let cancel = Cancel::new();
    let patient = Engine::connect_to(engine.socket(), &cancel).unwrap();
    let (given_up, asked) = thread::scope(|scope| {
        let waiting = scope.spawn(|| patient.wait_container(container.id(), None).unwrap_err());
        // Any moment will do: before the request, or after.
        thread::sleep(Duration::from_millis(50));
        cancel.trigger();
        let asked = Instant::now();
        (waiting.join().unwrap(), asked.elapsed())
    });
    assert!(given_up.is_cancelled(), "{given_up}");
    // It sleeps for minutes, so this says that the token ended the wait, with room for a busy machine.
    assert!(asked < Duration::from_secs(5), "{asked:?}");
    assert!(patient.inspect_container(container.id()).unwrap_err().is_cancelled());
    patient.without_cancel().inspect_container(container.id()).unwrap();

    let owner = Owner::current().unwrap();
    let refused = patient.create_owned(&owner, &Lifetime::Run, &unique("c"), script(&image, "")).unwrap_err();
    assert!(refused.is_cancelled());
}

#[test]
fn a_creation_that_is_given_up_half_way_leaves_nothing() {
    let Some(engine) = engine() else { return };
    let image = TestImage::import(&engine);
    let owner = Owner::current().unwrap();
    // A creation takes about 20 ms: some of these tokens are triggered before, some within, some after it.
    for delay_ms in [0, 1, 2, 4, 8, 12, 16, 24, 48] {
        let cancel = Cancel::new();
        let patient = Engine::connect_to(engine.socket(), &cancel).unwrap();
        let name = unique("c");
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(delay_ms));
                cancel.trigger();
            });
            match patient.create_owned(&owner, &Lifetime::Run, &name, script(&image, "")) {
                Ok(container) => container.remove().unwrap(),
                Err(error) => assert!(error.is_cancelled(), "{error}"),
            }
        });
        assert!(engine.inspect_container(&name).unwrap_err().is_not_found(), "{name} after {delay_ms} ms");
    }
}

#[test]
fn an_image_is_imported_tagged_listed_and_removed() {
    let Some(engine) = engine() else { return };
    let image = TestImage::import(&engine);
    let inspected = engine.inspect_image(&image.reference).unwrap();
    assert_eq!(inspected.id, image.id);
    assert!(inspected.size > 1 << 20, "{inspected:?}");
    assert_eq!(inspected.config.labels["sebs-lite.test"], image.reference);
    assert!(inspected.config.env.contains(&"GREETING=hello".to_string()));
    assert_eq!(inspected.os, "linux");

    let repository = unique("tagged");
    engine.tag_image(&image.id, &repository, "v1").unwrap();
    let label = format!("sebs-lite.test={}", image.reference);
    let listed = engine.list_images(&[&label]).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].id, image.id);
    let mut tags = listed[0].repo_tags.clone();
    tags.sort();
    assert_eq!(tags, [image.reference.clone(), format!("{repository}:v1")]);
    engine.remove_image(&format!("{repository}:v1")).unwrap();
    engine.inspect_image(&image.reference).unwrap();
    engine.remove_image(&image.reference).unwrap();
    for gone in [engine.inspect_image(&image.reference).map(drop), engine.remove_image(&image.reference)] {
        assert!(gone.unwrap_err().is_not_found());
    }
}

fn context(dockerfile: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(dockerfile.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "docker/Dockerfile", dockerfile.as_bytes()).unwrap();
    tar.into_inner().unwrap()
}

#[test]
fn a_build_makes_an_image_or_tells_what_the_failing_step_said() {
    let Some(engine) = engine() else { return };
    let base = TestImage::import(&engine);
    let tag = format!("{}:latest", unique("built"));
    let options = BuildOptions {
        tag: tag.clone(),
        dockerfile: "docker/Dockerfile".into(),
        labels: [("sebs-lite.test".to_string(), tag.clone())].into(),
        build_args: [("WHAT".to_string(), "a & b".to_string())].into(),
        ..BuildOptions::default()
    };
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    let progress = Progress::to(move |step| sink.lock().unwrap().push(step.detail.to_string()));
    let good = context(&format!("FROM {}\nARG WHAT\nENV WHAT=$WHAT\n", base.reference));
    engine.build_image(&mut good.as_slice(), &options, &progress).unwrap();
    let config = engine.inspect_image(&tag).unwrap().config;
    engine.remove_image(&tag).unwrap();
    assert_eq!(config.labels["sebs-lite.test"], tag);
    assert!(config.env.contains(&"WHAT=a & b".to_string()), "{config:?}");
    assert!(told.lock().unwrap().iter().any(|line| line.starts_with("Step 1/")), "{told:?}");

    let bad = context(&format!("FROM {}\nRUN echo before; echo this is why >&2; exit 9\n", base.reference));
    let error =
        engine.build_image(&mut bad.as_slice(), &options, &Progress::quiet()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("failed to build image `{tag}`: ")), "{error}");
    assert!(error.contains("non-zero code: 9"), "{error}");
    assert!(error.contains("\n    before\n") && error.contains("this is why"), "{error}");
    assert!(engine.inspect_image(&tag).unwrap_err().is_not_found());

    let error = engine.build_image(&mut &b"no tar at all"[..], &options, &Progress::quiet()).unwrap_err();
    assert!(!error.is_disconnected(), "{error}");
}

#[test]
fn a_build_that_is_given_up_leaves_no_step_running() {
    let Some(engine) = engine() else { return };
    let base = TestImage::import(&engine);
    let cancel = Cancel::new();
    let patient = Engine::connect_to(engine.socket(), &cancel).unwrap();
    let progress = Progress::to(move |step| {
        if step.detail.contains("Running in") {
            cancel.trigger();
        }
    });
    let options = BuildOptions {
        tag: format!("{}:latest", unique("built")),
        dockerfile: "docker/Dockerfile".into(),
        ..BuildOptions::default()
    };
    let endless = context(&format!("FROM {}\nRUN sleep 600\n", base.reference));
    let error = patient.build_image(&mut endless.as_slice(), &options, &progress).unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    // A step's container has the labels of the image it is made from.
    let label = format!("sebs-lite.test={}", base.reference);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !engine.list_containers(&[&label], Scope::All).unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the step still runs");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_archive_that_cannot_be_read_makes_no_image() {
    let Some(engine) = engine() else { return };
    struct Broken(usize);
    impl std::io::Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0 += 1;
            if self.0 > 3 {
                return Err(std::io::Error::other("disk on fire"));
            }
            buffer.fill(0);
            Ok(buffer.len())
        }
    }
    let reference = format!("{}:latest", unique("broken"));
    let error = engine.import_image(&mut Broken(0), &reference, &[], &Progress::quiet()).unwrap_err();
    assert!(error.to_string().ends_with("disk on fire") && !error.is_disconnected(), "{error}");
    assert!(engine.inspect_image(&reference).unwrap_err().is_not_found());
}

#[test]
fn a_pull_that_cannot_succeed_says_why() {
    let Some(engine) = engine() else { return };
    // Port 1 of this host: nobody listens.
    let reference = "127.0.0.1:1/sebs-lite-test/absent:1";
    let error = engine.pull_image(reference, &Progress::quiet()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("failed to pull image `{reference}`: ")), "{error}");
    assert!(error.contains("connection refused"), "{error}");
}

#[test]
fn a_guard_removes_its_container_unless_it_is_kept() {
    let Some(engine) = engine() else { return };
    let image = TestImage::import(&engine);
    let container = started(&engine, script(&image, "sleep 600"));
    let id = container.id().to_string();
    drop(container);
    assert!(engine.inspect_container(&id).unwrap_err().is_not_found());

    let file = std::env::temp_dir().join(unique("deployment"));
    let lifetime = Lifetime::Kept { file: file.clone() };
    let owner = Owner::current().unwrap();
    let container = engine.create_owned(&owner, &lifetime, &unique("c"), script(&image, "")).unwrap();
    let id = container.keep();
    let labels = engine.inspect_container(&id).unwrap().config.labels;
    engine.remove_container(&id).unwrap();
    assert_eq!(Lifetime::from_labels(&labels), Some(lifetime));
    assert_eq!(Owner::from_labels(&labels), Some(owner));
}

#[test]
fn a_sweep_removes_what_a_dead_owner_left_and_nothing_else() {
    let Some(engine) = engine() else { return };
    let image = TestImage::import(&engine);
    let (dies, lives) = (Helper::start(), Helper::start());
    let me = Owner::current().unwrap();
    let elsewhere = Owner { boot: "another".into(), host: "another".into(), ..dies.owner() };
    let kept = Lifetime::Kept { file: "/nowhere".into() };
    let make = |owner: &Owner, lifetime: &Lifetime| {
        engine.create_owned(owner, lifetime, &unique("c"), script(&image, "sleep 600")).unwrap()
    };
    let left = make(&dies.owner(), &Lifetime::Run);
    engine.start_container(left.id()).unwrap();
    let others = [
        make(&dies.owner(), &kept),
        make(&lives.owner(), &Lifetime::Run),
        make(&elsewhere, &Lifetime::Run),
        make(&me, &Lifetime::Run),
    ];
    sweep(&engine, &me).unwrap();
    engine.inspect_container(left.id()).unwrap();

    drop(dies);
    thread::scope(|scope| {
        let sweeps: Vec<_> = (0..3).map(|_| scope.spawn(|| sweep(&engine, &me).unwrap())).collect();
        sweeps.into_iter().for_each(|sweep| drop(sweep.join().unwrap()));
    });
    until_gone(&engine, left.id());
    for other in &others {
        engine.inspect_container(other.id()).unwrap();
    }
}
