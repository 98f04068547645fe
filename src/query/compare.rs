//! Comparing groups of maps pair by pair: prompts, videos, seeds, words, weights, steps, blocks or heads.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use polars::prelude::{Column, DataFrame, PlSmallStr};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::answer::{Answer, Maps, Statistics, axes, key_column, shape_columns};
use super::error::{QueryError, few};
use super::explain::Explain;
use super::filter::Filter;
use super::reduction::{Key, KeyValue, Plan, Reduction, unknown_grids};
use super::run::Reduced;
use super::selection::{SelectedStep, Selection};
use super::sides;
use crate::grid::Grid;
use crate::metrics::{Measured, Metric};
use crate::progress::Progress;
use crate::store::Store;

/// What distinguishes the two sides of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Across {
    /// The prompt.
    Prompt,
    /// The video.
    Video,
    /// The random seed.
    Seed,
    /// The tracked word.
    Token,
    /// The word's weight in the prompt.
    Weight,
    /// Denoising step.
    Step,
    /// Transformer block.
    Block,
    /// Attention head.
    Head,
}

impl Across {
    const fn key(self) -> Key {
        match self {
            Self::Prompt => Key::Prompt,
            Self::Video => Key::Video,
            Self::Seed => Key::Seed,
            Self::Token => Key::Token,
            Self::Weight => Key::Weight,
            Self::Step => Key::Step,
            Self::Block => Key::Block,
            Self::Head => Key::Head,
        }
    }

    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Video => "video",
            Self::Seed => "seed",
            Self::Token => "word",
            Self::Weight => "weight",
            Self::Step => "step",
            Self::Block => "block",
            Self::Head => "head",
        }
    }
}

/// Which steps of the two sides are compared with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Align {
    /// Those of the same number.
    #[default]
    Step,
    /// Those nearest in the scheduler's timestep, for each step of the side that has the fewest.
    Timestep,
    /// The last of each.
    Last,
    /// None: the means over all steps.
    Mean,
}

/// A question for pairwise comparisons.
#[derive(Debug, Clone)]
pub struct Compare {
    /// The maps.
    pub filter: Filter,
    /// What distinguishes the sides.
    pub across: Across,
    /// Which steps are compared.
    pub align: Align,
    /// What is measured.
    pub metrics: Vec<Metric>,
    /// How the maps of a side become one.
    pub reduction: Reduction,
    /// The side that all others are compared with; `None`: every pair.
    pub against: Option<String>,
}

/// What to make of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// One row for each pair, step and metric.
    #[default]
    Pairs,
    /// For each metric a square table of the sides: means over the steps.
    Matrix,
    /// The difference maps, one for each pair and step.
    Maps,
}

/// One number.
struct Row {
    a: usize,
    b: usize,
    step: Option<i32>,
    metric: usize,
    value: f64,
    n: u64,
}

/// A plan with the sides it is about.
struct Planned {
    plan: Plan,
    sides: Vec<KeyValue>,
    pairs: Vec<(usize, usize)>,
    /// Where steps are aligned by them: the mean timestep of each side at each step.
    timesteps: Option<HashMap<(KeyValue, Option<i32>), f64>>,
    /// Where last steps are compared: that of each side, if it is one.
    last_steps: Option<HashMap<KeyValue, i32>>,
    /// Groups that each aligned step waits for.
    awaited: BTreeMap<Option<i32>, usize>,
}

impl Compare {
    /// Every pair, step by step, by the usual metrics.
    #[must_use]
    pub fn new(filter: Filter, across: Across) -> Self {
        Self {
            filter,
            across,
            align: Align::default(),
            metrics: Metric::DEFAULT.to_vec(),
            reduction: Reduction::default(),
            against: None,
        }
    }

    /// Whether the sides' steps are told apart.
    fn by_step(&self) -> bool {
        self.across != Across::Step && matches!(self.align, Align::Step | Align::Timestep)
    }

