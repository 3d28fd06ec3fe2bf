//! `docker build`, `push` and `pull`.

mod function;
mod runtime;

use sebs_lite::cancel::Cancel;
use sebs_lite::docker::{Engine, registry_of};
use sebs_lite::report::{self, ImageReport};
use sebs_lite::{Error, Result};

use crate::args::{BuildImage, Package, PullImage, PushImage};
use crate::exit::Exit;

use super::Context;
use super::settings::BuildSettings;

/// Which images a command is about.
struct Target {
    kind: Kind,
    /// What was typed, as it would be for `benchmark package`; without a benchmark for runtime images.
    package: Package,
    all_versions: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Run,
    Function,
}

/// What was typed for a command whose arguments have the names that all have for them.
macro_rules! target {
    ($args:expr, $update_code:expr, $image_source:expr, $image:expr) => {
        Target {
            kind: kind($args.kind.as_deref(), $args.benchmark.as_deref(), $args.all_versions)?,
            all_versions: $args.all_versions,
            package: Package {
                benchmark: $args.benchmark.clone().unwrap_or_default(),
                benchmarks: $args.benchmarks.clone(),
                config: $args.config.clone(),
                deployment: $args.deployment.clone(),
                language: $args.language.clone(),
                language_version: $args.language_version.clone(),
                language_variant: $args.language_variant.clone(),
                architecture: $args.architecture.clone(),
                system_variant: Some("container".to_string()),
                update_code: $update_code,
                image_source: $image_source,
                image: $image,
                repository: $args.repository.clone(),
                image_tag_prefix: $args.image_tag_prefix.clone(),
            },
        }
    };
}

/// `docker build`.
pub(crate) fn build(context: &Context, args: &BuildImage) -> Result<Exit> {
    let target = target!(args, args.update_code, args.image_source.clone(), args.image.clone());
    let settings = BuildSettings::of_package(&context.common, &target.package)?;
    let engine = Engine::connect(&context.cancel)?;
    let images = match target.kind {
        Kind::Function => vec![function::build(context, &settings, &engine)?],
        Kind::Run if args.image.is_some() => {
            return Err(Error::usage("--image is what a benchmark is baked into: name the benchmark"));
        }
        Kind::Run => runtime::build(context, &target, &settings, &engine)?,
    };
    show(context, &images)
}

/// `docker push`.
pub(crate) fn push(context: &Context, args: &PushImage) -> Result<Exit> {
    let target = target!(args, false, None, None);
    let settings = BuildSettings::of_package(&context.common, &target.package)?;
    check_registry(args.repository.as_deref())?;
    let engine = Engine::connect(&context.cancel)?;
    let images = match target.kind {
        Kind::Function => vec![function::push(context, &settings, &engine)?],
        Kind::Run => runtime::push(context, &target, &settings, &engine)?,
    };
    show(context, &images)
}

/// `docker pull`.
pub(crate) fn pull(context: &Context, args: &PullImage) -> Result<Exit> {
    let target = target!(args, false, None, None);
    let settings = BuildSettings::of_package(&context.common, &target.package)?;
    if args.repository.is_none() || target.kind == Kind::Function {
        check_registry(args.repository.as_deref())?;
    }
    let engine = Engine::connect(&context.cancel)?;
    let images = match target.kind {
        Kind::Function => vec![function::pull(context, &settings, &engine)?],
        Kind::Run => runtime::pull(context, &target, &settings, &engine)?,
    };
    show(context, &images)
}

fn kind(typed: Option<&str>, benchmark: Option<&str>, all_versions: bool) -> Result<Kind> {
    let kind = match (typed, benchmark) {
        (None | Some("function"), Some(_)) => Kind::Function,
        (None | Some("run"), None) => Kind::Run,
        (Some("run"), Some(name)) => {
            let text = format!("a runtime image is of no benchmark: leave `{name}` out, or --kind run");
            return Err(Error::usage(text));
        }
        (Some("function"), None) => {
            return Err(Error::usage("--kind function needs a benchmark: name it, or its folder"));
        }
        (Some(other), _) => {
            let text = format!("--kind `{other}` is not known: it must be `run` or `function`");
            return Err(Error::usage(text));
        }
    };
    if all_versions && kind == Kind::Function {
        return Err(Error::usage("--all-versions is for runtime images: a function has one version"));
    }
    Ok(kind)
}

fn check_registry(repository: Option<&str>) -> Result<()> {
    match repository {
        Some(repository) if registry_of(repository).is_some() => Ok(()),
        Some(repository) => Err(Error::usage(format!(
            "--repository {repository} names no registry: write REGISTRY/NAME, for Docker Hub docker.io/NAME"
        ))),
        None => {
            Err(Error::usage("add --repository REGISTRY/NAME: nobody's registry is ours to take for granted"))
        }
    }
}

fn show(context: &Context, images: &[ImageReport]) -> Result<Exit> {
    if context.common.json {
        context.print_json(&serde_json::json!({ "images": images }))?;
    } else {
        context.print(&report::images(images))?;
    }
    Ok(Exit::Done)
}

/// Pushes an image that may have been built without a registry: it is given the name first by which it is pushed, where
/// none has it yet. A push that failed leaves no name that was given for it.
fn push_named<T>(
    engine: &Engine,
    own: &str,
    repository: &str,
    tag: &str,
    push: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let name = format!("{repository}:{tag}");
    match engine.inspect_image(&name) {
        Err(error) if error.is_not_found() => {}
        outcome => return outcome.and_then(|_| push()),
    }
    match engine.tag_image(own, repository, tag) {
        Err(error) if error.is_not_found() => {
            return Err(Error::new(format!(
                "there is neither an image `{name}` nor `{own}` here: build it by `sebs-lite docker build`"
            )));
        }
        outcome => outcome?,
    }
    push().inspect_err(|_| {
        // By an engine that is heard after an interrupt, too.
        if let Err(error) = engine.with_cancel(&Cancel::new()).remove_image(&name) {
            log::warn!("the name that was given for the push stays: {error}");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_follows_from_a_benchmark_unless_it_is_said() {
        assert_eq!(kind(None, None, false).unwrap(), Kind::Run);
        assert_eq!(kind(None, Some("x"), false).unwrap(), Kind::Function);
        assert_eq!(kind(Some("run"), None, true).unwrap(), Kind::Run);
        for (typed, benchmark, all) in [
            (Some("run"), Some("x"), false),
            (Some("function"), None, false),
            (Some("x"), None, false),
            (None, Some("x"), true),
        ] {
            assert!(kind(typed, benchmark, all).unwrap_err().is_usage());
        }
    }

    #[test]
    fn a_repository_without_registry_is_never_pushed_to() {
        assert!(
            check_registry(Some("localhost:5000/x")).is_ok() && check_registry(Some("docker.io/x")).is_ok()
        );
        assert!(check_registry(None).is_err() && check_registry(Some("ada/x")).unwrap_err().is_usage());
    }
}
