"""What is said when something goes wrong: the right class, the file or name, and what to try next."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attnkit
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import write_dump

VIDEO = "prompt_000_vid001"

Place = Callable[[], object]


@pytest.fixture
def own(store: attnkit.Store, tmp_path: Path) -> attnkit.Store:
    """A copy of the store, to be harmed."""
    return attnkit.open(shutil.copytree(store.path, tmp_path / "own.store"))


def flip(path: Path, offset: int | None = None) -> None:
    """Turns over one byte, the middle one unless told."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if offset is None else offset] ^= 0xFF
    path.write_bytes(content)


def array_of(store: attnkit.Store, kind: str = "attention") -> Path:
    """The only shard of an array."""
    name = store.list("steps", video=VIDEO, token="circle")["array"][0]
    (shard,) = (Path(store.path, name).parent / kind).glob("c.*")
    return shard


# Every class, raised by what really happens.


def no_store(tmp_path: Path) -> None:
    attnkit.open(tmp_path / "missing")


def no_dump(tmp_path: Path) -> None:
    (tmp_path / "missing").mkdir()
    attnkit.ingest(tmp_path / "missing", tmp_path / "maps.store")


def no_directory(tmp_path: Path) -> None:
    attnkit.ingest(tmp_path / "missing", tmp_path / "maps.store")


def no_video(tmp_path: Path) -> None:
    made(tmp_path).xarray("missing", "flower")


def no_token(tmp_path: Path) -> None:
    attnkit.AttentionAnalyzer(made(tmp_path).path).load_step(VIDEO, "missing", 0)


def damaged_file(tmp_path: Path) -> None:
    write_dump(tmp_path / "dump", 1, (1, 2, 24, 1))
    path = tmp_path / "dump" / VIDEO / "token_flower/step_000.npy"
    path.unlink()
    path.write_bytes(b"no array")
    attnkit.ingest(tmp_path / "dump", tmp_path / "maps.store", on_error="raise")


def damaged_array(tmp_path: Path) -> None:
    store = made(tmp_path)
    for shard in Path(store.path).rglob("attention/c.*"):
        if shard.is_file():
            flip(shard)
    store.average(rollups=False)


def unknown_column(tmp_path: Path) -> None:
    made(tmp_path).average(where="missing > 1")


def nothing_there(tmp_path: Path) -> None:
    made(tmp_path).average(token="missing")


def misfit(tmp_path: Path) -> None:
    with attnkit.StoreWriter(tmp_path / "maps.store", "v", "a flower") as writer:
        writer.append("missing", 0, 999.0, np.zeros((2, 2, 24, 1), np.float16))
        writer.append("missing", 1, 998.0, np.zeros((2, 2, 25, 1), np.float16))


def made(tmp_path: Path) -> attnkit.Store:
    write_dump(tmp_path / "dump", 2, (2, 3, 24, 1))
    attnkit.ingest(tmp_path / "dump", tmp_path / "maps.store")
    return attnkit.open(tmp_path / "maps.store")


@pytest.mark.parametrize(
    ("fail", "kind", "builtins", "told"),
    [
        (no_store, attnkit.NotAStoreError, (attnkit.StoreError, FileNotFoundError), "missing"),
        (no_dump, attnkit.NotFoundError, (LookupError, FileNotFoundError), "missing"),
        (no_directory, attnkit.NotFoundError, (LookupError, FileNotFoundError), "missing"),
        (no_video, attnkit.NotFoundError, (LookupError, FileNotFoundError), "missing"),
        (no_token, attnkit.NotFoundError, (LookupError, FileNotFoundError), "missing"),
        (damaged_file, attnkit.DumpError, (ValueError,), "token_flower/step_000.npy"),
        (damaged_array, attnkit.StoreError, (OSError,), "/attention"),
        (unknown_column, attnkit.QueryError, (ValueError,), "`missing`"),
        (nothing_there, attnkit.NothingSelectedError, (attnkit.QueryError, LookupError), "token = 'missing'"),
        (misfit, attnkit.WriteError, (ValueError,), "25"),
    ],
    ids=lambda value: value.__name__ if hasattr(value, "__name__") else "",
)
def test_an_error_is_of_its_class_and_of_the_builtin_one(
    tmp_path: Path,
    fail: Callable[[Path], None],
    kind: type[attnkit.AttnkitError],
    builtins: tuple[type[Exception], ...],
    told: str,
) -> None:
    with pytest.raises(attnkit.AttnkitError) as caught:
        fail(tmp_path)
    error = caught.value
    assert type(error) is kind
    assert all(isinstance(error, builtin) for builtin in builtins)
    assert told in str(error) and "--" not in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.hint) == (kind, str(error), error.hint)


