"""The maps of one video while the blocks of a forward run."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from .options import Options
from .pooling import Pooling
from .softmax import Keys, TextStatistics, columns, columns_and_statistics
from .wanted import TrackedWord

if TYPE_CHECKING:
    import torch

#: (frames, height, width)
Grid = tuple[int, int, int]


class Columns:
    """Which keys each column of a video's maps is of, and which columns are of which word.

    Equal positions of several words are computed once.
    """

    def __init__(self, words: Sequence[TrackedWord], count: int, alike: int, device: torch.device) -> None:
        self.words = list(words)
        single = sorted({position for word in words if word.pooling == "each" for position in word.positions})
        at = {position: column for column, position in enumerate(single)}
        sums = [word for word in words if word.pooling == "sum"]
        of_sums = {word.word: [len(single) + number] for number, word in enumerate(sums)}
        self.of_words = {
            word.word: of_sums.get(word.word) or [at[position] for position in word.positions] for word in words
        }
        wanted = [[position] for position in single] + [word.positions for word in sums]
        self.keys = Keys(count, alike, wanted, device)
        #: All keys that are in a column.
        self.positions = sorted({position for positions in wanted for position in positions})

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def sums(self) -> torch.Tensor:
        """In which columns each position is, where no keys are alike: `[position, column]`."""
        return self.keys.sums[self.positions]


class Maps:
    """The maps of one video in one forward, block by block.

    On an accelerator, a block's maps are copied into pinned memory on a stream of their own, while the next block runs.
    """

    def __init__(
        self, options: Options, columns: Columns, blocks: int, heads: int, grid: Grid, device: torch.device
    ) -> None:
        import torch

        self.columns = columns
        #: Of blocks, by their rows: statistics of a text axis of its own, and of joint attention the text's share.
        self.statistics: dict[int, TextStatistics] = {}
        self.shares: dict[int, torch.Tensor] = {}
        self.pooled = Pooling(options.downsample, grid) if options.downsample > 1 else None
        self._over_blocks, self._over_heads = ("blocks" in options.average, "heads" in options.average)
        self._dtype = torch.float16 if options.dtype == "float16" else torch.float32
        self._has_statistics, self._device, self._seen = options.groups, device, 0
        self._of_block = (heads, math.prod(grid), len(columns))
        spatial = math.prod(grid if self.pooled is None else self.pooled.grid)
        # Column by column, so that the maps of a word of one piece lie together.
        shape = (len(columns), 1 if self._over_blocks else blocks, 1 if self._over_heads else heads, spatial)
        if self._over_blocks:
            # Means are of float32, whatever is stored.
            self._maps = torch.zeros(shape, device=device)
        else:
            # Of a block that does not run, nothing is known.
            self._maps = torch.full(shape, math.nan, dtype=self._dtype, pin_memory=device.type == "cuda")
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def add(self, row: int, query: torch.Tensor, key: torch.Tensor) -> None:
        """The softmax of one block over the text, `[head, spatial, dim]` and `[head, text, dim]`."""
        with self.of_block(row) as out:
            if self._has_statistics:
                self.statistics[row] = columns_and_statistics(query, key, self.columns.keys, out)
            else:
                columns(query, key, self.columns.keys, out)

    @contextlib.contextmanager
    def of_block(self, row: int) -> Iterator[torch.Tensor]:
        """What the columns of a block are written into, `[head, spatial, column]`."""
        import torch

        is_averaged = self._over_blocks or self._over_heads or self.pooled is not None
        is_in_place = self._device.type == "cpu" and not is_averaged
        own = self._maps[:, 0 if self._over_blocks else row]
        out = own.permute(1, 2, 0) if is_in_place else torch.empty(self._of_block, device=self._device)
        yield out
        self._seen += 1
        if is_in_place:
            return
        mean = out.mean(0, keepdim=True) if self._over_heads else out
        mean = (mean if self.pooled is None else self.pooled.pool(mean)).permute(2, 0, 1)
        if self._over_blocks:
            own += mean
        elif self._stream is None:
            own.copy_(mean)
        else:
            self._copy_beside(own, mean.to(self._dtype, memory_format=torch.contiguous_format), self._stream)

    def _copy_beside(self, own: torch.Tensor, of_block: torch.Tensor, stream: torch.cuda.Stream) -> None:
        import torch

        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for column, mean in zip(own, of_block):
                column.copy_(mean, non_blocking=True)
        of_block.record_stream(stream)

    def text_share(self) -> torch.Tensor | None:
        """Of joint attention `[block, head]`, averaged as the maps are."""
        import torch

        if not self.shares:
            return None
        shares = torch.stack([share.cpu() for _, share in sorted(self.shares.items())])
        axes = [axis for axis, over in enumerate((self._over_blocks, self._over_heads)) if over]
        return shares.mean(axes, keepdim=True) if axes else shares

    def finish(self) -> dict[str, torch.Tensor]:
        """Of each word, `[block, head, spatial, token]` in memory of the CPU."""
        import torch

        if self._stream is not None:
            self._stream.synchronize()
        maps = self._maps
        if self._over_blocks:
            # Without any block: 0 / 0.
            maps = (maps / self._seen if self._seen else maps * math.nan).to(self._dtype).cpu()
        return {
            word: maps[at[0]].unsqueeze(-1) if len(at) == 1 else torch.stack([maps[column] for column in at], -1)
            for word, at in self.columns.of_words.items()
        }
