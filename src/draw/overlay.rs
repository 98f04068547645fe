//! Maps over the frames of their video.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::backdrop::Backdrop;
use super::heatmap::{at_most, names, spread};
use super::maps::{self, DrawnMap};
use super::{Content, DrawError, Drawn, Look};
use crate::grid::Grid;
use crate::kernel::{FramePlacement, Resampled};
use crate::progress::Progress;
use crate::query::{Across, Average, Filter, Reduction};
use crate::remedy::{OptionName, Remedy};
use crate::render::{self, Cell, Picture, Plane, Scale, Sheet, blended};
use crate::store::Store;

/// Words in one drawing, at the most.
const MOST_MAPS: usize = 8;
/// Frames that are shown, if none are chosen.
const FRAMES: usize = 5;

/// How opaque a map is over a video.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alpha {
    /// Everywhere the same, from 0 to 1.
    Constant(f64),
    /// From 0 where a value is lowest to this where it is highest.
    Value(f64),
}

impl Default for Alpha {
    fn default() -> Self {
        Self::Value(0.8)
    }
}

impl std::str::FromStr for Alpha {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let share = |text: &str| text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
        match text.strip_prefix("value") {
            Some("") => Some(Self::default()),
            Some(most) => most.strip_prefix(':').and_then(share).map(Self::Value),
            None => share(text).map(Self::Constant),
        }
        .ok_or_else(|| format!("`{text}` is neither a number from 0 to 1, nor value, nor value:0.8"))
    }
}

/// A drawing of maps over some frames of their video: a row for each word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlay {
    /// The maps that are averaged: of one video.
    #[serde(default)]
    pub filter: Filter,
    /// How.
    #[serde(default)]
    pub reduction: Reduction,
    /// The frames of the video.
    pub backdrop: Backdrop,
    /// Where latent frames lie among them.
    #[serde(default)]
    pub placement: FramePlacement,
    /// How opaque maps are.
    #[serde(default)]
    pub alpha: Alpha,
    /// The frames of the video to show; empty: five, evenly spread.
    #[serde(default)]
    pub frames: Vec<usize>,
}

impl Overlay {
    /// Over the frames of a video.
    #[must_use]
    pub fn new(filter: Filter, backdrop: Backdrop) -> Self {
        let (placement, alpha) = (FramePlacement::default(), Alpha::default());
        Self { filter, reduction: Reduction::default(), backdrop, placement, alpha, frames: Vec::new() }
    }

    /// The question behind it.
    #[must_use]
    pub fn question(&self) -> Average {
        maps::question(&self.filter, self.reduction, &[Across::Video, Across::Token])
    }

    /// Draws it.
    ///
    /// # Errors
    /// If the question cannot be answered, maps of several videos are selected, or the frames cannot be read or are not
    /// as many as a video of these maps has.
    pub fn draw(&self, store: &Store, look: &Look, progress: &dyn Progress) -> Result<Drawn, DrawError> {
        let question = self.question();
        let (drawn, notes) = maps::asked(&question, store, look, progress)?;
        one_video(&drawn)?;
        at_most(drawn.len(), MOST_MAPS)?;
        let frames = self.backdrop.open()?;
        let placed = placed(&drawn, frames.count(), self.placement)?;
        if let Some(beyond) = self.frames.iter().find(|frame| **frame >= frames.count()) {
            return Err(DrawError::unfit(
                format!("there is no frame {beyond}: the video has {}", frames.count()),
                format!("frames count from 0 to {}", frames.count() - 1),
            ));
        }
        let mut shown = if self.frames.is_empty() { spread(frames.count(), FRAMES) } else { self.frames.clone() };
        shown.sort_unstable();
        shown.dedup();
        let mut pictures = Vec::new();
        frames.read(&shown, |picture| {
            pictures.push(picture);
            Ok(())
        })?;
        let (common, differing) = names(&drawn, &question.by);
        let planes: maps::Planes = drawn
            .iter()
            .zip(&placed)
            .map(|(map, placed)| {
                shown.iter().map(|&frame| Some((plane_at(placed, frame), map.name(Across::Token).to_owned()))).collect()
            })
            .collect();
        // The range is that of the maps, whichever frames are shown.
        let all = || drawn.iter().flat_map(|map| &map.values);
        let threshold = maps::threshold(look, all());
        let (cells, mut scales) = maps::scaled(planes, look, false);
        if !matches!(look.range, render::Range::Each(_)) {
            scales = vec![maps::scale(look, all().copied(), false)];
        }
        let aspect = pictures.first().map(|picture| (picture.height, picture.width));
        let mut sheet = Sheet {
            columns: shown.iter().map(|frame| format!("frame {frame}")).collect(),
            rows: if drawn.len() > 1 { differing } else { Vec::new() },
            notes: maps::remarks(all(), &scales, look),
            label: maps::label(look).into(),
            size: look.size,
            cells,
            scales,
            aspect,
            ..Sheet::default()
        };
        let parts = common.into_iter().chain(maps::selected(&self.filter)).chain([maps::mean_of(&drawn)]);
        sheet.title = maps::title(look, parts);
        let size = sheet.panel(look.style);
        let filter = look.filter.unwrap_or(render::Filter::Bilinear);
        for row in &mut sheet.cells {
            for (Cell { plane, scale, picture, .. }, below) in row.iter_mut().zip(&pictures) {
                let Some(plane) = plane else { continue };
                let below = below.resized_to_show((size.1, size.0));
                let over = Over { scale: &sheet.scales[*scale], alpha: self.alpha, threshold, filter };
                *picture = Some(Arc::new(over.lay(plane, below)));
            }
        }
        Drawn::new(Content::Sheet(sheet), look, notes)
    }
}

