//! The Zarr arrays of one word: their documents, how values are cut into chunks, and writing shards chunk by chunk.
//!
//! Shards are assembled here so that memory stays at one chunk, whatever a shard's size; inner chunks are encoded,
//! and everything is read back, by `zarrs`.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zarrs::array::codec::CodecChain;
use zarrs::array::{
    ArrayBytes, ArrayShardedReadableExt, ArrayShardedReadableExtCache, ArrayToBytesCodecTraits,
    BytesToBytesCodecTraits, CodecOptions, DataType, FillValue,
};
use zarrs::metadata::v3::MetadataV3;
use zarrs::storage::byte_range::ByteRange;

use super::files::{self, ArrayFiles};
use super::{StoreError, durable};
use crate::dtype::Dtype;
use crate::shape::{AxisNumbers, StepShape};

/// Inner chunks hold whole heads up to this.
const CHUNK_BYTES: usize = 512 << 10;
/// Whole blocks are joined into one inner chunk up to this.
const JOINED_BYTES: usize = 64 << 10;
/// Raw bytes of the steps of one shard.
const SHARD_BYTES: usize = 128 << 20;
/// Blosc compresses blocks of at most this.
const BLOSC_BLOCK_BYTES: usize = 256 << 10;

/// The most bytes of an inner chunk, which holds at least one map; Blosc has no larger ones.
const MAX_CHUNK_BYTES: u64 = (1 << 31) - 1 - 32;
/// The most inner chunks in a shard.
const MAX_SLOTS: u64 = 1 << 24;

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
    /// The compressor's Zarr metadata for inner chunks of `bytes` of `dtype`.
    fn metadata(self, dtype: Dtype, bytes: usize) -> Option<Value> {
        let (cname, level) = match self {
            Self::None => return None,
            Self::Fast => ("lz4", 5),
            Self::Balanced => ("zstd", 1),
            Self::Small => ("zstd", 5),
        };
        // lz4 has no entropy coder, so it gains nothing from single bits of full float32 mantissas.
        let shuffle = if self == Self::Fast && dtype != Dtype::Float16 { "shuffle" } else { "bitshuffle" };
        Some(json!({"name": "blosc", "configuration": {
            "cname": cname, "clevel": level, "shuffle": shuffle, "typesize": dtype.size(),
            "blocksize": blosc_block(dtype, bytes),
        }}))
    }
}

/// Equal blocks of whole groups of eight elements: Blosc leaves a block that is not such a multiple unshuffled.
fn blosc_block(dtype: Dtype, bytes: usize) -> usize {
    let group = 8 * dtype.size();
    (bytes / bytes.div_ceil(BLOSC_BLOCK_BYTES).max(1) / group * group).max(group)
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

    const fn dimension_names(self) -> &'static [&'static str] {
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
    /// Whether rollups are kept.
    pub rollups: bool,
}

impl SeriesLayout {
    /// Steps in one shard.
    #[must_use]
    pub fn steps_per_shard(&self) -> usize {
        (SHARD_BYTES / (self.shape.len() * self.dtype.size())).clamp(1, self.steps.max(1))
    }

    /// Files of a video beside those of its words: the group's document and the parts of two tables.
    pub const FILES_OF_A_VIDEO: u64 = 3;

    /// Files of the word: shards and documents of its arrays and of two coordinates, and the group's document.
    #[must_use]
    pub fn files(&self) -> u64 {
        let shards = self.steps.div_ceil(self.steps_per_shard());
        (self.kinds().count() * (shards + 1) + 5) as u64
    }

