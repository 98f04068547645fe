//! What is to do for one video: which words are new or changed, and which stay as they are in the store.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};

use super::candidates::{Candidate, Candidates};
use super::damage::VideoDamage;
use super::findings::Findings;
use super::options::IngestOptions;
use super::prompts::{Prompts, VideoPrompt};
use super::recognise::{Same, batch_of, compare, origin, other_video, update_source};
use super::report::Remark;
use crate::dump::{Problem, Series, StepFiles, Video, read_summary};
use crate::json::{Json, Object};
use crate::remedy::{Note, OptionName, Remedy};
use crate::store::{Heads, Recipe, StepRow, Store, StoreError, VideoIndex};

/// A video to plan: compared with its committed state, words that are new or changed are found. This is the only task
/// that looks at the dump's metadata and at the heads of its files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanTask {
    /// Its id in the store.
    pub video_id: String,
    /// What the dump has of it.
    pub(super) video: Option<Video>,
    /// What alone is written, if it is damage that is mended.
    pub(super) damage: Option<VideoDamage>,
    /// How it is ingested.
    pub(super) options: Arc<IngestOptions>,
}

impl PlanTask {
    /// Plans the video, after finishing a commit of it that was interrupted.
    pub(super) fn run(&self, store: &Store, prompts: &Prompts) -> Result<VideoPlan, StoreError> {
        let committed = store.mend(&self.video_id).and_then(|()| Committed::read(store, &self.video_id));
        self.plan(Some(store), committed, prompts)
    }

    /// The same, without touching the store, which may not be there.
    pub(super) fn look(&self, store: Option<&Store>, prompts: &Prompts) -> Result<VideoPlan, StoreError> {
        let committed = store.map_or_else(|| Ok(Committed::default()), |store| Committed::read(store, &self.video_id));
        self.plan(store, committed, prompts)
    }

    fn plan(
        &self,
        store: Option<&Store>,
        committed: Result<Committed, StoreError>,
        prompts: &Prompts,
    ) -> Result<VideoPlan, StoreError> {
        let committed = match (committed, store) {
            (Err(StoreError::Damaged { .. } | StoreError::Parquet { .. }), Some(store))
                if self.damage == Some(VideoDamage::Rows) =>
            {
                Committed { generation: store.committed(&self.video_id)?, ..Committed::default() }
            }
            (Err(error @ (StoreError::Damaged { .. } | StoreError::Parquet { .. })), Some(store)) => {
                // One damaged part is no reason to stop: its video waits, the others are ingested.
                let problem = Problem::Remark(format!("the store's index of it cannot be read: {error}"));
                let dir = self.video.as_ref().map_or_else(|| store.place(), |video| video.dir.clone());
                let findings = Findings { problems: vec![problem.at(dir)], ..Findings::default() };
                return Ok(VideoPlan { findings, ..VideoPlan::default() });
            }
            (committed, _) => committed?,
        };
        let (id, options) = (&self.video_id, &self.options);
        let mut plan = match (&self.video, &self.damage) {
            (video, Some(damage @ VideoDamage::Words(_))) => {
                VideoPlan::of_damage(video.as_ref(), id, damage, options, &committed)
            }
            (Some(video), _) => VideoPlan::new(video, id, prompts, options, &committed),
            (None, _) => VideoPlan::default(),
        };
        for candidates in &mut plan.to_write {
            candidates.settle(&mut plan.findings);
        }
        plan.dir = store.map_or_else(String::new, |store| store.video_key(id));
        plan.series = committed.rows().iter().map(|row| row.series_path().to_owned()).collect();
        plan.with_heads = committed.heads.iter().flat_map(Heads::keys).cloned().collect();
        plan.base = committed.generation;
        Ok(plan)
    }
}

/// What is to do for one video.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct VideoPlan {
    /// The generation that it was planned on, which a commit replaces.
    pub(super) base: Option<String>,
    /// Directory of the video, below the store.
    pub(super) dir: String,
    /// Directories of its committed words, below the store.
    pub(super) series: BTreeSet<String>,
    /// Words whose statistics are there.
    pub(super) with_heads: BTreeSet<String>,
    pub(super) summary: Option<Object>,
    /// Rows of words that keep their arrays, with sources brought up to date.
    pub(super) kept: Vec<StepRow>,
    /// Words to write.
    pub(super) to_write: Vec<Candidates>,
    /// What is known of its prompt.
    pub(super) prompt: VideoPrompt,
    /// Whether a commit is needed even if no word is to write.
    pub(super) touched: bool,
    pub(super) findings: Findings,
}

