//! Averages (and sums, extremes, deviations, medians) over any of blocks, heads, steps, videos and words.

use polars::prelude::DataFrame;
use serde::{Deserialize, Serialize};

use super::QueryError;
use super::answer::{Answer, AnswerKind, Arrange, Maps, Statistics, axes, key_columns, shape_columns};
use super::compare::Across;
use super::explain::Explain;
use super::filter::Filter;
use super::key::Key;
use super::merge::{Assembly, Reduced};
use super::plan::{self, Ending, Plan};
use super::selection::Selection;
use super::task::Reduction;
use super::work::Group;
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Average {
    /// The maps to average.
    pub filter: Filter,
    /// What to average over; each combination of the others gets one map.
    pub over: Vec<Dimension>,
    /// What to keep apart instead: each combination of these gets one map, over all else. Empty: `over` says it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<Across>,
    /// What becomes of the values at a position, and how.
    pub reduction: Reduction,
    /// Whether the maps are wanted, or only their statistics.
    pub values: bool,
    /// Order, number and columns of the rows.
    pub arrange: Arrange,
}

impl Default for Average {
    /// Over blocks and heads of all maps.
    fn default() -> Self {
        Self {
            filter: Filter::all(),
            over: vec![Dimension::Block, Dimension::Head],
            by: Vec::new(),
            reduction: Reduction::default(),
            values: true,
            arrange: Arrange::default(),
        }
    }
}

impl Average {
    /// Over blocks and heads of these maps.
    #[must_use]
    pub fn new(filter: Filter) -> Self {
        Self { filter, ..Self::default() }
    }

    /// What tells the groups apart.
    fn keys(&self) -> Vec<Key> {
        if self.by.is_empty() {
            return Dimension::keys_without(&self.over);
        }
        let mut keys: Vec<Key> = Vec::new();
        for key in self.by.iter().map(|by| by.key()) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    /// What will be done to answer it on a state of a store.
    ///
    /// # Errors
    /// If the store cannot be read, nothing is selected, or maps of different grids would have to be averaged.
    pub fn plan(&self, snapshot: &Snapshot) -> Result<Plan, QueryError> {
        let mut selection = Selection::find(snapshot, &self.filter)?;
        let keys = self.keys();
        if keys.contains(&Key::Step) && !keys.contains(&Key::Video) {
            // A group is finished when the last video has come: step by step, only those of one step are open.
            selection.steps.sort_by_key(|step| step.step);
        }
        let each = EachMap { with_values: self.values, kind: AnswerKind::Maps };
        Ok(Plan::new(snapshot, &selection.steps, &keys, self.reduction, each)?.arranged(&self.arrange))
    }

    /// What answering will do.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub fn explain(&self, store: &Store) -> Result<Explain, QueryError> {
        plan::explain(store, |snapshot| self.plan(snapshot))
    }

    /// One row, and one map if wanted, for each group; sorted by the groups' keys.
    ///
    /// # Errors
    /// As [`plan`](Self::plan), or if an array is damaged.
    pub fn run(&self, store: &Store, progress: &dyn Progress) -> Result<Answer, QueryError> {
        plan::run(store, |snapshot| self.plan(snapshot), progress)
    }
}

/// Each group's map is a row of the answer.
#[derive(Debug)]
pub(super) struct EachMap {
    pub with_values: bool,
    pub kind: AnswerKind,
}

impl Ending for EachMap {
    fn begin<'a>(&'a self, plan: &'a Plan) -> Box<dyn Assembly + 'a> {
        Box::new(MapRows::new(plan, self))
    }

    fn explain(&self, _: &Plan) -> Vec<String> {
        vec!["measure each map".into()]
    }
}

/// The rows of the groups' maps, sorted by their keys.
pub(super) struct MapRows<'a> {
    keys: &'a [Key],
    /// The groups in the order of the rows, and the row of each.
    groups: Vec<&'a Group>,
    row_of: Vec<usize>,
    kind: AnswerKind,
    with_values: bool,
    maps: Maps,
    statistics: Statistics,
}

impl<'a> MapRows<'a> {
    pub fn new(plan: &'a Plan, each: &EachMap) -> Self {
        let groups = plan.groups();
        let mut order: Vec<usize> = (0..groups.len()).collect();
        order.sort_by(|&a, &b| groups[a].key.cmp(&groups[b].key));
        let mut row_of = vec![0; order.len()];
        for (row, &group) in order.iter().enumerate() {
            row_of[group] = row;
        }
        let mut maps = Maps::default();
        let mut start = 0;
        for &group in &order {
            let Group { spatial, grid, .. } = groups[group];
            maps.maps.push((start..start + spatial, axes(grid, spatial)));
            start += spatial;
        }
        if each.with_values {
            maps.values = vec![0.0; start];
        }
        Self {
            keys: plan.keys(),
            statistics: Statistics::with_room(order.len()),
            groups: order.into_iter().map(|group| &groups[group]).collect(),
            row_of,
            kind: each.kind,
            with_values: each.with_values,
            maps,
        }
    }

    pub fn answer(self) -> Result<Answer, QueryError> {
        let mut columns = key_columns(self.keys, &self.groups);
        let shapes: Vec<_> = self.groups.iter().map(|group| (group.maps, group.grid, group.spatial)).collect();
        columns.extend(shape_columns(&shapes));
        columns.extend(self.statistics.columns()?);
        let table = DataFrame::new(self.groups.len(), columns)?;
        let keys: Vec<&str> = self.keys.iter().map(|key| key.column()).collect();
        Ok(Answer { maps: self.with_values.then_some(self.maps), ..Answer::of_table(self.kind, table, &keys) })
    }
}

impl Assembly for MapRows<'_> {
    fn take(&mut self, reduced: Vec<Reduced>) -> Result<(), QueryError> {
        let row_of = |one: &Reduced| self.row_of[one.group];
        let of: Vec<(&[f32], Option<Grid>)> =
            reduced.iter().map(|one| (one.values.as_slice(), self.groups[row_of(one)].grid)).collect();
        self.statistics.put(reduced.iter().map(row_of), Statistics::measure(&of));
        if self.with_values {
            for one in &reduced {
                let range = self.maps.maps[self.row_of[one.group]].0.clone();
                self.maps.values[range].copy_from_slice(&one.values);
            }
        }
        Ok(())
    }

    fn answer(self: Box<Self>) -> Result<Answer, QueryError> {
        MapRows::answer(*self)
    }
}
