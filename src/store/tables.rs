//! The rows of the two tables, their Parquet columns, and the step metadata that a row stands for.
//!
//! Names and types of the columns are a contract: `schemas/steps.columns.json` and `schemas/heads.columns.json`.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int32Array, Int64Array, ListBuilder, PrimitiveBuilder,
    RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, Float64Type, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit,
    TimestampMicrosecondType,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::dtype::Dtype;
use crate::grid::Grid;
use crate::json::{Json, Object};
use crate::kernel::{MapMeasure, MapStatistics, RoundingError};
use crate::provenance::Provenance;
use crate::shape::{AxisNumbers, StepShape};

/// Digits of a seed: 2^64 - 1 has twenty.
const SEED_DIGITS: u8 = 20;

/// A row of `steps`: one step of one word in one video. See `schemas/steps.columns.json` for each column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRow {
    /// Name of the generated video.
    pub video_id: String,
    /// The part of the name that says which prompt, as in `prompt_000`.
    pub prompt_id: Option<String>,
    /// The prompt as sent to the model.
    pub prompt: Option<String>,
    /// The prompt template that the prompt is a variation of.
    pub template: Option<String>,
    /// Number of the variation within its template, from 0.
    pub variation: Option<i32>,
    /// Random seed of the video, from -2^63 to 2^64 - 1.
    pub seed: Option<i128>,
    /// Strength of classifier-free guidance.
    #[serde(with = "crate::json::exact::option")]
    pub cfg_scale: Option<f64>,
    /// The tracked word.
    pub token: String,
    /// Ids of the word's sub-tokens.
    pub token_ids: Vec<i64>,
    /// Texts of the word's sub-tokens.
    pub token_texts: Vec<String>,
    /// Emphasis of the word in the prompt.
    #[serde(with = "crate::json::exact::option")]
    pub weight: Option<f64>,
    /// Denoising step, from 0.
    pub step: i32,
    /// The scheduler's timestep.
    #[serde(with = "crate::json::exact::option")]
    pub timestep: Option<f64>,
    /// Number of denoising steps, as the dump says.
    pub total_steps: Option<i32>,
    /// What was averaged, as the dump says.
    pub aggregation_method: Option<String>,
    /// `num_blocks`, `num_heads`, `spatial`, `tokens`: shape of the step array as stored.
    pub shape: StepShape,
    /// `block_numbers`, `head_numbers`: where the array has chosen blocks or heads only.
    pub numbers: AxisNumbers,
    /// `frames`, `height`, `width`: the grid, if known.
    pub grid: Option<Grid>,
    /// Data type of the attention array.
    pub dtype: Dtype,
    /// Width of the generated video, pixels.
    pub video_width: Option<i32>,
    /// Height of the generated video, pixels.
    pub video_height: Option<i32>,
    /// Number of frames of the generated video.
    pub video_frames: Option<i32>,
    /// Threshold below which the generator dropped values.
    #[serde(with = "crate::json::exact::option")]
    pub threshold_applied: Option<f64>,
    /// `call` to `library_versions`: how the maps came about.
    #[serde(default)]
    pub provenance: Provenance,
    /// Path of the attention array from the store's root.
    pub array: String,
    /// Index along the step axis of that array.
    pub row: u32,
    /// The step's first tensor file.
    pub source: String,
    /// Bytes of all the step's tensor files.
    pub source_bytes: i64,
    /// Latest modification of the step's files: microseconds since 1970, UTC.
    pub source_modified: i64,
    /// By which an ingest tells whether one of the files was written since; empty if the step was written without a
    /// dump.
    pub source_signature: String,
    /// XXH3-128 of the step's files, 32 hexadecimal digits.
    pub content_hash: String,
    /// `max_error`, `mean_error`: how far the values are from what they were, if they were rounded.
    #[serde(default)]
    pub rounding: Option<RoundingError>,
}

/// The directory of a word's arrays, below the store, by the path of its `attention`.
pub(crate) fn series_of(attention: &str) -> &str {
    attention.strip_suffix("/attention").unwrap_or(attention)
}

