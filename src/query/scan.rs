//! Parts of a table, read for polars: the columns that a plan asks for. Where it has a condition, that is decided piece
//! by piece, and what is read for a piece are the rows for which those before it are true.

use std::any::Any;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use parquet::arrow::arrow_reader::RowSelection;
use polars::prelude::{
    AnonymousScan, AnonymousScanArgs, BooleanChunked, ChunkExpandAtIndex, DataFrame, DataType, Expr, IntoLazy,
    LazyFrame, Operator, OptFlags, PlSmallStr, PolarsError, PolarsResult, ScanArgsAnonymous, Schema, col,
};
use polars_core::runtime::THREAD_POOL;
use rayon::prelude::*;

use super::exact::conjuncts;
use super::frame::{bits_of, frame_of, to_polars};
use crate::store::{Part, PartColumns, Snapshot, StoreError, joined};

/// Bytes of parts that are read together: of many small ones, polars is asked once for all.
const GROUP_BYTES: u64 = 4 << 20;
/// What the column of marks is called.
const MARKED: &str = "attnkit_marked";

/// The parts of one table.
#[derive(Clone)]
pub(super) struct PartScan {
    /// What plans call it.
    name: &'static str,
    snapshot: Snapshot,
    /// Files, one for each video, and row groups of packs.
    parts: Vec<Part>,
    /// Their columns.
    table: SchemaRef,
    /// The same in polars' words.
    schema: polars::prelude::SchemaRef,
    /// Bytes of parts that are read together.
    group_bytes: u64,
}

impl AnonymousScan for PartScan {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn allows_projection_pushdown(&self) -> bool {
        true
    }

    fn allows_predicate_pushdown(&self) -> bool {
        true
    }

    fn scan(&self, asked: AnonymousScanArgs) -> PolarsResult<DataFrame> {
        let columns: Vec<&str> = match &asked.with_columns {
            Some(columns) => columns.iter().map(PlSmallStr::as_str).collect(),
            None => self.schema.iter_names().map(PlSmallStr::as_str).collect(),
        };
        let Some(limit) = asked.n_rows else {
            let condition = asked.predicate.as_ref();
            // On the threads that polars decides conditions on: no group is handed from one pool to another.
            let read: PolarsResult<Vec<DataFrame>> = THREAD_POOL.install(|| {
                let groups = self.groups().into_par_iter();
                groups.map(|group| self.read(group, &columns, condition)).collect()
            });
            return self.stacked(&columns, read?);
        };
        let mut read = Vec::new();
        let mut missing = limit;
        for group in self.groups() {
            if missing == 0 {
                break;
            }
            let rows = self.read(group, &columns, None)?.head(Some(missing));
            missing -= rows.height();
            read.push(rows);
        }
        let mut rows = self.stacked(&columns, read)?;
        for piece in asked.predicate.iter().flat_map(|condition| self.pieces(condition)) {
            rows = rows.filter(&marked(&rows, &piece.condition)?)?;
        }
        Ok(rows)
    }
}

impl PartScan {
    /// Parts of a table with these columns.
    pub fn new(name: &'static str, snapshot: Snapshot, parts: Vec<Part>, table: SchemaRef) -> Self {
        let schema = to_polars(&table);
        let mut parts: Vec<Part> = parts.into_iter().flat_map(Part::by_row_groups).collect();
        // Of a store that is packed, rows come in the order in which they came before; of one that is so in part,
        // nearly.
        parts.sort_by(|one, other| one.first.cmp(&other.first));
        Self { name, snapshot, parts, table, schema, group_bytes: GROUP_BYTES }
    }

    /// With every part read by itself.
    #[cfg(test)]
    pub fn apart(self) -> Self {
        Self { group_bytes: 1, ..self }
    }

    /// The table of these parts, as a lazy frame.
    pub fn lazy(self) -> PolarsResult<LazyFrame> {
        let schema = Some(self.schema.clone());
        let arguments = ScanArgsAnonymous { schema, name: self.name, ..ScanArgsAnonymous::default() };
        LazyFrame::anonymous_scan(Arc::new(self), arguments)
    }

