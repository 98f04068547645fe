"""`xarray.open_dataset(path, engine="attnkit")`: stores as xarray opens files, against the files of the dump."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attnkit
import dask
import dask.array
import numpy as np
import pytest
import xarray
from attnkit.backend import AttnkitBackend
from conftest import SIZES, write_dump

VIDEO = "prompt_000_vid001"


@pytest.fixture
def alone(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A store of one word, and what its dump holds."""
    values = write_dump(tmp_path / "dump", 3, (2, 3, 24, 1))
    attnkit.ingest(tmp_path / "dump", tmp_path / "maps.store", rollups="all")
    return tmp_path / "maps.store", values


@pytest.mark.parametrize("chunks", [None, {}, "auto", {"step": 4, "block": 2}], ids=str)
def test_a_word_opens_as_a_dataset(store: attnkit.Store, values: np.ndarray, chunks: Any) -> None:
    dataset = xarray.open_dataset(store.path, engine="attnkit", video=VIDEO, token="circle", chunks=chunks)
    assert dict(dataset.sizes) == SIZES
    np.testing.assert_array_equal(dataset.attention, values.astype(np.float32))
    np.testing.assert_array_equal(dataset.attention[2:, ::2, 1], values[2:, ::2, 1].astype(np.float32))
    is_chunked = isinstance(dataset.attention.variable._data, dask.array.Array)
    assert is_chunked == (chunks is not None)
    if chunks == {}:
        assert dataset.attention.variable.chunksizes["step"] == (1,) * 10, "a chunk for each step, as they are stored"
    if isinstance(chunks, dict) and chunks:
        found = dataset.attention.variable.chunksizes
        assert (found["step"], found["block"]) == ((4, 4, 2), (2, 2, 2))
    xarray.testing.assert_identical(dataset.compute(), store.xarray(VIDEO, "circle").compute())


def test_a_store_of_one_word_needs_no_names(alone: tuple[Path, np.ndarray]) -> None:
    path, values = alone
    for opened in (str(path), path, attnkit.open(path), attnkit.open(path).word(VIDEO, "flower")):
        dataset = xarray.open_dataset(opened, engine="attnkit")
        assert dataset.attrs["video_id"] == VIDEO and dataset.attrs["token"] == "flower"
        np.testing.assert_array_equal(dataset.attention, values.astype(np.float32))
    assert xarray.open_dataset(path).attrs["token"] == "flower", "it is known as a store"


@pytest.mark.parametrize(
    ("named", "error", "told"),
    [
        ({}, attnkit.QueryError, ["has 16 videos", VIDEO, "video="]),
        ({"token": "circle"}, attnkit.QueryError, ["videos", VIDEO, "video="]),
        ({"video": VIDEO}, attnkit.QueryError, ["2 tokens: circle, square", "token="]),
        ({"video": "missing"}, attnkit.NotFoundError, ["video `missing`", VIDEO]),
        ({"token": "missing"}, attnkit.NotFoundError, ["token `missing`", "circle, square, triangle"]),
        ({"video": VIDEO, "token": "triangle"}, attnkit.NotFoundError, ["triangle", VIDEO]),
    ],
    ids=str,
)
def test_what_is_meant_is_never_guessed_and_what_there_is_is_listed(
    store: attnkit.Store, named: dict[str, str], error: type[Exception], told: list[str]
) -> None:
    with pytest.raises(error) as caught:
        xarray.open_dataset(store.path, engine="attnkit", **named)
    assert all(part in str(caught.value) for part in told), str(caught.value)


def test_a_name_that_leaves_one_word_is_enough(tmp_path: Path) -> None:
    for video, token in (("prompt_000_vid001", "flower"), ("prompt_000_vid001", "tree"), ("prompt_001_vid001", "tree")):
        write_dump(tmp_path / "dump", 1, (1, 2, 24, 1), video=video, token=token)
    attnkit.ingest(tmp_path / "dump", tmp_path / "maps.store")
    opened = [{"token": "flower"}, {"video": "prompt_001_vid001"}]
    found = [xarray.open_dataset(tmp_path / "maps.store", engine="attnkit", **named).attrs for named in opened]
    assert [(attrs["video_id"], attrs["token"]) for attrs in found] == [
        ("prompt_000_vid001", "flower"),
        ("prompt_001_vid001", "tree"),
    ]


def test_an_empty_store_and_no_store_are_told_apart(tmp_path: Path, alone: tuple[Path, np.ndarray]) -> None:
    attnkit.StoreWriter(tmp_path / "empty.store", VIDEO, "a flower").close()
    with pytest.raises(attnkit.NotFoundError, match="empty"):
        xarray.open_dataset(tmp_path / "empty.store", engine="attnkit")
    with pytest.raises(attnkit.NotAStoreError):
        xarray.open_dataset(tmp_path / "dump", engine="attnkit")


def test_variables_and_coordinates_are_dropped(alone: tuple[Path, np.ndarray]) -> None:
    path, _ = alone
    opened = xarray.open_dataset(path, engine="attnkit", drop_variables=["mean", "mean_head", "timestep", "missing"])
    assert set(opened.data_vars) == {"attention", "mean_block"} and "timestep" not in opened.coords
    assert "mean" not in xarray.open_dataset(path, engine="attnkit", drop_variables="mean")


