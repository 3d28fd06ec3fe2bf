//! `resources list` and `cleanup`: what nobody needs goes, what somebody needs stays, whoever asks and how often.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sebs_lite::cache::Cache;
use sebs_lite::cancel::Cancel;
use sebs_lite::docker::{ContainerSpec, Engine, HostConfig, Lifetime, Owner, Scope};
use sebs_lite::local::{CleanupRequest, Inventory};
use serde_json::Value;

use crate::lifecycle::wait_for_container;
use crate::program::{Ended, Place, function, words};
use crate::support::{self, TestImage, containers, storage_image, unique};

/// An owner that is dead: no process has such an id.
fn dead() -> Owner {
    Owner { pid: 1 << 23, session: unique("session"), ..Owner::current().unwrap() }
}

/// A container that sleeps, with those labels; removed when dropped.
struct Sleeper {
    engine: Engine,
    id: String,
}

impl Sleeper {
    fn start(engine: &Engine, image: &TestImage, labels: BTreeMap<String, String>) -> Sleeper {
        let spec = ContainerSpec {
            image: image.reference.clone(),
            cmd: vec!["sleep".into(), "600".into()],
            labels,
            host_config: HostConfig { network_mode: "none".into(), init: true, ..HostConfig::default() },
            ..ContainerSpec::default()
        };
        let id = engine.create_container(&unique("sleeper"), &spec).unwrap().id;
        engine.start_container(&id).unwrap();
        Sleeper { engine: engine.clone(), id }
    }

    fn is_there(&self) -> bool {
        self.engine.inspect_container(&self.id).is_ok()
    }

