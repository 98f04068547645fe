"""Runs attnkit with the file-system calls below one directory disturbed by `faults.c`."""

import contextlib
import errno
import os
import shutil
import signal
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


def environment(library, settings):
    """The environment of a disturbed run."""
    disturbed = {f"FAULTS_{name.upper()}": str(value) for name, value in settings.items()}
    return os.environ | disturbed | ({"LD_PRELOAD": str(library)} if library else {})


def run(*arguments, library=None, cwd=None, **settings):
    """Runs `attnkit ARGS…`. `settings` are those of the library, without their `FAULTS_`."""
    return subprocess.run(
        [BINARY, *map(str, arguments)],
        env=environment(library, settings), cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip


def start(*arguments, library=None, **settings):
    """Begins what `run` runs."""
    return subprocess.Popen(
        [BINARY, *map(str, arguments)],
        env=environment(library, settings), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def ended(process):
    """What `run` would have returned."""
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run_with_another(arguments, other, library, at, of_other=None, **settings):
    """Stops a command before a call, runs another one meanwhile, which `of_other` may disturb, and continues the first
    one: what both said. Where the other one waits for what is stopped, that is continued earlier."""
    first = start(*arguments, library=library, at=at, how="stop", **settings)
    _, status = os.waitpid(first.pid, os.WUNTRACED)
    is_stopped = os.WIFSTOPPED(status)
    if not is_stopped:
        first.returncode = os.waitstatus_to_exitcode(status)
    second = start(*other, library=library, **settings, **(of_other or {}))
    with contextlib.suppress(subprocess.TimeoutExpired):
        second.wait(0.3)
    if is_stopped:
        first.send_signal(signal.SIGCONT)
    return ended(first), ended(second)


def lines(log):
    """Name and path of the calls that were made, in order."""
    return [tuple(line.split(" ", 2)[1:]) for line in Path(log).read_text().splitlines()]


def calls(log):
    """The names of the calls that were made, in order."""
    return [name for name, _ in lines(log)]


def fresh_copy(source, target):
    """Puts a copy of a directory in the place of another; of none if there is none."""
    shutil.rmtree(target, ignore_errors=True)
    if source is not None and source.exists():
        shutil.copytree(source, target)
