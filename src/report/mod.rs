//! From results to text: functions that neither open nor print anything, and the only place where numbers are rounded.

mod csv;
mod deployment;
mod doctor;
#[cfg(test)]
mod example;
mod image;
mod inventory;
mod profile;
mod regression;
mod storage;
mod svg;
mod table;

pub use csv::profile_csv;
pub use deployment::{deployment, deployment_status, shutdown};
pub use doctor::{findings, lateness, staircase};
pub use image::{ImageReport, function_image, images};
pub use inventory::{inventory, stored};
pub use profile::{InvocationReport, ProfileReport, TargetReport, cpu_list};
pub use regression::{RegressionRun, RegressionVerdict, regression};
pub use storage::{storage, storage_shutdown, storage_status};
pub use svg::profile_svg;
pub use table::{columns, invocations, measurement};
