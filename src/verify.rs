//! Checking that a store is what it was when it was written: every byte, every row against the arrays, every statistic
//! and rollup against the values, and on request every value against the dump.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int32Type;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::dump::{
    Dump, DumpError, Problem, ReadOptions, Series, StepFiles, StepReader, composed, read_step_metadata, read_summary,
    step_of,
};
use crate::error::{ErrorKind, LayerError};
use crate::grid::Grid;
use crate::ingest::{ARRAY_KEYS, transform};
use crate::kernel::{StepMeasurer, StepMeasures};
use crate::progress::{Cancelled, Meter, Progress, Unit};
use crate::query::{Filter, QueryError, StepSet};
use crate::remedy::{OptionName, Remedy};
use crate::store::{
    ArrayKind, Coordinates, Fault, HeadRow, MetadataPatch, Recipe, Rollups, Snapshot, StepRow, Store, StoreError,
    StoredArray, UNFINISHED, VideoIndex, VideoRecord, heads_batch, text_contradictions,
};
use crate::values::{Values, with_values};

/// What a verification looked at and found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Videos looked at.
    pub videos: u64,
    /// Steps looked at.
    pub steps: u64,
    /// Bytes of values decoded.
    pub bytes: u64,
    /// Steps compared with the dump.
    pub compared: u64,
    /// Steps of the store that are not in the dump.
    pub not_in_dump: u64,
    /// Steps of the dump that are not in the store.
    pub not_in_store: u64,
    /// Files of the dump that the store lacks, sorted: those of such steps, and what cannot be used.
    pub lacking: Vec<Lacking>,
    /// Words that were stored with a loss: compared after the same was done to the dump.
    pub lossy: u64,
    /// What is wrong, sorted: in the store, or in the dump since it was ingested.
    pub faults: Vec<Fault>,
    /// Wall time.
    pub seconds: f64,
}

/// A file of the dump that the store lacks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lacking {
    /// The file or directory.
    pub path: String,
    /// Why, as far as that can be told.
    pub reason: String,
}

/// Why a verification could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The steps to verify cannot be told.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The dump to compare with cannot be read.
    #[error(transparent)]
    Dump(DumpError),
    /// Nothing of the store is in the dump.
    #[error("nothing was compared: no step of the store is in the dump ({not_in_store} steps there)")]
    NothingCompared {
        /// Steps of the dump that are not in the store.
        not_in_store: u64,
    },
    /// Stopped by whoever asked.
    #[error("stopped before everything was verified")]
    Cancelled,
}

/// How a verification is done.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// Compare every value with the dumps below these directories.
    pub against: Vec<PathBuf>,
    /// The prefix that the dump's videos were ingested with.
    pub prefix: Option<String>,
    /// Only steps of which at least one map matches; `None`: all.
    pub filter: Option<Filter>,
    /// Only these videos; `None`: all.
    pub videos: Option<HashSet<String>>,
}

impl LayerError for VerifyError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Query(error) => error.kind(),
            Self::Dump(error) => error.kind(),
            Self::NothingCompared { .. } => ErrorKind::NotFound,
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }

    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Store(error) => error.remedy(),
            Self::Query(error) => error.remedy(),
            Self::Dump(error) => error.remedy(),
            Self::NothingCompared { .. } => Some(Remedy::of(
                "is it the right directory? if it was ingested with {}, say so here too",
                [OptionName::Prefix.any()],
            )),
            Self::Cancelled => None,
        }
    }
}

impl From<DumpError> for VerifyError {
    fn from(error: DumpError) -> Self {
        if matches!(error.problem, Problem::Cancelled) { Self::Cancelled } else { Self::Dump(error) }
    }
}

