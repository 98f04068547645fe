//! The frames of maps, as rows or a grid.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::maps::{self, DrawnMap};
use super::{Content, DrawError, Drawn, Look};
use crate::grid::Grid;
use crate::progress::Progress;
use crate::query::{Across, Answer, Average, Filter, Reduction};
use crate::remedy::{Note, OptionName, Remedy};
use crate::render::{self, Figure, Sheet};
use crate::store::Store;

/// Maps in one drawing, at the most.
const MOST_MAPS: usize = 24;
/// How many times as wide as high a map is whose grid is not known.
const STRIP: usize = 24;
/// Frames in a row, unless all are asked for.
const IN_A_ROW: usize = 8;

/// How the frames of a map are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Arrangement {
    /// As rows of up to eight; of several maps, one row each.
    #[default]
    Auto,
    /// All of a map in one row.
    Row,
    /// As near to a square as it goes; of one map.
    Grid,
}

/// A drawing of the frames of maps: one for each video and word.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Heatmap {
    /// The maps that are averaged.
    pub filter: Filter,
    /// How.
    pub reduction: Reduction,
    /// What each map is of; empty: a video and a word.
    pub by: Vec<Across>,
    /// How frames are arranged.
    pub arrangement: Arrangement,
    /// The latent frames to show; empty: all, or eight of many.
    pub frames: Vec<usize>,
}

impl Heatmap {
    /// The question behind it.
    #[must_use]
    pub fn question(&self) -> Average {
        let by = if self.by.is_empty() { vec![Across::Video, Across::Token] } else { self.by.clone() };
        maps::question(&self.filter, self.reduction, &by)
    }

    /// Draws it.
    ///
    /// # Errors
    /// If the question cannot be answered, too many maps are selected, or their grid is not known.
    pub fn draw(&self, store: &Store, look: &Look, progress: &dyn Progress) -> Result<Drawn, DrawError> {
        let question = self.question();
        let (drawn, mut notes) = maps::asked(&question, store, look, progress)?;
        let mut sheet = self.sheet(&drawn, &question.by, look, &mut notes)?;
        let (common, _) = names(&drawn, &question.by);
        let parts = common.into_iter().chain(maps::selected(&self.filter)).chain([maps::mean_of(&drawn)]);
        sheet.title = maps::title(look, parts);
        Drawn::new(Content::Sheet(sheet), look, notes)
    }

    fn sheet(&self, drawn: &[DrawnMap], by: &[Across], look: &Look, notes: &mut Vec<Note>) -> Result<Sheet, DrawError> {
        at_most(drawn.len(), MOST_MAPS)?;
        let (_, differing) = names(drawn, by);
        let mut sheet = Sheet { label: maps::label(look).into(), size: look.size, ..Sheet::default() };
        sheet.filter = look.filter.unwrap_or(render::Filter::Nearest);
        let first = drawn.first().map_or(1, |map| map.grid.frames);
        if let Some(odd) = drawn.iter().find(|map| map.grid.frames != first) {
            return Err(DrawError::unfit(
                format!("maps of {} and of {} frames are selected", first, odd.grid.frames),
                Remedy::of("choose one video with {}", [OptionName::Video.any()]),
            ));
        }
        let shown = self.frames(first, drawn.len(), notes)?;
        let plane = |map: &DrawnMap, frame: usize| Some((map.plane(frame), map.name(Across::Token).to_owned()));
        let captions: Vec<String> = shown.iter().map(|frame| format!("latent {frame}")).collect();
        let columns = match self.arrangement {
            Arrangement::Row => shown.len(),
            Arrangement::Grid => (shown.len() as f64).sqrt().ceil() as usize,
            Arrangement::Auto if drawn.len() > 1 => shown.len(),
            Arrangement::Auto => shown.len().div_ceil(shown.len().div_ceil(IN_A_ROW)),
        };
        let is_wrapped = drawn.len() == 1 && columns < shown.len();
        let planes: maps::Planes = if is_wrapped {
            shown.chunks(columns).map(|row| row.iter().map(|&frame| plane(&drawn[0], frame)).collect()).collect()
        } else {
            drawn.iter().map(|map| shown.iter().map(|&frame| plane(map, frame)).collect()).collect()
        };
        let (cells, scales) = maps::scaled(planes, look, false);
        sheet.threshold = maps::threshold(look, maps::values_of(&cells));
        sheet.notes = maps::remarks(maps::values_of(&cells), &scales, look);
        (sheet.cells, sheet.scales) = (cells, scales);
        if is_wrapped {
            let mut captions = captions.into_iter();
            sheet.cells.iter_mut().flatten().for_each(|cell| cell.caption = captions.next().unwrap_or_default());
        } else {
            sheet.columns = if first > 1 { captions } else { Vec::new() };
            sheet.rows = if drawn.len() > 1 { differing } else { Vec::new() };
        }
        if let Some(flat) = drawn.iter().find(|map| map.is_flat) {
            // A line of one pixel could not be seen.
            sheet.aspect = Some((flat.grid.width.div_ceil(STRIP), flat.grid.width));
            sheet.notes.push("the grid is not known: positions in a row".to_owned());
        }
        Ok(sheet)
    }

