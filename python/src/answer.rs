//! Answers: their table as an Arrow stream, their maps as one numpy array.

use attnkit::draw::{Look, figure_of_values};
use attnkit::grid::Grid;
use attnkit::output::{self, Format, TableStyle};
use attnkit::query;
use attnkit::render::{Range, Style};
use numpy::{PyArray1, PyReadonlyArray1};
use polars::prelude::{Column, CompatLevel, DataFrame, DataType, PlSmallStr, Series};
use polars_arrow::array::{Array, StructArray};
use polars_arrow::datatypes::{ArrowDataType, Field};
use polars_arrow::ffi::export_iterator;
use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCapsule, PyType};

use crate::column;
use crate::error::{OrRaise, parsed};
use crate::spelling::Arguments;
use crate::work;

/// What was found.
#[pyclass(frozen, module = "attnkit._native")]
pub struct Answer {
    /// Without the values of its maps, which numpy owns.
    answer: query::Answer,
    values: Option<Py<PyArray1<f32>>>,
}

impl Answer {
    pub fn new(py: Python<'_>, mut answer: query::Answer) -> Self {
        let values = answer.maps.as_mut().map(|maps| {
            let stacked = maps.stacked().len();
            // Answers that were sorted or cut are brought in order once; others are taken over as they are.
            let in_order = maps.stacked().as_ptr() == maps.values.as_ptr();
            if !in_order {
                let (values, mut start) = (maps.stacked().into_owned(), 0);
                for (range, _) in &mut maps.maps {
                    *range = start..start + range.len();
                    start = range.end;
                }
                maps.values = values;
            }
            debug_assert_eq!(stacked, maps.values.len());
            PyArray1::from_vec(py, std::mem::take(&mut maps.values)).unbind()
        });
        Self { answer, values }
    }

    /// With the maps, copied back.
    pub fn whole(&self, py: Python<'_>) -> PyResult<query::Answer> {
        let mut answer = self.answer.clone();
        if let (Some(maps), Some(values)) = (&mut answer.maps, &self.values) {
            let values: PyReadonlyArray1<'_, f32> = values.bind(py).extract()?;
            maps.values = values.as_slice()?.to_vec();
        }
        Ok(answer)
    }
}

#[pymethods]
impl Answer {
    /// The answer that `__reduce__` made bytes of.
    #[new]
    fn of_bytes(py: Python<'_>, bytes: &[u8]) -> PyResult<Self> {
        let answer = work::detached(py, || query::Answer::from_bytes(bytes))?.or_raise()?;
        Ok(Self::new(py, answer))
    }

