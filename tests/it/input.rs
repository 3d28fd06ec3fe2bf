//! `input.py` scripts, run by the Python of this machine.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sebs_lite::benchmark::{
    Benchmark, InputCallbacks, InputProcess, InputPython, InputRequest, NoStorage, NosqlItem, TableKeys,
    Verdict,
};
use sebs_lite::cancel::Cancel;
use sebs_lite::faas::Language;
use sebs_lite::progress::Progress;
use sebs_lite::storage::Value;
use sebs_lite::{Error, Result};
use serde_json::json;

use crate::benchmark::{find, python_image};
use crate::support::{Folder, engine};

const GENERATE: &str = "def generate_input(data_dir, size, bucket, inputs, outputs, upload, nosql):\n";

pub(crate) fn start(benchmark: &Benchmark, cancel: &Cancel) -> Result<Option<InputProcess>> {
    InputProcess::start(&InputRequest {
        benchmark,
        python: InputPython::Any,
        engine: None,
        verbose: false,
        cancel,
        progress: &Progress::quiet(),
    })
}

/// The benchmark `x`, with that text as its `input.py`.
fn benchmark(folder: &Folder, script: &str) -> Benchmark {
    folder.put("root/g/x/function.py", "");
    folder.put("root/g/x/input.py", script);
    find(&folder.path().join("root/g/x"))
}

fn generate(folder: &Folder, script: &str) -> Result<serde_json::Value> {
    let mut process = start(&benchmark(folder, script), &Cancel::new())?.unwrap();
    let input = process.generate_input("test", None, &[], &[], &mut NoStorage);
    process.stop().unwrap();
    input
}

/// Notes what it is asked for.
#[derive(Default)]
struct Recorder {
    uploads: Vec<(usize, String, PathBuf)>,
    items: Vec<NosqlItem>,
}

impl InputCallbacks for Recorder {
    fn upload(&mut self, index: usize, key: &str, path: &Path) -> Result<()> {
        self.uploads.push((index, key.to_string(), path.to_path_buf()));
        if key == "refused" { Err(Error::new("the disk is full")) } else { Ok(()) }
    }

    fn nosql_write(&mut self, item: &NosqlItem) -> Result<()> {
        self.items.push(item.clone());
        Ok(())
    }

    fn download(&mut self, bucket: &str, key: &str, path: &Path) -> Result<()> {
        std::fs::write(path, format!("{bucket}/{key}")).unwrap();
        Ok(())
    }
}