impl StepRow {
    /// Directory of the word's arrays, below the store.
    #[must_use]
    pub fn series_path(&self) -> &str {
        series_of(&self.array)
    }

    /// The step metadata that this row stands for, with every documented key, and of what is told of the maps'
    /// provenance those keys that are not null.
    #[must_use]
    pub fn to_metadata(&self) -> Object {
        let [block_idx, head_idx] = self.numbers.as_metadata();
        let known = json!({
            "video_id": self.video_id,
            "step": self.step,
            "timestep": self.timestep,
            "total_steps": self.total_steps,
            "token_word": self.token,
            "token_ids": self.token_ids,
            "token_texts": self.token_texts,
            "aggregation_method": self.aggregation_method,
            "attention_shape": self.shape.axes(),
            "spatial_resolution": [self.shape.spatial, 1],
            "num_blocks": self.shape.blocks,
            "num_heads": self.shape.heads,
            "threshold_applied": self.threshold_applied,
            "block_idx": block_idx,
            "head_idx": head_idx,
            "dtype": format!("torch.{}", self.dtype),
            "prompt": self.prompt,
            "seed": null,
            "cfg_scale": self.cfg_scale,
            "video_width": self.video_width,
            "video_height": self.video_height,
            "video_frames": self.video_frames,
        });
        let Json::Object(mut metadata) = known.into() else { return Object::new() };
        metadata.insert("seed".into(), self.seed.map_or(Json::Null, Json::from));
        let Provenance {
            call,
            negative_prompt,
            weighting,
            model,
            positions,
            text_length,
            skipped,
            scheduler,
            model_id,
            guidance_scale,
            library_versions,
            // These follow, as a rule.
            pieces: _,
            pooling: _,
        } = &self.provenance;
        let versions = library_versions.as_ref().and_then(|versions| serde_json::from_str(versions).ok());
        let told: [(&str, Option<serde_json::Value>); 11] = [
            ("call", call.map(|call| call.name().into())),
            ("negative_prompt", negative_prompt.as_deref().map(Into::into)),
            ("weighting", weighting.as_deref().map(Into::into)),
            ("model", model.as_deref().map(Into::into)),
            ("positions", positions.as_deref().map(Into::into)),
            ("text_length", text_length.map(Into::into)),
            ("skipped", skipped.as_deref().map(Into::into)),
            ("scheduler", scheduler.as_deref().map(Into::into)),
            ("model_id", model_id.as_deref().map(Into::into)),
            ("guidance_scale", guidance_scale.map(Into::into)),
            ("library_versions", versions),
        ];
        metadata.extend(told.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.into()))));
        metadata
    }
}

/// A row of `heads`: one map. The video and the word are told beside it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadRow {
    /// Denoising step.
    pub step: i32,
    /// Position on the token axis.
    pub token_index: i32,
    /// Transformer block; `None` if the dump was averaged over blocks.
    pub block: Option<i32>,
    /// Attention head; `None` if the dump was averaged over heads.
    pub head: Option<i32>,
    /// Number of positions.
    pub spatial: i32,
    /// The grid, if known: without it, positions and centroids are null.
    pub grid: Option<Grid>,
    /// What was measured.
    pub statistics: MapStatistics,
}

impl HeadRow {
    /// The row of a map that was measured in a step of `shape`, with `numbers` along its axes, on `grid`.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // axes are below 2^31
    pub fn new(step: i32, shape: StepShape, numbers: &AxisNumbers, grid: Option<Grid>, map: &MapMeasure) -> Self {
        Self {
            step,
            token_index: map.token as i32,
            block: numbers.block(shape, map.block),
            head: numbers.head(shape, map.head),
            spatial: shape.spatial as i32,
            grid,
            statistics: map.statistics,
        }
    }