    /// The arrays there are.
    pub fn kinds(&self) -> impl Iterator<Item = ArrayKind> + use<> {
        let rollups = self.rollups;
        ArrayKind::ALL.into_iter().filter(move |kind| rollups || *kind == ArrayKind::Attention)
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

    fn inner_codecs(&self, kind: ArrayKind) -> Vec<Value> {
        let dtype = self.dtype_of(kind);
        let bytes = json!({"name": "bytes", "configuration": {"endian": "little"}});
        let compressor = self.codec.metadata(dtype, self.chunk_len(kind) * dtype.size());
        [Some(bytes), compressor, Some(json!({"name": "crc32c"}))].into_iter().flatten().collect()
    }

    /// The array's `zarr.json`.
    fn document(&self, kind: ArrayKind) -> Value {
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

fn array_document(shape: &[usize], chunk: &[usize], dtype: &str, fill: Value, codecs: Value, names: &[&str]) -> Value {
    json!({
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": codecs,
        "dimension_names": names,
        "attributes": {},
    })
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
    dimension: &'static str,
    dtype: &'static str,
    /// Its values, little-endian.
    pub bytes: Vec<u8>,
}

impl Coordinates<'_> {
    /// The arrays there are: blocks and heads have one only where they do not count from 0.
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
        [Some(ints("step", self.steps)), Some(timestep), block, head].into_iter().flatten().collect()
    }
}

/// Writes the documents and coordinates of a word's arrays below `dir`, a fresh directory. Returns each `zarr.json`
/// written, with its contents.
///
/// # Errors
/// If a file cannot be written.
pub(crate) fn write_documents(
    dir: &Path,
    layout: &SeriesLayout,
    attributes: Value,
    coordinates: &Coordinates<'_>,
) -> Result<Vec<(PathBuf, Vec<u8>)>, StoreError> {
    let mut documents = vec![(dir.to_owned(), group_document(attributes))];
    for kind in layout.kinds() {
        documents.push((dir.join(kind.name()), layout.document(kind)));
    }
    let codecs = json!([{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]);
    for Coordinate { name, dimension, dtype, bytes } in coordinates.arrays() {
        let array = dir.join(name);
        let fill = if dtype == "int32" { json!(0) } else { json!("NaN") };
        let shape = [bytes.len() / if dtype == "int32" { 4 } else { 8 }];
        documents.push((array.clone(), array_document(&shape, &shape, dtype, fill, codecs.clone(), &[dimension])));
        let chunk = crc32c(bytes).map_err(|found| StoreError::array(&array, found))?;
        durable::create_dir_all(&array.join("c"))?;
        durable::write(&array.join("c").join("0"), &chunk)?;
        durable::sync_dir(&array.join("c"))?;
    }
    documents
        .into_iter()
        .map(|(dir, document)| {
            let (path, text) = (dir.join("zarr.json"), to_text(&document));
            durable::create_dir_all(&dir)?;
            durable::write(&path, &text)?;
            durable::sync_dir(&dir)?;
            Ok((path, text))
        })
        .collect()
}

/// Start and length of each inner chunk of a shard, from the index at its end; `None` if the index is damaged.
fn shard_index(shard: &[u8], slots: usize) -> Option<Vec<[usize; 2]>> {
    let index = shard.get(shard.len().checked_sub(slots * 16 + 4)?..)?;
    let (entries, _) = index.split_last_chunk::<4>()?;
    if crc32c(entries.to_vec()).ok()? != index {
        return None;
    }
    let number = |bytes: &[u8; 8]| usize::try_from(u64::from_le_bytes(*bytes)).unwrap_or(usize::MAX);
    let (numbers, _) = entries.as_chunks::<8>();
    Some(numbers.as_chunks::<2>().0.iter().map(|[start, len]| [number(start), number(len)]).collect())
}

/// Bytes with their CRC32C behind them.
fn crc32c(bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    let codec = zarrs::array::codec::Crc32cCodec::new();
    codec.encode(bytes.into(), &options()).map(Cow::into_owned).map_err(|error| error.to_string())
}

/// Codecs run on the thread that calls them: the work is parallel over steps already.
fn options() -> CodecOptions {
    CodecOptions::default().with_concurrent_target(1)
}

/// Encodes and decodes the inner chunks of one array.
#[derive(Debug)]
struct ChunkCodec {
    chain: CodecChain,
    shape: Vec<NonZeroU64>,
    data_type: DataType,
    fill: FillValue,
    options: CodecOptions,
}

impl ChunkCodec {
    /// A codec for chunks of `axes` from the Zarr metadata of the inner codecs.
    fn new(codecs: Vec<Value>, axes: impl IntoIterator<Item = u64>, dtype: Dtype) -> Result<Self, String> {
        let axes: Vec<u64> = axes.into_iter().collect();
        let bytes = axes.iter().try_fold(dtype.size() as u64, |bytes, &axis| bytes.checked_mul(axis));
        if bytes.is_none_or(|bytes| bytes > MAX_CHUNK_BYTES) {
            return Err(format!("inner chunks of {axes:?}; one has {MAX_CHUNK_BYTES} bytes at the most"));
        }
        let metadata: Vec<MetadataV3> = codecs
            .into_iter()
            .map(|codec| serde_json::from_value(codec).map_err(|error| error.to_string()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            chain: CodecChain::from_metadata(&metadata).map_err(|error| error.to_string())?,
            shape: axes.into_iter().filter_map(NonZeroU64::new).collect(),
            data_type: match dtype {
                Dtype::Float16 => zarrs::array::data_type::float16(),
                Dtype::Float32 => zarrs::array::data_type::float32(),
                Dtype::Float64 => zarrs::array::data_type::float64(),
            },
            fill: FillValue::new(vec![0; dtype.size()]),
            options: options(),
        })
    }

    /// Encodes one chunk of values in the machine's byte order.
    fn encode<'a>(&self, values: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        let bytes = ArrayBytes::from(values);
        let encoded = self.chain.encode(bytes, &self.shape, &self.data_type, &self.fill, &self.options);
        encoded.map_err(|error| error.to_string())
    }

    /// Decodes one chunk, after checking its checksum.
    fn decode<'a>(&self, encoded: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        let decoded = self.chain.decode(encoded.into(), &self.shape, &self.data_type, &self.fill, &self.options);
        decoded.and_then(|bytes| Ok(bytes.into_fixed()?)).map_err(|error| error.to_string())
    }
}

