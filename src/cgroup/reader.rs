//! Holds the counters of one control group open, and reads each with a single `pread` into a buffer on the stack.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::statfs;

use super::counter::{Counter, CpuUsage, Events, PeakReset, Reading, Stat, field, parse_counter};
use super::find::{Location, Subject};
use super::locate::Version;
use crate::error::{Context, Error, Kind, Result};
use crate::files;
use crate::host::cpus_of_list;

/// The longest text that is read: `memory.stat` has 2 kB, the others a few lines.
const TEXT_BYTES: usize = 16 * 1024;

/// The texts of a few lines: events, and what the quota did.
const LINES_BYTES: usize = 2048;

/// A counter has at most 20 digits and a line end.
const COUNTER_BYTES: usize = 32;

/// So many pages the kernel charges in advance on each processor: `MEMCG_CHARGE_BATCH` of `memcontrol.h`. It is 64 since
/// Linux 6.0 and was 32 before.
const CHARGE_BATCH_PAGES: u64 = 64;

/// Limits of v1 that are none are just below 2⁶³, whatever the page size.
const NO_LIMIT: u64 = 1 << 62;

const NO_KERNEL_MEMORY: &str = "the kernel was started with `cgroup.memory=nokmem`";
const NO_EVENT: &str = "`memory.events` does not tell it";
const NO_SWAP: &str = "the kernel does not count swap (on some, `swapaccount=1` makes it)";

/// The memory counters of one control group, with its processor time, held open.
///
/// All may be read from several threads at once. A descriptor outlives its control group, but tells nothing any more:
/// then all say [`Reading::Gone`], even if another group of the same name is made.
#[derive(Debug)]
pub struct Memory {
    location: Location,
    current: Source,
    peak: Held,
    /// Why the peak cannot be reset, as far as it is known before trying.
    no_reset: Option<Cow<'static, str>>,
    stat: Held,
    is_kernel_counted: bool,
    /// v1 alone: v2 has it in `memory.stat`.
    kernel: Held,
    /// v2 alone: v1 has it in `memory.stat`.
    swap: Held,
    /// `memory.events`, or v1's `memory.oom_control`.
    events: Held,
    /// `memory.events` of the group above, which v2 counts this one's in, too, and which outlives it.
    events_above: Held,
    /// v1 alone: v2 has it in `memory.events`.
    failcnt: Held,
    /// v1 alone, where swap is counted: the limit on memory and swap together.
    memsw_failcnt: Held,
    cpu_usage: Held,
    /// `None`: in the file of `cpu_usage`, as on v2.
    cpu_quota: Option<Held>,
}

/// An open file.
#[derive(Debug)]
struct Source {
    file: File,
    path: PathBuf,
}

/// An open file, or why there is none.
type Held = Result<Source, Cow<'static, str>>;

impl Memory {
    /// Finds and opens the counters of a process's control group; with its id, those of a container.
    ///
    /// # Errors
    /// Those of [`Location::of_process`] and [`Memory::open`]; `is_not_found` when it has ended.
    pub fn of_process(pid: i32, container_id: Option<&str>) -> Result<Memory> {
        Memory::open(Location::of_process(pid, container_id)?)
    }

