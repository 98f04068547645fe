//! Films: maps through the frames of a video, or one frame through the denoising steps or the blocks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::backdrop::{Backdrop, Frames};
use super::heatmap::{at_most, names};
use super::maps::{self, DrawnMap};
use super::overlay::{Alpha, Over, check_fits, one_video, placed, plane_at};
use super::{DrawError, Look};
use crate::kernel::{FramePlacement, Resampled};
use crate::progress::{Meter, Progress, Unit};
use crate::query::{Across, Answer, Average, Filter, QueryError, Reduction};
use crate::remedy::{Note, OptionName, Remedy};
use crate::render::{
    self, Anchor, Cell, DISTINCT_COLOURS, Figure, FilmFormat, FilmShape, FilmWriter, Part, Picture, Plane, Range,
    Scale, Sheet, blended, distinct, ffmpeg,
};
use crate::store::Store;

/// Words beside each other, at the most.
const MOST_MAPS: usize = 8;

/// Through what a film goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Along {
    /// The frames of the video.
    #[default]
    Frames,
    /// The denoising steps, at one frame.
    Steps,
    /// The blocks, at one frame.
    Blocks,
}

/// A film of maps: of one video, a panel for each word.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Moving {
    /// The maps that are averaged.
    pub filter: Filter,
    /// How.
    pub reduction: Reduction,
    /// Through what it goes.
    pub along: Along,
    /// The frames of the video, to lay maps over.
    pub backdrop: Option<Backdrop>,
    /// Where latent frames lie among them.
    pub placement: FramePlacement,
    /// How opaque maps are over them.
    pub alpha: Alpha,
    /// How many frames the video has, where they are not there; `None`: the latent ones are shown.
    pub frames: Option<usize>,
    /// Along steps or blocks: the latent frame; `None`: the middle one.
    pub frame: Option<usize>,
    /// All words in one panel, each by a colour.
    pub together: bool,
    /// Pictures a second; `None`: 16 of frames of a video, 4 of latent ones and of steps, 2 of blocks.
    pub fps: Option<f64>,
}

impl Moving {
    /// Through the frames.
    #[must_use]
    pub fn new(filter: Filter) -> Self {
        Self { filter, ..Self::default() }
    }

    fn by(&self) -> Vec<Across> {
        let along = match self.along {
            Along::Frames => None,
            Along::Steps => Some(Across::Step),
            Along::Blocks => Some(Across::Block),
        };
        [Across::Video, Across::Token].into_iter().chain(along).collect()
    }

    /// The question behind it.
    #[must_use]
    pub fn question(&self) -> Average {
        maps::question(&self.filter, self.reduction, &self.by())
    }

