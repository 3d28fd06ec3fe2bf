//! Functions on a network of the user's: how they are reached there, what is refused, and what a kept one is told from.

use std::process::Command;

use sebs_lite::docker::{ChosenNetwork, ContainerSpec, Engine, HostConfig, Lifetime, OwnedContainer, Owner};
use sebs_lite::faas::{FunctionConfig, StartKind, System};
use sebs_lite::local::{AddressMode, LocalOptions};
use serde_json::{Value, json};

use crate::deployment::{ECHO, start};
use crate::program::{Place, function, words};
use crate::served::{Gate, Served, WAITS_AT_GATE, prepared};
use crate::support::{self, containers, unique};

/// A network of a test's own, removed when dropped, after all that has joined it.
pub(crate) struct TestNetwork {
    pub(crate) name: String,
}

impl TestNetwork {
    pub(crate) fn create(more: &[&str]) -> TestNetwork {
        let name = unique("network");
        docker(&[&["network", "create", "--label", "sebs-lite.test=1"], more, &[&name]].concat());
        TestNetwork { name }
    }

    pub(crate) fn id(&self, engine: &Engine) -> String {
        engine.inspect_network(&self.name).unwrap().id
    }

    /// The address of a container on it; empty while it does not run.
    pub(crate) fn address_of(&self, engine: &Engine, container: &str) -> String {
        let found = engine.inspect_container(container).unwrap();
        found.network_settings.networks[&self.name].ip_address.clone()
    }

    /// A container on it that sleeps.
    pub(crate) fn occupant(&self, engine: &Engine, image: &str) -> OwnedContainer {
        let spec = ContainerSpec {
            image: image.to_string(),
            cmd: vec!["sleep".to_string(), "600".to_string()],
            host_config: HostConfig { network_mode: self.name.clone(), init: true, ..HostConfig::default() },
            ..ContainerSpec::default()
        };
        let owner = Owner::current().unwrap();
        let occupant = engine.create_owned(&owner, &Lifetime::Run, &unique("occupant"), spec).unwrap();
        engine.start_container(occupant.id()).unwrap();
        occupant
    }
}

impl Drop for TestNetwork {
    fn drop(&mut self) {
        let removed = Command::new("docker").args(["network", "rm", &self.name]).output().unwrap();
        if !removed.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&removed.stderr));
        }
    }
}