    /// Opens the counters in these directories.
    ///
    /// # Errors
    /// When the current usage cannot be opened and read, the one counter that every kernel has (`is_not_found` once the
    /// control group is gone). Others are then absent, with a reason.
    pub fn open(location: Location) -> Result<Memory> {
        let directory = location.memory.as_path();
        let in_memory = |name: &str, if_missing| held(directory, name, if_missing);
        let is_v2 = location.version == Version::V2;
        let v1_only = |name: &str, if_missing| match is_v2 {
            true => Err(Cow::Borrowed("v2 has it in another file")),
            false => held(directory, name, if_missing),
        };
        let current = Source::open(&directory.join(current_name(location.version)))?;
        let (peak, no_reset) = open_peak(&location);
        let is_kernel_counted = is_kernel_memory_counted();
        let memory = Memory {
            current,
            peak,
            no_reset,
            stat: in_memory("memory.stat", "the kernel has no `memory.stat`"),
            is_kernel_counted,
            kernel: match is_kernel_counted {
                true => v1_only("memory.kmem.usage_in_bytes", "the kernel does not count it on v1"),
                false => Err(NO_KERNEL_MEMORY.into()),
            },
            swap: match is_v2 {
                true => in_memory("memory.swap.current", NO_SWAP),
                false => Err(NO_SWAP.into()),
            },
            events: match is_v2 {
                true => in_memory("memory.events", "the kernel has no `memory.events`"),
                false => in_memory("memory.oom_control", "the kernel has no `memory.oom_control`"),
            },
            events_above: match (is_v2, directory.parent()) {
                (true, Some(above)) => held(above, "memory.events", "the group is just below the root"),
                _ => Err("v1 counts each group alone".into()),
            },
            failcnt: v1_only("memory.failcnt", "the kernel has no `memory.failcnt`"),
            memsw_failcnt: v1_only("memory.memsw.failcnt", NO_SWAP),
            cpu_usage: held_at(&location.cpu_usage, "cpuacct.usage"),
            cpu_quota: match &location.cpu_quota {
                Ok((Version::V2, _)) if location.cpu_quota == location.cpu_usage => None,
                _ => Some(held_at(&location.cpu_quota, "cpu.stat")),
            },
            location,
        };
        match memory.current() {
            Ok(_) => Ok(memory),
            Err(error) => {
                let kind = if is_gone(&error) { Kind::NotFound } else { Kind::Other };
                Err(Error::from_source(kind, memory.current.about(), error))
            }
        }
    }

    /// Where the counters are.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// What the group and those below it use now, in bytes, page cache included; exact to [`charge_batch_bytes`].
    ///
    /// v2 `memory.current`, v1 `memory.usage_in_bytes`. It takes one system call and does not allocate.
    ///
    /// # Errors
    /// [`is_gone`] once the control group was removed.
    pub fn current(&self) -> io::Result<u64> {
        self.current.counter()
    }

