//! Making a video's new state visible: documents of the words written, rows of all words, one commit.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int32Type;
use arrow::error::ArrowError;
use serde_json::{Value, json};

use super::candidates::Candidates;
use super::plan::Committed;
use super::prompts::VideoPrompt;
use super::series::SeriesPlan;
use super::task::Fragment;
use crate::json::{Json, Object};
use crate::store::{
    Coordinates, Heads, MetadataPatch, Recipe, StepRow, Store, StoreError, VideoIndex, VideoRecord, heads_batch,
    heads_schema, new_generation,
};

/// One word whose arrays are complete.
pub(super) struct WrittenSeries {
    token: String,
    recipe: Recipe,
    rows: Vec<StepRow>,
    heads: RecordBatch,
    metadata: BTreeMap<i32, MetadataPatch>,
    documents: BTreeMap<String, String>,
}

impl WrittenSeries {
    /// Puts the fragments of a word's shards together and writes its documents and coordinates.
    pub fn finish(
        store: &Store,
        plan: &SeriesPlan,
        candidates: &Candidates,
        mut fragments: Vec<Fragment>,
        committed: &Committed,
    ) -> Result<Self, StoreError> {
        fragments.sort_by_key(|fragment| fragment.rows.first().map(|row| row.row));
        let damaged =
            |error: ArrowError| StoreError::Damaged { path: store.place().join(&plan.path), found: error.to_string() };
        let mut rows: Vec<StepRow> = Vec::new();
        let mut heads = Vec::new();
        let mut metadata = BTreeMap::new();
        for fragment in fragments {
            // Rows of `heads` are ordered by (step, token position, block, head), which is how steps are measured.
            let shared = committed.heads.as_ref().filter(|_| fragment.heads.is_empty());
            heads.push(match shared.and_then(|heads| heads.get(&plan.token)) {
                Some(old) => rows_of_steps(old, &fragment.rows),
                None => heads_batch(&plan.video_id, &plan.token, &fragment.heads).map_err(damaged)?,
            });
            for row in fragment.rows {
                // A step that came from the store keeps what was known of it.
                let carried =
                    candidates.stored(row.step).filter(|_| row.content_hash.is_empty() || candidates.is_mended());
                if carried.is_some() {
                    let record = committed.previous.as_ref().map(|index| &index.record);
                    let patch = record.and_then(|record| record.metadata.get(&row.token)?.get(&row.step));
                    metadata.extend(patch.map(|patch| (row.step, patch.clone())));
                }
                rows.push(match carried {
                    Some(stored) => StepRow { array: row.array, row: row.row, grid: row.grid, ..stored.clone() },
                    None => row,
                });
            }
            if !candidates.is_mended() {
                metadata.extend(fragment.metadata);
            }
        }
        let heads = concat_batches(&heads_schema(), &heads).map_err(damaged)?;
        // A word that was written anew from the store alone is still what it was.
        let is_as_it_was = candidates.is_without_files() || candidates.is_mended();
        let stored = rows.first().and_then(|row| candidates.stored(row.step)).filter(|_| is_as_it_was);
        let unchanged = stored.and_then(|row| store.generation_at(row.series_path()).ok()?.attributes().ok());
        Self::document(store, plan, rows, heads, metadata, unchanged)
    }

    /// Its rows.
    pub fn rows(&self) -> &[StepRow] {
        &self.rows
    }

    /// Puts what is known of the video's prompt into its rows.
    pub fn describe(&mut self, prompt: &VideoPrompt) {
        prompt.fill(&mut self.rows);
    }

