//! The store on disk: its paths, arrays, tables, commit protocol, verification and clean-up. `docs/store-format.md` is
//! its specification.
//!
//! ```
//! use attnkit::ingest::{self, IngestOptions};
//! use attnkit::store::Store;
//!
//! let dir = tempfile::tempdir()?;
//! let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/variants/gzip");
//! ingest::run(&[dump], dir.path().join("store"), &IngestOptions::default(), &ingest::Silent)?;
//!
//! let store = Store::open(dir.path().join("store"))?;
//! let video = store.read_video("prompt_000_vid001")?.unwrap();
//! assert_eq!(video.rows.len(), 6); // two words, three steps
//! let attention = store.open_array(&video.rows[0].array)?;
//! assert_eq!(attention.shape(), [3, 6, 4, 576, 1]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arrays;
mod check;
#[cfg(feature = "query")]
mod columns;
mod durable;
mod error;
mod files;
mod gc;
mod layout;
mod lock;
mod names;
mod part;
mod sound;
mod tables;
mod word;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_128;

use crate::dtype::Dtype;
use crate::dump::composed;
use crate::shape::StepShape;
pub use arrays::{ArrayKind, Codec, SeriesLayout, StoredArray};
pub(crate) use arrays::{Coordinates, ShardWriter, has_same_chunking, share_shard, write_documents};
pub use check::Fault;
#[cfg(feature = "query")]
pub(crate) use columns::{PartColumns, joined};
pub use error::StoreError;
pub(crate) use files::remove;
pub use gc::Garbage;
use layout::Layout;
pub(crate) use layout::new_generation;
pub(crate) use lock::WriterLock;
pub use names::{decode_name, encode_name};
pub use part::{Heads, MetadataPatch, Recipe, VideoIndex, VideoRecord};
use sound::KnownParts;
pub use tables::{HeadRow, StepRow, heads_schema, steps_schema};
pub(crate) use tables::{heads_batch, series_of};
pub use word::Elements;

/// How often a reader looks whether a commit that is under way has ended, and what it waits in between.
const COMMIT_ATTEMPTS: usize = 5;
const COMMIT_WAIT: std::time::Duration = std::time::Duration::from_millis(20);

/// What is said of statistics that are not of the commit that the steps are of, and what to do.
pub(crate) const UNFINISHED: &str = "missing, or of another commit than the steps part: a writer was interrupted, or \
    the store was copied while it was written; the next ingest mends it: run the same `attnkit ingest` again";

/// The version of the format that this crate writes and reads.
pub const STORE_VERSION: u64 = 1;

/// A store.
#[derive(Debug, Clone)]
pub struct Store {
    layout: Layout,
    /// Shared by its clones.
    known: Arc<KnownParts>,
    /// Whether nobody else writes, so that locks can be done without.
    is_single_writer: bool,
}

impl Store {
    fn at(path: &Path) -> Self {
        Self { layout: Layout { root: path.to_owned() }, known: Arc::default(), is_single_writer: false }
    }

