//! How a word's attention changes through the denoising steps.

use std::collections::HashMap;
use std::sync::Arc;

use polars::prelude::{Column, DataFrame, PlSmallStr, col};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::answer::{Answer, Statistics, key_columns, shape_columns};
use super::catalog::Catalog;
use super::error::{QueryError, caught};
use super::explain::Explain;
use super::filter::Filter;
use super::key::{Key, KeyValue};
use super::plan::{Group, Plan};
use super::run::{ReadCount, Reduced};
use super::selection::{SelectedStep, Selection};
use super::task::Reduction;
use crate::metrics::{Measured, Metric};
use crate::progress::{Meter, Progress};
use crate::remedy::{Note, OptionName, Remedy};
use crate::store::{Snapshot, Store};

/// What is told of the change between two steps' maps.
const CHANGES: [(&str, Metric); 3] =
    [("cosine", Metric::Cosine), ("js", Metric::JensenShannon), ("centroid_shift", Metric::Centroid)];

/// What a word's maps are kept apart by, beside the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Blocks; averaged over heads.
    Block,
    /// Heads; averaged over blocks.
    Head,
}

/// A question for the series of a word's maps over the steps.
#[derive(Debug, Clone)]
pub struct Evolution {
    /// The maps.
    pub filter: Filter,
    /// Series for each block or head instead of the mean over all.
    pub by: Option<By>,
    /// How maps of a step become one.
    pub reduction: Reduction,
}

/// One step of a series.
struct Entry {
    group: Group,
    statistics: Statistics,
    /// Against the step before, if there is one.
    previous: Option<[f64; CHANGES.len()]>,
    last: [f64; CHANGES.len()],
}

