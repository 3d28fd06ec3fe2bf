//! Where benchmarks are: by path, by name below the given roots, and in the bundled suite.

use std::path::{Path, PathBuf};

use super::bundled::{self, Bundled};
use super::config::BenchmarkConfig;
use super::{Benchmark, languages_at_top};
use crate::error::{Error, Kind, Result};
use crate::files;

/// Deeper than this below a root no benchmark is looked for: a link that leads back up would never end.
const MAX_DEPTH: usize = 8;

/// Where benchmarks and their data are looked for.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// Folders with benchmarks anywhere below, the first before the second; the bundled suite comes after them.
    pub roots: &'a [PathBuf],
    /// Folder with input data, each benchmark's in a folder of the benchmark's name anywhere below; `None`: the
    /// `benchmarks-data` beside the root.
    pub data: Option<&'a Path>,
    /// Where a bundled benchmark is laid out when it is used.
    pub extract_to: &'a Path,
}

/// One benchmark in a list.
#[derive(Debug)]
pub struct Listing {
    /// The folder's name: `110.dynamic-html`.
    pub name: String,
    /// Where it is.
    pub source: Source,
    /// What its `config.json` says, or why that cannot be read.
    pub config: Result<BenchmarkConfig>,
}

/// Where a listed benchmark is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In that folder, below the root `root`.
    Folder {
        /// The benchmark's folder.
        path: PathBuf,
        /// The root it was found below.
        root: PathBuf,
    },
    /// In this program.
    Bundled,
}

impl Benchmark {
    /// The benchmark that `name` stands for: a path (anything with a `/`, or a folder that is there), a folder's name
    /// below one of the roots, a bundled benchmark's name, or the number that a single one begins with (`110`).
    ///
    /// # Errors
    /// There is none (the nearest names are shown), there are several, or its `config.json` is at fault.
    pub fn find(name: &str, search: &Search<'_>) -> Result<Benchmark> {
        if name.contains('/') {
            // They are of no use to a path; one that is not there is a slip all the same.
            search.roots.iter().try_for_each(|root| files::list(root).map(drop))?;
            return Benchmark::at(Path::new(name), None, search.data);
        }
        let listings = places(search.roots)?;
        let exact = listings.iter().find(|place| place.name == name);
        if let Some(place) = exact {
            return place.open(search);
        }
        if is_benchmark(Path::new(name)) || (name.starts_with('.') && Path::new(name).is_dir()) {
            return Benchmark::at(Path::new(name), None, search.data);
        }
        let mut by_id: Vec<_> = listings.iter().filter(|place| id(&place.name) == name).collect();
        // The same name below two roots is the same benchmark, and the first root's is taken.
        let mut seen = Vec::new();
        by_id.retain(|place| {
            let is_new = !seen.contains(&place.name);
            seen.push(place.name.clone());
            is_new
        });
        match by_id.as_slice() {
            [place] => place.open(search),
            [] => Err(unknown(name, &listings, search.roots)),
            several => {
                let names: Vec<_> = several.iter().map(|place| format!("`{}`", place.name)).collect();
                Err(Error::usage(format!("benchmark `{name}` may be any of {}", names.join(", "))))
            }
        }
    }

    /// All benchmarks below the roots, root by root, then the bundled ones; a name that was listed is not repeated.
    ///
    /// # Errors
    /// A root cannot be read. A benchmark whose `config.json` is at fault is listed, with the reason.
    pub fn list(roots: &[PathBuf]) -> Result<Vec<Listing>> {
        let mut listings: Vec<Listing> = Vec::new();
        for place in places(roots)? {
            if listings.iter().any(|listing| listing.name == place.name) {
                continue;
            }
            let (source, config) = match &place.found {
                Found::Folder { path, root } => {
                    (Source::Folder { path: path.clone(), root: root.clone() }, read_config(path))
                }
                Found::Bundled(bundled) => (Source::Bundled, bundled.config()),
            };
            listings.push(Listing { name: place.name, source, config });
        }
        Ok(listings)
    }

