//! Drawings of maps and of what is measured of them. Knows values and grids; nothing of stores or questions.
//!
//! ```
//! use attnkit::render::{Colormap, Limits, Plane, Range, Scale, Sheet, Style, Cell};
//!
//! let plane = Plane { height: 2, width: 3, values: (0..6).map(|position| position as f32).collect() };
//! let limits = Limits::of(plane.values.iter().copied(), Range::Shown, false, false);
//! let scale = Scale::new(Colormap::Viridis, limits);
//! let cell = Cell { plane: Some(plane), ..Cell::default() };
//! let sheet = Sheet { cells: vec![vec![cell]], scales: vec![scale], title: "a map".into(), ..Sheet::default() };
//! let figure = sheet.draw(Style::default());
//! assert!(figure.to_picture()?.to_png()?.starts_with(b"\x89PNG"));
//! assert!(figure.to_svg()?.contains("a map"));
//! # Ok::<(), attnkit::render::PictureError>(())
//! ```

// Pixels, marks and colours: rounded, and far below 2^31.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod axis;
mod colour;
mod curves;
mod figure;
mod film;
mod matrix;
mod picture;
mod range;
mod resample;
mod sheet;
mod text;

pub(crate) use axis::number;
pub use colour::{Colormap, Scale};
pub(crate) use colour::{DISTINCT_COLOURS, distinct};
pub use curves::{Curve, Curves};
pub(crate) use figure::Anchor;
pub use figure::{Figure, Style};
pub use film::{FilmError, FilmFormat, FilmShape, FilmWriter, VideoFrames, count_frames, ffmpeg};
pub use matrix::Matrix;
pub(crate) use picture::blended;
pub use picture::{Picture, PictureError};
pub(crate) use range::percentile;
pub use range::{Limits, Odd, Part, Range};
pub use resample::{Filter, Plane};
pub(crate) use sheet::painted;
pub use sheet::{Cell, Sheet};
pub(crate) use text::{shortened, width as text_width};
