//! How the arrays of one word are laid out: their shapes, how values are cut into chunks and shards, and the documents
//! that say so.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::dtype::Dtype;
use crate::kernel::StepMeasures;
use crate::shape::{AxisNumbers, StepShape};

/// Inner chunks hold whole heads up to this.
const CHUNK_BYTES: usize = 512 << 10;
/// Whole blocks are joined into one inner chunk up to this.
const JOINED_BYTES: usize = 64 << 10;
/// Raw bytes of the steps of one shard.
const SHARD_BYTES: usize = 128 << 20;
/// Rollups are kept of steps of so many bytes: smaller ones are read as fast as their means.
const ROLLED_UP_BYTES: usize = 256 << 10;
/// A rollup takes at most this part of the bytes of what it is a mean of.
const ROLLUP_SHARE: usize = 25;
/// Words of fewer steps, if these count from 0, have them in the attributes of their group.
const STEPS_WITH_COORDINATES: i32 = 4;
/// Blosc compresses blocks of at most so many elements.
const BLOSC_BLOCK_ELEMENTS: usize = 64 << 10;

/// How arrays are compressed. Every codec is lossless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Blosc with lz4: the fastest to read and write.
    Fast,
    /// Blosc with zstd, level 1: nearly the smallest, and fast.
    #[default]
    Balanced,
    /// Blosc with zstd, level 9: the smallest, slow to write.
    Small,
    /// No compression.
    None,
}

impl Codec {
    const ALL: [Self; 4] = [Self::Fast, Self::Balanced, Self::Small, Self::None];

    /// As users choose it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Balanced => "balanced",
            Self::Small => "small",
            Self::None => "none",
        }
    }

    /// The compressor's Zarr metadata for inner chunks of `bytes` of `dtype`.
    fn metadata(self, dtype: Dtype, bytes: usize) -> Option<Value> {
        let (cname, level) = match self {
            Self::None => return None,
            Self::Fast => ("lz4", 5),
            Self::Balanced => ("zstd", 1),
            Self::Small => ("zstd", 5),
        };
        // Of what lz4 compresses, Blosc makes a stream for each byte of an element, and blocks as much larger.
        let streams = if self == Self::Fast { dtype.size() } else { 1 };
        Some(json!({"name": "blosc", "configuration": {
            "cname": cname, "clevel": level, "shuffle": "bitshuffle", "typesize": dtype.size(),
            "blocksize": blosc_block(dtype, bytes) / streams,
        }}))
    }
}

/// A choice of how arrays are compressed: `fast`, `balanced`, `small`, `none`, or `lossy:bits=N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChosenCodec {
    /// The codec; of the last, [`Codec::Balanced`].
    pub codec: Codec,
    /// Bits of the fraction that values are rounded to, before they are compressed; `None`: they are not.
    pub bits: Option<u8>,
}

impl ChosenCodec {
    /// The fraction of float64 has as many, and one is left out at least.
    const MOST_BITS: u8 = Dtype::Float64.fraction_bits() - 1;
}

impl std::str::FromStr for ChosenCodec {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if let Some(codec) = Codec::ALL.into_iter().find(|codec| codec.name() == name) {
            return Ok(Self { codec, bits: None });
        }
        let Some(settings) = name.strip_prefix("lossy") else {
            return Err(format!("`{name}` is not one of fast, balanced, small, none, lossy:bits=N"));
        };
        let bits = settings.strip_prefix(":bits=").and_then(|bits| bits.parse().ok());
        match bits {
            Some(bits) if (1..=Self::MOST_BITS).contains(&bits) => {
                Ok(Self { codec: Codec::Balanced, bits: Some(bits) })
            }
            _ => Err(format!(
                "`{name}` does not say how many bits of the fraction are kept: lossy:bits=N, with N from 1 to {}; \
                 float16 has 10 of them, float32 23",
                Self::MOST_BITS
            )),
        }
    }
}

/// Equal blocks of whole groups of eight elements: Blosc leaves a block that is not such a multiple unshuffled.
fn blosc_block(dtype: Dtype, bytes: usize) -> usize {
    let (group, most) = (8 * dtype.size(), BLOSC_BLOCK_ELEMENTS * dtype.size());
    (bytes / bytes.div_ceil(most).max(1) / group * group).max(group)
}

/// Which rollups are kept beside the maps: what is read in place of them where only means are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase", try_from = "StoredRollups")]
pub enum Rollups {
    /// Those that take at most 4 % of the maps' size, of steps of 256 KiB and more; of a word that is in the store,
    /// those that it has.
    #[default]
    Auto,
    /// Over blocks, over heads, and over both.
    All,
    /// None.
    None,
}

