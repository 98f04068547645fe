//! Names of words in directories and metadata: generators clean them of what file systems refuse, and may leave a
//! weight behind them.

use unicode_normalization::UnicodeNormalization;

use super::foreign::is_foreign;
use super::{Exported, StepMetadata};
use crate::prompt::{parse_weighted, places};

/// A component of a path is kept below this, the longest that file systems take being 255 bytes.
const LONGEST_COMPONENT: usize = 200;

/// A tracked word, and its weight if a name tells it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TrackedWord {
    pub word: String,
    pub weight: Option<f64>,
}

/// The text in its composed form, in which two spellings of the same characters are equal.
#[must_use]
pub fn composed(text: &str) -> String {
    text.nfc().collect()
}

/// Whether a name from metadata is the one a directory was named after: generators replace `:`, `/` and `\` by `_`.
#[must_use]
pub fn same_name(from_metadata: &str, from_directory: &str) -> bool {
    let replaced = |name: &str| composed(&name.replace([':', '/', '\\'], "_"));
    replaced(from_metadata) == replaced(from_directory)
}

/// A name as one component of a path, as generators write it: `:`, `/` and `\` become `_`. One that would be too long
/// is cut, with a fingerprint of the whole behind it; one that is hidden gets a `_` before it.
#[must_use]
pub fn as_component(name: &str) -> String {
    let mut safe = name.replace([':', '/', '\\', '\0'], "_");
    if safe.is_empty() || safe.bytes().all(|byte| byte == b'.') {
        safe = safe.replace('.', "_") + "_";
    }
    if is_foreign(safe.as_ref()) {
        // Such a directory would be taken for what systems leave.
        safe.insert(0, '_');
    }
    if safe.len() > LONGEST_COMPONENT {
        let mark = format!("~{:032x}", xxhash_rust::xxh3::xxh3_128(name.as_bytes()));
        while safe.len() + mark.len() > LONGEST_COMPONENT {
            safe.pop();
        }
        safe += &mark;
    }
    safe
}

/// What of a row the metadata's own keys do not tell, once it is in a directory `token_<as_component(word)>`.
pub(crate) fn beyond(word: &str, weight: Option<f64>, metadata: &StepMetadata) -> Exported {
    let own = recognise(&as_component(word), Some(metadata));
    let in_prompt = || {
        let variation = parse_weighted(metadata.prompt.as_deref()?).ok()?;
        variation.tokens.iter().find(|token| token.word == word).map(|token| token.weight)
    };
    let is_told = own.word == word && own.weight.is_none_or(|own| Some(own) == weight);
    Exported {
        token: (!is_told).then(|| word.to_owned()),
        weight: weight.filter(|_| !is_told || own.weight.or_else(in_prompt) != weight),
        ..Exported::default()
    }
}

/// The word that a directory `token_<name>` is for, and its weight if it is told: by what a store exported, by the name
/// together with the metadata's `token_word`, or by the name alone. Where the two speak of different words, the
/// directory counts.
pub(super) fn recognise(name: &str, metadata: Option<&StepMetadata>) -> TrackedWord {
    let prompt = metadata.and_then(|metadata| metadata.prompt.as_deref());
    if let Some(exported) = metadata.map(|metadata| &metadata.exported)
        && let Some(token) = exported.token.as_ref().filter(|token| as_component(token) == name)
    {
        return TrackedWord { word: token.clone(), weight: exported.weight };
    }
    let mut word = match metadata.and_then(|metadata| metadata.token_word.as_deref()) {
        Some(claimed) => with_claim(name, claimed, prompt),
        None => split_weight(name, prompt),
    };
    word.weight = word.weight.or(metadata.and_then(|metadata| metadata.exported.weight));
    word
}

/// The word of a directory whose metadata claims to be of `claimed`.
fn with_claim(name: &str, claimed: &str, prompt: Option<&str>) -> TrackedWord {
    if same_name(claimed, name) {
        // The directory has lost what file systems refuse.
        return split_weight(claimed, prompt);
    }
    let of_claim = split_weight(claimed, prompt);
    if same_name(&of_claim.word, name) {
        return of_claim;
    }
    let behind = [':', '_'].into_iter().filter_map(|separator| name.rsplit_once(separator));
    for (_, weight) in behind.filter(|(word, _)| same_name(claimed, word)) {
        if let Some(weight) = as_weight(weight) {
            return TrackedWord { word: claimed.to_owned(), weight: Some(weight) };
        }
    }
    split_weight(name, prompt)
}

