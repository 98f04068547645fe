//! The work of a reduction: which groups of maps become one map each, which arrays are read for it, and the portions
//! that do it.
//!
//! Average, evolution, map and compare are all reductions; they differ in what tells groups apart and in what is made
//! of the reduced maps. Of the store nothing is asked here but how arrays are cut into chunks.

#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // axes and counts of maps are far below 2^31

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::ops::Range;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::cut::{Bounds, Cut, Placing, Reading, bundles, cut, in_ranges};
use super::error::{QueryError, few};
use super::key::{Key, KeyValue, Place};
use super::rollup::{choose, rollup_path, weight};
use super::selection::{Maps, SelectedStep};
use super::task::{Placed, Portion, Reduction};
use crate::grid::Grid;
use crate::remedy::{CommandName, Note, OptionName, Remedy};
use crate::shape::StepShape;
use crate::store::{ArrayKind, Snapshot, StoreError, series_of};

/// Maps that become one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Group {
    /// Its values of the keys.
    pub key: Vec<KeyValue>,
    /// Maps that go in.
    pub maps: u64,
    /// Positions of each.
    pub spatial: usize,
    /// Their grid, if known.
    pub grid: Option<Grid>,
    /// The last portion that it takes part in.
    pub(super) last_portion: u32,
}

/// Groups, and the portions that reduce them, in an order that finishes groups early.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// What tells groups apart.
    pub keys: Vec<Key>,
    pub groups: Vec<Group>,
    pub reduction: Reduction,
    pub portions: Vec<Portion>,
    /// Portions that are merged with each other first.
    pub bundles: Vec<Range<usize>>,
    /// By which what its tasks leave is known to be of it.
    pub fingerprint: u128,
    /// Why rollups are not read, where something is averaged that they might answer.
    pub no_rollup: BTreeSet<&'static str>,
    /// Times that everything is read for medians; 0 without.
    pub median_passes: u64,
    /// What the user should know, once.
    pub notes: Vec<Note>,
}

/// What is asked of a store: how its arrays are cut.
pub(super) trait Arrays {
    /// How a step of an array is cut: number of chunks, and elements of one.
    fn chunks_of_step(&self, step: &SelectedStep, kind: ArrayKind) -> Result<(usize, usize), StoreError>;

    /// Whether there is such an array.
    fn has(&self, path: &str) -> bool;

    /// That an array is not as the table says.
    fn damaged(&self, path: &str, found: String) -> StoreError;
}

impl Arrays for Snapshot {
    fn chunks_of_step(&self, step: &SelectedStep, kind: ArrayKind) -> Result<(usize, usize), StoreError> {
        self.open_series(series_of(&step.array), kind, step.shape, step.dtype)?.chunks_of_step()
    }

    fn has(&self, path: &str) -> bool {
        self.has_array(path)
    }

    fn damaged(&self, path: &str, found: String) -> StoreError {
        StoreError::Damaged { path: self.store().place().join(path), found: found.into() }
    }
}

impl Work {
    /// Plans the reduction of steps to one map for each distinct value of `keys`.
    pub fn plan(
        arrays: &dyn Arrays,
        steps: &[SelectedStep],
        keys: &[Key],
        reduction: Reduction,
        bounds: &Bounds,
    ) -> Result<Self, QueryError> {
        let mut planner = Planner {
            arrays,
            keys,
            reduction,
            bounds,
            groups: Vec::new(),
            by_key: HashMap::new(),
            patterns: HashMap::new(),
            is_unequal: false,
            first_videos: Vec::new(),
            of_unknown_grids: BTreeSet::new(),
            chunks: HashMap::new(),
            portions: Vec::new(),
            no_rollup: BTreeSet::new(),
        };
        for series in steps.chunk_by(|a, b| a.array == b.array) {
            planner.add_series(series)?;
        }
        let mut notes: Vec<Note> = planner.absent_axes(steps).into_iter().map(Note::from).collect();
        if !planner.of_unknown_grids.is_empty() {
            notes.push(unknown_grids(&planner.of_unknown_grids.iter().map(|video| &**video).collect()));
        }
        planner.check_grids(steps)?;
        let Planner { mut groups, mut portions, no_rollup, .. } = planner;
        let mut median_passes = 0;
        if !reduction.reducer.is_mergeable() {
            (portions, median_passes) = in_ranges(&portions, groups.len(), bounds.median_bytes);
        }
        for (number, cut) in portions.iter().enumerate() {
            for &group in &cut.groups {
                groups[group as usize].last_portion = number as u32;
            }
        }
        let bundles = bundles(&portions, bounds);
        let portions: Vec<Portion> = portions.into_iter().map(|cut| cut.portion).collect();
        let fingerprint = fingerprint(keys, &groups, &portions, &bundles);
        let keys = keys.to_vec();
        Ok(Self { keys, groups, reduction, portions, bundles, fingerprint, no_rollup, median_passes, notes })
    }

    /// Bytes that will be decoded.
    pub fn decoded_bytes(&self) -> u64 {
        self.portions.iter().map(Portion::decoded_bytes).sum()
    }
}

