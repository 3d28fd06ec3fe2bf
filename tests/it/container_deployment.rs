//! Functions that are baked into images, on the real engine and with a real registry.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sebs_lite::benchmark::{Benchmark, Search};
use sebs_lite::cache::Cache;
use sebs_lite::cancel::Cancel;
use sebs_lite::docker::Engine;
use sebs_lite::faas::{Architecture, Language};
use sebs_lite::local::{BuildChoices, ContainerChoices, prepare};
use sebs_lite::progress::Progress;
use sebs_lite::runtime::{self, ImageChoice, ImageRequest};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::deployment::{invoke, start};
use crate::program::{Ended, Place, function, read_json, words};
use crate::registry::{Access, Registry};
use crate::served::{Gate, WAITS_AT_GATE, let_go};
use crate::support::{self, containers};

/// Tells how it stands in its container, and tries to change itself.
const LOOKS: &str = "import os\n\n\
    def refused(path):\n    \
        try:\n        open(path, 'a').close()\n        return False\n    \
        except OSError:\n        return True\n\n\
    def handler(event):\n    \
        here = os.path.dirname(os.path.abspath(__file__))\n    \
        mounts = [line.split()[1] for line in open('/proc/mounts')]\n    \
        return {'result': 'first', 'mounted': [m for m in mounts if m.startswith('/function')], 'uid': os.getuid(),\n            \
                'env': os.environ.get('GREETING'), 'read_only': refused(here + '/function.py') and refused(here + '/new') and refused('/function/new')}\n";

/// Removes the images whose names have a word in them, when dropped.
struct Images {
    word: String,
    engine: Engine,
}

impl Images {
    fn new(engine: &Engine, word: &str) -> Images {
        Images { word: word.to_string(), engine: engine.clone() }
    }

    fn names(&self) -> Vec<String> {
        let images = self.engine.list_images(&["sebs-lite=1"]).unwrap();
        images.into_iter().flat_map(|image| image.repo_tags).filter(|tag| tag.contains(&self.word)).collect()
    }

    /// Takes away all names, and with them what has no other.
    fn remove(&self) {
        for name in self.names() {
            let _ = self.engine.remove_image(&name);
        }
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        self.remove();
    }
}

fn output(invocation: &Value) -> &Value {
    &invocation["output"]["result"]["output"]
}

/// What `docker build` and its like say of the only image.
fn image(ended: Ended) -> Value {
    let told: Value = serde_json::from_str(&ended.expect(0, &[]).stdout).unwrap();
    assert_eq!(told["images"].as_array().unwrap().len(), 1, "{told}");
    told["images"][0].clone()
}

