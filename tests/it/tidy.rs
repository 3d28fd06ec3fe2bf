//! The project's own rules, read from its files: layers, first sentences, lengths, the change log, the dependencies.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the library, each of which may use those before it.
const LAYERS: [&str; 25] = [
    "error",
    "cancel",
    "progress",
    "units",
    "stats",
    "files",
    "clock",
    "sigv4",
    "http",
    "wire",
    "host",
    "process",
    "docker",
    "cgroup",
    "probe",
    "cache",
    "storage",
    "faas",
    "runtime",
    "suite",
    "benchmark",
    "local",
    "experiment",
    "doctor",
    "report",
];

/// A little more than the 500 lines that a file should have at most.
const MAX_LINES: usize = 560;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below some folders that have one of the endings.
fn sources(folders: &[&str], endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let ending = path.extension().unwrap_or_default().to_str().unwrap();
            if path.is_dir() && !path.ends_with("__pycache__") {
                folders.push(path);
            } else if endings.contains(&ending) {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 5, "the files are not where this test looks");
    found
}

#[test]
fn a_module_uses_only_those_above_it() {
    let level = |module: &str| LAYERS.iter().position(|layer| *layer == module);
    let src = root().join("src");
    for path in sources(&["src"], &["rs"]) {
        let below = path.strip_prefix(&src).unwrap();
        let own = below.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        if own == "lib" {
            continue;
        }
        let own_level = level(own).unwrap_or_else(|| panic!("module `{own}` is not in the list of layers"));
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for used in line.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let used = if used == "Error" || used == "Result" { "error" } else { &used };
                if let Some(used_level) = level(used) {
                    assert!(used_level <= own_level, "{}: `{own}` uses `{used}` below it", path.display());
                }
            }
        }
    }
}

#[test]
fn every_file_begins_with_its_sentence() {
    for path in sources(&["src", "bin", "tests", "scripts"], &["rs", "py", "js", "sh"]) {
        let text = fs::read_to_string(&path).unwrap();
        let first = text.lines().find(|line| !line.starts_with("#!")).unwrap_or_default();
        let sentence = ["//! ", "\"\"\"", "// ", "# "].iter().find_map(|mark| first.strip_prefix(mark));
        let sentence = sentence.unwrap_or_else(|| panic!("{} begins with no sentence", path.display()));
        let begins = sentence.chars().next().is_some_and(|c| c.is_uppercase() || c == '`');
        assert!(begins && sentence.len() > 15, "{}: `{sentence}` is no sentence", path.display());
    }
}

#[test]
fn no_file_is_long() {
    for path in sources(&["src", "bin", "tests"], &["rs", "py", "js"]) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines", path.display());
    }
}

#[test]
fn the_change_log_knows_the_version() {
    let log = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    assert!(log.contains(&format!("## {}", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn the_readme_names_every_dependency() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let names: Vec<&str> = dependencies
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name.trim())
        .collect();
    assert!(names.contains(&"ureq"), "{names:?}");
    for name in names {
        assert!(readme.contains(&format!("| `{name}` |")), "README's table lacks `{name}`");
    }
}
