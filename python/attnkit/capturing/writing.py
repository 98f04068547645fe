"""Captured steps on their way to a store, beside the generation."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..writer import StoreWriter

if TYPE_CHECKING:
    import torch

#: Steps that wait while one is written; a slow disk slows the generation.
_WAITING = 1


@dataclass(frozen=True)
class TrackedWord:
    """A word of a prompt, and where it is.

    Attributes
    ----------
    word : str
        The word, or the name of chosen positions.
    weight : float or None
        Its weight, if it was asked for with one.
    positions : list of int
        Its rows on the text axis.
    token_ids, token_texts : list
        Of each position, in the tokenizer's vocabulary; empty where positions were chosen.
    """

    word: str
    weight: float | None
    positions: list[int]
    token_ids: list[int] = field(default_factory=list)
    token_texts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CapturedStep:
    """One denoising step of one video.

    Attributes
    ----------
    video_id, prompt, seed : str, str or None, int or None
        The video. A seed is known where a generator of this video's own, fresh from it, makes its noise.
    step, timestep : int, float
        The step's number, and the scheduler's timestep.
    total_steps, guidance_scale : int, float or None
        Of the generation.
    model : str
        The transformer that ran: `transformer`, or `transformer_2` of WAN 2.2.
    grid : tuple of int
        (frames, height, width) of the maps.
    video_size : tuple of int or None
        (frames, height, width) of the video, in frames and pixels.
    words : list of TrackedWord
        The words.
    maps : dict
        Of each word a CPU tensor `[block, head, spatial, token]`: softmax over all of the text axis.
    blocks, heads : list of int or None
        Their numbers, where only some were captured.
    """

    video_id: str
    prompt: str | None
    seed: int | None
    step: int
    timestep: float
    total_steps: int
    guidance_scale: float | None
    model: str
    grid: tuple[int, int, int]
    video_size: tuple[int, int, int] | None
    words: list[TrackedWord]
    maps: dict[str, torch.Tensor]
    blocks: list[int] | None
    heads: list[int] | None


class Beside:
    """Does something with each step, in order, on a thread of its own; what fails there is raised here."""

    def __init__(self, work: Callable[[CapturedStep], None]) -> None:
        self._work = work
        self._waiting: queue.Queue[CapturedStep | None] = queue.Queue(_WAITING)
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="attnkit capture", daemon=True)
        self._thread.start()

    def put(self, step: CapturedStep) -> None:
        """Hands a step over; waits while too many wait already."""
        self._raise()
        self._waiting.put(step)

    def close(self) -> None:
        """Waits until all is done."""
        self._waiting.put(None)
        self._thread.join()
        self._raise()

    def _run(self) -> None:
        while (step := self._waiting.get()) is not None:
            if self._failed is None:
                try:
                    self._work(step)
                except BaseException as error:
                    self._failed = error

    def _raise(self) -> None:
        if self._failed is not None:
            raise self._failed


class StoreOfVideos:
    """A store that videos are written into, several at a time."""

    def __init__(self, path: str, options: dict[str, Any], metadata: dict[str, Any]) -> None:
        self._path, self._options, self._metadata = path, options, metadata
        self._writers: dict[str, StoreWriter] = {}

    def write(self, step: CapturedStep) -> None:
        """Writes and commits the maps of a step."""
        writer = self._writers.get(step.video_id)
        if writer is None:
            writer = self._writers[step.video_id] = StoreWriter(
                self._path,
                step.video_id,
                step.prompt,
                seed=step.seed,
                cfg_scale=step.guidance_scale,
                total_steps=step.total_steps,
                video_size=step.video_size,
                grid=step.grid,
                metadata=self._metadata,
                **self._options,
            )
        of_step: dict[str, Any] = {"model": step.model}
        of_step |= {} if step.blocks is None else {"block_idx": step.blocks}
        of_step |= {} if step.heads is None else {"head_idx": step.heads}
        for word in step.words:
            writer.append(
                word.word,
                step.step,
                step.timestep,
                step.maps[word.word],
                weight=word.weight,
                token_ids=word.token_ids,
                token_texts=word.token_texts,
                metadata={**of_step, "token_positions": word.positions},
            )

    def close(self) -> None:
        """Ends the writing of all videos."""
        for writer in self._writers.values():
            writer.close()
