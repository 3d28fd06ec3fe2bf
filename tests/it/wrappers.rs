//! The wrappers that functions import, in each interpreter of this host, and in a package that is served.

mod objects;
mod relay;
mod tables;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use sebs_lite::faas::Language;
use serde_json::{Value, json};

use crate::program::{Place, words};
use crate::storage_servers::{ACCESS_KEY, Kind, SECRET_KEY, Server};
use crate::support::{self, Folder};
use crate::wire::{self, Interpreter};

/// A process that calls the wrappers as it is asked to, by `drive.py` or `drive.js`.
struct Driver {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    folder: Folder,
    language: Language,
    /// What an assertion names.
    about: String,
}

/// What a function would have caught.
#[derive(Debug)]
struct Caught {
    kind: String,
    code: String,
    text: String,
}

impl Driver {
    fn start(interpreter: &Interpreter, environment: &[(&str, &str)]) -> Driver {
        let folder = Folder::create();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let sources = root.join("src/benchmark/wrappers").join(interpreter.language.name());
        for source in std::fs::read_dir(sources).unwrap() {
            let source = source.unwrap();
            let name = source.file_name().into_string().unwrap();
            if source.path().is_file() {
                folder.put(&format!("function/{name}"), std::fs::read(source.path()).unwrap());
            }
        }
        let driver = match interpreter.language {
            Language::Python => "tests/it/wrappers/drive.py",
            Language::Nodejs => "tests/it/wrappers/drive.js",
        };
        let mut process = interpreter
            .command()
            .arg(root.join(driver))
            .arg(folder.path())
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Driver {
            input: process.stdin.take(),
            output: BufReader::new(process.stdout.take().unwrap()),
            process,
            folder,
            language: interpreter.language,
            about: interpreter.about(),
        }
    }

    /// Calls a method of `module`'s client.
    fn try_call(&mut self, module: &str, method: &str, arguments: Value) -> Result<Value, Caught> {
        let asked = json!({"module": module, "method": method, "arguments": arguments});
        writeln!(self.input.as_mut().unwrap(), "{asked}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let mut told: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{}: {method}: {error}: {line}", self.about));
        let text = |value: &Value| value.as_str().map(str::to_string).unwrap_or_default();
        match told.get("error") {
            None => Ok(told["value"].take()),
            Some(error) => Err(Caught {
                kind: text(&error["type"]),
                code: text(&error["code"]),
                text: text(&error["text"]),
            }),
        }
    }

    #[track_caller]
    fn call(&mut self, module: &str, method: &str, arguments: Value) -> Value {
        let called = self.try_call(module, method, arguments);
        called.unwrap_or_else(|error| panic!("{}: {method}: {error:?}", self.about))
    }

    #[track_caller]
    fn refused(&mut self, module: &str, method: &str, arguments: Value) -> Caught {
        let called = self.try_call(module, method, arguments);
        called.expect_err(&format!("{}: {method}", self.about))
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// Ends its input, and with it the process, unless a connection kept it alive.
    fn end(mut self) {
        drop(self.input.take());
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{}: {status}", self.about);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Every Python, and every Node.js; where there is none, that is said.
fn interpreters() -> impl Iterator<Item = &'static Interpreter> {
    support::has_node();
    wire::all()
}

/// The oldest and the newest Python, and every Node.js, for what takes long.
fn few_interpreters() -> impl Iterator<Item = &'static Interpreter> {
    let minor = |interpreter: &&Interpreter| interpreter.version[2..].parse::<u32>().unwrap();
    let pythons = || wire::pythons().iter();
    let (oldest, newest) = (pythons().min_by_key(minor).unwrap(), pythons().max_by_key(minor).unwrap());
    let newest = Some(newest).filter(|newest| newest.version != oldest.version);
    support::has_node();
    std::iter::once(oldest).chain(newest).chain(wire::nodes())
}

