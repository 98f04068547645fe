//! Prompts: templates and their variations, the weights of words, where words sit among a tokenizer's pieces, and which
//! prompt of a batch a video was generated from. Knows nothing of dumps and stores.
//!
//! The grammar is in `docs/prompts.md`.
//!
//! ```
//! use attnkit::prompt::Template;
//!
//! let template = Template::parse("a beautiful [(flower:2.5) near a tree|(tree:3) next to a flower]")?;
//! let prompts: Vec<String> = template.variations().map(|variation| variation.prompt).collect();
//! assert_eq!(prompts, ["a beautiful flower near a tree", "a beautiful tree next to a flower"]);
//! # Ok::<(), attnkit::prompt::PromptError>(())
//! ```

mod batch;
mod error;
mod expand;
mod parse;
mod template;
mod templates;
#[cfg(feature = "tokenizer")]
mod tokens;
#[cfg(not(feature = "tokenizer"))]
#[path = "no_tokens.rs"]
mod tokens;

pub(crate) use batch::FILE_BYTES;
pub use batch::{BatchPrompt, BatchPrompts, BatchPromptsError, Found};
pub use error::{PromptError, PromptWarning};
pub use expand::{Choice, TrackedWord, Variation, Variations, parse_weighted};
pub use parse::MAX_DEPTH;
pub use template::{Alternatives, Emphasis, Item, OptionItems, Template};
pub use templates::{Expanded, Templates, TemplatesError};
pub use tokens::Tokenizer;
#[cfg(feature = "tokenizer")]
pub use tokens::{Occurrence, Piece, TokenizedPrompt, WordTokens};

use std::ops::Range;
use std::path::PathBuf;

use unicode_normalization::UnicodeNormalization;

use crate::error::{Cause, ErrorKind, LayerError};
use crate::remedy::Remedy;

/// Why a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {found}", path.display())]
pub struct TokenizerError {
    /// The tokenizer's file.
    pub path: PathBuf,
    /// What is wrong: in words, or what the tokenizer's library says.
    #[source]
    pub found: Cause,
}

impl LayerError for TokenizerError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Argument
    }

    fn remedy(&self) -> Option<Remedy> {
        Some("name the tokenizer.json of the model's tokenizer".into())
    }
}

/// A prompt as generators send it to the model: without line breaks, and with one space where there were several.
#[must_use]
pub fn collapse_spaces(prompt: &str) -> String {
    prompt.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The id that names of a prompt's videos start with: `prompt_007`.
#[must_use]
pub fn prompt_id(number: u64) -> String {
    format!("prompt_{number:03}")
}

/// A text for comparisons: with single spaces, and its characters composed.
pub(crate) fn comparable(text: &str) -> String {
    let text = collapse_spaces(text);
    if text.is_ascii() { text } else { text.nfc().collect() }
}

/// A word as names of directories have it: with single spaces, characters composed, and `_` for `:`, `/` and `\`.
#[must_use]
pub fn as_name(word: &str) -> String {
    comparable(word).replace([':', '/', '\\'], "_")
}

/// Where a word is in a text as a word of its own: not as a part of another one.
pub(crate) fn places<'a>(word: &'a str, text: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
    // Scripts without capitals may do without spaces, too.
    let joins = |c: char| c.is_lowercase() || c.is_uppercase() || c.is_numeric();
    let is_cut =
        move |before: Option<char>, behind: Option<char>| before.is_some_and(joins) && behind.is_some_and(joins);
    text.match_indices(word).filter(|_| !word.is_empty()).map(|(start, _)| start..start + word.len()).filter(
        move |place| {
            let (before, behind) = (&text[..place.start], &text[place.end..]);
            !is_cut(before.chars().next_back(), word.chars().next())
                && !is_cut(word.chars().next_back(), behind.chars().next())
        },
    )
}

/// Where a word is among the pieces of a text: of each place where it is a word of its own, and not a part of another
/// one, the positions of its pieces. `pieces` says which bytes of the text each is for; special ones are for none. The
/// space before a word is in its first piece. A place behind the last piece is none: a model does not see it.
///
/// ```
/// // ▁a ▁sun flower ▁near ▁a ▁flower </s>
/// let pieces = [0..1, 1..5, 5..11, 11..16, 16..18, 18..25, 0..0];
/// let places = attnkit::prompt::occurrences("flower", "a sunflower near a flower", &pieces);
/// assert_eq!(places, [[5]]);
/// ```
#[must_use]
pub fn occurrences(word: &str, text: &str, pieces: &[Range<usize>]) -> Vec<Vec<usize>> {
    // Of a text that was cut off, the pieces end before a word does.
    let end = pieces.iter().map(|piece| piece.end).max().unwrap_or(0);
    let whole = places(word, text).filter(|place| place.end <= end);
    whole.map(|place| pieces_at(&place, text, pieces)).filter(|positions| !positions.is_empty()).collect()
}

/// Positions of the pieces that are for some of the characters at a place.
fn pieces_at(place: &Range<usize>, text: &str, pieces: &[Range<usize>]) -> Vec<usize> {
    let is_there = |piece: &Range<usize>| {
        let common = text.get(piece.start.max(place.start)..piece.end.min(place.end));
        !common.unwrap_or_default().trim().is_empty()
    };
    (0..pieces.len()).filter(|&position| is_there(&pieces[position])).collect()
}
