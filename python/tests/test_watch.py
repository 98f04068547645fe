"""Following a dump from Python while it is being written."""

from __future__ import annotations

import datetime
import itertools
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import attnkit
import numpy as np
import pytest
from conftest import write_dump

VIDEO = "prompt_000_vid001"


@pytest.fixture
def ready(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """What a generator will write, and the values in it."""
    values = write_dump(tmp_path / "ready", 4, (1, 2, 24, 1))
    return tmp_path / "ready" / VIDEO / "token_flower", values


def generate(ready: Path, into: Path, steps: range, pause: float = 0.0) -> None:
    """Writes steps as a generator does: the array, then what describes it."""
    directory = into / VIDEO / "token_flower"
    directory.mkdir(parents=True, exist_ok=True)
    for step, ending in itertools.product(steps, (".npy", "_metadata.json")):
        shutil.copy(ready / f"step_{step:03d}{ending}", directory)
        time.sleep(pause)


def test_steps_are_there_soon_after_they_are_written_and_it_ends_when_nothing_comes(
    ready: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    files, values = ready
    dump, path = tmp_path / "dump", tmp_path / "maps.store"
    seen: list[tuple[int, int]] = []
    generator = threading.Thread(target=generate, args=(files, dump, range(4), 0.2))
    generator.start()
    report = attnkit.watch(dump, path, poll=0.05, until_idle=2, progress=lambda done, all: seen.append((done, all)))
    generator.join()
    assert report.ingested == 4 and report.quarantined == [] and report.contents is None
    assert seen[-1] == (4, 4) and seen[0][0] < 4
    np.testing.assert_array_equal(attnkit.open(path).xarray(VIDEO, "flower").attention.values.ravel(), values.ravel())
    assert attnkit.open(path).verify(dump)


def test_a_step_that_is_never_completed_is_named_at_the_end(ready: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    files, _ = ready
    generate(files, tmp_path / "dump", range(3))
    alone = tmp_path / "dump" / VIDEO / "token_flower/step_003.npy"
    shutil.copy(files / "step_003.npy", alone)
    soon = datetime.timedelta(seconds=0.5)
    report = attnkit.watch(tmp_path / "dump", tmp_path / "maps.store", poll=0.05, until_idle=soon)
    assert report.ingested == 3 and [one["path"] for one in report.quarantined] == [str(alone)]


def test_a_dump_that_never_comes_is_missed(tmp_path: Path) -> None:
    with pytest.raises(attnkit.NotFoundError, match="never"):
        attnkit.watch(tmp_path / "never", tmp_path / "maps.store", poll=0.05, until_idle=0.2)


def test_options_are_those_of_an_ingest(ready: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    files, _ = ready
    generate(files, tmp_path / "dump", range(4))
    attnkit.watch(tmp_path / "dump", tmp_path / "maps.store", poll=0.05, until_idle=0.3, every=2, prefix="batch")
    steps = attnkit.open(tmp_path / "maps.store").steps
    assert set(steps["video_id"].tolist()) == {f"batch/{VIDEO}"} and steps["step"].tolist() == [0, 2]
    with pytest.raises(attnkit.DumpError, match=r"step_001\.npy"):
        (tmp_path / "dump" / VIDEO / "token_flower/step_001.npy").write_bytes(b"no array")
        attnkit.watch(tmp_path / "dump", tmp_path / "other.store", poll=0.05, until_idle=1, on_error="raise")


@pytest.mark.parametrize(
    ("times", "error"),
    [
        ({"poll": -1}, ValueError),
        ({"poll": float("nan")}, ValueError),
        ({"poll": 1e300}, ValueError),
        ({"until_idle": float("inf")}, ValueError),
        ({"until_idle": datetime.timedelta(days=-1)}, ValueError),
        ({"until_idle": "soon"}, TypeError),
    ],
    ids=str,
)
def test_times_that_cannot_be_are_refused_before_anything_is_waited_for(
    tmp_path: Path, times: dict[str, Any], error: type[Exception]
) -> None:
    (name,) = times
    with pytest.raises(error, match=f"^{name}: "):
        attnkit.watch(tmp_path, tmp_path / "maps.store", **times)


WATCH = """
import json, sys, time, attnkit
def tell(done, all):
    print(done, all, flush=True)
    time.sleep(0.2)
report = attnkit.watch(sys.argv[1], sys.argv[2], poll=0.05, progress=tell)
print(json.dumps(report.to_dict()), flush=True)
"""


@pytest.mark.parametrize("seconds", [0.0, 0.5], ids=["in the progress function", "between two looks"])
def test_ctrl_c_ends_it_with_a_report_and_the_store_is_whole(
    ready: tuple[Path, np.ndarray], tmp_path: Path, seconds: float
) -> None:
    files, values = ready
    generate(files, tmp_path / "dump", range(2))
    command = [sys.executable, "-c", WATCH, str(tmp_path / "dump"), str(tmp_path / "maps.store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("2 "):
                break
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=30)
    assert process.returncode == 0 and complained == ""
    report = json.loads(said.splitlines()[-1])
    assert report["ingested"] == 2 and report["quarantined"] == []
    store = attnkit.open(tmp_path / "maps.store")
    assert store.verify(tmp_path / "dump") and store.gc(dry_run=True).removed == []
    np.testing.assert_array_equal(store.xarray(VIDEO, "flower").attention.values.ravel(), values[:2].ravel())


def test_an_error_of_the_progress_function_ends_it_too(ready: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    files, _ = ready
    generate(files, tmp_path / "dump", range(1))

    def refuse(done: int, all: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        attnkit.watch(tmp_path / "dump", tmp_path / "maps.store", poll=0.05, progress=refuse)


def test_two_watches_of_two_dumps_share_a_store(ready: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    files, values = ready
    reports: list[attnkit.IngestReport] = []

    def follow(name: str) -> None:
        path = tmp_path / "maps.store"
        reports.append(attnkit.watch(tmp_path / name, path, prefix=name, poll=0.05, until_idle=1))

    watches = [threading.Thread(target=follow, args=(name,)) for name in ("a", "b")]
    for one in watches:
        one.start()
    for name in ("a", "b"):
        generate(files, tmp_path / name, range(4), 0.01)
    for one in watches:
        one.join()
    store = attnkit.open(tmp_path / "maps.store")
    assert [report.ingested for report in reports] == [4, 4] and store.verify()
    for name in ("a", "b"):
        found = store.xarray(f"{name}/{VIDEO}", "flower").attention.values
        np.testing.assert_array_equal(found.ravel(), values.ravel())
