//! Why an ingest stops, and why a step is not written.

use std::path::{Path, PathBuf};

use crate::dump::{DumpError, Problem};
use crate::error::{ErrorKind, LayerError};
use crate::grid::Grid;
use crate::message::MessageError;
use crate::prompt::{BatchPromptsError, TokenizerError};
use crate::remedy::{CommandName, Remedy};
use crate::store::StoreError;

/// Why an ingest stopped. What was committed before stays committed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// A given dump directory cannot be read, or (with [`OnError::Fail`](super::OnError::Fail)) a file cannot be used.
    #[error(transparent)]
    Dump(DumpError),
    /// The store cannot be read or written: a full disk, for one.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing below the given directories looks like a dump.
    #[error(
        "{}: no attention maps found; expected directories such as prompt_000_vid001/token_flower/ with step_000.npy \
         in them, here or below",
        path.display()
    )]
    NothingFound {
        /// The first directory given.
        path: PathBuf,
    },
    /// There are words' directories, but nothing in them is a step.
    #[error("{}: nothing in it is understood:\n  {problems}", path.display())]
    NothingUnderstood {
        /// The first directory given.
        path: PathBuf,
        /// The first files, each with what is wrong with its name.
        problems: String,
    },
    /// A store was given as a dump.
    #[error("{}: is a store, not a dump of step files", path.display())]
    IsStore {
        /// The store.
        path: PathBuf,
    },
    /// The filters leave nothing.
    #[error("nothing is selected by these globs of videos and tokens; there are videos {videos}; words {words}")]
    NothingSelected {
        /// Some of the videos found.
        videos: String,
        /// Some of the words found.
        words: String,
    },
    /// A glob that does not parse.
    #[error("`{pattern}` is not a glob: {source}")]
    Glob {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: globset::Error,
    },
    /// The file of prompts cannot be used.
    #[error(transparent)]
    Prompts(#[from] BatchPromptsError),
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Bytes are no job, or not what one leaves.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// What a job has left is not this ingest's.
    #[error(transparent)]
    Accept(#[from] AcceptError),
    /// Stopped by its [`Observer`](super::Observer).
    #[error("stopped; what was committed before stays in the store, and the next ingest goes on from there")]
    Cancelled,
    /// The threads could not be started.
    #[error("cannot start {threads} threads: {source}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the library says.
        source: rayon::ThreadPoolBuildError,
    },
}

impl IngestError {
    pub(super) fn nothing_found(dumps: &[impl AsRef<Path>]) -> Self {
        Self::NothingFound { path: dumps.first().map(|path| path.as_ref().to_owned()).unwrap_or_default() }
    }
}

/// Why what a job has left is not accepted. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// Another ingest gave the job out.
    #[error("the job was given out by another ingest")]
    Foreign,
    /// It is what a job of another kind leaves.
    #[error("this is not what a job of this kind leaves")]
    Other,
}

impl From<DumpError> for IngestError {
    fn from(error: DumpError) -> Self {
        if matches!(error.problem, Problem::Cancelled) { Self::Cancelled } else { Self::Dump(error) }
    }
}

impl LayerError for IngestError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Dump(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::NothingFound { .. } => ErrorKind::NotFound,
            Self::NothingUnderstood { .. } | Self::IsStore { .. } => ErrorKind::Dump,
            Self::NothingSelected { .. } | Self::Glob { .. } | Self::Tokenizer(_) | Self::Threads { .. } => {
                ErrorKind::Argument
            }
            Self::Prompts(error) => error.kind(),
            Self::Message(_) | Self::Accept(_) => ErrorKind::Argument,
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }

    fn remedy(&self) -> Option<Remedy> {
        Some(match self {
            Self::Dump(error) => return error.remedy(),
            Self::Store(error) => return error.remedy(),
            Self::Prompts(error) => return error.remedy(),
            Self::NothingFound { path } => {
                Remedy::of("{} shows what is recognised there", [CommandName::Info.at(path)])
            }
            Self::NothingUnderstood { .. } => {
                "expected files such as prompt_000_vid001/token_flower/step_000.npy with step_000_metadata.json \
                 beside them"
                    .into()
            }
            Self::IsStore { path } => Remedy::of(
                "{} shows what is in it, {} asks it; {} makes a dump of it",
                [CommandName::Info.at(path), CommandName::Query.here(), CommandName::Export.at(path)],
            ),
            Self::NothingSelected { .. } => {
                "quote globs so that the shell leaves them alone, and use * for any text".into()
            }
            Self::Glob { .. } => "* stands for any text, ? for one character, [ab] for either".into(),
            Self::Tokenizer(error) => return error.remedy(),
            Self::Cancelled => "run the same command again to go on".into(),
            Self::Message(_) | Self::Accept(_) | Self::Threads { .. } => return None,
        })
    }
}

