//! Running an ingest on one machine: a few videos at a time are planned, their shards written by all threads, and each
//! video committed by whoever finishes its last shard. Memory holds the plans of those videos and one step per thread.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rayon::ScopeFifo;

use super::candidates::{Candidates, Decision};
use super::commit::{WrittenSeries, commit_video};
use super::damage::{Damage, VideoDamage};
use super::findings::Findings;
use super::options::{IngestOptions, Names, OnError};
use super::plan::{Committed, VideoPlan};
use super::prompts::Prompts;
use super::report::{DumpContents, Event, Observer, PromptMatches, Quarantined, Remark, Report};
use super::select::{Selected, find, found_in, select};
use super::series::{SeriesPlan, StepPlan, StepSource};
use super::task::{Fragment, ShardTask};
use super::{IngestError, into_inner, lock};
use crate::dump::{Dump, Problem, Video};
use crate::store::{Generation, StepRow, Store, StoreError};

pub(super) fn run(
    dumps: &[impl AsRef<Path>],
    path: &Path,
    options: &IngestOptions,
    observer: &dyn Observer,
) -> Result<Report, IngestError> {
    let start = Instant::now();
    let dump = find(dumps)?;
    finish(start, pass(dump, path, options, &Prompts::new(options)?, observer)?)
}

/// Writes what is damaged of a store anew.
pub(super) fn mend(
    dumps: &[impl AsRef<Path>],
    path: &Path,
    damage: &Damage,
    options: &IngestOptions,
    observer: &dyn Observer,
) -> Result<Report, IngestError> {
    let start = Instant::now();
    let dump = if dumps.is_empty() { Dump::default() } else { find(dumps)? };
    let store = Store::open(path)?.as_single_writer(options.single_writer);
    let mut of_dump: HashMap<String, Video> = HashMap::new();
    if !dump.videos.is_empty() {
        let selected = select(dump, options, Some(&store))?;
        of_dump.extend(selected.videos.into_iter().filter_map(|(video, id)| Some((id, video?))));
    }
    let videos = damage.videos().map(|id| (of_dump.remove(id), id.clone())).collect();
    let damaged = Selected { videos, problems: Vec::new(), warnings: Vec::new() };
    finish(start, write(&store, damaged, Some(damage), options, &Prompts::new(options)?, observer)?)
}

fn finish(start: Instant, pass: Pass) -> Result<Report, IngestError> {
    match pass.failed {
        Some(error) => Err(error),
        None => Ok(Report {
            prompts: PromptMatches::of(&pass.prompts),
            contents: Some(pass.contents),
            seconds: start.elapsed().as_secs_f64(),
            ..pass.report
        }),
    }
}

/// What became of a dump.
#[derive(Default)]
pub(super) struct Pass {
    pub report: Report,
    /// Whether the prompt of a video was found, where there are prompts to look in.
    pub prompts: HashMap<String, bool>,
    /// What the store holds of the dump now.
    pub contents: DumpContents,
    /// Generations that are in no commit any more.
    pub replaced: Vec<Generation>,
    /// Why it stopped before its end.
    pub failed: Option<IngestError>,
}

/// Ingests a dump, as it was found.
pub(super) fn pass(
    dump: Dump,
    path: &Path,
    options: &IngestOptions,
    prompts: &Prompts,
    observer: &dyn Observer,
) -> Result<Pass, IngestError> {
    // Looked at first, so that a mistaken command leaves no empty store behind.
    let existing = if path.join("zarr.json").exists() { Some(Store::open(path)?) } else { None };
    let selected = select(dump, options, existing.as_ref())?;
    let store = Store::create(path)?.as_single_writer(options.single_writer);
    write(&store, selected, None, options, prompts, observer)
}

