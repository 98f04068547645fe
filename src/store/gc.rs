//! Removing what no commit names: old generations, and what interrupted writers left.

use std::collections::HashSet;
use std::path::PathBuf;

use super::storage::{Entry, EntryKind, Lock, join, split};
use super::{Snapshot, Store, StoreError, VideoIndex, layout, part};
use crate::progress::{Meter, Progress, Unit};

/// Something in a store that no commit names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// File or directory.
    pub path: PathBuf,
    /// Bytes of the files in it.
    pub bytes: u64,
}

impl Store {
    /// What no commit names, sorted by path. Says nothing of whether a writer is about to commit it.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn garbage(&self) -> Result<Vec<Garbage>, StoreError> {
        let (index, _) = self.of_one_state(Snapshot::read_index)?;
        self.garbage_beside(&index)
    }

    /// The same where the committed videos are known.
    pub(crate) fn garbage_beside(&self, index: &[VideoIndex]) -> Result<Vec<Garbage>, StoreError> {
        Ok(self.unnamed(index)?.into_iter().map(|(_, garbage)| garbage).collect())
    }

    /// Removes what no commit names; first finishes commits that were interrupted. Returns what was removed. The
    /// progress is in bytes.
    ///
    /// # Errors
    /// If an ingest is running into this store, something cannot be removed, or whoever follows the work stops it.
    pub fn gc(&self, progress: &dyn Progress) -> Result<Vec<Garbage>, StoreError> {
        self.check_directories()?;
        let _alone = self.storage.lock(Lock::Alone)?;
        self.restore_index()?;
        for (key, _) in self.below(layout::STAGED)?.into_iter().filter(|(key, _)| layout::is_staged_steps(key)) {
            match part::read_steps_part(&*self.storage, &key) {
                Ok(staged) => self.mend(&staged.record.video_id)?,
                // The video's commit was finished with another one of its own.
                Err(error) if error.is_not_found() => {}
                // What was not written whole commits nothing; what cannot be read now may.
                Err(StoreError::Io { path, source }) if source.kind() != std::io::ErrorKind::UnexpectedEof => {
                    return Err(StoreError::Io { path, source });
                }
                Err(_) => {}
            }
        }
        let (index, _) = self.of_one_state(Snapshot::read_index)?;
        let unnamed = self.unnamed(&index)?;
        let meter = Meter::new(progress, Unit::Bytes, unnamed.iter().map(|(_, garbage)| garbage.bytes).sum());
        for (key, garbage) in &unnamed {
            meter.check()?;
            self.storage.delete(key)?;
            let _ = meter.add(garbage.bytes);
        }
        Ok(unnamed.into_iter().map(|(_, garbage)| garbage).collect())
    }

    /// What no commit names, with its key, sorted by path.
    fn unnamed(&self, index: &[VideoIndex]) -> Result<Vec<(String, Garbage)>, StoreError> {
        let named: HashSet<&str> =
            index.iter().flat_map(|video| &video.rows).map(super::StepRow::series_path).collect();
        let read: HashSet<String> = index.iter().map(|video| self.video_key(&video.record.video_id)).collect();
        // What a part names that cannot be read is not known: all of its video stays. Of a pack, nobody knows the
        // videos.
        let files = self.part_files()?;
        let parts = || files.parts.iter().map(|(key, _)| key);
        let committed: HashSet<&str> = parts().filter_map(|key| layout::video_of_part(key)).collect();
        let names: HashSet<&str> = parts().map(|key| split(key).1).collect();
        let are_packs_sound = self.check_packs().is_ok();
        let has_damaged = !self.below(layout::DAMAGED)?.is_empty();
        let of_packs = self.files_of_packs()?;
        let mut unnamed = Vec::new();
        for (video, entry) in self.below(layout::MAPS)? {
            if !are_packs_sound || !read.contains(&video) && (committed.contains(&*entry.name) || has_damaged) {
                continue;
            }
            if entry.kind == EntryKind::Directory {
                let generations = self.below(&video)?.into_iter().map(|(key, _)| key);
                let (kept, left): (Vec<_>, Vec<_>) =
                    generations.filter(|key| split(key).1 != layout::DOCUMENT).partition(|key| named.contains(&**key));
                unnamed.extend(if kept.is_empty() { vec![video] } else { left });
            } else if is_hidden(&entry) {
                unnamed.push(video);
            }
        }
        let is_left =
            |entry: &Entry| is_hidden(entry) && entry.kind == EntryKind::File || layout::is_next_index(&entry.name);
        let is_of_pack = |name: &str| layout::name_of_pack(name).is_some_and(|pack| of_packs.contains_key(pack));
        let is_of_no_video =
            |entry: &Entry| is_hidden(entry) || !names.contains(&*entry.name) && !is_of_pack(&entry.name);
        let in_root = self.below("")?.into_iter().filter(|(_, entry)| is_left(entry));
        let staged = self.below(layout::STAGED)?;
        let in_steps = self.below(layout::STEPS)?.into_iter().filter(|(_, entry)| is_hidden(entry));
        let (heads, text) = (self.below(layout::HEADS)?, self.below(layout::TEXT)?);
        // Where it says what is packed, nothing is too much.
        let beside = heads.into_iter().chain(text).filter(|(_, entry)| is_of_no_video(entry));
        unnamed.extend(in_root.chain(staged).chain(in_steps).chain(beside).map(|(key, _)| key));
        let garbage = |key: String| {
            let bytes = self.storage.bytes_below(&key)?;
            Ok((key.clone(), Garbage { path: self.storage.place(&key), bytes }))
        };
        let mut unnamed = unnamed.into_iter().map(garbage).collect::<Result<Vec<_>, StoreError>>()?;
        unnamed.sort_by(|(_, a), (_, b)| a.path.cmp(&b.path));
        Ok(unnamed)
    }

    /// What is in a directory, each with its key; nothing, if there is none.
    fn below(&self, directory: &str) -> Result<Vec<(String, Entry)>, StoreError> {
        let entries = self.entries(directory)?.into_iter();
        Ok(entries.map(|entry| (join(directory, &entry.name), entry)).collect())
    }
}

fn is_hidden(entry: &Entry) -> bool {
    entry.name.starts_with('.')
}
