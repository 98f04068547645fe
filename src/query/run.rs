//! Running a plan: tasks in parallel, a window of them at a time; their partials are merged in the order of the plan,
//! so that the result has the same bits whatever the number of threads.

use std::ops::Range;

use rayon::prelude::*;

use super::QueryError;
use super::plan::Plan;
use super::task::Partial;
use crate::kernel::{Accumulator, Unlike};
use crate::progress::{Meter, Progress, Unit};
use crate::store::Snapshot;

/// Tasks of a window, for each thread: what waits for its turn to be merged stays below this many partials.
const WINDOW: usize = 4;

/// What was read to answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadCount {
    /// Inner chunks decoded.
    pub chunks: u64,
    /// Their bytes, decoded.
    pub bytes: u64,
}

/// A group that is reduced.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reduced {
    /// Number of the group in the plan.
    pub group: usize,
    /// `[spatial]`
    pub values: Vec<f32>,
}

impl Plan {
    /// Counts the bytes that are decoded when it runs.
    pub(super) fn meter<'a>(&self, progress: &'a dyn Progress) -> Meter<'a> {
        Meter::new(progress, Unit::Bytes, self.decoded_bytes())
    }

    /// Runs all tasks. `take` gets the reduced maps as they are finished, always in the same order.
    pub(super) fn run(
        &self,
        snapshot: &Snapshot,
        meter: &Meter<'_>,
        mut take: impl FnMut(Vec<Reduced>) -> Result<(), QueryError>,
    ) -> Result<ReadCount, QueryError> {
        let mut growing: Vec<Growing> = (0..self.groups.len()).map(|_| Growing::default()).collect();
        let window = rayon::current_num_threads() * WINDOW;
        let mut read = ReadCount::default();
        for (number, tasks) in self.tasks.chunks(window).enumerate() {
            let partials: Vec<Partial> = tasks
                .par_iter()
                .map(|task| {
                    let partial = task.run(snapshot)?;
                    meter.add(task.decoded_bytes())?;
                    Ok(partial)
                })
                .collect::<Result<_, QueryError>>()?;
            let mut finished = Vec::new();
            for (index, (task, partial)) in tasks.iter().zip(partials).enumerate() {
                read.chunks += task.pieces.len() as u64;
                read.bytes += task.decoded_bytes();
                for (group, accumulator) in partial.groups {
                    let group = group as usize;
                    growing[group].take(&partial.positions, accumulator)?;
                    if self.groups[group].last_task == number * window + index {
                        finished.push((group, std::mem::take(&mut growing[group])));
                    }
                }
            }
            let reduced: Vec<Reduced> =
                finished.into_par_iter().map(|(group, growing)| Reduced { group, values: growing.finish() }).collect();
            if !reduced.is_empty() {
                take(reduced)?;
            }
        }
        Ok(read)
    }
}

/// A group while its tasks are merged: the ranges of positions that are finished, and the one that is not.
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
    use super::super::filter::Filter;
    use super::super::key::Key;
    use super::super::selection::Selection;
    use super::super::task::{Reduction, Task};
    use super::*;
    use crate::dtype::Dtype;
    use crate::ingest::{self, IngestOptions};
    use crate::kernel::Reducer;
    use crate::progress::Silent;
    use crate::store::{Store, StoreError};

    fn store(dir: &std::path::Path) -> Snapshot {
        let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/variants/gzip");
        ingest::run(&[dump], dir.join("store"), &IngestOptions::default(), &Silent).unwrap();
        Store::open(dir.join("store")).unwrap().snapshot()
    }

    fn plan(store: &Snapshot, keys: &[Key], reducer: Reducer, median_bytes: usize) -> Plan {
        let selection = Selection::find(store, &Filter::parse("head <> 2").unwrap()).unwrap();
        let reduction = Reduction { reducer, rollups: false, ..Reduction::default() };
        Plan::within(store, &selection, keys, reduction, median_bytes).unwrap()
    }

    fn maps(plan: &Plan, store: &Snapshot) -> Vec<Vec<u32>> {
        let mut maps = vec![Vec::new(); plan.groups.len()];
        let take = |reduced: Vec<Reduced>| {
            for one in reduced {
                assert!(maps[one.group].is_empty(), "a group is finished once");
                maps[one.group] = one.values.iter().map(|value| value.to_bits()).collect();
            }
            Ok(())
        };
        plan.run(store, &plan.meter(&Silent), take).unwrap();
        maps
    }

    /// The same tasks run anywhere, and what they return may be merged in any order.
    #[test]
    fn tasks_that_were_sent_elsewhere_merge_to_the_same_maps() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        for reducer in [Reducer::Mean, Reducer::Max, Reducer::Sum, Reducer::Median] {
            let plan = plan(&store, &[Key::Token, Key::Head], reducer, usize::MAX);
            let expected = maps(&plan, &store);
            let run = |task: &Task| {
                let sent: Task = serde_json::from_str(&serde_json::to_string(task).unwrap()).unwrap();
                assert_eq!(&sent, task);
                sent.run(&store).unwrap()
            };
            let whole = plan.tasks.iter().map(run).rev().reduce(|mut a, b| {
                a.merge(b).unwrap();
                a
            });
            for (group, accumulator) in whole.unwrap().groups {
                let values: Vec<u32> = accumulator.finish().iter().map(|value| value.to_bits()).collect();
                assert_eq!(values, expected[group as usize], "{reducer:?}");
            }
        }
    }

    #[test]
    fn medians_are_the_same_whatever_is_held_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        for keys in [&[Key::Token][..], &[Key::Video, Key::Step, Key::Block], &[]] {
            let (at_once, in_ranges) =
                (plan(&store, keys, Reducer::Median, usize::MAX), plan(&store, keys, Reducer::Median, 20_000));
            assert_eq!(at_once.explain.median_passes, 1);
            assert!(in_ranges.explain.median_passes > 1);
            assert_eq!(maps(&at_once, &store), maps(&in_ranges, &store));
        }
    }

    /// What is read is of the state that was planned on, or the question ends: never a hole.
    #[test]
    fn a_question_whose_store_has_moved_on_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = store(dir.path());
        let (early, late) = [&[Key::Token, Key::Step][..], &[Key::Token]]
            .map(|keys| plan(&snapshot, keys, Reducer::Mean, usize::MAX))
            .into();
        let expected = maps(&early, &snapshot);
        let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/variants/gzip");
        let options =
            IngestOptions { replace: true, dtype: Some(Dtype::Float16), every: 2, ..IngestOptions::default() };
        ingest::run(&[dump], dir.path().join("store"), &options, &Silent).unwrap();
        // What the new commit replaced is there until it is cleaned up.
        assert_eq!(maps(&early, &snapshot), expected);
        assert!(!snapshot.store().gc().unwrap().is_empty());
        for plan in [&early, &late] {
            let ran = plan.run(&snapshot.store().snapshot(), &plan.meter(&Silent), |_| Ok(()));
            assert!(matches!(ran, Err(QueryError::Store(StoreError::MovedOn { .. }))), "{ran:?}");
        }
        // Whoever asks anew is told of what is there now.
        let (found, _) = snapshot.store().of_one_state(|now| Selection::find(now, &Filter::default())).unwrap();
        assert!(found.steps.iter().all(|step| step.step % 2 == 0));
    }

    #[test]
    fn a_question_is_planned_again_where_the_store_moves_on_under_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path()).store().clone();
        let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/variants/gzip");
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
}