/// Writes the selected videos, or what of them is damaged.
fn write(
    store: &Store,
    selected: Selected,
    damage: Option<&Damage>,
    options: &IngestOptions,
    prompts: &Prompts,
    observer: &dyn Observer,
) -> Result<Pass, IngestError> {
    let _lock = store.lock_for_writing()?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()
        .map_err(|source| IngestError::Threads { threads: options.threads, source })?;
    let session = Session::new(store, options, observer, prompts, selected, damage)?;
    pool.scope_fifo(|scope| {
        for _ in 0..=pool.current_num_threads() {
            session.next_video(scope);
        }
    });
    Ok(session.into_pass())
}

/// The committed state of a video, after finishing a commit that was interrupted. Statistics that cannot be read count
/// as lost.
pub(super) fn committed(store: &Store, video_id: &str) -> Result<Committed, StoreError> {
    let snapshot = store.snapshot();
    let previous = snapshot.read_video(video_id)?;
    let heads = previous.as_ref().and_then(|index| snapshot.read_heads(index).ok().flatten());
    Ok(Committed::new(previous, heads))
}

/// A running ingest.
struct Session<'a> {
    store: &'a Store,
    options: Arc<IngestOptions>,
    tokens: Names,
    prompts: &'a Prompts,
    observer: &'a dyn Observer,
    /// What alone is written, if it is damage that is mended.
    damage: Option<&'a Damage>,
    videos: Mutex<std::vec::IntoIter<(Option<Video>, String)>>,
    report: Mutex<Report>,
    prompts_found: Mutex<HashMap<String, bool>>,
    seen: Mutex<Seen>,
    replaced: Mutex<Vec<Generation>>,
    failed: Mutex<Option<IngestError>>,
    stopped: AtomicBool,
}

/// A video whose words are being written.
struct VideoRun {
    video: Option<Video>,
    committed: Committed,
    plan: Mutex<Option<VideoPlan>>,
    kept: Mutex<Vec<StepRow>>,
    written: Mutex<Vec<WrittenSeries>>,
    tally: Mutex<Tally>,
    open_series: AtomicUsize,
}

/// What tells the videos of an ingest apart.
#[derive(Default)]
struct Seen {
    videos: u64,
    without_seed: u64,
    words: BTreeSet<String>,
    prompts: BTreeSet<String>,
    seeds: BTreeSet<i128>,
}

impl Seen {
    fn add<'a>(&mut self, rows: impl Iterator<Item = &'a StepRow>) {
        let (mut is_empty, mut has_seed) = (true, false);
        for row in rows {
            is_empty = false;
            has_seed |= row.seed.is_some();
            self.seeds.extend(row.seed);
            if !self.words.contains(&row.token) {
                self.words.insert(row.token.clone());
            }
            if let Some(prompt) = row.prompt.as_ref().filter(|prompt| !self.prompts.contains(*prompt)) {
                self.prompts.insert(prompt.clone());
            }
        }
        self.videos += u64::from(!is_empty);
        self.without_seed += u64::from(!is_empty && !has_seed);
    }

    fn merge(&mut self, other: Self) {
        self.videos += other.videos;
        self.without_seed += other.without_seed;
        self.words.extend(other.words);
        self.prompts.extend(other.prompts);
        self.seeds.extend(other.seeds);
    }

    fn contents(&self) -> DumpContents {
        DumpContents {
            videos: self.videos,
            words: self.words.len() as u64,
            prompts: self.prompts.len() as u64,
            seeds: self.seeds.len() as u64,
            without_seed: self.without_seed,
        }
    }
}

/// What is added to the report once the video is committed.
#[derive(Default)]
struct Tally {
    ingested: u64,
    skipped: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// A word whose shards are being written.
struct SeriesRun {
    video: Arc<VideoRun>,
    plan: SeriesPlan,
    candidates: Candidates,
    fragments: Vec<Fragment>,
}

type Shared<T> = Arc<Mutex<Option<T>>>;

impl<'a> Session<'a> {
    fn new(
        store: &'a Store,
        options: &'a IngestOptions,
        observer: &'a dyn Observer,
        prompts: &'a Prompts,
        selected: Selected,
        damage: Option<&'a Damage>,
    ) -> Result<Self, IngestError> {
        observer.event(found_in(&selected));
        let session = Self {
            store,
            options: Arc::new(options.clone()),
            tokens: Names::new(&options.tokens)?,
            prompts,
            observer,
            damage,
            videos: Mutex::new(selected.videos.into_iter()),
            report: Mutex::default(),
            prompts_found: Mutex::default(),
            seen: Mutex::default(),
            replaced: Mutex::default(),
            failed: Mutex::default(),
            stopped: AtomicBool::new(false),
        };
        session.note(Findings {
            problems: selected.problems,
            remarks: selected
                .warnings
                .iter()
                .map(|warning| Remark::new(&warning.path, warning.problem.to_string()))
                .chain(session.prompts.remarks())
                .collect(),
            ..Findings::default()
        });
        Ok(session)
    }

