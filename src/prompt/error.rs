//! What is wrong with a prompt or template, and where.

use std::fmt;

use unicode_width::UnicodeWidthStr;

/// Columns of a prompt that are shown around what is wrong with it.
const SHOWN: usize = 72;

/// What is wrong with a prompt, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptError {
    /// The prompt or template.
    pub text: String,
    /// Byte of the text that it is about; its length, if that is the end.
    pub at: usize,
    /// What was found and what was expected.
    pub message: String,
}

/// What is probably not what the author of a template meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptWarning {
    /// Byte of the template that it is about.
    pub at: usize,
    /// What it is.
    pub message: &'static str,
}

impl PromptWarning {
    /// With the template that it is about, to be shown.
    #[must_use]
    pub fn of(&self, template: &str) -> PromptError {
        PromptError::new(template, self.at, self.message.to_owned())
    }
}

impl PromptError {
    pub(super) fn new(text: &str, at: usize, message: String) -> Self {
        Self { text: text.to_owned(), at, message }
    }

    /// The character that it is about, counted from 1.
    #[must_use]
    pub fn character(&self) -> usize {
        self.text.get(..self.at).unwrap_or(&self.text).chars().count() + 1
    }
}

impl std::error::Error for PromptError {}

impl fmt::Display for PromptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: {}\n{}", self.character(), self.message, point_at(&self.text, self.at))
    }
}

/// A text, and a caret below one of its characters. Of a long text, what is around that.
fn point_at(text: &str, at: usize) -> String {
    let (before, behind) = text.split_at_checked(at).unwrap_or((text, ""));
    // Each on one line: tabs and line breaks would move the caret away.
    let flat = |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    let (before, behind) = (flat(before), flat(behind));
    let fits = |shown: usize| {
        let mut width = 0;
        move |c: &char| {
            width += c.to_string().width();
            width <= shown
        }
    };
    let left: Vec<char> = before.chars().rev().take_while(fits(SHOWN / 2)).collect();
    let left: String = left.into_iter().rev().collect();
    let right: String = behind.chars().take_while(fits(SHOWN - left.width().min(SHOWN))).collect();
    let cut = |is_cut: bool| if is_cut { "…" } else { "" };
    let left = format!("{}{left}", cut(left.len() < before.len()));
    format!("  {left}{right}{}\n  {}^", cut(right.len() < behind.len()), " ".repeat(left.width()))
}
