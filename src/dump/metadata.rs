//! The JSON beside step files: read leniently, since real metadata lies; whatever disagrees is a remark, not a failure.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{DumpError, Problem, StepPeek};
use crate::grid::{Grid, GridError, VideoSize, infer_grid};
use crate::json::{Json, Object, Parsed};
use crate::provenance::Provenance;
use crate::shape::{AxisNumbers, StepShape};

/// JSON files larger than this are not metadata.
const JSON_LIMIT: u64 = 16 << 20;
/// The key of what a store knew beyond the generator's keys, in a dump that it was exported to.
const EXPORTED_KEY: &str = "attnkit";
/// Keys that are only compared with the array.
const MODEL_KEYS: [&str; 2] = ["num_blocks", "num_heads"];
/// Keys that speak of one part of a split step.
const KEYS_OF_PART: [&str; 7] =
    ["block_idx", "head_idx", "num_blocks", "num_heads", "attention_shape", "spatial_resolution", "aggregation_method"];
/// Seeds that the tables hold: integers of 64 bits, with or without a sign.
const SEEDS: std::ops::RangeInclusive<i128> = i64::MIN as i128..=u64::MAX as i128;

/// The metadata of one step, as far as it could be read.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StepMetadata {
    /// `video_id`.
    pub video_id: Option<String>,
    /// `step`.
    pub step: Option<i64>,
    /// `timestep` of the scheduler.
    #[serde(with = "crate::json::exact::option")]
    pub timestep: Option<f64>,
    /// `total_steps` of the generation.
    pub total_steps: Option<i32>,
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
    /// `block_idx`: the blocks along the array's first axis, if that is told.
    pub block_idx: Vec<i32>,
    /// `head_idx`: the heads along the array's second axis, if that is told.
    pub head_idx: Vec<i32>,
    /// `threshold_applied`.
    #[serde(with = "crate::json::exact::option")]
    pub threshold_applied: Option<f64>,
    /// `dtype`, with `torch.`.
    pub dtype: Option<String>,
    /// `prompt`.
    pub prompt: Option<String>,
    /// `seed`: from -2^63 to 2^64 - 1.
    pub seed: Option<i128>,
    /// `cfg_scale`.
    #[serde(with = "crate::json::exact::option")]
    pub cfg_scale: Option<f64>,
    /// `video_width` in pixels.
    pub video_width: Option<i32>,
    /// `video_height` in pixels.
    pub video_height: Option<i32>,
    /// `video_frames`.
    pub video_frames: Option<i32>,
    /// How the maps came about.
    pub provenance: Provenance,
    /// What a store knew beyond these keys, if the dump was exported from one.
    pub exported: Exported,
    /// All keys as they were, but for what a store added.
    pub raw: Object,
}

/// What a store knows of a step and the keys of a generator do not tell: `export` writes it beside them, so that
/// nothing is lost.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Exported {
    /// The video's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video_id: Option<String>,
    /// The word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Its weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// The prompt's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_id: Option<String>,
    /// The template that the prompt is a variation of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Number of the variation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variation: Option<i32>,
    /// The grid, if the size of the video does not tell it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grid: Option<Grid>,
    /// What was lost when the word was ingested, as the attributes of its group say.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub lossy: serde_json::Map<String, serde_json::Value>,
}

impl Exported {
    /// Adds it to the metadata that it is beside, if it says anything.
    pub(crate) fn add_to(&self, metadata: &mut Object) {
        if *self != Self::default() {
            let told = serde_json::to_value(self).unwrap_or_default(); // always serialises
            metadata.insert(EXPORTED_KEY.to_owned(), told.into());
        }
    }

    /// Takes it out of the metadata that it is beside.
    fn take_from(raw: &mut Object) -> Self {
        let read = |told: &Json| serde_json::from_value(told.to_value()).ok();
        match raw.get(EXPORTED_KEY).and_then(read) {
            Some(exported) => {
                raw.shift_remove(EXPORTED_KEY);
                exported
            }
            None => Self::default(),
        }
    }
}