    fn plan(&self, store: &Store, form: Form) -> Result<Planned, QueryError> {
        let mut selection = Selection::find(store, &self.filter)?;
        let words: BTreeSet<&str> = selection.steps.iter().map(|step| &*step.token).collect();
        if self.across != Across::Token && words.len() > 1 {
            return Err(QueryError::question(
                format!("{} words are selected: {}", words.len(), few(&words)),
                "choose one with --token WORD, or compare them with --across token",
            ));
        }
        let mut notes = Vec::new();
        self.leave_out_unknown(&mut selection.steps, &mut notes)?;
        self.align(&mut selection.steps, &mut notes)?;
        let of_sides = sides::notes(self.across, &selection.steps, self.by_step());
        let is_by_time = self.by_step() && self.align == Align::Timestep;
        let timesteps = is_by_time.then(|| sides::timesteps(self.across, &selection.steps));
        let is_by_end = self.across != Across::Step && self.align == Align::Last;
        let last_steps = is_by_end.then(|| sides::only_steps(self.across, &selection.steps));
        let keys: Vec<Key> =
            [Some(self.across.key()), self.by_step().then_some(Key::Step)].into_iter().flatten().collect();
        let mut plan = Plan::new(store, &selection, &keys, self.reduction)?;
        Self::check_grids(&plan)?;
        let sides: Vec<KeyValue> =
            plan.groups.iter().map(|group| group.key[0].clone()).collect::<BTreeSet<_>>().into_iter().collect();
        let name = self.across.name();
        if sides.len() < 2 {
            let only = sides.first().map_or_else(|| "none".to_owned(), ToString::to_string);
            notes.insert(0, format!("there is only one {name} to compare: {only}"));
            return Err(QueryError::question(
                notes.join("; "),
                "select more with --where, or compare across something else",
            ));
        }
        let pairs = self.pairs(&sides, form)?;
        let mut awaited: BTreeMap<Option<i32>, usize> = BTreeMap::new();
        for group in &plan.groups {
            *awaited.entry(Self::step_of(&group.key)).or_default() += 1;
        }
        let lonely = awaited.values().filter(|groups| **groups < sides.len()).count();
        if lonely > 0 {
            notes.push(format!(
                "steps that are not in every {name}: {lonely}; there, only those that have them are \
                compared (--align timestep, last or mean matches others)"
            ));
        }
        let of_unknown_grids: BTreeSet<&str> =
            selection.steps.iter().filter(|step| step.grid.is_none()).map(|step| &*step.video_id).collect();
        if of_unknown_grids.len() > 1 {
            notes.push(unknown_grids(&of_unknown_grids));
        }
        notes.append(&mut plan.notes);
        notes.extend(of_sides);
        notes.dedup();
        plan.notes = notes;
        Ok(Planned { plan, sides, pairs, timesteps, last_steps, awaited })
    }

    /// Leaves out the steps of which it is not known on which side they are: what is unknown is not equal.
    fn leave_out_unknown(&self, steps: &mut Vec<SelectedStep>, notes: &mut Vec<String>) -> Result<(), QueryError> {
        let (is_known, column, hint): (fn(&SelectedStep) -> bool, _, _) = match self.across {
            Across::Prompt => (|step| step.prompt.is_some(), "prompt", "the dump's metadata has no prompt"),
            Across::Seed => (
                |step| step.seed.is_some(),
                "seed",
                "the dump's metadata has no seed, or one that is no integer of 64 bits",
            ),
            Across::Weight => (
                |step| step.weight.is_some(),
                "weight",
                "no weight is known of these words: ingest again with --prompts FILE, which changes nothing else, or \
                 name token directories as in token_flower:2.5",
            ),
            Across::Block => (
                |step| step.numbers.block(step.shape, 0).is_some(),
                "block",
                "blocks are averaged in the dump: there is one map of all of them",
            ),
            Across::Head => (
                |step| step.numbers.head(step.shape, 0).is_some(),
                "head",
                "heads are averaged in the dump: there is one map of all of them",
            ),
            Across::Video | Across::Token | Across::Step => return Ok(()),
        };
        let unknown: BTreeSet<&str> = steps.iter().filter(|step| !is_known(step)).map(|step| &*step.video_id).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let (count, all) = (steps.iter().filter(|step| !is_known(step)).count(), steps.len());
        let reason = if matches!(self.across, Across::Block | Across::Head) {
            format!("{column}s are averaged")
        } else {
            format!("{column} is not known")
        };
        let note = format!("left out: {count} of {all} steps, whose {reason} (videos {})", few(&unknown));
        steps.retain(is_known);
        if steps.is_empty() {
            let condition = Some(format!("{column} IS NOT NULL"));
            return Err(QueryError::NothingSelected { condition, hint: hint.into() });
        }
        notes.push(note);
        Ok(())
    }

