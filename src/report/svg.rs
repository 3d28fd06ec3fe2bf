//! A recording as a picture (SVG): memory over time, invocations as bands, the kernel's own peaks as dashed lines.

mod axis;
mod curve;
mod gaps;

use std::collections::BTreeMap;
use std::time::Duration;

use self::axis::Axis;
use self::curve::{Curve, Point};
use self::gaps::GapMap;
use super::{InvocationReport, ProfileReport};
use crate::error::Result;
use crate::probe::{Event, Recording, What};
use crate::units::{Bytes, show_duration};

const WIDTH: usize = 1000;
/// Where the plot lies in the picture.
const LEFT: usize = 76;
const TOP: usize = 66;
const COLUMNS: usize = 900;
const HEIGHT: usize = 340;
const BOTTOM: usize = TOP + HEIGHT;
/// Below the plot: marks of gaps, names of ticks, what the axis is.
const LEGEND_TOP: usize = BOTTOM + 74;
const LEGEND_ROW: usize = 20;

/// A band that is narrower than this has no outline.
const NARROW: f64 = 4.0;

/// With more targets than this the legend says only how many more there are.
const MOST_NAMED: usize = 20;

/// The longest name that is shown, in characters.
const LONGEST_NAME: usize = 64;

/// With longer entries than this, in characters, the legend has one column and not two.
const LONGEST_IN_COLUMN: usize = 56;

/// Colours that people who see few colours can tell apart (Okabe and Ito), the lightest left out.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#aa4499", "#b8860b", "#56b4e9", "#444444"];

const STYLE: &str = "\
text{font:12px system-ui,'Helvetica Neue',Arial,sans-serif;fill:#333}\
.title{font-size:16px;font-weight:600;fill:#111}.small{font-size:11px;fill:#666}.warning{fill:#b00020}\
.grid{stroke:#e3e3e3;stroke-width:1}.axis{stroke:#888;stroke-width:1}\
.line{fill:none;stroke-width:1.4;stroke-linejoin:round;stroke-linecap:round}\
.kernel{fill:none;stroke-width:1.2;stroke-dasharray:6 4;opacity:.75}\
.cold{fill:#3b7dd8;stroke:#3b7dd8}.warm{fill:#f0a030;stroke:#f0a030}.failed{fill:#c00020;stroke:#c00020}\
.cold,.warm,.failed{fill-opacity:.2;stroke-opacity:.5;stroke-width:.7}.narrow{stroke:none}\
.missed{fill:#777}.lost{fill:#c00020}";

/// Draws a recording, in one pass over it; the picture needs nothing beside itself, and its size does not depend on how
/// many samples there are.
///
/// Of each column of pixels the largest and the smallest sample are drawn, never a mean. Where ticks were missed or
/// samples lost, there is a mark below the plot, and the line is interrupted if that can be seen.
///
/// # Errors
/// The recording cannot be read.
pub fn profile_svg(report: &ProfileReport, recording: &Recording, title: &str) -> Result<String> {
    let picture = Picture::new(report);
    let (paths, gaps) = picture.read(recording)?;
    let legend = picture.legend(&gaps);
    let in_a_row =
        if legend.iter().any(|entry| entry.text.chars().count() > LONGEST_IN_COLUMN) { 1 } else { 2 };
    let height = LEGEND_TOP + legend.len().div_ceil(in_a_row) * LEGEND_ROW;
    let mut svg = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n",
        escaped(title)
    );
    svg.push_str(&text(LEFT as f64, 28.0, "title", &format!("{}: memory over time", shortened(title))));
    svg.push_str(&text(LEFT as f64, 48.0, "small", &picture.subtitle()));
    if report.cut {
        let note = "cut: the end of the recording is missing";
        svg.push_str(&end_text((LEFT + COLUMNS) as f64, 28.0, "warning", note));
    }
    svg.push_str(&format!("<g transform=\"translate({LEFT} {TOP})\">\n"));
    svg.push_str(&picture.axes());
    svg.push_str(&picture.bands());
    svg.push_str(&picture.kernel_peaks());
    for (place, path) in paths.iter().enumerate().filter(|(_, path)| !path.is_empty()) {
        let name = escaped(&report.targets[place].shown_name());
        let colour = colour(place);
        svg.push_str(&format!(
            "<path class=\"line\" stroke=\"{colour}\" d=\"{path}\"><title>{name}</title></path>\n"
        ));
    }
    svg.push_str(&picture.gap_marks(&gaps));
    svg.push_str("</g>\n");
    for (number, Entry { symbol, text: about }) in legend.iter().enumerate() {
        let x = LEFT + number % in_a_row * (COLUMNS / 2);
        let y = LEGEND_TOP + number / in_a_row * LEGEND_ROW;
        let about = text(28.0, 4.0, "", about);
        svg.push_str(&format!("<g transform=\"translate({x} {y})\">{symbol}{about}</g>\n"));
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// What is drawn, and on which scales: seconds to the right, MB upwards.
struct Picture<'a> {
    report: &'a ProfileReport,
    time: Axis,
    memory: Axis,
}

