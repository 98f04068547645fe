"""Calls of fused attention as they are made: queries and keys that enter a softmax, and the kernel's log-sum-exp of it.

What is called is what would be called without; nothing of size `[head, query, key]` is made.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from . import softmax

if TYPE_CHECKING:
    import torch

#: `SDPBackend.FLASH_ATTENTION`, as `torch._fused_sdp_choice` says it.
_FLASH = 1
#: What torch calls then, on each kind of device.
_KERNELS = {
    "cpu": "_scaled_dot_product_flash_attention_for_cpu",
    "cuda": "_scaled_dot_product_flash_attention",
}


@dataclass(frozen=True)
class Attention:
    """The arguments of a call of `torch.nn.functional.scaled_dot_product_attention`.

    Attributes
    ----------
    query, key, value : tensor
        `[batch, head, query, dim]`, `[batch, head, key, dim]` and likewise.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    attn_mask: torch.Tensor | None = None
    dropout_p: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False

    def rounded(self) -> Attention:
        """With the queries and keys that are multiplied: autocast rounds what it is given."""
        import torch

        device = self.query.device.type
        if not torch.is_autocast_enabled(device):
            return self
        dtype = torch.get_autocast_dtype(device)
        return replace(self, query=self.query.to(dtype), key=self.key.to(dtype))

    def kernel(self) -> Callable[[], tuple[torch.Tensor, torch.Tensor]] | None:
        """The kernel that torch would choose, if it tells its log-sum-exp `[batch, head, query]` beside the output."""
        import torch

        device = self.query.device.type
        is_plain = self.attn_mask is None and not (self.dropout_p or self.is_causal or self.enable_gqa)
        if not is_plain or device not in _KERNELS or torch.is_autocast_enabled(device):
            return None
        if device == "cuda" and self.query.shape[-1] % 8:
            # Torch pads these before it calls the kernel.
            return None
        if torch._fused_sdp_choice(self.query, self.key, self.value, scale=self.scale) != _FLASH:
            return None
        of_device = getattr(torch.ops.aten, _KERNELS[device])
        return lambda: of_device(self.query, self.key, self.value, scale=self.scale)[:2]

    def bias(self, element: int, heads: Any, queries: slice) -> torch.Tensor | None:
        """What the mask adds to the logits of an element of the batch: `[head or 1, query or 1, key]`."""
        import torch

        if self.attn_mask is None:
            return None
        mask = self.attn_mask[(None,) * (4 - self.attn_mask.ndim)]
        mask = mask[element if mask.shape[0] > 1 else 0]
        mask = mask[heads] if mask.shape[0] > 1 else mask
        mask = mask[:, queries] if mask.shape[1] > 1 else mask
        if mask.dtype == torch.bool:
            return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -torch.inf)
        return mask.float()


#: What sees a call; gets the log-sum-exp too, if the kernel tells it.
See = Callable[[Attention, "torch.Tensor | None"], None]


def watch(see: See) -> AbstractContextManager[Any]:
    """While it is entered, every call of fused attention of this thread is seen, after it was made."""
    return _watching()(see)


@functools.cache
def _watching() -> Callable[[See], AbstractContextManager[Any]]:
    import torch
    from torch.overrides import TorchFunctionMode

    class Watching(TorchFunctionMode):  # type: ignore[misc]
        def __init__(self, see: See) -> None:
            super().__init__()
            self._see = see

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = kwargs or {}
            if func is not torch.nn.functional.scaled_dot_product_attention:
                return func(*args, **given)
            attention = Attention(*args, **given).rounded()
            kernel = attention.kernel()
            output, total = (func(*args, **given), None) if kernel is None else kernel()
            # What is computed of it is of float32, whatever the pipeline computes in.
            with torch.no_grad(), torch.autocast(attention.query.device.type, enabled=False):
                self._see(attention, total)
            return output

    return Watching


def columns(
    query: torch.Tensor,
    key: torch.Tensor,
    text: slice,
    positions: Sequence[int],
    *,
    scale: float,
    bias: torch.Tensor | None,
    total: torch.Tensor | None,
    out: torch.Tensor,
) -> torch.Tensor:
    """Columns of `softmax(query @ key.T * scale + bias)`, in float32 whatever the types are.

    Parameters
    ----------
    query, key : tensor
        `[head, query, dim]` and `[head, key, dim]`.
    text : slice
        The keys of the text.
    positions : sequence of int
        Those whose columns are wanted, counted from the text's first.
    bias : tensor, optional
        `[head or 1, query or 1, key]`.
    total : tensor, optional
        The log-sum-exp of all keys, `[head, query]`: without it all keys are multiplied once more.
    out : tensor
        `[head, query, len(positions)]`, of any type and device.

    Returns
    -------
    tensor
        `[head]`: the share of all the text, the mean over queries.
    """
    import torch

    heads, spatial, _ = query.shape
    keys = key if total is None else key[:, text]
    scaled = (keys.float() * scale).transpose(1, 2)
    of_text = text if total is None else slice(None)
    wanted = torch.as_tensor(list(positions), device=query.device)
    share = torch.zeros(heads, device=query.device)
    size = softmax._CPU_BYTES if query.device.type == "cpu" else softmax._DEVICE_BYTES
    rows = max(1, size // (4 * heads * keys.shape[1]))
    for start in range(0, spatial, rows):
        chunk = slice(start, start + rows)
        logits = torch.matmul(query[:, chunk].float(), scaled)
        if bias is not None:
            logits += bias if bias.shape[1] == 1 else bias[:, chunk]
        sums = torch.logsumexp(logits, 2, keepdim=True) if total is None else total[:, chunk, None]
        shares = logits[..., of_text].sub_(sums).exp_()
        out[:, chunk].copy_(shares.index_select(2, wanted))
        share += shares.sum((1, 2))
    return share / spatial
