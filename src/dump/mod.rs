//! The input: directories of step files as generators write them. Finds them in every layout and reads every format;
//! knows nothing of the store.
//!
//! ```
//! use attnkit::dump::{Dump, ReadOptions, StepReader};
//!
//! let dump = Dump::find(&[concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/variants/gzip")])?;
//! let video = &dump.videos[0];
//! let series = &video.series[0];
//! assert_eq!((video.name.as_str(), series.token.as_str()), ("prompt_000_vid001", "circle"));
//!
//! let mut reader = StepReader::new(ReadOptions::default());
//! let step = reader.read(&series.steps[0], &series.split)?;
//! assert_eq!(step.array.shape.to_string(), "[6, 4, 576, 1]");
//! # Ok::<(), attnkit::dump::DumpError>(())
//! ```

mod array;
mod discover;
mod error;
mod foreign;
mod gzip;
mod listing;
mod metadata;
mod npy;
mod npz;
mod read;
mod torch;
mod word;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use array::{Batch, StepArray};
pub(crate) use discover::{is_dump, named, prompt_id};
pub use error::{DumpError, Problem};
pub(crate) use listing::step_of;
pub use metadata::{Exported, StepMetadata, read_step_metadata, read_summary};
pub use npy::write_npy;
pub use npz::NpzArray;
pub use read::{ReadOptions, Step, StepPeek, StepReader, content_hash};
use serde::{Deserialize, Serialize};
pub use word::{as_component, composed, same_name};
pub(crate) use word::{beyond, is_word};

use xxhash_rust::xxh3::Xxh3;

use crate::shape::AxisNumbers;
pub use crate::shape::StepShape;

/// All that was found below the directories given.
#[derive(Debug, Default)]
pub struct Dump {
    /// The videos, sorted by directory.
    pub videos: Vec<Video>,
    /// What looks like a part of a dump but cannot be used.
    pub problems: Vec<DumpError>,
    /// What was odd but could be used.
    pub warnings: Vec<DumpError>,
}

/// One generated video: a directory of words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Video {
    /// Its own id, from the directory names; of a dump that was exported from a store, the id it had there.
    pub name: String,
    /// Whether its id is that which it had in a store.
    pub is_named_by_export: bool,
    /// The batch it is in, if other batches were found with it that have videos of the same ids.
    pub batch: Option<String>,
    /// The prompt's id (`prompt_000`), if the names hold one.
    pub prompt_id: Option<String>,
    /// Its directory.
    pub dir: PathBuf,
    /// The directory that its video directories are in: `attention_maps`, as a rule.
    pub root: PathBuf,
    /// Its `summary.json`, if it has one.
    pub summary: Option<PathBuf>,
    /// Its tracked words, sorted by directory.
    pub series: Vec<Series>,
}

impl Video {
    /// Its id: its name, behind the batch's if it has one.
    #[must_use]
    pub fn id(&self) -> String {
        self.batch.as_ref().map_or_else(|| self.name.clone(), |batch| format!("{batch}/{}", self.name))
    }

    /// Bytes of all its step files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.series.iter().flat_map(|series| &series.steps).map(StepFiles::bytes).sum()
    }
}

/// The step files of one word in one video.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The word, from the directory name and what metadata says of it, without weight syntax.
    pub token: String,
    /// The word's weight, if the directory or the metadata's word holds it.
    #[serde(with = "crate::json::exact::option")]
    pub weight: Option<f64>,
    /// Its directory.
    pub dir: PathBuf,
    /// Its steps, ascending.
    pub steps: Vec<StepFiles>,
    /// The blocks and heads that its split files are of.
    pub split: AxisNumbers,
    /// Aggregates over all steps: derived files that are left aside.
    pub aggregates: Vec<PathBuf>,
}

impl Series {
    /// A word that the dump does not have.
    pub(crate) fn without_files(token: &str) -> Self {
        Self {
            token: token.to_owned(),
            weight: None,
            dir: PathBuf::new(),
            steps: Vec::new(),
            split: AxisNumbers::default(),
            aggregates: Vec::new(),
        }
    }
}

/// The files of one denoising step: one, unless it is split by block or head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFiles {
    /// The step, from the file name.
    pub step: i32,
    /// At least one file, ordered by block and head.
    pub parts: Vec<StepFile>,
}

