//! Understands the head and the chunks of an HTTP answer: pure functions of the bytes that have come so far.

use crate::error::{Error, Kind, Result};

/// The most header lines in an answer.
const MAX_HEADERS: usize = 128;

/// How the end of a body is known (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyLength {
    Known(u64),
    Chunked,
    UntilClose,
}

#[derive(Debug)]
pub(super) struct Head {
    /// Bytes, with the empty line.
    pub(super) length: usize,
    pub(super) status: u16,
    pub(super) content_type: Option<String>,
    pub(super) body: BodyLength,
    pub(super) keeps_open: bool,
}

/// The head of an answer, once it is whole.
pub(super) fn parse_head(received: &[u8]) -> Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let length = match answer.parse(received) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(Error::from_source(Kind::Other, "the answer is not HTTP", error)),
    };
    let status = answer.code.unwrap_or_default();
    let mut head = Head {
        length,
        status,
        content_type: None,
        body: BodyLength::UntilClose,
        keeps_open: answer.version == Some(1),
    };
    for header in answer.headers.iter() {
        let value = String::from_utf8_lossy(header.value);
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-type") {
            head.content_type = Some(value.into_owned());
        } else if is("content-length") && head.body != BodyLength::Chunked {
            let length = value.trim().parse();
            head.body = BodyLength::Known(length.map_err(|_| {
                Error::new(format!("the answer is not HTTP: its Content-Length is `{value}`"))
            })?);
        } else if is("transfer-encoding") && value.to_ascii_lowercase().contains("chunked") {
            head.body = BodyLength::Chunked;
        } else if is("connection") {
            head.keeps_open = !value.eq_ignore_ascii_case("close") && head.keeps_open;
        }
    }
    Ok(Some(head))
}

/// Finds the end of a chunked body, going on where the last look ended.
#[derive(Default)]
pub(super) struct ChunkScan {
    next: usize,
    data_bytes: u64,
}

impl ChunkScan {
    /// How many bytes of data the chunks have that were found so far, be all of them here or not.
    pub(super) fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    pub(super) fn is_whole(&mut self, body: &[u8]) -> Result<bool> {
        loop {
            let Some(chunk) = chunk_at(body, self.next)? else { return Ok(false) };
            if chunk.size == 0 {
                // Trailer lines may follow the last chunk; an empty line ends them.
                let trailer = &body[chunk.data - 2..];
                return Ok(trailer.windows(4).any(|window| window == b"\r\n\r\n"));
            }
            self.data_bytes = self.data_bytes.saturating_add(chunk.size as u64);
            self.next = chunk.data.saturating_add(chunk.size).saturating_add(2);
        }
    }
}

struct Chunk {
    /// Where its data begin.
    data: usize,
    /// How many bytes they are.
    size: usize,
}

/// The chunk whose size line begins at `at`, once that line is whole.
fn chunk_at(body: &[u8], at: usize) -> Result<Option<Chunk>> {
    let rest = body.get(at..).unwrap_or_default();
    match httparse::parse_chunk_size(rest) {
        Ok(httparse::Status::Complete((line, size))) => {
            Ok(Some(Chunk { data: at + line, size: size as usize }))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(Error::new("the answer is not HTTP: its body is not in chunks as it says")),
    }
}

pub(super) fn join_chunks(body: &[u8]) -> Result<Vec<u8>> {
    let mut joined = Vec::with_capacity(body.len());
    let mut at = 0;
    while let Some(chunk) = chunk_at(body, at)?.filter(|chunk| chunk.size > 0) {
        let end = chunk.data.saturating_add(chunk.size);
        joined.extend_from_slice(body.get(chunk.data..end).ok_or_else(|| super::closed_early(body.len()))?);
        at = end + 2;
    }
    Ok(joined)
}
