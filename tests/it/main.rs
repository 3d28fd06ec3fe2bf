//! The integration tests of sebs-lite, as one program.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests fail and speak as tests do")]

mod attribution;
mod benchmark;
mod cgroup;
mod deployment;
mod deployment_memory;
mod deployment_storage;
mod docker;
mod docker_faults;
mod docker_volumes;
mod doctor;
mod dynamodb;
mod engine_support;
mod input;
mod invoke;
mod lifecycle;
mod logged;
mod measure;
mod measure_sources;
mod nosql_storage;
mod persistent_storage;
mod platform_storage;
mod probe;
mod profile;
mod program;
mod runtime;
mod s3;
mod s3_faults;
mod sebs_text;
mod secrets;
mod servers;
mod serving;
mod storage_cli;
mod storage_engines;
mod storage_invoke;
mod storage_refusals;
mod storage_servers;
mod suite;
mod suite_storage;
mod support;
mod system_resources;
mod tidy;
mod wire;
mod wrappers;