    /// Opens a store for reading.
    ///
    /// # Errors
    /// If `path` is no store, or one of a version that is not known.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let store = Self::at(path.as_ref());
        store.root_attributes()?;
        store.check_directories()?;
        Ok(store)
    }

    /// The same store for somebody who promises that no other process writes into it: it can be written, and cleaned
    /// up, on file systems without locks as well. Where there are locks, they are taken all the same.
    #[must_use]
    pub fn as_single_writer(self, is_single_writer: bool) -> Self {
        Self { is_single_writer, ..self }
    }

    /// Refuses links and files where the store's own directories should be: whoever reads, writes or cleans up would
    /// leave the store.
    fn check_directories(&self) -> Result<(), StoreError> {
        let layout = &self.layout;
        let index = layout.steps_dir().parent().map(Path::to_owned);
        let dirs =
            [Some(layout.maps()), index, Some(layout.steps_dir()), Some(layout.heads_dir()), Some(layout.writers())];
        for dir in dirs.into_iter().flatten() {
            match fs::symlink_metadata(&dir) {
                Ok(found) if !found.is_dir() => {
                    let kind = if found.is_symlink() { "a link" } else { "a file" };
                    let found =
                        format!("{kind}, where a directory of the store should be; put the directory itself there");
                    return Err(StoreError::damaged(&dir, found));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Opens a store for writing, and creates it if there is nothing at `path`, or an empty directory.
    ///
    /// # Errors
    /// If something else is there, or it cannot be created.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let store = Self::at(path.as_ref());
        let root = store.root();
        if !store.document_path("").exists() {
            durable::create_dir_all(root)?;
            store.check_room()?;
            for dir in [store.layout.maps(), store.layout.steps_dir(), store.layout.heads_dir(), store.layout.writers()]
            {
                durable::create_dir_all(&dir)?;
            }
            ensure_group(&store.layout.maps())?;
            durable::replace(&store.document_path(""), &root_document())?;
        }
        store.root_attributes()?;
        Ok(store)
    }

    /// The store at a path, if there is one, for those who say what they would write; nothing is created.
    ///
    /// # Errors
    /// As [`create`](Self::create), as far as reading tells.
    pub(crate) fn open_or_room_for_one(path: &Path) -> Result<Option<Self>, StoreError> {
        let store = Self::at(path);
        if store.document_path("").exists() {
            return Self::open(path).map(Some);
        }
        if path.exists() {
            store.check_room()?;
        }
        Ok(None)
    }

    /// Refuses a directory with other things in it.
    fn check_room(&self) -> Result<(), StoreError> {
        /// What an interrupted or a concurrent creation leaves is no reason to stop.
        const OURS: [&str; 4] = ["maps", "index", ".writers", "zarr.json"];
        let root = self.root();
        let entries = fs::read_dir(root).map_err(StoreError::io(root))?.flatten().map(|entry| entry.file_name());
        let is_ours =
            |name: &OsStr| OURS.iter().any(|own| name == *own) || name.to_string_lossy().starts_with(".zarr.json.");
        if entries.into_iter().all(|name| is_ours(&name)) {
            return Ok(());
        }
        Err(StoreError::NotAStore { path: root.to_owned(), found: "a directory with other things in it".into() })
    }

    /// Whether there is a store at a path, of whatever version.
    #[must_use]
    pub fn is_at(path: &Path) -> bool {
        let store = Self::at(path);
        // Groups within a store have attributes of ours, too.
        let has_maps = store.layout.maps().is_dir();
        has_maps && !matches!(store.root_attributes(), Err(StoreError::NotAStore { .. } | StoreError::Io { .. }))
    }

    /// Its directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.layout.root
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
    /// If its part is damaged.
    pub fn read_video(&self, video_id: &str) -> Result<Option<VideoIndex>, StoreError> {
        let path = self.layout.steps_part(video_id);
        if !path.exists() {
            return Ok(None);
        }
        match part::read_steps_part(&path)? {
            index if index.record.video_id == video_id => Ok(Some(index)),
            _ => Err(StoreError::damaged(&path, NOT_A_PART)),
        }
    }

    /// Ids of the committed videos by the directory that they were read from. Parts that cannot be read are left out.
    pub(crate) fn sources(&self) -> HashMap<PathBuf, String> {
        let of = |path: &PathBuf| {
            let video = part::read_steps_part(path).ok()?;
            Some((video.source_dir()?.to_owned(), video.record.video_id))
        };
        self.sound_parts().unwrap_or_default().par_iter().filter_map(of).collect()
    }

    /// The spelling of each committed word, by its composed form. Parts that cannot be read are left out.
    pub(crate) fn spellings(&self) -> HashMap<String, String> {
        let words = |path: &PathBuf| -> Vec<String> {
            let rows = part::read_steps_part(path).map(|video| video.rows).unwrap_or_default();
            rows.into_iter().map(|row| row.token).filter(|token| !token.is_ascii()).collect()
        };
        let words = self.sound_parts().unwrap_or_default().par_iter().flat_map_iter(words).collect::<Vec<String>>();
        words.into_iter().map(|token| (composed(&token), token)).collect()
    }

    /// The statistics of a video's maps, as rows of `heads`; `None` if they belong to another commit than its `steps`
    /// (a writer was interrupted; the next ingest mends that) or are not there.
    ///
    /// # Errors
    /// If the part is damaged.
    pub fn read_heads(&self, video: &VideoIndex) -> Result<Option<Heads>, StoreError> {
        let path = self.layout.heads_part(&video.record.video_id);
        if !path.exists() {
            return Ok(None);
        }
        let (generation, heads) = part::read_heads_part(&path)?;
        Ok((generation == video.generation).then_some(heads))
    }

    /// Opens an array by its path below the store, as the column `array` names it.
    ///
    /// # Errors
    /// If it is not there or damaged, or the path leads out of the store.
    pub fn open_array(&self, path: &str) -> Result<StoredArray, StoreError> {
        StoredArray::open(self.root(), &self.inside(path)?)
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
    ) -> Result<StoredArray, StoreError> {
        let path = format!("{series}/{}", kind.name());
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
            return Err(StoreError::damaged(self.root().join(path), found));
        }
        Ok(array)
    }

    /// A path below the store, checked to stay there.
    fn inside(&self, path: &str) -> Result<PathBuf, StoreError> {
        let plain = |part| matches!(part, std::path::Component::Normal(_));
        if Path::new(path).components().all(plain) {
            Ok(self.root().join(path))
        } else {
            Err(StoreError::damaged(self.root(), format!("the path `{path}` leads out of the store")))
        }
    }

    /// Commits a video: both parts become visible, the `steps` part last. All arrays named must be durable already.
    ///
    /// Returns false, and changes nothing, if the committed generation is no longer `base`: another writer was faster.
    pub(crate) fn commit(&self, index: &VideoIndex, heads: &Heads, base: Option<&str>) -> Result<bool, StoreError> {
        let (video, generation) = (&index.record.video_id, &index.generation);
        let (steps_part, heads_part) = (self.layout.steps_part(video), self.layout.heads_part(video));
        let (staged_steps, staged_heads) =
            (self.layout.staged_steps(video, generation), self.layout.staged_heads(video, generation));
        let parquet = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Parquet { path, source }
        };
        part::stage(&staged_heads, &part::heads_part(generation, heads).map_err(parquet(&heads_part))?)?;
        part::stage(&staged_steps, &part::steps_part(index).map_err(parquet(&steps_part))?)?;
        let unstage = || {
            let mut both = [&staged_heads, &staged_steps].into_iter();
            both.try_for_each(|staged| fs::remove_file(staged).map_err(StoreError::io(staged)))
        };
        // What could not be read again would close the store for everybody.
        let read_back = part::check_part(&staged_heads).and_then(|()| part::read_steps_part(&staged_steps));
        match read_back {
            Ok(read) if read.record == index.record && read.rows.len() == index.rows.len() => {}
            other => {
                unstage()?;
                let found = other
                    .err()
                    .map_or_else(|| "it reads otherwise than it was written".to_owned(), |error| error.to_string());
                return Err(StoreError::damaged(&steps_part, format!("cannot be committed: {found}")));
            }
        }
        let _turn = WriterLock::commit(self)?;
        if self.generation(video)?.as_deref() != base {
            unstage()?;
            return Ok(false);
        }
        fs::rename(&staged_heads, &heads_part).map_err(StoreError::io(&heads_part))?;
        durable::sync_dir(&self.layout.heads_dir())?;
        fs::rename(&staged_steps, &steps_part).map_err(StoreError::io(&steps_part))?;
        durable::sync_dir(&self.layout.steps_dir())?;
        Ok(true)
    }

    /// The generation of a video, as far as its part tells it, which may be damaged.
    pub(crate) fn generation(&self, video_id: &str) -> Result<Option<String>, StoreError> {
        match part::part_generation(&self.layout.steps_part(video_id)) {
            Err(StoreError::Damaged { .. } | StoreError::Parquet { .. }) => Ok(None),
            other => other,
        }
    }

    /// Finishes the commit of a video whose writer was interrupted between its two renames, if its staged part is still
    /// there.
    pub(crate) fn mend(&self, video_id: &str) -> Result<(), StoreError> {
        let _turn = WriterLock::commit(self)?;
        let steps_part = self.layout.steps_part(video_id);
        // Statistics that cannot be read are computed anew; nothing can be told from them.
        let Ok(Some(heads)) = part::part_generation(&self.layout.heads_part(video_id)) else { return Ok(()) };
        let staged = self.layout.staged_steps(video_id, &heads);
        if part::check_part(&staged).is_ok() {
            fs::rename(&staged, &steps_part).map_err(StoreError::io(&steps_part))?;
            durable::sync_dir(&self.layout.steps_dir())?;
        }
        Ok(())
    }

    /// Creates a fresh directory for a word's arrays. Returns its path below the store.
    pub(crate) fn new_series(&self, video_id: &str, token: &str) -> Result<String, StoreError> {
        let video = self.layout.video(video_id);
        if fs::symlink_metadata(&video).is_ok_and(|found| !found.is_dir()) {
            return Err(StoreError::damaged(
                &video,
                "a link, where a directory of the store should be; put the directory itself there",
            ));
        }
        ensure_group(&video)?;
        // It may be there already, made by a writer that was interrupted before this.
        durable::sync_dir(&self.layout.maps())?;
        loop {
            let path = self.layout.series(video_id, token, &new_generation());
            match fs::create_dir(self.root().join(&path)) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(StoreError::io(self.root().join(&path))(error)),
                Ok(()) => {
                    durable::sync_dir(&self.layout.video(video_id))?;
                    return Ok(path);
                }
            }
        }
    }

    /// Path of a file below the store, as documents name it.
    pub(crate) fn relative(&self, path: &Path) -> String {
        self.layout.relative(path)
    }

    fn document_path(&self, group: &str) -> PathBuf {
        self.root().join(group).join("zarr.json")
    }

    /// Whether there is an array at a path below the store.
    pub(crate) fn has_array(&self, path: &str) -> bool {
        self.inside(path).is_ok_and(|array| array.join("zarr.json").is_file())
    }

    /// The `heads` part of a video, checked to belong to the same commit as its `steps` part. Waits for a commit that
    /// is under way, and finishes one that was interrupted if the store can be written.
    ///
    /// # Errors
    /// If it does not, or one of them cannot be read.
    pub(crate) fn heads_part(&self, steps_part: &Path) -> Result<PathBuf, StoreError> {
        let heads = self.layout.heads_dir().join(steps_part.file_name().unwrap_or_default());
        for attempt in 0..COMMIT_ATTEMPTS {
            let found = part::part_generation(&heads)?;
            if found.is_some() && found == part::part_generation(steps_part)? {
                return Ok(heads);
            }
            if attempt > 0 {
                std::thread::sleep(COMMIT_WAIT);
            }
            let video = steps_part.file_stem().and_then(|name| decode_name(&name.to_string_lossy()));
            if let Some(video) = video
                && let Err(error) = self.mend(&video)
            {
                tracing::debug!("{error}");
            }
        }
        Err(StoreError::damaged(&heads, UNFINISHED))
    }

    /// The files of the committed `steps` parts, sorted, and files among them whose names are no part's.
    ///
    /// # Errors
    /// If the directory cannot be read.
    fn parts(&self) -> Result<(Vec<PathBuf>, Vec<PathBuf>), StoreError> {
        let dir = self.layout.steps_dir();
        let mut parts = Vec::new();
        for entry in fs::read_dir(&dir).map_err(StoreError::io(&dir))? {
            let path = entry.map_err(StoreError::io(&dir))?.path();
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if !hidden && path.extension().is_some_and(|extension| extension == "parquet") {
                parts.push(path);
            }
        }
        parts.sort();
        let is_part = |path: &PathBuf| path.file_stem().and_then(OsStr::to_str).is_some_and(names::is_encoded);
        Ok(parts.into_iter().partition(is_part))
    }

    /// `attributes.attnkit` of the root group, with the version checked.
    pub(crate) fn root_attributes(&self) -> Result<Value, StoreError> {
        let path = self.document_path("");
        let not_a_store = |found: &str| StoreError::NotAStore { path: self.root().to_owned(), found: found.into() };
        let text = files::read(&path).map_err(|error| match &error {
            StoreError::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound if self.root().exists() => not_a_store("no zarr.json"),
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
            Some(STORE_VERSION) => Ok(attributes.clone()),
            Some(found) => {
                let written_by =
                    attributes.get("attnkit_version").and_then(Value::as_str).unwrap_or("of another version");
                let (path, written_by) = (self.root().to_owned(), written_by.to_owned());
                Err(StoreError::Version { path, found, expected: STORE_VERSION, written_by })
            }
            None => Err(StoreError::damaged(&path, "no store_version")),
        }
    }
}

