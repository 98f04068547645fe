//! Cutting what is read into portions, small ones for threads, and for medians one range of positions after the other;
//! and which of them one message takes.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::task::{Piece, Placed, Portion};

/// How much is done at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// A portion decodes about this much.
    pub portion_bytes: usize,
    /// What a portion accumulates stays below this, if one chunk allows it.
    pub folded_bytes: usize,
    /// What a bundle decodes stays below this,
    pub bundle_bytes: u64,
    /// what it accumulates below this, if one portion allows it,
    pub bundle_folded_bytes: usize,
    /// and it has at most so many chunks: each is named in a message.
    pub bundle_pieces: usize,
    /// All values of a median are held at once, for as many positions as fit into this.
    pub median_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            portion_bytes: 2 << 20,
            folded_bytes: 16 << 20,
            bundle_bytes: 256 << 20,
            bundle_folded_bytes: 64 << 20,
            bundle_pieces: 4096,
            median_bytes: 512 << 20,
        }
    }
}

/// The maps to read of a step, and in which of its chunks they are.
#[derive(Debug)]
pub(super) struct Placing {
    pub placed: Arc<[Placed]>,
    chunks: Vec<Holding>,
}

/// What is read of a chunk.
#[derive(Debug)]
struct Holding {
    chunk: u32,
    /// Maps, and the groups among those of the step that they go to.
    maps: usize,
    locals: Vec<u32>,
}

impl Placing {
    /// Of maps, ascending, in chunks that hold so many.
    pub fn new(placed: Arc<[Placed]>, maps_per_chunk: usize) -> Self {
        let chunk_of = |placed: &Placed| placed.map as usize / maps_per_chunk;
        let holding = |placed: &[Placed]| {
            let locals: BTreeSet<u32> = placed.iter().map(|placed| placed.local).collect();
            #[allow(clippy::cast_possible_truncation)] // maps of a step are counted so
            let chunk = placed.first().map_or(0, chunk_of) as u32;
            Holding { chunk, maps: placed.len(), locals: locals.into_iter().collect() }
        };
        let chunks = placed.chunk_by(|a, b| chunk_of(a) == chunk_of(b)).map(holding).collect();
        Self { placed, chunks }
    }
}

/// What is read of one step, and the groups that it goes to.
pub(super) struct Reading {
    pub row: u32,
    pub placing: Arc<Placing>,
    /// The groups of the step.
    pub groups: Arc<[u32]>,
}

/// A portion, and what planning asks of it.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    pub portion: Portion,
    /// The groups that its maps go to.
    pub groups: BTreeSet<u32>,
    /// Maps that it reads.
    maps: usize,
}

/// The portions of steps of one array, chunk by chunk of all steps if these go to the same groups, else step by step.
/// `empty` is what they have in common.
pub(super) fn cut(empty: &Portion, steps: &[Reading], by_chunk: bool, bounds: &Bounds) -> Vec<Cut> {
    let mut pieces: Vec<(&Reading, &Holding)> =
        steps.iter().flat_map(|step| step.placing.chunks.iter().map(move |holding| (step, holding))).collect();
    if by_chunk {
        pieces.sort_by_key(|(step, holding)| (holding.chunk, step.row));
    }
    let (chunk_bytes, group_bytes) = (empty.chunk_bytes(), empty.spatial * size_of::<f64>());
    let nothing = || Cut { portion: empty.clone(), groups: BTreeSet::new(), maps: 0 };
    let mut portions = Vec::new();
    let mut own = nothing();
    for (step, holding) in pieces {
        let of_piece = || holding.locals.iter().map(|&local| step.groups[local as usize]);
        let more = of_piece().filter(|group| !own.groups.contains(group)).count();
        let full = own.portion.pieces.len() * chunk_bytes >= bounds.portion_bytes
            || (own.groups.len() + more) * group_bytes > bounds.folded_bytes
            || !Arc::ptr_eq(&own.portion.placed, &step.placing.placed);
        if full && !own.portion.pieces.is_empty() {
            portions.push(std::mem::replace(&mut own, nothing()));
        }
        own.groups.extend(of_piece());
        own.maps += holding.maps;
        own.portion.placed = step.placing.placed.clone();
        own.portion.pieces.push(Piece { row: step.row, chunk: holding.chunk, groups: step.groups.clone() });
    }
    if !own.portion.pieces.is_empty() {
        portions.push(own);
    }
    portions
}

