//! How a map's mass is distributed over its values, wherever they lie: moments, entropy, inequality, top shares.

/// One distinct value of a map and how many positions have it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// The value, finite.
    pub value: f64,
    /// Positions that have it.
    pub count: u32,
}

/// Statistics of the finite values of one map.
///
/// Entropy, gini and shares are NaN where undefined: no mass, a negative value, or no finite value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distribution {
    /// Σ x.
    pub sum: f64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation of the population (divided by n).
    pub std: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Shannon entropy −Σ p ln p in nats with p = x / Σ x (Shannon, *A Mathematical Theory of Communication*, 1948).
    pub entropy: f64,
    /// Gini coefficient 2 Σ i x₍ᵢ₎ / (n Σ x) − (n + 1) / n, x₍ᵢ₎ ascending (Gini, *Variabilità e mutabilità*, 1912; in
    /// this form Sen, *On Economic Inequality*, 1973).
    pub gini: f64,
    /// Share of the sum in the highest ⌈n / 100⌉ values.
    pub top1: f64,
    /// Share of the sum in the highest ⌈n / 20⌉ values.
    pub top5: f64,
    /// Share of the sum in the highest ⌈n / 10⌉ values.
    pub top10: f64,
}

impl Distribution {
    /// Statistics from a map's distinct values in ascending order and from Σ x ln x over all its positions
    /// (0 ln 0 = 0), which the caller may know from a table. O(levels).
    #[must_use]
    pub fn from_levels(levels: &[Level], sum_x_ln_x: f64) -> Self {
        let (Some(first), Some(last)) = (levels.first(), levels.last()) else {
            return Self::undefined();
        };
        let (mut positions, mut sum, mut rank_weighted) = (0.0, 0.0, 0.0);
        for level in levels {
            let count = f64::from(level.count);
            // The ranks positions + 1 … positions + count, times the value.
            rank_weighted += level.value * count * (positions + f64::midpoint(count, 1.0));
            positions += count;
            sum += level.value * count;
        }
        let mean = sum / positions;
        let variance =
            levels.iter().map(|level| f64::from(level.count) * (level.value - mean).powi(2)).sum::<f64>() / positions;
        let mut statistics =
            Self { sum, mean, std: variance.sqrt(), min: first.value, max: last.value, ..Self::undefined() };
        if sum > 0.0 && first.value >= 0.0 {
            statistics.entropy = (sum.ln() - sum_x_ln_x / sum).max(0.0);
            statistics.gini = 2.0 * rank_weighted / (positions * sum) - (positions + 1.0) / positions;
            let shares = top_masses(levels, [100.0, 20.0, 10.0].map(|part| (positions / part).ceil()));
            [statistics.top1, statistics.top5, statistics.top10] = shares.map(|mass| mass / sum);
        }
        statistics
    }

    const fn undefined() -> Self {
        let nan = f64::NAN;
        Self {
            sum: 0.0,
            mean: nan,
            std: nan,
            min: nan,
            max: nan,
            entropy: nan,
            gini: nan,
            top1: nan,
            top5: nan,
            top10: nan,
        }
    }
}

/// Mass of the highest `counts[i]` positions, for ascending counts.
fn top_masses<const N: usize>(levels: &[Level], counts: [f64; N]) -> [f64; N] {
    let mut masses = [0.0; N];
    let (mut taken, mut mass) = (0.0, 0.0);
    let mut pending = 0;
    for level in levels.iter().rev() {
        let count = f64::from(level.count);
        while pending < N && counts[pending] <= taken + count {
            masses[pending] = mass + (counts[pending] - taken) * level.value;
            pending += 1;
        }
        if pending == N {
            break;
        }
        taken += count;
        mass += count * level.value;
    }
    masses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[(f64, u32)]) -> Distribution {
        let levels: Vec<Level> = values.iter().map(|&(value, count)| Level { value, count }).collect();
        let x_ln_x = values.iter().filter(|v| v.0 > 0.0).map(|v| f64::from(v.1) * v.0 * v.0.ln()).sum();
        Distribution::from_levels(&levels, x_ln_x)
    }

    #[test]
    fn a_uniform_map_has_full_entropy_and_no_inequality() {
        let uniform = of(&[(0.25, 200)]);
        assert!((uniform.entropy - 200f64.ln()).abs() < 1e-12);
        assert!(uniform.gini.abs() < 1e-12);
        assert_eq!((uniform.sum, uniform.std, uniform.top1, uniform.top5, uniform.top10), (50.0, 0.0, 0.01, 0.05, 0.1));
    }

    #[test]
    fn a_single_spike_has_none_and_all() {
        let spike = of(&[(0.0, 99), (0.5, 1)]);
        assert_eq!(spike.entropy, 0.0);
        assert!((spike.gini - 0.99).abs() < 1e-12);
        assert_eq!((spike.top1, spike.top10, spike.min, spike.max), (1.0, 1.0, 0.0, 0.5));
    }

    #[test]
    fn shares_split_a_level() {
        let shares = of(&[(1.0, 90), (2.0, 10)]);
        assert!((shares.top5 - 10.0 / 110.0).abs() < 1e-12);
        assert!((shares.top10 - 20.0 / 110.0).abs() < 1e-12);
    }

    #[test]
    fn what_is_undefined_is_nan() {
        let negative = of(&[(-1.0, 1), (3.0, 1)]);
        assert!(negative.entropy.is_nan() && negative.gini.is_nan() && negative.top1.is_nan());
        assert_eq!((negative.sum, negative.mean, negative.std), (2.0, 1.0, 2.0));
        assert!(of(&[]).mean.is_nan());
        assert!(of(&[(0.0, 7)]).entropy.is_nan());
    }
}
