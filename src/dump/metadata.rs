//! The JSON beside step files: read leniently, since real metadata lies; whatever disagrees is a remark, not a failure.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{DumpError, Problem, StepPeek};
use crate::grid::VideoSize;

/// JSON files larger than this are not metadata.
const JSON_LIMIT: u64 = 16 << 20;

/// The metadata of one step, as far as it could be read.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StepMetadata {
    /// `video_id`.
    pub video_id: Option<String>,
    /// `step`.
    pub step: Option<i64>,
    /// `timestep` of the scheduler.
    pub timestep: Option<f64>,
    /// `total_steps` of the generation.
    pub total_steps: Option<i64>,
    /// `token_word`.
    pub token_word: Option<String>,
    /// `token_ids` in the tokenizer's vocabulary.
    pub token_ids: Vec<i64>,
    /// `token_texts`.
    pub token_texts: Vec<String>,
    /// `aggregation_method`, as the generator labels it.
    pub aggregation_method: Option<String>,
    /// `attention_shape`.
    pub attention_shape: Option<Vec<usize>>,
    /// `threshold_applied`.
    pub threshold_applied: Option<f64>,
    /// `dtype`, with `torch.`.
    pub dtype: Option<String>,
    /// `prompt`.
    pub prompt: Option<String>,
    /// `seed`.
    pub seed: Option<i64>,
    /// `cfg_scale`.
    pub cfg_scale: Option<f64>,
    /// `video_width` in pixels.
    pub video_width: Option<i64>,
    /// `video_height` in pixels.
    pub video_height: Option<i64>,
    /// `video_frames`.
    pub video_frames: Option<i64>,
    /// All keys as they were.
    pub raw: Map<String, Value>,
}

impl StepMetadata {
    /// Reads the known keys of a JSON object. The second value names keys whose type is not the expected one.
    #[must_use]
    pub fn from_object(raw: Map<String, Value>) -> (Self, Vec<String>) {
        let mut reader = KeyReader { raw: &raw, odd: Vec::new() };
        let ids = match raw.get("token_ids") {
            Some(Value::Object(nested)) => nested.get("token_ids"),
            other => other,
        };
        let mut metadata = Self {
            video_id: reader.get("video_id", Value::as_str).map(str::to_owned),
            step: reader.get("step", integer),
            timestep: reader.get("timestep", Value::as_f64),
            total_steps: reader.get("total_steps", integer),
            token_word: reader.get("token_word", Value::as_str).map(str::to_owned),
            token_ids: ids.and_then(|ids| list(ids, integer)).unwrap_or_default(),
            token_texts: reader
                .get("token_texts", |texts| list(texts, |text| text.as_str().map(str::to_owned)))
                .unwrap_or_default(),
            aggregation_method: reader.get("aggregation_method", Value::as_str).map(str::to_owned),
            attention_shape: reader.get("attention_shape", |shape| {
                list(shape, |axis| axis.as_u64().and_then(|axis| usize::try_from(axis).ok()))
            }),
            threshold_applied: reader.get("threshold_applied", Value::as_f64),
            dtype: reader.get("dtype", Value::as_str).map(str::to_owned),
            prompt: reader.get("prompt", Value::as_str).map(str::to_owned),
            seed: reader.get("seed", integer),
            cfg_scale: reader.get("cfg_scale", Value::as_f64),
            video_width: reader.get("video_width", integer),
            video_height: reader.get("video_height", integer),
            video_frames: reader.get("video_frames", integer),
            raw: Map::new(),
        };
        let odd = reader.odd;
        metadata.raw = raw;
        (metadata, odd)
    }

    /// Size of the generated video.
    #[must_use]
    pub const fn video_size(&self) -> VideoSize {
        VideoSize { frames: self.video_frames, height: self.video_height, width: self.video_width }
    }

