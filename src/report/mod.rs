//! From results to text: functions that neither open nor print anything, and the only place where numbers are rounded.

mod csv;
mod deployment;
mod doctor;
#[cfg(test)]
mod example;
mod profile;
mod storage;
mod svg;
mod table;

pub use csv::profile_csv;
pub use deployment::{deployment, deployment_status, shutdown};
pub use doctor::{findings, lateness, staircase};
pub use profile::{InvocationReport, ProfileReport, TargetReport};
pub use storage::{storage, storage_shutdown, storage_status};
pub use svg::profile_svg;
pub use table::{columns, invocations, measurement};
