//! Plain JSON as DynamoDB's attribute values, and back, with every digit of every number.
//!
//! | plain JSON | attribute value |
//! |---|---|
//! | text | `S` |
//! | number | `N`, its digits as they were written |
//! | `true`, `false` | `BOOL` |
//! | `null` | `NULL` |
//! | list | `L` |
//! | object | `M` |
//!
//! What others wrote is read as well: the sets `SS`, `NS` and `BS` as lists, and bytes (`B`) as their base64 text.
//! Those are the two that do not come back as what they were.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::error::{Error, Kind, Result};

/// How deep lists and objects may stand in one another, which is DynamoDB's own limit.
const MAX_DEPTH: usize = 32;

/// An item of a table, or the part of it that is its key: attribute by name.
pub type Item = BTreeMap<String, Value>;

/// A value of plain JSON whose numbers are what was written, not the nearest that a float can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number of any length, as JSON writes it.
    Number(Number),
    /// Text.
    Text(String),
    /// A list of values of any kinds.
    List(Vec<Value>),
    /// Values by name.
    Object(BTreeMap<String, Value>),
}

/// The text of a number, in JSON's notation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number(String);

impl Number {
    /// The number that `text` is in JSON's notation: `-12.50`, `1e7`.
    ///
    /// # Errors
    /// `text` is none.
    pub fn parse(text: &str) -> Result<Number> {
        if is_json_number(text) {
            return Ok(Number(text.to_string()));
        }
        Err(Error::new(format!("`{text}` is no number as JSON has them, such as -12.50 or 1e7")))
    }

    /// The number as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<i64> for Number {
    fn from(number: i64) -> Number {
        Number(number.to_string())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_string())
    }
}

impl From<serde_json::Value> for Value {
    /// The same value, with the digits that serde_json still has: 64-bit numbers.
    fn from(value: serde_json::Value) -> Value {
        match value {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(value),
            serde_json::Value::Number(number) => Value::Number(Number(number.to_string())),
            serde_json::Value::String(text) => Value::Text(text),
            serde_json::Value::Array(values) => Value::List(values.into_iter().map(Value::from).collect()),
            serde_json::Value::Object(values) => {
                Value::Object(values.into_iter().map(|(name, value)| (name, Value::from(value))).collect())
            }
        }
    }
}

impl Value {
    /// Reads a JSON text.
    ///
    /// # Errors
    /// It is no JSON, or deeper than the 32 levels that DynamoDB has.
    pub fn from_json(text: &str) -> Result<Value> {
        let raw: &RawValue = serde_json::from_str(text).map_err(|error| no_json(&error))?;
        from_raw(raw, MAX_DEPTH)
    }

    /// Writes it as JSON text, without blanks and with the names in order.
    pub fn to_json(&self) -> String {
        // Nothing here can fail: the names are text, and a number's text has been checked.
        serde_json::to_string(self).expect("text, lists and objects can be written")
    }
}

/// Reads an item that is a JSON object.
///
/// # Errors
/// As [`Value::from_json`], or the text is another value than an object.
pub fn item_from_json(text: &str) -> Result<Item> {
    match Value::from_json(text)? {
        Value::Object(item) => Ok(item),
        _ => Err(Error::new("an item must be a JSON object of attributes by name")),
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Number(number) => {
                let raw: &RawValue = serde_json::from_str(&number.0).map_err(serde::ser::Error::custom)?;
                raw.serialize(serializer)
            }
            Value::Text(text) => serializer.serialize_str(text),
            Value::List(values) => values.serialize(serializer),
            Value::Object(values) => values.serialize(serializer),
        }
    }
}

/// Reads `raw`, in which at most `depth` lists and objects may stand in one another.
fn from_raw(raw: &RawValue, depth: usize) -> Result<Value> {
    let text = raw.get().trim_ascii();
    let deeper = || depth.checked_sub(1).ok_or_else(too_deep);
    Ok(match text.as_bytes().first() {
        Some(b'n') => Value::Null,
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'"') => Value::Text(serde_json::from_str(text).map_err(|error| no_json(&error))?),
        Some(b'[') => {
            let depth = deeper()?;
            let values: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| no_json(&error))?;
            Value::List(values.into_iter().map(|value| from_raw(value, depth)).collect::<Result<_>>()?)
        }
        Some(b'{') => {
            let depth = deeper()?;
            let values: BTreeMap<String, &RawValue> =
                serde_json::from_str(text).map_err(|error| no_json(&error))?;
            let named = values.into_iter().map(|(name, value)| Ok((name, from_raw(value, depth)?)));
            Value::Object(named.collect::<Result<_>>()?)
        }
        _ => Value::Number(Number::parse(text)?),
    })
}

