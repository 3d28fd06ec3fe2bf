//! `benchmark regression`: each benchmark in each language, the failing and the skipped among them.

use serde_json::Value;

use crate::program::{Place, read_json};
use crate::support::{self, has_node, storage_image};

const GENERATE: &str = "def generate_input(data_dir, size, bucket, inputs, outputs, upload, nosql):\n    return {'size': size}\n";
const VALIDATE: &str = "def validate_output(data_dir, config, output, language, storage):\n    \
    return None if output['result'] == config['size'] else 'it is ' + str(output['result'])\n";
const ECHO: &str = "def handler(event):\n    return {'result': event['size']}\n";

fn benchmark(place: &Place, name: &str, languages: &str, files: &[(&str, &str)]) {
    let config = format!(r#"{{"timeout": 20, "memory": 128, "languages": {languages}, "modules": []}}"#);
    place.write(&format!("suite/900.test/{name}/config.json"), &config);
    for (path, content) in files {
        place.write(&format!("suite/900.test/{name}/{path}"), content);
    }
}

fn runs(json: &str) -> Vec<(String, String, String)> {
    let report: Value = serde_json::from_str(json).unwrap();
    let text = |run: &Value, key: &str| run[key].as_str().unwrap_or_default().to_string();
    let runs = report["runs"].as_array().unwrap().iter();
    runs.map(|run| (text(run, "benchmark"), text(run, "verdict"), text(run, "reason"))).collect()
}

#[test]
fn every_benchmark_is_tried_and_what_fails_or_is_skipped_says_why() {
    let Some(_) = support::engine() else { return };
    let place = Place::create("regression");
    let judged = format!("{GENERATE}{VALIDATE}");
    let python = r#"["python"]"#;
    benchmark(&place, "901.xreg-right", python, &[("python/function.py", ECHO), ("input.py", &judged)]);
    benchmark(&place, "902.xreg-free", python, &[("python/function.py", ECHO), ("input.py", GENERATE)]);
    let wrong = ECHO.replace("event['size']", "'wrong'");
    benchmark(&place, "903.xreg-wrong", python, &[("python/function.py", &wrong), ("input.py", &judged)]);
    let raises = "def handler(event):\n    raise ValueError('no luck')\n";
    benchmark(&place, "904.xreg-raises", python, &[("python/function.py", raises), ("input.py", &judged)]);
    let lacking = "echo 'there is no such program here' >&2\nexit 69\n";
    let files = [("python/function.py", ECHO), ("input.py", judged.as_str()), ("init.sh", lacking)];
    benchmark(&place, "905.xreg-lacks", python, &files);
    let module = format!("import no_such_module\n{judged}");
    benchmark(
        &place,
        "906.xreg-module",
        r#"["python", "java"]"#,
        &[("python/function.py", ECHO), ("input.py", &module)],
    );
    let stores = format!("{judged}def buckets_count():\n    return (1, 0)\n");
    benchmark(&place, "907.xreg-stores", python, &[("python/function.py", ECHO), ("input.py", &stores)]);
    let no_image = r#"{"object": {"type": "seaweedfs", "seaweedfs": {"image": "sebs-lite:no-such"}}}"#;
    let no_image = place.write("storage.json", no_image).display().to_string();
    let suite = place.path("suite").display().to_string();
    let all = ["benchmark", "regression", "--benchmarks", &suite, "--benchmark-name", "xreg", "--json"];
    let all: Vec<&str> = all.into_iter().chain(["--storage-configuration", &no_image]).collect();
    let ended = place.run(&all).expect(3, &[]);
    let runs = runs(&ended.stdout);
    let verdicts: Vec<(&str, &str)> =
        runs.iter().map(|(name, verdict, _)| (name.as_str(), verdict.as_str())).collect();
    assert_eq!(
        verdicts,
        [
            ("901.xreg-right", "passed"),
            ("902.xreg-free", "not validated"),
            ("903.xreg-wrong", "failed"),
            ("904.xreg-raises", "failed"),
            ("905.xreg-lacks", "skipped"),
            ("906.xreg-module", "skipped"),
            ("906.xreg-module", "skipped"),
            ("907.xreg-stores", "skipped"),
        ],
        "{}",
        ended.stderr
    );
    for (index, told) in [
        (2, "it is wrong"),
        (3, "no luck"),
        (4, "no such program"),
        (5, "no_such_module"),
        (6, "`java`"),
        (7, "sebs-lite:no-such"),
    ] {
        assert!(runs[index].2.contains(told), "{:?}", runs[index]);
    }
    let result = read_json(&place.path("regression/901.xreg-right-python/experiments.json"));
    assert_eq!(result["_invocations"].as_object().unwrap().len(), 1);

    // What is skipped is no failure; the part that is named is all that runs.
    let some = ["benchmark", "regression", "small", "--benchmarks", &suite, "--benchmark-name=xreg-right"];
    let some: Vec<&str> =
        some.into_iter().chain(["--benchmark-name", "xreg-lacks", "--output-dir", "o"]).collect();
    place.run(&some).expect(0, &["1 passed, 1 skipped", "905.xreg-lacks in python skipped"]);
    assert!(place.path("o/901.xreg-right-python/experiments.json").is_file());
}

#[test]
fn the_bundled_ones_run_in_all_their_languages_with_storage_that_is_started_once() {
    let Some(engine) = support::engine() else { return };
    storage_image(&engine, "dynoxide");
    let place = Place::create("regression-suite");
    let words = ["benchmark", "regression", "--benchmark-name", "110.", "--benchmark-name", "130.", "--json"];
    let ended = place.run(&words).expect(0, &[]);
    let runs = runs(&ended.stdout);
    assert_eq!(runs.len(), 4, "{runs:?}");
    let node = if has_node() { "passed" } else { "skipped" };
    for (run, verdict) in runs.iter().zip(["passed", node, "passed", node]) {
        assert_eq!(run.1, verdict, "{run:?}\n{}", ended.stderr);
    }
    assert_eq!(ended.stderr.matches("started nosql storage").count(), 1, "{}", ended.stderr);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let place = Place::create("regression-usage");
    for (words, told) in [
        (&["benchmark", "regression", "huge"][..], "`huge`"),
        (&["benchmark", "regression", "--benchmark-name", "no-such"], "no benchmark has `no-such`"),
        (&["benchmark", "regression", "--language", "cobol"], "cobol"),
        (&["benchmark", "regression", "--language-version", "3.11"], "add --language"),
        (
            &["benchmark", "regression", "--deployment", "aws"],
            "platform `aws` is not supported: it must be `local`",
        ),
    ] {
        place.run(words).expect(2, &[told]);
    }
}
