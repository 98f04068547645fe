//! `.npz`: a zip archive of npy files. The array named `attention` is taken, or the only one that can be a step.

use std::io::{Read, Seek, SeekFrom};

use zip::ZipArchive;

use super::Problem;
use super::array::without_batch;
use super::npy::{HEADER_LIMIT, NpyHeader};
use crate::error::Cause;

/// Arrays of an archive whose heads are looked at.
const MOST_ARRAYS: usize = 256;

/// Which array of an archive is read.
#[derive(Debug, Clone, PartialEq)]
pub struct NpzArray {
    /// Its name.
    pub name: String,
    /// The others there are.
    pub others: Vec<String>,
    /// Its place in the archive.
    pub(super) index: usize,
    pub(super) header: NpyHeader,
}

/// An npz archive, opened.
pub(super) struct Npz<R> {
    archive: ZipArchive<R>,
}

impl<R: Read + Seek> Npz<R> {
    pub fn open(mut file: R) -> Result<Self, Problem> {
        let listed = listed_entries(&mut file);
        let archive = ZipArchive::new(file).map_err(unusable)?;
        // Of entries of one name the archive has the last.
        match listed {
            Some(listed) if listed > archive.len() => Err(unusable("it has several arrays of one name")),
            _ => Ok(Self { archive }),
        }
    }

    /// The array that is meant: the one that is `wanted`, else `attention`, else the only one that can be a step.
    pub fn choose(&mut self, wanted: Option<&str>) -> Result<NpzArray, Problem> {
        if self.archive.len() > MOST_ARRAYS {
            return Err(unusable(format!("it has {} entries, more than {MOST_ARRAYS}", self.archive.len())));
        }
        // As numpy has them: by name, without the extension.
        let mut arrays: Vec<(String, usize, Result<NpyHeader, Problem>)> = Vec::new();
        for index in 0..self.archive.len() {
            let mut entry = self.archive.by_index(index).map_err(unusable)?;
            let name = entry.name().map_err(unusable)?.into_owned();
            let mut head = Vec::new();
            let read = entry.by_ref().take(HEADER_LIMIT as u64).read_to_end(&mut head);
            let header = read.map_err(Problem::Io).and_then(|_| NpyHeader::parse(&head));
            match name.strip_suffix(".npy").filter(|name| !name.is_empty()) {
                Some(name) => arrays.push((name.to_owned(), index, header)),
                // What is no array is no array of the archive either.
                None if header.is_ok() => arrays.push((name, index, header)),
                None => {}
            }
        }
        let can_be_a_step = |header: &Result<NpyHeader, Problem>| {
            header.as_ref().is_ok_and(|header| without_batch(&header.shape).is_ok())
        };
        let list = |names: Vec<&str>| names.join(", ");
        let named = |name: &str| arrays.iter().position(|(own, ..)| own == name);
        if let Some((name, ..)) =
            arrays.iter().enumerate().find(|(at, (name, ..))| named(name) != Some(*at)).map(|(_, array)| array)
        {
            return Err(unusable(format!("it has several arrays of one name: {name}")));
        }
        let steps: Vec<usize> = (0..arrays.len()).filter(|&place| can_be_a_step(&arrays[place].2)).collect();
        let chosen = match (wanted, named("attention"), &steps[..]) {
            (Some(wanted), ..) => named(wanted).ok_or_else(|| {
                let names = list(arrays.iter().map(|(name, ..)| name.as_str()).collect());
                unusable(format!("it has no array `{wanted}`; there are {names}"))
            })?,
            (None, Some(attention), _) => attention,
            (None, None, [only]) => *only,
            (None, None, []) => match &arrays[..] {
                [] => return Err(unusable("it holds no array")),
                [_] => 0,
                _ => {
                    let described = arrays.iter().map(|(name, _, header)| match header {
                        Ok(header) => format!("{name} of shape {:?}", header.shape),
                        Err(problem) => format!("{name} ({problem})"),
                    });
                    let described = described.take(8).collect::<Vec<_>>().join("; ");
                    return Err(unusable(format!("none of its arrays can be a step: {described}")));
                }
            },
            (None, None, several) => {
                let names = list(several.iter().map(|&place| arrays[place].0.as_str()).collect());
                return Err(Problem::NpzSeveral { names });
            }
        };
        let (name, index, header) = arrays.swap_remove(chosen);
        let header = header.map_err(|problem| match problem {
            Problem::Io(error) => unusable(format!("array {name}: {error}")),
            other => other,
        })?;
        let mut others: Vec<String> = arrays.into_iter().map(|(name, ..)| name).collect();
        others.sort();
        Ok(NpzArray { name, others, index, header })
    }

    /// Extracts an array: no more of it than its own header promises, and that only within `limit`.
    pub fn extract(&mut self, array: &NpzArray, limit: u64, npy: &mut Vec<u8>) -> Result<(), Problem> {
        let entry = self.archive.by_index(array.index).map_err(unusable)?;
        read_promised(entry, limit, npy).map_err(|error| match error {
            Problem::Io(error) => unusable(format!("array {}: {error}", array.name)),
            other => other,
        })
    }
}

/// How many entries an archive lists at its end; `None` if that is not said where archives without a comment have it.
fn listed_entries(file: &mut (impl Read + Seek)) -> Option<usize> {
    let mut end = [0; 22];
    file.seek(SeekFrom::End(-22)).ok()?;
    file.read_exact(&mut end).ok()?;
    let listed = u16::from_le_bytes([end[10], end[11]]);
    // The highest number stands for more.
    (end.starts_with(b"PK\x05\x06") && listed < u16::MAX).then_some(listed.into())
}

fn unusable(error: impl Into<Cause>) -> Problem {
    Problem::Npz { found: error.into() }
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
