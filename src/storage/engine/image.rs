//! Which engine is run, and of which image: the one that is named, or the first that can be had.

use super::{EngineType, StartRequest, StorageConfig, StorageKind, data};
use crate::docker::Engine;
use crate::error::{Error, Kind, Result};

/// The repository of images that are made on this host, and never pulled.
const LOCAL: &str = "sebs-lite:";

/// An engine, its image, and why it is this one.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) engine: EngineType,
    pub(super) image: String,
    /// A sentence for people.
    pub(super) reason: String,
}

/// What `config` names, else the engine whose data are there, else the first whose image is here, else the first whose
/// image can be pulled.
///
/// # Errors
/// A usage error: an image or a version is configured without an engine. `is_not_found`: no image can be had; the text
/// says why, and what would make one.
pub(super) fn choose(
    engine: &Engine,
    kind: StorageKind,
    config: &StorageConfig,
    request: &StartRequest<'_>,
) -> Result<Choice> {
    if config.engine != EngineType::Auto {
        return named(engine, config, config.engine, request);
    }
    if config.image.is_some() || config.version.is_some() {
        let known = kind.engines().map(EngineType::name).join("` or `");
        return Err(Error::usage(format!(
            "an `image` or `version` of `{kind}` storage needs the `type` of its engine beside it: `{known}`"
        )));
    }
    if let Some((theirs, place)) = data::engine_of_data(kind, config, request)? {
        let mut choice = named(engine, config, theirs, request)?;
        choice.reason = format!("{theirs}: the data in `{place}` are its own");
        return Ok(choice);
    }
    for candidate in kind.engines() {
        let image = image_of(candidate, config)?;
        if is_here(engine, &image)? {
            return Ok(here(candidate, image));
        }
    }
    named(engine, config, kind.engines()[0], request)
}

fn named(
    engine: &Engine,
    config: &StorageConfig,
    candidate: EngineType,
    request: &StartRequest<'_>,
) -> Result<Choice> {
    let image = image_of(candidate, config)?;
    if is_here(engine, &image)? {
        return Ok(here(candidate, image));
    }
    let advice = advice(candidate);
    if image.starts_with(LOCAL) {
        return Err(Error::with_kind(
            Kind::NotFound,
            format!("image `{image}` is not here, and no registry has it: {advice}"),
        )
        .unavailable());
    }
    log::info!("pulling `{image}` for storage `{candidate}`");
    match engine.pull_image(&image, request.progress) {
        Ok(()) => {
            let reason = format!("{candidate}: its image {image} was pulled");
            Ok(Choice { engine: candidate, image, reason })
        }
        Err(error) if error.is_cancelled() => Err(error),
        Err(error) => {
            let text = format!("image `{image}` of `{candidate}` is not here and cannot be had; {advice}");
            Err(Error::from_source(Kind::NotFound, text, error).unavailable())
        }
    }
}

fn here(engine: EngineType, image: String) -> Choice {
    let reason = format!("{engine}: its image {image} is here");
    Choice { engine, image, reason }
}

fn image_of(engine: EngineType, config: &StorageConfig) -> Result<String> {
    engine.image(config).ok_or_else(|| Error::usage(format!("`{engine}` is not run in a container")))
}

fn is_here(engine: &Engine, image: &str) -> Result<bool> {
    match engine.inspect_image(image) {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// What makes an image without a registry of images.
fn advice(engine: EngineType) -> String {
    let is_made = matches!(engine, EngineType::SeaweedFs | EngineType::Dynoxide);
    let other = if engine.kind() == Some(StorageKind::Object) { "seaweedfs" } else { "dynoxide" };
    if is_made {
        format!("`scripts/storage-images {other}` makes one from package registries")
    } else {
        format!(
            "without a registry in reach, `scripts/storage-images {other}` makes an image of `{other}`, which type \
             `auto` finds"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_without_a_registry_is_made_by_a_script() {
        assert!(
            advice(EngineType::Minio).contains("storage-images seaweedfs` makes an image of `seaweedfs`")
        );
        assert!(advice(EngineType::ScyllaDb).contains("storage-images dynoxide"));
        assert!(advice(EngineType::Dynoxide).starts_with("`scripts/storage-images dynoxide` makes one"));
    }
}
