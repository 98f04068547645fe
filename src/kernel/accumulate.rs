//! Adding the values of one frame of a map into several sums at once, while the frame is in the nearest cache.

const LANES: usize = 8;

/// Adds `values` element by element into each of the three sums and returns their total.
///
/// The total is taken in eight interleaved lanes, the same on every machine. All slices have the length of `values`
/// (longer ones are left alone beyond it).
pub(super) fn add_frame<W: Copy + Into<f64>>(
    values: &[W],
    by_block: &mut [f64],
    by_head: &mut [f64],
    by_place: &mut [f64],
) -> f64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the function needs AVX2 and nothing else, and the processor has it.
        #[allow(unsafe_code)]
        return unsafe { add_frame_avx2(values, by_block, by_head, by_place) };
    }
    add_frame_scalar(values, by_block, by_head, by_place)
}

/// The same loop, compiled for AVX2. Additions only, so no rounding differs.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn add_frame_avx2<W: Copy + Into<f64>>(values: &[W], a: &mut [f64], b: &mut [f64], c: &mut [f64]) -> f64 {
    add_frame_scalar(values, a, b, c)
}

#[inline(always)]
fn add_frame_scalar<W: Copy + Into<f64>>(values: &[W], a: &mut [f64], b: &mut [f64], c: &mut [f64]) -> f64 {
    let whole = values.len() / LANES * LANES;
    let (head, tail) = values.split_at(whole);
    let mut lanes = [0.0; LANES];
    let chunks = head.chunks_exact(LANES);
    for (((values, a), b), c) in
        chunks.zip(a.chunks_exact_mut(LANES)).zip(b.chunks_exact_mut(LANES)).zip(c.chunks_exact_mut(LANES))
    {
        for lane in 0..LANES {
            let value: f64 = values[lane].into();
            a[lane] += value;
            b[lane] += value;
            c[lane] += value;
            lanes[lane] += value;
        }
    }
    let rest = a.iter_mut().zip(b).zip(c).skip(whole);
    for (value, ((a, b), c)) in tail.iter().zip(rest) {
        let value: f64 = (*value).into();
        *a += value;
        *b += value;
        *c += value;
        lanes[0] += value;
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_fast_loop_is_the_plain_one(values in proptest::collection::vec(-1e3f32..1e3, 0..70)) {
            let n = values.len();
            let start: Vec<f64> = (0..n).map(|i| i as f64).collect();
            let (mut a, mut b, mut c) = (start.clone(), start.clone(), start.clone());
            let total = add_frame(&values, &mut a, &mut b, &mut c);
            let plain: Vec<f64> = values.iter().zip(&start).map(|(v, s)| s + f64::from(*v)).collect();
            prop_assert_eq!(&a, &plain);
            prop_assert_eq!(&b, &plain);
            prop_assert_eq!(&c, &plain);
            let reference: f64 = values.iter().map(|v| f64::from(*v)).sum();
            prop_assert!((total - reference).abs() <= 1e-9 * (1.0 + reference.abs()));
        }
    }
}
