//! Packs: the parts of many videos in one file of each table. What is committed of a video is in a part of its own, or
//! in one pack; packing changes where rows are, and nothing else.

mod salvage;
mod sealed;
mod write;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use rayon::prelude::*;

pub(crate) use salvage::Salvaged;
pub(super) use sealed::{Chunks, check_chunks, footer};
pub(super) use write::{PackWriter, VideoRows};

use super::part::{Heads, VideoIndex, VideoRecord, guarded, with_columns};
use super::storage::EntryKind;
use super::tables::{heads_by_token, heads_schema, schema, steps_from_batch, steps_schema, with_added};
use super::{StepRow, Store, StoreError, layout, text_schema};

/// Rows of a row group of each table: so few that a filter on video or word leaves most of them out, and so many that
/// what is not left out is read fast (of `heads`, a quarter of them takes twice as long, and 15 % more bytes).
const STEPS_GROUP: usize = 8_192;
const HEADS_GROUP: usize = 131_072;
const RECORDS_GROUP: usize = 1_024;

/// Videos whose rows are read together.
const TOGETHER: usize = 256;
/// What is said of a file of a pack that is missing.
pub(super) const MISSING: &str =
    "missing: a pack has a file of this name in each table; put it back, or repair the store";

/// The column of the records themselves, which only those read who need one.
const RECORD: &str = "record";
/// Columns of the table `records`, which says of each packed video what its own parts would say beside their rows.
static RECORDS_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let (text, long) = (DataType::Utf8, DataType::Int64);
    schema(&[
        ("video_id", &text, false),
        ("generation", &text, false),
        (RECORD, &text, false),
        ("steps_start", &long, false),
        ("steps_end", &long, false),
        ("heads_start", &long, false),
        ("heads_end", &long, false),
        ("text_start", &long, true),
        ("text_end", &long, true),
    ])
});

/// A table of which packs have parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Steps,
    Heads,
    Text,
    Records,
}

impl Table {
    pub const ALL: [Self; 4] = [Self::Steps, Self::Heads, Self::Text, Self::Records];

    /// The directory of its parts.
    pub const fn directory(self) -> &'static str {
        match self {
            Self::Steps => layout::STEPS,
            Self::Heads => layout::HEADS,
            Self::Text => layout::TEXT,
            Self::Records => layout::RECORDS,
        }
    }

    pub fn schema(self) -> SchemaRef {
        match self {
            Self::Steps => steps_schema(),
            Self::Heads => heads_schema(),
            Self::Text => text_schema(),
            Self::Records => RECORDS_SCHEMA.clone(),
        }
    }

    const fn group(self) -> usize {
        match self {
            Self::Steps => STEPS_GROUP,
            Self::Heads | Self::Text => HEADS_GROUP,
            Self::Records => RECORDS_GROUP,
        }
    }
}

/// The videos of a pack, and where their rows are.
#[derive(Debug)]
pub(super) struct Pack {
    /// In the names of its files.
    pub name: String,
    /// Sorted by id.
    pub videos: Vec<PackedVideo>,
}

/// A video of a pack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PackedVideo {
    pub video_id: String,
    /// The commit that its rows are of.
    pub generation: String,
    /// Its row of `records`.
    record: usize,
    /// Its rows of each table.
    pub steps: Range<usize>,
    pub heads: Range<usize>,
    /// `None`: it has no rows of `text`.
    pub text: Option<Range<usize>>,
}

impl PackedVideo {
    /// The video of a row of `records`, which is that of all of them with this number; `None` if it says nothing that
    /// could be.
    fn of_record(rows: &RecordBatch, row: usize, record: usize) -> Option<Self> {
        let text = |name: &str| Some(rows.column_by_name(name)?.as_string::<i32>().value(row).to_owned());
        let number = |name: &str| {
            let column = rows.column_by_name(name)?.as_primitive::<Int64Type>();
            column.is_valid(row).then(|| usize::try_from(column.value(row)).ok())?
        };
        let range = |start, end| Some(number(start)?..number(end)?);
        Some(Self {
            video_id: text("video_id")?,
            generation: text("generation")?,
            record,
            steps: range("steps_start", "steps_end")?,
            heads: range("heads_start", "heads_end")?,
            text: range("text_start", "text_end"),
        })
    }
}

impl Pack {
    /// The place of a video among those of the pack.
    pub fn video(&self, video_id: &str) -> Option<&PackedVideo> {
        let at = self.videos.binary_search_by(|video| video.video_id.as_str().cmp(video_id)).ok()?;
        self.videos.get(at)
    }

