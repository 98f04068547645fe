//! A map that is compared with others: what metrics need of it alone, each computed once.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::Metric;
use super::formulas::{cumulate, dot, sum_over};
use super::windows::{sample_covariance, window_means, window_size};
use crate::grid::Grid;
use crate::metrics::Location;

/// A map that is compared with others: what a metric needs of it alone is computed once, when it is first asked for.
///
/// Maps can be compared from several threads at once.
#[derive(Debug)]
pub struct Measured<'a> {
    pub(super) values: &'a [f32],
    pub(super) grid: Option<Grid>,
    totals: OnceLock<Option<Totals>>,
    squared_deviations: OnceLock<Option<f64>>,
    ranks: OnceLock<Option<Ranks>>,
    placement: OnceLock<Option<Placement>>,
    windows: OnceLock<Option<Windows>>,
    /// Few: one for every metric with a parameter that was asked for.
    regions: Mutex<Vec<(Metric, Arc<Region>)>>,
}

/// Sums and range of a map whose values are all finite.
#[derive(Debug, Clone, Copy)]
pub(super) struct Totals {
    pub(super) sum: f64,
    pub(super) mean: f64,
    /// Σ x².
    pub(super) squares: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Totals {
    /// Σ x, if it makes x / Σ x a distribution.
    pub(super) fn mass(self) -> Option<f64> {
        (self.min >= 0.0 && self.sum > 0.0).then_some(self.sum)
    }
}

/// Average ranks, less their mean.
#[derive(Debug)]
pub(super) struct Ranks {
    pub(super) centred: Vec<f64>,
    pub(super) squares: f64,
}

/// Where the mass lies on the grid.
#[derive(Debug)]
pub(super) struct Placement {
    pub(super) location: Location,
    /// The part of the mass up to each frame, row and column.
    pub(super) cumulated: [Vec<f64>; 3],
}

/// Means and sample variances of all square windows within frames, of the values less the mean of the map.
#[derive(Debug)]
pub(super) struct Windows {
    pub(super) means: Vec<f64>,
    pub(super) variances: Vec<f64>,
}

/// A set of positions, one bit for each.
#[derive(Debug)]
pub(super) struct Region {
    words: Vec<u64>,
    pub(super) count: u32,
}

impl Region {
    pub(super) fn new(values: &[f32], admits: impl Fn(f32) -> bool) -> Self {
        let word = |values: &[f32]| {
            let bits = values.iter().enumerate();
            bits.fold(0, |bits, (bit, &value)| bits | (u64::from(admits(value)) << bit))
        };
        let words: Vec<u64> = values.chunks(64).map(word).collect();
        let count = words.iter().map(|word| word.count_ones()).sum();
        Self { words, count }
    }

    /// Number of positions in both.
    pub(super) fn shared(&self, other: &Self) -> u32 {
        self.words.iter().zip(&other.words).map(|(a, b)| (a & b).count_ones()).sum()
    }
}

impl<'a> Measured<'a> {
    /// A map of `[spatial]` values, in C order over `grid`.
    ///
    /// Without a grid, or with one of another number of positions, the metrics that need one are NaN.
    #[must_use]
    pub fn new(values: &'a [f32], grid: Option<Grid>) -> Self {
        Self {
            values,
            grid: grid.filter(|grid| grid.spatial() == values.len()),
            totals: OnceLock::new(),
            squared_deviations: OnceLock::new(),
            ranks: OnceLock::new(),
            placement: OnceLock::new(),
            windows: OnceLock::new(),
            regions: Mutex::new(Vec::new()),
        }
    }

    /// `None` if there are no values or not all are finite.
    pub(super) fn totals(&self) -> Option<Totals> {
        *self.totals.get_or_init(|| {
            if self.values.is_empty() || !self.values.iter().all(|value| value.is_finite()) {
                return None;
            }
            let sum = sum_over(self.values, self.values, |x, _| x);
            Some(Totals {
                sum,
                mean: sum / self.values.len() as f64,
                squares: dot(self.values, self.values),
                min: self.values.iter().copied().fold(f32::INFINITY, f32::min).into(),
                max: self.values.iter().copied().fold(f32::NEG_INFINITY, f32::max).into(),
            })
        })
    }

    /// Σ (x − x̄)², `None` if all values are the same.
    pub(super) fn squared_deviations(&self) -> Option<f64> {
        *self.squared_deviations.get_or_init(|| {
            let Totals { mean, min, max, .. } = self.totals()?;
            (min < max).then(|| sum_over(self.values, self.values, |x, _| (x - mean) * (x - mean)))
        })
    }

