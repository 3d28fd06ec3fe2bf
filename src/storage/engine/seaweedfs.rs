//! How SeaweedFS is run, so that only its S3 port can be spoken to from outside its container.

use std::time::Duration;

use super::keys::Keys;
use super::server::{Server, any_address};

/// The version of which `scripts/storage-images` makes an image.
const VERSION: &str = "4.48";

/// All servers in one process: those without authentication listen on the container's loopback, S3 everywhere.
///
/// `-master.peers=none` spares the election that a first start would wait for. What is not needed is not opened, and
/// nothing is reported to the makers. Volumes are files of at most 1 GiB, as many as the disk takes.
const ARGUMENTS: [&str; 16] = [
    "server",
    "-dir=/data",
    "-ip=127.0.0.1",
    "-ip.bind=127.0.0.1",
    "-master.peers=none",
    "-master.telemetry=false",
    "-master.volumeSizeLimitMB=1024",
    "-volume.max=10000",
    "-volume.preStopSeconds=0",
    "-s3",
    "-s3.port=9000",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-s3.iam=false",
    "-s3.autoCreateBucket=false",
    "-s3.allowDeleteBucketNotEmpty=false",
];

/// The settings that no argument has.
///
/// S3's internal gRPC server, by which anybody could add keys, listens where S3 does, and cannot be left out. With a
/// certificate that is not there it never completes a TLS handshake, so nobody can speak to it; nobody needs to.
const SETTINGS: [&str; 6] = [
    "WEED_GRPC_S3_CERT=/none",
    "WEED_GRPC_S3_KEY=/none",
    "WEED_GRPC_CA=/none",
    // A bucket begins with one file, not with seven.
    "WEED_MASTER_VOLUME_GROWTH_COPY_1=1",
    // Its buffers alone are 250 MiB, mostly untouched: with a limit below that it would collect garbage without end, and
    // disturb with a tenth of a core what is measured. Without one it keeps the memory that large objects went through.
    "GOMEMLIMIT=384MiB",
    // Where images have the program.
    "PATH=/:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
];

/// The image of one version, which no registry has.
pub(super) fn image(version: Option<&str>) -> String {
    format!("sebs-lite:storage.seaweedfs.{}", version.unwrap_or(VERSION))
}

/// The server.
pub(super) fn server(keys: &Keys) -> Server {
    let mut env = SETTINGS.map(str::to_string).to_vec();
    env.push(format!("AWS_ACCESS_KEY_ID={}", keys.access_key));
    env.push(format!("AWS_SECRET_ACCESS_KEY={}", keys.secret_key));
    let mut cmd = ARGUMENTS.map(str::to_string).to_vec();
    cmd.push(format!("-s3.ip.bind={}", any_address()));
    Server {
        entrypoint: Some(vec!["weed".to_string()]),
        cmd,
        env,
        port: 9000,
        data: "/data",
        has_tmpfs: true,
        ready_within: Duration::from_secs(60),
        // It waits up to 15 s for streams between its own parts.
        stops_within: Duration::from_secs(20),
        ..Server::default()
    }
}
