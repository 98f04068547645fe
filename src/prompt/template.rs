//! What a prompt template is made of, and how it is printed.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

use super::error::PromptWarning;

/// A parsed prompt template. A prompt without brackets is a template with one variation.
///
/// Printing it and parsing what was printed gives the same items.
#[derive(Debug, Clone)]
pub struct Template {
    pub(super) items: Vec<Item>,
    pub(super) warnings: Vec<PromptWarning>,
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Item {
    /// Text that stands for itself.
    Text {
        /// At least one character, none of them a bracket. A parenthesis stands for itself: it is written `\(` or `\)`.
        text: String,
    },
    /// `(word:2.5)`.
    Word(Emphasis),
    /// `[a|b]`.
    Choice(Alternatives),
}

/// A tracked word or phrase: `(flower)`, `(two people:0.8)`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Emphasis {
    /// Texts and choices; no emphasis is in another one.
    pub items: Vec<Item>,
    /// What is behind the colon; without one, the weight is 1.
    pub weight: Option<f64>,
}

/// Alternatives, of which every variation has one: `[a|b]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alternatives {
    /// Number of its bracket, in order of appearance in the template, from 0.
    pub bracket: usize,
    /// At least one.
    pub options: Vec<OptionItems>,
    /// Of each option the number of its first variation among those of the bracket; their count last.
    #[serde(skip)]
    starts: Vec<u64>,
}

/// One of several alternatives.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OptionItems {
    /// Its parts; none, if it is empty.
    pub items: Vec<Item>,
    /// What is behind its last colon: `[day:2|night]`.
    pub weight: Option<f64>,
}

impl Template {
    /// Its parts, in order.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Where it is probably not what its author meant.
    #[must_use]
    pub fn warnings(&self) -> &[PromptWarning] {
        &self.warnings
    }

    /// How many variations it has; [`u64::MAX`] stands for that many or more.
    #[must_use]
    pub fn count(&self) -> u64 {
        count(&self.items)
    }
}

/// How many variations a sequence has: the product of its choices.
pub(super) fn count(items: &[Item]) -> u64 {
    items.iter().map(Item::count).fold(1, u64::saturating_mul)
}

impl Item {
    pub(super) fn count(&self) -> u64 {
        match self {
            Self::Text { .. } => 1,
            Self::Word(word) => count(&word.items),
            Self::Choice(choice) => choice.starts.last().copied().unwrap_or(1),
        }
    }
}

impl Alternatives {
    pub(super) fn new(bracket: usize, options: Vec<OptionItems>) -> Self {
        let mut starts = vec![0_u64];
        for option in &options {
            let start = starts.last().copied().unwrap_or(0);
            starts.push(start.saturating_add(count(&option.items)));
        }
        Self { bracket, options, starts }
    }

    /// The option that a variation has, and which of the option's own variations it is.
    pub(super) fn option_of(&self, variation: u64) -> Option<(usize, u64)> {
        let index = self.starts.partition_point(|&start| start <= variation).checked_sub(1)?;
        (index < self.options.len()).then(|| (index, variation - self.starts[index]))
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.items.iter().try_for_each(|item| item.fmt(f))
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { text } => f.write_str(&escaped(text)),
            Self::Word(word) => word.fmt(f),
            Self::Choice(choice) => choice.fmt(f),
        }
    }
}

/// A text as it is written in a template.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    if text.contains(['(', ')']) { text.replace('(', "\\(").replace(')', "\\)").into() } else { text.into() }
}

impl fmt::Display for Emphasis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        self.items.iter().try_for_each(|item| item.fmt(f))?;
        self.weight.map_or(Ok(()), |weight| write!(f, ":{weight}"))?;
        f.write_str(")")
    }
}

impl fmt::Display for Alternatives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, option) in self.options.iter().enumerate() {
            f.write_str(if index == 0 { "[" } else { "|" })?;
            option.fmt(f)?;
        }
        // Nothing at all between the last `|` and the `]` would not be an option.
        let ends_empty = self.options.len() > 1 && self.options.last().is_some_and(OptionItems::is_empty);
        f.write_str(if ends_empty { " ]" } else { "]" })
    }
}

impl OptionItems {
    fn is_empty(&self) -> bool {
        self.items.is_empty() && self.weight.is_none()
    }
}

impl fmt::Display for OptionItems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.items.iter().try_for_each(|item| item.fmt(f))?;
        self.weight.map_or(Ok(()), |weight| write!(f, ":{weight}"))
    }
}
