//! Part files: the tables of one video, each with a checksum over itself. Renaming them into place is the commit.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use bytes::{Buf, Bytes};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, KeyValue, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{ChunkReader, Length};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::storage::{Contents, Storage};
use super::tables::{
    StepRow, columns_of_part, heads_by_token, heads_schema, names, steps_batch, steps_from_batch, steps_schema,
};
use super::{Codec, NOT_A_PART, Rollups, StoreError, layout, pack, text_schema};
use crate::dtype::Dtype;
use crate::dump::Batch;
use crate::json::Object;

pub(super) const GENERATION_KEY: &str = "attnkit.generation";
/// The most rows of a part.
const MAX_ROWS: i64 = 1 << 24;
/// The most bytes of a part's columns, once decompressed.
const MAX_BYTES: i64 = 1 << 32;
/// Parts of fewer rows are not compressed: it would save little, and cost whoever writes or reads many of them most of
/// their time.
const COMPRESSED_ROWS: usize = 4096;
/// The largest part that is read at once.
const SMALL: u64 = 1 << 20;
/// What is said of a part that names no commit.
const NO_GENERATION: &str = "it names no generation";
pub(super) const CHECKSUM_KEY: &str = "attnkit.checksum";
const VIDEO_KEY: &str = "attnkit.video";
/// What stands in place of a checksum while it is computed.
pub(super) const NO_CHECKSUM: &str = "00000000000000000000000000000000";

/// What is known of a video beside its rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VideoRecord {
    /// The video.
    pub video_id: String,
    /// Its `summary.json`.
    pub summary: Option<Object>,
    /// By token and step: how the step's metadata differs from what its row reproduces.
    pub metadata: BTreeMap<String, BTreeMap<i32, MetadataPatch>>,
    /// XXH3-128 of each `zarr.json` below the store that belongs to this video.
    pub documents: BTreeMap<String, String>,
    /// By token: the settings it was ingested with.
    pub recipe: BTreeMap<String, Recipe>,
    /// By token: its arrays, for those who only look.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arrays: BTreeMap<String, ArraysRecord>,
    /// Whether it has rows of `text`, in a part beside.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_text: bool,
}

/// What is known of a word's arrays without looking at them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArraysRecord {
    /// Bytes of the files of `attention`.
    pub attention: u64,
    /// Bytes of the files of its rollups.
    pub rollups: u64,
    /// What was lost, as the attributes of its group have it.
    pub lossy: Value,
}

/// The settings that determine what is stored of a word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Compression.
    pub codec: Codec,
    /// Which rollups are kept.
    pub rollups: Rollups,
    /// Type it was converted to; `None`: kept.
    pub dtype: Option<Dtype>,
    /// Factor of average pooling over height and width; 1: none.
    pub downsample: usize,
    /// Choice in a batch axis.
    pub batch: Option<Batch>,
    /// Choice among the arrays of an npz.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<String>,
    /// Averaged over blocks at ingest.
    pub average_blocks: bool,
    /// Averaged over heads at ingest.
    pub average_heads: bool,
    /// Grid named by the user.
    pub grid: Option<crate::grid::Grid>,
    /// Bits of the fraction that values were rounded to; `None`: they were not.
    #[serde(default)]
    pub bits: Option<u8>,
}

impl Recipe {
    /// The same for a word that is stored already: what makes no other values stays as it is there, unless it is
    /// chosen.
    #[must_use]
    pub fn for_stored(&self, stored: &Self) -> Self {
        let rollups = if self.rollups == Rollups::Auto { stored.rollups } else { self.rollups };
        Self { rollups, ..self.clone() }
    }

    /// In what the other differs, in words.
    #[must_use]
    pub fn differences(&self, other: &Self) -> String {
        let fields = |recipe: &Self| match serde_json::to_value(recipe) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        let (own, others) = (fields(self), fields(other));
        let differing = own.iter().filter(|(key, value)| *key != "codec" && others.get(*key) != Some(*value));
        differing
            .map(|(key, value)| format!("{key} {value}, now {}", others.get(key).unwrap_or(&Value::Null)))
            .collect::<Vec<_>>()
            .join("; ")
    }
}

/// How metadata differs from that of a row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MetadataPatch {
    /// Keys with another value.
    #[serde(default, skip_serializing_if = "Object::is_empty")]
    pub set: Object,
    /// Keys that are not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unset: Vec<String>,
}

