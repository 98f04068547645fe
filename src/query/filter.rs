//! `--where`: a SQL condition over the columns of both tables, and which maps it selects.
//!
//! A condition is cut at its ANDs. Each piece is asked as early as it can be: of rows of `steps`, of places (block,
//! head, token position) in a step array, or of rows of `heads`.

use std::collections::BTreeSet;

use polars::prelude::{DataFrame, DataType, Expr, IntoLazy, NULL, PlSmallStr, PolarsError, col, lit};
use polars::sql::sql_expr;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

use super::catalog::{BOTH, HEADS, STEPS, type_name};
use super::dialect::for_polars;
use super::error::{QueryError, caught, plain};
use super::exact::{conjuncts, exact};
use crate::remedy::{CommandName, OptionName, Remedy};

/// Columns that say where in a step array a map is.
pub(super) const PLACE: [&str; 3] = ["token_index", "block", "head"];

/// Which maps a question is about: those of which all that is given here is true.
///
/// As JSON: `{"where": "step < 10 AND entropy < 6", "token": "flower", "block": 12}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// A SQL condition (dialect of Polars) over the columns of both tables.
    ///
    /// A statistic that is undefined (NaN in the tables) is null here: no comparison with it is true.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// This video, however the characters of its id are composed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video: Option<String>,
    /// This word, however its characters are composed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// This denoising step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<i64>,
    /// This block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<i64>,
    /// This head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<i64>,
}

/// What a filter asks, cut at its ANDs, in polars' words.
#[derive(Debug, Clone)]
pub(super) struct Conditions(Vec<Condition>);

#[derive(Debug, Clone)]
struct Condition {
    expr: Expr,
    columns: Vec<String>,
}

impl Filter {
    /// All maps.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Reads a SQL condition, such as `token = 'flower' AND step < 10 AND entropy < 6`.
    ///
    /// # Errors
    /// If it cannot be parsed, names an unknown column, compares what cannot be compared, or is no condition.
    pub fn parse(sql: &str) -> Result<Self, QueryError> {
        let filter = Self { condition: Some(sql.to_owned()), ..Self::default() };
        filter.check()?;
        Ok(filter)
    }

    /// Whether the condition can be used, as a question would find when it is asked.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn check(&self) -> Result<(), QueryError> {
        self.conditions().map(drop)
    }

    /// Whether it leaves anything out, as far as it says.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn conditions(&self) -> Result<Conditions, QueryError> {
        let mut conditions = self.condition.as_deref().map_or_else(|| Ok(Vec::new()), parsed)?;
        conditions.extend(self.names().map(|(column, name)| {
            let is_one = spellings(name).into_iter().map(|spelling| col(column).eq(lit(spelling))).reduce(Expr::or);
            Condition::new(is_one.unwrap_or_else(|| lit(false)))
        }));
        conditions.extend(self.numbers().map(|(column, number)| Condition::new(col(column).eq(lit(number)))));
        Ok(Conditions(conditions))
    }

    /// The videos that it is about, if it names one: each spelling of its id.
    pub(super) fn videos(&self) -> BTreeSet<String> {
        self.video.as_deref().map(spellings).unwrap_or_default()
    }

    /// All that it asks, as SQL; `None`: nothing.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let names = self.names().map(|(column, name)| format!("{column} = '{}'", name.replace('\'', "''")));
        let named: Vec<String> =
            names.chain(self.numbers().map(|(column, number)| format!("{column} = {number}"))).collect();
        let condition = self.condition.as_ref();
        let condition = condition.map(|text| if named.is_empty() { text.clone() } else { format!("({text})") });
        let all: Vec<String> = condition.into_iter().chain(named).collect();
        (!all.is_empty()).then(|| all.join(" AND "))
    }

    /// Names that are asked for, each with its column.
    fn names(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let names = [("video_id", &self.video), ("token", &self.token)];
        names.into_iter().filter_map(|(column, name)| Some((column, name.as_deref()?)))
    }

    /// Numbers that are asked for, each with its column.
    fn numbers(&self) -> impl Iterator<Item = (&'static str, i64)> {
        let numbers = [("step", self.step), ("block", self.block), ("head", self.head)];
        numbers.into_iter().filter_map(|(column, number)| Some((column, number?)))
    }

    /// What to try where nothing is found, if a name that is asked for looks like several.
    pub(super) fn several_hint(&self) -> Option<String> {
        let (column, name) = self.names().find(|(_, name)| name.contains(['*', '%', '?', ',']))?;
        let several = if name.contains(',') {
            let quoted = name.split(',').map(|one| format!("'{}'", one.trim().replace('\'', "''")));
            format!("{column} IN ({})", quoted.collect::<Vec<_>>().join(", "))
        } else {
            format!("{column} LIKE '{}'", name.replace('\'', "''").replace('*', "%").replace('?', "_"))
        };
        Some(format!("`{name}` is taken for one name; a condition selects several: {several}"))
    }
}

