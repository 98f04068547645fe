//! One word of one video as it is to be written: where it goes, where its steps come from, and the rows that stand
//! for it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::dtype::SourceDtype;
use crate::dump::{ReadOptions, StepFiles, StepMetadata, StepPeek};
use crate::grid::Grid;
use crate::shape::AxisNumbers;
use crate::store::{ArrayKind, Recipe, SeriesLayout, StepRow};

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
        row: u32,
    },
}

impl SeriesPlan {
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
            array: format!("{}/{}", self.path, ArrayKind::Attention.name()),
            row: u32::try_from(row).unwrap_or(u32::MAX),
            source: String::new(),
            source_bytes: 0,
            source_modified: 0,
            source_signature: String::new(),
            content_hash: String::new(),
        }
    }

    /// What is lost between the files and the store, or was before they were exported: `attributes.attnkit.lossy`.
    pub(super) fn lossy(&self) -> serde_json::Value {
        let (recipe, found) = (&self.recipe, self.found);
        let mut lossy = self.lost.clone();
        if recipe.downsample > 1 {
            let before = lossy.get("downsample").and_then(serde_json::Value::as_u64).unwrap_or(1);
            lossy.insert("downsample".into(), (before * recipe.downsample as u64).into());
            lossy.entry("downsampled_from").or_insert_with(|| serde_json::json!(self.source_grid));
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
        let narrowed = self.layout.dtype < found.dtype.stored() && found.dtype != SourceDtype::Float16;
        if narrowed {
            lossy.insert("dtype".into(), self.layout.dtype.name().into());
        }
        lossy.into()
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
    let told = &metadata.exported;
    row.prompt_id = told.prompt_id.clone().or(row.prompt_id.take());
    row.template = told.template.clone().or(row.template.take());
    row.variation = told.variation.or(row.variation);
}
