//! A recording as CSV (RFC 4180): one row for each thing that happened to a target.

use std::io::Write;

use super::ProfileReport;
use crate::error::{Context, Result};
use crate::probe::{Event, Recording, What};

/// The columns, as the first row names them.
const COLUMNS: &str =
    "target,label,name,event,tick,last_tick,count,time_ns,epoch_ns,lateness_ns,memory_bytes,ending\r\n";

/// Writes a recording as CSV, row by row, so that memory stays small. A column that means nothing for an event is empty.
///
/// | column | what it is |
/// |---|---|
/// | `target` | number of the target, counted from 0 |
/// | `label` | its label, such as a container's id; several targets may have the same |
/// | `name` | the name that people know it by, where somebody said |
/// | `event` | `joined`, `sample`, `missed` (ticks that passed unsampled), `lost` (samples that could not be kept), `left`; `cut` instead of `left` where the recording ends before its target did |
/// | `tick` | the tick; of several the first; of `left` and `cut` the first that is not sampled any more |
/// | `last_tick` | the last tick of `missed` and `lost` |
/// | `count` | how many samples were taken or lost, or ticks missed; what a lost range has more ticks than that was missed |
/// | `time_ns` | ns since the recording's start: when a sample was taken; else, when `tick` was due |
/// | `epoch_ns` | the same instant in ns since 1970-01-01 UTC |
/// | `lateness_ns` | from when a sample was due to when it was taken |
/// | `memory_bytes` | what was sampled |
/// | `ending` | why the series ended |
///
/// # Errors
/// The recording cannot be read, or `out` cannot be written.
pub fn profile_csv(report: &ProfileReport, recording: &Recording, out: &mut dyn Write) -> Result<()> {
    let failed = || "failed to write the CSV".to_string();
    let header = &recording.header;
    let beginnings: Vec<String> = report
        .targets
        .iter()
        .map(|target| {
            let name = target.name.as_deref().unwrap_or_default();
            format!("{},{},{}", target.target.index(), quoted(&target.label), quoted(name))
        })
        .collect();
    let times = |at_ns: u64| {
        let time_ns = at_ns.saturating_sub(header.start_ns);
        (time_ns, header.start_epoch_ns.saturating_add(time_ns))
    };
    out.write_all(COLUMNS.as_bytes()).context(failed)?;
    for event in recording.events()? {
        let Event { target, what } = event?;
        // A recording that is still being written may have grown since its targets were told.
        let Some(beginning) = beginnings.get(target.index()) else { continue };
        let due = |tick| times(header.due(tick).0);
        let written = match what {
            What::Sample(sample) => {
                let (time_ns, epoch_ns) = times(header.instant(&sample).0);
                let (tick, lateness_ns, bytes) = (sample.tick, sample.lateness.as_nanos(), sample.bytes.0);
                write!(out, "{beginning},sample,{tick},,1,{time_ns},{epoch_ns},{lateness_ns},{bytes},\r\n")
            }
            What::Missed { first, last } => {
                let (time_ns, epoch_ns) = due(first);
                let count = last - first + 1;
                write!(out, "{beginning},missed,{first},{last},{count},{time_ns},{epoch_ns},,,\r\n")
            }
            What::Lost { first, last, samples } => {
                let (time_ns, epoch_ns) = due(first);
                write!(out, "{beginning},lost,{first},{last},{samples},{time_ns},{epoch_ns},,,\r\n")
            }
            What::Joined { tick } => {
                let (time_ns, epoch_ns) = due(tick);
                write!(out, "{beginning},joined,{tick},,,{time_ns},{epoch_ns},,,\r\n")
            }
            What::Left { tick, ending } => {
                let (time_ns, epoch_ns) = due(tick);
                let ending = quoted(&ending.to_string());
                write!(out, "{beginning},left,{tick},,,{time_ns},{epoch_ns},,,{ending}\r\n")
            }
        };
        written.context(failed)?;
    }
    for target in report.targets.iter().filter(|target| target.ending.is_none()) {
        let beginning = &beginnings[target.target.index()];
        let (time_ns, epoch_ns) = times(header.due(target.end_tick).0);
        write!(out, "{beginning},cut,{},,,{time_ns},{epoch_ns},,,\r\n", target.end_tick).context(failed)?;
    }
    Ok(())
}

/// A text as a field: in quotes where it holds a comma, a quote or the end of a line, each quote in it doubled.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        assert_eq!(quoted("plain text; µ"), "plain text; µ");
        assert_eq!(quoted(r#"a,b "c""#), r#""a,b ""c""""#);
        assert_eq!(quoted("two\nlines"), "\"two\nlines\"");
    }

    #[test]
    fn every_event_is_a_row() {
        let recording = example::whole();
        let report = ProfileReport::new(&recording).unwrap();
        let mut csv = Vec::new();
        profile_csv(&report, &recording, &mut csv).unwrap();
        let rows = [
            COLUMNS.trim_end(),
            "0,one,first,joined,0,,,0,9000000000,,,",
            "0,one,first,sample,0,,1,40000,9000040000,40000,4096,",
            "1,\"<two>, \"\"2\"\"\",,joined,1,,,1000000,9001000000,,,",
            "0,one,first,sample,1,,1,1050000,9001050000,50000,50000000,",
            "1,\"<two>, \"\"2\"\"\",,missed,1,1,1,1000000,9001000000,,,",
            "1,\"<two>, \"\"2\"\"\",,sample,2,,1,2000000,9002000000,0,30000000,",
            "0,one,first,missed,2,3,2,2000000,9002000000,,,",
            "0,one,first,sample,4,,1,4060000,9004060000,60000,20000000,",
            "0,one,first,lost,5,8,3,5000000,9005000000,,,",
            "0,one,first,sample,9,,1,9040000,9009040000,40000,10000000,",
            "0,one,first,left,10,,,10000000,9010000000,,,gone",
            "1,\"<two>, \"\"2\"\"\",,missed,3,11,9,3000000,9003000000,,,",
            "1,\"<two>, \"\"2\"\"\",,left,12,,,12000000,9012000000,,,its counter holds no number",
        ];
        assert_eq!(String::from_utf8(csv).unwrap(), rows.map(|row| format!("{row}\r\n")).concat());
    }

    #[test]
    fn a_cut_is_a_row_of_each_target_that_it_met() {
        let recording = example::cut();
        let report = ProfileReport::new(&recording).unwrap();
        let mut csv = Vec::new();
        profile_csv(&report, &recording, &mut csv).unwrap();
        let csv = String::from_utf8(csv).unwrap();
        assert!(csv.ends_with("\r\n0,one,,cut,2,,,2000000,9002000000,,,\r\n"), "{csv}");
    }
}