    fn entropy_norm(&self) -> f64 {
        self.statistics.distribution.entropy / f64::from(self.spatial).ln()
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // grid coordinates are small
    fn argmax(&self) -> Option<[i32; 3]> {
        let (frame, y, x) = self.grid?.position(self.statistics.argmax?);
        Some([frame as i32, y as i32, x as i32])
    }

    fn location(&self) -> Option<[f64; 4]> {
        let location = self.statistics.location;
        self.grid.map(|_| [location.centroid_frame, location.centroid_y, location.centroid_x, location.spread])
    }
}

/// Columns of `steps`, in order.
#[must_use]
pub fn steps_schema() -> SchemaRef {
    let list = |item: DataType| DataType::List(Arc::new(Field::new("item", item, true)));
    let seed = DataType::Decimal128(SEED_DIGITS, 0);
    let modified = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let (text, int, long, float) = (DataType::Utf8, DataType::Int32, DataType::Int64, DataType::Float64);
    let columns = [
        ("video_id", &text, false),
        ("prompt_id", &text, true),
        ("prompt", &text, true),
        ("template", &text, true),
        ("variation", &int, true),
        ("seed", &seed, true),
        ("cfg_scale", &float, true),
        ("token", &text, false),
        ("token_ids", &list(DataType::Int64), false),
        ("token_texts", &list(DataType::Utf8), false),
        ("weight", &float, true),
        ("step", &int, false),
        ("timestep", &float, true),
        ("total_steps", &int, true),
        ("aggregation_method", &text, true),
        ("num_blocks", &int, false),
        ("num_heads", &int, false),
        ("spatial", &int, false),
        ("tokens", &int, false),
        ("block_numbers", &list(DataType::Int32), true),
        ("head_numbers", &list(DataType::Int32), true),
        ("frames", &int, true),
        ("height", &int, true),
        ("width", &int, true),
        ("dtype", &text, false),
        ("video_width", &int, true),
        ("video_height", &int, true),
        ("video_frames", &int, true),
        ("threshold_applied", &float, true),
        ("array", &text, false),
        ("row", &int, false),
        ("source", &text, false),
        ("source_bytes", &long, false),
        ("source_modified", &modified, false),
        ("source_signature", &text, false),
        ("content_hash", &text, false),
        ("call", &text, true),
        ("negative_prompt", &text, true),
        ("weighting", &text, true),
        ("model", &text, true),
        ("pieces", &int, true),
        ("pooling", &text, true),
        ("positions", &list(DataType::Int32), true),
        ("text_length", &int, true),
        ("skipped", &list(DataType::Int32), true),
        ("scheduler", &text, true),
        ("model_id", &text, true),
        ("guidance_scale", &float, true),
        ("library_versions", &text, true),
        ("max_error", &float, true),
        ("mean_error", &float, true),
    ];
    schema(&columns)
}

/// Columns of `heads`, in order.
#[must_use]
pub fn heads_schema() -> SchemaRef {
    let (text, int, float) = (DataType::Utf8, DataType::Int32, DataType::Float64);
    let mut columns = vec![
        ("video_id", &text, false),
        ("token", &text, false),
        ("step", &int, false),
        ("token_index", &int, false),
        ("block", &int, true),
        ("head", &int, true),
    ];
    columns.extend(["sum", "mean", "std", "min", "max"].map(|name| (name, &float, false)));
    columns.extend(["argmax_frame", "argmax_y", "argmax_x"].map(|name| (name, &int, true)));
    columns.extend(["entropy", "entropy_norm", "gini", "top1", "top5", "top10"].map(|name| (name, &float, false)));
    columns.extend(["centroid_frame", "centroid_y", "centroid_x", "spread"].map(|name| (name, &float, true)));
    columns.push(("nonfinite", &int, false));
    schema(&columns)
}

pub(super) fn schema(columns: &[(&str, &DataType, bool)]) -> SchemaRef {
    let fields: Vec<Field> =
        columns.iter().map(|&(name, kind, nullable)| Field::new(name, kind.clone(), nullable)).collect();
    Arc::new(Schema::new(fields))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // axes are checked to be below 2^31 when read
fn axis(size: usize) -> i32 {
    size as i32
}

/// Rows of `steps` as columns.
pub(super) fn steps_batch(rows: &[StepRow]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let text = |get: fn(&StepRow) -> &str| Arc::new(StringArray::from_iter_values(rows.iter().map(get))) as ArrayRef;
    let text_or_null =
        |get: fn(&StepRow) -> Option<&str>| Arc::new(rows.iter().map(get).collect::<StringArray>()) as ArrayRef;
    let int = |get: fn(&StepRow) -> Option<i32>| Arc::new(rows.iter().map(get).collect::<Int32Array>()) as ArrayRef;
    let float = |get: fn(&StepRow) -> Option<f64>| Arc::new(rows.iter().map(get).collect::<Float64Array>()) as ArrayRef;
    let mut ids = ListBuilder::new(PrimitiveBuilder::<Int64Type>::new());
    let mut texts = ListBuilder::new(StringBuilder::new());
    for row in rows {
        ids.append_value(row.token_ids.iter().copied().map(Some));
        texts.append_value(row.token_texts.iter().map(Some));
    }
    let ints = |get: fn(&StepRow) -> Option<&[i32]>| {
        let mut lists = ListBuilder::new(PrimitiveBuilder::<Int32Type>::new());
        for row in rows {
            lists.append_option(get(row).map(|numbers| numbers.iter().copied().map(Some)));
        }
        Arc::new(lists.finish()) as ArrayRef
    };
    let seeds: Decimal128Array = rows.iter().map(|row| row.seed).collect();
    let modified =
        TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.source_modified)).with_timezone("UTC");
    RecordBatch::try_new(
        steps_schema(),
        vec![
            text(|row| &row.video_id),
            text_or_null(|row| row.prompt_id.as_deref()),
            text_or_null(|row| row.prompt.as_deref()),
            text_or_null(|row| row.template.as_deref()),
            int(|row| row.variation),
            Arc::new(seeds.with_precision_and_scale(SEED_DIGITS, 0)?),
            float(|row| row.cfg_scale),
            text(|row| &row.token),
            Arc::new(ids.finish()),
            Arc::new(texts.finish()),
            float(|row| row.weight),
            int(|row| Some(row.step)),
            float(|row| row.timestep),
            int(|row| row.total_steps),
            text_or_null(|row| row.aggregation_method.as_deref()),
            int(|row| Some(axis(row.shape.blocks))),
            int(|row| Some(axis(row.shape.heads))),
            int(|row| Some(axis(row.shape.spatial))),
            int(|row| Some(axis(row.shape.tokens))),
            ints(|row| row.numbers.blocks.as_deref()),
            ints(|row| row.numbers.heads.as_deref()),
            int(|row| row.grid.map(|grid| axis(grid.frames))),
            int(|row| row.grid.map(|grid| axis(grid.height))),
            int(|row| row.grid.map(|grid| axis(grid.width))),
            text(|row| row.dtype.name()),
            int(|row| row.video_width),
            int(|row| row.video_height),
            int(|row| row.video_frames),
            float(|row| row.threshold_applied),
            text(|row| &row.array),
            int(|row| i32::try_from(row.row).ok()),
            text(|row| &row.source),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.source_bytes))),
            Arc::new(modified),
            text(|row| &row.source_signature),
            text(|row| &row.content_hash),
            text_or_null(|row| Some(row.provenance.call?.name())),
            text_or_null(|row| row.provenance.negative_prompt.as_deref()),
            text_or_null(|row| row.provenance.weighting.as_deref()),
            text_or_null(|row| row.provenance.model.as_deref()),
            int(|row| row.provenance.pieces),
            text_or_null(|row| Some(row.provenance.pooling?.name())),
            ints(|row| row.provenance.positions.as_deref()),
            int(|row| row.provenance.text_length),
            ints(|row| row.provenance.skipped.as_deref()),
            text_or_null(|row| row.provenance.scheduler.as_deref()),
            text_or_null(|row| row.provenance.model_id.as_deref()),
            float(|row| row.provenance.guidance_scale),
            text_or_null(|row| row.provenance.library_versions.as_deref()),
            float(|row| Some(row.rounding?.max)),
            float(|row| Some(row.rounding?.mean)),
        ],
    )
}

