//! One word of one video as it is to be written: where it goes, where its steps come from, the rows that stand for it,
//! and the one writer of its arrays.

use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::dtype::{Dtype, SourceDtype};
use crate::dump::{ReadOptions, StepFiles, StepMetadata, StepPeek};
use crate::grid::Grid;
use crate::kernel::{StepMeasurer, StepMeasures};
use crate::provenance::Provenance;
use crate::shape::AxisNumbers;
use crate::store::{
    ArrayKind, Generation, HeadRow, Recipe, SeriesLayout, ShardWriter, StepRow, StoreError, heads_batch,
};
use crate::values::{Values, with_values};

/// What is written of one word of one video, and where to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesTarget {
    /// The video.
    pub video_id: String,
    /// Its prompt's id.
    pub prompt_id: Option<String>,
    /// The word.
    pub token: String,
    /// The word's weight, where known.
    #[serde(with = "crate::json::exact::option")]
    pub weight: Option<f64>,
    /// Directory of the arrays, below the store.
    pub path: String,
    /// Shapes, chunks and codec.
    pub layout: SeriesLayout,
    /// The grid of what is stored.
    pub grid: Option<Grid>,
    /// Blocks and heads of what is stored, where they do not count from 0.
    pub numbers: AxisNumbers,
    /// What was done with the values.
    pub recipe: Recipe,
    /// Directory the step files are in; empty, if there are none.
    pub source: PathBuf,
    /// The type of their values.
    pub source_dtype: SourceDtype,
    /// Names of the arrays that are read of npz archives.
    pub source_arrays: Vec<String>,
    /// What is lost between the files and the store, or was before they were exported: `attributes.attnkit.lossy`.
    pub lossy: serde_json::Map<String, serde_json::Value>,
}

/// How the step files of a word are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesInput {
    /// Shape and type that every step file must have.
    pub found: StepPeek,
    /// Their grid.
    pub grid: Option<Grid>,
    /// What of them is read.
    pub read: ReadOptions,
    /// Blocks and heads of split files.
    pub split: AxisNumbers,
}

/// A word as it was decided: what is written, and from what.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SeriesPlan {
    pub target: SeriesTarget,
    pub input: SeriesInput,
    pub steps: Vec<StepPlan>,
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
        row: u32,
    },
}

impl StepSource {
    /// Bytes of its files.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Files { files, .. } => files.bytes(),
            Self::Stored { .. } => 0,
        }
    }
}

impl SeriesTarget {
    /// A row with what the series tells, for the step at `row` on the step axis.
    pub(super) fn row(&self, step: i32, row: usize) -> StepRow {
        StepRow {
            video_id: self.video_id.clone(),
            prompt_id: self.prompt_id.clone(),
            prompt: None,
            template: None,
            variation: None,
            seed: None,
            cfg_scale: None,
            token: self.token.clone(),
            token_ids: Vec::new(),
            token_texts: Vec::new(),
            weight: self.weight,
            step,
            timestep: None,
            total_steps: None,
            aggregation_method: None,
            shape: self.layout.shape,
            numbers: self.numbers.clone(),
            grid: self.grid,
            dtype: self.layout.dtype,
            video_width: None,
            video_height: None,
            video_frames: None,
            threshold_applied: None,
            provenance: Provenance::default(),
            array: format!("{}/{}", self.path, ArrayKind::Attention.name()),
            row: u32::try_from(row).unwrap_or(u32::MAX),
            source: String::new(),
            source_bytes: 0,
            source_modified: 0,
            source_signature: String::new(),
            content_hash: String::new(),
            rounding: None,
        }
    }
}

impl SeriesInput {
    /// What is lost between the files and what is stored as `dtype`, if `before` was lost when the files were exported.
    pub(super) fn lossy(
        &self,
        recipe: &Recipe,
        dtype: Dtype,
        before: serde_json::Map<String, serde_json::Value>,
    ) -> serde_json::Map<String, serde_json::Value> {
        let (mut lossy, found) = (before, self.found);
        if recipe.downsample > 1 {
            let before = lossy.get("downsample").and_then(serde_json::Value::as_u64).unwrap_or(1);
            lossy.insert("downsample".into(), (before * recipe.downsample as u64).into());
            lossy.entry("downsampled_from").or_insert_with(|| serde_json::json!(self.grid));
        }
        let was_averaged = |axis: &str| {
            let before = lossy.get("average").and_then(serde_json::Value::as_array);
            before.is_some_and(|axes| axes.iter().any(|before| before == axis))
        };
        let averaged = [
            ("block", was_averaged("block") || (recipe.average_blocks && found.shape.blocks > 1)),
            ("head", was_averaged("head") || (recipe.average_heads && found.shape.heads > 1)),
        ];
        let averaged: Vec<&str> =
            averaged.into_iter().filter_map(|(axis, averaged)| averaged.then_some(axis)).collect();
        if !averaged.is_empty() {
            lossy.insert("average".into(), averaged.into());
        }
        match recipe.batch {
            Some(crate::dump::Batch::Mean) => lossy.insert("batch".into(), "mean".into()),
            Some(crate::dump::Batch::Index(index)) => lossy.insert("batch".into(), index.into()),
            None => None,
        };
        if let Some(bits) = recipe.bits.filter(|bits| *bits < dtype.fraction_bits()) {
            let before = lossy.get("bits").and_then(serde_json::Value::as_u64).unwrap_or(u64::MAX);
            lossy.insert("bits".into(), before.min(bits.into()).into());
        }
        let narrowed = dtype < found.dtype.stored() && found.dtype != SourceDtype::Float16;
        if narrowed {
            lossy.insert("dtype".into(), dtype.name().into());
        }
        lossy
    }
}