#[test]
fn a_function_is_baked_once_and_again_when_its_code_changes() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("baked"), support::unique("baked"));
    let images = Images::new(&engine, &name);
    // Code that no other test has: the engine would give both one image, which then has another name left.
    let code = format!("{LOOKS}# {name}\n");
    let benchmark = function(&place, &name, &code);
    let run = |more: &[&str]| {
        let container = ["--system-variant", "container", "--repetitions", "2", "--env", "GREETING=hello"];
        place.run(&words(&benchmark, &name, &[&container, more].concat()))
    };
    let mounted = |more: &[&str]| {
        place.run(&words(&benchmark, &name, &[&["--system-variant", "package"], more].concat()))
    };
    run(&["--image-tag-prefix", "mine"]).expect(0, &["building image sebs-lite:function.local."]);
    let tag = format!("sebs-lite:function.local.{name}.python-");
    let names = images.names();
    assert!(names.len() == 1 && names[0].starts_with(&tag) && names[0].contains("-mine-"), "{names:?}");
    let first = engine.inspect_image(&names[0]).unwrap();
    let invocations = place.invocations();
    for (number, invocation) in invocations.iter().enumerate() {
        assert_eq!(invocation["stats"]["cold_start"], number == 0);
        let output = output(invocation);
        assert_eq!(output["mounted"], serde_json::json!([]), "{output}");
        assert_eq!((&output["read_only"], &output["env"]), (&true.into(), &"hello".into()), "{output}");
        assert_eq!(output["uid"], nix::unistd::getuid().as_raw());
    }
    let config = &place.experiments()["config"];
    assert_eq!(config["experiments"]["system_variant"], "container");
    assert_eq!(config["experiments"]["container_deployment"], true);
    assert_eq!(config["function"]["container"]["id"], first.id);
    assert_eq!(config["function"]["container"]["size_bytes"], first.size);

    run(&["--image-tag-prefix", "mine"]).expect(0, &["has this package already"]);
    assert_eq!(engine.inspect_image(&names[0]).unwrap().id, first.id);
    place.write(&format!("{name}/python/function.py"), &code.replace("'first'", "'second'"));
    run(&["--image-tag-prefix", "mine"]).expect(0, &["building image"]);
    assert_eq!(output(&place.invocations()[0])["result"], "second");
    assert_ne!(engine.inspect_image(&names[0]).unwrap().id, first.id);
    assert!(engine.inspect_image(&first.id).unwrap_err().is_not_found(), "the outdated image is left");
    assert_eq!(images.names(), names);

    // The older word for it, in a configuration file.
    let config = place.write("older.json", r#"{"experiments": {"container_deployment": true}}"#);
    mounted(&[]).expect(0, &[]);
    assert_eq!(output(&place.invocations()[0])["mounted"], serde_json::json!(["/function"]));
    let config = config.display().to_string();
    place.run(&words(&benchmark, &name, &["--config", &config])).expect(0, &["building image"]);
    assert_eq!(images.names().len(), 2);
    run(&["--image-tag-prefix", "a b"]).expect(2, &["--image-tag-prefix", "letters"]);
    mounted(&["--image-tag-prefix", "x"]).expect(2, &["--system-variant container"]);
}

#[test]
fn node_runs_from_an_image_of_its_own_too() {
    let Some(engine) = support::engine() else { return };
    if !support::has_node() {
        return;
    }
    let (place, name) = (Place::create("baked-node"), support::unique("baked-node"));
    let _images = Images::new(&engine, &name);
    place.write(&format!("{name}/nodejs/more/twice.js"), "exports.twice = (number) => 2 * number;\n");
    let benchmark = place.path(&name).display().to_string();
    place.write(
        &format!("{name}/nodejs/function.js"),
        "const {twice} = require('./more/twice');\nconst fs = require('fs');\n\
         exports.handler = async (event) => ({result: twice(event.number),\n  \
         mounted: fs.readFileSync('/proc/mounts', 'utf8').includes(' /function')});\n",
    );
    let config = r#"{"timeout": 20, "memory": 128, "languages": ["nodejs"], "modules": []}"#;
    place.write(&format!("{name}/config.json"), config);
    let input = place.write("event.json", r#"{"number": 21}"#).display().to_string();
    let more = ["--system-variant=container", "--input", &input, "--repetitions", "2"];
    place.run(&words(&benchmark, &name, &more)).expect(0, &["cold"]);
    for invocation in place.invocations() {
        let told = output(&invocation);
        assert_eq!((&told["result"], &told["mounted"]), (&42.into(), &false.into()), "{told}");
    }
}

#[test]
fn a_kept_function_is_used_again_if_it_runs_the_image_that_is_asked_for() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("baked-kept"), support::unique("baked-kept"));
    let images = Images::new(&engine, &name);
    // Code that no other test has: its image would have another name left.
    let code = format!("{LOOKS}# {name}\n");
    let benchmark = function(&place, &name, &code);
    let run = |variant: &str, texts: &[&str]| {
        place.run(&words(&benchmark, &name, &["--keep", "--system-variant", variant])).expect(0, texts)
    };
    run("container", &["is kept at"]);
    let kept = containers(&engine, &name);
    run("container", &["using it as it is"]);
    assert_eq!(containers(&engine, &name), kept);
    run("package", &["with other options"]);
    assert_eq!(output(&place.invocations()[0])["mounted"], serde_json::json!(["/function"]));
    run("container", &["with other options"]);
    assert_eq!(output(&place.invocations()[0])["mounted"], serde_json::json!([]));
    let outdated = engine.inspect_image(&images.names()[0]).unwrap().id;
    place.write(&format!("{name}/python/function.py"), &code.replace("'first'", "'second'"));
    run("container", &["with other code: updating it"]);
    assert_eq!(output(&place.invocations()[0])["result"], "second");
    // The image that was in use when the other was built is needed no more.
    place.run(&["resources", "cleanup", "--dry-run"]).expect(0, &[&outdated]);
    place.run(&["resources", "cleanup", &outdated]).expect(0, &["removed:"]);
    assert!(engine.inspect_image(&outdated).unwrap_err().is_not_found());
    assert_eq!(images.names().len(), 1);
    let left = containers(&engine, &name);
    assert_eq!(left.len(), 1);
    engine.remove_container(&left[0]).unwrap();
}

