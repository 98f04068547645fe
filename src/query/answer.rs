//! Answers: a table, and for map-valued questions the maps behind its rows.

use std::ops::AddAssign;
use std::str::FromStr;

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int32Type};
use polars::prelude::{
    Column, DataFrame, DataType, Expr, IdxSize, Int128Chunked, IntoColumn, IntoLazy, LazyFrame, NULL, NamedFrom,
    PlSmallStr, Schema, Series, SortMultipleOptions, col, lit,
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::QueryError;
use super::catalog::{HEADS, SEED_DIGITS};
use super::key::{Key, KeyValue};
use super::work::Group;
use crate::grid::Grid;
use crate::kernel::{MapMeasure, MapMeasurer, MapStatistics, Resampled, Sums};
use crate::remedy::Note;
use crate::shape::{AxisNumbers, StepShape};
use crate::store::{HeadRow, StoreError, heads_batch};

/// What was found.
#[derive(Debug, Clone)]
pub struct Answer {
    /// One row for each thing found.
    pub table: DataFrame,
    /// For map-valued questions: the map of each row.
    pub maps: Option<Maps>,
    /// What its rows are.
    pub kind: AnswerKind,
    /// Whether columns were chosen: then a table for people shows all of them.
    pub is_chosen: bool,
    /// Names of the columns that tell the rows apart; none where it is not known which do. Where columns were chosen,
    /// those that are left.
    pub keys: Vec<String>,
    /// What the user should know, once.
    pub notes: Vec<Note>,
    /// What was read of arrays.
    pub read: ReadCount,
    /// Of a comparison, if they were asked for beside its numbers: the difference maps.
    pub differences: Option<Box<Answer>>,
    /// What its maps are to be resampled to, one for each of them; none if they are as they were asked for.
    pub(crate) unmade: Vec<Resampled>,
}

/// What the rows of an answer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnswerKind {
    /// Rows of a table, or what SQL makes of them.
    Rows,
    /// A map for each group.
    Maps,
    /// The map that was asked for; one for each token position if the word has several.
    Map,
    /// The steps of series.
    Series,
    /// One number for each pair, step and metric.
    Pairs,
    /// For each metric a square table: `metric`, `a`, and a column for each side that it is compared with.
    Matrix,
    /// A difference map for each pair and step.
    Differences,
}

impl AnswerKind {
    /// Its name, as JSON has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Maps => "maps",
            Self::Map => "map",
            Self::Series => "series",
            Self::Pairs => "pairs",
            Self::Matrix => "matrix",
            Self::Differences => "differences",
        }
    }

    /// Whether its rows have more columns than people want to see at once.
    #[must_use]
    pub const fn is_wide(self) -> bool {
        matches!(self, Self::Maps | Self::Map | Self::Series | Self::Differences)
    }
}

/// What was read to answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadCount {
    /// Inner chunks decoded.
    pub chunks: u64,
    /// Their bytes, decoded.
    pub bytes: u64,
}

impl AddAssign for ReadCount {
    fn add_assign(&mut self, more: Self) {
        self.chunks += more.chunks;
        self.bytes += more.bytes;
    }
}

/// Maps one behind the other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Maps {
    /// Values, C order.
    pub values: Vec<f32>,
    /// The place of each map in `values`, and its shape: `[frames, height, width]`, or `[spatial]` if the grid is
    /// unknown.
    pub maps: Vec<(std::ops::Range<usize>, Vec<usize>)>,
}

impl Maps {
    /// The values of one.
    #[must_use]
    pub fn get(&self, index: usize) -> &[f32] {
        self.maps.get(index).map_or(&[], |(range, _)| &self.values[range.clone()])
    }

    /// The shape that all have, if they have the same.
    #[must_use]
    pub fn common_shape(&self) -> Option<&[usize]> {
        let (_, first) = self.maps.first()?;
        self.maps.iter().all(|(_, shape)| shape == first).then_some(first)
    }

    /// The values of all, map after map; borrowed if they lie so already.
    #[must_use]
    pub fn stacked(&self) -> std::borrow::Cow<'_, [f32]> {
        let mut end = 0;
        let in_order = self.maps.iter().all(|(range, _)| std::mem::replace(&mut end, range.end) == range.start);
        if in_order && end == self.values.len() {
            return (&self.values).into();
        }
        (0..self.maps.len()).flat_map(|index| self.get(index).iter().copied()).collect()
    }
}

