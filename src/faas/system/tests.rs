//! Tests of what all platforms share, on one that has no engine: its functions are entries in a list.

use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::cancel::Cancel;
use crate::faas::function::Instance;
use crate::faas::language::Architecture;
use crate::faas::platform::Platform;
use crate::faas::trigger::Trigger;
use crate::files::TempFolder;

const CLOUD: Platform = Platform { name: "cloud", credentials: &[] };

/// A cloud: functions live in a list, and their names may have no dots.
struct Cloud {
    cache: Cache,
    config: Config,
    /// What was asked of it, in order.
    done: Vec<String>,
    /// The instances that there are.
    live: Vec<String>,
    counter: u64,
}

impl Cloud {
    fn new(folder: &TempFolder) -> Cloud {
        let cache = Cache::open(folder.path(), &Cancel::new()).unwrap();
        let config = Config::deserialize(CLOUD, &json!({"region": "here"}), &cache, &|_| None).unwrap();
        Cloud { cache, config, done: Vec::new(), live: Vec::new(), counter: 7 }
    }

    fn put(&mut self, function: &Function) {
        let key = FunctionKey {
            benchmark: &function.benchmark,
            platform: "cloud",
            language: function.config.runtime.language.name(),
            name: &function.name,
        };
        self.cache.put_function(&key, json!(function)).unwrap();
    }

    fn start(&mut self, name: &str) -> Instance {
        let id = format!("{name}-{}", self.done.len());
        self.live.push(id.clone());
        Instance { instance_id: id, ..instance() }
    }
}

fn instance() -> Instance {
    serde_json::from_value(json!({"instance_id": "", "url": "cloud:1", "port": 1})).unwrap()
}

impl System for Cloud {
    fn name(&self) -> &'static str {
        "cloud"
    }

    fn cache(&self) -> &Cache {
        &self.cache
    }

    fn config(&self) -> &Config {
        &self.config
    }

    fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    fn supported_versions(&self, language: Language) -> Vec<String> {
        match language {
            Language::Python => vec!["3.11".to_string(), "3.12".to_string()],
            Language::Nodejs => Vec::new(),
        }
    }

    fn package_code(&self, package: CodePackage) -> Result<CodePackage> {
        Ok(CodePackage { location: package.location.with_extension("zip"), ..package })
    }

    fn format_function_name(&self, name: &str) -> String {
        name.replace('.', "_")
    }

    fn create_function(
        &mut self,
        package: &CodePackage,
        name: &str,
        config: &FunctionConfig,
    ) -> Result<Function> {
        let instance = self.start(name);
        self.done.push(format!("create {name}"));
        let function = Function {
            name: name.to_string(),
            benchmark: package.benchmark.clone(),
            code_package_hash: package.hash.clone(),
            config: config.clone(),
            instances: vec![instance],
            triggers: Vec::new(),
            updated_code: false,
        };
        self.put(&function);
        Ok(function)
    }

    fn cached_function(&mut self, function: &mut Function, _package: &CodePackage) -> Result<bool> {
        Ok(function.instances.iter().all(|instance| self.live.contains(&instance.instance_id)))
    }

    fn update_function(
        &mut self,
        function: &mut Function,
        package: &CodePackage,
        config: &FunctionConfig,
    ) -> Result<()> {
        self.done.push("update".to_string());
        function.code_package_hash.clone_from(&package.hash);
        function.config = config.clone();
        self.put(function);
        Ok(())
    }

    fn update_function_configuration(
        &mut self,
        function: &mut Function,
        _package: &CodePackage,
        config: &FunctionConfig,
    ) -> Result<()> {
        self.done.push("configure".to_string());
        function.config = config.clone();
        self.put(function);
        Ok(())
    }

    fn create_trigger(&mut self, function: &mut Function, kind: TriggerType) -> Result<()> {
        function.add_trigger(Trigger { kind, url: "cloud:1".to_string() });
        self.put(function);
        Ok(())
    }

    fn invoke(&mut self, function: &mut Function, _payload: &str) -> Result<ExecutionResult> {
        let mut result = ExecutionResult::empty();
        result.stats.cold_start = function.instances.is_empty();
        if function.instances.is_empty() {
            let instance = self.start(&function.name);
            function.instances.push(instance);
        }
        Ok(result)
    }

    fn enforce_cold_start(&mut self, function: &mut Function) -> Result<()> {
        function.instances.clear();
        self.counter += 1;
        Ok(())
    }

    fn cold_start_counter(&self) -> u64 {
        self.counter
    }

    fn delete_instances(&mut self, function: &Function) -> Result<()> {
        if function.name.contains("held") {
            return Err(Error::new("it is held"));
        }
        self.live.retain(|id| function.instances.iter().all(|instance| instance.instance_id != *id));
        Ok(())
    }

    fn shutdown(&mut self) -> Result<()> {
        self.live.clear();
        self.config.update_cache(&self.cache)
    }
}

fn package(hash: &str) -> CodePackage {
    CodePackage {
        benchmark: "110.dynamic-html".to_string(),
        runtime: runtime("3.11"),
        architecture: Architecture::X64,
        hash: hash.to_string(),
        location: PathBuf::from("/code"),
        size_bytes: 1,
        rebuilt: false,
        timeout_s: 10,
        memory_mb: 128,
        cpus: None,
        uses_storage: false,
        uses_nosql: false,
        image_id: "sha256:0".to_string(),
        container: None,
        in_use: None,
    }
}

fn runtime(version: &str) -> Runtime {
    Runtime { language: Language::Python, version: version.to_string(), variant: "default".to_string() }
}

