//! The machine without files and without time: a model of a store, and jobs that are taken for done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use proptest::prelude::*;

use super::super::candidates::Candidate;
use super::super::prompts::VideoPrompt;
use super::super::series::StepSource;
use super::super::task::Failure;
use super::*;
use crate::dtype::SourceDtype;
use crate::dump::{FileFormat, FileSignature, Problem, Series, StepFile, StepFiles, StepMetadata, StepPeek};
use crate::shape::{AxisNumbers, StepShape};

/// Two steps of it fill a shard.
const LARGE: usize = 1 << 25;

/// A store as writers see it: of each video its last commit.
#[derive(Default)]
struct Store {
    videos: BTreeMap<String, Committed>,
    /// Directories with arrays in them.
    arrays: BTreeSet<String>,
    /// Words whose committed arrays cannot be read.
    damaged: BTreeSet<String>,
}

#[derive(Clone, Default)]
struct Committed {
    generation: String,
    rows: Vec<StepRow>,
}

/// A dump: by video and word, its steps.
type Dump = BTreeMap<&'static str, BTreeMap<&'static str, BTreeMap<i32, Step>>>;

/// What a step of a dump is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Good,
    /// It cannot be read.
    Broken,
    /// Its metadata says so many positions, and it has others.
    Claims(usize),
}

/// A video, a word of it, and its steps.
type WordOf<'a> = (&'static str, &'static str, &'a [(i32, Step)]);

