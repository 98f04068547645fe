//! Bit rounding: fewer significant bits, with zeros behind them, which compress.

use std::borrow::Cow;

use half::f16;
use serde::{Deserialize, Serialize};

use super::Element;
use crate::dtype::Dtype;
use crate::values::Values;

/// Differences that are added up before their sum is added to that of the others.
const ADDED_TOGETHER: usize = 4096;

/// How far rounded values are from what they were; of finite values.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct RoundingError {
    /// The largest absolute difference.
    pub max: f64,
    /// The mean of the absolute differences.
    pub mean: f64,
}

/// A float whose fraction can be cut.
trait Fraction: Element {
    /// The same with `bits` bits of the fraction behind its leading one: the nearest such number, of two as near the
    /// one that ends in 0 (the rounding of IEEE 754). So it changes by 2^-(`bits` + 1) of itself at most. Subnormal
    /// numbers, of which attention in float16 has many, keep as many bits behind theirs. A number that would become
    /// infinite is cut instead, and one that is not finite stays.
    ///
    /// Klöwer et al., "Compressing atmospheric data into its real information content", Nature Computational Science 1
    /// (2021), 713-724; Kouznetsov, Geoscientific Model Development 14 (2021), 377-389.
    fn rounded(self, bits: u32) -> Self;
}

macro_rules! fraction {
    ($float:ty, $bits_of:ty, $dtype:expr) => {
        impl Fraction for $float {
            #[inline]
            fn rounded(self, bits: u32) -> Self {
                const FRACTION: u32 = $dtype.fraction_bits() as u32;
                let whole = self.to_bits();
                let magnitude = whole & (<$bits_of>::MAX >> 1);
                let is_normal = magnitude >> FRACTION > 0;
                let significant = if is_normal { FRACTION + 1 } else { <$bits_of>::BITS - magnitude.leading_zeros() };
                let dropped = significant.saturating_sub(bits + 1);
                if dropped == 0 || !self.is_finite() {
                    return self;
                }
                let kept = <$bits_of>::MAX << dropped;
                let half = (1 << (dropped - 1)) - 1 + (whole >> dropped & 1);
                let nearest = Self::from_bits((whole + half) & kept);
                if nearest.is_finite() { nearest } else { Self::from_bits(whole & kept) }
            }
        }
    };
}

fraction!(f16, u16, Dtype::Float16);
fraction!(f32, u32, Dtype::Float32);
fraction!(f64, u64, Dtype::Float64);

/// Rounds values to `bits` bits of the fraction, of which float16 has 10, float32 23 and float64 52: with as many or
/// more they stay what they are.
pub fn round(values: &Values<'_>, bits: u8) -> (Values<'static>, RoundingError) {
    fn each<T: Fraction>(values: &[T], bits: u8) -> (Cow<'static, [T]>, RoundingError) {
        let rounded: Vec<T> = values.iter().map(|value| value.rounded(bits.into())).collect();
        let (mut max, mut sum, mut finite) = (0.0_f64, 0.0, 0_u64);
        for (before, after) in values.chunks(ADDED_TOGETHER).zip(rounded.chunks(ADDED_TOGETHER)) {
            let mut of_these = 0.0;
            for (before, after) in before.iter().zip(after) {
                let difference = (before.to_f64() - after.to_f64()).abs();
                if difference.is_finite() {
                    finite += 1;
                    of_these += difference;
                    max = max.max(difference);
                }
            }
            sum += of_these;
        }
        let mean = match finite {
            0 => 0.0,
            // Of values near the largest there are, the sum may be none.
            _ if sum.is_infinite() => max,
            _ => sum / finite as f64,
        };
        (rounded.into(), RoundingError { max, mean })
    }
    fn of<T>((rounded, error): (T, RoundingError), made: fn(T) -> Values<'static>) -> (Values<'static>, RoundingError) {
        (made(rounded), error)
    }
    match values {
        Values::Float16(values) => of(each(values, bits), Values::Float16),
        Values::Float32(values) => of(each(values, bits), Values::Float32),
        Values::Float64(values) => of(each(values, bits), Values::Float64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_number_with_so_few_bits_is_taken() {
        // 1 + k / 1024, of which two bits are kept: quarters. 1.125 and 1.375 are in the middle of two of them.
        let of = |value: f32| f16::from_f32(value).rounded(2).to_f32();
        assert_eq!([1.1, 1.125, 1.126, 1.375, 1.876, -1.376].map(of), [1.0, 1.0, 1.25, 1.5, 2.0, -1.5]);
        for bits in 1..=10 {
            for half in (0..=u16::MAX).map(f16::from_bits).filter(|half| half.is_finite()) {
                let rounded = half.rounded(bits);
                assert!(rounded.is_finite() && rounded.rounded(bits) == rounded);
                // The difference of two neighbours of its size.
                let step = (f64::from(half).abs().log2().floor() - f64::from(bits)).exp2();
                let error = (f64::from(half) - f64::from(rounded)).abs();
                let is_cut = f64::from(half).abs() + step / 2.0 >= 65536.0;
                assert!(error <= if is_cut { step } else { step / 2.0 }, "{half} {bits}: {rounded}");
            }
        }
    }

    #[test]
    fn what_is_not_finite_or_has_no_more_bits_stays() {
        let values = Values::Float32(vec![f32::NAN, f32::INFINITY, f32::MAX, -0.0, 1.0 + f32::EPSILON].into());
        let (rounded, error) = round(&values, 7);
        assert!(rounded.get(0).is_nan() && rounded.get(1).is_infinite() && rounded.get(2) > 3.38e38);
        assert_eq!((rounded.get(3).to_bits(), rounded.get(4)), ((-0.0_f64).to_bits(), 1.0));
        assert_eq!(error.max, f64::from(f32::MAX) - rounded.get(2));
        let (same, error) = round(&values, 23);
        assert_eq!((same.bytes(), error), (values.bytes(), RoundingError::default()));
        assert_eq!(round(&Values::Float16(vec![f16::NAN].into()), 3).1, RoundingError::default());
    }
}
