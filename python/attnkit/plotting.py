"""Figures of results with matplotlib: lines over steps, maps as images, comparisons as lines, bars and squares.

Nothing is shown and no setting of matplotlib is changed. What is computed here (means over videos, their bands, ranges
of colours) is documented with `Result.plot`; what a statistic or a metric means, in docs/store-format.md and
docs/query.md.
"""

from __future__ import annotations

import math
import operator
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

import numpy as np

from . import _check
from .errors import NothingSelectedError, QueryError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from .result import Result

Array = np.ndarray[Any, Any]
Band = Literal["ci95", "sd", "range"]
Chart = Literal["scatter", "line", "bar"]

#: Shown at most, with a note of how many there are; letters of a name in a label.
LINES_SHOWN, BARS_SHOWN, MAPS_SHOWN, LETTERS_SHOWN = 12, 30, 12, 32
#: Frames of a single map, of each of several, and side by side.
FRAMES_OF_ONE, FRAMES_OF_EACH, FRAMES_IN_A_ROW = 24, 8, 8
#: Sides of a square table up to which its numbers are written into it.
SIDES_WITH_NUMBERS = 12
#: 97.5 % of a normal distribution lie below this many standard deviations.
NORMAL_975 = 1.96

#: Told apart with every kind of colour vision (Okabe and Ito 2008, without its yellow), then by the line's style.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
#: What is not finite in a map; the rest of a scattered table.
GREY, LIGHT = "0.35", "0.8"

#: What the videos of a mean are told apart by.
VIDEO = "video_id"
#: What columns are called where they have other names than their own.
NAMES = {VIDEO: "video", "token": "word", "token_index": "position", "prompt_id": "prompt", "cfg_scale": "guidance"}
#: Labels of axes, with units.
COLUMNS = {
    "step": "denoising step",
    "timestep": "scheduler timestep",
    "weight": "weight of the word",
    "cfg_scale": "guidance scale",
    "frame": "latent frame",
    "n": "maps",
    "sum": "sum of attention",
    "mean": "mean attention",
    "std": "standard deviation of attention",
    "min": "lowest attention",
    "max": "highest attention",
    "argmax_frame": "latent frame of the maximum",
    "argmax_y": "maximum, from the top (grid cells)",
    "argmax_x": "maximum, from the left (grid cells)",
    "entropy": "entropy (nats)",
    "entropy_norm": "entropy / ln(positions)",
    "gini": "Gini coefficient",
    "top1": "share of attention in the highest 1 %",
    "top5": "share of attention in the highest 5 %",
    "top10": "share of attention in the highest 10 %",
    "centroid_frame": "centroid (latent frame)",
    "centroid_y": "centroid, from the top (grid cells)",
    "centroid_x": "centroid, from the left (grid cells)",
    "spread": "spread (grid cells)",
    "nonfinite": "positions that are not finite",
    "cosine_previous": "cosine similarity to the step before",
    "js_previous": "divergence from the step before (nats)",
    "centroid_shift_previous": "shift of the centroid by the step (grid cells)",
    "cosine_last": "cosine similarity to the last step",
    "js_last": "divergence from the last step (nats)",
    "centroid_shift_last": "shift of the centroid to the last step (grid cells)",
    "text_entropy": "entropy over the text (nats)",
    "sink_mass": "share of attention on the sink",
}
#: Metrics of comparisons; of those with a number behind an `@`, what is before it.
METRICS = {
    "cosine": "cosine similarity",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "js": "Jensen-Shannon divergence (nats)",
    "kl": "Kullback-Leibler divergence (nats)",
    "emd": "earth mover's distance (grid cells)",
    "centroid": "distance of centroids (grid cells)",
    "ssim": "structural similarity",
    "l2": "Euclidean distance",
    "mass_ratio": "ratio of attention, a / b",
}
#: Metrics that are the higher the more alike the sides are.
SIMILARITIES = ("cosine", "pearson", "spearman", "iou", "topk", "ssim")
BANDS = {"ci95": "95 % interval of the mean", "sd": "standard deviation", "range": "lowest to highest"}


@dataclass(frozen=True)
class Wishes:
    """What `Result.plot` is asked for, as it is called there; None: the usual."""

    x: str | None = None
    y: str | None = None
    by: str | Sequence[str] | None = None
    kind: Chart | None = None
    band: Band | None = "ci95"
    metric: str | Sequence[str] | None = None
    frames: Sequence[SupportsIndex] | None = None
    range: tuple[float, float] | None = None
    cmap: str | Colormap | None = None
    order: Literal["cluster"] | None = None


def plot(result: Result, ax: Axes | Iterable[Axes] | None, wishes: Wishes) -> Axes | Array:
    """See `Result.plot`."""
    try:
        import matplotlib  # noqa: F401  so that it is missed here
    except ImportError as error:
        raise ImportError("plot draws with matplotlib, which is not installed: pip install matplotlib") from error
    if wishes.band not in (*BANDS, None):
        raise ValueError(f"band: {wishes.band!r} is not one of {', '.join(BANDS)}, None")
    if len(result) == 0:
        raise NothingSelectedError("there is nothing to draw: the result has no rows")
    kind = result._answer.kind
    draw: Callable[[Result, Any, Wishes], Axes | Array]
    taken: tuple[str, ...]
    if wishes.kind is not None or kind == "rows":
        draw, what, taken = _table, "a table", ("x", "y", "by", "kind", "band")
    elif kind == "series":
        draw, what, taken = _series, "an evolution", ("x", "y", "by", "band")
    elif kind == "pairs":
        draw, what, taken = _pairs, "a comparison", ("x", "metric")
    elif kind == "matrix":
        draw, what, taken = _matrix, "a matrix", ("metric", "range", "cmap", "order")
    else:
        draw, what, taken = _maps, "a picture of maps", ("frames", "range", "cmap")
    for wish in fields(wishes):
        value = getattr(wishes, wish.name)
        is_usual = value is wish.default or (isinstance(value, str) and value == wish.default)
        if wish.name not in taken and not is_usual:
            hint = "; kind='line' draws the columns of its table" if kind != "rows" and wish.name in "xy" else ""
            raise ValueError(f"{wish.name} is nothing that {what} has: it takes {', '.join(taken)}{hint}")
    return draw(result, ax, wishes)


