//! The table `text`: what each head's attention to the whole text axis was like, beyond the tracked words. Only capture
//! from a model sees that axis, so most videos have no part of it.
//!
//! Names and types of the columns are a contract: `schemas/text.columns.json`.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array, RecordBatch, StringArray, UInt32Array,
};
use arrow::compute::{SortColumn, SortOptions};
use arrow::compute::{concat_batches, filter_record_batch, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Int32Type, SchemaRef};
use arrow::error::ArrowError;

use super::tables::schema;
use crate::provenance::Call;

/// A row of `text`: one head of one block, in one call of one step. The video is told beside it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TextRow {
    /// Which call of guidance.
    pub call: Option<Call>,
    /// Denoising step.
    pub step: i32,
    /// Transformer block.
    pub block: i32,
    /// Attention head.
    pub head: i32,
    /// Mean over positions of the entropy of attention over the text axis, in nats.
    pub text_entropy: f64,
    /// The key with the most attention, as a mean over positions.
    pub sink_key: i32,
    /// That mean.
    pub sink_mass: f64,
    /// How far from 1 the sum of the words and groups is, at the position where it is farthest; `None` if not all keys
    /// are in one of them.
    pub sum_error: Option<f64>,
}

/// Columns of `text`, in order.
#[must_use]
pub fn text_schema() -> SchemaRef {
    let (text, int, float) = (DataType::Utf8, DataType::Int32, DataType::Float64);
    schema(&[
        ("video_id", &text, false),
        ("call", &text, true),
        ("step", &int, false),
        ("block", &int, false),
        ("head", &int, false),
        ("text_entropy", &float, false),
        ("sink_key", &int, false),
        ("sink_mass", &float, false),
        ("sum_error", &float, true),
    ])
}

/// Rows as columns of `text`.
pub(crate) fn text_batch(video_id: &str, rows: &[TextRow]) -> Result<RecordBatch, ArrowError> {
    let int = |get: fn(&TextRow) -> i32| Arc::new(Int32Array::from_iter_values(rows.iter().map(get))) as ArrayRef;
    let float = |get: fn(&TextRow) -> f64| Arc::new(Float64Array::from_iter_values(rows.iter().map(get))) as ArrayRef;
    RecordBatch::try_new(
        text_schema(),
        vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|_| video_id))),
            Arc::new(rows.iter().map(|row| Some(row.call?.name())).collect::<StringArray>()),
            int(|row| row.step),
            int(|row| row.block),
            int(|row| row.head),
            float(|row| row.text_entropy),
            int(|row| row.sink_key),
            float(|row| row.sink_mass),
            Arc::new(rows.iter().map(|row| row.sum_error).collect::<Float64Array>()),
        ],
    )
}

/// The rows of a video as they are after a commit: those of `steps` that were there, but for what `added` has of the
/// same calls, and `added`, by (step, call, block, head).
pub(crate) fn text_after(
    before: Option<&RecordBatch>,
    added: &RecordBatch,
    steps: &HashSet<i32>,
) -> Result<RecordBatch, ArrowError> {
    let replaced: HashSet<(Option<&str>, i32)> = (0..added.num_rows()).map(|row| call_and_step(added, row)).collect();
    let kept = before.map(|before| {
        let stays = (0..before.num_rows()).map(|row| {
            let place = call_and_step(before, row);
            Some(steps.contains(&place.1) && !replaced.contains(&place))
        });
        filter_record_batch(before, &stays.collect::<BooleanArray>())
    });
    let kept = kept.transpose()?;
    let all = concat_batches(&text_schema(), kept.iter().chain([added]))?;
    let by = ["step", "call", "block", "head"].into_iter().filter_map(|name| all.column_by_name(name).cloned());
    let by: Vec<SortColumn> = by.map(|values| SortColumn { values, options: Some(SortOptions::default()) }).collect();
    let order: UInt32Array = lexsort_to_indices(&by, None)?;
    take_record_batch(&all, &order)
}

/// Which call of which step a row is of.
fn call_and_step(rows: &RecordBatch, row: usize) -> (Option<&str>, i32) {
    let calls = rows.column(1).as_string::<i32>();
    (calls.is_valid(row).then(|| calls.value(row)), rows.column(2).as_primitive::<Int32Type>().value(row))
}

/// What in the rows of a video contradicts its steps or itself.
pub(crate) fn text_contradictions(rows: &RecordBatch, video_id: &str, steps: &HashSet<i32>) -> Option<String> {
    let videos = rows.column(0).as_string::<i32>();
    let numbers = |column: usize| rows.column(column).as_primitive::<Int32Type>();
    let mut seen = HashSet::new();
    (0..rows.num_rows()).find_map(|row| {
        let (call, step) = call_and_step(rows, row);
        if videos.value(row) != video_id {
            return Some(format!("it has rows of {}", videos.value(row)));
        }
        if !steps.contains(&step) {
            return Some(format!("it has rows of step {step}, which `steps` has none of"));
        }
        let (block, head) = (numbers(3).value(row), numbers(4).value(row));
        let is_new = seen.insert((call, step, block, head));
        (!is_new).then(|| format!("head {head} of block {block} is there twice at step {step}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(call: Option<Call>, step: i32, head: i32, text_entropy: f64) -> TextRow {
        TextRow { call, step, block: 0, head, text_entropy, sink_key: 1, sink_mass: 0.5, sum_error: None }
    }

    #[test]
    fn a_commit_keeps_what_is_of_its_steps_and_replaces_what_it_has_anew() {
        let before = [
            row(Some(Call::Cond), 0, 0, 1.0),
            row(Some(Call::Uncond), 0, 0, 2.0),
            row(Some(Call::Cond), 1, 0, 3.0),
            // Its step never was committed.
            row(Some(Call::Cond), 2, 0, 4.0),
        ];
        let added =
            [row(Some(Call::Cond), 3, 1, 6.0), row(Some(Call::Cond), 3, 0, 5.0), row(Some(Call::Cond), 1, 0, 7.0)];
        let (before, added) = (text_batch("v", &before).unwrap(), text_batch("v", &added).unwrap());
        let steps = HashSet::from([0, 1, 3]);
        let after = text_after(Some(&before), &added, &steps).unwrap();
        let expected = [
            row(Some(Call::Cond), 0, 0, 1.0),
            row(Some(Call::Uncond), 0, 0, 2.0),
            row(Some(Call::Cond), 1, 0, 7.0),
            row(Some(Call::Cond), 3, 0, 5.0),
            row(Some(Call::Cond), 3, 1, 6.0),
        ];
        assert_eq!(after, text_batch("v", &expected).unwrap());
        assert_eq!(text_contradictions(&after, "v", &steps), None);
        assert!(text_contradictions(&after, "w", &steps).unwrap().contains("rows of v"));
        assert!(text_contradictions(&before, "v", &steps).unwrap().contains("step 2"));
        let twice = text_batch("v", &[row(None, 0, 0, 1.0), row(None, 0, 0, 1.0)]).unwrap();
        assert!(text_contradictions(&twice, "v", &steps).unwrap().contains("twice"));
    }
}