impl Picture<'_> {
    fn new(report: &ProfileReport) -> Picture<'_> {
        let peaks =
            report.targets.iter().flat_map(|target| [target.peak_bytes, target.kernel_peak_meanwhile()]);
        let most = peaks.flatten().max().filter(|peak| *peak > 0).unwrap_or(1_000_000);
        let duration_ns = report.duration_ns.max(report.header.interval_ns);
        Picture {
            report,
            time: Axis { most: duration_ns as f64 / 1e9, length: COLUMNS as f64 },
            memory: Axis::rounded_up(most as f64 / 1e6 * 1.02, 6, HEIGHT as f64),
        }
    }

    /// Pixels from the left of the plot, of ns since the recording's start.
    fn x(&self, time_ns: u64) -> f64 {
        self.time.place(time_ns as f64 / 1e9)
    }

    /// Pixels from the top of the plot.
    fn y(&self, bytes: u64) -> f64 {
        HEIGHT as f64 - self.memory.place(bytes as f64 / 1e6)
    }

    /// Pixels from the left of the plot, of when a tick was due.
    fn tick_x(&self, tick: u64) -> f64 {
        self.time.place(tick as f64 * self.report.header.interval_ns as f64 / 1e9)
    }

    /// The line of each target, and where samples are missing.
    fn read(&self, recording: &Recording) -> Result<(Vec<String>, GapMap)> {
        let start_ns = recording.header.start_ns;
        let mut curves: Vec<Curve> = self.report.targets.iter().map(|_| Curve::default()).collect();
        let mut gaps = GapMap::new(COLUMNS);
        for event in recording.events()? {
            let Event { target, what } = event?;
            // A recording that is still being written may have grown since its targets were told.
            let Some(curve) = curves.get_mut(target.index()) else { continue };
            match what {
                What::Sample(sample) => {
                    let x = self.x(recording.header.instant(&sample).0.saturating_sub(start_ns));
                    curve.add(Point { x, y: self.y(sample.bytes.0) });
                    gaps.keep(self.tick_x(sample.tick), self.tick_x(sample.tick + 1));
                }
                What::Missed { first, last } => {
                    curve.interrupt();
                    gaps.lack(self.tick_x(first), self.tick_x(last + 1), (last - first + 1) as f64, 0.0);
                }
                What::Lost { first, last, samples } => {
                    curve.interrupt();
                    let missed = (last - first + 1).saturating_sub(samples);
                    gaps.lack(self.tick_x(first), self.tick_x(last + 1), missed as f64, samples as f64);
                }
                What::Joined { .. } | What::Left { .. } => {}
            }
        }
        Ok((curves.into_iter().map(Curve::finish).collect(), gaps))
    }

    fn subtitle(&self) -> String {
        let header = &self.report.header;
        let interval = show_duration(header.interval());
        let mut subtitle = format!("a sample every {interval} from {}", header.start_time);
        let taken: u64 = self.report.targets.iter().map(|target| target.taken_ticks).sum();
        let missed: u64 = self.report.targets.iter().map(|target| target.missed_ticks).sum();
        let lost: u64 = self.report.targets.iter().map(|target| target.lost_samples).sum();
        subtitle.push_str(&format!("; {taken} ticks taken, {missed} missed"));
        if lost > 0 {
            subtitle.push_str(&format!(", {lost} samples lost"));
        }
        subtitle
    }

    fn axes(&self) -> String {
        let mut svg = String::new();
        for (value, name) in self.memory.ticks(6) {
            let y = HEIGHT as f64 - self.memory.place(value);
            svg.push_str(&format!("<path class=\"grid\" d=\"M0 {y:.1}H{COLUMNS}\"/>"));
            svg.push_str(&end_text(-10.0, y + 4.0, "", &name));
        }
        for (value, name) in self.time.ticks(9) {
            let x = self.time.place(value);
            svg.push_str(&format!("<path class=\"axis\" d=\"M{x:.1} {HEIGHT}v15\"/>"));
            svg.push_str(&middle_text(x, HEIGHT as f64 + 30.0, &name));
        }
        svg.push_str(&format!("<path class=\"axis\" d=\"M0 {HEIGHT}H{COLUMNS}\"/>\n"));
        svg.push_str(&middle_text(COLUMNS as f64 / 2.0, HEIGHT as f64 + 50.0, "seconds since the start"));
        let middle = HEIGHT / 2;
        svg.push_str(&format!(
            "<text transform=\"translate(-56 {middle}) rotate(-90)\" text-anchor=\"middle\">memory (MB)</text>\n"
        ));
        svg
    }

    /// A band an invocation. Those narrower than a pixel are drawn as one for each column and kind, so that there is a
    /// bound to how many there are.
    fn bands(&self) -> String {
        let mut svg = String::new();
        let mut narrow: BTreeMap<(usize, &str), usize> = BTreeMap::new();
        let band = |x: f64, width: f64, start: &str, title: &str| {
            let title = escaped(title);
            // An outline tells a band from its neighbours, but would be all that is seen of a narrow one.
            let narrow = if width < NARROW { " narrow" } else { "" };
            format!(
                "<rect class=\"{start}{narrow}\" x=\"{x:.1}\" y=\"0\" width=\"{width:.1}\" height=\"{HEIGHT}\">\
                 <title>{title}</title></rect>\n"
            )
        };
        for invocation in &self.report.invocations {
            let (begin, end) = (self.x(invocation.begin_time_ns), self.x(invocation.end_time_ns));
            if end - begin >= 1.0 {
                svg.push_str(&band(begin, end - begin, invocation.start(), &self.tooltip(invocation)));
            } else {
                *narrow.entry(((begin as usize).min(COLUMNS - 1), invocation.start())).or_default() += 1;
            }
        }
        for ((column, start), count) in narrow {
            svg.push_str(&band(column as f64, 1.0, start, &format!("invocations: {count} {start}")));
        }
        svg
    }

    fn tooltip(&self, invocation: &InvocationReport) -> String {
        let target = self.report.targets.get(invocation.target.index());
        let name = target.map(|target| target.shown_name()).unwrap_or_default();
        let peak = invocation.peak_bytes.map(|peak| format!(", peak {}", Bytes(peak))).unwrap_or_default();
        let kernel_peak = invocation.kernel_peak_bytes;
        let kernel_peak =
            kernel_peak.map(|peak| format!(", by the kernel {}", Bytes(peak))).unwrap_or_default();
        let duration_ns = invocation.end_time_ns.saturating_sub(invocation.begin_time_ns);
        let duration = show_duration(Duration::from_nanos(duration_ns));
        let (start, id) = (invocation.start(), &invocation.request_id);
        format!("{start} invocation {id} on {name}: {duration}{peak}{kernel_peak}")
    }

    fn kernel_peaks(&self) -> String {
        let mut svg = String::new();
        for (place, target) in self.report.targets.iter().enumerate() {
            let Some(peak) = target.kernel_peak_meanwhile() else { continue };
            let (from, to) = (self.tick_x(target.first_tick), self.tick_x(target.end_tick));
            let (y, colour) = (self.y(peak), colour(place));
            let title = escaped(&format!("peak by the kernel of {}: {}", target.shown_name(), Bytes(peak)));
            svg.push_str(&format!(
                "<path class=\"kernel\" stroke=\"{colour}\" d=\"M{from:.1} {y:.1}H{to:.1}\">\
                 <title>{title}</title></path>\n"
            ));
        }
        svg
    }

    fn gap_marks(&self, gaps: &GapMap) -> String {
        let mut svg = String::new();
        for gap in gaps.gaps() {
            let class = if gap.is_loss { "lost" } else { "missed" };
            let opacity = [0.3, 0.3, 0.6, 1.0][usize::from(gap.degree)];
            let time = |column: usize| {
                let seconds = column as f64 / COLUMNS as f64 * self.time.most;
                show_duration(Duration::from_nanos((seconds * 1e9) as u64))
            };
            let (from, to) = (time(gap.first), time(gap.last + 1));
            svg.push_str(&format!(
                "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"9\" fill-opacity=\"{opacity}\">\
                 <title>ticks without a sample from {from} to {to}: {:.0}</title></rect>\n",
                gap.first,
                HEIGHT + 3,
                gap.last + 1 - gap.first,
                gap.ticks.max(1.0),
            ));
        }
        svg
    }

    fn legend(&self, gaps: &GapMap) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut add = |symbol: String, text: String| entries.push(Entry { symbol, text });
        let targets = &self.report.targets;
        for (place, target) in targets.iter().enumerate().take(MOST_NAMED) {
            let mut about = shortened(&target.shown_name());
            if let Some(peak) = target.peak_bytes {
                about.push_str(&format!(", peak {}", Bytes(peak)));
            }
            if let Some(peak) = target.told_kernel_peak() {
                about.push_str(&format!(", {peak}"));
            }
            let (colour, title) = (colour(place), escaped(&target.label));
            add(
                format!("<path class=\"line\" stroke=\"{colour}\" d=\"M0 0H20\"/><title>{title}</title>"),
                about,
            );
        }
        if targets.len() > MOST_NAMED {
            add(String::new(), format!("and {} more", targets.len() - MOST_NAMED));
        }
        if targets.iter().any(|target| target.kernel_peak_meanwhile().is_some()) {
            let symbol = "<path class=\"kernel\" stroke=\"#444\" d=\"M0 0H20\"/>";
            add(symbol.to_string(), "the peak that the kernel counted".to_string());
        }
        let mut add_area = |class: &str, text: String| {
            add(format!("<rect class=\"{class}\" y=\"-6\" width=\"20\" height=\"12\"/>"), text);
        };
        for start in ["cold", "warm", "failed"] {
            let count =
                self.report.invocations.iter().filter(|invocation| invocation.start() == start).count();
            if count > 0 {
                add_area(start, format!("invocations: {count} {start}"));
            }
        }
        let gaps = gaps.gaps();
        if gaps.iter().any(|gap| !gap.is_loss) {
            add_area("missed", "ticks missed (below the plot; the darker, the more)".to_string());
        }
        if gaps.iter().any(|gap| gap.is_loss) {
            add_area("lost", "samples lost (below the plot; the darker, the more)".to_string());
        }
        entries
    }
}

