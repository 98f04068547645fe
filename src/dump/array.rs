//! One step array in memory, whatever file it came from: shape, element type and values in C order.

use std::borrow::Cow;

use half::f16;
use serde::{Deserialize, Serialize};

use super::Problem;
use crate::dtype::{Dtype, SourceDtype};
use crate::kernel::Element;
use crate::shape::StepShape;

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

/// Values in C order, in the type a store keeps them in.
#[derive(Debug, Clone, PartialEq)]
pub enum Values<'a> {
    /// binary16.
    Float16(Cow<'a, [f16]>),
    /// binary32.
    Float32(Cow<'a, [f32]>),
    /// binary64.
    Float64(Cow<'a, [f64]>),
}

/// Does the same with the values of whatever type.
macro_rules! with_values {
    ($values:expr, $name:ident => $body:expr) => {
        match $values {
            $crate::dump::Values::Float16($name) => $body,
            $crate::dump::Values::Float32($name) => $body,
            $crate::dump::Values::Float64($name) => $body,
        }
    };
}
pub(crate) use with_values;

impl<'a> Values<'a> {
    /// Reads little-endian bytes of whole elements, borrowing them where type and alignment allow.
    pub(super) fn from_le_bytes(dtype: SourceDtype, bytes: Cow<'a, [u8]>) -> Self {
        match dtype {
            SourceDtype::Float16 => Self::Float16(elements(bytes, f16::from_le_bytes)),
            SourceDtype::Float32 => Self::Float32(elements(bytes, f32::from_le_bytes)),
            SourceDtype::Float64 => Self::Float64(elements(bytes, f64::from_le_bytes)),
            SourceDtype::BFloat16 => {
                let widen = |pair: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*pair)) << 16);
                Self::Float32(bytes.as_chunks().0.iter().map(widen).collect())
            }
        }
    }

    /// Their type.
    #[must_use]
    pub const fn dtype(&self) -> Dtype {
        match self {
            Self::Float16(_) => Dtype::Float16,
            Self::Float32(_) => Dtype::Float32,
            Self::Float64(_) => Dtype::Float64,
        }
    }

    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        with_values!(self, values => values.len())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their bytes, in the machine's order.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        with_values!(self, values => bytemuck::cast_slice(values))
    }

    /// Values of `dtype`, computed in float64 for each index below `len` and rounded once.
    pub(crate) fn compute(dtype: Dtype, len: usize, value: impl FnMut(usize) -> f64) -> Values<'static> {
        match dtype {
            Dtype::Float16 => Values::Float16((0..len).map(value).map(<f16 as Element>::from_f64).collect()),
            Dtype::Float32 => Values::Float32((0..len).map(value).map(<f32 as Element>::from_f64).collect()),
            Dtype::Float64 => Values::Float64((0..len).map(value).collect()),
        }
    }

    /// The value at `index` of the flat array, exactly.
    ///
    /// # Panics
    /// If `index` is not below `len`.
    #[must_use]
    pub fn get(&self, index: usize) -> f64 {
        with_values!(self, values => values[index].to_f64())
    }
}

fn elements<const SIZE: usize, T: bytemuck::Pod>(bytes: Cow<'_, [u8]>, decode: fn([u8; SIZE]) -> T) -> Cow<'_, [T]> {
    if cfg!(target_endian = "little")
        && let Cow::Borrowed(bytes) = bytes
        && let Ok(values) = bytemuck::try_cast_slice(bytes)
    {
        return Cow::Borrowed(values);
    }
    bytes.as_chunks().0.iter().map(|chunk| decode(*chunk)).collect()
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
