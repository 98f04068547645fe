//! Decoding Blosc frames of the kinds that attnkit writes: blocks of lz4 or zstd, shuffled by byte, by bit or not at
//! all. What is of another kind, or not sound, is left to c-blosc, whose word counts.

use std::ops::Range;

use zstd::bulk::Decompressor;

use crate::kernel::{Shuffle, unshuffle};

/// Bytes of a frame's header.
const HEADER_BYTES: usize = 16;
/// Elements of more bytes are never split into streams.
const MAX_STREAMS: usize = 16;
/// Blocks of fewer elements are never split into streams.
const MIN_SPLIT_ELEMENTS: usize = 128;
/// c-blosc takes no larger blocks.
const MAX_BLOCK_BYTES: usize = (i32::MAX as usize - 255 * 4) / 3;

/// What decoding works with, to be used again: a block before it is unshuffled, and the state of zstd.
#[derive(Default)]
pub struct Scratch {
    block: Vec<u8>,
    zstd: Option<Decompressor<'static>>,
}

impl Scratch {
    /// Bytes of its buffer.
    pub const fn len(&self) -> usize {
        self.block.len()
    }
}

/// How the blocks of a frame are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compressor {
    Lz4,
    Zstd,
}

/// A frame whose header says what is known: blosc1, format 2, as `README_CHUNK_FORMAT.rst` of c-blosc has it.
#[derive(Debug, Clone, Copy)]
struct Frame<'a> {
    bytes: &'a [u8],
    /// `None`: blocks are there as they are.
    compressor: Option<Compressor>,
    shuffle: Option<Shuffle>,
    /// Whether blocks are cut into a stream for each byte of an element.
    split: bool,
    /// Bytes of an element.
    size: usize,
    /// Bytes of a block but the last.
    block: usize,
    /// Bytes of all blocks.
    len: usize,
}

/// Decodes the blocks of a frame that have bytes of `wanted`, which are ascending, into `target`; elsewhere it stays as
/// it is. `None`: the frame is of a kind that is not known, or not sound, and anything may be in `target`.
///
/// `target` has as many bytes as the frame's blocks, or nothing is done.
pub fn decode(frame: &[u8], target: &mut [u8], wanted: &[Range<usize>], scratch: &mut Scratch) -> Option<()> {
    let frame = Frame::parse(frame).filter(|frame| frame.len == target.len())?;
    let mut wanted = wanted.iter().filter(|range| !range.is_empty()).peekable();
    for (number, target) in target.chunks_mut(frame.block).enumerate() {
        let start = number * frame.block;
        while wanted.next_if(|range| range.end <= start).is_some() {}
        if wanted.peek().is_some_and(|range| range.start < start + target.len()) {
            frame.decode_block(number, target, scratch)?;
        }
    }
    Some(())
}

