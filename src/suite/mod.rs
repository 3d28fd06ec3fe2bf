//! The bundled benchmarks, as a table of files embedded into the binary.

/// One file of the suite.
#[derive(Clone, Copy, Debug)]
pub(crate) struct File {
    /// `<group>/<benchmark>/<path>`.
    pub(crate) path: &'static str,
    /// Its content.
    pub(crate) content: &'static [u8],
}

/// The file at a path below this folder.
macro_rules! embed {
    ($path:literal) => {
        File { path: $path, content: include_bytes!($path) }
    };
}

/// Every file of the suite, by path.
pub(crate) const FILES: &[File] = &[
    embed!("000.microbenchmarks/010.sleep/config.json"),
    embed!("000.microbenchmarks/010.sleep/input.py"),
    embed!("000.microbenchmarks/010.sleep/nodejs/function.js"),
    embed!("000.microbenchmarks/010.sleep/nodejs/package.json"),
    embed!("000.microbenchmarks/010.sleep/python/function.py"),
    embed!("000.microbenchmarks/051.memory-staircase/config.json"),
    embed!("000.microbenchmarks/051.memory-staircase/input.py"),
    embed!("000.microbenchmarks/051.memory-staircase/nodejs/function.js"),
    embed!("000.microbenchmarks/051.memory-staircase/nodejs/package.json"),
    embed!("000.microbenchmarks/051.memory-staircase/python/function.py"),
    embed!("100.webapps/110.dynamic-html/config.json"),
    embed!("100.webapps/110.dynamic-html/input.py"),
    embed!("100.webapps/110.dynamic-html/nodejs/function.js"),
    embed!("100.webapps/110.dynamic-html/nodejs/package.json"),
    embed!("100.webapps/110.dynamic-html/nodejs/templates/draw.html"),
    embed!("100.webapps/110.dynamic-html/python/function.py"),
    embed!("100.webapps/110.dynamic-html/python/requirements.txt"),
    embed!("100.webapps/110.dynamic-html/python/templates/draw.html"),
    embed!("100.webapps/120.uploader/config.json"),
    embed!("100.webapps/120.uploader/input.py"),
    embed!("100.webapps/120.uploader/nodejs/function.js"),
    embed!("100.webapps/120.uploader/nodejs/package.json"),
    embed!("100.webapps/120.uploader/python/function.py"),
    embed!("100.webapps/130.crud-api/config.json"),
    embed!("100.webapps/130.crud-api/input.py"),
    embed!("100.webapps/130.crud-api/nodejs/function.js"),
    embed!("100.webapps/130.crud-api/nodejs/package.json"),
    embed!("100.webapps/130.crud-api/python/function.py"),
    embed!("200.multimedia/210.thumbnailer/config.json"),
    embed!("200.multimedia/210.thumbnailer/input.py"),
    embed!("200.multimedia/210.thumbnailer/python/function.py"),
    embed!("200.multimedia/210.thumbnailer/python/requirements.txt"),
    embed!("200.multimedia/220.video-processing/config.json"),
    embed!("200.multimedia/220.video-processing/init.sh"),
    embed!("200.multimedia/220.video-processing/input.py"),
    embed!("200.multimedia/220.video-processing/python/function.py"),
    embed!("300.utilities/311.compression/config.json"),
    embed!("300.utilities/311.compression/input.py"),
    embed!("300.utilities/311.compression/nodejs/function.js"),
    embed!("300.utilities/311.compression/nodejs/package.json"),
    embed!("300.utilities/311.compression/nodejs/zip.js"),
    embed!("300.utilities/311.compression/python/function.py"),
    embed!("500.scientific/501.graph-pagerank/config.json"),
    embed!("500.scientific/501.graph-pagerank/input.py"),
    embed!("500.scientific/501.graph-pagerank/python/function.py"),
    embed!("500.scientific/501.graph-pagerank/python/requirements.txt"),
    embed!("500.scientific/501.graph-pagerank/python/requirements.txt.3.7"),
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::files::{self, EntryKind};

    #[test]
    fn the_table_has_every_file_of_the_folder() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/suite");
        let there: Vec<_> = files::walk(&folder)
            .unwrap()
            .into_iter()
            .filter(|entry| matches!(entry.kind, EntryKind::File(_)))
            .map(|entry| entry.path.to_string_lossy().into_owned())
            .filter(|path| path != "mod.rs" && !path.contains("__pycache__"))
            .collect();
        let listed: Vec<_> = FILES.iter().map(|file| file.path).collect();
        assert_eq!(there, listed);
    }
}
