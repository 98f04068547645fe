"""Drawings: figures and films of what a store has."""

from __future__ import annotations

import base64
import inspect
import json
import os
import tempfile
from html import escape
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from . import _check, _native
from ._progress import Progress, following
from ._shared import takes
from .where import DEFAULTS, Asked, Where

if TYPE_CHECKING:
    from .ingest import Path
    from .store import Store

Kind = Literal["heatmap", "sheet", "heads", "evolution", "frames", "weights", "matrix", "compare"]
Axis = Literal["token", "step", "block", "head", "frame", "video", "prompt", "seed", "weight"]


class Look(TypedDict, total=False):
    """How drawings look."""

    colormap: str | None
    range: str | tuple[float, float] | None
    log: bool
    threshold: float | str | None
    normalise: Literal["sum", "max", "words"] | None
    scale: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None
    size: tuple[int, int] | None
    title: str | None
    dpi: float
    font_size: float
    dark: bool
    transparent: bool


class Drawn(Asked, Look, total=False):
    """Which maps, how they become one, and how they look."""


#: What is said where nothing else is.
USUAL: dict[str, Any] = {"log": False, "dpi": 192.0, "font_size": 9.0, "dark": False, "transparent": False}

LOOK = """How drawings look.

Parameters
----------
colormap : str, optional
    `viridis`, `magma`, `inferno`, `plasma`, `cividis`, `turbo`, `gray`, `coolwarm`, `rdbu` or `spectral`; default:
    viridis, of values below 0 coolwarm, centred on 0.
range : str or (low, high), optional
    Values that the colours stand for; default `"percentile:1:99"` of all that is shown. Also `"shown"` (lowest to
    highest), or `"frame"`, `"word"`, `"row"`: of each alone.
log : bool
    Colours (of curves: the y axis) follow the logarithm.
threshold : float or str, optional
    Nothing is shown where values are lower: a value, a percentile (`"p95"`) or `"mean"`.
normalise : str, optional
    Divide each map by its `"sum"`, its `"max"`, or at each position by the sum over the `"words"`.
scale : str, optional
    What lies between positions: `nearest`, `bilinear`, `bicubic` or `lanczos`.
size : (height, width), optional
    Of each map, in pixels.
title : str, optional
    What stands above; default: what the data say.
dpi, font_size : float
    Pixels to an inch; height of text in points.
dark, transparent : bool
    Light on dark; without a background.
"""


def _parameters(text: str | None) -> str:
    return inspect.cleandoc(text or "").partition("Parameters\n----------\n")[2].partition("\n\n")[0]


#: Shows what a drawing takes as arguments of a method.
draws = takes(
    Drawn, f"Parameters\n----------\n{_parameters(Where.__doc__)}\n{_parameters(LOOK)}", {**DEFAULTS, **USUAL}
)
#: The same of how it looks alone.
looks = takes(Look, LOOK, USUAL)


def look(given: Look) -> str:
    """A look as JSON."""
    style = {name: given[name] for name in ("dpi", "font_size", "dark", "transparent") if name in given}
    fields: dict[str, Any] = {"style": style}
    for name in ("colormap", "log", "normalise", "title"):
        if given.get(name) is not None:
            fields[name] = given[name]
    if given.get("scale") is not None:
        fields["filter"] = given["scale"]
    if given.get("threshold") is not None:
        fields["threshold"] = str(given["threshold"])
    if given.get("size") is not None:
        fields["size"] = _check.sizes("size", given["size"], "height, width")
    span = given.get("range")
    if span is not None:
        fields["range"] = span if isinstance(span, str) else ":".join(repr(float(end)) for end in span)
    return json.dumps(fields)


class Figure:
    """A drawing. In a notebook it is shown.

    Attributes
    ----------
    notes : list of str
        What one should know of it.
    """

    def __init__(self, figure: _native.Figure, notes: list[str]) -> None:
        self._figure = figure
        self.notes = notes

    def png(self) -> bytes:
        """As the bytes of a PNG file."""
        return self._figure.png()

    def svg(self) -> str:
        """As SVG, its text as text."""
        return self._figure.svg()

    def save(self, path: Path) -> None:
        """Write to a file: `.png`, `.svg` or `.webp`.

        Raises
        ------
        ValueError
            If the extension is another one.
        """
        target = FilePath(_check.path(path))
        match target.suffix.lower():
            case ".png":
                contents = self._figure.png()
            case ".webp":
                contents = self._figure.webp()
            case ".svg":
                contents = self._figure.svg().encode()
            case other:
                raise ValueError(f"{target}: {other or 'no extension'} is none of .png, .svg and .webp")
        replace(target, lambda staged: staged.write_bytes(contents))

    def _repr_png_(self) -> bytes:
        return self.png()

    def __repr__(self) -> str:
        return f"<attnkit.Figure: {self._figure.description}>"


class Film:
    """A film of maps, to be saved, or shown in a notebook.

    Attributes
    ----------
    notes : list of str
        What one should know of it; known once it was drawn.
    """

    def __init__(self, store: Store, film: str, look: str) -> None:
        self._store = store
        self._film = film
        self._look = look
        self.notes: list[str] = []

    def save(self, path: Path, progress: Progress = False) -> None:
        """Write to a file: `.gif`, `.png` (animated), `.webp`; with ffmpeg also `.mp4` and `.webm`.

        Parameters
        ----------
        path : path
            The file.
        progress : bool, tqdm class or function of (pictures done, pictures in all)
            Show or tell the progress.
        """
        target = FilePath(_check.path(path))

        def write(staged: FilePath) -> None:
            with following(progress, "film") as report:
                asked = (self._store._native, self._film, self._look, staged, target.name, report)
                _, _, self.notes = _native.film(*asked)

        replace(target, write)

    def _repr_html_(self) -> str:
        with tempfile.TemporaryDirectory() as place:
            path = FilePath(place, "film.webp")
            self.save(path)
            film = base64.b64encode(path.read_bytes()).decode()
        notes = f"<p>{escape('; '.join(self.notes))}</p>" if self.notes else ""
        return f'<img src="data:image/webp;base64,{film}" alt="a film of attention maps"/>{notes}'


def drawn(
    store: Store, kind: Kind | Literal["overlay"], fields: dict[str, Any], given: Look, progress: Progress
) -> Figure:
    """Draws what a store has."""
    asked = {"kind": kind, **{name: value for name, value in fields.items() if value is not None}}
    with following(progress, kind) as report:
        return Figure(*_native.figure(store._native, json.dumps(asked), look(given), report))


def backdrop(frames: Path) -> dict[str, str]:
    """Where the frames of a video are: in a directory, or in a video."""
    path = _check.path(frames)
    return {"directory" if os.path.isdir(path) else "video": os.fspath(path)}


def replace(target: FilePath, write: Any) -> None:
    """Has a file written beside its place, and put there."""
    handle, name = tempfile.mkstemp(prefix=".attnkit-", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    staged = FilePath(name)
    try:
        write(staged)
        staged.chmod(0o644)
        staged.replace(target)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
