"""How fast `attnkit.AttentionAnalyzer` answers and how much memory it takes, beside the documented way: run by
`make bench`.

Makes a synthetic dump and stores of it, asks every question in every way in one run, prints a table of seconds,
megabytes and ratios, and removes what it made. benches/README.md says what is measured. Each question is asked in a
process of its own, by python_peers.py, with the interpreter that runs this: it needs attnkit and numpy. This process
stays small: see `run` in harness.py.
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
    find_binary,
    left_out,
    parser_of,
    prose,
    run,
    said,
    say,
    table,
    warm_page_cache,
)

from ingest import BLOCKS, GRID, HEADS, STEP_BYTES
from query import STEPS, make_store

WORD = "flower"
PEERS = Path(__file__).with_name("python_peers.py")
NUMPY, NUMPY_FLOAT32, TORCH, TORCH_FLOAT = DOCUMENTED = (
    "numpy, as documented",
    "numpy, dtype=float32",
    "torch, as documented",
    "torch, .float()",
)
IN_MEMORY, ON_DUMP, ON_STORE = "AttentionAnalyzer", "AttentionAnalyzer, dump", "AttentionAnalyzer, store"
ON_PLAIN_STORE = "AttentionAnalyzer, store without rollups"
# Largest relative error. attnkit rounds to float32 once, or twice: from rollups, and over blocks and then heads. The
# others add in float32, and round to float16 if they are not told otherwise: its numbers below 6e-5 lie 6e-8 apart.
TOLERANCE = {NUMPY: 0.1, TORCH: 0.1, NUMPY_FLOAT32: 1e-4, TORCH_FLOAT: 1e-4}
TOLERANCE_OF_ATTNKIT = 1.2e-7


@dataclass
class Runs:
    """A question asked in one way."""

    seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    error: float | None = None


@dataclass
class Question:
    """A question, the ways to ask it, and what came of them."""

    key: str
    name: str
    ways: tuple[str, ...]
    runs: dict[str, Runs] = field(default_factory=dict)


def main() -> int:
    parser = parser_of(__doc__, "attnkit", "synth", rounds=3)
    parser.add_argument("--steps", type=int, default=STEPS, help=f"steps of the word [{STEPS}]")
    return bench(parser.parse_args(), measure, markdown)


def measure(arguments: argparse.Namespace, work: Path) -> Document:
    attnkit, synth = (find_binary(path) for path in (arguments.attnkit, arguments.synth))
    versions = said(run(sys.executable, PEERS, "versions"), PEERS)
    place = work / "maps"
    store = make_store(attnkit, synth, place, 1, (WORD,), arguments.steps, GRID)
    dump = place / "dump"
    run(attnkit, "ingest", dump, "--store", place / "plain", "--rollups", "none", "--quiet")
    reference = work / "reference"
    run(sys.executable, PEERS, "reference", dump, reference)
    warm_page_cache(place)
    questions = plan(arguments.steps)
    missing: dict[str, str] = {}
    for number in range(arguments.rounds + 1):
        say(f"round {number} of {arguments.rounds}" if number else "warm-up")
        # The first question will do to have every library in the page cache, and to see which ones are there.
        for question in questions if number else questions[:1]:
            # There and back, so that a way does not always follow the same one.
            for way in question.ways[:: 1 if number % 2 else -1]:
                if way not in missing:
                    asked = (sys.executable, PEERS, way, question.key, dump, store, reference)
                    result = said(run(*asked), *asked)
                    if "missing" in result:
                        missing[way] = result["missing"]
                    elif number:
                        add(question, way, result)
    return {
        "versions": versions,
        "missing": missing,
        "steps": arguments.steps,
        "questions": [summarise(question) for question in questions],
    }


def plan(steps: int) -> list[Question]:
    on_disk = (ON_DUMP, ON_STORE)
    means = (*DOCUMENTED, *on_disk, ON_PLAIN_STORE)
    return [
        Question("load_step", "load_step", (NUMPY, TORCH, *on_disk)),
        Question("load_all_steps", f"load_all_steps, {steps} steps", (NUMPY, TORCH, *on_disk)),
        Question(
            "aggregate", "aggregate_blocks, then aggregate_heads, of all steps in memory", (*DOCUMENTED, IN_MEMORY)
        ),
        Question("evolution", "get_temporal_evolution", means),
        Question("average", "compute_average_attention", means),
        Question("spatial_map", "get_spatial_attention_map of one step", means),
        Question("layers", "get_layer_analysis", means),
    ]


def add(question: Question, way: str, result: dict[str, Any]) -> None:
    """Notes a run, if it found what is true: the other ways may err as far as their float types let them."""
    error = result["error"]
    if error is not None and not error <= TOLERANCE.get(way, TOLERANCE_OF_ATTNKIT):
        raise BenchError(f"{question.name}: values by {way} are off by {error:.2g} of the float64 mean")
    runs = question.runs.setdefault(way, Runs())
    runs.seconds.append(result["seconds"])
    runs.peak_bytes.append(result["peak_bytes"])
    runs.error = error


def summarise(question: Question) -> dict[str, Any]:
    reference = question.runs[NUMPY]
    return {
        "question": question.name,
        "ways": [
            {
                "way": way,
                "best_seconds": min(runs.seconds),
                "seconds_to_numpy": min(runs.seconds) / min(reference.seconds),
                "peak_to_numpy": max(runs.peak_bytes) / max(reference.peak_bytes),
                "largest_relative_error": runs.error,
                "seconds": runs.seconds,
                "peak_bytes": runs.peak_bytes,
            }
            for way, runs in question.runs.items()
        ],
    }


def markdown(document: Document) -> str:
    steps = document["steps"]
    shape = [steps, BLOCKS, HEADS, math.prod(GRID), 1]
    head = ("question", "way", "seconds", "ratio", "peak MB", "ratio", "largest error")
    rows: list[tuple[str, ...]] = []
    for question in document["questions"]:
        names = [question["question"], *[""] * len(question["ways"])]
        rows += [table_line(name, way) for name, way in zip(names, question["ways"])]
    return "\n\n".join(
        (
            prose(
                f"One word, {shape} in float16, {steps * STEP_BYTES / 1e6:.0f} MB; page cache warm; best time and"
                f" largest peak of {document['rounds']}. Ratios are to numpy, as documented.",
                left_out(document["missing"]),
            ),
            table(head, rows),
        )
    )


def table_line(name: str, way: dict[str, Any]) -> tuple[str, ...]:
    error = way["largest_relative_error"]
    return (
        name,
        way["way"],
        f"{way['best_seconds']:.4f}",
        f"{way['seconds_to_numpy']:.3f}",
        f"{max(way['peak_bytes']) / 1e6:.0f}",
        f"{way['peak_to_numpy']:.3f}",
        "" if error is None else f"{error:.1e}",
    )


if __name__ == "__main__":
    sys.exit(main())
