//! One step array in memory, whatever file it came from: shape, element type and values in C order.

use half::f16;
use ndarray::Array4;
use serde::{Deserialize, Serialize};

use super::Problem;
use crate::dtype::SourceDtype;
use crate::shape::StepShape;
use crate::values::Values;

/// What to do with a batch axis larger than 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Batch {
    /// Keep this element.
    Index(usize),
    /// Average, in float64, rounded to the element type.
    Mean,
}

impl std::str::FromStr for Batch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "mean" {
            return Ok(Self::Mean);
        }
        text.parse().map(Self::Index).map_err(|_| format!("`{text}` is neither an index nor `mean`"))
    }
}

/// The array of one denoising step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepArray<'a> {
    /// Its shape.
    pub shape: StepShape,
    /// The type it had in its file.
    pub source_dtype: SourceDtype,
    /// `shape.len()` values, C order.
    pub values: Values<'a>,
}

impl<'a> StepArray<'a> {
    /// Values in memory as a step array: of axes `[block, head, spatial, token]`, or with a batch axis behind the
    /// first.
    ///
    /// # Errors
    /// If the axes are none of a step array, or the batch axis is larger than 1 and `batch` does not choose.
    pub fn new(axes: &[usize], values: Values<'a>, batch: Option<Batch>) -> Result<Self, Problem> {
        let dtype = match values {
            Values::Float16(_) => SourceDtype::Float16,
            Values::Float32(_) => SourceDtype::Float32,
            Values::Float64(_) => SourceDtype::Float64,
        };
        FileArray { shape: axes.to_vec(), dtype, values }.into_step_array(batch)
    }
}

/// An array in memory as a step array.
macro_rules! step_array_of {
    ($($kind:ident: $type:ty),+) => {$(
        impl TryFrom<Array4<$type>> for StepArray<'static> {
            type Error = Problem;

            fn try_from(array: Array4<$type>) -> Result<Self, Problem> {
                // In the order of its indices, whatever lies in memory.
                StepArray::new(array.shape(), Values::$kind(array.iter().copied().collect()), None)
            }
        }
    )+};
}
step_array_of!(Float16: f16, Float32: f32, Float64: f64);

/// An array as a file holds it, with any number of axes.
#[derive(Debug)]
pub(super) struct FileArray<'a> {
    pub shape: Vec<usize>,
    pub dtype: SourceDtype,
    pub values: Values<'a>,
}

impl<'a> FileArray<'a> {
    /// As a step array: a batch axis is dropped, indexed or averaged.
    pub fn into_step_array(self, batch: Option<Batch>) -> Result<StepArray<'a>, Problem> {
        let (shape, batch_size) = without_batch(&self.shape)?;
        let values = match (batch_size, batch) {
            (1, _) => self.values,
            (size, None) => return Err(Problem::BatchAxis { found: self.shape, batch: size }),
            (size, Some(Batch::Index(index))) if index >= size => {
                return Err(Problem::BatchIndex { index, batch: size });
            }
            (size, Some(choice)) => {
                let inner = shape.heads * shape.head_len();
                let at = |index: usize, element: usize| {
                    self.values.get((index / inner * size + element) * inner + index % inner)
                };
                Values::compute(self.values.dtype(), shape.len(), |index| match choice {
                    Batch::Index(element) => at(index, element),
                    Batch::Mean => (0..size).map(|element| at(index, element)).sum::<f64>() / size as f64,
                })
            }
        };
        Ok(StepArray { shape, source_dtype: self.dtype, values })
    }
}

/// The shape of four axes behind one of four or five, and the size of the batch axis.
pub(super) fn without_batch(axes: &[usize]) -> Result<(StepShape, usize), Problem> {
    match *axes {
        [blocks, batch, heads, spatial, tokens] if batch > 0 => {
            StepShape::from_axes(&[blocks, heads, spatial, tokens]).map(|shape| (shape, batch))
        }
        _ => StepShape::from_axes(axes).map(|shape| (shape, 1)),
    }
    .ok_or_else(|| Problem::Shape { found: axes.to_vec() })
}
