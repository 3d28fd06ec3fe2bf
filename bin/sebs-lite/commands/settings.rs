//! What was typed and what the configuration file says, brought together: a flag that was given wins.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sebs_lite::benchmark::{Benchmark, Search};
use sebs_lite::cache::Cache;
use sebs_lite::docker::is_repository;
use sebs_lite::experiment::{Configuration, ExperimentSettings};
use sebs_lite::faas::{CodePackage, Platform};
use sebs_lite::local::{BuildChoices, ContainerChoices, PLATFORMS};
use sebs_lite::probe::{LONGEST_INTERVAL, SHORTEST_INTERVAL, usable_cpus};
use sebs_lite::runtime::ImageChoice;
use sebs_lite::units::{Unit, parse_duration};
use sebs_lite::{Error, Result, report};

use crate::args::{Common, Invoke, Package, Start};

use super::resources::{StorageSettings, TypedStorage};

/// Which code package is asked for, and on which image; the same for all commands that build one.
pub(crate) struct BuildSettings {
    benchmark: String,
    roots: Vec<PathBuf>,
    data: Option<PathBuf>,
    pub(crate) choices: BuildChoices,
    pub(crate) storage: StorageSettings,
    download_results: bool,
}

/// What was typed, as far as commands have it in common.
struct Typed<'a> {
    benchmark: &'a str,
    benchmarks: &'a [PathBuf],
    data: Option<&'a Path>,
    config: Option<&'a Path>,
    deployment: Option<&'a str>,
    language: Option<&'a str>,
    language_version: Option<&'a str>,
    language_variant: Option<&'a str>,
    architecture: Option<&'a str>,
    system_variant: Option<&'a str>,
    update_code: bool,
    image_source: Option<&'a str>,
    image: Option<&'a str>,
    repository: Option<&'a str>,
    image_tag_prefix: Option<&'a str>,
    storage: TypedStorage<'a>,
}

/// What was typed for a command whose arguments have the names that all have for them.
macro_rules! typed {
    ($args:expr, $data:expr, $storage:expr) => {
        Typed {
            benchmark: &$args.benchmark,
            benchmarks: &$args.benchmarks,
            data: $data,
            config: $args.config.as_deref(),
            deployment: $args.deployment.as_deref(),
            language: $args.language.as_deref(),
            language_version: $args.language_version.as_deref(),
            language_variant: $args.language_variant.as_deref(),
            architecture: $args.architecture.as_deref(),
            system_variant: $args.system_variant.as_deref(),
            update_code: $args.update_code,
            image_source: $args.image_source.as_deref(),
            image: $args.image.as_deref(),
            repository: $args.repository.as_deref(),
            image_tag_prefix: $args.image_tag_prefix.as_deref(),
            storage: $storage,
        }
    };
}

/// What was typed of storage for a command that has it.
macro_rules! typed_storage {
    ($args:expr) => {
        TypedStorage {
            files: &$args.storage_configuration,
            update_storage: $args.update_storage,
            resource_prefix: $args.resource_prefix.as_deref(),
        }
    };
}

impl BuildSettings {
    /// Of `benchmark package`.
    pub(crate) fn of_package(common: &Common, args: &Package) -> Result<BuildSettings> {
        resolve(common, &typed!(args, None, TypedStorage::default()))
    }

    /// Of `benchmark invoke`.
    pub(crate) fn of_invoke(common: &Common, args: &Invoke) -> Result<BuildSettings> {
        resolve(common, &typed!(args, args.data.as_deref(), typed_storage!(args)))
    }

    /// Of `local start`.
    pub(crate) fn of_start(common: &Common, args: &Start) -> Result<BuildSettings> {
        resolve(common, &typed!(args, args.data.as_deref(), typed_storage!(args)))
    }

    /// The benchmark that is asked for; a bundled one is laid out in the cache.
    pub(crate) fn find_benchmark(&self, cache: &Cache) -> Result<Benchmark> {
        let extract_to = cache.root().join("bundled");
        let search = Search { roots: &self.roots, data: self.data.as_deref(), extract_to: &extract_to };
        // A folder that was typed and is not there is the user's to mend, as an unknown name is.
        Benchmark::find(&self.benchmark, &search).map_err(super::missing_is_usage)
    }

