//! The bytes of a recording: events as a few variable-length numbers each, in blocks with a check sum.
//!
//! A file is two lines of text and then blocks until its end.
//!
//! ```text
//! sebs-lite recording 1 <CRC-32 of the next line without its end, 8 hex digits>
//! <header: one JSON object>
//! block: length of the payload, 2 bytes │ check of the length, 2 bytes │ payload │ check, 4 bytes
//! ```
//! All fixed numbers are little-endian. The check of a block is the CRC-32 (IEEE 802.3) of the check before it (that of
//! the header for the first), the length and the payload; the check of the length is the lower half of the CRC-32 of
//! the check before it and the length. So no block can be altered, left out or moved unseen, and a file that was cut is
//! told from one that was damaged.
//!
//! A payload is records; each begins with a number that is 8 · target + kind. Numbers are LEB128, 7 bits a byte, least
//! significant first; signed ones are zigzag-coded.
//!
//! | kind | record | numbers that follow |
//! |---|---|---|
//! | 0-3 | sample | kinds 2, 3: ticks left out before it; lateness in ns; change of the value, in bytes (kinds 1, 3) or in units of 4096 bytes (kinds 0, 2) |
//! | 4 | joined | tick; length of the label; label in UTF-8 |
//! | 5 | left | tick; reason; error number |
//! | 6 | lost samples | ticks left out before the first; ticks from first to last; samples |
//! | 7 | end (target 0) or note (target 1) | length; one JSON object |
//!
//! A target's first sample changes from the value 0, and is expected at the tick at which the target joined.

use std::io::Read;
use std::time::Duration;

use super::event::{Ending, Event, Sample, TargetId, What};
use crate::error::{Context, Error, Result};
use crate::units::Bytes;

const IN_BYTES: u64 = 1;
const AFTER_GAP: u64 = 2;
const JOINED: u64 = 4;
const LEFT: u64 = 5;
const LOST: u64 = 6;
const END: u64 = 7;
const NOTE: u64 = 1 << 3 | 7;
/// Kind of both.
const TEXT: u64 = 7;

const PAGE: i64 = 4096;

/// The longest payload of a block.
const MAX_PAYLOAD: usize = u16::MAX as usize;

/// A payload this long is ready to be made a block: small enough that little is at stake when a disk is nearly full. What
/// is left of [`MAX_PAYLOAD`] holds any one record.
pub(super) const FULL_PAYLOAD: usize = 16 * 1024;

/// The longest label, and the longest text of an end record or a note.
pub(super) const MAX_TEXT: usize = 4096;

/// What stands beside the payload of a block.
const BLOCK_EXTRA: usize = 8;

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// CRC-32 of IEEE 802.3, as in zip and Ethernet.
pub(super) fn crc32(pieces: &[&[u8]]) -> u32 {
    let bytes = pieces.iter().flat_map(|piece| piece.iter());
    !bytes.fold(!0, |crc, byte| CRC_TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ crc >> 8)
}

/// What both sides know of a target, so that only what changes has to be written.
#[derive(Clone, Copy, Debug)]
struct Known {
    next: u64,
    bytes: u64,
}

/// Turns events into records.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    known: Vec<Known>,
}

impl Encoder {
    /// Appends an event to a payload. `label` is that of a target that joins.
    pub(super) fn append(&mut self, payload: &mut Vec<u8>, event: &Event, label: &str) {
        let head = u64::from(event.target.0) << 3;
        let place = event.target.index();
        match event.what {
            What::Joined { tick } => {
                self.known.resize(place + 1, Known { next: tick, bytes: 0 });
                put(payload, &[head | JOINED, tick, label.len() as u64]);
                payload.extend_from_slice(label.as_bytes());
            }
            What::Sample(sample) => {
                let known = &mut self.known[place];
                let change = sample.bytes.0.wrapping_sub(known.bytes) as i64;
                let gap = sample.tick - known.next;
                let (unit, change) = if change % PAGE == 0 { (0, change / PAGE) } else { (IN_BYTES, change) };
                let gap_bit = if gap > 0 { AFTER_GAP } else { 0 };
                *known = Known { next: sample.tick + 1, bytes: sample.bytes.0 };
                put(payload, &[head | gap_bit | unit]);
                if gap > 0 {
                    put(payload, &[gap]);
                }
                put(payload, &[sample.lateness.as_nanos() as u64, zigzag(change)]);
            }
            What::Lost { first, last, samples } => {
                let known = &mut self.known[place];
                put(payload, &[head | LOST, first - known.next, last - first, samples]);
                known.next = last + 1;
            }
            What::Left { tick, ending } => {
                let (code, errno) = ending.to_code();
                put(payload, &[head | LEFT, tick, u64::from(code), u64::from(errno)]);
            }
            What::Missed { .. } => {}
        }
    }