fn dump(words: &[WordOf<'_>]) -> Dump {
    let mut dump = Dump::new();
    for (video, token, steps) in words {
        dump.entry(video).or_default().entry(token).or_default().extend(steps.iter().copied());
    }
    dump
}

fn peek(spatial: usize) -> StepPeek {
    StepPeek { shape: StepShape { blocks: 1, heads: 1, spatial, tokens: 1 }, dtype: SourceDtype::Float16 }
}

fn candidate(step: i32, what: Step, is_new: bool) -> Candidate {
    let signature = FileSignature { bytes: 10, modified: SystemTime::UNIX_EPOCH };
    let part = StepFile {
        path: PathBuf::from(format!("step_{step:03}.npy")),
        format: FileFormat::Npy,
        block: None,
        head: None,
        metadata: PathBuf::from(format!("step_{step:03}_metadata.json")),
        tensor: signature,
        described: signature,
    };
    let claimed = if let Step::Claims(spatial) = what { spatial } else { LARGE };
    Candidate {
        files: StepFiles { step, parts: vec![part] },
        metadata: StepMetadata::default(),
        peek: Some(peek(claimed)),
        numbers: AxisNumbers::default(),
        grid: None,
        array: None,
        is_new,
    }
}

/// An ingest with its dump, and the jobs that are under way.
struct Writer {
    ingest: Ingest,
    dump: Dump,
    running: VecDeque<Job>,
    /// What has come back and is not accepted yet.
    left: VecDeque<Done>,
    has_ended: bool,
}

impl Writer {
    fn new(dump: Dump, options: &IngestOptions) -> Self {
        let shared = Arc::new(options.clone());
        let task = |video: &&'static str| PlanTask {
            video_id: (*video).to_owned(),
            video: None,
            damage: None,
            options: shared.clone(),
        };
        let nowhere = StoreAddress { path: PathBuf::new(), single_writer: false };
        let tasks: Vec<PlanTask> = dump.keys().map(task).collect();
        let ingest = Ingest::new(nowhere, options, tasks, Findings::default());
        Self { ingest, dump, running: VecDeque::new(), left: VecDeque::new(), has_ended: false }
    }

    fn of(dump: Dump) -> Self {
        Self::new(dump, &IngestOptions::default())
    }

    /// Takes the next job, if there is one.
    fn take(&mut self) -> bool {
        match self.ingest.next() {
            Next::Job(job) => self.running.push_back(job),
            Next::Wait => {
                assert!(!self.running.is_empty() || !self.left.is_empty(), "it waits for nothing");
                return false;
            }
            Next::End => {
                self.has_ended = true;
                return false;
            }
        }
        true
    }

    /// Runs a job, the next one or another.
    fn run(&mut self, store: &mut Store, which: usize) -> bool {
        if self.running.is_empty() {
            return false;
        }
        let Some(job) = self.running.remove(which % self.running.len()) else { return false };
        let done = self.done(&job, store);
        self.left.push_back(done);
        true
    }

    fn accept(&mut self) -> bool {
        self.left.pop_front().map(|done| self.ingest.accept(done).unwrap()).is_some()
    }

    /// One job from its beginning to its end. Returns whether there was one.
    fn step(&mut self, store: &mut Store) -> bool {
        let was_taken = self.take();
        let was_run = self.run(store, 0);
        self.accept();
        was_taken || was_run
    }

    fn drain(&mut self, store: &mut Store) {
        for _ in 0..1000 {
            if !self.step(store) && self.has_ended {
                return;
            }
        }
        panic!("it does not end");
    }

    /// What a job leaves on the model.
    fn done(&self, job: &Job, store: &mut Store) -> Done {
        match job {
            Job::Plan(ticket, _, task) => Done::Plan(ticket.clone(), Box::new(self.plan(task, store))),
            Job::Shard(ticket, _, task) => Done::Shard(ticket.clone(), Box::new(self.shard(task, store))),
            Job::Commit(ticket, _, task) => Done::Commit(ticket.clone(), store.commit(task)),
        }
    }

    fn plan(&self, task: &PlanTask, store: &Store) -> VideoPlan {
        let committed = store.videos.get(&task.video_id).cloned().unwrap_or_default();
        let words = &self.dump[task.video_id.as_str()];
        let mut plan = VideoPlan {
            base: (!committed.generation.is_empty()).then_some(committed.generation),
            dir: format!("maps/{}", task.video_id),
            series: committed.rows.iter().map(|row| row.series_path().to_owned()).collect(),
            with_heads: committed.rows.iter().map(|row| row.token.clone()).collect(),
            prompt: VideoPrompt::default(),
            ..VideoPlan::default()
        };
        let mut stored: BTreeMap<String, BTreeMap<i32, StepRow>> = BTreeMap::new();
        for row in committed.rows {
            stored.entry(row.token.clone()).or_default().insert(row.step, row);
        }
        for (token, steps) in words {
            let stored = stored.remove(*token).unwrap_or_default();
            if steps.keys().all(|step| stored.contains_key(step)) {
                plan.findings.skipped += steps.len() as u64;
                plan.kept.extend(stored.into_values());
                continue;
            }
            let candidates =
                steps.iter().map(|(&step, &what)| (step, candidate(step, what, !stored.contains_key(&step))));
            plan.to_write.push(Candidates {
                video_id: task.video_id.clone(),
                prompt_id: None,
                batch: String::new(),
                series: Series::without_files(token),
                steps: candidates.collect(),
                stored,
                lost_heads: false,
                rewrite: false,
                stored_recipe: Some(task.options.recipe()),
                options: task.options.clone(),
                is_mended: false,
            });
        }
        plan.kept.extend(stored.into_values().flat_map(BTreeMap::into_values));
        plan
    }

    fn shard(&self, task: &ShardTask, store: &mut Store) -> Fragment {
        let (series, input) = (&task.target, &task.input);
        store.arrays.insert(series.path.clone());
        let mut fragment = Fragment { is_shared: task.unchanged_in.is_some(), bytes_out: 1, ..Fragment::default() };
        let first = task.shard * series.layout.steps_per_shard();
        for (index, plan) in task.steps.iter().enumerate() {
            let mut row = series.row(plan.step, first + index);
            let failed = |observed, in_store| {
                let problem = Problem::Changed.at(format!("step_{:03}.npy", plan.step));
                Failure { step: plan.step, problem, observed, in_store }
            };
            match &plan.source {
                StepSource::Stored { .. } if store.damaged.contains(&series.token) => {
                    fragment.failures.push(failed(None, true));
                }
                StepSource::Stored { .. } => {}
                StepSource::Files { .. } => {
                    match self.dump[series.video_id.as_str()][series.token.as_str()][&plan.step] {
                        Step::Broken => fragment.failures.push(failed(None, false)),
                        _ if input.found != peek(LARGE) => fragment.failures.push(failed(Some(peek(LARGE)), false)),
                        _ => row.content_hash = format!("{}", plan.step),
                    }
                }
            }
            fragment.rows.push(row);
        }
        fragment
    }
}