    /// The tables of a few parts each, which together are this one, but for the order of the columns: where rows are
    /// only counted, polars does it by the first, and integers are read fastest.
    pub fn split(&self) -> PolarsResult<Vec<LazyFrame>> {
        let (integers, others): (Vec<_>, Vec<_>) = self.schema.iter().partition(|(_, kind)| kind.is_integer());
        let ordered = integers.into_iter().chain(others).map(|(name, kind)| (name.clone(), kind.clone()));
        let schema = Arc::new(ordered.collect::<Schema>());
        let few = |parts: &[Part]| Self { parts: parts.to_vec(), schema: schema.clone(), ..self.clone() }.lazy();
        self.groups().into_iter().map(few).collect()
    }

    /// The parts, a few of the small ones together.
    fn groups(&self) -> Vec<&[Part]> {
        let mut groups = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for (index, part) in self.parts.iter().enumerate() {
            bytes += part.bytes;
            if bytes >= self.group_bytes || index + 1 == self.parts.len() {
                groups.push(&self.parts[start..=index]);
                (start, bytes) = (index + 1, 0);
            }
        }
        groups
    }

    /// Columns of a group's rows for which a condition is true.
    fn read(&self, group: &[Part], columns: &[&str], condition: Option<&Expr>) -> PolarsResult<DataFrame> {
        let pieces = condition.map(|condition| self.pieces(condition)).unwrap_or_default();
        let mut rows = GroupRows::default();
        for part in group {
            let part = self.snapshot.columns(part, &self.table).map_err(as_polars)?;
            if !pieces.iter().any(|piece| piece.rules_out(&part)) {
                rows.add_part(part)?;
            }
        }
        for piece in &pieces {
            if rows.parts.is_empty() {
                break;
            }
            rows.add_columns(&piece.columns)?;
            rows.keep(&piece.condition)?;
        }
        if rows.parts.is_empty() {
            return Ok(self.empty(columns));
        }
        rows.add_columns(columns)?;
        rows.frame.select(columns.iter().copied())
    }

    /// A condition, cut at its ANDs: what asks of texts and integers first, which are read faster than floats.
    fn pieces(&self, condition: &Expr) -> Vec<Piece> {
        let mut conditions = Vec::new();
        conjuncts(condition.clone(), &mut conditions);
        // What polars only shows is a hint of its own: of the first rows in some order, which may come.
        conditions.retain(|condition| !matches!(condition, Expr::Display { .. }));
        let mut pieces: Vec<Piece> = conditions.into_iter().map(Piece::new).collect();
        let is_float = |name: &PlSmallStr| self.schema.get(name).is_some_and(DataType::is_float);
        pieces.sort_by_key(|piece| piece.columns.iter().filter(|name| is_float(name)).count());
        pieces
    }

    fn stacked(&self, columns: &[&str], frames: Vec<DataFrame>) -> PolarsResult<DataFrame> {
        let mut frames = frames.into_iter();
        let Some(mut all) = frames.next() else { return Ok(self.empty(columns)) };
        for frame in frames {
            all.vstack_mut_owned(frame)?;
        }
        Ok(all)
    }

    fn empty(&self, columns: &[&str]) -> DataFrame {
        let known = columns.iter().filter_map(|name| Some(((*name).into(), self.schema.get(name)?.clone())));
        DataFrame::empty_with_schema(&known.collect::<Schema>())
    }
}

/// A condition, and the columns that it asks of.
struct Piece {
    condition: Expr,
    columns: Vec<PlSmallStr>,
}

impl Piece {
    fn new(condition: Expr) -> Self {
        let columns: BTreeSet<PlSmallStr> = condition.clone().meta().root_names().into_iter().collect();
        Self { condition, columns: columns.into_iter().collect() }
    }

    /// Whether it is true of no row of a part, as far as can be told without reading one.
    fn rules_out(&self, part: &PartColumns) -> bool {
        let constants: Option<Vec<(&str, ArrayRef)>> =
            self.columns.iter().map(|name| Some((name.as_str(), part.constant(name)?))).collect();
        let row = constants.and_then(|constants| RecordBatch::try_from_iter(constants).ok());
        let marks = row.and_then(|row| marked(&frame_of(&row).ok()?, &self.condition).ok());
        marks.map_or_else(|| !may_hold(&self.condition, part), |marks| !marks.any())
    }
}

