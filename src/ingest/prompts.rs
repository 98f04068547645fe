//! What is known of the prompts of an ingest's videos beyond their metadata: templates, variations, weights, and a
//! tokenizer.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::IngestError;
use super::findings::Findings;
use super::lock;
use super::options::IngestOptions;
use super::report::Remark;
use crate::dump::Video;
use crate::prompt::{BatchPrompt, BatchPrompts, Tokenizer, TrackedWord, as_name, parse_weighted};
use crate::store::StepRow;

/// The prompts and the tokenizer of an ingest.
#[derive(Default)]
pub(super) struct Prompts {
    /// Named by the user: for all videos.
    given: Option<Arc<BatchPrompts>>,
    /// What generators left beside the maps, by directory of the maps.
    beside: Mutex<HashMap<PathBuf, Beside>>,
    tokenizer: Option<Tokenizer>,
}

/// What a generator left beside the maps.
#[derive(Default)]
struct Beside {
    /// Its files, as they were when they were read.
    files: Vec<(PathBuf, u64, SystemTime)>,
    prompts: Option<Arc<BatchPrompts>>,
}

/// What is known of one video's prompt.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct VideoPrompt {
    /// The prompt of the batch that it was generated from.
    prompt: Option<BatchPrompt>,
    /// What ids of prompts begin with, as the video's does.
    batch: String,
    /// Weights in names of directories, by word.
    named: Vec<TrackedWord>,
    /// Words with their weights in the prompt of the metadata.
    written: Vec<TrackedWord>,
    /// What the store knows already, by word.
    stored: HashMap<String, Stored>,
}

/// What the store knows of a word's prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Stored {
    prompt: Option<String>,
    prompt_id: Option<String>,
    template: Option<String>,
    variation: Option<i32>,
    #[serde(with = "crate::json::exact::option")]
    weight: Option<f64>,
}

impl Prompts {
    pub fn new(options: &IngestOptions) -> Result<Self, IngestError> {
        let given = options.prompts.as_deref().map(BatchPrompts::read).transpose()?;
        let tokenizer = options.tokenizer.as_deref().map(Tokenizer::open).transpose()?;
        Ok(Self { given: given.map(Arc::new), beside: Mutex::default(), tokenizer })
    }

    /// Remarks on the prompts that the user named.
    pub fn remarks(&self) -> Vec<Remark> {
        self.given.as_deref().map(remarks).unwrap_or_default()
    }

    /// Directories of maps whose prompts are others than when they were last looked at. They are read again when they
    /// are needed.
    pub fn changed(&self) -> Vec<PathBuf> {
        let mut beside = lock(&self.beside);
        let changed = |(maps, known): (&PathBuf, &Beside)| (files_beside(maps) != known.files).then(|| maps.clone());
        let changed: Vec<PathBuf> = beside.iter().filter_map(changed).collect();
        beside.retain(|maps, _| !changed.contains(maps));
        changed
    }

    /// What is known of the prompt of a video, whose id has `batch` before its name, whose metadata has `prompt` and
    /// which the store has as `rows`. What was not matched is among the findings.
    pub fn of(
        &self,
        video: &Video,
        batch: &str,
        prompt: Option<&str>,
        rows: &[StepRow],
        findings: &mut Findings,
    ) -> VideoPrompt {
        let mut remark = |message: String| findings.remarks.push(Remark::new(&video.dir, message));
        let written = prompt.map(parse_weighted).transpose().unwrap_or_else(|error| {
            // Many prompts have a parenthesis somewhere; this one is meant as emphasis.
            let is_meant = prompt.is_some_and(|prompt| prompt.contains('(') && prompt.contains(':'));
            is_meant.then(|| remark(format!("weights in its prompt are not read: {error}")));
            None
        });
        let mut known = VideoPrompt {
            prompt: None,
            batch: batch.to_owned(),
            named: video
                .series
                .iter()
                .filter_map(|series| Some(TrackedWord { word: series.token.clone(), weight: series.weight? }))
                .collect(),
            written: written.unwrap_or_default().tokens,
            stored: rows.iter().map(|row| (row.token.clone(), Stored::of(row))).collect(),
        };
        let words: Vec<&str> = video.series.iter().map(|series| series.token.as_str()).collect();
        if let Some(prompts) = self.of_batch(&video.root, findings) {
            let found = prompts.find(video.prompt_id.as_deref(), prompt, &words);
            findings.prompt_found = Some(found.is_ok());
            match found {
                Err(reason) => findings.remarks.push(Remark::new(&video.dir, reason)),
                Ok(found) => {
                    if let (true, Some(id)) = (found.is_by_text, &video.prompt_id) {
                        let message = format!(
                            "its text is that of {} in {}, and not that of {id}, as its name says; the text counts",
                            found.prompt.prompt_id(),
                            prompts.path().display()
                        );
                        findings.remarks.push(Remark::new(&video.dir, message));
                    }
                    if found.is_literal {
                        known.written.clear();
                    }
                    known.prompt = Some(found.prompt);
                }
            }
        }
        let disagreements = words.iter().filter_map(|word| known.disagreement(word));
        findings.remarks.extend(disagreements.map(|message| Remark::new(&video.dir, message)));
        known
    }

