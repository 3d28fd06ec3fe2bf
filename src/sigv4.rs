//! AWS Signature Version 4: the `Authorization` header as a pure function of request, key and time.
//!
//! Each step of the
//! [AWS documentation](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html) is a
//! function of its own: [`canonical_request`], [`string_to_sign`], [`signing_key`], [`authorization`].

use std::collections::BTreeMap;
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::{clock, units};

/// The payload hash of a request whose body is not signed, as S3 allows.
pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// How a service wants paths to be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathRule {
    /// S3: the path is given as it is meant, and encoded once, as it is also sent ([`encode_path`]). A key may hold
    /// `//` and `..`.
    S3,
    /// Every other service: the path is given as it is sent; `//`, `.` and `..` are resolved, and it is encoded again.
    Normalized,
}

/// What is signed of a request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `GET`, `PUT`, …
    pub method: &'a str,
    /// Begins with `/`; see [`PathRule`].
    pub path: &'a str,
    /// How `path` is to be signed.
    pub path_rule: PathRule,
    /// Names and values as they are meant, not encoded, in any order.
    pub query: &'a [(&'a str, &'a str)],
    /// All headers to be signed, in any order and case: `host` and `x-amz-date` at least.
    pub headers: &'a [(&'a str, &'a str)],
    /// [`hash`] of the body, or [`UNSIGNED_PAYLOAD`].
    pub payload_hash: &'a str,
}

/// Who signs, and what the signature is good for.
#[derive(Clone, Copy)]
pub struct Key<'a> {
    /// The access key id, which is no secret.
    pub access: &'a str,
    /// The secret key; not part of what `Debug` shows.
    pub secret: &'a str,
    /// `us-east-1`, …
    pub region: &'a str,
    /// `s3`, `dynamodb`, …
    pub service: &'a str,
}

impl fmt::Debug for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("access", &self.access)
            .field("region", &self.region)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

/// The value of the header `Authorization`, for a moment in seconds since 1970-01-01 UTC, which the header `x-amz-date`
/// of the request tells as [`time_stamp`] writes it.
pub fn authorization(request: &Request<'_>, key: &Key<'_>, epoch_seconds: u64) -> String {
    let text = string_to_sign(&canonical_request(request), key, epoch_seconds);
    let signature = units::hexadecimal(&keyed_hash(&signing_key(key, epoch_seconds), &text));
    format!(
        "{ALGORITHM} Credential={}/{}, SignedHeaders={}, Signature={signature}",
        key.access,
        scope(key, epoch_seconds),
        signed_headers(&canonical_headers(request.headers)),
    )
}

/// The request in the one form that both sides make of it.
pub fn canonical_request(request: &Request<'_>) -> String {
    let path = match request.path_rule {
        PathRule::S3 => encode_path(request.path),
        PathRule::Normalized => encode_path(&normalized(request.path)),
    };
    let headers = canonical_headers(request.headers);
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let query = encode_query(request.query);
    let names = signed_headers(&headers);
    format!("{}\n{path}\n{query}\n{lines}\n{names}\n{}", request.method, request.payload_hash)
}

/// What is signed: the hash of a [`canonical_request`], with the moment and what the key is good for.
pub fn string_to_sign(canonical_request: &str, key: &Key<'_>, epoch_seconds: u64) -> String {
    let hash = hash(canonical_request.as_bytes());
    format!("{ALGORITHM}\n{}\n{}\n{hash}", time_stamp(epoch_seconds), scope(key, epoch_seconds))
}

/// The key of a day, which signs the [`string_to_sign`].
pub fn signing_key(key: &Key<'_>, epoch_seconds: u64) -> [u8; 32] {
    let date = keyed_hash(format!("AWS4{}", key.secret).as_bytes(), &day(epoch_seconds));
    let region = keyed_hash(&date, key.region);
    keyed_hash(&keyed_hash(&region, key.service), "aws4_request")
}

/// The value of the header `x-amz-date`: `20130524T000000Z`.
pub fn time_stamp(epoch_seconds: u64) -> String {
    clock::stamp(epoch_seconds as f64)
}

/// SHA-256 of a body, in hexadecimal: the value of the header `x-amz-content-sha256`.
pub fn hash(body: &[u8]) -> String {
    units::hexadecimal(&Sha256::digest(body))
}

