//! Checks of the files that are not arrays: documents and parts against their hashes; and what of them can be written
//! anew from nothing.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::pack::{MISSING, Table, check_chunks, with_videos_of_newer};
use super::storage::{Local, Storage};
use super::{
    NOT_A_PART, PACKED_TWICE, PartFiles, Snapshot, StepRow, Store, StoreError, TWICE, UNFINISHED, VideoIndex,
    decode_name, document_hash, layout, part, root_document,
};

/// Something in a store that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fault {
    /// The video, if it is of one.
    pub video_id: Option<String>,
    /// The word, if it is of one.
    pub token: Option<String>,
    /// The step, if it is of one.
    pub step: Option<i32>,
    /// The file or array, below the store (or a file of the dump).
    pub path: String,
    /// What was found and what was expected.
    pub error: String,
    /// Whether it is the dump that is not as it was when it was ingested, not the store.
    pub in_dump: bool,
}

impl Fault {
    /// Whether it is a commit that was not finished: the next ingest does.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.error == UNFINISHED
    }

    /// Of a video whose rows were in a pack that was damaged, and are in the store no more.
    pub(crate) fn of_lost_video(video_id: &str, path: &str) -> Self {
        let error = "it has arrays that no commit names, and its rows may be in a damaged pack, whose files are here \
            now; ingest it again, or remove this directory and what `gc` finds then";
        Self { video_id: Some(video_id.to_owned()), ..Self::of(path, error) }
    }

    /// Whether it is of such a video.
    pub(crate) fn is_of_lost_video(&self) -> bool {
        self.path == layout::DAMAGED
    }

    fn of(path: &str, error: impl ToString) -> Self {
        let (path, error) = (path.to_owned(), error.to_string());
        Self { video_id: None, token: None, step: None, path, error, in_dump: false }
    }
}

impl Store {
    /// Opens a store, having written its root's document anew if that is damaged: the fault that was.
    pub(crate) fn open_to_mend(path: &Path) -> Result<(Self, Option<Fault>), StoreError> {
        let storage: Arc<dyn Storage> = Arc::new(Local::new(path));
        let has_tables = [layout::STEPS, layout::HEADS].iter().all(|table| storage.list(table).is_ok());
        let fault = check_root(&*storage).filter(|_| has_tables);
        if fault.is_some() {
            Self::at(storage.clone()).check_directories()?;
            storage.put(layout::DOCUMENT, &root_document())?;
        }
        Ok((Self::open_on(storage)?, fault))
    }
}

impl Snapshot {
    /// All parts that can be read, and what is wrong with parts.
    pub(crate) fn read_index_and_faults(&self) -> Result<(Vec<VideoIndex>, Vec<Fault>), StoreError> {
        let PartFiles { parts, strays, .. } = self.store().part_files()?;
        let mut index = Vec::new();
        let mut faults: Vec<Fault> = strays.iter().map(|key| Fault::of(key, NOT_A_PART)).collect();
        // Each is known by any of its files.
        let mut sound = Vec::new();
        for name in self.store().files_of_packs()?.into_keys().rev() {
            match self.check_pack(&name, &mut faults) {
                Ok(videos) => {
                    index.extend(videos);
                    sound.push(self.store().pack(&name)?);
                }
                Err(_) if faults.iter().any(|fault| layout::name_of_pack(&fault.path) == Some(&name)) => {}
                Err(error) => faults.push(Fault::of(&layout::pack(layout::STEPS, &name), error)),
            }
        }
        let older = with_videos_of_newer(&sound);
        faults.extend(older.into_iter().map(|pack| Fault::of(&pack.key(Table::Steps), PACKED_TWICE)));
        let packed: HashSet<String> = index.iter().map(|video| video.record.video_id.clone()).collect();
        let read: Vec<_> = parts.into_par_iter().map(|(key, _)| (self.read_steps(&key), key)).collect();
        for (video, key) in read {
            let error = match video {
                Ok(video) if packed.contains(&video.record.video_id) => TWICE.to_owned(),
                Ok(video) if self.store().steps_key(&video.record.video_id) == key => {
                    index.push(video);
                    continue;
                }
                Ok(_) => NOT_A_PART.to_owned(),
                Err(error) => error.to_string(),
            };
            // Of which video it should be, only its name still says.
            faults.push(Fault { video_id: video_of(&key), ..Fault::of(&key, error) });
        }
        let lost = self.store().lost_videos()?;
        faults.extend(lost.iter().map(|video| Fault::of_lost_video(video, layout::DAMAGED)));
        Ok((index, faults))
    }

