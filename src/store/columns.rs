//! Some columns of a part's rows, read without the others.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, RecordBatchReader};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::{Buf, Bytes};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::reader::{ChunkReader, Length};

use super::StoreError;
use super::part::{GENERATION_KEY, PartFile, check_sizes, guarded, value_of};
use super::storage::Storage;

/// A part of which columns are read: what is read is of one commit, whatever takes the file's place meanwhile.
pub(crate) struct PartColumns {
    path: PathBuf,
    file: PartFile,
    metadata: ArrowReaderMetadata,
}

impl PartColumns {
    /// Opens a part of a table with these columns. Texts are read as views, of which equal ones share their bytes.
    ///
    /// # Errors
    /// If it cannot be opened or has other columns.
    pub(super) fn open(storage: &dyn Storage, key: &str, table: &Schema) -> Result<Self, StoreError> {
        let (path, file) = (storage.place(key), PartFile::open(storage, key)?);
        let metadata = guarded(&path, || {
            let footer = ParquetMetaDataReader::new().parse_and_finish(&file);
            let footer = footer.map_err(|source| StoreError::Parquet { path: path.clone(), source })?;
            check_sizes(&footer).map_err(|found| StoreError::damaged(&path, found))?;
            let options = ArrowReaderOptions::new().with_schema(with_views(table));
            ArrowReaderMetadata::try_new(Arc::new(footer), options).map_err(|error| StoreError::damaged(&path, error))
        })?;
        Ok(Self { path, file, metadata })
    }

    /// The commit that it is of.
    pub fn generation(&self) -> Option<String> {
        value_of(self.metadata.metadata(), GENERATION_KEY)
    }

    /// Number of its rows.
    pub fn rows(&self) -> usize {
        usize::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    /// Columns of all rows, or of those that are selected.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn read(&self, columns: &[&str], selected: Option<&RowSelection>) -> Result<RecordBatch, StoreError> {
        guarded(&self.path, || {
            let schema = self.metadata.schema();
            let indices = columns.iter().filter_map(|name| schema.index_of(name).ok());
            let projection = ProjectionMask::roots(self.metadata.parquet_schema(), indices);
            let pieces = self.pieces(&projection).map_err(StoreError::io(&self.path))?;
            let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(pieces, self.metadata.clone())
                .with_batch_size(self.rows().max(1))
                .with_projection(projection);
            if let Some(selected) = selected {
                builder = builder.with_row_selection(selected.clone());
            }
            let reader = builder.build().map_err(|source| StoreError::Parquet { path: self.path.clone(), source })?;
            let schema = reader.schema();
            let batches = reader.collect::<Result<Vec<_>, _>>();
            let batch = batches.and_then(|batches| joined(&schema, batches)).and_then(shrunk);
            batch.map_err(|error| StoreError::damaged(&self.path, error))
        })
    }

    /// The value that a column of texts or integers has in every row, if the part's statistics say so.
    pub fn constant(&self, column: &str) -> Option<ArrayRef> {
        let footer = self.metadata.metadata();
        let statistics = StatisticsConverter::try_new(column, self.metadata.schema(), self.metadata.parquet_schema());
        let statistics = statistics.ok()?;
        if !matches!(statistics.arrow_field().data_type(), DataType::Utf8View | DataType::Int32 | DataType::Int64) {
            return None;
        }
        let groups = || footer.row_groups().iter();
        let mins = statistics.row_group_mins(groups()).ok()?;
        let maxes = statistics.row_group_maxes(groups()).ok()?;
        let nulls = statistics.row_group_null_counts(groups()).ok()?;
        let exact =
            [statistics.row_group_is_min_value_exact(groups()), statistics.row_group_is_max_value_exact(groups())];
        let is_exact =
            exact.into_iter().all(|exact| exact.is_ok_and(|exact| exact.iter().all(|one| one == Some(true))));
        let first = (!mins.is_empty()).then(|| mins.slice(0, 1)).filter(|first| first.is_valid(0))?;
        let is_first = |at: usize| *mins.slice(at, 1) == *first && *maxes.slice(at, 1) == *first;
        let is_constant = is_exact && nulls.iter().all(|nulls| nulls == Some(0)) && (0..mins.len()).all(is_first);
        is_constant.then_some(first)
    }

    /// The bytes of columns.
    fn pieces(&self, projection: &ProjectionMask) -> io::Result<Pieces> {
        let length = self.file.len();
        let mut pieces = Vec::new();
        for group in self.metadata.metadata().row_groups() {
            let columns = group.columns().iter().enumerate();
            for (_, column) in columns.filter(|(index, _)| projection.leaf_included(*index)) {
                let (start, bytes) = column.byte_range();
                pieces.push((start, self.file.read(start, bytes)?));
            }
        }
        Ok(Pieces { length, pieces })
    }
}

/// Rows one behind the other; what is in one piece already is not copied.
pub(crate) fn joined(schema: &SchemaRef, batches: Vec<RecordBatch>) -> Result<RecordBatch, ArrowError> {
    match <[RecordBatch; 1]>::try_from(batches) {
        Ok([only]) => Ok(only),
        Err(several) => concat_batches(schema, &several),
    }
}

/// The same rows, without the room that the reader made for all of the part's.
fn shrunk(rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
    let (schema, mut columns, count) = rows.into_parts();
    for column in &mut columns {
        column.shrink_to_fit();
    }
    RecordBatch::try_new_with_options(schema, columns, &RecordBatchOptions::new().with_row_count(Some(count)))
}

/// The table's columns with views where it has texts.
fn with_views(table: &Schema) -> SchemaRef {
    fn with_view(field: &FieldRef) -> FieldRef {
        let kind = match field.data_type() {
            DataType::Utf8 => DataType::Utf8View,
            DataType::List(item) => DataType::List(with_view(item)),
            other => other.clone(),
        };
        Arc::new(Field::clone(field).with_data_type(kind))
    }
    Arc::new(Schema::new(table.fields().iter().map(with_view).collect::<Vec<_>>()))
}

/// Pieces of a file, each from where it begins.
struct Pieces {
    length: u64,
    pieces: Vec<(u64, Bytes)>,
}

impl Pieces {
    /// What is in memory of the file from here on.
    fn from(&self, start: u64) -> Result<Bytes, ParquetError> {
        let within = |(begin, piece): &(u64, Bytes)| {
            let offset = usize::try_from(start.checked_sub(*begin)?).ok()?;
            (offset <= piece.len()).then(|| piece.slice(offset..))
        };
        // Where one piece ends and the next begins, it is the latter.
        let longest = self.pieces.iter().filter_map(within).max_by_key(Bytes::len);
        longest.ok_or_else(|| ParquetError::EOF(format!("byte {start} is of no column that is read")))
    }
}

impl Length for Pieces {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Pieces {
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