fn too_deep() -> Error {
    Error::new(format!("lists and objects stand deeper in one another than {MAX_DEPTH} levels"))
}

fn no_json(error: &serde_json::Error) -> Error {
    Error::new(format!("failed to read a value as JSON: {error}"))
}

/// A value as DynamoDB's protocol has it: `{"N": "12"}`.
///
/// Source: *AttributeValue* in the DynamoDB API reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Attribute {
    S(String),
    N(String),
    Bool(bool),
    Null(bool),
    L(Vec<Attribute>),
    M(BTreeMap<String, Attribute>),
    B(String),
    Ss(Vec<String>),
    Ns(Vec<String>),
    Bs(Vec<String>),
}

/// An item as the protocol has it.
pub(crate) type Attributes = BTreeMap<String, Attribute>;

/// What is sent for `item`.
pub(crate) fn to_attributes(item: &Item) -> Attributes {
    item.iter().map(|(name, value)| (name.clone(), to_attribute(value))).collect()
}

/// What is sent for `value`.
pub(crate) fn to_attribute(value: &Value) -> Attribute {
    match value {
        Value::Null => Attribute::Null(true),
        Value::Bool(value) => Attribute::Bool(*value),
        Value::Number(number) => Attribute::N(number.0.clone()),
        Value::Text(text) => Attribute::S(text.clone()),
        Value::List(values) => Attribute::L(values.iter().map(to_attribute).collect()),
        Value::Object(values) => Attribute::M(to_attributes(values)),
    }
}

/// What an item that came means.
///
/// # Errors
/// One of its numbers is none.
pub(crate) fn from_attributes(attributes: Attributes) -> Result<Item> {
    let named = attributes.into_iter().map(|(name, attribute)| match from_attribute(attribute) {
        Ok(value) => Ok((name, value)),
        Err(error) => Err(error.context(format!("attribute `{name}`"))),
    });
    named.collect()
}

fn from_attribute(attribute: Attribute) -> Result<Value> {
    let texts = |texts: Vec<String>| Value::List(texts.into_iter().map(Value::Text).collect());
    Ok(match attribute {
        Attribute::S(text) | Attribute::B(text) => Value::Text(text),
        Attribute::N(text) => Value::Number(told_number(&text)?),
        Attribute::Bool(value) => Value::Bool(value),
        Attribute::Null(_) => Value::Null,
        Attribute::L(values) => Value::List(values.into_iter().map(from_attribute).collect::<Result<_>>()?),
        Attribute::M(values) => Value::Object(from_attributes(values)?),
        Attribute::Ss(values) | Attribute::Bs(values) => texts(values),
        Attribute::Ns(values) => {
            let numbers = values.iter().map(|text| told_number(text).map(Value::Number));
            Value::List(numbers.collect::<Result<_>>()?)
        }
    })
}

