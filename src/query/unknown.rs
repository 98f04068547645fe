//! Groups of what is not known. SQL puts all rows whose seed, weight or prompt is not known into one group; they are
//! not of one.

use std::collections::HashSet;
use std::sync::LazyLock;

use polars::prelude::{DslPlan, Expr, LazyFrame, PolarsResult, col, len};

use crate::store::{heads_schema, steps_schema, text_schema};

/// Columns that have a value in every row, whichever table they are of.
static ALWAYS_KNOWN: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let tables = [steps_schema(), heads_schema(), text_schema()];
    let named = |is_nullable: bool| {
        let fields = tables.iter().flat_map(|table| table.fields());
        fields.filter(move |field| field.is_nullable() == is_nullable).map(|field| field.name().clone())
    };
    let unknown: HashSet<String> = named(true).collect();
    named(false).filter(|name| !unknown.contains(name)).collect()
});

/// What to say of a plan's groups whose key is null: by which expression, and of how many rows.
///
/// # Errors
/// If these rows cannot be counted.
pub(super) fn unknown_groups(plan: &DslPlan) -> PolarsResult<Vec<String>> {
    let mut notes = Vec::new();
    look(plan, &mut notes)?;
    Ok(notes)
}

fn look(plan: &DslPlan, notes: &mut Vec<String>) -> PolarsResult<()> {
    let windows = |exprs: &[Expr]| -> Vec<Expr> {
        let all = exprs.iter().flat_map(IntoIterator::into_iter);
        let keys = all.filter_map(|expr| match expr {
            Expr::Over { partition_by, .. } => Some(partition_by.clone()),
            _ => None,
        });
        keys.flatten().collect()
    };
    match plan {
        DslPlan::GroupBy { input, keys, .. } => {
            count(input, keys, notes)?;
            look(input, notes)
        }
        DslPlan::Select { input, expr: exprs, .. } | DslPlan::HStack { input, exprs, .. } => {
            count(input, &windows(exprs), notes)?;
            look(input, notes)
        }
        DslPlan::Distinct { input, options } => {
            let all = || LazyFrame::from(input.as_ref().clone()).collect_schema();
            let keys = match &options.subset {
                Some(subset) => subset.clone(),
                None => all()?.iter_names().map(|name| col(name.clone())).collect(),
            };
            count(input, &keys, notes)?;
            look(input, notes)
        }
        DslPlan::Join { input_left, input_right, .. } => {
            look(input_left, notes)?;
            look(input_right, notes)
        }
        DslPlan::Union { inputs, .. } | DslPlan::HConcat { inputs, .. } => {
            inputs.iter().try_for_each(|input| look(input, notes))
        }
        DslPlan::Filter { input, .. }
        | DslPlan::Cache { input, .. }
        | DslPlan::Sort { input, .. }
        | DslPlan::Slice { input, .. }
        | DslPlan::MapFunction { input, .. }
        | DslPlan::ExtContext { input, .. }
        | DslPlan::MatchToSchema { input, .. } => look(input, notes),
        DslPlan::IR { dsl, .. } => look(dsl, notes),
        _ => Ok(()),
    }
}

/// Counts the rows of a plan of which a key is null.
fn count(rows: &DslPlan, keys: &[Expr], notes: &mut Vec<String>) -> PolarsResult<()> {
    let may_be_unknown = |key: &&Expr| {
        let names = Expr::clone(key).meta().root_names();
        names.iter().any(|name| !ALWAYS_KNOWN.contains(name.as_str()))
    };
    let keys: Vec<&Expr> = keys.iter().filter(may_be_unknown).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let null_rows = keys.iter().enumerate().map(|(at, key)| (*key).clone().is_null().sum().alias(at.to_string()));
    let counts = LazyFrame::from(rows.clone()).select(null_rows.chain([len().alias("rows")]).collect::<Vec<_>>());
    let counts = counts.collect()?;
    let count = |column: &str| counts.column(column).and_then(|count| count.get(0)?.try_extract::<u64>());
    let all = count("rows")?;
    for (at, key) in keys.into_iter().enumerate() {
        let unknown = count(&at.to_string())?;
        let name = key.clone().meta().output_name().map_or_else(|_| key.to_string(), |name| name.to_string());
        let note = format!(
            "{name} is not known (null) in {unknown} of {all} rows, which SQL groups as if it were one {name}; leave \
             them out with WHERE {name} IS NOT NULL"
        );
        if unknown > 0 && !notes.contains(&note) {
            notes.push(note);
        }
    }
    Ok(())
}
