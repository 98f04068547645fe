"""What is asked of an `AttentionAnalyzer`, asked once in one way, for python.py to compare.

Usage: python_peers.py versions
       python_peers.py reference DUMP REFERENCE
       python_peers.py WAY QUESTION DUMP STORE REFERENCE

`reference` writes the float64 means of the dump into the directory REFERENCE. A question prints one line, {"seconds":
s, "peak_bytes": N, "error": largest relative error of its values, null of arrays that were loaded}, or {"missing": why}
if a library is not there. Peak memory is what the process needed beyond its imports. A process asks once: its peak is
that of the question.
"""

from __future__ import annotations

import json
import math
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

VIDEO, TOKEN = "prompt_000_vid001", "flower"
# Of the video: the latent grid is 15 x 30 x 53.
SIZE = {"height": 480, "width": 848, "frames": 57}
GRID = (15, 30, 53)
# What is asked of one step is asked of this one.
STEP = 0
OF_ONE_STEP = ("load_step", "spatial_map")
THREADS = len(os.sched_getaffinity(0))
MEMORY_UNIT = 1 if sys.platform == "darwin" else 1024
# A numpy array or a torch tensor.
Array = Any


class Missing(Exception):
    """A library is not there, and why."""


def main(way: str, *about: str) -> None:
    if way == "versions":
        print(json.dumps(versions()))
    elif way == "reference":
        write_reference(*map(Path, about))
    else:
        question, dump, store, reference = about
        print(json.dumps(measure(way, question, Path(dump), Path(store), Path(reference))))


def measure(way: str, question: str, dump: Path, store: Path, reference: Path) -> dict[str, Any]:
    try:
        maps = ways(dump, store)[way]()
    except Missing as missing:
        return {"missing": str(missing)}
    touch_memory(step_files(dump)[: 1 if question in OF_ONE_STEP else None])
    ask = question_of(maps, question, dump)
    before = peak_bytes()
    started = time.perf_counter()
    found = ask()
    seconds = time.perf_counter() - started
    peak = peak_bytes() - before
    return {"seconds": seconds, "peak_bytes": peak, "error": error(question, np.asarray(found), dump, reference)}


def ways(dump: Path, store: Path) -> dict[str, Callable[[], Numpy | Analyzer]]:
    return {
        "numpy, as documented": lambda: Numpy(dump),
        "numpy, dtype=float32": lambda: Numpy(dump, np.float32),
        "torch, as documented": lambda: Torch(dump),
        "torch, .float()": lambda: TorchFloat(dump),
        "AttentionAnalyzer": lambda: Analyzer(dump),
        "AttentionAnalyzer, dump": lambda: Analyzer(dump),
        "AttentionAnalyzer, store": lambda: Analyzer(store),
        "AttentionAnalyzer, store without rollups": lambda: Analyzer(store.with_name("plain")),
    }


def question_of(maps: Numpy | Analyzer, question: str, dump: Path) -> Callable[[], Array]:
    if question == "aggregate":
        all_steps = maps.adopt(read_all(step_files(dump)))
        return lambda: maps.aggregate(all_steps)
    ask: dict[str, Callable[[], Array]] = {
        "load_step": maps.load_step,
        "load_all_steps": maps.load_all_steps,
        "evolution": maps.evolution,
        "average": maps.average,
        "spatial_map": maps.spatial_map,
        "layers": maps.layers,
    }
    return ask[question]


class Numpy:
    """`numpy.load`, `numpy.stack` and `mean`; numpy rounds a mean of float16 to float16 unless a type is given."""

    def __init__(self, dump: Path, dtype: type | None = None) -> None:
        self.files = step_files(dump)
        self.dtype = dtype

    def load(self, path: Path) -> Array:
        return np.load(path)

    def stack(self, arrays: list[Array]) -> Array:
        return np.stack(arrays)

    def adopt(self, array: np.ndarray) -> Array:
        return array

    def mean(self, array: Array, axis: int) -> Array:
        return array.mean(axis=axis, dtype=self.dtype)

    def load_step(self) -> Array:
        return self.load(self.files[STEP])

    def load_all_steps(self) -> Array:
        return self.stack([self.load(path) for path in self.files])

    def aggregate(self, attention: Array) -> Array:
        """Over blocks, then over heads."""
        return self.mean(self.mean(attention, -4), -3)

    def evolution(self) -> Array:
        return self.aggregate(self.load_all_steps())

    def average(self) -> Array:
        return self.mean(self.evolution(), 0)

    def spatial_map(self) -> Array:
        return self.mean(self.aggregate(self.load_step()), -1).reshape(1, *GRID)

    def layers(self) -> Array:
        return self.mean(self.load_all_steps(), -3)


class Torch(Numpy):
    """`torch.from_numpy`, `torch.stack` and `mean`."""

    def __init__(self, dump: Path) -> None:
        super().__init__(dump)
        try:
            import torch

            torch.from_numpy(np.zeros(1, np.float16))
        except ImportError as error:
            raise Missing("torch is not installed") from error
        except RuntimeError as error:
            raise Missing(f"torch {torch.__version__} does not know arrays of numpy {np.__version__}") from error
        torch.set_num_threads(THREADS)
        self.torch = torch

    def load(self, path: Path) -> Array:
        return self.torch.from_numpy(np.load(path))

    def stack(self, arrays: list[Array]) -> Array:
        return self.torch.stack(arrays)

    def adopt(self, array: np.ndarray) -> Array:
        return self.torch.from_numpy(array)

    def mean(self, array: Array, axis: int) -> Array:
        return array.mean(dim=axis)


