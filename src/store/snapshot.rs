//! One consistent state of a store, for whoever reads: the commits that it has seen stay the ones it is about. It never
//! writes. What is gone since, because a video was committed anew, is [`StoreError::MovedOn`], never a hole.

#[cfg(feature = "query")]
use std::collections::BTreeSet;
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use arrow::array::RecordBatch;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use rayon::prelude::*;

use super::pack::{MISSING, Table, with_videos_of_newer};
use super::part::{self, Heads, PartFooter, VideoIndex};
use super::sound::lock;
use super::storage::{Entry, Storage, join};
use super::{
    ArrayKind, Generation, NOT_A_PART, PACKED_TWICE, PartFiles, Store, StoreError, StoredArray, TWICE, UNFINISHED,
    layout,
};
use crate::dtype::Dtype;
use crate::dump::composed;
use crate::shape::StepShape;

/// How often it is looked whether a commit that is under way has ended, and what is waited in between.
const COMMIT_ATTEMPTS: u32 = 6;
/// For the first time: it is doubled from time to time, to half a second in all.
const COMMIT_WAIT: std::time::Duration = std::time::Duration::from_millis(20);
/// How often what is read is begun anew because a video was committed anew meanwhile.
const READ_ATTEMPTS: usize = 10;
/// Arrays that stay open.
const OPEN_ARRAYS: usize = 32;

/// Open arrays by their paths, the newest first.
type OpenArrays = VecDeque<(String, Arc<StoredArray>)>;

/// A consistent state of a store. Cheap to clone; its clones are the same state.
///
/// What is looked at is pinned when it is looked at first: of each video, everything that is read is of one commit.
#[derive(Debug, Clone)]
pub struct Snapshot {
    store: Store,
    pinned: Arc<Mutex<Pinned>>,
    /// The arrays that were opened last.
    arrays: Arc<Mutex<OpenArrays>>,
}

#[derive(Debug, Default)]
struct Pinned {
    /// The commit of each video's `steps` part, by its key.
    commits: HashMap<String, String>,
    /// The sound `steps` parts, once they were looked for.
    parts: Option<Arc<[Part]>>,
    /// What was found to be committed anew.
    moved_on: Option<PathBuf>,
}

/// A part of a table, as a snapshot has pinned it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    /// Its file.
    pub key: String,
    /// The commit that it is of.
    pub generation: String,
    /// The first video that it has rows of, as far as that is known: in this order, parts are read.
    pub first: String,
    /// Bytes of what is meant of its file.
    pub bytes: u64,
    /// The footer, if it is a pack's: of many videos.
    pub pack: Option<Arc<ParquetMetaData>>,
    /// The row group that is meant, of a pack; `None`: all.
    pub group: Option<usize>,
}

impl Part {
    fn new(key: String, footer: PartFooter, bytes: u64) -> Self {
        let PartFooter { generation, video_id, pack } = footer;
        let first = video_id.or_else(|| first_of(pack.as_ref()?.row_groups().first()?)).unwrap_or_default();
        Self { key, generation, first, bytes, pack, group: None }
    }

    /// The row groups of a pack, each by itself; another part as it is.
    #[cfg(feature = "query")]
    pub fn by_row_groups(self) -> Vec<Self> {
        let Some(pack) = &self.pack else { return vec![self] };
        let groups = pack.row_groups().iter().enumerate();
        let one = |(group, of_group): (usize, &RowGroupMetaData)| Self {
            bytes: u64::try_from(of_group.compressed_size()).unwrap_or(0),
            first: first_of(of_group).unwrap_or_default(),
            group: Some(group),
            ..self.clone()
        };
        groups.map(one).collect()
    }
}

/// The first video of a row group, by its statistics: `video_id` is the first column of each table.
fn first_of(group: &RowGroupMetaData) -> Option<String> {
    let least = group.columns().first()?.statistics()?.min_bytes_opt()?;
    Some(String::from_utf8_lossy(least).into_owned())
}

