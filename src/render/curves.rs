//! Lines over an axis, with bands.

use super::axis::Ticks;
use super::colour::DISTINCT;
use super::figure::{Anchor, Figure, Style};
use super::sheet::{draw_title, title_height, wrapped};
use super::text::{self, shortened};

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 260.0;
const MARGIN: f64 = 8.0;

/// One line.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curve {
    /// What it is of.
    pub name: String,
    /// Its points, by x; where y is NaN, it is interrupted.
    pub points: Vec<(f64, f64)>,
    /// Below and above each point; empty: it has no band.
    pub band: Vec<(f64, f64)>,
}

/// Lines over an axis.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curves {
    /// What stands above all.
    pub title: String,
    /// What x is.
    pub x: String,
    /// What y is.
    pub y: String,
    /// Whether x counts something.
    pub is_whole: bool,
    /// Whether x goes from high to low, as timesteps do.
    pub is_reversed: bool,
    /// Whether y is on a logarithmic scale.
    pub is_log: bool,
    /// From which value of y to which; `None`: of what there is.
    pub limits: Option<(f64, f64)>,
    /// A value of y that is marked with a line across.
    pub level: Option<f64>,
    /// The lines.
    pub curves: Vec<Curve>,
    /// What stands below all.
    pub notes: Vec<String>,
}

impl Curves {
    /// Draws them.
    #[must_use]
    pub fn draw(&self, style: Style) -> Figure {
        let (size, ink) = (style.text(), style.ink());
        let small = 0.9 * size;
        let ((x_low, x_high), (y_low, y_high)) = (self.x_range(), self.y_range());
        // What is beyond the axis is not drawn on it, and that is said.
        let is_shown = |y: f64| y.is_finite() && y >= y_low && y <= y_high;
        let all = self.curves.iter().flat_map(|curve| &curve.points).filter(|(_, y)| y.is_finite());
        let beyond = all.filter(|(_, y)| !is_shown(*y)).count();
        let beyond = (beyond > 0).then(|| format!("{beyond} values are beyond the axis, and not shown"));
        let x_ticks = if self.is_whole {
            Ticks::whole(x_low.ceil() as i64, x_high.floor() as i64, 8)
        } else {
            Ticks::linear(x_low, x_high, 6)
        };
        let y_ticks = if self.is_log { Ticks::logarithmic(y_low, y_high, 5) } else { Ticks::linear(y_low, y_high, 5) };
        let widest =
            |texts: &mut dyn Iterator<Item = &str>| texts.map(|text| text::width(text, small)).fold(0.0, f64::max);
        let numbers = widest(&mut y_ticks.marks.iter().map(|(_, text)| &**text));
        let names = widest(&mut self.curves.iter().map(|curve| &*curve.name)).min(0.3 * WIDTH);
        let has_legend = self.curves.len() > 1 || self.curves.iter().any(|curve| !curve.name.is_empty());
        let notes: Vec<String> = self
            .notes
            .iter()
            .chain(&beyond)
            .flat_map(|note| wrapped(note, 0.85 * size, WIDTH - 2.0 * MARGIN))
            .collect();
        let title = title_height(&self.title, size, WIDTH);
        let (left, top) = (MARGIN + 1.5 * size + numbers + 6.0, MARGIN + title + 0.8 * size);
        let right = WIDTH - MARGIN - if has_legend { names + 24.0 } else { 0.0 };
        // The names of many lines need their room.
        let bottom = (top + HEIGHT - 90.0).max(top + self.curves.len() as f64 * 1.3 * small);
        let below = bottom + 3.4 * size;
        let height = below + notes.len() as f64 * 1.15 * size + MARGIN;
        let mut figure = Figure::new(WIDTH, height.ceil(), style, &*self.title);
        draw_title(&mut figure, &self.title);
        let place = |value: f64| if self.is_log { value.max(f64::MIN_POSITIVE).log10() } else { value };
        let x_of = |x: f64| {
            let share = if x_high > x_low { (x - x_low) / (x_high - x_low) } else { 0.5 };
            left + 4.0 + (right - left - 8.0) * if self.is_reversed { 1.0 - share } else { share }
        };
        let y_of = |y: f64| {
            let (low, high) = (place(y_low), place(y_high));
            let share = if high > low { (place(y) - low) / (high - low) } else { 0.5 };
            bottom - (bottom - top) * share.clamp(-0.02, 1.02)
        };
        for (value, text) in &y_ticks.marks {
            let y = y_of(*value);
            figure.line(&[(left, y), (right, y)], style.faint(), 0.5, "");
            figure.text((left - 5.0, y + 0.35 * small), Anchor::End, ink, small, text);
        }
        if !y_ticks.factor.is_empty() {
            figure.text((left, top - 0.4 * small), Anchor::Start, ink, small, &y_ticks.factor);
        }
        for (value, text) in &x_ticks.marks {
            let x = x_of(*value);
            figure.line(&[(x, bottom), (x, bottom + 3.0)], ink, 0.75, "");
            figure.text((x, bottom + 3.0 + 1.1 * small), Anchor::Middle, ink, small, text);
        }
        figure.line(&[(left, top), (left, bottom), (right, bottom)], ink, 0.75, "");
        let factor = if x_ticks.factor.is_empty() { String::new() } else { format!(" ({})", x_ticks.factor) };
        let x_name = format!("{}{factor}", self.x);
        figure.text((f64::midpoint(left, right), bottom + 2.9 * small), Anchor::Middle, ink, size, &x_name);
        // Smaller, rather than cut.
        let room = bottom - top + 20.0;
        let y_size = size * (room / text::width(&self.y, size)).clamp(0.7, 1.0);
        let y_name = shortened(&self.y, y_size, room);
        figure.turned_text((MARGIN + size, f64::midpoint(top, bottom)), Anchor::Middle, ink, y_size, -90.0, &y_name);
        if let Some(level) = self.level {
            figure.line(&[(left, y_of(level)), (right, y_of(level))], ink, 0.75, "4 3");
        }
        let look = |number: usize| (DISTINCT[number % DISTINCT.len()], DASHES[number / DISTINCT.len() % DASHES.len()]);
        for (number, curve) in self.curves.iter().enumerate() {
            let of_band = curve.points.iter().zip(&curve.band).map(|((x, _), (low, high))| [*x, *low, *high]);
            let of_band: Vec<[f64; 3]> = of_band.collect();
            for part in of_band.split(|place| place.iter().any(|number| !number.is_finite())) {
                let above = part.iter().map(|[x, _, high]| (x_of(*x), y_of(*high)));
                let below = part.iter().rev().map(|[x, low, _]| (x_of(*x), y_of(*low)));
                if part.len() > 1 {
                    figure.area(&above.chain(below).collect::<Vec<_>>(), look(number).0, 0.2);
                }
            }
        }
        for (number, curve) in self.curves.iter().enumerate() {
            let (colour, dash) = look(number);
            for part in curve.points.split(|(_, y)| !is_shown(*y)) {
                let part: Vec<_> = part.iter().map(|(x, y)| (x_of(*x), y_of(*y))).collect();
                figure.line(&part, colour, 1.5, dash);
                // Few points are seen one by one.
                for place in part.iter().filter(|_| curve.points.len() <= 20) {
                    figure.dot(*place, 2.0, colour);
                }
            }
            if has_legend {
                let (x, y) = (right + 8.0, top + (number as f64 + 0.5) * 1.3 * small);
                figure.line(&[(x, y), (x + 12.0, y)], colour, 1.5, dash);
                let name = shortened(&curve.name, small, names + 1.0);
                figure.text((x + 16.0, y + 0.35 * small), Anchor::Start, ink, small, &name);
            }
        }
        for (number, line) in notes.iter().enumerate() {
            let y = below + (number as f64 + 0.6) * 1.15 * size;
            figure.text((MARGIN, y), Anchor::Start, ink, 0.85 * size, line);
        }
        figure
    }

