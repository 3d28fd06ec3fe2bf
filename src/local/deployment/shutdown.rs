//! Stops a deployment: its sampling, its instances and what a killed `local start` left, each whatever becomes of the others.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};

use super::file::DeploymentFile;
use super::{Deployment, MemoryMeasurements, measurement};
use crate::clock;
use crate::docker::{Engine, Leftovers};
use crate::error::{Error, Result};
use crate::faas::Function;
use crate::files::{self, Access};
use crate::local::{container, short};
use crate::probe::{MemoryStats, Recording};
use crate::process::{Ended, Identity};
use crate::storage::StoppedStorage;

/// How a deployment is stopped.
#[derive(Clone, Copy, Debug)]
pub struct ShutdownRequest<'a> {
    /// The file for what was sampled, `memory_stats.json`; written only where memory was sampled.
    pub output_json: &'a Path,
    /// The file that names the deployment, absolute: it is noted there that it was stopped, and containers that were made
    /// for it and that it does not name are removed. `None`: there is no such file.
    pub file: Option<&'a Path>,
    /// The folder for what the functions printed, a file an instance; `None`: it is dropped.
    pub logs: Option<&'a Path>,
}

/// What became of each part of a deployment.
#[derive(Debug, Default)]
pub struct Shutdown {
    /// Had it been stopped before? Then since when: RFC 3339, UTC.
    pub stopped_before: Option<String>,
    /// The processes that sampled, and how they ended.
    pub processes: Vec<(Identity, Ended)>,
    /// What they sampled; `None` where nothing was, or it cannot be read.
    pub stats: Option<MemoryStats>,
    /// Each instance.
    pub instances: Vec<StoppedInstance>,
    /// Each storage that was started for them.
    pub storage: Vec<StoppedStorage>,
    /// Names of containers that were made for the deployment, but that it did not name; they are gone.
    pub left_behind: Vec<String>,
    /// What the user should know, a sentence each.
    pub warnings: Vec<String>,
    /// What could not be done; all else was.
    pub failures: Vec<Error>,
}

/// What became of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoppedInstance {
    /// Name of its function.
    pub function: String,
    /// Its container's id.
    pub instance_id: String,
    /// What became of it.
    pub end: InstanceEnd,
}

/// What became of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceEnd {
    /// Its container was stopped, and removed.
    Removed,
    /// Its container was stopped, and is there.
    Stopped,
    /// Its container had been removed before.
    Gone,
    /// It could not be stopped.
    Failed,
}

impl InstanceEnd {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            InstanceEnd::Removed => "removed",
            InstanceEnd::Stopped => "stopped",
            InstanceEnd::Gone => "gone before",
            InstanceEnd::Failed => "failed",
        }
    }
}

impl Deployment {
    /// Stops everything that can be stopped; doing it twice does no harm, and writes the same statistics.
    ///
    /// First the sampling ends, then what it sampled is written to `output_json`; the recording stays. Then the containers
    /// are stopped at once and, as the deployment says, removed.
    ///
    /// `connect` gives the engine that runs them. It is called only when the sampling has ended, which does not need one.
    /// Stopping is clean-up: the engine's own cancel token is not looked at.
    pub fn shutdown(
        &mut self,
        request: &ShutdownRequest<'_>,
        connect: impl FnOnce() -> Result<Engine>,
    ) -> Shutdown {
        let mut shutdown = Shutdown { stopped_before: self.stopped_at.clone(), ..Shutdown::default() };
        if let Some(measurements) = &self.memory_measurements {
            shutdown.end_sampling(measurements);
            self.collect_children();
        }
        let all_ended = shutdown.failures.is_empty();
        if let Some(measurements) = &self.memory_measurements {
            shutdown.write_stats(measurements, request.output_json);
        }
        let failures_before = shutdown.failures.len();
        match connect() {
            Ok(engine) => self.stop_instances(&engine.without_cancel(), request, &mut shutdown),
            Err(error) => {
                shutdown.instances = self.instances().map(|(function, id)| failed(function, id)).collect();
                shutdown.failures.push(error);
            }
        }
        if all_ended && shutdown.failures.len() == failures_before && self.stopped_at.is_none() {
            let stopped_at = clock::timestamp();
            if let Some(Err(error)) = request.file.map(|file| DeploymentFile::mark_stopped(file, &stopped_at))
            {
                shutdown.failures.push(error);
            }
            self.stopped_at = Some(stopped_at);
        }
        shutdown
    }

