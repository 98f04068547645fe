//! Columns of tables as numpy arrays, or as lists where numpy has no type for them.

use numpy::PyArray1;
use polars::prelude::{AnyValue, DataType, PolarsError, Series, TimeUnit};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyList;

fn raise(error: PolarsError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// The values of a column.
///
/// # Errors
/// `ValueError` if it cannot be cast, which does not happen.
pub fn to_python<'py>(py: Python<'py>, series: &Series) -> PyResult<Bound<'py, PyAny>> {
    let has_nulls = series.null_count() > 0;
    match series.dtype() {
        DataType::Int32 if !has_nulls => {
            Ok(PyArray1::from_iter(py, series.i32().map_err(raise)?.into_no_null_iter()).into_any())
        }
        DataType::Datetime(unit, _) => {
            let scale = match unit {
                TimeUnit::Nanoseconds => (1, 1000),
                TimeUnit::Microseconds => (1, 1),
                TimeUnit::Milliseconds => (1000, 1),
            };
            let times = series.cast(&DataType::Int64).map_err(raise)?;
            // What numpy calls not a time.
            let time = |time: Option<i64>| time.map_or(i64::MIN, |time| time * scale.0 / scale.1);
            Ok(PyArray1::from_iter(py, times.i64().map_err(raise)?.iter().map(time)).into_any())
        }
        dtype if dtype.is_integer() && !has_nulls => {
            let wide = series.cast(&DataType::Int64).map_err(raise)?;
            Ok(PyArray1::from_iter(py, wide.i64().map_err(raise)?.into_no_null_iter()).into_any())
        }
        dtype if dtype.is_primitive_numeric() => {
            let wide = series.cast(&DataType::Float64).map_err(raise)?;
            let values = wide.f64().map_err(raise)?.iter().map(|value| value.unwrap_or(f64::NAN));
            Ok(PyArray1::from_iter(py, values).into_any())
        }
        // Seeds: integers of 64 bits, with or without a sign.
        DataType::Decimal(_, 0) if !has_nulls => {
            let wide = series.cast(&DataType::Int128).map_err(raise)?;
            let values: Vec<i128> = wide.i128().map_err(raise)?.into_no_null_iter().collect();
            let signed: Result<Vec<i64>, _> = values.iter().map(|&value| i64::try_from(value)).collect();
            let unsigned: Result<Vec<u64>, _> = values.iter().map(|&value| u64::try_from(value)).collect();
            match (signed, unsigned) {
                (Ok(values), _) => Ok(PyArray1::from_vec(py, values).into_any()),
                (_, Ok(values)) => Ok(PyArray1::from_vec(py, values).into_any()),
                _ => PyList::new(py, values).map(Bound::into_any),
            }
        }
        DataType::Boolean if !has_nulls => {
            Ok(PyArray1::from_iter(py, series.bool().map_err(raise)?.iter().flatten()).into_any())
        }
        _ => to_list(py, series).map(Bound::into_any),
    }
}

fn to_list<'py>(py: Python<'py>, series: &Series) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for value in series.iter() {
        match value {
            AnyValue::Null => list.append(py.None())?,
            AnyValue::String(text) => list.append(text)?,
            AnyValue::StringOwned(text) => list.append(text.as_str())?,
            AnyValue::Boolean(value) => list.append(value)?,
            AnyValue::List(values) => list.append(to_list(py, &values)?)?,
            AnyValue::Decimal(value, _, 0) => list.append(value)?,
            value if value.is_integer() => list.append(value.extract::<i64>())?,
            value if value.is_float() => list.append(value.extract::<f64>())?,
            value => list.append(value.to_string())?,
        }
    }
    Ok(list)
}
