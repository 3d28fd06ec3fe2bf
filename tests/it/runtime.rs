//! Runtime images, made from this host's interpreters on the real engine.

use std::time::Duration;

use sebs_lite::cancel::Cancel;
use sebs_lite::docker::{ContainerSpec, Engine, HostConfig, Lifetime, Owner};
use sebs_lite::faas::{Architecture, Language};
use sebs_lite::http::{Client, Limits, Request};
use sebs_lite::progress::Progress;
use sebs_lite::runtime::{self, ImageChoice, ImageRequest, ImageSource, RuntimeImage};

use crate::program::Place;
use crate::support;

/// A repository of one test, whose images are removed when dropped.
struct Repository {
    name: String,
    engine: Engine,
}

impl Repository {
    fn create(engine: &Engine) -> Repository {
        Repository { name: support::unique("runtime"), engine: engine.clone() }
    }

    fn request(&self, language: Language, choice: ImageChoice) -> ImageRequest<'_> {
        ImageRequest {
            language,
            version: None,
            architecture: Architecture::of_host().unwrap(),
            choice,
            image: None,
            repository: Some(&self.name),
        }
    }

    fn ensure(&self, language: Language, choice: ImageChoice) -> RuntimeImage {
        runtime::ensure(&self.engine, &self.request(language, choice), &Progress::quiet()).unwrap()
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        for image in self.engine.list_images(&["sebs-lite=1"]).unwrap() {
            if image.repo_tags.iter().any(|tag| tag.starts_with(&self.name)) {
                let _ = self.engine.remove_image(&image.id);
            }
        }
    }
}

