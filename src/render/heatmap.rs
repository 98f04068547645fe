//! A map as a picture: its frames beside each other, values as colours of viridis.

use super::Picture;
use super::picture::Rgb;
use crate::grid::Grid;

/// Width that a picture has room for, pixels; only maps wider than this make wider ones.
const WIDTH: usize = 960;
/// Pixels of one position, at the most.
const LARGEST_CELL: usize = 16;
/// Pixels between frames.
const GAP: usize = 4;
/// Between frames.
const BACKGROUND: Rgb = [255; 3];
/// Where a value is NaN or infinite.
const NOT_A_NUMBER: Rgb = [160; 3];

/// Draws `map` (`[frame, height, width]`, C order), frame by frame from left to right and from top to bottom. The colours go from the
/// lowest to the highest finite value of the whole map; where there is only one value, all are of the lowest colour.
#[must_use]
pub fn heatmap(map: &[f32], grid: Grid) -> Picture {
    let finite = || map.iter().copied().filter(|value| value.is_finite());
    let (lowest, highest) = (finite().fold(f32::INFINITY, f32::min), finite().fold(f32::NEG_INFINITY, f32::max));
    let span = f64::from(highest) - f64::from(lowest);
    let colour = |value: f32| match value {
        value if !value.is_finite() => NOT_A_NUMBER,
        value => {
            let share = if span > 0.0 { (f64::from(value) - f64::from(lowest)) / span } else { 0.0 };
            let colorous::Color { r, g, b } = colorous::VIRIDIS.eval_continuous(share);
            [r, g, b]
        }
    };
    let sheet = Sheet::of(grid);
    let mut picture = Picture::filled(sheet.width(), sheet.height(), BACKGROUND);
    for (index, &value) in map.iter().enumerate().take(grid.spatial()) {
        picture.fill(sheet.place(index), (sheet.cell, sheet.cell), colour(value));
    }
    picture
}

/// How frames are arranged.
struct Sheet {
    grid: Grid,
    columns: usize,
    rows: usize,
    cell: usize,
}

impl Sheet {
    /// As few rows as make cells of a good size; the last one may have fewer frames.
    fn of(grid: Grid) -> Self {
        let cell_in =
            |columns: usize| (WIDTH.saturating_sub((columns - 1) * GAP) / (columns * grid.width)).min(LARGEST_CELL);
        let most = grid.frames.min(8);
        let columns = (1..=most).rev().find(|&columns| cell_in(columns) >= 3).unwrap_or(1);
        let rows = grid.frames.div_ceil(columns);
        // Rows of equal length look better than one that is nearly empty.
        let columns = grid.frames.div_ceil(rows);
        Self { grid, columns, rows, cell: cell_in(columns).max(1) }
    }

    fn width(&self) -> usize {
        self.columns * (self.grid.width * self.cell + GAP) - GAP
    }

    fn height(&self) -> usize {
        self.rows * (self.grid.height * self.cell + GAP) - GAP
    }

    /// Upper left pixel of a position.
    fn place(&self, index: usize) -> (usize, usize) {
        let (frame, y, x) = self.grid.position(index);
        let (column, row) = (frame % self.columns, frame / self.columns);
        (
            column * (self.grid.width * self.cell + GAP) + x * self.cell,
            row * (self.grid.height * self.cell + GAP) + y * self.cell,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(picture: &Picture, x: usize, y: usize) -> &[u8] {
        &picture.pixels[(y * picture.width + x) * 3..][..3]
    }

    #[test]
    fn frames_lie_beside_each_other_and_colours_follow_values() {
        let grid = Grid { frames: 2, height: 1, width: 2 };
        let picture = heatmap(&[0.0, 1.0, f32::NAN, 0.0], grid);
        assert_eq!((picture.width, picture.height), (4 * 16 + GAP, 16));
        let (dark, yellow) = (at(&picture, 0, 0), at(&picture, 16, 0));
        assert_eq!(dark, [68, 1, 84], "viridis starts here");
        assert_eq!(yellow, [253, 231, 37], "and ends here");
        assert_eq!(at(&picture, 33, 3), BACKGROUND);
        assert_eq!(at(&picture, 32 + GAP, 15), NOT_A_NUMBER);
        assert_eq!(at(&picture, picture.width - 1, 15), dark);
    }

    #[test]
    fn large_maps_stay_within_the_width_and_every_position_has_its_place() {
        for (frames, height, width) in [(15, 30, 53), (1, 1, 5000), (57, 60, 106), (3, 2, 1)] {
            let grid = Grid { frames, height, width };
            let picture = heatmap(&vec![1.0; grid.spatial()], grid);
            assert!(picture.width <= WIDTH.max(width), "{grid}: {}", picture.width);
            let painted = picture.pixels.chunks(3).filter(|pixel| **pixel != BACKGROUND).count();
            assert_eq!(painted % grid.spatial(), 0, "{grid}");
        }
    }
}
