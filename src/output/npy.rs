//! Maps as a numpy file, with the rows they belong to beside it.

use std::io::Write;
use std::path::{Path, PathBuf};

use ndarray_npy::npy::header::{Header, Layout};
use polars::prelude::{JsonFormat, JsonWriter, PolarsError, SerWriter};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::text::with_integers;
use super::{Format, OutputError, Staged, maps_of};
use crate::query::{Answer, AnswerKind, Resampled};
use crate::remedy::{OptionName, Remedy};

/// Frames that are resampled at a time have about this much.
const RESAMPLED_BYTES: usize = 16 << 20;

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
    let shape = match &answer.unmade[..] {
        [] => shape.to_vec(),
        // All are resampled to one grid.
        [first, ..] => vec![first.grid().frames, first.grid().height, first.grid().width],
    };
    let stacked: Vec<usize> = if single { shape.clone() } else { [&[maps.maps.len()], &shape[..]].concat() };
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
    let header = Header {
        type_descriptor: py_literal::Value::String("<f4".into()),
        layout: Layout::Standard,
        shape: stacked.clone(),
    };
    let array = Staged::write(path, |file| {
        header.write(&mut *file).map_err(|error| OutputError::write(path)(std::io::Error::other(error)))?;
        let written = if answer.unmade.is_empty() {
            (0..maps.maps.len()).try_for_each(|index| write_values(maps.get(index), file))
        } else {
            answer.unmade.iter().try_for_each(|map| write_resampled(map, file))
        };
        written.map_err(OutputError::write(path))
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

fn write_values(values: &[f32], file: &mut impl Write) -> std::io::Result<()> {
    if cfg!(target_endian = "little") {
        return file.write_all(bytemuck::cast_slice(values));
    }
    values.iter().try_for_each(|value| file.write_all(&value.to_le_bytes()))
}

/// Writes a map as it is resampled, a few frames at a time.
fn write_resampled(map: &Resampled, file: &mut impl Write) -> std::io::Result<()> {
    let plane = map.grid().plane();
    let at_once = (RESAMPLED_BYTES / (plane * size_of::<f32>()).max(1)).max(1);
    let mut frames = vec![0.0; plane * at_once];
    for runs in map.runs().chunks(at_once) {
        let targets = frames.par_chunks_mut(plane.max(1)).zip(runs);
        targets.for_each(|(target, (first, _))| map.rows(*first, 0..map.grid().height, target));
        for (frame, (_, count)) in frames.chunks(plane.max(1)).zip(runs) {
            (0..*count).try_for_each(|_| write_values(frame, file))?;
        }
    }
    Ok(())
}

/// Whether a `.json` is the one beside the array of this name.
fn belongs_to(sidecar: &Path, name: &str) -> bool {
    let text = std::fs::read(sidecar).unwrap_or_default();
    serde_json::from_slice::<Value>(&text).is_ok_and(|document| document["array"] == name)
}
