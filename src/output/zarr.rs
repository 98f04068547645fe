//! Maps as a labelled Zarr v3 array: one dimension for each key where the rows are a full product of the keys' values,
//! else one for the rows.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use polars::prelude::{AnyValue, Column, DataType};
use serde_json::{Map, Value, json};
use zarrs::array::Array;
use zarrs::filesystem::FilesystemStore;

use super::text::cell;
use super::{Format, OutputError, maps_of};
use crate::query::{Answer, AnswerKind};
use crate::remedy::{OptionName, Remedy};

/// A chunk holds about this much.
const CHUNK_BYTES: usize = 8 << 20;

/// A labelled axis.
struct Axis {
    name: String,
    labels: Vec<(String, Labels)>,
    len: usize,
}

/// The values of a coordinate.
enum Labels {
    Text(Vec<String>),
    Int(Vec<i64>),
    Unsigned(Vec<u64>),
    Float(Vec<f64>),
}

/// Writes a group with the array `attention` and its coordinates.
pub(super) fn write(answer: &Answer, path: &Path) -> Result<(), OutputError> {
    let maps = maps_of(answer, Format::Zarr)?;
    if maps.maps.is_empty() {
        return Err(OutputError::Unfit { found: "there are no maps to write".into(), remedy: "select some".into() });
    }
    let shape = maps.common_shape().ok_or_else(|| OutputError::Unfit {
        found: "the maps have different shapes, so they are no array".into(),
        remedy: Remedy::of("select those of one shape with {}, or write parquet", [OptionName::Where.unsaid()]),
    })?;
    // A single map has its keys as coordinates without a dimension.
    let is_single = answer.kind == AnswerKind::Map && answer.table.height() == 1;
    let (axes, order) = if is_single { (Vec::new(), vec![0]) } else { axes(answer) };
    let scalars: Vec<&Column> =
        keys(answer).into_iter().filter(|column| is_single || is_of_one_piece(column)).collect();
    let places: &[&str] = if shape.len() == 3 { &["frame", "height", "width"] } else { &["spatial"] };
    let positions: Vec<Axis> = places
        .iter()
        .zip(shape)
        .map(|(&name, &len)| Axis {
            name: name.into(),
            labels: vec![(name.into(), Labels::Int((0..).take(len).collect()))],
            len,
        })
        .collect();
    check_place(path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let staged = tempfile::Builder::new().prefix(".attnkit-").tempdir_in(dir).map_err(OutputError::write(path))?;
    let store = Arc::new(FilesystemStore::new(staged.path()).map_err(|error| failed(path, error))?);
    let mut metadata = Map::new();
    let mut names: Vec<&str> = axes.iter().map(|axis| axis.name.as_str()).collect();
    names.extend(places);
    let lens: Vec<usize> = axes.iter().map(|axis| axis.len).chain(shape.iter().copied()).collect();
    let in_front: Vec<usize> = axes.iter().map(|axis| axis.len).collect();
    let map_len: usize = shape.iter().product();
    let of_maps = chunk_of(&in_front, CHUNK_BYTES / (map_len * size_of::<f32>()).max(1));
    let chunk: Vec<usize> = of_maps.iter().chain(shape).copied().collect();
    let codecs = json!([
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "zstd", "configuration": {"level": 1, "checksum": false}},
    ]);
    // By the conventions for climate data, which xarray follows: labels that are no dimension of their own.
    let labels = axes.iter().flat_map(|axis| axis.labels.iter().filter(|(name, _)| *name != axis.name));
    let labels = labels.map(|(name, _)| name.as_str());
    let labels: Vec<&str> = labels.chain(scalars.iter().map(|column| column.name().as_str())).collect();
    let attributes = if labels.is_empty() { json!({}) } else { json!({"coordinates": labels.join(" ")}) };
    let array = create(staged.path(), &store, &mut metadata, "attention", json!({
        "shape": lens, "data_type": "float32", "chunk": chunk, "fill_value": "NaN", "codecs": codecs, "names": names,
        "attributes": attributes,
    }))
    .map_err(|error| failed(path, error))?;
    let grid: Vec<usize> = in_front.iter().zip(&of_maps).map(|(len, chunk)| len / chunk).collect();
    let mut values = Vec::new();
    for number in 0..grid.iter().product() {
        let corner = place(number, &grid);
        values.clear();
        for inside in 0..of_maps.iter().product() {
            let at = corner
                .iter()
                .zip(&of_maps)
                .zip(place(inside, &of_maps))
                .map(|((corner, chunk), at)| corner * chunk + at);
            let row = order[at.zip(&in_front).fold(0, |flat, (at, len)| flat * len + at)];
            values.extend_from_slice(maps.get(row));
        }
        let indices: Vec<u64> = corner.iter().map(|&at| at as u64).chain(shape.iter().map(|_| 0)).collect();
        array.store_chunk(&indices, values.as_slice()).map_err(|error| failed(path, error))?;
    }
    for axis in axes.iter().chain(&positions) {
        for (name, labels) in &axis.labels {
            write_labels(staged.path(), &store, &mut metadata, name, Some(&axis.name), labels)
                .map_err(|error| failed(path, error))?;
        }
    }
    for column in scalars {
        write_labels(staged.path(), &store, &mut metadata, column.name(), None, &self::labels(column, &[0]))
            .map_err(|error| failed(path, error))?;
    }
    let group = json!({
        "zarr_format": 3, "node_type": "group", "attributes": {"attnkit_answer": true},
        "consolidated_metadata": {"kind": "inline", "must_understand": false, "metadata": metadata},
    });
    fs::write(staged.path().join("zarr.json"), group.to_string()).map_err(OutputError::write(path))?;
    sync_tree(staged.path()).map_err(OutputError::write(path))?;
    if path.exists() {
        fs::remove_dir_all(path).map_err(OutputError::write(path))?;
    }
    fs::rename(staged.path(), path).map_err(OutputError::write(path))?;
    let _ = staged.keep();
    if cfg!(unix) {
        fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(OutputError::write(path))?;
    }
    Ok(())
}