/// Medians need all values of a group: the portions, repeated for one range of positions after the other so that at
/// most so many bytes of values are held, and how often.
pub(super) fn in_ranges(portions: &[Cut], groups: usize, median_bytes: usize) -> (Vec<Cut>, u64) {
    let mut most = 0;
    let mut repeated = Vec::new();
    for set in connected(portions, groups) {
        let maps: usize = set.iter().map(|&cut| portions[cut].maps).sum();
        let spatial = set.iter().map(|&cut| portions[cut].portion.spatial).max().unwrap_or(0);
        let kept = set.iter().map(|&cut| portions[cut].portion.kept_size()).max().unwrap_or(0);
        let fitting = (median_bytes / (kept * maps).max(1)).max(1);
        let passes = spatial.div_ceil(fitting).max(1);
        let range = spatial.div_ceil(passes);
        most = most.max(passes as u64);
        for pass in 0..passes {
            let positions = pass * range..((pass + 1) * range).min(spatial);
            repeated.extend(set.iter().map(|&cut| {
                let mut repeated = portions[cut].clone();
                repeated.portion.positions = positions.clone();
                repeated
            }));
        }
    }
    (repeated, most)
}

/// Consecutive portions of the same positions that are merged with each other before they are with what comes before
/// them, wherever that is done: what one message takes.
pub(super) fn bundles(portions: &[Cut], bounds: &Bounds) -> Vec<Range<usize>> {
    let mut bundles = Vec::new();
    let (mut start, mut bytes, mut folded, mut pieces) = (0, 0, 0, 0);
    let mut groups: BTreeSet<u32> = BTreeSet::new();
    for (number, Cut { portion, groups: own, maps }) in portions.iter().enumerate() {
        let positions = portion.positions.len();
        let holds_all = !portion.reduction.reducer.is_mergeable();
        let more = |groups: &BTreeSet<u32>| {
            if holds_all {
                maps * positions * portion.kept_size()
            } else {
                own.difference(groups).count() * positions * size_of::<f64>()
            }
        };
        let is_full = bytes + portion.decoded_bytes() > bounds.bundle_bytes
            || folded + more(&groups) > bounds.bundle_folded_bytes
            || pieces + portion.pieces.len() > bounds.bundle_pieces
            || portion.positions != portions[start].portion.positions;
        if is_full && number > start {
            bundles.push(start..number);
            (start, bytes, folded, pieces) = (number, 0, 0, 0);
            groups.clear();
        }
        folded += more(&groups);
        bytes += portion.decoded_bytes();
        pieces += portion.pieces.len();
        groups.extend(own);
    }
    if start < portions.len() {
        bundles.push(start..portions.len());
    }
    bundles
}

