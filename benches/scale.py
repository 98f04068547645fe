"""How time and memory grow with the size of a dump and the number of threads.

Usage: scale.py --attnkit BINARY --synth BINARY [--steps 12 48 192] [--rounds 2] [--work DIR] [--json FILE]

Steps are [30, 12, 23850, 1] in float16, 17 MB each. Commands are timed as processes, the best of the rounds counts;
peak memory is that of the process (`wait4`), the largest of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEP_BYTES = 30 * 12 * 23850 * 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--attnkit", type=Path, required=True)
    parser.add_argument("--synth", type=Path, required=True)
    parser.add_argument("--steps", type=int, nargs="+", default=[12, 48, 192])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for steps in arguments.steps:
        with tempfile.TemporaryDirectory(prefix="attnkit-scale-", dir=arguments.work) as work:
            print(f"{steps} steps …", file=sys.stderr)
            rows += measured(
                arguments.attnkit.resolve(), arguments.synth.resolve(), steps, arguments.rounds, Path(work)
            )
    print("| what | steps | GB | threads | seconds | MB/s | peak MiB |\n|---|---|---|---|---|---|---|")
    for row in rows:
        print("| {what} | {steps} | {gb:.2f} | {threads} | {seconds:.2f} | {rate:.0f} | {peak:.0f} |".format(**row))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def measured(attnkit: Path, synth: Path, steps: int, rounds: int, work: Path) -> list[dict[str, object]]:
    dump, store = work / "dump", work / "store"
    # Words side by side, so that there is something for each thread.
    words = ["--tokens", "flower,tree,a", "--videos", 1, "--steps", steps // 3]
    subprocess.run([str(part) for part in (synth, *words, "--out", dump)], check=True, capture_output=True)
    cores = len(os.sched_getaffinity(0))
    threads = sorted({1, min(2, cores), cores})
    rows = []
    for count in threads:
        for what, command in {
            "ingest": ["ingest", dump, "--store", store, "-q"],
            "mean over blocks and heads, of all values": [
                "query",
                "average",
                store,
                "--over",
                "block,head",
                "--no-rollups",
            ],
            "verify": ["verify", store, "-q"],
        }.items():
            runs = []
            for _ in range(rounds):
                if what == "ingest":
                    shutil.rmtree(store, ignore_errors=True)
                runs.append(run(attnkit, *command, "--threads", count))
            seconds, peak = min(run[0] for run in runs), max(run[1] for run in runs)
            bytes_ = steps * STEP_BYTES
            row = {"what": what, "steps": steps, "gb": bytes_ / 1e9, "threads": count}
            rows.append({**row, "seconds": seconds, "rate": bytes_ / 1e6 / seconds, "peak": peak})
    return rows


def run(*command: object) -> tuple[float, float]:
    """Seconds and MiB that a process takes."""
    os.sync()
    started = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status != 0:
        sys.exit(f"{' '.join(map(str, command))}: status {status}")
    return seconds, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
