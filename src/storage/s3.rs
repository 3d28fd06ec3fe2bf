//! A client of S3 in path style over plain HTTP: buckets, and the objects in them.

mod call;
mod etag;
mod upload;

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};

use self::call::{Answer, Call, Patience, Payload};
use super::transport::{self, SILENCE_LIMIT};
use super::{signed, xml};
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::files;

/// The most keys that one request to delete may name.
const MAX_DELETED: usize = 1000;

/// Where the storage is, and who asks.
#[derive(Clone)]
pub struct S3Options {
    /// `host:port`, with or without `http://` before it.
    pub address: String,
    /// The access key id, which is no secret.
    pub access_key: String,
    /// The secret key; not part of what `Debug` shows.
    pub secret_key: String,
    /// `us-east-1` where the storage knows no regions.
    pub region: String,
}

impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options")
            .field("address", &self.address)
            .field("access_key", &self.access_key)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// An object in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectSummary {
    /// Its name in the bucket.
    pub key: String,
    /// Its size.
    pub size_bytes: u64,
    /// What changes with its content, without quotation marks; `None` where the server tells none.
    pub etag: Option<String>,
}

/// What is known of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectHead {
    /// Its size.
    pub size_bytes: u64,
    /// What changes with its content, without quotation marks; `None` where the server tells none.
    pub etag: Option<String>,
}

/// A client of one storage; clones share its connections.
///
/// Keys may be any text but the empty one. A request is sent again, up to seven times with growing pauses (7 s in all),
/// where the storage has answered that it is busy or failed (429, 5xx), where nobody took the connection, and where it
/// broke and a second time does no harm. What is stored is sent with its MD5 hash (`Content-MD5`), by which the storage knows what was garbled on its
/// way; what comes is checked to be as long as promised, since an ETag need be no hash of the content.
#[derive(Clone, Debug)]
pub struct S3Client {
    options: S3Options,
    /// `host:port`.
    address: String,
    agent: ureq::Agent,
    cancel: Cancel,
    patience: Patience,
}

