//! Answers as bytes, for another process: `Answer::to_bytes` and `Answer::from_bytes`.
//!
//! A message (`message`) of all but table and values, and how long these are; behind it the table as an Arrow IPC file,
//! and the values of the maps as little-endian float32. What is read must be as long as it says, so nothing larger than
//! the bytes themselves is made of them.

use std::io::Cursor;
use std::ops::Range;

use polars::prelude::{DataFrame, IpcReader, IpcWriter, SerReader, SerWriter};
use serde::{Deserialize, Serialize};

use super::answer::{Answer, AnswerKind, Maps, ReadCount};
use super::error::{QueryError, caught};
use crate::message::Kind;
use crate::remedy::Note;

/// All but the table and the values.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    rows: usize,
    table_bytes: usize,
    /// Bytes of the difference maps, which are the last.
    differences_bytes: usize,
    maps: Option<Vec<(Range<usize>, Vec<usize>)>>,
    kind: AnswerKind,
    is_chosen: bool,
    keys: Vec<String>,
    notes: Vec<Note>,
    read: ReadCount,
}

impl Answer {
    /// The whole answer as bytes.
    ///
    /// # Errors
    /// If a column is of a type that Arrow IPC does not have.
    pub fn to_bytes(&self) -> Result<Vec<u8>, QueryError> {
        if !self.unmade.is_empty() {
            return self.clone().resampled().to_bytes();
        }
        let mut table = Vec::new();
        caught(|| IpcWriter::new(&mut table).finish(&mut self.table.clone()))?;
        let differences = self.differences.as_deref().map_or_else(|| Ok(Vec::new()), Self::to_bytes)?;
        let description = Description {
            rows: self.table.height(),
            table_bytes: table.len(),
            differences_bytes: differences.len(),
            maps: self.maps.as_ref().map(|maps| maps.maps.clone()),
            kind: self.kind,
            is_chosen: self.is_chosen,
            keys: self.keys.clone(),
            notes: self.notes.clone(),
            read: self.read,
        };
        let values: &[f32] = self.maps.as_ref().map_or(&[], |maps| &maps.values);
        table.reserve_exact(size_of_val(values) + differences.len());
        table.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        table.extend(differences);
        Ok(Kind::Answer.to_bytes(&description, &table)?)
    }

    /// The answer that [`to_bytes`](Self::to_bytes) made bytes of.
    ///
    /// # Errors
    /// If they are not whole, or of another version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, QueryError> {
        Self::read(bytes, true)
    }

    /// The same, with difference maps beside it or without: these have none themselves.
    fn read(bytes: &[u8], with_differences: bool) -> Result<Self, QueryError> {
        let (description, behind): (Description, &[u8]) = Kind::Answer.of_bytes(bytes)?;
        let values_end = behind.len().checked_sub(description.differences_bytes);
        let (behind, differences) = values_end
            .and_then(|end| behind.split_at_checked(end))
            .ok_or_else(|| damaged("the difference maps are cut off"))?;
        let differences = match differences {
            [] => None,
            bytes if with_differences => Some(Box::new(Self::read(bytes, false)?)),
            _ => return Err(damaged("there are difference maps of difference maps")),
        };
        let (table, values) =
            behind.split_at_checked(description.table_bytes).ok_or_else(|| damaged("the table is cut off"))?;
        let table: DataFrame = caught(|| IpcReader::new(Cursor::new(table)).finish())?;
        if table.height() != description.rows {
            return Err(damaged("the table has another number of rows"));
        }
        if description.keys.iter().any(|key| table.get_column_index(key).is_none()) {
            return Err(damaged("a key is no column"));
        }
        let maps = match description.maps {
            None if values.is_empty() => None,
            None => return Err(damaged("there are values, and no maps")),
            Some(maps) => Some(maps_of(maps, values, table.height())?),
        };
        Ok(Self {
            table,
            maps,
            kind: description.kind,
            is_chosen: description.is_chosen,
            keys: description.keys,
            notes: description.notes,
            read: description.read,
            differences,
            unmade: Vec::new(),
        })
    }
}

