//! What can be wrong with a file of a dump: what was found, and what was expected.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::torch::TorchError;
use crate::dtype::SourceDtype;
use crate::error::{Cause, ErrorKind, LayerError};
use crate::remedy::{OptionName, Remedy};

/// A problem with one file or directory of a dump.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct DumpError {
    /// The file or directory.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
}

/// A problem as it is told to another process: in words.
#[derive(Serialize, Deserialize)]
struct Told {
    path: PathBuf,
    problem: String,
    remedy: Option<Remedy>,
}

impl Serialize for DumpError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (problem, remedy) = (self.problem.to_string(), self.problem.remedy());
        Told { path: self.path.clone(), problem, remedy }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for DumpError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Told { path, problem, remedy } = Told::deserialize(deserializer)?;
        let problem = match remedy {
            Some(remedy) => Problem::refused(problem, remedy),
            None => Problem::Remark(problem),
        };
        Ok(problem.at(path))
    }
}

/// What is wrong with a file or directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// It could not be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It has no bytes.
    #[error("the file is empty; expected {expected}")]
    Empty {
        /// What should be there.
        expected: &'static str,
    },
    /// The npy header does not parse.
    #[error("not an npy file: {found}; expected the npy format, version 1, 2 or 3")]
    NotNpy {
        /// What was found: in words, or what a library says.
        #[source]
        found: Cause,
    },
    /// The array is not of floats.
    #[error("the array's type is {found}; expected float16, float32 or float64")]
    NotFloat {
        /// The descriptor found.
        found: String,
    },
    /// The header and the size of the file disagree.
    #[error("the header promises {expected} bytes for shape {shape:?}, found {found}: truncated or damaged")]
    Size {
        /// Bytes promised, header included.
        expected: u128,
        /// Bytes found (for a compressed file: at least).
        found: u64,
        /// Shape in the header.
        shape: Vec<usize>,
    },
    /// More than is allowed for one file.
    #[error("holds {found} bytes once read; the limit is {limit}")]
    TooLarge {
        /// Bytes found or promised.
        found: u128,
        /// The limit.
        limit: u64,
    },
    /// A gzip stream that unpacks to far more than attention maps do.
    #[error(
        "{packed} bytes unpack to {unpacked} and more, which attention maps do not; if that is right, gunzip the file \
         first"
    )]
    Bomb {
        /// Size of the file.
        packed: usize,
        /// Bytes unpacked when reading stopped.
        unpacked: usize,
    },
    /// A gzip stream that is damaged or cut off.
    #[error("gzip stream is damaged or cut off after {read} bytes: {source}")]
    Gzip {
        /// Bytes decompressed before.
        read: usize,
        /// What the decoder says.
        source: io::Error,
    },
    /// A file that is not gzip, as its name says.
    #[error("not gzip, as its name says: it {found}; gunzip names the same, or rename it")]
    NotGzip {
        /// What it is instead.
        found: &'static str,
    },
    /// Bytes behind a gzip stream.
    #[error(
        "{bytes} bytes behind the gzip stream are neither padding nor another stream: what they are is not guessed at; \
         repack the file"
    )]
    GzipTail {
        /// How many.
        bytes: usize,
    },
    /// An npz archive of several arrays that may be meant.
    #[error("holds several arrays that can be a step: {names}; which one is meant is not guessed")]
    NpzSeveral {
        /// Their names.
        names: String,
    },
    /// An npz archive that cannot be used.
    #[error("not a usable npz archive: {found}; expected an array named `attention`, or one array of a step")]
    Npz {
        /// What a library says.
        #[source]
        found: Cause,
    },
    /// A torch file that cannot be used.
    #[error(transparent)]
    Torch(#[from] TorchError),
    /// A shape that is no step array's.
    #[error(
        "shape is {found:?}; expected four non-empty axes [block, head, spatial, token], within what a model can have"
    )]
    Shape {
        /// The shape found.
        found: Vec<usize>,
    },
    /// Five axes, and a batch of more than one.
    #[error("shape {found:?} has a batch axis of {batch} (axis 1); which one is meant is not guessed")]
    BatchAxis {
        /// The shape found.
        found: Vec<usize>,
        /// Its batch size.
        batch: usize,
    },
    /// The chosen index is not in the batch.
    #[error("the batch axis has size {batch}, and no element {index}")]
    BatchIndex {
        /// The index asked for.
        index: usize,
        /// The batch size.
        batch: usize,
    },
    /// A split step of which files are missing or double.
    #[error(
        "the step is split into one file per block or head, and {found} of {expected} are there; missing: {missing}"
    )]
    SplitIncomplete {
        /// Files found.
        found: usize,
        /// Files expected.
        expected: usize,
        /// Names of the missing ones.
        missing: String,
    },
    /// A split file that most of the word's steps have none like.
    #[error("the step has a file of {found}, which most steps of the word lack")]
    SplitBeyond {
        /// The block or head.
        found: String,
    },
    /// A split file that does not fit the others.
    #[error("this part of a split step is {found}; the first part is {expected}")]
    SplitMismatch {
        /// Shape and type found.
        found: String,
        /// Shape and type of the first part.
        expected: String,
    },
    /// A split file whose blocks or heads are others than those of the first, on the axis that is not split.
    #[error(
        "metadata of this part has {key} {found:?}, that of the first part {expected:?}: the same place would be \
         another {axis}"
    )]
    SplitNumbers {
        /// The key.
        key: &'static str,
        /// What it numbers.
        axis: &'static str,
        /// The numbers found.
        found: Vec<i32>,
        /// Those of the first part.
        expected: Vec<i32>,
    },
    /// Tensor without metadata.
    #[error("no metadata beside it; expected {expected} (a step without it counts as not yet complete)")]
    NoMetadata {
        /// Name of the expected file.
        expected: String,
    },
    /// Metadata without tensor.
    #[error("metadata without a tensor; expected {expected}.npy, .npy.gz, .pt, .pt.gz or .npz beside it")]
    NoTensor {
        /// Stem of the expected file.
        expected: String,
    },
    /// JSON that does not parse.
    #[error("not valid JSON: {found}; expected one object")]
    Json {
        /// What the parser says.
        #[source]
        found: Cause,
    },
    /// An entry of a word's directory that is no step.
    #[error("not a step file: {found}; expected names such as step_000.npy, .npy.gz, .pt, .pt.gz or .npz")]
    NotAStep {
        /// Why.
        found: String,
    },
    /// Step files outside of any word's directory.
    #[error("step files outside of a word's directory ({count}); expected them in one such as token_flower/")]
    Astray {
        /// How many.
        count: usize,
    },
    /// The file changed between planning and reading.
    #[error("the file changed while it was read (the generator may still be running); run ingest again later")]
    Changed,
    /// Steps of one word that differ in shape or type.
    #[error("this step is {found}, most steps of the word are {expected}; two runs in one directory?")]
    Mixed {
        /// Shape and type found.
        found: String,
        /// Shape and type of the majority.
        expected: String,
    },
    /// A second directory for the same video or word.
    #[error("{what} was already found in {}; this one is left out", first.display())]
    Duplicate {
        /// Video or word.
        what: String,
        /// Where it was found first.
        first: PathBuf,
    },
    /// A part of a split step that cannot be used, and with it the others.
    #[error("{problem}; step {step} is left out with all of its {files} files")]
    OfSplit {
        /// What is wrong with the part.
        problem: Box<Problem>,
        /// The step.
        step: i32,
        /// How many parts it has.
        files: usize,
    },
    /// What could be read, but is not taken as things are.
    #[error("{found}")]
    Refused {
        /// Why.
        found: String,
        /// What to try.
        remedy: Remedy,
    },
    /// Whoever follows the work wanted it to stop.
    #[error("the search for steps was stopped")]
    Cancelled,
    /// A remark in words: for warnings.
    #[error("{0}")]
    Remark(String),
}

