//! Folding many maps into one, position by position: mean, sum, extremes, standard deviation, median.
//!
//! An [`Accumulator`] holds what was folded so far of one group of maps. Accumulators merge, so that parts of a group
//! can be folded apart; what was folded in which order is the caller's to keep the same if the last bits matter.

use serde::{Deserialize, Serialize};

use super::Element;
use super::median::Kept;

/// Positions that are folded at a time, of all maps given, so that the sums stay in the nearest cache.
const TILE: usize = 1024;

/// How many maps become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Reducer {
    /// Σ x / n
    #[default]
    Mean,
    /// Σ x
    Sum,
    /// The highest.
    Max,
    /// The lowest.
    Min,
    /// √(Σ (x − mean)² / n): of the population, as `numpy.std` by default.
    Std,
    /// The middle value, or the mean of the two middle ones. Needs all values at once.
    Median,
}

impl Reducer {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Sum => "sum",
            Self::Max => "max",
            Self::Min => "min",
            Self::Std => "std",
            Self::Median => "median",
        }
    }

    /// Whether what was folded apart can be merged without keeping every value.
    #[must_use]
    pub const fn is_mergeable(self) -> bool {
        !matches!(self, Self::Median)
    }
}

/// Two things that were folded apart in different ways, and do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found} cannot be merged into {expected}: they are not of one question")]
pub struct Unlike {
    /// How one was folded.
    pub found: String,
    /// How the other was.
    pub expected: String,
}

/// What was folded so far of the maps of one group, over a range of positions.
#[derive(Debug, Clone, PartialEq)]
pub struct Accumulator {
    reducer: Reducer,
    positions: usize,
    /// Maps that went in.
    maps: u64,
    /// Finite values that went in, by position; `None` if non-finite values are propagated, so that all count.
    counts: Option<Vec<u32>>,
    state: State,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    /// By position.
    Sums(Vec<f64>),
    /// By position; NaN where there was none, or where a NaN was met that propagates.
    Extremes(Vec<f64>),
    /// By position, after Welford: mean, and Σ (x − mean)².
    Moments { means: Vec<f64>, squares: Vec<f64> },
    /// Every value.
    Values(Kept),
}

impl Accumulator {
    /// Nothing folded yet, over `positions`. With `skipna`, NaN and infinite values are left out; without, they
    /// propagate.
    #[must_use]
    pub fn new(reducer: Reducer, skipna: bool, positions: usize) -> Self {
        let state = match reducer {
            Reducer::Mean | Reducer::Sum => State::Sums(vec![0.0; positions]),
            Reducer::Max | Reducer::Min => State::Extremes(vec![f64::NAN; positions]),
            Reducer::Std => State::Moments { means: vec![0.0; positions], squares: vec![0.0; positions] },
            Reducer::Median => State::Values(Kept::default()),
        };
        Self { reducer, positions, maps: 0, counts: skipna.then(|| vec![0; positions]), state }
    }

    /// Maps that went in.
    #[must_use]
    pub const fn maps(&self) -> u64 {
        self.maps
    }

    /// Folds `maps` in, each of as many values as there are positions, and each standing for `weight` maps of which it
    /// is the mean (1 for a map itself; anything else makes sense for means and sums only).
    pub fn fold<T: Element>(&mut self, maps: &[&[T]], weight: u32, scratch: &mut Vec<f32>) {
        let before = self.maps;
        self.maps += u64::from(weight) * maps.len() as u64;
        if let (State::Sums(sums), None) = (&mut self.state, &self.counts) {
            return T::add(maps, f64::from(weight), sums);
        }
        if let State::Values(kept) = &mut self.state {
            return kept.keep(maps);
        }
        for start in (0..self.positions).step_by(TILE) {
            let tile = start..(start + TILE).min(self.positions);
            for (index, map) in maps.iter().enumerate() {
                let Some(values) = map.get(tile.clone()) else { continue };
                let values = T::widen(values, scratch);
                let counts = self.counts.as_mut().map(|counts| &mut counts[tile.clone()]);
                match (&mut self.state, counts) {
                    (State::Sums(sums), Some(counts)) => {
                        add_finite(values, f64::from(weight), &mut sums[tile.clone()], counts);
                    }
                    (State::Extremes(values_so_far), counts) => {
                        let first = before == 0 && index == 0;
                        let target = &mut values_so_far[tile.clone()];
                        match self.reducer {
                            Reducer::Max => take_extreme::<true, _>(values, target, first, counts),
                            _ => take_extreme::<false, _>(values, target, first, counts),
                        }
                    }
                    (State::Moments { means, squares }, counts) => {
                        let n = (before + index as u64 + 1) as f64;
                        add_moments(values, n, &mut means[tile.clone()], &mut squares[tile.clone()], counts);
                    }
                    (State::Sums(_) | State::Values(_), _) => {}
                }
            }
        }
    }