    /// Another run may be removing it at this moment, which is fine for both.
    fn wait_until_gone(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.is_there() {
            assert!(Instant::now() < deadline, "it is not removed");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.engine.remove_container(&self.id).unwrap();
    }
}

/// What the list says of a thing.
fn listed(place: &Place, id: &str) -> Option<Value> {
    let ended = place.run(&["resources", "list", "--json"]).expect(0, &[]);
    let list: Value = serde_json::from_str(&ended.stdout).unwrap();
    list["resources"].as_array().unwrap().iter().find(|item| item["id"] == id).cloned()
}

fn standing(place: &Place, id: &str) -> String {
    listed(place, id).map_or("gone".to_string(), |item| item["standing"].as_str().unwrap().to_string())
}

#[test]
fn what_a_dead_command_left_goes_and_what_is_anothers_stays() {
    let Some(engine) = support::engine() else { return };
    let image = TestImage::import(&engine);
    let place = Place::create("cleanup");
    let file = place.write("deployment.json", "{}");
    let kept = Lifetime::Kept { file: file.clone() };
    let gone = Lifetime::Kept { file: place.path("moved.json") };
    let start = |labels| Sleeper::start(&engine, &image, labels);
    let foreign = start(BTreeMap::new());
    let living = start(Owner::current().unwrap().labels(&Lifetime::Run));
    let far = start(Owner { pidns: "pid:[1]".into(), ..dead() }.labels(&Lifetime::Run));
    let named = start(dead().labels(&kept));
    let orphan = start(dead().labels(&kept));
    let moved = start(dead().labels(&gone));
    std::fs::write(&file, format!(r#"{{"functions": [{{"instance_id": "{}"}}]}}"#, named.id)).unwrap();
    let volume = engine.create_volume(&unique("volume"), &dead().labels(&gone)).unwrap().name;
    let network = network(&dead().labels(&gone));

    assert_eq!(standing(&place, &foreign.id), "gone");
    assert_eq!(standing(&place, &living.id), "in-use");
    assert_eq!(standing(&place, &far.id), "unknown");
    assert_eq!(standing(&place, &named.id), "kept");
    assert_eq!(standing(&place, &orphan.id), "orphan");
    let told = listed(&place, &moved.id).unwrap();
    assert!(told["reason"].as_str().unwrap().contains("moved.json` is gone, or was moved"), "{told}");
    assert!(told["age_s"].as_u64().unwrap() < 600 && told["state"] == "running", "{told}");
    assert_eq!(standing(&place, &volume), "orphan");
    assert_eq!(standing(&place, &network), "orphan");

    // Any run sweeps what is left over, those of other tests as well: so it is made and looked for at once.
    let left = start(dead().labels(&Lifetime::Run));
    place.run(&["resources", "cleanup", "--dry-run", "--older-than", "2d"]).expect(0, &[]);
    place.run(&["resources", "cleanup"]).expect(0, &[]);
    left.wait_until_gone();
    for (sleeper, why) in
        [(&foreign, "nothing of ours"), (&living, "runs"), (&far, "cannot be told"), (&named, "names it")]
    {
        place.run(&["resources", "cleanup", &sleeper.id]).expect(2, &[why]);
        assert!(sleeper.is_there());
    }
    assert!(orphan.is_there() && moved.is_there());
    let one = ["resources", "cleanup", &orphan.id[..12], &moved.id, &volume, &network];
    let dry: Vec<&str> = one.iter().copied().chain(["--dry-run"]).collect();
    place.run(&dry).expect(0, &["would be removed", "does not name it"]);
    let young: Vec<&str> = one.iter().copied().chain(["--older-than=2h"]).collect();
    place.run(&young).expect(0, &["nothing to remove"]);
    assert!(orphan.is_there() && moved.is_there());
    place.run(&one).expect(0, &["removed:", &volume]);
    assert!(!orphan.is_there() && !moved.is_there());
    assert!(engine.inspect_volume(&volume).unwrap_err().is_not_found());
    assert!(engine.list_networks(&["sebs-lite=1"]).unwrap().iter().all(|found| found.id != network));
    assert!(foreign.is_there() && living.is_there() && far.is_there() && named.is_there());
}

/// A network with those labels, which no command of ours makes: by the engine's own program.
fn network(labels: &BTreeMap<String, String>) -> String {
    let mut docker = std::process::Command::new("docker");
    docker.args(["network", "create", "--internal", &unique("network")]);
    docker.args(labels.iter().map(|(name, value)| format!("--label={name}={value}")));
    let made = docker.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap().trim().to_string()
}

#[test]
fn of_two_cleanups_at_once_both_are_right() {
    let Some(engine) = support::engine() else { return };
    let image = TestImage::import(&engine);
    let place = Place::create("cleanups");
    let gone = Lifetime::Kept { file: place.path("moved.json") };
    let orphans: Vec<Sleeper> =
        (0..4).map(|_| Sleeper::start(&engine, &image, dead().labels(&gone))).collect();
    let mut words = vec!["resources", "cleanup"];
    words.extend(orphans.iter().map(|orphan| orphan.id.as_str()));
    let children = [place.spawn(&words), place.spawn(&words)];
    for child in children {
        let ended = Ended::from(child.wait_with_output().unwrap());
        // The second may come when nothing of that name is there any more.
        assert!(matches!(ended.code, Some(0 | 2)), "{}", ended.stderr);
        assert!(ended.code == Some(0) || ended.stderr.contains("nothing of ours"), "{}", ended.stderr);
    }
    assert!(orphans.iter().all(|orphan| !orphan.is_there()));
}

#[test]
fn an_interrupted_cleanup_is_taken_up_by_the_next() {
    let Some(engine) = support::engine() else { return };
    let image = TestImage::import(&engine);
    let place = Place::create("cleanup-interrupted");
    let gone = Lifetime::Kept { file: place.path("moved.json") };
    let orphans: Vec<Sleeper> =
        (0..2).map(|_| Sleeper::start(&engine, &image, dead().labels(&gone))).collect();
    let cancel = Cancel::new();
    let cache = Cache::open(&place.path("cache"), &cancel).unwrap();
    let inventory = Inventory::take(&engine, &cache).unwrap();
    let called = orphans.iter().map(|orphan| orphan.id.clone()).collect();
    let request = CleanupRequest { called, ..CleanupRequest::default() };
    cancel.trigger();
    assert!(request.run(&inventory, &engine, &cache, &cancel).unwrap_err().is_cancelled());
    assert!(orphans.iter().all(Sleeper::is_there));
    // One that another cleanup has removed meanwhile is no failure.
    engine.remove_container(&orphans[0].id).unwrap();
    let cleaned = request.run(&inventory, &engine, &cache, &Cancel::new()).unwrap();
    assert!(cleaned.removed.len() == 2 && cleaned.failures.is_empty(), "{cleaned:?}");
    assert!(!orphans[1].is_there());
}

#[test]
fn one_that_is_named_again_meanwhile_stays() {
    let Some(engine) = support::engine() else { return };
    let image = TestImage::import(&engine);
    let place = Place::create("cleanup-named");
    let file = place.path("deployment.json");
    let orphan = Sleeper::start(&engine, &image, dead().labels(&Lifetime::Kept { file: file.clone() }));
    let cancel = Cancel::new();
    let cache = Cache::open(&place.path("cache"), &cancel).unwrap();
    let inventory = Inventory::take(&engine, &cache).unwrap();
    // The file is moved back.
    std::fs::write(&file, &orphan.id).unwrap();
    let request = CleanupRequest { called: vec![orphan.id.clone()], ..CleanupRequest::default() };
    assert!(request.run(&inventory, &engine, &cache, &cancel).unwrap().removed.is_empty());
    assert!(orphan.is_there());
}

#[test]
fn buckets_and_tables_go_only_when_it_is_asked_for_and_no_command_uses_them() {
    let Some(engine) = support::engine() else { return };
    storage_image(&engine, "dynoxide");
    let place = Place::create("cleanup-storage");
    let first = unique("tables");
    let crud = words("130.crud-api", &first, &["--language", "python", "--keep-storage"]);
    place.run(&crud).expect(0, &["is kept"]);
    let record = crate::program::read_json(&place.path("cache/local.json"));
    let file = record["resources"]["nosql"]["file"].as_str().unwrap().to_string();
    let file = place.path("cache").join(file).display().to_string();
    let list = || -> Value {
        let list = place.run(&["resources", "list", "--json"]).expect(0, &[]).stdout;
        serde_json::from_str(&list).unwrap()
    };
    let table = list()["tables"][0].as_str().unwrap().to_string();
    assert!(table.ends_with("130.crud-api-shopping_cart"), "{table}");
    place.run(&["resources", "cleanup", "--storage", "--dry-run"]).expect(0, &["would be removed", &table]);

    let name = unique("user");
    let code = "import time\ndef handler(event):\n    print('at work', flush=True)\n    time.sleep(60)\n";
    let benchmark = function(&place, "user", code);
    let told = ["--storage-configuration", &file, "--timeout", "100"];
    let mut child = place.spawn(&words(&benchmark, &name, &told));
    wait_for_container(&engine, &name);
    place
        .run(&["resources", "cleanup", "--storage"])
        .expect(2, &["whose command runs", "nothing was removed"]);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));

    place.run(&["resources", "cleanup"]).expect(0, &[]);
    assert_eq!(list()["tables"][0], table);
    place.run(&["resources", "cleanup", "--storage"]).expect(0, &["removed:", &table]);
    assert_eq!(list()["tables"], serde_json::json!([]));
    place.run(&["storage", "stop", "all", &file]).expect(0, &[]);
}

#[test]
fn a_kept_function_goes_when_it_is_asked_for_with_its_package_and_its_record() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("cleanup-kept");
    let name = unique("cleanup");
    let code = "import time\ndef handler(event):\n    \
        if event.get('long'):\n        print('at work', flush=True)\n        time.sleep(60)\n    return {'result': 1}\n";
    let benchmark = function(&place, "kept", code);
    // With the time-out of the long run, which would else be given a function of its own.
    place.run(&words(&benchmark, &name, &["--keep", "--timeout", "100"])).expect(0, &["is kept at"]);
    assert_eq!(standing(&place, &name), "kept");
    place.run(&["resources", "cleanup", "--packages"]).expect(0, &[]);
    assert_eq!(containers(&engine, &name).len(), 1);
    let packages = || {
        let list = place.run(&["resources", "list", "--json"]).expect(0, &[]).stdout;
        let list: Value = serde_json::from_str(&list).unwrap();
        let items = list["resources"].as_array().unwrap().clone();
        items.into_iter().filter(|item| item["kind"] == "package").collect::<Vec<_>>()
    };
    assert_eq!(packages()[0]["standing"], "in-use");

