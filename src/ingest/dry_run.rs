//! What an ingest would do: its jobs are taken for done. Nothing is written, but for a few steps that are compressed to
//! estimate sizes.

use std::collections::HashMap;
use std::path::Path;

use super::IngestError;
use super::commit::{CommitOutcome, CommitTask, WrittenWord};
use super::job::{Done, Job, StoreAddress};
use super::options::{IngestOptions, OnError};
use super::prompts::Prompts;
use super::report::{DryRun, Event, Observer, PromptMatches};
use super::run::{Ingest, Next};
use super::select::{find, found_in, select};
use super::series::{StepPlan, StepSource};
use super::task::{Failure, Fragment, ShardTask};
use crate::dump::{Dump, Problem, StepPeek};
use crate::store::{SeriesLayout, Store, has_step_arrays};

pub(super) fn dry_run(
    dumps: &[impl AsRef<Path>],
    path: &Path,
    options: &IngestOptions,
    observer: &dyn Observer,
) -> Result<DryRun, IngestError> {
    let dump = find(dumps, observer)?;
    let store = Store::open_or_room_for_one(path)?;
    dry_run_of(dump, store.as_ref(), options, observer)
}

/// The dry run of a dump, as it was found.
pub(super) fn dry_run_of(
    dump: Dump,
    store: Option<&Store>,
    options: &IngestOptions,
    observer: &dyn Observer,
) -> Result<DryRun, IngestError> {
    let prompts = Prompts::new(options)?;
    let selected = select(dump, options, store)?;
    observer.event(found_in(&selected));
    // All that would be left out is named.
    let options = IngestOptions { on_error: OnError::Quarantine, ..options.clone() };
    let nowhere = StoreAddress { path: store.map(Store::place).unwrap_or_default(), single_writer: true };
    let (tasks, found) = selected.into_tasks(&options, &prompts, None);
    let mut ingest = Ingest::new(nowhere, &options, tasks, found).with_jobs(1);
    let mut looked = Looked::default();
    while let Next::Job(job) = ingest.next() {
        ingest.accept(match job {
            Job::Plan(ticket, _, task) => Done::Plan(ticket, Box::new(task.look(store, &prompts)?)),
            Job::Shard(ticket, _, task) => {
                let fragment = looked.shard(&task);
                observer.event(Event::Steps { steps: files(&task.steps).count() as u64, bytes: bytes_of(&task.steps) });
                Done::Shard(ticket, Box::new(fragment))
            }
            Job::Commit(ticket, _, task) => {
                looked.commit(&task);
                Done::Commit(ticket, CommitOutcome::Committed)
            }
        })?;
        for news in ingest.take_news() {
            if let event @ Event::Steps { .. } = news.event() {
                observer.event(event);
            }
        }
        if observer.is_cancelled() {
            ingest.fail(IngestError::Cancelled);
        }
    }
    let pass = ingest.into_pass();
    if let Some(error) = pass.failed {
        return Err(error);
    }
    Ok(DryRun {
        ingest: pass.report.ingested,
        skip: pass.report.skipped,
        prompts: PromptMatches::of(&pass.prompts),
        quarantined: pass.report.quarantined,
        warnings: pass.report.warnings,
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // an estimate
        bytes_out_estimate: (looked.outcome.bytes_raw as f64 * looked.ratio()) as u64,
        ..looked.outcome
    })
}

/// The steps that come from files.
fn files(steps: &[StepPlan]) -> impl Iterator<Item = &StepPlan> {
    steps.iter().filter(|step| matches!(step.source, StepSource::Files { .. }))
}

fn bytes_of(steps: &[StepPlan]) -> u64 {
    steps.iter().map(|step| step.source.bytes()).sum()
}

/// What was looked at so far, and what of it was compressed.
#[derive(Default)]
struct Looked {
    outcome: DryRun,
    /// Bytes to read for the words that are not committed yet, by the directory of their arrays.
    bytes_in: HashMap<String, u64>,
    /// What the steps of a word turned out to be, by the directory of its arrays.
    observed: HashMap<String, StepPeek>,
    sampled: usize,
    raw: u64,
    written: u64,
}

impl Looked {
    /// Steps compressed at most.
    const STEPS: usize = 6;

    /// Takes a shard for written. Of the first one of a word, one step is written to a temporary store; if that turns
    /// out to be of another shape or type than its metadata said, so are all: files of a word are written by one
    /// program.
    fn shard(&mut self, task: &ShardTask) -> Fragment {
        let (series, input) = (&task.target, &task.input);
        if task.shard == 0 {
            let observed = self.sample(task);
            self.observed.extend(observed.map(|observed| (series.path.clone(), observed)));
        }
        *self.bytes_in.entry(series.path.clone()).or_default() += bytes_of(&task.steps);
        let first = task.shard * series.layout.steps_per_shard();
        let mut fragment = Fragment::default();
        fragment.rows.extend(task.steps.iter().enumerate().map(|(index, plan)| series.row(plan.step, first + index)));
        if let Some(&observed) = self.observed.get(&series.path) {
            let problem =
                || Problem::Mixed { found: observed.to_string(), expected: input.found.to_string() }.at(&series.source);
            let failure = |plan: &StepPlan| Failure {
                step: plan.step,
                problem: problem(),
                observed: Some(observed),
                in_store: false,
            };
            fragment.failures.extend(files(&task.steps).map(failure));
        }
        fragment
    }

    /// Writes one step. Returns what it is, if that is not what was planned for.
    fn sample(&mut self, task: &ShardTask) -> Option<StepPeek> {
        let middle = files(&task.steps).nth(task.steps.len() / 2).or_else(|| files(&task.steps).next());
        let step = middle.filter(|_| self.sampled < Self::STEPS)?;
        let dir = tempfile::tempdir().ok()?;
        let store = Store::create(dir.path()).ok()?;
        let mut target = task.target.clone();
        target.layout.steps = 1;
        target.path = format!("{}/sample", store.video_key(&target.video_id));
        let layout = target.layout;
        let sample =
            ShardTask { target, input: task.input.clone(), shard: 0, steps: vec![step.clone()], unchanged_in: None };
        let mut fragment = sample.run(&store, &|_| {}).ok()?;
        match fragment.failures.pop() {
            None => {
                self.sampled += 1;
                self.raw += (layout.shape.len() * layout.dtype.size()) as u64;
                self.written += fragment.bytes_out;
                None
            }
            Some(failure) => failure.observed.filter(|observed| *observed != task.input.found),
        }
    }

    /// Takes a video for committed.
    fn commit(&mut self, task: &CommitTask) {
        let Some(words) = task.words() else { return };
        let outcome = &mut self.outcome;
        for WrittenWord { target: series, rows, .. } in words {
            let layout = &series.layout;
            outcome.bytes_in += self.bytes_in.remove(&series.path).unwrap_or(0);
            outcome.bytes_raw += (layout.shape.len() * layout.dtype.size() * layout.steps) as u64;
            outcome.files_out += layout.files(has_step_arrays(rows.iter().map(|row| row.step)), &series.numbers);
        }
        outcome.videos += 1;
        outcome.files_out += SeriesLayout::FILES_OF_A_VIDEO;
    }

    fn ratio(&self) -> f64 {
        if self.raw == 0 { 1.0 } else { self.written as f64 / self.raw as f64 }
    }
}
