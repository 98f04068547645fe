//! What an ingest would do. Nothing is written, but for a few steps that are compressed to estimate sizes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::IngestError;
use super::candidates::{Candidates, Decision};
use super::findings::Findings;
use super::options::{IngestOptions, Names};
use super::plan::{Committed, VideoPlan};
use super::prompts::Prompts;
use super::report::{DryRun, Event, Observer, PromptMatches, Quarantined};
use super::schedule::committed;
use super::select::{find, found_in, select};
use super::series::{SeriesPlan, StepPlan, StepSource};
use super::task::{Fragment, ShardTask};
use crate::dump::Dump;
use crate::store::{SeriesLayout, Store};

pub(super) fn dry_run(
    dumps: &[impl AsRef<Path>],
    path: &Path,
    options: &IngestOptions,
    observer: &dyn Observer,
) -> Result<DryRun, IngestError> {
    let dump = find(dumps)?;
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
    let (tokens, prompts) = (Names::new(&options.tokens)?, Prompts::new(options)?);
    let selected = select(dump, options, store)?;
    observer.event(found_in(&selected));
    let options = &Arc::new(options.clone());
    let mut found = HashMap::new();
    let mut outcome = DryRun { warnings: prompts.remarks(), ..DryRun::default() };
    let mut problems: Vec<Quarantined> = selected.problems.iter().map(Quarantined::from).collect();
    let mut sampled = Sample::default();
    for (video, id) in &selected.videos {
        let Some(video) = video else { continue };
        if observer.is_cancelled() {
            return Err(IngestError::Cancelled);
        }
        let committed = store.map_or(Ok(Committed::default()), |store| committed(store, id))?;
        let mut plan = VideoPlan::new(video, id.clone(), &tokens, &prompts, options, &committed);
        let mut writes = plan.prompt.fill(&mut plan.kept) || plan.touched;
        for candidates in &mut plan.to_write {
            let Decision::Write(series, steps) = sampled.decide(candidates, &mut plan.findings) else {
                continue;
            };
            writes = true;
            let layout = &series.layout;
            let from_files = |step: &&StepPlan| matches!(step.source, StepSource::Files { .. });
            let (new, old): (Vec<_>, Vec<_>) = steps.iter().partition(|step| candidates.is_new(step.step));
            outcome.ingest += new.len() as u64;
            outcome.skip += old.len() as u64;
            outcome.bytes_in += steps.iter().filter(from_files).map(|step| candidates.bytes_of(step.step)).sum::<u64>();
            let raw = (layout.shape.len() * layout.dtype.size() * steps.len()) as u64;
            outcome.bytes_raw += raw;
            outcome.files_out += layout.files() + 2 * series.numbers.count() as u64;
        }
        outcome.skip += plan.findings.skipped;
        found.extend(plan.findings.prompt_found.map(|found| (id.clone(), found)));
        if writes {
            outcome.videos += 1;
            // Where only the tables are written, the document of the video's group stays as it is.
            let documents_kept = u64::from(plan.to_write.is_empty());
            outcome.files_out += SeriesLayout::FILES_OF_A_VIDEO - documents_kept;
        }
        problems.extend(plan.findings.problems.iter().map(Quarantined::from));
        outcome.warnings.append(&mut plan.findings.remarks);
        observer.event(Event::Steps {
            steps: video.series.iter().map(|series| series.steps.len() as u64).sum(),
            bytes: video.bytes(),
        });
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // an estimate
    {
        outcome.bytes_out_estimate = (outcome.bytes_raw as f64 * sampled.ratio()) as u64;
    }
    problems.sort();
    outcome.prompts = PromptMatches::of(&found);
    outcome.quarantined = problems;
    Ok(outcome)
}

/// What the dry run compresses to estimate sizes.
#[derive(Default)]
struct Sample {
    steps: usize,
    raw: u64,
    written: u64,
}

impl Sample {
    /// Steps compressed at most.
    const STEPS: usize = 6;

    /// Decides what is written of a word, and writes one step of it to a temporary store. If that turns out to be of
    /// another shape or type than its metadata said, it is decided anew.
    fn decide(&mut self, candidates: &mut Candidates, findings: &mut Findings) -> Decision {
        let decision = candidates.decide(findings);
        let Decision::Write(series, steps) = &decision else { return decision };
        let files = |step: &&StepPlan| matches!(step.source, StepSource::Files { .. });
        let Some(step) = steps.iter().filter(files).nth(steps.len() / 2).or_else(|| steps.iter().find(files)) else {
            return decision;
        };
        if self.steps >= Self::STEPS {
            return decision;
        }
        let Some(mut fragment) = Self::written(series, step) else { return decision };
        match fragment.failures.pop() {
            None => {
                self.steps += 1;
                self.raw += (series.layout.shape.len() * series.layout.dtype.size()) as u64;
                self.written += fragment.bytes_out;
                decision
            }
            Some(failure) => match failure.observed {
                Some(observed) if series.found != observed => {
                    // All files of a word are written by one program.
                    steps.iter().filter(files).for_each(|step| candidates.observe(step.step, observed));
                    self.decide(candidates, findings)
                }
                _ => decision,
            },
        }
    }

    fn written(series: &SeriesPlan, step: &StepPlan) -> Option<Fragment> {
        let dir = tempfile::tempdir().ok()?;
        let store = Store::create(dir.path()).ok()?;
        let mut series = series.clone();
        series.layout.steps = 1;
        store.create_generation(&series.video_id, &series.token).ok()?.path().clone_into(&mut series.path);
        ShardTask { series, shard: 0, steps: vec![step.clone()], unchanged_in: None }.run(&store, &|_| {}).ok()
    }

    fn ratio(&self) -> f64 {
        if self.raw == 0 { 1.0 } else { self.written as f64 / self.raw as f64 }
    }
}
