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