/// Writes one shard: inner chunks in the order they come, then the index.
#[derive(Debug)]
pub(crate) struct ShardWriter {
    path: PathBuf,
    file: BufWriter<File>,
    codec: ChunkCodec,
    index: Vec<u8>,
    written: u64,
    slots: usize,
}

impl ShardWriter {
    /// Creates shard number `shard` (along the step axis) of an array below `dir`.
    pub fn create(dir: &Path, layout: &SeriesLayout, kind: ArrayKind, shard: usize) -> Result<Self, StoreError> {
        let path = shard_path(&dir.join(kind.name()), kind, shard);
        if let Some(parent) = path.parent() {
            durable::create_dir_all(parent)?;
        }
        // Never write into a file that another generation may share.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(StoreError::io(&path)(error)),
            _ => {}
        }
        let file = File::create_new(&path).map_err(StoreError::io(&path))?;
        let axes = [vec![1], layout.chunk_axes(kind)].concat().into_iter().map(|axis| axis as u64);
        let codec = ChunkCodec::new(layout.inner_codecs(kind), axes, layout.dtype_of(kind))
            .map_err(|found| StoreError::array(&path, found))?;
        let slots = layout.steps_per_shard() * layout.chunks_per_step(kind);
        let file = BufWriter::with_capacity(1 << 20, file);
        Ok(Self { path, file, codec, index: Vec::new(), written: 0, slots })
    }

    /// Appends the next inner chunk, in C order over (step, block, head).
    pub fn push(&mut self, values: &[u8]) -> Result<(), StoreError> {
        let chunk = self.codec.encode(values).map_err(|found| StoreError::array(&self.path, found))?;
        self.push_encoded(&chunk)
    }

    /// Appends, as they are, the inner chunks of the first `steps` steps of a shard of another generation, which
    /// `layout` describes.
    pub fn copy(
        &mut self,
        from: &Path,
        layout: &SeriesLayout,
        kind: ArrayKind,
        shard: usize,
        steps: usize,
    ) -> Result<(), StoreError> {
        let path = shard_path(&from.join(kind.name()), kind, shard);
        let per_step = layout.chunks_per_step(kind);
        let shard = files::read(&path)?;
        let index = shard_index(&shard, layout.steps_per_shard() * per_step)
            .ok_or_else(|| StoreError::damaged(&path, "the index of the shard is damaged"))?;
        for [start, len] in index.into_iter().take(steps * per_step) {
            let chunk = start.checked_add(len).and_then(|end| shard.get(start..end));
            self.push_encoded(chunk.ok_or_else(|| StoreError::damaged(&path, "a chunk of the shard is missing"))?)?;
        }
        Ok(())
    }

    fn push_encoded(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(chunk).map_err(StoreError::io(&self.path))?;
        let len = chunk.len() as u64;
        self.index.extend(self.written.to_le_bytes());
        self.index.extend(len.to_le_bytes());
        self.written += len;
        Ok(())
    }

    /// Writes the index, with the chunks that did not come marked empty, and flushes everything to disk. Returns the
    /// file's size.
    pub fn finish(mut self) -> Result<u64, StoreError> {
        self.index.resize(self.slots * 16, 0xFF);
        let index = crc32c(self.index).map_err(|found| StoreError::array(&self.path, found))?;
        self.file.write_all(&index).map_err(StoreError::io(&self.path))?;
        let file = self.file.into_inner().map_err(|error| StoreError::io(&self.path)(error.into_error()))?;
        file.sync_all().map_err(StoreError::io(&self.path))?;
        if let Some(parent) = self.path.parent() {
            durable::sync_dir(parent)?;
        }
        Ok(self.written + index.len() as u64)
    }
}

