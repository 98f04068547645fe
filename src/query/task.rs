//! One task of a reduction: which chunks to decode and which groups their maps go to. A task is a value that
//! serialises; running it needs the task and the store, and returns a [`Partial`] that merges with those of other
//! tasks.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::dtype::Dtype;
use crate::kernel::{Accumulator, Element, Reducer, Unlike};
use crate::store::{Snapshot, StoreError};
use crate::values::{Values, with_values};

/// How maps are reduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// Chunks of one array to reduce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Path of the array below the store.
    pub(super) array: Arc<str>,
    /// Its type.
    pub(super) dtype: Dtype,
    /// Positions of a map.
    pub(super) spatial: usize,
    /// Maps that lie interleaved.
    pub(super) tokens: usize,
    /// Maps (of all token positions) in one chunk.
    pub(super) maps_per_chunk: usize,
    /// Maps that a value stands for.
    pub(super) weight: u32,
    /// The positions to reduce.
    pub(super) positions: Range<usize>,
    pub(super) reduction: Reduction,
    /// Maps to read of a step, ascending.
    pub(super) placed: Arc<[Placed]>,
    /// The chunks.
    pub(super) pieces: Vec<Piece>,
}

/// A map to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Its number in a step of the array.
    pub(super) map: u32,
    /// Its token position.
    pub(super) token: u32,
    /// Its group, as a number among those of the step.
    pub(super) local: u32,
}

/// One chunk of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Index along the step axis.
    pub(super) row: u32,
    /// Number of the chunk in the step.
    pub(super) chunk: u32,
    /// The groups of the step.
    pub(super) groups: Arc<[u32]>,
}

/// What a task makes of its maps: for each group that they go to, what was folded.
#[derive(Debug, Clone, PartialEq)]
pub struct Partial {
    /// The positions that were reduced.
    pub(super) positions: Range<usize>,
    /// By group, in the order of first use.
    pub(super) groups: Vec<(u32, Accumulator)>,
}

impl Partial {
    /// Takes in what another task made of other maps at the same positions.
    ///
    /// # Errors
    /// If they are of other positions, or of another question.
    pub fn merge(&mut self, other: Self) -> Result<(), Unlike> {
        if self.positions != other.positions {
            let described = |positions: &Range<usize>| format!("what is of positions {positions:?}");
            return Err(Unlike { found: described(&other.positions), expected: described(&self.positions) });
        }
        for (group, accumulator) in other.groups {
            match self.groups.iter_mut().find(|(own, _)| *own == group) {
                Some((_, own)) => own.merge(accumulator)?,
                None => self.groups.push((group, accumulator)),
            }
        }
        Ok(())
    }
}

impl Task {
    /// The groups that its maps go to.
    pub(super) fn groups(&self) -> BTreeSet<u32> {
        self.pieces.iter().flat_map(|piece| task_groups(&self.placed, piece, self.maps_per_chunk)).collect()
    }

    /// Maps that it reads.
    pub(super) fn maps(&self) -> usize {
        self.pieces.iter().map(|piece| in_chunk(&self.placed, piece.chunk, self.maps_per_chunk).len()).sum()
    }

    /// Bytes that it decodes.
    pub(super) fn decoded_bytes(&self) -> u64 {
        (self.pieces.len() * self.maps_per_chunk * self.spatial * self.tokens * self.dtype.size()) as u64
    }

    /// Decodes the chunks and folds their maps, in order.
    ///
    /// # Errors
    /// If a chunk is missing or damaged.
    pub fn run(&self, snapshot: &Snapshot) -> Result<Partial, StoreError> {
        let array = snapshot.open_array(&self.array)?;
        let mut partial = Partial { positions: self.positions.clone(), groups: Vec::new() };
        let mut place_of: HashMap<u32, usize> = HashMap::new();
        let mut scratch = Scratch::default();
        for piece in &self.pieces {
            let placed = in_chunk(&self.placed, piece.chunk, self.maps_per_chunk);
            array.read_chunk(piece.row.into(), piece.chunk as usize, |bytes| {
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
                            partial.groups.push((group, accumulator));
                            partial.groups.len() - 1
                        });
                        self.fold(values, piece.chunk, run, &mut partial.groups[index].1, &mut scratch);
                    }
                });
            })?;
        }
        Ok(partial)
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

/// Groups that the maps of one chunk go to.
pub(super) fn task_groups(placed: &[Placed], piece: &Piece, maps_per_chunk: usize) -> BTreeSet<u32> {
    in_chunk(placed, piece.chunk, maps_per_chunk).iter().map(|placed| piece.groups[placed.local as usize]).collect()
}

/// The maps that are in one chunk.
pub(super) fn in_chunk(placed: &[Placed], chunk: u32, maps_per_chunk: usize) -> &[Placed] {
    let first = chunk as usize * maps_per_chunk;
    let from = placed.partition_point(|placed| (placed.map as usize) < first);
    let to = placed.partition_point(|placed| (placed.map as usize) < first + maps_per_chunk);
    &placed[from..to]
}