    fn x_range(&self) -> (f64, f64) {
        let all = self.curves.iter().flat_map(|curve| &curve.points).map(|(x, _)| *x);
        range_of(all).unwrap_or((0.0, 1.0))
    }

    fn y_range(&self) -> (f64, f64) {
        let of_points = self.curves.iter().flat_map(|curve| &curve.points).map(|(_, y)| *y);
        let of_bands = self.curves.iter().flat_map(|curve| &curve.band).flat_map(|(low, high)| [*low, *high]);
        let all = of_points.chain(of_bands).chain(self.level).filter(|y| !self.is_log || *y > 0.0);
        let found = range_of(all);
        let (mut low, mut high) = self.limits.or(found).unwrap_or((0.0, 1.0));
        if self.is_log && low <= 0.0 {
            low = found.map_or(f64::NAN, |(low, _)| low);
            if !(low > 0.0 && low < high) {
                high = if high > 0.0 { high } else { 1.0 };
                low = high / 1000.0;
            }
        }
        if self.is_log || self.limits.is_some() {
            return (low, high);
        }
        // A little room; all round what is one value.
        let room = if high > low { 0.04 * (high - low) } else { (0.1 * high.abs()).max(f64::MIN_POSITIVE) };
        (if low >= 0.0 && low < room { 0.0 } else { low - room }, high + room)
    }
}

const DASHES: [&str; 3] = ["", "5 3", "1.5 2.5"];

fn range_of(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let both = values.filter(|value| value.is_finite()).map(|value| (value, value));
    both.reduce(|(low, high), (value, _)| (low.min(value), high.max(value)))
}
