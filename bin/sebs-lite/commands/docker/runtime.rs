//! The images that functions run on: built, pushed, pulled.

use sebs_lite::docker::Engine;
use sebs_lite::faas::{Architecture, Language};
use sebs_lite::local::BuildChoices;
use sebs_lite::report::ImageReport;
use sebs_lite::runtime::{self, ImageChoice, ImageRequest};
use sebs_lite::{Error, Result};

use crate::commands::Context;
use crate::commands::settings::BuildSettings;

use super::{Target, push_named};

/// Gets each image from where it may come from.
pub(super) fn build(
    context: &Context,
    target: &Target,
    settings: &BuildSettings,
    engine: &Engine,
) -> Result<Vec<ImageReport>> {
    let progress = context.line.callback();
    for_each(target, &settings.choices, engine, |request| {
        let image = runtime::ensure(engine, request, &progress)?;
        report(engine, &image.reference, image.source.to_string())
    })
}

/// Pushes each image that is here, by its registry's name or without.
pub(super) fn push(
    context: &Context,
    target: &Target,
    settings: &BuildSettings,
    engine: &Engine,
) -> Result<Vec<ImageReport>> {
    let progress = context.line.callback();
    for_each(target, &settings.choices, engine, |request| {
        let version = request.version.unwrap_or_default();
        let own = runtime::reference(&ImageRequest { repository: None, ..*request }, version);
        let reference = runtime::reference(request, version);
        let (repository, tag) = reference.rsplit_once(':').unwrap_or((&reference, "latest"));
        let push = || engine.push_image(&reference, &progress);
        let digest = push_named(engine, &own, repository, tag, push)?;
        Ok(ImageReport { digest: Some(digest), ..report(engine, &reference, "pushed".to_string())? })
    })
}

/// Pulls each image, whether or not it is here.
pub(super) fn pull(
    context: &Context,
    target: &Target,
    settings: &BuildSettings,
    engine: &Engine,
) -> Result<Vec<ImageReport>> {
    let progress = context.line.callback();
    for_each(target, &settings.choices, engine, |request| {
        let request = ImageRequest { choice: ImageChoice::Pull, ..*request };
        let image = runtime::ensure(engine, &request, &progress)?;
        report(engine, &image.reference, "pulled".to_string())
    })
}

/// Does the same for each image that is asked for. Where they were not named one by one, those that cannot be had are
/// passed over, unless none can.
fn for_each(
    target: &Target,
    choices: &BuildChoices,
    engine: &Engine,
    mut act: impl FnMut(&ImageRequest<'_>) -> Result<ImageReport>,
) -> Result<Vec<ImageReport>> {
    if target.all_versions && choices.version.is_some() {
        return Err(Error::usage("--all-versions and --language-version exclude each other: leave one out"));
    }
    let architecture = choices.architecture.map_or_else(architecture_of_host, Ok)?;
    let languages = choices.language.map_or(Language::ALL.to_vec(), |language| vec![language]);
    let mut wanted: Vec<(Language, String)> = Vec::new();
    for language in &languages {
        let request = ImageRequest {
            language: *language,
            version: None,
            architecture,
            choice: choices.image_choice,
            image: None,
            repository: choices.repository.as_deref(),
        };
        match &choices.version {
            Some(version) => wanted.push((*language, version.clone())),
            None if target.all_versions => {
                wanted.extend(language.versions().iter().map(|version| (*language, version.to_string())));
            }
            None => wanted.push((*language, runtime::default_version(engine, &request)?)),
        }
    }
    let (mut images, mut failures) = (Vec::new(), Vec::new());
    for (language, version) in &wanted {
        let request = ImageRequest {
            language: *language,
            version: Some(version),
            architecture,
            choice: choices.image_choice,
            image: None,
            repository: choices.repository.as_deref(),
        };
        match act(&request) {
            Ok(image) => images.push(image),
            Err(error) if error.is_cancelled() || error.is_disconnected() => return Err(error),
            Err(error) => failures.push(error),
        }
    }
    if images.is_empty() {
        return super::super::end_with(failures).map(|_| images);
    }
    failures.iter().for_each(|failure| log::warn!("passed over: {failure}"));
    Ok(images)
}

/// The architecture of this machine.
pub(super) fn architecture_of_host() -> Result<Architecture> {
    Architecture::of_host().ok_or_else(|| {
        let text = format!("this machine's processor ({}) is neither x64 nor arm64", std::env::consts::ARCH);
        Error::usage(text)
    })
}

fn report(engine: &Engine, reference: &str, state: String) -> Result<ImageReport> {
    let inspected = engine.inspect_image(reference)?;
    Ok(ImageReport {
        kind: "run",
        image: reference.to_string(),
        image_id: inspected.id,
        size_bytes: inspected.size,
        digest: None,
        state,
    })
}
