//! Samples the memory of containers: finds each one's counter, has a probe read it, and keeps the kernel's own peak.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use crate::cgroup::{self, Memory, PeakReset, Reading};
use crate::clock::Instant;
use crate::docker::{ContainerInspect, Engine};
use crate::error::{Context, Error, Kind, Result};
use crate::faas::ExecutionResult;
use crate::probe::{About, Header, Note, Output, Probe, ProbeOptions, Recording, Target, TargetId};
use crate::units::{Bytes, show_duration};

use super::feed::{self, Feed};

/// How long the engine may take to learn that a container has ended.
const GRACE: Duration = Duration::from_millis(500);

/// How memory is sampled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterOptions {
    /// From one sample to the next.
    pub interval: Duration,
    /// Ask for SCHED_FIFO and locked memory; what is not granted is a warning.
    pub realtime: bool,
    /// Keep the sampling thread on this CPU, counted from 0.
    pub cpu: Option<usize>,
    /// Where samples go.
    pub output: Output,
    /// Where the numbers come from.
    pub source: SourceChoice,
    /// How many containers and processes will be sampled at one time, as far as that is known: the more, the more room
    /// there is for samples that wait to be written.
    pub expected_targets: usize,
}

impl MeterOptions {
    /// Every `interval`, into memory, without special rights, from wherever the numbers can be had.
    pub fn new(interval: Duration) -> MeterOptions {
        MeterOptions {
            interval,
            realtime: false,
            cpu: None,
            output: Output::Memory,
            source: SourceChoice::default(),
            expected_targets: 1,
        }
    }
}

/// Where the numbers may come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceChoice {
    /// From the container's cgroup, or where that is not on this machine from the engine.
    #[default]
    Auto,
    /// From the container's cgroup alone.
    Cgroup,
    /// From the engine, which gives one reading a second.
    Engine,
}

impl FromStr for SourceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<SourceChoice> {
        match text {
            "auto" => Ok(SourceChoice::Auto),
            "cgroup" => Ok(SourceChoice::Cgroup),
            "engine" => Ok(SourceChoice::Engine),
            _ => Err(Error::usage(format!(
                "source `{text}` is not known: it must be `auto`, `cgroup` or `engine`"
            ))),
        }
    }
}

/// A probe, and the counters of the containers that it samples.
///
/// Beside the samples the recording is told what each target is, and the kernel's own peak whenever it was seen to have
/// risen.
#[derive(Debug)]
pub struct Meter {
    options: MeterOptions,
    /// `None` until there is something to sample.
    probe: Option<Probe>,
    attached: BTreeMap<TargetId, Attached>,
    /// Why the kernel did not count its peak anew for each invocation, if it did not.
    no_reset: Option<String>,
}

/// What is known of a target beside its samples.
#[derive(Debug)]
struct Attached {
    /// What is read: `cgroup v2 memory.current`.
    source: String,
    counters: Counters,
    /// The highest peak that was noted since `since`.
    noted: Option<u64>,
    /// When the kernel was last made to count its peak anew; `None`: never by us.
    since: Option<Instant>,
}

/// Where the numbers of a target come from.
#[derive(Debug)]
enum Counters {
    Cgroup(Box<Memory>),
    Engine(Feed),
}

/// What an instance used before an invocation.
#[derive(Debug)]
pub(super) struct Before {
    current: Option<u64>,
    /// The kernel's peak, if it could not be made to count anew.
    peak: Option<u64>,
    oom_kills: Option<u64>,
    is_reset: bool,
}

impl Meter {
    /// A meter that samples nothing yet.
    pub fn new(options: MeterOptions) -> Meter {
        Meter { options, probe: None, attached: BTreeMap::new(), no_reset: None }
    }

    /// Samples the memory of a running container, by its id or name; the target is labelled with its full id.
    ///
    /// # Errors
    /// It is not there or does not run (`is_not_found`), or its memory cannot be read from here.
    pub fn attach_container(&mut self, engine: &Engine, id: &str) -> Result<TargetId> {
        let inspected = engine.inspect_container(id)?;
        self.attach_inspected(engine, &inspected)
    }

