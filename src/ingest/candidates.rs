//! The steps of one word that may be written, and the decision which of them are: the shape, type, numbering and grid
//! that most of them have is the word's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::agreement::{differences_of_runs, most_voted, other_run};
use super::findings::Findings;
use super::options::IngestOptions;
use super::report::Remark;
use super::series::{SeriesInput, SeriesPlan, SeriesTarget, StepPlan, StepSource};
use crate::dump::{
    Problem, ReadOptions, Series, StepFiles, StepMetadata, StepPeek, StepReader, is_word, read_step_metadata, same_name,
};
use crate::error::LayerError;
use crate::grid::{Grid, GridError};
use crate::json::Json;
use crate::remedy::{Note, OptionName, Remedy};
use crate::shape::AxisNumbers;
use crate::store::{Recipe, SeriesLayout, StepRow};

/// The steps of one word that may be written: planned anew whenever one turns out to be unusable.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Candidates {
    pub video_id: String,
    pub prompt_id: Option<String>,
    /// What is before the video's own name in its id: prompts of other batches are other ones.
    pub batch: String,
    pub series: Series,
    pub steps: BTreeMap<i32, Candidate>,
    /// Committed rows of the word, by step.
    pub stored: BTreeMap<i32, StepRow>,
    /// Whether the word's statistics must be computed anew.
    pub lost_heads: bool,
    /// Whether all steps are written anew because the settings differ.
    pub rewrite: bool,
    /// The settings that the committed rows were ingested with.
    pub stored_recipe: Option<Recipe>,
    /// How it is ingested.
    pub options: Arc<IngestOptions>,
    /// Whether it is written to mend damage: what is known of its steps stays so.
    pub is_mended: bool,
}

/// One of them.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Candidate {
    pub files: StepFiles,
    pub metadata: StepMetadata,
    pub peek: Option<StepPeek>,
    /// Numbers of its blocks and heads, once its shape is known.
    pub numbers: AxisNumbers,
    /// Its grid, if its metadata tells it.
    pub grid: Option<Grid>,
    /// Name of its array, of an npz.
    pub array: Option<String>,
    pub is_new: bool,
}

/// What becomes of a word.
pub(super) enum Decision {
    /// Its arrays are written.
    Write(Box<SeriesPlan>),
    /// It stays as it is in the store (if it is there).
    Keep,
}

