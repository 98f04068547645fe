//! Some columns of a part's rows, read without the others.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, RecordBatchReader, UInt32Array, new_null_array};
use arrow::compute::{concat_batches, take};
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
use parquet::file::statistics::Statistics;

use super::StoreError;
use super::part::{GENERATION_KEY, PartFile, check_sizes, guarded, value_of};
use super::storage::Storage;
use super::tables::columns_of_part;

/// A part of which columns are read: what is read is of one commit, whatever takes the file's place meanwhile.
pub(crate) struct PartColumns {
    path: PathBuf,
    file: PartFile,
    metadata: ArrowReaderMetadata,
    /// The table's columns, of which the part of an earlier version has only the first.
    table: SchemaRef,
}

impl PartColumns {
    /// Opens a part of a table with these columns. Texts are read as views, of which equal ones share their bytes.
    ///
    /// # Errors
    /// If it cannot be opened or has other columns.
    pub(super) fn open(storage: &dyn Storage, key: &str, table: &Schema) -> Result<Self, StoreError> {
        let (path, file) = (storage.place(key), PartFile::open(storage, key)?);
        let table = with_views(table);
        let metadata = guarded(&path, || {
            let footer = ParquetMetaDataReader::new().parse_and_finish(&file);
            let footer = footer.map_err(|source| StoreError::Parquet { path: path.clone(), source })?;
            check_sizes(&footer).map_err(|found| StoreError::damaged(&path, found))?;
            let count = footer.file_metadata().schema_descr().root_schema().get_fields().len();
            let fields = columns_of_part(&table, count);
            let fields = fields.ok_or_else(|| StoreError::damaged(&path, format!("{count} columns")))?;
            let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields.to_vec())));
            ArrowReaderMetadata::try_new(Arc::new(footer), options).map_err(|error| StoreError::damaged(&path, error))
        })?;
        Ok(Self { path, file, metadata, table })
    }

    /// The commit that it is of.
    pub fn generation(&self) -> Option<String> {
        value_of(self.metadata.metadata(), GENERATION_KEY)
    }

    /// Number of its rows.
    pub fn rows(&self) -> usize {
        usize::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    /// Columns of all rows, or of those that are selected; of a column whose value is the same in all, no page is read.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn read(&self, columns: &[&str], selected: Option<&RowSelection>) -> Result<RecordBatch, StoreError> {
        let count = selected.map_or_else(|| self.rows(), RowSelection::row_count);
        let constants: Vec<Option<ArrayRef>> = columns.iter().map(|name| self.constant(name)).collect();
        let differing = columns.iter().zip(&constants).filter(|(_, constant)| constant.is_none());
        let differing: Vec<&str> = differing.map(|(name, _)| *name).collect();
        let read = if differing.is_empty() { None } else { Some(self.pages(&differing, selected)?) };
        let mut named = Vec::new();
        for (name, constant) in columns.iter().zip(constants) {
            let values = match constant {
                Some(constant) => repeated(&constant, count).map_err(|error| StoreError::damaged(&self.path, error))?,
                None => {
                    let found = read.as_ref().and_then(|read| read.column_by_name(name)).cloned();
                    found.ok_or_else(|| StoreError::damaged(&self.path, format!("there is no column {name}")))?
                }
            };
            named.push((Field::new(*name, values.data_type().clone(), true), values));
        }
        let (fields, values): (Vec<Field>, Vec<ArrayRef>) = named.into_iter().unzip();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), values, &options)
            .map_err(|error| StoreError::damaged(&self.path, error))
    }

    /// Columns as their pages have them.
    fn pages(&self, columns: &[&str], selected: Option<&RowSelection>) -> Result<RecordBatch, StoreError> {
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

    /// The value that a column of texts or integers has in every row, or null if no row has one: if the part's
    /// statistics say so, or if the column was added since the part was written.
    pub fn constant(&self, column: &str) -> Option<ArrayRef> {
        let index = self.table.index_of(column).ok()?;
        if index >= self.metadata.schema().fields().len() {
            return Some(new_null_array(self.table.field(index).data_type(), 1));
        }
        let parquet = self.metadata.parquet_schema();
        let leaf = parquet.columns().iter().position(|leaf| leaf.path().parts() == [column])?;
        let groups = self.metadata.metadata().row_groups();
        let statistics: Vec<_> = groups.iter().map(|group| group.column(leaf).statistics()).collect::<Option<_>>()?;
        let first = statistics.first()?;
        let rows = groups.iter().map(|group| u64::try_from(group.num_rows()).ok());
        if statistics.iter().zip(rows).all(|(of_group, rows)| rows.is_some() && of_group.null_count_opt() == rows) {
            return Some(new_null_array(self.metadata.schema().field_with_name(column).ok()?.data_type(), 1));
        }
        let is_first = |of_group: &&Statistics| {
            let is_one = first.min_bytes_opt().is_some()
                && of_group.min_bytes_opt() == first.min_bytes_opt()
                && of_group.max_bytes_opt() == first.min_bytes_opt();
            is_one && of_group.null_count_opt() == Some(0) && of_group.min_is_exact() && of_group.max_is_exact()
        };
        if !statistics.iter().all(is_first) {
            return None;
        }
        let statistics = StatisticsConverter::try_new(column, self.metadata.schema(), parquet).ok()?;
        // The extremes of floats leave out NaN.
        let kind = statistics.arrow_field().data_type();
        let is_told = matches!(kind, DataType::Utf8View | DataType::Int32 | DataType::Int64);
        is_told.then(|| statistics.row_group_mins(&groups[..1]).ok())?
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

/// A value as often as that.
fn repeated(value: &dyn Array, count: usize) -> Result<ArrayRef, ArrowError> {
    take(value, &UInt32Array::from_value(0, count), None)
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

#[cfg(test)]
mod tests {
    use super::super::{Part, Store, heads_schema, steps_schema};
    use super::*;
    use crate::ingest::{self, IngestOptions, Silent};

    #[test]
    fn what_is_the_same_in_every_row_is_as_its_pages_have_it() {
        let dir = tempfile::tempdir().unwrap();
        let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");
        ingest::run(&[format!("{fixtures}/dataset")], dir.path().join("s"), &IngestOptions::default(), &Silent)
            .unwrap();
        let snapshot = Store::open(dir.path().join("s")).unwrap().snapshot();
        let of_steps = snapshot.parts().unwrap().to_vec();
        let of_heads = snapshot.heads_of(&of_steps).unwrap();
        let (mut same, mut unknown) = (0, 0);
        for (parts, table) in [(of_steps, steps_schema()), (of_heads, heads_schema())] {
            let names: Vec<&str> = table.fields().iter().map(|field| field.name().as_str()).collect();
            let read = |part: &Part| {
                let part = snapshot.columns(part, &table).unwrap();
                let some = RowSelection::from_consecutive_ranges([1..3, 5..6].into_iter(), part.rows());
                for selected in [None, Some(&some)] {
                    let (found, expected) =
                        (part.read(&names, selected).unwrap(), part.pages(&names, selected).unwrap());
                    assert_eq!(found.num_rows(), expected.num_rows());
                    for name in &names {
                        assert_eq!(found.column_by_name(name), expected.column_by_name(name), "{name}");
                    }
                }
                let none = part.read(&["video_id"], Some(&RowSelection::from(Vec::new()))).unwrap();
                assert_eq!((none.num_rows(), none.num_columns()), (0, 1));
                names.iter().filter_map(|name| part.constant(name)).collect::<Vec<_>>()
            };
            for constant in parts.iter().flat_map(read) {
                if constant.is_null(0) { unknown += 1 } else { same += 1 }
            }
        }
        assert!(same > 0 && unknown > 0, "{same} {unknown}");
    }
}
