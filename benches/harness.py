"""What the benchmarks share: options, a temporary directory, programs with their seconds and peak memory, the machine
and versions, and tables in Markdown. What is measured is in the scripts themselves.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

#: What a script found: written to --json, and read by report.py.
Document = dict[str, Any]


class BenchError(Exception):
    """What went wrong, for the user to read."""


@dataclass(frozen=True)
class Finished:
    """A command that succeeded."""

    seconds: float
    stdout: str
    peak_rss_bytes: int


# ---- a script


def parser_of(doc: str, *binaries: str, rounds: int) -> argparse.ArgumentParser:
    """The options that every script has; `doc` is that of the script."""
    parser = argparse.ArgumentParser(description=" ".join(doc.split("\n\n")[0].split()))
    for name in binaries:
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"path of the {name} binary")
    parser.add_argument("--rounds", type=positive, default=rounds, help=f"runs of each way; the best counts [{rounds}]")
    parser.add_argument("--work", type=Path, help="where to make the temporary directory [the system's place]")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    return parser


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def bench(
    arguments: argparse.Namespace,
    measure: Callable[[argparse.Namespace, Path], Document],
    markdown: Callable[[Document], str],
) -> int:
    """Measures in a temporary directory, prints what was found, and writes it to --json; the exit code."""
    signal.signal(signal.SIGTERM, leave)
    if arguments.json and not arguments.json.parent.is_dir():
        print(f"--json: there is no directory {arguments.json.parent}", file=sys.stderr)
        return 2
    date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    try:
        with tempfile.TemporaryDirectory(prefix="attnkit-bench-", dir=arguments.work) as work:
            document = {"date": date, "machine": machine(Path(work)), "rounds": arguments.rounds}
            document |= measure(arguments, Path(work))
    except BenchError as error:
        print(f"{sys.argv[0]}: {error}", file=sys.stderr)
        return 1
    print(about(document), markdown(document), sep="\n\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


def leave(number: int, _frame: FrameType | None) -> None:
    """Turn a signal into an exception, so that temporary files are removed."""
    sys.exit(128 + number)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# ---- running programs


def find_binary(path: Path) -> Path:
    found = shutil.which(path)
    if found is None:
        raise BenchError(f"{path} is not a program; build it with `cargo build --release --bins --examples`")
    return Path(found).resolve()


def run(*command: object, settle: bool = False) -> Finished:
    """Run to the end; `settle` first writes back what earlier runs left in the page cache.

    Linux takes the peak of a process to be at least what its parent had at the fork, so it is only true if this
    process is smaller than the child: what needs numpy or DuckDB is done in processes of its own.
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


def said(finished: Finished, *command: object) -> Any:
    """The line of JSON that a command printed."""
    try:
        return json.loads(finished.stdout)
    except ValueError as error:
        raise BenchError(f"{command[0]} printed {finished.stdout!r}, not JSON") from error


# ---- files


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


# ---- machine and versions


def cores() -> int:
    return len(os.sched_getaffinity(0))


def machine(work: Path) -> dict[str, Any]:
    return {
        "cpu": cpu_model(),
        "cores": cores(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "file_system": file_system(work),
        # What follows is a builder's own.
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
    }


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


def versions(attnkit: Path, *packages: str, optional: Sequence[str] = ()) -> dict[str, str]:
    """Those of attnkit, of this Python, and of its packages; `optional` ones may be absent."""
    found = {"attnkit": run(attnkit, "--version").stdout.split()[-1], "python": platform.python_version()}
    for package in (*packages, *optional):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError as error:
            if package not in optional:
                raise BenchError(f"{sys.executable} has no {package}; see benches/README.md") from error
    return found


# ---- what is reported, as Markdown


def about(document: Document) -> str:
    of, memory = document["machine"], document["machine"]["memory_bytes"] / 2**30
    lines = [
        f"- date: {document['date']}",
        f"- CPU: {of['cpu']}, {of['cores']} cores",
        f"- memory: {memory:.0f} GiB",
        f"- file system: {of['file_system']}",
        f"- kernel: {of['kernel']}",
        listed("- versions: ", (f"{name} {version}" for name, version in document["versions"].items())),
    ]
    return "\n".join(lines)


def listed(head: str, words: Iterable[str]) -> str:
    return textwrap.fill(head + ", ".join(words), 110, subsequent_indent="  ", break_on_hyphens=False)


def prose(*sentences: str) -> str:
    """A paragraph, in lines as long as .ci/widths.py lets them be."""
    return textwrap.fill(" ".join(sentence for sentence in sentences if sentence), 110, break_on_hyphens=False)


def left_out(missing: dict[str, str]) -> str:
    """Says which ways were not measured, and why."""
    reasons = sorted(set(missing.values()))
    of = {why: " and ".join(way for way, reason in missing.items() if reason == why) for why in reasons}
    return " ".join(f"Left out: {ways} ({why})." for why, ways in of.items())


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
