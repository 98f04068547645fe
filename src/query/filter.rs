//! `--where`: a SQL condition over the columns of both tables, and which maps it selects.
//!
//! A condition is cut at its ANDs. Each piece is asked as early as it can be: of rows of `steps`, of places (block,
//! head, token position) in a step array, or of rows of `heads`.

use std::collections::BTreeSet;

use polars::prelude::{DataFrame, DataType, Expr, IntoLazy, NULL, PlSmallStr, PolarsError, col, lit};
use polars::sql::sql_expr;
use unicode_normalization::UnicodeNormalization;

use super::catalog::{BOTH, HEADS, STEPS, type_name};
use super::dialect::for_polars;
use super::error::{QueryError, caught, plain};
use super::exact::{conjuncts, exact};
use crate::remedy::{CommandName, OptionName, Remedy};

/// Columns that say where in a step array a map is.
pub(super) const PLACE: [&str; 3] = ["token_index", "block", "head"];

/// Which maps a question is about.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    text: Option<String>,
    /// Names that are asked for, each with its column.
    names: Vec<(String, String)>,
    conditions: Vec<Condition>,
}

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

    /// Reads a SQL condition (Polars SQL), such as `token = 'flower' AND step < 10 AND entropy < 6`.
    ///
    /// A statistic that is undefined (NaN in the tables) is null here: no comparison with it is true.
    ///
    /// # Errors
    /// If it cannot be parsed, names an unknown column, compares what cannot be compared, or is no condition.
    pub fn parse(sql: &str) -> Result<Self, QueryError> {
        let refused = |found: String, remedy| QueryError::Condition { condition: sql.to_owned(), found, remedy };
        let failed = |found: String| {
            let example = "token IN ('flower', 'tree') AND step < 10 AND block BETWEEN 10 AND 20 AND entropy < 6";
            refused(found, Remedy::of("an example: {}", [OptionName::Where.is(example)]))
        };
        let readable = for_polars(sql).map_err(failed)?;
        let whole = sql_expr(&readable).map_err(|error| failed(plain(&error.to_string())))?;
        let mut pieces = Vec::new();
        conjuncts(whole, &mut pieces);
        if pieces.iter().flat_map(IntoIterator::into_iter).any(|expr| matches!(expr, Expr::SubPlan(..))) {
            let remedy = Remedy::of("{} takes whole statements", [CommandName::Sql.here()]);
            return Err(refused("it has a SELECT in it".to_owned(), remedy));
        }
        if pieces.iter().flat_map(IntoIterator::into_iter).any(is_aggregate) {
            let remedy = Remedy::of("compute that with {} and put in the number", [CommandName::Sql.here()]);
            return Err(refused("it has an aggregate such as avg()".to_owned(), remedy));
        }
        let mut conditions: Vec<Condition> = pieces.into_iter().map(Condition::new).collect();
        let unknown = conditions.iter().flat_map(|condition| &condition.columns).find(|name| !BOTH.contains(name));
        if let Some(column) = unknown {
            return Err(QueryError::unknown_column(column, BOTH.iter_names().map(PlSmallStr::as_str)));
        }
        for condition in &mut conditions {
            let exact = caught(|| exact(condition.expr.clone(), &BOTH));
            condition.expr = exact.map_err(|error| failed(condition.typed(&error)))?;
            condition.check().map_err(failed)?;
        }
        Ok(Self { text: Some(sql.to_owned()), names: Vec::new(), conditions })
    }

    /// The same, and `column` equal to `value`, however its characters are composed.
    #[must_use]
    pub fn and_text(mut self, column: &str, value: &str) -> Self {
        self.names.push((column.to_owned(), value.to_owned()));
        let spellings: BTreeSet<String> =
            [value.to_owned(), value.nfc().collect(), value.nfd().collect()].into_iter().collect();
        let is_one = spellings.into_iter().map(|spelling| col(column).eq(lit(spelling))).reduce(Expr::or);
        let is_one = is_one.unwrap_or_else(|| col(column).eq(lit(value)));
        self.and(is_one, format!("{column} = '{}'", value.replace('\'', "''")))
    }

    /// The same, and `column` equal to `value`.
    #[must_use]
    pub fn and_int(self, column: &str, value: i64) -> Self {
        self.and(col(column).eq(lit(value)), format!("{column} = {value}"))
    }

    fn and(mut self, expr: Expr, text: String) -> Self {
        self.conditions.push(Condition::new(expr));
        self.text = Some(match self.text {
            Some(before) => format!("({before}) AND {text}"),
            None => text,
        });
        self
    }

    /// The SQL text; `None`: all maps.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// What to try where nothing is found, if a name that is asked for looks like several.
    pub(super) fn several_hint(&self) -> Option<String> {
        let (column, name) = self.names.iter().find(|(_, name)| name.contains(['*', '%', '?', ',']))?;
        let several = if name.contains(',') {
            let quoted = name.split(',').map(|one| format!("'{}'", one.trim().replace('\'', "''")));
            format!("{column} IN ({})", quoted.collect::<Vec<_>>().join(", "))
        } else {
            format!("{column} LIKE '{}'", name.replace('\'', "''").replace('*', "%").replace('?', "_"))
        };
        Some(format!("`{name}` is taken for one name; a condition selects several: {several}"))
    }

    /// Columns of `steps` that it asks about.
    pub(super) fn steps_columns(&self) -> impl Iterator<Item = &str> {
        self.conditions
            .iter()
            .flat_map(|condition| &condition.columns)
            .map(String::as_str)
            .filter(|name| STEPS.contains(name))
    }

    /// What it asks of rows of `steps` alone.
    pub(super) fn of_steps(&self) -> Option<Expr> {
        self.joined(|condition| condition.reach() == Reach::Steps)
    }

    /// What it asks of maps, by their places alone; `None` if nothing is asked, or more than that.
    pub(super) fn of_places(&self) -> Option<Expr> {
        if self.asks_statistics() { None } else { self.joined(|condition| condition.reach() == Reach::Places) }
    }

    /// What it asks of rows of `heads` alone.
    pub(super) fn of_heads(&self) -> Option<Expr> {
        let heads_alone = |condition: &Condition| {
            condition.reach() != Reach::Steps && condition.columns.iter().all(|name| HEADS.contains(name))
        };
        self.joined(heads_alone)
    }

    /// What it asks of rows of `heads` together with those of `steps`.
    pub(super) fn of_both(&self) -> Option<Expr> {
        let mixed = |condition: &Condition| {
            condition.reach() == Reach::Statistics && !condition.columns.iter().all(|name| HEADS.contains(name))
        };
        self.joined(mixed)
    }

    /// Whether rows of `heads` must be looked at.
    pub(super) fn asks_statistics(&self) -> bool {
        self.conditions.iter().any(|condition| condition.reach() == Reach::Statistics)
    }

    /// Whether it tells maps of one step apart.
    pub(super) fn asks_maps(&self) -> bool {
        self.conditions.iter().any(|condition| condition.reach() != Reach::Steps)
    }

    fn joined(&self, wanted: impl Fn(&Condition) -> bool) -> Option<Expr> {
        self.conditions
            .iter()
            .filter(|condition| wanted(condition))
            .map(|condition| condition.expr.clone())
            .reduce(Expr::and)
    }
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

    /// Evaluates it on empty tables: that finds what cannot be compared.
    fn check(&self) -> Result<(), String> {
        let empty = DataFrame::empty_with_schema(&BOTH).lazy();
        let answer = caught(|| empty.select([self.expr.clone().alias("answer")]).collect());
        let answer = answer.map_err(|error| self.typed(&error))?;
        match answer.dtypes().first() {
            Some(DataType::Boolean) => Ok(()),
            Some(other) => Err(format!("it is not true or false but {} ({})", type_name(other), self.types())),
            None => Err("it is empty".into()),
        }
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
        Filter::parse(sql).unwrap().conditions.iter().map(Condition::reach).collect()
    }

    #[test]
    fn each_piece_is_asked_where_it_can_be_answered() {
        assert_eq!(reaches("token IN ('flower', 'tree') AND step < 10"), [Reach::Steps, Reach::Steps]);
        assert_eq!(reaches("block BETWEEN 10 AND 20 AND token = 'x'"), [Reach::Places, Reach::Places, Reach::Steps]);
        assert_eq!(reaches("entropy < 6 OR step = 3"), [Reach::Statistics]);
        assert!(!Filter::parse("seed = 3").unwrap().asks_maps());
        assert!(Filter::parse("top5 > 0.5").unwrap().asks_statistics());
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
