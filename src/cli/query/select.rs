//! Which maps, and how they become one: what several questions take.

// What stands above these structs would be taken for the description of the questions that they are options of.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::kernel::Reducer;
use crate::query::{Filter, Reduction};

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct SelectArgs {
    /// The store
    #[arg(value_hint = ValueHint::DirPath, value_parser = crate::cli::path())]
    pub store: PathBuf,
    /// SQL condition over the columns of both tables, such as "token = 'flower' AND step < 10 AND entropy < 6"
    #[arg(long = "where", value_name = "SQL", allow_hyphen_values = true)]
    condition: Option<String>,
    /// Only this video
    #[arg(long, value_name = "ID")]
    video: Option<String>,
    /// Only this word
    #[arg(long, value_name = "WORD")]
    token: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ReduceArgs {
    /// Leave out NaN and infinite values [default: they propagate]
    #[arg(long)]
    skipna: bool,
    /// Compute means from the full arrays, even where a stored rollup has them
    #[arg(long)]
    no_rollups: bool,
}

/// One of what is averaged over.
#[derive(Debug, Args)]
pub(in crate::cli) struct OneArgs {
    /// One denoising step
    #[arg(long, value_name = "N")]
    step: Option<i64>,
    /// One block
    #[arg(long, value_name = "N")]
    block: Option<i64>,
    /// One head
    #[arg(long, value_name = "N")]
    head: Option<i64>,
}

impl OneArgs {
    /// The same filter, for these alone.
    pub fn of(&self, filter: Filter) -> Filter {
        Filter { step: self.step, block: self.block, head: self.head, ..filter }
    }
}

impl SelectArgs {
    pub fn filter(&self) -> Filter {
        let Self { condition, video, token, .. } = self.clone();
        Filter { condition, video, token, ..Filter::all() }
    }
}

impl ReduceArgs {
    pub const fn reduction(&self) -> Reduction {
        Reduction { reducer: Reducer::Mean, skipna: self.skipna, rollups: !self.no_rollups }
    }
}
