//! Trends as small bars: `▁▂▄█`, for series in a terminal.

use std::collections::BTreeSet;

use polars::prelude::{Column, DataFrame, PolarsResult};

use super::text::{cell, column, number};
use crate::query::{Answer, AnswerKind, QueryError};

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The statistics of a series that are drawn, as far as they are there.
const DRAWN: [&str; 7] = ["mean", "entropy_norm", "top5", "spread", "cosine_previous", "js_previous", "cosine_last"];

/// One row for each series of an evolution, with a trend for each of the main statistics.
///
/// # Errors
/// If the table is not that of an evolution.
pub fn trends(answer: &Answer) -> Result<Answer, QueryError> {
    let table = of_table(&answer.table, &answer.keys)?;
    Ok(Answer { table, keys: Vec::new(), kind: AnswerKind::Rows, ..answer.clone() })
}

fn of_table(table: &DataFrame, keys: &[String]) -> PolarsResult<DataFrame> {
    let series_keys: Vec<&Column> =
        keys.iter().filter(|key| *key != "step").map(|key| table.column(key)).collect::<Result<_, _>>()?;
    let name_of = |row: usize| -> Vec<String> {
        series_keys.iter().map(|key| key.get(row).map_or_else(|_| "-".into(), |value| cell(&value))).collect()
    };
    let names: Vec<Vec<String>> = (0..table.height()).map(name_of).collect();
    let mut ranges = Vec::new();
    let mut start = 0;
    for of_series in names.chunk_by(|a, b| a == b) {
        ranges.push(start..start + of_series.len());
        start += of_series.len();
    }
    let steps = table.column("step")?;
    let mut columns: Vec<Column> = series_keys
        .iter()
        .enumerate()
        .filter(|(_, key)| key.name() != "token_index" || key.max_reduce().is_ok_and(|max| max.value() != &0i32.into()))
        .map(|(index, key)| column(key.name(), ranges.iter().map(|range| names[range.start][index].clone()).collect()))
        .collect();
    let of_steps = ranges.iter().map(|range| {
        let step = |row: usize| steps.get(row).map_or_else(|_| "-".into(), |value| cell(&value));
        format!("{}-{}", step(range.start), step(range.end - 1))
    });
    columns.push(column("steps", of_steps.collect()));
    let counts = table.column("n")?;
    let of_maps = ranges.iter().map(|range| {
        let counts: PolarsResult<BTreeSet<i64>> =
            range.clone().map(|row| counts.get(row)?.try_extract::<i64>()).collect();
        let counts = counts?;
        Ok(match (counts.first(), counts.last()) {
            (Some(few), Some(many)) if few < many => format!("{few}-{many}"),
            (only, _) => only.map_or_else(|| "-".into(), i64::to_string),
        })
    });
    columns.push(column("n", of_maps.collect::<PolarsResult<_>>()?));
    for name in DRAWN {
        let Ok(values) = table.column(name).and_then(Column::f64) else { continue };
        let values: Vec<Option<f64>> = values.iter().collect();
        columns.push(column(name, ranges.iter().map(|range| draw(&values[range.clone()])).collect()));
    }
    DataFrame::new(ranges.len(), columns)
}

/// First value that there is, bars, last value. Bars span the series' own lowest to highest.
fn draw(values: &[Option<f64>]) -> String {
    let finite = || values.iter().flatten().copied().filter(|value| value.is_finite());
    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let bar = |value: &Option<f64>| match value.filter(|value| value.is_finite()) {
        None => ' ',
        Some(_) if high <= low => BARS[3],
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 0 and 7
        Some(value) => BARS[(((value - low) / (high - low)) * 7.0).round() as usize],
    };
    let bars: String = values.iter().map(bar).collect();
    let known = || values.iter().flatten().copied();
    match (known().next(), known().next_back()) {
        (Some(first), Some(last)) => format!("{} {bars} {}", short(first), short(last)),
        _ => bars,
    }
}

fn short(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "nan".into(),
        0.0 => "0".into(),
        0.001..1000.0 => number((value * 1e4).round() / 1e4),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_rise_with_the_values() {
        assert_eq!(draw(&[None, Some(0.0), Some(0.5), Some(1.0)]), "0  ▁▅█ 1");
        assert_eq!(draw(&[Some(f64::NAN), Some(1.0), Some(3.0)]), "nan  ▁█ 3");
        assert_eq!(draw(&[Some(2.0), Some(2.0)]), "2 ▄▄ 2");
    }
}
