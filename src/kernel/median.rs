//! Medians: the values of all maps, kept in the type that they came in, and the middle ones of each position found by
//! counting.
//!
//! The bits of a float are put in an order that is that of the numbers. The value of a rank is then the largest key
//! that no more values are below than that rank, and its bits are found from the highest to the lowest, with one count
//! of smaller values for each. Positions lie beside each other while they are counted, so that a vector register counts
//! for as many of them as it has lanes, and nothing depends on the values.

use half::f16;
use rayon::prelude::*;

use super::Element;
use super::reduce::narrow;

/// Positions that are searched at a time: halves of them make a cache line.
const LANES: usize = 32;
/// Rows that are counted before counts of 16 bits would overflow.
const COUNTED: usize = i16::MAX as usize;
/// Values of a block below which it takes in those of further maps.
const SMALL_BLOCK: usize = 1 << 15;

/// The values of maps, all at the same positions.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept(Vec<Block>);

/// Of some maps: `[map, position]`.
#[derive(Debug, Clone)]
enum Block {
    Half(Vec<f16>),
    Single(Vec<f32>),
}

impl Kept {
    /// Keeps further maps: halves as they are, all else as float32.
    pub fn keep<T: Element>(&mut self, maps: &[&[T]]) {
        let halves: Option<Vec<&[f16]>> = maps.iter().map(|map| T::halves(map)).collect();
        match (halves, self.0.last_mut()) {
            (Some(maps), Some(Block::Half(last))) if last.len() < SMALL_BLOCK => {
                for map in maps {
                    last.extend_from_slice(map);
                }
            }
            (Some(maps), _) => self.0.push(Block::Half(maps.concat())),
            (None, Some(Block::Single(last))) if last.len() < SMALL_BLOCK => last.extend(singles(maps)),
            (None, _) => self.0.push(Block::Single(singles(maps).collect())),
        }
    }

    /// Takes in what was kept of other maps.
    pub fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Median at each position: NaN where a value is NaN. With `skipna`, of the finite values: NaN where there are
    /// none.
    pub fn medians(self, positions: usize, skipna: bool) -> Vec<f32> {
        let Self(mut blocks) = self;
        if !blocks.iter().all(|block| matches!(block, Block::Half(_))) {
            blocks.iter_mut().for_each(Block::widen);
        }
        let (mut halves, mut singles): (Vec<&[f16]>, Vec<&[f32]>) = (Vec::new(), Vec::new());
        for block in &blocks {
            match block {
                Block::Half(values) => halves.extend(values.chunks_exact(positions.max(1))),
                Block::Single(values) => singles.extend(values.chunks_exact(positions.max(1))),
            }
        }
        if singles.is_empty() { medians(&halves, positions, skipna) } else { medians(&singles, positions, skipna) }
    }

    /// Appends the type and the values, little-endian.
    pub fn write_to(&self, bytes: &mut Vec<u8>) {
        let is_half = self.0.iter().all(|block| matches!(block, Block::Half(_)));
        bytes.push(u8::from(!is_half));
        for block in &self.0 {
            match block {
                Block::Half(values) if is_half => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
                Block::Half(values) => bytes.extend(values.iter().flat_map(|value| value.to_f32().to_le_bytes())),
                Block::Single(values) => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            }
        }
    }

    /// So many values of what [`write_to`](Self::write_to) wrote, and the bytes behind them; `None` if they are not
    /// there.
    pub fn read_from(bytes: &[u8], values: usize) -> Option<(Self, &[u8])> {
        let (kind, bytes) = bytes.split_first()?;
        let size = match kind {
            0 => size_of::<f16>(),
            1 => size_of::<f32>(),
            _ => return None,
        };
        let (own, rest) = bytes.split_at_checked(values.checked_mul(size)?)?;
        let block = match kind {
            0 => Block::Half(own.as_chunks().0.iter().map(|value| f16::from_le_bytes(*value)).collect()),
            _ => Block::Single(own.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect()),
        };
        Some((Self(vec![block]), rest))
    }
}

impl PartialEq for Kept {
    /// By the values, however they lie.
    fn eq(&self, other: &Self) -> bool {
        let values = |kept: &Self| {
            let mut all = Vec::new();
            for block in &kept.0 {
                match block {
                    Block::Half(values) => all.extend(values.iter().map(|value| value.to_f32())),
                    Block::Single(values) => all.extend_from_slice(values),
                }
            }
            all
        };
        values(self) == values(other)
    }
}

impl Block {
    /// The same values as float32.
    fn widen(&mut self) {
        if let Self::Half(values) = self {
            *self = Self::Single(values.iter().map(|value| value.to_f32()).collect());
        }
    }
}

