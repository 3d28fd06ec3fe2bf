//! Container deployments: a code package baked into an image, which a registry may hold for other machines.

mod archive;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::language::{Architecture, Runtime};
use super::package::CodePackage;
use crate::docker::{BuildOptions, Engine, ImageInspect, RegistryImage, registry_of};
use crate::error::{Context, Error, Result};
use crate::progress::Progress;
use crate::units;

/// The label of a function image; its value is the hash of the code package in it.
pub(crate) const PACKAGE_LABEL: &str = "sebs-lite.package";

/// The most characters that a tag may have (<https://github.com/opencontainers/distribution-spec>).
const LONGEST_TAG: usize = 128;

/// Makes function images on one engine, and knows what they are called. A [`Progress::quiet`] is what SeBS calls
/// `disable_rich_output`.
#[derive(Clone, Copy, Debug)]
pub struct DockerContainer<'a> {
    /// Where images are made and run.
    pub engine: &'a Engine,
    /// Name of the platform that functions run on.
    pub platform: &'a str,
    /// The repository of the images. One that names a registry, such as `127.0.0.1:5000/functions` or
    /// `docker.io/ada/functions`, is pushed to and pulled from; any other is of this engine alone.
    pub repository: &'a str,
    /// Sets tags apart from those of others; `None`: nothing does.
    pub tag_prefix: Option<&'a str>,
    /// Told what is built, pushed and pulled.
    pub progress: &'a Progress,
}

/// What a function image is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryName {
    /// `127.0.0.1:5000`; `None`: the image is of its engine alone.
    pub registry: Option<String>,
    /// The repository in that registry: `functions`.
    pub repository: String,
    /// `function.local.110.dynamic-html.python-3.11-x64-0.1.0`.
    pub tag: String,
    /// All of it, as the engine wants it.
    pub uri: String,
}

/// A code package that is baked into an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionImage {
    /// Its name, with its registry where it is in one.
    pub uri: String,
    /// Its id, `sha256:…`.
    pub id: String,
    /// Bytes of all its layers, those of the runtime image among them.
    pub size_bytes: u64,
    /// Digest of what the registry has, `sha256:…`; `None`: it is in none.
    pub digest: Option<String>,
    /// Was it built now, rather than found?
    pub rebuilt: bool,
    /// Was it sent to the registry now, rather than found there?
    pub pushed: bool,
}

impl FunctionImage {
    /// Its size in MB of 10⁶ bytes.
    pub fn size_mb(&self) -> f64 {
        self.size_bytes as f64 / 1e6
    }
}

/// Is an image built even where one that fits is there?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rebuild {
    /// Only where none fits.
    #[default]
    IfNeeded,
    /// In any case.
    Always,
}

