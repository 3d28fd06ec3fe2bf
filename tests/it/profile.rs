//! `sebs-lite profile` on recordings that a probe made, that were cut, damaged and written byte by byte.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sebs_lite::clock;
use sebs_lite::probe::{About, Note, Output, Probe, ProbeOptions, Recording, Target, TargetId};
use sebs_lite::units::Bytes;
use serde_json::Value;

use crate::program::{Ended, Place};

const INTERVAL: Duration = Duration::from_millis(1);

/// What a label may hold: all that means something in CSV, in XML, or to a terminal.
const ODD: &str = "a,\"b\" <c> & 'd'\n\u{1b}[31mé";

/// A probe that streams into a place's file `recording`, and a counter whose value it samples.
struct Recorder {
    probe: Probe,
    counter: File,
    counter_path: PathBuf,
}

impl Recorder {
    fn start(place: &Place) -> Recorder {
        let counter_path = place.write("counter", &format!("{:020}\n", 4096));
        let options = ProbeOptions {
            output: Output::Stream(place.path("recording")),
            charge_batch: Some(Bytes(524_288)),
            ..ProbeOptions::new(INTERVAL)
        };
        let counter = OpenOptions::new().write(true).open(&counter_path).unwrap();
        Recorder { probe: Probe::start(options).unwrap(), counter, counter_path }
    }

    fn add(&self, label: &str) -> TargetId {
        let counter = File::open(&self.counter_path).unwrap();
        self.probe.add(Target { label: label.to_string(), counter }).unwrap()
    }

    /// Has the counter hold that value for some ticks; gives when it began and ended to.
    fn hold(&self, bytes: u64, ticks: u32) -> (u64, u64) {
        let begin_ns = clock::Instant::now().0;
        // In place: a file that is written anew is empty for a moment, and an empty counter is gone.
        self.counter.write_all_at(format!("{bytes:020}\n").as_bytes(), 0).unwrap();
        let begin = Instant::now();
        while begin.elapsed() < INTERVAL * ticks {
            std::thread::sleep(INTERVAL);
        }
        (begin_ns, clock::Instant::now().0)
    }

    fn note(&self, target: TargetId, about: About) {
        self.probe.note(Note { target, about });
    }
}

/// Two targets, one with a name and an odd label, a spike within a cold invocation, and a peak by the kernel.
fn record(place: &Place) -> Recording {
    let recorder = Recorder::start(place);
    let (odd, id) = (recorder.add(ODD), recorder.add(&"0123456789abcdef".repeat(4)));
    recorder.hold(10_000_000, 20);
    let (begin_ns, end_ns) = recorder.hold(70_000_000, 100);
    recorder.hold(20_000_000, 20);
    let source = "cgroup v2 memory.current".to_string();
    recorder.note(odd, About::Source { source: source.clone(), name: Some("fn-1".to_string()) });
    recorder.note(id, About::Source { source, name: None });
    recorder.note(odd, About::KernelPeak { bytes: 80_000_000, from_ns: None, at_ns: end_ns });
    let request_id = "r-1".to_string();
    let invocation = About::Invocation {
        request_id,
        begin_ns,
        end_ns,
        is_cold: true,
        is_failed: false,
        kernel_peak_bytes: Some(80_000_000),
    };
    recorder.note(odd, invocation);
    recorder.probe.stop().unwrap()
}

fn run(place: &Place, more: &[&str]) -> Ended {
    place.run(&[&["profile", "recording"], more].concat())
}

fn json(place: &Place) -> Value {
    serde_json::from_str(&run(place, &["--json"]).expect(0, &[]).stdout).unwrap()
}