/// Whether a condition may be true of a row of a part, as far as the bounds of its columns tell.
fn may_hold(condition: &Expr, part: &PartColumns) -> bool {
    match condition {
        Expr::BinaryExpr { left, op: Operator::And | Operator::LogicalAnd, right } => {
            may_hold(left, part) && may_hold(right, part)
        }
        Expr::BinaryExpr { left, op: Operator::Or | Operator::LogicalOr, right } => {
            may_hold(left, part) || may_hold(right, part)
        }
        Expr::BinaryExpr { left, op, right } => match (left.as_ref(), right.as_ref()) {
            (Expr::Column(name), value @ Expr::Literal(_)) => may_compare(name, *op, value, part),
            (value @ Expr::Literal(_), Expr::Column(name)) => {
                let flipped = match op {
                    Operator::Lt => Operator::Gt,
                    Operator::LtEq => Operator::GtEq,
                    Operator::Gt => Operator::Lt,
                    Operator::GtEq => Operator::LtEq,
                    other => *other,
                };
                may_compare(name, flipped, value, part)
            }
            _ => true,
        },
        _ => true,
    }
}

/// Whether a comparison of a column with a value may be true of a row of a part.
fn may_compare(column: &PlSmallStr, op: Operator, value: &Expr, part: &PartColumns) -> bool {
    let (least, most) = (col("least"), col("most"));
    let within = match op {
        Operator::Eq => least.lt_eq(value.clone()).and(most.gt_eq(value.clone())),
        Operator::Lt => least.lt(value.clone()),
        Operator::LtEq => least.lt_eq(value.clone()),
        Operator::Gt => most.gt(value.clone()),
        Operator::GtEq => most.gt_eq(value.clone()),
        _ => return true,
    };
    let marks = part.bounds(column).and_then(|[least, most]| {
        let row = RecordBatch::try_from_iter([("least", least), ("most", most)]).ok()?;
        marked(&frame_of(&row).ok()?, &within).ok()
    });
    // Where it cannot be told, it may.
    marks.is_none_or(|marks| marks.any() || marks.null_count() > 0)
}

/// The rows of a group that are left, with the columns that were read of them.
#[derive(Default)]
struct GroupRows {
    parts: Vec<PartRows>,
    frame: DataFrame,
}

/// The rows of a part that are left.
struct PartRows {
    part: PartColumns,
    /// `None`: all.
    selected: Option<RowSelection>,
    count: usize,
}

impl GroupRows {
    fn add_part(&mut self, part: PartColumns) -> PolarsResult<()> {
        let count = part.rows();
        self.parts.push(PartRows { part, selected: None, count });
        self.frame = DataFrame::new(self.frame.height() + count, Vec::new())?;
        Ok(())
    }

    /// Reads columns that are not there yet.
    fn add_columns(&mut self, columns: &[impl AsRef<str>]) -> PolarsResult<()> {
        let columns = columns.iter().map(AsRef::as_ref);
        let new: Vec<&str> = columns.filter(|name| self.frame.get_column_index(name).is_none()).collect();
        if new.is_empty() {
            return Ok(());
        }
        let read = self.parts.iter().map(|rows| rows.part.read(&new, rows.selected.as_ref()));
        let batches = read.collect::<Result<Vec<_>, _>>().map_err(as_polars)?;
        let Some(schema) = batches.first().map(RecordBatch::schema) else { return Ok(()) };
        let read = frame_of(&joined(&schema, batches).map_err(damaged)?)?;
        self.frame.hstack_mut(read.columns())?;
        Ok(())
    }

    /// Keeps the rows for which a condition is true.
    fn keep(&mut self, condition: &Expr) -> PolarsResult<()> {
        let marks = marked(&self.frame, condition)?;
        if marks.all() && marks.null_count() == 0 {
            return Ok(());
        }
        self.frame = self.frame.filter(&marks)?;
        let bits = bits_of(&marks);
        let mut start = 0;
        for rows in &mut self.parts {
            let of_part = bits.slice(start, rows.count);
            start += rows.count;
            rows.count = of_part.true_count();
            let kept = RowSelection::from_filters(&[of_part]);
            rows.selected = Some(rows.selected.as_ref().map_or_else(|| kept.clone(), |before| before.and_then(&kept)));
        }
        self.parts.retain(|rows| rows.count > 0);
        Ok(())
    }
}

/// For each row whether a condition is true; null where that is not known.
fn marked(rows: &DataFrame, condition: &Expr) -> PolarsResult<BooleanChunked> {
    // It was optimised with the plan that it comes of.
    let rows_alone = rows.clone().lazy().with_optimizations(OptFlags::TYPE_COERCION);
    let marks = rows_alone.select([condition.clone().alias(MARKED)]).collect()?;
    let marks = marks.column(MARKED)?.bool()?.clone();
    // What asks of no column has one value for all rows.
    Ok(if marks.len() == rows.height() { marks } else { marks.new_from_index(0, rows.height()) })
}