impl StepMetadata {
    /// Reads the known keys of a JSON object. The second value names keys whose type is not the expected one.
    #[must_use]
    pub fn from_object(mut raw: Object) -> (Self, Vec<String>) {
        let exported = Exported::take_from(&mut raw);
        let mut reader = KeyReader { raw: &raw, odd: Vec::new() };
        let ids = |ids: &Json| list(ids.get("token_ids").unwrap_or(ids), integer);
        let numbers = |numbers: &Json| list(numbers, place).or_else(|| Some(vec![place(numbers)?]));
        let text = |text: &Json| text.as_str().map(str::to_owned);
        // Some generators put them beside the ids.
        let beside_ids = raw.get("token_ids").and_then(|ids| list(ids.get("positions")?, place));
        let mut metadata = Self {
            video_id: reader.get("video_id", text),
            step: reader.get("step", integer),
            timestep: reader.get("timestep", Json::as_f64),
            total_steps: reader.get("total_steps", integer),
            token_word: reader.get("token_word", text),
            token_ids: reader.get("token_ids", ids).unwrap_or_default(),
            token_texts: reader.get("token_texts", |texts| list(texts, text)).unwrap_or_default(),
            aggregation_method: reader.get("aggregation_method", text),
            attention_shape: reader.get("attention_shape", |shape| list(shape, integer)),
            block_idx: reader.get("block_idx", numbers).unwrap_or_default(),
            head_idx: reader.get("head_idx", numbers).unwrap_or_default(),
            threshold_applied: reader.get("threshold_applied", Json::as_f64),
            dtype: reader.get("dtype", text),
            prompt: reader.get("prompt", text),
            seed: reader.get("seed", |seed| seed.as_integer().filter(|seed| SEEDS.contains(seed))),
            cfg_scale: reader.get("cfg_scale", Json::as_f64),
            video_width: reader.get("video_width", integer),
            video_height: reader.get("video_height", integer),
            video_frames: reader.get("video_frames", integer),
            provenance: Provenance {
                call: reader.get("call", |call| call.as_str()?.parse().ok()),
                negative_prompt: reader.get("negative_prompt", text),
                weighting: reader.get("weighting", text),
                model: reader.get("model", text),
                pieces: reader.get("pieces", place),
                pooling: reader.get("pooling", |pooling| pooling.as_str()?.parse().ok()),
                positions: reader.get("positions", |positions| list(positions, place)).or(beside_ids),
                text_length: reader.get("text_length", place),
                skipped: reader.get("skipped", |blocks| list(blocks, place)),
                scheduler: reader.get("scheduler", text),
                model_id: reader.get("model_id", text),
                guidance_scale: reader.get("guidance_scale", Json::as_f64),
                library_versions: reader.get("library_versions", |versions| match versions {
                    Json::Object(_) => Some(versions.to_string()),
                    _ => None,
                }),
            },
            exported,
            raw: Object::new(),
        };
        for key in MODEL_KEYS {
            reader.get(key, integer::<i64>);
        }
        let odd = reader.odd;
        metadata.raw = raw;
        (metadata, odd)
    }

    /// The grid of maps of that many positions: as a store had it, else by the size of the video.
    ///
    /// # Errors
    /// If the size is not known, or does not tell it.
    pub fn grid(&self, spatial: usize) -> Result<Grid, GridError> {
        let exported = self.exported.grid.filter(|grid| grid.spatial() == spatial);
        exported.map_or_else(|| infer_grid(spatial, self.video_size()), Ok)
    }

    /// Size of the generated video.
    #[must_use]
    pub fn video_size(&self) -> VideoSize {
        let wide = |size: Option<i32>| size.map(i64::from);
        VideoSize { frames: wide(self.video_frames), height: wide(self.video_height), width: wide(self.video_width) }
    }

