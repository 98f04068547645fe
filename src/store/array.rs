//! Reading the Zarr arrays of a store: whole steps, inner chunks, and ranges of elements. Documents, keys and indices
//! are read by `zarrs`.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use zarrs::array::{ArrayBytes, ArrayShardedReadableExt, ArrayShardedReadableExtCache};
use zarrs::storage::byte_range::{ByteRange, ByteRangeIterator, InvalidByteRangeError};
use zarrs::storage::{Bytes, MaybeBytesIterator, ReadableStorageTraits, StorageError, StoreKey};

use super::codec::{ChunkCodec, Scratch, first_bytes, options};
use super::storage::{Contents, Storage, join};
use super::{Store, StoreError, layout};
use crate::dtype::Dtype;
use crate::error::Cause;
use crate::kernel::zeroed;

/// The most inner chunks in a shard.
const MAX_SLOTS: u64 = 1 << 24;

/// An array of a store, opened for reading.
pub struct StoredArray {
    storage: Arc<dyn Storage>,
    path: String,
    files: Arc<ArrayFiles>,
    array: zarrs::array::Array<ArrayFiles>,
    dtype: String,
    /// Of the inner chunks; `None` for the unsharded coordinates.
    chunks: Option<Chunks>,
}

/// The inner chunks of a sharded array.
struct Chunks {
    codec: ChunkCodec,
    /// Number along each axis.
    grid: Vec<u64>,
    /// Number in one step.
    per_step: usize,
    /// Number in one shard along each axis.
    per_shard: Vec<u64>,
    /// Elements of one.
    len: usize,
    dtype: Dtype,
    is_blosc: bool,
    shards: ArrayShardedReadableExtCache,
}

impl std::fmt::Debug for StoredArray {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredArray").field("path", &self.path).field("shape", &self.shape()).finish_non_exhaustive()
    }
}

