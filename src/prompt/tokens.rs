//! Where the words of a prompt sit among the pieces that a tokenizer cuts it into: the rows of the cross-attention's
//! text axis.

use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::expand::Variation;
use super::{TokenizerError, collapse_spaces, pieces_at, places};
use crate::bounded;
use crate::error::Cause;

/// The most bytes of a `tokenizer.json`; those of large multilingual models have 35 MB.
const FILE_BYTES: u64 = 256 << 20;
/// The most bytes of a text that is cut.
const TEXT_BYTES: usize = 16 << 10;
/// How many times as long a tokenizer may make a text before it is cut.
const MAX_GROWTH: usize = 4096;
/// Words of up to so many characters are looked up piece by piece.
const MAX_WORD: u64 = 1000;

/// A tokenizer, as `tokenizer.json` describes it.
#[derive(Debug)]
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
}

/// A prompt cut into pieces.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenizedPrompt {
    /// The prompt that was cut: without syntax, with single spaces.
    pub prompt: String,
    /// Its pieces, special ones included.
    pub pieces: Vec<Piece>,
    /// Where the words sit.
    pub words: Vec<WordTokens>,
}

/// A piece of a prompt: one position of the text axis.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Piece {
    /// Its position, from 0; special pieces count.
    pub position: usize,
    /// Its id in the vocabulary.
    pub id: u32,
    /// As the vocabulary has it: `▁flower`.
    pub piece: String,
    /// As it reads: `flower`. Empty for a special piece.
    pub text: String,
}

/// A word of a prompt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WordTokens {
    /// The word, or several.
    pub word: String,
    /// Its weight in the prompt.
    pub weight: f64,
    /// Ids of its pieces when it is tokenized alone, without special ones: the `token_ids` of a dump.
    pub ids: Vec<u32>,
    /// Each place in the prompt.
    pub occurrences: Vec<Occurrence>,
    /// The positions whose attention a generator stores: the first ones with these ids. Empty if there are none.
    pub positions: Vec<usize>,
}

/// One place of a word in a prompt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Occurrence {
    /// Positions of its pieces.
    pub positions: Vec<usize>,
    /// Their ids: in context a word may be cut otherwise than alone.
    pub ids: Vec<u32>,
}