impl MetadataPatch {
    /// The patch that makes `original` of `reproduced`, but for the keys in `except`.
    #[must_use]
    pub fn between(reproduced: &Object, original: &Object, except: &[&str]) -> Self {
        let counts = |key: &String| !except.contains(&key.as_str());
        Self {
            set: original
                .iter()
                .filter(|(key, value)| counts(key) && reproduced.get(*key) != Some(value))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            unset: reproduced.keys().filter(|key| counts(key) && !original.contains_key(*key)).cloned().collect(),
        }
    }

    /// Applies the patch.
    pub fn apply(&self, metadata: &mut Object) {
        for key in &self.unset {
            metadata.shift_remove(key);
        }
        for (key, value) in &self.set {
            metadata.insert(key.clone(), value.clone());
        }
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.unset.is_empty()
    }
}

/// The committed state of one video: its `steps` part.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoIndex {
    /// Generation of the commit.
    pub generation: String,
    /// What is known beside the rows.
    pub record: VideoRecord,
    /// Rows of `steps`, by (token, step).
    pub rows: Vec<StepRow>,
}

impl VideoIndex {
    /// The directory that the video was read from, if it has rows.
    #[must_use]
    pub fn source_dir(&self) -> Option<&Path> {
        Path::new(&self.rows.first()?.source).parent()?.parent()
    }

    /// The step metadata of a row, as it was in its file.
    #[must_use]
    pub fn metadata_of(&self, row: &StepRow) -> Object {
        let mut metadata = row.to_metadata();
        if let Some(patch) = self.record.metadata.get(&row.token).and_then(|patches| patches.get(&row.step)) {
            patch.apply(&mut metadata);
        }
        metadata
    }

    /// The rows, word by word.
    pub fn series(&self) -> impl Iterator<Item = &[StepRow]> {
        self.rows.chunk_by(|a, b| a.token == b.token)
    }
}

/// A `steps` part as the bytes of its file.
pub(super) fn steps_part(index: &VideoIndex) -> Result<Vec<u8>, ParquetError> {
    let record = serde_json::to_string(&index.record).map_err(|error| ParquetError::External(error.into()))?;
    part(
        &steps_schema(),
        [&steps_batch(&index.rows)?],
        &index.generation,
        vec![KeyValue::new(VIDEO_KEY.into(), record)],
    )
}

/// A `heads` part as the bytes of its file.
pub(super) fn heads_part(generation: &str, heads: &Heads) -> Result<Vec<u8>, ParquetError> {
    part(&heads_schema(), heads.values(), generation, Vec::new())
}

/// A `text` part as the bytes of its file.
pub(super) fn text_part(generation: &str, text: &RecordBatch) -> Result<Vec<u8>, ParquetError> {
    part(&text_schema(), [text], generation, Vec::new())
}

fn part<'a>(
    schema: &SchemaRef,
    batches: impl IntoIterator<Item = &'a RecordBatch>,
    generation: &str,
    mut metadata: Vec<KeyValue>,
) -> Result<Vec<u8>, ParquetError> {
    metadata.push(KeyValue::new(GENERATION_KEY.into(), generation.to_owned()));
    metadata.push(KeyValue::new(CHECKSUM_KEY.into(), NO_CHECKSUM.to_owned()));
    let batches: Vec<&RecordBatch> = batches.into_iter().collect();
    let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
    let compression =
        if rows < COMPRESSED_ROWS { Compression::UNCOMPRESSED } else { Compression::ZSTD(ZstdLevel::try_new(3)?) };
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_created_by(concat!("attnkit ", env!("CARGO_PKG_VERSION")).into())
        .set_key_value_metadata(Some(metadata))
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema.clone(), Some(properties))?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.close()?;
    let at = checksum_position(&bytes).ok_or_else(|| ParquetError::General("no checksum key in the footer".into()))?;
    let checksum = format!("{:032x}", xxh3_128(&bytes));
    bytes[at..at + checksum.len()].copy_from_slice(checksum.as_bytes());
    Ok(bytes)
}

/// Where the checksum's 32 digits are: behind the last occurrence of its key, and Thrift's type and length bytes.
pub(super) fn checksum_position(bytes: &[u8]) -> Option<usize> {
    let pattern = [CHECKSUM_KEY.as_bytes(), &[0x18, 32]].concat();
    let at = bytes.windows(pattern.len()).rposition(|window| window == pattern)? + pattern.len();
    (at + 32 <= bytes.len()).then_some(at)
}

