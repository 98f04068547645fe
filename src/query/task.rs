//! What is done with maps: chunks are decoded, and their maps folded into the groups that they go to.
//!
//! A [`Portion`] is the smallest piece of that; a [`Task`] is one or several of them, for whoever does it. It is a
//! value: running it needs the task and the store, and leaves a [`Partial`], for the [`Merger`](super::Merger) of the
//! plan.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::error::QueryError;
use crate::dtype::Dtype;
use crate::kernel::{Accumulator, Element, Reducer, Unlike};
use crate::store::{ArrayKind, Snapshot, StoreError};
use crate::values::{Values, with_values};

/// How maps are reduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reduction {
    /// What becomes of the values at a position.
    pub reducer: Reducer,
    /// Whether non-finite values are left out instead of propagated.
    pub skipna: bool,
    /// Whether rollups may be read where they answer exactly.
    pub rollups: bool,
}

impl Default for Reduction {
    fn default() -> Self {
        Self { reducer: Reducer::Mean, skipna: false, rollups: true }
    }
}

/// How much is done by one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    /// Some MiB: for the threads of a process.
    Fine,
    /// Some hundred MiB: for processes, to which a task is sent as some kB. The answer is the same to the bit.
    Coarse,
}

/// Portions that are run at a time: what waits for its turn to be merged stays below this many.
pub(super) fn window() -> usize {
    4 * rayon::current_num_threads()
}

/// Some of a plan's work, for whoever has it and reaches the store: [`Plan::tasks`](super::Plan::tasks) cuts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The fingerprint of the plan.
    pub(super) plan: u128,
    /// The number of its first portion in the plan.
    pub(super) first: u32,
    /// Of the same positions.
    pub(super) portions: Vec<Portion>,
}

/// Chunks of one array to reduce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Portion {
    /// Path of the array below the store.
    pub array: Arc<str>,
    pub kind: ArrayKind,
    /// Type of its values.
    pub dtype: Dtype,
    /// Positions of a map.
    pub spatial: usize,
    /// Maps that lie interleaved.
    pub tokens: usize,
    /// Maps (of all token positions) in one chunk.
    pub maps_per_chunk: usize,
    /// Maps that a value stands for.
    pub weight: u32,
    /// The positions to reduce.
    pub positions: Range<usize>,
    pub reduction: Reduction,
    /// Maps to read of a step, ascending.
    pub placed: Arc<[Placed]>,
    /// The chunks.
    pub pieces: Vec<Piece>,
}

/// A map to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Placed {
    /// Its number in a step of the array.
    pub map: u32,
    /// Its token position.
    pub token: u32,
    /// Its group, as a number among those of the step.
    pub local: u32,
}

/// One chunk of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Index along the step axis.
    pub row: u32,
    /// Number of the chunk in the step.
    pub chunk: u32,
    /// The groups of the step.
    pub groups: Arc<[u32]>,
}

/// What a task leaves: for each group that its maps go to, what was folded.
#[derive(Debug, Clone, PartialEq)]
pub struct Partial {
    /// The fingerprint of the plan.
    pub(super) plan: u128,
    /// The portions, by their numbers in the plan.
    pub(super) portions: Range<u32>,
    pub(super) folded: Folded,
}

/// What was folded of maps, by group, at the same positions of all.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Folded {
    /// The positions that were reduced.
    pub positions: Range<usize>,
    /// In the order of first use.
    pub groups: Vec<(u32, Accumulator)>,
}

impl Folded {
    /// Takes in what was folded of further maps.
    pub fn merge(&mut self, other: Self) -> Result<(), Unlike> {
        let mut place_of: HashMap<u32, usize> =
            self.groups.iter().enumerate().map(|(place, (group, _))| (*group, place)).collect();
        for (group, accumulator) in other.groups {
            match place_of.get(&group) {
                Some(&place) => self.groups[place].1.merge(accumulator)?,
                None => {
                    place_of.insert(group, self.groups.len());
                    self.groups.push((group, accumulator));
                }
            }
        }
        Ok(())
    }
}

impl Task {
    /// Does it, on all threads. Whoever does many on one store takes one snapshot of it for all.
    ///
    /// # Errors
    /// If a chunk is missing or damaged, or the store has moved on since it was planned.
    pub fn run(&self, snapshot: &Snapshot) -> Result<Partial, QueryError> {
        let positions = self.portions.first().map_or(0..0, |portion| portion.positions.clone());
        let mut whole = Folded { positions, groups: Vec::new() };
        for portions in self.portions.chunks(window()) {
            let folded: Vec<Folded> =
                portions.par_iter().map(|portion| portion.run(snapshot)).collect::<Result<_, _>>()?;
            folded.into_iter().try_for_each(|more| whole.merge(more))?;
        }
        Ok(Partial { plan: self.plan, portions: self.numbers(), folded: whole })
    }

    /// The numbers of its portions in the plan.
    #[allow(clippy::cast_possible_truncation)] // there are far fewer than 2^32
    pub(super) fn numbers(&self) -> Range<u32> {
        self.first..self.first + self.portions.len() as u32
    }

