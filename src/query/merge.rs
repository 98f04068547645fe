//! Merging what tasks leave, in the order of the plan however it comes: so the answer has the same bits whatever the
//! number of threads or processes, and the grain.

use std::collections::{BTreeMap, HashMap};
use std::ops::{AddAssign, Range};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::answer::{Answer, Arrange};
use super::error::QueryError;
use super::plan::{Assembly, Plan};
use super::task::{Folded, Partial, Portion};
use super::work::Work;
use crate::kernel::{Accumulator, Unlike};

/// What was read to answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadCount {
    /// Inner chunks decoded.
    pub chunks: u64,
    /// Their bytes, decoded.
    pub bytes: u64,
}

impl AddAssign for ReadCount {
    fn add_assign(&mut self, more: Self) {
        self.chunks += more.chunks;
        self.bytes += more.bytes;
    }
}

/// A group that is reduced.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reduced {
    /// Number of the group in the plan.
    pub group: usize,
    /// `[spatial]`
    pub values: Vec<f32>,
}

/// Makes the answer to a plan of what its tasks leave: [`Plan::merger`] begins it.
///
/// Partial results come in any order and of any grain. What comes early waits in memory for what is before it in the
/// plan.
pub struct Merger<'a> {
    work: &'a Work,
    arrange: &'a Arrange,
    assembly: Box<dyn Assembly + 'a>,
    /// By group.
    growing: Vec<Growing>,
    /// What was folded in the bundle at hand, by group.
    bundle: HashMap<u32, Accumulator>,
    /// Bundles that are merged.
    bundles: usize,
    /// The first portion that is not merged.
    next: u32,
    /// By first portion; and the first behind it.
    early: BTreeMap<u32, (u32, Folded)>,
    /// What is not yet handed on.
    finished: Vec<(u32, Growing)>,
    read: ReadCount,
}

impl std::fmt::Debug for Merger<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Merger").field("next", &self.next).field("early", &self.early.len()).finish_non_exhaustive()
    }
}

impl<'a> Merger<'a> {
    pub(super) fn new(plan: &'a Plan) -> Self {
        Self {
            work: &plan.work,
            arrange: &plan.arrange,
            assembly: plan.ending.begin(plan),
            growing: plan.work.groups.iter().map(|_| Growing::default()).collect(),
            bundle: HashMap::new(),
            bundles: 0,
            next: 0,
            early: BTreeMap::new(),
            finished: Vec::new(),
            read: ReadCount::default(),
        }
    }

    /// Takes what a task has left.
    ///
    /// # Errors
    /// [`QueryError::Foreign`] if it is of another question, of another state of the store, or was accepted already:
    /// then nothing has changed.
    pub fn accept(&mut self, partial: Partial) -> Result<(), QueryError> {
        self.check(&partial).map_err(|found| QueryError::Foreign { found })?;
        self.take(partial.portions, partial.folded)?;
        self.hand_on()
    }

    /// Tasks, of the smallest grain, that nothing was accepted of.
    #[must_use]
    pub fn missing(&self) -> usize {
        let early: u32 = self.early.iter().map(|(first, (end, _))| end - first).sum();
        self.work.portions.len() - (self.next + early) as usize
    }

    /// The answer.
    ///
    /// # Errors
    /// [`QueryError::Unfinished`] if something is missing.
    pub fn finish(self) -> Result<Answer, QueryError> {
        let missing = self.missing();
        if missing > 0 {
            return Err(QueryError::Unfinished { missing, all: self.work.portions.len() });
        }
        let mut answer = self.assembly.answer()?;
        answer.notes.splice(0..0, self.work.notes.iter().cloned());
        answer.read = self.read;
        answer.arrange(self.arrange)
    }