impl StoredArray {
    /// Opens the array at `path` below a store.
    ///
    /// # Errors
    /// If there is none, its document is damaged, or the store has moved on.
    pub(super) fn open(storage: Arc<dyn Storage>, path: &str) -> Result<Self, StoreError> {
        let document = layout::document(path);
        let text = storage.get(&document).map_err(|error| {
            let moved_on = if error.is_not_found() { moved_on(&storage, path) } else { None };
            moved_on.unwrap_or(error)
        })?;
        let place = storage.place(&document);
        let metadata: Value = serde_json::from_slice(&text).map_err(|error| StoreError::damaged(&place, error))?;
        let files = ArrayFiles { storage: storage.clone(), path: path.to_owned(), open: Mutex::default() };
        let files = Arc::new(files);
        let array = zarrs::array::Array::open(files.clone(), "/")
            .map_err(|error| StoreError::array(storage.place(path), error))?;
        let dtype = metadata.get("data_type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let chunks = Chunks::of(&array, &metadata, &dtype).map_err(|found| StoreError::damaged(&place, found))?;
        Ok(Self { storage, path: path.to_owned(), files, array, dtype, chunks })
    }

    /// Its shape.
    #[must_use]
    pub fn shape(&self) -> Vec<u64> {
        self.array.shape().to_vec()
    }

    /// Name of its data type.
    #[must_use]
    pub fn dtype(&self) -> &str {
        &self.dtype
    }

    /// How one step is cut: the number of its inner chunks, and the elements of each. One behind the other, in C order,
    /// they make the step.
    ///
    /// # Errors
    /// If the array is a coordinate.
    pub fn chunks_of_step(&self) -> Result<(usize, usize), StoreError> {
        let chunks = self.sharded()?;
        Ok((chunks.per_step, chunks.len))
    }

    /// An error where its inner chunks are not of so many elements of a type.
    pub(crate) fn check_chunks(&self, dtype: Dtype, len: usize) -> Result<(), StoreError> {
        let chunks = self.sharded()?;
        if (chunks.dtype, chunks.len) == (dtype, len) {
            return Ok(());
        }
        let found = format!("its chunks are {} {}; expected {len} {dtype}", chunks.len, chunks.dtype);
        Err(StoreError::damaged(self.storage.place(&self.path), found))
    }

    /// Decodes an inner chunk of a step, with its checksum verified. `visit` gets its values, in the machine's byte
    /// order.
    ///
    /// # Errors
    /// If there is no such step, the array is a coordinate, or the chunk is missing or damaged.
    pub fn read_chunk<R>(&self, row: u64, number: usize, visit: impl FnOnce(&[u8]) -> R) -> Result<R, StoreError> {
        let all = 0..self.sharded()?.len;
        self.read_parts(row, number, &[all], visit)
    }

    /// The same where only some of the chunk's elements are looked at, in ascending ranges: what is in the others is
    /// undefined.
    pub(crate) fn read_parts<R>(
        &self,
        row: u64,
        number: usize,
        elements: &[Range<usize>],
        visit: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, StoreError> {
        let bytes = self.sharded()?.bytes();
        Scratch::with(|scratch| {
            let mut values = std::mem::take(&mut scratch.values);
            let read = first_bytes(&mut values, bytes).map_err(|error| self.failed(error)).and_then(|values| {
                self.decode(row, number, elements, values, scratch)?;
                Ok(visit(values))
            });
            scratch.values = values;
            read
        })
    }

    /// Decodes an inner chunk of a step into memory of as many bytes as it has.
    pub(crate) fn read_chunk_into(&self, row: u64, number: usize, values: &mut [u8]) -> Result<(), StoreError> {
        let all = 0..self.sharded()?.len;
        Scratch::with(|scratch| self.decode(row, number, &[all], values, scratch))
    }

    fn decode(
        &self,
        row: u64,
        number: usize,
        elements: &[Range<usize>],
        values: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<(), StoreError> {
        let (chunks, place) = self.place(row, number)?;
        let (start, bytes) = self.range_of(chunks, &place)?;
        let failed = |found: String| self.failed(format!("chunk {place:?}: {found}"));
        let key = self.array.chunk_key(&chunks.shard_of(&place));
        let file = self.files.open(&key).map_err(|error| self.failed(error))?;
        let file = file.ok_or_else(|| self.missing(&format!("chunk {place:?}")))?;
        if start.checked_add(bytes as u64).is_none_or(|end| end > file.len()) {
            let found = format!("its {bytes} bytes at {start} are not within the {} of its shard", file.len());
            return Err(failed(found));
        }
        let encoded = first_bytes(&mut scratch.encoded, bytes).map_err(failed)?;
        file.read_into(start, encoded).map_err(|error| self.failed(error))?;
        chunks.check_blosc(encoded).map_err(failed)?;
        let size = chunks.dtype.size();
        let wanted: Vec<_> = elements.iter().map(|range| range.start * size..range.end * size).collect();
        chunks.codec.decode(encoded, values, &wanted, &mut scratch.blosc).map_err(failed)
    }

    /// Where a chunk lies in its shard, once what the index says is checked: its first byte, and the number of bytes.
    fn range_of(&self, chunks: &Chunks, place: &[u64]) -> Result<(u64, usize), StoreError> {
        let missing = || self.missing(&format!("chunk {place:?}"));
        let range = self.array.subchunk_byte_range(&chunks.shards, place).map_err(|error| self.failed(error))?;
        let Some(ByteRange::FromStart(start, Some(length))) = range else { return Err(missing()) };
        if start == u64::MAX {
            return Err(missing());
        }
        // What cannot be compressed takes a little more than it is.
        let most = 2 * chunks.bytes() + 4096;
        match usize::try_from(length) {
            Ok(bytes) if bytes <= most && start.checked_add(length).is_some_and(|end| i64::try_from(end).is_ok()) => {
                Ok((start, bytes))
            }
            _ => Err(self.failed(format!(
                "the shard's index gives chunk {place:?} {length} bytes at {start}; its values take {most} at the most"
            ))),
        }
    }

    /// Bytes that an inner chunk takes in its shard.
    ///
    /// # Errors
    /// As [`read_chunk`](Self::read_chunk).
    pub fn stored_bytes(&self, row: u64, number: usize) -> Result<u64, StoreError> {
        let (chunks, place) = self.place(row, number)?;
        let range = self.array.subchunk_byte_range(&chunks.shards, &place).map_err(|error| self.failed(error))?;
        Ok(range.map_or(0, |range| range.length(u64::MAX)))
    }

    /// Decodes the inner chunks of one step, in C order, each with its checksum verified. `visit` gets the index of the
    /// chunk's first element within the step and its values, in the machine's byte order.
    ///
    /// # Errors
    /// As [`read_chunk`](Self::read_chunk).
    pub fn for_each_chunk(&self, row: u64, mut visit: impl FnMut(usize, &[u8])) -> Result<(), StoreError> {
        let (count, len) = self.chunks_of_step()?;
        (0..count).try_for_each(|number| self.read_chunk(row, number, |values| visit(number * len, values)))
    }

    /// The values of one step, in the machine's byte order, C order.
    ///
    /// # Errors
    /// As [`for_each_chunk`](Self::for_each_chunk).
    pub fn read_step(&self, row: u64) -> Result<Vec<u8>, StoreError> {
        let mut step = Vec::new();
        self.read_step_into(row, &mut step)?;
        Ok(step)
    }

    /// The same in memory that was used for a step before, or is empty.
    pub(crate) fn read_step_into(&self, row: u64, step: &mut Vec<u8>) -> Result<(), StoreError> {
        let chunks = self.sharded()?;
        let bytes = chunks.per_step * chunks.bytes();
        if step.len() != bytes {
            *step =
                zeroed(bytes).ok_or_else(|| self.failed(format!("a step of {bytes} bytes is too large for memory")))?;
        }
        let targets = step.chunks_exact_mut(chunks.bytes()).enumerate();
        targets.into_iter().try_for_each(|(number, values)| self.read_chunk_into(row, number, values))
    }

    /// A range of the elements of one step, in C order and the machine's byte order. Only the chunks that hold them are
    /// decoded.
    ///
    /// # Errors
    /// As [`for_each_chunk`](Self::for_each_chunk), or if the step has fewer elements.
    pub fn read_range(&self, row: u64, elements: std::ops::Range<usize>) -> Result<Vec<u8>, StoreError> {
        let chunks = self.sharded()?;
        let (count, len, size) = (chunks.per_step, chunks.len, chunks.dtype.size());
        if elements.end > count * len {
            return Err(self.failed(format!("a step has {} elements; {elements:?} are not among them", count * len)));
        }
        let mut values = Vec::with_capacity(elements.len() * size);
        for number in elements.start / len..elements.end.div_ceil(len) {
            let (first, last) = (elements.start.max(number * len), elements.end.min((number + 1) * len));
            let wanted = (first - number * len) * size..(last - number * len) * size;
            let elements = first - number * len..last - number * len;
            self.read_parts(row, number, &[elements], |chunk| values.extend_from_slice(&chunk[wanted]))?;
        }
        Ok(values)
    }

    /// All values of a coordinate, in the machine's byte order.
    ///
    /// # Errors
    /// If its chunk is missing or damaged.
    pub fn read_coordinate(&self) -> Result<Vec<u8>, StoreError> {
        // Where a chunk is missing, readers see the fill value.
        let chunk = self.array.retrieve_chunk_if_exists_opt(&[0], &options()).map_err(|error| self.failed(error))?;
        let bytes: ArrayBytes<'_> = chunk.ok_or_else(|| self.missing("its chunk"))?;
        let bytes = bytes.into_fixed().map_err(|error| self.failed(error))?.into_owned();
        let size = if self.dtype == "float64" { 8 } else { 4 };
        match self.array.shape() {
            [len] if len.checked_mul(size) == Some(bytes.len() as u64) => Ok(bytes),
            shape => Err(self.failed(format!("it is of {shape:?}, and its first chunk has {} bytes", bytes.len()))),
        }
    }

    fn failed(&self, found: impl Into<Cause>) -> StoreError {
        StoreError::array(self.storage.place(&self.path), found)
    }

    /// What is not there is damage, or was removed since its video was committed anew.
    fn missing(&self, what: &str) -> StoreError {
        moved_on(&self.storage, &self.path).unwrap_or_else(|| self.failed(format!("{what} is missing")))
    }

    fn sharded(&self) -> Result<&Chunks, StoreError> {
        self.chunks.as_ref().ok_or_else(|| self.failed("it is not sharded"))
    }

    /// Place of a chunk in the grid of inner chunks.
    fn place(&self, row: u64, number: usize) -> Result<(&Chunks, Vec<u64>), StoreError> {
        let chunks = self.sharded()?;
        if self.array.shape().first().is_none_or(|&steps| row >= steps) || number >= chunks.per_step {
            let shape = self.array.shape();
            return Err(self.failed(format!("there is no chunk {number} of a step at row {row} of shape {shape:?}")));
        }
        Ok((chunks, chunks.indices(row, number)))
    }
}

impl Chunks {
    /// Reads the sharding codec's configuration; `None` if the array is not sharded.
    fn of(array: &zarrs::array::Array<ArrayFiles>, metadata: &Value, dtype: &str) -> Result<Option<Self>, String> {
        let sharding = metadata.pointer("/codecs/0").filter(|codec| codec["name"] == "sharding_indexed");
        let Some(configuration) = sharding.map(|codec| &codec["configuration"]) else { return Ok(None) };
        let axes: Vec<u64> =
            configuration["chunk_shape"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        let shape = array.shape();
        if shape.iter().skip(1).any(|&axis| axis == 0) {
            return Err(format!("an array of {shape:?}, which has nothing along an axis"));
        }
        if axes.len() != shape.len() || axes.contains(&0) || axes.first() != Some(&1) {
            return Err(format!("inner chunks of {axes:?} in an array of {shape:?}; expected whole maps of one step"));
        }
        // Chunks one behind the other make the step only if each is a contiguous piece of it.
        let first_wide = axes.iter().position(|&axis| axis != 1).unwrap_or(axes.len());
        let whole_behind = axes.iter().zip(shape).skip(first_wide + 1).all(|(axis, size)| axis == size);
        let divides = axes.iter().zip(shape).all(|(axis, size)| size % axis == 0);
        if !whole_behind || !divides {
            return Err(format!("inner chunks of {axes:?} are not contiguous pieces of steps of {shape:?}"));
        }
        let dtype: Dtype = dtype.parse()?;
        let step_bytes = shape.iter().skip(1).try_fold(dtype.size() as u64, |bytes, &axis| bytes.checked_mul(axis));
        if step_bytes.is_none_or(|bytes| i64::try_from(bytes).is_err()) {
            return Err(format!("an array of {shape:?}, of which no step fits into any memory"));
        }
        // What a reader would hold of a shard's index.
        let shard = metadata.pointer("/chunk_grid/configuration/chunk_shape").and_then(Value::as_array);
        let shard: Vec<u64> = shard.into_iter().flatten().filter_map(Value::as_u64).collect();
        let slots = shard.iter().zip(&axes).try_fold(1_u64, |slots, (size, axis)| slots.checked_mul(size / axis));
        if shard.len() != axes.len() || slots.is_none_or(|slots| slots > MAX_SLOTS) {
            return Err(format!("shards of {shard:?} in inner chunks of {axes:?}; one has {MAX_SLOTS} at the most"));
        }
        let per_shard: Vec<u64> = shard.iter().zip(&axes).map(|(size, axis)| size / axis).collect();
        if per_shard.contains(&0) {
            return Err(format!("shards of {shard:?} in inner chunks of {axes:?}, which are larger"));
        }
        let codecs = configuration["codecs"].as_array().cloned().unwrap_or_default();
        let names: Vec<&str> = codecs.iter().filter_map(|codec| codec["name"].as_str()).collect();
        let is_blosc = match names[..] {
            ["bytes", "blosc", "crc32c"] => true,
            ["bytes", "crc32c"] => false,
            _ => return Err(format!("inner chunks encoded by {names:?}; expected bytes, blosc if at all, crc32c")),
        };
        let grid: Vec<u64> = shape.iter().zip(&axes).map(|(size, axis)| size / axis).collect();
        Ok(Some(Self {
            codec: ChunkCodec::new(codecs, axes.iter().copied(), dtype)?,
            per_step: usize::try_from(grid.iter().skip(1).product::<u64>()).map_err(|error| error.to_string())?,
            grid,
            per_shard,
            len: usize::try_from(axes.iter().product::<u64>()).map_err(|error| error.to_string())?,
            dtype,
            is_blosc,
            shards: ArrayShardedReadableExtCache::new(array),
        }))
    }

    /// Bytes of one, decoded.
    const fn bytes(&self) -> usize {
        self.len * self.dtype.size()
    }

    /// The place of the shard that a chunk is in.
    fn shard_of(&self, place: &[u64]) -> Vec<u64> {
        place.iter().zip(&self.per_shard).map(|(index, count)| index / count).collect()
    }

    /// Checks what a chunk's header says of its size before that is allocated.
    fn check_blosc(&self, encoded: &[u8]) -> Result<(), String> {
        let expected = self.bytes();
        // Version, version of the compressor, flags, size of an element; then the bytes, little-endian.
        let said = encoded.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
        match said {
            _ if !self.is_blosc => Ok(()),
            Some(bytes) if usize::try_from(bytes) == Ok(expected) => Ok(()),
            Some(bytes) => Err(format!("its header says {bytes} bytes; its values take {expected}")),
            None => Err(format!("{} bytes, too few for a header", encoded.len())),
        }
    }

    /// Place of a step's chunk in the grid of inner chunks.
    fn indices(&self, row: u64, number: usize) -> Vec<u64> {
        let mut rest = number as u64;
        let mut indices = vec![row; self.grid.len()];
        for (index, &count) in indices.iter_mut().zip(&self.grid).skip(1).rev() {
            *index = rest % count;
            rest /= count;
        }
        indices
    }
}

/// Whether what is at `path` below a store is of a generation that its video's commit names no more.
fn moved_on(storage: &Arc<dyn Storage>, path: &str) -> Option<StoreError> {
    // Where nothing can be told, it is as if it were named.
    let is_named = Store::at(storage.clone()).is_named(path).unwrap_or(true);
    (!is_named).then(|| StoreError::MovedOn { path: storage.place(path) })
}

/// The files of an array, for `zarrs`.
struct ArrayFiles {
    storage: Arc<dyn Storage>,
    path: String,
    /// Those that were read last, which stay open: the next chunk is mostly of the same shards.
    open: Mutex<Vec<(StoreKey, Arc<dyn Contents>)>>,
}

/// Files of an array that stay open.
const OPEN_FILES: usize = 8;

impl std::fmt::Debug for ArrayFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArrayFiles").field("path", &self.path).finish_non_exhaustive()
    }
}

impl ArrayFiles {
    fn open(&self, key: &StoreKey) -> Result<Option<Arc<dyn Contents>>, StorageError> {
        let known = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, contents)) = known().iter().find(|(own, _)| own == key) {
            return Ok(Some(contents.clone()));
        }
        match self.storage.open(&join(&self.path, key.as_str())) {
            Ok(contents) => {
                let contents: Arc<dyn Contents> = contents.into();
                let mut open = known();
                if open.len() == OPEN_FILES {
                    open.remove(0);
                }
                open.push((key.clone(), contents.clone()));
                Ok(Some(contents))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(StorageError::from(error.to_string())),
        }
    }
}

impl ReadableStorageTraits for ArrayFiles {
    fn get_partial_many<'a>(
        &'a self,
        key: &StoreKey,
        byte_ranges: ByteRangeIterator<'a>,
    ) -> Result<MaybeBytesIterator<'a>, StorageError> {
        let Some(contents) = self.open(key)? else { return Ok(None) };
        Ok(Some(Box::new(byte_ranges.map(move |range| read_range(&*contents, range)))))
    }

    fn size_key(&self, key: &StoreKey) -> Result<Option<u64>, StorageError> {
        Ok(self.open(key)?.map(|contents| contents.len()))
    }

    fn supports_get_partial(&self) -> bool {
        true
    }
}