    /// Rows that its part of a table must have.
    pub fn rows_of(&self, table: Table) -> u64 {
        let rows = match table {
            Table::Steps => self.videos.last().map_or(0, |last| last.steps.end),
            Table::Heads => self.videos.last().map_or(0, |last| last.heads.end),
            Table::Text => self.videos.iter().rev().find_map(|video| Some(video.text.as_ref()?.end)).unwrap_or(0),
            Table::Records => self.videos.len(),
        };
        rows as u64
    }

    /// Its part of a table.
    pub fn key(&self, table: Table) -> String {
        layout::pack(table.directory(), &self.name)
    }

    /// Whether one of its videos has rows of `text`.
    pub fn has_text(&self) -> bool {
        self.videos.iter().any(|video| video.text.is_some())
    }

    /// The tables that it has parts of.
    pub fn tables(&self) -> impl Iterator<Item = Table> {
        let has_text = self.has_text();
        Table::ALL.into_iter().filter(move |table| *table != Table::Text || has_text)
    }
}

impl Store {
    /// The packs.
    ///
    /// # Errors
    /// If one cannot be read: of no video can be told then that it is not packed.
    pub(super) fn packs(&self) -> Result<Vec<Arc<Pack>>, StoreError> {
        self.names_of_packs()?.iter().map(|pack| self.pack(pack)).collect()
    }

    /// The names of the packs that there are records of, the newest first.
    pub(super) fn names_of_packs(&self) -> Result<Vec<String>, StoreError> {
        let files = self.entries(layout::RECORDS)?.into_iter().filter(|entry| entry.kind == EntryKind::File);
        let names = files.filter_map(|entry| layout::name_of_pack(&entry.name).map(str::to_owned));
        Ok(names.collect::<BTreeSet<String>>().into_iter().rev().collect())
    }

    /// The packs of which there is a file in some table, each with the tables that it has files in.
    pub(super) fn files_of_packs(&self) -> Result<BTreeMap<String, Vec<Table>>, StoreError> {
        let mut packs: BTreeMap<String, Vec<Table>> = BTreeMap::new();
        for table in Table::ALL {
            let entries = self.entries(table.directory())?;
            for name in entries.iter().filter_map(|entry| layout::name_of_pack(&entry.name)) {
                packs.entry(name.to_owned()).or_default().push(table);
            }
        }
        Ok(packs)
    }

    /// The pack that a part is of.
    pub(super) fn pack_of(&self, part: &str) -> Result<Arc<Pack>, StoreError> {
        self.pack(layout::name_of_pack(part).unwrap_or_default())
    }

    /// The pack with a name.
    pub(super) fn pack(&self, name: &str) -> Result<Arc<Pack>, StoreError> {
        self.known.pack(name, || match self.read_pack(name) {
            Err(error) if error.is_not_found() => Err(self.is_part_missing(name, error)),
            read => read,
        })
    }

    /// The error of a pack of which a file is not there: where others are, it is damaged.
    fn is_part_missing(&self, name: &str, error: StoreError) -> StoreError {
        let key = |table: Table| layout::pack(table.directory(), name);
        let is_there = |table: &Table| matches!(self.storage.entry(&key(*table)), Ok(Some(_)));
        match [Table::Records, Table::Heads, Table::Steps].into_iter().partition::<Vec<_>, _>(is_there) {
            (there, missing) if !there.is_empty() && !missing.is_empty() => {
                StoreError::damaged(self.storage.place(&key(missing[0])), MISSING)
            }
            _ => error,
        }
    }

    /// A video that is packed, and its pack; `None` if it is in none.
    ///
    /// # Errors
    /// As [`packs`](Self::packs).
    pub(super) fn packed(&self, video_id: &str) -> Result<Option<(Arc<Pack>, PackedVideo)>, StoreError> {
        let found = self.packs()?.into_iter().find_map(|pack| {
            let video = pack.video(video_id)?.clone();
            Some((pack, video))
        });
        Ok(found)
    }

    fn read_pack(&self, name: &str) -> Result<Pack, StoreError> {
        let names = RECORDS_SCHEMA.fields().iter().map(|field| field.name().as_str());
        let columns: Vec<&str> = names.filter(|name| *name != RECORD).collect();
        let key = layout::pack(layout::RECORDS, name);
        let footer = self.footer_of_pack(&key, Table::Records)?;
        let mut videos = Vec::new();
        for group in 0..footer.metadata().num_row_groups() {
            let rows = sealed::row_group(&*self.storage, &key, &footer, group, Some(&columns))?;
            for row in 0..rows.num_rows() {
                let video = PackedVideo::of_record(&rows, row, videos.len());
                let video = video.filter(|video| follows(videos.last(), video));
                let odd = || StoreError::damaged(self.storage.place(&key), "its videos are not one behind the other");
                videos.push(video.ok_or_else(odd)?);
            }
        }
        Ok(Pack { name: name.to_owned(), videos })
    }