    /// The pairs to compare: (a, b) as numbers of sides.
    fn pairs(&self, sides: &[KeyValue], form: Form) -> Result<Vec<(usize, usize)>, QueryError> {
        let all = 0..sides.len();
        if form == Form::Matrix {
            return Ok(all.clone().flat_map(|a| all.clone().map(move |b| (a, b))).collect());
        }
        let reference = match &self.against {
            Some(name) => {
                let by_name = sides.iter().position(|side| side.to_string() == *name);
                let by_number = || sides.iter().position(|side| side.is_number(name));
                let found = by_name.or_else(by_number).ok_or_else(|| {
                    let names: Vec<String> = sides.iter().map(ToString::to_string).collect();
                    QueryError::question(
                        format!("there is no {} `{name}` among those compared", self.across.name()),
                        format!("there are: {}", few(&names)),
                    )
                })?;
                Some(found)
            }
            // A response curve is relative to the word as it is without emphasis.
            None if self.across == Across::Weight => {
                let distance = |side: &KeyValue| side.as_f64().map_or(f64::INFINITY, |weight| (weight - 1.0).abs());
                (0..sides.len()).min_by(|&a, &b| distance(&sides[a]).total_cmp(&distance(&sides[b])))
            }
            None => None,
        };
        Ok(match reference {
            // The curve's own point at the reference belongs to it.
            Some(b) if self.across == Across::Weight => all.map(|a| (a, b)).collect(),
            Some(b) => all.filter(|&a| a != b).map(|a| (a, b)).collect(),
            None => all.clone().flat_map(|a| (a + 1..sides.len()).map(move |b| (a, b))).collect(),
        })
    }

    /// Keeps the steps that are compared, relabelled so that those compared with each other have one number, and
    /// ordered so that all sides of a step come together.
    fn align(&self, steps: &mut Vec<SelectedStep>, notes: &mut Vec<String>) -> Result<(), QueryError> {
        match self.align {
            _ if self.across == Across::Step => {}
            Align::Step | Align::Mean => {}
            Align::Last => {
                let last: HashMap<_, _> = steps.iter().map(|step| (step.array.clone(), step.step)).fold(
                    HashMap::new(),
                    |mut last, (array, step)| {
                        let known = last.entry(array).or_insert(step);
                        *known = step.max(*known);
                        last
                    },
                );
                steps.retain(|step| last.get(&step.array) == Some(&step.step));
            }
            Align::Timestep => *steps = self.nearest_in_time(steps, notes)?,
        }
        if self.by_step() {
            steps.sort_by_key(|step| step.step);
        }
        Ok(())
    }

