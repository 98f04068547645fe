//! GROUP BY, and aggregates of all rows, a few parts of a table at a time. Polars' engine in memory reads all rows
//! before it groups them, which for ten million takes near a gigabyte; here what is kept of each few parts are the
//! sums, counts and extremes of its groups, and these are grouped again.
//!
//! Sums of floats are so added in another order than row by row: in the order of the parts, whatever the threads.

use std::sync::Arc;

use polars::lazy::dsl::{BooleanFunction, FunctionExpr};
use polars::prelude::{
    AggExpr, DataFrame, DataType, DslPlan, Expr, FileScanDsl, IntoLazy, LazyFrame, LazyGroupBy, NULL, PlSmallStr,
    PolarsResult, col, len, lit, when,
};
use polars_core::runtime::THREAD_POOL;
use rayon::prelude::*;

use super::scan::PartScan;

/// How many rows a group has on average, at least: of fewer, grouping twice would not pay.
const FEWEST: u64 = 4;
/// How columns of what is kept are called.
const KEPT: &str = "attnkit_kept_";

/// A plan, with those of its groups that can be put together of the groups of parts.
pub(super) fn by_parts(plan: DslPlan) -> DslPlan {
    if let Some(grouping) = Grouping::of(&plan) {
        // What fails of parts fails of all, and is told of all.
        let merged = grouping.merged(&plan).unwrap_or_default();
        return merged.unwrap_or(plan);
    }
    let below = |input: Arc<DslPlan>| Arc::new(by_parts(Arc::unwrap_or_clone(input)));
    match plan {
        DslPlan::Filter { input, predicate } => DslPlan::Filter { input: below(input), predicate },
        DslPlan::Select { input, expr, options } => DslPlan::Select { input: below(input), expr, options },
        DslPlan::HStack { input, exprs, options } => DslPlan::HStack { input: below(input), exprs, options },
        DslPlan::Slice { input, offset, len } => DslPlan::Slice { input: below(input), offset, len },
        DslPlan::Sort { input, by_column, slice, sort_options } => {
            DslPlan::Sort { input: below(input), by_column, slice, sort_options }
        }
        other => other,
    }
}

/// Groups of the rows of a scan; all of them are one group if there is no key.
struct Grouping<'a> {
    /// What is done with each row before.
    rows: &'a DslPlan,
    scan: &'a PartScan,
    keys: &'a [Expr],
    kept: Kept,
    /// Names of the keys.
    names: Vec<PlSmallStr>,
    aggs: Vec<Expr>,
    predicates: Vec<Expr>,
}

impl<'a> Grouping<'a> {
    /// `None` if the plan is none whose groups can be put together of those of parts.
    fn of(plan: &'a DslPlan) -> Option<Self> {
        let (input, keys, predicates, aggs) = match plan {
            DslPlan::GroupBy { input, keys, predicates, aggs, maintain_order: false, options, apply: None }
                if options.slice.is_none() =>
            {
                (input, &keys[..], &predicates[..], aggs)
            }
            DslPlan::Select { input, expr, .. } if expr.iter().all(is_aggregate) => (input, &[][..], &[][..], expr),
            _ => return None,
        };
        let scan = scan_below(input)?;
        let name = |key: &Expr| key.clone().meta().output_name().ok().filter(|_| is_of_rows(key) && has_columns(key));
        let names = keys.iter().map(name).collect::<Option<_>>()?;
        let mut kept = Kept { exprs: vec![len()], averaged: Vec::new() };
        let mut named = |expr: &Expr| Some(merged(expr, &mut kept)?.alias(expr.clone().meta().output_name().ok()?));
        let aggs = aggs.iter().map(&mut named).collect::<Option<_>>()?;
        let predicates = predicates.iter().map(|expr| merged(expr, &mut kept)).collect::<Option<_>>()?;
        Some(Self { rows: input, scan, keys, kept, names, aggs, predicates })
    }

