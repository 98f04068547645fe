"""A second reader of stores, written from docs/store-format.md alone: neither attnkit nor a Zarr library."""

import json
import re
import struct
from math import ceil, prod
from pathlib import Path

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numcodecs import blosc

EMPTY = (2**64 - 1, 2**64 - 1)
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
GENERATION = re.compile("[0-9a-f]{16}")
PACK = re.compile(r"pack~~([0-9a-f]{16})(@[0-9a-f]{16})?\.parquet")
TABLES = ("steps", "heads", "text")
# The most rows of a row group of a pack.
GROUPS = {"steps": 8192, "heads": 131072, "text": 131072, "records": 1024}


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


def footer(part):
    """The key-value metadata of a Parquet file."""
    return {key.decode(): value.decode() for key, value in pq.ParquetFile(part).metadata.metadata.items()}


def committed(store):
    """What is committed of each video, wherever its rows are: its `generation`, its `record` as it is written, and its
    rows of each table, None where it has none of `text`. Begins again if the index was exchanged meanwhile."""
    while True:
        listed = sorted((Path(store) / "index" / "steps").glob("*.parquet"))
        try:
            found = [of for steps in listed for of in (of_pack if PACK.fullmatch(steps.name) else of_parts)(steps)]
        except FileNotFoundError:
            if sorted((Path(store) / "index" / "steps").glob("*.parquet")) == listed:
                raise
        else:
            videos = [video for video, _ in found]
            assert len(videos) == len(set(videos)), "a video is in one place"
            return dict(found)


def of_parts(steps):
    """The one video of parts of its own."""
    told = footer(steps)
    record = json.loads(told["attnkit.video"])
    assert re.fullmatch(re.escape(encode(record["video_id"])) + r"(@[0-9a-f]{16})?\.parquet", steps.name)
    of = {"generation": told["attnkit.generation"], "record": told["attnkit.video"]}
    for name in TABLES:
        part = steps.parents[1] / name / steps.name
        of[name] = None
        if name != "text" or record.get("has_text"):
            told = footer(part)
            assert told["attnkit.generation"] == of["generation"]
            assert checksum_of(part, told["attnkit.checksum"]) == told["attnkit.checksum"], part
            of[name] = pq.ParquetFile(part).read()
    return [(record["video_id"], of)]


def of_pack(steps):
    """The videos of a pack."""
    rows = {name: read_of_pack(steps.parents[1] / name / steps.name) for name in ("steps", "heads", "records")}
    records = rows.pop("records").to_pylist()
    if any(record["text_start"] is not None for record in records):
        rows["text"] = read_of_pack(steps.parents[1] / "text" / steps.name)
    ids, ends, found = [record["video_id"].encode() for record in records], dict.fromkeys(TABLES, 0), []
    assert ids == sorted(set(ids)), "in the order of the bytes of their ids, each once"
    for record in records:
        of = {"generation": record["generation"], "record": record["record"]}
        for name in TABLES:
            start, end = record[f"{name}_start"], record[f"{name}_end"]
            of[name] = None if start is None and name == "text" else rows[name].slice(start, end - start)
            if of[name] is not None:
                assert (start, of[name].num_rows) == (ends[name], end - start), "one behind the other"
                assert set(of[name]["video_id"].to_pylist()) <= {record["video_id"]}
                ends[name] = end
        assert json.loads(record["record"])["video_id"] == record["video_id"]
        found.append((record["video_id"], of))
    assert {name: ends[name] for name in rows} == {name: of.num_rows for name, of in rows.items()}
    return found


def read_of_pack(part, columns=None):
    """A file of a pack, or columns of it, of which what is read is checked: its footer, and of column chunks those."""
    raw = part.read_bytes()
    file = pq.ParquetFile(pa.BufferReader(raw))
    told, schema = {key.decode(): value.decode() for key, value in file.metadata.metadata.items()}, file.schema_arrow
    groups = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
    chunks = [group.column(column) for group in groups for column in range(group.num_columns)]
    hashes, end = told["attnkit.chunks"], 4
    assert len(hashes) == 16 * len(chunks) and told["attnkit.generation"] == PACK.fullmatch(part.name)[1]
    for at, chunk in enumerate(chunks):
        start, end = end, end + chunk.total_compressed_size
        assert start == (chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset)
        if columns is None or chunk.path_in_schema.split(".")[0] in columns:
            assert xxhash.xxh3_64_hexdigest(raw[start:end]) == hashes[16 * at :][:16], (part, chunk.path_in_schema)
    rest, checksum = raw[:4] + raw[end:], told["attnkit.checksum"].encode()
    assert raw[:4] == b"PAR1" and rest.count(checksum) == 1
    assert xxhash.xxh3_128_hexdigest(rest.replace(checksum, b"0" * 32)) == checksum.decode(), part
    assert all(group.num_rows <= GROUPS[part.parent.name] for group in groups)
    return file.read(columns or schema.names)
