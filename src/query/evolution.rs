//! How a word's attention changes through the denoising steps.

use std::collections::HashMap;
use std::sync::Arc;

use polars::prelude::{Column, DataFrame, PlSmallStr, col};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::answer::{Answer, AnswerKind, Arrange, Statistics, key_columns, shape_columns};
use super::catalog::Catalog;
use super::error::{QueryError, caught};
use super::explain::Explain;
use super::filter::Filter;
use super::key::{Key, KeyValue};
use super::merge::{Assembly, Reduced};
use super::plan::{self, Ending, Plan};
use super::selection::{SelectedStep, Selection};
use super::task::Reduction;
use super::work::Group;
use crate::metrics::{Measured, Metric};
use crate::progress::Progress;
use crate::remedy::{Note, OptionName, Remedy};
use crate::store::{Snapshot, Store};

/// What is told of the change between two steps' maps.
const CHANGES: [(&str, Metric); 3] =
    [("cosine", Metric::Cosine), ("js", Metric::JensenShannon), ("centroid_shift", Metric::Centroid)];

/// What a word's maps are kept apart by, beside the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Blocks; averaged over heads.
    Block,
    /// Heads; averaged over blocks.
    Head,
}

/// A question for the series of a word's maps over the steps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Evolution {
    /// The maps.
    pub filter: Filter,
    /// Series for each block or head instead of the mean over all.
    pub by: Option<By>,
    /// How maps of a step become one.
    pub reduction: Reduction,
    /// Order, number and columns of the rows.
    pub arrange: Arrange,
}

impl Evolution {
    /// Of the mean over the selected maps.
    #[must_use]
    pub fn new(filter: Filter) -> Self {
        Self { filter, ..Self::default() }
    }

    /// The keys; the step comes last.
    fn keys(&self) -> Vec<Key> {
        let by = match self.by {
            None => None,
            Some(By::Block) => Some(Key::Block),
            Some(By::Head) => Some(Key::Head),
        };
        [Some(Key::Video), Some(Key::Token), Some(Key::TokenIndex), by, Some(Key::Step)].into_iter().flatten().collect()
    }

    /// What will be done to answer it on a state of a store.
    ///
    /// # Errors
    /// If the store cannot be read, or nothing is selected.
    pub fn plan(&self, snapshot: &Snapshot) -> Result<Plan, QueryError> {
        let mut steps = Selection::find(snapshot, &self.filter)?.steps;
        let timesteps =
            steps.iter().map(|step| ((step.video_id.clone(), step.token.clone(), step.step), step.timestep)).collect();
        let words: Vec<&mut [SelectedStep]> = steps.chunk_by_mut(|a, b| a.array == b.array).collect();
        let mut notes = self.notes(snapshot, &words)?;
        for steps in words {
            // What all others are compared with comes first.
            steps.rotate_right(1);
        }
        let ends = Ends { timesteps };
        let mut plan = Plan::new(snapshot, &steps, &self.keys(), self.reduction, ends)?;
        plan.work.notes.append(&mut notes);
        Ok(plan.arranged(&self.arrange))
    }

