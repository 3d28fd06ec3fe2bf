//! Experiments: what is run with a function, and how its result is kept.

mod config;
mod memory;
mod repeat;
mod result;
pub mod staircase;
mod storage;
mod store;

pub use config::{
    Configuration, DeploymentChoices, ExperimentChoices, ExperimentSettings, FunctionSettings, LocalChoices,
    ResourceChoices, ResultConfig, RuntimeChoices,
};
pub use memory::{Measurement, attribute_memory};
pub use repeat::{Repetitions, repeat};
pub use result::{Environment, ExperimentResult, Ordered, SCHEMA_VERSION};
pub use storage::{StorageProgram, StorageUsed, note_storage};
pub use store::ResultStore;
