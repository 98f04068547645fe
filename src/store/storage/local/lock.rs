//! Three locks. One keeps whoever must be alone from running writers, who share it. One is held while files are
//! published, so that of two writers of one video the second sees what the first did. One is held by whoever makes
//! another index. The system releases them when a process dies.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::Path;

use super::super::{Guard, Lock};
use super::directory::open_to_lock;
use super::make_directories;
use crate::store::{StoreError, layout};

/// Takes the lock of a writer, waiting only for whoever is alone; or that of whoever is alone, if no writer is running.
pub fn take(root: &Path, lock: Lock, is_single_writer: bool) -> Result<Guard, StoreError> {
    match lock {
        Lock::Writer => hold(root, "lock", is_single_writer, File::lock_shared),
        Lock::Alone => hold(root, "lock", is_single_writer, |file| match file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }),
        Lock::Index => hold(root, "index", is_single_writer, File::lock),
    }
}

/// Waits until no other writer publishes files, each a matter of milliseconds.
pub fn turn(root: &Path, is_single_writer: bool) -> Result<Guard, StoreError> {
    hold(root, "commit", is_single_writer, File::lock)
}

/// Takes a lock, however often a signal interrupts that. Where the file system has none, somebody has to promise that
/// nobody else writes.
fn hold(
    root: &Path,
    name: &str,
    is_single_writer: bool,
    lock: fn(&File) -> io::Result<()>,
) -> Result<Guard, StoreError> {
    let directory = root.join(layout::WRITERS);
    make_directories(&directory)?;
    let path = directory.join(name);
    let file = open_to_lock(&path)?;
    loop {
        match lock(&file) {
            Ok(()) => return Ok(Box::new(file)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(StoreError::Busy { path: root.to_owned() });
            }
            Err(source) if has_no_locks(&source) => {
                return if is_single_writer { Ok(Box::new(file)) } else { Err(StoreError::NoLocks { path, source }) };
            }
            Err(source) => return Err(StoreError::Io { path, source }),
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
