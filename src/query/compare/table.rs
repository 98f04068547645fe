//! Numbers of comparisons, and the tables that are made of them.

use std::collections::HashMap;

use polars::prelude::{Column, DataFrame, PlSmallStr};
use rayon::prelude::*;

use super::{Across, Compare, Comparison, SideMap};
use crate::metrics::{Measured, Metric};
use crate::query::answer::{Answer, AnswerKind, key_column};
use crate::query::error::QueryError;
use crate::query::key::KeyValue;

/// One number.
pub(super) struct Row {
    pub a: usize,
    pub b: usize,
    pub step: Option<i32>,
    pub metric: usize,
    pub value: f64,
    pub n: u64,
}

impl Comparison {
    /// All metrics of all pairs at one step.
    pub(super) fn measure(&self, step: Option<i32>, maps: &[Option<SideMap<'_>>]) -> Vec<Row> {
        let measured: Vec<Option<(Measured<'_>, u64)>> = maps
            .iter()
            .map(|map| map.map(|SideMap { values, group }| (Measured::new(values, group.grid), group.maps)))
            .collect();
        let of_pair = |&(a, b): &(usize, usize)| -> Vec<Row> {
            let (Some((left, n_left)), Some((right, n_right))) = (&measured[a], &measured[b]) else {
                return Vec::new();
            };
            let n = n_left + n_right;
            let row = |(metric, of): (usize, &Metric)| Row { a, b, step, metric, value: of.between(left, right), n };
            self.question.metrics.iter().enumerate().map(row).collect()
        };
        self.pairs.par_iter().flat_map_iter(of_pair).collect()
    }

    /// One row for each number, in their order.
    pub(super) fn table(&self, rows: &[Row]) -> Result<Answer, QueryError> {
        let Compare { across, metrics, .. } = &self.question;
        let sides = &self.sides;
        let side = |name: &'static str, pick: fn(&Row) -> usize| {
            let values: Vec<&KeyValue> = rows.iter().map(|row| &sides[pick(row)]).collect();
            key_column(across.key(), &values).with_name(PlSmallStr::from_static(name))
        };
        let column = PlSmallStr::from_static;
        let names: Vec<String> = rows.iter().map(|row| metrics[row.metric].to_string()).collect();
        #[allow(clippy::cast_possible_wrap)] // far below 2^63
        let n: Vec<i64> = rows.iter().map(|row| row.n as i64).collect();
        let mut columns = vec![
            side("a", |row| row.a),
            side("b", |row| row.b),
            Column::new(column("step"), rows.iter().map(|row| row.step).collect::<Vec<_>>()),
        ];
        let both: [fn(&Row) -> usize; 2] = [|row| row.a, |row| row.b];
        if let Some(timesteps) = &self.timesteps {
            for (name, pick) in ["timestep_a", "timestep_b"].into_iter().zip(both) {
                let of = |row: &Row| timesteps.get(&(sides[pick(row)].clone(), row.step)).copied();
                columns.push(Column::new(column(name), rows.iter().map(of).collect::<Vec<_>>()));
            }
        }
        if let Some(last) = &self.last_steps {
            for (name, pick) in ["step_a", "step_b"].into_iter().zip(both) {
                let of = |row: &Row| last.get(&sides[pick(row)]).copied();
                columns.push(Column::new(column(name), rows.iter().map(of).collect::<Vec<_>>()));
            }
        }
        columns.extend([
            Column::new(column("metric"), names),
            Column::new(column("value"), rows.iter().map(|row| row.value).collect::<Vec<_>>()),
            Column::new(column("n"), n),
        ]);
        if *across == Across::Weight {
            let curves = Curve::of(rows, |side| sides[side].as_f64().unwrap_or(f64::NAN));
            let of = |row: &Row| &curves[&(row.step, row.metric)];
            columns.push(Column::new(column("slope"), rows.iter().map(|row| of(row).slope).collect::<Vec<_>>()));
            columns.push(Column::new(column("trend"), rows.iter().map(|row| of(row).trend).collect::<Vec<_>>()));
        }
        let keys = [self.question.keys(), &["metric"]].concat();
        Ok(Answer::of_table(AnswerKind::Pairs, DataFrame::new(rows.len(), columns)?, &keys))
    }

    /// Means over the steps, as squares one below the other.
    pub(super) fn matrix(&self, rows: &[Row]) -> Result<Answer, QueryError> {
        let Compare { across, metrics, .. } = &self.question;
        let sides = &self.sides;
        let mut cells: HashMap<(usize, usize, usize), (f64, u32)> = HashMap::new();
        for row in rows {
            let cell = cells.entry((row.metric, row.a, row.b)).or_default();
            *cell = (cell.0 + row.value, cell.1 + 1);
        }
        let places: Vec<(usize, usize)> =
            (0..metrics.len()).flat_map(|metric| (0..sides.len()).map(move |a| (metric, a))).collect();
        let names: Vec<String> = places.iter().map(|(metric, _)| metrics[*metric].to_string()).collect();
        let own: Vec<&KeyValue> = places.iter().map(|(_, a)| &sides[*a]).collect();
        let mut columns = vec![
            Column::new(PlSmallStr::from_static("metric"), names),
            key_column(across.key(), &own).with_name(PlSmallStr::from_static("a")),
        ];
        for (b, side) in sides.iter().enumerate() {
            let of =
                |(metric, a): &(usize, usize)| cells.get(&(*metric, *a, b)).map(|(sum, count)| sum / f64::from(*count));
            // A word may be called as a column of the table is.
            let name = side.to_string();
            let name = if ["metric", "a"].contains(&name.as_str()) { format!("{name} (b)") } else { name };
            columns.push(Column::new(PlSmallStr::from_string(name), places.iter().map(of).collect::<Vec<_>>()));
        }
        Ok(Answer::of_table(AnswerKind::Matrix, DataFrame::new(places.len(), columns)?, &["metric", "a"]))
    }
}

/// How a metric responds to the weight, at one step.
struct Curve {
    /// Of the least-squares line of value over weight.
    slope: f64,
    /// Whether the values only rise or only fall with the weight.
    trend: &'static str,
}

impl Curve {
    /// By step and metric.
    fn of(rows: &[Row], weight: impl Fn(usize) -> f64) -> HashMap<(Option<i32>, usize), Self> {
        let mut points: HashMap<_, Vec<(f64, f64)>> = HashMap::new();
        for row in rows {
            points.entry((row.step, row.metric)).or_default().push((weight(row.a), row.value));
        }
        points.into_iter().map(|(place, points)| (place, Self::through(points))).collect()
    }

    fn through(mut points: Vec<(f64, f64)>) -> Self {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let n = points.len() as f64;
        let mean = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).sum::<f64>() / n;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        let covariance: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
        let variance: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
        let all = |order: fn(f64, f64) -> bool| points.windows(2).all(|pair| order(pair[0].1, pair[1].1));
        let trend = if all(|a, b| a == b) {
            "flat"
        } else if all(|a, b| a <= b) {
            "rising"
        } else if all(|a, b| a >= b) {
            "falling"
        } else {
            "mixed"
        };
        Self { slope: covariance / variance, trend }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_the_slope_of_its_line() {
        let line = Curve::through(vec![(2.0, 5.0), (0.5, 2.0), (1.0, 3.0)]);
        assert!((line.slope - 2.0).abs() < 1e-12);
        assert_eq!(line.trend, "rising");
        assert_eq!(Curve::through(vec![(1.0, 3.0), (2.0, 1.0), (3.0, 2.0)]).trend, "mixed");
        assert_eq!(Curve::through(vec![(1.0, 3.0), (2.0, 3.0)]).trend, "flat");
    }
}
