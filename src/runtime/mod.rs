//! Runtime images: which image runs a version of a language, and how to get it.
//!
//! An image is found locally, else pulled (where the user names a repository: the default one belongs to nobody on a
//! public registry), else built from a Dockerfile in this crate, else imported from an interpreter of this host, which
//! needs no registry. An image of ours carries the hash of what we put in; one with another hash is made anew.

mod architecture;
mod assets;
mod describe;
mod host;
mod import;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::docker::{BuildOptions, Engine, ImageInspect};
use crate::error::{Error, Result};
use crate::faas::{Architecture, Language};
use crate::files::{self, Sharing};
use crate::progress::Progress;

use assets::Labels;
use describe::{Described, describe};

pub(crate) use assets::SERVER_LABEL;

pub use host::{HostInterpreter, host_interpreter, host_interpreters, host_python};

/// The repository that images are named after unless the user names another; it is never pulled from.
pub const DEFAULT_REPOSITORY: &str = "sebs-lite";

/// How an image came to be, how its interpreter was built, what C library that uses, which file of the host it was.
const SOURCE_LABEL: &str = "sebs-lite.source";
const BUILD_LABEL: &str = "sebs-lite.build";
const LIBC_LABEL: &str = "sebs-lite.libc";
const INTERPRETER_LABEL: &str = "sebs-lite.interpreter";

/// An image that runs functions of one version of a language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeImage {
    /// Its name: `sebs-lite:run.local.python.3.11`.
    pub reference: String,
    /// Its id, `sha256:…`.
    pub id: String,
    /// The language it runs.
    pub language: Language,
    /// The version it runs.
    pub version: String,
    /// How it came to be, whether now or earlier.
    pub source: ImageSource,
    /// The interpreter of this host that it was imported from; `None`: it was not.
    pub interpreter: Option<PathBuf>,
    /// The interpreter in it, by its own words; empty: it did not tell.
    pub build: String,
    /// The C library in it: `glibc 2.36`; empty: it did not tell.
    pub libc: String,
    /// Has it our function server, which runs as any user?
    pub ours: bool,
}

/// How an image came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// The user named it.
    Named,
    /// It was pulled from a registry.
    Pulled,
    /// It was built from a Dockerfile in this crate.
    Built,
    /// It was imported from an interpreter of this host.
    Host,
}

impl ImageSource {
    fn name(self) -> &'static str {
        match self {
            ImageSource::Named => "named",
            ImageSource::Pulled => "pulled",
            ImageSource::Built => "built",
            ImageSource::Host => "host",
        }
    }
}

impl ImageSource {
    /// The same in words, for people.
    pub(crate) fn story(self) -> &'static str {
        match self {
            ImageSource::Named => "as you named it",
            ImageSource::Pulled => "pulled from a registry",
            ImageSource::Built => "built on a distribution's image",
            ImageSource::Host => "imported from this host",
        }
    }
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where an image may come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageChoice {
    /// From the first of the others that has one, in their order.
    #[default]
    Auto,
    /// It must be there.
    Local,
    /// It is pulled.
    Pull,
    /// It is built from a Dockerfile in this crate.
    Build,
    /// It is imported from an interpreter of this host.
    Host,
}

impl FromStr for ImageChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<ImageChoice> {
        match text {
            "auto" => Ok(ImageChoice::Auto),
            "local" => Ok(ImageChoice::Local),
            "pull" => Ok(ImageChoice::Pull),
            "build" => Ok(ImageChoice::Build),
            "host" => Ok(ImageChoice::Host),
            _ => Err(Error::usage(format!(
                "image source `{text}` is not known: it must be `auto`, `local`, `pull`, `build` or `host`"
            ))),
        }
    }
}

/// Which image is wanted.
#[derive(Clone, Copy, Debug)]
pub struct ImageRequest<'a> {
    /// The language to run.
    pub language: Language,
    /// The version to run; `None`: see [`default_version`].
    pub version: Option<&'a str>,
    /// What it must run on.
    pub architecture: Architecture,
    /// Where it may come from.
    pub choice: ImageChoice,
    /// Any image that keeps the function server's contract, SeBS's own for example; `None`: one of ours.
    pub image: Option<&'a str>,
    /// The repository to name images after and to pull them from; `None`: [`DEFAULT_REPOSITORY`], without pulling.
    pub repository: Option<&'a str>,
}

