//! Tables for people.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use polars::prelude::{AnyValue, Column};

use super::TableStyle;
use super::text::{cell, visible};
use crate::query::Answer;
use crate::remedy::{OptionName, Remedy};

/// What of the many statistics is shown.
const TELLING: [&str; 17] = [
    "mean",
    "max",
    "entropy_norm",
    "gini",
    "top5",
    "centroid_frame",
    "centroid_y",
    "centroid_x",
    "spread",
    "nonfinite",
    "cosine_previous",
    "js_previous",
    "centroid_shift_previous",
    "cosine_last",
    "js_last",
    "centroid_shift_last",
    "timestep",
];

/// What to do about what is not shown, for whoever wants to be told.
fn advice(style: &TableStyle, remedy: &Remedy) -> String {
    style.advice.map(|spelled| spelled(remedy)).unwrap_or_default()
}

/// Draws the answer's rows: the most telling columns, as many as fit into the width.
pub(super) fn draw(answer: &Answer, style: TableStyle) -> String {
    let shown = telling(answer);
    let rows = answer.table.height();
    let cells: Vec<Vec<String>> = shown
        .iter()
        .map(|column| {
            // A row stays one, whatever a prompt has in it.
            let cell = |row| column.get(row).map_or_else(|_| "-".into(), |value| visible(&cell(&value)).into_owned());
            (0..rows.min(style.rows)).map(cell).collect()
        })
        .collect();
    let fitting = fitting(&shown, &cells, style.width);
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(fitting.iter().map(|&index| visible(shown[index].name())));
    for row in 0..rows.min(style.rows) {
        let of_row = |&index: &usize| cells.get(index).and_then(|column| column.get(row)).map_or("", String::as_str);
        table.add_row(fitting.iter().map(of_row));
    }
    for (place, &index) in fitting.iter().enumerate() {
        if (shown[index].dtype().is_primitive_numeric() || shown[index].dtype().is_decimal())
            && let Some(drawn) = table.column_mut(place)
        {
            drawn.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut lines = vec![table.trim_fmt()];
    if rows > style.rows {
        let tries = [OptionName::Limit.unsaid(), OptionName::Output.any()];
        let advice = advice(&style, &Remedy::of(" ({} shows more or fewer, {} keeps all)", tries));
        lines.push(format!("… {rows} rows in all{advice}"));
    }
    let hidden: Vec<&str> = answer
        .table
        .columns()
        .iter()
        .map(|column| column.name().as_str())
        .filter(|name| !fitting.iter().any(|&index| shown[index].name() == name))
        .collect();
    if !hidden.is_empty() {
        let remedy = Remedy::of(" ({} chooses, other formats have all)", [OptionName::Columns.unsaid()]);
        let advice = advice(&style, &remedy);
        let line = format!("… {} more columns{advice}: {}", hidden.len(), hidden.join(" "));
        lines.push(match style.width {
            Some(width) if line.chars().count() > width => {
                line.chars().take(width.saturating_sub(1)).chain(['…']).collect()
            }
            _ => line,
        });
    }
    lines.join("\n") + "\n"
}

/// The columns that people want to see: all, or the most telling of an answer with statistics.
pub(super) fn telling(answer: &Answer) -> Vec<&Column> {
    answer.table.columns().iter().filter(|column| is_shown(answer, column)).collect()
}

/// The columns that fit side by side into `width`, each as wide as its widest cell and the gap beside it; always the
/// first. Where not all fit, those that tell the rows apart and those that answer the question come before others.
fn fitting(columns: &[&Column], cells: &[Vec<String>], width: Option<usize>) -> Vec<usize> {
    let wide = |text: &str| text.chars().count() + 2;
    let mut left = width.unwrap_or(usize::MAX);
    let mut is_full = false;
    let mut by_rank: Vec<usize> = (0..columns.len()).collect();
    by_rank.sort_by_key(|&index| (index > 0, rank(columns[index].name()), index));
    let mut fitting: Vec<usize> = by_rank
        .into_iter()
        .filter(|&index| {
            let own = cells[index].iter().map(|cell| wide(cell)).max().unwrap_or(0).max(wide(columns[index].name()));
            let is_wanted = rank(columns[index].name()) < WANTED.len();
            let fits = index == 0 || (own <= left && (is_wanted || !is_full));
            // Of those that nobody waits for, the first ones are shown, and not what happens to fit.
            is_full |= !fits && !is_wanted;
            if fits {
                left = left.saturating_sub(own);
            }
            fits
        })
        .collect();
    fitting.sort_unstable();
    fitting
}

/// The columns that are wanted most, the first one first: keys, then what a question is about beside its main
/// statistics.
const WANTED: [&str; 30] = [
    "video_id",
    "token",
    "token_index",
    "step",
    "steps",
    "block",
    "head",
    "n",
    "a",
    "b",
    "step_a",
    "step_b",
    "metric",
    "value",
    "timestep_a",
    "timestep_b",
    "mean",
    "cosine_previous",
    "entropy_norm",
    "cosine_last",
    "top5",
    "js_previous",
    "seed",
    "weight",
    "timestep",
    "spread",
    "js_last",
    "centroid_shift_previous",
    "centroid_shift_last",
    "prompt",
];

/// How soon a column is wanted.
fn rank(name: &str) -> usize {
    WANTED.iter().position(|wanted| *wanted == name).unwrap_or(WANTED.len())
}

fn is_shown(answer: &Answer, column: &Column) -> bool {
    let name = column.name().as_str();
    if answer.is_chosen || !answer.kind.is_wide() {
        return true;
    }
    if answer.keys.iter().any(|key| key == name) {
        // A key that says nothing: no such axis, or one token position.
        let nothing = |value: &AnyValue<'_>| {
            matches!(value, AnyValue::Null) || (name == "token_index" && *value == AnyValue::Int32(0))
        };
        return !(0..column.len()).all(|row| column.get(row).is_ok_and(|value| nothing(&value)));
    }
    let is_statistic = !["n", "shape"].contains(&name);
    let is_undefined = |column: &Column| column.f64().is_ok_and(|all| all.iter().all(|x| x.is_none_or(f64::is_nan)));
    let is_empty = is_undefined(column)
        || column.null_count() == column.len()
        || (name == "nonfinite" && column.i32().is_ok_and(|all| all.iter().all(|n| n == Some(0))));
    !is_statistic || (TELLING.contains(&name) && !is_empty)
}
