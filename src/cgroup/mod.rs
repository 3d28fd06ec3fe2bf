//! The kernel's counters of one container, or of the control group that a process is in, on cgroup v1 and v2.
//!
//! [`locate`] turns the text of `/proc/PID/cgroup` and `mountinfo` into directories and touches nothing; [`Location`]
//! reads those files and looks which directory is there; [`Memory`] holds the counters open and reads them. What the
//! kernel does not offer is a [`Counter::Absent`] with a reason, never 0, and a control group that was removed is
//! [`Reading::Gone`], no error: it is how every measurement of a container ends.
//!
//! Nothing is ever written, except to reset the kernel's peak of a container's own control group.
//!
//! Sources: the kernel's `admin-guide/cgroup-v2.rst`, `admin-guide/cgroup-v1/memory.rst`, `cpuacct.rst`,
//! `scheduler/sched-bwc.rst`, and the manual pages cgroups(7), cgroup_namespaces(7) and proc_pid_mountinfo(5).

mod counter;
mod find;
pub mod locate;
mod mountinfo;
mod reader;

pub use counter::{Counter, CpuUsage, Events, PeakReset, Reading, Stat, parse_counter};
pub use find::{Location, Subject};
pub use locate::Version;
pub use reader::{Memory, charge_batch_bytes, is_gone};