    fn stop_instances(&self, engine: &Engine, request: &ShutdownRequest<'_>, shutdown: &mut Shutdown) {
        let mut is_lost = false;
        for (function, id) in self.instances() {
            if is_lost {
                shutdown.instances.push(failed(function, id));
                continue;
            }
            match stop_instance(engine, &function.name, id, self.remove_containers, request.logs) {
                Ok(end) => shutdown.instances.push(StoppedInstance { end, ..failed(function, id) }),
                Err(error) => {
                    // Each further question would only be told the same.
                    is_lost = error.is_disconnected();
                    shutdown.instances.push(failed(function, id));
                    shutdown.failures.push(error);
                }
            }
        }
        if is_lost {
            return;
        }
        // Functions may use it to their end.
        let (stopped, failures) = self.stop_storage(engine);
        shutdown.storage = stopped;
        shutdown.failures.extend(failures);
        if let Some(file) = request.file {
            shutdown.remove_left_behind(engine, file, self);
        }
    }
}

/// An instance that could not be stopped.
fn failed(function: &Function, id: &str) -> StoppedInstance {
    StoppedInstance { function: function.name.clone(), instance_id: id.to_string(), end: InstanceEnd::Failed }
}

impl Shutdown {
    fn end_sampling(&mut self, measurements: &MemoryMeasurements) {
        let (processes, warnings) = measurements.processes();
        self.warnings.extend(warnings);
        for identity in processes {
            match measurement::end(&identity) {
                Ok(ended) => self.processes.push((identity, ended)),
                Err(error) => self.failures.push(error),
            }
        }
    }

    fn write_stats(&mut self, measurements: &MemoryMeasurements, output: &Path) {
        let file = &measurements.file;
        self.settle_log(measurements);
        let has_samples = fs::metadata(file).is_ok_and(|metadata| metadata.len() > 0);
        if !has_samples && measurements.pids.is_empty() && self.processes.is_empty() {
            self.warnings.push("the sampling of memory had not begun".to_string());
            if let Err(error) = files::remove_file(file) {
                self.warnings.push(error.to_string());
            }
            return;
        }
        // SeBS's text is no recording, and does not tell whether it is whole.
        let recording = Recording::open(file).ok();
        let is_cut = recording.as_ref().is_some_and(|recording| recording.end.is_none());
        if let Some(text) = self.how_sampling_ended(is_cut) {
            self.warnings.push(format!("the process that samples {text} (`{}`)", file.display()));
        }
        let stats = match &recording {
            Some(recording) => MemoryStats::of_recording(recording),
            None => MemoryStats::read(file),
        };
        match stats.and_then(|stats| write_json(output, &stats).map(|()| stats)) {
            Ok(stats) => self.stats = Some(stats),
            Err(error) => self.failures.push(error),
        }
    }

    /// What the user should know of it.
    fn how_sampling_ended(&self, is_cut: bool) -> Option<&'static str> {
        let has = |how| self.processes.iter().any(|(_, ended)| *ended == how);
        if !self.failures.is_empty() {
            // Those of ending it.
            return Some("could not be ended: the statistics are of what it has written so far");
        }
        if has(Ended::Killed) {
            return Some("did not end when asked to, and was killed: its recording ends there");
        }
        if is_cut && has(Ended::Terminated) {
            return Some("could not complete its recording, which lacks its last samples");
        }
        if is_cut {
            return Some("was killed or could not write on: its recording ends there");
        }
        let had_ended = !has(Ended::Terminated) && self.stopped_before.is_none();
        had_ended.then_some("had ended before: its recording ends there")
    }

    /// What the process had to say is kept only if there is anything.
    fn settle_log(&mut self, measurements: &MemoryMeasurements) {
        let log = measurements.log();
        match fs::metadata(&log) {
            Ok(metadata) if metadata.len() == 0 => {
                if let Err(error) = files::remove_file(&log) {
                    self.warnings.push(error.to_string());
                }
            }
            Ok(_) if self.stopped_before.is_none() => {
                self.warnings
                    .push(format!("what the process that samples had to say is in `{}`", log.display()));
            }
            _ => {}
        }
    }

    /// Removes the containers that a killed `local start` made, and did not come to name in its file.
    fn remove_left_behind(&mut self, engine: &Engine, file: &Path, deployment: &Deployment) {
        let leftovers = Leftovers {
            engine,
            file,
            is_named: &|id| deployment.names(id),
            is_whole: deployment.is_whole(),
            may_come: !deployment.is_whole() && self.stopped_before.is_none(),
        };
        let cleared = leftovers.remove();
        self.left_behind.extend(cleared.removed);
        self.warnings.extend(cleared.warnings);
        self.failures.extend(cleared.failures);
    }
}

