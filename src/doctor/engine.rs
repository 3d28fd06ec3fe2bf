//! The engine, the runtime images it holds, and the interpreters of this host that images can be made of.

use std::path::PathBuf;

use serde::Serialize;

use super::{Area, Finding};
use crate::docker::{Engine, Info, Limit};
use crate::error::Result;
use crate::faas::{Language, PACKAGE_LABEL};
use crate::host;
use crate::runtime;

/// The oldest Python that runs every `input.py`.
const INPUT_PYTHON: (u32, u32) = (3, 10);

/// What was read of the engine.
#[derive(Clone, Debug, Serialize)]
pub struct EngineFacts {
    /// The engine; or why there is none.
    #[serde(serialize_with = "super::value_or_error")]
    pub engine: Result<Reached, String>,
    /// The interpreters of this host that a runtime image can be imported from.
    pub interpreters: Vec<Interpreter>,
    /// The Python of this host that runs `input.py`; absent: none is new enough.
    pub input_python: Option<Interpreter>,
    /// Is this Linux a guest of Windows?
    pub is_wsl: bool,
}

/// An engine that answers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Reached {
    /// The socket that it listens on.
    pub socket: PathBuf,
    /// `Docker` or `Podman`.
    pub product: String,
    /// Its own version.
    pub version: String,
    /// The version of its API that is spoken with it.
    pub api_version: String,
    /// For people: `Debian GNU/Linux 12 (bookworm)`.
    pub operating_system: String,
    /// `cgroupfs`, `systemd` or `none`.
    pub cgroup_driver: String,
    /// `1` or `2`; empty: not told.
    pub cgroup_version: String,
    /// `overlay2` and its like.
    pub storage_driver: String,
    /// Does it run without root's rights?
    pub is_rootless: bool,
    /// Does it run Linux containers?
    pub is_linux: bool,
    /// What of a container it cannot limit.
    pub missing_limits: Vec<Limit>,
    /// Can swap be limited?
    pub has_swap_limit: bool,
    /// `name=seccomp,profile=default` and its like.
    pub security_options: Vec<String>,
    /// Names of the runtime images of this program that it holds.
    pub images: Vec<String>,
}

/// An interpreter of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interpreter {
    /// Its language.
    pub language: Language,
    /// Its version, as functions ask for it.
    pub version: String,
    /// Its file.
    pub path: PathBuf,
}

