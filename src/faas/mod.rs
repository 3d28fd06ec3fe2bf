//! The FaaS model, the same on every platform: languages, functions, triggers, storage and what an invocation gives.

mod config;
mod container;
mod credentials;
mod dynamo_storage;
mod execution;
mod function;
mod language;
mod load;
mod nosql;
mod package;
mod platform;
mod remembered;
mod resources;
mod s3_storage;
mod storage;
mod system;
mod trigger;

pub use config::{Resources, StorageBucketType};
pub(crate) use container::PACKAGE_LABEL;
pub use container::{DockerContainer, FunctionImage, Rebuild, RegistryName};
pub use credentials::{CredentialName, Credentials};
pub use dynamo_storage::DynamoStorage;
pub use execution::{
    ExecutionBilling, ExecutionResult, ExecutionStats, ExecutionTimes, Invocation, ProviderTimes, Validation,
};
pub use function::{DEFAULT_PIDS_LIMIT, Function, FunctionConfig, Instance};
pub use language::{Architecture, Language, Runtime};
pub use load::{Load, StartKind};
pub use nosql::{NoSqlState, NoSqlStorage};
pub use package::CodePackage;
pub use platform::{Config, Platform};
pub use resources::{StorageOptions, SystemResources};
pub use s3_storage::S3Storage;
pub use storage::{PersistentStorage, StorageState, Uploads};
pub use system::{RemovedResources, Stores, System};
pub use trigger::{Trigger, TriggerType};
