//! Which maps a filter selects: rows of `steps`, and in each the places of maps.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use polars::prelude::{
    Column, DataFrame, DataType, Expr, IdxSize, Int32Chunked, IntoLazy, JoinArgs, JoinType, LazyFrame, ListChunked,
    MaintainOrderJoin, PlSmallStr, col,
};

use super::catalog::{Catalog, STEP_KEY};
use super::error::{QueryError, caught, few};
use super::exact::filtered;
use super::filter::{Conditions, Filter, PLACE};
use crate::dtype::Dtype;
use crate::grid::Grid;
use crate::shape::{AxisNumbers, StepShape};
use crate::store::{Snapshot, StepPlace, StepRow, Store, StoredAs};

/// Columns of `steps` that selected steps are read from.
const COLUMNS: [&str; 20] = [
    "video_id",
    "prompt_id",
    "prompt",
    "seed",
    "token",
    "weight",
    "step",
    "timestep",
    "num_blocks",
    "num_heads",
    "spatial",
    "tokens",
    "block_numbers",
    "head_numbers",
    "frames",
    "height",
    "width",
    "dtype",
    "array",
    "row",
];
/// Number of the selected step, while rows of `heads` are joined to it.
const NUMBER: &str = "attnkit_step_number";

/// A step of which at least one map is selected.
#[derive(Debug, Clone)]
pub(super) struct SelectedStep {
    pub video_id: Arc<str>,
    /// The prompt's id, or its text where it has none.
    pub prompt: Option<Arc<str>>,
    /// The prompt's text.
    pub text: Option<Arc<str>>,
    pub seed: Option<i128>,
    pub token: Arc<str>,
    pub weight: Option<f64>,
    pub step: i32,
    pub timestep: Option<f64>,
    pub shape: StepShape,
    /// Of its blocks and heads, where they do not count from 0. Shared by the steps of a word.
    pub numbers: Arc<AxisNumbers>,
    pub grid: Option<Grid>,
    pub dtype: Dtype,
    /// Path of the attention array below the store.
    pub array: Arc<str>,
    pub row: u32,
    pub maps: Maps,
}

impl SelectedStep {
    /// Number of selected maps.
    pub fn count(&self) -> usize {
        match &self.maps {
            Maps::All => self.shape.blocks * self.shape.heads * self.shape.tokens,
            Maps::Some(chosen) => chosen.iter().filter(|chosen| **chosen).count(),
        }
    }
}

/// Which maps of a step array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Maps {
    /// Every one.
    All,
    /// Those marked, in C order over `[block, head, token]`. Steps with the same choice share it.
    Some(Arc<[bool]>),
}

/// The selected steps, in the order of the tables: video by video, word by word, step by step.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    pub steps: Vec<SelectedStep>,
}

impl Selection {
    /// Evaluates a filter.
    ///
    /// # Errors
    /// If the tables cannot be read, or nothing is selected.
    pub fn find(snapshot: &Snapshot, filter: &Filter) -> Result<Self, QueryError> {
        let conditions = filter.conditions()?;
        let catalog = Catalog::of(snapshot, &filter.videos())?;
        let mut columns: Vec<&str> = COLUMNS.to_vec();
        for name in conditions.steps_columns() {
            if !columns.contains(&name) {
                columns.push(name);
            }
        }
        let steps = filtered(catalog.steps()?, conditions.of_steps());
        let frame = caught(|| steps.select(columns.into_iter().map(col).collect::<Vec<_>>()).collect())?;
        let mut selected = read_steps(&frame)?;
        if conditions.asks_statistics() {
            let chosen = chosen_by_statistics(&catalog, &conditions, frame)?;
            choose(&mut selected, &chosen)?;
        } else if let Some(condition) = conditions.of_places() {
            choose_places(&mut selected, &condition)?;
        }
        if selected.is_empty() {
            let condition = filter.text();
            let hints = filter.several_hint().into_iter().chain([whats_there(&Catalog::open(snapshot)?)?]);
            return Err(QueryError::NothingSelected { condition, remedy: hints.collect::<Vec<_>>().join("; ").into() });
        }
        Ok(Self { steps: selected })
    }
}

