//! Removes what of ours nobody needs, and what was asked for by name.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::look::{NO_NAME, judged, mounts};
use super::{FoundResource, Inventory, ResourceKind, Standing};
use crate::benchmark::StoredPackage;
use crate::cache::Cache;
use crate::cancel::Cancel;
use crate::docker::{Engine, Scope};
use crate::error::{Error, Result};
use crate::faas::System;
use crate::local::{Local, LocalOptions};

/// What is to be removed. What is left over is, always; what is in use, or what nobody can judge, never.
#[derive(Clone, Debug, Default)]
pub struct CleanupRequest {
    /// Functions that an earlier command kept, and that no command uses now?
    pub functions: bool,
    /// What no file names any more? It may serve a deployment whose file was moved.
    pub orphans: bool,
    /// Code packages that nobody uses?
    pub packages: bool,
    /// Images that no container is made of?
    pub images: bool,
    /// Only what is older; what has no age is then left alone. `None`: whatever its age.
    pub older_than: Option<Duration>,
    /// These alone, by id or name, be they left over, orphans, idle or functions that were kept; empty: what the others say.
    pub called: Vec<String>,
}

/// What became of it.
#[derive(Debug, Default, Serialize)]
pub struct Cleaned {
    /// What is gone.
    pub removed: Vec<FoundResource>,
    /// What could not be removed, and why.
    #[serde(skip)]
    pub failures: Vec<Error>,
}

impl CleanupRequest {
    /// What of an inventory is to be removed, in the order in which it can be.
    ///
    /// # Errors
    /// A usage error: a word that was given means nothing, or something that somebody needs.
    pub fn select<'a>(&self, inventory: &'a Inventory) -> Result<Vec<&'a FoundResource>> {
        let is_old = |item: &FoundResource| match (self.older_than, item.age_s) {
            (None, _) => true,
            (Some(least), Some(age_s)) => age_s >= least.as_secs(),
            (Some(_), None) => false,
        };
        if !self.called.is_empty() {
            let called = inventory.called(&self.called)?;
            called.iter().try_for_each(|item| check_free(item))?;
            return Ok(called.into_iter().filter(|item| is_old(item)).collect());
        }
        let mut selected: Vec<&FoundResource> = Vec::new();
        let mut doomed: BTreeSet<&str> = BTreeSet::new();
        // Sorted by kind, so that what has a thing in use is looked at before the thing.
        for item in &inventory.items {
            let is_freed = || {
                let mut users = item.containers.iter();
                !item.containers.is_empty() && users.all(|user| doomed.contains(user.as_str()))
            };
            let is_wanted = match (item.standing, item.kind) {
                (Standing::Leftover, _) => true,
                (Standing::Orphan, _) => self.orphans,
                (Standing::Kept, ResourceKind::Function) => self.functions,
                (Standing::Idle, ResourceKind::Package) => self.packages,
                (Standing::Idle, ResourceKind::Image) => self.images,
                (Standing::InUse, ResourceKind::Package) => self.packages && is_freed(),
                (Standing::InUse, ResourceKind::Image) => self.images && is_freed(),
                _ => false,
            };
            if is_wanted && is_old(item) {
                doomed.insert(&item.id);
                doomed.extend(item.containers.iter().map(String::as_str));
                selected.push(item);
            }
        }
        Ok(selected)
    }

    /// Removes it, one thing after another: interrupted, the rest is left to the next. Each is judged once more before.
    ///
    /// # Errors
    /// That of [`CleanupRequest::select`]; the engine does not answer any more, or `cancel` was triggered.
    pub fn run(
        &self,
        inventory: &Inventory,
        engine: &Engine,
        cache: &Cache,
        cancel: &Cancel,
    ) -> Result<Cleaned> {
        let mut remover = Remover { engine, cache, cancel, local: None };
        let mut cleaned = Cleaned::default();
        for item in self.select(inventory)? {
            cancel.check()?;
            match remover.remove(item) {
                Ok(true) => cleaned.removed.push(item.clone()),
                Ok(false) => log::info!("{} `{}` is needed again: it stays", item.kind.name(), item.name),
                Err(error) if error.is_cancelled() || error.is_disconnected() => return Err(error),
                Err(error) => cleaned.failures.push(error),
            }
        }
        Ok(cleaned)
    }
}

fn check_free(item: &FoundResource) -> Result<()> {
    let is_free = match item.standing {
        Standing::Leftover | Standing::Orphan | Standing::Idle => true,
        Standing::Kept => item.kind == ResourceKind::Function,
        Standing::InUse | Standing::Unknown => false,
    };
    if is_free {
        return Ok(());
    }
    let (kind, name, reason) = (item.kind.name(), &item.name, &item.reason);
    let advice = match item.standing {
        Standing::Kept => {
            " (`local stop`, `storage stop` or `resources cleanup FUNCTION` removes what a file names)"
        }
        _ => "",
    };
    Err(Error::usage(format!("{kind} `{name}` is not removed: {reason}{advice}")))
}

struct Remover<'a> {
    engine: &'a Engine,
    cache: &'a Cache,
    cancel: &'a Cancel,
    /// `None`: no function was to be removed yet.
    local: Option<Local>,
}