#[test]
fn a_recording_is_shown_as_table_json_csv_and_picture() {
    let place = Place::create("profile-forms");
    let recording = record(&place);
    let shown_label = "a,\"b\" <c> & 'd'\\n\\u{1b}[31mé";
    let table = run(&place, &[]).expect(
        0,
        &[
            &recording.header.start_time,
            "interval     1.000 ms by CLOCK_MONOTONIC",
            "timer slack 1 ns",
            "up to 524.3 kB above",
            "source       cgroup v2 memory.current",
            &format!("fn-1 ({shown_label})"),
            "0123456789ab ",
            "80.0 MB  stopped",
            "1  cold",
        ],
    );
    assert_eq!(table.stderr, "");
    assert!(!table.stdout.contains('\u{1b}'));

    let json = json(&place);
    assert_eq!((&json["cut"], &json["header"]["interval_ns"]), (&false.into(), &1_000_000.into()));
    let targets = json["targets"].as_array().unwrap();
    for (told, summary) in targets.iter().zip(&recording.targets) {
        assert_eq!(told["label"], summary.label);
        assert_eq!(told["taken_ticks"], summary.taken);
        assert_eq!(told["missed_ticks"], summary.missed);
        assert_eq!(told["lateness_ns"]["max"], summary.lateness.unwrap().max_ns);
        assert_eq!((&told["peak_bytes"], &told["ending"]), (&70_000_000.into(), &"stopped".into()));
    }
    assert_eq!((&targets[0]["kernel_peak_bytes"], &targets[0]["name"]), (&80_000_000.into(), &"fn-1".into()));
    let invocation = &json["invocations"][0];
    assert_eq!((&invocation["request_id"], &invocation["peak_bytes"]), (&"r-1".into(), &70_000_000.into()));
    assert_eq!(invocation["kernel_peak_bytes"], 80_000_000);
    assert!(invocation["samples"].as_u64().unwrap() > 0);

    let csv = run(&place, &["--csv"]).expect(0, &[]).stdout;
    let rows = csv_rows(&csv);
    assert_eq!(rows[0][..4], ["target", "label", "name", "event"]);
    let taken = recording.targets[0].taken as usize;
    let samples = rows.iter().filter(|row| row[1] == ODD && row[2] == "fn-1" && row[3] == "sample");
    assert_eq!(samples.clone().count(), taken);
    let start_ns = recording.header.start_epoch_ns;
    for row in samples {
        let number = |column: usize| row[column].parse::<u64>().unwrap();
        assert_eq!(number(7), number(4) * 1_000_000 + number(9));
        assert_eq!(number(8), start_ns + number(7));
        assert!([4096, 10_000_000, 20_000_000, 70_000_000].contains(&number(10)));
    }
    let missed: u64 =
        rows.iter().filter(|row| row[3] == "missed").map(|row| row[6].parse::<u64>().unwrap()).sum();
    assert_eq!(missed, recording.targets.iter().map(|target| target.missed).sum::<u64>());
    assert_eq!(rows.iter().filter(|row| row[3] == "left" && row[11] == "stopped").count(), 2);

    let svg = run(&place, &["--svg"]).expect(0, &[]).stdout;
    assert_is_well_formed(&svg);
    assert_eq!(svg.matches("<path class=\"line\"").count(), 4, "two lines, and both in the legend");
    for part in
        ["class=\"cold\"", "class=\"kernel\"", "&lt;c&gt; &amp; 'd'", "cold invocation r-1", "peak 70.0 MB"]
    {
        assert!(svg.contains(part), "`{part}` is not in:\n{svg}");
    }
}

#[test]
fn one_form_at_a_time_and_a_file_that_is_there() {
    let place = Place::create("profile-usage");
    place.write("recording", "");
    place.write("text", "sebs-lite is nice\n");
    for switches in [["--csv", "--svg"], ["--csv", "--json"], ["--json", "--svg"]] {
        run(&place, &switches).expect(2, &["choose one of"]);
    }
    run(&place, &[]).expect(2, &["failed to read recording `recording`", "this is no recording"]);
    place.run(&["profile", "text"]).expect(2, &["`text`", "does not begin with `sebs-lite recording 1`"]);
    place.run(&["profile", "missing"]).expect(2, &["`missing`", "No such file"]);
    place.run(&["profile", "."]).expect(2, &["`.`", "no folder"]);
    place.run(&["profile"]).expect(2, &["sebs-lite profile --help"]);
}

#[test]
fn one_that_ended_before_anything_was_sampled_is_shown() {
    let place = Place::create("profile-empty");
    Recorder::start(&place).probe.stop().unwrap();
    run(&place, &[]).expect(0, &["nothing was sampled"]);
    assert_eq!(json(&place)["targets"].as_array().unwrap().len(), 0);
    assert_eq!(csv_rows(&run(&place, &["--csv"]).expect(0, &[]).stdout).len(), 1);
    assert_is_well_formed(&run(&place, &["--svg"]).expect(0, &[]).stdout);
}

