//! Integers that do not wrap. Polars computes with integers in the type of its operands and wraps in silence; here
//! sums, products and the like are computed in 128 bits, and a result beyond 64 bits is an error.
//!
//! Seeds, which have 64 bits with or without a sign, are integers of 128 bits in questions ("wide"): sums and
//! differences of them stay so. Comparisons are of 128 bits too. What could wrap in spite of that (larger integers,
//! decimals, lists) is refused.

use std::sync::Arc;

use polars::chunked_array::cast::CastOptions;
use polars::error::polars_bail;
use polars::lazy::dsl::{FunctionExpr, ListFunction, PowFunction};
use polars::prelude::{
    AggExpr, AnyValue, DataType, DataTypeExpr, DslPlan, Expr, LazyFrame, Operator, OptFlags, PolarsError, PolarsResult,
    Schema, SchemaRef, SpecialEq, col, lit, when,
};

/// Digits of an integer: far below what 128 bits hold, so that sums of a few do not wrap either.
pub(super) const LONGEST_INTEGER: usize = 28;
/// Floats below this are compared as integers with integers.
const MOST_OF_FLOAT: f64 = 1e28;

/// An expression over columns of `schema`, computing with integers exactly.
pub(super) fn exact(expr: Expr, schema: &Schema) -> PolarsResult<Expr> {
    expr.try_map_expr(|expr| {
        let kind = |expr: &Expr| Kind::of(expr, schema);
        Ok(match expr {
            Expr::BinaryExpr { left, op, right } => {
                let kinds = kind(&left)?.zip(kind(&right)?);
                match (op, kinds) {
                    (Operator::Plus | Operator::Minus | Operator::Modulus | Operator::FloorDivide, Some(kinds)) => {
                        let (left, right) = (wide(&left), wide(&right));
                        kinds.0.max(kinds.1).result(binary(left, op, right))
                    }
                    // Two factors of 64 bits have a product of 128.
                    (Operator::Multiply, Some(kinds)) => {
                        let factor = |expr: &Arc<Expr>, kind: Kind| match kind {
                            Kind::Narrow => wide(expr),
                            Kind::Wide => wide(&Arc::new(narrow(expr.as_ref().clone()))),
                        };
                        narrow(binary(factor(&left, kinds.0), op, factor(&right, kinds.1)))
                    }
                    (_, Some(_)) if op.is_comparison() => {
                        Expr::BinaryExpr { left: widest(left, schema)?, op, right: widest(right, schema)? }
                    }
                    (_, None) if op.is_comparison() => {
                        let integer = |expr: Arc<Expr>| integer_of(&expr).map_or(expr, |value| Arc::new(lit(value)));
                        match (kind(&left)?, kind(&right)?) {
                            (Some(Kind::Wide), None) => {
                                let right = integer(right);
                                not_mixed([left.as_ref(), right.as_ref()], schema)?;
                                Expr::BinaryExpr { left, op, right }
                            }
                            (None, Some(Kind::Wide)) => {
                                let left = integer(left);
                                not_mixed([left.as_ref(), right.as_ref()], schema)?;
                                Expr::BinaryExpr { left, op, right }
                            }
                            _ => Expr::BinaryExpr { left, op, right },
                        }
                    }
                    (_, None) if op.is_arithmetic() => {
                        can_be_computed_with(&left, schema)?;
                        can_be_computed_with(&right, schema)?;
                        Expr::BinaryExpr { left, op, right }
                    }
                    _ => Expr::BinaryExpr { left, op, right },
                }
            }
            Expr::Agg(AggExpr::Sum(input)) => {
                can_be_computed_with(&input, schema)?;
                let input = in_each_row(input, schema);
                match kind(&input)? {
                    Some(kind) => kind.result(Expr::Agg(AggExpr::Sum(Arc::new(wide(&input))))),
                    None => Expr::Agg(AggExpr::Sum(input)),
                }
            }
            // Of floats: their moments are.
            Expr::Agg(AggExpr::Mean(input)) => Expr::Agg(AggExpr::Mean(as_float(input, schema)?)),
            Expr::Agg(AggExpr::Median(input)) => Expr::Agg(AggExpr::Median(as_float(input, schema)?)),
            Expr::Agg(AggExpr::Std(input, ddof)) => {
                Expr::Agg(AggExpr::Std(as_float(in_each_row(input, schema), schema)?, ddof))
            }
            Expr::Agg(AggExpr::Var(input, ddof)) => {
                Expr::Agg(AggExpr::Var(as_float(in_each_row(input, schema), schema)?, ddof))
            }
            // What polars makes of `//`: beyond 64 bits it would be null.
            Expr::Cast { expr, .. }
                if matches!(*expr, Expr::BinaryExpr { op: Operator::FloorDivide, .. }) && kind(&expr)?.is_some() =>
            {
                narrow(expr.as_ref().clone())
            }
            Expr::Cast { expr, dtype, options } => cast(expr, dtype, options, schema)?,
            Expr::Function { input, function } => {
                not_mixed(&input, schema)?;
                function_of(input, function, schema)?
            }
            Expr::Ternary { predicate, truthy, falsy } => {
                not_mixed([truthy.as_ref(), falsy.as_ref()], schema)?;
                Expr::Ternary { predicate, truthy, falsy }
            }
            Expr::SubPlan(plan, names) => {
                Expr::SubPlan(SpecialEq::new(Arc::new(exact_plan(plan.as_ref().clone())?)), names)
            }
            other => other,
        })
    })
}

