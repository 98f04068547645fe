"""`StoreWriter`: what it writes is what ingest makes of the same steps, at every moment and whatever happens."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import attnkit
import numpy as np
import pytest
from attnkit import AttentionAnalyzer, StoreWriter
from conftest import write_dump

Array = np.ndarray[Any, Any]

VIDEO, WORD = "prompt_000_vid001", "flower"
SHAPE = (2, 3, 12, 1)
ROLLUPS: dict[str, int | tuple[int, ...]] = {"mean_head": 2, "mean_block": 1, "mean": (1, 2)}


def maps(step: int, shape: tuple[int, ...] = SHAPE, dtype: Any = np.float16) -> Array:
    """What a model would give at a step: the same in every process."""
    return np.random.default_rng(step).gamma(0.3, 1e-3, shape).astype(dtype)


def write(store: Path, values: Iterable[Array], video: str = VIDEO, word: str = WORD, **options: Any) -> None:
    with StoreWriter(store, video, "a flower", **options) as writer:
        for step, array in enumerate(values):
            assert writer.append(word, step, 999.0 - step, array) is True


def assert_holds(store: Path, steps: dict[int, Array], video: str = VIDEO, word: str = WORD) -> None:
    """Exactly these steps, bit for bit."""
    analyzer = AttentionAnalyzer(store)
    assert analyzer.get_available_steps(video, word) == sorted(steps)
    for step, expected in steps.items():
        array = analyzer.load_step(video, word, step)
        assert (array.dtype, array.shape, array.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


def zarr_array(store: Path, kind: str = "attention", word: str = WORD) -> Array:
    """An array of the first video, as zarr-python reads it."""
    zarr = pytest.importorskip("zarr")
    (path,) = set(attnkit.open(store).list("steps", token=word)["array"])
    return np.asarray(zarr.open_array(store / path.removesuffix("attention") / kind, mode="r"))


def table(store: Path, name: str) -> Any:
    """The Parquet parts of a table, as polars reads them."""
    polars = pytest.importorskip("polars")
    return polars.read_parquet(store / f"index/{name}/*.parquet")


def contents(store: Path) -> dict[str, str]:
    """Every file but the locks."""
    files = (path for path in sorted(store.rglob("*")) if path.is_file() and ".writers" not in path.parts)
    return {str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def run_attnkit() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command-line program."""
    program = os.environ.get("ATTNKIT_BIN")
    if not program:
        pytest.skip("ATTNKIT_BIN names no attnkit binary")
    return lambda *arguments: subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture
