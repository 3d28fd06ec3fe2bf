//! The bundled benchmarks, and SeBS's own folders: packaged, given their inputs, run and validated on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use sebs_lite::benchmark::{Benchmark, NoStorage, Search, Verdict};
use sebs_lite::cancel::Cancel;
use sebs_lite::faas::Language;

use crate::benchmark::{Builder, call_node, call_python, host_image, node, output, python};
use crate::input::start;
use crate::support::Folder;

/// The wheel of SeBS, whose benchmarks are read here as their users have them.
const SEBS: &str = "serverless-benchmarks==1.2.0 \
    --hash=sha256:85f422747d20857eed1d6320980476824dc5db1a8102213826a6e94b329d8173\n";

/// The folder with SeBS's benchmarks, fetched once into `target/`.
fn sebs() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("serverless-benchmarks-1.2.0");
        let benchmarks = target.join("sebs/benchmarks");
        if !benchmarks.is_dir() {
            let folder = Folder::create();
            let requirements = folder.put("requirements.txt", SEBS);
            let mut pip = Command::new(python());
            pip.args(["-m", "pip", "download", "--no-deps", "--require-hashes", "--quiet", "--dest"]);
            output(pip.arg(folder.path()).arg("-r").arg(requirements));
            let wheel = folder.path().join("serverless_benchmarks-1.2.0-py3-none-any.whl");
            let unpacked = target.with_extension(std::process::id().to_string());
            let _ = std::fs::remove_dir_all(&unpacked);
            output(Command::new(python()).args(["-m", "zipfile", "-e"]).arg(wheel).arg(&unpacked));
            std::fs::rename(unpacked, &target).unwrap();
        }
        benchmarks
    })
}

/// Packages a benchmark for an interpreter of this machine, makes its input of size `test`, calls the handler and
/// validates what it returns.
fn run(benchmark: &Benchmark, language: Language) -> (String, Verdict) {
    let folder = Folder::create();
    let interpreter = if language == Language::Python { python() } else { node() };
    let image = host_image(language, &interpreter);
    let cache = folder.path().join("cache");
    let package = Builder { benchmark, image: &image, variant: "default", engine: None, cache }
        .build(None)
        .unwrap_or_else(|error| panic!("{error}"));
    let mut process = start(benchmark, &Cancel::new()).unwrap().unwrap();
    let input = process.generate_input("test", None, &[], &[], &mut NoStorage).unwrap();
    let event = input.to_string();
    let output = match language {
        Language::Python => call_python(&interpreter, &package.location, &event),
        Language::Nodejs => call_node(&interpreter, &package.location, &event),
    };
    let verdict = process.validate_output(&input, &output, language, &mut NoStorage).unwrap();
    process.stop().unwrap();
    (output, verdict)
}

#[test]
fn every_bundled_benchmark_without_storage_runs_in_each_of_its_languages_and_is_valid() {
    let folder = Folder::create();
    for listing in Benchmark::list(&[]).unwrap() {
        let search = Search { roots: &[], data: None, extract_to: folder.path() };
        let benchmark = Benchmark::find(&listing.name, &search).unwrap();
        let languages = benchmark.config.supported_languages();
        assert!(!languages.is_empty());
        // The others are run by `suite_storage`.
        if !benchmark.config.modules.is_empty() {
            continue;
        }
        for language in languages {
            let (output, verdict) = run(&benchmark, language);
            assert_eq!(verdict, Verdict::Valid, "{} {language}: {output}", listing.name);
            assert!(output.contains(r#""compute_time""#), "{output}");
        }
    }
}

#[test]
fn a_bundled_validator_refuses_what_is_wrong() {
    let folder = Folder::create();
    let search = Search { roots: &[], data: None, extract_to: folder.path() };
    let step = r#"{"bytes": 16777216, "hold_ms": 500, "begin_monotonic_ns": 5, "end_monotonic_ns": 6}"#;
    let cases = [
        ("010.sleep", r#"{"result": 2, "measurement": {"compute_time": 2000000}}"#.to_string()),
        ("010.sleep", r#"{"result": 1, "measurement": {"compute_time": 900000}}"#.to_string()),
        ("051.memory-staircase", r#"{"result": {"steps": []}}"#.to_string()),
        ("051.memory-staircase", format!(r#"{{"result": {{"steps": [{step}, {step}, {step}, {step}]}}}}"#)),
        ("110.dynamic-html", r#"{"result": "<html>Ada &amp; Bob</html>"}"#.to_string()),
        ("501.graph-pagerank", r#"{"result": 0.2}"#.to_string()),
    ];
    for (name, output) in cases {
        let benchmark = Benchmark::find(name, &search).unwrap();
        let mut process = start(&benchmark, &Cancel::new()).unwrap().unwrap();
        let input = process.generate_input("test", None, &[], &[], &mut NoStorage).unwrap();
        let verdict = process.validate_output(&input, &output, Language::Python, &mut NoStorage).unwrap();
        assert!(matches!(verdict, Verdict::Invalid(_)), "{name}: {verdict:?}");
        process.stop().unwrap();
    }
}

#[test]
fn every_benchmark_of_sebs_is_found_and_parses() {
    let roots = [sebs().to_path_buf()];
    let listed = Benchmark::list(&roots).unwrap();
    let names: Vec<_> = listed.iter().map(|listing| listing.name.as_str()).collect();
    for name in [
        "010.sleep",
        "020.network-benchmark",
        "030.clock-synchronization",
        "040.server-reply",
        "110.dynamic-html",
        "120.uploader",
        "130.crud-api",
        "210.thumbnailer",
        "220.video-processing",
        "311.compression",
        "411.image-recognition",
        "501.graph-pagerank",
        "502.graph-mst",
        "503.graph-bfs",
        "504.dna-visualisation",
    ] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    for listing in &listed {
        let config = listing.config.as_ref().unwrap();
        assert!(config.support(Language::Python).is_some(), "{}", listing.name);
    }
    let folder = Folder::create();
    let search = Search { roots: &roots, data: None, extract_to: folder.path() };
    let thumbnailer = Benchmark::find("210", &search).unwrap();
    assert_eq!(thumbnailer.config.languages.len(), 3);
    let mut process = start(&thumbnailer, &Cancel::new()).unwrap().unwrap();
    assert_eq!(process.buckets_count().unwrap(), Some((1, 1)));
    let crud = Benchmark::find("130.crud-api", &search).unwrap();
    let mut process = start(&crud, &Cancel::new()).unwrap().unwrap();
    let tables = process.allocate_nosql().unwrap().unwrap();
    assert_eq!((tables[0].table.as_str(), tables[0].primary_key.as_str()), ("shopping_cart", "cart_id"));
    let error = process.generate_input("test", None, &[], &[], &mut NoStorage).unwrap_err().to_string();
    assert!(error.contains("no nosql storage is configured to write to table `shopping_cart`"), "{error}");
}

#[test]
fn benchmarks_of_sebs_without_storage_are_packaged_and_run() {
    let folder = Folder::create();
    let roots = [sebs().to_path_buf()];
    let search = Search { roots: &roots, data: None, extract_to: folder.path() };
    for (name, result) in [
        ("010.sleep", "1"),
        ("110.dynamic-html", "testname"),
        ("501.graph-pagerank", "0.1"),
        ("503.graph-bfs", "[["),
    ] {
        let benchmark = Benchmark::find(name, &search).unwrap();
        let (output, verdict) = run(&benchmark, Language::Python);
        assert!(output.contains(result), "{name}: {output}");
        // Version 1.2.0 has no validators; later ones do.
        assert_eq!(verdict, Verdict::NotValidated, "{name}");
    }
}
