//! The plan of a reduction: which groups of maps become one map each, which arrays are read for it, and the tasks that
//! do it.
//!
//! Average, evolution, map and compare are all reductions; they differ in what tells groups apart and in what is made
//! of the reduced maps. Planning reads tables only.

#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // axes and counts of maps are far below 2^31

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::{QueryError, few};
use super::explain::{ArrayUse, Explain};
use super::selection::{Maps, SelectedStep, Selection};
use super::task::{Piece, Placed, Task};
use crate::dtype::Dtype;
use crate::grid::Grid;
use crate::kernel::Reducer;
use crate::shape::StepShape;
use crate::store::{ArrayKind, Store, StoreError, series_of};

/// A task decodes about this much.
const TASK_BYTES: usize = 2 << 20;
/// What a task accumulates stays below this, if one chunk allows it.
const PARTIAL_BYTES: usize = 16 << 20;
/// All values of a median are held at once, for as many positions as fit into this.
const MEDIAN_BYTES: usize = 256 << 20;

/// What tells groups of maps apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    /// The video.
    Video,
    /// The prompt: its id, or its text where it has none.
    Prompt,
    /// The random seed.
    Seed,
    /// The tracked word.
    Token,
    /// The word's weight in the prompt.
    Weight,
    /// Position among the word's tokens.
    TokenIndex,
    /// Denoising step.
    Step,
    /// The scheduler's timestep.
    Timestep,
    /// Transformer block.
    Block,
    /// Attention head.
    Head,
}

impl Key {
    /// Name of its column.
    #[must_use]
    pub const fn column(self) -> &'static str {
        match self {
            Self::Video => "video_id",
            Self::Prompt => "prompt",
            Self::Seed => "seed",
            Self::Token => "token",
            Self::Weight => "weight",
            Self::TokenIndex => "token_index",
            Self::Step => "step",
            Self::Timestep => "timestep",
            Self::Block => "block",
            Self::Head => "head",
        }
    }

    /// Its value for a map.
    fn of(self, step: &SelectedStep, place: Place) -> KeyValue {
        let number = |number: Option<i32>| number.map_or(KeyValue::Null, |number| KeyValue::Int(number.into()));
        match self {
            Self::Video => KeyValue::Text(step.video_id.clone()),
            Self::Prompt => step.prompt.clone().map_or(KeyValue::Null, KeyValue::Text),
            Self::Seed => step.seed.map_or(KeyValue::Null, KeyValue::Int),
            Self::Token => KeyValue::Text(step.token.clone()),
            Self::Weight => step.weight.map_or(KeyValue::Null, KeyValue::float),
            Self::TokenIndex => KeyValue::Int(place.token as i128),
            Self::Step => KeyValue::Int(step.step.into()),
            Self::Timestep => step.timestep.map_or(KeyValue::Null, KeyValue::float),
            Self::Block => number(step.numbers.block(step.shape, place.block)),
            Self::Head => number(step.numbers.head(step.shape, place.head)),
        }
    }
}

/// Where in a step array a map is.
#[derive(Debug, Clone, Copy)]
struct Place {
    block: usize,
    head: usize,
    token: usize,
}

/// A value that tells a group apart, ordered as people order it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyValue {
    /// There is none.
    Null,
    /// A number of something.
    Int(i128),
    /// A float, as bits that order as it does.
    Float(u64),
    /// A name.
    Text(Arc<str>),
}

impl KeyValue {
    const SIGN: u64 = 1 << 63;

    pub(super) fn float(value: f64) -> Self {
        let bits = value.to_bits();
        Self::Float(if bits & Self::SIGN == 0 { bits | Self::SIGN } else { !bits })
    }

    /// As a number, if it is one.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::Int(value) => Some(value as f64),
            Self::Float(bits) => Some(f64::from_bits(if bits & Self::SIGN == 0 { !bits } else { bits & !Self::SIGN })),
            Self::Null | Self::Text(_) => None,
        }
    }

    /// Whether it is the number that a text stands for, however that is written (`3`, `3.0`, `3e0`).
    pub(super) fn is_number(&self, text: &str) -> bool {
        /// Floats have all integers below this.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        match (self, text.parse::<i128>(), text.parse::<f64>()) {
            (Self::Int(own), Ok(integer), _) => *own == integer,
            (Self::Int(own), Err(_), Ok(number)) => number.abs() < EXACT && *own as f64 == number,
            (Self::Float(_), _, Ok(number)) => self.as_f64() == Some(number),
            _ => false,
        }
    }
}