def verified(run_attnkit: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[[Path], None]:
    """Checks every byte of a store."""

    def verify(store: Path) -> None:
        done = run_attnkit("verify", store)
        assert done.returncode == 0 and "no fault" in done.stdout, done.stdout + done.stderr

    return verify


@pytest.fixture
def clean(run_attnkit: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[[Path], None]:
    """Checks that nothing is in a store but what it needs."""

    def check(store: Path) -> None:
        done = run_attnkit("gc", store, "--dry-run")
        assert done.returncode == 0 and "would remove /" not in done.stdout, done.stdout + done.stderr

    return check


# What is written.

COMMON: dict[str, Any] = {"seed": 999, "cfg_scale": 6.5, "total_steps": 3, "video_size": (13, 48, 64)}


@pytest.mark.parametrize("options", [{}, {"codec": "fast"}, {"codec": "none"}, {"rollups": "all"}], ids=str)
@pytest.mark.parametrize(
    ("shape", "dtype", "method"),
    [
        ((3, 4, 48, 1), np.float16, "per_step_full"),
        ((3, 4, 48, 2), np.float32, "per_step_full"),
        ((1, 4, 48, 1), np.float16, "blocks_averaged"),
        ((3, 1, 48, 1), np.float64, "heads_averaged"),
        ((1, 1, 48, 1), np.float16, "blocks_and_heads_averaged"),
    ],
)
def test_a_written_store_is_the_one_that_ingest_makes_of_the_dump(
    tmp_path: Path, shape: tuple[int, int, int, int], dtype: type, method: str, options: dict[str, Any]
) -> None:
    testing = pytest.importorskip("polars.testing")
    dump, ingested, written = tmp_path / "dump", tmp_path / "ingested.store", tmp_path / "written.store"
    size = {"video_frames": 13, "video_height": 48, "video_width": 64}
    described: dict[str, Any] = {"aggregation_method": method, "dtype": f"torch.{np.dtype(dtype)}", **size}
    values: Array = write_dump(dump, 3, shape, **described).astype(dtype)
    for step, array in enumerate(values):
        np.save(dump / VIDEO / f"token_{WORD}/step_{step:03d}.npy", array)
    attnkit.ingest(dump, ingested, **options)
    with StoreWriter(written, VIDEO, "a beautiful flower near a tree", **COMMON, **options) as writer:
        for step, array in enumerate(values):
            writer.append(WORD, step, 999.0 - step, array, token_ids=[93643], token_texts=[WORD])
    assert_holds(written, dict(enumerate(values)))
    testing.assert_frame_equal(table(written, "heads"), table(ingested, "heads"))
    differing = ["source", "source_bytes", "source_modified", "source_signature", "array", "content_hash"]
    testing.assert_frame_equal(table(written, "steps").drop(differing), table(ingested, "steps").drop(differing))
    of_written, of_ingested = AttentionAnalyzer(written), AttentionAnalyzer(ingested)
    assert of_written.get_video_info(VIDEO) == of_ingested.get_video_info(VIDEO)
    for step in range(3):
        assert of_written.load_metadata(VIDEO, WORD, step) == of_ingested.load_metadata(VIDEO, WORD, step)


@pytest.mark.parametrize("options", [{}, {"codec": "fast"}, {"codec": "small"}, {"codec": "none"}], ids=str)
@pytest.mark.parametrize("shape", [(30, 12, 1170, 1), (3, 4, 50, 2), (1, 4, 50, 1), (3, 1, 50, 1)], ids=str)
def test_zarr_reads_the_arrays_and_the_rollups(
    tmp_path: Path, shape: tuple[int, int, int, int], options: dict[str, Any]
) -> None:
    values = write_dump(tmp_path / "dump", 3, shape)
    attnkit.ingest(tmp_path / "dump", tmp_path / "ingested.store", rollups="all", **options)
    write(tmp_path / "written.store", values, rollups="all", **options)
    np.testing.assert_array_equal(zarr_array(tmp_path / "written.store"), values, strict=True)
    for kind, axis in ROLLUPS.items():
        rollup = zarr_array(tmp_path / "written.store", kind)
        np.testing.assert_array_max_ulp(rollup, values.mean(axis=axis, dtype=np.float64).astype(np.float32), 1)
        np.testing.assert_array_equal(rollup, zarr_array(tmp_path / "ingested.store", kind), strict=True)


def test_without_rollups_there_are_none(tmp_path: Path) -> None:
    write(tmp_path / "store", [maps(0)], rollups="none")
    assert {path.parent.name for path in (tmp_path / "store/maps").rglob("zarr.json")}.isdisjoint(ROLLUPS)


def test_xarray_and_duckdb_read_the_store(tmp_path: Path) -> None:
    xarray, duckdb = (pytest.importorskip(name, exc_type=ImportError) for name in ("xarray", "duckdb"))
    pytest.importorskip("zarr")
    store = tmp_path / "maps.store"
    values = np.stack([maps(step) for step in range(4)])
    write(store, values, video_size=(1, 48, 64))
    columns = 'step, timestep, frames, height, width, "array"'
    found = duckdb.sql(f"SELECT {columns} FROM '{store}/index/steps/*.parquet' ORDER BY step").fetchall()
    assert [row[:5] for row in found] == [(step, 999.0 - step, 1, 3, 4) for step in range(4)]
    dataset = xarray.open_zarr(store / Path(found[0][5]).parent, consolidated=False)
    assert dataset.attention.dims == ("step", "block", "head", "spatial", "token")
    np.testing.assert_array_equal(dataset.attention.values, values, strict=True)
    np.testing.assert_array_equal(dataset.step.values, range(4))
    (sums,) = duckdb.sql(f"SELECT sum(sum) FROM '{store}/index/heads/*.parquet'").fetchall()
    assert sums[0] == pytest.approx(values.sum(dtype=np.float64), rel=1e-12)


def test_what_is_known_of_a_video_is_in_its_rows(tmp_path: Path) -> None:
    options: dict[str, Any] = {"template": "a [flower|tree]", "variation": 1, **COMMON}
    options["metadata"] = {"lora": "v2", "prompt": "not this one"}
    with StoreWriter(tmp_path / "store", "prompt_007_vid002", "a (flower:2.5)", **options) as writer:
        ids: dict[str, Any] = {"token_ids": np.array([3, 4]), "token_texts": ("flow", "er")}
        step: Any = np.int64(3)
        writer.append(WORD, step, np.float64(750), maps(3), weight=2.5, **ids, metadata={"sigma": [0.5, None]})
        writer.append("tree", 3, 750, maps(4))
    flower, tree = attnkit.open(tmp_path / "store").steps.to_polars().sort("token").to_dicts()
    expected = {
        "video_id": "prompt_007_vid002", "prompt_id": "prompt_007", "prompt": "a (flower:2.5)",
        "template": "a [flower|tree]", "variation": 1, "seed": 999, "cfg_scale": 6.5, "token": WORD,
        "token_ids": [3, 4], "token_texts": ["flow", "er"],
        "weight": 2.5, "step": 3, "timestep": 750.0, "total_steps": 3, "num_blocks": 2, "num_heads": 3, "spatial": 12,
        "tokens": 1, "frames": None, "video_frames": 13, "video_height": 48, "video_width": 64, "dtype": "float16",
    }  # fmt: skip
    assert {key: flower[key] for key in expected} == expected
    assert (tree["token"], tree["token_ids"], tree["token_texts"], tree["weight"]) == ("tree", [], [], None)
    analyzer = AttentionAnalyzer(tmp_path / "store")
    metadata = analyzer.load_metadata("prompt_007_vid002", WORD, 3)
    assert (metadata["lora"], metadata["sigma"], metadata["prompt"]) == ("v2", [0.5, None], "a (flower:2.5)")
    assert "sigma" not in analyzer.load_metadata("prompt_007_vid002", "tree", 3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (None, None, None)),
        ({"video_size": (1, 48, 64)}, (1, 3, 4)),
        ({"video_size": (4, 48, 64)}, (1, 3, 4)),
        ({"grid": (3, 2, 2)}, (3, 2, 2)),
        ({"grid": (3, 2, 2), "video_size": (1, 48, 64)}, (3, 2, 2)),
    ],
)
def test_the_grid_is_told_from_the_size_of_the_video_or_given(
    tmp_path: Path, options: dict[str, Any], expected: tuple[int | None, ...]
) -> None:
    write(tmp_path / "store", [maps(0)], **options)
    (row,) = attnkit.open(tmp_path / "store").steps.to_polars().to_dicts()
    assert (row["frames"], row["height"], row["width"]) == expected