pub(crate) fn docker(words: &[&str]) -> String {
    let done = Command::new("docker").args(words).output().unwrap();
    assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// How a platform has functions on that network.
pub(crate) fn on(network: &TestNetwork) -> LocalOptions {
    LocalOptions { network: Some(network.name.clone()), ..LocalOptions::default() }
}

#[test]
fn functions_are_reached_on_a_network_cold_warm_and_several_at_a_time() {
    let Some(engine) = support::engine() else { return };
    let network = TestNetwork::create(&[]);
    // By the first digits of its id, too.
    let called = network.id(&engine)[..12].to_string();
    let options = LocalOptions { network: Some(called), ..LocalOptions::default() };
    let mut served = Served::start(&engine, WAITS_AT_GATE, options);
    let id = served.function.instances[0].instance_id.clone();
    let address = network.address_of(&engine, &id);
    assert_eq!(served.function.instances[0].url, format!("{address}:9000"));
    let found = engine.inspect_container(&id).unwrap();
    assert_eq!(found.host_config.network_mode, network.name);
    assert_eq!(
        (found.own_network(), found.own_address()),
        (Some(network.name.as_str()), Some(address.as_str()))
    );
    let cold: Vec<bool> = (0..2)
        .map(|_| {
            let result = served.local.invoke(&mut served.function, "{}").unwrap();
            assert!(!result.stats.failure, "{:?}", result.invocation.error);
            result.stats.cold_start
        })
        .collect();
    assert_eq!(cold, [true, false]);

    let (gate, invoker) = (Gate::open(), served.local.invoker(&served.function));
    let event = gate.event();
    let results = std::thread::scope(|scope| {
        let invocations = [(); 3].map(|()| scope.spawn(|| invoker.invoke(&event, StartKind::Any).unwrap()));
        gate.let_through(3);
        invocations.map(|invocation| invocation.join().unwrap())
    });
    for result in results {
        assert!(!result.stats.failure, "{:?}", result.invocation.error);
        let id = result.invocation.instance_id.unwrap();
        assert!(!network.address_of(&engine, &id).is_empty());
    }
    served.end(&engine);
}

#[test]
fn an_internal_network_has_its_addresses_and_nothing_published() {
    let Some(engine) = support::engine() else { return };
    let network = TestNetwork::create(&["--internal"]);
    let mut published = LocalOptions { host_port: Some(1), ..on(&network) };
    let refused = published.check_network(&engine).unwrap_err();
    assert!(refused.is_usage() && refused.to_string().contains("an internal bridge network"), "{refused}");
    let mut options = on(&network);
    options.check_network(&engine).unwrap();
    assert_eq!(options.address, AddressMode::Bridge);
    let mut served = Served::start(&engine, WAITS_AT_GATE, options);
    let result = served.local.invoke(&mut served.function, "{}").unwrap();
    assert!(!result.stats.failure, "{:?}", result.invocation.error);
    served.end(&engine);
}

#[test]
fn a_network_that_is_gone_is_named_by_what_was_to_start_on_it() {
    let Some(engine) = support::engine() else { return };
    let network = TestNetwork::create(&[]);
    let place = Place::create("gone");
    let (package, mut local) = prepared(&engine, &place, WAITS_AT_GATE, on(&network));
    let config = FunctionConfig::from_package(&package);
    let (name, called) = (unique("gone"), network.name.clone());
    drop(network);
    let error = local.create_function(&package, &name, &config).unwrap_err().to_string();
    assert!(error.contains(&called) && error.contains("not found"), "{error}");
    assert_eq!(containers(&engine, &name), [""; 0]);
    local.shutdown().unwrap();
}

#[test]
fn one_that_was_taken_off_its_network_is_named_though_it_is_on_another() {
    let Some(engine) = support::engine() else { return };
    let (network, other) = (TestNetwork::create(&[]), TestNetwork::create(&[]));
    for address in [AddressMode::Bridge, AddressMode::Published] {
        let mut served = Served::start(&engine, WAITS_AT_GATE, LocalOptions { address, ..on(&network) });
        let short = FunctionConfig { timeout: 3, ..served.config.clone() };
        served.local.update_function_configuration(&mut served.function, &served.package, &short).unwrap();
        let (gate, invoker) = (Gate::open(), served.local.invoker(&served.function));
        let event = gate.event();
        let id = served.function.instances[0].instance_id.clone();
        docker(&["network", "connect", &other.name, &id]);
        let result = std::thread::scope(|scope| {
            let invocation = scope.spawn(|| invoker.invoke(&event, StartKind::Any).unwrap());
            let _waiting = gate.arrival();
            docker(&["network", "disconnect", "-f", &network.name, &id]);
            invocation.join().unwrap()
        });
        let error = result.invocation.error.unwrap_or_default();
        assert!(error.contains("was disconnected from its network"), "{address:?}: {error}");
        let next = served.local.invoke(&mut served.function, "{}").unwrap();
        assert!(!next.stats.failure, "{:?}", next.invocation.error);
        assert_ne!(served.function.instances[0].instance_id, id);
        served.end(&engine);
    }
}

#[test]
fn a_network_that_cannot_be_had_is_refused_before_anything_is_made() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("refused");
    let (network, internal) = (TestNetwork::create(&[]), TestNetwork::create(&["--internal"]));
    let (benchmark, name) = (function(&place, "echo", ECHO), unique("refused"));
    let invoke = |more: &[&str]| place.run(&words(&benchmark, &name, more));
    let missing = unique("no-such-network");
    let there = format!("`{}`", network.name);
    for (called, told) in [
        (missing.as_str(), ["there is no network", &there]),
        ("host", ["same port of this host", "network `host`"]),
        ("none", ["has no address", "network `none`"]),
        ("container:x", ["no address of its own", "another container"]),
        ("", ["has a name", "leave"]),
    ] {
        invoke(&["--network", called]).expect(2, &told);
        let mut options = LocalOptions { network: Some(called.to_string()), ..LocalOptions::default() };
        assert!(options.check_network(&engine).unwrap_err().is_usage());
    }
    invoke(&["--network", &internal.name, "--port", "9777"]).expect(2, &["cannot be published"]);
    invoke(&["--network", &internal.name, "--address", "published"]).expect(2, &["cannot be published"]);
    let start = start(&benchmark, &name, &["--network", &missing]);
    place.run(&start).expect(2, &["there is no network", &there]);
    place.run(&["storage", "start", "nosql", "--network", &missing]).expect(2, &["there is no network"]);
    place.run(&["benchmark", "regression", "--network", &missing]).expect(2, &["there is no network"]);
    for made in ["storage.json", "out/d.json", "experiments.json", "regression"] {
        assert!(!place.path(made).exists(), "{made}");
    }
    // By whatever it is called, the default network is no network of the user's.
    let default = engine.inspect_network("bridge").unwrap();
    for called in [None, Some("bridge"), Some(default.id.as_str())] {
        assert_eq!(ChosenNetwork::find(&engine, called).unwrap(), None);
    }
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn a_function_that_is_kept_is_another_on_another_network() {
    let Some(engine) = support::engine() else { return };
    let (place, name, network) = (Place::create("keeps"), unique("keeps"), TestNetwork::create(&[]));
    let benchmark = function(&place, "echo", ECHO);
    let invoke = |more: &[&str]| {
        place.run(&words(&benchmark, &name, &[&["--keep"], more].concat())).expect(0, &[]);
        let invocation = place.invocations().remove(0);
        let recorded = place.experiments()["config"]["function"].get("network").cloned();
        (invocation["invocation"]["instance_id"].clone(), invocation["stats"]["cold_start"].clone(), recorded)
    };
    let there = ["--network", &network.name];
    let (on_default, _, none) = invoke(&[]);
    let (on_network, is_cold, recorded) = invoke(&there);
    assert_ne!(on_default, on_network);
    assert_eq!((is_cold, none, recorded), (json!(true), None, Some(json!(network.name))));
    assert_eq!(invoke(&there).0, on_network);
    assert_eq!(containers(&engine, &name).len(), 1);
    let listed = place.run(&["resources", "list"]).expect(0, &[&format!("on network `{}`", network.name)]);
    assert!(listed.stdout.lines().any(|line| line.starts_with("function") && line.contains(&network.name)));
    let listed: Value =
        serde_json::from_str(&place.run(&["resources", "list", "--json"]).expect(0, &[]).stdout).unwrap();
    let own = listed["resources"].as_array().unwrap().iter().filter(|item| item["id"] == on_network);
    assert_eq!(own.map(|item| &item["network"]).collect::<Vec<_>>(), [&json!(network.name)]);
    assert_ne!(invoke(&[]).0, on_network);
    place.run(&["resources", "cleanup", &name]).expect(0, &["removed"]);
    assert_eq!(containers(&engine, &name), [""; 0]);
}
