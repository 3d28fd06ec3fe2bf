//! `doctor`: a report on any machine, and a staircase of memory that is measured as it was climbed.

use serde_json::Value;

use crate::program::{Ended, Place};
use crate::support;

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.stdout))
}

#[track_caller]
fn finding<'a>(report: &'a Value, name: &str) -> &'a Value {
    let findings = report["findings"].as_array().unwrap();
    findings
        .iter()
        .find(|finding| finding["name"] == name)
        .unwrap_or_else(|| panic!("no `{name}`: {findings:?}"))
}

/// Each finding has a name, a value and a verdict, and says what to do unless it is fine.
fn assert_well_formed(report: &Value) {
    let findings = report["findings"].as_array().unwrap();
    for area in ["engine", "counters", "noise", "timer"] {
        assert!(findings.iter().any(|finding| finding["area"] == area), "nothing of {area}: {findings:?}");
    }
    for finding in findings {
        assert!(
            !finding["name"].as_str().unwrap().is_empty() && !finding["value"].as_str().unwrap().is_empty()
        );
        let verdict = finding["verdict"].as_str().unwrap();
        assert!(["ok", "warn", "bad"].contains(&verdict), "{finding}");
        assert_eq!(finding["advice"].is_string(), verdict != "ok", "{finding}");
    }
    let timer = &report["facts"]["timer"];
    let counted = |key: &str| timer[key].as_u64().unwrap();
    let in_buckets: u64 =
        timer["buckets"].as_array().unwrap().iter().map(|bucket| bucket["samples"].as_u64().unwrap()).sum();
    assert_eq!(in_buckets, counted("planned_ticks") - counted("missed_ticks"), "{timer}");
    assert!(in_buckets > 0 && timer["lateness_ns"]["max"].as_u64() < Some(counted("interval_ns")), "{timer}");
}

#[test]
fn a_machine_with_an_engine_is_reported() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("doctor-engine");
    let ended = place.run(&["doctor", "--json"]).expect(0, &[]);
    let report = json(&ended);
    assert_well_formed(&report);
    let told = &finding(&report, "engine")["value"];
    assert!(told.as_str().unwrap().starts_with(&engine.version().unwrap().version), "{told}");
    assert!(report["staircase"].is_null());
}

#[test]
fn a_machine_without_an_engine_is_reported_too() {
    let place = Place::create("doctor-none");
    let without = |arguments: &[&str]| -> Ended {
        let mut command = place.command(arguments);
        command.env("DOCKER_HOST", "unix:///nonexistent").output().unwrap().into()
    };
    let report = json(&without(&["doctor", "--json", "--probe", "--measure-interval", "5ms"]).expect(1, &[]));
    assert_well_formed(&report);
    let engine = finding(&report, "engine");
    assert_eq!(engine["verdict"], "bad");
    assert!(engine["value"].as_str().unwrap().contains("`/nonexistent`"), "{engine}");
    assert!(report["staircase"].is_null());
    assert_eq!(report["facts"]["timer"]["interval_ns"], 5_000_000);
    without(&["doctor"]).expect(
        1,
        &["engine\n  bad ", "start Docker", "noise\n", "lateness of", "below 10 µs", "1 ms or more"],
    );
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let place = Place::create("doctor-usage");
    place.run(&["doctor", "--measure-interval", "-1"]).expect(2, &["samples always"]);
    place.run(&["doctor", "--probe", "--measure-interval", "1s"]).expect(2, &["at most 100.0 ms"]);
    place.run(&["doctor", "--image-source", "host"]).expect(2, &["add --probe"]);
    place.run(&["doctor", "--probe", "--image-source", "moon"]).expect(2, &["`moon`", "`host`"]);
}

#[test]
fn a_staircase_is_measured_as_it_was_climbed() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("doctor-probe");
    // On a machine that is used by others a step may see no sample at all: that alone is tried again.
    let report = (0..3)
        .map(|_| {
            let child = place.spawn(&["doctor", "--probe", "--json"]);
            (child.id(), Ended::from(child.wait_with_output().unwrap()))
        })
        .find_map(|(pid, ended)| {
            let left = support::containers(&engine, &format!("sebs-lite-doctor-{pid}"));
            assert!(left.is_empty(), "{left:?}");
            let report = json(&ended);
            let is_untold = |step: &Value| step["agreement"] == "not_told";
            let steps = report["staircase"]["steps"].as_array().unwrap();
            let is_told = !steps.iter().any(is_untold);
            is_told.then(|| {
                assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
                report.clone()
            })
        })
        .expect("in one of three runs each step has a sample");
    assert_well_formed(&report);
    let steps = report["staircase"]["steps"].as_array().unwrap();
    let planned: Vec<u64> = steps.iter().map(|step| step["planned_bytes"].as_u64().unwrap() >> 20).collect();
    assert_eq!(planned, [16, 32, 64, 32]);
    for step in steps {
        assert_eq!((&step["agreement"], &step["level"]), (&"within".into(), &"within".into()), "{step}");
        assert_eq!(step["start"]["agreement"], "within", "{step}");
        let difference = step["held"]["difference_bytes"].as_f64().unwrap();
        let bound = |key: &str| step[key].as_f64().unwrap();
        assert!((-bound("bound_below_bytes")..=bound("bound_above_bytes")).contains(&difference), "{step}");
    }
    // After 64 MiB come 32, which cannot hide that the 64 were given back.
    assert_eq!(steps[2]["end"]["agreement"], "within");
}

#[test]
fn what_is_sent_to_the_engine_is_in_no_log_since_secrets_may_be_in_it() {
    let Some(_) = support::engine() else { return };
    let place = Place::create("doctor-log");
    let mut command = place.command(&["doctor"]);
    command.env("RUST_LOG", "trace,ureq_proto=trace,ureq_proto::util=trace");
    let ended = Ended::from(command.output().unwrap());
    assert!(ended.stderr.contains("debug: Call<SendRequest>"), "{}", ended.stderr);
    // `GET ` as the crate shows bytes.
    assert!(!ended.stderr.contains("4745 5420 "), "{}", ended.stderr);
}
