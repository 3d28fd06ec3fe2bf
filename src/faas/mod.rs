//! The FaaS model, the same on every platform: languages, functions, triggers and what an invocation gives.

mod execution;
mod function;
mod language;
mod package;
mod system;
mod trigger;

pub use execution::{
    ExecutionBilling, ExecutionResult, ExecutionStats, ExecutionTimes, Invocation, ProviderTimes, Validation,
};
pub use function::{DEFAULT_PIDS_LIMIT, Function, FunctionConfig, Instance};
pub use language::{Architecture, Language, Runtime};
pub use package::CodePackage;
pub use system::System;
pub use trigger::{Trigger, TriggerType};
