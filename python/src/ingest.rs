//! Writing stores: from dumps, and step by step.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use attnkit::dtype::Dtype;
use attnkit::dump::{StepArray, StepMetadata};
use attnkit::grid::Grid;
use attnkit::ingest::{
    self, IngestError, IngestOptions, OnError, Quarantined, Remark, WatchOptions, WordStep, WriterOptions,
    read_settings,
};
use attnkit::json::{Json, Parsed};
use attnkit::provenance::Call;
use attnkit::store::{ChosenCodec, TextRow};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::array::Floats;
use crate::error::{OrRaise, choice, parsed};
use crate::spelling::Arguments;
use crate::work::{self, Watch};

/// What can be chosen of an ingest: a mapping with every key.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Options {
    codec: String,
    rollups: String,
    videos: Vec<String>,
    tokens: Vec<String>,
    every: Option<u32>,
    downsample: Option<usize>,
    dtype: Option<String>,
    batch: Option<String>,
    array: Option<String>,
    average: Vec<String>,
    grid: Option<(usize, usize, usize)>,
    settings: Option<PathBuf>,
    prompts: Option<PathBuf>,
    tokenizer: Option<PathBuf>,
    prefix: Option<String>,
    replace: bool,
    pack: bool,
    single_writer: bool,
    threads: usize,
    on_error: String,
    max_step_bytes: Option<u64>,
}

impl Options {
    fn options(&self) -> PyResult<IngestOptions> {
        let compression: ChosenCodec = parsed("codec", &self.codec)?;
        let mut options = IngestOptions {
            codec: compression.codec,
            bits: compression.bits,
            rollups: parsed("rollups", &self.rollups)?,
            videos: self.videos.clone(),
            tokens: self.tokens.clone(),
            batch: self.batch.as_deref().map(|batch| parsed("batch", batch)).transpose()?,
            array: self.array.clone(),
            grid: self.grid.map(grid),
            prompts: self.prompts.clone(),
            tokenizer: self.tokenizer.clone(),
            prefix: self.prefix.clone(),
            replace: self.replace,
            pack: self.pack,
            single_writer: self.single_writer,
            threads: self.threads,
            on_error: match self.on_error.as_str() {
                "quarantine" => OnError::Quarantine,
                "raise" => OnError::Fail,
                other => {
                    return Err(PyValueError::new_err(format!("on_error: `{other}` is neither quarantine nor raise")));
                }
            },
            ..IngestOptions::default()
        };
        if let Some(path) = &self.settings {
            read_settings(path).or_raise()?.apply(&mut options);
        }
        options.every = self.every.unwrap_or(options.every);
        options.downsample = self.downsample.unwrap_or(options.downsample);
        options.max_step_bytes = self.max_step_bytes.unwrap_or(options.max_step_bytes);
        if let Some(dtype) = &self.dtype {
            options.dtype = Some(parsed::<Dtype>("dtype", dtype)?);
        }
        for axis in &self.average {
            match axis.as_str() {
                "blocks" => options.average_blocks = true,
                "heads" => options.average_heads = true,
                other => return Err(PyValueError::new_err(format!("average: `{other}` is neither blocks nor heads"))),
            }
        }
        Ok(options)
    }
}

fn grid((frames, height, width): (usize, usize, usize)) -> Grid {
    Grid { frames, height, width }
}

/// Ingests dumps into a store. Returns the report as JSON.
///
/// # Errors
/// As the library, and `ValueError` for options that are none.
#[pyfunction(name = "ingest")]
pub fn ingest_dumps(
    py: Python<'_>,
    dumps: Vec<PathBuf>,
    store: PathBuf,
    options: Options,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let options = options.options()?;
    let report = work::run(py, progress.as_ref(), |watch| {
        let report = ingest::run(&dumps, &store, &options, watch)?;
        watch.finish_all();
        Ok::<_, IngestError>(report)
    })?;
    let mut report = report.or_raise()?;
    translate(&mut report.quarantined, &mut report.warnings);
    Ok(serde_json::to_string(&report).unwrap_or_default())
}

/// Says what an ingest would do, as JSON.
///
/// # Errors
/// As [`ingest_dumps`].
#[pyfunction]
pub fn dry_run(
    py: Python<'_>,
    dumps: Vec<PathBuf>,
    store: PathBuf,
    options: Options,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let options = options.options()?;
    let look = |watch: &Watch| ingest::dry_run(&dumps, &store, &options, watch);
    let mut outcome = work::run(py, progress.as_ref(), look)?.or_raise()?;
    translate(&mut outcome.quarantined, &mut outcome.warnings);
    Ok(serde_json::to_string(&outcome).unwrap_or_default())
}

