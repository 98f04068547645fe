//! In what the sides of a comparison differ beside what is asked. A side is the mean of all its maps: where these are
//! of other videos, texts or seeds than those of the other side, so is the difference.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use super::Across;
use crate::prompt::parse_weighted;
use crate::query::key::KeyValue;
use crate::query::selection::{Maps, SelectedStep};
use crate::remedy::{Note, OptionName, Remedy};
use crate::shape::AxisNumbers;

/// Names that are given of what there are several of.
const NAMED: usize = 3;
/// Characters of a text by which it is named.
const NAME_CHARS: usize = 40;

/// Which maps of a step a side has: along which blocks and heads, and of these all or those marked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Choice {
    axes: (usize, usize, AxisNumbers),
    marks: Option<Arc<[bool]>>,
}

/// The maps of a step that are on one side.
struct OnSide {
    side: KeyValue,
    choice: Choice,
    maps: u64,
}

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

impl<T: Eq + Hash + Ord> Values<T> {
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
        let (own, others) = (u128::from(self.maps()), u128::from(other.maps()));
        let is_same = |(value, &maps): (&T, &u64)| {
            other.known.get(value).is_some_and(|&of_other| u128::from(maps) * others == u128::from(of_other) * own)
        };
        self.has_same(other) && self.known.iter().all(is_same)
    }

    /// Maps of which it is known.
    fn maps(&self) -> u64 {
        self.known.values().sum()
    }

    /// How many there are, in words.
    fn count(&self, what: &str) -> String {
        match (self.known.len(), self.unknown) {
            (0, _) => format!("{what}s not known"),
            (known, 0) => count(known, what),
            (known, _) => format!("{} and unknown ones", count(known, what)),
        }
    }

    /// The first of them by name, with the share of the maps that each has, if these are wanted.
    fn names(&self, name: fn(&T) -> String, shares: bool) -> String {
        let mut sorted: Vec<(&T, &u64)> = self.known.iter().collect();
        sorted.sort_unstable();
        let share = |maps: u64| 100.0 * maps as f64 / self.maps() as f64;
        let named = |(value, &maps): (&T, &u64)| {
            if shares { format!("{} in {:.0} %", name(value), share(maps)) } else { name(value) }
        };
        let mut names: Vec<String> = sorted.into_iter().map(named).collect();
        names.extend((self.unknown > 0).then(|| "unknown ones".to_owned()));
        listed(&names)
    }
}

/// What the maps of one side are of.
#[derive(Default)]
struct Side {
    videos: Values<Arc<str>>,
    /// Of prompts, without weights.
    texts: Values<Arc<str>>,
    seeds: Values<i128>,
    /// Of the word.
    weights: Values<Weight>,
    steps: Values<i32>,
    /// How many tokens the word has.
    pieces: Values<usize>,
    choices: Values<Choice>,
}

/// A weight, by its bits; of weights, which are not negative, in their order.
type Weight = u64;

/// The sides that are compared with each other at once: at one step, or over all.
type Sides = BTreeMap<KeyValue, Side>;

/// What to say of the sides: in what they differ beside what is asked, and of how many videos each is a mean.
/// `by_step`: they are compared step by step, else over all steps or the last ones.
pub(super) fn notes(across: Across, steps: &[SelectedStep], by_step: bool) -> Vec<Note> {
    let units: Vec<Sides> = units(across, steps, by_step).into_values().filter(|sides| sides.len() > 1).collect();
    let is_asked = |ways: &[Across]| ways.contains(&across);
    let mut found = Vec::new();
    if !is_asked(&[Across::Prompt, Across::Video, Across::Seed, Across::Weight]) {
        found.push(difference("videos", &units, |side| &side.videos, Values::has_same_shares, ToString::to_string));
    }
    if !is_asked(&[Across::Prompt]) {
        found.push(difference("texts", &units, |side| &side.texts, Values::has_same_shares, |text| quoted(text)));
    }
    if !is_asked(&[Across::Seed]) {
        found.push(difference("seeds", &units, |side| &side.seeds, Values::has_same_shares, i128::to_string));
    }
    if !is_asked(&[Across::Weight]) {
        let name = |&bits: &Weight| f64::from_bits(bits).to_string();
        let weights = difference("weights of the word", &units, |side| &side.weights, Values::has_same_shares, name);
        // Most dumps do not tell them.
        found.extend((!matches!(weights, Difference::Unknown(_))).then_some(weights));
    }
    if !by_step && !is_asked(&[Across::Step]) {
        found.push(difference("steps", &units, |side| &side.steps, Values::has_same, i32::to_string));
    }
    let choices =
        difference("blocks and heads", &units, |side| &side.choices, Values::has_same_shares, Choice::to_string);
    found.push(choices);

    let mut notes = Vec::new();
    let has_others = |side: &Side, first: &Side| !side.pieces.has_same(&first.pieces);
    if units
        .iter()
        .any(|sides| sides.values().next().is_some_and(|first| sides.values().any(|side| has_others(side, first))))
    {
        notes.push(
            "the words of the sides are of different numbers of tokens, and the mean over these is compared; a word's \
             share is their sum, as a capture with pooling=\"sum\" stores it"
                .into(),
        );
    }
    let differing: Vec<&str> = found.iter().filter_map(Difference::text).collect();
    if !differing.is_empty() {
        let text = format!(
            "the sides differ in more than the {}, and what is compared is that, too: {}",
            across.name(),
            differing.join("; ")
        );
        notes.push(Note::new(text, Remedy::of("{} can keep it fixed", [OptionName::Where.unsaid()])));
    }
    let unknown: Vec<&str> = found.iter().filter_map(Difference::unknown).collect();
    if !unknown.is_empty() {
        notes.push(format!("whether the sides differ in {} is not known", unknown.join(" and ")).into());
    }
    let most = units.iter().flat_map(BTreeMap::values).max_by_key(|side| side.videos.known.len());
    if let Some(most) = most.filter(|side| side.videos.known.len() > 1) {
        let mut kinds = vec![most.texts.count("text"), most.seeds.count("seed")];
        kinds.extend((most.weights.known.len() > 1).then(|| most.weights.count("weight")));
        let text = format!(
            "each side is one mean map, taken over up to {} videos ({}) before it is compared",
            most.videos.known.len(),
            kinds.join(", ")
        );
        let remedy = "within each video, asked one by one with {}, it may be otherwise";
        notes.push(Note::new(text, Remedy::of(remedy, [OptionName::Video.unsaid()])));
    }
    notes
}

