"""What the machine can do at most with a dump and its store, for ingest.py and query.py to compare with.

Usage: limits.py memory THREADS
       limits.py encode STORE DUMP THREADS
       limits.py decode STORE THREADS
       limits.py write STORE DIRECTORY THREADS

memory: numpy copies large arrays; bytes are those read and those written. encode: c-blosc, by numcodecs, encodes the
step arrays of the dump in the chunks, with the codec and the block size that the store's arrays have. decode: it
decodes the inner chunks of the store. write: as many bytes as the store has are written into files of about 128 MB, and
flushed to the disk. Prints {"bytes": N, "seconds": s} of one run; of encode and decode, N is that of raw values. All
that is read is in memory before. Every thread takes whole arrays, files or chunks, so nothing waits for another thread.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from peers import attention_arrays, step_files

#: Raw values of so many bytes are encoded and decoded at the most: steps from all over the dump.
SAMPLE_BYTES = 10**9
FILE_BYTES = 128 * 10**6
COPIED_BYTES = 256 * 2**20
#: In a shard's index: no such chunk.
EMPTY = 2**64 - 1


def main(job: str, *about: str) -> None:
    *paths, threads = about
    measure: dict[str, Callable[..., dict[str, float]]] = {
        "memory": copy_memory,
        "encode": encode,
        "decode": decode,
        "write": write,
    }
    print(json.dumps(measure[job](*map(Path, paths), int(threads))))


def copy_memory(threads: int) -> dict[str, float]:
    pairs = [(np.ones(COPIED_BYTES, np.uint8), np.ones(COPIED_BYTES, np.uint8)) for _ in range(threads)]
    seconds = in_threads(threads, lambda pair: np.copyto(pair[1], pair[0]), pairs)
    return {"bytes": 2 * COPIED_BYTES * threads, "seconds": seconds}


def encode(store: Path, dump: Path, threads: int) -> dict[str, float]:
    array = attention_arrays(store)[0]
    chunk, codec = inner_chunk(array), blosc(array)
    paths = [path for array in attention_arrays(store) for path in step_files(array, dump)]
    steps = [np.load(path) for path in sample(paths, paths[0].stat().st_size)]

    def encode_step(step: np.ndarray) -> None:
        # A chunk is of one step, and contiguous in it.
        flat = step.reshape(-1)
        for first in range(0, flat.size, math.prod(chunk)):
            codec.encode(flat[first : first + math.prod(chunk)])

    seconds = in_threads(threads, encode_step, steps)
    return {"bytes": sum(step.nbytes for step in steps), "seconds": seconds}


def decode(store: Path, threads: int) -> dict[str, float]:
    array = attention_arrays(store)[0]
    size = math.prod(inner_chunk(array)) * dtype(array).itemsize
    codec = blosc(array)
    shards = [path for array in attention_arrays(store) for path in sorted(array.glob("c.*"))]
    chunks = [chunk for path in sample(shards, shard_bytes(array)) for chunk in chunks_of(array, path)]
    chunks = sample(chunks, size)

    def decode_chunks(part: list[bytes]) -> None:
        values = np.empty(size, np.uint8)
        for chunk in part:
            codec.decode(chunk, values)

    parts = [chunks[first : first + 16] for first in range(0, len(chunks), 16)]
    return {"bytes": len(chunks) * size, "seconds": in_threads(threads, decode_chunks, parts)}


def write(store: Path, directory: Path, threads: int) -> dict[str, float]:
    total = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    # Random, so that no file system makes less of it.
    values = memoryview(np.random.default_rng(0).bytes(min(total, FILE_BYTES)))
    directory.mkdir()

    def write_file(first: int) -> None:
        with (directory / str(first)).open("wb", buffering=0) as file:
            left = values[: min(FILE_BYTES, total - first)]
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())

    seconds = in_threads(threads, write_file, range(0, total, FILE_BYTES))
    shutil.rmtree(directory)
    return {"bytes": total, "seconds": seconds}


def in_threads(threads: int, work: Callable[[Any], None], parts: Iterable[Any]) -> float:
    with ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        for _ in pool.map(work, parts):
            pass
        return time.perf_counter() - started


def sample(all_of_them: list[Any], size: int) -> list[Any]:
    """Every n-th, so that they are at most SAMPLE_BYTES of raw values; `size` is that of one."""
    return all_of_them[:: max(1, math.ceil(len(all_of_them) * size / SAMPLE_BYTES))]


# ---- what a store's array says of itself


def described(array: Path) -> dict[str, Any]:
    return json.loads((array / "zarr.json").read_text())


def sharding(array: Path) -> dict[str, Any]:
    return described(array)["codecs"][0]["configuration"]


def inner_chunk(array: Path) -> tuple[int, ...]:
    return tuple(sharding(array)["chunk_shape"])


def dtype(array: Path) -> np.dtype[Any]:
    return np.dtype(described(array)["data_type"])


def shard_shape(array: Path) -> tuple[int, ...]:
    return tuple(described(array)["chunk_grid"]["configuration"]["chunk_shape"])


def shard_bytes(array: Path) -> int:
    return math.prod(shard_shape(array)) * dtype(array).itemsize


def blosc(array: Path) -> Any:
    """The array's codec, in c-blosc; every thread is a thread of its own."""
    from numcodecs import blosc

    blosc.use_threads = False
    (is_,) = (codec["configuration"] for codec in sharding(array)["codecs"] if codec["name"] == "blosc")
    shuffle = {"noshuffle": blosc.NOSHUFFLE, "shuffle": blosc.SHUFFLE, "bitshuffle": blosc.BITSHUFFLE}[is_["shuffle"]]
    return blosc.Blosc(is_["cname"], is_["clevel"], shuffle, is_["blocksize"])


def chunks_of(array: Path, shard: Path) -> list[bytes]:
    """The inner chunks of a shard, without their checksums: docs/store-format.md says where they are."""
    content = shard.read_bytes()
    count = math.prod(shard_shape(array)) // math.prod(inner_chunk(array))
    index = np.frombuffer(content[-16 * count - 4 : -4], "<u8").reshape(count, 2)
    return [content[at : at + size - 4] for at, size in index.tolist() if at != EMPTY]


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4, 5):
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
