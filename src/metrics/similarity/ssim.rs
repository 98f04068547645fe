//! Structural similarity: windows of two maps compared.

use super::measured::Measured;
use super::windows::{sample_covariance, window_means, window_size};

pub(super) fn structural_similarity(a: &Measured, b: &Measured) -> Option<f64> {
    let (of_a, of_b) = (a.totals()?, b.totals()?);
    let (windows_a, windows_b) = (a.windows()?, b.windows()?);
    let grid = a.grid?;
    let size = window_size(grid)?;
    let range = of_a.max.max(of_b.max) - of_a.min.min(of_b.min);
    if range == 0.0 {
        return Some(1.0);
    }
    let (c1, c2) = ((0.01 * range).powi(2), (0.03 * range).powi(2));
    let products: Vec<f64> = a.deviations()?.zip(b.deviations()?).map(|(x, y)| x * y).collect();
    let products = window_means(&products, grid, size);
    let windows =
        windows_a.means.iter().zip(&windows_a.variances).zip(windows_b.means.iter().zip(&windows_b.variances));
    let sum: f64 = products
        .iter()
        .zip(windows)
        .map(|(product, ((mean_a, variance_a), (mean_b, variance_b)))| {
            let covariance = sample_covariance(*product, *mean_a, *mean_b, size);
            let (mean_a, mean_b) = (mean_a + of_a.mean, mean_b + of_b.mean);
            (2.0 * mean_a * mean_b + c1) * (2.0 * covariance + c2)
                / ((mean_a * mean_a + mean_b * mean_b + c1) * (variance_a + variance_b + c2))
        })
        .sum();
    // All frames have the same number of windows, so that this is the mean over frames too.
    Some(sum / products.len() as f64)
}
