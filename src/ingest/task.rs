//! One unit of work: the steps of one shard. It needs nothing but itself and the store, and returns the rows to commit.

use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};

use super::agreement::disagreements_of_parts;
use super::recognise::update_source;
use super::series::{SeriesInput, SeriesTarget, SeriesWriter, StepPlan, StepSource, describe_row};
use super::transform::transform;
use crate::dtype::Dtype;
use crate::dump::{DumpError, Problem, StepArray, StepFiles, StepMetadata, StepPeek, StepReader};
use crate::kernel::{RoundingError, StepMeasures};
use crate::store::{Generation, MetadataPatch, Recipe, StepRow, Store, StoreError, heads_schema};
use crate::values::Values;

/// Keys of step metadata that speak of the file's array and not of what is stored, if the two differ.
pub(crate) const ARRAY_KEYS: [&str; 8] = [
    "attention_shape",
    "spatial_resolution",
    "num_blocks",
    "num_heads",
    "block_idx",
    "head_idx",
    "dtype",
    "aggregation_method",
];

/// The steps of one shard of one word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardTask {
    /// What is written, and where to.
    pub target: SeriesTarget,
    /// How files are read.
    pub input: SeriesInput,
    /// Number of the shard along the step axis.
    pub shard: usize,
    /// The steps, in order.
    pub steps: Vec<StepPlan>,
    /// The word's previous generation, below the store, if this shard of it holds these very steps.
    pub unchanged_in: Option<String>,
}

/// What a task leaves to be committed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Fragment {
    /// Rows of `steps`; for steps from the store, with the columns that are known here only.
    pub rows: Vec<StepRow>,
    /// Whether the shard is that of the previous generation.
    pub is_shared: bool,
    /// Rows of `heads`; none if the shard is shared: they are in the store already. Bytes carry them beside the value.
    #[serde(skip, default = "no_heads")]
    pub heads: RecordBatch,
    /// How metadata differs from what rows reproduce.
    pub metadata: Vec<(i32, MetadataPatch)>,
    /// Steps that could not be used. If there is one, the shard is not complete and must not be committed.
    pub failures: Vec<Failure>,
    /// Remarks on files that were used.
    pub remarks: Vec<DumpError>,
    /// Bytes written.
    pub bytes_out: u64,
}

impl Default for Fragment {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            is_shared: false,
            heads: no_heads(),
            metadata: Vec::new(),
            failures: Vec::new(),
            remarks: Vec::new(),
            bytes_out: 0,
        }
    }
}

/// No rows of `heads`.
pub(super) fn no_heads() -> RecordBatch {
    RecordBatch::new_empty(heads_schema())
}

/// A step that could not be used.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    /// The step.
    pub step: i32,
    /// Why.
    pub problem: DumpError,
    /// What it is, if it is only not what was planned for.
    pub observed: Option<StepPeek>,
    /// Whether it is the store's own copy that cannot be read.
    pub in_store: bool,
}

impl ShardTask {
    /// Reads, measures and writes the steps. `on_step` is called after each.
    ///
    /// # Errors
    /// If the store cannot be read or written. Problems with files of the dump are in [`Fragment::failures`].
    pub fn run(&self, store: &Store, on_step: &dyn Fn(&StepPlan)) -> Result<Fragment, StoreError> {
        let generation = store.ensure_generation(&self.target.path)?;
        if let Some(previous) = &self.unchanged_in {
            // A shard that cannot be shared is written again.
            if let Ok(fragment) = self.share(&store.generation_at(previous)?, &generation) {
                self.steps.iter().for_each(on_step);
                return Ok(fragment);
            }
        }
        let mut writer = SeriesWriter::begin(&self.target, generation, self.shard)?;
        let mut reader = StepReader::new(self.input.read.clone());
        let mut fragment = Fragment::default();
        for (index, plan) in self.steps.iter().enumerate() {
            match self.read(plan, store, &mut reader) {
                // After a failure the shard is lost, but the other files are still looked at.
                Ok(_) if !fragment.failures.is_empty() => {}
                Ok(mut step) => {
                    let measures = writer.push(plan.step, &step.array.values)?;
                    self.describe(plan, index, &mut step, &measures, &mut fragment);
                }
                Err(failure) => fragment.failures.push(failure),
            }
            on_step(plan);
        }
        if fragment.failures.is_empty() {
            (fragment.heads, fragment.bytes_out) = writer.finish()?;
        }
        Ok(fragment)
    }