/// Sets of portions that share groups, in the order of their first portions.
fn connected(portions: &[Cut], groups: usize) -> Vec<Vec<usize>> {
    let mut set_of_group: Vec<Option<usize>> = vec![None; groups];
    let mut sets: Vec<Vec<usize>> = Vec::new();
    for (number, Cut { groups: own, .. }) in portions.iter().enumerate() {
        let mut known: Vec<usize> = own.iter().filter_map(|group| set_of_group[*group as usize]).collect();
        known.sort_unstable();
        known.dedup();
        let target = known.first().copied().unwrap_or_else(|| {
            sets.push(Vec::new());
            sets.len() - 1
        });
        for &other in known.iter().skip(1) {
            let moved = std::mem::take(&mut sets[other]);
            for &portion in &moved {
                for &group in &portions[portion].groups {
                    set_of_group[group as usize] = Some(target);
                }
            }
            sets[target].extend(moved);
        }
        for &group in own {
            set_of_group[group as usize] = Some(target);
        }
        sets[target].push(number);
    }
    sets.into_iter()
        .filter(|set| !set.is_empty())
        .map(|mut set| {
            set.sort_unstable();
            set
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;
    use crate::query::task::Reduction;
    use crate::store::ArrayKind;

    /// Of chunks of one map.
    fn empty(spatial: usize) -> Portion {
        Portion {
            array: "maps/attention".into(),
            kind: ArrayKind::Attention,
            dtype: Dtype::Float16,
            spatial,
            tokens: 1,
            maps_per_chunk: 1,
            weight: 1,
            positions: 0..spatial,
            reduction: Reduction::default(),
            placed: Arc::new([]),
            pieces: Vec::new(),
        }
    }

    /// One map of each row, which goes to the group that `group` names.
    fn steps(rows: u32, group: fn(u32) -> u32) -> Vec<Reading> {
        let placing = Arc::new(Placing::new([Placed { map: 0, token: 0, local: 0 }].into(), 1));
        (0..rows).map(|row| Reading { row, placing: placing.clone(), groups: [group(row)].into() }).collect()
    }

    fn cut_of(steps: &[Reading], bounds: &Bounds) -> Vec<Cut> {
        cut(&empty(10), steps, false, bounds)
    }

    #[test]
    fn portions_end_when_they_decode_or_accumulate_enough() {
        let cut = |steps: Vec<Reading>, portion_maps: usize, folded_maps: usize| -> Vec<usize> {
            let bounds =
                Bounds { portion_bytes: portion_maps * 20, folded_bytes: folded_maps * 80, ..Bounds::default() };
            cut_of(&steps, &bounds).iter().map(|cut| cut.portion.pieces.len()).collect()
        };
        assert_eq!(cut(steps(0, |_| 0), 1, 1), Vec::<usize>::new());
        assert_eq!(cut(steps(9, |_| 0), 4, 9), [4, 4, 1], "by what is decoded");
        assert_eq!(cut(steps(5, |row| row), 9, 2), [2, 2, 1], "by what is accumulated");
        assert_eq!(cut(steps(5, |_| 0), 9, 2), [5], "one group is accumulated once");
        assert_eq!(cut(steps(2, |row| row), 9, 0), [1, 1], "a portion has one chunk at least");
        let mut others = steps(2, |_| 0);
        others.extend(steps(1, |_| 0));
        assert_eq!(cut(others, 9, 9), [2, 1], "a portion has one choice of maps");
    }

    #[test]
    fn chunks_of_all_steps_come_together_if_they_go_to_the_same_groups() {
        let placed = |map| Placed { map, token: 0, local: map / 2 };
        let placing = Arc::new(Placing::new([0, 1, 3, 5].map(placed).into(), 2));
        let groups: Arc<[u32]> = [7, 8, 9].into();
        let steps: Vec<Reading> =
            (0..2).map(|row| Reading { row, placing: placing.clone(), groups: groups.clone() }).collect();
        let of = |by_chunk| -> Vec<(u32, u32)> {
            let cuts = cut(&Portion { maps_per_chunk: 2, ..empty(10) }, &steps, by_chunk, &Bounds::default());
            assert_eq!((cuts.len(), cuts[0].maps, &cuts[0].groups), (1, 8, &BTreeSet::from([7, 8, 9])));
            cuts[0].portion.pieces.iter().map(|piece| (piece.row, piece.chunk)).collect()
        };
        assert_eq!(of(false), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
        assert_eq!(of(true), [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]);
    }

    #[test]
    fn bundles_end_when_they_decode_accumulate_or_name_enough() {
        let one_each = Bounds { portion_bytes: 1, ..Bounds::default() };
        let bundled = |group: fn(u32) -> u32, bounds: &Bounds| -> Vec<usize> {
            bundles(&cut_of(&steps(5, group), &one_each), bounds).iter().map(Range::len).collect()
        };
        assert_eq!(bundled(|_| 0, &one_each), [5]);
        assert_eq!(bundled(|_| 0, &Bounds { bundle_bytes: 40, ..one_each }), [2, 2, 1]);
        assert_eq!(bundled(|_| 0, &Bounds { bundle_pieces: 3, ..one_each }), [3, 2]);
        let folded = Bounds { bundle_folded_bytes: 2 * 80, ..one_each };
        assert_eq!(bundled(|row| row, &folded), [2, 2, 1]);
        assert_eq!(bundled(|_| 0, &folded), [5], "one group is accumulated once");
        assert_eq!(
            bundled(|_| 0, &Bounds { bundle_bytes: 0, ..one_each }),
            [1; 5],
            "a bundle has one portion at least"
        );
        assert!(bundles(&[], &one_each).is_empty());
    }

    #[test]
    fn medians_go_through_ranges_set_by_set() {
        let bounds = Bounds::default();
        let mut portions = cut_of(&steps(2, |_| 0), &Bounds { portion_bytes: 1, ..bounds });
        portions.extend(cut_of(&steps(1, |_| 1), &bounds));
        assert_eq!(connected(&portions, 2), [vec![0, 1], vec![2]]);
        let (repeated, passes) = in_ranges(&portions, 2, 2 * 2 * 5);
        let ranges: Vec<_> =
            repeated.iter().map(|cut| (cut.portion.pieces[0].groups[0], cut.portion.positions.clone())).collect();
        assert_eq!(ranges, [(0, 0..5), (0, 0..5), (0, 5..10), (0, 5..10), (1, 0..10)]);
        assert_eq!((passes, in_ranges(&portions, 2, usize::MAX).1), (2, 1));
        assert_eq!(bundles(&repeated, &bounds), [0..2, 2..4, 4..5], "a bundle is of one range");
    }
}