    /// The plan whose rows are the groups of `plan`; `None` if it is better done as it is.
    fn merged(&self, plan: &DslPlan) -> PolarsResult<Option<DslPlan>> {
        let groups: Vec<LazyFrame> = self.scan.split()?.into_iter().map(|few| self.groups_of(few)).collect();
        let Some((first, others)) = groups.split_first().filter(|(_, others)| !others.is_empty()) else {
            return Ok(None);
        };
        let of_rows = LazyFrame::from(self.rows.clone()).collect_schema()?;
        for averaged in &self.kept.averaged {
            // Of others than numbers polars has its own idea.
            if !averaged.to_field(&of_rows)?.dtype().is_primitive_numeric() {
                return Ok(None);
            }
        }
        let schema = first.clone().collect_schema()?;
        let is_key_equal =
            |name: &PlSmallStr| schema.get(name).is_some_and(|kind| !kind.is_float() && !kind.is_nested());
        let same = self.plan_of(DataFrame::empty_with_schema(&schema)).collect_schema()?;
        let is_kept = |name: &PlSmallStr| name.starts_with(KEPT);
        if !self.names.iter().all(is_key_equal)
            || self.names.iter().any(is_kept)
            || *same != *LazyFrame::from(plan.clone()).collect_schema()?
        {
            return Ok(None);
        }
        let mut all = first.clone().collect()?;
        let rows: u64 = all.column(&kept_name(0))?.as_materialized_series().sum()?;
        if all.height() as u64 > (rows / FEWEST).max(1) {
            return Ok(None);
        }
        let others: PolarsResult<Vec<DataFrame>> =
            THREAD_POOL.install(|| others.par_iter().map(|few| few.clone().collect()).collect());
        for few in others? {
            all.vstack_mut_owned(few)?;
        }
        Ok(Some(self.plan_of(all).logical_plan))
    }

    /// The groups of a few parts.
    fn groups_of(&self, few: LazyFrame) -> LazyFrame {
        let kept =
            self.kept.exprs.iter().enumerate().map(|(at, expr)| expr.clone().alias(kept_name(at))).collect::<Vec<_>>();
        let rows = LazyFrame::from(with_scan(self.rows, few.logical_plan));
        if self.keys.is_empty() { rows.select(kept) } else { rows.group_by(self.keys).agg(kept) }
    }

    /// The groups of all, of those of each few.
    fn plan_of(&self, groups: DataFrame) -> LazyFrame {
        if self.keys.is_empty() {
            return groups.lazy().select(&self.aggs);
        }
        let keys: Vec<Expr> = self.names.iter().cloned().map(col).collect();
        let groups = groups.lazy().group_by(keys);
        self.predicates.iter().cloned().fold(groups, LazyGroupBy::having).agg(&self.aggs)
    }
}

/// What is kept of a group of a few parts.
struct Kept {
    /// The number of its rows first.
    exprs: Vec<Expr>,
    /// What means are taken of.
    averaged: Vec<Expr>,
}

fn kept_name(at: usize) -> PlSmallStr {
    PlSmallStr::from_string(format!("{KEPT}{at}"))
}

/// What an aggregate is of what is kept; `None` if it cannot be told of groups of parts.
fn merged(expr: &Expr, kept: &mut Kept) -> Option<Expr> {
    let mut keep = |expr: Expr| {
        let at = kept.exprs.iter().position(|kept| *kept == expr).unwrap_or_else(|| {
            kept.exprs.push(expr);
            kept.exprs.len() - 1
        });
        col(kept_name(at))
    };
    let of_rows = |input: &Expr| (is_of_rows(input) && has_columns(input)).then(|| input.clone());
    Some(match expr {
        Expr::Len => keep(len()).sum(),
        Expr::Agg(AggExpr::Sum(input)) => keep(of_rows(input)?.sum()).sum(),
        Expr::Agg(AggExpr::Mean(input)) => {
            let input = of_rows(input)?;
            kept.averaged.push(input.clone());
            let input = input.cast(DataType::Float64);
            let count = keep(input.clone().count()).sum();
            let mean = keep(input.sum()).sum() / count.clone().cast(DataType::Float64);
            when(count.gt(lit(0))).then(mean).otherwise(lit(NULL))
        }
        Expr::Agg(AggExpr::Count { input, include_nulls }) => {
            let input = Arc::new(of_rows(input)?);
            keep(Expr::Agg(AggExpr::Count { input, include_nulls: *include_nulls })).sum()
        }
        // A sum asks it, to be null if nothing is known.
        Expr::Function { input, function: FunctionExpr::NullCount } => match &input[..] {
            [input] => keep(of_rows(input)?.null_count()).sum(),
            _ => return None,
        },
        Expr::Agg(AggExpr::Min { input, propagate_nans }) => {
            let min = |input| Expr::Agg(AggExpr::Min { input: Arc::new(input), propagate_nans: *propagate_nans });
            min(keep(min(of_rows(input)?)))
        }
        Expr::Agg(AggExpr::Max { input, propagate_nans }) => {
            let max = |input| Expr::Agg(AggExpr::Max { input: Arc::new(input), propagate_nans: *propagate_nans });
            max(keep(max(of_rows(input)?)))
        }
        other => of_inputs(other, &mut |input| merged(input, kept))?,
    })
}

