"""A second reader of stores, written from docs/store-format.md alone: neither attnkit nor a Zarr library."""

import json
import re
import struct
from math import ceil, prod
from pathlib import Path

import google_crc32c
import numpy as np
import xxhash
from numcodecs import blosc

EMPTY = (2**64 - 1, 2**64 - 1)
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
GENERATION = re.compile("[0-9a-f]{16}")


def encode(name):
    """A video's or token's name as it stands in paths."""
    raw = name.encode()
    plain = b"abcdefghijklmnopqrstuvwxyz0123456789_-"
    units = [
        chr(byte) if byte in plain or (byte == ord(".") and 0 < at < len(raw) - 1) else f"~{byte:02x}"
        for at, byte in enumerate(raw)
    ]
    if raw.startswith(b"_"):
        units[0] = "~5f"
    if "".join(units).split(".")[0] in DEVICES or name == "zarr.json":
        units[0] = f"~{raw[0]:02x}"
    if len("".join(units)) > 160:
        while len("".join(units)) > 120:
            units.pop()
        return "".join(units) + "~~" + xxhash.xxh3_128_hexdigest(raw)
    return "".join(units) or "~"


def decode(encoded):
    """The name, or None where it was cut and only the tables know it."""
    if "~~" in encoded:
        return None
    if encoded == "~":
        return ""
    raw = re.sub(rb"~([0-9a-f]{2})", lambda escape: bytes.fromhex(escape[1].decode()), encoded.encode())
    return raw.decode()


def checksum_of(file, checksum):
    """XXH3-128 of a file with the digits of its own checksum replaced by zeros."""
    whole = Path(file).read_bytes()
    assert whole.count(checksum.encode()) == 1, f"{file} holds its checksum once"
    return xxhash.xxh3_128_hexdigest(whole.replace(checksum.encode(), b"0" * 32))


def signature_of(files):
    """XXH3-64 over the sizes and times of a step's files, each given as its tensor and its metadata."""
    hashed = xxhash.xxh3_64()
    for tensor, metadata in files:
        for path in (tensor, metadata):
            hashed.update(struct.pack("<Qq", path.stat().st_size, path.stat().st_mtime_ns // 1000))
    return hashed.hexdigest()


def without_crc32c(encoded):
    """What a `crc32c` codec protects: the last four bytes are the sum of those before."""
    body, (expected,) = encoded[:-4], struct.unpack("<I", encoded[-4:])
    assert google_crc32c.value(bytes(body)) == expected, "crc32c"
    return body


def read_array(path):
    """All values of one array, every checksum on the way verified."""
    document = json.loads((path / "zarr.json").read_text())
    assert (document["zarr_format"], document["node_type"]) == (3, "array")
    assert document["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "."}}
    assert document["chunk_grid"]["name"] == "regular"
    shape, chunk = document["shape"], document["chunk_grid"]["configuration"]["chunk_shape"]
    dtype = np.dtype(document["data_type"]).newbyteorder("<")
    values = np.empty([ceil(n / c) * c for n, c in zip(shape, chunk)], dtype)
    for index in np.ndindex(*(ceil(n / c) for n, c in zip(shape, chunk))):
        stored = (path / ".".join(["c", *map(str, index)])).read_bytes()
        origin = [i * c for i, c in zip(index, chunk)]
        values[tuple(slice(o, o + c) for o, c in zip(origin, chunk))] = read_chunk(
            stored, document["codecs"], chunk, dtype, limit=[n - o for n, o in zip(shape, origin)]
        )
    return values[tuple(slice(n) for n in shape)]


def read_chunk(stored, codecs, shape, dtype, limit):
    if codecs[0]["name"] != "sharding_indexed":
        assert [codec["name"] for codec in codecs] == ["bytes", "crc32c"]
        return np.frombuffer(without_crc32c(stored), dtype).reshape(shape)

    (sharding,) = (codec["configuration"] for codec in codecs)
    assert sharding.get("index_location", "end") == "end"
    assert [codec["name"] for codec in sharding["index_codecs"]] == ["bytes", "crc32c"]
    inner = sharding["chunk_shape"]
    per_shard = [n // c for n, c in zip(shape, inner)]
    index = without_crc32c(stored[-(16 * prod(per_shard) + 4) :])
    values = np.empty(shape, dtype)
    for at, place in zip(np.ndindex(*per_shard), struct.iter_unpack("<QQ", index)):
        origin = [i * c for i, c in zip(at, inner)]
        past_the_end = any(o >= n for o, n in zip(origin, limit))
        assert (place == EMPTY) == past_the_end, "chunks are left out past the array's end, and nowhere else"
        if not past_the_end:
            offset, size = place
            values[tuple(slice(o, o + c) for o, c in zip(origin, inner))] = read_inner_chunk(
                stored[offset : offset + size], sharding["codecs"], dtype
            ).reshape(inner)
    return values


def read_inner_chunk(stored, codecs, dtype):
    names = [codec["name"] for codec in codecs]
    assert names in (["bytes", "blosc", "crc32c"], ["bytes", "crc32c"])
    assert codecs[0] == {"name": "bytes", "configuration": {"endian": "little"}}
    body = without_crc32c(stored)
    return np.frombuffer(blosc.decompress(body) if "blosc" in names else body, dtype)
