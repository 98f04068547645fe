//! Three locks. One keeps whoever must be alone from running writers, who share it. One is held while files are
//! published, so that of two writers of one video the second sees what the first did. One is held by whoever makes
//! another index. The system releases them when a process dies.

use std::collections::HashMap;
use std::fs::TryLockError;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

use super::super::{Guard, Lock};
use super::directory::open_to_lock;
use super::make_directories;
use crate::store::{StoreError, layout};

/// Takes the lock of a writer, waiting only for whoever is alone; or that of whoever is alone, if no writer is running.
pub fn take(root: &Path, lock: Lock, is_single_writer: bool) -> Result<Guard, StoreError> {
    match lock {
        Lock::Writer => hold(root, "lock", is_single_writer, How::Shared),
        Lock::Alone => hold(root, "lock", is_single_writer, How::AloneIfFree),
        Lock::Index => hold(root, "index", is_single_writer, How::Alone),
    }
}

/// Waits until no other writer publishes files, each a matter of milliseconds.
pub fn turn(root: &Path, is_single_writer: bool) -> Result<Guard, StoreError> {
    hold(root, "commit", is_single_writer, How::Alone)
}

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Shared,
    Alone,
    /// Without waiting for others.
    AloneIfFree,
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

/// Who holds a lock within this process.
#[derive(Default)]
struct Holders {
    shared: usize,
    is_alone: bool,
}

/// Locks that are held within this process, where the file system has none, and who waits for them.
static HELD_HERE: LazyLock<(Mutex<HashMap<PathBuf, Holders>>, Condvar)> = LazyLock::new(Default::default);

fn held_here() -> MutexGuard<'static, HashMap<PathBuf, Holders>> {
    HELD_HERE.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A lock that is held within this process.
struct HeldHere {
    path: PathBuf,
    how: How,
}

/// Takes a lock that only threads of this process heed; `None`: it is not free.
fn hold_here(path: &Path, how: How) -> Option<Guard> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut held = held_here();
    loop {
        let holders = held.entry(path.clone()).or_default();
        match how {
            How::Shared if !holders.is_alone => holders.shared += 1,
            How::Alone | How::AloneIfFree if !holders.is_alone && holders.shared == 0 => holders.is_alone = true,
            How::AloneIfFree => return None,
            _ => {
                held = HELD_HERE.1.wait(held).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
        }
        return Some(Box::new(HeldHere { path, how }));
    }
}

impl Drop for HeldHere {
    fn drop(&mut self) {
        let mut held = held_here();
        if let Some(holders) = held.get_mut(&self.path) {
            match self.how {
                How::Shared => holders.shared -= 1,
                _ => holders.is_alone = false,
            }
            if holders.shared == 0 && !holders.is_alone {
                held.remove(&self.path);
            }
        }
        HELD_HERE.1.notify_all();
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn threads_take_turns_where_there_are_no_locks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let shared = [hold_here(&path, How::Shared).unwrap(), hold_here(&path, How::Shared).unwrap()];
        assert!(hold_here(&path, How::AloneIfFree).is_none());
        assert!(hold_here(&dir.path().join("other"), How::AloneIfFree).is_some());
        drop(shared);
        let alone = hold_here(&path, How::AloneIfFree).unwrap();
        let inside = AtomicUsize::new(0);
        thread::scope(|scope| {
            for how in [How::Alone, How::Alone, How::Shared] {
                let (path, inside) = (&path, &inside);
                scope.spawn(move || {
                    let _held = hold_here(path, how).unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    thread::sleep(std::time::Duration::from_millis(5));
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
            }
            assert_eq!(inside.load(Ordering::SeqCst), 0);
            drop(alone);
        });
        assert!(held_here().get(&path).is_none());
    }
}
