"""Writing a store while a video is generated, with no dump in between."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from operator import index
from types import TracebackType
from typing import Any, Literal, SupportsFloat, SupportsIndex

import numpy as np

from . import _check, _native
from .errors import WriteError
from .ingest import Codec, Path

_METHODS = {
    (False, False): "per_step_full",
    (True, False): "blocks_averaged",
    (False, True): "heads_averaged",
    (True, True): "blocks_and_heads_averaged",
}


def aggregation_method(shape: Sequence[int], blocks: Any, heads: Any) -> str:
    """What was averaged of a step of `[block, …, head, spatial, token]`: a single one that has a number was chosen."""
    return _METHODS[shape[0] == 1 and blocks is None, shape[-3] == 1 and heads is None]


class StoreWriter:
    """Writes one video into a store, step by step.

    Every step is committed as it ends, one of a single word by `append`, of several at once by `step`: it is in the
    store then, and seen by its readers, whatever happens to the process afterwards. A video that is there already is
    gone on with; steps it has are skipped if their values are the same. Writers of different videos may write into one
    store at the same time, in any processes.

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
    ...     for number, timestep in enumerate(scheduler.timesteps):
    ...         with writer.step(number, timestep) as step:
    ...             for word, maps in maps_of_words.items():
    ...                 step.append(word, maps)  # [block, head, spatial, token]
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
        codec: Codec = "balanced",
        rollups: Literal["auto", "all", "none"] = "auto",
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
        """Write and commit the maps of one word at one step: a `step` of a single word.

        Parameters
        ----------
        token : str
            The tracked word.
        step : int
            The denoising step; the steps of a word come in ascending order, gaps are fine.
        timestep : float
            The scheduler's timestep.
        array : numpy array or torch tensor
            `[block, head, spatial, token]`.
        weight, token_ids, token_texts, metadata : optional
            As for `StepBuffer.append`.

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
        buffer = self.step(step, timestep)
        buffer.append(token, array, weight=weight, token_ids=token_ids, token_texts=token_texts, metadata=metadata)
        return buffer.commit() == {token: True}

    def step(
        self, step: SupportsIndex, timestep: SupportsFloat, *, metadata: Mapping[str, Any] | None = None
    ) -> StepBuffer:
        """Begin a step of several words, which is committed as a whole when the `with` block ends.

        Parameters
        ----------
        step : int
            The denoising step; the steps of a word come in ascending order, gaps are fine.
        timestep : float
            The scheduler's timestep.
        metadata : mapping, optional
            More to keep of this step.
        """
        if not math.isfinite(timestep):
            raise ValueError(f"timestep: {timestep} is not finite")
        told = {"step": index(step), "timestep": float(timestep)}
        return StepBuffer(self._native, {**self._more, **(metadata or {})}, {**self._metadata, **told})

    def close(self) -> None:
        """End the writing. Everything that was appended is in the store already."""
        self._native.close()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class StepBuffer:
    """A step of some words that is on its way into a store: see `StoreWriter.step`.

    As a context manager, it is committed when the block ends, and given up if it ends with an error.
    """

    def __init__(self, native: _native.StoreWriter, more: dict[str, Any], metadata: dict[str, Any]) -> None:
        self._native, self._more, self._metadata = native, more, metadata
        self._words: dict[str, tuple[float | None, Any, str]] = {}
        self._text: list[tuple[str | None, int, int, float, int, float, float | None]] = []

    def append(
        self,
        token: str,
        array: Any,
        *,
        weight: float | None = None,
        token_ids: Sequence[int] = (),
        token_texts: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Add the maps of a word.

        Parameters
        ----------
        token : str
            The tracked word.
        array : numpy array or torch tensor
            `[block, head, spatial, token]`, float16, float32 or float64; blocks and heads are 1 where they were
            averaged. A batch axis of 1 behind the first is dropped. bfloat16 tensors are stored as float32. Tensors of
            other devices are copied here. It must not change until the step is committed.
        weight : float, optional
            The word's weight in the prompt.
        token_ids, token_texts : optional
            Of the word, in the tokenizer's vocabulary.
        metadata : mapping, optional
            More to keep of this word at this step. `block_idx` and `head_idx` are the numbers of the blocks and heads
            along the array's axes, where they are chosen ones: a number, or a list as long as the axis. Keys that are
            columns of the table `steps`, as `call`, `model` or `positions`, are told there.

        Raises
        ------
        WriteError
            If the array is none of one step, or the word is there already.
        """
        if token in self._words:
            raise WriteError(f"step {self._metadata['step']} of {token!r} is there twice")
        values = _check.floats(array)
        if values.ndim == 5 and values.shape[1] > 1:
            raise WriteError(
                f"an array of shape {list(values.shape)} has a batch axis (axis 1); "
                "append one element of it: array[:, 0]"
            )
        told = {**self._more, **(metadata or {})}
        # What is no step is refused when it is committed.
        shape = values.shape if values.ndim in (4, 5) else (0,) * 4
        document = {
            **told,
            **self._metadata,
            "token_word": token,
            "token_ids": [int(id) for id in token_ids],
            "token_texts": list(token_texts),
            "aggregation_method": aggregation_method(shape, told.get("block_idx"), told.get("head_idx")),
        }
        self._words[token] = (weight, values, _check.as_json("metadata", document))

    def text(
        self,
        call: Literal["cond", "uncond"] | None,
        text_entropy: Any,
        sink_key: Any,
        sink_mass: Any,
        *,
        sum_error: Any = None,
        blocks: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
    ) -> None:
        """Add what each head's attention to the whole text axis was like: rows of the table `text`.

        Parameters
        ----------
        call : str or None
            Which call of classifier-free guidance.
        text_entropy, sink_key, sink_mass : array
            `[block, head]`: mean over positions of the entropy over the text axis, in nats; the key with the most
            attention, as a mean over positions; that mean.
        sum_error : array, optional
            `[block, head]`: how far from 1 the sum of the words is, where all keys are in one.
        blocks, heads : sequence of int, optional
            Their numbers, where they do not count from 0.
        """
        entropies, keys, masses = np.asarray(text_entropy), np.asarray(sink_key), np.asarray(sink_mass)
        errors = None if sum_error is None else np.asarray(sum_error)
        for array in (entropies, keys, masses, *(() if errors is None else (errors,))):
            if array.ndim != 2 or array.shape != entropies.shape:
                raise ValueError(f"text: arrays of shape {array.shape} and {entropies.shape}; expected [block, head]")
        of_axes = [
            range(count) if numbers is None else numbers for numbers, count in zip((blocks, heads), entropies.shape)
        ]
        if [len({*numbers}) for numbers in of_axes] != list(entropies.shape):
            raise ValueError(f"text: {[len({*numbers}) for numbers in of_axes]} numbers for {entropies.shape}")
        if keys.dtype.kind not in "iu" or (keys.size and keys.min() < 0) or min(map(min, of_axes), default=0) < 0:
            raise ValueError("text: blocks, heads and sink keys are to be integers from 0")
        if any(call == known for known, *_ in self._text):
            raise WriteError(f"step {self._metadata['step']} has rows of the text of call {call!r} already")
        for (row, block), (column, head) in itertools.product(*map(enumerate, of_axes)):
            at = row, column
            error = None if errors is None else float(errors[at])
            self._text.append((call, block, head, float(entropies[at]), int(keys[at]), float(masses[at]), error))

    def commit(self) -> dict[str, bool]:
        """Write the step, all of its words or none, and make it seen.

        Returns
        -------
        dict
            Of each word, whether its step was new.

        Raises
        ------
        WriteError
            If the step does not fit behind those that are there, or is there with other values. The store is as it was.
        StoreError
            If the store cannot be written.
        """
        words = [(token, *word) for token, word in self._words.items()]
        if self._text and not words:
            raise WriteError(f"step {self._metadata['step']} has rows of the text, and no word")
        is_new = self._native.append(self._metadata["step"], words, self._text)
        self._words, self._text = {}, []
        return dict(zip((token for token, *_ in words), is_new))

    def __enter__(self) -> StepBuffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.commit()
