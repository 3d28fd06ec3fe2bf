//! The image that a benchmark is baked into: built, pushed, pulled.

use sebs_lite::benchmark::Benchmark;
use sebs_lite::cache::{ContainerRecord, Dates, PackageKey};
use sebs_lite::docker::Engine;
use sebs_lite::faas::{Architecture, DockerContainer, FunctionImage, Runtime};
use sebs_lite::local::{BuildChoices, ContainerChoices, prepare};
use sebs_lite::progress::Progress;
use sebs_lite::report::ImageReport;
use sebs_lite::runtime::{self, DEFAULT_REPOSITORY, ImageRequest};
use sebs_lite::{Error, Result};

use crate::commands::Context;
use crate::commands::settings::BuildSettings;

use super::push_named;

/// Builds it, unless it is here or in its registry; the latter has it in the end.
pub(super) fn build(context: &Context, settings: &BuildSettings, engine: &Engine) -> Result<ImageReport> {
    let cache = context.cache()?;
    let benchmark = settings.find_benchmark(&cache)?;
    let progress = context.line.callback();
    let prepared = prepare(&benchmark, &settings.choices, engine, &cache, &context.cancel, &progress)?;
    let image = prepared.package.container.ok_or_else(|| Error::new("the benchmark was not baked"))?;
    Ok(ImageReport::of_function(&image))
}

/// Pushes the one that was built earlier.
pub(super) fn push(context: &Context, settings: &BuildSettings, engine: &Engine) -> Result<ImageReport> {
    let cache = context.cache()?;
    let benchmark = settings.find_benchmark(&cache)?;
    let progress = context.line.callback();
    let named = Named::of(&benchmark, &settings.choices, engine)?;
    let images = named.images(&settings.choices, engine, &progress);
    let name = images.registry_name(&benchmark.name, &named.runtime, named.architecture);
    let own = DockerContainer { repository: DEFAULT_REPOSITORY, ..images };
    let own = own.registry_name(&benchmark.name, &named.runtime, named.architecture);
    let push = || images.push_to_registry(&benchmark.name, &named.runtime, named.architecture);
    let image = push_named(engine, &own.uri, images.repository, &name.tag, push)?;
    let key = PackageKey {
        benchmark: &benchmark.name,
        platform: images.name(),
        language: named.runtime.language.name(),
        variant: &named.runtime.variant,
        version: &named.runtime.version,
        architecture: named.architecture.name(),
    };
    if let Some(known) = cache.container(&key)?.filter(|known| known.image_id == image.id) {
        let image_uri = Some(image.uri.clone());
        cache.put_container(&key, ContainerRecord { image_uri, date: Dates::now(), ..known })?;
    }
    Ok(ImageReport::of_function(&image))
}

/// Fetches it, whether or not it is here.
pub(super) fn pull(context: &Context, settings: &BuildSettings, engine: &Engine) -> Result<ImageReport> {
    let benchmark = settings.find_benchmark(&context.cache()?)?;
    let progress = context.line.callback();
    let named = Named::of(&benchmark, &settings.choices, engine)?;
    let images = named.images(&settings.choices, engine, &progress);
    let image: FunctionImage =
        images.pull_from_registry(&benchmark.name, &named.runtime, named.architecture)?;
    Ok(ImageReport { state: "pulled".to_string(), ..ImageReport::of_function(&image) })
}

/// What an image is called after, without building anything.
struct Named {
    container: ContainerChoices,
    runtime: Runtime,
    architecture: Architecture,
}

impl Named {
    fn of(benchmark: &Benchmark, choices: &BuildChoices, engine: &Engine) -> Result<Named> {
        let architecture = choices.architecture.map_or_else(super::runtime::architecture_of_host, Ok)?;
        let variant = choices.variant.clone().unwrap_or_else(|| "default".to_string());
        let language = choices.language.or_else(|| benchmark.config.supported_languages().first().copied());
        let language = language.ok_or_else(|| {
            Error::usage(format!("benchmark `{}` has no language that is supported here", benchmark.name))
        })?;
        benchmark.check_support(language, &variant)?;
        let version = match &choices.version {
            Some(version) => version.clone(),
            None => {
                let request = ImageRequest {
                    language,
                    version: None,
                    architecture,
                    choice: choices.image_choice,
                    image: None,
                    repository: choices.repository.as_deref(),
                };
                runtime::default_version(engine, &request)?
            }
        };
        let container = choices.container.clone().unwrap_or_default();
        Ok(Named { container, runtime: Runtime { language, version, variant }, architecture })
    }

    fn images<'a>(
        &'a self,
        choices: &'a BuildChoices,
        engine: &'a Engine,
        progress: &'a Progress,
    ) -> DockerContainer<'a> {
        choices.images(&self.container, engine, progress)
    }
}
