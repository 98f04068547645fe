//! Maps in rows and columns, with labels and the colours' ranges.

use std::sync::Arc;

use super::axis::{Ticks, number};
use super::colour::Scale;
use super::figure::{Anchor, Figure, Style};
use super::picture::Picture;
use super::range::Odd;
use super::resample::{Filter, Plane};
use super::text::{self, shortened};

/// Width of a drawing of few columns and of many, units.
const WIDTHS: [f64; 2] = [480.0, 672.0];
/// Columns that go into the narrower one.
const FEW: usize = 5;
/// Sides of panels, units.
const LARGEST: f64 = 300.0;
const SMALLEST: f64 = 28.0;
/// Between panels.
const GAP: f64 = 4.0;
const MARGIN: f64 = 8.0;
/// A colour bar.
const BAR: f64 = 10.0;
const LEAST_BAR: f64 = 64.0;
/// Colours along it.
const BAR_STEPS: usize = 256;

/// One place of a sheet.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    /// What is there; nothing, if there is none.
    pub plane: Option<Plane>,
    /// Which of the sheet's scales has its colours.
    pub scale: usize,
    /// What is written above it, if columns have no names.
    pub caption: String,
    /// What is shown in place of the plane's own colours, of the size of [`Sheet::panel`].
    pub picture: Option<Arc<Picture>>,
}

/// Maps in rows and columns.
#[derive(Debug, Clone, Default)]
pub struct Sheet {
    /// What stands above all.
    pub title: String,
    /// Names of rows; none, if they have none.
    pub rows: Vec<String>,
    /// Names of columns; none, if they have none.
    pub columns: Vec<String>,
    /// What is there, row by row.
    pub cells: Vec<Vec<Cell>>,
    /// The scales of the cells.
    pub scales: Vec<Scale>,
    /// What the colours stand for.
    pub label: String,
    /// What lies between positions.
    pub filter: Filter,
    /// Lower values are not shown.
    pub threshold: Option<f32>,
    /// Height and width of each panel, pixels; `None`: as large as fits.
    pub size: Option<(usize, usize)>,
    /// Height and width that panels are shown in proportion to; `None`: those of the first plane.
    pub aspect: Option<(usize, usize)>,
    /// What stands below all.
    pub notes: Vec<String>,
    /// Whether there is no colour bar.
    pub bare: bool,
}

/// Which colour bars there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bars {
    None,
    One,
    /// One for each row.
    Rows,
    /// Each cell has its range written below it.
    Cells,
}

/// Where everything is, units.
struct Layout {
    left: f64,
    top: f64,
    panel: (f64, f64),
    pixels: (usize, usize),
    caption: f64,
    below: f64,
    bars: Bars,
    width: f64,
    height: f64,
}

impl Sheet {
    /// Height and width of each panel, pixels.
    #[must_use]
    pub fn panel(&self, style: Style) -> (usize, usize) {
        self.layout(style).pixels
    }

    /// Draws it.
    #[must_use]
    pub fn draw(&self, style: Style) -> Figure {
        let layout = self.layout(style);
        let (size, ink) = (style.text(), style.ink());
        let mut figure = Figure::new(layout.width, layout.height, style, &*self.title);
        let (panel_height, panel_width) = layout.panel;
        draw_title(&mut figure, &self.title);
        let row_height = panel_height + layout.caption + layout.below + GAP;
        let x_of = |column: usize| layout.left + column as f64 * (panel_width + GAP);
        let y_of = |row: usize| layout.top + layout.caption + row as f64 * row_height;
        // Names that do not fit are told by what is not the same of them.
        let same = if self.columns.iter().all(|name| text::width(name, size) < panel_width + GAP) {
            0
        } else {
            self.common_words()
        };
        for (column, name) in self.columns.iter().enumerate() {
            let name = shortened(name.get(same..).unwrap_or(name), size, panel_width + GAP - 2.0);
            let place = (x_of(column) + panel_width / 2.0, layout.top - 0.4 * size);
            figure.text(place, Anchor::Middle, ink, size, &name);
        }
        for (row, name) in self.rows.iter().enumerate() {
            let name = shortened(name, size, layout.left - MARGIN - 4.0);
            let place = (layout.left - 6.0, y_of(row) + panel_height / 2.0 + 0.35 * size);
            figure.text(place, Anchor::End, ink, size, &name);
        }
        for (row, cells) in self.cells.iter().enumerate() {
            for (column, cell) in cells.iter().enumerate() {
                let place = (x_of(column), y_of(row));
                self.draw_cell(&mut figure, cell, place, &layout);
            }
            let first = cells.iter().find(|cell| cell.plane.is_some()).and_then(|cell| self.scales.get(cell.scale));
            if let Some(scale) = first.filter(|_| layout.bars == Bars::Rows) {
                let x = x_of(self.column_count()) + 4.0;
                self.draw_bar(&mut figure, scale, (x, y_of(row)), panel_height);
            }
        }
        if let Some(scale) = self.scales.first().filter(|_| layout.bars == Bars::One) {
            let x = x_of(self.column_count()) + 4.0;
            let rows = self.cells.len().max(1) as f64 * row_height - GAP - layout.caption - layout.below;
            let whole = rows.max(LEAST_BAR);
            // Longer ones are no easier to read.
            let height = whole.min(220.0);
            self.draw_bar(&mut figure, scale, (x, y_of(0) + (whole - height) / 2.0), height);
        }
        let low = if layout.bars == Bars::One { y_of(0) + LEAST_BAR + GAP } else { 0.0 };
        let mut y = (y_of(self.cells.len()) - layout.caption).max(low) + 0.9 * size;
        for line in self.note_lines(style, layout.width) {
            figure.text((MARGIN, y), Anchor::Start, ink, 0.85 * size, &line);
            y += 1.15 * size;
        }
        figure
    }