#[test]
fn one_that_was_cut_is_shown_up_to_there_and_damage_is_refused() {
    let place = Place::create("profile-cut");
    record(&place);
    let path = place.path("recording");
    let bytes = fs::read(&path).unwrap();
    let header = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0 + 1;
    for cut in [1, header / 3, header - 1] {
        fs::write(&path, &bytes[..cut]).unwrap();
        run(&place, &[]).expect(2, &["failed to read recording `recording`"]);
    }
    let cuts = (header..bytes.len()).step_by((bytes.len() - header) / 12 + 1).chain([bytes.len() - 1]);
    for cut in cuts {
        fs::write(&path, &bytes[..cut]).unwrap();
        run(&place, &[]).expect(0, &["\ncut          the end is missing"]);
        assert_eq!(json(&place)["cut"], true);
        let csv = run(&place, &["--csv"]).expect(0, &["has no end: it was cut"]).stdout;
        let rows = csv_rows(&csv);
        let count = |event: &str| rows.iter().filter(|row| row[3] == event).count();
        assert_eq!(count("joined"), count("cut") + count("left"), "cut at {cut}");
        let svg = run(&place, &["--svg"]).expect(0, &["cut: the end of the recording is missing"]).stdout;
        assert_is_well_formed(&svg);
    }
    for (place_of_damage, told) in [(header - 2, "in its header"), (header + 9, "in block 0")] {
        let mut damaged = bytes.clone();
        damaged[place_of_damage] ^= 1;
        fs::write(&path, damaged).unwrap();
        for form in [&[][..], &["--csv"], &["--json"], &["--svg"]] {
            let ended = run(&place, form).expect(1, &["`recording`", "damaged", told]);
            assert_eq!(ended.stdout, "");
        }
    }
}

#[test]
fn a_million_samples_take_little_memory_and_a_spike_among_them_is_seen() {
    let place = Place::create("profile-million");
    let (samples, spike) = (1_000_000, 654_321);
    write_recording(
        &place.path("recording"),
        samples,
        |tick| if tick == spike { 90_000_000 } else { 20_000_000 },
    );
    let limited = |more: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -v 81920; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_sebs-lite")]);
        command.args(["profile", "recording", more]).current_dir(place.path("")).stdout(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut child = limited("--csv");
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut count, mut bytes, mut largest) = (0, 0, Vec::new());
    for line in lines {
        let line = line.unwrap();
        count += 1;
        bytes += line.len();
        if line.contains(",90000000,") {
            largest.push(line);
        }
    }
    assert!(child.wait().unwrap().success());
    // The names of the columns, a sample each, that it joined and that it left.
    assert_eq!(count, samples + 3);
    assert!(bytes > 81_920 * 1024, "{bytes} bytes would fit into the memory that was allowed");
    assert!(largest.len() == 1 && largest[0].contains(&format!(",sample,{spike},")), "{largest:?}");
    let mut svg = String::new();
    let mut child = limited("--svg");
    child.stdout.take().unwrap().read_to_string(&mut svg).unwrap();
    assert!(child.wait().unwrap().success());
    assert_is_well_formed(&svg);
    // 90 of 100 MB on 340 pixels.
    assert!(svg.contains(" 34.0"), "{svg}");
    assert!(svg.len() < 60_000, "{} bytes", svg.len());
}

#[test]
fn a_reader_that_goes_is_no_failure_and_a_signal_ends_it() {
    let place = Place::create("profile-reader");
    write_recording(&place.path("recording"), 20_000, |_| 4096);
    let begun = || -> (Child, BufReader<_>) {
        let mut child = place.spawn(&["profile", "recording", "--csv"]);
        let mut stdout = BufReader::with_capacity(64, child.stdout.take().unwrap());
        stdout.read_line(&mut String::new()).unwrap();
        (child, stdout)
    };
    // There is more to write than a pipe holds, so that it writes still.
    let (child, stdout) = begun();
    drop(stdout);
    let ended = Ended::from(child.wait_with_output().unwrap()).expect(0, &[]);
    assert_eq!(ended.stderr, "");
    let (child, mut stdout) = begun();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    stdout.read_to_end(&mut Vec::new()).unwrap();
    Ended::from(child.wait_with_output().unwrap()).expect(143, &["interrupted"]);
}