    /// As pickle and copy ask for it.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyType>, (Bound<'py, PyBytes>,))> {
        let py = slf.py();
        let answer = slf.get().whole(py)?;
        let bytes = work::detached(py, || answer.to_bytes())?.or_raise()?;
        Ok((slf.get_type(), (PyBytes::new(py, &bytes),)))
    }

    /// Rows of the table.
    #[getter]
    fn height(&self) -> usize {
        self.answer.table.height()
    }

    #[getter]
    fn columns(&self) -> Vec<String> {
        self.answer.table.get_column_names_owned().into_iter().map(|name| name.to_string()).collect()
    }

    /// The columns that people want to see.
    #[getter]
    fn telling_columns(&self) -> Vec<&str> {
        output::telling_columns(&self.answer)
    }

    #[getter]
    fn keys(&self) -> Vec<String> {
        self.answer.keys.clone()
    }

    #[getter]
    fn notes(&self) -> Vec<String> {
        self.answer.notes.iter().map(|note| note.spelled(&Arguments)).collect()
    }

    /// Bytes of arrays that were decoded.
    #[getter]
    fn bytes_read(&self) -> u64 {
        self.answer.read.bytes
    }

    /// What its rows are: `rows`, `maps`, `map`, `series`, `pairs`, `matrix` or `differences`.
    #[getter]
    fn kind(&self) -> &'static str {
        self.answer.kind.name()
    }

    /// The values of all maps, one behind the other; `None` if the answer has no maps.
    #[getter]
    fn values(&self, py: Python<'_>) -> Option<Py<PyArray1<f32>>> {
        self.values.as_ref().map(|values| values.clone_ref(py))
    }

    /// (start, stop, shape) of each map in `values`.
    #[getter]
    fn places(&self) -> Vec<(usize, usize, Vec<usize>)> {
        let maps = self.answer.maps.iter().flat_map(|maps| &maps.maps);
        maps.map(|(range, shape)| (range.start, range.end, shape.clone())).collect()
    }

    /// A column: numbers as an array (NaN where a float is null, as float64 where an integer is), anything else as a
    /// list.
    fn column<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let column = self.answer.table.column(name).map_err(|_| {
            let known = self.columns().join(", ");
            PyKeyError::new_err(format!("there is no column `{name}`; there are {known}"))
        })?;
        column::to_python(py, column.as_materialized_series())
    }

    /// Whether a column holds times: microseconds since 1970, UTC.
    fn is_time(&self, name: &str) -> bool {
        self.answer.table.column(name).is_ok_and(|column| matches!(column.dtype(), DataType::Datetime(..)))
    }

    /// As text: `table`, `csv`, `json` or `jsonl`.
    fn to_text(&self, format: &str, rows: usize, width: usize) -> PyResult<String> {
        let format: Format = parsed("format", format)?;
        let style = TableStyle { width: Some(width), rows, advice: None };
        let text = output::to_text(&self.answer, format, style).or_raise()?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Writes a file, in the format that `format` or its extension names. Returns what was written beside it.
    fn write(
        &self,
        py: Python<'_>,
        path: std::path::PathBuf,
        format: Option<&str>,
    ) -> PyResult<Vec<std::path::PathBuf>> {
        let format = match format {
            Some(format) => parsed("format", format)?,
            None => Format::of_path(&path).ok_or_else(|| {
                let names: Vec<&str> = Format::ALL.iter().map(|(_, name, _)| *name).collect();
                PyValueError::new_err(format!(
                    "{}: the extension names no format; name one of {}",
                    path.display(),
                    names.join(", ")
                ))
            })?,
        };
        let answer = self.whole(py)?;
        work::detached(py, || output::write_file(&answer, format, &path))?.or_raise()
    }

    /// The Arrow C stream of the table, as the Arrow `PyCapsule` interface asks for it: the table's own buffers, none
    /// is copied. `requested_schema` is not followed, as the interface allows.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let _ = requested_schema;
        self.stream(py, true)
    }

    /// The same. Readers that do not know Arrow's string views get plain strings unless `views` is set; their text is
    /// copied.
    fn stream<'py>(&self, py: Python<'py>, views: bool) -> PyResult<Bound<'py, PyCapsule>> {
        let level = if views { CompatLevel::newest() } else { CompatLevel::oldest() };
        let (field, chunks) = chunks(self.answer.table.clone(), level);
        let stream = export_iterator(Box::new(chunks.into_iter().map(Ok)), field);
        PyCapsule::new_with_value(py, stream, c"arrow_array_stream")
    }
}

/// The table as struct arrays, and their type. Strings inside lists are never views: hardly any reader knows those.
fn chunks(mut table: DataFrame, level: CompatLevel) -> (Field, Vec<Box<dyn Array>>) {
    table.align_chunks();
    let level_of = |dtype: &DataType| if dtype.is_nested() { CompatLevel::oldest() } else { level };
    let columns: Vec<&Series> = table.columns().iter().map(Column::as_materialized_series).collect();
    let fields = columns.iter().map(|column| column.field().to_arrow(level_of(column.dtype()))).collect();
    let dtype = ArrowDataType::Struct(fields);
    let chunk = |index: usize| {
        let arrays: Vec<Box<dyn Array>> =
            columns.iter().map(|column| column.to_arrow(index, level_of(column.dtype()))).collect();
        let rows = arrays.first().map_or(0, |array| array.len());
        StructArray::new(dtype.clone(), rows, arrays, None).boxed()
    };
    let structs = (0..columns.first().map_or(0, |column| column.n_chunks())).map(chunk).collect();
    (Field::new(PlSmallStr::EMPTY, dtype, false), structs)
}

/// The PNG of maps `[frame, height, width]` one behind the other: frame beside frame, map below map.
///
/// # Errors
/// `ValueError` if the map has not so many values.
#[pyfunction]
pub fn heatmap<'py>(
    py: Python<'py>,
    map: PyReadonlyArray1<'_, f32>,
    grid: (usize, usize, usize),
    range: Option<(f32, f32)>,
) -> PyResult<Bound<'py, PyBytes>> {
    let values = map.as_slice()?;
    let grid = Grid { frames: grid.0, height: grid.1, width: grid.2 };
    if grid.spatial() == 0 || values.is_empty() || !values.len().is_multiple_of(grid.spatial()) {
        return Err(PyValueError::new_err(format!("a map of {} values is not {grid}", values.len())));
    }
    let range = range.map(|(low, high)| Range::Values(low.into(), high.into())).unwrap_or_default();
    // As large as a page shows it, and no larger.
    let style = Style { dpi: 96.0, ..Style::default() };
    let figure = figure_of_values(values, grid, &Look { range, style, ..Look::default() }).or_raise()?;
    let png = figure.to_picture().and_then(|picture| picture.to_png());
    Ok(PyBytes::new(py, &png.map_err(|error| PyValueError::new_err(error.to_string()))?))
}