/// A path with all but letters, digits, `-`, `.`, `_`, `~` and `/` as `%XX`.
pub fn encode_path(path: &str) -> String {
    encode(path, "-._~/")
}

/// A query without its `?`: names and values encoded, sorted by them.
pub fn encode_query(query: &[(&str, &str)]) -> String {
    let encoded = |text| encode(text, "-._~");
    let mut pairs: Vec<_> = query.iter().map(|(name, value)| (encoded(name), encoded(value))).collect();
    pairs.sort();
    let pairs: Vec<_> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

fn encode(text: &str, kept: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || kept.as_bytes().contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// A path without `//`, `.` and `..` (RFC 3986, 5.2.4).
fn normalized(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    let ends_in_slash = path.ends_with('/') && !parts.is_empty();
    format!("/{}{}", parts.join("/"), if ends_in_slash { "/" } else { "" })
}

/// Names in lower case, sorted; values trimmed, with single spaces, and joined where a name comes more than once.
fn canonical_headers(headers: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut canonical: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
        canonical
            .entry(name.to_ascii_lowercase())
            .and_modify(|values| {
                values.push(',');
                values.push_str(&value);
            })
            .or_insert(value);
    }
    canonical
}

fn signed_headers(headers: &BTreeMap<String, String>) -> String {
    headers.keys().map(String::as_str).collect::<Vec<_>>().join(";")
}

fn scope(key: &Key<'_>, epoch_seconds: u64) -> String {
    format!("{}/{}/{}/aws4_request", day(epoch_seconds), key.region, key.service)
}

fn day(epoch_seconds: u64) -> String {
    time_stamp(epoch_seconds).chars().take_while(|c| *c != 'T').collect()
}

fn keyed_hash(key: &[u8], text: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    /// 2015-08-30T12:36:00Z
    const SUITE_TIME: u64 = 1_440_938_160;
    /// 2013-05-24T00:00:00Z
    const S3_TIME: u64 = 1_369_353_600;

    fn suite_key(service: &str) -> Key<'_> {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        Key { access: "AKIDEXAMPLE", secret, region: "us-east-1", service }
    }

    /// The example of the AWS General Reference, "Signature Version 4 signing process".
    #[test]
    fn the_example_of_the_documentation_is_met_step_by_step() {
        let request = Request {
            method: "GET",
            path: "/",
            path_rule: PathRule::Normalized,
            query: &[("Version", "2010-05-08"), ("Action", "ListUsers")],
            headers: &[
                ("X-Amz-Date", "20150830T123600Z"),
                ("Host", "iam.amazonaws.com"),
                ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8"),
            ],
            payload_hash: &hash(b""),
        };
        let canonical = canonical_request(&request);
        assert_eq!(
            canonical,
            format!(
                "GET\n/\nAction=ListUsers&Version=2010-05-08\n\
                 content-type:application/x-www-form-urlencoded; charset=utf-8\nhost:iam.amazonaws.com\n\
                 x-amz-date:20150830T123600Z\n\ncontent-type;host;x-amz-date\n{EMPTY}"
            )
        );
        let text = string_to_sign(&canonical, &suite_key("iam"), SUITE_TIME);
        assert_eq!(
            text,
            "AWS4-HMAC-SHA256\n20150830T123600Z\n20150830/us-east-1/iam/aws4_request\n\
             f536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59"
        );
        assert_eq!(
            units::hexadecimal(&signing_key(&suite_key("iam"), SUITE_TIME)),
            "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"
        );
        assert_eq!(
            authorization(&request, &suite_key("iam"), SUITE_TIME),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, \
             Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }

    /// The examples of "Signature Calculations for the Authorization Header: Transferring Payload in a Single Chunk" of
    /// the S3 API Reference: the hash of the canonical request, and the signature.
    #[test]
    fn the_examples_of_s3_are_met() {
        let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        let key = Key { access: "AKIAIOSFODNN7EXAMPLE", secret, region: "us-east-1", service: "s3" };
        let check = |method, path, query: &[_], headers: &[_], payload: &[u8], expected: [&str; 2]| {
            let payload_hash = &hash(payload);
            let mut all = vec![
                ("Host", "examplebucket.s3.amazonaws.com"),
                ("x-amz-date", "20130524T000000Z"),
                ("x-amz-content-sha256", payload_hash),
            ];
            all.extend_from_slice(headers);
            let path_rule = PathRule::S3;
            let request = Request { method, path, path_rule, query, headers: &all, payload_hash };
            assert_eq!(hash(canonical_request(&request).as_bytes()), expected[0], "{method} {path}");
            let header = authorization(&request, &key, S3_TIME);
            assert!(header.ends_with(&format!("Signature={}", expected[1])), "{method} {path}: {header}");
        };
        check(
            "GET",
            "/test.txt",
            &[],
            &[("Range", "bytes=0-9")],
            b"",
            [
                "7344ae5b7ee6c3e7e6b0fe0640412a37625d1fbfff95c48bbb2dc43964946972",
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ],
        );
        check(
            "PUT",
            "/test$file.text",
            &[],
            &[("Date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")],
            b"Welcome to Amazon S3.",
            [
                "9e0e90d9c76de8fa5b200d8c849cd5b8dc7a3be3951ddb7f6a76b4158342019d",
                "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            ],
        );
        check(
            "GET",
            "/",
            &[("lifecycle", "")],
            &[],
            b"",
            [
                "9766c798316ff2757b517bc739a67f6213b4ab36dd5da2f94eaebf79c77395ca",
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ],
        );
        check(
            "GET",
            "/",
            &[("prefix", "J"), ("max-keys", "2")],
            &[],
            b"",
            [
                "df57d21db20da04d7fa30298dd4488ba3a2b47ca3a489c74750e0f1e7df1b9b7",
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ],
        );
    }

    /// Cases of the aws-sig-v4-test-suite, by their names in it.
    #[test]
    fn the_test_suite_is_met() {
        let check = |case, method, path, query: &[_], headers: &[_], signature| {
            let mut all = vec![("Host", "example.amazonaws.com"), ("X-Amz-Date", "20150830T123600Z")];
            all.extend_from_slice(headers);
            let path_rule = PathRule::Normalized;
            let request = Request { method, path, path_rule, query, headers: &all, payload_hash: EMPTY };
            let header = authorization(&request, &suite_key("service"), SUITE_TIME);
            assert!(header.ends_with(&format!("Signature={signature}")), "{case}: {header}");
        };
        let vanilla = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
        check("get-vanilla", "GET", "/", &[], &[], vanilla);
        check("get-slash", "GET", "//", &[], &[], vanilla);
        check("get-relative", "GET", "/example/..", &[], &[], vanilla);
        check("get-slash-dot-slash", "GET", "/./", &[], &[], vanilla);
        check(
            "post-vanilla",
            "POST",
            "/",
            &[],
            &[],
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        );
        check(
            "get-vanilla-query-order-key-case",
            "GET",
            "/",
            &[("Param2", "value2"), ("Param1", "value1")],
            &[],
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        );
        check(
            "get-header-value-trim",
            "GET",
            "/",
            &[],
            &[("My-Header1", " value1"), ("My-Header2", " \"a   b   c\"")],
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        );
        check(
            "get-utf8",
            "GET",
            "/ሴ",
            &[],
            &[],
            "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
        );
        check(
            "get-unreserved",
            "GET",
            "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
            &[],
            &[],
            "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
        );
    }

    #[test]
    fn a_path_is_resolved_and_encoded_again_but_for_s3() {
        let sent = |path, path_rule| {
            let request = Request {
                method: "GET",
                path,
                path_rule,
                query: &[],
                headers: &[],
                payload_hash: UNSIGNED_PAYLOAD,
            };
            canonical_request(&request).lines().nth(1).unwrap().to_string()
        };
        assert_eq!(sent("/b//a/../c d+%/ü", PathRule::S3), "/b//a/../c%20d%2B%25/%C3%BC");
        assert_eq!(sent("/b//a/./../c%20d/", PathRule::Normalized), "/b/c%2520d/");
    }

    #[test]
    fn the_secret_is_not_shown() {
        assert!(!format!("{:?}", suite_key("s3")).contains("wJalr"));
    }
}
