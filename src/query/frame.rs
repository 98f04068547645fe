//! Columns of the tables as polars has them: the values stay where the reader of Parquet put them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::buffer::{BooleanBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowNativeType, DataType, Decimal128Type, Float64Type, Int32Type, Int64Type, Schema as ArrowSchema,
    TimestampMicrosecondType,
};
use polars::prelude::{
    BooleanChunked, Column, DataFrame, DataType as PolarsType, Field, PlSmallStr, PolarsResult, Schema, SchemaRef,
    Series, TimeUnit as PolarsUnit, TimeZone, polars_bail,
};
use polars_arrow::array::{Array as PolarsArray, ListArray, PrimitiveArray, Utf8ViewArray, View};
use polars_arrow::bitmap::Bitmap;
use polars_arrow::datatypes::{ArrowDataType, TimeUnit};
use polars_arrow::offset::OffsetsBuffer;
use polars_arrow::types::NativeType;
use polars_buffer::Buffer;

/// A table's columns in polars' words.
pub(super) fn to_polars(schema: &ArrowSchema) -> SchemaRef {
    fn kind(of: &DataType) -> PolarsType {
        match of {
            DataType::Int32 => PolarsType::Int32,
            DataType::Int64 => PolarsType::Int64,
            DataType::Float64 => PolarsType::Float64,
            DataType::Decimal128(precision, _) => PolarsType::Decimal((*precision).into(), 0),
            DataType::List(item) => PolarsType::List(Box::new(kind(item.data_type()))),
            DataType::Timestamp(..) => PolarsType::Datetime(PolarsUnit::Microseconds, Some(TimeZone::UTC)),
            _ => PolarsType::String,
        }
    }
    let fields =
        schema.fields().iter().map(|field| Field::new(PlSmallStr::from_str(field.name()), kind(field.data_type())));
    Arc::new(fields.collect::<Schema>())
}

/// Rows as a frame.
pub(super) fn frame_of(rows: &RecordBatch) -> PolarsResult<DataFrame> {
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns());
    let columns = columns.map(|(field, values)| {
        let name = PlSmallStr::from_str(field.name());
        Ok(Column::from(Series::try_from((name, polars_array(values)?))?))
    });
    DataFrame::new(rows.num_rows(), columns.collect::<PolarsResult<_>>()?)
}

/// Marks as bits: what is null is not marked.
pub(super) fn bits_of(marks: &BooleanChunked) -> BooleanArray {
    let marks = marks.rechunk();
    let bits = marks.downcast_iter().next().map(|marks| match marks.validity() {
        Some(known) => marks.values() & known,
        None => marks.values().clone(),
    });
    let bits = bits.unwrap_or_default();
    let (bytes, start, length) = bits.as_slice();
    BooleanArray::new(BooleanBuffer::new(bytes.to_vec().into(), start, length), None)
}

fn polars_array(array: &ArrayRef) -> PolarsResult<Box<dyn PolarsArray>> {
    let validity = array.nulls().map(|nulls| Bitmap::from_u8_slice(nulls.inner().sliced(), nulls.len()));
    Ok(match array.data_type() {
        DataType::Int32 => primitive(array.as_primitive::<Int32Type>().values(), ArrowDataType::Int32, validity),
        DataType::Int64 => primitive(array.as_primitive::<Int64Type>().values(), ArrowDataType::Int64, validity),
        DataType::Float64 => primitive(array.as_primitive::<Float64Type>().values(), ArrowDataType::Float64, validity),
        DataType::Decimal128(precision, scale) => {
            let kind = ArrowDataType::Decimal((*precision).into(), usize::try_from(*scale).unwrap_or(0));
            primitive(array.as_primitive::<Decimal128Type>().values(), kind, validity)
        }
        DataType::Timestamp(_, zone) => {
            let kind = ArrowDataType::Timestamp(TimeUnit::Microsecond, zone.as_deref().map(PlSmallStr::from_str));
            primitive(array.as_primitive::<TimestampMicrosecondType>().values(), kind, validity)
        }
        DataType::Utf8View => {
            let texts = array.as_string_view();
            let shared = texts.data_buffers().iter().map(|bytes| Buffer::from_owner(bytes.clone())).collect();
            let views = Buffer::from_owner(Views(texts.views().clone()));
            Utf8ViewArray::try_new(ArrowDataType::Utf8View, views, shared, validity)?.boxed()
        }
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            let values = polars_array(lists.values())?;
            let offsets: Vec<i64> = lists.offsets().iter().map(|offset| i64::from(*offset)).collect();
            let kind = ListArray::<i64>::default_datatype(values.dtype().clone());
            ListArray::try_new(kind, OffsetsBuffer::try_from(offsets)?, values, validity)?.boxed()
        }
        other => polars_bail!(ComputeError: "the tables have no columns of {other}"),
    })
}