/// Flushes all files below a directory to disk, and their names.
fn sync_tree(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            sync_tree(&entry?.path())?;
        }
    }
    if path.is_file() || cfg!(unix) { fs::File::open(path)?.sync_all() } else { Ok(()) }
}

/// How many maps along each axis make a chunk: neighbours along the last axes, at most `limit`, so that chunks are
/// whole.
fn chunk_of(lens: &[usize], mut limit: usize) -> Vec<usize> {
    let mut chunk = vec![1; lens.len()];
    for (chunk, &len) in chunk.iter_mut().zip(lens).rev() {
        *chunk = (1..=len.min(limit)).rev().find(|size| len.is_multiple_of(*size)).unwrap_or(1);
        limit = if *chunk == len { limit / len.max(1) } else { 1 };
    }
    chunk
}

/// The place of a flat number, in C order.
fn place(number: usize, lens: &[usize]) -> Vec<usize> {
    let mut rest = number;
    let mut place = vec![0; lens.len()];
    for (at, &len) in place.iter_mut().zip(lens).rev() {
        *at = rest % len;
        rest /= len;
    }
    place
}

fn failed(path: &Path, error: impl std::fmt::Display) -> OutputError {
    OutputError::write(path)(std::io::Error::other(error.to_string()))
}

/// Nothing may be there but an earlier answer.
fn check_place(path: &Path) -> Result<(), OutputError> {
    if path.is_symlink() {
        return Err(OutputError::Link { path: path.to_owned(), to: fs::read_link(path).unwrap_or_default() });
    }
    let document = fs::read(path.join("zarr.json")).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    let ours = document.is_some_and(|document| document.pointer("/attributes/attnkit_answer").is_some());
    if path.exists() && !ours { Err(OutputError::InTheWay { path: path.to_owned() }) } else { Ok(()) }
}

fn create(
    dir: &Path,
    store: &Arc<FilesystemStore>,
    metadata: &mut Map<String, Value>,
    name: &str,
    of: Value,
) -> Result<Array<FilesystemStore>, String> {
    let document = json!({
        "zarr_format": 3, "node_type": "array", "shape": of["shape"], "data_type": of["data_type"],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": of["chunk"]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": of["fill_value"], "codecs": of["codecs"], "dimension_names": of["names"],
        "attributes": of.get("attributes").cloned().unwrap_or_else(|| json!({})),
    });
    let array_dir = dir.join(name);
    fs::create_dir_all(&array_dir).map_err(|error| error.to_string())?;
    fs::write(array_dir.join("zarr.json"), document.to_string()).map_err(|error| error.to_string())?;
    metadata.insert(name.to_owned(), document);
    Array::open(store.clone(), &format!("/{name}")).map_err(|error| error.to_string())
}

fn write_labels(
    dir: &Path,
    store: &Arc<FilesystemStore>,
    metadata: &mut Map<String, Value>,
    name: &str,
    axis: Option<&str>,
    labels: &Labels,
) -> Result<(), String> {
    let bytes = json!([{"name": "bytes", "configuration": {"endian": "little"}}]);
    let (kind, fill, codecs, len) = match labels {
        Labels::Text(values) => ("string", json!(""), json!([{"name": "vlen-utf8"}]), values.len()),
        Labels::Int(values) => ("int64", json!(0), bytes, values.len()),
        Labels::Unsigned(values) => ("uint64", json!(0), bytes, values.len()),
        Labels::Float(values) => ("float64", json!("NaN"), bytes, values.len()),
    };
    let lens: Vec<usize> = axis.iter().map(|_| len).collect();
    let chunk: Vec<usize> = lens.iter().map(|&len| len.max(1)).collect();
    let names: Vec<&str> = axis.into_iter().collect();
    let of = json!({
        "shape": lens, "data_type": kind, "chunk": chunk, "fill_value": fill, "codecs": codecs, "names": names,
    });
    let array = create(dir, store, metadata, name, of)?;
    let first: Vec<u64> = lens.iter().map(|_| 0).collect();
    match labels {
        Labels::Text(values) => array.store_chunk(&first, values.clone()),
        Labels::Int(values) => array.store_chunk(&first, values.as_slice()),
        Labels::Unsigned(values) => array.store_chunk(&first, values.as_slice()),
        Labels::Float(values) => array.store_chunk(&first, values.as_slice()),
    }
    .map_err(|error| error.to_string())
}