fn singles<T: Element>(maps: &[&[T]]) -> impl Iterator<Item = f32> {
    maps.iter().flat_map(|map| map.iter().map(|value| narrow(value.to_f64())))
}

/// A value that is ordered by its bits.
trait Ordered: Copy + Send + Sync {
    type Key: Key;

    /// In the order of `total_cmp`.
    fn key(self) -> Self::Key;
    fn of_key(key: Self::Key) -> f32;
}

/// A signed integer, which is found bit by bit.
trait Key: Copy + Ord + Send + Sync {
    const BITS: u32;
    const LOWEST: Self;
    const HIGHEST: Self;
    /// Of negative infinity, below which there are NaN alone.
    const NEGATIVE_INFINITY: Self;
    /// Of infinity, above which there are NaN alone.
    const INFINITY: Self;

    /// With a bit set that was not, counted from the lowest key.
    fn with_bit(self, bit: u32) -> Self;

    /// The key above, of one that is not the highest.
    fn next(self) -> Self;
}

macro_rules! ordered {
    ($value:ty, $key:ty, $widen:expr) => {
        impl Ordered for $value {
            type Key = $key;

            #[inline(always)]
            fn key(self) -> $key {
                flipped(self.to_bits().cast_signed())
            }

            #[inline(always)]
            fn of_key(key: $key) -> f32 {
                $widen(<$value>::from_bits(flipped(key).cast_unsigned()))
            }
        }

        impl Key for $key {
            const BITS: u32 = <$key>::BITS;
            const LOWEST: Self = <$key>::MIN;
            const HIGHEST: Self = <$key>::MAX;
            const NEGATIVE_INFINITY: Self = !<$value>::INFINITY.to_bits().cast_signed();
            const INFINITY: Self = <$value>::INFINITY.to_bits().cast_signed();

            #[inline(always)]
            fn with_bit(self, bit: u32) -> Self {
                self.wrapping_add((1 as $key).wrapping_shl(bit))
            }

            #[inline(always)]
            fn next(self) -> Self {
                self.wrapping_add(1)
            }
        }
    };
}
ordered!(f16, i16, f16::to_f32);
ordered!(f32, i32, |value: f32| value);

/// The bits behind the sign flipped in negative numbers, whose order they are against; and back.
#[inline(always)]
fn flipped<K>(bits: K) -> K
where
    K: Copy + Default + PartialOrd + Key + std::ops::Not<Output = K> + std::ops::BitXor<Output = K>,
{
    if bits < K::default() { !bits ^ K::LOWEST } else { bits }
}

/// Median at each position of maps.
fn medians<V: Ordered>(maps: &[&[V]], positions: usize, skipna: bool) -> Vec<f32> {
    let mut medians = vec![f32::NAN; positions];
    medians.par_chunks_mut(LANES).enumerate().for_each_init(Vec::new, |columns, (tile, medians)| {
        columns.clear();
        columns.extend(maps.iter().map(|map| {
            let mut keys = [V::Key::HIGHEST; LANES];
            keys.iter_mut().zip(map.iter().skip(tile * LANES)).for_each(|(key, value)| *key = value.key());
            keys
        }));
        for (median, (count, [lower, upper])) in medians.iter_mut().zip(middles(columns, skipna)) {
            let (lower, upper) = (V::of_key(lower), V::of_key(upper));
            *median = match count {
                0 => f32::NAN,
                count if count.is_multiple_of(2) => narrow(f64::midpoint(f64::from(lower), f64::from(upper))),
                _ => lower,
            };
        }
    });
    medians
}

/// Of each column how many keys count, and those at the two middle ranks among them. Without `skipna` all count, or
/// none if there is a NaN.
fn middles<K: Key>(columns: &[[K; LANES]], skipna: bool) -> [(usize, [K; 2]); LANES] {
    let limits =
        if skipna { [K::NEGATIVE_INFINITY.next(), K::INFINITY] } else { [K::NEGATIVE_INFINITY, K::INFINITY.next()] };
    let [first, end] = limits.map(|limit| count_below(columns, &[limit; LANES]));
    let count = |lane: usize| {
        let inside = end[lane] - first[lane];
        if skipna || inside == columns.len() { inside } else { 0 }
    };
    let mut lower = [K::LOWEST; LANES];
    for bit in (0..K::BITS).rev() {
        let trial = lower.map(|key| key.with_bit(bit));
        let below = count_below(columns, &trial);
        for lane in 0..LANES {
            if below[lane] <= first[lane] + count(lane).saturating_sub(1) / 2 {
                lower[lane] = trial[lane];
            }
        }
    }
    // Of keys that are not below `lower`, those that are equal to it come first.
    let not_above = count_below(columns, &lower.map(|key| if key == K::HIGHEST { key } else { key.next() }));
    let above = lowest_above(columns, &lower);
    std::array::from_fn(|lane| {
        let is_same = not_above[lane] > first[lane] + count(lane) / 2;
        (count(lane), [lower[lane], if is_same { lower[lane] } else { above[lane] }])
    })
}