/// Whether a value of an expression is of one row alone, whatever other rows there are.
fn is_of_rows(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(_)) || of_inputs(expr, &mut |input| is_of_rows(input).then(|| input.clone())).is_some()
}

/// Whether it is something of all rows of a group.
fn is_aggregate(expr: &Expr) -> bool {
    expr.into_iter().any(|expr| matches!(expr, Expr::Len | Expr::Agg(_)))
}

/// Whether it is more than a constant, of which polars has one for all rows.
fn has_columns(expr: &Expr) -> bool {
    !expr.clone().meta().root_names().is_empty()
}

/// Whether it is one value, or one list of values.
fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(_) => true,
        Expr::Cast { expr, .. } | Expr::Agg(AggExpr::Implode { input: expr, .. }) => is_constant(expr),
        _ => false,
    }
}

/// An expression with something else for each of its inputs, if it has one value for one of each; `None` if it has
/// not, or there is nothing for an input.
fn of_inputs(expr: &Expr, of: &mut dyn FnMut(&Expr) -> Option<Expr>) -> Option<Expr> {
    Some(match expr {
        Expr::Literal(literal) if literal.is_scalar() => expr.clone(),
        Expr::Alias(input, name) => of(input)?.alias(name.clone()),
        Expr::Cast { expr, dtype, options } => {
            Expr::Cast { expr: Arc::new(of(expr)?), dtype: dtype.clone(), options: *options }
        }
        Expr::BinaryExpr { left, op, right } => {
            Expr::BinaryExpr { left: Arc::new(of(left)?), op: *op, right: Arc::new(of(right)?) }
        }
        Expr::Ternary { predicate, truthy, falsy } => Expr::Ternary {
            predicate: Arc::new(of(predicate)?),
            truthy: Arc::new(of(truthy)?),
            falsy: Arc::new(of(falsy)?),
        },
        Expr::Function { input, function } => {
            // The list of an IN is no row's.
            let (rows, list) = match function {
                FunctionExpr::Boolean(BooleanFunction::IsIn { .. }) => {
                    input.split_at_checked(1).filter(|(_, list)| list.iter().all(is_constant))?
                }
                FunctionExpr::Abs
                | FunctionExpr::Negate
                | FunctionExpr::Boolean(
                    BooleanFunction::IsNull
                    | BooleanFunction::IsNotNull
                    | BooleanFunction::IsNan
                    | BooleanFunction::IsNotNan
                    | BooleanFunction::Not,
                ) => (&input[..], &[][..]),
                _ => return None,
            };
            let rows = rows.iter().map(of).collect::<Option<Vec<_>>>()?;
            Expr::Function { input: rows.into_iter().chain(list.iter().cloned()).collect(), function: function.clone() }
        }
        _ => return None,
    })
}

/// The parts that a plan reads, if it does nothing but look at each row.
fn scan_below(plan: &DslPlan) -> Option<&PartScan> {
    match plan {
        DslPlan::Filter { input, predicate } if is_of_rows(predicate) => scan_below(input),
        DslPlan::Select { input, expr: exprs, .. } => {
            exprs.iter().all(|expr| is_of_rows(expr) && has_columns(expr)).then(|| scan_below(input))?
        }
        DslPlan::HStack { input, exprs, .. } if exprs.iter().all(is_of_rows) => scan_below(input),
        DslPlan::Scan { scan_type, .. } => {
            // There are other kinds where other features of polars are on.
            let FileScanDsl::Anonymous { function, .. } = scan_type.as_ref() else { return None };
            function.as_any().downcast_ref()
        }
        _ => None,
    }
}

/// A plan with another scan below it.
fn with_scan(plan: &DslPlan, scan: DslPlan) -> DslPlan {
    match plan {
        DslPlan::Filter { input, predicate } => {
            DslPlan::Filter { input: Arc::new(with_scan(input, scan)), predicate: predicate.clone() }
        }
        DslPlan::Select { input, expr, options } => {
            DslPlan::Select { input: Arc::new(with_scan(input, scan)), expr: expr.clone(), options: *options }
        }
        DslPlan::HStack { input, exprs, options } => {
            DslPlan::HStack { input: Arc::new(with_scan(input, scan)), exprs: exprs.clone(), options: *options }
        }
        _ => scan,
    }
}

#[cfg(test)]
mod tests {
    use polars::prelude::{AnyValue, SortMultipleOptions};
    use polars::sql::SQLContext;

