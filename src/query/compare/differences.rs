//! Difference maps.

use polars::prelude::{Column, DataFrame, PlSmallStr};

use super::{Comparison, SideMap};
use crate::grid::Grid;
use crate::query::answer::{Answer, AnswerKind, Maps, Statistics, axes, key_column, shape_columns};
use crate::query::error::QueryError;
use crate::query::key::KeyValue;

/// The difference maps a − b.
#[derive(Default)]
pub(super) struct Differences {
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
    /// Those of some pairs at one step.
    pub(super) fn add(&mut self, pairs: &[(usize, usize)], step: Option<i32>, maps: &[Option<SideMap<'_>>]) {
        for &(a, b) in pairs {
            let (Some(left), Some(right)) = (maps[a], maps[b]) else { continue };
            let start = self.maps.values.len();
            self.maps.values.extend(left.values.iter().zip(right.values).map(|(a, b)| a - b));
            let grid = left.group.grid;
            self.maps.maps.push((start..self.maps.values.len(), axes(grid, left.values.len())));
            self.rows.push(Difference { a, b, step, n: left.group.maps + right.group.maps, grid });
        }
    }

    pub(super) fn answer(self, of: &Comparison) -> Result<Answer, QueryError> {
        let side = |name: &'static str, pick: fn(&Difference) -> usize| {
            let values: Vec<&KeyValue> = self.rows.iter().map(|row| &of.sides[pick(row)]).collect();
            key_column(of.question.across.key(), &values).with_name(PlSmallStr::from_static(name))
        };
        let steps: Vec<Option<i32>> = self.rows.iter().map(|row| row.step).collect();
        let mut columns =
            vec![side("a", |row| row.a), side("b", |row| row.b), Column::new(PlSmallStr::from_static("step"), steps)];
        let shapes: Vec<(u64, Option<Grid>, usize)> =
            self.rows.iter().enumerate().map(|(row, of)| (of.n, of.grid, self.maps.get(row).len())).collect();
        columns.extend(shape_columns(&shapes));
        let maps: Vec<(&[f32], Option<Grid>)> =
            self.rows.iter().enumerate().map(|(row, of)| (self.maps.get(row), of.grid)).collect();
        columns.extend(Statistics::measure(&maps).columns()?);
        let table = DataFrame::new(self.rows.len(), columns)?;
        let answer = Answer::of_table(AnswerKind::Differences, table, of.question.keys());
        Ok(Answer { maps: Some(self.maps), ..answer })
    }
}
