//! A table of numbers as colours.

use std::sync::Arc;

use super::axis::{Ticks, number};
use super::colour::Scale;
use super::figure::{Anchor, Figure, Style};
use super::picture::Picture;
use super::sheet::{draw_title, title_height, wrapped};
use super::text::{self, shortened};

const WIDTH: f64 = 480.0;
const MARGIN: f64 = 8.0;
const BAR: f64 = 10.0;
/// Sides of cells, units.
const LARGEST: f64 = 44.0;
const SMALLEST: f64 = 7.0;

/// A table of numbers as colours, with names.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// What stands above all.
    pub title: String,
    /// What the rows are.
    pub of_rows: String,
    /// What the columns are.
    pub of_columns: String,
    /// Names of rows, from the top.
    pub rows: Vec<String>,
    /// Names of columns, from the left.
    pub columns: Vec<String>,
    /// `[row, column]`, C order; NaN where there is none.
    pub values: Vec<f64>,
    /// Their colours.
    pub scale: Scale,
    /// What they are.
    pub label: String,
    /// What stands below all.
    pub notes: Vec<String>,
}

impl Matrix {
    /// Draws it. Numbers are written where there is room.
    #[must_use]
    pub fn draw(&self, style: Style) -> Figure {
        let (size, ink) = (style.text(), style.ink());
        let small = 0.85 * size;
        let widest = |names: &[String]| names.iter().map(|name| text::width(name, small)).fold(0.0, f64::max);
        let name_width = widest(&self.rows).min(0.4 * WIDTH);
        let left = MARGIN + if self.of_rows.is_empty() { 0.0 } else { 1.4 * size } + name_width + 5.0;
        let limits = *self.scale.limits();
        let ticks = Ticks::linear(limits.low, limits.high, 5);
        let numbers = ticks.marks.iter().map(|(_, text)| text::width(text, small)).fold(0.0, f64::max);
        let right = 10.0 + BAR + 5.0 + numbers + if self.label.is_empty() { 0.0 } else { 1.5 * size } + MARGIN;
        let columns = self.columns.len().max(1) as f64;
        let cell = ((WIDTH - left - right) / columns).clamp(SMALLEST, LARGEST);
        // Names of columns that are wider than a column stand upright.
        let is_upright = widest(&self.columns) > cell - 2.0;
        let above = if is_upright { widest(&self.columns).min(110.0) + 6.0 } else { 1.3 * small };
        let title = title_height(&self.title, size, WIDTH);
        let top = MARGIN + title + if self.of_columns.is_empty() { 0.0 } else { 1.4 * size } + above;
        let rows = self.rows.len().max(1) as f64;
        let (wide, high) = (cell * columns, cell * rows);
        let width = (left + wide + right).max((text::width(&self.title, size) + 2.0 * MARGIN).min(WIDTH));
        let notes: Vec<String> =
            self.notes.iter().flat_map(|note| wrapped(note, small, width - 2.0 * MARGIN)).collect();
        let bar = high.clamp(60.0, 220.0);
        let below = top + high.max(bar);
        let height = below + 0.8 * size + notes.len() as f64 * 1.15 * size + MARGIN;
        let mut figure = Figure::new(width.ceil(), height.ceil(), style, &*self.title);
        draw_title(&mut figure, &self.title);
        if !self.of_columns.is_empty() {
            let y = MARGIN + title + size;
            figure.text((left + wide / 2.0, y), Anchor::Middle, ink, size, &self.of_columns);
        }
        if !self.of_rows.is_empty() {
            let place = (MARGIN + size, top + high / 2.0);
            figure.turned_text(place, Anchor::Middle, ink, size, -90.0, &self.of_rows);
        }
        // Of many, some names tell the others.
        let every = (1.1 * small / cell).ceil().max(1.0) as usize;
        for (row, name) in self.rows.iter().enumerate().step_by(every) {
            let place = (left - 5.0, top + (row as f64 + 0.5) * cell + 0.35 * small);
            figure.text(place, Anchor::End, ink, small, &shortened(name, small, name_width + 1.0));
        }
        for (column, name) in self.columns.iter().enumerate().step_by(every) {
            let x = left + (column as f64 + 0.5) * cell;
            if is_upright {
                let name = shortened(name, small, above - 6.0);
                figure.turned_text((x + 0.35 * small, top - 4.0), Anchor::Start, ink, small, -90.0, &name);
            } else {
                figure.text((x, top - 0.4 * small), Anchor::Middle, ink, small, name);
            }
        }
        let tiny = 0.72 * size;
        let texts: Vec<String> = self.values.iter().map(|value| self.text_of(*value)).collect();
        let is_told = texts.iter().all(|text| text::width(text, tiny) < cell - 3.0) && cell > 1.2 * tiny;
        for (index, (value, text)) in self.values.iter().zip(&texts).enumerate() {
            let (row, column) = (index / self.columns.len().max(1), index % self.columns.len().max(1));
            let corner = (left + column as f64 * cell, top + row as f64 * cell);
            let colour = if value.is_nan() { style.faint() } else { self.scale.colour(*value as f32) };
            figure.rectangle(corner, (cell, cell), colour, 1.0);
            if is_told {
                let is_light =
                    colour.map(f64::from).iter().zip([0.299, 0.587, 0.114]).map(|(part, by)| part * by).sum::<f64>()
                        > 140.0;
                let ink = if is_light { [26; 3] } else { [245; 3] };
                let place = (corner.0 + cell / 2.0, corner.1 + cell / 2.0 + 0.35 * tiny);
                figure.text(place, Anchor::Middle, ink, tiny, text);
            }
        }
        figure.frame((left, top), (wide, high), style.faint());
        self.draw_bar(&mut figure, &ticks, (left + wide + 10.0, top + (high - bar) / 2.0), bar, numbers);
        for (line, text) in notes.iter().enumerate() {
            let y = below + 0.8 * size + (line as f64 + 0.6) * 1.15 * size;
            figure.text((MARGIN, y), Anchor::Start, ink, small, text);
        }
        figure
    }

