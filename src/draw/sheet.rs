//! Contact sheets: maps in rows and columns by what tells them apart.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::heatmap::named;
use super::maps::{self, DrawnMap};
use super::{Content, DrawError, Drawn, Look};
use crate::progress::Progress;
use crate::query::{Across, Average, Filter, Reduction};
use crate::remedy::{OptionName, Remedy};
use crate::render::{self, Plane, Sheet};
use crate::store::Store;

/// Rows and columns, at the most.
const MOST: usize = 64;

/// What the rows or columns of a sheet are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Axis {
    /// Latent frames.
    Frame,
    /// What tells maps apart.
    By(Across),
}

impl Axis {
    const ALL: [(Self, &'static str); 9] = [
        (Self::By(Across::Token), "token"),
        (Self::By(Across::Step), "step"),
        (Self::By(Across::Block), "block"),
        (Self::By(Across::Head), "head"),
        (Self::Frame, "frame"),
        (Self::By(Across::Video), "video"),
        (Self::By(Across::Prompt), "prompt"),
        (Self::By(Across::Seed), "seed"),
        (Self::By(Across::Weight), "weight"),
    ];
}

impl FromStr for Axis {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = if text == "word" { "token" } else { text };
        let found = Self::ALL.into_iter().find(|(_, name)| *name == text);
        let names = || Self::ALL.map(|(_, name)| name).join(", ");
        found.map(|(axis, _)| axis).ok_or_else(|| format!("`{text}` is none of {}", names()))
    }
}

impl TryFrom<String> for Axis {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Axis> for String {
    fn from(axis: Axis) -> Self {
        Axis::ALL.into_iter().find(|(own, _)| *own == axis).map_or_else(String::new, |(_, name)| name.to_owned())
    }
}

/// A contact sheet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContactSheet {
    /// The maps that are averaged.
    pub filter: Filter,
    /// How.
    pub reduction: Reduction,
    /// What the rows are.
    pub rows: Axis,
    /// What the columns are.
    pub columns: Axis,
    /// The latent frame that is shown, unless rows or columns are frames; `None`: the mean over frames.
    pub frame: Option<usize>,
}

impl Default for ContactSheet {
    /// Words by steps.
    fn default() -> Self {
        Self {
            filter: Filter::all(),
            reduction: Reduction::default(),
            rows: Axis::By(Across::Token),
            columns: Axis::By(Across::Step),
            frame: None,
        }
    }
}

impl ContactSheet {
    /// The question behind it.
    #[must_use]
    pub fn question(&self) -> Average {
        let by = [self.rows, self.columns].into_iter().filter_map(|axis| match axis {
            Axis::By(by) => Some(by),
            Axis::Frame => None,
        });
        maps::question(&self.filter, self.reduction, &by.collect::<Vec<_>>())
    }

