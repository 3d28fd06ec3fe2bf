//! `profile`: shows what is in a recording.

use std::path::Path;

use sebs_lite::probe::Recording;
use sebs_lite::{Error, Result, report};

use crate::args::Profile;
use crate::exit::Exit;

use super::Context;

/// `profile`.
pub(crate) fn profile(context: &Context, args: &Profile) -> Result<Exit> {
    if [context.common.json, args.csv, args.svg].into_iter().filter(|is_given| *is_given).count() > 1 {
        return Err(Error::usage("choose one of --json, --csv and --svg"));
    }
    let recording = open(&args.file)?;
    let gathered = report::ProfileReport::new(&recording)?;
    context.cancel.check()?;
    // The other forms say so themselves.
    if gathered.cut && args.csv {
        log::warn!("recording `{}` has no end: it was cut, or is still being written", args.file.display());
    }
    if context.common.json {
        context.print_json(&gathered)?;
    } else if args.csv {
        context.stream(|out| report::profile_csv(&gathered, &recording, out))?;
    } else if args.svg {
        let name = args.file.file_name().unwrap_or_default().to_string_lossy();
        let svg = report::profile_svg(&gathered, &recording, &name)?;
        context.cancel.check()?;
        context.print(&svg)?;
    } else {
        context.print(&gathered.table())?;
    }
    Ok(Exit::Done)
}

/// Opens what was typed: that there is no such file, or that it cannot be a recording, is wrong usage.
fn open(path: &Path) -> Result<Recording> {
    let about = || format!("failed to read recording `{}`", path.display());
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(Error::usage(format!(
            "{}: it must be a file, and no folder or pipe, since it is read several times",
            about()
        )));
    }
    Recording::open(path).map_err(|error| match error.is_not_found() {
        true => Error::usage(error.to_string()),
        false => error,
    })
}