/// The labelled axes in front of a map's own, and the row at each place.
fn axes(answer: &Answer) -> (Vec<Axis>, Vec<usize>) {
    let rows = answer.table.height();
    let keys: Vec<&Column> = keys(answer).into_iter().filter(|column| !is_of_one_piece(column)).collect();
    let names = |column: &Column| -> Vec<String> {
        (0..rows).map(|row| column.get(row).map_or_else(|_| String::new(), |value| cell(&value))).collect()
    };
    let by_key: Vec<Vec<String>> = keys.iter().map(|column| names(column)).collect();
    // The distinct values of each key, numbered in the order of the rows, and the row that each is first met in.
    let numbered: Vec<(HashMap<&str, usize>, Vec<usize>)> = by_key
        .iter()
        .map(|names| {
            let (mut numbers, mut firsts) = (HashMap::new(), Vec::new());
            for (row, name) in names.iter().enumerate() {
                numbers.entry(name.as_str()).or_insert_with(|| {
                    firsts.push(row);
                    firsts.len() - 1
                });
            }
            (numbers, firsts)
        })
        .collect();
    let product = numbered.iter().try_fold(1usize, |product, (_, firsts)| product.checked_mul(firsts.len()));
    if product == Some(rows) && keys.iter().all(|column| column.null_count() == 0) {
        let mut order = vec![usize::MAX; rows];
        for row in 0..rows {
            let place = numbered
                .iter()
                .zip(&by_key)
                .fold(0, |place, ((numbers, firsts), names)| place * firsts.len() + numbers[names[row].as_str()]);
            order[place] = row;
        }
        if order.iter().all(|&row| row != usize::MAX) {
            let axes = keys.iter().zip(&numbered).map(|(column, (_, firsts))| Axis {
                name: column.name().to_string(),
                labels: vec![(column.name().to_string(), labels(column, firsts))],
                len: firsts.len(),
            });
            return (axes.collect(), order);
        }
    }
    let all: Vec<usize> = (0..rows).collect();
    let of_rows = keys.iter().map(|column| (column.name().to_string(), labels(column, &all))).collect();
    (vec![Axis { name: "map".into(), labels: of_rows, len: rows }], all)
}

/// The columns that tell maps apart.
fn keys(answer: &Answer) -> Vec<&Column> {
    let keys = answer.keys.iter().filter_map(|key| answer.table.column(key).ok());
    keys.filter(|column| column.null_count() < column.len()).collect()
}

/// Whether it says of every map that its word has no further pieces: that is no axis.
fn is_of_one_piece(column: &Column) -> bool {
    column.name() == "token_index" && column.i32().is_ok_and(|pieces| pieces.iter().all(|piece| piece == Some(0)))
}

fn labels(column: &Column, rows: &[usize]) -> Labels {
    let value = |row: &usize| column.get(*row).unwrap_or(AnyValue::Null);
    match column.dtype() {
        DataType::Int32 | DataType::Int64 if column.null_count() == 0 => {
            Labels::Int(rows.iter().map(|row| value(row).try_extract().unwrap_or_default()).collect())
        }
        DataType::Float64 | DataType::Int32 | DataType::Int64 => {
            Labels::Float(rows.iter().map(|row| value(row).try_extract().unwrap_or(f64::NAN)).collect())
        }
        // Seeds, of 64 bits with or without a sign.
        DataType::Decimal(_, 0) if column.null_count() == 0 => {
            let numbers: Vec<String> = rows.iter().map(|row| cell(&value(row))).collect();
            let signed: Result<Vec<i64>, _> = numbers.iter().map(|number| number.parse()).collect();
            let unsigned: Result<Vec<u64>, _> = numbers.iter().map(|number| number.parse()).collect();
            match (signed, unsigned) {
                (Ok(numbers), _) => Labels::Int(numbers),
                (_, Ok(numbers)) => Labels::Unsigned(numbers),
                _ => Labels::Text(numbers),
            }
        }
        _ => Labels::Text(rows.iter().map(|row| cell(&value(row))).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_take_whole_axes_from_the_last_on() {
        assert_eq!(chunk_of(&[3, 5, 50], 100), [1, 1, 50]);
        assert_eq!(chunk_of(&[3, 5, 50], 300), [1, 5, 50]);
        assert_eq!(chunk_of(&[3, 5, 50], 20), [1, 1, 10]);
        assert_eq!(chunk_of(&[7], 0), [1]);
        assert_eq!(place(17, &[2, 3, 4]), [1, 1, 1]);
    }
}