impl DockerContainer<'_> {
    /// Name of the platform that functions run on.
    pub fn name(&self) -> &str {
        self.platform
    }

    /// What the image of a benchmark is called.
    pub fn registry_name(
        &self,
        benchmark: &str,
        runtime: &Runtime,
        architecture: Architecture,
    ) -> RegistryName {
        let (language, version) = (runtime.language, &runtime.version);
        let mut tag = format!("function.{}.{benchmark}.{language}-{version}-{architecture}", self.platform);
        let variant = (runtime.variant != "default").then_some(runtime.variant.as_str());
        let parts = [variant, self.tag_prefix, Some(env!("CARGO_PKG_VERSION"))];
        for part in parts.into_iter().flatten() {
            tag.push('-');
            tag.push_str(part);
        }
        let tag = valid_tag(&tag);
        let registry = registry_of(self.repository).map(str::to_string);
        let below = self.repository.split_once('/').filter(|_| registry.is_some());
        RegistryName {
            repository: below.map_or(self.repository, |(_, below)| below).to_string(),
            uri: format!("{}:{tag}", self.repository),
            registry,
            tag,
        }
    }

    /// What the registry has by that name, without pulling it; `None`: nothing, or the name is of this engine alone, or the
    /// engine cannot tell.
    ///
    /// # Errors
    /// The registry cannot be reached, or wants other credentials (`is_denied`).
    pub fn find_image(&self, name: &RegistryName) -> Result<Option<RegistryImage>> {
        if name.registry.is_none() {
            return Ok(None);
        }
        match self.engine.find_in_registry(&name.uri) {
            // Podman 4.3. What is here is pushed, which sends nothing that the registry has.
            Err(error) if error.is_unavailable() => {
                log::info!("the engine cannot tell what is in a registry: what is here is pushed");
                log::debug!("{error}");
                Ok(None)
            }
            outcome => outcome,
        }
    }

    /// Sends an image that is here to its registry, and gives back the digest that it has there.
    ///
    /// # Errors
    /// A usage error where the name has no registry; `is_not_found` where the image is not here; those of the registry.
    pub fn push_image(&self, name: &RegistryName) -> Result<String> {
        if name.registry.is_none() {
            return Err(no_registry(self.repository));
        }
        log::info!("pushing image {}", name.uri);
        self.engine.push_image(&name.uri, self.progress)
    }

    /// Sends the image of a benchmark, which was built earlier, to the registry, and tells what it is there.
    ///
    /// # Errors
    /// Those of [`DockerContainer::push_image`].
    pub fn push_to_registry(
        &self,
        benchmark: &str,
        runtime: &Runtime,
        architecture: Architecture,
    ) -> Result<FunctionImage> {
        let name = self.registry_name(benchmark, runtime, architecture);
        let digest = self.push_image(&name)?;
        let inspected = self.engine.inspect_image(&name.uri)?;
        Ok(FunctionImage { pushed: true, ..found(&name, &inspected, Some(digest)) })
    }

    /// Fetches the image of a benchmark from the registry.
    ///
    /// # Errors
    /// A usage error where the name has no registry; those of [`Engine::pull_image`].
    pub fn pull_from_registry(
        &self,
        benchmark: &str,
        runtime: &Runtime,
        architecture: Architecture,
    ) -> Result<FunctionImage> {
        let name = self.registry_name(benchmark, runtime, architecture);
        if name.registry.is_none() {
            return Err(no_registry(self.repository));
        }
        self.engine.pull_image_for(&name.uri, architecture.foreign_platform(), self.progress)?;
        let inspected = self.engine.inspect_image(&name.uri)?;
        Ok(found(&name, &inspected, digest_in(&inspected)))
    }

    /// The image of a code package: the one that is here or in the registry where it has that very package in it, else
    /// one that is built now. In the end the registry, where there is one, has it.
    ///
    /// # Errors
    /// The engine cannot build it; the registry cannot be reached, or does not take it.
    pub fn build_base_image(&self, package: &CodePackage, rebuild: Rebuild) -> Result<FunctionImage> {
        let name = self.registry_name(&package.benchmark, &package.runtime, package.architecture);
        let make = || {
            if rebuild == Rebuild::IfNeeded
                && let Some(image) = self.reuse(&name, package)?
            {
                log::info!("image {} has this package already: using it as it is", image.uri);
                return Ok(image);
            }
            self.build(&name, package)
        };
        make().context(|| format!("failed to bake benchmark `{}` into an image", package.benchmark))
    }

    /// An image that has the package in it, from here or from the registry.
    fn reuse(&self, name: &RegistryName, package: &CodePackage) -> Result<Option<FunctionImage>> {
        let fits = |image: &ImageInspect| image.config.labels.get(PACKAGE_LABEL) == Some(&package.hash);
        let here = self.inspect(&name.uri)?;
        if name.registry.is_none() {
            return Ok(here.filter(fits).map(|image| found(name, &image, None)));
        }
        let held = self.find_image(name)?;
        let is_held = |image: &ImageInspect| {
            held.as_ref().is_some_and(|held| {
                image.repo_digests.iter().any(|known| known.ends_with(&format!("@{}", held.digest)))
            })
        };
        match (here, held.as_ref()) {
            (Some(image), Some(held)) if fits(&image) && is_held(&image) => {
                Ok(Some(found(name, &image, Some(held.digest.clone()))))
            }
            (Some(image), _) if fits(&image) => {
                log::info!("image {} is not known to be in its registry", name.uri);
                let digest = self.push_image(name)?;
                Ok(Some(FunctionImage { pushed: true, ..found(name, &image, Some(digest)) }))
            }
            // What the registry has is what is here, and that is outdated.
            (Some(image), Some(_)) if is_held(&image) => Ok(None),
            (_, Some(held)) => {
                log::info!("pulling image {}", name.uri);
                let platform = package.architecture.foreign_platform();
                self.engine.pull_image_for(&name.uri, platform, self.progress)?;
                let pulled = self.engine.inspect_image(&name.uri)?;
                Ok(fits(&pulled).then(|| found(name, &pulled, Some(held.digest.clone()))))
            }
            (_, None) => Ok(None),
        }
    }

    fn build(&self, name: &RegistryName, package: &CodePackage) -> Result<FunctionImage> {
        log::info!("building image {}", name.uri);
        let outdated = self.inspect(&name.uri)?;
        let options = BuildOptions {
            tag: name.uri.clone(),
            labels: BTreeMap::from([
                ("sebs-lite".to_string(), "1".to_string()),
                (PACKAGE_LABEL.to_string(), package.hash.clone()),
            ]),
            platform: package.architecture.foreign_platform().to_string(),
            ..BuildOptions::default()
        };
        self.engine.persist(|| {
            archive::with_archive(package, |archive| {
                self.engine.build_image(archive, &options, self.progress)
            })
        })?;
        let inspected = self.engine.inspect_image(&name.uri)?;
        if let Some(outdated) = outdated.filter(|outdated| outdated.id != inspected.id) {
            // It has lost its name; a container that still runs it, or another name, keeps it.
            let _ = self.engine.remove_image(&outdated.id);
        }
        let digest = name.registry.as_ref().map(|_| self.push_image(name)).transpose()?;
        Ok(FunctionImage { rebuilt: true, pushed: digest.is_some(), ..found(name, &inspected, digest) })
    }

    fn inspect(&self, reference: &str) -> Result<Option<ImageInspect>> {
        match self.engine.inspect_image(reference) {
            Err(error) if error.is_not_found() => Ok(None),
            outcome => outcome.map(Some),
        }
    }
}

