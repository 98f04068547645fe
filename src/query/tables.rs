//! Questions that the tables answer by themselves: `list` and `sql`.

use polars::prelude::{
    Column, DataFrame, DataType, Expr, IdxSize, IntoLazy, JoinArgs, JoinType, LazyFrame, MaintainOrderJoin, NULL,
    PlSmallStr, PolarsError, Schema, col, lit,
};
use polars::sql::SQLContext;
use serde::{Deserialize, Serialize};

use super::answer::{Answer, AnswerKind, Arrange, Sort, check_distinct, sorted};
use super::by_parts::by_parts;
use super::catalog::{BOTH, Catalog, HEADS, SEED_DIGITS, STEP_KEY, STEPS, TEXT, type_name};
use super::dialect::{aliases, first_word, for_polars, words};
use super::error::{QueryError, caught, plain};
use super::exact::{exact_plan, filtered, overflow};
use super::filter::{Conditions, Filter, PLACE};
use super::merge::{Assembly, Reduced};
use super::plan::{Ending, Plan};
use super::selection::{join, whats_there};
use super::unknown::unknown_groups;
use crate::remedy::{Note, OptionName, Remedy};
use crate::store::{Snapshot, Store};

/// A table of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum TableName {
    /// One row for each step.
    #[default]
    Steps,
    /// One row for each map.
    Heads,
}

/// A question for rows of a table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct List {
    /// The table.
    pub table: TableName,
    /// The rows: of `steps`, those with at least one map that matches.
    pub filter: Filter,
    /// Order and number of the rows, and their columns, which are of either table; if none are named, all of `table`.
    pub arrange: Arrange,
}

impl List {
    /// What will be done to answer it on a state of a store: there are no tasks.
    ///
    /// # Errors
    /// If a column is not known, or the tables cannot be read.
    pub fn plan(&self, snapshot: &Snapshot) -> Result<Plan, QueryError> {
        let _ = self.frame(snapshot)?;
        Ok(Plan::of_table(snapshot, self.clone()))
    }

    fn frame(&self, snapshot: &Snapshot) -> Result<LazyFrame, QueryError> {
        let own = match self.table {
            TableName::Steps => &*STEPS,
            TableName::Heads => &*HEADS,
        };
        let available = match self.table {
            TableName::Steps => &*STEPS,
            TableName::Heads => &*BOTH,
        };
        let columns: Vec<&str> = match &self.arrange.columns {
            Some(columns) => columns.iter().map(String::as_str).collect(),
            None => own.iter_names().map(PlSmallStr::as_str).collect(),
        };
        check_distinct(columns.iter().copied())?;
        let sorted_by = self.arrange.sort.iter().map(|sort| sort.column.as_str());
        let mut asked = columns.iter().copied().chain(sorted_by.clone());
        if let Some(unknown) = asked.find(|name| !available.contains(name)) {
            if HEADS.contains(unknown) {
                let found = format!("`{unknown}` is a column of `heads`; rows of `steps` have none");
                return Err(QueryError::question(
                    found,
                    Remedy::of("list rows of heads with {}", [OptionName::Table.is("heads")]),
                ));
            }
            return Err(QueryError::unknown_column(unknown, available.iter_names().map(PlSmallStr::as_str)));
        }
        let conditions = self.filter.conditions()?;
        let catalog = Catalog::open(snapshot)?;
        let mut rows = match self.table {
            TableName::Steps => Self::steps(&conditions, &catalog)?,
            TableName::Heads => {
                let needed: Vec<&str> = columns.iter().copied().chain(sorted_by).collect();
                Self::heads(&conditions, &catalog, &needed)?
            }
        };
        if !self.arrange.sort.is_empty() {
            rows = sorted(rows, &self.arrange.sort, &BOTH);
        }
        if let Some(limit) = self.arrange.limit {
            rows = rows.limit(IdxSize::try_from(limit).unwrap_or(IdxSize::MAX));
        }
        let as_stored = |name: &str| match name {
            "seed" => col(name).cast(DataType::Decimal(SEED_DIGITS, 0)),
            _ => col(name),
        };
        Ok(rows.select(columns.into_iter().map(as_stored).collect::<Vec<Expr>>()))
    }

