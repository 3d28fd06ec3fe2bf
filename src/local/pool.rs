//! The instances of all functions, shared by all that invoke: each serves one invocation at a time, and there are more of
//! them while there is more to do.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Instant;
use crate::docker::Lifetime;
use crate::error::{Error, Result};
use crate::faas::{CodePackage, FunctionConfig, Instance, StartKind};

use super::container::Starter;
use super::instance::LiveInstance;
use super::meter::Meter;
use super::metrics::InstanceMetrics;
use super::silence::Waits;

/// How often a wait for an instance looks whether the job was given up.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The instances of all functions.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) starter: Starter,
    state: Mutex<State>,
    /// Something in the state has changed that somebody may wait for.
    changed: Condvar,
    /// `None` where memory is not sampled, or not any more.
    meter: Mutex<Option<Meter>>,
    /// The invocations under way, for the thread that looks after those that take long.
    pub(super) waits: Waits,
}

/// What several threads change.
#[derive(Debug, Default)]
pub(super) struct State {
    functions: HashMap<String, Arc<Deployed>>,
    idle: Vec<LiveInstance>,
    /// Those that are in the hands of somebody who gives them back.
    busy: Vec<Busy>,
    /// How many instances of a function are being started.
    starting: HashMap<String, usize>,
    /// Functions of which no instance is to be had for now.
    held: HashSet<String>,
    /// Functions that are being prepared, so that no instance of them ends for want of use.
    in_preparation: HashSet<String>,
    /// The most instances that a function may have at work, and that are started for it.
    max_instances: Option<usize>,
    next_serial: u64,
    /// How often cold starts were enforced, from a random number on, so that no two runs are mixed up.
    cold_start_counter: u64,
    pub(super) has_warned_of_server: bool,
    tallies: HashMap<String, Tally>,
    /// What instances that are no more had used, by function.
    pub(super) ended: BTreeMap<String, Vec<InstanceMetrics>>,
    /// Is the platform at its end?
    is_closed: bool,
    /// How many wait for a change.
    waiting: usize,
}

/// What a further instance of a function is started from.
#[derive(Clone, Debug)]
pub(super) struct Deployed {
    pub(super) package: CodePackage,
    pub(super) config: FunctionConfig,
    pub(super) lifetime: Lifetime,
    /// One more with each deployment, and each change of limits: an instance of an earlier one serves no new invocation.
    pub(super) revision: u64,
}

/// How a function's invocations went so far, and how many instances it had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Invocations that were the first of their instance.
    pub cold: u64,
    /// Invocations that were not.
    pub warm: u64,
    /// How many of both failed.
    pub failed: u64,
    /// Instances that were started.
    pub started: u64,
    /// Instances that were removed, those among them that had died.
    pub removed: u64,
    /// The most instances at one time, without idle ones that were kept beyond what there may be.
    pub most_instances: u64,
}

#[derive(Debug)]
struct Busy {
    record: Instance,
    function: String,
    revision: u64,
    serial: u64,
    /// Is it for an invocation, rather than taken out?
    is_claimed: bool,
}

/// An instance that is its holder's alone.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) live: LiveInstance,
    /// What is in force.
    pub(super) deployed: Arc<Deployed>,
}

impl Pool {
    pub(super) fn new(starter: Starter, meter: Option<Meter>) -> Pool {
        let random = u64::from_str_radix(&crate::files::random_hex(8), 16).unwrap_or_default();
        // Two cannot be published at one port.
        let most = starter.options.host_port.map(|_| 1).or(starter.options.max_instances);
        let state = State { cold_start_counter: random, max_instances: most, ..State::default() };
        Pool {
            starter,
            state: Mutex::new(state),
            changed: Condvar::new(),
            meter: Mutex::new(meter),
            waits: Waits::default(),
        }
    }

