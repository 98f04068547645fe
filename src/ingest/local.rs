//! An ingest on the threads of this machine. As many jobs run as there are threads: memory holds one step for each, and
//! the plans of one video more.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::mpsc;

use super::IngestError;
use super::damage::Damage;
use super::job::StoreAddress;
use super::options::IngestOptions;
use super::prompts::Prompts;
use super::report::{Event, Observer, Report};
use super::run::{Ingest, Next, Pass};
use super::select::{Selected, find, found_in, select};
use super::series::StepPlan;
use crate::dump::{Dump, Video};
use crate::progress::Progress;
use crate::store::Store;

pub(super) fn run(
    dumps: &[impl AsRef<Path>],
    path: &Path,
    options: &IngestOptions,
    observer: &dyn Observer,
) -> Result<Report, IngestError> {
    let (dump, prompts) = (find(dumps, observer)?, Prompts::new(options)?);
    let (store, selected) = open(dump, path, options)?;
    driven(&store, selected, None, options, &prompts, observer)?.finish()
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
    pool.in_place_scope_fifo(|scope| {
        let (sender, receiver) = mpsc::channel();
        let mut running = 0;
        loop {
            if observer.is_cancelled() {
                ingest.fail(IngestError::Cancelled);
            }
            ingest.take_news().iter().for_each(|news| observer.event(news.event()));
            while running < threads
                && let Next::Job(job) = ingest.next()
            {
                let sender = sender.clone();
                running += 1;
                scope.spawn_fifo(move |_| {
                    // Whoever waits for it is told of a panic, too.
                    let done = catch_unwind(AssertUnwindSafe(|| job.run_at(store, prompts, on_step)));
                    // Nobody waits any more after a panic of another one.
                    let _ = sender.send((job, done));
                });
            }
            if running == 0 {
                break;
            }
            let Ok((job, done)) = receiver.recv() else { break };
            running -= 1;
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
    Ok(ingest)
}
