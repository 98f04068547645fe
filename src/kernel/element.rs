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

    /// The values as they are, if they are of float16.
    #[must_use]
    fn halves(_: &[Self]) -> Option<&[f16]> {
        None
    }

    /// Adds maps, each times `weight`, to `sums`, position by position and in order. Each has as many values as there
    /// are sums.
    fn add(maps: &[&[Self]], weight: f64, sums: &mut [f64]) {
        add_scalar(maps, weight, sums);
    }

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

    fn halves(values: &[Self]) -> Option<&[f16]> {
        Some(values)
    }

    fn add(maps: &[&[Self]], weight: f64, sums: &mut [f64]) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") {
            // SAFETY: the functions need AVX2 and F16C and nothing else, and the processor has them.
            #[allow(unsafe_code)]
            return unsafe {
                // Nothing is multiplied by one: that would give the same bits.
                if weight == 1.0 {
                    add_half_avx2::<false>(maps, weight, sums);
                } else {
                    add_half_avx2::<true>(maps, weight, sums);
                }
            };
        }
        add_scalar(maps, weight, sums);
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

fn add_scalar<T: Element>(maps: &[&[T]], weight: f64, sums: &mut [f64]) {
    for map in maps {
        for (sum, value) in sums.iter_mut().zip(*map) {
            *sum += value.to_f64() * weight;
        }
    }
}

/// Sixteen positions at a time, their sums in registers while all maps are added. Nothing is rounded differently: the
/// same operations in the same order at each position.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
fn add_half_avx2<const WEIGHTED: bool>(maps: &[&[f16]], weight: f64, sums: &mut [f64]) {
    use std::arch::x86_64::{
        __m128i, __m256d, _mm256_add_pd, _mm256_castps256_ps128, _mm256_cvtph_ps, _mm256_cvtps_pd,
        _mm256_extractf128_ps, _mm256_mul_pd, _mm256_set1_pd,
    };
    const AT_A_TIME: usize = 16;
    let factor = _mm256_set1_pd(weight);
    let whole = sums.len() / AT_A_TIME * AT_A_TIME;
    let (whole_sums, rest) = sums.split_at_mut(whole);
    for (index, target) in whole_sums.as_chunks_mut::<AT_A_TIME>().0.iter_mut().enumerate() {
        let mut eights: [[__m256d; 2]; 2] = bytemuck::cast(*target);
        for map in maps {
            let values = map.get(index * AT_A_TIME..(index + 1) * AT_A_TIME).map(<[f16; AT_A_TIME]>::try_from);
            let Some(Ok(values)) = values else { continue };
            let values: [__m128i; 2] = bytemuck::cast(values);
            for ([low, high], values) in eights.iter_mut().zip(values) {
                let values = _mm256_cvtph_ps(values);
                let mut first = _mm256_cvtps_pd(_mm256_castps256_ps128(values));
                let mut second = _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(values));
                if WEIGHTED {
                    (first, second) = (_mm256_mul_pd(first, factor), _mm256_mul_pd(second, factor));
                }
                *low = _mm256_add_pd(*low, first);
                *high = _mm256_add_pd(*high, second);
            }
        }
        *target = bytemuck::cast(eights);
    }
    for map in maps {
        for (sum, value) in rest.iter_mut().zip(map.iter().skip(whole)) {
            *sum += value.to_f64() * weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_fast_addition_of_halves_is_the_plain_one(
            bits in proptest::collection::vec(any::<u16>(), 0..120),
            maps in 1usize..5,
            weight in 1u8..4,
        ) {
            let positions = bits.len() / maps;
            let values: Vec<f16> = bits.iter().copied().map(f16::from_bits).collect();
            let maps: Vec<&[f16]> = values.chunks_exact(positions.max(1)).take(maps).collect();
            let (mut fast, mut plain) = (vec![0.5; positions], vec![0.5; positions]);
            f16::add(&maps, weight.into(), &mut fast);
            add_scalar(&maps, weight.into(), &mut plain);
            let same = fast.iter().zip(&plain).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()));
            prop_assert!(same, "{fast:?} {plain:?}");
        }
    }
}
