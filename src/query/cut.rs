//! Cutting what is read into tasks: small ones for threads, and for medians one range of positions after the other.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::task::{Piece, Placed, Task, task_groups};

/// A task decodes about this much.
const TASK_BYTES: usize = 2 << 20;
/// What a task accumulates stays below this, if one chunk allows it.
const PARTIAL_BYTES: usize = 16 << 20;

/// The tasks of pieces of one array. `empty` is what they have in common.
pub(super) fn cut(empty: &Task, pieces: Vec<(Arc<[Placed]>, Piece)>, chunk_bytes: usize) -> Vec<Task> {
    let group_bytes = empty.spatial * 8;
    let mut tasks = Vec::new();
    let mut task = empty.clone();
    let mut groups: BTreeSet<u32> = BTreeSet::new();
    for (placed, piece) in pieces {
        let of_piece = task_groups(&placed, &piece, task.maps_per_chunk);
        let more = of_piece.iter().filter(|group| !groups.contains(group)).count();
        let full = task.pieces.len() * chunk_bytes >= TASK_BYTES
            || (groups.len() + more) * group_bytes > PARTIAL_BYTES
            || !Arc::ptr_eq(&task.placed, &placed);
        if full && !task.pieces.is_empty() {
            tasks.push(std::mem::replace(&mut task, empty.clone()));
            groups.clear();
        }
        groups.extend(of_piece);
        task.placed = placed;
        task.pieces.push(piece);
    }
    if !task.pieces.is_empty() {
        tasks.push(task);
    }
    tasks
}

/// Medians need all values of a group: the tasks, repeated for one range of positions after the other so that at most
/// so many bytes of values are held, and how often.
pub(super) fn in_ranges(tasks: &[Task], groups: usize, median_bytes: usize) -> (Vec<Task>, u64) {
    let mut most = 0;
    let mut repeated = Vec::new();
    for set in connected(tasks, groups) {
        let maps: usize = set.iter().map(|&task| tasks[task].maps()).sum();
        let spatial = set.iter().map(|&task| tasks[task].spatial).max().unwrap_or(0);
        let fitting = (median_bytes / (4 * maps.max(1))).max(1);
        let passes = spatial.div_ceil(fitting).max(1);
        let range = spatial.div_ceil(passes);
        most = most.max(passes as u64);
        for pass in 0..passes {
            let positions = pass * range..((pass + 1) * range).min(spatial);
            repeated.extend(set.iter().map(|&task| Task { positions: positions.clone(), ..tasks[task].clone() }));
        }
    }
    (repeated, most)
}

/// Sets of tasks that share groups, in the order of their first tasks.
fn connected(tasks: &[Task], groups: usize) -> Vec<Vec<usize>> {
    let mut set_of_group: Vec<Option<usize>> = vec![None; groups];
    let mut sets: Vec<Vec<usize>> = Vec::new();
    for (number, task) in tasks.iter().enumerate() {
        let own = task.groups();
        let mut known: Vec<usize> = own.iter().filter_map(|group| set_of_group[*group as usize]).collect();
        known.sort_unstable();
        known.dedup();
        let target = known.first().copied().unwrap_or_else(|| {
            sets.push(Vec::new());
            sets.len() - 1
        });
        for &other in known.iter().skip(1) {
            let moved = std::mem::take(&mut sets[other]);
            for &task in &moved {
                for group in tasks[task].groups() {
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

    fn empty(spatial: usize) -> Task {
        Task {
            array: "maps/attention".into(),
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
    fn tasks_end_when_they_decode_or_accumulate_enough() {
        let rows = |spatial, pieces, chunk_bytes| -> Vec<usize> {
            cut(&empty(spatial), pieces, chunk_bytes).iter().map(|task| task.pieces.len()).collect()
        };
        assert_eq!(rows(1, pieces(0, |_| 0), 1), Vec::<usize>::new());
        assert_eq!(rows(1, pieces(9, |_| 0), TASK_BYTES / 4), [4, 4, 1], "by what is decoded");
        let wide = PARTIAL_BYTES / 8 / 2;
        assert_eq!(rows(wide, pieces(5, |row| row), 1), [2, 2, 1], "by what is accumulated");
        assert_eq!(rows(wide, pieces(5, |_| 0), 1), [5], "one group is accumulated once");
        assert_eq!(rows(4 * wide, pieces(2, |row| row), 1), [1, 1], "a task has one chunk at least");
        let mut others = pieces(2, |_| 0);
        others.extend(pieces(1, |_| 0));
        assert_eq!(rows(1, others, 1), [2, 1], "a task has one choice of maps");
    }

    #[test]
    fn medians_go_through_ranges_set_by_set() {
        let mut tasks = cut(&empty(10), pieces(2, |_| 0), TASK_BYTES);
        tasks.extend(cut(&empty(10), pieces(1, |_| 1), TASK_BYTES));
        assert_eq!(connected(&tasks, 2), [vec![0, 1], vec![2]]);
        let (repeated, passes) = in_ranges(&tasks, 2, 4 * 2 * 5);
        let ranges: Vec<_> = repeated.iter().map(|task| (task.pieces[0].groups[0], task.positions.clone())).collect();
        assert_eq!(ranges, [(0, 0..5), (0, 0..5), (0, 5..10), (0, 5..10), (1, 0..10)]);
        assert_eq!((passes, in_ranges(&tasks, 2, usize::MAX).1), (2, 1));
    }
}