def test_an_error_says_its_kind_and_what_to_try(tmp_path: Path) -> None:
    with pytest.raises(attnkit.NotFoundError) as caught:
        attnkit.ingest(tmp_path, tmp_path / "maps.store")
    error = pickle.loads(pickle.dumps(caught.value))
    assert error.kind == "not_found" and error.remedy == error.hint == f"`attnkit info {tmp_path}` shows what is " + (
        "recognised there"
    )


# Hints.


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda store: store.average(where="entrpy < 6"), ["`entrpy`", "entropy_norm", "store.columns()"]),
        (lambda store: store.average(where="entropy <"), ["`entropy <`", 'where="token IN']),
        (lambda store: store.average(where="token = circle"), ["`circle`", "'…'"]),
        (lambda store: store.average(where="step > 99"), ["step > 99", "steps 0 to 9", "words circle, square"]),
        (lambda store: store.average(sort="entrpy"), ["`entrpy`"]),
        (lambda store: store.map(), ["16 are selected", "video=", "Store.average"]),
        (lambda store: store.map(VIDEO), ["circle, square", "token="]),
        (lambda store: store.map(VIDEO, "circle"), ["10 are selected", "step="]),
        (lambda store: store.map(VIDEO, "circle", 0, size=(1 << 20, 1 << 20)), ["1048576", "size", "frames"]),
        (lambda store: store.list("steps", columns=["entropy"]), ["`entropy`", "table=heads"]),
        (lambda store: store.list("steps", columns=["step", "step"]), ["`step`", "twice"]),
        (lambda store: store.sql("SELECT entrpy FROM heads"), ["`entrpy`"]),
        (lambda store: store.sql("SELECT * FROM maps"), ["'maps'", "`steps`, `heads` and `text`"]),
        (lambda store: store.sql("DELETE FROM heads"), ["SELECT"]),
        (lambda store: store.compare("seed"), ["3 words", "token=", "across=token"]),
        (lambda store: store.compare("seed", token="circle", where="seed = 11"), ["only one seed", "11", "where"]),
        (lambda store: store.compare("seed", token="circle", against=33), ["`33`", "11, 22"]),
        (lambda store: store.compare("weight", token="circle"), ["weight", "token_flower:2.5"]),
    ],
)
def test_a_question_that_cannot_be_answered_has_a_hint(
    store: attnkit.Store, ask: Callable[[attnkit.Store], object], told: list[str]
) -> None:
    with pytest.raises(attnkit.QueryError) as caught:
        ask(store)
    error = caught.value
    assert error.hint and str(error) == f"{error.args[0]}\nhint: {error.hint}"
    assert all(part in str(error) for part in told), str(error)
    assert not any(word in str(error) for word in ("--", "attnkit query", "STORE"))


def test_grids_that_differ_are_named(tmp_path: Path) -> None:
    for number, size in enumerate((24, 48)):
        write_dump(tmp_path / "dump", 1, (1, 2, size, 1), video=f"prompt_00{number}_vid001")
    attnkit.ingest(tmp_path / "dump", tmp_path / "maps.store")
    store = attnkit.open(tmp_path / "maps.store")
    for ask in (lambda: store.compare("video"), lambda: store.average(over=["video"])):
        with pytest.raises(attnkit.QueryError) as caught:
            ask()
        assert all(told in str(caught.value) for told in ("24", "48", "where=")) and "--" not in str(caught.value)
    with pytest.raises(attnkit.QueryError, match="24 positions.*\n.*size=.*frames=.*grid=") as caught:
        store.map("prompt_000_vid001", size=(31, 31))
    assert "--" not in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "ask"),
    [
        ("over", lambda store: store.average(over="steps")),
        ("reducer", lambda store: store.average(reducer="avg")),
        ("limit", lambda store: store.average(limit=-1)),
        ("table", lambda store: store.list("maps")),
        ("by", lambda store: store.evolution(by="step")),
        ("across", lambda store: store.compare("model")),
        ("align", lambda store: store.compare("seed", token="circle", align="nearest")),
        ("form", lambda store: store.compare("seed", token="circle", form="table")),
        ("metric", lambda store: store.compare("seed", token="circle", metric="ssi")),
        ("metric", lambda store: store.compare("seed", token="circle", metric=["js", "iou@2"])),
    ],
)
def test_a_wrong_argument_is_named(store: attnkit.Store, argument: str, ask: Callable[[attnkit.Store], object]) -> None:
    with pytest.raises(ValueError, match=argument):
        ask(store)