/// How many keys of each column are below its limit.
fn count_below<K: Key>(columns: &[[K; LANES]], limits: &[K; LANES]) -> [usize; LANES] {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the function needs AVX2 and nothing else, and the processor has it.
        #[allow(unsafe_code)]
        return unsafe { count_below_avx2(columns, limits) };
    }
    count_below_scalar(columns, limits)
}

/// The same loop, compiled for AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn count_below_avx2<K: Key>(columns: &[[K; LANES]], limits: &[K; LANES]) -> [usize; LANES] {
    count_below_scalar(columns, limits)
}

#[inline(always)]
fn count_below_scalar<K: Key>(columns: &[[K; LANES]], limits: &[K; LANES]) -> [usize; LANES] {
    let mut all = [0; LANES];
    for columns in columns.chunks(COUNTED) {
        let mut counts = [0_i16; LANES];
        // With several rows at a time, the counts of each lane stay in a register.
        let (in_fours, rest) = columns.as_chunks::<4>();
        for [a, b, c, d] in in_fours {
            for lane in 0..LANES {
                let is_below = |keys: &[K; LANES]| i16::from(keys[lane] < limits[lane]);
                counts[lane] += is_below(a) + is_below(b) + is_below(c) + is_below(d);
            }
        }
        for keys in rest {
            for lane in 0..LANES {
                counts[lane] += i16::from(keys[lane] < limits[lane]);
            }
        }
        for (all, count) in all.iter_mut().zip(counts) {
            *all += usize::from(count.cast_unsigned());
        }
    }
    all
}

/// The lowest key of each column that is above its limit; the highest key if there is none.
fn lowest_above<K: Key>(columns: &[[K; LANES]], limits: &[K; LANES]) -> [K; LANES] {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the function needs AVX2 and nothing else, and the processor has it.
        #[allow(unsafe_code)]
        return unsafe { lowest_above_avx2(columns, limits) };
    }
    lowest_above_scalar(columns, limits)
}

/// The same loop, compiled for AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn lowest_above_avx2<K: Key>(columns: &[[K; LANES]], limits: &[K; LANES]) -> [K; LANES] {
    lowest_above_scalar(columns, limits)
}