/// Gets an image: finds, pulls, builds or imports it.
///
/// # Errors
/// No source has it: each that was tried is named, with its reason. A usage error where the request cannot be met by
/// any image.
pub fn ensure(engine: &Engine, request: &ImageRequest<'_>, progress: &Progress) -> Result<RuntimeImage> {
    if let Some(name) = request.image {
        return named(engine, request, name, progress);
    }
    if request.choice == ImageChoice::Pull && request.repository.is_none() {
        return Err(Error::usage(
            "an image can only be pulled from a repository that you name: add --repository NAME",
        ));
    }
    let version = match request.version {
        Some(version) => version.to_string(),
        None => default_version(engine, request)?,
    };
    let wanted = Wanted { engine, request, progress, reference: reference(request, &version), version };
    wanted.check_version()?;
    wanted.check_architecture()?;
    let _lock = lock(engine)?;
    wanted.obtain()
}

/// Two processes of a user that need one image make it once; where there is no place for a lock, they make it twice.
fn lock(engine: &Engine) -> Result<Option<files::Lock>> {
    let path = std::env::temp_dir().join(format!("sebs-lite-images-{}.lock", nix::unistd::getuid()));
    match files::lock(&path, Sharing::Exclusive, &engine.cancel()) {
        Err(error) if !error.is_cancelled() => {
            log::debug!("{error}");
            Ok(None)
        }
        outcome => outcome.map(Some),
    }
}

/// The version that is run when none is asked for: the newest of which a usable image is here, else that of this host's
/// interpreter, else the newest that is known.
///
/// # Errors
/// The engine does not answer.
pub fn default_version(engine: &Engine, request: &ImageRequest<'_>) -> Result<String> {
    let may_be_local = matches!(request.choice, ImageChoice::Auto | ImageChoice::Local);
    let known = request.language.versions();
    if may_be_local {
        for version in known.iter().rev() {
            let wanted = Wanted {
                engine,
                request,
                progress: &Progress::quiet(),
                reference: reference(request, version),
                version: version.to_string(),
            };
            if wanted.local()?.is_some() {
                return Ok(version.to_string());
            }
        }
    }
    let newest = known.last().expect("a language has versions");
    let oldest = known.first().expect("a language has versions");
    let may_be_host = matches!(request.choice, ImageChoice::Auto | ImageChoice::Host);
    let hosts = may_be_host.then(|| {
        host_interpreters(request.language)
            .find(|interpreter| compare(&interpreter.version(), oldest).is_ge())
    });
    Ok(hosts.flatten().map_or(newest.to_string(), |interpreter| interpreter.version()))
}

/// Orders `3.9` before `3.10`.
fn compare(one: &str, other: &str) -> std::cmp::Ordering {
    let numbers =
        |version: &str| -> Vec<u32> { version.split('.').map(|part| part.parse().unwrap_or(0)).collect() };
    numbers(one).cmp(&numbers(other))
}

/// What the image of a version is called, unless the user named an image himself.
pub fn reference(request: &ImageRequest<'_>, version: &str) -> String {
    let repository = request.repository.unwrap_or(DEFAULT_REPOSITORY);
    // What this machine runs itself keeps the name that it has always had.
    let of_others = match Architecture::of_host() {
        Some(own) if own == request.architecture => String::new(),
        _ => format!("-{}", request.architecture),
    };
    format!("{repository}:run.local.{}.{version}{of_others}", request.language)
}

/// One image that is wanted, by its name.
struct Wanted<'a> {
    engine: &'a Engine,
    request: &'a ImageRequest<'a>,
    progress: &'a Progress,
    reference: String,
    version: String,
}