    fn steps(conditions: &Conditions, catalog: &Catalog) -> Result<LazyFrame, QueryError> {
        let steps = filtered(catalog.steps()?, conditions.of_steps());
        if !conditions.asks_maps() {
            return Ok(steps);
        }
        let mut heads = filtered(catalog.heads()?, conditions.of_heads());
        if let Some(condition) = conditions.of_both() {
            heads = filtered(join(heads, steps.clone()), Some(condition));
        }
        let key: Vec<Expr> = STEP_KEY.into_iter().map(col).collect();
        let arguments = JoinArgs { maintain_order: MaintainOrderJoin::Left, ..JoinArgs::new(JoinType::Semi) };
        Ok(steps.join(heads, key.clone(), key, arguments))
    }

    fn heads(conditions: &Conditions, catalog: &Catalog, needed: &[&str]) -> Result<LazyFrame, QueryError> {
        let heads = filtered(catalog.heads()?, conditions.of_heads());
        let asked_of_steps = conditions.steps_columns();
        if needed.iter().copied().chain(asked_of_steps).all(|name| HEADS.contains(name)) {
            return Ok(filtered(heads, conditions.of_steps()));
        }
        let steps = filtered(catalog.steps()?, conditions.of_steps());
        Ok(filtered(join(heads, steps), conditions.of_both()))
    }

    /// What answering will do, as polars tells it.
    ///
    /// # Errors
    /// If a column is not known, or the tables cannot be read.
    pub fn explain(&self, store: &Store) -> Result<String, QueryError> {
        Ok(store.of_one_state(|snapshot| -> Result<_, QueryError> { Ok(self.frame(snapshot)?.explain(true)?) })?.0
            + "\n")
    }

    /// The rows.
    ///
    /// # Errors
    /// As [`explain`](Self::explain).
    pub fn run(&self, store: &Store) -> Result<Answer, QueryError> {
        store.of_one_state(|snapshot| self.rows(snapshot)).map(|(answer, _)| answer)
    }

    fn rows(&self, snapshot: &Snapshot) -> Result<Answer, QueryError> {
        let frame = self.frame(snapshot)?;
        let table = caught(|| frame.collect())?;
        let keys: &[&str] = match self.table {
            TableName::Steps => &STEP_KEY,
            TableName::Heads => &[STEP_KEY, PLACE].concat(),
        };
        let has_all = keys.iter().all(|key| table.get_column_index(key).is_some());
        let mut answer = Answer::of_table(AnswerKind::Rows, table, if has_all { keys } else { &[] });
        if answer.table.height() == 0 && self.arrange.limit != Some(0) {
            let asked = self.filter.text().map(|text| format!(" matches `{text}`")).unwrap_or_default();
            let hints = self.filter.several_hint().into_iter().chain([whats_there(&Catalog::open(snapshot)?)?]);
            answer.notes.push(format!("no row{asked}; {}", hints.collect::<Vec<_>>().join("; ")).into());
        }
        Ok(answer)
    }
}

/// Name, type and table of every column, as a table.
///
/// # Errors
/// Never, in practice.
pub fn columns() -> Result<Answer, QueryError> {
    let rows: Vec<(&str, &str, String)> = [("steps", &*STEPS), ("heads", &*HEADS), ("text", &*TEXT)]
        .into_iter()
        .flat_map(|(table, schema)| schema.iter().map(move |(name, kind)| (table, name.as_str(), type_name(kind))))
        .collect();
    let column = |name: &'static str, values: Vec<String>| Column::new(PlSmallStr::from_static(name), values);
    let table = DataFrame::new(
        rows.len(),
        vec![
            column("table", rows.iter().map(|row| row.0.to_owned()).collect()),
            column("column", rows.iter().map(|row| row.1.to_owned()).collect()),
            column("type", rows.iter().map(|row| row.2.clone()).collect()),
        ],
    )?;
    Ok(Answer::of_table(AnswerKind::Rows, table, &["table", "column"]))
}

/// Name and type of the columns of one table.
fn described(table: &str) -> Result<Answer, QueryError> {
    if !["steps", "heads", "text"].contains(&table) {
        return Err(QueryError::sql(format!("there is no table `{table}`")));
    }
    let rows = columns()?.table.lazy().filter(col("table").eq(lit(table))).select([col("column"), col("type")]);
    Ok(Answer::of_table(AnswerKind::Rows, rows.collect()?, &["column"]))
}

/// A SQL statement over the tables `steps`, `heads` and `text`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sql {
    /// `SELECT …`, in the dialect of Polars.
    pub statement: String,
    /// Order, number and columns of the rows, beside what the statement says.
    #[serde(default)]
    pub arrange: Arrange,
}

