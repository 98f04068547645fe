//! `.npz`: a zip archive of npy files. The array named `attention` is taken, else the first one.

use std::io::{Cursor, Read};

use zip::ZipArchive;

use super::Problem;
use super::npy::{HEADER_LIMIT, NpyHeader};

/// Extracts the npy file to use: no more of it than its own header promises, and that only within `limit`.
pub(super) fn extract_npy(bytes: &[u8], limit: u64, npy: &mut Vec<u8>) -> Result<(), Problem> {
    let unusable = |error: &dyn std::fmt::Display| Problem::Npz { found: error.to_string() };
    if bytes.is_empty() {
        return Err(Problem::Empty { expected: "an npz archive" });
    }
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| unusable(&error))?;
    let names: Vec<String> =
        archive.file_names().filter_map(|name| name.ok().map(std::borrow::Cow::into_owned)).collect();
    let is_array = |name: &&String| name.len() > 4 && name.ends_with(".npy");
    let name = names
        .iter()
        .find(|name| *name == "attention.npy")
        .or_else(|| names.iter().find(is_array))
        .ok_or_else(|| unusable(&"it holds no array"))?;
    let entry = archive.by_name(name).map_err(|error| unusable(&error))?;
    read_promised(entry, limit, npy).map_err(|error| match error {
        Problem::Io(error) => unusable(&format!("array {name}: {error}")),
        other => other,
    })
}

/// Reads an npy stream to its end, but at most one byte more than its header promises.
pub(super) fn read_promised(mut stream: impl Read, limit: u64, bytes: &mut Vec<u8>) -> Result<(), Problem> {
    bytes.clear();
    stream.by_ref().take(HEADER_LIMIT as u64).read_to_end(bytes)?;
    let header = NpyHeader::parse(bytes)?;
    let promised = header.file_bytes();
    if promised > u128::from(limit) {
        return Err(Problem::TooLarge { found: promised, limit });
    }
    let rest = u64::try_from(promised).unwrap_or(u64::MAX).saturating_sub(bytes.len() as u64);
    stream.take(rest + 1).read_to_end(bytes)?;
    header.check_size(bytes.len() as u64, limit)
}
