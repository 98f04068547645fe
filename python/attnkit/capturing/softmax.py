"""Columns of a softmax, without the rest of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Logits that are made at a time: what fits a cache, and on an accelerator what needs few launches.
_CPU_BYTES = 8 << 20
_DEVICE_BYTES = 256 << 20


def columns(
    query: torch.Tensor, key: torch.Tensor, positions: Sequence[int], *, alike: int = 0, out: torch.Tensor
) -> None:
    """`softmax(query @ key.T / sqrt(dim))[..., positions]`, in float32 whatever the types are.

    Parameters
    ----------
    query, key : tensor
        `[head, spatial, dim]` and `[head, text, dim]`.
    positions : sequence of int
        Keys whose columns are wanted.
    alike : int
        How many of the last keys are one and the same, as those of padding are: one product and `+ log(alike)` in the
        sum stand for all of them.
    out : tensor
        `[head, spatial, len(positions)]`, of any type and device.
    """
    import torch

    heads, spatial, dim = query.shape
    bias = None
    if alike > 1:
        key = key[:, : key.shape[1] - alike + 1]
        bias = torch.zeros(key.shape[1], device=key.device)
        bias[-1] = math.log(alike)
    scaled = (key.float() * dim**-0.5).transpose(1, 2)
    last = key.shape[1] - 1
    wanted = torch.as_tensor([min(position, last) for position in positions], device=query.device)
    rows = max(1, (_CPU_BYTES if query.device.type == "cpu" else _DEVICE_BYTES) // (4 * heads * key.shape[1]))
    for start in range(0, spatial, rows):
        logits = torch.matmul(query[:, start : start + rows].float(), scaled)
        chosen = logits.index_select(2, wanted)
        if bias is not None:
            logits += bias
        shares = chosen.sub_(torch.logsumexp(logits, 2, keepdim=True)).exp_()
        out[:, start : start + rows].copy_(shares)


def equal_tail(text: torch.Tensor) -> list[int]:
    """How many of the last rows of each text `[video, text, dim]` are zeros, whose keys are all the same."""
    import torch

    is_text = (text != 0).any(-1)
    numbers = torch.arange(1, text.shape[1] + 1, device=text.device)
    return [int(zeros) for zeros in text.shape[1] - (is_text * numbers).amax(1)]