impl VideoPlan {
    /// Compares a video of the dump with its committed state.
    fn new(video: &Video, id: &str, prompts: &Prompts, options: &Arc<IngestOptions>, committed: &Committed) -> Self {
        let mut plan = Self::default();
        let (mut committed, nothing) = (committed, Committed::default());
        if let Some(elsewhere) = other_video(committed.rows(), video) {
            if !options.replace {
                plan.refuse(video, id, &elsewhere);
                return plan;
            }
            committed = &nothing;
            let remark = format!("video {id} replaces the one that was there, {}", origin(&elsewhere));
            plan.findings.remarks.push(Remark::new(&video.dir, remark));
        }
        match video.summary.as_deref().map(read_summary).transpose() {
            Ok(read) => {
                if let (Some((summary, odd)), Some(path)) = (read, &video.summary) {
                    plan.findings.remark_once(path, odd);
                    plan.summary = Some(summary);
                }
            }
            Err(problem) => plan.findings.problems.push(problem),
        }
        plan.check_summary(video);
        let mut stored: HashMap<&str, BTreeMap<i32, StepRow>> = HashMap::new();
        for row in committed.rows() {
            stored.entry(&row.token).or_default().insert(row.step, row.clone());
        }
        for series in &video.series {
            let rows = stored.remove(series.token.as_str()).unwrap_or_default();
            plan.add_series(video, id, series, rows, options, committed);
        }
        for (token, rows) in stored {
            let series = Series::without_files(token);
            plan.add_series(video, id, &series, rows, options, committed);
        }
        let old_summary = committed.previous.as_ref().and_then(|index| index.record.summary.clone());
        plan.touched |= match &plan.summary {
            Some(_) => plan.summary != old_summary,
            None => false,
        };
        plan.summary = plan.summary.or(old_summary);
        plan.look_up_prompt(video, id, prompts, committed.rows());
        plan
    }

    /// Writes what is damaged of a video's words anew, and nothing else: damaged values from the files that they came
    /// from, where these are what they were, and all other values from the store. `video` is `None` if the dump does
    /// not have it.
    fn of_damage(
        video: Option<&Video>,
        id: &str,
        damage: &VideoDamage,
        options: &IngestOptions,
        committed: &Committed,
    ) -> Self {
        let summary = committed.previous.as_ref().and_then(|index| index.record.summary.clone());
        let mut plan = Self { summary, ..Self::default() };
        for rows in committed.rows().chunk_by(|a, b| a.token == b.token) {
            let Some(first) = rows.first() else { continue };
            let Some(word) = damage.of(&first.token) else {
                plan.kept.extend_from_slice(rows);
                continue;
            };
            let rollups = |stored: &Recipe| word.rollups.unwrap_or(stored.rollups);
            let recipe =
                committed.recipe(&first.token).map(|stored| Recipe { rollups: rollups(stored), ..stored.clone() });
            let of_dump = video.and_then(|video| video.series.iter().find(|series| series.token == first.token));
            let mut candidates = Candidates {
                video_id: id.to_owned(),
                prompt_id: first.prompt_id.clone(),
                batch: String::new(),
                series: of_dump.cloned().unwrap_or_else(|| Series::without_files(&first.token)),
                steps: BTreeMap::new(),
                stored: rows.iter().map(|row| (row.step, row.clone())).collect(),
                lost_heads: true,
                rewrite: false,
                options: Arc::new(recipe.as_ref().map_or_else(|| options.clone(), |recipe| recipe.as_options(options))),
                stored_recipe: recipe,
                is_mended: true,
            };
            let files: Vec<StepFiles> =
                candidates.series.steps.iter().filter(|files| word.steps.contains(&files.step)).cloned().collect();
            for files in &files {
                let is_same = rows.iter().find(|row| row.step == files.step).map(|row| compare(row, files));
                if matches!(is_same, Some(Same::Not)) {
                    let remark = "is not what was ingested any more, and mends nothing".to_owned();
                    plan.findings.problems.push(Problem::Remark(remark).at(files.path()));
                } else {
                    candidates.look_at(files, true, &mut plan.findings);
                }
            }
            plan.to_write.push(candidates);
        }
        plan
    }

