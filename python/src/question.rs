//! Questions as values: what is asked, before a store is asked it.

use attnkit::query::{self, Reduction};
use pyo3::prelude::*;

use crate::answer::Answer;
use crate::error::OrRaise;
use crate::store::Store;
use crate::work;

/// A question.
#[pyclass(frozen, module = "attnkit._native")]
pub struct Question(query::Question);

#[pymethods]
impl Question {
    /// Of JSON.
    #[new]
    fn of_json(json: &str) -> PyResult<Self> {
        Ok(Self(query::Question::from_json(json).or_raise()?))
    }

    /// Refuses a condition that cannot be used.
    fn check(&self) -> PyResult<()> {
        self.0.check().or_raise()
    }

    /// The answer of a store.
    fn ask(&self, py: Python<'_>, store: &Store, progress: Option<Bound<'_, PyAny>>) -> PyResult<Answer> {
        let found = work::run(py, progress.as_ref(), |watch| self.0.run(store.inner(), watch))?;
        store.warn_of_damage(py)?;
        Ok(Answer::new(py, found.or_raise()?))
    }

    /// What a store would do to answer it.
    fn explain(&self, py: Python<'_>, store: &Store) -> PyResult<String> {
        let plan = work::run(py, None, |_| self.0.explain(store.inner()))?;
        store.warn_of_damage(py)?;
        Ok(plan.or_raise()?.to_string())
    }
}

/// How maps become one where nothing else is said, as JSON.
#[pyfunction]
pub fn usual_reduction() -> String {
    serde_json::to_string(&Reduction::default()).unwrap_or_default()
}
