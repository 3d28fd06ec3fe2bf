//! Volumes of a real engine: created, listed, mounted, and removed by their guard or with their dead owner.

use std::collections::BTreeMap;

use sebs_lite::docker::{ContainerSpec, HostConfig, Lifetime, Owner, VolumeMount};

use crate::support::{TestImage, engine, unique};

#[test]
fn a_volume_lives_as_long_as_its_guard() {
    let Some(engine) = engine() else { return };
    let name = unique("volume");
    let label = format!("mark={name}");
    let labels = BTreeMap::from([("mark".to_string(), name.clone())]);
    let owner = Owner::current().unwrap();
    let guard = engine.create_owned_volume(&owner, &Lifetime::Run, &name, labels.clone()).unwrap();
    let found = engine.inspect_volume(guard.name()).unwrap();
    assert_eq!(
        (found.labels["mark"].as_str(), found.labels["sebs-lite.lifetime"].as_str()),
        (name.as_str(), "run")
    );
    assert_eq!(engine.list_volumes(&[&label]).unwrap(), [found]);
    drop(guard);
    assert!(engine.inspect_volume(&name).unwrap_err().is_not_found());
    engine.remove_volume(&name).unwrap();

    let theirs = engine.create_volume(&name, &labels).unwrap();
    let taken = engine.create_owned_volume(&owner, &Lifetime::Run, &name, labels.clone()).unwrap_err();
    assert!(taken.is_conflict() && taken.to_string().contains(&name), "{taken}");
    assert_eq!(engine.inspect_volume(&name).unwrap(), theirs);
    engine.remove_volume(&name).unwrap();

    let guard = engine.create_owned_volume(&owner, &Lifetime::Run, &name, labels).unwrap();
    assert_eq!(guard.keep(), name);
    engine.remove_volume(&name).unwrap();
    assert!(engine.list_volumes(&[&label]).unwrap().is_empty());
}

#[test]
fn a_volume_that_a_container_makes_has_the_labels_of_its_mount() {
    let Some(engine) = engine() else { return };
    let image = TestImage::import(&engine);
    let name = unique("volume");
    let labels = BTreeMap::from([("mark".to_string(), name.clone())]);
    let mount = VolumeMount { name: name.clone(), target: "/data".to_string(), labels: labels.clone() };
    let host_config = HostConfig { mounts: vec![mount], ..HostConfig::default() };
    let spec = ContainerSpec {
        image: image.id.clone(),
        cmd: vec!["/bin/sh".to_string()],
        host_config,
        ..ContainerSpec::default()
    };
    let owner = Owner::current().unwrap();
    let container = engine.create_owned(&owner, &Lifetime::Run, &unique("mounts"), spec).unwrap();
    let inspected = engine.inspect_container(container.id()).unwrap();
    assert_eq!(
        (inspected.mounts[0].name.as_str(), inspected.mounts[0].destination.as_str()),
        (name.as_str(), "/data")
    );
    assert!(engine.remove_volume(&name).unwrap_err().is_conflict());
    container.remove().unwrap();
    assert_eq!(engine.inspect_volume(&name).unwrap().labels, labels);
    engine.remove_volume(&name).unwrap();
}
