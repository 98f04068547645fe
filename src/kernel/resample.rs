//! Interpolation of a map to another grid: latent positions to pixels and frames.

use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::reduce::{narrow, vectorised};
use crate::grid::Grid;

/// Where latent frames lie in the frames of the video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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

/// A map on another grid, a few rows at a time as they are asked for: rows and columns are interpolated linearly,
/// frames by their placement.
///
/// Cells are areas, not points: the centre of target cell i lies at (i + ½) · n / m − ½ in source cells, and values are
/// extended beyond the outermost centres. This is `torch.nn.functional.interpolate` with `mode="bilinear",
/// align_corners=False`, and evenly placed frames are those of `mode="trilinear"`. Intensities are kept, not sums.
/// Cells of a pooled map lie where the cells were that they came of, and those at the far edges have the intensity of
/// these. All is computed in float64, along columns, rows and frames in this order, and rounded once.
#[derive(Debug, Clone)]
pub struct Resampled {
    to: Grid,
    /// The map with its columns resampled already, `[latent frame, latent row, column]`: the smaller part of the work.
    columns: Vec<f64>,
    /// Rows of a latent frame.
    height: usize,
    rows: Vec<Between>,
    frames: Vec<Between>,
}

impl Resampled {
    /// Of values `[frames, height, width]`. A causal placement must [fit](FramePlacement::fits).
    #[must_use]
    pub fn new(values: &[f32], from: Grid, to: Grid, placement: FramePlacement, pooling: Option<Pooling>) -> Self {
        let axis = |count: usize, whole: fn(Pooling) -> usize| match pooling {
            Some(pooling) => Axis { count, factor: pooling.factor, whole: whole(pooling) },
            None => Axis::plain(count),
        };
        let of_columns = axis(from.width, |pooling| pooling.width).onto(to.width);
        let mut columns = Vec::with_capacity(from.frames * from.height * to.width);
        for row in values.chunks_exact(from.width) {
            columns.extend(of_columns.iter().map(|at| at.blend(row[at.low].into(), row[at.high].into())));
        }
        let frames = match placement {
            FramePlacement::Even => Axis::plain(from.frames).onto(to.frames),
            FramePlacement::Causal => {
                let stride = (to.frames - 1).checked_div(from.frames - 1).unwrap_or(to.frames).max(1);
                let latent = |frame: usize| frame.div_ceil(stride).min(from.frames - 1);
                (0..to.frames).map(|frame| Between::only(latent(frame), 1.0)).collect()
            }
        };
        let rows = axis(from.height, |pooling| pooling.height).onto(to.height);
        Self { to, columns, height: from.height, rows, frames }
    }

    /// The grid that it is on.
    #[must_use]
    pub const fn grid(&self) -> Grid {
        self.to
    }

    /// All values, C order. Frames are computed in parallel.
    #[must_use]
    pub fn whole(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.to.spatial()];
        let of_frames = values.par_chunks_mut(self.to.plane().max(1)).enumerate();
        of_frames.for_each(|(frame, target)| self.rows(frame, 0..self.to.height, target));
        values
    }

    /// Frames that are equal one after the other: the first, and how many they are.
    #[must_use]
    pub fn runs(&self) -> Vec<(usize, usize)> {
        let mut frame = 0;
        let run = |same: &[Between]| {
            frame += same.len();
            (frame - same.len(), same.len())
        };
        self.frames.chunk_by(|a, b| a == b).map(run).collect()
    }

    /// Some rows of one frame, `[row, column]`.
    pub fn rows(&self, frame: usize, rows: Range<usize>, target: &mut [f32]) {
        let (Some(of_frame), Some(rows)) = (self.frames.get(frame), self.rows.get(rows)) else { return };
        for (at, target) in rows.iter().zip(target.chunks_exact_mut(self.to.width.max(1))) {
            let row = |frame: usize, row: usize| {
                &self.columns[(frame * self.height + row) * self.to.width..][..self.to.width]
            };
            let (above, below) = (row(of_frame.low, at.low), row(of_frame.low, at.high));
            if of_frame.share == 0.0 {
                vectorised(|| {
                    for ((value, above), below) in target.iter_mut().zip(above).zip(below) {
                        *value = narrow(of_frame.blend(at.blend(*above, *below), 0.0));
                    }
                });
                continue;
            }
            let (later_above, later_below) = (row(of_frame.high, at.low), row(of_frame.high, at.high));
            vectorised(|| {
                let later = later_above.iter().zip(later_below);
                for (((value, above), below), later) in target.iter_mut().zip(above).zip(below).zip(later) {
                    *value = narrow(of_frame.blend(at.blend(*above, *below), at.blend(*later.0, *later.1)));
                }
            });
        }
    }
}