impl LayerError for Problem {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Dump
    }

    fn remedy(&self) -> Option<Remedy> {
        self.remedy()
    }
}

impl LayerError for DumpError {
    fn kind(&self) -> ErrorKind {
        match &self.problem {
            Problem::Io(error) if error.kind() == io::ErrorKind::NotFound => ErrorKind::NotFound,
            Problem::Cancelled => ErrorKind::Cancelled,
            _ => ErrorKind::Dump,
        }
    }

    fn remedy(&self) -> Option<Remedy> {
        self.problem.remedy()
    }
}

impl Problem {
    /// Why it is not taken, and what to try.
    pub(crate) fn refused(found: impl Into<String>, remedy: Remedy) -> Self {
        Self::Refused { found: found.into(), remedy }
    }

    /// What to try next, if that can be told.
    #[must_use]
    pub fn remedy(&self) -> Option<Remedy> {
        Some(match self {
            Self::TooLarge { .. } => {
                Remedy::of("raise it with {} if that is right", [OptionName::MaxStepBytes.unsaid()])
            }
            Self::NpzSeveral { .. } => Remedy::of("choose with {}", [OptionName::Array.any()]),
            Self::BatchAxis { .. } => {
                Remedy::of("choose with {} or {}", [OptionName::Batch.any(), OptionName::Batch.is("mean")])
            }
            Self::BatchIndex { index, batch } => Remedy::of(
                &format!("{{}} is out of range: choose from 0 to {}", batch.saturating_sub(1)),
                [OptionName::Batch.is(index.to_string())],
            ),
            Self::Refused { remedy, .. } => remedy.clone(),
            Self::OfSplit { problem, .. } => return problem.remedy(),
            _ => return None,
        })
    }

    /// Why an entry of a directory is not there, or cannot be looked at.
    pub(super) fn of_entry(path: &Path, error: std::io::Error) -> Self {
        match std::fs::read_link(path) {
            Ok(target) if error.kind() == std::io::ErrorKind::NotFound => {
                Self::Remark(format!("is a link to {}, which is not there", target.display()))
            }
            _ => error.into(),
        }
    }

    /// Names the file.
    #[must_use]
    pub fn at(self, path: impl AsRef<Path>) -> DumpError {
        DumpError { path: path.as_ref().to_owned(), problem: self }
    }
}

/// Shape and type in words, for comparisons.
pub(crate) fn describe(shape: impl std::fmt::Display, dtype: SourceDtype) -> String {
    format!("{dtype} {shape}")
}
