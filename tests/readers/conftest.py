"""Runs the attnkit binary (named by ATTNKIT_BIN) once per session to make the stores that the tests open.

Nothing here or in the tests imports attnkit: what they read, they read with other people's libraries.
"""

import os
import subprocess
from pathlib import Path

import pytest
from asking import load
from source_dump import DATASET, VARIANTS


@pytest.fixture(scope="session")
def finished():
    """Runs `attnkit ARGS…` to its end: what it printed, and said; fails the test with its messages if it ends otherwise
    than with `code`, unless that is None."""
    binary = os.environ.get("ATTNKIT_BIN")
    if not binary:
        pytest.exit("ATTNKIT_BIN names no attnkit binary; `make test` sets it", returncode=2)
    if not Path(binary).is_file():
        pytest.exit(f"ATTNKIT_BIN={binary} is not there; `make build` makes it", returncode=2)

    def run(*arguments, code=0):
        finished = subprocess.run(
            [binary, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert code in (None, finished.returncode), (
            f"attnkit {' '.join(map(str, arguments))}\n{finished.stdout}{finished.stderr}"
        )
        return finished

    return run


@pytest.fixture(scope="session")
def attnkit(finished):
    """Runs `attnkit ARGS…`: what it printed."""
    return lambda *arguments: finished(*arguments).stdout


@pytest.fixture(scope="session")
def store_of(attnkit, tmp_path_factory):
    """The store made of a dump, with all rollups; made once per dump."""
    stores = {}

    def ingest(dump):
        if dump not in stores:
            store = tmp_path_factory.mktemp(dump.name) / "store"
            attnkit("ingest", dump, "--store", store, "--rollups", "all")
            stores[dump] = store
        return stores[dump]

    return ingest


@pytest.fixture(scope="session")
def dataset_store(store_of):
    return store_of(DATASET)


@pytest.fixture(params=[DATASET, *VARIANTS], ids=lambda dump: dump.name)
def dump(request):
    """Every dump below `fixtures/`, one at a time."""
    return request.param


@pytest.fixture
def store(store_of, dump):
    """The store of `dump`."""
    return store_of(dump)


@pytest.fixture
def ask(attnkit, tmp_path):
    """The loaded answer to `attnkit query QUESTION STORE OPTIONS…`, which goes through a file of the format `to`."""

    def question(name, store, *options, to="parquet"):
        path = tmp_path / f"answer.{to}"
        attnkit("query", name, store, *options, "-o", path)
        return load(path)

    return question