impl fmt::Display for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.as_f64()) {
            (Self::Text(text), _) => f.write_str(text),
            (Self::Int(value), _) => value.fmt(f),
            (_, Some(value)) => value.fmt(f),
            _ => f.write_str("none"),
        }
    }
}

/// Maps that become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its values of the keys.
    pub key: Vec<KeyValue>,
    /// Maps that go in.
    pub maps: u64,
    /// Positions of each.
    pub spatial: usize,
    /// Their grid, if known.
    pub grid: Option<Grid>,
    /// The last task that it takes part in.
    pub(super) last_task: usize,
}

/// How maps are reduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reduction {
    /// What becomes of the values at a position.
    pub reducer: Reducer,
    /// Whether non-finite values are left out instead of propagated.
    pub skipna: bool,
    /// Whether rollups may be read where they answer exactly.
    pub rollups: bool,
}

impl Default for Reduction {
    fn default() -> Self {
        Self { reducer: Reducer::Mean, skipna: false, rollups: true }
    }
}

/// A plan: groups and the tasks that reduce them, in an order that finishes groups early.
#[derive(Debug)]
pub struct Plan {
    /// What tells groups apart.
    pub keys: Vec<Key>,
    /// The groups.
    pub groups: Vec<Group>,
    /// How they are reduced.
    pub reduction: Reduction,
    pub(super) tasks: Vec<Task>,
    pub(super) explain: Explain,
    /// What the user should know, once.
    pub notes: Vec<String>,
}

impl Plan {
    /// Plans the reduction of the selected maps to one for each distinct value of `keys`.
    pub(super) fn new(
        store: &Store,
        selection: &Selection,
        keys: &[Key],
        reduction: Reduction,
    ) -> Result<Self, QueryError> {
        Self::within(store, selection, keys, reduction, MEDIAN_BYTES)
    }

    /// The same, with medians holding at most so many bytes of values.
    pub(super) fn within(
        store: &Store,
        selection: &Selection,
        keys: &[Key],
        reduction: Reduction,
        median_bytes: usize,
    ) -> Result<Self, QueryError> {
        let mut planner = Planner {
            store,
            keys,
            reduction,
            groups: Vec::new(),
            by_key: HashMap::new(),
            patterns: HashMap::new(),
            is_unequal: false,
            first_videos: Vec::new(),
            of_unknown_grids: BTreeSet::new(),
            chunks: HashMap::new(),
            tasks: Vec::new(),
            explain: Explain::default(),
            kinds: BTreeMap::new(),
        };
        for series in selection.steps.chunk_by(|a, b| a.array == b.array) {
            planner.add_series(series)?;
        }
        let mut notes = planner.absent_axes(selection);
        if !planner.of_unknown_grids.is_empty() {
            notes.push(unknown_grids(&planner.of_unknown_grids.iter().map(|video| &**video).collect()));
        }
        planner.check_grids(selection)?;
        planner.split_medians(median_bytes);
        planner.explain.select(selection);
        planner.explain.groups = planner.groups.len() as u64;
        planner.explain.tasks = planner.tasks.len() as u64;
        planner.explain.arrays = planner.kinds.into_values().collect();
        for (number, task) in planner.tasks.iter().enumerate() {
            for group in task.groups() {
                planner.groups[group as usize].last_task = number;
            }
        }
        Ok(Self {
            keys: keys.to_vec(),
            groups: planner.groups,
            reduction,
            tasks: planner.tasks,
            explain: planner.explain,
            notes,
        })
    }

    /// What will be done.
    ///
    /// # Errors
    /// If an array that will be read is not there.
    pub fn explain(&self, store: &Store) -> Result<Explain, QueryError> {
        let mut explain = self.explain.clone();
        explain.measure(store, &self.tasks)?;
        Ok(explain)
    }

    /// Bytes that will be decoded.
    #[must_use]
    pub fn decoded_bytes(&self) -> u64 {
        self.explain.arrays.iter().map(|array| array.decoded_bytes).sum()
    }
}

/// The choice of maps of a step, as the array that is read has them.
#[derive(Clone)]
struct Pattern {
    /// Maps to read, each with the number of its group among those of the step.
    placed: Arc<[Placed]>,
    /// A place in each of the step's groups.
    places: Arc<[Place]>,
    /// Maps that go into each of the step's groups.
    counts: Arc<[u64]>,
}

