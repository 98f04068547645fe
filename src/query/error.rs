//! What can go wrong with a question.

use std::panic::{AssertUnwindSafe, catch_unwind};

use polars::error::{PolarsError, PolarsResult};

use super::exact::overflow;
use crate::error::{ErrorKind, LayerError};
use crate::kernel::Unlike;
use crate::message::MessageError;
use crate::progress::Cancelled;
use crate::remedy::{CommandName, OptionName, Remedy};
use crate::store::StoreError;
use crate::suggest::near;

/// Messages of polars are cut to this.
const MESSAGE_CHARS: usize = 200;

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A column that is in no table.
    #[error("there is no column `{column}`{}", near_list(near))]
    UnknownColumn {
        /// As it was asked for.
        column: String,
        /// Names like it.
        near: Vec<String>,
    },
    /// A condition that cannot be understood.
    #[error("the condition `{condition}` cannot be used: {found}")]
    Condition {
        /// The SQL text.
        condition: String,
        /// What is wrong with it.
        found: String,
        /// What polars says, if it says so.
        source: Option<PolarsError>,
        /// What to try.
        remedy: Remedy,
    },
    /// A SQL statement that cannot be run.
    #[error("the SQL cannot be run: {found}")]
    Sql {
        /// What is wrong with it.
        found: String,
        /// What polars says, if it says so.
        source: Option<PolarsError>,
    },
    /// A question that makes no sense as it is put.
    #[error("{found}")]
    Question {
        /// What is wrong with it.
        found: String,
        /// What to try.
        remedy: Remedy,
    },
    /// What is no question at all.
    #[error("{found}")]
    NotAQuestion {
        /// What is wrong with it.
        found: String,
        /// What the reader of JSON says, if it says so.
        source: Option<serde_json::Error>,
    },
    /// No map is selected.
    #[error("no map matches{}", condition.as_ref().map(|condition| format!(" `{condition}`")).unwrap_or_default())]
    NothingSelected {
        /// The condition.
        condition: Option<String>,
        /// What there is to select.
        remedy: Remedy,
    },
    /// Maps of different grids that would have to be one.
    #[error("maps of different grids cannot be taken together: {}", grids.join("; "))]
    UnequalGrids {
        /// Each grid with videos that have it.
        grids: Vec<String>,
    },
    /// Partial results of different questions.
    #[error(transparent)]
    Unlike(#[from] Unlike),
    /// Stopped by whoever asked.
    #[error("stopped before the answer was complete")]
    Cancelled,
    /// An integer that is beyond 64 bits.
    #[error("an integer does not fit into 64 bits with a sign: {found}")]
    Overflow {
        /// The integer.
        found: String,
    },
    /// Bytes that are not what they should be, or of another version.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// What a task left cannot be taken: it is of another question, or there already.
    #[error("this is not what a task of this question leaves: {found}")]
    Foreign {
        /// What is wrong with it.
        found: String,
    },
    /// An answer that not all tasks have been done for.
    #[error("{missing} of {all} tasks have not been done")]
    Unfinished {
        /// Tasks, of the smallest grain, of which nothing was accepted.
        missing: usize,
        /// All of them.
        all: usize,
    },
    /// The tables cannot be evaluated.
    #[error("the tables cannot be read: {0}")]
    Tables(PolarsError),
}

impl From<Cancelled> for QueryError {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

impl From<PolarsError> for QueryError {
    fn from(error: PolarsError) -> Self {
        if let Some(found) = overflow(&error) {
            return Self::Overflow { found };
        }
        let message = error.to_string();
        match message.find("conversion from `") {
            Some(at) => Self::question(
                format!("a value cannot be cast: {}", plain(&message[at..])),
                "where no value is to come of it, write TRY_CAST instead of CAST",
            ),
            None => Self::Tables(error),
        }
    }
}

impl LayerError for QueryError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Tables(_) => ErrorKind::Store,
            Self::UnknownColumn { .. }
            | Self::Condition { .. }
            | Self::Sql { .. }
            | Self::Question { .. }
            | Self::NotAQuestion { .. }
            | Self::Overflow { .. } => ErrorKind::Question,
            Self::UnequalGrids { .. } | Self::Unlike(_) => ErrorKind::Unanswerable,
            Self::NothingSelected { .. } => ErrorKind::NothingSelected,
            Self::Message(_) | Self::Foreign { .. } | Self::Unfinished { .. } => ErrorKind::Argument,
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }

    fn remedy(&self) -> Option<Remedy> {
        Some(match self {
            Self::UnknownColumn { .. } => Remedy::of(
                "text is quoted with '…', names of columns with nothing or \"…\"; the columns: {}",
                [CommandName::Columns.here()],
            ),
            Self::Sql { .. } => "the tables are `steps`, `heads` and `text`; an example: \
                 \"SELECT token, avg(entropy) FROM heads GROUP BY token\""
                .into(),
            Self::Condition { remedy, .. } | Self::Question { remedy, .. } | Self::NothingSelected { remedy, .. } => {
                remedy.clone()
            }
            Self::UnequalGrids { .. } => Remedy::of(
                "select maps of one grid, such as {}",
                [OptionName::Where.is("frames = 15 AND height = 30 AND width = 53")],
            ),
            Self::Overflow { .. } => "compute with floats: CAST(column AS DOUBLE)".into(),
            Self::Tables(_) => {
                Remedy::of("{} names the file that cannot be read, if it is one", [CommandName::Verify.here()])
            }
            Self::Store(error) => return error.remedy(),
            Self::Unlike(_)
            | Self::Cancelled
            | Self::Message(_)
            | Self::NotAQuestion { .. }
            | Self::Foreign { .. }
            | Self::Unfinished { .. } => {
                return None;
            }
        })
    }
}

impl QueryError {
    pub(super) fn question(found: impl Into<String>, remedy: impl Into<Remedy>) -> Self {
        Self::Question { found: found.into(), remedy: remedy.into() }
    }

    /// For SQL that polars does not get to see.
    pub(super) fn sql(found: impl Into<String>) -> Self {
        Self::Sql { found: found.into(), source: None }
    }

    /// For a column that is not among `known`.
    pub(super) fn unknown_column<'a>(column: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let near = near(column, known).into_iter().take(4).map(str::to_owned).collect();
        Self::UnknownColumn { column: column.to_owned(), near }
    }
}

/// What polars answers; an error where it panics, as it does over expressions and types that it was built without.
pub(crate) fn caught<T>(ask: impl FnOnce() -> PolarsResult<T>) -> PolarsResult<T> {
    catch_unwind(AssertUnwindSafe(ask)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let found = format!("polars cannot do this: {}", said.unwrap_or("it does not say why"));
        Err(PolarsError::InvalidOperation(found.into()))
    })
}

fn near_list(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; near it: {}", near.join(", ")) }
}

/// The first line of what polars says, without what is for its own developers.
pub(super) fn plain(message: &str) -> String {
    let line = message.lines().next().unwrap_or(message).trim_end_matches([':', ' ']);
    // What follows is its parser's inner representation.
    let shown: String = line.chars().take(MESSAGE_CHARS).collect();
    if shown.len() < line.len() { shown + "…" } else { shown }
}

/// The first few names, and how many more there are.
pub(super) fn few<'a, Name: AsRef<str> + 'a>(
    names: impl IntoIterator<Item = &'a Name, IntoIter: ExactSizeIterator>,
) -> String {
    let mut names = names.into_iter();
    let shown: Vec<&str> = names.by_ref().take(3).map(AsRef::as_ref).collect();
    match names.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
