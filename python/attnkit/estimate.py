"""How large a dump and its store will be, before there is either."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from typing import Any, Literal, SupportsIndex

from . import _check, _native
from .ingest import Path

#: The most of steps, words and videos; of blocks and heads; of the axes of a grid and of a video in pixels.
_MOST, _MOST_MAPS, _MOST_PIXELS = 2**32 - 1, 2**16 - 1, 2**20


class Estimate:
    """Sizes of a dump and of its store, for each of the generator's settings.

    Attributes
    ----------
    settings : list of dict
        One for each choice of `store_per_block` and `store_per_head`, the smallest first: `shape` of a step,
        `step_bytes`, `word_bytes`, `video_bytes`, `values_bytes`, `times_smaller` than full detail, `dump_bytes`,
        `dump_files`, `store_files`, and `stores`: of each `codec`, `store_bytes` (of which `maps_bytes`,
        `rollups_bytes`, `tables_bytes`) and `ingest_seconds`.
    generation : dict
        What is estimated: `videos`, and `words` by kind.
    compression : list of dict
        What is assumed of each codec.
    """

    def __init__(self, estimate: dict[str, Any]) -> None:
        self._estimate = estimate
        self.settings: list[dict[str, Any]] = estimate["settings"]
        self.generation: dict[str, Any] = estimate["generation"]
        self.compression: list[dict[str, Any]] = estimate["compression"]

    def to_dict(self) -> dict[str, Any]:
        """All of it: what `attnkit estimate --json` prints."""
        return self._estimate

    def _rows(self) -> list[list[str]]:
        codecs = [of_codec["codec"] for of_codec in self.compression]
        stores = [f"store, {codec}" for codec in codecs]
        head = ["store_per_block", "store_per_head", "shape of a step", "dump", *stores]
        rows = [head]
        for setting in self.settings:
            switches = [str(setting[name]) for name in head[:2]]
            shape = " x ".join(map(str, setting["shape"]))
            sizes = [f"{store['store_bytes']:,}" for store in setting["stores"]]
            rows.append([*switches, shape, f"{setting['dump_bytes']:,}", *sizes])
        return rows

    def __repr__(self) -> str:
        rows = self._rows()
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows]
        return "\n".join([f"<attnkit.Estimate for {self.generation['videos']} videos, in bytes>", *lines])

    def _repr_html_(self) -> str:
        head, *rows = self._rows()
        cells = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        columns = "".join(f"<th>{name}</th>" for name in head)
        return f"<table><thead><tr>{columns}</tr></thead><tbody>{cells}</tbody></table>"


def estimate(
    dump: Path | None = None,
    *,
    model: Literal["wan2.1-1.3b", "wan2.1-14b", "wan2.2-5b"] | None = None,
    size: Sequence[SupportsIndex] | None = None,
    frames: SupportsIndex | None = None,
    blocks: SupportsIndex | None = None,
    heads: SupportsIndex | None = None,
    grid: Sequence[SupportsIndex] | None = None,
    steps: SupportsIndex | None = None,
    tokens: SupportsIndex | None = None,
    videos: SupportsIndex | None = None,
    dtype: Literal["float16", "bfloat16", "float32"] | None = None,
    throughput: float | None = None,
    rollups: Literal["auto", "all", "none"] = "auto",
) -> Estimate:
    """Say how large a dump and its store will be: of a model, of numbers, or of a dump that is there.

    Parameters
    ----------
    dump : path, optional
        A dump that is there: its shapes, steps, words and videos; how it compresses is measured on a few of its steps.
    model : str, optional
        `wan2.1-1.3b` (30 blocks x 12 heads), `wan2.1-14b` (40 x 40) or `wan2.2-5b` (30 x 24).
    size, frames : tuple of int, int, optional
        (height, width) of the model's videos in pixels, and their frames. Default: (480, 832) and 81.
    blocks, heads : int, optional
        Transformer blocks, and attention heads of each; with `grid` instead of a model.
    grid : tuple of int, optional
        (frames, height, width) of a map.
    steps, tokens, videos : int, optional
        Stored steps of a word, tracked words of a video, and videos. Default: 50, 1 and 1.
    dtype : str, optional
        Element type of the dump. Default: float16, or that of `dump`.
    throughput : float, optional
        Bytes of step files that an ingest takes in a second. Default: as measured for each codec on two cores.
    rollups : str
        Which means over blocks, heads and both the store keeps beside the maps: `auto`, `all` or `none`.

    Returns
    -------
    Estimate

    Raises
    ------
    NotFoundError
        If there is no dump.
    TypeError, ValueError
        If arguments do not go together, or cannot be.
    """
    maps = {"blocks": blocks, "heads": heads, "grid": grid}
    counts = {"steps": steps, "tokens": tokens, "videos": videos}
    pixels = {"size": size, "frames": frames}
    if dump is not None:
        _refuse("says nothing beside dump", {"model": model, **pixels, **maps, **counts})
    if model is not None:
        _refuse("says nothing beside model", maps)
    else:
        _refuse("is of a model's videos; there is no model", pixels)
    missing = [name for name, value in maps.items() if value is None]
    if dump is None and model is None and missing:
        raise ValueError(f"{', '.join(missing)}: missing; expected a dump, model=NAME, or blocks, heads and grid")
    if throughput is not None and not (math.isfinite(throughput) and 1e5 <= throughput < 1e15):
        raise ValueError(f"throughput: {throughput!r} is not a number of bytes a second, such as 500e6")
    sizes = {
        "model": model,
        "size": _axes("size", (480, 832) if size is None else size, "height, width"),
        "frames": _check.within("frames", 81 if frames is None else frames, 1, _MOST_PIXELS),
        "blocks": _check.within("blocks", 1 if blocks is None else blocks, 1, _MOST_MAPS),
        "heads": _check.within("heads", 1 if heads is None else heads, 1, _MOST_MAPS),
        "grid": _axes("grid", (1, 1, 1) if grid is None else grid, "frames, height, width"),
        "steps": _check.within("steps", 50 if steps is None else steps, 1, _MOST),
        "tokens": _check.within("tokens", 1 if tokens is None else tokens, 1, _MOST),
        "videos": _check.within("videos", 1 if videos is None else videos, 1, _MOST),
    }
    return Estimate(json.loads(_native.estimate(_check.optional_path(dump), sizes, dtype, throughput, rollups)))


def _refuse(why: str, given: dict[str, Any]) -> None:
    """Nothing is passed over in silence."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name}: {why}")


def _axes(name: str, numbers: Sequence[SupportsIndex], axes: str) -> tuple[int, ...]:
    found = _check.sizes(name, numbers, axes) or ()
    return tuple(_check.within(name, number, 1, _MOST_PIXELS) for number in found)