/// Maps whose places lie among the values, one for each row. No two are at one place: together they would be more than
/// there is.
fn maps_of(maps: Vec<(Range<usize>, Vec<usize>)>, values: &[u8], rows: usize) -> Result<Maps, QueryError> {
    let (values, rest) = values.as_chunks::<{ size_of::<f32>() }>();
    let len = |shape: &[usize]| shape.iter().try_fold(1_usize, |len, &axis| len.checked_mul(axis));
    let fits = |(place, shape): &(Range<usize>, Vec<usize>)| {
        place.start <= place.end && place.end <= values.len() && len(shape) == Some(place.len())
    };
    let all = maps.iter().try_fold(0_usize, |all, (place, _)| all.checked_add(place.len()));
    let is_there = all.is_some_and(|all| all <= values.len());
    if !rest.is_empty() || maps.len() != rows || !maps.iter().all(fits) || !is_there {
        return Err(damaged("the maps are not those of the rows"));
    }
    Ok(Maps { values: values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(), maps })
}

fn damaged(found: &str) -> QueryError {
    Kind::Answer.damaged(found).into()
}

#[cfg(test)]
mod tests {
    use polars::prelude::{
        AnyValue, Column, DataType, Int128Chunked, IntoColumn, NamedFrom, PlSmallStr, Series, TimeUnit, TimeZone,
    };
    use proptest::prelude::{any, prop, prop_assert, proptest};
    use xxhash_rust::xxh3::xxh3_128;

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
            kind: AnswerKind::Map,
            is_chosen: true,
            keys: vec!["seed".into()],
            notes: vec![Note::new("a note", "do something")],
            read: ReadCount { chunks: u64::MAX, bytes: 3 },
            differences: None,
            unmade: Vec::new(),
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
        assert_eq!((found.kind, found.is_chosen), (expected.kind, expected.is_chosen));
    }

    #[test]
    fn an_answer_of_every_type_comes_back_as_it_was() {
        let expected = answer();
        assert_same(&Answer::from_bytes(&expected.to_bytes().unwrap()).unwrap(), &expected);
        let table = Answer::of_table(AnswerKind::Rows, expected.table.slice(0, 0), &[]);
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

    /// Bytes of a message before what its hash is of: what it is, its version, the hash.
    const HEAD: usize = 28;

    /// With a hash that fits, so that what lies behind it is read.
    fn sealed(content: &[u8]) -> Vec<u8> {
        let bytes = answer().to_bytes().unwrap();
        [&bytes[..HEAD - 16], &xxh3_128(content).to_le_bytes(), content].concat()
    }

    #[test]
    fn maps_that_are_not_those_of_the_rows_are_an_error() {
        let of = |maps| Answer { maps: Some(maps), ..answer() }.to_bytes().unwrap();
        let values = vec![0.0; 4];
        for maps in [
            vec![],
            vec![(0..4, vec![4]); 2],
            vec![(0..5, vec![5]); 3],
            vec![(0..4, vec![usize::MAX, 2]); 3],
            vec![(0..3, vec![3]); 3],
        ] {
            let error = Answer::from_bytes(&of(Maps { values: values.clone(), maps })).unwrap_err().to_string();
            assert!(error.contains("maps are not those of the rows"), "{error}");
        }
    }

    #[test]
    fn a_key_that_is_no_column_is_an_error() {
        let odd = Answer { keys: vec!["seed".into(), "sed".into()], ..answer() };
        let error = Answer::from_bytes(&odd.to_bytes().unwrap()).unwrap_err().to_string();
        assert!(error.contains("a key is no column"), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut content in prop::collection::vec(any::<u8>(), 0..200), place in any::<usize>()) {
            prop_assert!(Answer::from_bytes(&content).is_err());
            prop_assert!(Answer::from_bytes(&sealed(&content)).is_err());
            // A sound answer with some other bytes in it.
            let bytes = answer().to_bytes().unwrap();
            let mut changed = bytes[HEAD..].to_vec();
            let start = place % changed.len();
            content.truncate((changed.len() - start).min(8));
            changed[start..start + content.len()].copy_from_slice(&content);
            let _ = Answer::from_bytes(&sealed(&changed));
        }
    }
}
