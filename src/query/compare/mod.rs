//! Comparing groups of maps pair by pair: prompts, videos, seeds, words, weights, steps, blocks or heads.

mod align;
mod differences;
mod sides;
mod table;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use self::differences::Differences;
use self::table::Row;
use super::answer::{Answer, Arrange};
use super::cut::Bounds;
use super::error::{QueryError, few};
use super::explain::Explain;
use super::filter::Filter;
use super::key::{Key, KeyValue};
use super::merge::{Assembly, Reduced};
use super::plan::{self, Ending, Plan};
use super::selection::{Selected, Selection};
use super::task::Reduction;
use super::work::{Group, Work, unknown_grids};
use crate::dump::composed;
use crate::metrics::Metric;
use crate::progress::Progress;
use crate::remedy::{Note, OptionName, Remedy};
use crate::store::{Snapshot, Store};

/// What distinguishes the two sides of a comparison, or the groups of an average.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
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
    /// All.
    pub const ALL: [Self; 8] =
        [Self::Video, Self::Prompt, Self::Seed, Self::Token, Self::Weight, Self::Step, Self::Block, Self::Head];

    /// What tells its sides apart.
    #[must_use]
    pub const fn key(self) -> Key {
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
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// The maps.
    #[serde(default)]
    pub filter: Filter,
    /// What distinguishes the sides.
    pub across: Across,
    /// Which steps are compared.
    #[serde(default)]
    pub align: Align,
    /// What is measured.
    #[serde(rename = "metric", default = "usual_metrics")]
    pub metrics: Vec<Metric>,
    /// How the maps of a side become one.
    #[serde(default)]
    pub reduction: Reduction,
    /// The side that all others are compared with; `None`: every pair, or across weights the weight nearest to 1.
    #[serde(default)]
    pub against: Option<String>,
    /// What to make of it.
    #[serde(default)]
    pub form: Form,
    /// Whether the difference maps are wanted beside that, of the same reading.
    #[serde(default)]
    pub differences: bool,
    /// Order, number and columns of the rows.
    #[serde(default)]
    pub arrange: Arrange,
}

