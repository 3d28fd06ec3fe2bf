//! Tests of the comparison, from steps and samples that are written out.

use super::*;

const MIB: u64 = 1 << 20;
const BASE: u64 = 9 * MIB;
const MS: u64 = 1_000_000;
const TOLERANCE: Tolerance =
    Tolerance { interval: Duration::from_millis(1), charge_batch: Bytes(512 * 1024), interpreter: Bytes(0) };

/// 16, 64 and 32 MiB for 10 ms each from 5.0, 20.0 and 35.0 ms; 2 ms to touch them, 0.4 ms to give them back.
fn staircase() -> Staircase {
    let step = |mib: u64, begin: u64| Step {
        bytes: Bytes(mib * MIB),
        allocation_began: Instant((begin - 2) * MS),
        begin: Instant(begin * MS),
        end: Instant((begin + 10) * MS),
        released: Some(Instant((begin + 10) * MS + 400_000)),
    };
    Staircase { free_since: Instant(0), steps: vec![step(16, 5), step(64, 20), step(32, 35)] }
}

/// What is used at an instant, if all is as the steps say.
fn truth(at: u64) -> u64 {
    let of = |step: &Step| {
        let (began, begin) = (step.allocation_began.0, step.begin.0);
        let held = at >= begin && at <= step.end.0;
        match at {
            _ if held => step.bytes.0 + step.bytes.0 / 512,
            _ if at > began && at < begin => step.bytes.0 * (at - began) / (begin - began),
            _ => 0,
        }
    };
    BASE + staircase().steps.iter().map(of).sum::<u64>()
}

/// A sample each ms, 50 µs late, of what `level` says.
fn sampled(level: impl Fn(u64) -> u64) -> Vec<Reading> {
    let reading = |tick: u64| {
        let at = tick * MS + 50_000;
        Reading { tick, at: Instant(at), until: Instant((tick + 1) * MS), bytes: Bytes(level(at)) }
    };
    (0..50).map(reading).collect()
}

fn agreements(comparison: &Comparison) -> Vec<Agreement> {
    comparison.steps.iter().map(|step| step.agreement).collect()
}

#[test]
fn what_is_measured_right_is_within_all_bounds() {
    let comparison = compare(&staircase(), &sampled(truth), &TOLERANCE);
    assert!(comparison.agrees(), "{comparison:#?}");
    assert_eq!(comparison.base_bytes, Some(BASE));
    let [first, second, third] = &comparison.steps[..] else { panic!("{comparison:?}") };
    assert_eq!(first.held.unwrap().difference_bytes, (16 * MIB / 512) as f64);
    assert_eq!(first.held.unwrap().samples, 10);
    assert_eq!((first.start.error_ns, first.start.bound_ns), (Some(50_000), Some(1_050_000)));
    // 0.4 ms to give it back come to the interval and the lateness.
    assert_eq!((second.end.error_ns, second.end.bound_ns), (Some(50_000), Some(1_450_000)));
    assert_eq!((third.end.agreement, third.remarks.len()), (Agreement::Within, 0));
    assert_eq!((third.bound_below_bytes, third.bound_above_bytes), (512 * 1024, 512 * 1024 + 65_536));
}

#[test]
fn a_mebibyte_too_much_or_too_little_is_outside() {
    let is_second = |at: u64| (20 * MS..=30 * MS).contains(&at);
    let more = sampled(|at| truth(at) + u64::from(is_second(at)) * MIB);
    let comparison = compare(&staircase(), &more, &TOLERANCE);
    assert_eq!(agreements(&comparison), [Agreement::Within, Agreement::Outside, Agreement::Within]);
    assert!(comparison.steps[1].held.unwrap().difference_bytes > MIB as f64 && !comparison.agrees());
    let allowing = Tolerance { interpreter: Bytes(MIB), ..TOLERANCE };
    assert!(compare(&staircase(), &more, &allowing).agrees());
    let less = compare(&staircase(), &sampled(|at| truth(at) - u64::from(is_second(at)) * MIB), &TOLERANCE);
    assert_eq!(agreements(&less), agreements(&comparison));
    // One sample that is wrong is enough.
    let spike = |at: u64| truth(at) + if at / MS == 25 { MIB } else { 0 };
    assert_eq!(compare(&staircase(), &sampled(spike), &TOLERANCE).steps[1].level, Agreement::Outside);
}