impl EngineFacts {
    pub(super) fn read(engine: &Result<Engine>) -> EngineFacts {
        let reached = match engine {
            Ok(engine) => Reached::read(engine).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let interpreter = |language: Language, found: runtime::HostInterpreter| Interpreter {
            language,
            version: found.version(),
            path: found.executable,
        };
        let of_language = |language: Language| {
            runtime::host_interpreters(language).map(move |found| interpreter(language, found))
        };
        EngineFacts {
            engine: reached,
            interpreters: Language::ALL
                .into_iter()
                .flat_map(of_language)
                .filter(|found| found.language.versions().contains(&found.version.as_str()))
                .collect(),
            input_python: runtime::host_python(INPUT_PYTHON)
                .ok()
                .map(|found| interpreter(Language::Python, found)),
            is_wsl: host::is_wsl(),
        }
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut findings = match &self.engine {
            Ok(reached) => reached.findings(self.is_wsl),
            Err(error) => vec![Finding::bad(
                Area::Engine,
                "engine",
                error,
                "mend what the message names: start Docker (`systemctl start docker`), be let in, or name another socket \
                 (DOCKER_HOST=unix:///path/to/docker.sock)",
            )],
        };
        for language in Language::ALL {
            findings.push(self.language(language));
        }
        findings.push(match &self.input_python {
            Some(python) => Finding::ok(
                Area::Engine,
                "input.py",
                format!("run by Python {} (`{}`)", python.version, python.path.display()),
            ),
            None => Finding::warn(
                Area::Engine,
                "input.py",
                format!("no Python {}.{} on this host", INPUT_PYTHON.0, INPUT_PYTHON.1),
                "install one, or let each input be made in a container, which takes longer",
            ),
        });
        findings
    }

    /// Can functions of a language run?
    fn language(&self, language: Language) -> Finding {
        let name = match language {
            Language::Python => "python",
            Language::Nodejs => "nodejs",
        };
        let images: Vec<&str> = self
            .engine
            .iter()
            .flat_map(|reached| &reached.images)
            .filter(|image| image.contains(&format!(".{name}.")))
            .map(String::as_str)
            .collect();
        let mut interpreters: Vec<&str> = self
            .interpreters
            .iter()
            .filter(|interpreter| interpreter.language == language)
            .map(|interpreter| interpreter.version.as_str())
            .collect();
        interpreters.dedup();
        let value = match (images.is_empty(), interpreters.is_empty()) {
            (false, true) => format!("images: {}", images.join(", ")),
            (false, false) => {
                format!(
                    "images: {}; can be imported from this host: {}",
                    images.join(", "),
                    interpreters.join(", ")
                )
            }
            (true, false) if self.engine.is_err() => {
                format!("can be imported from this host: {}", interpreters.join(", "))
            }
            (true, false) => {
                format!("no image yet; can be imported from this host: {}", interpreters.join(", "))
            }
            (true, true) => {
                return Finding::warn(
                    Area::Engine,
                    name,
                    "no image, and no interpreter on this host that one could be made of",
                    format!(
                        "install {name} on this host, or let the image be built from one that the engine can pull"
                    ),
                );
            }
        };
        Finding::ok(Area::Engine, name, value)
    }
}

impl Reached {
    fn read(engine: &Engine) -> Result<Reached> {
        let info: Info = engine.info()?;
        let images = engine.list_images(&[runtime::SERVER_LABEL])?;
        // A function's image has the function server too, and is no runtime image for others.
        let runtimes = images.into_iter().filter(|image| !image.labels.contains_key(PACKAGE_LABEL));
        let mut images: Vec<String> = runtimes.flat_map(|image| image.repo_tags).collect();
        images.sort();
        Ok(Reached {
            socket: engine.socket().to_path_buf(),
            api_version: engine.api_version().to_string(),
            is_rootless: info.is_rootless(),
            is_linux: info.os_type == "linux",
            missing_limits: info.missing_limits(),
            product: info.product,
            version: info.server_version,
            operating_system: info.operating_system,
            cgroup_driver: info.cgroup_driver,
            cgroup_version: info.cgroup_version,
            storage_driver: info.storage_driver,
            has_swap_limit: info.swap_limit,
            security_options: info.security_options,
            images,
        })
    }

    fn findings(&self, is_wsl: bool) -> Vec<Finding> {
        let area = Area::Engine;
        let rootless = if self.is_rootless { " (rootless)" } else { "" };
        let engine = format!(
            "{} {}{rootless}, API {}, at `{}`",
            self.product,
            self.version,
            self.api_version,
            self.socket.display()
        );
        let mut findings = vec![if self.is_linux {
            Finding::ok(area, "engine", engine)
        } else {
            Finding::bad(
                area,
                "engine",
                engine,
                "switch it to Linux containers: functions run in these alone",
            )
        }];
        if is_wsl || self.operating_system.contains("Docker Desktop") {
            findings.push(Finding::warn(
                area,
                "place",
                format!("containers run in another machine ({})", self.operating_system),
                "run Docker Engine on this Linux itself: from another machine memory can be read once a second only",
            ));
        }
        let driver = format!("{}, version {}", self.cgroup_driver, known(&self.cgroup_version));
        findings.push(if self.cgroup_driver == "none" {
            let advice = "delegate the controllers to your user, on cgroup v2 (systemd's `Delegate=cpu cpuset memory pids` for \
                          `user@.service`): without them nothing is limited or counted";
            Finding::warn(area, "cgroup driver", driver, advice)
        } else {
            Finding::ok(area, "cgroup driver", driver)
        });
        findings.push(self.limits());
        findings.push(if self.storage_driver == "vfs" {
            let advice =
                "use overlay2: vfs copies the whole image for each container, which makes cold starts slow";
            Finding::warn(area, "storage driver", &self.storage_driver, advice)
        } else {
            Finding::ok(area, "storage driver", &self.storage_driver)
        });
        findings.push(Finding::ok(area, "rootless", if self.is_rootless { "yes" } else { "no" }));
        findings.push(Finding::ok(area, "security", known(&self.security_options.join("; "))));
        findings
    }