    /// A thread that panicked with the lock had not begun to change anything that others rely on.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn meter(&self) -> MutexGuard<'_, Option<Meter>> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something changes, for a moment at most.
    fn wait<'a>(&self, mut state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        state.waiting += 1;
        let mut state = self.changed.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0;
        state.waiting -= 1;
        state
    }

    /// What instances of a function are started from; `None`: it is not deployed here.
    pub(super) fn deployed(&self, function: &str) -> Option<Arc<Deployed>> {
        self.lock().functions.get(function).cloned()
    }

    /// Starts instances of this deployment from now on; those of earlier ones serve on until they are taken out.
    pub(super) fn deploy(&self, function: &str, deployed: Deployed) {
        self.lock().functions.insert(function.to_string(), Arc::new(deployed));
        self.changed.notify_all();
    }

    /// Starts no instances of a function any more.
    pub(super) fn undeploy(&self, function: &str) {
        self.lock().functions.remove(function);
        self.changed.notify_all();
    }

    /// The instances of a function's deployment that is in force, in the order of their starts.
    pub(super) fn records(&self, function: &str) -> Vec<Instance> {
        self.lock().records(function).cloned().collect()
    }

    /// Are these still the instances that [`Pool::records`] would give?
    pub(super) fn has_records(&self, function: &str, known: &[Instance]) -> bool {
        self.lock().records(function).eq(known)
    }

    /// An instance for one invocation: an idle one, the one used last, so that others can end for want of use; else one
    /// more, as long as there may be; else the first that is given back. No more are at work than there may be, however
    /// many are idle.
    ///
    /// # Errors
    /// The job was given up, the function is not deployed, or no instance could be started.
    pub(super) fn claim(&self, function: &str, start: StartKind) -> Result<Claimed> {
        let mut state = self.lock();
        let mut number = None;
        loop {
            self.starter.cancel.check()?;
            if state.is_closed {
                return Err(Error::new(format!("function `{function}` was shut down")));
            }
            let Some(deployed) = state.functions.get(function).cloned() else {
                return Err(Error::new(format!(
                    "function `{function}` is not deployed here: ask `get_function` for it"
                )));
            };
            if state.held.contains(function) {
                state = self.wait(state, LOOK_EVERY);
                continue;
            }
            // An earlier command may have kept more than may serve now.
            if !state.has_room(state.at_work(function)) {
                state = self.wait(state, LOOK_EVERY);
                continue;
            }
            if let Some(mut live) = state.take_idle(function, start) {
                if start == StartKind::Cold {
                    live.record.cold_start_counter = Some(state.number(&mut number, start));
                }
                state.lend(&live, true);
                live.trigger.set_timeout(timeout(&deployed.config));
                return Ok(Claimed { live, deployed });
            }
            if state.has_room(state.living(function) + state.starting(function)) {
                *state.starting.entry(function.to_string()).or_default() += 1;
                let number = state.number(&mut number, start);
                drop(state);
                let started = self.start_as(function, &deployed, number);
                state = self.lock();
                *state.starting.entry(function.to_string()).or_default() -= 1;
                self.changed.notify_all();
                let live = started?;
                if state.functions.get(function).is_some_and(|now| now.revision == deployed.revision) {
                    state.lend(&live, true);
                    return Ok(Claimed { live, deployed });
                }
                drop(state);
                self.retire_or_warn(live);
                state = self.lock();
                continue;
            }
            // There is room for a cold one only where a warm one goes.
            if let Some(live) = state.take_idle(function, StartKind::Any) {
                state.lend(&live, false);
                drop(state);
                self.retire(live)?;
                state = self.lock();
                continue;
            }
            state = self.wait(state, LOOK_EVERY);
        }
    }

    /// Takes an instance back, and removes it where its function's deployment is another by now.
    pub(super) fn give_back(&self, mut live: LiveInstance) {
        let mut state = self.lock();
        if let Some(busy) = state.busy.iter().find(|busy| busy.serial == live.serial) {
            live.revision = busy.revision;
        }
        let is_current = !state.is_closed
            && state.functions.get(&live.function).is_some_and(|now| now.revision == live.revision);
        if is_current {
            live.idle_since = Instant::now();
            live.absences = self.starter.engine.absences();
            state.busy.retain(|busy| busy.serial != live.serial);
            state.idle.push(live);
            // It would cost a system call, each time and mostly for nobody.
            if state.waiting > 0 {
                self.changed.notify_all();
            }
        } else {
            drop(state);
            self.retire_or_warn(live);
        }
    }

    /// Adds an instance that nobody needs at once.
    pub(super) fn add_idle(&self, mut live: LiveInstance) {
        let mut state = self.lock();
        let function = live.function.clone();
        live.idle_since = Instant::now();
        state.idle.push(live);
        state.note_most(&function);
        self.changed.notify_all();
    }

    /// Takes the idle instances that fit; they are the caller's to give back or to remove.
    pub(super) fn take_out(&self, fits: impl Fn(&LiveInstance) -> bool) -> Vec<LiveInstance> {
        self.lock().take_out(fits)
    }

    /// Takes all idle instances of a function, as [`Pool::take_out`] does, and tells the ids of those that were busy.
    pub(super) fn take_all(&self, function: &str) -> (Vec<LiveInstance>, Vec<String>) {
        let mut state = self.lock();
        let busy = state.busy.iter().filter(|busy| busy.function == function);
        let busy = busy.map(|busy| busy.record.instance_id.clone()).collect();
        (state.take_out(|live| live.function == function), busy)
    }

    /// Deploys a function anew with instances that run it so, whether they were started for that or stay, those of the
    /// ids in `staying`. Takes the idle ones that do not; a busy one that does not serves nothing more.
    pub(super) fn swap(
        &self,
        function: &str,
        deployed: Deployed,
        mut started: Vec<LiveInstance>,
        staying: &[String],
    ) -> Vec<LiveInstance> {
        let revision = deployed.revision;
        let mut state = self.lock();
        state.functions.insert(function.to_string(), Arc::new(deployed));
        for busy in &mut state.busy {
            if staying.contains(&busy.record.instance_id) {
                busy.revision = revision;
            }
        }
        for live in &mut state.idle {
            if staying.contains(&live.record.instance_id) {
                live.revision = revision;
            }
        }
        let now = Instant::now();
        started.iter_mut().for_each(|live| live.idle_since = now);
        state.idle.extend(started);
        state.note_most(function);
        self.changed.notify_all();
        state.take_out(|live| live.function == function && live.revision < revision)
    }

    /// Waits until no instance of a function is being started for an invocation.
    ///
    /// # Errors
    /// The job was given up.
    pub(super) fn wait_until_started(&self, function: &str) -> Result<()> {
        let mut state = self.lock();
        while state.starting.get(function).is_some_and(|count| *count > 0) {
            self.starter.cancel.check()?;
            state = self.wait(state, LOOK_EVERY);
        }
        Ok(())
    }

    /// Waits until no instance of a function is busy that belongs to a deployment before `revision`.
    ///
    /// # Errors
    /// The job was given up.
    pub(super) fn wait_until_drained(&self, function: &str, revision: u64) -> Result<()> {
        let mut state = self.lock();
        while state.busy.iter().any(|busy| busy.function == function && busy.revision < revision) {
            self.starter.cancel.check()?;
            state = self.wait(state, LOOK_EVERY);
        }
        Ok(())
    }

    /// Lets nobody have an instance of a function, until [`Pool::go_on`].
    pub(super) fn hold(&self, function: &str) {
        self.lock().held.insert(function.to_string());
    }

    /// Ends a [`Pool::hold`].
    pub(super) fn go_on(&self, function: &str) {
        self.lock().held.remove(function);
        self.changed.notify_all();
    }

    /// From now on nobody gets an instance, and what is given back is removed.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Is the platform at its end?
    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Starts what a function lacks of `count` instances. Their time of having nothing to do, and that of the idle ones that
    /// were there before, begins when all are there.
    ///
    /// # Errors
    /// One could not be started.
    pub(super) fn fill(&self, function: &str, deployed: &Deployed, count: usize) -> Result<()> {
        let missing = {
            let mut state = self.lock();
            state.in_preparation.insert(function.to_string());
            count.saturating_sub(state.records(function).count())
        };
        let started = self.start_many(function, deployed, missing);
        let mut state = self.lock();
        let outcome = started.map(|started| state.idle.extend(started));
        let now = Instant::now();
        for live in state.idle.iter_mut().filter(|live| live.function == function) {
            live.idle_since = now;
        }
        state.note_most(function);
        state.in_preparation.remove(function);
        self.changed.notify_all();
        outcome
    }

    /// Waits until the next idle instance has been idle for `limit`, or something changed, and takes out those that have.
    /// `None` once the platform is at its end.
    pub(super) fn wait_for_idle(&self, limit: Duration) -> Option<Vec<LiveInstance>> {
        let mut state = self.lock();
        if state.is_closed {
            return None;
        }
        let may_end =
            |live: &&LiveInstance| live.container.is_some() && !state.in_preparation.contains(&live.function);
        let ends =
            || state.idle.iter().filter(may_end).map(|live| (live.idle_since.after(limit), live.serial));
        let now = Instant::now();
        let pause = ends().min().map_or(LOOK_EVERY * 10, |(next, _)| next.since(now));
        if !pause.is_zero() {
            drop(self.wait(state, pause));
            return Some(Vec::new());
        }
        let expired: Vec<u64> = ends().filter(|(end, _)| now >= *end).map(|(_, serial)| serial).collect();
        Some(state.take_out(|live| expired.contains(&live.serial)))
    }

    /// Counts an instance of a function that was started.
    pub(super) fn count_start(&self, function: &str) {
        self.lock().tally(function).started += 1;
    }

    /// Counts that cold starts are enforced.
    pub(super) fn count_cold_start(&self) {
        self.lock().cold_start_counter += 1;
    }

    /// How often that was, from a random number on.
    pub(super) fn cold_start_counter(&self) -> u64 {
        self.lock().cold_start_counter
    }

    /// The place of the next instance in the order of starts.
    pub(super) fn next_serial(&self) -> u64 {
        let mut state = self.lock();
        state.next_serial += 1;
        state.next_serial
    }

    /// Strikes an instance out that is no more.
    pub(super) fn forget(&self, live: LiveInstance, metrics: InstanceMetrics) {
        let mut state = self.lock();
        state.busy.retain(|busy| busy.serial != live.serial);
        state.tally(&live.function).removed += 1;
        state.ended.entry(live.function).or_default().push(metrics);
        self.changed.notify_all();
    }
}