/// Starts the function server of an image as a user that nobody knows, and gives back its reply to an event.
fn invoke(engine: &Engine, image: &RuntimeImage, place: &Place) -> serde_json::Value {
    let package = place.path("package").display().to_string();
    let spec = ContainerSpec {
        image: image.id.clone(),
        cmd: ["/bin/bash", "/sebs/run_server.sh", "9000"].map(str::to_string).to_vec(),
        user: "12345:12345".to_string(),
        host_config: HostConfig {
            binds: vec![format!("{package}:/function:ro")],
            network_mode: "bridge".to_string(),
            cap_drop: vec!["ALL".to_string()],
            security_opt: vec!["no-new-privileges".to_string()],
            ..HostConfig::default()
        },
        ..ContainerSpec::default()
    };
    let owner = Owner::current().unwrap();
    let container = engine.create_owned(&owner, &Lifetime::Run, &support::unique("function"), spec).unwrap();
    engine.start_container(container.id()).unwrap();
    let inspected = engine.inspect_container(container.id()).unwrap();
    let address = format!("{}:9000", inspected.network_settings.address().unwrap()).parse().unwrap();
    let cancel = Cancel::new();
    let limits = Limits {
        connect: Duration::from_secs(5),
        total: Some(Duration::from_secs(30)),
        max_body_bytes: 1 << 20,
        cancel: &cancel,
        peer_lost: None,
    };
    let alive = Request { method: "GET", path: "/alive", body: None };
    let mut client = Client::new(address, false);
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while client.send(&alive, &limits).1.is_err() {
        let logs = engine.container_logs(container.id(), None).unwrap().combined();
        assert!(std::time::Instant::now() < deadline, "no answer; it wrote: {logs}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let event = Request { method: "POST", path: "/", body: Some(br#"{"number": 20}"#) };
    let response = client.send(&event, &limits).1.unwrap();
    let reply: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    client.close();
    let id = container.id().to_string();
    container.remove().unwrap();
    assert_eq!(response.status, 200, "{reply}");
    assert_eq!(reply["container_id"], id, "{reply}");
    reply
}

#[test]
fn python_of_this_host_becomes_an_image_that_runs_functions_as_any_user() {
    let Some(engine) = support::engine() else { return };
    let repository = Repository::create(&engine);
    let image = repository.ensure(Language::Python, ImageChoice::Host);
    assert_eq!(image.source, ImageSource::Host);
    assert!(image.ours && image.interpreter.as_ref().unwrap().is_file());
    assert!(image.build.starts_with(&image.version) && !image.libc.is_empty(), "{image:?}");
    let place = Place::create("runtime-python");
    place.write("package/function/twice.py", "def twice(number):\n    return 2 * number\n");
    place.write(
        "package/function/function.py",
        "import ctypes, hashlib, os, sqlite3, ssl, uuid, zoneinfo\nfrom . import twice\n\n\
         def handler(event):\n    \
             context = ssl.create_default_context()\n    \
             return {'result': twice.twice(event['number']), 'uid': os.getuid(), 'certificates': len(context.get_ca_certs()),\n            \
                     'zone': str(zoneinfo.ZoneInfo('Europe/Zurich')), 'encoding': __import__('sys').getfilesystemencoding()}\n",
    );
    let reply = invoke(&engine, &image, &place);
    let output = &reply["result"]["output"];
    assert_eq!(
        (&output["result"], &output["uid"], &output["encoding"]),
        (&40.into(), &12345.into(), &"utf-8".into())
    );
    assert!(output["certificates"].as_u64() > Some(10), "{output}");
    let again = repository.ensure(Language::Python, ImageChoice::Local);
    assert_eq!((again.id, again.source), (image.id.clone(), ImageSource::Host));
    // Whoever names a repository or an image may have it from another host.
    assert_eq!(again.interpreter, None);
    let mut request = repository.request(Language::Python, ImageChoice::Auto);
    request.image = Some(&image.reference);
    let named = runtime::ensure(&engine, &request, &Progress::quiet()).unwrap();
    assert_eq!((named.version.as_str(), named.interpreter), (image.version.as_str(), None));
    request.version = Some("3.1");
    let wrong = runtime::ensure(&engine, &request, &Progress::quiet()).unwrap_err();
    assert!(wrong.is_usage() && wrong.to_string().contains("and not 3.1"), "{wrong}");
    let automatic = repository.request(Language::Python, ImageChoice::Auto);
    assert_eq!(runtime::ensure(&engine, &automatic, &Progress::quiet()).unwrap().id, image.id);
}

#[test]
fn node_of_this_host_becomes_an_image_too() {
    let Some(engine) = support::engine() else { return };
    if !support::has_node() {
        return;
    }
    let repository = Repository::create(&engine);
    let image = repository.ensure(Language::Nodejs, ImageChoice::Host);
    assert!(image.build.starts_with(&format!("v{}.", image.version)), "{image:?}");
    let place = Place::create("runtime-node");
    place.write("package/function/twice.js", "exports.twice = (number) => 2 * number;\n");
    place.write(
        "package/function/function.js",
        "const {twice} = require('./twice');\nrequire('crypto'); require('zlib');\n\
         exports.handler = async (event) => ({result: twice(event.number), uid: process.getuid()});\n",
    );
    let reply = invoke(&engine, &image, &place);
    assert_eq!(reply["result"]["output"], serde_json::json!({"result": 40, "uid": 12345}));
}

#[test]
fn an_image_with_another_server_is_made_anew() {
    let Some(engine) = support::engine() else { return };
    let repository = Repository::create(&engine);
    let image = repository.ensure(Language::Python, ImageChoice::Host);
    // The same image with the label that an older version of this crate would have left.
    let dockerfile = format!("FROM {}\nLABEL server={}\n", image.reference, "0".repeat(64));
    support::build(&engine, &image.reference, &[("Dockerfile", &dockerfile)]);
    let request = repository.request(Language::Python, ImageChoice::Local);
    let outdated = runtime::ensure(&engine, &request, &Progress::quiet()).unwrap_err().to_string();
    assert!(outdated.contains("up to date"), "{outdated}");
    let renewed = repository.ensure(Language::Python, ImageChoice::Host);
    assert_eq!(repository.ensure(Language::Python, ImageChoice::Local).id, renewed.id);
    // It lost its name to the one that was built on it.
    let _ = engine.remove_image(&image.id);
}

#[test]
fn an_image_that_nothing_has_is_refused_with_every_reason() {
    let Some(engine) = support::engine() else { return };
    let repository = Repository::create(&engine);
    let ensure =
        |request: &ImageRequest<'_>| runtime::ensure(&engine, request, &Progress::quiet()).unwrap_err();
    // Known, but on no host that has pyenv's newest alone; where it is there, the test has nothing to show.
    if !runtime::host_interpreters(Language::Nodejs).any(|node| node.version() == "14") {
        let mut request = repository.request(Language::Nodejs, ImageChoice::Auto);
        request.version = Some("14");
        let name = format!("localhost:1/{}", repository.name);
        request.repository = Some(&name);
        let refused = ensure(&request).to_string();
        for reason in ["no image for nodejs 14", "local:", "pull:", "host: this host has no nodejs 14"] {
            assert!(refused.contains(reason), "{refused}");
        }
    }
    let mut request = repository.request(Language::Python, ImageChoice::Pull);
    request.repository = None;
    assert!(ensure(&request).is_usage());
    request.choice = ImageChoice::Auto;
    // Be it on this host or not.
    for version in ["2.7", "3.6"] {
        request.version = Some(version);
        let old = ensure(&request);
        assert!(old.is_usage() && old.to_string().contains("3.7"), "{old}");
    }
    let mut foreign = repository.request(Language::Python, ImageChoice::Auto);
    foreign.architecture = match foreign.architecture {
        Architecture::X64 => Architecture::Arm64,
        Architecture::Arm64 => Architecture::X64,
    };
    assert!(ensure(&foreign).is_usage());
    let mut named = repository.request(Language::Python, ImageChoice::Local);
    named.image = Some("sebs-lite-test-no-such-image");
    assert!(ensure(&named).is_not_found());
}