impl Store {
    /// As [`CommitTask::run`].
    fn commit(&mut self, task: &CommitTask) -> CommitOutcome {
        self.arrays.retain(|path| !task.discarded.contains(path));
        let Some(change) = &task.change else { return CommitOutcome::Committed };
        let committed = self.videos.entry(task.video_id.clone()).or_default();
        if committed.generation == change.generation {
            return CommitOutcome::Committed;
        }
        if change.base.as_deref().unwrap_or_default() == committed.generation {
            let before = std::mem::take(&mut committed.rows);
            committed.generation.clone_from(&change.generation);
            committed.rows.clone_from(&change.kept);
            committed.rows.extend(change.written.iter().flat_map(|word| word.rows.iter().cloned()));
            self.check(&task.video_id, &before);
            return CommitOutcome::Committed;
        }
        for word in &change.written {
            if !committed.rows.iter().any(|row| row.series_path() == word.target.path) {
                self.arrays.remove(&word.target.path);
            }
        }
        CommitOutcome::Lost
    }

    /// Nothing that was committed is lost, and all that is committed is there, in the order of its word.
    fn check(&self, video: &str, before: &[StepRow]) {
        let rows = &self.videos[video].rows;
        for old in before {
            let same = rows.iter().filter(|row| (&row.token, row.step) == (&old.token, old.step));
            assert!(same.map(|row| &row.content_hash).eq([&old.content_hash]), "{} step {}", old.token, old.step);
        }
        for row in rows {
            assert!(self.arrays.contains(row.series_path()), "{} is not there", row.array);
        }
        let mut words: BTreeMap<&str, Vec<(u32, i32)>> = BTreeMap::new();
        for row in rows {
            words.entry(&row.array).or_default().push((row.row, row.step));
        }
        for mut places in words.into_values() {
            places.sort_unstable();
            assert!(places.iter().map(|(row, _)| *row).eq(0..u32::try_from(places.len()).unwrap()), "{places:?}");
            assert!(places.is_sorted_by_key(|(_, step)| *step), "{places:?}");
        }
    }

    /// The committed steps of each word.
    fn steps(&self) -> BTreeMap<(String, String), Vec<i32>> {
        let mut steps: BTreeMap<_, Vec<i32>> = BTreeMap::new();
        for row in self.videos.values().flat_map(|video| &video.rows) {
            steps.entry((row.video_id.clone(), row.token.clone())).or_default().push(row.step);
        }
        for steps in steps.values_mut() {
            steps.sort_unstable();
        }
        steps
    }
}

/// The steps of dumps that can be read.
fn union(dumps: &[&Dump]) -> BTreeMap<(String, String), Vec<i32>> {
    let mut union: BTreeMap<_, BTreeSet<i32>> = BTreeMap::new();
    for (video, words) in dumps.iter().flat_map(|dump| dump.iter()) {
        for (token, steps) in words {
            let good = steps.iter().filter(|(_, what)| **what != Step::Broken).map(|(step, _)| *step);
            union.entry(((*video).to_owned(), (*token).to_owned())).or_default().extend(good);
        }
    }
    union.into_iter().filter(|(_, steps)| !steps.is_empty()).map(|(word, s)| (word, s.into_iter().collect())).collect()
}

const GOOD: Step = Step::Good;

#[test]
fn a_word_is_decided_anew_without_a_step_that_cannot_be_read() {
    let mut store = Store::default();
    let words = dump(&[("v", "flower", &[(0, GOOD), (1, Step::Broken), (2, GOOD), (3, GOOD), (4, GOOD)])]);
    let mut writer = Writer::of(words.clone());
    writer.drain(&mut store);
    assert_eq!(store.steps(), union(&[&words]));
    // What was begun in vain is gone.
    assert_eq!(store.arrays.len(), 1);
    let report = writer.ingest.finish().unwrap();
    assert_eq!((report.ingested, report.skipped, report.bytes_in), (4, 0, 40));
    assert_eq!(report.quarantined.iter().map(|left| &*left.path).collect::<Vec<_>>(), [Path::new("step_001.npy")]);
}