#[test]
fn a_kept_function_that_mounts_nothing_is_in_use_by_the_command_that_has_it() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("baked-used"), support::unique("baked-used"));
    let _images = Images::new(&engine, &name);
    let benchmark = function(&place, &name, WAITS_AT_GATE);
    let baked = ["--system-variant", "container", "--timeout", "100"];
    let run = |more: &[&str]| place.run(&words(&benchmark, &name, &[&baked[..], more].concat()));
    run(&["--keep"]).expect(0, &["is kept at"]);
    let kept = containers(&engine, &name);
    let gate = Gate::open();
    let input = place.write("event.json", &gate.event()).display().to_string();
    let first = place.spawn(&words(&benchmark, &name, &[&baked[..], &["--input", &input]].concat()));
    let waiting = gate.arrival();
    place.run(&["resources", "cleanup", &name]).expect(2, &["a command that runs uses it"]);
    place.run(&["resources", "cleanup", &kept[0]]).expect(2, &["a command that runs uses it"]);
    run(&["--cold"]).expect(0, &["is used by another command", "cold"]);
    assert_eq!(containers(&engine, &name), kept);
    let_go(waiting);
    Ended::from(first.wait_with_output().unwrap()).expect(0, &["using it as it is", "warm"]);
    place.run(&["resources", "cleanup", &name]).expect(0, &["removed"]);
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn other_code_leaves_the_layer_of_what_is_installed_as_it_is() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("baked-layers"), support::unique("baked-layers"));
    let _images = Images::new(&engine, &name);
    let code = "import six\n\ndef handler(event):\n    return {'result': six.__version__}\n";
    let benchmark = function(&place, &name, code);
    place.write(&format!("{name}/python/requirements.txt"), "six==1.17.0\n");
    let cancel = Cancel::new();
    let cache = Cache::open(&place.path("cache"), &cancel).unwrap();
    let extract_to = place.path("bundled");
    let search = Search { roots: &[], data: None, extract_to: &extract_to };
    let choices = BuildChoices { container: Some(ContainerChoices::default()), ..BuildChoices::default() };
    let build = || {
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = told.clone();
        let progress = Progress::to(move |step| sink.lock().unwrap().push(step.detail.to_string()));
        let found = Benchmark::find(&benchmark, &search).unwrap();
        let prepared = prepare(&found, &choices, &engine, &cache, &cancel, &progress).unwrap();
        assert!(prepared.package.container.unwrap().rebuilt);
        told.lock().unwrap().iter().filter(|detail| detail.contains("Using cache")).count()
    };
    build();
    place.write(&format!("{name}/python/function.py"), &code.replace("return", "print(1)\n    return"));
    assert_eq!(build(), 1);
}

