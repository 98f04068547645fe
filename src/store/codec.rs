//! Encoding and decoding inner chunks: by `zarrs`, but that decoding of what attnkit writes is our own.

mod blosc;

use std::borrow::Cow;
use std::cell::Cell;
use std::num::NonZeroU64;
use std::ops::Range;

use serde_json::{Value, json};
use zarrs::array::codec::CodecChain;
use zarrs::array::{ArrayBytes, ArrayToBytesCodecTraits, BytesToBytesCodecTraits, CodecOptions, DataType, FillValue};
use zarrs::metadata::v3::MetadataV3;

use crate::dtype::Dtype;

/// The most bytes of an inner chunk, which holds at least one map; Blosc has no larger ones.
const MAX_CHUNK_BYTES: u64 = (1 << 31) - 1 - 32;

/// Bytes with their CRC32C behind them.
pub fn crc32c(bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    let codec = zarrs::array::codec::Crc32cCodec::new();
    codec.encode(bytes.into(), &options()).map(Cow::into_owned).map_err(|error| error.to_string())
}

/// Codecs run on the thread that calls them: the work is parallel over steps already.
pub fn options() -> CodecOptions {
    CodecOptions::default().with_concurrent_target(1)
}

/// Encodes and decodes the inner chunks of one array.
#[derive(Debug)]
pub struct ChunkCodec {
    chain: CodecChain,
    shape: Vec<NonZeroU64>,
    data_type: DataType,
    fill: FillValue,
    options: CodecOptions,
    /// `None`: only `zarrs` decodes it.
    own: Option<Own>,
}

/// What chunks are that we decode ourselves: little-endian values with a checksum behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    /// As they are.
    Bare,
    /// In a Blosc frame.
    Blosc,
}

/// What decoding a chunk works with, kept by each thread from one chunk to the next.
#[derive(Default)]
pub struct Scratch {
    /// A chunk as it is stored.
    pub encoded: Vec<u8>,
    /// A chunk's values.
    pub values: Vec<u8>,
    pub(super) blosc: blosc::Scratch,
}

/// The most bytes of buffers that are kept.
const MAX_KEPT_BYTES: usize = 16 << 20;

impl Scratch {
    /// Lends what this thread has. Whoever asks for it within `work` gets one of its own: threads take up other work
    /// while they wait.
    pub fn with<R>(work: impl FnOnce(&mut Self) -> R) -> R {
        thread_local! {
            static KEPT: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
        }
        let mut scratch = KEPT.take().unwrap_or_default();
        let made = work(&mut scratch);
        if scratch.encoded.len() + scratch.values.len() + scratch.blosc.len() <= MAX_KEPT_BYTES {
            KEPT.set(Some(scratch));
        }
        made
    }
}

/// The first bytes of a buffer that is made longer where it has to be; what was in it may be lost.
pub fn first_bytes(buffer: &mut Vec<u8>, bytes: usize) -> Result<&mut [u8], String> {
    if buffer.len() < bytes {
        // The next chunk may be a little larger.
        let room = if bytes < MAX_KEPT_BYTES { bytes.next_power_of_two() } else { bytes };
        let new = bytemuck::allocation::try_zeroed_vec(room);
        *buffer = new.map_err(|()| format!("a chunk of {bytes} bytes is too large for memory"))?;
    }
    Ok(&mut buffer[..bytes])
}

impl ChunkCodec {
    /// A codec for chunks of `axes` from the Zarr metadata of the inner codecs.
    pub fn new(codecs: Vec<Value>, axes: impl IntoIterator<Item = u64>, dtype: Dtype) -> Result<Self, String> {
        let axes: Vec<u64> = axes.into_iter().collect();
        let bytes = axes.iter().try_fold(dtype.size() as u64, |bytes, &axis| bytes.checked_mul(axis));
        if bytes.is_none_or(|bytes| bytes > MAX_CHUNK_BYTES) {
            return Err(format!("inner chunks of {axes:?}; one has {MAX_CHUNK_BYTES} bytes at the most"));
        }
        let own = own(&codecs);
        let metadata: Vec<MetadataV3> = codecs
            .into_iter()
            .map(|codec| serde_json::from_value(codec).map_err(|error| error.to_string()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            chain: CodecChain::from_metadata(&metadata).map_err(|error| error.to_string())?,
            shape: axes.into_iter().filter_map(NonZeroU64::new).collect(),
            data_type: match dtype {
                Dtype::Float16 => zarrs::array::data_type::float16(),
                Dtype::Float32 => zarrs::array::data_type::float32(),
                Dtype::Float64 => zarrs::array::data_type::float64(),
            },
            fill: FillValue::new(vec![0; dtype.size()]),
            options: options(),
            own,
        })
    }