/// What the footer of a part says of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PartFooter {
    /// The commit that it is of; of a pack's part, the pack.
    pub generation: String,
    /// The video that a `steps` part is of; a pack's is of many.
    pub video_id: Option<String>,
    /// All of it, if it is a pack's.
    pub pack: Option<Arc<ParquetMetaData>>,
}

/// Checks a part's checksum over itself, and that nothing it says of sizes would fill the memory. Of a pack's part,
/// that is a checksum over its footer: what is read of it is checked when it is read.
pub(super) fn check_part(storage: &dyn Storage, key: &str) -> Result<PartFooter, StoreError> {
    let no_generation = || StoreError::damaged(storage.place(key), NO_GENERATION);
    if let Some(named) = layout::name_of_pack(key) {
        let metadata = pack::footer(storage, key)?;
        let generation = value_of(&metadata, GENERATION_KEY).ok_or_else(no_generation)?;
        if generation != layout::generation_of_pack(named) {
            return Err(StoreError::damaged(storage.place(key), NOT_A_PART));
        }
        return Ok(PartFooter { generation, video_id: None, pack: Some(Arc::new(metadata)) });
    }
    let metadata = checked_metadata(storage, key)?;
    let generation = value_of(&metadata, GENERATION_KEY);
    let record = value_of(&metadata, VIDEO_KEY).and_then(|record| serde_json::from_str::<VideoRecord>(&record).ok());
    Ok(PartFooter {
        generation: generation.ok_or_else(no_generation)?,
        video_id: record.map(|record| record.video_id),
        pack: None,
    })
}

fn checked_metadata(storage: &dyn Storage, key: &str) -> Result<ParquetMetaData, StoreError> {
    let (path, bytes) = (&*storage.place(key), storage.get(key)?);
    check_bytes(&bytes).map_err(|found| StoreError::damaged(path, found))?;
    guarded(path, || footer_of(path, &bytes))
}

/// The footer of a file, with sizes that do not fill the memory.
pub(super) fn footer_of(path: &Path, file: &impl ChunkReader) -> Result<ParquetMetaData, StoreError> {
    let metadata = ParquetMetaDataReader::new().parse_and_finish(file);
    let metadata = metadata.map_err(|source| StoreError::Parquet { path: path.to_owned(), source })?;
    check_sizes(&metadata).map_err(|found| StoreError::damaged(path, found))?;
    Ok(metadata)
}

/// A footer with the columns of a table, of which a part of an earlier version has only the first.
pub(super) fn with_columns(
    path: &Path,
    metadata: Arc<ParquetMetaData>,
    table: &Schema,
) -> Result<ArrowReaderMetadata, StoreError> {
    let count = metadata.file_metadata().schema_descr().root_schema().get_fields().len();
    let fields = columns_of_part(table, count);
    let fields = fields.ok_or_else(|| StoreError::damaged(path, format!("{count} columns")))?;
    let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields.to_vec())));
    ArrowReaderMetadata::try_new(metadata, options).map_err(|error| StoreError::damaged(path, error))
}

/// What the library makes of a part; an error where it panics, as it does over pages that contradict their footer.
pub(super) fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(StoreError::damaged(path, "its pages contradict its footer")))
}

/// Checks what a part says of its sizes before anything is allocated for it: a few bytes can stand for any number of
/// rows.
pub(super) fn check_sizes(metadata: &ParquetMetaData) -> Result<(), String> {
    let rows = metadata.file_metadata().num_rows();
    let groups = metadata.row_groups();
    let of_groups = groups.iter().try_fold(0_i64, |sum, group| sum.checked_add(group.num_rows()));
    if groups.iter().any(|group| group.num_rows() < 0) || of_groups != Some(rows) || rows > MAX_ROWS {
        return Err(format!("{rows} rows; a part has {MAX_ROWS} at the most, in groups that add up"));
    }
    let sizes = groups.iter().flat_map(RowGroupMetaData::columns).map(ColumnChunkMetaData::uncompressed_size);
    match sizes.clone().try_fold(0_i64, i64::checked_add) {
        Some(bytes) if bytes <= MAX_BYTES && sizes.into_iter().all(|size| size >= 0) => Ok(()),
        _ => Err(format!("columns that take more than {MAX_BYTES} bytes once decompressed")),
    }
}

fn check_bytes(bytes: &[u8]) -> Result<(), &'static str> {
    let at = checksum_position(bytes).ok_or("it has no checksum")?;
    let (before, rest) = bytes.split_at(at);
    let (found, behind) = rest.split_at(NO_CHECKSUM.len());
    let mut hash = Xxh3::new();
    for piece in [before, NO_CHECKSUM.as_bytes(), behind] {
        hash.update(piece);
    }
    let expected = format!("{:032x}", hash.digest128());
    if found == expected.as_bytes() { Ok(()) } else { Err("its checksum is not that of its contents") }
}

