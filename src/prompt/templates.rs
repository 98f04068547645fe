//! Several templates, and their variations numbered through all of them, as generators number prompts.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::batch::FILE_BYTES;
use super::error::PromptError;
use super::expand::Variation;
use super::prompt_id;
use super::template::Template;
use crate::bounded;
use crate::error::{ErrorKind, LayerError};

/// Templates in order.
#[derive(Debug, Clone)]
pub struct Templates {
    templates: Vec<Line>,
    count: u64,
}

#[derive(Debug, Clone)]
struct Line {
    text: String,
    template: Template,
    /// Where it stands, with what separates that from what is said of it; empty if it stands alone.
    place: String,
    /// The number of its first variation.
    first: u64,
}

/// A variation in its place among those of all templates.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Expanded<'a> {
    /// The id that names of its videos start with: `prompt_007`.
    pub prompt_id: String,
    /// The template that it is of.
    pub template: &'a str,
    /// What it is.
    #[serde(flatten)]
    pub variation: Variation,
}

/// Why templates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplatesError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// One of them does not parse.
    #[error("{place}{source}")]
    Template {
        /// Where it stands, such as `templates.txt:3: `.
        place: String,
        /// What is wrong with it.
        source: PromptError,
    },
    /// There are none.
    #[error("{name}: there is no template in it")]
    Empty {
        /// Where they were looked for.
        name: String,
    },
}

impl LayerError for TemplatesError {
    fn kind(&self) -> ErrorKind {
        if matches!(self, Self::Io { .. }) { ErrorKind::File } else { ErrorKind::Prompt }
    }
}

impl Templates {
    /// Templates that were given one by one, with brackets nested up to `max_depth`.
    ///
    /// # Errors
    /// If one of them does not parse, or there are none.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>, max_depth: usize) -> Result<Self, TemplatesError> {
        Self::new("templates", texts.into_iter().map(|text| (text, String::new())), max_depth)
    }

    /// The templates of a text, one a line; `name` says in errors what text that is.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn of_lines(name: &str, text: &str, max_depth: usize) -> Result<Self, TemplatesError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
        Self::new(name, lines.map(|(index, line)| (line, format!("{name}:{}: ", index + 1))), max_depth)
    }

    /// The templates of a file, one a line.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), or if it cannot be read.
    pub fn read(path: &Path, max_depth: usize) -> Result<Self, TemplatesError> {
        let text = bounded::read_text(path, FILE_BYTES);
        let text = text.map_err(|source| TemplatesError::Io { path: path.to_owned(), source })?;
        Self::of_lines(&path.display().to_string(), &text, max_depth)
    }

    fn new<'a>(
        name: &str,
        lines: impl Iterator<Item = (&'a str, String)>,
        max_depth: usize,
    ) -> Result<Self, TemplatesError> {
        let (mut templates, mut count) = (Vec::new(), 0_u64);
        for (text, place) in lines {
            let template = match Template::parse_nested(text, max_depth) {
                Ok(template) => template,
                Err(source) => return Err(TemplatesError::Template { place, source }),
            };
            let first = count;
            count = count.saturating_add(template.count());
            templates.push(Line { text: text.to_owned(), template, place, first });
        }
        if templates.is_empty() {
            return Err(TemplatesError::Empty { name: name.to_owned() });
        }
        Ok(Self { templates, count })
    }

    /// How many variations there are; 2^64 - 1 stands for that many and more.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The texts of the templates.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.templates.iter().map(|line| line.text.as_str())
    }

    /// What is probably not what the author of a template meant, each with where it stands; at most `most` of each.
    pub fn warnings(&self, most: usize) -> impl Iterator<Item = String> {
        self.templates.iter().flat_map(move |line| {
            let warnings = line.template.warnings().iter().take(most);
            warnings.map(|warning| format!("{}{}", line.place, warning.of(&line.text)))
        })
    }

    /// A variation by its number among those of all; `None` if there are not so many.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<Expanded<'_>> {
        let line = self.templates[..self.templates.partition_point(|line| line.first <= number)].last()?;
        Some(line.expanded(number, line.template.variation(number - line.first)?))
    }

    /// All variations, the leftmost choice of a template slowest. Computed as they are asked for.
    pub fn variations(&self) -> impl Iterator<Item = Expanded<'_>> {
        self.templates
            .iter()
            .flat_map(|line| line.template.variations().map(move |variation| (line, variation)))
            .zip(0..=u64::MAX)
            .map(|((line, variation), number)| line.expanded(number, variation))
    }
}

impl Line {
    fn expanded(&self, number: u64, variation: Variation) -> Expanded<'_> {
        Expanded { prompt_id: prompt_id(number), template: &self.text, variation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variations_are_numbered_through_all_templates() {
        let templates = Templates::of_lines("t.txt", "\u{feff}a [x|y]\r\n\n  b (c:2) \n", 3).unwrap();
        assert_eq!(templates.count(), 3);
        let all: Vec<Expanded<'_>> = templates.variations().collect();
        let prompts: Vec<&str> = all.iter().map(|one| one.variation.prompt.as_str()).collect();
        assert_eq!(prompts, ["a x", "a y", "b c"]);
        assert_eq!(
            (all[2].prompt_id.as_str(), all[2].template, all[2].variation.variation),
            ("prompt_002", "b (c:2)", 0)
        );
        for (number, one) in all.iter().enumerate() {
            assert_eq!(templates.get(number as u64).as_ref(), Some(one));
        }
        assert_eq!(templates.get(3), None);
    }

    #[test]
    fn more_variations_than_can_be_counted_are_found_by_their_numbers() {
        let many = "[ab|cd]".repeat(70);
        let templates = Templates::parse([many.as_str(), "a cat"], 3).unwrap();
        assert_eq!(templates.count(), u64::MAX);
        assert_eq!(templates.get(1).unwrap().variation.prompt, "ab".repeat(69) + "cd");
        assert!(templates.get(u64::MAX - 1).is_some_and(|one| one.template == many));
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_place() {
        let error = |text| Templates::of_lines("t.txt", text, 3).unwrap_err().to_string();
        assert!(error("a\n\n[b").starts_with("t.txt:3: at character 1"), "{}", error("a\n\n[b"));
        assert_eq!(error("\n"), "t.txt: there is no template in it");
        let missing = Templates::read(Path::new("missing.txt"), 3).unwrap_err();
        assert!(missing.to_string().starts_with("missing.txt: "));
    }
}
