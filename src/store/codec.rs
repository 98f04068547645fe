//! Encoding and decoding inner chunks, by `zarrs`.

use std::borrow::Cow;
use std::num::NonZeroU64;

use serde_json::Value;
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
}

impl ChunkCodec {
    /// A codec for chunks of `axes` from the Zarr metadata of the inner codecs.
    pub fn new(codecs: Vec<Value>, axes: impl IntoIterator<Item = u64>, dtype: Dtype) -> Result<Self, String> {
        let axes: Vec<u64> = axes.into_iter().collect();
        let bytes = axes.iter().try_fold(dtype.size() as u64, |bytes, &axis| bytes.checked_mul(axis));
        if bytes.is_none_or(|bytes| bytes > MAX_CHUNK_BYTES) {
            return Err(format!("inner chunks of {axes:?}; one has {MAX_CHUNK_BYTES} bytes at the most"));
        }
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
        })
    }

    /// Encodes one chunk of values in the machine's byte order.
    pub fn encode<'a>(&self, values: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        let bytes = ArrayBytes::from(values);
        let encoded = self.chain.encode(bytes, &self.shape, &self.data_type, &self.fill, &self.options);
        encoded.map_err(|error| error.to_string())
    }

    /// Decodes one chunk, after checking its checksum.
    pub fn decode<'a>(&self, encoded: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        let decoded = self.chain.decode(encoded.into(), &self.shape, &self.data_type, &self.fill, &self.options);
        decoded.and_then(|bytes| Ok(bytes.into_fixed()?)).map_err(|error| error.to_string())
    }
}
