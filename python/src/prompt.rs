//! Prompt templates and their variations.

use std::path::PathBuf;

use attnkit::prompt;
use pyo3::prelude::*;

use crate::error::OrRaise;
use crate::work;

/// Templates, parsed.
#[pyclass(frozen, module = "attnkit._native")]
pub struct Templates(prompt::Templates);

#[pymethods]
impl Templates {
    #[new]
    fn parse(py: Python<'_>, texts: Vec<String>, max_depth: usize) -> PyResult<Self> {
        let parse = || prompt::Templates::parse(texts.iter().map(String::as_str), max_depth);
        Ok(Self(work::detached(py, parse)?.or_raise()?))
    }

    /// Those of a file, one a line.
    #[staticmethod]
    fn read(py: Python<'_>, path: PathBuf, max_depth: usize) -> PyResult<Self> {
        Ok(Self(work::detached(py, || prompt::Templates::read(&path, max_depth))?.or_raise()?))
    }

    #[getter]
    fn texts(&self) -> Vec<&str> {
        self.0.texts().collect()
    }

    /// How many variations there are; 2^64 - 1 stands for that many and more.
    #[getter]
    fn count(&self) -> u64 {
        self.0.count()
    }

    /// What is probably not what the author meant, at most `most` of each template.
    fn warnings(&self, most: usize) -> Vec<String> {
        self.0.warnings(most).collect()
    }

    /// A variation by its number, as JSON; `None` if there are not so many.
    fn get(&self, number: u64) -> Option<String> {
        self.0.get(number).map(|variation| serde_json::to_string(&variation).unwrap_or_default())
    }
}
