//! A store: what is in it, its arrays, and what keeps it in order.

use std::path::{Path, PathBuf};

use attnkit::contents::Contents;
use attnkit::export::{self, ExportOptions};
use attnkit::ingest::{self, IngestOptions};
use attnkit::query::{self, Filter};
use attnkit::store::{self, ArrayKind, Garbage};
use attnkit::verify::{self, VerifyOptions};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use serde_json::json;

use crate::answer::Answer;
use crate::array::bytes_to_numpy;
use crate::error::{OrRaise, choice, parsed, warn_of_damage};
use crate::ingest::translate;
use crate::work::{self, Watch};

/// A store, opened for reading.
#[pyclass(frozen, module = "attnkit._native")]
pub struct Store {
    store: store::Store,
}

impl Store {
    /// The library's.
    pub const fn inner(&self) -> &store::Store {
        &self.store
    }

    /// Warns of what is left out because it is damaged.
    ///
    /// # Errors
    /// If warnings are errors.
    pub fn warn_of_damage(&self, py: Python<'_>) -> PyResult<()> {
        for (_, error) in self.store.left_out() {
            warn_of_damage(py, &error)?;
        }
        Ok(())
    }
}

#[pymethods]
impl Store {
    #[new]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        Ok(Self { store: work::detached(py, || store::Store::open(path))?.or_raise()? })
    }

    /// Whether there is a store at a path.
    #[staticmethod]
    fn is_at(path: PathBuf) -> bool {
        store::Store::is_at(&path)
    }

    #[getter]
    fn path(&self) -> PathBuf {
        self.store.place()
    }

    /// What is in it, as JSON.
    fn contents(&self, py: Python<'_>) -> PyResult<String> {
        let contents = work::run(py, None, |watch| Contents::of_store(&self.store, watch))?.or_raise()?;
        self.warn_of_damage(py)?;
        Ok(serde_json::to_string(&contents).unwrap_or_default())
    }

    /// Names of the arrays that a word has.
    fn kinds(&self, py: Python<'_>, video: &str, token: &str) -> PyResult<Vec<&'static str>> {
        let kinds = work::detached(py, || self.store.snapshot().kinds_of(video, token))?.or_raise()?;
        Ok(kinds.into_iter().map(ArrayKind::name).collect())
    }

    /// Elements `start..stop` of some steps of an array of a word, `[step, element]`.
    fn read<'py>(
        &self,
        py: Python<'py>,
        video: &str,
        token: &str,
        kind: &str,
        steps: Vec<i32>,
        start: usize,
        stop: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let kind: ArrayKind = parsed("kind", kind)?;
        let read = |_: &Watch| self.store.snapshot().read_elements(video, token, kind, &steps, start..stop);
        match work::run(py, None, read)?.or_raise()? {
            Some(found) => bytes_to_numpy(py, found.dtype, &found.bytes, &[steps.len(), stop.saturating_sub(start)]),
            None => Err(PyIndexError::new_err(format!("`{token}` in video {video} has no longer all of these steps"))),
        }
    }

    /// Checks it, and compares it with dumps. Returns the report as JSON.
    fn verify(
        &self,
        py: Python<'_>,
        filter: &str,
        against: Vec<PathBuf>,
        prefix: Option<String>,
        progress: Option<Bound<'_, PyAny>>,
    ) -> PyResult<String> {
        let filter = filter_of(filter)?;
        let options = VerifyOptions { against, prefix, filter, videos: None };
        let verify = |watch: &Watch| {
            let report = verify::run(&self.store, &options, watch)?;
            report.with_something_compared(&options)
        };
        let report = work::run(py, progress.as_ref(), verify)?;
        Ok(serde_json::to_string(&report.or_raise()?).unwrap_or_default())
    }

    /// Writes it back as a dump. Returns the report as JSON.
    fn export(
        &self,
        py: Python<'_>,
        filter: &str,
        to: PathBuf,
        layout: &str,
        format: &str,
        progress: Option<Bound<'_, PyAny>>,
    ) -> PyResult<String> {
        let filter = filter_of(filter)?;
        let options = ExportOptions { layout: choice("layout", layout)?, format: choice("format", format)?, filter };
        let export = |watch: &Watch| export::run(&self.store, &to, &options, watch);
        let report = work::run(py, progress.as_ref(), export)?;
        self.warn_of_damage(py)?;
        Ok(serde_json::to_string(&report.or_raise()?).unwrap_or_default())
    }

    /// Removes what no commit names, or says what that is: `path` and `bytes` of each, as JSON.
    fn gc(
        &self,
        py: Python<'_>,
        dry_run: bool,
        single_writer: bool,
        progress: Option<Bound<'_, PyAny>>,
    ) -> PyResult<String> {
        let store = self.store.clone().as_single_writer(single_writer);
        let gc = |watch: &Watch| if dry_run { store.garbage() } else { store.gc(watch) };
        let garbage = work::run(py, progress.as_ref(), gc)?;
        self.warn_of_damage(py)?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let of = |Garbage { path, bytes }: &Garbage| json!({"path": text(path), "bytes": bytes});
        let removed: serde_json::Value = garbage.or_raise()?.iter().map(of).collect();
        Ok(removed.to_string())
    }

    /// Gives words other rollups. Returns the report as JSON.
    #[allow(clippy::too_many_arguments)]
    fn rollup(
        &self,
        py: Python<'_>,
        rollups: &str,
        videos: Vec<String>,
        tokens: Vec<String>,
        single_writer: bool,
        threads: usize,
        progress: Option<Bound<'_, PyAny>>,
    ) -> PyResult<String> {
        let rollups = parsed("rollups", rollups)?;
        let options = IngestOptions { rollups, videos, tokens, single_writer, threads, ..IngestOptions::default() };
        let done =
            work::run(py, progress.as_ref(), |watch: &Watch| ingest::rollup(self.store.place(), &options, watch))?;
        let mut report = done.or_raise()?;
        translate(&mut report.quarantined, &mut []);
        Ok(serde_json::to_string(&report).unwrap_or_default())
    }

    /// Packs the tables. Returns the report as JSON.
    fn compact(&self, py: Python<'_>, single_writer: bool, progress: Option<Bound<'_, PyAny>>) -> PyResult<String> {
        let store = self.store.clone().as_single_writer(single_writer);
        let done = work::run(py, progress.as_ref(), |watch: &Watch| store.compact(watch))?;
        self.warn_of_damage(py)?;
        Ok(serde_json::to_string(&done.or_raise()?).unwrap_or_default())
    }
}

/// A filter of JSON; `None` if it leaves nothing out.
fn filter_of(json: &str) -> PyResult<Option<Filter>> {
    let filter: Filter = serde_json::from_str(json).map_err(|error| PyValueError::new_err(error.to_string()))?;
    filter.check().or_raise()?;
    Ok(Some(filter).filter(|filter| !filter.is_all()))
}

/// The columns of both tables.
///
/// # Errors
/// Never, in practice.
#[pyfunction]
pub fn columns(py: Python<'_>) -> PyResult<Answer> {
    Ok(Answer::new(py, query::columns().or_raise()?))
}
