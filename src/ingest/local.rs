//! An ingest on the threads of this machine. As many jobs run as there are threads: memory holds one step for each, and
//! the plans of one video more. Commits wait for the disk beside them, in groups.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::mpsc;
use std::time::Instant;

use super::IngestError;
use super::damage::Damage;
use super::job::{Done, Job, JobStage, StoreAddress};
use super::options::IngestOptions;
use super::prompts::Prompts;
use super::report::{Event, Observer, PartOf, Remark, Report};
use super::run::{Ingest, Next, Pass};
use super::select::{Selected, find, found_in, select};
use super::series::StepPlan;
use crate::dump::{Dump, Video};
use crate::progress::Progress;
use crate::remedy::{CommandName, Note, Remedy};
use crate::store::{StagedCommit, Store, StoreError};

pub(super) fn run(
    dumps: &[impl AsRef<Path>],
    path: &Path,
    options: &IngestOptions,
    observer: &dyn Observer,
) -> Result<Report, IngestError> {
    let (dump, prompts) = (find(dumps, observer)?, Prompts::new(options)?);
    let (store, selected) = open(dump, path, options)?;
    let mut report = driven(&store, selected, None, options, &prompts, observer)?.finish()?;
    pack(&store, options, &mut report, observer);
    Ok(report)
}

/// Packs the tables, if that is worth it. All is committed already: where it fails, that is a warning.
pub(super) fn pack(store: &Store, options: &IngestOptions, report: &mut Report, observer: &dyn Observer) {
    if !options.pack || report.ingested == 0 {
        return;
    }
    let start = Instant::now();
    match store
        .is_worth_packing()
        .and_then(|is_worth_it| is_worth_it.then(|| store.compact(&PartOf(observer))).transpose())
    {
        Ok(packed) => report.packed = packed,
        Err(StoreError::Cancelled) => {}
        Err(error) => {
            let text = format!("the tables were not packed: {error}; all that was ingested is there");
            let remark = Remark::new(
                &store.place(),
                Note::new(text, Remedy::of("{} does it later", [CommandName::Compact.here()])),
            );
            observer.event(Event::Warning(&remark));
            report.warnings.push(remark);
        }
    }
    report.seconds += start.elapsed().as_secs_f64();
}

/// Writes what is damaged of a store anew.
pub(super) fn mend(
    dumps: &[impl AsRef<Path>],
    path: &Path,
    damage: &Damage,
    options: &IngestOptions,
    observer: &dyn Observer,
) -> Result<Report, IngestError> {
    let dump = if dumps.is_empty() { Dump::default() } else { find(dumps, observer)? };
    let store = Store::open(path)?.as_single_writer(options.single_writer);
    let mut of_dump: HashMap<String, Video> = HashMap::new();
    if !dump.videos.is_empty() {
        let selected = select(dump, options, Some(&store))?;
        of_dump.extend(selected.videos.into_iter().filter_map(|(video, id)| Some((id, video?))));
    }
    let videos = damage.videos().map(|id| (of_dump.remove(id), id.clone())).collect();
    let damaged = Selected { videos, problems: Vec::new(), warnings: Vec::new() };
    driven(&store, damaged, Some(damage), options, &Prompts::new(options)?, observer)?.finish()
}

/// Ingests a dump, as it was found.
pub(super) fn pass(
    dump: Dump,
    path: &Path,
    options: &IngestOptions,
    prompts: &Prompts,
    observer: &dyn Observer,
) -> Result<Pass, IngestError> {
    let (store, selected) = open(dump, path, options)?;
    Ok(driven(&store, selected, None, options, prompts, observer)?.into_pass())
}

/// An ingest that somebody else drives.
pub(super) fn begin(
    dumps: &[impl AsRef<Path>],
    path: &Path,
    options: &IngestOptions,
    progress: &dyn Progress,
) -> Result<Ingest, IngestError> {
    let (dump, prompts) = (find(dumps, progress)?, Prompts::new(options)?);
    let (store, selected) = open(dump, path, options)?;
    machine(&store, selected, None, options, &prompts)
}

/// Creates the store, if it is not there, and chooses what of a dump is ingested into it.
fn open(dump: Dump, path: &Path, options: &IngestOptions) -> Result<(Store, Selected), IngestError> {
    // Looked at first, so that a mistaken command leaves no empty store behind.
    let existing = Store::open_or_room_for_one(path)?;
    if let Some(store) = &existing {
        // What is in it decides what is selected.
        store.clone().as_single_writer(options.single_writer).restore_index()?;
    }
    let selected = select(dump, options, existing.as_ref())?;
    Ok((Store::create(path)?.as_single_writer(options.single_writer), selected))
}

/// The machine that ingests what is selected, or what of it is damaged.
fn machine(
    store: &Store,
    selected: Selected,
    damage: Option<&Damage>,
    options: &IngestOptions,
    prompts: &Prompts,
) -> Result<Ingest, IngestError> {
    let lock = store.lock_for_writing()?;
    let path = std::path::absolute(store.place()).unwrap_or_else(|_| store.place());
    let address = StoreAddress { path, single_writer: options.single_writer };
    let (tasks, found) = selected.into_tasks(options, prompts, damage);
    Ok(Ingest::new(address, options, tasks, found).locked_by(lock))
}