#[test]
fn a_baked_function_reads_and_writes_storage_as_a_mounted_one_does() {
    let Some(engine) = support::engine() else { return };
    support::storage_image(&engine, "seaweedfs");
    let (place, name) = (Place::create("baked-storage"), support::unique("baked-storage"));
    let _images = Images::new(&engine, &name);
    let code = "import io\nfrom . import storage\n\n\
        def handler(event):\n    \
            client = storage.storage.get_instance()\n    \
            data = bytes(client.download_stream(event['bucket'], event['input'] + '/key'))\n    \
            stored = client.upload_stream(event['bucket'], event['output'] + '/key', io.BytesIO(data[::-1]))\n    \
            back = bytes(client.download_stream(event['bucket'], stored))\n    \
            return {'result': back.decode()}\n";
    let benchmark = function(&place, &name, code);
    place.write(
        &format!("{name}/input.py"),
        "import tempfile\n\ndef buckets_count():\n    return (1, 1)\n\n\
         def generate_input(data_dir, size, bucket, inputs, outputs, upload, write):\n    \
         with tempfile.NamedTemporaryFile() as file:\n        file.write(b'data'); file.flush()\n        \
         upload(0, 'key', file.name)\n    return {'bucket': bucket, 'input': inputs[0], 'output': outputs[0]}\n",
    );
    place.run(&words(&benchmark, &name, &["--system-variant", "container"])).expect(0, &["building image"]);
    assert_eq!(output(&place.invocations()[0])["result"], "atad");
}

#[test]
fn a_deployment_may_be_of_baked_functions() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("baked-start"), support::unique("baked-start"));
    let _images = Images::new(&engine, &name);
    let benchmark = function(&place, &name, LOOKS);
    let more = ["--system-variant", "container", "--deployments", "2"];
    place.run(&start(&benchmark, &name, &more)).expect(0, &[&name]);
    let file = read_json(&place.path("out/d.json"));
    let functions = file["functions"].as_array().unwrap();
    assert_eq!(functions.len(), 2);
    for function in functions {
        let reply = invoke(function["url"].as_str().unwrap(), "{}");
        assert_eq!(reply["result"]["output"]["mounted"], serde_json::json!([]), "{reply}");
    }
    place.run(&["local", "stop", "out/d.json", "out/m.json"]).expect(0, &[]);
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn an_image_is_in_its_registry_whatever_became_of_it_here_or_there() {
    let Some(engine) = support::engine() else { return };
    let Some(registry) = Registry::start(Access::Open) else { return };
    let (place, name) = (Place::create("registry"), support::unique("registry"));
    let repository = format!("{}/functions", registry.name);
    let images = Images::new(&engine, &registry.name);
    let benchmark = function(&place, &name, &format!("{LOOKS}# {name}\n"));
    let docker = |command: &str, place: &Place, more: &[&str]| {
        let words = ["docker", command, &benchmark, "--repository", &repository, "--json"];
        place.run(&[&words, more].concat())
    };
    let runtimes = |command: &str, place: &Place| {
        place.run(&["docker", command, "--language", "python", "--repository", &repository]).expect(0, &[])
    };
    let built = image(docker("build", &place, &[]));
    assert_eq!((&built["state"], &built["kind"]), (&"built and pushed".into(), &"function".into()));
    let uri = built["image"].as_str().unwrap();
    assert!(uri.starts_with(&format!("{repository}:function.local.{name}.python-")), "{uri}");
    let inspected = engine.inspect_image(uri).unwrap();
    assert_eq!(
        (&built["size_bytes"], &built["image_id"]),
        (&inspected.size.into(), &inspected.id.clone().into())
    );
    let held = engine.find_in_registry(uri).unwrap().unwrap();
    assert_eq!(built["digest"], held.digest);
    let record = || read_json(&place.path(&format!("cache/{name}/config.json")));
    let version = uri.split(".python-").nth(1).unwrap().split('-').next().unwrap();
    let container =
        |record: Value| record["local"]["python"]["containers"]["default"][version]["x64"].clone();
    if cfg!(target_arch = "x86_64") {
        let known = container(record());
        assert_eq!((&known["image-uri"], &known["image-id"]), (&uri.into(), &inspected.id.clone().into()));
        assert_eq!(
            (&known["size"], &known["hash"]),
            (
                &inspected.size.into(),
                &record()["local"]["python"]["code_package"]["default"][version]["x64"]["hash"]
            )
        );
    }

    // Cached, and found there: neither built nor pushed; forced: both.
    assert_eq!(image(docker("build", &place, &[]))["state"], "unchanged");
    assert_eq!(image(docker("build", &place, &["--update-code"]))["state"], "built and pushed");
    // Gone from the registry: pushed again, and not built.
    registry.forget("functions");
    assert_eq!(engine.find_in_registry(uri).unwrap(), None);
    let again = image(docker("build", &place, &[]));
    assert_eq!((&again["state"], &again["image_id"]), (&"unchanged, pushed".into(), &built["image_id"]));
    runtimes("push", &place);

    // Another machine: nothing is here but what the registry has.
    images.remove();
    assert!(engine.inspect_image(&inspected.id).unwrap_err().is_not_found());
    let other = Place::create("registry-other");
    let more = ["--system-variant", "container", "--repository", &repository];
    let ended = other.run(&words(&benchmark, &name, &more)).expect(0, &["pulling image"]);
    assert!(!ended.stderr.contains("building image"), "{}", ended.stderr);
    assert_eq!(output(&other.invocations()[0])["mounted"], serde_json::json!([]));
    assert_eq!(engine.inspect_image(uri).unwrap().id, inspected.id);

    images.remove();
    assert_eq!(
        image(docker("pull", &other, &["--language-version", version]))["image_id"],
        built["image_id"]
    );
    runtimes("pull", &other);
    // Other code: what is here is known to be outdated, and is not pulled to find that out.
    place.write(&format!("{name}/python/function.py"), &LOOKS.replace("'first'", "'second'"));
    let ended = docker("build", &other, &[]);
    assert!(!ended.stderr.contains("pulling image"), "{}", ended.stderr);
    assert_eq!(image(ended)["state"], "built and pushed");
    assert_ne!(engine.find_in_registry(uri).unwrap().unwrap().digest, held.digest);
}