@pytest.mark.parametrize("prompt_id", [None, "garden"])
def test_the_prompt_has_an_id_of_its_own_if_given(tmp_path: Path, prompt_id: str | None) -> None:
    write(tmp_path / "store", [maps(0)], video="v1", prompt_id=prompt_id)
    assert list(attnkit.open(tmp_path / "store").steps["prompt_id"]) == [prompt_id]


@pytest.mark.parametrize(
    "change",
    [
        np.asfortranarray,
        lambda array: array.astype(array.dtype.newbyteorder(">")),
        lambda array: np.repeat(array, 2, axis=2)[:, :, ::2],
        lambda array: array[:, None],
        lambda array: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape),
    ],
    ids=["Fortran", "big-endian", "strided", "batch of one", "read-only"],
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_of_any_order_are_taken_and_left_as_they_are(
    tmp_path: Path, change: Callable[[Array], Array], dtype: type
) -> None:
    given = change(maps(0, dtype=dtype))
    before = given.copy()
    write(tmp_path / "store", [given])
    assert_holds(tmp_path / "store", {0: maps(0, dtype=dtype)})
    np.testing.assert_array_equal(given, before)


def test_nan_infinity_and_negative_zero_are_kept(tmp_path: Path) -> None:
    values = maps(0)
    values.flat[:4] = np.nan, np.inf, -np.inf, -0.0
    values.view(np.uint16).flat[4] = 0x7E55  # a NaN with a payload
    write(tmp_path / "store", [values])
    assert_holds(tmp_path / "store", {0: values})


@pytest.mark.parametrize("word", ["two people", "café 花 🌸", "../../up", "a/b:c\\d", "CON", "x" * 300])
def test_any_word_can_be_written(tmp_path: Path, word: str) -> None:
    write(tmp_path / "store", [maps(0), maps(1)], video=f"video {word}", word=word)
    assert AttentionAnalyzer(tmp_path / "store").get_available_tokens(f"video {word}") == [word]
    assert_holds(tmp_path / "store", {0: maps(0), 1: maps(1)}, f"video {word}", word)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


# Readers beside the writer.


def test_every_append_is_seen_by_a_store_that_is_open(tmp_path: Path) -> None:
    words = ["flower", "two people", "tree"]
    with StoreWriter(tmp_path / "store", VIDEO, "a flower") as writer:
        store = attnkit.open(tmp_path / "store")
        assert len(store.steps) == 0
        appended: dict[str, dict[int, Array]] = {word: {} for word in words}
        for count, (step, word) in enumerate(itertools.product(range(0, 12, 2), words), start=1):
            appended[word][step] = array = maps(count)
            assert writer.append(word, step, 999.0 - step, array)
            assert len(store.steps) == count and len(store.heads) == 6 * count
            mean = store.average(over=["block", "head"], token=word, where=f"step = {step}")
            exact = array.mean(axis=(0, 1, 3), dtype=np.float64).astype(np.float32)
            np.testing.assert_array_max_ulp(mean.maps[0].ravel(), exact, 1)
            assert_holds(tmp_path / "store", appended[word], word=word)


@pytest.mark.parametrize("reader", ["analyzer", "xarray"])
def test_what_was_opened_before_goes_on_reading_while_more_is_appended(tmp_path: Path, reader: str) -> None:
    with StoreWriter(tmp_path / "store", VIDEO, "a flower") as writer:
        writer.append(WORD, 0, 999.0, maps(0))
        if reader == "analyzer":
            read = functools.partial(AttentionAnalyzer(tmp_path / "store").load_step, VIDEO, WORD, 0)
        else:
            pytest.importorskip("xarray", exc_type=ImportError)
            lazy = attnkit.open(tmp_path / "store").xarray(VIDEO, WORD).attention.isel(step=0)
            read = functools.partial(np.asarray, lazy)
        for step in range(1, 6):
            writer.append(WORD, step, 999.0 - step, maps(step))
            np.testing.assert_array_equal(read().reshape(SHAPE), maps(0))


def test_many_steps_are_each_whole(
    tmp_path: Path, verified: Callable[[Path], None], clean: Callable[[Path], None]
) -> None:
    values = {step: maps(step, (30, 12, 1170, 1)) for step in range(12)}
    write(tmp_path / "store", list(values.values()), video_size=(3, 240, 416))
    assert_holds(tmp_path / "store", values)
    verified(tmp_path / "store")
    clean(tmp_path / "store")


def test_steps_beyond_one_shard_go_into_the_next(
    tmp_path: Path, verified: Callable[[Path], None], clean: Callable[[Path], None]
) -> None:
    first = maps(0, (30, 12, 23850, 1))
    values = {step: np.roll(first, step, axis=2) for step in range(9)}
    with StoreWriter(tmp_path / "store", VIDEO, "a flower", codec="fast") as writer:
        for step in range(8):
            writer.append(WORD, step, 999.0 - step, values[step])
    with StoreWriter(tmp_path / "store", VIDEO, "a flower") as writer:
        writer.append(WORD, 8, 991.0, values[8])
        store = attnkit.open(tmp_path / "store")
        shards = Path(store.path, store.steps["array"][0]).glob("c.*")
        assert len(list(shards)) == 2
    assert_holds(tmp_path / "store", values)
    evolution = AttentionAnalyzer(tmp_path / "store").get_temporal_evolution(VIDEO, WORD)
    np.testing.assert_array_equal(evolution[8], np.roll(evolution[0], 8, axis=0))
    verified(tmp_path / "store")