    use super::super::exact::exact_plan;
    use super::*;
    use crate::ingest::{self, IngestOptions, Silent};
    use crate::store::{Store, heads_schema, steps_schema};

    /// The tables of a store of 16 videos, each part of which is read by itself.
    fn tables(dir: &std::path::Path) -> SQLContext {
        let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/dataset");
        ingest::run(&[dump], dir.join("store"), &IngestOptions::default(), &Silent).unwrap();
        let snapshot = Store::open(dir.join("store")).unwrap().snapshot();
        let parts = snapshot.parts().unwrap().to_vec();
        let of_heads = snapshot.heads_of(&parts).unwrap();
        let tables = SQLContext::new();
        let steps = PartScan::new("STEPS", snapshot.clone(), parts, steps_schema()).apart();
        let heads = PartScan::new("HEADS", snapshot, of_heads, heads_schema()).apart();
        tables.register("steps", steps.lazy().unwrap());
        let known = ["entropy", "gini", "top5"].map(|name| col(name).fill_nan(lit(NULL)));
        tables.register("heads", heads.lazy().unwrap().with_columns(known));
        tables
    }

    fn planned(tables: &mut SQLContext, statement: &str) -> DslPlan {
        exact_plan(tables.execute(statement).unwrap().logical_plan).unwrap()
    }

    /// Whether the groups of a plan are of parts.
    fn is_merged(plan: &DslPlan) -> bool {
        match plan {
            DslPlan::DataFrameScan { .. } => true,
            DslPlan::GroupBy { input, .. }
            | DslPlan::Filter { input, .. }
            | DslPlan::Select { input, .. }
            | DslPlan::HStack { input, .. }
            | DslPlan::Slice { input, .. }
            | DslPlan::Sort { input, .. } => is_merged(input),
            _ => false,
        }
    }

    fn answer(plan: DslPlan) -> DataFrame {
        let answer = LazyFrame::from(plan).collect().unwrap();
        let columns: Vec<PlSmallStr> = answer.get_column_names_owned();
        answer.sort(columns, SortMultipleOptions::default()).unwrap()
    }

    /// Floats are added in another order, and so may differ in their last digits.
    fn assert_alike(one: &DataFrame, other: &DataFrame, statement: &str) {
        assert_eq!(one.schema(), other.schema(), "{statement}");
        assert_eq!(one.height(), other.height(), "{statement}");
        for (left, right) in one.columns().iter().zip(other.columns()) {
            for row in 0..one.height() {
                let alike = match (left.get(row).unwrap(), right.get(row).unwrap()) {
                    (AnyValue::Float64(left), AnyValue::Float64(right)) if left.is_finite() => {
                        (left - right).abs() <= 1e-12 * left.abs()
                    }
                    (AnyValue::Float64(left), AnyValue::Float64(right)) => left.to_bits() == right.to_bits(),
                    (left, right) => left == right,
                };
                assert!(alike, "{statement}: {} of row {row}\n{one}\n{other}", left.name());
            }
        }
    }

