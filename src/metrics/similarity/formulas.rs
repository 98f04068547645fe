//! Sums over two maps and the terms that are summed: angles and divergences.

/// Σ term(a, b), with partial sums side by side: the processor adds them at once, and rounding errors grow slower.
pub(super) fn sum_over<T: Copy + Into<f64>>(a: &[T], b: &[T], term: impl Fn(f64, f64) -> f64) -> f64 {
    let ((a_rows, a_rest), (b_rows, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a_rows.iter().zip(b_rows) {
        for (sum, (&a, &b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += term(a.into(), b.into());
        }
    }
    for (sum, (&a, &b)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *sum += term(a.into(), b.into());
    }
    sums.iter().sum()
}

pub(super) fn dot<T: Copy + Into<f64>>(a: &[T], b: &[T]) -> f64 {
    sum_over(a, b, |x, y| x * y)
}

pub(super) fn cosine(products: f64, squares_a: f64, squares_b: f64) -> f64 {
    (products / (squares_a * squares_b).sqrt()).clamp(-1.0, 1.0)
}

/// p ln(p / q) − p + q for p and q of at least 0, infinite for q = 0 < p: `scipy.special.kl_div`.
///
/// What − p + q adds sums to 0 over masses, but for the rounding errors of the masses, which it takes away.
pub(super) fn divergence(p: f64, q: f64) -> f64 {
    let ratio = p / q;
    if p == 0.0 {
        q
    } else if ratio > 0.5 && ratio < 2.0 {
        // The difference of close numbers is exact, their ratio is not.
        p * ((p - q) / q).ln_1p() - (p - q)
    } else {
        p * ratio.ln() - (p - q)
    }
}

/// ½ p ln(p / m) + ½ q ln(q / m) with m = (p + q) / 2, for p and q of at least 0.
///
/// With d = (p − q) / (p + q) this is ½ m ((1 + d) ln(1 + d) + (1 − d) ln(1 − d)) = ½ m Σ d²ᵏ / (k (2k − 1)). Where d
/// is small the logarithms all but cancel, and the series is both exact to the last digits and faster.
pub(super) fn divergence_from_middle(p: f64, q: f64) -> f64 {
    /// 1 / (k (2k − 1)) from k = 11: what is left out is below 2⁻⁵² of the sum for d² up to 1 / 16.
    const SERIES: [f64; 11] = [
        1.0 / 231.0,
        1.0 / 190.0,
        1.0 / 153.0,
        1.0 / 120.0,
        1.0 / 91.0,
        1.0 / 66.0,
        1.0 / 45.0,
        1.0 / 28.0,
        1.0 / 15.0,
        1.0 / 6.0,
        1.0,
    ];
    let difference = (p - q) / (p + q);
    let square = difference * difference;
    if square < 1.0 / 16.0 {
        let series = SERIES.iter().fold(0.0, |sum, coefficient| sum * square + coefficient);
        (p + q) / 4.0 * square * series
    } else {
        // 1 ± d is 0 where a mass is 0 or lost beside the other, and NaN where both are 0.
        let term = |mass: f64, ratio: f64| if ratio > 0.0 { mass / 2.0 * ratio.ln() } else { 0.0 };
        term(p, 1.0 + difference) + term(q, 1.0 - difference)
    }
}

/// The part of all mass up to each of the masses; the last is exactly 1.
pub(super) fn cumulate(mut masses: Vec<f64>) -> Vec<f64> {
    let mut total = 0.0;
    for mass in &mut masses {
        total += *mass;
        *mass = total;
    }
    masses.into_iter().map(|mass| mass / total).collect()
}