def test_nothing_is_read_before_it_is_needed(alone: tuple[Path, np.ndarray]) -> None:
    path, values = alone
    (shard,) = path.glob("maps/*/*/attention/c.*")
    shard.rename(shard.with_name("hidden"))
    dataset = xarray.open_dataset(path, engine="attnkit")
    assert not np.isnan(dataset["mean"].values).any()
    with pytest.raises(attnkit.StoreError, match="attention"):
        dataset.attention[1].compute()
    shard.with_name("hidden").rename(shard)
    np.testing.assert_array_equal(dataset.attention[1].values.ravel(), values[1].astype(np.float32).ravel())


def test_a_mean_that_is_damaged_is_named_and_not_left_out(alone: tuple[Path, np.ndarray]) -> None:
    path, _ = alone
    (document,) = path.glob("maps/*/*/mean/zarr.json")
    document.write_text("{")
    dataset = xarray.open_dataset(path, engine="attnkit")
    with pytest.raises(attnkit.StoreError, match="/mean"):
        dataset["mean"].compute()


@pytest.mark.parametrize("dtype", ["stored", "float64", None])
def test_the_type_is_that_asked_for(alone: tuple[Path, np.ndarray], dtype: str | None) -> None:
    kinds = {"stored": np.float16, "float64": np.float64, None: np.float32}
    assert xarray.open_dataset(alone[0], engine="attnkit", dtype=dtype).attention.dtype == kinds[dtype]


def test_two_words_open_as_one_dataset(store: attnkit.Store, values: np.ndarray) -> None:
    words = [store.word(VIDEO, "circle"), store.word(VIDEO, "square")]
    both = xarray.open_mfdataset(words, engine="attnkit", combine="nested", concat_dim="word", join="exact")
    assert isinstance(both.attention.data, dask.array.Array)
    assert dict(both.sizes) == {"word": 2, **SIZES}
    np.testing.assert_array_equal(both.attention.isel(word=0), values.astype(np.float32))
    square = store.xarray(VIDEO, "square", chunks=None).attention
    np.testing.assert_array_equal(both.attention.isel(word=1), square)
    with dask.config.set(scheduler="processes", num_workers=2):
        mean = both.attention.isel(step=slice(0, 2)).mean(["step", "block", "head"]).compute()
    np.testing.assert_allclose(mean[0], values[:2].astype(np.float64).mean((0, 1, 2)), rtol=1e-5)


def test_a_word_of_two_stores_opens_as_one_dataset(tmp_path: Path) -> None:
    values = []
    for number in range(2):
        dump, path = tmp_path / f"dump_{number}", tmp_path / f"[{number}].store"
        values.append(write_dump(dump, 2, (1, 2, 24, 1), video=f"prompt_00{number}_vid001"))
        attnkit.ingest(dump, path)
    paths = [tmp_path / f"[{number}].store" for number in range(2)]
    both = xarray.open_mfdataset(paths, engine="attnkit", token="flower", combine="nested", concat_dim="video")
    np.testing.assert_array_equal(both.attention.values.ravel(), np.stack(values).astype(np.float32).ravel())


NO_STORES: dict[str, Callable[[Path], Any]] = {
    "missing": lambda root: root / "missing",
    "a dump": lambda root: root / "dump",
    "a file": lambda root: root / "dump" / VIDEO / "token_flower/step_000.npy",
    "a word's group": lambda root: next((root / "maps.store/maps" / VIDEO).iterdir()),
    "another hierarchy": lambda root: root / "other.zarr",
    "bytes": lambda root: io.BytesIO(b"{}"),
    "a remote address": lambda root: "https://example.invalid/maps.store",
    "a name of zeros": lambda root: "\0",
    "nothing": lambda root: None,
}


@pytest.mark.parametrize("what", NO_STORES)
def test_only_stores_are_taken_for_stores(alone: tuple[Path, np.ndarray], what: str) -> None:
    root = alone[0].parent
    xarray.Dataset({"a": ("x", [1.0])}).to_zarr(root / "other.zarr", consolidated=False)
    assert AttnkitBackend().guess_can_open(alone[0]) and AttnkitBackend().guess_can_open(str(alone[0]))
    assert not AttnkitBackend().guess_can_open(NO_STORES[what](root))


def test_a_damaged_video_is_warned_of_and_not_taken_for_gone(tmp_path: Path) -> None:
    for video in ("prompt_000_vid001", "prompt_001_vid001"):
        write_dump(tmp_path / "dump", 1, (1, 2, 24, 1), video=video)
    attnkit.ingest(tmp_path / "dump", tmp_path / "maps.store")
    part = tmp_path / "maps.store/index/steps/prompt_001_vid001.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.warns(attnkit.DamageWarning, match=part.name):
        dataset = xarray.open_dataset(tmp_path / "maps.store", engine="attnkit")
    assert dataset.attrs["video_id"] == "prompt_000_vid001"
    shutil.rmtree(tmp_path / "dump")
