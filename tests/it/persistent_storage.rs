//! A benchmark's files in a real SeaweedFS: uploaded once, uploaded again where something changed, fetched for a verdict.

use std::fs::File;
use std::sync::Arc;

use sebs_lite::Result;
use sebs_lite::benchmark::{Needs, ResultStorage, Verdict, prepare_input};
use sebs_lite::faas::{Language, StorageBucketType, SystemResources, Uploads};
use sebs_lite::progress::Progress;
use sebs_lite::storage::{EngineType, StorageFile};
use serde_json::json;

use crate::platform_storage::{GENERATE, Server, Setting, record};
use crate::support::engine;

/// Uploads all that is in the data folder, as SeBS's benchmarks do.
fn upload_all() -> String {
    format!(
        "{GENERATE}    for root, _, files in os.walk(data_dir):\n        for name in files:\n            \
         path = os.path.join(root, name)\n            upload(0, os.path.relpath(path, data_dir), path)\n    \
         return {{'bucket': bucket, 'in': inputs, 'out': outputs}}\n\
         def buckets_count():\n    return (1, 1)\n"
    )
}

fn setting(engine: &sebs_lite::docker::Engine, server: &Server) -> Setting {
    let object = Some(server.external(EngineType::S3));
    Setting::new(engine, StorageFile { object, nosql: None })
}

/// What one command uploads.
fn upload(setting: &Setting) -> Uploads {
    let mut resources = setting.resources();
    setting.prepare(&upload_all(), &mut resources).unwrap();
    let uploads = resources.storage_in_use().unwrap().state().uploads;
    resources.shutdown().unwrap();
    uploads
}

#[test]
fn a_file_is_uploaded_again_only_where_something_changed() {
    let Some(engine) = engine() else { return };
    let server = Server::of_objects(&engine, EngineType::SeaweedFs);
    let mut setting = setting(&engine, &server);
    setting.folder.put("benchmarks-data/100.x/a.txt", "aaa");
    setting.folder.put("benchmarks-data/100.x/d/e/b.txt", "");
    // In parts, whose ETag is no MD5 of the content.
    let large = setting.folder.put("benchmarks-data/100.x/large", "");
    File::options().write(true).open(&large).unwrap().set_len(65 << 20).unwrap();
    let counts = |uploads: Uploads| (uploads.uploaded, uploads.unchanged);
    assert_eq!(counts(upload(&setting)), (3, 0));
    assert_eq!(counts(upload(&setting)), (0, 3));
    let cache = record(&setting.cache_folder().join("local.json"));
    let id = cache["resources"]["resources_id"].as_str().unwrap().to_string();
    let bucket = format!("sebs-benchmarks-{id}");
    assert!(id.starts_with("local-"), "{id}");
    assert_eq!(cache["resources"]["storage_buckets"], json!({ "benchmarks": bucket }));
    let entry = record(&setting.cache_folder().join("100.x/config.json"));
    let entry = &entry["minio"]["storage"];
    assert_eq!(entry["buckets"]["input"], json!(["100.x-0-input"]));
    assert_eq!(entry["buckets"]["input_uploaded"], true);
    let keys: Vec<String> =
        server.objects().list(&bucket, "").unwrap().into_iter().map(|object| object.key).collect();
    assert_eq!(keys, ["100.x-0-input/a.txt", "100.x-0-input/d/e/b.txt", "100.x-0-input/large"]);

    setting.folder.put("benchmarks-data/100.x/a.txt", "bbb");
    assert_eq!(counts(upload(&setting)), (1, 2));
    assert_eq!(server.objects().get_bytes(&bucket, &keys[0], 9).unwrap(), b"bbb");
    // Behind our back, as long as before.
    server.objects().put_bytes(&bucket, &keys[0], b"ccc").unwrap();
    server.objects().delete(&bucket, &keys[1]).unwrap();
    assert_eq!(counts(upload(&setting)), (2, 1));
    std::fs::remove_file(&large).unwrap();
    assert_eq!(counts(upload(&setting)), (0, 2));
    assert!(server.objects().head(&bucket, &keys[2]).is_ok());
    setting.options.update_storage = true;
    assert_eq!(counts(upload(&setting)), (2, 0));
    assert!(server.objects().head(&bucket, &keys[2]).unwrap_err().is_not_found());
    setting.options.update_storage = false;

    // Another storage, of which the cache knows nothing.
    let other = Server::of_objects(&engine, EngineType::SeaweedFs);
    setting.options.configured.object = Some(other.external(EngineType::S3));
    assert_eq!(counts(upload(&setting)), (2, 0));
    server.remove();
    other.remove();
}