/// Writes a recording of one target with a sample a tick of 100 µs, as the format is documented.
fn write_recording(path: &Path, samples: u64, bytes_of: impl Fn(u64) -> i64) {
    let header = r#"{"program": "a test", "clock": "CLOCK_MONOTONIC", "interval_ns": 100000, "start_ns": 7000000000,
        "start_time": "2026-11-21T09:20:48.123456Z", "start_epoch_ns": 1795252848123456789, "scheduling":
        {"policy": null, "priority": 0, "nice": 0, "timer_slack_ns": null, "cpus": [], "memory_locked": false}}"#;
    let header = header.replace('\n', "");
    let mut check = crc32(header.as_bytes());
    let mut file = format!("sebs-lite recording 1 {check:08x}\n{header}\n").into_bytes();
    let label = "0123456789abcdef".repeat(4);
    let (joined, left, end) = (4, 5, 7);
    let mut payload = numbers(&[joined, 0, label.len() as u64]);
    payload.extend(label.as_bytes());
    let mut block = |payload: &mut Vec<u8>| {
        let before = check.to_le_bytes();
        let length = (payload.len() as u16).to_le_bytes();
        let length_check = crc32(&[&before[..], &length].concat()) as u16;
        check = crc32(&[&before[..], &length, payload].concat());
        file.extend([&length[..], &length_check.to_le_bytes(), payload, &check.to_le_bytes()].concat());
        payload.clear();
    };
    let mut last = 0;
    for tick in 0..samples {
        let change = bytes_of(tick) - last;
        last += change;
        let (in_bytes, lateness_ns) = (1, 30_000 + tick % 1_000);
        payload.extend(numbers(&[in_bytes, lateness_ns, (change << 1 ^ change >> 63) as u64]));
        if payload.len() > 16_000 {
            block(&mut payload);
        }
    }
    let stopped = 1;
    payload.extend(numbers(&[left, samples, stopped, 0]));
    let json = format!(
        r#"{{"end_ns": {}, "sampler_cpu_ns": 1000, "writer_cpu_ns": 1000}}"#,
        7_000_000_000 + samples * 100_000
    );
    payload.extend(numbers(&[end, json.len() as u64]));
    payload.extend(json.as_bytes());
    block(&mut payload);
    fs::write(path, file).unwrap();
}

/// Numbers in LEB128.
fn numbers(numbers: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in numbers {
        let mut rest = *number;
        while rest >= 0x80 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
    }
    bytes
}

/// CRC-32 of IEEE 802.3, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

/// The fields of each row of CSV (RFC 4180), all rows having as many as the first.
fn csv_rows(csv: &str) -> Vec<Vec<String>> {
    let mut rows = vec![vec![String::new()]];
    let mut is_quoted = false;
    let mut characters = csv.chars().peekable();
    while let Some(c) = characters.next() {
        let row = rows.last_mut().unwrap();
        match c {
            '"' if is_quoted && characters.next_if_eq(&'"').is_some() => row.last_mut().unwrap().push('"'),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => row.push(String::new()),
            '\r' if !is_quoted => {
                assert_eq!(characters.next(), Some('\n'));
                rows.push(vec![String::new()]);
            }
            _ => row.last_mut().unwrap().push(c),
        }
    }
    assert_eq!(rows.pop(), Some(vec![String::new()]), "the last row ends");
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{csv}");
    rows
}

/// Fails unless every tag is closed in its turn, and `<` and `&` stand only where they mean something.
#[track_caller]
fn assert_is_well_formed(xml: &str) {
    let mut open = Vec::new();
    let body = xml.split_once("?>\n").expect("an XML declaration").1;
    for piece in body.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').unwrap_or_else(|| panic!("`<{piece}` is no tag"));
        let name = tag.split([' ', '/']).find(|name| !name.is_empty()).unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{xml}");
        } else if !tag.ends_with('/') {
            open.push(name);
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
        assert!(!text.contains('>'), "{text}");
        for entity in [tag, text].into_iter().flat_map(|text| text.split('&').skip(1)) {
            let is_known = ["amp;", "lt;", "gt;", "quot;"].iter().any(|known| entity.starts_with(known));
            assert!(is_known, "&{entity}");
        }
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    }
    assert!(open.is_empty(), "{open:?} in\n{xml}");
}
