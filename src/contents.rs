//! What is in a store or a dump: videos, prompts, words, steps, shapes, bytes. The same description for both.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::dump::{Dump, DumpError, Problem, ReadOptions, Series, StepFiles, StepReader, Video, read_step_metadata};
use crate::error::LayerError;
use crate::grid::Grid;
use crate::ingest::Quarantined;
use crate::progress::{Cancelled, Progress};
use crate::shape::{AxisNumbers, StepShape};
use crate::store::{ArraysRecord, Snapshot, StepRow, Store, StoreError, VideoRecord};

/// What is in a store or a dump.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contents {
    /// The directory described.
    #[serde(serialize_with = "crate::ingest::as_text")]
    pub path: PathBuf,
    /// `store` or `dump`.
    pub kind: Kind,
    /// Version of the store's format.
    pub store_version: Option<u64>,
    /// Number of steps of all words and videos.
    pub steps: u64,
    /// Bytes.
    pub bytes: Bytes,
    /// The videos, sorted by id.
    pub videos: Vec<VideoContents>,
    /// What cannot be used: files of a dump, damaged parts of a store.
    pub problems: Vec<Quarantined>,
}

/// What is described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A store.
    Store,
    /// A dump.
    Dump,
}

/// Sizes in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// Values, uncompressed.
    pub raw: u64,
    /// Files that hold them: step files of a dump, `attention` arrays of a store.
    pub stored: u64,
    /// Rollups of a store.
    pub rollups: u64,
    /// Tables of a store.
    pub index: u64,
    /// Files of a store that no commit names.
    pub unreferenced: u64,
}

/// One video.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VideoContents {
    /// Its id.
    pub video_id: String,
    /// Its prompt.
    pub prompt: Option<String>,
    /// Its seed.
    pub seed: Option<i128>,
    /// Whether it has a summary: it was generated to its end.
    pub has_summary: bool,
    /// Its words.
    pub tokens: Vec<SeriesContents>,
}

/// One word of a video.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesContents {
    /// The word.
    pub token: String,
    /// Its weight, where known.
    pub weight: Option<f64>,
    /// Its steps, ascending.
    pub steps: Vec<i32>,
    /// Steps of the generation, as the metadata says.
    pub total_steps: Option<i32>,
    /// Shape of a step array, if it could be told.
    pub shape: Option<[usize; 4]>,
    /// Numbers of its blocks and heads, where they do not count from 0.
    #[serde(default)]
    pub numbers: AxisNumbers,
    /// The grid, if known.
    pub grid: Option<Grid>,
    /// Element type.
    pub dtype: Option<String>,
    /// What was lost at ingest: `{}` if nothing.
    pub lossy: serde_json::Value,
    /// Bytes.
    pub bytes: Bytes,
    /// Aggregate files, which are derived and left aside.
    pub aggregates: usize,
}

impl Contents {
    /// Describes a store.
    ///
    /// # Errors
    /// If its index cannot be read, and [`StoreError::Cancelled`].
    pub fn of_store(store: &Store, progress: &dyn Progress) -> Result<Self, StoreError> {
        let (index, snapshot) = store.of_one_state(Snapshot::read_index)?;
        let problems = Mutex::new(Vec::new());
        // What of a word cannot be read is no reason to say nothing of the others.
        let described = |record: &VideoRecord, rows: &[StepRow]| {
            let first = rows.first()?;
            let series = stored_series(&snapshot, record, first, rows);
            let failed = |error: StoreError| Quarantined {
                path: store.place().join(first.series_path()),
                error: error.to_string(),
                remedy: error.remedy(),
            };
            series.map_err(|error| problems.lock().unwrap_or_else(PoisonError::into_inner).push(failed(error))).ok()
        };
        let videos = of_each(&index, progress, |video| VideoContents {
            video_id: video.record.video_id.clone(),
            prompt: video.rows.first().and_then(|row| row.prompt.clone()).or_else(|| {
                let summary = video.record.summary.as_ref()?;
                Some(summary.get("prompt")?.as_str()?.to_owned())
            }),
            seed: video.rows.first().and_then(|row| row.seed),
            has_summary: video.record.summary.is_some(),
            tokens: video.series().filter_map(|rows| described(&video.record, rows)).collect(),
        })?;
        let mut contents = Self {
            path: store.place(),
            kind: Kind::Store,
            store_version: Some(store.version()?),
            steps: 0,
            bytes: Bytes::default(),
            videos,
            problems: Vec::new(),
        };
        contents.add_up();
        contents.bytes.index = snapshot.index_bytes()?;
        contents.bytes.unreferenced = store.garbage_beside(&index)?.iter().map(|garbage| garbage.bytes).sum();
        let left_out = store.left_out().into_iter().map(|(path, error)| Quarantined { path, error, remedy: None });
        contents.problems = left_out.chain(problems.into_inner().unwrap_or_else(PoisonError::into_inner)).collect();
        contents.problems.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(contents)
    }

    /// Describes a dump, from names, metadata and the heads of one file of each word.
    ///
    /// # Errors
    /// If the directory cannot be read, and [`Problem::Cancelled`].
    pub fn of_dump(path: &Path, progress: &dyn Progress) -> Result<Self, DumpError> {
        let dump = Dump::find_unless_cancelled(&[path], progress)?;
        let problems = dump.problems.iter().map(Quarantined::from).collect();
        let described = Self::of_videos(&dump.videos, progress).map_err(|_| Problem::Cancelled.at(path))?;
        Ok(Self { path: path.to_owned(), problems, ..described })
    }