    fn into_pass(self) -> Pass {
        let mut report = into_inner(self.report);
        report.quarantined.sort();
        report.quarantined.dedup();
        report.warnings.sort();
        Pass {
            report,
            prompts: into_inner(self.prompts_found),
            contents: into_inner(self.seen).contents(),
            replaced: into_inner(self.replaced),
            failed: into_inner(self.failed),
        }
    }

    /// Starts with the next video, if there is one.
    fn next_video<'scope>(&'scope self, scope: &ScopeFifo<'scope>) {
        let next = lock(&self.videos).next();
        if let Some((video, id)) = next.filter(|_| !self.is_stopped()) {
            scope.spawn_fifo(move |scope| {
                let started = self.start_video(video, id, scope);
                self.stop_on(started);
            });
        }
    }

    fn start_video<'scope>(
        &'scope self,
        video: Option<Video>,
        id: String,
        scope: &ScopeFifo<'scope>,
    ) -> Result<(), StoreError> {
        let damage = self.damage.and_then(|damage| damage.of(&id));
        let committed = match self.store.mend(&id).and_then(|()| committed(self.store, &id)) {
            Err(StoreError::Damaged { .. } | StoreError::Parquet { .. }) if damage == Some(&VideoDamage::Rows) => {
                Committed { generation: self.store.committed(&id)?, ..Committed::default() }
            }
            Err(error @ (StoreError::Damaged { .. } | StoreError::Parquet { .. })) => {
                // One damaged part is no reason to stop: its video waits, the others are ingested.
                let problem = Problem::Remark(format!("the store's index of it cannot be read: {error}"));
                let dir = video.map_or_else(|| self.store.place(), |video| video.dir);
                self.note(Findings { problems: vec![problem.at(dir)], ..Findings::default() });
                self.next_video(scope);
                return Ok(());
            }
            committed => committed?,
        };
        let mut plan = match (&video, damage) {
            (video, Some(damage @ VideoDamage::Words(_))) => {
                VideoPlan::of_damage(video.as_ref(), id, damage, &self.options, &committed)
            }
            (Some(video), _) => VideoPlan::new(video, id, &self.tokens, self.prompts, &self.options, &committed),
            (None, _) => VideoPlan { video_id: id, ..VideoPlan::default() },
        };
        let kept = std::mem::take(&mut plan.kept);
        let to_write = std::mem::take(&mut plan.to_write);
        let findings = std::mem::take(&mut plan.findings);
        lock(&self.prompts_found).extend(findings.prompt_found.map(|found| (plan.video_id.clone(), found)));
        let tally = Tally { skipped: findings.skipped, ..Tally::default() };
        let (steps, bytes) = findings.done;
        self.observer.event(Event::Steps { steps, bytes });
        self.note(findings);
        let run = Arc::new(VideoRun {
            video,
            committed,
            plan: Mutex::new(Some(plan)),
            kept: Mutex::new(kept),
            written: Mutex::default(),
            tally: Mutex::new(tally),
            // One more, so that the video is not finished before all of its words are started.
            open_series: AtomicUsize::new(to_write.len() + 1),
        });
        for candidates in to_write {
            self.start_series(run.clone(), candidates, scope)?;
        }
        self.close_series(&run, scope)
    }

    /// Decides what is written of a word, and hands out its shards.
    fn start_series<'scope>(
        &'scope self,
        video: Arc<VideoRun>,
        mut candidates: Candidates,
        scope: &ScopeFifo<'scope>,
    ) -> Result<(), StoreError> {
        let mut findings = Findings::default();
        let decision = candidates.decide(&mut findings);
        self.note(findings);
        let Decision::Write(mut plan, steps) = decision else {
            lock(&video.tally).skipped += candidates.unchanged();
            lock(&video.kept).extend(candidates.into_stored());
            return self.close_series(&video, scope);
        };
        self.store.create_generation(&plan.video_id, &plan.token)?.path().clone_into(&mut plan.path);
        let per_shard = plan.layout.steps_per_shard();
        let has_heads = video.committed.has_heads(&plan.token);
        let previous = candidates.previous_generation(&plan, self.store).filter(|_| has_heads);
        let task = |(shard, steps): (usize, &[StepPlan])| ShardTask {
            series: (*plan).clone(),
            shard,
            steps: steps.to_vec(),
            unchanged_in: previous
                .filter(|_| candidates.are_unchanged(steps, shard * per_shard, per_shard))
                .map(str::to_owned),
        };
        let tasks: Vec<ShardTask> = steps.chunks(per_shard).enumerate().map(task).collect();
        let open = Arc::new(AtomicUsize::new(tasks.len()));
        let run: Shared<SeriesRun> =
            Arc::new(Mutex::new(Some(SeriesRun { video, plan: *plan, candidates, fragments: Vec::new() })));
        for task in tasks {
            let (open, run) = (open.clone(), run.clone());
            scope.spawn_fifo(move |scope| {
                let done = self.write_shard(&task, &open, &run, scope);
                self.stop_on(done);
            });
        }
        Ok(())
    }

    fn write_shard<'scope>(
        &'scope self,
        task: &ShardTask,
        open: &AtomicUsize,
        run: &Shared<SeriesRun>,
        scope: &ScopeFifo<'scope>,
    ) -> Result<(), StoreError> {
        if self.is_stopped() {
            return Ok(());
        }
        let fragment = task.run(self.store, &|plan| {
            let bytes = match &plan.source {
                StepSource::Files { files, .. } => files.bytes(),
                StepSource::Stored { .. } => 0,
            };
            self.observer.event(Event::Steps { steps: u64::from(bytes > 0), bytes });
        })?;
        if let Some(run) = &mut *lock(run) {
            run.fragments.push(fragment);
        }
        if open.fetch_sub(1, Ordering::AcqRel) == 1 {
            let finished = lock(run).take();
            return finished.map_or(Ok(()), |finished| self.finish_series(finished, scope));
        }
        Ok(())
    }

    /// All shards of a word are written: it is complete, or is started again without the steps that failed.
    fn finish_series<'scope>(&'scope self, run: SeriesRun, scope: &ScopeFifo<'scope>) -> Result<(), StoreError> {
        let SeriesRun { video, plan, mut candidates, mut fragments } = run;
        let failures: Vec<_> =
            fragments.iter_mut().flat_map(|fragment| std::mem::take(&mut fragment.failures)).collect();
        if !failures.is_empty() {
            self.store.generation_at(&plan.path)?.remove();
            let mut problems = Vec::new();
            let mut store_is_damaged = false;
            for failure in failures {
                store_is_damaged |= failure.in_store;
                match failure.observed {
                    // It may be the others that are wrong: the majority decides.
                    Some(observed) => candidates.observe(failure.step, observed),
                    None => {
                        candidates.drop_step(failure.step);
                        problems.push(failure.problem);
                    }
                }
            }
            self.note(Findings { problems, ..Findings::default() });
            if store_is_damaged {
                // What is left of it is worth more than nothing.
                lock(&video.kept).extend(candidates.into_stored());
                return self.close_series(&video, scope);
            }
            return self.start_series(video, candidates, scope);
        }
        let remarks: Vec<Remark> = fragments
            .iter()
            .flat_map(|fragment| &fragment.remarks)
            .map(|remark| Remark::new(&remark.path, remark.problem.to_string()))
            .collect();
        self.note(Findings { remarks, ..Findings::default() });
        {
            let mut tally = lock(&video.tally);
            for row in fragments.iter().flat_map(|fragment| &fragment.rows) {
                if candidates.is_new(row.step) {
                    tally.ingested += 1;
                    tally.bytes_in += candidates.bytes_of(row.step);
                } else if candidates.has_files(row.step) {
                    tally.skipped += 1;
                }
            }
            tally.bytes_out += fragments.iter().map(|fragment| fragment.bytes_out).sum::<u64>();
        }
        let written = WrittenSeries::finish(self.store, &plan, &candidates, fragments, &video.committed)?;
        lock(&video.written).push(written);
        self.close_series(&video, scope)
    }

    /// One word less to wait for; after the last, the video is committed and the next one started.
    fn close_series<'scope>(&'scope self, run: &VideoRun, scope: &ScopeFifo<'scope>) -> Result<(), StoreError> {
        if run.open_series.fetch_sub(1, Ordering::AcqRel) > 1 || self.is_stopped() {
            return Ok(());
        }
        let Some(plan) = lock(&run.plan).take() else { return Ok(()) };
        let (mut kept, mut written) = (std::mem::take(&mut *lock(&run.kept)), std::mem::take(&mut *lock(&run.written)));
        let has_news = plan.prompt.fill(&mut kept);
        let mut seen = Seen::default();
        seen.add(kept.iter().chain(written.iter().flat_map(WrittenSeries::rows)));
        if plan.touched || has_news || !written.is_empty() {
            for series in &mut written {
                series.describe(&plan.prompt);
            }
            let video_id = plan.video_id.clone();
            let stays: HashSet<&str> = kept.iter().map(StepRow::series_path).collect();
            let rows = run.committed.rows().iter().map(StepRow::series_path);
            let replaced: HashSet<&str> = rows.filter(|path| !stays.contains(path)).collect();
            let replaced: Vec<Generation> =
                replaced.into_iter().filter_map(|path| self.store.generation_at(path).ok()).collect();
            if !commit_video(self.store, plan.video_id, plan.summary, kept, written, &run.committed)? {
                // Another ingest committed this video meanwhile: what is to do is decided anew on top of that.
                return self.start_video(run.video.clone(), video_id, scope);
            }
            lock(&self.replaced).extend(replaced);
            self.observer.event(Event::Committed { video_id: &video_id });
        }
        lock(&self.seen).merge(seen);
        let tally = std::mem::take(&mut *lock(&run.tally));
        let mut report = lock(&self.report);
        report.ingested += tally.ingested;
        report.skipped += tally.skipped;
        report.bytes_in += tally.bytes_in;
        report.bytes_out += tally.bytes_out;
        drop(report);
        self.next_video(scope);
        Ok(())
    }

    /// Adds findings to the report and tells the observer.
    fn note(&self, findings: Findings) {
        for problem in findings.problems {
            let quarantined = Quarantined::from(&problem);
            self.observer.event(Event::Quarantined(&quarantined));
            lock(&self.report).quarantined.push(quarantined);
            if self.options.on_error == OnError::Fail {
                self.fail(problem.into());
            }
        }
        for remark in findings.remarks {
            self.observer.event(Event::Warning(&remark));
            lock(&self.report).warnings.push(remark);
        }
    }

    /// Whether nothing new is to be started.
    fn is_stopped(&self) -> bool {
        if self.observer.is_cancelled() {
            self.fail(IngestError::Cancelled);
        }
        self.stopped.load(Ordering::Relaxed)
    }

    fn stop_on(&self, result: Result<(), StoreError>) {
        if let Err(error) = result {
            self.fail(error.into());
        }
    }

    /// Stops the ingest; the first error is the one that is reported.
    fn fail(&self, error: IngestError) {
        self.stopped.store(true, Ordering::Relaxed);
        lock(&self.failed).get_or_insert(error);
    }
}