/// A function whose result may be beyond its argument's type.
fn function_of(input: Vec<Expr>, function: FunctionExpr, schema: &Schema) -> PolarsResult<Expr> {
    let kinds: Vec<Option<Kind>> = input.iter().map(|input| Kind::of(input, schema)).collect::<PolarsResult<_>>()?;
    let same = |input| Expr::Function { input, function: function.clone() };
    Ok(match (&function, &kinds[..]) {
        (FunctionExpr::Negate | FunctionExpr::Abs, [Some(kind)]) => {
            kind.result(same(input.into_iter().map(|input| wide(&Arc::new(input))).collect()))
        }
        (FunctionExpr::Negate | FunctionExpr::Abs | FunctionExpr::CumSum { .. }, [None]) => {
            input.iter().try_for_each(|input| can_be_computed_with(input, schema))?;
            same(input)
        }
        (FunctionExpr::CumSum { .. }, [Some(kind)]) => {
            let in_rows = |input| wide(&in_each_row(Arc::new(input), schema));
            kind.result(same(input.into_iter().map(in_rows).collect()))
        }
        (FunctionExpr::ListExpr(ListFunction::Sum), _) => {
            let is_of_integers = |kind: &DataType| kind.inner_dtype().is_some_and(DataType::is_integer);
            match &input[..] {
                [list] if is_of_integers(list.to_field(schema)?.dtype()) => {
                    narrow(same(vec![list.clone().cast(DataType::List(Box::new(DataType::Int128)))]))
                }
                _ => same(input),
            }
        }
        // As in other databases, powers are floats.
        (FunctionExpr::Pow(PowFunction::Generic), [Some(_), Some(_)]) => {
            same(input.into_iter().map(|input| input.cast(DataType::Float64)).collect())
        }
        _ => same(input),
    })
}

/// A cast to a type whose numbers can be computed with exactly.
fn cast(expr: Arc<Expr>, to: DataTypeExpr, options: CastOptions, schema: &Schema) -> PolarsResult<Expr> {
    let same = |expr, dtype| Expr::Cast { expr, dtype, options };
    Ok(match to.as_literal() {
        Some(DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16) => {
            polars_bail!(InvalidOperation: "integers have 32 bits at least: cast to INTEGER or BIGINT")
        }
        Some(DataType::UInt64) => same(expr, to).cast(DataType::Int128),
        Some(DataType::Int128 | DataType::UInt128) => {
            let is_short = match expr.to_field(schema)?.dtype() {
                DataType::Decimal(precision, 0) => *precision <= LONGEST_INTEGER,
                kind if kind.is_integer() => true,
                _ => text_of(&expr).is_some_and(|text| text.trim_start_matches(['-', '+']).len() <= LONGEST_INTEGER),
            };
            if !is_short || to.as_literal() == Some(&DataType::UInt128) {
                polars_bail!(
                    InvalidOperation: "only integers, and texts of {} digits at most, can be cast to HUGEINT: cast to \
                        BIGINT or DOUBLE",
                    LONGEST_INTEGER
                )
            }
            same(expr, to)
        }
        _ => same(expr, to),
    })
}