fn found(name: &RegistryName, image: &ImageInspect, digest: Option<String>) -> FunctionImage {
    FunctionImage {
        uri: name.uri.clone(),
        id: image.id.clone(),
        size_bytes: image.size,
        digest,
        rebuilt: false,
        pushed: false,
    }
}

/// The digest that an image has in the registry it was pulled from.
fn digest_in(image: &ImageInspect) -> Option<String> {
    Some(image.repo_digests.first()?.split_once('@')?.1.to_string())
}

/// A repository without a registry would be one on Docker Hub, which nobody is to find his code on by mistake.
fn no_registry(repository: &str) -> Error {
    Error::usage(format!(
        "repository `{repository}` names no registry: write `--repository REGISTRY/NAME`, for Docker Hub `docker.io/NAME`"
    ))
}

/// The tag as it is where the engine takes it; else what it may not have is replaced, and a hash keeps it apart from
/// others that come out alike.
fn valid_tag(tag: &str) -> String {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if tag.len() <= LONGEST_TAG && tag.chars().all(is_allowed) {
        return tag.to_string();
    }
    let hash = &units::hexadecimal(&Sha256::digest(tag.as_bytes()))[..12];
    let replaced = tag.chars().map(|c| if is_allowed(c) { c } else { '_' });
    let kept: String = replaced.take(LONGEST_TAG - hash.len() - 1).collect();
    format!("{kept}-{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faas::Language;

    #[test]
    fn a_tag_that_no_engine_takes_is_made_one_that_is_still_its_own() {
        assert_eq!(valid_tag("function.local.a-b_c.1"), "function.local.a-b_c.1");
        let (blank, slash) = (valid_tag("my function"), valid_tag("my/function"));
        assert!(blank.starts_with("my_function-") && blank != slash, "{blank}");
        let long = valid_tag(&"ä".repeat(300));
        assert_eq!(long.len(), LONGEST_TAG);
        assert_ne!(long, valid_tag(&"ä".repeat(301)));
    }

    #[test]
    fn an_image_is_called_after_all_that_sets_it_apart() {
        let progress = Progress::quiet();
        let folder = crate::files::TempFolder::create().unwrap();
        let engine = Engine::unreachable(&folder.path().join("none.sock"));
        let container = |repository, tag_prefix| DockerContainer {
            engine: &engine,
            platform: "local",
            repository,
            tag_prefix,
            progress: &progress,
        };
        let runtime = |variant: &str| Runtime {
            language: Language::Python,
            version: "3.11".to_string(),
            variant: variant.to_string(),
        };
        let version = env!("CARGO_PKG_VERSION");
        let name = container("127.0.0.1:5000/a/b", None).registry_name(
            "110.dynamic-html",
            &runtime("default"),
            Architecture::X64,
        );
        let tag = format!("function.local.110.dynamic-html.python-3.11-x64-{version}");
        assert_eq!(name.registry.as_deref(), Some("127.0.0.1:5000"));
        assert_eq!((name.repository.as_str(), &name.tag), ("a/b", &tag));
        assert_eq!(name.uri, format!("127.0.0.1:5000/a/b:{tag}"));
        let local =
            container("sebs-lite", Some("mine")).registry_name("f", &runtime("pypy"), Architecture::Arm64);
        assert_eq!((local.registry, local.repository.as_str()), (None, "sebs-lite"));
        assert_eq!(local.tag, format!("function.local.f.python-3.11-arm64-pypy-mine-{version}"));
        let runtime = runtime("default");
        let refused = container("ada/functions", None).push_to_registry("f", &runtime, Architecture::X64);
        let refused = refused.unwrap_err();
        assert!(refused.is_usage() && refused.to_string().contains("docker.io/NAME"), "{refused}");
    }
}