    /// Finds the video's prompt, and checks the ids of its words.
    fn look_up_prompt(&mut self, video: &Video, video_id: &str, prompts: &Prompts, rows: &[StepRow]) {
        let of_new = self.to_write.iter().flat_map(|candidates| candidates.steps.values());
        let of_kept = self.kept.iter().filter_map(|row| row.prompt.as_deref());
        let is_there = |prompt: &&str| !prompt.trim().is_empty();
        let prompts_told = of_new.filter_map(|candidate| candidate.metadata.prompt.as_deref()).chain(of_kept);
        let batch = batch_of(video_id, video);
        self.prompt = prompts.of(video, batch, { prompts_told }.find(is_there), rows, &mut self.findings);
        let of_new = self.to_write.iter().flat_map(|candidates| {
            candidates.steps.values().map(|Candidate { files, metadata, .. }| {
                let path = files.parts.first().map_or(Path::new(""), |part| part.metadata.as_path());
                let prompt = metadata.prompt.as_deref().unwrap_or_default();
                (path, candidates.series.token.as_str(), prompt, metadata.token_ids.as_slice())
            })
        });
        let of_kept = self.kept.iter().map(|row| {
            let prompt = row.prompt.as_deref().unwrap_or_default();
            (Path::new(&row.source), row.token.as_str(), prompt, row.token_ids.as_slice())
        });
        prompts.check_ids(of_new.chain(of_kept), &mut self.findings);
    }

    /// Leaves a video as it is in the store, since the dump's is another one of the same id.
    fn refuse(&mut self, video: &Video, video_id: &str, elsewhere: &Path) {
        let found = format!("video {video_id} is in the store already, with other contents, {}", origin(elsewhere));
        let tries = [OptionName::Prefix.any(), OptionName::Replace.on()];
        let remedy = Remedy::of("keep both with {}, or replace it with {}", tries);
        self.findings.problems.push(Problem::refused(found, remedy).at(&video.dir));
        self.findings.done = (video.series.iter().map(|series| series.steps.len() as u64).sum(), video.bytes());
    }

    fn add_series(
        &mut self,
        video: &Video,
        video_id: &str,
        series: &Series,
        mut stored: BTreeMap<i32, StepRow>,
        options: &Arc<IngestOptions>,
        committed: &Committed,
    ) {
        let stored_recipe = committed.recipe(&series.token);
        let recipe = options.recipe();
        let recipe = stored_recipe.map_or_else(|| recipe.clone(), |stored| recipe.for_stored(stored));
        // Another codec is no reason to write the same values again.
        let same_recipe = stored_recipe.is_none_or(|stored| Recipe { codec: recipe.codec, ..stored.clone() } == recipe);
        let wanted = |files: &&StepFiles| i64::from(files.step) % i64::from(options.every.max(1)) == 0;
        let mut files: Vec<&StepFiles> = series.steps.iter().filter(wanted).collect();
        // Steps that are left out now are so in the store, too, if others are there instead.
        let is_left_out = |files: &&StepFiles| options.replace && !wanted(files);
        let left_out = series.steps.iter().filter(|step| !files.is_empty() && is_left_out(step));
        let left_out = left_out.filter_map(|files| stored.remove(&files.step)).count();
        if left_out > 0 {
            let remark = format!("{left_out} steps of the store that are no multiple of {} are removed", options.every);
            self.findings.remarks.push(Remark::new(&series.dir, remark));
        }
        let lost_heads = !stored.is_empty() && !committed.has_heads(&series.token);
        let rewrite = (!same_recipe || left_out > 0) && !stored.is_empty() && !files.is_empty();
        let batch = batch_of(video_id, video);
        let mut candidates = Candidates {
            video_id: video_id.to_owned(),
            prompt_id: video.prompt_id.as_ref().map(|id| format!("{batch}{id}")),
            batch: batch.to_owned(),
            series: series.clone(),
            steps: BTreeMap::new(),
            stored,
            lost_heads,
            rewrite: rewrite && options.replace,
            stored_recipe: stored_recipe.cloned(),
            options: if recipe.rollups == options.rollups {
                options.clone()
            } else {
                Arc::new(recipe.as_options(options))
            },
            is_mended: false,
        };
        let mut fresh = Vec::new();
        for files in &files {
            match candidates.stored.get_mut(&files.step).map(|row| (compare(row, files), row)) {
                Some((Same::AsListed, _)) => {}
                Some((Same::InContent, row)) => {
                    update_source(row, files);
                    self.touched = true;
                }
                Some((Same::Not, _)) | None => fresh.push(files.step),
            }
        }
        if rewrite && !options.replace {
            let found = format!(
                "the store has this word with other settings ({}) and keeps it as it is",
                stored_recipe.map(|stored| stored.differences(&recipe)).unwrap_or_default()
            );
            let remedy = Remedy::of("use another store, or {} to write it anew", [OptionName::Replace.on()]);
            if fresh.is_empty() {
                self.findings.remarks.push(Remark::new(&series.dir, Note::new(found, remedy)));
            } else {
                self.findings.problems.push(Problem::refused(found, remedy).at(&series.dir));
            }
            self.findings.skipped += (files.len() - fresh.len()) as u64;
            files.clear();
        } else if fresh.is_empty() && !candidates.is_forced() {
            self.findings.skipped += files.len() as u64;
            files.clear();
        }
        for files in &files {
            let is_new = fresh.contains(&files.step) || rewrite;
            candidates.look_at(files, is_new, &mut self.findings);
        }
        for files in series.steps.iter().filter(|files| !candidates.steps.contains_key(&files.step)) {
            self.findings.done.0 += 1;
            self.findings.done.1 += files.bytes();
        }
        if candidates.steps.is_empty() && !lost_heads {
            self.kept.extend(candidates.into_stored());
        } else {
            self.to_write.push(candidates);
        }
    }

