//! How far long work is, and whether it goes on: one protocol for all that takes long, whoever shows it.
//!
//! ```
//! use std::sync::atomic::{AtomicU64, Ordering};
//!
//! use attnkit::progress::{Amount, Progress};
//!
//! /// Stops work after a few steps.
//! struct AFew(AtomicU64);
//!
//! impl Progress for AFew {
//!     fn reached(&self, amount: Amount) {
//!         self.0.fetch_max(amount.done, Ordering::Relaxed);
//!     }
//!
//!     fn is_cancelled(&self) -> bool {
//!         self.0.load(Ordering::Relaxed) >= 3
//!     }
//! }
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Bytes read.
    Bytes,
    /// Steps of words.
    Steps,
    /// Pieces of work.
    Tasks,
}

/// How much is done of what there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// Done so far.
    pub done: u64,
    /// In all, as far as that is known; what is found on the way may raise it.
    pub all: u64,
    /// What is counted.
    pub unit: Unit,
}

/// Follows long work, and may stop it. Called from many threads, by which later amounts may overtake earlier ones.
pub trait Progress: Sync {
    /// The work is that far. Work that counts in two units says both.
    fn reached(&self, _amount: Amount) {}

    /// Whether the work should stop soon: it ends in the `Cancelled` of its error, which says what stays.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Follows nothing, and stops nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}

/// Stops all work at once.
#[cfg(test)]
pub(crate) struct Stopped;

#[cfg(test)]
impl Progress for Stopped {
    fn is_cancelled(&self) -> bool {
        true
    }
}

/// That whoever follows the work wants it to stop; each layer's error says what stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cancelled;

/// Counts what is done, and says so.
pub(crate) struct Meter<'a> {
    progress: &'a dyn Progress,
    unit: Unit,
    all: u64,
    done: AtomicU64,
}

impl<'a> Meter<'a> {
    /// Nothing of `all` is done.
    pub fn new(progress: &'a dyn Progress, unit: Unit, all: u64) -> Self {
        progress.reached(Amount { done: 0, all, unit });
        Self { progress, unit, all, done: AtomicU64::new(0) }
    }

    /// So much more is done. An error if nothing more is to be.
    pub fn add(&self, more: u64) -> Result<(), Cancelled> {
        let done = self.done.fetch_add(more, Ordering::Relaxed) + more;
        self.progress.reached(Amount { done, all: self.all, unit: self.unit });
        self.check()
    }

    /// An error if nothing more is to be done.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.progress.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Noted(Mutex<Vec<(u64, u64)>>);

    impl Progress for Noted {
        fn reached(&self, amount: Amount) {
            self.0.lock().unwrap().push((amount.done, amount.all));
        }

        fn is_cancelled(&self) -> bool {
            self.0.lock().unwrap().len() > 2
        }
    }

    #[test]
    fn a_meter_says_what_is_done_until_it_is_told_to_stop() {
        let noted = Noted(Mutex::default());
        let meter = Meter::new(&noted, Unit::Steps, 5);
        assert_eq!((meter.add(2), meter.add(1)), (Ok(()), Err(Cancelled)));
        assert_eq!((meter.check(), noted.0.into_inner().unwrap()), (Err(Cancelled), vec![(0, 5), (2, 5), (3, 5)]));
    }
}
