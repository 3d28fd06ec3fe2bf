//! The input that functions are invoked with: the user's own, or what the benchmark's `input.py` makes.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use sebs_lite::benchmark::{
    Benchmark, InputProcess, InputPython, InputRequest, Needs, allocate, prepare_input,
};
use sebs_lite::cancel::Cancel;
use sebs_lite::docker::Engine;
use sebs_lite::faas::SystemResources;
use sebs_lite::local::LocalOptions;
use sebs_lite::storage::{StorageFile, StorageKind};
use sebs_lite::units::Bytes;
use sebs_lite::{Error, Result};

use super::Context;

/// What was typed of the input.
pub(crate) struct InputChoices<'a> {
    pub(crate) size: &'a str,
    /// The user's own input, already read.
    pub(crate) own: Option<String>,
    /// The Python to run `input.py` with.
    pub(crate) python: Option<&'a Path>,
    /// Is its process needed afterwards, to judge outputs?
    pub(crate) validates: bool,
    /// The storage that functions are told of whether or not the benchmark needs it.
    pub(crate) demanded: &'a StorageFile,
}

pub(crate) fn check_size(size: &str) -> Result<()> {
    if ["test", "small", "large"].contains(&size) {
        return Ok(());
    }
    Err(Error::usage(format!("size `{size}` is not known: it must be `test`, `small` or `large`")))
}

/// A payload that the function server would refuse is refused here.
pub(crate) fn check_payload(payload: &str, options: &LocalOptions) -> Result<()> {
    let (size, most) = (Bytes(payload.len() as u64), options.max_payload);
    if size <= most {
        return Ok(());
    }
    Err(Error::usage(format!("the input has {size}, and may have {most}: allow more with --max-payload")))
}

/// Reads the JSON object that `--input` names.
pub(crate) fn read_input(name: &str, cancel: &Cancel) -> Result<String> {
    let read = if name == "-" {
        read_whole(std::io::stdin().lock(), cancel)
    } else {
        std::fs::File::open(name).and_then(|file| read_whole(file, cancel))
    };
    cancel.check()?;
    let text = read.and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other));
    let text = text.map_err(|error| Error::usage(format!("failed to read the input `{name}`: {error}")))?;
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text)
        .map_err(|error| Error::usage(format!("the input `{name}` is not a JSON object: {error}")))?;
    Ok(text)
}

/// Reads to the end, or until the token is triggered: a terminal or a pipe may not come to its end.
fn read_whole(mut source: impl Read + AsFd, cancel: &Cancel) -> std::io::Result<Vec<u8>> {
    const LOOK_EVERY_MS: u8 = 100;
    let (mut text, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
    while !cancel.is_triggered() {
        let mut watched = [PollFd::new(source.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, LOOK_EVERY_MS) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        match source.read(&mut piece)? {
            0 => break,
            read => text.extend_from_slice(&piece[..read]),
        }
    }
    Ok(text)
}

/// The payload, and the process that runs the benchmark's `input.py` if it has work to do. What the benchmark needs of
/// storage is had then.
pub(crate) fn make_input(
    context: &Context,
    engine: &Engine,
    benchmark: &Benchmark,
    choices: InputChoices<'_>,
    resources: &mut SystemResources,
) -> Result<(String, Option<InputProcess>)> {
    choices.demanded.kinds().try_for_each(|(kind, _)| demand(resources, kind))?;
    let asks = choices.validates || benchmark.may_need_storage()?;
    if let Some(payload) = choices.own.clone().filter(|_| !asks) {
        return Ok((payload, None));
    }
    context.line.callback().step("making the input", choices.size);
    let progress = &context.line.callback();
    let request = InputRequest {
        benchmark,
        python: choices.python.map_or(InputPython::Any, InputPython::Program),
        engine: Some(engine),
        verbose: context.common.verbose,
        cancel: &context.cancel,
        progress,
    };
    let Some(mut process) = InputProcess::start(&request)? else {
        return Ok((choices.own.unwrap_or_else(|| "{}".to_string()), None));
    };
    let (name, needs) = (&benchmark.name, Needs::of(&mut process)?);
    let input = match choices.own {
        Some(own) => {
            allocate(name, &needs, resources)?;
            own
        }
        None => prepare_input(&mut process, name, &needs, choices.size, resources, progress)?.to_string(),
    };
    if choices.validates {
        return Ok((input, Some(process)));
    }
    // It has no more to do, and would only sit beside what is measured.
    process.stop()?;
    Ok((input, None))
}

/// Has storage of one kind in use, whether or not the benchmark needs it.
fn demand(resources: &mut SystemResources, kind: StorageKind) -> Result<()> {
    match kind {
        StorageKind::Object => resources.get_storage(None).map(drop),
        StorageKind::Nosql => resources.get_nosql_storage().map(drop),
    }
}
