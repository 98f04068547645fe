//! Tables for people.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use polars::prelude::{AnyValue, Column};

use super::TableStyle;
use super::text::cell;
use crate::query::Answer;

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

/// Draws the answer's rows. Of answers with statistics, the most telling ones are shown.
pub(super) fn draw(answer: &Answer, style: TableStyle) -> String {
    let columns: Vec<&Column> = answer.table.columns().iter().filter(|column| is_shown(answer, column)).collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if style.terminal {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.set_header(columns.iter().map(|column| column.name().as_str()));
    let rows = answer.table.height();
    for row in 0..rows.min(style.rows) {
        table.add_row(columns.iter().map(|column| column.get(row).map_or_else(|_| "-".into(), |value| cell(&value))));
    }
    for (index, column) in columns.iter().enumerate() {
        if column.dtype().is_primitive_numeric()
            && let Some(drawn) = table.column_mut(index)
        {
            drawn.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = table.trim_fmt() + "\n";
    if rows > style.rows {
        text += &format!("… {} rows in all (--limit shows more or fewer, -o FILE keeps all)\n", rows);
    }
    let hidden = answer.table.width() - columns.len();
    if hidden > 0 {
        text += &format!("… {hidden} more columns in every other format\n");
    }
    text
}

fn is_shown(answer: &Answer, column: &Column) -> bool {
    let name = column.name().as_str();
    if answer.keys.is_empty() {
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
    let is_empty = column.null_count() == column.len()
        || (name == "nonfinite" && column.i32().is_ok_and(|all| all.iter().all(|n| n == Some(0))));
    !is_statistic || (TELLING.contains(&name) && !is_empty)
}
