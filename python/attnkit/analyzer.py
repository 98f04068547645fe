"""`AttentionAnalyzer`: the documented way to look at attention maps, on a store or on a raw dump."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from operator import index
from typing import Any, Literal, SupportsIndex

import numpy as np

from . import _check, _native
from ._progress import Progress, following
from .errors import DumpError
from .ingest import Path

#: A numpy array, or a torch tensor with `framework="torch"`.
Array = Any


class AttentionAnalyzer:
    """Reads attention maps of a store or of a dump as it is, and averages them.

    A drop-in for the documented class of this name. A dump is read directly, in every format that generators write, and
    only what is asked for is held in memory: means read one step after the other, and a store answers them from its
    rollups.

    Parameters
    ----------
    path : path
        A store, or the directory of a dump (`outputs/batch_name/attention_maps`, or one above or below).
    framework : "numpy" or "torch"
        What arrays are returned as.
    batch : int or "mean", optional
        Element of a batch axis larger than 1, in a dump.
    array : str, optional
        Name of the array to read of `.npz` files that hold several, in a dump.
    progress : bool, tqdm class or function of (done, all)
        Show or tell the progress of long reads, in steps.

    Raises
    ------
    NotFoundError
        If there is neither a store nor a dump.

    Notes
    -----
    Means accumulate in float64 and are float32: float16 maps lose nothing to rounding on the way. The `aggregate_*`
    methods work on arrays in memory and count axes from the right, where `[..., block, head, spatial, token]` ends, so
    they take one step or many; average blocks first, then heads. Steps are the first axis.

    Examples
    --------
    >>> from attention_analyzer import AttentionAnalyzer
    >>> analyzer = AttentionAnalyzer("outputs/batch_name/attention_maps")  # doctest: +SKIP
    >>> analyzer.load_step("prompt_000_vid001", "flower", 0).shape  # doctest: +SKIP
    (30, 12, 1170, 1)
    """

    def __init__(
        self,
        path: Path,
        *,
        framework: Literal["numpy", "torch"] = "numpy",
        batch: int | Literal["mean"] | None = None,
        array: str | None = None,
        progress: Progress = False,
    ) -> None:
        if framework not in ("numpy", "torch"):
            raise ValueError(f"framework: `{framework}` is neither numpy nor torch")
        if framework == "torch":
            import torch  # noqa: F401  so that it is missed here, not hours later
        self._framework = framework
        self._progress = progress
        self._path = _check.path(path)
        self._batch = None if batch is None else str(batch)
        self._array = array
        # Found again if the working directory changes.
        self._source = _native.Source(os.path.abspath(self._path), self._batch, self._array, None)

    def __repr__(self) -> str:
        return f"<attnkit.AttentionAnalyzer {self._path}: {len(self._source.videos())} videos>"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_path": str(self._source.path), "_source": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._source = _native.Source(self._path, self._batch, self._array, None)

    # What there is.

    def get_available_videos(self) -> list[str]:
        """Ids of the videos, sorted."""
        return self._source.videos()

    def get_available_tokens(self, video_id: str) -> list[str]:
        """The tracked words of a video, sorted.

        Parameters
        ----------
        video_id : str
            The video.
        """
        return self._source.tokens(video_id)

    def get_available_steps(self, video_id: str, token_word: str) -> list[int]:
        """The steps that are there of a word, ascending.

        Parameters
        ----------
        video_id, token_word : str
            The video, and the word.
        """
        return self._source.steps(video_id, token_word)

    def get_video_info(self, video_id: str) -> dict[str, Any]:
        """What is known of a video.

        Parameters
        ----------
        video_id : str
            The video.

        Returns
        -------
        dict
            `video_id`, `prompt`, `seed`, `cfg_scale`, `tokens` (word -> {`steps`, `shape` of a step array, `grid`}),
            and `summary`: the contents of `summary.json`, or None.
        """
        tokens: dict[str, Any] = {}
        first: dict[str, Any] = {}
        for token in self._source.tokens(video_id):
            steps = self._source.steps(video_id, token)
            first = first or self._readable_metadata(video_id, token, steps)
            tokens[token] = {
                "steps": steps,
                "shape": self._source.shape(video_id, token),
                "grid": self._source.grid(video_id, token),
            }
        summary = self._source.summary(video_id)
        return {
            "video_id": video_id,
            "prompt": first.get("prompt"),
            "seed": first.get("seed"),
            "cfg_scale": first.get("cfg_scale"),
            "tokens": tokens,
            "summary": None if summary is None else json.loads(summary),
        }

    def load_metadata(self, video_id: str, token_word: str, step: int) -> dict[str, Any]:
        """The metadata of a step, with the keys of its JSON file.

        Parameters
        ----------
        video_id, token_word : str
            The video, and the word.
        step : int
            The step, by its number.
        """
        metadata: dict[str, Any] = json.loads(self._source.metadata(video_id, token_word, step))
        return metadata

    # Arrays.

    def load_step(self, video_id: str, token_word: str, step: SupportsIndex, with_metadata: bool = False) -> Array:
        """The array of one step.

        Parameters
        ----------
        video_id, token_word : str
            The video, and the word.
        step : int
            The step, by its number.
        with_metadata : bool
            Return (array, metadata).

        Returns
        -------
        array
            `[block, head, spatial, token]`, in the type it is stored in (bfloat16 as float32).

        Raises
        ------
        NotFoundError
            If there is no such step.
        DumpError, StoreError
            If it is damaged.
        """
        array = self._as_framework(self._source.load(video_id, token_word, [index(step)], None)[0])
        return (array, self.load_metadata(video_id, token_word, index(step))) if with_metadata else array

    def load_all_steps(
        self,
        video_id: str,
        token_word: str,
        steps: Sequence[SupportsIndex] | None = None,
        with_metadata: bool = False,
    ) -> Array:
        """The arrays of all steps, or of those given: all of them in memory, read in parallel.

        Parameters
        ----------
        video_id, token_word : str
            The video, and the word.
        steps : sequence of int, optional
            Their numbers; default: all.
        with_metadata : bool
            Return (array, list of metadata).

        Returns
        -------
        array
            `[step, block, head, spatial, token]`, in the type it is stored in. With `with_metadata`, (array, list of
            metadata).

        Raises
        ------
        DumpError
            If steps have different shapes or types.
        """
        chosen = None if steps is None else [index(step) for step in steps]
        with following(self._progress, f"load {token_word}", "step") as report:
            array = self._as_framework(self._source.load(video_id, token_word, chosen, report))
        if not with_metadata:
            return array
        numbers = self._source.steps(video_id, token_word) if chosen is None else chosen
        return array, [self.load_metadata(video_id, token_word, step) for step in numbers]

    # Means of arrays in memory.

    def aggregate_blocks(self, attention: Array) -> Array:
        """Mean over blocks: `[..., block, head, spatial, token]` becomes `[..., head, spatial, token]`, float32.

        Parameters
        ----------
        attention : array or tensor
            `[..., block, head, spatial, token]`, of any float type.
        """
        return self._mean(attention, -4, "blocks")

    def aggregate_heads(self, attention: Array) -> Array:
        """Mean over heads: `[..., head, spatial, token]` becomes `[..., spatial, token]`, float32.

        Parameters
        ----------
        attention : array or tensor
            `[..., head, spatial, token]`, of any float type.
        """
        return self._mean(attention, -3, "heads")

    def aggregate_tokens(self, attention: Array) -> Array:
        """Mean over token positions: `[..., spatial, token]` becomes `[..., spatial]`, float32.

        Parameters
        ----------
        attention : array or tensor
            `[..., spatial, token]`, of any float type.
        """
        return self._mean(attention, -1, "tokens")

    def aggregate_steps(self, attention: Array) -> Array:
        """Mean over steps: `[step, ...]` becomes `[...]`, float32.

        Parameters
        ----------
        attention : array or tensor
            `[step, ...]`, of any float type.
        """
        return self._mean(attention, -max(attention.ndim, 1), "steps")

    # Means of what is on disk.

    def get_temporal_evolution(self, video_id: str, token_word: str) -> Array:
        """The mean map of every step, over blocks and heads: `[step, spatial, token]`, float32.

        Parameters
        ----------
        video_id, token_word : str
            The video, and the word.
        """
        return self._as_framework(self._read_mean(video_id, token_word, None, blocks=True, heads=True)[:, 0, 0])

    def get_spatial_attention_map(
        self,
        video_id: str,
        token_word: str,
        step: SupportsIndex | None = None,
        height: int | None = None,
        width: int | None = None,
        frames: int | None = None,
    ) -> Array:
        """The mean map over blocks, heads and token positions, unflattened.

        Parameters
        ----------
        video_id, token_word : str
            The video, and the word.
        step : int, optional
            One step; default: all.
        height, width, frames : int, optional
            Size of the video, in pixels and frames, or already that of the latent grid: the grid whose product is the
            number of positions is taken, by the conventions of WAN 2.1 and 2.2. Default: what the metadata says.

        Returns
        -------
        array
            `[step, frame, height, width]`, float32, of the latent grid; the step axis is 1 for one step.

        Raises
        ------
        ValueError
            If no grid, or more than one, fits the number of positions; the message says which were tried.
        """
        steps = None if step is None else [index(step)]
        maps = self._read_mean(video_id, token_word, steps, blocks=True, heads=True)[:, 0, 0]
        flat = _native.mean_axis(np.ascontiguousarray(maps), 2) if maps.shape[2] > 1 else maps[:, :, 0]
        named = {"frames": frames, "height": height, "width": width}
        size = {name: _check.positive(name, number) for name, number in named.items()}
        grid = None if any(size.values()) else self._source.grid(video_id, token_word)
        if grid is None:
            if not all(size.values()):
                steps = self._source.steps(video_id, token_word)
                known = self._readable_metadata(video_id, token_word, steps)
                size = {name: number or known.get(f"video_{name}") for name, number in size.items()}
            frames, height, width = size.values()
            if not (frames and height and width):
                raise ValueError(
                    f"the grid of these {flat.shape[1]} positions is not known: "
                    "give height, width and frames of the video"
                )
            grid = _native.infer_grid(flat.shape[1], frames, height, width)
        return self._as_framework(flat.reshape(len(flat), *grid))

    def get_layer_analysis(self, video_id: str, token_word: str, step: SupportsIndex | None = None) -> Array:
        """The mean over heads, block by block: `[step, block, spatial, token]`, or `[block, spatial, token]` of one
        step; float32.

        Parameters
        ----------
        video_id, token_word : str
            The video, and the word.
        step : int, optional
            One step; default: all.
        """
        means = self._read_mean(video_id, token_word, None if step is None else [index(step)], heads=True)[:, :, 0]
        return self._as_framework(means if step is None else means[0])

    def get_head_analysis(self, video_id: str, token_word: str, step: SupportsIndex | None = None) -> Array:
        """The mean over blocks, head by head: `[step, head, spatial, token]`, or `[head, spatial, token]` of one step;
        float32.

        Parameters
        ----------
        video_id, token_word : str
            The video, and the word.
        step : int, optional
            One step; default: all.
        """
        means = self._read_mean(video_id, token_word, None if step is None else [index(step)], blocks=True)[:, 0]
        return self._as_framework(means if step is None else means[0])

    def compute_average_attention(
        self, video_id: str, token_word: str, steps: Sequence[SupportsIndex] | None = None
    ) -> Array:
        """The mean over blocks, heads and all steps, or those given: `[spatial, token]`, float32. Holds a few steps at
        a time.

        Parameters
        ----------
        video_id, token_word : str
            The video, and the word.
        steps : sequence of int, optional
            Their numbers; default: all.
        """
        chosen = None if steps is None else [index(step) for step in steps]
        means = self._read_mean(video_id, token_word, chosen, steps_too=True, blocks=True, heads=True)
        return self._as_framework(means[0, 0, 0])

    def _read_mean(
        self,
        video_id: str,
        token_word: str,
        steps: list[int] | None,
        *,
        steps_too: bool = False,
        blocks: bool = False,
        heads: bool = False,
    ) -> np.ndarray[Any, Any]:
        over = (steps_too, blocks, heads)
        with following(self._progress, f"mean of {token_word}", "step") as report:
            return self._source.mean(video_id, token_word, steps, over, report)

    def _readable_metadata(self, video_id: str, token_word: str, steps: Sequence[int]) -> dict[str, Any]:
        """The metadata of the first step whose metadata can be read; nothing if none can."""
        for step in steps:
            try:
                return self.load_metadata(video_id, token_word, step)
            except DumpError:
                continue
        return {}

    def _mean(self, attention: Array, axis: int, name: str) -> Array:
        if attention.ndim < -axis:
            shape = tuple(attention.shape)
            raise ValueError(
                f"there is no axis of {name} in an array of shape {shape}: it is counted from the right, as {axis}"
            )
        if hasattr(attention, "detach"):
            if attention.device.type != "cpu":
                return attention.detach().double().mean(dim=axis).float()
            import torch

            return torch.from_numpy(self._mean(_check.floats(attention), axis, name))
        return _native.mean_axis(np.ascontiguousarray(_check.floats(attention)), attention.ndim + axis)

    def _as_framework(self, array: np.ndarray[Any, Any]) -> Array:
        if self._framework == "numpy":
            return array
        import torch

        return torch.from_numpy(array)
