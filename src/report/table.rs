//! Tables for people.

use std::time::Duration;

use crate::experiment::{ExperimentResult, Measurement};
use crate::faas::{ExecutionResult, Language, Validation};
use crate::stats;
use crate::units::{self, Bytes};

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// What a value that is not known is shown as.
pub(super) const UNKNOWN: &str = "-";

/// Rows of text in aligned columns, the first row being their names; without trailing blanks.
pub fn columns(rows: &[Vec<String>]) -> String {
    aligned(rows, &[])
}

/// As [`columns`]; those without an alignment stand to the left.
pub(super) fn aligned(rows: &[Vec<String>], alignment: &[Align]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let blank = " ".repeat(widths[column] - cell.chars().count());
            let cell = match alignment.get(column) {
                Some(Align::Right) => blank + cell,
                _ => cell.clone() + &blank,
            };
            line.push_str(if column == 0 { "" } else { "  " });
            line.push_str(&cell);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The invocations of a function, a row each; then median and range, cold and warm apart. Failures and their reasons
/// stand below. A column that no invocation has a value for is left out.
pub fn invocations(result: &ExperimentResult, function: &str) -> String {
    let all: Vec<&ExecutionResult> = result.invocations_of(function).collect();
    let is_node = result.config.experiments.runtime.language == Language::Nodejs;
    let shown: Vec<Column> = COLUMNS
        .into_iter()
        .filter(|column| all.iter().any(|invocation| (column.value)(invocation, is_node).is_some()))
        .collect();
    let mut rows = vec![head(&shown)];
    for (number, invocation) in all.iter().enumerate() {
        let start = match (invocation.stats.failure, invocation.stats.cold_start) {
            (true, _) => "failed",
            (false, true) => "cold",
            (false, false) => "warm",
        };
        let mut row = vec![(number + 1).to_string(), start.to_string()];
        let cell = |column: &Column| {
            (column.value)(invocation, is_node).map_or(UNKNOWN.to_string(), |value| (column.show)(value))
        };
        row.extend(shown.iter().map(cell));
        rows.push(row);
    }
    for (name, is_cold) in [("cold", true), ("warm", false)] {
        let group: Vec<&ExecutionResult> = all
            .iter()
            .copied()
            .filter(|invocation| !invocation.stats.failure && invocation.stats.cold_start == is_cold)
            .collect();
        if group.len() > 1 {
            let values = |column: &Column| {
                group.iter().filter_map(|invocation| (column.value)(invocation, is_node)).collect()
            };
            rows.push(vec![String::new()]);
            let quantities: Vec<Quantity> =
                shown.iter().map(|column| (column.show, values(column))).collect();
            rows.extend(spread(name, &quantities));
        }
    }
    let mut alignment = vec![Align::Right, Align::Left];
    alignment.extend(shown.iter().map(|_| Align::Right));
    aligned(&rows, &alignment) + &remarks(&all) + &instances(result.metrics.get(function))
}

/// A line on the instances of a function, if there was more than one.
fn instances(metrics: Option<&serde_json::Value>) -> String {
    let number = |key| metrics.and_then(|metrics| metrics.get(key)).and_then(serde_json::Value::as_u64);
    match (number("instances_started"), number("most_instances")) {
        (Some(started @ 2..), Some(most)) => {
            let were = if most == 1 { "was" } else { "were" };
            format!("\n{started} instances were started, {most} {were} there at a time\n")
        }
        _ => String::new(),
    }
}

/// A line on how memory was sampled, and one for each thing that went wrong.
pub fn measurement(measurement: &Measurement) -> String {
    let interval = units::show_duration(Duration::from_nanos(measurement.interval_ns));
    let planned = measurement.planned_ticks;
    let sampled = planned - measurement.missed_ticks.min(planned);
    let mut text = format!("memory sampled every {interval}: {sampled} of {planned} ticks");
    if let Some(lateness) = measurement.lateness_ns {
        let show = |nanoseconds| units::show_duration(Duration::from_nanos(nanoseconds));
        text.push_str(&format!(", late by {} (p50), {} (p99)", show(lateness.p50_ns), show(lateness.p99_ns)));
    }
    if measurement.lost_samples > 0 {
        text.push_str(&format!(", {} samples LOST", measurement.lost_samples));
    }
    if let Some(bytes) = measurement.charge_batch_bytes {
        text.push_str(&format!(", each up to {} above what was used", Bytes(bytes)));
    }
    text.push('\n');
    measurement.warnings.iter().for_each(|warning| text.push_str(&format!("warning: {warning}\n")));
    if let Some(recording) = &measurement.recording {
        text.push_str(&format!("samples: {recording} (`sebs-lite profile` shows them)\n"));
    }
    text
}

/// How a quantity is shown, and its values.
pub(super) type Quantity = (fn(f64) -> String, Vec<f64>);

/// One measured quantity of an invocation.
struct Column {
    name: &'static str,
    value: fn(&ExecutionResult, bool) -> Option<f64>,
    show: fn(f64) -> String,
}

const COLUMNS: [Column; 10] = [
    Column {
        name: "create",
        value: |invocation, _| invocation.invocation.create_us.map(|us| us as f64),
        show: show_us,
    },
    Column {
        name: "engine start",
        value: |invocation, _| invocation.invocation.start_us.map(|us| us as f64),
        show: show_us,
    },
    Column {
        name: "ready",
        value: |invocation, _| invocation.invocation.ready_us.map(|us| us as f64),
        show: show_us,
    },
    Column { name: "handler", value: handler_us, show: show_us },
    Column {
        name: "import",
        value: |invocation, _| invocation.times.initialization.map(|us| us as f64),
        show: show_us,
    },
    Column {
        name: "cpu",
        value: |invocation, _| invocation.invocation.cpu_us.map(|us| us as f64),
        show: show_us,
    },
    Column {
        name: "throttled",
        value: |invocation, _| invocation.invocation.throttled_us.filter(|us| *us > 0).map(|us| us as f64),
        show: show_us,
    },
    Column {
        name: "first byte",
        value: |invocation, _| invocation.times.http_first_byte_return.map(|seconds| seconds * 1e6),
        show: show_us,
    },
    Column { name: "client", value: |invocation, _| Some(invocation.times.client as f64), show: show_us },
    Column {
        name: "memory",
        value: |invocation, _| invocation.stats.memory_used,
        show: |mb| format!("{mb:.1} MB"),
    },
];

/// Time in the handler. SeBS's Node.js server encloses the handler too, its Python server the import instead.
fn handler_us(invocation: &ExecutionResult, is_node: bool) -> Option<f64> {
    let enclosed = invocation.times.benchmark.filter(|_| is_node);
    invocation.invocation.handler_us.or(enclosed).map(|us| us as f64)
}

fn show_us(us: f64) -> String {
    units::show_duration(Duration::from_nanos((us * 1e3) as u64))
}

fn head(shown: &[Column]) -> Vec<String> {
    let mut row = vec!["#".to_string(), "start".to_string()];
    row.extend(shown.iter().map(|column| column.name.to_string()));
    row
}

/// Median and range of some quantities, each with how it is shown, as rows whose second cell names them.
pub(super) fn spread(name: &str, quantities: &[Quantity]) -> Vec<Vec<String>> {
    let row = |label: &str, statistic: fn(&[f64]) -> Option<f64>| {
        let mut row = vec![String::new(), format!("{name} {label}")];
        row.extend(
            quantities.iter().map(|(show, values)| statistic(values).map_or(UNKNOWN.to_string(), show)),
        );
        row
    };
    vec![
        row("median", stats::median),
        row("min", |values| stats::range(values).map(|range| range.0)),
        row("max", |values| stats::range(values).map(|range| range.1)),
    ]
}

fn remarks(all: &[&ExecutionResult]) -> String {
    let mut text = String::new();
    for (number, invocation) in all.iter().enumerate() {
        if let Some(error) = &invocation.invocation.error {
            text.push_str(&format!("\ninvocation {} failed: {error}", number + 1));
        }
        if let Some(kills @ 1..) = invocation.invocation.oom_kills {
            let processes = if kills == 1 { "a process".to_string() } else { format!("{kills} processes") };
            text.push_str(&format!(
                "\ninvocation {}: the kernel killed {processes} of its instance for want of memory",
                number + 1
            ));
        }
        if invocation.invocation.overlapping == Some(true) {
            text.push_str(&format!(
                "\ninvocation {}: others ran on its instance meanwhile, so its memory is theirs too",
                number + 1
            ));
        }
        if invocation.invocation.was_paused == Some(true) {
            text.push_str(&format!(
                "\ninvocation {}: its instance was paused meanwhile, so its times say nothing of the function",
                number + 1
            ));
        }
        if let Some(Validation::Invalid(reason)) = &invocation.invocation.validation {
            text.push_str(&format!("\ninvocation {} is wrong: {reason}", number + 1));
        }
    }
    let judged = |verdict: fn(&Validation) -> bool| {
        all.iter().filter(|invocation| invocation.invocation.validation.as_ref().is_some_and(verdict)).count()
    };
    let valid = judged(|verdict| *verdict == Validation::Valid);
    let invalid = judged(|verdict| matches!(verdict, Validation::Invalid(_)));
    if valid + invalid > 0 {
        text.push_str(&format!("\noutputs validated: {valid} right, {invalid} wrong"));
    } else if judged(|verdict| *verdict == Validation::NotValidated) > 0 {
        text.push_str("\nnot validated: the benchmark has no validator");
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["name", "µ"], ["a", "bcd"]].map(|row| row.map(str::to_string).to_vec());
        assert_eq!(columns(&rows), "name  µ\na     bcd\n");
    }

    #[test]
    fn instances_are_told_of_where_there_were_several() {
        let told = |started: u64, most: u64| {
            instances(Some(&serde_json::json!({"instances_started": started, "most_instances": most})))
        };
        assert_eq!(told(3, 2), "\n3 instances were started, 2 were there at a time\n");
        assert_eq!(told(3, 1), "\n3 instances were started, 1 was there at a time\n");
        assert_eq!((told(1, 1), instances(None)), (String::new(), String::new()));
    }

    #[test]
    fn remarks_say_what_failed_and_what_was_validated() {
        let mut failed = ExecutionResult::empty();
        failed.fail("ValueError: boom");
        let mut valid = ExecutionResult::empty();
        valid.invocation.validation = Some(Validation::Valid);
        assert_eq!(
            remarks(&[&failed, &valid]),
            "\ninvocation 1 failed: ValueError: boom\noutputs validated: 1 right, 0 wrong\n"
        );
        let mut unvalidated = ExecutionResult::empty();
        unvalidated.invocation.validation = Some(Validation::NotValidated);
        assert!(remarks(&[&unvalidated]).contains("no validator"));
        assert_eq!(remarks(&[&ExecutionResult::empty()]), "");
    }
}