    /// For each timestep of the side that has the fewest, the steps of every video nearest to it, under that side's
    /// number. Of a timestep that is visited several times, the visits are paired in their order.
    fn nearest_in_time(
        &self,
        steps: &[SelectedStep],
        notes: &mut Vec<String>,
    ) -> Result<Vec<SelectedStep>, QueryError> {
        let side = |step: &SelectedStep| match self.across {
            Across::Prompt => step.prompt.clone().map_or(KeyValue::Null, KeyValue::Text),
            Across::Seed => step.seed.map_or(KeyValue::Null, KeyValue::Int),
            Across::Token => KeyValue::Text(step.token.clone()),
            Across::Weight => step.weight.map_or(KeyValue::Null, KeyValue::float),
            _ => KeyValue::Text(step.video_id.clone()),
        };
        let mut schedules = Vec::new();
        let mut unusable: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for series in steps.chunk_by(|a, b| a.array == b.array) {
            match Schedule::of(series) {
                Ok(schedule) => schedules.push(schedule),
                Err(reason) => drop(unusable.entry(reason).or_default().insert(&series[0].video_id)),
            }
        }
        let of_fewest = |schedule: &&Schedule<'_>| (schedule.times.len(), side(schedule.times[0].0));
        let Some(reference) = schedules.iter().min_by_key(of_fewest) else {
            let reasons = unusable.iter().map(|(reason, videos)| format!("{reason} ({})", few(videos)));
            let reasons = reasons.collect::<Vec<_>>().join("; ");
            return Err(QueryError::question(
                format!("nothing can be paired by timestep: {reasons}"),
                "pair steps by number with --align step, or compare --align last or mean",
            ));
        };
        let all = steps.iter().map(|step| &step.video_id).collect::<HashSet<_>>().len();
        for (reason, videos) in &unusable {
            notes.push(format!(
                "left out of --align timestep: {} of {all} videos, whose {reason} ({})",
                videos.len(),
                few(videos)
            ));
        }
        let own = side(reference.times[0].0);
        let others =
            schedules.iter().filter(|schedule| side(schedule.times[0].0) == own && !schedule.has_times_of(reference));
        let others: BTreeSet<&str> = others.map(|schedule| &*schedule.times[0].0.video_id).collect();
        if !others.is_empty() {
            notes.push(format!(
                "timesteps are those of {}; {} on the same side have others, and their nearest steps are taken",
                reference.times[0].0.video_id,
                few(&others)
            ));
        }
        let repeated: BTreeSet<&str> = schedules
            .iter()
            .filter(|schedule| {
                schedule.visits != reference.visits
                    && schedule.visits.iter().chain(&reference.visits).any(|&visit| visit > 0)
            })
            .map(|schedule| &*schedule.times[0].0.video_id)
            .collect();
        if !repeated.is_empty() {
            notes.push(format!(
                "timesteps are visited several times, and not equally often in {} and {}: the first visits are paired \
                 first",
                reference.times[0].0.video_id,
                few(&repeated)
            ));
        }
        let mut aligned: Vec<SelectedStep> = Vec::new();
        let mut stretched: BTreeSet<&str> = BTreeSet::new();
        for schedule in &schedules {
            let mut taken = HashSet::new();
            for (&(of, time), &visit) in reference.times.iter().zip(&reference.visits) {
                let nearest = schedule.nearest(time, visit);
                if !taken.insert(nearest.step) {
                    stretched.insert(&nearest.video_id);
                }
                aligned.push(SelectedStep { step: of.step, ..nearest.clone() });
            }
        }
        let passed_over: usize =
            schedules.iter().map(|schedule| schedule.times.len().saturating_sub(reference.times.len())).sum();
        if passed_over > 0 {
            notes.push(format!(
                "paired are the {} timesteps of {}, the fewest; {passed_over} steps of others are nearest to none of \
                 them, and left out",
                reference.times.len(),
                reference.times[0].0.video_id
            ));
        }
        if !stretched.is_empty() {
            notes.push(format!(
                "a step of {} is the nearest to several timesteps of {}, and is compared at each of them",
                few(&stretched),
                reference.times[0].0.video_id
            ));
        }
        Ok(aligned)
    }

    fn step_of(key: &[KeyValue]) -> Option<i32> {
        #[allow(clippy::cast_possible_truncation)] // it was an i32
        key.get(1).and_then(KeyValue::as_f64).map(|step| step as i32)
    }

    /// The sides must have one grid.
    fn check_grids(plan: &Plan) -> Result<(), QueryError> {
        let mut grids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for group in &plan.groups {
            let grid = group.grid.map_or_else(|| format!("{} positions", group.spatial), |grid| grid.to_string());
            grids.entry(grid).or_default().insert(group.key[0].to_string());
        }
        if grids.len() < 2 {
            return Ok(());
        }
        let grids = grids.into_iter().map(|(grid, sides)| format!("{grid} ({})", few(&sides)));
        Err(QueryError::UnequalGrids { grids: grids.collect() })
    }

    /// What answering will do.
    ///
    /// # Errors
    /// If the store cannot be read, nothing or a single side is selected, or grids differ.
    pub fn explain(&self, store: &Store, form: Form) -> Result<Explain, QueryError> {
        let planned = self.plan(store, form)?;
        let mut explain = planned.plan.explain(store)?;
        let metrics: Vec<String> = self.metrics.iter().map(ToString::to_string).collect();
        explain.then.push(format!(
            "compare {} pairs of {} {}s at {} aligned steps by {}",
            planned.pairs.len(),
            planned.sides.len(),
            self.across.name(),
            planned.awaited.len(),
            metrics.join(", ")
        ));
        Ok(explain)
    }