    /// What can be limited, and what not.
    fn limits(&self) -> Finding {
        let area = Area::Engine;
        let words = |limits: &[Limit]| limits.iter().map(Limit::to_string).collect::<Vec<_>>().join(", ");
        if self.missing_limits.contains(&Limit::Memory) {
            let advice = match self.is_rootless {
                true => "delegate the controllers to your user: functions get all the memory of the machine",
                false => "boot with `cgroup_enable=memory`: functions get all the memory of the machine",
            };
            return Finding::warn(area, "limits", format!("not of {}", words(&self.missing_limits)), advice);
        }
        if !self.missing_limits.is_empty() {
            let advice = match self.is_rootless {
                true => {
                    "delegate the controllers `cpu`, `cpuset` and `pids` to your user, if you want such limits"
                }
                false => "boot a kernel that has these controllers, if you want such limits",
            };
            return Finding::warn(
                area,
                "limits",
                format!("memory; not {}", words(&self.missing_limits)),
                advice,
            );
        }
        match self.has_swap_limit {
            true => Finding::ok(area, "limits", "memory, swap, processes, CPU time, the choice of CPUs"),
            false => Finding::warn(
                area,
                "limits",
                "memory, not swap",
                "turn swap off (`swapoff -a`), or boot with `swapaccount=1`: a function's peak may hide in swap",
            ),
        }
    }
}

fn known(text: &str) -> &str {
    if text.is_empty() { "not told" } else { text }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn reached() -> Reached {
        Reached {
            socket: "/var/run/docker.sock".into(),
            product: "Docker".to_string(),
            version: "20.10.24".to_string(),
            api_version: "1.41".to_string(),
            cgroup_driver: "cgroupfs".to_string(),
            cgroup_version: "1".to_string(),
            storage_driver: "overlay2".to_string(),
            is_linux: true,
            has_swap_limit: true,
            images: vec!["sebs-lite:run.local.python.3.11".to_string()],
            ..Reached::default()
        }
    }

    fn facts(engine: Result<Reached, String>) -> EngineFacts {
        let node = Interpreter {
            language: Language::Nodejs,
            version: "20".to_string(),
            path: "/usr/bin/node".into(),
        };
        EngineFacts { engine, interpreters: vec![node], input_python: None, is_wsl: false }
    }

    #[track_caller]
    fn finding<'a>(findings: &'a [Finding], name: &str) -> &'a Finding {
        findings.iter().find(|finding| finding.name == name).unwrap()
    }

    #[test]
    fn an_engine_that_works_is_fine() {
        let findings = facts(Ok(reached())).findings();
        let engine = finding(&findings, "engine");
        assert_eq!(engine.verdict, Verdict::Ok);
        assert_eq!(engine.value, "Docker 20.10.24, API 1.41, at `/var/run/docker.sock`");
        assert_eq!(finding(&findings, "python").value, "images: sebs-lite:run.local.python.3.11");
        assert!(finding(&findings, "nodejs").value.contains("can be imported from this host: 20"));
        let warned: Vec<&str> = findings
            .iter()
            .filter(|finding| finding.verdict > Verdict::Ok)
            .map(|finding| finding.name)
            .collect();
        assert_eq!(warned, ["input.py"]);
    }

    #[test]
    fn without_an_engine_its_error_is_the_finding_and_the_rest_is_told() {
        let findings = facts(Err("found no Docker engine: nobody listens".to_string())).findings();
        let engine = finding(&findings, "engine");
        assert_eq!(
            (engine.verdict, engine.value.as_str()),
            (Verdict::Bad, "found no Docker engine: nobody listens")
        );
        assert_eq!(finding(&findings, "python").verdict, Verdict::Warn);
        assert_eq!(finding(&findings, "nodejs").verdict, Verdict::Ok);
    }

    #[test]
    fn what_limits_an_engine_is_told_with_what_to_do() {
        let engine = Reached {
            cgroup_driver: "none".to_string(),
            storage_driver: "vfs".to_string(),
            operating_system: "Docker Desktop".to_string(),
            has_swap_limit: false,
            is_linux: false,
            ..reached()
        };
        let findings = facts(Ok(engine)).findings();
        assert_eq!(finding(&findings, "engine").verdict, Verdict::Bad);
        for name in ["cgroup driver", "storage driver", "place", "limits"] {
            let finding = finding(&findings, name);
            assert!(finding.verdict == Verdict::Warn && finding.advice.is_some(), "{finding:?}");
        }
    }
}