# Going on, and what does not fit.


def test_a_video_is_gone_on_with_after_close(tmp_path: Path, verified: Callable[[Path], None]) -> None:
    for steps in (range(2), range(2, 3), range(3, 6)):
        with StoreWriter(tmp_path / "store", VIDEO, "a flower") as writer:
            assert [writer.append(WORD, step, 999.0 - step, maps(step)) for step in range(steps.stop)] == [
                step in steps for step in range(steps.stop)
            ]
    assert_holds(tmp_path / "store", {step: maps(step) for step in range(6)})
    verified(tmp_path / "store")


def test_a_video_that_was_ingested_is_gone_on_with(tmp_path: Path, verified: Callable[[Path], None]) -> None:
    values = write_dump(tmp_path / "dump", 3, SHAPE)
    attnkit.ingest(tmp_path / "dump", tmp_path / "store")
    with StoreWriter(tmp_path / "store", VIDEO, "a beautiful flower near a tree", seed=999) as writer:
        assert [writer.append(WORD, step, 999.0 - step, array) for step, array in enumerate(values)] == [False] * 3
        assert writer.append(WORD, 3, 996.0, maps(3))
    assert_holds(tmp_path / "store", {**dict(enumerate(values)), 3: maps(3)})
    verified(tmp_path / "store")