impl From<Cancelled> for VerifyError {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

impl VerifyReport {
    /// Refuses a comparison in which nothing was compared: it would look as if all were well.
    ///
    /// # Errors
    /// [`VerifyError::NothingCompared`], if a dump was named and no fault says why.
    pub fn with_something_compared(self, options: &VerifyOptions) -> Result<Self, VerifyError> {
        let is_nothing = !options.against.is_empty() && self.compared == 0 && self.faults.is_empty();
        if is_nothing { Err(VerifyError::NothingCompared { not_in_store: self.not_in_store }) } else { Ok(self) }
    }
}

/// Verifies a store. Its progress counts steps.
///
/// # Errors
/// If the store or the dump cannot be read at all, and [`VerifyError::Cancelled`]. What is wrong inside is in
/// [`VerifyReport::faults`].
pub fn run(store: &Store, options: &VerifyOptions, progress: &dyn Progress) -> Result<VerifyReport, VerifyError> {
    let start = std::time::Instant::now();
    // What is missing because it was packed meanwhile is not.
    let (snapshot, (mut index, damaged)) = store.of_one_index(|| {
        let snapshot = store.snapshot();
        let found = snapshot.read_index_and_faults()?;
        Ok((snapshot, found))
    })?;
    let mut report = VerifyReport { faults: snapshot.check_root().into_iter().collect(), ..VerifyReport::default() };
    if let Some(videos) = &options.videos {
        index.retain(|video| videos.contains(&video.record.video_id));
    }
    let sources = if options.against.is_empty() { None } else { Some(Sources::find(&index, options, progress)?) };
    report.faults.extend(damaged);
    let chosen = match options.filter.as_ref().map(|filter| StepSet::find(store, filter)).transpose() {
        // Which steps match cannot be told from damaged tables; what is damaged can.
        Err(QueryError::Tables(_) | QueryError::Store(_)) if !report.faults.is_empty() => {
            report.faults.sort();
            return Ok(report);
        }
        chosen => chosen?,
    };
    let chosen_of = |video: &VideoIndex| {
        video.rows.iter().filter(|row| chosen.as_ref().is_none_or(|chosen| chosen.contains(row))).count() as u64
    };
    let videos: Vec<&VideoIndex> = index.iter().filter(|video| chosen.is_none() || chosen_of(video) > 0).collect();
    let all: u64 = videos.iter().map(|video| chosen_of(video)).sum();
    let meter = Meter::new(progress, Unit::Steps, all);
    let checked: Vec<Checked> = videos
        .par_iter()
        .map(|video| check_as_committed(&snapshot, video, sources.as_ref(), chosen.as_ref(), &meter))
        .collect();
    meter.check()?;
    report.videos = videos.len() as u64;
    report.steps = all;
    let Checked { faults, bytes, compared, not_in_dump } = checked.into_iter().fold(Checked::default(), Checked::merge);
    report.faults.extend(faults);
    (report.bytes, report.compared, report.not_in_dump) = (bytes, compared, not_in_dump);
    if let Some(sources) = sources {
        (report.not_in_store, report.lacking) = sources.not_in(&index);
        let lossy = |rows: &&[StepRow]| {
            let generation = rows.first().and_then(|row| snapshot.generation(row.series_path()).ok());
            let attributes = generation.and_then(|generation| generation.attributes().ok());
            attributes.is_some_and(|found| found["lossy"].as_object().is_some_and(|lossy| !lossy.is_empty()))
        };
        report.lossy = index.iter().flat_map(VideoIndex::series).filter(lossy).count() as u64;
    }
    report.faults.sort();
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

#[derive(Default)]
struct Checked {
    faults: Vec<Fault>,
    bytes: u64,
    compared: u64,
    not_in_dump: u64,
}

impl Checked {
    fn merge(mut self, other: Self) -> Self {
        self.faults.extend(other.faults);
        self.bytes += other.bytes;
        self.compared += other.compared;
        self.not_in_dump += other.not_in_dump;
        self
    }
}

/// The words of the dump that a store's values are compared with.
struct Sources {
    series: HashMap<(String, String), Series>,
    /// The summary of each video that has words.
    summaries: Vec<(String, PathBuf)>,
    /// What of the dump cannot be used.
    problems: Vec<DumpError>,
}

impl Sources {
    fn find(index: &[VideoIndex], options: &VerifyOptions, progress: &dyn Progress) -> Result<Self, VerifyError> {
        let mut dump = Dump::find_unless_cancelled(&options.against, progress)?;
        let spellings = index.iter().flat_map(|video| &video.rows).map(|row| (composed(&row.token), row.token.clone()));
        dump.unify_spellings(spellings.collect());
        let prefixed = |id: &str| options.prefix.as_ref().map_or(id.to_owned(), |prefix| format!("{prefix}/{id}"));
        let ids = || index.iter().map(|video| &video.record.video_id);
        let known: HashSet<&String> = ids().collect();
        let sources: HashMap<&Path, &String> =
            index.iter().zip(ids()).filter_map(|(video, id)| Some((video.source_dir()?, id))).collect();
        let (mut series, mut summaries) = (HashMap::new(), Vec::new());
        for video in dump.videos {
            // Batches are told apart by name only where they are ingested together.
            let by_name = [prefixed(&video.id()), prefixed(&video.name)];
            let by_name = by_name.iter().find(|id| known.contains(id)).unwrap_or(&by_name[0]);
            let id = sources.get(video.dir.as_path()).map_or(by_name, |id| *id).clone();
            summaries.extend(video.summary.filter(|_| !video.series.is_empty()).map(|path| (id.clone(), path)));
            for word in video.series {
                series.insert((id.clone(), word.token.clone()), word);
            }
        }
        Ok(Self { series, summaries, problems: dump.problems })
    }

    /// How many steps of the dump no row stands for, and the files that the store lacks.
    fn not_in(&self, index: &[VideoIndex]) -> (u64, Vec<Lacking>) {
        let rows: HashSet<(&str, &str, i32)> =
            index.iter().flat_map(|video| &video.rows).map(|row| (&*row.video_id, &*row.token, row.step)).collect();
        let missing: Vec<&StepFiles> = self
            .series
            .iter()
            .flat_map(|((video, token), series)| {
                series.steps.iter().filter(|files| !rows.contains(&(video.as_str(), token.as_str(), files.step)))
            })
            .collect();
        let lacking = |path: &Path, reason: String| Lacking { path: path.display().to_string(), reason };
        let of_steps = missing.iter().flat_map(|files| &files.parts).map(|part| {
            lacking(&part.path, "the step is not in the store: it was not ingested, or could not be used".into())
        });
        // Metadata whose tensor is gone lacks nothing if the store has the step.
        let is_in_store = |error: &&DumpError| {
            let Problem::NoTensor { expected } = &error.problem else { return false };
            let word = self.series.iter().find(|(_, series)| Some(series.dir.as_path()) == error.path.parent());
            let step = step_of(expected).zip(word);
            step.is_some_and(|(step, ((video, token), _))| rows.contains(&(video.as_str(), token.as_str(), step)))
        };
        let unusable = self.problems.iter().filter(|error| !is_in_store(error));
        let unusable = unusable.map(|error| lacking(&error.path, error.problem.to_string()));
        let records: HashMap<&str, &VideoRecord> =
            index.iter().map(|video| (&*video.record.video_id, &video.record)).collect();
        let of_summaries = self.summaries.iter().filter_map(|(video, path)| {
            let stored = records.get(video.as_str()).and_then(|record| record.summary.as_ref());
            let reason = match read_summary(path) {
                Ok((summary, _)) if stored == Some(&summary) => return None,
                Ok(_) => "the store has no such summary of the video: ingest again".to_owned(),
                Err(error) => error.problem.to_string(),
            };
            Some(lacking(path, reason))
        });
        let mut all: Vec<Lacking> = of_steps.chain(unusable).chain(of_summaries).collect();
        all.sort();
        (missing.len() as u64, all)
    }
}

/// Checks a video; if it was committed anew meanwhile, as what it is now.
fn check_as_committed(
    snapshot: &Snapshot,
    video: &VideoIndex,
    sources: Option<&Sources>,
    chosen: Option<&StepSet>,
    meter: &Meter<'_>,
) -> Checked {
    /// Commits that are followed, and the time that one takes.
    const COMMITS: usize = 10;
    const COMMIT: std::time::Duration = std::time::Duration::from_millis(50);
    let mut newer: Option<VideoIndex> = None;
    for _ in 0..COMMITS {
        if meter.check().is_err() {
            return Checked::default();
        }
        let current = newer.as_ref().unwrap_or(video);
        let checked = check_video(snapshot, current, sources, chosen, meter);
        if checked.faults.iter().all(|fault| fault.in_dump) {
            return checked;
        }
        // Between its renames, a commit has replaced some parts only.
        if matches!(snapshot.read_heads(current), Ok(None)) || is_text_of_another_commit(snapshot, current) {
            std::thread::sleep(COMMIT);
        }
        match snapshot.store().snapshot().read_video(&video.record.video_id) {
            Ok(Some(found)) if found.generation != current.generation => newer = Some(found),
            _ => return checked,
        }
    }
    check_video(snapshot, newer.as_ref().unwrap_or(video), sources, chosen, meter)
}

fn check_video(
    snapshot: &Snapshot,
    video: &VideoIndex,
    sources: Option<&Sources>,
    chosen: Option<&StepSet>,
    meter: &Meter<'_>,
) -> Checked {
    let video_id = &video.record.video_id;
    let of_video = |path: String, error: String| Fault {
        video_id: Some(video_id.clone()),
        token: None,
        step: None,
        path,
        error,
        in_dump: false,
    };
    let mut checked = Checked { faults: snapshot.check_video_documents(video), ..Checked::default() };
    let store = snapshot.store();
    let heads = match snapshot.read_heads(video) {
        Ok(Some(heads)) => Some(heads),
        Ok(None) => {
            checked.faults.push(of_video(store.heads_file(video_id), UNFINISHED.to_owned()));
            None
        }
        Err(error) => {
            checked.faults.push(of_video(store.heads_file(video_id), error.to_string()));
            None
        }
    };
    checked.faults.extend(text_fault(snapshot, video).map(|error| of_video(store.text_file(video_id), error)));
    let in_steps = contradictions(video).map(|error| of_video(store.steps_file(video_id), error));
    checked.faults.extend(in_steps);
    let has_rows = |token: &String| video.rows.iter().any(|row| row.token == *token);
    for token in heads.iter().flat_map(BTreeMap::keys).filter(|token| !has_rows(token)) {
        let error = format!("it has rows of the word {token}, which `steps` has none of");
        checked.faults.push(Fault { token: Some(token.clone()), ..of_video(store.heads_file(video_id), error) });
    }
    let series: Vec<&[StepRow]> = video.series().collect();
    let words: Vec<Checked> = series
        .par_iter()
        .map(|rows| {
            let Some(first) = rows.first() else { return Checked::default() };
            let expected = heads.as_ref().map(|heads| heads.get(&first.token));
            let against = sources.map(|sources| sources.series.get(&(video_id.clone(), first.token.clone())));
            let recipe = video.record.recipe.get(&first.token);
            let patches = video.record.metadata.get(&first.token);
            Word { snapshot, rows, chosen, recipe, patches, against }.check(expected, meter)
        })
        .collect();
    words.into_iter().fold(checked, Checked::merge)
}

/// What is wrong with a video's rows of `text`.
fn text_fault(snapshot: &Snapshot, video: &VideoIndex) -> Option<String> {
    let steps = video.rows.iter().map(|row| row.step).collect();
    match snapshot.read_text(&video.record.video_id) {
        Ok(None) => video.record.has_text.then(|| "missing: its rows cannot be computed anew".to_owned()),
        Ok(Some((generation, _))) if generation != video.generation => Some(UNFINISHED.to_owned()),
        Ok(Some((_, text))) => text_contradictions(&text, &video.record.video_id, &steps),
        Err(error) => Some(error.to_string()),
    }
}

fn is_text_of_another_commit(snapshot: &Snapshot, video: &VideoIndex) -> bool {
    let text = snapshot.read_text(&video.record.video_id);
    matches!(text, Ok(Some((generation, _))) if generation != video.generation)
}

/// What in a `steps` part contradicts something else in it: rows that are there twice or are gone.
fn contradictions(video: &VideoIndex) -> impl Iterator<Item = String> {
    let place = |row: &StepRow| (row.token.clone(), row.step);
    let repeated = video.rows.windows(2).find(|pair| place(&pair[0]) >= place(&pair[1]));
    let repeated = repeated.map(|pair| {
        format!(
            "step {} of the word {} stands behind step {} of {}",
            pair[1].step, pair[1].token, pair[0].step, pair[0].token
        )
    });
    let gone = video.record.recipe.keys().find(|token| !video.rows.iter().any(|row| row.token == **token));
    let gone = gone.map(|token| format!("it has no rows of the word {token}, which was ingested"));
    repeated.into_iter().chain(gone)
}

/// One word of a video under verification.
struct Word<'a> {
    snapshot: &'a Snapshot,
    rows: &'a [StepRow],
    /// The steps to look at; `None`: all.
    chosen: Option<&'a StepSet>,
    recipe: Option<&'a Recipe>,
    patches: Option<&'a BTreeMap<i32, MetadataPatch>>,
    /// `None`: not compared; `Some(None)`: not in the dump.
    against: Option<Option<&'a Series>>,
}

impl Word<'_> {
    fn check(&self, heads: Option<Option<&RecordBatch>>, meter: &Meter<'_>) -> Checked {
        let mut checked = Checked::default();
        let Some(first) = self.rows.first() else { return checked };
        let rows: Vec<&StepRow> =
            self.rows.iter().filter(|row| self.chosen.is_none_or(|chosen| chosen.contains(row))).collect();
        if rows.is_empty() {
            return checked;
        }
        let series = first.series_path();
        for (place, row) in self.rows.iter().enumerate() {
            if row.series_path() != series
                || row.row as usize != place
                || row.shape != first.shape
                || row.numbers != first.numbers
                || row.dtype != first.dtype
            {
                let error = "the row does not fit the others of its word (array, row, shape, numbers or dtype)";
                checked.faults.push(fault(row, Some(row.step), &row.array, error));
                return checked;
            }
        }
        self.check_coordinates(first, series, &mut checked);
        let rollups = self.recipe.map_or(Rollups::All, |recipe| recipe.rollups);
        let mut arrays = Vec::new();
        for kind in rollups.kinds(first.shape, first.dtype) {
            let path = format!("{series}/{}", kind.name());
            match self.snapshot.open_array(&path) {
                Ok(array) => {
                    let error = self.check_array(&array, kind, first);
                    checked.faults.extend(error.map(|error| fault(first, None, &path, error)));
                    arrays.push((kind, path, array));
                }
                Err(error) => checked.faults.push(fault(first, None, &path, error)),
            }
        }
        let steps: Vec<(Checked, Vec<HeadRow>)> = rows
            .par_iter()
            .map_init(
                || StepMeasurer::new(first.shape, first.grid),
                |measurer, row| {
                    if meter.check().is_err() {
                        return (Checked::default(), Vec::new());
                    }
                    let checked = self.check_step(row, &arrays, measurer);
                    let _ = meter.add(1);
                    checked
                },
            )
            .collect();
        let mut measured = Vec::new();
        let mut whole = true;
        for (step, rows) in steps {
            whole &= !rows.is_empty();
            measured.extend(rows);
            checked = checked.merge(step);
        }
        if let Some(heads) = heads.filter(|_| whole) {
            checked.faults.extend(self.check_heads(first, heads, &measured));
        }
        checked
    }

