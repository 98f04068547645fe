//! The generator's `attention_analysis_settings`, read from YAML and applied to an existing dump.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::IngestOptions;
use crate::bounded;
use crate::error::{Cause, ErrorKind, LayerError};
use crate::remedy::Remedy;

/// The most bytes of a file of settings.
const FILE_BYTES: u64 = 16 << 20;
const BLOCK: &str = "attention_analysis_settings";
const KEYS: [&str; 8] = [
    "store_attention",
    "storage_format",
    "compress_attention",
    "storage_interval",
    "storage_dtype",
    "spatial_downsample_factor",
    "store_per_head",
    "store_per_block",
];

/// Settings that could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {found}", path.display())]
pub struct SettingsError {
    /// The file.
    pub path: PathBuf,
    /// What was found and what was expected.
    pub found: String,
    /// What the system or a library says, if one does.
    pub source: Option<Cause>,
}

impl LayerError for SettingsError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Argument
    }

    fn remedy(&self) -> Option<Remedy> {
        Some("the documented block starts with `attention_analysis_settings:`".into())
    }
}

/// Settings read from a file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    every: Option<u32>,
    dtype: Option<crate::dtype::Dtype>,
    downsample: Option<usize>,
    average_heads: Option<bool>,
    average_blocks: Option<bool>,
    /// What the user should know: unknown keys, and keys that mean nothing to an ingest.
    pub remarks: Vec<String>,
}

impl Settings {
    /// Puts the settings into options.
    pub fn apply(&self, options: &mut IngestOptions) {
        options.every = self.every.unwrap_or(options.every);
        options.dtype = self.dtype.or(options.dtype);
        options.downsample = self.downsample.unwrap_or(options.downsample);
        options.average_heads = self.average_heads.unwrap_or(options.average_heads);
        options.average_blocks = self.average_blocks.unwrap_or(options.average_blocks);
    }
}

/// Reads the block `attention_analysis_settings` of a YAML file, or a file that is that block.
///
/// `storage_interval` becomes [`IngestOptions::every`], `storage_dtype` its `dtype`, `spatial_downsample_factor` its
/// `downsample`; `store_per_head: false` and `store_per_block: false` average. Format and compression say how the
/// generator writes files and mean nothing here.
///
/// # Errors
/// If the file cannot be read, is not YAML, or a known key has a value it cannot have.
pub fn read_settings(path: &Path) -> Result<Settings, SettingsError> {
    let refused = |found: String, source| SettingsError { path: path.to_owned(), found, source };
    let text = bounded::read_text(path, FILE_BYTES)
        .map_err(|error| refused(format!("cannot be read: {error}"), Some(error.into())))?;
    let document = serde_saphyr::from_str(&text)
        .map_err(|error| refused(format!("not valid YAML: {error}"), Some(error.into())))?;
    settings_in(document).map_err(|found| refused(found, None))
}

fn settings_in(document: Value) -> Result<Settings, String> {
    let Value::Object(mut document) = document else {
        return Err(format!("expected the block `{BLOCK}:`"));
    };
    let block = match document.remove(BLOCK) {
        Some(Value::Object(block)) => block,
        Some(_) => return Err(format!("`{BLOCK}` holds no keys")),
        None if document.keys().any(|key| KEYS.contains(&key.as_str())) => document,
        None => {
            let found = document.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(format!("no block `{BLOCK}`; found {found}"));
        }
    };
    let remarks = block
        .keys()
        .filter(|key| !KEYS.contains(&key.as_str()))
        .map(|key| format!("unknown key `{key}` in `{BLOCK}`; known are {}", KEYS.join(", ")))
        .collect();
    let flag = |key: &str| match block.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(other) => Err(format!("`{key}` is {other}; expected true or false")),
    };
    if flag("store_attention")? == Some(false) {
        return Err("`store_attention` is false: nothing is to be stored".into());
    }
    flag("compress_attention")?;
    Ok(Settings {
        every: count(&block, "storage_interval")?.and_then(|n| u32::try_from(n).ok()),
        dtype: match block.get("storage_dtype") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => {
                Some(name.trim_start_matches("torch.").parse().map_err(|error| format!("`storage_dtype`: {error}"))?)
            }
            Some(other) => return Err(format!("`storage_dtype` is {other}; expected \"float16\" or \"float32\"")),
        },
        downsample: count(&block, "spatial_downsample_factor")?,
        average_heads: flag("store_per_head")?.map(|kept| !kept),
        average_blocks: flag("store_per_block")?.map(|kept| !kept),
        remarks,
    })
}

fn count(block: &Map<String, Value>, key: &str) -> Result<Option<usize>, String> {
    match block.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(n @ 1..=1_000_000) => Ok(Some(n)),
            _ => Err(format!("`{key}` is {value}; expected a whole number from 1")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;

    #[test]
    fn the_documented_block_is_understood_and_unknown_keys_are_named() {
        let text = "other: 1\nattention_analysis_settings:\n  store_attention: true\n  storage_format: \"numpy\"  # or \
             torch\n  storage_interval: 2\n  storage_dtype: \"float32\"\n  store_per_head: false\n  \
             attention_threshold: 0.1\n";
        let settings = settings_in(serde_saphyr::from_str(text).unwrap()).unwrap();
        let mut options = IngestOptions::default();
        settings.apply(&mut options);
        assert_eq!(
            (options.every, options.dtype, options.average_heads, options.average_blocks),
            (2, Some(Dtype::Float32), true, false)
        );
        assert_eq!(settings.remarks.len(), 1);
        assert!(settings.remarks[0].contains("`attention_threshold`"));
    }

    #[test]
    fn wrong_values_are_named() {
        let error = |text| settings_in(serde_saphyr::from_str(text).unwrap()).unwrap_err();
        assert!(error("attention_analysis_settings:\n  storage_interval: 0").contains("`storage_interval` is 0"));
        assert!(error("attention_analysis_settings:\n  store_per_head: maybe").contains("true or false"));
        assert!(error("attention_analysis_settings:\n  storage_dtype: int8").contains("int8"));
        assert!(error("a: 1").contains("found a"));
        assert!(error("- 1").contains("expected the block"));
    }
}
