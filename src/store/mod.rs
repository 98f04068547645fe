//! The store: its arrays, tables, commit protocol, verification and clean-up. `docs/store-format.md` is its
//! specification.
//!
//! A [`Store`] is written; whoever reads takes a [`Snapshot`] of it. Where its files lie, only a
//! [`Storage`] knows.
//!
//! ```
//! use attnkit::ingest::{self, IngestOptions};
//! use attnkit::store::Store;
//!
//! let dir = tempfile::tempdir()?;
//! let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/variants/gzip");
//! ingest::run(&[dump], dir.path().join("store"), &IngestOptions::default(), &ingest::Silent)?;
//!
//! let store = Store::open(dir.path().join("store"))?.snapshot();
//! let video = store.read_video("prompt_000_vid001")?.unwrap();
//! assert_eq!(video.rows.len(), 6); // two words, three steps
//! let attention = store.open_array(&video.rows[0].array)?;
//! assert_eq!(attention.shape(), [3, 6, 4, 576, 1]);
//! # Ok::<(), attnkit::Error>(())
//! ```

mod array;
mod check;
mod codec;
#[cfg(feature = "query")]
mod columns;
mod compact;
mod error;
mod gc;
mod generation;
mod layout;
mod names;
mod pack;
mod part;
mod series;
mod shard;
mod snapshot;
mod sound;
pub mod storage;
mod tables;
mod text;
#[cfg(test)]
mod trial;
mod word;

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_128;

pub use array::StoredArray;
pub use check::Fault;
#[cfg(feature = "query")]
pub(crate) use columns::{PartColumns, joined};
pub use compact::Compaction;
pub use error::StoreError;
pub use gc::Garbage;
pub use generation::Generation;
pub(crate) use layout::{name_of_pack, new_generation, series as series_path};
pub use names::{decode_name, encode_name};
pub(crate) use pack::Salvaged;
use pack::Table;
pub use part::{ArraysRecord, Heads, MetadataPatch, Recipe, VideoIndex, VideoRecord};
pub(crate) use series::Coordinates;
pub use series::{ArrayKind, ChosenCodec, Codec, Rollups, SeriesLayout, has_step_arrays};
pub(crate) use shard::ShardWriter;
pub(crate) use snapshot::Part;
pub use snapshot::Snapshot;
use sound::KnownParts;
use storage::{Entry, EntryKind, Guard, Local, Lock, Storage, join};
pub use tables::{HeadRow, StepRow, heads_schema, steps_schema};
#[cfg(feature = "query")]
pub(crate) use tables::{StepPlace, StoredAs};
pub(crate) use tables::{heads_batch, series_of};
pub use text::{TextRow, text_schema};
pub(crate) use text::{text_after, text_batch, text_contradictions};
pub use word::Elements;

/// What is said of statistics that are not of the commit that the steps are of, and what to do.
pub(crate) const UNFINISHED: &str = "missing, or of another commit than the steps part: a writer was interrupted, or \
    the store was copied while it was written; gc, or the next ingest of the video, finishes it";
/// What is wrong with a file among the parts that is of no video, or of another one.
const NOT_A_PART: &str = "its name is no part's (is it a copy of one?), and readers of the directory would read its \
    rows again; move it away";

/// What is wrong with a part of a video that is packed.
const TWICE: &str = "its video is in a pack, too, and readers of the directory read its rows twice; move it away";

/// What is wrong with a pack that has a video of a newer one.
const PACKED_TWICE: &str = "a newer pack has a video that is in this one, too (was a store copied over another state \
    of it?), and readers of the directory read its rows twice; move its files away";

/// The version of the format that this crate writes and reads.
pub const STORE_VERSION: u64 = 1;

/// A store: what is committed to it, and by which it is written. It is read through a [`Snapshot`].
#[derive(Debug, Clone)]
pub struct Store {
    storage: Arc<dyn Storage>,
    /// Shared by its clones.
    known: Arc<KnownParts>,
}