    /// The array's shape and type against the rows.
    fn check_array(&self, array: &StoredArray, kind: ArrayKind, row: &StepRow) -> Option<String> {
        let axes = kind.step_axes(row.shape);
        let expected: Vec<u64> = [vec![self.rows.len()], axes].concat().into_iter().map(|axis| axis as u64).collect();
        let dtype = kind.dtype(row.dtype).name();
        (array.shape() != expected || array.dtype() != dtype)
            .then(|| format!("it is {} {:?}; the table says {dtype} {expected:?}", array.dtype(), array.shape()))
    }

    fn check_coordinates(&self, first: &StepRow, series: &str, checked: &mut Checked) {
        let steps: Vec<i32> = self.rows.iter().map(|row| row.step).collect();
        let timesteps: Vec<f64> = self.rows.iter().map(|row| row.timestep.unwrap_or(f64::NAN)).collect();
        let coordinates = Coordinates { steps: &steps, timesteps: &timesteps, numbers: &first.numbers };
        for coordinate in coordinates.arrays() {
            let path = format!("{series}/{}", coordinate.name);
            match self.snapshot.open_array(&path).and_then(|array| array.read_coordinate()) {
                Ok(found) if found == coordinate.bytes => {}
                Ok(_) => checked.faults.push(fault(first, None, &path, "its values are not those of the table")),
                Err(error) => checked.faults.push(fault(first, None, &path, error)),
            }
        }
    }