impl Wanted<'_> {
    /// A version that is newer than the list may still be one that this host has.
    fn check_version(&self) -> Result<()> {
        let language = self.request.language;
        let known = language.versions();
        let is_old = known.first().is_none_or(|oldest| compare(&self.version, oldest).is_lt());
        let is_hosts =
            || host_interpreters(language).any(|interpreter| interpreter.version() == self.version);
        if known.contains(&self.version.as_str()) || !is_old && is_hosts() {
            return Ok(());
        }
        let known = known.join(", ");
        Err(Error::usage(format!(
            "version `{}` of {language} is not supported: there are {known}",
            self.version
        )))
    }

    /// An engine may have means to run an image that is here that nothing on this host knows of.
    fn check_architecture(&self) -> Result<()> {
        let (engine, wanted) = (self.engine, self.request.architecture);
        match architecture::check(engine, wanted) {
            Ok(None) => Ok(()),
            Ok(Some(emulator)) => {
                log::warn!(
                    "{wanted} programs are run by `{emulator}`: their times say little of a real {wanted}"
                );
                Ok(())
            }
            Err(refused) if refused.is_usage() => {
                let is_fit = self.engine.inspect_image(&self.reference).is_ok()
                    && describe::ask(engine, &self.reference, self.request.language).is_ok();
                if is_fit { Ok(()) } else { Err(refused) }
            }
            Err(error) => Err(error),
        }
    }

    fn obtain(&self) -> Result<RuntimeImage> {
        let mut refusals = Vec::new();
        for choice in [ImageChoice::Local, ImageChoice::Pull, ImageChoice::Build, ImageChoice::Host] {
            if self.request.choice != ImageChoice::Auto && self.request.choice != choice {
                continue;
            }
            let (name, attempt) = match choice {
                ImageChoice::Local | ImageChoice::Auto => ("local", self.local_or_reason()),
                ImageChoice::Pull => ("pull", self.pull()),
                ImageChoice::Build => ("build", self.build()),
                ImageChoice::Host => ("host", self.import()),
            };
            match attempt {
                Ok(image) => {
                    log::debug!("image {} ({}) from: {name}", image.reference, image.id);
                    return Ok(image);
                }
                Err(error) if error.is_cancelled() || error.is_disconnected() => return Err(error),
                Err(error) => {
                    log::debug!("no image from {name}: {error}");
                    refusals.push(format!("{name}: {error}"));
                }
            }
        }
        Err(Error::new(format!(
            "no image for {} {}: {}",
            self.request.language,
            self.version,
            refusals.join("; ")
        ))
        .unavailable())
    }

    fn local_or_reason(&self) -> Result<RuntimeImage> {
        self.local()?
            .ok_or_else(|| Error::new(format!("`{}` is not here, or is not up to date", self.reference)))
    }

    /// The image, if it is here and has the server of today. One that a registry gave, as the user named it, may have
    /// a server of its own.
    fn local(&self) -> Result<Option<RuntimeImage>> {
        let inspected = match self.engine.inspect_image(&self.reference) {
            Ok(inspected) => inspected,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let server = inspected.config.labels.get(SERVER_LABEL);
        let is_fit = match server {
            Some(hash) => *hash == assets::server_hash(self.request.language),
            None => self.request.repository.is_some(),
        };
        let image = self.image(&inspected, ImageSource::Pulled)?;
        let is_whole = image.interpreter.as_ref().is_none_or(|interpreter| interpreter.is_file());
        Ok((is_fit && is_whole).then_some(image))
    }

    fn pull(&self) -> Result<RuntimeImage> {
        if self.request.repository.is_none() {
            return Err(Error::new("no repository was named"));
        }
        let platform = self.request.architecture.foreign_platform();
        self.engine.pull_image_for(&self.reference, platform, self.progress)?;
        self.image(&self.engine.inspect_image(&self.reference)?, ImageSource::Pulled)
    }

    fn build(&self) -> Result<RuntimeImage> {
        let language = self.request.language;
        let mut labels = self.labels(ImageSource::Built);
        let mut options = BuildOptions { labels: labels.clone(), ..self.build_options() };
        options.build_args.insert("VERSION".to_string(), self.version.clone());
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"] {
            options.build_args.extend(std::env::var(name).ok().map(|value| (name.to_string(), value)));
        }
        let context = assets::build_context(language)?;
        self.engine.persist(|| self.engine.build_image(&mut context.as_slice(), &options, self.progress))?;
        // What the interpreter is can only be asked once it is there; it is written on the image, so as to be asked once.
        let described = describe(self.engine, &self.reference, language)?;
        labels.insert(BUILD_LABEL.to_string(), described.build);
        labels.insert(LIBC_LABEL.to_string(), described.libc);
        let context = assets::label_context(&self.reference)?;
        let options = BuildOptions { labels, ..self.build_options() };
        self.engine.persist(|| self.engine.build_image(&mut context.as_slice(), &options, self.progress))?;
        self.image(&self.engine.inspect_image(&self.reference)?, ImageSource::Built)
    }

    fn build_options(&self) -> BuildOptions {
        let platform = self.request.architecture.foreign_platform().to_string();
        BuildOptions { tag: self.reference.clone(), platform, ..BuildOptions::default() }
    }

    fn import(&self) -> Result<RuntimeImage> {
        let language = self.request.language;
        if !self.request.architecture.foreign_platform().is_empty() {
            return Err(Error::new(format!(
                "this host's programs are not for {}",
                self.request.architecture
            )));
        }
        let mut others = Vec::new();
        for interpreter in host_interpreters(language) {
            if interpreter.version() != self.version {
                others.push(interpreter.version());
                continue;
            }
            log::info!("importing {} as image {}", interpreter.executable.display(), self.reference);
            let mut labels = self.labels(ImageSource::Host);
            labels.insert(BUILD_LABEL.to_string(), interpreter.build.clone());
            labels.insert(LIBC_LABEL.to_string(), interpreter.libc.clone());
            labels.insert(INTERPRETER_LABEL.to_string(), interpreter.executable.display().to_string());
            let outdated = self.engine.inspect_image(&self.reference).ok();
            import::import(self.engine, language, &interpreter, &self.reference, &labels, self.progress)?;
            let inspected = self.engine.inspect_image(&self.reference)?;
            if let Some(outdated) = outdated.filter(|outdated| outdated.id != inspected.id) {
                // It has lost its name; a container that still runs it keeps it.
                let _ = self.engine.remove_image(&outdated.id);
            }
            return self.image(&inspected, ImageSource::Host);
        }
        let found = if others.is_empty() { "none".to_string() } else { others.join(", ") };
        Err(Error::new(format!("this host has no {language} {} (found: {found})", self.version)))
    }

    fn labels(&self, source: ImageSource) -> Labels {
        Labels::from([
            ("sebs-lite".to_string(), "1".to_string()),
            (SERVER_LABEL.to_string(), assets::server_hash(self.request.language)),
            (SOURCE_LABEL.to_string(), source.name().to_string()),
        ])
    }

    /// What an inspected image is; `source` is what it is taken for if it does not say itself.
    fn image(&self, inspected: &ImageInspect, source: ImageSource) -> Result<RuntimeImage> {
        let labels = &inspected.config.labels;
        let text = |label: &str| labels.get(label).cloned().filter(|value| !value.is_empty());
        let known = [ImageSource::Built, ImageSource::Host];
        let told = text(SOURCE_LABEL).and_then(|name| known.into_iter().find(|source| source.name() == name));
        // Only a name that is never pulled is surely of this host: a label of anybody's image must not choose a program
        // here, and another host's interpreter may be another one at the same path.
        let may_be_foreign = self.request.image.is_some() || self.request.repository.is_some();
        let is_from_here = !may_be_foreign || source == ImageSource::Host;
        let described = match (text(BUILD_LABEL), text(LIBC_LABEL)) {
            (None, None) => describe(self.engine, &inspected.id, self.request.language)?,
            (build, libc) => Described {
                build: build.unwrap_or_default(),
                libc: libc.unwrap_or_default(),
                version: Vec::new(),
            },
        };
        Ok(RuntimeImage {
            reference: self.reference.clone(),
            id: inspected.id.clone(),
            language: self.request.language,
            version: self.version.clone(),
            source: told.unwrap_or(source),
            interpreter: text(INTERPRETER_LABEL).map(PathBuf::from).filter(|_| is_from_here),
            build: described.build,
            libc: described.libc,
            ours: text(SERVER_LABEL).is_some(),
        })
    }
}

