//! What is to do for one video: which words are new or changed, from where each of their steps comes, and how it will
//! be laid out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::agreement::{differences_of_runs, most_voted, other_run};
use super::damage::VideoDamage;
use super::options::{IngestOptions, Names};
use super::prompts::{Prompts, VideoPrompt};
use super::report::Remark;
use crate::dump::{
    CALENDAR, DumpError, Problem, ReadOptions, Series, StepFiles, StepMetadata, StepPeek, StepReader, Video,
    content_hash, is_word, micros, read_step_metadata, read_summary, same_name,
};
use crate::grid::{Grid, GridError};
use crate::json::{Json, Object};
use crate::shape::AxisNumbers;
use crate::store::{Heads, Recipe, SeriesLayout, StepRow, Store, VideoIndex, has_same_chunking};

/// How one word of one video is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesPlan {
    /// The video.
    pub video_id: String,
    /// Its prompt's id.
    pub prompt_id: Option<String>,
    /// The word.
    pub token: String,
    /// The word's weight, where known.
    pub weight: Option<f64>,
    /// Directory the step files are in.
    pub source: PathBuf,
    /// Directory of the arrays, below the store.
    pub path: String,
    /// Shapes, chunks and codec.
    pub layout: SeriesLayout,
    /// Shape and type that every step file must have.
    pub found: StepPeek,
    /// Grid of the step files.
    pub source_grid: Option<Grid>,
    /// Grid of what is stored.
    pub grid: Option<Grid>,
    /// What is done with the values.
    pub recipe: Recipe,
    /// How files are read.
    pub read: ReadOptions,
    /// Blocks and heads of split files.
    pub split: AxisNumbers,
    /// Blocks and heads of what is stored, where they do not count from 0.
    pub numbers: AxisNumbers,
    /// Names of the arrays that are read of npz archives.
    pub npz_arrays: Vec<String>,
    /// What was lost before, where the dump was exported from a store.
    pub lost: serde_json::Map<String, serde_json::Value>,
}

/// One step to write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepPlan {
    /// The denoising step.
    pub step: i32,
    /// Where its values come from.
    pub source: StepSource,
}

/// Where the values of a step come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum StepSource {
    /// Files of the dump.
    Files {
        /// The files.
        files: StepFiles,
        /// Their metadata (of the first, if split).
        metadata: Box<StepMetadata>,
    },
    /// A row of the word's previous generation, whose files are gone or damaged.
    Stored {
        /// Its array, below the store.
        array: String,
        /// Its place on the step axis.
        row: i32,
    },
}

/// What is to do for one video.
#[derive(Default)]
pub(super) struct VideoPlan {
    pub video_id: String,
    pub summary: Option<Object>,
    /// Rows of words that keep their arrays, with sources brought up to date.
    pub kept: Vec<StepRow>,
    /// Words to write.
    pub to_write: Vec<Candidates>,
    /// What is known of its prompt.
    pub prompt: VideoPrompt,
    /// Whether a commit is needed even if no word is to write.
    pub touched: bool,
    pub findings: Findings,
}

/// What planning noticed.
#[derive(Default)]
pub(super) struct Findings {
    pub problems: Vec<DumpError>,
    pub remarks: Vec<Remark>,
    /// Steps that need no work, or cannot be worked on, and their bytes: for progress.
    pub skipped: u64,
    pub done: (u64, u64),
    /// Whether the prompt was found, where there are prompts to look in.
    pub prompt_found: Option<bool>,
}

/// The steps of one word that may be written: planned anew whenever one turns out to be unusable.
pub(super) struct Candidates {
    video_id: String,
    prompt_id: Option<String>,
    /// What is before the video's own name in its id: prompts of other batches are other ones.
    batch: String,
    series: Series,
    steps: BTreeMap<i32, Candidate>,
    /// Committed rows of the word, by step.
    stored: BTreeMap<i32, StepRow>,
    /// Whether the word's statistics must be computed anew.
    lost_heads: bool,
    /// Whether all steps are written anew because the settings differ.
    rewrite: bool,
    /// The settings that the committed rows were ingested with.
    stored_recipe: Option<Recipe>,
    /// How it is ingested.
    options: Arc<IngestOptions>,
    /// Whether it is written to mend damage: what is known of its steps stays so.
    is_mended: bool,
}

