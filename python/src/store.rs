//! A store and its questions.

use std::collections::HashMap;
use std::path::PathBuf;

use attnkit::contents::Contents;
use attnkit::dtype::Dtype;
use attnkit::query::{
    self, Arrange, Average, By, Compare, Dimension, Evolution, Filter, List, OnBytes, QueryError, Reduction,
    SpatialMap, Sql,
};
use attnkit::store::{self, StepRow, StoreError, StoredArray};
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use rayon::prelude::*;

use crate::answer::Answer;
use crate::array::bytes_to_numpy;
use crate::error::{OrRaise, choice, parsed, warn_of_damage};
use crate::work;

/// A store, opened for reading.
#[pyclass(frozen, module = "attnkit._native")]
pub struct Store {
    store: store::Store,
}

/// Which maps, and how they become one: what all questions take.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Asked {
    r#where: Option<String>,
    video: Option<String>,
    token: Option<String>,
    step: Option<i64>,
    block: Option<i64>,
    head: Option<i64>,
    reducer: String,
    skipna: bool,
    rollups: bool,
}

impl Asked {
    fn filter(&self) -> PyResult<Filter> {
        let mut filter = self.r#where.as_deref().map_or_else(|| Ok(Filter::all()), Filter::parse).or_raise()?;
        for (column, value) in [("video_id", &self.video), ("token", &self.token)] {
            filter = value.iter().fold(filter, |filter, value| filter.and_text(column, value));
        }
        for (column, value) in [("step", self.step), ("block", self.block), ("head", self.head)] {
            filter = value.into_iter().fold(filter, |filter, value| filter.and_int(column, value));
        }
        Ok(filter)
    }

    fn reduction(&self) -> PyResult<Reduction> {
        Ok(Reduction { reducer: choice("reducer", &self.reducer)?, skipna: self.skipna, rollups: self.rollups })
    }
}

/// Order and number of an answer's rows.
fn arranged(sort: Vec<(String, bool)>, limit: Option<usize>) -> Arrange {
    Arrange { sort, limit }
}