    /// Name of the file that [`current`](Memory::current) reads.
    pub fn current_name(&self) -> &'static str {
        current_name(self.location.version)
    }

    /// A descriptor of the file that [`current`](Memory::current) reads, for whoever samples: read it at offset 0, and
    /// [`parse_counter`] what it gives.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn current_file(&self) -> Result<File> {
        self.current.file.try_clone().context(|| self.current.about())
    }

    /// The most that the group ever used, in bytes, or since [`reset_peak`](Memory::reset_peak) did what it says.
    ///
    /// v2 `memory.peak` (since Linux 5.19), v1 `memory.max_usage_in_bytes`.
    ///
    /// # Errors
    /// When the kernel fails to read it.
    pub fn peak(&self) -> Result<Reading<Counter>> {
        Ok(read(&self.peak)?.map_or(Reading::Gone, Reading::Value))
    }

    /// What [`peak`](Memory::peak) reads: `cgroup v2 memory.peak`.
    pub fn peak_source(&self) -> String {
        format!("cgroup {} {}", self.location.version, peak_name(self.location.version))
    }

    /// Has the kernel count the peak anew from what is used now.
    ///
    /// v2 counts for our descriptor alone (since Linux 6.12); v1 has one count for all who read it, and only root may
    /// reset it. Of a group that is not a container's own it is never reset.
    ///
    /// # Errors
    /// When the kernel fails for a reason that is no lack of support.
    pub fn reset_peak(&self) -> Result<PeakReset> {
        if let Some(reason) = &self.no_reset {
            return Ok(PeakReset::Unsupported(reason.clone()));
        }
        let peak = match &self.peak {
            Ok(peak) => peak,
            Err(reason) => return Ok(PeakReset::Unsupported(reason.clone())),
        };
        match peak.file.write_at(b"0\n", 0) {
            Ok(_) => Ok(PeakReset::Done),
            Err(error) if is_gone(&error) => Ok(PeakReset::Gone),
            Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(PeakReset::Unsupported(
                "the kernel is older than 6.12, where `memory.peak` cannot be reset".into(),
            )),
            Err(error) => Err(error).context(|| format!("failed to reset `{}`", peak.path.display())),
        }
    }

    /// What the group's memory consists of.
    ///
    /// # Errors
    /// When the kernel fails to read it.
    pub fn stat(&self) -> Result<Reading<Stat>> {
        let mut buffer = [0; TEXT_BYTES];
        let Some(text) = text(&self.stat, &mut buffer)? else { return Ok(Reading::Gone) };
        let number = |name, reason| number(&text, name, reason);
        let missing = "`memory.stat` does not tell it";
        let is_v2 = self.location.version == Version::V2;
        // Each version has one of these in a file of its own.
        let Some(extra) = read(if is_v2 { &self.swap } else { &self.kernel })? else {
            return Ok(Reading::Gone);
        };
        let stat = match self.location.version {
            Version::V2 => Stat {
                anon_bytes: number("anon", missing),
                file_bytes: number("file", missing),
                inactive_file_bytes: number("inactive_file", missing),
                kernel_bytes: match self.is_kernel_counted {
                    true => number("kernel", "the kernel is older than 5.18, where `memory.stat` lacks it"),
                    false => Counter::Absent(NO_KERNEL_MEMORY.into()),
                },
                swap_bytes: extra,
            },
            Version::V1 => Stat {
                anon_bytes: number("total_rss", missing),
                file_bytes: number("total_cache", missing),
                inactive_file_bytes: number("total_inactive_file", missing),
                kernel_bytes: extra,
                swap_bytes: number("total_swap", NO_SWAP),
            },
        };
        Ok(Reading::Value(stat))
    }

    /// How often the group met its limits.
    ///
    /// # Errors
    /// When the kernel fails to read it.
    pub fn events(&self) -> Result<Reading<Events>> {
        let mut buffer = [0; LINES_BYTES];
        let Some(text) = text(&self.events, &mut buffer)? else { return Ok(Reading::Gone) };
        let only_v2 = || Counter::Absent("cgroup v1 does not count it".into());
        let oom_kill = self.oom_kills_in(&text);
        let events = match self.location.version {
            Version::V2 => Events {
                oom: number(&text, "oom", NO_EVENT),
                oom_kill,
                max: number(&text, "max", NO_EVENT),
                high: number(&text, "high", NO_EVENT),
            },
            Version::V1 => Events {
                oom: only_v2(),
                oom_kill,
                max: match self.failures_v1()? {
                    Some(max) => max,
                    None => return Ok(Reading::Gone),
                },
                high: only_v2(),
            },
        };
        Ok(Reading::Value(events))
    }

    /// How often a charge failed on v1; `None` once the group is gone.
    ///
    /// It fails at the limit on memory (`memory.failcnt`) or at that on memory and swap together
    /// (`memory.memsw.failcnt`), which is asked first. Newer kernels (seen on 6.18) never count the second: with equal
    /// limits, as for a container without swap, a 0 tells nothing there.
    fn failures_v1(&self) -> Result<Option<Counter>> {
        let (alone, with_swap) = match (read(&self.failcnt)?, read(&self.memsw_failcnt)?) {
            (Some(Counter::Value(alone)), Some(Counter::Value(with_swap))) => (alone, with_swap),
            (Some(alone), Some(_)) => return Ok(Some(alone)),
            _ => return Ok(None),
        };
        if alone + with_swap > 0 {
            return Ok(Some(Counter::Value(alone + with_swap)));
        }
        let mut buffer = [0; TEXT_BYTES];
        let Some(stat) = text(&self.stat, &mut buffer)? else { return Ok(None) };
        let limit = |name| stat.as_ref().ok().and_then(|stat| field(stat, name)).unwrap_or(u64::MAX);
        let with_swap = limit("hierarchical_memsw_limit");
        let is_blind = with_swap < NO_LIMIT && with_swap <= limit("hierarchical_memory_limit");
        Ok(Some(match is_blind {
            true => Counter::Absent("kernels with v1 may not count it at a limit on memory and swap".into()),
            false => Counter::Value(0),
        }))
    }

    /// How many processes were killed for want of memory: `oom_kill` of [`events`](Memory::events) alone, in one system
    /// call.
    ///
    /// # Errors
    /// When the kernel fails to read it.
    pub fn oom_kills(&self) -> Result<Reading<Counter>> {
        let mut buffer = [0; LINES_BYTES];
        let Some(text) = text(&self.events, &mut buffer)? else { return Ok(Reading::Gone) };
        Ok(Reading::Value(self.oom_kills_in(&text)))
    }

    /// How many processes were killed for want of memory in the group above and all below that, since it was made: what
    /// is left to be asked once this group is gone. v2 alone has it.
    ///
    /// # Errors
    /// When the kernel fails to read it.
    pub fn oom_kills_above(&self) -> Result<Reading<Counter>> {
        let mut buffer = [0; LINES_BYTES];
        let Some(text) = text(&self.events_above, &mut buffer)? else { return Ok(Reading::Gone) };
        Ok(Reading::Value(number(&text, "oom_kill", NO_EVENT)))
    }

    fn oom_kills_in(&self, events: &Result<&[u8], Cow<'static, str>>) -> Counter {
        let missing = match self.location.version {
            Version::V2 => NO_EVENT,
            Version::V1 => "the kernel is older than 4.13, where v1 does not count it",
        };
        number(events, "oom_kill", missing)
    }

    /// How much processor time the group took: in one system call on v2, in two on v1.
    ///
    /// # Errors
    /// When the kernel fails to read it.
    pub fn cpu(&self) -> Result<Reading<CpuUsage>> {
        let (mut buffer, mut other) = ([0; LINES_BYTES], [0; LINES_BYTES]);
        let (usage_us, usage) = match &self.location.cpu_usage {
            Ok((Version::V1, _)) => match read(&self.cpu_usage)? {
                Some(nanoseconds) => (nanoseconds.map(|nanoseconds| nanoseconds / 1000), None),
                None => return Ok(Reading::Gone),
            },
            _ => match text(&self.cpu_usage, &mut buffer)? {
                Some(usage) => (number(&usage, "usage_usec", "`cpu.stat` does not tell it"), Some(usage)),
                None => return Ok(Reading::Gone),
            },
        };
        let quota = match (&self.cpu_quota, usage) {
            (Some(quota), _) => text(quota, &mut other)?,
            (None, usage) => usage,
        };
        let Some(quota) = quota else { return Ok(Reading::Gone) };
        let number = |name| number(&quota, name, "the group has no cpu controller");
        let throttled_us = match &self.location.cpu_quota {
            Ok((Version::V1, _)) => number("throttled_time").map(|nanoseconds| nanoseconds / 1000),
            _ => number("throttled_usec"),
        };
        Ok(Reading::Value(CpuUsage { usage_us, throttled_us, throttled_periods: number("nr_throttled") }))
    }
}