    /// As a result file holds them.
    pub(crate) fn as_recorded(&self, package: &CodePackage) -> ExperimentSettings {
        ExperimentSettings {
            update_code: self.choices.update_code,
            update_storage: self.storage.update_storage,
            download_results: self.download_results,
            container_deployment: package.container.is_some(),
            system_variant: if package.container.is_some() { "container" } else { "package" }.to_string(),
            architecture: package.architecture,
            runtime: package.runtime.clone(),
            flags: serde_json::json!({}),
        }
    }
}

/// The sampling interval that was typed: a bare number is ms, as SeBS has it, and -1 means off.
pub(crate) fn interval(typed: Option<&str>) -> Result<Option<Duration>> {
    let Some(text) = typed.map(str::trim).filter(|text| *text != "-1") else { return Ok(None) };
    let wrong = |cause: &str| {
        Error::usage(format!(
            "--measure-interval {text}: {cause} (write one such as 1ms or 100us; a bare number is in ms, and -1 means off)"
        ))
    };
    let interval = parse_duration(text, Unit::Milliseconds).map_err(|_| wrong("it is not an interval"))?;
    if !(SHORTEST_INTERVAL..=LONGEST_INTERVAL).contains(&interval) {
        return Err(wrong("an interval lies between 20 µs and 24 h"));
    }
    Ok(Some(interval))
}

/// The CPU that the sampling thread is to be kept on.
pub(crate) fn sampling_cpu(typed: Option<usize>) -> Result<Option<usize>> {
    let Some(cpu) = typed else { return Ok(None) };
    let usable = usable_cpus();
    if usable.is_empty() || usable.contains(&cpu) {
        return Ok(typed);
    }
    let usable = report::cpu_list(&usable);
    Err(Error::usage(format!("--cpu {cpu} cannot be had: the sampling thread may run on {usable}")))
}

fn resolve(common: &Common, typed: &Typed<'_>) -> Result<BuildSettings> {
    let configuration = typed.config.map(Configuration::read).transpose()?.unwrap_or_default();
    check_platform(typed.deployment, configuration.deployment.name.as_deref())?;
    check_repository(typed.repository)?;
    let container = container_choices(typed, &configuration)?;
    let chosen = &configuration.experiments;
    let name = typed.language.or(chosen.runtime.language.as_deref());
    // The file's version and variant are those of the file's language.
    let same_language = name == chosen.runtime.language.as_deref();
    let language = name.map(str::parse).transpose()?;
    let from_file = |value: &Option<String>| value.clone().filter(|_| same_language);
    let update_code = common.switch("update-code", typed.update_code).or(chosen.update_code).unwrap_or(false);
    let choices = BuildChoices {
        language,
        version: typed.language_version.map(str::to_string).or_else(|| from_file(&chosen.runtime.version)),
        variant: typed.language_variant.map(str::to_string).or_else(|| from_file(&chosen.runtime.variant)),
        architecture: typed.architecture.map(str::parse).transpose()?.or(chosen.architecture),
        image_choice: typed.image_source.map(str::parse).transpose()?.unwrap_or(ImageChoice::Auto),
        image: named_image(typed, container.is_some())?,
        repository: typed.repository.map(str::to_string),
        container,
        update_code,
        verbose: common.verbose,
    };
    Ok(BuildSettings {
        benchmark: typed.benchmark.to_string(),
        roots: typed.benchmarks.to_vec(),
        data: typed.data.map(Path::to_path_buf),
        choices,
        storage: StorageSettings::resolve(common, typed.storage, &configuration)?,
        download_results: chosen.download_results.unwrap_or(false),
    })
}

/// The image that `--image` names, which nothing else is asked of; a repository may still be that of function images.
fn named_image(typed: &Typed<'_>, is_container: bool) -> Result<Option<String>> {
    let conflict = match (typed.image, typed.image_source, typed.repository) {
        (Some(_), Some("build" | "host"), _) => "--image-source",
        (Some(_), _, Some(_)) if !is_container => "--repository",
        (image, _, _) => return Ok(image.map(str::to_string)),
    };
    Err(Error::usage(format!("--image names the image to run: leave {conflict} out")))
}

