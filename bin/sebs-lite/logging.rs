//! Where log lines go: standard error, and the file that `--output-file` names.

use std::fs::File;
use std::io::Write;

use log::{LevelFilter, Log, Metadata, Record};
use sebs_lite::{Error, Result};

use crate::args::Common;
use crate::progress::ProgressLine;

/// Writes each line to standard error, after the progress line is wiped, and to the file if there is one.
struct Sink {
    line: ProgressLine,
    file: Option<File>,
}

/// Installs the logger. `RUST_LOG` wins over the flags; without either, steps and what the user can mend are shown.
///
/// # Errors
/// The file cannot be opened.
pub(crate) fn install(common: &Common, line: &ProgressLine) -> Result<()> {
    let file = match &common.output_file {
        None => None,
        Some(path) => Some(File::options().create(true).append(true).open(path).map_err(|error| {
            Error::usage(format!("failed to open the log file `{}`: {error}", path.display()))
        })?),
    };
    let level = match (common.quiet, common.verbose) {
        (true, _) => LevelFilter::Error,
        (false, true) => LevelFilter::Debug,
        (false, false) => LevelFilter::Info,
    };
    let mut builder = env_logger::Builder::new();
    // ureq says a lot about each request; it is asked for by RUST_LOG alone.
    builder
        .filter_level(level)
        .filter_module("ureq", LevelFilter::Warn)
        .filter_module("ureq_proto", LevelFilter::Warn);
    builder.parse_default_env();
    // Its dump of all bytes would show the secrets that a container of storage is made with.
    builder.filter_module("ureq_proto::util", LevelFilter::Off);
    builder.format(|out, record| match record.level() {
        log::Level::Info => writeln!(out, "{}", record.args()),
        level => writeln!(out, "{}: {}", level.as_str().to_ascii_lowercase(), record.args()),
    });
    builder.target(env_logger::Target::Pipe(Box::new(Sink { line: line.clone(), file })));
    let logger = builder.build();
    log::set_max_level(logger.filter());
    log::set_boxed_logger(Box::new(Discreet(logger)))
        .map_err(|error| Error::new(format!("failed to set up the log: {error}")))
}

/// Leaves out what the HTTP client says of the bytes it moves, whatever `RUST_LOG` asks for: among them are the
/// environments of containers, and keys.
struct Discreet(env_logger::Logger);

impl Log for Discreet {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let is_bytes = metadata.level() == log::Level::Trace && metadata.target().starts_with("ureq");
        !is_bytes && self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.line.clear();
        std::io::stderr().write_all(bytes)?;
        if let Some(file) = &mut self.file {
            file.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}
