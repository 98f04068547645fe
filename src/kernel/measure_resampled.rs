//! Measuring a resampled map without holding it: a video has some thousand times the values of its map.
//!
//! Its rows are computed anew for each look at them, which takes less time than memory for all of them would. The first
//! look counts values by the higher half of their bits. By that they are cut into ascending pieces of about a million,
//! which later looks collect, as many at a time as may be held; a piece is sorted, and summed for itself. Frames that
//! are equal are looked at once. Results do not depend on the number of threads.

#![allow(clippy::cast_possible_truncation)] // a resampled map has fewer than 2^32 values

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::measure::{MapMeasurer, MapStatistics, Sums};
use super::resample::{Bands, Resampled};
use crate::grid::Grid;
use crate::metrics::{Distribution, Level, Location, Piece};

/// Values of a piece; a map of no more is measured as every other one.
const PIECE: usize = 1 << 20;
/// Values, and pieces, that are held at a time.
const HELD: usize = 16 << 20;
const HELD_PIECES: usize = 64;
/// Values that are computed at a time.
const BAND: usize = 1 << 14;
/// Rows of a band are a multiple of this, so that values are added in the lanes that they have in a whole frame.
const LANES: usize = 8;
/// Values that are looked at together.
const NEIGHBOURS: usize = 32;
/// What half of the bits can be.
const BINS: usize = 1 << 16;
/// Runs of equal frames have one of so few lengths: they are longer than others at both ends only.
const LENGTHS: usize = 4;

/// Of one value of the higher half of the bits: values in runs of each length.
type Bin = [u32; LENGTHS];

/// Equal frames, one after the other.
#[derive(Debug, Clone, Copy)]
struct Run {
    first: usize,
    len: usize,
    /// The number of its length among those of all runs.
    class: usize,
}

/// What the first look at a run of frames finds.
struct Seen {
    /// Sum over one of its frames.
    mass: f64,
    /// The highest value, and where it is first.
    highest: f32,
    place: usize,
}

impl Default for Seen {
    fn default() -> Self {
        Self { mass: 0.0, highest: f32::NEG_INFINITY, place: 0 }
    }
}

impl Seen {
    /// Looks at further values of the frame, of which the first is at `start`, and adds them to the lanes of its mass.
    fn take(&mut self, start: usize, values: &[f32], lanes: &mut [f64; LANES]) {
        let (whole, rest) = values.as_chunks::<LANES>();
        for values in whole {
            lanes.iter_mut().zip(values).for_each(|(lane, value)| *lane += finite_or_zero(*value));
        }
        lanes[0] = rest.iter().fold(lanes[0], |sum, value| sum + finite_or_zero(*value));
        for (place, &value) in values.iter().enumerate() {
            if value > self.highest && value.is_finite() {
                (self.highest, self.place) = (value, start + place);
            }
        }
    }
}

/// Values of a range of bins.
enum Collected {
    /// By class of run.
    Values(Vec<Vec<f32>>),
    /// Of a single bin: how often there is each value of the lower half of the bits.
    Counts(Vec<u32>),
}

impl Resampled {
    /// Measures it as [`MapMeasurer`] does. Of a large map, masses and places are the same to the bit; other sums are
    /// taken piece by piece.
    #[must_use]
    pub fn measure(&self) -> MapStatistics {
        let grid = self.grid();
        if grid.spatial() <= PIECE {
            let [of_block, of_head] = &mut [vec![0.0; grid.spatial()], vec![0.0; grid.spatial()]];
            return MapMeasurer::new(grid).measure(&self.whole(), Sums { of_block, of_head });
        }
        self.measure_in_pieces()
    }

    fn measure_in_pieces(&self) -> MapStatistics {
        let grid = self.grid();
        let (runs, lengths) = classified(&self.runs());
        let (seen, bins) = self.look(&runs);
        let finite = positions(&bins, &lengths);
        let masses: Vec<f64> =
            seen.iter().zip(&runs).flat_map(|(seen, run)| std::iter::repeat_n(seen.mass, run.len)).collect();
        let near = if finite > 0 { masses.iter().sum::<f64>() / finite as f64 } else { 0.0 };
        let distribution = Distribution::from_pieces(&self.pieces(&runs, &lengths, &bins, near));
        let highest = seen.iter().zip(&runs).find(|(seen, _)| f64::from(seen.highest) == distribution.max);
        let has_location = distribution.sum > 0.0 && distribution.min >= 0.0;
        MapStatistics {
            distribution,
            argmax: highest.map(|(seen, run)| run.first * grid.plane() + seen.place),
            location: if has_location {
                Location::from_marginals(grid, &masses, &self.sum_of_frames(&runs))
            } else {
                Location::undefined()
            },
            nonfinite: (grid.spatial() as u64 - finite) as u32,
        }
    }

