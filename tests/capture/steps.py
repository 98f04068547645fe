"""Captured steps of random maps, without a pipeline."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from attnkit.capturing.writing import CapturedStep, TrackedWord
from tiny import seeded


def step(number: int = 0, words: tuple[str, ...] = ("flower", "tree"), **more: Any) -> CapturedStep:
    """A step of random maps, other ones for each number and word."""
    maps = {
        word: torch.rand((2, 3, 18, 1), generator=seeded(100 * number + place)).half()
        for place, word in enumerate(words)
    }
    known = CapturedStep(
        video_id="v",
        prompt="a flower near a tree",
        negative_prompt=None,
        seed=2**64 - 1,
        step=number,
        timestep=999.5 - number,
        total_steps=3,
        guidance_scale=6.5,
        model="transformer",
        call="cond",
        grid=(3, 2, 3),
        video_size=(9, 32, 48),
        words=[TrackedWord(word, None, [place], [7], ["x"]) for place, word in enumerate(words)],
        maps=maps,
        blocks=None,
        heads=None,
        text_length=6,
        skipped=[],
        text=None,
        origin={},
    )
    return dataclasses.replace(known, **more)
