"""How fast questions are answered, beside what users would ask otherwise: run by `make bench`.

Makes a synthetic dump and a store of it, asks every question in every way in one run, prints a table of seconds and
ratios, and removes what it made. benches/README.md says what is measured. The other ways are in query_peers.py, in
processes of their own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from ingest import BLOCKS, GRID, HEADS, BenchError, find_binary, run, say, warm_page_cache

STEPS = 50
VIDEOS = ("prompt_000_vid001", "prompt_000_vid002")
PEERS = Path(__file__).with_name("query_peers.py")
CONDITION = "entropy < 0.6 AND block BETWEEN 10 AND 20 AND top5 > 0.5"
# Words of a video and steps of a word in the store of many small maps.
SMALL_WORDS, SMALL_STEPS = 5, 50
# Relative: float16 means that numpy rounds, and sums in another order.
TOLERANCE = {"numpy, as documented": 2e-3, "torch, as documented": 2e-3}


@dataclass
class Question:
    """A question, and the seconds it took in each way."""

    name: str
    seconds: dict[str, list[float]] = field(default_factory=dict)
    checks: dict[str, float] = field(default_factory=dict)


def main() -> int:
    arguments = parse_arguments()
    try:
        with tempfile.TemporaryDirectory(prefix="attnkit-bench-", dir=arguments.work) as work:
            questions = measure(arguments, Path(work))
    except BenchError as error:
        print(f"benches/query.py: {error}", file=sys.stderr)
        return 1
    print_table(questions)
    if arguments.json:
        document = {question.name: {"seconds": question.seconds, "checks": question.checks} for question in questions}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("attnkit", "synth", "ask"):
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"path of the {name} binary")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each way; the best one counts [3]")
    parser.add_argument("--million-rows", type=float, default=10, help="rows of `heads` to filter, in 10^6 [10]")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"steps of the word that is averaged [{STEPS}]")
    parser.add_argument("--work", type=Path, help="where to make the temporary directory [the system's place]")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    return parser.parse_args()


def measure(arguments: argparse.Namespace, work: Path) -> list[Question]:
    attnkit, synth, ask = (find_binary(path) for path in (arguments.attnkit, arguments.synth, arguments.ask))
    store = make_store(attnkit, synth, work / "maps", len(VIDEOS), ("flower",), arguments.steps, GRID)
    videos = math.ceil(arguments.million_rows * 1e6 / (SMALL_WORDS * SMALL_STEPS * BLOCKS * HEADS))
    words = tuple("abcde"[:SMALL_WORDS])
    small = make_store(attnkit, synth, work / "small", videos, words, SMALL_STEPS, (1, 2, 2), "--rollups", "none")
    dump = work / "maps" / "dump"
    fast = work / "maps" / "fast"
    run(attnkit, "ingest", dump, "--store", fast, "--codec", "fast", "--rollups", "none", "--quiet")
    warm_page_cache(dump)
    one = (store, "--video", VIDEOS[0], "--quiet", "--format", "csv")
    head = ("--where", "block = 7 AND head = 3")
    columns = "video_id,token,step,block,head,entropy"
    peers = [sys.executable, PEERS]
    in_arrays = ("numpy, as documented", "torch, as documented", "xarray + dask + zarr-python", "tensorstore + numpy")
    plans: list[tuple[str, dict[str, list[object]], dict[str, list[object]]]] = [
        (
            f"mean over blocks and heads, {arguments.steps} steps of a word",
            {
                "from rollups": [ask, store, "mean", VIDEOS[0]],
                "--no-rollups": [ask, store, "mean-no-rollups", VIDEOS[0]],
            }
            | {"--no-rollups, store of codec fast": [ask, fast, "mean-no-rollups", VIDEOS[0]]}
            | {way: [*peers, way, "mean", store, dump, *VIDEOS] for way in in_arrays},
            {
                "from rollups, the command": [attnkit, "query", "average", *one],
                "--no-rollups, the command": [attnkit, "query", "average", *one, "--no-rollups"],
            },
        ),
        (
            "one block and head of all steps",
            {"attnkit": [ask, store, "one-head", VIDEOS[0]]}
            | {way: [*peers, way, "one-head", store, dump, *VIDEOS] for way in in_arrays},
            {"the command": [attnkit, "query", "average", *one, *head]},
        ),
        (
            "two videos compared at every step, by cosine of their means",
            {"--no-rollups": [ask, store, "compare", ""]}
            | {way: [*peers, way, "compare", store, dump, *VIDEOS] for way in in_arrays},
            {
                "from rollups, the command": [
                    attnkit,
                    "query",
                    "compare",
                    store,
                    "--across",
                    "video",
                    "--metric",
                    "cosine",
                    "--quiet",
                ]
            },
        ),
        (
            f"filter of {videos * SMALL_WORDS * SMALL_STEPS * BLOCKS * HEADS / 1e6:.2f} million rows of heads",
            {
                "attnkit": [ask, small, "filter", CONDITION],
                "DuckDB": [*peers, "DuckDB", "filter", small, CONDITION, columns],
            },
            {
                "the command": [
                    attnkit,
                    "query",
                    "list",
                    small,
                    "--table",
                    "heads",
                    "--where",
                    CONDITION,
                    "--columns",
                    columns,
                ]
            },
        ),
    ]
    questions = [Question(name) for name, *_ in plans]
    for number in range(arguments.rounds + 1):
        say(f"round {number} of {arguments.rounds}" if number else "warm-up")
        for question, (_, timed, commands) in zip(questions, plans):
            for way, command in timed.items():
                result = json.loads(run(*command).stdout)
                if result and number:
                    question.seconds.setdefault(way, []).append(result["seconds"])
                    question.checks[way] = result["check"]
            for way, command in commands.items():
                seconds = run(*command).seconds
                if number:
                    question.seconds.setdefault(way, []).append(seconds)
    for question in questions:
        check(question)
    return questions


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


def check(question: Question) -> None:
    """Every way must have found the same."""
    reference = next(iter(question.checks.values()))
    for way, found in question.checks.items():
        if not math.isclose(found, reference, rel_tol=TOLERANCE.get(way, 1e-5)):
            raise BenchError(f"{question.name}: {way} finds {found}, attnkit {reference}")


def print_table(questions: list[Question]) -> None:
    cores = len(os.sched_getaffinity(0))
    print(f"Best of the runs, {cores} cores; ratio: seconds by those of the row marked 1.00\n")
    print("| question | way | seconds | ratio |\n|---|---|---|---|")
    for question in questions:
        best = {way: min(seconds) for way, seconds in question.seconds.items()}
        reference = best.get("--no-rollups", best.get("attnkit"))
        for way, seconds in best.items():
            print(f"| {question.name} | {way} | {seconds:.4f} | {seconds / reference:.2f} |")


if __name__ == "__main__":
    if shutil.which("cp") is None:
        raise SystemExit("a Unix system is needed")
    sys.exit(main())