impl Rollups {
    /// The arrays of a word, the maps first.
    pub(crate) fn kinds(self, shape: StepShape, dtype: Dtype) -> impl Iterator<Item = ArrayKind> + use<> {
        let bytes = move |kind: ArrayKind| kind.step_shape(shape).len() * kind.dtype(dtype).size();
        let maps = bytes(ArrayKind::Attention);
        let is_kept = move |kind: &ArrayKind| match self {
            _ if *kind == ArrayKind::Attention => true,
            Self::Auto => maps >= ROLLED_UP_BYTES && bytes(*kind) <= maps / ROLLUP_SHARE,
            Self::All => true,
            Self::None => false,
        };
        ArrayKind::ALL.into_iter().filter(is_kept)
    }
}

impl std::str::FromStr for Rollups {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "auto" => Ok(Self::Auto),
            "all" => Ok(Self::All),
            "none" => Ok(Self::None),
            _ => Err(format!("`{name}` is not one of auto, all, none")),
        }
    }
}

/// As recipes tell it: before there was a choice, as a truth value.
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredRollups {
    AreKept(bool),
    Named(String),
}

impl TryFrom<StoredRollups> for Rollups {
    type Error = String;

    fn try_from(stored: StoredRollups) -> Result<Self, Self::Error> {
        match stored {
            StoredRollups::AreKept(are_kept) => Ok(if are_kept { Self::All } else { Self::None }),
            StoredRollups::Named(name) => name.parse(),
        }
    }
}

/// One of the sharded arrays of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ArrayKind {
    /// `[step, block, head, spatial, token]`, the dump's values.
    Attention,
    /// `[step, block, spatial, token]`, mean over heads.
    MeanHead,
    /// `[step, head, spatial, token]`, mean over blocks.
    MeanBlock,
    /// `[step, spatial, token]`, mean over both.
    Mean,
}

impl ArrayKind {
    /// All, the rollups after the array they are of.
    pub const ALL: [Self; 4] = [Self::Attention, Self::MeanHead, Self::MeanBlock, Self::Mean];

    /// Its name in the group.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::MeanHead => "mean_head",
            Self::MeanBlock => "mean_block",
            Self::Mean => "mean",
        }
    }

    /// Axes of one step of it, for step arrays of `shape`.
    #[must_use]
    pub fn step_axes(self, shape: StepShape) -> Vec<usize> {
        let StepShape { blocks, heads, spatial, tokens } = shape;
        match self {
            Self::Attention => vec![blocks, heads, spatial, tokens],
            Self::MeanHead => vec![blocks, spatial, tokens],
            Self::MeanBlock => vec![heads, spatial, tokens],
            Self::Mean => vec![spatial, tokens],
        }
    }

    /// Type of its elements, for step arrays of `dtype`.
    #[must_use]
    pub const fn dtype(self, dtype: Dtype) -> Dtype {
        match self {
            Self::Attention => dtype,
            _ => Dtype::Float32,
        }
    }

    /// The array that is a mean over these axes.
    #[must_use]
    pub const fn mean_over(blocks: bool, heads: bool) -> Self {
        match (blocks, heads) {
            (false, false) => Self::Attention,
            (false, true) => Self::MeanHead,
            (true, false) => Self::MeanBlock,
            (true, true) => Self::Mean,
        }
    }

    /// The shape of one step of it, for step arrays of `shape`: of size 1 along the axes that it is a mean over.
    #[must_use]
    pub const fn step_shape(self, shape: StepShape) -> StepShape {
        let blocks = if matches!(self, Self::MeanBlock | Self::Mean) { 1 } else { shape.blocks };
        let heads = if matches!(self, Self::MeanHead | Self::Mean) { 1 } else { shape.heads };
        StepShape { blocks, heads, ..shape }
    }

    /// What was measured of it in a step; `None` of `attention`, which is the step itself.
    pub(crate) fn measured(self, measures: &StepMeasures) -> Option<&[f32]> {
        match self {
            Self::Attention => None,
            Self::MeanHead => Some(&measures.mean_head),
            Self::MeanBlock => Some(&measures.mean_block),
            Self::Mean => Some(&measures.mean),
        }
    }

    pub(super) const fn dimension_names(self) -> &'static [&'static str] {
        match self {
            Self::Attention => &["step", "block", "head", "spatial", "token"],
            Self::MeanHead => &["step", "block", "spatial", "token"],
            Self::MeanBlock => &["step", "head", "spatial", "token"],
            Self::Mean => &["step", "spatial", "token"],
        }
    }
}