impl Store {
    /// Opens a store for reading.
    ///
    /// # Errors
    /// If `path` is no store, or one of a version that is not known.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_on(Arc::new(Local::new(path.as_ref())))
    }

    /// Opens a store for reading, wherever its files lie.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_on(storage: Arc<dyn Storage>) -> Result<Self, StoreError> {
        let store = Self::at(storage);
        store.version()?;
        store.check_directories()?;
        Ok(store)
    }

    /// Opens a store for writing, and creates it if there is nothing at `path`, or an empty directory.
    ///
    /// # Errors
    /// If something else is there, or it cannot be created.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::create_on(Arc::new(Local::new(path.as_ref())))
    }

    /// Opens a store for writing, and creates it if there are no files yet.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_on(storage: Arc<dyn Storage>) -> Result<Self, StoreError> {
        let store = Self::at(storage);
        if !store.is_begun()? {
            store.check_room()?;
            for directory in [layout::MAPS, layout::STEPS, layout::HEADS, layout::WRITERS] {
                store.storage.make_directory(directory)?;
            }
            store.storage.flush()?;
            store.storage.put(layout::DOCUMENT, &root_document())?;
        }
        store.version()?;
        Ok(store)
    }

    /// The store at a path, if there is one, for those who say what they would write; nothing is created.
    ///
    /// # Errors
    /// As [`create`](Self::create), as far as reading tells.
    pub(crate) fn open_or_room_for_one(path: &Path) -> Result<Option<Self>, StoreError> {
        let store = Self::at(Arc::new(Local::new(path)));
        if store.is_begun()? {
            return Self::open(path).map(Some);
        }
        store.check_room().map(|()| None)
    }

    /// The same store for somebody who promises that no other process writes into it: it can be written, and cleaned
    /// up, on file systems without locks as well. Where there are locks, they are taken all the same.
    #[must_use]
    pub fn as_single_writer(self, is_single_writer: bool) -> Self {
        Self { storage: self.storage.as_single_writer(is_single_writer), ..self }
    }

    /// Whether there is a store at a path, of whatever version.
    #[must_use]
    pub fn is_at(path: &Path) -> bool {
        let store = Self::at(Arc::new(Local::new(path)));
        // Groups within a store have attributes of ours, too.
        let maps = store.storage.entry(layout::MAPS).ok().flatten();
        maps.is_some_and(|maps| matches!(maps.kind, EntryKind::Directory | EntryKind::Link))
            && !matches!(store.version(), Err(StoreError::NotAStore { .. } | StoreError::Io { .. }))
    }

    /// How messages name it: its directory.
    #[must_use]
    pub fn place(&self) -> PathBuf {
        self.storage.place("")
    }

    /// The files of the index that have been left out so far because they are damaged, each with a line that names it
    /// and says how.
    #[must_use]
    pub fn left_out(&self) -> Vec<(PathBuf, String)> {
        self.known.left_out(&*self.storage)
    }

    /// The version of its format, which is checked to be known.
    ///
    /// # Errors
    /// If it is no store, or one of another version.
    pub fn version(&self) -> Result<u64, StoreError> {
        let path = self.storage.place(layout::DOCUMENT);
        let not_a_store = |found: &str| StoreError::NotAStore { path: self.place(), found: found.into() };
        let text = self.storage.get(layout::DOCUMENT).map_err(|error| match &error {
            StoreError::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound if matches!(self.storage.entry(""), Ok(Some(_))) => {
                    not_a_store("no zarr.json")
                }
                std::io::ErrorKind::NotFound => not_a_store("no such directory"),
                std::io::ErrorKind::NotADirectory => not_a_store("a file"),
                _ => error,
            },
            _ => error,
        })?;
        let document: Value = serde_json::from_slice(&text).map_err(|error| StoreError::damaged(&path, error))?;
        let attributes =
            document.pointer("/attributes/attnkit").ok_or_else(|| not_a_store("a Zarr hierarchy of something else"))?;
        match attributes.get("store_version").and_then(Value::as_u64) {
            Some(STORE_VERSION) => Ok(STORE_VERSION),
            Some(found) => {
                let written_by =
                    attributes.get("attnkit_version").and_then(Value::as_str).unwrap_or("of another version");
                let written_by = written_by.to_owned();
                Err(StoreError::Version { path: self.place(), found, expected: STORE_VERSION, written_by })
            }
            None => Err(StoreError::damaged(&path, "no store_version")),
        }
    }

    /// Writes the parts of a video's commit beside their places. All arrays named must be written already.
    ///
    /// # Errors
    /// If they cannot be written, or could not be read again.
    pub(crate) fn stage(
        &self,
        index: &VideoIndex,
        heads: &Heads,
        text: Option<&RecordBatch>,
        base: Option<&str>,
    ) -> Result<StagedCommit, StoreError> {
        let (storage, video, generation) = (&*self.storage, &index.record.video_id, &index.generation);
        let steps_part = self.steps_key(video);
        let parquet = |key: &str| {
            let path = storage.place(key);
            move |source| StoreError::Parquet { path, source }
        };
        let mut files = Vec::new();
        if let Some(text) = text {
            let contents = part::text_part(generation, text).map_err(parquet(&layout::text_beside(&steps_part)))?;
            files.push((layout::staged_text(video, generation), Table::Text, contents));
        }
        let contents = part::heads_part(generation, heads).map_err(parquet(&layout::heads_beside(&steps_part)))?;
        files.push((layout::staged_heads(video, generation), Table::Heads, contents));
        let contents = part::steps_part(index).map_err(parquet(&steps_part))?;
        files.push((layout::staged_steps(video, generation), Table::Steps, contents));
        for (staged, _, contents) in &files {
            storage.write(staged, contents)?;
        }
        let files = files.into_iter().map(|(staged, table, _)| (staged, table)).collect();
        let staged = StagedCommit { video_id: video.clone(), base: base.map(str::to_owned), files };
        // What could not be read again would close the store for everybody.
        let read_back = staged.files.split_last().map(|(steps, beside)| {
            beside.iter().try_for_each(|(staged, _)| part::check_part(storage, staged).map(drop))?;
            part::read_steps_part(storage, &steps.0)
        });
        match read_back {
            Some(Ok(read)) if read.record == index.record && read.rows.len() == index.rows.len() => Ok(staged),
            Some(Err(error @ StoreError::Io { .. })) => {
                self.unstage(&staged)?;
                Err(error)
            }
            other => {
                self.unstage(&staged)?;
                let found = other
                    .and_then(Result::err)
                    .map_or_else(|| "it reads otherwise than it was written".to_owned(), |error| error.to_string());
                Err(StoreError::damaged(storage.place(&steps_part), format!("cannot be committed: {found}")))
            }
        }
    }

    /// Commits videos: all that was written for them becomes durable, and their parts visible, the `steps` parts last.
    ///
    /// Returns which are committed. Of a video whose committed generation is no longer the staged one's base, nothing
    /// changes: another writer was faster.
    ///
    /// # Errors
    /// If that fails.
    pub(crate) fn publish(&self, commits: &[StagedCommit]) -> Result<Vec<bool>, StoreError> {
        match self.try_publish(commits) {
            // Whoever packed died between two renames; nothing of the commits has come.
            Err(StoreError::NoIndex { .. }) => {
                self.restore_index()?;
                self.try_publish(commits)
            }
            other => other,
        }
    }

    fn try_publish(&self, commits: &[StagedCommit]) -> Result<Vec<bool>, StoreError> {
        // Its rows would be there twice.
        let _unpacked = self.unpack(&commits.iter().map(|commit| &*commit.video_id).collect())?;
        let mut files = |number: usize| {
            let Some(commit) = commits.get(number) else { return Ok(None) };
            if self.index_stamp()?.is_none() {
                return Err(StoreError::NoIndex { path: self.storage.place(layout::INDEX) });
            }
            // Whoever packs may have put an index without it in the place of the present one.
            if commit.has_text() && self.storage.make_directory(layout::TEXT)? {
                self.storage.flush()?;
            }
            // It may have been packed in the meantime.
            let is_unchanged =
                self.packed(&commit.video_id)?.is_none() && self.committed(&commit.video_id)? == commit.base;
            // What it is called may have changed as well.
            let part = self.steps_key(&commit.video_id);
            let to = |table: &Table| join(table.directory(), storage::split(&part).1);
            let files = commit.files.iter().map(|(staged, table)| (staged.clone(), to(table)));
            Ok(is_unchanged.then(|| files.collect()))
        };
        let published = self.storage.publish(commits.len(), &mut files)?;
        for (commit, _) in commits.iter().zip(&published).filter(|(_, published)| !**published) {
            self.unstage(commit)?;
        }
        Ok(published)
    }

    /// Commits a video, as [`stage`](Self::stage) and [`publish`](Self::publish) do.
    #[cfg(test)]
    pub(crate) fn commit(
        &self,
        index: &VideoIndex,
        heads: &Heads,
        text: Option<&RecordBatch>,
        base: Option<&str>,
    ) -> Result<bool, StoreError> {
        let staged = self.stage(index, heads, text, base)?;
        Ok(self.publish(&[staged])? == [true])
    }

    /// Makes durable what was written for a commit that somebody else makes.
    ///
    /// # Errors
    /// If that fails.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        self.storage.flush()
    }

    fn unstage(&self, commit: &StagedCommit) -> Result<(), StoreError> {
        commit.files.iter().try_for_each(|(staged, _)| self.storage.delete(staged))
    }

    /// The commit of a video, as far as its part tells it, which may be damaged.
    pub(crate) fn committed(&self, video_id: &str) -> Result<Option<String>, StoreError> {
        self.of_one_index(|| match part::part_generation(&*self.storage, &self.steps_key(video_id)) {
            Err(StoreError::Damaged { .. } | StoreError::Parquet { .. }) => Ok(None),
            Ok(None) => Ok(self.packed(video_id)?.map(|(_, video)| video.generation)),
            other => other,
        })
    }

    /// What is looked for in more than one file of the index, of one index: packing puts another one in its place.
    pub(crate) fn of_one_index<T>(&self, mut look: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
        /// One index after the other took the place of the present one.
        const ATTEMPTS: u32 = 50;
        const WAIT: std::time::Duration = std::time::Duration::from_millis(2);
        let mut before = self.index_stamp()?;
        for _ in 0..ATTEMPTS {
            let found = before.map(|_| look());
            let after = self.index_stamp()?;
            match found {
                Some(found) if before == after => return found,
                _ => before = after,
            }
            // On file systems that cannot exchange directories, there is none for a moment.
            if before.is_none() {
                std::thread::sleep(WAIT);
            }
        }
        if before.is_none() { Err(StoreError::NoIndex { path: self.storage.place(layout::INDEX) }) } else { look() }
    }

    /// Another one for each index that takes the place of the present one; `None`: there is none.
    fn index_stamp(&self) -> Result<Option<u128>, StoreError> {
        Ok(self.storage.entry(layout::INDEX)?.map(|entry| entry.stamp))
    }

    /// Finishes the commit of a video whose writer was interrupted between its parts, if those that are staged are
    /// still there.
    pub(crate) fn mend(&self, video_id: &str) -> Result<(), StoreError> {
        let (storage, steps_part) = (&*self.storage, self.steps_key(video_id));
        let (heads_part, text_part) = (layout::heads_beside(&steps_part), layout::text_beside(&steps_part));
        // In the order in which they are published: of the first that is new, those behind it may still be staged.
        for published in [&text_part, &heads_part] {
            // Of a part that is damaged, nothing can be told.
            let generation = match part::part_generation(storage, published) {
                Err(StoreError::Damaged { .. } | StoreError::Parquet { .. }) | Ok(None) => continue,
                generation => generation?.unwrap_or_default(),
            };
            let staged_steps = layout::staged_steps(video_id, &generation);
            let staged_heads = layout::staged_heads(video_id, &generation);
            let staged = [(&*staged_heads, &*heads_part), (&*staged_steps, &*steps_part)];
            let staged = if published == &text_part { &staged[..] } else { &staged[1..] };
            let is_staged = |(staged, _): &(&str, &str)| Ok(storage.entry(staged)?.is_some());
            if all(staged.iter().map(is_staged))? {
                let mut if_unfinished = |_| {
                    let now = part::part_generation(storage, published)?;
                    let is_sound = |(staged, _): &(&str, &str)| match part::check_part(storage, staged) {
                        Err(StoreError::Damaged { .. } | StoreError::Parquet { .. }) => Ok(false),
                        // Another writer has finished or removed it.
                        Err(error) if error.is_not_found() => Ok(false),
                        checked => checked.map(|_| true),
                    };
                    // By another name, it is another writer's to finish.
                    let is_it = now.as_ref() == Some(&generation) && self.steps_key(video_id) == steps_part;
                    if !is_it || !all(staged.iter().map(is_sound))? {
                        return Ok(None);
                    }
                    // What a writer gave up may be gone.
                    let rows = part::read_steps_part(storage, &staged_steps)?.rows;
                    let arrays: BTreeSet<&str> = rows.iter().map(|row| row.array.as_str()).collect();
                    let are_there =
                        all(arrays.iter().map(|array| Ok(storage.entry(&layout::document(array))?.is_some())))?;
                    let files = staged.iter().map(|&(from, to)| (from.to_owned(), to.to_owned()));
                    Ok(are_there.then(|| files.collect()))
                };
                return storage.publish(1, &mut if_unfinished).map(drop);
            }
        }
        Ok(())
    }

    /// Announces a writer, as long as the guard lives.
    pub(crate) fn lock_for_writing(&self) -> Result<Guard, StoreError> {
        let guard = self.storage.lock(Lock::Writer)?;
        self.restore_index()?;
        self.check_packs()?;
        Ok(guard)
    }

    /// A fresh place for a word's arrays.
    pub(crate) fn create_generation(&self, video_id: &str, token: &str) -> Result<Generation, StoreError> {
        let video = self.video_key(video_id);
        // By itself, so that no link is followed.
        self.storage.make_directory(&video)?;
        loop {
            let path = layout::series(&video, token, &new_generation());
            if self.storage.make_directory(&path)? {
                return Ok(Generation::new(self.storage.clone(), path));
            }
        }
    }

    /// A place for a word's arrays that whoever writes them has chosen. It may be there already.
    pub(crate) fn ensure_generation(&self, path: &str) -> Result<Generation, StoreError> {
        let generation = self.generation_at(path)?;
        self.storage.make_directory(storage::split(path).0)?;
        self.storage.make_directory(path)?;
        Ok(generation)
    }

    /// Removes arrays that no commit names. What cannot be removed is left to `gc`.
    pub(crate) fn discard(&self, path: &str) {
        if let Ok(generation) = self.generation_at(path) {
            generation.remove();
        }
    }

    /// The arrays of a word, by their directory below the store.
    ///
    /// # Errors
    /// If the path leads out of the store.
    pub(crate) fn generation_at(&self, path: &str) -> Result<Generation, StoreError> {
        self.check_inside(path)?;
        Ok(Generation::new(self.storage.clone(), path.to_owned()))
    }

    /// Whether a video's commit names the arrays that something below the store belongs to.
    fn is_named(&self, path: &str) -> Result<bool, StoreError> {
        let index = self.generation_of_index()?;
        let Some((parts, directory)) = layout::video_of_series(path, index.as_deref()) else { return Ok(true) };
        let video = self.of_one_index(|| match part::read_steps_part(&*self.storage, &self.first_there(&parts)) {
            Err(error) if error.is_not_found() => {
                let is_it = |names: layout::Names| names.now == directory || names.before.as_deref() == Some(directory);
                for pack in self.packs()? {
                    if let Some(video) = pack.videos.iter().find(|video| is_it(layout::video(&video.video_id))) {
                        return self.packed_video(&pack, video).map(Some);
                    }
                }
                Ok(None)
            }
            video => video.map(Some),
        })?;
        let is_below = |row: &StepRow| {
            path.strip_prefix(row.series_path()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        Ok(video.is_some_and(|video| video.rows.iter().any(is_below)))
    }

    fn at(storage: Arc<dyn Storage>) -> Self {
        Self { storage, known: Arc::default() }
    }

    fn is_begun(&self) -> Result<bool, StoreError> {
        Ok(self.storage.entry(layout::DOCUMENT)?.is_some())
    }

    /// Refuses links and files where the store's own directories should be: whoever reads, writes or cleans up would
    /// leave the store.
    fn check_directories(&self) -> Result<(), StoreError> {
        let ours = [layout::MAPS, layout::INDEX, layout::WRITERS, layout::STAGED];
        for directory in ours.into_iter().chain(layout::TABLES) {
            if let Some(odd) = self.storage.entry(directory)?.and_then(|entry| entry.kind.in_place_of_directory()) {
                return Err(StoreError::damaged(self.storage.place(directory), odd));
            }
        }
        Ok(())
    }

    /// Refuses a directory with other things in it.
    fn check_room(&self) -> Result<(), StoreError> {
        /// What an interrupted or a concurrent creation leaves is no reason to stop.
        const OURS: [&str; 5] = [layout::MAPS, layout::INDEX, layout::WRITERS, layout::STAGED, layout::DOCUMENT];
        let entries = match self.storage.list("") {
            Err(error) if error.is_not_found() => return Ok(()),
            other => other?,
        };
        if entries.iter().all(|entry| OURS.contains(&&*entry.name) || entry.name.starts_with(".zarr.json.")) {
            return Ok(());
        }
        Err(StoreError::NotAStore { path: self.place(), found: "a directory with other things in it".into() })
    }

    /// Checks that a path below the store stays there.
    fn check_inside(&self, path: &str) -> Result<(), StoreError> {
        let mut parts = Path::new(path).components();
        // The store itself is no path below it.
        if !path.is_empty() && parts.all(|part| matches!(part, Component::Normal(_))) {
            Ok(())
        } else {
            Err(StoreError::damaged(self.place(), format!("the path `{path}` leads out of the store")))
        }
    }

    /// Where the arrays of a video are.
    pub(crate) fn video_key(&self, video_id: &str) -> String {
        self.named(layout::video(video_id))
    }

    /// Where the rows of a video are.
    pub(crate) fn steps_key(&self, video_id: &str) -> String {
        let index = self.generation_of_index().unwrap_or_default();
        self.first_there(&layout::steps_parts(video_id, index.as_deref()))
    }

    /// The first of the names of a `steps` part under which there is one; else, under which there is one of another
    /// table, which an interrupted commit left; else the first.
    fn first_there(&self, names: &[String]) -> String {
        let is_there = |key: &String| matches!(self.storage.entry(key), Ok(Some(_)));
        let is_beside = |key: &&String| is_there(&layout::heads_beside(key)) || is_there(&layout::text_beside(key));
        let found = match names {
            [only] => Some(only),
            _ => names.iter().find(|key| is_there(key)).or_else(|| names.iter().find(is_beside)),
        };
        found.or(names.first()).cloned().unwrap_or_default()
    }

    /// The generation of the present index, which is in the names of what was there before it; `None` if there is
    /// nothing of that.
    fn generation_of_index(&self) -> Result<Option<String>, StoreError> {
        let Some(before) = self.index_stamp()? else { return Ok(None) };
        if let Some(known) = self.known.index(before) {
            return Ok(known);
        }
        let mut found = None;
        for table in layout::TABLES {
            let entries = self.entries(table)?;
            // A copy of a part of an earlier index is none of this one.
            found = entries.iter().filter_map(|entry| layout::index_of_part(&entry.name)).max().map(str::to_owned);
            if found.is_some() {
                break;
            }
        }
        if self.index_stamp()? == Some(before) {
            self.known.note_index(before, found.clone());
        }
        Ok(found)
    }

    /// Where the statistics of a video are.
    pub(crate) fn heads_key(&self, video_id: &str) -> String {
        layout::heads_beside(&self.steps_key(video_id))
    }

    /// Where what is known of a video's text axis is.
    pub(crate) fn text_key(&self, video_id: &str) -> String {
        layout::text_beside(&self.steps_key(video_id))
    }

    /// The file of `steps` that a video's rows are in: a part of its own, or that of a pack.
    pub(crate) fn steps_file(&self, video_id: &str) -> String {
        self.file_of(Table::Steps, video_id)
    }

    /// The file of `heads` that a video's rows are in.
    pub(crate) fn heads_file(&self, video_id: &str) -> String {
        self.file_of(Table::Heads, video_id)
    }

    /// The file of `text` that a video's rows are in.
    pub(crate) fn text_file(&self, video_id: &str) -> String {
        self.file_of(Table::Text, video_id)
    }

    fn file_of(&self, table: Table, video_id: &str) -> String {
        let own = join(table.directory(), storage::split(&self.steps_key(video_id)).1);
        match (self.storage.entry(&self.steps_key(video_id)), self.packed(video_id)) {
            (Ok(None), Ok(Some((pack, _)))) => pack.key(table),
            _ => own,
        }
    }

    /// Whether anything is known of a video's text axis.
    pub(crate) fn has_text(&self, video_id: &str) -> Result<bool, StoreError> {
        let key = self.text_key(video_id);
        self.of_one_index(|| match self.storage.entry(&key)? {
            Some(_) => Ok(true),
            None => Ok(self.packed(video_id)?.is_some_and(|(_, video)| video.text.is_some())),
        })
    }

    /// What is of a video. Where a store has it under the name that earlier versions gave it, it stays there.
    fn named(&self, layout::Names { now, before }: layout::Names) -> String {
        let is_there = |key: &String| matches!(self.storage.entry(key), Ok(Some(_)));
        before.filter(|before| is_there(before) && !is_there(&now)).unwrap_or(now)
    }

    /// What is in a directory of the store; nothing, if there is none.
    fn entries(&self, directory: &str) -> Result<Vec<Entry>, StoreError> {
        match self.storage.list(directory) {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            entries => entries,
        }
    }

    /// The files among the `steps` parts.
    fn part_files(&self) -> Result<PartFiles, StoreError> {
        let mut files = PartFiles::default();
        for entry in self.storage.list(layout::STEPS)? {
            let key = join(layout::STEPS, &entry.name);
            match entry.name.strip_suffix(".parquet") {
                Some(_) if layout::video_of_part(&key).is_some() => files.parts.push((key, entry)),
                Some(_) if layout::name_of_pack(&key).is_some() => files.packs.push((key, entry)),
                Some(name) if !name.starts_with('.') => files.strays.push(key),
                _ => {}
            }
        }
        files.parts.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(files)
    }
}

/// The parts of a video's commit, beside their places.
#[derive(Debug)]
pub(crate) struct StagedCommit {
    video_id: String,
    /// The generation that it replaces.
    base: Option<String>,
    /// Where each is, and which table it is a part of, in the order in which they become visible.
    files: Vec<(String, Table)>,
}

impl StagedCommit {
    fn has_text(&self) -> bool {
        self.files.iter().any(|(_, table)| *table == Table::Text)
    }
}

/// What is in the directory of the `steps` parts, but for what is hidden.
#[derive(Default)]
struct PartFiles {
    /// The committed parts of single videos, by their keys, sorted.
    parts: Vec<(String, Entry)>,
    /// Those of packs.
    packs: Vec<(String, Entry)>,
    /// Files whose names are no part's.
    strays: Vec<String>,
}

/// Whether all answers are yes; all are asked until one cannot be told.
fn all(answers: impl IntoIterator<Item = Result<bool, StoreError>>) -> Result<bool, StoreError> {
    Ok(!answers.into_iter().collect::<Result<Vec<bool>, StoreError>>()?.contains(&false))
}

/// The hash by which a document is known.
pub(crate) fn document_hash(text: &[u8]) -> String {
    format!("{:032x}", xxh3_128(text))
}

/// The root's `zarr.json`, with the checksum over itself.
fn root_document() -> Vec<u8> {
    let attributes = json!({"attnkit": {
        "store_version": STORE_VERSION, "attnkit_version": env!("CARGO_PKG_VERSION"), "checksum": part::NO_CHECKSUM,
    }});
    let text = series::to_text(&series::group_document(attributes));
    let checksum = document_hash(&text);
    String::from_utf8_lossy(&text).replace(part::NO_CHECKSUM, &checksum).into_bytes()
}
