//! The decisions of an ingest, and nothing else: which job is next, and what follows from what one has left. It has no
//! thread, no lock and no file; whoever drives it runs the jobs, here or elsewhere.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Instant;

use arrow::array::RecordBatch;

use super::candidates::{Candidates, Decision};
use super::commit::{Change, CommitOutcome, CommitTask, WrittenWord};
use super::error::AcceptError;
use super::findings::Findings;
use super::job::{Done, Job, StoreAddress, Ticket};
use super::options::{IngestOptions, OnError};
use super::plan::{PlanTask, VideoPlan};
use super::report::{Event, PromptMatches, Quarantined, Remark, Report, Seen};
use super::series::{SeriesPlan, SeriesTarget, StepPlan};
use super::task::{Fragment, ShardTask};
use super::{DumpContents, IngestError};
use crate::store::storage::Guard;
use crate::store::{StepRow, new_generation, series_path};

/// Rows of `heads` in commits that have not come back: with more, no further video is begun.
const COMMITTING_ROWS: usize = 200_000;

/// An ingest, as a machine: it gives out jobs, takes what they leave, and ends with a report.
///
/// Jobs of different videos and words can run at the same time, in any order; a video is committed once all of its
/// words are written. A few videos are planned ahead, so that what is held in memory does not grow with the dump.
#[derive(Debug)]
pub struct Ingest {
    id: String,
    store: StoreAddress,
    on_error: OnError,
    /// How many videos are planned or written at once.
    ahead: usize,
    /// Videos whose commits were given out or are ready, and rows of `heads` that they hold.
    committing: (usize, usize),
    waiting: VecDeque<PlanTask>,
    /// By number.
    videos: BTreeMap<u64, VideoRun>,
    begun: u64,
    /// What can be done next.
    ready: Ready,
    /// The jobs that were given out and have not come back, by number.
    out: HashMap<u64, Place>,
    given: u64,
    outcome: Pass,
    seen: Seen,
    news: Vec<News>,
    start: Instant,
    /// Keeps `gc` away.
    lock: Option<Guard>,
}

/// What is next.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // it is taken apart at once
pub enum Next {
    /// This can be run.
    Job(Job),
    /// Nothing before a job that was given out has come back.
    Wait,
    /// Nothing: all is done, or what was given out when the ingest was stopped has come back.
    End,
}

/// What became of a dump.
#[derive(Debug, Default)]
pub(super) struct Pass {
    pub report: Report,
    /// Whether the prompt of a video was found, where there are prompts to look in.
    pub prompts: HashMap<String, bool>,
    /// What the store holds of the dump now.
    pub contents: DumpContents,
    /// Directories of arrays that are in no commit any more, below the store.
    pub replaced: Vec<String>,
    /// Why it stopped before its end.
    pub failed: Option<IngestError>,
}

/// What happened since it was last asked.
#[derive(Debug)]
pub(super) enum News {
    /// Steps that need no work, or cannot be worked on, and their bytes.
    Steps(u64, u64),
    Committed(String),
    Quarantined(Quarantined),
    Warning(Remark),
}

impl News {
    /// As observers are told.
    pub fn event(&self) -> Event<'_> {
        match self {
            &Self::Steps(steps, bytes) => Event::Steps { steps, bytes },
            Self::Committed(video_id) => Event::Committed { video_id },
            Self::Quarantined(left) => Event::Quarantined(left),
            Self::Warning(remark) => Event::Warning(remark),
        }
    }
}

/// What a job is of: the number of the video, and of the word in it.
#[derive(Debug, Clone, Copy)]
enum Place {
    Plan(u64),
    Shard(u64, usize),
    Commit(u64),
}

#[derive(Debug, Default)]
struct Ready {
    commits: VecDeque<(u64, CommitTask)>,
    /// Videos that another writer committed meanwhile.
    plans: VecDeque<u64>,
    shards: VecDeque<(u64, usize, ShardTask)>,
}

/// A video that is planned, written or committed.
#[derive(Debug)]
struct VideoRun {
    task: PlanTask,
    state: VideoState,
}

#[derive(Debug)]
enum VideoState {
    Planned,
    Written(Box<Writing>),
    Committed(Box<Tally>),
}

/// A video whose words are being written.
#[derive(Debug)]
struct Writing {
    plan: VideoPlan,
    /// Rows of the words that keep their arrays.
    kept: Vec<StepRow>,
    words: Vec<Option<Word>>,
    written: Vec<WrittenWord>,
    /// Arrays that were begun in vain.
    discarded: Vec<String>,
    tally: Tally,
}

/// A word whose shards are being written.
#[derive(Debug)]
struct Word {
    target: SeriesTarget,
    candidates: Candidates,
    fragments: Vec<Fragment>,
    open_shards: usize,
}