/// Whether shards of the word below `dir` are cut and encoded as `layout` says, so that they can serve a longer array
/// too.
pub(crate) fn has_same_chunking(dir: &Path, layout: &SeriesLayout) -> bool {
    layout.kinds().all(|kind| {
        let Ok(text) = files::read(&dir.join(kind.name()).join("zarr.json")) else { return false };
        let Ok(mut document) = serde_json::from_slice::<Value>(&text) else { return false };
        if let Some(steps) = document.pointer_mut("/shape/0") {
            *steps = layout.steps.into();
        }
        document == layout.document(kind)
    })
}

/// Gives a shard of another generation to the word below `to` as well. The file is shared where the file system can: it
/// is never modified.
pub(crate) fn share_shard(from: &Path, to: &Path, kind: ArrayKind, shard: usize) -> Result<(), StoreError> {
    let (from, to) = (shard_path(&from.join(kind.name()), kind, shard), shard_path(&to.join(kind.name()), kind, shard));
    let Some(parent) = to.parent() else { return Ok(()) };
    durable::create_dir_all(parent)?;
    if fs::hard_link(&from, &to).is_err() {
        fs::copy(&from, &to).map_err(StoreError::io(&to))?;
        File::open(&to).and_then(|file| file.sync_all()).map_err(StoreError::io(&to))?;
    }
    durable::sync_dir(parent)
}

/// File of a shard, by the default chunk key encoding: `c/<shard>/0/0…`.
fn shard_path(array: &Path, kind: ArrayKind, shard: usize) -> PathBuf {
    let mut path = array.join("c").join(shard.to_string());
    for _ in 1..kind.dimension_names().len() {
        path.push("0");
    }
    path
}

/// An array of a store, opened for reading.
pub struct StoredArray {
    path: PathBuf,
    array: zarrs::array::Array<ArrayFiles>,
    dtype: String,
    /// Of the inner chunks; `None` for the unsharded coordinates.
    chunks: Option<Chunks>,
}

/// The inner chunks of a sharded array.
struct Chunks {
    codec: ChunkCodec,
    /// Number along each axis.
    grid: Vec<u64>,
    /// Number in one step.
    per_step: usize,
    /// Elements of one.
    len: usize,
    dtype: Dtype,
    is_blosc: bool,
    shards: ArrayShardedReadableExtCache,
}

impl std::fmt::Debug for StoredArray {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredArray").field("path", &self.path).field("shape", &self.shape()).finish_non_exhaustive()
    }
}

