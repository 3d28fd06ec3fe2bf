//! Benchmarks built into code packages, by the interpreters of this machine.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use sebs_lite::Result;
use sebs_lite::benchmark::{Benchmark, BuildRequest, KnownPackage, Search};
use sebs_lite::cancel::Cancel;
use sebs_lite::docker::{ContainerSpec, Engine, HostConfig, Lifetime, Owner};
use sebs_lite::faas::{Architecture, CodePackage, Language, Runtime};
use sebs_lite::progress::Progress;
use sebs_lite::runtime::{ImageChoice, ImageRequest, ImageSource, RuntimeImage, ensure};

use crate::support::{Folder, TestImage, engine, unique};

const CONFIG: &str = r#"{"timeout": 60, "memory": 128, "languages": ["python", "nodejs"]}"#;

/// What a command printed, which has to succeed.
pub(crate) fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_string()
}

/// The image of an interpreter of this machine, as if it had been imported; no engine needs to know it.
pub(crate) fn host_image(language: Language, interpreter: &Path) -> RuntimeImage {
    let script = match language {
        Language::Python => "import sys; print('%d.%d' % sys.version_info[:2])",
        Language::Nodejs => "console.log(process.versions.node.split('.')[0])",
    };
    let flag = if language == Language::Python { "-c" } else { "-e" };
    image(language, output(Command::new(interpreter).args([flag, script])), Some(interpreter.to_path_buf()))
}

fn image(language: Language, version: String, interpreter: Option<PathBuf>) -> RuntimeImage {
    RuntimeImage {
        reference: "sebs-lite:run.local.test".to_string(),
        id: "sha256:test".to_string(),
        language,
        version,
        source: ImageSource::Host,
        interpreter,
        build: String::new(),
        libc: String::new(),
        ours: true,
    }
}

/// The real path of this machine's `python3`.
pub(crate) fn python() -> PathBuf {
    output(Command::new("python3").args(["-c", "import sys; print(sys.executable)"])).into()
}

pub(crate) fn node() -> PathBuf {
    output(Command::new("node").args(["-e", "console.log(process.execPath)"])).into()
}

pub(crate) fn find(path: &Path) -> Benchmark {
    let nowhere = Path::new("/nonexistent");
    Benchmark::find(&path.to_string_lossy(), &Search { roots: &[], data: None, extract_to: nowhere }).unwrap()
}

/// Builds below `cache` as the program does, and gives what a cache would keep beside the package.
pub(crate) struct Builder<'a> {
    pub(crate) benchmark: &'a Benchmark,
    pub(crate) image: &'a RuntimeImage,
    pub(crate) variant: &'a str,
    pub(crate) engine: Option<&'a Engine>,
    pub(crate) cache: PathBuf,
}

impl Builder<'_> {
    pub(crate) fn build(&self, known: Option<&KnownPackage>) -> Result<CodePackage> {
        let image = self.image;
        let runtime = Runtime {
            language: image.language,
            version: image.version.clone(),
            variant: self.variant.to_string(),
        };
        let request = BuildRequest {
            benchmark: self.benchmark,
            runtime: &runtime,
            architecture: Architecture::of_host().unwrap(),
            image,
            engine: self.engine,
            cache_folder: &self.cache,
            known,
            update_code: false,
            verbose: false,
            cancel: &Cancel::new(),
            progress: &Progress::quiet(),
        };
        request.build()
    }
}