    /// Says which steps a summary lists that have no files.
    fn check_summary(&mut self, video: &Video) {
        let (Some(summary), Some(path)) = (&self.summary, &video.summary) else { return };
        let Some(listed) = summary.get("stored_steps").and_then(Json::as_array) else { return };
        let there = |step: &Json| {
            let files = video.series.iter().flat_map(|series| &series.steps);
            step.as_integer().is_some_and(|step| files.into_iter().any(|files| i128::from(files.step) == step))
        };
        let missing: Vec<String> = listed.iter().filter(|step| !there(step)).map(Json::to_string).collect();
        if !missing.is_empty() && !video.series.is_empty() {
            let message = format!("lists steps without files: {}", missing.join(", "));
            self.findings.remarks.push(Remark::new(path, message));
        }
    }
}

/// The committed state of a video.
#[derive(Default)]
pub(super) struct Committed {
    /// Its rows, if there are any.
    pub previous: Option<VideoIndex>,
    /// Its statistics; `None` if they were lost and must be computed anew.
    pub heads: Option<Heads>,
    /// Its rows of `text`, if it has any.
    pub text: Option<RecordBatch>,
    /// Its generation, which is what a commit replaces.
    pub generation: Option<String>,
}

impl Committed {
    /// Of a video. Statistics that cannot be read count as lost.
    pub fn read(store: &Store, video_id: &str) -> Result<Self, StoreError> {
        let snapshot = store.snapshot();
        let previous = snapshot.read_video(video_id)?;
        let heads = previous.as_ref().and_then(|index| snapshot.read_heads(index).ok().flatten());
        let text = snapshot.read_text(video_id)?.map(|(_, text)| text);
        Ok(Self { text, ..Self::new(previous, heads) })
    }

    /// What was read of a video, but for its rows of `text`.
    pub fn new(previous: Option<VideoIndex>, heads: Option<Heads>) -> Self {
        let generation = previous.as_ref().map(|index| index.generation.clone());
        Self { previous, heads, text: None, generation }
    }

    /// Its rows.
    pub fn rows(&self) -> &[StepRow] {
        self.previous.as_ref().map_or(&[], |index| &index.rows)
    }

    /// The video's `summary.json`.
    pub fn summary(&self) -> Option<Object> {
        self.previous.as_ref()?.record.summary.clone()
    }

    /// The settings a word was ingested with.
    pub fn recipe(&self, token: &str) -> Option<&Recipe> {
        self.previous.as_ref()?.record.recipe.get(token)
    }

    /// Whether the statistics of a word are there.
    pub fn has_heads(&self, token: &str) -> bool {
        self.heads.as_ref().is_some_and(|heads| heads.contains_key(token))
    }
}
