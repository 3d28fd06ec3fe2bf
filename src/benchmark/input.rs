//! Runs a benchmark's `input.py`: what it needs, the input it makes, and its verdict on an output.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Benchmark;
use super::command::last_lines;
use super::worker::{Interpreter, Message, Worker};
use crate::cancel::Cancel;
use crate::docker::Engine;
use crate::error::{Error, Kind, Result};
use crate::faas::{Architecture, Language};
use crate::progress::Progress;
use crate::runtime::{self, ImageChoice, ImageRequest, RuntimeImage};
use crate::storage::{self, Item};

/// The oldest Python that runs an `input.py`: those of SeBS say `str | None` where that is evaluated.
const OLDEST_PYTHON: (u32, u32) = (3, 10);

/// Whose `input.py` to run, and with what.
#[derive(Clone, Copy, Debug)]
pub struct InputRequest<'a> {
    /// The benchmark.
    pub benchmark: &'a Benchmark,
    /// The Python to run it with.
    pub python: InputPython<'a>,
    /// The engine for containers; `None`: there is none.
    pub engine: Option<&'a Engine>,
    /// Log what it prints as steps of the job?
    pub verbose: bool,
    /// Gives up, and kills the process, when triggered.
    pub cancel: &'a Cancel,
    /// Told each step of getting an image.
    pub progress: &'a Progress,
}

/// The Python that runs an `input.py`.
#[derive(Clone, Copy, Debug)]
pub enum InputPython<'a> {
    /// This host's `python3`, or if that is older than 3.10 or not there, one in a container of a runtime image, which
    /// is made where there is none.
    Any,
    /// That program of this host.
    Program(&'a Path),
    /// `python3` in a container of that image.
    Image(&'a RuntimeImage),
}

/// What an `input.py` asks of storage while it is called.
///
/// An error becomes a Python exception in `input.py`, which may catch it.
pub trait InputCallbacks {
    /// Uploads the file `path` as `key` below the input path with that index.
    ///
    /// # Errors
    /// It cannot.
    fn upload(&mut self, index: usize, key: &str, path: &Path) -> Result<()>;

    /// Writes an item into a table.
    ///
    /// # Errors
    /// It cannot.
    fn nosql_write(&mut self, item: &NosqlItem) -> Result<()>;

    /// Downloads an object to the file `path`.
    ///
    /// # Errors
    /// It cannot.
    fn download(&mut self, bucket: &str, key: &str, path: &Path) -> Result<()>;
}

/// An item for a table.
#[derive(Clone, Debug, PartialEq)]
pub struct NosqlItem {
    /// The benchmark that the table is of.
    pub benchmark: String,
    /// The table, by the name that the benchmark gives it.
    pub table: String,
    /// All attributes but the keys.
    pub data: Item,
    /// Name and value of the primary key.
    pub primary_key: (String, storage::Value),
    /// Name and value of the secondary key; `None`: the table has none.
    pub secondary_key: Option<(String, storage::Value)>,
}

/// The callbacks where no storage is configured: each fails, and says so.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoStorage;

impl InputCallbacks for NoStorage {
    fn upload(&mut self, _index: usize, key: &str, _path: &Path) -> Result<()> {
        Err(no_storage("object", &format!("upload `{key}`")))
    }

    fn nosql_write(&mut self, item: &NosqlItem) -> Result<()> {
        Err(no_storage("nosql", &format!("write to table `{}`", item.table)))
    }

    fn download(&mut self, bucket: &str, key: &str, _path: &Path) -> Result<()> {
        Err(no_storage("object", &format!("download `{key}` from `{bucket}`")))
    }
}

fn no_storage(kind: &str, what: &str) -> Error {
    Error::usage(format!("no {kind} storage is configured to {what}"))
}

/// A table that a benchmark needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableKeys {
    /// The name that the benchmark gives it.
    pub table: String,
    /// Name of the primary key.
    pub primary_key: String,
    /// Name of the secondary key; `None`: it has none.
    pub secondary_key: Option<String>,
}

/// What a benchmark says of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has no `validate_output`.
    NotValidated,
    /// The output is what it should be.
    Valid,
    /// It is not, and why.
    Invalid(String),
}

/// A process that has loaded a benchmark's `input.py`; dropped, it is killed.
#[derive(Debug)]
pub struct InputProcess {
    worker: Worker,
    script: PathBuf,
    data_hint: String,
}