/// How an answer is ordered and cut.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Arrange {
    /// Columns to sort by, the first one first.
    pub sort: Vec<Sort>,
    /// Rows to keep.
    pub limit: Option<usize>,
    /// Columns to keep, in this order; `None`: all.
    pub columns: Option<Vec<String>>,
}

/// A column to sort by. What is null or NaN comes last.
///
/// Written and read (also by serde) as its name, with `:desc` behind it if it descends: `entropy:desc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Sort {
    /// Its name.
    pub column: String,
    /// Whether the highest values come first.
    pub descending: bool,
}

impl FromStr for Sort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (column, descending) = match text.rsplit_once(':').map(|(column, order)| (column, order.trim())) {
            None => (text, false),
            Some((column, "asc")) => (column, false),
            Some((column, "desc")) => (column, true),
            Some((_, other)) => return Err(format!("`{other}` is neither asc nor desc")),
        };
        Ok(Self { column: column.trim().to_owned(), descending })
    }
}

impl TryFrom<String> for Sort {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Sort> for String {
    fn from(sort: Sort) -> Self {
        if sort.descending { sort.column + ":desc" } else { sort.column + ":asc" }
    }
}

impl Answer {
    /// An answer without maps.
    pub(super) fn of_table(kind: AnswerKind, table: DataFrame, keys: &[&str]) -> Self {
        Self {
            table,
            maps: None,
            kind,
            is_chosen: false,
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            notes: Vec::new(),
            read: ReadCount::default(),
            differences: None,
            unmade: Vec::new(),
        }
    }

    /// With the maps that were asked for: those of [`Question::run_for_writing`](super::Question::run_for_writing) may
    /// be yet to be resampled.
    #[must_use]
    pub fn resampled(mut self) -> Self {
        let unmade = std::mem::take(&mut self.unmade);
        let Some(old) = self.maps.take() else { return self };
        if unmade.is_empty() {
            return Self { maps: Some(old), ..self };
        }
        let mut maps = Maps::default();
        for resampled in unmade {
            let (grid, start) = (resampled.grid(), maps.values.len());
            // The only one, as a rule, which is not copied.
            let values = resampled.whole();
            if start == 0 {
                maps.values = values;
            } else {
                maps.values.extend(values);
            }
            maps.maps.push((start..maps.values.len(), axes(Some(grid), grid.spatial())));
        }
        Self { maps: Some(maps), ..self }
    }

    /// Keeps some columns, in the order given.
    ///
    /// # Errors
    /// If there is no such column.
    pub fn select(mut self, columns: &[String]) -> Result<Self, QueryError> {
        let known = || self.table.get_column_names().into_iter().map(PlSmallStr::as_str);
        if let Some(column) = columns.iter().find(|column| !known().any(|name| name == **column)) {
            return Err(QueryError::unknown_column(column, known()));
        }
        check_distinct(columns.iter().map(String::as_str))?;
        self.table = self.table.select(columns.iter().map(String::as_str))?;
        self.keys.retain(|key| columns.contains(key));
        self.is_chosen = true;
        Ok(self)
    }

    /// Sorts and cuts the rows, and the maps with them, and keeps the columns that are wanted.
    ///
    /// # Errors
    /// If there is no such column.
    pub fn arrange(self, arrange: &Arrange) -> Result<Self, QueryError> {
        let ordered = self.ordered(arrange)?;
        match &arrange.columns {
            Some(columns) => ordered.select(columns),
            None => Ok(ordered),
        }
    }

    fn ordered(mut self, arrange: &Arrange) -> Result<Self, QueryError> {
        const ROW: &str = "attnkit_row";
        if arrange.sort.is_empty() && arrange.limit.is_none_or(|limit| limit >= self.table.height()) {
            return Ok(self);
        }
        let known = || self.table.get_column_names().into_iter().map(PlSmallStr::as_str);
        if let Some(unknown) = arrange.sort.iter().find(|sort| !known().any(|name| name == sort.column)) {
            return Err(QueryError::unknown_column(&unknown.column, known()));
        }
        let mut rows = self.table.with_row_index(PlSmallStr::from_static(ROW), None)?.lazy();
        if !arrange.sort.is_empty() {
            rows = sorted(rows, &arrange.sort, self.table.schema());
        }
        if let Some(limit) = arrange.limit {
            rows = rows.limit(IdxSize::try_from(limit).unwrap_or(IdxSize::MAX));
        }
        let mut table = rows.collect()?;
        let order: Vec<usize> = table.drop_in_place(ROW)?.idx()?.iter().flatten().map(|row| row as usize).collect();
        if let Some(maps) = &mut self.maps {
            maps.maps = order.iter().map(|&row| maps.maps[row].clone()).collect();
        }
        if !self.unmade.is_empty() {
            self.unmade = order.iter().filter_map(|&row| self.unmade.get(row).cloned()).collect();
        }
        Ok(Self { table, ..self })
    }

