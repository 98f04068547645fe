//! Step arrays of a store or a dump.

use std::path::PathBuf;

use attnkit::dump::{Batch, ReadOptions};
use attnkit::grid::{self, VideoSize};
use attnkit::source::{self, Over, Stack, ValuesMut};
use pyo3::prelude::*;

use crate::array::{filled, values_to_numpy};
use crate::error::{OrRaise, parsed};
use crate::work::{self, Watch};

/// A store or a dump, opened for reading.
#[pyclass(frozen, module = "attnkit._native")]
pub struct Source {
    source: source::Source,
}

#[pymethods]
impl Source {
    #[new]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        batch: Option<&str>,
        array: Option<String>,
        max_step_bytes: Option<u64>,
    ) -> PyResult<Self> {
        let batch: Option<Batch> = batch.map(|batch| parsed("batch", batch)).transpose()?;
        let default = ReadOptions::default();
        let options = ReadOptions { batch, array, max_step_bytes: max_step_bytes.unwrap_or(default.max_step_bytes) };
        let open = |watch: &Watch| source::Source::open_unless_cancelled(path, options, watch);
        Ok(Self { source: work::run(py, None, open)?.or_raise()? })
    }

    #[getter]
    fn path(&self) -> PathBuf {
        self.source.path().to_owned()
    }

    fn videos(&self) -> PyResult<Vec<String>> {
        self.source.videos().or_raise()
    }

    fn tokens(&self, video: &str) -> PyResult<Vec<String>> {
        self.source.tokens(video).or_raise()
    }

    fn steps(&self, video: &str, token: &str) -> PyResult<Vec<i32>> {
        self.source.steps(video, token).or_raise()
    }

    /// As JSON.
    fn metadata(&self, video: &str, token: &str, step: i32) -> PyResult<String> {
        let metadata = self.source.metadata(video, token, step).or_raise()?;
        Ok(serde_json::to_string(&metadata).unwrap_or_default())
    }

    /// As JSON.
    fn summary(&self, video: &str) -> PyResult<Option<String>> {
        let summary = self.source.summary(video).or_raise()?;
        Ok(summary.map(|summary| serde_json::to_string(&summary).unwrap_or_default()))
    }

    /// Of a step array, if any can be read.
    fn shape(&self, py: Python<'_>, video: &str, token: &str) -> PyResult<Option<(usize, usize, usize, usize)>> {
        let shape = work::detached(py, || self.source.shape(video, token))?.or_raise()?;
        Ok(shape.map(|shape| shape.axes().into()))
    }

    /// (frames, height, width)
    fn grid(&self, py: Python<'_>, video: &str, token: &str) -> PyResult<Option<(usize, usize, usize)>> {
        let grid = work::detached(py, || self.source.grid(video, token))?.or_raise()?;
        Ok(grid.map(|grid| (grid.frames, grid.height, grid.width)))
    }

    fn load<'py>(
        &self,
        py: Python<'py>,
        video: &str,
        token: &str,
        steps: Option<Vec<i32>>,
        progress: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let steps = steps.as_deref();
        let outline = work::detached(py, || self.source.outline(video, token, steps))?.or_raise()?;
        if let Some((shape, dtype)) = outline {
            let load = |target: ValuesMut<'_>| {
                let load = |watch: &work::Watch| self.source.load_into(video, token, steps, target, watch);
                work::run(py, progress.as_ref(), load)?.or_raise()
            };
            return filled(py, dtype, &shape, load);
        }
        let load = |watch: &work::Watch| self.source.load(video, token, steps, watch);
        let Stack { shape, values } = work::run(py, progress.as_ref(), load)?.or_raise()?;
        values_to_numpy(py, values, &shape)
    }

    fn mean<'py>(
        &self,
        py: Python<'py>,
        video: &str,
        token: &str,
        steps: Option<Vec<i32>>,
        over: (bool, bool, bool),
        progress: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let over = Over { steps: over.0, blocks: over.1, heads: over.2 };
        let mean = |watch: &work::Watch| self.source.mean(video, token, steps.as_deref(), over, watch);
        let Stack { shape, values } = work::run(py, progress.as_ref(), mean)?.or_raise()?;
        values_to_numpy(py, values, &shape)
    }
}

/// The grid (frames, height, width) of a flat map, from the size of the video by the known conventions.
///
/// # Errors
/// `ValueError` if none or several fit.
#[pyfunction]
pub fn infer_grid(spatial: usize, frames: i64, height: i64, width: i64) -> PyResult<(usize, usize, usize)> {
    let video = VideoSize { frames: Some(frames), height: Some(height), width: Some(width) };
    let grid = grid::infer_grid(spatial, video).or_raise()?;
    Ok((grid.frames, grid.height, grid.width))
}