/// The image that the user named, pulled if it is not here.
fn named(
    engine: &Engine,
    request: &ImageRequest<'_>,
    name: &str,
    progress: &Progress,
) -> Result<RuntimeImage> {
    let inspected = match engine.inspect_image(name) {
        Err(error) if error.is_not_found() && request.choice != ImageChoice::Local => {
            engine
                .pull_image(name, progress)
                .map_err(|error| error.context(format!("image `{name}` is not here")))?;
            engine.inspect_image(name)?
        }
        outcome => outcome?,
    };
    let described = architecture::check_named(engine, request, name, &inspected)?;
    let numbers: Vec<String> = described.version.iter().map(u32::to_string).collect();
    let version = match request.version {
        Some(version) if !numbers.is_empty() && numbers.join(".") != version => {
            let (language, has) = (request.language, numbers.join("."));
            let text = format!(
                "image `{name}` has {language} {has} and not {version}: leave --language-version out"
            );
            return Err(Error::usage(text));
        }
        Some(version) => version.to_string(),
        None if !numbers.is_empty() => numbers.join("."),
        None => {
            let text = format!(
                "image `{name}` does not tell which {} it has: add --language-version",
                request.language
            );
            return Err(Error::usage(text));
        }
    };
    let wanted = Wanted { engine, request, progress, reference: name.to_string(), version };
    let mut image = wanted.image(&inspected, ImageSource::Named)?;
    image.source = ImageSource::Named;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_source_is_read_from_its_name() {
        assert_eq!("host".parse::<ImageChoice>().unwrap(), ImageChoice::Host);
        let unknown = "cloud".parse::<ImageChoice>().unwrap_err();
        assert!(unknown.is_usage() && unknown.to_string().contains("`build`"));
    }

    #[test]
    fn versions_are_ordered_as_numbers() {
        assert!(
            compare("3.9", "3.10").is_lt() && compare("20", "14").is_gt() && compare("3.7", "3.7").is_eq()
        );
    }
}
