//! In what the sides of a comparison differ beside what is asked. A side is the mean of all its maps: where these are of other videos,
//! texts or seeds than those of the other side, so is the difference.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use super::compare::Across;
use super::reduction::KeyValue;
use super::selection::{Maps, SelectedStep};
use crate::prompt::parse_weighted;
use crate::shape::AxisNumbers;

/// Sides that are named one by one in a note.
const NAMED: usize = 4;

/// Which maps of a step were selected: of how many blocks and heads, of which numbers, and which of these.
type Choice = (usize, usize, Arc<AxisNumbers>, Option<Arc<[bool]>>);

/// How many maps of a side have each value of something, and of how many it is not known.
struct Values<T> {
    known: HashMap<T, u64>,
    unknown: u64,
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self { known: HashMap::new(), unknown: 0 }
    }
}

impl<T: Eq + Hash> Values<T> {
    fn add(&mut self, value: Option<T>, maps: u64) {
        match value {
            Some(value) => *self.known.entry(value).or_default() += maps,
            None => self.unknown += maps,
        }
    }

    fn has_same(&self, other: &Self) -> bool {
        self.known.len() == other.known.len() && self.known.keys().all(|value| other.known.contains_key(value))
    }

    /// Whether both have the same values, each for the same share of the maps.
    fn has_same_shares(&self, other: &Self) -> bool {
        let all = |values: &Self| u128::from(values.known.values().sum::<u64>());
        let (own, others) = (all(self), all(other));
        let is_same = |(value, &maps): (&T, &u64)| {
            other.known.get(value).is_some_and(|&of_other| u128::from(maps) * others == u128::from(of_other) * own)
        };
        self.has_same(other) && self.known.iter().all(is_same)
    }

    /// How many there are, in words.
    fn count(&self, what: &str) -> String {
        match (self.known.len(), self.unknown) {
            (0, _) => format!("{what}s not known"),
            (known, 0) => count(known, what),
            (known, _) => format!("{} and unknown ones", count(known, what)),
        }
    }
}

/// What the maps of one side are of.
#[derive(Default)]
struct Side {
    videos: Values<Arc<str>>,
    /// Of prompts, without weights.
    texts: Values<Arc<str>>,
    seeds: Values<i128>,
    /// Of the word, as their bits.
    weights: Values<u64>,
    steps: Values<i32>,
    choices: Values<Choice>,
}

/// The sides that are compared with each other at once: at one step, or over all.
type Sides = BTreeMap<KeyValue, Side>;

/// What to say of the sides: in what they differ beside what is asked, and of how many videos each is a mean. `by_step`: they are compared
/// step by step, else over all steps or the last ones.
pub(super) fn notes(across: Across, steps: &[SelectedStep], by_step: bool) -> Vec<String> {
    let mut units: BTreeMap<Option<i32>, Sides> = BTreeMap::new();
    let mut clean: HashMap<Arc<str>, Arc<str>> = HashMap::new();
    for step in steps {
        let text =
            step.text.as_ref().map(|text| clean.entry(text.clone()).or_insert_with(|| without_weights(text)).clone());
        let chosen = match &step.maps {
            Maps::All => None,
            Maps::Some(chosen) => Some(chosen.clone()),
        };
        let sides = units.entry(by_step.then_some(step.step)).or_default();
        let keys = sides_of(across, step);
        let maps = (step.count() / keys.len().max(1)) as u64;
        for key in keys {
            let side = sides.entry(key).or_default();
            side.videos.add(Some(step.video_id.clone()), maps);
            side.texts.add(text.clone(), maps);
            side.seeds.add(step.seed, maps);
            side.weights.add(step.weight.map(f64::to_bits), maps);
            side.steps.add(Some(step.step), maps);
            let choice = (step.shape.blocks, step.shape.heads, step.numbers.clone(), chosen.clone());
            side.choices.add(Some(choice), maps);
        }
    }
    let units: Vec<Sides> = units.into_values().filter(|sides| sides.len() > 1).collect();
    let mut differing = Vec::new();
    let mut unknown = Vec::new();
    let mut ask = |found: Difference| match found {
        Difference::None => {}
        Difference::Unknown(what) => unknown.push(what),
        Difference::Some(text) => differing.push(text),
    };
    if !matches!(across, Across::Prompt | Across::Video | Across::Seed | Across::Weight) {
        ask(difference("videos", &units, |side| &side.videos, Values::has_same_shares));
    }
    if across != Across::Prompt {
        ask(difference("texts", &units, |side| &side.texts, Values::has_same_shares));
    }
    if across != Across::Seed {
        ask(difference("seeds", &units, |side| &side.seeds, Values::has_same_shares));
    }
    if across != Across::Weight {
        // Most dumps do not tell them.
        if let Difference::Some(text) =
            difference("weights of the word", &units, |side| &side.weights, Values::has_same_shares)
        {
            ask(Difference::Some(text));
        }
    }
    if !by_step && across != Across::Step {
        ask(difference("steps", &units, |side| &side.steps, Values::has_same));
    }
    if !matches!(across, Across::Block | Across::Head) {
        ask(difference("choices of blocks and heads", &units, |side| &side.choices, Values::has_same_shares));
    }
    let mut notes = Vec::new();
    if !differing.is_empty() {
        notes.push(format!(
            "the sides differ in more than the {}: {}; what is compared is that, too, unless --where keeps it fixed",
            across.name(),
            differing.join("; ")
        ));
    }
    if !unknown.is_empty() {
        notes.push(format!("whether the sides differ in {} is not known", unknown.join(" and ")));
    }
    let most = units.iter().flat_map(BTreeMap::values).max_by_key(|side| side.videos.known.len());
    if let Some(most) = most.filter(|side| side.videos.known.len() > 1) {
        notes.push(format!(
            "each side is one mean map, taken over up to {} videos ({}, {}) before it is compared: comparing within each video may \
             tell something else",
            most.videos.known.len(),
            most.texts.count("text"),
            most.seeds.count("seed")
        ));
    }
    notes
}

