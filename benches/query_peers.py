"""The benchmark's questions, asked without attnkit, for query.py to compare with.

Usage: query_peers.py WAY mean|one-head|compare|median STORE DUMP VIDEO VIDEO
       query_peers.py WAY map STORE DUMP VIDEO OUTPUT
       query_peers.py DuckDB sql QUERY ROUNDS
       query_peers.py DuckDB rows QUERY
       query_peers.py check OUTPUT

Prints {"seconds": best, "check": number} of up to three runs within one process, importing not counted; or {"missing":
why} if a library is not there. "As documented" is the way of the dump's documentation: every step file is loaded and
averaged in memory. `map` writes an array of [frame, height, width] in float32 into the file OUTPUT.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS = 3
# Longer ones are asked once.
LONG_SECONDS = 2.0
BLOCK, HEAD = 7, 3
THREADS = len(os.sched_getaffinity(0))
# The map of a step, and the video that it is resampled to: frame 0 is latent frame 0, four more stand for each further
# one.
MAP_GRID, VIDEO_SHAPE = (21, 45, 80), (81, 720, 1280)


def main(way: str, *about: str) -> None:
    if way == "check":
        print(json.dumps({"check": mean(np.load(about[0], mmap_mode="r"))}))
    elif way == "DuckDB":
        print(json.dumps(duckdb(*about)))
    else:
        print(json.dumps(asked(way, *about)))


def asked(way: str, question: str, store: str, dump: str, video: str, other: str) -> dict[str, Any]:
    ways: dict[str, Callable[[], Maps]] = {
        "numpy, as documented": lambda: Numpy(Path(dump)),
        "numpy and scipy": lambda: Scipy(Path(dump)),
        "torch, as documented": lambda: Torch(Path(dump)),
        "xarray + dask + zarr-python": lambda: Xarray(Path(store)),
        "xarray + dask + zarr-python with zarrs": lambda: Zarrs(Path(store)),
        "tensorstore + numpy": lambda: Tensorstore(Path(store)),
        "attnkit, from Python": lambda: Attnkit(Path(store)),
    }
    try:
        maps = ways[way]()
    except ImportError as missing:
        return {"missing": f"{missing.name} is not installed"}
    if question == "map":
        return timed(lambda: maps.resample(video, Path(other)), lambda _: mean(np.load(other, mmap_mode="r")))
    ask: dict[str, Callable[[], np.ndarray]] = {
        "mean": lambda: maps.means(video),
        "one-head": lambda: maps.one_head(video),
        "compare": lambda: cosines(maps.means(video), maps.means(other)),
        "median": lambda: maps.median(video),
    }
    return timed(ask[question], mean)


def timed(ask: Callable[[], Any], check: Callable[[Any], Any], rounds: int = ROUNDS) -> dict[str, Any]:
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        found = ask()
        best = min(best, time.perf_counter() - started)
        if best > LONG_SECONDS:
            break
    return {"seconds": best, "check": check(found)}


def mean(values: np.ndarray) -> float:
    # One frame or step after the other, so that no copy of a large array counts as the question's memory.
    return float(np.mean([np.asarray(part, dtype=np.float64).mean() for part in values]))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (np.asarray(maps, dtype=np.float64).reshape(len(maps), -1) for maps in (a, b))
    return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


class Maps:
    """One way to come by maps: what a question needs and a way does not have is not asked in it."""

    def means(self, video: str) -> np.ndarray:
        raise NotImplementedError

    def one_head(self, video: str) -> np.ndarray:
        raise NotImplementedError

    def median(self, video: str) -> np.ndarray:
        raise NotImplementedError

    def resample(self, video: str, output: Path) -> None:
        raise NotImplementedError


class Numpy(Maps):
    """`numpy.load` and `mean`, step by step."""

    def __init__(self, dump: Path) -> None:
        self.dump = dump

    def files(self, video: str) -> list[Path]:
        return sorted((self.dump / "attention_maps" / video).glob("token_*/step_*.npy"))

    def means(self, video: str) -> np.ndarray:
        return np.stack([np.load(path).mean(axis=(0, 1)) for path in self.files(video)])

    def one_head(self, video: str) -> np.ndarray:
        return np.stack([np.load(path)[BLOCK, HEAD] for path in self.files(video)])

    def median(self, video: str) -> np.ndarray:
        return np.median(np.stack([np.load(path) for path in self.files(video)]), axis=(0, 1, 2))


class Scipy(Numpy):
    """The map of a step by numpy, and `scipy.ndimage.zoom` of each latent frame."""

    def __init__(self, dump: Path) -> None:
        super().__init__(dump)
        from scipy import ndimage

        self.ndimage = ndimage

    def resample(self, video: str, output: Path) -> None:
        latent = np.load(self.files(video)[0]).mean(axis=(0, 1), dtype=np.float32).reshape(MAP_GRID)
        factors = (VIDEO_SHAPE[1] / MAP_GRID[1], VIDEO_SHAPE[2] / MAP_GRID[2])
        frames = np.lib.format.open_memmap(output, "w+", np.float32, VIDEO_SHAPE)
        for number, small in enumerate(latent):
            # Pixels have a width, as in torch's align_corners=False.
            large = self.ndimage.zoom(small, factors, order=1, mode="nearest", grid_mode=True)
            frames[max(0, 4 * number - 3) : 4 * number + 1] = large
        frames.flush()


class Torch(Numpy):
    """`torch.from_numpy` and `mean`, step by step; `interpolate` for a video."""

    def __init__(self, dump: Path) -> None:
        super().__init__(dump)
        import torch

        torch.set_num_threads(THREADS)
        self.torch = torch

    def load(self, path: Path) -> Any:
        return self.torch.from_numpy(np.load(path))

    def means(self, video: str) -> np.ndarray:
        means = [self.load(path).mean(dim=(0, 1)) for path in self.files(video)]
        return self.torch.stack(means).float().numpy()

    def resample(self, video: str, output: Path) -> None:
        latent = self.load(self.files(video)[0]).float().mean(dim=(0, 1)).reshape(1, *MAP_GRID)
        large = self.torch.nn.functional.interpolate(latent, VIDEO_SHAPE[1:], mode="bilinear", align_corners=False)[0]
        frames = [0, *(number for number in range(1, MAP_GRID[0]) for _ in range(4))]
        np.save(output, large[frames].numpy())


class Xarray(Maps):
    """The lazy arrays of xarray over dask and zarr-python, one dask chunk for each step."""

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


class Zarrs(Xarray):
    """The same, with chunks decoded by zarrs."""

    def __init__(self, store: Path) -> None:
        import zarr
        import zarrs  # noqa: F401, it puts itself among zarr's pipelines

        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
        super().__init__(store)


class Tensorstore(Maps):
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

    def steps(self, video: str) -> Iterator[np.ndarray]:
        array = self.attention(video)
        return (array[step].read().result() for step in range(array.shape[0]))

    def means(self, video: str) -> np.ndarray:
        return np.stack([step.mean(axis=(0, 1), dtype="float32") for step in self.steps(video)])

    def one_head(self, video: str) -> np.ndarray:
        return self.attention(video)[:, BLOCK, HEAD].read().result()

    def median(self, video: str) -> np.ndarray:
        return np.median(self.attention(video).read().result(), axis=(0, 1, 2))


class Attnkit(Maps):
    """attnkit's own Python package, within the process."""

    def __init__(self, store: Path) -> None:
        import attnkit

        self.store = attnkit.open(store)

    def median(self, video: str) -> np.ndarray:
        return self.store.average(over=["block", "head", "step"], video=video, reducer="median").to_numpy()

    def resample(self, video: str, output: Path) -> None:
        frames, *size = VIDEO_SHAPE
        np.save(output, self.store.map(video, step=0, size=tuple(size), frames=frames).to_numpy())


def duckdb(kind: str, query: str, rounds: str = str(ROUNDS)) -> dict[str, Any]:
    """`rows`: all of them are fetched as Arrow, and counted; `sql`: what the query says."""
    import duckdb

    duckdb.sql(f"SET threads = {THREADS}")

    def rows() -> int:
        found = duckdb.sql(query).arrow()
        return found.num_rows if hasattr(found, "num_rows") else found.read_all().num_rows

    def answer() -> str:
        found = duckdb.sql(query)
        return str(found.fetchall() if found is not None else None)

    return timed({"rows": rows, "sql": answer}[kind], lambda found: found, int(rounds))


if __name__ == "__main__":
    main(*sys.argv[1:])
