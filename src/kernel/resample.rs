//! Interpolation of a map to another grid: latent positions to pixels and frames.

use serde::{Deserialize, Serialize};

use crate::grid::Grid;

/// Where latent frames lie in the frames of the video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum FramePlacement {
    /// As a causal VAE decodes them: latent frame 0 is frame 0, and latent frame k ≥ 1 stands for the s frames s(k − 1)
    /// + 1 to sk, with s = (N − 1) / (T − 1) of N frames and T latent ones: 4 for WAN, 8 for LTX.
    #[default]
    Causal,
    /// All of one length, and frames between their centres interpolated.
    Even,
}

impl FramePlacement {
    /// Whether `to` frames can come of `from` latent ones.
    #[must_use]
    pub const fn fits(self, from: usize, to: usize) -> bool {
        match self {
            Self::Even => true,
            Self::Causal => from < 2 || (to >= from && (to - 1).is_multiple_of(from - 1)),
        }
    }
}

/// How a map's rows and columns came of finer ones: each of its cells is the sum over `factor` x `factor` cells, over
/// `factor`². Those at the far edges may have fewer of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pooling {
    /// Cells that became one, along each axis.
    pub factor: usize,
    /// Rows there were.
    pub height: usize,
    /// Columns there were.
    pub width: usize,
}

/// Resamples `[frames, height, width]` to another grid: rows and columns linearly, frames by their placement.
///
/// Cells are areas, not points: the centre of target cell i lies at (i + ½) · n / m − ½ in source cells, and values are
/// extended beyond the outermost centres. This is `torch.nn.functional.interpolate` with
/// `mode="bilinear", align_corners=False`, and evenly placed frames are those of `mode="trilinear"`. Intensities are
/// kept, not sums. A causal placement must [fit](FramePlacement::fits). Cells of a pooled map lie where the cells were
/// that they came of, and those at the far edges have the intensity of these.
#[must_use]
pub fn resample(values: &[f32], from: Grid, to: Grid, placement: FramePlacement, pooling: Option<Pooling>) -> Vec<f32> {
    let values: Vec<f64> = values.iter().copied().map(f64::from).collect();
    let axis = |count: usize, whole: fn(Pooling) -> usize| match pooling {
        Some(pooling) => Axis { count, factor: pooling.factor, whole: whole(pooling) },
        None => Axis::plain(count),
    };
    let columns = along(&values, axis(from.width, |pooling| pooling.width), to.width, 1);
    let rows = along(&columns, axis(from.height, |pooling| pooling.height), to.height, to.width);
    let frames = match placement {
        FramePlacement::Even => along(&rows, Axis::plain(from.frames), to.frames, to.plane()),
        FramePlacement::Causal => {
            let stride = (to.frames - 1).checked_div(from.frames - 1).unwrap_or(to.frames).max(1);
            let latent = |frame: usize| frame.div_ceil(stride).min(from.frames - 1) * to.plane();
            (0..to.frames).flat_map(|frame| rows[latent(frame)..][..to.plane()].iter().copied()).collect()
        }
    };
    #[allow(clippy::cast_possible_truncation)] // rounding is meant
    frames.into_iter().map(|value| value as f32).collect()
}

/// Cells along an axis, and what they cover.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Axis {
    /// Cells.
    count: usize,
    /// Finer cells in each, but for the last one.
    factor: usize,
    /// Finer cells in all.
    whole: usize,
}

impl Axis {
    const fn plain(count: usize) -> Self {
        Self { count, factor: 1, whole: count }
    }

    /// Finer cells in a cell.
    fn width(self, cell: usize) -> f64 {
        (self.whole.min((cell + 1) * self.factor).saturating_sub(cell * self.factor)).max(1) as f64
    }

    /// Where the middle of a cell is, in finer cells.
    fn centre(self, cell: usize) -> f64 {
        (cell * self.factor) as f64 + self.width(cell) / 2.0
    }
}

