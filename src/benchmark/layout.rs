//! Lays a benchmark's code out: which files go in, the variant over them, the build scripts, the package's folders.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Benchmark;
use super::command;
use super::wrappers::{self, wrappers};
use crate::cache::CACHE_TAG;
use crate::cancel::Cancel;
use crate::error::{Context, Error, Kind, Result};
use crate::faas::{Architecture, Language, Runtime};
use crate::files;

/// How a script ends that finds something missing on this machine (`EX_UNAVAILABLE` of sysexits.h).
const UNAVAILABLE: &str = "exit status: 69";

/// Folders below each other; more means a link that leads back up.
const MAX_DEPTH: usize = 40;
/// Languages that SeBS knows; folders of these names hold code that is not the chosen language's.
const LANGUAGE_FOLDERS: [&str; 4] = ["python", "nodejs", "java", "cpp"];
/// Scripts that build the package and are no part of it.
const SCRIPTS: [&str; 2] = ["init.sh", "package.sh"];

/// A file that goes into a package or into its build; what a link leads to counts as the link's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SourceFile {
    /// Relative to the folder that was collected.
    pub(super) path: PathBuf,
    /// Where it is.
    pub(super) file: PathBuf,
    /// May somebody execute it?
    pub(super) is_executable: bool,
}

/// Every file below `folder`, sorted, without what tools leave there and without folders tagged as caches.
///
/// # Errors
/// A folder cannot be read, or a link leads in a circle.
pub(super) fn collect(folder: &Path) -> Result<Vec<SourceFile>> {
    let mut sources = Vec::new();
    collect_into(folder, Path::new(""), MAX_DEPTH, &mut sources)?;
    Ok(sources)
}

fn collect_into(root: &Path, below: &Path, depth: usize, sources: &mut Vec<SourceFile>) -> Result<()> {
    let folder = root.join(below);
    if depth == 0 {
        return Err(Error::new(format!("`{}` is too deep: does a link lead in a circle?", folder.display())));
    }
    for file in files::list(&folder)? {
        let name = file.file_name().unwrap_or_default();
        if name == "__pycache__" || name == ".git" || name == ".DS_Store" {
            continue;
        }
        let path = below.join(name);
        let metadata = fs::metadata(&file).context(|| format!("failed to look at `{}`", file.display()))?;
        if metadata.is_dir() && file.join(CACHE_TAG).is_file() {
            continue;
        }
        if metadata.is_dir() {
            collect_into(root, &path, depth - 1, sources)?;
        } else if metadata.is_file() {
            let is_executable = metadata.permissions().mode() & 0o111 != 0;
            sources.push(SourceFile { path, file, is_executable });
        }
    }
    Ok(())
}

/// What a package is laid out from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<'a> {
    pub(super) benchmark: &'a Benchmark,
    pub(super) runtime: &'a Runtime,
    pub(super) architecture: Architecture,
    pub(super) verbose: bool,
}

