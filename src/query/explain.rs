//! What a question will do, before it does it: `--explain`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::QueryError;
use super::selection::Selected;
use super::work::Work;
use crate::dtype::Dtype;
use crate::store::{ArrayKind, Snapshot};

/// A plan in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Explain {
    /// Videos of which maps are selected.
    pub videos: u64,
    /// Words, counted in each video.
    pub words: u64,
    /// Steps.
    pub steps: u64,
    /// Maps.
    pub maps: u64,
    /// What is read.
    pub arrays: Vec<ArrayUse>,
    /// Why rollups are not read, where something is averaged that they might answer.
    pub no_rollup: BTreeSet<&'static str>,
    /// Maps of the result.
    pub groups: u64,
    /// Tasks of the finest grain, which can be done at the same time.
    pub tasks: u64,
    /// Times that everything is read for medians; 0 without.
    pub median_passes: u64,
    /// What is done with the reduced maps.
    pub then: Vec<String>,
}

/// What is read of arrays of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArrayUse {
    /// Name of the array: `attention` or a rollup.
    pub array: &'static str,
    /// Their type.
    pub dtype: Dtype,
    /// Number of such arrays.
    pub arrays: u64,
    /// Inner chunks.
    pub chunks: u64,
    /// Their size in memory.
    pub decoded_bytes: u64,
    /// Their size in the store.
    pub stored_bytes: u64,
    /// Times that they are read.
    pub passes: u64,
}

impl Explain {
    /// A view of work, and of what is done `then`. Of the store, the stored size of every chunk is looked up.
    pub(super) fn of(
        snapshot: &Snapshot,
        work: &Work,
        selected: Selected,
        then: Vec<String>,
    ) -> Result<Self, QueryError> {
        let passes = work.median_passes.max(1);
        let mut arrays: BTreeMap<(ArrayKind, Dtype), ArrayUse> = BTreeMap::new();
        let mut known: BTreeSet<&str> = BTreeSet::new();
        for portion in work.portions.iter().filter(|portion| portion.positions.start == 0) {
            let (kind, dtype) = (portion.kind, portion.dtype);
            let uses = arrays.entry((kind, dtype)).or_insert_with(|| ArrayUse {
                array: kind.name(),
                dtype,
                arrays: 0,
                chunks: 0,
                decoded_bytes: 0,
                stored_bytes: 0,
                passes,
            });
            let array = snapshot.open_array(&portion.array)?;
            uses.arrays += u64::from(known.insert(&portion.array));
            uses.chunks += portion.pieces.len() as u64;
            uses.decoded_bytes += portion.decoded_bytes();
            for piece in &portion.pieces {
                uses.stored_bytes += array.stored_bytes(piece.row.into(), piece.chunk as usize)?;
            }
        }
        let Selected { videos, words, steps, maps } = selected;
        Ok(Self {
            videos,
            words,
            steps,
            maps,
            arrays: arrays.into_values().collect(),
            no_rollup: work.no_rollup.clone(),
            groups: work.groups.len() as u64,
            tasks: work.portions.len() as u64,
            median_passes: work.median_passes,
            then,
        })
    }
}

impl fmt::Display for Explain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "select   {} maps: {} steps of {} words in {} videos",
            self.maps, self.steps, self.words, self.videos
        )?;
        for uses in &self.arrays {
            write!(
                f,
                "read     {} ({} {} arrays): {} chunks, {} bytes stored, {} bytes decoded",
                uses.array, uses.arrays, uses.dtype, uses.chunks, uses.stored_bytes, uses.decoded_bytes
            )?;
            writeln!(f, "{}", if uses.passes > 1 { format!(", {} times", uses.passes) } else { String::new() })?;
        }
        if !self.no_rollup.is_empty() {
            let reasons: Vec<&str> = self.no_rollup.iter().copied().collect();
            writeln!(f, "         no rollup: {}", reasons.join("; "))?;
        }
        if self.median_passes > 0 {
            writeln!(
                f,
                "         medians hold all values of a group: one range of positions at a time, {} in all",
                self.median_passes
            )?;
        }
        writeln!(f, "reduce   to {} maps in {} tasks", self.groups, self.tasks)?;
        for then in &self.then {
            writeln!(f, "then     {then}")?;
        }
        Ok(())
    }
}