    /// Takes the shard over from the previous generation.
    fn share(&self, previous: &Generation, generation: &Generation) -> Result<Fragment, StoreError> {
        let layout = &self.target.layout;
        if !previous.matches(layout) {
            return Err(StoreError::Damaged { path: previous.place(), found: "its arrays are cut otherwise".into() });
        }
        for kind in layout.kinds() {
            generation.share(previous, kind, self.shard)?;
        }
        let row = |(index, plan): (usize, &StepPlan)| self.row(plan.step, index);
        Ok(Fragment { rows: self.steps.iter().enumerate().map(row).collect(), is_shared: true, ..Fragment::default() })
    }

    /// The step's values, transformed, as they are to be stored.
    fn read<'a>(&self, plan: &StepPlan, store: &Store, reader: &'a mut StepReader) -> Result<ReadStep<'a>, Failure> {
        match &plan.source {
            StepSource::Stored { array, row } => self.read_stored(plan.step, array, *row, store),
            StepSource::Files { files, metadata } => self.read_files(files, metadata, reader),
        }
    }

    fn read_stored(&self, step: i32, array: &str, row: u32, store: &Store) -> Result<ReadStep<'static>, Failure> {
        let bytes =
            store.snapshot().open_array(array).and_then(|array| array.read_step(row.into())).map_err(|error| {
                let remark = format!("the store's own copy of step {step} cannot be read: {error}");
                let problem = Problem::Remark(remark).at(store.place().join(array));
                Failure { step, problem, observed: None, in_store: true }
            })?;
        let values = Values::from_ne_bytes(self.target.layout.dtype, &bytes).into_owned();
        let array = StepArray { shape: self.target.layout.shape, source_dtype: self.input.found.dtype, values };
        Ok(ReadStep { array, rounding: None, content_hash: String::new(), as_in_file: true, remarks: Vec::new() })
    }

    fn read_files<'a>(
        &self,
        files: &StepFiles,
        metadata: &StepMetadata,
        reader: &'a mut StepReader,
    ) -> Result<ReadStep<'a>, Failure> {
        let (input, recipe) = (&self.input, &self.target.recipe);
        let failed = |problem: DumpError| {
            let problem = files.left_out(problem);
            Failure { step: files.step, problem, observed: None, in_store: false }
        };
        let step = reader.read(files, &input.split).map_err(|problem| {
            // A file that is being written reads as damaged: say the likelier thing.
            failed(StepReader::check_unchanged(files).err().unwrap_or(problem))
        })?;
        let remarks = disagreements_of_parts(files, metadata).map_err(failed)?;
        StepReader::check_unchanged(files).map_err(failed)?;
        let observed = step.array.peek();
        if observed != input.found {
            let problem = Problem::Mixed { found: observed.to_string(), expected: input.found.to_string() };
            return Err(Failure { observed: Some(observed), ..failed(problem.at(files.path())) });
        }
        let mut remarks = remarks;
        remarks.extend(lost_by_narrowing(&step.array, recipe).map(|lost| Problem::Remark(lost).at(files.path())));
        let (array, rounding) = transform(step.array, recipe, input.grid);
        let as_in_file =
            !files.is_split() && array.shape == observed.shape && array.values.dtype().name() == observed.dtype.name();
        Ok(ReadStep { array, rounding, content_hash: step.content_hash, as_in_file, remarks })
    }

    /// Adds the step's rows to the fragment.
    fn describe(
        &self,
        plan: &StepPlan,
        index: usize,
        step: &mut ReadStep<'_>,
        measures: &StepMeasures,
        fragment: &mut Fragment,
    ) {
        fragment.remarks.append(&mut step.remarks);
        let mut steps_row = self.row(plan.step, index);
        if let StepSource::Files { files, metadata } = &plan.source {
            describe_row(&mut steps_row, metadata, files.is_split());
            steps_row.content_hash.clone_from(&step.content_hash);
            steps_row.rounding = step.rounding;
            update_source(&mut steps_row, files);
            let except: &[&str] = if step.as_in_file { &[] } else { &ARRAY_KEYS };
            let patch = MetadataPatch::between(&steps_row.to_metadata(), &metadata.raw, except);
            if !patch.is_empty() {
                fragment.metadata.push((plan.step, patch));
            }
            let nonfinite: u64 = measures.maps.iter().map(|map| u64::from(map.statistics.nonfinite)).sum();
            if nonfinite > 0 {
                let remark =
                    format!("{nonfinite} of {} values are NaN or infinite; they are kept", step.array.values.len());
                fragment.remarks.push(Problem::Remark(remark).at(&steps_row.source));
            }
        }
        fragment.rows.push(steps_row);
    }

    /// A row with what the series tells, for the shard's step number `index`.
    fn row(&self, step: i32, index: usize) -> StepRow {
        self.target.row(step, self.shard * self.target.layout.steps_per_shard() + index)
    }
}

