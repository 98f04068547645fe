//! Any question, as a value: what the command line parses into, what Python passes, and what a server would take as
//! JSON.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answer::Answer;
use super::average::Average;
use super::compare::Compare;
use super::error::QueryError;
use super::evolution::Evolution;
use super::explain::Explain;
use super::map::SpatialMap;
use super::plan::Plan;
use super::tables::{List, Sql};
use crate::progress::Progress;
use crate::store::{Snapshot, Store};
use crate::suggest::did_you_mean;

/// A question to a store.
///
/// As JSON it has its name under `question`, and its fields beside it; what is left out is as in its `Default`. What it
/// does not have is refused.
///
/// ```
/// use attnkit::query::{Average, Filter, Question};
///
/// let json = r#"{"question": "average", "filter": {"token": "flower", "where": "step < 10"}, "over": ["block"]}"#;
/// let Question::Average(average) = Question::from_json(json)? else { unreachable!() };
/// assert_eq!(average.filter.token.as_deref(), Some("flower"));
/// assert_eq!(average.reduction, Average::default().reduction);
/// let error = Question::from_json(r#"{"question": "average", "ower": []}"#).unwrap_err();
/// assert!(error.to_string().contains("unknown field `ower`"));
/// # Ok::<(), attnkit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "question", rename_all = "lowercase")]
pub enum Question {
    /// Rows of a table.
    List(List),
    /// What a SQL statement selects.
    Sql(Sql),
    /// Maps, averaged or otherwise reduced.
    Average(Average),
    /// Change through the denoising steps.
    Evolution(Evolution),
    /// One spatial map.
    Map(SpatialMap),
    /// Groups of maps, pair by pair.
    Compare(Compare),
}

/// What answering a question will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Explanation {
    /// What is read of arrays, and what becomes of it.
    Maps(Explain),
    /// What polars does with the tables, in its words.
    Tables {
        /// Its plan.
        tables: String,
    },
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Maps(explain) => explain.fmt(f),
            Self::Tables { tables } => f.write_str(tables),
        }
    }
}

impl Question {
    /// Names of the questions.
    pub const NAMES: [&'static str; 6] = ["list", "sql", "average", "evolution", "map", "compare"];

    /// Reads one.
    ///
    /// # Errors
    /// [`QueryError::NotAQuestion`] if it is no JSON object, no question of ours, or one with fields or values that it
    /// cannot have. Conditions are read when it is asked.
    pub fn from_json(json: &str) -> Result<Self, QueryError> {
        let refused = |found: String| QueryError::NotAQuestion { found };
        let mut fields = match serde_json::from_str(json) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return Err(refused("a question is a JSON object".to_owned())),
            Err(error) => return Err(refused(format!("a question is a JSON object: {error}"))),
        };
        let name = fields.remove("question");
        let fields = Value::Object(fields);
        match name.as_ref().and_then(Value::as_str) {
            Some("list") => read(fields).map(Self::List),
            Some("sql") => read(fields).map(Self::Sql),
            Some("average") => read(fields).map(Self::Average),
            Some("evolution") => read(fields).map(Self::Evolution),
            Some("map") => read(fields).map(Self::Map),
            Some("compare") => read(fields).map(Self::Compare),
            other => {
                let found = other.map_or_else(|| "nothing".to_owned(), |name| format!("`{name}`"));
                let near = other.map(|name| did_you_mean(name, Self::NAMES)).unwrap_or_default();
                Err(refused(format!("question: {found} is none of {}{near}", Self::NAMES.join(", "))))
            }
        }
    }

    /// Whether its condition can be used, as is found when it is asked.
    ///
    /// # Errors
    /// If it cannot.
    pub fn check(&self) -> Result<(), QueryError> {
        match self {
            Self::List(List { filter, .. })
            | Self::Average(Average { filter, .. })
            | Self::Evolution(Evolution { filter, .. })
            | Self::Map(SpatialMap { filter, .. })
            | Self::Compare(Compare { filter, .. }) => filter.check(),
            Self::Sql(_) => Ok(()),
        }
    }

    /// What will be done to answer it on a state of a store.
    ///
    /// # Errors
    /// If it cannot be answered on these maps, or the store cannot be read.
    pub fn plan(&self, snapshot: &Snapshot) -> Result<Plan, QueryError> {
        match self {
            Self::List(list) => list.plan(snapshot),
            Self::Sql(sql) => sql.plan(snapshot),
            Self::Average(average) => average.plan(snapshot),
            Self::Evolution(evolution) => evolution.plan(snapshot),
            Self::Map(map) => map.plan(snapshot),
            Self::Compare(compare) => compare.plan(snapshot),
        }
    }

    /// The answer of a store as it is now.
    ///
    /// # Errors
    /// As [`plan`](Self::plan), or if an array is damaged.
    pub fn run(&self, store: &Store, progress: &dyn Progress) -> Result<Answer, QueryError> {
        match self {
            Self::List(list) => list.run(store),
            Self::Sql(sql) => sql.run(store),
            Self::Average(average) => average.run(store, progress),
            Self::Evolution(evolution) => evolution.run(store, progress),
            Self::Map(map) => map.run(store, progress),
            Self::Compare(compare) => compare.run(store, progress),
        }
    }

    /// What answering will do.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub fn explain(&self, store: &Store) -> Result<Explanation, QueryError> {
        Ok(match self {
            Self::List(list) => Explanation::Tables { tables: list.explain(store)? },
            Self::Sql(sql) => Explanation::Tables { tables: sql.explain(store)? },
            Self::Average(average) => Explanation::Maps(average.explain(store)?),
            Self::Evolution(evolution) => Explanation::Maps(evolution.explain(store)?),
            Self::Map(map) => Explanation::Maps(map.explain(store)?),
            Self::Compare(compare) => Explanation::Maps(compare.explain(store)?),
        })
    }
}

/// A question's fields; of what is wrong with them, the name of the field is said.
fn read<T: DeserializeOwned>(fields: Value) -> Result<T, QueryError> {
    serde_path_to_error::deserialize(fields).map_err(|error| {
        let said = error.inner().to_string();
        // "unknown variant `wieght`, expected one of `prompt`, `weight`"
        let mut quoted = said.split('`').skip(1).step_by(2);
        let near = quoted.next().map(|name| did_you_mean(name, quoted)).unwrap_or_default();
        let field = error.path().iter().filter_map(|segment| match segment {
            serde_path_to_error::Segment::Map { key } => Some(format!("{key}: ")),
            _ => None,
        });
        let field = field.last().filter(|_| !said.starts_with("unknown field")).unwrap_or_default();
        QueryError::NotAQuestion { found: format!("{field}{said}{near}") }
    })
}
