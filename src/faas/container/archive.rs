//! The archive that a function image is built from: a Dockerfile, and the code package as it is to stand in the image.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::path::Path;
use std::thread::ScopedJoinHandle;

use crate::error::{Context, Error, Result};
use crate::faas::CodePackage;
use crate::files::{self, EntryKind};

/// Who owns the package: neither root nor any caller, so that no function can change it, be it run as root without
/// capabilities.
const OWNER: &str = "65534:65534";

/// The folders of the archive that each become a layer, in their order.
const LAYERS: [&str; 2] = ["installed", "code"];

/// What is installed, in a layer of its own: other code alone leaves it as it is, here and in the registry.
const DEPENDENCIES: [&str; 2] = [".python_packages", "node_modules"];

/// The same for each file, so that an equal package makes an equal layer.
const MODIFIED: u64 = 1_700_000_000;

/// Hands `consume` the archive as it is made: a package may be larger than the memory that is free.
///
/// # Errors
/// Those of `consume`, which is told of a file that cannot be read as it reads.
pub(super) fn with_archive<T>(
    package: &CodePackage,
    consume: impl FnOnce(&mut dyn Read) -> Result<T>,
) -> Result<T> {
    let about = || "failed to make a pipe".to_string();
    let (reader, writer) = io::pipe().context(about)?;
    let dockerfile = dockerfile(&package.image_id, &package.location);
    std::thread::scope(|scope| {
        let make = || write(&dockerfile, &package.location, io::BufWriter::with_capacity(1 << 16, writer));
        let maker = std::thread::Builder::new().name("archive".to_string()).spawn_scoped(scope, make);
        let maker = maker.context(|| "failed to start a thread".to_string())?;
        consume(&mut Archive { reader, maker: Some(maker) })
    })
}

/// The image that the package is laid over is named by its id: its name may be another's by now.
fn dockerfile(image_id: &str, package: &Path) -> String {
    let mut text = format!("FROM {image_id}\n");
    let layers = if has_dependencies(package) { &LAYERS[..] } else { &LAYERS[1..] };
    for layer in layers {
        text.push_str(&format!("COPY --chown={OWNER} {layer}/ /\n"));
    }
    text
}

fn has_dependencies(package: &Path) -> bool {
    DEPENDENCIES.iter().any(|name| package.join(name).is_dir())
}

/// The folder of the archive for what stands at a path of the package.
fn layer(path: &Path) -> &'static str {
    let is_installed = DEPENDENCIES.iter().any(|name| path.starts_with(name));
    LAYERS[usize::from(!is_installed)]
}

/// The reading end of an archive, which fails if what makes it did: half an archive may look like a whole one.
struct Archive<'scope> {
    reader: PipeReader,
    maker: Option<ScopedJoinHandle<'scope, Result<()>>>,
}

impl Read for Archive<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let amount = self.reader.read(buffer)?;
        if amount == 0
            && let Some(maker) = self.maker.take()
        {
            let made = maker.join().unwrap_or_else(|_| Err(Error::new("the thread that makes it died")));
            made.map_err(|error| io::Error::other(error.to_string()))?;
        }
        Ok(amount)
    }
}

fn write(dockerfile: &str, package: &Path, writer: impl Write) -> Result<()> {
    let mut archive = tar::Builder::new(writer);
    let mut header = header(tar::EntryType::Regular, 0o644);
    header.set_size(dockerfile.len() as u64);
    archive
        .append_data(&mut header, "Dockerfile", dockerfile.as_bytes())
        .context(|| "failed to archive the Dockerfile".to_string())?;
    // The folder itself too: the image may have one, which its function could write to.
    for layer in LAYERS {
        append_folder(&mut archive, Path::new(layer))?;
        append_folder(&mut archive, &Path::new(layer).join("function"))?;
    }
    for entry in files::walk(package)? {
        let source = package.join(&entry.path);
        let name = Path::new(layer(&entry.path)).join("function").join(&entry.path);
        match entry.kind {
            EntryKind::Folder => append_folder(&mut archive, &name)?,
            EntryKind::Link(target) => append_link(&mut archive, &name, &target)?,
            EntryKind::File(_) => append_file(&mut archive, &name, &source, entry.mode)?,
        }
    }
    let finish = || archive.into_inner().and_then(|mut writer| writer.flush());
    finish().context(|| "failed to end an archive".to_string())
}