    /// Whether it is what a task of this plan leaves, and new; if not, why.
    fn check(&self, partial: &Partial) -> Result<(), String> {
        let Partial { plan, portions, folded } = partial;
        if *plan != self.work.fingerprint {
            return Err("it is of another question, or of another state of the store".into());
        }
        let (first, end) = (portions.start as usize, portions.end as usize);
        let is_bundle = || self.work.bundles.contains(&(first..end));
        let is_one = end == first + 1 && end <= self.work.portions.len();
        if !is_one && !is_bundle() {
            return Err(format!("there is no task of portions {portions:?}"));
        }
        let before = self.early.range(..portions.end).next_back();
        if portions.start < self.next || before.is_some_and(|(_, (end, _))| *end > portions.start) {
            return Err("it was accepted already".into());
        }
        let own = &self.work.portions[first..end];
        let mut expected: BTreeMap<u32, u64> = BTreeMap::new();
        for (group, maps) in own.iter().flat_map(Portion::maps_of_groups) {
            *expected.entry(group).or_default() += maps;
        }
        let found: BTreeMap<u32, u64> = folded.groups.iter().map(|(group, folded)| (*group, folded.maps())).collect();
        if found != expected || found.len() != folded.groups.len() || folded.positions != own[0].positions {
            return Err("it is of other maps than its task".into());
        }
        let manner = (self.work.reduction.reducer, self.work.reduction.skipna);
        let positions = folded.positions.len();
        let is_like = |(_, folded): &(u32, Accumulator)| folded.manner() == manner && folded.positions() == positions;
        if !folded.groups.iter().all(is_like) {
            return Err("its maps were folded in another way".into());
        }
        Ok(())
    }

    /// Merges what was folded in portions, and what waited for them, or lets it wait.
    pub(super) fn take(&mut self, portions: Range<u32>, folded: Folded) -> Result<(), Unlike> {
        if portions.start != self.next {
            self.early.insert(portions.start, (portions.end, folded));
            return Ok(());
        }
        self.merge(portions.end, folded)?;
        while let Some((end, folded)) = self.early.remove(&self.next) {
            self.merge(end, folded)?;
        }
        Ok(())
    }

    /// Merges what was folded in the next portions.
    fn merge(&mut self, end: u32, folded: Folded) -> Result<(), Unlike> {
        for portion in &self.work.portions[self.next as usize..end as usize] {
            self.read += ReadCount { chunks: portion.pieces.len() as u64, bytes: portion.decoded_bytes() };
        }
        let Folded { positions, groups } = folded;
        let mut last: Vec<(u32, u32)> = Vec::new();
        for (group, accumulator) in groups {
            let last_portion = self.work.groups[group as usize].last_portion;
            if last_portion < end {
                last.push((last_portion, group));
            }
            match self.bundle.get_mut(&group) {
                Some(own) => own.merge(accumulator)?,
                None => drop(self.bundle.insert(group, accumulator)),
            }
        }
        last.sort_unstable();
        for (_, group) in last {
            let mut growing = std::mem::take(&mut self.growing[group as usize]);
            if let Some(accumulator) = self.bundle.remove(&group) {
                growing.take(&positions, accumulator)?;
            }
            self.finished.push((group, growing));
        }
        self.next = end;
        if self.work.bundles.get(self.bundles).is_some_and(|bundle| bundle.end == end as usize) {
            self.bundles += 1;
            for (group, accumulator) in self.bundle.drain() {
                self.growing[group as usize].take(&positions, accumulator)?;
            }
        }
        Ok(())
    }

    /// Hands on the groups that are finished.
    pub(super) fn hand_on(&mut self) -> Result<(), QueryError> {
        let finished = std::mem::take(&mut self.finished);
        let reduced: Vec<Reduced> = finished
            .into_par_iter()
            .map(|(group, growing)| Reduced { group: group as usize, values: growing.finish() })
            .collect();
        if reduced.is_empty() { Ok(()) } else { self.assembly.take(reduced) }
    }
}

/// A group while its bundles are merged: the ranges of positions that are finished, and the one that is not.
#[derive(Default)]
struct Growing {
    values: Vec<f32>,
    range: Option<(Range<usize>, Accumulator)>,
}

impl Growing {
    fn take(&mut self, positions: &Range<usize>, accumulator: Accumulator) -> Result<(), Unlike> {
        match &mut self.range {
            Some((range, own)) if range == positions => own.merge(accumulator),
            _ => {
                self.flush();
                self.range = Some((positions.clone(), accumulator));
                Ok(())
            }
        }
    }

