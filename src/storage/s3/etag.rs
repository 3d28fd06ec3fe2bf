//! The ETag that an object has once a file has been stored as it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use md5::{Digest, Md5};

use super::S3Client;
use super::upload::part_sizes;
use crate::error::{Context, Result};
use crate::storage::xml;
use crate::units::hexadecimal;

impl S3Client {
    /// The ETag that [`S3Client::put_file`] gives an object with the file's content: its MD5, or for one that is sent in
    /// parts, the MD5 of theirs and their number. A storage that makes ETags otherwise has others.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn etag_of_file(file: &Path) -> Result<String> {
        let about = || format!("failed to read `{}`", file.display());
        let mut open = File::open(file).context(about)?;
        let size_bytes = open.metadata().context(about)?.len();
        let Some(part_bytes) = part_sizes(size_bytes) else {
            return Ok(hexadecimal(&hash(&mut open).context(about)?));
        };
        let count = size_bytes.div_ceil(part_bytes);
        let hashes: io::Result<Vec<_>> =
            (0..count).map(|_| hash(&mut (&mut open).take(part_bytes))).collect();
        Ok(of_hashes(&hashes.context(about)?))
    }
}

/// The ETag of what is put together from parts that have these; `None` where one of these is no MD5.
pub(super) fn of_parts(etags: &[String]) -> Option<String> {
    let hashes: Option<Vec<_>> = etags.iter().map(|etag| hash_in(&xml::unquoted(etag)?)).collect();
    Some(of_hashes(&hashes?))
}

fn of_hashes(hashes: &[[u8; 16]]) -> String {
    format!("{}-{}", hexadecimal(&Md5::digest(hashes.as_flattened())), hashes.len())
}

/// The bytes that 32 hexadecimal digits are.
fn hash_in(digits: &str) -> Option<[u8; 16]> {
    let is_hash = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hash.then(|| u128::from_str_radix(digits, 16).ok().map(u128::to_be_bytes))?
}

fn hash(content: &mut impl Read) -> io::Result<[u8; 16]> {
    let mut hash = Md5::new();
    let mut piece = vec![0; 256 << 10];
    loop {
        match content.read(&mut piece)? {
            0 => return Ok(hash.finalize().into()),
            read => hash.update(&piece[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{self, Access, TempFolder};

    #[test]
    fn a_small_file_has_its_md5_and_a_large_one_that_of_its_parts() {
        let folder = TempFolder::create().unwrap();
        let path = folder.path().join("file");
        files::write(&path, b"abc", Access::Everyone).unwrap();
        assert_eq!(S3Client::etag_of_file(&path).unwrap(), "900150983cd24fb0d6963f7d28e17f72");
        File::create(&path).unwrap().set_len(65 << 20).unwrap();
        // md5(4 × md5(16 MiB of zeros) + md5(1 MiB of zeros)), by md5sum.
        assert_eq!(S3Client::etag_of_file(&path).unwrap(), "a68713ae40e211f58d2e1c5d5d6963e1-5");
        let zeros = "\"2c7ab85a893283e98c931e9511add182\"".to_string();
        let mut etags = vec![zeros; 4];
        etags.push("b6d81b360a5672d80c27430f39153e2c".to_string());
        assert_eq!(of_parts(&etags).unwrap(), "a68713ae40e211f58d2e1c5d5d6963e1-5");
        etags[0] = "no-hash".to_string();
        assert_eq!(of_parts(&etags), None);
        let missing = S3Client::etag_of_file(&folder.path().join("none")).unwrap_err();
        assert!(missing.is_not_found() && missing.to_string().contains("none"));
    }
}
