//! Asks Podman what its answer to a Docker client leaves out: is it rootless, and which controllers has it got?
//!
//! Podman 4.3 says to Docker clients that it can limit everything and nothing of being rootless, whatever is true.

use serde::Deserialize;
use ureq::http::Method;

use super::{Engine, Info};
use crate::error::Result;

/// The header of Podman's answers that names the version of its own API.
pub(super) const API_HEADER: &str = "Libpod-Api-Version";

/// Corrects what Podman, whose own API has this version, says of itself.
pub(super) fn correct(engine: &Engine, api: &str, info: &mut Info) -> Result<()> {
    let own: Own = engine.call_unversioned(Method::GET, &format!("/v{api}/libpod/info")).send()?.json()?;
    own.host.apply(info);
    Ok(())
}

/// Podman's own answer (`GET /libpod/info`).
#[derive(Deserialize)]
struct Own {
    host: Host,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Host {
    /// `None`: it does not tell.
    cgroup_controllers: Option<Vec<String>>,
    security: Security,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Security {
    rootless: bool,
    #[serde(rename = "selinuxEnabled")]
    has_selinux: bool,
}

impl Host {
    fn apply(&self, info: &mut Info) {
        for (is_so, name) in [(self.security.rootless, "rootless"), (self.security.has_selinux, "selinux")] {
            let option = format!("name={name}");
            if is_so && !info.security_options.iter().any(|known| known.contains(&option)) {
                info.security_options.push(option);
            }
        }
        // As the kernel names them, which Docker does.
        match info.architecture.as_str() {
            "amd64" => info.architecture = "x86_64".to_string(),
            "arm64" => info.architecture = "aarch64".to_string(),
            _ => {}
        }
        let Some(controllers) = &self.cgroup_controllers else { return };
        let has = |name: &str| controllers.iter().any(|controller| controller == name);
        info.memory_limit &= has("memory");
        info.swap_limit &= has("memory");
        info.pids_limit &= has("pids");
        info.cpu_cfs_quota = Some(has("cpu"));
        info.cpu_set = Some(has("cpuset"));
        if controllers.is_empty() {
            // Docker's word for it.
            info.cgroup_driver = "none".to_string();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Limit;
    use super::*;

    fn corrected(own: &str) -> Info {
        let mut info = Info {
            memory_limit: true,
            swap_limit: true,
            pids_limit: true,
            cpu_cfs_quota: Some(true),
            cpu_set: Some(true),
            cgroup_driver: "cgroupfs".to_string(),
            architecture: "amd64".to_string(),
            security_options: vec!["name=seccomp,profile=default".to_string()],
            ..Info::default()
        };
        serde_json::from_str::<Own>(own).unwrap().host.apply(&mut info);
        info
    }

    #[test]
    fn what_podman_was_given_is_what_it_can_limit() {
        let whole = corrected(
            r#"{"host":{"cgroupControllers":["cpuset","cpu","memory","pids"],"security":{"rootless":false}}}"#,
        );
        assert!(whole.missing_limits().is_empty() && !whole.is_rootless() && whole.has_cgroups());
        assert_eq!(whole.architecture, "x86_64");
        let delegated = r#"{"host":{"cgroupControllers":["memory","pids"],"security":{"rootless":true}}}"#;
        let delegated = corrected(delegated);
        assert_eq!(delegated.missing_limits(), [Limit::Cpus, Limit::Cpuset]);
        assert!(delegated.is_rootless() && delegated.has_cgroups());
        let none = r#"{"host":{"cgroupControllers":[],"security":{"rootless":true,"selinuxEnabled":true}}}"#;
        let none = corrected(none);
        assert_eq!(none.missing_limits(), [Limit::Memory, Limit::Processes, Limit::Cpus, Limit::Cpuset]);
        assert!(!none.has_cgroups() && none.has_selinux());
        assert!(corrected(r#"{"host":{}}"#).missing_limits().is_empty());
    }
}