    /// `None` if all values are the same.
    pub(super) fn ranks(&self) -> Option<&Ranks> {
        let ranks = self.ranks.get_or_init(|| {
            self.squared_deviations()?;
            let mut order: Vec<usize> = (0..self.values.len()).collect();
            order.sort_unstable_by(|&i, &j| self.values[i].total_cmp(&self.values[j]));
            let mean = f64::midpoint(self.values.len() as f64, 1.0);
            let mut centred = vec![0.0; self.values.len()];
            let mut below = 0;
            for equal in order.chunk_by(|&i, &j| self.values[i] == self.values[j]) {
                // The ranks below + 1 … below + equal.len() have this mean.
                let rank = below as f64 + f64::midpoint(equal.len() as f64, 1.0);
                for &position in equal {
                    centred[position] = rank - mean;
                }
                below += equal.len();
            }
            let squares = dot(&centred, &centred);
            Some(Ranks { centred, squares })
        });
        ranks.as_ref()
    }

    /// `None` without a grid or without a distribution of mass.
    pub(super) fn placement(&self) -> Option<&Placement> {
        let placement = self.placement.get_or_init(|| {
            let grid = self.grid?;
            self.totals()?.mass()?;
            let mut frames = Vec::with_capacity(grid.frames);
            let mut plane = vec![0.0; grid.plane()];
            for frame in self.values.chunks_exact(grid.plane()) {
                frames.push(frame.iter().copied().map(f64::from).sum());
                for (mass, &value) in plane.iter_mut().zip(frame) {
                    *mass += f64::from(value);
                }
            }
            let mut rows = Vec::with_capacity(grid.height);
            let mut columns = vec![0.0; grid.width];
            for row in plane.chunks_exact(grid.width) {
                rows.push(row.iter().sum());
                for (column, mass) in columns.iter_mut().zip(row) {
                    *column += mass;
                }
            }
            let location = Location::from_marginals(grid, &frames, &plane);
            Some(Placement { location, cumulated: [frames, rows, columns].map(cumulate) })
        });
        placement.as_ref()
    }

    /// `None` without a grid or if a frame is smaller than 3 × 3.
    pub(super) fn windows(&self) -> Option<&Windows> {
        let windows = self.windows.get_or_init(|| {
            let grid = self.grid?;
            let size = window_size(grid)?;
            let deviations: Vec<f64> = self.deviations()?.collect();
            let means = window_means(&deviations, grid, size);
            let squares: Vec<f64> = deviations.iter().map(|x| x * x).collect();
            let mut variances = window_means(&squares, grid, size);
            for (variance, mean) in variances.iter_mut().zip(&means) {
                *variance = sample_covariance(*variance, *mean, *mean, size);
            }
            Some(Windows { means, variances })
        });
        windows.as_ref()
    }

    pub(super) fn deviations(&self) -> Option<impl Iterator<Item = f64>> {
        let mean = self.totals()?.mean;
        Some(self.values.iter().map(move |&x| f64::from(x) - mean))
    }

    /// The positions whose value is above the quantile, which is found as `numpy.quantile` does, to the last bit.
    /// `None` if all values are the same.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // an index
    pub(super) fn above_quantile(&self, quantile: f64) -> Option<Arc<Region>> {
        if !(0.0..1.0).contains(&quantile) {
            return None;
        }
        self.region(Metric::Iou { quantile }, || {
            let index = (self.values.len() as f64 - 1.0) * quantile;
            let part = index.fract();
            let mut values = self.values.to_vec();
            let (_, low, higher) = values.select_nth_unstable_by(index as usize, f32::total_cmp);
            let low = f64::from(*low);
            let high = higher.iter().copied().min_by(f32::total_cmp).map_or(low, f64::from);
            let threshold = if part < 0.5 { low + (high - low) * part } else { high - (high - low) * (1.0 - part) };
            self.above(threshold)
        })
    }

    /// The ⌈fraction · n⌉ positions with the highest values, but for those whose value is the next one's, too. `None`
    /// if all values are the same, and not all are meant.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count
    pub(super) fn highest(&self, fraction: f64) -> Option<Arc<Region>> {
        if !(fraction > 0.0 && fraction <= 1.0) {
            return None;
        }
        self.region(Metric::TopK { fraction }, || {
            // In binary 0.1 · 30 is a little more than 3: what rounding can have added does not count.
            let count = (fraction * self.values.len() as f64 * (1.0 - 2.0 * f64::EPSILON)).ceil() as usize;
            let mut values = self.values.to_vec();
            if count >= values.len() {
                return Some(Region::new(self.values, |_| true));
            }
            let (_, next, _) = values.select_nth_unstable_by(count, |x, y| y.total_cmp(x));
            let next = *next;
            self.above(next.into())
        })
    }

    /// The positions whose value is above the threshold, or if none is those that are at it.
    pub(super) fn above(&self, threshold: f64) -> Option<Region> {
        let Totals { min, max, .. } = self.totals()?;
        let region = || {
            Region::new(self.values, |value| {
                if max > threshold { f64::from(value) > threshold } else { f64::from(value) >= max }
            })
        };
        (min < max).then(region)
    }

    pub(super) fn region(&self, metric: Metric, find: impl FnOnce() -> Option<Region>) -> Option<Arc<Region>> {
        self.totals()?;
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, region)) = regions.iter().find(|(known, _)| *known == metric) {
            return Some(Arc::clone(region));
        }
        let region = Arc::new(find()?);
        regions.push((metric, Arc::clone(&region)));
        Some(region)
    }
}
