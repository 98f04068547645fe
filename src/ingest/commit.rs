//! Making a video's new state visible: documents of the words written, rows of all words, one commit.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int32Type;
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::candidates::Candidates;
use super::plan::Committed;
use super::series::SeriesTarget;
use super::task::{Fragment, no_heads};
use crate::json::{Json, Object};
use crate::store::{
    ArraysRecord, Coordinates, Heads, MetadataPatch, Recipe, StagedCommit, StepRow, Store, StoreError, TextRow,
    VideoIndex, VideoRecord, heads_schema, text_after, text_batch,
};

/// What ends the work on a video: what was begun in vain is removed, and what was written is committed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommitTask {
    /// The video.
    pub video_id: String,
    /// Directories of arrays that nothing will name, below the store.
    pub(super) discarded: Vec<String>,
    /// What is committed, if anything is new.
    pub(super) change: Option<Change>,
}

/// A video's new state, in terms of the one that it replaces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Change {
    /// The generation that it replaces, if there is one.
    pub base: Option<String>,
    /// Its own.
    pub generation: String,
    pub summary: Option<Object>,
    /// Rows of the words that keep their arrays.
    pub kept: Vec<StepRow>,
    /// Words of which the statistics of the replaced state are needed.
    pub with_heads: BTreeSet<String>,
    /// The words whose arrays are new.
    pub written: Vec<WrittenWord>,
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommitOutcome {
    /// It is in the store.
    Committed,
    /// Another writer committed the video meanwhile. What was written for this commit is removed.
    Lost,
}

/// How far a commit is.
#[derive(Debug)]
pub(super) enum CommitStage {
    /// At its end.
    Ended(CommitOutcome),
    /// Its parts are beside their places.
    Staged(StagedCommit),
}

/// A word all of whose shards are written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct WrittenWord {
    pub target: SeriesTarget,
    pub rows: Vec<StepRow>,
    /// By shard.
    heads: Vec<HeadsOfShard>,
    metadata: BTreeMap<i32, MetadataPatch>,
    /// Steps whose metadata differs from what their rows reproduce as it did before.
    as_before: Vec<i32>,
    /// Directory of the committed arrays whose attributes are this word's, too.
    described_by: Option<String>,
}

/// Statistics of the maps of a shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum HeadsOfShard {
    /// As they were measured.
    Measured {
        #[serde(skip, default = "no_heads")]
        heads: RecordBatch,
    },
    /// Those that are committed, from one step to another.
    Committed { first: i32, last: i32 },
}

impl CommitTask {
    /// Ends the work on the video. Run again, it finds its own commit.
    pub(super) fn run(&self, store: &Store) -> Result<CommitOutcome, StoreError> {
        match self.stage(store)? {
            CommitStage::Ended(outcome) => Ok(outcome),
            CommitStage::Staged(staged) => Ok(self.outcome(store, store.publish(&[staged])? == [true])),
        }
    }

    /// All of it but what makes it visible.
    pub(super) fn stage(&self, store: &Store) -> Result<CommitStage, StoreError> {
        for discarded in &self.discarded {
            store.discard(discarded);
        }
        let Some(change) = &self.change else { return Ok(CommitStage::Ended(CommitOutcome::Committed)) };
        let committed = store.committed(&self.video_id)?;
        if committed.as_ref() == Some(&change.generation) {
            return Ok(CommitStage::Ended(CommitOutcome::Committed));
        }
        let staged = if committed == change.base { self.stage_change(change, store)? } else { None };
        Ok(staged.map_or_else(|| CommitStage::Ended(self.outcome(store, false)), CommitStage::Staged))
    }

    /// What became of it.
    pub(super) fn outcome(&self, store: &Store, is_published: bool) -> CommitOutcome {
        if is_published {
            return CommitOutcome::Committed;
        }
        let Some(change) = &self.change else { return CommitOutcome::Lost };
        // If this runs a second time, the other commit may be on top of the first one, and name what it wrote.
        if let Ok(index) = store.snapshot().read_video(&self.video_id) {
            let named = |word: &&WrittenWord| {
                index.iter().flat_map(|index| &index.rows).any(|row| row.series_path() == word.target.path)
            };
            for word in change.written.iter().filter(|word| !named(word)) {
                store.discard(&word.target.path);
            }
        }
        CommitOutcome::Lost
    }

    /// `None`: another writer committed the video meanwhile.
    fn stage_change(&self, change: &Change, store: &Store) -> Result<Option<StagedCommit>, StoreError> {
        let needs_previous = !change.kept.is_empty()
            || change.written.iter().any(WrittenWord::needs_previous)
            || store.has_text(&self.video_id)?;
        let mut committed = Committed { generation: change.base.clone(), ..Committed::default() };
        if needs_previous {
            committed = Committed::read(store, &self.video_id)?;
            let is_there = |word: &String| committed.has_heads(word);
            if committed.generation != change.base || !change.with_heads.iter().all(is_there) {
                return Ok(None);
            }
        }
        let written = change.written.iter().map(|word| word.document(store, &committed)).collect::<Result<_, _>>()?;
        let Change { generation, summary, kept, .. } = change.clone();
        stage_video(store, &self.video_id, generation, summary, kept, written, &[], &committed).map(Some)
    }