    /// Prepares it: what is left is to draw picture by picture.
    ///
    /// # Errors
    /// If the question cannot be answered, or the frames cannot be read or are not as many as a video of these maps
    /// has.
    pub fn begin(&self, store: &Store, look: &Look, progress: &dyn Progress) -> Result<Film, DrawError> {
        check(look)?;
        let (drawn, notes) = maps::asked(&self.question(), store, look, progress)?;
        let backdrop = self.backdrop.as_ref().map(Backdrop::open).transpose()?;
        if drawn.is_empty() {
            return Err(DrawError::unfit(
                "no map is selected",
                Remedy::of("select others with {}", [OptionName::Where.any()]),
            ));
        }
        one_video(&drawn)?;
        let (common, _) = names(&drawn, &[Across::Token, Across::Video]);
        let title = common.into_iter().chain(maps::selected(&self.filter)).chain([maps::mean_of(&drawn)]).collect();
        let grid = drawn[0].grid;
        let other_grid = drawn.iter().map(|map| map.grid).find(|other| *other != grid);
        let words = of_words(drawn);
        if self.together && words.len() > DISTINCT_COLOURS {
            return Err(DrawError::unfit(
                format!("{} words are selected, and {DISTINCT_COLOURS} colours can be told apart", words.len()),
                Remedy::of("choose fewer with {}", [OptionName::Where.any()]),
            ));
        }
        at_most(words.len(), MOST_MAPS)?;
        if let Some(other) = other_grid {
            return Err(DrawError::unfit(
                format!("maps on grids of {grid} and of {other} are selected"),
                "choose one size",
            ));
        }
        let latent = grid.frames;
        let count = backdrop.as_ref().map(Frames::count).or(self.frames).unwrap_or(latent);
        let (source, times) = match self.along {
            Along::Frames => {
                debug_assert!(words.iter().all(|word| word.len() == 1));
                let what = if backdrop.is_none() && self.frames.is_none() { "latent" } else { "frame" };
                let placed: Vec<Vec<Resampled>> =
                    words.iter().map(|word| placed(word, count, self.placement)).collect::<Result<_, _>>()?;
                (
                    Source::Frames(placed.into_iter().flatten().collect()),
                    (0..count).map(|frame| format!("{what} {frame}")).collect(),
                )
            }
            Along::Steps | Along::Blocks => {
                check_fits(latent, count, self.placement)?;
                self.through(&words, latent)?
            }
        };
        let fps = self.fps.unwrap_or(match self.along {
            Along::Frames if count > latent || backdrop.is_some() => 16.0,
            Along::Frames | Along::Steps => 4.0,
            Along::Blocks => 2.0,
        });
        let over = self.frame_under(latent, count);
        let below = backdrop.map(|frames| Below { frames, only: (self.along != Along::Frames).then_some(over) });
        let token = |word: &Vec<DrawnMap>| Some(word.first()?.name(Across::Token).to_owned());
        let labels = words.iter().filter_map(token).collect();
        let (alpha, together) = (self.alpha, self.together);
        Take { look, words, labels, title, source, times, below, alpha, together, fps, notes }.film()
    }

    /// The pictures along steps or blocks.
    fn through(&self, words: &[Vec<DrawnMap>], latent: usize) -> Result<(Source, Vec<String>), DrawError> {
        let frame = self.frame.unwrap_or(latent / 2);
        if frame >= latent {
            return Err(DrawError::unfit(
                format!("there is no latent frame {frame}: the maps have {latent}"),
                format!("frames count from 0 to {}", latent - 1),
            ));
        }
        let axis = if self.along == Along::Steps { Across::Step } else { Across::Block };
        let mut places: Vec<&str> = Vec::new();
        for map in words.iter().flatten() {
            if !places.contains(&map.name(axis)) {
                places.push(map.name(axis));
            }
        }
        let number = |name: &str| name.parse::<i64>().unwrap_or(i64::MIN);
        places.sort_by_key(|name| number(name));
        let plane = |word: &Vec<DrawnMap>, place: &str| {
            word.iter().find(|map| map.name(axis) == place).map(|map| map.plane(frame))
        };
        let planes = places.iter().map(|place| words.iter().map(|word| plane(word, place)).collect()).collect();
        let times = places.iter().map(|place| format!("{} {place}, latent frame {frame}", axis.name())).collect();
        Ok((Source::Planes(planes), times))
    }

    /// The frame of the video that is under a latent one.
    fn frame_under(&self, latent: usize, count: usize) -> usize {
        let frame = self.frame.unwrap_or(latent / 2);
        match self.placement {
            FramePlacement::Causal => frame * (count - 1).checked_div(latent - 1).unwrap_or(0),
            FramePlacement::Even => (2 * frame + 1) * count / (2 * latent),
        }
        .min(count - 1)
    }
}

/// A film of the maps of an answer through their frames: a panel for each.
///
/// # Errors
/// If it has no maps, too many, or such of several grids.
pub fn film_of(answer: &Answer, look: &Look, fps: Option<f64>) -> Result<Film, DrawError> {
    check(look)?;
    let by = super::heatmap::keys_of(answer);
    let drawn = maps::normalised(maps::maps_of(answer, &by)?, look);
    at_most(drawn.len(), MOST_MAPS)?;
    let Some(first) = drawn.first() else { return Err(DrawError::unfit("this answer has no maps", "ask for maps")) };
    let frames = first.grid.frames;
    if drawn.iter().any(|map| map.grid != first.grid) {
        return Err(DrawError::unfit("maps on several grids cannot be in one film", "choose one size"));
    }
    let (title, labels) = names(&drawn, &by);
    let place = |map: &DrawnMap| Resampled::new(&map.values, map.grid, map.grid, FramePlacement::Even, None);
    Take {
        look,
        labels,
        title: title.into_iter().chain([maps::mean_of(&drawn)]).collect(),
        source: Source::Frames(drawn.iter().map(place).collect()),
        times: (0..frames).map(|frame| format!("frame {frame}")).collect(),
        words: drawn.into_iter().map(|map| vec![map]).collect(),
        below: None,
        alpha: Alpha::default(),
        together: false,
        fps: fps.unwrap_or(4.0),
        notes: Vec::new(),
    }
    .film()
}