/// The number after a name in the text of a file, or why there is none.
fn number(text: &Result<&[u8], Cow<'static, str>>, name: &str, if_missing: &'static str) -> Counter {
    match text {
        Ok(text) => Counter::or_absent(field(text, name), if_missing),
        Err(reason) => Counter::Absent(reason.clone()),
    }
}

fn current_name(version: Version) -> &'static str {
    match version {
        Version::V2 => "memory.current",
        Version::V1 => "memory.usage_in_bytes",
    }
}

fn peak_name(version: Version) -> &'static str {
    match version {
        Version::V2 => "memory.peak",
        Version::V1 => "memory.max_usage_in_bytes",
    }
}

/// Does an error of reading a counter mean that its control group was removed?
pub fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::ENODEV as i32, Errno::ENOENT as i32];
    error.raw_os_error().is_some_and(|code| gone.contains(&code))
}

/// How far a reading of `current` or `peak` may be above what is really used, in bytes: the kernel charges 64 pages at a
/// time (32 before Linux 6.0) on each processor that is online, and counts what it has in stock.
///
/// # Errors
/// When the page size or the processors cannot be read.
pub fn charge_batch_bytes() -> Result<u64> {
    let online = Path::new("/sys/devices/system/cpu/online");
    let list = files::read_text(online)?;
    let processors = cpus_of_list(&list).map(|cpus| cpus.len() as u64).ok_or_else(|| {
        Error::new(format!("failed to read `{}`: `{}` is no list of ranges", online.display(), list.trim()))
    })?;
    // The kernel's `simple_statfs`, which answers for `/proc`, gives its page size as the block size.
    let page =
        statfs("/proc").map_err(io::Error::from).context(|| "failed to look at `/proc`".to_string())?;
    Ok(CHARGE_BATCH_PAGES * page.block_size() as u64 * processors)
}