#[test]
fn a_word_without_a_step_that_can_be_read_leaves_nothing() {
    let mut store = Store::default();
    let mut writer = Writer::of(dump(&[("v", "flower", &[(0, Step::Broken)]), ("w", "tree", &[(0, GOOD)])]));
    writer.drain(&mut store);
    assert_eq!(store.steps().into_keys().collect::<Vec<_>>(), [("w".to_owned(), "tree".to_owned())]);
    assert_eq!(store.arrays.len(), 1);
    assert_eq!(writer.ingest.finish().unwrap().quarantined.len(), 1);
}

#[test]
fn what_steps_turn_out_to_be_is_decided_by_most_of_them() {
    let mut store = Store::default();
    let claims = Step::Claims(12);
    let words = dump(&[("v", "flower", &[(0, claims), (1, claims), (2, claims), (3, GOOD)])]);
    let mut writer = Writer::of(words.clone());
    writer.drain(&mut store);
    // The last step was left out at first, since it was not as most claimed to be.
    let report = writer.ingest.finish().unwrap();
    assert_eq!(store.steps()[&("v".to_owned(), "flower".to_owned())], [0, 1, 2]);
    assert_eq!((report.ingested, report.quarantined.len()), (3, 1));
}

#[test]
fn a_word_whose_committed_copy_cannot_be_read_stays_as_it_is() {
    let mut store = Store::default();
    Writer::of(dump(&[("v", "flower", &[(0, GOOD)])])).drain(&mut store);
    let before = store.videos["v"].rows.clone();
    store.damaged.insert("flower".into());
    let mut writer = Writer::of(dump(&[("v", "flower", &[(1, GOOD)]), ("v", "tree", &[(0, GOOD)])]));
    writer.drain(&mut store);
    assert_eq!(store.steps().into_values().collect::<Vec<_>>(), [[0], [0]]);
    assert!(before.iter().all(|row| store.videos["v"].rows.contains(row)));
    assert_eq!(writer.ingest.finish().unwrap().quarantined.len(), 1);
}

#[test]
fn full_shards_of_steps_that_stay_are_shared() {
    let mut store = Store::default();
    Writer::of(dump(&[("v", "flower", &[(0, GOOD), (1, GOOD), (2, GOOD)])])).drain(&mut store);
    let path = store.videos["v"].rows[0].series_path().to_owned();
    let steps: Vec<(i32, Step)> = (0..5).map(|step| (step, GOOD)).collect();
    let mut writer = Writer::of(dump(&[("v", "flower", &steps)]));
    writer.step(&mut store);
    while writer.take() {}
    let shared: Vec<Option<String>> = writer
        .running
        .iter()
        .map(|job| match job {
            Job::Shard(_, _, task) => task.unchanged_in.clone(),
            _ => panic!("{job:?}"),
        })
        .collect();
    assert_eq!(shared, [Some(path.clone()), None, None]);
    writer.drain(&mut store);
    let pass = writer.ingest.into_pass();
    assert_eq!((pass.report.ingested, pass.report.skipped, pass.replaced), (2, 3, vec![path]));
}

#[test]
fn a_video_that_another_writer_committed_meanwhile_is_planned_on_top_of_that() {
    let mut store = Store::default();
    let (mine, other) = (dump(&[("v", "flower", &[(0, GOOD)])]), dump(&[("v", "tree", &[(0, GOOD)])]));
    let mut writer = Writer::of(mine.clone());
    // Planned and written, but for the commit.
    assert!(writer.step(&mut store) && writer.step(&mut store) && writer.take());
    Writer::of(other.clone()).drain(&mut store);
    writer.drain(&mut store);
    assert_eq!(store.steps(), union(&[&mine, &other]));
    assert_eq!(store.arrays.len(), 2);
    assert_eq!(writer.ingest.finish().unwrap().ingested, 1);
}

