"""What questions give: a table, and for map-valued questions the maps behind its rows."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, TypeVar

import numpy as np

from . import _check, _native
from .drawing import Figure, Look, looks, replace
from .drawing import look as as_json
from .ingest import Path

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow
    import torch
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from typing_extensions import Unpack

#: Rows shown where a result is only looked at.
ROWS_SHOWN = 10
#: Columns shown in a notebook.
COLUMNS_SHOWN = 20
#: Frames of a picture in a notebook, and rows of its pixels.
FRAMES_SHOWN, HEIGHT_SHOWN = 8, 1600

Array = np.ndarray[Any, Any]
Labelled = TypeVar("Labelled", "xarray.DataArray", "xarray.Dataset")


class _PlainStrings:
    """The Arrow stream of an answer with strings that every reader knows."""

    def __init__(self, answer: _native.Answer) -> None:
        self._answer = answer

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._answer.stream(False)


class Result:
    """A table, and the maps of its rows if they were asked for.

    It is an Arrow stream itself (PyCapsule interface), so that `polars.DataFrame(result)`, `pyarrow.table(result)` and
    DuckDB read its table without a copy.

    Attributes
    ----------
    keys : list of str
        Columns that tell the rows apart.
    notes : list of str
        What one should know of the answer.
    """

    def __init__(self, answer: _native.Answer) -> None:
        self._answer = answer
        self.keys = answer.keys
        self.notes = answer.notes

    # The table.

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return self._answer.columns

    def __len__(self) -> int:
        return self._answer.height

    def __getitem__(self, column: str) -> Array:
        """A column as a numpy array: numbers (NaN where null), times, or objects."""
        return _column(self._answer, column)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._answer.__arrow_c_stream__(requested_schema)

    def to_arrow(self) -> pyarrow.Table:
        """The table, for pyarrow. Numbers are not copied."""
        import pyarrow

        return pyarrow.table(_PlainStrings(self._answer))

    def to_polars(self) -> polars.DataFrame:
        """The table, for polars. Nothing is copied."""
        import polars

        return polars.DataFrame(self)

    def to_pandas(self) -> pandas.DataFrame:
        """The table, for pandas (through pyarrow). Seeds, which Arrow has as decimals, are integers: `int64`, or
        `uint64` for large ones.

        Where a seed is not known, they are pandas' `Int64` or `UInt64`, which have missing values without rounding the
        others.
        """
        import pandas
        import pyarrow

        arrow = self.to_arrow()
        table = arrow.to_pandas()
        for name in (field.name for field in arrow.schema if pyarrow.types.is_decimal(field.type)):
            known = [int(value) for value in table[name] if value is not None]
            kind = "int64" if all(value < 2**63 for value in known) else "uint64" if min(known) >= 0 else "object"
            if len(known) < len(table) and kind != "object":
                kind = {"int64": "Int64", "uint64": "UInt64"}[kind]
            values = [None if value is None else int(value) for value in table[name]]
            table[name] = pandas.Series(values, index=table.index, dtype=kind)
        return table

    # The maps.

    @property
    def maps(self) -> list[Array]:
        """The map of each row, float32, `[frame, height, width]` (`[spatial]` if the grid is unknown). Views, not
        copies.

        Raises
        ------
        ValueError
            If the question was not for maps.
        """
        values = self._answer.values
        if values is None:
            raise ValueError(f"this result is a table of {', '.join(self.columns)}; it has no maps")
        return [values[start:stop].reshape(shape) for start, stop, shape in self._answer.places]

    @property
    def has_maps(self) -> bool:
        """Whether there are maps behind the rows."""
        return self._answer.values is not None

    def to_numpy(self) -> Array:
        """The maps, stacked; of a table its rows.

        Returns
        -------
        array
            `[map, frame, height, width]` float32, or `[frame, height, width]` of a single map: a view, not a copy.
            Without maps, a structured array with a field for each column.

        Raises
        ------
        ValueError
            If the maps have different shapes.
        """
        if not self.has_maps:
            columns = [(name, self[name]) for name in self.columns]
            rows = np.empty(len(self), [(name, column.dtype) for name, column in columns])
            for name, column in columns:
                rows[name] = column
            return rows
        values, places = self._answer.values, self._answer.places
        assert values is not None
        shapes = {tuple(shape) for _, _, shape in places}
        if len(shapes) > 1:
            listed = ", ".join(" x ".join(map(str, shape)) for shape in sorted(shapes))
            raise ValueError(f"the maps have different shapes ({listed}); use `maps`, or select those of one shape")
        shape = shapes.pop() if shapes else (0,)
        if self._answer.kind == "map" and len(places) == 1:
            return values.reshape(shape)
        return values.reshape(len(places), *shape)

    def to_torch(self) -> torch.Tensor:
        """`to_numpy`, as a tensor that shares its memory."""
        import torch

        return torch.from_numpy(self.to_numpy())

    def to_xarray(self) -> xarray.DataArray | xarray.Dataset:
        """Labelled, with a dimension for each key.

        Returns
        -------
        DataArray
            Of maps: `[*keys, frame, height, width]`; combinations of keys that do not occur are NaN. A single map has
            its keys as coordinates without a dimension. Of a matrix of comparisons: `[metric, a, b]`.
        Dataset
            Of a table: a variable for each column that is no key. A table without keys has the dimension `row`.
        """
        import xarray

        attributes = {"notes": self.notes} if self.notes else {}
        keys = {key: self[key] for key in self.keys}
        if not self.has_maps:
            others = [name for name in self.columns if name not in keys]
            if not keys:
                return xarray.Dataset({name: ("row", self[name]) for name in others}, attrs=attributes)
            levels, places = _levels(keys)
            if self._answer.kind == "matrix":
                # The other columns are those that the rows are compared with.
                values = np.stack([_spread(self[name], levels, places) for name in others], axis=-1)
                return xarray.DataArray(values, {**levels, "b": levels["a"]}, ["metric", "a", "b"], "value", attributes)
            variables = {name: (list(keys), _spread(self[name], levels, places)) for name in others}
            return _without_token_index(xarray.Dataset(variables, coords=levels, attrs=attributes))
        maps = self.to_numpy()
        single = self._answer.kind == "map" and len(self) == 1
        axes = maps.shape if single else maps.shape[1:]
        names = ["frame", "height", "width"] if len(axes) == 3 else ["spatial"]
        positions = {name: np.arange(size) for name, size in zip(names, axes)}
        if single:
            labels = {key: ((), values[0]) for key, values in keys.items()}
            return xarray.DataArray(maps, {**labels, **positions}, names, name="attention", attrs=attributes)
        levels, places = _levels(keys)
        spread = _spread(maps, levels, places)
        dims = [*keys, *names]
        return _without_token_index(xarray.DataArray(spread, {**levels, **positions}, dims, "attention", attributes))

    # Files and looks.

    def write(self, path: Path, format: str | None = None) -> list[FilePath]:
        """Write to a file, in the format of its extension.

        Parameters
        ----------
        path : path
            `.csv`, `.json`, `.jsonl`, `.parquet`, `.arrow`, `.npy`, `.zarr`, `.png` or `.txt`. Parquet and Arrow have
            the maps in the column `values`; `.png` is for a single map.
        format : str, optional
            Where the extension does not tell it.

        Returns
        -------
        list of Path
            Files written beside it, such as the rows that belong to the maps of a `.npy`.
        """
        return self._answer.write(_check.path(path), format)

    @looks
    def save(self, path: Path, *, fps: float | None = None, **look: Unpack[Look]) -> None:
        """Write to a file: maps as a drawing or a film, anything else as `write` does.

        Parameters
        ----------
        path : path
            Of maps: `.png`, `.svg` or `.webp` for a drawing, frame beside frame; `.gif`, or with ffmpeg `.mp4` and
            `.webm`, for a film through their frames. Else a format of `write`.
        fps : float, optional
            Of films: pictures a second; default: 4.
        **look : how it looks
        """
        target = FilePath(_check.path(path))
        match target.suffix.lower():
            case ".png" | ".svg" | ".webp" if self.has_maps:
                Figure(_native.figure_of(self._answer, as_json(look)), self.notes).save(path)
            case ".gif" | ".mp4" | ".webm" if self.has_maps:
                film, style = self._answer, as_json(look)
                replace(target, lambda staged: _native.film_of(film, style, staged, target.name, fps))
            case _:
                self.write(path)

    def png(self, vmin: float | None = None, vmax: float | None = None, dpi: float = 192.0) -> bytes:
        """The drawing of a single map, frame beside frame, as the bytes of a PNG file.

        Parameters
        ----------
        vmin, vmax : float, optional
            Values of the first and the last colour, to make pictures comparable. Default: the 1st and the 99th
            percentile of the map. Maps with negative values, as differences are, go from blue through gray at 0 to red.
        dpi : float
            Pixels to an inch.

        Raises
        ------
        ValueError
            If there are several maps, or none.
        """
        maps = self.maps
        if len(maps) != 1 and not (maps and self._answer.kind == "map"):
            raise ValueError(f"a picture is of one map; there are {len(maps)}")
        look: Look = {"dpi": dpi}
        if vmin is not None or vmax is not None:
            low = min(float(np.nanmin(one)) for one in maps) if vmin is None else vmin
            high = max(float(np.nanmax(one)) for one in maps) if vmax is None else vmax
            look["range"] = (low, high)
        return _native.figure_of(self._answer, as_json(look)).png()

    def plot(
        self,
        ax: Axes | Iterable[Axes] | None = None,
        *,
        x: str | None = None,
        y: str | None = None,
        by: str | Sequence[str] | None = None,
        kind: Literal["scatter", "line", "bar"] | None = None,
        band: Literal["ci95", "sd", "range"] | None = "ci95",
        metric: str | Sequence[str] | None = None,
        frames: Sequence[SupportsIndex] | None = None,
        range: tuple[float, float] | None = None,
        cmap: str | Colormap | None = None,
        order: Literal["cluster"] | None = None,
    ) -> Axes | Array:
        """A figure of it, with matplotlib: what it is of decides what is drawn.

        - An evolution: a line over the steps for each word, block, head; of several videos their mean, with a band.
        - Maps: each frame a picture, row 0 at the top, all in one range of colours; what is not finite is grey.
        - A comparison: for each metric a line over the steps for each pair; bars where there are no steps; across
          weights a line over the weight. A matrix: for each metric a square of colours with the numbers in it.
        - Any other table, and the table of any result if `kind` is given: one column over another.

        Parameters
        ----------
        ax : Axes or iterable of Axes, optional
            Where to draw: as many as there are pictures or metrics. Default: a new figure of pyplot, which is not
            shown.
        x : str, optional
            Of an evolution `"step"` or `"timestep"`, of a comparison across weights `"weight"` or `"step"`; of a table
            a column.
        y : str, optional
            A column of numbers. Default for an evolution: `"entropy_norm"`.
        by : str or sequence of str, optional
            Columns with a line or colour for each combination of their values. What an evolution has beside is
            averaged. Default: all keys of an evolution but the video and the step.
        kind : str, optional
            `"scatter"` (of tables, the default), `"line"` or `"bar"`.
        band : str, optional
            Around means over videos: `"ci95"` for their 95 % interval, 1.96 s / √n to both sides with s the sample
            standard deviation; `"sd"` for s; `"range"` from the lowest to the highest. None where n < 2. A video counts
            once: what it has of blocks, heads or words in one line is averaged before.
        metric : str or sequence of str, optional
            Those of a comparison. Default: all.
        frames : sequence of int, optional
            Those of maps. Default: all, of many some at even distances.
        range : tuple of float, optional
            (lowest, highest) of the colours. Default for maps: from the 1st to the 99th percentile of the finite values
            of all that is shown; for differences as far to both sides of 0 as the farther of these; for a matrix what
            is off its diagonal.
        cmap : str or Colormap, optional
            Default: `"viridis"`, for what has a sign `"RdBu_r"`.
        order : str, optional
            `"cluster"` puts sides of a matrix that are alike beside each other, by its first metric: average linkage
            (scipy is needed).

        Returns
        -------
        Axes or array of Axes
            One if there is one; else for each metric, for each frame of a single map, or `[map, frame]`.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        NothingSelectedError
            If there are no rows.
        QueryError
            If a column is not there or has no numbers, or a table's `x` and `y` are not given.
        ValueError
            If an argument is not for this kind of result, or not what it takes.

        Notes
        -----
        Of more than 12 lines or maps, 12 are drawn: those at even distances where one number tells them apart (blocks,
        heads, steps), else the first. The legend, or a line below the pictures, says so.
        """
        from . import plotting

        wishes = plotting.Wishes(x, y, by, kind, band, metric, frames, range, cmap, order)
        return plotting.plot(self, ax, wishes)

    def __repr__(self) -> str:
        return self._answer.to_text("table", ROWS_SHOWN, shutil.get_terminal_size((120, 24)).columns).rstrip("\n")

    def _repr_html_(self) -> str:
        columns = [name for name in self._answer.telling_columns if not _is_empty(self[name])][:COLUMNS_SHOWN]
        head = "".join(f"<th>{escape(name)}</th>" for name in columns)
        shown = [self[name][:ROWS_SHOWN] for name in columns]
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(_cell(value))}</td>" for value in row) + "</tr>" for row in zip(*shown)
        )
        hidden = len(self.columns) - len(columns)
        more = [
            f"{len(self):,} rows" if len(self) > ROWS_SHOWN else "",
            f"{hidden} more columns" if hidden else "",
            *self.notes,
        ]
        foot = f"<p>{escape('; '.join(part for part in more if part))}</p>" if any(more) else ""
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{foot}"
        if self.has_maps and len(self) == 1:
            whole = self.maps[0]
            # A page need not hold every frame of a video.
            every = (
                -(-whole.shape[0] // FRAMES_SHOWN)
                if whole.ndim == 3 and whole.shape[0] * whole.shape[1] > HEIGHT_SHOWN
                else 1
            )
            picture = base64.b64encode(_picture(whole[None, ::every])).decode()
            return f'<img src="data:image/png;base64,{picture}" alt="attention map"/>{table}'
        return table


def _picture(maps: Array) -> bytes:
    """Of `[map, frame, height, width]` or `[map, spatial]`: map below map."""
    grid = maps.shape[1:] if maps.ndim == 4 else (1, 1, maps.shape[1])
    return _native.heatmap(np.ascontiguousarray(maps).ravel(), grid, None)


def _column(answer: _native.Answer, name: str) -> Array:
    values = answer.column(name)
    if isinstance(values, np.ndarray):
        return values.view("datetime64[us]") if answer.is_time(name) else values
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _levels(keys: dict[str, Array]) -> tuple[dict[str, Array], tuple[Array, ...]]:
    """The values of each key, numbers ascending and others in the order of first appearance, and for each row its place
    among them."""
    levels, places = {}, []
    for key, values in keys.items():
        if values.dtype.kind in "if" and not np.isnan(values).any():
            levels[key], place = np.unique(values, return_inverse=True)
            places.append(place)
            continue
        order: dict[Any, int] = {}
        places.append(
            np.array([order.setdefault(_hashable(value), len(order)) for value in values.tolist()], dtype=np.intp)
        )
        firsts = [int(np.argmax(places[-1] == place)) for place in range(len(order))]
        levels[key] = values[firsts] if firsts else values[:0]
    return levels, tuple(places)


def _hashable(value: Any) -> Any:
    """NaN is a key like others."""
    return "nan" if isinstance(value, float) and value != value else value


def _spread(values: Array, levels: dict[str, Array], places: tuple[Array, ...]) -> Array:
    """Rows as an array with an axis for each key. A view where the rows are all combinations in order."""
    if not levels:  # then there is one row
        return values.reshape(values.shape[1:])
    sizes = [len(level) for level in levels.values()]
    flat = np.ravel_multi_index(places, sizes) if len(values) else np.empty(0, np.intp)
    if len(values) == np.prod(sizes) and np.array_equal(flat, np.arange(len(values))):
        return values.reshape(*sizes, *values.shape[1:])
    if len(np.unique(flat)) < len(flat):
        raise ValueError(f"rows are not told apart by {', '.join(levels)}")
    if values.dtype.kind in "iub":
        values = values.astype(np.float64)
    missing = {"f": np.nan, "M": np.datetime64("NaT"), "O": None}[values.dtype.kind]
    spread = np.full([int(np.prod(sizes)), *values.shape[1:]], missing, dtype=values.dtype)
    spread[flat] = values
    return spread.reshape(*sizes, *values.shape[1:])


def _without_token_index(labelled: Labelled) -> Labelled:
    """Words are nearly always of one position, which needs no dimension."""
    return labelled.isel(token_index=0) if labelled.sizes.get("token_index") == 1 else labelled


def _is_empty(column: Array) -> bool:
    if column.dtype.kind == "f":
        return len(column) > 0 and bool(np.isnan(column).all())
    return len(column) > 0 and column.dtype.kind == "O" and all(value is None for value in column)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else f"{value:.4g}"
    return str(value)
