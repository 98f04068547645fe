//! Prompts: templates and their variations, and where words are among pieces.

use std::ops::Range;
use std::path::PathBuf;

use attnkit::prompt;
use pyo3::exceptions::PyValueError;
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

/// Positions of a word's pieces, of each place where it is a word of its own. `pieces` says which characters of the
/// text each is for.
#[pyfunction]
pub fn occurrences(word: &str, text: &str, pieces: Vec<(usize, usize)>) -> PyResult<Vec<Vec<usize>>> {
    let bytes: Vec<usize> = text.char_indices().map(|(byte, _)| byte).chain([text.len()]).collect();
    let of_piece = |(start, end): (usize, usize)| Some(*bytes.get(start)?..*bytes.get(end)?);
    let pieces: Option<Vec<Range<usize>>> = pieces.into_iter().map(of_piece).collect();
    let pieces =
        pieces.ok_or_else(|| PyValueError::new_err("a piece is for characters that the text does not have"))?;
    Ok(prompt::occurrences(word, text, &pieces))
}

/// Id and name of a piece, and the characters that it is for.
type Cut = (u32, String, (usize, usize));

/// A tokenizer of a file.
#[pyclass(frozen, module = "attnkit._native")]
pub struct Tokenizer(prompt::Tokenizer);

#[pymethods]
impl Tokenizer {
    #[new]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        Ok(Self(work::detached(py, || prompt::Tokenizer::open(&path))?.or_raise()?))
    }

    /// Ids and pieces of a text, and the characters that each is for.
    fn cut(&self, text: &str) -> PyResult<Vec<Cut>> {
        let characters = |bytes: usize| text.get(..bytes).map_or(0, |before| before.chars().count());
        let cut = self.0.cut(text).or_raise()?;
        let of_piece = |(id, piece, bytes): (u32, String, Range<usize>)| -> Cut {
            (id, piece, (characters(bytes.start), characters(bytes.end)))
        };
        Ok(cut.into_iter().map(of_piece).collect())
    }
}
