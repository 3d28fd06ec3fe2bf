//! The life of a function, the same on every platform.

mod cleanup;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use crate::cache::{Cache, FunctionKey, RecordedFunction};
use crate::error::{Error, Result};

use super::config::Resources;
use super::execution::ExecutionResult;
use super::function::{Function, FunctionConfig};
use super::language::{Language, Runtime};
use super::load::{Load, StartKind};
use super::nosql::NoSqlStorage;
use super::package::CodePackage;
use super::platform::Config;
use super::storage::PersistentStorage;
use super::trigger::TriggerType;

pub use cleanup::RemovedResources;

/// The storage that a platform's functions use, as far as any is in use.
#[derive(Default)]
pub struct Stores<'a> {
    /// Objects; `None`: none is in use.
    pub object: Option<&'a mut dyn PersistentStorage>,
    /// Tables; `None`: none is in use.
    pub nosql: Option<&'a mut dyn NoSqlStorage>,
}

/// A platform that functions are deployed to.
///
/// The required methods are a platform's own part; the others are the life that all share.
pub trait System {
    /// Name of the platform, as it stands in configuration files: `local`.
    fn name(&self) -> &'static str;

    /// Where functions that outlive their command are recorded.
    fn cache(&self) -> &Cache;

    /// Its region, credentials and resources.
    fn config(&self) -> &Config;

    /// The same, to be changed.
    fn config_mut(&mut self) -> &mut Config;

    /// The versions of a language that it runs, oldest first: all that are known, unless a platform has fewer. Empty: it
    /// does not run the language.
    fn supported_versions(&self, language: Language) -> Vec<String> {
        language.versions().iter().map(|version| version.to_string()).collect()
    }

    /// Deploys a package as a function that is not there yet.
    ///
    /// # Errors
    /// The platform refused; what it had made for the function is gone.
    fn create_function(
        &mut self,
        package: &CodePackage,
        name: &str,
        config: &FunctionConfig,
    ) -> Result<Function>;

    /// Says whether a function that was recorded earlier can still serve here, and prepares it for that; why not is logged.
    ///
    /// # Errors
    /// The platform could not be asked.
    fn cached_function(&mut self, function: &mut Function, package: &CodePackage) -> Result<bool>;

    /// Replaces a function's code, and its configuration with it.
    ///
    /// # Errors
    /// The platform refused; the function serves its old code.
    fn update_function(
        &mut self,
        function: &mut Function,
        package: &CodePackage,
        config: &FunctionConfig,
    ) -> Result<()>;

    /// Changes what a function's instances are given, with the code as it is.
    ///
    /// # Errors
    /// The platform refused; the function serves as configured before.
    fn update_function_configuration(
        &mut self,
        function: &mut Function,
        package: &CodePackage,
        config: &FunctionConfig,
    ) -> Result<()>;

    /// Adds a way to invoke a function.
    ///
    /// # Errors
    /// A usage error where the platform has no such trigger.
    fn create_trigger(&mut self, function: &mut Function, kind: TriggerType) -> Result<()>;

    /// Invokes a function with a JSON object and waits for its answer. A failed invocation is a result too.
    ///
    /// # Errors
    /// The caller's cancel token was triggered, or no instance could be had.
    fn invoke(&mut self, function: &mut Function, payload: &str) -> Result<ExecutionResult>;

    /// Gives a function instances that have served nothing, in the place of those it has: the next invocation of each is
    /// a cold start.
    ///
    /// # Errors
    /// The platform refused.
    fn enforce_cold_start(&mut self, function: &mut Function) -> Result<()>;

    /// From a random number on, one more for each time that cold starts were enforced.
    fn cold_start_counter(&self) -> u64;

    /// Invokes a function as `load` says, and hands each result to `sink` as it comes. Failed invocations are results too.
    /// They are made one after another, unless a platform can make some at a time.
    ///
    /// # Errors
    /// That of `sink`, the caller's cancel token was triggered, or no instance could be had. What had been begun is still
    /// handed over.
    fn invoke_many(
        &mut self,
        function: &mut Function,
        load: &Load<'_>,
        sink: &mut dyn FnMut(ExecutionResult) -> Result<()>,
    ) -> Result<()> {
        for _ in 0..load.count {
            if load.start == StartKind::Cold {
                self.enforce_cold_start(function)?;
            }
            let mut result = self.invoke(function, load.payload)?;
            if load.start == StartKind::Cold {
                result.demand_cold_start();
            }
            sink(result)?;
        }
        Ok(())
    }