    /// The videos of a pack, and what is wrong with its files.
    fn check_pack(&self, name: &str, faults: &mut Vec<Fault>) -> Result<Vec<VideoIndex>, StoreError> {
        let store = self.store();
        let of_file = |table: Table| {
            let key = layout::pack(table.directory(), name);
            let Some(footer) = part::check_part(self.storage(), &key)?.pack else { return Ok(0) };
            check_chunks(self.storage(), &key, &footer)?;
            Ok::<_, StoreError>(footer.file_metadata().num_rows())
        };
        let pack = store.pack(name);
        let has_text = pack.as_ref().is_ok_and(|pack| pack.has_text());
        for table in Table::ALL.into_iter().filter(|table| *table != Table::Text || has_text) {
            let error = match (of_file(table), &pack) {
                (Err(error), _) if error.is_not_found() => MISSING.to_owned(),
                (Err(error), _) => error.to_string(),
                (Ok(rows), Ok(pack)) if u64::try_from(rows) != Ok(pack.rows_of(table)) => {
                    format!("{rows} rows; its videos have {}", pack.rows_of(table))
                }
                _ => continue,
            };
            faults.push(Fault::of(&layout::pack(table.directory(), name), error));
        }
        store.packed_videos(&*pack?)
    }

    /// Checks the root's document.
    pub(crate) fn check_root(&self) -> Option<Fault> {
        check_root(self.storage())
    }

    /// Checks a video's documents.
    pub(crate) fn check_video_documents(&self, video: &VideoIndex) -> Vec<Fault> {
        let id = &video.record.video_id;
        let mut faults: Vec<Fault> = Vec::new();
        for (path, hash) in &video.record.documents {
            let found = self.store().check_inside(path).and_then(|()| self.storage().get(path));
            let error = match found {
                Ok(text) if document_hash(&text) == *hash => continue,
                Ok(_) => OTHERWISE.to_owned(),
                Err(error) => error.to_string(),
            };
            let token = video.rows.iter().find(|row| path.starts_with(row.series_path())).map(|row| row.token.clone());
            faults.push(Fault { token, ..Fault::of(path, error) });
        }
        for first in video.series().filter_map(<[StepRow]>::first) {
            let told = video.record.arrays.get(&first.token);
            // What is missing or damaged is told by whoever reads it.
            let found = self.generation(first.series_path()).and_then(|generation| generation.arrays()).ok();
            if told.is_some() && found.is_some() && told != found.as_ref() {
                let error = "its files are not as large as they were written, or its `lossy` is another";
                faults.push(Fault { token: Some(first.token.clone()), ..Fault::of(first.series_path(), error) });
            }
        }
        for fault in &mut faults {
            fault.video_id = Some(id.clone());
        }
        faults
    }

    /// Bytes of the tables.
    pub(crate) fn index_bytes(&self) -> Result<u64, StoreError> {
        layout::TABLES.iter().map(|table| self.storage().bytes_below(table)).sum()
    }
}

/// What is said of a document that was changed.
const OTHERWISE: &str = "its contents are not those that were written";

/// The video that a part is called after.
fn video_of(part: &str) -> Option<String> {
    decode_name(layout::video_of_part(part)?)
}

/// Checks the root's checksum over itself.
fn check_root(storage: &dyn Storage) -> Option<Fault> {
    let checked = || {
        let text = storage.get(layout::DOCUMENT).map_err(|error| error.to_string())?;
        let text = std::str::from_utf8(&text).map_err(|error| error.to_string())?;
        let document: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let checksum =
            document.pointer("/attributes/attnkit/checksum").and_then(Value::as_str).ok_or("it has no checksum")?;
        let is_its_own = checksum.len() == part::NO_CHECKSUM.len()
            && document_hash(text.replace(checksum, part::NO_CHECKSUM).as_bytes()) == checksum;
        if is_its_own { Ok(()) } else { Err("its checksum is not that of its contents".to_owned()) }
    };
    checked().err().map(|error| Fault::of(layout::DOCUMENT, error))
}