impl Store {
    /// Runs a question.
    fn answer(
        &self,
        py: Python<'_>,
        progress: Option<&Bound<'_, PyAny>>,
        ask: impl FnOnce(OnBytes<'_>) -> Result<query::Answer, QueryError> + Send,
    ) -> PyResult<Answer> {
        let found = work::run(py, progress, |watch| ask(&|done, all| watch.set(done, all)))?;
        self.warn_of_damage(py)?;
        Ok(Answer::new(py, found.or_raise()?))
    }

    /// Warns of what is left out because it is damaged.
    fn warn_of_damage(&self, py: Python<'_>) -> PyResult<()> {
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

    #[getter]
    fn path(&self) -> PathBuf {
        self.store.root().to_owned()
    }

    /// What is in it, as JSON.
    fn contents(&self, py: Python<'_>) -> PyResult<String> {
        let contents = work::detached(py, || Contents::of_store(&self.store))?.or_raise()?;
        self.warn_of_damage(py)?;
        Ok(serde_json::to_string(&contents).unwrap_or_default())
    }

    fn list(
        &self,
        py: Python<'_>,
        asked: Asked,
        table: &str,
        columns: Option<Vec<String>>,
        sort: Vec<(String, bool)>,
        limit: Option<usize>,
    ) -> PyResult<Answer> {
        let list =
            List { table: choice("table", table)?, filter: asked.filter()?, columns, arrange: arranged(sort, limit) };
        self.answer(py, None, |_| list.run(&self.store))
    }

    fn sql(&self, py: Python<'_>, statement: String) -> PyResult<Answer> {
        self.answer(py, None, |_| Sql { statement }.run(&self.store))
    }

    fn average(
        &self,
        py: Python<'_>,
        asked: Asked,
        over: Vec<String>,
        values: bool,
        sort: Vec<(String, bool)>,
        limit: Option<usize>,
        progress: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Answer> {
        let over: Vec<Dimension> = over.iter().map(|over| parsed("over", over)).collect::<PyResult<_>>()?;
        let average = Average { filter: asked.filter()?, over, reduction: asked.reduction()?, values };
        let arrange = arranged(sort, limit);
        self.answer(py, progress.as_ref(), |on_bytes| average.run(&self.store, on_bytes)?.arrange(&arrange))
    }

    fn evolution(
        &self,
        py: Python<'_>,
        asked: Asked,
        by: Option<&str>,
        progress: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Answer> {
        let by: Option<By> = by.map(|by| choice("by", by)).transpose()?;
        let evolution = Evolution { filter: asked.filter()?, by, reduction: asked.reduction()? };
        self.answer(py, progress.as_ref(), |on_bytes| evolution.run(&self.store, on_bytes))
    }

    fn map(
        &self,
        py: Python<'_>,
        asked: Asked,
        size: Option<(usize, usize)>,
        frames: Option<usize>,
        placement: &str,
        progress: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Answer> {
        let placement = choice("placement", placement)?;
        let map = SpatialMap { filter: asked.filter()?, reduction: asked.reduction()?, size, frames, placement };
        self.answer(py, progress.as_ref(), |on_bytes| map.run(&self.store, on_bytes))
    }

    fn compare(
        &self,
        py: Python<'_>,
        asked: Asked,
        across: &str,
        align: &str,
        metrics: Vec<String>,
        against: Option<String>,
        form: &str,
        progress: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Answer> {
        let compare = Compare {
            filter: asked.filter()?,
            across: choice("across", across)?,
            align: choice("align", align)?,
            metrics: metrics.iter().map(|metric| parsed("metric", metric)).collect::<PyResult<_>>()?,
            reduction: asked.reduction()?,
            against,
        };
        let form = choice("form", form)?;
        self.answer(py, progress.as_ref(), |on_bytes| compare.run(&self.store, form, on_bytes))
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
        let read = |_: &work::Watch| {
            let index = self.store.read_video(video)?;
            let rows = index.iter().flat_map(|index| &index.rows).filter(|row| row.token == token);
            let rows: HashMap<i32, &StepRow> = rows.map(|row| (row.step, row)).collect();
            let mut arrays: HashMap<&str, StoredArray> = HashMap::new();
            for row in rows.values() {
                if !arrays.contains_key(row.series_path()) {
                    let array = self.store.open_array(&format!("{}/{kind}", row.series_path()))?;
                    arrays.insert(row.series_path(), array);
                }
            }
            let part = |step: &i32| {
                let row = rows.get(step)?;
                let array = arrays.get(row.series_path())?;
                Some(array.read_range(u64::try_from(row.row).unwrap_or(u64::MAX), start..stop))
            };
            let parts: Option<Vec<Result<Vec<u8>, StoreError>>> = steps.par_iter().map(part).collect();
            let parts = parts.map(|parts| parts.into_iter().collect::<Result<Vec<_>, _>>()).transpose()?;
            let dtype = arrays.values().next().and_then(|array| array.dtype().parse::<Dtype>().ok());
            Ok::<_, StoreError>(parts.zip(dtype))
        };
        match work::run(py, None, read)?.or_raise()? {
            Some((parts, dtype)) => bytes_to_numpy(py, dtype, &parts.concat(), &[steps.len(), stop - start]),
            None => Err(PyIndexError::new_err(format!("`{token}` in video {video} has no longer all of these steps"))),
        }
    }

    /// Whether there is an array, as the rollups need not be there.
    fn has_array(&self, array: &str) -> bool {
        self.store.open_array(array).is_ok()
    }
}

/// The columns of both tables.
///
/// # Errors
/// Never, in practice.
#[pyfunction]
pub fn columns(py: Python<'_>) -> PyResult<Answer> {
    Ok(Answer::new(py, query::columns().or_raise()?))
}
