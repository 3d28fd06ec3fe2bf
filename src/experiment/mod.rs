//! Experiments: what is run with a function, and how its result is kept.

mod config;
mod repeat;
mod result;
mod store;

pub use config::{
    Configuration, DeploymentChoices, ExperimentChoices, ExperimentSettings, FunctionSettings, ResultConfig,
    RuntimeChoices,
};
pub use repeat::{Repetitions, repeat};
pub use result::{Environment, ExperimentResult, Ordered, SCHEMA_VERSION};
pub use store::ResultStore;