    /// Takes in what was folded apart, of other maps at the same positions.
    ///
    /// # Errors
    /// If the other was folded by another reducer, over other positions, or with other values left out.
    pub fn merge(&mut self, other: Self) -> Result<(), Unlike> {
        let manner = |of: &Self| (of.reducer, of.positions, of.counts.is_some());
        if manner(self) != manner(&other) {
            return Err(Unlike { found: other.described(), expected: self.described() });
        }
        let (own, others) = (self.maps, other.maps);
        match (&mut self.state, other.state) {
            (State::Sums(sums), State::Sums(more)) => {
                sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
            }
            (State::Extremes(values), State::Extremes(more)) => {
                for (index, (value, more)) in values.iter_mut().zip(more).enumerate() {
                    // A NaN is a value that propagates, unless values are counted and there was none.
                    let has = |counts: &Option<Vec<u32>>, maps: u64| {
                        counts.as_ref().map_or(maps > 0, |counts| counts[index] > 0)
                    };
                    if !has(&self.counts, own) {
                        *value = more;
                    } else if has(&other.counts, others) {
                        *value = match self.reducer {
                            Reducer::Max => extreme::<true>(*value, more),
                            _ => extreme::<false>(*value, more),
                        };
                    }
                }
            }
            (State::Moments { means, squares }, State::Moments { means: more_means, squares: more_squares }) => {
                for index in 0..means.len() {
                    let count = |counts: &Option<Vec<u32>>, maps: u64| {
                        counts.as_ref().map_or(maps as f64, |counts| f64::from(counts[index]))
                    };
                    let (a, b) = (count(&self.counts, own), count(&other.counts, others));
                    if b > 0.0 {
                        let distance = more_means[index] - means[index];
                        squares[index] += more_squares[index] + distance * distance * (a * b / (a + b));
                        means[index] += distance * (b / (a + b));
                    }
                }
            }
            (State::Values(kept), State::Values(more)) => kept.merge(more),
            // A reducer has one kind of state.
            (State::Sums(_) | State::Extremes(_) | State::Moments { .. } | State::Values(_), _) => {}
        }
        if let (Some(counts), Some(more)) = (&mut self.counts, other.counts) {
            counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
        }
        self.maps += others;
        Ok(())
    }

    /// By what it reduces, and whether values that are not finite are left out.
    #[must_use]
    pub const fn manner(&self) -> (Reducer, bool) {
        (self.reducer, self.counts.is_some())
    }

    /// Positions of each map.
    #[must_use]
    pub const fn positions(&self) -> usize {
        self.positions
    }

    /// Appends what was folded, as [`read_from`](Self::read_from) reads it: the maps that went in, the counts if there
    /// are any, and the state, little-endian. How it was folded is not among it.
    pub fn write_to(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.maps.to_le_bytes());
        bytes.extend(self.counts.iter().flatten().flat_map(|count| count.to_le_bytes()));
        let mut put = |values: &[f64]| bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        match &self.state {
            State::Sums(values) | State::Extremes(values) => put(values),
            State::Moments { means, squares } => [means, squares].into_iter().for_each(|values| put(values)),
            State::Values(kept) => kept.write_to(bytes),
        }
    }

    /// What [`write_to`](Self::write_to) wrote of one that was made with these arguments, and the bytes behind it;
    /// `None` if they are too few, or more values are counted than maps went in.
    #[must_use]
    pub fn read_from(bytes: &[u8], reducer: Reducer, skipna: bool, positions: usize) -> Option<(Self, &[u8])> {
        fn take<const N: usize, T>(bytes: &mut &[u8], count: usize, of: fn([u8; N]) -> T) -> Option<Vec<T>> {
            let (values, rest) = bytes.split_at_checked(count.checked_mul(N)?)?;
            *bytes = rest;
            Some(values.as_chunks::<N>().0.iter().map(|value| of(*value)).collect())
        }
        let (maps, mut rest) = bytes.split_first_chunk::<8>()?;
        let maps = u64::from_le_bytes(*maps);
        let rest = &mut rest;
        let counts = if skipna { Some(take(rest, positions, u32::from_le_bytes)?) } else { None };
        if counts.iter().flatten().any(|&count| u64::from(count) > maps) {
            return None;
        }
        let state = match reducer {
            Reducer::Mean | Reducer::Sum => State::Sums(take(rest, positions, f64::from_le_bytes)?),
            Reducer::Max | Reducer::Min => State::Extremes(take(rest, positions, f64::from_le_bytes)?),
            Reducer::Std => State::Moments {
                means: take(rest, positions, f64::from_le_bytes)?,
                squares: take(rest, positions, f64::from_le_bytes)?,
            },
            Reducer::Median => {
                let values = usize::try_from(maps).ok()?.checked_mul(positions)?;
                let (kept, behind) = Kept::read_from(rest, values)?;
                *rest = behind;
                State::Values(kept)
            }
        };
        Some((Self { reducer, positions, maps, counts, state }, rest))
    }

    fn described(&self) -> String {
        let left_out = if self.counts.is_some() { ", without NaN and infinite values" } else { "" };
        format!("a {} of {} positions{left_out}", self.reducer.name(), self.positions)
    }

    /// The result at each position, rounded to float32 once. Where no value counts: 0 for a sum, NaN otherwise.
    #[must_use]
    pub fn finish(self) -> Vec<f32> {
        let maps = self.maps as f64;
        let count = |index: usize| self.counts.as_ref().map_or(maps, |counts| f64::from(counts[index]));
        match self.state {
            State::Sums(sums) if self.reducer == Reducer::Sum => sums.into_iter().map(narrow).collect(),
            State::Sums(sums) => sums.into_iter().enumerate().map(|(index, sum)| narrow(sum / count(index))).collect(),
            State::Extremes(values) => values.into_iter().map(narrow).collect(),
            State::Moments { squares, .. } => {
                squares.into_iter().enumerate().map(|(index, sum)| narrow((sum / count(index)).sqrt())).collect()
            }
            State::Values(kept) => kept.medians(self.positions, self.counts.is_some()),
        }
    }
}

