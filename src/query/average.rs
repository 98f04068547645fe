//! Averages (and sums, extremes, deviations, medians) over any of blocks, heads, steps, videos and words.

use serde::{Deserialize, Serialize};

use super::QueryError;
use super::answer::{Answer, Maps, Statistics, axes, key_columns, shape_columns};
use super::explain::Explain;
use super::filter::Filter;
use super::key::Key;
use super::plan::{Group, Plan};
use super::selection::Selection;
use super::task::Reduction;
use crate::grid::Grid;
use crate::progress::Progress;
use crate::store::{Snapshot, Store};

/// What can be reduced over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// Videos: seeds and prompts.
    Video,
    /// Tracked words, and their token positions.
    Token,
    /// The token positions of a word.
    TokenIndex,
    /// Denoising steps.
    Step,
    /// Transformer blocks.
    Block,
    /// Attention heads.
    Head,
}

impl Dimension {
    const ALL: [(Self, Key, &'static str); 6] = [
        (Self::Video, Key::Video, "video"),
        (Self::Token, Key::Token, "token"),
        (Self::TokenIndex, Key::TokenIndex, "token_index"),
        (Self::Step, Key::Step, "step"),
        (Self::Block, Key::Block, "block"),
        (Self::Head, Key::Head, "head"),
    ];

    /// The keys that are left when some are reduced over.
    fn keys_without(over: &[Self]) -> Vec<Key> {
        let gone = |dimension: Self| {
            over.contains(&dimension) || (dimension == Self::TokenIndex && over.contains(&Self::Token))
        };
        Self::ALL.into_iter().filter(|(dimension, ..)| !gone(*dimension)).map(|(_, key, _)| key).collect()
    }
}

impl std::str::FromStr for Dimension {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = || Self::ALL.into_iter().map(|(_, _, name)| name);
        Self::ALL
            .into_iter()
            .find(|(_, _, name)| *name == text)
            .map(|(dimension, ..)| dimension)
            .ok_or_else(|| format!("`{text}` is none of {}", names().collect::<Vec<_>>().join(", ")))
    }
}

/// A question for averages.
#[derive(Debug, Clone)]
pub struct Average {
    /// The maps to average.
    pub filter: Filter,
    /// What to average over; each combination of the others gets one map.
    pub over: Vec<Dimension>,
    /// What becomes of the values at a position, and how.
    pub reduction: Reduction,
    /// Whether the maps are wanted, or only their statistics.
    pub values: bool,
}

impl Average {
    /// Over blocks and heads of all maps.
    #[must_use]
    pub fn new(filter: Filter) -> Self {
        Self { filter, over: vec![Dimension::Block, Dimension::Head], reduction: Reduction::default(), values: true }
    }

    fn plan(&self, snapshot: &Snapshot) -> Result<Plan, QueryError> {
        let mut selection = Selection::find(snapshot, &self.filter)?;
        let keys = Dimension::keys_without(&self.over);
        if keys.contains(&Key::Step) && !keys.contains(&Key::Video) {
            // A group is finished when the last video has come: step by step, only those of one step are open.
            selection.steps.sort_by_key(|step| step.step);
        }
        Plan::new(snapshot, &selection, &keys, self.reduction)
    }

    /// What answering will do.
    ///
    /// # Errors
    /// If the store cannot be read, nothing is selected, or maps of different grids would have to be averaged.
    pub fn explain(&self, store: &Store) -> Result<Explain, QueryError> {
        let (plan, snapshot) = store.of_one_state(|snapshot| self.plan(snapshot))?;
        let mut explain = plan.explain(&snapshot)?;
        explain.then.push("measure each map".into());
        Ok(explain)
    }

    /// One row, and one map if wanted, for each group; sorted by the groups' keys.
    ///
    /// # Errors
    /// As [`explain`](Self::explain), or if an array is damaged.
    pub fn run(&self, store: &Store, progress: &dyn Progress) -> Result<Answer, QueryError> {
        let (plan, snapshot) = store.of_one_state(|snapshot| self.plan(snapshot))?;
        answer_maps(&plan, &snapshot, self.values, progress)
    }
}

/// Runs a plan; its groups are the rows of the answer.
pub(super) fn answer_maps(
    plan: &Plan,
    snapshot: &Snapshot,
    with_values: bool,
    progress: &dyn Progress,
) -> Result<Answer, QueryError> {
    let mut order: Vec<usize> = (0..plan.groups.len()).collect();
    order.sort_by(|&a, &b| plan.groups[a].key.cmp(&plan.groups[b].key));
    let mut rank = vec![0; order.len()];
    for (row, &group) in order.iter().enumerate() {
        rank[group] = row;
    }
    let mut maps = Maps::default();
    let mut start = 0;
    for &group in &order {
        let Group { spatial, grid, .. } = plan.groups[group];
        maps.maps.push((start..start + spatial, axes(grid, spatial)));
        start += spatial;
    }
    if with_values {
        maps.values = vec![0.0; start];
    }
    let mut statistics = Statistics::with_room(order.len());
    let read = plan.run(snapshot, &plan.meter(progress), |reduced| {
        let of: Vec<(&[f32], Option<Grid>)> =
            reduced.iter().map(|reduced| (reduced.values.as_slice(), plan.groups[reduced.group].grid)).collect();
        statistics.put(reduced.iter().map(|reduced| rank[reduced.group]), Statistics::measure(&of));
        if with_values {
            for reduced in &reduced {
                let range = maps.maps[rank[reduced.group]].0.clone();
                maps.values[range].copy_from_slice(&reduced.values);
            }
        }
        Ok(())
    })?;
    let groups: Vec<&Group> = order.iter().map(|&group| &plan.groups[group]).collect();
    let mut columns = key_columns(&plan.keys, &groups);
    columns
        .extend(shape_columns(&groups.iter().map(|group| (group.maps, group.grid, group.spatial)).collect::<Vec<_>>()));
    columns.extend(statistics.columns()?);
    Ok(Answer {
        table: polars::prelude::DataFrame::new(groups.len(), columns)?,
        maps: with_values.then_some(maps),
        is_single_map: false,
        is_summarised: true,
        keys: plan.keys.iter().map(|key| key.column().to_owned()).collect(),
        notes: plan.notes.clone(),
        read,
    })
}