#[test]
fn a_script_says_what_it_needs_and_reaches_storage_through_us() {
    let folder = Folder::create();
    let data = folder.put("benchmarks-data/deep/x/a.txt", "a");
    let script = r#"
import os, tempfile
from sebs.utils import get_project_root
print("loaded")
def buckets_count():
    return (1, 2)
def allocate_nosql() -> dict:
    return {"cart": {"primary_key": "id", "secondary_key": "item"}, "log": {"primary_key": "at"}}
def generate_input(data_dir, size, bucket, inputs, outputs, upload, nosql):
    upload(0, "a.txt", os.path.join(data_dir, "a.txt"))
    try:
        upload(1, "refused", "relative")
        caught = "nothing"
    except Exception as error:
        caught = str(error)
    nosql("x", "cart", {"price": 1.5, "huge": 3 ** 60}, ("id", "1"), ("item", "a"))
    nosql("x", "log", {}, ("at", 7))
    linked = os.path.exists(get_project_root() / "benchmarks-data" / "deep" / "x" / "a.txt")
    return {"size": size, "bucket": bucket, "in": inputs, "out": outputs, "caught": caught, "linked": linked}
def validate_output(data_dir, input_config, output, language, storage):
    path = os.path.join(tempfile.mkdtemp(), "got")
    storage.download("b", "k", path)
    got = open(path).read()
    return None if output["result"] == got else f"{language}: {got}, not {output['result']}"
"#;
    let mut process = start(&benchmark(&folder, script), &Cancel::new()).unwrap().unwrap();
    assert_eq!(process.buckets_count().unwrap(), Some((1, 2)));
    let keys = |table: &str, primary: &str, secondary: Option<&str>| TableKeys {
        table: table.to_string(),
        primary_key: primary.to_string(),
        secondary_key: secondary.map(str::to_string),
    };
    let tables = process.allocate_nosql().unwrap().unwrap();
    assert_eq!(tables, [keys("cart", "id", Some("item")), keys("log", "at", None)]);
    let mut recorder = Recorder::default();
    let (inputs, outputs) = (["i".to_string()], ["o".to_string(), "p".to_string()]);
    let input = process.generate_input("small", Some("b"), &inputs, &outputs, &mut recorder).unwrap();
    let expected = json!({
        "size": "small", "bucket": "b", "in": ["i"], "out": ["o", "p"],
        "caught": "the disk is full", "linked": true
    });
    assert_eq!(input, expected);
    let canonical = std::fs::canonicalize(data).unwrap();
    assert_eq!(recorder.uploads[0], (0, "a.txt".to_string(), canonical));
    assert!(recorder.uploads[1].2.is_absolute());
    assert_eq!(recorder.items[0].primary_key, ("id".to_string(), Value::from("1")));
    assert_eq!(recorder.items[0].secondary_key, Some(("item".to_string(), Value::from("a"))));
    assert_eq!(recorder.items[0].data["price"].to_json(), "1.5");
    assert_eq!(recorder.items[0].data["huge"].to_json(), "42391158275216203514294433201");
    assert_eq!((recorder.items[1].table.as_str(), &recorder.items[1].secondary_key), ("log", &None));
    let mut verdict =
        |output: &str| process.validate_output(&input, output, Language::Nodejs, &mut recorder).unwrap();
    assert_eq!(verdict(r#"{"result": "b/k"}"#), Verdict::Valid);
    assert_eq!(verdict(r#"{"result": 1}"#), Verdict::Invalid("nodejs: b/k, not 1".to_string()));
    process.stop().unwrap();
}

#[test]
fn what_a_script_does_not_have_is_not_asked_of_it() {
    let folder = Folder::create();
    let script = format!("{GENERATE}    return {{'args': [data_dir, bucket, inputs, outputs, nosql]}}\n");
    let mut process = start(&benchmark(&folder, &script), &Cancel::new()).unwrap().unwrap();
    assert_eq!(process.buckets_count().unwrap(), None);
    assert_eq!(process.allocate_nosql().unwrap(), None);
    let input = process.generate_input("test", None, &[], &[], &mut NoStorage).unwrap();
    assert_eq!(input, json!({ "args": [null, null, [], [], null] }));
    let verdict = process.validate_output(&input, "{}", Language::Python, &mut NoStorage).unwrap();
    assert_eq!(verdict, Verdict::NotValidated);
    process.stop().unwrap();
    std::fs::remove_file(folder.path().join("root/g/x/input.py")).unwrap();
    let without = find(&folder.path().join("root/g/x"));
    assert!(start(&without, &Cancel::new()).unwrap().is_none());
}

#[test]
fn a_broken_script_is_shown_with_its_path_and_last_lines() {
    let folder = Folder::create();
    let cases = [
        ("import no_such_module\n", &["needs the Python module `no_such_module`", "`--input-python`"][..]),
        ("def f(:\n", &["SyntaxError", "failed to load"]),
        ("import os\nos._exit(3)\n", &["exit status: 3"]),
        (&format!("{GENERATE}    return [1, 2]\n"), &["should return a dict", "returned [1,2]"]),
        (&format!("{GENERATE}    return {{'x': float('nan')}}\n"), &["ValueError", "`generate_input`"]),
        (
            &format!("{GENERATE}    helper()\ndef helper():\n    raise KeyError('why')\n"),
            &["line 2, in generate_input", "line 4, in helper", "KeyError: 'why'", "no data folder"],
        ),
        (&format!("{GENERATE}    upload(0, 'a', 'b')\n"), &["no object storage is configured to upload `a`"]),
        (
            &format!("print('last words')\n{GENERATE}    import os; os._exit(4)\n"),
            &["exit status: 4", "last words"],
        ),
    ];
    for (script, parts) in cases {
        let error = generate(&folder, script).unwrap_err().to_string();
        assert!(error.contains("root/g/x/input.py"), "{error}");
        for part in parts {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
        assert!(!error.contains("input_worker.py"), "{error}");
    }
    let script = format!("def buckets_count():\n    return 'x'\n{GENERATE}    return {{}}\n");
    let mut process = start(&benchmark(&folder, &script), &Cancel::new()).unwrap().unwrap();
    let error = process.buckets_count().unwrap_err().to_string();
    assert!(error.contains("a pair of counts") && error.contains("returned \"x\""), "{error}");
    // A failed call does not end the process.
    assert_eq!(process.generate_input("test", None, &[], &[], &mut NoStorage).unwrap(), json!({}));
}

#[test]
fn a_script_that_hangs_dies_with_the_cancel_token() {
    let folder = Folder::create();
    let pid = folder.path().join("pid");
    let script = format!(
        "import os, subprocess\n{GENERATE}    child = subprocess.Popen(['sleep', '600'])\n    \
         open({:?}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n    child.wait()\n",
        pid.display().to_string()
    );
    let cancel = Cancel::new();
    let mut process = start(&benchmark(&folder, &script), &cancel).unwrap().unwrap();
    let trigger = cancel.clone();
    let written = pid.clone();
    let waiter = std::thread::spawn(move || {
        while std::fs::read_to_string(&written).map_or(true, |text| text.split(' ').count() < 2) {
            std::thread::sleep(Duration::from_millis(1));
        }
        trigger.trigger();
    });
    let error = process.generate_input("test", None, &[], &[], &mut NoStorage).unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    waiter.join().unwrap();
    drop(process);
    let deadline = Instant::now() + Duration::from_secs(10);
    for pid in std::fs::read_to_string(&pid).unwrap().split(' ') {
        let stat = format!("/proc/{pid}/stat");
        while std::fs::read_to_string(&stat).is_ok_and(|text| !text.contains(") Z ")) {
            assert!(Instant::now() < deadline, "process {pid} lives on");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn a_script_runs_in_a_container_where_no_python_is_new_enough() {
    let Some(engine) = engine() else { return };
    let folder = Folder::create();
    folder.put("benchmarks-data/x/a.txt", "a");
    let script = "import os, socket\n\
                  def generate_input(data_dir, size, bucket, inputs, outputs, upload, nosql):\n\
                  \x20   open('made', 'w').write(open(os.path.join(data_dir, 'a.txt')).read())\n\
                  \x20   upload(0, 'k', 'made')\n\
                  \x20   return {'host': socket.gethostname(), 'uid': os.getuid()}\n";
    let benchmark = benchmark(&folder, script);
    let image = python_image(&engine);
    let request = InputRequest {
        benchmark: &benchmark,
        python: InputPython::Image(&image),
        engine: Some(&engine),
        verbose: false,
        cancel: &Cancel::new(),
        progress: &Progress::quiet(),
    };
    let mut process = InputProcess::start(&request).unwrap().unwrap();
    let mut recorder = Recorder::default();
    let input = process.generate_input("test", None, &[], &[], &mut recorder).unwrap();
    let (_, key, uploaded) = &recorder.uploads[0];
    assert_eq!((key.as_str(), std::fs::read_to_string(uploaded).unwrap().as_str()), ("k", "a"));
    assert_eq!(input["host"].as_str().unwrap().len(), 12, "{input}");
    process.stop().unwrap();
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_ne!(input["host"].as_str().unwrap(), name.trim());

    folder.put("root/g/x/input.py", "import os\nprint('so long')\nos._exit(5)\n");
    let error = InputProcess::start(&request).unwrap_err().to_string();
    assert!(error.contains("exit status: 5") && error.contains("so long"), "{error}");
}
