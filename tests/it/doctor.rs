//! `doctor`: a report on any machine, and a staircase of memory that is measured as it was climbed.

use sebs_lite::docker::Engine;
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
    let expected = format!("{} {}", engine.info().unwrap().product, engine.version().unwrap().version);
    assert!(told.as_str().unwrap().starts_with(&expected), "{told}");
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

/// Runs the probe; each part of it that its samples tell must be right. Gives what they tell of: each step, and the end of
/// the third, after which come 32 MiB, which cannot hide that its 64 were given back.
fn climb(engine: &Engine, place: &Place) -> [bool; 5] {
    let child = place.spawn(&["doctor", "--probe", "--json"]);
    let name = format!("sebs-lite-doctor-{}", child.id());
    let ended = Ended::from(child.wait_with_output().unwrap());
    let left = support::containers(engine, &name);
    assert!(left.is_empty(), "{left:?}");
    let report = json(&ended);
    assert_well_formed(&report);
    let staircase = &report["staircase"];
    let steps = staircase["steps"].as_array().unwrap();
    let planned: Vec<u64> = steps.iter().map(|step| step["planned_bytes"].as_u64().unwrap() >> 20).collect();
    assert_eq!(planned, [16, 32, 64, 32]);
    let tells = |part: &Value| match part["agreement"].as_str().unwrap() {
        "within" => true,
        "not_told" => false,
        other => panic!("{other}: {part}"),
    };
    let told: Vec<bool> = steps.iter().map(tells).collect();
    let all_told = told.iter().all(|told| *told);
    assert_eq!((tells(staircase), ended.code), (all_told, Some(if all_told { 0 } else { 3 })), "{staircase}");
    for (step, _) in steps.iter().zip(&told).filter(|(_, told)| **told) {
        assert!(staircase["base_bytes"].is_u64() && step["level"] == "within", "{step}");
        assert_eq!(step["start"]["agreement"], "within", "{step}");
        let difference = step["held"]["difference_bytes"].as_f64().unwrap();
        let bound = |key: &str| step[key].as_f64().unwrap();
        assert!((-bound("bound_below_bytes")..=bound("bound_above_bytes")).contains(&difference), "{step}");
    }
    [told[0], told[1], told[2], told[3], tells(&steps[2]["end"])]
}

#[test]
fn a_staircase_is_measured_as_it_was_climbed() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("doctor-probe");
    // On a machine that is used by others samples are missing: what one climb does not tell another one does.
    let mut told = [false; 5];
    for _ in 0..8 {
        let of_this = climb(&engine, &place);
        (0..5).for_each(|part| told[part] |= of_this[part]);
        if told == [true; 5] {
            return;
        }
    }
    panic!("eight climbs told only of {told:?}");
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