impl Remover<'_> {
    /// `false`: it is needed, by now.
    fn remove(&mut self, item: &FoundResource) -> Result<bool> {
        match item.kind {
            ResourceKind::Container => match self.engine.inspect_container(&item.id) {
                Ok(found) if judged(&found.config.labels, &item.id)?.0 != item.standing => return Ok(false),
                Ok(_) => self.engine.remove_container(&item.id)?,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            },
            ResourceKind::Volume => match self.engine.inspect_volume(&item.id) {
                Ok(found) if judged(&found.labels, &item.id)?.0 != item.standing => return Ok(false),
                Ok(_) => self.engine.remove_volume(&item.id)?,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            },
            ResourceKind::Network => self.engine.remove_network(&item.id)?,
            // A build that comes out alike gives it a name again.
            ResourceKind::Image if item.standing == Standing::Leftover && self.has_name(item)? => {
                return Ok(false);
            }
            ResourceKind::Image => return unless_in_use(self.remove_image(item)),
            ResourceKind::Package => return unless_in_use(self.remove_package(item)),
            ResourceKind::Function => self.remove_function(item)?,
        }
        Ok(true)
    }

    fn has_name(&self, item: &FoundResource) -> Result<bool> {
        match self.engine.inspect_image(&item.id) {
            Ok(found) => Ok(found.repo_tags.iter().any(|name| name != NO_NAME)),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn remove_image(&self, item: &FoundResource) -> Result<()> {
        // By its names: with more than one, the engine refuses to remove an image by its id.
        item.name.split(", ").try_for_each(|name| match self.engine.remove_image(name) {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome,
        })
    }

    fn remove_package(&self, item: &FoundResource) -> Result<()> {
        let packages = StoredPackage::list(self.cache)?;
        let Some(package) = packages.iter().find(|package| package.location == Path::new(&item.id)) else {
            return Ok(());
        };
        package.remove(&|folder| {
            let containers = self.engine.list_containers(&[], Scope::All)?;
            Ok(containers.iter().any(|container| mounts(container, folder)))
        })
    }

    fn remove_function(&mut self, item: &FoundResource) -> Result<()> {
        let Some(record) = &item.record else { return Ok(()) };
        let local = match self.local.take() {
            Some(local) => local,
            None => {
                Local::new(self.engine.clone(), self.cache.clone(), LocalOptions::default(), self.cancel)?
            }
        };
        self.local.insert(local).delete_recorded(record)
    }
}

/// `false` where somebody has come to use it.
fn unless_in_use(outcome: Result<()>) -> Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.is_conflict() => {
            log::debug!("{error}");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(kind: ResourceKind, id: &str, standing: Standing) -> FoundResource {
        FoundResource {
            kind,
            id: id.to_string(),
            name: format!("{id}-name"),
            standing,
            reason: "so it is".to_string(),
            state: None,
            network: None,
            age_s: Some(3600),
            size_bytes: None,
            containers: Vec::new(),
            record: None,
        }
    }

    fn inventory() -> Inventory {
        use ResourceKind::{Container, Function, Image, Package, Volume};
        let mut items = vec![
            item(Container, "alive", Standing::InUse),
            item(Container, "dead", Standing::Leftover),
            item(Container, "lost", Standing::Orphan),
            item(Container, "named", Standing::Kept),
            item(Container, "far", Standing::Unknown),
            item(Function, "f", Standing::Kept),
            item(Volume, "v", Standing::Orphan),
            item(Package, "p", Standing::InUse),
            item(Package, "q", Standing::Idle),
            item(Image, "i", Standing::Idle),
        ];
        items[5].containers = vec!["named".to_string()];
        items[7].containers = vec!["named".to_string()];
        items[1].age_s = None;
        Inventory { items }
    }

    fn selected(request: &CleanupRequest) -> Vec<String> {
        let inventory = inventory();
        request.select(&inventory).unwrap().iter().map(|item| item.id.clone()).collect()
    }

    #[test]
    fn what_is_left_over_goes_and_the_rest_only_when_it_is_asked_for() {
        let none = CleanupRequest::default();
        assert_eq!(selected(&none), ["dead"]);
        assert_eq!(selected(&CleanupRequest { orphans: true, ..none.clone() }), ["dead", "lost", "v"]);
        assert_eq!(selected(&CleanupRequest { packages: true, ..none.clone() }), ["dead", "q"]);
        assert_eq!(selected(&CleanupRequest { images: true, ..none.clone() }), ["dead", "i"]);
        let functions = CleanupRequest { functions: true, packages: true, ..none.clone() };
        assert_eq!(selected(&functions), ["dead", "f", "p", "q"]);
        let old = |seconds| CleanupRequest {
            orphans: true,
            older_than: Some(Duration::from_secs(seconds)),
            ..none.clone()
        };
        assert_eq!(selected(&old(3600)), ["lost", "v"]);
        assert_eq!(selected(&old(3601)), [""; 0]);
    }

    #[test]
    fn what_is_called_goes_alone_unless_somebody_needs_it() {
        let called =
            |word: &str| CleanupRequest { called: vec![word.to_string()], ..CleanupRequest::default() };
        assert_eq!(selected(&called("lost")), ["lost"]);
        let twice = ["v", "dead", "v-name"].map(str::to_string).to_vec();
        assert_eq!(selected(&CleanupRequest { called: twice, ..CleanupRequest::default() }), ["dead", "v"]);
        assert_eq!(selected(&called("v-name")), ["v"]);
        assert_eq!(selected(&called("f")), ["f"]);
        let inventory = inventory();
        for word in ["alive", "named", "far", "p", "nothing"] {
            assert!(called(word).select(&inventory).unwrap_err().is_usage(), "{word}");
        }
    }
}