#[allow(clippy::cast_possible_truncation)] // rounding is meant
pub(super) fn narrow(value: f64) -> f32 {
    value as f32
}

/// Runs a loop compiled for AVX2 where the processor has it. Nothing is rounded differently there: no operation is
/// fused.
#[inline]
pub(super) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn with_avx2<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the function needs AVX2 and nothing else, and the processor has it.
            #[allow(unsafe_code)]
            return unsafe { with_avx2(work) };
        }
    }
    work()
}

fn add_finite<W: Copy + Into<f64>>(values: &[W], weight: f64, sums: &mut [f64], counts: &mut [u32]) {
    vectorised(|| {
        for ((sum, count), &value) in sums.iter_mut().zip(counts).zip(values) {
            let value: f64 = value.into();
            let finite = value.is_finite();
            *sum += if finite { value * weight } else { 0.0 };
            *count += u32::from(finite);
        }
    });
}

/// The higher (or lower) of two, NaN if either is.
#[inline(always)]
fn extreme<const HIGHEST: bool>(so_far: f64, value: f64) -> f64 {
    let inside = if HIGHEST { value <= so_far } else { value >= so_far };
    if inside || so_far.is_nan() { so_far } else { value }
}

fn take_extreme<const HIGHEST: bool, W: Copy + Into<f64>>(
    values: &[W],
    target: &mut [f64],
    first: bool,
    counts: Option<&mut [u32]>,
) {
    vectorised(|| match counts {
        None if first => target.iter_mut().zip(values).for_each(|(so_far, &value)| *so_far = value.into()),
        None => {
            for (so_far, &value) in target.iter_mut().zip(values) {
                *so_far = extreme::<HIGHEST>(*so_far, value.into());
            }
        }
        Some(counts) => {
            for ((so_far, count), &value) in target.iter_mut().zip(counts).zip(values) {
                let value: f64 = value.into();
                if value.is_finite() {
                    *so_far = if *count == 0 { value } else { extreme::<HIGHEST>(*so_far, value) };
                    *count += 1;
                }
            }
        }
    });
}

