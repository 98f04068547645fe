//! Any drawing, as a value: what the command line parses into, and what Python passes as JSON.

use serde::{Deserialize, Serialize};

use super::{
    Comparison, ContactSheet, DrawError, Drawn, HeadMatrix, Heatmap, Look, Overlay, Profile, Series, SideMatrix,
    WeightCurve,
};
use crate::progress::Progress;
use crate::query::{QueryError, Question};
use crate::store::Store;

/// A drawing of a store.
///
/// As JSON it has its name under `kind`, and its fields beside it; what is left out is as in its `Default`. What it
/// does not have is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Drawing {
    /// The frames of maps.
    Heatmap(Heatmap),
    /// Maps over frames of their video.
    Overlay(Overlay),
    /// Maps in rows and columns.
    Sheet(ContactSheet),
    /// Blocks by heads.
    Heads(HeadMatrix),
    /// A statistic through the denoising steps.
    Evolution(Series),
    /// Attention over the latent frames.
    Frames(Profile),
    /// What a word's weight does.
    Weights(WeightCurve),
    /// The square table of a comparison.
    Matrix(SideMatrix),
    /// Two sides and their difference.
    Compare(Comparison),
}

impl Drawing {
    /// Reads one.
    ///
    /// # Errors
    /// If it is no drawing, or one with fields or values that it cannot have.
    pub fn from_json(json: &str) -> Result<Self, QueryError> {
        serde_json::from_str(json)
            .map_err(|error| QueryError::NotAQuestion { found: error.to_string(), source: Some(error) })
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Heatmap(_) => "heatmap",
            Self::Overlay(_) => "overlay",
            Self::Sheet(_) => "sheet",
            Self::Heads(_) => "heads",
            Self::Evolution(_) => "evolution",
            Self::Frames(_) => "frames",
            Self::Weights(_) => "weights",
            Self::Matrix(_) => "matrix",
            Self::Compare(_) => "compare",
        }
    }

    /// The question behind it.
    #[must_use]
    pub fn question(&self) -> Question {
        match self {
            Self::Heatmap(drawing) => Question::Average(drawing.question()),
            Self::Overlay(drawing) => Question::Average(drawing.question()),
            Self::Sheet(drawing) => Question::Average(drawing.question()),
            Self::Heads(drawing) => drawing.question(),
            Self::Evolution(drawing) => Question::Evolution(drawing.question()),
            Self::Frames(drawing) => Question::Average(drawing.question()),
            Self::Weights(drawing) => Question::Compare(drawing.question()),
            Self::Matrix(drawing) => Question::Compare(drawing.question()),
            Self::Compare(drawing) => Question::Average(drawing.question()),
        }
    }

    /// Draws it.
    ///
    /// # Errors
    /// If the question cannot be answered, or the answer cannot be drawn.
    pub fn draw(&self, store: &Store, look: &Look, progress: &dyn Progress) -> Result<Drawn, DrawError> {
        match self {
            Self::Heatmap(drawing) => drawing.draw(store, look, progress),
            Self::Overlay(drawing) => drawing.draw(store, look, progress),
            Self::Sheet(drawing) => drawing.draw(store, look, progress),
            Self::Heads(drawing) => drawing.draw(store, look, progress),
            Self::Evolution(drawing) => drawing.draw(store, look, progress),
            Self::Frames(drawing) => drawing.draw(store, look, progress),
            Self::Weights(drawing) => drawing.draw(store, look, progress),
            Self::Matrix(drawing) => drawing.draw(store, look, progress),
            Self::Compare(drawing) => drawing.draw(store, look, progress),
        }
    }
}
