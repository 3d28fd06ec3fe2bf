//! The benchmarks that the binary carries: listed from its table, laid into a folder when one is used.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::config::BenchmarkConfig;
use crate::error::Result;
use crate::files::{self, Access};
use crate::suite;

/// A benchmark of the bundled suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bundled {
    pub(super) group: &'static str,
    pub(super) name: &'static str,
}

/// All of them, by path.
pub(super) fn all() -> Vec<Bundled> {
    let mut all = Vec::new();
    for file in suite::FILES {
        let mut parts = file.path.split('/');
        if let (Some(group), Some(name), Some("config.json")) = (parts.next(), parts.next(), parts.next()) {
            all.push(Bundled { group, name });
        }
    }
    all
}

impl Bundled {
    /// Its files, each with its path below the benchmark's folder.
    fn files(self) -> impl Iterator<Item = (&'static str, &'static [u8])> {
        suite::FILES.iter().filter_map(move |file| {
            let below = file.path.strip_prefix(self.group)?.strip_prefix('/')?.strip_prefix(self.name)?;
            Some((below.strip_prefix('/')?, file.content))
        })
    }

    /// What its `config.json` says.
    pub(super) fn config(self) -> Result<BenchmarkConfig> {
        let (_, content) = self
            .files()
            .find(|(path, _)| *path == "config.json")
            .expect("`all` lists what has a config.json");
        let shown = format!("bundled:{}/{}/config.json", self.group, self.name);
        BenchmarkConfig::parse(&String::from_utf8_lossy(content), Path::new(&shown))
    }

    /// Lays its files below `folder`, where they are not there yet, and says where.
    ///
    /// The place is named after the content, so that another version of this crate does not change files under the
    /// feet of this one, and nothing that an older one had is left among them.
    pub(super) fn extract(self, folder: &Path) -> Result<PathBuf> {
        let mut hash = Sha256::new();
        for (path, content) in self.files() {
            for part in [path.as_bytes(), content] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
        let stamp = crate::units::hexadecimal(&hash.finalize());
        let target = folder.join(&stamp[..12]).join(self.group).join(self.name);
        for (path, content) in self.files() {
            let file = target.join(path);
            if std::fs::read(&file).ok().as_deref() != Some(content) {
                files::write(&file, content, Access::Everyone)?;
            }
        }
        files::canonical(&target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::TempFolder;

    #[test]
    fn every_bundled_benchmark_parses_and_is_laid_out_once() {
        let folder = TempFolder::create().unwrap();
        let names: Vec<_> = all().iter().map(|bundled| bundled.name).collect();
        let expected = [
            "010.sleep",
            "051.memory-staircase",
            "110.dynamic-html",
            "120.uploader",
            "130.crud-api",
            "210.thumbnailer",
            "220.video-processing",
            "311.compression",
            "501.graph-pagerank",
        ];
        assert_eq!(names, expected);
        for bundled in all() {
            let config = bundled.config().unwrap();
            let path = bundled.extract(folder.path()).unwrap();
            assert_eq!(path, bundled.extract(folder.path()).unwrap());
            for language in config.supported_languages() {
                assert!(path.join(language.name()).join(language.handler_file()).is_file());
            }
            assert!(path.join("input.py").is_file());
        }
    }
}
