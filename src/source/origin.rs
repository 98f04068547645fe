//! What a source is read from: what it can list, and how the steps of a word are read.

use std::fmt::Debug;
use std::sync::Arc;

use super::many::ValuesMut;
use super::{Over, SourceError};
use crate::dtype::Dtype;
use crate::dump::DumpError;
use crate::grid::Grid;
use crate::json::Object;
use crate::progress::Meter;
use crate::shape::StepShape;
use crate::values::Values;

/// Videos with their words.
pub(super) trait Origin: Debug + Send + Sync {
    /// Ids of the videos, sorted.
    fn videos(&self) -> Result<Vec<String>, SourceError>;

    /// The words of a video, sorted; `None`: there is no such video.
    fn tokens(&self, video: &str) -> Result<Option<Vec<String>>, SourceError>;

    /// The summary of a video, if it has one; `None`: there is no such video.
    fn summary(&self, video: &str) -> Result<Option<Option<Object>>, SourceError>;

    /// A word of a video, by a condition on its spelling.
    fn word(&self, video: &str, is_word: &dyn Fn(&str) -> bool) -> Result<Option<Box<dyn Word + '_>>, SourceError>;
}

/// One word of one video.
pub(super) trait Word: Send + Sync {
    /// Its steps, ascending. A step's place among them is how it is asked for.
    fn steps(&self) -> Vec<i32>;

    /// Why a step is not among them though it should be.
    fn problem_of(&self, step: i32) -> Option<Arc<DumpError>>;

    /// The metadata of the step at a place, as of one file.
    fn metadata(&self, place: usize) -> Result<Object, SourceError>;

    /// The shape of its steps: of the first that can be read.
    fn shape(&self) -> Option<StepShape>;

    /// The grid of its steps, where it is known.
    fn grid(&self) -> Option<Grid>;

    /// The steps at some places, one behind the other, where it is known without reading that they are of one type and
    /// shape.
    fn load(&self, places: &[usize], all: &Meter<'_>) -> Result<Option<(StepShape, Values<'static>)>, SourceError> {
        let _ = (places, all);
        Ok(None)
    }

    /// Reads its steps, or means over blocks and heads where they are at hand.
    fn reader(&self, over: Over) -> Result<Box<dyn StepsReader + '_>, SourceError>;
}

/// Reads steps of a word one after the other.
pub(super) trait StepsReader: Send + Sync {
    /// Reads the step at a place. `visit` gets its values and their shape, with size 1 along the axes that a mean at
    /// hand is over.
    fn read(&mut self, place: usize, visit: &mut dyn FnMut(Values<'_>, StepShape)) -> Result<(), SourceError>;

    /// Shape and type of the steps at some places, if it is known without reading them that they take as much memory
    /// as their files do.
    fn outline(&self, _places: &[usize]) -> Result<Option<(StepShape, Dtype)>, SourceError> {
        Ok(None)
    }

    /// Reads the step at a place straight to where it is wanted. Returns whether it did: if not, it is not of this
    /// shape and type, or does not lie in a file as it does in memory.
    fn read_into(&self, _place: usize, _shape: StepShape, _target: ValuesMut<'_>) -> Result<bool, SourceError> {
        Ok(false)
    }

    /// Another one for the same steps, with buffers of its own.
    fn another(&self) -> Box<dyn StepsReader + '_>;
}

/// Reads the step at a place: what `visit` makes of it.
pub(super) fn read<R>(
    reader: &mut dyn StepsReader,
    place: usize,
    visit: impl FnOnce(Values<'_>, StepShape) -> R,
) -> Result<R, SourceError> {
    let (mut visit, mut made) = (Some(visit), None);
    reader.read(place, &mut |values, shape| made = visit.take().map(|visit| visit(values, shape)))?;
    made.ok_or(SourceError::Cancelled)
}
