//! Values as numpy arrays, and back.

use std::borrow::Cow;

use attnkit::dtype::Dtype;
use attnkit::kernel::{Accumulator, Element, Reducer};
use attnkit::source::ValuesMut;
use attnkit::values::Values;
use half::f16;
use numpy::{PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use rayon::prelude::*;

use crate::work;

/// A vector as a numpy array that takes it over without a copy.
pub fn to_numpy<'py, T: numpy::Element>(
    py: Python<'py>,
    values: Vec<T>,
    shape: &[usize],
) -> PyResult<Bound<'py, PyAny>> {
    Ok(numpy::PyArray1::from_vec(py, values).reshape(shape.to_vec())?.into_any())
}

/// Values as a numpy array of their type.
pub fn values_to_numpy<'py>(py: Python<'py>, values: Values<'static>, shape: &[usize]) -> PyResult<Bound<'py, PyAny>> {
    match values {
        Values::Float16(values) => to_numpy(py, values.into_owned(), shape),
        Values::Float32(values) => to_numpy(py, values.into_owned(), shape),
        Values::Float64(values) => to_numpy(py, values.into_owned(), shape),
    }
}

/// An array of numpy's own making, which asks the system for large pages, filled by `fill`.
pub fn filled<'py>(
    py: Python<'py>,
    dtype: Dtype,
    shape: &[usize],
    fill: impl FnOnce(ValuesMut<'_>) -> PyResult<()>,
) -> PyResult<Bound<'py, PyAny>> {
    let array = py.import("numpy")?.call_method1("empty", (shape.to_vec(), dtype.name()))?;
    match dtype {
        Dtype::Float16 => {
            let array = array.cast::<PyArrayDyn<f16>>()?;
            fill(ValuesMut::Float16(array.readwrite().as_slice_mut()?))?;
        }
        Dtype::Float32 => {
            let array = array.cast::<PyArrayDyn<f32>>()?;
            fill(ValuesMut::Float32(array.readwrite().as_slice_mut()?))?;
        }
        Dtype::Float64 => {
            let array = array.cast::<PyArrayDyn<f64>>()?;
            fill(ValuesMut::Float64(array.readwrite().as_slice_mut()?))?;
        }
    }
    Ok(array)
}

/// Bytes of elements as a numpy array.
pub fn bytes_to_numpy<'py>(
    py: Python<'py>,
    dtype: Dtype,
    bytes: &[u8],
    shape: &[usize],
) -> PyResult<Bound<'py, PyAny>> {
    match dtype {
        Dtype::Float16 => to_numpy::<f16>(py, bytemuck::pod_collect_to_vec(bytes), shape),
        Dtype::Float32 => to_numpy::<f32>(py, bytemuck::pod_collect_to_vec(bytes), shape),
        Dtype::Float64 => to_numpy::<f64>(py, bytemuck::pod_collect_to_vec(bytes), shape),
    }
}

/// A float array of any of the types that a store knows.
#[derive(FromPyObject)]
pub enum Floats<'py> {
    /// float16
    Float16(PyReadonlyArrayDyn<'py, f16>),
    /// float32
    Float32(PyReadonlyArrayDyn<'py, f32>),
    /// float64
    Float64(PyReadonlyArrayDyn<'py, f64>),
}

impl Floats<'_> {
    /// Its axes.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Float16(array) => array.shape(),
            Self::Float32(array) => array.shape(),
            Self::Float64(array) => array.shape(),
        }
    }

    /// Its values, C order, which nobody can change while they are worked on: a copy, but of an array that cannot be
    /// written to.
    pub fn to_values(&self) -> Values<'_> {
        match self {
            Self::Float16(array) => Values::Float16(unchanging(array)),
            Self::Float32(array) => Values::Float32(unchanging(array)),
            Self::Float64(array) => Values::Float64(unchanging(array)),
        }
    }
}

fn unchanging<'a, T: numpy::Element + Copy>(array: &'a PyReadonlyArrayDyn<'_, T>) -> Cow<'a, [T]> {
    let flags = array.getattr("flags").and_then(|flags| flags.getattr("writeable"));
    let is_writeable = flags.and_then(|flag| flag.is_truthy()).unwrap_or(true);
    match array.as_slice() {
        Ok(values) if !is_writeable => Cow::Borrowed(values),
        _ => Cow::Owned(array.as_array().iter().copied().collect()),
    }
}

/// The mean over one axis, float32; sums accumulate in float64.
///
/// # Errors
/// `TypeError` if the array is not contiguous; `ValueError` if it has no such axis or the axis is empty.
#[pyfunction]
pub fn mean_axis<'py>(py: Python<'py>, array: Floats<'py>, axis: usize) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    let shape = array.shape().to_vec();
    if axis >= shape.len() || shape[axis] == 0 {
        return Err(PyValueError::new_err(format!("an array of shape {shape:?} has no mean over axis {axis}")));
    }
    let inner: usize = shape[axis + 1..].iter().product();
    let means = match &array {
        Floats::Float16(array) => means_of(py, array, shape[axis], inner),
        Floats::Float32(array) => means_of(py, array, shape[axis], inner),
        Floats::Float64(array) => means_of(py, array, shape[axis], inner),
    }?;
    let kept: Vec<usize> = [&shape[..axis], &shape[axis + 1..]].concat();
    numpy::PyArray1::from_vec(py, means).reshape(kept)
}

/// The same without the interpreter lock, of an array that must be contiguous.
fn means_of<T: Element + numpy::Element>(
    py: Python<'_>,
    array: &PyReadonlyArrayDyn<'_, T>,
    count: usize,
    inner: usize,
) -> PyResult<Vec<f32>> {
    let not_contiguous = |_| PyTypeError::new_err("the array is not C-contiguous: use numpy.ascontiguousarray");
    let values = array.as_slice().map_err(not_contiguous)?;
    work::detached(py, || means(values, count, inner))
}

/// Means over the middle axis of `[outer, count, inner]`.
fn means<T: Element>(values: &[T], count: usize, inner: usize) -> Vec<f32> {
    if values.is_empty() {
        return Vec::new();
    }
    if inner == 1 {
        let mean = |group: &[T]| group.iter().map(|value| value.to_f64()).sum::<f64>() / count as f64;
        #[allow(clippy::cast_possible_truncation)] // means are float32
        return values.par_chunks(count).map(|group| mean(group) as f32).collect();
    }
    values
        .par_chunks(count * inner)
        .flat_map_iter(|group| {
            let mut accumulator = Accumulator::new(Reducer::Mean, false, inner);
            let maps: Vec<&[T]> = group.chunks(inner).collect();
            accumulator.fold(&maps, 1, &mut Vec::new());
            accumulator.finish()
        })
        .collect()
}
