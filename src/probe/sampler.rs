//! The sampling thread: one grid, one `pread` a target and tick, and nothing on its way that could wait.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use nix::libc;

use super::Shared;
use super::event::{Ending, Event, TargetId, What};
use super::grid::Grid;
use super::ring::Producer;
use crate::cgroup::parse_counter;
use crate::clock::{self, Instant};

/// The most targets at one time: as many have room in memory that was allocated before sampling began.
pub(super) const MAX_TARGETS: usize = 1024;

/// A deadline farther off than this is waited for in a way that a command can interrupt.
const NAP: Duration = Duration::from_millis(50);

/// What the sampling thread can be told; that nobody can tell it anything any more means that it shall stop.
pub(super) enum Command {
    /// Sample this counter from the next tick on.
    Add(TargetId, File),
    /// Sample this target no more.
    Remove(TargetId),
}

pub(super) struct Sampler {
    grid: Grid,
    /// In the order in which they joined. The tick that each waits for never decreases along this list.
    targets: Vec<Active>,
    ring: Producer,
    commands: Receiver<Command>,
    shared: Arc<Shared>,
}

struct Active {
    id: TargetId,
    counter: File,
    /// The first tick that it was not sampled for and that has not been given up either.
    next: u64,
    /// Samples that found no room in the ring, and are yet to be reported.
    lost: Option<Lost>,
    /// It has ended, and this is yet to be reported: the tick and the reason.
    left: Option<(u64, Ending)>,
}

#[derive(Clone, Copy)]
struct Lost {
    first: u64,
    last: u64,
    samples: u64,
}

/// Does the sampling thread go on?
#[derive(PartialEq)]
enum Next {
    GoOn,
    Stop,
}

impl Sampler {
    pub(super) fn new(
        grid: Grid,
        ring: Producer,
        commands: Receiver<Command>,
        shared: Arc<Shared>,
    ) -> Sampler {
        Sampler { grid, targets: Vec::with_capacity(MAX_TARGETS), ring, commands, shared }
    }

    /// Samples until it is told to stop.
    pub(super) fn run(mut self) {
        while self.obey() == Next::GoOn {
            let Some(first) = self.targets.first() else {
                self.park(Duration::MAX);
                continue;
            };
            let due = self.grid.due(first.next);
            let mut now = Instant::now();
            // A timer is never armed for a deadline that has passed: that costs more than the tick itself.
            if now < due {
                let wait = due.since(now);
                if wait > 2 * NAP {
                    self.park(wait - NAP);
                    continue;
                }
                clock::sleep_until(due);
                now = Instant::now();
            }
            self.round(now);
        }
        self.leave_all();
    }

    /// Waits so long, or until there is a command: who sends one unparks this thread.
    fn park(&mut self, wait: Duration) {
        // Without room in the ring there may be a command that was left unread.
        std::thread::park_timeout(if self.ring.has_room(2) { wait } else { NAP });
    }

    /// Reads each target once, for the tick that is the last due when its turn comes; those between that tick and its
    /// last one are missed, which the gap in its tick numbers says.
    fn round(&mut self, mut now: Instant) {
        let mut tick = 0;
        let mut until = self.grid.start;
        let mut place = 0;
        while let Some(target) = self.targets.get_mut(place) {
            if now >= until {
                let Some(last_due) = self.grid.tick_at(now) else { return };
                tick = last_due;
                until = self.grid.due(tick + 1);
            }
            // It may have joined for a tick that is still to come.
            if target.next <= tick {
                target.next = tick + 1;
                if target.left.is_none() {
                    let (began, result) = (now, read(&target.counter));
                    now = Instant::now();
                    match result {
                        Ok(bytes) if now < until => {
                            target.put(&mut self.ring, &self.grid, tick, began, bytes);
                        }
                        // Interrupted for so long that it may be of any instant in between: its tick is missed.
                        Ok(_) => {}
                        Err(ending) => target.left = Some((tick, ending)),
                    }
                }
                if target.left.is_some() && target.report(&mut self.ring, &self.grid) {
                    self.targets.remove(place);
                    self.shared.active.fetch_sub(1, Ordering::Relaxed);
                    continue;
                }
            }
            place += 1;
        }
    }