struct Candidate {
    files: StepFiles,
    metadata: StepMetadata,
    peek: Option<StepPeek>,
    /// Numbers of its blocks and heads, once its shape is known.
    numbers: AxisNumbers,
    /// Its grid, if its metadata tells it.
    grid: Option<Grid>,
    /// Name of its array, of an npz.
    array: Option<String>,
    is_new: bool,
}

/// What becomes of a word.
pub(super) enum Decision {
    /// Its arrays are written.
    Write(Box<SeriesPlan>, Vec<StepPlan>),
    /// It stays as it is in the store (if it is there).
    Keep,
}

impl VideoPlan {
    /// Compares a video of the dump with its committed state.
    pub fn new(
        video: &Video,
        id: String,
        tokens: &Names,
        prompts: &Prompts,
        options: &Arc<IngestOptions>,
        committed: &Committed,
    ) -> Self {
        let mut plan = Self { video_id: id, ..Self::default() };
        let (mut committed, nothing) = (committed, Committed::default());
        if let Some(elsewhere) = other_video(committed.rows(), video) {
            if !options.replace {
                plan.refuse(video, &elsewhere);
                return plan;
            }
            committed = &nothing;
            let remark = format!("video {} replaces the one that was there, {}", plan.video_id, origin(&elsewhere));
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
        for series in video.series.iter().filter(|series| tokens.contains(&series.token)) {
            let rows = stored.remove(series.token.as_str()).unwrap_or_default();
            plan.add_series(video, series, rows, options, committed);
        }
        for (token, rows) in stored {
            let series = Series::without_files(token);
            plan.add_series(video, &series, rows, options, committed);
        }
        let old_summary = committed.previous.as_ref().and_then(|index| index.record.summary.clone());
        plan.touched |= match &plan.summary {
            Some(_) => plan.summary != old_summary,
            None => false,
        };
        plan.summary = plan.summary.or(old_summary);
        plan.look_up_prompt(video, prompts, committed.rows());
        plan
    }

    /// Writes what is damaged of a video's words anew, and nothing else: damaged values from the files that they came
    /// from, where these are what they were, and all other values from the store. `video` is `None` if the dump does
    /// not have it.
    pub fn of_damage(
        video: Option<&Video>,
        id: String,
        damage: &VideoDamage,
        options: &IngestOptions,
        committed: &Committed,
    ) -> Self {
        let mut plan = Self { video_id: id, ..Self::default() };
        plan.summary = committed.previous.as_ref().and_then(|index| index.record.summary.clone());
        for rows in committed.rows().chunk_by(|a, b| a.token == b.token) {
            let Some(first) = rows.first() else { continue };
            let Some(word) = damage.of(&first.token) else {
                plan.kept.extend_from_slice(rows);
                continue;
            };
            let recipe = committed.recipe(&first.token);
            let of_dump = video.and_then(|video| video.series.iter().find(|series| series.token == first.token));
            let mut candidates = Candidates {
                video_id: plan.video_id.clone(),
                prompt_id: first.prompt_id.clone(),
                batch: String::new(),
                series: of_dump.cloned().unwrap_or_else(|| Series::without_files(&first.token)),
                steps: BTreeMap::new(),
                stored: rows.iter().map(|row| (row.step, row.clone())).collect(),
                lost_heads: true,
                rewrite: false,
                stored_recipe: recipe.cloned(),
                options: Arc::new(recipe.map_or_else(|| options.clone(), |recipe| recipe.as_options(options))),
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
    fn look_up_prompt(&mut self, video: &Video, prompts: &Prompts, rows: &[StepRow]) {
        let of_new = self.to_write.iter().flat_map(|candidates| candidates.steps.values());
        let of_kept = self.kept.iter().filter_map(|row| row.prompt.as_deref());
        let is_there = |prompt: &&str| !prompt.trim().is_empty();
        let prompts_told = of_new.filter_map(|candidate| candidate.metadata.prompt.as_deref()).chain(of_kept);
        let batch = batch_of(&self.video_id, video);
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
    fn refuse(&mut self, video: &Video, elsewhere: &Path) {
        let remark = format!(
            "video {} is in the store already, with other contents, {}; \
             keep both with --prefix NAME, or replace it with --replace",
            self.video_id,
            origin(elsewhere)
        );
        self.findings.problems.push(Problem::Remark(remark).at(&video.dir));
        self.findings.done = (video.series.iter().map(|series| series.steps.len() as u64).sum(), video.bytes());
    }

    fn add_series(
        &mut self,
        video: &Video,
        series: &Series,
        mut stored: BTreeMap<i32, StepRow>,
        options: &Arc<IngestOptions>,
        committed: &Committed,
    ) {
        let recipe = options.recipe();
        let stored_recipe = committed.recipe(&series.token);
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
        let batch = batch_of(&self.video_id, video);
        let mut candidates = Candidates {
            video_id: self.video_id.clone(),
            prompt_id: video.prompt_id.as_ref().map(|id| format!("{batch}{id}")),
            batch: batch.to_owned(),
            series: series.clone(),
            steps: BTreeMap::new(),
            stored,
            lost_heads,
            rewrite: rewrite && options.replace,
            stored_recipe: stored_recipe.cloned(),
            options: options.clone(),
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
            let remark = format!(
                "the store has this word with other settings ({}) and keeps it as it is: use another store, or \
                 --replace to write it anew",
                stored_recipe.map(|stored| stored.differences(&recipe)).unwrap_or_default()
            );
            if fresh.is_empty() {
                self.findings.remarks.push(Remark::new(&series.dir, remark));
            } else {
                self.findings.problems.push(Problem::Remark(remark).at(&series.dir));
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
    /// Its generation, which is what a commit replaces.
    pub generation: Option<String>,
}

impl Committed {
    /// What was read of a video.
    pub fn new(previous: Option<VideoIndex>, heads: Option<Heads>) -> Self {
        let generation = previous.as_ref().map(|index| index.generation.clone());
        Self { previous, heads, generation }
    }

    /// Its rows.
    pub fn rows(&self) -> &[StepRow] {
        self.previous.as_ref().map_or(&[], |index| &index.rows)
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

/// Where the stored rows came from, if they are of another video than that of the dump: none was read from its
/// directory, and of the steps that both have one has other contents, or there are no such.
fn other_video(rows: &[StepRow], video: &Video) -> Option<PathBuf> {
    let first = rows.first()?;
    if rows.iter().any(|row| Path::new(&row.source).starts_with(&video.dir)) {
        return None;
    }
    let words: HashMap<&str, &Series> = video.series.iter().map(|series| (series.token.as_str(), series)).collect();
    let files_of = |row: &StepRow| {
        let steps = &words.get(row.token.as_str())?.steps;
        Some(&steps[steps.binary_search_by_key(&row.step, |files| files.step).ok()?])
    };
    let mut common = rows.iter().filter_map(|row| Some((row, files_of(row)?))).peekable();
    // A file that cannot be read tells nothing.
    let differs = |(row, files): (&StepRow, &StepFiles)| content_hash(files).is_ok_and(|hash| hash != row.content_hash);
    let elsewhere = Path::new(&first.source).ancestors().nth(2).unwrap_or(Path::new(&first.source));
    (common.peek().is_none() || common.any(differs)).then(|| elsewhere.to_owned())
}

/// What is before a video's own name in its id, with a `/` at its end.
fn batch_of<'a>(video_id: &'a str, video: &Video) -> &'a str {
    video_id.strip_suffix(&video.name).unwrap_or_default()
}

/// Where a stored video came from, in words.
fn origin(dir: &Path) -> String {
    if dir.as_os_str().is_empty() { "written without a dump".into() } else { format!("from {}", dir.display()) }
}

enum Same {
    /// Path, sizes and modification times are those of the row.
    AsListed,
    /// The contents are.
    InContent,
    /// The contents differ.
    Not,
}

fn compare(row: &StepRow, files: &StepFiles) -> Same {
    if Path::new(&row.source) == files.path() && row.source_signature == files.signature() {
        return Same::AsListed;
    }
    match content_hash(files) {
        Ok(hash) if hash == row.content_hash => Same::InContent,
        _ => Same::Not,
    }
}

/// Names the files in a row.
pub(super) fn update_source(row: &mut StepRow, files: &StepFiles) {
    row.source = files.path().to_string_lossy().into_owned();
    row.source_bytes = size(files.bytes());
    row.source_modified = micros(files.modified()).clamp(CALENDAR.start, CALENDAR.end - 1);
    row.source_signature = files.signature();
}

fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Candidates {
    /// Takes a step in if its metadata and its head can be read.
    fn look_at(&mut self, files: &StepFiles, is_new: bool, findings: &mut Findings) {
        let Some(first) = files.parts.first() else { return };
        let reader = StepReader::new(self.options.read_options());
        let looked =
            read_step_metadata(&first.metadata).and_then(|read| Ok((read, reader.peek(files, &self.series.split)?)));
        match looked {
            Err(problem) => findings.problems.push(files.left_out(problem)),
            Ok(((mut metadata, odd), peek)) => {
                if let Some(told) = &mut metadata.exported.prompt_id {
                    told.insert_str(0, &self.batch);
                }
                let mut remarks = odd;
                remarks.extend(metadata.disagreements(files.step, peek.filter(|_| !first.is_part())));
                remarks.extend(self.disagreements(files, &metadata));
                findings.remark_once(&first.metadata, remarks);
                let npz_array = reader.npz_array(files).ok().flatten();
                if let Some(array) = npz_array.as_ref().filter(|array| !array.others.is_empty()) {
                    let others = array.others.join(", ");
                    let remark = format!("the array `{}` of it is taken; beside it there are {others}", array.name);
                    findings.remark_once(&first.path, vec![remark]);
                }
                let candidate = Candidate {
                    files: files.clone(),
                    metadata,
                    peek,
                    numbers: AxisNumbers::default(),
                    grid: None,
                    array: npz_array.map(|array| array.name),
                    is_new,
                };
                self.steps.insert(files.step, candidate);
            }
        }
    }

    /// What metadata says otherwise than the names of directories and files.
    fn disagreements(&self, files: &StepFiles, metadata: &StepMetadata) -> Vec<String> {
        let mut remarks = Vec::new();
        let own = self.video_id.rsplit('/').next().unwrap_or_default();
        let Series { token, weight, .. } = &self.series;
        let video = metadata.video_id.as_ref().filter(|claimed| !same_name(claimed, own));
        let word = metadata.token_word.as_ref().filter(|claimed| !is_word(claimed, token, *weight));
        let directory = self.series.dir.file_name().unwrap_or_default().to_string_lossy();
        for (key, claimed, own) in [("video_id", video, own), ("token_word", word, &*directory)] {
            if let Some(claimed) = claimed {
                remarks.push(format!("metadata says {key} `{claimed}`, the directory `{own}`; the directory counts"));
            }
        }
        let Some(first) = files.parts.first().filter(|part| part.is_part()) else { return remarks };
        for (key, claimed, own) in
            [("block_idx", &metadata.block_idx, first.block), ("head_idx", &metadata.head_idx, first.head)]
        {
            let is_other =
                |own: usize| !claimed.is_empty() && claimed.iter().map(|&n| usize::try_from(n)).ne([Ok(own)]);
            if let Some(own) = own.filter(|&own| is_other(own)) {
                remarks.push(format!("metadata says {key} {claimed:?}, the file name {own}; the file name counts"));
            }
        }
        let split = &self.series.split;
        for (key, numbers) in [("num_blocks", &split.blocks), ("num_heads", &split.heads)] {
            let of_model = metadata.raw.get(key).and_then(Json::as_integer);
            if let (Some(numbers), Some(of_model)) = (numbers, of_model)
                && of_model > numbers.len() as i128
            {
                let chosen = if key == "num_blocks" {
                    AxisNumbers { heads: None, ..split.clone() }
                } else {
                    AxisNumbers { blocks: None, ..split.clone() }
                };
                remarks.push(format!("of {of_model} ({key}) there are files of {} of them: {chosen}", numbers.len()));
            }
        }
        remarks
    }

    /// Bytes of a step's files.
    pub fn bytes_of(&self, step: i32) -> u64 {
        self.steps.get(&step).map_or(0, |candidate| candidate.files.bytes())
    }

    /// Whether a step is new in the store or has new contents.
    pub fn is_new(&self, step: i32) -> bool {
        self.steps.get(&step).is_some_and(|candidate| candidate.is_new)
    }

    /// The committed generation of the word, below the store, if its shards can serve `plan` where their steps are the
    /// same.
    pub fn previous_generation(&self, plan: &SeriesPlan, store: &Store) -> Option<&str> {
        let first = self.stored.values().next()?;
        let same = |row: &StepRow| {
            row.series_path() == first.series_path() && row.grid == plan.grid && row.numbers == plan.numbers
        };
        let reusable = !self.is_mended
            && self.stored_recipe.as_ref() == Some(&plan.recipe)
            && self.stored.values().all(same)
            && has_same_chunking(&store.root().join(first.series_path()), &plan.layout);
        reusable.then(|| first.series_path())
    }

    /// Whether `steps`, to be written as rows `from..`, are those that the previous generation has in these rows and
    /// nothing is new in them.
    pub fn are_unchanged(&self, steps: &[StepPlan], from: usize, per_shard: usize) -> bool {
        let in_shard = |row: &&StepRow| usize::try_from(row.row).is_ok_and(|row| row / per_shard == from / per_shard);
        let unchanged = |(index, plan): (usize, &StepPlan)| {
            let row = self.stored.get(&plan.step).filter(|_| !self.is_new(plan.step));
            row.is_some_and(|row| usize::try_from(row.row) == Ok(from + index))
        };
        self.stored.values().filter(in_shard).count() == steps.len() && steps.iter().enumerate().all(unchanged)
    }

    /// Whether it is written to mend damage.
    pub const fn is_mended(&self) -> bool {
        self.is_mended
    }

    /// Whether no step comes from files of the dump.
    pub fn is_without_files(&self) -> bool {
        self.steps.is_empty()
    }

    /// The committed row of a step.
    pub fn stored(&self, step: i32) -> Option<&StepRow> {
        self.stored.get(&step)
    }

    /// Whether a step is in the dump.
    pub fn has_files(&self, step: i32) -> bool {
        self.steps.contains_key(&step)
    }

    /// How many steps of the dump are in the store as they are.
    pub fn unchanged(&self) -> u64 {
        self.steps.keys().filter(|step| self.stored.contains_key(step) && !self.is_new(**step)).count() as u64
    }

    /// All committed rows.
    pub fn into_stored(self) -> impl Iterator<Item = StepRow> {
        self.stored.into_values()
    }

    /// Leaves out a step that could not be used.
    pub fn drop_step(&mut self, step: i32) {
        self.steps.remove(&step);
    }

    /// Notes what a step really is, which its metadata did not tell.
    pub fn observe(&mut self, step: i32, peek: StepPeek) {
        if let Some(candidate) = self.steps.get_mut(&step) {
            candidate.peek = Some(peek);
        }
    }

    /// Decides what is written. Steps that differ from most others are dropped, and found among the problems.
    pub fn decide(&mut self, findings: &mut Findings) -> Decision {
        let options = &*self.options.clone();
        self.settle_peeks(options, findings);
        let Some((found, found_numbers, found_grid)) = self.majority() else { return self.keep() };
        self.steps.retain(|_, candidate| {
            let is_of_grid = candidate.grid.is_none() || candidate.grid == found_grid;
            let fits = candidate.peek == Some(found) && candidate.numbers == found_numbers && is_of_grid;
            if !fits {
                let described = |peek: Option<StepPeek>, numbers: &AxisNumbers, grid: Option<Grid>| {
                    let of = if *numbers == AxisNumbers::default() { String::new() } else { format!(" of {numbers}") };
                    let on =
                        grid.filter(|_| !is_of_grid).map(|grid| format!(" on the grid {grid}")).unwrap_or_default();
                    format!("{}{of}{on}", peek.map(|peek| peek.to_string()).unwrap_or_default())
                };
                let problem = Problem::Mixed {
                    found: described(candidate.peek, &candidate.numbers, candidate.grid),
                    expected: described(Some(found), &found_numbers, found_grid),
                };
                let problem = problem.at(candidate.files.path());
                findings.problems.push(candidate.files.left_out(problem));
            }
            fits
        });
        if !self.is_forced() && !self.steps.values().any(|candidate| candidate.is_new) {
            return Decision::Keep;
        }
        let described = self.steps.values().map(|candidate| &candidate.metadata);
        let differences = differences_of_runs(&described.collect::<Vec<_>>());
        findings.remarks.extend(differences.into_iter().map(|message| Remark::new(&self.series.dir, message)));
        let source_grid = self.source_grid(found.shape.spatial, found_grid, options, findings);
        let recipe = options.recipe();
        if recipe.downsample > 1 && source_grid.is_none() {
            let remark = "cannot be downsampled: its grid is not known (name it with --grid FxHxW)".to_owned();
            findings.problems.push(Problem::Remark(remark).at(&self.series.dir));
            return self.keep();
        }
        if let Some(uneven) =
            source_grid.filter(|grid| grid.height % recipe.downsample + grid.width % recipe.downsample > 0)
        {
            let remark = format!(
                "the grid {uneven} is no multiple of {0} x {0}: pooled values at the far edge are sums of fewer \
                 positions, and weigh less",
                recipe.downsample
            );
            findings.remark_once(&self.series.dir.join("step"), vec![remark]);
        }
        let (shape, grid, dtype) = recipe.outcome(found.shape, source_grid, found.dtype.stored());
        let numbers = recipe.numbers(found.shape, found_numbers);
        let is_other_grid = |row: &StepRow| row.grid.is_some_and(|stored| grid.is_some_and(|grid| grid != stored));
        let is_other = |row: &StepRow| {
            row.shape != shape || row.dtype != dtype.name() || row.numbers != numbers || is_other_grid(row)
        };
        let first = self.steps.values().next();
        let of_other_run = |row: &StepRow| first.and_then(|first| other_run(row, &first.metadata));
        if options.replace {
            let is_gone =
                |row: &&StepRow| !self.steps.contains_key(&row.step) && (is_other(row) || of_other_run(row).is_some());
            let gone: Vec<i32> = self.stored.values().filter(is_gone).map(|row| row.step).collect();
            if !gone.is_empty() {
                self.stored.retain(|step, _| !gone.contains(step));
                let remark =
                    format!("steps of another shape, type or run, whose files are gone, are replaced: {gone:?}");
                findings.remarks.push(Remark::new(&self.series.dir, remark));
            }
        }
        let carried = || self.stored.values().filter(|row| !self.steps.contains_key(&row.step));
        if let Some((row, difference)) = carried().find_map(|row| Some((row, of_other_run(row)?))) {
            let remark = format!(
                "the store holds step {} of this word, which is not in the dump now and is of another run \
                 ({difference}); ingest with --prefix NAME to keep both, or with --replace to drop what is gone",
                row.step
            );
            findings.problems.push(Problem::Remark(remark).at(&self.series.dir));
            return self.keep();
        }
        let differs = |row: &&StepRow| self.rewrite || is_other(row);
        if let Some(row) = carried().find(differs) {
            let remark = format!(
                "the store holds steps of this word ({} {}) that are not in the dump now, or not in this form, and \
                 cannot be written as {dtype} {shape} with these settings; ingest with --prefix NAME to keep both, or \
                 with --replace to drop them",
                row.dtype, row.shape
            );
            findings.problems.push(Problem::Remark(remark).at(&self.series.dir));
            return self.keep();
        }
        let steps = self.step_plans();
        let arrays: BTreeSet<&str> = self.steps.values().filter_map(|candidate| candidate.array.as_deref()).collect();
        if arrays.len() > 1 {
            let named = arrays.into_iter().collect::<Vec<_>>().join(", ");
            let remark = format!("its steps are arrays of several names: {named}; --array NAME takes one of them");
            findings.remarks.push(Remark::new(&self.series.dir, remark));
        }
        let layout = SeriesLayout { shape, dtype, steps: steps.len(), codec: options.codec, rollups: options.rollups };
        Decision::Write(
            Box::new(SeriesPlan {
                numbers,
                ..self.series_plan(found, layout, source_grid, grid, recipe, options.read_options())
            }),
            steps,
        )
    }

    /// Whether the word must be written even if no step is new.
    fn is_forced(&self) -> bool {
        self.lost_heads || self.rewrite
    }

    /// Leaves the word as it is in the store; if its statistics were lost, by writing it anew from there.
    fn keep(&mut self) -> Decision {
        self.steps.clear();
        let Some(row) = self.stored.values().next().filter(|_| self.lost_heads) else { return Decision::Keep };
        let Ok(dtype) = row.dtype.parse() else { return Decision::Keep };
        let recipe = self.stored_recipe.clone().unwrap_or_else(|| IngestOptions::default().recipe());
        let steps = self.step_plans();
        let layout =
            SeriesLayout { shape: row.shape, dtype, steps: steps.len(), codec: recipe.codec, rollups: recipe.rollups };
        let found = StepPeek { shape: row.shape, dtype: crate::dtype::SourceDtype::Float32 };
        let numbers = row.numbers.clone();
        let plan = self.series_plan(found, layout, row.grid, row.grid, recipe, ReadOptions::default());
        let plan = SeriesPlan { numbers, ..plan };
        Decision::Write(Box::new(plan), steps)
    }

    fn series_plan(
        &self,
        found: StepPeek,
        layout: SeriesLayout,
        source_grid: Option<Grid>,
        grid: Option<Grid>,
        recipe: Recipe,
        read: ReadOptions,
    ) -> SeriesPlan {
        SeriesPlan {
            video_id: self.video_id.clone(),
            prompt_id: self.prompt_id.clone(),
            token: self.series.token.clone(),
            weight: self.series.weight,
            source: self.series.dir.clone(),
            path: String::new(),
            layout,
            found,
            source_grid,
            grid,
            recipe,
            read,
            split: self.series.split.clone(),
            numbers: AxisNumbers::default(),
            npz_arrays: self
                .steps
                .values()
                .filter_map(|candidate| candidate.array.clone())
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            lost: self.steps.values().next().map(|first| first.metadata.exported.lossy.clone()).unwrap_or_default(),
        }
    }

    /// All steps, from files where they can be used, else from the store.
    fn step_plans(&self) -> Vec<StepPlan> {
        let from_files = |candidate: &Candidate| StepSource::Files {
            files: candidate.files.clone(),
            metadata: Box::new(candidate.metadata.clone()),
        };
        let mut sources: BTreeMap<i32, StepSource> =
            self.steps.iter().map(|(&step, candidate)| (step, from_files(candidate))).collect();
        for row in self.stored.values() {
            sources.entry(row.step).or_insert_with(|| StepSource::Stored { array: row.array.clone(), row: row.row });
        }
        sources.into_iter().map(|(step, source)| StepPlan { step, source }).collect()
    }

    /// Finds shape and type of steps whose heads did not tell: from metadata, and if it is silent from the file. Then
    /// the numbers of their blocks and heads are known, too.
    fn settle_peeks(&mut self, options: &IngestOptions, findings: &mut Findings) {
        let split = &self.series.split;
        self.steps.retain(|_, candidate| {
            let is_split = candidate.files.is_split();
            if candidate.peek.is_none() {
                candidate.peek = candidate.metadata.claimed_peek().filter(|_| !is_split);
            }
            let peek = match candidate.peek {
                Some(peek) => peek,
                None => match StepReader::new(options.read_options()).read(&candidate.files, split) {
                    Ok(step) => *candidate.peek.insert(step.array.peek()),
                    Err(problem) => {
                        findings.problems.push(candidate.files.left_out(problem));
                        return false;
                    }
                },
            };
            // A step that is whole is so also where others of its word are split.
            let whole = AxisNumbers::default();
            let (numbers, odd) = candidate.metadata.numbers(peek.shape, if is_split { split } else { &whole });
            candidate.numbers = numbers;
            candidate.grid = candidate.metadata.grid(peek.shape.spatial).ok();
            if options.grid.is_some_and(|named| named.spatial() == peek.shape.spatial) {
                candidate.grid = None;
            }
            if let Some(first) = candidate.files.parts.first() {
                findings.remark_once(&first.metadata, odd);
            }
            true
        });
    }

    /// Shape, type and numbers of most steps, and the grid of most of these that tell one; of the most recently
    /// modified, if there are as many of several.
    fn majority(&self) -> Option<(StepPeek, AxisNumbers, Option<Grid>)> {
        let shapes = self.steps.values().map(|step| Some(((step.peek?, step.numbers.clone()), step.files.modified())));
        let shapes: Vec<_> = shapes.collect::<Option<_>>()?;
        let (peek, numbers) = most_voted(shapes, |(peek, numbers)| format!("{:?} {numbers}", peek.shape.axes()))?;
        let alike = self.steps.values().filter(|step| step.peek == Some(peek) && step.numbers == numbers);
        let grids = alike.filter_map(|step| Some((step.grid?, step.files.modified())));
        let grid = most_voted(grids, Grid::to_string);
        Some((peek, numbers, grid))
    }

    /// Grid of the step files: named by the user, else that of most.
    fn source_grid(
        &self,
        spatial: usize,
        of_most: Option<Grid>,
        options: &IngestOptions,
        findings: &mut Findings,
    ) -> Option<Grid> {
        let of_metadata = |candidate: &Candidate| candidate.files.parts.first().map(|part| part.metadata.clone());
        match options.grid {
            Some(grid) if grid.spatial() == spatial => return Some(grid),
            Some(grid) => {
                let message =
                    format!("--grid {grid} has {} positions, the maps have {spatial}; it is not used", grid.spatial());
                let path = self.steps.values().next().and_then(of_metadata);
                findings.remark_once(&path.unwrap_or_default(), vec![message]);
            }
            None => {}
        }
        for candidate in self.steps.values() {
            let Err(error) = candidate.metadata.grid(spatial) else { continue };
            // Where others tell it, silence is nothing odd.
            if of_most.is_none() || !matches!(error, GridError::UnknownSize { .. }) {
                findings.remark_once(&of_metadata(candidate).unwrap_or_default(), vec![error.to_string()]);
            }
        }
        of_most
    }
}

impl Findings {
    /// Notes remarks on a file, each text once in a directory: what is odd about one step is so about all of them.
    fn remark_once(&mut self, path: &Path, remarks: Vec<String>) {
        for message in remarks {
            let known = |remark: &Remark| remark.path.parent() == path.parent() && remark.message == message;
            if !self.remarks.iter().any(known) {
                self.remarks.push(Remark::new(path, message));
            }
        }
    }
}

impl StepMetadata {
    /// Shape and type as the metadata claims them, if they can be a step's.
    fn claimed_peek(&self) -> Option<StepPeek> {
        let dtype = self.dtype.as_deref()?.trim_start_matches("torch.").parse().ok()?;
        let shape = crate::shape::StepShape::from_axes(self.attention_shape.as_deref()?)?;
        Some(StepPeek { shape, dtype })
    }
}
