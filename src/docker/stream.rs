//! Reads the JSON messages that the engine sends while it pulls, pushes, builds or imports, to their good or bad end.
//!
//! The status line says 200 before the work begins: that it failed is in the last message.

use std::collections::VecDeque;
use std::io::{self, BufReader, Read};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::progress::{Progress, Step};

/// How much of a build's output an error tells.
const TAIL_LINES: usize = 20;

/// What a stream ended with.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The last status: after an import, the image's id.
    pub(super) status: Option<String>,
    /// After a push, the digest of what the registry has.
    pub(super) digest: Option<String>,
}

/// Reads `stream` to its end and tells `progress` of what is in it.
///
/// The outer error is the reader's, for the one who knows the connection; the inner one is the engine's.
pub(super) fn follow(stream: &mut dyn Read, task: &str, progress: &Progress) -> io::Result<Result<Outcome>> {
    let mut output = Output::default();
    let mut outcome = Outcome::default();
    let messages = serde_json::Deserializer::from_reader(BufReader::new(stream)).into_iter::<Message>();
    for message in messages {
        let message = message?;
        if let Some(reason) = message.failure() {
            return Ok(Err(output.failure(&reason)));
        }
        if let Some(text) = &message.stream {
            output.push(text, |line| progress.step(task, line));
        }
        let digest = message.aux.as_ref().and_then(|aux| aux.get("Digest")?.as_str());
        outcome.digest = digest.map(str::to_string).or(outcome.digest);
        if let Some(status) = message.status {
            outcome.digest = outcome.digest.or_else(|| pushed_digest(&status));
            let detail = match &message.id {
                Some(id) => format!("{id}: {status}"),
                None => status.clone(),
            };
            let parts = message.progress_detail.unwrap_or_default();
            let done = u64::try_from(parts.current.unwrap_or_default()).unwrap_or_default();
            // The engine says 0 or −1 where it does not know.
            let total = parts.total.and_then(|total| u64::try_from(total).ok()).filter(|total| *total > 0);
            progress.tell(&Step { task, detail: &detail, done, total });
            outcome.status = Some(status);
        }
    }
    Ok(Ok(outcome))
}

/// The digest in `1.36: digest: sha256:0f… size: 591`, which ends a push; Podman 4.3 says it nowhere else.
fn pushed_digest(status: &str) -> Option<String> {
    let (_, rest) = status.split_once(": digest: ")?;
    let digest = rest.split(' ').next()?;
    digest.starts_with("sha256:").then(|| digest.to_string())
}

#[derive(Deserialize)]
struct Message {
    /// A piece of a build's output, mostly a line.
    stream: Option<String>,
    status: Option<String>,
    /// The layer that `status` is about.
    id: Option<String>,
    #[serde(rename = "progressDetail")]
    progress_detail: Option<ProgressDetail>,
    /// What came of it: a digest, an id, by names of each job's own.
    aux: Option<serde_json::Value>,
    error: Option<String>,
    #[serde(rename = "errorDetail")]
    error_detail: Option<ErrorDetail>,
}

#[derive(Default, Deserialize)]
struct ProgressDetail {
    current: Option<i64>,
    total: Option<i64>,
}

#[derive(Deserialize)]
struct ErrorDetail {
    #[serde(default)]
    message: String,
}

impl Message {
    fn failure(&self) -> Option<String> {
        let detail = self.error_detail.as_ref().map(|detail| detail.message.clone());
        let reason = detail.filter(|message| !message.is_empty()).or_else(|| self.error.clone())?;
        Some(reason.trim().to_string())
    }
}

/// The last lines of a build's output.
#[derive(Default)]
struct Output {
    lines: VecDeque<String>,
    /// What has come of a line that is not at its end.
    rest: String,
}

