//! What S3 says and is told in XML: answers of MinIO, SeaweedFS and AWS, and the bodies of two requests.

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;

use super::s3::ObjectSummary;
use crate::error::{Error, Result};

/// Deeper than any answer of S3.
const MAX_DEPTH: usize = 16;

/// Why the server refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fault {
    /// `NoSuchKey`, `SlowDown`, …
    pub(super) code: String,
    /// A sentence for people; may be empty.
    pub(super) message: String,
    /// The key that it is about, where many were named.
    pub(super) key: String,
}

/// A part of a list of objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) objects: Vec<ObjectSummary>,
    /// Where the next part begins; `None` in the last one.
    pub(super) next: Option<String>,
}

/// The error that an answer is, if it is one.
pub(super) fn fault(body: &[u8]) -> Option<Fault> {
    parse(body).ok().filter(|root| root.name == "Error").map(Fault::from)
}

/// The answer to `ListObjectsV2`.
pub(super) fn page(body: &[u8]) -> Result<Page> {
    let root = parse_as(body, "ListBucketResult")?;
    let is_encoded = root.text("EncodingType") == "url";
    let object = |element: &Element| {
        let size = element.text("Size");
        let size_bytes =
            size.trim().parse().map_err(|_| Error::new(format!("`{size}` is no size of an object")))?;
        let key = element.text("Key");
        let key = if is_encoded { decode(key)? } else { key.to_string() };
        Ok(ObjectSummary { key, size_bytes, etag: unquoted(element.text("ETag")) })
    };
    let objects = root.all("Contents").map(object).collect::<Result<_>>()?;
    let token = root.text("NextContinuationToken");
    let next = match root.text("IsTruncated").trim() {
        "true" if token.is_empty() => {
            return Err(Error::new("the list of objects is cut, and does not say how it goes on"));
        }
        "true" => Some(token.to_string()),
        _ => None,
    };
    Ok(Page { objects, next })
}

/// The answer to `ListBuckets`: their names.
pub(super) fn buckets(body: &[u8]) -> Result<Vec<String>> {
    let root = parse_as(body, "ListAllMyBucketsResult")?;
    let lists = root.all("Buckets");
    Ok(lists.flat_map(|list| list.all("Bucket")).map(|bucket| bucket.text("Name").to_string()).collect())
}

/// The answer to `CreateMultipartUpload`: the id of the upload.
pub(super) fn upload_id(body: &[u8]) -> Result<String> {
    let id = parse_as(body, "InitiateMultipartUploadResult")?.text("UploadId").to_string();
    if id.is_empty() { Err(Error::new("the answer names no upload")) } else { Ok(id) }
}

/// The answer to `DeleteObjects`: what was not deleted.
pub(super) fn deletion_faults(body: &[u8]) -> Result<Vec<Fault>> {
    let root = parse_as(body, "DeleteResult")?;
    Ok(root.children.into_iter().filter(|child| child.name == "Error").map(Fault::from).collect())
}

/// The body of `DeleteObjects`, which asks to be told of failures only.
pub(super) fn deletion(keys: &[&str]) -> String {
    let objects: String =
        keys.iter().map(|key| format!("<Object><Key>{}</Key></Object>", escape(key))).collect();
    format!("<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{objects}<Quiet>true</Quiet></Delete>")
}

/// The body of `CompleteMultipartUpload`, of the parts' ETags as the server gave them, the first part's first.
pub(super) fn completion(etags: &[String]) -> String {
    let part = |(index, etag): (usize, &String)| {
        format!("<Part><PartNumber>{}</PartNumber><ETag>{}</ETag></Part>", index + 1, escape(etag))
    };
    let parts: String = etags.iter().enumerate().map(part).collect();
    format!(
        "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{parts}</CompleteMultipartUpload>"
    )
}

/// The body of `CreateBucket` outside of `us-east-1`.
pub(super) fn location(region: &str) -> String {
    format!(
        "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><LocationConstraint>{}\
         </LocationConstraint></CreateBucketConfiguration>",
        escape(region)
    )
}

/// Can XML 1.0 say this key? It has no way to write most control characters.
pub(super) fn can_say(key: &str) -> bool {
    key.chars().all(|c| matches!(c, '\t' | '\n' | '\r') || (c >= ' ' && c != '\u{fffe}' && c != '\u{ffff}'))
}

