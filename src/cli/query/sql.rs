//! `attnkit query sql`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};

use super::Ask;
use super::target::{OutputArgs, Target};
use crate::query::{Question, Sql};

/// SQL over the tables `steps`, `heads` and `text` (dialect of Polars), read-only.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit query sql maps.store \\
    \"SELECT block, avg(gini) AS gini FROM heads GROUP BY block ORDER BY gini\"
  attnkit query sql maps.store -o seeds.csv \\
    \"SELECT seed, avg(top5) FROM heads JOIN steps USING (video_id, token, step)
     GROUP BY seed\"")]
pub(super) struct SqlArgs {
    /// The store
    #[arg(value_hint = ValueHint::DirPath, value_parser = crate::cli::path())]
    store: PathBuf,
    /// SELECT …
    #[arg(value_name = "SQL", allow_hyphen_values = true)]
    statement: String,
    #[command(flatten)]
    output: OutputArgs,
}

impl Ask for SqlArgs {
    fn store(&self) -> &Path {
        &self.store
    }

    fn output(&self) -> &OutputArgs {
        &self.output
    }

    fn question(&self, _: &Target) -> Question {
        Question::Sql(Sql { statement: self.statement.clone(), arrange: self.output.arrange() })
    }
}
