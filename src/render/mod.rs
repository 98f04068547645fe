//! Pictures of maps. Knows values and grids; knows nothing of stores or files.
//!
//! ```
//! use attnkit::grid::Grid;
//! use attnkit::render::heatmap;
//!
//! let grid = Grid { frames: 2, height: 2, width: 3 };
//! let map: Vec<f32> = (0..12).map(|position| position as f32).collect();
//! let picture = heatmap(&map, grid, None);
//! assert!(picture.to_png()?.starts_with(b"\x89PNG"));
//! # Ok::<(), attnkit::render::PictureError>(())
//! ```

mod heatmap;
mod picture;

pub use heatmap::heatmap;
pub use picture::{Picture, PictureError};