    /// The comparison in one of its forms.
    ///
    /// # Errors
    /// As [`explain`](Self::explain), or if an array is damaged.
    pub fn run(&self, store: &Store, form: Form, progress: &dyn Progress) -> Result<Answer, QueryError> {
        let planned = self.plan(store, form)?;
        let mut rows: Vec<Row> = Vec::new();
        let mut differences = Differences::default();
        let mut pending: BTreeMap<Option<i32>, Vec<Reduced>> = BTreeMap::new();
        let mut awaited = planned.awaited.clone();
        let read = planned.plan.run(store, &planned.plan.meter(progress), |reduced| {
            for one in reduced {
                let step = Self::step_of(&planned.plan.groups[one.group].key);
                pending.entry(step).or_default().push(one);
                let left = awaited.entry(step).or_default();
                *left -= 1;
                if *left == 0 {
                    let maps = pending.remove(&step).unwrap_or_default();
                    match form {
                        Form::Maps => differences.add(&planned, step, &maps),
                        Form::Pairs | Form::Matrix => rows.extend(self.measure(&planned, step, &maps)),
                    }
                }
            }
            Ok(())
        })?;
        let mut answer = match form {
            Form::Maps => differences.answer(self.across.key(), &planned.sides)?,
            Form::Matrix => Answer::of_table(self.matrix(&planned.sides, &rows)?),
            Form::Pairs => Answer::of_table(self.table(&planned, rows)?),
        };
        answer.notes = planned.plan.notes;
        answer.read = read;
        Ok(answer)
    }

    /// All metrics of all pairs at one step.
    fn measure(&self, planned: &Planned, step: Option<i32>, maps: &[Reduced]) -> Vec<Row> {
        let mut by_side: Vec<Option<(Measured<'_>, u64)>> = (0..planned.sides.len()).map(|_| None).collect();
        for one in maps {
            let group = &planned.plan.groups[one.group];
            if let Ok(side) = planned.sides.binary_search(&group.key[0]) {
                by_side[side] = Some((Measured::new(&one.values, group.grid), group.maps));
            }
        }
        let of_pair = |&(a, b): &(usize, usize)| -> Vec<Row> {
            let (Some((left, n_left)), Some((right, n_right))) = (&by_side[a], &by_side[b]) else { return Vec::new() };
            let n = n_left + n_right;
            let row = |(metric, of): (usize, &Metric)| Row { a, b, step, metric, value: of.between(left, right), n };
            self.metrics.iter().enumerate().map(row).collect()
        };
        planned.pairs.par_iter().flat_map_iter(of_pair).collect()
    }

    fn table(&self, planned: &Planned, mut rows: Vec<Row>) -> Result<DataFrame, QueryError> {
        let sides = &planned.sides;
        rows.sort_by_key(|row| (row.a, row.b, row.metric, row.step));
        let side = |name: &'static str, pick: fn(&Row) -> usize| {
            let values: Vec<&KeyValue> = rows.iter().map(|row| &sides[pick(row)]).collect();
            key_column(self.across.key(), &values).with_name(PlSmallStr::from_static(name))
        };
        let column = PlSmallStr::from_static;
        let metrics: Vec<String> = rows.iter().map(|row| self.metrics[row.metric].to_string()).collect();
        #[allow(clippy::cast_possible_wrap)] // far below 2^63
        let n: Vec<i64> = rows.iter().map(|row| row.n as i64).collect();
        let mut columns = vec![
            side("a", |row| row.a),
            side("b", |row| row.b),
            Column::new(column("step"), rows.iter().map(|row| row.step).collect::<Vec<_>>()),
        ];
        let both: [fn(&Row) -> usize; 2] = [|row| row.a, |row| row.b];
        if let Some(timesteps) = &planned.timesteps {
            for (name, pick) in ["timestep_a", "timestep_b"].into_iter().zip(both) {
                let of = |row: &Row| timesteps.get(&(sides[pick(row)].clone(), row.step)).copied();
                columns.push(Column::new(column(name), rows.iter().map(of).collect::<Vec<_>>()));
            }
        }
        if let Some(last) = &planned.last_steps {
            for (name, pick) in ["step_a", "step_b"].into_iter().zip(both) {
                let of = |row: &Row| last.get(&sides[pick(row)]).copied();
                columns.push(Column::new(column(name), rows.iter().map(of).collect::<Vec<_>>()));
            }
        }
        columns.extend([
            Column::new(column("metric"), metrics),
            Column::new(column("value"), rows.iter().map(|row| row.value).collect::<Vec<_>>()),
            Column::new(column("n"), n),
        ]);
        if self.across == Across::Weight {
            let curves = Curve::of(&rows, |side| sides[side].as_f64().unwrap_or(f64::NAN));
            let of = |row: &Row| &curves[&(row.step, row.metric)];
            columns.push(Column::new(column("slope"), rows.iter().map(|row| of(row).slope).collect::<Vec<_>>()));
            columns.push(Column::new(column("trend"), rows.iter().map(|row| of(row).trend).collect::<Vec<_>>()));
        }
        Ok(DataFrame::new(rows.len(), columns)?)
    }

