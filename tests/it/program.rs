//! Runs the program `sebs-lite` itself, each time with a cache and an output folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// A folder for one test, removed when dropped, with a cache and an output folder in it.
pub(crate) struct Place {
    root: PathBuf,
}

impl Place {
    pub(crate) fn create(name: &str) -> Place {
        let root = std::env::temp_dir().join(format!("sebs-lite-test-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(&root).unwrap();
        Place { root }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// Writes a file below the folder, and the folders above it.
    pub(crate) fn write(&self, below: &str, content: &str) -> PathBuf {
        let path = self.path(below);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The program with this place's cache, in this place's folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sebs-lite"));
        command
            .args(arguments)
            .current_dir(&self.root)
            .env("SEBS_LITE_CACHE", self.path("cache"))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        Ended::from(self.command(arguments).output().unwrap())
    }

    /// Starts the program with its output captured.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The result that the last run left.
    pub(crate) fn experiments(&self) -> Value {
        read_json(&self.path("experiments.json"))
    }

    /// The recorded invocations of the only function, in the order they were made.
    pub(crate) fn invocations(&self) -> Vec<Value> {
        let experiments = self.experiments();
        let mut functions = experiments["_invocations"].as_object().unwrap().values();
        let mut invocations: Vec<Value> = functions
            .next()
            .map(|map| map.as_object().unwrap().values().cloned().collect())
            .unwrap_or_default();
        assert!(functions.next().is_none());
        invocations
            .sort_by_key(|invocation| invocation["times"]["client_begin"].as_str().unwrap().to_string());
        invocations
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

/// How a run of the program ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Ended {
        Ended {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ended {
    /// Fails unless the program ended with `code` and all of `texts` stand in what it wrote.
    #[track_caller]
    pub(crate) fn expect(self, code: i32, texts: &[&str]) -> Ended {
        let all = format!("exit {:?}\n--- stdout\n{}--- stderr\n{}", self.code, self.stdout, self.stderr);
        assert_eq!(self.code, Some(code), "{all}");
        for text in texts {
            assert!(all.contains(text), "`{text}` is not in:\n{all}");
        }
        self
    }
}

pub(crate) fn read_json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A benchmark of one file, in a folder of its own.
pub(crate) fn function(place: &Place, name: &str, code: &str) -> String {
    place.write(&format!("{name}/python/function.py"), code);
    let config = r#"{"timeout": 20, "memory": 128, "languages": ["python"], "modules": []}"#;
    place.write(&format!("{name}/config.json"), config);
    place.path(name).display().to_string()
}

/// The words for one invocation of a function under a name that no other test uses.
pub(crate) fn words<'a>(benchmark: &'a str, name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut words = vec!["benchmark", "invoke", benchmark, "test", "--function-name", name];
    words.extend(more);
    words
}

pub(crate) fn error_of(invocation: &Value) -> &str {
    invocation["invocation"]["error"].as_str().unwrap_or_default()
}
