//! Linear interpolation of a map to another grid: latent positions to pixels and frames.

use crate::grid::Grid;

/// Resamples `[frames, height, width]` to another grid, linearly along each axis.
///
/// Cells are areas, not points: the centre of target cell i lies at (i + ½) · n / m − ½ in source cells, and values are extended
/// beyond the outermost centres. This is `torch.nn.functional.interpolate` with `mode="trilinear", align_corners=False`.
/// Intensities are kept, not sums.
#[must_use]
pub fn resample(values: &[f32], from: Grid, to: Grid) -> Vec<f32> {
    let values: Vec<f64> = values.iter().copied().map(f64::from).collect();
    let columns = along(&values, from.width, to.width, 1);
    let rows = along(&columns, from.height, to.height, to.width);
    let frames = along(&rows, from.frames, to.frames, to.plane());
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
        assert_eq!(resample(&[0.0, 1.0], from, Grid { width: 4, ..from }), [0.0, 0.25, 0.75, 1.0]);
        let square = Grid { frames: 2, height: 2, width: 2 };
        let values: Vec<f32> = (0..8u8).map(f32::from).collect();
        assert_eq!(resample(&values, square, square), values);
        let middle = resample(&values, square, Grid { frames: 1, height: 1, width: 1 });
        assert_eq!(middle, [3.5]);
    }
}
