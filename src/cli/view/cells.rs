//! Maps and tables on the grid of a terminal: values as half blocks, names and numbers as text.

use std::io::{self, Write};

use unicode_width::UnicodeWidthStr;

use super::terminal::{Terminal, background};
use crate::output::visible;
use crate::render::{Matrix, Picture, Scale, Sheet, number, painted};

/// Columns of names of rows, at the most.
const NAMES: usize = 18;
/// Columns of a map, at the least: fewer are not shown beside each other.
const NARROWEST: usize = 4;
/// Columns of a colour bar.
const BAR: usize = 24;
/// Lines that are not maps: a title, names of columns, a colour bar, the prompt.
const OTHER_LINES: usize = 5;

/// The maps of a sheet, row by row, each a whole number of characters wide.
pub(super) fn sheet(sheet: &Sheet, terminal: &Terminal, to: &mut impl Write) -> io::Result<()> {
    let names = names_width(&sheet.rows);
    let room = terminal.columns.saturating_sub(names).max(NARROWEST);
    let count = sheet.cells.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let shown = count.min((room + 1) / (NARROWEST + 1)).max(1);
    let planes = || sheet.cells.iter().flatten().filter_map(|cell| cell.plane.as_ref());
    let (rows, columns) =
        sheet.aspect.or_else(|| planes().next().map(|plane| (plane.height, plane.width))).unwrap_or((1, 1));
    let lines = terminal.rows.saturating_sub(OTHER_LINES) / sheet.cells.len().max(1);
    // As wide as there is room, in height too, and a whole number of times the map where that is larger.
    let widest = (room + 1) / shown - 1;
    let high = (lines.max(2) * 2 * columns / rows.max(1)).max(NARROWEST);
    let width = widest.min(high).max(NARROWEST.min(widest));
    let width = if width >= columns { width / columns * columns } else { width };
    let height = (width * rows / columns.max(1)).max(2).next_multiple_of(2);
    writeln!(to, "{}", visible(&sheet.title))?;
    let heading = |of: &mut dyn Iterator<Item = &str>, to: &mut dyn Write| -> io::Result<()> {
        let cells: Vec<String> = of.take(shown).map(|name| centred(name, width)).collect();
        writeln!(to, "{}{}", " ".repeat(names), cells.join(" ").trim_end())
    };
    if !sheet.columns.is_empty() {
        heading(&mut sheet.columns.iter().map(String::as_str), to)?;
    }
    for (number, cells) in sheet.cells.iter().enumerate() {
        if sheet.columns.is_empty() && cells.iter().any(|cell| !cell.caption.is_empty()) {
            heading(&mut cells.iter().map(|cell| cell.caption.as_str()), to)?;
        }
        let mut picture = Picture::filled(shown * (width + 1) - 1, height, None);
        for (column, cell) in cells.iter().enumerate().take(shown) {
            let (Some(plane), Some(scale)) = (&cell.plane, sheet.scales.get(cell.scale)) else { continue };
            let painted = painted(plane, scale, (height, width), sheet.filter, sheet.threshold);
            picture.lay(&painted, (column * (width + 1), 0));
        }
        let mut drawn = Vec::new();
        terminal.draw(&picture, &mut drawn)?;
        let name = sheet.rows.get(number).map_or("", String::as_str);
        for (line, text) in String::from_utf8_lossy(&drawn).lines().enumerate() {
            let name = if line == height / 4 { fitted(name, names.saturating_sub(1)) } else { String::new() };
            let space = " ".repeat(names - name.width());
            writeln!(to, "{name}{space}{text}")?;
        }
    }
    if shown < count {
        writeln!(to, "{shown} of {count} columns: a wider terminal shows more")?;
    }
    if let [scale] = &sheet.scales[..] {
        bar(scale, &sheet.label, terminal, to)?;
    }
    sheet.notes.iter().try_for_each(|note| writeln!(to, "{}", visible(note)))
}

fn names_width(names: &[String]) -> usize {
    names.iter().map(|name| name.width()).max().map_or(0, |width| width.min(NAMES) + 1)
}

/// A table: numbers on the colours of their values.
#[allow(clippy::cast_possible_truncation)] // a colour needs no more digits
pub(super) fn matrix(matrix: &Matrix, terminal: &Terminal, to: &mut impl Write) -> io::Result<()> {
    let texts: Vec<String> = matrix.values.iter().map(|value| matrix.text_of(*value)).collect();
    let width = texts.iter().chain(&matrix.columns).map(|text| text.width()).max().unwrap_or(1).min(12) + 2;
    let names = names_width(&matrix.rows).max(matrix.of_rows.width() + 1);
    let shown = (terminal.columns.saturating_sub(names) / width).clamp(1, matrix.columns.len().max(1));
    writeln!(to, "{}", visible(&matrix.title))?;
    let heading: String = matrix.columns.iter().take(shown).map(|name| centred(name, width)).collect();
    writeln!(to, "{:names$}{}", matrix.of_rows, heading.trim_end())?;
    for (row, name) in matrix.rows.iter().enumerate() {
        let name = fitted(name, names.saturating_sub(1));
        write!(to, "{name}{}", " ".repeat(names - name.width()))?;
        for index in (row * matrix.columns.len()..).take(shown) {
            let (value, text) = (matrix.values[index], centred(&texts[index], width));
            let colour = if value.is_nan() { None } else { Some(matrix.scale.colour(value as f32)) };
            write!(to, "{}{text}\x1b[0m", background(colour, terminal.true_color))?;
        }
        writeln!(to)?;
    }
    if shown < matrix.columns.len() {
        writeln!(to, "{shown} of {} columns: a wider terminal shows more", matrix.columns.len())?;
    }
    bar(&matrix.scale, &matrix.label, terminal, to)
}

/// The colours of a scale, with the values at its ends.
fn bar(scale: &Scale, label: &str, terminal: &Terminal, to: &mut impl Write) -> io::Result<()> {
    let limits = scale.limits();
    let mut picture = Picture::filled(BAR, 2, Some([0; 3]));
    for (place, pixel) in picture.pixels.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let [red, green, blue] = scale.at((place % BAR) as f64 / (BAR - 1) as f64);
        *pixel = [red, green, blue, 255];
    }
    let mut drawn = Vec::new();
    terminal.draw(&picture, &mut drawn)?;
    let drawn = String::from_utf8_lossy(&drawn);
    let [low, high] = [limits.low, limits.high].map(|end| number(end, 3));
    writeln!(to, "{low} {} {high} {}", drawn.trim_end(), visible(label))
}

/// Text in the middle of so many columns, cut where it is longer.
fn centred(text: &str, width: usize) -> String {
    let text = fitted(text, width);
    let free = width - text.width();
    format!("{}{text}{}", " ".repeat(free / 2), " ".repeat(free - free / 2))
}

/// Text of so many columns at the most.
fn fitted(text: &str, width: usize) -> String {
    let text = visible(text).into_owned();
    if text.width() <= width {
        return text;
    }
    // What tells names apart is at their end: `latent 12`.
    let last = text.rsplit(' ').next().unwrap_or_default();
    if last.width() <= width && last.len() < text.len() {
        return last.to_owned();
    }
    let mut kept = String::new();
    for letter in text.chars() {
        if kept.width() + letter.to_string().width() + 1 > width {
            break;
        }
        kept.push(letter);
    }
    if width > 0 { kept + "…" } else { String::new() }
}