    /// Means over the steps, as squares one below the other.
    fn matrix(&self, sides: &[KeyValue], rows: &[Row]) -> Result<DataFrame, QueryError> {
        let mut cells: HashMap<(usize, usize, usize), (f64, u32)> = HashMap::new();
        for row in rows {
            let cell = cells.entry((row.metric, row.a, row.b)).or_default();
            *cell = (cell.0 + row.value, cell.1 + 1);
        }
        let places: Vec<(usize, usize)> =
            (0..self.metrics.len()).flat_map(|metric| (0..sides.len()).map(move |a| (metric, a))).collect();
        let names: Vec<String> = places.iter().map(|(metric, _)| self.metrics[*metric].to_string()).collect();
        let own: Vec<&KeyValue> = places.iter().map(|(_, a)| &sides[*a]).collect();
        let mut columns = vec![
            Column::new(PlSmallStr::from_static("metric"), names),
            key_column(self.across.key(), &own).with_name(PlSmallStr::from_static("a")),
        ];
        for (b, side) in sides.iter().enumerate() {
            let of =
                |(metric, a): &(usize, usize)| cells.get(&(*metric, *a, b)).map(|(sum, count)| sum / f64::from(*count));
            // A word may be called as a column of the table is.
            let name = side.to_string();
            let name = if ["metric", "a"].contains(&name.as_str()) { format!("{name} (b)") } else { name };
            columns.push(Column::new(PlSmallStr::from_string(name), places.iter().map(of).collect::<Vec<_>>()));
        }
        Ok(DataFrame::new(places.len(), columns)?)
    }
}

/// The steps of one word of one video with their timesteps, which must tell an order.
struct Schedule<'a> {
    times: Vec<(&'a SelectedStep, f64)>,
    /// How often each timestep was visited before.
    visits: Vec<usize>,
}

impl<'a> Schedule<'a> {
    /// The error says why the steps cannot be told by their times.
    fn of(series: &'a [SelectedStep]) -> Result<Self, &'static str> {
        let times: Option<Vec<_>> = series.iter().map(|step| Some((step, step.timestep?))).collect();
        let times = times.filter(|times| !times.is_empty()).ok_or("timesteps are not all known")?;
        let ordered = |order: fn(f64, f64) -> bool| times.windows(2).all(|pair| order(pair[0].1, pair[1].1));
        if times.len() > 1 && ordered(|a, b| a == b) {
            return Err("timesteps are all the same");
        }
        if !ordered(|a, b| a >= b) && !ordered(|a, b| a <= b) {
            return Err("timesteps neither only fall nor only rise");
        }
        let visit = |place: usize| times[..place].iter().rev().take_while(|(_, time)| *time == times[place].1).count();
        let visits = (0..times.len()).map(visit).collect();
        Ok(Self { times, visits })
    }

    fn has_times_of(&self, other: &Self) -> bool {
        let times = |schedule: &Self| schedule.times.iter().map(|(_, time)| time.to_bits()).collect::<Vec<_>>();
        times(self) == times(other)
    }

    /// The step nearest to a time; of several visits to it, that visit or the last before.
    fn nearest(&self, time: f64, visit: usize) -> &'a SelectedStep {
        let distance = |place: usize| (self.times[place].1 - time).abs();
        let first = (0..self.times.len()).min_by(|&a, &b| distance(a).total_cmp(&distance(b))).unwrap_or(0);
        let again = (first..self.times.len()).take_while(|&place| self.times[place].1 == self.times[first].1).count();
        self.times[first + visit.min(again - 1)].0
    }
}

