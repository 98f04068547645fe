//! What is measured of attention maps: one file per family, each formula with its source.

pub mod distribution;
pub mod location;

pub use distribution::{Distribution, Level};
pub use location::Location;
