"""What `attnkit.capture` costs, beside attention-map-diffusers 1.0.0: run by `make bench-capture`.

Captures the same words of the same pipelines in every way, prints a table of seconds of the CPU, megabytes, and errors
against whole softmaxes in float64. benches/README.md says what is measured. Each way runs in a process of its own, by
capture_peers.py, with the interpreter that runs this: it needs attnkit, torch and diffusers. This process stays small:
see `run` in harness.py.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import BenchError, Document, bench, left_out, parser_of, prose, run, said, say, table

PEERS = Path(__file__).with_name("capture_peers.py")
NOTHING, INTO_STORE = "no capture", "attnkit.capture, into a store"
WAYS = (
    NOTHING,
    "attnkit.capture, to a function",
    "attnkit.capture, groups=True",
    INTO_STORE,
    "attention-map-diffusers, fast",
    "attention-map-diffusers, exact",
)
#: With it, glibc gives back what a tensor of a megabyte or more had: peaks are those of tensors, not of the heap.
RETURNED = "MALLOC_MMAP_THRESHOLD_"
#: Largest error of a share that attnkit may have.
TOLERANCE = 1e-5


@dataclass
class Scene:
    """A pipeline, how often it runs in a process, and what came of it in each way."""

    key: str
    name: str
    runs: int
    ways: tuple[str, ...]
    results: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)


def main() -> int:
    parser = parser_of(__doc__, rounds=3)
    parser.add_argument("--peer", type=Path, required=True, help="where attention-map-diffusers is installed")
    return bench(parser.parse_args(), measure, markdown)


def measure(arguments: argparse.Namespace, work: Path) -> Document:
    # A thread of the CPU's for everything: several wait for one another longer than one computes.
    os.environ["OMP_NUM_THREADS"] = "1"
    versions = said(run(sys.executable, PEERS, "versions", arguments.peer), PEERS)
    scenes = [
        Scene("pipeline", "tiny pipeline, 3 steps of both calls", 3, WAYS),
        Scene(
            "block",
            "a block of WAN 2.1 1.3B, one call",
            1,
            tuple(way for way in WAYS if way != INTO_STORE),
        ),
    ]
    missing: dict[str, str] = {}
    for number in range(arguments.rounds + 1):
        say(f"round {number} of {arguments.rounds}" if number else "memory")
        if number:
            os.environ.pop(RETURNED, None)
        else:
            os.environ[RETURNED] = "1000000"
        for scene in scenes:
            # There and back, so that a way does not always follow the same one.
            for way in scene.ways[:: 1 if number % 2 else -1]:
                if way not in missing:
                    runs = scene.runs if number else 1
                    asked = (sys.executable, PEERS, way, scene.key, arguments.peer, work, runs)
                    result = said(run(*asked), *asked)
                    if "missing" in result:
                        missing[way] = result["missing"]
                    elif number:
                        add(scene, way, result)
                    else:
                        scene.peaks[way] = result["peak_bytes"]
    return {
        "versions": versions,
        "missing": missing,
        "scenes": [summarise(scene) for scene in scenes],
    }


def add(scene: Scene, way: str, result: dict[str, Any]) -> None:
    """Notes a run, if attnkit found what is true: the other may err as it does."""
    errors = [result["map_error"], result["mean_error"]]
    if way.startswith("attnkit") and not all(error <= TOLERANCE for error in errors):
        raise BenchError(f"{scene.name}: maps by {way} are off by {errors}")
    scene.results.setdefault(way, []).append(result)


def summarise(scene: Scene) -> dict[str, Any]:
    def best(way: str, key: str) -> float:
        return min(seconds for result in scene.results[way] for seconds in result[key])

    blocks = best(NOTHING, "blocks_seconds")
    return {
        "scene": scene.name,
        "ways": [
            {
                "way": way,
                "best_seconds": best(way, "seconds"),
                "own_seconds": best(way, "own_seconds"),
                "own_to_blocks": best(way, "own_seconds") / blocks,
                "peak_bytes": scene.peaks[way],
                "map_error": results[-1]["map_error"],
                "mean_error": results[-1]["mean_error"],
                "runs": results,
            }
            for way, results in scene.results.items()
        ],
    }


def markdown(document: Document) -> str:
    head = ("pipeline", "way", "seconds", "its own", "of the blocks", "peak MB", "error of maps", "of their mean")
    rows: list[tuple[str, ...]] = []
    for scene in document["scenes"]:
        names = [scene["scene"], *[""] * len(scene["ways"])]
        rows += [table_line(name, way) for name, way in zip(names, scene["ways"])]
    return "\n\n".join(
        (
            prose(
                "Maps of five words, 4,680 positions, all blocks, heads and steps, float32. Seconds are of the CPU,"
                f" with one thread; best run of {document['rounds']} processes; largest errors.",
                left_out(document["missing"]),
            ),
            table(head, rows),
        )
    )


def table_line(name: str, way: dict[str, Any]) -> tuple[str, ...]:
    is_capture = way["map_error"] is not None
    return (
        name,
        way["way"],
        f"{way['best_seconds']:.2f}",
        f"{way['own_seconds']:.3f}" if is_capture else "",
        f"{way['own_to_blocks']:.1%}" if is_capture else "",
        f"{way['peak_bytes'] / 1e6:.0f}",
        f"{way['map_error']:.1e}" if is_capture else "",
        f"{way['mean_error']:.1e}" if is_capture else "",
    )


if __name__ == "__main__":
    sys.exit(main())