    /// Draws it.
    ///
    /// # Errors
    /// If the question cannot be answered, rows and columns are the same or too many, or the grid is not known.
    pub fn draw(&self, store: &Store, look: &Look, progress: &dyn Progress) -> Result<Drawn, DrawError> {
        if self.rows == self.columns {
            return Err(DrawError::unfit(
                format!("rows and columns are both by {}", String::from(self.rows)),
                "choose another one for either",
            ));
        }
        let (drawn, mut notes) = maps::asked(&self.question(), store, look, progress)?;
        let mut places = Vec::new();
        for map in &drawn {
            let word = map.name(Across::Token);
            places.extend(
                self.places(map)?.into_iter().map(|(row, column, plane)| (row, column, (plane, word.to_owned()))),
            );
        }
        let (rows, columns) =
            (ordered(places.iter().map(|place| &place.0)), ordered(places.iter().map(|place| &place.1)));
        if rows.len() > MOST || columns.len() > MOST {
            return Err(DrawError::unfit(
                format!(
                    "a sheet of {} rows and {} columns is selected, and {MOST} at the most are drawn",
                    rows.len(),
                    columns.len()
                ),
                Remedy::of("choose fewer with {}", [OptionName::Where.any()]),
            ));
        }
        let mut planes: maps::Planes = vec![vec![None; columns.len()]; rows.len()];
        for (row, column, plane) in places {
            let place = |names: &[String], name: &str| names.iter().position(|known| known == name).unwrap_or(0);
            let place = &mut planes[place(&rows, &row)][place(&columns, &column)];
            if place.replace(plane).is_some() {
                return Err(DrawError::unfit(
                    format!("there are two maps of {row} and {column}: names that differ read alike"),
                    Remedy::of("choose one with {}", [OptionName::Where.any()]),
                ));
            }
        }
        let missing = planes.iter().flatten().filter(|plane| plane.is_none()).count();
        let (cells, scales) = maps::scaled(planes, look, false);
        let threshold = maps::threshold(look, maps::values_of(&cells));
        let remarks = maps::remarks(maps::values_of(&cells), &scales, look);
        if missing > 0 {
            let text = format!("{missing} of {} places of the sheet have no maps", rows.len() * columns.len());
            notes.push(text.into());
        }
        let frame = match (self.rows, self.columns, self.frame) {
            (Axis::Frame, ..) | (_, Axis::Frame, _) => String::new(),
            (.., Some(frame)) => format!("latent frame {frame}"),
            _ if drawn.first().is_some_and(|map| map.grid.frames > 1) => "mean over latent frames".to_owned(),
            _ => String::new(),
        };
        let only = |by: Across, name: &Option<String>| {
            let is_axis = [self.rows, self.columns].contains(&Axis::By(by));
            name.clone().filter(|_| !is_axis).unwrap_or_default()
        };
        let parts = [only(Across::Token, &self.filter.token), only(Across::Video, &self.filter.video)];
        let parts = parts.into_iter().chain(maps::selected(&self.filter)).chain([maps::mean_of(&drawn), frame]);
        let sheet = Sheet {
            title: maps::title(look, parts),
            rows,
            columns,
            cells,
            notes: remarks,
            scales,
            label: maps::label(look).into(),
            filter: look.filter.unwrap_or(render::Filter::Nearest),
            threshold,
            size: look.size,
            ..Sheet::default()
        };
        Drawn::new(Content::Sheet(sheet), look, notes)
    }

    /// The places of a map's planes, by the names of row and column.
    fn places(&self, map: &DrawnMap) -> Result<Vec<(String, String, Plane)>, DrawError> {
        let name = |axis: Axis, frame: usize| match axis {
            Axis::Frame => format!("latent {frame}"),
            Axis::By(by) => named(by, map.name(by)),
        };
        if [self.rows, self.columns].contains(&Axis::Frame) {
            let of = |frame: usize| (name(self.rows, frame), name(self.columns, frame), map.plane(frame));
            return Ok((0..map.grid.frames).map(of).collect());
        }
        let plane = match self.frame {
            Some(frame) if frame < map.grid.frames => map.plane(frame),
            Some(beyond) => {
                return Err(DrawError::unfit(
                    format!("there is no latent frame {beyond}: the maps have {}", map.grid.frames),
                    "frames count from 0",
                ));
            }
            None => over_frames(map),
        };
        Ok(vec![(name(self.rows, 0), name(self.columns, 0), plane)])
    }
}

/// Names, each once: by the numbers at their ends, if they have such, else as they come.
fn ordered<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    let mut order: Vec<String> = names.filter(|name| seen.insert(*name)).cloned().collect();
    let number = |name: &str| {
        let last = name.rsplit(' ').next().unwrap_or_default();
        last.parse::<f64>().ok().map(|number| (number, last.parse::<i128>().unwrap_or_default()))
    };
    let is_numbered = |name: &String| name.contains(' ') && number(name).is_some();
    if order.iter().all(is_numbered) {
        order.sort_by(|a, b| number(a).partial_cmp(&number(b)).unwrap_or(std::cmp::Ordering::Equal));
    }
    order
}

/// The mean over frames.
pub(super) fn over_frames(map: &DrawnMap) -> Plane {
    let mut sums = vec![0.0_f64; map.grid.plane()];
    for frame in map.values.chunks_exact(map.grid.plane().max(1)) {
        sums.iter_mut().zip(frame).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let values = sums.iter().map(|sum| (sum / map.grid.frames as f64) as f32).collect();
    Plane { height: map.grid.height, width: map.grid.width, values }
}
