//! Deployments for people: what was started, what of it runs, what became of it.

use std::path::Path;
use std::time::Duration;

use crate::local::{Deployment, DeploymentStatus, Shutdown};
use crate::storage::{EngineType, StorageKind};
use crate::units::{Bytes, show_duration};

use super::columns;
use super::storage::{stopped_storage, storage_status};

/// What was started, how it is invoked and how it is stopped; `file` is the deployment's.
pub fn deployment(deployment: &Deployment, file: &Path) -> String {
    let mut rows = vec![row(["function", "instance", "url"])];
    for function in &deployment.functions {
        for instance in &function.instances {
            rows.push(vec![function.name.clone(), short(&instance.instance_id), instance.url.clone()]);
        }
    }
    let mut text = columns(&rows) + "\n";
    let shown_file = quoted(&file.display().to_string());
    let first = deployment.functions.iter().flat_map(|function| &function.instances).next();
    if let Some((instance, input)) = first.zip(deployment.inputs.first()) {
        text += &format!("invoke:      {}\n", curl(&instance.url, input.get(), &shown_file));
    }
    if let Some(network) = &deployment.network {
        text += &format!("network:     {network}\n");
    }
    for (kind, engine, address) in storage_of(deployment) {
        let whose =
            if deployment.started_storage.contains(&kind) { "started with it" } else { "left as it is" };
        text += &format!("{:<13}{engine} at {address} ({whose})\n", format!("{kind}:"));
    }
    text += &format!("deployment:  {}\n", file.display());
    if let Some(measurements) = &deployment.memory_measurements {
        let every = measurements.interval_ns.map(Duration::from_nanos).map(show_duration);
        let every = every.map(|every| format!(" (every {every})")).unwrap_or_default();
        text += &format!("recording:   {}{every}\n", measurements.file.display());
    }
    text + &format!("stop:        sebs-lite local stop {shown_file}\n")
}

/// What became of each part, and where the statistics are that were written to `output`.
pub fn shutdown(deployment: &Deployment, shutdown: &Shutdown, output: &Path) -> String {
    let stats = shutdown.stats.as_ref();
    let mut text = String::new();
    if let Some(stopped_at) = &shutdown.stopped_before {
        text += &format!("already stopped at {stopped_at}\n\n");
    }
    let mut head = row(["function", "instance", "container"]);
    if stats.is_some() {
        head.extend(row(["samples", "mean memory", "max memory"]));
    }
    let mut rows = vec![head];
    for instance in &shutdown.instances {
        let mut row =
            vec![instance.function.clone(), short(&instance.instance_id), instance.end.name().to_string()];
        if let Some(container) = stats.and_then(|stats| stats.containers.get(&instance.instance_id)) {
            row.push(container.measurements.to_string());
            row.extend([&container.mean, &container.max].map(|value| rounded(value.as_deref())));
        }
        rows.push(row);
    }
    text += &columns(&rows);
    if !shutdown.storage.is_empty() {
        text += &format!("\n{}", stopped_storage(&shutdown.storage));
    }
    for (kind, engine, address) in storage_of(deployment) {
        if !deployment.started_storage.contains(&kind) {
            text += &format!(
                "{kind} storage ({engine} at {address}) was not started with it, and is left alone\n"
            );
        }
    }
    for name in &shutdown.left_behind {
        text += &format!("removed {name}, which a killed command had left\n");
    }
    match (stats, &deployment.memory_measurements) {
        (Some(_), Some(measurements)) => {
            text += &format!("\nmemory statistics: {}\n", output.display());
            text += &format!("recording:         {}\n", measurements.file.display());
        }
        // Why there are none has been told.
        (None, Some(_)) => {}
        (_, None) => text += "\nmemory was not sampled\n",
    }
    text
}