impl Evolution {
    /// Of the mean over the selected maps.
    #[must_use]
    pub fn new(filter: Filter) -> Self {
        Self { filter, by: None, reduction: Reduction::default() }
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

    fn plan(&self, snapshot: &Snapshot, steps: Vec<SelectedStep>) -> Result<Plan, QueryError> {
        Plan::new(snapshot, &Selection { steps }, &self.keys(), self.reduction)
    }

    /// The steps that are followed, and the plan of all.
    fn selected(&self, snapshot: &Snapshot) -> Result<(Selection, Plan), QueryError> {
        let selection = Selection::find(snapshot, &self.filter)?;
        let plan = self.plan(snapshot, selection.steps.clone())?;
        Ok((selection, plan))
    }

    /// What answering will do.
    ///
    /// # Errors
    /// If the store cannot be read, or nothing is selected.
    pub fn explain(&self, store: &Store) -> Result<Explain, QueryError> {
        let ((_, plan), snapshot) = store.of_one_state(|snapshot| self.selected(snapshot))?;
        let mut explain = plan.explain(&snapshot)?;
        explain.then.push("read the last step of each word once more, to compare with".into());
        explain.then.push("measure each map, and its change against the step before and the last".into());
        Ok(explain)
    }

    /// One row for each step of each series: statistics of its map, and how it differs from the maps before and at the
    /// end.
    ///
    /// # Errors
    /// As [`explain`](Self::explain), or if an array is damaged.
    pub fn run(&self, store: &Store, progress: &dyn Progress) -> Result<Answer, QueryError> {
        let ((selection, whole), snapshot) = store.of_one_state(|snapshot| self.selected(snapshot))?;
        let meter = whole.meter(progress);
        let words: Vec<&[SelectedStep]> = selection.steps.chunk_by(|a, b| a.array == b.array).collect();
        let series: Vec<(Vec<Entry>, ReadCount)> =
            words.par_iter().map(|steps| self.series(&snapshot, steps, &meter)).collect::<Result<_, _>>()?;
        let mut read = ReadCount::default();
        let mut entries = Vec::new();
        for (of_word, count) in series {
            read.chunks += count.chunks;
            read.bytes += count.bytes;
            entries.extend(of_word);
        }
        let timesteps: HashMap<(&str, &str, i32), Option<f64>> =
            selection.steps.iter().map(|step| ((&*step.video_id, &*step.token, step.step), step.timestep)).collect();
        entries.sort_by(|a, b| a.group.key.cmp(&b.group.key));
        let mut answer = self.table(entries, |group| {
            let text = |position: usize| match &group.key[position] {
                KeyValue::Text(text) => text.clone(),
                _ => "".into(),
            };
            let step = group.key.last().and_then(KeyValue::as_f64).unwrap_or(f64::NAN);
            #[allow(clippy::cast_possible_truncation)] // it was an i32
            timesteps.get(&(&*text(0), &*text(1), step as i32)).copied().flatten()
        })?;
        answer.notes = whole.notes;
        answer.notes.extend(self.notes(store, &words)?);
        answer.read = read;
        Ok(answer)
    }

    /// What to say of series whose steps are not of the same maps, or that end before the word does.
    fn notes(&self, store: &Store, words: &[&[SelectedStep]]) -> Result<Vec<Note>, QueryError> {
        let mut notes: Vec<Note> = Vec::new();
        let is_uneven = |steps: &&&[SelectedStep]| steps.windows(2).any(|pair| pair[0].maps != pair[1].maps);
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
        if self.filter.text().is_some() {
            let (ends, _) = store.of_one_state(last_steps)?;
            let end = |steps: &[SelectedStep]| steps.iter().map(|step| step.step).max();
            let cut: Vec<_> = words.iter().filter(|steps| end(steps) < ends.get(&steps[0].array).copied()).collect();
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

    /// The series of one word.
    fn series(
        &self,
        snapshot: &Snapshot,
        steps: &[SelectedStep],
        meter: &Meter<'_>,
    ) -> Result<(Vec<Entry>, ReadCount), QueryError> {
        let plan = self.plan(snapshot, steps.to_vec())?;
        let Some(end) = steps.iter().max_by_key(|step| step.step) else { return Ok(Default::default()) };
        let end = self.plan(snapshot, vec![end.clone()])?;
        let without_step = |group: &Group| group.key[..group.key.len() - 1].to_vec();
        let mut last: HashMap<Vec<KeyValue>, Vec<f32>> = HashMap::new();
        let mut read = end.run(snapshot, &meter.beside(), |reduced| {
            last.extend(reduced.into_iter().map(|reduced| (without_step(&end.groups[reduced.group]), reduced.values)));
            Ok(())
        })?;
        let mut before: HashMap<Vec<KeyValue>, Vec<f32>> = HashMap::new();
        let mut entries: Vec<Entry> = Vec::new();
        let more = plan.run(snapshot, meter, |mut reduced: Vec<Reduced>| {
            reduced.sort_by(|a, b| plan.groups[a.group].key.last().cmp(&plan.groups[b.group].key.last()));
            // The map before each: one of this batch, or the latest of an earlier one.
            let mut previous: Vec<Option<&[f32]>> = Vec::with_capacity(reduced.len());
            let mut latest: HashMap<Vec<KeyValue>, &[f32]> = HashMap::new();
            for one in &reduced {
                let series = without_step(&plan.groups[one.group]);
                let earlier = before.get(&series).map(Vec::as_slice);
                previous.push(latest.insert(series, &one.values).or(earlier));
            }
            let measured: Vec<Entry> = reduced
                .par_iter()
                .zip(previous)
                .map(|(one, previous)| {
                    let group = plan.groups[one.group].clone();
                    let own = Measured::new(&one.values, group.grid);
                    let change = |other: &[f32]| {
                        CHANGES.map(|(_, metric)| metric.between(&own, &Measured::new(other, group.grid)))
                    };
                    let last = last.get(&without_step(&group)).map_or([f64::NAN; 3], |last| change(last));
                    let statistics = Statistics::measure(&[(&one.values, group.grid)]);
                    Entry { statistics, previous: previous.map(change), last, group }
                })
                .collect();
            entries.extend(measured);
            before.extend(reduced.into_iter().map(|one| (without_step(&plan.groups[one.group]), one.values)));
            Ok(())
        })?;
        read.chunks += more.chunks;
        read.bytes += more.bytes;
        Ok((entries, read))
    }

    fn table(&self, entries: Vec<Entry>, timestep: impl Fn(&Group) -> Option<f64>) -> Result<Answer, QueryError> {
        let groups: Vec<&Group> = entries.iter().map(|entry| &entry.group).collect();
        let keys = self.keys();
        let mut columns = key_columns(&keys, &groups);
        let timesteps: Vec<Option<f64>> = groups.iter().map(|group| timestep(group)).collect();
        columns.push(Column::new(PlSmallStr::from_static("timestep"), timesteps));
        columns.extend(shape_columns(
            &groups.iter().map(|group| (group.maps, group.grid, group.spatial)).collect::<Vec<_>>(),
        ));
        let changes: Vec<(Option<[f64; 3]>, [f64; 3])> =
            entries.iter().map(|entry| (entry.previous, entry.last)).collect();
        let rows = entries.len();
        let mut statistics = Statistics::with_room(0);
        for entry in entries {
            statistics.extend(entry.statistics);
        }
        columns.extend(statistics.columns()?);
        for (index, (name, _)) in CHANGES.iter().enumerate() {
            let previous: Vec<Option<f64>> = changes.iter().map(|(previous, _)| previous.map(|of| of[index])).collect();
            columns.push(Column::new(PlSmallStr::from_string(format!("{name}_previous")), previous));
        }
        for (index, (name, _)) in CHANGES.iter().enumerate() {
            let last: Vec<f64> = changes.iter().map(|(_, last)| last[index]).collect();
            columns.push(Column::new(PlSmallStr::from_string(format!("{name}_last")), last));
        }
        let mut answer = Answer::of_table(DataFrame::new(rows, columns)?);
        answer.is_summarised = true;
        answer.keys = keys.iter().map(|key| key.column().to_owned()).collect();
        Ok(answer)
    }
}

/// The last step of each word, by its array.
fn last_steps(snapshot: &Snapshot) -> Result<HashMap<Arc<str>, i32>, QueryError> {
    let steps = Catalog::open(snapshot)?.steps()?.group_by([col("array")]).agg([col("step").max()]);
    let ends = caught(|| steps.collect())?;
    let (arrays, steps) = (ends.column("array")?.str()?, ends.column("step")?.i32()?);
    Ok(arrays.iter().zip(steps.iter()).filter_map(|(array, step)| Some((array?.into(), step?))).collect())
}