impl InputProcess {
    /// Starts a process for the benchmark's `input.py`; `None`: it has none, and its input comes from the caller.
    ///
    /// # Errors
    /// No fitting Python can be had, or the script cannot be loaded: its last lines are shown, and a module that it
    /// imports and the Python does not have is named.
    pub fn start(request: &InputRequest<'_>) -> Result<Option<InputProcess>> {
        let benchmark = request.benchmark;
        let Some(script) = benchmark.input_script() else { return Ok(None) };
        let about = || format!("failed to run `{}`", script.display());
        let mut worker = interpreter(request)
            .and_then(|interpreter| Worker::start(benchmark, interpreter, request.cancel, request.verbose))
            .map_err(|error| error.context(about()))?;
        let loaded = worker.load(&script, benchmark).map_err(|error| error.context(about()))?;
        let data_hint = match (&benchmark.data, &benchmark.data_root) {
            (Some(_), _) => String::new(),
            (None, None) => "\n    (it has no data folder: `--data DIR` names where those are)".to_string(),
            (None, Some(root)) => {
                format!(
                    "\n    (it has no data folder: none below `{}` is called `{}`)",
                    root.display(),
                    benchmark.name
                )
            }
        };
        let process = InputProcess { worker, script, data_hint };
        match loaded {
            Message::Failure(lines, missing) => Err(process.failure("load", &lines, missing)),
            Message::Result(_) | Message::Callback(..) => Ok(Some(process)),
        }
    }

    /// How many input and output prefixes it needs in the benchmarks' bucket; `None`: it does not say, so none.
    ///
    /// # Errors
    /// The function fails, or does not give two counts.
    pub fn buckets_count(&mut self) -> Result<Option<(u32, u32)>> {
        let value = self.call("buckets_count", json!({}), &mut NoStorage)?;
        self.parse("buckets_count", "a pair of counts, such as (1, 1)", value)
    }

    /// The tables that it needs, by name; `None`: it does not say, so none.
    ///
    /// # Errors
    /// The function fails, or does not give tables with their keys.
    pub fn allocate_nosql(&mut self) -> Result<Option<Vec<TableKeys>>> {
        #[derive(Deserialize)]
        struct Keys {
            primary_key: String,
            secondary_key: Option<String>,
        }
        let value = self.call("allocate_nosql", json!({}), &mut NoStorage)?;
        let expected = r#"a dict such as {"table": {"primary_key": "id"}}"#;
        let tables: Option<std::collections::BTreeMap<String, Keys>> =
            self.parse("allocate_nosql", expected, value)?;
        let keys = |(table, keys): (String, Keys)| TableKeys {
            table,
            primary_key: keys.primary_key,
            secondary_key: keys.secondary_key,
        };
        Ok(tables.map(|tables| tables.into_iter().map(keys).collect()))
    }

    /// The input of that size: a JSON object. `benchmarks_bucket` and the paths are where its files and results go;
    /// without storage, `None` and nothing.
    ///
    /// # Errors
    /// The function fails, or does not give an object.
    pub fn generate_input(
        &mut self,
        size: &str,
        benchmarks_bucket: Option<&str>,
        input_paths: &[String],
        output_paths: &[String],
        callbacks: &mut dyn InputCallbacks,
    ) -> Result<Value> {
        let arguments = json!({
            "size": size,
            "benchmarks_bucket": benchmarks_bucket,
            "input_paths": input_paths,
            "output_paths": output_paths,
        });
        let input = self.call("generate_input", arguments, callbacks)?;
        if input.is_object() {
            return Ok(input);
        }
        Err(self.wrong_type("generate_input", "a dict, which is the function's event", &input))
    }

    /// The benchmark's verdict on `output_json`, the handler's own return value as JSON.
    ///
    /// # Errors
    /// The validator itself fails.
    pub fn validate_output(
        &mut self,
        input: &Value,
        output_json: &str,
        language: Language,
        callbacks: &mut dyn InputCallbacks,
    ) -> Result<Verdict> {
        let arguments = json!({ "input": input, "output": output_json, "language": language.name() });
        let verdict = self.call("validate_output", arguments, callbacks)?;
        Ok(match verdict["verdict"].as_str() {
            Some("valid") => Verdict::Valid,
            Some("not validated") => Verdict::NotValidated,
            _ => Verdict::Invalid(verdict["reason"].as_str().unwrap_or("no reason given").to_string()),
        })
    }

    /// Ends the process.
    ///
    /// # Errors
    /// Its container cannot be removed.
    pub fn stop(self) -> Result<()> {
        self.worker.stop()
    }

    fn call(&mut self, name: &str, arguments: Value, callbacks: &mut dyn InputCallbacks) -> Result<Value> {
        let mut message = arguments;
        message["call"] = json!(name);
        let about = format!("failed to call `{name}` of `{}`", self.script.display());
        let mut exchange = || {
            self.worker.send(&message)?;
            loop {
                let (callback, arguments) = match self.worker.receive()? {
                    Message::Callback(callback, arguments) => (callback, arguments),
                    last => return Ok(last),
                };
                let answer = match answer(&callback, &arguments, callbacks) {
                    Ok(()) => json!({ "result": null }),
                    Err(error) if error.is_cancelled() => return Err(error),
                    Err(error) => json!({ "error": error.to_string() }),
                };
                self.worker.send(&answer)?;
            }
        };
        match exchange().map_err(|error| error.context(about))? {
            Message::Failure(lines, missing) => {
                Err(self.failure(&format!("call `{name}` of"), &lines, missing))
            }
            Message::Result(value) => Ok(value),
            Message::Callback(..) => unreachable!("the exchange ends with another message"),
        }
    }