/// The rows of one word as columns of `heads`.
pub(crate) fn heads_batch(
    video_id: &str,
    token: &str,
    rows: &[HeadRow],
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let text = |value: &str| Arc::new(StringArray::from_iter_values(rows.iter().map(|_| value))) as ArrayRef;
    let int = |get: fn(&HeadRow) -> Option<i32>| Arc::new(rows.iter().map(get).collect::<Int32Array>()) as ArrayRef;
    let float = |get: fn(&HeadRow) -> Option<f64>| Arc::new(rows.iter().map(get).collect::<Float64Array>()) as ArrayRef;
    RecordBatch::try_new(
        heads_schema(),
        vec![
            text(video_id),
            text(token),
            int(|row| Some(row.step)),
            int(|row| Some(row.token_index)),
            int(|row| row.block),
            int(|row| row.head),
            float(|row| Some(row.statistics.distribution.sum)),
            float(|row| Some(row.statistics.distribution.mean)),
            float(|row| Some(row.statistics.distribution.std)),
            float(|row| Some(row.statistics.distribution.min)),
            float(|row| Some(row.statistics.distribution.max)),
            int(|row| row.argmax().map(|at| at[0])),
            int(|row| row.argmax().map(|at| at[1])),
            int(|row| row.argmax().map(|at| at[2])),
            float(|row| Some(row.statistics.distribution.entropy)),
            float(|row| Some(row.entropy_norm())),
            float(|row| Some(row.statistics.distribution.gini)),
            float(|row| Some(row.statistics.distribution.top1)),
            float(|row| Some(row.statistics.distribution.top5)),
            float(|row| Some(row.statistics.distribution.top10)),
            float(|row| row.location().map(|at| at[0])),
            float(|row| row.location().map(|at| at[1])),
            float(|row| row.location().map(|at| at[2])),
            float(|row| row.location().map(|at| at[3])),
            int(|row| i32::try_from(row.statistics.nonfinite).ok().or(Some(i32::MAX))),
        ],
    )
}

