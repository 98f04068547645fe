//! Sizes of dumps and stores before they are there.

use std::path::{Path, PathBuf};

use attnkit::contents::Contents;
use attnkit::dtype::SourceDtype;
use attnkit::estimate::{Compression, Generation, Model, measure};
use attnkit::grid::Grid;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::{OrRaise, not_found, parsed};
use crate::work;

/// What is estimated: a mapping with every key.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Sizes {
    model: Option<String>,
    size: (usize, usize),
    frames: usize,
    blocks: usize,
    heads: usize,
    grid: (usize, usize, usize),
    steps: u32,
    tokens: u32,
    videos: u32,
}

impl Sizes {
    fn generation(&self, dtype: SourceDtype) -> PyResult<Generation> {
        let (frames, height, width) = self.grid;
        let mut shape = (self.blocks, self.heads, Grid { frames, height, width });
        if let Some(model) = &self.model {
            let model: Model = parsed("model", model)?;
            let (height, width) = self.size;
            let grid = model.grid(self.frames, height, width).ok_or_else(|| {
                let found = format!("videos of {} frames of {height} x {width} are too small for {model}", self.frames);
                PyValueError::new_err(format!("size: {found}"))
            })?;
            let (blocks, heads) = model.blocks_and_heads();
            shape = (blocks, heads, grid);
        }
        Generation::of_sizes(shape, dtype, self.steps, self.tokens, self.videos).ok_or_else(|| {
            PyValueError::new_err(
                "that is more values in a step than an array can have, or more than an exabyte in all",
            )
        })
    }
}

/// How large a dump and its store will be, as JSON: of what is in `dump`, or of `sizes`.
///
/// # Errors
/// As the library, and `ValueError` for sizes that cannot be.
#[pyfunction]
pub fn estimate(
    py: Python<'_>,
    dump: Option<PathBuf>,
    sizes: Sizes,
    dtype: Option<&str>,
    throughput: Option<f64>,
    rollups: &str,
) -> PyResult<String> {
    let dtype: Option<SourceDtype> = dtype.map(|dtype| parsed("dtype", dtype)).transpose()?;
    let (generation, compression) = match dump {
        Some(dump) => of_dump(py, &dump, dtype)?,
        None => (sizes.generation(dtype.unwrap_or(SourceDtype::Float16))?, None),
    };
    let mut compression = compression.unwrap_or_else(|| Compression::MEASURED.to_vec());
    if let Some(throughput) = throughput {
        for of_codec in &mut compression {
            of_codec.throughput = throughput;
        }
    }
    let estimate = generation.estimate(&compression, parsed("rollups", rollups)?);
    Ok(serde_json::to_string(&estimate).unwrap_or_default())
}

/// What is in a dump, and how well that compresses, as far as it can be told.
fn of_dump(
    py: Python<'_>,
    dump: &Path,
    dtype: Option<SourceDtype>,
) -> PyResult<(Generation, Option<Vec<Compression>>)> {
    let generation = Generation::of_dump(&work::run(py, None, |watch| Contents::of_dump(dump, watch))?.or_raise()?);
    if generation.words.is_empty() {
        let found = "no attention maps found whose shape can be told";
        return Err(not_found(&format!("{}: {found}", dump.display())));
    }
    let generation = match dtype {
        Some(dtype) => generation.with_dtype(dtype),
        None => generation,
    };
    Ok((generation, work::run(py, None, |watch| measure(dump, watch))?.or_raise()?))
}
