//! What a user can choose of an ingest.

use std::path::PathBuf;
use std::time::Duration;

use globset::{Glob, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};

use super::IngestError;
use crate::dtype::Dtype;
use crate::dump::{Batch, ReadOptions, composed};
use crate::grid::Grid;
use crate::store::{Codec, Recipe, Rollups};

/// What is done with a file that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum OnError {
    /// Leave it out, say so, and go on.
    #[default]
    Quarantine,
    /// Stop.
    Fail,
}

/// How an ingest is done. The default keeps every value of every step bit for bit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IngestOptions {
    /// Compression. Default: [`Codec::Balanced`].
    pub codec: Codec,
    /// Round values to so many bits of the fraction, of which float16 has 10 and float32 23 (lossy); `None`: not.
    pub bits: Option<u8>,
    /// Whether means over blocks, heads and both are stored too. Default: yes.
    pub rollups: Rollups,
    /// Globs of video ids; empty: all.
    pub videos: Vec<String>,
    /// Globs of words; empty: all.
    pub tokens: Vec<String>,
    /// Keep steps whose number is a multiple of this. Default: 1, all.
    pub every: u32,
    /// Average-pool height and width of the grid by this factor (lossy). Default: 1, not.
    pub downsample: usize,
    /// Convert to this type (narrowing is lossy); `None`: keep.
    pub dtype: Option<Dtype>,
    /// Element of a batch axis.
    pub batch: Option<Batch>,
    /// Name of the array that is read of an `.npz`; `None`: `attention`, or the only one that can be a step.
    pub array: Option<String>,
    /// Average over blocks (lossy).
    pub average_blocks: bool,
    /// Average over heads (lossy).
    pub average_heads: bool,
    /// The grid, where metadata does not tell it.
    pub grid: Option<Grid>,
    /// Put before every video id, with a `/`.
    pub prefix: Option<String>,
    /// Replace videos that are in the store already with other contents from another directory.
    pub replace: bool,
    /// File of the prompts that the videos were generated from
    /// ([`BatchPrompts::read`](crate::prompt::BatchPrompts::read)); `None`: what generators left beside the maps, if
    /// they did.
    pub prompts: Option<PathBuf>,
    /// A `tokenizer.json` that token ids are checked against.
    pub tokenizer: Option<PathBuf>,
    /// Whether the caller promises that no other process writes into the store: it need not have locks then.
    pub single_writer: bool,
    /// Whether the tables are packed at the end, if 256 videos or more are in files of their own. Default: yes.
    pub pack: bool,
    /// Threads; 0: one per core.
    pub threads: usize,
    /// What is done with a file that cannot be used.
    pub on_error: OnError,
    /// The most bytes that one step file may hold once decompressed. Default: 2 GiB.
    pub max_step_bytes: u64,
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self {
            codec: Codec::default(),
            bits: None,
            rollups: Rollups::default(),
            videos: Vec::new(),
            tokens: Vec::new(),
            every: 1,
            downsample: 1,
            dtype: None,
            batch: None,
            array: None,
            average_blocks: false,
            average_heads: false,
            grid: None,
            prefix: None,
            replace: false,
            prompts: None,
            tokenizer: None,
            single_writer: false,
            pack: true,
            threads: 0,
            on_error: OnError::default(),
            max_step_bytes: ReadOptions::default().max_step_bytes,
        }
    }
}

impl IngestOptions {
    /// How step files are read.
    #[must_use]
    pub fn read_options(&self) -> ReadOptions {
        ReadOptions { batch: self.batch, array: self.array.clone(), max_step_bytes: self.max_step_bytes }
    }

    /// What determines the stored values.
    #[must_use]
    pub fn recipe(&self) -> Recipe {
        Recipe {
            codec: self.codec,
            rollups: self.rollups,
            dtype: self.dtype,
            downsample: if self.downsample == 0 { 1 } else { self.downsample },
            batch: self.batch,
            array: self.array.clone(),
            average_blocks: self.average_blocks,
            average_heads: self.average_heads,
            grid: self.grid,
            bits: self.bits,
        }
    }
}

impl Recipe {
    /// Options that lead to it; all others as given.
    pub(crate) fn as_options(&self, others: &IngestOptions) -> IngestOptions {
        IngestOptions {
            codec: self.codec,
            rollups: self.rollups,
            dtype: self.dtype,
            downsample: self.downsample,
            batch: self.batch,
            array: self.array.clone(),
            average_blocks: self.average_blocks,
            average_heads: self.average_heads,
            grid: self.grid,
            bits: self.bits,
            ..others.clone()
        }
    }
}

/// How a dump is followed while it is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchOptions {
    /// Time between two looks, at least. Default: 2 seconds.
    pub poll: Duration,
    /// Stop once nothing has changed for this long. Default: never.
    pub until_idle: Option<Duration>,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self { poll: Duration::from_secs(2), until_idle: None }
    }
}

/// Names selected by globs: all, if there are none. A name that is just what was given is selected, whatever characters
/// it has; how characters are composed makes no difference.
pub(super) struct Names(Option<(Vec<String>, GlobSet)>);

impl Names {
    pub fn new(patterns: &[String]) -> Result<Self, IngestError> {
        if patterns.is_empty() {
            return Ok(Self(None));
        }
        let mut set = GlobSetBuilder::new();
        let patterns: Vec<String> = patterns.iter().map(|pattern| composed(pattern)).collect();
        for pattern in &patterns {
            set.add(Glob::new(pattern).map_err(|source| IngestError::Glob { pattern: pattern.clone(), source })?);
        }
        let set = set.build().map_err(|source| IngestError::Glob { pattern: patterns.join(", "), source })?;
        Ok(Self(Some((patterns, set))))
    }

    pub fn contains(&self, name: &str) -> bool {
        let name = composed(name);
        self.0.as_ref().is_none_or(|(patterns, set)| patterns.contains(&name) || set.is_match(&name))
    }
}
