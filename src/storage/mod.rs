//! Storage that benchmarks read and write: the protocol clients, and the engines that serve them.

mod dynamodb;
mod engine;
mod record;
mod s3;
mod signed;
mod transport;
mod value;
mod xml;

pub use dynamodb::{DynamoClient, DynamoOptions};
pub use engine::{
    EngineType, RunningStorage, StartRequest, StorageConfig, StorageEnd, StorageFile, StorageKind,
    StorageStatus, addresses, start, status, stop,
};
pub(crate) use engine::{located, on_network, restore};
pub use record::{StoppedStorage, StorageRecord, StorageShutdown};
pub use s3::{ObjectHead, ObjectSummary, S3Client, S3Options};
pub use value::{Item, Number, Value, item_from_json};