    /// The table with a column `values` (list of float32, C order) of the maps, if there are any.
    ///
    /// # Errors
    /// If the table cannot be extended.
    pub fn table_with_values(&self) -> Result<DataFrame, QueryError> {
        if !self.unmade.is_empty() {
            return self.clone().resampled().table_with_values();
        }
        let mut table = self.table.clone();
        if let Some(maps) = &self.maps {
            let lists: Vec<Series> =
                (0..maps.maps.len()).map(|index| Series::new(PlSmallStr::EMPTY, maps.get(index))).collect();
            let empty =
                Series::new_empty(PlSmallStr::from_static("values"), &DataType::List(Box::new(DataType::Float32)));
            let values = if lists.is_empty() { empty } else { Series::new(PlSmallStr::from_static("values"), lists) };
            table.with_column(values.into())?;
        }
        Ok(table)
    }
}

/// Columns of an answer have different names.
pub(super) fn check_distinct<'a>(columns: impl Iterator<Item = &'a str>) -> Result<(), QueryError> {
    let mut known = std::collections::HashSet::new();
    match columns.into_iter().find(|column| !known.insert(*column)) {
        None => Ok(()),
        Some(twice) => {
            Err(QueryError::question(format!("the column `{twice}` is asked for twice"), "name each column once"))
        }
    }
}

/// Rows in the order asked for: what is null or NaN comes last, equal rows in the order they had.
pub(super) fn sorted(rows: LazyFrame, sort: &[Sort], schema: &Schema) -> LazyFrame {
    let by: Vec<Expr> = sort
        .iter()
        .map(|Sort { column, .. }| match schema.get(column) {
            Some(DataType::Float64 | DataType::Float32) => col(PlSmallStr::from_str(column)).fill_nan(lit(NULL)),
            _ => col(PlSmallStr::from_str(column)),
        })
        .collect();
    let options = SortMultipleOptions::default()
        .with_order_descending_multi(sort.iter().map(|sort| sort.descending).collect::<Vec<_>>())
        .with_nulls_last(true)
        .with_maintain_order(true);
    rows.sort_by_exprs(by, options)
}

/// Statistics of the maps of an answer's rows, as the columns that `heads` has for them.
pub(super) struct Statistics(Vec<Option<HeadRow>>);

impl Statistics {
    /// Room for rows that are measured as they come.
    pub fn with_room(rows: usize) -> Self {
        Self((0..rows).map(|_| None).collect())
    }

    /// Measures maps, in parallel.
    pub fn measure(maps: &[(&[f32], Option<Grid>)]) -> Self {
        let rows = maps.par_iter().map_init(|| None, |measurer, (values, grid)| Some(measure(values, *grid, measurer)));
        Self(rows.collect())
    }

    /// Measures resampled maps. Each takes all threads.
    pub fn of_resampled(maps: &[Resampled]) -> Self {
        Self(maps.iter().map(|map| Some(row_of(&map.measure(), Some(map.grid()), map.grid().spatial()))).collect())
    }

    /// Puts what was measured where it belongs.
    pub fn put(&mut self, rows: impl IntoIterator<Item = usize>, measured: Self) {
        for (row, measured) in rows.into_iter().zip(measured.0) {
            self.0[row] = measured;
        }
    }

    /// Adds rows behind the others.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Its columns.
    pub fn columns(self) -> Result<Vec<Column>, QueryError> {
        let rows: Vec<HeadRow> = self.0.into_iter().flatten().collect();
        let batch = heads_batch("", "", &rows)
            .map_err(|source| StoreError::Parquet { path: "statistics".into(), source: source.into() })?;
        let names = HEADS.iter_names().map(PlSmallStr::as_str);
        let statistics = names.skip_while(|name| *name != "sum");
        Ok(statistics
            .filter_map(|name| {
                let array = batch.column_by_name(name)?;
                let name = PlSmallStr::from_str(name);
                Some(match array.as_primitive_opt::<Float64Type>() {
                    Some(floats) => Column::new(name, floats.iter().collect::<Vec<Option<f64>>>()),
                    None => Column::new(name, array.as_primitive::<Int32Type>().iter().collect::<Vec<Option<i32>>>()),
                })
            })
            .collect())
    }
}

