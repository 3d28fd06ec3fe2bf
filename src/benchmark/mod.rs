//! Benchmarks: found by name, built into code packages, and given their inputs.

mod build;
mod bundled;
mod command;
mod config;
mod data;
mod dependencies;
mod find;
mod hash;
mod input;
mod installer;
mod layout;
mod stored;
mod worker;
mod wrappers;

use std::path::{Path, PathBuf};

pub use build::{BuildRequest, KnownPackage};
pub use config::{BenchmarkConfig, LanguageSupport};
pub use data::{Allocated, Needs, ResultStorage, allocate, prepare_input};
pub use find::{Listing, Search, Source};
pub use input::{
    InputCallbacks, InputProcess, InputPython, InputRequest, NoStorage, NosqlItem, TableKeys, Verdict,
};

pub(crate) use stored::{StoredPackage, is_package_held};

use crate::error::{Error, Result};
use crate::faas::Language;
use crate::files;

/// A folder with code, `config.json` and `input.py`.
#[derive(Clone, Debug)]
pub struct Benchmark {
    /// The folder's name: `110.dynamic-html`.
    pub name: String,
    /// The folder, absolute.
    pub path: PathBuf,
    /// The folder with its input data, absolute; `None`: there is none.
    pub data: Option<PathBuf>,
    /// The folder that `data` was looked for below, absolute; `None`: there is none.
    pub data_root: Option<PathBuf>,
    /// What its `config.json` says, or what holds where there is none.
    pub config: BenchmarkConfig,
}

impl Benchmark {
    /// The folder with the code for `language`: the one of that name, or in a folder that has its handler at the top,
    /// that folder itself.
    pub fn code_folder(&self, language: Language) -> PathBuf {
        let folder = self.path.join(language.name());
        if folder.is_dir() { folder } else { self.path.clone() }
    }

    /// Path of its `input.py`; `None`: it has none, and its input comes from the caller.
    pub fn input_script(&self) -> Option<PathBuf> {
        let path = self.path.join("input.py");
        path.is_file().then_some(path)
    }

    /// May it need storage, as far as a look at its `input.py` tells? Only that script's process knows.
    ///
    /// # Errors
    /// The script cannot be read.
    pub fn may_need_storage(&self) -> Result<bool> {
        let Some(script) = self.input_script() else { return Ok(false) };
        let text = String::from_utf8_lossy(&files::read_bytes(&script)?).into_owned();
        Ok(["buckets_count", "allocate_nosql"].iter().any(|name| text.contains(name)))
    }

    /// Says whether the benchmark is there for `language` in `variant`, as its `config.json` has it.
    ///
    /// # Errors
    /// It is not; those that it is there for are named.
    pub fn check_support(&self, language: Language, variant: &str) -> Result<()> {
        let Some(support) = self.config.support(language) else {
            let names: Vec<_> = self.config.languages.iter().map(|support| support.name.as_str()).collect();
            return Err(Error::usage(format!(
                "benchmark `{}` is not written in {language}, but in: {}",
                self.name,
                names.join(", ")
            )));
        };
        // The default code is there whether or not the list of variants repeats it.
        if variant == "default" || support.variants.iter().any(|known| known == variant) {
            return Ok(());
        }
        Err(Error::usage(format!(
            "benchmark `{}` has no variant `{variant}` for {language}; it has: {}",
            self.name,
            support.variants.join(", ")
        )))
    }
}

/// The languages whose handler stands at the top of `folder` itself.
fn languages_at_top(folder: &Path) -> Vec<Language> {
    Language::ALL.into_iter().filter(|language| folder.join(language.handler_file()).is_file()).collect()
}