/// What of a deployment runs.
pub fn deployment_status(status: &DeploymentStatus) -> String {
    let mut rows = vec![row(["function", "instance", "state", "url", "answers"])];
    for instance in &status.instances {
        let code = instance.exit_code.map(|code| format!(" ({code})")).unwrap_or_default();
        let moved = instance.recorded_url.as_ref().map(|url| format!(" (was {url})")).unwrap_or_default();
        let answers = match instance.answers {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        rows.push(vec![
            instance.function.clone(),
            short(&instance.instance_id),
            format!("{}{code}", instance.state),
            format!("{}{moved}", instance.url),
            answers.to_string(),
        ]);
    }
    let mut text = columns(&rows) + "\n";
    if let Some(network) = &status.network {
        text += &format!("network:     {network}\n");
    }
    if !status.storage.is_empty() {
        text += &(storage_status(&status.storage) + "\n");
    }
    match &status.memory_measurements {
        Some(memory) => {
            let pids: Vec<String> = memory.pids.iter().map(i32::to_string).collect();
            let size = memory.file_bytes.map(Bytes).map_or("not there".to_string(), |size| size.to_string());
            text += &format!("sampling:    {} (process {})\n", memory.state.name(), pids.join(", "));
            text += &format!("recording:   {} ({size})\n", memory.file.display());
            if let Some(log) = &memory.log {
                text += &format!("warnings:    {}\n", log.display());
            }
        }
        None => text += "memory is not sampled\n",
    }
    if !status.is_whole {
        text += "not all was started: `local start` is at work still, or was killed\n";
    }
    if let Some(stopped_at) = &status.stopped_at {
        text += &format!("stopped at:  {stopped_at}\n");
    }
    text
}

/// The storage that a deployment uses, as far as its file is understood: kind, engine, address.
fn storage_of(deployment: &Deployment) -> Vec<(StorageKind, EngineType, String)> {
    let file = deployment.storage_file().unwrap_or_default();
    let told = file.kinds().map(|(kind, config)| {
        (kind, config.engine, config.address.clone().unwrap_or_else(|| "no address".to_string()))
    });
    told.collect()
}

/// A line for a shell that invokes a function with the deployment's input.
fn curl(url: &str, input: &str, shown_file: &str) -> String {
    const LONGEST_SHOWN: usize = 200;
    let call = format!("curl -H 'Content-Type: application/json' http://{url} -d");
    if input.len() <= LONGEST_SHOWN {
        return format!("{call} {}", quoted(input));
    }
    format!("jq -c '.inputs[0]' {shown_file} | {call} @-")
}

/// A word as a shell reads it.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_string();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// `12.3 MB` of `12.345678 MB`.
fn rounded(value: Option<&str>) -> String {
    let megabytes = value.and_then(|value| value.strip_suffix(" MB")?.parse::<f64>().ok());
    megabytes.map_or("-".to_string(), |megabytes| format!("{megabytes:.1} MB"))
}

pub(super) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_string).to_vec()
}

/// The first digits of a container's id, as people know it.
pub(super) fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_to_invoke_by_is_one_for_a_shell() {
        let line = curl("1.2.3.4:9000", r#"{"a": "it's"}"#, "/x/d.json");
        let expected =
            r#"curl -H 'Content-Type: application/json' http://1.2.3.4:9000 -d '{"a": "it'\''s"}'"#;
        assert_eq!(line, expected);
        let long = curl("1.2.3.4:9000", &" ".repeat(300), &quoted("/x y/d.json"));
        assert!(
            long.starts_with("jq -c '.inputs[0]' '/x y/d.json' | curl") && long.ends_with("-d @-"),
            "{long}"
        );
    }

    #[test]
    fn what_was_started_is_told_with_how_to_stop_it() {
        let mut started = Deployment::new(true);
        started.add_input("{}").unwrap();
        let text = deployment(&started, Path::new("/x y/d.json"));
        assert_eq!(
            text,
            "function  instance  url\n\ndeployment:  /x y/d.json\nstop:        sebs-lite local stop '/x y/d.json'\n"
        );
        let stopped = shutdown(&started, &Shutdown::default(), Path::new("s.json"));
        assert_eq!(stopped, "function  instance  container\n\nmemory was not sampled\n");
        assert_eq!([rounded(Some("12.3456 MB")), rounded(None)], ["12.3 MB", "-"]);
    }
}
