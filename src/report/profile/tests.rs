//! Tests of the report of a recording, on small ones that are written down event by event.

use serde_json::json;

use super::*;
use crate::report::example;

#[test]
fn the_table_says_how_it_was_recorded_what_was_sampled_and_what_ran() {
    let report = ProfileReport::new(&example::whole()).unwrap();
    let expected = r#"recorded     2026-11-21T09:20:48.123456Z, 12.00 ms long, by sebs-lite 1.2.3
interval     1.000 ms by CLOCK_MONOTONIC
scheduling   SCHED_FIFO, priority 10, timer slack 0 ns, CPU 0-2,7, memory locked
uncertainty  a reading is up to 524.3 kB above what is used: the kernel charges memory in advance
CPU used     sampler 5.00 %, writer 0.10 % of the time
warning      one\nwish was not granted

#  target       planned  taken  missed  lost  late p50       p99       max     mean     peak   peak at  kernel peak  ended                        source
0  first (one)       10      7       3     3  40.19 µs  60.00 µs  60.00 µs  20.0 MB  50.0 MB  1.050 ms      52.0 MB  gone                         cgroup v2 memory.current
1  <two>, "2"        11      1      10     0      0 ns      0 ns      0 ns  30.0 MB  30.0 MB  2.000 ms            -  its counter holds no number  the engine

#  invocation  duration  samples     peak  kernel peak     mean     began  target
1  cold        1.500 ms        2  50.0 MB      51.0 MB  25.0 MB      0 ns       0
2  failed      10.00 µs        0        -            -        -  4.000 ms       0
3  warm        1.000 ms        0        -            -        -  10.00 ms       1
"#;
    assert_eq!(report.table(), expected);
}

#[test]
fn json_has_all_with_units_in_the_keys() {
    let report = serde_json::to_value(ProfileReport::new(&example::whole()).unwrap()).unwrap();
    assert_eq!((&report["schema_version"], &report["cut"]), (&json!(1), &json!(false)));
    assert_eq!(report["duration_ns"], 12_000_000);
    assert_eq!(report["sampler_cpu_percent"], 5.0);
    assert_eq!(report["header"]["scheduling"]["policy"], "SCHED_FIFO");
    let one = &report["targets"][0];
    assert_eq!(one["lateness_ns"]["max"], 60_000);
    let mut one = one.clone();
    one.as_object_mut().unwrap().remove("lateness_ns");
    assert_eq!(
        one,
        json!({
            "target": 0, "label": "one", "name": "first", "source": "cgroup v2 memory.current",
            "first_tick": 0, "end_tick": 10, "planned_ticks": 10, "taken_ticks": 7, "missed_ticks": 3,
            "lost_samples": 3, "peak_bytes": 50_000_000, "peak_time_ns": 1_050_000, "mean_bytes": 20_001_024.0,
            "kernel_peak_bytes": 52_000_000, "kernel_peak_is_older": false, "ending": "gone",
        })
    );
    assert_eq!(report["targets"][1]["ending"], "not_a_number");
    assert_eq!(report["targets"][1].get("kernel_peak_bytes"), None);
    assert_eq!(
        report["invocations"][0],
        json!({
            "target": 0, "request_id": "a<1>", "is_cold": true, "is_failed": false, "begin_time_ns": 0,
            "end_time_ns": 1_500_000, "kernel_peak_bytes": 51_000_000, "samples": 2, "peak_bytes": 50_000_000,
            "peak_time_ns": 1_050_000, "mean_bytes": 25_002_048.0,
        })
    );
    assert_eq!(report["invocations"][2]["samples"], 0);
    assert_eq!(report["invocations"][2].get("peak_bytes"), None);
}

#[test]
fn a_recording_that_was_cut_says_so_and_ends_where_it_is_known() {
    let report = ProfileReport::new(&example::cut()).unwrap();
    assert_eq!((report.duration_ns, report.cut, report.sampler_cpu_percent), (2_000_000, true, None));
    let table = report.table();
    assert!(table.contains("\ncut          the end is missing"), "{table}");
    assert!(table.trim_end().ends_with("cut") && !table.contains("CPU used"), "{table}");
    assert!(!table.contains("kernel peak") && !table.contains("source"), "{table}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((&json["cut"], json.get("end")), (&json!(true), None));
}

#[test]
fn nothing_sampled_is_no_fault() {
    let report = ProfileReport::new(&example::empty()).unwrap();
    assert_eq!((report.duration_ns, report.sampler_cpu_percent), (0, None));
    assert!(report.table().ends_with("\nnothing was sampled\n"));
}

#[test]
fn many_invocations_are_summed_up() {
    let few = ProfileReport::new(&example::many_invocations(50)).unwrap().table();
    assert!(few.contains("\n50  warm"), "{few}");
    assert!(few.contains("warm median  20.00 ms       20") && !few.contains("cold median"), "{few}");
    let many = ProfileReport::new(&example::many_invocations(500)).unwrap();
    assert_eq!((many.invocations.len(), many.invocations[499].samples), (500, 2));
    let many = many.table();
    assert!(many.contains("cold median") && many.contains("warm max"), "{many}");
    assert!(many.ends_with("500 invocations: 1 cold, 499 warm; `--json` tells each\n"), "{many}");
    assert!(many.lines().count() < 25, "{many}");
}

#[test]
fn a_name_is_one_line_and_an_id_is_short() {
    let mut target = ProfileReport::new(&example::cut()).unwrap().targets.remove(0);
    let mut shown = |label: &str, name: Option<&str>| {
        (target.label, target.name) = (label.to_string(), name.map(str::to_string));
        target.shown_name()
    };
    let id = "0123456789abcdef".repeat(4);
    assert_eq!(shown(&id, None), "0123456789ab");
    assert_eq!(shown(&id, Some("web")), "web (0123456789ab)");
    assert_eq!(shown("web", Some("web")), "web");
    assert_eq!(shown(&"ü".repeat(32), None), "ü".repeat(32));
    assert_eq!(shown("a\u{1b}[2J\n", None), "a\\u{1b}[2J\\n");
}

#[test]
fn numbers_of_cpus_are_shown_as_ranges() {
    assert_eq!(cpu_list(&[0, 1, 2, 4, 6, 7]), "0-2,4,6-7");
    assert_eq!(cpu_list(&[]), "");
}
