"""What `attnkit.capture` costs, beside attention-map-diffusers 1.0.0: run by `make bench-capture`.

Captures the same words of the same pipelines in every way, prints a table of seconds of the CPU, megabytes, and errors
against whole softmaxes in float64. benches/README.md says what is measured. Each way runs in a process of its own, by
capture_peers.py, with the interpreter that runs this: it needs attnkit, torch and diffusers. This process stays small:
see `run` in ingest.py.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingest import BenchError, cpu_model, run, say

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
    arguments = parse_arguments()
    try:
        with tempfile.TemporaryDirectory(prefix="attnkit-bench-", dir=arguments.work) as work:
            document = measure(arguments, Path(work))
    except BenchError as error:
        print(f"benches/capture.py: {error}", file=sys.stderr)
        return 1
    print_document(document)
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, required=True, help="where attention-map-diffusers is installed")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each way; the best run counts [3]")
    parser.add_argument("--work", type=Path, help="where to make the temporary directory [the system's place]")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds must be positive")
    return arguments


def measure(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    # A thread of the CPU's for everything: several wait for one another longer than one computes.
    os.environ["OMP_NUM_THREADS"] = "1"
    versions = json.loads(run(sys.executable, PEERS, "versions", arguments.peer).stdout)
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
                    asked = (way, scene.key, arguments.peer, work, scene.runs if number else 1)
                    result = json.loads(run(sys.executable, PEERS, *asked).stdout)
                    if "missing" in result:
                        missing[way] = result["missing"]
                    elif number:
                        add(scene, way, result)
                    else:
                        scene.peaks[way] = result["peak_bytes"]
    return {
        "machine": {"cores": len(os.sched_getaffinity(0)), "cpu": cpu_model()},
        "versions": versions,
        "missing": missing,
        "rounds": arguments.rounds,
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


def print_document(document: dict[str, Any]) -> None:
    machine = document["machine"]
    print(f"machine:  {machine['cores']} cores, {machine['cpu']}; one thread")
    print("versions: " + ", ".join(f"{name} {version}" for name, version in document["versions"].items()))
    print("maps:     five words, 4,680 positions, all blocks, heads and steps, float32")
    for why in sorted(set(document["missing"].values())):
        print(f"left out: {' and '.join(way for way, reason in document['missing'].items() if reason == why)}: {why}")
    print(f"figures:  seconds of the CPU, best run of {document['rounds']} processes; largest errors\n")
    head = ("pipeline", "way", "seconds", "its own", "of the blocks", "peak MB", "error of maps", "of their mean")
    table = [head, tuple("---" for _ in head)]
    for scene in document["scenes"]:
        names = [scene["scene"], *[""] * len(scene["ways"])]
        table += [table_line(name, way) for name, way in zip(names, scene["ways"])]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        filler = "-" if line[0] == "---" else " "
        print("| " + " | ".join(cell.ljust(width, filler) for cell, width in zip(line, widths, strict=True)) + " |")


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