/// Rows of a resampled map, asked for a band at a time, of one frame after the other: what frames have in common is
/// computed once.
#[derive(Debug)]
pub(super) struct Bands<'a> {
    map: &'a Resampled,
    /// Rows of two latent frames, `[row, column]`.
    latent: [Latent; 2],
}

#[derive(Debug, Default)]
struct Latent {
    /// Which they are: latent frame, and rows of the target.
    is: Option<(usize, Range<usize>)>,
    values: Vec<f64>,
}

impl<'a> Bands<'a> {
    pub fn of(map: &'a Resampled) -> Self {
        Self { map, latent: Default::default() }
    }

    /// As [`Resampled::rows`].
    pub fn rows(&mut self, frame: usize, rows: Range<usize>, target: &mut [f32]) {
        let Self { map, latent: [earlier, later] } = self;
        let Some(of_frame) = map.frames.get(frame) else { return };
        let is = |latent: usize| Some((latent, rows.clone()));
        if later.is == is(of_frame.low) {
            std::mem::swap(earlier, later);
        }
        earlier.become_rows(map, of_frame.low, &rows);
        if of_frame.share == 0.0 {
            return vectorised(|| {
                target
                    .iter_mut()
                    .zip(&earlier.values)
                    .for_each(|(value, own)| *value = narrow(of_frame.blend(*own, 0.0)));
            });
        }
        later.become_rows(map, of_frame.high, &rows);
        vectorised(|| {
            for ((value, earlier), later) in target.iter_mut().zip(&earlier.values).zip(&later.values) {
                *value = narrow(of_frame.blend(*earlier, *later));
            }
        });
    }
}

impl Latent {
    fn become_rows(&mut self, map: &Resampled, frame: usize, rows: &Range<usize>) {
        let is = Some((frame, rows.clone()));
        if self.is == is {
            return;
        }
        self.is = is;
        let width = map.to.width;
        self.values.resize(rows.len() * width, 0.0);
        let of_rows = map.rows.get(rows.clone()).unwrap_or_default();
        for (at, target) in of_rows.iter().zip(self.values.chunks_exact_mut(width.max(1))) {
            let row = |row: usize| &map.columns[(frame * map.height + row) * width..][..width];
            let (above, below) = (row(at.low), row(at.high));
            vectorised(|| {
                for ((value, above), below) in target.iter_mut().zip(above).zip(below) {
                    *value = at.blend(*above, *below);
                }
            });
        }
    }
}

/// What a cell is between: two cells of another axis, and how far it is from the first to the second.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Between {
    low: usize,
    high: usize,
    /// Of the second; 0 if it does not count.
    share: f64,
    /// What the values of both are multiplied by.
    weights: [f64; 2],
}

impl Between {
    const fn only(low: usize, weight: f64) -> Self {
        Self { low, high: low, share: 0.0, weights: [weight, weight] }
    }

    #[inline(always)]
    fn blend(&self, low: f64, high: f64) -> f64 {
        let low = low * self.weights[0];
        if self.share == 0.0 { low } else { low * (1.0 - self.share) + high * self.weights[1] * self.share }
    }
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

