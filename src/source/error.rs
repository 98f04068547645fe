//! Why something could not be read.

use std::path::PathBuf;
use std::sync::Arc;

use crate::dump::DumpError;
use crate::error::{ErrorKind, LayerError};
use crate::kernel::Unlike;
use crate::progress::Cancelled;
use crate::remedy::Remedy;
use crate::shape::StepShape;
use crate::store::StoreError;

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The dump, or a file of it.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Neither a store nor a dump.
    #[error(
        "{}: neither a store nor a dump: found {found}; expected zarr.json, or directories such as \
         prompt_000_vid001/token_flower/ with step_000.npy in them, here or below",
        path.display()
    )]
    Neither {
        /// The directory.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// Something that is not there.
    #[error("there is no {what} in {place}; there are {known}")]
    NotFound {
        /// What was asked for.
        what: String,
        /// Where.
        place: String,
        /// What there is instead.
        known: String,
    },
    /// A step file that cannot be used.
    #[error("step {step} cannot be used: {problem}")]
    Unusable {
        /// The step.
        step: i32,
        /// What is wrong with one of its files.
        #[source]
        problem: Arc<DumpError>,
    },
    /// Steps that do not stack.
    #[error(
        "step {step} is {found}, step {first_step} is {first}; steps of different shapes do not stack: load them one \
         by one"
    )]
    Mixed {
        /// The step that differs.
        step: i32,
        /// Its shape and type.
        found: String,
        /// The first step.
        first_step: i32,
        /// Its shape and type.
        first: String,
    },
    /// More than there is memory for.
    #[error("{steps} steps of {shape} are too large for memory: load fewer of them")]
    TooLarge {
        /// How many.
        steps: usize,
        /// The shape of each.
        shape: StepShape,
    },
    /// Steps that were folded in different ways.
    #[error(transparent)]
    Unlike(#[from] Unlike),
    /// Stopped by whoever asked.
    #[error("stopped before everything was read")]
    Cancelled,
}

impl LayerError for SourceError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Dump(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Neither { .. } | Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Unusable { .. } | Self::Mixed { .. } | Self::TooLarge { .. } | Self::Unlike(_) => ErrorKind::Dump,
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }

    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Dump(error) => error.remedy(),
            Self::Store(error) => error.remedy(),
            Self::Unusable { problem, .. } => problem.remedy(),
            _ => None,
        }
    }
}

impl From<Cancelled> for SourceError {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}
