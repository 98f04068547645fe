//! The prompts that a batch of videos was generated from, in order, and which of them is a video's: read from templates
//! or from what the generator left beside the dump.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::PromptError;
use super::expand::{TrackedWord, Variation, parse_weighted};
use super::template::Template;
use super::{as_name, collapse_spaces, comparable, places, prompt_id};
use crate::bounded;
use crate::error::{ErrorKind, LayerError};
use crate::json::Json;
use crate::remedy::{CommandName, Remedy};

/// Prompts that are looked up by their texts; further ones are found by their numbers alone.
const TEXTS: u64 = 1_000_000;
/// The most bytes of the templates that they are made of, one by one, or of the texts themselves: seconds of work.
const TEXT_BYTES: usize = 256 << 20;
/// The most bytes of a file of prompts or templates.
pub(crate) const FILE_BYTES: u64 = 256 << 20;
/// Keys of a variation's prompt, the one that keeps weights first.
const PROMPT_KEYS: [&str; 4] = ["weighted_prompt", "weighted_text", "text", "prompt"];
/// Where generators leave prompts, below a batch's directory; the most telling first.
const BESIDE: [&str; 4] = ["configs/prompt_variations.json", "prompt_variations.json", "batch_metadata.json", TEMPLATE];
/// Where generators leave the template: one, which may have line breaks.
const TEMPLATE: &str = "configs/prompt_template.txt";

/// The prompts of a batch: number `k` is that of the videos `prompt_00k_…`.
#[derive(Debug)]
pub struct BatchPrompts {
    path: PathBuf,
    /// Ordered by their numbers.
    sources: Vec<Source>,
    count: u64,
    /// Remarks on the file: what is probably not what its author meant.
    warnings: Vec<String>,
    by_text: OnceLock<Texts>,
}

/// The numbers of the prompts of each text.
#[derive(Debug, Default)]
struct Texts {
    numbers: HashMap<String, Vec<u64>>,
    /// How many prompts are among them.
    count: u64,
}

/// Some of the prompts.
#[derive(Debug)]
enum Source {
    /// All variations of a template, the first of which has this number.
    Template { first: u64, template: Template, text: String },
    /// Prompts one by one.
    Listed(BTreeMap<u64, BatchPrompt>),
}

/// One prompt of a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchPrompt {
    /// Its number in the batch, from 0.
    pub number: u64,
    /// The template it is a variation of, where known.
    pub template: Option<String>,
    /// Its number among the template's variations.
    pub variation: Option<u64>,
    /// The prompt without syntax, with single spaces.
    pub prompt: String,
    /// The words in parentheses and their weights.
    pub tokens: Vec<TrackedWord>,
    /// Whether it does not parse: it is then text without emphasis.
    pub is_unread: bool,
}

/// The prompt of a video.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The prompt.
    pub prompt: BatchPrompt,
    /// Whether only its text tells: the number in the video's name is that of another prompt, or of none.
    pub is_by_text: bool,
    /// Whether it is the text as it stands: what looks like emphasis in it are literal parentheses.
    pub is_literal: bool,
}

/// Why a file of prompts cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchPromptsError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{}: {found}; expected templates, one a line, or the JSON of prompt variations", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// A table.
    #[error("{}: a CSV cannot be read", path.display())]
    Csv {
        /// The file.
        path: PathBuf,
    },
    /// There are no prompts in it.
    #[error("{}: there is no prompt in it; expected templates, one a line, or the JSON of prompt \
        variations", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A template that does not parse.
    #[error("{}:{line}: {source}", path.display())]
    Template {
        /// The file.
        path: PathBuf,
        /// The line, from 1; for JSON the number of the prompt.
        line: usize,
        /// What is wrong with it.
        source: PromptError,
    },
}

impl LayerError for BatchPromptsError {
    fn kind(&self) -> ErrorKind {
        if matches!(self, Self::Io { .. }) { ErrorKind::File } else { ErrorKind::Argument }
    }