    /// Removes all that serves a function, which need not have been deployed by this value. What is gone is fine.
    ///
    /// # Errors
    /// Something could not be removed, or is needed by somebody else (`is_conflict`).
    fn delete_instances(&mut self, function: &Function) -> Result<()>;

    /// Releases all that was not meant to outlive the command.
    ///
    /// # Errors
    /// Something could not be released; the rest was.
    fn shutdown(&mut self) -> Result<()>;

    /// Tells no progress any more, for programs that this one is a part of.
    fn quiet(&mut self) {}

    /// Makes the platform ready to deploy functions and to hold their data.
    ///
    /// # Errors
    /// Those of [`System::initialize_resources`].
    fn initialize(&mut self, resource_prefix: Option<&str>, stores: &Stores<'_>) -> Result<()> {
        self.initialize_resources(resource_prefix, stores)
    }

    /// Chooses what sets the names of the platform's resources apart from those of others: the configured id, else the
    /// cached one, else that of the first deployment that is there and contains the prefix, else one that begins with it.
    /// Without a prefix it is the platform's name.
    ///
    /// # Errors
    /// The cache or the storage could not be asked.
    fn initialize_resources(&mut self, prefix: Option<&str>, stores: &Stores<'_>) -> Result<()> {
        let found = match self.resources().has_resources_id() {
            true => Vec::new(),
            false => self.find_deployments(stores)?,
        };
        let (cache, prefix) = (self.cache().clone(), prefix.unwrap_or(self.name()).to_string());
        self.config_mut().resources.choose_id(&cache, &prefix, &found)?;
        Ok(())
    }

    /// The resources ids of the deployments that are there, as far as their buckets tell.
    ///
    /// # Errors
    /// The storage could not be asked.
    fn find_deployments(&self, stores: &Stores<'_>) -> Result<Vec<String>> {
        stores.object.as_ref().map_or(Ok(Vec::new()), |storage| storage.find_deployments())
    }

    /// What the platform has, by name.
    fn resources(&self) -> &Resources {
        &self.config().resources
    }

    /// What a result file says of the platform: its name, region and resources, without any secret.
    fn description(&self) -> Value {
        self.config().serialize()
    }

    /// Can it run that version of a language?
    fn is_supported(&self, runtime: &Runtime) -> bool {
        self.supported_versions(runtime.language).contains(&runtime.version)
    }

    /// Says whether it can run that version of a language.
    ///
    /// # Errors
    /// A usage error that lists the versions that it can.
    fn check_support(&self, runtime: &Runtime) -> Result<()> {
        if self.is_supported(runtime) {
            return Ok(());
        }
        let (platform, language) = (self.name(), runtime.language);
        let versions = self.supported_versions(language);
        Err(Error::usage(match versions.is_empty() {
            true => format!("platform `{platform}` does not run {language}"),
            false => format!(
                "version `{}` of {language} is not supported on platform `{platform}`: there are {}",
                runtime.version,
                versions.join(", ")
            ),
        }))
    }

    /// Gives a package the form that the platform demands. The folder as it was built is one.
    ///
    /// # Errors
    /// It cannot be brought into that form.
    fn package_code(&self, package: CodePackage) -> Result<CodePackage> {
        Ok(package)
    }

    /// What is deployed beside an image that has the function in it: `None`, nothing.
    ///
    /// # Errors
    /// It cannot be brought into the form that the platform demands.
    fn finalize_container_build(&self, _package: &CodePackage) -> Result<Option<CodePackage>> {
        Ok(None)
    }

    /// Builds a function and does not deploy it. `build` is not called where the platform cannot run `runtime`.
    ///
    /// # Errors
    /// A usage error that lists the versions that can be run; `build` or [`System::package_code`] failed.
    fn build_function(
        &mut self,
        runtime: &Runtime,
        build: &mut dyn FnMut() -> Result<CodePackage>,
    ) -> Result<CodePackage> {
        self.check_support(runtime)?;
        self.package_code(build()?)
    }

    /// The name of a function whose name the user does not choose; see [`CodePackage::function_name`].
    fn default_function_name(&self, package: &CodePackage, resources_id: Option<&str>) -> String {
        package.function_name(resources_id)
    }

    /// The name, changed as far as the platform's rules for names demand.
    fn format_function_name(&self, name: &str) -> String {
        name.to_string()
    }

    /// Fills in what the platform knows of a function's invocations beside their answers, and gives what it knows of the
    /// function itself: nothing, unless a platform has something.
    ///
    /// # Errors
    /// The platform could not be asked.
    fn download_metrics(
        &mut self,
        _function: &Function,
        _invocations: &mut dyn Iterator<Item = &mut ExecutionResult>,
    ) -> Result<Map<String, Value>> {
        Ok(Map::new())
    }

