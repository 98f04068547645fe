//! Which parts are sound. Each is checked against the checksum over itself before anything of it is believed, once as
//! long as its file stays as it is; what is damaged is left out and named, and the rest of the store stays usable.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;

use super::StoreError;
use super::pack::Pack;
use super::part::{PartFooter, check_part};
use super::storage::{Entry, Storage};

/// Row groups of packs that are kept: those of the tables of a video of each of a few packs.
const ROW_GROUPS: usize = 12;

/// Row groups, each with its file and number; the newest first.
type RowGroups = VecDeque<((String, usize), RecordBatch)>;

/// What is known of the files of a store's index.
#[derive(Debug, Default)]
pub(super) struct KnownParts {
    /// Parts that were checked, as they were then.
    sound: Mutex<HashMap<String, (Entry, PartFooter)>>,
    /// What is wrong with the others, and how they were when it was found.
    left_out: Mutex<BTreeMap<String, (Option<Entry>, String)>>,
    /// Packs, by their generation: none is ever modified.
    packs: Mutex<HashMap<String, Arc<Pack>>>,
    /// The row groups of packs that were read last.
    rows: Mutex<RowGroups>,
    /// Which index there is, and its generation.
    index: Mutex<Option<(u128, Option<String>)>>,
}

impl KnownParts {
    /// The footer of a part, once it is checked.
    pub fn check(&self, storage: &dyn Storage, key: &str, entry: &Entry) -> Result<PartFooter, StoreError> {
        if let Some((_, footer)) = lock(&self.sound).get(key).filter(|(known, _)| known == entry) {
            return Ok(footer.clone());
        }
        let footer = check_part(storage, key)?;
        lock(&self.sound).insert(key.to_owned(), (entry.clone(), footer.clone()));
        Ok(footer)
    }

    /// The generation of an index, if it is known.
    pub fn index(&self, stamp: u128) -> Option<Option<String>> {
        lock(&self.index).as_ref().filter(|(known, _)| *known == stamp).map(|(_, generation)| generation.clone())
    }

    /// Notes the generation of an index.
    pub fn note_index(&self, stamp: u128, generation: Option<String>) {
        *lock(&self.index) = Some((stamp, generation));
    }

    /// A pack, which is read if it is not known.
    pub fn pack(
        &self,
        generation: &str,
        read: impl FnOnce() -> Result<Pack, StoreError>,
    ) -> Result<Arc<Pack>, StoreError> {
        if let Some(pack) = lock(&self.packs).get(generation) {
            return Ok(pack.clone());
        }
        let pack = Arc::new(read()?);
        lock(&self.packs).insert(generation.to_owned(), pack.clone());
        Ok(pack)
    }

    /// A row group of a pack's part, which is read if it is not among the last ones.
    pub fn rows(
        &self,
        key: &str,
        group: usize,
        read: impl FnOnce() -> Result<RecordBatch, StoreError>,
    ) -> Result<RecordBatch, StoreError> {
        let is_it = |((own, number), _): &&((String, usize), RecordBatch)| own == key && *number == group;
        if let Some((_, rows)) = lock(&self.rows).iter().find(is_it) {
            return Ok(rows.clone());
        }
        let rows = read()?;
        let mut known = lock(&self.rows);
        known.truncate(ROW_GROUPS - 1);
        known.push_front(((key.to_owned(), group), rows.clone()));
        Ok(rows)
    }

    /// Notes what was found of a file: it is left out if it is damaged.
    pub fn note<T>(
        &self,
        storage: &dyn Storage,
        key: &str,
        found: Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let state = || storage.entry(key).ok().flatten();
        match found {
            Ok(found) => {
                let mut left_out = lock(&self.left_out);
                // As long as the file is the same, an answer may have been without it.
                if left_out.get(key).is_some_and(|(was, _)| *was != state()) {
                    left_out.remove(key);
                }
                Ok(Some(found))
            }
            Err(error) if error.is_of_one_file() => {
                lock(&self.left_out).insert(key.to_owned(), (state(), error.to_string()));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The files that were left out, each with a line that names it and says why.
    pub fn left_out(&self, storage: &dyn Storage) -> Vec<(PathBuf, String)> {
        lock(&self.left_out).iter().map(|(key, (_, found))| (storage.place(key), found.clone())).collect()
    }
}

/// Nothing panics while it holds a lock.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