    fn remedy(&self) -> Option<Remedy> {
        let expand = || Remedy::of("{} writes what can be", [CommandName::Expand.here()]);
        matches!(self, Self::Csv { .. }).then(expand)
    }
}

impl BatchPrompt {
    /// The id that names of videos start with: `prompt_007`.
    #[must_use]
    pub fn prompt_id(&self) -> String {
        prompt_id(self.number)
    }

    /// The weight of a word: that of its first emphasis, or 1 if it is there without. `None` if it is not there.
    ///
    /// Words are compared [as names](as_name) of directories are.
    #[must_use]
    pub fn weight_of(&self, word: &str) -> Option<f64> {
        let name = as_name(word);
        let emphasised = self.tokens.iter().find(|token| as_name(&token.word) == name).map(|token| token.weight);
        emphasised.or_else(|| places(&name, &as_name(&self.prompt)).next().map(|_| 1.0))
    }

    fn new(number: u64, template: Option<String>, of_template: Option<u64>, variation: Variation) -> Self {
        let prompt = collapse_spaces(&variation.prompt);
        Self { number, template, variation: of_template, prompt, tokens: variation.tokens, is_unread: false }
    }

    fn has_words(&self, words: &[&str]) -> bool {
        let names: Vec<String> = words.iter().map(|word| as_name(word)).collect();
        self.tokens.len() == words.len() && self.tokens.iter().all(|token| names.contains(&as_name(&token.word)))
    }
}