    /// Rows of a frame that are looked at together.
    fn row_ranges(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let Grid { height, width, .. } = self.grid();
        let rows = (BAND / width.max(1)).next_multiple_of(LANES).max(LANES);
        (0..height).step_by(rows).map(move |start| start..(start + rows).min(height))
    }

    /// Looks at a frame of each run, and counts values by the higher half of their bits.
    fn look(&self, runs: &[Run]) -> (Vec<Seen>, Vec<Bin>) {
        let width = self.grid().width;
        let bins = Mutex::new(vec![Bin::default(); BINS]);
        let share = runs.len().div_ceil(rayon::current_num_threads()).max(1);
        let of_runs = runs.par_chunks(share).flat_map_iter(|runs| {
            let (mut own, mut bands, mut buffer) = (vec![Bin::default(); BINS], Bands::of(self), Vec::new());
            let mut seen: Vec<(Seen, [f64; LANES])> = runs.iter().map(|_| Default::default()).collect();
            for rows in self.row_ranges() {
                buffer.resize(rows.len() * width, 0.0);
                for (run, (seen, lanes)) in runs.iter().zip(&mut seen) {
                    bands.rows(run.first, rows.clone(), &mut buffer);
                    seen.take(rows.start * width, &buffer, lanes);
                    for value in buffer.iter().filter(|value| value.is_finite()) {
                        own[key_of(*value) as usize / BINS][run.class] += 1;
                    }
                }
            }
            let mut bins = bins.lock().unwrap_or_else(PoisonError::into_inner);
            for (all, own) in bins.as_flattened_mut().iter_mut().zip(own.as_flattened()) {
                *all += own;
            }
            seen.into_iter().map(|(seen, lanes)| Seen { mass: lanes.iter().sum(), ..seen })
        });
        let seen = of_runs.collect();
        (seen, bins.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// The finite values, `[height, width]`, summed frame by frame.
    fn sum_of_frames(&self, runs: &[Run]) -> Vec<f64> {
        let Grid { height, width, .. } = self.grid();
        let mut plane = vec![0.0; height * width];
        let rows = self.row_ranges().next().map_or(1, |rows| rows.len());
        let nothing = || (Bands::of(self), Vec::new());
        plane.par_chunks_mut(rows * width).enumerate().for_each_init(nothing, |(bands, buffer), (band, sums)| {
            buffer.resize(sums.len(), 0.0);
            for run in runs {
                bands.rows(run.first, band * rows..band * rows + sums.len() / width, buffer);
                for _ in 0..run.len {
                    sums.iter_mut().zip(&*buffer).for_each(|(sum, value)| *sum += finite_or_zero(*value));
                }
            }
        });
        plane
    }

    /// What is said of the finite values, piece by piece.
    fn pieces(&self, runs: &[Run], lengths: &[u32], bins: &[Bin], near: f64) -> Vec<Piece> {
        let all = positions(bins, lengths);
        let (mut pieces, mut below) = (Vec::new(), 0);
        let ranges = ranges_of(bins);
        let mut rest = &ranges[..];
        while !rest.is_empty() {
            let mut held = 0;
            let fitting = rest.iter().take_while(|range| {
                held += if range.len() == 1 { 0 } else { values(&bins[(*range).clone()]) };
                held <= HELD
            });
            let (now, later) = rest.split_at(fitting.count().clamp(1, rest.len().min(HELD_PIECES)));
            rest = later;
            let collected = self.collect(runs, bins, now);
            let counted: Vec<[u64; 3]> = now
                .iter()
                .map(|range| {
                    let own = positions(&bins[range.clone()], lengths);
                    below += own;
                    [below - own, own, all]
                })
                .collect();
            let piece = |((found, range), counted): ((Collected, &Range<usize>), [u64; 3])| match found {
                Collected::Values(values) => Piece::of_levels(levels_of_values(values, lengths), counted, near),
                Collected::Counts(counts) => Piece::of_levels(levels_of_bin(range.start, &counts), counted, near),
            };
            pieces.par_extend(collected.into_par_iter().zip(now).zip(counted).map(piece));
        }
        pieces
    }

    /// The values of some ranges of bins, which follow each other, in one look at the map.
    fn collect(&self, runs: &[Run], bins: &[Bin], ranges: &[Range<usize>]) -> Vec<Collected> {
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return Vec::new() };
        let room = |range: &Range<usize>| {
            let of_class = |class: usize| bins[range.clone()].iter().map(|bin| bin[class] as usize).sum();
            let classes = (0..LENGTHS).map(|class| Vec::with_capacity(of_class(class)));
            Mutex::new(match range.len() {
                1 => Collected::Counts(vec![0; BINS]),
                _ => Collected::Values(classes.collect()),
            })
        };
        let found: Vec<Mutex<Collected>> = ranges.iter().map(room).collect();
        let mut range_of = vec![0_u16; last.end - first.start];
        for (number, range) in ranges.iter().enumerate() {
            range_of[range.start - first.start..range.end - first.start].fill(number as u16);
        }
        // No value that is not finite lies between finite ones.
        let limits = of_key((first.start * BINS) as u32)..=of_key((last.end * BINS - 1) as u32);
        let width = self.grid().width;
        let nothing = || (Bands::of(self), Vec::new(), vec![Vec::new(); ranges.len()]);
        let of_band = |(bands, buffer, own): &mut (Bands<'_>, Vec<f32>, Vec<Vec<u32>>), rows: Range<usize>| {
            buffer.resize(rows.len() * width, 0.0);
            for run in runs {
                bands.rows(run.first, rows.clone(), buffer);
                for values in buffer.chunks(NEIGHBOURS) {
                    // Neighbours are much alike.
                    if values.iter().filter(|value| limits.contains(value)).count() == 0 {
                        continue;
                    }
                    for value in values.iter().filter(|value| limits.contains(value)) {
                        let key = key_of(*value);
                        own[usize::from(range_of[key as usize / BINS - first.start])].push(key);
                    }
                }
                for (own, found) in own.iter_mut().zip(&found).filter(|(own, _)| !own.is_empty()) {
                    match &mut *found.lock().unwrap_or_else(PoisonError::into_inner) {
                        Collected::Values(classes) => classes[run.class].extend(own.drain(..).map(of_key)),
                        Collected::Counts(counts) => {
                            own.drain(..).for_each(|key| counts[key as usize % BINS] += run.len as u32);
                        }
                    }
                }
            }
        };
        self.row_ranges().collect::<Vec<_>>().into_par_iter().for_each_init(nothing, of_band);
        found.into_iter().map(|found| found.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
    }
}

/// Runs with the classes of their lengths, and the lengths.
fn classified(runs: &[(usize, usize)]) -> (Vec<Run>, Vec<u32>) {
    let mut lengths: Vec<usize> = runs.iter().map(|run| run.1).collect();
    lengths.sort_unstable();
    lengths.dedup();
    if lengths.len() > LENGTHS {
        let frames: Vec<(usize, usize)> =
            runs.iter().flat_map(|&(first, len)| (first..first + len).map(|frame| (frame, 1))).collect();
        return classified(&frames);
    }
    let class = |len: usize| lengths.partition_point(|&other| other < len);
    let runs = runs.iter().map(|&(first, len)| Run { first, len, class: class(len) }).collect();
    (runs, lengths.into_iter().map(|len| len as u32).collect())
}

fn finite_or_zero(value: f32) -> f64 {
    if value.is_finite() { value.into() } else { 0.0 }
}

/// A value as a number of the same order; both zeros are one.
fn key_of(value: f32) -> u32 {
    let bits = (value + 0.0).to_bits();
    bits ^ ((bits.cast_signed() >> 31).cast_unsigned() | 1 << 31)
}

fn of_key(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key ^ 1 << 31 } else { !key })
}