/// What is wrong with a part, through polars.
fn as_polars(error: StoreError) -> PolarsError {
    PolarsError::IO { error: io::Error::other(error).into(), msg: None }
}

fn damaged(error: ArrowError) -> PolarsError {
    PolarsError::ComputeError(error.to_string().into())
}

#[cfg(test)]
mod tests {
    use parquet::file::metadata::RowGroupMetaData;
    use polars::prelude::lit;

    use super::super::filter::Filter;
    use super::*;
    use crate::ingest::{self, IngestOptions, Silent};
    use crate::kernel::StepMeasurer;
    use crate::shape::{AxisNumbers, StepShape};
    use crate::store::storage::Memory;
    use crate::store::storage::counting::Counting;
    use crate::store::{HeadRow, Store, VideoIndex, VideoRecord, heads_batch, heads_schema, new_generation};

    const COLUMNS: [&str; 5] = ["video_id", "token", "step", "head", "top5"];

    fn parts(dir: &std::path::Path) -> (Snapshot, Vec<Part>) {
        let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/dataset");
        ingest::run(&[dump], dir.join("store"), &IngestOptions::default(), &Silent).unwrap();
        let snapshot = Store::open(dir.join("store")).unwrap().snapshot();
        let parts = snapshot.heads_of(&snapshot.parts().unwrap()).unwrap();
        assert_eq!(parts.len(), 16);
        (snapshot, parts)
    }

    fn scan((snapshot, parts): &(Snapshot, Vec<Part>), group_bytes: u64) -> LazyFrame {
        let scan = PartScan::new("HEADS", snapshot.clone(), parts.clone(), heads_schema());
        PartScan { group_bytes, ..scan }.lazy().unwrap()
    }