/// What columns of `steps` say of how a step is stored, as whoever reads them finds it.
pub(crate) struct StoredAs<'a> {
    /// `num_blocks`, `num_heads`, `spatial`, `tokens`.
    pub axes: [Option<i32>; 4],
    /// `block_numbers`, `head_numbers`.
    pub numbers: AxisNumbers,
    /// `frames`, `height`, `width`.
    pub grid: [Option<i32>; 3],
    /// `dtype`.
    pub dtype: Option<&'a str>,
    /// `row`.
    pub row: Option<i32>,
}

/// How a step is stored.
pub(crate) struct StepPlace {
    pub shape: StepShape,
    pub numbers: AxisNumbers,
    pub grid: Option<Grid>,
    pub dtype: Dtype,
    pub row: u32,
}

impl StoredAs<'_> {
    /// The same, if it is of one piece; else what is not.
    pub fn checked(self) -> Result<StepPlace, String> {
        let size = |size: Option<i32>| size.and_then(|size| usize::try_from(size).ok());
        let shape = StepShape::from_axes(&self.axes.map(|axis| size(axis).unwrap_or(0))).ok_or("an empty axis")?;
        if !self.numbers.fit(shape) {
            return Err("numbers of blocks or heads that are not as many as they".into());
        }
        let grid = match self.grid.map(size) {
            [Some(frames), Some(height), Some(width)] => Some(Grid { frames, height, width }),
            _ => None,
        };
        if grid.is_some_and(|grid| grid.spatial() != shape.spatial) {
            return Err("a grid of another number of positions".into());
        }
        let dtype = self.dtype.unwrap_or_default();
        let dtype = dtype.parse().map_err(|_| format!("an unknown dtype, `{dtype}`"))?;
        let row = self.row.and_then(|row| u32::try_from(row).ok()).ok_or("no row")?;
        Ok(StepPlace { shape, numbers: self.numbers, grid, dtype, row })
    }
}