/// Refuses ranges that would change from picture to picture.
fn check(look: &Look) -> Result<(), DrawError> {
    if matches!(look.range, Range::Each(Part::Frame | Part::Row)) {
        return Err(DrawError::unfit(
            "the colours of a film stand for the same values from its first picture to its last",
            "choose a range of all that is shown, or of each word",
        ));
    }
    Ok(())
}

/// The maps of each word, in the order of time.
fn of_words(drawn: Vec<DrawnMap>) -> Vec<Vec<DrawnMap>> {
    let mut words: BTreeMap<String, Vec<DrawnMap>> = BTreeMap::new();
    for map in drawn {
        words.entry(map.name(Across::Token).to_owned()).or_default().push(map);
    }
    words.into_values().collect()
}

/// Where the planes of pictures come from.
enum Source {
    /// Maps at each frame of a video, a word each.
    Frames(Vec<Resampled>),
    /// By picture and word.
    Planes(Vec<Vec<Option<Plane>>>),
}

/// What is under the maps.
struct Below {
    frames: Frames,
    /// The one frame that is under all pictures.
    only: Option<usize>,
}

/// A film that is ready to be drawn, picture by picture.
pub struct Film {
    /// Pictures a second.
    pub fps: f64,
    /// What the user should know, once.
    pub notes: Vec<Note>,
    figure: Figure,
    /// All but the panels.
    still: Picture,
    places: Vec<[usize; 4]>,
    scales: Vec<Scale>,
    threshold: Option<f32>,
    source: Source,
    times: Vec<String>,
    time_at: (f64, f64),
    below: Option<Below>,
    alpha: Alpha,
    filter: render::Filter,
    together: bool,
}

/// What a film is made of.
struct Take<'a> {
    look: &'a Look,
    /// The maps of each panel, and what it is called.
    words: Vec<Vec<DrawnMap>>,
    labels: Vec<String>,
    title: Vec<String>,
    source: Source,
    /// What is written below each picture.
    times: Vec<String>,
    below: Option<Below>,
    alpha: Alpha,
    together: bool,
    fps: f64,
    notes: Vec<Note>,
}

