//! JSON as generators write it: numbers keep the digits they were written with, keys their order, and what Python's
//! `json` writes beyond the standard is read and said.

use std::fmt;

use indexmap::IndexMap;
use serde::de::Error as _;
use serde::ser::{Error as _, SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// Values nested deeper than this are refused: documents of a store hold them a few levels further down.
const DEEPEST: usize = 100;
/// Remarks on one document that are kept.
const MOST_REMARKS: usize = 20;

/// The members of an object, in their order.
pub type Object = IndexMap<String, Json>;

/// A JSON value.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Json {
    /// `null`
    #[default]
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as it was written.
    Number(Number),
    /// A text.
    String(String),
    /// `[…]`
    Array(Vec<Json>),
    /// `{…}`
    Object(Object),
}

/// A number as it was written, of any size and precision. Two are equal if they were written alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Number(String);

impl Number {
    /// The nearest float; `None` if there is no finite one.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        self.0.parse().ok().filter(|value: &f64| value.is_finite())
    }

    /// Its value if it was written as an integer of at most 128 bits.
    #[must_use]
    pub fn as_i128(&self) -> Option<i128> {
        self.0.parse().ok()
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A document that was read, with what was odd about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The value.
    pub value: Json,
    /// What is not JSON in it and was read all the same, each with its place.
    pub remarks: Vec<String>,
}

impl Json {
    /// Reads a file's bytes: UTF-8, with or without a byte order mark.
    ///
    /// What Python's `json` writes beyond the standard is read with a remark: `NaN` and `Infinity` as null, of members
    /// of one name the last, a surrogate without its other half (and bytes that are no UTF-8) as U+FFFD.
    ///
    /// # Errors
    /// In words, if it is no such text.
    pub fn parse(bytes: &[u8]) -> Result<Parsed, String> {
        let mut remarks = Vec::new();
        let text = decode(bytes, &mut remarks)?;
        let mut parser = Parser { text: &text, at: 0, path: Vec::new(), remarks };
        let value = parser.document()?;
        let mut remarks = parser.remarks;
        if remarks.len() > MOST_REMARKS {
            let more = remarks.len() - MOST_REMARKS;
            remarks.truncate(MOST_REMARKS);
            remarks.push(format!("and {more} more oddities"));
        }
        Ok(Parsed { value, remarks })
    }

    /// Whether it is `null`.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The nearest finite float, if it is a number.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Number(number) => number.as_f64(),
            _ => None,
        }
    }

    /// The integer, also if written as `3.0`.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)]
    pub fn as_integer(&self) -> Option<i128> {
        let Self::Number(number) = self else { return None };
        // Beyond that, a float does not say which integer was meant.
        let exact = |float: &f64| float.fract() == 0.0 && float.abs() < 9e15;
        number.as_i128().or_else(|| number.as_f64().filter(exact).map(|float| float as i128))
    }

    /// The items, if it is an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The members, if it is an object.
    #[must_use]
    pub const fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The value of a member, if it is an object that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_object()?.get(key)
    }

    /// As `serde_json` has it: numbers lose what does not fit into 64 bits.
    #[must_use]
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// As text with indentation.
    #[must_use]
    pub fn to_pretty(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default() // always serialises
    }
}

/// As compact text.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl From<serde_json::Value> for Json {
    fn from(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(value),
            serde_json::Value::Number(number) => Self::Number(Number(number.to_string())),
            serde_json::Value::String(text) => Self::String(text),
            serde_json::Value::Array(items) => Self::Array(items.into_iter().map(Self::from).collect()),
            serde_json::Value::Object(members) => {
                Self::Object(members.into_iter().map(|(key, value)| (key, value.into())).collect())
            }
        }
    }
}

impl From<i128> for Json {
    fn from(value: i128) -> Self {
        Self::Number(Number(value.to_string()))
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => {
                RawValue::from_string(number.0.clone()).map_err(S::Error::custom)?.serialize(serializer)
            }
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(items) => {
                let mut array = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| array.serialize_element(item))?;
                array.end()
            }
            Self::Object(members) => {
                let mut object = serializer.serialize_map(Some(members.len()))?;
                members.iter().try_for_each(|(key, value)| object.serialize_entry(key, value))?;
                object.end()
            }
        }
    }
}

