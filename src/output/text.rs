//! Cells as text.

use std::borrow::Cow;

use polars::prelude::{AnyValue, Column, DataFrame, DataType, PlSmallStr, PolarsResult};

/// The table with lists written as JSON text: CSV has no lists.
pub(super) fn flattened(table: &DataFrame) -> PolarsResult<DataFrame> {
    let mut flat = table.clone();
    for column in table.columns().iter().filter(|column| matches!(column.dtype(), DataType::List(_))) {
        let cells = (0..column.len()).map(|row| match column.get(row) {
            Ok(AnyValue::Null) | Err(_) => None,
            Ok(value) => Some(cell(&value)),
        });
        flat.with_column(Column::new(column.name().clone(), cells.collect::<Vec<Option<String>>>()))?;
    }
    Ok(flat)
}

/// The table with decimals of whole numbers as integers: as decimals, JSON would have them as texts.
pub(super) fn with_integers(table: &DataFrame) -> PolarsResult<DataFrame> {
    let mut plain = table.clone();
    for column in table.columns().iter().filter(|column| matches!(column.dtype(), DataType::Decimal(_, 0))) {
        plain.with_column(column.cast(&DataType::Int128)?)?;
    }
    Ok(plain)
}

/// Text for people: what would move the cursor, break lines or turn the direction of what follows is written as
/// escapes.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_raw) {
        return text.into();
    }
    let escaped = |c: char| if is_raw(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect::<String>().into()
}

/// The same for text of several lines.
pub(crate) fn visible_lines(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| c != '\n' && is_raw(c)) {
        return text.into();
    }
    text.split('\n').map(visible).collect::<Vec<_>>().join("\n").into()
}

/// Control characters, line separators, and marks that override the direction of text.
fn is_raw(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One value as people read it.
pub(super) fn cell(value: &AnyValue<'_>) -> String {
    match value {
        AnyValue::Null => "-".into(),
        AnyValue::String(text) => (*text).to_owned(),
        AnyValue::StringOwned(text) => text.to_string(),
        AnyValue::Float64(number) => self::number(*number),
        AnyValue::Float32(number) => self::number(f64::from(*number)),
        AnyValue::List(list) => {
            let items: Vec<String> = list
                .iter()
                .map(|item| match item {
                    AnyValue::String(text) => serde_json::Value::from(text).to_string(),
                    other => cell(&other),
                })
                .collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

/// Five digits that matter.
pub(super) fn number(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() { "NaN".into() } else { value.to_string() };
    }
    if value == 0.0 {
        return "0".into();
    }
    let magnitude = value.abs();
    if !(1e-4..1e7).contains(&magnitude) {
        return format!("{value:.4e}");
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between -4 and 7
    let decimals = (4 - magnitude.log10().floor() as i32).max(0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A text column.
pub(super) fn column(name: &str, cells: Vec<String>) -> Column {
    Column::new(PlSmallStr::from_str(name), cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_terminals_would_obey_is_escaped() {
        assert_eq!(visible("a\u{1b}[31m\nb\u{202e}c\u{7f}é"), "a\\u{1b}[31m\\nb\\u{202e}c\\u{7f}é");
        assert_eq!(visible_lines("a\r\n\tb\n"), "a\\r\n\\tb\n");
    }

    #[test]
    fn numbers_keep_what_matters() {
        let texts = [0.0, 1.0, 0.123_456_7, 12345.678, 1.5e-7, -0.25, f64::NAN, 1e9].map(number);
        assert_eq!(texts, ["0", "1", "0.12346", "12346", "1.5000e-7", "-0.25", "NaN", "1.0000e9"]);
    }
}
