//! What is measured of attention maps: one file per family, each formula with its source.

pub mod distribution;
pub mod location;
pub mod similarity;

pub use distribution::{Distribution, Level, Piece};
pub use location::Location;
pub use similarity::{Measured, Metric};
