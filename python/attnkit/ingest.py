"""From dumps to a store."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Union

from . import _check, _native
from ._progress import Progress, following

Path = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did.

    Attributes
    ----------
    ingested, skipped : int
        Steps that are new in the store, and those that were there already.
    quarantined : list of dict
        Files left out: `path`, `error`.
    warnings : list of dict
        Oddities of files that were used: `path`, `message`.
    prompts : dict, optional
        Videos whose prompt was found among those of their batch, and those whose was not: `matched`, `unmatched`. None if there were
        no prompts to look in.
    contents : dict
        What the store holds of the dump now: `videos`, different `words`, `prompts` and `seeds`, and videos `without_seed`.
    bytes_in, bytes_out : int
        Bytes of the ingested steps' files, and bytes written.
    seconds : float
        Wall time.
    """

    ingested: int
    skipped: int
    quarantined: list[dict[str, str]] = field(default_factory=list)
    warnings: list[dict[str, str]] = field(default_factory=list)
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    prompts: dict[str, int] | None = None
    contents: dict[str, int] | None = None

    def __repr__(self) -> str:
        return (
            f"<attnkit.IngestReport: {self.ingested} steps ingested, {self.skipped} already there, "
            f"{len(self.quarantined)} left out, {len(self.warnings)} warnings; "
            f"{self.bytes_in:,} bytes in, {self.bytes_out:,} out, {self.seconds:.1f} s>"
        )


def ingest(
    dump: Path | Iterable[Path],
    store: Path,
    *,
    codec: Literal["fast", "balanced", "small", "none"] = "balanced",
    rollups: bool = True,
    videos: str | Sequence[str] = (),
    tokens: str | Sequence[str] = (),
    every: int | None = None,
    downsample: int | None = None,
    dtype: Literal["float16", "float32"] | None = None,
    batch: int | Literal["mean"] | None = None,
    array: str | None = None,
    average: Literal["blocks", "heads"] | Sequence[Literal["blocks", "heads"]] = (),
    grid: tuple[int, int, int] | None = None,
    settings: Path | None = None,
    prompts: Path | None = None,
    tokenizer: Path | None = None,
    prefix: str | None = None,
    replace: bool = False,
    single_writer: bool = False,
    threads: int | None = None,
    on_error: Literal["quarantine", "raise"] = "quarantine",
    max_step_bytes: int | None = None,
    progress: Progress = False,
) -> IngestReport:
    """Convert a dump into a store. Lossless unless asked otherwise; interrupted, it goes on where it stopped when run again.

    Parameters
    ----------
    dump : path or iterable of paths
        Directories that hold `prompt_000_vid001/token_flower/step_000.npy` and so on, there or below.
    store : path
        The store; created if it is not there.
    codec : str
        Compression: `fast` (lz4), `balanced` (zstd 1), `small` (zstd 9) or `none`. Every codec is lossless.
    rollups : bool
        Store the means over blocks, heads and both too, so that questions for means are answered at once.
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
        Name of the array to read of `.npz` files that hold several. Default: `attention`, or the only one that can be a step.
    average : str or sequence of str
        Average over `blocks`, `heads` or both (lossy).
    grid : tuple of int, optional
        (frames, height, width) of the maps, where metadata does not tell it.
    settings : path, optional
        YAML file of the generator with `attention_analysis_settings` to apply; arguments count more.
    prompts : path, optional
        The prompts that the videos were generated from, to fill the columns `template`, `variation` and `weight`: templates, one a line,
        or a JSON of variations. Default: what the generator left beside the maps.
    tokenizer : path, optional
        A `tokenizer.json` that the dump's token ids are checked against; disagreements are warnings.
    prefix : str, optional
        Put before every video id, with a `/`.
    replace : bool
        Replace what is in the store from another directory or with other settings.
    single_writer : bool
        Promise that no other process writes into the store: it may be on a file system without locks then.
    threads : int, optional
        Default: one per core.
    on_error : str
        `quarantine`: leave out files that cannot be used, and report them; `raise`: stop at the first.
    max_step_bytes : int, optional
        Refuse step files that hold more once decompressed. Default: 2 GiB.
    progress : bool, tqdm class or function of (done, all)
        Show or tell the progress, in bytes.

    Returns
    -------
    IngestReport

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
    dumps = [_check.path(one) for one in ([dump] if isinstance(dump, (str, os.PathLike)) else dump)]
    options: dict[str, Any] = {
        "codec": codec,
        "rollups": rollups,
        "videos": _check.names(videos),
        "tokens": _check.names(tokens),
        "every": _check.positive("every", every),
        "downsample": _check.positive("downsample", downsample),
        "dtype": dtype,
        "batch": None if batch is None else str(batch),
        "array": array,
        "average": _check.names(average),
        "grid": _check.sizes("grid", grid, "frames, height, width"),
        "settings": _check.optional_path(settings),
        "prompts": _check.optional_path(prompts),
        "tokenizer": _check.optional_path(tokenizer),
        "prefix": prefix,
        "replace": replace,
        "single_writer": single_writer,
        "threads": _check.positive("threads", threads, least=0) or 0,
        "on_error": on_error,
        "max_step_bytes": max_step_bytes,
    }
    with following(progress, "ingest") as report:
        text = _native.ingest(dumps, _check.path(store), options, report)
    return IngestReport(**json.loads(text))
