//! Parquet files that are checked as far as they are read: the footer has the hash of each column chunk, and a checksum
//! over all that is in none.

use std::io::Write;
use std::path::{Path, PathBuf};

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::datatypes::SchemaRef;
use bytes::{Buf, Bytes};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, KeyValue, ParquetMetaData, RowGroupMetaData};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{ChunkReader, Length};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::super::StoreError;
use super::super::part::{
    CHECKSUM_KEY, GENERATION_KEY, NO_CHECKSUM, PartFile, checksum_position, footer_of, guarded, value_of,
};
use super::super::storage::{Storage, Upload};

/// Where the hashes of column chunks are.
const CHUNKS_KEY: &str = "attnkit.chunks";
/// Hexadecimal digits of such a hash.
const DIGITS: usize = 16;
/// Rows that are written together, at least.
const WAITING: usize = 1024;
/// The most bytes of a footer.
const MAX_FOOTER: u64 = 1 << 26;

/// Writes such a file, row group by row group.
pub struct SealedWriter {
    path: PathBuf,
    writer: ArrowWriter<Vec<u8>>,
    upload: Box<dyn Upload>,
    /// What was written and is not in the file yet, from this position on.
    pending: Vec<u8>,
    position: u64,
    /// Row groups whose chunks are in the file.
    groups: usize,
    chunks: String,
    /// Over what is in no chunk.
    rest: Xxh3,
    /// Rows that wait for others: each piece that is written takes its time, however small it is.
    waiting: Vec<RecordBatch>,
    waiting_rows: usize,
    rows: usize,
}

impl SealedWriter {
    /// Begins a file with so many rows in a group.
    pub fn begin(
        storage: &dyn Storage,
        key: &str,
        schema: &SchemaRef,
        generation: &str,
        group: usize,
    ) -> Result<Self, StoreError> {
        let path = storage.place(key);
        let pair = |key: &str, value: &str| KeyValue::new(key.to_owned(), value.to_owned());
        let keys = vec![pair(GENERATION_KEY, generation), pair(CHECKSUM_KEY, NO_CHECKSUM)];
        let begun = ZstdLevel::try_new(3).and_then(|level| {
            let properties = WriterProperties::builder()
                .set_compression(Compression::ZSTD(level))
                .set_created_by(concat!("attnkit ", env!("CARGO_PKG_VERSION")).into())
                .set_key_value_metadata(Some(keys))
                .set_max_row_group_row_count(Some(group))
                // Of each column chunk; of pages nobody asks.
                .set_statistics_enabled(EnabledStatistics::Chunk)
                .set_offset_index_disabled(true)
                .build();
            ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties))
        });
        let writer = begun.map_err(|source| StoreError::Parquet { path: path.clone(), source })?;
        Ok(Self {
            path,
            writer,
            upload: storage.create(key)?,
            pending: Vec::new(),
            position: 0,
            groups: 0,
            chunks: String::new(),
            rest: Xxh3::new(),
            waiting: Vec::new(),
            waiting_rows: 0,
            rows: 0,
        })
    }

    /// Rows that were written.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of the file so far, about.
    pub fn bytes(&self) -> u64 {
        self.position + self.writer.in_progress_size() as u64
    }

    /// Adds rows.
    pub fn write(&mut self, rows: RecordBatch) -> Result<(), StoreError> {
        self.rows += rows.num_rows();
        self.waiting_rows += rows.num_rows();
        self.waiting.push(rows);
        if self.waiting_rows >= WAITING { self.write_waiting() } else { Ok(()) }
    }

    fn write_waiting(&mut self) -> Result<(), StoreError> {
        self.waiting_rows = 0;
        let Some(schema) = self.waiting.first().map(RecordBatch::schema) else { return Ok(()) };
        let rows = arrow::compute::concat_batches(&schema, &self.waiting);
        self.waiting.clear();
        let rows = rows.map_err(|error| StoreError::damaged(&self.path, error))?;
        self.writer.write(&rows).map_err(|source| self.failed(source))?;
        self.pass_on_groups()
    }

    /// Ends the file.
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.write_waiting()?;
        self.writer.flush().map_err(|source| self.failed(source))?;
        self.pass_on_groups()?;
        let chunks = std::mem::take(&mut self.chunks);
        self.writer.append_key_value_metadata(KeyValue::new(CHUNKS_KEY.to_owned(), chunks));
        self.writer.finish().map_err(|source| self.failed(source))?;
        self.take()?;
        let at = checksum_position(&self.pending).ok_or_else(|| StoreError::damaged(&self.path, "it has no footer"))?;
        self.rest.update(&self.pending);
        let checksum = format!("{:032x}", self.rest.digest128());
        self.pending[at..at + checksum.len()].copy_from_slice(checksum.as_bytes());
        self.upload.write_all(&self.pending).map_err(StoreError::io(&self.path))?;
        self.upload.finish()
    }

    /// Hashes the chunks of row groups that are whole, and writes them to the file.
    fn pass_on_groups(&mut self) -> Result<(), StoreError> {
        if self.writer.flushed_row_groups().len() == self.groups {
            return Ok(());
        }
        self.take()?;
        let chunks: Vec<(u64, u64)> = self.writer.flushed_row_groups()[self.groups..]
            .iter()
            .flat_map(RowGroupMetaData::columns)
            .map(ColumnChunkMetaData::byte_range)
            .collect();
        self.groups = self.writer.flushed_row_groups().len();
        for (start, bytes) in chunks {
            let at = usize::try_from(start.saturating_sub(self.position)).unwrap_or(usize::MAX);
            let end = usize::try_from(bytes).ok().and_then(|bytes| at.checked_add(bytes));
            let Some(chunk) = end.and_then(|end| self.pending.get(at..end)) else {
                return Err(StoreError::damaged(&self.path, "its column chunks are not where the writer says"));
            };
            self.rest.update(&self.pending[..at]);
            self.chunks.push_str(&chunk_hash(chunk));
            let passed = at + chunk.len();
            self.upload.write_all(&self.pending[..passed]).map_err(StoreError::io(&self.path))?;
            self.pending.drain(..passed);
            self.position += passed as u64;
        }
        Ok(())
    }

    /// Takes what was written so far.
    fn take(&mut self) -> Result<(), StoreError> {
        self.writer.sync().map_err(StoreError::io(&self.path))?;
        self.pending.append(self.writer.inner_mut());
        Ok(())
    }

    fn failed(&self, source: ParquetError) -> StoreError {
        StoreError::Parquet { path: self.path.clone(), source }
    }
}

