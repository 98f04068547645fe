"""Stores of the bundled dumps, made once with the package itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import attnkit
import numpy as np
import pytest

FIXTURES = Path(__file__).parents[2] / "fixtures"


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
            attnkit.ingest(FIXTURES / name, path, batch=batch)
            made[name] = attnkit.open(path)
        return made[name]

    return make


@pytest.fixture(scope="session")
def store(store_of: Callable[[str], attnkit.Store]) -> attnkit.Store:
    """The store of the bundled dataset."""
    return store_of("dataset")


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