/// Refuses seeds together with floats, which would round them: but for constants that are no integers, and so equal
/// none.
fn not_mixed<'a>(exprs: impl IntoIterator<Item = &'a Expr>, schema: &Schema) -> PolarsResult<()> {
    let mut kinds = Vec::new();
    for expr in exprs {
        let is_constant = matches!(expr, Expr::Literal(literal) if literal.is_scalar());
        let kind = expr.to_field(schema)?.dtype().clone();
        kinds.extend((!is_constant).then(|| kind.inner_dtype().cloned().unwrap_or(kind)));
    }
    let is_seed = |kind: &DataType| matches!(kind, DataType::Int128);
    if kinds.iter().any(is_seed) && kinds.iter().any(DataType::is_float) {
        polars_bail!(InvalidOperation: "seeds together with floats would be rounded: cast the floats to BIGINT, or the \
            seeds to DOUBLE")
    }
    Ok(())
}

/// Refuses what polars computes with in a type that may wrap: decimals, and lists element by element.
fn can_be_computed_with(expr: &Expr, schema: &Schema) -> PolarsResult<()> {
    match expr.to_field(schema)?.dtype() {
        DataType::Decimal(..) => {
            polars_bail!(InvalidOperation: "decimals are not computed with: cast to BIGINT or DOUBLE")
        }
        kind if kind.is_nested() => polars_bail!(InvalidOperation: "lists are not computed with"),
        _ => Ok(()),
    }
}

/// A plan with all of its expressions computing exactly.
pub(super) fn exact_plan(plan: DslPlan) -> PolarsResult<DslPlan> {
    let below = |plan: Arc<DslPlan>| exact_plan(plan.as_ref().clone()).map(Arc::new);
    let all = |exprs: Vec<Expr>, schema: &Schema| -> PolarsResult<Vec<Expr>> {
        exprs.into_iter().map(|expr| exact(expr, schema)).collect()
    };
    Ok(match plan {
        DslPlan::Filter { input, predicate } => {
            let input = below(input)?;
            let predicate = exact(predicate, &*schema_of(&input)?)?;
            filtered(LazyFrame::from(input.as_ref().clone()), Some(predicate)).logical_plan
        }
        DslPlan::Select { expr, input, options } => {
            let input = below(input)?;
            DslPlan::Select { expr: all(expr, &*schema_of(&input)?)?, input, options }
        }
        DslPlan::HStack { input, exprs, options } => {
            let input = below(input)?;
            DslPlan::HStack { exprs: all(exprs, &*schema_of(&input)?)?, input, options }
        }
        DslPlan::Sort { input, by_column, slice, sort_options } => {
            let input = below(input)?;
            DslPlan::Sort { by_column: all(by_column, &*schema_of(&input)?)?, input, slice, sort_options }
        }
        DslPlan::GroupBy { input, keys, predicates, aggs, maintain_order, options, apply } => {
            let input = below(input)?;
            let schema = schema_of(&input)?;
            let (keys, aggs) = (all(keys, &schema)?, all(aggs, &schema)?);
            let predicates = all(predicates, &schema)?;
            DslPlan::GroupBy { input, keys, predicates, aggs, maintain_order, options, apply }
        }
        DslPlan::Join { input_left, input_right, left_on, right_on, predicates, options } => {
            let (input_left, input_right) = (below(input_left)?, below(input_right)?);
            let (left, right) = (schema_of(&input_left)?, schema_of(&input_right)?);
            let mut both = left.as_ref().clone();
            both.merge(right.as_ref().clone());
            let (left_on, right_on) = (all(left_on, &left)?, all(right_on, &right)?);
            let predicates = all(predicates, &both)?;
            DslPlan::Join { input_left, input_right, left_on, right_on, predicates, options }
        }
        DslPlan::Cache { input, id } => DslPlan::Cache { input: below(input)?, id },
        DslPlan::Distinct { input, options } => DslPlan::Distinct { input: below(input)?, options },
        DslPlan::Slice { input, offset, len } => DslPlan::Slice { input: below(input)?, offset, len },
        DslPlan::MapFunction { input, function } => DslPlan::MapFunction { input: below(input)?, function },
        DslPlan::Union { inputs, args } => {
            let inputs = inputs.into_iter().map(exact_plan).collect::<PolarsResult<Vec<_>>>()?;
            let schemas = inputs.iter().map(schema_of).collect::<PolarsResult<Vec<_>>>()?;
            let columns = schemas.iter().map(|schema| schema.len()).min().unwrap_or(0);
            for column in 0..columns {
                let kinds = || schemas.iter().filter_map(|schema| Some(schema.get_at_index(column)?.1));
                if kinds().any(|kind| matches!(kind, DataType::Int128)) && kinds().any(DataType::is_float) {
                    polars_bail!(InvalidOperation: "a union of seeds and floats would round them: cast the floats to \
                        BIGINT, or the seeds to DOUBLE")
                }
            }
            DslPlan::Union { inputs, args }
        }
        DslPlan::HConcat { inputs, options } => {
            DslPlan::HConcat { inputs: inputs.into_iter().map(exact_plan).collect::<PolarsResult<_>>()?, options }
        }
        DslPlan::ExtContext { input, contexts } => {
            let contexts = contexts.into_iter().map(exact_plan).collect::<PolarsResult<_>>()?;
            DslPlan::ExtContext { input: below(input)?, contexts }
        }
        DslPlan::MatchToSchema { input, match_schema, per_column, extra_columns } => {
            DslPlan::MatchToSchema { input: below(input)?, match_schema, per_column, extra_columns }
        }
        // A plan whose schema was looked up already.
        DslPlan::IR { dsl, .. } => exact_plan(dsl.as_ref().clone())?,
        table @ (DslPlan::Scan { .. } | DslPlan::DataFrameScan { .. }) => table,
        // Whether its integers wrap cannot be told.
        _ => polars_bail!(SQLInterface: "this kind of statement is not supported"),
    })
}

