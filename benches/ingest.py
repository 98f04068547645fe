"""How fast ingest and read-back are, beside `cp -r`, zarr-python and tensorstore: run by `make bench`.

Makes a synthetic dump, measures everything on it in one run, prints a table and removes what it made.
benches/README.md says what is measured and how to read it. What zarr-python and tensorstore do is in peers.py, in
processes of its own: this one stays small, because a child's peak memory counts from its parent's (see `run`).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

BLOCKS, HEADS, GRID = 30, 12, (15, 30, 53)
SHAPE = (BLOCKS, HEADS, math.prod(GRID), 1)
STEP_BYTES = math.prod(SHAPE) * 2  # float16
TOKENS = ("flower", "tree")
STEPS = 20
CP, COMPARED = "cp -r", "balanced"
PEERS = Path(__file__).with_name("peers.py")


class BenchError(Exception):
    """What went wrong, for the user to read."""


@dataclass(frozen=True)
class Recipe:
    """One way to ingest."""

    name: str
    flags: tuple[str, ...]


RECIPES = (
    Recipe("fast", ("--codec", "fast")),
    Recipe(COMPARED, ("--codec", "balanced")),
    Recipe("small", ("--codec", "small")),
    Recipe("none", ("--codec", "none")),
    Recipe("balanced, no rollups", ("--codec", "balanced", "--rollups", "none")),
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


@dataclass(frozen=True)
class Finished:
    """A command that succeeded."""

    seconds: float
    stdout: str
    peak_rss_bytes: int


@dataclass
class Bench:
    """Where the programs and files are, and what has been measured so far."""

    attnkit: Path
    readback: Path
    dump: Dump
    work: Path
    cores: int
    rows: dict[str, Row] = field(default_factory=dict)

    def row(self, what: str) -> Row:
        return self.rows.setdefault(what, Row(what))


def main() -> int:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, leave)
    try:
        with tempfile.TemporaryDirectory(prefix="attnkit-bench-", dir=arguments.work) as work:
            bench = prepare(arguments, Path(work))
            document = describe(bench, arguments)
            measure(bench, arguments.rounds)
            document["rows"] = [summarise(bench, row) for row in bench.rows.values()]
    except BenchError as error:
        print(f"benches/ingest.py: {error}", file=sys.stderr)
        return 1
    print_document(document)
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("attnkit", "synth", "readback"):
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"path of the {name} binary")
    parser.add_argument("--size-gb", type=float, default=2.0, help="least size of the dump, in 10^9 bytes [2]")
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each thing; the best one counts [3]")
    parser.add_argument("--work", type=Path, help="where to make the temporary directory [the system's place]")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    arguments = parser.parse_args()
    if arguments.size_gb <= 0 or arguments.rounds < 1:
        parser.error("--size-gb and --rounds must be positive")
    if arguments.json and not arguments.json.parent.is_dir():
        parser.error(f"--json: there is no directory {arguments.json.parent}")
    return arguments


def leave(number: int, _frame: FrameType | None) -> None:
    """Turn a signal into an exception, so that temporary files are removed."""
    sys.exit(128 + number)


# ---- what is measured


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
    cores = len(os.sched_getaffinity(0))
    return Bench(binaries["attnkit"], binaries["readback"], dump, work, cores)


def find_binary(path: Path) -> Path:
    found = shutil.which(path)
    if found is None:
        raise BenchError(f"{path} is not a program; build it with `cargo build --release --bins --examples`")
    return Path(found).resolve()


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


def measure(bench: Bench, rounds: int) -> None:
    """Take turns, so that a slow minute of the machine does not fall on one thing alone."""
    # Rows in the order in which the table shows them.
    bench.row(CP)
    for kind in ("ingest", "read-back"):
        for recipe in RECIPES:
            bench.row(f"{kind} {recipe.name}")
    say("warm-up")
    measure_round(bench, with_peers=False)
    for row in bench.rows.values():
        row.seconds.clear()
    for number in range(1, rounds + 1):
        say(f"round {number} of {rounds}")
        measure_round(bench, with_peers=True)


def measure_round(bench: Bench, with_peers: bool) -> None:
    measure_cp(bench)
    for recipe in RECIPES:
        store = bench.work / "store"
        measure_ingest(bench, recipe, store)
        result = timed(bench, f"read-back {recipe.name}", bench.readback, store)
        check_bytes(bench, result, f"readback of {recipe.name}")
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
    flags = (*recipe.flags, "--quiet", "--report", report)
    finished = run(bench.attnkit, "ingest", bench.dump.path, "--store", store, *flags, settle=True)
    check_report(report)
    check_shapes(bench, store, recipe.name)

    row = bench.row(f"ingest {recipe.name}")
    add(row, finished.seconds)
    row.stored_bytes = tree_bytes(store)
    row.attention_bytes = sum(tree_bytes(array) for array in attention_arrays(store))
    row.peak_rss_bytes = max(row.peak_rss_bytes or 0, finished.peak_rss_bytes)


def measure_peers(bench: Bench, store: Path) -> None:
    inputs = (store, bench.dump.path, bench.cores)
    for library in ("zarr-python", "tensorstore"):
        result = timed(bench, f"read-back {COMPARED} by {library}", sys.executable, PEERS, f"{library}-read", *inputs)
        check_bytes(bench, result, library)
    what, copy = f"{COMPARED} codec, attention only, written by zarr-python", bench.work / "written"
    result = timed(bench, what, sys.executable, PEERS, "zarr-python-write", *inputs, copy)
    check_bytes(bench, result, "zarr-python")
    bench.row(what).stored_bytes = bench.row(what).attention_bytes = tree_bytes(copy)
    shutil.rmtree(copy)


def timed(bench: Bench, what: str, *command: object) -> dict[str, float]:
    """Run a command that times itself and prints one line, {"bytes": N, "seconds": s}."""
    finished = run(*command, settle=True)
    try:
        result: dict[str, float] = json.loads(finished.stdout)
        add(bench.row(what), float(result["seconds"]))
    except (ValueError, KeyError, TypeError) as error:
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


# ---- running commands


def run(*command: object, settle: bool = False) -> Finished:
    """Run to the end; `settle` first writes back what earlier runs left in the page cache.

    Linux takes the peak of a process to be at least what its parent had at the fork, so it is only true if this
    process is smaller than the child.
    """
    words = [str(word) for word in command]
    if settle:
        os.sync()
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        started = time.perf_counter()
        try:
            child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
        except OSError as error:
            raise BenchError(f"{words[0]}: {error}") from error
        status, usage = wait(child)
        seconds = time.perf_counter() - started
        code = os.waitstatus_to_exitcode(status)
        if code != 0:
            stderr.seek(0)
            tail = "\n".join(stderr.read().splitlines()[-20:])
            raise BenchError(f"exit code {code} of\n  {' '.join(words)}\n{tail}")
        stdout.seek(0)
        unit = 1 if sys.platform == "darwin" else 1024
        return Finished(seconds, stdout.read(), usage.ru_maxrss * unit)


def wait(child: subprocess.Popen[bytes]) -> tuple[int, resource.struct_rusage]:
    try:
        _, status, usage = os.wait4(child.pid, 0)
    except BaseException:
        child.kill()
        child.wait()
        raise
    child.returncode = os.waitstatus_to_exitcode(status)
    return status, usage


def warm_page_cache(directory: Path) -> None:
    buffer = bytearray(1 << 20)
    for path in files(directory):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def files(directory: Path) -> Iterator[Path]:
    return (path for path in directory.rglob("*") if path.is_file())


def tree_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in files(directory))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# ---- what is reported


def describe(bench: Bench, arguments: argparse.Namespace) -> dict[str, Any]:
    dump = bench.dump
    return {
        "machine": {
            "cores": bench.cores,
            "cpu": cpu_model(),
            "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            "system": platform.platform(),
            "file_system": file_system(bench.work),
        },
        "versions": {
            "attnkit": run(bench.attnkit, "--version").stdout.strip().removeprefix("attnkit "),
            "python": platform.python_version(),
            **{package: installed(package) for package in ("zarr", "numcodecs", "numpy", "tensorstore")},
        },
        "dump": {
            "shape": SHAPE,
            "dtype": "float16",
            "step_files": dump.files,
            "videos": dump.videos,
            "words_per_video": len(TOKENS),
            "steps": dump.steps,
            "raw_bytes": dump.raw_bytes,
        },
        "rounds": arguments.rounds,
    }


def installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise BenchError(f"{sys.executable} has no {package}; see benches/README.md") from error


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def file_system(path: Path) -> str:
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    holding = [(len(mount), kind) for mount, kind in mounts if path.resolve().is_relative_to(mount)]
    return max(holding, default=(0, "unknown"))[1]


def summarise(bench: Bench, row: Row) -> dict[str, Any]:
    raw = bench.dump.raw_bytes
    best = min(row.seconds)
    return {
        "what": row.what,
        "mb_per_s": raw / best / 1e6,
        "ratio_to_cp": min(bench.rows[CP].seconds) / best,
        "stored_to_raw": row.stored_bytes and row.stored_bytes / raw,
        "attention_to_raw": row.attention_bytes and row.attention_bytes / raw,
        "peak_rss_bytes": row.peak_rss_bytes,
        "seconds": row.seconds,
    }


def print_document(document: dict[str, Any]) -> None:
    machine, dump = document["machine"], document["dump"]
    memory = machine["memory_bytes"] / 2**30
    print(f"machine:  {machine['cores']} cores, {machine['cpu']}, {memory:.0f} GiB, {machine['file_system']}")
    print(f"system:   {machine['system']}")
    print("versions: " + ", ".join(f"{name} {version}" for name, version in document["versions"].items()))
    print(
        f"dump:     {dump['step_files']} step files {list(dump['shape'])} {dump['dtype']},"
        f" {dump['raw_bytes'] / 1e9:.2f} GB:"
        f" {dump['videos']} videos x {dump['words_per_video']} words x {dump['steps']} steps; page cache warm"
    )
    print(f"figures:  best of {document['rounds']}, all from one run; compare ratios, not MB/s, between machines\n")
    head = ("what", "MB/s of raw input", "ratio to cp", "stored/raw", "peak MiB")
    table = [head, *(table_line(row) for row in document["rows"])]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        print("  ".join(cells).rstrip())


def table_line(row: dict[str, Any]) -> tuple[str, ...]:
    stored, peak = row["stored_to_raw"], row["peak_rss_bytes"]
    return (
        row["what"],
        f"{row['mb_per_s']:.0f}",
        f"{row['ratio_to_cp']:.2f}",
        "" if stored is None else f"{stored:.3f}",
        "" if peak is None else f"{peak / 2**20:.0f}",
    )


if __name__ == "__main__":
    sys.exit(main())