    fn draw_cell(&self, figure: &mut Figure, cell: &Cell, (x, y): (f64, f64), layout: &Layout) {
        let style = figure.style;
        let (size, (height, width)) = (style.text(), layout.panel);
        if layout.caption > 0.0 && !cell.caption.is_empty() {
            let caption = shortened(&cell.caption, 0.9 * size, width + GAP - 2.0);
            figure.text((x + width / 2.0, y - 0.3 * size), Anchor::Middle, style.ink(), 0.9 * size, &caption);
        }
        let Some(plane) = &cell.plane else {
            if let Some(picture) = &cell.picture {
                figure.picture((x, y), (width, height), picture.clone());
            } else {
                figure.frame((x, y), (width, height), style.faint());
                let place = (x + width / 2.0, y + height / 2.0 + 0.35 * size);
                figure.text(place, Anchor::Middle, style.faint(), size, "–");
            }
            return;
        };
        let Some(scale) = self.scales.get(cell.scale) else { return };
        let picture = match &cell.picture {
            Some(picture) => picture.clone(),
            None => Arc::new(painted(plane, scale, layout.pixels, self.filter, self.threshold)),
        };
        figure.picture((x, y), (width, height), picture);
        if let Some([long, short]) = odd(plane) {
            let fits = |text: &String| text::width(text, 0.9 * size) <= width - 8.0;
            let text = if fits(&long) { long } else { shortened(&short, 0.9 * size, width - 8.0) };
            let wide = text::width(&text, 0.9 * size) + 6.0;
            let corner = (x + (width - wide) / 2.0, y + height / 2.0 - 0.75 * size);
            figure.rectangle(corner, (wide, 1.5 * size), style.background(), 0.85);
            let place = (x + width / 2.0, y + height / 2.0 + 0.3 * size);
            figure.text(place, Anchor::Middle, style.ink(), 0.9 * size, &text);
        }
        if layout.bars == Bars::Cells {
            let (low, high) = (number(scale.limits().low, 2), number(scale.limits().high, 2));
            let text = shortened(&format!("{low} … {high}"), 0.75 * size, width + GAP - 2.0);
            let place = (x + width / 2.0, y + height + 0.95 * size);
            figure.text(place, Anchor::Middle, style.ink(), 0.75 * size, &text);
        }
    }