#[test]
fn once_cancelled_it_gives_out_nothing_and_waits_for_what_is_under_way() {
    let mut store = Store::default();
    let mut writer = Writer::of(dump(&[("v", "flower", &[(0, GOOD)]), ("w", "flower", &[(0, GOOD)])]));
    while writer.take() {}
    assert_eq!(writer.running.len(), 2);
    writer.ingest.fail(IngestError::Cancelled);
    assert!(matches!(writer.ingest.next(), Next::Wait));
    assert!(writer.run(&mut store, 0) && writer.accept());
    assert!(matches!(writer.ingest.next(), Next::Wait));
    assert!(writer.run(&mut store, 0) && writer.accept());
    assert!(matches!(writer.ingest.next(), Next::End));
    assert!(matches!(writer.ingest.finish(), Err(IngestError::Cancelled)));
}

#[test]
fn a_commit_that_is_under_way_when_it_is_cancelled_counts() {
    let mut store = Store::default();
    let mut writer = Writer::of(dump(&[("v", "flower", &[(0, GOOD)]), ("w", "flower", &[(0, GOOD)])]));
    while !matches!(writer.running.front(), Some(Job::Commit(..))) {
        writer.run(&mut store, 0);
        writer.accept();
        writer.take();
    }
    writer.ingest.fail(IngestError::Cancelled);
    writer.drain(&mut store);
    assert_eq!(writer.ingest.into_pass().report.ingested, 1);
    assert_eq!(store.videos.len(), 1);
}

#[test]
fn if_asked_to_it_stops_at_the_first_file_that_cannot_be_used() {
    let mut store = Store::default();
    let options = IngestOptions { on_error: OnError::Fail, ..IngestOptions::default() };
    let mut writer = Writer::new(dump(&[("v", "flower", &[(0, Step::Broken), (1, GOOD)])]), &options);
    writer.drain(&mut store);
    assert!(store.videos.is_empty());
    assert!(writer.ingest.finish().unwrap_err().to_string().contains("step_000.npy"));
}

#[test]
fn the_first_error_is_the_one_that_is_told() {
    let mut writer = Writer::of(dump(&[("v", "flower", &[(0, GOOD)])]));
    writer.take();
    writer.ingest.fail_job(&writer.running[0], IngestError::NothingFound { path: "here".into() });
    writer.ingest.fail(IngestError::Cancelled);
    assert!(matches!(writer.ingest.next(), Next::End));
    assert!(matches!(writer.ingest.finish(), Err(IngestError::NothingFound { .. })));
}

#[test]
fn what_is_left_by_jobs_of_others_is_refused_and_what_comes_twice_changes_nothing() {
    let mut store = Store::default();
    let words = dump(&[("v", "flower", &[(0, GOOD)])]);
    let (mut writer, mut other) = (Writer::of(words.clone()), Writer::of(words));
    assert!(writer.take() && other.take());
    other.ingest.id = "another".into();
    let plan = |writer: &Writer, store: &mut Store| writer.done(&writer.running[0], store);
    assert_eq!(other.ingest.accept(plan(&writer, &mut store)), Err(AcceptError::Foreign));
    let Done::Plan(ticket, _) = plan(&writer, &mut store) else { panic!("no plan") };
    let unlike = Done::Commit(ticket.clone(), CommitOutcome::Committed);
    assert_eq!(writer.ingest.accept(unlike), Err(AcceptError::Other));
    let unknown = Done::Commit(Ticket { number: 7, ..ticket }, CommitOutcome::Committed);
    assert_eq!(writer.ingest.accept(unknown), Err(AcceptError::Foreign));
    let twice = [plan(&writer, &mut store), plan(&writer, &mut store)];
    for done in twice {
        writer.ingest.accept(done).unwrap();
    }
    assert!(matches!(writer.ingest.next(), Next::Job(Job::Shard(..))));
    assert!(matches!(writer.ingest.next(), Next::Wait));
}

#[test]
fn no_more_videos_are_begun_than_there_are_jobs_at_once_and_one() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let words: Vec<_> = names.iter().map(|video| (*video, "flower", &[(0, GOOD)][..])).collect();
    let mut store = Store::default();
    let mut writer = Writer::of(dump(&words));
    writer.ingest = writer.ingest.with_jobs(3);
    while writer.take() {}
    assert_eq!(writer.running.len(), 4);
    // What is written comes before what is to plan.
    writer.run(&mut store, 0);
    writer.accept();
    writer.take();
    assert!(matches!(writer.running.back(), Some(Job::Shard(..))));
    writer.drain(&mut store);
    assert_eq!(writer.ingest.finish().unwrap().ingested, 6);
}