impl std::str::FromStr for ArrayKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| format!("`{name}` is not one of {}", names()))
    }
}

/// How the arrays of one word are laid out: shapes, chunks, shards, codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesLayout {
    /// Shape of a step.
    pub shape: StepShape,
    /// Type of `attention`.
    pub dtype: Dtype,
    /// Number of steps.
    pub steps: usize,
    /// Compression.
    pub codec: Codec,
    /// Which rollups are kept.
    pub rollups: Rollups,
}

impl SeriesLayout {
    /// Steps in one shard.
    #[must_use]
    pub fn steps_per_shard(&self) -> usize {
        (SHARD_BYTES / (self.shape.len() * self.dtype.size())).clamp(1, self.steps.max(1))
    }

    /// Files of a video beside those of its words: the parts of two tables.
    pub const FILES_OF_A_VIDEO: u64 = 2;

    /// Files of the word: the group's document, shards and documents of its arrays, and those of its coordinates;
    /// `step_arrays` says whether the steps are one of these ([`has_step_arrays`]).
    #[must_use]
    pub fn files(&self, step_arrays: bool, numbers: &AxisNumbers) -> u64 {
        let shards = self.steps.div_ceil(self.steps_per_shard());
        let coordinates = numbers.count() + if step_arrays { 2 } else { 0 };
        (1 + self.kinds().count() * (shards + 1) + 2 * coordinates) as u64
    }

    /// The arrays there are.
    pub fn kinds(&self) -> impl Iterator<Item = ArrayKind> + use<> {
        self.rollups.kinds(self.shape, self.dtype)
    }

    /// Type of an array's elements.
    #[must_use]
    pub const fn dtype_of(&self, kind: ArrayKind) -> Dtype {
        kind.dtype(self.dtype)
    }

    /// Axes of an inner chunk, without its step axis of 1.
    #[must_use]
    pub fn chunk_axes(&self, kind: ArrayKind) -> Vec<usize> {
        let map_bytes = self.shape.head_len() * self.dtype_of(kind).size();
        let mut axes = kind.step_axes(self.shape);
        let largest = |count: usize, unit: usize, limit: usize| {
            (1..=count).rev().find(|&n| count.is_multiple_of(n) && n * unit <= limit).unwrap_or(1)
        };
        match kind {
            ArrayKind::Attention => {
                axes[1] = largest(self.shape.heads, map_bytes, CHUNK_BYTES);
                axes[0] = if axes[1] == self.shape.heads {
                    largest(self.shape.blocks, map_bytes * self.shape.heads, JOINED_BYTES)
                } else {
                    1
                };
            }
            ArrayKind::MeanHead | ArrayKind::MeanBlock => axes[0] = largest(axes[0], map_bytes, CHUNK_BYTES),
            ArrayKind::Mean => {}
        }
        axes
    }

    /// Elements of an inner chunk.
    #[must_use]
    pub fn chunk_len(&self, kind: ArrayKind) -> usize {
        self.chunk_axes(kind).iter().product()
    }

    /// Inner chunks of one step.
    #[must_use]
    pub fn chunks_per_step(&self, kind: ArrayKind) -> usize {
        kind.step_axes(self.shape).iter().product::<usize>() / self.chunk_len(kind)
    }

    pub(super) fn inner_codecs(&self, kind: ArrayKind) -> Vec<Value> {
        let dtype = self.dtype_of(kind);
        let bytes = json!({"name": "bytes", "configuration": {"endian": "little"}});
        let compressor = self.codec.metadata(dtype, self.chunk_len(kind) * dtype.size());
        [Some(bytes), compressor, Some(json!({"name": "crc32c"}))].into_iter().flatten().collect()
    }

    /// The array's `zarr.json`.
    pub(super) fn document(&self, kind: ArrayKind) -> Value {
        let with_steps = |steps: usize, axes: Vec<usize>| [vec![steps], axes].concat();
        let shard = with_steps(self.steps_per_shard(), kind.step_axes(self.shape));
        let codecs = json!([{"name": "sharding_indexed", "configuration": {
            "chunk_shape": with_steps(1, self.chunk_axes(kind)),
            "codecs": self.inner_codecs(kind),
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
            "index_location": "end",
        }}]);
        let shape = with_steps(self.steps, kind.step_axes(self.shape));
        array_document(&shape, &shard, self.dtype_of(kind).name(), json!("NaN"), codecs, kind.dimension_names())
    }
}

