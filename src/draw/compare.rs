//! Two sides, their difference, and how alike they are.

use serde::{Deserialize, Serialize};

use super::heatmap::spread;
use super::lines::in_words;
use super::maps::{self, DrawnMap, number_of, text_of};
use super::{Content, DrawError, Drawn, Look};
use crate::progress::Progress;
use crate::query::{Across, Align, Average, Compare, Filter, Reduction};
use crate::remedy::{OptionName, Remedy};
use crate::render::{self, Plane, Sheet, number};
use crate::store::Store;

/// Frames that are shown.
const FRAMES: usize = 8;

/// A drawing of two sides and their difference, frame by frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The maps.
    #[serde(default)]
    pub filter: Filter,
    /// How the maps of a side become one.
    #[serde(default)]
    pub reduction: Reduction,
    /// What distinguishes the sides.
    pub across: Across,
    /// The first side, as it is written in tables; `None`: there are two.
    #[serde(default)]
    pub a: Option<String>,
    /// The other side.
    #[serde(default)]
    pub b: Option<String>,
}

impl Comparison {
    /// Of the only two sides.
    #[must_use]
    pub fn new(filter: Filter, across: Across) -> Self {
        Self { filter, reduction: Reduction::default(), across, a: None, b: None }
    }

    /// The question behind its maps.
    #[must_use]
    pub fn question(&self) -> Average {
        maps::question(&self.filter, self.reduction, &[self.across])
    }

    /// Draws it.
    ///
    /// # Errors
    /// If the question cannot be answered, or it is not clear which two sides are meant.
    pub fn draw(&self, store: &Store, look: &Look, progress: &dyn Progress) -> Result<Drawn, DrawError> {
        super::refuse(&[("threshold", look.threshold.is_some())], "a comparison")?;
        let (drawn, _) = maps::asked(&self.question(), store, look, progress)?;
        let (a, b) = self.sides(&drawn)?;
        let pairs =
            Compare { align: Align::Mean, reduction: self.reduction, ..Compare::new(self.filter.clone(), self.across) };
        let answer = pairs.run(store, progress)?;
        if a.grid != b.grid {
            return Err(DrawError::unfit(
                format!("the sides are on grids of {} and of {}", a.grid, b.grid),
                "choose videos of one size",
            ));
        }
        let shown = spread(a.grid.frames, FRAMES);
        let word = self.filter.token.clone().unwrap_or_default();
        let side = |map: &DrawnMap| shown.iter().map(|&frame| Some((map.plane(frame), word.clone()))).collect();
        let difference: Vec<Option<(Plane, String)>> = shown
            .iter()
            .map(|&frame| {
                let (mut plane, other) = (a.plane(frame), b.plane(frame));
                plane.values.iter_mut().zip(other.values).for_each(|(value, other)| *value -= other);
                Some((plane, word.clone()))
            })
            .collect();
        let (mut cells, mut scales) = maps::scaled(vec![side(a), side(b)], look, false);
        let plain = Look { colormap: None, range: render::Range::default(), log: false, ..look.clone() };
        let (of_difference, scale) = maps::scaled(vec![difference], &plain, true);
        let base = scales.len();
        scales.extend(scale);
        cells.extend(of_difference);
        cells[2].iter_mut().for_each(|cell| cell.scale += base);
        let metrics = measured(&answer.table, a.name(self.across), b.name(self.across));
        let values = || a.values.iter().chain(&b.values);
        let mut notes = maps::remarks(values(), &scales[..base], look);
        if !metrics.is_empty() {
            notes.insert(0, format!("of the maps shown: {metrics}"));
        }
        let name = |map: &DrawnMap| super::heatmap::named(self.across, map.name(self.across));
        let sheet = Sheet {
            title: maps::title(
                look,
                [word.clone()]
                    .into_iter()
                    .chain(maps::selected(&self.filter))
                    .chain([maps::mean_of(&[a.clone(), b.clone()])]),
            ),
            rows: vec![format!("A: {}", name(a)), format!("B: {}", name(b)), "A − B".to_owned()],
            columns: shown.iter().map(|frame| format!("latent {frame}")).collect(),
            label: maps::label(look).into(),
            filter: look.filter.unwrap_or(render::Filter::Nearest),
            size: look.size,
            cells,
            scales,
            notes,
            ..Sheet::default()
        };
        Drawn::new(Content::Sheet(sheet), look, answer.notes)
    }

    /// Whether two texts are one number: of what is counted or weighed, and of names never.
    fn is_number(&self, name: &str, wanted: &str) -> bool {
        match self.across {
            Across::Weight => name.parse::<f64>().ok().zip(wanted.parse::<f64>().ok()).is_some_and(|(a, b)| a == b),
            Across::Seed | Across::Step | Across::Block | Across::Head => {
                name.parse::<i128>().ok().zip(wanted.parse::<i128>().ok()).is_some_and(|(a, b)| a == b)
            }
            Across::Prompt | Across::Video | Across::Token => false,
        }
    }

    /// The two sides that are meant.
    fn sides<'a>(&self, drawn: &'a [DrawnMap]) -> Result<(&'a DrawnMap, &'a DrawnMap), DrawError> {
        let names = || drawn.iter().map(|map| map.name(self.across)).collect::<Vec<_>>().join(", ");
        let refused = |found: String| {
            let remedy = Remedy::of("name both, or select others with {}", [OptionName::Where.any()]);
            DrawError::Unfit { found, remedy }
        };
        let find = |wanted: &str| {
            let exact = drawn.iter().find(|map| map.name(self.across) == wanted);
            let found = exact.or_else(|| drawn.iter().find(|map| self.is_number(map.name(self.across), wanted)));
            found.ok_or_else(|| refused(format!("no {} is `{wanted}`; there are {}", self.across.name(), names())))
        };
        let (a, b) = match (&self.a, &self.b, drawn) {
            (Some(a), Some(b), _) => (find(a)?, find(b)?),
            (None, None, [a, b]) => (a, b),
            (Some(a), None, [one, two]) | (None, Some(a), [two, one]) => {
                let found = find(a)?;
                let other = if std::ptr::eq(found, one) { two } else { one };
                if self.a.is_some() { (found, other) } else { (other, found) }
            }
            _ => {
                return Err(refused(format!(
                    "a comparison is of two sides, and {} are selected: {}",
                    drawn.len(),
                    names()
                )));
            }
        };
        if std::ptr::eq(a, b) {
            return Err(refused(format!("both sides are {}", a.name(self.across))));
        }
        Ok((a, b))
    }
}

/// What was measured between two sides, in a line.
fn measured(table: &polars::prelude::DataFrame, a: &str, b: &str) -> String {
    let of = |row: usize| [text_of(table, "a", row), text_of(table, "b", row)];
    let is_it = |row: &usize| of(*row) == [a, b] || of(*row) == [b, a];
    let value = |row: usize| {
        let metric = text_of(table, "metric", row);
        let mut value = number_of(table, "value", row);
        // What has a direction is of a against b.
        if metric == "mass_ratio" && of(row) == [b, a] {
            value = 1.0 / value;
        }
        let name = in_words(&metric);
        format!("{name} {}", number(value, 3)).replace(' ', "\u{a0}")
    };
    (0..table.height()).filter(is_it).map(value).collect::<Vec<_>>().join(" · ")
}