/// What is added to the report once the video is done.
#[derive(Debug, Default)]
struct Tally {
    ingested: u64,
    skipped: u64,
    bytes_in: u64,
    bytes_out: u64,
    seen: Seen,
    replaced: Vec<String>,
    is_commit: bool,
    /// Rows of `heads` that its commit holds.
    heads: usize,
}

impl Ingest {
    /// An ingest of these videos. The problems that were found before are in its report.
    pub(super) fn new(
        store: StoreAddress,
        options: &IngestOptions,
        videos: impl IntoIterator<Item = PlanTask>,
        found: Findings,
    ) -> Self {
        let mut ingest = Self {
            id: new_generation(),
            store,
            on_error: options.on_error,
            ahead: 2,
            committing: (0, 0),
            waiting: videos.into_iter().collect(),
            videos: BTreeMap::new(),
            begun: 0,
            ready: Ready::default(),
            out: HashMap::new(),
            given: 0,
            outcome: Pass::default(),
            seen: Seen::default(),
            news: Vec::new(),
            start: Instant::now(),
            lock: None,
        };
        ingest.note(found);
        ingest
    }

    /// The same for so many jobs at once: one video more is planned or written at a time.
    #[must_use]
    pub fn with_jobs(mut self, at_once: usize) -> Self {
        self.ahead = at_once.max(1) + 1;
        self
    }

    /// The same, holding a lock that keeps `gc` away.
    pub(super) fn locked_by(mut self, lock: Guard) -> Self {
        self.lock = Some(lock);
        self
    }

    /// What can be run now. A job that was given out is not given out again.
    #[allow(clippy::should_implement_trait)] // it may wait
    pub fn next(&mut self) -> Next {
        if self.outcome.failed.is_some() {
            return if self.out.is_empty() { Next::End } else { Next::Wait };
        }
        if let Some((video, task)) = self.ready.commits.pop_front() {
            let ticket = self.ticket(Place::Commit(video));
            return Next::Job(Job::Commit(ticket, self.store.clone(), Box::new(task)));
        }
        let again = self.ready.plans.pop_front();
        if let Some(video) = again.or_else(|| self.begin_video())
            && let Some(task) = self.videos.get(&video).map(|run| run.task.clone())
        {
            let ticket = self.ticket(Place::Plan(video));
            return Next::Job(Job::Plan(ticket, self.store.clone(), Box::new(task)));
        }
        if let Some((video, word, task)) = self.ready.shards.pop_front() {
            let ticket = self.ticket(Place::Shard(video, word));
            return Next::Job(Job::Shard(ticket, self.store.clone(), Box::new(task)));
        }
        if self.videos.is_empty() { Next::End } else { Next::Wait }
    }

    /// Takes what a job has left. What comes a second time, because the job was run twice, changes nothing.
    ///
    /// # Errors
    /// If the job was not given out by this ingest. Nothing changes then.
    pub fn accept(&mut self, done: Done) -> Result<(), AcceptError> {
        let &Ticket { ref ingest, number } = done.ticket();
        if *ingest != self.id || number >= self.given {
            return Err(AcceptError::Foreign);
        }
        let Some(&place) = self.out.get(&number) else { return Ok(()) };
        let (Place::Plan(video) | Place::Shard(video, _) | Place::Commit(video)) = place;
        let Some(VideoRun { task, state }) = self.videos.remove(&video) else { return Ok(()) };
        let state = match (place, state, done) {
            (Place::Plan(_), VideoState::Planned, Done::Plan(_, plan)) => self.planned(video, &task, *plan),
            (Place::Shard(_, word), VideoState::Written(writing), Done::Shard(_, fragment)) => {
                self.written(video, &task, word, writing, *fragment)
            }
            (Place::Commit(_), VideoState::Committed(tally), Done::Commit(_, outcome)) => {
                self.committed(video, &task, *tally, outcome)
            }
            (_, state, _) => {
                self.videos.insert(video, VideoRun { task, state });
                return Err(AcceptError::Other);
            }
        };
        self.out.remove(&number);
        if let Some(state) = state {
            self.videos.insert(video, VideoRun { task, state });
        }
        Ok(())
    }

    /// Stops: no further job is given out. The first reason is the one that is told.
    pub fn fail(&mut self, error: IngestError) {
        self.outcome.failed.get_or_insert(error);
    }

    /// Takes back a job that could not be run, so that nothing waits for it, and stops.
    pub(super) fn fail_job(&mut self, job: &Job, error: IngestError) {
        self.out.remove(&job.ticket().number);
        self.fail(error);
    }

