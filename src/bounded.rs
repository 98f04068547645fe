//! Reading files whole that are small: a size is not believed, and what is no file may have no end.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// The bytes of a file.
///
/// # Errors
/// If it cannot be read, or has more than `most`.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    read_from(File::open(path)?, most)
}

/// A file as text.
///
/// # Errors
/// As [`read`], or if it is not UTF-8.
pub(crate) fn read_text(path: &Path, most: u64) -> io::Result<String> {
    as_text(read(path, most)?)
}

/// All of a stream.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_from(stream: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(
            ErrorKind::FileTooLarge,
            format!("more than {most} bytes, which are the most that is read"),
        ));
    }
    Ok(bytes)
}

/// Bytes as text.
///
/// # Errors
/// If they are not UTF-8.
pub(crate) fn as_text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| io::Error::new(ErrorKind::InvalidData, format!("not UTF-8: {error}")))
}
