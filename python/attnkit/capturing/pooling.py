"""Average pooling of maps within each frame, as `attnkit ingest --downsample` does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Pooling:
    """Height and width of a grid, pooled by a factor K.

    Each value is the sum of K x K positions over K², also at the far edges, where there are fewer: a map's mass stays
    where it was.

    Attributes
    ----------
    factor : int
        K.
    whole : tuple of int
        (frames, height, width) of the maps before.
    """

    factor: int
    whole: tuple[int, int, int]

    @property
    def grid(self) -> tuple[int, int, int]:
        """(frames, height, width) of the maps behind it."""
        frames, height, width = self.whole
        return frames, -(-height // self.factor), -(-width // self.factor)

    @property
    def lossy(self) -> dict[str, Any]:
        """What is lost, as the attributes of stores say it."""
        frames, height, width = self.whole
        return {
            "downsample": self.factor,
            "downsampled_from": {"frames": frames, "height": height, "width": width},
        }

    def pool(self, maps: torch.Tensor) -> torch.Tensor:
        """`[..., spatial, token]` of the whole grid to `[..., spatial, token]` of the pooled one, of the same type."""
        from torch.nn.functional import pad

        _, height, width = self.whole
        rows, columns = min(self.factor, height), min(self.factor, width)
        planes = pad(maps.unflatten(-2, self.whole), (0, 0, 0, -width % columns, 0, -height % rows))
        # [..., frame, row, y, column, x, token]
        windows = planes.unflatten(-2, (-1, columns)).unflatten(-4, (-1, rows))
        return windows.sum((-4, -2)).div_(self.factor**2).flatten(-4, -2)
