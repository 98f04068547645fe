//! Parts of the arrays of one word, named by video, word and steps: what lazy readers ask for.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::{ArrayKind, Snapshot, StepRow, StoreError, StoredArray};
use crate::dtype::Dtype;

/// Elements of some steps of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elements {
    /// Their type.
    pub dtype: Dtype,
    /// Their bytes, `[step, element]`, in the machine's byte order.
    pub bytes: Vec<u8>,
}

impl Snapshot {
    /// The arrays that a word has: `attention`, and those rollups that were stored. None, if there is no such word.
    ///
    /// # Errors
    /// If the video's part is damaged.
    pub fn kinds_of(&self, video_id: &str, token: &str) -> Result<Vec<ArrayKind>, StoreError> {
        let rows = self.rows_of(video_id, token)?;
        let Some(first) = rows.first() else { return Ok(Vec::new()) };
        let path = |kind: ArrayKind| format!("{}/{}", first.series_path(), kind.name());
        // What is damaged is there: whoever reads it is told.
        let is_there = |kind: &ArrayKind| *kind == ArrayKind::Attention || self.has_array(&path(*kind));
        Ok(ArrayKind::ALL.into_iter().filter(is_there).collect())
    }

    /// The same range of elements of each of some steps of a word's array, in C order. Only the chunks that hold them
    /// are decoded. `None` if the word does not have all of these steps.
    ///
    /// # Errors
    /// If the video's part or the array is damaged, or its steps have fewer elements.
    pub fn read_elements(
        &self,
        video_id: &str,
        token: &str,
        kind: ArrayKind,
        steps: &[i32],
        elements: Range<usize>,
    ) -> Result<Option<Elements>, StoreError> {
        let rows = self.rows_of(video_id, token)?;
        let by_step: HashMap<i32, &StepRow> = rows.iter().map(|row| (row.step, row)).collect();
        let Some(wanted) = steps.iter().map(|step| by_step.get(step).copied()).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let Some(first) = wanted.first() else {
            return Ok(Some(Elements { dtype: kind.dtype(Dtype::Float32), bytes: Vec::new() }));
        };
        let dtype = kind.dtype(first.dtype);
        let mut arrays: HashMap<&str, Arc<StoredArray>> = HashMap::new();
        for row in &wanted {
            let found = kind.dtype(row.dtype);
            if found != dtype {
                let found = format!("its type is {found}, that of step {} is {dtype}", first.step);
                return Err(StoreError::damaged(self.storage().place(&row.array), found));
            }
            if !arrays.contains_key(row.series_path()) {
                let array = self.open_series(row.series_path(), kind, row.shape, row.dtype)?;
                arrays.insert(row.series_path(), array);
            }
        }
        let part = |row: &&StepRow| match arrays.get(row.series_path()) {
            Some(array) => array.read_range(row.row.into(), elements.clone()),
            None => Ok(Vec::new()),
        };
        let parts: Vec<Vec<u8>> = wanted.par_iter().map(part).collect::<Result<_, _>>()?;
        Ok(Some(Elements { dtype, bytes: parts.concat() }))
    }

    fn rows_of(&self, video_id: &str, token: &str) -> Result<Vec<StepRow>, StoreError> {
        let rows = self.read_video(video_id)?.map(|video| video.rows).unwrap_or_default();
        Ok(rows.into_iter().filter(|row| row.token == token).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{self, IngestOptions, Silent};
    use crate::store::{Rollups, Store};

    const VIDEO: &str = "prompt_000_vid001";

    fn store(rollups: Rollups) -> (tempfile::TempDir, Snapshot) {
        let dir = tempfile::tempdir().unwrap();
        let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/variants/gzip");
        let options = IngestOptions { rollups, ..IngestOptions::default() };
        ingest::run(&[dump], dir.path().join("store"), &options, &Silent).unwrap();
        let store = Store::open(dir.path().join("store")).unwrap().snapshot();
        (dir, store)
    }

    #[test]
    fn parts_of_steps_are_those_of_the_whole_steps_in_the_order_asked_for() {
        let (_dir, store) = store(Rollups::All);
        let rows = store.read_video(VIDEO).unwrap().unwrap().rows;
        let (steps, token) = ([rows[2].step, rows[0].step], rows[0].token.as_str());
        let whole = |row: u64| store.open_array(&rows[0].array).unwrap().read_step(row).unwrap();
        let found = store.read_elements(VIDEO, token, ArrayKind::Attention, &steps, 570..580).unwrap().unwrap();
        let bytes = 570 * found.dtype.size()..580 * found.dtype.size();
        assert_eq!(found.bytes, [&whole(2)[bytes.clone()], &whole(0)[bytes]].concat());
    }

    #[test]
    fn what_is_not_there_is_told_from_what_is_damaged() {
        let (_dir, store) = store(Rollups::None);
        let token = store.read_video(VIDEO).unwrap().unwrap().rows[0].token.clone();
        assert_eq!(store.kinds_of(VIDEO, &token).unwrap(), [ArrayKind::Attention]);
        assert_eq!(store.kinds_of(VIDEO, "missing").unwrap(), []);
        assert_eq!(store.kinds_of("../x", &token).unwrap(), []);
        let read = |steps: &[i32], elements| store.read_elements(VIDEO, &token, ArrayKind::Attention, steps, elements);
        assert_eq!(read(&[0, 99], 0..1).unwrap(), None);
        assert!(read(&[], 0..1).unwrap().unwrap().bytes.is_empty());
        assert!(read(&[0], 0..usize::MAX).unwrap_err().to_string().contains("elements"));
        assert!(store.read_elements(VIDEO, &token, ArrayKind::Mean, &[0], 0..1).is_err());
    }
}