    /// Describes some of the videos of a dump.
    pub(crate) fn of_videos(videos: &[Video], progress: &dyn Progress) -> Result<Self, Cancelled> {
        let mut videos = of_each(videos, progress, dumped_video)?;
        videos.sort_by(|a, b| a.video_id.cmp(&b.video_id));
        let mut contents = Self {
            path: PathBuf::new(),
            kind: Kind::Dump,
            store_version: None,
            steps: 0,
            bytes: Bytes::default(),
            videos,
            problems: Vec::new(),
        };
        contents.add_up();
        Ok(contents)
    }

    fn add_up(&mut self) {
        for series in self.videos.iter().flat_map(|video| &video.tokens) {
            self.steps += series.steps.len() as u64;
            self.bytes.raw += series.bytes.raw;
            self.bytes.stored += series.bytes.stored;
            self.bytes.rollups += series.bytes.rollups;
        }
    }
}

/// Something of each of some videos, unless the work is stopped.
fn of_each<T: Sync, U: Send>(
    videos: &[T],
    progress: &dyn Progress,
    describe: impl Fn(&T) -> U + Sync,
) -> Result<Vec<U>, Cancelled> {
    let each =
        videos.par_iter().map(|video| if progress.is_cancelled() { Err(Cancelled) } else { Ok(describe(video)) });
    each.collect()
}

fn stored_series(
    snapshot: &Snapshot,
    record: &VideoRecord,
    first: &StepRow,
    rows: &[StepRow],
) -> Result<SeriesContents, StoreError> {
    let element = first.dtype.size();
    let ArraysRecord { attention: stored, rollups, lossy } = match record.arrays.get(&first.token) {
        Some(arrays) => arrays.clone(),
        None => snapshot.generation(first.series_path())?.arrays()?,
    };
    Ok(SeriesContents {
        token: first.token.clone(),
        weight: first.weight,
        steps: rows.iter().map(|row| row.step).collect(),
        total_steps: first.total_steps,
        shape: Some(first.shape.axes()),
        numbers: first.numbers.clone(),
        grid: first.grid,
        dtype: Some(first.dtype.name().to_owned()),
        lossy,
        bytes: Bytes { raw: (first.shape.len() * element * rows.len()) as u64, stored, rollups, ..Bytes::default() },
        aggregates: 0,
    })
}

fn dumped_video(video: &Video) -> VideoContents {
    let first = video.series.iter().flat_map(|series| &series.steps).flat_map(|files| &files.parts).next();
    let metadata = first.and_then(|part| read_step_metadata(&part.metadata).ok()).map(|read| read.0);
    VideoContents {
        video_id: video.id(),
        prompt: metadata.as_ref().and_then(|metadata| metadata.prompt.clone()),
        seed: metadata.as_ref().and_then(|metadata| metadata.seed),
        has_summary: video.summary.is_some(),
        tokens: video.series.iter().map(dumped_series).collect(),
    }
}

fn dumped_series(series: &Series) -> SeriesContents {
    let first = series.steps.first();
    let metadata = first.and_then(|files| read_step_metadata(&files.parts.first()?.metadata).ok()).map(|read| read.0);
    let mut reader = StepReader::new(ReadOptions::default());
    // The first step that can be read tells the shape.
    let peek = series.steps.iter().find_map(|files| match reader.peek(files, &series.split) {
        Ok(None) => reader.read(files, &series.split).ok().map(|step| step.array.peek()),
        peeked => peeked.ok().flatten(),
    });
    let raw = peek.map_or(0, |peek| {
        peek.shape.len() * if peek.dtype.name() == "bfloat16" { 2 } else { peek.dtype.stored().size() }
    });
    SeriesContents {
        token: series.token.clone(),
        weight: series.weight,
        steps: series.steps.iter().map(|files| files.step).collect(),
        total_steps: metadata.as_ref().and_then(|metadata| metadata.total_steps),
        shape: peek.map(|peek| StepShape::axes(peek.shape)),
        numbers: match (peek, &metadata) {
            (Some(peek), Some(metadata)) => metadata.numbers(peek.shape, &series.split).0,
            _ => AxisNumbers::default(),
        },
        grid: peek.and_then(|peek| metadata.as_ref()?.grid(peek.shape.spatial).ok()),
        dtype: peek.map(|peek| peek.dtype.name().to_owned()),
        lossy: serde_json::json!({}),
        bytes: Bytes {
            raw: (raw * series.steps.len()) as u64,
            stored: series.steps.iter().map(StepFiles::bytes).sum(),
            ..Bytes::default()
        },
        aggregates: series.aggregates.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{self, IngestOptions, Silent};
    use crate::progress::Stopped;

    #[test]
    fn it_can_be_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let dump = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/dataset"));
        ingest::run(&[dump], dir.path().join("store"), &IngestOptions::default(), &Silent).unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        assert!(matches!(Contents::of_store(&store, &Stopped), Err(StoreError::Cancelled)));
        let stopped = Contents::of_dump(dump, &Stopped).unwrap_err();
        assert!(matches!(stopped.problem, Problem::Cancelled));
        let dump = Dump::find(&[dump]).unwrap();
        assert_eq!(Contents::of_videos(&dump.videos, &Stopped), Err(Cancelled));
    }
}