/// Ingests dumps that are still being written, until nothing has changed for `until_idle` seconds or Ctrl-C is pressed.
/// Returns the report as JSON.
///
/// # Errors
/// As [`ingest_dumps`], and `ValueError` for times that are none.
#[pyfunction]
pub fn watch(
    py: Python<'_>,
    dumps: Vec<PathBuf>,
    store: PathBuf,
    options: Options,
    poll: f64,
    until_idle: Option<f64>,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let options = options.options()?;
    let time = |name: &str, seconds: f64| {
        Duration::try_from_secs_f64(seconds).map_err(|error| PyValueError::new_err(format!("{name}: {error}")))
    };
    let until_idle = until_idle.map(|seconds| time("until_idle", seconds)).transpose()?;
    let times = WatchOptions { poll: time("poll", poll)?, until_idle };
    let follow = |watch: &Watch| ingest::watch(&dumps, &store, &options, times, watch);
    let mut report = work::run_until_interrupted(py, progress.as_ref(), follow)?.or_raise()?;
    translate(&mut report.quarantined, &mut report.warnings);
    Ok(serde_json::to_string(&report).unwrap_or_default())
}

/// Says of what is left out and odd what arguments Python has for it.
pub fn translate(quarantined: &mut [Quarantined], warnings: &mut [Remark]) {
    for left in quarantined {
        left.spell(&Arguments);
    }
    for warning in warnings {
        warning.spell(&Arguments);
    }
}

/// Writes one video into a store, step by step.
#[pyclass(frozen, module = "attnkit._native")]
pub struct StoreWriter {
    writer: Mutex<Option<ingest::StoreWriter>>,
}

#[pymethods]
impl StoreWriter {
    #[new]
    fn open(
        py: Python<'_>,
        store: PathBuf,
        video_id: String,
        codec: &str,
        rollups: &str,
        grid_of_maps: Option<(usize, usize, usize)>,
        prompt_id: Option<String>,
        template: Option<String>,
        variation: Option<i32>,
        single_writer: bool,
    ) -> PyResult<Self> {
        let compression: ChosenCodec = parsed("codec", codec)?;
        let options = WriterOptions {
            codec: compression.codec,
            bits: compression.bits,
            rollups: parsed("rollups", rollups)?,
            grid: grid_of_maps.map(grid),
            prompt_id,
            template,
            variation,
            single_writer,
        };
        let writer = work::detached(py, || ingest::StoreWriter::open(store, video_id, options))?.or_raise()?;
        Ok(Self { writer: Mutex::new(Some(writer)) })
    }

    /// Commits a step of words: of each its name, weight, array and metadata, which is a JSON object; and rows of the
    /// text axis. Returns which words were new.
    fn append(
        &self,
        py: Python<'_>,
        step: i32,
        words: Vec<(String, Option<f64>, Floats<'_>, String)>,
        text: Vec<RowOfText>,
    ) -> PyResult<Vec<bool>> {
        let text_row = |(call, block, head, text_entropy, sink_key, sink_mass, sum_error): RowOfText| {
            let call = call.map(|call| choice::<Call>("call", &call)).transpose()?;
            Ok(TextRow { call, step, block, head, text_entropy, sink_key, sink_mass, sum_error })
        };
        let text = text.into_iter().map(text_row).collect::<PyResult<Vec<_>>>()?;
        let mut read = Vec::with_capacity(words.len());
        for (token, weight, array, metadata) in &words {
            let (shape, values) = (array.shape().to_vec(), array.to_values());
            read.push((token, *weight, shape, values, step_metadata(metadata)?));
        }
        work::detached(py, || {
            let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let writer = writer.as_mut().ok_or_else(|| PyValueError::new_err("the writer is closed"))?;
            let mut steps = Vec::with_capacity(read.len());
            for (token, weight, shape, values, metadata) in read {
                let array = StepArray::new(&shape, values, None).map_err(ingest::WriteError::from).or_raise()?;
                steps.push((token, weight, array, metadata));
            }
            let words: Vec<WordStep<'_>> = steps
                .iter()
                .map(|(token, weight, array, metadata)| WordStep { token, weight: *weight, array, metadata })
                .collect();
            writer.append_words(step, &words, &text).or_raise()
        })?
    }

    /// Ends the writing. Everything is in the store already.
    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(self.writer.lock().unwrap_or_else(PoisonError::into_inner).take()));
    }
}

/// The columns of `text` behind the video's, but for the step: call, block, head, entropy, sink key, sink mass, error
/// of the sum.
type RowOfText = (Option<String>, i32, i32, f64, i32, f64, Option<f64>);

/// The metadata of a step, all of which is to be understood.
fn step_metadata(text: &str) -> PyResult<StepMetadata> {
    let Ok(Parsed { value: Json::Object(metadata), .. }) = Json::parse(text.as_bytes()) else {
        return Err(PyValueError::new_err("the metadata is not a JSON object"));
    };
    match StepMetadata::from_object(metadata) {
        (metadata, odd) if odd.is_empty() => Ok(metadata),
        (_, odd) => Err(PyValueError::new_err(odd.join("; "))),
    }
}