    /// Every chunk of one step, its rollups, and its values against the dump. Returns the statistics of its maps if
    /// they could be read.
    fn check_step(
        &self,
        row: &StepRow,
        arrays: &[(ArrayKind, String, Arc<StoredArray>)],
        measurer: &mut StepMeasurer,
    ) -> (Checked, Vec<HeadRow>) {
        let mut checked = Checked::default();
        let mut measures: Option<(Values<'static>, StepMeasures)> = None;
        for (kind, path, array) in arrays {
            let bytes = match array.read_step(row.row.into()) {
                Ok(bytes) => bytes,
                Err(error) => {
                    checked.faults.push(fault(row, Some(row.step), path, error));
                    continue;
                }
            };
            checked.bytes += bytes.len() as u64;
            if *kind == ArrayKind::Attention {
                let values = Values::from_ne_bytes(row.dtype, &bytes).into_owned();
                if values.len() == row.shape.len() {
                    let measured = with_values!(&values, values => measurer.measure(values));
                    measures = Some((values, measured));
                }
                continue;
            }
            let measured = measures.as_ref().and_then(|(_, measures)| kind.measured(measures));
            if measured.is_some_and(|expected| *bytemuck::cast_slice::<f32, u8>(expected) != bytes) {
                checked.faults.push(fault(
                    row,
                    Some(row.step),
                    path,
                    "it is not the mean of the values of `attention`",
                ));
            }
        }
        let Some((values, measures)) = measures else { return (checked, Vec::new()) };
        self.compare(row, &values, &mut checked);
        let heads =
            measures.maps.iter().map(|map| HeadRow::new(row.step, row.shape, &row.numbers, row.grid, map)).collect();
        (checked, heads)
    }

    /// Compares a step's values with its files, bit for bit.
    fn compare(&self, row: &StepRow, values: &Values<'_>, checked: &mut Checked) {
        let Some(series) = self.against else { return };
        let files = series.and_then(|series| Some((series, series.steps.iter().find(|files| files.step == row.step)?)));
        let Some((series, files)) = files else {
            checked.not_in_dump += 1;
            return;
        };
        let (batch, array) = self.recipe.map_or((None, None), |recipe| (recipe.batch, recipe.array.clone()));
        let mut reader = StepReader::new(ReadOptions { batch, array, max_step_bytes: u64::MAX });
        let source = files.parts.first().map(|part| part.path.display().to_string()).unwrap_or_default();
        let in_dump = |error: String| Fault { in_dump: true, ..fault(row, Some(row.step), &source, error) };
        let step = match reader.read(files, &series.split) {
            Ok(step) => step,
            Err(error) => return checked.faults.push(in_dump(error.problem.to_string())),
        };
        checked.compared += 1;
        let (array, rounding) = match self.recipe {
            Some(recipe) => {
                let grid = source_grid(recipe, step.array.shape.spatial, files);
                transform(step.array, recipe, grid)
            }
            None => (step.array, None),
        };
        let differs = |i: &usize| array.values.get(*i).to_bits() != values.get(*i).to_bits();
        if array.shape != row.shape || array.values.dtype() != values.dtype() {
            let error =
                format!("it is {} {}, the store holds {} {}", array.values.dtype(), array.shape, row.dtype, row.shape);
            checked.faults.push(in_dump(error));
        } else if array.values.bytes() != values.bytes() {
            let differing = (0..values.len()).filter(differs).count();
            checked
                .faults
                .push(in_dump(format!("{differing} of {} values differ from those of the store", values.len())));
        } else if rounding != row.rounding && step.content_hash == row.content_hash {
            let path = self.snapshot.store().steps_file(&row.video_id);
            checked.faults.push(fault(row, Some(row.step), &path, "its rounding error is not that of its values"));
        } else {
            checked.faults.extend(self.changed_metadata(row, files).map(in_dump));
        }
    }

    /// Which keys of a step's metadata are not what they were, apart from those that describe the file.
    fn changed_metadata(&self, row: &StepRow, files: &StepFiles) -> Option<String> {
        let (metadata, _) = read_step_metadata(&files.parts.first()?.metadata).ok()?;
        let mut stored = row.to_metadata();
        if let Some(patch) = self.patches.and_then(|patches| patches.get(&row.step)) {
            patch.apply(&mut stored);
        }
        let patch = MetadataPatch::between(&stored, &metadata.raw, &ARRAY_KEYS);
        let keys: Vec<&String> = patch.set.keys().chain(&patch.unset).collect();
        (!keys.is_empty()).then(|| format!("its values are those of the store, its metadata has other {keys:?}"))
    }

    /// The `heads` rows against the statistics of the values.
    fn check_heads(&self, first: &StepRow, found: Option<&RecordBatch>, measured: &[HeadRow]) -> Option<Fault> {
        let path = self.snapshot.store().heads_file(&first.video_id);
        let expected = match heads_batch(&first.video_id, &first.token, measured) {
            Ok(batch) => batch,
            Err(error) => return Some(fault(first, None, &path, error)),
        };
        let Some(found) = found else {
            return Some(fault(first, None, &path, "it has no rows of this word"));
        };
        let found = match self.chosen_heads(found, measured) {
            Ok(found) => found,
            Err(error) => return Some(fault(first, None, &path, error)),
        };
        if found.num_rows() != expected.num_rows() {
            let error = format!("it has {} rows of this word; its maps are {}", found.num_rows(), expected.num_rows());
            return Some(fault(first, None, &path, error));
        }
        let differs = |row: &usize| found.slice(*row, 1) != expected.slice(*row, 1);
        if found == expected {
            return None;
        }
        let row = (0..found.num_rows()).find(differs)?;
        let step = measured.get(row).map(|row| row.step);
        Some(fault(first, step, &path, "a statistic is not that of the map"))
    }

    /// The `heads` rows of the steps that were looked at.
    fn chosen_heads(&self, heads: &RecordBatch, measured: &[HeadRow]) -> Result<RecordBatch, arrow::error::ArrowError> {
        if self.chosen.is_none() {
            return Ok(heads.clone());
        }
        let steps: HashSet<i32> = measured.iter().map(|row| row.step).collect();
        let column = heads.column_by_name("step").map(AsArray::as_primitive::<Int32Type>);
        let keep: BooleanArray =
            column.into_iter().flatten().map(|step| Some(step.is_some_and(|step| steps.contains(&step)))).collect();
        filter_record_batch(heads, &keep)
    }
}

/// A fault of a word, or of one of its steps.
fn fault(row: &StepRow, step: Option<i32>, path: &str, error: impl ToString) -> Fault {
    Fault {
        video_id: Some(row.video_id.clone()),
        token: Some(row.token.clone()),
        step,
        path: path.to_owned(),
        error: error.to_string(),
        in_dump: false,
    }
}

/// The grid that pooling was done on: as when the step was ingested.
fn source_grid(recipe: &Recipe, spatial: usize, files: &StepFiles) -> Option<Grid> {
    let named = recipe.grid.filter(|grid| grid.spatial() == spatial);
    named.or_else(|| {
        let (metadata, _) = read_step_metadata(&files.parts.first()?.metadata).ok()?;
        metadata.grid(spatial).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{self, IngestOptions};
    use crate::progress::Silent;

    #[test]
    fn rows_that_are_doubled_or_gone_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/variants/gzip");
        ingest::run(&[dump], dir.path().join("store"), &IngestOptions::default(), &Silent).unwrap();
        let video = Store::open(dir.path().join("store")).unwrap().snapshot().read_index().unwrap().remove(0);
        let said = |rows: Vec<StepRow>| contradictions(&VideoIndex { rows, ..video.clone() }).collect::<Vec<_>>();
        assert_eq!(said(video.rows.clone()), [""; 0]);
        assert_eq!(said([&video.rows[..], &video.rows].concat()).len(), 1);
        assert_eq!(said([&video.rows[..1], &video.rows].concat()).len(), 1);
        let words = video.record.recipe.len();
        assert_eq!(said(Vec::new()).len(), 1, "of {words} words, the first is named");
        assert_eq!(said(video.rows[..3].to_vec()).len(), 1);
    }
}