/// How much is selected.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Selected {
    pub videos: u64,
    /// Counted in each video.
    pub words: u64,
    pub steps: u64,
    pub maps: u64,
}

impl Selected {
    pub fn of(steps: &[SelectedStep]) -> Self {
        let videos: BTreeSet<&str> = steps.iter().map(|step| &*step.video_id).collect();
        let words: BTreeSet<(&str, &str)> = steps.iter().map(|step| (&*step.video_id, &*step.token)).collect();
        Self {
            videos: videos.len() as u64,
            words: words.len() as u64,
            steps: steps.len() as u64,
            maps: steps.iter().map(|step| step.count() as u64).sum(),
        }
    }
}

/// What there is to select, in a line.
pub(super) fn whats_there(catalog: &Catalog) -> Result<String, QueryError> {
    let columns = ["token", "step", "video_id", "num_blocks", "num_heads", "block_numbers", "head_numbers"];
    let all = catalog.steps()?.select(columns.map(col)).collect()?;
    if all.height() == 0 {
        let left_out = catalog.snapshot().left_out().into_iter().map(|(_, error)| format!("left out: {error}"));
        let said: Vec<String> = std::iter::once("the store is empty".to_owned()).chain(left_out).collect();
        return Ok(said.join("; "));
    }
    let names = |column: &str| -> Result<BTreeSet<String>, QueryError> {
        Ok(all.column(column)?.str()?.iter().flatten().map(str::to_owned).collect())
    };
    let (words, videos) = (names("token")?, names("video_id")?);
    // Those of a prompt before groups of keys.
    let (groups, own): (Vec<&String>, Vec<&String>) = words.iter().partition(|word| word.contains(':'));
    let words = [own, groups].concat();
    let steps = all.column("step")?.i32()?;
    let axis = |name: &str, sizes: &str, numbers: &str| -> Result<String, QueryError> {
        let sizes = all.column(sizes)?.i32()?;
        let lists = all.column(numbers)?.list()?;
        let mut known: BTreeSet<i32> = BTreeSet::new();
        for row in 0..all.height() {
            match (numbers_of(lists, row)?, sizes.get(row)) {
                (Some(numbers), _) => known.extend(numbers.iter()),
                (None, Some(size @ 2..)) => known.extend([0, size - 1]),
                _ => {}
            }
        }
        Ok(match (known.first(), known.last()) {
            (Some(first), Some(last)) if first < last => format!("{name}s {first} to {last}"),
            (Some(only), _) => format!("{name} {only}"),
            _ => format!("{name}s averaged"),
        })
    };
    Ok(format!(
        "in the store: words {}; steps {} to {}; {}; {}; videos {}",
        few(words),
        steps.iter().flatten().min().unwrap_or_default(),
        steps.iter().flatten().max().unwrap_or_default(),
        axis("block", "num_blocks", "block_numbers")?,
        axis("head", "num_heads", "head_numbers")?,
        few(&videos),
    ))
}

/// The steps of which a filter selects at least one map: for whoever works on whole steps.
#[derive(Debug, Clone)]
pub struct StepSet(HashSet<(Arc<str>, Arc<str>, i32)>);

impl StepSet {
    /// Evaluates a filter.
    ///
    /// # Errors
    /// If the tables cannot be read, or nothing is selected.
    pub fn find(store: &Store, filter: &Filter) -> Result<Self, QueryError> {
        let (selection, _) = store.of_one_state(|snapshot| Selection::find(snapshot, filter))?;
        let steps = selection.steps;
        Ok(Self(steps.into_iter().map(|step| (step.video_id, step.token, step.step)).collect()))
    }

    /// Whether it has the step that a row stands for.
    #[must_use]
    pub fn contains(&self, row: &StepRow) -> bool {
        self.0.contains(&(row.video_id.as_str().into(), row.token.as_str().into(), row.step))
    }
}

