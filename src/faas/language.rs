//! Which language, version, variant and architecture a function is written for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A language that functions can be written in here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// CPython.
    Python,
    /// Node.js.
    Nodejs,
}

impl Language {
    /// All of them, in the order they are listed to people.
    pub const ALL: [Language; 2] = [Language::Python, Language::Nodejs];

    /// The name in configuration files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Language::Python => "python",
            Language::Nodejs => "nodejs",
        }
    }

    /// The versions that functions can be run on, oldest first, as far as an image can be had.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            Language::Python => &["3.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13"],
            Language::Nodejs => &["14", "16", "18", "20", "22"],
        }
    }

    /// Is that a version of those that functions can be run on, or a newer one?
    pub fn is_recent_enough(self, version: &str) -> bool {
        let numbers =
            |text: &str| -> Vec<u32> { text.split('.').map(|part| part.parse().unwrap_or(0)).collect() };
        self.versions().first().is_some_and(|oldest| numbers(version) >= numbers(oldest))
    }

    /// The file that holds the handler, in the language's folder of a benchmark.
    pub fn handler_file(self) -> &'static str {
        match self {
            Language::Python => "function.py",
            Language::Nodejs => "function.js",
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Language {
    type Err = Error;

    fn from_str(text: &str) -> Result<Language, Error> {
        Language::ALL.into_iter().find(|language| language.name() == text).ok_or_else(|| {
            Error::usage(format!("language `{text}` is not supported: it must be `python` or `nodejs`"))
        })
    }
}

/// A processor architecture, by SeBS's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// x86-64.
    X64,
    /// AArch64.
    Arm64,
}

impl Architecture {
    /// The name in configuration files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::X64 => "x64",
            Architecture::Arm64 => "arm64",
        }
    }

    /// As registries and engines name it.
    pub fn platform(self) -> &'static str {
        match self {
            Architecture::X64 => "linux/amd64",
            Architecture::Arm64 => "linux/arm64",
        }
    }

    /// The same where it is not this machine's own, else empty: older engines take the word only with experiments
    /// allowed.
    pub(crate) fn foreign_platform(self) -> &'static str {
        if Architecture::of_host() == Some(self) { "" } else { self.platform() }
    }

    /// The architecture of the machine this runs on, where it is one that functions can have.
    pub fn of_host() -> Option<Architecture> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Architecture::X64),
            "aarch64" => Some(Architecture::Arm64),
            _ => None,
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Architecture {
    type Err = Error;

    fn from_str(text: &str) -> Result<Architecture, Error> {
        match text {
            "x64" => Ok(Architecture::X64),
            "arm64" => Ok(Architecture::Arm64),
            _ => {
                Err(Error::usage(format!("architecture `{text}` is not known: it must be `x64` or `arm64`")))
            }
        }
    }
}

/// What a function runs on: a language, its version, and which variant of the benchmark's code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// The language.
    pub language: Language,
    /// Its version: `3.11` for Python, `20` for Node.js.
    pub version: String,
    /// `default`, or a folder's name below the benchmark's language folder.
    #[serde(rename = "language-variant", default = "default_variant")]
    pub variant: String,
}

fn default_variant() -> String {
    "default".to_string()
}