/// Resamples an axis, each entry of `inner` values.
fn along(values: &[f64], axis: Axis, to: usize, inner: usize) -> Vec<f64> {
    if axis == Axis::plain(to) {
        return values.to_vec();
    }
    let centres: Vec<f64> = (0..axis.count).map(|cell| axis.centre(cell)).collect();
    let weights: Vec<f64> = (0..axis.count).map(|cell| axis.factor as f64 / axis.width(cell)).collect();
    let mut result = Vec::with_capacity(values.len() / axis.count.max(1) * to);
    for outer in values.chunks_exact(axis.count * inner) {
        for index in 0..to {
            let place = (index as f64 + 0.5) * axis.whole as f64 / to as f64;
            let above = centres.partition_point(|&centre| centre <= place);
            let (low, high) = (above.saturating_sub(1), above.min(axis.count - 1));
            let span = centres[high] - centres[low];
            let share = if span > 0.0 { (place - centres[low]) / span } else { 0.0 };
            let (lower, upper) = (&outer[low * inner..][..inner], &outer[high * inner..][..inner]);
            result.extend(lower.iter().zip(upper).map(|(a, b)| {
                let a = a * weights[low];
                if share == 0.0 { a } else { a * (1.0 - share) + b * weights[high] * share }
            }));
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_lie_between_the_centres_of_cells() {
        let from = Grid { frames: 1, height: 1, width: 2 };
        let resample = |values: &[f32], from, to| super::resample(values, from, to, FramePlacement::Even, None);
        assert_eq!(resample(&[0.0, 1.0], from, Grid { width: 4, ..from }), [0.0, 0.25, 0.75, 1.0]);
        let square = Grid { frames: 2, height: 2, width: 2 };
        let values: Vec<f32> = (0..8u8).map(f32::from).collect();
        assert_eq!(resample(&values, square, square), values);
        let middle = resample(&values, square, Grid { frames: 1, height: 1, width: 1 });
        assert_eq!(middle, [3.5]);
    }

    #[test]
    fn cells_of_pooled_maps_lie_where_they_came_from() {
        // Seven columns of 1, pooled by 4: the last cell has three of them.
        let (from, whole) = (Grid { frames: 1, height: 1, width: 2 }, Grid { frames: 1, height: 1, width: 7 });
        let pooling = Some(Pooling { factor: 4, height: 1, width: 7 });
        let pooled = |values: &[f32], to| resample(values, from, to, FramePlacement::Causal, pooling);
        // Its one row came of one row, of four that a cell has.
        assert_eq!(pooled(&[0.25, 0.75 * 0.25], whole), [1.0; 7]);
        // The middles are at 2 and 5.5; target columns at 0.5, 1.5, …
        let ramp = pooled(&[0.0, 0.75 * 0.25], whole);
        assert_eq!((ramp[1], ramp[6]), (0.0, 1.0));
        assert!((ramp[3] - (3.5 - 2.0) / 3.5).abs() < 1e-6, "{ramp:?}");
    }

    #[test]
    fn causal_frames_are_those_that_the_vae_decodes_of_a_latent_one() {
        let (from, to) = (Grid { frames: 4, height: 1, width: 1 }, |frames| Grid { frames, height: 1, width: 1 });
        let causal = |values: &[f32], frames| resample(values, from, to(frames), FramePlacement::Causal, None);
        let values = [0.0, 1.0, 2.0, 3.0];
        assert_eq!(causal(&values, 13), [0.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0]);
        assert_eq!(causal(&values, 4), values);
        assert_eq!(resample(&[5.0], to(1), to(3), FramePlacement::Causal, None), [5.0; 3]);
        let fits = |frames| FramePlacement::Causal.fits(4, frames);
        assert_eq!((fits(13), fits(25), fits(4), fits(12), fits(2)), (true, true, true, false, false));
    }
}
