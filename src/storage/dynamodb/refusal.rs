//! What an answer that is not a success says, whichever of the protocol's shapes it has.

use serde::Deserialize;

use crate::error::Kind;

/// The most characters of a server's own text that an error shows.
const MAX_TEXT_CHARS: usize = 500;

/// Secrets shorter than this are not looked for in a server's words: engines without keys use `None`.
const MIN_SECRET_BYTES: usize = 8;

/// An error that the server told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    status: u16,
    /// `ResourceNotFoundException`, without the name space before `#`; `None`: the answer has none.
    name: Option<String>,
    /// The server's words; empty if it has none.
    text: String,
}

impl Refusal {
    /// Reads the body of an answer with `status`.
    ///
    /// By the protocol it is `{"__type": "com.amazonaws.dynamodb.v20120810#Name", "message": "…"}`. Servers leave out
    /// the name space, write `Message`, or have neither name nor text; what is no JSON is taken as text.
    pub(super) fn parse(status: u16, body: &[u8]) -> Refusal {
        #[derive(Deserialize)]
        struct Told {
            #[serde(rename = "__type")]
            name: Option<String>,
            message: Option<String>,
            #[serde(rename = "Message")]
            capital_message: Option<String>,
        }
        let text = String::from_utf8_lossy(body);
        let (name, text) = match serde_json::from_str::<Told>(&text) {
            Ok(told) => (told.name, told.message.or(told.capital_message).unwrap_or_default()),
            Err(_) => (None, text.into_owned()),
        };
        let name = name.map(|name| name.rsplit('#').next().unwrap_or_default().to_string());
        // An error is one line, whatever page a server or what stands before it has sent.
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Refusal { status, name: name.filter(|name| !name.is_empty()), text }
    }

    /// What a caller can branch on.
    pub(super) fn kind(&self) -> Kind {
        match self.name.as_deref() {
            Some("ResourceNotFoundException") => Kind::NotFound,
            Some("ResourceInUseException") => Kind::Conflict,
            _ => Kind::Other,
        }
    }

    /// Did the server refuse because it has too much to do, so that nothing was done?
    pub(super) fn is_throttling(&self) -> bool {
        let name = self.name.as_deref().unwrap_or_default();
        let throttling =
            ["ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"];
        throttling.contains(&name) || self.status == 429
    }

    /// Is the server itself at fault, so that nobody knows what was done?
    pub(super) fn is_server_fault(&self) -> bool {
        self.status >= 500
    }

    /// The refusal in words: name, text and status, as far as there are any, with `secret` struck out.
    pub(super) fn sentence(&self, secret: &str) -> String {
        let status = self.status;
        let struck = match secret.len() {
            0..MIN_SECRET_BYTES => self.text.clone(),
            _ => self.text.replace(secret, "***"),
        };
        let text: String = struck.chars().take(MAX_TEXT_CHARS).collect();
        match (self.name.as_deref(), text.as_str()) {
            (Some(name), "") => format!("{name} (status {status})"),
            (Some(name), text) => format!("{name}: {text}"),
            (None, "") => format!("the server answered with status {status}"),
            (None, text) => format!("the server answered with status {status}: {text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_an_error_is_read() {
        let sentence = |body: &str| Refusal::parse(400, body.as_bytes()).sentence("");
        let name = r#""__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException""#;
        assert_eq!(
            sentence(&format!(r#"{{{name},"message":"no table"}}"#)),
            "ResourceNotFoundException: no table"
        );
        assert_eq!(
            sentence(&format!(r#"{{{name},"Message":"no table"}}"#)),
            "ResourceNotFoundException: no table"
        );
        assert_eq!(sentence(&format!("{{{name}}}")), "ResourceNotFoundException (status 400)");
        assert_eq!(
            sentence(r#"{"__type":"ValidationException","message":""}"#),
            "ValidationException (status 400)"
        );
        assert_eq!(sentence(r#"{"__type":null,"message":null}"#), "the server answered with status 400");
        assert_eq!(sentence(r#"{"message":"lost"}"#), "the server answered with status 400: lost");
        assert_eq!(sentence("<h1>\n  Bad</h1>\n"), "the server answered with status 400: <h1> Bad</h1>");
        assert_eq!(sentence("[]"), "the server answered with status 400: []");
        assert_eq!(sentence(""), "the server answered with status 400");
        assert_eq!(sentence(&"é".repeat(100_000)).chars().filter(|c| *c == 'é').count(), MAX_TEXT_CHARS);
        assert!(Refusal::parse(500, &[0xff, 0xfe]).sentence("").contains("500"));
    }

    #[test]
    fn a_secret_is_struck_out_before_the_text_is_cut() {
        let body = format!("{}my-secret-key", "x".repeat(MAX_TEXT_CHARS - 5));
        let sentence = Refusal::parse(403, body.as_bytes()).sentence("my-secret-key");
        assert!(sentence.ends_with("x***") && !sentence.contains("my-s"), "{sentence}");
        let none = Refusal::parse(400, br#"{"message":"None of these"}"#);
        assert!(none.sentence("None").ends_with("None of these"));
    }

    #[test]
    fn what_can_be_branched_on_is_known_by_name_with_and_without_its_space() {
        let kind = |name: &str| Refusal::parse(400, format!(r#"{{"__type":"{name}"}}"#).as_bytes()).kind();
        for space in ["", "com.amazonaws.dynamodb.v20120810#", "com.amazon.coral.validate#"] {
            assert_eq!(kind(&format!("{space}ResourceNotFoundException")), Kind::NotFound);
            assert_eq!(kind(&format!("{space}ResourceInUseException")), Kind::Conflict);
            assert_eq!(kind(&format!("{space}ValidationException")), Kind::Other);
        }
        assert_eq!(kind(""), Kind::Other);
    }

    #[test]
    fn a_busy_server_and_a_broken_one_are_told_apart() {
        let refusal = |status: u16, name: &str| {
            Refusal::parse(status, format!(r#"{{"__type":"x#{name}"}}"#).as_bytes())
        };
        for name in ["ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"]
        {
            assert!(refusal(400, name).is_throttling() && !refusal(400, name).is_server_fault());
        }
        assert!(refusal(500, "InternalServerError").is_server_fault());
        let invalid = refusal(400, "ValidationException");
        assert!(!invalid.is_throttling() && !invalid.is_server_fault());
    }
}
