"""Many small videos: what ingest, packing and questions cost by their number, beside DuckDB on the same rows: run by
`make bench`.

Each video has one word and two steps of [2, 2, 4, 1]: all that is measured is what each video costs, whatever is in it.
Commands are timed as processes, DuckDB within its own (query_peers.py); the best of the rounds counts, of peak memory
the largest.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness import BenchError, Document, bench, find_binary, parser_of, prose, run, said, say, table, versions

STEPS = "step = 1 AND seed > 100"
HEADS = "entropy > 1 AND head = 0"
DUMP = ["--tokens", "flower", "--steps", "2", "--blocks", "2", "--heads", "2", "--grid", "1x2x2"]
PEERS = Path(__file__).with_name("query_peers.py")


def main() -> int:
    parser = parser_of(__doc__, "attnkit", "synth", rounds=3)
    numbers = [100, 1000, 10000, 100000]
    parser.add_argument("--videos", type=int, nargs="+", default=numbers, help=f"[{' '.join(map(str, numbers))}]")
    # Every part of an unpacked store is a file that DuckDB opens.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65536, hard), hard))
    return bench(parser.parse_args(), measure, markdown)


def measure(arguments: argparse.Namespace, work: Path) -> Document:
    attnkit, synth = find_binary(arguments.attnkit), find_binary(arguments.synth)
    columns = []
    for videos in arguments.videos:
        say(f"{videos} videos …")
        with tempfile.TemporaryDirectory(dir=work) as place:
            columns.append(dict(measured(attnkit, synth, videos, arguments.rounds, Path(place))))
    return {
        "versions": versions(attnkit, "duckdb"),
        "videos": arguments.videos,
        "rows": {row: [column[row] for column in columns] for row in columns[0]},
    }


def markdown(document: Document) -> str:
    videos, rows = document["videos"], document["rows"]
    counted = table(
        ("what", *(f"{count:,} videos" for count in videos), "growth"),
        ((row, *(shown(row, value) for value in values), growth(videos, values)) for row, values in rows.items()),
    )
    says = "Growth is the exponent between the last two numbers of videos: 1 is in proportion."
    return "\n\n".join((prose(f"One word and two steps each; best of {document['rounds']}.", says), counted))


def growth(videos: list[int], values: list[float]) -> str:
    if len(videos) < 2:
        return ""
    return f"{math.log(values[-1] / values[-2]) / math.log(videos[-1] / videos[-2]):.2f}"


def shown(row: str, value: float) -> str:
    if row.startswith(("files", "bytes")):
        return f"{value:,.0f}"
    if row.startswith("peak"):
        return f"{value / 2**20:.0f} MiB"
    return f"{value:.1f} s" if value >= 10 else f"{value:.3f} s"


def measured(attnkit: Path, synth: Path, videos: int, rounds: int, work: Path) -> Iterator[tuple[str, float]]:
    dump, store, packed = work / "dump", work / "store", work / "packed.store"
    run(synth, "--videos", videos, *DUMP, "--out", dump)
    ingest = ("ingest", dump, "--store")
    yield "`attnkit --version`", best(rounds, attnkit, "--version")[0]
    yield from both("`ingest`, not packed", best(1, attnkit, *ingest, store, "--no-pack", "-q"))
    yield "`ingest` again, nothing new", best(rounds, attnkit, *ingest, store, "--no-pack", "-q")[0]
    shutil.copytree(store, packed)
    yield from both("`compact`", best(1, attnkit, "compact", packed, "-q"))
    yield "`ingest` again, packed", best(rounds, attnkit, *ingest, packed, "-q")[0]
    for place, name in ((dump, "dump"), (store, "store, not packed"), (packed, "store")):
        sizes = [file.stat().st_blocks * 512 for file in place.rglob("*") if file.is_file()]
        yield f"files of the {name}", len(sizes)
        yield f"bytes on disk of the {name}", sum(sizes)
    questions: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        f"`list --where '{STEPS}'`": (("query", "list"), ("--where", STEPS, "--columns", "video_id")),
        f"`list --table heads --where '{HEADS}'`": (
            ("query", "list"),
            ("--table", "heads", "--where", HEADS, "--columns", "video_id"),
        ),
        "`info`": (("info",), ()),
        "`average --video …`": (("query", "average"), ("--video", f"prompt_000_vid{videos // 2:03}")),
    }
    for name, (command, options) in questions.items():
        yield name + ", not packed", best(rounds, attnkit, *command, store, *options)[0]
        yield from both(name, best(rounds, attnkit, *command, packed, *options))
    for rows, where in (("steps", STEPS), ("heads", HEADS)):
        one = work / f"{rows}.parquet"
        parts = f"index/{rows}/*.parquet"
        asked(f"COPY (FROM read_parquet('{packed}/{parts}') ORDER BY ALL) TO '{one}'", 1)
        answers = set()
        for name, files in (
            ("one file", one),
            ("the packed store's", packed / parts),
            ("the unpacked store's", store / parts),
        ):
            query = f"SELECT count(video_id) FROM read_parquet('{files}') WHERE {where}"
            answer, seconds = asked(query, rounds)
            answers.add(answer)
            yield f"DuckDB, `{rows}`: {name}", seconds
        if len(answers) != 1:
            raise BenchError(f"DuckDB counts {answers} rows of {rows} in the same store")


def both(name: str, found: tuple[float, int]) -> Iterator[tuple[str, float]]:
    yield name, found[0]
    yield f"peak memory of {name}", found[1]


def best(rounds: int, *command: object) -> tuple[float, int]:
    """The least seconds and the largest peak of a command."""
    runs = [run(*command, settle=True) for _ in range(rounds)]
    return min(of.seconds for of in runs), max(of.peak_rss_bytes for of in runs)


def asked(query: str, rounds: int) -> tuple[float, float]:
    """What DuckDB answers, and the least seconds it takes."""
    os.sync()
    command = (sys.executable, PEERS, "DuckDB", "sql", query, rounds)
    result = said(run(*command), *command)
    return result["check"], result["seconds"]


if __name__ == "__main__":
    sys.exit(main())