    /// Appends the record that ends a recording.
    pub(super) fn append_end(payload: &mut Vec<u8>, json: &[u8]) {
        put(payload, &[END, json.len() as u64]);
        payload.extend_from_slice(json);
    }

    /// Appends a note, of at most [`MAX_TEXT`] bytes.
    pub(super) fn append_note(payload: &mut Vec<u8>, json: &[u8]) {
        put(payload, &[NOTE, json.len() as u64]);
        payload.extend_from_slice(json);
    }
}

/// Makes a block of a payload; `check` is that of the block before and becomes that of this one.
pub(super) fn block(payload: &[u8], check: &mut u32) -> Vec<u8> {
    debug_assert!(!payload.is_empty() && payload.len() <= MAX_PAYLOAD);
    let before = check.to_le_bytes();
    let length = (payload.len() as u16).to_le_bytes();
    *check = crc32(&[&before, &length, payload]);
    let mut block = Vec::with_capacity(payload.len() + BLOCK_EXTRA);
    block.extend_from_slice(&length);
    block.extend_from_slice(&length_check(&before, &length));
    block.extend_from_slice(payload);
    block.extend_from_slice(&check.to_le_bytes());
    block
}

fn length_check(before: &[u8], length: &[u8]) -> [u8; 2] {
    (crc32(&[before, length]) as u16).to_le_bytes()
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Record {
    Event(Event),
    /// The text of a label follows the event that says when its target joined.
    Joined(Event, String),
    End(Vec<u8>),
    Note(Vec<u8>),
}

/// Reads records off the blocks of a recording, block by block.
pub(super) struct Decoder<R> {
    reader: R,
    check: u32,
    payload: Vec<u8>,
    position: usize,
    known: Vec<Known>,
    /// Blocks that were read, for messages.
    blocks: u64,
}

impl<R: Read> Decoder<R> {
    /// `check` is that of the header.
    pub(super) fn new(reader: R, check: u32) -> Decoder<R> {
        Decoder { reader, check, payload: Vec::new(), position: 0, known: Vec::new(), blocks: 0 }
    }

    /// The next record; `None` where the file ends, be it in the middle of a block.
    pub(super) fn next(&mut self) -> Result<Option<Record>> {
        if self.position == self.payload.len() && !self.next_block()? {
            return Ok(None);
        }
        match self.record() {
            Some(record) => Ok(Some(record)),
            None => Err(self.damaged()),
        }
    }

    fn next_block(&mut self) -> Result<bool> {
        let mut head = [0; 4];
        if !self.fill(&mut head)? {
            return Ok(false);
        }
        let before = self.check.to_le_bytes();
        let (length, length_sum) = head.split_at(2);
        if length_check(&before, length) != length_sum || length == [0, 0] {
            // A file system that lost power may have made the file longer without writing to it.
            return if head == [0; 4] && self.is_all_zero()? { Ok(false) } else { Err(self.damaged()) };
        }
        let length = usize::from(u16::from_le_bytes([head[0], head[1]]));
        self.payload.clear();
        self.position = 0;
        let mut body = vec![0; length + 4];
        if !self.fill(&mut body)? {
            return Ok(false);
        }
        let (payload, sum) = body.split_at(length);
        self.check = crc32(&[&before, &head[..2], payload]);
        if sum != self.check.to_le_bytes() {
            return Err(self.damaged());
        }
        body.truncate(length);
        self.payload = body;
        self.blocks += 1;
        Ok(true)
    }

    /// Fills the buffer; `false` if the file ends before that.
    fn fill(&mut self, mut buffer: &mut [u8]) -> Result<bool> {
        while !buffer.is_empty() {
            match self.reader.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(read) => buffer = &mut buffer[read..],
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context(|| "failed to read the recording".to_string()),
            }
        }
        Ok(true)
    }

    fn is_all_zero(&mut self) -> Result<bool> {
        let mut byte = [0];
        while self.fill(&mut byte)? {
            if byte != [0] {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn damaged(&self) -> Error {
        Error::new(format!("the recording is damaged in block {}, counted from 0", self.blocks))
    }

    fn record(&mut self) -> Option<Record> {
        let head = self.number()?;
        let target = TargetId(u32::try_from(head >> 3).ok()?);
        let place = target.index();
        let event = |what| Event { target, what };
        Some(match head & 7 {
            JOINED => {
                let tick = self.number()?;
                if place != self.known.len() {
                    return None;
                }
                self.known.push(Known { next: tick, bytes: 0 });
                let label = String::from_utf8(self.text()?).ok()?;
                Record::Joined(event(What::Joined { tick }), label)
            }
            LEFT => {
                let (tick, code, errno) = (self.number()?, self.number()?, self.number()?);
                let ending = Ending::from_code(u8::try_from(code).ok()?, u32::try_from(errno).ok()?)?;
                let known = self.known.get(place)?;
                (tick >= known.next).then_some(Record::Event(event(What::Left { tick, ending })))?
            }
            LOST => {
                let (gap, span, samples) = (self.number()?, self.number()?, self.number()?);
                let known = self.known.get_mut(place)?;
                let first = known.next.checked_add(gap)?;
                let last = first.checked_add(span)?;
                known.next = last.checked_add(1)?;
                (samples <= span.checked_add(1)?).then_some(Record::Event(event(What::Lost {
                    first,
                    last,
                    samples,
                })))?
            }
            TEXT => match head {
                END => Record::End(self.text()?),
                NOTE => Record::Note(self.text()?),
                _ => return None,
            },
            kind => {
                let gap = if kind & AFTER_GAP == 0 { 0 } else { self.number()? };
                let lateness = Duration::from_nanos(self.number()?);
                let change = unzigzag(self.number()?);
                let change = if kind & IN_BYTES == 0 { change.wrapping_mul(PAGE) } else { change };
                let known = self.known.get_mut(place)?;
                let tick = known.next.checked_add(gap)?;
                let bytes = known.bytes.wrapping_add(change as u64);
                *known = Known { next: tick.checked_add(1)?, bytes };
                Record::Event(event(What::Sample(Sample { tick, lateness, bytes: Bytes(bytes) })))
            }
        })
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.payload.get(self.position)?;
            self.position += 1;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn text(&mut self) -> Option<Vec<u8>> {
        let length = usize::try_from(self.number()?).ok()?;
        let text = self.payload.get(self.position..self.position.checked_add(length)?)?;
        self.position += length;
        Some(text.to_vec())
    }
}

fn put(payload: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        let mut rest = *number;
        while rest >= 0x80 {
            payload.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        payload.push(rest as u8);
    }
}

/// 0, −1, 1, −2, … as 0, 1, 2, 3, …
fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(target: u32, tick: u64, lateness_ns: u64, bytes: u64) -> Event {
        let lateness = Duration::from_nanos(lateness_ns);
        Event { target: TargetId(target), what: What::Sample(Sample { tick, lateness, bytes: Bytes(bytes) }) }
    }

    fn event(target: u32, what: What) -> Event {
        Event { target: TargetId(target), what }
    }

    fn events() -> Vec<Event> {
        vec![
            event(0, What::Joined { tick: 7 }),
            sample(0, 7, 40_000, 12_288),
            event(1, What::Joined { tick: u64::MAX - 9 }),
            sample(0, 8, 0, 12_289),
            sample(1, u64::MAX - 8, u64::MAX >> 1, u64::MAX),
            sample(0, 1_000, 999, 0),
            sample(1, u64::MAX - 7, 1, 0),
            sample(1, u64::MAX - 6, 1, 1 << 63),
            event(0, What::Lost { first: 1_001, last: 1_003, samples: 2 }),
            sample(0, 1_004, 5, 4096),
            event(0, What::Left { tick: 1_010, ending: Ending::Failed { errno: 5 } }),
            event(1, What::Left { tick: u64::MAX - 5, ending: Ending::Gone }),
        ]
    }

    /// Each event in a block of its own, and where each block ends.
    fn encoded() -> (Vec<u8>, Vec<usize>) {
        let (mut encoder, mut check) = (Encoder::default(), 1);
        let (mut bytes, mut ends) = (Vec::new(), vec![0]);
        for event in events() {
            let mut payload = Vec::new();
            encoder.append(&mut payload, &event, "ein Behälter");
            bytes.extend(block(&payload, &mut check));
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    /// What `encoded` holds.
    fn records() -> Vec<Record> {
        let record = |event: Event| match event.what {
            What::Joined { .. } => Record::Joined(event, "ein Behälter".to_string()),
            _ => Record::Event(event),
        };
        events().into_iter().map(record).collect()
    }

    fn decode(bytes: &[u8]) -> Result<Vec<Record>> {
        let mut decoder = Decoder::new(bytes, 1);
        std::iter::from_fn(|| decoder.next().transpose()).collect()
    }

    #[test]
    fn the_check_sum_is_the_published_one() {
        assert_eq!(crc32(&[b"123456789"]), 0xcbf4_3926);
        assert_eq!(crc32(&[b"1234", b"", b"56789"]), 0xcbf4_3926);
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        assert_eq!(decode(&encoded().0).unwrap(), records());
    }

    #[test]
    fn a_file_cut_anywhere_gives_all_blocks_before_the_cut() {
        let (bytes, ends) = encoded();
        for cut in 0..=bytes.len() {
            let whole_blocks = ends.iter().filter(|end| **end <= cut).count() - 1;
            assert_eq!(decode(&bytes[..cut]).unwrap(), records()[..whole_blocks], "cut at {cut}");
        }
    }

    #[test]
    fn one_flipped_bit_is_refused_wherever_it_is() {
        let (bytes, _) = encoded();
        for place in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[place / 8] ^= 1 << (place % 8);
            let error = decode(&damaged).unwrap_err().to_string();
            assert!(error.contains("damaged in block"), "bit {place}: {error}");
        }
    }

    #[test]
    fn a_block_that_is_left_out_or_moved_is_refused() {
        let (bytes, ends) = encoded();
        for block in 0..ends.len() - 2 {
            let without = [&bytes[..ends[block]], &bytes[ends[block + 1]..]].concat();
            assert!(decode(&without).is_err(), "without block {block}");
            let (one, other) =
                (&bytes[ends[block]..ends[block + 1]], &bytes[ends[block + 1]..ends[block + 2]]);
            let swapped = [&bytes[..ends[block]], other, one, &bytes[ends[block + 2]..]].concat();
            assert!(decode(&swapped).is_err(), "blocks {block} and the next swapped");
        }
    }

    #[test]
    fn zeros_at_the_end_are_a_torn_tail_and_zeros_before_data_are_not() {
        let (mut bytes, _) = encoded();
        bytes.extend([0; 100]);
        assert_eq!(decode(&bytes).unwrap(), records());
        bytes.push(1);
        assert!(decode(&bytes).is_err());
    }

    #[test]
    fn nonsense_with_a_valid_check_sum_is_refused() {
        let nonsense: [&[u8]; 7] = [
            &[0, 1, 2],                                                 // a sample of a target that never joined
            &[8 | 4, 0, 0],                                             // target 1 before target 0
            &[4, 0, 200],                                               // a label longer than the block
            &[4, 0, 1, 0xff],                                           // a label that is not UTF-8
            &[4, 5, 0, 5, 4, 2, 0],                                     // left before it joined
            &[4, 0, 0, 6, 0, 1, 3], // more samples lost than there were ticks
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], // more than 64 bits
        ];
        for payload in nonsense {
            assert!(decode(&block(payload, &mut 1)).is_err(), "{payload:?}");
        }
    }

    #[test]
    fn a_sample_takes_few_bytes() {
        let mut encoder = Encoder::default();
        encoder.append(&mut Vec::new(), &event(0, What::Joined { tick: 0 }), "a");
        let mut payload = Vec::new();
        encoder.append(&mut payload, &sample(0, 0, 2_000_000, 1 << 40), "");
        let alone = block(&payload, &mut 1).len();
        assert_eq!(payload.len(), 9);
        assert!(alone <= 17, "{alone}: a first value of a terabyte, alone in its block");
        payload.clear();
        encoder.append(&mut payload, &sample(0, 1, 2_000_000, (1 << 40) + (1 << 24)), "");
        assert_eq!(block(&payload, &mut 1).len(), 14, "16 MiB more, alone in its block");
    }
}