impl State {
    fn records(&self, function: &str) -> impl Iterator<Item = &Instance> {
        let current = self.functions.get(function).map(|deployed| deployed.revision);
        let is_current =
            |name: &str, revision| name == function && current.is_some_and(|current| revision == current);
        let idle = self.idle.iter().filter(|live| is_current(&live.function, live.revision));
        let busy = self.busy.iter().filter(|busy| is_current(&busy.function, busy.revision));
        let mut all: Vec<(u64, &Instance)> = idle.map(|live| (live.serial, &live.record)).collect();
        all.extend(busy.map(|busy| (busy.serial, &busy.record)));
        all.sort_by_key(|(serial, _)| *serial);
        all.into_iter().map(|(_, record)| record)
    }

    fn take_idle(&mut self, function: &str, start: StartKind) -> Option<LiveInstance> {
        let current = self.functions.get(function)?.revision;
        let fits = |live: &LiveInstance| {
            live.function == function
                && live.revision == current
                && (start == StartKind::Any || !live.is_invoked)
        };
        let fitting = self.idle.iter().enumerate().filter(|(_, live)| fits(live));
        let (place, _) = fitting.max_by_key(|(_, live)| live.idle_since)?;
        Some(self.idle.swap_remove(place))
    }

    fn take_out(&mut self, fits: impl Fn(&LiveInstance) -> bool) -> Vec<LiveInstance> {
        let (taken, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.idle).into_iter().partition(|live| fits(live));
        self.idle = rest;
        taken.iter().for_each(|live| self.lend(live, false));
        taken
    }

