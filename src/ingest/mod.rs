//! From a dump to a store: plan what is new, read, measure and write it shard by shard in parallel, commit video by
//! video.
//!
//! Killed at any instant, an ingest leaves the store as it was before or after each video's commit; run again, it does
//! what is still to do.

mod agreement;
mod commit;
mod damage;
mod options;
mod plan;
mod prompts;
mod report;
mod schedule;
mod settings;
mod task;
mod transform;
mod watch;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) use damage::Damage;
pub use options::{IngestOptions, OnError, WatchOptions};
pub use plan::{SeriesPlan, StepPlan, StepSource};
pub(crate) use report::as_text;
pub use report::{DryRun, DumpContents, Event, Observer, PromptMatches, Quarantined, Remark, Report, Silent};
pub use settings::{Settings, SettingsError, read_settings};
pub(crate) use task::ARRAY_KEYS;
pub use task::{Failure, Fragment, ShardTask};
pub(crate) use transform::transform;
pub use writer::{StoreWriter, WriteError, WriterOptions};

use crate::dump::{Dump, DumpError};
use crate::prompt::{BatchPromptsError, TokenizerError};
use crate::store::{self, StoreError};

/// Why an ingest stopped. What was committed before stays committed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// A given dump directory cannot be read, or (with [`OnError::Fail`]) a file cannot be used.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// The store cannot be read or written: a full disk, for one.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing below the given directories looks like a dump.
    #[error(
        "{}: no attention maps found; expected directories such as prompt_000_vid001/token_flower/ with step_000.npy \
         in them, here or below",
        path.display()
    )]
    NothingFound {
        /// The first directory given.
        path: PathBuf,
    },
    /// There are words' directories, but nothing in them is a step.
    #[error("{}: nothing in it is understood:\n  {problems}", path.display())]
    NothingUnderstood {
        /// The first directory given.
        path: PathBuf,
        /// The first files, each with what is wrong with its name.
        problems: String,
    },
    /// A store was given as a dump.
    #[error("{}: is a store, not a dump of step files", path.display())]
    IsStore {
        /// The store.
        path: PathBuf,
    },
    /// The filters leave nothing.
    #[error("nothing is selected by --videos and --tokens; there are videos {videos}; words {words}")]
    NothingSelected {
        /// Some of the videos found.
        videos: String,
        /// Some of the words found.
        words: String,
    },
    /// A glob that does not parse.
    #[error("`{pattern}` is not a glob: {source}")]
    Glob {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: globset::Error,
    },
    /// The file of prompts cannot be used.
    #[error(transparent)]
    Prompts(#[from] BatchPromptsError),
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Stopped by its [`Observer`].
    #[error("stopped; what was committed before stays in the store, and the next ingest goes on from there")]
    Cancelled,
    /// The threads could not be started.
    #[error("cannot start {threads} threads: {source}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the library says.
        source: rayon::ThreadPoolBuildError,
    },
}

/// Nothing panics while it holds a lock of an ingest, so none is ever poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Removes a generation that no commit names. What cannot be removed is `gc`'s.
fn remove_generation(store: &Path, dir: &Path) {
    if let Err(error) = store::remove(store, dir) {
        tracing::debug!("{error}");
    }
}

impl IngestError {
    fn nothing_found(dumps: &[impl AsRef<Path>]) -> Self {
        Self::NothingFound { path: dumps.first().map(|path| path.as_ref().to_owned()).unwrap_or_default() }
    }
}

/// Ingests all dumps below the given directories into the store at `store`, which is created if it is not there.
///
/// # Errors
/// If a directory or the store cannot be used at all. Files that cannot be used are in [`Report::quarantined`].
pub fn run(
    dumps: &[impl AsRef<Path>],
    store: impl AsRef<Path>,
    options: &IngestOptions,
    observer: &dyn Observer,
) -> Result<Report, IngestError> {
    schedule::run(dumps, store.as_ref(), options, observer)
}

/// Ingests dumps that are still being written: looks at them again and again, and ingests each step once it is
/// complete, which is when it has metadata and its files are the same at two looks. Ends when nothing has changed for a
/// while, or when the observer says so.
///
/// A directory that is not there yet is waited for. What a commit replaces is removed five minutes later, unless the
/// watch ends before; `gc` removes that.
///
/// # Errors
/// As [`run`], except that being stopped by the observer is no error, and a dump is only missed at the end.
pub fn watch(
    dumps: &[impl AsRef<Path>],
    store: impl AsRef<Path>,
    options: &IngestOptions,
    watch: WatchOptions,
    observer: &dyn Observer,
) -> Result<Report, IngestError> {
    watch::watch(dumps, store.as_ref(), options, watch, observer)
}

/// Writes what is damaged of a store anew, from the dumps below some directories and from the store itself, and nothing
/// else.
///
/// # Errors
/// As [`run`].
pub(crate) fn mend(
    dumps: &[impl AsRef<Path>],
    store: &Path,
    damage: &Damage,
    options: &IngestOptions,
    observer: &dyn Observer,
) -> Result<Report, IngestError> {
    schedule::mend(dumps, store, damage, options, observer)
}

/// Says what [`run`] would do, without writing anything. Compressed sizes are estimated from a few steps.
///
/// # Errors
/// As [`run`].
pub fn dry_run(
    dumps: &[impl AsRef<Path>],
    store: impl AsRef<Path>,
    options: &IngestOptions,
    observer: &dyn Observer,
) -> Result<DryRun, IngestError> {
    schedule::dry_run(dumps, store.as_ref(), options, observer)
}

/// The dry run of a dump that was found already, into a new store.
pub(crate) fn dry_run_of(dump: Dump, options: &IngestOptions) -> Result<DryRun, IngestError> {
    schedule::dry_run_of(dump, None, options, &Silent)
}