fn check_repository(typed: Option<&str>) -> Result<()> {
    match typed {
        Some(name) if !is_repository(name) => Err(Error::usage(format!(
            "--repository `{name}` is no repository: write [HOST[:PORT]/]NAME[/NAME...] without a tag, each NAME of \
             lower-case letters and digits, and of single `.`, `_` or `-` between them"
        ))),
        _ => Ok(()),
    }
}

fn check_platform(typed: Option<&str>, configured: Option<&str>) -> Result<()> {
    let Some(name) = typed.or(configured) else { return Ok(()) };
    Platform::named(name, &PLATFORMS).map(drop).map_err(|error| {
        let advice =
            if typed.is_none() { " (`--deployment local` overrides the configuration file)" } else { "" };
        Error::usage(format!("{error}{advice}"))
    })
}

/// How the function is baked into an image; `None`: its package is mounted.
fn container_choices(typed: &Typed<'_>, configuration: &Configuration) -> Result<Option<ContainerChoices>> {
    let is_container = wants_container(typed.system_variant, configuration)?;
    if let Some(prefix) = typed.image_tag_prefix {
        if !is_container {
            let text =
                "--image-tag-prefix is for functions baked into an image: add --system-variant container";
            return Err(Error::usage(text));
        }
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if prefix.is_empty() || !prefix.chars().all(is_allowed) {
            return Err(Error::usage(format!(
                "--image-tag-prefix `{prefix}` cannot be in a tag: write letters, digits, `.`, `-` and `_`"
            )));
        }
    }
    let tag_prefix = typed.image_tag_prefix.map(str::to_string);
    Ok(is_container.then_some(ContainerChoices { tag_prefix }))
}

fn wants_container(typed: Option<&str>, configuration: &Configuration) -> Result<bool> {
    match typed.or(configuration.experiments.system_variant.as_deref()) {
        None => Ok(configuration.wants_container()),
        Some("package") => Ok(false),
        Some("container") => Ok(true),
        Some(other) => Err(Error::usage(format!(
            "system variant `{other}` is not known: it must be `package` or `container`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_platform_is_refused_and_a_flag_wins_over_the_file() {
        assert!(check_platform(None, None).is_ok());
        assert!(check_platform(Some("local"), Some("aws")).is_ok());
        let refused = check_platform(None, Some("aws")).unwrap_err();
        assert!(refused.is_usage() && refused.to_string().contains("--deployment local"));
        assert!(check_platform(Some("azure"), Some("local")).is_err());
    }

    #[test]
    fn an_interval_is_in_ms_unless_it_says_so_and_minus_one_is_none() {
        assert_eq!(interval(None).unwrap(), None);
        assert_eq!(interval(Some("-1")).unwrap(), None);
        assert_eq!(interval(Some("0.1")).unwrap(), Some(Duration::from_micros(100)));
        assert_eq!(interval(Some("100us")).unwrap(), Some(Duration::from_micros(100)));
        for wrong in ["0", "-2", "fast", "1us", "2d", "25h", ""] {
            let error = interval(Some(wrong)).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains("1ms"), "{error}");
        }
    }

    #[test]
    fn a_container_deployment_is_asked_for_by_either_word() {
        let configuration = |text| serde_json::from_str::<Configuration>(text).unwrap();
        let older = configuration(r#"{"experiments": {"container_deployment": true}}"#);
        let none = configuration("{}");
        let variant = configuration(r#"{"experiments": {"system_variant": "container"}}"#);
        assert!(wants_container(None, &older).unwrap() && wants_container(None, &variant).unwrap());
        assert!(!wants_container(Some("package"), &older).unwrap());
        assert!(wants_container(Some("container"), &none).unwrap());
        assert!(!wants_container(None, &none).unwrap());
        assert!(wants_container(Some("wasm"), &none).unwrap_err().is_usage());
    }
}
