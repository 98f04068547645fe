//! gzip as `gunzip` and Python read it: several streams one behind the other, and zeros behind the last.

use std::io::{self, Read};

use flate2::bufread::GzDecoder;

use super::Problem;

const MAGIC: &[u8] = &[0x1F, 0x8B];

/// Unpacks a whole file.
pub(super) struct Gunzip<'a> {
    /// The stream that is read; `None` behind the last.
    stream: Option<GzDecoder<&'a [u8]>>,
    read: usize,
}

/// What is behind the last stream is no gzip.
#[derive(Debug, thiserror::Error)]
#[error("{0} bytes behind the stream")]
struct Tail(usize);

impl<'a> Gunzip<'a> {
    pub fn new(file: &'a [u8]) -> Result<Self, Problem> {
        match file {
            [] => Err(Problem::Empty { expected: "a gzip stream" }),
            _ if file.starts_with(b"\x93NUMPY") => Err(Problem::NotGzip { found: "is an npy file" }),
            _ if file.starts_with(b"PK\x03\x04") => {
                Err(Problem::NotGzip { found: "is a zip archive, as .pt and .npz are" })
            }
            _ if file.starts_with(MAGIC) => Ok(Self { stream: Some(GzDecoder::new(file)), read: 0 }),
            _ => Err(Problem::NotGzip { found: "begins otherwise" }),
        }
    }

    /// What is wrong with the file, after reading failed.
    pub fn problem(&self, source: io::Error) -> Problem {
        match source.get_ref().and_then(|error| error.downcast_ref::<Tail>()) {
            Some(Tail(bytes)) => Problem::GzipTail { bytes: *bytes },
            None => Problem::Gzip { read: self.read, source },
        }
    }
}

impl Read for Gunzip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(stream) = &mut self.stream {
            let read = stream.read(buffer)?;
            self.read += read;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let rest = *stream.get_ref();
            let padding = rest.iter().take_while(|byte| **byte == 0).count();
            let rest = &rest[padding..];
            self.stream = match rest {
                [] => None,
                _ if rest.starts_with(MAGIC) => Some(GzDecoder::new(rest)),
                _ => return Err(io::Error::new(io::ErrorKind::InvalidData, Tail(rest.len()))),
            };
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(text).unwrap();
        writer.finish().unwrap()
    }

    fn unpacked(file: &[u8]) -> Result<Vec<u8>, Problem> {
        let mut text = Vec::new();
        let mut stream = Gunzip::new(file)?;
        match stream.read_to_end(&mut text) {
            Ok(_) => Ok(text),
            Err(error) => Err(stream.problem(error)),
        }
    }

    #[test]
    fn streams_and_padding_are_read_as_gunzip_does() {
        let (a, b) = (packed(b"hello, "), packed(b"world"));
        assert_eq!(unpacked(&[&a[..], &b].concat()).unwrap(), b"hello, world");
        assert_eq!(unpacked(&[&a[..], &[0; 512]].concat()).unwrap(), b"hello, ");
        assert_eq!(unpacked(&[&a[..], &[0; 3], &b].concat()).unwrap(), b"hello, world");
        assert_eq!(unpacked(&packed(b"")).unwrap(), b"");
    }

    #[test]
    fn other_bytes_behind_it_and_other_files_are_named() {
        let a = packed(b"hello");
        let tail = unpacked(&[&a[..], b"\0\0words"].concat()).unwrap_err();
        assert!(matches!(tail, Problem::GzipTail { bytes: 5 }), "{tail}");
        assert!(matches!(unpacked(&a[..a.len() - 3]).unwrap_err(), Problem::Gzip { read: 5, .. }));
        assert!(matches!(unpacked(b"\x93NUMPY\x01\x00").unwrap_err(), Problem::NotGzip { found: "is an npy file" }));
        assert!(matches!(unpacked(b"text").unwrap_err(), Problem::NotGzip { .. }));
        assert!(matches!(unpacked(b"").unwrap_err(), Problem::Empty { .. }));
    }
}