    /// As [`Meter::attach_container`], of a container that was inspected just now.
    ///
    /// # Errors
    /// Those of [`Meter::attach_container`].
    pub fn attach_inspected(&mut self, engine: &Engine, inspected: &ContainerInspect) -> Result<TargetId> {
        let (name, state) = (&inspected.name, &inspected.state);
        if !state.running {
            let text = format!("container `{name}` does not run: it is {}", state.status);
            return Err(Error::with_kind(Kind::NotFound, text));
        }
        let about = || format!("failed to sample container `{name}`");
        let counters = self.counters_of(engine, inspected).context(about)?;
        self.attach(inspected.id.clone(), Some(name.clone()), counters).context(about)
    }

    fn counters_of(&self, engine: &Engine, container: &ContainerInspect) -> Result<Counters> {
        let id = container.id.as_str();
        let from_cgroup = || {
            let pid = i32::try_from(container.state.pid).unwrap_or(0);
            Memory::of_process(pid, Some(id)).map(|memory| Counters::Cgroup(Box::new(memory)))
        };
        let from_engine = || Feed::start(engine, id).map(Counters::Engine);
        let missing = match self.options.source {
            SourceChoice::Engine => return from_engine(),
            SourceChoice::Auto | SourceChoice::Cgroup => match from_cgroup() {
                Ok(counters) => return Ok(counters),
                Err(error) => error,
            },
        };
        if has_ended(engine, container, &missing) {
            return Err(Error::with_kind(Kind::NotFound, "it has ended meanwhile"));
        }
        if self.options.source == SourceChoice::Cgroup {
            return Err(missing);
        }
        let counters = from_engine().map_err(|error| match error.is_cancelled() || error.is_not_found() {
            true => error,
            false => Error::new(format!("{missing}; and the engine does not help: {error}")),
        })?;
        log::warn!("{missing}; the engine's one reading a second is taken instead");
        Ok(counters)
    }

    /// Samples the memory of the control group that a process is in; the target is labelled `pid-<pid>`.
    ///
    /// # Errors
    /// There is no such process (`is_not_found`), or its memory cannot be read from here.
    pub fn attach_process(&mut self, pid: i32) -> Result<TargetId> {
        if self.options.source == SourceChoice::Engine {
            return Err(Error::usage(format!(
                "process {pid} can be sampled by its cgroup alone: the engine knows of containers only"
            )));
        }
        let memory = Memory::of_process(pid, None)?;
        log::info!("process {pid} is in cgroup `{}`, all of which is sampled", memory.location().group);
        self.attach(format!("pid-{pid}"), None, Counters::Cgroup(Box::new(memory)))
    }

    fn attach(&mut self, label: String, name: Option<String>, counters: Counters) -> Result<TargetId> {
        // Lets go of those that have ended: a function that dies at each invocation would use up all descriptors.
        self.look();
        let (counter, source) = match &counters {
            Counters::Cgroup(memory) => (
                memory.current_file()?,
                format!("cgroup {} {}", memory.location().version, memory.current_name()),
            ),
            Counters::Engine(feed) => (feed.counter()?, "engine stats (one reading a second)".to_string()),
        };
        let probe = match &mut self.probe {
            Some(probe) => {
                if matches!(counters, Counters::Engine(_)) && probe.header().interval() < feed::PERIOD {
                    log::warn!("the engine reads `{label}` once a second: each reading is many samples");
                }
                probe
            }
            none => none.insert(Probe::start(self.options.to_probe(&counters))?),
        };
        let target = probe.add(Target { label, counter })?;
        probe.note(Note { target, about: About::Source { source: source.clone(), name } });
        let mut attached = Attached { source, counters, noted: None, since: None };
        // At once, so that this peak is told from those that come while it is sampled.
        attached.look(target, probe);
        self.attached.insert(target, attached);
        Ok(target)
    }

    /// Notes the kernel's peaks that have risen. To be called several times a second: once a container has ended, its
    /// peak cannot be read any more.
    pub fn look(&mut self) {
        let Some(probe) = &self.probe else { return };
        self.attached.retain(|target, attached| attached.look(*target, probe) != Reading::Gone);
    }