    /// Takes up what was commanded since the last tick.
    fn obey(&mut self) -> Next {
        // Without room to report it, a command is left where it is, and so is the wish to stop: the writer makes room,
        // if need be by giving up a disk that is full.
        while self.ring.has_room(2) {
            match self.commands.try_recv() {
                Ok(Command::Add(id, counter)) => {
                    let next = self.grid.next_tick(Instant::now());
                    self.ring
                        .push(Event { target: id, what: What::Joined { tick: next } }.to_words(&self.grid));
                    // Below the capacity, which `Probe::add` sees to: this does not allocate.
                    self.targets.push(Active { id, counter, next, lost: None, left: None });
                }
                Ok(Command::Remove(id)) => {
                    if let Some(place) = self.targets.iter().position(|target| target.id == id) {
                        self.end(place, Ending::Removed);
                        // There is room for both of its reports.
                        self.targets[place].report(&mut self.ring, &self.grid);
                        self.targets.remove(place);
                        self.shared.active.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                Err(TryRecvError::Empty) => return Next::GoOn,
                Err(TryRecvError::Disconnected) => return Next::Stop,
            }
        }
        Next::GoOn
    }

    /// Marks the end of a series: after all ticks that are due by now, sampled or not.
    fn end(&mut self, place: usize, ending: Ending) {
        let due = self.grid.next_tick(Instant::now());
        let target = &mut self.targets[place];
        target.left.get_or_insert((target.next.max(due), ending));
    }

    /// Reports the end of all, now that waiting harms no one.
    fn leave_all(&mut self) {
        for place in 0..self.targets.len() {
            self.end(place, Ending::Stopped);
        }
        for mut target in std::mem::take(&mut self.targets) {
            while !target.report(&mut self.ring, &self.grid) && !self.ring.is_abandoned() {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            self.shared.active.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Active {
    #[inline]
    fn put(&mut self, ring: &mut Producer, grid: &Grid, tick: u64, began: Instant, bytes: u64) {
        if self.report_lost(ring, grid) && ring.push(Event::sample_words(self.id, began, bytes)) {
            return;
        }
        let lost = self.lost.get_or_insert(Lost { first: tick, last: tick, samples: 0 });
        lost.last = tick;
        lost.samples += 1;
    }

    /// Puts what is still to be told of a target that has ended into the ring; `false` if there is no room.
    fn report(&mut self, ring: &mut Producer, grid: &Grid) -> bool {
        let Some((tick, ending)) = self.left else { return true };
        self.report_lost(ring, grid)
            && ring.push(Event { target: self.id, what: What::Left { tick, ending } }.to_words(grid))
    }

    /// Is there nothing lost that is still to be told?
    fn report_lost(&mut self, ring: &mut Producer, grid: &Grid) -> bool {
        let Some(Lost { first, last, samples }) = self.lost else { return true };
        // Room for what comes after it too, or each free slot of a full ring would go to such a report.
        let is_told = ring.has_room(2)
            && ring.push(Event { target: self.id, what: What::Lost { first, last, samples } }.to_words(grid));
        if is_told {
            self.lost = None;
        }
        is_told
    }
}

/// The number that the counter shows, by one system call.
#[inline]
fn read(counter: &File) -> Result<u64, Ending> {
    let mut text = [0; 32];
    loop {
        let error = match counter.read_at(&mut text, 0) {
            Ok(0) => return Err(Ending::Gone),
            Ok(length) => return parse(&text[..length]).ok_or(Ending::NotANumber),
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::ENODEV | libc::ENOENT) => return Err(Ending::Gone),
            errno => return Err(Ending::Failed { errno: errno.unwrap_or(0) }),
        }
    }
}

/// As many digits as 64 bits can show: more are no counter's.
const MOST_DIGITS: usize = 20;

fn parse(text: &[u8]) -> Option<u64> {
    let digits = text.strip_suffix(b"\n").unwrap_or(text);
    if digits.len() > MOST_DIGITS { None } else { parse_counter(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_is_a_number() {
        assert_eq!(parse(b"0\n"), Some(0));
        assert_eq!(parse(b"18446744073709551615\n"), Some(u64::MAX));
        assert_eq!(parse(b"4096"), Some(4096));
        assert_eq!(parse(b"00000000000000000012\n"), Some(12));
        let too_long = b"000000000000000000012\n";
        let wrong = [&b""[..], b"\n", b"max\n", b"18446744073709551616", b"-1", b"1 2", b"1\n\n", too_long];
        for wrong in wrong {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn an_empty_file_is_a_target_that_is_gone() {
        assert_eq!(read(&File::open("/dev/null").unwrap()), Err(Ending::Gone));
        let folder = File::open("/").unwrap();
        assert_eq!(read(&folder), Err(Ending::Failed { errno: libc::EISDIR }));
    }
}
