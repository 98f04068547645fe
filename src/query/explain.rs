//! What a question will do, before it does it: `--explain`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::QueryError;
use super::selection::Selection;
use super::task::Task;
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
    /// Pieces of work that can be done at the same time.
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

impl ArrayUse {
    pub(super) fn new(kind: ArrayKind, dtype: Dtype) -> Self {
        Self { array: kind.name(), dtype, arrays: 0, chunks: 0, decoded_bytes: 0, stored_bytes: 0, passes: 1 }
    }
}

impl Explain {
    /// Counts what is selected.
    pub(super) fn select(&mut self, selection: &Selection) {
        let videos: BTreeSet<&str> = selection.steps.iter().map(|step| &*step.video_id).collect();
        let words: BTreeSet<(&str, &str)> =
            selection.steps.iter().map(|step| (&*step.video_id, &*step.token)).collect();
        self.videos = videos.len() as u64;
        self.words = words.len() as u64;
        self.steps = selection.steps.len() as u64;
        self.maps = selection.maps();
    }

    /// Looks up the stored size of every chunk that will be read.
    pub(super) fn measure(&mut self, snapshot: &Snapshot, tasks: &[Task]) -> Result<(), QueryError> {
        let mut by_kind: BTreeMap<(String, Dtype), u64> = BTreeMap::new();
        let first_pass = tasks.iter().filter(|task| task.positions.start == 0).collect::<Vec<_>>();
        for tasks in first_pass.chunk_by(|a, b| a.array == b.array) {
            let Some(first) = tasks.first() else { continue };
            let array = snapshot.open_array(&first.array)?;
            let name = first.array.rsplit('/').next().unwrap_or_default().to_owned();
            for piece in tasks.iter().flat_map(|task| &task.pieces) {
                *by_kind.entry((name.clone(), first.dtype)).or_default() +=
                    array.stored_bytes(piece.row.into(), piece.chunk as usize)?;
            }
        }
        for uses in &mut self.arrays {
            uses.stored_bytes = by_kind.get(&(uses.array.to_owned(), uses.dtype)).copied().unwrap_or(0);
        }
        Ok(())
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