/// What is wrong with a file among the parts that is of no video, or of another one.
const NOT_A_PART: &str = "its name is no part's (is it a copy of one?), and readers of the directory would read its \
    rows again; move it away";

/// The hash by which a document is known.
pub(crate) fn document_hash(text: &[u8]) -> String {
    format!("{:032x}", xxh3_128(text))
}

/// The root's `zarr.json`, with the checksum over itself.
fn root_document() -> Vec<u8> {
    let attributes = json!({"attnkit": {
        "store_version": STORE_VERSION, "attnkit_version": env!("CARGO_PKG_VERSION"), "checksum": part::NO_CHECKSUM,
    }});
    let text = arrays::to_text(&arrays::group_document(attributes));
    let checksum = document_hash(&text);
    String::from_utf8_lossy(&text).replace(part::NO_CHECKSUM, &checksum).into_bytes()
}

/// Makes a directory a Zarr group without attributes.
fn ensure_group(dir: &Path) -> Result<(), StoreError> {
    durable::create_dir_all(dir)?;
    let document = dir.join("zarr.json");
    if document.exists() { Ok(()) } else { durable::replace(&document, &plain_group()) }
}

/// The `zarr.json` of a group that only holds others.
fn plain_group() -> Vec<u8> {
    arrays::to_text(&arrays::group_document(json!({})))
}