/// From `serde_json` alone.
impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::parse(raw.get().as_bytes()).map(|parsed| parsed.value).map_err(D::Error::custom)
    }
}

/// Floats as text that gives back their very value, for `#[serde(with)]`: `serde_json` reads some of them as their
/// neighbour, and writes what is not finite as null.
pub(crate) mod exact {
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::value::RawValue;

    #[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if !value.is_finite() {
            return serializer.collect_str(value);
        }
        let text = serde_json::to_string(value).map_err(S::Error::custom)?;
        RawValue::from_string(text).map_err(S::Error::custom)?.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        raw.get().trim_matches('"').parse().map_err(D::Error::custom)
    }

    /// The same, of what may be unknown.
    pub mod option {
        use super::{Deserialize, Deserializer, Serialize, Serializer};

        #[derive(Serialize, Deserialize)]
        struct Exact(#[serde(with = "super")] f64);

        #[allow(clippy::ref_option, clippy::trivially_copy_pass_by_ref)] // as serde calls it
        pub fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
            value.map(Exact).serialize(serializer)
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
            Ok(Option::<Exact>::deserialize(deserializer)?.map(|Exact(value)| value))
        }
    }
}

/// The text of a file; the error says what it is instead.
fn decode<'a>(bytes: &'a [u8], remarks: &mut Vec<String>) -> Result<std::borrow::Cow<'a, str>, String> {
    let start = &bytes[..bytes.len().min(4)];
    let has_zeros = start.contains(&0) && start.iter().any(|byte| *byte != 0);
    if has_zeros || start.starts_with(&[0xFF, 0xFE]) || start.starts_with(&[0xFE, 0xFF]) {
        return Err("it is UTF-16 or UTF-32, as some editors and PowerShell's `>` write; save it as UTF-8".into());
    }
    let text = match bytes.strip_prefix(b"\xEF\xBB\xBF") {
        Some(text) => {
            remarks.push("it begins with a byte order mark, which is skipped".into());
            text
        }
        None => bytes,
    };
    let decoded = String::from_utf8_lossy(text);
    if let std::borrow::Cow::Owned(_) = decoded {
        remarks.push("it has bytes that are not UTF-8; they are read as U+FFFD".into());
    }
    Ok(decoded)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// Keys and places of the value that is read.
    path: Vec<String>,
    remarks: Vec<String>,
}

