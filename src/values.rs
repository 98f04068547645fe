//! Values of maps in memory, of whichever type they are stored in.

use std::borrow::Cow;

use half::f16;

use crate::dtype::{Dtype, SourceDtype};
use crate::kernel::{Element, zeroed};

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
            $crate::values::Values::Float16($name) => $body,
            $crate::values::Values::Float32($name) => $body,
            $crate::values::Values::Float64($name) => $body,
        }
    };
}
pub(crate) use with_values;

impl<'a> Values<'a> {
    /// Reads little-endian bytes of whole elements, borrowing them where type and alignment allow.
    pub(crate) fn from_le_bytes(dtype: SourceDtype, bytes: Cow<'a, [u8]>) -> Self {
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

    /// Zeros; `None` if there is no memory for so many.
    pub(crate) fn zeroed(dtype: Dtype, len: usize) -> Option<Values<'static>> {
        Some(match dtype {
            Dtype::Float16 => Values::Float16(zeroed(len)?.into()),
            Dtype::Float32 => Values::Float32(zeroed(len)?.into()),
            Dtype::Float64 => Values::Float64(zeroed(len)?.into()),
        })
    }

    /// Their bytes, in the machine's order, to be written; copied first if they are borrowed.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        with_values!(self, values => bytemuck::cast_slice_mut(values.to_mut()))
    }

    /// The same values, borrowed from nowhere.
    #[must_use]
    pub fn into_owned(self) -> Values<'static> {
        match self {
            Self::Float16(values) => Values::Float16(values.into_owned().into()),
            Self::Float32(values) => Values::Float32(values.into_owned().into()),
            Self::Float64(values) => Values::Float64(values.into_owned().into()),
        }
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

impl<'a> Values<'a> {
    /// Values from bytes in the machine's order, as arrays of a store are read; borrowed where they are aligned.
    pub(crate) fn from_ne_bytes(dtype: Dtype, bytes: &'a [u8]) -> Self {
        fn cast<T: bytemuck::Pod>(bytes: &[u8]) -> Cow<'_, [T]> {
            bytemuck::try_cast_slice(bytes)
                .map_or_else(|_| Cow::Owned(bytemuck::pod_collect_to_vec(bytes)), Cow::Borrowed)
        }
        match dtype {
            Dtype::Float16 => Self::Float16(cast(bytes)),
            Dtype::Float32 => Self::Float32(cast(bytes)),
            Dtype::Float64 => Self::Float64(cast(bytes)),
        }
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