    /// A value with as many decimal places as its range asks for, so that what differs is written otherwise.
    pub(crate) fn text_of(&self, value: f64) -> String {
        let limits = self.scale.limits();
        let (span, largest) = (limits.high - limits.low, limits.high.abs().max(limits.low.abs()));
        if !value.is_finite() {
            return if value.is_nan() { "–".to_owned() } else { number(value, 2) };
        }
        if span <= 0.0 || !(1e-3..1e4).contains(&largest) {
            return number(value, 2);
        }
        let places = (1.5 - span.log10()).round().clamp(0.0, 4.0) as usize;
        format!("{value:.places$}").replace('-', "−")
    }

    fn draw_bar(&self, figure: &mut Figure, ticks: &Ticks, (x, y): (f64, f64), height: f64, numbers: f64) {
        let y = y.max(MARGIN);
        let (ink, small, limits) = (figure.style.ink(), 0.85 * figure.style.text(), *self.scale.limits());
        let mut bar = Picture::filled(1, 256, Some([0; 3]));
        for (row, pixel) in bar.pixels.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let share = 1.0 - (row as f64 + 0.5) / 256.0;
            let [red, green, blue] = self.scale.colour((limits.low + (limits.high - limits.low) * share) as f32);
            *pixel = [red, green, blue, 255];
        }
        figure.picture((x, y), (BAR, height), Arc::new(bar));
        figure.frame((x, y), (BAR, height), ink);
        for (value, text) in &ticks.marks {
            let span = limits.high - limits.low;
            let share = if span > 0.0 { (value - limits.low) / span } else { 0.5 };
            let at = y + height * (1.0 - share.clamp(0.0, 1.0));
            figure.line(&[(x + BAR, at), (x + BAR + 3.0, at)], ink, 0.75, "");
            figure.text((x + BAR + 5.0, at + 0.35 * small), Anchor::Start, ink, small, text);
        }
        if !ticks.factor.is_empty() {
            figure.text((x - 2.0, y - 0.45 * small), Anchor::Start, ink, small, &ticks.factor);
        }
        if !self.label.is_empty() {
            let label = shortened(&self.label, small, height.max(60.0) + 40.0);
            let place = (x + BAR + 9.0 + numbers + small, y + height / 2.0);
            figure.turned_text(place, Anchor::Middle, ink, small, -90.0, &label);
        }
    }
}