impl Parser<'_> {
    fn document(&mut self) -> Result<Json, String> {
        let value = self.value()?;
        self.skip_space();
        match self.rest().chars().next() {
            None => Ok(value),
            Some(found) => self.error(&format!("expected the end, found {found:?}")),
        }
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    /// Skips space and takes `token` if it is next.
    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        let is_next = self.rest().starts_with(token);
        if is_next {
            self.at += token.len();
        }
        is_next
    }

    fn value(&mut self) -> Result<Json, String> {
        if self.path.len() > DEEPEST {
            return self.error(&format!("values are nested deeper than {DEEPEST}"));
        }
        if self.take("{") {
            return self.object();
        }
        if self.take("[") {
            return self.array();
        }
        if self.take("\"") {
            return self.string().map(Json::String);
        }
        for (word, value) in [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))] {
            if self.take(word) {
                return Ok(value);
            }
        }
        for word in ["NaN", "Infinity", "-Infinity"] {
            if self.take(word) {
                self.remark(&format!("is {word}, which is no value: it is taken as unknown"));
                return Ok(Json::Null);
            }
        }
        let len = number_len(self.rest());
        match self.rest().chars().next() {
            _ if len > 0 => {
                let number = Number(self.rest()[..len].to_owned());
                self.at += len;
                Ok(Json::Number(number))
            }
            Some(found) => self.error(&format!("expected a value, found {found:?}")),
            None => self.error("expected a value, found the end"),
        }
    }

    fn object(&mut self) -> Result<Json, String> {
        let mut members = Object::new();
        if self.take("}") {
            return Ok(Json::Object(members));
        }
        loop {
            if !self.take("\"") {
                return self.error("expected a key in quotes");
            }
            let key = self.string()?;
            if !self.take(":") {
                return self.error("expected `:` behind the key");
            }
            self.path.push(key.clone());
            let value = self.value()?;
            if members.contains_key(&key) {
                self.remark("is there more than once: the last one counts");
            }
            self.path.pop();
            members.insert(key, value);
            if self.take("}") {
                return Ok(Json::Object(members));
            }
            if !self.take(",") {
                return self.error("expected `,` or `}` behind the value");
            }
        }
    }

    fn array(&mut self) -> Result<Json, String> {
        let mut items = Vec::new();
        if self.take("]") {
            return Ok(Json::Array(items));
        }
        loop {
            self.path.push(items.len().to_string());
            items.push(self.value()?);
            self.path.pop();
            if self.take("]") {
                return Ok(Json::Array(items));
            }
            if !self.take(",") {
                return self.error("expected `,` or `]` behind the value");
            }
        }
    }

    /// A text, behind its opening quote.
    fn string(&mut self) -> Result<String, String> {
        let mut text = String::new();
        loop {
            let plain = self.rest().find(['"', '\\']);
            let Some(plain) = plain else { return self.error("a text is not closed: expected `\"`") };
            text.push_str(&self.text[self.at..self.at + plain]);
            self.at += plain + 1;
            if self.text.as_bytes()[self.at - 1] == b'"' {
                return Ok(text);
            }
            let Some(escaped) = self.rest().chars().next() else { return self.error("a text is not closed") };
            self.at += escaped.len_utf8();
            text.push(match escaped {
                '"' | '\\' | '/' => escaped,
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => self.escaped_character()?,
                other => return self.error(&format!("`\\{other}` is no escape")),
            });
        }
    }

    /// The character of `\uXXXX`, behind the `u`; of two surrogates, the one they make.
    fn escaped_character(&mut self) -> Result<char, String> {
        let high = self.hex()?;
        if let Some(character) = char::from_u32(high) {
            return Ok(character);
        }
        let before = self.at;
        if high < 0xDC00 && self.rest().starts_with("\\u") {
            self.at += 2;
            let low = self.hex()?;
            if (0xDC00..0xE000).contains(&low)
                && let Some(character) = char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00))
            {
                return Ok(character);
            }
            self.at = before;
        }
        self.remark(&format!("has half a character (\\u{high:04x}), which is read as U+FFFD"));
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hex(&mut self) -> Result<u32, String> {
        let digits = self.rest().get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let Some(code) = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) else {
            return self.error("expected four hexadecimal digits behind `\\u`");
        };
        self.at += 4;
        Ok(code)
    }

    fn remark(&mut self, what: &str) {
        let place = if self.path.is_empty() { "it".to_owned() } else { format!("key `{}`", self.path.join(".")) };
        self.remarks.push(format!("{place} {what}"));
    }

    fn error<T>(&self, what: &str) -> Result<T, String> {
        let before = &self.text[..self.at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
        Err(format!("{what} at line {line} column {column}"))
    }
}