impl Candidates {
    /// Takes a step in if its metadata and its head can be read.
    pub fn look_at(&mut self, files: &StepFiles, is_new: bool, findings: &mut Findings) {
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
    pub fn previous_generation(&self, plan: &SeriesTarget) -> Option<&str> {
        let first = self.stored.values().next()?;
        let same = |row: &StepRow| {
            row.series_path() == first.series_path() && row.grid == plan.grid && row.numbers == plan.numbers
        };
        let reusable =
            !self.is_mended && self.stored_recipe.as_ref() == Some(&plan.recipe) && self.stored.values().all(same);
        reusable.then(|| first.series_path())
    }

    /// Whether `steps`, to be written as rows `from..`, are those that the previous generation has in these rows and
    /// nothing is new in them.
    pub fn are_unchanged(&self, steps: &[StepPlan], from: usize, per_shard: usize) -> bool {
        let in_shard = |row: &&StepRow| row.row as usize / per_shard == from / per_shard;
        let unchanged = |(index, plan): (usize, &StepPlan)| {
            let row = self.stored.get(&plan.step).filter(|_| !self.is_new(plan.step));
            row.is_some_and(|row| row.row as usize == from + index)
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

    /// Decides what is written, of steps that are settled; no file is read. Steps that differ from most others are
    /// dropped, and found among the problems.
    pub fn decide(&mut self, findings: &mut Findings) -> Decision {
        let options = &*self.options.clone();
        self.number(findings);
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
            let remedy = Remedy::of("name it with {}", [OptionName::Grid.any()]);
            return self.refuse("cannot be downsampled: its grid is not known", remedy, findings);
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
        let is_other =
            |row: &StepRow| row.shape != shape || row.dtype != dtype || row.numbers != numbers || is_other_grid(row);
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
        let expected = format!("{dtype} {shape}");
        if let Some((found, remedy)) = self.in_the_way(&recipe, &expected, &is_other, &of_other_run) {
            return self.refuse(found, remedy, findings);
        }
        let steps = self.step_plans();
        let arrays = self.arrays();
        if arrays.len() > 1 {
            let named = arrays.into_iter().collect::<Vec<_>>().join(", ");
            let found = format!("its steps are arrays of several names: {named}");
            let note = Note::new(found, Remedy::of("{} takes one of them", [OptionName::Array.any()]));
            findings.remarks.push(Remark::new(&self.series.dir, note));
        }
        let layout = SeriesLayout { shape, dtype, steps: steps.len(), codec: options.codec, rollups: options.rollups };
        let input =
            SeriesInput { found, grid: source_grid, read: options.read_options(), split: self.series.split.clone() };
        Decision::Write(Box::new(SeriesPlan {
            target: self.target(&input, layout, grid, numbers, recipe),
            input,
            steps,
        }))
    }

    /// What is wrong with steps that only the store has, if they cannot stay in it beside those of the dump.
    fn in_the_way(
        &self,
        recipe: &Recipe,
        expected: &str,
        is_other: &dyn Fn(&StepRow) -> bool,
        of_other_run: &dyn Fn(&StepRow) -> Option<String>,
    ) -> Option<(String, Remedy)> {
        let carried = || self.stored.values().filter(|row| !self.steps.contains_key(&row.step));
        let tries = [OptionName::Prefix.any(), OptionName::Replace.on()];
        if let Some((row, difference)) = carried().find_map(|row| Some((row, of_other_run(row)?))) {
            let found = format!(
                "the store holds step {} of this word, which is not in the dump now and is of another run \
                 ({difference})",
                row.step
            );
            return Some((found, Remedy::of("ingest with {} to keep both, or with {} to drop what is gone", tries)));
        }
        if let Some(row) = carried().find(|row| is_other(row)) {
            let found = format!(
                "the store holds steps of this word ({} {}) that are not in the dump now, or not in this form, and \
                 cannot be written as {expected} with these settings",
                row.dtype, row.shape
            );
            return Some((found, Remedy::of("ingest with {} to keep both, or with {} to drop them", tries)));
        }
        let row = carried().next().filter(|_| self.rewrite)?;
        let differences = self.stored_recipe.as_ref().map(|stored| stored.differences(recipe)).unwrap_or_default();
        let found = format!(
            "the store holds step {} of this word, which is not in the dump now, and was written with other settings \
             ({differences})",
            row.step
        );
        Some((found, Remedy::of("ingest with {} to keep both, or with those settings", [OptionName::Prefix.any()])))
    }

    /// Whether the word must be written even if no step is new.
    pub fn is_forced(&self) -> bool {
        self.lost_heads || self.rewrite
    }

    /// Leaves the word as it is in the store; if its statistics were lost, by writing it anew from there.
    fn refuse(&mut self, found: impl Into<String>, remedy: Remedy, findings: &mut Findings) -> Decision {
        findings.problems.push(Problem::refused(found, remedy).at(&self.series.dir));
        self.keep()
    }

    fn keep(&mut self) -> Decision {
        self.steps.clear();
        let Some(row) = self.stored.values().next().filter(|_| self.lost_heads) else { return Decision::Keep };
        let dtype = row.dtype;
        let recipe = self.stored_recipe.clone().unwrap_or_else(|| IngestOptions::default().recipe());
        let (grid, numbers, steps) = (row.grid, row.numbers.clone(), self.step_plans());
        let layout =
            SeriesLayout { shape: row.shape, dtype, steps: steps.len(), codec: recipe.codec, rollups: recipe.rollups };
        let found = StepPeek { shape: row.shape, dtype: crate::dtype::SourceDtype::Float32 };
        let input = SeriesInput { found, grid, read: ReadOptions::default(), split: self.series.split.clone() };
        Decision::Write(Box::new(SeriesPlan {
            target: self.target(&input, layout, grid, numbers, recipe),
            input,
            steps,
        }))
    }

    /// What is written; where to is not decided yet.
    fn target(
        &self,
        input: &SeriesInput,
        layout: SeriesLayout,
        grid: Option<Grid>,
        numbers: AxisNumbers,
        recipe: Recipe,
    ) -> SeriesTarget {
        let lost = self.steps.values().next().map(|first| first.metadata.exported.lossy.clone()).unwrap_or_default();
        SeriesTarget {
            video_id: self.video_id.clone(),
            prompt_id: self.prompt_id.clone(),
            token: self.series.token.clone(),
            weight: self.series.weight,
            path: String::new(),
            layout,
            grid,
            numbers,
            source: self.series.dir.clone(),
            source_dtype: input.found.dtype,
            source_arrays: self.arrays().into_iter().map(str::to_owned).collect(),
            lossy: input.lossy(&recipe, layout.dtype, lost),
            recipe,
        }
    }

    /// Names of the arrays that are read of npz archives.
    fn arrays(&self) -> BTreeSet<&str> {
        self.steps.values().filter_map(|candidate| candidate.array.as_deref()).collect()
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

    /// Finds shape and type of steps whose heads did not tell: from metadata, and if it is silent from the file.
    pub fn settle(&mut self, findings: &mut Findings) {
        let (split, options) = (&self.series.split, &self.options);
        self.steps.retain(|_, candidate| {
            if candidate.peek.is_none() {
                candidate.peek = candidate.metadata.claimed_peek().filter(|_| !candidate.files.is_split());
            }
            if candidate.peek.is_none() {
                match StepReader::new(options.read_options()).read(&candidate.files, split) {
                    Ok(step) => candidate.peek = Some(step.array.peek()),
                    Err(problem) => {
                        findings.problems.push(candidate.files.left_out(problem));
                        return false;
                    }
                }
            }
            true
        });
    }

    /// Finds the numbers of blocks and heads, and the grids, of steps whose shape is known.
    fn number(&mut self, findings: &mut Findings) {
        let (split, options) = (&self.series.split, &self.options);
        for candidate in self.steps.values_mut() {
            let Some(peek) = candidate.peek else { continue };
            // A step that is whole is so also where others of its word are split.
            let whole = AxisNumbers::default();
            let split = if candidate.files.is_split() { split } else { &whole };
            let (numbers, odd) = candidate.metadata.numbers(peek.shape, split);
            candidate.numbers = numbers;
            candidate.grid = candidate.metadata.grid(peek.shape.spatial).ok();
            if options.grid.is_some_and(|named| named.spatial() == peek.shape.spatial) {
                candidate.grid = None;
            }
            if let Some(first) = candidate.files.parts.first() {
                findings.remark_once(&first.metadata, odd);
            }
        }
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
                let remedy = format!("{{}} has {} positions, the maps have {spatial}", grid.spatial());
                let remedy = Remedy::of(&remedy, [OptionName::Grid.is(grid.to_string())]);
                let note = Note::new("the grid that was named does not fit: it is not used", remedy);
                let path = self.steps.values().next().and_then(of_metadata);
                findings.remark_once(&path.unwrap_or_default(), [note]);
            }
            None => {}
        }
        for candidate in self.steps.values() {
            let Err(error) = candidate.metadata.grid(spatial) else { continue };
            // Where others tell it, silence is nothing odd.
            if of_most.is_none() || !matches!(error, GridError::UnknownSize { .. }) {
                findings.remark_once(
                    &of_metadata(candidate).unwrap_or_default(),
                    [Note { text: error.to_string(), remedy: error.remedy() }],
                );
            }
        }
        of_most
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