    /// Encodes one chunk of values in the machine's byte order.
    pub fn encode<'a>(&self, values: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        let bytes = ArrayBytes::from(values);
        let encoded = self.chain.encode(bytes, &self.shape, &self.data_type, &self.fill, &self.options);
        encoded.map_err(|error| error.to_string())
    }

    /// Decodes one chunk, after checking its checksum: at least the bytes of it that are wanted, ascending. `values`
    /// has as many bytes as the chunk; what is in the others is undefined.
    pub fn decode(
        &self,
        encoded: &[u8],
        values: &mut [u8],
        wanted: &[Range<usize>],
        scratch: &mut blosc::Scratch,
    ) -> Result<(), String> {
        if let Some(own) = self.own
            && let Some((stored, checksum)) = encoded.split_last_chunk::<4>()
            && ::crc32c::crc32c(stored) == u32::from_le_bytes(*checksum)
        {
            match own {
                Own::Bare if stored.len() == values.len() => {
                    values.copy_from_slice(stored);
                    return Ok(());
                }
                Own::Blosc if blosc::decode(stored, values, wanted, scratch).is_some() => return Ok(()),
                Own::Bare | Own::Blosc => {}
            }
        }
        let decoded = self.decode_by_zarrs(encoded)?;
        if decoded.len() != values.len() {
            return Err(format!("{} bytes of values", decoded.len()));
        }
        values.copy_from_slice(&decoded);
        Ok(())
    }

    fn decode_by_zarrs<'a>(&self, encoded: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        let decoded = self.chain.decode(encoded.into(), &self.shape, &self.data_type, &self.fill, &self.options);
        decoded.and_then(|bytes| Ok(bytes.into_fixed()?)).map_err(|error| error.to_string())
    }
}