/// Values that are counted in bins, of equal frames those of one.
fn values(bins: &[Bin]) -> usize {
    bins.as_flattened().iter().map(|&count| count as usize).sum()
}

/// Positions of the map that they are at.
fn positions(bins: &[Bin], lengths: &[u32]) -> u64 {
    bins.iter().flat_map(|bin| bin.iter().zip(lengths)).map(|(&count, &len)| u64::from(count) * u64::from(len)).sum()
}

/// Ranges of bins that make a piece each: of one bin, if it has more values.
fn ranges_of(bins: &[Bin]) -> Vec<Range<usize>> {
    let (mut ranges, mut own, mut held) = (Vec::new(), 0..0, 0);
    for (number, bin) in bins.iter().enumerate() {
        let more = values(std::slice::from_ref(bin));
        if more == 0 {
            continue;
        }
        if held > 0 && held + more > PIECE {
            ranges.push(own.clone());
            held = 0;
        }
        own = if held == 0 { number..number + 1 } else { own.start..number + 1 };
        held += more;
    }
    if held > 0 {
        ranges.push(own);
    }
    ranges
}

/// The levels of values, which are there as often as the runs of their class are long.
fn levels_of_values(mut classes: Vec<Vec<f32>>, lengths: &[u32]) -> impl Iterator<Item = Level> {
    for values in &mut classes {
        radsort::sort(values);
    }
    let mut rests: Vec<_> =
        classes.into_iter().zip(lengths.to_vec()).map(|(values, len)| (values.into_iter().peekable(), len)).collect();
    std::iter::from_fn(move || {
        let next = rests.iter_mut().filter_map(|(values, _)| values.peek().copied()).min_by(f32::total_cmp)?;
        let mut count = 0;
        for (values, len) in &mut rests {
            while values.next_if(|value| *value == next).is_some() {
                count += *len;
            }
        }
        Some(Level { value: next.into(), count })
    })
}

