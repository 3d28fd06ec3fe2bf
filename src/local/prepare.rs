//! From a benchmark to its code package, mounted or baked: the first language that has a runtime image, and a build on that image.

use std::collections::BTreeSet;
use std::path::Path;

use crate::benchmark::{Benchmark, BuildRequest, KnownPackage};
use crate::cache::{Cache, ContainerRecord, Dates, PackageKey};
use crate::cancel::Cancel;
use crate::docker::{Engine, Owner};
use crate::error::{Error, Result};
use crate::faas::{Architecture, CodePackage, DockerContainer, Language, Rebuild, Runtime};
use crate::progress::Progress;
use crate::runtime::{self, ImageChoice, ImageRequest, RuntimeImage};

/// What a benchmark is to be built for; the default leaves every choice to the benchmark and to what is here.
#[derive(Clone, Debug, Default)]
pub struct BuildChoices {
    /// `None`: the benchmark's first language that has an image.
    pub language: Option<Language>,
    /// Version of the language; `None`: see [`runtime::default_version`].
    pub version: Option<String>,
    /// Variant of the benchmark's code; `None`: `default`.
    pub variant: Option<String>,
    /// `None`: this machine's.
    pub architecture: Option<Architecture>,
    /// Where the runtime image may come from.
    pub image_choice: ImageChoice,
    /// Any image that keeps the function server's contract; `None`: one of ours.
    pub image: Option<String>,
    /// The repository to name images after and to pull them from; `None`: ours, which is never pulled from.
    pub repository: Option<String>,
    /// Is the package baked into an image, and how? `None`: it is mounted.
    pub container: Option<ContainerChoices>,
    /// Build even where nothing has changed?
    pub update_code: bool,
    /// Log what the tools print?
    pub verbose: bool,
}

/// How a package is baked into an image.
#[derive(Clone, Debug, Default)]
pub struct ContainerChoices {
    /// Sets the image's tag apart from those of others; `None`: nothing does.
    pub tag_prefix: Option<String>,
}

/// A benchmark that is ready to be deployed.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The image it runs on.
    pub image: RuntimeImage,
    /// The package, and the image it is baked into where it is.
    pub package: CodePackage,
}

/// Gets the runtime image and builds the package, unless the cache has it as it should be; bakes it into an image where
/// that is chosen.
///
/// # Errors
/// No language of the benchmark has an image, or the build failed.
pub fn prepare(
    benchmark: &Benchmark,
    choices: &BuildChoices,
    engine: &Engine,
    cache: &Cache,
    cancel: &Cancel,
    progress: &Progress,
) -> Result<Prepared> {
    let architecture = match choices.architecture.or_else(Architecture::of_host) {
        Some(architecture) => architecture,
        None => {
            let text =
                format!("this machine's processor ({}) is neither x64 nor arm64", std::env::consts::ARCH);
            return Err(Error::usage(text));
        }
    };
    // A killed command's containers may still write where this one builds.
    super::remove_left_behind(engine, &Owner::current()?)?;
    let variant = choices.variant.clone().unwrap_or_else(|| "default".to_string());
    let image = image(benchmark, choices, &variant, architecture, engine, progress)?;
    let language = image.language;
    log::info!(
        "running on {language} {}: image {}, {}",
        image.version,
        image.reference,
        image.source.story()
    );
    let runtime = Runtime { language, version: image.version.clone(), variant };
    let key = PackageKey {
        benchmark: &benchmark.name,
        platform: "local",
        language: language.name(),
        variant: &runtime.variant,
        version: &runtime.version,
        architecture: architecture.name(),
    };
    let known = cache.package(&key)?.map(|record| KnownPackage {
        hash: record.hash,
        location: cache.root().join(record.location),
        size_bytes: record.size,
    });
    let request = BuildRequest {
        benchmark,
        runtime: &runtime,
        architecture,
        image: &image,
        engine: Some(engine),
        cache_folder: &cache.package_folder(&key),
        known: known.as_ref(),
        update_code: choices.update_code,
        verbose: choices.verbose,
        cancel,
        progress,
    };
    let mut package = request.build()?;
    if known.is_none_or(|known| known.hash != package.hash || known.location != package.location) {
        cache.put_package(&key, Path::new(&package.location), package.size_bytes, &package.hash)?;
    }
    if let Some(container) = &choices.container {
        let rebuild = if choices.update_code { Rebuild::Always } else { Rebuild::IfNeeded };
        let baked = choices.images(container, engine, progress).build_base_image(&package, rebuild)?;
        package.container = Some(baked);
        note_container(&package, &key, cache)?;
    }
    Ok(Prepared { image, package })
}

