//! Runs serverless benchmark functions in Docker containers on one Linux machine, and measures them.

mod files;
pub mod benchmark;
pub mod cache;
pub mod cancel;
pub mod cgroup;
pub mod clock;
pub mod docker;
pub mod error;
pub mod experiment;
pub mod faas;
pub mod host;
pub mod http;
pub mod local;
pub mod probe;
pub mod progress;
pub mod report;
pub mod runtime;
pub mod stats;
pub mod units;
mod suite;

pub use error::{Error, Result};