fn stop_instance(
    engine: &Engine,
    function: &str,
    id: &str,
    remove: Option<bool>,
    logs: Option<&Path>,
) -> Result<InstanceEnd> {
    let state = match engine.inspect_container(id) {
        Ok(inspected) => inspected.state,
        Err(error) if error.is_not_found() => return Ok(InstanceEnd::Gone),
        Err(error) => return Err(error),
    };
    if state.running {
        engine.stop_container(id, Duration::ZERO)?;
    }
    // The log of a function that prints without end has one only when the function has.
    if let Some(folder) = logs
        && let Err(error) = container::save_log(engine, folder, function, id)
        // Containers of SeBS remove themselves.
        && !error.is_not_found()
    {
        log::warn!("failed to save the log of instance {}: {error}", short(id));
    }
    if remove == Some(true) {
        engine.remove_container(id)?;
        return Ok(InstanceEnd::Removed);
    }
    Ok(InstanceEnd::Stopped)
}

/// Writes JSON whose objects are indented and whose arrays, which may have millions of numbers, are not.
fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    files::write_with(path, Access::Everyone, |file| {
        let mut out = BufWriter::new(file);
        let formatter = IndentedObjects(PrettyFormatter::new());
        value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))?;
        out.write_all(b"\n")?;
        out.flush()
    })
}

struct IndentedObjects(PrettyFormatter<'static>);

impl Formatter for IndentedObjects {
    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::TempFolder;

    #[test]
    fn numbers_stand_in_one_line_and_keys_in_lines_of_their_own() {
        let folder = TempFolder::create().unwrap();
        let path = folder.path().join("x.json");
        write_json(&path, &serde_json::json!({"a": {"b": [1, 2, 3], "c": {}}, "d": []})).unwrap();
        let text = files::read_text(&path).unwrap();
        assert_eq!(text, "{\n  \"a\": {\n    \"b\": [1,2,3],\n    \"c\": {}\n  },\n  \"d\": []\n}\n");
    }
    #[test]
    fn how_the_sampling_ended_is_told_as_it_was() {
        let identity = Identity { pid: 1, start_ticks: 1, boot_id: String::new() };
        let told = |ended: &[Ended], is_cut, change: &dyn Fn(&mut Shutdown)| {
            let processes = ended.iter().map(|ended| (identity.clone(), *ended)).collect();
            let mut shutdown = Shutdown { processes, ..Shutdown::default() };
            change(&mut shutdown);
            shutdown.how_sampling_ended(is_cut).unwrap_or_default()
        };
        let first = |_: &mut Shutdown| {};
        let again = |shutdown: &mut Shutdown| shutdown.stopped_before = Some("earlier".to_string());
        let lives = |shutdown: &mut Shutdown| shutdown.failures.push(Error::new("not permitted"));
        assert_eq!(told(&[Ended::Terminated], false, &first), "");
        assert!(told(&[Ended::Terminated], true, &first).starts_with("could not complete"));
        assert!(told(&[Ended::Killed], true, &first).starts_with("did not end when asked to"));
        assert!(told(&[Ended::AlreadyGone], true, &first).starts_with("was killed or could not write on"));
        assert!(told(&[Ended::AlreadyGone], true, &again).starts_with("was killed or could not write on"));
        assert!(told(&[Ended::AlreadyGone], false, &first).starts_with("had ended before"));
        assert!(told(&[], false, &first).starts_with("had ended before"));
        assert_eq!(told(&[Ended::AlreadyGone], false, &again), "");
        assert!(told(&[], true, &lives).starts_with("could not be ended"));
    }
}