impl BuildChoices {
    /// What makes and names the images of functions.
    pub fn images<'a>(
        &'a self,
        container: &'a ContainerChoices,
        engine: &'a Engine,
        progress: &'a Progress,
    ) -> DockerContainer<'a> {
        DockerContainer {
            engine,
            platform: "local",
            repository: self.repository.as_deref().unwrap_or(runtime::DEFAULT_REPOSITORY),
            tag_prefix: container.tag_prefix.as_deref(),
            progress,
        }
    }
}

/// Records the image that a package was baked into.
fn note_container(package: &CodePackage, key: &PackageKey<'_>, cache: &Cache) -> Result<()> {
    let Some(image) = &package.container else { return Ok(()) };
    let record = ContainerRecord {
        size: image.size_bytes,
        hash: package.hash.clone(),
        date: Dates::now(),
        image_uri: image.digest.is_some().then(|| image.uri.clone()),
        image_id: image.id.clone(),
    };
    cache.put_container(key, record)
}

/// The image of the language that was chosen, else of the benchmark's first that has one.
fn image(
    benchmark: &Benchmark,
    choices: &BuildChoices,
    variant: &str,
    architecture: Architecture,
    engine: &Engine,
    progress: &Progress,
) -> Result<RuntimeImage> {
    let mut candidates = match choices.language {
        Some(language) => vec![language],
        None => benchmark.config.supported_languages(),
    };
    if choices.image.is_some() {
        // An image runs one language: which one is not guessed.
        candidates.truncate(1);
    }
    let mut refusals: Vec<Error> = Vec::new();
    for language in candidates {
        if let Err(error) = benchmark.check_support(language, variant) {
            refusals.push(error);
            continue;
        }
        let request = ImageRequest {
            language,
            version: choices.version.as_deref(),
            architecture,
            choice: choices.image_choice,
            image: choices.image.as_deref(),
            repository: choices.repository.as_deref(),
        };
        match runtime::ensure(engine, &request, progress) {
            Ok(image) => return Ok(image),
            Err(error) if error.is_cancelled() || error.is_disconnected() => return Err(error),
            Err(error) => refusals.push(error),
        }
    }
    let name = &benchmark.name;
    // A version that is none of one language may be one of another: only what came of that tells the user anything.
    if refusals.iter().any(|error| !error.is_usage()) {
        refusals.retain(|error| !error.is_usage());
    }
    // What is wrong for each language alike is said once.
    let mut told = BTreeSet::new();
    refusals.retain(|error| told.insert(error.to_string()));
    match refusals.len() {
        0 => {
            let known: Vec<&str> =
                benchmark.config.languages.iter().map(|support| support.name.as_str()).collect();
            let known = known.join(", ");
            Err(Error::usage(format!(
                "benchmark `{name}` has no language that is supported here: it has {known}"
            )))
        }
        1 => Err(refusals.remove(0)),
        _ => {
            let reasons: Vec<String> = refusals.iter().map(Error::to_string).collect();
            let reasons = reasons.join("; ");
            let text = format!("no language of benchmark `{name}` has a runtime image here: {reasons}");
            // What is wrong for each language is wrong with what was asked for.
            Err(if refusals.iter().all(Error::is_usage) {
                Error::usage(text)
            } else {
                Error::new(text).unavailable()
            })
        }
    }
}