#[test]
fn what_lags_or_comes_too_early_is_outside() {
    let late = compare(&staircase(), &sampled(|at| truth(at.saturating_sub(2 * MS))), &TOLERANCE);
    assert_eq!(agreements(&late), [Agreement::Outside; 3]);
    assert_eq!(late.steps[0].start.error_ns, Some(2 * MS as i64 + 50_000));
    assert_eq!(late.steps[1].end.agreement, Agreement::Outside);
    let early = compare(&staircase(), &sampled(|at| truth(at + 4 * MS)), &TOLERANCE);
    // The first sample that shows the step had ended before its allocation began.
    assert_eq!(early.steps[0].start.agreement, Agreement::Outside, "{early:#?}");
}

#[test]
fn missed_ticks_widen_the_bound_and_are_told() {
    let mut readings = sampled(truth);
    readings.retain(|reading| !(4..=7).contains(&reading.tick));
    let comparison = compare(&staircase(), &readings, &TOLERANCE);
    let first = &comparison.steps[0];
    assert_eq!((first.start.missed_ticks, first.start.agreement), (4, Agreement::Within));
    assert_eq!((first.start.error_ns, first.start.bound_ns), (Some(3_050_000), Some(5 * MS)));
    assert!(first.remarks[0].contains("4 ticks were missed around its start"), "{first:?}");
    assert!(comparison.agrees());
    // Lateness that is measured is no excuse for a wrong value: the first sample after the gap lacks the step.
    let wrong: Vec<Reading> = readings
        .iter()
        .map(|reading| if reading.tick == 8 { Reading { bytes: Bytes(BASE), ..*reading } } else { *reading })
        .collect();
    assert_eq!(compare(&staircase(), &wrong, &TOLERANCE).steps[0].start.agreement, Agreement::Outside);
}

#[test]
fn without_samples_nothing_is_told() {
    let nothing = compare(&staircase(), &[], &TOLERANCE);
    assert_eq!((agreements(&nothing), nothing.base_bytes), (vec![Agreement::NotTold; 3], None));
    let none = Staircase { steps: Vec::new(), ..staircase() };
    assert!(!nothing.agrees() && !compare(&none, &sampled(truth), &TOLERANCE).agrees());
    let mut readings = sampled(truth);
    readings.retain(|reading| !(20..30).contains(&reading.tick));
    let comparison = compare(&staircase(), &readings, &TOLERANCE);
    assert_eq!(agreements(&comparison), [Agreement::Within, Agreement::NotTold, Agreement::Within]);
    assert!(comparison.steps[1].remarks[0].contains("no sample was taken while it was held"));
    assert_eq!(comparison.agreement, Agreement::NotTold);
}

#[test]
fn a_sample_of_the_climb_before_is_no_base() {
    // 64 MiB were held until 1.5 ms; the step of 16 MiB is allocated from 3.0 ms.
    let staircase = Staircase { free_since: Instant(1_500_000), ..staircase() };
    let all = sampled(|at| truth(at) + if at < 1_500_000 { 64 * MIB } else { 0 });
    let without = |ticks: &[u64]| -> Vec<Reading> {
        all.iter().filter(|reading| !ticks.contains(&reading.tick)).copied().collect()
    };
    let told = compare(&staircase, &all, &TOLERANCE);
    assert_eq!((told.base_bytes, told.agreement), (Some(BASE), Agreement::Within));
    // That of 2.05 ms is the only one between the two.
    let untold = compare(&staircase, &without(&[2]), &TOLERANCE);
    assert_eq!((untold.base_bytes, untold.agreement), (None, Agreement::NotTold));
    assert_eq!(agreements(&untold), [Agreement::NotTold; 3]);
    for step in &untold.steps {
        assert_eq!((step.held, step.start.error_ns, step.end.error_ns), (None, None, None), "{step:?}");
        assert!(step.remarks[0].contains("there is no base"), "{step:?}");
    }
    // One that began before all was given back may be of either, and so may one that was still read when the step began.
    let straddling = Staircase { free_since: Instant(2_051_000), ..staircase.clone() };
    assert_eq!(compare(&straddling, &all, &TOLERANCE).base_bytes, None);
    let mut early = staircase;
    early.steps[0].allocation_began = Instant(2_900_000);
    assert_eq!(compare(&early, &all, &TOLERANCE).base_bytes, None);
}