/// The sides, by the step at which they are compared, if they are so.
fn units(across: Across, steps: &[SelectedStep], by_step: bool) -> BTreeMap<Option<i32>, Sides> {
    let mut units: BTreeMap<Option<i32>, Sides> = BTreeMap::new();
    let mut clean: HashMap<Arc<str>, Arc<str>> = HashMap::new();
    for step in steps {
        let text =
            step.text.as_ref().map(|text| clean.entry(text.clone()).or_insert_with(|| without_weights(text)).clone());
        let sides = units.entry(by_step.then_some(step.step)).or_default();
        for OnSide { side, choice, maps } in sides_of(across, step) {
            let side = sides.entry(side).or_default();
            side.videos.add(Some(step.video_id.clone()), maps);
            side.texts.add(text.clone(), maps);
            side.seeds.add(step.seed, maps);
            side.weights.add(step.weight.map(f64::to_bits), maps);
            side.steps.add(Some(step.step), maps);
            side.pieces.add(Some(step.shape.tokens), maps);
            side.choices.add(Some(choice), maps);
        }
    }
    units
}

/// The mean timestep of each side's steps, by the number that they have in the answer.
pub(super) fn timesteps(across: Across, steps: &[SelectedStep]) -> HashMap<(KeyValue, Option<i32>), f64> {
    let mut sums: HashMap<(KeyValue, Option<i32>), (f64, u32)> = HashMap::new();
    for step in steps {
        let Some(timestep) = step.timestep else { continue };
        for OnSide { side, .. } in sides_of(across, step) {
            let sum = sums.entry((side, Some(step.step))).or_default();
            *sum = (sum.0 + timestep, sum.1 + 1);
        }
    }
    sums.into_iter().map(|(place, (sum, count))| (place, sum / f64::from(count))).collect()
}

/// The step of each side, where all its maps are of one.
pub(super) fn only_steps(across: Across, steps: &[SelectedStep]) -> HashMap<KeyValue, i32> {
    let sides = units(across, steps, false).remove(&None).unwrap_or_default();
    let only = |(name, side): (KeyValue, Side)| match side.steps.known.into_keys().collect::<Vec<_>>()[..] {
        [only] => Some((name, only)),
        _ => None,
    };
    sides.into_iter().filter_map(only).collect()
}

/// The sides that a step has maps on.
fn sides_of(across: Across, step: &SelectedStep) -> Vec<OnSide> {
    let text = |text: &Option<Arc<str>>| text.clone().map_or(KeyValue::Null, KeyValue::Text);
    let side = match across {
        Across::Prompt => text(&step.prompt),
        Across::Video => KeyValue::Text(step.video_id.clone()),
        Across::Seed => step.seed.map_or(KeyValue::Null, KeyValue::Int),
        Across::Token => KeyValue::Text(step.token.clone()),
        Across::Weight => step.weight.map_or(KeyValue::Null, KeyValue::float),
        Across::Step => KeyValue::Int(step.step.into()),
        Across::Block | Across::Head => return places_along(across == Across::Block, step),
    };
    let marks = match &step.maps {
        Maps::All => None,
        Maps::Some(chosen) => Some(chosen.clone()),
    };
    let choice = Choice { axes: (step.shape.blocks, step.shape.heads, (*step.numbers).clone()), marks };
    vec![OnSide { side, choice, maps: step.count() as u64 }]
}