fn schema_of(plan: &DslPlan) -> PolarsResult<SchemaRef> {
    LazyFrame::from(plan.clone()).collect_schema()
}

/// The rows for which a condition is true; all of them without one.
///
/// Polars takes conditions together and asks all of them of every row. So what may fail (an integer does not fit, a
/// text is no number) comes behind a step that it does not look through: only rows for which all else is true are
/// asked.
pub(super) fn filtered(rows: LazyFrame, condition: Option<Expr>) -> LazyFrame {
    let Some(condition) = condition else { return rows };
    let mut pieces = Vec::new();
    conjuncts(condition, &mut pieces);
    let may_fail = |expr: &Expr| matches!(expr, Expr::Cast { options, .. } if options.is_strict());
    let (failing, safe): (Vec<Expr>, Vec<Expr>) = pieces.into_iter().partition(|piece| piece.into_iter().any(may_fail));
    let rows = safe.into_iter().reduce(Expr::and).into_iter().fold(rows, LazyFrame::filter);
    let Some(failing) = failing.into_iter().reduce(Expr::and) else { return rows };
    rows.map(Ok, OptFlags::PROJECTION_PUSHDOWN, None, Some("ROWS READ")).filter(failing)
}

/// Cuts a condition at its ANDs.
pub(super) fn conjuncts(expr: Expr, pieces: &mut Vec<Expr>) {
    match expr {
        Expr::BinaryExpr { left, op: Operator::And, right } => {
            conjuncts(left.as_ref().clone(), pieces);
            conjuncts(right.as_ref().clone(), pieces);
        }
        other => pieces.push(other),
    }
}

/// How large an integer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// 64 bits at most.
    Narrow,
    /// More.
    Wide,
}

impl Kind {
    /// Of an expression's values; `None` if they are no integers.
    fn of(expr: &Expr, schema: &Schema) -> PolarsResult<Option<Self>> {
        Ok(match expr.to_field(schema)?.dtype() {
            DataType::Int128 | DataType::UInt128 => Some(Self::Wide),
            kind if kind.is_integer() => Some(Self::Narrow),
            _ => None,
        })
    }

    /// A result of arguments of this kind.
    fn result(self, expr: Expr) -> Expr {
        match self {
            Self::Narrow => narrow(expr),
            Self::Wide => expr,
        }
    }
}

fn binary(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr { left: Arc::new(left), op, right: Arc::new(right) }
}

fn wide(expr: &Arc<Expr>) -> Expr {
    expr.as_ref().clone().cast(DataType::Int128)
}

/// The integer that was made to fit into 64 bits; any other expression as it is.
fn widest(expr: Arc<Expr>, schema: &Schema) -> PolarsResult<Arc<Expr>> {
    Ok(match expr.as_ref() {
        Expr::Cast { expr: inner, options, .. }
            if options.is_strict()
                && Kind::of(&expr, schema)?.is_some()
                && Kind::of(inner, schema)? == Some(Kind::Wide) =>
        {
            inner.clone()
        }
        _ => expr,
    })
}