#[test]
fn the_etags_of_minio_are_understood() {
    let Some(engine) = engine() else { return };
    let server = Server::of_objects(&engine, EngineType::Minio);
    let setting = setting(&engine, &server);
    setting.folder.put("benchmarks-data/100.x/a.txt", "aaa");
    let large = setting.folder.put("benchmarks-data/100.x/large", "");
    File::options().write(true).open(&large).unwrap().set_len(65 << 20).unwrap();
    assert_eq!(upload(&setting).uploaded, 2);
    assert_eq!(upload(&setting).uploaded, 0);
    setting.folder.put("benchmarks-data/100.x/a.txt", "bbb");
    assert_eq!(upload(&setting).uploaded, 1);
    server.remove();
}

#[test]
fn two_resource_ids_and_two_processes_share_a_storage() {
    let Some(engine) = engine() else { return };
    let server = Server::of_objects(&engine, EngineType::SeaweedFs);
    let mut setting = setting(&engine, &server);
    setting.folder.put("benchmarks-data/100.x/a.txt", "aaa");
    for id in ["local-one", "local-two"] {
        setting.options.resources_id = Some(id.to_string());
        assert_eq!(upload(&setting).uploaded, 1);
        assert_eq!(upload(&setting).uploaded, 0);
    }
    let buckets = ["sebs-benchmarks-local-one", "sebs-benchmarks-local-two"];
    assert_eq!(server.objects().list_buckets().unwrap(), buckets);

    // Without a cache, the first bucket tells the id; so for each of those who ask at once.
    setting.options.resources_id = None;
    std::fs::remove_dir_all(setting.cache_folder()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut resources = setting.resources();
                let storage = resources.get_storage(None).unwrap();
                let bucket = storage.get_bucket(StorageBucketType::Experiments).unwrap();
                assert_eq!(bucket, "sebs-experiments-local-one");
                assert_eq!(storage.find_deployments().unwrap(), ["local-one", "local-two"]);
                assert_eq!(resources.resources_id().unwrap(), "local-one");
            });
        }
    });
    let mut resources = setting.resources();
    let storage = resources.get_storage(None).unwrap();
    let removed = storage.cleanup_buckets(false).unwrap();
    assert_eq!(removed, ["sebs-benchmarks-local-one", "sebs-experiments-local-one"]);
    assert_eq!(server.objects().list_buckets().unwrap(), [buckets[1]]);
    server.remove();
}

