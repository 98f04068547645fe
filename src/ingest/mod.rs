//! From a dump to a store: plan what is new, read, measure and write it shard by shard in parallel, commit video by
//! video.
//!
//! Killed at any instant, an ingest leaves the store as it was before or after each video's commit; run again, it does
//! what is still to do.

mod agreement;
mod candidates;
mod commit;
mod damage;
mod dry_run;
mod error;
mod findings;
mod job;
mod local;
mod options;
mod plan;
mod prompts;
mod recognise;
mod report;
mod rollup;
mod run;
mod select;
mod series;
mod settings;
mod task;
mod transform;
mod watch;
mod writer;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use commit::{CommitOutcome, CommitTask};
pub(crate) use damage::Damage;
pub use error::{AcceptError, IngestError, WriteError};
pub use job::{Done, Job, StoreAddress, Ticket, Worker};
pub use options::{IngestOptions, OnError, WatchOptions};
pub use plan::{PlanTask, VideoPlan};
use report::Counted;
pub(crate) use report::PartOf;
pub(crate) use report::as_text;
pub use report::{DryRun, DumpContents, Event, Observer, PromptMatches, Quarantined, Remark, Report};
pub use rollup::RollupReport;
pub use run::{Ingest, Next};
pub use series::{SeriesInput, SeriesTarget, StepPlan, StepSource};
pub use settings::{Settings, SettingsError, read_settings};
pub(crate) use task::ARRAY_KEYS;
pub use task::{Failure, Fragment, ShardTask};
pub(crate) use transform::transform;
pub use writer::{StoreWriter, WordStep, WriterOptions};

use crate::dump::Dump;
use crate::progress::Progress;
pub use crate::progress::Silent;

/// Nothing panics while it holds a lock of an ingest, so none is ever poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
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
    local::run(dumps, store.as_ref(), options, &Counted::new(observer))
}

impl Ingest {
    /// Begins an ingest as [`run`] does, for somebody who runs the jobs: on a cluster, for one. The store is created if
    /// it is not there; `gc` waits until the ingest is dropped.
    ///
    /// ```
    /// use attnkit::ingest::{Done, Ingest, IngestError, IngestOptions, Job, Next, Worker};
    /// use attnkit::progress::Silent;
    ///
    /// # let dir = tempfile::tempdir().unwrap();
    /// let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/variants/gzip");
    /// let mut ingest = Ingest::begin(&[dump], dir.path().join("store"), &IngestOptions::default(), &Silent)?;
    ///
    /// // Elsewhere: whoever reaches the store and the dump can run a job.
    /// let worker = Worker::default();
    /// let run = |job: &[u8]| -> Result<Vec<u8>, IngestError> { Ok(worker.run(&Job::from_bytes(job)?)?.to_bytes()?) };
    ///
    /// // With several workers, `Next::Wait` says that another job has to come back first.
    /// while let Next::Job(job) = ingest.next() {
    ///     let left = run(&job.to_bytes()?)?;
    ///     ingest.accept(Done::from_bytes(&left)?)?;
    /// }
    /// assert_eq!(ingest.finish()?.ingested, 6);
    /// # Ok::<(), IngestError>(())
    /// ```
    ///
    /// # Errors
    /// As [`run`].
    pub fn begin(
        dumps: &[impl AsRef<Path>],
        store: impl AsRef<Path>,
        options: &IngestOptions,
        progress: &dyn Progress,
    ) -> Result<Self, IngestError> {
        local::begin(dumps, store.as_ref(), options, progress)
    }
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
    watch::watch(dumps, store.as_ref(), options, watch, &Counted::new(observer))
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
    local::mend(dumps, store, damage, options, &Counted::new(observer))
}

/// Gives words that are in a store already the rollups that the options name, from the store's own values: of the
/// options, `videos` and `tokens` choose the words, `single_writer` and `threads` count too. Words that have these
/// rollups stay as they are.
///
/// # Errors
/// If nothing is selected, or the store cannot be read or written. Words that cannot be read are in
/// [`RollupReport::quarantined`], and stay as they are.
pub fn rollup(
    store: impl AsRef<Path>,
    options: &IngestOptions,
    observer: &dyn Observer,
) -> Result<RollupReport, IngestError> {
    rollup::rollup(store.as_ref(), options, &Counted::new(observer))
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
    dry_run::dry_run(dumps, store.as_ref(), options, &Counted::new(observer))
}

/// The dry run of a dump that was found already, into a new store.
pub(crate) fn dry_run_of(dump: Dump, options: &IngestOptions, observer: &dyn Observer) -> Result<DryRun, IngestError> {
    dry_run::dry_run_of(dump, None, options, observer)
}