#[test]
fn a_sample_of_the_next_step_tells_nothing_of_an_end() {
    // The 64 MiB are given back at 30.4 ms; the next 32 are all there from 35.0 ms.
    let mut readings = sampled(truth);
    readings.retain(|reading| !(30..35).contains(&reading.tick));
    let comparison = compare(&staircase(), &readings, &TOLERANCE);
    let second = &comparison.steps[1];
    assert_eq!((second.end.agreement, second.end.bound_ns), (Agreement::NotTold, None), "{second:?}");
    assert!(second.remarks.iter().any(|remark| remark.contains("had begun")), "{second:?}");
    assert!(comparison.agrees(), "{comparison:#?}");
    // What is missing of one step excuses no other.
    let wrong: Vec<Reading> = readings
        .iter()
        .map(|reading| if reading.tick == 40 { Reading { bytes: Bytes(BASE), ..*reading } } else { *reading })
        .collect();
    let comparison = compare(&staircase(), &wrong, &TOLERANCE);
    assert_eq!(agreements(&comparison), [Agreement::Within, Agreement::Within, Agreement::Outside]);
    assert_eq!(comparison.agreement, Agreement::Outside);
}

#[test]
fn a_base_that_drifts_away_shows() {
    let drifting = |at: u64| truth(at) + at / MS * 30_000;
    let comparison = compare(&staircase(), &sampled(drifting), &TOLERANCE);
    assert_eq!(agreements(&comparison), [Agreement::Within, Agreement::Outside, Agreement::Outside]);
}

#[test]
fn an_end_that_the_next_step_hides_is_not_told_and_one_that_shows_must() {
    let mut staircase = staircase();
    let steps = &mut staircase.steps;
    steps[1].allocation_began = Instant(15 * MS + 500_000);
    steps[1].begin = Instant(15 * MS + 900_000);
    let level = |at: u64| match at / 1000 {
        5_000..=15_000 => BASE + 16 * MIB,
        15_900..=30_000 => BASE + 64 * MIB,
        35_000..=45_000 => BASE + 32 * MIB,
        _ => BASE,
    };
    let mut readings = sampled(level);
    // The tick at 15 ms was missed, so that nothing was read between the two steps.
    readings.retain(|reading| reading.tick != 15);
    let comparison = compare(&staircase, &readings, &TOLERANCE);
    assert_eq!(comparison.steps[0].end.agreement, Agreement::NotTold);
    assert!(comparison.steps[0].remarks.iter().any(|remark| remark.contains("had begun")));
    assert!(comparison.agrees(), "{comparison:#?}");
    // After 64 MiB come 32, which cannot hide that the 64 are still there.
    let stuck = sampled(|at| if (30..40).contains(&(at / MS)) { BASE + 64 * MIB } else { truth(at) });
    assert_eq!(compare(&self::staircase(), &stuck, &TOLERANCE).steps[1].end.agreement, Agreement::Outside);
}

#[test]
fn a_step_below_the_charge_batch_is_judged_by_its_level_alone() {
    let tolerance = Tolerance { charge_batch: Bytes(16 * MIB), ..TOLERANCE };
    let comparison = compare(&staircase(), &sampled(truth), &tolerance);
    assert!(comparison.agrees());
    assert_eq!(comparison.steps[0].start.agreement, Agreement::NotTold);
    assert!(comparison.steps[0].remarks[0].contains("charges more in advance"));
}

#[test]
fn the_functions_output_is_read() {
    let output = r#"{"result": {"page_bytes": 4096, "steps": [{"bytes": 4096, "hold_ms": 1, "allocation_us": 2.5,
        "begin_monotonic_ns": 10000, "end_monotonic_ns": 20000, "release_us": 0.5}, {"bytes": 1, "allocation_us": 0,
        "begin_monotonic_ns": 30000, "end_monotonic_ns": 40000}]}, "measurement": {}}"#;
    let steps = steps_of(output).unwrap();
    assert_eq!(steps[0].allocation_began, Instant(7_500));
    assert_eq!((steps[0].released, steps[1].released), (Some(Instant(20_500)), None));
    assert!(steps_of("{}").unwrap_err().to_string().contains("051.memory-staircase"));
}
