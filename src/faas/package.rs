//! A built benchmark, as far as a platform has to know of it.

use std::path::PathBuf;
use std::sync::Arc;

use super::container::FunctionImage;
use super::language::{Architecture, Runtime};
use crate::files::Lock;

/// The folder that is mounted at `/function`, and what the benchmark says a function made of it needs.
#[derive(Clone, Debug)]
pub struct CodePackage {
    /// Name of the benchmark: `110.dynamic-html`.
    pub benchmark: String,
    /// What it is built for.
    pub runtime: Runtime,
    /// What it is built for.
    pub architecture: Architecture,
    /// SHA-256 of all that went in, 64 hexadecimal digits.
    pub hash: String,
    /// The folder on this host, absolute.
    pub location: PathBuf,
    /// Bytes of all files in it.
    pub size_bytes: u64,
    /// Was it built now, rather than found in the cache?
    pub rebuilt: bool,
    /// Time-out of one invocation in seconds, from the benchmark's configuration; 0: none.
    pub timeout_s: u64,
    /// Memory limit in MB of 2²⁰ bytes, from the benchmark's configuration; 0: none.
    pub memory_mb: u64,
    /// CPU limit in CPUs, from the benchmark's configuration; `None`: none.
    pub cpus: Option<f64>,
    /// Does it read or write object storage?
    pub uses_storage: bool,
    /// Does it read or write tables?
    pub uses_nosql: bool,
    /// Id of the runtime image that it was built with and runs on.
    pub image_id: String,
    /// The image that it is baked into; `None`: it is mounted into containers of the runtime image.
    pub container: Option<FunctionImage>,
    /// Keeps other processes from removing the folder while this value or a clone of it lives; `None`: nothing does.
    #[expect(dead_code, reason = "held for its lock alone")]
    pub(crate) in_use: Option<Arc<Lock>>,
}

impl CodePackage {
    /// The name of a function whose name the user does not choose: with the id of the resources that it belongs to,
    /// where it is one of a deployment.
    pub fn function_name(&self, resources_id: Option<&str>) -> String {
        let (benchmark, language, version) = (&self.benchmark, self.runtime.language, &self.runtime.version);
        match resources_id {
            Some(id) => format!("sebs-{id}-{benchmark}-{language}-{version}"),
            None => format!("sebd-{benchmark}-{language}-{version}"),
        }
    }

    /// Id of the image that instances are containers of.
    pub fn instance_image(&self) -> &str {
        self.container.as_ref().map_or(&self.image_id, |image| &image.id)
    }
}
