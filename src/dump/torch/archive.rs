//! The zip archive that `torch.save` writes: its entries, with their checksums verified.

use std::borrow::Cow;
use std::io::{self, Cursor, Read};

use zip::read::ZipReadOptions;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::{TorchError, within};

/// Bytes of `data.pkl`: a tensor's has a few hundred, a checkpoint's may have more than this.
pub const PICKLE_LIMIT: u64 = 1 << 18;

/// A zip archive in memory with its entries in one directory: `data.pkl`, `byteorder`, `data/0`, …
pub struct TorchArchive<'a> {
    bytes: &'a [u8],
    zip: ZipArchive<Cursor<&'a [u8]>>,
    root: Vec<u8>,
}

impl<'a> TorchArchive<'a> {
    pub fn open(bytes: &'a [u8]) -> Result<Self, TorchError> {
        match bytes {
            [] => return Err(TorchError::Empty),
            [0x80, 2..=5, ..] => return Err(TorchError::Legacy),
            [b'P', b'K', ..] => {}
            _ => {
                let head: Vec<_> = bytes.iter().take(4).map(|b| format!("{b:02x}")).collect();
                return Err(TorchError::NotZip(head.join(" ")));
            }
        }
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(TorchError::Archive)?;
        let pickles = zip.file_names_raw().filter_map(|name| name.strip_suffix(b"data.pkl"));
        let roots: Vec<_> = pickles.filter(|root| matches!(root, [] | [.., b'/'])).collect();
        match roots.as_slice() {
            [root] if !zip.has_duplicate_names() => Ok(Self { bytes, root: root.to_vec(), zip }),
            [_] => Err(entry_error("data.pkl", "entries of the same name beside it", "none")),
            _ => Err(entry_error("data.pkl", format!("{} of them", roots.len()), "one")),
        }
    }

    /// Older archives don't say, and are taken for little-endian.
    pub fn is_big_endian(&mut self) -> Result<bool, TorchError> {
        if self.find("byteorder").is_none() {
            return Ok(false);
        }
        match self.entry("byteorder", None, 64)?.trim_ascii() {
            b"little" => Ok(false),
            b"big" => Ok(true),
            _ => Err(entry_error("byteorder", "something else", "`little` or `big`")),
        }
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.zip.index_for_name_raw(&[self.root.as_slice(), name.as_bytes()].concat())
    }

    /// Contents of an entry of `exactly` this size, checksum verified: in place if the archive
    /// stores it as is, else inflated. Without an exact size, `limit` holds for both.
    pub fn entry(&mut self, name: &str, exactly: Option<u64>, limit: u64) -> Result<Cow<'a, [u8]>, TorchError> {
        let damage = |error: ZipError| entry_error(name, error.to_string(), "intact contents");
        let sizes = |found: u64, expected: u64| entry_error(name, format!("{found} bytes"), format!("{expected}"));
        let index = self.find(name).ok_or_else(|| entry_error(name, "no such entry", "one"))?;
        let header = self.zip.by_index_data(index).map_err(damage)?;
        let (size, stored) = (header.size(), header.compression() == CompressionMethod::Stored);
        if let Some(expected) = exactly.filter(|&expected| expected != size) {
            return Err(sizes(size, expected));
        }
        if !stored || exactly.is_none() {
            within(&format!("archive entry `{name}`"), size, limit)?;
        }

        // A checksum of 0 stands for none: torch.save can be told to leave them out.
        let options = ZipReadOptions::new().ignore_crc32(header.crc32() == 0);
        let mut entry = self.zip.by_index_with_options(index, options).map_err(damage)?;
        let mut inflated = Vec::new();
        // One byte more than announced, for the checksum is verified when the end is met.
        let mut announced = entry.by_ref().take(size.saturating_add(1));
        let found =
            if stored { io::copy(&mut announced, &mut io::sink()) } else { io::copy(&mut announced, &mut inflated) };
        let found = found.map_err(|error| damage(error.into()))?;
        if found != size {
            return Err(sizes(found, size));
        }
        if !stored {
            return Ok(Cow::Owned(inflated));
        }
        let start = entry.data_start().and_then(|start| usize::try_from(start).ok());
        let contents = start.zip(usize::try_from(size).ok());
        let contents = contents.and_then(|(start, size)| self.bytes.get(start..)?.get(..size));
        contents.map(Cow::Borrowed).ok_or_else(|| sizes(0, size))
    }
}

pub fn entry_error(entry: &str, found: impl Into<String>, expected: impl Into<String>) -> TorchError {
    TorchError::Entry { entry: entry.into(), found: found.into(), expected: expected.into() }
}
