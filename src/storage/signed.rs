//! What a request of either protocol needs: the host it goes to, its signature, the pause before it is sent again.

use std::time::Duration;

use ureq::http::request::Builder;
use ureq::http::{Request, Uri};

use crate::cancel::Cancel;
use crate::clock::{self, Instant};
use crate::error::{Error, Result};
use crate::sigv4::{self, Key, PathRule};

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What is to be signed, and by whom.
pub(super) struct Unsigned<'a> {
    pub(super) method: &'a str,
    /// As the header `Host` has it.
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) path_rule: PathRule,
    pub(super) query: &'a [(&'a str, &'a str)],
    /// Beside `host` and `x-amz-date`.
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) payload_hash: &'a str,
    pub(super) key: Key<'a>,
}

impl Unsigned<'_> {
    /// The request but for its body, signed for this moment.
    pub(super) fn sign(&self) -> Builder {
        let now = clock::epoch_seconds() as u64;
        let time_stamp = sigv4::time_stamp(now);
        let mut headers = vec![("host", self.host), ("x-amz-date", time_stamp.as_str())];
        headers.extend_from_slice(self.headers);
        let request = sigv4::Request {
            method: self.method,
            path: self.path,
            path_rule: self.path_rule,
            query: self.query,
            headers: &headers,
            payload_hash: self.payload_hash,
        };
        let authorization = sigv4::authorization(&request, &self.key, now);
        let query = sigv4::encode_query(self.query);
        let mark = if query.is_empty() { "" } else { "?" };
        let url = format!("http://{}{}{mark}{query}", self.host, sigv4::encode_path(self.path));
        headers.push(("authorization", &authorization));
        let request = Request::builder().method(self.method).uri(url);
        headers.into_iter().fold(request, |request, (name, value)| request.header(name, value))
    }
}

/// The `host:port` that `address` is, with or without `http://` before it; what is there is called `wanted`.
///
/// # Errors
/// A usage error, where it is none.
pub(super) fn host(address: &str, wanted: &str) -> Result<String> {
    let wrong = || {
        Error::usage(format!(
            "`{address}` is no address of {wanted}: write host:port, such as 127.0.0.1:9000, which is spoken to in plain \
             HTTP"
        ))
    };
    let host = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
    let uri: Uri = format!("http://{host}/").parse().map_err(|_| wrong())?;
    let authority = uri.authority().ok_or_else(wrong)?;
    let has_sound_port = authority.port_u16().is_some() || authority.host() == host;
    let is_whole = authority.as_str() == host && !host.contains('@') && has_sound_port;
    if is_whole && uri.path() == "/" && uri.query().is_none() { Ok(host.to_string()) } else { Err(wrong()) }
}

/// Waits as long as is due after `earlier` pauses, of which the first takes `first` and each other one twice as long as
/// the one before.
///
/// # Errors
/// `is_cancelled`, once `cancel` is triggered.
pub(super) fn pause(first: Duration, earlier: u32, cancel: &Cancel) -> Result<()> {
    let length = first.saturating_mul(2_u32.saturating_pow(earlier)).min(LONGEST_PAUSE);
    clock::wait_until(Instant::now().after(length), cancel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for address in ["127.0.0.1:8000", "http://127.0.0.1:8000", "http://127.0.0.1:8000/"] {
            assert_eq!(host(address, "tables").unwrap(), "127.0.0.1:8000");
        }
        assert_eq!(host("[::1]:80", "tables").unwrap(), "[::1]:80");
        assert_eq!(host("tables.example", "tables").unwrap(), "tables.example");
        for address in
            ["", "a b", "host:80/path", "host:80?x", "user:secret@host", "https://host", "host:port"]
        {
            assert!(host(address, "tables").unwrap_err().is_usage(), "{address}");
        }
    }
}