    /// What answering will do.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub fn explain(&self, store: &Store) -> Result<Explain, QueryError> {
        plan::explain(store, |snapshot| self.plan(snapshot))
    }

    /// One row for each step of each series: statistics of its map, and how it differs from the maps before and at the
    /// end.
    ///
    /// # Errors
    /// As [`plan`](Self::plan), or if an array is damaged.
    pub fn run(&self, store: &Store, progress: &dyn Progress) -> Result<Answer, QueryError> {
        plan::run(store, |snapshot| self.plan(snapshot), progress)
    }

    /// What to say of series whose steps are not of the same maps, or that end before the word does.
    fn notes(&self, snapshot: &Snapshot, words: &[&mut [SelectedStep]]) -> Result<Vec<Note>, QueryError> {
        let mut notes: Vec<Note> = Vec::new();
        let is_uneven = |steps: &&&mut [SelectedStep]| steps.windows(2).any(|pair| pair[0].maps != pair[1].maps);
        let uneven = words.iter().filter(is_uneven).count();
        if uneven > 0 {
            let text = format!(
                "in {uneven} of {} series the condition selects other blocks and heads at some steps: what is measured \
                 against the step before and the last is of other maps, too",
                words.len()
            );
            let remedy = "numbers of blocks and heads in {} keep them fixed";
            notes.push(Note::new(text, Remedy::of(remedy, [OptionName::Where.unsaid()])));
        }
        if !self.filter.is_all() {
            let ends = last_steps(snapshot)?;
            let end = |steps: &[SelectedStep]| steps.last().map(|step| step.step);
            let is_cut = |steps: &&&mut [SelectedStep]| end(steps) < ends.get(&steps[0].array).copied();
            let cut: Vec<&&mut [SelectedStep]> = words.iter().filter(is_cut).collect();
            if let Some(first) = cut.first() {
                notes.push(format!(
                    "in {} of {} series …_last is against the last step that is selected, not the last of the word (in \
                     {}: step {} of {})",
                    cut.len(),
                    words.len(),
                    first[0].video_id,
                    end(first).unwrap_or_default(),
                    ends.get(&first[0].array).copied().unwrap_or_default()
                ).into());
            }
        }
        Ok(notes)
    }
}

/// Timesteps, by video, word and step.
type Timesteps = HashMap<(Arc<str>, Arc<str>, i32), Option<f64>>;

/// Each step of a series is compared with the one before it and with the last of its word.
#[derive(Debug)]
struct Ends {
    timesteps: Timesteps,
}

impl Ending for Ends {
    fn begin<'a>(&'a self, plan: &'a Plan) -> Box<dyn Assembly + 'a> {
        let mut series: HashMap<&[KeyValue], Series> = HashMap::new();
        // Of each word the last step was planned first.
        let mut last_of_word: HashMap<&[KeyValue], &KeyValue> = HashMap::new();
        for group in plan.groups() {
            let (step, of_series) = split(group);
            let last = *last_of_word.entry(&of_series[..WORD]).or_insert(step);
            let series = series.entry(of_series).or_default();
            series.awaited += 1;
            series.has_last |= step == last;
        }
        Box::new(Following { plan, timesteps: &self.timesteps, series, entries: Vec::new() })
    }

    fn explain(&self, _: &Plan) -> Vec<String> {
        vec!["measure each map, and its change against the step before and the last".into()]
    }
}

/// How many keys name a word: video and token.
const WORD: usize = 2;

/// The step of a group, and the values of the other keys: its series.
fn split(group: &Group) -> (&KeyValue, &[KeyValue]) {
    group.key.split_last().map_or((&KeyValue::Null, &[]), |(step, series)| (step, series))
}

/// A series while its maps come: the last first, if it has that step, then the others in order.
#[derive(Default)]
struct Series {
    /// Whether it has the last step of its word.
    has_last: bool,
    /// Maps that have not come.
    awaited: usize,
    last: Option<Arc<Reduced>>,
    before: Option<Arc<Reduced>>,
}

/// A map that is measured, and those that it is compared with.
struct Compared {
    own: Arc<Reduced>,
    previous: Option<Arc<Reduced>>,
    last: Option<Arc<Reduced>>,
}

/// One step of a series.
struct Entry<'a> {
    group: &'a Group,
    statistics: Statistics,
    /// Against the step before, if there is one.
    previous: Option<[f64; CHANGES.len()]>,
    last: [f64; CHANGES.len()],
}

struct Following<'a> {
    plan: &'a Plan,
    timesteps: &'a Timesteps,
    series: HashMap<&'a [KeyValue], Series>,
    entries: Vec<Entry<'a>>,
}