/// A number that a table told, in JSON's notation.
///
/// Engines write numbers as they like: `+1`, `.5`, `007` and `1E+2` mean what they seem to.
fn told_number(text: &str) -> Result<Number> {
    if is_json_number(text) {
        return Ok(Number(text.to_string()));
    }
    let (sign, magnitude) = match text.strip_prefix('-') {
        Some(magnitude) => ("-", magnitude),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let exponent_at = magnitude.find(['e', 'E']).unwrap_or(magnitude.len());
    let (mantissa, exponent) = magnitude.split_at(exponent_at);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let has_digits = !whole.is_empty() || !fraction.is_empty();
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if fraction.is_empty() { "" } else { "." };
    let written = format!("{sign}{whole}{point}{fraction}{exponent}");
    if has_digits && is_json_number(&written) {
        return Ok(Number(written));
    }
    Err(Error::with_kind(Kind::Other, format!("the table holds the number `{text}`, which is none")))
}

/// Is `text` a number by RFC 8259, section 6?
fn is_json_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let magnitude = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match magnitude.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (magnitude, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a table would hold after `json` was written into it.
    fn sent(json: &str) -> String {
        serde_json::to_string(&to_attribute(&Value::from_json(json).unwrap())).unwrap()
    }

    /// What `attribute` is read as.
    fn read(attribute: &str) -> Result<String> {
        let attribute: Attribute = serde_json::from_str(attribute).unwrap();
        from_attribute(attribute).map(|value| value.to_json())
    }

    #[test]
    fn every_kind_of_value_is_sent_with_its_type_and_read_back() {
        let json = r#"{"a":["x",1,{"b":null}],"c":true,"d":"é \"\n\u0000","e":[],"f":{},"g":false}"#;
        let attribute = concat!(
            r#"{"M":{"a":{"L":[{"S":"x"},{"N":"1"},{"M":{"b":{"NULL":true}}}]},"c":{"BOOL":true},"#,
            r#""d":{"S":"é \"\n\u0000"},"e":{"L":[]},"f":{"M":{}},"g":{"BOOL":false}}}"#
        );
        assert_eq!(sent(json), attribute);
        assert_eq!(read(attribute).unwrap(), json);
        assert_eq!(sent(" [ 1 , \t{ \"a\" : 2 } ] \n"), r#"{"L":[{"N":"1"},{"M":{"a":{"N":"2"}}}]}"#);
    }

    #[test]
    fn numbers_keep_all_their_digits() {
        for number in [
            "12345678901234567890123456789012345678",
            "0.1000000000000000055511151231257827",
            "-0",
            "1.10",
            "1e125",
            "-1.5E-130",
            "9007199254740993",
        ] {
            assert_eq!(sent(number), format!(r#"{{"N":"{number}"}}"#));
            assert_eq!(read(&format!(r#"{{"N":"{number}"}}"#)).unwrap(), number);
        }
    }

    #[test]
    fn numbers_that_json_writes_otherwise_are_read_as_what_they_mean() {
        for (told, means) in [
            ("+1", "1"),
            (".5", "0.5"),
            ("-.5", "-0.5"),
            ("007", "7"),
            ("000", "0"),
            ("1.", "1"),
            ("1.e+2", "1e+2"),
        ] {
            assert_eq!(read(&format!(r#"{{"N":"{told}"}}"#)).unwrap(), means, "{told}");
        }
        for told in ["", "NaN", "-", ".", "1e", "1_0", "--1", "0x1", "Infinity", "e5", "1 "] {
            let error = read(&format!(r#"{{"N":"{told}"}}"#)).unwrap_err().to_string();
            assert!(error.contains(&format!("`{told}`")), "{error}");
        }
    }

    #[test]
    fn a_number_can_be_made_of_json_notation_only() {
        assert_eq!(Number::parse("1e7").unwrap().as_str(), "1e7");
        assert_eq!(Number::from(-5).as_str(), "-5");
        for text in ["", "01", "+1", "1.", ".1", "1e", "nan", "1]"] {
            assert!(Number::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sets_are_read_as_lists_and_bytes_as_their_base64() {
        assert_eq!(read(r#"{"SS":["a","b"]}"#).unwrap(), r#"["a","b"]"#);
        assert_eq!(read(r#"{"NS":["1","+2.50"]}"#).unwrap(), "[1,2.50]");
        assert_eq!(read(r#"{"BS":["AAE="]}"#).unwrap(), r#"["AAE="]"#);
        assert_eq!(read(r#"{"B":"AAE="}"#).unwrap(), r#""AAE=""#);
    }

    #[test]
    fn a_value_of_serde_json_is_taken_as_it_is() {
        let json = r#"{"a":[1,-2,2.5,1e300,18446744073709551615],"b":null,"c":true,"d":"x"}"#;
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        let written = Value::from(value.clone()).to_json();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&written).unwrap(), value);
        assert!(written.contains("18446744073709551615"), "{written}");
    }

    #[test]
    fn what_is_no_json_or_too_deep_is_refused() {
        for text in ["", "{", "[1,]", "nul", "\"a", "1 2", "{\"a\":01}", "NaN"] {
            assert!(Value::from_json(text).is_err(), "{text}");
        }
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(Value::from_json(&nested(MAX_DEPTH)).is_ok());
        assert!(Value::from_json(&nested(MAX_DEPTH + 1)).unwrap_err().to_string().contains("32 levels"));
        assert!(Value::from_json(&nested(100_000)).is_err());
        assert!(item_from_json("[]").is_err());
        assert_eq!(item_from_json(r#"{"a":1}"#).unwrap()["a"], Value::Number(Number::from(1)));
    }

    #[test]
    fn the_deepest_value_is_read_back() {
        let nested = format!("{}1{}", r#"{"a":["#.repeat(16), "]}".repeat(16));
        assert_eq!(read(&sent(&nested)).unwrap(), nested);
    }
}