#[test]
fn a_script_hears_of_a_refusal_and_a_validator_gets_the_result() {
    let Some(engine) = engine() else { return };
    let server = Server::of_objects(&engine, EngineType::SeaweedFs);
    let setting = setting(&engine, &server);
    let script = format!(
        "{GENERATE}    open('made', 'w').write('made by the script')\n    upload(0, 'k', 'made')\n    caught = []\n    \
         for index, path in [(1, 'made'), (0, 'missing')]:\n        try:\n            upload(index, 'k', path)\n        \
         except Exception as error:\n            caught.append(str(error))\n    \
         return {{'bucket': bucket, 'key': inputs[0] + '/k', 'caught': caught}}\n\
         def buckets_count():\n    return (1, 0)\n\
         def validate_output(data_dir, input_config, output, language, storage):\n    \
         storage.download(input_config['bucket'], input_config['key'], 'got')\n    got = open('got').read()\n    \
         return None if got == output['result'] else got\n"
    );
    let mut resources = setting.resources();
    let mut process = setting.process(&script);
    let needs = Needs::of(&mut process).unwrap();
    let prepared =
        |process: &mut _, needs: &Needs, resources: &mut SystemResources| -> Result<serde_json::Value> {
            prepare_input(process, "100.x", needs, "test", resources, &Progress::quiet())
        };
    let input = prepared(&mut process, &needs, &mut resources).unwrap();
    let caught = |number: usize| input["caught"][number].as_str().unwrap();
    assert!(caught(0).contains("input prefix 1") && caught(0).contains("asks for 1"), "{input}");
    assert!(caught(1).contains("missing"), "{input}");
    let mut verdict = |output: &str| {
        let mut storage = ResultStorage(&mut resources);
        process.validate_output(&input, output, Language::Python, &mut storage)
    };
    assert_eq!(verdict(r#"{"result": "made by the script"}"#).unwrap(), Verdict::Valid);
    assert_eq!(verdict(r#"{"result": 1}"#).unwrap(), Verdict::Invalid("made by the script".to_string()));

    // Uncaught, it is the reason that is shown.
    let fails = |count: u32| {
        format!(
            "{GENERATE}    upload(0, 'k', '/etc/hostname')\n    return {{}}\ndef buckets_count():\n    return ({count}, 0)\n"
        )
    };
    let error = setting.prepare(&fails(0), &mut setting.resources()).unwrap_err().to_string();
    assert!(error.contains("`buckets_count` asks for no prefix"), "{error}");
    server.kill();
    let error = setting.prepare(&fails(1), &mut setting.resources()).unwrap_err().to_string();
    assert!(error.contains("the configured object storage, `s3` at 127.0.0.1:"), "{error}");
    let secret = setting.options.configured.object.clone().unwrap().secret_key.unwrap();
    assert!(error.contains("nothing at http://127.0.0.1:") && !error.contains(&secret), "{error}");
    // With another, which is not asked for, a benchmark that needs none is none the wiser.
    let none = format!("{GENERATE}    return {{}}\n");
    assert_eq!(setting.prepare(&none, &mut setting.resources()).unwrap(), json!({}));
    server.remove();
}

#[test]
fn a_storage_that_dies_is_an_exception_in_the_script_and_uncaught_the_reason_that_is_shown() {
    let Some(engine) = engine() else { return };
    let dies_at_second = |lines: &str| {
        let server = Arc::new(Server::of_objects(&engine, EngineType::SeaweedFs));
        let setting = setting(&engine, &server);
        let script = format!(
            "{GENERATE}    upload(0, 'a', '/etc/hostname')\n{lines}def buckets_count():\n    return (1, 0)\n"
        );
        let mut process = setting.process(&script);
        let needs = Needs::of(&mut process).unwrap();
        let mut resources = setting.resources();
        let killer = server.clone();
        let progress = Progress::to(move |step| {
            if step.done == 1 {
                killer.kill();
            }
        });
        let input = prepare_input(&mut process, "100.x", &needs, "test", &mut resources, &progress);
        drop(progress);
        process.stop().unwrap();
        Arc::into_inner(server).unwrap().remove();
        input
    };
    let cause = "failed to store `/etc/hostname`";
    let caught = dies_at_second(
        "    try:\n        upload(0, 'b', '/etc/hostname')\n    except Exception as error:\n        \
         return {'caught': str(error)}\n",
    );
    let text = caught.unwrap()["caught"].to_string();
    assert!(text.contains(cause) && text.contains("100.x-0-input/b"), "{text}");
    let error =
        dies_at_second("    upload(0, 'b', '/etc/hostname')\n    return {}\n").unwrap_err().to_string();
    assert!(
        error.contains(cause) && error.contains("input.py") && error.contains("line 4, in generate_input"),
        "{error}"
    );
}

#[test]
fn a_bucket_comes_down_with_its_folders_and_functions_are_told_where_storage_is() {
    let Some(engine) = engine() else { return };
    let server = Server::of_objects(&engine, EngineType::SeaweedFs);
    let setting = setting(&engine, &server);
    let mut resources = setting.resources();
    assert_eq!(resources.envs("100.x"), []);
    let storage = resources.get_storage(None).unwrap();
    let bucket = storage.get_bucket(StorageBucketType::Experiments).unwrap();
    for key in ["a", "b/c/d", "b/e"] {
        server.objects().put_bytes(&bucket, key, key.as_bytes()).unwrap();
    }
    assert_eq!((storage.deployment_name(), storage.region()), ("minio", "us-east-1"));
    assert_eq!(storage.correct_name(&bucket), bucket);
    let prefixes = storage.benchmark_data("100.x", (1, 2)).unwrap();
    assert_eq!(prefixes, (storage.input_prefixes().to_vec(), storage.output_prefixes().to_vec()));
    assert_eq!(prefixes.1, ["100.x-0-output", "100.x-1-output"]);
    assert!(!storage.replace_existing());
    let target = setting.folder.path().join("target");
    assert_eq!(storage.download_bucket(&bucket, &target).unwrap(), 3);
    assert_eq!(std::fs::read(target.join("b/c/d")).unwrap(), b"b/c/d");
    assert_eq!(storage.download_bucket(&bucket, &target).unwrap(), 0);
    assert_eq!(storage.list_bucket(&bucket, "b/").unwrap(), ["b/c/d", "b/e"]);
    let envs = resources.envs("100.x");
    assert!(envs[0].1.starts_with("storage.invalid:"), "{envs:?}");
    let secret = setting.options.configured.object.clone().unwrap().secret_key.unwrap();
    assert!(envs.iter().any(|(name, value)| name == "MINIO_SECRET_KEY" && *value == secret));
    assert_eq!(resources.secrets(), [secret]);
    assert_eq!(resources.started(), []);
    assert!(resources.in_use().object.unwrap().is_running());
    resources.shutdown().unwrap();
    assert_eq!(resources.in_use(), StorageFile::default());
    server.remove();
}