fn usual_metrics() -> Vec<Metric> {
    Metric::DEFAULT.to_vec()
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

/// The sides, and which of them are compared.
#[derive(Debug)]
struct Comparison {
    question: Compare,
    sides: Vec<KeyValue>,
    /// As numbers of sides: those that are measured, and those whose differences are taken.
    pairs: Vec<(usize, usize)>,
    differences: Vec<(usize, usize)>,
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
            metrics: usual_metrics(),
            reduction: Reduction::default(),
            against: None,
            form: Form::default(),
            differences: false,
            arrange: Arrange::default(),
        }
    }

    /// The columns that tell apart what is compared.
    fn keys(&self) -> &'static [&'static str] {
        if self.by_step() { &["a", "b", "step"] } else { &["a", "b"] }
    }

    fn takes_differences(&self) -> bool {
        self.differences || self.form == Form::Maps
    }

    /// Whether the sides' steps are told apart.
    fn by_step(&self) -> bool {
        self.across != Across::Step && matches!(self.align, Align::Step | Align::Timestep)
    }

    /// What will be done to answer it on a state of a store.
    ///
    /// # Errors
    /// If the store cannot be read, nothing or a single side is selected, or grids differ.
    pub fn plan(&self, snapshot: &Snapshot) -> Result<Plan, QueryError> {
        self.check_metrics()?;
        let mut selection = Selection::find(snapshot, &self.filter)?;
        let words: BTreeSet<&str> = selection.steps.iter().map(|step| &*step.token).collect();
        if self.across != Across::Token && words.len() > 1 {
            return Err(QueryError::question(
                format!("{} words are selected: {}", words.len(), few(&words)),
                Remedy::of(
                    "choose one with {}, or compare them with {}",
                    [OptionName::Token.any(), OptionName::Across.is("token")],
                ),
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
        let mut work = Work::plan(snapshot, &selection.steps, &keys, self.reduction, &Bounds::default())?;
        check_grids(&work)?;
        let sides: Vec<KeyValue> =
            work.groups.iter().map(|group| group.key[0].clone()).collect::<BTreeSet<_>>().into_iter().collect();
        let name = self.across.name();
        if sides.len() < 2 {
            let only = sides.first().map_or_else(|| "none".to_owned(), ToString::to_string);
            let told: Vec<String> = notes.into_iter().map(|note: Note| note.text).collect();
            let only = [vec![format!("there is only one {name} to compare: {only}")], told].concat();
            return Err(QueryError::question(
                only.join("; "),
                Remedy::of("select more with {}, or compare across something else", [OptionName::Where.unsaid()]),
            ));
        }
        let pairs = self.pairs(&sides, self.form)?;
        let differences = self.pairs(&sides, Form::Maps)?;
        let mut awaited: BTreeMap<Option<i32>, usize> = BTreeMap::new();
        for group in &work.groups {
            *awaited.entry(step_of(&group.key)).or_default() += 1;
        }
        let lonely = awaited.values().filter(|groups| **groups < sides.len()).count();
        if lonely > 0 {
            let text =
                format!("steps that are not in every {name}: {lonely}; there, only those that have them are compared");
            let remedy = Remedy::of("{}, last or mean matches others", [OptionName::Align.is("timestep")]);
            notes.push(Note::new(text, remedy));
        }
        let of_unknown_grids: BTreeSet<&str> =
            selection.steps.iter().filter(|step| step.grid.is_none()).map(|step| &*step.video_id).collect();
        if of_unknown_grids.len() > 1 {
            notes.push(unknown_grids(&of_unknown_grids));
        }
        notes.append(&mut work.notes);
        notes.extend(of_sides);
        notes.dedup();
        work.notes = notes;
        let question = self.clone();
        let ending = Comparison { question, sides, pairs, differences, timesteps, last_steps, awaited };
        Ok(Plan::of(snapshot, work, Selected::of(&selection.steps), ending).arranged(&self.arrange))
    }

    /// Refuses metrics that would give no row, or the same rows twice.
    fn check_metrics(&self) -> Result<(), QueryError> {
        let twice = (1..self.metrics.len()).find(|&at| self.metrics[..at].contains(&self.metrics[at]));
        let found = match twice {
            Some(at) => format!("{} is asked for twice", self.metrics[at]),
            None if self.metrics.is_empty() => "no metric is asked for".to_owned(),
            None => return Ok(()),
        };
        Err(QueryError::question(found, "name each metric once"))
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
                let by_characters = || sides.iter().position(|side| composed(&side.to_string()) == composed(name));
                let found = by_name.or_else(by_number).or_else(by_characters).ok_or_else(|| {
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

    /// What answering will do.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub fn explain(&self, store: &Store) -> Result<Explain, QueryError> {
        plan::explain(store, |snapshot| self.plan(snapshot))
    }

    /// The comparison in its form.
    ///
    /// # Errors
    /// As [`plan`](Self::plan), or if an array is damaged.
    pub fn run(&self, store: &Store, progress: &dyn Progress) -> Result<Answer, QueryError> {
        plan::run(store, |snapshot| self.plan(snapshot), progress)
    }
}

impl Ending for Comparison {
    fn begin<'a>(&'a self, plan: &'a Plan) -> Box<dyn Assembly + 'a> {
        Box::new(Comparing {
            of: self,
            groups: plan.groups(),
            awaited: self.awaited.clone(),
            pending: BTreeMap::new(),
            rows: Vec::new(),
            differences: Differences::default(),
        })
    }

    fn explain(&self, _: &Plan) -> Vec<String> {
        let Compare { across, metrics, form, .. } = &self.question;
        let (sides, name, steps) = (self.sides.len(), across.name(), self.awaited.len());
        let metrics: Vec<String> = metrics.iter().map(ToString::to_string).collect();
        let compared = (*form != Form::Maps).then(|| {
            let (pairs, metrics) = (self.pairs.len(), metrics.join(", "));
            format!("compare {pairs} pairs of {sides} {name}s at {steps} aligned steps by {metrics}")
        });
        let subtracted = self.question.takes_differences().then(|| {
            let pairs = self.differences.len();
            format!("subtract the maps of {pairs} pairs of {sides} {name}s at {steps} aligned steps")
        });
        compared.into_iter().chain(subtracted).collect()
    }
}

/// A comparison while its maps come.
struct Comparing<'a> {
    of: &'a Comparison,
    groups: &'a [Group],
    /// Maps of each step that have not come, and those that have.
    awaited: BTreeMap<Option<i32>, usize>,
    pending: BTreeMap<Option<i32>, Vec<Reduced>>,
    rows: Vec<Row>,
    differences: Differences,
}

impl Assembly for Comparing<'_> {
    fn take(&mut self, reduced: Vec<Reduced>) -> Result<(), QueryError> {
        for one in reduced {
            let step = step_of(&self.groups[one.group].key);
            self.pending.entry(step).or_default().push(one);
            let left = self.awaited.entry(step).or_default();
            *left -= 1;
            if *left > 0 {
                continue;
            }
            let maps = self.pending.remove(&step).unwrap_or_default();
            let maps = self.of.by_side(self.groups, &maps);
            if self.of.question.form != Form::Maps {
                self.rows.extend(self.of.measure(step, &maps));
            }
            if self.of.question.takes_differences() {
                self.differences.add(&self.of.differences, step, &maps);
            }
        }
        Ok(())
    }

    fn answer(mut self: Box<Self>) -> Result<Answer, QueryError> {
        // Steps are summed in their order, whichever was complete first.
        self.rows.sort_by_key(|row| (row.a, row.b, row.metric, row.step));
        let question = &self.of.question;
        let answer = match question.form {
            Form::Maps => return self.differences.answer(self.of),
            Form::Pairs => self.of.table(&self.rows)?,
            Form::Matrix => self.of.matrix(&self.rows)?,
        };
        let beside = if question.differences { Some(Box::new(self.differences.answer(self.of)?)) } else { None };
        Ok(Answer { differences: beside, ..answer })
    }
}

/// The map of a side at a step.
#[derive(Clone, Copy)]
struct SideMap<'a> {
    values: &'a [f32],
    group: &'a Group,
}

impl Comparison {
    /// The maps of a step, by the numbers of their sides.
    fn by_side<'a>(&self, groups: &'a [Group], maps: &'a [Reduced]) -> Vec<Option<SideMap<'a>>> {
        let mut by_side = vec![None; self.sides.len()];
        for one in maps {
            let group = &groups[one.group];
            if let Ok(side) = self.sides.binary_search(&group.key[0]) {
                by_side[side] = Some(SideMap { values: &one.values, group });
            }
        }
        by_side
    }
}

/// The step that a group is compared at, if steps are told apart.
fn step_of(key: &[KeyValue]) -> Option<i32> {
    #[allow(clippy::cast_possible_truncation)] // it was an i32
    key.get(1).and_then(KeyValue::as_f64).map(|step| step as i32)
}

/// The sides must have one grid.
fn check_grids(work: &Work) -> Result<(), QueryError> {
    let mut grids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for group in &work.groups {
        let grid = group.grid.map_or_else(|| format!("{} positions", group.spatial), |grid| grid.to_string());
        grids.entry(grid).or_default().insert(group.key[0].to_string());
    }
    if grids.len() < 2 {
        return Ok(());
    }
    let grids = grids.into_iter().map(|(grid, sides)| format!("{grid} ({})", few(&sides)));
    Err(QueryError::UnequalGrids { grids: grids.collect() })
}