INF = float("inf")
# What is appended behind steps 1 and 4; the exception, and what it says.
REFUSED: dict[str, tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = {
    "other values": ((WORD, 4, 995, maps(9)), {}, attnkit.WriteError, "step 4 .*other values"),
    "out of order": ((WORD, 2, 997, maps(2)), {}, attnkit.WriteError, "step 2 .*step 4.*ascending"),
    "other shape": ((WORD, 5, 994, maps(5, (2, 3, 13, 1))), {}, attnkit.WriteError, r"3, 13, 1\].*3, 12, 1\]"),
    "other type": ((WORD, 5, 994, maps(5, dtype=np.float32)), {}, attnkit.WriteError, "float32.*float16"),
    "integers": ((WORD, 5, 994, np.ones(SHAPE, int)), {}, TypeError, "int64.*float16"),
    "complex numbers": ((WORD, 5, 994, np.ones(SHAPE, complex)), {}, TypeError, "complex128.*float16"),
    "three axes": ((WORD, 5, 994, maps(5, (3, 12, 1))), {}, attnkit.WriteError, r"\[3, 12, 1\]"),
    "six axes": ((WORD, 5, 994, maps(5, (1, 1, *SHAPE))), {}, attnkit.WriteError, r"\[1, 1, 2, 3, 12, 1\]"),
    "a number": ((WORD, 5, 994, np.float16(1)), {}, attnkit.WriteError, r"\[\]"),
    "nothing": (("new", 5, 994, maps(5, (2, 3, 0, 1))), {}, attnkit.WriteError, r"\[2, 3, 0, 1\]"),
    "a batch": ((WORD, 5, 994, maps(5, (2, 4, 3, 12, 1))), {}, attnkit.WriteError, r"\[2, 4, 3, 12, 1\].*batch"),
    "a negative step": (("new", -1, 994, maps(5)), {}, ValueError, "-1"),
    "half a step": ((WORD, 5.5, 994, maps(5)), {}, TypeError, "float"),
    "no timestep": ((WORD, 5, float("nan"), maps(5)), {}, ValueError, "timestep"),
    "metadata that is no JSON": ((WORD, 5, 994, maps(5)), {"metadata": {"sigma": {1}}}, TypeError, "set"),
    "infinite metadata": ((WORD, 5, 994, maps(5)), {"metadata": {"sigma": INF}}, ValueError, "sigma|(?i:inf|finite)"),
}


@pytest.mark.parametrize("refused", REFUSED)
def test_what_does_not_fit_leaves_the_store_as_it_was_and_the_writer_usable(tmp_path: Path, refused: str) -> None:
    step, more, error, said = REFUSED[refused]
    with StoreWriter(tmp_path / "store", VIDEO, "a flower") as writer:
        writer.append(WORD, 1, 998, maps(1))
        writer.append(WORD, 4, 995, maps(4))
        before = contents(tmp_path / "store")
        with pytest.raises(error, match=said):
            writer.append(*step, **more)
        assert contents(tmp_path / "store") == before
        assert writer.append(WORD, 6, 993, maps(6))
    assert_holds(tmp_path / "store", {1: maps(1), 4: maps(4), 6: maps(6)})


def test_a_batch_is_refused_without_advice_that_append_cannot_follow(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "store", VIDEO, "a flower") as writer, pytest.raises(attnkit.WriteError) as error:
        writer.append(WORD, 0, 999, maps(0, (2, 4, 3, 12, 1)))
    assert "batch=" not in str(error.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [("codec", "zip"), ("video_size", (13, 192)), ("grid", (0, 2, 2)), ("seed", 2**64), ("metadata", {"x": INF})],
)
def test_options_that_cannot_be_are_refused_before_the_model_runs(tmp_path: Path, option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option):
        StoreWriter(tmp_path / "store", VIDEO, "a flower", **{option: value})


@pytest.mark.parametrize(
    ("other", "said"),
    [({"prompt": "a tree"}, "the prompt `a flower`"), ({"seed": 4}, "seed 3"), ({"grid": (2, 4, 3)}, "grid 2x3x4")],
    ids=str,
)
@pytest.mark.parametrize("word", [WORD, "tree"])
def test_another_video_of_the_same_id_is_refused(tmp_path: Path, other: dict[str, Any], said: str, word: str) -> None:
    first: dict[str, Any] = {"prompt": "a flower", "seed": 3, "grid": (2, 3, 4)}
    with StoreWriter(tmp_path / "store", VIDEO, **first) as writer:
        writer.append(WORD, 0, 999, maps(0, (2, 3, 24, 1)))
    with StoreWriter(tmp_path / "store", VIDEO, **{**first, **other}) as writer:
        with pytest.raises(attnkit.WriteError, match=said):
            writer.append(word, 1, 998, maps(1, (2, 3, 24, 1)))
    with StoreWriter(tmp_path / "store", VIDEO, **first) as writer:
        assert writer.append(word, 1, 998, maps(1, (2, 3, 24, 1)))


def test_a_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with StoreWriter("~/maps.store", VIDEO, "a flower") as writer:
        writer.append(WORD, 0, 999, maps(0))
    result = attnkit.open("~/maps.store").list()
    result.write("~/rows.csv")
    assert (tmp_path / "rows.csv").is_file() and not (tmp_path / "~").exists()
    assert AttentionAnalyzer("~/maps.store").get_available_videos() == [VIDEO]


@pytest.mark.parametrize(("option", "value"), [("seed", 1.5), ("seed", 3.0), ("seed", "3"), ("total_steps", 20.5)])
def test_whole_numbers_are_not_made_of_others(tmp_path: Path, option: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"{option}: {value!r}"):
        StoreWriter(tmp_path / "store", VIDEO, "a flower", **{option: value})


def test_a_grid_that_does_not_fit_the_maps_is_not_passed_over(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "store", VIDEO, "a flower", grid=(3, 2, 3)) as writer:
        with pytest.raises(attnkit.WriteError, match="3x2x3"):
            writer.append(WORD, 0, 999, maps(0))


def test_other_settings_than_those_of_the_word_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "store", [maps(0)])
    with StoreWriter(tmp_path / "store", VIDEO, "a flower", rollups="none") as writer:
        with pytest.raises(attnkit.WriteError, match="rollups"):
            writer.append(WORD, 1, 998, maps(1))
        assert writer.append("tree", 1, 998, maps(1))
    assert_holds(tmp_path / "store", {0: maps(0)})


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rounded_values_keep_so_many_bits(
    tmp_path: Path, verified: Callable[[Path], None], dtype: type[np.floating[Any]]
) -> None:
    def to_five_bits(array: Array) -> Array:
        significand, exponent = np.frexp(array.astype(np.float64))
        rounded: Array = np.ldexp(np.rint(np.ldexp(significand, 6)), exponent - 6).astype(dtype)
        return rounded

    store = tmp_path / "store"
    arrays = [maps(step, dtype=dtype) for step in range(3)]
    rounded = [to_five_bits(array) for array in arrays]
    write(store, arrays, codec="lossy:bits=5")
    assert_holds(store, dict(enumerate(rounded)))
    with StoreWriter(store, VIDEO, "a flower", codec="lossy:bits=5") as writer:
        # What is there already is, however often it is rounded.
        assert writer.append(WORD, 1, 998.0, arrays[1]) is False
        assert writer.append(WORD, 1, 998.0, rounded[1]) is False
    steps = attnkit.open(store).list("steps")
    for found, array, expected in zip(steps["max_error"], arrays, rounded, strict=True):
        assert found == np.abs(array.astype(np.float64) - expected.astype(np.float64)).max() > 0
    verified(store)
    # And not mixed with others, whatever the step.
    for step in (1, 3):
        with (
            StoreWriter(store, VIDEO, "a flower") as writer,
            pytest.raises(attnkit.WriteError, match="bits 5, now null"),
        ):
            writer.append(WORD, step, 996.0, maps(step, dtype=dtype))
    with pytest.raises(ValueError, match="lossy:bits=N, with N from 1 to 51"):
        StoreWriter(store, VIDEO, "a flower", codec="lossy:bits=99")


def test_a_closed_writer_says_so(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "store", VIDEO, "a flower")
    writer.append(WORD, 0, 999, maps(0))
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.append(WORD, 1, 998, maps(1))
    assert_holds(tmp_path / "store", {0: maps(0)})


def test_an_exception_keeps_what_was_appended(tmp_path: Path, clean: Callable[[Path], None]) -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        with StoreWriter(tmp_path / "store", VIDEO, "a flower") as writer:
            writer.append(WORD, 0, 999, maps(0))
            writer.append(WORD, 1, 998, maps(1))
            raise RuntimeError("CUDA out of memory")
    with pytest.raises(ValueError, match="closed"):
        writer.append(WORD, 2, 997, maps(2))
    assert_holds(tmp_path / "store", {0: maps(0), 1: maps(1)})
    clean(tmp_path / "store")


def test_a_store_is_not_written_where_something_else_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OSError, match="file"):
        StoreWriter(tmp_path / "file", VIDEO, "a flower")
    assert (tmp_path / "file").read_text() == "precious"


