"""Cross-attention maps out of a pipeline of diffusers, while it generates."""

from __future__ import annotations

import importlib
import itertools
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from .. import _check
from .._native import __version__
from ..ingest import Codec, Path
from ..prompts import Prompt
from . import weighting
from .dumping import DumpOfVideos, directories_of, videos_of
from .options import Options
from .run import Run
from .settings import Settings, read_settings
from .videos import VideoId, VideoIds, videos_of_store
from .wanted import TrackedWord, named_for
from .writing import RESERVED, Beside, CapturedStep, StoreOfVideos, TextOfStep

if TYPE_CHECKING:
    from .hooks import Forward
    from .maps import Maps

__all__ = ["Capture", "CapturedStep", "TextOfStep", "TrackedWord", "capture"]

#: Oldest versions that are known to do.
_NEEDED = {"torch": "2.4", "diffusers": "0.33"}
#: Libraries whose versions are told.
_LIBRARIES = ("torch", "diffusers", "transformers")
#: What settings can say, and what holds where neither they nor arguments do.
_SETTABLE: Mapping[str, Any] = {
    "every": 1,
    "dtype": "float16",
    "average": (),
    "downsample": 1,
    "storage_format": "numpy",
    "compress_attention": False,
}


class Capture:
    """Stores attention while a pipeline generates: see `attnkit.capture`.

    Attributes
    ----------
    videos : list of str
        Ids of the videos that were captured, in the order in which they were begun.
    """

    def __init__(
        self,
        pipe: Any,
        options: Options,
        ids: VideoIds,
        store: StoreOfVideos | DumpOfVideos | None,
        on_step: Callable[[CapturedStep], None] | None,
    ) -> None:
        self.videos: list[str] = []
        self._pipe, self._options, self._ids, self._store, self._on_step = pipe, options, ids, store, on_step
        #: The last call of the pipeline, and its number.
        self._last: Run | None = None
        self._runs = 0
        #: Whether a call of the pipeline began whose prompt was not encoded yet.
        self._begins = False
        #: Ids of its videos, once the first transformer runs: prompts may be encoded for another run, too.
        self._video_ids: list[str] = []
        self._weighting: str | None = None
        self._has_steps = False
        self._beside: Beside | None = None
        self._origin: dict[str, Any] = {}

    def __enter__(self) -> Capture:
        from . import hooks, joint

        attach = joint.attach if joint.understands(self._pipe) else hooks.attach
        self._begins = not hasattr(self._pipe, "check_inputs")
        self._attached = attach(self._pipe, self)
        if self._store is not None:
            self._beside = Beside(self._store.write)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._attached.close()
        interrupted = error is not None
        try:
            if self._beside is not None:
                self._beside.close()
        except BaseException as failed:
            interrupted = True
            # It is what ended the generation, where that went on to another step.
            if failed is not error:
                raise
        finally:
            if self._store is not None:
                self._store.close(interrupted=interrupted)
        if not (self._has_steps or interrupted):
            warnings.warn(
                f"nothing was captured: {type(self._pipe).__name__} was not called in the block, or made no step that "
                "was asked for",
                stacklevel=2,
            )

    def __repr__(self) -> str:
        return f"<attnkit.Capture of {type(self._pipe).__name__}: {len(self.videos)} videos>"

    # What the hooks tell and ask.

    @property
    def _run(self) -> Run:
        if self._last is None:
            raise RuntimeError("the transformer runs, and no prompt was encoded since the capture began")
        return self._last

    def _begin_run(self, given: Mapping[str, Any]) -> None:
        """The pipeline encodes its prompts: what is wanted is found, or refused, before anything is computed."""
        self._runs, self._video_ids = self._runs + 1, []
        self._last = Run(self._pipe, self._options, given)
        self._origin = _origin(self._pipe)
        if isinstance(self._store, DumpOfVideos):
            for of_video in itertools.chain(*self._run.wanted.values()):
                directories_of(word.word for word in of_video.words)

    def _step(self) -> int:
        scheduler = self._pipe.scheduler
        step = getattr(scheduler, "step_index", None)
        if step is not None:
            return int(step)
        # Before the first step, or of a scheduler that does not count them, as CogVideoX's.
        current = getattr(self._pipe, "_current_timestep", None)
        found = [] if current is None else (scheduler.timesteps == current).nonzero().flatten().tolist()
        if not found and not hasattr(scheduler, "step_index"):
            raise RuntimeError(
                f"{type(scheduler).__name__} does not tell which step it is at, and nor does the pipeline"
            )
        return found[0] if found else getattr(scheduler, "begin_index", None) or 0

    def _begin_step(self) -> bool:
        """A transformer begins a step, with the first of which the videos get their ids: whether maps are wanted."""
        if not self._video_ids:
            run, variation = self._run, self._options.variation
            if variation is not None:
                self._weighting = weighting.applied(self._pipe, variation, run.texts, run.embeds)
            self._video_ids = [self._ids.give(prompt or "") for prompt in run.prompts]
            self.videos += self._video_ids
        step, count = self._step(), len(self._pipe.scheduler.timesteps)
        beyond = [wanted for wanted in sorted(self._options.steps or ()) if wanted >= count]
        if beyond:
            raise ValueError(f"steps: {beyond} are beyond the schedule, which has {count}, counted from 0")
        return self._options.wants(step)

    def _end_forward(self, forward: Forward, maps: list[Maps]) -> None:
        """A transformer ran: its maps go where they are wanted."""
        run, step, self._has_steps = self._run, self._step(), True
        timesteps = self._pipe.scheduler.timesteps
        scale = "guidance_scale_2" if forward.model == "transformer_2" else "guidance_scale"
        guidance = getattr(self._pipe, f"_{scale}", None)
        for video, of_video in enumerate(maps):
            words, found = of_video.columns.words, of_video.finish()
            named = named_for(forward.call, words)
            captured = CapturedStep(
                video_id=self._video_ids[video],
                prompt=run.prompts[video],
                negative_prompt=run.negative_prompts[video],
                seed=run.seeds[video],
                step=step,
                timestep=float(timesteps[step]),
                total_steps=len(timesteps),
                guidance_scale=None if guidance is None else float(guidance),
                model=forward.model,
                call=forward.call,
                grid=forward.grid if of_video.pooled is None else of_video.pooled.grid,
                video_size=self._video_size(forward.latents),
                words=named,
                maps={name.word: found[word.word] for name, word in zip(named, words)},
                blocks=self._options.listed("blocks"),
                heads=self._options.listed("heads"),
                text_length=run.wanted[forward.call][video].length,
                skipped=forward.skipped,
                text=TextOfStep.of(of_video.statistics, forward.blocks, forward.heads),
                origin=self._origin,
                weighting=self._weighting,
                text_share=of_video.text_share(),
                pooled=of_video.pooled,
            )
            if self._on_step is not None:
                self._on_step(captured)
            if self._beside is not None:
                self._beside.put(captured)

    def _video_size(self, latents: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
        of_time = getattr(self._pipe, "vae_scale_factor_temporal", None)
        of_space = getattr(self._pipe, "vae_scale_factor_spatial", None)
        if of_time is None or of_space is None or latents is None:
            return None
        frames, height, width = latents
        return (frames - 1) * of_time + 1, height * of_space, width * of_space


def capture(
    pipe: Any,
    store: Path | None = None,
    words: str | Iterable[str] | None = None,
    *,
    calls: Literal["cond", "uncond"] | Iterable[Literal["cond", "uncond"]] = ("cond",),
    negative_words: str | Iterable[str] = (),
    groups: bool = False,
    positions: Mapping[str, Sequence[int]] | None = None,
    prompt: str | Sequence[str] | None = None,
    occurrence: int | Literal["all"] = 0,
    pooling: Literal["each", "sum"] = "each",
    blocks: int | Iterable[int] | None = None,
    heads: int | Iterable[int] | None = None,
    steps: int | Iterable[int] | None = None,
    every: int | None = None,
    dtype: Literal["float16", "float32"] | None = None,
    average: Literal["blocks", "heads"] | Iterable[Literal["blocks", "heads"]] | None = None,
    downsample: int | None = None,
    settings: Settings | None = None,
    format: Literal["store", "dump"] = "store",
    storage_format: Literal["numpy", "torch"] | None = None,
    compress_attention: bool | None = None,
    video_id: VideoId = None,
    on_step: Callable[[CapturedStep], None] | None = None,
    codec: Codec = "balanced",
    rollups: Literal["auto", "all", "none"] = "auto",
    metadata: Mapping[str, Any] | None = None,
    single_writer: bool = False,
    variation: Prompt | None = None,
) -> Capture:
    """Stores the cross-attention maps of words while a pipeline of diffusers generates.

    What is stored is the softmax over all of the text axis, for each step, block and head; of joint attention, over
    text and image. The pipeline's output is the same, to the bit, with and without capture.

    Parameters
    ----------
    pipe : pipeline of diffusers
        For WAN 2.1 or 2.2, VACE, SkyReels-V2, LTX-Video, CogVideoX, Flux or Stable Diffusion 3.
    store : path, optional
        The store, or the directory of a dump; created if it is not there. Each step is committed as it ends.
    words : str or sequence of str, optional
        Words of the prompt, or several words in a row; `(flower:2.5)` is stored with its weight. Default: those that
        the prompt has in parentheses. A word that the prompt lacks is refused before anything is computed.
    calls : str or sequence of str
        Calls of classifier-free guidance: `cond`, with the prompt, `uncond`, with the negative prompt, or both. Words
        and groups of the latter are stored as `uncond:word`.
    negative_words : str or sequence of str
        Words of the negative prompt, for the unconditional call.
    groups : bool
        Capture all other keys too, as tokens of their own: `:eos`, the end token, `:rest`, the text that is in none of
        the words, and `:pad`, the padding behind the text. With the words their sum is 1 at each position. Statistics
        of the whole text axis go into the table `text`.
    positions : mapping, optional
        Of names, rows of the text axis, for embeddings that were made elsewhere.
    prompt : str or sequence of str, optional
        What the embeddings stand for, where the pipeline gets `prompt_embeds`: one text, or one for each of them.
    occurrence : int or "all"
        Which of equal words; 0 is the first.
    pooling : str
        Of a word of several pieces: `each`, a token for each of them, or `sum`, one token: the word's share. Questions
        that compare words take means over tokens.
    blocks, heads, steps : sequence of int, optional
        Only these.
    every : int, optional
        Only steps whose number is a multiple of this. Default: 1.
    dtype : str, optional
        Of the stored maps, which are computed in float32: `float16` (the default) or `float32`.
    average : str or sequence of str, optional
        Average over `blocks`, `heads` or both. Default: neither.
    downsample : int, optional
        Average height and width of the grid in squares of this size (lossy). Default: 1.
    settings : path or mapping, optional
        The generator's `attention_analysis_settings`, a YAML file or what it holds; arguments count more.
    format : str
        `store`, or `dump` for the documented directory of step files.
    storage_format, compress_attention : optional
        Of a dump: `numpy` (the default) or `torch` files, and whether they are compressed with gzip.
    video_id : str, sequence of str or function of (prompt, number), optional
        Default: `prompt_000_vid001`, … behind those of the store.
    on_step : function of CapturedStep, optional
        Called with each step of each video, instead of a store or beside it.
    codec, rollups, single_writer
        As for `attnkit.StoreWriter`.
    metadata : mapping, optional
        More to keep of each step: what JSON can hold. What attnkit tells itself cannot be said otherwise.
    variation : attnkit.Prompt, optional
        The prompt, one of those of a template, with its words and their weights; its template and its number are
        stored, too. The pipeline is to be called with `**variation.inputs(pipe)`. A word is captured where it is in
        parentheses, and videos are `prompt_007_vid001`, … by its id.

    Raises
    ------
    ImportError
        If torch or diffusers is missing or too old.
    TypeError
        If the pipeline is none whose attention is understood.

    Examples
    --------
    >>> with attnkit.capture(pipe, "maps.store", words=["flower", "tree"]):  # doctest: +SKIP
    ...     video = pipe(prompt="a flower near a tree").frames
    """
    _require_versions()
    if store is None and on_step is None:
        raise ValueError("store: name a store to write into, or a function that gets each step as on_step=")
    if format not in ("store", "dump"):
        raise ValueError(f"format: {format!r} is neither store nor dump")
    given = {
        "every": every,
        "dtype": dtype,
        "average": average,
        "downsample": downsample,
        "storage_format": storage_format,
        "compress_attention": compress_attention,
    }
    of_dumps = [name for name in ("storage_format", "compress_attention") if given[name] is not None]
    if of_dumps and format != "dump":
        raise ValueError(f'{of_dumps[0]}: is of a dump; say format="dump", too')
    said = {name: value for name, value in given.items() if value is not None}
    chosen = {**_SETTABLE, **({} if settings is None else read_settings(settings)), **said}
    options = Options.checked(
        words=words,
        negative_words=negative_words,
        positions=positions,
        prompt=prompt,
        occurrence=occurrence,
        pooling=pooling,
        calls=calls,
        groups=groups,
        blocks=blocks,
        heads=heads,
        steps=steps,
        every=chosen["every"],
        dtype=chosen["dtype"],
        average=chosen["average"],
        downsample=chosen["downsample"],
        variation=variation,
    )
    path = None if store is None else _check.path(store)
    if path is not None:
        _require_room(path, format)
    if on_step is not None and not callable(on_step):
        raise TypeError(f"on_step: {type(on_step).__name__} is no function")
    into: StoreOfVideos | DumpOfVideos | None = None
    if path is not None and format == "dump":
        if codec.startswith("lossy"):
            raise ValueError(f'codec: {codec} rounds what a store has; format="dump" keeps values as they are')
        kinds = {"storage_format": chosen["storage_format"], "compress": chosen["compress_attention"]}
        into = DumpOfVideos(path, metadata=metadata, **kinds)
    elif path is not None:
        of_writer: dict[str, Any] = {"codec": codec, "rollups": rollups, "single_writer": single_writer}
        if variation is not None:
            of_writer |= {name: getattr(variation, name) for name in ("prompt_id", "template", "variation")}
        into = StoreOfVideos(path, of_writer, dict(metadata or {}), is_alone=on_step is None)
    told = sorted(RESERVED & {*(metadata or {})})
    if told:
        raise ValueError(f"metadata: {told[0]!r} is what attnkit tells itself")
    of_path = videos_of if format == "dump" else videos_of_store
    ids = VideoIds(video_id, variation, lambda: [] if path is None else of_path(path))
    return Capture(pipe, options, ids, into, on_step)


def _require_room(path: str, format: str) -> None:
    """Refuses a path that nothing can be written into, before anything is computed."""
    if os.path.exists(path) and not os.path.isdir(path):
        raise ValueError(f"store: {path} is a file; expected a directory, or none yet")
    is_store = os.path.exists(os.path.join(path, "zarr.json"))
    # What a store is created with may be there before it is one.
    others = {*(os.listdir(path) if os.path.isdir(path) else ())} - {"maps", "index", ".writers"}
    if format == "store" and not is_store and any(not name.startswith(".zarr.json.") for name in others):
        raise ValueError(
            f'store: {path} is a directory with other things in it; format="dump" writes a dump, and attnkit.ingest '
            "makes a store of one"
        )


def _require_versions() -> None:
    for name, least in _NEEDED.items():
        try:
            version = importlib.import_module(name).__version__
        except ImportError as error:
            raise ImportError(f"attnkit.capture needs {name} {least} or later, which is not there: {error}") from error
        if _numbers_of(version) < _numbers_of(least):
            raise ImportError(f"attnkit.capture needs {name} {least} or later; found {version}")


def _numbers_of(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.split("+")[0])[:2]]


def _origin(pipe: Any) -> dict[str, Any]:
    """What runs: the scheduler, where the model is from, and the versions of the libraries."""
    versions = {"attnkit": __version__}
    for name in _LIBRARIES:
        version = getattr(importlib.import_module(name), "__version__", None)
        versions |= {} if version is None else {name: version}
    told = {
        "scheduler": type(pipe.scheduler).__name__,
        "model_id": getattr(pipe.config, "_name_or_path", None) or None,
        "library_versions": versions,
    }
    return {key: value for key, value in told.items() if value is not None}