    /// Writes the documents and coordinates of a word whose shards are there. Its attributes are those of the plan,
    /// unless given.
    pub fn document(
        store: &Store,
        plan: &SeriesPlan,
        rows: Vec<StepRow>,
        heads: RecordBatch,
        metadata: BTreeMap<i32, MetadataPatch>,
        attributes: Option<Value>,
    ) -> Result<Self, StoreError> {
        let steps: Vec<i32> = rows.iter().map(|row| row.step).collect();
        let timesteps: Vec<f64> = rows.iter().map(|row| row.timestep.unwrap_or(f64::NAN)).collect();
        let coordinates = Coordinates { steps: &steps, timesteps: &timesteps, numbers: &plan.numbers };
        let first = rows.first();
        let mut attributes = attributes.unwrap_or_else(|| {
            json!({
                "video_id": plan.video_id,
                "token": plan.token,
                "prompt": first.and_then(|row| row.prompt.as_ref()),
                "seed": first.and_then(|row| row.seed).map(|seed| Json::from(seed).to_value()),
                "cfg_scale": first.and_then(|row| row.cfg_scale),
                "grid": plan.grid,
                "source": plan.source.to_string_lossy(),
                "source_dtype": plan.found.dtype,
                "lossy": plan.lossy(),
            })
        });
        if !plan.npz_arrays.is_empty() {
            attributes["source_arrays"] = json!(plan.npz_arrays);
        }
        let generation = store.generation_at(&plan.path)?;
        let documents = generation.write_documents(&plan.layout, json!({"attnkit": attributes}), &coordinates)?;
        Ok(Self { token: plan.token.clone(), recipe: plan.recipe.clone(), rows, heads, metadata, documents })
    }
}

/// Commits a video: the words written, and those kept as they are. Returns false if another writer committed it
/// meanwhile.
pub(super) fn commit_video(
    store: &Store,
    video_id: String,
    summary: Option<Object>,
    kept: Vec<StepRow>,
    written: Vec<WrittenSeries>,
    committed: &Committed,
) -> Result<bool, StoreError> {
    let no_record = VideoRecord::default();
    let previous = committed.previous.as_ref().map_or(&no_record, |index| &index.record);
    let no_heads = Heads::new();
    let old_heads = committed.heads.as_ref().unwrap_or(&no_heads);
    let mut record = VideoRecord { video_id, summary, ..VideoRecord::default() };
    let mut heads = Heads::new();
    let mut rows = Vec::new();
    for series in kept.chunk_by(|a, b| a.token == b.token) {
        let Some(first) = series.first() else { continue };
        let token = &first.token;
        let below = format!("{}/", first.series_path());
        record.documents.extend(
            previous.documents.iter().filter(|(path, _)| path.starts_with(&below)).map(|(p, h)| (p.clone(), h.clone())),
        );
        record.metadata.extend(previous.metadata.get(token).map(|patches| (token.clone(), patches.clone())));
        record.recipe.extend(previous.recipe.get(token).map(|recipe| (token.clone(), recipe.clone())));
        heads.extend(old_heads.get(token).map(|batch| (token.clone(), batch.clone())));
        rows.extend_from_slice(series);
    }
    for series in written {
        if !series.metadata.is_empty() {
            record.metadata.insert(series.token.clone(), series.metadata);
        }
        record.documents.extend(series.documents);
        record.recipe.insert(series.token.clone(), series.recipe);
        heads.insert(series.token, series.heads);
        rows.extend(series.rows);
    }
    rows.sort_by(|a, b| (&a.token, a.step).cmp(&(&b.token, b.step)));
    let index = VideoIndex { generation: new_generation(), record, rows };
    store.commit(&index, &heads, committed.generation.as_deref())
}

/// The rows of `heads` of a shard's steps, which lie together.
fn rows_of_steps(heads: &RecordBatch, steps: &[StepRow]) -> RecordBatch {
    let (Some(first), Some(last)) = (steps.first(), steps.last()) else { return heads.slice(0, 0) };
    let Some(column) = heads.column_by_name("step") else { return heads.slice(0, 0) };
    let column = column.as_primitive::<Int32Type>().values();
    let start = column.partition_point(|&step| step < first.step);
    let end = column.partition_point(|&step| step <= last.step);
    heads.slice(start, end - start)
}
