//! Whether an engine can run programs of an architecture: its machine's own, one that is emulated, or one that a trial shows.

use std::fs;
use std::path::Path;

use super::ImageRequest;
use super::describe::{self, Described};
use crate::docker::{Engine, ImageInspect};
use crate::error::{Error, Result};
use crate::faas::Architecture;

/// Where the kernel says which programs it has others run (<https://docs.kernel.org/admin-guide/binfmt-misc.html>).
const REGISTERED: &str = "/proc/sys/fs/binfmt_misc";

/// Says whether the engine can run programs of an architecture, and by which emulator; `None`: by itself.
///
/// # Errors
/// A usage error with the reason: it can not.
pub(super) fn check(engine: &Engine, architecture: Architecture) -> Result<Option<String>> {
    if Architecture::of_host() == Some(architecture) {
        return Ok(None);
    }
    let machine = engine.info()?.architecture;
    if kernel_name(architecture) == machine {
        return Ok(None);
    }
    let found = emulator(Path::new(REGISTERED), architecture);
    found.map(Some).ok_or_else(|| {
        Error::usage(format!(
            "this machine ({machine}) cannot run {architecture} images, since `{REGISTERED}` names no emulator of it: leave \
             --architecture out, or install qemu-user-static"
        ))
    })
}

/// Says whether an image that the user named is for the architecture that is wanted and runs here, and what it has. Its
/// interpreter is asked, so that an engine that runs it by means that nothing here knows of may.
///
/// # Errors
/// A usage error: it is for another architecture, or does not run here.
pub(super) fn check_named(
    engine: &Engine,
    request: &ImageRequest<'_>,
    name: &str,
    image: &ImageInspect,
) -> Result<Described> {
    let wanted = request.architecture;
    let known = [Architecture::X64, Architecture::Arm64];
    let is_for =
        |architecture: &Architecture| architecture.platform() == format!("linux/{}", image.architecture);
    if let Some(other) = known.into_iter().find(is_for).filter(|architecture| *architecture != wanted) {
        let text = format!("image `{name}` is for {other} and not for {wanted}: add --architecture {other}");
        return Err(Error::usage(text));
    }
    if Architecture::of_host() == Some(wanted) {
        return describe::describe(engine, &image.id, request.language);
    }
    describe::ask(engine, &image.id, request.language).map_err(|error| match error.is_cancelled() {
        true => error,
        false => {
            Error::usage(format!("image `{name}` is for {wanted}, which this engine does not run: {error}"))
        }
    })
}

/// The name of an enabled emulator for an architecture among those that the kernel knows.
fn emulator(folder: &Path, architecture: Architecture) -> Option<String> {
    let mut entries: Vec<_> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    let is_for =
        |path: &&std::path::PathBuf| fs::read_to_string(path).is_ok_and(|text| runs(&text, architecture));
    let found = entries.iter().find(is_for)?;
    Some(found.file_name()?.to_string_lossy().into_owned())
}

/// Does an entry of the kernel's, enabled, stand for ELF programs of an architecture?
fn runs(entry: &str, architecture: Architecture) -> bool {
    let magic = entry.lines().find_map(|line| line.strip_prefix("magic ")).unwrap_or_default();
    // An ELF header: 0x7f `ELF`, class, byte order, …; its bytes 18 and 19 are the machine, the lower one first.
    let machine = match architecture {
        Architecture::X64 => "3e00",
        Architecture::Arm64 => "b700",
    };
    entry.lines().next() == Some("enabled")
        && magic.starts_with("7f454c46")
        && magic.get(36..40) == Some(machine)
}

/// As the kernel names a machine.
fn kernel_name(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X64 => "x86_64",
        Architecture::Arm64 => "aarch64",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{self, Access, TempFolder};

    const QEMU: &str = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    #[test]
    fn an_emulator_is_known_by_the_programs_it_is_registered_for() {
        let folder = TempFolder::create().unwrap();
        let find = |architecture| emulator(folder.path(), architecture);
        assert_eq!(find(Architecture::Arm64), None);
        for (name, text) in [("register", ""), ("status", "enabled\n"), ("rosetta", QEMU)] {
            files::write(&folder.path().join(name), text.as_bytes(), Access::Everyone).unwrap();
        }
        assert_eq!(find(Architecture::Arm64).as_deref(), Some("rosetta"));
        assert_eq!(find(Architecture::X64), None);
        let disabled = QEMU.replacen("enabled", "disabled", 1);
        files::write(&folder.path().join("rosetta"), disabled.as_bytes(), Access::Everyone).unwrap();
        assert_eq!(find(Architecture::Arm64), None);
        assert!(emulator(&folder.path().join("none"), Architecture::Arm64).is_none());
    }
}
