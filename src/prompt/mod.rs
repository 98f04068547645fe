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
mod expand;
mod parse;
mod template;
mod tokens;

pub use batch::{BatchPrompt, BatchPrompts, BatchPromptsError};
pub use expand::{Choice, TrackedWord, Variation, Variations, parse_weighted};
pub use parse::{MAX_DEPTH, PromptError};
pub use template::{Alternatives, Emphasis, Item, OptionItems, Template};
pub use tokens::{Occurrence, Piece, TokenizedPrompt, Tokenizer, TokenizerError, WordTokens};

/// A prompt as generators send it to the model: without line breaks, and with one space where there were several.
#[must_use]
pub fn collapse_spaces(prompt: &str) -> String {
    prompt.split_whitespace().collect::<Vec<_>>().join(" ")
}