fn chunk_hash(chunk: &[u8]) -> String {
    format!("{:016x}", xxh3_64(chunk))
}

/// The footer of such a file, once it is checked; of column chunks, nothing is read.
pub fn footer(storage: &dyn Storage, key: &str) -> Result<ParquetMetaData, StoreError> {
    let (path, file) = (&*storage.place(key), PartFile::open(storage, key)?);
    guarded(path, || {
        let metadata = footer_of(path, &file)?;
        check_rest(path, &file, &metadata)?;
        Ok(metadata)
    })
}

/// Checks the checksum over what is in no column chunk, and that these are all there is beside it.
fn check_rest(path: &Path, file: &PartFile, metadata: &ParquetMetaData) -> Result<(), StoreError> {
    const MAGIC: u64 = 4;
    let damaged = |found: &str| StoreError::damaged(path, found);
    let mut end = MAGIC;
    for (start, bytes) in
        metadata.row_groups().iter().flat_map(RowGroupMetaData::columns).map(ColumnChunkMetaData::byte_range)
    {
        if start != end {
            return Err(damaged("its column chunks do not lie one behind the other"));
        }
        end = end.checked_add(bytes).ok_or_else(|| damaged("its column chunks are longer than any file"))?;
    }
    let bytes = file.len().checked_sub(end).filter(|bytes| *bytes <= MAX_FOOTER);
    let bytes = bytes.ok_or_else(|| damaged("its footer does not begin behind its column chunks"))?;
    let read = |start, bytes| file.read(start, bytes).map_err(StoreError::io(path));
    let (first, footer) = (read(0, MAGIC)?, read(end, bytes)?);
    let at = checksum_position(&footer).ok_or_else(|| damaged("it has no checksum"))?;
    let (before, found) = footer.split_at(at);
    let (found, behind) = found.split_at(NO_CHECKSUM.len());
    let mut hash = Xxh3::new();
    for piece in [&first, before, NO_CHECKSUM.as_bytes(), behind] {
        hash.update(piece);
    }
    let groups = metadata.row_groups();
    let hashes = value_of(metadata, CHUNKS_KEY).unwrap_or_default();
    let chunks: usize = groups.iter().map(RowGroupMetaData::num_columns).sum();
    if format!("{:032x}", hash.digest128()).as_bytes() != found {
        return Err(damaged("its checksum is not that of its footer"));
    }
    if hashes.len() == chunks * DIGITS { Ok(()) } else { Err(damaged("it has not a hash for each column chunk")) }
}

