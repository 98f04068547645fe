//! Square windows of the frames of a map: their size, means and covariances.

use crate::grid::Grid;

/// 7, or the largest odd number that fits a frame, but no less than 3.
pub(super) fn window_size(grid: Grid) -> Option<usize> {
    [7, 5, 3].into_iter().find(|&size| size <= grid.height.min(grid.width))
}

/// Means of the windows of `size` × `size` positions, in C order of their first position.
pub(super) fn window_means(values: &[f64], grid: Grid, size: usize) -> Vec<f64> {
    let mut means = Vec::with_capacity(values.len());
    let mut columns = vec![0.0; grid.width];
    for frame in values.chunks_exact(grid.plane()) {
        let rows: Vec<&[f64]> = frame.chunks_exact(grid.width).collect();
        for rows in rows.windows(size) {
            columns.fill(0.0);
            for row in rows {
                for (column, value) in columns.iter_mut().zip(*row) {
                    *column += value;
                }
            }
            means.extend(columns.windows(size).map(|columns| columns.iter().sum::<f64>() / (size * size) as f64));
        }
    }
    means
}

pub(super) fn sample_covariance(mean_of_products: f64, mean_a: f64, mean_b: f64, size: usize) -> f64 {
    let count = (size * size) as f64;
    (mean_of_products - mean_a * mean_b) * count / (count - 1.0)
}
