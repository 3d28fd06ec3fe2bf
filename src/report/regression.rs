//! What became of every benchmark that was tried.

use std::path::PathBuf;

use serde::{Serialize, Serializer};

use super::columns;
use super::deployment::row;
use super::table::UNKNOWN;

/// A benchmark in one of its languages, and how it went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RegressionRun {
    /// Name of the benchmark.
    pub benchmark: String,
    /// Name of the language.
    pub language: String,
    /// Version of the language; `None`: it did not come to that.
    pub version: Option<String>,
    /// How it went.
    pub verdict: RegressionVerdict,
    /// Why it was skipped, or failed.
    pub reason: Option<String>,
    /// µs that the invocation took, as its client saw it; `None`: there was none.
    pub client_us: Option<u64>,
    /// The file with the result; `None`: there is none.
    pub result: Option<PathBuf>,
}

/// How a run went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegressionVerdict {
    /// Its output was found right.
    Passed,
    /// It served, and has no validator.
    NotValidated,
    /// It did not serve, or its output is wrong.
    Failed,
    /// This machine cannot run it.
    Skipped,
}

impl RegressionVerdict {
    /// The words for it.
    pub fn name(self) -> &'static str {
        match self {
            RegressionVerdict::Passed => "passed",
            RegressionVerdict::NotValidated => "not validated",
            RegressionVerdict::Failed => "failed",
            RegressionVerdict::Skipped => "skipped",
        }
    }
}

impl Serialize for RegressionVerdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A row for each, how many went which way, and below that why.
pub fn regression(runs: &[RegressionRun]) -> String {
    let mut rows = vec![row(["benchmark", "language", "version", "verdict", "client ms"])];
    for run in runs {
        rows.push(vec![
            run.benchmark.clone(),
            run.language.clone(),
            run.version.clone().unwrap_or(UNKNOWN.to_string()),
            run.verdict.name().to_string(),
            run.client_us.map_or(UNKNOWN.to_string(), |us| format!("{:.1}", us as f64 / 1e3)),
        ]);
    }
    let mut text = columns(&rows);
    let all = [
        RegressionVerdict::Passed,
        RegressionVerdict::NotValidated,
        RegressionVerdict::Failed,
        RegressionVerdict::Skipped,
    ];
    let counts = all.map(|verdict| (runs.iter().filter(|run| run.verdict == verdict).count(), verdict));
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts.map(|(count, verdict)| format!("{count} {}", verdict.name())).collect();
    text += &format!("\n{}\n", counts.join(", "));
    for run in runs {
        if let Some(reason) = &run.reason {
            let (benchmark, language) = (&run.benchmark, &run.language);
            text += &format!("{benchmark} in {language} {}: {reason}\n", run.verdict.name());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_has_a_row_and_each_reason_a_line() {
        let run = |benchmark: &str, verdict, reason: Option<&str>| RegressionRun {
            benchmark: benchmark.to_string(),
            language: "python".to_string(),
            version: None,
            verdict,
            reason: reason.map(str::to_string),
            client_us: reason.is_none().then_some(1_234),
            result: None,
        };
        let text = regression(&[
            run("a", RegressionVerdict::Passed, None),
            run("bb", RegressionVerdict::Skipped, Some("there is no ffmpeg")),
        ]);
        let expected = "benchmark  language  version  verdict  client ms\n\
                        a          python    -        passed   1.2\n\
                        bb         python    -        skipped  -\n\n\
                        1 passed, 1 skipped\nbb in python skipped: there is no ffmpeg\n";
        assert_eq!(text, expected);
        assert_eq!(serde_json::to_value(RegressionVerdict::NotValidated).unwrap(), "not validated");
    }
}