impl StoredArray {
    /// Opens the array in directory `path` of the store at `root`.
    ///
    /// # Errors
    /// If there is none or its document is damaged.
    pub(super) fn open(root: &Path, path: &Path) -> Result<Self, StoreError> {
        let document = path.join("zarr.json");
        let text = files::read(&document)?;
        let metadata: Value = serde_json::from_slice(&text).map_err(|error| StoreError::damaged(&document, error))?;
        let files = ArrayFiles::open(root, path)?;
        let array = zarrs::array::Array::open(Arc::new(files), "/").map_err(|error| StoreError::array(path, error))?;
        let dtype = metadata.get("data_type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let chunks = Chunks::of(&array, &metadata, &dtype).map_err(|found| StoreError::damaged(&document, found))?;
        Ok(Self { path: path.to_owned(), array, dtype, chunks })
    }

    /// Its shape.
    #[must_use]
    pub fn shape(&self) -> Vec<u64> {
        self.array.shape().to_vec()
    }

    /// Name of its data type.
    #[must_use]
    pub fn dtype(&self) -> &str {
        &self.dtype
    }

    /// How one step is cut: the number of its inner chunks, and the elements of each. One behind the other, in C order,
    /// they make the step.
    ///
    /// # Errors
    /// If the array is a coordinate.
    pub fn chunks_of_step(&self) -> Result<(usize, usize), StoreError> {
        let chunks = self.sharded()?;
        Ok((chunks.per_step, chunks.len))
    }

    /// Decodes an inner chunk of a step, with its checksum verified. `visit` gets its values, in the machine's byte
    /// order.
    ///
    /// # Errors
    /// If there is no such step, the array is a coordinate, or the chunk is missing or damaged.
    pub fn read_chunk<R>(&self, row: u64, number: usize, visit: impl FnOnce(&[u8]) -> R) -> Result<R, StoreError> {
        let (chunks, place) = self.place(row, number)?;
        self.check_range(chunks, &place)?;
        let encoded = self
            .array
            .retrieve_encoded_subchunk(&chunks.shards, &place)
            .map_err(|error| self.failed(error))?
            .ok_or_else(|| self.failed(format!("chunk {place:?} is missing")))?;
        chunks.check_blosc(&encoded).map_err(|found| self.failed(format!("chunk {place:?}: {found}")))?;
        let values = chunks.codec.decode(&encoded).map_err(|error| self.failed(format!("chunk {place:?}: {error}")))?;
        if values.len() != chunks.len * chunks.dtype.size() {
            return Err(self.failed(format!("chunk {place:?} has {} bytes", values.len())));
        }
        Ok(visit(&values))
    }

    /// Checks what the shard's index says of a chunk before that is believed.
    fn check_range(&self, chunks: &Chunks, place: &[u64]) -> Result<(), StoreError> {
        let missing = || self.failed(format!("chunk {place:?} is missing"));
        let range = self.array.subchunk_byte_range(&chunks.shards, place).map_err(|error| self.failed(error))?;
        let Some(ByteRange::FromStart(offset, Some(length))) = range else { return Err(missing()) };
        if offset == u64::MAX {
            return Err(missing());
        }
        // What cannot be compressed takes a little more than it is.
        let most = 2 * (chunks.len * chunks.dtype.size()) as u64 + 4096;
        if length > most || offset.checked_add(length).is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(self.failed(format!(
                "the shard's index gives chunk {place:?} {length} bytes at {offset}; its values take {most} at the most"
            )));
        }
        Ok(())
    }

    /// Bytes that an inner chunk takes in its shard.
    ///
    /// # Errors
    /// As [`read_chunk`](Self::read_chunk).
    pub fn stored_bytes(&self, row: u64, number: usize) -> Result<u64, StoreError> {
        let (chunks, place) = self.place(row, number)?;
        let range = self.array.subchunk_byte_range(&chunks.shards, &place).map_err(|error| self.failed(error))?;
        Ok(range.map_or(0, |range| range.length(u64::MAX)))
    }

    /// Decodes the inner chunks of one step, in C order, each with its checksum verified. `visit` gets the index of the
    /// chunk's first element within the step and its values, in the machine's byte order.
    ///
    /// # Errors
    /// As [`read_chunk`](Self::read_chunk).
    pub fn for_each_chunk(&self, row: u64, mut visit: impl FnMut(usize, &[u8])) -> Result<(), StoreError> {
        let (count, len) = self.chunks_of_step()?;
        (0..count).try_for_each(|number| self.read_chunk(row, number, |values| visit(number * len, values)))
    }