fn append_folder(archive: &mut tar::Builder<impl Write>, name: &Path) -> Result<()> {
    let mut header = header(tar::EntryType::Directory, 0o755);
    header.set_size(0);
    archive.append_data(&mut header, name, io::empty()).context(|| about(name))
}

fn append_link(archive: &mut tar::Builder<impl Write>, name: &Path, target: &Path) -> Result<()> {
    let mut header = header(tar::EntryType::Symlink, 0o777);
    header.set_size(0);
    archive.append_link(&mut header, name, target).context(|| about(name))
}

/// Adds a file that everybody may read, and execute if anybody may: who runs it is not who made it.
fn append_file(archive: &mut tar::Builder<impl Write>, name: &Path, source: &Path, mode: u32) -> Result<()> {
    let mut append = || {
        let file = File::open(source)?;
        let length = file.metadata()?.len();
        let mut header = header(tar::EntryType::Regular, if mode & 0o111 == 0 { 0o644 } else { 0o755 });
        header.set_size(length);
        archive.append_data(&mut header, name, file.take(length))
    };
    append().context(|| format!("failed to archive `{}`", source.display()))
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MODIFIED);
    header
}

fn about(name: &Path) -> String {
    format!("failed to archive `{}`", name.display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::files::{Access, TempFolder};

    #[test]
    fn a_package_is_archived_for_everybody_to_read() {
        let folder = TempFolder::create().unwrap();
        let long = format!("function/{}/deep.py", "x".repeat(150));
        let installed = ".python_packages/lib/site-packages/six.py";
        assert!(!dockerfile("sha256:0f", folder.path()).contains("installed"));
        for name in ["function/function.py", "tool.sh", &long, installed] {
            files::write(&folder.path().join(name), b"x", Access::Owner).unwrap();
        }
        std::fs::set_permissions(folder.path().join("tool.sh"), PermissionsExt::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink("tool.sh", folder.path().join("link")).unwrap();
        let mut bytes = Vec::new();
        write("FROM x\n", folder.path(), &mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries: Vec<(String, u32, Option<String>)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let target = entry.link_name().unwrap().map(|target| target.display().to_string());
                (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap(), target)
            })
            .collect();
        let has = |name: &str, mode: u32| entries.iter().any(|entry| entry.0 == name && entry.1 == mode);
        assert_eq!(entries[0], ("Dockerfile".to_string(), 0o644, None));
        assert!(has("code", 0o755) && has("code/function", 0o755), "{entries:?}");
        assert!(has("code/function/function/function.py", 0o644) && has("code/function/tool.sh", 0o755));
        assert!(has(&format!("code/function/{long}"), 0o644), "{entries:?}");
        assert!(has(&format!("installed/function/{installed}"), 0o644), "{entries:?}");
        let steps = dockerfile("sha256:0f", folder.path());
        assert!(steps.starts_with("FROM sha256:0f\n") && steps.ends_with(" code/ /\n"), "{steps}");
        assert!(steps.contains(" installed/ /\n"), "{steps}");
        assert!(
            entries.iter().any(|entry| entry.0.ends_with("link") && entry.2.as_deref() == Some("tool.sh"))
        );
    }

    #[test]
    fn an_archive_that_cannot_be_made_to_its_end_is_no_archive() {
        let (reader, writer) = io::pipe().unwrap();
        let missing = Path::new("/no/such/package");
        let text = std::thread::scope(|scope| {
            let maker = scope.spawn(move || super::write("FROM x\n", missing, writer));
            let mut archive = Archive { reader, maker: Some(maker) };
            archive.read_to_end(&mut Vec::new()).unwrap_err().to_string()
        });
        assert!(text.contains("/no/such/package"), "{text}");
    }
}