    /// How many targets have not ended yet.
    pub fn active(&self) -> usize {
        self.probe.as_ref().map_or(0, Probe::active)
    }

    /// The schedule, and what the kernel granted; `None` until there is something to sample.
    pub fn header(&self) -> Option<&Header> {
        self.probe.as_ref().map(Probe::header)
    }

    /// Ends all series, waits until all is written, and gives the recording; `None` if there was nothing to sample.
    ///
    /// # Errors
    /// Those of [`Probe::stop`].
    pub fn stop(mut self) -> Result<Option<Recording>> {
        self.look();
        let Some(probe) = self.probe.take() else { return Ok(None) };
        let recording = probe.stop();
        let feeds: Vec<Feed> = std::mem::take(&mut self.attached)
            .into_values()
            .filter_map(|attached| match attached.counters {
                Counters::Engine(feed) => Some(feed),
                Counters::Cgroup(_) => None,
            })
            .collect();
        feeds.iter().for_each(Feed::cancel);
        feeds.into_iter().try_for_each(Feed::join)?;
        let mut recording = recording?;
        if let Some(reason) = self.no_reset.take() {
            recording.warnings.push(format!(
                "an invocation's peak is that of its samples, and of the kernel only where it was the highest so far: \
                 {reason}"
            ));
        }
        Ok(Some(recording))
    }

    /// Reads the counters before an invocation, and has the kernel count its peak anew where it can.
    pub(super) fn before_invocation(&mut self, target: TargetId) -> Option<Before> {
        let probe = self.probe.as_ref()?;
        let attached = self.attached.get_mut(&target)?;
        attached.look(target, probe).value()?;
        let no_reset = match attached.memory().map(Memory::reset_peak) {
            Some(Ok(PeakReset::Done)) => None,
            Some(Ok(PeakReset::Gone)) => return None,
            Some(Ok(PeakReset::Unsupported(reason))) => Some(reason.into_owned()),
            Some(Err(error)) => Some(error.to_string()),
            None => Some("it is read by the engine".to_string()),
        };
        let is_reset = no_reset.is_none();
        if is_reset {
            (attached.since, attached.noted) = (Some(Instant::now()), None);
        }
        self.no_reset = self.no_reset.take().or(no_reset);
        Some(Before {
            current: attached.current(),
            peak: attached.noted,
            oom_kills: attached.oom_kills(),
            is_reset,
        })
    }

    /// Writes down what an invocation used, as far as counters tell it: see [`Invocation`](crate::faas::Invocation).
    pub(super) fn after_invocation(
        &mut self,
        target: TargetId,
        before: &Before,
        result: &mut ExecutionResult,
    ) {
        let Some(probe) = &self.probe else { return };
        let Some(attached) = self.attached.get_mut(&target) else { return };
        let invocation = &mut result.invocation;
        // First of all, since what comes after it is not the invocation's any more.
        let peak = attached.look(target, probe).value().flatten();
        let after = attached.current();
        let is_its_own = before.is_reset || peak > before.peak;
        let kernel_peak = peak.filter(|_| is_its_own);
        invocation.memory_kernel_peak_bytes = kernel_peak;
        (invocation.memory_before_bytes, invocation.memory_after_bytes) = (before.current, after);
        invocation.memory_source = Some(attached.source.clone());
        if let Some(Ok(Reading::Value(stat))) = attached.memory().map(Memory::stat) {
            invocation.memory_anon_bytes = stat.anon_bytes.value();
            invocation.memory_file_bytes = stat.file_bytes.value();
        }
        let kills = attached.oom_kills().zip(before.oom_kills);
        invocation.oom_kills = kills.map(|(after, before)| after.saturating_sub(before));
        result.raise_memory_peak(kernel_peak);
    }