    // A command that lives uses it.
    let long = place.write("long.json", r#"{"long": true}"#).display().to_string();
    let mut child = place.spawn(&words(&benchmark, &name, &["--input", &long, "--timeout", "100", "--keep"]));
    wait_for_container(&engine, &name);
    assert_eq!(standing(&place, &name), "in-use");
    place.run(&["resources", "cleanup", "--functions", "--packages"]).expect(0, &[]);
    place.run(&["resources", "cleanup", &name]).expect(2, &["a command that runs uses it"]);
    assert_eq!(containers(&engine, &name).len(), 1);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{told}");

    // Its instance, whose handler was at the long invocation, went with the command.
    place.run(&words(&benchmark, &name, &["--keep"])).expect(0, &["cold"]);
    let dry = ["resources", "cleanup", "--functions", "--packages", "--dry-run"];
    place.run(&dry).expect(0, &["would be removed", &name, "package"]);
    assert_eq!(containers(&engine, &name).len(), 1);
    let ended = place.run(&["resources", "cleanup", "--functions", "--packages", "--json"]).expect(0, &[]);
    let removed: Value = serde_json::from_str(&ended.stdout).unwrap();
    let kinds: Vec<&str> =
        removed["removed"].as_array().unwrap().iter().filter_map(|item| item["kind"].as_str()).collect();
    assert!(kinds.contains(&"function") && kinds.contains(&"package"), "{removed}");
    assert_eq!(containers(&engine, &name), [""; 0]);
    assert_eq!((packages(), standing(&place, &name)), (Vec::new(), "gone".to_string()));

    // Whoever removes the container by hand leaves a record, which tells of nothing.
    place.run(&words(&benchmark, &name, &["--keep"])).expect(0, &["cold"]);
    engine.remove_container(&containers(&engine, &name)[0]).unwrap();
    assert_eq!(standing(&place, &name), "leftover");
    place.run(&["resources", "cleanup"]).expect(0, &[&name]);
    assert_eq!(standing(&place, &name), "gone");
}

#[test]
fn an_image_that_no_container_is_made_of_goes_by_its_name() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("cleanup-image");
    let reference = format!("{}:run.local.python.3.11", unique("repository"));
    let labels = ["LABEL sebs-lite=1".to_string(), format!("LABEL sebs-lite.test={reference}")];
    let progress = sebs_lite::progress::Progress::quiet();
    let id = engine.import_image(&mut support::root_folder(), &reference, &labels, &progress).unwrap();
    assert_eq!(standing(&place, &id), "idle");
    place.run(&["resources", "cleanup", "--dry-run"]).expect(0, &[]);
    place.run(&["resources", "cleanup", &reference]).expect(0, &["removed:", &reference]);
    assert!(engine.inspect_image(&reference).unwrap_err().is_not_found());
    let all = engine.list_containers(&["sebs-lite=1"], Scope::All).unwrap();
    assert!(all.iter().all(|container| container.image != reference));
}