/// Refuses maps of several videos.
pub(super) fn one_video(drawn: &[DrawnMap]) -> Result<(), DrawError> {
    match drawn.iter().find(|map| map.name(Across::Video) != drawn[0].name(Across::Video)) {
        None => Ok(()),
        Some(other) => Err(DrawError::unfit(
            format!(
                "these are frames of one video, and maps of several are selected: {}, {}, …",
                drawn[0].name(Across::Video),
                other.name(Across::Video)
            ),
            Remedy::of("choose one with {}", [OptionName::Video.any()]),
        )),
    }
}

/// Maps at the frames of a video of so many.
pub(super) fn placed(
    drawn: &[DrawnMap],
    frames: usize,
    placement: FramePlacement,
) -> Result<Vec<Resampled>, DrawError> {
    let place = |map: &DrawnMap| {
        check_fits(map.grid.frames, frames, placement)?;
        Ok(Resampled::new(&map.values, map.grid, Grid { frames, ..map.grid }, placement, None))
    };
    drawn.iter().map(place).collect()
}

/// Refuses a video of other frames than its maps stand for.
pub(super) fn check_fits(latent: usize, frames: usize, placement: FramePlacement) -> Result<(), DrawError> {
    if placement.fits(latent, frames) {
        return Ok(());
    }
    Err(DrawError::unfit(
        format!(
            "{latent} latent frames cannot be placed in {frames} frames as a causal VAE decodes them; such a video \
             has {} (WAN, 4 to a latent frame) or {} (LTX, 8)",
            4 * (latent - 1) + 1,
            8 * (latent - 1) + 1
        ),
        Remedy::of(
            "name the frames of this video, or stretch the maps over them with {}",
            [OptionName::Time.is("even")],
        ),
    ))
}

/// A map at a frame of the video.
pub(super) fn plane_at(placed: &Resampled, frame: usize) -> Plane {
    let Grid { height, width, .. } = placed.grid();
    let mut values = vec![0.0; height * width];
    placed.rows(frame, 0..height, &mut values);
    Plane { height, width, values }
}

/// How maps lie over pictures.
pub(super) struct Over<'a> {
    pub scale: &'a Scale,
    pub alpha: Alpha,
    pub threshold: Option<f32>,
    pub filter: render::Filter,
}

impl Over<'_> {
    /// A plane over a picture.
    pub fn lay(&self, plane: &Plane, mut below: Picture) -> Picture {
        let plane = plane.resized((below.height, below.width), self.filter);
        for (pixel, value) in below.pixels.as_chunks_mut::<4>().0.iter_mut().zip(&plane.values) {
            if self.threshold.is_some_and(|least| *value < least) || !value.is_finite() {
                continue;
            }
            let opacity = match self.alpha {
                Alpha::Constant(opacity) => opacity,
                Alpha::Value(most) => most * self.scale.share(*value),
            };
            let [red, green, blue] = self.scale.colour(*value);
            *pixel = blended(*pixel, [red, green, blue, (opacity * 255.0).round() as u8]);
        }
        below
    }
}
