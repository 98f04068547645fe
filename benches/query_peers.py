"""The benchmark's questions, asked without attnkit, for query.py to compare with.

Usage: query_peers.py WAY mean|one-head|compare STORE DUMP VIDEO VIDEO
       query_peers.py DuckDB filter STORE CONDITION COLUMNS

Prints {"seconds": best, "check": number} of up to three runs within one process, importing not counted; or null if the
library is not there. "As documented" is the way of the dump's documentation: every step file is loaded and averaged in
memory.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROUNDS = 3
# Longer ones are asked once.
LONG_SECONDS = 2.0
BLOCK, HEAD = 7, 3
THREADS = len(os.sched_getaffinity(0))


def main(way: str, question: str, store: str, *about: str) -> None:
    if way == "DuckDB":
        print(json.dumps(timed(lambda: duckdb(store, *about))))
        return
    dump, *videos = about
    try:
        maps = {
            "numpy, as documented": lambda: Numpy(Path(dump)),
            "torch, as documented": lambda: Torch(Path(dump)),
            "xarray + dask + zarr-python": lambda: Xarray(Path(store)),
            "tensorstore + numpy": lambda: Tensorstore(Path(store)),
        }[way]()
    except ImportError:
        print("null")
        return
    ask: dict[str, Callable[[], float]] = {
        "mean": lambda: mean(maps.means(videos[0])),
        "one-head": lambda: mean(maps.one_head(videos[0])),
        "compare": lambda: mean(cosines(maps.means(videos[0]), maps.means(videos[1]))),
    }
    print(json.dumps(timed(ask[question])))


def timed(ask: Callable[[], float]) -> dict[str, float]:
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        check = ask()
        best = min(best, time.perf_counter() - started)
        if best > LONG_SECONDS:
            break
    return {"seconds": best, "check": float(check)}


def mean(values: np.ndarray) -> float:
    return float(np.asarray(values, dtype=np.float64).mean())


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (np.asarray(maps, dtype=np.float64).reshape(len(maps), -1) for maps in (a, b))
    return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


class Numpy:
    """`numpy.load` and `mean`, step by step."""

    def __init__(self, dump: Path) -> None:
        self.dump = dump

    def files(self, video: str) -> list[Path]:
        return sorted((self.dump / "attention_maps" / video).glob("token_*/step_*.npy"))

    def means(self, video: str) -> np.ndarray:
        return np.stack([np.load(path).mean(axis=(0, 1)) for path in self.files(video)])

    def one_head(self, video: str) -> np.ndarray:
        return np.stack([np.load(path)[BLOCK, HEAD] for path in self.files(video)])


class Torch(Numpy):
    """`torch.from_numpy` and `mean`, step by step."""

    def __init__(self, dump: Path) -> None:
        super().__init__(dump)
        import torch

        torch.set_num_threads(THREADS)
        self.torch = torch

    def means(self, video: str) -> np.ndarray:
        means = [self.torch.from_numpy(np.load(path)).mean(dim=(0, 1)) for path in self.files(video)]
        return self.torch.stack(means).float().numpy()


class Xarray:
    """The lazy arrays of xarray over dask and zarr-python, one dask chunk for each inner chunk."""

    def __init__(self, store: Path) -> None:
        import dask
        import xarray
        import zarr

        dask.config.set(scheduler="threads", num_workers=THREADS)
        zarr.config.set({"threading.max_workers": THREADS})
        self.open = lambda group: xarray.open_zarr(group, consolidated=False, chunks={"step": 1})["attention"]
        self.store = store

    def attention(self, video: str):
        (group,) = self.store.glob(f"maps/{video}/*@*")
        return self.open(group)

    def means(self, video: str) -> np.ndarray:
        return self.attention(video).mean(["block", "head"], dtype="float32").compute().values

    def one_head(self, video: str) -> np.ndarray:
        return self.attention(video).isel(block=BLOCK, head=HEAD).compute().values


class Tensorstore:
    """tensorstore reading a step at a time, numpy averaging."""

    def __init__(self, store: Path) -> None:
        import tensorstore

        self.ts = tensorstore
        self.context = tensorstore.Context(
            {key: {"limit": THREADS} for key in ("data_copy_concurrency", "file_io_concurrency")}
        )
        self.store = store

    def attention(self, video: str):
        (array,) = self.store.glob(f"maps/{video}/*@*/attention")
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(array)}}
        return self.ts.open(spec, context=self.context, open=True, read=True).result()

    def means(self, video: str) -> np.ndarray:
        array = self.attention(video)
        return np.stack(
            [array[step].read().result().mean(axis=(0, 1), dtype="float32") for step in range(array.shape[0])]
        )

    def one_head(self, video: str) -> np.ndarray:
        return self.attention(video)[:, BLOCK, HEAD].read().result()


def duckdb(store: str, condition: str, columns: str) -> float:
    import duckdb

    duckdb.sql(f"SET threads = {THREADS}")
    rows = duckdb.sql(f"SELECT {columns} FROM '{store}/index/heads/*.parquet' WHERE {condition}").arrow()
    return rows.num_rows if hasattr(rows, "num_rows") else rows.read_all().num_rows


if __name__ == "__main__":
    main(*sys.argv[1:])