impl Take<'_> {
    fn film(self) -> Result<Film, DrawError> {
        let Self { look, words, labels, title, source, times, below, alpha, together, fps, notes } = self;
        let values = || words.iter().flatten().flat_map(|map| &map.values);
        let threshold = maps::threshold(look, values());
        let is_each = matches!(look.range, Range::Each(_)) || together;
        let scales: Vec<Scale> = if is_each {
            let of =
                |word: &Vec<DrawnMap>| maps::scale(look, word.iter().flat_map(|map| map.values.iter().copied()), false);
            words.iter().map(of).collect()
        } else {
            vec![maps::scale(look, values().copied(), false)]
        };
        let grid = words[0][0].grid;
        let mut aspect = (grid.height, grid.width);
        if let Some(below) = &below {
            below.frames.read(&[0], |picture| {
                aspect = (picture.height, picture.width);
                Ok(())
            })?;
        }
        let panels = if together { 1 } else { words.len() };
        let empty = Plane { height: grid.height, width: grid.width, values: vec![0.0; grid.plane()] };
        let blank = Arc::new(Picture { width: 1, height: 1, pixels: vec![0; 4] });
        let cell = |number: usize| Cell {
            // What is odd is said once, in the notes.
            plane: Some(Plane { values: (0..empty.values.len()).map(|index| index as f32).collect(), ..empty.clone() }),
            scale: if is_each { number } else { 0 },
            picture: Some(blank.clone()),
            ..Cell::default()
        };
        let size = look.size.or_else(|| below.as_ref().map(|_| shown_at(aspect, panels)));
        let mut remarks = maps::remarks(values(), &scales, look);
        if together {
            remarks.push("each word from its own lowest to its own highest colour".to_owned());
        }
        // Room for what tells the time.
        remarks.push(" ".to_owned());
        let sheet = Sheet {
            title: maps::title(look, title),
            columns: if labels.len() > 1 && !together { labels.clone() } else { Vec::new() },
            cells: vec![(0..panels).map(cell).collect()],
            scales: scales.clone(),
            bare: together,
            label: maps::label(look).into(),
            notes: remarks,
            size,
            aspect: Some(aspect),
            ..Sheet::default()
        };
        let mut figure = sheet.draw(look.style);
        let text = 0.9 * look.style.text();
        let time_at = (8.0, figure.height - 8.0 - 0.1 * text);
        if together {
            // Beside what tells the time; names that have no room there are cut.
            let longest = times.iter().map(|time| render::text_width(time, text)).fold(0.0, f64::max);
            let room = (figure.width - 24.0 - longest) / labels.len() as f64 - 10.0;
            let mut x = figure.width - 8.0;
            for (number, label) in labels.iter().enumerate().rev() {
                let label = render::shortened(label, text, room);
                figure.text((x, time_at.1), Anchor::End, distinct(number), text, &label);
                x -= render::text_width(&label, text) + 10.0;
            }
        }
        let still = figure.to_picture()?;
        let places = figure.places().into_iter().take(panels).collect();
        let usual = if below.is_some() || together { render::Filter::Bilinear } else { render::Filter::Nearest };
        let filter = look.filter.unwrap_or(usual);
        Ok(Film {
            fps,
            notes,
            figure,
            still,
            places,
            scales,
            threshold,
            source,
            times,
            time_at,
            below,
            alpha,
            filter,
            together,
        })
    }
}