/// How a metric responds to the weight, at one step.
struct Curve {
    /// Of the least-squares line of value over weight.
    slope: f64,
    /// Whether the values only rise or only fall with the weight.
    trend: &'static str,
}

impl Curve {
    /// By step and metric.
    fn of(rows: &[Row], weight: impl Fn(usize) -> f64) -> HashMap<(Option<i32>, usize), Self> {
        let mut points: HashMap<_, Vec<(f64, f64)>> = HashMap::new();
        for row in rows {
            points.entry((row.step, row.metric)).or_default().push((weight(row.a), row.value));
        }
        points.into_iter().map(|(place, points)| (place, Self::through(points))).collect()
    }

    fn through(mut points: Vec<(f64, f64)>) -> Self {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let n = points.len() as f64;
        let mean = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).sum::<f64>() / n;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        let covariance: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
        let variance: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
        let all = |order: fn(f64, f64) -> bool| points.windows(2).all(|pair| order(pair[0].1, pair[1].1));
        let trend = if all(|a, b| a == b) {
            "flat"
        } else if all(|a, b| a <= b) {
            "rising"
        } else if all(|a, b| a >= b) {
            "falling"
        } else {
            "mixed"
        };
        Self { slope: covariance / variance, trend }
    }
}

/// The difference maps a − b.
#[derive(Default)]
struct Differences {
    maps: Maps,
    /// What each is of.
    rows: Vec<Difference>,
}

/// What a difference map is of.
struct Difference {
    a: usize,
    b: usize,
    step: Option<i32>,
    /// Maps on both sides.
    n: u64,
    grid: Option<Grid>,
}

impl Differences {
    fn add(&mut self, planned: &Planned, step: Option<i32>, maps: &[Reduced]) {
        let of_side =
            |side: usize| maps.iter().find(|one| planned.plan.groups[one.group].key[0] == planned.sides[side]);
        for &(a, b) in &planned.pairs {
            let (Some(left), Some(right)) = (of_side(a), of_side(b)) else { continue };
            let (of_left, of_right) = (&planned.plan.groups[left.group], &planned.plan.groups[right.group]);
            let start = self.maps.values.len();
            self.maps.values.extend(left.values.iter().zip(&right.values).map(|(a, b)| a - b));
            self.maps.maps.push((start..self.maps.values.len(), axes(of_left.grid, of_left.spatial)));
            let n = of_left.maps + of_right.maps;
            self.rows.push(Difference { a, b, step, n, grid: of_left.grid });
        }
    }

    fn answer(self, key: Key, sides: &[KeyValue]) -> Result<Answer, QueryError> {
        let side = |name: &'static str, pick: fn(&Difference) -> usize| {
            let values: Vec<&KeyValue> = self.rows.iter().map(|row| &sides[pick(row)]).collect();
            key_column(key, &values).with_name(PlSmallStr::from_static(name))
        };
        let steps: Vec<Option<i32>> = self.rows.iter().map(|row| row.step).collect();
        let mut columns =
            vec![side("a", |row| row.a), side("b", |row| row.b), Column::new(PlSmallStr::from_static("step"), steps)];
        let shapes: Vec<(u64, Option<Grid>, usize)> =
            self.rows.iter().enumerate().map(|(row, of)| (of.n, of.grid, self.maps.get(row).len())).collect();
        columns.extend(shape_columns(&shapes));
        let of: Vec<(&[f32], Option<Grid>)> =
            self.rows.iter().enumerate().map(|(row, of)| (self.maps.get(row), of.grid)).collect();
        columns.extend(Statistics::measure(&of).columns()?);
        let mut answer = Answer::of_table(DataFrame::new(self.rows.len(), columns)?);
        answer.is_summarised = true;
        answer.keys = ["a", "b", "step"].map(str::to_owned).to_vec();
        answer.maps = Some(self.maps);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_the_slope_of_its_line() {
        let line = Curve::through(vec![(2.0, 5.0), (0.5, 2.0), (1.0, 3.0)]);
        assert!((line.slope - 2.0).abs() < 1e-12);
        assert_eq!(line.trend, "rising");
        assert_eq!(Curve::through(vec![(1.0, 3.0), (2.0, 1.0), (3.0, 2.0)]).trend, "mixed");
        assert_eq!(Curve::through(vec![(1.0, 3.0), (2.0, 3.0)]).trend, "flat");
    }
}