/// Of all that is read, and what becomes of it. What portions and pieces share is looked at once.
fn fingerprint(keys: &[Key], groups: &[Group], portions: &[Portion], bundles: &[Range<usize>]) -> u128 {
    let mut hasher = Xxh3::new();
    (keys, groups, bundles).hash(&mut hasher);
    let mut placed: Option<&Arc<[Placed]>> = None;
    let mut of_step: Option<&Arc<[u32]>> = None;
    for portion in portions {
        let Portion { array, kind, dtype, spatial, tokens, maps_per_chunk, weight, positions, .. } = portion;
        (array, kind, dtype, spatial, tokens, maps_per_chunk, weight, positions).hash(&mut hasher);
        portion.reduction.hash(&mut hasher);
        if !placed.replace(&portion.placed).is_some_and(|before| Arc::ptr_eq(before, &portion.placed)) {
            portion.placed.hash(&mut hasher);
        }
        for piece in &portion.pieces {
            (piece.row, piece.chunk).hash(&mut hasher);
            if !of_step.replace(&piece.groups).is_some_and(|before| Arc::ptr_eq(before, &piece.groups)) {
                piece.groups.hash(&mut hasher);
            }
        }
    }
    hasher.digest128()
}

/// The choice of maps of a step, as the array that is read has them.
#[derive(Clone)]
struct Pattern {
    /// Maps to read, each with the number of its group among those of the step.
    placing: Arc<Placing>,
    /// A place in each of the step's groups.
    places: Arc<[Place]>,
    /// Maps that go into each of the step's groups.
    counts: Arc<[u64]>,
}

/// Shape, kind of array, maps in a chunk, and choice of maps.
type PatternName = (StepShape, ArrayKind, usize, Option<Arc<[bool]>>);

struct Planner<'a> {
    arrays: &'a dyn Arrays,
    keys: &'a [Key],
    reduction: Reduction,
    bounds: &'a Bounds,
    groups: Vec<Group>,
    by_key: HashMap<Vec<KeyValue>, u32>,
    patterns: HashMap<PatternName, Pattern>,
    /// Whether maps of different grids go into one group.
    is_unequal: bool,
    /// The video that each group met first, and those whose maps go into a group with others' though their grids are
    /// not known.
    first_videos: Vec<Arc<str>>,
    of_unknown_grids: BTreeSet<Arc<str>>,
    /// How a step of each array that is read is cut: number of chunks, and elements of one.
    chunks: HashMap<Arc<str>, (usize, usize)>,
    portions: Vec<Cut>,
    no_rollup: BTreeSet<&'static str>,
}

