//! What can be typed after `sebs-lite docker`.

use std::path::PathBuf;

use argh::FromArgs;

/// Build, push and pull images: those that functions run on, and those that functions are baked into.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "docker")]
pub(crate) struct Docker {
    #[argh(subcommand)]
    pub(crate) command: DockerCommand,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
pub(crate) enum DockerCommand {
    Build(Box<BuildImage>),
    Push(Box<PushImage>),
    Pull(Box<PullImage>),
}

/// Build runtime images, or the image that a benchmark is baked into, which is pushed where --repository names a registry.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "build",
    example = "sebs-lite docker build --language python --language-version 3.11",
    example = "sebs-lite docker build 110.dynamic-html --repository 127.0.0.1:5000/functions"
)]
pub(crate) struct BuildImage {
    /// name of the benchmark, or path of its folder, for --kind function
    #[argh(positional)]
    pub(crate) benchmark: Option<String>,
    /// run: what functions run on; function: a benchmark baked in (default: function if one is named)
    #[argh(option, arg_name = "name")]
    pub(crate) kind: Option<String>,
    /// folder with benchmarks, looked through before the bundled ones (repeatable)
    #[argh(option, arg_name = "dir")]
    pub(crate) benchmarks: Vec<PathBuf>,
    /// configuration file in SeBS's format
    #[argh(option, arg_name = "file")]
    pub(crate) config: Option<PathBuf>,
    /// platform: local
    #[argh(option, arg_name = "name")]
    pub(crate) deployment: Option<String>,
    /// python or nodejs (default: each; for a benchmark, its first that has an image)
    #[argh(option, arg_name = "name")]
    pub(crate) language: Option<String>,
    /// version of the language (default: the newest with an image here, else this host's)
    #[argh(option, arg_name = "version")]
    pub(crate) language_version: Option<String>,
    /// variant of the benchmark's code (default: default)
    #[argh(option, arg_name = "name")]
    pub(crate) language_variant: Option<String>,
    /// x64 or arm64 (default: this machine's)
    #[argh(option, arg_name = "name")]
    pub(crate) architecture: Option<String>,
    /// runtime images of all versions, as far as they can be had
    #[argh(switch)]
    pub(crate) all_versions: bool,
    /// build even if nothing changed
    #[argh(switch)]
    pub(crate) update_code: bool,
    /// where the runtime image comes from: auto, local, pull, build or host (default: auto)
    #[argh(option, arg_name = "source")]
    pub(crate) image_source: Option<String>,
    /// bake the benchmark into this image instead, SeBS's own for example
    #[argh(option, arg_name = "name")]
    pub(crate) image: Option<String>,
    /// repository that images are named after: NAME, or REGISTRY/NAME (default: sebs-lite)
    #[argh(option, arg_name = "name")]
    pub(crate) repository: Option<String>,
    /// word that sets the tag of a function image apart
    #[argh(option, arg_name = "word")]
    pub(crate) image_tag_prefix: Option<String>,
}

/// Push images that were built to a registry, by the credentials that `docker login` keeps.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "push",
    example = "sebs-lite docker push 110.dynamic-html --repository registry.example/functions",
    example = "sebs-lite docker push --language python --repository docker.io/NAME"
)]
pub(crate) struct PushImage {
    /// name of the benchmark, or path of its folder, for --kind function
    #[argh(positional)]
    pub(crate) benchmark: Option<String>,
    /// run: what functions run on; function: a benchmark baked in (default: function if one is named)
    #[argh(option, arg_name = "name")]
    pub(crate) kind: Option<String>,
    /// folder with benchmarks, looked through before the bundled ones (repeatable)
    #[argh(option, arg_name = "dir")]
    pub(crate) benchmarks: Vec<PathBuf>,
    /// configuration file in SeBS's format
    #[argh(option, arg_name = "file")]
    pub(crate) config: Option<PathBuf>,
    /// platform: local
    #[argh(option, arg_name = "name")]
    pub(crate) deployment: Option<String>,
    /// python or nodejs (default: each; for a benchmark, its first)
    #[argh(option, arg_name = "name")]
    pub(crate) language: Option<String>,
    /// version of the language (default: the newest with an image here, else this host's)
    #[argh(option, arg_name = "version")]
    pub(crate) language_version: Option<String>,
    /// variant of the benchmark's code (default: default)
    #[argh(option, arg_name = "name")]
    pub(crate) language_variant: Option<String>,
    /// x64 or arm64 (default: this machine's)
    #[argh(option, arg_name = "name")]
    pub(crate) architecture: Option<String>,
    /// runtime images of all versions that are here
    #[argh(switch)]
    pub(crate) all_versions: bool,
    /// repository to push to, with its registry: REGISTRY/NAME
    #[argh(option, arg_name = "name")]
    pub(crate) repository: Option<String>,
    /// word that sets the tag of a function image apart
    #[argh(option, arg_name = "word")]
    pub(crate) image_tag_prefix: Option<String>,
}

/// Pull images from a registry, by the credentials that `docker login` keeps.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "pull",
    example = "sebs-lite docker pull 110.dynamic-html --repository registry.example/functions",
    example = "sebs-lite docker pull --language python --language-version 3.11 --repository docker.io/NAME"
)]
pub(crate) struct PullImage {
    /// name of the benchmark, or path of its folder, for --kind function
    #[argh(positional)]
    pub(crate) benchmark: Option<String>,
    /// run: what functions run on; function: a benchmark baked in (default: function if one is named)
    #[argh(option, arg_name = "name")]
    pub(crate) kind: Option<String>,
    /// folder with benchmarks, looked through before the bundled ones (repeatable)
    #[argh(option, arg_name = "dir")]
    pub(crate) benchmarks: Vec<PathBuf>,
    /// configuration file in SeBS's format
    #[argh(option, arg_name = "file")]
    pub(crate) config: Option<PathBuf>,
    /// platform: local
    #[argh(option, arg_name = "name")]
    pub(crate) deployment: Option<String>,
    /// python or nodejs (default: each; for a benchmark, its first)
    #[argh(option, arg_name = "name")]
    pub(crate) language: Option<String>,
    /// version of the language (default: the newest with an image here, else this host's)
    #[argh(option, arg_name = "version")]
    pub(crate) language_version: Option<String>,
    /// variant of the benchmark's code (default: default)
    #[argh(option, arg_name = "name")]
    pub(crate) language_variant: Option<String>,
    /// x64 or arm64 (default: this machine's)
    #[argh(option, arg_name = "name")]
    pub(crate) architecture: Option<String>,
    /// runtime images of all versions that the repository has
    #[argh(switch)]
    pub(crate) all_versions: bool,
    /// repository to pull from: REGISTRY/NAME, or NAME for runtime images on Docker Hub
    #[argh(option, arg_name = "name")]
    pub(crate) repository: Option<String>,
    /// word that sets the tag of a function image apart
    #[argh(option, arg_name = "word")]
    pub(crate) image_tag_prefix: Option<String>,
}