    #[test]
    fn groups_of_parts_are_those_of_all_rows() {
        let dir = tempfile::tempdir().unwrap();
        let mut tables = tables(dir.path());
        for statement in [
            "SELECT token, AVG(entropy) AS e FROM heads GROUP BY token",
            "SELECT block, head, AVG(gini) AS g, MAX(top5) AS t, MIN(top5) AS u FROM heads GROUP BY block, head",
            "SELECT video_id, COUNT(*) AS n, SUM(step) AS s, COUNT(entropy) AS k FROM heads GROUP BY video_id",
            "SELECT block + 1 AS b, AVG(block) AS m, SUM(head * 3) + 1 AS s FROM heads GROUP BY block + 1 ORDER BY b",
            "SELECT token, MIN(video_id) AS first, MAX(video_id) AS last FROM heads GROUP BY token",
            "SELECT token, AVG(gini) AS g FROM heads WHERE step IN (1, 3) AND top5 > 0.2 GROUP BY token",
            "SELECT token, COUNT(*) AS n FROM heads GROUP BY token HAVING AVG(gini) > 0.5 AND COUNT(*) > 3",
            "SELECT step, AVG(gini) AS g FROM (SELECT step, gini * 2 AS gini FROM heads WHERE head = 0) AS h GROUP BY \
             step ORDER BY step DESC LIMIT 3",
            // In all parts but one, or in all, nothing is known.
            "SELECT step, AVG(e) AS e, SUM(e) AS s, MIN(e) AS m, COUNT(e) AS n FROM (SELECT step, CASE WHEN video_id = \
             'prompt_003_vid001' THEN entropy END AS e FROM heads) AS h GROUP BY step",
            "SELECT step, AVG(e) AS e, SUM(e) AS s, MAX(e) AS m, COUNT(e) AS n FROM (SELECT step, CASE WHEN video_id = \
             'nowhere' THEN entropy END AS e FROM heads) AS h GROUP BY step",
            // Groups that are in one part, or in none.
            "SELECT video_id, step, AVG(gini) AS g FROM heads GROUP BY video_id, step",
            "SELECT token, AVG(gini) AS g FROM heads WHERE step < 0 GROUP BY token",
            // All rows as one group, or none of them.
            "SELECT COUNT(*) AS n, AVG(gini) AS g, SUM(step) AS s, MAX(token) AS t FROM heads WHERE block > 0",
            "SELECT COUNT(*) AS n, AVG(gini) AS g, SUM(step) AS s, MAX(token) AS t FROM heads WHERE block < 0",
            "SELECT MAX(gini) - MIN(gini) AS g FROM heads",
            "SELECT COUNT(*) AS n FROM heads",
            "SELECT COUNT(*) AS n FROM (SELECT gini FROM heads WHERE head = 0) AS h",
            // NaN, and what is infinite.
            "SELECT token, AVG(z / z) AS a, MIN(z / z) AS b, SUM(1 / z) AS c, MAX(-1 / z) AS d FROM (SELECT token, \
             gini - gini AS z FROM heads) AS h GROUP BY token",
            // A key that is null in some rows.
            "SELECT k, COUNT(*) AS n FROM (SELECT CASE WHEN step > 3 THEN block END AS k FROM heads) AS h GROUP BY k",
        ] {
            let plan = planned(&mut tables, statement);
            let merged = by_parts(plan.clone());
            let described = || LazyFrame::from(merged.clone()).describe_plan().unwrap();
            assert!(is_merged(&merged), "{statement}: {}", described());
            assert_alike(&answer(plan), &answer(merged), statement);
        }
    }

    #[test]
    fn what_cannot_be_told_of_groups_of_parts_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let mut tables = tables(dir.path());
        for statement in [
            "SELECT token, STDDEV(gini) AS s FROM heads GROUP BY token",
            "SELECT token, MEDIAN(gini) AS m FROM heads GROUP BY token",
            "SELECT token, COUNT(DISTINCT block) AS n FROM heads GROUP BY token",
            "SELECT token, AVG(gini) / STDDEV(gini) AS n FROM heads GROUP BY token",
            "SELECT token, AVG(gini) AS n FROM heads GROUP BY token HAVING MEDIAN(gini) > 0",
            "SELECT token, FIRST(gini) AS f FROM heads GROUP BY token",
            "SELECT gini, COUNT(*) AS n FROM heads GROUP BY gini",
            "SELECT token, AVG(r) AS r FROM (SELECT token, RANK() OVER (ORDER BY gini) AS r FROM heads) AS h GROUP BY \
             token",
            "SELECT token, COUNT(*) AS n FROM (SELECT DISTINCT token, step FROM heads) AS h GROUP BY token",
            "SELECT token, COUNT(*) AS n FROM (SELECT * FROM heads LIMIT 10) AS h GROUP BY token",
            "SELECT heads.token, COUNT(*) AS n FROM heads JOIN steps USING (video_id, token, step) GROUP BY \
             heads.token",
            "SELECT MEDIAN(gini) AS m, COUNT(*) AS n FROM heads",
            "SELECT COUNT(*) AS n FROM (SELECT DISTINCT token FROM heads) AS h",
            "SELECT step IN (1, 2) AS s FROM heads",
            // What polars says of these, or answers, is said and answered of all rows.
            "SELECT AVG(block_numbers) AS x FROM steps",
            "SELECT AVG(token_ids) AS x FROM steps WHERE step < 0",
            "SELECT token, AVG(block_numbers) AS x FROM steps GROUP BY token",
            "SELECT MIN(token) + 1 AS x FROM heads",
            "SELECT SUM(CAST(token AS INTEGER)) AS a FROM heads",
            "SELECT attnkit_kept_0, COUNT(*) AS n FROM (SELECT step AS attnkit_kept_0 FROM heads) AS t GROUP BY \
             attnkit_kept_0",
            // As many groups as rows.
            "SELECT video_id, token, step, block, head, MAX(gini) AS g FROM heads GROUP BY video_id, token, step, \
             block, head",
        ] {
            let merged = by_parts(planned(&mut tables, statement));
            assert!(!is_merged(&merged), "{statement}");
        }
    }
}