impl Output {
    fn push(&mut self, text: &str, mut tell: impl FnMut(&str)) {
        self.rest.push_str(text);
        while let Some(end) = self.rest.find('\n') {
            let line: String = self.rest.drain(..=end).collect();
            let line = without_colours(line.trim_end());
            if line.is_empty() {
                continue;
            }
            tell(&line);
            self.lines.push_back(line);
            if self.lines.len() > TAIL_LINES {
                self.lines.pop_front();
            }
        }
    }

    fn failure(mut self, reason: &str) -> Error {
        self.push("\n", |_| ());
        if self.lines.is_empty() {
            return Error::new(reason);
        }
        let mut text = format!("{reason}; the last lines of its output:");
        for line in &self.lines {
            text.push_str("\n    ");
            text.push_str(line);
        }
        Error::new(text)
    }
}

/// The text without escape sequences: the engine paints red what a step writes to its standard error.
fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' && characters.next_if_eq(&'[').is_some() {
            // Parameters, then one letter that ends the sequence.
            characters.by_ref().find(|character| ('@'..='~').contains(character));
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_late_error_is_told_with_the_last_lines_of_the_output() {
        let mut stream = String::new();
        for number in 1..=30 {
            stream.push_str(&format!("{{\"stream\":\"line {number}\\n\"}}\r\n"));
        }
        stream.push_str("{\"stream\":\"\\u001b[91mno such \"}\r\n{\"stream\":\"file\\u001b[0m\\n\"}\r\n");
        stream.push_str(
            "{\"errorDetail\":{\"code\":3,\"message\":\"The command returned a non-zero code: 3\"},\
             \"error\":\"The command returned a non-zero code: 3\"}\r\n",
        );
        let error = follow(&mut stream.as_bytes(), "x", &Progress::quiet()).unwrap().unwrap_err().to_string();
        assert!(error.starts_with("The command returned a non-zero code: 3; the last lines"), "{error}");
        assert!(error.ends_with("\n    line 30\n    no such file"), "{error}");
        assert!(error.contains("line 12\n") && !error.contains("line 11\n"), "{error}");
    }

    #[test]
    fn a_layer_s_bytes_are_progress() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = told.clone();
        let progress = Progress::to(move |step| {
            sink.lock().unwrap().push((step.detail.to_string(), step.done, step.total));
        });
        let stream = br#"{"status":"Pulling from library/busybox","id":"1.36"}
            {"status":"Downloading","progressDetail":{"current":5,"total":9},"progress":"[=> ]","id":"5c4"}
            {"status":"Extracting","progressDetail":{},"id":"5c4"}
            {"aux":{"ID":"sha256:1"}}
            {"progressDetail":{},"aux":{"Tag":"1","Digest":"sha256:2","Size":529}}
            {"status":"sha256:0f"}"#;
        let outcome = follow(&mut stream.as_slice(), "pulling", &progress).unwrap().unwrap();
        assert_eq!(outcome.status.as_deref(), Some("sha256:0f"));
        assert_eq!(outcome.digest.as_deref(), Some("sha256:2"));
        let told = told.lock().unwrap();
        assert_eq!(told[1], ("5c4: Downloading".to_string(), 5, Some(9)));
        assert_eq!(told[2], ("5c4: Extracting".to_string(), 0, None));
        assert_eq!(told.len(), 4);
    }

    #[test]
    fn a_push_s_digest_is_found_where_only_its_last_status_tells_it() {
        let stream = br#"{"status":"The push refers to repository [127.0.0.1:5000/a:1]"}
            {"status":"1: digest: sha256:9060 size: 591"}"#;
        let outcome = follow(&mut stream.as_slice(), "pushing", &Progress::quiet()).unwrap().unwrap();
        assert_eq!(outcome.digest.as_deref(), Some("sha256:9060"));
        assert_eq!(pushed_digest("Digest: sha256:0f"), None);
    }

    #[test]
    fn a_stream_that_is_cut_off_is_the_reader_s_error() {
        let cut = br#"{"status":"Downloading","progr"#;
        assert!(follow(&mut cut.as_slice(), "x", &Progress::quiet()).is_err());
    }
}
