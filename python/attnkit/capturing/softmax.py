"""Shares of a softmax over the text axis, without the rest of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Logits that are made at a time: what fits a cache, and on an accelerator what needs few launches.
_CPU_BYTES = 8 << 20
_DEVICE_BYTES = 256 << 20


class Keys:
    """Which keys of a text axis the columns are of.

    The last `alike` keys are one and the same, as those of padding are: one product and `+ log(alike)` in the sum stand
    for all of them.

    Parameters
    ----------
    count, alike : int
        Of all keys.
    columns : sequence of sequence of int
        The keys whose shares each column is the sum of, none twice.
    device : torch.device
        That of the queries.
    """

    def __init__(self, count: int, alike: int, columns: Sequence[Sequence[int]], device: torch.device) -> None:
        self.alike, self.device = max(1, alike), device
        #: Keys that are multiplied.
        self.products = count - self.alike + 1
        self._columns = [[min(key, self.products - 1) for key in keys] for keys in columns]
        self.is_sums = any(len(keys) != 1 for keys in columns)

    def __len__(self) -> int:
        return len(self._columns)

    @cached_property
    def bias(self) -> torch.Tensor | None:
        """What is added to logits before they are summed up: `[products]`."""
        import torch

        if self.alike == 1:
            return None
        bias = torch.zeros(self.products, device=self.device)
        bias[-1] = math.log(self.alike)
        return bias

    @cached_property
    def single(self) -> torch.Tensor:
        """The only key of each column: `[column]`."""
        import torch

        return torch.as_tensor([keys[0] for keys in self._columns], device=self.device)

    @cached_property
    def sums(self) -> torch.Tensor:
        """How often each product is in each column: `[products, column]`."""
        import torch

        sums = torch.zeros(self.products, len(self._columns))
        for column, keys in enumerate(self._columns):
            sums[:, column] = torch.bincount(torch.as_tensor(keys, dtype=torch.long), minlength=self.products)
        return sums.to(self.device)

    @cached_property
    def times(self) -> torch.Tensor:
        """How many keys each product stands for: `[products]`."""
        import torch

        times = torch.ones(self.products, device=self.device)
        times[-1] = self.alike
        return times


@dataclass
class TextStatistics:
    """What the attention of each head of a block to the whole text axis is like, as means over positions.

    Attributes
    ----------
    entropy : tensor
        `[head]`: of the attention over the keys, in nats.
    masses : tensor
        `[head, product]`: attention to a key; the last product's stands for each of those that are alike.
    sum_error : tensor
        `[head]`: how far from 1 the sum of the columns is, at the position where it is farthest.
    """

    entropy: torch.Tensor
    masses: torch.Tensor
    sum_error: torch.Tensor


def columns(query: torch.Tensor, key: torch.Tensor, keys: Keys, out: torch.Tensor) -> None:
    """Sums of columns of `softmax(query @ key.T / sqrt(dim))`, in float32 whatever the types are.

    Parameters
    ----------
    query, key : tensor
        `[head, spatial, dim]` and `[head, text, dim]`.
    keys : Keys
        Those whose columns are wanted.
    out : tensor
        `[head, spatial, column]`, of any type and device.
    """
    import torch

    scaled = _scaled(key, keys)
    for rows in _chunks(query, keys):
        logits = torch.matmul(query[:, rows].float(), scaled)
        # The chosen logits are taken before a bias is added to them.
        wanted = logits if keys.is_sums else logits.index_select(2, keys.single)
        total = torch.logsumexp(logits if keys.bias is None else logits + keys.bias, 2, keepdim=True)
        shares = (wanted - total).exp_()
        out[:, rows].copy_(shares @ keys.sums if keys.is_sums else shares)


def columns_and_statistics(query: torch.Tensor, key: torch.Tensor, keys: Keys, out: torch.Tensor) -> TextStatistics:
    """The same as `columns`, and what the attention to the whole text axis is like.

    With A the softmax: the mean over positions of `-sum(A ln A)`, and `mean(A)` of each key.
    """
    import torch

    scaled = _scaled(key, keys)
    heads, spatial, _ = query.shape
    entropy = torch.zeros(heads, dtype=torch.float64, device=query.device)
    masses = torch.zeros(heads, keys.products, dtype=torch.float64, device=query.device)
    sum_error = torch.zeros(heads, device=query.device)
    for rows in _chunks(query, keys):
        logits = torch.matmul(query[:, rows].float(), scaled)
        # Differences of large logits have more digits than these.
        logits -= logits.amax(2, keepdim=True)
        total = torch.logsumexp(logits if keys.bias is None else logits + keys.bias, 2, keepdim=True)
        logarithms = logits - total
        shares = logarithms.exp()
        sums = shares @ keys.sums
        out[:, rows].copy_(sums)
        sum_error = torch.maximum(sum_error, (sums.sum(2) - 1).abs().amax(1))
        masses += shares.sum(1, dtype=torch.float64)
        entropy -= ((shares * logarithms) @ keys.times).sum(1, dtype=torch.float64)
    return TextStatistics(entropy / spatial, masses / spatial, sum_error)


def _scaled(key: torch.Tensor, keys: Keys) -> torch.Tensor:
    return (key[:, : keys.products].float() * key.shape[2] ** -0.5).transpose(1, 2)


def _chunks(query: torch.Tensor, keys: Keys) -> list[slice]:
    """Rows of queries whose logits are made at a time."""
    heads, spatial, _ = query.shape
    bytes_at_once = _CPU_BYTES if query.device.type == "cpu" else _DEVICE_BYTES
    rows = max(1, bytes_at_once // (4 * heads * keys.products))
    return [slice(start, start + rows) for start in range(0, spatial, rows)]


def equal_tail(text: torch.Tensor) -> list[int]:
    """How many of the last rows of each text `[video, text, dim]` are zeros, whose keys are all the same."""
    import torch

    is_text = (text != 0).any(-1)
    numbers = torch.arange(1, text.shape[1] + 1, device=text.device)
    return [int(zeros) for zeros in text.shape[1] - (is_text * numbers).amax(1)]
