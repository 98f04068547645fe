"""How fast ingest and read-back are, beside `cp -r`, zarr-python, tensorstore and what the machine can do: run by
`make bench`.

Makes a synthetic dump, measures everything on it in one run, prints tables and removes what it made.
benches/README.md says what is measured and how to read it. What zarr-python and tensorstore do is in peers.py, what
the machine can do at most in limits.py, in processes of their own: see `run` in harness.py.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
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
    parser_of,
    prose,
    run,
    said,
    say,
    table,
    tree_bytes,
    versions,
    warm_page_cache,
)

BLOCKS, HEADS, GRID = 30, 12, (15, 30, 53)
SHAPE = (BLOCKS, HEADS, math.prod(GRID), 1)
STEP_BYTES = math.prod(SHAPE) * 2  # float16
TOKENS = ("flower", "tree")
STEPS = 20
CP, COMPARED, MEMORY = "cp -r", "balanced", "memory, copied by numpy"
#: An ingest is to reach this share of the slower of encoding and writing.
GOAL = 0.7
PEERS, LIMITS = (Path(__file__).with_name(name) for name in ("peers.py", "limits.py"))


@dataclass(frozen=True)
class Recipe:
    """One way to ingest."""

    name: str
    codec: str
    flags: tuple[str, ...] = ()

    def limits(self, kind: str) -> list[str]:
        """Rows of what this machine can do at most where this recipe is ingested or read back."""
        if kind == "ingest":
            encoding = [] if self.codec == "none" else [f"encoding {self.codec}"]
            return [*encoding, f"write and fsync of {self.name}"]
        return [MEMORY] if self.codec == "none" else [f"decoding {self.codec}"]


RECIPES = (
    Recipe("fast", "fast"),
    Recipe(COMPARED, "balanced"),
    Recipe("small", "small"),
    Recipe("none", "none"),
    Recipe("balanced, no rollups", "balanced", ("--rollups", "none")),
)


@dataclass(frozen=True)
class Dump:
    """A synthetic dump; `raw_bytes` are those of its values, without npy headers and metadata."""

    path: Path
    videos: int
    steps: int

    @property
    def files(self) -> int:
        return self.videos * len(TOKENS) * self.steps

    @property
    def raw_bytes(self) -> int:
        return self.files * STEP_BYTES


@dataclass
class Row:
    """All runs of one thing that is measured."""

    what: str
    seconds: list[float] = field(default_factory=list)
    stored_bytes: int | None = None
    attention_bytes: int | None = None
    peak_rss_bytes: int | None = None
    #: Rows that say how fast this can be at most: the slowest of them counts.
    limits: list[str] = field(default_factory=list)
    #: What a limit moves in `seconds`, and how many bytes of raw values that stands for.
    own_bytes: int | None = None
    raw_bytes: float | None = None


@dataclass
class Bench:
    """Where the programs and files are, and what has been measured so far."""

    attnkit: Path
    readback: Path
    dump: Dump
    work: Path
    rows: dict[str, Row] = field(default_factory=dict)

    def row(self, what: str) -> Row:
        return self.rows.setdefault(what, Row(what))


def main() -> int:
    parser = parser_of(__doc__, "attnkit", "synth", "readback", rounds=3)
    parser.add_argument("--size-gb", type=float, default=2.0, help="least size of the dump, in 10^9 bytes [2]")
    arguments = parser.parse_args()
    if arguments.size_gb <= 0:
        parser.error("--size-gb must be positive")
    return bench(arguments, measure, markdown)


# ---- what is measured


def measure(arguments: argparse.Namespace, work: Path) -> Document:
    """Take turns, so that a slow minute of the machine does not fall on one thing alone."""
    bench = prepare(arguments, work)
    document = describe(bench)
    # Rows in the order in which the table shows them.
    bench.row(CP)
    for kind in ("ingest", "read-back"):
        for recipe in RECIPES:
            bench.row(f"{kind} {recipe.name}").limits = recipe.limits(kind)
    say("warm-up")
    measure_round(bench, with_peers=False)
    for row in bench.rows.values():
        row.seconds.clear()
    for number in range(1, arguments.rounds + 1):
        say(f"round {number} of {arguments.rounds}")
        measure_round(bench, with_peers=True)
    rows = [row for row in bench.rows.values() if row.own_bytes is None]
    limits = {what: limit(row) for what, row in bench.rows.items() if row.own_bytes is not None}
    return document | {"rows": [summarise(bench, row, limits) for row in rows], "limits": limits}


def prepare(arguments: argparse.Namespace, work: Path) -> Bench:
    """Check that everything needed is there, and make the dump, in the page cache."""
    binaries = {name: find_binary(getattr(arguments, name)) for name in ("attnkit", "synth", "readback")}
    dump = plan_dump(work / "dump", arguments.size_gb)
    check_space(work, dump)
    say(f"making {dump.files} step files, {dump.raw_bytes / 1e9:.2f} GB, in {dump.path}")
    grid = "x".join(map(str, GRID))
    size = ("--videos", dump.videos, "--tokens", ",".join(TOKENS), "--steps", dump.steps)
    run(binaries["synth"], *size, "--blocks", BLOCKS, "--heads", HEADS, "--grid", grid, "--out", dump.path)
    warm_page_cache(dump.path)
    return Bench(binaries["attnkit"], binaries["readback"], dump, work)


def plan_dump(path: Path, size_gb: float) -> Dump:
    steps_per_word = math.ceil(size_gb * 1e9 / STEP_BYTES / len(TOKENS))
    videos = math.ceil(steps_per_word / STEPS)
    return Dump(path, videos, min(STEPS, steps_per_word))


def check_space(work: Path, dump: Dump) -> None:
    # At the most there are the dump, a store with rollups and no compression, and zarr-python's copy of a store.
    needed = dump.raw_bytes * 7 // 2
    free = shutil.disk_usage(work).free
    if free < needed:
        raise BenchError(f"{work} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are needed: --work, --size-gb")


def measure_round(bench: Bench, with_peers: bool) -> None:
    measure_cp(bench)
    measure_limit(bench, MEMORY, "memory")
    for recipe in RECIPES:
        store = bench.work / "store"
        measure_ingest(bench, recipe, store)
        result = timed(bench, f"read-back {recipe.name}", bench.readback, store)
        check_bytes(bench, result, f"readback of {recipe.name}")
        measure_limits(bench, recipe, store)
        if with_peers and recipe.name == COMPARED:
            measure_peers(bench, store)
        shutil.rmtree(store)


def measure_cp(bench: Bench) -> None:
    copy = bench.work / "copy"
    finished = run("cp", "-r", bench.dump.path, copy, settle=True)
    add(bench.row(CP), finished.seconds)
    shutil.rmtree(copy)


def measure_ingest(bench: Bench, recipe: Recipe, store: Path) -> None:
    report = bench.work / "report.json"
    flags = ("--codec", recipe.codec, *recipe.flags, "--quiet", "--report", report)
    finished = run(bench.attnkit, "ingest", bench.dump.path, "--store", store, *flags, settle=True)
    check_report(report)
    check_shapes(bench, store, recipe.name)

    row = bench.row(f"ingest {recipe.name}")
    add(row, finished.seconds)
    row.stored_bytes = tree_bytes(store)
    row.attention_bytes = sum(tree_bytes(array) for array in attention_arrays(store))
    row.peak_rss_bytes = max(row.peak_rss_bytes or 0, finished.peak_rss_bytes)


def measure_limits(bench: Bench, recipe: Recipe, store: Path) -> None:
    """What this machine can do at most with this very dump and store."""
    # Of another recipe that has the codec, too, it would be the same.
    if recipe.codec not in ("none", *(other.codec for other in RECIPES[: RECIPES.index(recipe)])):
        measure_limit(bench, f"encoding {recipe.codec}", "encode", store, bench.dump.path)
        measure_limit(bench, f"decoding {recipe.codec}", "decode", store)
    measure_limit(bench, f"write and fsync of {recipe.name}", "write", store, bench.work / "limit")


def measure_limit(bench: Bench, what: str, job: str, *paths: Path) -> None:
    result = timed(bench, what, sys.executable, LIMITS, job, *paths, cores())
    row, moved = bench.row(what), int(result["bytes"])
    row.own_bytes = moved
    # Copied values are read and written; a store is written for a dump.
    row.raw_bytes = {"memory": moved / 2, "write": bench.dump.raw_bytes}.get(job, moved)


def measure_peers(bench: Bench, store: Path) -> None:
    inputs = (store, bench.dump.path, cores())
    for library in ("zarr-python", "tensorstore"):
        what = f"read-back {COMPARED} by {library}"
        result = timed(bench, what, sys.executable, PEERS, f"{library}-read", *inputs)
        check_bytes(bench, result, library)
        bench.row(what).limits = [f"decoding {COMPARED}"]
    what, copy = f"{COMPARED} codec, attention only, written by zarr-python", bench.work / "written"
    result = timed(bench, what, sys.executable, PEERS, "zarr-python-write", *inputs, copy)
    check_bytes(bench, result, "zarr-python")
    bench.row(what).stored_bytes = bench.row(what).attention_bytes = tree_bytes(copy)
    # Nothing flushes it.
    bench.row(what).limits = [f"encoding {COMPARED}"]
    shutil.rmtree(copy)


def timed(bench: Bench, what: str, *command: object) -> dict[str, float]:
    """Run a command that times itself and prints one line, {"bytes": N, "seconds": s}."""
    finished = run(*command, settle=True)
    try:
        result: dict[str, float] = said(finished, *command)
        add(bench.row(what), float(result["seconds"]))
    except (KeyError, TypeError) as error:
        raise BenchError(f'{command[0]} printed {finished.stdout!r}, not {{"bytes": N, "seconds": s}}') from error
    return result


def add(row: Row, seconds: float) -> None:
    row.seconds.append(seconds)
    say(f"  {row.what}: {seconds:.2f} s")


# ---- is it right


def check_report(path: Path) -> None:
    try:
        json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BenchError(f"attnkit's report {path.name}: {error}") from error
    path.unlink()


def check_shapes(bench: Bench, store: Path, recipe: str) -> None:
    arrays = [json.loads((array / "zarr.json").read_text()) for array in attention_arrays(store)]
    values = sum(math.prod(array["shape"]) for array in arrays)
    if values * 2 != bench.dump.raw_bytes or any(array["data_type"] != "float16" for array in arrays):
        shapes = [(array["data_type"], array["shape"]) for array in arrays]
        raise BenchError(f"the store of {recipe} does not hold the dump: its attention arrays are {shapes}")


def check_bytes(bench: Bench, result: dict[str, float], who: str) -> None:
    if result.get("bytes") != bench.dump.raw_bytes:
        raise BenchError(f"{who}: {result.get('bytes')} bytes, the dump has {bench.dump.raw_bytes}")


def attention_arrays(store: Path) -> list[Path]:
    return sorted(store.glob("maps/*/*@*/attention"))


# ---- what is reported


def describe(bench: Bench) -> Document:
    dump = bench.dump
    return {
        "versions": versions(bench.attnkit, "numpy", "zarr", "numcodecs", "tensorstore"),
        "dump": {
            "shape": SHAPE,
            "dtype": "float16",
            "step_files": dump.files,
            "videos": dump.videos,
            "words_per_video": len(TOKENS),
            "steps": dump.steps,
            "raw_bytes": dump.raw_bytes,
        },
    }


def limit(row: Row) -> dict[str, Any]:
    best = min(row.seconds)
    return {
        "mb_per_s": row.own_bytes / best / 1e6,
        "raw_mb_per_s": row.raw_bytes / best / 1e6,
        "seconds": row.seconds,
    }


def summarise(bench: Bench, row: Row, limits: dict[str, Any]) -> dict[str, Any]:
    raw = bench.dump.raw_bytes
    best = min(row.seconds)
    binding = min(row.limits, key=lambda what: limits[what]["raw_mb_per_s"], default=None)
    return {
        "what": row.what,
        "mb_per_s": raw / best / 1e6,
        "ratio_to_cp": min(bench.rows[CP].seconds) / best,
        "stored_to_raw": row.stored_bytes and row.stored_bytes / raw,
        "attention_to_raw": row.attention_bytes and row.attention_bytes / raw,
        "peak_rss_bytes": row.peak_rss_bytes,
        "limit": binding,
        "share_of_limit": binding and raw / best / 1e6 / limits[binding]["raw_mb_per_s"],
        "goal": GOAL if row.what.startswith("ingest") else None,
        "seconds": row.seconds,
    }


def markdown(document: Document) -> str:
    dump = document["dump"]
    head = ("what", "MB/s of raw input", "ratio to cp", "stored/raw", "peak MiB", "limit", "its MB/s", "share", "goal")
    limits = document["limits"]
    return "\n\n".join(
        (
            prose(
                f"{dump['step_files']} step files {list(dump['shape'])} in {dump['dtype']},"
                f" {dump['raw_bytes'] / 1e9:.2f} GB: videos x words x steps are {dump['videos']} x"
                f" {dump['words_per_video']} x {dump['steps']}; page cache warm; best of {document['rounds']}.",
                "A limit is what this machine did at most in the same run, of raw input; the share is the measured"
                " speed by it.",
            ),
            table(head, (table_line(row, limits) for row in document["rows"])),
            prose(
                "The limits, each with a thread for each core. Memory counts bytes that are read and those that are"
                " written, encoding and decoding (c-blosc) raw values, write and fsync what is stored."
            ),
            table(
                ("limit", "MB/s", "MB/s of raw input"),
                ((what, f"{of['mb_per_s']:.0f}", f"{of['raw_mb_per_s']:.0f}") for what, of in limits.items()),
            ),
        )
    )


def table_line(row: dict[str, Any], limits: dict[str, Any]) -> tuple[str, ...]:
    stored, peak, limit, goal = row["stored_to_raw"], row["peak_rss_bytes"], row["limit"], row["goal"]
    return (
        row["what"],
        f"{row['mb_per_s']:.0f}",
        f"{row['ratio_to_cp']:.2f}",
        "" if stored is None else f"{stored:.3f}",
        "" if peak is None else f"{peak / 2**20:.0f}",
        limit or "",
        "" if limit is None else f"{limits[limit]['raw_mb_per_s']:.0f}",
        "" if limit is None else f"{row['share_of_limit']:.0%}",
        "" if goal is None else f"{goal:.0%}",
    )


if __name__ == "__main__":
    sys.exit(main())