    fn draw_bar(&self, figure: &mut Figure, scale: &Scale, (x, y): (f64, f64), height: f64) {
        let style = figure.style;
        let (size, limits) = (0.85 * style.text(), scale.limits());
        let (low, high) = (limits.place(limits.low), limits.place(limits.high));
        let mut bar = Picture::filled(1, BAR_STEPS, Some([0; 3]));
        for (row, pixel) in bar.pixels.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let place = low + (high - low) * (1.0 - (row as f64 + 0.5) / BAR_STEPS as f64);
            let value = if limits.is_log { 10_f64.powf(place) } else { place };
            let [red, green, blue] = scale.colour(value as f32);
            *pixel = [red, green, blue, 255];
        }
        figure.picture((x, y), (BAR, height), Arc::new(bar));
        figure.frame((x, y), (BAR, height), style.ink());
        let count = (height / (2.2 * size)).clamp(2.0, 6.0) as usize;
        let ticks = ticks_of(scale, count);
        for (value, text) in &ticks.marks {
            let share = if high > low { (limits.place(*value) - low) / (high - low) } else { 0.5 };
            let at = y + height * (1.0 - share.clamp(0.0, 1.0));
            figure.line(&[(x + BAR, at), (x + BAR + 3.0, at)], style.ink(), 0.75, "");
            figure.text((x + BAR + 5.0, at + 0.35 * size), Anchor::Start, style.ink(), size, text);
        }
        if !ticks.factor.is_empty() {
            figure.text((x - 2.0, y - 0.45 * size - 4.0), Anchor::Start, style.ink(), size, &ticks.factor);
        }
        if !self.label.is_empty() && text::width(&self.label, size) <= height {
            let label = &self.label;
            let place = (x + BAR + 9.0 + widest(&ticks, size) + size, y + height / 2.0);
            figure.turned_text(place, Anchor::Middle, style.ink(), size, -90.0, label);
        }
        // Ends beyond which there are values point there.
        let (clips_low, clips_high) = limits.clips;
        let middle = x + BAR / 2.0;
        if clips_high {
            figure.area(&[(x, y), (middle, y - 5.0), (x + BAR, y)], scale.end(true), 1.0);
        }
        if clips_low {
            let foot = y + height;
            figure.area(&[(x, foot), (middle, foot + 5.0), (x + BAR, foot)], scale.end(false), 1.0);
        }
    }

    /// Bytes of the words that all names of columns begin with.
    fn common_words(&self) -> usize {
        let first = self.columns.first().map_or("", String::as_str);
        let is_common = |end: &usize| self.columns.iter().all(|name| name.starts_with(&first[..*end]));
        first.match_indices(' ').map(|(at, _)| at + 1).take_while(is_common).last().unwrap_or(0)
    }

    fn column_count(&self) -> usize {
        self.cells.iter().map(Vec::len).max().unwrap_or(0).max(1)
    }

    fn bars(&self) -> Bars {
        let mut of_rows = self.cells.iter().map(|row| {
            let mut scales: Vec<usize> =
                row.iter().filter(|cell| cell.plane.is_some()).map(|cell| cell.scale).collect();
            scales.dedup();
            scales
        });
        match self.scales.len() {
            _ if self.bare => Bars::None,
            0 => Bars::None,
            1 => Bars::One,
            _ if of_rows.all(|scales| scales.len() < 2) => Bars::Rows,
            _ => Bars::Cells,
        }
    }

    fn layout(&self, style: Style) -> Layout {
        let (size, ratio, columns, bars) = (style.text(), style.ratio(), self.column_count(), self.bars());
        let planes = || self.cells.iter().flatten().filter_map(|cell| cell.plane.as_ref());
        let (rows, width) =
            self.aspect.or_else(|| planes().next().map(|plane| (plane.height, plane.width))).unwrap_or((1, 1));
        let aspect = rows.max(1) as f64 / width.max(1) as f64;
        let whole = if columns <= FEW { WIDTHS[0] } else { WIDTHS[1] };
        let names = self.rows.iter().map(|name| text::width(name, size)).fold(0.0, f64::max);
        let left = if names > 0.0 { MARGIN + names.min(0.28 * whole) + 6.0 } else { MARGIN };
        let right = match bars {
            Bars::One | Bars::Rows => {
                let of_ticks = self.scales.iter().map(|scale| widest(&ticks_of(scale, 6), 0.85 * size));
                let label = if self.label.is_empty() { 0.0 } else { 1.6 * size };
                4.0 + BAR + 5.0 + of_ticks.fold(0.0, f64::max) + label + MARGIN
            }
            _ => MARGIN,
        };
        let room = (whole - left - right - (columns - 1) as f64 * GAP) / columns as f64;
        let of_width = |width: f64| {
            let width = (width * ratio).round().max(1.0);
            ((width * aspect).round().max(1.0) as usize, width as usize)
        };
        let pixels = self.size.unwrap_or_else(|| {
            // Neither wider nor higher than is sensible; a strip of one row stays visible.
            let width = room.clamp(SMALLEST, LARGEST).min(LARGEST / aspect).max(SMALLEST.min(SMALLEST / aspect));
            of_width(width)
        });
        let panel = (pixels.0 as f64 / ratio, pixels.1 as f64 / ratio);
        let has_captions = self.columns.is_empty() && self.cells.iter().flatten().any(|cell| !cell.caption.is_empty());
        let caption = if has_captions { 1.25 * size } else { 0.0 };
        let below = if bars == Bars::Cells { 1.1 * size } else { 0.0 };
        let title = title_height(&self.title, size, whole);
        let factor = if caption > 0.0 || !self.columns.is_empty() { 0.0 } else { 0.6 * size };
        let top = MARGIN + title + if self.columns.is_empty() { factor } else { 1.3 * size };
        let least = if self.title.is_empty() { 0.0 } else { text::width(&self.title, size).min(whole - 2.0 * MARGIN) };
        let width = (left + columns as f64 * (panel.1 + GAP) - GAP + right).max(least + 2.0 * MARGIN);
        let notes = self.note_lines(style, width).len() as f64;
        let rows = self.cells.len().max(1) as f64 * (panel.0 + caption + below + GAP) - GAP;
        let rows = if bars == Bars::One { rows.max(LEAST_BAR + caption) } else { rows };
        let notes = if notes > 0.0 { GAP + notes * 1.15 * size } else { 0.0 };
        // A bar's lowest number stands half below it.
        let height = top + rows + notes + MARGIN.max(0.5 * size);
        // Places are at whole pixels.
        let snapped = |units: f64| (units * ratio).round() / ratio;
        let (left, top) = (snapped(left), snapped(top + caption) - caption);
        Layout { left, top, panel, pixels, caption, below, bars, width: width.ceil(), height: height.ceil() }
    }

    fn note_lines(&self, style: Style, width: f64) -> Vec<String> {
        let size = 0.85 * style.text();
        self.notes.iter().flat_map(|note| wrapped(note, size, width - 2.0 * MARGIN)).collect()
    }
}

