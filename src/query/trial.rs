//! How plans, tasks and merging hold together: whatever is done where, in which pieces and order, the answer is the
//! same.

use proptest::prelude::*;

use super::average::EachMap;
use super::cut::Bounds;
use super::key::Key;
use super::selection::{Selected, Selection};
use super::task::{Folded, Partial, Task};
use super::work::Work;
use super::{Answer, AnswerKind, Filter, Grain, Merger, Plan, QueryError, Reduction};
use crate::dtype::Dtype;
use crate::ingest::{self, IngestOptions};
use crate::kernel::{Accumulator, Reducer};
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
            let plan = plan(&snapshot, "head <> 2 AND step < 4 AND prompt_id < 'prompt_003'", keys, reduction, &bounds);
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
    refused(&mut merger, Partial { portions: left[2].portions.start..left[2].portions.end - 1, ..third() }, "no task");
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
        let of =
            |median_bytes| plan(&snapshot, "step < 2", keys, reduction, &Bounds { median_bytes, ..Bounds::default() });
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
    let options = IngestOptions { replace: true, dtype: Some(Dtype::Float16), every: 2, ..IngestOptions::default() };
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
