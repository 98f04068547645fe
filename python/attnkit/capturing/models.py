"""The models whose cross-attention is understood: where it is, the grid of its queries, and what becomes of prompts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .layouts import LAYOUTS

if TYPE_CHECKING:
    import torch

#: Text padded with zeros and no mask, queries and keys normed, patches of latents in C order.
_WAN = (
    "WanTransformer3DModel",
    "WanVACETransformer3DModel",
    "SkyReelsV2Transformer3DModel",
    "ChronoEditTransformer3DModel",
)

#: Pipelines that run the conditional call first, and did before they said which is which.
CONDITIONAL_FIRST = (
    "WanPipeline",
    "WanImageToVideoPipeline",
    "WanVACEPipeline",
    "WanVideoToVideoPipeline",
    "SkyReelsV2Pipeline",
    "SkyReelsV2ImageToVideoPipeline",
    "ChronoEditPipeline",
)

_IN_PASSES = "each frame has a timestep of its own, and a long video is made in several passes"
#: Pipelines whose steps cannot be told, and why: neither they nor what derives from them can be captured.
_REFUSED = {
    "ModularPipeline": "a modular pipeline does not say which call of guidance runs; make a pipeline such as "
    "diffusers.WanPipeline of its components, and capture that",
    "SkyReelsV2DiffusionForcingPipeline": _IN_PASSES,
    "SkyReelsV2DiffusionForcingImageToVideoPipeline": _IN_PASSES,
    "SkyReelsV2DiffusionForcingVideoToVideoPipeline": _IN_PASSES,
    "WanAnimatePipeline": "a video is made in segments, each of which has all steps",
}


def require_steps(pipe: Any) -> None:
    """Refuses, as a TypeError, pipelines whose steps cannot be told."""
    for kind in type(pipe).__mro__:
        if kind.__name__ in _REFUSED:
            raise TypeError(f"{type(pipe).__name__} cannot be captured: {_REFUSED[kind.__name__]}")


def cross_attentions(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The text cross-attention of each block.

    Raises
    ------
    TypeError
        If the model is none that is understood.
    """
    name = type(model).__name__
    if name not in _WAN:
        raise TypeError(f"{name}: its cross-attention is not understood; that of {', '.join((*_WAN, *LAYOUTS))} is")
    found = [getattr(block, "attn2", None) for block in model.blocks]
    odd = [
        number
        for number, attention in enumerate(found)
        if getattr(attention, "norm_q", None) is None or getattr(attention, "norm_k", None) is None
    ]
    if odd:
        raise TypeError(f"{name}: blocks {odd} have no norms of queries and keys in attn2, where attention is read")
    return found


def grid_of(model: Any, latents: torch.Tensor) -> tuple[int, int, int]:
    """(frames, height, width) of a model's queries, from its latents `[video, channel, frame, height, width]`."""
    frames, height, width = (size // patch for size, patch in zip(latents.shape[2:], model.config.patch_size))
    return frames, height, width


def clean_prompt(pipe: Any) -> Callable[[str], str]:
    """What a pipeline does to a prompt before it is cut into pieces."""
    for kind in type(pipe).__mro__:
        clean = getattr(sys.modules.get(kind.__module__), "prompt_clean", None)
        if clean is not None:
            return clean  # type: ignore[no-any-return]
    return lambda prompt: prompt
