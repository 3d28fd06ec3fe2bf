//! Finds what of ours an engine and a cache have.

use std::collections::BTreeMap;
use std::path::Path;

use super::judge::{judge, look_into};
use super::{FoundResource, ResourceKind, Standing};
use crate::benchmark::StoredPackage;
use crate::cache::{Cache, RecordedFunction};
use crate::clock;
use crate::docker::{ContainerSummary, Engine, Owner, Scope, network_of};
use crate::error::Result;
use crate::faas::Function;
use crate::local::PLATFORM;

/// The label of all that we make.
const OURS: &str = "sebs-lite=1";
/// How the names of images begin that are made on this host and of which no registry has any; those of storage have no
/// label.
const OUR_REPOSITORY: &str = "sebs-lite:";
/// What an engine may call an image that has no name.
pub(super) const NO_NAME: &str = "<none>:<none>";

/// All of it. Containers come first: a package that one mounts is in use.
pub(super) fn all(engine: &Engine, cache: &Cache) -> Result<Vec<FoundResource>> {
    let containers = engine.list_containers(&[], Scope::All)?;
    let packages = StoredPackage::list(cache)?;
    let own: Vec<ContainerSummary> = engine.list_containers(&[OURS], Scope::All)?;
    let mut items = Vec::new();
    let is_claimed = |recorded: &RecordedFunction| cache.is_function_claimed(&recorded.key(PLATFORM.name));
    let functions = cache.functions(PLATFORM.name)?.into_iter();
    let functions: Vec<_> = functions.map(|recorded| (is_claimed(&recorded), recorded)).collect();
    let claimed = functions.iter().filter(|(is_claimed, _)| *is_claimed);
    let claimed: Vec<String> = claimed.flat_map(|(_, recorded)| instance_ids(recorded)).collect();
    for container in &own {
        items.push(look_at_container(container, &packages, &claimed)?);
    }
    for (is_claimed, recorded) in functions {
        items.push(look_at_function(recorded, is_claimed, &own, &items));
    }
    for volume in engine.list_volumes(&[OURS])? {
        let (standing, reason) = judged(&volume.labels, &volume.name)?;
        let age_s = age_of_text(&volume.created_at);
        let (kind, id) = (ResourceKind::Volume, volume.name.clone());
        items.push(FoundResource { age_s, ..found(kind, id, volume.name, standing, reason) });
    }
    for network in engine.list_networks(&[OURS])? {
        let (standing, reason) = judged(&network.labels, &network.id)?;
        let age_s = age_of_text(&network.created);
        items.push(FoundResource {
            age_s,
            ..found(ResourceKind::Network, network.id, network.name, standing, reason)
        });
    }
    items.extend(packages.iter().map(|package| look_at_package(package, &containers)));
    for image in engine.list_images(&[])? {
        let is_ours = image.labels.get("sebs-lite").is_some_and(|value| value == "1");
        let names: Vec<&str> =
            image.repo_tags.iter().map(String::as_str).filter(|name| *name != NO_NAME).collect();
        if !is_ours && !names.iter().any(|name| name.starts_with(OUR_REPOSITORY)) {
            continue;
        }
        let users = containers.iter().filter(|container| container.image_id == image.id);
        let users: Vec<&ContainerSummary> = users.collect();
        let (standing, reason) = match used_by(&users, "no container is made of it") {
            // A later command asks for an image by its name alone.
            (Standing::Idle, reason) if names.is_empty() => {
                (Standing::Leftover, format!("it has no name, and {reason}"))
            }
            judged => judged,
        };
        let name = if names.is_empty() { image.id.clone() } else { names.join(", ") };
        items.push(FoundResource {
            age_s: age_of(image.created),
            size_bytes: Some(image.size),
            containers: users.iter().map(|container| container.id.clone()).collect(),
            ..found(ResourceKind::Image, image.id, name, standing, reason)
        });
    }
    Ok(items)
}

fn found(kind: ResourceKind, id: String, name: String, standing: Standing, reason: String) -> FoundResource {
    let (state, age_s, size_bytes, record) = (None, None, None, None);
    FoundResource {
        kind,
        id,
        name,
        standing,
        reason,
        state,
        network: None,
        age_s,
        size_bytes,
        containers: Vec::new(),
        record,
    }
}

/// Judges a thing that its file would know by `name`.
pub(super) fn judged(labels: &BTreeMap<String, String>, name: &str) -> Result<(Standing, String)> {
    let current = Owner::current()?;
    Ok(judge(labels, &|owner| current.liveness_of(owner), &|file| look_into(file, name)))
}