/// An ETag without its quotation marks.
pub(super) fn unquoted(etag: &str) -> Option<String> {
    let etag = etag.trim().trim_matches('"');
    (!etag.is_empty()).then(|| etag.to_string())
}

/// Line ends, too, as references: a parser makes others of them.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' | '\r' => escaped.push_str(&format!("&#{};", u32::from(c))),
            _ => escaped.push(c),
        }
    }
    escaped
}

/// What `encoding-type=url` made of a key: `%XX`, and `+` for a space.
fn decode(text: &str) -> Result<String> {
    let wrong = || Error::new(format!("`{text}` is no encoded key"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let mut digit =
                    || rest.next().and_then(|digit| char::from(digit).to_digit(16)).ok_or_else(wrong);
                bytes.push((digit()? * 16 + digit()?) as u8);
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

impl From<Element> for Fault {
    fn from(element: Element) -> Fault {
        let text = |name| element.text(name).trim().to_string();
        Fault { code: text("Code"), message: text("Message"), key: element.text("Key").to_string() }
    }
}

/// One element, without its attributes and the prefix of its namespace.
#[derive(Debug, Default)]
struct Element {
    name: String,
    text: String,
    children: Vec<Element>,
}

impl Element {
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The text of the first child of that name; empty if there is none.
    fn text(&self, name: &str) -> &str {
        self.children.iter().find(|child| child.name == name).map_or("", |child| &child.text)
    }
}

fn parse_as(body: &[u8], name: &str) -> Result<Element> {
    let root = parse(body)?;
    if root.name == name {
        return Ok(root);
    }
    Err(Error::new(format!("the answer is `{}` where `{name}` was asked for", root.name)))
}

/// The root element of a document.
fn parse(body: &[u8]) -> Result<Element> {
    let wrong = |why: &str| Error::new(format!("the answer is not the XML of S3: {why}"));
    let body = std::str::from_utf8(body).map_err(|_| wrong("it is no UTF-8"))?;
    let mut reader = Reader::from_str(body);
    let mut open: Vec<Element> = Vec::new();
    loop {
        let event = reader.read_event().map_err(|error| wrong(&error.to_string()))?;
        let mut closed = None;
        match event {
            Event::Start(start) => {
                if open.len() == MAX_DEPTH {
                    return Err(wrong("it is too deep"));
                }
                let name = start.local_name().as_ref().to_owned();
                open.push(Element { name, ..Element::default() });
            }
            Event::Empty(start) => {
                closed = Some(Element { name: start.local_name().as_ref().to_owned(), ..Element::default() });
            }
            Event::End(_) => closed = open.pop(),
            Event::Text(text) => append(&mut open, &text.xml10_content()),
            Event::CData(text) => append(&mut open, &text.xml10_content()),
            Event::GeneralRef(reference) => {
                let character = reference.resolve_char_ref().map_err(|error| wrong(&error.to_string()))?;
                let name = reference.xml10_content();
                match (character, resolve_predefined_entity(&name)) {
                    (Some(character), _) => append(&mut open, character.encode_utf8(&mut [0; 4])),
                    (None, Some(text)) => append(&mut open, text),
                    (None, None) => return Err(wrong(&format!("`&{name};` means nothing"))),
                }
            }
            Event::Eof => return Err(wrong("it ends too early")),
            Event::Decl(_) | Event::PI(_) | Event::DocType(_) | Event::Comment(_) => {}
        }
        match (closed, open.last_mut()) {
            (Some(closed), Some(parent)) => parent.children.push(closed),
            (Some(root), None) => return Ok(root),
            (None, _) => {}
        }
    }
}

fn append(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str, size_bytes: u64, etag: &str) -> ObjectSummary {
        ObjectSummary { key: key.to_string(), size_bytes, etag: Some(etag.to_string()) }
    }

    #[test]
    fn a_page_of_aws_in_its_namespace_goes_on() {
        let body = br#"<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix/><MaxKeys>2</MaxKeys>
<NextContinuationToken>1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J/wm36Hy4vbOwM=</NextContinuationToken><KeyCount>2</KeyCount>
<IsTruncated>true</IsTruncated>
<Contents><Key>a &amp; b&#x2F;&lt;c&gt;.txt</Key><LastModified>2009-10-12T17:50:30.000Z</LastModified>
<ETag>&quot;fba9dede5f27731c9771645a39863328&quot;</ETag><Size>434234</Size><StorageClass>STANDARD</StorageClass></Contents>
<Contents><Key>a+b%20</Key><ETag>"x-2"</ETag><Size>0</Size></Contents></ListBucketResult>"#;
        let page = page(body).unwrap();
        assert_eq!(page.next.as_deref(), Some("1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J/wm36Hy4vbOwM="));
        let first = object("a & b/<c>.txt", 434_234, "fba9dede5f27731c9771645a39863328");
        assert_eq!(page.objects, [first, object("a+b%20", 0, "x-2")]);
    }

    #[test]
    fn encoded_keys_of_minio_and_seaweedfs_are_decoded() {
        let body = br#"<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix></Prefix><KeyCount>2</KeyCount>
<MaxKeys>1000</MaxKeys><Delimiter></Delimiter><IsTruncated>false</IsTruncated><Contents><Key>a+b%2Bc%25/%C3%BC%01</Key>
<LastModified>2025-01-01T00:00:00.000Z</LastModified><ETag>&#34;e&#34;</ETag><Size>7</Size><Owner><ID></ID></Owner></Contents>
<Contents><Key>a%20b</Key><Size>1</Size></Contents><EncodingType>url</EncodingType></ListBucketResult>"#;
        let page = page(body).unwrap();
        assert_eq!(page.next, None);
        let second = ObjectSummary { key: "a b".to_string(), size_bytes: 1, etag: None };
        assert_eq!(page.objects, [object("a b+c%/ü\u{1}", 7, "e"), second]);
    }

    #[test]
    fn a_fault_says_code_and_message() {
        let body = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>AccessDenied</Code>\
            <Message>Access Denied.</Message><Resource>/</Resource><RequestId>18EA</RequestId></Error>";
        let expected = Fault {
            code: "AccessDenied".to_string(),
            message: "Access Denied.".to_string(),
            key: String::new(),
        };
        assert_eq!(fault(body), Some(expected));
        assert_eq!(fault(b"<html><body>Bad gateway</body></html>"), None);
        assert_eq!(fault(b"404 page not found"), None);
        let body = br#"<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Deleted><Key>a</Key></Deleted>
            <Error><Key>b c</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error></DeleteResult>"#;
        let faults = deletion_faults(body).unwrap();
        assert_eq!(
            (faults.len(), faults[0].key.as_str(), faults[0].code.as_str()),
            (1, "b c", "AccessDenied")
        );
    }

    #[test]
    fn buckets_and_uploads_are_named() {
        let body = br#"<s3:ListAllMyBucketsResult xmlns:s3="http://s3.amazonaws.com/doc/2006-03-01/"><s3:Owner><s3:ID>x</s3:ID>
            </s3:Owner><s3:Buckets><s3:Bucket><s3:Name>one</s3:Name></s3:Bucket><s3:Bucket><s3:Name>two</s3:Name></s3:Bucket>
            </s3:Buckets></s3:ListAllMyBucketsResult>"#;
        assert_eq!(buckets(body).unwrap(), ["one", "two"]);
        let none = b"<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>";
        assert_eq!(buckets(none).unwrap(), Vec::<String>::new());
        let id = b"<InitiateMultipartUploadResult><Bucket>b</Bucket><UploadId><![CDATA[a&b]]></UploadId>\
            </InitiateMultipartUploadResult>";
        assert_eq!(upload_id(id).unwrap(), "a&b");
        let other = upload_id(none).unwrap_err().to_string();
        assert!(other.contains("`ListAllMyBucketsResult`"), "{other}");
    }

    #[test]
    fn what_is_no_such_xml_is_an_error() {
        let deep = "<a>".repeat(100);
        for body in ["", "no xml", "<a><b></a>", "<a>", "<a>&unknown;</a>", &deep] {
            assert!(page(body.as_bytes()).is_err(), "{body}");
        }
        let cut = b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
        assert!(page(cut).unwrap_err().to_string().contains("how it goes on"));
    }

    #[test]
    fn request_bodies_escape_what_they_hold() {
        assert!(deletion(&["a&b<\n>"]).contains("<Object><Key>a&amp;b&lt;&#10;&gt;</Key></Object>"));
        let body = completion(&["\"x\"".to_string(), "y".to_string()]);
        assert!(body.contains("<PartNumber>1</PartNumber><ETag>&quot;x&quot;</ETag>"), "{body}");
        assert!(body.contains("<PartNumber>2</PartNumber><ETag>y</ETag>"), "{body}");
        assert!(can_say("ü😀\n") && !can_say("\u{1}"));
    }
}