/// Reads a `steps` part, once its checksum is found right.
pub(super) fn read_sound_steps_part(storage: &dyn Storage, key: &str) -> Result<VideoIndex, StoreError> {
    let (path, bytes) = (&*storage.place(key), storage.get(key)?);
    check_bytes(&bytes).map_err(|found| StoreError::damaged(path, found))?;
    Ok(steps_of_bytes(path, bytes)?.0)
}

/// Reads a `steps` part.
pub(super) fn read_steps_part(storage: &dyn Storage, key: &str) -> Result<VideoIndex, StoreError> {
    Ok(read_steps_part_and_record(storage, key)?.0)
}

/// Reads a `steps` part, and the record as it is written there.
pub(super) fn read_steps_part_and_record(storage: &dyn Storage, key: &str) -> Result<(VideoIndex, String), StoreError> {
    steps_of_bytes(&storage.place(key), storage.get(key)?)
}

fn steps_of_bytes(path: &Path, bytes: Bytes) -> Result<(VideoIndex, String), StoreError> {
    let (batches, mut keys) = read_part(path, bytes)?;
    let generation = keys.remove(GENERATION_KEY).ok_or_else(|| StoreError::damaged(path, NO_GENERATION))?;
    let text = keys.remove(VIDEO_KEY).ok_or_else(|| StoreError::damaged(path, "it names no video"))?;
    let record: VideoRecord = serde_json::from_str(&text).map_err(|error| StoreError::damaged(path, error))?;
    let mut rows = Vec::new();
    for batch in &batches {
        rows.extend(steps_from_batch(batch).map_err(|found| StoreError::damaged(path, found))?);
    }
    if let Some(row) = rows.iter().find(|row| row.video_id != record.video_id) {
        return Err(StoreError::damaged(
            path,
            format!("it has rows of {} and is of {}", row.video_id, record.video_id),
        ));
    }
    Ok((VideoIndex { generation, record, rows }, text))
}

/// The rows of `heads` of one video, by token.
pub type Heads = BTreeMap<String, RecordBatch>;

/// Generation and rows of a `heads` part.
pub(super) fn read_heads_part(storage: &dyn Storage, key: &str) -> Result<(String, Heads), StoreError> {
    let path = &*storage.place(key);
    let (generation, table) = read_table(path, storage.get(key)?, "heads", &heads_schema())?;
    let heads = heads_by_token(&table).map_err(|found| StoreError::damaged(path, found))?;
    Ok((generation, heads))
}

/// Generation and rows of a `text` part.
pub(super) fn read_text_part(storage: &dyn Storage, key: &str) -> Result<(String, RecordBatch), StoreError> {
    read_table(&storage.place(key), storage.get(key)?, "text", &text_schema())
}

/// Generation and rows of a part that has exactly the columns of its table.
fn read_table(path: &Path, bytes: Bytes, name: &str, table: &SchemaRef) -> Result<(String, RecordBatch), StoreError> {
    let (batches, keys) = read_part(path, bytes)?;
    if let Some(batch) = batches.first().filter(|batch| batch.schema().fields() != table.fields()) {
        let found = format!("its columns are {}; expected those of the `{name}` table", names(&batch.schema()));
        return Err(StoreError::damaged(path, found));
    }
    let rows = concat_batches(table, &batches).map_err(|error| StoreError::damaged(path, error))?;
    let generation = keys.get(GENERATION_KEY).cloned().ok_or_else(|| StoreError::damaged(path, NO_GENERATION))?;
    Ok((generation, rows))
}

/// Generation of a part, from its footer alone; `None`, if there is no part.
pub(super) fn part_generation(storage: &dyn Storage, key: &str) -> Result<Option<String>, StoreError> {
    let contents = match storage.open(key) {
        Err(error) if error.is_not_found() => return Ok(None),
        other => PartFile(other?),
    };
    let path = &*storage.place(key);
    guarded(path, || {
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&contents);
        let metadata = metadata.map_err(|source| StoreError::Parquet { path: path.to_owned(), source })?;
        Ok(value_of(&metadata, GENERATION_KEY))
    })
}

/// The file of a part. Of a small one, all is read when it is opened: thousands of them may be looked at together, and
/// so many files cannot be held open.
pub(super) struct PartFile(Box<dyn Contents>);

