//! The bundled benchmarks that move data, on real storage: run on the runtime images, validated, and refused when wrong.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sebs_lite::benchmark::{Benchmark, InputCallbacks, InputProcess, NosqlItem, Search, Verdict};
use sebs_lite::cache::Cache;
use sebs_lite::cancel::Cancel;
use sebs_lite::docker::Engine;
use sebs_lite::faas::{FunctionConfig, Language, System};
use sebs_lite::local::{BuildChoices, Local, LocalOptions, prepare};
use sebs_lite::progress::Progress;
use sebs_lite::storage::{DynamoClient, Item, S3Client, Value as Stored};
use sebs_lite::{Error, Result};
use serde_json::{Value, json};

use crate::benchmark::{output, python};
use crate::input::start;
use crate::program::{Ended, Place};
use crate::storage_servers::{ACCESS_KEY, Kind, SECRET_KEY, Server};
use crate::support::{self, Folder, has_node, unique};

const BUCKET: &str = "sebs-benchmarks-test";
const TABLE: &str = "sebs-benchmarks-test-130.crud-api-shopping_cart";

/// Real stores, and where benchmarks are packaged.
struct Stores {
    engine: Engine,
    objects: Option<Server>,
    tables: Option<Server>,
    folder: Folder,
}

impl Stores {
    fn of_objects(engine: Engine) -> Stores {
        let server = Server::start(&engine, Kind::SeaweedFs);
        server.objects().create_bucket(BUCKET).unwrap();
        Stores { engine, objects: Some(server), tables: None, folder: Folder::create() }
    }

    fn of_tables(engine: Engine) -> Stores {
        let server = Server::start(&engine, Kind::Dynoxide);
        server.tables().create_table(TABLE, "cart_id", Some("product_id")).unwrap();
        Stores { engine, objects: None, tables: Some(server), folder: Folder::create() }
    }

    fn objects(&self) -> &Server {
        self.objects.as_ref().expect("the test has started a server of objects")
    }

    fn client(&self) -> S3Client {
        self.objects().objects()
    }

    fn benchmark(&self, name: &str) -> Benchmark {
        let bundled = self.folder.path().join("bundled");
        Benchmark::find(name, &Search { roots: &[], data: None, extract_to: &bundled }).unwrap()
    }

    /// What a function is told of the stores.
    fn environment(&self) -> Vec<(String, String)> {
        let mut environment = Vec::new();
        if let Some(objects) = &self.objects {
            environment.push(("MINIO_ADDRESS", objects.inner_address.as_str()));
            environment.push(("MINIO_ACCESS_KEY", ACCESS_KEY));
            environment.push(("MINIO_SECRET_KEY", SECRET_KEY));
        }
        if let Some(tables) = &self.tables {
            environment.push(("NOSQL_STORAGE_TYPE", "scylladb"));
            environment.push(("NOSQL_STORAGE_ENDPOINT", tables.inner_address.as_str()));
            environment.push(("NOSQL_STORAGE_TABLE_shopping_cart", TABLE));
        }
        environment.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    fn remove(self) {
        for server in self.objects.into_iter().chain(self.tables) {
            server.container.remove().unwrap();
        }
    }
}

/// What `input.py` asks for, done by the library's clients as a command does it.
struct Callbacks {
    benchmark: String,
    objects: Option<S3Client>,
    tables: Option<DynamoClient>,
}

impl Callbacks {
    fn objects(&self) -> Result<&S3Client> {
        self.objects.as_ref().ok_or_else(|| Error::new("there is no storage of objects"))
    }
}

impl InputCallbacks for Callbacks {
    fn upload(&mut self, index: usize, key: &str, path: &Path) -> Result<()> {
        self.objects()?.put_file(BUCKET, &format!("{}-{index}-input/{key}", self.benchmark), path)
    }

    fn nosql_write(&mut self, item: &NosqlItem) -> Result<()> {
        assert_eq!((item.benchmark.as_str(), item.table.as_str()), ("130.crud-api", "shopping_cart"));
        let keys = [Some(item.primary_key.clone()), item.secondary_key.clone()];
        let mut stored = item.data.clone();
        stored.extend(keys.into_iter().flatten());
        self.tables
            .as_ref()
            .ok_or_else(|| Error::new("there is no storage of tables"))?
            .put_item(TABLE, &stored)
    }

    fn download(&mut self, bucket: &str, key: &str, path: &Path) -> Result<()> {
        self.objects()?.get_to_file(bucket, key, path)
    }
}

/// A benchmark with its input made and its function deployed.
struct Deployed<'a> {
    stores: &'a Stores,
    language: Language,
    script: InputProcess,
    callbacks: Callbacks,
    input: Value,
    local: Local,
    function: sebs_lite::faas::Function,
}

