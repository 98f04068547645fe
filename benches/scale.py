"""How time and memory grow with the size of a dump and the number of threads: run by `make bench`.

Steps are [30, 12, 23850, 1] in float16, 17 MB each. Commands are timed as processes, the best of the rounds counts;
peak memory is that of the process, the largest of the rounds.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import Document, bench, cores, find_binary, parser_of, prose, run, say, table, versions, warm_page_cache

from ingest import STEP_BYTES

# Words side by side, so that there is something for each thread.
WORDS = ("flower", "tree", "a")


def main() -> int:
    parser = parser_of(__doc__, "attnkit", "synth", rounds=2)
    parser.add_argument("--steps", type=int, nargs="+", default=[12, 48, 192], help="of all words [12 48 192]")
    arguments = parser.parse_args()
    if any(steps < 1 or steps % len(WORDS) for steps in arguments.steps):
        parser.error(f"--steps must be multiples of {len(WORDS)}")
    return bench(arguments, measure, markdown)


def measure(arguments: argparse.Namespace, work: Path) -> Document:
    attnkit, synth = find_binary(arguments.attnkit), find_binary(arguments.synth)
    rows: list[dict[str, Any]] = []
    for steps in arguments.steps:
        say(f"{steps} steps …")
        with tempfile.TemporaryDirectory(dir=work) as place:
            rows += measured(attnkit, synth, steps, arguments.rounds, Path(place))
    # A command's rows one below the other: what grows is seen down the column.
    order = list(dict.fromkeys(row["what"] for row in rows))
    rows.sort(key=lambda row: (order.index(row["what"]), row["threads"], row["steps"]))
    return {"versions": versions(attnkit), "rows": rows}


def measured(attnkit: Path, synth: Path, steps: int, rounds: int, work: Path) -> Iterator[dict[str, Any]]:
    dump, store = work / "dump", work / "store"
    run(synth, "--tokens", ",".join(WORDS), "--videos", 1, "--steps", steps // len(WORDS), "--out", dump)
    warm_page_cache(dump)
    commands: dict[str, tuple[object, ...]] = {
        "ingest": ("ingest", dump, "--store", store, "-q"),
        "mean over blocks and heads, of all values": (
            *("query", "average", store, "--over", "block,head", "--no-rollups", "-q"),
        ),
        "verify": ("verify", store, "-q"),
    }
    for threads in sorted({1, min(2, cores()), cores()}):
        for what, command in commands.items():
            runs = []
            for _ in range(rounds):
                if what == "ingest":
                    shutil.rmtree(store, ignore_errors=True)
                runs.append(run(attnkit, *command, "--threads", threads, settle=True))
            yield {
                "what": what,
                "steps": steps,
                "raw_bytes": steps * STEP_BYTES,
                "threads": threads,
                "seconds": min(of.seconds for of in runs),
                "peak_rss_bytes": max(of.peak_rss_bytes for of in runs),
            }


def markdown(document: Document) -> str:
    head = ("what", "threads", "steps", "GB", "times the size", "seconds", "times the seconds", "MB/s", "peak MiB")
    first: dict[tuple[str, int], dict[str, Any]] = {}
    rows = []
    for row in document["rows"]:
        least = first.setdefault((row["what"], row["threads"]), row)
        rows.append(
            (
                row["what"],
                str(row["threads"]),
                str(row["steps"]),
                f"{row['raw_bytes'] / 1e9:.2f}",
                f"{row['steps'] / least['steps']:.3g}",
                f"{row['seconds']:.2f}",
                f"{row['seconds'] / least['seconds']:.2f}",
                f"{row['raw_bytes'] / 1e6 / row['seconds']:.0f}",
                f"{row['peak_rss_bytes'] / 2**20:.0f}",
            )
        )
    best = prose(f"One video of {len(WORDS)} words; page cache warm; best of {document['rounds']}.")
    return "\n\n".join((best, table(head, rows)))


if __name__ == "__main__":
    sys.exit(main())
