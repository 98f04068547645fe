//! Answers as bytes, for another process: `Answer::to_bytes` and `Answer::from_bytes`.
//!
//! A mark, the length of a description, the description (JSON: all but table and values, and how long these are), the
//! table as an Arrow IPC file, the values of the maps as little-endian float32, and the XXH3-128 of all before it. What
//! is read must be as long as it says, so nothing larger than the bytes themselves is made of them.

use std::io::Cursor;
use std::ops::Range;

use polars::prelude::{DataFrame, IpcReader, IpcWriter, SerReader, SerWriter};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::answer::{Answer, Maps};
use super::error::{QueryError, caught};
use super::run::ReadCount;
use crate::remedy::Note;

/// What the bytes begin with; the digit is the version of what follows.
const MARK: &[u8; 8] = b"attnans1";
/// Bytes of the length behind the mark, and of the checksum at the end.
const LENGTH: usize = size_of::<u64>();
const CHECKSUM: usize = size_of::<u128>();

/// All but the table and the values.
#[derive(Serialize, Deserialize)]
struct Description {
    rows: usize,
    table_bytes: usize,
    maps: Option<Vec<(Range<usize>, Vec<usize>)>>,
    is_single_map: bool,
    is_summarised: bool,
    keys: Vec<String>,
    notes: Vec<Note>,
    chunks_read: u64,
    bytes_read: u64,
}

impl Answer {
    /// The whole answer as bytes.
    ///
    /// # Errors
    /// If a column is of a type that Arrow IPC does not have.
    pub fn to_bytes(&self) -> Result<Vec<u8>, QueryError> {
        let mut table = Vec::new();
        caught(|| IpcWriter::new(&mut table).finish(&mut self.table.clone()))?;
        let description = Description {
            rows: self.table.height(),
            table_bytes: table.len(),
            maps: self.maps.as_ref().map(|maps| maps.maps.clone()),
            is_single_map: self.is_single_map,
            is_summarised: self.is_summarised,
            keys: self.keys.clone(),
            notes: self.notes.clone(),
            chunks_read: self.read.chunks,
            bytes_read: self.read.bytes,
        };
        let description = serde_json::to_vec(&description).map_err(|error| damaged(&error.to_string()))?;
        let values: &[f32] = self.maps.as_ref().map_or(&[], |maps| &maps.values);
        let mut bytes =
            Vec::with_capacity(MARK.len() + LENGTH + description.len() + table.len() + size_of_val(values) + CHECKSUM);
        bytes.extend_from_slice(MARK);
        bytes.extend_from_slice(&(description.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&description);
        bytes.extend_from_slice(&table);
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        bytes.extend_from_slice(&xxh3_128(&bytes).to_le_bytes());
        Ok(bytes)
    }

    /// The answer that [`to_bytes`](Self::to_bytes) made bytes of.
    ///
    /// # Errors
    /// If they are not whole, or of another version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, QueryError> {
        let behind = bytes.strip_prefix(MARK).ok_or_else(|| damaged("they do not begin like one of this version"))?;
        let (behind, checksum) = behind.split_last_chunk::<CHECKSUM>().ok_or_else(|| damaged("they are cut off"))?;
        if xxh3_128(&bytes[..bytes.len() - CHECKSUM]).to_le_bytes() != *checksum {
            return Err(damaged("their checksum is another: they are cut off or changed"));
        }
        let (length, behind) = behind.split_first_chunk::<LENGTH>().ok_or_else(|| damaged("they are cut off"))?;
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (description, behind) = behind.split_at_checked(length).ok_or_else(|| damaged("they are cut off"))?;
        let description: Description =
            serde_json::from_slice(description).map_err(|error| damaged(&error.to_string()))?;
        let (table, values) =
            behind.split_at_checked(description.table_bytes).ok_or_else(|| damaged("the table is cut off"))?;
        let table: DataFrame = caught(|| IpcReader::new(Cursor::new(table)).finish())?;
        if table.height() != description.rows {
            return Err(damaged("the table has another number of rows"));
        }
        let maps = match description.maps {
            None if values.is_empty() => None,
            None => return Err(damaged("there are values, and no maps")),
            Some(maps) => Some(maps_of(maps, values, table.height())?),
        };
        Ok(Self {
            table,
            maps,
            is_single_map: description.is_single_map,
            is_summarised: description.is_summarised,
            keys: description.keys,
            notes: description.notes,
            read: ReadCount { chunks: description.chunks_read, bytes: description.bytes_read },
        })
    }
}

/// Maps whose places lie among the values, one for each row.
fn maps_of(maps: Vec<(Range<usize>, Vec<usize>)>, values: &[u8], rows: usize) -> Result<Maps, QueryError> {
    let (values, rest) = values.as_chunks::<{ size_of::<f32>() }>();
    let len = |shape: &[usize]| shape.iter().try_fold(1_usize, |len, &axis| len.checked_mul(axis));
    let fits = |(place, shape): &(Range<usize>, Vec<usize>)| {
        place.start <= place.end && place.end <= values.len() && len(shape) == Some(place.len())
    };
    if !rest.is_empty() || maps.len() != rows || !maps.iter().all(fits) {
        return Err(damaged("the maps are not those of the rows"));
    }
    Ok(Maps { values: values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(), maps })
}

fn damaged(found: &str) -> QueryError {
    QueryError::NotAnAnswer { found: found.to_owned() }
}