impl<'a> Deployed<'a> {
    fn new(stores: &'a Stores, name: &str, language: Language, size: &str) -> Deployed<'a> {
        let benchmark = stores.benchmark(name);
        let mut script = start(&benchmark, &Cancel::new()).unwrap().unwrap();
        let mut callbacks = Callbacks {
            benchmark: name.to_string(),
            objects: stores.objects.as_ref().map(Server::objects),
            tables: stores.tables.as_ref().map(Server::tables),
        };
        let counts = script.buckets_count().unwrap().unwrap_or((0, 0));
        let paths = |count: u32, kind: &str| -> Vec<String> {
            (0..count).map(|index| format!("{name}-{index}-{kind}")).collect()
        };
        let (inputs, outputs) = (paths(counts.0, "input"), paths(counts.1, "output"));
        let input = script.generate_input(size, Some(BUCKET), &inputs, &outputs, &mut callbacks).unwrap();

        let cancel = Cancel::new();
        let cache = Cache::open(&stores.folder.path().join("cache"), &cancel).unwrap();
        let choices = BuildChoices { language: Some(language), ..BuildChoices::default() };
        let package = prepare(&benchmark, &choices, &stores.engine, &cache, &cancel, &Progress::quiet())
            .unwrap()
            .package;
        let options = LocalOptions { env: stores.environment(), ..LocalOptions::default() };
        let mut local = Local::new(stores.engine.without_cancel(), cache, options, &cancel).unwrap();
        let config = FunctionConfig::from_package(&package);
        let function = local.get_function(&package, Some(&unique("suite")), &config).unwrap();
        Deployed { stores, language, script, callbacks, input, local, function }
    }

    /// What the handler returns for an event.
    fn invoke(&mut self, event: &Value) -> Value {
        let result = self.local.invoke(&mut self.function, &event.to_string()).unwrap();
        let reply: Value = serde_json::from_str(result.output.get()).unwrap();
        assert!(!result.stats.failure, "{} {}: {reply}", self.callbacks.benchmark, self.language);
        reply["result"]["output"].clone()
    }

    fn validate(&mut self, output: &Value) -> Verdict {
        let output = output.to_string();
        self.script.validate_output(&self.input, &output, self.language, &mut self.callbacks).unwrap()
    }

    /// Asserts that an output is refused, for that reason.
    fn refuses(&mut self, output: &Value, reason: &str) {
        match self.validate(output) {
            Verdict::Invalid(told) if told.contains(reason) => {}
            verdict => panic!("{} should be refused with `{reason}`: {verdict:?}", self.callbacks.benchmark),
        }
    }

    /// Asserts that an output is refused while the object it names holds something else.
    fn refuses_stored(&mut self, output: &Value, content: &[u8], reason: &str) {
        let (client, key) = (self.stores.client(), output["result"]["key"].as_str().unwrap().to_string());
        let right = client.get_bytes(BUCKET, &key, 1 << 30).unwrap();
        client.put_bytes(BUCKET, &key, content).unwrap();
        let mut told = output.clone();
        told["measurement"]["upload_size"] = json!(content.len());
        self.refuses(&told, reason);
        client.put_bytes(BUCKET, &key, &right).unwrap();
    }

    /// The object that an output names.
    fn stored(&self, output: &Value) -> Vec<u8> {
        self.stores.client().get_bytes(BUCKET, output["result"]["key"].as_str().unwrap(), 1 << 30).unwrap()
    }

    /// What holds for each benchmark that stores an object: it is measured, and must be where and what is told.
    fn check_object(&mut self, output: &Value) {
        assert_eq!(self.validate(output), Verdict::Valid, "{} {}", self.callbacks.benchmark, self.language);
        for time in ["download_time", "upload_time", "compute_time"] {
            assert!(output["measurement"][time].as_f64().unwrap() > 0.0, "{output}");
        }
        let size = self.stored(output).len();
        assert_eq!(output["measurement"]["upload_size"], json!(size));
        for (pointer, value, reason) in [
            ("/result", json!(null), "the result should name"),
            ("/result/bucket", json!("another"), "another"),
            ("/result/key", json!("elsewhere/x"), "should be below"),
            (
                "/result/key",
                json!(format!("{}-0-output/none", self.callbacks.benchmark)),
                "cannot be fetched",
            ),
            ("/measurement/upload_size", json!(size + 1), "bytes"),
        ] {
            let mut wrong = output.clone();
            *wrong.pointer_mut(pointer).unwrap() = value;
            self.refuses(&wrong, reason);
        }
    }

    fn end(mut self) {
        self.script.stop().unwrap();
        self.local.shutdown().unwrap();
    }
}

fn languages() -> Vec<Language> {
    if has_node() { vec![Language::Python, Language::Nodejs] } else { vec![Language::Python] }
}

/// Runs a piece of Python that has a benchmark's `input.py` as `script`.
fn with_script(benchmark: &Benchmark, program: &str, argument: &Path) {
    let preamble = "import importlib.util, sys\n\
        sys.dont_write_bytecode = True\n\
        spec = importlib.util.spec_from_file_location('script', sys.argv[1])\n\
        script = importlib.util.module_from_spec(spec)\n\
        spec.loader.exec_module(script)\n";
    let file = benchmark.input_script().unwrap();
    output(Command::new(python()).args(["-c", &format!("{preamble}{program}")]).arg(file).arg(argument));
}

#[test]
fn the_uploader_stores_what_a_url_leads_to() {
    let Some(engine) = support::engine() else { return };
    let stores = Stores::of_objects(engine);
    for language in languages() {
        let mut uploader = Deployed::new(&stores, "120.uploader", language, "test");
        let event = uploader.input.clone();
        let output = uploader.invoke(&event);
        uploader.check_object(&output);
        assert_eq!(output["measurement"]["download_size"], json!(65536));
        let key = output["result"]["key"].as_str().unwrap();
        assert!(key.starts_with("120.uploader-0-output/object-test.") && key.ends_with(".bin"), "{key}");
        assert!(!output.to_string().contains("X-Amz"), "the signature is nobody's business: {output}");
        let right = uploader.stored(&output);
        uploader.refuses_stored(&output, &right[1..], "download_size");
        let mut other = right.clone();
        other[30_000] ^= 1;
        uploader.refuses_stored(&output, &other, "is not what");
        // Each invocation stores under a name of its own.
        assert_ne!(uploader.invoke(&event)["result"]["key"], output["result"]["key"]);

        // A name that has to be written otherwise in a URL, and a URL of somebody else's.
        stores.client().put_bytes(BUCKET, "in/a b+ü'(1)*~.txt", b"odd").unwrap();
        let odd = json!(format!("s3://{BUCKET}/in/a b+ü'(1)*~.txt"));
        uploader.input["object"]["url"] = odd;
        let event = uploader.input.clone();
        let output = uploader.invoke(&event);
        assert_eq!(uploader.stored(&output), b"odd");
        assert_eq!(uploader.validate(&output), Verdict::Valid);
        for (url, reason) in [
            (format!("http://{}/{BUCKET}/in/x", stores.objects().inner_address), "403"),
            ("file:///etc/passwd".to_string(), "only http://"),
            (format!("s3://{BUCKET}/none"), "404"),
        ] {
            let mut event = uploader.input.clone();
            event["object"]["url"] = json!(url);
            let result = uploader.local.invoke(&mut uploader.function, &event.to_string()).unwrap();
            assert!(result.stats.failure && result.output.get().contains(reason), "{}", result.output);
            assert!(!result.output.get().contains("X-Amz"), "{}", result.output);
        }
        uploader.end();
    }
    stores.remove();
}

#[test]
fn the_cart_holds_what_was_put_into_it() {
    let Some(engine) = support::engine() else { return };
    let stores = Stores::of_tables(engine);
    for language in languages() {
        for size in ["test", "small", "large"] {
            let mut cart = Deployed::new(&stores, "130.crud-api", language, size);
            let event = cart.input.clone();
            // The second one finds what the first has put there, and is right as well.
            for _ in 0..2 {
                let output = cart.invoke(&event);
                assert_eq!(cart.validate(&output), Verdict::Valid, "{language} {size}: {output}");
                assert!(output["measurement"]["compute_time"].as_f64().unwrap() > 0.0);
            }
            cart.end();
        }
    }
    let mut cart = Deployed::new(&stores, "130.crud-api", Language::Python, "small");
    let event = cart.input.clone();
    let output = cart.invoke(&event);
    assert_eq!(output["result"][0]["name"], "Teapot");
    let last = output["result"].as_array().unwrap().len() - 1;
    for (pointer, value, reason) in [
        ("/result".to_string(), json!([]), "10 requests should be answered"),
        ("/result/0/price".to_string(), json!(24), "the product is"),
        ("/result/1".to_string(), json!(null), "the product is"),
        ("/result/6".to_string(), json!(null), "nothing was to be answered"),
        ("/result/5/products".to_string(), json!(["Cup"]), "should hold"),
        ("/result/5/products/0".to_string(), json!("Sword"), "at most, each once"),
        ("/result/5/total_cost".to_string(), json!(1), "the total should be"),
        ("/result/5/avg_price".to_string(), json!(1), "the average"),
        (format!("/result/{last}/products"), json!(["Product 0"]), "should hold"),
    ] {
        let mut wrong = output.clone();
        *wrong.pointer_mut(&pointer).unwrap() = value;
        cart.refuses(&wrong, reason);
    }
    // What is in the table counts, not what the function was asked to read.
    let tables = stores.tables.as_ref().unwrap().tables();
    let key = |name: &str, value: &str| (name.to_string(), Stored::from(value));
    let mut teapot =
        Item::from([key("cart_id", "full-small"), key("product_id", "teapot"), key("name", "Teapot")]);
    teapot.insert("price".to_string(), Stored::from(json!(25)));
    teapot.insert("quantity".to_string(), Stored::from(json!(1)));
    tables.put_item(TABLE, &teapot).unwrap();
    let output = cart.invoke(&event);
    cart.refuses(&output, "the product is");
    cart.end();
    stores.remove();
}

#[test]
fn a_thumbnail_shows_its_image() {
    let Some(engine) = support::engine() else { return };
    let stores = Stores::of_objects(engine);
    let mut thumbnailer = Deployed::new(&stores, "210.thumbnailer", Language::Python, "test");
    let event = thumbnailer.input.clone();
    let right = thumbnailer.invoke(&event);
    thumbnailer.check_object(&right);
    let content = thumbnailer.stored(&right);
    assert_eq!(content[16..24], [0, 0, 0, 90, 0, 0, 0, 60]);
    thumbnailer.refuses_stored(&right, &content[..content.len() - 40], "is no such PNG");
    thumbnailer.refuses_stored(&right, b"GIF89a", "is no such PNG");
    let mut broken = content.clone();
    broken[content.len() / 2] ^= 1;
    thumbnailer.refuses_stored(&right, &broken, "a checksum is wrong");
    let (source, client) = ("210.thumbnailer-0-input/field-600x400.png", stores.client());
    let image = client.get_bytes(BUCKET, source, 1 << 20).unwrap();
    thumbnailer.refuses_stored(&right, &image, "is 600 x 400");
    let mut smaller = event.clone();
    smaller["object"]["width"] = json!(45);
    let output = thumbnailer.invoke(&smaller);
    thumbnailer.refuses(&output, "is 45 x 30");
    // An image whose colours stand elsewhere.
    let path = stores.folder.path().join("other.png");
    let mirrored = "right = script.colour\n\
        script.colour = lambda column, row: right(script.COLUMNS - 1 - column, row)\n\
        script.write_image(sys.argv[2], 600, 400)\n";
    with_script(&stores.benchmark("210.thumbnailer"), mirrored, &path);
    client.put_file(BUCKET, source, &path).unwrap();
    let output = thumbnailer.invoke(&event);
    thumbnailer.refuses(&output, "instead of");
    thumbnailer.end();
    stores.remove();
}

#[test]
fn an_archive_holds_the_files_of_its_folder() {
    let Some(engine) = support::engine() else { return };
    let stores = Stores::of_objects(engine);
    let client = stores.client();
    let folder = "311.compression-0-input/folder-test";
    for language in languages() {
        // Its name begins like that of the folder which is to be packed.
        client.put_bytes(BUCKET, &format!("{folder}-other/x"), b"x").unwrap();
        let mut packer = Deployed::new(&stores, "311.compression", language, "test");
        let event = packer.input.clone();
        let right = packer.invoke(&event);
        packer.check_object(&right);
        let archive = packer.stored(&right);
        let sizes = &right["measurement"];
        assert!(archive.len() as u64 * 10 < sizes["download_size"].as_u64().unwrap() * 9, "{sizes}");
        packer.refuses_stored(&right, &archive[..archive.len() - 30], "is no whole archive");
        let mut broken = archive.clone();
        broken[archive.len() / 3] ^= 1;
        packer.refuses_stored(&right, &broken, "is no whole archive");

        let chapter = format!("{folder}/texts/a/chapter 000.txt");
        let text = client.get_bytes(BUCKET, &chapter, 1 << 20).unwrap();
        client.delete(BUCKET, &chapter).unwrap();
        let output = packer.invoke(&event);
        packer.refuses(&output, "has no file `texts/a/chapter 000.txt`");
        let mut other = text.clone();
        other[0] ^= 1;
        client.put_bytes(BUCKET, &chapter, &other).unwrap();
        let output = packer.invoke(&event);
        packer.refuses(&output, "is not what was to be packed");
        client.put_bytes(BUCKET, &chapter, &text).unwrap();
        client.put_bytes(BUCKET, &format!("{folder}/more/empty"), b"").unwrap();
        let output = packer.invoke(&event);
        packer.refuses(&output, "files that were not to be packed: more/empty");
        client.delete(BUCKET, &format!("{folder}/more/empty")).unwrap();
        packer.end();
    }
    stores.remove();
}

/// This host's ffmpeg; a test that needs it says that it is skipped.
fn ffmpeg() -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).map(|folder| folder.join("ffmpeg")).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: this host has no ffmpeg (apt-get install ffmpeg)");
    }
    found
}