    /// The frames that are shown.
    fn frames(&self, count: usize, maps: usize, notes: &mut Vec<Note>) -> Result<Vec<usize>, DrawError> {
        if let Some(beyond) = self.frames.iter().find(|frame| **frame >= count) {
            return Err(DrawError::unfit(
                format!("there is no latent frame {beyond}: the maps have {count}"),
                format!("frames count from 0 to {}", count.saturating_sub(1)),
            ));
        }
        if !self.frames.is_empty() {
            return Ok(self.frames.clone());
        }
        if maps < 2 || count <= IN_A_ROW || self.arrangement == Arrangement::Row {
            return Ok((0..count).collect());
        }
        notes.push(Note::new(format!("{IN_A_ROW} of {count} latent frames are shown"), "name others, or fewer maps"));
        Ok(spread(count, IN_A_ROW))
    }
}

/// The maps of an answer, frame by frame: one row for each, if there are several.
///
/// # Errors
/// If it has no maps, or too many.
pub fn figure_of(answer: &Answer, look: &Look) -> Result<Figure, DrawError> {
    let by = keys_of(answer);
    let drawn = maps::normalised(maps::flat_maps_of(answer, &by), look);
    let mut notes = Vec::new();
    let mut sheet = Heatmap::default().sheet(&drawn, &by, look, &mut notes)?;
    let (common, _) = names(&drawn, &by);
    sheet.title = maps::title(look, common.into_iter().chain([maps::mean_of(&drawn)]));
    Ok(sheet.draw(look.style))
}

/// What tells the rows of an answer apart.
pub(super) fn keys_of(answer: &Answer) -> Vec<Across> {
    let has = |by: &Across| answer.keys.iter().any(|key| key == by.key().column());
    Across::ALL.into_iter().filter(has).collect()
}

/// Maps in memory, `[map, frame, height, width]` in C order, frame by frame: one row for each, if there are several.
///
/// # Errors
/// If there are too many.
pub fn figure_of_values(values: &[f32], grid: Grid, look: &Look) -> Result<Figure, DrawError> {
    let of =
        |values: &[f32]| DrawnMap { names: BTreeMap::new(), grid, is_flat: false, values: values.to_vec(), count: 1 };
    let drawn = values.chunks_exact(grid.spatial().max(1)).map(of).collect();
    let mut sheet = Heatmap::default().sheet(&maps::normalised(drawn, look), &[], look, &mut Vec::new())?;
    sheet.title = maps::title(look, []);
    Ok(sheet.draw(look.style))
}

/// Numbers below `count`, evenly spread, with the first and the last.
pub(super) fn spread(count: usize, most: usize) -> Vec<usize> {
    if count <= most {
        return (0..count).collect();
    }
    (0..most).map(|number| (number * (count - 1) + (most - 1) / 2) / (most - 1).max(1)).collect()
}

/// Refuses more maps than can be told apart in one drawing.
pub(super) fn at_most(maps: usize, most: usize) -> Result<(), DrawError> {
    if maps <= most {
        return Ok(());
    }
    Err(DrawError::unfit(
        format!("{maps} maps are selected, and {most} at the most are drawn together"),
        Remedy::of(
            "choose fewer with {}, {} or {}",
            [OptionName::Video.any(), OptionName::Token.any(), OptionName::Where.any()],
        ),
    ))
}

/// What all maps have in common, and for each what tells it apart.
pub(super) fn names(maps: &[DrawnMap], by: &[Across]) -> (Vec<String>, Vec<String>) {
    let is_common = |by: Across| maps.iter().all(|map| map.name(by) == maps[0].name(by));
    let (common, differing): (Vec<Across>, Vec<Across>) = by.iter().copied().partition(|by| is_common(*by));
    let common = common.into_iter().filter_map(|by| Some(named(by, maps.first()?.name(by)))).collect();
    let of = |map: &DrawnMap| differing.iter().map(|by| named(*by, map.name(*by))).collect::<Vec<_>>().join(" ");
    (common, maps.iter().map(of).collect())
}

/// A value of a key as people would say it.
pub(super) fn named(by: Across, name: &str) -> String {
    match by {
        Across::Token | Across::Video | Across::Prompt => name.to_owned(),
        _ => format!("{} {name}", by.name()),
    }
}
