//! Asks the interpreter in an image what it is, in a container of its own.

use std::time::Duration;

use serde::Deserialize;

use crate::docker::{ContainerSpec, Engine, HostConfig, Lifetime, LogConfig, Owner};
use crate::error::{Error, Result};
use crate::faas::Language;
use crate::files;

/// How long an interpreter may take to say a line.
const LIMIT: Duration = Duration::from_secs(30);

/// What the interpreter in an image says of itself.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Described {
    #[serde(default)]
    pub(super) version: Vec<u32>,
    pub(super) build: String,
    pub(super) libc: String,
}

/// Asks the interpreter in an image what it is, in a container of its own; an image that cannot tell is no error.
pub(super) fn describe(engine: &Engine, image: &str, language: Language) -> Result<Described> {
    match ask(engine, image, language) {
        Err(error) if !error.is_cancelled() && !error.is_disconnected() => {
            log::debug!("image `{image}` does not tell what its interpreter is: {error}");
            Ok(Described::default())
        }
        outcome => outcome,
    }
}

/// The same, for whom it is an error.
pub(super) fn ask(engine: &Engine, image: &str, language: Language) -> Result<Described> {
    let command = match language {
        Language::Python => ["python3", "-c", include_str!("python/describe.py")],
        Language::Nodejs => ["node", "-e", include_str!("nodejs/describe.js")],
    };
    let spec = ContainerSpec {
        image: image.to_string(),
        entrypoint: Some(vec![command[0].to_string()]),
        cmd: command[1..].iter().map(|word| word.to_string()).collect(),
        host_config: HostConfig {
            network_mode: "none".to_string(),
            cap_drop: vec!["ALL".to_string()],
            log_config: Some(LogConfig::readable()),
            security_opt: vec!["no-new-privileges".to_string()],
            ..HostConfig::default()
        },
        ..ContainerSpec::default()
    };
    let name = format!("sebs-lite-describe-{}", files::random_hex(8));
    let container = engine.create_owned(&Owner::current()?, &Lifetime::Run, &name, spec)?;
    engine.start_container(container.id())?;
    engine.wait_container(container.id(), Some(LIMIT))?;
    let logs = engine.container_logs(container.id(), None)?;
    container.remove()?;
    serde_json::from_slice(&logs.stdout).map_err(|error| Error::new(error.to_string()))
}
