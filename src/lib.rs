//! Runs serverless benchmark functions in Docker containers on one Linux machine, and measures them.
//!
#![doc = include_str!("../README.md")]
//!
//! # Modules
//! Each may use those above it.
//!
//! - words: [`error`], [`cancel`], [`progress`], [`units`], [`stats`]
//! - mechanisms, which know the outside world and nothing of benchmarks: [`clock`], [`sigv4`], [`http`],
//!   [`host`], [`process`], [`docker`], [`cgroup`]
//! - instruments and stores: [`probe`], [`cache`], [`storage`]
//! - the FaaS model, the same on every platform: [`faas`]
//! - what runs: [`runtime`] images, [`benchmark`]s
//! - the platform: [`local`]
//! - use: [`experiment`], [`doctor`], [`report`]

pub mod benchmark;
pub mod cache;
pub mod cancel;
pub mod cgroup;
pub mod clock;
pub mod docker;
pub mod doctor;
pub mod error;
pub mod experiment;
pub mod faas;
mod files;
pub mod host;
pub mod http;
pub mod local;
pub mod probe;
pub mod process;
pub mod progress;
pub mod report;
pub mod runtime;
pub mod sigv4;
pub mod stats;
pub mod storage;
mod suite;
pub mod units;
mod wire;

pub use error::{Error, Result};