impl Source {
    fn open(path: &Path) -> Result<Source> {
        let file = File::open(path).context(|| format!("failed to open `{}`", path.display()))?;
        Ok(Source { file, path: path.to_path_buf() })
    }

    fn about(&self) -> String {
        format!("failed to read `{}`", self.path.display())
    }

    fn counter(&self) -> io::Result<u64> {
        let mut buffer = [0; COUNTER_BYTES];
        let length = self.file.read_at(&mut buffer, 0)?;
        parse_counter(&buffer[..length]).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn text<'b>(&self, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let length = self.file.read_at(buffer, 0)?;
        if length == buffer.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(&buffer[..length])
    }
}

/// The number in a file that may be missing; `None` once its group is gone.
fn read(held: &Held) -> Result<Option<Counter>> {
    match held {
        Err(reason) => Ok(Some(Counter::Absent(reason.clone()))),
        Ok(source) => match source.counter() {
            Ok(value) => Ok(Some(Counter::Value(value))),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error).context(|| source.about()),
        },
    }
}

/// The text of a file, or why there is no file; `None` once its group is gone.
fn text<'b>(held: &Held, buffer: &'b mut [u8]) -> Result<Option<Result<&'b [u8], Cow<'static, str>>>> {
    match held {
        Err(reason) => Ok(Some(Err(reason.clone()))),
        Ok(source) => match source.text(buffer) {
            Ok(text) => Ok(Some(Ok(text))),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error).context(|| source.about()),
        },
    }
}

/// Opens a file that not every kernel has.
fn held(directory: &Path, name: &str, if_missing: &'static str) -> Held {
    let path = directory.join(name);
    match File::open(&path) {
        Ok(file) => Ok(Source { file, path }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(if_missing.into()),
        Err(error) => Err(format!("failed to open `{}`: {error}", path.display()).into()),
    }
}

/// Opens a counter of processor time, in a hierarchy of its own on v1.
fn held_at(place: &Result<(Version, PathBuf), String>, v1_name: &str) -> Held {
    match place {
        Ok((Version::V1, directory)) => held(directory, v1_name, "the kernel does not count it"),
        Ok((Version::V2, directory)) => held(directory, "cpu.stat", "the kernel has no `cpu.stat`"),
        Err(reason) => Err(reason.clone().into()),
    }
}

/// The peak, and why it cannot be reset; it is open for writing only where it may be written to.
fn open_peak(location: &Location) -> (Held, Option<Cow<'static, str>>) {
    let name = peak_name(location.version);
    let if_missing = match location.version {
        Version::V2 => "the kernel is older than 5.19, where v2 has no `memory.peak`",
        Version::V1 => "the kernel has no `memory.max_usage_in_bytes`",
    };
    let to_read = || held(&location.memory, name, if_missing);
    if location.subject != Subject::Container {
        return (to_read(), Some("the cgroup is not known to be a container's own".into()));
    }
    let path = location.memory.join(name);
    match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(file) => (Ok(Source { file, path }), None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Err(if_missing.into()), None),
        Err(error) => {
            (to_read(), Some(format!("failed to open `{}` for writing: {error}", path.display()).into()))
        }
    }
}

/// Does the kernel count its own memory? It can be told not to when it is started.
fn is_kernel_memory_counted() -> bool {
    let options = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let mut values = options.split_whitespace().filter_map(|option| option.strip_prefix("cgroup.memory="));
    !values.any(|value| value.split(',').any(|word| word == "nokmem"))
}

#[cfg(test)]
mod tests;
