"""From dumps to a store."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Union, overload

from . import _check, _native
from ._progress import Progress, following
from ._shared import takes
from .reports import DryRun, IngestReport

if TYPE_CHECKING:
    from typing_extensions import Unpack

Path = Union[str, "os.PathLike[str]"]
# Those of float64 go on to 51.
Codec = Literal[
    "fast", "balanced", "small", "none",
    "lossy:bits=1", "lossy:bits=2", "lossy:bits=3", "lossy:bits=4", "lossy:bits=5", "lossy:bits=6", "lossy:bits=7",
    "lossy:bits=8", "lossy:bits=9", "lossy:bits=10", "lossy:bits=11", "lossy:bits=12", "lossy:bits=13",
    "lossy:bits=14", "lossy:bits=15", "lossy:bits=16", "lossy:bits=17", "lossy:bits=18", "lossy:bits=19",
    "lossy:bits=20", "lossy:bits=21", "lossy:bits=22",
]  # fmt: skip

#: What is passed on where nothing is said.
DEFAULTS: Mapping[str, Any] = {
    "codec": "balanced",
    "rollups": "auto",
    "videos": (),
    "tokens": (),
    "average": (),
    "replace": False,
    "pack": True,
    "single_writer": False,
    "on_error": "quarantine",
}


class IngestOptions(TypedDict, total=False):
    """How dumps become a store.

    Parameters
    ----------
    codec : str
        Compression: `fast` (lz4), `balanced` (zstd 1), `small` (zstd 9) or `none`, which lose nothing; or
        `lossy:bits=7`, say, which rounds each value to 7 bits of its fraction, of which float16 has 10 and float32 23,
        and is `balanced` otherwise. How far values are from what they were is in the columns `max_error` and
        `mean_error` of the `steps` table.
    rollups : str
        Which means over blocks, heads and both are stored too, so that questions for means are answered at once: `auto`
        (those that cost next to nothing; of a word that is in the store, those that it has), `all` or `none`.
    videos, tokens : str or sequence of str
        Globs of video ids and words; empty: all.
    every : int, optional
        Keep steps whose number is a multiple of this.
    downsample : int, optional
        Average-pool height and width of the grid by this factor (lossy).
    dtype : str, optional
        Convert to this type. Default: keep.
    batch : int or "mean", optional
        Element of a batch axis larger than 1.
    array : str, optional
        Name of the array to read of `.npz` files that hold several. Default: `attention`, or the only one that can be a
        step.
    average : str or sequence of str
        Average over `blocks`, `heads` or both (lossy).
    grid : tuple of int, optional
        (frames, height, width) of the maps, where metadata does not tell it.
    settings : path, optional
        YAML file of the generator with `attention_analysis_settings` to apply; arguments count more.
    prompts : path, optional
        The prompts that the videos were generated from, to fill the columns `template`, `variation` and `weight`:
        templates, one a line, or a JSON of variations. Default: what the generator left beside the maps.
    tokenizer : path, optional
        A `tokenizer.json` that the dump's token ids are checked against; disagreements are warnings.
    prefix : str, optional
        Put before every video id, with a `/`.
    replace : bool
        Replace what is in the store from another directory or with other settings.
    pack : bool
        Pack the tables at the end if 256 videos or more are in files of their own, as `Store.compact` does.
    single_writer : bool
        Promise that no other process writes into the store: it may be on a file system without locks then.
    threads : int, optional
        Default: one per core.
    on_error : str
        `quarantine`: leave out files that cannot be used, and report them; `raise`: stop at the first.
    max_step_bytes : int, optional
        Refuse step files that hold more once decompressed. Default: 2 GiB.
    """

    codec: Codec
    rollups: Literal["auto", "all", "none"]
    videos: str | Sequence[str]
    tokens: str | Sequence[str]
    every: int | None
    downsample: int | None
    dtype: Literal["float16", "float32"] | None
    batch: int | Literal["mean"] | None
    array: str | None
    average: Literal["blocks", "heads"] | Sequence[Literal["blocks", "heads"]]
    grid: tuple[int, int, int] | None
    settings: Path | None
    prompts: Path | None
    tokenizer: Path | None
    prefix: str | None
    replace: bool
    pack: bool
    single_writer: bool
    threads: int | None
    on_error: Literal["quarantine", "raise"]
    max_step_bytes: int | None


@overload
def ingest(
    dump: Path | Iterable[Path],
    store: Path,
    *,
    dry_run: Literal[False] = False,
    progress: Progress = False,
    **options: Unpack[IngestOptions],
) -> IngestReport: ...
@overload
def ingest(
    dump: Path | Iterable[Path],
    store: Path,
    *,
    dry_run: Literal[True],
    progress: Progress = False,
    **options: Unpack[IngestOptions],
) -> DryRun: ...
@overload
def ingest(
    dump: Path | Iterable[Path],
    store: Path,
    *,
    dry_run: bool,
    progress: Progress = False,
    **options: Unpack[IngestOptions],
) -> IngestReport | DryRun: ...
@takes(IngestOptions, IngestOptions.__doc__, DEFAULTS)
def ingest(
    dump: Path | Iterable[Path],
    store: Path,
    *,
    dry_run: bool = False,
    progress: Progress = False,
    **options: Unpack[IngestOptions],
) -> IngestReport | DryRun:
    """Convert a dump into a store. Lossless unless asked otherwise; run again, it goes on where it stopped.

    Parameters
    ----------
    dump : path or iterable of paths
        Directories that hold `prompt_000_vid001/token_flower/step_000.npy` and so on, there or below.
    store : path
        The store; created if it is not there.
    **options : see `IngestOptions`
    dry_run : bool
        Write nothing, and return what would be done.
    progress : bool, tqdm class or function of (done, all)
        Show or tell the progress, in bytes.

    Returns
    -------
    IngestReport
        With `dry_run`, a DryRun.

    Raises
    ------
    NotFoundError
        If there is no dump.
    StoreError
        If the store cannot be written.
    OSError, ValueError
        If the prompts or the tokenizer cannot be used.
    DumpError
        With `on_error="raise"`, if a file cannot be used.
    KeyboardInterrupt
        On Ctrl-C; what was committed stays.
    """
    with following(progress, "ingest") as report:
        work = _native.dry_run if dry_run else _native.ingest
        done = json.loads(work(_check.paths(dump), _check.path(store), _native_options(options), report))
    return DryRun(**done) if dry_run else IngestReport(**done)


@takes(IngestOptions, IngestOptions.__doc__, DEFAULTS)
def watch(
    dump: Path | Iterable[Path],
    store: Path,
    *,
    until_idle: float | timedelta | None = None,
    poll: float | timedelta = 2.0,
    progress: Progress = False,
    **options: Unpack[IngestOptions],
) -> IngestReport:
    """Convert a dump into a store while it is being written: each step once it is complete.

    A step is complete when it has its metadata and its files are the same at two looks. Ctrl-C ends it after what is
    being written, and is no error: the report says what was done until then. Directories that are not there yet are
    waited for.

    Parameters
    ----------
    dump : path or iterable of paths
        Directories that hold `prompt_000_vid001/token_flower/step_000.npy` and so on, or will.
    store : path
        The store; created if it is not there.
    until_idle : float or timedelta, optional
        End once nothing has changed for so many seconds. Default: only Ctrl-C ends it.
    poll : float or timedelta
        Seconds between two looks, at least.
    **options : see `IngestOptions`
    progress : bool, tqdm class or function of (done, all)
        Show or tell the progress: steps that are ingested, and those and the ones that are not complete yet.

    Returns
    -------
    IngestReport

    Raises
    ------
    NotFoundError
        If nothing has changed for `until_idle`, and there is no dump.
    StoreError
        If the store cannot be written.
    OSError, ValueError
        If the prompts or the tokenizer cannot be used.
    DumpError
        With `on_error="raise"`, if a file cannot be used.
    """
    idle = None if until_idle is None else _check.seconds("until_idle", until_idle)
    pause = _check.seconds("poll", poll)
    with following(progress, "watch", "step") as report:
        dumps, path = _check.paths(dump), _check.path(store)
        return IngestReport(**json.loads(_native.watch(dumps, path, _native_options(options), pause, idle, report)))


def _native_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options with every key, as native code takes them."""
    options = {name: given.get(name, DEFAULTS.get(name)) for name in IngestOptions.__annotations__}
    batch = options["batch"]
    positive = {name: _check.positive(name, options[name]) for name in ("every", "downsample")}
    return {
        **options,
        **positive,
        **{name: _check.names(name, options[name]) for name in ("videos", "tokens", "average")},
        **{name: _check.optional_path(options[name]) for name in ("settings", "prompts", "tokenizer")},
        "batch": None if batch is None else str(batch),
        "grid": _check.sizes("grid", options["grid"], "frames, height, width"),
        "threads": _check.positive("threads", options["threads"], least=0) or 0,
    }