    /// The values of one step, in the machine's byte order, C order.
    ///
    /// # Errors
    /// As [`for_each_chunk`](Self::for_each_chunk).
    pub fn read_step(&self, row: u64) -> Result<Vec<u8>, StoreError> {
        let bytes = self.chunks.as_ref().map_or(0, |chunks| chunks.per_step * chunks.len * chunks.dtype.size());
        let mut step = Vec::new();
        step.try_reserve_exact(bytes)
            .map_err(|_| self.failed(format!("a step of {bytes} bytes is too large for memory")))?;
        self.for_each_chunk(row, |_, values| step.extend_from_slice(values))?;
        Ok(step)
    }

    /// A range of the elements of one step, in C order and the machine's byte order. Only the chunks that hold them are
    /// decoded.
    ///
    /// # Errors
    /// As [`for_each_chunk`](Self::for_each_chunk), or if the step has fewer elements.
    pub fn read_range(&self, row: u64, elements: std::ops::Range<usize>) -> Result<Vec<u8>, StoreError> {
        let chunks = self.sharded()?;
        let (count, len, size) = (chunks.per_step, chunks.len, chunks.dtype.size());
        if elements.end > count * len {
            return Err(self.failed(format!("a step has {} elements; {elements:?} are not among them", count * len)));
        }
        let mut values = Vec::with_capacity(elements.len() * size);
        for number in elements.start / len..elements.end.div_ceil(len) {
            let (first, last) = (elements.start.max(number * len), elements.end.min((number + 1) * len));
            let wanted = (first - number * len) * size..(last - number * len) * size;
            self.read_chunk(row, number, |chunk| values.extend_from_slice(&chunk[wanted]))?;
        }
        Ok(values)
    }

    /// All values of a coordinate, in the machine's byte order.
    ///
    /// # Errors
    /// If its chunk is missing or damaged.
    pub fn read_coordinate(&self) -> Result<Vec<u8>, StoreError> {
        // Where a chunk is missing, readers see the fill value.
        let chunk = self.array.retrieve_chunk_if_exists_opt(&[0], &options()).map_err(|error| self.failed(error))?;
        let bytes: ArrayBytes<'_> = chunk.ok_or_else(|| self.failed("its chunk is missing"))?;
        let bytes = bytes.into_fixed().map_err(|error| self.failed(error))?.into_owned();
        let size = if self.dtype == "float64" { 8 } else { 4 };
        match self.array.shape() {
            [len] if len.checked_mul(size) == Some(bytes.len() as u64) => Ok(bytes),
            shape => Err(self.failed(format!("it is of {shape:?}, and its first chunk has {} bytes", bytes.len()))),
        }
    }

    fn failed(&self, found: impl ToString) -> StoreError {
        StoreError::array(&self.path, found)
    }

    fn sharded(&self) -> Result<&Chunks, StoreError> {
        self.chunks.as_ref().ok_or_else(|| self.failed("it is not sharded"))
    }

    /// Place of a chunk in the grid of inner chunks.
    fn place(&self, row: u64, number: usize) -> Result<(&Chunks, Vec<u64>), StoreError> {
        let chunks = self.sharded()?;
        if self.array.shape().first().is_none_or(|&steps| row >= steps) || number >= chunks.per_step {
            let shape = self.array.shape();
            return Err(self.failed(format!("there is no chunk {number} of a step at row {row} of shape {shape:?}")));
        }
        Ok((chunks, chunks.indices(row, number)))
    }
}