/// Welford's update (Technometrics 4, 1962): numerically safe, and one pass. `n` counts this map too.
fn add_moments<W: Copy + Into<f64>>(
    values: &[W],
    n: f64,
    means: &mut [f64],
    squares: &mut [f64],
    counts: Option<&mut [u32]>,
) {
    vectorised(|| match counts {
        None => {
            let share = 1.0 / n;
            for ((mean, square), &value) in means.iter_mut().zip(squares).zip(values) {
                let value: f64 = value.into();
                let distance = value - *mean;
                *mean += distance * share;
                *square += distance * (value - *mean);
            }
        }
        Some(counts) => {
            for (((mean, square), count), &value) in means.iter_mut().zip(squares).zip(counts).zip(values) {
                let value: f64 = value.into();
                if value.is_finite() {
                    *count += 1;
                    let distance = value - *mean;
                    *mean += distance / f64::from(*count);
                    *square += distance * (value - *mean);
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Reducer; 6] = [Reducer::Mean, Reducer::Sum, Reducer::Max, Reducer::Min, Reducer::Std, Reducer::Median];

    /// The plain definition, on the values at one position.
    fn reference(reducer: Reducer, skipna: bool, values: &[f32]) -> f64 {
        let values: Vec<f64> =
            values.iter().filter(|value| !skipna || value.is_finite()).map(|value| f64::from(*value)).collect();
        let n = values.len() as f64;
        let sum: f64 = values.iter().sum();
        let nan = values.iter().any(|value| value.is_nan()) || (values.is_empty() && reducer != Reducer::Sum);
        match reducer {
            _ if nan => f64::NAN,
            Reducer::Mean => sum / n,
            Reducer::Sum => sum,
            Reducer::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Reducer::Min => values.iter().copied().fold(f64::INFINITY, f64::min),
            Reducer::Std => (values.iter().map(|value| (value - sum / n).powi(2)).sum::<f64>() / n).sqrt(),
            Reducer::Median => {
                let mut sorted = values.clone();
                sorted.sort_by(f64::total_cmp);
                let middle = sorted.len() / 2;
                if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
            }
        }
    }

    fn value() -> impl Strategy<Value = f32> {
        prop_oneof![20 => -1e3f32..1e3, 1 => Just(f32::NAN), 1 => Just(f32::INFINITY), 1 => Just(0.0f32)]
    }

    #[test]
    fn what_was_folded_in_another_way_is_not_merged() {
        let folded = |reducer, skipna, positions: usize| {
            let mut folded = Accumulator::new(reducer, skipna, positions);
            folded.fold(&[vec![1.0_f32; positions].as_slice()], 1, &mut Vec::new());
            folded
        };
        let own = folded(Reducer::Mean, false, 3);
        for other in [folded(Reducer::Sum, false, 3), folded(Reducer::Mean, true, 3), folded(Reducer::Mean, false, 4)] {
            let mut merged = own.clone();
            let error = merged.merge(other).unwrap_err();
            assert!(error.to_string().ends_with("into a mean of 3 positions: they are not of one question"), "{error}");
            assert_eq!(merged, own, "and nothing is changed");
        }
    }

    proptest! {
        #[test]
        fn folding_in_parts_is_the_plain_definition(
            maps in proptest::collection::vec(proptest::collection::vec(value(), 5), 1..9),
            cut in 0usize..9,
            skipna: bool,
        ) {
            let (first, second) = maps.split_at(cut.min(maps.len()));
            for reducer in ALL {
                let fold = |maps: &[Vec<f32>]| {
                    let mut accumulator = Accumulator::new(reducer, skipna, 5);
                    for map in maps {
                        accumulator.fold(&[map.as_slice()], 1, &mut Vec::new());
                    }
                    accumulator
                };
                let mut merged = fold(first);
                merged.merge(fold(second)).unwrap();
                prop_assert_eq!(merged.maps(), maps.len() as u64);
                for (position, found) in merged.finish().into_iter().enumerate() {
                    let column: Vec<f32> = maps.iter().map(|map| map[position]).collect();
                    let expected = reference(reducer, skipna, &column);
                    let same = (f64::from(found) - expected).abs() <= 1e-6 * (1.0 + expected.abs());
                    let nan = found.is_nan() && expected.is_nan();
                    let infinite = !expected.is_finite() && (f64::from(found) == expected || found.is_nan());
                    prop_assert!(same || nan || infinite, "{reducer:?} {skipna} of {column:?}: {found}, not \
                        {expected}");
                }
            }
        }

        #[test]
        fn folding_at_once_is_folding_one_by_one(
            maps in proptest::collection::vec(proptest::collection::vec(value(), 3), 1..6),
        ) {
            for reducer in ALL {
                let slices: Vec<&[f32]> = maps.iter().map(Vec::as_slice).collect();
                let empty = || Accumulator::new(reducer, false, 3);
                let (mut at_once, mut one_by_one) = (empty(), empty());
                at_once.fold(&slices, 1, &mut Vec::new());
                for map in &slices {
                    one_by_one.fold(&[*map], 1, &mut Vec::new());
                }
                let bits = |folded: Accumulator| folded.finish().into_iter().map(f32::to_bits).collect::<Vec<_>>();
                prop_assert_eq!(bits(at_once), bits(one_by_one));
            }
        }
    }

    #[test]
    fn a_mean_of_means_counts_the_maps_behind_them() {
        let mut mean = Accumulator::new(Reducer::Mean, false, 1);
        mean.fold(&[[1.0f32].as_slice()], 3, &mut Vec::new());
        mean.fold(&[[5.0f32].as_slice()], 1, &mut Vec::new());
        assert_eq!((mean.maps(), mean.finish()), (4, vec![2.0]));
    }
}