#[test]
fn an_image_that_lost_its_name_is_left_over_once_no_container_is_made_of_it() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("cleanup-nameless");
    let reference = format!("{}:1", unique("repository"));
    let progress = sebs_lite::progress::Progress::quiet();
    let import = |build: &str| {
        let labels = ["LABEL sebs-lite=1".to_string(), format!("LABEL sebs-lite.test={reference}-{build}")];
        engine.import_image(&mut support::root_folder(), &reference, &labels, &progress).unwrap()
    };
    let first = import("first");
    let spec = ContainerSpec { image: first.clone(), cmd: vec!["sleep".into()], ..ContainerSpec::default() };
    let user = engine.create_container(&unique("user"), &spec).unwrap().id;
    let second = import("second");
    assert_eq!((standing(&place, &first), standing(&place, &second)), ("in-use".into(), "idle".into()));
    place.run(&["resources", "cleanup", &first]).expect(2, &["is not removed: container"]);
    engine.remove_container(&user).unwrap();
    assert_eq!(listed(&place, &first).unwrap()["reason"], "it has no name, and no container is made of it");
    let planned = place.run(&["resources", "cleanup", "--dry-run"]).expect(0, &[&first]);
    assert!(!planned.stdout.contains(&reference), "{}", planned.stdout);
    place.run(&["resources", "cleanup", &first]).expect(0, &["removed:"]);
    assert_eq!((standing(&place, &first), standing(&place, &second)), ("gone".into(), "idle".into()));
    engine.remove_image(&reference).unwrap();
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let place = Place::create("cleanup-usage");
    for (words, told) in [
        (&["resources", "cleanup", "x", "--orphans"][..], "leave --orphans"),
        (&["resources", "cleanup", "--storage", "--older-than", "2d"], "have no age"),
        (&["resources", "cleanup", "--storage-configuration", "s.json"], "is for --storage"),
        (&["resources", "cleanup", "--older-than", "soon"], "is not a duration"),
        (&["resources"], "resources"),
    ] {
        place.run(words).expect(2, &[told]);
    }
}
