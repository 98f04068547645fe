"""How fast questions are answered, beside what users would ask otherwise and how fast chunks are decoded: run by
`make bench`.

Makes synthetic dumps and stores of them, asks every question in every way in one run, prints tables of seconds, ratios
and peak memory, and removes what it made. benches/README.md says what is measured. The other ways are in
query_peers.py, in processes of their own.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import (
    BenchError,
    Document,
    bench,
    cores,
    find_binary,
    left_out,
    parser_of,
    prose,
    run,
    said,
    say,
    table,
    versions,
    warm_page_cache,
)

from ingest import BLOCKS, GRID, HEADS, LIMITS, STEP_BYTES

STEPS = 50
VIDEOS = ("prompt_000_vid001", "prompt_000_vid002")
PEERS = Path(__file__).with_name("query_peers.py")
CONDITION = "entropy < 0.6 AND block BETWEEN 10 AND 20 AND top5 > 0.5"
COLUMNS = "video_id,token,step,block,head,entropy"
# Words of a video and steps of a word in the store of many small maps.
SMALL_WORDS, SMALL_STEPS = 5, 50
# One map of WAN 2.1 at 720p, and the video it is resampled to.
MAP_GRID, MAP_FRAMES, MAP_SIZE = (21, 45, 80), 81, "720x1280"
NUMPY, SCIPY, TORCH = "numpy, as documented", "numpy and scipy", "torch, as documented"
XARRAY, ZARRS = "xarray + dask + zarr-python", "xarray + dask + zarr-python with zarrs"
TENSORSTORE, DUCKDB, FROM_PYTHON = "tensorstore + numpy", "DuckDB", "attnkit, from Python"
IN_ARRAYS = (NUMPY, TORCH, XARRAY, ZARRS, TENSORSTORE)
# Relative: float16 means that numpy rounds, sums in another order, and medians that numpy rounds to float16.
TOLERANCE = {NUMPY: 2e-3, TORCH: 2e-3}
#: A mean of all values is to reach this share of the speed of decoding.
GOAL = 0.8


@dataclass(frozen=True)
class Way:
    """A command that asks a question, and what is to be known of it."""

    command: tuple[object, ...]
    #: It prints {"seconds": s, "check": number}; otherwise the process is timed.
    times_itself: bool = True
    #: The way that asks the same within a process.
    in_process: str | None = None
    #: The store whose decoding it cannot be faster than.
    decodes: Path | None = None
    #: The array that the process writes, to be checked.
    output: Path | None = None


@dataclass
class Question:
    """A question, the ways to ask it, and what came of them."""

    name: str
    ways: dict[str, Way]
    #: The way whose seconds ratios are to.
    reference: str
    #: Raw values that must be looked at where there are no rollups.
    raw_bytes: int = 0
    seconds: dict[str, list[float]] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    checks: dict[str, float] = field(default_factory=dict)


def main() -> int:
    parser = parser_of(__doc__, "attnkit", "synth", "ask", rounds=3)
    parser.add_argument("--million-rows", type=float, default=10, help="rows of `heads` to filter, in 10^6 [10]")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"steps of the word that is averaged [{STEPS}]")
    parser.add_argument("--torch-python", help="a Python that has torch and numpy [this one, if it has]")
    return bench(parser.parse_args(), measure, markdown)


def measure(arguments: argparse.Namespace, work: Path) -> Document:
    attnkit, synth, ask = (find_binary(path) for path in (arguments.attnkit, arguments.synth, arguments.ask))
    found = versions(
        *(attnkit, "numpy", "zarr", "tensorstore", "xarray", "dask", "duckdb", "pyarrow"),
        optional=("zarrs", "scipy", "torch"),
    )
    torch = arguments.torch_python or sys.executable
    if arguments.torch_python:
        found["torch"] = run(torch, "-c", "import torch; print(torch.__version__)").stdout.strip()
    questions = plan(arguments, work, attnkit, synth, ask, torch)
    decoding: dict[Path, list[float]] = {way.decodes: [] for of in questions for way in of.ways.values() if way.decodes}
    missing: dict[str, str] = {}
    for number in range(arguments.rounds + 1):
        say(f"round {number} of {arguments.rounds}" if number else "warm-up")
        for store, rates in decoding.items():
            command = (sys.executable, LIMITS, "decode", store, cores())
            result = said(run(*command), *command)
            rates.append(result["bytes"] / result["seconds"])
        for question in questions:
            for name, way in question.ways.items():
                if name not in missing:
                    ask_once(question, name, way, missing, is_counted=number > 0)
    for question in questions:
        check(question)
    best = {store: max(rates) for store, rates in decoding.items()}
    return {"versions": found, "missing": missing, "questions": [summarise(question, best) for question in questions]}


def plan(
    arguments: argparse.Namespace, work: Path, attnkit: Path, synth: Path, ask: Path, torch: str
) -> list[Question]:
    store = make_store(attnkit, synth, work / "maps", len(VIDEOS), ("flower",), arguments.steps, GRID)
    dump, fast = work / "maps" / "dump", work / "maps" / "fast"
    run(attnkit, "ingest", dump, "--store", fast, "--codec", "fast", "--rollups", "none", "--quiet")
    rows = math.ceil(arguments.million_rows * 1e6 / (SMALL_WORDS * SMALL_STEPS * BLOCKS * HEADS))
    words = tuple("abcde"[:SMALL_WORDS])
    small = make_store(attnkit, synth, work / "small", rows, words, SMALL_STEPS, (1, 2, 2), "--rollups", "none")
    large = make_store(attnkit, synth, work / "large", 1, ("flower",), 1, MAP_GRID)
    warm_page_cache(dump)
    warm_page_cache(work / "large" / "dump")

    def peers(names: tuple[str, ...], question: str) -> dict[str, Way]:
        of = lambda name: torch if name == TORCH else sys.executable
        return {name: Way((of(name), PEERS, name, question, store, dump, *VIDEOS)) for name in names}

    def resampled(name: str) -> Way:
        output = work / "large" / "resampled.npy"
        python = torch if name == TORCH else sys.executable
        return Way((python, PEERS, name, "map", large, work / "large" / "dump", VIDEOS[0], output))

    def command(question: str, *options: object, in_process: str | None = None, of: Path = store) -> Way:
        return Way((attnkit, "query", question, of, "--quiet", *options), times_itself=False, in_process=in_process)

    one = ("--video", VIDEOS[0], "--format", "csv")
    no_rollups, raw_bytes = "--no-rollups", arguments.steps * STEP_BYTES
    array = work / "large" / "map.npy"
    resample = ("--step", 0, "--size", MAP_SIZE, "--frames", MAP_FRAMES, "-o", array)
    sql = f"SELECT {COLUMNS} FROM '{small}/index/heads/*.parquet' WHERE {CONDITION}"
    return [
        Question(
            f"mean over blocks and heads, {arguments.steps} steps of a word",
            {
                "from rollups": Way((ask, store, "mean", VIDEOS[0])),
                no_rollups: Way((ask, store, "mean-no-rollups", VIDEOS[0]), decodes=store),
                "--no-rollups, store of codec fast": Way((ask, fast, "mean-no-rollups", VIDEOS[0]), decodes=fast),
                **peers(IN_ARRAYS, "mean"),
                "from rollups, the command": command("average", *one, in_process="from rollups"),
                "--no-rollups, the command": command("average", *one, no_rollups, in_process=no_rollups),
            },
            no_rollups,
            raw_bytes,
        ),
        Question(
            "one block and head of all steps",
            {
                "attnkit": Way((ask, store, "one-head", VIDEOS[0])),
                **peers(IN_ARRAYS, "one-head"),
                "the command": command("average", *one, "--where", "block = 7 AND head = 3", in_process="attnkit"),
            },
            "attnkit",
        ),
        Question(
            "two videos compared at every step, by cosine of their means",
            {
                no_rollups: Way((ask, store, "compare", ""), decodes=store),
                **peers(IN_ARRAYS, "compare"),
                "from rollups, the command": command("compare", "--across", "video", "--metric", "cosine"),
                "--no-rollups, the command": command(
                    *("compare", "--across", "video", "--metric", "cosine", no_rollups), in_process=no_rollups
                ),
            },
            no_rollups,
            2 * raw_bytes,
        ),
        Question(
            f"median over blocks, heads and {arguments.steps} steps of a word",
            {
                **peers((FROM_PYTHON, NUMPY, TENSORSTORE), "median"),
                "the command": command(
                    *("average", *one, "--over", "block,head,step", "--with", "median"), in_process=FROM_PYTHON
                ),
            },
            FROM_PYTHON,
        ),
        Question(
            f"map of a step, {MAP_FRAMES}x{MAP_SIZE}, as .npy",
            {
                "the command": Way(
                    command("map", "--video", VIDEOS[0], *resample, of=large).command, False, output=array
                ),
                FROM_PYTHON: resampled(FROM_PYTHON),
                SCIPY: resampled(SCIPY),
                TORCH: resampled(TORCH),
            },
            "the command",
        ),
        Question(
            f"filter of {rows * SMALL_WORDS * SMALL_STEPS * BLOCKS * HEADS / 1e6:.2f} million rows of heads",
            {
                "attnkit": Way((ask, small, "filter", CONDITION)),
                DUCKDB: Way((sys.executable, PEERS, DUCKDB, "rows", sql)),
                "the command": command(
                    *("list", "--table", "heads", "--where", CONDITION, "--columns", COLUMNS),
                    in_process="attnkit",
                    of=small,
                ),
            },
            "attnkit",
        ),
    ]


def make_store(
    attnkit: Path,
    synth: Path,
    place: Path,
    videos: int,
    words: tuple[str, ...],
    steps: int,
    grid: tuple[int, ...],
    *options: str,
) -> Path:
    say(f"making a dump and a store of {videos * len(words) * steps} steps in {place}")
    place.mkdir()
    size = ("--videos", videos, "--tokens", ",".join(words), "--steps", steps, "--blocks", BLOCKS, "--heads", HEADS)
    run(synth, *size, "--grid", "x".join(map(str, grid)), "--out", place / "dump")
    run(attnkit, "ingest", place / "dump", "--store", place / "store", "--quiet", *options)
    return place / "store"


def ask_once(question: Question, name: str, way: Way, missing: dict[str, str], is_counted: bool) -> None:
    finished = run(*way.command)
    seconds = finished.seconds
    if way.times_itself:
        result = said(finished, *way.command)
        if "missing" in result:
            missing[name] = result["missing"]
            return
        seconds, question.checks[name] = result["seconds"], result["check"]
    if way.output:
        command = (sys.executable, PEERS, "check", way.output)
        question.checks[name] = said(run(*command), *command)["check"]
    if is_counted:
        question.seconds.setdefault(name, []).append(seconds)
        question.peaks[name] = max(question.peaks.get(name, 0), finished.peak_rss_bytes)


def check(question: Question) -> None:
    """Every way must have found the same."""
    reference = question.checks[question.reference]
    for way, found in question.checks.items():
        if not math.isclose(found, reference, rel_tol=TOLERANCE.get(way, 1e-4)):
            raise BenchError(f"{question.name}: {way} finds {found}, attnkit {reference}")


def summarise(question: Question, decoding: dict[Path, float]) -> dict[str, Any]:
    best = {way: min(seconds) for way, seconds in question.seconds.items()}
    ways = []
    for name, seconds in best.items():
        way = question.ways[name]
        limit = way.decodes and decoding[way.decodes]
        ways.append(
            {
                "way": name,
                "best_seconds": seconds,
                "ratio": seconds / best[question.reference],
                "peak_rss_bytes": question.peaks[name],
                "decoding_mb_per_s": limit and limit / 1e6,
                "share_of_decoding": limit and question.raw_bytes / seconds / limit,
                "over_in_process": way.in_process and seconds - best[way.in_process],
                "check": question.checks.get(name),
                "seconds": question.seconds[name],
            }
        )
    return {"question": question.name, "ways": ways}


def markdown(document: Document) -> str:
    head = ("question", "way", "seconds", "ratio", "peak MiB", "decoding MB/s", "share", "goal", "over in process")
    rows = []
    for question in document["questions"]:
        names = [question["question"], *[""] * len(question["ways"])]
        rows += [table_line(name, way) for name, way in zip(names, question["ways"])]
    return "\n\n".join(
        (
            prose(
                f"Best of {document['rounds']}. The ratio is the seconds by those of the row marked 1.00; peak memory"
                " is that of the whole process; decoding is how fast c-blosc decodes the chunks of the same store, the"
                " share what of that a mean of all values reaches; over in process is what a command takes longer than"
                " the same question within a process.",
                left_out(document["missing"]),
            ),
            table(head, rows),
        )
    )


def table_line(name: str, way: dict[str, Any]) -> tuple[str, ...]:
    limit, over = way["decoding_mb_per_s"], way["over_in_process"]
    return (
        name,
        way["way"],
        f"{way['best_seconds']:.4f}",
        f"{way['ratio']:.2f}",
        f"{way['peak_rss_bytes'] / 2**20:.0f}",
        "" if limit is None else f"{limit:.0f}",
        "" if limit is None else f"{way['share_of_decoding']:.0%}",
        "" if limit is None else f"{GOAL:.0%}",
        "" if over is None else f"{over:.3f} s",
    )


if __name__ == "__main__":
    sys.exit(main())
