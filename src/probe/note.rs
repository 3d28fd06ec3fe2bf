//! What a recording says beside its samples: what was read, the kernel's own peaks, the invocations that ran meanwhile.

use serde::{Deserialize, Serialize};

use super::event::TargetId;

/// One thing known of one target. All instants are of the recording's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Of which target.
    pub target: TargetId,
    /// What is known.
    #[serde(flatten)]
    pub about: About,
}

/// What can be known of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "about")]
pub enum About {
    /// What the target is, and what is read of it.
    Source {
        /// What is read: `cgroup v2 memory.current`.
        source: String,
        /// A name that people know it by, if its label is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// The peak that the kernel itself counted, which no tick has to meet.
    KernelPeak {
        /// The peak.
        bytes: u64,
        /// Since when the kernel had counted it; absent: since the target began to exist, sampled or not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_ns: Option<u64>,
        /// When it was read.
        at_ns: u64,
    },
    /// An invocation ran on the target.
    Invocation {
        /// The function server's id of the request; empty where none came.
        request_id: String,
        /// Before the client asked for the connection.
        begin_ns: u64,
        /// After the client had the last byte.
        end_ns: u64,
        /// Was it the first that its instance served?
        is_cold: bool,
        /// Did it fail?
        is_failed: bool,
        /// The kernel's own peak of this invocation alone; absent where the kernel did not count it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kernel_peak_bytes: Option<u64>,
    },
}