# Stores.


def test_what_is_no_store_is_told_apart(tmp_path: Path, fixtures: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, found in ((tmp_path / "missing", "no such"), (fixtures, "no zarr.json"), (tmp_path / "file", "file")):
        with pytest.raises(attnkit.NotAStoreError, match=found) as caught:
            attnkit.open(path)
        assert str(path) in str(caught.value)


def test_other_things_are_never_made_a_store(tmp_path: Path) -> None:
    write_dump(tmp_path / "dump", 1, (1, 2, 24, 1))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(attnkit.NotAStoreError, match=str(tmp_path / "dump")):
        attnkit.ingest(tmp_path / "dump", tmp_path / "dump")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_store_of_a_later_version_is_refused(own: attnkit.Store) -> None:
    root = Path(own.path) / "zarr.json"
    document = json.loads(root.read_text())
    document["attributes"]["attnkit"]["store_version"] = 7
    root.write_text(json.dumps(document))
    with pytest.raises(attnkit.StoreError, match="version 7.*version 1") as caught:
        attnkit.open(own.path)
    assert own.path in str(caught.value) and not isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("kind", ["attention", "mean"])
@pytest.mark.parametrize("offset", [100, -20], ids=["chunk", "index"])
def test_a_damaged_shard_is_named(own: attnkit.Store, kind: str, offset: int) -> None:
    flip(array_of(own, kind), offset)
    questions: list[Place] = [
        lambda: own.average(over=["step", "block", "head"], video=VIDEO, rollups=kind == "mean"),
        lambda: own.xarray(VIDEO, "circle")[kind].compute(),
        lambda: own.xarray(VIDEO, "circle", chunks=None)[kind].compute(),
    ]
    for ask in questions:
        with pytest.raises(attnkit.StoreError, match=rf"{own.path}/maps/{VIDEO}/circle@\w+/{kind}"):
            ask()
    assert len(own.average(token="square", rollups=False)) == 100


@pytest.mark.parametrize("table", ["steps", "heads"])
def test_a_damaged_table_is_named(own: attnkit.Store, table: Any) -> None:
    part = Path(own.path) / "index" / table / f"{VIDEO}.parquet"
    # In a page of rows that differ: the footer of `steps` has documents that a question for rows does not read, and of
    # what is the same in all rows it has the value.
    group = pq.ParquetFile(part).metadata.row_group(0)
    columns = [group.column(at) for at in range(group.num_columns)]
    column = next(column for column in columns if column.path_in_schema == "step")
    flip(part, column.dictionary_page_offset or column.data_page_offset)
    with pytest.warns(attnkit.DamageWarning, match=str(part)):
        rows = own.list(table).to_polars()
    assert len(rows) > 0 and VIDEO not in rows["video_id"]
    with pytest.warns(attnkit.DamageWarning, match=str(part)):
        others = own.average(over=["video", "step", "token", "block", "head"], where="gini > 0").to_polars()
    assert others["n"].to_list() == [len(own.list("heads", where=f"gini > 0 AND video_id <> '{VIDEO}'"))]


def test_a_store_that_is_taken_away_is_missed(own: attnkit.Store) -> None:
    shutil.rmtree(own.path)
    with pytest.raises(attnkit.StoreError, match=own.path):
        own.average()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_process_is_told_to_be_spawned_instead_of_waiting_for_ever(store: attnkit.Store) -> None:
    script = f"""
import os, sys, attnkit
store = attnkit.open({str(store.path)!r})
store.average(over=["block", "head", "step"], token="circle")
if os.fork() == 0:
    try:
        store.average(over=["block", "head", "step"], token="circle")
    except RuntimeError as error:
        os._exit(7 if "spawn" in str(error) else 8)
    os._exit(9)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 7


WAYS_OUT: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"video": ["a", "b"]},
        TypeError,
        "video: ['a', 'b'] is not one name; where=\"video_id IN ('a', 'b')\" selects several",
    ),
    ({"step": [1, 2]}, TypeError, 'step: [1, 2] is not an integer; where="step IN (1, 2)" selects several'),
    ({"head": 1.5}, TypeError, "head: 1.5 is not an integer"),
    ({"reducer": "meen"}, ValueError, "(did you mean `mean`?)"),
]


@pytest.mark.parametrize("asked, error, message", WAYS_OUT, ids=str)
def test_arguments_that_cannot_be_name_the_way_out(
    own: attnkit.Store, asked: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        own.average(**asked)


WRONG: list[tuple[Callable[[attnkit.Store], object], type[Exception], str]] = [
    (lambda store: store.average(values=None), ValueError, "values: invalid type: null, expected a boolean"),
    (lambda store: store.average(skipna=1), ValueError, "skipna: invalid type: integer `1`, expected a boolean"),
    (lambda store: store.list("heads", limit=2**64), ValueError, "limit: the number does not fit into 64 bits"),
    (lambda store: store.list("heads", limit=10**5000), ValueError, "limit: the number does not fit into 64 bits"),
    (lambda store: store.map(VIDEO, "circle", 0, size=(None, None)), ValueError, "size: (None, None) is not (height"),
    (lambda store: store.average(token="\ud800"), ValueError, "token: '\\ud800' has half a character"),
    (lambda store: store.list(columns=["step", "\udfff"]), ValueError, "columns: '\\udfff' has half a character"),
    (lambda store: store.sql("\ud800"), ValueError, "statement: '\\ud800' has half a character"),
    (lambda store: store.sql(b"SELECT 1"), TypeError, "statement: b'SELECT 1' is not what"),
    (lambda store: store.list(sort={"step": "desc"}), TypeError, "sort: {'step': 'desc'} is neither a text nor a list"),
    (lambda store: store.list(columns=["step", 5]), TypeError, "columns: 5 is no text"),
    (lambda store: store.average(over=None), TypeError, "over: None is neither a text nor a list of texts"),
    (lambda store: store.average(step=True), TypeError, "step: True is not an integer"),
    (lambda store: store.list(limit=2.5), TypeError, "limit: 2.5 is not an integer"),
    (lambda store: store.list(table=float("nan")), ValueError, "table: nan is not finite"),
    (lambda store: store.list(table=10**5000), ValueError, "table: the number does not fit into 64 bits"),
    (lambda store: store.list(table=np.complex64(1)), TypeError, "table: np.complex64(1+0j) is not what"),
    (lambda store: store.map(VIDEO, "circle", 0, size={300, 200}), TypeError, "size: {"),
    (
        lambda store: store.map(VIDEO, "circle", 0, size=range(10**12)),
        ValueError,
        "size: range(0, 1000000000000) is not",
    ),
    (lambda store: store.compare("token", against=["a"]), TypeError, "against: ['a'] is neither a text nor a number"),
    (lambda store: store.compare("seed", token="circle", metric=[]), ValueError, "no metric is asked for"),
    (lambda store: store.compare("seed", token="circle", metric=["js", "js"]), ValueError, "js is asked for twice"),
]


@pytest.mark.parametrize("ask, error, message", WRONG)
def test_what_no_question_can_ask_for_names_the_argument(
    store: attnkit.Store, ask: Callable[[attnkit.Store], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        ask(store)


def test_a_name_that_is_nearly_right_is_suggested_once(store: attnkit.Store) -> None:
    with pytest.raises(attnkit.QueryError) as caught:
        store.compare("seed", token="circle", metric="cosin")
    assert str(caught.value).count("did you mean `cosine`") == 1