    /// What it says otherwise than the step's names and array, which are the truth.
    #[must_use]
    pub fn disagreements(&self, step: i32, found: Option<StepPeek>) -> Vec<String> {
        let mut remarks = Vec::new();
        if let Some(claimed) = self.step.filter(|&claimed| claimed != i64::from(step)) {
            remarks.push(format!("metadata says step {claimed}, the file name {step}; the file name counts"));
        }
        let Some(found) = found else { return remarks };
        if let Some(claimed) = &self.attention_shape {
            let without_batch =
                |axes: &[usize]| matches!(axes, [b, _, rest @ ..] if [&[*b], rest].concat() == found.shape.axes());
            if claimed[..] != found.shape.axes() && !(claimed.len() == 5 && without_batch(claimed)) {
                remarks
                    .push(format!("metadata says shape {claimed:?}, the array is {}; the array counts", found.shape));
            }
        }
        if let Some(claimed) = &self.dtype
            && claimed.trim_start_matches("torch.") != found.dtype.name()
        {
            remarks.push(format!("metadata says {claimed}, the array is {}; the array counts", found.dtype));
        }
        for (key, actual) in [("num_blocks", found.shape.blocks), ("num_heads", found.shape.heads)] {
            if let Some(claimed) =
                self.raw.get(key).and_then(integer).filter(|&claimed| usize::try_from(claimed) != Ok(actual))
            {
                remarks.push(format!("metadata says {key} {claimed}, the array has {actual}; the array counts"));
            }
        }
        let averaged = |axis: &str| {
            self.aggregation_method
                .as_deref()
                .is_some_and(|method| method.contains(axis) && method.ends_with("averaged"))
        };
        for (axis, size) in [("blocks", found.shape.blocks), ("heads", found.shape.heads)] {
            if averaged(axis) && size > 1 {
                let method = self.aggregation_method.as_deref().unwrap_or_default();
                remarks.push(format!("metadata says `{method}`, the array has {size} {axis}; the array counts"));
            }
        }
        remarks
    }
}

struct KeyReader<'a> {
    raw: &'a Map<String, Value>,
    odd: Vec<String>,
}

impl<'a> KeyReader<'a> {
    fn get<T>(&mut self, key: &str, read: impl Fn(&'a Value) -> Option<T>) -> Option<T> {
        let value = self.raw.get(key).filter(|value| !value.is_null())?;
        let read = read(value);
        if read.is_none() {
            self.odd.push(format!("key `{key}` has an unexpected value: {value}"));
        }
        read
    }
}

/// An integer, also if written as `3.0`.
#[allow(clippy::cast_possible_truncation)]
fn integer(value: &Value) -> Option<i64> {
    value
        .as_i64()
        .or_else(|| value.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e15).map(|float| float as i64))
}

fn list<T>(value: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    value.as_array()?.iter().map(read).collect()
}

/// Reads the metadata of a step. The second value names keys whose type is not the expected one.
///
/// # Errors
/// If the file cannot be read or is not a JSON object.
pub fn read_step_metadata(path: &Path) -> Result<(StepMetadata, Vec<String>), DumpError> {
    read_object(path).map(StepMetadata::from_object).map_err(|problem| problem.at(path))
}

/// Reads a video's `summary.json`.
///
/// # Errors
/// If the file cannot be read or is not a JSON object.
pub fn read_summary(path: &Path) -> Result<Map<String, Value>, DumpError> {
    read_object(path).map_err(|problem| problem.at(path))
}

fn read_object(path: &Path) -> Result<Map<String, Value>, Problem> {
    let mut text = Vec::new();
    File::open(path)?.take(JSON_LIMIT + 1).read_to_end(&mut text)?;
    if text.is_empty() {
        return Err(Problem::Empty { expected: "a JSON object" });
    }
    if text.len() as u64 > JSON_LIMIT {
        return Err(Problem::TooLarge { found: text.len() as u128, limit: JSON_LIMIT });
    }
    match serde_json::from_slice(&text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Problem::Json { found: "it is not an object".into() }),
        Err(error) => Err(Problem::Json { found: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::StepShape;
    use super::*;
    use crate::dtype::SourceDtype;

    fn parse(text: &str) -> (StepMetadata, Vec<String>) {
        let Ok(Value::Object(raw)) = serde_json::from_str(text) else { panic!("{text}") };
        StepMetadata::from_object(raw)
    }

    #[test]
    fn both_spellings_of_token_ids_are_read() {
        assert_eq!(parse(r#"{"token_ids": [1, 2]}"#).0.token_ids, [1, 2]);
        assert_eq!(parse(r#"{"token_ids": {"token_ids": [3], "positions": [0]}}"#).0.token_ids, [3]);
    }

    #[test]
    fn odd_values_are_named_and_nulls_are_not() {
        let (metadata, odd) = parse(r#"{"seed": null, "cfg_scale": "high", "step": 3.0}"#);
        assert_eq!((metadata.seed, metadata.step), (None, Some(3)));
        assert_eq!(odd, ["key `cfg_scale` has an unexpected value: \"high\""]);
    }

    #[test]
    fn metadata_that_lies_is_a_remark() {
        let (metadata, _) = parse(
            r#"{"step": 1, "attention_shape": [1, 12, 9, 1], "aggregation_method": "blocks_and_heads_averaged", "num_heads": 12, "dtype": "torch.float32"}"#,
        );
        let shape = StepShape { blocks: 1, heads: 12, spatial: 9, tokens: 1 };
        let remarks = metadata.disagreements(1, Some(StepPeek { shape, dtype: SourceDtype::Float16 }));
        assert_eq!(remarks.len(), 2, "{remarks:?}");
        assert!(remarks[0].contains("torch.float32") && remarks[1].contains("12 heads"), "{remarks:?}");
    }
}