/// Digits of the longest decimal there is.
const LONGEST_DECIMAL: usize = 38;

/// How statements begin that only read.
const READING: [&str; 6] = ["SELECT", "WITH", "FROM", "SHOW", "EXPLAIN", "("];

/// How statements begin that ask for a table's columns.
const DESCRIBING: [&str; 2] = ["DESCRIBE", "DESC"];

impl Sql {
    /// Of a statement.
    #[must_use]
    pub fn new(statement: impl Into<String>) -> Self {
        Self { statement: statement.into(), arrange: Arrange::default() }
    }

    /// What will be done to answer it on a state of a store: there are no tasks.
    ///
    /// # Errors
    /// If the statement cannot be run, or the tables cannot be read.
    pub fn plan(&self, snapshot: &Snapshot) -> Result<Plan, QueryError> {
        if self.describes().is_none() {
            let _ = self.frame(snapshot)?;
        }
        Ok(Plan::of_table(snapshot, self.clone()))
    }

    /// The table whose columns it asks for, if it does.
    fn describes(&self) -> Option<String> {
        match &words(&self.statement)[..] {
            [first, table] if DESCRIBING.contains(&first.as_str()) => Some(table.to_lowercase()),
            _ => None,
        }
    }

    fn frame(&self, snapshot: &Snapshot) -> Result<LazyFrame, QueryError> {
        let statement = self.statement.as_str();
        let first = first_word(statement);
        if first.as_deref().is_none_or(|first| !READING.contains(&first)) {
            let first = statement.split_whitespace().next().unwrap_or("nothing");
            let found = format!("it begins with `{first}`; the store is only read, with SELECT");
            return Err(QueryError::sql(found));
        }
        let catalog = Catalog::open(snapshot)?;
        let mut context = SQLContext::new();
        context.register("steps", without_nan(catalog.steps()?, &STEPS));
        if first.as_deref() == Some("SHOW") || statement.to_lowercase().contains("heads") {
            context.register("heads", without_nan(catalog.heads()?, &HEADS));
        }
        if first.as_deref() == Some("SHOW") || statement.to_lowercase().contains("text") {
            context.register("text", without_nan(catalog.text()?, &TEXT));
        }
        let statement = for_polars(statement).map_err(QueryError::sql)?;
        let plan = caught(|| context.execute(&statement).and_then(|frame| exact_plan(frame.logical_plan)));
        plan.map(LazyFrame::from).map_err(|error| explain_sql(&error))
    }

    /// What answering will do, as polars tells it.
    ///
    /// # Errors
    /// If the statement cannot be run, or the tables cannot be read.
    pub fn explain(&self, store: &Store) -> Result<String, QueryError> {
        let explain = |snapshot: &Snapshot| self.frame(snapshot)?.explain(true).map_err(|error| explain_sql(&error));
        Ok(store.of_one_state(explain)?.0 + "\n")
    }

    /// Its rows.
    ///
    /// # Errors
    /// As [`explain`](Self::explain).
    pub fn run(&self, store: &Store) -> Result<Answer, QueryError> {
        store.of_one_state(|snapshot| self.rows(snapshot)).map(|(answer, _)| answer)
    }

    fn rows(&self, snapshot: &Snapshot) -> Result<Answer, QueryError> {
        if let Some(table) = self.describes() {
            return described(&table)?.arrange(&self.arrange);
        }
        let plan = self.frame(snapshot)?;
        let mut notes = caught(|| unknown_groups(&plan.logical_plan)).map_err(|error| explain_sql(&error))?;
        let rows = caught(|| LazyFrame::from(by_parts(plan.logical_plan)).collect());
        let mut table = with_decimals(rows.map_err(|error| explain_sql(&error))?)?;
        let said = words(&self.statement);
        let says = |word: &str| said.iter().any(|said| said == word);
        for (lower, written) in aliases(&self.statement) {
            let _ = table.rename(&lower, PlSmallStr::from_string(written));
        }
        if says("GROUP") && !says("ORDER") {
            // Groups come in any order; the same question should have the same answer.
            let by: Vec<Sort> = table
                .columns()
                .iter()
                .filter(|column| !column.dtype().is_nested())
                .map(|column| Sort { column: column.name().to_string(), descending: false })
                .collect();
            let schema = table.schema().clone();
            table = sorted(table.lazy(), &by, &schema).collect()?;
            if says("LIMIT") {
                notes.push("LIMIT without ORDER BY keeps any groups, others each time".into());
            }
        }
        let answer = Answer::of_table(AnswerKind::Rows, table, &[]);
        Answer { notes: notes.into_iter().map(Note::from).collect(), ..answer }.arrange(&self.arrange)
    }
}