/// `claimed`: the instances of kept functions that commands have claimed.
fn look_at_container(
    container: &ContainerSummary,
    packages: &[StoredPackage],
    claimed: &[String],
) -> Result<FoundResource> {
    let (mut standing, mut reason) = judged(&container.labels, &container.id)?;
    let is_held = |package: &&StoredPackage| package.is_held && mounts(container, &package.location);
    // A later command uses none but those that were kept.
    let may_be_used = matches!(standing, Standing::Kept | Standing::Orphan);
    if may_be_used && (claimed.contains(&container.id) || packages.iter().any(|package| is_held(&package))) {
        (standing, reason) = (Standing::InUse, "a command that runs uses it".to_string());
    }
    let name = name_of(container).to_string();
    Ok(FoundResource {
        state: Some(container.state.clone()),
        network: network_of(&container.labels).map(str::to_string),
        age_s: age_of(container.created),
        ..found(ResourceKind::Container, container.id.clone(), name, standing, reason)
    })
}

fn look_at_function(
    recorded: RecordedFunction,
    is_claimed: bool,
    containers: &[ContainerSummary],
    looked_at: &[FoundResource],
) -> FoundResource {
    let ids = instance_ids(&recorded);
    let there: Vec<&ContainerSummary> =
        containers.iter().filter(|container| ids.contains(&container.id)).collect();
    let is_used = |item: &FoundResource| item.standing == Standing::InUse && ids.contains(&item.id);
    let (standing, reason) = match there.first() {
        _ if is_claimed || looked_at.iter().any(is_used) => {
            (Standing::InUse, "a command that runs uses it".to_string())
        }
        None => (Standing::Leftover, "what the cache records of it is gone from the engine".to_string()),
        Some(first) => (Standing::Kept, format!("container `{}` serves it", name_of(first))),
    };
    FoundResource {
        state: there.first().map(|container| container.state.clone()),
        network: there.first().and_then(|container| network_of(&container.labels)).map(str::to_string),
        age_s: there.iter().filter_map(|container| age_of(container.created)).max(),
        containers: there.iter().map(|container| container.id.clone()).collect(),
        record: Some(recorded.clone()),
        ..found(ResourceKind::Function, recorded.name.clone(), recorded.name, standing, reason)
    }
}

/// The ids of a function's instances, as far as its record is understood.
fn instance_ids(recorded: &RecordedFunction) -> Vec<String> {
    match Function::deserialize_record(recorded.record.clone()) {
        Ok(function) => function.instances.into_iter().map(|instance| instance.instance_id).collect(),
        Err(_) => Vec::new(),
    }
}

fn look_at_package(package: &StoredPackage, containers: &[ContainerSummary]) -> FoundResource {
    let users: Vec<&ContainerSummary> =
        containers.iter().filter(|container| mounts(container, &package.location)).collect();
    let (standing, reason) = match (package.is_held, package.is_whole) {
        (true, true) => (Standing::InUse, "a command that runs uses it".to_string()),
        (true, false) => (Standing::InUse, "a command that runs builds it".to_string()),
        (false, true) => used_by(&users, "no container mounts it"),
        (false, false) => (Standing::Leftover, "its build did not come to its end".to_string()),
    };
    let id = package.location.display().to_string();
    let users = users.iter().map(|container| container.id.clone());
    FoundResource {
        age_s: i64::try_from(package.modified_s).ok().and_then(age_of),
        size_bytes: Some(package.size_bytes),
        containers: if package.is_held { Vec::new() } else { users.collect() },
        ..found(ResourceKind::Package, id, package.benchmark.clone(), standing, reason)
    }
}

fn used_by(users: &[&ContainerSummary], otherwise: &str) -> (Standing, String) {
    match users.first() {
        Some(user) => (Standing::InUse, format!("container `{}` has it", name_of(user))),
        None => (Standing::Idle, otherwise.to_string()),
    }
}

pub(super) fn mounts(container: &ContainerSummary, folder: &Path) -> bool {
    container.mounts.iter().any(|mount| Path::new(&mount.source) == folder)
}

fn name_of(container: &ContainerSummary) -> &str {
    container.names.first().unwrap_or(&container.id)
}

/// Seconds since a time that is given in seconds since the epoch.
fn age_of(epoch_s: i64) -> Option<u64> {
    (epoch_s > 0).then(|| (clock::epoch_seconds() as i64).saturating_sub(epoch_s).max(0) as u64)
}

fn age_of_text(rfc3339: &str) -> Option<u64> {
    clock::parse_rfc3339(rfc3339).and_then(|epoch_s| age_of(epoch_s as i64))
}