/// One line of the legend.
struct Entry {
    /// SVG, 20 pixels wide, from 0, 0 to the right.
    symbol: String,
    text: String,
}

fn colour(place: usize) -> &'static str {
    COLOURS[place % COLOURS.len()]
}

fn text(x: f64, y: f64, class: &str, content: &str) -> String {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\"{class}>{}</text>\n", escaped(content))
}

/// A text that ends there.
fn end_text(x: f64, y: f64, class: &str, content: &str) -> String {
    text(x, y, class, content).replacen("<text ", "<text text-anchor=\"end\" ", 1)
}

/// A text whose middle is there.
fn middle_text(x: f64, y: f64, content: &str) -> String {
    text(x, y, "", content).replacen("<text ", "<text text-anchor=\"middle\" ", 1)
}

/// A name of at most [`LONGEST_NAME`] characters, its middle left out if need be.
fn shortened(name: &str) -> String {
    let characters: Vec<char> = name.chars().collect();
    if characters.len() <= LONGEST_NAME {
        return name.to_string();
    }
    let half = LONGEST_NAME / 2;
    let (begin, end) = (&characters[..half], &characters[characters.len() - half + 1..]);
    begin.iter().chain(&['…']).chain(end).collect()
}

/// A text as XML may hold it: what means something there is escaped, and characters that XML 1.0 excludes are replaced.
fn escaped(text: &str) -> String {
    let mut xml = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' => xml.push_str("&quot;"),
            '\t' | '\n' | '\r' => xml.push(' '),
            '\0'..'\x20' | '\u{fffe}' | '\u{ffff}' => xml.push('\u{fffd}'),
            _ => xml.push(c),
        }
    }
    xml
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    fn svg(recording: &Recording) -> String {
        profile_svg(&ProfileReport::new(recording).unwrap(), recording, "a & b").unwrap()
    }

    #[test]
    fn all_that_a_recording_says_is_in_the_picture() {
        let svg = svg(&example::whole());
        for part in [
            "<title>a &amp; b</title>",
            "a sample every 1.000 ms from 2026-11-21T09:20:48.123456Z; 8 ticks taken, 13 missed, 3 samples lost",
            // 12 ms on 900 pixels, 60 MB on 340: the first target, interrupted where ticks were missed.
            "d=\"M3.0 340.0L78.8 56.7M304.5 226.7h0.1M678.0 283.3h0.1\"",
            // The second one has a single sample.
            "d=\"M150.0 170.0h0.1\"><title>&lt;two&gt;, &quot;2&quot;</title>",
            "d=\"M0.0 45.3H750.0\"><title>peak by the kernel of first (one): 52.0 MB</title>",
            "class=\"cold\" x=\"0.0\" y=\"0\" width=\"112.5\"",
            "cold invocation a&lt;1&gt; on first (one): 1.500 ms, peak 50.0 MB, by the kernel 51.0 MB</title>",
            "the peak that the kernel counted",
            "class=\"failed narrow\" x=\"300.0\" y=\"0\" width=\"1.0\"",
            "ticks without a sample from 1.000 ms to 3.000 ms: 2</title>",
            "class=\"lost\"",
            "first (one), peak 50.0 MB, by the kernel 52.0 MB",
            "memory (MB)",
            "seconds since the start",
        ] {
            assert!(svg.contains(part), "`{part}` is not in:\n{svg}");
        }
        assert!(!svg.contains("cut:"));
    }

    #[test]
    fn a_cut_is_said_and_little_or_nothing_can_be_drawn() {
        assert!(svg(&example::cut()).contains("cut: the end of the recording is missing"));
        let empty = svg(&example::empty());
        assert!(empty.contains(">1.0</text>") && !empty.contains("NaN") && !empty.contains("class=\"line\""));
    }

    #[test]
    fn what_xml_excludes_is_escaped_or_replaced() {
        assert_eq!(escaped("<a b='\"&\">\u{1b}\n"), "&lt;a b='&quot;&amp;&quot;&gt;\u{fffd} ");
    }

    #[test]
    fn a_long_name_loses_its_middle() {
        let name = format!("{}{}", "a".repeat(100), "ü".repeat(100));
        let shown = shortened(&name);
        assert_eq!(shown.chars().count(), LONGEST_NAME);
        assert!(shown.starts_with("aaa") && shown.ends_with("üüü") && shown.contains('…'));
        assert_eq!(shortened("short"), "short");
    }
}