impl Plan<'_> {
    /// Everything that goes into the build, by path below the benchmark's folder.
    ///
    /// What stands beside the language's folder is only reached by a build script, and counts where there is one.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn sources(&self) -> Result<Vec<SourceFile>> {
        let benchmark = self.benchmark;
        let code = benchmark.code_folder(self.runtime.language);
        let below = code.strip_prefix(&benchmark.path).unwrap_or(Path::new(""));
        let has_script = [&benchmark.path, &code].iter().any(|folder| folder.join("init.sh").is_file());
        let mut sources = collect(&benchmark.path)?;
        sources.retain(|source| match source.path.strip_prefix(below) {
            Ok(path) if below != Path::new("") => !self.is_other_variant(path),
            Ok(path) => self.is_code_at_top(path) || is_script(path),
            Err(_) => has_script && self.is_beside_code(&source.path),
        });
        Ok(sources)
    }

    /// Copies the code into the empty folder `build`, the variant over it, and runs the build scripts.
    ///
    /// # Errors
    /// The handler is not there, a patch does not fit, or a script failed; its last lines are shown.
    pub(super) fn lay_out(&self, build: &Path, cancel: &Cancel) -> Result<()> {
        let code = self.benchmark.code_folder(self.runtime.language);
        let is_at_top = code == self.benchmark.path;
        files::create_folder(build)?;
        for source in collect(&code)? {
            let is_wanted = !is_at_top || self.is_code_at_top(&source.path);
            if is_wanted && !is_script(&source.path) && !self.is_any_variant(&source.path) {
                copy(&source, build)?;
            }
        }
        if let Some(variant) = self.variant_folder() {
            overlay(&variant, build, cancel)?;
        }
        let handler = self.runtime.language.handler_file();
        if !build.join(handler).is_file() {
            return Err(Error::with_kind(
                Kind::NotFound,
                format!(
                    "benchmark `{}` has no `{handler}` in `{}`",
                    self.benchmark.name,
                    self.variant_folder().unwrap_or(code).display()
                ),
            ));
        }
        if !is_at_top {
            self.run_init(&self.benchmark.path.join("init.sh"), build, cancel)?;
        }
        if let Some(script) = self.script("init.sh") {
            self.run_init(&script, build, cancel)?;
        }
        for wrapper in wrappers(self.runtime.language) {
            if !wrappers::brings(build, wrapper.name) {
                files::write(&build.join(wrapper.name), wrapper.content.as_bytes(), files::Access::Everyone)?;
            }
        }
        Ok(())
    }

    /// The build script of that name for the language, the variant's own before the common one.
    pub(super) fn script(&self, name: &str) -> Option<PathBuf> {
        let code = self.benchmark.code_folder(self.runtime.language);
        self.variant_folder()
            .into_iter()
            .chain([code])
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
    }

    fn variant_folder(&self) -> Option<PathBuf> {
        let variant = &self.runtime.variant;
        (variant != "default").then(|| self.benchmark.code_folder(self.runtime.language).join(variant))
    }

    fn run_init(&self, script: &Path, build: &Path, cancel: &Cancel) -> Result<()> {
        if !script.is_file() {
            return Ok(());
        }
        let mut bash = Command::new("bash");
        bash.arg(script)
            .arg(build)
            .args([if self.verbose { "true" } else { "false" }, self.architecture.name()])
            .current_dir(script.parent().unwrap_or(build));
        let verbose = self.verbose;
        let ended = command::run(bash, cancel, |line| log_line(verbose, "init.sh", line))?;
        let lacks_something = ended.status == UNAVAILABLE;
        let checked = ended.check(&format!("`{}`", script.display())).map(drop);
        checked.map_err(|error| if lacks_something { error.unavailable() } else { error })
    }

    /// Is the file, given below the language's folder, in the folder of any variant?
    fn is_any_variant(&self, path: &Path) -> bool {
        let Some(support) = self.benchmark.config.support(self.runtime.language) else { return false };
        let Some(first) = path.iter().next() else { return false };
        path.iter().count() > 1
            && support.variants.iter().any(|variant| variant != "default" && first == variant.as_str())
    }

    /// Is it in the folder of a variant that was not chosen?
    fn is_other_variant(&self, path: &Path) -> bool {
        self.is_any_variant(path) && !path.starts_with(&self.runtime.variant)
    }

    /// In a folder with its handler at the top: is the file code, and not what describes the benchmark?
    fn is_code_at_top(&self, path: &Path) -> bool {
        let is_description = ["config.json", "input.py"].iter().any(|name| path == Path::new(name));
        !is_description
            && !is_left_by_run(path)
            && !is_script(path)
            && !is_in_language_folder(path)
            && !self.is_other_variant(path)
    }

    /// Could a build script want this file, which is not below the language's folder?
    fn is_beside_code(&self, path: &Path) -> bool {
        let is_description =
            ["config.json", "input.py", "README.md"].iter().any(|name| path == Path::new(name));
        !is_description && !is_in_language_folder(path)
    }
}

/// Shows one line of a tool: as a step of the job where the user asked for it.
pub(super) fn log_line(verbose: bool, tool: &str, line: &str) {
    let level = if verbose { log::Level::Info } else { log::Level::Debug };
    log::log!(level, "{tool}: {line}");
}

/// Is it what a run in the folder of its own function leaves there?
fn is_left_by_run(path: &Path) -> bool {
    let top = path.iter().next().unwrap_or_default().to_string_lossy();
    top == "logs" || (top.starts_with("experiments") && top.ends_with(".json"))
}

fn is_script(path: &Path) -> bool {
    SCRIPTS.iter().any(|name| path == Path::new(name))
}

fn is_in_language_folder(path: &Path) -> bool {
    path.iter().count() > 1 && LANGUAGE_FOLDERS.iter().any(|name| path.starts_with(name))
}

fn copy(source: &SourceFile, build: &Path) -> Result<()> {
    let target = build.join(&source.path);
    if let Some(folder) = target.parent() {
        files::create_folder(folder)?;
    }
    files::copy_file(&source.file, &target)?;
    // Whoever runs the function may be another user than whoever wrote it.
    let mode = if source.is_executable { 0o755 } else { 0o644 };
    fs::set_permissions(&target, fs::Permissions::from_mode(mode))
        .context(|| format!("failed to set the mode of `{}`", target.display()))
}

