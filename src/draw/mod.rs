//! What is drawn of a store, one file per kind of drawing. Behind each there is a question; what comes out is a
//! [`Figure`], which the command line, Python and reports share, or a [`Film`].
//!
//! ```
//! use attnkit::draw::{Heatmap, Look};
//! use attnkit::query::Filter;
//! # use attnkit::Store;
//! # use attnkit::ingest::{self, IngestOptions};
//! use attnkit::progress::Silent;
//! # let dir = tempfile::tempdir()?;
//! # let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/variants/gzip");
//! # let path = dir.path().join("store");
//! # ingest::run(&[dump], &path, &IngestOptions::default(), &Silent)?;
//!
//! let filter = Filter { token: Some("circle".into()), ..Filter::all() };
//! let drawn = Heatmap { filter, ..Heatmap::default() }.draw(&Store::open(path)?, &Look::default(), &Silent)?;
//! assert!(drawn.figure.to_svg()?.contains("circle"));
//! # Ok::<(), attnkit::Error>(())
//! ```

// Pixels, frames and values of maps, which are float32: rounded, and far below 2^31.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod backdrop;
mod compare;
mod drawing;
mod film;
mod heads;
mod heatmap;
mod lines;
mod maps;
mod matrix;
mod overlay;
mod sheet;

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use self::backdrop::Backdrop;
pub use self::compare::Comparison;
pub use self::drawing::Drawing;
pub use self::film::{Along, Film, Moving, film_of};
pub(crate) use self::heads::heads_by;
pub use self::heads::{HeadMatrix, HeadValue};
pub use self::heatmap::{Arrangement, Heatmap, figure_of, figure_of_values};
pub(crate) use self::lines::in_words;
pub use self::lines::{Profile, Series, WeightCurve};
pub(crate) use self::maps::{NONE, text_of};
pub use self::matrix::SideMatrix;
pub use self::overlay::{Alpha, Overlay};
pub use self::sheet::{Axis, ContactSheet};
use crate::error::{ErrorKind, LayerError};
use crate::query::QueryError;
use crate::remedy::{Note, Remedy};
use crate::render::{Colormap, Curves, Figure, Filter, Matrix, PictureError, Range, Sheet, Style};

/// How a drawing looks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Look {
    /// Colours of values; `None`: viridis, of differences coolwarm.
    pub colormap: Option<Colormap>,
    /// Which values the colours stand for.
    pub range: Range,
    /// Whether colours follow the logarithm.
    pub log: bool,
    /// What is lower is not shown.
    pub threshold: Option<Threshold>,
    /// What each map is divided by.
    pub normalise: Option<Normalise>,
    /// What lies between positions; `None`: nothing where a map is alone, straight lines over a video.
    pub filter: Option<Filter>,
    /// Height and width of each map, pixels.
    pub size: Option<(usize, usize)>,
    /// What stands above; `None`: what the data say. Empty: nothing.
    pub title: Option<String>,
    /// Text, background and resolution.
    pub style: Style,
}

/// What maps are divided by before they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Normalise {
    /// Their sum: shares.
    Sum,
    /// Their largest value.
    Max,
    /// At each position, the sum over the words shown: `s_w(i) = a_w(i) / Σ a_w'(i)` (DAAM).
    Words,
}

/// Below what nothing is shown.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Threshold {
    /// A value.
    Value(f64),
    /// A percentile of what is shown.
    Percentile(f64),
    /// The mean of what is shown.
    Mean,
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
        let percent = text.strip_prefix('p').and_then(number).filter(|percent| (0.0..=100.0).contains(percent));
        match text {
            "mean" => Some(Self::Mean),
            _ => percent.map(Self::Percentile).or_else(|| number(text).map(Self::Value)),
        }
        .ok_or_else(|| format!("`{text}` is neither a number, nor a percentile such as p95, nor mean"))
    }
}

impl TryFrom<String> for Threshold {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Threshold> for String {
    fn from(threshold: Threshold) -> Self {
        match threshold {
            Threshold::Value(value) => value.to_string(),
            Threshold::Percentile(percent) => format!("p{percent}"),
            Threshold::Mean => "mean".to_owned(),
        }
    }
}

/// A drawing, and what the user should know of it.
#[derive(Debug, Clone)]
pub struct Drawn {
    /// What was drawn.
    pub figure: Figure,
    /// What it was made of, for those who show it otherwise.
    pub content: Content,
    /// What the user should know, once.
    pub notes: Vec<Note>,
}

/// Pixels of all maps of a drawing, at the most.
const LARGEST: usize = 400_000_000;

/// What a figure is made of.
#[derive(Debug, Clone)]
pub enum Content {
    /// Maps in rows and columns.
    Sheet(Sheet),
    /// Lines over an axis.
    Curves(Curves),
    /// A table of numbers.
    Matrix(Matrix),
}

impl Drawn {
    fn new(content: Content, look: &Look, notes: Vec<Note>) -> Result<Self, DrawError> {
        if let Content::Sheet(sheet) = &content {
            let (height, width) = sheet.panel(look.style);
            let panels = sheet.cells.iter().map(Vec::len).sum::<usize>();
            if height.saturating_mul(width).saturating_mul(panels) > LARGEST {
                return Err(DrawError::unfit(
                    format!("{panels} maps of {height} x {width} pixels are more than {LARGEST} pixels"),
                    Remedy::of("ask for a smaller {}", [crate::remedy::OptionName::Size.unsaid()]),
                ));
            }
        }
        let figure = match &content {
            Content::Sheet(sheet) => sheet.draw(look.style),
            Content::Curves(curves) => curves.draw(look.style),
            Content::Matrix(matrix) => matrix.draw(look.style),
        };
        Ok(Self { figure, content, notes })
    }
}

/// Why something could not be drawn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DrawError {
    /// The question behind it.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Its pixels.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// A film.
    #[error(transparent)]
    Film(#[from] crate::render::FilmError),
    /// A file or directory of frames.
    #[error("{}: {found}", path.display())]
    Frames {
        /// The directory or the file.
        path: PathBuf,
        /// What was found.
        found: String,
        /// What to try.
        remedy: Remedy,
    },
    /// The maps do not fit the drawing.
    #[error("{found}")]
    Unfit {
        /// What does not fit.
        found: String,
        /// What to try.
        remedy: Remedy,
    },
}

impl LayerError for DrawError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Query(error) => error.kind(),
            Self::Picture(error) => error.kind(),
            Self::Film(error) => error.kind(),
            Self::Frames { .. } => ErrorKind::File,
            Self::Unfit { .. } => ErrorKind::Argument,
        }
    }

    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Query(error) => error.remedy(),
            Self::Picture(_) => None,
            Self::Film(error) => error.remedy(),
            Self::Frames { remedy, .. } | Self::Unfit { remedy, .. } => Some(remedy.clone()),
        }
    }
}

impl DrawError {
    pub(crate) fn unfit(found: impl Into<String>, remedy: impl Into<Remedy>) -> Self {
        Self::Unfit { found: found.into(), remedy: remedy.into() }
    }
}

/// Refuses options that a kind of drawing has no use for.
fn refuse(given: &[(&str, bool)], drawing: &str) -> Result<(), DrawError> {
    match given.iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((name, _)) => Err(DrawError::unfit(format!("`{name}` says nothing of {drawing}"), "leave it out")),
    }
}
