//! Installs what a benchmark's requirement file asks for, and compiles the package for a read-only mount.

use std::path::{Path, PathBuf};

use super::installer::{Installer, Task};
use super::layout::Plan;
use crate::error::{Context, Error, Kind, Result};
use crate::faas::{Architecture, Language, Runtime};
use crate::files;

/// Where pip installs, below the build folder.
const SITE_PACKAGES: &str = ".python_packages/lib/site-packages";
/// What a `package.sh` of SeBS's benchmarks calls.
const PACKAGE_TOOLS: [&str; 8] = ["bash", "find", "xargs", "strip", "du", "sed", "grep", "cut"];
/// Ours to run where an interpreter has no pip: finds one in the user's index and prints its path.
const PIP_BOOTSTRAP: &str = include_str!("pip_bootstrap.py");

/// The requirement file in `build` that holds for `runtime`; `None`: there is none, and nothing to install.
pub(super) fn choose(build: &Path, runtime: &Runtime, architecture: Architecture) -> Option<PathBuf> {
    let version = &runtime.version;
    let names = match (runtime.language, architecture) {
        (Language::Python, Architecture::Arm64) => vec![
            format!("requirements.txt.arm.{version}"),
            format!("requirements.txt.{version}"),
            "requirements.txt".to_string(),
        ],
        (Language::Python, Architecture::X64) => {
            vec![format!("requirements.txt.{version}"), "requirements.txt".to_string()]
        }
        (Language::Nodejs, _) => vec![format!("package.json.{version}"), "package.json".to_string()],
    };
    names.into_iter().map(|name| build.join(name)).find(|path| path.is_file())
}

/// Installs what the file `requirements` in the build folder asks for.
///
/// # Errors
/// The file is not what it should be, or the installer failed; the file is named, and the installer's last lines.
pub(super) fn install(plan: &Plan<'_>, installer: &Installer<'_>, requirements: &Path) -> Result<()> {
    let name = requirements.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let installed = match plan.runtime.language {
        Language::Python if asks_for_packages(&files::read_text(requirements)?) => pip(installer, &name),
        Language::Nodejs if has_dependencies(requirements)? => npm(installer, requirements),
        _ => Ok(()),
    };
    installed.context(|| {
        format!("failed to install the dependencies of benchmark `{}` from its `{name}`", plan.benchmark.name)
    })
}

