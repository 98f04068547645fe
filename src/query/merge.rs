//! Merging what tasks leave, in the order of the plan however it comes: so the answer has the same bits whatever the
//! number of threads or processes, and the grain.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use rayon::prelude::*;

use super::answer::{Answer, Arrange, ReadCount};
use super::error::QueryError;
use super::task::{Folded, Partial, Portion};
use super::work::Work;
use crate::kernel::{Accumulator, Unlike};

/// A group that is reduced.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reduced {
    /// Number of the group in the plan.
    pub group: usize,
    /// `[spatial]`
    pub values: Vec<f32>,
}

/// An answer while its maps come.
pub(super) trait Assembly: Send {
    /// Takes groups as they are finished, always in the same order.
    fn take(&mut self, reduced: Vec<Reduced>) -> Result<(), QueryError>;

    /// The answer, but for what the plan knows.
    fn answer(self: Box<Self>) -> Result<Answer, QueryError>;
}

/// Makes the answer to a plan of what its tasks leave: [`Plan::merger`](super::Plan::merger) begins it.
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
    pub(super) fn new(work: &'a Work, arrange: &'a Arrange, assembly: Box<dyn Assembly + 'a>) -> Self {
        Self {
            work,
            arrange,
            assembly,
            growing: work.groups.iter().map(|_| Growing::default()).collect(),
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
        self.finish_for_writing().map(Answer::resampled)
    }

    /// The same, of which maps may be yet to be resampled.
    pub(super) fn finish_for_writing(self) -> Result<Answer, QueryError> {
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