/// `flower:2.5` is word `flower`, weight 2.5; but a ratio, a time, or what stands so in the prompt, is a word.
fn split_weight(name: &str, prompt: Option<&str>) -> TrackedWord {
    let whole = || TrackedWord { word: name.to_owned(), weight: None };
    let Some((word, weight)) = name.rsplit_once(':') else { return whole() };
    let word = word.trim_end();
    let Some(weight) = as_weight(weight.trim()).filter(|_| !word.is_empty()) else { return whole() };
    let weighted = TrackedWord { word: word.to_owned(), weight: Some(weight) };
    if let Some(prompt) = prompt
        && let Ok(variation) = parse_weighted(prompt)
    {
        if variation.tokens.iter().any(|token| token.word == word && token.weight == weight) {
            return weighted;
        }
        if places(name, &variation.prompt).next().is_some() {
            return whole();
        }
    }
    if word.parse::<f64>().is_ok() { whole() } else { weighted }
}

/// Whether metadata that claims to be of the word `claimed` is of this word, with its weight behind it or without.
pub(crate) fn is_word(claimed: &str, word: &str, weight: Option<f64>) -> bool {
    let is_weighted = |(head, own): (&str, &str)| same_name(head.trim_end(), word) && as_weight(own.trim()) == weight;
    same_name(claimed, word) || claimed.rsplit_once(':').is_some_and(is_weighted)
}

fn as_weight(text: &str) -> Option<f64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'+' | b'-'));
    text.parse().ok().filter(|weight: &f64| is_plain && weight.is_finite() && *weight >= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(name: &str, claimed: Option<&str>, prompt: Option<&str>) -> (String, Option<f64>) {
        let own = |text: &str| text.to_owned();
        let metadata =
            StepMetadata { token_word: claimed.map(own), prompt: prompt.map(own), ..StepMetadata::default() };
        let TrackedWord { word, weight } = recognise(name, Some(&metadata));
        (word, weight)
    }

    #[test]
    fn weights_are_told_from_words() {
        let of = |word: &str, weight: Option<f64>| (word.to_owned(), weight);
        assert_eq!(word("flower:2.5", None, None), of("flower", Some(2.5)));
        assert_eq!(word("flower:2.5", Some("flower"), None), of("flower", Some(2.5)));
        assert_eq!(word("flower:2.5", Some("flower:2.5"), None), of("flower", Some(2.5)));
        assert_eq!(word("flower_2.5", Some("flower:2.5"), None), of("flower", Some(2.5)));
        assert_eq!(word("flower_2.5", Some("flower"), None), of("flower", Some(2.5)));
        assert_eq!(word("flower", Some("flower:2.5"), None), of("flower", Some(2.5)));
        assert_eq!(word("flower _ 2.5", Some("flower : 2.5"), None), of("flower", Some(2.5)));
        assert_eq!(word("two people", Some("two people"), None), of("two people", None));
        assert_eq!(word("a:b", None, None), of("a:b", None));
        assert_eq!(word("x:nan", None, None), of("x:nan", None));
        assert_eq!(word("x:inf", None, None), of("x:inf", None));
        // A directory that metadata contradicts counts.
        assert_eq!(word("cat", Some("dog:2"), None), of("cat", None));
        assert_eq!(word("route_66", Some("road"), None), of("route_66", None));
    }

    #[test]
    fn a_ratio_or_a_time_is_a_word() {
        let of = |word: &str| (word.to_owned(), None);
        assert_eq!(word("16:9", Some("16:9"), None), of("16:9"));
        assert_eq!(word("9_16", Some("9:16"), Some("a cat in 9:16")), of("9:16"));
        assert_eq!(word("10:30", None, Some("a clock at 10:30")), of("10:30"));
        assert_eq!(word("model t:4", None, Some("a model t:4 in a garage")), of("model t:4"));
        assert_eq!(word("a_b", Some("a/b"), None), of("a/b"));
        // Unless the prompt weighs it, or metadata names the word without.
        assert_eq!(word("16:9", Some("16:9"), Some("a (16:9) screen")), ("16".to_owned(), Some(9.0)));
        assert_eq!(word("16:9", Some("16"), None), ("16".to_owned(), Some(9.0)));
    }

    #[test]
    fn spellings_of_the_same_characters_are_one_name() {
        let (composed_form, decomposed) = ("caf\u{e9}", "cafe\u{301}");
        assert!(same_name(composed_form, decomposed));
        assert_eq!(word(decomposed, Some(composed_form), None).0, composed_form);
    }

    #[test]
    fn long_names_stay_apart_as_components() {
        let (a, b) = ("é".repeat(150), "é".repeat(151));
        assert_ne!(as_component(&a), as_component(&b));
        assert!(as_component(&a).len() <= LONGEST_COMPONENT);
        assert_eq!(as_component("../../x"), "_.._.._x");
        assert_eq!((as_component(".x"), as_component("__MACOSX")), ("_.x".into(), "___MACOSX".into()));
        assert_eq!(as_component(".."), "___");
    }
}