impl<'a> Frame<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let [version, compressor_version, flags, size, ..] = *bytes.first_chunk::<HEADER_BYTES>()?;
        let (len, block, compressed) = (number_at(bytes, 4)?, number_at(bytes, 8)?, number_at(bytes, 12)?);
        let size = usize::from(size);
        let is_sound =
            version == 2 && compressed == bytes.len() && size > 0 && (1..=len.min(MAX_BLOCK_BYTES)).contains(&block);
        if !is_sound {
            return None;
        }
        let shuffle = match flags & 0b101 {
            // Of single bytes there is nothing to shuffle.
            0b001 => (size > 1).then_some(Shuffle::Bytes),
            0b100 => (block >= size).then_some(Shuffle::Bits),
            0b000 => None,
            _ => return None,
        };
        let compressor = match flags >> 5 {
            _ if flags & 0b10 != 0 => None,
            1 if compressor_version == 1 => Some(Compressor::Lz4),
            4 if compressor_version == 1 => Some(Compressor::Zstd),
            _ => return None,
        };
        let is_known = flags & 0b1000 == 0 && (shuffle.is_none() || matches!(size, 1 | 2 | 4 | 8));
        // Beyond the first kind of flag, blocks were split as soon as that was possible.
        let split = flags & 0b1_0000 == 0 && size <= MAX_STREAMS && block / size >= MIN_SPLIT_ELEMENTS;
        let is_whole = match compressor {
            None => len.checked_add(HEADER_BYTES) == Some(bytes.len()),
            Some(_) => {
                len.div_ceil(block) <= (bytes.len() - HEADER_BYTES) / 4 && (!split || block.is_multiple_of(size))
            }
        };
        (is_known && is_whole).then_some(Self { bytes, compressor, shuffle, split, size, block, len })
    }

    fn decode_block(&self, number: usize, target: &mut [u8], scratch: &mut Scratch) -> Option<()> {
        let Some(compressor) = self.compressor else {
            target.copy_from_slice(self.bytes.get(HEADER_BYTES + number * self.block..)?.get(..target.len())?);
            return Some(());
        };
        let Scratch { block, zstd } = scratch;
        let start = number_at(self.bytes, HEADER_BYTES + number * 4)?;
        // A block that is no multiple of eight elements has its bits where they were. (Bytes behind the last element
        // are not counted.)
        let elements = target.len() / self.size;
        let in_place = match self.shuffle {
            Some(Shuffle::Bytes) => elements == 0,
            Some(Shuffle::Bits) => !elements.is_multiple_of(8) || target.len() < self.size,
            None => true,
        };
        if in_place {
            return self.decompress(compressor, start, target, zstd);
        }
        if block.len() < target.len() {
            *block = bytemuck::allocation::try_zeroed_vec(target.len()).ok()?;
        }
        let block = block.get_mut(..target.len())?;
        self.decompress(compressor, start, block, zstd)?;
        let shuffle = self.shuffle?;
        let whole = elements * self.size;
        let ((from, from_behind), (to, to_behind)) = (block.split_at(whole), target.split_at_mut(whole));
        match self.size {
            1 => unshuffle::<1>(shuffle, from, to),
            2 => unshuffle::<2>(shuffle, from, to),
            4 => unshuffle::<4>(shuffle, from, to),
            8 => unshuffle::<8>(shuffle, from, to),
            _ => return None,
        }
        to_behind.copy_from_slice(from_behind);
        Some(())
    }

    /// Decompresses the streams of a block, which begin at `start`.
    fn decompress(
        &self,
        compressor: Compressor,
        start: usize,
        target: &mut [u8],
        zstd: &mut Option<Decompressor<'static>>,
    ) -> Option<()> {
        let streams = if self.split && target.len() == self.block { self.size } else { 1 };
        let mut rest = self.bytes.get(start..)?;
        for target in target.chunks_exact_mut(target.len() / streams) {
            let compressed = number_at(rest, 0)?;
            let (stream, behind) = rest.get(4..)?.split_at_checked(compressed)?;
            rest = behind;
            let decompressed = match compressor {
                // What could not be compressed is there as it was.
                _ if stream.len() == target.len() => {
                    target.copy_from_slice(stream);
                    continue;
                }
                Compressor::Lz4 => {
                    let bytes = i32::try_from(target.len()).ok()?;
                    lz4::block::decompress_to_buffer(stream, Some(bytes), target).ok()?
                }
                Compressor::Zstd => {
                    if zstd.is_none() {
                        *zstd = Decompressor::new().ok();
                    }
                    zstd.as_mut()?.decompress_to_buffer(stream, target).ok()?
                }
            };
            if decompressed != target.len() {
                return None;
            }
        }
        Some(())
    }
}

/// A number of a frame: 32 bits with a sign, little-endian. `None` if it is negative, or not there.
fn number_at(bytes: &[u8], at: usize) -> Option<usize> {
    let number = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(i32::from_le_bytes(*number)).ok()
}
