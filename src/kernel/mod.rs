//! The few hot loops over the values of maps. Knows slices and numbers, nothing of files or stores.
//!
//! Each loop stands beside a plain scalar reference, and tests hold the two together.

mod accumulate;
mod element;
mod levels;
mod measure;
mod measure_resampled;
mod median;
mod memory;
mod reduce;
mod resample;
mod round;
mod shuffle;
mod step;

pub use element::Element;
pub use levels::LevelCounter;
pub use measure::{MapMeasurer, MapStatistics, Sums};
pub(crate) use memory::zeroed;
pub use reduce::{Accumulator, Reducer, Unlike};
pub use resample::{FramePlacement, Pooling, Resampled};
pub use round::{RoundingError, round};
pub(crate) use shuffle::{Shuffle, unshuffle};
pub use step::{MapMeasure, StepMeasurer, StepMeasures};