#[test]
fn an_image_that_was_built_without_a_registry_is_pushed_later() {
    let Some(engine) = support::engine() else { return };
    let Some(registry) = Registry::start(Access::Password) else { return };
    let (place, name) = (Place::create("pushed"), support::unique("pushed"));
    let repository = format!("{}/functions", registry.name);
    let _images = [Images::new(&engine, &registry.name), Images::new(&engine, &name)];
    let benchmark = function(&place, &name, LOOKS);
    let push = ["docker", "push", &benchmark, "--repository", &repository, "--json"];
    place.run(&push).expect(1, &["docker build"]);
    place.run(&["docker", "push", &benchmark]).expect(2, &["--repository REGISTRY/NAME"]);
    place.run(&["docker", "push", &benchmark, "--repository", "ada/x"]).expect(2, &["docker.io/NAME"]);
    for word in ["build", "push", "pull"] {
        for repository in ["Bad Name", "localhost:5000/functions:1"] {
            let refused = place.run(&["docker", word, &benchmark, "--repository", repository]);
            refused.expect(2, &[&format!("--repository `{repository}`"), "[HOST[:PORT]/]NAME"]);
        }
    }
    let built = image(place.run(&["docker", "build", &benchmark, "--json"]));
    assert_eq!((&built["state"], &built["digest"]), (&"built".into(), &Value::Null));
    let uri_in_cache = || {
        let record = read_json(&place.path(&format!("cache/{name}/config.json"))).to_string();
        record.contains(&format!("\"image-uri\":\"{repository}:"))
    };
    assert!(!uri_in_cache());
    // A registry that takes the call and never answers, and a user who does not wait for it.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = format!("{}/functions", silent.local_addr().unwrap());
    let named = Images::new(&engine, &nowhere);
    let child = place.spawn(&["docker", "push", &benchmark, "--repository", &nowhere]);
    let _held = silent.accept().unwrap();
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    Ended::from(child.wait_with_output().unwrap()).expect(130, &["interrupted"]);
    assert_eq!(named.names(), [""; 0]);
    // A name that was there before the push stays.
    let (_, tag) = built["image"].as_str().unwrap().rsplit_once(':').unwrap();
    engine.tag_image(built["image_id"].as_str().unwrap(), &nowhere, tag).unwrap();
    drop(silent);
    place.run(&["docker", "push", &benchmark, "--repository", &nowhere]).expect(1, &["cannot be reached"]);
    assert_eq!(named.names(), [format!("{nowhere}:{tag}")]);
    named.remove();
    place.run(&["docker", "push", &benchmark, "--repository", &nowhere]).expect(1, &["cannot be reached"]);
    assert_eq!(named.names(), [""; 0]);

    let login = format!("docker login {}", registry.name);
    let logged_in = |folder: &std::path::Path, words: &[&str]| {
        let mut command = place.command(words);
        Ended::from(command.env("DOCKER_CONFIG", folder).env("RUST_LOG", "trace").output().unwrap())
    };
    let wrong = registry.login("ada", "hush-hush");
    let ended = logged_in(wrong.path(), &push).expect(1, &[&login, "failed to push"]);
    assert!(!ended.stderr.contains("hush"), "{}", ended.stderr);

    // A helper that keeps the password.
    let tools = support::Folder::create();
    let helper = tools.put(
        "docker-credential-sebslite",
        format!(
            "#!/bin/sh\nread -r server\n[ \"$1 $server\" = 'get {}' ] || exit 1\n\
             echo '{{\"ServerURL\": \"x\", \"Username\": \"ada\", \"Secret\": \"secret\"}}'\n",
            registry.name
        ),
    );
    std::fs::set_permissions(&helper, PermissionsExt::from_mode(0o755)).unwrap();
    let helped = support::Folder::create();
    helped.put("config.json", serde_json::json!({"credHelpers": {&registry.name: "sebslite"}}).to_string());
    let missing = logged_in(helped.path(), &push).expect(1, &["docker-credential-sebslite", &login]);
    assert!(missing.stderr.contains("failed to run credential helper"));
    let path = format!("{}:{}", tools.path().display(), std::env::var("PATH").unwrap());
    let mut command = place.command(&push);
    let command = command.env("DOCKER_CONFIG", helped.path()).env("PATH", path).env("RUST_LOG", "trace");
    let ended = Ended::from(command.output().unwrap());
    for secret in ["secret", "c2VjcmV0"] {
        assert!(!(ended.stdout.clone() + &ended.stderr).contains(secret), "{}", ended.stderr);
    }
    let pushed = image(ended);
    assert_eq!((&pushed["state"], &pushed["image_id"]), (&"unchanged, pushed".into(), &built["image_id"]));
    assert!(uri_in_cache());
    let right = registry.login("ada", "secret");
    let engine = engine.with_docker_config(right.path());
    let held = engine.find_in_registry(pushed["image"].as_str().unwrap()).unwrap();
    assert_eq!(pushed["digest"], held.unwrap().digest);
}