    /// The words whose arrays are new, if anything is.
    pub(super) fn words(&self) -> Option<&[WrittenWord]> {
        Some(&self.change.as_ref()?.written)
    }

    /// The tables that bytes carry beside the value, in order.
    pub(super) fn tables(&self) -> impl Iterator<Item = &RecordBatch> {
        let heads = self.change.iter().flat_map(|change| &change.written).flat_map(|word| &word.heads);
        heads.filter_map(|heads| match heads {
            HeadsOfShard::Measured { heads } => Some(heads),
            HeadsOfShard::Committed { .. } => None,
        })
    }

    /// Where they go.
    pub(super) fn tables_mut(&mut self) -> impl Iterator<Item = &mut RecordBatch> {
        let heads = self.change.iter_mut().flat_map(|change| &mut change.written).flat_map(|word| &mut word.heads);
        heads.filter_map(|heads| match heads {
            HeadsOfShard::Measured { heads } => Some(heads),
            HeadsOfShard::Committed { .. } => None,
        })
    }
}

impl WrittenWord {
    /// Puts the fragments of a word's shards together.
    pub fn new(target: SeriesTarget, candidates: &Candidates, mut fragments: Vec<Fragment>) -> Self {
        fragments.sort_by_key(|fragment| fragment.rows.first().map(|row| row.row));
        let (mut rows, mut heads) = (Vec::new(), Vec::new());
        let (mut metadata, mut as_before) = (BTreeMap::new(), Vec::new());
        for fragment in fragments {
            // Rows of `heads` are ordered by (step, token position, block, head), which is how steps are measured.
            heads.push(match (fragment.is_shared, fragment.rows.first(), fragment.rows.last()) {
                (true, Some(first), Some(last)) => HeadsOfShard::Committed { first: first.step, last: last.step },
                _ => HeadsOfShard::Measured { heads: fragment.heads },
            });
            for row in fragment.rows {
                // A step that came from the store keeps what was known of it.
                let carried =
                    candidates.stored(row.step).filter(|_| row.content_hash.is_empty() || candidates.is_mended());
                rows.push(match carried {
                    Some(stored) => {
                        as_before.push(row.step);
                        StepRow { array: row.array, row: row.row, grid: row.grid, ..stored.clone() }
                    }
                    None => row,
                });
            }
            if !candidates.is_mended() {
                metadata.extend(fragment.metadata);
            }
        }
        // A word that was written anew from the store alone is still what it was.
        let is_as_it_was = candidates.is_without_files() || candidates.is_mended();
        let stored = rows.first().and_then(|row: &StepRow| candidates.stored(row.step)).filter(|_| is_as_it_was);
        let described_by = stored.map(|row| row.series_path().to_owned());
        Self { target, rows, heads, metadata, as_before, described_by }
    }

    /// Whether statistics of the committed state are its own, too.
    pub fn has_committed_heads(&self) -> bool {
        self.heads.iter().any(|heads| matches!(heads, HeadsOfShard::Committed { .. }))
    }

    fn needs_previous(&self) -> bool {
        self.has_committed_heads() || !self.as_before.is_empty()
    }

    /// Writes its documents and coordinates.
    fn document(&self, store: &Store, committed: &Committed) -> Result<WrittenSeries, StoreError> {
        let target = &self.target;
        let heads = self.heads.iter().map(|heads| match heads {
            HeadsOfShard::Measured { heads } => heads.clone(),
            HeadsOfShard::Committed { first, last } => {
                let committed = committed.heads.as_ref().and_then(|heads| heads.get(&target.token));
                committed.map_or_else(no_heads, |heads| rows_of_steps(heads, *first, *last))
            }
        });
        let heads = concat_batches(&heads_schema(), &heads.collect::<Vec<_>>()).map_err(|error: ArrowError| {
            StoreError::Damaged { path: store.place().join(&target.path), found: error.into() }
        })?;
        let known = committed.previous.as_ref().and_then(|index| index.record.metadata.get(&target.token));
        let carried = self.as_before.iter().filter_map(|step| Some((*step, known?.get(step)?.clone())));
        let metadata = carried.chain(self.metadata.clone()).collect();
        let attributes = self.described_by.as_ref().and_then(|path| store.generation_at(path).ok()?.attributes().ok());
        WrittenSeries::document(store, target, self.rows.clone(), heads, metadata, attributes)
    }
}

/// One word whose arrays are complete, and described by their documents.
pub(super) struct WrittenSeries {
    token: String,
    recipe: Recipe,
    rows: Vec<StepRow>,
    heads: RecordBatch,
    metadata: BTreeMap<i32, MetadataPatch>,
    documents: BTreeMap<String, String>,
    arrays: ArraysRecord,
}