    /// The benchmark in the folder `path`; `root` is where it was looked for below.
    fn at(path: &Path, root: Option<&Path>, data: Option<&Path>) -> Result<Benchmark> {
        let about = || format!("failed to open benchmark `{}`", path.display());
        let path = files::canonical(path).map_err(|error| error.context(about()))?;
        let config = read_config(&path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let data_root = match data {
            Some(folder) => Some(files::canonical(folder)?),
            None => {
                // A benchmark given by its path stands in a group below its root, or directly in it.
                let roots = match root {
                    Some(root) => vec![files::canonical(root)?],
                    None => path.ancestors().skip(1).take(2).map(Path::to_path_buf).collect(),
                };
                let beside = roots.iter().filter_map(|root| Some(root.parent()?.join("benchmarks-data")));
                beside.into_iter().find(|folder| folder.is_dir())
            }
        };
        let data = data_root.as_deref().map(|folder| folder_named(&name, folder)).transpose()?.flatten();
        Ok(Benchmark { name, path, data, data_root, config })
    }
}

/// A benchmark that was found and not yet opened.
struct Place {
    name: String,
    found: Found,
}

enum Found {
    Folder { path: PathBuf, root: PathBuf },
    Bundled(Bundled),
}

impl Place {
    fn open(&self, search: &Search<'_>) -> Result<Benchmark> {
        match &self.found {
            Found::Folder { path, root } => Benchmark::at(path, Some(root), search.data),
            Found::Bundled(bundled) => {
                let path = bundled.extract(search.extract_to)?;
                let data_root = search.data.map(files::canonical).transpose()?;
                let data = data_root
                    .as_deref()
                    .map(|folder| folder_named(bundled.name, folder))
                    .transpose()?
                    .flatten();
                Ok(Benchmark {
                    name: bundled.name.to_string(),
                    path,
                    data,
                    data_root,
                    config: bundled.config()?,
                })
            }
        }
    }
}

fn places(roots: &[PathBuf]) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    for root in roots {
        let mut folders = Vec::new();
        find_below(root, MAX_DEPTH, &mut |path| {
            is_benchmark(path).then(|| folders.push(path.to_path_buf())).is_some()
        })?;
        places.extend(folders.into_iter().map(|path| {
            let shown = files::canonical(&path).unwrap_or_else(|_| path.clone());
            let name = shown.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Place { name, found: Found::Folder { path, root: root.clone() } }
        }));
    }
    places.extend(
        bundled::all()
            .into_iter()
            .map(|bundled| Place { name: bundled.name.to_string(), found: Found::Bundled(bundled) }),
    );
    Ok(places)
}

/// Calls `visit` for `folder` and each folder below it, sorted; where it answers yes, nothing below is looked at.
fn find_below(folder: &Path, depth: usize, visit: &mut dyn FnMut(&Path) -> bool) -> Result<()> {
    if visit(folder) || depth == 0 {
        return Ok(());
    }
    for path in files::list(folder)? {
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !is_hidden && path.is_dir() {
            find_below(&path, depth - 1, visit)?;
        }
    }
    Ok(())
}

/// The first folder of that name anywhere below `root`.
fn folder_named(name: &str, root: &Path) -> Result<Option<PathBuf>> {
    let mut found = None;
    find_below(root, MAX_DEPTH, &mut |path| {
        if found.is_none() && path.file_name().is_some_and(|last| last == name) {
            found = Some(path.to_path_buf());
        }
        found.is_some()
    })?;
    Ok(found)
}

fn is_benchmark(folder: &Path) -> bool {
    folder.join("config.json").is_file()
        || !languages_at_top(folder).is_empty() && !in_language_folder(folder)
}

/// The folder `python` of a benchmark has a handler at its top as well, but is no benchmark.
fn in_language_folder(folder: &Path) -> bool {
    folder.parent().is_some_and(|above| above.join("config.json").is_file())
}

fn read_config(folder: &Path) -> Result<BenchmarkConfig> {
    let path = folder.join("config.json");
    if path.is_file() {
        return BenchmarkConfig::read(&path);
    }
    let languages = languages_at_top(folder);
    if languages.is_empty() {
        return Err(Error::with_kind(
            Kind::Usage,
            format!(
                "`{}` is not a benchmark: it has neither a `config.json` nor a `function.py` or `function.js`",
                folder.display()
            ),
        ));
    }
    Ok(BenchmarkConfig::without_file(&languages))
}