    fn failure(&self, what: &str, lines: &[String], missing: Option<String>) -> Error {
        let script = self.script.display();
        if let Some(module) = missing {
            return Error::with_kind(
                Kind::Usage,
                format!(
                    "failed to {what} `{script}`: it needs the Python module `{module}`, which {} has not; install it \
                     there, or name a Python that has it with `--input-python`",
                    self.worker.interpreter
                ),
            )
            .unavailable();
        }
        let hint = if what.contains("generate_input") { self.data_hint.as_str() } else { "" };
        Error::new(format!("failed to {what} `{script}`:{}{hint}", last_lines(lines)))
    }

    fn parse<T: serde::de::DeserializeOwned>(
        &self,
        function: &str,
        expected: &str,
        value: Value,
    ) -> Result<T> {
        serde_json::from_value(value.clone()).map_err(|_| self.wrong_type(function, expected, &value))
    }

    fn wrong_type(&self, function: &str, expected: &str, value: &Value) -> Error {
        let mut shown: String = value.to_string().chars().take(80).collect();
        if shown.len() < value.to_string().len() {
            shown.push('…');
        }
        let script = self.script.display();
        Error::usage(format!("`{function}` of `{script}` should return {expected}, and returned {shown}"))
    }
}

/// Does what `input.py` asks for.
fn answer(callback: &str, arguments: &RawValue, callbacks: &mut dyn InputCallbacks) -> Result<()> {
    let broken = |error| Error::from_source(Kind::Usage, format!("`{callback}` was called wrongly"), error);
    let arguments = arguments.get();
    match callback {
        "upload" => {
            let (index, key, path): (usize, String, PathBuf) =
                serde_json::from_str(arguments).map_err(broken)?;
            callbacks.upload(index, &key, &path)
        }
        "download" => {
            let (bucket, key, path): (String, String, PathBuf) =
                serde_json::from_str(arguments).map_err(broken)?;
            callbacks.download(&bucket, &key, &path)
        }
        "nosql_write" => {
            type Key<'a> = (String, &'a RawValue);
            let (benchmark, table, data, primary, secondary): (_, _, &RawValue, Key<'_>, Option<Key<'_>>) =
                serde_json::from_str(arguments).map_err(broken)?;
            let wrong = |error: Error| Error::usage(format!("`{callback}` was called wrongly: {error}"));
            let key = |(name, value): Key<'_>| {
                let value = storage::Value::from_json(value.get()).map_err(wrong)?;
                Ok::<_, Error>((name, value))
            };
            callbacks.nosql_write(&NosqlItem {
                benchmark,
                table,
                data: storage::item_from_json(data.get()).map_err(wrong)?,
                primary_key: key(primary)?,
                secondary_key: secondary.map(key).transpose()?,
            })
        }
        other => Err(Error::new(format!("`{other}` is not known"))),
    }
}

fn interpreter<'a>(request: &InputRequest<'a>) -> Result<Interpreter<'a>> {
    let in_image = |image: RuntimeImage| match request.engine {
        Some(engine) => Ok(Interpreter::Image { engine, image }),
        None => Err(Error::new("a Docker engine is needed to run it in a container")),
    };
    match request.python {
        InputPython::Program(python) => Ok(Interpreter::Program(python.to_path_buf())),
        InputPython::Image(image) => in_image(image.clone()),
        InputPython::Any => {
            let none_here = match runtime::host_python(OLDEST_PYTHON) {
                Ok(python) => return Ok(Interpreter::Program(python.executable)),
                Err(error) => error,
            };
            let Some(engine) = request.engine else { return Err(none_here) };
            log::info!("running `input.py` in a container: {none_here}");
            in_image(
                new_image(engine, request.progress).map_err(|error| error.context(none_here.to_string()))?,
            )
        }
    }
}

fn is_new_enough(image: &RuntimeImage) -> bool {
    let mut numbers = image.version.split('.').map(|number| number.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    image.language == Language::Python && version >= OLDEST_PYTHON
}

fn new_image(engine: &Engine, progress: &Progress) -> Result<RuntimeImage> {
    let architecture = Architecture::of_host();
    let architecture = architecture.ok_or_else(|| Error::new("no image runs on this machine's processor"))?;
    let newest = Language::Python.versions().last().copied();
    let mut request = ImageRequest {
        language: Language::Python,
        version: None,
        architecture,
        choice: ImageChoice::Auto,
        image: None,
        repository: None,
    };
    let image = runtime::ensure(engine, &request, progress)?;
    if is_new_enough(&image) {
        return Ok(image);
    }
    request.version = newest;
    runtime::ensure(engine, &request, progress)
}
