"""Stores and their questions."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, cast

from . import _check, _native
from ._progress import Progress, following
from .drawing import Axis, Drawn, Figure, Film, Kind, Look, backdrop, drawn, draws, look, replace
from .ingest import Path
from .reports import CompactReport, ExportReport, GcReport, RollupReport, VerifyReport
from .result import Result
from .where import Asked, OfOneMap, Selected, Where, asked, asks, selected

if TYPE_CHECKING:
    import xarray
    from typing_extensions import Unpack

    from .lazy import Word

Dimension = Literal["block", "head", "step", "video", "token", "token_index"]
Across = Literal["prompt", "video", "seed", "token", "weight", "step", "block", "head"]
Sort = str | Sequence[str] | None
Question = Literal["list", "sql", "average", "evolution", "map", "compare"]
_PLACEMENT = {"vae": "causal", "even": "even"}
_QUESTIONS: tuple[Question, ...] = ("list", "sql", "average", "evolution", "map", "compare")


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
        `video_id`, `prompt`, `seed`, and `tokens`: of each `token`, `weight`, `steps`, `shape`, `grid`, `dtype`,
        `lossy`, `bytes`.
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
        table = f"<table><thead><tr>{columns}</tr></thead><tbody>{cells}</tbody></table>"
        return f"<p>{escape(self._heading())}</p>{table}{more}"


class Store:
    """A store, opened for reading: see `attnkit.open`.

    Every question takes the same conditions, which `attnkit.Where` tells: `where`, an SQL condition over the columns of
    both tables, such as `"token IN ('flower', 'tree') AND step < 10 AND entropy < 6"`, and `video`, `token`, `step`,
    `block`, `head` for what is asked most. Conditions on single maps (`block`, `head`, the statistics) select single
    maps; only the chunks that hold them are read.

    `progress` is True for a tqdm bar, a tqdm class, or a function of (bytes done, bytes in all).

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
        return Result(_native.columns())

    @asks(Selected)
    def list(
        self,
        table: Literal["steps", "heads"] = "steps",
        *,
        where: str | Where | None = None,
        columns: str | Sequence[str] | None = None,
        sort: Sort = None,
        limit: int | None = None,
        **more: Unpack[Selected],
    ) -> Result:
        """Rows of a table.

        Parameters
        ----------
        table : str
            `"steps"`, one row for each step, or `"heads"`, one for each map.
        **more : see `Where`
        columns : sequence of str, optional
            Of either table; default: all of `table`.
        sort : str or sequence of str, optional
            Columns to sort by; `"entropy:desc"` descends. NaN and null come last.
        limit : int, optional
            Keep the first rows.
        """
        maps = selected(where, more, "rows are of maps as they are")
        return self._ask("list", filter=maps, table=table, arrange=_arranged(sort, limit, columns))

    def sql(self, statement: str) -> Result:
        """Rows of a SELECT over the tables `steps`, `heads` and `text`, in the dialect of Polars.

        Parameters
        ----------
        statement : str
            `SELECT …`; the store is only read.

        Examples
        --------
        >>> store.sql("SELECT token, avg(gini) FROM heads GROUP BY token")  # doctest: +SKIP
        """
        return self._ask("sql", statement=statement)

    # Maps.

    @asks(Asked)
    def average(
        self,
        over: Dimension | Sequence[Dimension] = ("block", "head"),
        where: str | Where | None = None,
        *,
        by: Across | Sequence[Across] = (),
        values: bool = True,
        sort: Sort = None,
        limit: int | None = None,
        progress: Progress = False,
        **more: Unpack[Asked],
    ) -> Result:
        """Maps reduced to one for each combination of what is not averaged over.

        Parameters
        ----------
        over : str or sequence of str
            Any of `block`, `head`, `step`, `video`, `token`, `token_index`.
        by : str or sequence of str
            What to keep apart instead, over all else: any of `video`, `prompt`, `seed`, `token`, `weight`, `step`,
            `block`, `head`.
        **more : see `Where`
        values : bool
            Keep the maps; if not, only their statistics.
        sort : str or sequence of str, optional
            Columns to sort by; `"entropy:desc"` descends.
        limit : int, optional
            Keep the first rows.
        progress : bool, tqdm class or function of (bytes done, bytes in all)
            Show or tell the progress.

        Returns
        -------
        Result
            A row per map: the keys, `n` maps that went in, the grid, and the statistics of the result. The maps are
            float32, `[map, frame, height, width]`.

        Examples
        --------
        >>> store.average(over=["block", "head", "step"], where="top5 > 0.3").to_xarray()  # doctest: +SKIP
        """
        return self._ask(
            "average",
            progress,
            **asked(where, more),
            over=_check.names("over", over),
            by=_check.names("by", by),
            values=values,
            arrange=_arranged(sort, limit),
        )

    @asks(OfOneMap)
    def map(
        self,
        video: str | None = None,
        token: str | None = None,
        step: SupportsIndex | None = None,
        *,
        where: str | Where | None = None,
        size: tuple[int, int] | None = None,
        frames: int | None = None,
        time: Literal["vae", "even"] = "vae",
        progress: Progress = False,
        **more: Unpack[OfOneMap],
    ) -> Result:
        """One spatial map: of one step of one word in one video, averaged over blocks and heads unless one is chosen.

        Parameters
        ----------
        **more : see `Where`
        size : tuple of int, optional
            (height, width) in pixels to resample to, linearly.
        frames : int, optional
            Frames to resample to.
        time : str
            Where latent frames lie among these: `"vae"` as a causal VAE decodes them (latent frame 0 is frame 0, each
            further one stands for the next 4, or as many as there are), `"even"` all of one length, interpolated.
        progress : bool, tqdm class or function of (bytes done, bytes in all)
            Show or tell the progress.

        Returns
        -------
        Result
            `to_numpy()` is `[frame, height, width]`, float32; in a notebook it shows the picture.
        """
        maps = asked(where, {"video": video, "token": token, "step": step, **more})
        pixels = _check.sizes("size", size, "height, width")
        shown = _check.positive("frames", frames)
        return self._ask("map", progress, **maps, size=pixels, frames=shown, placement=_placement(time))

    @asks(Asked)
    def evolution(
        self,
        where: str | Where | None = None,
        *,
        by: Literal["block", "head"] | None = None,
        progress: Progress = False,
        **more: Unpack[Asked],
    ) -> Result:
        """A word's attention through the denoising steps.

        Parameters
        ----------
        **more : see `Where`
        by : str, optional
            A series for each `block` or `head` instead of the mean over all.
        progress : bool, tqdm class or function of (bytes done, bytes in all)
            Show or tell the progress.

        Returns
        -------
        Result
            A row per step of each series: statistics of its mean map, and its change against the step before
            (`…_previous`) and the last one (`…_last`): cosine similarity, Jensen-Shannon divergence in nats, shift of
            the centroid in grid cells.
        """
        return self._ask("evolution", progress, **asked(where, more), by=by)

    @asks(Asked)
    def compare(
        self,
        across: Across,
        where: str | Where | None = None,
        *,
        metric: str | Sequence[str] | None = None,
        align: Literal["step", "timestep", "last", "mean"] = "step",
        against: str | float | None = None,
        form: Literal["pairs", "matrix", "maps"] = "pairs",
        progress: Progress = False,
        **more: Unpack[Asked],
    ) -> Result:
        """Groups of maps compared pair by pair.

        Parameters
        ----------
        across : str
            What distinguishes the two sides.
        **more : see `Where`
        metric : str or sequence of str, optional
            Any of `cosine`, `pearson`, `spearman`, `js`, `kl`, `iou@0.8`, `topk@0.1`, `emd`, `ssim`, `l2`, `centroid`,
            `mass_ratio`; default: `cosine`, `js`, `iou@0.8`, `centroid` and `mass_ratio`.
        align : str
            Which steps are compared: of the same number, nearest in the scheduler's timestep, the last of each side, or
            the means over all.
        against : str or number, optional
            The side that all others are compared with; default: every pair (across weights: the one nearest 1).
        form : str
            `pairs`: a row for each pair, step and metric; `matrix`: for each metric a square table of means over the
            steps; `maps`: the difference maps a - b.
        progress : bool, tqdm class or function of (bytes done, bytes in all)
            Show or tell the progress.

        Returns
        -------
        Result
            Of pairs: `a`, `b`, `step`, `metric`, `value`, and `n` maps of both sides (across weights also `slope` and
            `trend`). As xarray, a matrix has the dimensions `metric`, `a` and `b`.
        """
        return self._ask(
            "compare",
            progress,
            **asked(where, more),
            across=across,
            align=align,
            **({} if metric is None else {"metric": _check.names("metric", metric)}),
            against=_check.side("against", against),
            form=form,
        )

    def _ask(self, question: Question, progress: Progress = False, **fields: Any) -> Result:
        asked = _native.Question(_check.question(question, fields))
        with following(progress, question) as report:
            return Result(asked.ask(self._native, report))

    def explain(self, question: Question, **arguments: Any) -> str:
        """What a question would read and do, without doing it.

        Parameters
        ----------
        question : str
            `list`, `sql`, `average`, `evolution`, `map` or `compare`.
        arguments : of the method of that name
            By their names.

        Examples
        --------
        >>> print(store.explain("average", over=["block", "head"], where="step < 10"))  # doctest: +SKIP
        """
        if question not in _QUESTIONS:
            raise ValueError(f"question: {question!r} is not one of {', '.join(_QUESTIONS)}")
        plan: str = getattr(_Explained(self.path, self._native), question)(**arguments)
        return plan

    def xarray(self, video: str, token: str, *, chunks: Any = "auto", dtype: str | None = None) -> xarray.Dataset:
        """The arrays of a word as a lazy, labelled Dataset: nothing is read before it is needed.

        Parameters
        ----------
        video, token : str
            The video's id, and the word.
        chunks : optional
            Dask chunks; `"auto"` makes a chunk of each step where dask is installed, None leaves dask out.
        dtype : str, optional
            Type of the variables: `"float32"`, `"float64"`, `"float16"`, or `"stored"` for that of the arrays. By
            default that of the arrays, but float32 instead of float16, in which sums and means of attention lose most
            of their digits.

        Returns
        -------
        xarray.Dataset
            `attention` `[step, block, head, frame, height, width, token]`, and where the store has them `mean_head`,
            `mean_block` and `mean`. `spatial` instead of frame, height and width if the grid is not known. Coordinates:
            `step`, `timestep`, `block`, `head` and positions.
        """
        from .lazy import open_dataset

        return open_dataset(self, video, token, chunks, dtype)

    def word(self, video: str, token: str) -> Word:
        """A word by its names, which `xarray.open_dataset` and `open_mfdataset` take as a file of engine `attnkit`.

        Parameters
        ----------
        video, token : str
            The video's id, and the word.
        """
        from .lazy import Word

        return Word(str(self._native.path), video, token)

    # Drawings.

    @draws
    def render(
        self,
        kind: Kind,
        where: str | Where | None = None,
        *,
        by: Across | Sequence[Across] | None = None,
        frames: Sequence[int] | None = None,
        arrangement: Literal["auto", "row", "grid"] | None = None,
        rows: Axis | None = None,
        cols: Axis | None = None,
        frame: int | None = None,
        value: str | None = None,
        each: bool | None = None,
        across: Across | None = None,
        a: str | float | None = None,
        b: str | float | None = None,
        metric: str | None = None,
        against: str | float | None = None,
        align: Literal["step", "timestep", "last", "mean"] | None = None,
        clustered: bool | None = None,
        progress: Progress = False,
        **more: Unpack[Drawn],
    ) -> Figure:
        """A drawing, as `attnkit render` makes it. In a notebook it is shown.

        Parameters
        ----------
        kind : str
            `heatmap`: the frames of maps (`by`, `frames`, `arrangement`); `sheet`: maps in rows and columns (`rows`,
            `cols`, `frame`); `heads`: blocks by heads (`value`, `frame`); `evolution`: a statistic through the steps
            (`value`, `by`, `each`); `frames`: attention over the latent frames (`each`); `weights`: a metric over the
            word's weight (`metric`, `against`); `matrix`: how alike sides are (`across`, `metric`, `align`,
            `clustered`); `compare`: two sides and their difference (`across`, `a`, `b`).
        **more : see `Where`
        by : str or sequence of str, optional
            What each map is of, such as `["seed", "token"]`; of an evolution, `block` or `head`.
        frames : sequence of int, optional
            The latent frames to show.
        arrangement : str, optional
            Frames in rows of up to eight (`auto`), all in a `row`, or as a `grid`.
        rows, cols : str, optional
            `token`, `step`, `block`, `head`, `frame`, `video`, `prompt`, `seed` or `weight`.
        frame : int, optional
            The latent frame that is shown; default: the mean over frames.
        value : str, optional
            A statistic, such as `top5` or `gini`; of heads also `map`, a thumbnail of each.
        each : bool, optional
            A line for each video instead of their mean.
        across : str, optional
            What distinguishes the sides.
        a, b : str or number, optional
            The two sides; default: the only two.
        metric : str, optional
            What is measured, as in `compare`.
        against : str or number, optional
            The weight that others are compared with.
        align : str, optional
            Which steps are compared, as in `compare`.
        clustered : bool, optional
            Put beside each other what is alike.
        progress : bool, tqdm class or function of (bytes done, bytes in all)
            Show or tell the progress.

        Returns
        -------
        Figure
            `save("x.png")` (or `.svg`, `.webp`) writes it.

        Examples
        --------
        >>> store.render("sheet", video="v1", rows="token", cols="step").save("sheet.png")  # doctest: +SKIP
        """
        maps, given = _apart(where, more)
        fields: dict[str, Any] = {
            "by": by if by is None or kind == "evolution" else _check.names("by", by),
            "frames": frames if frames is None else [int(number) for number in frames],
            "arrangement": arrangement,
            "rows": rows,
            "columns": cols,
            "frame": frame,
            "value": value,
            "each": each,
            "across": across,
            "a": _check.side("a", a),
            "b": _check.side("b", b),
            "metric": metric,
            "against": _check.side("against", against),
            "align": align,
            "clustered": clustered,
        }
        if kind == "heads" and value not in (None, "map"):
            fields["value"] = {"statistic": value}
        return drawn(self, kind, {**maps, **fields}, given, progress)

    @draws
    def overlay(
        self,
        frames: Path,
        where: str | Where | None = None,
        *,
        show: Sequence[int] = (),
        time: Literal["vae", "even"] = "vae",
        alpha: float | str = "value:0.8",
        progress: Progress = False,
        **more: Unpack[Drawn],
    ) -> Figure:
        """Maps over some frames of their video: a row for each word.

        Parameters
        ----------
        frames : path
            A directory of PNG, JPEG or WebP files, in the order of their numbers, or a video, which ffmpeg reads.
        **more : see `Where`
        show : sequence of int
            The frames to show; default: five, evenly spread.
        time : str
            Where latent frames lie among them: `"vae"` as a causal VAE decodes them, or `"even"`.
        alpha : float or str
            How opaque maps are, from 0 to 1; `"value:0.8"`: growing with the value up to that.
        progress : bool, tqdm class or function of (bytes done, bytes in all)
            Show or tell the progress.

        Returns
        -------
        Figure
            `save("x.png")` (or `.svg`, `.webp`) writes it.
        """
        maps, given = _apart(where, more)
        over = {
            "backdrop": backdrop(frames),
            "placement": _placement(time),
            "alpha": _alpha(alpha),
            "frames": list(show),
        }
        return drawn(self, "overlay", {**maps, **over}, given, progress)

    @draws
    def film(
        self,
        where: str | Where | None = None,
        *,
        frames: Path | int | None = None,
        along: Literal["frames", "steps", "blocks"] = "frames",
        frame: int | None = None,
        time: Literal["vae", "even"] = "vae",
        alpha: float | str = "value:0.8",
        together: bool = False,
        fps: float | None = None,
        **more: Unpack[Drawn],
    ) -> Film:
        """A film of maps: of one video, a panel for each word. In a notebook it is shown.

        Parameters
        ----------
        **more : see `Where`
        frames : path or int, optional
            The frames of the video, to lay the maps over: a directory or a video; or how many it has.
        along : str
            Through the `frames`, or one frame through the `steps` or the `blocks`.
        frame : int, optional
            Along steps or blocks: the latent frame; default: the middle one.
        time : str
            Where latent frames lie among those of the video: `"vae"` as a causal VAE decodes them, or `"even"`.
        alpha : float or str
            How opaque maps are, from 0 to 1; `"value:0.8"`: growing with the value up to that.
        together : bool
            All words in one picture, each by a colour.
        fps : float, optional
            Pictures a second; default: 16 of a video, 4 of latent frames and steps, 2 of blocks.

        Returns
        -------
        Film
            `save("x.gif")` (or `.png`, `.webp`; with ffmpeg `.mp4`, `.webm`) draws and writes it.
        """
        maps, given = _apart(where, more)
        asked_for: dict[str, Any] = {
            **maps,
            "along": along,
            "placement": _placement(time),
            "alpha": _alpha(alpha),
            "frame": frame,
            "together": together,
            "fps": fps,
        }
        if isinstance(frames, int):
            asked_for["frames"] = _check.positive("frames", frames)
        elif frames is not None:
            asked_for["backdrop"] = backdrop(frames)
        return Film(self, json.dumps(asked_for), look(given))

    @asks(Selected)
    def report(
        self,
        path: Path,
        where: str | Where | None = None,
        *,
        frames: Path | None = None,
        title: str | None = None,
        progress: Progress = False,
        **more: Unpack[Selected],
    ) -> None:
        """Write a page on what is in the store: one HTML file that needs nothing beside it.

        Parameters
        ----------
        path : path
            The file.
        **more : see `Where`
        frames : path, optional
            A directory that has for each video a directory of frames, or the video, of its name; default: they are
            looked for beside the maps.
        title : str, optional
            What stands above; default: the store's name.
        progress : bool, tqdm class or function of (figures done, figures in all)
            Show or tell the progress.
        """
        filter = json.dumps(selected(where, more, "a report chooses how maps become one"))
        of_frames = None if frames is None else _check.path(frames)

        def write(staged: FilePath) -> None:
            with following(progress, "report") as told:
                _native.report(self._native, filter, staged, of_frames, title, told)

        replace(FilePath(_check.path(path)), write)

    # Keeping it in order.

    @asks(Selected)
    def verify(
        self,
        against: Path | Iterable[Path] = (),
        where: str | Where | None = None,
        *,
        prefix: str | None = None,
        progress: Progress = False,
        **more: Unpack[Selected],
    ) -> VerifyReport:
        """Check every byte, row, statistic and stored mean, and every value against the dump.

        Parameters
        ----------
        against : path or iterable of paths
            Dumps to compare with, bit for bit; files of theirs that the store lacks are named: look at that before you
            delete them.
        **more : see `Where`
            Only steps of which at least one map is selected.
        prefix : str, optional
            The prefix that the dump was ingested with.
        progress : bool, tqdm class or function of (steps done, steps in all)
            Show or tell the progress.

        Returns
        -------
        VerifyReport
            True if all is well; otherwise its `faults` and what is `lacking` say what is not.

        Raises
        ------
        NotFoundError
            If there is no dump, or nothing of the store is in it.
        """
        maps = selected(where, more, "verify takes whole steps")
        with following(progress, "verify", "step") as report:
            done = self._native.verify(json.dumps(maps), _check.paths(against), prefix, report)
        return VerifyReport(**json.loads(done))

    @asks(Selected)
    def export(
        self,
        to: Path,
        where: str | Where | None = None,
        *,
        layout: Literal["flat", "nested"] = "flat",
        format: Literal["npy", "npy.gz"] = "npy",
        progress: Progress = False,
        **more: Unpack[Selected],
    ) -> ExportReport:
        """Write it back as a dump: step files, metadata and summaries in `to`/attention_maps; again, it goes on.

        Parameters
        ----------
        to : path
            A new or empty directory.
        **more : see `Where`
            Only steps of which at least one map is selected.
        layout : str
            Directories as `prompt_000_vid001` (`flat`) or `prompt_000/vid001` (`nested`).
        format : str
            Of the step files: `npy` or `npy.gz`.
        progress : bool, tqdm class or function of (steps done, steps in all)
            Show or tell the progress.

        Returns
        -------
        ExportReport

        Raises
        ------
        ExportError
            If the directory is not empty or cannot be written.
        StoreError
            If what is to be written is damaged.
        """
        maps = selected(where, more, "export takes whole steps")
        with following(progress, "export", "step") as report:
            done = self._native.export(json.dumps(maps), _check.path(to), layout, format, report)
        return ExportReport(**json.loads(done))

    def gc(self, *, dry_run: bool = False, single_writer: bool = False, progress: Progress = False) -> GcReport:
        """Remove what no commit names: old versions of changed videos, and what an interrupted ingest left.

        Parameters
        ----------
        dry_run : bool
            Remove nothing, and return what would be.
        single_writer : bool
            Promise that no other process writes into the store: it may be on a file system without locks then.
        progress : bool, tqdm class or function of (bytes removed, bytes in all)
            Show or tell the progress.

        Returns
        -------
        GcReport

        Raises
        ------
        StoreError
            If somebody is writing into the store, or something cannot be removed.
        """
        with following(progress, "gc") as report:
            removed = self._native.gc(dry_run, single_writer, report)
        return GcReport(json.loads(removed), dry_run)

    def rollup(
        self,
        rollups: Literal["all", "auto", "none"],
        *,
        videos: str | Sequence[str] = (),
        tokens: str | Sequence[str] = (),
        single_writer: bool = False,
        threads: SupportsIndex | None = None,
        progress: Progress = False,
    ) -> RollupReport:
        """Add rollups to words of the store, or take them away, from the store's own values.

        Rollups are the means over blocks, heads and both, by which means are answered without decoding maps. Arrays of
        words that get others are written anew, and each video is committed as by an ingest.

        Parameters
        ----------
        rollups : str
            Which the words have afterwards: `all`, `auto` (those that cost next to nothing) or `none`.
        videos, tokens : str or sequence of str
            Globs of video ids and words; empty: all.
        single_writer : bool
            Promise that no other process writes into the store: it may be on a file system without locks then.
        threads : int, optional
            Default: one per core.
        progress : bool, tqdm class or function of (bytes read, bytes in all)
            Show or tell the progress.

        Returns
        -------
        RollupReport

        Raises
        ------
        StoreError
            If the store cannot be read or written.
        ValueError
            If no word matches.
        """
        names = (_check.names("videos", videos), _check.names("tokens", tokens))
        count = _check.positive("threads", threads, least=0) or 0
        with following(progress, "rollup") as report:
            done = json.loads(self._native.rollup(rollups, *names, single_writer, count, report))
        return RollupReport(**{**done, "bytes": tuple(done["bytes"])})

    def compact(self, *, single_writer: bool = False, progress: Progress = False) -> CompactReport:
        """Pack the tables of many videos into a few files, which are listed and filtered faster.

        What the store says stays the same, for every reader: each row is there once, also while it runs, and writers
        may go on. `attnkit.ingest` does it by itself at its end if 256 videos or more are not packed.

        Parameters
        ----------
        single_writer : bool
            Promise that no other process writes into the store: it may be on a file system without locks then.
        progress : bool, tqdm class or function of (bytes packed, bytes in all)
            Show or tell the progress.

        Returns
        -------
        CompactReport

        Raises
        ------
        StoreError
            If the tables cannot be read or written, or others keep committing what is packed.
        """
        with following(progress, "compact") as report:
            done = json.loads(self._native.compact(single_writer, report))
        return CompactReport(done["videos"], done["packs"], tuple(done["files"]), tuple(done["bytes"]))