/// What chunks of these codecs are to us.
fn own(codecs: &[Value]) -> Option<Own> {
    let is_plain = |codec: &Value| codec["configuration"].as_object().is_none_or(serde_json::Map::is_empty);
    let is_little = |codec: &Value| codec["configuration"] == json!({"endian": "little"});
    let (bytes, own, checksum) = match codecs {
        [bytes, checksum] => (bytes, Own::Bare, checksum),
        [bytes, blosc, checksum] if blosc["name"] == "blosc" => (bytes, Own::Blosc, checksum),
        _ => return None,
    };
    let is_known = bytes["name"] == "bytes" && is_little(bytes) && checksum["name"] == "crc32c" && is_plain(checksum);
    (is_known && cfg!(target_endian = "little")).then_some(own)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn codec(cname: &str, level: u8, shuffle: &str, block: usize, dtype: Dtype, elements: usize) -> ChunkCodec {
        let blosc = json!({"name": "blosc", "configuration": {
            "cname": cname, "clevel": level, "shuffle": shuffle, "typesize": dtype.size(), "blocksize": block,
        }});
        let bytes = json!({"name": "bytes", "configuration": {"endian": "little"}});
        ChunkCodec::new(vec![bytes, blosc, json!({"name": "crc32c"})], [1, elements as u64], dtype).unwrap()
    }

    /// Values as of maps: neighbours are alike, and the lowest bits are noise.
    fn values(dtype: Dtype, elements: usize, seed: u64, noise: bool) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(seed);
        let value = |element: usize| {
            let noise = if noise { random.f64() } else { 0.0 };
            (element as f64 / 50.0).sin().abs() + noise * 0.01
        };
        crate::values::Values::compute(dtype, elements, value).bytes().to_vec()
    }

    fn decode(codec: &ChunkCodec, encoded: &[u8], wanted: Range<usize>) -> Result<Vec<u8>, String> {
        let elements: u64 = codec.shape.iter().map(|axis| axis.get()).product();
        let mut decoded = vec![0xA5; usize::try_from(elements).unwrap() * codec.fill.size()];
        Scratch::with(|scratch| codec.decode(encoded, &mut decoded, &[wanted], &mut scratch.blosc))?;
        Ok(decoded)
    }

    fn by_us(frame: &[u8], bytes: usize) -> Option<Vec<u8>> {
        let mut decoded = vec![0xA5; bytes];
        let all = 0..bytes;
        Scratch::with(|scratch| blosc::decode(frame, &mut decoded, &[all], &mut scratch.blosc))?;
        Some(decoded)
    }

    #[test]
    fn a_chunk_is_decoded_by_the_thread_that_decodes_another_meanwhile() {
        let codec = codec("zstd", 1, "bitshuffle", 0, Dtype::Float16, 480);
        let values = values(Dtype::Float16, 480, 0, true);
        let encoded = codec.encode(&values).unwrap();
        let decoded = Scratch::with(|scratch| {
            scratch.encoded.extend(&*encoded);
            let inner = decode(&codec, &encoded, 0..values.len()).unwrap();
            assert_eq!(scratch.encoded, &*encoded);
            inner
        });
        assert_eq!(decoded, values);
    }

    #[test]
    fn values_as_they_are_are_checked_and_read() {
        let codecs = vec![json!({"name": "bytes", "configuration": {"endian": "little"}}), json!({"name": "crc32c"})];
        let codec = ChunkCodec::new(codecs, [1, 30], Dtype::Float32).unwrap();
        let values = values(Dtype::Float32, 30, 0, true);
        let mut encoded = codec.encode(&values).unwrap().into_owned();
        assert_eq!(decode(&codec, &encoded, 0..120), Ok(values));
        encoded[3] ^= 1;
        assert!(decode(&codec, &encoded, 0..120).is_err());
    }

    #[test]
    fn values_in_another_order_of_bytes_are_left_to_zarrs() {
        let codecs = vec![json!({"name": "bytes", "configuration": {"endian": "big"}}), json!({"name": "crc32c"})];
        let codec = ChunkCodec::new(codecs, [1, 30], Dtype::Float32).unwrap();
        let values = values(Dtype::Float32, 30, 0, true);
        let encoded = codec.encode(&values).unwrap();
        assert_ne!(encoded[..120], values);
        assert_eq!(decode(&codec, &encoded, 0..120), Ok(values));
    }

    fn frames() -> impl Strategy<Value = (ChunkCodec, Vec<u8>, bool)> {
        let dtype = prop_oneof![Just(Dtype::Float16), Just(Dtype::Float32), Just(Dtype::Float64)];
        let cname = prop_oneof![3 => Just("lz4"), 3 => Just("zstd"), 1 => Just("lz4hc"), 1 => Just("blosclz")];
        let shuffle = prop_oneof![2 => Just("bitshuffle"), 1 => Just("shuffle"), 1 => Just("noshuffle")];
        let block = prop_oneof![Just(0usize), 16..30_000usize];
        let kinds = (dtype, cname, shuffle, 0u8..=9, block);
        (kinds, 1usize..12_000, any::<u64>(), any::<bool>()).prop_map(|(kind, elements, seed, noise)| {
            let (dtype, cname, shuffle, level, block) = kind;
            let codec = codec(cname, level, shuffle, block, dtype, elements);
            (codec, values(dtype, elements, seed, noise), cname != "blosclz")
        })
    }

    proptest! {
        #[test]
        fn frames_of_known_kinds_are_decoded_as_c_blosc_does((codec, values, is_known) in frames()) {
            let encoded = codec.encode(&values).unwrap().into_owned();
            prop_assert_eq!(&*codec.decode_by_zarrs(&encoded).unwrap(), &values);
            prop_assert_eq!(&decode(&codec, &encoded, 0..values.len()).unwrap(), &values);
            let frame = &encoded[..encoded.len() - 4];
            if is_known {
                prop_assert_eq!(&by_us(frame, values.len()).unwrap(), &values);
            }
            prop_assert_eq!(by_us(frame, values.len() + 1), None);
        }

        #[test]
        fn blocks_that_nobody_asks_for_are_left_as_they_are(
            (codec, values, _) in frames(),
            ends: [prop::sample::Index; 2],
        ) {
            let encoded = codec.encode(&values).unwrap();
            let [a, b] = ends.map(|end| end.index(values.len() + 1));
            let wanted = a.min(b)..a.max(b);
            let decoded = decode(&codec, &encoded, wanted.clone()).unwrap();
            prop_assert_eq!(&decoded[wanted.clone()], &values[wanted]);
        }

        #[test]
        fn what_is_damaged_is_never_read_as_c_blosc_does_not(
            (codec, values, _) in frames(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..4),
            kept in proptest::option::weighted(0.25, any::<prop::sample::Index>()),
        ) {
            let encoded = codec.encode(&values).unwrap();
            let mut frame = encoded[..encoded.len() - 4].to_vec();
            if let Some(kept) = kept {
                frame.truncate(kept.index(frame.len()));
            }
            for (place, value, in_head) in changes {
                let head = frame.len().min(if in_head { 40 } else { usize::MAX });
                if head > 0 {
                    frame[place.index(head)] ^= value;
                }
            }
            if kept.is_some() && frame.len() >= 16 {
                // As if it had been written so.
                let len = u32::try_from(frame.len()).unwrap();
                frame[12..16].copy_from_slice(&len.to_le_bytes());
            }
            if let Some(decoded) = by_us(&frame, values.len()) {
                let encoded = crc32c(frame).unwrap();
                let expected = codec.decode_by_zarrs(&encoded);
                prop_assert_eq!(expected.as_deref(), Ok(&decoded[..]));
            }
        }
    }
}