impl Chunks {
    /// Reads the sharding codec's configuration; `None` if the array is not sharded.
    fn of(array: &zarrs::array::Array<ArrayFiles>, metadata: &Value, dtype: &str) -> Result<Option<Self>, String> {
        let sharding = metadata.pointer("/codecs/0").filter(|codec| codec["name"] == "sharding_indexed");
        let Some(configuration) = sharding.map(|codec| &codec["configuration"]) else { return Ok(None) };
        let axes: Vec<u64> =
            configuration["chunk_shape"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        let shape = array.shape();
        if shape.iter().skip(1).any(|&axis| axis == 0) {
            return Err(format!("an array of {shape:?}, which has nothing along an axis"));
        }
        if axes.len() != shape.len() || axes.contains(&0) || axes.first() != Some(&1) {
            return Err(format!("inner chunks of {axes:?} in an array of {shape:?}; expected whole maps of one step"));
        }
        // Chunks one behind the other make the step only if each is a contiguous piece of it.
        let first_wide = axes.iter().position(|&axis| axis != 1).unwrap_or(axes.len());
        let whole_behind = axes.iter().zip(shape).skip(first_wide + 1).all(|(axis, size)| axis == size);
        let divides = axes.iter().zip(shape).all(|(axis, size)| size % axis == 0);
        if !whole_behind || !divides {
            return Err(format!("inner chunks of {axes:?} are not contiguous pieces of steps of {shape:?}"));
        }
        let dtype: Dtype = dtype.parse()?;
        let step_bytes = shape.iter().skip(1).try_fold(dtype.size() as u64, |bytes, &axis| bytes.checked_mul(axis));
        if step_bytes.is_none_or(|bytes| i64::try_from(bytes).is_err()) {
            return Err(format!("an array of {shape:?}, of which no step fits into any memory"));
        }
        // What a reader would hold of a shard's index.
        let shard = metadata.pointer("/chunk_grid/configuration/chunk_shape").and_then(Value::as_array);
        let shard: Vec<u64> = shard.into_iter().flatten().filter_map(Value::as_u64).collect();
        let slots = shard.iter().zip(&axes).try_fold(1_u64, |slots, (size, axis)| slots.checked_mul(size / axis));
        if shard.len() != axes.len() || slots.is_none_or(|slots| slots > MAX_SLOTS) {
            return Err(format!("shards of {shard:?} in inner chunks of {axes:?}; one has {MAX_SLOTS} at the most"));
        }
        let codecs = configuration["codecs"].as_array().cloned().unwrap_or_default();
        let names: Vec<&str> = codecs.iter().filter_map(|codec| codec["name"].as_str()).collect();
        let is_blosc = match names[..] {
            ["bytes", "blosc", "crc32c"] => true,
            ["bytes", "crc32c"] => false,
            _ => return Err(format!("inner chunks encoded by {names:?}; expected bytes, blosc if at all, crc32c")),
        };
        let grid: Vec<u64> = shape.iter().zip(&axes).map(|(size, axis)| size / axis).collect();
        Ok(Some(Self {
            codec: ChunkCodec::new(codecs, axes.iter().copied(), dtype)?,
            per_step: usize::try_from(grid.iter().skip(1).product::<u64>()).map_err(|error| error.to_string())?,
            grid,
            len: usize::try_from(axes.iter().product::<u64>()).map_err(|error| error.to_string())?,
            dtype,
            is_blosc,
            shards: ArrayShardedReadableExtCache::new(array),
        }))
    }

    /// Checks what a chunk's header says of its size before that is allocated.
    fn check_blosc(&self, encoded: &[u8]) -> Result<(), String> {
        let expected = self.len * self.dtype.size();
        // Version, version of the compressor, flags, size of an element; then the bytes, little-endian.
        let said = encoded.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
        match said {
            _ if !self.is_blosc => Ok(()),
            Some(bytes) if usize::try_from(bytes) == Ok(expected) => Ok(()),
            Some(bytes) => Err(format!("its header says {bytes} bytes; its values take {expected}")),
            None => Err(format!("{} bytes, too few for a header", encoded.len())),
        }
    }

    /// Place of a step's chunk in the grid of inner chunks.
    fn indices(&self, row: u64, number: usize) -> Vec<u64> {
        let mut rest = number as u64;
        let mut indices = vec![row; self.grid.len()];
        for (index, &count) in indices.iter_mut().zip(&self.grid).skip(1).rev() {
            *index = rest % count;
            rest /= count;
        }
        indices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(blocks: usize, heads: usize, spatial: usize) -> SeriesLayout {
        let shape = StepShape { blocks, heads, spatial, tokens: 1 };
        SeriesLayout { shape, dtype: Dtype::Float16, steps: 50, codec: Codec::Balanced, rollups: true }
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

    /// A store's directory with one word in it, of two steps.
    fn written() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let layout = SeriesLayout { steps: 2, rollups: false, ..layout(2, 3, 40) };
        let none = AxisNumbers::default();
        let coordinates = Coordinates { steps: &[0, 1], timesteps: &[f64::NAN; 2], numbers: &none };
        write_documents(dir.path(), &layout, json!({}), &coordinates).unwrap();
        let mut shard = ShardWriter::create(dir.path(), &layout, ArrayKind::Attention, 0).unwrap();
        let values = vec![1; layout.chunk_len(ArrayKind::Attention) * layout.dtype.size()];
        for _ in 0..2 * layout.chunks_per_step(ArrayKind::Attention) {
            shard.push(&values).unwrap();
        }
        shard.finish().unwrap();
        let attention = dir.path().join("attention");
        StoredArray::open(dir.path(), &attention).unwrap().read_step(1).unwrap();
        (dir, attention)
    }

    #[test]
    fn a_header_that_claims_gigabytes_is_no_reason_to_take_them() {
        let (dir, array) = written();
        let path = shard_path(&array, ArrayKind::Attention, 0);
        let mut shard = fs::read(&path).unwrap();
        let index = shard_index(&shard, 2).unwrap();
        let [start, len] = index[0];
        shard[start + 4..start + 8].copy_from_slice(&0xFFFF_FF00_u32.to_le_bytes());
        let chunk = crc32c(shard[start..start + len - 4].to_vec()).unwrap();
        shard[start..start + len].copy_from_slice(&chunk);
        fs::write(&path, shard).unwrap();
        let error = StoredArray::open(dir.path(), &array).unwrap().read_step(0).unwrap_err().to_string();
        assert!(error.contains("its header says 4294967040 bytes; its values take 480"), "{error}");
    }

    #[test]
    fn documents_that_claim_what_no_memory_holds_are_refused() {
        let (dir, array) = written();
        let document: Value = serde_json::from_slice(&fs::read(array.join("zarr.json")).unwrap()).unwrap();
        let huge = 1_u64 << 40;
        for (pointers, value, said) in [
            (vec!["/shape/3", "/chunk_grid/configuration/chunk_shape/3"], json!(huge), "contiguous"),
            (vec!["/shape/1", "/shape/2", "/shape/3"], json!(1_u64 << 32), "contiguous"),
            (vec!["/chunk_grid/configuration/chunk_shape/0"], json!(huge), "1099511627776"),
            (vec!["/codecs/0/configuration/codecs/1"], json!({"name": "gzip", "configuration": {"level": 1}}), "gzip"),
            (vec!["/codecs/0/configuration/chunk_shape/0"], json!(2), "whole maps"),
        ] {
            let mut forged = document.clone();
            for pointer in pointers {
                *forged.pointer_mut(pointer).unwrap() = value.clone();
            }
            fs::write(array.join("zarr.json"), forged.to_string()).unwrap();
            let error = StoredArray::open(dir.path(), &array).unwrap_err().to_string();
            assert!(error.contains("zarr.json") && error.contains(said), "{said}: {error}");
        }
        // Of a step and a chunk that claim as much as each other.
        let mut forged = document.clone();
        for pointer in ["/shape/3", "/chunk_grid/configuration/chunk_shape/3", "/codecs/0/configuration/chunk_shape/3"]
        {
            *forged.pointer_mut(pointer).unwrap() = json!(huge);
        }
        fs::write(array.join("zarr.json"), forged.to_string()).unwrap();
        let error = StoredArray::open(dir.path(), &array).unwrap_err().to_string();
        assert!(error.contains("one has 2147483615 bytes at the most"), "{error}");
    }

    #[test]
    fn blosc_blocks_are_equal_groups_of_eight() {
        assert_eq!(blosc_block(Dtype::Float16, 286_200), 143_088);
        assert_eq!(blosc_block(Dtype::Float16, 10), 16);
        assert_eq!(blosc_block(Dtype::Float32, 477_000), 238_496);
    }
}