const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Requests, each with the `Authorization` that was published for it, as far as they are of a kind that is sent: their
/// paths are as in S3, neither resolved nor encoded twice.
fn published() -> Vec<(Value, String)> {
    let mut all = Vec::new();
    // The example of the AWS General Reference, "Signature Version 4 signing process".
    let general = |service: &str| {
        json!({"access": "AKIDEXAMPLE", "secret": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
               "region": "us-east-1", "service": service})
    };
    let content_type = "application/x-www-form-urlencoded; charset=utf-8";
    let request = json!({
        "method": "GET", "path": "/", "query": [["Version", "2010-05-08"], ["Action", "ListUsers"]],
        "headers": [["X-Amz-Date", "20150830T123600Z"], ["Host", "iam.amazonaws.com"], ["Content-Type", content_type]],
        "payload_hash": EMPTY, "key": general("iam"), "stamp": "20150830T123600Z",
    });
    let header = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
                  SignedHeaders=content-type;host;x-amz-date, \
                  Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";
    all.push((request, header.to_string()));
    // Cases of the aws-sig-v4-test-suite.
    let mut suite = |method: &str, path: &str, query: Value, more: Value, signature: &str| {
        let mut headers =
            vec![json!(["Host", "example.amazonaws.com"]), json!(["X-Amz-Date", "20150830T123600Z"])];
        headers.extend(more.as_array().unwrap().iter().cloned());
        let request = json!({
            "method": method, "path": path, "query": query, "headers": headers, "payload_hash": EMPTY,
            "key": general("service"), "stamp": "20150830T123600Z",
        });
        all.push((request, signature.to_string()));
    };
    let vanilla = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
    suite("GET", "/", json!([]), json!([]), vanilla);
    let post = "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b";
    suite("POST", "/", json!([]), json!([]), post);
    let ordered = "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500";
    suite("GET", "/", json!([["Param2", "value2"], ["Param1", "value1"]]), json!([]), ordered);
    let trimmed = "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736";
    let spaces = json!([["My-Header1", " value1"], ["My-Header2", " \"a   b   c\""]]);
    suite("GET", "/", json!([]), spaces, trimmed);
    let unicode = "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85";
    suite("GET", "/ሴ", json!([]), json!([]), unicode);
    let kept = "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let unreserved = "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f";
    suite("GET", kept, json!([]), json!([]), unreserved);
    all.extend(published_for_s3());
    all
}

