//! Comparing groups of maps pair by pair: prompts, videos, seeds, words, weights, steps, blocks or heads.

mod align;
mod differences;
mod sides;
mod table;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::query::answer::Answer;
use crate::query::error::{QueryError, few};
use crate::query::explain::Explain;
use crate::query::filter::Filter;
use crate::query::key::{Key, KeyValue};
use crate::query::plan::{Plan, unknown_grids};
use crate::query::run::Reduced;
use crate::query::selection::Selection;
use crate::query::task::Reduction;
use crate::remedy::{Note, OptionName, Remedy};

use self::differences::Differences;
use self::table::Row;
use crate::metrics::Metric;
use crate::progress::Progress;
use crate::store::{Snapshot, Store};

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

    fn plan(&self, snapshot: &Snapshot, form: Form) -> Result<Planned, QueryError> {
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
        let mut plan = Plan::new(snapshot, &selection, &keys, self.reduction)?;
        Self::check_grids(&plan)?;
        let sides: Vec<KeyValue> =
            plan.groups.iter().map(|group| group.key[0].clone()).collect::<BTreeSet<_>>().into_iter().collect();
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
        let pairs = self.pairs(&sides, form)?;
        let mut awaited: BTreeMap<Option<i32>, usize> = BTreeMap::new();
        for group in &plan.groups {
            *awaited.entry(Self::step_of(&group.key)).or_default() += 1;
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
        notes.append(&mut plan.notes);
        notes.extend(of_sides);
        notes.dedup();
        plan.notes = notes;
        Ok(Planned { plan, sides, pairs, timesteps, last_steps, awaited })
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
        let (planned, snapshot) = store.of_one_state(|snapshot| self.plan(snapshot, form))?;
        let mut explain = planned.plan.explain(&snapshot)?;
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
        let (planned, snapshot) = store.of_one_state(|snapshot| self.plan(snapshot, form))?;
        let mut rows: Vec<Row> = Vec::new();
        let mut differences = Differences::default();
        let mut pending: BTreeMap<Option<i32>, Vec<Reduced>> = BTreeMap::new();
        let mut awaited = planned.awaited.clone();
        let read = planned.plan.run(&snapshot, &planned.plan.meter(progress), |reduced| {
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
}
