//! How MinIO is run: its image, its command and its environment.

use std::time::Duration;

use super::keys::Keys;
use super::server::Server;

/// The newest release that a registry still serves.
const VERSION: &str = "RELEASE.2025-09-07T16-13-09Z";

/// The image of one version.
pub(super) fn image(version: Option<&str>) -> String {
    format!("quay.io/minio/minio:{}", version.unwrap_or(VERSION))
}

/// The server; both the present names of the keys and those that old versions know are set.
pub(super) fn server(keys: &Keys) -> Server {
    let Keys { access_key, secret_key } = keys;
    Server {
        cmd: vec!["server".to_string(), "/data".to_string()],
        env: vec![
            format!("MINIO_ROOT_USER={access_key}"),
            format!("MINIO_ROOT_PASSWORD={secret_key}"),
            format!("MINIO_ACCESS_KEY={access_key}"),
            format!("MINIO_SECRET_KEY={secret_key}"),
            // No console, which would listen on one more port, and no question about a newer release.
            "MINIO_BROWSER=off".to_string(),
            "MINIO_UPDATE=off".to_string(),
            // The caller's uid has no home in the image, where it looks for certificates.
            "HOME=/tmp".to_string(),
        ],
        port: 9000,
        data: "/data",
        has_tmpfs: true,
        ready_within: Duration::from_secs(60),
        stops_within: Duration::from_secs(10),
        ..Server::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_names_of_the_keys_are_set_and_a_version_replaces_the_tag() {
        let keys = Keys { access_key: "who".into(), secret_key: "hush-hush".into() };
        let server = server(&keys);
        assert_eq!(server.cmd, ["server", "/data"]);
        for line in ["MINIO_ROOT_USER=who", "MINIO_ROOT_PASSWORD=hush-hush", "MINIO_SECRET_KEY=hush-hush"] {
            assert!(server.env.iter().any(|env| env == line), "{line}");
        }
        assert_eq!(image(Some("latest")), "quay.io/minio/minio:latest");
        assert_eq!(image(None), "quay.io/minio/minio:RELEASE.2025-09-07T16-13-09Z");
    }
}