#[test]
fn without_an_ffmpeg_of_the_host_the_build_says_how_to_get_one() {
    let Some(_) = support::engine() else { return };
    let place = Place::create("no-ffmpeg");
    let build = |path: &OsStr| {
        let mut command = place.command(&["benchmark", "package", "220.video-processing"]);
        Ended::from(command.env("PATH", path).output().unwrap())
    };
    let bare = place.path("bare");
    std::fs::create_dir(&bare).unwrap();
    for (name, program) in [("bash", PathBuf::from("/bin/bash")), ("python3", python())] {
        std::os::unix::fs::symlink(program, bare.join(name)).unwrap();
    }
    build(bare.as_os_str()).expect(1, &["ffmpeg is not installed on this machine", "apt-get install ffmpeg"]);
    let script = place.write("starts/ffmpeg", "#!/bin/sh\n");
    std::fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let folders = [script.parent().unwrap(), bare.as_path(), Path::new("/usr/bin"), Path::new("/bin")];
    build(&std::env::join_paths(folders).unwrap())
        .expect(1, &["is no program but something that starts one"]);
}

#[test]
fn a_video_is_marked_and_made_into_a_gif() {
    let Some(engine) = support::engine() else { return };
    let Some(ffmpeg) = ffmpeg() else { return };
    let stores = Stores::of_objects(engine);
    let mut videos = Deployed::new(&stores, "220.video-processing", Language::Python, "test");
    let event = videos.input.clone();
    let right = videos.invoke(&event);
    videos.check_object(&right);
    let content = videos.stored(&right);
    videos.refuses_stored(&right, &content[..content.len() - 40], "is no whole MP4");
    videos.refuses_stored(&right, b"nothing of that kind", "is no whole MP4");
    let mut shorter = event.clone();
    shorter["object"]["duration"] = json!(0.5);
    let output = videos.invoke(&shorter);
    videos.refuses(&output, "has 5 pictures");
    let source = stores.client().get_bytes(BUCKET, "220.video-processing-0-input/bands-160x120.y4m", 1 << 20);
    let source = stores.folder.put("source.y4m", source.unwrap());
    for (filter, reason) in
        [("null", "has no mark"), ("negate", "instead of"), ("scale=80:60", "is 80 x 60, not 160 x 120")]
    {
        let made = stores.folder.path().join("made.mp4");
        output_of_ffmpeg(&ffmpeg, &source, filter, &made);
        videos.refuses_stored(&right, &std::fs::read(made).unwrap(), reason);
    }

    videos.input["object"]["op"] = json!("extract-gif");
    let event = videos.input.clone();
    let right = videos.invoke(&event);
    videos.check_object(&right);
    assert!(right["result"]["key"].as_str().unwrap().ends_with(".gif"), "{right}");
    let gif = videos.stored(&right);
    assert_eq!(gif[..6], *b"GIF89a");
    videos.refuses_stored(&right, &gif[..gif.len() - 1], "is no whole GIF");
    videos.refuses_stored(&right, &content, "is no whole GIF");
    let mut unknown = event.clone();
    unknown["object"]["op"] = json!("paint");
    let result = videos.local.invoke(&mut videos.function, &unknown.to_string()).unwrap();
    assert!(result.output.get().contains("should be one of watermark, extract-gif"), "{}", result.output);
    videos.end();
    stores.remove();
}

fn output_of_ffmpeg(ffmpeg: &Path, source: &Path, filter: &str, target: &Path) {
    let mut command = Command::new(ffmpeg);
    command.args(["-nostdin", "-loglevel", "error", "-y", "-i"]).arg(source);
    output(command.args(["-vf", &format!("{filter},format=yuv420p")]).arg(target));
}
