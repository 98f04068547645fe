//! Which array answers for a word: a rollup, where it holds exactly what is asked.

use super::key::Key;
use super::selection::{Maps, SelectedStep};
use super::task::Reduction;
use crate::kernel::Reducer;
use crate::shape::StepShape;
use crate::store::{ArrayKind, series_of};

/// The smallest array that answers exactly for steps of one array: a rollup if means over all blocks or heads are what
/// goes in. If it is none, why not; `None` where no rollup could be asked.
pub(super) fn choose(
    series: &[SelectedStep],
    keys: &[Key],
    reduction: Reduction,
    has_rollups: impl FnOnce() -> bool,
) -> (ArrayKind, Option<&'static str>) {
    let Some(first) = series.first() else { return (ArrayKind::Attention, None) };
    let over_block = !keys.contains(&Key::Block) && first.shape.blocks > 1;
    let over_head = !keys.contains(&Key::Head) && first.shape.heads > 1;
    let rollups: &[ArrayKind] = match (over_block, over_head) {
        (true, true) => &[ArrayKind::Mean, ArrayKind::MeanBlock, ArrayKind::MeanHead],
        (true, false) => &[ArrayKind::MeanBlock],
        (false, true) => &[ArrayKind::MeanHead],
        (false, false) => return (ArrayKind::Attention, None),
    };
    let fits = |kind: &ArrayKind| {
        series.iter().all(|step| match &step.maps {
            Maps::All => true,
            Maps::Some(chosen) => is_whole(chosen, step.shape, *kind),
        })
    };
    let refused = if reduction.reducer != Reducer::Mean {
        "a rollup holds means only"
    } else if reduction.skipna {
        "a rollup does not leave out non-finite values"
    } else if !reduction.rollups {
        "--no-rollups"
    } else if !has_rollups() {
        "the store was made without rollups"
    } else if let Some(kind) = rollups.iter().copied().find(fits) {
        return (kind, None);
    } else {
        "not all maps are selected along any axis that is averaged"
    };
    (ArrayKind::Attention, Some(refused))
}

/// Whether a choice of maps takes all or none along the axes that a rollup averages.
fn is_whole(chosen: &[bool], shape: StepShape, kind: ArrayKind) -> bool {
    let StepShape { blocks, heads, tokens, .. } = shape;
    let at = |block: usize, head: usize, token: usize| chosen[(block * heads + head) * tokens + token];
    let same = |block: usize, head: usize, token: usize| match kind {
        ArrayKind::Attention => true,
        ArrayKind::MeanHead => at(block, head, token) == at(block, 0, token),
        ArrayKind::MeanBlock => at(block, head, token) == at(0, head, token),
        ArrayKind::Mean => at(block, head, token) == at(0, 0, token),
    };
    (0..blocks).all(|block| (0..heads).all(|head| (0..tokens).all(|token| same(block, head, token))))
}

/// Maps that a value of an array stands for.
pub(super) fn weight(kind: ArrayKind, shape: StepShape) -> u32 {
    let maps = match kind {
        ArrayKind::Attention => 1,
        ArrayKind::MeanHead => shape.heads,
        ArrayKind::MeanBlock => shape.blocks,
        ArrayKind::Mean => shape.blocks * shape.heads,
    };
    u32::try_from(maps).unwrap_or(u32::MAX)
}

pub(super) fn rollup_path(attention: &str, kind: ArrayKind) -> String {
    format!("{}/{}", series_of(attention), kind.name())
}