# Evolutions, and tables.


@dataclass(frozen=True)
class Line:
    """Values over x: means over `n` videos, between `low` and `high` (NaN where there are fewer than two)."""

    x: Array
    y: Array
    low: Array
    high: Array
    n: Array
    #: The most rows of a video that went into one value.
    rows: int = 1

    @property
    def alone(self) -> Array:
        """Which values have no neighbour that a line could lead to."""
        has: Array = np.concatenate([[False], np.isfinite(self.y), [False]])
        alone: Array = has[1:-1] & ~has[:-2] & ~has[2:]
        return alone

    @property
    def videos(self) -> str:
        least, most = (int(self.n[self.n > 0].min()), int(self.n.max())) if self.n.any() else (0, 0)
        return f"{most} video{'s' * (most != 1)}" if least == most else f"{least} to {most} videos"


def _series(result: Result, ax: Any, wishes: Wishes) -> Axes:
    x, y = wishes.x or "step", wishes.y or "entropy_norm"
    if x not in ("step", "timestep"):
        raise ValueError(f"x: {x!r} is neither step nor timestep; kind='scatter' draws one column over another")
    if wishes.by is None:
        varying = [key for key in result.keys if key != "step" and _levels(result, key) > 1]
        by = [key for key in varying if key != VIDEO]
    else:
        by = _columns(result, "by", wishes.by)
    groups = _Groups(result, by)
    lines = _lines(result, groups, "step", result["step"], _numbers(result, "y", y), wishes.band)
    if x == "timestep":
        lines = [_over_timesteps(result, rows, line) for rows, line in zip(groups.shown_rows(), lines)]
    axes, figure = _one_axes(ax)
    _draw_lines(axes, groups, lines)
    if x == "timestep" and not axes.xaxis_inverted():
        axes.invert_xaxis()  # noise is removed from left to right
    elif x == "step":
        _whole_ticks(axes)
    axes.set_xlabel(COLUMNS[x])
    axes.set_ylabel(_wrapped(_escaped(_column_label(y))))
    _describe(axes, figure, result, groups, lines, wishes.band)
    return axes


def _over_timesteps(result: Result, rows: Array, line: Line) -> Line:
    """The same values over the scheduler's timesteps, which may come back to where they were."""
    steps, timesteps = result["step"][rows], result["timestep"][rows]
    if not np.isfinite(timesteps).all():
        raise ValueError("x: not all timesteps are known; x='step' is")
    found = [np.unique(timesteps[steps == step]) for step in line.x]
    if any(len(one) > 1 for one in found):
        raise ValueError("x: the videos have different timesteps at a step; by='video_id' draws a line for each")
    return replace(line, x=np.concatenate(found))


def _table(result: Result, ax: Any, wishes: Wishes) -> Axes:
    kind = wishes.kind or "scatter"
    if kind not in ("scatter", "line", "bar"):
        raise ValueError(f"kind: {kind!r} is not one of scatter, line, bar")
    if wishes.x is None or wishes.y is None:
        numbers = ", ".join(name for name in result.columns if _is_number(result, name))
        raise QueryError(
            "a table is drawn with x= and y=, which are columns of it",
            f"its columns: {', '.join(result.columns)}; numbers are in {numbers or 'none of them'}",
        )
    (x,) = _columns(result, "x", wishes.x)
    values = _numbers(result, "y", wishes.y)
    by = _columns(result, "by", wishes.by or [])
    if kind == "scatter" and wishes.band != "ci95":
        raise ValueError("band is of lines and bars; a scatter shows every row")
    groups = _Groups(result, by)
    places = _places(result, x)
    if not (np.isfinite(values) & (places == places)).any():
        raise ValueError(f"there is no row in which both {x} and {wishes.y} are known")
    lines = [] if kind == "scatter" else _lines(result, groups, x, places, values, wishes.band)
    names: list[str] = list(dict.fromkeys(places.tolist())) if places.dtype.kind == "O" else []
    number = {name: at for at, name in enumerate(names)}
    axes, figure = _one_axes(ax)
    if kind == "bar":
        _draw_bars(axes, figure, groups, lines)
    elif kind == "line":
        if names:
            lines = [_in_order(replace(line, x=np.array([number[name] for name in line.x]))) for line in lines]
        _draw_lines(axes, groups, lines)
    else:
        _scatter(axes, result, groups, np.array([number[name] for name in places]) if names else places, values)
    if kind != "bar" and names:
        _names_at_ticks(axes, figure, names)
    if x in ("step", "block", "head") and kind != "bar":
        _whole_ticks(axes)
    axes.set_xlabel(_escaped(_column_label(x)) + (axes.get_xlabel() if kind == "bar" else ""))
    axes.set_ylabel(_wrapped(_escaped(_column_label(wishes.y))))
    _describe(axes, figure, result, groups, lines, wishes.band)
    return axes


def _lines(result: Result, groups: _Groups, x: str, places: Array, values: Array, band: Band | None) -> list[Line]:
    """One for each group that is shown; labels say of how many videos, where these are not as many for all."""
    lines = [_line(result, rows, x, places, values, band) for rows in groups.shown_rows()]
    if not any(np.isfinite(line.y).any() for line in lines):
        raise ValueError("there is nothing to draw: no value of what is shown is finite")
    if any(line.n.max(initial=0) > 1 for line in lines) and len({line.videos for line in lines}) > 1:
        groups.labels = [f"{label} ({line.videos})" for label, line in zip(groups.labels, lines)]
    return lines


def _in_order(line: Line) -> Line:
    order = np.argsort(line.x, kind="stable")
    return replace(line, x=line.x[order], y=line.y[order], low=line.low[order], high=line.high[order], n=line.n[order])