#[test]
fn runtime_images_are_built_by_name_and_kind() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("runtimes");
    let word = support::unique("runtimes");
    let images = Images::new(&engine, &word);
    let build = |more: &[&str]| {
        let words = ["docker", "build", "--kind", "run", "--repository", &word, "--image-source", "host"];
        place.run(&[&words, more].concat())
    };
    let told = image(build(&["--language", "python", "--json"]));
    assert_eq!((&told["kind"], &told["state"]), (&"run".into(), &"host".into()));
    assert!(told["size_bytes"].as_u64() > Some(1 << 20), "{told}");
    assert_eq!(images.names(), [told["image"].as_str().unwrap()]);
    build(&["--language", "python", "--language-version", "2.7"]).expect(2, &["3.7"]);
    build(&["--language-version", "3.11", "--all-versions"]).expect(2, &["--all-versions"]);
    build(&["110.dynamic-html"]).expect(2, &["leave `110.dynamic-html` out"]);
    place.run(&["docker", "build", "--kind", "function"]).expect(2, &["needs a benchmark"]);
    place.run(&["docker", "pull", "--language", "python"]).expect(2, &["--repository"]);
}

#[test]
fn another_architecture_is_refused_unless_its_image_runs() {
    let Some(engine) = support::engine() else { return };
    if cfg!(not(target_arch = "x86_64")) {
        return;
    }
    let (place, name) = (Place::create("arm"), support::unique("arm"));
    let benchmark = function(&place, &name, "def handler(event):\n    return {'result': 1}\n");
    let _images = Images::new(&engine, &name);
    let arm = ["--architecture", "arm64", "--system-variant", "container"];
    let ended = place.run(&words(&benchmark, &name, &arm));
    if ended.code == Some(0) {
        eprintln!("SKIPPED: this machine has an emulator of arm64");
        return;
    }
    let told = ["this machine (x86_64) cannot run arm64 images", "binfmt_misc", "qemu-user-static"];
    ended.expect(2, &told);
    let two = place.run(&["benchmark", "package", "010.sleep", "--architecture", "arm64"]).expect(2, &told);
    assert_eq!(two.stderr.matches(told[0]).count(), 1, "{}", two.stderr);

    // An image that says that it is for arm64, and has no interpreter that could run.
    let foreign = load_for(&engine, &format!("{name}:arm"), "arm64", None);
    let refused = ["--image", &foreign, "--language-version", "3.11"];
    place.run(&words(&benchmark, &name, &refused)).expect(2, &["is for arm64", "--architecture arm64"]);
    let tried = [&refused[..], &arm].concat();
    place.run(&words(&benchmark, &name, &tried)).expect(2, &["is for arm64, which this engine does not run"]);

    // One whose interpreter runs, whoever sees to that.
    let python = "#!/bin/sh\necho '{\"version\": [3, 11], \"build\": \"3.11 of arm64\", \"libc\": \"x\"}'\n";
    let emulated = load_for(&engine, &format!("{name}:emulated"), "arm64", Some(python));
    let request = ImageRequest {
        language: Language::Python,
        version: None,
        architecture: Architecture::Arm64,
        choice: ImageChoice::Local,
        image: Some(&emulated),
        repository: None,
    };
    let image = runtime::ensure(&engine, &request, &Progress::quiet()).unwrap();
    assert_eq!((image.version.as_str(), image.build.as_str()), ("3.11", "3.11 of arm64"));
    let other = ImageRequest { architecture: Architecture::X64, ..request };
    assert!(runtime::ensure(&engine, &other, &Progress::quiet()).unwrap_err().is_usage());
}