    /// Is a function, which was deployed earlier, configured otherwise than it is to be?
    fn is_configuration_changed(&self, function: &Function, config: &FunctionConfig) -> bool {
        function.config != *config
    }

    /// The function `name` that runs `package` as `config` says: the recorded one where there is one that can still
    /// serve (with its code or configuration updated where they differ), else a new one. Without a name it is
    /// [`System::default_function_name`].
    ///
    /// # Errors
    /// A usage error: the platform does not run that version of the language. The function could not be created or
    /// updated.
    fn get_function(
        &mut self,
        package: &CodePackage,
        name: Option<&str>,
        config: &FunctionConfig,
    ) -> Result<Function> {
        self.check_support(&package.runtime)?;
        let name = name.map_or_else(|| self.default_function_name(package, None), str::to_string);
        let name = self.format_function_name(&name);
        let mut function = match self.recorded_function(package, &name)? {
            Some(mut function) => {
                if function.code_package_hash != package.hash || package.rebuilt {
                    log::info!("function `{name}` is there with other code: updating it");
                    self.update_function(&mut function, package, config)?;
                    function.updated_code = true;
                } else if self.is_configuration_changed(&function, config) {
                    log::info!("function `{name}` is there with another configuration: updating it");
                    self.update_function_configuration(&mut function, package, config)?;
                } else {
                    log::info!("function `{name}` is there already: using it as it is");
                }
                function
            }
            None => self.create_function(package, &name, config)?,
        };
        if function.triggers(TriggerType::Http).is_empty() {
            self.create_trigger(&mut function, TriggerType::Http)?;
        }
        Ok(function)
    }

    /// A function of that name that was recorded earlier and can still serve.
    ///
    /// # Errors
    /// The record could not be read, or the platform not be asked.
    fn recorded_function(&mut self, package: &CodePackage, name: &str) -> Result<Option<Function>> {
        let key = FunctionKey {
            benchmark: &package.benchmark,
            platform: self.name(),
            language: package.runtime.language.name(),
            name,
        };
        let Some(record) = self.cache().function(&key)? else { return Ok(None) };
        let Ok(mut function) = Function::deserialize_record(record) else {
            log::warn!("the record of function `{name}` in the cache cannot be understood: it is not used");
            return Ok(None);
        };
        Ok(self.cached_function(&mut function, package)?.then_some(function))
    }

    /// Removes all functions of that name that are recorded: what serves them, then their record. Gives how many there
    /// were.
    ///
    /// # Errors
    /// One could not be removed; its record stays.
    fn delete_function(&mut self, name: &str) -> Result<usize> {
        cleanup::delete_functions(self, |function| function.name == name).map(|names| names.len())
    }

    /// Removes one function that is recorded: what serves it, then its record.
    ///
    /// # Errors
    /// It could not be removed; its record stays.
    fn delete_recorded(&mut self, function: &RecordedFunction) -> Result<()> {
        cleanup::delete(self, function)
    }

    /// Removes all functions that are recorded, and gives their names; with `dry_run` it only says which.
    ///
    /// # Errors
    /// One could not be removed; its record stays, and the rest was removed.
    fn cleanup_functions(&mut self, dry_run: bool) -> Result<Vec<String>> {
        if dry_run {
            return cleanup::recorded_names(self);
        }
        cleanup::delete_functions(self, |_| true)
    }

    /// Removes all functions that are recorded, and the buckets and tables of the platform's resources id in the storage
    /// that is in use; with `dry_run` it only says which.
    ///
    /// # Errors
    /// Something could not be removed; the rest was, but for storage that refused.
    fn cleanup_resources(&mut self, stores: &mut Stores<'_>, dry_run: bool) -> Result<RemovedResources> {
        let functions = self.cleanup_functions(dry_run)?;
        let buckets = stores.object.as_mut().map(|storage| storage.cleanup_buckets(dry_run)).transpose()?;
        let tables = stores.nosql.as_mut().map(|storage| storage.cleanup_tables(dry_run)).transpose()?;
        let (buckets, tables) = (buckets.unwrap_or_default(), tables.unwrap_or_default());
        if !dry_run {
            let cache = self.cache().clone();
            self.config_mut().resources.cleanup_deleted_buckets(&cache, &buckets)?;
        }
        Ok(RemovedResources { functions, buckets, tables })
    }
}
