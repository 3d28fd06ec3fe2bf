//! The clients of storage that functions import, put beside their code where they bring none of that name.
//!
//! They are `storage` and `nosql` with SeBS's methods, in each language on its standard library alone: a large SDK would
//! be part of what is measured, and would not install where no registry answers. What the two share is in modules whose
//! names begin with `_sebs_lite_`, so that no benchmark has one by chance.

use std::path::Path;

use crate::faas::Language;

/// A file of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wrapper {
    pub(super) name: &'static str,
    pub(super) content: &'static str,
}

const PYTHON: [Wrapper; 3] = [
    Wrapper { name: "storage.py", content: include_str!("wrappers/python/storage.py") },
    Wrapper { name: "nosql.py", content: include_str!("wrappers/python/nosql.py") },
    Wrapper { name: "_sebs_lite_http.py", content: include_str!("wrappers/python/_sebs_lite_http.py") },
];

const NODEJS: [Wrapper; 4] = [
    Wrapper { name: "storage.js", content: include_str!("wrappers/nodejs/storage.js") },
    Wrapper { name: "nosql.js", content: include_str!("wrappers/nodejs/nosql.js") },
    Wrapper { name: "_sebs_lite_http.js", content: include_str!("wrappers/nodejs/_sebs_lite_http.js") },
    Wrapper { name: "_sebs_lite_xml.js", content: include_str!("wrappers/nodejs/_sebs_lite_xml.js") },
];

/// The wrappers of `language`, whether a benchmark uses storage or not.
pub(super) fn wrappers(language: Language) -> &'static [Wrapper] {
    match language {
        Language::Python => &PYTHON,
        Language::Nodejs => &NODEJS,
    }
}

/// Does the code in `build` bring what a wrapper of that name would stand in the way of?
///
/// A module may also be a folder, which Node.js would no longer find beside a file of its name.
pub(super) fn brings(build: &Path, name: &str) -> bool {
    let folder = build.join(Path::new(name).with_extension(""));
    let is_module =
        ["__init__.py", "index.js", "package.json"].iter().any(|file| folder.join(file).is_file());
    is_module || build.join(name).exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{self, Access, TempFolder};

    #[test]
    fn a_module_of_the_benchmarks_own_is_known_as_file_and_as_folder() {
        let folder = TempFolder::create().unwrap();
        for path in ["storage.py", "nosql/index.js", "storage/data.csv"] {
            files::write(&folder.path().join(path), b"", Access::Everyone).unwrap();
        }
        assert!(brings(folder.path(), "storage.py") && brings(folder.path(), "nosql.js"));
        assert!(!brings(folder.path(), "storage.js") && !brings(folder.path(), "_sebs_lite_http.py"));
    }
}