/// The blocks of a step that have selected maps, or the heads, each with the choice along the other axis.
fn places_along(blocks: bool, step: &SelectedStep) -> Vec<OnSide> {
    let (shape, numbers) = (step.shape, &*step.numbers);
    let (own, others) = if blocks { (shape.blocks, shape.heads) } else { (shape.heads, shape.blocks) };
    let on_side = |place: usize| {
        let number = if blocks { numbers.block(shape, place) } else { numbers.head(shape, place) };
        let of_others = |other: usize| if blocks { place * shape.heads + other } else { other * shape.heads + place };
        let marks: Option<Arc<[bool]>> = match &step.maps {
            Maps::All => None,
            Maps::Some(chosen) => {
                let marks_of = |map: usize| &chosen[map * shape.tokens..(map + 1) * shape.tokens];
                Some((0..others).flat_map(|other| marks_of(of_others(other))).copied().collect())
            }
        };
        let maps = marks.as_ref().map_or(others * shape.tokens, |marks| marks.iter().filter(|mark| **mark).count());
        let marks = marks.filter(|marks| marks.contains(&false));
        let axes = if blocks {
            (1, others, AxisNumbers { blocks: None, heads: numbers.heads.clone() })
        } else {
            (others, 1, AxisNumbers { blocks: numbers.blocks.clone(), heads: None })
        };
        let choice = Choice { axes, marks };
        Some(OnSide { side: KeyValue::Int(number?.into()), choice, maps: maps as u64 }).filter(|found| found.maps > 0)
    };
    (0..own).filter_map(on_side).collect()
}

/// Whether sides differ in something.
enum Difference {
    None,
    /// It is not known of all of them.
    Unknown(&'static str),
    /// In words.
    Some(String),
}

impl Difference {
    fn text(&self) -> Option<&str> {
        if let Self::Some(text) = self { Some(text) } else { None }
    }

    const fn unknown(&self) -> Option<&'static str> {
        if let Self::Unknown(what) = self { Some(what) } else { None }
    }
}

/// What of something each side has, if not all have the same; at the first step where they differ.
fn difference<T: Eq + Hash + Ord>(
    what: &'static str,
    units: &[Sides],
    of: impl Fn(&Side) -> &Values<T>,
    is_same: impl Fn(&Values<T>, &Values<T>) -> bool,
    name: fn(&T) -> String,
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
    let is_same_set = first.is_some_and(|first| sides.values().all(|side| first.has_same(of(side))));
    // Sides that have the same are named together.
    let mut told: Vec<(&Values<T>, Vec<String>)> = Vec::new();
    for (side, values) in *sides {
        let own = of(values);
        let is_own = |known: &Values<T>| is_same(known, own) && (known.unknown > 0) == (own.unknown > 0);
        match told.iter_mut().find(|(known, _)| is_own(known)) {
            Some((_, sides)) => sides.push(side.to_string()),
            None => told.push((own, vec![side.to_string()])),
        }
    }
    let names: HashSet<String> = told.iter().map(|(values, _)| values.names(name, is_same_set)).collect();
    let more = told.iter().skip(NAMED).map(|(_, sides)| sides.len()).sum::<usize>();
    let has = |(values, sides): &(&Values<T>, Vec<String>)| {
        let has = if sides.len() == 1 { "has" } else { "have" };
        format!("{} {has} {}", listed(sides), values.names(name, is_same_set))
    };
    let mut parts: Vec<String> = told.iter().take(NAMED).map(has).collect();
    parts.extend((more > 0).then(|| format!("{more} more sides have others")));
    let is_in_all = |value: &&T| sides.values().all(|side| of(side).known.contains_key(value));
    let shared = first.map_or(0, |first| first.known.keys().filter(is_in_all).count());
    let mut common = Vec::new();
    if names.len() < told.len() {
        // What is called the same is not the same.
        common.push("other ones each".to_owned());
    } else if !is_same_set && sides.values().any(|side| of(side).known.len() > 1) {
        common.push(format!("{shared} in common"));
    }
    if differing.len() < units.len() {
        common.push(format!("at {} of {} steps", differing.len(), units.len()));
    }
    let told = std::iter::once(parts.join(", ")).chain(common).collect::<Vec<_>>();
    Difference::Some(format!("{what} ({})", told.join("; ")))
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (blocks, heads, _) = self.axes;
        match &self.marks {
            None => write!(f, "all of {blocks} x {heads} maps"),
            Some(marks) => {
                write!(f, "{} of {blocks} x {heads} maps", marks.iter().filter(|mark| **mark).count())
            }
        }
    }
}

/// `a`, `a and b`, `5 (a, b, c, …)`.
fn listed(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        [only] => only.clone(),
        [all @ .., last] if names.len() <= NAMED => format!("{} and {last}", all.join(", ")),
        _ => format!("{} ({}, …)", names.len(), names[..NAMED].join(", ")),
    }
}

/// A text by its beginning.
fn quoted(text: &str) -> String {
    let start: String = text.chars().take(NAME_CHARS).collect();
    format!("\"{start}{}\"", if start.len() < text.len() { "…" } else { "" })
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// A prompt's text as the model got it.
fn without_weights(text: &Arc<str>) -> Arc<str> {
    parse_weighted(text).map_or_else(|_| text.clone(), |variation| variation.prompt.into())
}