/// The levels of one bin.
fn levels_of_bin(bin: usize, counts: &[u32]) -> impl Iterator<Item = Level> {
    let there = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    there.map(move |(low, &count)| Level { value: of_key((bin * BINS + low) as u32).into(), count })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::FramePlacement;

    /// Both ways of measuring.
    fn measured(values: &[f32], from: Grid, to: Grid, placement: FramePlacement) -> [MapStatistics; 2] {
        let resampled = Resampled::new(values, from, to, placement, None);
        let [of_block, of_head] = &mut [vec![0.0; to.spatial()], vec![0.0; to.spatial()]];
        let whole = MapMeasurer::new(to).measure(&resampled.whole(), Sums { of_block, of_head });
        [resampled.measure_in_pieces(), whole]
    }

    #[test]
    fn a_map_in_pieces_is_measured_as_a_whole_one() {
        let from = Grid { frames: 3, height: 5, width: 7 };
        let mut random = fastrand::Rng::with_seed(7);
        let mut map = |of: fn(f32) -> f32| -> Vec<f32> { (0..from.spatial()).map(|_| of(random.f32())).collect() };
        let to = Grid { frames: 9, height: 331, width: 517 };
        let mut odd = map(|x| x);
        (odd[3], odd[40], odd[70]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
        let maps =
            [map(|x| x.powi(7)), map(|x| x - 0.5), map(|_| 0.25), map(|x| (x * 3.0).floor() * 0.0), odd, map(|x| -x)];
        for (number, map) in maps.iter().enumerate() {
            for placement in [FramePlacement::Causal, FramePlacement::Even] {
                let [found, expected] = measured(map, from, to, placement);
                let numbers = |of: &MapStatistics| {
                    let MapStatistics { distribution: d, location: l, .. } = *of;
                    let distribution = [d.sum, d.mean, d.std, d.min, d.max, d.entropy, d.gini, d.top1, d.top5, d.top10];
                    (distribution, [l.centroid_frame, l.centroid_y, l.centroid_x, l.spread])
                };
                let same = |a: f64, b: f64| (a - b).abs() <= 1e-12 * (1.0 + b.abs()) || (a.is_nan() && b.is_nan());
                let ((found_distribution, found_location), (distribution, location)) =
                    (numbers(&found), numbers(&expected));
                for (a, b) in found_distribution.into_iter().zip(distribution) {
                    assert!(same(a, b), "{number} {placement:?}: {found:?} {expected:?}");
                }
                if expected.nonfinite == 0 {
                    assert_eq!(found_location.map(f64::to_bits), location.map(f64::to_bits), "{number} {placement:?}");
                }
                assert_eq!((found.argmax, found.nonfinite), (expected.argmax, expected.nonfinite), "{number}");
            }
        }
    }

    #[test]
    fn keys_have_the_order_of_values() {
        let values = [f32::NEG_INFINITY, -2.5, -1e-40, 0.0, 1e-40, 0.5, 3.0, f32::INFINITY, f32::NAN];
        assert!(values.windows(2).all(|pair| key_of(pair[0]) < key_of(pair[1])));
        assert!(values[..8].iter().all(|&value| of_key(key_of(value)) == value));
        assert_eq!(key_of(-0.0), key_of(0.0));
    }
}