impl BatchPrompts {
    /// Reads templates, one a line, or, from a file whose name ends in `.json`, variations: the generator's
    /// `prompt_variations.json` or `batch_metadata.json`, or what is expanded as JSON.
    ///
    /// # Errors
    /// If the file cannot be read, or holds no prompts, or a template in it does not parse.
    pub fn read(path: &Path) -> Result<Self, BatchPromptsError> {
        let (mut prompts, text) = Self::open(path)?;
        let ends_in = |ending: &str| path.extension().is_some_and(|own| own.eq_ignore_ascii_case(ending));
        if ends_in("csv") {
            return Err(BatchPromptsError::Csv { path: path.to_owned() });
        }
        if ends_in("json") {
            let json = Json::parse(text.as_bytes()).map_err(|found| prompts.unfit(format!("not JSON: {found}")))?;
            prompts.warnings.extend(json.remarks);
            prompts.add_json(&json.value.to_value())?;
        } else {
            for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                prompts.add_template(line.trim(), index + 1)?;
            }
        }
        if prompts.sources.is_empty() {
            return Err(BatchPromptsError::Empty { path: path.to_owned() });
        }
        Ok(prompts)
    }

    /// Reads a file that is one template.
    fn read_template(path: &Path) -> Result<Self, BatchPromptsError> {
        let (mut prompts, text) = Self::open(path)?;
        if text.trim().is_empty() {
            return Err(BatchPromptsError::Empty { path: path.to_owned() });
        }
        prompts.add_template(text.trim(), 1)?;
        Ok(prompts)
    }

    /// The text of a file, and the prompts of it that are still to be read.
    fn open(path: &Path) -> Result<(Self, String), BatchPromptsError> {
        let bytes = bounded::read(path, FILE_BYTES)
            .map_err(|source| BatchPromptsError::Io { path: path.to_owned(), source })?;
        let prompts = Self {
            path: path.to_owned(),
            sources: Vec::new(),
            count: 0,
            warnings: Vec::new(),
            by_text: OnceLock::new(),
        };
        if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            return Err(prompts.unfit("it is UTF-16; save it as UTF-8".into()));
        }
        let text = String::from_utf8(bytes).map_err(|error| prompts.unfit(format!("not UTF-8: {error}")))?;
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        Ok((prompts, text))
    }

    /// Reads what the generator left beside the maps, if it did: the first of [`files_beside`](Self::files_beside) that
    /// can be used. What is wrong with those before it is among its warnings.
    ///
    /// # Errors
    /// As [`read`](Self::read), if none can be used. A `batch_metadata.json` without prompts is no error.
    pub fn beside(maps: &Path) -> Result<Option<Self>, BatchPromptsError> {
        let mut failed: Option<BatchPromptsError> = None;
        for path in Self::files_beside(maps) {
            let prompts = if path.ends_with(TEMPLATE) { Self::read_template(&path) } else { Self::read(&path) };
            match prompts {
                Ok(mut prompts) => {
                    prompts.warnings.extend(failed.map(|error| format!("is read instead: {error}")));
                    return Ok(Some(prompts));
                }
                Err(BatchPromptsError::Empty { .. }) if path.ends_with("batch_metadata.json") => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// The files beside the maps that may hold prompts, the most telling first: `configs/prompt_variations.json`,
    /// `prompt_variations.json`, `batch_metadata.json` and `configs/prompt_template.txt` in the directory of the maps
    /// or its parent, as far as they are there.
    pub fn files_beside(maps: &Path) -> impl Iterator<Item = PathBuf> {
        let batches = [Some(maps), maps.parent()];
        batches
            .into_iter()
            .flatten()
            .flat_map(|batch| BESIDE.map(|name| batch.join(name)))
            .filter(|path| path.is_file())
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is probably not what the author of the file meant.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// How many prompts there are.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The prompt of a number.
    #[must_use]
    pub fn prompt(&self, number: u64) -> Option<BatchPrompt> {
        let behind = self.sources.partition_point(|source| source.first() <= number);
        self.sources.get(behind.checked_sub(1)?)?.prompt(number)
    }

    /// The prompt that a video was generated from, by the number in its prompt's id (`prompt_007`) if the text agrees,
    /// else by its text. `words` are those the video has maps of: they tell prompts of the same text and other weights
    /// apart.
    ///
    /// # Errors
    /// In words, why none was found.
    pub fn find(&self, prompt_id: Option<&str>, prompt: Option<&str>, words: &[&str]) -> Result<Found, String> {
        let text = prompt.map(|prompt| {
            comparable(&parse_weighted(prompt).map_or_else(|_| prompt.to_owned(), |variation| variation.prompt))
        });
        // Escaped parentheses of a template stand without their backslashes in what the model got.
        let literal = prompt.map(comparable).filter(|literal| text.as_ref() != Some(literal));
        let number = prompt_id.and_then(|id| id.strip_prefix("prompt_")?.parse().ok());
        let numbered = number.and_then(|number| self.prompt(number));
        let of_file = || format!("in {}", self.path.display());
        let Some(text) = text else {
            let by_number = |prompt| Found { prompt, is_by_text: false, is_literal: false };
            return numbered.map(by_number).ok_or_else(|| match number {
                Some(number) => format!("there is no prompt {number} {}", of_file()),
                None => "neither its name nor its metadata tells its prompt".into(),
            });
        };
        match numbered {
            Some(prompt) if comparable(&prompt.prompt) == text => {
                return Ok(Found { prompt, is_by_text: false, is_literal: false });
            }
            Some(prompt) if literal.as_ref().is_some_and(|literal| *literal == comparable(&prompt.prompt)) => {
                return Ok(Found { prompt, is_by_text: false, is_literal: true });
            }
            // Another one of its text would have another weight.
            Some(prompt) if prompt.is_unread => {
                return Err(format!(
                    "{} {} does not parse, so its weights are not known",
                    prompt.prompt_id(),
                    of_file()
                ));
            }
            _ => {}
        }
        let of_text = |text: &String| -> Vec<BatchPrompt> {
            self.by_text().numbers.get(text).into_iter().flatten().filter_map(|&number| self.prompt(number)).collect()
        };
        let mut alike = of_text(&text);
        let is_literal = alike.is_empty() && literal.is_some();
        if let (true, Some(literal)) = (is_literal, &literal) {
            alike = of_text(literal);
        }
        if alike.len() > 1 && alike.iter().any(|prompt| prompt.has_words(words)) {
            alike.retain(|prompt| prompt.has_words(words));
        }
        match &alike[..] {
            [one] => Ok(Found { prompt: one.clone(), is_by_text: true, is_literal }),
            [] if self.count() > self.by_text().count => {
                let first = self.by_text().count;
                Err(format!("its prompt `{text}` is none of the first {first} {}, of {}", of_file(), self.count()))
            }
            [] => Err(format!("its prompt `{text}` is none of those {}", of_file())),
            several => {
                let ids: Vec<String> = several.iter().take(4).map(BatchPrompt::prompt_id).collect();
                Err(format!(
                    "its prompt `{text}` is there {} times {} ({}…), and its name does not tell which it is",
                    several.len(),
                    of_file(),
                    ids.join(", ")
                ))
            }
        }
    }

    fn by_text(&self) -> &Texts {
        self.by_text.get_or_init(|| {
            let mut texts = Texts::default();
            let mut bytes = 0;
            for source in &self.sources {
                for (number, text) in source.texts() {
                    bytes += source.bytes().max(text.len());
                    if texts.count == TEXTS || bytes > TEXT_BYTES {
                        return texts;
                    }
                    texts.count += 1;
                    texts.numbers.entry(comparable(&text)).or_default().push(number);
                }
            }
            texts
        })
    }

    fn unfit(&self, found: String) -> BatchPromptsError {
        BatchPromptsError::Format { path: self.path.clone(), found }
    }

    fn add_template(&mut self, text: &str, line: usize) -> Result<(), BatchPromptsError> {
        let template = Template::parse(text).map_err(|source| BatchPromptsError::Template {
            path: self.path.clone(),
            line,
            source,
        })?;
        self.warnings.extend(
            template
                .warnings()
                .iter()
                .map(|warning| format!("line {line}, character {}: {}", warning.of(text).character(), warning.message)),
        );
        let first = self.count;
        self.count = first.saturating_add(template.count());
        self.sources.push(Source::Template { first, template, text: text.to_owned() });
        Ok(())
    }

    fn add_json(&mut self, json: &Value) -> Result<(), BatchPromptsError> {
        let in_batch = |key: &str| json.get(key).or_else(|| json.get("batch_info")?.get(key));
        let template = in_batch("template").and_then(Value::as_str).map(str::to_owned);
        let listed =
            json.as_array().or_else(|| in_batch("variations")?.as_array()).or_else(|| in_batch("prompts")?.as_array());
        let Some(listed) = listed.filter(|listed| !listed.is_empty()) else {
            return template.map_or(Ok(()), |template| self.add_template(&template, 1));
        };
        let template = template.or_else(|| self.template_beside()).map(|text| (Template::parse(&text).ok(), text));
        let mut prompts: BTreeMap<u64, BatchPrompt> = BTreeMap::new();
        let mut strangers = 0;
        for (index, entry) in listed.iter().enumerate() {
            let text = entry.as_str().or_else(|| PROMPT_KEYS.iter().find_map(|key| entry.get(key)?.as_str()));
            let Some(text) = text else {
                self.warnings.push(format!("prompt {index} has no text in any of the keys {}", PROMPT_KEYS.join(", ")));
                continue;
            };
            let read = parse_weighted(text);
            let is_unread = read.is_err();
            let variation = read.unwrap_or_else(|error| {
                self.warnings.push(format!("prompt {index} is taken as it is, without weights: {error}"));
                Variation { prompt: text.to_owned(), ..Variation::default() }
            });
            let own = |key: &str| entry.get(key);
            let id = |key: &&str| own(key)?.as_str()?.strip_prefix("prompt_")?.parse().ok();
            let number = ["prompt_id", "id"].iter().find_map(id).unwrap_or(index as u64);
            let mut prompt = BatchPrompt { is_unread, ..BatchPrompt::new(number, None, None, variation) };
            if let Some(template) = own("template").and_then(Value::as_str) {
                prompt.template = Some(template.to_owned());
                prompt.variation = own("variation").and_then(Value::as_u64);
            } else if let Some((parsed, text)) = &template {
                // Variations of another template are none of this one.
                let variation = parsed.as_ref().and_then(|template| template.variation(number));
                if variation.is_some_and(|variation| comparable(&variation.prompt) == comparable(&prompt.prompt)) {
                    prompt.template = Some(text.clone());
                    prompt.variation = Some(number);
                } else {
                    strangers += 1;
                }
            }
            if prompts.insert(number, prompt).is_some() {
                return Err(self.unfit(format!("there are two prompts of the id {}", prompt_id(number))));
            }
        }
        if let Some((_, text)) = template.filter(|_| strangers > 0) {
            self.warnings.push(format!(
                "{strangers} of its prompts are not those of the template `{text}`: it is not noted for them"
            ));
        }
        if !prompts.is_empty() {
            self.count = prompts.len() as u64;
            self.sources.push(Source::Listed(prompts));
        }
        Ok(())
    }

    /// The template of variations that were listed without it: the generator leaves it in files of its own.
    fn template_beside(&self) -> Option<String> {
        let dir = self.path.parent()?;
        let of_file = bounded::read_text(&dir.join("prompt_template.txt"), FILE_BYTES).ok();
        let of_file = of_file.map(|text| text.trim().to_owned());
        let of_batch = || {
            let text = bounded::read_text(&dir.parent()?.join("batch_metadata.json"), FILE_BYTES).ok()?;
            let json = Json::parse(text.as_bytes()).ok()?.value;
            json.get("batch_info")?.get("template")?.as_str().map(str::to_owned)
        };
        of_file.filter(|text| !text.is_empty()).or_else(of_batch)
    }
}

impl Source {
    /// The lowest number of a prompt.
    fn first(&self) -> u64 {
        match self {
            Self::Template { first, .. } => *first,
            Self::Listed(_) => 0,
        }
    }

    /// Bytes that each of its prompts is made of.
    fn bytes(&self) -> usize {
        match self {
            Self::Template { text, .. } => text.len(),
            Self::Listed(_) => 0,
        }
    }

    /// Numbers and texts of its prompts.
    fn texts(&self) -> Box<dyn Iterator<Item = (u64, String)> + '_> {
        match self {
            Self::Template { first, template, .. } => {
                let numbers = *first..first.saturating_add(template.count());
                let texts = template.variations().map(|variation| collapse_spaces(&variation.prompt));
                Box::new(numbers.zip(texts))
            }
            Self::Listed(prompts) => Box::new(prompts.iter().map(|(number, prompt)| (*number, prompt.prompt.clone()))),
        }
    }

    fn prompt(&self, number: u64) -> Option<BatchPrompt> {
        match self {
            Self::Template { first, template, text } => {
                let of_template = number.checked_sub(*first)?;
                let variation = template.variation(of_template)?;
                Some(BatchPrompt::new(number, Some(text.clone()), Some(of_template), variation))
            }
            Self::Listed(prompts) => prompts.get(&number).cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(name: &str, text: impl AsRef<[u8]>) -> Result<BatchPrompts, BatchPromptsError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        BatchPrompts::read(&path)
    }

    #[test]
    fn texts_are_looked_up_as_far_as_that_takes_seconds() {
        // 2^10000 variations of two letters for each bracket: all are there by their numbers, the first ones by their
        // texts as well.
        let prompts = read("t.txt", "[ab|cd]".repeat(10_000)).unwrap();
        assert_eq!(prompts.count(), u64::MAX);
        let of_number = prompts.find(Some("prompt_5000000"), None, &[]).unwrap().prompt;
        assert_eq!(prompts.find(Some("prompt_5000000"), Some(&of_number.prompt), &[]).unwrap().prompt, of_number);
        let third = "ab".repeat(9_998) + "cdab";
        assert_eq!(prompts.find(None, Some(&third), &[]).unwrap().prompt.number, 2);
        let error = prompts.find(None, Some(&of_number.prompt), &[]).unwrap_err();
        assert!(error.contains("none of the first 3834") && error.contains("of 18446744073709551615"), "{error}");
        let error = read("t.txt", format!("[{}]", "a|".repeat(60_000))).unwrap_err().to_string();
        assert!(error.contains("100000 bytes at the most, this one has 120002"), "{error}");
    }

    #[test]
    fn variations_are_numbered_through_all_templates() {
        let prompts = read("t.txt", "a (cat)\n\na [(dog:2)|(cow)] here\nb\n").unwrap();
        assert_eq!(prompts.count(), 4);
        let second = prompts.prompt(2).unwrap();
        assert_eq!(
            (second.prompt.as_str(), second.variation, second.prompt_id().as_str()),
            ("a cow here", Some(1), "prompt_002")
        );
        assert_eq!(second.template.as_deref(), Some("a [(dog:2)|(cow)] here"));
        assert_eq!(prompts.prompt(4), None);
    }

    #[test]
    fn the_number_counts_where_the_text_agrees_else_the_text() {
        let prompts = read("t.txt", "a ([red|blue] dog:2)\na (red dog:3)\n").unwrap();
        let found = |id, prompt, words: &[&str]| prompts.find(id, prompt, words).map(|found| found.prompt.number);
        assert_eq!(found(Some("prompt_002"), Some("a red dog"), &[]), Ok(2));
        assert_eq!(found(Some("prompt_000"), Some("a blue  dog"), &[]), Ok(1));
        assert_eq!(found(None, Some("a (blue dog:7)"), &[]), Ok(1));
        assert_eq!(found(Some("prompt_001"), None, &[]), Ok(1));
        assert!(found(None, Some("a red dog"), &["red dog"]).unwrap_err().contains("2 times"));
        assert!(found(Some("prompt_000"), Some("a cat"), &[]).unwrap_err().contains("none of those"));
        assert!(found(Some("prompt_009"), None, &[]).unwrap_err().contains("no prompt 9"));
    }

    #[test]
    fn literal_parentheses_and_spellings_of_characters_make_no_other_text() {
        let prompts = read("t.txt", "smiling \\(happy\\) (cat:2)\na caf\u{e9}\n").unwrap();
        let found = |id, text| prompts.find(id, Some(text), &[]).map(|found| (found.prompt.number, found.is_literal));
        assert_eq!(found(Some("prompt_000"), "smiling (happy) cat"), Ok((0, true)));
        assert_eq!(found(None, "smiling  (happy) cat"), Ok((0, true)));
        assert_eq!(found(Some("prompt_000"), "smiling \\(happy\\) (cat:2)"), Ok((0, false)));
        assert_eq!(found(Some("prompt_001"), "a cafe\u{301}"), Ok((1, false)));
        assert_eq!(found(None, "a cafe\u{301}"), Ok((1, false)));
        assert_eq!(prompts.prompt(1).unwrap().weight_of("cafe\u{301}"), Some(1.0));
    }

    #[test]
    fn weights_of_words_with_and_without_emphasis() {
        let prompts = read("t.txt", "a (dog/cat:2) and (dog/cat:3) near a tree").unwrap();
        let prompt = prompts.prompt(0).unwrap();
        assert_eq!(
            (prompt.weight_of("dog_cat"), prompt.weight_of("tree"), prompt.weight_of("cow")),
            (Some(2.0), Some(1.0), None)
        );
    }

    #[test]
    fn what_generators_write_is_understood() {
        let of_variations = r#"[{"id": "a_(dog_2)", "text": "a (dog:2)", "variables": {"var_0": "(dog:2)"}},
            {"id": "a_smile", "text": "a smile :)", "variables": {}}]"#;
        let prompts = read("prompt_variations.json", of_variations).unwrap();
        assert_eq!(prompts.prompt(0).unwrap().weight_of("dog"), Some(2.0));
        assert_eq!(
            (prompts.prompt(1).unwrap().prompt.as_str(), prompts.prompt(1).unwrap().template),
            ("a smile :)", None)
        );
        let of_batch = r#"{"batch_info": {"template": "a [(dog:2)|cat]"}, "configuration": {},
            "variations": [{"id": "a_dog", "text": "a (dog:2)"}, {"id": "a_cat", "text": "a cat"}], "results": []}"#;
        let cat = read("batch_metadata.json", of_batch).unwrap().prompt(1).unwrap();
        assert_eq!((cat.template.as_deref(), cat.variation), (Some("a [(dog:2)|cat]"), Some(1)));
        let of_template = r#"{"batch_info": {"template": "a [(dog:2)|cat]"}}"#;
        assert_eq!(read("batch_metadata.json", of_template).unwrap().prompt(1).unwrap(), cat);
    }

    #[test]
    fn what_is_odd_about_variations_is_said_and_the_others_are_used() {
        let prompts = read(
            "batch_metadata.json",
            r#"{"template": "a [cat|dog]", "variations": [{"text": "a cat"}, {"text": null},
                {"text": "a [(dog:2)|cow]"}, "a (cow:3)"]}"#,
        )
        .unwrap();
        assert_eq!(prompts.prompt(0).unwrap().template.as_deref(), Some("a [cat|dog]"));
        assert_eq!(
            (prompts.prompt(3).unwrap().template, prompts.prompt(3).unwrap().weight_of("cow")),
            (None, Some(3.0))
        );
        let unread = prompts.find(Some("prompt_002"), Some("a cow"), &[]).unwrap_err();
        assert!(unread.contains("does not parse"), "{unread}");
        let said = prompts.warnings().join(" ");
        assert!(said.contains("prompt 1 has no text") && said.contains("prompt 2 is taken as it is"), "{said}");
        assert!(said.contains("2 of its prompts are not those of the template"), "{said}");
    }

    #[test]
    fn words_are_found_as_names_and_not_within_others() {
        let prompts = read("t.txt", "\u{feff}a dog/cat in a category, (two  people:2)\r\n").unwrap();
        let prompt = prompts.prompt(0).unwrap();
        assert_eq!(prompt.prompt, "a dog/cat in a category, two people");
        let weight = |word| prompt.weight_of(word);
        assert_eq!((weight("dog_cat"), weight("categ"), weight("two people")), (Some(1.0), None, Some(2.0)));
    }

    #[test]
    fn many_lines_are_looked_up_at_once() {
        let lines: Vec<String> = (0..50_000).map(|number| format!("a [red|blue] thing {number}")).collect();
        let prompts = read("t.txt", lines.join("\n")).unwrap();
        assert_eq!(prompts.count(), 100_000);
        assert_eq!(prompts.prompt(99_999).unwrap().prompt, "a blue thing 49999");
        assert_eq!(prompts.find(None, Some("a red thing 7"), &[]).unwrap().prompt.number, 14);
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let error = |name, text: &str| read(name, text).unwrap_err().to_string();
        assert!(error("t.txt", "\n").contains("no prompt in it"));
        assert!(error("t.json", "{").contains("not JSON"));
        assert!(error("t.json", r#"[{"id": 1}]"#).contains("no prompt in it"));
        assert!(
            error("t.json", r#"[{"id": "prompt_000", "text": "a"}, {"id": "prompt_000", "text": "b"}]"#)
                .contains("two prompts of the id prompt_000")
        );
        let of_csv = read("t.csv", "a").unwrap_err();
        assert!(of_csv.remedy().unwrap().tries().eq([&CommandName::Expand.here()]), "{of_csv}");
        let of_bytes = |name, bytes: &[u8]| read(name, bytes).unwrap_err().to_string();
        assert!(
            of_bytes("t.txt", b"\xff\xfea\0").contains("UTF-16") && of_bytes("t.json", b"a\xff").contains("not UTF-8")
        );
        assert!(error("t.txt", "a\n[b").contains("t.txt:2: at character 1"));
    }
}
