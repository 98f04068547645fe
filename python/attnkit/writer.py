"""Writing a store while a video is generated, with no dump in between."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import index
from types import TracebackType
from typing import Any, Literal, SupportsFloat, SupportsIndex

from . import _check, _native
from .errors import WriteError
from .ingest import Path

_METHODS = {
    (False, False): "per_step_full",
    (True, False): "blocks_averaged",
    (False, True): "heads_averaged",
    (True, True): "blocks_and_heads_averaged",
}


class StoreWriter:
    """Writes one video into a store, step by step.

    Every step is committed at once: what `append` has returned from is in the store, and seen by its readers, whatever
    happens to the process afterwards. A video that is there already is gone on with; steps it has are skipped if their
    values are the same. Writers of different videos may write into one store at the same time, in any processes.

    Parameters
    ----------
    store : path
        The store; created if it is not there.
    video_id : str
        The video, such as `prompt_000_vid001`.
    prompt : str or None
        The prompt as the model got it, if it is known.
    seed, cfg_scale, total_steps : optional
        Of the generation.
    video_size : tuple of int, optional
        (frames, height, width) of the video, frames and pixels; the grid of the maps is told from it.
    grid : tuple of int, optional
        (frames, height, width) of the maps, if `video_size` does not tell it.
    prompt_id, template, variation : optional
        Of the prompt. The id is told from `video_id` if that begins like `prompt_000`.
    codec, rollups
        As for `attnkit.ingest`.
    metadata : mapping, optional
        More to keep of each step: what JSON can hold.
    single_writer : bool
        Promise that no other process writes into the store: it may be on a file system without locks then.

    Examples
    --------
    >>> with attnkit.StoreWriter("maps.store", video_id="v1", prompt="a flower") as writer:  # doctest: +SKIP
    ...     for step, timestep in enumerate(scheduler.timesteps):
    ...         writer.append("flower", step, timestep, maps)  # [block, head, spatial, token]
    """

    def __init__(
        self,
        store: Path,
        video_id: str,
        prompt: str | None,
        *,
        seed: int | None = None,
        cfg_scale: float | None = None,
        total_steps: int | None = None,
        video_size: tuple[int, int, int] | None = None,
        grid: tuple[int, int, int] | None = None,
        prompt_id: str | None = None,
        template: str | None = None,
        variation: int | None = None,
        codec: Literal["fast", "balanced", "small", "none"] = "balanced",
        rollups: bool = True,
        metadata: Mapping[str, Any] | None = None,
        single_writer: bool = False,
    ) -> None:
        frames, height, width = _check.sizes("video_size", video_size, "frames, height, width") or (None, None, None)
        of_maps = _check.sizes("grid", grid, "frames, height, width")
        seed, total_steps = _check.integer("seed", seed), _check.integer("total_steps", total_steps)
        if seed is not None and not -(2**63) <= seed < 2**64:
            raise ValueError(f"seed: {seed} does not fit into 64 bits")
        self._more = dict(metadata or {})
        self._metadata = {
            "video_id": video_id,
            "prompt": prompt,
            "seed": seed,
            "cfg_scale": None if cfg_scale is None else float(cfg_scale),
            "total_steps": total_steps,
            "video_frames": frames,
            "video_height": height,
            "video_width": width,
        }
        _check.as_json("metadata", {**self._more, **self._metadata})
        self._native = _native.StoreWriter(
            _check.path(store), video_id, codec, rollups, of_maps, prompt_id, template, variation, single_writer
        )

    def append(
        self,
        token: str,
        step: SupportsIndex,
        timestep: SupportsFloat,
        array: Any,
        *,
        weight: float | None = None,
        token_ids: Sequence[int] = (),
        token_texts: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> bool:
        """Write and commit the maps of one word at one step.

        Parameters
        ----------
        token : str
            The tracked word.
        step : int
            The denoising step; the steps of a word come in ascending order, gaps are fine.
        timestep : float
            The scheduler's timestep.
        array : numpy array or torch tensor
            `[block, head, spatial, token]`, float16, float32 or float64; blocks and heads are 1 where they were
            averaged. A batch axis of 1 behind the first is dropped. bfloat16 tensors are stored as float32. Tensors of
            other devices are copied here.
        weight : float, optional
            The word's weight in the prompt.
        token_ids, token_texts : optional
            Of the word, in the tokenizer's vocabulary.
        metadata : mapping, optional
            More to keep of this step. `block_idx` and `head_idx` are the numbers of the blocks and heads along the
            array's axes, where they are chosen ones: a number, or a list as long as the axis.

        Returns
        -------
        bool
            Whether the step was new.

        Raises
        ------
        WriteError
            If the step does not fit behind those that are there, or is there with other values. The store is as it was.
        StoreError
            If the store cannot be written.
        """
        values = _check.floats(array)
        if values.ndim == 5 and values.shape[1] > 1:
            raise WriteError(
                f"an array of shape {list(values.shape)} has a batch axis (axis 1); "
                "append one element of it: array[:, 0]"
            )
        if not math.isfinite(timestep):
            raise ValueError(f"timestep: {timestep} is not finite")
        averaged = (values.shape[0] == 1, values.shape[-3] == 1) if values.ndim in (4, 5) else (False, False)
        document = {
            **self._more,
            **(metadata or {}),
            **self._metadata,
            "token_word": token,
            "token_ids": [int(id) for id in token_ids],
            "token_texts": list(token_texts),
            "step": index(step),
            "timestep": float(timestep),
            "aggregation_method": _METHODS[averaged],
        }
        return self._native.append(token, weight, index(step), values, _check.as_json("metadata", document))

    def close(self) -> None:
        """End the writing. Everything that was appended is in the store already."""
        self._native.close()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
