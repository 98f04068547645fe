//! Writing a pack, video by video.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::error::ArrowError;

use super::super::part::VideoIndex;
use super::super::storage::Storage;
use super::super::tables::steps_batch;
use super::super::{StoreError, layout};
use super::sealed::{self, SealedWriter};
use super::{PackedVideo, RECORDS_SCHEMA, Table};

/// All that is committed of a video, as rows of the tables.
pub(in crate::store) struct VideoRows {
    pub video_id: String,
    pub generation: String,
    /// Its record, as JSON, as it was written.
    pub record: String,
    pub steps: RecordBatch,
    /// One behind the other.
    pub heads: Vec<RecordBatch>,
    pub text: Option<RecordBatch>,
}

impl VideoRows {
    /// The most bytes of one of its tables, before they are encoded, and the most rows.
    pub fn size(&self) -> [usize; 2] {
        let bytes = |batches: &[RecordBatch]| -> usize {
            let columns = batches.iter().flat_map(RecordBatch::columns);
            columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum()
        };
        let tables = [std::slice::from_ref(&self.steps), &self.heads, self.text.as_slice()];
        let most = tables.map(bytes).into_iter().max().unwrap_or(0).max(self.record.len());
        [most, tables.map(|table| table.iter().map(RecordBatch::num_rows).sum()).into_iter().max().unwrap_or(0)]
    }

    pub fn new(
        video: &VideoIndex,
        record: String,
        heads: Vec<RecordBatch>,
        text: Option<RecordBatch>,
    ) -> Result<Self, ArrowError> {
        Ok(Self {
            video_id: video.record.video_id.clone(),
            generation: video.generation.clone(),
            record,
            steps: steps_batch(&video.rows)?,
            heads,
            text,
        })
    }
}

/// A pack that is being written into an index that nobody looks for yet.
pub(in crate::store) struct PackWriter<'a> {
    storage: &'a dyn Storage,
    /// The directory of that index.
    index: String,
    generation: String,
    /// Its parts that have been begun.
    parts: Vec<(Table, SealedWriter)>,
    videos: Vec<PackedVideo>,
    records: Vec<String>,
}

impl<'a> PackWriter<'a> {
    pub fn begin(storage: &'a dyn Storage, index: &str, generation: &str) -> Result<Self, StoreError> {
        let mut writer = Self {
            storage,
            index: index.to_owned(),
            generation: generation.to_owned(),
            parts: Vec::new(),
            videos: Vec::new(),
            records: Vec::new(),
        };
        writer.part(Table::Steps)?;
        writer.part(Table::Heads)?;
        Ok(writer)
    }

    /// Adds a video, behind those whose ids are before its own.
    pub fn add(&mut self, rows: VideoRows) -> Result<(), StoreError> {
        let packed = PackedVideo {
            video_id: rows.video_id,
            generation: rows.generation,
            record: self.videos.len(),
            steps: self.write(Table::Steps, vec![rows.steps])?,
            heads: self.write(Table::Heads, rows.heads)?,
            text: rows.text.map(|text| self.write(Table::Text, vec![text])).transpose()?,
        };
        self.videos.push(packed);
        self.records.push(rows.record);
        if self.records.len() == Table::Records.group() { self.write_records() } else { Ok(()) }
    }

    /// Ends the pack, and checks that what was written is read again.
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.write_records()?;
        let keys: Vec<String> = self.parts.iter().map(|(table, _)| self.key(*table)).collect();
        self.parts.into_iter().try_for_each(|(_, part)| part.finish())?;
        keys.iter().try_for_each(|key| sealed::check_chunks(self.storage, key, &sealed::footer(self.storage, key)?))
    }

    /// Writes rows, and tells which they are.
    fn write(&mut self, table: Table, rows: Vec<RecordBatch>) -> Result<std::ops::Range<usize>, StoreError> {
        let part = self.part(table)?;
        let start = part.rows();
        rows.into_iter().try_for_each(|rows| part.write(rows))?;
        Ok(start..part.rows())
    }

    /// Bytes of its files so far.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|(_, part)| part.bytes()).sum()
    }

    /// Writes the records that were not written yet.
    fn write_records(&mut self) -> Result<(), StoreError> {
        let records = std::mem::take(&mut self.records);
        let videos = &self.videos[self.videos.len() - records.len()..];
        let text =
            |of: fn(&PackedVideo) -> &str| Arc::new(StringArray::from_iter_values(videos.iter().map(of))) as ArrayRef;
        let number = |of: &dyn Fn(&PackedVideo) -> Option<usize>| {
            let numbers = videos.iter().map(|video| of(video).and_then(|number| i64::try_from(number).ok()));
            Arc::new(numbers.collect::<Int64Array>()) as ArrayRef
        };
        let columns = vec![
            text(|video| &video.video_id),
            text(|video| &video.generation),
            Arc::new(StringArray::from(records)),
            number(&|video| Some(video.steps.start)),
            number(&|video| Some(video.steps.end)),
            number(&|video| Some(video.heads.start)),
            number(&|video| Some(video.heads.end)),
            number(&|video| Some(video.text.as_ref()?.start)),
            number(&|video| Some(video.text.as_ref()?.end)),
        ];
        let rows = RecordBatch::try_new(RECORDS_SCHEMA.clone(), columns);
        let rows = rows.map_err(|error| StoreError::damaged(self.storage.place(&self.key(Table::Records)), error))?;
        self.write(Table::Records, vec![rows]).map(drop)
    }

    /// The pack's part of a table, which is begun with the first video that needs it.
    fn part(&mut self, table: Table) -> Result<&mut SealedWriter, StoreError> {
        let at = self.parts.iter().position(|(own, _)| *own == table);
        let at = match at {
            Some(at) => at,
            None => {
                let (key, schema) = (self.key(table), table.schema());
                let part = SealedWriter::begin(self.storage, &key, &schema, &self.generation, table.group())?;
                self.parts.push((table, part));
                self.parts.len() - 1
            }
        };
        Ok(&mut self.parts[at].1)
    }

    fn key(&self, table: Table) -> String {
        layout::in_index(&layout::pack(table.directory(), &self.generation), &self.index)
    }
}
