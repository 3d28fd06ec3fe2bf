//! Takes apart the stream in which the engine sends what a container writes to stdout and stderr.
//!
//! Without a terminal it is frames of eight bytes of header (stream, three zeros, length as big-endian `u32`) and as
//! many bytes as the header says (Engine API, "Attach to a container", stream format); with one it is raw.

use crate::error::{Error, Kind, Result};

/// Which of its two outputs a container wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Its standard output; with a terminal, both.
    Stdout,
    /// Its standard error.
    Stderr,
}

/// How the bytes of the two outputs are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Each piece has a header.
    Multiplexed,
    /// They are not: the container has a terminal.
    Raw,
}

/// Takes pieces of any length, and gives away what is in the frames as early as it can.
#[derive(Debug)]
pub(super) struct Splitter {
    framing: Framing,
    header: [u8; HEADER],
    /// How many bytes of the header have come.
    filled: usize,
    /// How many bytes of the frame's content are still to come.
    left: usize,
    stream: Stream,
}

const HEADER: usize = 8;

impl Splitter {
    pub(super) fn new(framing: Framing) -> Splitter {
        Splitter { framing, header: [0; HEADER], filled: 0, left: 0, stream: Stream::Stdout }
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// When a header is none.
    pub(super) fn push(&mut self, mut piece: &[u8], sink: &mut dyn FnMut(Stream, &[u8])) -> Result<()> {
        if self.framing == Framing::Raw {
            sink(Stream::Stdout, piece);
            return Ok(());
        }
        while !piece.is_empty() {
            if self.left > 0 {
                let (content, rest) = piece.split_at(self.left.min(piece.len()));
                self.left -= content.len();
                sink(self.stream, content);
                piece = rest;
                continue;
            }
            let (part, rest) = piece.split_at((HEADER - self.filled).min(piece.len()));
            self.header[self.filled..self.filled + part.len()].copy_from_slice(part);
            self.filled += part.len();
            piece = rest;
            if self.filled == HEADER {
                self.filled = 0;
                self.begin_frame()?;
            }
        }
        Ok(())
    }

    fn begin_frame(&mut self) -> Result<()> {
        let [stream, 0, 0, 0, length @ ..] = self.header else { return Err(self.broken()) };
        self.stream = match stream {
            // What was typed in is echoed to the output.
            0 | 1 => Stream::Stdout,
            // 3 is what the engine itself has to say, in words.
            2 | 3 => Stream::Stderr,
            _ => return Err(self.broken()),
        };
        self.left = u32::from_be_bytes(length) as usize;
        Ok(())
    }

    fn broken(&self) -> Error {
        Error::new(format!("the output stream is broken: {:02x?} is no frame header", self.header))
    }

    /// Says whether the stream may end here.
    ///
    /// # Errors
    /// One for which `is_disconnected` holds, in the middle of a frame.
    pub(super) fn finish(&self) -> Result<()> {
        if self.left == 0 && self.filled == 0 {
            return Ok(());
        }
        Err(Error::with_kind(Kind::Disconnected, "the output stream was cut off in the middle of a frame"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b"\x01\0\0\0\0\0\0\x05hello\x02\0\0\0\0\0\0\x03err\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x01!";

    #[test]
    fn frames_are_the_same_however_the_stream_is_cut_into_pieces() {
        for size in 1..=STREAM.len() {
            let mut splitter = Splitter::new(Framing::Multiplexed);
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            for piece in STREAM.chunks(size) {
                let mut sink = |stream, bytes: &[u8]| match stream {
                    Stream::Stdout => stdout.extend_from_slice(bytes),
                    Stream::Stderr => stderr.extend_from_slice(bytes),
                };
                splitter.push(piece, &mut sink).unwrap();
            }
            splitter.finish().unwrap();
            assert_eq!((stdout.as_slice(), stderr.as_slice()), (b"hello!".as_slice(), b"err".as_slice()));
        }
    }

    #[test]
    fn a_stream_that_ends_within_a_frame_is_a_lost_connection() {
        for end in [3, 8, 12] {
            let mut splitter = Splitter::new(Framing::Multiplexed);
            splitter.push(&STREAM[..end], &mut |_, _| ()).unwrap();
            assert!(splitter.finish().unwrap_err().is_disconnected(), "{end}");
        }
    }

    #[test]
    fn a_raw_stream_passes_as_it_is_and_is_refused_where_frames_are_due() {
        let mut raw = Vec::new();
        Splitter::new(Framing::Raw)
            .push(b"root@x:/# ls", &mut |_, bytes| raw.extend_from_slice(bytes))
            .unwrap();
        assert_eq!(raw, b"root@x:/# ls");
        let error = Splitter::new(Framing::Multiplexed).push(b"root@x:/# ls", &mut |_, _| ()).unwrap_err();
        assert!(error.to_string().contains("no frame header"), "{error}");
    }
}