impl S3Client {
    /// A client whose operations end once `cancel` is triggered. Nothing is sent yet.
    ///
    /// # Errors
    /// A usage error, where the address is none of plain HTTP.
    pub fn new(options: S3Options, cancel: &Cancel) -> Result<S3Client> {
        let address = signed::host(&options.address, "a storage")?;
        let (agent, cancel) = (transport::agent(cancel, SILENCE_LIMIT), cancel.clone());
        Ok(S3Client { options, address, agent, cancel, patience: Patience::USUAL })
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// For one that is there already, [`Error::is_conflict`] holds.
    pub fn create_bucket(&self, bucket: &str) -> Result<()> {
        self.check_bucket(bucket)?;
        let region = &self.options.region;
        let body = if region == "us-east-1" { String::new() } else { xml::location(region) };
        self.ask(&Call::new("PUT", bucket, ""), body.as_bytes()).map(drop)
    }

    /// The names of all buckets of this access key.
    ///
    /// # Errors
    /// The storage refuses, or the connection breaks for good.
    pub fn list_buckets(&self) -> Result<Vec<String>> {
        let call = Call::new("GET", "", "");
        xml::buckets(&self.ask(&call, &[])?).map_err(|error| self.story(&call, error))
    }

    /// Is there a bucket of that name?
    ///
    /// # Errors
    /// It is somebody else's, the storage refuses, or the connection breaks for good.
    pub fn bucket_exists(&self, bucket: &str) -> Result<bool> {
        self.check_bucket(bucket)?;
        match self.send(&Call::new("HEAD", bucket, ""), &Payload::Bytes(&[])) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes an empty bucket.
    ///
    /// # Errors
    /// For one that is not empty, [`Error::is_conflict`] holds; for one that is not there, [`Error::is_not_found`].
    pub fn remove_bucket(&self, bucket: &str) -> Result<()> {
        self.check_bucket(bucket)?;
        self.send(&Call::new("DELETE", bucket, ""), &Payload::Bytes(&[])).map(drop)
    }

    /// Stores an object, in place of one that is there.
    ///
    /// # Errors
    /// The bucket is not there, the storage refuses, or the connection breaks for good.
    pub fn put_bytes(&self, bucket: &str, key: &str, content: &[u8]) -> Result<()> {
        self.check_names(bucket, key)?;
        // Not all storages compare the hash that is signed with what came.
        let checksum = STANDARD.encode(Md5::digest(content));
        let headers = [("content-md5", checksum.as_str())];
        let call = Call { headers: &headers, ..Call::new("PUT", bucket, key) };
        self.send(&call, &Payload::Bytes(content)).map(drop)
    }

    /// The content of an object that is no larger than `limit_bytes`.
    ///
    /// # Errors
    /// It is not there ([`Error::is_not_found`]) or is larger, the storage refuses, or the connection breaks for good.
    pub fn get_bytes(&self, bucket: &str, key: &str, limit_bytes: u64) -> Result<Vec<u8>> {
        self.check_names(bucket, key)?;
        let call = Call::new("GET", bucket, key);
        self.attempt_reading(&call, |answer| {
            let size_bytes = self.length(&call, &answer)?;
            if size_bytes > limit_bytes {
                let why = format!("it has {size_bytes} bytes, more than the {limit_bytes} that are taken");
                return Err(self.story(&call, Error::new(why)));
            }
            let mut content = Vec::new();
            let read =
                answer.into_body().into_with_config().limit(u64::MAX).reader().read_to_end(&mut content);
            let read = read.and_then(|_| whole(content.len() as u64, size_bytes));
            read.map_err(|error| self.story(&call, self.broken_stream(&error)))?;
            Ok(content)
        })
    }

    /// Writes the content of an object to a file, which has it whole or is what it was before.
    ///
    /// # Errors
    /// It is not there ([`Error::is_not_found`]), the file cannot be written, the storage refuses, or the connection
    /// breaks for good.
    pub fn get_to_file(&self, bucket: &str, key: &str, file: &Path) -> Result<()> {
        self.check_names(bucket, key)?;
        let call = Call::new("GET", bucket, key);
        self.attempt_reading(&call, |answer| {
            let size_bytes = self.length(&call, &answer)?;
            let mut body = answer.into_body().into_with_config().limit(u64::MAX).reader();
            let mut broken = None;
            let written = files::write_with(file, files::Access::Everyone, |target| {
                copy(&mut body, target, &mut broken, size_bytes)
            });
            match broken {
                Some(error) => Err(self.story(&call, self.broken_stream(&error))),
                None => written,
            }
        })
    }

    /// Size and ETag of an object.
    ///
    /// # Errors
    /// It is not there ([`Error::is_not_found`]), the storage refuses, or the connection breaks for good.
    pub fn head(&self, bucket: &str, key: &str) -> Result<ObjectHead> {
        self.check_names(bucket, key)?;
        let call = Call::new("HEAD", bucket, key);
        let answer = self.send(&call, &Payload::Bytes(&[]))?;
        let etag = header(&answer, "etag").and_then(xml::unquoted);
        Ok(ObjectHead { size_bytes: self.length(&call, &answer)?, etag })
    }

    /// All objects whose keys begin with `prefix`, sorted by key as the server sorts them.
    ///
    /// # Errors
    /// The bucket is not there, the storage refuses, or the connection breaks for good.
    pub fn list(&self, bucket: &str, prefix: &str) -> Result<Vec<ObjectSummary>> {
        let mut objects = Vec::new();
        let mut token = None;
        loop {
            let mut page = self.page(bucket, prefix, token.as_deref())?;
            objects.append(&mut page.objects);
            if page.next.is_none() {
                return Ok(objects);
            }
            if page.next == token {
                let call = Call::new("GET", bucket, "");
                return Err(self.story(&call, Error::new("the list of objects does not go on")));
            }
            token = page.next;
        }
    }

    fn page(&self, bucket: &str, prefix: &str, token: Option<&str>) -> Result<xml::Page> {
        self.check_bucket(bucket)?;
        let mut query = vec![("encoding-type", "url"), ("list-type", "2"), ("prefix", prefix)];
        query.extend(token.map(|token| ("continuation-token", token)));
        let call = Call { query: &query, ..Call::new("GET", bucket, "") };
        xml::page(&self.ask(&call, &[])?).map_err(|error| self.story(&call, error))
    }

    /// Deletes an object; one that is not there is fine.
    ///
    /// # Errors
    /// The bucket is not there, the storage refuses, or the connection breaks for good.
    pub fn delete(&self, bucket: &str, key: &str) -> Result<()> {
        self.check_names(bucket, key)?;
        self.send(&Call::new("DELETE", bucket, key), &Payload::Bytes(&[])).map(drop)
    }

    /// Deletes objects, 1000 with one request; those that are not there are fine.
    ///
    /// # Errors
    /// Of the first that the storage refused to delete, with the number of all such in its request; those of later
    /// requests are left. Or the bucket is not there, or the connection breaks for good.
    pub fn delete_many(&self, bucket: &str, keys: &[&str]) -> Result<()> {
        self.check_bucket(bucket)?;
        let (many, single): (Vec<&str>, Vec<&str>) = keys.iter().partition(|key| xml::can_say(key));
        for keys in many.chunks(MAX_DELETED) {
            self.delete_chunk(bucket, keys)?;
        }
        single.iter().try_for_each(|key| self.delete(bucket, key))
    }

    fn delete_chunk(&self, bucket: &str, keys: &[&str]) -> Result<()> {
        keys.iter().try_for_each(|key| self.check_names(bucket, key))?;
        let body = xml::deletion(keys);
        let checksum = STANDARD.encode(Md5::digest(body.as_bytes()));
        let headers = [("content-md5", checksum.as_str()), ("content-type", "application/xml")];
        let call = Call { query: &[("delete", "")], headers: &headers, ..Call::new("POST", bucket, "") };
        let answer = self.ask(&call, body.as_bytes())?;
        let mut faults = xml::deletion_faults(&answer).map_err(|error| self.story(&call, error))?;
        faults.retain(|fault| fault.code != "NoSuchKey");
        let Some(first) = faults.first() else { return Ok(()) };
        Err(self.story(
            &call,
            Error::new(format!(
                "{} of {} objects were not deleted, the first of them `{}`: {}, {}",
                faults.len(),
                keys.len(),
                first.key,
                first.code,
                first.message
            )),
        ))
    }

    /// Deletes all objects of a bucket whose keys begin with `prefix`; with an empty one, all.
    ///
    /// # Errors
    /// As of [`S3Client::list`] and [`S3Client::delete_many`].
    pub fn clean_bucket(&self, bucket: &str, prefix: &str) -> Result<()> {
        let objects = self.list(bucket, prefix)?;
        let keys: Vec<&str> = objects.iter().map(|object| object.key.as_str()).collect();
        self.delete_many(bucket, &keys)?;
        // Where keys are files, the folders of those that are gone may stay as objects that only a request of their own
        // removes, and then show the folders that they are in.
        let mut left = Vec::new();
        loop {
            let before = std::mem::replace(&mut left, self.list(bucket, prefix)?);
            left.retain(|object| object.key.ends_with('/'));
            if left.is_empty() || left == before {
                return Ok(());
            }
            left.iter().try_for_each(|folder| self.delete(bucket, &folder.key))?;
        }
    }

    /// A request with an empty name would be one about something larger.
    fn check_names(&self, bucket: &str, key: &str) -> Result<()> {
        self.check_bucket(bucket)?;
        if key.is_empty() {
            return Err(Error::usage(format!(
                "an object in bucket `{bucket}` needs a key that is not empty"
            )));
        }
        Ok(())
    }

    fn check_bucket(&self, bucket: &str) -> Result<()> {
        if bucket.is_empty() || bucket.starts_with('.') || bucket.contains('/') {
            return Err(Error::usage(format!(
                "`{bucket}` is no name of a bucket: write 3 to 63 lower-case letters, digits and hyphens"
            )));
        }
        Ok(())
    }

    fn length(&self, call: &Call<'_>, answer: &Answer) -> Result<u64> {
        let length = header(answer, "content-length").and_then(|length| length.parse().ok());
        let missing = || Error::with_kind(Kind::Other, "the storage did not say how large it is");
        length.ok_or_else(|| self.story(call, missing()))
    }
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers().get(name).and_then(|value| value.to_str().ok())
}

/// Copies a body to a file; what broke the body, and not the file, goes to `broken`.
fn copy(
    body: &mut impl Read,
    target: &mut File,
    broken: &mut Option<io::Error>,
    size_bytes: u64,
) -> io::Result<()> {
    let failed = || io::Error::other("the content did not arrive");
    let mut buffer = vec![0; 128 << 10];
    let mut copied = 0;
    loop {
        let read = body.read(&mut buffer).map_err(|error| {
            *broken = Some(error);
            failed()
        })?;
        if read == 0 {
            break;
        }
        target.write_all(&buffer[..read])?;
        copied += read as u64;
    }
    whole(copied, size_bytes).map_err(|error| {
        *broken = Some(error);
        failed()
    })
}

/// Says whether as much has arrived as was promised.
fn whole(arrived: u64, promised: u64) -> io::Result<()> {
    if arrived == promised {
        return Ok(());
    }
    let why = format!("{arrived} of {promised} bytes arrived");
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(address: &str) -> S3Options {
        S3Options {
            address: address.to_string(),
            access_key: "who".to_string(),
            secret_key: "hush".to_string(),
            region: "us-east-1".to_string(),
        }
    }

    #[test]
    fn an_address_is_of_plain_http_and_the_secret_is_not_shown() {
        for address in ["127.0.0.1:9000", "http://127.0.0.1:9000/"] {
            let client = S3Client::new(options(address), &Cancel::new()).unwrap();
            assert_eq!(client.address, "127.0.0.1:9000");
            assert!(!format!("{client:?}").contains("hush"));
        }
        for address in ["https://127.0.0.1:9000", "", "a b", "me@host"] {
            assert!(S3Client::new(options(address), &Cancel::new()).unwrap_err().is_usage(), "{address}");
        }
    }

    #[test]
    fn an_empty_name_is_refused_before_anything_is_sent() {
        let client = S3Client::new(options("127.0.0.1:1"), &Cancel::new()).unwrap();
        assert!(client.delete("bucket", "").unwrap_err().is_usage());
        assert!(client.delete_many("bucket", &["a", ""]).unwrap_err().is_usage());
        assert!(client.remove_bucket("").unwrap_err().is_usage());
        assert!(client.put_bytes("a/b", "c", b"").unwrap_err().is_usage());
    }
}
