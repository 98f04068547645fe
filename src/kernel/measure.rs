//! Measuring one map: its statistics, and its share in the sums that rollups are made of, in one go while it is in
//! cache.

use super::Element;
use super::accumulate::add_frame;
use super::levels::LevelCounter;
use crate::grid::Grid;
use crate::metrics::{Distribution, Location};

/// Everything measured of one map: the statistics of a row of the `heads` table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MapStatistics {
    /// Of the finite values.
    pub distribution: Distribution,
    /// Flat position of the first maximum; `None` if no value is finite.
    pub argmax: Option<usize>,
    /// Where the mass of the finite values lies.
    pub location: Location,
    /// Values that are NaN or infinite.
    pub nonfinite: u32,
}

/// Sums, position by position, that maps are added to: `[spatial]` each.
#[derive(Debug)]
pub struct Sums<'a> {
    /// Over the maps of one block.
    pub of_block: &'a mut [f64],
    /// Over the maps of one head.
    pub of_head: &'a mut [f64],
}

/// Measures maps of one grid, reusing its tables.
#[derive(Debug)]
pub struct MapMeasurer {
    grid: Grid,
    counter: LevelCounter,
    wide: Vec<f32>,
    plane: Vec<f64>,
    frame_masses: Vec<f64>,
}

impl MapMeasurer {
    /// A measurer for maps of `grid.spatial()` positions.
    #[must_use]
    pub fn new(grid: Grid) -> Self {
        Self {
            grid,
            counter: LevelCounter::new(),
            wide: Vec::new(),
            plane: vec![0.0; grid.plane()],
            frame_masses: vec![0.0; grid.frames],
        }
    }

    /// Measures `map` (`[spatial]`, C order over the grid) and adds it to `sums`, non-finite values included.
    pub fn measure<T: Element>(&mut self, map: &[T], sums: Sums<'_>) -> MapStatistics {
        let plane_size = self.grid.plane();
        self.plane.fill(0.0);
        let frames = map
            .chunks(plane_size)
            .zip(sums.of_block.chunks_mut(plane_size))
            .zip(sums.of_head.chunks_mut(plane_size))
            .zip(&mut self.frame_masses);
        for (((frame, of_block), of_head), mass) in frames {
            *mass = add_frame(T::widen(frame, &mut self.wide), of_block, of_head, &mut self.plane);
        }
        let sum_x_ln_x = T::count_levels(map, &mut self.counter);
        let distribution = Distribution::from_levels(&self.counter.levels, sum_x_ln_x);
        if self.counter.nonfinite > 0 {
            self.sum_finite(map);
        }
        let has_location = distribution.sum > 0.0 && distribution.min >= 0.0;
        MapStatistics {
            distribution,
            argmax: if distribution.max.is_nan() { None } else { T::find(map, distribution.max) },
            location: if has_location {
                Location::from_marginals(self.grid, &self.frame_masses, &self.plane)
            } else {
                Location::undefined()
            },
            nonfinite: self.counter.nonfinite,
        }
    }

    /// The marginal sums again, over the finite values only.
    fn sum_finite<T: Element>(&mut self, map: &[T]) {
        self.plane.fill(0.0);
        for (frame, mass) in map.chunks(self.grid.plane()).zip(&mut self.frame_masses) {
            *mass = 0.0;
            for (value, place) in frame.iter().zip(&mut self.plane) {
                let value = value.to_f64();
                if value.is_finite() {
                    *place += value;
                    *mass += value;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;
    use proptest::prelude::*;

    use super::*;

    /// The definitions of the store format, written down plainly.
    fn reference(map: &[f64], grid: Grid) -> (f64, f64, f64, f64) {
        let finite: Vec<(usize, f64)> = map.iter().copied().enumerate().filter(|(_, x)| x.is_finite()).collect();
        let sum: f64 = finite.iter().map(|(_, x)| x).sum();
        let entropy = -finite.iter().filter(|(_, x)| *x > 0.0).map(|(_, x)| x / sum * (x / sum).ln()).sum::<f64>();
        let mut sorted: Vec<f64> = finite.iter().map(|(_, x)| *x).collect();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len() as f64;
        let ranked: f64 = sorted.iter().enumerate().map(|(i, x)| (i + 1) as f64 * x).sum();
        let gini = 2.0 * ranked / (n * sum) - (n + 1.0) / n;
        let mean =
            |coordinate: &dyn Fn(usize) -> f64| finite.iter().map(|&(i, x)| coordinate(i) * x).sum::<f64>() / sum;
        let (y, x) = (mean(&|i| grid.position(i).1 as f64), mean(&|i| grid.position(i).2 as f64));
        let spread =
            mean(&|i| (grid.position(i).1 as f64 - y).powi(2) + (grid.position(i).2 as f64 - x).powi(2)).sqrt();
        (entropy, gini, y, spread)
    }

    proptest! {
        #[test]
        fn statistics_are_those_of_the_definitions(
            bits in proptest::collection::vec(
                prop_oneof![8 => 0u16..0x3C00, 1 => Just(0x7C00u16), 1 => Just(0x7E01u16)], 30,
            )
        ) {
            let grid = Grid { frames: 2, height: 3, width: 5 };
            let map: Vec<f16> = bits.iter().copied().map(f16::from_bits).collect();
            let wide: Vec<f64> = map.iter().map(|value| value.to_f64()).collect();
            let mut sums = [vec![0.0; 30], vec![0.0; 30]];
            let [of_block, of_head] = &mut sums;
            let half = MapMeasurer::new(grid).measure(&map, Sums { of_block, of_head });
            for (sum, value) in sums[0].iter().zip(&wide) {
                prop_assert!(sum == value || (sum.is_nan() && value.is_nan()));
            }
            prop_assert_eq!(half.nonfinite as usize, wide.iter().filter(|x| !x.is_finite()).count());
            if wide.iter().any(|x| x.is_finite() && *x > 0.0) {
                let (entropy, gini, y, spread) = reference(&wide, grid);
                let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * (1.0 + b.abs());
                prop_assert!(close(half.distribution.entropy, entropy), "{} {}", half.distribution.entropy, entropy);
                prop_assert!(close(half.distribution.gini, gini));
                prop_assert!(close(half.location.centroid_y, y));
                prop_assert!((half.location.spread - spread).abs() <= 1e-6);
            }
            let [of_block, of_head] = &mut [vec![0.0; 30], vec![0.0; 30]];
            let double = MapMeasurer::new(grid).measure(&wide, Sums { of_block, of_head });
            prop_assert_eq!(half.argmax, double.argmax);
            prop_assert_eq!(half.nonfinite, double.nonfinite);
        }
    }
}
