//! Where a map's mass lies on the latent grid.

use crate::grid::Grid;

/// Centre and extent of a map's mass, in grid cells counted from 0.
///
/// NaN where undefined: no mass or a negative value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Location {
    /// Σ p · frame, with p = x / Σ x.
    pub centroid_frame: f64,
    /// Σ p · y.
    pub centroid_y: f64,
    /// Σ p · x.
    pub centroid_x: f64,
    /// Root mean square distance within frames from the centroid: √ Σ p ((y − `centroid_y)²` + (x − `centroid_x)²`).
    pub spread: f64,
}

impl Location {
    /// Location from the mass of each frame (`[frames]`) and the mass of each place summed over frames
    /// (`[height * width]`).
    #[must_use]
    pub fn from_marginals(grid: Grid, frame_masses: &[f64], plane: &[f64]) -> Self {
        let sum: f64 = frame_masses.iter().sum();
        let centroid_frame = weighted_mean(frame_masses.iter().copied(), sum);
        let rows: Vec<f64> = plane.chunks(grid.width).map(|row| row.iter().sum()).collect();
        let mut columns = vec![0.0; grid.width];
        for row in plane.chunks(grid.width) {
            for (column, mass) in columns.iter_mut().zip(row) {
                *column += mass;
            }
        }
        let (centroid_y, centroid_x) =
            (weighted_mean(rows.iter().copied(), sum), weighted_mean(columns.iter().copied(), sum));
        let spread = (variance(&rows, sum, centroid_y) + variance(&columns, sum, centroid_x)).sqrt();
        Self { centroid_frame, centroid_y, centroid_x, spread }
    }

    /// The location of a map without mass.
    #[must_use]
    pub const fn undefined() -> Self {
        Self { centroid_frame: f64::NAN, centroid_y: f64::NAN, centroid_x: f64::NAN, spread: f64::NAN }
    }
}

fn weighted_mean(masses: impl Iterator<Item = f64>, sum: f64) -> f64 {
    masses.enumerate().map(|(coordinate, mass)| coordinate as f64 * mass).sum::<f64>() / sum
}

fn variance(masses: &[f64], sum: f64, centre: f64) -> f64 {
    masses.iter().enumerate().map(|(coordinate, mass)| (coordinate as f64 - centre).powi(2) * mass).sum::<f64>() / sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spikes_have_their_centre_between_them() {
        let grid = Grid { frames: 2, height: 3, width: 4 };
        let mut plane = vec![0.0; 12];
        plane[0] = 1.0; // frame 0, y 0, x 0
        plane[2 * 4 + 2] = 1.0; // frame 1, y 2, x 2
        let location = Location::from_marginals(grid, &[1.0, 1.0], &plane);
        assert_eq!((location.centroid_frame, location.centroid_y, location.centroid_x), (0.5, 1.0, 1.0));
        assert!((location.spread - 2f64.sqrt()).abs() < 1e-12);
    }
}