fn driven(
    store: &Store,
    selected: Selected,
    damage: Option<&Damage>,
    options: &IngestOptions,
    prompts: &Prompts,
    observer: &dyn Observer,
) -> Result<Ingest, IngestError> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()
        .map_err(|source| IngestError::Threads { threads: options.threads, source })?;
    let threads = pool.current_num_threads();
    observer.event(found_in(&selected));
    let mut ingest = machine(store, selected, damage, options, prompts)?.with_jobs(threads);
    let on_step = |plan: &StepPlan| {
        let bytes = plan.source.bytes();
        observer.event(Event::Steps { steps: u64::from(bytes > 0), bytes });
    };
    let on_step = &on_step;
    std::thread::scope(|beside| {
        let (sender, receiver) = mpsc::channel();
        let (to_commit, staged) = mpsc::channel();
        let ended = sender.clone();
        beside.spawn(move || publish_groups(store, &staged, &ended));
        pool.in_place_scope_fifo(|scope| {
            // Jobs that compute, and commits that wait for the disk.
            let (mut running, mut committing) = (0, 0);
            loop {
                if observer.is_cancelled() {
                    ingest.fail(IngestError::Cancelled);
                }
                ingest.take_news().iter().for_each(|news| observer.event(news.event()));
                while running < threads
                    && let Next::Job(job) = ingest.next()
                {
                    let (sender, to_commit) = (sender.clone(), to_commit.clone());
                    running += 1;
                    scope.spawn_fifo(move |_| {
                        // Whoever waits for it is told of a panic, too.
                        let stage = catch_unwind(AssertUnwindSafe(|| match job.stage_at(store, prompts, on_step) {
                            // Whoever packed the tables died between two renames.
                            Err(IngestError::Store(StoreError::NoIndex { .. })) => {
                                store.restore_index()?;
                                job.stage_at(store, prompts, on_step)
                            }
                            other => other,
                        }));
                        // Nobody waits any more after a panic of another one.
                        let _ = match stage {
                            Ok(Ok(JobStage::Staged(staged))) => {
                                sender.send(Told::Staged).is_ok() && to_commit.send((job, staged)).is_ok()
                            }
                            Ok(Ok(JobStage::Done(done))) => sender.send(Told::Ran(job, Ok(Ok(done)))).is_ok(),
                            Ok(Err(error)) => sender.send(Told::Ran(job, Ok(Err(error)))).is_ok(),
                            Err(panic) => sender.send(Told::Ran(job, Err(panic))).is_ok(),
                        };
                    });
                }
                if running + committing == 0 {
                    break;
                }
                let Ok(told) = receiver.recv() else { break };
                let (job, done) = match told {
                    Told::Staged => {
                        running -= 1;
                        committing += 1;
                        continue;
                    }
                    Told::Ran(job, done) => {
                        running -= 1;
                        (job, done)
                    }
                    Told::Published(job, done) => {
                        committing -= 1;
                        (job, done)
                    }
                };
                match done {
                    Ok(Ok(done)) => {
                        if let Err(error) = ingest.accept(done) {
                            ingest.fail(error.into());
                        }
                    }
                    Ok(Err(error)) => ingest.fail_job(&job, error),
                    Err(panic) => resume_unwind(panic),
                }
            }
        });
    });
    Ok(ingest)
}

/// What became of a job, or of a panic in it.
type Ran = std::thread::Result<Result<Done, IngestError>>;

/// What the driver hears of.
enum Told {
    /// A job has ended.
    Ran(Job, Ran),
    /// A commit has all but been made.
    Staged,
    /// It was made, or not.
    Published(Job, Ran),
}

/// Makes commits visible: all that have come while the last ones were, as one group, with one wait for the disk.
fn publish_groups(store: &Store, staged: &mpsc::Receiver<(Job, StagedCommit)>, ended: &mpsc::Sender<Told>) {
    while let Ok(first) = staged.recv() {
        let group: Vec<(Job, StagedCommit)> = std::iter::once(first).chain(staged.try_iter()).collect();
        let (jobs, commits): (Vec<Job>, Vec<StagedCommit>) = group.into_iter().unzip();
        let outcomes = catch_unwind(AssertUnwindSafe(|| store.publish(&commits)));
        let mut outcomes = match outcomes {
            Ok(outcomes) => Ok(outcomes.map(Vec::into_iter).map_err(Some)),
            Err(panic) => Err(Some(panic)),
        };
        for job in jobs {
            let ran = match &mut outcomes {
                Ok(Ok(published)) => {
                    let is_published = published.next().unwrap_or_default();
                    catch_unwind(AssertUnwindSafe(|| Ok(job.published(store, is_published))))
                }
                // The first one tells why.
                Ok(Err(error)) => Ok(Err(error.take().map_or(IngestError::Cancelled, IngestError::from))),
                Err(panic) => panic.take().map_or(Ok(Err(IngestError::Cancelled)), Err),
            };
            // Nobody waits any more after a panic.
            let _ = ended.send(Told::Published(job, ran));
        }
    }
}