    fn lend(&mut self, live: &LiveInstance, is_claimed: bool) {
        self.busy.push(Busy {
            record: live.record.clone(),
            function: live.function.clone(),
            revision: live.revision,
            serial: live.serial,
            is_claimed,
        });
        self.note_most(&live.function);
    }

    /// May a function that has so many instances have another?
    fn has_room(&self, count: usize) -> bool {
        self.max_instances.is_none_or(|limit| count < limit)
    }

    /// How many instances of a function are claimed, or will be as soon as they are started.
    fn at_work(&self, function: &str) -> usize {
        let is_at_work = |busy: &&Busy| busy.is_claimed && busy.function == function;
        self.busy.iter().filter(is_at_work).count() + self.starting(function)
    }

    fn starting(&self, function: &str) -> usize {
        self.starting.get(function).copied().unwrap_or(0)
    }

    fn living(&self, function: &str) -> usize {
        self.idle.iter().filter(|live| live.function == function).count()
            + self.busy.iter().filter(|busy| busy.function == function).count()
    }

    fn note_most(&mut self, function: &str) {
        let living = self.living(function);
        let count = self.max_instances.map_or(living, |limit| living.min(limit)) as u64;
        let tally = self.tally(function);
        tally.most_instances = tally.most_instances.max(count);
    }

    /// The number of the cold start that a claim is for, which it has for itself if it asks for a cold one.
    fn number(&mut self, known: &mut Option<u64>, start: StartKind) -> u64 {
        if start == StartKind::Cold && known.is_none() {
            self.cold_start_counter += 1;
            *known = Some(self.cold_start_counter);
        }
        known.unwrap_or(self.cold_start_counter)
    }

    pub(super) fn tally(&mut self, function: &str) -> &mut Tally {
        if !self.tallies.contains_key(function) {
            self.tallies.insert(function.to_string(), Tally::default());
        }
        self.tallies.get_mut(function).expect("it was put there just now")
    }
}

/// The longest an invocation may take.
pub(super) fn timeout(config: &FunctionConfig) -> Option<Duration> {
    (config.timeout > 0).then(|| Duration::from_secs(config.timeout))
}
