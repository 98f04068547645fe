//! Maps as a numpy file, with the rows they belong to beside it.

use std::path::{Path, PathBuf};

use ndarray::ArrayView;
use ndarray_npy::WriteNpyExt;
use polars::prelude::{JsonFormat, JsonWriter, PolarsError, SerWriter};
use serde_json::{Value, json};

use super::text::with_integers;
use super::{Format, OutputError, Staged, maps_of};
use crate::query::{Answer, AnswerKind};
use crate::remedy::{OptionName, Remedy};

/// Writes `[map, frames, height, width]` float32 (`[frames, height, width]` for an answer that is a single map), and a
/// `.json`.
pub(super) fn write(answer: &Answer, path: &Path) -> Result<Vec<PathBuf>, OutputError> {
    let maps = maps_of(answer, Format::Npy)?;
    let sidecar = path.with_extension("json");
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if sidecar == path {
        return Err(OutputError::Unfit {
            found: format!("{}: the rows beside the array would have the same name", path.display()).into(),
            remedy: "name the array .npy".into(),
        });
    }
    if sidecar.exists() && !belongs_to(&sidecar, &name) {
        return Err(OutputError::InTheWay { path: sidecar });
    }
    if maps.maps.is_empty() {
        return Err(OutputError::Unfit { found: "there are no maps to write".into(), remedy: "select some".into() });
    }
    let shape = maps.common_shape().ok_or_else(|| OutputError::Unfit {
        found: "the maps have different shapes, so they are no array".into(),
        remedy: Remedy::of("select those of one shape with {}, or write parquet", [OptionName::Where.unsaid()]),
    })?;
    let single = answer.kind == AnswerKind::Map && maps.maps.len() == 1;
    let stacked: Vec<usize> = if single { shape.to_vec() } else { [&[maps.maps.len()], shape].concat() };
    let values = maps.stacked();
    let view = ArrayView::from_shape(stacked.clone(), &values).map_err(|error| OutputError::Unfit {
        found: format!("the maps do not make an array of {stacked:?}: {error}").into(),
        remedy: "write parquet".into(),
    })?;
    let mut axes: Vec<&str> = if single { Vec::new() } else { vec!["map"] };
    axes.extend(if shape.len() == 3 { ["frame", "height", "width"].as_slice() } else { &["spatial"] });
    let encode = |source: PolarsError| OutputError::Encode { path: sidecar.clone(), source: source.into() };
    let mut rows = Vec::new();
    JsonWriter::new(&mut rows)
        .with_json_format(JsonFormat::Json)
        .finish(&mut with_integers(&answer.table).map_err(encode)?)
        .map_err(encode)?;
    let rows: Value = serde_json::from_slice(&rows).unwrap_or_default();
    let document = json!({
        "array": name, "dtype": "float32", "shape": stacked,
        "dimensions": axes, "keys": answer.keys, "rows": rows,
    });
    let array = Staged::write(path, |file| {
        view.write_npy(file).map_err(|error| OutputError::write(path)(std::io::Error::other(error)))
    })?;
    let rows = Staged::write(&sidecar, |file| {
        serde_json::to_writer_pretty(file, &document)
            .map_err(|error| OutputError::write(&sidecar)(std::io::Error::other(error)))
    })?;
    // An array that is there has its own rows beside it: the one of before goes before its rows do.
    if array.file.is_some() && path.exists() {
        std::fs::remove_file(path).map_err(OutputError::write(path))?;
    }
    rows.place()?;
    array.place()?;
    Ok(vec![sidecar])
}

/// Whether a `.json` is the one beside the array of this name.
fn belongs_to(sidecar: &Path, name: &str) -> bool {
    let text = std::fs::read(sidecar).unwrap_or_default();
    serde_json::from_slice::<Value>(&text).is_ok_and(|document| document["array"] == name)
}
