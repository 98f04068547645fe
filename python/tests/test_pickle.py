"""Answers, reports and descriptions in other processes: as they were, and with all that they can."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import attnkit
import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import xarray
from conftest import write_dump

VIDEO = "prompt_000_vid001"
#: Every type that a SELECT makes.
TYPES = """SELECT video_id, seed, token_ids, token_texts, source_modified, weight, step, timestep,
    prompt_id IS NULL AS unknown, source_modified - source_modified AS long, NULL AS nothing,
    CAST(step AS BIGINT) AS wide, CAST(step AS REAL) AS narrow FROM steps"""
ANSWERS: dict[str, Callable[[attnkit.Store], attnkit.Result]] = {
    "steps": lambda store: store.steps,
    "heads": lambda store: store.heads,
    "columns": lambda store: store.columns(),
    "types": lambda store: store.sql(TYPES),
    "empty": lambda store: store.list("steps", limit=0),
    "average": lambda store: store.average(over=["block", "head"], where="token = 'circle'"),
    "sorted": lambda store: store.average(over=["block", "head", "step"], sort="entropy:desc", limit=5),
    "no maps": lambda store: store.average(over=["step"], values=False, limit=7),
    "map": lambda store: store.map(VIDEO, "circle", 3, size=(24, 24), frames=13),
    "evolution": lambda store: store.evolution(video=VIDEO, token="circle"),
    "matrix": lambda store: store.compare("seed", token="circle", form="matrix"),
    "differences": lambda store: store.compare("seed", token="circle", form="maps", align="mean"),
}


def seen(result: attnkit.Result) -> dict[str, Any]:
    """All that can be had of an answer."""
    os.environ["COLUMNS"] = "120"
    found: dict[str, Any] = {
        "text": repr(result),
        "html": result._repr_html_(),
        "keys": result.keys,
        "notes": result.notes,
        "columns": {name: result[name] for name in result.columns},
        "arrow": pa.table(result.to_arrow()),
        "stream": pl.DataFrame(result).to_dict(as_series=False),
        "pandas": result.to_pandas(),
        "numpy": result.to_numpy(),
    }
    found["labelled"] = result.to_xarray()
    if result.has_maps:
        found["maps"] = result.maps
        found["shared"] = np.shares_memory(result.maps[0], result._answer.values)
    return found


def assert_seen(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name in ("text", "html", "keys", "notes"):
        assert found[name] == expected[name], name
    for name, column in expected["columns"].items():
        assert found["columns"][name].dtype == column.dtype
        np.testing.assert_array_equal(found["columns"][name], column)
    assert found["arrow"].schema == expected["arrow"].schema
    np.testing.assert_equal(found["stream"], expected["stream"])
    assert found["pandas"].equals(expected["pandas"])
    assert found["numpy"].dtype == expected["numpy"].dtype
    assert found["numpy"].tobytes() == expected["numpy"].tobytes() or not expected.get("maps")
    assert found["labelled"].identical(expected["labelled"])
    assert found.get("shared", True)


@pytest.fixture(scope="module")
def other() -> Any:
    """Another process, which has not seen the store."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
        yield processes


@pytest.mark.parametrize("question", ANSWERS)
def test_an_answer_is_all_of_itself_in_another_process(store: attnkit.Store, other: Any, question: str) -> None:
    result = ANSWERS[question](store)
    expected = seen(result)
    for again in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result), copy.copy(result)):
        assert_seen(seen(again), expected)
    assert_seen(other.submit(seen, result).result(), expected)


def test_an_answer_that_was_copied_is_its_own(store: attnkit.Store) -> None:
    result = store.average(over=["block", "head", "step"])
    kept = result.to_numpy().copy()
    changed = copy.deepcopy(result)
    changed.to_numpy()[:] = 7
    np.testing.assert_array_equal(result.to_numpy(), kept)
    result.to_numpy()[0] = np.nan
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(result)).to_numpy()[0], np.full(kept[0].shape, np.nan))


