//! Two locks. One keeps `gc` from a running ingest: writers share it. The other is held for the two renames of a
//! commit, so that of two writers of one video the second sees what the first did. The system releases both when a
//! process dies.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use super::{Store, StoreError, durable, files};

/// Held while a process writes into a store, or alone while it cleans up.
#[derive(Debug)]
pub(crate) struct WriterLock {
    _file: File,
}

impl WriterLock {
    /// Waits only for a running clean-up.
    pub fn shared(store: &Store) -> Result<Self, StoreError> {
        Self::take(store, "lock", File::lock_shared)
    }

    /// Waits for the commits of other writers, each a matter of milliseconds.
    pub fn commit(store: &Store) -> Result<Self, StoreError> {
        Self::take(store, "commit", File::lock)
    }

    /// Fails if any writer is running.
    pub fn exclusive(store: &Store) -> Result<Self, StoreError> {
        Self::take(store, "lock", |file| match file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        })
    }

    /// Takes a lock, however often a signal interrupts that. Where the file system has none, somebody has to promise
    /// that nobody else writes.
    fn take(store: &Store, name: &str, lock: fn(&File) -> io::Result<()>) -> Result<Self, StoreError> {
        let (path, file) = open(store, name)?;
        loop {
            match lock(&file) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(StoreError::Busy { path: store.layout.root.clone() });
                }
                Err(source) if has_no_locks(&source) => {
                    if store.is_single_writer {
                        return Ok(Self { _file: file });
                    }
                    return Err(StoreError::NoLocks { path, source });
                }
                Err(source) => return Err(StoreError::Io { path, source }),
            }
        }
    }
}

/// Whether it is the file system that keeps no locks: NFS without its lock service, Lustre without `flock`.
fn has_no_locks(error: &io::Error) -> bool {
    #[cfg(unix)]
    if error.raw_os_error() == Some(rustix::io::Errno::NOLCK.raw_os_error()) {
        return true;
    }
    error.kind() == ErrorKind::Unsupported
}

fn open(store: &Store, name: &str) -> Result<(PathBuf, File), StoreError> {
    let dir = store.layout.writers();
    durable::create_dir_all(&dir)?;
    let path = dir.join(name);
    let file = files::open_with(&path, File::options().create(true).truncate(false).write(true))?;
    Ok((path, file))
}
