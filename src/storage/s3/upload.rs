//! Sends a file to S3: in one request, or in parts where it is large; never more of it in memory than a buffer.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};

use super::call::{Call, Patience, Payload, Repeats};
use super::{S3Client, etag, header};
use crate::cancel::Cancel;
use crate::error::{Context, Error, Result};
use crate::storage::{transport, xml};

/// A file up to this size is sent in one request.
const SINGLE_BYTES: u64 = 64 << 20;

/// The size of a part, unless there would be too many of them.
const PART_BYTES: u64 = 16 << 20;

/// S3 takes no more parts than this.
const MAX_PARTS: u64 = 10_000;

/// How long a server may say nothing to the end of an upload that failed.
const CLEAN_UP_SILENCE_LIMIT: Duration = Duration::from_secs(10);

impl S3Client {
    /// Stores the content of a file, in parts where it is larger than 64 MiB; what was sent of these is given up where
    /// one fails.
    ///
    /// The file is read twice, since what is sent begins with its hash.
    ///
    /// # Errors
    /// The file cannot be read or becomes shorter meanwhile, the bucket is not there, the storage refuses, or the
    /// connection breaks for good.
    pub fn put_file(&self, bucket: &str, key: &str, file: &Path) -> Result<()> {
        self.check_names(bucket, key)?;
        let about = || format!("failed to read `{}`", file.display());
        let open = File::open(file).context(about)?;
        let metadata = open.metadata().context(about)?;
        if !metadata.is_file() {
            return Err(Error::usage(format!("`{}` is no file that could be stored", file.display())));
        }
        let stored = if metadata.len() <= SINGLE_BYTES {
            self.put_part(&Call::new("PUT", bucket, key), &open, 0, metadata.len()).map(drop)
        } else {
            self.put_parts(bucket, key, &open, metadata.len())
        };
        stored.context(|| format!("failed to store `{}`", file.display()))
    }

    /// Sends a part of a file, and gives its ETag as the server writes it.
    fn put_part(&self, call: &Call<'_>, file: &File, offset: u64, size_bytes: u64) -> Result<String> {
        let part = || Part { file, offset, left: size_bytes, cancel: &self.cancel };
        let checksum = self.checksum(part()).map_err(|error| self.story(call, error))?;
        let call = Call { headers: &[("content-md5", checksum.as_str())], ..*call };
        let open = || Box::new(part()) as Box<dyn Read>;
        let answer = self.send(&call, &Payload::Stream { size_bytes, open: &open })?;
        Ok(header(&answer, "etag").unwrap_or_default().to_string())
    }

    /// The value of the header `Content-MD5`, for which the part is read once more than for sending it.
    fn checksum(&self, mut part: Part<'_>) -> Result<String> {
        let mut digest = Md5::new();
        let mut buffer = vec![0; 128 << 10];
        loop {
            match part.read(&mut buffer) {
                Ok(0) => return Ok(STANDARD.encode(digest.finalize())),
                Ok(read) => digest.update(&buffer[..read]),
                Err(error) => {
                    self.cancel.check()?;
                    return Err(Error::new(error.to_string()));
                }
            }
        }
    }

    fn put_parts(&self, bucket: &str, key: &str, file: &File, size_bytes: u64) -> Result<()> {
        let begin = Call {
            query: &[("uploads", "")],
            repeats: Repeats::OnlyIfRefused,
            ..Call::new("POST", bucket, key)
        };
        let id = xml::upload_id(&self.ask(&begin, &[])?).map_err(|error| self.story(&begin, error))?;
        let stored = self.fill_upload(bucket, key, &id, (file, size_bytes));
        if stored.is_err() {
            self.abort_upload(bucket, key, &id);
        }
        stored
    }

    fn fill_upload(&self, bucket: &str, key: &str, id: &str, (file, size_bytes): (&File, u64)) -> Result<()> {
        let part_bytes = part_bytes(size_bytes);
        let mut etags = Vec::new();
        for offset in (0..size_bytes).step_by(part_bytes as usize) {
            let number = (etags.len() + 1).to_string();
            let query = [("partNumber", number.as_str()), ("uploadId", id)];
            let call = Call { query: &query, ..Call::new("PUT", bucket, key) };
            let etag = self.put_part(&call, file, offset, part_bytes.min(size_bytes - offset))?;
            if etag.is_empty() {
                return Err(self.story(&call, Error::new("the storage answered without an ETag")));
            }
            etags.push(etag);
        }
        let end = Call { query: &[("uploadId", id)], ..Call::new("POST", bucket, key) };
        match self.ask(&end, xml::completion(&etags).as_bytes()) {
            // The upload has ended before, where the answer that said so was lost.
            Err(error) if error.is_not_found() && self.is_stored(bucket, key, &etags, size_bytes) => {
                log::debug!("the object is stored, although: {error}");
                Ok(())
            }
            answered => answered.map(drop),
        }
    }

    /// Is an object there that was put together from parts with these ETags?
    fn is_stored(&self, bucket: &str, key: &str, etags: &[String], size_bytes: u64) -> bool {
        let expected = etag::of_parts(etags);
        let found = self.head(bucket, key);
        found.is_ok_and(|head| expected.is_some() && head.etag == expected && head.size_bytes == size_bytes)
    }

    /// Has the server forget the parts of an upload, also once the job has been given up; but waits for no server that
    /// is gone or hangs.
    fn abort_upload(&self, bucket: &str, key: &str, id: &str) {
        let (cancel, patience) = (Cancel::new(), Patience::OF_CLEAN_UP);
        let agent = transport::agent(&cancel, CLEAN_UP_SILENCE_LIMIT);
        let resolute = S3Client { agent, cancel, patience, ..self.clone() };
        let call = Call { query: &[("uploadId", id)], ..Call::new("DELETE", bucket, key) };
        if let Err(error) = resolute.send(&call, &Payload::Bytes(&[])) {
            log::warn!("the parts of an upload that failed may still be there: {error}");
        }
    }
}

/// The size of all parts but the last of a file that is sent in parts; `None`: it is sent in one request.
pub(super) fn part_sizes(size_bytes: u64) -> Option<u64> {
    (size_bytes > SINGLE_BYTES).then(|| part_bytes(size_bytes))
}

/// The size of all parts but the last: whole MiB, and no more parts than allowed.
fn part_bytes(size_bytes: u64) -> u64 {
    PART_BYTES.max(size_bytes.div_ceil(MAX_PARTS).next_multiple_of(1 << 20))
}

/// Reads a part of a file that others read, too.
struct Part<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
    cancel: &'a Cancel,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let failed = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        // A connection that is never waited for does not ask.
        self.cancel.check().map_err(|error| failed(error.to_string()))?;
        let read = self
            .file
            .read_at(&mut buffer[..wanted], self.offset)
            .map_err(|error| failed(format!("the file cannot be read: {error}")))?;
        if read == 0 {
            return Err(failed("the file became shorter while it was sent".to_string()));
        }
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_large_enough_for_the_largest_object() {
        assert_eq!(part_bytes(SINGLE_BYTES + 1), PART_BYTES);
        for size_bytes in [160_u64 << 30, 1 << 40, (5 << 40) - 1] {
            assert!(size_bytes.div_ceil(part_bytes(size_bytes)) <= MAX_PARTS, "{size_bytes}");
        }
    }
}