/// Bytes of the number that a text begins with, by JSON's grammar; 0 if there is none.
fn number_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let sign = usize::from(text.starts_with('-'));
    let whole = digits(sign);
    if whole == 0 || (whole > 1 && bytes[sign] == b'0') {
        return 0;
    }
    let mut len = sign + whole;
    if bytes.get(len) == Some(&b'.') {
        let fraction = digits(len + 1);
        if fraction == 0 {
            return 0;
        }
        len += 1 + fraction;
    }
    if matches!(bytes.get(len), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(len + 1), Some(b'+' | b'-')));
        let exponent = digits(len + 1 + sign);
        if exponent == 0 {
            return 0;
        }
        len += 1 + sign + exponent;
    }
    len
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Parsed {
        Json::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn numbers_come_back_digit_for_digit() {
        let text = concat!(
            r#"{"a":18446744073709551616,"b":-0.10,"c":1E400,"d":123456789012345678901234567890,"#,
            r#""e":0.1000000000000000055,"f":1e-05}"#
        );
        let json = parsed(text).value;
        assert_eq!(json.to_string(), text);
        assert_eq!(serde_json::from_str::<Json>(text).unwrap(), json);
        assert_eq!((json.get("c").unwrap().as_f64(), json.get("b").unwrap().as_f64()), (None, Some(-0.1)));
        assert_eq!(json.get("a").unwrap().as_integer(), Some(1 << 64));
        assert_eq!(
            parsed("[3.0, 1e2, 1.5, 1e300]").value.as_array().map(|items| items.iter().map(Json::as_integer).collect()),
            Some(vec![Some(3), Some(100), None, None])
        );
    }

    #[test]
    fn what_python_writes_beyond_the_standard_is_read_and_said() {
        let odd = parsed(
            r#"{"cfg": NaN, "deep": {"x": [1, -Infinity]}, "a": 1, "s": "x\ud83dy", "a": 2, "ok": "\ud83d\ude00"}"#,
        );
        assert!(odd.value.get("cfg").unwrap().is_null());
        assert_eq!(odd.value.get("a").unwrap().as_integer(), Some(2));
        assert_eq!(odd.value.get("s").unwrap().as_str(), Some("x\u{fffd}y"));
        assert_eq!(odd.value.get("ok").unwrap().as_str(), Some("😀"));
        assert_eq!(odd.remarks.len(), 4, "{:?}", odd.remarks);
        assert!(odd.remarks[0].contains("`cfg` is NaN") && odd.remarks[1].contains("`deep.x.1` is -Infinity"));
        assert!(odd.remarks[2].contains("`s` has half") && odd.remarks[3].contains("`a` is there more than once"));
        let marked = Json::parse(b"\xEF\xBB\xBF{}").unwrap();
        assert!(marked.remarks[0].contains("byte order mark"));
        let latin = Json::parse(b"{\"prompt\": \"caf\xe9\"}").unwrap();
        assert_eq!(latin.value.get("prompt").unwrap().as_str(), Some("caf\u{fffd}"));
        assert!(latin.remarks[0].contains("not UTF-8"));
    }

    #[test]
    fn what_is_no_json_is_refused_at_its_place() {
        let error = |text: &str| Json::parse(text.as_bytes()).unwrap_err();
        assert!(error("{\"a\": 1,\n \"b\" 2}").contains("line 2 column 6"), "{}", error("{\"a\": 1,\n \"b\" 2}"));
        for text in [
            "",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "01",
            "1.",
            "+1",
            ".5",
            "1e",
            "nan",
            "{} {}",
            "\"\\x\"",
            "\"\\u12g4\"",
            "'a'",
        ] {
            assert!(Json::parse(text.as_bytes()).is_err(), "{text}");
        }
        let wide: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(Json::parse(&wide).unwrap_err().contains("UTF-16"));
        assert!(error(&format!("{}1{}", "[".repeat(200), "]".repeat(200))).contains("nested"));
    }

    proptest! {
        #[test]
        fn what_serde_json_writes_is_read_as_it_is(
            text in "\\PC{0,20}", number: f64, integer: i64, depth in 0usize..5,
        ) {
            let mut value = serde_json::json!({text.clone(): [number, integer, text, null, true]});
            for _ in 0..depth {
                value = serde_json::json!({"x": value, "y": []});
            }
            let written = value.to_string();
            let read = Json::parse(written.as_bytes()).unwrap();
            prop_assert_eq!(&read.remarks, &Vec::<String>::new());
            prop_assert_eq!(read.value.to_string(), written);
            prop_assert_eq!(read.value, Json::from(value));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "[\\[\\]{}:,\"\\\\u0-9a-fNI.eE+ -]{0,40}|\\PC{0,30}") {
            let _ = Json::parse(text.as_bytes());
        }
    }
}