/// Columns as rows of `steps`; the error names a column that is not as it should be.
pub(super) fn steps_from_batch(batch: &RecordBatch) -> Result<Vec<StepRow>, String> {
    let batch = with_added(batch)?;
    let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("no column `{name}`"));
    let text = |name: &str| column(name).map(arrow::array::AsArray::as_string::<i32>);
    let int = |name: &str| column(name).map(arrow::array::AsArray::as_primitive::<Int32Type>);
    let long = |name: &str| column(name).map(arrow::array::AsArray::as_primitive::<Int64Type>);
    let float = |name: &str| column(name).map(arrow::array::AsArray::as_primitive::<Float64Type>);
    (0..batch.num_rows())
        .map(|row| {
            let string = |name| text(name).map(|column| column.value(row).to_owned());
            let string_or_null =
                |name| text(name).map(|column| column.is_valid(row).then(|| column.value(row).to_owned()));
            let int_or_null = |name| int(name).map(|column| column.is_valid(row).then(|| column.value(row)));
            let float_or_null = |name| float(name).map(|column| column.is_valid(row).then(|| column.value(row)));
            let ints = |name| {
                column(name).map(|column| {
                    let lists = column.as_list::<i32>();
                    lists.is_valid(row).then(|| lists.value(row).as_primitive::<Int32Type>().values().to_vec())
                })
            };
            let stored = StoredAs {
                axes: [
                    int_or_null("num_blocks")?,
                    int_or_null("num_heads")?,
                    int_or_null("spatial")?,
                    int_or_null("tokens")?,
                ],
                numbers: AxisNumbers {
                    blocks: ints("block_numbers")?.map(Into::into),
                    heads: ints("head_numbers")?.map(Into::into),
                },
                grid: [int_or_null("frames")?, int_or_null("height")?, int_or_null("width")?],
                dtype: Some(text("dtype")?.value(row)),
                row: int_or_null("row")?,
            };
            let StepPlace { shape, numbers, grid, dtype, row: place } = stored.checked()?;
            let ids = column("token_ids")?.as_list::<i32>().value(row);
            let texts = column("token_texts")?.as_list::<i32>().value(row);
            Ok(StepRow {
                video_id: string("video_id")?,
                prompt_id: string_or_null("prompt_id")?,
                prompt: string_or_null("prompt")?,
                template: string_or_null("template")?,
                variation: int_or_null("variation")?,
                seed: {
                    let seeds = column("seed")?.as_primitive::<Decimal128Type>();
                    seeds.is_valid(row).then(|| seeds.value(row))
                },
                cfg_scale: float_or_null("cfg_scale")?,
                token: string("token")?,
                token_ids: ids.as_primitive::<Int64Type>().values().to_vec(),
                token_texts: texts.as_string::<i32>().iter().flatten().map(str::to_owned).collect(),
                weight: float_or_null("weight")?,
                step: int("step")?.value(row),
                timestep: float_or_null("timestep")?,
                total_steps: int_or_null("total_steps")?,
                aggregation_method: string_or_null("aggregation_method")?,
                shape,
                numbers,
                grid,
                dtype,
                video_width: int_or_null("video_width")?,
                video_height: int_or_null("video_height")?,
                video_frames: int_or_null("video_frames")?,
                threshold_applied: float_or_null("threshold_applied")?,
                array: string("array")?,
                row: place,
                source: string("source")?,
                source_bytes: long("source_bytes")?.value(row),
                source_modified: column("source_modified")?.as_primitive::<TimestampMicrosecondType>().value(row),
                source_signature: string("source_signature")?,
                content_hash: string("content_hash")?,
                provenance: Provenance {
                    call: parsed(string_or_null("call")?)?,
                    negative_prompt: string_or_null("negative_prompt")?,
                    weighting: string_or_null("weighting")?,
                    model: string_or_null("model")?,
                    pieces: int_or_null("pieces")?,
                    pooling: parsed(string_or_null("pooling")?)?,
                    positions: ints("positions")?,
                    text_length: int_or_null("text_length")?,
                    skipped: ints("skipped")?,
                    scheduler: string_or_null("scheduler")?,
                    model_id: string_or_null("model_id")?,
                    guidance_scale: float_or_null("guidance_scale")?,
                    library_versions: string_or_null("library_versions")?,
                },
                rounding: float_or_null("max_error")?
                    .zip(float_or_null("mean_error")?)
                    .map(|(max, mean)| RoundingError { max, mean }),
            })
        })
        .collect()
}

