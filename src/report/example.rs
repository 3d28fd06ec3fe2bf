//! Small recordings, written down event by event, for the tests of this module.

use std::time::Duration;

use crate::probe::{About, End, Ending, Header, Recording, Sample, Scheduling, What};
use crate::units::Bytes;

/// Begins 5 s after the start of the machine and 9 s after 1970; a tick a millisecond.
fn header() -> Header {
    Header {
        program: "sebs-lite 1.2.3".to_string(),
        clock: "CLOCK_MONOTONIC".to_string(),
        interval_ns: 1_000_000,
        start_ns: 5_000_000_000,
        start_time: "2026-11-21T09:20:48.123456Z".to_string(),
        start_epoch_ns: 9_000_000_000,
        boot_id: None,
        scheduling: Scheduling {
            policy: Some("SCHED_FIFO".to_string()),
            priority: 10,
            nice: 0,
            timer_slack_ns: Some(0),
            cpus: vec![0, 1, 2, 7],
            memory_locked: true,
        },
        charge_batch_bytes: Some(524_288),
        warnings: vec!["one\nwish was not granted".to_string()],
    }
}

fn sample(tick: u64, late_us: u64, bytes: u64) -> What {
    What::Sample(Sample { tick, lateness: Duration::from_micros(late_us), bytes: Bytes(bytes) })
}

/// That many µs after its start, by the machine's clock.
fn at_us(us: u64) -> u64 {
    5_000_000_000 + us * 1_000
}

/// Two targets, one of which vanishes, with missed ticks, lost samples, a peak by the kernel and three invocations, of the
/// last of which there is no sample.
pub(super) fn whole() -> Recording {
    let events = [
        (0, What::Joined { tick: 0 }),
        (0, sample(0, 40, 4_096)),
        (1, What::Joined { tick: 1 }),
        (0, sample(1, 50, 50_000_000)),
        (1, sample(2, 0, 30_000_000)),
        (0, sample(4, 60, 20_000_000)),
        (0, What::Lost { first: 5, last: 8, samples: 3 }),
        (0, sample(9, 40, 10_000_000)),
        (0, What::Left { tick: 10, ending: Ending::Gone }),
        (1, What::Left { tick: 12, ending: Ending::NotANumber }),
    ];
    let invocation = |id: &str, begin_us, end_us, is_cold, is_failed| About::Invocation {
        request_id: id.to_string(),
        begin_ns: at_us(begin_us),
        end_ns: at_us(end_us),
        is_cold,
        is_failed,
        kernel_peak_bytes: is_cold.then_some(51_000_000),
    };
    let source = |source: &str, name: Option<&str>| About::Source {
        source: source.to_string(),
        name: name.map(str::to_string),
    };
    let peak = |bytes| About::KernelPeak { bytes, from_ns: None, at_ns: at_us(9_000) };
    let notes = [
        (0, source("cgroup v2 memory.current", Some("first"))),
        (1, source("the engine", None)),
        (0, peak(51_000_000)),
        (0, peak(52_000_000)),
        (0, peak(50_000_000)),
        (0, invocation("b2", 4_000, 4_010, false, true)),
        (0, invocation("a<1>", 0, 1_500, true, false)),
        (1, invocation("c3", 10_000, 11_000, false, false)),
    ];
    let end = End { end_ns: at_us(12_000), sampler_cpu_ns: 600_000, writer_cpu_ns: 12_000 };
    Recording::literal(header(), &["one", "<two>, \"2\""], &events, &notes, Some(end))
}

/// One target, two samples, and no end.
pub(super) fn cut() -> Recording {
    let events = [(0, What::Joined { tick: 0 }), (0, sample(0, 1, 0)), (0, sample(1, 1, 7))];
    Recording::literal(header(), &["one"], &events, &[], None)
}

/// No target, and ended as soon as it began.
pub(super) fn empty() -> Recording {
    let end = End { end_ns: at_us(0), sampler_cpu_ns: 0, writer_cpu_ns: 0 };
    Recording::literal(header(), &[], &[], &[], Some(end))
}

/// One target with a sample a tick for a second, and as many invocations one after another; the first is cold.
pub(super) fn many_invocations(count: u64) -> Recording {
    let mut events = vec![(0, What::Joined { tick: 0 })];
    events.extend((0..1_000).map(|tick| (0, sample(tick, 1, 1_000_000 + tick * 1_000))));
    events.push((0, What::Left { tick: 1_000, ending: Ending::Stopped }));
    let length_us = 1_000_000 / count;
    let notes: Vec<(u32, About)> = (0..count)
        .map(|number| {
            let about = About::Invocation {
                request_id: number.to_string(),
                begin_ns: at_us(number * length_us),
                end_ns: at_us((number + 1) * length_us - 1),
                is_cold: number == 0,
                is_failed: false,
                kernel_peak_bytes: None,
            };
            (0, about)
        })
        .collect();
    let end = End { end_ns: at_us(1_000_000), sampler_cpu_ns: 1, writer_cpu_ns: 1 };
    Recording::literal(header(), &["one"], &events, &notes, Some(end))
}
