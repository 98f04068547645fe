//! In what the sides of a comparison differ beside what is asked. A side is the mean of all its maps: where these are of other videos,
//! texts or seeds than those of the other side, so is the difference.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::compare::Across;
use super::reduction::KeyValue;
use super::selection::{Maps, SelectedStep};
use crate::prompt::parse_weighted;

/// Sides that are named one by one in a note.
const NAMED: usize = 4;

/// What the maps of one side are of.
#[derive(Default)]
struct Side {
    videos: HashSet<Arc<str>>,
    /// Of prompts, without weights; `None`: not known.
    texts: HashSet<Option<Arc<str>>>,
    seeds: HashSet<Option<i128>>,
    /// Of the word, as their bits.
    weights: HashSet<Option<u64>>,
}

/// What to say of the sides: in what they differ beside what is asked, and of how many videos each is a mean.
pub(super) fn notes(across: Across, steps: &[SelectedStep]) -> Vec<String> {
    let mut sides: BTreeMap<KeyValue, Side> = BTreeMap::new();
    let mut clean: HashMap<Arc<str>, Arc<str>> = HashMap::new();
    for step in steps {
        let text =
            step.text.as_ref().map(|text| clean.entry(text.clone()).or_insert_with(|| without_weights(text)).clone());
        for key in sides_of(across, step) {
            let side = sides.entry(key).or_default();
            side.videos.insert(step.video_id.clone());
            side.texts.insert(text.clone());
            side.seeds.insert(step.seed);
            side.weights.insert(step.weight.map(f64::to_bits));
        }
    }
    let one_video_has_one_side = matches!(across, Across::Prompt | Across::Video | Across::Seed | Across::Weight);
    let mut differing = Vec::new();
    if !one_video_has_one_side {
        differing.extend(difference("videos", &sides, |side| &side.videos));
    }
    if across != Across::Prompt {
        differing.extend(difference("texts", &sides, |side| &side.texts));
    }
    if across != Across::Seed {
        differing.extend(difference("seeds", &sides, |side| &side.seeds));
    }
    if !matches!(across, Across::Weight | Across::Token) {
        differing.extend(difference("weights of the word", &sides, |side| &side.weights));
    }
    let mut notes = Vec::new();
    if !differing.is_empty() {
        notes.push(format!(
            "the sides differ in more than the {}: {}; what is compared is that, too, unless --where keeps it fixed",
            across.name(),
            differing.join("; ")
        ));
    }
    let most = sides.values().max_by_key(|side| side.videos.len());
    if let Some(most) = most.filter(|side| side.videos.len() > 1) {
        notes.push(format!(
            "each side is one mean map, taken over up to {} videos ({}, {}) before it is compared: comparing within each video may \
             tell something else",
            most.videos.len(),
            count(most.texts.len(), "text"),
            count(most.seeds.len(), "seed")
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

/// How many of something each side has, if not all have the same.
fn difference<T: Eq + std::hash::Hash>(
    what: &str,
    sides: &BTreeMap<KeyValue, Side>,
    of: impl Fn(&Side) -> &HashSet<T>,
) -> Option<String> {
    let first = of(sides.values().next()?);
    if sides.values().all(|side| of(side) == first) {
        return None;
    }
    let shared = first.iter().filter(|one| sides.values().all(|side| of(side).contains(one))).count();
    let mut counts: Vec<String> =
        sides.iter().take(NAMED).map(|(name, side)| format!("{name} has {}", of(side).len())).collect();
    if sides.len() > NAMED {
        counts.push(format!("{} more sides", sides.len() - NAMED));
    }
    Some(format!("{what} ({}; all have {shared} in common)", counts.join(", ")))
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// A prompt's text as the model got it.
fn without_weights(text: &Arc<str>) -> Arc<str> {
    parse_weighted(text).map_or_else(|_| text.clone(), |variation| variation.prompt.into())
}