/// Tables for measuring maps of one grid, and room for sums that are not wanted here.
struct Measurer {
    grid: Grid,
    maps: MapMeasurer,
    sums: [Vec<f64>; 2],
}

/// Statistics of one map. The measurer is made anew when the grid is another.
fn measure(values: &[f32], grid: Option<Grid>, measurer: &mut Option<Measurer>) -> HeadRow {
    let spatial = values.len();
    let known = grid.unwrap_or(Grid { frames: 1, height: 1, width: spatial });
    let measurer = match measurer {
        Some(measurer) if measurer.grid == known => measurer,
        other => other.insert(Measurer {
            grid: known,
            maps: MapMeasurer::new(known),
            sums: [vec![0.0; spatial], vec![0.0; spatial]],
        }),
    };
    let [of_block, of_head] = &mut measurer.sums;
    row_of(&measurer.maps.measure(values, Sums { of_block, of_head }), grid, spatial)
}

fn row_of(statistics: &MapStatistics, grid: Option<Grid>, spatial: usize) -> HeadRow {
    let statistics = *statistics;
    let shape = StepShape { blocks: 1, heads: 1, spatial, tokens: 1 };
    HeadRow::new(0, shape, &AxisNumbers::default(), grid, &MapMeasure { token: 0, block: 0, head: 0, statistics })
}

/// The columns of keys, row by row of `groups`.
pub(super) fn key_columns(keys: &[Key], groups: &[&Group]) -> Vec<Column> {
    keys.iter()
        .enumerate()
        .map(|(position, key)| {
            let values: Vec<&KeyValue> = groups.iter().map(|group| &group.key[position]).collect();
            key_column(*key, &values)
        })
        .collect()
}

/// One column of key values.
pub(super) fn key_column(key: Key, values: &[&KeyValue]) -> Column {
    let name = PlSmallStr::from_static(key.column());
    let text = |value: &&KeyValue| match value {
        KeyValue::Text(text) => Some(text.to_string()),
        _ => None,
    };
    #[allow(clippy::cast_possible_truncation)] // from the i32 columns of the tables
    let int = |value: &&KeyValue| match value {
        KeyValue::Int(value) => Some(*value as i32),
        _ => None,
    };
    match key {
        Key::Video | Key::Prompt | Key::Token => Column::new(name, values.iter().map(text).collect::<Vec<_>>()),
        Key::Weight | Key::Timestep => Column::new(name, values.iter().map(|value| value.as_f64()).collect::<Vec<_>>()),
        Key::Seed => {
            let seed = |value: &&KeyValue| match value {
                KeyValue::Int(value) => Some(*value),
                _ => None,
            };
            seeds(name, values.iter().map(seed))
        }
        Key::TokenIndex | Key::Step | Key::Block | Key::Head => {
            Column::new(name, values.iter().map(int).collect::<Vec<_>>())
        }
    }
}

/// A column of seeds, of the type that the tables have for them.
fn seeds(name: PlSmallStr, seeds: impl Iterator<Item = Option<i128>>) -> Column {
    let integers: Int128Chunked = seeds.collect();
    integers.into_decimal_unchecked(SEED_DIGITS, 0).into_column().with_name(name)
}

/// The columns that say what a map is: `n`, `frames`, `height`, `width`, `shape`.
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // axes are checked to be small
pub(super) fn shape_columns(maps: &[(u64, Option<Grid>, usize)]) -> Vec<Column> {
    let axis = |get: fn(Grid) -> usize| -> Vec<Option<i32>> {
        maps.iter().map(|(_, grid, _)| grid.map(|grid| get(grid) as i32)).collect()
    };
    let column = |name: &'static str| PlSmallStr::from_static(name);
    vec![
        Column::new(column("n"), maps.iter().map(|(n, ..)| *n as i64).collect::<Vec<_>>()),
        Column::new(column("frames"), axis(|grid| grid.frames)),
        Column::new(column("height"), axis(|grid| grid.height)),
        Column::new(column("width"), axis(|grid| grid.width)),
        Column::new(
            column("shape"),
            maps.iter()
                .map(|(_, grid, spatial)| grid.map_or_else(|| spatial.to_string(), |grid| grid.to_string()))
                .collect::<Vec<_>>(),
        ),
    ]
}

/// The shape of a map as an array.
pub(super) fn axes(grid: Option<Grid>, spatial: usize) -> Vec<usize> {
    grid.map_or_else(|| vec![spatial], |grid| vec![grid.frames, grid.height, grid.width])
}