    /// What is committed of a packed video.
    pub(super) fn packed_video(&self, pack: &Pack, video: &PackedVideo) -> Result<VideoIndex, StoreError> {
        let steps = self.packed_rows(pack, Table::Steps, &video.steps)?;
        let records = self.packed_rows(pack, Table::Records, &(video.record..video.record + 1))?;
        self.video_of_rows(pack, video, self.steps_of_rows(pack, &steps)?, &records)
    }

    /// All videos of a pack.
    pub(super) fn packed_videos(&self, pack: &Pack) -> Result<Vec<VideoIndex>, StoreError> {
        let rows = pack.videos.last().map_or(0, |last| last.steps.end);
        let steps = self.packed_rows(pack, Table::Steps, &(0..rows))?;
        let records = self.packed_rows(pack, Table::Records, &(0..pack.videos.len()))?;
        let videos = pack.videos.par_chunks(TOGETHER).map(|some| {
            let [first, .., last] = some else {
                return some.iter().map(|video| self.packed_video(pack, video)).collect();
            };
            let steps = steps.slice(first.steps.start, last.steps.end - first.steps.start);
            let mut rows = self.steps_of_rows(pack, &steps)?.into_iter();
            let each = some.iter().map(|video| {
                let own = rows.by_ref().take(video.steps.len()).collect();
                self.video_of_rows(pack, video, own, &records.slice(video.record, 1))
            });
            each.collect()
        });
        Ok(videos.collect::<Result<Vec<Vec<VideoIndex>>, StoreError>>()?.into_iter().flatten().collect())
    }

    fn steps_of_rows(&self, pack: &Pack, rows: &RecordBatch) -> Result<Vec<StepRow>, StoreError> {
        let damaged = |found| StoreError::damaged(self.storage.place(&pack.key(Table::Steps)), found);
        steps_from_batch(rows).map_err(damaged)
    }

    fn video_of_rows(
        &self,
        pack: &Pack,
        video: &PackedVideo,
        rows: Vec<StepRow>,
        records: &RecordBatch,
    ) -> Result<VideoIndex, StoreError> {
        let damaged = |table: Table, found: String| StoreError::damaged(self.storage.place(&pack.key(table)), found);
        let record = self.record_of_rows(pack, records)?;
        let is_other = |row: &&StepRow| row.video_id != video.video_id;
        if let Some(other) = rows.iter().find(is_other).map(|row| &row.video_id) {
            return Err(damaged(Table::Steps, format!("it has rows of {other} where those of {} are", video.video_id)));
        }
        if record.video_id != video.video_id {
            return Err(damaged(Table::Records, format!("the record of {} is of {}", video.video_id, record.video_id)));
        }
        Ok(VideoIndex { generation: video.generation.clone(), record, rows })
    }

    /// What is known of a packed video beside its rows.
    pub(super) fn packed_record(&self, pack: &Pack, video: &PackedVideo) -> Result<VideoRecord, StoreError> {
        let records = self.packed_rows(pack, Table::Records, &(video.record..video.record + 1))?;
        self.record_of_rows(pack, &records)
    }

    fn record_of_rows(&self, pack: &Pack, records: &RecordBatch) -> Result<VideoRecord, StoreError> {
        let damaged = |error| StoreError::damaged(self.storage.place(&pack.key(Table::Records)), error);
        serde_json::from_str(first_record(records)).map_err(damaged)
    }

    /// All that is committed of a packed video, to be written elsewhere.
    pub(super) fn rows_of_packed(&self, pack: &Pack, video: &PackedVideo) -> Result<VideoRows, StoreError> {
        let records = self.packed_rows(pack, Table::Records, &(video.record..video.record + 1))?;
        let steps = self.packed_rows(pack, Table::Steps, &video.steps)?;
        let steps = self.of_one_video(pack, Table::Steps, video, steps)?;
        let heads = self.packed_rows(pack, Table::Heads, &video.heads)?;
        Ok(VideoRows {
            video_id: video.video_id.clone(),
            generation: video.generation.clone(),
            record: first_record(&records).to_owned(),
            steps: with_added(&steps)
                .map_err(|found| StoreError::damaged(self.storage.place(&pack.key(Table::Steps)), found))?,
            heads: vec![self.of_one_video(pack, Table::Heads, video, heads)?],
            text: self.packed_text(pack, video)?,
        })
    }

    /// The statistics of a packed video.
    pub(super) fn packed_heads(&self, pack: &Pack, video: &PackedVideo) -> Result<Heads, StoreError> {
        let rows = self.packed_rows(pack, Table::Heads, &video.heads)?;
        let heads = self.of_one_video(pack, Table::Heads, video, rows)?;
        heads_by_token(&heads).map_err(|found| StoreError::damaged(self.storage.place(&pack.key(Table::Heads)), found))
    }