impl WrittenSeries {
    /// Writes the documents and coordinates of a word whose shards are there. Its attributes are those of the target,
    /// unless given.
    pub fn document(
        store: &Store,
        target: &SeriesTarget,
        rows: Vec<StepRow>,
        heads: RecordBatch,
        metadata: BTreeMap<i32, MetadataPatch>,
        attributes: Option<Value>,
    ) -> Result<Self, StoreError> {
        let steps: Vec<i32> = rows.iter().map(|row| row.step).collect();
        let timesteps: Vec<f64> = rows.iter().map(|row| row.timestep.unwrap_or(f64::NAN)).collect();
        let coordinates = Coordinates { steps: &steps, timesteps: &timesteps, numbers: &target.numbers };
        let first = rows.first();
        let mut attributes = attributes.unwrap_or_else(|| {
            json!({
                "video_id": target.video_id,
                "token": target.token,
                "prompt": first.and_then(|row| row.prompt.as_ref()),
                "seed": first.and_then(|row| row.seed).map(|seed| Json::from(seed).to_value()),
                "cfg_scale": first.and_then(|row| row.cfg_scale),
                "grid": target.grid,
                "source": target.source.to_string_lossy(),
                "source_dtype": target.source_dtype,
                "lossy": target.lossy,
            })
        });
        if !target.source_arrays.is_empty() {
            attributes["source_arrays"] = json!(target.source_arrays);
        }
        let generation = store.generation_at(&target.path)?;
        let lossy = attributes.get("lossy").cloned().unwrap_or_default();
        let documents = generation.write_documents(&target.layout, attributes, &coordinates)?;
        let (attention, rollups) = generation.bytes()?;
        let arrays = ArraysRecord { attention, rollups, lossy };
        let (token, recipe) = (target.token.clone(), target.recipe.clone());
        Ok(Self { token, recipe, rows, heads, metadata, documents, arrays })
    }
}

/// Stages a video's commit: the words written, and those kept as they are; rows of `text` are added to those there are.
#[allow(clippy::too_many_arguments)]
pub(super) fn stage_video(
    store: &Store,
    video_id: &str,
    generation: String,
    summary: Option<Object>,
    kept: Vec<StepRow>,
    written: Vec<WrittenSeries>,
    text: &[TextRow],
    committed: &Committed,
) -> Result<StagedCommit, StoreError> {
    let no_record = VideoRecord::default();
    let previous = committed.previous.as_ref().map_or(&no_record, |index| &index.record);
    let no_heads = Heads::new();
    let old_heads = committed.heads.as_ref().unwrap_or(&no_heads);
    let mut record = VideoRecord { video_id: video_id.to_owned(), summary, ..VideoRecord::default() };
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
        record.arrays.extend(previous.arrays.get(token).map(|arrays| (token.clone(), arrays.clone())));
        heads.extend(old_heads.get(token).map(|batch| (token.clone(), batch.clone())));
        rows.extend_from_slice(series);
    }
    for series in written {
        if !series.metadata.is_empty() {
            record.metadata.insert(series.token.clone(), series.metadata);
        }
        record.documents.extend(series.documents);
        record.recipe.insert(series.token.clone(), series.recipe);
        record.arrays.insert(series.token.clone(), series.arrays);
        heads.insert(series.token, series.heads);
        rows.extend(series.rows);
    }
    rows.sort_by(|a, b| (&a.token, a.step).cmp(&(&b.token, b.step)));
    let text = (committed.text.is_some() || !text.is_empty()).then(|| text_of(video_id, text, &rows, committed));
    let text = text.transpose().map_err(|error| StoreError::Damaged { path: store.place(), found: error.into() })?;
    record.has_text = text.is_some();
    let index = VideoIndex { generation, record, rows };
    store.stage(&index, &heads, text.as_ref(), committed.generation.as_deref())
}

/// The rows of `text` once these rows of `steps` are committed. Of a step whose maps are others now, what was known is
/// of another video.
fn text_of(
    video_id: &str,
    added: &[TextRow],
    rows: &[StepRow],
    committed: &Committed,
) -> Result<RecordBatch, ArrowError> {
    let place = |row: &StepRow| (row.token.clone(), row.step);
    let hashes: HashMap<_, _> = committed.rows().iter().map(|row| (place(row), &row.content_hash)).collect();
    let is_another = |row: &&StepRow| hashes.get(&place(row)).is_some_and(|before| **before != row.content_hash);
    let mut steps: HashSet<i32> = rows.iter().map(|row| row.step).collect();
    for row in rows.iter().filter(is_another) {
        steps.remove(&row.step);
    }
    text_after(committed.text.as_ref(), &text_batch(video_id, added)?, &steps)
}

/// The rows of `heads` from one step to another, which lie together.
fn rows_of_steps(heads: &RecordBatch, first: i32, last: i32) -> RecordBatch {
    let Some(column) = heads.column_by_name("step") else { return heads.slice(0, 0) };
    let column = column.as_primitive::<Int32Type>().values();
    let start = column.partition_point(|&step| step < first);
    let end = column.partition_point(|&step| step <= last);
    heads.slice(start, end - start)
}
