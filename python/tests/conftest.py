"""Stores of the bundled dumps, made once with the package itself."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import attnkit
import numpy as np
import pytest

FIXTURES = Path(__file__).parents[2] / "fixtures"
#: Axes of a word of the bundled dataset.
SIZES = {"step": 10, "block": 6, "head": 4, "frame": 4, "height": 12, "width": 12, "token": 1}


@pytest.fixture(scope="session")
def fixtures() -> Path:
    return FIXTURES


@pytest.fixture(scope="session")
def store_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], attnkit.Store]:
    """The store of a dump below `fixtures`, ingested once."""
    made: dict[str, attnkit.Store] = {}

    def make(name: str) -> attnkit.Store:
        if name not in made:
            path = tmp_path_factory.mktemp("stores") / "maps.store"
            batch = "mean" if name.endswith("batch") else None
            attnkit.ingest(FIXTURES / name, path, batch=batch, rollups="all")
            made[name] = attnkit.open(path)
        return made[name]

    return make


@pytest.fixture(scope="session")
def store(store_of: Callable[[str], attnkit.Store]) -> attnkit.Store:
    """The store of the bundled dataset."""
    return store_of("dataset")


@pytest.fixture(scope="session")
def values() -> np.ndarray:
    """`[step, block, head, frame, height, width, token]`, from the files of one word of the bundled dataset."""
    word = FIXTURES / "dataset/attention_maps/prompt_000_vid001/token_circle"
    paths = sorted(word.glob("step_*.npy"))
    return np.stack([np.load(path) for path in paths]).reshape(tuple(SIZES.values()))


def interrupt(script: str, *arguments: object, timeout: float = 60) -> str:
    """Presses Ctrl-C once a script tells of progress; returns what it said from then on."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line[0] != "0":
                break
        process.send_signal(signal.SIGINT)
        return line + process.communicate(timeout=timeout)[0]


def write_dump(
    root: Path,
    steps: int,
    shape: tuple[int, int, int, int],
    video: str = "prompt_000_vid001",
    token: str = "flower",
    **metadata: object,
) -> np.ndarray:
    """A dump as the documentation describes it; returns `[step, block, head, spatial, token]`."""
    rng = np.random.default_rng(7)
    directory = root / video / f"token_{token}"
    directory.mkdir(parents=True)
    values = rng.gamma(0.3, 1e-3, (steps, *shape)).astype(np.float16)
    for step in range(steps):
        np.save(directory / f"step_{step:03d}.npy", values[step])
        document = {
            "video_id": video,
            "step": step,
            "timestep": 999.0 - step,
            "total_steps": steps,
            "token_word": token,
            "token_ids": [93643],
            "token_texts": [token],
            "aggregation_method": "per_step_full",
            "attention_shape": list(shape),
            "spatial_resolution": [shape[2], 1],
            "num_blocks": shape[0],
            "num_heads": shape[1],
            "threshold_applied": None,
            "block_idx": None,
            "head_idx": None,
            "dtype": "torch.float16",
            "prompt": "a beautiful flower near a tree",
            "seed": 999,
            "cfg_scale": 6.5,
            **metadata,
        }
        (directory / f"step_{step:03d}_metadata.json").write_text(json.dumps(document))
    return values
