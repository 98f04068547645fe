//! The tables of a store as lazy frames.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use polars::prelude::{DataType, Expr, LazyFrame, NULL, PlSmallStr, SchemaRef, col, lit, when};

use super::QueryError;
use super::frame::to_polars;
use super::scan::PartScan;
use crate::dump::CALENDAR;
use crate::store::{Part, Snapshot, heads_schema, steps_schema, text_schema};

/// Digits of a seed in the tables.
pub(super) const SEED_DIGITS: usize = 20;

/// Columns of `steps`, as questions see them: seeds are integers.
pub(super) static STEPS: LazyLock<SchemaRef> = LazyLock::new(|| {
    let mut steps = (**FILES_OF_STEPS).clone();
    steps.insert(PlSmallStr::from_static("seed"), DataType::Int128);
    Arc::new(steps)
});
/// Columns of `steps`, as files have them.
static FILES_OF_STEPS: LazyLock<SchemaRef> = LazyLock::new(|| to_polars(&steps_schema()));
/// Columns of `heads`.
pub(super) static HEADS: LazyLock<SchemaRef> = LazyLock::new(|| to_polars(&heads_schema()));
/// Columns of `text`.
pub(super) static TEXT: LazyLock<SchemaRef> = LazyLock::new(|| to_polars(&text_schema()));
/// Columns of `steps` and `heads`, those of `steps` first.
pub(super) static BOTH: LazyLock<SchemaRef> = LazyLock::new(|| {
    let mut both = (**STEPS).clone();
    for (name, kind) in HEADS.iter() {
        both.insert(name.clone(), kind.clone());
    }
    Arc::new(both)
});
/// What a row of `heads` and the row of `steps` that it belongs to have in common.
pub(super) const STEP_KEY: [&str; 3] = ["video_id", "token", "step"];

/// The tables of one store, as committed when it was opened.
pub(super) struct Catalog {
    snapshot: Snapshot,
    parts: Arc<[Part]>,
}

impl Catalog {
    /// Finds the parts of these videos; if there are none of them, or no video is named, those of all.
    pub fn of(snapshot: &Snapshot, videos: &BTreeSet<String>) -> Result<Self, QueryError> {
        match snapshot.parts_of(videos)? {
            parts if parts.is_empty() => Self::open(snapshot),
            parts => Ok(Self { parts: parts.into(), snapshot: snapshot.clone() }),
        }
    }

    /// Finds the parts.
    pub fn open(snapshot: &Snapshot) -> Result<Self, QueryError> {
        Ok(Self { parts: snapshot.parts()?, snapshot: snapshot.clone() })
    }

    pub const fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The table `steps`.
    pub fn steps(&self) -> Result<LazyFrame, QueryError> {
        let steps = PartScan::new("STEPS", self.snapshot.clone(), self.parts.to_vec(), steps_schema()).lazy()?;
        Ok(steps.with_columns([col("seed").cast(DataType::Int128), sane_time("source_modified")]))
    }

    /// The table `heads`, of the commits that the steps are of.
    pub fn heads(&self) -> Result<LazyFrame, QueryError> {
        let parts = self.snapshot.heads_of(&self.parts)?;
        Ok(PartScan::new("HEADS", self.snapshot.clone(), parts, heads_schema()).lazy()?)
    }

    /// The table `text`, of the commits that the steps are of.
    pub fn text(&self) -> Result<LazyFrame, QueryError> {
        let parts = self.snapshot.text_of(&self.parts)?;
        Ok(PartScan::new("TEXT", self.snapshot.clone(), parts, text_schema()).lazy()?)
    }
}

/// A column of times, without those that no calendar has: clocks of file systems can be set to anything.
fn sane_time(column: &str) -> Expr {
    let micros = || col(column).cast(DataType::Int64);
    let is_sane = micros().gt_eq(lit(CALENDAR.start)).and(micros().lt(lit(CALENDAR.end)));
    when(is_sane).then(col(column)).otherwise(lit(NULL)).alias(column)
}

/// Name of a type as the tables' documentation has it.
pub(super) fn type_name(kind: &DataType) -> String {
    match kind {
        DataType::String => "string".into(),
        DataType::Int32 => "int32".into(),
        DataType::Int64 => "int64".into(),
        DataType::Float64 => "float64".into(),
        DataType::Int128 => "integer".into(),
        DataType::List(item) => format!("list<{}>", type_name(item)),
        DataType::Datetime(..) => "timestamp(us, UTC)".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use polars::prelude::{DataFrame, IntoLazy, NamedFrom, Series, TimeUnit, TimeZone};

    use super::*;

    #[test]
    fn times_that_no_calendar_has_are_null() {
        let ends = [i64::MIN, CALENDAR.start - 1, CALENDAR.start, 0, CALENDAR.end - 1, CALENDAR.end, i64::MAX];
        let time = DataType::Datetime(TimeUnit::Microseconds, Some(TimeZone::UTC));
        let column = Series::new("at".into(), ends).cast(&time).unwrap();
        let table = DataFrame::new(ends.len(), vec![column.into()]).unwrap();
        let sane = table.lazy().select([sane_time("at")]).collect().unwrap();
        let sane = sane.column("at").unwrap();
        assert_eq!(*sane.dtype(), time);
        let is_null: Vec<bool> = sane.is_null().iter().flatten().collect();
        assert_eq!(is_null, [true, true, false, false, false, true, true]);
    }
}
