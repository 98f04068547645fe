//! Difference maps.

use polars::prelude::{Column, DataFrame, PlSmallStr};

use super::Planned;
use crate::grid::Grid;
use crate::query::answer::{Answer, Maps, Statistics, axes, key_column, shape_columns};
use crate::query::error::QueryError;
use crate::query::key::{Key, KeyValue};
use crate::query::run::Reduced;

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
    pub(super) fn add(&mut self, planned: &Planned, step: Option<i32>, maps: &[Reduced]) {
        let of_side =
            |side: usize| maps.iter().find(|one| planned.plan.groups[one.group].key[0] == planned.sides[side]);
        for &(a, b) in &planned.pairs {
            let (Some(left), Some(right)) = (of_side(a), of_side(b)) else { continue };
            let (of_left, of_right) = (&planned.plan.groups[left.group], &planned.plan.groups[right.group]);
            let start = self.maps.values.len();
            self.maps.values.extend(left.values.iter().zip(&right.values).map(|(a, b)| a - b));
            self.maps.maps.push((start..self.maps.values.len(), axes(of_left.grid, of_left.spatial)));
            let n = of_left.maps + of_right.maps;
            self.rows.push(Difference { a, b, step, n, grid: of_left.grid });
        }
    }

    pub(super) fn answer(self, key: Key, sides: &[KeyValue]) -> Result<Answer, QueryError> {
        let side = |name: &'static str, pick: fn(&Difference) -> usize| {
            let values: Vec<&KeyValue> = self.rows.iter().map(|row| &sides[pick(row)]).collect();
            key_column(key, &values).with_name(PlSmallStr::from_static(name))
        };
        let steps: Vec<Option<i32>> = self.rows.iter().map(|row| row.step).collect();
        let mut columns =
            vec![side("a", |row| row.a), side("b", |row| row.b), Column::new(PlSmallStr::from_static("step"), steps)];
        let shapes: Vec<(u64, Option<Grid>, usize)> =
            self.rows.iter().enumerate().map(|(row, of)| (of.n, of.grid, self.maps.get(row).len())).collect();
        columns.extend(shape_columns(&shapes));
        let of: Vec<(&[f32], Option<Grid>)> =
            self.rows.iter().enumerate().map(|(row, of)| (self.maps.get(row), of.grid)).collect();
        columns.extend(Statistics::measure(&of).columns()?);
        let mut answer = Answer::of_table(DataFrame::new(self.rows.len(), columns)?);
        answer.is_summarised = true;
        answer.keys = ["a", "b", "step"].map(str::to_owned).to_vec();
        answer.maps = Some(self.maps);
        Ok(answer)
    }
}