def test_an_answer_that_travelled_writes_the_same_files(store: attnkit.Store, tmp_path: Path) -> None:
    result = store.average(over=["block", "head"], token="circle")
    again = pickle.loads(pickle.dumps(result))
    for name in ("answer.parquet", "answer.csv", "answer.npy"):
        (before, after) = (tmp_path / f"{when}_{name}" for when in ("before", "after"))
        result.write(before)
        again.write(after)
        assert before.read_bytes() == after.read_bytes()
    steps = pickle.loads(pickle.dumps(store.steps))
    assert duckdb.sql("SELECT count(*) FROM steps").fetchall() == [(len(steps),)]


@pytest.mark.parametrize("seed", [2**64 - 1, 2**63, -(2**63), None])
def test_seeds_of_64_bits_nan_and_infinity_travel_exactly(tmp_path: Path, seed: int | None) -> None:
    maps = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 1.0], np.float32).reshape(1, 1, 6, 1)
    with attnkit.StoreWriter(tmp_path / "maps.store", VIDEO, "a flower", seed=seed) as writer:
        writer.append("flower", 0, 999.0, maps)
    store = attnkit.open(tmp_path / "maps.store")
    steps = pickle.loads(pickle.dumps(store.steps))
    assert steps["seed"].tolist() == [seed]
    assert steps.to_pandas()["seed"].isna()[0] if seed is None else int(steps.to_pandas()["seed"][0]) == seed
    answer = store.average(over=[])
    np.testing.assert_array_equal(answer.to_numpy().ravel(), maps.ravel())
    assert pickle.loads(pickle.dumps(answer)).to_numpy().tobytes() == answer.to_numpy().tobytes()


def test_bytes_that_are_no_answer_are_an_error_and_no_crash(store: attnkit.Store) -> None:
    kind, (packed,) = store.evolution(video=VIDEO)._answer.__reduce__()
    for damaged in (b"", packed[:100], packed[:-1], packed + b"\0", packed[:200] + b"?" + packed[201:]):
        with pytest.raises(ValueError, match="answer"):
            kind(damaged)


def test_reports_and_descriptions_are_values(fixtures: Path, tmp_path: Path) -> None:
    path = tmp_path / "maps.store"
    ahead = attnkit.ingest(fixtures / "variants/gzip", path, dry_run=True)
    report = attnkit.ingest(fixtures / "variants/gzip", path)
    store = attnkit.open(path)
    made = [
        ahead, report, store.info(), store.verify(), store.export(tmp_path / "out"), store.gc(dry_run=True),
        store.compact(), store.rollup("none"),
        attnkit.estimate(fixtures / "variants/gzip"), attnkit.expand_prompts("a [(cat:2)|dog]"),
        attnkit.expand_prompts("a cat")[0],
    ]  # fmt: skip
    for one in made:
        for again in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):
            assert type(again) is type(one) and repr(again) == repr(one) and again.to_dict() == one.to_dict()


READ = """
import pickle, sys
dataset = pickle.load(sys.stdin.buffer)
print(float(dataset.attention.isel(step=1).sum()), dataset.attrs["token"])
"""


@pytest.mark.parametrize("opened", ["store", "engine"])
@pytest.mark.parametrize("chunks", [None, {"step": 1}], ids=str)
def test_a_lazy_dataset_reads_on_in_a_process_that_knows_nothing(tmp_path: Path, opened: str, chunks: Any) -> None:
    values = write_dump(tmp_path / "dump", 3, (2, 3, 24, 1))
    attnkit.ingest(tmp_path / "dump", tmp_path / "maps.store")
    if opened == "store":
        dataset = attnkit.open(tmp_path / "maps.store").xarray(VIDEO, "flower", chunks=chunks)
    else:
        dataset = xarray.open_dataset(tmp_path / "maps.store", engine="attnkit", chunks=chunks)
    command, packed = [sys.executable, "-c", READ], pickle.dumps(dataset)
    done = subprocess.run(command, input=packed, capture_output=True, cwd="/", check=True)
    total, token = done.stdout.split()
    assert float(total) == pytest.approx(values[1].astype(np.float64).sum(), rel=1e-6) and token == b"flower"
    copied = copy.deepcopy(dataset)
    np.testing.assert_array_equal(copied.attention.values.ravel(), values.astype(np.float32).ravel())
