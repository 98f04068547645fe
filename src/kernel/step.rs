//! Measuring a whole step array in one pass: the statistics of each of its maps, and its rollups.

use super::Element;
use super::measure::{MapMeasurer, MapStatistics, Sums};
use crate::grid::Grid;
use crate::shape::StepShape;

/// What was measured of one step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepMeasures {
    /// Of each map, by (token position, block, head).
    pub maps: Vec<MapMeasure>,
    /// Mean over heads: `[block, spatial, token]`.
    pub mean_head: Vec<f32>,
    /// Mean over blocks: `[head, spatial, token]`.
    pub mean_block: Vec<f32>,
    /// Mean over both: `[spatial, token]`.
    pub mean: Vec<f32>,
}

/// The statistics of one map of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MapMeasure {
    /// Position on the token axis.
    pub token: usize,
    /// Block.
    pub block: usize,
    /// Head.
    pub head: usize,
    /// What was measured.
    pub statistics: MapStatistics,
}

/// Measures steps of one shape, reusing its tables.
#[derive(Debug)]
pub struct StepMeasurer {
    shape: StepShape,
    map: MapMeasurer,
    /// Sums over heads of the current block: `[spatial]`.
    of_block: Vec<f64>,
    /// Sums over blocks: `[head, spatial]`.
    of_heads: Vec<f64>,
}

impl StepMeasurer {
    /// A measurer for steps of `shape` whose positions lie on `grid`; without a grid they count as one row, and
    /// locations mean nothing.
    #[must_use]
    pub fn new(shape: StepShape, grid: Option<Grid>) -> Self {
        let grid = grid.unwrap_or(Grid { frames: 1, height: 1, width: shape.spatial });
        Self {
            shape,
            map: MapMeasurer::new(grid),
            of_block: vec![0.0; shape.spatial],
            of_heads: vec![0.0; shape.heads * shape.spatial],
        }
    }

    /// Measures `values` (`[block, head, spatial, token]`, C order).
    ///
    /// Sums accumulate in float64, which holds any sum of up to 8,192 float16 values exactly; means are rounded to
    /// float32 once.
    pub fn measure<T: Element>(&mut self, values: &[T]) -> StepMeasures {
        let StepShape { blocks, heads, spatial, tokens } = self.shape;
        let mut measures = StepMeasures {
            maps: Vec::with_capacity(blocks * heads * tokens),
            mean_head: vec![0.0; blocks * spatial * tokens],
            mean_block: vec![0.0; heads * spatial * tokens],
            mean: vec![0.0; spatial * tokens],
        };
        let mut gathered = Vec::new();
        for token in 0..tokens {
            self.of_heads.fill(0.0);
            for block in 0..blocks {
                self.of_block.fill(0.0);
                for (head, of_head) in self.of_heads.chunks_mut(spatial).enumerate() {
                    let start = (block * heads + head) * spatial * tokens;
                    let whole = &values[start..start + spatial * tokens];
                    let map = if tokens == 1 {
                        whole
                    } else {
                        gathered.clear();
                        gathered.extend(whole.iter().skip(token).step_by(tokens));
                        &gathered
                    };
                    let statistics = self.map.measure(map, Sums { of_block: &mut self.of_block, of_head });
                    measures.maps.push(MapMeasure { token, block, head, statistics });
                }
                let mean_head = &mut measures.mean_head[block * spatial * tokens..][..spatial * tokens];
                write_means(&self.of_block, heads, mean_head, token, tokens);
            }
            write_means(&self.of_heads, blocks, &mut measures.mean_block, token, tokens);
            self.of_block.fill(0.0);
            for of_head in self.of_heads.chunks(spatial) {
                for (total, sum) in self.of_block.iter_mut().zip(of_head) {
                    *total += sum;
                }
            }
            write_means(&self.of_block, blocks * heads, &mut measures.mean, token, tokens);
        }
        measures
    }
}

/// Writes `sums / count` to every `tokens`-th place from `token` on.
#[allow(clippy::cast_possible_truncation)] // counts are small; rounding is meant
fn write_means(sums: &[f64], count: usize, means: &mut [f32], token: usize, tokens: usize) {
    let count = count as f64;
    for (mean, sum) in means.iter_mut().skip(token).step_by(tokens).zip(sums) {
        *mean = (sum / count) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollups_are_means_along_their_axes() {
        let shape = StepShape { blocks: 2, heads: 3, spatial: 4, tokens: 2 };
        let values: Vec<f32> = (0..shape.len()).map(|i| (i * i % 17) as f32).collect();
        let measures = StepMeasurer::new(shape, None).measure(&values);
        let at = |b: usize, h: usize, s: usize, t: usize| f64::from(values[((b * 3 + h) * 4 + s) * 2 + t]);
        for s in 0..4 {
            for t in 0..2 {
                let of_block = |b: usize| (0..3).map(|h| at(b, h, s, t)).sum::<f64>();
                let of_head = |h: usize| (0..2).map(|b| at(b, h, s, t)).sum::<f64>();
                for b in 0..2 {
                    assert_eq!(measures.mean_head[(b * 4 + s) * 2 + t], f32::from_f64(of_block(b) / 3.0));
                }
                for h in 0..3 {
                    assert_eq!(measures.mean_block[(h * 4 + s) * 2 + t], f32::from_f64(of_head(h) / 2.0));
                }
                assert_eq!(measures.mean[s * 2 + t], f32::from_f64((of_block(0) + of_block(1)) / 6.0));
            }
        }
        assert_eq!(measures.maps.len(), 12);
        assert_eq!((measures.maps[7].token, measures.maps[7].block, measures.maps[7].head), (1, 0, 1));
    }
}
