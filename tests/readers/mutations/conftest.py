"""The good dump and its store, fresh copies, and ways to run attnkit."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from answers import asked, by_step, table
from changes import Copy
from good_dump import write_good_dump

# What fails in these is told value by value, as in tests.
pytest.register_assert_rewrite("contents", "ingested")


@pytest.fixture(scope="module")
def place():
    """Where copies are made: in memory where there is such a place, since stores are flushed to disk."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="attnkit-", dir=memory) as directory:
        yield Path(directory)


@pytest.fixture
def directory(place):
    """A new directory there."""
    with tempfile.TemporaryDirectory(dir=place) as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def run(finished):
    """Runs `attnkit ARGS…`; unlike `finished` it keeps every byte of what was printed, and gives up on what hangs."""

    def run(*arguments, cwd=None):
        command = [os.environ["ATTNKIT_BIN"], *map(str, arguments)]
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, cwd=cwd)
        out, err = (text.decode("utf-8", "surrogateescape") for text in (ended.stdout, ended.stderr))
        said = f"attnkit {' '.join(command[1:])}\nexit code {ended.returncode}\n{out[-3000:]}{err[-3000:]}"
        assert ended.returncode in (0, 1, 2, 3) and "panicked" not in err, said
        return SimpleNamespace(code=ended.returncode, out=out, err=err, said=said)

    return run


@pytest.fixture(scope="module")
def answered(run):
    """Runs `attnkit ARGS…`, which must succeed: what it printed."""

    def answered(*arguments, **how):
        ran = run(*arguments, **how)
        assert ran.code == 0, ran.said
        return ran.out

    return answered


@pytest.fixture(scope="module")
def good_dump(place):
    return write_good_dump(place / "good" / "dump")


@pytest.fixture(scope="module")
def good(answered, good_dump):
    """What the store of the good dump answers, by step."""
    store = good_dump.parent / "store"
    answered("ingest", good_dump, "--store", store)
    return SimpleNamespace(heads=by_step(table(store, "heads")), asked=asked(answered, store), store=store)


@pytest.fixture
def copy(directory, good_dump):
    shutil.copytree(good_dump, directory / "dump")
    return Copy(directory)