    /// The rows of `text` of a packed video, if it has any.
    pub(super) fn packed_text(&self, pack: &Pack, video: &PackedVideo) -> Result<Option<RecordBatch>, StoreError> {
        let rows = video.text.as_ref().map(|rows| {
            let rows = self.packed_rows(pack, Table::Text, rows)?;
            self.of_one_video(pack, Table::Text, video, rows)
        });
        rows.transpose()
    }

    fn of_one_video(
        &self,
        pack: &Pack,
        table: Table,
        video: &PackedVideo,
        rows: RecordBatch,
    ) -> Result<RecordBatch, StoreError> {
        let ids = rows.column_by_name("video_id").map(|ids| ids.as_string::<i32>().iter());
        if ids.into_iter().flatten().any(|id| id != Some(&video.video_id)) {
            let found = format!("it has rows of another video where those of {} are", video.video_id);
            return Err(StoreError::damaged(self.storage.place(&pack.key(table)), found));
        }
        Ok(rows)
    }

    /// Rows of a pack. The row groups that were read last are kept.
    fn packed_rows(&self, pack: &Pack, table: Table, rows: &Range<usize>) -> Result<RecordBatch, StoreError> {
        let key = pack.key(table);
        let footer = self.footer_of_pack(&key, table)?;
        let (mut start, mut pieces) = (0, Vec::new());
        for (group, of_group) in footer.metadata().row_groups().iter().enumerate() {
            let end = start + usize::try_from(of_group.num_rows()).unwrap_or(0);
            let (first, last) = (rows.start.max(start), rows.end.min(end));
            if first < last {
                let read = || sealed::row_group(&*self.storage, &key, &footer, group, None);
                let of_group = self.known.rows(&key, group, read)?;
                pieces.push(of_group.slice(first - start, last - first));
            }
            start = end;
        }
        let found: usize = pieces.iter().map(RecordBatch::num_rows).sum();
        if found != rows.len() {
            let found = format!("{start} rows; its videos have rows {} to {}", rows.start, rows.end);
            return Err(StoreError::damaged(self.storage.place(&key), found));
        }
        let schema = pieces.first().map_or_else(|| table.schema(), RecordBatch::schema);
        match <[RecordBatch; 1]>::try_from(pieces) {
            Ok([only]) => Ok(only),
            Err(pieces) => {
                concat_batches(&schema, &pieces).map_err(|error| StoreError::damaged(self.storage.place(&key), error))
            }
        }
    }

    /// The footer of a pack's part, which has the columns of its table.
    fn footer_of_pack(&self, key: &str, table: Table) -> Result<ArrowReaderMetadata, StoreError> {
        let path = self.storage.place(key);
        let Some(entry) = self.storage.entry(key)? else {
            return Err(StoreError::io(&path)(std::io::ErrorKind::NotFound.into()));
        };
        let footer = self.known.check(&*self.storage, key, &entry)?;
        let Some(metadata) = footer.pack else { return Err(StoreError::damaged(&path, "it is no part of a pack")) };
        guarded(&path, || with_columns(&path, metadata, &table.schema()))
    }
}

/// The record of the first of some rows of `records`, as JSON.
fn first_record(rows: &RecordBatch) -> &str {
    rows.column_by_name(RECORD).map_or("", |records| records.as_string::<i32>().value(0))
}

/// Of packs, the newest first, those that have a video which is in a newer one, too.
pub(super) fn with_videos_of_newer(packs: &[Arc<Pack>]) -> Vec<&Pack> {
    let mut seen = HashSet::new();
    let mut older = Vec::new();
    for (at, pack) in packs.iter().enumerate() {
        if at > 0 && pack.videos.iter().any(|video| seen.contains(&*video.video_id)) {
            older.push(&**pack);
        }
        if at + 1 < packs.len() {
            seen.extend(pack.videos.iter().map(|video| &*video.video_id));
        }
    }
    older
}

/// Whether a video comes behind another one, by its id, and its rows behind that one's; or first.
fn follows(before: Option<&PackedVideo>, video: &PackedVideo) -> bool {
    let end = |rows: fn(&PackedVideo) -> &Range<usize>| before.map_or(0, |before| rows(before).end);
    let is_next = |rows: fn(&PackedVideo) -> &Range<usize>| {
        let own = rows(video);
        own.start == end(rows) && own.start <= own.end
    };
    before.is_none_or(|before| before.video_id < video.video_id)
        && is_next(|video| &video.steps)
        && is_next(|video| &video.heads)
        && video.text.as_ref().is_none_or(|rows| rows.start <= rows.end)
}
