//! `attnkit query list`.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::Ask;
use super::select::SelectArgs;
use super::target::{OutputArgs, Target};
use crate::cli::{Failure, Global};
use crate::query::{self, List, Question, TableName};

/// Rows of the tables: steps (one row each), or heads (one row for each map).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit query list maps.store --where \"step = 0\" --columns video_id,prompt,seed
  attnkit query list maps.store --table heads --where \"top5 > 0.5\" --limit 10
  attnkit query list maps.store --columns help        what columns there are")]
pub(super) struct ListArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// The table
    #[arg(long, value_enum, default_value_t)]
    table: TableName,
    #[command(flatten)]
    output: OutputArgs,
}

impl ListArgs {
    /// Whether it is asked what columns there are.
    pub fn asks_for_columns(&self) -> bool {
        self.output.columns.as_ref().is_some_and(|columns| columns == &["help"])
    }

    /// Says so, of any store.
    pub fn describe_columns(&self, global: &Global) -> Result<ExitCode, Failure> {
        Target::of(&self.output, &self.select.store)?.write(query::columns()?, global)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Ask for ListArgs {
    fn store(&self) -> &Path {
        &self.select.store
    }

    fn output(&self) -> &OutputArgs {
        &self.output
    }

    fn question(&self, _: &Target) -> Question {
        Question::List(List { table: self.table, filter: self.select.filter(), arrange: self.output.arrange() })
    }
}