# torch.


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
@pytest.mark.parametrize("kind", ["plain", "requires_grad", "not contiguous", "batch of one"])
def test_tensors_are_stored_as_they_are(tmp_path: Path, dtype: str, kind: str) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(maps(0, dtype=np.float64)).to(getattr(torch, dtype))
    expected = (tensor.float() if dtype == "bfloat16" else tensor).numpy()
    if kind == "requires_grad":
        tensor.requires_grad_()
    elif kind == "not contiguous":
        tensor = tensor.transpose(0, 2).contiguous().transpose(0, 2)
    elif kind == "batch of one":
        tensor = tensor.unsqueeze(1)
    with StoreWriter(tmp_path / "store", VIDEO, "a flower") as writer:
        timesteps = torch.tensor([999.0, 500.0])
        assert writer.append(WORD, torch.tensor(3), timesteps[0], tensor)
    assert_holds(tmp_path / "store", {3: expected})


def test_tensors_that_are_not_of_floats_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    with StoreWriter(tmp_path / "store", VIDEO, "a flower") as writer, pytest.raises(TypeError, match="int64"):
        writer.append(WORD, 0, 999, torch.ones(SHAPE, dtype=torch.int64))


# Crashes, and many writers.

APPENDING = """
import sys
import numpy as np
import attnkit

store, video, words, first, last, shape = sys.argv[1:]
with attnkit.StoreWriter(store, video, "a flower", seed=3) as writer:
    print("open", flush=True)
    for step in range(int(first), int(last)):
        for word in words.split(","):
            values = np.random.default_rng(step).gamma(0.3, 1e-3, eval(shape)).astype(np.float16)
            writer.append(word, step, 999.0 - step, values)
            print(word, step, flush=True)
"""