fn read_steps(frame: &DataFrame) -> Result<Vec<SelectedStep>, QueryError> {
    let text = |name: &str| Ok::<_, QueryError>(frame.column(name)?.str()?);
    let int = |name: &str| Ok::<_, QueryError>(frame.column(name)?.i32()?);
    let float = |name: &str| Ok::<_, QueryError>(frame.column(name)?.f64()?);
    let (video_id, prompt_id, prompt, token) = (text("video_id")?, text("prompt_id")?, text("prompt")?, text("token")?);
    let (array, dtype) = (text("array")?, text("dtype")?);
    let seeds = frame.column("seed")?.cast(&DataType::Int128)?;
    let seed = seeds.i128()?;
    let lists = [frame.column("block_numbers")?.list()?, frame.column("head_numbers")?.list()?];
    let (weight, timestep, step, row) = (float("weight")?, float("timestep")?, int("step")?, int("row")?);
    let axes = [int("num_blocks")?, int("num_heads")?, int("spatial")?, int("tokens")?];
    let grid = [int("frames")?, int("height")?, int("width")?];
    let mut names: HashMap<String, Arc<str>> = HashMap::new();
    let mut shared = |name: &str| match names.get(name) {
        Some(known) => known.clone(),
        None => names.entry(name.to_owned()).or_insert_with(|| name.into()).clone(),
    };
    let mut known_numbers = Arc::new(AxisNumbers::default());
    let damaged = |row: usize, what: &str| {
        QueryError::Store(crate::store::StoreError::Damaged {
            path: array.get(row).unwrap_or_default().into(),
            found: format!("the table `steps` gives it {what}").into(),
        })
    };
    (0..frame.height())
        .map(|index| {
            let [blocks, heads] = lists.map(|list| numbers_of(list, index));
            let stored = StoredAs {
                axes: axes.map(|axis| axis.get(index)),
                numbers: AxisNumbers { blocks: blocks?, heads: heads? },
                grid: grid.map(|axis| axis.get(index)),
                dtype: dtype.get(index),
                row: row.get(index),
            };
            let StepPlace { shape, numbers, grid, dtype, row } =
                stored.checked().map_err(|what| damaged(index, &what))?;
            if *known_numbers != numbers {
                known_numbers = Arc::new(numbers);
            }
            let numbers = known_numbers.clone();
            Ok(SelectedStep {
                video_id: shared(video_id.get(index).unwrap_or_default()),
                prompt: prompt_id.get(index).or(prompt.get(index)).map(&mut shared),
                text: prompt.get(index).map(&mut shared),
                seed: seed.get(index),
                token: shared(token.get(index).unwrap_or_default()),
                weight: weight.get(index),
                step: step.get(index).unwrap_or_default(),
                timestep: timestep.get(index).filter(|timestep| !timestep.is_nan()),
                shape,
                numbers,
                grid,
                dtype,
                array: shared(array.get(index).unwrap_or_default()),
                row,
                maps: Maps::All,
            })
        })
        .collect()
}

/// The numbers in a list of a row; `None` if it has no list.
fn numbers_of(lists: &ListChunked, row: usize) -> Result<Option<Arc<[i32]>>, QueryError> {
    let Some(list) = lists.get_as_series(row) else { return Ok(None) };
    Ok(Some(list.i32()?.iter().map(Option::unwrap_or_default).collect()))
}

/// The places of the maps that a filter chooses by their statistics, with the number of the step each is in.
fn chosen_by_statistics(catalog: &Catalog, conditions: &Conditions, steps: DataFrame) -> Result<DataFrame, QueryError> {
    let heads = filtered(catalog.heads()?, conditions.of_heads());
    let numbered = steps.lazy().with_row_index(NUMBER, None);
    let joined = filtered(join(heads, numbered), conditions.of_both());
    let columns: Vec<Expr> = [NUMBER].into_iter().chain(PLACE).map(col).collect();
    Ok(caught(|| joined.select(columns).collect())?)
}

/// Rows of `heads`, each with the row of `steps` that it belongs to.
pub(super) fn join(heads: LazyFrame, steps: LazyFrame) -> LazyFrame {
    let key: Vec<Expr> = STEP_KEY.into_iter().map(col).collect();
    let arguments = JoinArgs { maintain_order: MaintainOrderJoin::Left, ..JoinArgs::new(JoinType::Inner) };
    heads.join(steps, key.clone(), key, arguments)
}