    /// Keys that the metadata of another part of the same step has with another value, or alone; but for those that
    /// speak of one part.
    pub(crate) fn contradictions(&self, other: &Self) -> Vec<String> {
        let is_of_step = |key: &&String| !KEYS_OF_PART.contains(&key.as_str());
        let differs = |key: &&String| self.raw.get(*key) != other.raw.get(*key);
        let alone = other.raw.keys().filter(|key| !self.raw.contains_key(*key));
        self.raw
            .keys()
            .filter(|key| other.raw.contains_key(*key))
            .chain(alone)
            .filter(is_of_step)
            .filter(differs)
            .cloned()
            .collect()
    }

    /// Numbers of the blocks and heads of a step of this shape, and what is odd about them. Axes that are `split` into
    /// files have the numbers of these.
    #[must_use]
    pub fn numbers(&self, shape: StepShape, split: &AxisNumbers) -> (AxisNumbers, Vec<String>) {
        let mut odd = Vec::new();
        let mut axis = |key: &str, of_files: &Option<Arc<[i32]>>, numbers: &[i32], size: usize| {
            if of_files.is_some() || numbers.is_empty() {
                return of_files.clone();
            }
            let is_distinct = numbers.iter().collect::<BTreeSet<_>>().len() == numbers.len();
            if numbers.len() == size && is_distinct {
                return Some(Arc::from(numbers));
            }
            odd.push(format!(
                "`{key}` is {numbers:?}, which does not tell the {size} of the array on that axis apart; they are \
                 numbered from 0, which need not be the model's numbers"
            ));
            None
        };
        let numbers = AxisNumbers {
            blocks: axis("block_idx", &split.blocks, &self.block_idx, shape.blocks),
            heads: axis("head_idx", &split.heads, &self.head_idx, shape.heads),
        };
        (numbers.told_apart(), odd)
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
        for (key, actual) in MODEL_KEYS.into_iter().zip([found.shape.blocks, found.shape.heads]) {
            if let Some(claimed) =
                self.raw.get(key).and_then(integer::<i64>).filter(|&claimed| usize::try_from(claimed) != Ok(actual))
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
    raw: &'a Object,
    odd: Vec<String>,
}

impl<'a> KeyReader<'a> {
    fn get<T>(&mut self, key: &str, read: impl Fn(&'a Json) -> Option<T>) -> Option<T> {
        let value = self.raw.get(key).filter(|value| !value.is_null())?;
        let read = read(value);
        if read.is_none() {
            // A value may be as long as the file.
            let shown: String = value.to_string().chars().take(120).collect();
            self.odd.push(format!("key `{key}` has an unexpected value, and is unknown: {shown}"));
        }
        read
    }
}

/// An integer, also if written as `3.0`.
fn integer<T: TryFrom<i128>>(value: &Json) -> Option<T> {
    T::try_from(value.as_integer()?).ok()
}

/// A place on an axis.
fn place(value: &Json) -> Option<i32> {
    integer(value).filter(|&place: &i32| place >= 0)
}

fn list<T>(value: &Json, read: impl Fn(&Json) -> Option<T>) -> Option<Vec<T>> {
    value.as_array()?.iter().map(read).collect()
}

/// Reads the metadata of a step. The second value says what is odd: what is no JSON, and keys whose type is not the
/// expected one.
///
/// # Errors
/// If the file cannot be read or is not a JSON object.
pub fn read_step_metadata(path: &Path) -> Result<(StepMetadata, Vec<String>), DumpError> {
    let (object, mut odd) = read_object(path).map_err(|problem| problem.at(path))?;
    let (metadata, of_keys) = StepMetadata::from_object(object);
    odd.extend(of_keys);
    Ok((metadata, odd))
}

/// Reads a video's `summary.json`. The second value says what is no JSON in it.
///
/// # Errors
/// If the file cannot be read or is not a JSON object.
pub fn read_summary(path: &Path) -> Result<(Object, Vec<String>), DumpError> {
    read_object(path).map_err(|problem| problem.at(path))
}

fn read_object(path: &Path) -> Result<(Object, Vec<String>), Problem> {
    let mut text = Vec::new();
    File::open(path)?.take(JSON_LIMIT + 1).read_to_end(&mut text)?;
    if text.is_empty() {
        return Err(Problem::Empty { expected: "a JSON object" });
    }
    if text.len() as u64 > JSON_LIMIT {
        return Err(Problem::TooLarge { found: text.len() as u128, limit: JSON_LIMIT });
    }
    match Json::parse(&text) {
        Ok(Parsed { value: Json::Object(object), remarks }) => Ok((object, remarks)),
        Ok(_) => Err(Problem::Json { found: "it is not an object".into() }),
        Err(found) => Err(Problem::Json { found: found.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::SourceDtype;

    fn parse(text: &str) -> (StepMetadata, Vec<String>) {
        let Ok(Parsed { value: Json::Object(raw), .. }) = Json::parse(text.as_bytes()) else { panic!("{text}") };
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
        assert_eq!(odd, ["key `cfg_scale` has an unexpected value, and is unknown: \"high\""]);
    }

    #[test]
    fn seeds_of_64_bits_are_read_exactly_and_larger_ones_are_odd() {
        let seed = |text: &str| parse(&format!("{{\"seed\": {text}}}"));
        for known in ["0", "18446744073709551615", "-9223372036854775808", "9223372036854775808", "-1"] {
            assert_eq!(seed(known).0.seed.unwrap().to_string(), known);
        }
        for unknown in ["18446744073709551616", "-9223372036854775809", "1.8446744073709552e19", "1.5", "\"7\"", "true"]
        {
            let (metadata, odd) = seed(unknown);
            assert_eq!((metadata.seed, odd.len()), (None, 1), "{unknown}");
            assert_eq!(metadata.raw["seed"].to_string(), unknown);
        }
        assert_eq!(parse(r#"{"total_steps": 4294967296, "video_width": -2147483649}"#).1.len(), 2);
    }

    #[test]
    fn blocks_are_numbered_as_metadata_says_if_that_fits() {
        let shape = StepShape { blocks: 2, heads: 1, spatial: 4, tokens: 1 };
        let numbers = |text: &str| parse(text).0.numbers(shape, &AxisNumbers::default());
        let (chosen, odd) = numbers(r#"{"block_idx": [6, 8], "head_idx": 3}"#);
        assert_eq!((chosen.block(shape, 1), chosen.head(shape, 0), odd.len()), (Some(8), Some(3), 0));
        let split = AxisNumbers { blocks: Some([1, 5].into()), heads: None };
        let (of_files, odd) = parse(r#"{"block_idx": 1, "head_idx": [3]}"#).0.numbers(shape, &split);
        assert_eq!((of_files.block(shape, 1), of_files.head(shape, 0), odd.len()), (Some(5), Some(3), 0));
        let (reversed, odd) = numbers(r#"{"block_idx": [8, 6]}"#);
        assert_eq!((reversed.block(shape, 0), reversed.block(shape, 1), odd.len()), (Some(8), Some(6), 0));
        for unfit in [r#"{"block_idx": 6}"#, r#"{"block_idx": [6, 6]}"#, r#"{"block_idx": [1, 2, 3]}"#] {
            let (numbers, odd) = numbers(unfit);
            assert_eq!((numbers.block(shape, 1), odd.len()), (Some(1), 1), "{unfit}");
        }
    }

    #[test]
    fn metadata_that_lies_is_a_remark() {
        let (metadata, _) = parse(
            r#"{"step": 1, "attention_shape": [1, 12, 9, 1], "aggregation_method": "blocks_and_heads_averaged",
                "num_heads": 12, "dtype": "torch.float32"}"#,
        );
        let shape = StepShape { blocks: 1, heads: 12, spatial: 9, tokens: 1 };
        let remarks = metadata.disagreements(1, Some(StepPeek { shape, dtype: SourceDtype::Float16 }));
        assert_eq!(remarks.len(), 2, "{remarks:?}");
        assert!(remarks[0].contains("torch.float32") && remarks[1].contains("12 heads"), "{remarks:?}");
    }
}
