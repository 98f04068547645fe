//! Two locks. One keeps `gc` from a running ingest: writers share it. The other is held for the two renames of a commit, so
//! that of two writers of one video the second sees what the first did. The system releases both when a process dies.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};

use super::layout::Layout;
use super::{StoreError, durable};

/// Held while a process writes into a store, or alone while it cleans up.
#[derive(Debug)]
pub(crate) struct WriterLock {
    _file: File,
}

impl WriterLock {
    /// Waits only for a running clean-up. Where the file system has no locks, nothing is locked.
    pub fn shared(layout: &Layout) -> Result<Self, StoreError> {
        Self::take(layout, "lock", File::lock_shared)
    }

    /// Waits for the commits of other writers, each a matter of milliseconds.
    pub fn commit(layout: &Layout) -> Result<Self, StoreError> {
        Self::take(layout, "commit", File::lock)
    }

    /// Waits for a lock, however often a signal interrupts that.
    fn take(layout: &Layout, name: &str, lock: fn(&File) -> io::Result<()>) -> Result<Self, StoreError> {
        let (path, file) = open(layout, name)?;
        loop {
            match lock(&file) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() != ErrorKind::Unsupported => return Err(StoreError::io(path)(error)),
                _ => return Ok(Self { _file: file }),
            }
        }
    }

    /// Fails if any writer is running.
    pub fn exclusive(layout: &Layout) -> Result<Self, StoreError> {
        let (path, file) = open(layout, "lock")?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Busy { path: layout.root.clone() }),
            Err(TryLockError::Error(error)) => Err(StoreError::io(path)(error)),
        }
    }
}

fn open(layout: &Layout, name: &str) -> Result<(std::path::PathBuf, File), StoreError> {
    durable::create_dir_all(&layout.writers())?;
    let path = layout.writers().join(name);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(StoreError::io(&path))?;
    Ok((path, file))
}
