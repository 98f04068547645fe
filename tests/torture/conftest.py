"""The scenes of the torture: what is on disk before a command, what it is told to do, and what must be true
afterwards."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "readers"))

import pytest
import shim


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The library that disturbs calls."""
    return shim.build(tmp_path_factory.mktemp("library"))