fn parsed<T: FromStr>(name: Option<String>) -> Result<Option<T>, T::Err> {
    name.as_deref().map(str::parse).transpose()
}

/// The columns that a part with so many has of a table: columns behind the last that is never null were added since
/// the first version.
pub(super) fn columns_of_part(table: &Schema, count: usize) -> Option<&[FieldRef]> {
    let first = table.fields().iter().rposition(|field| !field.is_nullable()).map_or(0, |last| last + 1);
    table.fields().get(..count).filter(|fields| fields.len() >= first)
}

/// Rows of `steps` of any version with the columns that were added since, as nulls.
pub(super) fn with_added(batch: &RecordBatch) -> Result<RecordBatch, String> {
    let table = steps_schema();
    let count = batch.num_columns();
    if columns_of_part(&table, count) != Some(&**batch.schema().fields()) {
        return Err(format!("its columns are {}; expected those of the `steps` table", names(&batch.schema())));
    }
    let added = table.fields().iter().skip(count);
    let added = added.map(|field| new_null_array(field.data_type(), batch.num_rows()));
    let columns = batch.columns().iter().cloned().chain(added).collect();
    RecordBatch::try_new(table, columns).map_err(|error| error.to_string())
}

/// The rows of `heads` of each word.
pub(super) fn heads_by_token(table: &RecordBatch) -> Result<BTreeMap<String, RecordBatch>, String> {
    let tokens = table.column_by_name("token").ok_or("no column `token`")?.as_string::<i32>();
    let mut by_token = BTreeMap::new();
    let mut start = 0;
    for row in 1..=tokens.len() {
        if row == tokens.len() || tokens.value(row) != tokens.value(start) {
            by_token.insert(tokens.value(start).to_owned(), table.slice(start, row - start));
            start = row;
        }
    }
    Ok(by_token)
}

/// Names of a schema's columns, for messages.
pub(super) fn names(schema: &Schema) -> String {
    schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::text_schema;
    use super::*;

    /// The documented columns and those written are the same.
    #[test]
    fn columns_are_those_of_the_schemas() {
        let records = super::super::pack::Table::Records.schema();
        let tables =
            [("steps", steps_schema()), ("heads", heads_schema()), ("text", text_schema()), ("records", records)];
        for (table, schema) in tables {
            let path = format!("{}/schemas/{table}.columns.json", env!("CARGO_MANIFEST_DIR"));
            let documented: Vec<serde_json::Value> =
                serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
            let written: Vec<(String, String, bool)> = schema
                .fields()
                .iter()
                .map(|field| {
                    let kind = match field.data_type() {
                        DataType::Utf8 => "string".into(),
                        DataType::Int32 => "int32".into(),
                        DataType::Int64 => "int64".into(),
                        DataType::Float64 => "float64".into(),
                        DataType::Decimal128(20, 0) => "decimal(20, 0)".into(),
                        DataType::List(item) if item.data_type() == &DataType::Int64 => "list<int64>".into(),
                        DataType::List(item) if item.data_type() == &DataType::Int32 => "list<int32>".into(),
                        DataType::List(_) => "list<string>".into(),
                        DataType::Timestamp(..) => "timestamp(us, UTC)".into(),
                        other => format!("{other}"),
                    };
                    (field.name().clone(), kind, field.is_nullable())
                })
                .collect();
            let documented: Vec<(String, String, bool)> = documented
                .iter()
                .map(|c| {
                    (
                        c["name"].as_str().unwrap().into(),
                        c["type"].as_str().unwrap().into(),
                        c["nullable"].as_bool().unwrap(),
                    )
                })
                .collect();
            assert_eq!(written, documented, "{table}");
        }
    }
}
