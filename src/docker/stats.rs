//! Follows the engine's own readings of a container's memory, one a second.

use std::io::BufReader;
use std::ops::ControlFlow;

use serde::Deserialize;

use super::Engine;
use super::containers::{named, path};
use crate::error::{Context, Error, Kind, Result};

/// What the engine reads of a container's memory; `GET /containers/{id}/stats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryReading {
    /// What is used, page cache included: what `memory.current` (v2) or `memory.usage_in_bytes` (v1) says. The docker CLI
    /// subtracts `inactive_file_bytes` from it.
    pub usage_bytes: u64,
    /// The most that was ever used; absent on a host with cgroup v2, of which the engine does not tell it.
    pub peak_bytes: Option<u64>,
    /// Anonymous memory: v2 `anon`, v1 `total_rss`; absent where the engine does not tell it.
    pub anon_bytes: Option<u64>,
    /// Page cache: v2 `file`, v1 `total_cache`; absent where the engine does not tell it.
    pub file_bytes: Option<u64>,
    /// Page cache that the kernel would drop first; absent where the engine does not tell it.
    pub inactive_file_bytes: Option<u64>,
}

impl Engine {
    /// Hands the engine's readings of a running container to `sink`, one a second, until the container ends or `sink` has
    /// seen enough.
    ///
    /// # Errors
    /// When the container is not there (`is_not_found`), the engine is lost on the way (`is_disconnected`), or containers
    /// have no control group of their own: the engine would tell what all that share one use.
    pub fn follow_memory(
        &self,
        id: &str,
        mut sink: impl FnMut(&MemoryReading) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut follow = || {
            self.check_counts()?;
            let call = self.get(&path(id, "/stats")).query("stream", "true");
            let mut answer = call.without_limit().send()?;
            let mut failure = None;
            let reader = BufReader::new(answer.reader());
            for stats in serde_json::Deserializer::from_reader(reader).into_iter::<Stats>() {
                match stats {
                    Ok(stats) => match stats.memory_stats.and_then(MemoryStats::reading) {
                        Some(reading) if sink(&reading).is_continue() => {}
                        // A container that does not run has none, again and again.
                        _ => break,
                    },
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                }
            }
            match failure {
                None => Ok(()),
                Some(error) if error.is_io() => Err(answer.failure(error.into())),
                Some(error) if error.is_eof() => Err(answer.failure(error.into())),
                Some(error) => Err(Error::from_source(
                    Kind::Other,
                    "the engine's reading is not what its API describes",
                    error,
                )),
            }
        };
        follow().context(|| format!("failed to read the memory of {}", named(id)))
    }
}

impl Engine {
    /// Is what the engine counts of a container the container's alone? Without control groups of their own, Docker tells
    /// of each what itself and everything else beside it uses.
    pub(super) fn check_counts(&self) -> Result<()> {
        match self.info()?.has_cgroups() {
            true => Ok(()),
            false => Err(Error::new(
                "the engine gives containers no control group of their own (cgroup driver `none`), so it cannot count \
                 for one alone (rootless: cgroup v2 is needed, with the controllers delegated to your user)",
            )),
        }
    }
}

#[derive(Deserialize)]
struct Stats {
    memory_stats: Option<MemoryStats>,
}

#[derive(Deserialize)]
struct MemoryStats {
    usage: Option<u64>,
    max_usage: Option<u64>,
    stats: Option<Parts>,
}

/// The names that both generations have in common mean the group alone on v1, where `total_` counts those below it too.
#[derive(Default, Deserialize)]
struct Parts {
    anon: Option<u64>,
    file: Option<u64>,
    inactive_file: Option<u64>,
    total_rss: Option<u64>,
    total_cache: Option<u64>,
    total_inactive_file: Option<u64>,
}

impl MemoryStats {
    fn reading(self) -> Option<MemoryReading> {
        let parts = self.stats.unwrap_or_default();
        Some(MemoryReading {
            usage_bytes: self.usage?,
            peak_bytes: self.max_usage,
            anon_bytes: parts.anon.or(parts.total_rss),
            file_bytes: parts.file.or(parts.total_cache),
            inactive_file_bytes: parts.total_inactive_file.or(parts.inactive_file),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(json: &str) -> Option<MemoryReading> {
        serde_json::from_str::<Stats>(json).unwrap().memory_stats?.reading()
    }

    #[test]
    fn both_generations_are_read_and_page_cache_is_not_subtracted() {
        let v1 = r#"{"name":"/x","memory_stats":{"usage":11993088,"max_usage":12000000,"limit":25276502016,
            "stats":{"cache":1,"inactive_file":2,"total_cache":8200192,"total_inactive_file":8200190,
            "rss":3,"total_rss":2838528}}}"#;
        let expected = MemoryReading {
            usage_bytes: 11_993_088,
            peak_bytes: Some(12_000_000),
            anon_bytes: Some(2_838_528),
            file_bytes: Some(8_200_192),
            inactive_file_bytes: Some(8_200_190),
        };
        assert_eq!(reading(v1), Some(expected));
        let v2 = r#"{"memory_stats":{"usage":7000,"stats":{"anon":1000,"file":6000,"inactive_file":5000}}}"#;
        let expected = MemoryReading {
            usage_bytes: 7000,
            peak_bytes: None,
            anon_bytes: Some(1000),
            file_bytes: Some(6000),
            inactive_file_bytes: Some(5000),
        };
        assert_eq!(reading(v2), Some(expected));
    }

    #[test]
    fn a_container_that_does_not_run_has_no_reading() {
        assert_eq!(reading(r#"{"read":"0001-01-01T00:00:00Z","memory_stats":{}}"#), None);
        assert_eq!(reading("{}"), None);
    }
}