#[cfg(test)]
mod tests {
    use polars::prelude::{
        AnyValue, Column, DataType, Int128Chunked, IntoColumn, NamedFrom, PlSmallStr, Series, TimeUnit, TimeZone,
    };
    use proptest::prelude::{any, prop, prop_assert, proptest};

    use super::*;

    /// Every type that tables and SQL have, with nulls, NaN and the largest seeds.
    fn answer() -> Answer {
        let name = PlSmallStr::from_static;
        let seeds: Int128Chunked = [Some(i128::from(u64::MAX)), None, Some(-(1 << 63))].into_iter().collect();
        let texts = Series::new(PlSmallStr::EMPTY, ["a", "é\n"]);
        let lists = vec![
            AnyValue::List(texts),
            AnyValue::Null,
            AnyValue::List(Series::new_empty(PlSmallStr::EMPTY, &DataType::String)),
        ];
        let lists = Series::from_any_values(name("lists"), &lists, true).unwrap();
        let times = Series::new(name("time"), [Some(-1_i64), None, Some(i64::MAX / 2)]);
        let zoned = DataType::Datetime(TimeUnit::Microseconds, Some(TimeZone::UTC));
        let columns = vec![
            seeds.clone().into_decimal_unchecked(20, 0).into_column().with_name(name("seed")),
            seeds.into_column().with_name(name("wide")),
            lists.into_column(),
            times.cast(&zoned).unwrap().into_column().with_name(name("zoned")),
            times.cast(&DataType::Datetime(TimeUnit::Microseconds, None)).unwrap().into_column(),
            times.cast(&DataType::Duration(TimeUnit::Microseconds)).unwrap().into_column().with_name(name("long")),
            Column::new(name("float"), [Some(f64::NAN), None, Some(-0.0)]),
            Column::new(name("flag"), [Some(true), None, Some(false)]),
            Column::new(name("text"), [Some(""), None, Some("word")]),
            Column::new(name("count"), [u32::MAX, 0, 1]),
            Series::new_null(name("nothing"), 3).into_column(),
        ];
        let values = vec![1.0, f32::NAN, f32::NEG_INFINITY, -0.0, 5.0];
        Answer {
            table: DataFrame::new(3, columns).unwrap(),
            maps: Some(Maps { values, maps: vec![(4..5, vec![1]), (0..4, vec![1, 2, 2]), (2..2, vec![0])] }),
            is_single_map: true,
            is_summarised: true,
            keys: vec!["seed".into()],
            notes: vec![Note::new("a note", "do something")],
            read: ReadCount { chunks: u64::MAX, bytes: 3 },
        }
    }

    fn assert_same(found: &Answer, expected: &Answer) {
        assert!(found.table.equals_missing(&expected.table), "{} {}", found.table, expected.table);
        assert_eq!(found.table.dtypes(), expected.table.dtypes());
        let bits = |answer: &Answer| {
            let maps = answer.maps.as_ref().unwrap();
            (maps.values.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), maps.maps.clone())
        };
        assert_eq!(bits(found), bits(expected));
        assert_eq!((&found.keys, &found.notes, found.read), (&expected.keys, &expected.notes, expected.read));
        assert_eq!((found.is_single_map, found.is_summarised), (expected.is_single_map, expected.is_summarised));
    }

    #[test]
    fn an_answer_of_every_type_comes_back_as_it_was() {
        let expected = answer();
        assert_same(&Answer::from_bytes(&expected.to_bytes().unwrap()).unwrap(), &expected);
        let table = Answer::of_table(expected.table.slice(0, 0));
        let again = Answer::from_bytes(&table.to_bytes().unwrap()).unwrap();
        assert_eq!((again.table.dtypes(), again.maps), (table.table.dtypes(), None));
    }

    #[test]
    fn what_is_cut_off_or_changed_is_an_error() {
        let bytes = answer().to_bytes().unwrap();
        for end in 0..bytes.len() {
            assert!(Answer::from_bytes(&bytes[..end]).is_err(), "{end} bytes");
        }
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 0x10;
            assert!(Answer::from_bytes(&changed).is_err(), "byte {place}");
        }
    }

    /// With a checksum that fits, so that what lies behind it is read.
    fn sealed(content: &[u8]) -> Vec<u8> {
        let mut bytes = [MARK.as_slice(), content].concat();
        bytes.extend_from_slice(&xxh3_128(&bytes).to_le_bytes());
        bytes
    }

    #[test]
    fn maps_that_are_not_those_of_the_rows_are_an_error() {
        let of = |maps| Answer { maps: Some(maps), ..answer() }.to_bytes().unwrap();
        let values = vec![0.0; 4];
        for maps in [vec![], vec![(0..4, vec![4]); 2], vec![(0..5, vec![5]); 3], vec![(0..4, vec![usize::MAX, 2]); 3]] {
            let error = Answer::from_bytes(&of(Maps { values: values.clone(), maps })).unwrap_err().to_string();
            assert!(error.contains("maps are not those of the rows"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut content in prop::collection::vec(any::<u8>(), 0..200), place in any::<usize>()) {
            prop_assert!(Answer::from_bytes(&content).is_err());
            prop_assert!(Answer::from_bytes(&sealed(&content)).is_err());
            // A sound answer with some other bytes in it.
            let bytes = answer().to_bytes().unwrap();
            let mut changed = bytes[MARK.len()..bytes.len() - CHECKSUM].to_vec();
            let start = place % changed.len();
            content.truncate((changed.len() - start).min(8));
            changed[start..start + content.len()].copy_from_slice(&content);
            let _ = Answer::from_bytes(&sealed(&changed));
        }
    }
}
