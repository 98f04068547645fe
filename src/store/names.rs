//! Names from a dump as file names: reversible, portable, never a path.

use xxhash_rust::xxh3::xxh3_128;

/// Encodings longer than this are cut.
const LONGEST: usize = 160;
/// What is kept of a cut one.
const KEPT: usize = 120;

/// Encodes a name as one path component; see "Names" in the store format.
///
/// ```
/// use attnkit::store::{decode_name, encode_name};
/// assert_eq!(encode_name("two people"), "two~20people");
/// assert_eq!(encode_name("../../x"), "~2e.~2f..~2fx");
/// assert_eq!(decode_name("two~20people").as_deref(), Some("two people"));
/// ```
#[must_use]
pub fn encode_name(name: &str) -> String {
    encode(name, true)
}

/// As [`encode_name`], but with a `_` at the start left as it is: as stores of the first versions have it.
pub(super) fn encode_name_plainly(name: &str) -> String {
    encode(name, false)
}

/// Readers of directories of Parquet files skip those whose names begin with `_` or `.`.
fn encode(name: &str, hides_underscore: bool) -> String {
    if name.is_empty() {
        return "~".into();
    }
    let is_taken = is_device(name) || name == "zarr.json";
    let last = name.len() - 1;
    let mut encoded = String::with_capacity(name.len());
    let mut cut = 0;
    for (index, byte) in name.bytes().enumerate() {
        let plain = match byte {
            b'_' if index == 0 => !hides_underscore,
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => !(is_taken && index == 0),
            b'.' => index != 0 && index != last,
            _ => false,
        };
        if plain {
            encoded.push(char::from(byte));
        } else {
            encoded.extend(['~', hex_digit(byte >> 4), hex_digit(byte & 15)]);
        }
        if encoded.len() <= KEPT {
            cut = encoded.len();
        }
    }
    if encoded.len() > LONGEST {
        return format!("{}~~{:032x}", &encoded[..cut], xxh3_128(name.as_bytes()));
    }
    encoded
}

/// Whether a name can be an encoding, of this version or an earlier one: no other file of the store is called so.
pub(super) fn is_encoded(name: &str) -> bool {
    match name.split_once("~~") {
        Some((kept, hash)) => {
            kept.len() <= KEPT
                && hash.len() == 32
                && hash.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        }
        None => {
            decode_name(name).is_some_and(|decoded| encode(&decoded, true) == name || encode(&decoded, false) == name)
        }
    }
}

fn hex_digit(digit: u8) -> char {
    char::from_digit(digit.into(), 16).unwrap_or('0')
}

/// The name behind an encoding; `None` if it was cut or is no encoding.
#[must_use]
pub fn decode_name(encoded: &str) -> Option<String> {
    if encoded == "~" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'~' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

/// Whether Windows takes the name, or what is before its first dot, for a device.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name);
    match stem.strip_prefix("com").or_else(|| stem.strip_prefix("lpt")) {
        Some(number) => matches!(number.as_bytes(), [b'0'..=b'9']),
        None => matches!(stem, "con" | "prn" | "aux" | "nul"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hostile_names_stay_one_harmless_component() {
        for name in [
            "..",
            ".",
            "/etc/passwd",
            "../../x",
            "a\\b",
            "nul",
            "zarr.json",
            "com1.txt",
            "a@b",
            "Flower",
            "naïve",
            " ",
            "x\0y",
            "a.",
            "_x",
            "__",
        ] {
            let encoded = encode_name(name);
            assert!(
                encoded.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.~".contains(&b)),
                "{encoded}"
            );
            assert!(!encoded.starts_with(['.', '_']) && !encoded.ends_with('.') && !is_device(&encoded), "{encoded}");
            assert_eq!(decode_name(&encoded).as_deref(), Some(name));
        }
        assert_ne!(encode_name("flower"), encode_name("Flower").to_lowercase());
        assert_eq!((encode_name("_x_"), encode_name_plainly("_x_")), ("~5fx_".into(), "_x_".into()));
    }

    #[test]
    fn long_names_are_cut_and_stay_distinct() {
        let (a, b) = ("é".repeat(150), "é".repeat(151));
        assert!(encode_name(&a).len() <= LONGEST);
        assert_ne!(encode_name(&a), encode_name(&b));
        assert_eq!(decode_name(&encode_name(&a)), None);
    }

    proptest! {
        #[test]
        fn encoding_is_reversible(name in "\\PC{0,13}") {
            prop_assert_eq!(decode_name(&encode_name(&name)), Some(name));
        }
    }
}