    /// Bytes that it decodes.
    #[must_use]
    pub fn decoded_bytes(&self) -> u64 {
        self.portions.iter().map(Portion::decoded_bytes).sum()
    }
}

impl Portion {
    /// How many maps go to each group, counting those that a value stands for.
    pub fn maps_of_groups(&self) -> BTreeMap<u32, u64> {
        let mut counts = BTreeMap::new();
        for piece in &self.pieces {
            for placed in in_chunk(&self.placed, piece.chunk, self.maps_per_chunk) {
                *counts.entry(piece.groups[placed.local as usize]).or_default() += u64::from(self.weight);
            }
        }
        counts
    }

    /// Bytes of one chunk, decoded.
    pub const fn chunk_bytes(&self) -> usize {
        self.maps_per_chunk * self.spatial * self.tokens * self.dtype.size()
    }

    /// Bytes that it decodes.
    pub fn decoded_bytes(&self) -> u64 {
        (self.pieces.len() * self.chunk_bytes()) as u64
    }

    /// Bytes of a value that is kept for a median: of float16 as it is, of others as float32.
    pub fn kept_size(&self) -> usize {
        self.dtype.size().min(size_of::<f32>())
    }

    /// Decodes the chunks and folds their maps, in order.
    ///
    /// # Errors
    /// If a chunk is missing or damaged.
    pub fn run(&self, snapshot: &Snapshot) -> Result<Folded, StoreError> {
        let array = snapshot.open_array(&self.array)?;
        array.check_chunks(self.dtype, self.maps_per_chunk * self.spatial * self.tokens)?;
        let mut folded = Folded { positions: self.positions.clone(), groups: Vec::new() };
        let mut place_of: HashMap<u32, usize> = HashMap::new();
        let mut scratch = Scratch::default();
        let mut elements = Vec::new();
        for piece in &self.pieces {
            let placed = in_chunk(&self.placed, piece.chunk, self.maps_per_chunk);
            self.elements_of(placed, piece.chunk, &mut elements);
            array.read_parts(piece.row.into(), piece.chunk as usize, &elements, |bytes| {
                let values = Values::from_ne_bytes(self.dtype, bytes);
                with_values!(&values, values => {
                    // Neighbours that go to one group are folded together, tile by tile.
                    let group_of = |placed: &Placed| piece.groups[placed.local as usize];
                    for run in placed.chunk_by(|a, b| group_of(a) == group_of(b)) {
                        let Some(first) = run.first() else { continue };
                        let group = piece.groups[first.local as usize];
                        let index = *place_of.entry(group).or_insert_with(|| {
                            let Reduction { reducer, skipna, .. } = self.reduction;
                            let accumulator = Accumulator::new(reducer, skipna, self.positions.len());
                            folded.groups.push((group, accumulator));
                            folded.groups.len() - 1
                        });
                        self.fold(values, piece.chunk, run, &mut folded.groups[index].1, &mut scratch);
                    }
                });
            })?;
        }
        Ok(folded)
    }

    /// The elements of a chunk that these maps have at the positions, ascending.
    fn elements_of(&self, placed: &[Placed], chunk: u32, elements: &mut Vec<Range<usize>>) {
        let (head_len, first_map) = (self.spatial * self.tokens, chunk as usize * self.maps_per_chunk);
        elements.clear();
        for placed in placed {
            let start = (placed.map as usize - first_map) * head_len;
            let positions = start + self.positions.start * self.tokens..start + self.positions.end * self.tokens;
            match elements.last_mut() {
                Some(last) if positions.start <= last.end => last.end = last.end.max(positions.end),
                _ => elements.push(positions),
            }
        }
    }

    /// Folds maps of one chunk into one accumulator.
    fn fold<T: Element>(
        &self,
        values: &[T],
        chunk: u32,
        run: &[Placed],
        accumulator: &mut Accumulator,
        scratch: &mut Scratch,
    ) {
        let head_len = self.spatial * self.tokens;
        let first_map = chunk as usize * self.maps_per_chunk;
        let whole = |placed: &Placed| &values[(placed.map as usize - first_map) * head_len..][..head_len];
        if self.tokens == 1 {
            let maps: Vec<&[T]> = run.iter().map(|placed| &whole(placed)[self.positions.clone()]).collect();
            accumulator.fold(&maps, self.weight, &mut scratch.wide);
            return;
        }
        for placed in run {
            let token = placed.token as usize;
            let map: Vec<T> =
                self.positions.clone().map(|position| whole(placed)[position * self.tokens + token]).collect();
            accumulator.fold(&[&map], self.weight, &mut scratch.wide);
        }
    }
}

#[derive(Default)]
struct Scratch {
    wide: Vec<f32>,
}

/// The maps that are in one chunk.
pub(super) fn in_chunk(placed: &[Placed], chunk: u32, maps_per_chunk: usize) -> &[Placed] {
    let first = chunk as usize * maps_per_chunk;
    let from = placed.partition_point(|placed| (placed.map as usize) < first);
    let to = placed.partition_point(|placed| (placed.map as usize) < first + maps_per_chunk);
    &placed[from..to]
}