    /// What the cells of an axis of `to` equal ones over the same length are between.
    fn onto(self, to: usize) -> Vec<Between> {
        if self == Self::plain(to) {
            return (0..to).map(|cell| Between::only(cell, 1.0)).collect();
        }
        let centres: Vec<f64> = (0..self.count).map(|cell| self.centre(cell)).collect();
        let weight = |cell: usize| self.factor as f64 / self.width(cell);
        let between = |index: usize| {
            let place = (index as f64 + 0.5) * self.whole as f64 / to as f64;
            let above = centres.partition_point(|&centre| centre <= place);
            let (low, high) = (above.saturating_sub(1), above.min(self.count - 1));
            let span = centres[high] - centres[low];
            let share = if span > 0.0 { (place - centres[low]) / span } else { 0.0 };
            Between { low, high, share, weights: [weight(low), weight(high)] }
        };
        (0..to).map(between).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resample(values: &[f32], from: Grid, to: Grid, placement: FramePlacement, pooling: Option<Pooling>) -> Vec<f32> {
        Resampled::new(values, from, to, placement, pooling).whole()
    }

    /// The plain way: one axis of the whole map after the other, each entry of `inner` values.
    fn along(values: &[f64], axis: Axis, to: usize, inner: usize) -> Vec<f64> {
        let mut result = Vec::new();
        for outer in values.chunks_exact(axis.count * inner) {
            for at in axis.onto(to) {
                let (lower, upper) = (&outer[at.low * inner..][..inner], &outer[at.high * inner..][..inner]);
                result.extend(lower.iter().zip(upper).map(|(a, b)| {
                    let a = a * at.weights[0];
                    if at.share == 0.0 { a } else { a * (1.0 - at.share) + b * at.weights[1] * at.share }
                }));
            }
        }
        result
    }

    proptest! {
        #[test]
        fn rows_as_they_are_asked_for_are_those_of_one_axis_after_the_other(
            from in (1usize..5, 1usize..6, 1usize..6),
            to in (1usize..9, 1usize..12, 1usize..12),
            values in proptest::collection::vec(-1e3f32..1e3, 100),
            factor in 1usize..4,
            left in 0usize..3,
        ) {
            let grid = |(frames, height, width)| Grid { frames, height, width };
            let (from, to) = (grid(from), grid(to));
            let whole = |count: usize| count * factor - left.min(factor - 1);
            let pooling = Pooling { factor, height: whole(from.height), width: whole(from.width) };
            let values = &values[..from.spatial()];
            let wide: Vec<f64> = values.iter().copied().map(f64::from).collect();
            let axis = |count: usize| Axis { count, factor, whole: whole(count) };
            let columns = along(&wide, axis(from.width), to.width, 1);
            let rows = along(&columns, axis(from.height), to.height, to.width);
            let frames = along(&rows, Axis::plain(from.frames), to.frames, to.plane());
            let expected: Vec<u32> = frames.into_iter().map(|value| narrow(value).to_bits()).collect();
            let resampled = Resampled::new(values, from, to, FramePlacement::Even, Some(pooling));
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&resampled.whole()), &expected[..]);
            let mut bands = Bands::of(&resampled);
            for rows in [0..to.height, to.height / 2..to.height] {
                for frame in (0..to.frames).chain((0..to.frames).rev()) {
                    let mut band = vec![0.0; rows.len() * to.width];
                    bands.rows(frame, rows.clone(), &mut band);
                    let start = frame * to.plane();
                    prop_assert_eq!(bits(&band), &expected[start + rows.start * to.width..start + rows.end * to.width]);
                }
            }
            for (first, count) in resampled.runs() {
                for frame in first..first + count {
                    let mut row = vec![0.0; to.width];
                    resampled.rows(first, to.height - 1..to.height, &mut row);
                    let end = (frame + 1) * to.plane();
                    prop_assert_eq!(bits(&row), &expected[end - to.width..end]);
                }
            }
        }
    }

    #[test]
    fn pixels_lie_between_the_centres_of_cells() {
        let from = Grid { frames: 1, height: 1, width: 2 };
        let resample = |values: &[f32], from, to| resample(values, from, to, FramePlacement::Even, None);
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