impl Following<'_> {
    /// What can be measured now that a map has come.
    fn next(&mut self, one: Reduced) -> Vec<Compared> {
        let (_, of_series) = split(&self.plan.groups()[one.group]);
        let Some(series) = self.series.get_mut(of_series) else { return Vec::new() };
        let own = Arc::new(one);
        series.awaited -= 1;
        let mut ready = Vec::new();
        if series.has_last && series.last.is_none() {
            series.last = Some(own);
        } else {
            let previous = series.before.replace(own.clone());
            ready.push(Compared { own, previous, last: series.last.clone() });
        }
        if series.awaited == 0 {
            let previous = series.before.take();
            ready.extend(series.last.take().map(|own| Compared { last: Some(own.clone()), own, previous }));
        }
        ready
    }
}

impl Assembly for Following<'_> {
    fn take(&mut self, reduced: Vec<Reduced>) -> Result<(), QueryError> {
        let ready: Vec<Compared> = reduced.into_iter().flat_map(|one| self.next(one)).collect();
        let groups = self.plan.groups();
        self.entries.par_extend(ready.par_iter().map(|Compared { own, previous, last }| {
            let group = &groups[own.group];
            let measured = Measured::new(&own.values, group.grid);
            let change = |other: &Arc<Reduced>| {
                let other = Measured::new(&other.values, group.grid);
                CHANGES.map(|(_, metric)| metric.between(&measured, &other))
            };
            Entry {
                group,
                statistics: Statistics::measure(&[(&own.values, group.grid)]),
                previous: previous.as_ref().map(change),
                last: last.as_ref().map_or([f64::NAN; CHANGES.len()], change),
            }
        }));
        Ok(())
    }

    fn answer(self: Box<Self>) -> Result<Answer, QueryError> {
        let Self { plan, timesteps, mut entries, .. } = *self;
        entries.sort_by(|a, b| a.group.key.cmp(&b.group.key));
        let groups: Vec<&Group> = entries.iter().map(|entry| entry.group).collect();
        let timestep = |group: &&Group| match &group.key[..] {
            #[allow(clippy::cast_possible_truncation)] // it was an i32
            [KeyValue::Text(video), KeyValue::Text(token), .., KeyValue::Int(step)] => {
                timesteps.get(&(video.clone(), token.clone(), *step as i32)).copied().flatten()
            }
            _ => None,
        };
        let mut columns = key_columns(plan.keys(), &groups);
        let timesteps: Vec<Option<f64>> = groups.iter().map(timestep).collect();
        columns.push(Column::new(PlSmallStr::from_static("timestep"), timesteps));
        let shapes: Vec<_> = groups.iter().map(|group| (group.maps, group.grid, group.spatial)).collect();
        columns.extend(shape_columns(&shapes));
        let rows = entries.len();
        let (mut previous, mut last) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        let mut statistics = Statistics::with_room(0);
        for entry in entries {
            statistics.extend(entry.statistics);
            previous.push(entry.previous);
            last.push(entry.last);
        }
        columns.extend(statistics.columns()?);
        for (index, (name, _)) in CHANGES.iter().enumerate() {
            let changes: Vec<Option<f64>> = previous.iter().map(|of| of.map(|of| of[index])).collect();
            columns.push(Column::new(PlSmallStr::from_string(format!("{name}_previous")), changes));
        }
        for (index, (name, _)) in CHANGES.iter().enumerate() {
            let changes: Vec<f64> = last.iter().map(|of| of[index]).collect();
            columns.push(Column::new(PlSmallStr::from_string(format!("{name}_last")), changes));
        }
        let keys: Vec<&str> = plan.keys().iter().map(|key| key.column()).collect();
        Ok(Answer::of_table(AnswerKind::Series, DataFrame::new(rows, columns)?, &keys))
    }
}

/// The last step of each word, by its array.
fn last_steps(snapshot: &Snapshot) -> Result<HashMap<Arc<str>, i32>, QueryError> {
    let steps = Catalog::open(snapshot)?.steps()?.group_by([col("array")]).agg([col("step").max()]);
    let ends = caught(|| steps.collect())?;
    let (arrays, steps) = (ends.column("array")?.str()?, ends.column("step")?.i32()?);
    Ok(arrays.iter().zip(steps.iter()).filter_map(|(array, step)| Some((array?.into(), step?))).collect())
}