class TorchFloat(Torch):
    """The same in float32."""

    def mean(self, array: Array, axis: int) -> Array:
        return array.float().mean(dim=axis)


class Analyzer:
    """`attnkit.AttentionAnalyzer`, opened anew for each question."""

    def __init__(self, path: Path) -> None:
        import attnkit

        self.open = lambda: attnkit.AttentionAnalyzer(path)

    def adopt(self, array: np.ndarray) -> Array:
        self.opened = self.open()
        return array

    def aggregate(self, attention: Array) -> Array:
        return self.opened.aggregate_heads(self.opened.aggregate_blocks(attention))

    def load_step(self) -> Array:
        return self.open().load_step(VIDEO, TOKEN, STEP)

    def load_all_steps(self) -> Array:
        return self.open().load_all_steps(VIDEO, TOKEN)

    def evolution(self) -> Array:
        return self.open().get_temporal_evolution(VIDEO, TOKEN)

    def average(self) -> Array:
        return self.open().compute_average_attention(VIDEO, TOKEN)

    def spatial_map(self) -> Array:
        return self.open().get_spatial_attention_map(VIDEO, TOKEN, step=STEP, **SIZE)

    def layers(self) -> Array:
        return self.open().get_layer_analysis(VIDEO, TOKEN)


def step_files(dump: Path) -> list[Path]:
    return sorted((dump / "attention_maps" / VIDEO / f"token_{TOKEN}").glob("step_*.npy"))


def read_all(files: list[Path]) -> np.ndarray:
    """All steps, straight to where they stay: `numpy.stack` would leave its own peak of memory behind."""
    first = np.load(files[0], mmap_mode="r")
    stack = np.empty((len(files), *first.shape), first.dtype)
    for path, target in zip(files, stack):
        with path.open("rb", buffering=0) as file:
            file.seek(first.offset)
            if file.readinto(memoryview(target).cast("B")) != target.nbytes:
                raise SystemExit(f"{path}: too short")
    return stack


def touch_memory(files: list[Path]) -> None:
    """Uses as much memory as the greediest way will need for these steps, gives it back, and forgets the peak.

    A virtual machine's host may take unused memory back. Whoever is first to need it again waits for the host, seconds
    for each gigabyte: that is not to fall on one way by chance. Only Linux can forget a peak.
    """
    forget = Path("/proc/self/clear_refs")
    try:
        forget.write_text("5")
    except OSError:
        return
    np.ones(sum(path.stat().st_size for path in files) * 7 // 2, np.uint8)
    forget.write_text("5")


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MEMORY_UNIT


def write_reference(dump: Path, reference: Path) -> None:
    """Means in float64: sums of float16 below 1 are exact there, so only the division rounds."""
    reference.mkdir()
    layers = np.stack([np.load(path).mean(axis=1, dtype=np.float64) for path in step_files(dump)])
    evolution = layers.mean(axis=1)
    np.save(reference / "layers.npy", layers)
    np.save(reference / "aggregate.npy", evolution)
    np.save(reference / "evolution.npy", evolution)
    np.save(reference / "average.npy", evolution.mean(axis=0))
    np.save(reference / "spatial_map.npy", evolution[STEP].mean(axis=-1).reshape(1, *GRID))


def error(question: str, found: np.ndarray, dump: Path, reference: Path) -> float | None:
    """The largest relative error of means. What was loaded must be the step files, bit for bit."""
    if question.startswith("load"):
        require_steps(found, step_files(dump))
        return None
    expected = np.load(reference / f"{question}.npy", mmap_mode="r")
    if found.shape != expected.shape:
        raise SystemExit(f"{question}: an array of shape {found.shape}, expected {expected.shape}")
    errors = [float(np.max(np.abs(a.astype(np.float64) - b) / b)) for a, b in zip(found, expected)]
    if not all(map(math.isfinite, errors)):
        raise SystemExit(f"{question}: values that are no numbers")
    return max(errors)


def require_steps(found: np.ndarray, files: list[Path]) -> None:
    steps, files = (found, files) if found.ndim == 5 else (found[np.newaxis], [files[STEP]])
    for step, path in zip(steps, files, strict=True):
        expected = np.load(path)
        if step.dtype != expected.dtype or step.shape != expected.shape or step.tobytes() != expected.tobytes():
            raise SystemExit(f"what was loaded is not {path}, bit for bit")


def versions() -> dict[str, str]:
    import attnkit

    found = {"attnkit": attnkit.__version__, "python": platform.python_version(), "numpy": np.__version__}
    try:
        import torch
    except ImportError:
        return found
    return found | {"torch": torch.__version__}


if __name__ == "__main__":
    if len(sys.argv) not in (2, 4, 6):
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
