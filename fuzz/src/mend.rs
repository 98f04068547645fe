//! Checksums put right, so that what is wrong with a file reaches the code behind them. What has no checksum where one
//! should be stays as it is.

use std::ops::Range;

use flate2::{Crc, Decompress, FlushDecompress, Status};
use xxhash_rust::xxh3::xxh3_128;

/// The digits of an XXH3-128 hash, where there is none yet.
const NO_HASH: &[u8; 32] = b"00000000000000000000000000000000";
/// What a fuzzed stream is unpacked to at the most.
const UNPACKED: usize = 1 << 20;

/// A shard with an index of that many chunks at its end: the checksums of the chunks and of the index.
pub fn shard(shard: &mut [u8], chunks: usize) {
    let Some(index) = shard.len().checked_sub(chunks * 16 + 4) else { return };
    for chunk in 0..chunks {
        let [start, len] = [0, 8].map(|at| number(shard, index + chunk * 16 + at, 8));
        let range = start.zip(len).and_then(|(start, len)| Some(start..start.checked_add(len)?));
        if let Some(range) = range.filter(|range| range.end <= index) {
            crc32c_behind(&mut shard[range]);
        }
    }
    crc32c_behind(&mut shard[index..]);
}

/// Bytes with their CRC32C behind them.
pub fn crc32c_behind(bytes: &mut [u8]) {
    if let Some((values, checksum)) = bytes.split_last_chunk_mut::<4>() {
        *checksum = crc32c(values).to_le_bytes();
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 })
    })
}

/// A part of the tables.
pub fn part(part: &mut [u8]) {
    hash_behind(part, b"attnkit.checksum\x18\x20");
}

/// The document of a store's root.
pub fn root(document: &mut [u8]) {
    hash_behind(document, b"\"checksum\": \"");
}

/// The hash over a file itself, behind the last place where `key` is.
fn hash_behind(file: &mut [u8], key: &[u8]) {
    let Some(at) = file.windows(key.len()).rposition(|window| window == key).map(|at| at + key.len()) else { return };
    if file.len() >= at + NO_HASH.len() {
        file[at..at + NO_HASH.len()].copy_from_slice(NO_HASH);
        let hash = hash(file);
        file[at..at + NO_HASH.len()].copy_from_slice(hash.as_bytes());
    }
}

/// The hash by which a document is known.
pub fn hash(bytes: &[u8]) -> String {
    format!("{:032x}", xxh3_128(bytes))
}

/// A message: eight bytes that say what it is, JSON in one line, and behind that what is no JSON. Of a task, all behind
/// the eight bytes is the JSON of its portions, which is packed.
#[cfg(feature = "query")]
pub fn message(readable: &[u8]) -> Vec<u8> {
    use std::io::Write;

    /// The version of all that is sent.
    const VERSION: u32 = 1;
    let (kind, rest) = readable.split_at(readable.len().min(8));
    let packed = |portions: &[u8]| {
        let mut packed = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(portions).and_then(|()| packed.finish()).expect("memory")
    };
    let (json, tail) = if kind == b"attn.tsk" {
        let head = format!("{{\"plan\": \"1\", \"first\": 0, \"bytes\": {}}}", rest.len());
        (head.into_bytes(), packed(rest))
    } else {
        let end = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        (rest[..end].to_vec(), rest.get(end + 1..).unwrap_or_default().to_vec())
    };
    let behind = [&(json.len() as u64).to_le_bytes()[..], &json, &tail].concat();
    [kind, &VERSION.to_le_bytes(), &xxh3_128(&behind).to_le_bytes(), &behind].concat()
}

/// A gzip file: the checksum and length of each of its streams.
pub fn gzip(file: &mut [u8]) {
    /// What is before a stream without names and comments.
    const HEADER: usize = 10;
    let mut at = 0;
    while file.get(at..at + 4).is_some_and(|start| start == [0x1F, 0x8B, 8, 0]) {
        let Some((taken, unpacked)) = file.get(at + HEADER..).and_then(unpacked) else { return };
        let end = at + HEADER + taken;
        let (checksum, len) = checksum(&unpacked);
        let Some(behind) = file.get_mut(end..end + 8) else { return };
        behind[..4].copy_from_slice(&checksum.to_le_bytes());
        behind[4..].copy_from_slice(&len.to_le_bytes());
        at = end + 8 + file[end + 8..].iter().take_while(|&&byte| byte == 0).count();
    }
}

/// A zip archive: the checksums of its entries, in its directory and before each.
pub fn zip(file: &mut [u8]) {
    const LISTED: &[u8] = b"PK\x01\x02";
    let listed: Vec<usize> = (0..file.len()).filter(|&at| file[at..].starts_with(LISTED)).collect();
    for at in listed {
        let Some((contents, entry)) = entry(file, at) else { continue };
        let checksum = match number(file, at + 10, 2) {
            Some(0) => checksum(&file[contents]).0,
            Some(8) => match unpacked(&file[contents]) {
                Some((_, unpacked)) => checksum(&unpacked).0,
                None => continue,
            },
            _ => continue,
        };
        for place in [at + 16, entry + 14] {
            if let Some(old) = file.get_mut(place..place + 4) {
                old.copy_from_slice(&checksum.to_le_bytes());
            }
        }
    }
}

/// Where the contents of an entry that is listed at a place are, and the header before them.
fn entry(file: &[u8], listed: usize) -> Option<(Range<usize>, usize)> {
    /// A header without the name and what is behind it.
    const HEADER: usize = 30;
    let (packed, header) = (number(file, listed + 20, 4)?, number(file, listed + 42, 4)?);
    let start = header + HEADER + number(file, header + 26, 2)? + number(file, header + 28, 2)?;
    (start + packed <= file.len()).then_some((start..start + packed, header))
}

/// How many bytes a deflated stream takes, and what it holds; `None` if it has no end.
fn unpacked(packed: &[u8]) -> Option<(usize, Vec<u8>)> {
    let mut stream = Decompress::new(false);
    let mut unpacked = Vec::with_capacity(UNPACKED);
    match stream.decompress_vec(packed, &mut unpacked, FlushDecompress::Finish) {
        Ok(Status::StreamEnd) => Some((usize::try_from(stream.total_in()).ok()?, unpacked)),
        _ => None,
    }
}

fn checksum(bytes: &[u8]) -> (u32, u32) {
    let mut crc = Crc::new();
    crc.update(bytes);
    (crc.sum(), crc.amount())
}

/// The number of `len` bytes at a place, little-endian.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<usize> {
    let mut number = [0; 8];
    number[..len].copy_from_slice(bytes.get(at..at.checked_add(len)?)?);
    usize::try_from(u64::from_le_bytes(number)).ok()
}