def appending(store: Path, video: str, words: str, steps: range, shape: tuple[int, ...]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", APPENDING, str(store), video, words, str(steps.start), str(steps.stop), str(shape)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


# Lines printed before the kill (the first when the writer is open), and milliseconds between: within the next append.
@pytest.mark.parametrize(("lines", "delay"), [(1, 0), (1, 12), (2, 5), (5, 20), (8, 9), (13, 30), (16, 2), (17, 16)])
def test_a_killed_writer_keeps_every_step_that_append_returned_from(
    tmp_path: Path,
    verified: Callable[[Path], None],
    clean: Callable[[Path], None],
    run_attnkit: Callable[..., subprocess.CompletedProcess[str]],
    lines: int,
    delay: int,
) -> None:
    store, shape, words = tmp_path / "store", (8, 6, 1170, 1), ["flower", "tree"]
    with appending(store, VIDEO, ",".join(words), range(1000), shape) as process:
        assert process.stdout is not None
        printed = [process.stdout.readline() for _ in range(lines)]
        time.sleep(delay / 1000)
        process.send_signal(signal.SIGKILL)
        printed += process.stdout.readlines()
    returned = [line.split() for line in printed[1:] if line.endswith("\n")]
    # A kill between the two renames of a commit is said to be that; nothing is damaged.
    told = run_attnkit("verify", store)
    assert told.returncode in (0, 1) and "damaged" not in told.stdout and "differs" not in told.stdout, told.stdout
    assert told.returncode == 0 or "not finished: " in told.stdout, told.stdout + told.stderr
    kept: dict[str, list[int]] = {word: [] for word in words}
    if returned:
        analyzer = AttentionAnalyzer(store)
        for word in analyzer.get_available_tokens(VIDEO):
            kept[word] = analyzer.get_available_steps(VIDEO, word)
            assert_holds(store, {step: maps(step, shape) for step in kept[word]}, word=word)
    for word in words:
        acknowledged = [int(step) for of, step in returned if of == word]
        assert kept[word][: len(acknowledged)] == acknowledged
        assert len(kept[word]) <= len(acknowledged) + 1
    steps = range(2 + max(map(len, kept.values())))
    with appending(store, VIDEO, ",".join(words), steps, shape) as process:
        process.communicate(timeout=60)
        assert process.returncode == 0
    for word in words:
        assert_holds(store, {step: maps(step, shape) for step in steps}, word=word)
    verified(store)
    assert run_attnkit("gc", store).returncode == 0
    clean(store)
    verified(store)


def test_a_kill_between_the_two_renames_of_a_commit_leaves_a_store_that_answers(
    tmp_path: Path, verified: Callable[[Path], None]
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", exc_type=ImportError)
    writing, store = tmp_path / "writing.store", tmp_path / "store"
    with StoreWriter(writing, VIDEO, "a flower") as writer:
        writer.append(WORD, 0, 999, maps(0))
        shutil.copytree(writing, store)
        writer.append(WORD, 1, 998, maps(1))
        # As docs/store-format.md has it: the arrays and the heads part are in place, the steps part waits beside.
        for place in ("maps", "index/heads"):
            shutil.copytree(writing / place, store / place, dirs_exist_ok=True)
        part = writing / f"index/steps/{VIDEO}.parquet"
        generation = parquet.read_metadata(part).metadata[b"attnkit.generation"].decode()
        shutil.copy(part, store / f".staged/{VIDEO}.{generation}.steps")
    before = {file: file.read_bytes() for file in store.rglob("*") if file.is_file()}
    opened = attnkit.open(store)
    assert len(opened.steps) == len(opened.average()) == 1
    # Statistics of another commit are no answer, and whoever reads finishes no commit.
    with pytest.warns(attnkit.DamageWarning, match="another commit"):
        assert len(opened.heads) == 0
    assert {file: file.read_bytes() for file in store.rglob("*") if file.is_file()} == before
    with StoreWriter(store, VIDEO, "a flower") as writer:
        writer.append(WORD, 2, 997, maps(2))
    assert_holds(store, {0: maps(0), 1: maps(1), 2: maps(2)})
    verified(store)


def test_a_reader_never_meets_half_a_commit(tmp_path: Path) -> None:
    with appending(tmp_path / "store", VIDEO, "flower", range(40), SHAPE) as process:
        assert process.stdout is not None
        printed = [process.stdout.readline() for _ in range(2)]
        assert printed == ["open\n", "flower 0\n"]
        store = attnkit.open(tmp_path / "store")
        rows = 0
        while process.poll() is None:
            before, rows = rows, len(store.heads)
            assert rows % 6 == 0 and rows >= before
    assert (process.returncode, len(store.heads)) == (0, 40 * 6)


def test_four_processes_write_four_videos_into_one_store(
    tmp_path: Path, verified: Callable[[Path], None], clean: Callable[[Path], None]
) -> None:
    videos = [f"prompt_00{number}_vid001" for number in range(4)]
    processes = [appending(tmp_path / "store", video, "flower,tree", range(8), SHAPE) for video in videos]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    for video, word in itertools.product(videos, ["flower", "tree"]):
        assert_holds(tmp_path / "store", {step: maps(step) for step in range(8)}, video, word)
    assert len(attnkit.open(tmp_path / "store").heads) == 4 * 2 * 8 * 6
    verified(tmp_path / "store")
    clean(tmp_path / "store")


def test_two_processes_write_two_words_of_one_video(
    tmp_path: Path, verified: Callable[[Path], None], clean: Callable[[Path], None]
) -> None:
    processes = [appending(tmp_path / "store", VIDEO, word, range(15), SHAPE) for word in ("flower", "tree")]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    for word in ("flower", "tree"):
        assert_holds(tmp_path / "store", {step: maps(step) for step in range(15)}, word=word)
    assert len(attnkit.open(tmp_path / "store").heads) == 2 * 15 * 6
    verified(tmp_path / "store")
    clean(tmp_path / "store")


def test_nothing_is_cleaned_up_under_a_writer(
    tmp_path: Path, run_attnkit: Callable[..., subprocess.CompletedProcess[str]], clean: Callable[[Path], None]
) -> None:
    with StoreWriter(tmp_path / "store", VIDEO, "a flower") as writer:
        for step in range(4):
            writer.append(WORD, step, 999.0 - step, maps(step))
        before = contents(tmp_path / "store")
        assert run_attnkit("gc", tmp_path / "store").returncode != 0
        assert contents(tmp_path / "store") == before
        assert writer.append(WORD, 4, 995.0, maps(4))
    assert run_attnkit("gc", tmp_path / "store").returncode == 0
    assert_holds(tmp_path / "store", {step: maps(step) for step in range(5)})
    clean(tmp_path / "store")


def test_the_words_of_a_step_are_there_together_or_not_at_all(tmp_path: Path, verified: Callable[[Path], None]) -> None:
    store = tmp_path / "store"
    with StoreWriter(store, VIDEO, "a flower near a tree", metadata={"note": "x"}) as writer:
        for number in range(3):
            with writer.step(number, 999.0 - number, metadata={"call": "cond"}) as step:
                for word in ("flower", "tree"):
                    step.append(word, maps(number), metadata={"positions": [1], "extra": word})
                assert not (store / "index/steps").is_dir() or len(attnkit.open(store).steps) == 2 * number
            assert len(attnkit.open(store).steps) == 2 * (number + 1)
        with pytest.raises(ZeroDivisionError), writer.step(3, 996.0) as step:
            step.append("flower", maps(3))
            _ = 1 / 0
        with (
            pytest.raises(attnkit.WriteError, match="step 3 of 'flower' is there twice"),
            writer.step(3, 996.0) as step,
        ):
            step.append("flower", maps(3))
            step.append("flower", maps(3))
        with pytest.raises(attnkit.WriteError, match="already, with other values"), writer.step(2, 997.0) as step:
            step.append("cat", maps(2))
            step.append("flower", maps(7))
        buffer = writer.step(2, 997.0)
        buffer.append("flower", maps(2), metadata={"call": "cond"})
        buffer.append("cat", maps(2))
        assert buffer.commit() == {"flower": False, "cat": True}
        assert writer.step(5, 900.0).commit() == {}
    for word in ("flower", "tree"):
        assert_holds(store, {step: maps(step) for step in range(3)}, word=word)
    rows = table(store, "steps").filter(token="tree")
    assert rows["call"].to_list() == ["cond"] * 3 and rows["positions"].to_list() == [[1]] * 3
    assert rows["pieces"].to_list() == [1] * 3 and rows["pooling"].to_list() == ["each"] * 3
    metadata = attnkit.AttentionAnalyzer(store).load_metadata(VIDEO, "tree", 1)
    assert (metadata["extra"], metadata["note"], metadata["call"], metadata["positions"]) == ("tree", "x", "cond", [1])
    verified(store)


def test_what_is_known_of_the_text_axis_is_a_table_for_all(tmp_path: Path, verified: Callable[[Path], None]) -> None:
    polars, duckdb, pandas = (pytest.importorskip(name) for name in ("polars", "duckdb", "pandas"))
    store = tmp_path / "store"
    entropy = np.arange(12.0).reshape(2, 2, 3) + 0.25
    sinks = np.arange(12).reshape(2, 2, 3) % 5
    with StoreWriter(store, VIDEO, "a flower") as writer:
        for number in range(2):
            with writer.step(number, 999.0 - number) as step:
                step.append(WORD, maps(number))
                step.text("cond", entropy[number], sinks[number], entropy[number] / 100, blocks=[4, 7])
                step.text("uncond", entropy[number][:1], sinks[number][:1], entropy[number][:1], sum_error=[[0, 0, 1]])
        with pytest.raises(ValueError, match="expected"):
            writer.step(2, 9.0).text("cond", [1.0], [1], [1.0])
        with pytest.raises(ValueError, match="3 numbers|numbers for"):
            writer.step(2, 9.0).text("cond", entropy[0], sinks[0], entropy[0], blocks=[1, 2, 3])
        with pytest.raises(ValueError, match="call"), writer.step(2, 9.0) as step:
            step.append(WORD, maps(2))
            step.text("condition", entropy[0], sinks[0], entropy[0])  # type: ignore[arg-type]
    expected = [
        (VIDEO, call, number, block, head, entropy[number, row, head], sinks[number, row, head], mass, error)
        for number in range(2)
        for call, blocks in (("cond", (4, 7)), ("uncond", (0,)))
        for row, block in enumerate(blocks)
        for head in range(3)
        for mass in [entropy[number, row, head] / (100 if call == "cond" else 1)]
        for error in [None if call == "cond" else float(head == 2)]
    ]
    glob = f"{store}/index/text/*.parquet"
    assert polars.read_parquet(glob).rows() == expected
    assert duckdb.sql(f"FROM '{glob}'").fetchall() == expected
    assert len(pandas.read_parquet(store / "index/text")) == len(expected)
    assert attnkit.open(store).sql("SELECT * FROM text").to_polars().rows() == expected
    highest = (
        "SELECT steps.token, MAX(text_entropy) AS m FROM text JOIN steps USING (video_id, step) GROUP BY steps.token"
    )
    assert attnkit.open(store).sql(highest)["m"].tolist() == [11.25]
    verified(store)
    # A word that an ingest adds keeps it, one that it replaces does not.
    write_dump(tmp_path / "dump", 1, SHAPE, VIDEO, "tree")
    attnkit.ingest(tmp_path / "dump", store)
    assert polars.read_parquet(glob).rows() == expected
    verified(store)
    write_dump(tmp_path / "other", 1, SHAPE, VIDEO, WORD)
    attnkit.ingest(tmp_path / "other", store, replace=True)
    assert polars.read_parquet(glob).rows() == []
    verified(store)


def test_flipped_bits_of_the_text_axis_are_found(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with StoreWriter(store, VIDEO, "a flower") as writer, writer.step(0, 9.0) as step:
        step.append(WORD, maps(0))
        step.text(None, [[1.0]], [[1]], [[1.0]])
    part = store / "index/text" / f"{VIDEO}.parquet"
    whole = part.read_bytes()
    for place in range(0, len(whole), 97):
        part.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert not attnkit.open(store).verify().ok, place
        with pytest.warns(attnkit.DamageWarning):
            assert len(attnkit.open(store).sql("SELECT * FROM text")) == 0
    part.write_bytes(whole)
    assert attnkit.open(store).verify().ok


def test_arrays_that_cannot_be_written_to_are_stored_as_others_are(tmp_path: Path) -> None:
    store = tmp_path / "store"
    fixed = maps(0)
    fixed.flags.writeable = False
    view = np.moveaxis(np.stack([maps(1)] * 2), 0, -1)[..., 0]
    view.flags.writeable = False
    write(store, [fixed, view, maps(2)])
    assert_holds(store, {step: maps(step) for step in range(3)})
    assert attnkit.open(store).verify().ok


def test_rows_of_the_text_that_are_none_of_a_step_are_refused(tmp_path: Path) -> None:
    store = tmp_path / "store"
    one = np.ones((1, 1))
    with StoreWriter(store, VIDEO, "a flower") as writer:
        writer.append(WORD, 0, 9.0, maps(0))
        step = writer.step(1, 8.0)
        step.text(None, one, [[1]], one)
        with pytest.raises(attnkit.WriteError, match="has rows of the text of call None already"):
            step.text(None, one, [[1]], one)
        with pytest.raises(attnkit.WriteError, match="no word"):
            step.commit()
        for keys, numbers in [([[-1]], None), ([[1.5]], None), ([[1]], [-1])]:
            with pytest.raises(ValueError, match="integers from 0"):
                writer.step(1, 8.0).text(None, one, keys, one, blocks=numbers)
        # Of words that are there already, they are new.
        with writer.step(0, 9.0) as step:
            step.append(WORD, maps(0))
            step.text("cond", one, [[3]], one)
    assert attnkit.open(store).sql("SELECT sink_key FROM text")["sink_key"].tolist() == [3]
    assert attnkit.open(store).verify().ok
    (store / "index/text" / f"{VIDEO}.parquet").unlink()
    [fault] = attnkit.open(store).verify().faults
    assert "missing" in fault["error"] and "index/text" in fault["path"]
