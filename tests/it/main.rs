//! The integration tests of sebs-lite, as one program.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests fail and speak as tests do")]

mod attribution;
mod benchmark;
mod cgroup;
mod deployment;
mod deployment_memory;
mod docker;
mod docker_faults;
mod doctor;
mod input;
mod invoke;
mod lifecycle;
mod measure;
mod measure_sources;
mod probe;
mod profile;
mod program;
mod runtime;
mod s3;
mod sebs_text;
mod servers;
mod serving;
mod suite;
mod support;
mod tidy;
mod wire;