/// The mean timestep of each side's steps, by the number that they have in the answer.
pub(super) fn timesteps(across: Across, steps: &[SelectedStep]) -> HashMap<(KeyValue, Option<i32>), f64> {
    let mut sums: HashMap<(KeyValue, Option<i32>), (f64, u32)> = HashMap::new();
    for step in steps {
        let Some(timestep) = step.timestep else { continue };
        for side in sides_of(across, step) {
            let sum = sums.entry((side, Some(step.step))).or_default();
            *sum = (sum.0 + timestep, sum.1 + 1);
        }
    }
    sums.into_iter().map(|(place, (sum, count))| (place, sum / f64::from(count))).collect()
}

/// The sides that a step has maps on.
fn sides_of(across: Across, step: &SelectedStep) -> Vec<KeyValue> {
    let text = |text: &Option<Arc<str>>| text.clone().map_or(KeyValue::Null, KeyValue::Text);
    let shape = step.shape;
    let is_chosen = |is_of_side: &dyn Fn(usize, usize) -> bool| match &step.maps {
        Maps::All => true,
        Maps::Some(chosen) => (0..shape.blocks * shape.heads).any(|map| {
            let places = map * shape.tokens..(map + 1) * shape.tokens;
            is_of_side(map / shape.heads, map % shape.heads) && chosen[places].contains(&true)
        }),
    };
    let number = |number: Option<i32>| number.map(|number| KeyValue::Int(number.into()));
    match across {
        Across::Prompt => vec![text(&step.prompt)],
        Across::Video => vec![KeyValue::Text(step.video_id.clone())],
        Across::Seed => vec![step.seed.map_or(KeyValue::Null, KeyValue::Int)],
        Across::Token => vec![KeyValue::Text(step.token.clone())],
        Across::Weight => vec![step.weight.map_or(KeyValue::Null, KeyValue::float)],
        Across::Step => vec![KeyValue::Int(step.step.into())],
        Across::Block => {
            let chosen = (0..shape.blocks).filter(|&own| is_chosen(&|block, _| block == own));
            chosen.filter_map(|block| number(step.numbers.block(shape, block))).collect()
        }
        Across::Head => {
            let chosen = (0..shape.heads).filter(|&own| is_chosen(&|_, head| head == own));
            chosen.filter_map(|head| number(step.numbers.head(shape, head))).collect()
        }
    }
}

/// Whether sides differ in something.
enum Difference {
    None,
    /// It is not known of all of them.
    Unknown(&'static str),
    /// In words.
    Some(String),
}

/// How many of something each side has, if not all have the same; at the first step where they differ.
fn difference<T: Eq + Hash>(
    what: &'static str,
    units: &[Sides],
    of: impl Fn(&Side) -> &Values<T>,
    is_same: impl Fn(&Values<T>, &Values<T>) -> bool,
) -> Difference {
    let is_unknown = |side: &Side| of(side).unknown > 0;
    let differs = |sides: &&Sides| {
        let mut known = sides.values().filter(|side| !is_unknown(side));
        let Some(first) = known.next() else { return false };
        known.any(|side| !is_same(of(first), of(side)))
    };
    let differing: Vec<&Sides> = units.iter().filter(differs).collect();
    let Some(sides) = differing.first() else {
        let is_open = units.iter().flat_map(BTreeMap::values).any(is_unknown);
        return if is_open { Difference::Unknown(what) } else { Difference::None };
    };
    let first = sides.values().next().map(&of);
    let is_in_all = |value: &&T| sides.values().all(|side| of(side).known.contains_key(value));
    let shared = first.map_or(0, |first| first.known.keys().filter(is_in_all).count());
    let mut counts: Vec<String> = sides
        .iter()
        .take(NAMED)
        .map(|(name, side)| match (of(side).known.len(), is_unknown(side)) {
            (0, true) => format!("of {name} not known"),
            (known, true) => format!("{name} has {known} and unknown ones"),
            (known, false) => format!("{name} has {known}"),
        })
        .collect();
    if sides.len() > NAMED {
        counts.push(format!("{} more sides", sides.len() - NAMED));
    }
    let is_same_set = first.is_some_and(|first| sides.values().all(|side| first.has_same(of(side))));
    let common = if is_same_set {
        "the same, but for other parts of the maps".to_owned()
    } else {
        format!("all have {shared} in common")
    };
    let place = if differing.len() < units.len() {
        format!(", at {} of {} steps", differing.len(), units.len())
    } else {
        String::new()
    };
    Difference::Some(format!("{what} ({}; {common}{place})", counts.join(", ")))
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// A prompt's text as the model got it.
fn without_weights(text: &Arc<str>) -> Arc<str> {
    parse_weighted(text).map_or_else(|_| text.clone(), |variation| variation.prompt.into())
}