/// What a narrower type does to the values of a step: what becomes infinite, and what becomes 0. Averages are not
/// looked at.
fn lost_by_narrowing(array: &StepArray<'_>, recipe: &Recipe) -> Option<String> {
    let is_averaged = recipe.average_blocks || recipe.average_heads || recipe.downsample > 1;
    let dtype = recipe.dtype.filter(|dtype| *dtype < array.values.dtype() && !is_averaged)?;
    let narrowed = |value: f64| match dtype {
        Dtype::Float16 => half::f16::from_f64(value).to_f64(),
        #[allow(clippy::cast_possible_truncation)] // that is what is asked
        _ => f64::from(value as f32),
    };
    let (mut infinite, mut zero) = (0_u64, 0_u64);
    for index in 0..array.shape.len() {
        let value = array.values.get(index);
        infinite += u64::from(value.is_finite() && narrowed(value).is_infinite());
        zero += u64::from(value != 0.0 && narrowed(value) == 0.0);
    }
    (infinite + zero > 0).then(|| {
        format!("as {dtype}, {infinite} of its {} values become infinite and {zero} become 0", array.shape.len())
    })
}

/// A step as it is to be stored.
struct ReadStep<'a> {
    array: StepArray<'a>,
    /// How far its values are from what they were, if they were rounded.
    rounding: Option<RoundingError>,
    content_hash: String,
    /// Whether shape and type are those of its one file.
    as_in_file: bool,
    /// What is odd about its files.
    remarks: Vec<DumpError>,
}

#[cfg(test)]
mod tests {
    use super::super::IngestOptions;
    use super::super::candidates::Decision;
    use super::super::findings::Findings;
    use super::super::plan::PlanTask;
    use super::super::prompts::Prompts;
    use super::super::series::SeriesPlan;
    use super::*;
    use crate::dump::Dump;

    /// The same task runs anywhere: all it needs is in it.
    #[test]
    fn a_task_that_was_sent_elsewhere_leaves_the_same_fragment() {
        let dump = Dump::find(&[concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/variants/split")]).unwrap();
        let (video, options) = (dump.videos[0].clone(), std::sync::Arc::new(IngestOptions::default()));
        let task = PlanTask { video_id: video.id(), video: Some(video), damage: None, options };
        let mut plan = task.look(None, &Prompts::default()).unwrap();
        let Decision::Write(word) = plan.to_write[0].decide(&mut Findings::default()) else {
            panic!("nothing to write");
        };
        let SeriesPlan { mut target, input, steps } = *word;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path().join("store")).unwrap();
        target.path = store.create_generation(&target.video_id, &target.token).unwrap().path().to_owned();
        let task = ShardTask { target, input, shard: 0, steps, unchanged_in: None };
        let sent: ShardTask = serde_json::from_str(&serde_json::to_string(&task).unwrap()).unwrap();
        assert_eq!(sent, task);
        let (here, there) = (task.run(&store, &|_| {}).unwrap(), sent.run(&store, &|_| {}).unwrap());
        assert_eq!((here.rows, here.heads, here.bytes_out), (there.rows, there.heads, there.bytes_out));
    }
}
