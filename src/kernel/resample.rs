//! Interpolation of a map to another grid: latent positions to pixels and frames.

use serde::{Deserialize, Serialize};

use crate::grid::Grid;

/// Where latent frames lie in the frames of the video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FramePlacement {
    /// As a causal VAE decodes them: latent frame 0 is frame 0, and latent frame k ≥ 1 stands for the s frames s(k − 1) + 1 to sk, with
    /// s = (N − 1) / (T − 1) of N frames and T latent ones: 4 for WAN, 8 for LTX.
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

/// Resamples `[frames, height, width]` to another grid: rows and columns linearly, frames by their placement.
///
/// Cells are areas, not points: the centre of target cell i lies at (i + ½) · n / m − ½ in source cells, and values are extended
/// beyond the outermost centres. This is `torch.nn.functional.interpolate` with `mode="bilinear", align_corners=False`, and evenly
/// placed frames are those of `mode="trilinear"`. Intensities are kept, not sums. A causal placement must [fit](FramePlacement::fits).
#[must_use]
pub fn resample(values: &[f32], from: Grid, to: Grid, placement: FramePlacement) -> Vec<f32> {
    let values: Vec<f64> = values.iter().copied().map(f64::from).collect();
    let columns = along(&values, from.width, to.width, 1);
    let rows = along(&columns, from.height, to.height, to.width);
    let frames = match placement {
        FramePlacement::Even => along(&rows, from.frames, to.frames, to.plane()),
        FramePlacement::Causal => {
            let stride = (to.frames - 1).checked_div(from.frames - 1).unwrap_or(to.frames).max(1);
            let latent = |frame: usize| frame.div_ceil(stride).min(from.frames - 1) * to.plane();
            (0..to.frames).flat_map(|frame| rows[latent(frame)..][..to.plane()].iter().copied()).collect()
        }
    };
    #[allow(clippy::cast_possible_truncation)] // rounding is meant
    frames.into_iter().map(|value| value as f32).collect()
}

/// Resamples the axis of `from` entries, each of `inner` values.
fn along(values: &[f64], from: usize, to: usize, inner: usize) -> Vec<f64> {
    if from == to {
        return values.to_vec();
    }
    let mut result = Vec::with_capacity(values.len() / from.max(1) * to);
    for outer in values.chunks_exact(from * inner) {
        for index in 0..to {
            let centre = ((index as f64 + 0.5) * from as f64 / to as f64 - 0.5).clamp(0.0, (from - 1) as f64);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within 0 and from
            let below = centre as usize;
            let share = centre - below as f64;
            let (lower, upper) =
                (&outer[below * inner..][..inner], &outer[(below + 1).min(from - 1) * inner..][..inner]);
            result.extend(
                lower.iter().zip(upper).map(|(a, b)| if share == 0.0 { *a } else { a * (1.0 - share) + b * share }),
            );
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
        let resample = |values: &[f32], from, to| super::resample(values, from, to, FramePlacement::Even);
        assert_eq!(resample(&[0.0, 1.0], from, Grid { width: 4, ..from }), [0.0, 0.25, 0.75, 1.0]);
        let square = Grid { frames: 2, height: 2, width: 2 };
        let values: Vec<f32> = (0..8u8).map(f32::from).collect();
        assert_eq!(resample(&values, square, square), values);
        let middle = resample(&values, square, Grid { frames: 1, height: 1, width: 1 });
        assert_eq!(middle, [3.5]);
    }

    #[test]
    fn causal_frames_are_those_that_the_vae_decodes_of_a_latent_one() {
        let (from, to) = (Grid { frames: 4, height: 1, width: 1 }, |frames| Grid { frames, height: 1, width: 1 });
        let causal = |values: &[f32], frames| resample(values, from, to(frames), FramePlacement::Causal);
        let values = [0.0, 1.0, 2.0, 3.0];
        assert_eq!(causal(&values, 13), [0.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0]);
        assert_eq!(causal(&values, 4), values);
        assert_eq!(resample(&[5.0], to(1), to(3), FramePlacement::Causal), [5.0; 3]);
        let fits = |frames| FramePlacement::Causal.fits(4, frames);
        assert_eq!((fits(13), fits(25), fits(4), fits(12), fits(2)), (true, true, true, false, false));
    }
}