impl StepFiles {
    /// Bytes of the tensor files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.tensor.bytes).sum()
    }

    /// Whether it is split by block or head.
    #[must_use]
    pub fn is_split(&self) -> bool {
        self.parts.iter().any(StepFile::is_part)
    }

    /// The first of its tensor files.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.parts.first().map_or(Path::new(""), |part| part.path.as_path())
    }

    /// Latest modification of its tensor and metadata files.
    #[must_use]
    pub fn modified(&self) -> SystemTime {
        let latest = |part: &StepFile| part.tensor.modified.max(part.described.modified);
        self.parts.iter().map(latest).max().unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// A problem with one of its files, which says what becomes of the others.
    pub(crate) fn left_out(&self, problem: DumpError) -> DumpError {
        let DumpError { path, problem } = problem;
        let (step, files) = (self.step, self.parts.len());
        let is_of_all = files < 2 || matches!(problem, Problem::OfSplit { .. } | Problem::Changed);
        let problem = if is_of_all { problem } else { Problem::OfSplit { problem: Box::new(problem), step, files } };
        problem.at(path)
    }

    /// A hash of what the file system says of all its files, 16 hexadecimal digits: if it is the same, none was written
    /// since.
    #[must_use]
    pub fn signature(&self) -> String {
        let mut hash = Xxh3::new();
        for part in &self.parts {
            for FileSignature { bytes, modified } in [part.tensor, part.described] {
                hash.update(&bytes.to_le_bytes());
                hash.update(&micros(modified).to_le_bytes());
            }
        }
        format!("{:016x}", hash.digest())
    }
}

/// What the file system says of a file: if it is the same at two looks, the file was not written between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSignature {
    /// Size.
    pub bytes: u64,
    /// Last modification.
    #[serde(with = "nanoseconds")]
    pub modified: SystemTime,
}

impl FileSignature {
    /// Of the file at a path, links followed.
    ///
    /// # Errors
    /// If it cannot be looked at.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let found = path.metadata()?;
        Ok(Self { bytes: found.len(), modified: found.modified()? })
    }
}

/// Times as nanoseconds since 1970: there are files from before.
mod nanoseconds {
    use std::time::{Duration, SystemTime};

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        let since = |duration: Duration| duration.as_nanos().cast_signed();
        let before = |error: std::time::SystemTimeError| -since(error.duration());
        time.duration_since(SystemTime::UNIX_EPOCH).map_or_else(before, since).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let since = i128::deserialize(deserializer)?;
        let nanos = since.unsigned_abs();
        let seconds = u64::try_from(nanos / 1_000_000_000).map_err(D::Error::custom)?;
        let apart = Duration::new(seconds, u32::try_from(nanos % 1_000_000_000).map_err(D::Error::custom)?);
        let epoch = SystemTime::UNIX_EPOCH;
        let time = if since < 0 { epoch.checked_sub(apart) } else { epoch.checked_add(apart) };
        time.ok_or_else(|| D::Error::custom("no such time"))
    }
}

/// From the year 1 to the year 9999, in microseconds since 1970: what calendars have.
pub(crate) const CALENDAR: std::ops::Range<i64> = -62_135_596_800_000_000..253_402_300_800_000_000;

/// Microseconds since 1970, rounded down.
pub(crate) fn micros(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_nanos().div_ceil(1000)).unwrap_or(i64::MAX),
    }
}

/// One tensor file with its metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFile {
    /// The tensor file.
    pub path: PathBuf,
    /// How it is written.
    pub format: FileFormat,
    /// The block it holds, if split by block.
    pub block: Option<usize>,
    /// The head it holds, if split by head.
    pub head: Option<usize>,
    /// Its metadata file.
    pub metadata: PathBuf,
    /// What the file system says of the tensor file.
    pub tensor: FileSignature,
    /// What it says of the metadata file.
    pub described: FileSignature,
}

impl StepFile {
    /// Whether it holds one block or head of the step.
    #[must_use]
    pub const fn is_part(&self) -> bool {
        self.block.is_some() || self.head.is_some()
    }
}

/// How a tensor file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FileFormat {
    /// `.npy`
    Npy,
    /// `.pt`
    Torch,
    /// `.npz`
    Npz,
    /// `.npy.gz`
    NpyGzip,
    /// `.pt.gz`
    TorchGzip,
}

impl FileFormat {
    /// All, the preferred first when a step exists in several.
    pub const ALL: [Self; 5] = [Self::Npy, Self::Torch, Self::Npz, Self::NpyGzip, Self::TorchGzip];

    /// The file name's ending, with its dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Npy => ".npy",
            Self::Torch => ".pt",
            Self::Npz => ".npz",
            Self::NpyGzip => ".npy.gz",
            Self::TorchGzip => ".pt.gz",
        }
    }
}