class _Explained(Store):
    """Tells the plan of a question instead of its answer."""

    def __init__(self, path: str, native: _native.Store) -> None:
        self._path, self._native = path, native

    def _ask(self, question: Question, progress: Progress = False, **fields: Any) -> Any:
        return _native.Question(_check.question(question, fields)).explain(self._native).rstrip("\n")


def _arranged(sort: Sort, limit: SupportsIndex | None, columns: str | Sequence[str] | None = None) -> dict[str, Any]:
    """How an answer is ordered and cut."""
    return {
        "sort": [] if sort is None else _check.names("sort", sort),
        "limit": _check.positive("limit", limit, least=0),
        "columns": None if columns is None else _check.names("columns", columns),
    }


def _apart(where: str | Where | None, more: Drawn) -> tuple[dict[str, Any], Look]:
    """Which maps, and how they look."""
    maps = {name: value for name, value in more.items() if name in Asked.__annotations__}
    given = {name: value for name, value in more.items() if name in Look.__annotations__}
    return asked(where, maps), cast(Look, given)


def _placement(time: str) -> str:
    if time not in _PLACEMENT:
        raise ValueError(f"time: {time!r} is neither 'vae' nor 'even'")
    return _PLACEMENT[time]


def _alpha(alpha: float | str) -> dict[str, float]:
    if isinstance(alpha, str):
        kind, _, most = alpha.partition(":")
        try:
            return {"value" if kind == "value" else "constant": float(most or 0.8 if kind == "value" else alpha)}
        except ValueError:
            raise ValueError(f"alpha: {alpha!r} is neither a number from 0 to 1 nor value:0.8") from None
    return {"constant": float(alpha)}