#[test]
fn nothing_is_lost_by_any_interleaving_of_two_writers() {
    let (a, b) = (dump(&[("v", "flower", &[(0, GOOD), (2, GOOD)])]), dump(&[("v", "flower", &[(1, GOOD), (2, GOOD)])]));
    let expected = union(&[&a, &b]);
    // Which of the two has each turn: all sequences, one after the other, as long as both have something to do.
    let mut turns: Vec<bool> = Vec::new();
    let mut count = 0;
    loop {
        let mut store = Store::default();
        let mut writers = [Writer::of(a.clone()), Writer::of(b.clone())];
        let mut turn = 0;
        while !writers.iter().all(|writer| writer.has_ended) {
            let which = match writers.each_ref().map(|writer| writer.has_ended) {
                [true, _] => true,
                [_, true] => false,
                _ => {
                    if turn == turns.len() {
                        turns.push(false);
                    }
                    turn += 1;
                    turns[turn - 1]
                }
            };
            writers[usize::from(which)].step(&mut store);
            assert!(turn < 100, "they do not end");
        }
        turns.truncate(turn);
        assert_eq!(store.steps(), expected, "{turns:?}");
        assert_eq!(store.arrays.len(), 1 + replaced(&writers), "{turns:?}");
        let reports = writers.map(|writer| writer.ingest.finish().unwrap());
        assert_eq!(reports.iter().map(|report| report.ingested).sum::<u64>(), 3, "{turns:?}");
        count += 1;
        // The next sequence: the last turn that was the first writer's is the second one's.
        while turns.pop_if(|last| *last).is_some() {}
        match turns.last_mut() {
            Some(last) => *last = true,
            None => break,
        }
    }
    assert!(count > 50, "{count}");
}

/// Generations that are in no commit any more, and wait for `gc`.
fn replaced(writers: &[Writer]) -> usize {
    writers.iter().map(|writer| writer.ingest.outcome.replaced.len()).sum()
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![4 => Just(GOOD), 1 => Just(Step::Broken)]
}

fn any_dump() -> impl Strategy<Value = Dump> {
    let steps = || proptest::collection::btree_map(0..5, any_step(), 1..5);
    let words = move || proptest::collection::btree_map(prop_oneof![Just("flower"), Just("tree")], steps(), 1..3);
    proptest::collection::btree_map(prop_oneof![Just("v"), Just("w")], words(), 1..3)
}

proptest! {
    /// Jobs run in any order, also twice, and what they leave comes late.
    #[test]
    fn nothing_is_lost_whatever_two_writers_do_at_once(
        a in any_dump(),
        b in any_dump(),
        actions in proptest::collection::vec((any::<bool>(), 0..8_u8, 0..4_usize), 0..120),
    ) {
        let expected = union(&[&a, &b]);
        let mut store = Store::default();
        let mut writers = [Writer::of(a), Writer::of(b)];
        for writer in &mut writers {
            writer.ingest.ahead = 3;
        }
        let mut is_repeated = false;
        for (which, action, job) in actions {
            let writer = &mut writers[usize::from(which)];
            match action {
                0..3 => {
                    writer.take();
                }
                3..5 => {
                    writer.run(&mut store, job);
                }
                5..7 => {
                    writer.accept();
                }
                // The process that ran it died before it could tell: it is run again.
                _ => {
                    if let Some(Job::Commit(..)) = writer.running.front() {
                        let job = writer.running[0].clone();
                        writer.done(&job, &mut store);
                        is_repeated = true;
                    }
                }
            }
        }
        for _ in 0..1000 {
            let were_busy = writers.each_mut().map(|writer| writer.step(&mut store) || !writer.has_ended);
            if were_busy == [false, false] {
                break;
            }
        }
        prop_assert!(writers.iter().all(|writer| writer.has_ended));
        prop_assert_eq!(store.steps(), expected.clone());
        let ingested = writers.map(|writer| writer.ingest.finish().unwrap().ingested).iter().sum::<u64>();
        if !is_repeated {
            prop_assert_eq!(ingested, expected.values().map(|steps| steps.len() as u64).sum::<u64>());
        }
    }
}