/// Does a requirements file have any line but comments?
fn asks_for_packages(text: &str) -> bool {
    text.lines().map(str::trim).any(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Does a package.json name a package to install?
fn has_dependencies(path: &Path) -> Result<bool> {
    let package: serde_json::Value = files::read_json(path)?;
    let kinds = ["dependencies", "optionalDependencies", "peerDependencies"];
    Ok(kinds.iter().any(|kind| package[kind].as_object().is_some_and(|packages| !packages.is_empty())))
}

fn pip(installer: &Installer<'_>, requirements: &str) -> Result<()> {
    let python = installer.interpreter("python3");
    let target = format!("{}/{SITE_PACKAGES}", installer.root());
    let command = pip_command(installer, &python)?;
    let mut arguments: Vec<&str> = command.iter().skip(1).map(String::as_str).collect();
    // Compiled later, for the paths at which the function will see its files.
    arguments.extend(["install", "--no-input", "--no-compile", "--disable-pip-version-check"]);
    arguments.extend(["--target", &target, "-r", requirements]);
    installer
        .run(&Task {
            program: &command[0],
            arguments: &arguments,
            // Settings that users have for their own environments and that contradict `--target`.
            environment: &[
                ("PIP_USER", "0"),
                ("PIP_REQUIRE_VIRTUALENV", "0"),
                ("PIP_ROOT_USER_ACTION", "ignore"),
                ("PIP_PROGRESS_BAR", "off"),
            ],
            name: "pip",
        })?
        .check("pip")?;
    Ok(())
}

/// The words that run pip: the interpreter's own, or one that is fetched from the user's index for it.
fn pip_command(installer: &Installer<'_>, python: &str) -> Result<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect();
    let own = words(&[python, "-m", "pip"]);
    let asked =
        Task { program: python, arguments: &["-m", "pip", "--version"], environment: &[], name: "pip" };
    if installer.run(&asked)?.success {
        return Ok(own);
    }
    log::info!("`{python}` has no pip: fetching one from the package index");
    let (script, tools) = installer.tool("pip_bootstrap.py", PIP_BOOTSTRAP)?;
    let fetch = Task { program: python, arguments: &[&script, &tools], environment: &[], name: "pip" };
    let outcome = installer.run(&fetch)?.check("fetching pip, which this Python lacks,")?;
    let wheel = outcome.lines.iter().rev().find(|line| line.ends_with(".whl"));
    let wheel = wheel.ok_or_else(|| Error::new("fetching pip, which this Python lacks, gave no file"))?;
    Ok(words(&[python, &format!("{wheel}/pip")]))
}

fn npm(installer: &Installer<'_>, package: &Path) -> Result<()> {
    let plain = package.with_file_name("package.json");
    if package != plain {
        files::copy_file(package, &plain)?;
    }
    let npm = installer.npm()?;
    // Links would lead out of the package once it is moved or mounted, so local packages are installed as copies.
    let arguments = [
        "install",
        "--omit=dev",
        "--install-links",
        "--no-audit",
        "--no-fund",
        "--no-progress",
        "--no-update-notifier",
    ];
    installer
        .run(&Task { program: &npm, arguments: &arguments, environment: &[], name: "npm" })?
        .check("npm")?;
    unlink_modules(&installer.folder.join("node_modules"))
}

/// Puts the content in place of each link that a package folder is: npm before 8.6 knows no `--install-links`.
fn unlink_modules(modules: &Path) -> Result<()> {
    if !modules.is_dir() {
        return Ok(());
    }
    for path in files::list(modules)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_symlink() && path.is_dir() {
            let target = files::canonical(&path)?;
            std::fs::remove_file(&path).context(|| format!("failed to remove link `{}`", path.display()))?;
            files::copy_folder(&target, &path)?;
        } else if name.starts_with('@') {
            unlink_modules(&path)?;
        }
    }
    Ok(())
}

/// Runs the benchmark's `package.sh`, which makes the installed dependencies smaller, where it has one.
///
/// # Errors
/// The script failed; its last lines are shown.
pub(super) fn shrink(plan: &Plan<'_>, installer: &Installer<'_>) -> Result<()> {
    let Some(script) = plan.script("package.sh").filter(|_| plan.runtime.language == Language::Python) else {
        return Ok(());
    };
    files::create_folder(&installer.folder.join(SITE_PACKAGES))?;
    let environment = [
        ("PYTHON_VERSION", plan.runtime.version.as_str()),
        ("PLATFORM", "LOCAL"),
        ("TARGET_ARCHITECTURE", plan.architecture.name()),
    ];
    let copy = installer.folder.join(".package.sh");
    files::copy_file(&script, &copy)?;
    let arguments = [".package.sh", SITE_PACKAGES];
    let task = Task { program: "bash", arguments: &arguments, environment: &environment, name: "package.sh" };
    let outcome = if installer.has_programs(&PACKAGE_TOOLS)? {
        installer.run(&task)
    } else {
        installer.run_on_host(&task)
    };
    std::fs::remove_file(&copy).context(|| format!("failed to remove `{}`", copy.display()))?;
    outcome
        .map_err(|error| match error.is_not_found() {
            true => Error::with_kind(Kind::NotFound, "`bash` is not installed on this machine"),
            false => error,
        })?
        .check(&format!("`{}`", script.display()))?;
    Ok(())
}

/// Compiles a finished Python package, since Python cannot write its cache into a read-only mount.
///
/// A file that does not compile is no error here: packages carry code for other versions, and templates of code.
///
/// # Errors
/// The interpreter cannot be started.
pub(super) fn compile(installer: &Installer<'_>) -> Result<()> {
    let root = installer.root();
    let arguments = [
        "-m",
        "compileall",
        "-q",
        "-r",
        "50",
        "--invalidation-mode",
        "unchecked-hash",
        "-d",
        "/function",
        &root,
    ];
    let python = installer.interpreter("python3");
    let task = Task { program: &python, arguments: &arguments, environment: &[], name: "compileall" };
    let outcome = installer.run(&task)?;
    if !outcome.success {
        log::debug!("some files of the package cannot be compiled");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{Access, TempFolder};

    fn runtime(language: Language, version: &str) -> Runtime {
        Runtime { language, version: version.to_string(), variant: "default".to_string() }
    }

    #[test]
    fn the_most_specific_requirement_file_is_chosen() {
        let folder = TempFolder::create().unwrap();
        let put = |name: &str| files::write(&folder.path().join(name), b"{}", Access::Everyone).unwrap();
        let chosen = |language, version, architecture| {
            choose(folder.path(), &runtime(language, version), architecture)
                .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        };
        assert_eq!(chosen(Language::Python, "3.11", Architecture::X64), None);
        for name in
            ["requirements.txt", "requirements.txt.3.9", "requirements.txt.arm.3.9", "package.json.18"]
        {
            put(name);
        }
        let cases = [
            ("3.11", Architecture::X64, "requirements.txt"),
            ("3.11", Architecture::Arm64, "requirements.txt"),
            ("3.9", Architecture::X64, "requirements.txt.3.9"),
            ("3.9", Architecture::Arm64, "requirements.txt.arm.3.9"),
        ];
        for (version, architecture, name) in cases {
            assert_eq!(chosen(Language::Python, version, architecture).unwrap(), name);
        }
        assert_eq!(chosen(Language::Nodejs, "20", Architecture::X64), None);
        put("package.json");
        assert_eq!(chosen(Language::Nodejs, "20", Architecture::X64).unwrap(), "package.json");
        assert_eq!(chosen(Language::Nodejs, "18", Architecture::X64).unwrap(), "package.json.18");
    }

    #[test]
    fn files_without_a_package_install_nothing() {
        assert!(!asks_for_packages("# torch==1.0\n\n   # more\n"));
        assert!(asks_for_packages("# one\nigraph==0.11.8\n"));
        let folder = TempFolder::create().unwrap();
        let path = folder.path().join("package.json");
        for (text, expected) in [
            (r#"{"name": ""}"#, false),
            (r#"{"dependencies": {}, "devDependencies": {"x": "1"}}"#, false),
            (r#"{"dependencies": {"x": "file:./x"}}"#, true),
        ] {
            files::write(&path, text.as_bytes(), Access::Everyone).unwrap();
            assert_eq!(has_dependencies(&path).unwrap(), expected, "{text}");
        }
        files::write(&path, b"{,}", Access::Everyone).unwrap();
        assert!(has_dependencies(&path).unwrap_err().to_string().contains("line 1"));
    }

    #[test]
    fn links_among_the_modules_become_copies() {
        let folder = TempFolder::create().unwrap();
        let put = |name: &str| files::write(&folder.path().join(name), b"x", Access::Everyone).unwrap();
        for name in ["local/index.js", "node_modules/real/index.js", "node_modules/@scope/real/index.js"] {
            put(name);
        }
        let modules = folder.path().join("node_modules");
        for link in ["local", "@scope/local"] {
            std::os::unix::fs::symlink(folder.path().join("local"), modules.join(link)).unwrap();
        }
        unlink_modules(&modules).unwrap();
        for name in ["local", "@scope/local", "real", "@scope/real"] {
            assert!(
                !modules.join(name).is_symlink() && modules.join(name).join("index.js").is_file(),
                "{name}"
            );
        }
    }
}
