//! Counting the distinct values of a map in ascending order: what entropy, gini and shares are computed from.
//!
//! A float16 has 65,536 bit patterns, so its map is counted in one table instead of being sorted, and x ln x is looked
//! up.

use std::sync::LazyLock;

use half::f16;

use crate::metrics::Level;

const PATTERNS: usize = 1 << 16;
const SIGN: usize = 1 << 15;
const INFINITY: usize = 0x7C00;
/// Bins looked at together when the table is scanned for occupied ones.
const STRIDE: usize = 16;

/// x ln x of every positive finite float16, by bit pattern; 0 elsewhere.
static X_LN_X: LazyLock<Box<[f64]>> = LazyLock::new(|| {
    (0..=u16::MAX)
        .map(|bits| match f64::from(f16::from_bits(bits)) {
            value if value > 0.0 && value.is_finite() => value * value.ln(),
            _ => 0.0,
        })
        .collect()
});

/// The distinct finite values of one map, with reusable tables.
#[derive(Debug)]
pub struct LevelCounter {
    /// Distinct finite values, ascending.
    pub levels: Vec<Level>,
    /// Values that are NaN or infinite.
    pub nonfinite: u32,
    /// How often each bit pattern occurs; all zero between calls.
    counts: Box<[u32]>,
}

impl LevelCounter {
    /// Empty tables.
    pub(super) fn new() -> Self {
        Self { levels: Vec::new(), nonfinite: 0, counts: vec![0; PATTERNS].into_boxed_slice() }
    }

    /// Counts a float16 map; returns Σ x ln x. O(positions + patterns in use).
    pub(super) fn count_half(&mut self, map: &[f16]) -> f64 {
        self.levels.clear();
        self.nonfinite = 0;
        let mut highest = 0;
        for value in map {
            highest = highest.max(value.to_bits());
        }
        if let Ok(counts) = <&mut [u32; PATTERNS]>::try_from(&mut *self.counts) {
            for value in map {
                counts[usize::from(value.to_bits())] += 1;
            }
        }
        let highest = usize::from(highest);
        let mut sum_x_ln_x = 0.0;
        if highest >= SIGN {
            self.take_range(SIGN, highest + 1, &mut sum_x_ln_x);
            // Patterns of negative values ascend in magnitude.
            self.levels.reverse();
        }
        self.take_range(0, highest.min(SIGN - 1) + 1, &mut sum_x_ln_x);
        sum_x_ln_x
    }

    /// Moves the counts of the patterns `from..to` into the levels.
    fn take_range(&mut self, from: usize, to: usize, sum_x_ln_x: &mut f64) {
        let table = &*X_LN_X;
        for start in (from..to).step_by(STRIDE) {
            let Some(bins) = self.counts.get_mut(start..start + STRIDE) else { return };
            if bins.iter().fold(0, |any, &count| any | count) == 0 {
                continue;
            }
            for (offset, count) in bins.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
                let bits = start + offset;
                if bits & INFINITY == INFINITY {
                    self.nonfinite += *count;
                } else {
                    #[allow(clippy::cast_possible_truncation)] // below PATTERNS
                    let value = f64::from(f16::from_bits(bits as u16));
                    self.levels.push(Level { value, count: *count });
                    *sum_x_ln_x += f64::from(*count) * table[bits];
                }
                *count = 0;
            }
        }
    }
}

/// Counts a map of any other float type; returns Σ x ln x. O(positions), by radix sort.
pub(super) fn count_by_sorting<T: Copy + Into<f64> + radsort::Key>(map: &[T], counter: &mut LevelCounter) -> f64 {
    let mut finite = Vec::with_capacity(map.len());
    finite.extend(map.iter().copied().filter(|&value| value.into().is_finite()));
    radsort::sort(&mut finite);
    counter.levels.clear();
    counter.nonfinite = u32::try_from(map.len() - finite.len()).unwrap_or(u32::MAX);
    let mut sum_x_ln_x = 0.0;
    for value in finite {
        let value: f64 = value.into();
        match counter.levels.last_mut() {
            Some(level) if level.value == value => level.count += 1,
            _ => counter.levels.push(Level { value, count: 1 }),
        }
    }
    for level in &counter.levels {
        if level.value > 0.0 {
            sum_x_ln_x += f64::from(level.count) * level.value * level.value.ln();
        }
    }
    sum_x_ln_x
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::Element;

    proptest! {
        #[test]
        fn table_and_sort_count_the_same(bits in proptest::collection::vec(any::<u16>(), 0..400)) {
            let half: Vec<f16> = bits.iter().copied().map(f16::from_bits).collect();
            let single: Vec<f32> = half.iter().map(|value| value.to_f32()).collect();
            let (mut by_table, mut by_sort) = (LevelCounter::new(), LevelCounter::new());
            for _ in 0..2 { // the second time on used tables
                let a = f16::count_levels(&half, &mut by_table);
                let b = f32::count_levels(&single, &mut by_sort);
                prop_assert!((a - b).abs() <= 1e-9 * b.abs());
            }
            prop_assert_eq!(by_table.nonfinite, by_sort.nonfinite);
            // -0.0 and 0.0 are one level to the sort and two neighbours to the table.
            let total = |counter: &LevelCounter| counter.levels.iter().map(|level| level.count).sum::<u32>();
            prop_assert_eq!(total(&by_table), total(&by_sort));
            prop_assert!(by_table.levels.windows(2).all(|pair| pair[0].value <= pair[1].value));
            let mut values: Vec<f64> = by_table.levels.iter().map(|level| level.value).collect();
            values.dedup();
            prop_assert_eq!(values, by_sort.levels.iter().map(|level| level.value).collect::<Vec<_>>());
        }
    }
}