/// A tokenized text: ids, pieces and the bytes of the text that each is for.
type Encoded = tokenizers::Encoding;

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// If the file cannot be read or is not one.
    pub fn open(path: &Path) -> Result<Self, TokenizerError> {
        let failed = |found: Cause| TokenizerError { path: path.to_owned(), found };
        let bytes = bounded::read(path, FILE_BYTES).map_err(|error| failed(error.into()))?;
        check_growth(&bytes).map_err(|found| failed(found.into()))?;
        let inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| {
            let found = format!(
                "not a tokenizer.json: {error}; `AutoTokenizer.from_pretrained(…).save_pretrained(DIR)` writes one"
            );
            failed(found.into())
        })?;
        let mut tokenizer = Self { path: path.to_owned(), inner };
        // Positions are those of the prompt, however long and without what models are fed beyond it.
        tokenizer.inner.with_padding(None);
        tokenizer.inner.with_truncation(None).map_err(failed)?;
        Ok(tokenizer)
    }

    /// The file it was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Cuts a prompt into pieces, and looks for its tracked words and `others` in it.
    ///
    /// # Errors
    /// If the tokenizer refuses the text.
    pub fn tokenize(&self, prompt: &Variation, others: &[String]) -> Result<TokenizedPrompt, TokenizerError> {
        let text = collapse_spaces(&prompt.prompt);
        let encoded = self.encode(&text, true)?;
        let pieces = (0..encoded.len()).map(|position| Piece {
            position,
            id: encoded.get_ids()[position],
            piece: encoded.get_tokens()[position].clone(),
            text: self.inner.decode(&encoded.get_ids()[position..=position], true).unwrap_or_default(),
        });
        let pieces = pieces.collect();
        let mut words: Vec<WordTokens> = Vec::new();
        let tracked = prompt.tokens.iter().map(|token| (collapse_spaces(&token.word), token.weight));
        for (word, weight) in tracked.chain(others.iter().map(|word| (collapse_spaces(word), 1.0))) {
            // The first emphasis of a word is the one that counts.
            if !words.iter().any(|known| known.word == word) {
                words.push(self.find(&word, weight, &text, &encoded)?);
            }
        }
        Ok(TokenizedPrompt { prompt: text, pieces, words })
    }

    /// Cuts a text as it is: id and name of each piece, and the bytes of the text that it is for; special ones are for
    /// none.
    ///
    /// # Errors
    /// If the tokenizer refuses the text.
    pub fn cut(&self, text: &str) -> Result<Vec<(u32, String, Range<usize>)>, TokenizerError> {
        let encoded = self.encode(text, true)?;
        let named = encoded.get_ids().iter().copied().zip(encoded.get_tokens().iter().cloned());
        Ok(named.zip(bytes_of(&encoded)).map(|((id, piece), bytes)| (id, piece, bytes)).collect())
    }

    /// Compares the ids that a dump has for a word with those of this tokenizer, alone or in the prompt.
    ///
    /// # Errors
    /// If the tokenizer refuses the text. A disagreement is told in words.
    pub fn check(&self, word: &str, prompt: &str, ids: &[i64]) -> Result<Option<String>, TokenizerError> {
        let text = collapse_spaces(prompt);
        let found = self.find(&collapse_spaces(word), 1.0, &text, &self.encode(&text, true)?)?;
        let same = |own: &[u32]| own.iter().map(|&id| i64::from(id)).eq(ids.iter().copied());
        if same(&found.ids) || found.occurrences.iter().any(|occurrence| same(&occurrence.ids)) {
            return Ok(None);
        }
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let pieces: Vec<String> = ids.iter().map(|&id| self.piece(id)).collect();
        Ok(Some(format!(
            "metadata says token_ids {ids:?} for `{word}`, which {name} has for {pieces:?}; by {name} it is {:?}",
            found.ids
        )))
    }

    fn piece(&self, id: i64) -> String {
        let known = u32::try_from(id).ok().and_then(|id| self.inner.id_to_token(id));
        known.unwrap_or_else(|| "nothing".into())
    }

    fn find(&self, word: &str, weight: f64, text: &str, encoded: &Encoded) -> Result<WordTokens, TokenizerError> {
        let ids = self.encode(word, false)?.get_ids().to_vec();
        let mut places: Vec<Range<usize>> = places(word, text).collect();
        if places.is_empty() && !word.is_empty() {
            // Within other words, rather than nowhere.
            places = text.match_indices(word).map(|(start, _)| start..start + word.len()).collect();
        }
        let pieces = bytes_of(encoded);
        let occurrence = |place: Range<usize>| {
            let positions = pieces_at(&place, text, &pieces);
            Occurrence { ids: positions.iter().map(|&position| encoded.get_ids()[position]).collect(), positions }
        };
        let occurrences: Vec<Occurrence> = places.into_iter().map(occurrence).collect();
        let first =
            if ids.is_empty() { None } else { encoded.get_ids().windows(ids.len()).position(|window| window == ids) };
        let positions = first.map_or_else(Vec::new, |first| (first..first + ids.len()).collect());
        Ok(WordTokens { word: word.to_owned(), weight, ids, occurrences, positions })
    }

    fn encode(&self, text: &str, special: bool) -> Result<Encoded, TokenizerError> {
        let failed = |found: Cause| TokenizerError { path: self.path.clone(), found };
        if text.len() > TEXT_BYTES {
            let found = format!("a text of {} bytes is to be cut; it cuts {TEXT_BYTES} at the most", text.len());
            return Err(failed(found.into()));
        }
        // What a description asks for may be what the library never expected.
        let encoded = panic::catch_unwind(AssertUnwindSafe(|| self.inner.encode(text, special)));
        encoded.map_err(|_| failed("the tokenizer that it describes cannot be run".into()))?.map_err(failed)
    }
}

