//! Three locks. One keeps whoever must be alone from running writers, who share it. One is held while files are
//! published, so that of two writers of one video the second sees what the first did. One is held by whoever makes
//! another index. The system releases them when a process dies.

use std::fs::TryLockError;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use super::super::threads::{How, Locks};
use super::super::{Guard, Lock};
use super::directory::open_to_lock;
use super::make_directories;
use crate::store::{StoreError, layout};

/// Takes the lock of a writer, waiting only for whoever is alone; or that of whoever is alone, if no writer is running.
pub fn take(root: &Path, lock: Lock, is_single_writer: bool) -> Result<Guard, StoreError> {
    let (name, how) = lock.held();
    hold(root, name, is_single_writer, how)
}

/// Waits until no other writer publishes files, each a matter of milliseconds.
pub fn turn(root: &Path, is_single_writer: bool) -> Result<Guard, StoreError> {
    hold(root, "commit", is_single_writer, How::Alone)
}

/// Takes a lock, however often a signal interrupts that. Where the file system has none, somebody has to promise that
/// no other process writes; this one's threads still take turns.
fn hold(root: &Path, name: &str, is_single_writer: bool, how: How) -> Result<Guard, StoreError> {
    let directory = root.join(layout::WRITERS);
    make_directories(&directory)?;
    let path = directory.join(name);
    let file = open_to_lock(&path)?;
    loop {
        let locked = match how {
            How::Shared => file.lock_shared(),
            How::Alone => file.lock(),
            How::AloneIfFree => file.try_lock().map_err(|refused| match refused {
                TryLockError::WouldBlock => ErrorKind::WouldBlock.into(),
                TryLockError::Error(error) => error,
            }),
        };
        let is_held = match locked {
            Ok(()) => return Ok(Box::new(file)),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(source) if has_no_locks(&source) && is_single_writer => hold_here(&path, how),
            Err(source) if has_no_locks(&source) => return Err(StoreError::NoLocks { path, source }),
            Err(source) => return Err(StoreError::Io { path, source }),
        };
        return is_held.ok_or_else(|| StoreError::Busy { path: root.to_owned() });
    }
}

/// Takes a lock that only threads of this process heed; `None`: it is not free.
fn hold_here(path: &Path, how: How) -> Option<Guard> {
    static HERE: LazyLock<Arc<Locks>> = LazyLock::new(Arc::default);
    HERE.hold(&path.canonicalize().unwrap_or_else(|_| path.to_owned()), how)
}

/// Whether it is the file system that keeps no locks: NFS without its lock service, Lustre without `flock`.
fn has_no_locks(error: &io::Error) -> bool {
    #[cfg(unix)]
    if error.raw_os_error() == Some(rustix::io::Errno::NOLCK.raw_os_error()) {
        return true;
    }
    error.kind() == ErrorKind::Unsupported
}