def _line(result: Result, rows: Array, x: str, places: Array, values: Array, band: Band | None) -> Line:
    """The mean over videos at each x. What else a video has there is averaged before: maps of one are not independent
    of each other."""
    column = places[rows]
    known = column == column  # NaN and no time are not
    rows, column = rows[known], column[known]
    levels, place = _unique(column)
    y = values[rows]
    if VIDEO in result.columns:
        videos, unit = _unique(result[VIDEO][rows])
    elif len(levels) == len(rows):
        videos, unit = np.array([None]), np.zeros(len(rows), np.intp)
    else:
        often, times = Counter(place.tolist()).most_common(1)[0]
        raise ValueError(
            f"{times} rows have {x} = {levels[often]} and nothing tells them apart: name in `by` what does, take the "
            f"mean in the question, or have the column {VIDEO}, over which means are taken here"
        )
    finite = np.isfinite(y)
    pairs, each = np.unique(place[finite] * len(videos) + unit[finite], return_inverse=True)
    rows_of_each = np.bincount(each, minlength=len(pairs))
    means = np.bincount(each, y[finite], len(pairs)) / rows_of_each
    place = pairs // max(len(videos), 1)
    n = np.bincount(place, minlength=len(levels))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(place, means, len(levels)) / n
        deviation = np.sqrt(np.bincount(place, (means - mean[place]) ** 2, len(levels)) / (n - 1.0))
        reach = deviation * NORMAL_975 / np.sqrt(n) if band == "ci95" else deviation
    low, high = mean - reach, mean + reach
    if band == "range":
        low, high = np.full(len(levels), np.inf), np.full(len(levels), -np.inf)
        np.minimum.at(low, place, means)
        np.maximum.at(high, place, means)
    none = np.full(len(levels), band is None) | (n < 2)
    low, high = np.where(none, np.nan, low), np.where(none, np.nan, high)
    return Line(levels, mean, low, high, n, int(rows_of_each.max(initial=0)))


def _draw_lines(axes: Axes, groups: _Groups, lines: list[Line]) -> None:
    if not any(np.isfinite(line.y).any() for line in lines):
        axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, ha="center", va="center", color=GREY)
    few = max(len(line.x) for line in lines) <= 20
    for number, (line, colour) in enumerate(zip(lines, groups.colours())):
        marker = "o" if few or line.alone.any() else ""
        style = STYLES[0] if groups.is_ordered else STYLES[number // len(COLOURS) % len(STYLES)]
        label = _no_underscore(groups.labels[number]) if groups.by else None
        axes.plot(line.x, line.y, style, color=colour, marker=marker, markersize=3, linewidth=1.4, label=label)
        if np.isfinite(line.low).any():
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.18, linewidth=0)
        single = line.alone & np.isfinite(line.low)
        if single.any():  # where a band has no width
            ends = np.stack([line.y - line.low, line.high - line.y])[:, single]
            axes.errorbar(line.x[single], line.y[single], ends, fmt="none", ecolor=colour, capsize=2, linewidth=1)
    _steady(axes, np.concatenate([line.y for line in lines]))


def _draw_bars(axes: Axes, figure: Figure | None, groups: _Groups, lines: list[Line]) -> None:
    """Bars beside each other for each x: numbers ascending, others in the order in which they come first."""
    found = np.concatenate([line.x for line in lines])
    names = list(dict.fromkeys(np.sort(found).tolist() if found.dtype.kind in "iuf" else found.tolist()))
    shown = names[:BARS_SHOWN]
    wide = 0.8 / len(lines)
    for number, (line, colour) in enumerate(zip(lines, groups.colours())):
        place = {value: at for at, value in enumerate(line.x.tolist())}
        at = [place[name] for name in shown if name in place]
        if not at:
            continue
        left = np.array([where for where, name in enumerate(shown) if name in place])
        left = left + (number - (len(lines) - 1) / 2) * wide
        y, low, high = line.y[at], line.low[at], line.high[at]
        label = _no_underscore(groups.labels[number]) if groups.by else None
        axes.bar(left, y, wide, color=colour, label=label)
        if np.isfinite(low).any():
            axes.errorbar(left, y, np.stack([y - low, high - y]), fmt="none", ecolor="0.2", capsize=2, linewidth=1)
    _names_at_ticks(axes, figure, [name if isinstance(name, str) else _name(name) for name in shown])
    axes.set_xlabel(f"\n({len(shown)} of {len(names)} shown)" if len(shown) < len(names) else "")