fn primitive<T: NativeType + ArrowNativeType>(
    values: &ScalarBuffer<T>,
    kind: ArrowDataType,
    validity: Option<Bitmap>,
) -> Box<dyn PolarsArray> {
    PrimitiveArray::new(kind, Buffer::from_owner(values.clone()), validity).boxed()
}

/// Places of texts: both libraries lay them out as Arrow specifies.
struct Views(ScalarBuffer<u128>);

impl AsRef<[View]> for Views {
    fn as_ref(&self) -> &[View] {
        bytemuck::cast_slice(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Decimal128Array, Float64Array, Int32Array, ListArray as ArrowListArray, StringViewArray,
        TimestampMicrosecondArray,
    };
    use arrow::datatypes::{Field as ArrowField, Schema as ArrowSchema};

    use super::*;

    #[test]
    fn columns_of_every_type_keep_their_values_and_nulls_also_in_slices() {
        let long = "longer than the twelve bytes that fit into a view";
        let texts = StringViewArray::from(vec![Some("a"), None, Some(long), Some(""), Some(long)]);
        let seeds = Decimal128Array::from(vec![Some(i128::from(u64::MAX)), Some(-1), None, Some(0), Some(7)]);
        let times = TimestampMicrosecondArray::from(vec![Some(0), None, Some(-5), Some(i64::MAX), Some(3)]);
        let lists = ArrowListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1), None]),
            None,
            Some(vec![]),
            Some(vec![Some(4)]),
            Some(vec![Some(5), Some(6)]),
        ]);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("int", Arc::new(Int32Array::from(vec![Some(i32::MIN), None, Some(2), Some(3), None]))),
            ("float", Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(0.5), None, Some(-0.0), Some(1.0)]))),
            ("text", Arc::new(texts)),
            ("seed", Arc::new(seeds.with_precision_and_scale(20, 0).unwrap())),
            ("time", Arc::new(times.with_timezone("UTC"))),
            ("list", Arc::new(lists)),
        ];
        let fields = columns.iter().map(|(name, values)| ArrowField::new(*name, values.data_type().clone(), true));
        let schema = Arc::new(ArrowSchema::new(fields.collect::<Vec<_>>()));
        let rows = RecordBatch::try_new(schema, columns.into_iter().map(|(_, values)| values).collect()).unwrap();

        let said = |frame: &DataFrame, name: &str| -> Vec<String> {
            let column = frame.column(name).unwrap();
            (0..frame.height()).map(|row| column.get(row).unwrap().to_string()).collect()
        };
        let whole = frame_of(&rows).unwrap();
        let part = frame_of(&rows.slice(1, 3)).unwrap();
        let expected = [
            ("int", vec!["-2147483648", "null", "2", "3", "null"]),
            ("float", vec!["NaN", "0.5", "null", "-0.0", "1.0"]),
            (
                "text",
                vec![
                    "\"a\"",
                    "null",
                    "\"longer than the twelve bytes that fit into a view\"",
                    "\"\"",
                    "\"longer than the twelve bytes that fit into a view\"",
                ],
            ),
            ("seed", vec!["18446744073709551615", "-1", "null", "0", "7"]),
        ];
        for (name, values) in expected {
            assert_eq!(said(&whole, name), values, "{name}");
            assert_eq!(said(&part, name), values[1..4], "{name}");
        }
        let times = whole.column("time").unwrap();
        assert_eq!(times.dtype(), &PolarsType::Datetime(PolarsUnit::Microseconds, Some(TimeZone::UTC)));
        let micros: Vec<Option<i64>> = times.datetime().unwrap().physical().iter().collect();
        assert_eq!(micros, [Some(0), None, Some(-5), Some(i64::MAX), Some(3)]);
        let lists = [Some(vec![Some(1), None]), None, Some(vec![]), Some(vec![Some(4)]), Some(vec![Some(5), Some(6)])];
        for (frame, lists) in [(&whole, &lists[..]), (&part, &lists[1..4])] {
            let column = frame.column("list").unwrap().list().unwrap().clone();
            let values = |list: Series| list.i32().unwrap().iter().collect::<Vec<_>>();
            let found: Vec<_> = (0..frame.height()).map(|row| column.get_as_series(row).map(values)).collect();
            assert_eq!(found, lists);
        }
    }
}