    /// Writes an invocation into the recording, so that a picture of it can show when it was.
    pub(super) fn note_invocation(&self, target: TargetId, result: &ExecutionResult) {
        let Some(probe) = &self.probe else { return };
        let Some(window) = result.invocation.window() else { return };
        let about = About::Invocation {
            request_id: result.request_id.clone(),
            begin_ns: window.begin_ns,
            end_ns: window.end_ns,
            is_cold: result.stats.cold_start,
            is_failed: result.stats.failure,
            kernel_peak_bytes: result.invocation.memory_kernel_peak_bytes,
        };
        probe.note(Note { target, about });
    }
}

/// Has a container, whose counters are `missing`, ended? Its process may as well be on another machine.
fn has_ended(engine: &Engine, container: &ContainerInspect, missing: &Error) -> bool {
    let begin = Instant::now();
    loop {
        let is_running =
            |again: ContainerInspect| again.state.running && again.state.pid == container.state.pid;
        if !engine.inspect_container(&container.id).is_ok_and(is_running) {
            return true;
        }
        // The engine learns a little later than the kernel that a process has ended.
        if !missing.is_not_found() || Instant::now().since(begin) > GRACE {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl MeterOptions {
    /// For a probe whose first target those counters are.
    fn to_probe(&self, first: &Counters) -> ProbeOptions {
        let is_engine = matches!(first, Counters::Engine(_));
        let (mut interval, mut warnings) = (self.interval, Vec::new());
        if is_engine && interval < feed::PERIOD {
            let asked = show_duration(interval);
            warnings
                .push(format!("the engine gives one reading a second: that is the interval, not {asked}"));
            warnings.iter().for_each(|warning| log::warn!("{warning}"));
            interval = feed::PERIOD;
        }
        let charge_batch = cgroup::charge_batch_bytes().inspect_err(|error| log::debug!("{error}"));
        ProbeOptions {
            realtime: self.realtime,
            cpu: self.cpu,
            output: self.output.clone(),
            // The engine's machine may have more processors or fewer.
            charge_batch: charge_batch.ok().filter(|_| !is_engine).map(Bytes),
            warnings,
            ring_samples: self.ring_samples(interval),
            ..ProbeOptions::new(interval)
        }
    }

    /// Room for the samples of some seconds, in which a disk may not answer; within bounds, since all of it becomes resident.
    fn ring_samples(&self, interval: Duration) -> usize {
        const STALL: Duration = Duration::from_secs(8);
        let samples = STALL.as_nanos() / interval.as_nanos().max(1) * self.expected_targets as u128;
        samples.clamp(1 << 13, 1 << 17) as usize
    }
}

impl Attached {
    /// The cgroup's counters; `None` where there are only the engine's readings.
    fn memory(&self) -> Option<&Memory> {
        match &self.counters {
            Counters::Cgroup(memory) => Some(memory),
            Counters::Engine(_) => None,
        }
    }

    /// What is used at this instant.
    fn current(&self) -> Option<u64> {
        self.memory()?.current().ok()
    }

    fn peak(&self) -> Result<Reading<Option<u64>>> {
        Ok(match &self.counters {
            Counters::Cgroup(memory) => match memory.peak()? {
                Reading::Value(peak) => Reading::Value(peak.value()),
                Reading::Gone => Reading::Gone,
            },
            Counters::Engine(feed) if feed.has_ended() && self.noted == feed.peak() => Reading::Gone,
            Counters::Engine(feed) => Reading::Value(feed.peak()),
        })
    }

    /// Reads the kernel's peak, if it has one, and notes it if it has risen.
    fn look(&mut self, target: TargetId, probe: &Probe) -> Reading<Option<u64>> {
        let peak = match self.peak() {
            Ok(Reading::Value(Some(peak))) => peak,
            Ok(other) => return other,
            Err(error) => {
                log::debug!("{error}");
                return Reading::Value(None);
            }
        };
        if self.noted.is_none_or(|noted| peak > noted) {
            self.noted = Some(peak);
            let from_ns = self.since.map(|since| since.0);
            let about = About::KernelPeak { bytes: peak, from_ns, at_ns: Instant::now().0 };
            probe.note(Note { target, about });
        }
        Reading::Value(Some(peak))
    }

    fn oom_kills(&self) -> Option<u64> {
        self.memory()?.events().ok()?.value()?.oom_kill.value()
    }
}