    /// What was done.
    ///
    /// # Errors
    /// Why it was stopped, if it was; [`IngestError::Cancelled`] if jobs are left.
    pub fn finish(self) -> Result<Report, IngestError> {
        let is_done = self.waiting.is_empty() && self.videos.is_empty();
        let start = self.start;
        let pass = self.into_pass();
        match pass.failed {
            Some(error) => Err(error),
            None if !is_done => Err(IngestError::Cancelled),
            None => Ok(Report {
                prompts: PromptMatches::of(&pass.prompts),
                contents: Some(pass.contents),
                seconds: start.elapsed().as_secs_f64(),
                ..pass.report
            }),
        }
    }

    /// All that is known of what was done, whether or not it was stopped.
    pub(super) fn into_pass(mut self) -> Pass {
        let report = &mut self.outcome.report;
        report.quarantined.sort();
        report.quarantined.dedup();
        report.warnings.sort();
        self.outcome.contents = self.seen.contents();
        self.outcome
    }

    /// What happened since it was last asked.
    pub(super) fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    fn ticket(&mut self, place: Place) -> Ticket {
        let number = self.given;
        self.given += 1;
        self.out.insert(number, place);
        Ticket { ingest: self.id.clone(), number }
    }

    /// Begins with the next video, if there is one and there is room.
    fn begin_video(&mut self) -> Option<u64> {
        let (videos, rows) = self.committing;
        if self.videos.len() - videos >= self.ahead || videos > 0 && rows >= COMMITTING_ROWS {
            return None;
        }
        let task = self.waiting.pop_front()?;
        let video = self.begun;
        self.begun += 1;
        self.videos.insert(video, VideoRun { task, state: VideoState::Planned });
        Some(video)
    }

    /// It is known what of a video is new.
    fn planned(&mut self, video: u64, task: &PlanTask, mut plan: VideoPlan) -> Option<VideoState> {
        let kept = std::mem::take(&mut plan.kept);
        let to_write = std::mem::take(&mut plan.to_write);
        let findings = std::mem::take(&mut plan.findings);
        self.outcome.prompts.extend(findings.prompt_found.map(|found| (task.video_id.clone(), found)));
        let tally = Tally { skipped: findings.skipped, ..Tally::default() };
        self.news.push(News::Steps(findings.done.0, findings.done.1));
        self.note(findings);
        let words = to_write.iter().map(|_| None).collect();
        let mut writing = Box::new(Writing { plan, kept, words, written: Vec::new(), discarded: Vec::new(), tally });
        for (word, candidates) in to_write.into_iter().enumerate() {
            self.begin_word(video, word, &mut writing, candidates);
        }
        self.close(video, task, writing)
    }

    /// Decides what is written of a word, and makes its shards ready.
    fn begin_word(&mut self, video: u64, word: usize, writing: &mut Writing, mut candidates: Candidates) {
        let mut findings = Findings::default();
        let decision = candidates.decide(&mut findings);
        self.note(findings);
        let Decision::Write(plan) = decision else {
            writing.tally.skipped += candidates.unchanged();
            writing.kept.extend(candidates.into_stored());
            return;
        };
        let SeriesPlan { mut target, input, steps } = *plan;
        target.path = series_path(&writing.plan.dir, &target.token, &new_generation());
        let per_shard = target.layout.steps_per_shard();
        let has_heads = writing.plan.with_heads.contains(&target.token);
        let previous = candidates.previous_generation(&target).filter(|_| has_heads);
        let task = |(shard, steps): (usize, &[StepPlan])| ShardTask {
            target: target.clone(),
            input: input.clone(),
            shard,
            steps: steps.to_vec(),
            unchanged_in: previous
                .filter(|_| candidates.are_unchanged(steps, shard * per_shard, per_shard))
                .map(str::to_owned),
        };
        let tasks: Vec<ShardTask> = steps.chunks(per_shard).enumerate().map(task).collect();
        let open_shards = tasks.len();
        self.ready.shards.extend(tasks.into_iter().map(|task| (video, word, task)));
        if let Some(place) = writing.words.get_mut(word) {
            *place = Some(Word { target, candidates, fragments: Vec::new(), open_shards });
        }
    }

    /// A shard is written, or could not be.
    fn written(
        &mut self,
        video: u64,
        task: &PlanTask,
        number: usize,
        mut writing: Box<Writing>,
        fragment: Fragment,
    ) -> Option<VideoState> {
        let place = writing.words.get_mut(number)?;
        if let Some(word) = place {
            word.fragments.push(fragment);
            word.open_shards -= 1;
            if word.open_shards == 0
                && let Some(word) = place.take()
            {
                self.finish_word(video, number, &mut writing, word);
            }
        }
        self.close(video, task, writing)
    }