/// Keeps the chosen maps of each step, and the steps that have any.
fn choose(steps: &mut Vec<SelectedStep>, chosen: &DataFrame) -> Result<(), QueryError> {
    let number = chosen.column(NUMBER)?.idx()?;
    let [token, block, head] = PLACE.map(|name| chosen.column(name).and_then(Column::i32));
    let (token, block, head) = (token?, block?, head?);
    let mut marks: Vec<Vec<bool>> = vec![Vec::new(); steps.len()];
    for index in 0..chosen.height() {
        let Some(number) = number.get(index).map(|number: IdxSize| number as usize) else { continue };
        let (shape, numbers) = (steps[number].shape, &steps[number].numbers);
        let place = |numbers: Option<&Arc<[i32]>>, axis: &Int32Chunked| match (axis.get(index), numbers) {
            (Some(own), Some(numbers)) => numbers.iter().position(|&number| number == own).unwrap_or(usize::MAX),
            (own, _) => usize::try_from(own.unwrap_or(0)).unwrap_or(usize::MAX),
        };
        let (block, head, token) =
            (place(numbers.blocks.as_ref(), block), place(numbers.heads.as_ref(), head), place(None, token));
        let marks = &mut marks[number];
        marks.resize(shape.blocks * shape.heads * shape.tokens, false);
        // A row of no map of the step marks none: `verify` names it.
        if block < shape.blocks && head < shape.heads && token < shape.tokens {
            marks[(block * shape.heads + head) * shape.tokens + token] = true;
        }
    }
    let mut shared: HashMap<Vec<bool>, Arc<[bool]>> = HashMap::new();
    for (step, marks) in steps.iter_mut().zip(marks) {
        if !marks.iter().all(|mark| *mark) || marks.is_empty() {
            step.maps = Maps::Some(shared.entry(marks).or_insert_with_key(|marks| marks.as_slice().into()).clone());
        }
    }
    steps.retain(|step| step.count() > 0);
    Ok(())
}

/// As [`choose`], for a condition on places alone: it is decided once for each shape.
fn choose_places(steps: &mut Vec<SelectedStep>, condition: &Expr) -> Result<(), QueryError> {
    let mut known: HashMap<(usize, usize, usize, Arc<AxisNumbers>), Maps> = HashMap::new();
    for step in steps.iter_mut() {
        let StepShape { blocks, heads, tokens, .. } = step.shape;
        step.maps = match known.entry((blocks, heads, tokens, step.numbers.clone())) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(new) => new.insert(places(step.shape, &step.numbers, condition)?).clone(),
        };
    }
    steps.retain(|step| step.count() > 0);
    Ok(())
}

#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // axes are checked to be small
fn places(shape: StepShape, numbers: &AxisNumbers, condition: &Expr) -> Result<Maps, QueryError> {
    let StepShape { blocks, heads, tokens, .. } = shape;
    let count = blocks * heads * tokens;
    let of_blocks: Vec<Option<i32>> = (0..count).map(|index| numbers.block(shape, index / (heads * tokens))).collect();
    let of_heads: Vec<Option<i32>> = (0..count).map(|index| numbers.head(shape, index / tokens % heads)).collect();
    let token: Vec<i32> = (0..count).map(|index| (index % tokens) as i32).collect();
    let frame = DataFrame::new(
        count,
        vec![
            Column::new(PlSmallStr::from_static("token_index"), token),
            Column::new(PlSmallStr::from_static("block"), of_blocks),
            Column::new(PlSmallStr::from_static("head"), of_heads),
        ],
    )?;
    let answer = frame.lazy().select([condition.clone().alias("chosen")]).collect()?;
    let chosen = answer.column("chosen")?.bool()?.clone();
    // A condition without columns has one answer for all.
    let marks: Vec<bool> =
        (0..count).map(|index| chosen.get(if chosen.len() == 1 { 0 } else { index }) == Some(true)).collect();
    Ok(if marks.iter().all(|mark| *mark) { Maps::All } else { Maps::Some(marks.into()) })
}