impl PartFile {
    pub fn open(storage: &dyn Storage, key: &str) -> Result<Self, StoreError> {
        let contents = storage.open(key)?;
        if contents.len() > SMALL {
            return Ok(Self(contents));
        }
        let all = contents.read(0, contents.len()).map_err(StoreError::io(storage.place(key)))?;
        Ok(Self(Box::new(all)))
    }

    /// A range of its bytes.
    pub fn read(&self, start: u64, bytes: u64) -> io::Result<Bytes> {
        self.0.read(start, bytes)
    }
}

impl Length for PartFile {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

/// For footers: columns are read by their ranges.
impl ChunkReader for PartFile {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.read(start, self.len().saturating_sub(start))?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        Ok(self.read(start, length as u64)?)
    }
}

/// What a footer has under a key.
pub(super) fn value_of(metadata: &ParquetMetaData, key: &str) -> Option<String> {
    let mut pairs = metadata.file_metadata().key_value_metadata().into_iter().flatten();
    pairs.find(|pair| pair.key == key)?.value.clone()
}

fn read_part(path: &Path, bytes: Bytes) -> Result<(Vec<RecordBatch>, BTreeMap<String, String>), StoreError> {
    let failed = |source| StoreError::Parquet { path: path.to_owned(), source };
    // What is read here may be written again, under a new checksum.
    check_bytes(&bytes).map_err(|found| StoreError::damaged(path, found))?;
    guarded(path, || {
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(failed)?;
        let keys = builder.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
        let keys = keys.into_iter().filter_map(|pair| Some((pair.key, pair.value?))).collect();
        check_sizes(builder.metadata()).map_err(|found| StoreError::damaged(path, found))?;
        let batches = builder.build().map_err(failed)?.collect::<Result<Vec<_>, _>>();
        Ok((batches.map_err(|error| StoreError::damaged(path, error))?, keys))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::storage::Memory;

    #[test]
    fn a_flipped_bit_anywhere_in_a_part_is_found() {
        let record = VideoRecord { video_id: "v".into(), ..VideoRecord::default() };
        let index = VideoIndex { generation: "0123456789abcdef".into(), record, rows: Vec::new() };
        let bytes = steps_part(&index).unwrap();
        let storage = Memory::new();
        storage.put("v.parquet", &bytes).unwrap();
        let footer = check_part(&storage, "v.parquet").unwrap();
        assert_eq!((footer.generation, footer.video_id), (index.generation.clone(), Some("v".into())));
        assert_eq!(read_steps_part(&storage, "v.parquet").unwrap(), index);
        for position in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[position] ^= 1 << (position % 8);
            assert!(check_bytes(&flipped).is_err(), "byte {position}");
        }
    }

    #[test]
    fn rows_that_are_only_claimed_are_refused() {
        let record = VideoRecord { video_id: "v".into(), ..VideoRecord::default() };
        let index = VideoIndex { generation: "0123456789abcdef".into(), record, rows: Vec::new() };
        let bytes = Bytes::from(steps_part(&index).unwrap());
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&bytes).unwrap();
        check_sizes(&metadata).unwrap();
        let forged = |rows: i64| {
            let file = metadata.file_metadata();
            let (version, schema) = (file.version(), file.schema_descr_ptr());
            let file = parquet::file::metadata::FileMetaData::new(version, rows, None, None, schema, None);
            check_sizes(&ParquetMetaData::new(file, Vec::new()))
        };
        for rows in [1, 1 << 40, i64::MAX, -1] {
            assert!(forged(rows).unwrap_err().contains(&rows.to_string()));
        }
    }

    #[test]
    fn a_patch_gives_back_the_original() {
        let object = |text: &str| serde_json::from_str::<Object>(text).unwrap();
        let reproduced = object(r#"{"a": 1.0, "b": null, "c": [1], "e": 0.5}"#);
        let original = object(r#"{"a": 1, "c": [2], "d": "x", "e": 0.5, "f": 123456789012345678901234567890.10}"#);
        let patch = MetadataPatch::between(&reproduced, &original, &[]);
        assert_eq!(patch.set.keys().collect::<Vec<_>>(), ["a", "c", "d", "f"]);
        let patch: MetadataPatch = serde_json::from_str(&serde_json::to_string(&patch).unwrap()).unwrap();
        let mut applied = reproduced.clone();
        patch.apply(&mut applied);
        assert_eq!(MetadataPatch::between(&applied, &original, &[]), MetadataPatch::default());
    }
}
