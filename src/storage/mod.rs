//! Storage that benchmarks read and write: the protocol clients.

mod s3;
mod transport;
mod xml;

pub use s3::{ObjectHead, ObjectSummary, S3Client, S3Options};