    /// All shards of a word are written: it is complete, or is begun again without the steps that failed.
    fn finish_word(&mut self, video: u64, number: usize, writing: &mut Writing, word: Word) {
        let Word { target, mut candidates, mut fragments, .. } = word;
        let failures: Vec<_> =
            fragments.iter_mut().flat_map(|fragment| std::mem::take(&mut fragment.failures)).collect();
        if !failures.is_empty() {
            writing.discarded.push(target.path);
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
                writing.kept.extend(candidates.into_stored());
            } else {
                self.begin_word(video, number, writing, candidates);
            }
            return;
        }
        let remarks = fragments
            .iter()
            .flat_map(|fragment| &fragment.remarks)
            .map(|remark| Remark::new(&remark.path, remark.problem.to_string()))
            .collect();
        self.note(Findings { remarks, ..Findings::default() });
        let tally = &mut writing.tally;
        for row in fragments.iter().flat_map(|fragment| &fragment.rows) {
            if candidates.is_new(row.step) {
                tally.ingested += 1;
                tally.bytes_in += candidates.bytes_of(row.step);
            } else if candidates.has_files(row.step) {
                tally.skipped += 1;
            }
        }
        tally.bytes_out += fragments.iter().map(|fragment| fragment.bytes_out).sum::<u64>();
        writing.written.push(WrittenWord::new(target, &candidates, fragments));
    }

    /// Once no word is open any more, the video is committed, if anything of it is new.
    fn close(&mut self, video: u64, task: &PlanTask, writing: Box<Writing>) -> Option<VideoState> {
        if writing.words.iter().any(Option::is_some) {
            return Some(VideoState::Written(writing));
        }
        let Writing { plan, mut kept, mut written, discarded, mut tally, .. } = *writing;
        let has_news = plan.prompt.fill(&mut kept);
        for word in &mut written {
            plan.prompt.fill(&mut word.rows);
        }
        tally.seen.add(kept.iter().chain(written.iter().flat_map(|word| &word.rows)));
        tally.is_commit = plan.touched || has_news || !written.is_empty();
        let change = tally.is_commit.then(|| {
            let stays: HashSet<&str> = kept.iter().map(StepRow::series_path).collect();
            tally.replaced = plan.series.iter().filter(|path| !stays.contains(path.as_str())).cloned().collect();
            let shared = written.iter().filter(|word| word.has_committed_heads()).map(|word| &word.target.token);
            let carried = kept.iter().map(|row| &row.token).filter(|token| plan.with_heads.contains(*token));
            let with_heads: BTreeSet<String> = carried.chain(shared).cloned().collect();
            let (base, generation) = (plan.base, new_generation());
            Change { base, generation, summary: plan.summary, kept, with_heads, written }
        });
        if change.is_none() && discarded.is_empty() {
            return self.end_video(tally);
        }
        let commit = CommitTask { video_id: task.video_id.clone(), discarded, change };
        tally.heads = commit.tables().map(RecordBatch::num_rows).sum();
        self.committing = (self.committing.0 + 1, self.committing.1 + tally.heads);
        self.ready.commits.push_back((video, commit));
        Some(VideoState::Committed(Box::new(tally)))
    }

    /// A video is committed, or is planned again on top of what another writer committed meanwhile.
    fn committed(&mut self, video: u64, task: &PlanTask, tally: Tally, outcome: CommitOutcome) -> Option<VideoState> {
        self.committing = (self.committing.0 - 1, self.committing.1 - tally.heads);
        if outcome == CommitOutcome::Lost {
            self.ready.plans.push_back(video);
            return Some(VideoState::Planned);
        }
        if tally.is_commit {
            self.news.push(News::Committed(task.video_id.clone()));
        }
        self.end_video(tally)
    }

    fn end_video(&mut self, tally: Tally) -> Option<VideoState> {
        let report = &mut self.outcome.report;
        report.ingested += tally.ingested;
        report.skipped += tally.skipped;
        report.bytes_in += tally.bytes_in;
        report.bytes_out += tally.bytes_out;
        self.outcome.replaced.extend(tally.replaced);
        self.seen.merge(tally.seen);
        None
    }

    /// Adds findings to the report.
    fn note(&mut self, findings: Findings) {
        for problem in findings.problems {
            let left = Quarantined::from(&problem);
            self.outcome.report.quarantined.push(left.clone());
            self.news.push(News::Quarantined(left));
            if self.on_error == OnError::Fail {
                self.fail(problem.into());
            }
        }
        for remark in findings.remarks {
            self.outcome.report.warnings.push(remark.clone());
            self.news.push(News::Warning(remark));
        }
    }
}

#[cfg(test)]
mod tests;