/// Loads an image that has this host's shell, and may be a `python3`, and says that it is for an architecture; gives back
/// its name.
fn load_for(engine: &Engine, name: &str, architecture: &str, python: Option<&str>) -> String {
    let archived = |files: &[(&str, &[u8])], first: &[u8]| {
        let mut archive = tar::Builder::new(Vec::new());
        for mut entry in tar::Archive::new(first).entries().unwrap().map(Result::unwrap) {
            let (mut header, path) = (entry.header().clone(), entry.path().unwrap().into_owned());
            archive.append_data(&mut header, path, &mut entry).unwrap();
        }
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o755);
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, path, *content).unwrap();
        }
        archive.into_inner().unwrap()
    };
    let programs: Vec<(&str, &[u8])> =
        python.map(|text| ("bin/python3", text.as_bytes())).into_iter().collect();
    let layer = archived(&programs, support::root_folder());
    let digest: String = Sha256::digest(&layer).iter().map(|byte| format!("{byte:02x}")).collect();
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Labels": {"sebs-lite": "1", "sebs-lite.test": name}},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    })
    .to_string();
    let manifest =
        serde_json::json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}])
            .to_string();
    let files: [(&str, &[u8]); 3] =
        [("config.json", config.as_bytes()), ("layer.tar", &layer), ("manifest.json", manifest.as_bytes())];
    let body = archived(&files, &[0; 1024]);
    let mut stream = UnixStream::connect(engine.socket()).unwrap();
    let (version, length) = (engine.api_version(), body.len());
    let head = format!(
        "POST /v{version}/images/load HTTP/1.1\r\nHost: docker\r\nContent-Type: application/x-tar\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let loaded = engine.inspect_image(name).unwrap_or_else(|error| panic!("{error}: {answer}"));
    assert_eq!(loaded.architecture, architecture);
    name.to_string()
}