/// The integer that a constant of another type stands for: as a float, a seed would be compared after it was rounded.
fn integer_of(expr: &Expr) -> Option<i128> {
    match expr {
        Expr::Literal(literal) if literal.is_scalar() => match literal.to_any_value()? {
            #[allow(clippy::cast_possible_truncation)] // it is whole, and far below 2^127
            AnyValue::Float64(value) if value.fract() == 0.0 && value.abs() < MOST_OF_FLOAT => Some(value as i128),
            _ => None,
        },
        Expr::Function { input, function: FunctionExpr::Negate } => integer_of(input.first()?).map(|value| -value),
        _ => None,
    }
}

/// The text that a constant is.
fn text_of(expr: &Expr) -> Option<String> {
    let Expr::Literal(literal) = expr else { return None };
    match literal.is_scalar().then(|| literal.to_any_value())?? {
        AnyValue::String(text) => Some(text.to_owned()),
        AnyValue::StringOwned(text) => Some(text.to_string()),
        _ => None,
    }
}

/// A constant as a column of as many rows as there are: polars has one of it, and would sum it once.
fn in_each_row(expr: Arc<Expr>, schema: &Schema) -> Arc<Expr> {
    match schema.iter_names().next() {
        Some(any) if expr.as_ref().clone().meta().root_names().is_empty() => {
            let constant = expr.as_ref().clone();
            Arc::new(when(col(any.clone()).is_null()).then(constant.clone()).otherwise(constant))
        }
        _ => expr,
    }
}

/// In 64 bits; an error where it does not fit.
fn narrow(expr: Expr) -> Expr {
    expr.strict_cast(DataType::Int64)
}

/// Wide integers as floats.
fn as_float(expr: Arc<Expr>, schema: &Schema) -> PolarsResult<Arc<Expr>> {
    Ok(match Kind::of(&expr, schema)? {
        Some(Kind::Wide) => Arc::new(expr.as_ref().clone().cast(DataType::Float64)),
        _ => expr,
    })
}