/// Checks that what a tokenizer does to a text before it is cut cannot blow it up: ten replacements of a letter by a
/// thousand others would fill any memory.
fn check_growth(bytes: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Steps {
        #[serde(default)]
        normalizer: Value,
        #[serde(default)]
        pre_tokenizer: Value,
        #[serde(default)]
        decoder: Value,
        #[serde(default)]
        model: Limits,
    }
    #[derive(Default, Deserialize)]
    struct Limits {
        #[serde(default)]
        max_input_chars_per_word: Option<u64>,
    }
    // What is wrong with it otherwise is said by the library.
    let Ok(steps) = serde_json::from_slice::<Steps>(bytes) else { return Ok(()) };
    let mut growth = 1_usize;
    for step in [&steps.normalizer, &steps.pre_tokenizer, &steps.decoder] {
        growth = growth.saturating_mul(growth_of(step));
    }
    if growth > MAX_GROWTH {
        return Err(format!("its replacements make a text {growth} times as long; {MAX_GROWTH} times is the most"));
    }
    match steps.model.max_input_chars_per_word {
        Some(most) if most > MAX_WORD => {
            Err(format!("max_input_chars_per_word is {most}; {MAX_WORD} is the most, for the time that words take"))
        }
        _ => Ok(()),
    }
}

/// How many times as long a step makes a text, at the most.
fn growth_of(step: &Value) -> usize {
    let of_text = |key: &str| step.get(key).and_then(Value::as_str).map_or(1, |text| text.len() + 1);
    let inner = ["normalizers", "pretokenizers", "decoders"].iter().filter_map(|key| step.get(key)?.as_array());
    let inner = inner.flatten().map(growth_of).fold(1, usize::saturating_mul);
    match step.get("type").and_then(Value::as_str) {
        Some("Replace") => of_text("content").saturating_mul(inner),
        _ => inner,
    }
}

