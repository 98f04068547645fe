//! The array of one step, as `ndarray` has it.

use half::f16;
use ndarray::Array4;

use crate::kernel::Element;
use crate::shape::StepShape;
use crate::values::Values;

/// The array of one step, `[block, head, spatial, token]`, of the type that it is stored in; bfloat16 as float32.
#[derive(Debug, Clone, PartialEq)]
pub enum Array {
    /// binary16.
    Float16(Array4<f16>),
    /// binary32.
    Float32(Array4<f32>),
    /// binary64.
    Float64(Array4<f64>),
}

/// Does the same with the array of whatever type.
macro_rules! with_array {
    ($array:expr, $name:ident => $body:expr) => {
        match $array {
            Array::Float16($name) => $body,
            Array::Float32($name) => $body,
            Array::Float64($name) => $body,
        }
    };
}

impl Array {
    /// Its shape.
    #[must_use]
    pub fn shape(&self) -> StepShape {
        let (blocks, heads, spatial, tokens) = with_array!(self, array => array.dim());
        StepShape { blocks, heads, spatial, tokens }
    }

    /// The same values as float32: exactly, but for those of a float64 array, which are rounded.
    #[must_use]
    pub fn to_f32(&self) -> Array4<f32> {
        #[allow(clippy::cast_possible_truncation)] // that is the rounding
        let round = |value: f64| value as f32;
        with_array!(self, array => array.mapv(|value| round(value.to_f64())))
    }

    /// The same values as float64, exactly.
    #[must_use]
    pub fn to_f64(&self) -> Array4<f64> {
        with_array!(self, array => array.mapv(Element::to_f64))
    }
}

/// The array, if it is of that type; else it is given back.
macro_rules! array_of_type {
    ($($kind:ident: $type:ty),+) => {$(
        impl TryFrom<Array> for Array4<$type> {
            type Error = Array;

            fn try_from(array: Array) -> Result<Self, Array> {
                match array {
                    Array::$kind(array) => Ok(array),
                    other => Err(other),
                }
            }
        }
    )+};
}
array_of_type!(Float16: f16, Float32: f32, Float64: f64);

impl Array {
    /// The values of a step of this shape.
    pub(super) fn of(values: Values<'_>, shape: StepShape) -> Self {
        fn shaped<T: Clone>(shape: StepShape, values: std::borrow::Cow<'_, [T]>) -> Array4<T> {
            let axes = (shape.blocks, shape.heads, shape.spatial, shape.tokens);
            Array4::from_shape_vec(axes, values.into_owned()).unwrap_or_else(|_| unreachable!("readers check lengths"))
        }
        match values {
            Values::Float16(values) => Self::Float16(shaped(shape, values)),
            Values::Float32(values) => Self::Float32(shaped(shape, values)),
            Values::Float64(values) => Self::Float64(shaped(shape, values)),
        }
    }
}
