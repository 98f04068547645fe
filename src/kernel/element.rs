//! What the loops need to know of an element type.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::levels::{LevelCounter, count_by_sorting};

/// A float type that step arrays are stored in.
pub trait Element: bytemuck::Pod + PartialOrd + Send + Sync {
    /// A native float type that holds every value exactly, used in arithmetic loops.
    type Wide: Copy + Into<f64>;

    /// The value, exactly.
    fn to_f64(self) -> f64;

    /// The nearest value of this type, ties to even.
    fn from_f64(value: f64) -> Self;

    /// The values widened exactly; `scratch` is used if they are not in a native type already.
    fn widen<'a>(values: &'a [Self], scratch: &'a mut Vec<f32>) -> &'a [Self::Wide];

    /// Position of the first value equal to `wanted`.
    fn find(map: &[Self], wanted: f64) -> Option<usize> {
        let wanted = Self::from_f64(wanted);
        map.iter().position(|value| *value == wanted)
    }

    /// Counts the finite values of `map` by value into `counter`, ascending. Returns Σ x ln x over the positive ones.
    fn count_levels(map: &[Self], counter: &mut LevelCounter) -> f64;
}

impl Element for f16 {
    type Wide = f32;

    fn to_f64(self) -> f64 {
        self.into()
    }

    fn from_f64(value: f64) -> Self {
        Self::from_f64(value)
    }

    fn widen<'a>(values: &'a [Self], scratch: &'a mut Vec<f32>) -> &'a [f32] {
        scratch.resize(values.len(), 0.0);
        values.convert_to_f32_slice(scratch);
        scratch
    }

    fn find(map: &[Self], wanted: f64) -> Option<usize> {
        let wanted = <Self as Element>::from_f64(wanted);
        if wanted == Self::ZERO {
            return map.iter().position(|value| *value == wanted);
        }
        // Every other number has one bit pattern, and comparing those is faster.
        map.iter().position(|value| value.to_bits() == wanted.to_bits())
    }

    fn count_levels(map: &[Self], counter: &mut LevelCounter) -> f64 {
        counter.count_half(map)
    }
}

impl Element for f32 {
    type Wide = Self;

    fn to_f64(self) -> f64 {
        self.into()
    }

    #[allow(clippy::cast_possible_truncation)] // rounding is what is asked for
    fn from_f64(value: f64) -> Self {
        value as Self
    }

    fn widen<'a>(values: &'a [Self], _: &'a mut Vec<f32>) -> &'a [Self] {
        values
    }

    fn count_levels(map: &[Self], counter: &mut LevelCounter) -> f64 {
        count_by_sorting(map, counter)
    }
}

impl Element for f64 {
    type Wide = Self;

    fn to_f64(self) -> f64 {
        self
    }

    fn from_f64(value: f64) -> Self {
        value
    }

    fn widen<'a>(values: &'a [Self], _: &'a mut Vec<f32>) -> &'a [Self] {
        values
    }

    fn count_levels(map: &[Self], counter: &mut LevelCounter) -> f64 {
        count_by_sorting(map, counter)
    }
}
