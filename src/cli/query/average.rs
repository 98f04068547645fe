//! `attnkit query average`.

use std::path::Path;

use clap::Args;

use super::Ask;
use super::select::{ReduceArgs, SelectArgs};
use super::target::{OutputArgs, Target};
use crate::kernel::Reducer;
use crate::query::{Across, Average, Dimension, Question, Reduction};

/// Maps reduced to one for each combination of what is not averaged over.
///
/// Columns: the keys (of `video_id`, `token`, `token_index`, `step`, `block`, `head`), `n` (maps that went in),
/// `frames`, `height`, `width`, `shape`, and the statistics of the result. Parquet and Arrow have the map itself in
/// `values`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit query average maps.store                        a map per step
  attnkit query average maps.store --over block,head,step -o words.zarr
                                                          per video and word
  attnkit query average maps.store --over video,block,head --token flower
                                                          over seeds and prompts
  attnkit query average maps.store --over block --with max -o heads.npy
                                                          per step and head
  attnkit query average maps.store --by seed,token        per seed and word, over all else")]
pub(super) struct AverageArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// What to reduce over: any of block, head, step, video, token (and the pieces of words), `token_index` (these
    /// alone)
    ///
    /// none: nothing, a row for each map
    #[arg(long, value_name = "DIMENSION,…", default_value = "block,head", value_parser = parse_over)]
    over: Over,
    /// What to keep apart instead, over all else: any of video, prompt, seed, token, weight, step, block, head
    #[arg(long, value_enum, value_name = "DIMENSION,…", value_delimiter = ',', conflicts_with = "over")]
    #[arg(hide_possible_values = true)]
    by: Vec<Across>,
    /// What becomes of the values at a position
    #[arg(long, value_enum, value_name = "REDUCER", default_value_t)]
    with: Reducer,
    #[command(flatten)]
    reduce: ReduceArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Ask for AverageArgs {
    fn store(&self) -> &Path {
        &self.select.store
    }

    fn output(&self) -> &OutputArgs {
        &self.output
    }

    fn is_of_maps(&self) -> bool {
        true
    }

    fn question(&self, target: &Target) -> Question {
        Question::Average(Average {
            filter: self.select.filter(),
            over: self.over.0.clone(),
            by: self.by.clone(),
            reduction: Reduction { reducer: self.with, ..self.reduce.reduction() },
            values: target.format.has_values(),
            arrange: self.output.arrange(),
        })
    }
}

/// What is reduced over: may be nothing.
#[derive(Debug, Clone)]
struct Over(Vec<Dimension>);

fn parse_over(text: &str) -> Result<Over, String> {
    match text.trim() {
        "" | "none" => Ok(Over(Vec::new())),
        some => some.split(',').map(|name| name.trim().parse()).collect::<Result<_, _>>().map(Over),
    }
}