/// Which bytes of the text each piece is for: special ones for none.
fn bytes_of(encoded: &Encoded) -> Vec<Range<usize>> {
    let of_piece = |(&(start, end), &special): (&(usize, usize), &u32)| if special == 0 { start..end } else { 0..0 };
    encoded.get_offsets().iter().zip(encoded.get_special_tokens_mask()).map(of_piece).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::parse_weighted;
    use super::*;

    /// A small Unigram tokenizer in the way of umt5: words begin with `▁`, and the end is a piece of its own.
    fn tokenizer() -> (tempfile::TempDir, Tokenizer) {
        let vocab =
            ["<pad>", "</s>", "<unk>", "▁a", "▁", "▁flower", "▁beauti", "ful", "s", "▁two", "▁people", "花", "▁near"];
        let vocab: Vec<_> = vocab.iter().enumerate().map(|(id, piece)| json!([piece, -(id as f64)])).collect();
        let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
        let document = json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [{"id": 1, "content": "</s>", "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
            "normalizer": null, "pre_tokenizer": metaspace, "decoder": metaspace,
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                "pair": [],
                "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}},
            "model": {"type": "Unigram", "unk_id": 2, "vocab": vocab, "byte_fallback": false}
        });
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        std::fs::write(&path, document.to_string()).unwrap();
        let tokenizer = Tokenizer::open(&path).unwrap();
        (dir, tokenizer)
    }

    fn tokenize(prompt: &str, others: &[&str]) -> TokenizedPrompt {
        let others: Vec<String> = others.iter().map(|&word| word.to_owned()).collect();
        tokenizer().1.tokenize(&parse_weighted(prompt).unwrap(), &others).unwrap()
    }

    #[test]
    fn a_word_of_several_pieces_has_several_positions() {
        let tokenized = tokenize("a (beautiful:2.5) flower", &["flower"]);
        assert_eq!(tokenized.prompt, "a beautiful flower");
        let pieces: Vec<&str> = tokenized.pieces.iter().map(|piece| piece.piece.as_str()).collect();
        assert_eq!(pieces, ["▁a", "▁beauti", "ful", "▁flower", "</s>"]);
        let [beautiful, flower] = tokenized.words.try_into().unwrap();
        assert_eq!((beautiful.ids, beautiful.positions, beautiful.weight), (vec![6, 7], vec![1, 2], 2.5));
        assert_eq!((flower.occurrences[0].positions.clone(), flower.weight), (vec![3], 1.0));
    }

    #[test]
    fn every_place_of_a_repeated_word_is_found_and_the_first_is_the_one_stored() {
        let tokenized = tokenize("a flower near a (flower:2)", &[]);
        let word = &tokenized.words[0];
        assert_eq!(
            word.occurrences.iter().map(|place| place.positions.clone()).collect::<Vec<_>>(),
            [vec![1], vec![4]]
        );
        assert_eq!(word.positions, [1]);
    }

    #[test]
    fn words_within_words_and_without_spaces_are_found() {
        let flowers = &tokenize("a flowers", &["flower"]).words[0];
        assert_eq!((flowers.occurrences[0].positions.clone(), flowers.positions.clone()), (vec![1], vec![1]));
        let chinese = &tokenize("a(花)", &[]).words[0];
        assert_eq!(chinese.occurrences[0].positions.len(), 1);
        let two = &tokenize("near (two  people:0.8)", &[]).words[0];
        assert_eq!((two.word.as_str(), two.positions.clone()), ("two people", vec![1, 2]));
        assert!(tokenize("a flower", &["tree"]).words[0].occurrences.is_empty());
    }

    #[test]
    fn ids_of_a_dump_that_are_others_are_told() {
        let (_dir, tokenizer) = tokenizer();
        let check = |word, ids: &[i64]| tokenizer.check(word, "a beautiful flower", ids).unwrap();
        assert_eq!(check("flower", &[5]), None);
        assert_eq!(check("beautiful", &[6, 7]), None);
        let told = check("flower", &[6, 99]).unwrap();
        assert!(
            told.contains("[6, 99]") && told.contains("▁beauti") && told.contains("nothing") && told.contains("[5]"),
            "{told}"
        );
    }

    #[test]
    fn a_tokenizer_that_blows_texts_up_is_refused() {
        let (dir, tokenizer) = tokenizer();
        let mut document: Value = serde_json::from_slice(&std::fs::read(tokenizer.path()).unwrap()).unwrap();
        let replace = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaa"});
        let open = |document: &Value| {
            let path = dir.path().join("other.json");
            std::fs::write(&path, document.to_string()).unwrap();
            Tokenizer::open(&path).map_err(|error| error.to_string())
        };
        document["normalizer"] = json!({"type": "Sequence", "normalizers": vec![replace.clone(); 3]});
        open(&document).unwrap();
        document["normalizer"] = json!({"type": "Sequence", "normalizers": vec![replace; 30]});
        assert!(open(&document).unwrap_err().contains("times as long; 4096 times is the most"));
        document["normalizer"] = Value::Null;
        document["model"] = json!({"type": "WordPiece", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]",
            "continuing_subword_prefix": "##", "max_input_chars_per_word": 1_000_000});
        assert!(open(&document).unwrap_err().contains("max_input_chars_per_word is 1000000"));

        let long = Variation { prompt: "a".repeat(TEXT_BYTES + 1), ..Variation::default() };
        let error = tokenizer.tokenize(&long, &[]).unwrap_err().to_string();
        assert!(error.contains("16385 bytes") && error.contains("16384"), "{error}");
    }

    #[test]
    fn what_is_no_tokenizer_is_named() {
        let error = Tokenizer::open(Path::new("Cargo.toml")).unwrap_err().to_string();
        assert!(error.contains("Cargo.toml") && error.contains("save_pretrained"), "{error}");
    }
}
