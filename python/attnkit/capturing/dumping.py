"""Captured steps as the documented dump: `<video_id>/token_<word>/step_000.npy`, with metadata and summaries.

Names and keys are those that `attnkit export` writes, so that an ingest has the same ids, words and weights.
"""

from __future__ import annotations

import filecmp
import gzip
import json
import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from .. import _check
from ..analyzer import AttentionAnalyzer
from ..errors import ExportError, NotFoundError
from ..writer import aggregation_method
from .wanted import TrackedWord
from .writing import CapturedStep, metadata_of, metadata_of_word

if TYPE_CHECKING:
    import torch

_TOKEN_PREFIX = "token_"
#: What names of files begin with that are not in their places yet: readers of dumps skip such names.
_STAGED = ".attnkit-"
_SUFFIXES = {"numpy": ".npy", "torch": ".pt"}
#: Of all files that hold a step.
_TENSORS = (".npy", ".npy.gz", ".npz", ".pt", ".pt.gz")
#: File systems take 255 bytes; export cuts longer ones and puts a hash behind.
_LONGEST_COMPONENT = 200
#: What systems leave in directories, and ingests ignore.
_FOREIGN = (
    *("__macosx", "__pycache__", "@eadir", "@recycle", "@sharebin", "@tmp", "#recycle", "#snapshot", "~snapshot"),
    *("$recycle.bin", "system volume information", "lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
)
#: Keys that steps of one word differ in.
_OF_STEP = ("step", "timestep", "model", "cfg_scale", "guidance_scale", "skipped")


@dataclass
class _Video:
    directory: Path
    words: dict[str, Path]
    #: Of its `summary.json`.
    summary: dict[str, Any]
    steps: set[int] = field(default_factory=set)
    is_summarised: bool = False


class DumpOfVideos:
    """A dump that videos are written into, several at a time.

    Every file is written beside its place, flushed, and put there whole, a step's metadata before its tensor: a step
    that is there is complete, whenever the process is killed. A video has a `summary.json` once it is finished.

    Parameters
    ----------
    path : str
        The directory of the videos' directories; created if it is not there.
    storage_format : str
        `numpy` or `torch`: `.npy` or `.pt` files.
    compress : bool
        Compress them with gzip.
    metadata : mapping, optional
        More to keep of each step: what JSON can hold.

    Raises
    ------
    ValueError
        If `path` is a store.
    """

    def __init__(
        self,
        path: str,
        *,
        storage_format: str = "numpy",
        compress: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        if storage_format not in _SUFFIXES:
            raise ValueError(f"storage_format: {storage_format!r} is neither numpy nor torch")
        if os.path.exists(os.path.join(path, "zarr.json")):
            raise ValueError(f"{path}: is a store; a dump is written elsewhere")
        _check.as_json("metadata", metadata or {})
        self._path, self._format, self._compress = Path(path), storage_format, compress
        self._more = dict(metadata or {})
        self._videos: dict[str, _Video] = {}

    def write(self, step: CapturedStep) -> None:
        """Writes the maps of a step.

        Raises
        ------
        ValueError
            If the video or a word can have no directory: see `directories_of`.
        ExportError
            If something else is there already: another run, the step with other values or in another format.
        OSError
            If it cannot be written.
        """
        video = self._videos.get(step.video_id)
        if video is None:
            directory = self._path.joinpath(*video_directory(step.video_id))
            video = self._videos[step.video_id] = _Video(directory, {}, self._summary(step))
        if any(word.word not in video.words for word in step.words):
            self._begin_words(video, step)
        for word in step.words:
            self._write_word(video.words[word.word], step, word)
        video.steps.add(step.step)
        if step.step == step.total_steps - 1:
            self._summarise(video)

    def close(self, *, interrupted: bool = False) -> None:
        """Writes the summaries of videos that have none, which says that they are finished; not if `interrupted`."""
        for video in self._videos.values():
            if not (interrupted or video.is_summarised):
                self._summarise(video)

    def _begin_words(self, video: _Video, step: CapturedStep) -> None:
        """Of the first step of a call."""
        names = directories_of([*video.words, *(word.word for word in step.words)])
        for word in step.words:
            video.words[word.word] = video.directory / names[word.word]
            video.words[word.word].mkdir(parents=True, exist_ok=True)
            _check_run(video.words[word.word], self._metadata(step, word))
            told = {"token_ids": word.token_ids, "positions": word.positions}
            video.summary["target_tokens"][word.word] = told

    def _write_word(self, directory: Path, step: CapturedStep, word: TrackedWord) -> None:
        stem = f"step_{step.step:03}"
        tensor = directory / f"{stem}{_SUFFIXES[self._format]}{'.gz' if self._compress else ''}"
        others = (directory / f"{stem}{suffix}" for suffix in _TENSORS)
        found = next((other for other in others if other != tensor and other.exists()), None)
        if found is not None:
            raise _in_the_way(found, f"is this step in another format; {tensor.name} was to be written")
        metadata = json.dumps(self._metadata(step, word), indent=2, ensure_ascii=False, allow_nan=False)
        _put(directory / f"{stem}_metadata.json", lambda file: file.write(metadata.encode()))
        _put(tensor, lambda file: self._save(step.maps[word.word], file))

    def _save(self, maps: torch.Tensor, file: IO[bytes]) -> None:
        if not self._compress:
            return self._save_plain(maps, file)
        # Without the time, so that the same maps are the same bytes.
        with gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
            self._save_plain(maps, packed)

    def _save_plain(self, maps: torch.Tensor, file: Any) -> None:
        if self._format == "numpy":
            return np.save(file, np.ascontiguousarray(maps.numpy()), allow_pickle=False)
        import torch

        # A view would be saved with all that it is a view of.
        torch.save(maps.clone(memory_format=torch.contiguous_format), file)

    def _metadata(self, step: CapturedStep, word: TrackedWord) -> dict[str, Any]:
        maps = step.maps[word.word]
        blocks, heads, spatial, _ = maps.shape
        frames, height, width = step.video_size or (None, None, None)
        return {
            **self._more,
            "video_id": step.video_id,
            "step": step.step,
            "timestep": step.timestep,
            "total_steps": step.total_steps,
            "token_word": word.word,
            "token_ids": word.token_ids,
            "token_texts": word.token_texts,
            "aggregation_method": aggregation_method(maps.shape, step.blocks, step.heads),
            "attention_shape": list(maps.shape),
            "spatial_resolution": [spatial, 1],
            "num_blocks": blocks,
            "num_heads": heads,
            "threshold_applied": None,
            "block_idx": step.blocks,
            "head_idx": step.heads,
            "dtype": str(maps.dtype),
            "prompt": step.prompt,
            "seed": step.seed,
            "cfg_scale": step.guidance_scale,
            "video_width": width,
            "video_height": height,
            "video_frames": frames,
            **metadata_of(step),
            **metadata_of_word(word),
            "attnkit": _beyond(step, word),
        }

    def _summary(self, step: CapturedStep) -> dict[str, Any]:
        maps = step.maps[step.words[0].word]
        return {
            "video_id": step.video_id,
            "prompt": step.prompt,
            "stored_steps": [],
            "total_stored": 0,
            "target_tokens": {},
            "storage_format": self._format,
            "compressed": self._compress,
            "config": {
                "storage_format": self._format,
                "compress_attention": self._compress,
                "storage_dtype": str(maps.dtype).removeprefix("torch."),
                "spatial_downsample_factor": 1 if step.pooled is None else step.pooled.factor,
                "store_per_block": maps.shape[0] > 1 or step.blocks is not None,
                "store_per_head": maps.shape[1] > 1 or step.heads is not None,
            },
        }

    def _summarise(self, video: _Video) -> None:
        path = video.directory / "summary.json"
        before = json.loads(path.read_bytes()) if path.exists() else {}
        # Of steps and words that were captured before.
        steps = sorted({*before.get("stored_steps", []), *video.steps})
        summary = {
            **video.summary,
            "stored_steps": steps,
            "total_stored": len(steps),
            "target_tokens": {**before.get("target_tokens", {}), **video.summary["target_tokens"]},
        }
        staged = _stage(path, lambda file: file.write(json.dumps(summary, indent=2, ensure_ascii=False).encode()))
        os.replace(staged, path)
        video.is_summarised = True


def directories_of(words: Iterable[str]) -> dict[str, str]:
    """The names of words' directories in a video.

    Raises
    ------
    ValueError
        If a word can have none, or two would get one: also where file systems ignore case, or how characters are
        composed.
    """
    names = {word: _TOKEN_PREFIX + _as_component("words", word) for word in words}
    taken: dict[str, str] = {}
    for word, name in names.items():
        other = taken.setdefault(unicodedata.normalize("NFC", name).lower(), word)
        if other != word:
            raise ValueError(
                f"words: {other!r} and {word!r} would be written into one directory, {name}: capture them into a "
                "store, or into two dumps"
            )
    return names


def video_directory(video_id: str) -> list[str]:
    """The directory of a video, below that of the dump: each part of its id, between `/`, is one.

    Raises
    ------
    ValueError
        If it can have none.
    """
    *above, last = (_as_component("video_id", part) for part in video_id.split("/"))
    # A directory of this name would be taken for a word's.
    return [*above, f"_{last}" if last.startswith(_TOKEN_PREFIX) else last]


def videos_of(path: str) -> list[tuple[str, str | None]]:
    """Ids and prompts of the videos that a dump has."""
    try:
        dump = AttentionAnalyzer(path)
    except (NotFoundError, FileNotFoundError):
        return []
    return [(video_id, dump.get_video_info(video_id)["prompt"]) for video_id in dump.get_available_videos()]


def _as_component(argument: str, name: str) -> str:
    """A name as one component of a path, as generators and `attnkit export` write it."""
    component = name.translate(dict.fromkeys(map(ord, ":/\\\0"), "_"))
    if not component.strip("."):
        component = "_" * len(component) + "_"
    if component.startswith(".") or component.lower() in _FOREIGN:
        component = f"_{component}"
    try:
        length = len(component.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{argument}: {name!r} has half a character (a lone surrogate)") from None
    if length > _LONGEST_COMPONENT:
        raise ValueError(
            f"{argument}: {name[:40]!r}… has {length} bytes, and a directory's name {_LONGEST_COMPONENT} at most: "
            "give it a shorter one, or capture into a store"
        )
    return component


def _beyond(step: CapturedStep, word: TrackedWord) -> dict[str, Any]:
    """What the generator's keys do not tell, as `attnkit export` writes it."""
    frames, height, width = step.grid
    # An ingest of several batches puts a batch's name before ids that directories tell, and only before these.
    is_told = video_directory(step.video_id) == [step.video_id] and not step.video_id.startswith("vid")
    return {
        **({} if is_told else {"video_id": step.video_id}),
        "token": word.word,
        **({} if word.weight is None else {"weight": word.weight}),
        "grid": {"frames": frames, "height": height, "width": width},
        **({} if step.pooled is None else {"lossy": step.pooled.lossy}),
    }


def _check_run(directory: Path, metadata: dict[str, Any]) -> None:
    """That the steps which are there are of the same run, and of the same word."""
    path = min(directory.glob("step_*_metadata.json"), default=None)
    if path is None:
        return
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise _in_the_way(path, f"is no JSON: {error}") from error
    # As they are read back.
    own = json.loads(json.dumps(metadata, allow_nan=False))
    other = next((key for key in own if key not in _OF_STEP and found.get(key) != own[key]), None)
    if other is not None:
        raise _in_the_way(path, f"is of another run: its {other} is {found.get(other)!r:.80}, now {own[other]!r:.80}")


def _in_the_way(path: Path, found: str) -> ExportError:
    return ExportError(f"{path}: {found}", "give the video another id with video_id=, or name another directory")


def _stage(path: Path, write: Callable[[IO[bytes]], Any]) -> Path:
    """Writes a file beside its place, and flushes it."""
    staged = path.with_name(f"{_STAGED}{os.getpid()}-{path.name}")
    try:
        with open(staged, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    return staged


def _put(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Puts a file in its place, whole, unless something is there: the same bytes are fine."""
    staged = _stage(path, write)
    try:
        try:
            os.link(staged, path)
        except FileExistsError:
            pass
        except OSError:
            # Not all file systems have links.
            if not path.exists():
                staged.rename(path)
                return
        if not filecmp.cmp(staged, path, shallow=False):
            raise _in_the_way(path, "is there with other contents")
    finally:
        staged.unlink(missing_ok=True)
