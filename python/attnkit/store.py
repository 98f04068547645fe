"""Stores and their questions."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Literal, Union

from . import _check, _native
from ._progress import Progress, following
from .ingest import Path
from .result import Result

if TYPE_CHECKING:
    import xarray

Dimension = Literal["block", "head", "step", "video", "token", "token_index"]
Reducer = Literal["mean", "sum", "max", "min", "std", "median"]
Across = Literal["prompt", "video", "seed", "token", "weight", "step", "block", "head"]
Sort = Union[str, Sequence[str], None]


def open(path: Path) -> Store:
    """Open a store for reading.

    Parameters
    ----------
    path : path
        Its directory.

    Raises
    ------
    NotAStoreError
        If there is none at `path`.
    """
    return Store(path)


class Info:
    """What is in a store.

    Attributes
    ----------
    videos : list of dict
        `video_id`, `prompt`, `seed`, and `tokens`: of each `token`, `weight`, `steps`, `shape`, `grid`, `dtype`, `lossy`, `bytes`.
    steps : int
        Steps of all words and videos.
    bytes : dict
        `raw`, `stored`, `rollups`, `index`, `unreferenced`.
    """

    def __init__(self, contents: dict[str, Any]) -> None:
        self._contents = contents
        self.path: str = contents["path"]
        self.videos: list[dict[str, Any]] = contents["videos"]
        self.steps: int = contents["steps"]
        self.bytes: dict[str, int] = contents["bytes"]

    def to_dict(self) -> dict[str, Any]:
        """The whole description: what `attnkit info --json` prints."""
        return self._contents

    @property
    def tokens(self) -> list[str]:
        """The tracked words of all videos, sorted."""
        return sorted({word["token"] for video in self.videos for word in video["tokens"]})

    def _rows(self) -> list[list[str]]:
        rows = []
        for video in self.videos:
            for word in video["tokens"]:
                grid = word["grid"]
                rows.append(
                    [
                        video["video_id"],
                        video["prompt"] or "",
                        word["token"],
                        str(len(word["steps"])),
                        " x ".join(map(str, word["shape"] or ())),
                        "" if grid is None else f"{grid['frames']} x {grid['height']} x {grid['width']}",
                        word["dtype"] or "",
                    ]
                )
        return rows

    def _heading(self) -> str:
        counts = [(len(self.videos), "video"), (len(self.tokens), "word"), (self.steps, "step")]
        counted = ", ".join(f"{n} {name}{'' if n == 1 else 's'}" for n, name in counts)
        return f"{counted}, {self.bytes['raw']:,} bytes of maps in {self.bytes['stored']:,}"

    def __repr__(self) -> str:
        return f"<attnkit.Info of {self.path}: {self._heading()}; words {', '.join(self.tokens)}>"

    def _repr_html_(self) -> str:
        head = ["video", "prompt", "word", "steps", "block x head x spatial x token", "frames x height x width", "type"]
        rows = self._rows()
        shown = rows[:40]
        more = f"<p>and {len(rows) - len(shown)} more</p>" if len(rows) > len(shown) else ""
        cells = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in shown)
        columns = "".join(f"<th>{name}</th>" for name in head)
        return f"<p>{escape(self._heading())}</p><table><thead><tr>{columns}</tr></thead><tbody>{cells}</tbody></table>{more}"


class Store:
    """A store, opened for reading: see `attnkit.open`.

    Every question takes the same conditions: `where`, an SQL condition over the columns of both tables, such as
    `"token IN ('flower', 'tree') AND step < 10 AND entropy < 6"`, and `video`, `token`, `step`, `block`, `head` for what is asked most.
    Conditions on single maps (`block`, `head`, the statistics) select single maps; only the chunks that hold them are read.

    `skipna` leaves out NaN and infinite values, which propagate otherwise; `rollups=False` computes means from the full arrays even
    where a stored mean has them. `progress` is True for a tqdm bar, a tqdm class, or a function of (bytes done, bytes in all).

    Parameters
    ----------
    path : path
        Directory of the store.
    """

    def __init__(self, path: Path) -> None:
        self._path = _check.path(path)
        # Found again if the working directory changes.
        self._native = _native.Store(os.path.abspath(self._path))

    @property
    def path(self) -> str:
        """Where it is, as it was opened."""
        return self._path

    def __repr__(self) -> str:
        info = self.info()
        return f"<attnkit.Store {self.path}: {info._heading()}; words {', '.join(info.tokens)}>"

    def _repr_html_(self) -> str:
        return self.info()._repr_html_()

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (str(self._native.path),)

    def info(self) -> Info:
        """What is in it: videos, prompts, words, steps, shapes, bytes."""
        return Info({**json.loads(self._native.contents()), "path": self.path})

    # Tables.

    @property
    def steps(self) -> Result:
        """The table `steps`: one row per (video, word, step). See `columns`."""
        return self.list("steps")

    @property
    def heads(self) -> Result:
        """The table `heads`: one row per map, with its statistics. See `columns`."""
        return self.list("heads")

    @staticmethod
    def columns() -> Result:
        """Table, name and type of every column."""
        return Result(_native.columns(), ["table", "column"])

    def list(
        self,
        table: Literal["steps", "heads"] = "steps",
        *,
        where: str | None = None,
        video: str | None = None,
        token: str | None = None,
        step: int | None = None,
        block: int | None = None,
        head: int | None = None,
        columns: str | Sequence[str] | None = None,
        sort: Sort = None,
        limit: int | None = None,
    ) -> Result:
        """Rows of a table.

        Parameters
        ----------
        table : str
            `"steps"`, one row for each step, or `"heads"`, one for each map.
        where : str, optional
            SQL condition over the columns of both tables, such as `"step < 10 AND top5 > 0.3"`.
        video, token : str, optional
            Only this video, only this word.
        step, block, head : int, optional
            Only this step, block or head, by its number.
        columns : sequence of str, optional
            Of either table; default: all of `table`.
        sort : str or sequence of str, optional
            Columns to sort by; `"entropy:desc"` descends. NaN and null come last.
        limit : int, optional
            Keep the first rows.
        """
        asked = _asked(where, video, token, step, block, head)
        names = None if columns is None else _check.names(columns)
        answer = self._native.list(asked, table, names, _sort(sort), _check.positive("limit", limit, least=0))
        keys = ["video_id", "token", "step", *(["token_index", "block", "head"] if table == "heads" else [])]
        return Result(answer, keys if set(keys) <= set(answer.columns) else [])

    def sql(self, statement: str) -> Result:
        """Rows of a SELECT over the tables `steps` and `heads`, in the dialect of Polars.

        Parameters
        ----------
        statement : str
            `SELECT …`; the store is only read.

        Examples
        --------
        >>> store.sql("SELECT token, avg(gini) FROM heads GROUP BY token")  # doctest: +SKIP
        """
        return Result(self._native.sql(statement))

    # Maps.

    def average(
        self,
        over: Dimension | Sequence[Dimension] = ("block", "head"),
        where: str | None = None,
        *,
        video: str | None = None,
        token: str | None = None,
        step: int | None = None,
        block: int | None = None,
        head: int | None = None,
        reducer: Reducer = "mean",
        values: bool = True,
        sort: Sort = None,
        limit: int | None = None,
        skipna: bool = False,
        rollups: bool = True,
        progress: Progress = False,
    ) -> Result:
        """Maps reduced to one for each combination of what is not averaged over.

        Parameters
        ----------
        over : str or sequence of str
            Any of `block`, `head`, `step`, `video`, `token`, `token_index`.
        where : str, optional
            SQL condition over the columns of both tables, such as `"step < 10 AND top5 > 0.3"`.
        video, token : str, optional
            Only this video, only this word.
        step, block, head : int, optional
            Only this step, block or head, by its number.
        reducer : str
            What becomes of the values at a position: `mean`, `sum`, `max`, `min`, `std` (of the population) or `median`.
        values : bool
            Keep the maps; if not, only their statistics.
        sort : str or sequence of str, optional
            Columns to sort by; `"entropy:desc"` descends.
        limit : int, optional
            Keep the first rows.
        skipna : bool
            Leave out NaN and infinite values, which propagate otherwise.
        rollups : bool
            Take stored means where they answer exactly; False computes from the full arrays.
        progress : bool, tqdm class or function of (bytes done, bytes in all)
            Show or tell the progress.

        Returns
        -------
        Result
            A row per map: the keys, `n` maps that went in, the grid, and the statistics of the result. The maps are float32,
            `[map, frame, height, width]`.

        Examples
        --------
        >>> store.average(over=["block", "head", "step"], where="top5 > 0.3").to_xarray()  # doctest: +SKIP
        """
        asked = _asked(where, video, token, step, block, head, reducer, skipna, rollups)
        dimensions = _check.names(over)
        rows = _check.positive("limit", limit, least=0)
        with following(progress, "average") as report:
            return Result(self._native.average(asked, dimensions, values, _sort(sort), rows, report))

    def map(
        self,
        video: str | None = None,
        token: str | None = None,
        step: int | None = None,
        *,
        block: int | None = None,
        head: int | None = None,
        where: str | None = None,
        size: tuple[int, int] | None = None,
        frames: int | None = None,
        placement: Literal["causal", "even"] = "causal",
        reducer: Reducer = "mean",
        skipna: bool = False,
        rollups: bool = True,
        progress: Progress = False,
    ) -> Result:
        """One spatial map: of one step of one word in one video, averaged over blocks and heads unless one is chosen.

        Parameters
        ----------
        where : str, optional
            SQL condition over the columns of both tables, such as `"step < 10 AND top5 > 0.3"`.
        video, token : str, optional
            The video and the word.
        step, block, head : int, optional
            Only this step, block or head, by its number.
        size : tuple of int, optional
            (height, width) in pixels to resample to, linearly.
        frames : int, optional
            Frames to resample to.
        placement : str
            Where latent frames lie among these: `"causal"` as the VAE decodes them (latent frame 0 is frame 0, each further one stands for
            the next 4, or as many as there are), `"even"` all of one length, interpolated.
        reducer : str
            What becomes of the values at a position: `mean`, `sum`, `max`, `min`, `std` (of the population) or `median`.
        skipna : bool
            Leave out NaN and infinite values, which propagate otherwise.
        rollups : bool
            Take stored means where they answer exactly; False computes from the full arrays.
        progress : bool, tqdm class or function of (bytes done, bytes in all)
            Show or tell the progress.

        Returns
        -------
        Result
            `to_numpy()` is `[frame, height, width]`, float32; in a notebook it shows the picture.
        """
        asked = _asked(where, video, token, step, block, head, reducer, skipna, rollups)
        pixels = _check.sizes("size", size, "height, width")
        wanted_frames = _check.positive("frames", frames)
        with following(progress, "map") as report:
            return Result(self._native.map(asked, pixels, wanted_frames, placement, report))

    def evolution(
        self,
        where: str | None = None,
        *,
        video: str | None = None,
        token: str | None = None,
        step: int | None = None,
        block: int | None = None,
        head: int | None = None,
        by: Literal["block", "head"] | None = None,
        reducer: Reducer = "mean",
        skipna: bool = False,
        rollups: bool = True,
        progress: Progress = False,
    ) -> Result:
        """A word's attention through the denoising steps.

        Parameters
        ----------
        where : str, optional
            SQL condition over the columns of both tables, such as `"step < 10 AND top5 > 0.3"`.
        video, token : str, optional
            Only this video, only this word.
        step, block, head : int, optional
            Only this step, block or head, by its number.
        by : str, optional
            A series for each `block` or `head` instead of the mean over all.
        reducer : str
            What becomes of the values at a position: `mean`, `sum`, `max`, `min`, `std` (of the population) or `median`.
        skipna : bool
            Leave out NaN and infinite values, which propagate otherwise.
        rollups : bool
            Take stored means where they answer exactly; False computes from the full arrays.
        progress : bool, tqdm class or function of (bytes done, bytes in all)
            Show or tell the progress.

        Returns
        -------
        Result
            A row per step of each series: statistics of its mean map, and its change against the step before (`…_previous`) and the
            last one (`…_last`): cosine similarity, Jensen-Shannon divergence in nats, shift of the centroid in grid cells.
        """
        asked = _asked(where, video, token, step, block, head, reducer, skipna, rollups)
        with following(progress, "evolution") as report:
            return Result(self._native.evolution(asked, by, report))

    def compare(
        self,
        across: Across,
        where: str | None = None,
        *,
        video: str | None = None,
        token: str | None = None,
        step: int | None = None,
        block: int | None = None,
        head: int | None = None,
        metric: str | Sequence[str] = ("cosine", "js", "iou@0.8", "centroid", "mass_ratio"),
        align: Literal["step", "timestep", "last", "mean"] = "step",
        against: str | float | None = None,
        form: Literal["pairs", "matrix", "maps"] = "pairs",
        reducer: Reducer = "mean",
        skipna: bool = False,
        rollups: bool = True,
        progress: Progress = False,
    ) -> Result:
        """Groups of maps compared pair by pair.

        Parameters
        ----------
        across : str
            What distinguishes the two sides.
        where : str, optional
            SQL condition over the columns of both tables, such as `"step < 10 AND top5 > 0.3"`.
        video, token : str, optional
            Only this video, only this word.
        step, block, head : int, optional
            Only this step, block or head, by its number.
        metric : str or sequence of str
            Any of `cosine`, `pearson`, `spearman`, `js`, `kl`, `iou@0.8`, `topk@0.1`, `emd`, `ssim`, `l2`, `centroid`, `mass_ratio`.
        align : str
            Which steps are compared: of the same number, nearest in the scheduler's timestep, the last of each side, or the means over
            all.
        against : str or number, optional
            The side that all others are compared with; default: every pair (across weights: the one nearest 1).
        form : str
            `pairs`: a row for each pair, step and metric; `matrix`: for each metric a square table of means over the steps; `maps`:
            the difference maps a - b.
        reducer : str
            What becomes of the values at a position: `mean`, `sum`, `max`, `min`, `std` (of the population) or `median`.
        skipna : bool
            Leave out NaN and infinite values, which propagate otherwise.
        rollups : bool
            Take stored means where they answer exactly; False computes from the full arrays.
        progress : bool, tqdm class or function of (bytes done, bytes in all)
            Show or tell the progress.

        Returns
        -------
        Result
            Of pairs: `a`, `b`, `step`, `metric`, `value`, and `n` maps of both sides (across weights also `slope` and `trend`). As xarray, a
            matrix has the dimensions `metric`, `a` and `b`.
        """
        asked = _asked(where, video, token, step, block, head, reducer, skipna, rollups)
        metrics = _check.names(metric)
        reference = None if against is None else str(against)
        with following(progress, "compare") as report:
            answer = self._native.compare(asked, across, align, metrics, reference, form, report)
        if form == "matrix":
            return Result(answer, ["metric", "a"], square=True)
        # Where steps are not told apart, the column is empty.
        told_apart = ["a", "b", "step"] if align in ("step", "timestep") and across != "step" else ["a", "b"]
        return Result(answer, [*told_apart, "metric"] if form == "pairs" else told_apart)

    def xarray(self, video: str, token: str, *, chunks: Any = "auto", dtype: str | None = None) -> xarray.Dataset:
        """The arrays of a word as a lazy, labelled Dataset: nothing is read before it is needed.

        Parameters
        ----------
        video, token : str
            The video's id, and the word.
        chunks : optional
            Dask chunks; `"auto"` makes a chunk of each step where dask is installed, None leaves dask out.
        dtype : str, optional
            Type of the variables: `"float32"`, `"float64"`, `"float16"`, or `"stored"` for that of the arrays. By default that of the arrays, but
            float32 instead of float16, in which sums and means of attention lose most of their digits.

        Returns
        -------
        xarray.Dataset
            `attention` `[step, block, head, frame, height, width, token]`, and where the store has them `mean_head`, `mean_block` and `mean`.
            `spatial` instead of frame, height and width if the grid is not known.
            Coordinates: `step`, `timestep`, `block`, `head` and positions.
        """
        from .lazy import open_dataset

        return open_dataset(self, video, token, chunks, dtype)


def _asked(
    where: str | None,
    video: str | None,
    token: str | None,
    step: int | None,
    block: int | None,
    head: int | None,
    reducer: str = "mean",
    skipna: bool = False,
    rollups: bool = True,
) -> dict[str, Any]:
    return {
        "where": where,
        "video": _check.one_name("video", "video_id", video),
        "token": _check.one_name("token", "token", token),
        "step": _check.one_number("step", step),
        "block": _check.one_number("block", block),
        "head": _check.one_number("head", head),
        "reducer": reducer,
        "skipna": skipna,
        "rollups": rollups,
    }


def _sort(sort: Sort) -> list[tuple[str, bool]]:
    """(column, whether it descends)"""
    columns = [] if sort is None else _check.names(sort)
    return [(column.removesuffix(":desc"), column.endswith(":desc")) for column in columns]