impl Store {
    /// Its state from now on: nothing is read yet.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { store: self.clone(), pinned: Arc::default(), arrays: Arc::default() }
    }

    /// What is read of one consistent state, and that state. Where a video was committed anew while it was read, it is
    /// read again, of the state that is there now.
    pub(crate) fn of_one_state<T, E: From<StoreError>>(
        &self,
        mut read: impl FnMut(&Snapshot) -> Result<T, E>,
    ) -> Result<(T, Snapshot), E> {
        let mut attempts = 1;
        loop {
            let snapshot = self.snapshot();
            match read(&snapshot).map_err(|error| (error, snapshot.moved_on())) {
                Ok(read) => return Ok((read, snapshot)),
                Err((_, Some(moved_on))) if attempts == READ_ATTEMPTS => return Err(moved_on.into()),
                Err((_, Some(_))) => attempts += 1,
                Err((error, None)) => return Err(error),
            }
        }
    }
}

impl Snapshot {
    /// The store.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Ids of the committed videos, sorted.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn videos(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.read_index()?.into_iter().map(|index| index.record.video_id).collect())
    }

    /// The committed state of a video; `None` if there is no such video.
    ///
    /// # Errors
    /// If its part is damaged, or the store has moved on.
    pub fn read_video(&self, video_id: &str) -> Result<Option<VideoIndex>, StoreError> {
        let key = self.store.steps_key(video_id);
        let found = self.store.of_one_index(|| match part::read_steps_part(self.storage(), &key) {
            Err(error) if error.is_not_found() => match self.store.packed(video_id)? {
                Some((pack, video)) => self.store.packed_video(&pack, &video).map(Some),
                None => Ok(None),
            },
            found => found.map(Some),
        })?;
        match found {
            Some(index) if index.record.video_id == video_id => {
                self.pin(&key, &index.generation)?;
                Ok(Some(index))
            }
            Some(_) => Err(StoreError::damaged(self.storage().place(&key), NOT_A_PART)),
            None if self.pinned().commits.contains_key(&key) => Err(self.has_moved_on(&key)),
            None => Ok(None),
        }
    }

    /// What was found to be committed anew since this state: whoever asks again is told of another one.
    #[must_use]
    pub fn moved_on(&self) -> Option<StoreError> {
        self.pinned().moved_on.clone().map(|path| StoreError::MovedOn { path })
    }

    /// The committed state of all videos whose parts are sound, sorted by id.
    ///
    /// # Errors
    /// If the index cannot be read, or the store has moved on.
    pub fn read_index(&self) -> Result<Vec<VideoIndex>, StoreError> {
        let known_parts = self.pinned().parts.clone();
        let mut index: Vec<VideoIndex> = if let Some(parts) = known_parts {
            let read = parts.par_iter().filter_map(|part| {
                let videos = self.read_steps_of(part).map_err(|error| self.if_gone(&part.key, error));
                self.store.known.note(self.storage(), &part.key, videos).transpose()
            });
            read.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect()
        } else {
            // Each part is opened once: what is checked is what is read.
            let read = self.sound_parts(|key, entry| {
                if layout::name_of_pack(key).is_some() {
                    let footer = self.store.known.check(self.storage(), key, entry)?;
                    let videos = self.read_pack(key)?;
                    return Ok((footer, videos));
                }
                let video = part::read_sound_steps_part(self.storage(), key)?;
                let video_id = Some(video.record.video_id.clone());
                Ok((PartFooter { generation: video.generation.clone(), video_id, pack: None }, vec![video]))
            })?;
            let (parts, videos): (Vec<Part>, Vec<Vec<VideoIndex>>) = read.into_iter().unzip();
            self.pin_parts(parts.into())?;
            videos.into_iter().flatten().collect()
        };
        index.sort_by(|a, b| a.record.video_id.cmp(&b.record.video_id));
        Ok(index)
    }

    /// The statistics of a video's maps, as rows of `heads`; `None` if they belong to another commit than its `steps`
    /// (a writer was interrupted; the next ingest mends that) or are not there.
    ///
    /// # Errors
    /// If the part is damaged.
    pub fn read_heads(&self, video: &VideoIndex) -> Result<Option<Heads>, StoreError> {
        let video_id = &video.record.video_id;
        let key = self.store.heads_key(video_id);
        self.store.of_one_index(|| match part::read_heads_part(self.storage(), &key) {
            Ok((generation, heads)) => Ok((generation == video.generation).then_some(heads)),
            Err(error) if error.is_not_found() => match self.store.packed(video_id)? {
                Some((pack, packed)) if packed.generation == video.generation => {
                    self.store.packed_heads(&pack, &packed).map(Some)
                }
                _ => Ok(None),
            },
            Err(error) => Err(error),
        })
    }

    /// The rows of `text` of a video, and the commit that they are of; `None` if it has none.
    ///
    /// # Errors
    /// If the part is damaged.
    pub(crate) fn read_text(&self, video_id: &str) -> Result<Option<(String, RecordBatch)>, StoreError> {
        let lost = |path, found: &dyn std::fmt::Display| {
            let found = format!("{found}; its rows cannot be computed anew: move the file away to go on without them");
            Err(StoreError::damaged(path, found))
        };
        let key = self.store.text_key(video_id);
        let read = self.store.of_one_index(|| match part::read_text_part(self.storage(), &key) {
            Err(error) if error.is_not_found() => {
                let Some((pack, video)) = self.store.packed(video_id)? else { return Ok(None) };
                Ok(self.store.packed_text(&pack, &video)?.map(|text| (video.generation, text)))
            }
            other => other.map(Some),
        });
        match read {
            Err(StoreError::Damaged { path, found }) => lost(path, &found),
            Err(StoreError::Parquet { path, source }) => lost(path, &source),
            other => other,
        }
    }

    /// The sound `steps` parts, sorted by name.
    ///
    /// # Errors
    /// If they cannot be looked for, or the store has moved on.
    pub(crate) fn parts(&self) -> Result<Arc<[Part]>, StoreError> {
        if let Some(parts) = &self.pinned().parts {
            return Ok(parts.clone());
        }
        let known = &self.store.known;
        let checked = self.sound_parts(|key, entry| Ok((known.check(self.storage(), key, entry)?, ())))?;
        self.pin_parts(checked.into_iter().map(|(part, ())| part).collect())
    }

    /// The parts of these videos that are sound; of those that there are. Where they are packed, the packs.
    ///
    /// # Errors
    /// If they cannot be looked for, or the store has moved on.
    #[cfg(feature = "query")]
    pub(crate) fn parts_of(&self, videos: &BTreeSet<String>) -> Result<Vec<Part>, StoreError> {
        let parts = self.store.of_one_index(|| {
            let mut keys = BTreeSet::new();
            for video in videos {
                let key = self.store.steps_key(video);
                if self.storage().entry(&key)?.is_some() {
                    keys.insert(key);
                } else {
                    keys.extend(self.store.packed(video)?.map(|(pack, _)| pack.key(Table::Steps)));
                }
            }
            let mut parts = Vec::new();
            for key in keys {
                let Some(entry) = self.storage().entry(&key)? else { continue };
                let footer = self.store.known.check(self.storage(), &key, &entry);
                parts.extend(self.sound_part(key, &entry, footer.map(|footer| (footer, ())))?.map(|(part, ())| part));
            }
            Ok(parts)
        })?;
        parts.iter().try_for_each(|part| self.pin(&part.key, &part.generation))?;
        Ok(parts)
    }

    /// All `steps` parts that are sound, sorted by name, packs last, each with what is read of it beside its footer.
    fn sound_parts<T: Send>(
        &self,
        read: impl Fn(&str, &Entry) -> Result<(PartFooter, T), StoreError> + Sync,
    ) -> Result<Vec<(Part, T)>, StoreError> {
        let (storage, known) = (self.storage(), &self.store.known);
        let PartFiles { mut parts, packs: of_packs, strays } = self.store.of_one_index(|| self.store.part_files())?;
        for key in strays {
            let odd = StoreError::damaged(storage.place(&key), NOT_A_PART);
            known.note::<()>(storage, &key, Err(odd))?;
        }
        let names = self.store.of_one_index(|| self.store.names_of_packs())?;
        for name in &names {
            let key = layout::pack(layout::STEPS, name);
            if !of_packs.iter().any(|(part, _)| *part == key) && storage.entry(&key)?.is_none() {
                known.note::<()>(storage, &key, Err(StoreError::damaged(storage.place(&key), MISSING)))?;
            }
        }
        // What is in a pack alone is there once. Of packs that cannot be read, that is said when they are.
        let is_alone = names.is_empty() || parts.is_empty() && names.len() == 1;
        let packs = if is_alone { Ok(Vec::new()) } else { self.store.of_one_index(|| self.store.packs()) };
        let packs = packs.unwrap_or_default();
        let older: Vec<String> = with_videos_of_newer(&packs).iter().map(|pack| pack.key(Table::Steps)).collect();
        parts.extend(of_packs);
        let is_packed = |video: &String| packs.iter().any(|pack| pack.video(video).is_some());
        let sound = parts.into_par_iter().filter_map(|(key, entry)| {
            let read = read(&key, &entry).and_then(|(footer, read)| match &footer.video_id {
                Some(video) if is_packed(video) => Err(StoreError::damaged(storage.place(&key), TWICE)),
                _ if older.contains(&key) => Err(StoreError::damaged(storage.place(&key), PACKED_TWICE)),
                _ => Ok((footer, read)),
            });
            self.sound_part(key, &entry, read).transpose()
        });
        sound.collect()
    }

    /// A part with what was read of it, unless it is damaged, which is noted.
    fn sound_part<T>(
        &self,
        key: String,
        entry: &Entry,
        read: Result<(PartFooter, T), StoreError>,
    ) -> Result<Option<(Part, T)>, StoreError> {
        let read = read.map_err(|error| self.if_gone(&key, error)).and_then(|(footer, read)| match &footer.video_id {
            // Of a copy under another name, all rows would be there twice.
            Some(video) if self.store.steps_key(video) != key => {
                Err(StoreError::damaged(self.storage().place(&key), NOT_A_PART))
            }
            _ => Ok((Part::new(key.clone(), footer, entry.bytes), read)),
        });
        self.store.known.note(self.storage(), &key, read)
    }

    /// The videos of a `steps` part, as they are pinned.
    fn read_steps_of(&self, part: &Part) -> Result<Vec<VideoIndex>, StoreError> {
        if part.pack.is_some() { self.read_pack(&part.key) } else { Ok(vec![self.read_steps(&part.key)?]) }
    }

    /// The videos of a pack, as they are pinned.
    fn read_pack(&self, part: &str) -> Result<Vec<VideoIndex>, StoreError> {
        let videos = self.store.packed_videos(&*self.store.pack_of(part)?)?;
        for video in &videos {
            self.pin(&self.store.steps_key(&video.record.video_id), &video.generation)?;
        }
        Ok(videos)
    }

    fn pin_parts(&self, parts: Arc<[Part]>) -> Result<Arc<[Part]>, StoreError> {
        for part in &*parts {
            self.pin(&part.key, &part.generation)?;
        }
        Ok(self.pinned().parts.get_or_insert(parts).clone())
    }

    /// The sound `heads` parts of the commits that some `steps` parts are of.
    ///
    /// # Errors
    /// If they cannot be looked for, or the store has moved on.
    pub(crate) fn heads_of(&self, parts: &[Part]) -> Result<Vec<Part>, StoreError> {
        let sound = parts.par_iter().filter_map(|steps| {
            let key = layout::heads_beside(&steps.key);
            self.store.known.note(self.storage(), &key, self.part_beside(steps, &key)).transpose()
        });
        sound.collect()
    }

    /// The sound `text` parts of the commits that some `steps` parts are of; not every video has one.
    ///
    /// # Errors
    /// As [`heads_of`](Self::heads_of).
    #[cfg(feature = "query")]
    pub(crate) fn text_of(&self, parts: &[Part]) -> Result<Vec<Part>, StoreError> {
        let sound = parts.par_iter().filter_map(|steps| {
            let key = layout::text_beside(&steps.key);
            let has_text = || steps.pack.is_some() && self.store.pack_of(&steps.key).is_ok_and(|pack| pack.has_text());
            let part = match self.storage().entry(&key) {
                Ok(None) if has_text() => Err(StoreError::damaged(self.storage().place(&key), MISSING)),
                Ok(None) => return None,
                Ok(Some(_)) => self.part_beside(steps, &key),
                Err(error) => Err(error),
            };
            self.store.known.note(self.storage(), &key, part).transpose()
        });
        sound.collect()
    }

    /// The part of another table of the commit that a `steps` part is of. Waits for a commit that is under way.
    fn part_beside(&self, steps: &Part, key: &str) -> Result<Part, StoreError> {
        let storage = self.storage();
        for attempt in 0..COMMIT_ATTEMPTS {
            if attempt > 0 {
                std::thread::sleep(COMMIT_WAIT * 2_u32.pow(attempt - 1));
            }
            let found = match storage.entry(key)? {
                Some(entry) => match self.store.known.check(storage, key, &entry) {
                    Err(error) if error.is_not_found() => None,
                    footer => Some((footer?, entry.bytes)),
                },
                None => None,
            };
            match found {
                Some((footer, bytes)) if footer.generation == steps.generation => {
                    let part = Part::new(key.to_owned(), footer, bytes);
                    return Ok(if part.pack.is_some() { part } else { Part { first: steps.first.clone(), ..part } });
                }
                _ if part::part_generation(storage, &steps.key)?.as_ref() != Some(&steps.generation) => {
                    return Err(self.has_moved_on(&steps.key));
                }
                _ => {}
            }
        }
        let found = if steps.pack.is_some() { MISSING } else { UNFINISHED };
        Err(StoreError::damaged(storage.place(key), found))
    }

    /// Opens a part of a table with these columns, to read some of them.
    ///
    /// # Errors
    /// If it cannot be opened, has other columns, or the store has moved on.
    #[cfg(feature = "query")]
    pub(crate) fn columns(
        &self,
        part: &Part,
        table: &arrow::datatypes::Schema,
    ) -> Result<super::PartColumns, StoreError> {
        let columns = super::PartColumns::open(self.storage(), part, table);
        match columns.map_err(|error| self.if_gone(&part.key, error))? {
            columns if columns.generation().as_ref() == Some(&part.generation) => Ok(columns),
            _ => Err(self.has_moved_on(&part.key)),
        }
    }

    /// Opens an array by its path below the store, as the column `array` names it. The last ones stay open.
    ///
    /// # Errors
    /// If it is not there or damaged, the path leads out of the store, or the store has moved on.
    pub fn open_array(&self, path: &str) -> Result<Arc<StoredArray>, StoreError> {
        self.store.check_inside(path)?;
        if let Some((_, open)) = lock(&self.arrays).iter().find(|(own, _)| own == path) {
            return Ok(open.clone());
        }
        let array = Arc::new(StoredArray::open(self.store.storage.clone(), path)?);
        let mut arrays = lock(&self.arrays);
        arrays.truncate(OPEN_ARRAYS - 1);
        arrays.push_front((path.to_owned(), array.clone()));
        Ok(array)
    }

    /// Opens an array of a word below `series`, and checks that it has steps of the shape and type that the word's rows
    /// say.
    ///
    /// # Errors
    /// As [`open_array`](Self::open_array), or if it has others.
    pub(crate) fn open_series(
        &self,
        series: &str,
        kind: ArrayKind,
        shape: StepShape,
        dtype: Dtype,
    ) -> Result<Arc<StoredArray>, StoreError> {
        let path = join(series, kind.name());
        let array = self.open_array(&path)?;
        let dtype = kind.dtype(dtype);
        let expected: Vec<u64> = kind.step_axes(shape).iter().map(|&axis| axis as u64).collect();
        let found = array.shape();
        if found.get(1..) != Some(&expected) || array.dtype() != dtype.name() {
            let found = format!(
                "its steps are {} {:?}; the table `steps` says {dtype} {expected:?}",
                array.dtype(),
                found.get(1..).unwrap_or_default()
            );
            return Err(StoreError::damaged(self.storage().place(&path), found));
        }
        Ok(array)
    }

    /// Whether there is an array at a path below the store.
    pub(crate) fn has_array(&self, path: &str) -> bool {
        let is_there = || self.storage().entry(&layout::document(path)).is_ok_and(|entry| entry.is_some());
        self.store.check_inside(path).is_ok() && is_there()
    }

    /// The arrays of a word, by their directory below the store.
    ///
    /// # Errors
    /// If the path leads out of the store.
    pub fn generation(&self, path: &str) -> Result<Generation, StoreError> {
        self.store.generation_at(path)
    }

    /// The files of the index that have been left out so far because they are damaged, each with a line that names it
    /// and says how.
    #[must_use]
    pub fn left_out(&self) -> Vec<(PathBuf, String)> {
        self.store.left_out()
    }

    /// Ids of the committed videos by the directory that they were read from. Parts that cannot be read are left out.
    ///
    /// # Errors
    /// If they cannot be looked for.
    pub(crate) fn sources(&self) -> Result<HashMap<PathBuf, String>, StoreError> {
        let of = |video: VideoIndex| Some((video.source_dir()?.to_owned(), video.record.video_id));
        Ok(self.readable()?.into_iter().filter_map(of).collect())
    }

    /// The spelling of each committed word, by its composed form. Parts that cannot be read are left out.
    ///
    /// # Errors
    /// If they cannot be looked for.
    pub(crate) fn spellings(&self) -> Result<HashMap<String, String>, StoreError> {
        let rows = self.readable()?.into_iter().flat_map(|video| video.rows);
        let words = rows.map(|row| row.token).filter(|token| !token.is_ascii());
        Ok(words.map(|token| (composed(&token), token)).collect())
    }

    /// The videos whose parts can be read, each as it is committed now.
    pub(super) fn readable(&self) -> Result<Vec<VideoIndex>, StoreError> {
        let parts = self.parts()?;
        let read = parts.par_iter().filter_map(|part| match &part.pack {
            Some(_) => self.store.packed_videos(&*self.store.pack(&part.generation).ok()?).ok(),
            None => Some(vec![part::read_steps_part(self.storage(), &part.key).ok()?]),
        });
        Ok(read.flatten().collect())
    }

    /// Reads a `steps` part of the commit that is pinned, or pins it.
    pub(super) fn read_steps(&self, key: &str) -> Result<VideoIndex, StoreError> {
        let video = part::read_steps_part(self.storage(), key)?;
        self.pin(key, &video.generation)?;
        Ok(video)
    }

    /// Pins the commit of a `steps` part, if none is.
    fn pin(&self, key: &str, generation: &str) -> Result<(), StoreError> {
        let mut pinned = self.pinned();
        let is_pinned = pinned.commits.entry(key.to_owned()).or_insert_with(|| generation.to_owned()) == generation;
        drop(pinned);
        if is_pinned { Ok(()) } else { Err(self.has_moved_on(key)) }
    }

    /// Where a part is gone that was there, the store has moved on.
    fn if_gone(&self, key: &str, error: StoreError) -> StoreError {
        if error.is_not_found() { self.has_moved_on(key) } else { error }
    }

    fn has_moved_on(&self, key: &str) -> StoreError {
        let path = self.storage().place(key);
        self.pinned().moved_on.get_or_insert_with(|| path.clone());
        StoreError::MovedOn { path }
    }

    pub(super) fn storage(&self) -> &dyn Storage {
        &*self.store.storage
    }

    fn pinned(&self) -> MutexGuard<'_, Pinned> {
        lock(&self.pinned)
    }
}
