"""Captured steps on their way to a store, beside the generation."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ..writer import StoreWriter
from .pooling import Pooling
from .softmax import TextStatistics
from .wanted import TrackedWord

if TYPE_CHECKING:
    import torch


#: Keys of metadata that are told of each step.
RESERVED = frozenset(
    [
        "video_id",
        "prompt",
        "negative_prompt",
        "seed",
        "cfg_scale",
        "total_steps",
        "video_frames",
        "video_height",
        "video_width",
        "step",
        "timestep",
        "token_word",
        "token_ids",
        "token_texts",
        "aggregation_method",
        "attention_shape",
        "spatial_resolution",
        "num_blocks",
        "num_heads",
        "threshold_applied",
        "block_idx",
        "head_idx",
        "dtype",
        "call",
        "model",
        "pieces",
        "pooling",
        "positions",
        "text_length",
        "skipped",
        "scheduler",
        "model_id",
        "guidance_scale",
        "library_versions",
        "weighting",
        "attention",
        "renormalised",
        "text_share",
        "attnkit",
    ]
)
#: How far from 1 the sum of all keys may be: much more than what is rounded.
_SUM_ERROR = 1e-3


@dataclass(frozen=True, eq=False)
class CapturedStep:
    """One call of one denoising step of one video.

    Attributes
    ----------
    video_id, prompt, negative_prompt, seed : str, str or None, str or None, int or None
        The video. There is a negative prompt where there is guidance. A seed is known where a generator of this video's
        own, fresh from it, makes its noise.
    step, timestep : int, float
        The step's number, and the scheduler's timestep.
    total_steps, guidance_scale : int, float or None
        Of the generation.
    model, call : str
        The transformer that ran, `transformer` or `transformer_2` of WAN 2.2, and for which call of guidance: `cond` or
        `uncond`.
    grid : tuple of int
        (frames, height, width) of the maps.
    video_size : tuple of int or None
        (frames, height, width) of the video, in frames and pixels.
    words : list of TrackedWord
        The words and groups.
    maps : dict
        Of each word a CPU tensor `[block, head, spatial, token]`: softmax over all of the text axis, and over the image
        too where `text_share` is told. NaN where a block did not run.
    blocks, heads : list of int or None
        Their numbers, where only some were captured.
    text_length : int or None
        Rows of the text axis that the text of the call takes, the end token's among them.
    skipped : list of int
        Blocks that a step cache left out.
    text : TextOfStep or None
        Statistics of the whole text axis, where groups were asked for.
    origin : dict
        What ran: `scheduler`, `model_id`, `library_versions`.
    weighting : str or None
        How the weights of the words act, where it is known: the `method` of `attnkit.Prompt.inputs`.
    text_share : tensor or None
        `[block, head]`, where text and image have one softmax: the share of it that all the text has, the mean over
        positions. Maps are not renormalised by it.
    pooled : Pooling or None
        How the maps were pooled: `grid` is theirs behind it.
    """

    video_id: str
    prompt: str | None
    negative_prompt: str | None
    seed: int | None
    step: int
    timestep: float
    total_steps: int
    guidance_scale: float | None
    model: str
    call: Literal["cond", "uncond"]
    grid: tuple[int, int, int]
    video_size: tuple[int, int, int] | None
    words: list[TrackedWord]
    maps: dict[str, torch.Tensor] = field(repr=False)
    blocks: list[int] | None
    heads: list[int] | None
    text_length: int | None
    skipped: list[int]
    text: TextOfStep | None
    origin: dict[str, Any]
    weighting: str | None = None
    text_share: torch.Tensor | None = field(default=None, repr=False)
    pooled: Pooling | None = None


@dataclass(frozen=True, eq=False)
class TextOfStep:
    """What attention to the whole text axis was like, of each head of each block that ran.

    Attributes
    ----------
    blocks, heads : list of int
        Their numbers.
    entropy, sink_key, sink_mass, sum_error : tensor
        `[block, head]`, as the table `text` has them.
    """

    blocks: list[int]
    heads: list[int]
    entropy: torch.Tensor = field(repr=False)
    sink_key: torch.Tensor = field(repr=False)
    sink_mass: torch.Tensor = field(repr=False)
    sum_error: torch.Tensor = field(repr=False)

    @classmethod
    def of(cls, statistics: dict[int, TextStatistics], blocks: list[int], heads: list[int]) -> TextOfStep | None:
        """Of the statistics of blocks, by their places among the chosen ones; None if there are none."""
        import torch

        if not statistics:
            return None
        rows = sorted(statistics)
        masses, sinks = zip(*(statistics[row].masses.cpu().max(1) for row in rows))
        sum_error = torch.stack([statistics[row].sum_error.cpu() for row in rows])
        if bool((sum_error > _SUM_ERROR).any()):
            raise RuntimeError(
                f"words and groups add up to 1 but for {float(sum_error.max()):g} at a position; expected less than "
                f"{_SUM_ERROR:g}: this is an error of attnkit"
            )
        return cls(
            blocks=[blocks[row] for row in rows],
            heads=heads,
            entropy=torch.stack([statistics[row].entropy.cpu() for row in rows]),
            sink_key=torch.stack(sinks),
            sink_mass=torch.stack(masses),
            sum_error=sum_error,
        )


class Beside:
    """Does something with each step, in order, on a thread of its own; what fails there is raised here.

    None waits while another is worked on, so that a slow disk slows the generation.
    """

    def __init__(self, work: Callable[[CapturedStep], None]) -> None:
        self._work = work
        self._waiting: queue.Queue[CapturedStep | None] = queue.Queue()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="attnkit capture", daemon=True)
        self._thread.start()

    def put(self, step: CapturedStep) -> None:
        """Hands a step over, once the one before it is done."""
        self._waiting.join()
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
            self._waiting.task_done()

    def _raise(self) -> None:
        if self._failed is not None:
            raise self._failed


def metadata_of(step: CapturedStep) -> dict[str, Any]:
    """What is told of a step beside what a video's steps have in common."""
    told: dict[str, Any] = {
        "call": step.call,
        "negative_prompt": step.negative_prompt,
        "model": step.model,
        "guidance_scale": step.guidance_scale,
        "text_length": step.text_length,
        "skipped": step.skipped or None,
        "block_idx": step.blocks,
        "head_idx": step.heads,
        "weighting": step.weighting,
        **step.origin,
    }
    if step.text_share is not None:
        share = [[round(head, 6) for head in block] for block in step.text_share.tolist()]
        told |= {"attention": "joint", "renormalised": False, "text_share": share}
    return {key: value for key, value in told.items() if value is not None}