fn known(package: &CodePackage) -> KnownPackage {
    KnownPackage {
        hash: package.hash.clone(),
        location: package.location.clone(),
        size_bytes: package.size_bytes,
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Runs a package's Python handler on this machine as a function server does; `result` is what it returned.
pub(crate) fn call_python(python: &Path, package: &Path, event: &str) -> String {
    let script = "import json, sys; from function.function import handler; \
                  print(json.dumps(handler(json.loads(sys.argv[1]))))";
    let path = format!("{0}:{0}/.python_packages/lib/site-packages", package.display());
    output(Command::new(python).args(["-c", script, event]).env("PYTHONPATH", path))
}

pub(crate) fn call_node(node: &Path, package: &Path, event: &str) -> String {
    let script = format!(
        "require('{}/function/function.js').handler(JSON.parse(process.argv[1]))\
         .then((result) => console.log(JSON.stringify(result)))",
        package.display()
    );
    output(Command::new(node).args(["-e", &script, event]))
}

#[test]
fn a_package_is_built_once_and_again_when_something_changes() {
    let Some(engine) = engine() else { return };
    let folder = Folder::create();
    folder.put("700.mine/config.json", CONFIG);
    folder.put("700.mine/python/function.py", "def handler(event):\n    return {'result': 1}\n");
    folder.put("700.mine/python/requirements.txt", "# nothing\n");
    folder.put("700.mine/python/templates/a.html", "");
    let (python, benchmark) = (python(), find(&folder.path().join("700.mine")));
    let (image, cache) = (host_image(Language::Python, &python), folder.path().join("cache"));
    let builder =
        Builder { benchmark: &benchmark, image: &image, variant: "default", engine: Some(&engine), cache };
    let first = builder.build(None).unwrap();
    assert!(first.rebuilt && first.size_bytes > 0 && first.hash.len() == 64);
    assert_eq!(first.location, builder.cache.join("code"));
    assert_eq!(names(&first.location), ["function", "requirements.txt"]);
    assert_eq!(
        names(&first.location.join("function")),
        ["__pycache__", "_sebs_lite_http.py", "function.py", "nosql.py", "storage.py", "templates"]
    );
    assert_eq!(call_python(&python, &first.location, "{}"), r#"{"result": 1}"#);
    let again = builder.build(Some(&known(&first))).unwrap();
    assert!(!again.rebuilt);
    assert_eq!((&again.location, &again.hash), (&first.location, &first.hash));

    // What is compiled names the paths that the function sees, and is not looked at again.
    let script = "import sys, marshal, glob; data = open(glob.glob(sys.argv[1])[0], 'rb').read(); \
                  print(data[4], marshal.loads(data[16:]).co_filename)";
    let pattern = first.location.join("function/__pycache__/function.*.pyc");
    let compiled = output(Command::new(&python).args(["-c", script]).arg(pattern));
    assert_eq!(compiled, "1 /function/function/function.py");

    folder.put("700.mine/python/function.py", "def handler(event):\n    return {'result': 2}\n");
    let second = builder.build(Some(&known(&again))).unwrap();
    assert!(second.rebuilt && second.hash != first.hash);
    assert_eq!(second.location, builder.cache.join(format!("code-{}", &second.hash[..12])));
    assert!(first.location.is_dir(), "this process still has the first package");
    let old = known(&first);
    drop((first, again));

    // A container that ended still has the second one mounted, and nobody has the first.
    let test_image = TestImage::import(&engine);
    let spec = ContainerSpec {
        image: test_image.id.clone(),
        host_config: HostConfig {
            binds: vec![format!("{}:/function:ro", second.location.display())],
            ..HostConfig::default()
        },
        cmd: vec!["/bin/sh".to_string()],
        ..ContainerSpec::default()
    };
    let owner = Owner::current().unwrap();
    let container = engine.create_owned(&owner, &Lifetime::Run, &unique("mount"), spec).unwrap();
    let mounted = second.location.clone();
    drop(second);
    folder.put("700.mine/python/function.py", "def handler(event):\n    return {'result': 3}\n");
    let third = builder.build(Some(&old)).unwrap();
    assert!(third.rebuilt && mounted.is_dir() && !old.location.exists());
    container.remove().unwrap();
    let damaged = third.location.clone();
    let record = known(&third);
    drop(third);
    std::fs::remove_dir_all(&damaged).unwrap();
    let fourth = builder.build(Some(&record)).unwrap();
    assert!(fourth.rebuilt && !mounted.exists());
    assert_eq!(call_python(&python, &fourth.location, "{}"), r#"{"result": 3}"#);
}

#[test]
fn python_packages_are_installed_from_the_file_for_the_version() {
    let folder = Folder::create();
    let python = python();
    let image = host_image(Language::Python, &python);
    folder.put("x/function.py", "import thing\ndef handler(event):\n    return thing.answer\n");
    let wheel = folder.path().join("x/wheels/thing-1.0-py3-none-any.whl");
    folder.put("x/wheels/.keep", "");
    let script = "import sys, zipfile; wheel = zipfile.ZipFile(sys.argv[1], 'w'); info = 'thing-1.0.dist-info/'; \
                  wheel.writestr('thing.py', 'answer = 42'); \
                  wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: thing\\nVersion: 1.0\\n'); \
                  wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n'); \
                  wheel.writestr(info + 'RECORD', ''); wheel.close()";
    output(Command::new(&python).args(["-c", script]).arg(&wheel));
    folder.put(&format!("x/requirements.txt.{}", image.version), "./wheels/thing-1.0-py3-none-any.whl\n");
    folder.put("x/requirements.txt", "./wheels/gone-1.0-py3-none-any.whl\n");
    let benchmark = find(&folder.path().join("x"));
    let cache = folder.path().join("cache");
    let builder = Builder { benchmark: &benchmark, image: &image, variant: "default", engine: None, cache };
    let package = builder.build(None).unwrap();
    let site_packages = package.location.join(".python_packages/lib/site-packages");
    assert!(site_packages.join("__pycache__").is_dir());
    assert_eq!(names(&package.location), [".python_packages", "function", "requirements.txt"]);
    assert_eq!(call_python(&python, &package.location, "{}"), "42");

    std::fs::remove_file(folder.path().join(format!("x/requirements.txt.{}", image.version))).unwrap();
    let error = builder.build(None).unwrap_err().to_string();
    assert!(error.contains("`requirements.txt`") && error.contains("benchmark `x`"), "{error}");
    assert!(error.contains("gone-1.0-py3-none-any.whl"), "{error}");
    assert_eq!(names(&builder.cache), [".lock", "code", "code.lock"]);
}

#[test]
fn a_local_npm_package_is_installed_as_a_copy() {
    let folder = Folder::create();
    let node = node();
    folder.put("y/config.json", CONFIG);
    folder.put("y/nodejs/function.js", "exports.handler = async () => require('local').answer;");
    folder.put("y/nodejs/local/index.js", "exports.answer = 42;");
    folder.put("y/nodejs/local/package.json", r#"{"name": "local", "version": "1.0.0"}"#);
    folder.put("y/nodejs/package.json", r#"{"name": "y", "dependencies": {"local": "file:./local"}}"#);
    let benchmark = find(&folder.path().join("y"));
    let image = host_image(Language::Nodejs, &node);
    let cache = folder.path().join("cache");
    let builder = Builder { benchmark: &benchmark, image: &image, variant: "default", engine: None, cache };
    let package = builder.build(None).unwrap();
    assert!(!package.location.join("node_modules/local").is_symlink());
    assert!(package.location.join("package.json").is_file());
    assert_eq!(call_node(&node, &package.location, "{}"), "42");
    folder.put("y/nodejs/package.json", r#"{"name": "y", "dependencies": {"local": "file:./gone"}}"#);
    let error = builder.build(None).unwrap_err().to_string();
    assert!(error.contains("`package.json`") && error.contains("npm ended with"), "{error}");
}

#[test]
fn what_cannot_be_built_is_refused_before_anything_runs() {
    let folder = Folder::create();
    folder.put("z/config.json", r#"{"timeout": 1, "memory": 1, "languages": ["python", "cpp"]}"#);
    let benchmark = find(&folder.path().join("z"));
    let cache = folder.path().join("cache");
    let node = image(Language::Nodejs, "20".to_string(), None);
    let builder = Builder {
        benchmark: &benchmark,
        image: &node,
        variant: "default",
        engine: None,
        cache: cache.clone(),
    };
    let error = builder.build(None).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("but in: python, cpp"), "{error}");
    let python = image(Language::Python, "3.11".to_string(), None);
    let builder = Builder { benchmark: &benchmark, image: &python, variant: "fast", engine: None, cache };
    let error = builder.build(None).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("no variant `fast`"), "{error}");
}

/// Serves an index page and the files that it links to, until the test ends.
fn serve_index(page: String, files: &'static [(&'static str, &'static str)]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let request = lines.next().unwrap().unwrap();
            let mut headers = lines.map_while(|line| line.ok().filter(|line| !line.is_empty()));
            let has_login = headers.by_ref().any(|line| line == "Authorization: Basic bWU6cEBzcw==");
            headers.for_each(drop);
            let path = request.split(' ').nth(1).unwrap();
            let content = files.iter().find(|(name, _)| path.ends_with(name)).map(|(_, content)| *content);
            let content = content.or((path == "/simple/pip/").then_some(page.as_str()));
            let (status, content) = match content {
                Some(content) if has_login => ("200 OK", content),
                _ => ("404 Not Found", ""),
            };
            let length = content.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{content}"
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    format!("http://me:p%40ss@{address}/simple")
}

#[test]
fn the_newest_pip_that_fits_and_is_what_the_index_says_is_fetched() {
    let folder = Folder::create();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/benchmark/pip_bootstrap.py");
    let digest = |content: &str| {
        output(Command::new("python3").args([
            "-c",
            "import hashlib, sys; print(hashlib.sha256(sys.argv[1].encode()).hexdigest())",
            content,
        ]))
    };
    let page = format!(
        r#"<a href="../../files/pip-22.0-py3-none-any.whl#sha256={good}" data-requires-python="&gt;=3.6">a</a>
           <a href="../../files/pip-9.0-py2.py3-none-any.whl#sha256={good}">b</a>
           <a href="../../files/pip-23.0-py3-none-any.whl#sha256={good}" data-requires-python="&gt;=99">c</a>
           <a href="../../files/pip-24.0-py3-none-any.whl#sha256={good}" data-yanked="">d</a>
           <a href="../../files/pip-25.0b1-py3-none-any.whl#sha256={good}">e</a>
           <a href="../../files/pip-26.0-py3-none-any.whl">no hash</a>
           <a href="../../files/pip-27.0.tar.gz#sha256={good}">f</a>"#,
        good = digest("good")
    );
    let files = &[("pip-22.0-py3-none-any.whl", "good"), ("pip-28.0-py3-none-any.whl", "bad")];
    let run = |page: String| {
        let index = serve_index(page, files);
        let mut command = Command::new(python());
        command.arg(script).arg(folder.path()).env("PIP_INDEX_URL", index).env("NO_PROXY", "127.0.0.1");
        command.output().unwrap()
    };
    let fetched = run(page.clone());
    let path = folder.path().join("pip-22.0-py3-none-any.whl");
    assert_eq!(String::from_utf8_lossy(&fetched.stdout).trim(), path.to_string_lossy(), "{fetched:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "good");
    let wrong = format!(r#"<a href="/pip-28.0-py3-none-any.whl#sha256={}">x</a>"#, digest("good"));
    let refused = run(wrong);
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && error.contains("does not have the SHA-256"), "{error}");
    assert!(!error.contains("p%40ss"), "{error}");
    assert_eq!(names(folder.path()), ["pip-22.0-py3-none-any.whl"]);
}

#[test]
fn a_python_without_pip_gets_one() {
    let folder = Folder::create();
    let bare = folder.path().join("bare");
    output(Command::new(python()).args(["-m", "venv", "--without-pip"]).arg(&bare));
    let python = bare.join("bin/python3");
    folder.put("x/function.py", "import texttable\ndef handler(event):\n    return texttable.__version__\n");
    folder.put("x/requirements.txt", "texttable==1.7.0\n");
    let (benchmark, image) = (find(&folder.path().join("x")), host_image(Language::Python, &python));
    let cache = folder.path().join("cache");
    let builder = Builder { benchmark: &benchmark, image: &image, variant: "default", engine: None, cache };
    let package = builder.build(None).unwrap();
    assert_eq!(call_python(&python, &package.location, "{}"), r#""1.7.0""#);
    assert!(names(&builder.cache.join(".tools")).iter().any(|name| name.starts_with("pip-")));
}

/// The image of this machine's Python, made if it is not here.
pub(crate) fn python_image(engine: &Engine) -> RuntimeImage {
    let request = ImageRequest {
        language: Language::Python,
        version: None,
        architecture: Architecture::of_host().unwrap(),
        choice: ImageChoice::Auto,
        image: None,
        repository: None,
    };
    ensure(engine, &request, &Progress::quiet()).unwrap()
}

#[test]
fn dependencies_are_installed_in_a_container_of_the_image() {
    let Some(engine) = engine() else { return };
    let folder = Folder::create();
    folder.put("x/function.py", "import texttable\ndef handler(event):\n    return texttable.__version__\n");
    folder.put("x/requirements.txt", "texttable==1.7.0\n");
    folder.put("x/package.sh", "echo \"$PYTHON_VERSION $PLATFORM $TARGET_ARCHITECTURE\" > \"$1/shrunk\"\n");
    let benchmark = find(&folder.path().join("x"));
    // Without its origin, the image is as good as one from a registry, only poorer: it has no pip and few tools.
    let image = RuntimeImage { interpreter: None, ..python_image(&engine) };
    let cache = folder.path().join("cache");
    let builder =
        Builder { benchmark: &benchmark, image: &image, variant: "default", engine: Some(&engine), cache };
    let package = builder.build(None).unwrap();
    assert_eq!(call_python(&python(), &package.location, "{}"), r#""1.7.0""#);
    let site_packages = package.location.join(".python_packages/lib/site-packages");
    let shrunk = std::fs::read_to_string(site_packages.join("shrunk")).unwrap();
    let architecture = Architecture::of_host().unwrap();
    assert_eq!(shrunk, format!("{} LOCAL {architecture}\n", image.version));
    assert!(site_packages.join("__pycache__").is_dir());
    assert_eq!(
        names(&package.location.join("function")),
        ["__pycache__", "_sebs_lite_http.py", "function.py", "nosql.py", "storage.py"]
    );

    folder.put("x/requirements.txt", "./gone.whl\n");
    let error = builder.build(None).unwrap_err().to_string();
    assert!(error.contains("`requirements.txt`") && error.contains("gone.whl"), "{error}");

    folder.put("x/function.js", "exports.handler = async () => 1;");
    folder.put("x/package.json", r#"{"dependencies": {"local": "file:./local"}}"#);
    let benchmark = find(&folder.path().join("x"));
    let image = RuntimeImage { language: Language::Nodejs, version: "20".to_string(), ..image.clone() };
    let builder = Builder { benchmark: &benchmark, image: &image, ..builder };
    let error = builder.build(None).unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("`npm` is needed"), "{error}");
}