    fn flush(&mut self) {
        if let Some((_, accumulator)) = self.range.take() {
            let values = accumulator.finish();
            if self.values.is_empty() { self.values = values } else { self.values.extend(values) }
        }
    }

    fn finish(mut self) -> Vec<f32> {
        self.flush();
        self.values
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::average::EachMap;
    use super::super::cut::Bounds;
    use super::super::filter::Filter;
    use super::super::key::Key;
    use super::super::selection::{Selected, Selection};
    use super::super::task::{Grain, Reduction, Task};
    use super::super::{Answer, AnswerKind};
    use super::*;
    use crate::dtype::Dtype;
    use crate::ingest::{self, IngestOptions};
    use crate::kernel::Reducer;
    use crate::progress::Silent;
    use crate::store::{Snapshot, Store, StoreError};

    fn store(dir: &std::path::Path) -> Snapshot {
        let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/dataset");
        ingest::run(&[dump], dir.join("store"), &IngestOptions::default(), &Silent).unwrap();
        Store::open(dir.join("store")).unwrap().snapshot()
    }

    /// So small that a few maps make a portion, and a few portions a bundle.
    const SMALL: Bounds = Bounds {
        portion_bytes: 20_000,
        folded_bytes: 30_000,
        bundle_bytes: 150_000,
        bundle_folded_bytes: 200_000,
        bundle_pieces: 7,
        median_bytes: 256 << 20,
    };

    fn plan(snapshot: &Snapshot, filter: &str, keys: &[Key], reduction: Reduction, bounds: &Bounds) -> Plan {
        let selection = Selection::find(snapshot, &Filter::parse(filter).unwrap()).unwrap();
        let work = Work::plan(snapshot, &selection.steps, keys, reduction, bounds).unwrap();
        let each = EachMap { with_values: true, kind: AnswerKind::Maps };
        Plan::of(snapshot, work, Selected::of(&selection.steps), each)
    }

    fn bits(answer: Answer) -> Vec<u32> {
        answer.maps.unwrap().values.iter().map(|value| value.to_bits()).collect()
    }

    fn sent(task: &Task, snapshot: &Snapshot) -> Partial {
        let task_again = Task::from_bytes(&task.to_bytes().unwrap()).unwrap();
        assert_eq!(task_again, *task);
        let left = task_again.run(snapshot).unwrap();
        let bytes = left.to_bytes().unwrap();
        let again = Partial::from_bytes(&bytes).unwrap();
        // NaN is not equal to itself.
        assert_eq!(again.to_bytes().unwrap(), bytes);
        again
    }

    #[test]
    fn what_was_done_elsewhere_in_whatever_pieces_and_order_merges_to_the_same_bits() {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = store(dir.path());
        let mean = Reduction { rollups: false, ..Reduction::default() };
        let reductions =
            [Reducer::Mean, Reducer::Max, Reducer::Std, Reducer::Median].map(|reducer| Reduction { reducer, ..mean });
        let skipna = Reduction { skipna: true, ..mean };
        let rollups = Reduction::default();
        for (number, reduction) in reductions.into_iter().chain([skipna, rollups]).enumerate() {
            for keys in [&[][..], &[Key::Token, Key::Head], &[Key::Video, Key::Step]] {
                let bounds = Bounds { median_bytes: 100_000, ..SMALL };
                let plan =
                    plan(&snapshot, "head <> 2 AND step < 4 AND prompt_id < 'prompt_003'", keys, reduction, &bounds);
                assert!(plan.work.bundles.len() > 3 && plan.work.bundles.len() < plan.work.portions.len());
                let expected = plan.run(&Silent).unwrap();
                let mut random = fastrand::Rng::with_seed(number as u64);
                let (fine, coarse): (Vec<Task>, Vec<Task>) =
                    (plan.tasks(Grain::Fine).collect(), plan.tasks(Grain::Coarse).collect());
                let mut tasks: Vec<&Task> = Vec::new();
                for bundle in &coarse {
                    let numbers = bundle.numbers();
                    if random.bool() {
                        tasks.push(bundle);
                    } else {
                        tasks.extend(&fine[numbers.start as usize..numbers.end as usize]);
                    }
                }
                random.shuffle(&mut tasks);
                let mut merger = plan.merger();
                for task in tasks {
                    merger.accept(sent(task, &snapshot)).unwrap();
                }
                let found = merger.finish().unwrap();
                assert_eq!(found.read, expected.read);
                assert!(found.table.equals_missing(&expected.table), "{reduction:?} {keys:?}");
                assert_eq!(bits(found), bits(expected), "{reduction:?} {keys:?}");
            }
        }
    }

    #[test]
    fn what_is_foreign_is_refused_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = store(dir.path());
        let reduction = Reduction { rollups: false, ..Reduction::default() };
        let of = |filter: &str, reduction| plan(&snapshot, filter, &[Key::Token], reduction, &SMALL);
        let (plan, other) = (of("step < 4", reduction), of("step < 3", reduction));
        let left: Vec<Partial> = plan.tasks(Grain::Coarse).map(|task| task.run(&snapshot).unwrap()).collect();
        let fine = plan.tasks(Grain::Fine).next().unwrap().run(&snapshot).unwrap();
        let mut merger = plan.merger();
        let refused = |merger: &mut Merger<'_>, partial: Partial, why: &str| {
            let missing = merger.missing();
            let error = merger.accept(partial).unwrap_err();
            assert!(matches!(error, QueryError::Foreign { .. }) && error.to_string().contains(why), "{error}");
            assert_eq!(merger.missing(), missing);
        };
        merger.accept(left[1].clone()).unwrap();
        refused(&mut merger, left[1].clone(), "accepted already");
        merger.accept(left[0].clone()).unwrap();
        refused(&mut merger, left[1].clone(), "accepted already");
        refused(&mut merger, fine, "accepted already");
        let of_other = other.tasks(Grain::Coarse).next().unwrap().run(&snapshot).unwrap();
        refused(&mut merger, of_other.clone(), "another question");
        // Somebody else's, under this plan's name.
        let third = || left[2].clone();
        refused(&mut merger, Partial { folded: of_other.folded.clone(), ..third() }, "other maps");
        refused(&mut merger, Partial { portions: 7..7, ..third() }, "no task");
        refused(&mut merger, Partial { portions: 0..u32::MAX, ..third() }, "no task");
        refused(
            &mut merger,
            Partial { portions: left[2].portions.start..left[2].portions.end - 1, ..third() },
            "no task",
        );
        let with = |change: fn(&mut Folded)| {
            let mut changed = left[2].clone();
            change(&mut changed.folded);
            changed
        };
        refused(&mut merger, with(|folded| folded.positions.end -= 1), "other maps");
        refused(&mut merger, with(|folded| drop(folded.groups.pop())), "other maps");
        refused(&mut merger, with(|folded| folded.groups.push(folded.groups[0].clone())), "other maps");
        refused(&mut merger, with(|folded| folded.groups[0].0 += 1000), "other maps");
        let in_another_way = with(|folded| {
            let (positions, maps) = (folded.positions.len(), folded.groups[0].1.maps());
            let mut highest = Accumulator::new(Reducer::Max, false, positions);
            (0..maps).for_each(|_| highest.fold(&[&vec![0.0_f32; positions][..]], 1, &mut Vec::new()));
            folded.groups[0].1 = highest;
        });
        refused(&mut merger, in_another_way, "in another way");
        let error = plan.merger().finish().unwrap_err();
        let of_all = plan.work.portions.len();
        assert!(matches!(error, QueryError::Unfinished { missing, all } if (missing, all) == (of_all, of_all)));
        for partial in &left[2..] {
            merger.accept(partial.clone()).unwrap();
        }
        assert_eq!(bits(merger.finish().unwrap()), bits(plan.run(&Silent).unwrap()));
        // The same question of another state of the store is another one.
        let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/dataset");
        let options = IngestOptions { replace: true, dtype: Some(Dtype::Float16), ..IngestOptions::default() };
        ingest::run(&[dump], dir.path().join("store"), &options, &Silent).unwrap();
        let now = snapshot.store().snapshot();
        let later = self::plan(&now, "step < 4", &[Key::Token], reduction, &SMALL);
        let of_later = later.tasks(Grain::Coarse).next().unwrap().run(&now).unwrap();
        refused(&mut plan.merger(), of_later, "another state of the store");
    }

    #[test]
    fn medians_are_the_same_whatever_is_held_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = store(dir.path());
        for keys in [&[Key::Token][..], &[Key::Video, Key::Step, Key::Block], &[]] {
            let reduction = Reduction { reducer: Reducer::Median, ..Reduction::default() };
            let of = |median_bytes| {
                plan(&snapshot, "step < 2", keys, reduction, &Bounds { median_bytes, ..Bounds::default() })
            };
            let (at_once, in_ranges) = (of(usize::MAX), of(20_000));
            assert_eq!(at_once.work.median_passes, 1);
            assert!(in_ranges.work.median_passes > 1);
            assert_eq!(bits(at_once.run(&Silent).unwrap()), bits(in_ranges.run(&Silent).unwrap()));
        }
    }

    /// What is read is of the state that was planned on, or the question ends: never a hole.
    #[test]
    fn a_question_whose_store_has_moved_on_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = store(dir.path());
        let of = |keys: &[Key]| plan(&snapshot, "step < 4", keys, Reduction::default(), &Bounds::default());
        let (early, late) = (of(&[Key::Token, Key::Step]), of(&[Key::Token]));
        let task = early.tasks(Grain::Coarse).next().unwrap();
        let expected = bits(early.run(&Silent).unwrap());
        let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/dataset");
        let options =
            IngestOptions { replace: true, dtype: Some(Dtype::Float16), every: 2, ..IngestOptions::default() };
        ingest::run(&[dump], dir.path().join("store"), &options, &Silent).unwrap();
        // What the new commit replaced is there until it is cleaned up.
        assert_eq!(bits(early.run(&Silent).unwrap()), expected);
        assert!(!snapshot.store().gc(&Silent).unwrap().is_empty());
        let now = snapshot.store().snapshot();
        for plan in [early, late] {
            let ran = Plan { snapshot: now.clone(), ..plan }.run(&Silent);
            assert!(matches!(ran, Err(QueryError::Store(StoreError::MovedOn { .. }))), "{ran:?}");
        }
        assert!(matches!(task.run(&now), Err(QueryError::Store(StoreError::MovedOn { .. }))));
        // Whoever asks anew is told of what is there now.
        let (found, _) = snapshot.store().of_one_state(|now| Selection::find(now, &Filter::default())).unwrap();
        assert!(found.steps.iter().all(|step| step.step % 2 == 0));
    }

    #[test]
    fn a_question_is_planned_again_where_the_store_moves_on_under_it() {
        let dir = tempfile::tempdir().unwrap();
        let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/variants/gzip");
        ingest::run(&[dump], dir.path().join("store"), &IngestOptions::default(), &Silent).unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let (mut attempts, mut every) = (0, 1);
        let mut read = |until: usize| {
            store.of_one_state(|snapshot| {
                let parts = snapshot.parts()?;
                attempts += 1;
                if attempts < until {
                    every = 3 - every;
                    let options = IngestOptions { replace: true, every, ..IngestOptions::default() };
                    ingest::run(&[dump], dir.path().join("store"), &options, &Silent).unwrap();
                }
                Ok((snapshot.heads_of(&parts)?.len(), attempts))
            })
        };
        assert_eq!(read(3).unwrap().0, (1, 3));
        let never = read(usize::MAX).map(|(read, _)| read);
        assert!(matches!(never, Err(QueryError::Store(StoreError::MovedOn { .. }))), "{never:?}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_task_or_what_it_leaves_panic(content in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(Task::from_bytes(&content).is_err());
            prop_assert!(Partial::from_bytes(&content).is_err());
        }
    }
}