    /// However parts are grouped, pieces ordered and rows selected, it is the rows that a plain filter of all keeps.
    #[test]
    fn rows_and_columns_are_those_that_a_filter_of_all_rows_keeps() {
        let dir = tempfile::tempdir().unwrap();
        let parts = parts(dir.path());
        let all = scan(&parts, GROUP_BYTES).collect().unwrap();
        assert_eq!(all.height(), 6720);
        for condition in [
            "token = 'circle'",
            "video_id = 'prompt_003_vid001' AND top5 > 0.3",
            "video_id = 'nowhere' AND top5 > 0.3",
            "video_id <> 'prompt_003_vid001' AND block IN (1, 3) AND entropy < 6 AND top5 > 0.3 AND head > 0",
            "entropy < 6 OR step = 3",
            "entropy < -1",
            "entropy > -1",
            "nonfinite = 0 AND step >= 0",
            "block IS NULL",
            "centroid_y IS NOT NULL AND spread > centroid_x",
            "1 = 1",
            "1 = 0 AND step = 1",
            "token LIKE 'c%' AND NOT (step BETWEEN 2 AND 7)",
        ] {
            let conditions = Filter::parse(condition).unwrap().conditions().unwrap();
            let pieces = conditions.of_heads().into_iter().chain(conditions.of_steps());
            let condition_of_all = pieces.reduce(Expr::and).unwrap();
            let columns = COLUMNS.map(col);
            let expected =
                all.clone().lazy().filter(condition_of_all.clone()).select(columns.clone()).collect().unwrap();
            for group_bytes in [1, 200_000, GROUP_BYTES] {
                let rows = scan(&parts, group_bytes).filter(condition_of_all.clone()).select(columns.clone());
                assert!(rows.clone().collect().unwrap().equals_missing(&expected), "{condition}, {group_bytes}");
                for limit in [0_u32, 1, 500] {
                    let some = rows.clone().limit(limit).collect().unwrap();
                    assert!(
                        some.equals_missing(&expected.head(Some(limit as usize))),
                        "{condition}, {group_bytes}, {limit}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_limit_reads_no_more_parts_than_it_takes() {
        let dir = tempfile::tempdir().unwrap();
        let mut parts = parts(dir.path());
        let expected = scan(&parts, 1).collect().unwrap();
        parts.1.truncate(2);
        let gone = Part { key: "index/heads/gone.parquet".into(), first: "z".into(), ..parts.1[0].clone() };
        parts.1.push(gone);
        let first = scan(&parts, 1).limit(500).collect().unwrap();
        assert!(first.equals_missing(&expected.head(Some(500))));
        let error = scan(&parts, 1).collect().unwrap_err().to_string();
        assert!(error.contains("gone.parquet"), "{error}");
    }

    #[test]
    fn no_parts_are_a_table_without_rows() {
        let dir = tempfile::tempdir().unwrap();
        let nothing = (Store::create(dir.path()).unwrap().snapshot(), Vec::new());
        let none = scan(&nothing, GROUP_BYTES).filter(col("step").gt(3)).select(COLUMNS.map(col)).collect().unwrap();
        assert_eq!((none.height(), none.width()), (0, COLUMNS.len()));
        let none = scan(&nothing, GROUP_BYTES).limit(3).collect().unwrap();
        assert_eq!((none.height(), none.width()), (0, heads_schema().fields().len()));
    }

    #[test]
    fn of_a_pack_those_row_groups_and_columns_are_read_that_the_condition_leaves() {
        let counting = Counting::new(Arc::new(Memory::new()));
        let store = Store::create_on(Arc::new(counting.clone())).unwrap();
        let shape = StepShape { blocks: 1, heads: 1, spatial: 2, tokens: 1 };
        let map = StepMeasurer::new(shape, None).measure(&[0.25_f32, 0.75]).maps[0];
        let mut random = fastrand::Rng::with_seed(1);
        for video in 0..12 {
            let video = format!("v{video:02}");
            let row = |step: i32| {
                let mut row = HeadRow::new(step, shape, &AxisNumbers::default(), None, &map);
                row.statistics.distribution.entropy = random.f64();
                row
            };
            let rows: Vec<HeadRow> = (0..80_000).map(row).collect();
            let heads = [("word".to_owned(), heads_batch(&video, "word", &rows).unwrap())].into();
            let record = VideoRecord { video_id: video, ..VideoRecord::default() };
            let index = VideoIndex { generation: new_generation(), record, rows: Vec::new() };
            let staged = store.stage(&index, &heads, None, None).unwrap();
            assert_eq!(store.publish(&[staged]).unwrap(), [true]);
        }
        assert_eq!(store.compact(&Silent).unwrap().packs, 1);
        let snapshot = store.snapshot();
        let parts = snapshot.heads_of(&snapshot.parts().unwrap()).unwrap();
        let pack = parts[0].pack.clone().unwrap();
        let chunks = |groups: &[usize], columns: &[&str]| -> u64 {
            let groups = groups.iter().map(|group| pack.row_group(*group));
            let chunks = groups.flat_map(RowGroupMetaData::columns);
            let chunks = chunks.filter(|chunk| columns.contains(&&*chunk.column_path().string()));
            chunks.map(|chunk| chunk.byte_range().1).sum()
        };
        let both = ["video_id", "entropy"];
        for (condition, groups, rows) in [
            // Rows 560,000 to 640,000, in groups of 131,072.
            (col("video_id").eq(lit("v07")), vec![4], 80_000),
            (lit("v07").eq(col("video_id")), vec![4], 80_000),
            (col("video_id").lt(lit("v02")), vec![0, 1], 160_000),
            (col("video_id").gt_eq(lit("v11")), vec![6, 7], 80_000),
            (col("video_id").eq(lit("v00")).or(col("video_id").eq(lit("v11"))), vec![0, 6, 7], 160_000),
            (col("video_id").eq(lit("v00")).and(col("video_id").eq(lit("v11"))), vec![], 0),
            (col("video_id").eq(lit("w")), vec![], 0),
            (col("video_id").gt(lit("v10z")).or(col("video_id").is_null()), (0..8).collect(), 80_000),
        ] {
            counting.take();
            let scan = PartScan::new("HEADS", snapshot.clone(), parts.clone(), heads_schema()).lazy().unwrap();
            let found = scan.filter(condition.clone()).select(both.map(col)).collect().unwrap();
            assert_eq!(found.height(), rows, "{condition}");
            // Of a group of which no row is left, no more is read; of one that has one video, not even which it is.
            let read = counting.take();
            let least = if groups.len() < 8 { chunks(&groups, &both[1..]) } else { chunks(&groups, &both[..1]) / 2 };
            assert!((least..=chunks(&groups, &both)).contains(&read), "{condition} {read}");
        }
    }
}