/// What the platform was asked to do for a function.
fn get(cloud: &mut Cloud, package: &CodePackage, config: &FunctionConfig) -> (Function, Vec<String>) {
    cloud.done.clear();
    let function = cloud.get_function(package, None, config).unwrap();
    (function, cloud.done.clone())
}

#[test]
fn a_function_is_created_reused_updated_configured_and_created_again_where_it_is_gone() {
    let folder = TempFolder::create().unwrap();
    let mut cloud = Cloud::new(&folder);
    let (one, two) = (package("1"), package("2"));
    let config = FunctionConfig::from_package(&one);
    let name = "sebd-110_dynamic-html-python-3_11";
    let (function, done) = get(&mut cloud, &one, &config);
    assert_eq!((function.name.as_str(), done), (name, vec![format!("create {name}")]));
    assert_eq!(function.triggers_all().len(), 1);
    assert_eq!(get(&mut cloud, &one, &config), (function, Vec::new()));
    let (updated, done) = get(&mut cloud, &two, &config);
    assert_eq!((updated.updated_code, done), (true, vec!["update".to_string()]));
    let rebuilt = CodePackage { rebuilt: true, ..two.clone() };
    assert_eq!(get(&mut cloud, &rebuilt, &config).1, ["update"]);
    let larger = FunctionConfig { memory: 256, ..config.clone() };
    let (function, done) = get(&mut cloud, &two, &larger);
    assert_eq!((function.updated_code, done), (false, vec!["configure".to_string()]));
    assert!(cloud.is_configuration_changed(&function, &config));
    cloud.live.clear();
    assert_eq!(get(&mut cloud, &two, &larger).1, [format!("create {name}")]);
}

#[test]
fn a_version_that_is_not_supported_is_answered_with_those_that_are() {
    let folder = TempFolder::create().unwrap();
    let mut cloud = Cloud::new(&folder);
    let old = CodePackage { runtime: runtime("3.8"), ..package("1") };
    let config = FunctionConfig::from_package(&old);
    let error = cloud.get_function(&old, None, &config).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("there are 3.11, 3.12"), "{error}");
    let node = Runtime { language: Language::Nodejs, ..runtime("20") };
    let refused = cloud.build_function(&node, &mut || panic!("it must not be built")).unwrap_err();
    assert!(refused.to_string().contains("does not run nodejs"), "{refused}");
    assert!(cloud.done.is_empty());
    let built = cloud.build_function(&old.runtime.clone(), &mut || Ok(package("1")));
    assert!(built.is_err());
    let built = cloud.build_function(&runtime("3.12"), &mut || Ok(package("1"))).unwrap();
    assert_eq!(built.location, PathBuf::from("/code.zip"));
    assert!(cloud.finalize_container_build(&built).unwrap().is_none());
}

#[test]
fn functions_are_deleted_with_their_records_and_a_failure_spares_its_own() {
    let folder = TempFolder::create().unwrap();
    let mut cloud = Cloud::new(&folder);
    let (package, config) = (package("1"), FunctionConfig::from_package(&package("1")));
    for name in ["a", "held", "z"] {
        cloud.get_function(&package, Some(name), &config).unwrap();
    }
    assert_eq!(cloud.cleanup_functions(true).unwrap(), ["a", "held", "z"]);
    assert_eq!(cloud.live.len(), 3);
    assert_eq!(cloud.delete_function("a").unwrap(), 1);
    assert_eq!(cloud.delete_function("a").unwrap(), 0);
    let error = cloud.cleanup_functions(false).unwrap_err();
    assert!(error.to_string().contains("`held`"), "{error}");
    assert_eq!(cloud.cleanup_functions(true).unwrap(), ["held"]);
    assert_eq!(cloud.live.len(), 1);
    let removed = cloud.cleanup_resources(&mut Stores::default(), true).unwrap();
    assert_eq!(json!(removed), json!({"functions": ["held"], "buckets": [], "tables": []}));
}

#[test]
fn resources_are_named_once_and_found_again() {
    let folder = TempFolder::create().unwrap();
    let mut cloud = Cloud::new(&folder);
    cloud.quiet();
    cloud.initialize(Some("lab"), &Stores::default()).unwrap();
    let id = cloud.resources().id().unwrap().to_string();
    assert!(id.starts_with("lab-"), "{id}");
    assert_eq!(cloud.find_deployments(&Stores::default()).unwrap(), [""; 0]);
    let name = cloud.default_function_name(&package("1"), Some(&id));
    assert_eq!(name, format!("sebs-{id}-110.dynamic-html-python-3.11"));
    cloud.shutdown().unwrap();
    let mut again = Cloud::new(&folder);
    again.initialize_resources(Some("other"), &Stores::default()).unwrap();
    assert_eq!(again.resources().id().unwrap(), id);
    let description = again.description();
    assert_eq!((&description["name"], &description["region"]), (&json!("cloud"), &json!("here")));
    assert_eq!(description["resources"]["resources_id"], json!(id));
}

#[test]
fn cold_starts_are_enforced_and_counted_and_there_are_no_metrics_unless_a_platform_has_some() {
    let folder = TempFolder::create().unwrap();
    let mut cloud = Cloud::new(&folder);
    let (package, config) = (package("1"), FunctionConfig::from_package(&package("1")));
    let mut function = cloud.get_function(&package, Some("f"), &config).unwrap();
    assert!(!cloud.invoke(&mut function, "{}").unwrap().stats.cold_start);
    let before = cloud.cold_start_counter();
    cloud.enforce_cold_start(&mut function).unwrap();
    assert_eq!(cloud.cold_start_counter(), before + 1);
    let mut result = cloud.invoke(&mut function, "{}").unwrap();
    assert!(result.stats.cold_start);
    let metrics = cloud.download_metrics(&function, &mut std::iter::once(&mut result)).unwrap();
    assert!(metrics.is_empty());
}