/// Shape, kind of array, and choice of maps.
type PatternName = (StepShape, ArrayKind, Option<Arc<[bool]>>);

struct Planner<'a> {
    store: &'a Store,
    keys: &'a [Key],
    reduction: Reduction,
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
    tasks: Vec<Task>,
    explain: Explain,
    kinds: BTreeMap<(ArrayKind, Dtype), ArrayUse>,
}

impl Planner<'_> {
    fn has(&self, key: Key) -> bool {
        self.keys.contains(&key)
    }

    /// The tasks of steps of one array.
    fn add_series(&mut self, series: &[SelectedStep]) -> Result<(), QueryError> {
        let Some(first) = series.first() else { return Ok(()) };
        let kind = self.choose_array(series);
        let dtype = kind.dtype(first.dtype);
        let path: Arc<str> = match kind {
            ArrayKind::Attention => first.array.clone(),
            _ => rollup_path(&first.array, kind).into(),
        };
        let is_new = !self.chunks.contains_key(&path);
        let (chunks, chunk_len) = match self.chunks.get(&path) {
            Some(known) => *known,
            None => {
                let array =
                    self.store.snapshot().open_series(series_of(&first.array), kind, first.shape, first.dtype)?;
                *self.chunks.entry(path.clone()).or_insert(array.chunks_of_step()?)
            }
        };
        let head_len = first.shape.head_len();
        let maps_per_chunk = chunk_len / head_len.max(1);
        let same_shape = series.iter().all(|step| step.shape == first.shape);
        if !same_shape
            || maps_per_chunk == 0
            || chunks * chunk_len != kind.step_axes(first.shape).iter().product::<usize>()
        {
            return Err(StoreError::Damaged {
                path: self.store.place().join(&*path),
                found: format!("{chunks} chunks of {chunk_len} values do not make a step of {}", first.shape),
            }
            .into());
        }
        let task = Task {
            array: path,
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
        // Pieces of work: one chunk of one step each, with the groups that the step's maps go to.
        let mut pieces: Vec<(Arc<[Placed]>, Piece)> = Vec::new();
        for step in series {
            let pattern = self.pattern(step, kind);
            let groups: Arc<[u32]> = pattern
                .places
                .iter()
                .zip(&*pattern.counts)
                .map(|(place, maps)| self.group(step, *place, *maps))
                .collect();
            let mut numbers: Vec<u32> =
                pattern.placed.iter().map(|placed| placed.map / maps_per_chunk as u32).collect();
            numbers.dedup();
            pieces.extend(
                numbers
                    .into_iter()
                    .map(|chunk| (pattern.placed.clone(), Piece { row: step.row, chunk, groups: groups.clone() })),
            );
        }
        // Where steps are reduced and maps of one step are not, the same chunk of all steps goes to the same groups.
        let across_steps = !self.has(Key::Step)
            && !self.has(Key::Timestep)
            && (self.has(Key::Block) || self.has(Key::Head) || self.has(Key::TokenIndex));
        if across_steps {
            pieces.sort_by_key(|(_, piece)| (piece.chunk, piece.row));
        }
        let uses = self.kinds.entry((kind, dtype)).or_insert_with(|| ArrayUse::new(kind, dtype));
        let chunk_bytes = chunk_len * dtype.size();
        uses.arrays += u64::from(is_new);
        uses.chunks += pieces.len() as u64;
        uses.decoded_bytes += (pieces.len() * chunk_bytes) as u64;
        self.cut(task, pieces, chunk_bytes);
        Ok(())
    }

    /// Cuts pieces of one array into tasks.
    fn cut(&mut self, empty: Task, pieces: Vec<(Arc<[Placed]>, Piece)>, chunk_bytes: usize) {
        let group_bytes = empty.spatial * 8;
        let mut task = empty.clone();
        let mut groups: BTreeSet<u32> = BTreeSet::new();
        for (placed, piece) in pieces {
            let of_piece = task_groups(&placed, &piece, task.maps_per_chunk);
            let more = of_piece.iter().filter(|group| !groups.contains(group)).count();
            let full = task.pieces.len() * chunk_bytes >= TASK_BYTES
                || (groups.len() + more) * group_bytes > PARTIAL_BYTES
                || !Arc::ptr_eq(&task.placed, &placed);
            if full && !task.pieces.is_empty() {
                self.tasks.push(std::mem::replace(&mut task, empty.clone()));
                groups.clear();
            }
            groups.extend(of_piece);
            task.placed = placed;
            task.pieces.push(piece);
        }
        if !task.pieces.is_empty() {
            self.tasks.push(task);
        }
    }

    /// The smallest array that answers exactly for these steps: a rollup if means over all blocks or heads are what
    /// goes in.
    fn choose_array(&mut self, series: &[SelectedStep]) -> ArrayKind {
        let Some(first) = series.first() else { return ArrayKind::Attention };
        let over_block = !self.has(Key::Block) && first.shape.blocks > 1;
        let over_head = !self.has(Key::Head) && first.shape.heads > 1;
        let rollups: &[ArrayKind] = match (over_block, over_head) {
            (true, true) => &[ArrayKind::Mean, ArrayKind::MeanBlock, ArrayKind::MeanHead],
            (true, false) => &[ArrayKind::MeanBlock],
            (false, true) => &[ArrayKind::MeanHead],
            (false, false) => return ArrayKind::Attention,
        };
        let is_whole = |kind: ArrayKind| {
            series.iter().all(|step| match &step.maps {
                Maps::All => true,
                Maps::Some(chosen) => is_whole(chosen, step.shape, kind),
            })
        };
        let refused = if self.reduction.reducer != Reducer::Mean {
            "a rollup holds means only"
        } else if self.reduction.skipna {
            "a rollup does not leave out non-finite values"
        } else if !self.reduction.rollups {
            "--no-rollups"
        } else if !self.store.snapshot().has_array(&rollup_path(&first.array, ArrayKind::Mean)) {
            "the store was made without rollups"
        } else if let Some(kind) = rollups.iter().copied().find(|kind| is_whole(*kind)) {
            return kind;
        } else {
            "not all maps are selected along any axis that is averaged"
        };
        self.explain.no_rollup.insert(refused);
        ArrayKind::Attention
    }

    /// The maps to read of an array of `kind`, for the step's choice of maps.
    fn pattern(&mut self, step: &SelectedStep, kind: ArrayKind) -> Pattern {
        let choice = match &step.maps {
            Maps::All => None,
            Maps::Some(chosen) => Some(chosen.clone()),
        };
        let name = (step.shape, kind, choice);
        if let Some(known) = self.patterns.get(&name) {
            return known.clone();
        }
        let StepShape { blocks, heads, tokens, .. } = step.shape;
        let (of_blocks, of_heads) = match kind {
            ArrayKind::Attention => (blocks, heads),
            ArrayKind::MeanHead => (blocks, 1),
            ArrayKind::MeanBlock => (1, heads),
            ArrayKind::Mean => (1, 1),
        };
        let chosen = |place: Place| match &name.2 {
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
        let pattern = Pattern { placed: placed.into(), places: places.into(), counts: counts.into() };
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
                last_task: 0,
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
    fn check_grids(&self, selection: &Selection) -> Result<(), QueryError> {
        if !self.is_unequal {
            return Ok(());
        }
        let videos: BTreeSet<&str> = selection.steps.iter().map(|step| &*step.video_id).collect();
        let mut grids: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for step in &selection.steps {
            let grid = step.grid.map_or_else(|| format!("{} positions", step.shape.spatial), |grid| grid.to_string());
            let name = if videos.len() > 1 { &step.video_id } else { &step.token };
            grids.entry(grid).or_default().insert(name);
        }
        let grids = grids.into_iter().map(|(grid, names)| format!("{grid} ({})", few(&names))).collect();
        Err(QueryError::UnequalGrids { grids })
    }

    /// What to say where an axis to be reduced was averaged away in the dump.
    fn absent_axes(&self, selection: &Selection) -> Vec<String> {
        let absent = |key: Key, name: &str, number: fn(&SelectedStep) -> Option<i32>| {
            let videos: BTreeSet<&str> =
                selection.steps.iter().filter(|step| number(step).is_none()).map(|step| &*step.video_id).collect();
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

    /// Medians need all values of a group: tasks are repeated for one range of positions after the other.
    fn split_medians(&mut self, median_bytes: usize) {
        if self.reduction.reducer.is_mergeable() {
            return;
        }
        let tasks = std::mem::take(&mut self.tasks);
        let sets = connected(&tasks, self.groups.len());
        for set in sets {
            let maps: usize = set.iter().map(|&task| tasks[task].maps()).sum();
            let spatial = set.iter().map(|&task| tasks[task].spatial).max().unwrap_or(0);
            let fitting = (median_bytes / (4 * maps.max(1))).max(1);
            let passes = spatial.div_ceil(fitting).max(1);
            let range = spatial.div_ceil(passes);
            self.explain.median_passes = self.explain.median_passes.max(passes as u64);
            for pass in 0..passes {
                let positions = pass * range..((pass + 1) * range).min(spatial);
                self.tasks.extend(set.iter().map(|&task| Task { positions: positions.clone(), ..tasks[task].clone() }));
            }
        }
        if self.explain.median_passes > 1 {
            for uses in self.kinds.values_mut() {
                uses.passes = self.explain.median_passes;
            }
        }
    }
}

/// Sets of tasks that share groups, in the order of their first tasks.
fn connected(tasks: &[Task], groups: usize) -> Vec<Vec<usize>> {
    let mut set_of_group: Vec<Option<usize>> = vec![None; groups];
    let mut sets: Vec<Vec<usize>> = Vec::new();
    for (number, task) in tasks.iter().enumerate() {
        let own = task.groups();
        let mut known: Vec<usize> = own.iter().filter_map(|group| set_of_group[*group as usize]).collect();
        known.sort_unstable();
        known.dedup();
        let target = known.first().copied().unwrap_or_else(|| {
            sets.push(Vec::new());
            sets.len() - 1
        });
        for &other in known.iter().skip(1) {
            let moved = std::mem::take(&mut sets[other]);
            for &task in &moved {
                for group in tasks[task].groups() {
                    set_of_group[group as usize] = Some(target);
                }
            }
            sets[target].extend(moved);
        }
        for group in own {
            set_of_group[group as usize] = Some(target);
        }
        sets[target].push(number);
    }
    sets.into_iter()
        .filter(|set| !set.is_empty())
        .map(|mut set| {
            set.sort_unstable();
            set
        })
        .collect()
}

/// Groups that the maps of one chunk go to.
pub(super) fn task_groups(placed: &[Placed], piece: &Piece, maps_per_chunk: usize) -> BTreeSet<u32> {
    in_chunk(placed, piece.chunk, maps_per_chunk).iter().map(|placed| piece.groups[placed.local as usize]).collect()
}

/// The maps that are in one chunk.
pub(super) fn in_chunk(placed: &[Placed], chunk: u32, maps_per_chunk: usize) -> &[Placed] {
    let first = chunk as usize * maps_per_chunk;
    let from = placed.partition_point(|placed| (placed.map as usize) < first);
    let to = placed.partition_point(|placed| (placed.map as usize) < first + maps_per_chunk);
    &placed[from..to]
}

/// Whether a choice of maps takes all or none along the axes that a rollup averages.
fn is_whole(chosen: &[bool], shape: StepShape, kind: ArrayKind) -> bool {
    let StepShape { blocks, heads, tokens, .. } = shape;
    let at = |block: usize, head: usize, token: usize| chosen[(block * heads + head) * tokens + token];
    let same = |block: usize, head: usize, token: usize| match kind {
        ArrayKind::Attention => true,
        ArrayKind::MeanHead => at(block, head, token) == at(block, 0, token),
        ArrayKind::MeanBlock => at(block, head, token) == at(0, head, token),
        ArrayKind::Mean => at(block, head, token) == at(0, 0, token),
    };
    (0..blocks).all(|block| (0..heads).all(|head| (0..tokens).all(|token| same(block, head, token))))
}

/// Maps that a value of an array stands for.
fn weight(kind: ArrayKind, shape: StepShape) -> u32 {
    let maps = match kind {
        ArrayKind::Attention => 1,
        ArrayKind::MeanHead => shape.heads,
        ArrayKind::MeanBlock => shape.blocks,
        ArrayKind::Mean => shape.blocks * shape.heads,
    };
    u32::try_from(maps).unwrap_or(u32::MAX)
}

fn rollup_path(attention: &str, kind: ArrayKind) -> String {
    format!("{}/{}", series_of(attention), kind.name())
}

/// What to say where maps of several videos are taken together position by position, and their grids are not known.
pub(super) fn unknown_grids(videos: &BTreeSet<&str>) -> String {
    format!(
        "the grids of {} videos are not known ({}): their maps are taken together position by position, which is right \
         only if their grids are the same (name it with `attnkit ingest --grid FxHxW --replace`)",
        videos.len(),
        few(videos)
    )
}
