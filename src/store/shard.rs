//! Shards: writing them inner chunk by inner chunk, so that memory stays at one chunk, whatever a shard's size; and the
//! index at their end.

use std::path::PathBuf;

use super::codec::{ChunkCodec, crc32c};
use super::storage::{Storage, Upload};
use super::{ArrayKind, SeriesLayout, StoreError};

/// Writes one shard: inner chunks in the order they come, then the index.
pub(crate) struct ShardWriter {
    place: PathBuf,
    file: Box<dyn Upload>,
    codec: ChunkCodec,
    index: Vec<u8>,
    written: u64,
    slots: usize,
}

impl ShardWriter {
    /// Begins a shard of one of the arrays that `layout` describes.
    pub(super) fn create(
        storage: &dyn Storage,
        key: &str,
        layout: &SeriesLayout,
        kind: ArrayKind,
    ) -> Result<Self, StoreError> {
        let place = storage.place(key);
        let axes = [vec![1], layout.chunk_axes(kind)].concat().into_iter().map(|axis| axis as u64);
        let codec = ChunkCodec::new(layout.inner_codecs(kind), axes, layout.dtype_of(kind))
            .map_err(|found| StoreError::array(&place, found))?;
        let slots = layout.steps_per_shard() * layout.chunks_per_step(kind);
        Ok(Self { place, file: storage.create(key)?, codec, index: Vec::new(), written: 0, slots })
    }

    /// Appends the next inner chunk, in C order over (step, block, head).
    pub fn push(&mut self, values: &[u8]) -> Result<(), StoreError> {
        let chunk = self.codec.encode(values).map_err(|found| StoreError::array(&self.place, found))?;
        self.push_encoded(&chunk)
    }

    /// Appends an inner chunk that is encoded already.
    pub(super) fn push_encoded(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(chunk).map_err(StoreError::io(&self.place))?;
        let len = chunk.len() as u64;
        self.index.extend(self.written.to_le_bytes());
        self.index.extend(len.to_le_bytes());
        self.written += len;
        Ok(())
    }

    /// Writes the index, with the chunks that did not come marked empty. Returns the file's size.
    pub fn finish(mut self) -> Result<u64, StoreError> {
        self.index.resize(self.slots * 16, 0xFF);
        let index = crc32c(self.index).map_err(|found| StoreError::array(&self.place, found))?;
        self.file.write_all(&index).map_err(StoreError::io(&self.place))?;
        self.file.finish()?;
        Ok(self.written + index.len() as u64)
    }
}

/// Start and length of each inner chunk of a shard, from the index at its end; `None` if the index is damaged.
pub(super) fn shard_index(shard: &[u8], slots: usize) -> Option<Vec<[usize; 2]>> {
    let index = shard.get(shard.len().checked_sub(slots * 16 + 4)?..)?;
    let (entries, _) = index.split_last_chunk::<4>()?;
    if crc32c(entries.to_vec()).ok()? != index {
        return None;
    }
    let number = |bytes: &[u8; 8]| usize::try_from(u64::from_le_bytes(*bytes)).unwrap_or(usize::MAX);
    let (numbers, _) = entries.as_chunks::<8>();
    Some(numbers.as_chunks::<2>().0.iter().map(|[start, len]| [number(start), number(len)]).collect())
}
