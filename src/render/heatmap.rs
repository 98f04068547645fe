//! A map as a picture: its frames beside each other, values as colours.

use super::Picture;
use super::picture::Rgb;
use crate::grid::Grid;

/// Width and height that a picture has room for, pixels; only larger maps make larger ones.
const WIDTH: usize = 960;
/// Pixels of one position, at the most.
const LARGEST_CELL: usize = 16;
/// Frames beside each other, at the most.
const MOST_COLUMNS: usize = 8;
/// Pixels between frames.
const GAP: usize = 4;
/// Between frames.
const BACKGROUND: Rgb = [255; 3];
/// Where a value is NaN or infinite.
const NOT_A_NUMBER: Rgb = [160; 3];

/// Between maps.
const LARGE_GAP: usize = 4 * GAP;

/// Draws maps (each `[frame, height, width]`, C order, one behind the other), frame by frame from left to right and
/// from top to bottom, map below map.
///
/// The colours, those of viridis, go from the lowest to the highest finite value of all, or over the range given;
/// values beyond it have the colour at its end. Where there are negative values, as in differences of maps, they go
/// from blue through white at 0 to red.
#[must_use]
pub fn heatmap(maps: &[f32], grid: Grid, range: Option<(f32, f32)>) -> Picture {
    let scale = Scale::of(maps, range);
    let sheet = Sheet::of(grid);
    let below = sheet.height() + LARGE_GAP;
    let count = (maps.len() / grid.spatial()).max(1);
    let mut picture = Picture::filled(sheet.width(), count * below - LARGE_GAP, BACKGROUND);
    for (number, map) in maps.chunks_exact(grid.spatial()).enumerate() {
        for (index, &value) in map.iter().enumerate() {
            let (x, y) = sheet.place(index);
            picture.fill((x, number * below + y), (sheet.cell, sheet.cell), scale.colour(value));
        }
    }
    picture
}

/// From values to colours.
struct Scale {
    lowest: f64,
    span: f64,
    is_signed: bool,
}

impl Scale {
    fn of(map: &[f32], range: Option<(f32, f32)>) -> Self {
        let finite = || map.iter().copied().filter(|value| value.is_finite());
        let own = || (finite().fold(f32::INFINITY, f32::min), finite().fold(f32::NEG_INFINITY, f32::max));
        let (lowest, highest) = range.unwrap_or_else(own);
        let (mut lowest, mut highest) = (f64::from(lowest), f64::from(highest));
        let is_signed = lowest < 0.0;
        if is_signed {
            highest = highest.max(-lowest);
            lowest = -highest;
        }
        Self { lowest, span: highest - lowest, is_signed }
    }

    fn colour(&self, value: f32) -> Rgb {
        if !value.is_finite() {
            return NOT_A_NUMBER;
        }
        // Where there is only one value, it is the lowest.
        let share = if self.span > 0.0 { ((f64::from(value) - self.lowest) / self.span).clamp(0.0, 1.0) } else { 0.0 };
        let colorous::Color { r, g, b } = if self.is_signed {
            colorous::RED_BLUE.eval_continuous(1.0 - share)
        } else {
            colorous::VIRIDIS.eval_continuous(share)
        };
        [r, g, b]
    }
}

/// How frames are arranged.
struct Sheet {
    grid: Grid,
    columns: usize,
    rows: usize,
    cell: usize,
}

impl Sheet {
    /// Cells as large as fit into a square of the picture's width; of arrangements with equal cells the one with fewest
    /// rows.
    fn of(grid: Grid) -> Self {
        let cell_in = |count: usize, side: usize| WIDTH.saturating_sub((count - 1) * GAP) / (count * side);
        let cell = |columns: usize| {
            let rows = grid.frames.div_ceil(columns);
            cell_in(columns, grid.width).min(cell_in(rows, grid.height)).min(LARGEST_CELL)
        };
        let most = grid.frames.min(MOST_COLUMNS);
        let best = (1..=most).max_by_key(|&columns| (cell(columns), columns)).unwrap_or(1);
        // Where not even cells of one pixel fit, the picture grows downwards.
        let widest = || (1..=most).rev().find(|&columns| cell_in(columns, grid.width) >= 1).unwrap_or(1);
        let columns = if cell(best) > 0 { best } else { widest() };
        let rows = grid.frames.div_ceil(columns);
        // Rows of equal length look better than one that is nearly empty.
        Self { grid, columns: grid.frames.div_ceil(rows), rows, cell: cell(columns).max(1) }
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
        let picture = heatmap(&[0.0, 1.0, f32::NAN, 0.0], grid, None);
        assert_eq!((picture.width, picture.height), (4 * 16 + GAP, 16));
        let (dark, yellow) = (at(&picture, 0, 0), at(&picture, 16, 0));
        assert_eq!(dark, [68, 1, 84], "viridis starts here");
        assert_eq!(yellow, [253, 231, 37], "and ends here");
        assert_eq!(at(&picture, 33, 3), BACKGROUND);
        assert_eq!(at(&picture, 32 + GAP, 15), NOT_A_NUMBER);
        assert_eq!(at(&picture, picture.width - 1, 15), dark);
        let narrowed = heatmap(&[0.0, 1.0, 2.0, 0.5], grid, Some((0.5, 1.0)));
        assert_eq!((at(&narrowed, 0, 0), at(&narrowed, 16, 0)), (dark, yellow));
    }

    #[test]
    fn differences_are_white_at_zero() {
        let grid = Grid { frames: 1, height: 1, width: 3 };
        let picture = heatmap(&[-1.0, 0.0, 0.5], grid, None);
        let [blue, white, red] = [0, 16, 32].map(|x| at(&picture, x, 0));
        assert!(white.iter().all(|&part| part > 230), "{white:?}");
        assert!(blue[2] > blue[0] && red[0] > red[2], "{blue:?} {red:?}");
    }

    #[test]
    fn large_maps_stay_within_the_width_and_every_position_has_its_place() {
        for (frames, height, width) in [(15, 30, 53), (1, 1, 5000), (57, 60, 106), (3, 2, 1), (13, 192, 192)] {
            let grid = Grid { frames, height, width };
            let picture = heatmap(&vec![1.0; grid.spatial()], grid, None);
            assert!(picture.width <= WIDTH.max(width), "{grid}: {}", picture.width);
            assert!(picture.height <= WIDTH || picture.width > WIDTH / 2, "{grid}: {}", picture.height);
            let painted = picture.pixels.chunks(3).filter(|pixel| **pixel != BACKGROUND).count();
            assert_eq!(painted % grid.spatial(), 0, "{grid}");
        }
    }
}