impl LayerError for AcceptError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Argument
    }
}

impl LayerError for WriteError {
    fn kind(&self) -> ErrorKind {
        if let Self::Store(error) = self { error.kind() } else { ErrorKind::Write }
    }

    /// What an ingest would try, such as to choose from a batch, a writer has no options for.
    fn remedy(&self) -> Option<Remedy> {
        if let Self::Store(error) = self { error.remedy() } else { None }
    }
}

/// Why a step was not written. The store is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The array is no step array.
    #[error(transparent)]
    Array(#[from] Problem),
    /// The step is in the store with other values.
    #[error(
        "step {step} of `{token}` in video {video_id} is in the store already, with other values; give the video \
         another id"
    )]
    Exists {
        /// The video.
        video_id: String,
        /// The word.
        token: String,
        /// The step.
        step: i32,
    },
    /// The step is given twice.
    #[error("step {step} of `{token}` is there twice")]
    Twice {
        /// The word.
        token: String,
        /// The step.
        step: i32,
    },
    /// Rows of the text axis that are none of the step.
    #[error("rows of the text at step {step}: {found}")]
    Text {
        /// The step.
        step: i32,
        /// What is odd.
        found: String,
    },
    /// A step that cannot be one.
    #[error("step {step} of `{token}`: steps are numbered from 0")]
    Negative {
        /// The word.
        token: String,
        /// The step.
        step: i32,
    },
    /// Numbers of blocks or heads that do not fit the array.
    #[error("step {step} of `{token}`: {found}")]
    Numbers {
        /// The word.
        token: String,
        /// The step.
        step: i32,
        /// What does not fit.
        found: String,
    },
    /// A grid that is not that of the maps.
    #[error("the grid {grid} has {} positions, the maps of `{token}` have {spatial}", grid.spatial())]
    Grid {
        /// The word.
        token: String,
        /// As it was given.
        grid: Grid,
        /// Positions of the maps.
        spatial: usize,
    },
    /// The video that is there is another one.
    #[error("video {video_id} is in the store with {what} {stored}, and this is {found}; give the video another id")]
    OtherVideo {
        /// The video.
        video_id: String,
        /// What differs.
        what: &'static str,
        /// That of the store.
        stored: String,
        /// That of the step.
        found: String,
    },
    /// A step that comes after a later one.
    #[error("step {step} of `{token}` comes after step {last}; the steps of a word are appended in ascending order")]
    Order {
        /// The word.
        token: String,
        /// The step.
        step: i32,
        /// The last step in the store.
        last: i32,
    },
    /// An array unlike those of the word's other steps.
    #[error("step {step} of `{token}` is {found}; the steps before it are {expected}")]
    Mixed {
        /// The word.
        token: String,
        /// The step.
        step: i32,
        /// Its type and shape.
        found: String,
        /// Those of the others.
        expected: String,
    },
    /// The word was written with other settings.
    #[error(
        "`{token}` in video {video_id} was written with other settings ({differences}); give the video another id, or \
         use the same ones"
    )]
    Settings {
        /// The video.
        video_id: String,
        /// The word.
        token: String,
        /// What differs.
        differences: String,
    },
}
