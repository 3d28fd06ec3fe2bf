//! Runs a command in a container that runs already.

use serde::{Deserialize, Serialize};

use super::containers::named;
use super::frames::{Framing, Splitter, Stream};
use super::{Engine, ExecOutput, ExecSpec};
use crate::error::{Context, Error, Kind, Result};

impl Engine {
    /// Runs a command in a running container, to its end, and gives back all that it wrote.
    ///
    /// There is no time limit: a command may take as long as it likes, and the cancel token ends the wait, though not
    /// the command.
    ///
    /// # Errors
    /// When there is no such container (`is_not_found`), when it does not run (`is_conflict`), or when the engine
    /// cannot be reached. A command that fails, or cannot be found, is no error: see [`ExecOutput::exit_code`].
    pub fn exec(&self, id: &str, spec: &ExecSpec) -> Result<ExecOutput> {
        self.exec_inner(id, spec).context(|| {
            let command = spec.cmd.first().map_or("nothing", String::as_str);
            format!("failed to run `{command}` in {}", named(id))
        })
    }

    fn exec_inner(&self, id: &str, spec: &ExecSpec) -> Result<ExecOutput> {
        let request = CreateExec {
            attach_stdout: true,
            attach_stderr: true,
            cmd: &spec.cmd,
            env: &spec.env,
            user: &spec.user,
            working_dir: &spec.working_dir,
        };
        let path = format!("/containers/{}/exec", super::call::escaped(id));
        let created: CreatedExec = self.post(&path).json(&request)?.fetch()?;
        let mut output = ExecOutput::default();
        let mut splitter = Splitter::new(Framing::Multiplexed);
        let mut sink = |stream, bytes: &[u8]| match stream {
            Stream::Stdout => output.stdout.extend_from_slice(bytes),
            Stream::Stderr => output.stderr.extend_from_slice(bytes),
        };
        let start = self.post(&format!("/exec/{}/start", created.id)).json(&StartExec::default())?;
        start.without_limit().send()?.for_each_piece(|piece| splitter.push(piece, &mut sink))?;
        splitter.finish()?;
        let ended: InspectedExec = self.get(&format!("/exec/{}/json", created.id)).fetch()?;
        output.exit_code = ended.exit_code.ok_or_else(|| {
            Error::with_kind(Kind::Disconnected, "the connection was lost before the command ended")
        })?;
        Ok(output)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CreateExec<'a> {
    attach_stdout: bool,
    attach_stderr: bool,
    cmd: &'a [String],
    env: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    user: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    working_dir: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreatedExec {
    id: String,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct StartExec {
    detach: bool,
    tty: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedExec {
    /// `None` as long as it runs.
    exit_code: Option<i64>,
}
