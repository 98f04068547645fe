//! Options of several commands, each defined once.

// What stands above these structs would be taken for the description of the commands that they are options of.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::query::{Filter, QueryError};

#[derive(Debug, Args)]
pub(super) struct StoreArg {
    /// The store
    #[arg(value_hint = ValueHint::DirPath, value_parser = super::path())]
    pub store: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct ConditionArg {
    /// Only steps of which at least one map matches this SQL condition, as in `attnkit query`
    #[arg(long = "where", value_name = "SQL")]
    condition: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct SingleWriterArg {
    /// Nobody else writes into the store: do without locks on file systems that have none
    #[arg(long)]
    pub single_writer: bool,
}

impl ConditionArg {
    /// The filter, if a condition is given.
    pub fn filter(&self) -> Result<Option<Filter>, QueryError> {
        self.condition.as_deref().map(Filter::parse).transpose()
    }
}