#[inline(always)]
fn lowest_above_scalar<K: Key>(columns: &[[K; LANES]], limits: &[K; LANES]) -> [K; LANES] {
    let mut lowest = [K::HIGHEST; LANES];
    let above = |keys: &[K; LANES], lane: usize| if keys[lane] > limits[lane] { keys[lane] } else { K::HIGHEST };
    let (in_fours, rest) = columns.as_chunks::<4>();
    for [a, b, c, d] in in_fours {
        for (lane, lowest) in lowest.iter_mut().enumerate() {
            let of_four = above(a, lane).min(above(b, lane)).min(above(c, lane).min(above(d, lane)));
            *lowest = of_four.min(*lowest);
        }
    }
    for keys in rest {
        for (lane, lowest) in lowest.iter_mut().enumerate() {
            *lowest = above(keys, lane).min(*lowest);
        }
    }
    lowest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The plain definition, by sorting.
    fn by_sorting(values: impl Iterator<Item = f32>, skipna: bool) -> f32 {
        let mut values: Vec<f32> = values.filter(|value| !skipna || value.is_finite()).collect();
        if values.is_empty() || values.iter().any(|value| value.is_nan()) {
            return f32::NAN;
        }
        values.sort_by(f32::total_cmp);
        let middle = values.len() / 2;
        if values.len() % 2 == 1 {
            return values[middle];
        }
        narrow(f64::midpoint(f64::from(values[middle - 1]), f64::from(values[middle])))
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    /// Of any value, of a few, and of zeros.
    fn pattern() -> impl Strategy<Value = u16> {
        prop_oneof![any::<u16>(), 0x3000u16..0x3010, Just(0x8000), Just(0)]
    }

    proptest! {
        #[test]
        fn the_fast_loops_are_the_plain_ones(
            keys in proptest::collection::vec(any::<i16>(), 0..40 * LANES),
            limits in proptest::collection::vec(any::<i16>(), LANES),
        ) {
            let columns = keys.as_chunks::<LANES>().0;
            let limits: [i16; LANES] = limits.try_into().unwrap();
            let below = |lane: usize| columns.iter().filter(|keys| keys[lane] < limits[lane]).count();
            let above = |lane: usize| columns.iter().map(|keys| keys[lane]).filter(|key| *key > limits[lane]).min();
            let (fast, plain) = (count_below(columns, &limits), count_below_scalar(columns, &limits));
            prop_assert_eq!((fast, plain), (std::array::from_fn(below), plain));
            let (fast, plain) = (lowest_above(columns, &limits), lowest_above_scalar(columns, &limits));
            prop_assert_eq!((fast, plain), (std::array::from_fn(|lane| above(lane).unwrap_or(i16::MAX)), plain));
            prop_assert_eq!(fast, plain);
        }

        #[test]
        fn medians_are_those_of_sorted_halves(
            patterns in proptest::collection::vec(pattern(), 0..400),
            positions in prop_oneof![1usize..5, 30usize..70],
            cut in 0usize..9,
            skipna: bool,
        ) {
            let values: Vec<f16> = patterns.iter().copied().map(f16::from_bits).collect();
            let maps: Vec<&[f16]> = values.chunks_exact(positions).collect();
            let (first, second) = maps.split_at(cut.min(maps.len()));
            let (mut kept, mut more) = (Kept::default(), Kept::default());
            kept.keep(first);
            for map in second {
                more.keep(&[*map]);
            }
            kept.merge(more);
            let mut bytes = Vec::new();
            kept.write_to(&mut bytes);
            bytes.push(7);
            let (read, rest) = Kept::read_from(&bytes, maps.len() * positions).unwrap();
            prop_assert_eq!(rest, [7]);
            let expected: Vec<f32> = (0..positions)
                .map(|position| by_sorting(maps.iter().map(|map| map[position].to_f32()), skipna))
                .collect();
            prop_assert_eq!(bits(&kept.medians(positions, skipna)), bits(&expected));
            prop_assert_eq!(bits(&read.medians(positions, skipna)), bits(&expected));
        }

        #[test]
        fn medians_of_several_types_are_those_of_the_widest(
            halves in proptest::collection::vec(any::<u16>(), 0..40),
            singles in proptest::collection::vec(any::<u32>(), 0..40),
            doubles in proptest::collection::vec(any::<f64>(), 0..40),
            skipna: bool,
        ) {
            let halves: Vec<f16> = halves.into_iter().map(f16::from_bits).collect();
            let singles: Vec<f32> = singles.into_iter().map(f32::from_bits).collect();
            let mut kept = Kept::default();
            kept.keep(&[halves.as_slice()].map(|map| map.chunks(1).collect::<Vec<_>>()).concat());
            kept.keep(&singles.chunks(1).collect::<Vec<_>>());
            kept.keep(&doubles.chunks(1).collect::<Vec<_>>());
            let all = || {
                let halves = halves.iter().map(|value| value.to_f32());
                halves.chain(singles.iter().copied()).chain(doubles.iter().map(|value| narrow(*value)))
            };
            let mut bytes = Vec::new();
            kept.write_to(&mut bytes);
            let (read, _) = Kept::read_from(&bytes, all().count()).unwrap();
            let expected = by_sorting(all(), skipna).to_bits();
            prop_assert_eq!(kept.medians(1, skipna)[0].to_bits(), expected);
            prop_assert_eq!(read.medians(1, skipna)[0].to_bits(), expected);
        }
    }

    #[test]
    fn more_maps_than_16_bits_count_are_counted() {
        let values: Vec<f16> =
            (0..100_001).map(|number| f16::from_f32(if number < 50_000 { -1.0 } else { 2.0 })).collect();
        let mut kept = Kept::default();
        kept.keep(&values.chunks(1).collect::<Vec<_>>());
        assert_eq!(kept.clone().medians(1, false), [2.0]);
        kept.keep(&[&[f16::NEG_INFINITY][..]]);
        assert_eq!(kept.clone().medians(1, false), [0.5]);
        assert_eq!(kept.medians(1, true), [2.0]);
    }

    #[test]
    fn what_is_cut_off_is_not_read() {
        assert!(Kept::read_from(&[], 0).is_none());
        assert!(Kept::read_from(&[0, 1, 2, 3], 2).is_none());
        assert!(Kept::read_from(&[1], usize::MAX).is_none());
        assert!(Kept::read_from(&[2, 1, 2], 1).is_none());
    }
}