def _scatter(axes: Axes, result: Result, groups: _Groups, places: Array, y: Array) -> None:
    """A point for each row: coloured by group, by a scale where these are many numbers, grey beyond."""
    many = len(result)
    look: dict[str, Any] = {"s": 16 if many <= 500 else 6, "linewidths": 0, "alpha": 0.8 if many <= 500 else 0.45}
    look["rasterized"] = many > 5000  # a vector for each point makes a file that no reader opens
    if len(groups.by) == 1 and groups.is_ordered and len(groups.levels) > LINES_SHOWN:
        points = axes.scatter(places, y, c=_numbers(result, "by", groups.by[0]), cmap="viridis", **look)
        bar = axes.figure.colorbar(points, ax=axes, label=_escaped(_column_label(groups.by[0])))
        solids: Any = bar.solids
        solids.set_alpha(1)
        groups.is_told = True
        return
    for number, (rows, colour) in enumerate(zip(groups.shown_rows(), groups.colours())):
        label = _no_underscore(groups.labels[number]) if groups.by else None
        marker = MARKERS[number // len(COLOURS) if not groups.is_ordered else 0]
        axes.scatter(places[rows], y[rows], color=[colour], marker=marker, label=label, **look)
    rest = groups.other_rows()
    if len(rest):
        axes.scatter(places[rest], y[rest], color=LIGHT, zorder=0, label="others", **look)


# Comparisons.


def _pairs(result: Result, ax: Any, wishes: Wishes) -> Axes | Array:
    metrics = _metrics(result, wishes.metric)
    # Slopes are over weights, and nothing else has them.
    across_weight = "slope" in result.columns
    has_steps = bool(np.isfinite(result["step"].astype(float)).any())
    x = wishes.x or ("weight" if across_weight else "step")
    if x not in ("step", "weight") or (x == "weight" and not across_weight):
        raise ValueError(f"x: {x!r} is not {'step or weight' if across_weight else 'step'}")
    if x == "step" and wishes.x and not has_steps:
        raise ValueError("x: what is compared are means over steps, or the last ones; align='step' compares each")
    lies = x == "step" and not has_steps
    pairs = len(set(zip(map(str, result["a"]), map(str, result["b"]))))
    height = max(1.2, 0.26 * min(pairs, BARS_SHOWN) + 0.9) if lies else 3.0
    grid, figure = _axes_for(ax, len(metrics), (3.4, height), sharey=lies)
    if figure is not None and lies:
        names = [_pair_name(a, b) for a, b in zip(result["a"][:BARS_SHOWN], result["b"])]
        figure.set_figwidth(figure.get_figwidth() + _inches(names))
    for number, (axes, metric) in enumerate(zip(grid, metrics)):
        rows = np.flatnonzero(result["metric"] == metric)
        last = number == len(metrics) - 1
        if lies:
            _pair_bars(axes, result, rows, metric)
        elif x == "weight":
            _over_weights(axes, figure, result, rows, metric, last)
        else:
            _over_steps(axes, figure, result, rows, metric, last)
    sides = _Groups(result, ["a", "b"])
    if len(sides.levels) == 1 and not lies:
        _head(grid, figure, _pair_name(*sides.levels[0]))
    return grid[0] if len(metrics) == 1 else grid


def _over_steps(axes: Axes, figure: Figure | None, result: Result, rows: Array, metric: str, has_legend: bool) -> None:
    against = _against(result)
    groups = _Groups(result, ["a"] if against is not None else ["a", "b"], rows)
    groups.is_ordered = groups.is_ordered and against is not None
    if against is None:
        groups.title = "pair"
        groups.labels = _unlike([_pair_name(*pair) for pair in groups.shown_levels])
    else:
        groups.title = f"against {_name(against)}"
    lines = [_line_of_rows(result, found, "step") for found in groups.shown_rows()]
    _draw_lines(axes, groups, lines)
    _whole_ticks(axes)
    axes.set_xlabel(COLUMNS["step"])
    axes.set_ylabel(_wrapped(_metric_label(metric)))
    if has_legend:
        _legend(axes, figure, groups)


def _over_weights(
    axes: Axes, figure: Figure | None, result: Result, rows: Array, metric: str, has_legend: bool
) -> None:
    groups = _Groups(result, ["step"] if np.isfinite(result["step"][rows].astype(float)).any() else [], rows)
    lines = [_line_of_rows(result, found, "a") for found in groups.shown_rows()]
    _draw_lines(axes, groups, lines)
    label = COLUMNS["weight"]
    references = np.unique(result["b"][rows])
    if len(references) == 1:
        axes.axvline(float(references[0]), color=GREY, linestyle=":", linewidth=1, zorder=0)
        label += f"\n(compared with {_name(references[0])}, dotted)"
    axes.set_xlabel(label)
    axes.set_ylabel(_wrapped(_metric_label(metric)))
    if has_legend:
        _legend(axes, figure, groups)


def _line_of_rows(result: Result, rows: Array, x: str) -> Line:
    rows = rows[np.argsort(result[x][rows], kind="stable")]
    none = np.full(len(rows), np.nan)
    return Line(result[x][rows].astype(float), result["value"][rows].astype(float), none, none, np.ones(len(rows)))


def _pair_bars(axes: Axes, result: Result, rows: Array, metric: str) -> None:
    shown = rows[:BARS_SHOWN]
    against = _against(result)
    a, b = result["a"][shown], result["b"][shown]
    names = [_name(one) if against is not None else _pair_name(one, other) for one, other in zip(a, b)]
    values = result["value"][shown].astype(float)
    axes.barh(np.arange(len(shown)), values, 0.7, color=COLOURS[0])
    for place, value in enumerate(values):
        text = f" {value:.3g}" if np.isfinite(value) else " not finite"
        at = value if np.isfinite(value) else 0.0
        axes.annotate(text, (at, place), ha="right" if at < 0 else "left", va="center", fontsize="small")
    axes.margins(x=0.18)
    axes.set_yticks(np.arange(len(shown)), _unlike(names))
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_ylabel("" if against is None else f"against {_name(against)}")
    more = f"\n({len(shown)} of {len(rows)} pairs shown)" if len(shown) < len(rows) else ""
    axes.set_xlabel(_metric_label(metric) + more)


def _matrix(result: Result, ax: Any, wishes: Wishes) -> Axes | Array:
    metrics = _metrics(result, wishes.metric)
    others = [name for name in result.columns if name not in ("metric", "a")]
    tables = [_square(result, metric, others) for metric in metrics]
    sides = np.arange(len(others))
    if wishes.order == "cluster":
        sides = _clustered(tables[0], metrics[0])
    elif wishes.order is not None:
        raise ValueError(f"order: {wishes.order!r} is not cluster")
    span, chosen = _span(wishes.range), wishes.cmap and _colours(wishes.cmap)
    labels = _labels(others)
    size = 0.9 + min(0.55 * len(others), 6.0) + 0.8 * _inches(labels)
    grid, _ = _axes_for(ax, len(metrics), (size + 0.9, size))
    for axes, metric, table in zip(grid, metrics, tables):
        table = table[np.ix_(sides, sides)]
        signed = metric in ("pearson", "spearman") and bool((table < 0).any())
        apart = table[~np.eye(len(table), dtype=bool)]
        seen = apart[np.isfinite(apart)] if np.isfinite(apart).any() else table[np.isfinite(table)]
        low, high = span or ((float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0))
        if signed and span is None:
            low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
        low, high = _apart(low, high)
        colours = chosen or _colours("RdBu_r" if signed else "viridis")
        image = axes.imshow(np.ma.masked_invalid(table), cmap=colours, vmin=low, vmax=high)
        if len(sides) <= SIDES_WITH_NUMBERS:
            _write_numbers(axes, table, image)
        turn: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        names = [labels[side] for side in sides]
        axes.set_xticks(np.arange(len(sides)), names, **turn if max(map(len, names)) > 3 else {})
        axes.set_yticks(np.arange(len(sides)), names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("b")
        axes.set_ylabel("a")
        axes.set_title(_metric_label(metric), fontsize="medium")
        axes.figure.colorbar(image, ax=axes, shrink=0.8, extend=_beyond(table, low, high))
    return grid[0] if len(metrics) == 1 else grid


def _square(result: Result, metric: str, others: Sequence[str]) -> Array:
    rows = np.flatnonzero(result["metric"] == metric)
    return np.stack([result[name][rows].astype(float) for name in others], axis=1)


def _clustered(table: Array, metric: str) -> Array:
    """The sides in the order of the leaves of a tree: average linkage, neighbours as near as can be."""
    try:
        from scipy.cluster import hierarchy
        from scipy.spatial.distance import squareform
    except ImportError as error:
        raise ImportError("order='cluster' needs scipy, which is not installed: pip install scipy") from error
    if len(table) < 3:
        return np.arange(len(table))
    kind = metric.partition("@")[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        far = -table if kind in SIMILARITIES else np.abs(np.log(table)) if kind == "mass_ratio" else table
    far = (far + far.T) / 2
    finite = far[np.isfinite(far)]
    if not len(finite):
        return np.arange(len(table))
    far = np.where(np.isfinite(far), far, finite.max()) - finite.min()
    np.fill_diagonal(far, 0)
    tree = hierarchy.linkage(squareform(far, checks=False), "average", optimal_ordering=True)
    leaves: Array = hierarchy.leaves_list(tree)
    return leaves


def _write_numbers(axes: Axes, table: Array, image: Any) -> None:
    """With as many decimals as the colours tell apart."""
    small = "small" if len(table) <= 6 else "x-small" if len(table) <= 9 else "xx-small"
    decimals = 1 - math.floor(math.log10(image.norm.vmax - image.norm.vmin))
    form = f".{max(decimals, 0)}f" if decimals <= 4 else ".2g"
    for (row, column), value in np.ndenumerate(table):
        known = bool(np.isfinite(value))
        red, green, blue, _ = image.cmap(image.norm(value)) if known else (1, 1, 1, 1)
        colour = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
        text = format(value, form) if known else "–"
        axes.text(column, row, text, ha="center", va="center", fontsize=small, color=colour)


# Maps.


def _maps(result: Result, ax: Any, wishes: Wishes) -> Axes | Array:
    differs = result._answer.kind == "differences"
    every = result.maps
    rows = _chosen_maps(result)
    maps = [_framed(every[row]) for row in rows]
    there = max(map(len, maps))
    frames = _chosen_frames(there, len(maps), wishes.frames)
    seen = [one[frame] for one in maps for frame in frames if frame < len(one)]
    low, high = _apart(*_span(wishes.range) or _usual_span(seen, differs))
    look = {"cmap": _colours(wishes.cmap or ("RdBu_r" if differs else "viridis")), "vmin": low, "vmax": high}
    names, common = _map_names(result, rows)
    grid, figure = _axes_of_maps(ax, maps, len(frames), _inches(names) * 0.83)
    image: Any = None
    for row, (one, name) in enumerate(zip(maps, names)):
        has_grid = every[rows[row]].ndim == 3
        for column, frame in enumerate(frames):
            axes = grid[row, column]
            axes.set_xticks([])
            axes.set_yticks([])
            if frame >= len(one):
                axes.axis("off")
                continue
            shown = np.ma.masked_invalid(one[frame])
            image = axes.imshow(shown, aspect="equal" if has_grid else "auto", interpolation="nearest", **look)
            _tell_of(axes, one[frame])
            if len(frames) == 1 and len(maps) > 1:
                axes.set_title(name, fontsize="small")
            elif row == 0 or frame >= len(maps[0]):
                axes.set_title(f"frame {frame}" if has_grid else "positions (no grid)", fontsize="small")
        if len(maps) > 1 and len(frames) > 1:
            grid[row, 0].set_ylabel(name, fontsize="small", rotation=0, ha="right", va="center")
    # Of a new figure: as high as the pictures, but 3 inches at most, and 0.14 wide.
    tall = figure.get_figheight() * 0.85 if figure is not None else 3.0
    shrink = min(0.95, 3.0 / tall)
    size: dict[str, float] = {} if figure is None else {"shrink": shrink, "aspect": tall * shrink / 0.14, "pad": 0.015}
    bar = grid[0, 0].figure.colorbar(image, ax=list(grid.flat), extend=_beyond(seen, low, high), **size)
    bar.set_label("difference of attention" if differs else "attention")
    if grid.size == 1:
        only: Axes = grid[0, 0]
        only.set_title(", ".join(filter(None, (common, only.get_title()))), fontsize="medium")
        return only
    if figure is not None:
        figure.suptitle(common + (f", frame {frames[0]}" if len(frames) == 1 else ""), fontsize="medium")
        more_maps = f"{len(maps)} of {len(every)} maps" if len(maps) < len(every) else ""
        more_frames = f"{len(frames)} of {there} frames" if wishes.frames is None and len(frames) < there else ""
        if more_maps or more_frames:
            note = f"({' and '.join(filter(None, (more_maps, more_frames)))} shown)"
            figure.supxlabel(note, fontsize="small", color=GREY)
    return grid[0] if len(maps) == 1 else grid


def _framed(values: Array) -> Array:
    """`[frame, row, column]`; without a grid the positions are a row."""
    return values if values.ndim == 3 else values.reshape(1, 1, -1)


def _chosen_maps(result: Result) -> Array:
    """All, or of many those at even distances if one number tells them apart, else the first ones."""
    rows = np.arange(len(result))
    if len(rows) <= MAPS_SHOWN:
        return rows
    varying = [key for key in result.keys if _levels(result, key) > 1]
    if len(varying) == 1 and result[varying[0]].dtype.kind in "iuf":
        return rows[np.argsort(result[varying[0]], kind="stable")][_evenly(len(rows), MAPS_SHOWN)]
    return rows[:MAPS_SHOWN]


def _chosen_frames(there: int, maps: int, wished: Sequence[SupportsIndex] | None) -> list[int]:
    if wished is None:
        return [int(frame) for frame in _evenly(there, FRAMES_OF_ONE if maps == 1 else FRAMES_OF_EACH)]
    try:
        frames = [operator.index(frame) for frame in wished]
    except TypeError:
        raise TypeError(f"frames: {wished!r} is not a sequence of whole numbers") from None
    odd = next((frame for frame in frames if not 0 <= frame < there), None)
    if odd is not None or not frames:
        raise ValueError(
            f"frames: {'none are given' if odd is None else f'there is no frame {odd}'}; 0 to {there - 1} are there"
        )
    return frames


def _usual_span(shown: list[Array], differs: bool) -> tuple[float, float]:
    """From the 1st to the 99th percentile of all that is shown; of differences as far to both sides of 0."""
    values = np.concatenate([one.ravel() for one in shown]).astype(np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = map(float, np.percentile(values, (1, 99)))
    return (-max(-low, high), max(-low, high)) if differs else (low, high)


def _map_names(result: Result, rows: Array) -> tuple[list[str], str]:
    """What tells each of the maps apart, and what all have in common."""
    if "a" in result.keys:
        parts = [[_pair_name(a, b, "−") for a, b in zip(result["a"][rows], result["b"][rows])]]
        keys = [key for key in result.keys if key not in ("a", "b")]
    else:
        parts, keys = [], result.keys
    parts += [[_key(key, value) for value in result[key][rows]] for key in sorted(keys, key=_first_word)]
    # Words are nearly always of one position, of which nobody need be told.
    common = ", ".join(part[0] for part in parts if len(set(part)) == 1 and part[0] and part[0] != "position 0")
    each = [", ".join(filter(None, one)) for one in zip(*(part for part in parts if len(set(part)) > 1))]
    return (_unlike(each) if each else [""] * len(rows)), common


def _axes_of_maps(ax: Any, maps: list[Array], frames: int, names: float) -> tuple[Array, Figure | None]:
    """`[map, frame]`, wrapped where a single row of pictures would be too long."""
    count = len(maps) * frames
    if ax is not None:
        grid, _ = _axes_for(ax, count, (0, 0))
        return grid.reshape(len(maps), frames), None
    import matplotlib.pyplot

    if len(maps) == 1 or frames == 1:
        lines = -(-count // FRAMES_IN_A_ROW)
        columns = -(-count // lines)
    else:
        lines, columns = len(maps), frames
    steepest = max((one.shape[1] / one.shape[2] for one in maps if one.shape[1] > 1), default=0.5)
    # Inches: of a picture, of what is written over it, of names beside rows, and of the bar of colours.
    wide = min(1.6, 10.5 / columns) if columns > 1 else 3.0
    tall = min(max(wide * steepest, 0.45), 3.5)
    over, beside = (0.25, 0.0) if len(maps) == 1 or frames == 1 else (0.06, names + 0.2)
    size = (wide * columns + beside + 1.1, (tall + over) * lines + 0.6)
    figure, made = matplotlib.pyplot.subplots(lines, columns, figsize=size, squeeze=False, layout="compressed")
    layout: Any = figure.get_layout_engine()
    layout.set(w_pad=0.04, h_pad=0.03)
    for spare in made.ravel()[count:]:
        spare.remove()
    return made.ravel()[:count].reshape(len(maps), frames), figure


def _tell_of(axes: Axes, values: Array) -> None:
    """What a picture of one colour, or of none, would not say."""
    finite = np.isfinite(values)
    if not finite.any():
        text = "no finite\nvalue"
    elif not finite.all():
        text = ""
        axes.set_xlabel(f"{(~finite).sum():,} not finite (grey)", fontsize="x-small")
    elif values.min() == values.max():
        text = f"constant\n{values.flat[0]:.4g}"
    else:
        return
    if text:
        look = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "boxstyle": "round,pad=0.3"}
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize="small", bbox=look)


def _span(wished: tuple[float, float] | None) -> tuple[float, float] | None:
    if wished is None:
        return None
    try:
        low, high = map(float, wished)
    except (TypeError, ValueError):
        raise TypeError(f"range: {wished!r} is not (lowest, highest)") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"range: {wished!r} is not (lowest, highest): finite, and the first lower")
    return low, high


def _apart(low: float, high: float) -> tuple[float, float]:
    """A range of one value, widened: it gets the colour in the middle."""
    if low < high:
        return low, high
    reach = abs(low) * 0.05 or 0.5
    return low - reach, high + reach


def _beyond(shown: Array | list[Array], low: float, high: float) -> Literal["neither", "min", "max", "both"]:
    """At which ends of a range of colours there are values beyond it."""
    under = any(bool((one < low).any()) for one in shown)
    over = any(bool((one > high).any()) for one in shown)
    return "both" if under and over else "min" if under else "max" if over else "neither"


def _colours(cmap: str | Colormap) -> Colormap:
    import matplotlib

    return matplotlib.colormaps.get_cmap(cmap).with_extremes(bad=LIGHT)


# Columns and groups of rows.


class _Groups:
    """Rows that are alike in some columns, and which of these groups are shown: lines, colours of points."""

    def __init__(self, result: Result, by: list[str], rows: Array | None = None) -> None:
        self.by = by
        rows = np.arange(len(result)) if rows is None else rows
        keys = [_hashables(result[name][rows]) for name in by]
        places: dict[tuple[Any, ...], list[int]] = {}
        for row, level in zip(rows.tolist(), zip(*keys) if keys else [()] * len(rows)):
            places.setdefault(level, []).append(row)
        #: Whether colours say which is more: of one column of numbers.
        self.is_ordered = len(by) == 1 and len(places) > 2 and _is_number(result, by[0])
        levels = list(places)
        if len(by) == 1 and _is_number(result, by[0]):
            levels.sort(key=lambda level: (level[0] is None, level[0] or 0))
        self.levels = levels
        self._rows = [np.array(places[level]) for level in levels]
        chosen = _evenly(len(levels), LINES_SHOWN) if self.is_ordered else np.arange(min(len(levels), LINES_SHOWN))
        self._shown = chosen.tolist()
        self.shown_levels = [levels[number] for number in self._shown]
        only = len(by) == 1
        self.labels = _unlike(
            [_name(level[0]) if only else ", ".join(filter(None, map(_key, by, level))) for level in self.shown_levels]
        )
        self.title = _name(NAMES.get(by[0], by[0])) if only else ""
        self.is_told = False

    def shown_rows(self) -> list[Array]:
        return [self._rows[number] for number in self._shown]

    def other_rows(self) -> Array:
        others = [rows for number, rows in enumerate(self._rows) if number not in set(self._shown)]
        return np.concatenate(others) if others else np.empty(0, np.intp)

    def colours(self) -> Iterator[Any]:
        count = len(self._shown)
        if not self.is_ordered:
            return (COLOURS[number % len(COLOURS)] for number in range(count))
        scale = _colours("viridis")
        return (scale(0.92 * number / (count - 1)) for number in range(count))


def _columns(result: Result, argument: str, names: str | Sequence[str]) -> list[str]:
    found = _check.names(argument, names)
    for name in found:
        if name not in result.columns:
            raise QueryError(f"{argument}: there is no column `{name}`", f"the columns: {', '.join(result.columns)}")
    return found


def _numbers(result: Result, argument: str, name: str) -> Array:
    """A column as float64, NaN where it is null."""
    _columns(result, argument, name)
    if not _is_number(result, name):
        numbers = ", ".join(one for one in result.columns if _is_number(result, one))
        raise QueryError(f"{argument}: the column `{name}` has no numbers", f"those that have: {numbers or 'none'}")
    values: Array = np.array([np.nan if one is None else float(one) for one in result[name].tolist()])
    if argument == "y" and not np.isfinite(values).any():
        raise ValueError(f"y: the column `{name}` has no finite value in any row")
    return values


def _is_number(result: Result, name: str) -> bool:
    column = result[name]
    if column.dtype.kind != "O":
        return column.dtype.kind in "iufb"
    known = [value for value in column.tolist() if value is not None]
    # Seeds beyond 64 bits are Python's numbers.
    return bool(known) and all(isinstance(value, (int, float)) or hasattr(value, "as_tuple") for value in known)


def _hashables(column: Array) -> list[Any]:
    """NaN is null, lists are text."""
    return [
        None if value is None or value != value else str(value) if isinstance(value, (list, dict)) else value
        for value in column.tolist()
    ]


def _levels(result: Result, name: str) -> int:
    return len(set(_hashables(result[name])))


def _unique(column: Array) -> tuple[Array, Array]:
    """Values and the place of each row among them: numbers ascending, others as they come first."""
    if column.dtype.kind in "iufM":
        levels, place = np.unique(column, return_inverse=True)
        return levels, place
    order: dict[Any, int] = {}
    place = np.array([order.setdefault(value, len(order)) for value in _hashables(column)], np.intp)
    return np.array(list(order), dtype=object), place


def _places(result: Result, name: str) -> Array:
    """Where rows lie along an axis: numbers and times as they are, others as their labels."""
    column = result[name]
    if column.dtype.kind in "iufM":
        return column
    values = _hashables(column)
    levels = list(dict.fromkeys(values))
    label = dict(zip(levels, _labels(levels)))
    return np.array([label[value] for value in values], dtype=object)


def _evenly(there: int, most: int) -> Array:
    """Numbers from 0, at even distances where there are more than `most`; the first and the last are among them."""
    return np.unique(np.linspace(0, there - 1, min(there, most)).round().astype(np.intp))


def _metrics(result: Result, wished: str | Sequence[str] | None) -> list[str]:
    there = list(dict.fromkeys(result["metric"].tolist()))
    if wished is None:
        return there
    found = _check.names("metric", wished)
    odd = next((name for name in found if name not in there), None)
    if odd is not None or not found:
        raise ValueError(
            f"metric: {'none is given' if odd is None else f'there is no {odd!r}'}; the result has {', '.join(there)}"
        )
    return found


def _against(result: Result) -> Any:
    """The side that all others are compared with, if it is one."""
    a, b = _hashables(result["a"]), _hashables(result["b"])
    return b[0] if len(set(b)) == 1 and len(set(a)) > 1 else None


# Words: names, labels, titles, legends.


def _name(value: Any) -> str:
    """A value on one line, shortened in the middle: prompts, and ids of videos, differ at their ends."""
    if value is None or value != value:
        return "unknown"
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.10g}"
    text = " ".join("".join(char if char.isprintable() else " " for char in str(value)).split())
    if len(text) > LETTERS_SHOWN:
        text = f"{text[: LETTERS_SHOWN * 2 // 3].rstrip()}…{text[-(LETTERS_SHOWN // 3 - 1) :].lstrip()}"
    return _escaped(text)


def _escaped(text: str) -> str:
    """Dollars are no formulas."""
    return text.replace("$", r"\$")


def _no_underscore(label: str) -> str:
    """Legends leave out what begins with one."""
    return f" {label}" if label.startswith("_") else label


def _key(key: str, value: Any) -> str:
    """A value that names itself, or with what it is; nothing if it is not known."""
    if value is None or value != value:
        return ""
    return _name(value) if isinstance(value, str) else f"{NAMES.get(key, key)} {_name(value)}"


def _first_word(key: str) -> int:
    """Titles begin with the word, then the video."""
    return {"token": 0, VIDEO: 1, "block": 3, "head": 4}.get(key, 2)


def _pair_name(a: Any, b: Any, sign: str = "–") -> str:
    return f"{_name(a)} {sign} {_name(b)}"


def _labels(values: Iterable[Any]) -> list[str]:
    return _unlike([_name(value) for value in values])


def _unlike(labels: list[str]) -> list[str]:
    """Labels that became alike when they were shortened, numbered."""
    often, seen = Counter(labels), Counter[str]()
    unlike = []
    for label in labels:
        seen[label] += 1
        unlike.append(f"{label} ({seen[label]})" if often[label] > 1 else label)
    return unlike


def _column_label(name: str) -> str:
    return COLUMNS.get(name, NAMES.get(name, name))


def _wrapped(label: str) -> str:
    """In lines that are no longer than a small figure is high, the unit whole."""
    what, unit, _ = label.rpartition(" (")
    lines = textwrap.wrap(what or label, 30, break_long_words=False)
    rest = label[len(what) :].strip() if what else ""
    if rest and len(lines[-1]) + len(unit) + len(rest) <= 32:
        lines[-1] += f" {rest}"
    elif rest:
        lines.append(rest)
    return "\n".join(lines)


def _metric_label(metric: str) -> str:
    kind, _, number = metric.partition("@")
    if kind == "iou":
        return f"IoU of the highest {100 * (1 - float(number)):.4g} %"
    if kind == "topk":
        return f"common among the highest {100 * float(number):.4g} %"
    return METRICS.get(kind, metric)


def _describe(
    axes: Axes, figure: Figure | None, result: Result, groups: _Groups, lines: list[Line], band: Band | None
) -> None:
    """The title: what all rows are of, and what lines and bands are; the legend."""
    told = groups.by if len(groups.levels) > 1 else []  # by the legend
    keys = [key for key in sorted(dict.fromkeys([*result.keys, *groups.by]), key=_first_word) if key not in told]
    common = [_key(key, result[key][0]) for key in keys if _levels(result, key) == 1]
    title = ", ".join(part for part in common if part and part != "position 0")
    videos = {line.videos for line in lines if line.n.max(initial=0) > 1}
    rows = max((line.rows for line in lines), default=1)
    means = []
    if videos:
        means.append(f"mean of {videos.pop()}" if len({line.videos for line in lines}) == 1 else "mean over videos")
    if rows > 1:
        means.append(f"mean of {rows} rows" + (" in each" if means else ""))
    if band and any(np.isfinite(line.low).any() for line in lines):
        means.append(BANDS[band])
    title = "\n".join(filter(None, (title, *textwrap.wrap(", ".join(means), 56))))
    axes.set_title(title, fontsize="medium")
    _legend(axes, figure, groups)


def _legend(axes: Axes, figure: Figure | None, groups: _Groups) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if groups.is_told or not groups.by or (len(groups.levels) == 1 and len(handles) < 2):
        return
    shown, there = len(groups.shown_levels), len(groups.levels)
    title = groups.title + (f"{' ' * bool(groups.title)}({shown} of {there})" if shown < there else "")
    look: dict[str, Any] = {
        "title": title or None,
        "markerscale": 1 if axes.lines or axes.patches else 1.6,
        "fontsize": "small",
        "title_fontsize": "small",
        "frameon": False,
    }
    if len(labels) > 4 or sum(map(len, labels)) > 60 or axes.patches:
        look |= {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0.0}
        if figure is not None:
            figure.set_figwidth(figure.get_figwidth() + 0.6 + _inches(labels) * 0.83)
    axes.legend(handles, labels, **look)


def _head(grid: Array, figure: Figure | None, title: str) -> None:
    """A title above all axes, or where they are somebody else's, above the first."""
    if figure is None or len(grid) == 1:
        grid[0].set_title(title, fontsize="medium")
    else:
        figure.suptitle(title, fontsize="medium")


# Axes.


def _one_axes(ax: Any) -> tuple[Axes, Figure | None]:
    grid, figure = _axes_for(ax, 1, (5.4, 3.4))
    return grid[0], figure


def _axes_for(ax: Any, count: int, size: tuple[float, float], sharey: bool = False) -> tuple[Array, Figure | None]:
    """As many axes as are needed: those that were given, or those of a new figure, three in a row."""
    if ax is not None:
        given = np.array([ax] if hasattr(ax, "get_figure") else list(np.ravel(ax)), dtype=object)
        odd = next((one for one in given if not hasattr(one, "imshow")), None)
        if odd is not None:
            raise TypeError(f"ax: {odd!r} is no Axes of matplotlib")
        if len(given) != count:
            raise ValueError(f"ax: {count} axes are needed, {len(given)} given")
        return given, None
    import matplotlib.pyplot

    lines = -(-count // 3)
    columns = -(-count // lines)
    wide = size[0] * columns + (1.0 if columns > 1 else 0)
    figure, made = matplotlib.pyplot.subplots(
        lines,
        columns,
        figsize=(wide, size[1] * lines),
        squeeze=False,
        sharey="row" if sharey else "none",
        layout="constrained",
    )
    for spare in made.ravel()[count:]:
        spare.remove()
    for axes in made.ravel()[:count]:
        axes.spines[["top", "right"]].set_visible(False)
    return made.ravel()[:count], figure


def _names_at_ticks(axes: Axes, figure: Figure | None, names: list[str]) -> None:
    """At 0, 1, …, of many some; turned where they are long: a new figure becomes higher by them."""
    turn: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    places = _evenly(len(names), BARS_SHOWN)
    shown = [names[place] for place in places]
    is_long = sum(map(len, shown)) > 40
    axes.set_xticks(places, shown, **turn if is_long else {})
    if figure is not None and is_long:
        figure.set_figheight(figure.get_figheight() + 0.55 * _inches(shown))


def _inches(labels: Iterable[str]) -> float:
    """About the width of the longest, in the usual size of letters; those of Chinese and emoji are twice as wide."""
    wide = (sum(1 + (unicodedata.east_asian_width(char) in "WF") for char in label) for label in labels)
    return 0.08 * max(wide, default=0)


def _whole_ticks(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _steady(axes: Axes, values: Array) -> None:
    """Numbers at the ticks are whole ones, and noise of rounding does not fill the axis."""
    finite = values[np.isfinite(values)]
    axes.ticklabel_format(axis="y", useOffset=False)
    if not len(finite):
        return
    low, high = float(finite.min()), float(finite.max())
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        reach = abs(high) * 0.05 or 0.5
        axes.set_ylim(min(low - reach, axes.dataLim.y0), max(high + reach, axes.dataLim.y1))
