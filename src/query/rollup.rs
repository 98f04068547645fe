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
    has: impl Fn(ArrayKind) -> bool,
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
        "they are not wanted"
    } else if !rollups.iter().any(fits) {
        "not all maps are selected along any axis that is averaged"
    } else if let Some(kind) = rollups.iter().copied().find(|kind| fits(kind) && has(*kind)) {
        return (kind, None);
    } else {
        "the store has none that answers"
    };
    (ArrayKind::Attention, Some(refused))
}

/// Whether a choice of maps takes all or none along the axes that a rollup averages.
fn is_whole(chosen: &[bool], shape: StepShape, kind: ArrayKind) -> bool {
    let StepShape { blocks, heads, tokens, .. } = shape;
    let mean = kind.step_shape(shape);
    let at = |block: usize, head: usize, token: usize| chosen[(block * heads + head) * tokens + token];
    let same = |block: usize, head: usize, token: usize| {
        at(block, head, token) == at(block.min(mean.blocks - 1), head.min(mean.heads - 1), token)
    };
    (0..blocks).all(|block| (0..heads).all(|head| (0..tokens).all(|token| same(block, head, token))))
}

/// Maps that a value of an array stands for.
pub(super) fn weight(kind: ArrayKind, shape: StepShape) -> u32 {
    let mean = kind.step_shape(shape);
    u32::try_from((shape.blocks / mean.blocks) * (shape.heads / mean.heads)).unwrap_or(u32::MAX)
}

pub(super) fn rollup_path(attention: &str, kind: ArrayKind) -> String {
    format!("{}/{}", series_of(attention), kind.name())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::dtype::Dtype;
    use crate::shape::AxisNumbers;

    const SHAPE: StepShape = StepShape { blocks: 2, heads: 2, spatial: 4, tokens: 1 };

    /// Of `[block, head]`.
    type Marks = Option<[bool; 4]>;

    /// A step with the maps `[block, head]` that are marked.
    fn step(shape: StepShape, marks: Marks) -> SelectedStep {
        SelectedStep {
            video_id: "v".into(),
            prompt: None,
            text: None,
            seed: None,
            token: "t".into(),
            weight: None,
            step: 0,
            timestep: None,
            shape,
            numbers: Arc::new(AxisNumbers::default()),
            grid: None,
            dtype: Dtype::Float16,
            array: "maps/attention".into(),
            row: 0,
            maps: marks.map_or(Maps::All, |marks| Maps::Some(marks.as_slice().into())),
        }
    }

    #[test]
    fn the_smallest_array_that_answers_exactly_is_read() {
        use ArrayKind::{Attention, Mean, MeanBlock, MeanHead};
        let (all, one_block, one_head, one_map) = (
            None,
            Some([true, true, false, false]),
            Some([true, false, true, false]),
            Some([true, false, false, false]),
        );
        let table: [(&[Key], Marks, ArrayKind); 10] = [
            (&[Key::Step], all, Mean),
            (&[Key::Step], one_block, MeanHead),
            (&[Key::Step], one_head, MeanBlock),
            (&[Key::Step], one_map, Attention),
            (&[Key::Block], all, MeanHead),
            (&[Key::Block], one_block, MeanHead),
            (&[Key::Block], one_head, Attention),
            (&[Key::Head], all, MeanBlock),
            (&[Key::Head], one_block, Attention),
            (&[Key::Block, Key::Head], all, Attention),
        ];
        for (keys, marks, expected) in table {
            let (found, refused) = choose(&[step(SHAPE, marks)], keys, Reduction::default(), |_| true);
            assert_eq!(found, expected, "{keys:?} {marks:?}");
            assert_eq!(refused.is_some(), found == Attention && keys.len() == 1, "{keys:?} {marks:?}");
        }
        let mixed = [step(SHAPE, all), step(SHAPE, one_block)];
        assert_eq!(
            choose(&mixed, &[Key::Step], Reduction::default(), |_| true).0,
            MeanHead,
            "every step must allow it"
        );
    }

    #[test]
    fn of_the_rollups_there_are_the_smallest_is_read() {
        let steps = [step(SHAPE, None)];
        let chosen =
            |there: &[ArrayKind]| choose(&steps, &[Key::Step], Reduction::default(), |kind| there.contains(&kind)).0;
        assert_eq!(chosen(&[ArrayKind::MeanHead, ArrayKind::MeanBlock]), ArrayKind::MeanBlock);
        assert_eq!(chosen(&[ArrayKind::MeanHead]), ArrayKind::MeanHead);
        assert_eq!(chosen(&[]), ArrayKind::Attention);
    }

    #[test]
    fn why_no_rollup_is_read_is_said() {
        let steps = [step(SHAPE, None)];
        let refused = |reduction, has_rollups| choose(&steps, &[], reduction, |_| has_rollups).1;
        let usual = Reduction::default();
        assert_eq!(refused(usual, true), None);
        assert_eq!(refused(usual, false), Some("the store has none that answers"));
        assert_eq!(refused(Reduction { reducer: Reducer::Max, ..usual }, true), Some("a rollup holds means only"));
        assert_eq!(refused(Reduction { rollups: false, ..usual }, true), Some("they are not wanted"));
        let skipna = Reduction { skipna: true, ..usual };
        assert_eq!(refused(skipna, true), Some("a rollup does not leave out non-finite values"));
        let averaged = StepShape { blocks: 1, heads: 1, ..SHAPE };
        assert_eq!(choose(&[step(averaged, None)], &[], usual, |_| false), (ArrayKind::Attention, None));
    }
}
