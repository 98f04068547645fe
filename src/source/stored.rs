//! A store as a source. What it holds is looked up anew for each question: a generator may be writing.

use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;

use super::origin::{Origin, StepsReader, Word};
use super::{Over, SourceError};
use crate::dump::DumpError;
use crate::grid::Grid;
use crate::json::Object;
use crate::progress::Meter;
use crate::shape::StepShape;
use crate::store::{ArrayKind, Snapshot, StepRow, Store, StoreError, StoredArray, VideoIndex};
use crate::values::Values;

impl Origin for Store {
    fn videos(&self) -> Result<Vec<String>, SourceError> {
        Ok(self.of_one_state(Snapshot::videos)?.0)
    }

    fn tokens(&self, video: &str) -> Result<Option<Vec<String>>, SourceError> {
        let words = |index: VideoIndex| index.series().filter_map(|rows| Some(rows.first()?.token.clone())).collect();
        Ok(self.snapshot().read_video(video)?.map(words))
    }

    fn summary(&self, video: &str) -> Result<Option<Option<Object>>, SourceError> {
        Ok(self.snapshot().read_video(video)?.map(|index| index.record.summary))
    }

    fn word(&self, video: &str, is_word: &dyn Fn(&str) -> bool) -> Result<Option<Box<dyn Word + '_>>, SourceError> {
        let snapshot = self.snapshot();
        let Some(mut index) = snapshot.read_video(video)? else { return Ok(None) };
        index.rows.retain(|row| is_word(&row.token));
        let Some(first) = index.rows.first().cloned() else { return Ok(None) };
        Ok(Some(Box::new(StoredWord { snapshot, index, first })))
    }
}

/// A word of a store, as it is committed.
struct StoredWord {
    snapshot: Snapshot,
    /// With the rows of this word alone.
    index: VideoIndex,
    first: StepRow,
}

impl Word for StoredWord {
    fn steps(&self) -> Vec<i32> {
        self.index.rows.iter().map(|row| row.step).collect()
    }

    fn problem_of(&self, _: i32) -> Option<Arc<DumpError>> {
        None
    }

    fn metadata(&self, place: usize) -> Result<Object, SourceError> {
        Ok(self.index.metadata_of(&self.index.rows[place]))
    }

    fn shape(&self) -> Option<StepShape> {
        Some(self.first.shape)
    }

    fn grid(&self) -> Option<Grid> {
        self.first.grid
    }

    fn load(&self, places: &[usize], all: &Meter<'_>) -> Result<Option<(StepShape, Values<'static>)>, SourceError> {
        let StepRow { shape, dtype, .. } = self.first;
        if places.iter().map(|&place| &self.index.rows[place]).any(|row| (row.shape, row.dtype) != (shape, dtype)) {
            return Ok(None);
        }
        let kind = ArrayKind::Attention;
        let array = self.snapshot.open_series(self.first.series_path(), kind, shape, dtype)?;
        let (chunks, len) = array.chunks_of_step()?;
        if chunks.checked_mul(len) != Some(shape.len()) {
            return Ok(None);
        }
        let too_large = || SourceError::TooLarge { steps: places.len(), shape };
        let elements = places.len().checked_mul(shape.len()).ok_or_else(too_large)?;
        let mut values = Values::zeroed(dtype, elements).ok_or_else(too_large)?;
        // All chunks of all steps at once: one step alone is work for every thread, too.
        let read = |index: usize, target: &mut [u8]| -> Result<(), SourceError> {
            let (place, number) = (places[index / chunks], index % chunks);
            array.read_chunk_into(self.index.rows[place].row.into(), number, target)?;
            if number + 1 == chunks {
                all.add(1)?;
            }
            Ok(())
        };
        let targets = values.bytes_mut().par_chunks_exact_mut(len * dtype.size()).enumerate();
        let failed = targets.find_map_first(|(index, target)| read(index, target).err());
        failed.map_or(Ok(Some((shape, values))), Err)
    }

    fn reader(&self, over: Over) -> Result<Box<dyn StepsReader + '_>, SourceError> {
        let (series, wanted) = (self.first.series_path(), ArrayKind::mean_over(over.blocks, over.heads));
        let is_there = self.snapshot.has_array(&format!("{series}/{}", wanted.name()));
        let kind = if is_there { wanted } else { ArrayKind::Attention };
        let array = self.snapshot.open_series(series, kind, self.first.shape, self.first.dtype)?;
        Ok(Box::new(StoredSteps { rows: &self.index.rows, array, kind, step: Vec::new() }))
    }
}

/// Reads an array of a word.
struct StoredSteps<'a> {
    rows: &'a [StepRow],
    array: Arc<StoredArray>,
    kind: ArrayKind,
    /// The values that were read last.
    step: Vec<u8>,
}

impl StepsReader for StoredSteps<'_> {
    fn read(&mut self, place: usize, visit: &mut dyn FnMut(Values<'_>, StepShape)) -> Result<(), SourceError> {
        let row = &self.rows[place];
        let (shape, dtype) = (self.kind.step_shape(row.shape), self.kind.dtype(row.dtype));
        self.array.read_step_into(row.row.into(), &mut self.step)?;
        let bytes = &self.step;
        if bytes.len() != shape.len() * dtype.size() {
            let found = format!("the row of step {} says {}; the array has steps of others", row.step, row.shape);
            return Err(StoreError::Damaged { path: PathBuf::from(&row.array), found: found.into() }.into());
        }
        visit(Values::from_ne_bytes(dtype, bytes), shape);
        Ok(())
    }

    fn another(&self) -> Box<dyn StepsReader + '_> {
        Box::new(Self { array: self.array.clone(), step: Vec::new(), ..*self })
    }
}