/// A name, however its characters are composed.
fn spellings(name: &str) -> BTreeSet<String> {
    BTreeSet::from([name.to_owned(), name.nfc().collect(), name.nfd().collect()])
}

impl Conditions {
    /// Columns of `steps` that are asked about.
    pub fn steps_columns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|condition| &condition.columns).map(String::as_str).filter(|name| STEPS.contains(name))
    }

    /// What is asked of rows of `steps` alone.
    pub fn of_steps(&self) -> Option<Expr> {
        self.joined(|condition| condition.reach() == Reach::Steps)
    }

    /// What is asked of maps, by their places alone; `None` if nothing is asked, or more than that.
    pub fn of_places(&self) -> Option<Expr> {
        if self.asks_statistics() { None } else { self.joined(|condition| condition.reach() == Reach::Places) }
    }

    /// What is asked of rows of `heads` alone.
    pub fn of_heads(&self) -> Option<Expr> {
        let heads_alone = |condition: &Condition| {
            condition.reach() != Reach::Steps && condition.columns.iter().all(|name| HEADS.contains(name))
        };
        self.joined(heads_alone)
    }

    /// What is asked of rows of `heads` together with those of `steps`.
    pub fn of_both(&self) -> Option<Expr> {
        let mixed = |condition: &Condition| {
            condition.reach() == Reach::Statistics && !condition.columns.iter().all(|name| HEADS.contains(name))
        };
        self.joined(mixed)
    }

    /// Whether rows of `heads` must be looked at.
    pub fn asks_statistics(&self) -> bool {
        self.0.iter().any(|condition| condition.reach() == Reach::Statistics)
    }

    /// Whether maps of one step are told apart.
    pub fn asks_maps(&self) -> bool {
        self.0.iter().any(|condition| condition.reach() != Reach::Steps)
    }

    fn joined(&self, wanted: impl Fn(&Condition) -> bool) -> Option<Expr> {
        self.0.iter().filter(|condition| wanted(condition)).map(|condition| condition.expr.clone()).reduce(Expr::and)
    }
}

/// A SQL condition, cut at its ANDs.
fn parsed(sql: &str) -> Result<Vec<Condition>, QueryError> {
    let refused = |found: String, source, remedy| {
        let condition = sql.to_owned();
        QueryError::Condition { condition, found, source, remedy }
    };
    let failed = |found: String, source| {
        let example = "token IN ('flower', 'tree') AND step < 10 AND block BETWEEN 10 AND 20 AND entropy < 6";
        refused(found, source, Remedy::of("an example: {}", [OptionName::Where.is(example)]))
    };
    let readable = for_polars(sql).map_err(|found| failed(found, None))?;
    let whole = sql_expr(&readable).map_err(|error| failed(plain(&error.to_string()), Some(error)))?;
    let mut pieces = Vec::new();
    conjuncts(whole, &mut pieces);
    if pieces.iter().flat_map(IntoIterator::into_iter).any(|expr| matches!(expr, Expr::SubPlan(..))) {
        let remedy = Remedy::of("{} takes whole statements", [CommandName::Sql.here()]);
        return Err(refused("it has a SELECT in it".to_owned(), None, remedy));
    }
    if pieces.iter().flat_map(IntoIterator::into_iter).any(is_aggregate) {
        let remedy = Remedy::of("compute that with {} and put in the number", [CommandName::Sql.here()]);
        return Err(refused("it has an aggregate such as avg()".to_owned(), None, remedy));
    }
    let mut conditions: Vec<Condition> = pieces.into_iter().map(Condition::new).collect();
    let unknown = conditions.iter().flat_map(|condition| &condition.columns).find(|name| !BOTH.contains(name));
    if let Some(column) = unknown {
        return Err(QueryError::unknown_column(column, BOTH.iter_names().map(PlSmallStr::as_str)));
    }
    let typed = |condition: &Condition, error: PolarsError| failed(condition.typed(&error), Some(error));
    for condition in &mut conditions {
        let exact = caught(|| exact(condition.expr.clone(), &BOTH));
        condition.expr = exact.map_err(|error| typed(condition, error))?;
        match condition.result().map_err(|error| typed(condition, error))? {
            Some(DataType::Boolean) => {}
            Some(other) => {
                let found = format!("it is not true or false but {} ({})", type_name(&other), condition.types());
                return Err(failed(found, None));
            }
            None => return Err(failed("it is empty".to_owned(), None)),
        }
    }
    Ok(conditions)
}