/// Lays the files of a variant's folder over the code in `build`, or applies the `patch.diff` that stands there.
fn overlay(variant: &Path, build: &Path, cancel: &Cancel) -> Result<()> {
    let patch = variant.join("patch.diff");
    if patch.is_file() {
        let mut tool = Command::new("patch");
        tool.args(["-p1", "--batch", "--forward", "--no-backup-if-mismatch", "--input"]).arg(&patch);
        tool.current_dir(build);
        command::run(tool, cancel, |_| ())
            .map_err(|error| match error.is_not_found() {
                true => error.context("the program `patch` is needed, and is not installed on this machine"),
                false => error,
            })
            .and_then(|outcome| outcome.check("`patch`"))
            .map_err(|error| error.context(format!("failed to apply `{}`", patch.display())))?;
    }
    for source in collect(variant)? {
        if !is_script(&source.path) && source.path != Path::new("patch.diff") {
            copy(&source, build)?;
        }
    }
    Ok(())
}

/// Moves what is the function's own into `function/`; the chosen requirement file and the dependencies stay above it.
///
/// # Errors
/// A file cannot be moved.
pub(super) fn arrange(build: &Path, language: Language, requirements: Option<&Path>) -> Result<()> {
    let kept: &[&str] = match language {
        Language::Python => &["requirements.txt", ".python_packages"],
        Language::Nodejs => &["package.json", "package-lock.json", "node_modules"],
    };
    let plain = kept[0];
    if let Some(chosen) = requirements.filter(|chosen| *chosen != build.join(plain)) {
        files::copy_file(chosen, &build.join(plain))?;
    }
    // A folder of the benchmark's own may be called `function` as well.
    let collecting = build.join(".function");
    let entries = files::list(build)?;
    files::create_folder(&collecting)?;
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_for_other_version = name.strip_prefix(plain).is_some_and(|rest| rest.starts_with('.'));
        if is_for_other_version {
            fs::remove_file(&path).context(|| format!("failed to remove `{}`", path.display()))?;
        } else if !kept.contains(&name.as_ref()) {
            let target = collecting.join(name.as_ref());
            fs::rename(&path, &target).context(|| format!("failed to move `{}`", path.display()))?;
        }
    }
    let function = build.join("function");
    fs::rename(&collecting, &function).context(|| format!("failed to move `{}`", collecting.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::benchmark::BenchmarkConfig;
    use crate::files::{Access, TempFolder};

    /// What a function in Python finds beside it, whether it uses storage or not.
    const WRAPPERS: [&str; 3] = ["_sebs_lite_http.py", "nosql.py", "storage.py"];

    fn benchmark(folder: &Path, files_there: &[(&str, &str)], variants: &str) -> Benchmark {
        for (path, content) in files_there {
            files::write(&folder.join(path), content.as_bytes(), Access::Everyone).unwrap();
        }
        let config = format!(
            r#"{{"timeout": 1, "memory": 1, "languages": [{{"language": "python", "variants": {variants}}}]}}"#
        );
        let config = BenchmarkConfig::parse(&config, Path::new("config.json")).unwrap();
        Benchmark { name: "x".to_string(), path: folder.to_path_buf(), data: None, data_root: None, config }
    }

    fn python(variant: &str) -> Runtime {
        Runtime { language: Language::Python, version: "3.11".to_string(), variant: variant.to_string() }
    }

    fn laid_out(benchmark: &Benchmark, variant: &str, build: &Path) -> Result<Vec<String>> {
        let runtime = python(variant);
        let plan = Plan { benchmark, runtime: &runtime, architecture: Architecture::X64, verbose: true };
        plan.lay_out(build, &Cancel::new())?;
        Ok(collect(build)?.into_iter().map(|source| source.path.to_string_lossy().into_owned()).collect())
    }

    #[test]
    fn code_templates_variants_and_scripts_come_together() {
        let folder = TempFolder::create().unwrap();
        let home = folder.path().join("x");
        let files_there = [
            ("python/function.py", "one\ntwo\n"),
            ("python/helper.py", "default"),
            ("python/templates/a.html", ""),
            ("python/package.sh", "exit 1"),
            ("python/fast/helper.py", "fast"),
            (
                "python/patched/patch.diff",
                "--- a/function.py\n+++ b/function.py\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n",
            ),
            (
                "python/broken/patch.diff",
                "--- a/function.py\n+++ b/function.py\n@@ -1,2 +1,2 @@\n x\n-y\n+z\n",
            ),
            ("python/init.sh", "cp ../resources/mark \"$1\"; echo \"$2 $3\" > \"$1/arguments\""),
            ("init.sh", "echo first > \"$1/arguments\"; touch \"$1/top\""),
            ("resources/mark", ""),
            ("nodejs/function.js", ""),
            ("input.py", ""),
        ];
        let benchmark = benchmark(&home, &files_there, r#"["default", "fast", "patched", "broken"]"#);
        let build = |name: &str| folder.path().join(name);
        let default = laid_out(&benchmark, "default", &build("1")).unwrap();
        let mut expected = vec!["arguments", "function.py", "helper.py", "mark", "templates/a.html", "top"];
        expected.extend(WRAPPERS);
        expected.sort_unstable();
        assert_eq!(default, expected);
        assert_eq!(files::read_text(&build("1/arguments")).unwrap(), "true x64\n");
        assert_eq!(laid_out(&benchmark, "fast", &build("2")).unwrap(), expected);
        assert_eq!(files::read_text(&build("2/helper.py")).unwrap(), "fast");
        assert_eq!(laid_out(&benchmark, "patched", &build("3")).unwrap(), expected);
        assert_eq!(files::read_text(&build("3/function.py")).unwrap(), "one\n2\n");
        let error = laid_out(&benchmark, "broken", &build("4")).unwrap_err().to_string();
        assert!(error.contains("broken/patch.diff") && error.contains("FAILED"), "{error}");

        let runtime = python("fast");
        let plan = Plan {
            benchmark: &benchmark,
            runtime: &runtime,
            architecture: Architecture::X64,
            verbose: false,
        };
        let paths: Vec<_> = plan.sources().unwrap().into_iter().map(|source| source.path).collect();
        assert!(paths.contains(&"resources/mark".into()) && paths.contains(&"python/fast/helper.py".into()));
        for other in ["python/patched/patch.diff", "nodejs/function.js", "input.py"] {
            assert!(!paths.contains(&other.into()), "{other}");
        }
    }

    #[test]
    fn a_failing_script_and_a_missing_handler_are_errors() {
        let folder = TempFolder::create().unwrap();
        let home = folder.path().join("x");
        let failing = [("python/function.py", ""), ("python/init.sh", "echo no luck; exit 4")];
        let failing = benchmark(&home, &failing, "[]");
        let error = laid_out(&failing, "default", &folder.path().join("1")).unwrap_err().to_string();
        assert!(error.contains("init.sh") && error.contains("exit status: 4\n    no luck"), "{error}");
        let empty = benchmark(&folder.path().join("y"), &[("python/other.py", "")], "[]");
        let error = laid_out(&empty, "default", &folder.path().join("2")).unwrap_err();
        assert!(error.is_not_found() && error.to_string().contains("no `function.py`"), "{error}");
    }

    #[test]
    fn a_handler_at_the_top_leaves_the_description_behind() {
        let folder = TempFolder::create().unwrap();
        let home = folder.path().join("x");
        let benchmark = benchmark(
            &home,
            &[("function.py", ""), ("data/a", ""), ("input.py", ""), ("config.json", "")],
            "[]",
        );
        assert_eq!(
            laid_out(&benchmark, "default", &folder.path().join("1")).unwrap(),
            [WRAPPERS[0], "data/a", "function.py", WRAPPERS[1], WRAPPERS[2]]
        );
    }

    #[test]
    fn a_wrapper_of_the_benchmarks_own_is_kept() {
        let folder = TempFolder::create().unwrap();
        let brought = [("python/function.py", ""), ("python/storage.py", "theirs")];
        let benchmark = benchmark(&folder.path().join("x"), &brought, "[]");
        let build = folder.path().join("1");
        let paths = laid_out(&benchmark, "default", &build).unwrap();
        assert_eq!(paths, ["_sebs_lite_http.py", "function.py", "nosql.py", "storage.py"]);
        assert_eq!(files::read_text(&build.join("storage.py")).unwrap(), "theirs");
        assert!(files::read_text(&build.join("nosql.py")).unwrap().contains("_sebs_lite_http"));
    }

    #[test]
    fn the_function_moves_below_and_the_requirements_stay() {
        let folder = TempFolder::create().unwrap();
        for path in [
            "function.py",
            "function/inner.py",
            "templates/a",
            "requirements.txt",
            "requirements.txt.3.11",
            "requirements.txt.3.7",
            ".python_packages/lib/site-packages/m.py",
        ] {
            files::write(&folder.path().join(path), path.as_bytes(), Access::Everyone).unwrap();
        }
        arrange(folder.path(), Language::Python, Some(&folder.path().join("requirements.txt.3.11"))).unwrap();
        let paths: Vec<_> = collect(folder.path())
            .unwrap()
            .into_iter()
            .map(|file| file.path.to_string_lossy().into_owned())
            .collect();
        let expected = [
            ".python_packages/lib/site-packages/m.py",
            "function/function/inner.py",
            "function/function.py",
            "function/templates/a",
            "requirements.txt",
        ];
        assert_eq!(paths, expected);
        assert_eq!(
            files::read_text(&folder.path().join("requirements.txt")).unwrap(),
            "requirements.txt.3.11"
        );
    }
}
