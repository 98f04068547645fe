//! Questions as values: what is asked, before a store is asked it.

use attnkit::progress::Progress;
use attnkit::query::{
    self, Arrange, Average, By, Compare, Dimension, Evolution, Filter, Form, List, QueryError, Reduction, SpatialMap,
    Sql,
};
use attnkit::store;
use pyo3::prelude::*;

use crate::answer::Answer;
use crate::error::{OrRaise, choice, parsed};
use crate::store::Store;
use crate::work;

/// A question.
#[pyclass(frozen, module = "attnkit._native")]
pub struct Question(Kind);

enum Kind {
    List(List),
    Sql(Sql),
    Average(Average, Arrange),
    Evolution(Evolution),
    Map(SpatialMap),
    Compare(Compare, Form),
}

/// Which maps, and how they become one: what all questions take.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Asked {
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
    /// Whether some maps are asked for rather than all.
    pub const fn is_asked(&self) -> bool {
        self.r#where.is_some()
            || self.video.is_some()
            || self.token.is_some()
            || self.step.is_some()
            || self.block.is_some()
            || self.head.is_some()
    }

    /// Which maps.
    ///
    /// # Errors
    /// If the condition cannot be used.
    pub fn filter(&self) -> PyResult<Filter> {
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

impl Kind {
    fn run(&self, store: &store::Store, progress: &dyn Progress) -> Result<query::Answer, QueryError> {
        match self {
            Self::List(list) => list.run(store),
            Self::Sql(sql) => sql.run(store),
            Self::Average(average, arrange) => average.run(store, progress)?.arrange(arrange),
            Self::Evolution(evolution) => evolution.run(store, progress),
            Self::Map(map) => map.run(store, progress),
            Self::Compare(compare, form) => compare.run(store, *form, progress),
        }
    }

    fn explain(&self, store: &store::Store) -> Result<String, QueryError> {
        match self {
            Self::List(list) => list.explain(store),
            Self::Sql(sql) => sql.explain(store),
            Self::Average(average, _) => Ok(average.explain(store)?.to_string()),
            Self::Evolution(evolution) => Ok(evolution.explain(store)?.to_string()),
            Self::Map(map) => Ok(map.explain(store)?.to_string()),
            Self::Compare(compare, form) => Ok(compare.explain(store, *form)?.to_string()),
        }
    }
}

#[pymethods]
impl Question {
    #[staticmethod]
    fn list(
        asked: Asked,
        table: &str,
        columns: Option<Vec<String>>,
        sort: Vec<(String, bool)>,
        limit: Option<usize>,
    ) -> PyResult<Self> {
        let (table, filter) = (choice("table", table)?, asked.filter()?);
        Ok(Self(Kind::List(List { table, filter, columns, arrange: Arrange { sort, limit } })))
    }

    #[staticmethod]
    fn sql(statement: String) -> Self {
        Self(Kind::Sql(Sql { statement }))
    }

    #[staticmethod]
    fn average(
        asked: Asked,
        over: Vec<String>,
        values: bool,
        sort: Vec<(String, bool)>,
        limit: Option<usize>,
    ) -> PyResult<Self> {
        let over: Vec<Dimension> = over.iter().map(|over| parsed("over", over)).collect::<PyResult<_>>()?;
        let average = Average { filter: asked.filter()?, over, reduction: asked.reduction()?, values };
        Ok(Self(Kind::Average(average, Arrange { sort, limit })))
    }

    #[staticmethod]
    fn evolution(asked: Asked, by: Option<&str>) -> PyResult<Self> {
        let by: Option<By> = by.map(|by| choice("by", by)).transpose()?;
        Ok(Self(Kind::Evolution(Evolution { filter: asked.filter()?, by, reduction: asked.reduction()? })))
    }

    #[staticmethod]
    fn map(asked: Asked, size: Option<(usize, usize)>, frames: Option<usize>, placement: &str) -> PyResult<Self> {
        let placement = choice("placement", placement)?;
        let (filter, reduction) = (asked.filter()?, asked.reduction()?);
        Ok(Self(Kind::Map(SpatialMap { filter, reduction, size, frames, placement })))
    }

    #[staticmethod]
    fn compare(
        asked: Asked,
        across: &str,
        align: &str,
        metrics: Vec<String>,
        against: Option<String>,
        form: &str,
    ) -> PyResult<Self> {
        let compare = Compare {
            filter: asked.filter()?,
            across: choice("across", across)?,
            align: choice("align", align)?,
            metrics: metrics.iter().map(|metric| parsed("metric", metric)).collect::<PyResult<_>>()?,
            reduction: asked.reduction()?,
            against,
        };
        Ok(Self(Kind::Compare(compare, choice("form", form)?)))
    }

    /// The answer of a store.
    fn ask(&self, py: Python<'_>, store: &Store, progress: Option<Bound<'_, PyAny>>) -> PyResult<Answer> {
        let run = |watch: &work::Watch| self.0.run(store.inner(), watch);
        let found = work::run(py, progress.as_ref(), run)?;
        store.warn_of_damage(py)?;
        Ok(Answer::new(py, found.or_raise()?))
    }

    /// What a store would do to answer it.
    fn explain(&self, py: Python<'_>, store: &Store) -> PyResult<String> {
        let plan = work::run(py, None, |_| self.0.explain(store.inner()))?;
        store.warn_of_damage(py)?;
        plan.or_raise()
    }
}

/// Refuses what cannot be asked.
///
/// # Errors
/// `QueryError` for a condition, `ValueError` for a reducer, saying why.
#[pyfunction]
pub fn check(asked: Asked) -> PyResult<()> {
    asked.filter()?;
    asked.reduction().map(drop)
}
