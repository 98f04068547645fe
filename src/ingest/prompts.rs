//! What is known of the prompts of an ingest's videos beyond their metadata: templates, variations, weights, and a tokenizer.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::IngestError;
use super::options::IngestOptions;
use super::plan::Findings;
use super::report::Remark;
use crate::dump::Video;
use crate::prompt::{BatchPrompt, BatchPrompts, BatchPromptsError, Tokenizer, TrackedWord, parse_weighted};
use crate::store::StepRow;

/// The prompts and the tokenizer of an ingest.
#[derive(Default)]
pub(super) struct Prompts {
    /// Named by the user: for all videos.
    given: Option<Arc<BatchPrompts>>,
    /// What generators left beside the maps, by directory of the maps.
    beside: Mutex<HashMap<PathBuf, Option<Arc<BatchPrompts>>>>,
    tokenizer: Option<Tokenizer>,
}

/// What is known of one video's prompt.
#[derive(Debug, Default)]
pub(super) struct VideoPrompt {
    /// The prompt of the batch that it was generated from.
    prompt: Option<BatchPrompt>,
    /// Weights in names of directories, by word.
    named: HashMap<String, f64>,
    /// Weights in the prompt of the metadata.
    written: Vec<TrackedWord>,
}

impl Prompts {
    pub fn new(options: &IngestOptions) -> Result<Self, IngestError> {
        let given = options.prompts.as_deref().map(BatchPrompts::read).transpose()?;
        let tokenizer = options.tokenizer.as_deref().map(Tokenizer::open).transpose()?;
        Ok(Self { given: given.map(Arc::new), beside: Mutex::default(), tokenizer })
    }

    /// Remarks on the prompts that the user named.
    pub fn remarks(&self) -> Vec<Remark> {
        let remark = |prompts: &Arc<BatchPrompts>| {
            prompts.warnings().iter().map(|warning| Remark::new(prompts.path(), warning)).collect()
        };
        self.given.as_ref().map(remark).unwrap_or_default()
    }

    /// What is known of the prompt of a video, whose metadata has `prompt`. What was not matched is among the findings.
    pub fn of(&self, video: &Video, prompt: Option<&str>, findings: &mut Findings) -> VideoPrompt {
        let mut known = VideoPrompt {
            prompt: None,
            named: video.series.iter().filter_map(|series| Some((series.token.clone(), series.weight?))).collect(),
            written: prompt.and_then(|prompt| parse_weighted(prompt).ok()).unwrap_or_default().tokens,
        };
        let words: Vec<&str> = video.series.iter().map(|series| series.token.as_str()).collect();
        let Some(prompts) = self.of_batch(&video.root, findings) else { return known };
        match prompts.find(video.prompt_id.as_deref(), prompt, &words) {
            Err(reason) => {
                findings.prompt_found = Some(false);
                findings.remarks.push(Remark::new(&video.dir, reason));
            }
            Ok(prompt) => {
                findings.prompt_found = Some(true);
                known.prompt = Some(prompt);
                for word in words {
                    findings.remarks.extend(known.disagreement(word).map(|message| Remark::new(&video.dir, message)));
                }
            }
        }
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
        let mut beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        let found = beside.entry(maps.to_owned()).or_insert_with(|| match BatchPrompts::beside(maps) {
            Ok(prompts) => {
                let prompts = prompts.map(Arc::new);
                let warnings = prompts
                    .iter()
                    .flat_map(|prompts| prompts.warnings().iter().map(|warning| Remark::new(prompts.path(), warning)));
                findings.remarks.extend(warnings);
                prompts
            }
            Err(error) => {
                let path = match &error {
                    BatchPromptsError::Io { path, .. }
                    | BatchPromptsError::Format { path, .. }
                    | BatchPromptsError::Template { path, .. } => path.clone(),
                };
                findings.remarks.push(Remark::new(&path, format!("is left aside: {error}")));
                None
            }
        });
        found.clone()
    }
}

impl VideoPrompt {
    /// Puts what is known into rows of the video; what is not known stays as it is. Returns whether anything changed.
    pub fn fill(&self, rows: &mut [StepRow]) -> bool {
        let mut changed = false;
        for row in rows {
            let before = (row.prompt_id.clone(), row.template.clone(), row.variation, row.weight);
            if let Some(prompt) = &self.prompt {
                row.prompt_id.get_or_insert_with(|| prompt.prompt_id());
                if prompt.template.is_some() {
                    row.template.clone_from(&prompt.template);
                    row.variation = prompt.variation.and_then(|number| i32::try_from(number).ok());
                }
            }
            row.weight = self.weight(&row.token).or(row.weight);
            changed |= before != (row.prompt_id.clone(), row.template.clone(), row.variation, row.weight);
        }
        changed
    }

    /// A word's weight: that in the name of its directory, else in its metadata's prompt, else in the batch's.
    fn weight(&self, word: &str) -> Option<f64> {
        let written = || self.written.iter().find(|token| token.word == word).map(|token| token.weight);
        let of_batch = || self.prompt.as_ref().and_then(|prompt| prompt.weight_of(word));
        self.named.get(word).copied().or_else(written).or_else(of_batch)
    }

    /// What the prompt of the batch says otherwise of a word than the dump.
    fn disagreement(&self, word: &str) -> Option<String> {
        let prompt = self.prompt.as_ref()?;
        match (prompt.weight_of(word), self.weight(word)) {
            (None, None) => Some(format!("`{word}` is not in the prompt `{}`: its weight is not known", prompt.prompt)),
            (Some(of_batch), Some(weight)) if of_batch != weight => Some(format!(
                "`{word}` has weight {weight} in the dump, {of_batch} in {}; the dump counts",
                prompt.prompt_id()
            )),
            _ => None,
        }
    }
}