/// The examples of "Signature Calculations for the Authorization Header: Transferring Payload in a Single Chunk" of the
/// S3 API Reference.
fn published_for_s3() -> Vec<(Value, String)> {
    let example = |method: &str, path: &str, query: Value, more: Value, hash: &str, signature: &str| {
        let mut headers = vec![
            json!(["Host", "examplebucket.s3.amazonaws.com"]),
            json!(["x-amz-date", "20130524T000000Z"]),
            json!(["x-amz-content-sha256", hash]),
        ];
        headers.extend(more.as_array().unwrap().iter().cloned());
        let key = json!({"access": "AKIAIOSFODNN7EXAMPLE", "secret": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                         "region": "us-east-1", "service": "s3"});
        let request = json!({"method": method, "path": path, "query": query, "headers": headers,
                             "payload_hash": hash, "key": key, "stamp": "20130524T000000Z"});
        (request, signature.to_string())
    };
    vec![
        example(
            "GET",
            "/test.txt",
            json!([]),
            json!([["Range", "bytes=0-9"]]),
            EMPTY,
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        example(
            "PUT",
            "/test$file.text",
            json!([]),
            json!([["Date", "Fri, 24 May 2013 00:00:00 GMT"], ["x-amz-storage-class", "REDUCED_REDUNDANCY"]]),
            "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        example(
            "GET",
            "/",
            json!([["lifecycle", ""]]),
            json!([]),
            EMPTY,
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        example(
            "GET",
            "/",
            json!([["prefix", "J"], ["max-keys", "2"]]),
            json!([]),
            EMPTY,
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ]
}

#[test]
fn published_signatures_are_met() {
    let published = published();
    let requests: Vec<&Value> = published.iter().map(|(request, _)| request).collect();
    for interpreter in interpreters() {
        let mut driver = Driver::start(interpreter, &[]);
        let headers = driver.call("", "sign", json!([requests]));
        assert_eq!(headers.as_array().unwrap().len(), published.len());
        for (header, (request, expected)) in headers.as_array().unwrap().iter().zip(&published) {
            let is_met = header.as_str().unwrap().ends_with(expected.as_str());
            assert!(is_met, "{}: {request}: {header}", driver.about);
        }
        driver.end();
    }
}

#[test]
fn what_is_missing_in_the_environment_is_named_when_a_client_is_made() {
    for interpreter in interpreters() {
        let mut driver = Driver::start(interpreter, &[]);
        let error = driver.refused("storage", "download_stream", json!(["b", "k"]));
        assert!(error.text.contains("MINIO_ADDRESS is not set"), "{error:?}");
        let error = driver.refused("nosql", "get", json!(["t", ["k", "v"], null]));
        assert!(error.text.contains("NOSQL_STORAGE_TYPE is not set"), "{error:?}");

        let mut environment = vec![
            ("MINIO_ADDRESS", "https://x:1"),
            ("MINIO_ACCESS_KEY", "who"),
            ("NOSQL_STORAGE_TYPE", "mongodb"),
            ("NOSQL_STORAGE_ENDPOINT", "127.0.0.1:1"),
        ];
        let mut driver = Driver::start(interpreter, &environment);
        let error = driver.refused("storage", "download_stream", json!(["b", "k"]));
        assert!(error.text.contains("MINIO_SECRET_KEY is not set"), "{error:?}");
        let error = driver.refused("nosql", "get", json!(["t", ["k", "v"], null]));
        assert!(error.text.contains("`mongodb`"), "{error:?}");

        environment[2].1 = "scylladb";
        environment.push(("MINIO_SECRET_KEY", "hush-hush"));
        let mut driver = Driver::start(interpreter, &environment);
        let error = driver.refused("storage", "download_stream", json!(["b", "k"]));
        assert!(error.text.contains("MINIO_ADDRESS is `https://x:1`"), "{error:?}");
        let error = driver.refused("nosql", "get", json!(["cart", ["k", "v"], null]));
        assert!(error.text.contains("NOSQL_STORAGE_TABLE_cart is not set"), "{error:?}");
    }
}

const PYTHON_FUNCTION: &str = "
import io
from . import nosql, storage

def handler(event):
    client, tables = storage.storage.get_instance(), nosql.nosql.get_instance()
    key = client.upload_stream('files', 'folder/in.txt', io.BytesIO(b'moved'))
    tables.insert('cart', ('id', 'a'), ('product', 'b'), {'key': key, 'price': 1.5})
    item = tables.get('cart', ('id', 'a'), ('product', 'b'))
    client.download('files', item['key'], '/tmp/below/out.txt')
    return {'result': [open('/tmp/below/out.txt').read(), item['price']]}
";

const NODE_FUNCTION: &str = "
const fs = require('fs');
const storage = require('./storage');
const nosql = require('./nosql');

exports.handler = async () => {
  const [client, tables] = [new storage.storage(), nosql.nosql.get_instance()];
  const [stream, promise, key] = client.uploadStream('files', 'folder/in.txt');
  stream.end('moved');
  await promise;
  await tables.insert('cart', ['id', 'a'], ['product', 'b'], { key, price: 1.5 });
  const item = await tables.get('cart', ['id', 'a'], ['product', 'b']);
  await client.download('files', item.key, '/tmp/below/out.txt');
  return { result: [fs.readFileSync('/tmp/below/out.txt', 'utf8'), item.price] };
};
";

#[test]
fn a_plain_folder_with_a_function_is_served_with_the_wrappers() {
    let Some(engine) = support::engine() else { return };
    let (objects, tables) = (Server::start(&engine, Kind::SeaweedFs), Server::start(&engine, Kind::Dynoxide));
    objects.objects().create_bucket("files").unwrap();
    tables.tables().create_table("real-cart", "id", Some("product")).unwrap();
    let environment = [
        format!("MINIO_ADDRESS={}", objects.inner_address),
        format!("MINIO_ACCESS_KEY={ACCESS_KEY}"),
        format!("MINIO_SECRET_KEY={SECRET_KEY}"),
        "NOSQL_STORAGE_TYPE=scylladb".to_string(),
        format!("NOSQL_STORAGE_ENDPOINT={}", tables.inner_address),
        "NOSQL_STORAGE_TABLE_cart=real-cart".to_string(),
    ];
    let place = Place::create("wrappers");
    for (language, file, code) in
        [("python", "function.py", PYTHON_FUNCTION), ("nodejs", "function.js", NODE_FUNCTION)]
    {
        if language == "nodejs" && !support::has_node() {
            continue;
        }
        place.write(&format!("{language}/{file}"), code);
        let folder = place.path(language).display().to_string();
        let name = support::unique("wrappers");
        let input = place.write("input.json", "{}").display().to_string();
        let mut more = vec!["--input", &input];
        more.extend(environment.iter().flat_map(|variable| ["--env", variable]));
        place.run(&words(&folder, &name, &more)).expect(0, &["cold"]);
        let output = &place.invocations()[0]["output"]["result"]["output"];
        assert_eq!(output["result"], json!(["moved", 1.5]), "{language}");
    }
    objects.container.remove().unwrap();
    tables.container.remove().unwrap();
}
