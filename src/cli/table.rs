//! Small tables: drawn for people, or as CSV.

use std::io::{self, IsTerminal, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::output::visible;

/// A table for people, with numbers to the right; on a terminal its cells are wrapped to fit.
pub(super) fn draw<R>(header: &[&str], rows: impl IntoIterator<Item = R>) -> String
where
    R: IntoIterator<Item = String>,
{
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.set_header(header);
    let shown = |cell: String| visible(&cell).into_owned();
    let rows: Vec<Vec<String>> = rows.into_iter().map(|row| row.into_iter().map(shown).collect()).collect();
    let first = |cell: &String| {
        cell.trim_start_matches("< ").split(' ').next().unwrap_or_default().trim_end_matches('x').to_owned()
    };
    let is_number = |cell: &String| first(cell).parse::<f64>().is_ok();
    let numbers: Vec<usize> =
        (0..header.len()).filter(|&column| rows.iter().all(|row| row.get(column).is_none_or(is_number))).collect();
    for row in rows {
        table.add_row(row);
    }
    for column in numbers {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt() + "\n"
}

/// Writes rows as CSV one by one, however many there are.
pub(super) fn write_csv<R>(to: impl Write, header: &[&str], rows: impl IntoIterator<Item = R>) -> io::Result<()>
where
    R: IntoIterator<Item = String>,
{
    let mut writer = csv::Writer::from_writer(to);
    writer.write_record(header).map_err(as_io)?;
    for row in rows {
        writer.write_record(row).map_err(as_io)?;
    }
    writer.flush()
}

/// The error as the system gave it: whether a pipe was closed matters.
fn as_io(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}