impl Ending for List {
    fn begin<'a>(&'a self, plan: &'a Plan) -> Box<dyn Assembly + 'a> {
        Box::new(OfTables(|| self.rows(&plan.snapshot)))
    }

    fn explain(&self, _: &Plan) -> Vec<String> {
        vec!["read the tables".into()]
    }
}

impl Ending for Sql {
    fn begin<'a>(&'a self, plan: &'a Plan) -> Box<dyn Assembly + 'a> {
        Box::new(OfTables(|| self.rows(&plan.snapshot)))
    }

    fn explain(&self, _: &Plan) -> Vec<String> {
        vec!["read the tables".into()]
    }
}

/// An answer for which no map is reduced.
struct OfTables<Rows>(Rows);

impl<Rows: FnOnce() -> Result<Answer, QueryError> + Send> Assembly for OfTables<Rows> {
    fn take(&mut self, _: Vec<Reduced>) -> Result<(), QueryError> {
        Ok(())
    }

    fn answer(self: Box<Self>) -> Result<Answer, QueryError> {
        self.0()
    }
}

/// A table with NaN, which stands for undefined statistics, as null, as `--where` has it.
fn without_nan(rows: LazyFrame, schema: &Schema) -> LazyFrame {
    let floats = schema.iter().filter(|(_, kind)| **kind == DataType::Float64);
    let known: Vec<Expr> = floats.map(|(name, _)| col(name.clone()).fill_nan(lit(NULL))).collect();
    rows.with_columns(known)
}

/// The table with wide integers as decimals, which every format has, and counts as integers of 64 bits.
fn with_decimals(mut table: DataFrame) -> Result<DataFrame, QueryError> {
    let counts: Vec<Column> =
        table.columns().iter().filter(|column| column.dtype() == &DataType::UInt32).cloned().collect();
    for column in counts {
        table.with_column(column.strict_cast(&DataType::Int64)?)?;
    }
    let wide: Vec<Column> =
        table.columns().iter().filter(|column| column.dtype() == &DataType::Int128).cloned().collect();
    for column in wide {
        table.with_column(column.strict_cast(&DataType::Decimal(LONGEST_DECIMAL, 0))?)?;
    }
    Ok(table)
}

/// What polars says of a HAVING that asks of single rows.
const LIST_OF_CONDITIONS: &str = "cannot cast List type (inner: 'Boolean'";

/// The only table that has a column, the columns by which it is joined, and the other one.
fn table_of(column: &str) -> Option<(&'static str, &'static str, &'static str)> {
    match [&STEPS, &HEADS, &TEXT].map(|table| table.contains(column)) {
        [true, false, _] => Some(("steps", "video_id, token, step", "heads")),
        [false, true, _] => Some(("heads", "video_id, token, step", "steps")),
        [false, false, true] => Some(("text", "video_id, call, step", "steps")),
        _ => None,
    }
}

/// Polars' complaint about a statement, with the columns near an unknown one.
fn explain_sql(error: &PolarsError) -> QueryError {
    let refused = |found: String| QueryError::Sql { found, source: Some(error.clone()) };
    match error {
        error if overflow(error).is_some() => error.clone().into(),
        PolarsError::IO { .. } | PolarsError::ComputeError(_) => QueryError::Tables(error.clone()),
        PolarsError::ColumnNotFound(message) => {
            let name = message.split(['"', '\'', '`']).nth(1).unwrap_or(message);
            match table_of(name) {
                Some((own, by, other)) => {
                    refused(format!("`{name}` is a column of `{own}`; add JOIN {own} USING ({by}) to FROM {other}"))
                }
                None => QueryError::unknown_column(name, BOTH.iter_names().map(PlSmallStr::as_str)),
            }
        }
        PolarsError::Duplicate(_) => {
            refused("two columns of the result have the same name; rename one with AS".to_owned())
        }
        other if other.to_string().contains(LIST_OF_CONDITIONS) => refused(
            "HAVING compares aggregates, such as avg(gini) > 0.5; conditions on what is grouped by go into WHERE"
                .to_owned(),
        ),
        other => refused(plain(&other.to_string())),
    }
}
