//! Which parts are sound. Each is checked against the checksum over itself before anything of it is believed, once as
//! long as its file stays as it is; what is damaged is left out and named, and the rest of the store stays usable.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rayon::prelude::*;

use super::part::{self, VideoIndex};
use super::{NOT_A_PART, Store, StoreError};

/// What is known of the files of a store's index.
#[derive(Debug, Default)]
pub(super) struct KnownParts {
    /// Parts that were checked, as they were then.
    sound: Mutex<HashMap<PathBuf, FileState>>,
    /// What is wrong with the others, and how they were when it was found.
    left_out: Mutex<BTreeMap<PathBuf, (Option<FileState>, String)>>,
}

/// Length and time of a file.
type FileState = (u64, Option<SystemTime>);

fn state_of(path: &Path) -> std::io::Result<FileState> {
    fs::symlink_metadata(path).map(|found| (found.len(), found.modified().ok()))
}

impl KnownParts {
    fn note<T>(&self, path: &Path, found: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(found) => {
                // As long as the file is the same, an answer may have been without it.
                if left_out.get(path).is_some_and(|(was, _)| *was != state_of(path).ok()) {
                    left_out.remove(path);
                }
                Ok(Some(found))
            }
            Err(error) if error.is_of_one_file() => {
                left_out.insert(path.to_owned(), (state_of(path).ok(), error.to_string()));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Store {
    /// The files of the index that have been left out so far because they are damaged, each with a line that names it
    /// and says how.
    #[must_use]
    pub fn left_out(&self) -> Vec<(PathBuf, String)> {
        let left_out = self.known.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        left_out.iter().map(|(path, (_, found))| (path.clone(), found.clone())).collect()
    }

    /// The committed `steps` parts that are sound, sorted.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(crate) fn sound_parts(&self) -> Result<Vec<PathBuf>, StoreError> {
        let (parts, strays) = self.parts()?;
        for stray in strays {
            self.known.note::<()>(&stray, Err(StoreError::damaged(&stray, NOT_A_PART)))?;
        }
        let sound = parts.into_par_iter().filter_map(|path| {
            let checked = self.check_once(&path, |path| self.check_steps_part(path));
            self.known.note(&path, checked).map(|found| found.map(|()| path)).transpose()
        });
        sound.collect()
    }

    /// The sound `heads` parts of the commits that some `steps` parts are of.
    ///
    /// # Errors
    /// If they cannot be looked for.
    pub(crate) fn sound_heads(&self, parts: &[PathBuf]) -> Result<Vec<PathBuf>, StoreError> {
        let sound = parts.par_iter().filter_map(|steps| {
            let found = self.heads_part(steps);
            let path = self.layout.heads_dir().join(steps.file_name().unwrap_or_default());
            let checked = found.and_then(|path| self.check_once(&path, part::check_part).map(|()| path));
            self.known.note(&path, checked).transpose()
        });
        sound.collect()
    }

    /// The committed state of all videos whose parts are sound, sorted by id.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn read_index(&self) -> Result<Vec<VideoIndex>, StoreError> {
        let read = self.sound_parts()?.into_par_iter().filter_map(|path| {
            let video = part::read_steps_part(&path);
            self.known.note(&path, video).transpose()
        });
        let mut index: Vec<VideoIndex> = read.collect::<Result<_, _>>()?;
        index.sort_by(|a, b| a.record.video_id.cmp(&b.record.video_id));
        Ok(index)
    }

    /// Checks a part against its checksum, and that it is of the video that it is called after: of a copy under another
    /// name, all rows would be there twice.
    fn check_steps_part(&self, path: &Path) -> Result<(), StoreError> {
        match part::check_steps_part(path)? {
            Some(video) if self.layout.steps_part(&video) != path => Err(StoreError::damaged(path, NOT_A_PART)),
            _ => Ok(()),
        }
    }

    fn check_once(&self, path: &Path, check: impl FnOnce(&Path) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let state = state_of(path).map_err(StoreError::io(path))?;
        let known = |sound: &HashMap<PathBuf, FileState>| sound.get(path) == Some(&state);
        if known(&self.known.sound.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(());
        }
        check(path)?;
        self.known.sound.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), state);
        Ok(())
    }
}
