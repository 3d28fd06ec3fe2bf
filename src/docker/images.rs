//! The life of an image on its engine: inspect, list, build, import, tag, remove.

use std::collections::BTreeMap;
use std::io::Read;

use super::call::{Answer, escaped_reference};
use super::labels::{self, Labelled};
use super::stream::{self, Outcome};
use super::{BuildOptions, Engine, ImageInspect, ImageSummary};
use crate::error::{Context, Error, Kind, Result};
use crate::progress::Progress;

impl Engine {
    /// An image as the engine holds it, by reference or id.
    ///
    /// # Errors
    /// `is_not_found` when the engine has none.
    pub fn inspect_image(&self, reference: &str) -> Result<ImageInspect> {
        let inspect = || self.get(&path(reference, "/json")).fetch();
        inspect().context(|| format!("failed to inspect image `{reference}`"))
    }

    /// The images that have all these labels, `name` or `name=value` each.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub fn list_images(&self, labels: &[&str]) -> Result<Vec<ImageSummary>> {
        let list = || labels::filter(self.get("/images/json"), labels)?.fetch();
        let listed = labels::listed(list).context(|| "failed to list images".to_string())?;
        Ok(labels::with_all(listed, labels))
    }

    /// Has the engine build an image from a tar archive that holds the Dockerfile and all it copies.
    ///
    /// There is no time limit: a step may install what it likes. The cancel token ends it, and the step with it.
    ///
    /// # Errors
    /// When a step fails: the text has the engine's words and the last lines of the step's output. When a base image is in
    /// a registry that wants other credentials than those of the docker CLI's configuration (`is_denied`). When `context`
    /// cannot be read.
    pub fn build_image(
        &self,
        context: &mut dyn Read,
        options: &BuildOptions,
        progress: &Progress,
    ) -> Result<()> {
        self.build_inner(context, options, progress)
            .context(|| format!("failed to build image `{}`", options.tag))?;
        Ok(())
    }

    fn build_inner(
        &self,
        context: &mut dyn Read,
        options: &BuildOptions,
        progress: &Progress,
    ) -> Result<Outcome> {
        let mut call = self
            .post("/build")
            .query("t", &options.tag)
            // Containers of steps that were run are of no use, least of all those of steps that failed.
            .query("rm", "1")
            .query("forcerm", "1")
            .query_unless_empty("dockerfile", &options.dockerfile)
            .query_unless_empty("platform", &options.platform)
            .query_json("labels", &options.labels)?
            .query_json("buildargs", &options.build_args)?;
        if options.pull {
            call = call.query("pull", "1");
        }
        // A base image may be in a registry that wants them.
        let answer = self.with_all_access(call)?.without_limit().upload(context)?;
        follow(answer, &format!("building image {}", options.tag), progress).map_err(explain_base)
    }

    /// Makes an image of one layer from a tar archive of its root folder, and gives back its id.
    ///
    /// Each of `changes` is a line of a Dockerfile (`ENTRYPOINT ["/bin/x"]`, `ENV A=b`, `LABEL c=d`). There is no time
    /// limit: an archive may be large and the disk slow.
    ///
    /// # Errors
    /// When the engine takes the archive or a change for none, or when `tar` cannot be read.
    pub fn import_image(
        &self,
        tar: &mut dyn Read,
        reference: &str,
        changes: &[String],
        progress: &Progress,
    ) -> Result<String> {
        let mut import = || {
            // The tag as a part of the name: Podman 4.3 takes no notice of one by itself, and would make it `latest`.
            let mut call = self.post("/images/create").query("fromSrc", "-").query("repo", reference);
            for change in changes {
                call = call.query("changes", change);
            }
            let answer = call.without_limit().upload(tar)?;
            let outcome = follow(answer, &format!("importing image {reference}"), progress)?;
            outcome
                .status
                .filter(|status| status.starts_with("sha256:"))
                .ok_or_else(|| Error::new("the engine did not say which image it made"))
        };
        import().context(|| format!("failed to import image `{reference}`"))
    }

    /// Gives an image one more reference, `repository:tag`.
    ///
    /// # Errors
    /// `is_not_found` when there is no image `source`.
    pub fn tag_image(&self, source: &str, repository: &str, tag: &str) -> Result<()> {
        let call = || {
            self.post(&path(source, "/tag"))
                .repeatable()
                .query("repo", repository)
                .query("tag", tag)
                .perform()
        };
        call().context(|| format!("failed to tag image `{source}` as `{repository}:{tag}`"))
    }

    /// Takes a reference away from an image, and the image with its last one.
    ///
    /// # Errors
    /// `is_not_found` when there is none, `is_conflict` when a container needs it.
    pub fn remove_image(&self, reference: &str) -> Result<()> {
        let remove = || self.delete(&path(reference, "")).perform();
        remove().context(|| format!("failed to remove image `{reference}`"))
    }
}

impl Labelled for ImageSummary {
    fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }
}

/// Says what to do where the engine's own words mean that a base image is not for everybody.
fn explain_base(error: Error) -> Error {
    let text = error.to_string();
    let is_denied =
        ["no basic auth credentials", "pull access denied", "unauthorized: authentication required"]
            .iter()
            .any(|words| text.contains(words));
    if !is_denied {
        return error;
    }
    let text = "the registry of a base image has none of that name, or wants other credentials (run `docker login` for it)";
    Error::from_source(Kind::Denied, text, error)
}

pub(super) fn follow(mut answer: Answer<'_>, task: &str, progress: &Progress) -> Result<Outcome> {
    let followed = stream::follow(&mut answer.reader(), task, progress);
    followed.map_err(|error| answer.failure(error))?
}

fn path(reference: &str, rest: &str) -> String {
    format!("/images/{}{rest}", escaped_reference(reference))
}

/// A reference as the engine wants it in a query: what comes before its tag or digest, and that.
pub(super) fn split(reference: &str) -> (&str, Option<&str>) {
    if let Some((repository, digest)) = reference.split_once('@') {
        return (repository, Some(digest));
    }
    // A colon before the last slash belongs to the port of a registry.
    match reference.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (reference, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_split_at_its_tag_or_digest_alone() {
        for (reference, repository, version) in [
            ("busybox", "busybox", None),
            ("busybox:1.36", "busybox", Some("1.36")),
            ("localhost:5000/a/b", "localhost:5000/a/b", None),
            ("localhost:5000/a/b:c", "localhost:5000/a/b", Some("c")),
            ("a/b@sha256:0f", "a/b", Some("sha256:0f")),
        ] {
            assert_eq!(split(reference), (repository, version));
        }
    }
}
