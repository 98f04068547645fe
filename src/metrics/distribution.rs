//! How a map's mass is distributed over its values, wherever they lie: moments, entropy, inequality, top shares.

/// One distinct value of a map and how many positions have it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// The value, finite.
    pub value: f64,
    /// Positions that have it.
    pub count: u32,
}

/// The highest values whose share is told are one of so many.
const TOPS: [f64; 3] = [100.0, 20.0, 10.0];

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
        let top_masses = || top_masses(levels, TOPS.map(|part| (positions / part).ceil()));
        let range = [first.value, last.value];
        Self::of_sums(positions, range, variance, &LevelSums { sum, rank_weighted, sum_x_ln_x }, top_masses)
    }

    /// Statistics of a map whose values are looked at piece by piece: pieces ascend, and no value of one is in another.
    /// Each is summed for itself, so sums are no less exact than those over all levels one after the other.
    #[must_use]
    pub fn from_pieces(pieces: &[Piece]) -> Self {
        let ranges = || pieces.iter().filter_map(|piece| piece.range);
        let (Some([min, _]), Some([_, max])) = (ranges().next(), ranges().next_back()) else {
            return Self::undefined();
        };
        let total = |of: fn(&Piece) -> f64| pieces.iter().map(of).sum::<f64>();
        let positions = total(|piece| piece.positions);
        let sums = LevelSums {
            sum: total(|piece| piece.sums.sum),
            rank_weighted: total(|piece| piece.sums.rank_weighted),
            sum_x_ln_x: total(|piece| piece.sums.sum_x_ln_x),
        };
        // Σ (x − mean)² = Σ (x − near)² − n (mean − near)².
        let squares = total(|piece| piece.squares);
        let near = pieces.first().map_or(0.0, |piece| piece.near);
        let variance = (squares / positions - (sums.sum / positions - near).powi(2)).max(0.0);
        let top_masses = || std::array::from_fn(|top| pieces.iter().map(|piece| piece.top_masses[top]).sum());
        Self::of_sums(positions, [min, max], variance, &sums, top_masses)
    }

    fn of_sums(
        positions: f64,
        [min, max]: [f64; 2],
        variance: f64,
        sums: &LevelSums,
        top_masses: impl FnOnce() -> [f64; 3],
    ) -> Self {
        let LevelSums { sum, rank_weighted, sum_x_ln_x } = *sums;
        let mean = sum / positions;
        let mut statistics = Self { sum, mean, std: variance.sqrt(), min, max, ..Self::undefined() };
        if sum > 0.0 && min >= 0.0 {
            statistics.entropy = (sum.ln() - sum_x_ln_x / sum).max(0.0);
            statistics.gini = 2.0 * rank_weighted / (positions * sum) - (positions + 1.0) / positions;
            [statistics.top1, statistics.top5, statistics.top10] = top_masses().map(|mass| mass / sum);
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

/// What is summed over levels.
#[derive(Debug, Clone, Copy, Default)]
struct LevelSums {
    sum: f64,
    /// Each value times its rank.
    rank_weighted: f64,
    sum_x_ln_x: f64,
}

/// What is said of the levels of a map that lie in one range of values.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Positions with a value in it.
    positions: f64,
    /// Lowest and highest value; `None` if it has none.
    range: Option<[f64; 2]>,
    sums: LevelSums,
    /// About the mean of the map, from which squares are taken: the same for all pieces.
    near: f64,
    squares: f64,
    /// Of the highest values of the map, the mass of those that lie in it.
    top_masses: [f64; 3],
}

impl Piece {
    /// Of `positions` positions, above `below` other ones of the `all` that the map has. `near` is about the mean of
    /// the map. The levels ascend.
    #[must_use]
    pub fn of_levels(levels: impl Iterator<Item = Level>, [below, positions, all]: [u64; 3], near: f64) -> Self {
        let [below, positions, all] = [below, positions, all].map(|count| count as f64);
        // The ranks from which on the highest values are taken.
        let tops = TOPS.map(|part| all - (all / part).ceil());
        let mut piece =
            Self { positions, range: None, sums: LevelSums::default(), near, squares: 0.0, top_masses: [0.0; 3] };
        let mut rank = below;
        for level in levels {
            let count = f64::from(level.count);
            let mass = level.value * count;
            piece.range = Some([piece.range.map_or(level.value, |range| range[0]), level.value]);
            piece.sums.sum += mass;
            piece.sums.rank_weighted += mass * (rank + f64::midpoint(count, 1.0));
            if level.value > 0.0 {
                piece.sums.sum_x_ln_x += mass * level.value.ln();
            }
            piece.squares += count * (level.value - near).powi(2);
            rank += count;
            if rank > tops[2] {
                for (mass, top) in piece.top_masses.iter_mut().zip(tops) {
                    *mass += (rank - top).clamp(0.0, count) * level.value;
                }
            }
        }
        piece
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
    fn pieces_say_what_the_levels_say() {
        let levels: Vec<Level> = (0..1000_u32)
            .map(|number| Level { value: f64::from(number).powf(1.3) / 7.0, count: number % 5 + 1 })
            .collect();
        let x_ln_x = levels.iter().filter(|level| level.value > 0.0);
        let x_ln_x = x_ln_x.map(|level| f64::from(level.count) * level.value * level.value.ln()).sum();
        let whole = Distribution::from_levels(&levels, x_ln_x);
        let counted = |levels: &[Level]| levels.iter().map(|level| u64::from(level.count)).sum::<u64>();
        for size in [1, 7, 300, 1000] {
            let mut below = 0;
            let pieces: Vec<Piece> = levels
                .chunks(size)
                .map(|own| {
                    below += counted(own);
                    let counts = [below - counted(own), counted(own), counted(&levels)];
                    Piece::of_levels(own.iter().copied(), counts, whole.mean * 1.01)
                })
                .collect();
            let found = Distribution::from_pieces(&pieces);
            let numbers = |of: &Distribution| {
                [of.sum, of.mean, of.std, of.min, of.max, of.entropy, of.gini, of.top1, of.top5, of.top10]
            };
            for (found, expected) in numbers(&found).into_iter().zip(numbers(&whole)) {
                assert!((found - expected).abs() <= 1e-13 * expected.abs(), "{size}: {found} {expected}");
            }
        }
        assert!(Distribution::from_pieces(&[]).mean.is_nan());
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
