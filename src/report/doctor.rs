//! What was found of a machine, for people: findings, how late samples were, and a staircase measured and true.

use std::time::Duration;

use super::table::columns;
use crate::doctor::{Area, Bucket, Finding, TimerTest, Verdict};
use crate::experiment::staircase::{Agreement, Climbed, Comparison, Edge, StepVerdict};
use crate::units::{Bytes, show_duration};

const MIB: f64 = (1 << 20) as f64;
const KIB: f64 = 1024.0;

/// How wide the longest bar is.
const BAR: u64 = 40;

/// Each finding on a line, below what it is about, and below it what to do.
pub fn findings(findings: &[Finding]) -> String {
    let mut rows = Vec::new();
    for finding in findings {
        let verdict = match finding.verdict {
            Verdict::Ok => "  ok",
            Verdict::Warn => "  warn",
            Verdict::Bad => "  bad",
        };
        rows.push([verdict, finding.name, &finding.value].map(str::to_string).to_vec());
        if let Some(advice) = &finding.advice {
            rows.push(vec![String::new(), String::new(), format!("-> {advice}")]);
        }
    }
    let table = columns(&rows);
    let mut lines = table.lines();
    let mut text = String::new();
    let mut area = None;
    for finding in findings {
        if area != Some(finding.area) {
            area = Some(finding.area);
            text.push_str(area_name(finding.area));
            text.push('\n');
        }
        for line in lines.by_ref().take(1 + usize::from(finding.advice.is_some())) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn area_name(area: Area) -> &'static str {
    match area {
        Area::Engine => "engine",
        Area::Counters => "memory counters",
        Area::Noise => "noise",
        Area::Timer => "timer",
        Area::GroundTruth => "ground truth",
    }
}

/// How many samples were how late, with a bar each.
pub fn lateness(timer: &TimerTest) -> String {
    let total: u64 = timer.buckets.iter().map(|bucket| bucket.samples).sum();
    let highest = timer.buckets.iter().map(|bucket| bucket.samples).max().unwrap_or(0).max(1);
    let row = |bucket: &Bucket| {
        let bar = "#".repeat((bucket.samples * BAR).div_ceil(highest) as usize);
        let percent = bucket.samples as f64 * 100.0 / total.max(1) as f64;
        vec![format!("  {}", range(bucket)), bucket.samples.to_string(), format!("{percent:.1} %"), bar]
    };
    let rows: Vec<Vec<String>> = timer.buckets.iter().map(row).collect();
    let interval = show_duration(Duration::from_nanos(timer.interval_ns));
    let missed = timer.missed_ticks;
    format!(
        "lateness of {total} samples of {}, one each {interval} ({missed} ticks more were missed)\n{}",
        timer.counter,
        columns(&rows)
    )
}

fn range(bucket: &Bucket) -> String {
    let show = |ns: u64| match ns {
        1_000_000.. => format!("{} ms", ns / 1_000_000),
        _ => format!("{} µs", ns / 1_000),
    };
    match bucket.below_ns {
        None => format!("{} or more", show(bucket.from_ns)),
        Some(below) if bucket.from_ns == 0 => format!("below {}", show(below)),
        Some(below) => format!("{} to {}", show(bucket.from_ns), show(below)),
    }
}

/// A row for each step; what limits the verdicts, and the verdict on all, below.
pub fn staircase(climbed: &Climbed) -> String {
    let head =
        ["step", "planned", "measured", "difference", "bound", "start", "bound", "end", "bound", "verdict"];
    let mut rows = vec![head.map(str::to_string).to_vec()];
    let steps = &climbed.comparison.steps;
    rows.extend(steps.iter().enumerate().map(|(number, step)| step_row(number + 1, step)));
    let mut text = format!(
        "051.memory-staircase on {} (image {}), sampled each {}\n{}",
        climbed.runtime,
        climbed.image,
        show_duration(Duration::from_nanos(climbed.interval_ns)),
        columns(&rows)
    );
    text.push_str(&remarks(&climbed.comparison));
    text.push_str(&format!("{} of {} ticks were missed\n", climbed.missed_ticks, climbed.planned_ticks));
    text.push_str(&conclusion(&climbed.comparison));
    text
}

/// What limits the verdicts, once where it is the same for all, and what the steps are compared with.
fn remarks(comparison: &Comparison) -> String {
    let steps = &comparison.steps;
    let Some(base) = comparison.base_bytes else {
        return steps.first().map_or(String::new(), |step| format!("{}\n", step.remarks.join("\n")));
    };
    let mut text = String::new();
    for (number, step) in steps.iter().enumerate() {
        for remark in &step.remarks {
            text.push_str(&format!("step {}: {remark}\n", number + 1));
        }
    }
    text + &format!("before the first step {} were used; ", Bytes(base))
}

fn conclusion(comparison: &Comparison) -> String {
    let steps = &comparison.steps;
    let numbers = |agreement: Agreement| {
        let those = steps.iter().enumerate().filter(|(_, step)| step.agreement == agreement);
        those.map(|(number, _)| (number + 1).to_string()).collect::<Vec<String>>().join(", ")
    };
    match comparison.agreement {
        _ if steps.is_empty() => "nothing was compared: the function told no step\n".to_string(),
        Agreement::Within => {
            format!("what was measured is true: every step is within its bounds{}\n", untold_edges(steps))
        }
        Agreement::NotTold => format!(
            "whether what was measured is true is not told: samples are missing for step {}; run it on a quieter machine, \
             with --realtime, or with a longer --measure-interval\n",
            numbers(Agreement::NotTold)
        ),
        Agreement::Outside => format!(
            "what was measured is not true: step {} is not within its bounds\n",
            numbers(Agreement::Outside)
        ),
    }
}

/// How many starts and ends the samples do not show, if there are any.
fn untold_edges(steps: &[StepVerdict]) -> String {
    let edges = steps.iter().flat_map(|step| [&step.start, &step.end]);
    let untold = edges.filter(|edge| edge.agreement == Agreement::NotTold).count();
    match untold {
        0 => String::new(),
        _ => format!(", but for {untold} of {} starts and ends, which do not show", 2 * steps.len()),
    }
}

fn step_row(number: usize, step: &StepVerdict) -> Vec<String> {
    let unknown = || "-".to_string();
    let measured = step.held.map_or_else(unknown, |held| format!("{:.3} MiB", held.median_bytes / MIB));
    let difference =
        step.held.map_or_else(unknown, |held| format!("{:+.0} KiB", held.difference_bytes / KIB));
    let verdict = match step.agreement {
        Agreement::Within => "within",
        Agreement::NotTold => "not told",
        Agreement::Outside => "OUTSIDE",
    };
    let bound = format!(
        "-{:.0} to +{:.0} KiB",
        step.bound_below_bytes as f64 / KIB,
        step.bound_above_bytes as f64 / KIB
    );
    let planned = format!("{} MiB", step.planned_bytes as f64 / MIB);
    let (start, start_bound) = edge(&step.start);
    let (end, end_bound) = edge(&step.end);
    vec![
        number.to_string(),
        planned,
        measured,
        difference,
        bound,
        start,
        start_bound,
        end,
        end_bound,
        verdict.to_string(),
    ]
}

fn edge(edge: &Edge) -> (String, String) {
    let us = |ns: f64| format!("{:.0} µs", ns / 1e3);
    (
        edge.error_ns.map_or("-".to_string(), |ns| format!("{:+.0} µs", ns as f64 / 1e3)),
        edge.bound_ns.map_or("-".to_string(), |ns| us(ns as f64)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::staircase::Held;
    use crate::probe::Scheduling;

    #[test]
    fn findings_stand_below_their_area_with_what_to_do() {
        let all = [
            Finding::ok(Area::Engine, "engine", "20.10.24"),
            Finding::warn(Area::Engine, "limits", "none", "set some"),
            Finding::bad(Area::Timer, "lateness", "no thread", "allow one"),
        ];
        assert_eq!(
            findings(&all),
            "engine\n  ok    engine    20.10.24\n  warn  limits    none\n                  -> set some\n\
             timer\n  bad   lateness  no thread\n                  -> allow one\n"
        );
    }

    #[test]
    fn a_histogram_has_a_bar_for_each_range() {
        let bucket = |from_ns, below_ns, samples| Bucket { from_ns, below_ns, samples };
        let timer = TimerTest {
            counter: "a file".to_string(),
            interval_ns: 1_000_000,
            duration_ns: 1,
            planned_ticks: 101,
            missed_ticks: 1,
            lateness_ns: None,
            buckets: vec![
                bucket(0, Some(10_000), 80),
                bucket(10_000, Some(1_000_000), 20),
                bucket(1_000_000, None, 0),
            ],
            sampler_cpu_percent: None,
            steal_percent: None,
            scheduling: Scheduling::default(),
            warnings: Vec::new(),
        };
        let text = lateness(&timer);
        assert!(
            text.starts_with(
                "lateness of 100 samples of a file, one each 1.000 ms (1 ticks more were missed)\n"
            ),
            "{text}"
        );
        assert!(text.contains(&format!("  below 10 µs    80  80.0 %  {}\n", "#".repeat(40))), "{text}");
        assert!(text.contains(&format!("10 µs to 1 ms  20  20.0 %  {}\n", "#".repeat(10))), "{text}");
        assert!(text.ends_with("1 ms or more   0   0.0 %\n"), "{text}");
    }

    #[test]
    fn a_staircase_is_told_step_by_step() {
        let edge = Edge {
            error_ns: Some(82_400),
            bound_ns: Some(1_040_000),
            missed_ticks: 0,
            agreement: Agreement::Within,
        };
        let held = Held {
            samples: 500,
            median_bytes: 17_039_360.0,
            min_bytes: 17_039_360,
            max_bytes: 17_039_360,
            difference_bytes: 262_144.0,
        };
        let step = StepVerdict {
            planned_bytes: 16 << 20,
            held: Some(held),
            bound_below_bytes: 524_288,
            bound_above_bytes: 557_056,
            level: Agreement::Within,
            start: edge,
            end: Edge { error_ns: None, bound_ns: None, missed_ticks: 0, agreement: Agreement::NotTold },
            agreement: Agreement::Within,
            remarks: vec!["its end does not show".to_string()],
        };
        let climbed = |agreement, base_bytes, steps| Climbed {
            comparison: Comparison { agreement, base_bytes, steps },
            runtime: "python 3.11".to_string(),
            image: "image".to_string(),
            interval_ns: 1_000_000,
            charge_batch_bytes: 524_288,
            interpreter_bytes: 0,
            planned_ticks: 2_000,
            missed_ticks: 3,
            lateness_ns: None,
            scheduling: Scheduling::default(),
        };
        let base = Some(9_000_000);
        let text = staircase(&climbed(Agreement::Within, base, vec![step.clone()]));
        let row =
            "1     16 MiB   16.250 MiB  +256 KiB    -512 to +544 KiB  +82 µs  1040 µs  -    -      within\n";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("\nstep 1: its end does not show\n"), "{text}");
        let told = "every step is within its bounds, but for 1 of 2 starts and ends, which do not show\n";
        assert!(text.ends_with(told), "{text}");
        assert!(text.contains("were used; 3 of 2000 ticks were missed\n"), "{text}");
        let untold = StepVerdict {
            agreement: Agreement::NotTold,
            remarks: vec!["no base".to_string()],
            ..step.clone()
        };
        let outside = StepVerdict { agreement: Agreement::Outside, ..step };
        let wrong = staircase(&climbed(Agreement::Outside, base, vec![untold.clone(), outside]));
        assert!(wrong.ends_with("is not true: step 2 is not within its bounds\n"), "{wrong}");
        assert!(wrong.contains("not told\n") && wrong.contains("OUTSIDE\nstep 1: no base\n"), "{wrong}");
        let nothing = staircase(&climbed(Agreement::NotTold, None, vec![untold.clone(), untold]));
        assert!(nothing.contains("not told\nno base\n3 of 2000 ticks"), "{nothing}");
        assert!(nothing.contains("is not told: samples are missing for step 1, 2; run it on a"), "{nothing}");
        assert!(!nothing.contains("bounds\n"), "{nothing}");
        let empty = staircase(&climbed(Agreement::NotTold, None, Vec::new()));
        assert!(empty.ends_with("nothing was compared: the function told no step\n"), "{empty}");
    }
}
