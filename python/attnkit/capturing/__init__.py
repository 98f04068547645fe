"""Cross-attention maps out of a pipeline of diffusers, while it generates."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from .. import _check
from ..ingest import Path
from ..tokenizing import emphasised, tokens, weighted
from .videos import VideoId, VideoIds
from .writing import Beside, CapturedStep, StoreOfVideos, TrackedWord

if TYPE_CHECKING:
    import torch

__all__ = ["Capture", "CapturedStep", "TrackedWord", "capture"]

#: Oldest versions that are known to do.
_NEEDED = {"torch": "2.4", "diffusers": "0.35"}


@dataclass(frozen=True)
class _Target:
    """What is wanted of one video of a run."""

    prompt: str | None
    words: list[TrackedWord]
    #: Of all words, ascending.
    positions: list[int]


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
        words: list[tuple[str, float | None]] | None,
        positions: dict[str, list[int]],
        prompt: str | None,
        occurrence: int | Literal["all"],
        blocks: Sequence[int] | None,
        heads: Sequence[int] | None,
        wants: Callable[[int], bool],
        dtype: str,
        average: set[str],
        ids: VideoIds,
        store: StoreOfVideos | None,
        on_step: Callable[[CapturedStep], None] | None,
    ) -> None:
        self.videos: list[str] = []
        self._pipe, self._words, self._fixed, self._prompt = pipe, words, positions, prompt
        self._occurrence, self._dtype, self._average, self._ids = occurrence, dtype, average, ids
        self._chosen = {"blocks": blocks, "heads": heads}
        self._wants, self._store, self._on_step = wants, store, on_step
        self._targets: list[_Target] = []
        #: Their ids, once the first transformer runs: prompts may be encoded for another run, too.
        self._video_ids: list[str] = []
        self._seeds: list[int | None] = []
        self._beside: Beside | None = None

    def __enter__(self) -> Capture:
        from . import hooks

        self._attached = hooks.attach(self._pipe, self)
        if self._store is not None:
            self._beside = Beside(self._store.write)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._attached.close()
        try:
            if self._beside is not None:
                self._beside.close()
        except BaseException as failed:
            # It is what ended the generation, where that went on to another step.
            if failed is not error:
                raise
        finally:
            if self._store is not None:
                self._store.close()

    def __repr__(self) -> str:
        return f"<attnkit.Capture of {type(self._pipe).__name__}: {len(self.videos)} videos>"

    # What the hooks tell and ask.

    def _numbers(self, axis: str, count: int) -> list[int]:
        """The blocks or heads that are wanted of so many."""
        chosen = self._chosen[axis]
        if chosen is None:
            return list(range(count))
        beyond = [number for number in chosen if not 0 <= number < count]
        if beyond:
            raise ValueError(f"{axis}: {beyond} are not among the model's, 0 to {count - 1}")
        return list(chosen)

    def _torch_dtype(self) -> torch.dtype:
        import torch

        return torch.float16 if self._dtype == "float16" else torch.float32

    def _begin_run(
        self, prompts: str | list[str] | None, embedded: int | None, each: int, max_length: int | None
    ) -> None:
        """The pipeline was called: what is wanted is found, or refused, before anything is computed."""
        known = self._prompt if prompts is None else prompts
        if known is None and self._words != []:
            raise ValueError(
                "the pipeline gets prompt_embeds: say what they stand for with prompt=, or which rows are wanted with "
                "positions= and words=[]"
            )
        texts: list[str | None] = [known] if known is None or isinstance(known, str) else list(known)
        if embedded is not None:
            # Embeddings hold the repeats already.
            texts = [text for text in texts for _ in range(max(1, embedded // len(texts)))]
        else:
            texts = [text for text in texts for _ in range(each)]
        wanted = {text: self._wanted(text, max_length) for text in dict.fromkeys(texts)}
        self._seeds = [None] * len(texts)
        self._video_ids, self._targets = [], []
        for text in texts:
            positions = sorted({position for word in wanted[text] for position in word.positions})
            self._targets.append(_Target(text, wanted[text], positions))

    def _wanted(self, prompt: str | None, max_length: int | None) -> list[TrackedWord]:
        from .hooks import clean_prompt

        found = [TrackedWord(name, None, positions) for name, positions in self._fixed.items()]
        if prompt is None or self._words == []:
            return found
        asked = emphasised(prompt) if self._words is None else self._words
        if not asked and not found:
            raise ValueError(f"words: {prompt!r} has no word in parentheses; name those to capture with words=[...]")
        clean = clean_prompt(self._pipe)
        cut = tokens(self._pipe.tokenizer, clean(prompt), [clean(word) for word, _ in asked], max_length=max_length)
        for (word, weight), where in zip(asked, cut.words):
            places = where.occurrences
            if not places:
                raise ValueError(f"words: {cut.prompt!r} has no word {word!r}{_near(word, cut.prompt)}")
            if self._occurrence != "all" and self._occurrence >= len(places):
                raise ValueError(
                    f"occurrence: {word!r} is in {cut.prompt!r} {len(places)} times, and {self._occurrence} is asked "
                    "for, counted from 0"
                )
            chosen = places if self._occurrence == "all" else [places[self._occurrence]]
            rows = [row for place in chosen for row in place]
            ids, texts = [cut.ids[row] for row in rows], [cut.pieces[row] for row in rows]
            found.append(TrackedWord(word, weight, rows, ids, texts))
        names = [word.word for word in found]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"words: {', '.join(twice)} is asked for twice")
        return found

    def _seed(self, generator: Any, has_latents: bool) -> None:
        """The seeds of the videos, where each has a generator of its own that made nothing yet."""
        generators = generator if isinstance(generator, list) else [generator]
        if not has_latents and len(generators) == len(self._targets):
            self._seeds = [None if one is None else _fresh_seed(one) for one in generators]

    def _step(self) -> int:
        # None before the first step.
        return getattr(self._pipe.scheduler, "step_index", None) or 0

    def _begin_step(self) -> bool:
        """A transformer begins a step, with the first of which the videos get their ids: whether maps are wanted."""
        if not self._video_ids:
            self._video_ids = [self._ids.give(target.prompt or "") for target in self._targets]
            self.videos += self._video_ids
        return self._wants(self._step())

    def _end_step(
        self, model: str, grid: tuple[int, int, int], latents: tuple[int, int, int], maps: list[torch.Tensor]
    ) -> None:
        """A transformer ran: its maps go where they are wanted."""
        step = self._step()
        timesteps = self._pipe.scheduler.timesteps
        scale = "guidance_scale_2" if model == "transformer_2" else "guidance_scale"
        guidance = getattr(self._pipe, f"_{scale}", None)
        for video_id, target, seed, of_video in zip(self._video_ids, self._targets, self._seeds, maps):
            at = {position: column for column, position in enumerate(target.positions)}
            captured = CapturedStep(
                video_id=video_id,
                prompt=target.prompt,
                seed=seed,
                step=step,
                timestep=float(timesteps[step]),
                total_steps=len(timesteps),
                guidance_scale=None if guidance is None else float(guidance),
                model=model,
                grid=grid,
                video_size=self._video_size(latents),
                words=target.words,
                maps={word.word: of_video[..., [at[position] for position in word.positions]] for word in target.words},
                blocks=self._listed("blocks"),
                heads=self._listed("heads"),
            )
            if self._on_step is not None:
                self._on_step(captured)
            if self._beside is not None:
                self._beside.put(captured)

    def _listed(self, axis: str) -> list[int] | None:
        """The numbers along an axis of the maps, where they are chosen ones."""
        chosen = self._chosen[axis]
        return None if chosen is None or axis in self._average else list(chosen)

    def _video_size(self, latents: tuple[int, int, int]) -> tuple[int, int, int] | None:
        of_time = getattr(self._pipe, "vae_scale_factor_temporal", None)
        of_space = getattr(self._pipe, "vae_scale_factor_spatial", None)
        if of_time is None or of_space is None:
            return None
        frames, height, width = latents
        return (frames - 1) * of_time + 1, height * of_space, width * of_space


def capture(
    pipe: Any,
    store: Path | None = None,
    words: str | Iterable[str] | None = None,
    *,
    positions: Mapping[str, Sequence[int]] | None = None,
    prompt: str | None = None,
    occurrence: int | Literal["all"] = 0,
    blocks: Iterable[int] | None = None,
    heads: Iterable[int] | None = None,
    steps: Iterable[int] | None = None,
    every: int = 1,
    dtype: Literal["float16", "float32"] = "float16",
    average: Literal["blocks", "heads"] | Iterable[Literal["blocks", "heads"]] = (),
    video_id: VideoId = None,
    on_step: Callable[[CapturedStep], None] | None = None,
    codec: Literal["fast", "balanced", "small", "none"] = "balanced",
    rollups: bool = True,
    metadata: Mapping[str, Any] | None = None,
    single_writer: bool = False,
) -> Capture:
    """Stores the cross-attention maps of words while a pipeline of diffusers generates.

    What is stored is the softmax of the conditional call, over all of the text axis, for each step, block and head. The
    pipeline's output is the same, to the bit, with and without capture.

    Parameters
    ----------
    pipe : pipeline of diffusers
        For WAN 2.1 or 2.2, VACE or SkyReels-V2.
    store : path, optional
        The store; created if it is not there. Each step is committed as it ends.
    words : str or sequence of str, optional
        Words of the prompt, or several words in a row; `(flower:2.5)` is stored with its weight. Default: those that
        the prompt has in parentheses. A word that the prompt lacks is refused before anything is computed.
    positions : mapping, optional
        Of names, rows of the text axis, for embeddings that were made elsewhere.
    prompt : str, optional
        What the embeddings stand for, where the pipeline gets `prompt_embeds`.
    occurrence : int or "all"
        Which of equal words; 0 is the first.
    blocks, heads, steps : sequence of int, optional
        Only these.
    every : int
        Only steps whose number is a multiple of this.
    dtype : str
        Of the stored maps, which are computed in float32: `float16` or `float32`.
    average : str or sequence of str
        Average over `blocks`, `heads` or both.
    video_id : str, sequence of str or function of (prompt, number), optional
        Default: `prompt_000_vid001`, … behind those of the store.
    on_step : function of CapturedStep, optional
        Called with each step of each video, instead of a store or beside it.
    codec, rollups, single_writer
        As for `attnkit.StoreWriter`.
    metadata : mapping, optional
        More to keep of each step: what JSON can hold.

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
    if dtype not in ("float16", "float32"):
        raise ValueError(f"dtype: {dtype!r} is neither float16 nor float32")
    averaged = set(_check.names("average", average))
    if not averaged <= {"blocks", "heads"}:
        raise ValueError(f"average: {sorted(averaged - {'blocks', 'heads'})} are neither blocks nor heads")
    if occurrence != "all":
        _check.within("occurrence", occurrence, 0, 2**31)
    chosen = {
        name: None if numbers is None else [_check.within(name, number, 0, 2**31) for number in numbers]
        for name, numbers in {"blocks": blocks, "heads": heads, "steps": steps}.items()
    }
    for name, numbers in chosen.items():
        if numbers is not None and (not numbers or len(set(numbers)) < len(numbers)):
            raise ValueError(f"{name}: {numbers} are to be different numbers, at least one")
    asked = None if words is None else [weighted(word) for word in _check.names("words", words)]
    if asked == [] and not positions:
        raise ValueError("words: none, and no positions either")
    fixed = {
        name: [_check.within("positions", row, 0, 2**31) for row in rows] for name, rows in (positions or {}).items()
    }
    interval, only = _check.positive("every", every) or 1, chosen["steps"]
    path = None if store is None else _check.path(store)
    options = {"codec": codec, "rollups": rollups, "single_writer": single_writer}
    return Capture(
        pipe,
        asked,
        fixed,
        prompt,
        occurrence,
        chosen["blocks"] and sorted(chosen["blocks"]),
        chosen["heads"] and sorted(chosen["heads"]),
        lambda step: step % interval == 0 and (only is None or step in only),
        dtype,
        averaged,
        VideoIds(video_id, path),
        None if path is None else StoreOfVideos(path, options, dict(metadata or {})),
        on_step,
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


def _near(word: str, prompt: str) -> str:
    """A word of the prompt that differs only in its capitals."""
    found = re.search(re.escape(word), prompt, re.IGNORECASE)
    if found is None:
        return ""
    at = found[0]
    return f" (did you mean {at!r}?)" if at != word else f": {at!r} is a part of another word"


def _fresh_seed(generator: Any) -> int | None:
    """The seed of a generator that made nothing yet: of one that did, it does not tell what comes."""
    import torch

    seed = int(generator.initial_seed())
    fresh = torch.Generator(generator.device).manual_seed(seed)
    return seed if torch.equal(fresh.get_state(), generator.get_state()) else None