def metadata_of_word(word: TrackedWord) -> dict[str, Any]:
    """What is told of a word at each of its steps."""
    # Padding is hundreds of positions, one behind the other.
    positions = {} if word.word.endswith(":pad") else {"positions": word.positions}
    return {**positions, "pieces": len(word.positions), "pooling": word.pooling}


class StoreOfVideos:
    """A store that videos are written into, several at a time. Maps that nobody else has are written without a copy."""

    def __init__(self, path: str, options: dict[str, Any], metadata: dict[str, Any], *, is_alone: bool) -> None:
        self._path, self._options, self._metadata, self._is_alone = path, options, metadata, is_alone
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
        lossy = {} if step.pooled is None else {"attnkit": {"lossy": step.pooled.lossy}}
        with writer.step(step.step, step.timestep, metadata={**metadata_of(step), **lossy}) as of_step:
            for word in step.words:
                maps = step.maps[word.word].numpy()
                if self._is_alone:
                    maps.flags.writeable = False
                of_step.append(
                    word.word,
                    maps,
                    weight=word.weight,
                    token_ids=word.token_ids,
                    token_texts=word.token_texts,
                    metadata=metadata_of_word(word),
                )
            if step.text is not None:
                text = step.text
                of_step.text(
                    step.call,
                    text.entropy,
                    text.sink_key,
                    text.sink_mass,
                    sum_error=text.sum_error,
                    blocks=text.blocks,
                    heads=text.heads,
                )

    def close(self, *, interrupted: bool = False) -> None:
        """Ends the writing of all videos."""
        for writer in self._writers.values():
            writer.close()