impl Film {
    /// How many pictures it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Width and height of its pictures, pixels.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.still.width, self.still.height)
    }

    /// Draws all pictures, one after the other.
    ///
    /// # Errors
    /// If a frame of the video cannot be read, or `each` fails.
    pub fn draw(
        &self,
        progress: &dyn Progress,
        mut each: impl FnMut(&Picture) -> Result<(), DrawError>,
    ) -> Result<(), DrawError> {
        let meter = Meter::new(progress, Unit::Tasks, self.len() as u64);
        let mut number = 0;
        let mut next = |below: Option<&Picture>| {
            let picture = self.picture(number, below)?;
            number += 1;
            meter.add(1).map_err(QueryError::from)?;
            each(&picture)
        };
        match &self.below {
            None => (0..self.len()).try_for_each(|_| next(None)),
            Some(Below { frames, only: Some(only) }) => {
                let mut under = None;
                frames.read(&[*only], |picture| {
                    under = Some(picture);
                    Ok(())
                })?;
                (0..self.len()).try_for_each(|_| next(under.as_ref()))
            }
            Some(Below { frames, only: None }) => {
                let wanted: Vec<usize> = (0..self.len()).collect();
                frames.read(&wanted, |picture| next(Some(&picture)))
            }
        }
    }

    /// Writes it to exactly this file, whatever its name.
    ///
    /// # Errors
    /// As [`draw`](Self::draw), or if the format has no place for it, or it cannot be written.
    pub fn write(&self, path: &Path, format: FilmFormat, progress: &dyn Progress) -> Result<(), DrawError> {
        let (width, height) = self.size();
        let opaque = !self.figure.style.transparent;
        let shape = FilmShape { width, height, frames: self.len(), fps: self.fps, opaque };
        let mut writer = FilmWriter::create(path, format, &shape, &ffmpeg())?;
        self.draw(progress, |picture| Ok(writer.push(picture)?))?;
        Ok(writer.finish()?)
    }

    /// One picture.
    fn picture(&self, number: usize, below: Option<&Picture>) -> Result<Picture, DrawError> {
        let mut picture = self.still.clone();
        let planes = self.planes(number);
        if self.together {
            if let Some(&[x, y, width, height]) = self.places.first() {
                picture.lay(&self.mixed(&planes, (height, width), below), (x, y));
            }
        } else {
            for ((word, plane), &[x, y, width, height]) in planes.iter().enumerate().zip(&self.places) {
                let scale = &self.scales[word.min(self.scales.len() - 1)];
                let panel = match (plane, below) {
                    (Some(plane), Some(below)) => {
                        let over = Over { scale, alpha: self.alpha, threshold: self.threshold, filter: self.filter };
                        over.lay(plane, below.resized_to_show((width, height)))
                    }
                    (Some(plane), None) => render::painted(plane, scale, (height, width), self.filter, self.threshold),
                    (None, Some(below)) => below.resized_to_show((width, height)),
                    (None, None) => continue,
                };
                picture.lay(&panel, (x, y));
            }
        }
        let style = self.figure.style;
        let size = 0.9 * style.text();
        let text = &self.times[number];
        let mut label = Figure::new(render::text_width(text, size).ceil() + 4.0, (1.4 * size).ceil(), style, "");
        label.text((0.0, size), Anchor::Start, style.ink(), size, text);
        let ratio = style.ratio();
        let corner = ((self.time_at.0 * ratio) as usize, ((self.time_at.1 - size) * ratio).max(0.0) as usize);
        picture.lay(&label.marks()?, corner);
        Ok(picture)
    }

    fn planes(&self, number: usize) -> Vec<Option<Plane>> {
        match &self.source {
            Source::Frames(placed) => placed.iter().map(|placed| Some(plane_at(placed, number))).collect(),
            Source::Planes(planes) => planes.get(number).cloned().unwrap_or_default(),
        }
    }

    /// All words in one panel: each has a colour, and is as bright as its value is high.
    fn mixed(&self, planes: &[Option<Plane>], (height, width): (usize, usize), below: Option<&Picture>) -> Picture {
        let dark = Picture::filled(width, height, Some([0; 3]));
        let mut picture = below.map_or(dark, |below| below.resized_to_show((width, height)));
        let most = match self.alpha {
            Alpha::Constant(most) | Alpha::Value(most) => most,
        };
        let most = if below.is_some() { most } else { 1.0 };
        let shares: Vec<(usize, Vec<f64>)> = planes
            .iter()
            .enumerate()
            .filter_map(|(word, plane)| {
                let plane = plane.as_ref()?.resized((height, width), self.filter);
                let share = |value: &f32| {
                    let is_shown = value.is_finite() && self.threshold.is_none_or(|least| *value >= least);
                    if is_shown { self.scales[word].share(*value) } else { 0.0 }
                };
                Some((word, plane.values.iter().map(share).collect()))
            })
            .collect();
        for (index, pixel) in picture.pixels.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let sum: f64 = shares.iter().map(|(_, share)| share[index]).sum();
            let highest = shares.iter().map(|(_, share)| share[index]).fold(0.0, f64::max);
            if sum <= 0.0 {
                continue;
            }
            let part = |channel: usize| {
                let mixed: f64 =
                    shares.iter().map(|(word, share)| share[index] * f64::from(distinct(*word)[channel])).sum();
                (mixed / sum).round() as u8
            };
            let above = [part(0), part(1), part(2), (highest * most * 255.0).round() as u8];
            *pixel = blended(*pixel, above);
        }
        picture
    }
}

/// Height and width at which frames of a video are shown: their own, unless that is very large or very small.
fn shown_at((height, width): (usize, usize), panels: usize) -> (usize, usize) {
    const LEAST: usize = 320;
    const MOST: usize = 1920;
    let times = LEAST.div_ceil(width.max(1)).max(1);
    let whole = width * times * panels;
    if times == 1 && whole > MOST {
        let share = MOST as f64 / whole as f64;
        return ((height as f64 * share).round().max(1.0) as usize, (width as f64 * share).round().max(1.0) as usize);
    }
    (height * times, width * times)
}
