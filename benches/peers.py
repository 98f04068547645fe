"""The same reading and writing as attnkit's, by zarr-python and tensorstore, for ingest.py to compare with.

Usage: peers.py (zarr-python-read | tensorstore-read) STORE DUMP THREADS
       peers.py zarr-python-write STORE DUMP THREADS COPY

Prints one line, {"bytes": N, "seconds": s}: importing is not timed, nor is the check against the dump. Everything
goes by whole shards, the best case for both libraries.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

Read = Callable[[Path, int], Iterator[np.ndarray]]


def main(job: str, store: str, dump: str, threads: str, *copy: str) -> None:
    if job == "zarr-python-write":
        result = write(Path(store), Path(dump), int(threads), Path(*copy))
    else:
        read: Read = {"zarr-python-read": zarr_python(int(threads)), "tensorstore-read": tensorstore(int(threads))}[job]
        result = read_all(Path(store), Path(dump), read)
    print(json.dumps(result))


def read_all(store: Path, dump: Path, read: Read) -> dict[str, float]:
    total = 0
    last_steps = {}
    started = time.perf_counter()
    for array in attention_arrays(store):
        for shard in read(array, steps_per_shard(array)):
            total += shard.nbytes
        last_steps[array] = shard[-1].copy()
    seconds = time.perf_counter() - started
    for array, step in last_steps.items():
        require_equal(step, np.load(step_files(array, dump)[-1]), array)
    return {"bytes": total, "seconds": seconds}


def zarr_python(threads: int) -> Read:
    import zarr

    zarr.config.set({"threading.max_workers": threads})

    def read(path: Path, steps: int) -> Iterator[np.ndarray]:
        array = zarr.open_array(path, mode="r")
        for first in range(0, array.shape[0], steps):
            yield np.asarray(array[first : first + steps])

    return read


def tensorstore(threads: int) -> Read:
    import tensorstore as ts

    context = ts.Context({key: {"limit": threads} for key in ("data_copy_concurrency", "file_io_concurrency")})

    def read(path: Path, steps: int) -> Iterator[np.ndarray]:
        kvstore = {"driver": "file", "path": str(path)}
        array = ts.open({"driver": "zarr3", "kvstore": kvstore}, context=context, open=True, read=True).result()
        for first in range(0, array.shape[0], steps):
            last = min(first + steps, array.shape[0])
            yield array[first:last].read().result()

    return read


def write(store: Path, dump: Path, threads: int, copy: Path) -> dict[str, float]:
    """Write the dump's step files as arrays with the very metadata of the store's: chunks, shards and codecs."""
    import zarr

    zarr.config.set({"threading.max_workers": threads})
    total = 0
    targets = {}
    started = time.perf_counter()
    for number, template in enumerate(attention_arrays(store)):
        target = copy / str(number)
        target.mkdir(parents=True)
        shutil.copy(template / "zarr.json", target)
        array = zarr.open_array(target, mode="r+")
        sources = step_files(template, dump)
        steps = steps_per_shard(template)
        for first in range(0, len(sources), steps):
            shard = np.stack([np.load(source) for source in sources[first : first + steps]])
            array[first : first + steps] = shard
            total += shard.nbytes
        targets[target] = sources[-1]
    seconds = time.perf_counter() - started
    for target, source in targets.items():
        require_equal(np.asarray(zarr.open_array(target, mode="r")[-1]), np.load(source), target)
    return {"bytes": total, "seconds": seconds}


def attention_arrays(store: Path) -> list[Path]:
    return sorted(store.glob("maps/*/*@*/attention"))


def steps_per_shard(array: Path) -> int:
    document = json.loads((array / "zarr.json").read_text())
    return int(document["chunk_grid"]["configuration"]["chunk_shape"][0])


def step_files(array: Path, dump: Path) -> list[Path]:
    """The step files that an array of the store was made of: the names are in its group's attributes."""
    names = json.loads((array.parent / "zarr.json").read_text())["attributes"]["attnkit"]
    return sorted((dump / "attention_maps" / names["video_id"] / f"token_{names['token']}").glob("step_*.npy"))


def require_equal(found: np.ndarray, expected: np.ndarray, array: Path) -> None:
    if found.shape != expected.shape or found.tobytes() != expected.tobytes():
        raise SystemExit(f"{array}: the last step is not the dump's, bit for bit")


if __name__ == "__main__":
    if len(sys.argv) not in (5, 6):
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
