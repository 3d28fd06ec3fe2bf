//! A bounded lock-free queue from one thread to one other, in safe code: each slot is three atomic words.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::event::Words;

struct Ring {
    slots: Box<[[AtomicU64; 3]]>,
    /// How many were ever put in; written by the producer alone.
    put: Line,
    /// How many were ever taken out; written by the consumer alone.
    taken: Line,
}

/// A counter on a cache line of its own, so that the two threads do not fight over one.
#[repr(align(128))]
struct Line(AtomicUsize);

/// The end into which events are put.
pub(super) struct Producer {
    ring: Arc<Ring>,
    put: usize,
    /// As last seen: there is at least as much room as this says.
    taken: usize,
}

/// The end from which they are taken.
pub(super) struct Consumer {
    ring: Arc<Ring>,
    taken: usize,
}

/// Makes a queue for at least `capacity` events, whose memory is touched, so that none of it faults in later.
pub(super) fn ring(capacity: usize) -> (Producer, Consumer) {
    let slots = (0..capacity.max(2).next_power_of_two()).map(|_| [0; 3].map(AtomicU64::new)).collect();
    let ring = Arc::new(Ring { slots, put: Line(AtomicUsize::new(0)), taken: Line(AtomicUsize::new(0)) });
    (Producer { ring: Arc::clone(&ring), put: 0, taken: 0 }, Consumer { ring, taken: 0 })
}

impl Producer {
    /// Is there room for that many?
    #[inline]
    pub(super) fn has_room(&mut self, events: usize) -> bool {
        let room = |producer: &Producer| producer.ring.slots.len() - (producer.put - producer.taken);
        if room(self) < events {
            // Pairs with the release in `pop`: the slots up to there have been read.
            self.taken = self.ring.taken.0.load(Ordering::Acquire);
        }
        room(self) >= events
    }

    /// Is nobody there any more to take anything out?
    pub(super) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.ring) == 1
    }

    /// Puts an event in; `false` if there is no room.
    #[inline]
    pub(super) fn push(&mut self, words: Words) -> bool {
        if !self.has_room(1) {
            return false;
        }
        let slot = &self.ring.slots[self.put & (self.ring.slots.len() - 1)];
        slot[0].store(words[0], Ordering::Relaxed);
        slot[1].store(words[1], Ordering::Relaxed);
        slot[2].store(words[2], Ordering::Relaxed);
        self.put += 1;
        // Pairs with the acquire in `pop`: whoever sees the count sees the words.
        self.ring.put.0.store(self.put, Ordering::Release);
        true
    }
}

impl Consumer {
    /// Takes the oldest event out.
    pub(super) fn pop(&mut self) -> Option<Words> {
        if self.taken == self.ring.put.0.load(Ordering::Acquire) {
            return None;
        }
        let slot = &self.ring.slots[self.taken & (self.ring.slots.len() - 1)];
        let words = std::array::from_fn(|place| slot[place].load(Ordering::Relaxed));
        self.taken += 1;
        self.ring.taken.0.store(self.taken, Ordering::Release);
        Some(words)
    }

    /// How many events the queue can hold.
    pub(super) fn capacity(&self) -> usize {
        self.ring.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_refuses_and_goes_on_after_it_was_emptied() {
        let (mut producer, mut consumer) = ring(3);
        assert_eq!(consumer.capacity(), 4);
        assert_eq!(consumer.pop(), None);
        for round in 0..10 {
            for n in 0..4 {
                assert!(producer.push([round, n, 0]));
            }
            assert!(!producer.push([9, 9, 9]) && !producer.has_room(1));
            for n in 0..4 {
                assert_eq!(consumer.pop(), Some([round, n, 0]));
            }
            assert_eq!(consumer.pop(), None);
            assert!(producer.has_room(4) && !producer.has_room(5));
        }
    }

    #[test]
    fn all_that_went_in_comes_out_in_order_on_another_thread() {
        const EVENTS: u64 = 200_000;
        let (mut producer, mut consumer) = ring(64);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for n in 0..EVENTS {
                    while !producer.push([n, n * 3, !n]) {
                        std::thread::yield_now();
                    }
                }
            });
            for n in 0..EVENTS {
                let words = loop {
                    match consumer.pop() {
                        Some(words) => break words,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!(words, [n, n * 3, !n]);
            }
        });
    }
}