/// Lines of a title in a drawing of this width: three at the most.
fn title_lines(title: &str, size: f64, width: f64) -> Vec<String> {
    let mut lines = if title.is_empty() { Vec::new() } else { wrapped(title, size, width - 2.0 * MARGIN) };
    if lines.len() > 3 {
        let rest = lines.split_off(2).join(" ");
        lines.push(shortened(&rest, size, width - 2.0 * MARGIN));
    }
    lines
}

/// How high it is, and what is left free below it.
pub(super) fn title_height(title: &str, size: f64, width: f64) -> f64 {
    match title_lines(title, size, width).len() {
        0 => 0.0,
        lines => (0.4 + 1.3 * lines as f64) * size,
    }
}

/// Writes a title at the top of a drawing.
pub(super) fn draw_title(figure: &mut Figure, title: &str) {
    let (size, ink) = (figure.style.text(), figure.style.ink());
    for (number, line) in title_lines(title, size, figure.width).iter().enumerate() {
        figure.text((MARGIN, MARGIN + (1.0 + 1.3 * number as f64) * size), Anchor::Start, ink, size, line);
    }
}

/// Text in lines that are no wider than that.
pub(super) fn wrapped(text: &str, size: f64, most: f64) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if text::width(line, size) + text::width(" ", size) + text::width(word, size) <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.into_iter().map(|line| shortened(&line, size, most)).collect()
}

fn ticks_of(scale: &Scale, count: usize) -> Ticks {
    let limits = scale.limits();
    let of = |count| {
        if limits.is_log {
            Ticks::logarithmic(limits.low, limits.high, count)
        } else {
            Ticks::linear(limits.low, limits.high, count)
        }
    };
    // One mark alone does not tell a scale.
    (count..count + 3).map(of).find(|ticks| ticks.marks.len() > 1).unwrap_or_else(|| of(count))
}

fn widest(ticks: &Ticks, size: f64) -> f64 {
    ticks.marks.iter().map(|(_, text)| text::width(text, size)).fold(0.0, f64::max)
}

/// What is said of a plane that has no range, in full and in short.
fn odd(plane: &Plane) -> Option<[String; 2]> {
    match super::Limits::of(plane.values.iter().copied(), super::Range::Shown, false, false).odd? {
        Odd::NotFinite => Some(["no finite value", "NaN"].map(str::to_owned)),
        Odd::Constant(value) => Some([format!("constant {}", number(value, 3)), number(value, 2)]),
        Odd::NotPositive => None,
    }
}

/// A plane in the colours of a scale.
#[must_use]
pub(crate) fn painted(
    plane: &Plane,
    scale: &Scale,
    size: (usize, usize),
    filter: Filter,
    threshold: Option<f32>,
) -> Picture {
    let resized;
    let plane = if size == (plane.height, plane.width) {
        plane
    } else {
        resized = plane.resized(size, filter);
        &resized
    };
    let pixel = |value: &f32| {
        let [red, green, blue] = scale.colour(*value);
        let is_shown = threshold.is_none_or(|least| *value >= least || value.is_nan());
        [red, green, blue, if is_shown { 255 } else { 0 }]
    };
    let pixels = plane.values.iter().flat_map(pixel).collect();
    Picture { width: plane.width, height: plane.height, pixels }
}