impl Planner<'_> {
    fn has(&self, key: Key) -> bool {
        self.keys.contains(&key)
    }

    /// The portions of steps of one array.
    fn add_series(&mut self, series: &[SelectedStep]) -> Result<(), QueryError> {
        let Some(first) = series.first() else { return Ok(()) };
        let has = |kind| self.arrays.has(&rollup_path(&first.array, kind));
        let (kind, refused) = choose(series, self.keys, self.reduction, has);
        self.no_rollup.extend(refused);
        let dtype = kind.dtype(first.dtype);
        let path: Arc<str> = match kind {
            ArrayKind::Attention => first.array.clone(),
            _ => rollup_path(&first.array, kind).into(),
        };
        let (chunks, chunk_len) = match self.chunks.get(&path) {
            Some(known) => *known,
            None => *self.chunks.entry(path.clone()).or_insert(self.arrays.chunks_of_step(first, kind)?),
        };
        let head_len = first.shape.head_len();
        let maps_per_chunk = chunk_len / head_len.max(1);
        let same_shape = series.iter().all(|step| step.shape == first.shape);
        if !same_shape
            || maps_per_chunk == 0
            || chunks * chunk_len != kind.step_axes(first.shape).iter().product::<usize>()
        {
            let found = format!("{chunks} chunks of {chunk_len} values do not make a step of {}", first.shape);
            return Err(self.arrays.damaged(&path, found).into());
        }
        let empty = Portion {
            array: path,
            kind,
            dtype,
            spatial: first.shape.spatial,
            tokens: first.shape.tokens,
            maps_per_chunk,
            weight: weight(kind, first.shape),
            positions: 0..first.shape.spatial,
            reduction: self.reduction,
            placed: Arc::new([]),
            pieces: Vec::new(),
        };
        let steps: Vec<Reading> = series
            .iter()
            .map(|step| {
                let Pattern { placing, places, counts } = self.pattern(step, kind, maps_per_chunk);
                let groups = places.iter().zip(&*counts).map(|(place, maps)| self.group(step, *place, *maps));
                Reading { row: step.row, groups: groups.collect(), placing }
            })
            .collect();
        // Where steps are reduced and maps of one step are not, the same chunk of all steps goes to the same groups.
        let across_steps = !self.has(Key::Step)
            && !self.has(Key::Timestep)
            && (self.has(Key::Block) || self.has(Key::Head) || self.has(Key::TokenIndex));
        self.portions.extend(cut(&empty, &steps, across_steps, self.bounds));
        Ok(())
    }

    /// The maps to read of an array of `kind`, for the step's choice of maps.
    fn pattern(&mut self, step: &SelectedStep, kind: ArrayKind, maps_per_chunk: usize) -> Pattern {
        let choice = match &step.maps {
            Maps::All => None,
            Maps::Some(chosen) => Some(chosen.clone()),
        };
        let name = (step.shape, kind, maps_per_chunk, choice);
        if let Some(known) = self.patterns.get(&name) {
            return known.clone();
        }
        let StepShape { heads, tokens, .. } = step.shape;
        let StepShape { blocks: of_blocks, heads: of_heads, .. } = kind.step_shape(step.shape);
        let chosen = |place: Place| match &name.3 {
            None => true,
            Some(chosen) => chosen[(place.block * heads + place.head) * tokens + place.token],
        };
        let retained = |place: Place| {
            let keep = |key: Key, index: usize| if self.keys.contains(&key) { index } else { 0 };
            (keep(Key::TokenIndex, place.token), keep(Key::Block, place.block), keep(Key::Head, place.head))
        };
        let mut locals: HashMap<(usize, usize, usize), u32> = HashMap::new();
        let (mut placed, mut places, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for block in 0..of_blocks {
            for head in 0..of_heads {
                for token in 0..tokens {
                    let place = Place { block, head, token };
                    if !chosen(place) {
                        continue;
                    }
                    let local = *locals.entry(retained(place)).or_insert_with(|| {
                        places.push(place);
                        counts.push(0);
                        (places.len() - 1) as u32
                    });
                    counts[local as usize] += u64::from(weight(kind, step.shape));
                    placed.push(Placed { map: (block * of_heads + head) as u32, token: token as u32, local });
                }
            }
        }
        let placing = Arc::new(Placing::new(placed.into(), maps_per_chunk));
        let pattern = Pattern { placing, places: places.into(), counts: counts.into() };
        self.patterns.insert(name, pattern.clone());
        pattern
    }

    /// The group of a map, which `maps` more go into.
    fn group(&mut self, step: &SelectedStep, place: Place, maps: u64) -> u32 {
        let key: Vec<KeyValue> = self.keys.iter().map(|key| key.of(step, place)).collect();
        let number = *self.by_key.entry(key).or_insert_with_key(|key| {
            self.groups.push(Group {
                key: key.clone(),
                maps: 0,
                spatial: step.shape.spatial,
                grid: step.grid,
                last_portion: 0,
            });
            self.first_videos.push(step.video_id.clone());
            (self.groups.len() - 1) as u32
        });
        let first_video = &self.first_videos[number as usize];
        if step.grid.is_none() && *first_video != step.video_id {
            self.of_unknown_grids.extend([first_video.clone(), step.video_id.clone()]);
        }
        let group = &mut self.groups[number as usize];
        group.maps += maps;
        self.is_unequal |= (group.spatial, group.grid) != (step.shape.spatial, step.grid);
        number
    }

    /// Maps of one group must have one grid.
    fn check_grids(&self, steps: &[SelectedStep]) -> Result<(), QueryError> {
        if !self.is_unequal {
            return Ok(());
        }
        let videos: BTreeSet<&str> = steps.iter().map(|step| &*step.video_id).collect();
        let mut grids: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for step in steps {
            let grid = step.grid.map_or_else(|| format!("{} positions", step.shape.spatial), |grid| grid.to_string());
            let name = if videos.len() > 1 { &step.video_id } else { &step.token };
            grids.entry(grid).or_default().insert(name);
        }
        let grids = grids.into_iter().map(|(grid, names)| format!("{grid} ({})", few(&names))).collect();
        Err(QueryError::UnequalGrids { grids })
    }

    /// What to say where an axis to be reduced was averaged away in the dump.
    fn absent_axes(&self, steps: &[SelectedStep]) -> Vec<String> {
        let absent = |key: Key, name: &str, number: fn(&SelectedStep) -> Option<i32>| {
            let videos: BTreeSet<&str> =
                steps.iter().filter(|step| number(step).is_none()).map(|step| &*step.video_id).collect();
            (!self.has(key) && !videos.is_empty()).then(|| {
                format!(
                    "{name}s are averaged in the dump of {}: there, reducing over {name} changes nothing",
                    few(&videos)
                )
            })
        };
        let block = absent(Key::Block, "block", |step| step.numbers.block(step.shape, 0));
        let head = absent(Key::Head, "head", |step| step.numbers.head(step.shape, 0));
        [block, head].into_iter().flatten().collect()
    }
}

/// What to say where maps of several videos are taken together position by position, and their grids are not known.
pub(super) fn unknown_grids(videos: &BTreeSet<&str>) -> Note {
    let text = format!(
        "the grids of {} videos are not known ({}): their maps are taken together position by position, which is right \
         only if their grids are the same",
        videos.len(),
        few(videos)
    );
    let tries = [CommandName::Ingest.here(), OptionName::Grid.any(), OptionName::Replace.on()];
    Note::new(text, Remedy::of("{} with {} and {} names it", tries))
}
