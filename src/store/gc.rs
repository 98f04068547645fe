//! Removing what no commit names: old generations, and what interrupted writers left.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::lock::WriterLock;
use super::{Store, StoreError, part, remove};

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
        let index = self.read_index()?;
        let named: HashSet<PathBuf> =
            index.iter().flat_map(|video| &video.rows).map(|row| self.root().join(row.series_path())).collect();
        // What a part names that cannot be read is not known: all of its video stays.
        let (parts, _) = self.parts()?;
        let committed: HashSet<&OsStr> = parts.iter().filter_map(|part| part.file_stem()).collect();
        let read: HashSet<PathBuf> = index.iter().map(|video| self.layout.video(&video.record.video_id)).collect();
        let is_unreadable =
            |video: &Path| !read.contains(video) && video.file_name().is_some_and(|name| committed.contains(name));
        let mut unnamed = Vec::new();
        for video in children(&self.layout.maps())? {
            if is_unreadable(&video) {
                continue;
            }
            if is_directory(&video) {
                let (kept, left): (Vec<_>, Vec<_>) = children(&video)?
                    .into_iter()
                    .filter(|path| path.file_name().is_some_and(|name| name != "zarr.json"))
                    .partition(|path| named.contains(path));
                unnamed.extend(if kept.is_empty() { vec![video] } else { left });
            } else if is_hidden(&video) {
                unnamed.push(video);
            }
        }
        unnamed.extend(children(self.root())?.into_iter().filter(|path| is_hidden(path) && path.is_file()));
        unnamed.extend(children(&self.layout.steps_dir())?.into_iter().filter(|path| is_hidden(path)));
        let of_no_video =
            |path: &PathBuf| is_hidden(path) || path.file_stem().is_none_or(|name| !committed.contains(name));
        unnamed.extend(children(&self.layout.heads_dir())?.into_iter().filter(of_no_video));
        unnamed.sort();
        unnamed.into_iter().map(|path| Ok(Garbage { bytes: tree_bytes(&path)?, path })).collect()
    }

    /// Removes what no commit names; first finishes commits that were interrupted. Returns what was removed.
    ///
    /// # Errors
    /// If an ingest is running into this store, or something cannot be removed.
    pub fn gc(&self) -> Result<Vec<Garbage>, StoreError> {
        self.check_directories()?;
        let _alone = WriterLock::exclusive(self)?;
        for path in children(&self.layout.steps_dir())?.into_iter().filter(|path| is_hidden(path)) {
            if let Ok(staged) = part::read_steps_part(&path) {
                self.mend(&staged.record.video_id)?;
            }
        }
        let garbage = self.garbage()?;
        for Garbage { path, .. } in &garbage {
            remove(self.root(), path)?;
        }
        Ok(garbage)
    }

    /// Takes the lock of a writer.
    pub(crate) fn lock_for_writing(&self) -> Result<WriterLock, StoreError> {
        WriterLock::shared(self)
    }
}

/// Bytes of all files below a path; none, if it has gone.
pub(crate) fn tree_bytes(path: &Path) -> Result<u64, StoreError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => children(path)?.iter().map(|path| tree_bytes(path)).sum(),
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(StoreError::io(path)(error)),
    }
}

fn children(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = fs::read_dir(dir).map_err(StoreError::io(dir))?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(StoreError::io(dir))).collect()
}

/// Whether it is a directory itself: what a link leads to is not the store's.
pub(super) fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}