/// What a benchmark's name begins with, up to the dot: `110`.
fn id(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

fn unknown(name: &str, places: &[Place], roots: &[PathBuf]) -> Error {
    let mut near: Vec<&str> =
        places.iter().map(|place| place.name.as_str()).filter(|known| is_near(name, known)).collect();
    near.dedup();
    let hint = match near.as_slice() {
        [] => String::new(),
        near => format!("; did you mean {}?", near.join(" or ")),
    };
    let roots: Vec<_> = roots.iter().map(|root| format!("`{}`", root.display())).collect();
    let looked = match roots.as_slice() {
        [] => "in the bundled suite".to_string(),
        roots => format!("below {} and in the bundled suite", roots.join(", ")),
    };
    Error::with_kind(
        Kind::Usage,
        format!(
            "no benchmark is called `{name}` {looked}{hint} (`sebs-lite benchmark list` shows all of them)"
        ),
    )
}

/// Could somebody who typed `typed` have meant `known`?
fn is_near(typed: &str, known: &str) -> bool {
    let (typed, known) = (typed.to_lowercase(), known.to_lowercase());
    let title = known.split_once('.').map_or(known.as_str(), |(_, title)| title);
    let limit = (typed.chars().count() / 3).clamp(1, 3);
    (typed.len() >= 3 && known.contains(&typed))
        || edit_distance(&typed, &known) <= limit
        || edit_distance(&typed, title) <= limit
}

/// How many letters have to be put in, taken out or changed to make one of the other (Levenshtein).
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{Access, TempFolder};

    const CONFIG: &[u8] = br#"{"timeout": 1, "memory": 2, "languages": ["python"]}"#;

    fn put(folder: &Path, path: &str, content: &[u8]) {
        files::write(&folder.join(path), content, Access::Everyone).unwrap();
    }

    #[test]
    fn a_benchmark_is_found_by_name_number_and_path_and_the_first_root_wins() {
        let folder = TempFolder::create().unwrap();
        let (one, two) = (folder.path().join("one/benchmarks"), folder.path().join("two"));
        put(&one, "100.webapps/110.dynamic-html/config.json", CONFIG);
        put(&one, "100.webapps/110.dynamic-html/python/function.py", b"");
        put(&one, "../benchmarks-data/x/110.dynamic-html/data.bin", b"");
        put(&two, "deep/er/777.mine/config.json", CONFIG);
        put(&two, "110.dynamic-html/config.json", b"{");
        put(&two, "778.broken/config.json", b"{");
        let roots = [one.clone(), two.clone()];
        let search = Search { roots: &roots, data: None, extract_to: &folder.path().join("bundled") };
        for name in ["110.dynamic-html", "110", &one.join("100.webapps/110.dynamic-html").to_string_lossy()] {
            let benchmark = Benchmark::find(name, &search).unwrap();
            assert_eq!(benchmark.name, "110.dynamic-html");
            assert_eq!(benchmark.config.memory_mb, 2);
            assert!(benchmark.data.unwrap().ends_with("one/benchmarks-data/x/110.dynamic-html"), "{name}");
        }
        let mine = Benchmark::find("777.mine", &search).unwrap();
        assert_eq!(mine.data, None);
        let bundled = Benchmark::find("010", &search).unwrap();
        assert_eq!((bundled.name.as_str(), bundled.config.timeout_s), ("010.sleep", 1200));
        assert!(bundled.input_script().unwrap().starts_with(folder.path().join("bundled")));
        let error = Benchmark::find("778", &search).unwrap_err().to_string();
        assert!(error.contains("778.broken/config.json") && error.contains("line 1"), "{error}");
        let listed = Benchmark::list(&roots).unwrap();
        let names: Vec<_> = listed.iter().map(|listing| listing.name.as_str()).collect();
        let expected = [
            "110.dynamic-html",
            "778.broken",
            "777.mine",
            "010.sleep",
            "051.memory-staircase",
            "120.uploader",
            "130.crud-api",
            "210.thumbnailer",
            "220.video-processing",
            "311.compression",
            "501.graph-pagerank",
        ];
        assert_eq!(names, expected);
        assert!(listed[1].config.is_err());
        let missing = [folder.path().join("three")];
        let search = Search { roots: &missing, ..search };
        for name in ["110.dynamic-html", &one.join("100.webapps/110.dynamic-html").to_string_lossy()] {
            let error = Benchmark::find(name, &search).unwrap_err();
            assert!(error.is_not_found() && error.to_string().contains("/three"), "{error}");
        }
        assert_eq!(listed[5].source, Source::Bundled);
    }

    #[test]
    fn a_folder_with_only_a_handler_is_a_benchmark() {
        let folder = TempFolder::create().unwrap();
        put(folder.path(), "hello/function.js", b"");
        let search = Search { roots: &[], data: None, extract_to: folder.path() };
        let path = folder.path().join("hello");
        let benchmark = Benchmark::find(&path.to_string_lossy(), &search).unwrap();
        assert_eq!(benchmark.config.supported_languages(), [crate::faas::Language::Nodejs]);
        assert_eq!((benchmark.config.timeout_s, benchmark.config.memory_mb), (300, 512));
        assert_eq!(benchmark.code_folder(crate::faas::Language::Nodejs), benchmark.path);
        assert_eq!(benchmark.input_script(), None);
        let nothing = Benchmark::find(&folder.path().to_string_lossy(), &search).unwrap_err();
        assert!(nothing.is_usage() && nothing.to_string().contains("is not a benchmark"), "{nothing}");
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_near_ones() {
        let folder = TempFolder::create().unwrap();
        let search = Search { roots: &[], data: None, extract_to: folder.path() };
        for typed in ["110.dynamc-html", "dynamic-html", "dynamik-html", "html"] {
            let error = Benchmark::find(typed, &search).unwrap_err();
            assert!(error.is_usage());
            assert!(error.to_string().contains("did you mean 110.dynamic-html?"), "{error}");
        }
        let error = Benchmark::find("nothing-like-it", &search).unwrap_err().to_string();
        assert!(!error.contains("did you mean") && error.contains("benchmark list"), "{error}");
    }
}
