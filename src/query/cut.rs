//! Cutting what is read into portions, small ones for threads, and for medians one range of positions after the other;
//! and which of them one message takes.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::task::{Piece, Placed, Portion, piece_groups};

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
            median_bytes: 256 << 20,
        }
    }
}

/// The portions of pieces of one array. `empty` is what they have in common.
pub(super) fn cut(empty: &Portion, pieces: Vec<(Arc<[Placed]>, Piece)>, bounds: &Bounds) -> Vec<Portion> {
    let chunk_bytes = empty.chunk_bytes();
    let group_bytes = empty.spatial * 8;
    let mut portions = Vec::new();
    let mut portion = empty.clone();
    let mut groups: BTreeSet<u32> = BTreeSet::new();
    for (placed, piece) in pieces {
        let of_piece = piece_groups(&placed, &piece, portion.maps_per_chunk);
        let more = of_piece.iter().filter(|group| !groups.contains(group)).count();
        let full = portion.pieces.len() * chunk_bytes >= bounds.portion_bytes
            || (groups.len() + more) * group_bytes > bounds.folded_bytes
            || !Arc::ptr_eq(&portion.placed, &placed);
        if full && !portion.pieces.is_empty() {
            portions.push(std::mem::replace(&mut portion, empty.clone()));
            groups.clear();
        }
        groups.extend(of_piece);
        portion.placed = placed;
        portion.pieces.push(piece);
    }
    if !portion.pieces.is_empty() {
        portions.push(portion);
    }
    portions
}

/// Medians need all values of a group: the portions, repeated for one range of positions after the other so that at
/// most so many bytes of values are held, and how often.
pub(super) fn in_ranges(portions: &[Portion], groups: usize, median_bytes: usize) -> (Vec<Portion>, u64) {
    let mut most = 0;
    let mut repeated = Vec::new();
    for set in connected(portions, groups) {
        let maps: usize = set.iter().map(|&portion| portions[portion].maps()).sum();
        let spatial = set.iter().map(|&portion| portions[portion].spatial).max().unwrap_or(0);
        let fitting = (median_bytes / (4 * maps.max(1))).max(1);
        let passes = spatial.div_ceil(fitting).max(1);
        let range = spatial.div_ceil(passes);
        most = most.max(passes as u64);
        for pass in 0..passes {
            let positions = pass * range..((pass + 1) * range).min(spatial);
            repeated.extend(
                set.iter().map(|&portion| Portion { positions: positions.clone(), ..portions[portion].clone() }),
            );
        }
    }
    (repeated, most)
}

/// Consecutive portions of the same positions that are merged with each other before they are with what comes before
/// them, wherever that is done: what one message takes.
pub(super) fn bundles(portions: &[Portion], bounds: &Bounds) -> Vec<Range<usize>> {
    let mut bundles = Vec::new();
    let (mut start, mut bytes, mut folded, mut pieces) = (0, 0, 0, 0);
    let mut groups: BTreeSet<u32> = BTreeSet::new();
    for (number, portion) in portions.iter().enumerate() {
        let own = portion.groups();
        let of_map = portion.positions.len() * size_of::<f64>();
        let holds_all = !portion.reduction.reducer.is_mergeable();
        let more = |groups: &BTreeSet<u32>| {
            if holds_all { portion.maps() * of_map } else { own.difference(groups).count() * of_map }
        };
        let is_full = bytes + portion.decoded_bytes() > bounds.bundle_bytes
            || folded + more(&groups) > bounds.bundle_folded_bytes
            || pieces + portion.pieces.len() > bounds.bundle_pieces
            || portion.positions != portions[start].positions;
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
fn connected(portions: &[Portion], groups: usize) -> Vec<Vec<usize>> {
    let mut set_of_group: Vec<Option<usize>> = vec![None; groups];
    let mut sets: Vec<Vec<usize>> = Vec::new();
    for (number, portion) in portions.iter().enumerate() {
        let own = portion.groups();
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
                for group in portions[portion].groups() {
                    set_of_group[group as usize] = Some(target);
                }
            }
            sets[target].extend(moved);
        }
        for group in own {
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
    fn pieces(rows: u32, group: fn(u32) -> u32) -> Vec<(Arc<[Placed]>, Piece)> {
        let placed: Arc<[Placed]> = [Placed { map: 0, token: 0, local: 0 }].into();
        (0..rows).map(|row| (placed.clone(), Piece { row, chunk: 0, groups: [group(row)].into() })).collect()
    }

    #[test]
    fn portions_end_when_they_decode_or_accumulate_enough() {
        let cut = |pieces, portion_maps: usize, folded_maps: usize| -> Vec<usize> {
            let bounds =
                Bounds { portion_bytes: portion_maps * 20, folded_bytes: folded_maps * 80, ..Bounds::default() };
            cut(&empty(10), pieces, &bounds).iter().map(|portion| portion.pieces.len()).collect()
        };
        assert_eq!(cut(pieces(0, |_| 0), 1, 1), Vec::<usize>::new());
        assert_eq!(cut(pieces(9, |_| 0), 4, 9), [4, 4, 1], "by what is decoded");
        assert_eq!(cut(pieces(5, |row| row), 9, 2), [2, 2, 1], "by what is accumulated");
        assert_eq!(cut(pieces(5, |_| 0), 9, 2), [5], "one group is accumulated once");
        assert_eq!(cut(pieces(2, |row| row), 9, 0), [1, 1], "a portion has one chunk at least");
        let mut others = pieces(2, |_| 0);
        others.extend(pieces(1, |_| 0));
        assert_eq!(cut(others, 9, 9), [2, 1], "a portion has one choice of maps");
    }

    #[test]
    fn bundles_end_when_they_decode_accumulate_or_name_enough() {
        let one_each = Bounds { portion_bytes: 1, ..Bounds::default() };
        let bundled = |group: fn(u32) -> u32, bounds: &Bounds| -> Vec<usize> {
            bundles(&cut(&empty(10), pieces(5, group), &one_each), bounds).iter().map(Range::len).collect()
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
        let mut portions = cut(&empty(10), pieces(2, |_| 0), &Bounds { portion_bytes: 1, ..bounds });
        portions.extend(cut(&empty(10), pieces(1, |_| 1), &bounds));
        assert_eq!(connected(&portions, 2), [vec![0, 1], vec![2]]);
        let (repeated, passes) = in_ranges(&portions, 2, 4 * 2 * 5);
        let ranges: Vec<_> =
            repeated.iter().map(|portion| (portion.pieces[0].groups[0], portion.positions.clone())).collect();
        assert_eq!(ranges, [(0, 0..5), (0, 0..5), (0, 5..10), (0, 5..10), (1, 0..10)]);
        assert_eq!((passes, in_ranges(&portions, 2, usize::MAX).1), (2, 1));
        assert_eq!(bundles(&repeated, &bounds), [0..2, 2..4, 4..5], "a bundle is of one range");
    }
}
