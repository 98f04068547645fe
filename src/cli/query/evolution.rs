//! `attnkit query evolution`.

use std::path::Path;

use clap::Args;

use super::Ask;
use super::select::{ReduceArgs, SelectArgs};
use super::target::{OutputArgs, Target};
use crate::cli::{Failure, Global};
use crate::output;
use crate::query::{Answer, Arrange, By, Evolution, Question};

/// A word's attention through the denoising steps: statistics of each step's mean map, and its change.
///
/// Change against the step before (…_previous) and against the last one (…_last): cosine similarity, Jensen-Shannon
/// divergence in nats, shift of the centroid in grid cells.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit query evolution maps.store --token flower --sparkline
  attnkit query evolution maps.store --token flower --by head -o heads.parquet
  attnkit query evolution maps.store --where \"block = 12\" --format csv")]
pub(super) struct EvolutionArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// A series for each block or head instead of the mean over all
    #[arg(long, value_enum)]
    by: Option<By>,
    /// One row for each series, with trends as small bars
    #[arg(long)]
    sparkline: bool,
    #[command(flatten)]
    reduce: ReduceArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Ask for EvolutionArgs {
    fn store(&self) -> &Path {
        &self.select.store
    }

    fn output(&self) -> &OutputArgs {
        &self.output
    }

    fn question(&self, _: &Target) -> Question {
        // Trends are of all rows: they are sorted and cut themselves.
        let arrange = if self.sparkline { Arrange::default() } else { self.output.arrange() };
        Question::Evolution(Evolution {
            filter: self.select.filter(),
            by: self.by,
            reduction: self.reduce.reduction(),
            arrange,
        })
    }

    fn write(&self, answer: Answer, target: &Target, global: &Global) -> Result<(), Failure> {
        let answer = if self.sparkline { output::trends(&answer)?.arrange(&self.output.arrange())? } else { answer };
        target.write(answer, global)
    }
}
