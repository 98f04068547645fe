//! Locks that threads of this process heed, and nobody else.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Guard;

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Beside others who share it.
    Shared,
    /// By one.
    Alone,
    /// By one, without waiting for others.
    AloneIfFree,
}

/// Locks by their names, and who waits for them.
#[derive(Debug, Default)]
pub struct Locks {
    held: Mutex<HashMap<PathBuf, Holders>>,
    left: Condvar,
}

/// Who holds a lock.
#[derive(Debug, Default)]
struct Holders {
    shared: usize,
    is_alone: bool,
}

impl Locks {
    /// Takes a lock; `None`: it is not free.
    pub fn hold(self: &Arc<Self>, name: &Path, how: How) -> Option<Guard> {
        let mut held = self.held();
        loop {
            let holders = held.entry(name.to_owned()).or_default();
            match how {
                How::Shared if !holders.is_alone => holders.shared += 1,
                How::Alone | How::AloneIfFree if !holders.is_alone && holders.shared == 0 => holders.is_alone = true,
                How::AloneIfFree => return None,
                _ => {
                    held = self.left.wait(held).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
            }
            return Some(Box::new(Held { locks: self.clone(), name: name.to_owned(), how }));
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<PathBuf, Holders>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lock that is held.
struct Held {
    locks: Arc<Locks>,
    name: PathBuf,
    how: How,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.locks.held();
        if let Some(holders) = held.get_mut(&self.name) {
            match self.how {
                How::Shared => holders.shared -= 1,
                _ => holders.is_alone = false,
            }
            if holders.shared == 0 && !holders.is_alone {
                held.remove(&self.name);
            }
        }
        self.locks.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn threads_take_turns() {
        let (locks, name) = (Arc::new(Locks::default()), Path::new("lock"));
        let hold = |how| locks.hold(name, how);
        let shared = [hold(How::Shared).unwrap(), hold(How::Shared).unwrap()];
        assert!(hold(How::AloneIfFree).is_none());
        assert!(locks.hold(Path::new("other"), How::AloneIfFree).is_some());
        drop(shared);
        let alone = hold(How::AloneIfFree).unwrap();
        let inside = AtomicUsize::new(0);
        thread::scope(|scope| {
            for how in [How::Alone, How::Alone, How::Shared] {
                let (hold, inside) = (&hold, &inside);
                scope.spawn(move || {
                    let _held = hold(how).unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    thread::sleep(std::time::Duration::from_millis(5));
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
            }
            assert_eq!(inside.load(Ordering::SeqCst), 0);
            drop(alone);
        });
        assert!(locks.held().is_empty());
    }
}
