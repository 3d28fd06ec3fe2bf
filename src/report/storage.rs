//! Storage for people: what was started, whether it answers, what became of it.

use crate::storage::{StoppedStorage, StorageEnd, StorageFile, StorageShutdown, StorageStatus};

use super::columns;
use super::deployment::{quoted, row, short};

/// What was started, with its keys struck out, and how it is stopped; `file` is the one that has them.
pub fn storage(storage: &StorageFile, file: &std::path::Path) -> String {
    let mut rows = vec![row(["storage", "type", "container", "for functions", "on this host", "data"])];
    for (kind, config) in storage.kinds() {
        let text = |value: &Option<String>| value.clone().unwrap_or("-".to_string());
        let network = config.network.as_ref().map(|network| format!(" on {network}")).unwrap_or_default();
        rows.push(vec![
            kind.to_string(),
            config.engine.to_string(),
            config.instance_id.as_deref().map_or("-".to_string(), short),
            text(&config.address) + &network,
            config.tool_address().unwrap_or("-").to_string(),
            text(&config.data_volume),
        ]);
    }
    let shown = quoted(&file.display().to_string());
    let kinds: Vec<&str> = storage.kinds().map(|(kind, _)| kind.name()).collect();
    let kind = if let [kind] = kinds.as_slice() { kind } else { "all" };
    format!(
        "{}\nkeys:  {}\nuse:   --storage-configuration {shown}\nstop:  sebs-lite storage stop {kind} {shown}\n",
        columns(&rows),
        file.display()
    )
}

/// How each storage is.
pub fn storage_status(storage: &[StorageStatus]) -> String {
    let mut rows = vec![row(["storage", "type", "state", "address", "answers"])];
    for status in storage {
        let answers = match &status.error {
            _ if status.answers => "yes".to_string(),
            Some(error) => format!("no: {error}"),
            None => "no".to_string(),
        };
        let address = status.host_address.as_ref().or(status.address.as_ref());
        rows.push(vec![
            status.kind.to_string(),
            status.engine.to_string(),
            status.state.clone().unwrap_or("-".to_string()),
            address.cloned().unwrap_or("-".to_string()),
            answers,
        ]);
    }
    columns(&rows)
}

/// What became of all that was to be stopped.
pub fn storage_shutdown(shutdown: &StorageShutdown) -> String {
    let mut text = stopped_storage(&shutdown.storage);
    for name in &shutdown.left_behind {
        text += &format!("removed {name}, which a killed command had left\n");
    }
    text
}

/// What became of each storage.
pub(super) fn stopped_storage(storage: &[StoppedStorage]) -> String {
    let mut rows = vec![row(["storage", "type", "container", "state"])];
    for stopped in storage {
        let end = match stopped.end {
            Some(StorageEnd::Removed) => "removed",
            Some(StorageEnd::Stopped) => "stopped",
            Some(StorageEnd::Gone) => "gone before",
            Some(StorageEnd::External) => "left alone: not started by sebs-lite",
            None => "failed",
        };
        let id = stopped.instance_id.as_deref().map_or("-".to_string(), short);
        rows.push(vec![stopped.kind.to_string(), stopped.engine.to_string(), id, end.to_string()]);
    }
    columns(&rows)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::storage::{EngineType, StorageConfig, StorageKind};

    #[test]
    fn what_was_started_is_told_without_its_keys() {
        let object = StorageConfig {
            address: Some("172.17.0.2:9000".into()),
            host_address: Some("127.0.0.1:49153".into()),
            instance_id: Some("0123456789abcdef".into()),
            access_key: Some("who".into()),
            secret_key: Some("hush".into()),
            ..StorageConfig::of(EngineType::Minio)
        };
        let file = StorageFile { object: Some(object), nosql: None };
        let text = storage(&file, Path::new("/x y/s.json"));
        assert!(text.contains("0123456789ab ") && text.contains("127.0.0.1:49153"), "{text}");
        assert!(text.ends_with("stop:  sebs-lite storage stop object '/x y/s.json'\n"), "{text}");
        assert!(!text.contains("hush") && !text.contains("who"), "{text}");
    }

    #[test]
    fn what_does_not_answer_says_why_and_what_was_stopped_how() {
        let status = StorageStatus {
            network: None,
            kind: StorageKind::Nosql,
            engine: EngineType::Dynoxide,
            state: Some("exited".into()),
            address: Some("172.17.0.2:8000".into()),
            host_address: None,
            answers: false,
            error: Some("connection refused".into()),
        };
        let text = storage_status(&[status]);
        assert!(text.contains("exited") && text.contains("no: connection refused"), "{text}");
        let stopped =
            |end| StoppedStorage { kind: StorageKind::Object, engine: "minio", instance_id: None, end };
        let shutdown = StorageShutdown {
            storage: vec![stopped(Some(StorageEnd::Gone)), stopped(None)],
            left_behind: vec!["x".into()],
            ..StorageShutdown::default()
        };
        let text = storage_shutdown(&shutdown);
        assert!(
            text.contains("gone before") && text.contains("failed") && text.contains("removed x"),
            "{text}"
        );
    }
}