pub(super) fn array_document(
    shape: &[usize],
    chunk: &[usize],
    dtype: &str,
    fill: Value,
    codecs: Value,
    names: &[&str],
) -> Value {
    json!({
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": fill,
        "codecs": codecs,
        "dimension_names": names,
        "attributes": {},
    })
}

/// The file of a chunk in the directory of its array, by its number along the first axis: it has all of the others.
pub(super) fn chunk_key(first: usize, dimensions: usize) -> String {
    format!("c.{first}{}", ".0".repeat(dimensions - 1))
}

/// A group's `zarr.json`.
pub(super) fn group_document(attributes: Value) -> Value {
    json!({"zarr_format": 3, "node_type": "group", "attributes": attributes})
}

/// A document as it is written.
pub(super) fn to_text(document: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(document).unwrap_or_default(); // a `Value` always serialises
    text.push(b'\n');
    text
}

/// Whether steps and timesteps of a word are arrays. Of a few steps that count from 0 they are not, as they would be as
/// many files as the dump has: who selects by position selects the step then.
#[must_use]
pub fn has_step_arrays(steps: impl IntoIterator<Item = i32>) -> bool {
    steps.into_iter().zip(0..).any(|(step, count)| step != count || count + 1 >= STEPS_WITH_COORDINATES)
}

/// The values along the axes of a word's arrays.
pub(crate) struct Coordinates<'a> {
    /// The denoising steps, ascending.
    pub steps: &'a [i32],
    /// Their timesteps; NaN: unknown.
    pub timesteps: &'a [f64],
    /// Of blocks and heads, where they do not count from 0.
    pub numbers: &'a AxisNumbers,
}

/// One of them, as an array.
pub(crate) struct Coordinate {
    /// Name of the array.
    pub name: &'static str,
    /// Its only dimension.
    pub dimension: &'static str,
    /// Its Zarr data type.
    pub dtype: &'static str,
    /// Its values, little-endian.
    pub bytes: Vec<u8>,
}

impl Coordinates<'_> {
    /// The arrays there are: of blocks and heads only where they do not count from 0.
    pub fn arrays(&self) -> Vec<Coordinate> {
        let ints = |name, numbers: &[i32]| Coordinate {
            name,
            dimension: name,
            dtype: "int32",
            bytes: numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        };
        let timestep = Coordinate {
            name: "timestep",
            dimension: "step",
            dtype: "float64",
            bytes: self.timesteps.iter().flat_map(|timestep| timestep.to_le_bytes()).collect(),
        };
        let block = self.numbers.blocks.as_deref().map(|blocks| ints("block", blocks));
        let head = self.numbers.heads.as_deref().map(|heads| ints("head", heads));
        let of_steps = has_step_arrays(self.steps.iter().copied()).then(|| [ints("step", self.steps), timestep]);
        of_steps.into_iter().flatten().chain(block).chain(head).collect()
    }

    /// What the attributes of the word's group say in place of arrays.
    pub fn attribute(&self) -> Option<Value> {
        let known: Vec<Option<f64>> =
            self.timesteps.iter().map(|&timestep| Some(timestep).filter(|t| !t.is_nan())).collect();
        (!has_step_arrays(self.steps.iter().copied())).then(|| json!({"step": self.steps, "timestep": known}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(blocks: usize, heads: usize, spatial: usize) -> SeriesLayout {
        let shape = StepShape { blocks, heads, spatial, tokens: 1 };
        SeriesLayout { shape, dtype: Dtype::Float16, steps: 50, codec: Codec::Balanced, rollups: Rollups::All }
    }

    #[test]
    fn chunks_stay_in_cache_and_shards_hold_whole_steps() {
        let full = layout(30, 12, 23_850);
        assert_eq!(full.chunk_axes(ArrayKind::Attention), [1, 6, 23_850, 1]);
        assert_eq!(full.chunk_axes(ArrayKind::MeanHead), [5, 23_850, 1]);
        assert_eq!(full.chunk_axes(ArrayKind::MeanBlock), [4, 23_850, 1]);
        assert_eq!(full.steps_per_shard(), 7);
        let small = layout(6, 4, 576);
        assert_eq!(small.chunk_axes(ArrayKind::Attention), [6, 4, 576, 1]);
        assert_eq!(small.steps_per_shard(), 50);
    }

    #[test]
    fn blosc_blocks_are_equal_groups_of_eight() {
        assert_eq!(blosc_block(Dtype::Float16, 286_200), 95_392);
        assert_eq!(blosc_block(Dtype::Float16, 10), 16);
        assert_eq!(blosc_block(Dtype::Float32, 477_000), 238_496);
    }
}
