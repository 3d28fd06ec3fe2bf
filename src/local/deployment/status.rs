//! What of a deployment runs: asked of the engine, of `/proc` and of the functions themselves.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use serde::Serialize;

use super::{Deployment, MemoryMeasurements, RecordingFormat};
use crate::cancel::Cancel;
use crate::docker::{ContainerInspect, Engine};
use crate::error::{Error, Result};
use crate::local::{ready, short, whereabouts};
use crate::probe::Recording;
use crate::process::Identity;
use crate::storage::{self, StorageStatus};

/// How long an instance may take to answer: one that is at work may be silent until it is done.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// What of a deployment runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeploymentStatus {
    /// Had all of it been started? Not as long as `local start` is at work, or if it was killed.
    pub is_whole: bool,
    /// The network of the engine's that they were put on; absent: its default one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Each instance.
    pub instances: Vec<InstanceStatus>,
    /// The storage that they use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub storage: Vec<StorageStatus>,
    /// The sampling of memory; absent: there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_measurements: Option<MeasurementStatus>,
    /// When it was stopped; absent: it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<String>,
}

/// What there is of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InstanceStatus {
    /// Name of its function.
    pub function: String,
    /// Its container's id.
    pub instance_id: String,
    /// In the engine's words, `running`, `paused`, `exited` among them; `gone` where it does not know the container, and
    /// `disconnected` where that runs and was taken off its network.
    pub state: String,
    /// How its process ended; absent where it has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// Where it is invoked: at the address that its container has now, while it runs.
    pub url: String,
    /// Where the deployment's file says that it is invoked, where that is no more so: somebody started its container again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded_url: Option<String>,
    /// Did it answer within 2 s? One that is at work may not, and be well all the same. Absent: it was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answers: Option<bool>,
}

/// What there is of the sampling of memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MeasurementStatus {
    /// Does the process live?
    pub state: MeasurementState,
    /// The processes, as the deployment's file names them.
    pub pids: Vec<i32>,
    /// The file that they write.
    pub file: PathBuf,
    /// Its format; absent where the deployment's file does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<RecordingFormat>,
    /// How long it is; absent where it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// The file with what the processes had to say, of a full disk for example; absent if that is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
}

/// Does a process that samples live?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MeasurementState {
    /// It does.
    Alive,
    /// It has ended.
    Ended,
    /// It has ended without completing its recording.
    Killed,
}

impl MeasurementState {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            MeasurementState::Alive => "alive",
            MeasurementState::Ended => "ended",
            MeasurementState::Killed => "killed",
        }
    }
}

impl DeploymentStatus {
    /// Does every part of it run?
    pub fn is_running(&self) -> bool {
        let is_sampled =
            self.memory_measurements.as_ref().is_none_or(|status| status.state == MeasurementState::Alive);
        self.is_whole
            && !self.instances.is_empty()
            && self.instances.iter().all(|instance| instance.state == "running")
            && self.storage.iter().all(|storage| storage.answers)
            && is_sampled
    }
}

impl Deployment {
    /// What of the deployment runs.
    ///
    /// # Errors
    /// The engine cannot be asked, or the token was triggered.
    pub fn status(&self, engine: &Engine, cancel: &Cancel) -> Result<DeploymentStatus> {
        let (mut instances, mut addresses) = (Vec::new(), Vec::new());
        for function in &self.functions {
            for instance in &function.instances {
                let found = inspect(engine, &instance.instance_id)?;
                let address = found.as_ref().and_then(whereabouts::present_address);
                let url = address.map_or(instance.url.clone(), |address| address.to_string());
                let state = found.as_ref().map(|found| &found.state);
                let is_up = state.is_some_and(|state| state.running && !state.paused);
                addresses.push(address.filter(|_| is_up));
                instances.push(InstanceStatus {
                    function: function.name.clone(),
                    instance_id: instance.instance_id.clone(),
                    exit_code: state.filter(|state| !state.running).map(|state| state.exit_code),
                    state: match state {
                        None => "gone".to_string(),
                        Some(_) if is_up && address.is_none() => "disconnected".to_string(),
                        Some(state) => state.status.clone(),
                    },
                    recorded_url: Some(instance.url.clone()).filter(|recorded| *recorded != url),
                    url,
                    answers: None,
                });
            }
        }
        for (instance, answers) in instances.iter_mut().zip(ask(&addresses, cancel)?) {
            instance.answers = answers;
        }
        let file = self.storage_file()?;
        let storage = file.kinds().map(|(kind, config)| storage::status(engine, kind, config, cancel));
        Ok(DeploymentStatus {
            is_whole: self.is_whole(),
            network: self.network.clone(),
            instances,
            storage: storage.collect::<Result<_>>()?,
            memory_measurements: self.memory_measurements.as_ref().map(status_of),
            stopped_at: self.stopped_at.clone(),
        })
    }

    /// The first part of it that runs, in words; `None` if nothing does.
    pub(super) fn something_that_runs(&self, engine: &Engine) -> Result<Option<String>> {
        for (function, id) in self.instances() {
            if inspect(engine, id)?.is_some_and(|found| found.state.running) {
                return Ok(Some(format!("instance {} of `{}`", short(id), function.name)));
            }
        }
        let living = self.memory_measurements.as_ref().and_then(living_process);
        Ok(living.map(|process| format!("process {}, which samples memory", process.pid)))
    }
}

/// Whether each instance that has an address answers; some at a time, since one whose handler is at work may stay silent.
fn ask(addresses: &[Option<SocketAddr>], cancel: &Cancel) -> Result<Vec<Option<bool>>> {
    const AT_A_TIME: usize = 64;
    let ask = |address: SocketAddr| ready::answers(address, ANSWER_LIMIT, cancel);
    let mut answers = Vec::new();
    for some in addresses.chunks(AT_A_TIME) {
        answers.extend(std::thread::scope(|scope| {
            let asked: Vec<_> =
                some.iter().map(|address| address.map(|address| scope.spawn(move || ask(address)))).collect();
            let answer = |asked: ScopedJoinHandle<'_, Result<bool>>| {
                asked.join().unwrap_or_else(|_| Err(Error::new("a thread that asked an instance panicked")))
            };
            asked.into_iter().map(|asked| asked.map(answer).transpose()).collect::<Result<Vec<_>>>()
        })?);
    }
    Ok(answers)
}

/// `None`: the engine does not know it.
fn inspect(engine: &Engine, id: &str) -> Result<Option<ContainerInspect>> {
    match engine.inspect_container(id) {
        Ok(inspected) => Ok(Some(inspected)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn status_of(measurements: &MemoryMeasurements) -> MeasurementStatus {
    let state = match living_process(measurements) {
        Some(_) => MeasurementState::Alive,
        None if is_cut(&measurements.file) => MeasurementState::Killed,
        None => MeasurementState::Ended,
    };
    let size_of = |file: &Path| std::fs::metadata(file).ok().map(|metadata| metadata.len());
    MeasurementStatus {
        state,
        pids: measurements.pids.clone(),
        file: measurements.file.clone(),
        format: measurements.format,
        file_bytes: size_of(&measurements.file),
        log: Some(measurements.log()).filter(|log| size_of(log).is_some_and(|size| size > 0)),
    }
}

fn living_process(measurements: &MemoryMeasurements) -> Option<Identity> {
    measurements.processes().0.into_iter().find(Identity::is_alive)
}

/// Does a recording lack its end? SeBS's lines do not tell.
fn is_cut(file: &Path) -> bool {
    Recording::open(file).is_ok_and(|recording| recording.end.is_none())
}
