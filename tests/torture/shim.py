"""Runs attnkit with the file-system calls below one directory disturbed by `faults.c`."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
BINARY = os.environ.get("ATTNKIT_BIN", "attnkit")
FAULTS = [
    *(f"errno {getattr(errno, name)}" for name in ("EIO", "ENOSPC", "EMFILE", "EINTR", "EACCES")),
    "short",
    "before",
    "after",
]
KILLS = ("before", "after")


def build(directory):
    """Compiles the library: its path."""
    library = Path(directory) / "faults.so"
    compiler = os.environ.get("CC", "cc")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "faults.c", "-ldl", "-lpthread"], check=True
    )
    return library


def run(*arguments, library=None, cwd=None, **settings):
    """Runs `attnkit ARGS…`. `settings` are those of the library, without their `FAULTS_`."""
    disturbed = {f"FAULTS_{name.upper()}": str(value) for name, value in settings.items()}
    environment = os.environ | disturbed | ({"LD_PRELOAD": str(library)} if library else {})
    return subprocess.run(
        [BINARY, *map(str, arguments)],
        env=environment, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def calls(log):
    """The names of the calls that were made, in order."""
    return [line.split(" ", 2)[1] for line in Path(log).read_text().splitlines()]


def fresh_copy(source, target):
    """Puts a copy of a directory in the place of another; of none if there is none."""
    shutil.rmtree(target, ignore_errors=True)
    if source is not None and source.exists():
        shutil.copytree(source, target)
