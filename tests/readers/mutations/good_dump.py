"""The one good dump, and what a store of it must hold."""

import json
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import product
from pathlib import Path

import numpy as np

SEEDS = {"prompt_000_vid001": 11, "prompt_000_vid002": 22}
IDS = {"cat": 7, "dog": 8}
STEPS = (0, 1, 2)
PROMPT = "a cat and a dog"
# The step that is changed where nothing else is said; its neighbours are there to stay as they are.
VIDEO, OTHER = SEEDS
WORD, STEP = "cat", 1
# The number of the first further step.
FURTHER = 10


def maps(number, shape=(2, 3, 32, 1), dtype=np.float16):
    """Maps like attention: positive, each of sum 1."""
    values = np.exp(1.5 * np.random.default_rng(number).normal(size=shape))
    return (values / values.sum(axis=2, keepdims=True)).astype(dtype)


@dataclass(frozen=True, eq=False)
class Step:
    """A step that a store must hold: its array, and its row of `steps` as far as the array does not tell it."""

    array: np.ndarray
    row: dict
    # The step of the good dump that has its statistics and answers; None where only numpy knows them.
    like: tuple | None
    # Numbers along the axes; None where they count from 0, or the axis has one place.
    blocks: list | None = None
    heads: list | None = None

    @property
    def key(self):
        return self.row["video_id"], self.row["token"], self.row["step"]

    def number(self, axis, place):
        numbers, size = (self.blocks, self.heads)[axis], self.array.shape[axis]
        return numbers[place] if numbers else place if size > 1 else None

    def changed(self, array=None, blocks=None, heads=None, **columns):
        """The same but for its array, its numbers, or columns of its row."""
        step = replace(self, row=self.row | columns)
        if array:
            step = replace(step, array=array(self.array), like=None)
        numbers = {"block_numbers": blocks, "head_numbers": heads}
        return replace(step, blocks=blocks, heads=heads, row=step.row | numbers)


def good_step(video, word, step):
    row = {
        **{"video_id": video, "prompt_id": "prompt_000", "prompt": PROMPT, "template": None, "variation": None},
        **{"seed": Decimal(SEEDS[video]), "cfg_scale": 4.5, "token": word, "token_ids": [IDS[word]]},
        **{"token_texts": [word], "weight": None, "step": step, "timestep": 1000.0 - 300 * step, "total_steps": 3},
        **{
            "aggregation_method": "per_step_full",
            "block_numbers": None,
            "head_numbers": None,
            "threshold_applied": None,
        },
        **{"frames": 2, "height": 4, "width": 4, "video_width": 64, "video_height": 64, "video_frames": 5},
    }
    return Step(maps(100 * SEEDS[video] + 10 * IDS[word] + step), row, (video, word, step))


GOOD = [good_step(*key) for key in product(SEEDS, IDS, STEPS)]
ARRAYS = {step.key: step.array for step in GOOD}
ARRAY = ARRAYS[VIDEO, WORD, STEP]


def described(video=VIDEO, word=WORD, step=STEP):
    """A step's metadata, with every key that is documented."""
    return {
        **{"video_id": video, "step": step, "timestep": 1000.0 - 300 * step, "total_steps": 3, "token_word": word},
        **{"token_ids": [IDS[word]], "token_texts": [word], "aggregation_method": "per_step_full"},
        **{"attention_shape": [2, 3, 32, 1], "spatial_resolution": [32, 1], "num_blocks": 2, "num_heads": 3},
        **{"threshold_applied": None, "block_idx": None, "head_idx": None, "dtype": "torch.float16", "prompt": PROMPT},
        **{"seed": SEEDS[video], "cfg_scale": 4.5, "video_width": 64, "video_height": 64, "video_frames": 5},
    }


def write_good_dump(root):
    directory = root / "attention_maps"
    for (video, word, step), array in ARRAYS.items():
        stem = directory / video / f"token_{word}" / f"step_{step:03}"
        stem.parent.mkdir(parents=True, exist_ok=True)
        np.save(f"{stem}.npy", array)
        Path(f"{stem}_metadata.json").write_text(json.dumps(described(video, word, step), indent=2))
    targets = {word: {"token_ids": [number], "positions": [1]} for word, number in IDS.items()}
    for video in SEEDS:
        stored = {"stored_steps": [*STEPS], "total_stored": 3, "target_tokens": targets}
        summary = {"video_id": video, **stored, "config": {"interval": 1}}
        (directory / video / "summary.json").write_text(json.dumps(summary, indent=2))
    return root