/// The integer that did not fit into 64 bits, if polars failed because of one.
pub(super) fn overflow(error: &PolarsError) -> Option<String> {
    let message = error.to_string();
    let (_, behind) = message.split_once("conversion from `i128` to `i64` failed")?;
    let values = behind.split_once('[').map_or("", |(_, values)| values);
    Some(values.split([',', ']', '.']).next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use polars::prelude::{Column, DataFrame, IntoLazy, PlSmallStr};
    use polars::sql::{SQLContext, sql_expr};

    use super::super::dialect::for_polars;
    use super::*;

    fn table() -> DataFrame {
        let name = PlSmallStr::from_static;
        DataFrame::new(
            2,
            vec![
                Column::new(name("small"), [i32::MAX, 5]),
                Column::new(name("long"), [i64::MAX, 7]),
                Column::new(name("seed"), [i128::from(u64::MAX), -1]),
                Column::new(name("real"), [1.5, 2.5]),
            ],
        )
        .unwrap()
    }

    fn evaluated(condition: &str) -> PolarsResult<Vec<String>> {
        let frame = table();
        let expr = exact(sql_expr(for_polars(condition).unwrap())?, frame.schema())?;
        let answer = frame.lazy().select([expr.alias("answer")]).collect()?;
        let column = answer.column("answer")?.clone();
        Ok((0..answer.height()).map(|row| column.get(row).unwrap().to_string()).collect())
    }

    fn asked(statement: &str) -> PolarsResult<String> {
        let mut context = SQLContext::new();
        context.register("t", table().lazy());
        let plan = context.execute(&for_polars(statement).unwrap())?.logical_plan;
        let answer = LazyFrame::from(exact_plan(plan)?).collect()?;
        Ok(answer.columns()[0].get(0)?.to_string())
    }

    #[test]
    fn arithmetic_is_of_64_bits_at_least_and_never_wraps() {
        assert_eq!(evaluated("small * small").unwrap(), ["4611686014132420609", "25"]);
        assert_eq!(evaluated("small + small").unwrap(), ["4294967294", "10"]);
        assert_eq!(evaluated("-small - small - small").unwrap(), ["-6442450941", "-15"]);
        assert_eq!(evaluated("long // 2 + small % 4").unwrap(), ["4611686018427387906", "4"]);
        assert_eq!(evaluated("seed + 1").unwrap(), ["18446744073709551616", "0"]);
        assert_eq!(evaluated("small * real").unwrap().len(), 2);
        assert_eq!(evaluated("long * 2 > 14").unwrap(), ["true", "false"]);
        assert_eq!(evaluated("long + 1 = long + 1").unwrap(), ["true", "true"]);
        for beyond in [
            "long + 1",
            "long * 2 * 2 > 0",
            "small * small * small * small",
            "-long - 2",
            "seed * 2",
            "9223372036854775807 + small",
            "seed // 1",
        ] {
            let error = evaluated(beyond).unwrap_err();
            assert!(overflow(&error).is_some(), "{beyond}: {error}");
        }
    }

    #[test]
    fn aggregates_are_too() {
        assert_eq!(asked("SELECT SUM(small * 3) FROM t").unwrap(), "6442450956");
        assert_eq!(asked("SELECT SUM(small) * 2 FROM t").unwrap(), "4294967304");
        assert_eq!(asked("SELECT SUM(2147483647) FROM t").unwrap(), "4294967294");
        assert_eq!(asked("SELECT SUM(1.5) FROM t").unwrap(), "3.0");
        assert_eq!(asked("SELECT SUM(2) FROM t GROUP BY real < 9").unwrap(), "4");
        assert_eq!(asked("SELECT SUM(2) OVER (PARTITION BY real < 9) FROM t").unwrap(), "4");
        assert_eq!(asked("SELECT STDDEV(2) FROM t").unwrap(), "0.0");
        assert_eq!(asked("SELECT SUM(2)").unwrap(), "2");
        assert_eq!(asked("SELECT SUM(seed) FROM t").unwrap(), "18446744073709551614");
        assert_eq!(asked("SELECT MAX(seed) FROM t").unwrap(), "18446744073709551615");
        assert_eq!(asked("SELECT COUNT(*) * 4000000000 FROM t").unwrap(), "8000000000");
        assert_eq!(asked("SELECT SUM(small) OVER (PARTITION BY real < 9) FROM t").unwrap(), "2147483652");
        assert_eq!(
            asked("SELECT SUM(n) FROM (SELECT small * small AS n FROM t WHERE small * 2 > 11) AS u").unwrap(),
            "4611686014132420609"
        );
        assert_eq!(asked("SELECT small * 3 AS n FROM t UNION ALL SELECT 1 AS n").unwrap(), "6442450941");
        assert_eq!(asked("SELECT DISTINCT small * 3 AS n FROM t ORDER BY n DESC").unwrap(), "6442450941");
        assert_eq!(
            asked("SELECT small FROM t WHERE small * 3 IN (SELECT small * 3 FROM t WHERE small > 9)").unwrap(),
            "2147483647"
        );
        assert_eq!(asked("WITH u AS (SELECT small * 2 AS n FROM t) SELECT MAX(n) FROM u").unwrap(), "4294967294");
        assert_eq!(
            asked("SELECT small FROM t GROUP BY small HAVING SUM(small * 3) > 6000000000").unwrap(),
            "2147483647"
        );
        assert_eq!(
            asked("SELECT a.small FROM t AS a JOIN t AS b ON a.small = b.small ORDER BY a.small * -2 LIMIT 1").unwrap(),
            "2147483647"
        );
        for beyond in [
            "SELECT SUM(long) FROM t",
            "SELECT SUM(9223372036854775807) FROM t",
            "SELECT SUM(long * 2) FROM t",
            "SELECT COUNT(*) * 9223372036854775807 FROM t",
        ] {
            let error = asked(beyond).unwrap_err();
            assert!(overflow(&error).is_some(), "{beyond}: {error}");
        }
    }

    #[test]
    fn seeds_are_compared_with_all_their_digits() {
        assert_eq!(evaluated("seed = 18446744073709551615").unwrap(), ["true", "false"]);
        assert_eq!(evaluated("seed IN (18446744073709551615, 3)").unwrap(), ["true", "false"]);
        assert_eq!(evaluated("seed IN (-1, 3)").unwrap(), ["false", "true"]);
        assert_eq!(evaluated("seed BETWEEN -5 AND 18446744073709551614").unwrap(), ["false", "true"]);
        assert_eq!(evaluated("seed > 9223372036854775807").unwrap(), ["true", "false"]);
    }
}
