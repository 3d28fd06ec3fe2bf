//! Cargo's build script: tells the program which commit it was built from.

#![expect(clippy::print_stdout, reason = "a build script speaks to Cargo on standard output")]

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=.git/index");
    let version = env!("CARGO_PKG_VERSION");
    // `git` alone would also answer in a folder that merely lies in some checkout, as a vendored copy does.
    let is_checkout = std::path::Path::new(".git").exists();
    let described = is_checkout.then(describe).flatten();
    let shown = described.map_or(version.to_string(), |commit| format!("{version} ({commit})"));
    println!("cargo::rustc-env=SEBS_LITE_VERSION={shown}");
}

fn describe() -> Option<String> {
    let output = Command::new("git").args(["describe", "--always", "--dirty", "--tags"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_string()).filter(|text| output.status.success() && !text.is_empty())
}
