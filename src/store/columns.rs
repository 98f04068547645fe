//! Some columns of a part's rows, read without the others.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, RecordBatchReader, UInt32Array, new_null_array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder, RowSelection};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;

use super::pack::Chunks;
use super::part::{GENERATION_KEY, PartFile, footer_of, guarded, value_of, with_columns};
use super::storage::Storage;
use super::{Part, StoreError};

/// A part of which columns are read: what is read is of one commit, whatever takes the file's place meanwhile.
pub(crate) struct PartColumns {
    path: PathBuf,
    file: PartFile,
    metadata: ArrowReaderMetadata,
    /// The row group that is meant; `None`: all.
    group: Option<usize>,
    /// The table's columns, of which the part of an earlier version has only the first.
    table: SchemaRef,
}

impl PartColumns {
    /// Opens a part of a table with these columns. Texts are read as views, of which equal ones share their bytes.
    ///
    /// # Errors
    /// If it cannot be opened or has other columns.
    pub(super) fn open(storage: &dyn Storage, part: &Part, table: &Schema) -> Result<Self, StoreError> {
        let (path, file) = (storage.place(&part.key), PartFile::open(storage, &part.key)?);
        let table = with_views(table);
        let metadata = guarded(&path, || {
            let footer = match &part.pack {
                // No file takes its place.
                Some(known) => known.clone(),
                None => Arc::new(footer_of(&path, &file)?),
            };
            with_columns(&path, footer, &table)
        })?;
        Ok(Self { path, file, metadata, group: part.group, table })
    }

    /// The commit that it is of.
    pub fn generation(&self) -> Option<String> {
        value_of(self.metadata.metadata(), GENERATION_KEY)
    }

    /// Number of its rows.
    pub fn rows(&self) -> usize {
        usize::try_from(self.groups().iter().map(RowGroupMetaData::num_rows).sum::<i64>()).unwrap_or(0)
    }

    /// Its row groups that are meant.
    fn groups(&self) -> &[RowGroupMetaData] {
        let all = self.metadata.metadata().row_groups();
        self.group.map_or(all, |group| all.get(group..=group).unwrap_or_default())
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
            let chunks = Chunks::read(&self.path, &self.file, self.metadata.metadata(), self.group, &projection)?;
            let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(chunks, self.metadata.clone())
                .with_batch_size(self.rows().max(1))
                .with_projection(projection);
            if let Some(group) = self.group {
                builder = builder.with_row_groups(vec![group]);
            }
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
        let groups = self.groups();
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
        self.statistics(column)?.row_group_mins(&groups[..1]).ok()
    }

    /// What no value of a column of texts or integers is below, and what none is above; `None` if that is not known.
    pub fn bounds(&self, column: &str) -> Option<[ArrayRef; 2]> {
        // Of parts, nearly all have one group.
        let [group] = self.groups() else { return None };
        let statistics = self.statistics(column)?;
        let bounds = [statistics.row_group_mins([group]).ok()?, statistics.row_group_maxes([group]).ok()?];
        bounds.iter().all(|bound| bound.len() == 1 && bound.is_valid(0)).then_some(bounds)
    }

    /// The extremes of a column, which tell of all its values: those of floats leave out NaN.
    fn statistics(&self, column: &str) -> Option<StatisticsConverter<'_>> {
        let parquet = self.metadata.parquet_schema();
        let statistics = StatisticsConverter::try_new(column, self.metadata.schema(), parquet).ok()?;
        let kind = statistics.arrow_field().data_type();
        matches!(kind, DataType::Utf8View | DataType::Int32 | DataType::Int64).then_some(statistics)
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
