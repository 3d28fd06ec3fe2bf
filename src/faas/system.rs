//! The life of a function, the same on every platform.

use serde::Deserialize;
use serde_json::Value;

use crate::cache::{Cache, FunctionKey};
use crate::error::Result;

use super::execution::ExecutionResult;
use super::function::{Function, FunctionConfig};
use super::package::CodePackage;
use super::trigger::TriggerType;

/// A platform that functions are deployed to.
///
/// The required methods are a platform's own part; [`System::get_function`] is the life that all share.
pub trait System {
    /// Name of the platform, as it stands in configuration files: `local`.
    fn name(&self) -> &'static str;

    /// Where functions that outlive their command are recorded.
    fn cache(&self) -> &Cache;

    /// What a result file says of the platform: its name, region and resources, without any secret.
    fn description(&self) -> Value;

    /// The name of a function whose name the user does not choose.
    fn default_function_name(&self, package: &CodePackage) -> String {
        let (language, version) = (package.runtime.language, &package.runtime.version);
        format!("sebd-{}-{language}-{version}", package.benchmark)
    }

    /// The name, changed as far as the platform's rules for names demand.
    fn format_function_name(&self, name: &str) -> String {
        name.to_string()
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

    /// Says whether a function that was recorded earlier can still serve, and prepares it for that.
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

    /// Releases all that was not meant to outlive the command.
    ///
    /// # Errors
    /// Something could not be released; the rest was.
    fn shutdown(&mut self) -> Result<()>;

    /// The function `name` that runs `package` as `config` says: the recorded one where there is one that can still
    /// serve (with its code or configuration updated where they differ), else a new one. Without a name it is
    /// [`System::default_function_name`].
    ///
    /// # Errors
    /// The function could not be created or updated.
    fn get_function(
        &mut self,
        package: &CodePackage,
        name: Option<&str>,
        config: &FunctionConfig,
    ) -> Result<Function> {
        let name = name.map_or_else(|| self.default_function_name(package), str::to_string);
        let name = self.format_function_name(&name);
        let mut function = match self.recorded_function(package, &name)? {
            Some(mut function) => {
                if function.code_package_hash != package.hash || package.rebuilt {
                    log::info!("function `{name}` is there with other code: updating it");
                    self.update_function(&mut function, package, config)?;
                    function.updated_code = true;
                } else if function.config != *config {
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
        let Ok(mut function) = Function::deserialize(record) else {
            log::warn!("the record of function `{name}` in the cache cannot be understood: it is not used");
            return Ok(None);
        };
        if self.cached_function(&mut function, package)? {
            return Ok(Some(function));
        }
        log::info!("function `{name}` was kept, but is gone");
        Ok(None)
    }
}
