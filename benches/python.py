"""How fast `attnkit.AttentionAnalyzer` answers and how much memory it takes, beside the documented way: run by
`make bench`.

Makes a synthetic dump and stores of it, asks every question in every way in one run, prints a table of seconds,
megabytes and ratios, and removes what it made. benches/README.md says what is measured. Each question is asked in a
process of its own, by python_peers.py, with the interpreter that runs this: it needs attnkit and numpy. This process
stays small: see `run` in ingest.py.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingest import (
    BLOCKS,
    GRID,
    HEADS,
    STEP_BYTES,
    BenchError,
    cpu_model,
    file_system,
    find_binary,
    run,
    say,
    warm_page_cache,
)
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
    arguments = parse_arguments()
    try:
        with tempfile.TemporaryDirectory(prefix="attnkit-bench-", dir=arguments.work) as work:
            document = measure(arguments, Path(work))
    except BenchError as error:
        print(f"benches/python.py: {error}", file=sys.stderr)
        return 1
    print_document(document)
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("attnkit", "synth"):
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"path of the {name} binary")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each way; the best one counts [3]")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"steps of the word [{STEPS}]")
    parser.add_argument("--work", type=Path, help="where to make the temporary directory [the system's place]")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    arguments = parser.parse_args()
    if arguments.steps < 1 or arguments.rounds < 1:
        parser.error("--steps and --rounds must be positive")
    return arguments


def measure(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    attnkit, synth = (find_binary(path) for path in (arguments.attnkit, arguments.synth))
    versions = json.loads(run(sys.executable, PEERS, "versions").stdout)
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
                    result = json.loads(run(sys.executable, PEERS, way, question.key, dump, store, reference).stdout)
                    if "missing" in result:
                        missing[way] = result["missing"]
                    elif number:
                        add(question, way, result)
    return {
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "cpu": cpu_model(),
            "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            "file_system": file_system(work),
        },
        "versions": versions,
        "missing": missing,
        "steps": arguments.steps,
        "rounds": arguments.rounds,
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


def print_document(document: dict[str, Any]) -> None:
    machine, steps = document["machine"], document["steps"]
    shape = [steps, BLOCKS, HEADS, math.prod(GRID), 1]
    memory = machine["memory_bytes"] / 2**30
    print(f"machine:  {machine['cores']} cores, {machine['cpu']}, {memory:.0f} GiB, {machine['file_system']}")
    print("versions: " + ", ".join(f"{name} {version}" for name, version in document["versions"].items()))
    print(f"dump:     one word, {shape} float16, {steps * STEP_BYTES / 1e6:.0f} MB; page cache warm")
    for why in sorted(set(document["missing"].values())):
        print(f"left out: {' and '.join(way for way, reason in document['missing'].items() if reason == why)}: {why}")
    print(
        f"figures:  best time and largest peak of {document['rounds']}, all from one run; ratios to numpy, as "
        f"documented\n"
    )
    head = ("question", "way", "seconds", "ratio", "peak MB", "ratio", "largest error")
    table = [head, tuple("---" for _ in head)]
    for question in document["questions"]:
        names = [question["question"], *[""] * len(question["ways"])]
        table += [table_line(name, way) for name, way in zip(names, question["ways"])]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        filler = "-" if line[0] == "---" else " "
        print("| " + " | ".join(cell.ljust(width, filler) for cell, width in zip(line, widths, strict=True)) + " |")


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