/// Reads a range that lies within a file, which is all that is ever allocated for it.
fn read_range(contents: &dyn Contents, range: ByteRange) -> Result<Bytes, StorageError> {
    let len = contents.len();
    let (start, bytes) = match range {
        ByteRange::FromStart(start, None) => (Some(start), len.checked_sub(start)),
        ByteRange::FromStart(start, Some(bytes)) => (Some(start), Some(bytes)),
        ByteRange::Suffix(bytes) => (len.checked_sub(bytes), Some(bytes)),
    };
    match (start, bytes) {
        (Some(start), Some(bytes)) if start.checked_add(bytes).is_some_and(|end| end <= len) => {
            contents.read(start, bytes).map_err(|error| StorageError::IOError(Arc::new(error)))
        }
        _ => Err(InvalidByteRangeError::new(range, len).into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::shape::{AxisNumbers, StepShape};
    use crate::store::codec::crc32c;
    use crate::store::shard::shard_index;
    use crate::store::storage::conformance::storages;
    use crate::store::{ArrayKind, Codec, Coordinates, Generation, Rollups, SeriesLayout};

    /// A word in every storage, of two steps.
    fn written() -> Vec<(Arc<dyn Storage>, Option<tempfile::TempDir>)> {
        let storages = storages();
        for (storage, _dir) in &storages {
            let shape = StepShape { blocks: 2, heads: 3, spatial: 40, tokens: 1 };
            let layout =
                SeriesLayout { shape, dtype: Dtype::Float16, steps: 2, codec: Codec::Balanced, rollups: Rollups::None };
            let none = AxisNumbers::default();
            let coordinates = Coordinates { steps: &[0, 1], timesteps: &[f64::NAN; 2], numbers: &none };
            let generation = Generation::new(storage.clone(), "word".into());
            generation.write_documents(&layout, json!({}), &coordinates).unwrap();
            let mut shard = generation.shard(&layout, ArrayKind::Attention, 0).unwrap();
            let values = vec![1; layout.chunk_len(ArrayKind::Attention) * layout.dtype.size()];
            for _ in 0..2 * layout.chunks_per_step(ArrayKind::Attention) {
                shard.push(&values).unwrap();
            }
            shard.finish().unwrap();
            StoredArray::open(storage.clone(), ARRAY).unwrap().read_step(1).unwrap();
        }
        storages
    }

    const ARRAY: &str = "word/attention";
    const SHARD: &str = "word/attention/c.0.0.0.0.0";
    const DOCUMENT: &str = "word/attention/zarr.json";

    #[test]
    fn a_header_that_claims_gigabytes_is_no_reason_to_take_them() {
        for (storage, _dir) in written() {
            let mut shard = storage.get(SHARD).unwrap().to_vec();
            let index = shard_index(&shard, 2).unwrap();
            let [start, len] = index[0];
            shard[start + 4..start + 8].copy_from_slice(&0xFFFF_FF00_u32.to_le_bytes());
            let chunk = crc32c(shard[start..start + len - 4].to_vec()).unwrap();
            shard[start..start + len].copy_from_slice(&chunk);
            storage.put(SHARD, &shard).unwrap();
            let error = StoredArray::open(storage, ARRAY).unwrap().read_step(0).unwrap_err().to_string();
            assert!(error.contains("its header says 4294967040 bytes; its values take 480"), "{error}");
        }
    }

    #[test]
    fn documents_that_claim_what_no_memory_holds_are_refused() {
        for (storage, _dir) in written() {
            let document: Value = serde_json::from_slice(&storage.get(DOCUMENT).unwrap()).unwrap();
            let refused = |forged: &Value| {
                storage.put(DOCUMENT, forged.to_string().as_bytes()).unwrap();
                StoredArray::open(storage.clone(), ARRAY).unwrap_err().to_string()
            };
            let huge = 1_u64 << 40;
            for (pointers, value, said) in [
                (vec!["/shape/3", "/chunk_grid/configuration/chunk_shape/3"], json!(huge), "contiguous"),
                (vec!["/shape/1", "/shape/2", "/shape/3"], json!(1_u64 << 32), "contiguous"),
                (vec!["/chunk_grid/configuration/chunk_shape/0"], json!(huge), "1099511627776"),
                (
                    vec!["/codecs/0/configuration/codecs/1"],
                    json!({"name": "gzip", "configuration": {"level": 1}}),
                    "gzip",
                ),
                (vec!["/codecs/0/configuration/chunk_shape/0"], json!(2), "whole maps"),
            ] {
                let mut forged = document.clone();
                for pointer in pointers {
                    *forged.pointer_mut(pointer).unwrap() = value.clone();
                }
                let error = refused(&forged);
                assert!(error.contains("zarr.json") && error.contains(said), "{said}: {error}");
            }
            // Of a step and a chunk that claim as much as each other.
            let mut forged = document.clone();
            for pointer in
                ["/shape/3", "/chunk_grid/configuration/chunk_shape/3", "/codecs/0/configuration/chunk_shape/3"]
            {
                *forged.pointer_mut(pointer).unwrap() = json!(huge);
            }
            let error = refused(&forged);
            assert!(error.contains("one has 2147483615 bytes at the most"), "{error}");
        }
    }

    #[test]
    fn a_range_outside_a_file_is_not_read() {
        let file = Bytes::from_static(b"0123456789");
        let get = |range| read_range(&file, range).ok();
        assert_eq!(get(ByteRange::FromStart(2, Some(3))).unwrap(), "234");
        assert_eq!(get(ByteRange::FromStart(8, None)).unwrap(), "89");
        assert_eq!(get(ByteRange::Suffix(10)).unwrap(), "0123456789");
        for range in [
            ByteRange::FromStart(8, Some(3)),
            ByteRange::FromStart(11, None),
            ByteRange::FromStart(u64::MAX, Some(2)),
            ByteRange::Suffix(u64::MAX),
        ] {
            assert_eq!(get(range), None, "{range}");
        }
    }
}