/// Column chunks of a Parquet file, in memory.
pub struct Chunks {
    length: u64,
    /// Each from where it begins.
    chunks: Vec<(u64, Bytes)>,
}

impl Chunks {
    /// Reads columns of one row group, or of all. Where the footer has their hashes, they are checked.
    pub fn read(
        path: &Path,
        file: &PartFile,
        metadata: &ParquetMetaData,
        group: Option<usize>,
        columns: &ProjectionMask,
    ) -> Result<Self, StoreError> {
        let hashes = value_of(metadata, CHUNKS_KEY);
        let mut chunks = Vec::new();
        let mut number = 0;
        for (at, of_group) in metadata.row_groups().iter().enumerate() {
            for (column, chunk) in of_group.columns().iter().enumerate() {
                let hash = hashes.as_ref().map(|hashes| hashes.get(number * DIGITS..(number + 1) * DIGITS));
                number += 1;
                if group.is_some_and(|group| group != at) || !columns.leaf_included(column) {
                    continue;
                }
                let (start, bytes) = chunk.byte_range();
                let bytes = file.read(start, bytes).map_err(StoreError::io(path))?;
                if hash.is_some_and(|hash| hash != Some(&*chunk_hash(&bytes))) {
                    let column = chunk.column_path().string();
                    let found = format!("column {column} of row group {at} has another hash than its footer says");
                    return Err(StoreError::damaged(path, found));
                }
                chunks.push((start, bytes));
            }
        }
        Ok(Self { length: file.len(), chunks })
    }

    /// What is in memory of the file from here on.
    fn from(&self, start: u64) -> Result<Bytes, ParquetError> {
        let within = |(begin, chunk): &(u64, Bytes)| {
            let offset = usize::try_from(start.checked_sub(*begin)?).ok()?;
            (offset <= chunk.len()).then(|| chunk.slice(offset..))
        };
        // Where one ends and the next begins, it is the latter.
        let longest = self.chunks.iter().filter_map(within).max_by_key(Bytes::len);
        longest.ok_or_else(|| ParquetError::EOF(format!("byte {start} is of no column that is read")))
    }
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Chunks {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let bytes = self.from(start)?;
        if length > bytes.len() {
            return Err(ParquetError::EOF(format!("{length} bytes from byte {start} on reach beyond their column")));
        }
        Ok(bytes.slice(..length))
    }
}

/// Columns of a row group: those that are named, or all.
pub fn row_group(
    storage: &dyn Storage,
    key: &str,
    metadata: &ArrowReaderMetadata,
    group: usize,
    columns: Option<&[&str]>,
) -> Result<RecordBatch, StoreError> {
    let (path, file) = (&*storage.place(key), PartFile::open(storage, key)?);
    guarded(path, || {
        let parquet = metadata.parquet_schema();
        let columns =
            columns.map_or_else(ProjectionMask::all, |names| ProjectionMask::columns(parquet, names.iter().copied()));
        let chunks = Chunks::read(path, &file, metadata.metadata(), Some(group), &columns)?;
        let rows = metadata.metadata().row_group_num_rows(group).unwrap_or(0);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(chunks, metadata.clone())
            .with_row_groups(vec![group])
            .with_batch_size(rows.max(1))
            .with_projection(columns)
            .build()
            .map_err(|source| StoreError::Parquet { path: path.to_owned(), source })?;
        let schema = reader.schema();
        let batches = reader.collect::<Result<Vec<_>, _>>();
        let joined = batches.and_then(|batches| arrow::compute::concat_batches(&schema, &batches));
        joined.map_err(|error| StoreError::damaged(path, error))
    })
}

/// Checks all column chunks of a file against the hashes in its footer.
pub fn check_chunks(storage: &dyn Storage, key: &str, metadata: &ParquetMetaData) -> Result<(), StoreError> {
    let (path, file) = (&*storage.place(key), PartFile::open(storage, key)?);
    (0..metadata.num_row_groups())
        .try_for_each(|group| Chunks::read(path, &file, metadata, Some(group), &ProjectionMask::all()).map(drop))
}