    /// Says where the token ids of a row are not those of the tokenizer.
    pub fn check_ids<'a>(
        &self,
        rows: impl Iterator<Item = (&'a Path, &'a str, &'a str, &'a [i64])>,
        findings: &mut Findings,
    ) {
        let Some(tokenizer) = &self.tokenizer else { return };
        let mut seen = BTreeSet::new();
        for (path, word, prompt, ids) in rows {
            if ids.is_empty() || !seen.insert((word, ids)) {
                continue;
            }
            let clean = parse_weighted(prompt).map_or_else(|_| prompt.to_owned(), |variation| variation.prompt);
            let message = match tokenizer.check(word, &clean, ids) {
                Ok(None) => continue,
                Ok(Some(disagreement)) => disagreement,
                Err(error) => error.to_string(),
            };
            findings.remarks.push(Remark::new(path, message));
        }
    }

    fn of_batch(&self, maps: &Path, findings: &mut Findings) -> Option<Arc<BatchPrompts>> {
        if self.given.is_some() {
            return self.given.clone();
        }
        let mut beside = lock(&self.beside);
        if let Some(known) = beside.get(maps) {
            return known.prompts.clone();
        }
        let files = files_beside(maps);
        let prompts = BatchPrompts::beside(maps).unwrap_or_else(|error| {
            findings.remarks.push(Remark::new(maps, format!("the prompts beside it are not known: {error}")));
            None
        });
        findings.remarks.extend(prompts.iter().flat_map(remarks));
        let prompts = prompts.map(Arc::new);
        beside.insert(maps.to_owned(), Beside { files, prompts: prompts.clone() });
        prompts
    }
}

fn remarks(prompts: &BatchPrompts) -> Vec<Remark> {
    prompts.warnings().iter().map(|warning| Remark::new(prompts.path(), warning)).collect()
}

fn files_beside(maps: &Path) -> Vec<(PathBuf, u64, SystemTime)> {
    let signature = |path: PathBuf| {
        let found = path.metadata().ok()?;
        Some((path, found.len(), found.modified().ok()?))
    };
    BatchPrompts::files_beside(maps).filter_map(signature).collect()
}

impl Stored {
    fn of(row: &StepRow) -> Self {
        Self {
            prompt: row.prompt.clone(),
            prompt_id: row.prompt_id.clone(),
            template: row.template.clone(),
            variation: row.variation,
            weight: row.weight,
        }
    }
}

impl VideoPrompt {
    /// Puts what is known into rows of the video; what is not known stays as it is in the store. Returns whether
    /// anything changed.
    pub fn fill(&self, rows: &mut [StepRow]) -> bool {
        let mut changed = false;
        for row in rows {
            let before = Stored::of(row);
            // A row that was written anew has only what the dump tells.
            if let Some(stored) = self.stored.get(&row.token).filter(|stored| stored.prompt == row.prompt) {
                row.prompt_id = row.prompt_id.take().or_else(|| stored.prompt_id.clone());
                if row.template.is_none() {
                    (row.template, row.variation) = (stored.template.clone(), stored.variation);
                }
                row.weight = row.weight.or(stored.weight);
            }
            let weight = self.weight(&row.token).or(row.weight);
            if let Some(prompt) = &self.prompt {
                row.prompt_id.get_or_insert_with(|| format!("{}{}", self.batch, prompt.prompt_id()));
                // A template that led to another weight is not this prompt's.
                if prompt.template.is_some() || weight != row.weight {
                    row.template.clone_from(&prompt.template);
                    row.variation = prompt.variation.and_then(|number| i32::try_from(number).ok());
                }
            }
            row.weight = weight;
            changed |= before != Stored::of(row);
        }
        changed
    }

    /// A word's weight: that in the name of its directory, else in its metadata's prompt, else in the batch's.
    fn weight(&self, word: &str) -> Option<f64> {
        let of_batch = || self.prompt.as_ref().and_then(|prompt| prompt.weight_of(word));
        let named = self.named.iter().find(|named| named.word == word).map(|named| named.weight);
        named.or_else(|| self.written(word).next()).or_else(of_batch)
    }

    /// A word's weights in the metadata's prompt.
    fn written(&self, word: &str) -> impl Iterator<Item = f64> {
        let name = as_name(word);
        self.written.iter().filter(move |token| as_name(&token.word) == name).map(|token| token.weight)
    }

    /// What is said of a word's weight in one place and otherwise in another.
    fn disagreement(&self, word: &str) -> Option<String> {
        let weight = self.weight(word);
        if let (Some(weight), Some(written)) = (weight, self.written(word).find(|&written| Some(written) != weight)) {
            return Some(format!("`{word}` has weight {weight} and also {written} in its prompt; {weight} counts"));
        }
        let prompt = self.prompt.as_ref()?;
        let name = as_name(word);
        let mut others = prompt.tokens.iter().filter(|token| as_name(&token.word) == name).map(|token| token.weight);
        if let (Some(weight), Some(other)) = (weight, others.find(|&other| Some(other) != weight))
            && Some(weight) == prompt.weight_of(word)
        {
            return Some(format!(
                "`{word}` has weight {weight} and also {other} in {}; {weight} counts",
                prompt.prompt_id()
            ));
        }
        match (prompt.weight_of(word), weight) {
            (None, None) => Some(format!("`{word}` is not in the prompt `{}`: its weight is not known", prompt.prompt)),
            (Some(of_batch), Some(weight)) if of_batch != weight => Some(format!(
                "`{word}` has weight {weight} in the dump, {of_batch} in {}; the dump counts",
                prompt.prompt_id()
            )),
            _ => None,
        }
    }
}