/// What must be looked at to decide a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The row of `steps`.
    Steps,
    /// Block, head and token position.
    Places,
    /// The row of `heads`.
    Statistics,
}

impl Condition {
    fn new(expr: Expr) -> Self {
        let columns = expr.clone().meta().root_names().into_iter().map(|name| name.to_string()).collect();
        // To polars NaN is the highest number, so that it would match `top5 > 0.5`.
        let expr = expr.map_expr(|expr| match &expr {
            Expr::Column(name) if BOTH.get(name) == Some(&DataType::Float64) => expr.fill_nan(lit(NULL)),
            _ => expr,
        });
        Self { expr, columns }
    }

    fn reach(&self) -> Reach {
        if self.columns.iter().all(|name| STEPS.contains(name)) {
            Reach::Steps
        } else if self.columns.iter().all(|name| PLACE.contains(&name.as_str())) {
            Reach::Places
        } else {
            Reach::Statistics
        }
    }

    /// The type of what comes of it on empty tables, which finds what cannot be compared.
    fn result(&self) -> Result<Option<DataType>, PolarsError> {
        let empty = DataFrame::empty_with_schema(&BOTH).lazy();
        let answer = caught(|| empty.select([self.expr.clone().alias("answer")]).collect())?;
        Ok(answer.dtypes().into_iter().next())
    }

    /// What polars says of it, with the types of its columns.
    fn typed(&self, error: &PolarsError) -> String {
        format!("{} ({})", plain(&error.to_string()), self.types())
    }

    /// The types of its columns, in words.
    fn types(&self) -> String {
        let typed = self.columns.iter().map(|name| match BOTH.get(name) {
            Some(kind) => format!("`{name}` is {}", type_name(kind)),
            None => format!("`{name}` is unknown"),
        });
        typed.collect::<Vec<_>>().join(", ")
    }
}

/// Whether an expression makes one value of many rows. (Lists of literals, as in IN, are an aggregate to polars too.)
fn is_aggregate(expr: &Expr) -> bool {
    match expr {
        Expr::Len => true,
        Expr::Agg(_) | Expr::Over { .. } => !expr.clone().meta().root_names().is_empty(),
        // Of no rows, a function of single rows has no values, and an aggregate has one.
        Expr::Function { .. } | Expr::AnonymousFunction { .. } if !expr.clone().meta().root_names().is_empty() => {
            let empty = DataFrame::empty_with_schema(&BOTH).lazy();
            empty.select([expr.clone().alias("value")]).collect().is_ok_and(|value| value.height() > 0)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reaches(sql: &str) -> Vec<Reach> {
        Filter::parse(sql).unwrap().conditions().unwrap().0.iter().map(Condition::reach).collect()
    }

    #[test]
    fn each_piece_is_asked_where_it_can_be_answered() {
        assert_eq!(reaches("token IN ('flower', 'tree') AND step < 10"), [Reach::Steps, Reach::Steps]);
        assert_eq!(reaches("block BETWEEN 10 AND 20 AND token = 'x'"), [Reach::Places, Reach::Places, Reach::Steps]);
        assert_eq!(reaches("entropy < 6 OR step = 3"), [Reach::Statistics]);
        let conditions = |sql: &str| Filter::parse(sql).unwrap().conditions().unwrap();
        assert!(!conditions("seed = 3").asks_maps());
        assert!(conditions("top5 > 0.5").asks_statistics());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |sql: &str| Filter::parse(sql).unwrap_err();
        let unknown = error("entropi < 6");
        assert!(
            matches!(&unknown, QueryError::UnknownColumn { column, near }
                if column == "entropi" && near[0] == "entropy"),
            "{unknown}"
        );
        assert!(error("step < 'abc'").to_string().contains("`step` is int32"), "{}", error("step < 'abc'"));
        assert!(error("step + 1").to_string().contains("not true or false"), "{}", error("step + 1"));
        assert!(matches!(error("step <"), QueryError::Condition { .. }));
        assert!(matches!(error("token = \"flower\""), QueryError::UnknownColumn { .. }));
        for aggregate in ["top5 > avg(top5)", "step < COUNT(*)", "gini > CORR(mean, gini)"] {
            assert!(error(aggregate).to_string().contains("aggregate"), "{aggregate}");
        }
        assert!(Filter::parse("ABS(centroid_y - 5.5) < 1 AND token LIKE 'c%' AND block IN (1, 2)").is_ok());
    }
}
