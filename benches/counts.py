"""Many small videos: what ingest, packing and questions cost by their number, beside DuckDB on the same rows.

Usage: counts.py --attnkit BINARY --synth BINARY [--videos 100 1000 10000] [--rounds 3] [--work DIR] [--json FILE]

Each video has one word and two steps of [2, 2, 4, 1]: all that is measured is what each video costs, whatever is in it.
Commands are timed as processes, DuckDB within its own; the best of the rounds counts.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb

STEPS = "step = 1 AND seed > 100"
HEADS = "entropy > 1 AND head = 0"
DUMP = ["--tokens", "flower", "--steps", "2", "--blocks", "2", "--heads", "2", "--grid", "1x2x2"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--attnkit", type=Path, required=True)
    parser.add_argument("--synth", type=Path, required=True)
    parser.add_argument("--videos", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    attnkit = arguments.attnkit.resolve()
    columns = []
    for videos in arguments.videos:
        with tempfile.TemporaryDirectory(prefix="attnkit-counts-", dir=arguments.work) as work:
            print(f"{videos} videos …", file=sys.stderr)
            columns.append(dict(measured(attnkit, arguments.synth.resolve(), videos, arguments.rounds, Path(work))))
    print(f"| {' | '.join(['what', *(f'{videos:,} videos' for videos in arguments.videos)])} |")
    print("|---" * (1 + len(columns)) + "|")
    for row in columns[0]:
        print(f"| {row} | {' | '.join(shown(row, column[row]) for column in columns)} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(dict(zip(map(str, arguments.videos), columns)), indent=2) + "\n")


def shown(row: str, value: float) -> str:
    if row.startswith(("files", "bytes")):
        return f"{value:,.0f}"
    return f"{value:.1f} s" if value >= 10 else f"{value:.3f} s"


def measured(attnkit: Path, synth: Path, videos: int, rounds: int, work: Path) -> Iterator[tuple[str, float]]:
    dump, store, packed = work / "dump", work / "store", work / "packed.store"
    run(synth, "--videos", videos, *DUMP, "--out", dump)
    yield "`attnkit --version`", best(rounds, lambda: run(attnkit, "--version"))
    yield "`ingest`, not packed", seconds(lambda: run(attnkit, "ingest", dump, "--store", store, "--no-pack", "-q"))
    yield (
        "`ingest` again, nothing new",
        best(rounds, lambda: run(attnkit, "ingest", dump, "--store", store, "--no-pack", "-q")),
    )
    shutil.copytree(store, packed)
    yield "`compact`", seconds(lambda: run(attnkit, "compact", packed, "-q"))
    yield "`ingest` again, packed", best(rounds, lambda: run(attnkit, "ingest", dump, "--store", packed, "-q"))
    for place, name in ((dump, "dump"), (store, "store, not packed"), (packed, "store")):
        sizes = [file.stat().st_blocks * 512 for file in place.rglob("*") if file.is_file()]
        yield f"files of the {name}", len(sizes)
        yield f"bytes on disk of the {name}", sum(sizes)
    video = f"prompt_000_vid{videos // 2:03}"
    questions = {
        f"`list --where '{STEPS}'`": ["query", "list", "--where", STEPS, "--columns", "video_id"],
        f"`list --table heads --where '{HEADS}'`": [
            "query",
            "list",
            "--table",
            "heads",
            "--where",
            HEADS,
            "--columns",
            "video_id",
        ],
        "`info`": ["info"],
        "`average --video …`": ["query", "average", "--video", video],
    }
    for name, (command, *rest) in questions.items():
        at = 1 if command == "query" else 0
        for of, place in ((", not packed", store), ("", packed)):
            ask = [attnkit, command, *rest[:at], place, *rest[at:]]
            yield name + of, best(rounds, lambda ask=ask: run(*ask))
    for table, where in (("steps", STEPS), ("heads", HEADS)):
        one = work / f"{table}.parquet"
        duckdb.sql(f"COPY (FROM read_parquet('{packed}/index/{table}/*.parquet') ORDER BY ALL) TO '{one}'")
        answers = set()
        for name, files in (
            ("one file", one),
            ("the packed store's", f"{packed}/index/{table}/*.parquet"),
            ("the unpacked store's", f"{store}/index/{table}/*.parquet"),
        ):
            query = f"SELECT count(video_id) FROM read_parquet('{files}') WHERE {where}"
            answers.add(str(duckdb.sql(query).fetchall()))
            yield f"DuckDB, `{table}`: {name}", best(rounds, lambda query=query: duckdb.sql(query).fetchall())
        assert len(answers) == 1, answers


def run(*command: object) -> None:
    finished = subprocess.run([str(part) for part in command], capture_output=True, check=False)
    if finished.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: {finished.stderr.decode()}")


def seconds(work: Callable[[], object]) -> float:
    os.sync()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def best(rounds: int, work: Callable[[], object]) -> float:
    return min(seconds(work) for _ in range(rounds))


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65536, hard), hard))
    main()