/// Writes steps of a word, one behind the other: a shard of each of its arrays, and the statistics of its maps.
pub(super) struct SeriesWriter<'a> {
    target: &'a SeriesTarget,
    generation: Generation,
    shard: usize,
    arrays: Vec<(ArrayKind, ShardWriter)>,
    /// Made for the first step: until then its shape may be metadata's word alone.
    measurer: Option<StepMeasurer>,
    heads: Vec<HeadRow>,
    is_parallel: bool,
}

impl<'a> SeriesWriter<'a> {
    /// Begins a shard, by its number along the step axis.
    pub fn begin(target: &'a SeriesTarget, generation: Generation, shard: usize) -> Result<Self, StoreError> {
        let begun = |kind| Ok((kind, generation.shard(&target.layout, kind, shard)?));
        let arrays = target.layout.kinds().map(begun).collect::<Result<_, StoreError>>()?;
        Ok(Self { target, generation, shard, arrays, measurer: None, heads: Vec::new(), is_parallel: false })
    }

    /// The same with all arrays written at the same time: for whoever writes nothing else meanwhile.
    pub fn in_parallel(self) -> Self {
        Self { is_parallel: true, ..self }
    }

    /// Takes over the first steps of the word from another generation, which `layout` describes: full shards as they
    /// are, and the beginning of this one by copying its encoded chunks.
    pub fn take_over(&mut self, from: &Generation, layout: &SeriesLayout) -> Result<(), StoreError> {
        let (generation, shard) = (self.generation.clone(), self.shard);
        // While the steps are fewer than a shard holds, a shard is as long as the array.
        let begun = layout.steps.saturating_sub(shard * self.target.layout.steps_per_shard());
        self.each(|kind, array| {
            (0..shard).try_for_each(|full| generation.share(from, kind, full))?;
            if begun > 0 { from.copy_steps(layout, kind, shard, begun, array) } else { Ok(()) }
        })
    }

    /// Measures the next step, and writes it.
    pub fn push(&mut self, step: i32, values: &Values<'_>) -> Result<StepMeasures, StoreError> {
        let SeriesTarget { layout, grid, numbers, .. } = self.target;
        let measures = with_values!(values, of_type => self
            .measurer
            .get_or_insert_with(|| StepMeasurer::new(layout.shape, *grid))
            .measure(of_type));
        self.each(|kind, array| {
            let (bytes, size) = match kind.measured(&measures) {
                None => (values.bytes(), values.dtype().size()),
                Some(mean) => (bytemuck::cast_slice(mean), size_of::<f32>()),
            };
            bytes.chunks(layout.chunk_len(kind) * size).try_for_each(|chunk| array.push(chunk))
        })?;
        self.heads.extend(measures.maps.iter().map(|map| HeadRow::new(step, layout.shape, numbers, *grid, map)));
        Ok(measures)
    }

    /// Ends the shard. Returns the rows of `heads` of the steps that were pushed, and the bytes
    /// written.
    pub fn finish(self) -> Result<(RecordBatch, u64), StoreError> {
        let bytes = if self.is_parallel {
            self.arrays.into_par_iter().map(|(_, array)| array.finish()).sum::<Result<u64, _>>()?
        } else {
            self.arrays.into_iter().map(|(_, array)| array.finish()).sum::<Result<u64, _>>()?
        };
        let heads = heads_batch(&self.target.video_id, &self.target.token, &self.heads);
        let damaged = |error: ArrowError| StoreError::Damaged { path: self.generation.place(), found: error.into() };
        Ok((heads.map_err(damaged)?, bytes))
    }

    fn each(
        &mut self,
        work: impl Fn(ArrayKind, &mut ShardWriter) -> Result<(), StoreError> + Sync,
    ) -> Result<(), StoreError> {
        if self.is_parallel {
            self.arrays.par_iter_mut().try_for_each(|(kind, array)| work(*kind, array))
        } else {
            self.arrays.iter_mut().try_for_each(|(kind, array)| work(*kind, array))
        }
    }
}

/// Adds what a step's metadata tells to its row.
pub(super) fn describe_row(row: &mut StepRow, metadata: &StepMetadata, split: bool) {
    row.prompt.clone_from(&metadata.prompt);
    row.seed = metadata.seed;
    row.cfg_scale = metadata.cfg_scale;
    row.token_ids.clone_from(&metadata.token_ids);
    row.token_texts.clone_from(&metadata.token_texts);
    row.timestep = metadata.timestep;
    row.total_steps = metadata.total_steps;
    row.aggregation_method = if split { Some("per_step_full".to_owned()) } else { metadata.aggregation_method.clone() };
    row.video_width = metadata.video_width;
    row.video_height = metadata.video_height;
    row.video_frames = metadata.video_frames;
    row.threshold_applied = metadata.threshold_applied;
    row.provenance = metadata.provenance.clone().completed(row.token_ids.len(), row.shape.tokens);
    let told = &metadata.exported;
    row.prompt_id = told.prompt_id.clone().or(row.prompt_id.take());
    row.template = told.template.clone().or(row.template.take());
    row.variation = told.variation.or(row.variation);
}
