//! Storage that benchmarks read and write: the protocol clients.

mod dynamodb;
mod s3;
mod transport;
mod value;
mod xml;

pub use dynamodb::{DynamoClient, DynamoOptions};
pub use s3::{ObjectHead, ObjectSummary, S3Client, S3Options};
pub use value::{Item, Number, Value, item_from_json};
