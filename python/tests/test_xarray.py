"""Labelled answers, and the lazy arrays of a store, against the files of the dump."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attnkit
import dask
import dask.array
import numpy as np
import polars as pl
import pytest
import xarray
from conftest import SIZES, write_dump

VIDEO = "prompt_000_vid001"
SPACE = ["frame", "height", "width"]


@pytest.fixture
def own(store: attnkit.Store, tmp_path: Path) -> attnkit.Store:
    """A copy of the store, to be harmed."""
    return attnkit.open(shutil.copytree(store.path, tmp_path / "own.store"))


@pytest.fixture
def uneven(tmp_path: Path) -> attnkit.Store:
    """Two videos without a known grid; the first lacks step 1 and the word `tree`."""
    for video, token in (("prompt_000", "flower"), ("prompt_001", "flower"), ("prompt_001", "tree")):
        write_dump(tmp_path / "dump", 3, (2, 3, 24, 2), video=f"{video}_vid001", token=token, seed=None)
    for path in (tmp_path / "dump/prompt_000_vid001").rglob("step_001*"):
        path.unlink()
    attnkit.ingest(tmp_path / "dump", tmp_path / "maps.store")
    return attnkit.open(tmp_path / "maps.store")


# Answers.


def assert_labelled(labelled: xarray.DataArray, result: attnkit.Result, column: str | None = None) -> None:
    """Every row is found by its keys; everything else is NaN."""
    rows = pl.DataFrame(result)
    maps = result.maps if column is None else result[column]
    for row, one in enumerate(maps):
        keys = {key: rows[key][row] for key in result.keys if key in labelled.dims}
        np.testing.assert_array_equal(labelled.sel(keys).values, one)
    missing = labelled.size - sum(np.size(one) for one in maps)
    assert int(labelled.isnull().sum()) == missing + sum(int(np.isnan(one).sum()) for one in maps)


@pytest.mark.parametrize(
    ("over", "keys"),
    [
        (["block", "head"], {"video_id": 16, "token": 3, "step": 10}),
        (["block", "head", "video"], {"token": 3, "step": 10}),
        (["video", "step"], {"token": 3, "block": 6, "head": 4}),
        (["block", "head", "step", "token"], {"video_id": 16}),
        (["block", "head", "step", "video", "token"], {}),
    ],
    ids=lambda value: "-".join(value),
)
def test_an_average_has_a_dimension_for_each_key(store: attnkit.Store, over: list[Any], keys: dict[str, int]) -> None:
    result = store.average(over=over)
    labelled = result.to_xarray()
    assert labelled.name == "attention" and labelled.dtype == np.float32
    assert dict(labelled.sizes) == {**keys, "frame": 4, "height": 12, "width": 12}
    assert list(labelled.dims) == [*keys, *SPACE]
    for name in labelled.dims:
        assert labelled.indexes[name].is_unique
    np.testing.assert_array_equal(labelled["height"], np.arange(12))
    if keys:
        assert_labelled(labelled, result)
    else:
        np.testing.assert_array_equal(labelled, result.to_numpy()[0])


def test_a_full_product_is_labelled_without_a_copy(store: attnkit.Store) -> None:
    result = store.average(over=["video"])
    labelled = result.to_xarray()
    assert np.shares_memory(labelled.values, result.to_numpy())
    by_hand = result.to_numpy().reshape(3, 10, 6, 4, 4, 12, 12)
    np.testing.assert_array_equal(labelled.transpose("token", "step", "block", "head", *SPACE), by_hand)


def test_words_that_a_video_lacks_are_nan(store: attnkit.Store) -> None:
    labelled = store.average(over=["block", "head", "step"]).to_xarray()
    there = {(video["video_id"], word["token"]) for video in store.info().videos for word in video["tokens"]}
    missing = labelled.isnull().all(SPACE)
    for video in labelled["video_id"].values:
        for token in labelled["token"].values:
            assert missing.sel(video_id=video, token=token) == ((video, token) not in there)


def test_steps_are_in_order_even_if_the_first_video_lacks_some(uneven: attnkit.Store) -> None:
    for labelled in (uneven.average().to_xarray(), uneven.evolution().to_xarray().gini):
        assert labelled["step"].values.tolist() == [0, 1, 2]
        assert labelled.sel(step=slice(1, 2)).sizes["step"] == 2


def test_positions_of_a_word_and_flat_maps_have_their_dimensions(uneven: attnkit.Store) -> None:
    result = uneven.average()
    labelled = result.to_xarray()
    assert dict(labelled.sizes) == {"video_id": 2, "token": 2, "token_index": 2, "step": 3, "spatial": 24}
    assert_labelled(labelled, result)


def test_a_single_map_is_labelled_with_what_it_is(store: attnkit.Store) -> None:
    result = store.map(VIDEO, "circle", 7, size=(24, 36), frames=13)
    labelled = result.to_xarray()
    assert labelled.dims == tuple(SPACE) and labelled.shape == (13, 24, 36)
    assert {key: labelled[key].item() for key in ("video_id", "token", "step")} == {
        "video_id": VIDEO, "token": "circle", "step": 7,
    }  # fmt: skip
    assert np.shares_memory(labelled.values, result.to_numpy())


@pytest.mark.parametrize("by", [None, "head"])
def test_an_evolution_is_a_series_for_each_key(store: attnkit.Store, by: Any) -> None:
    result = store.evolution(by=by, where="seed = 11")
    labelled = result.to_xarray()
    assert isinstance(labelled, xarray.Dataset)
    assert dict(labelled.sizes) == {"video_id": 8, "token": 3, **({by: 4} if by else {}), "step": 10}
    assert set(labelled.data_vars) == set(result.columns) - set(result.keys)
    for column in ("entropy_norm", "js_previous", "n", "argmax_x"):
        assert_labelled(labelled[column], result, column)


def test_comparisons_are_labelled(store: attnkit.Store) -> None:
    where = "prompt_id IN ('prompt_000', 'prompt_003')"
    pairs = store.compare("video", where, token="square", metric=["js", "l2"])
    labelled = pairs.to_xarray()
    assert dict(labelled.sizes) == {"a": 3, "b": 3, "step": 10, "metric": 2}
    assert_labelled(labelled["value"], pairs, "value")
    maps = store.compare("token", video=VIDEO, form="maps")
    assert dict(maps.to_xarray().sizes) == {"a": 1, "b": 1, "step": 10, "frame": 4, "height": 12, "width": 12}
    assert_labelled(maps.to_xarray(), maps)
    matrix = store.compare("seed", token="circle", metric="js", form="matrix").to_xarray()
    assert matrix.sel(metric="js", a=11, b=22).item() == matrix.sel(metric="js", a=22, b=11).item() > 0


def test_tables_are_labelled(store: attnkit.Store) -> None:
    heads = store.list("heads", where="token = 'circle' AND top5 > 0.3")
    labelled = heads.to_xarray()
    assert set(labelled.dims) == {"video_id", "token", "step", "block", "head"}
    assert_labelled(labelled["gini"], heads, "gini")
    steps = store.steps.to_xarray()
    assert steps["prompt"].sel(video_id=VIDEO, token="circle", step=3).item() == "a red circle above a blue square"
    assert steps["prompt"].sel(video_id=VIDEO, token="triangle", step=3).isnull()
    assert steps["source_modified"].dtype.kind == "M"
    assert np.isnat(steps["source_modified"].sel(video_id=VIDEO, token="triangle", step=3))


def test_rows_without_keys_have_a_dimension_row(store: attnkit.Store) -> None:
    result = store.sql("SELECT token, step, gini FROM heads ORDER BY gini DESC LIMIT 5")
    labelled = result.to_xarray()
    assert dict(labelled.sizes) == {"row": 5}
    np.testing.assert_array_equal(labelled["gini"], result["gini"])
    assert labelled["token"].values.tolist() == result["token"].tolist()


# Lazy arrays.

INDEXERS: list[Any] = [
    {},
    {"step": 3},
    {"step": -1, "block": 0, "head": 3, "token": 0},
    {"step": slice(None, None, 3), "block": slice(1, 5, 2)},
    {"step": slice(None, None, -1), "block": slice(4, None, -2), "width": slice(None, None, -5)},
    {"step": slice(-4, -1), "head": slice(-2, None), "frame": slice(-1, None)},
    {"block": [5, 0, 3], "head": [2, 2, 1]},
    {"step": [7, -9], "height": [0, 11], "width": np.array([3, 3, 4])},
    {"step": np.arange(10) % 3 == 1, "frame": np.array([True, False, False, True])},
    {"step": slice(2, 2)},
    {"block": []},
    {"head": np.zeros(4, bool), "step": 2},
    {"frame": 1, "height": slice(3, 9, 2), "width": -1},
    {"head": 1, "token": slice(None, None, -1)},
]


@pytest.mark.parametrize("chunks", [None, "auto", {"step": 4, "block": 2}, {}], ids=str)
@pytest.mark.parametrize("indexers", INDEXERS, ids=str)
def test_a_part_of_the_array_is_that_of_the_files(
    store: attnkit.Store, values: np.ndarray, indexers: dict[str, Any], chunks: Any
) -> None:
    expected = xarray.DataArray(values, dims=list(SIZES)).isel(indexers)
    found = store.xarray(VIDEO, "circle", chunks=chunks).attention.isel(indexers)
    assert found.dims == expected.dims and found.dtype == np.float32
    np.testing.assert_array_equal(found.values, expected.values)


def test_variables_have_the_type_asked_for(store: attnkit.Store, values: np.ndarray) -> None:
    mean = values.astype(np.float64).mean()
    assert float(store.xarray(VIDEO, "circle").attention.mean()) == pytest.approx(mean, rel=1e-6)
    for dtype, expected in (("stored", np.float16), ("float64", np.float64), ("float32", np.float32)):
        dataset = store.xarray(VIDEO, "circle", dtype=dtype)
        assert dataset.attention.dtype == expected
        np.testing.assert_array_equal(dataset.attention.values, values.astype(expected))
        assert dataset["mean"].dtype == (np.float64 if dtype == "float64" else np.float32)
    with pytest.raises(ValueError, match="int8"):
        store.xarray(VIDEO, "circle", dtype="int8")


@pytest.mark.parametrize("chunks", [None, "auto"])
def test_points_parts_of_parts_and_labels_are_those_of_the_files(
    store: attnkit.Store, values: np.ndarray, chunks: Any
) -> None:
    found = store.xarray(VIDEO, "circle", chunks=chunks).attention
    expected = xarray.DataArray(values.astype(np.float32), found.coords, dims=list(SIZES), name="attention")
    points = {"step": xarray.DataArray([9, 0, 4], dims="point"), "block": xarray.DataArray([1, 1, 5], dims="point")}
    for part in (
        lambda array: array.isel(points),
        lambda array: array[2:8][:, ::2][::-1][1],
        lambda array: array.sel(step=slice(3, 5), block=[4, 2]),
        lambda array: array.swap_dims(step="timestep").sel(timestep=700, method="nearest"),
        lambda array: array.where(array.block > 3, drop=True),
        lambda array: array.stack(map=["block", "head"]).isel(map=[1, 23]),
    ):
        xarray.testing.assert_identical(part(found).compute(), part(expected))


def test_a_dataset_says_what_it_is_of(store: attnkit.Store) -> None:
    dataset = store.xarray(VIDEO, "circle")
    assert dict(dataset.sizes) == SIZES
    for name, size in SIZES.items():
        np.testing.assert_array_equal(dataset[name], np.arange(size))
    steps = store.list("steps", video=VIDEO, token="circle")
    np.testing.assert_array_equal(dataset["timestep"], steps["timestep"])
    assert dataset["timestep"].dims == ("step",)
    assert dataset.attrs == {
        "video_id": VIDEO, "token": "circle", "prompt": "a red circle above a blue square", "prompt_id": "prompt_000",
        "seed": 11, "cfg_scale": 4.0, "token_ids": [7], "token_texts": ["circle"], "total_steps": 10,
    }  # fmt: skip


def test_stored_means_are_there_too(store: attnkit.Store, values: np.ndarray) -> None:
    dataset = store.xarray(VIDEO, "circle")
    exact = xarray.DataArray(values.astype(np.float64), dims=list(SIZES))
    for name, over in (("mean_head", ["head"]), ("mean_block", ["block"]), ("mean", ["block", "head"])):
        mean = exact.mean(over)
        assert dataset[name].dims == mean.dims and dataset[name].dtype == np.float32
        np.testing.assert_array_max_ulp(dataset[name].values, mean.values.astype(np.float32), maxulp=1)
        part = {"step": [8, 1], "frame": slice(None, None, -1)}
        np.testing.assert_array_equal(dataset[name].isel(part), dataset[name].values[[8, 1]][..., ::-1, :, :, :])


def test_a_store_without_rollups_has_the_array_alone(tmp_path: Path) -> None:
    values = write_dump(tmp_path / "dump", 3, (2, 3, 24, 2))
    attnkit.ingest(tmp_path / "dump", tmp_path / "maps.store", rollups="none")
    dataset = attnkit.open(tmp_path / "maps.store").xarray(VIDEO, "flower")
    assert list(dataset.data_vars) == ["attention"]
    np.testing.assert_array_equal(dataset.attention, values)


def test_maps_of_no_known_grid_are_flat(uneven: attnkit.Store) -> None:
    dataset = uneven.xarray("prompt_000_vid001", "flower")
    assert dict(dataset.sizes) == {"step": 2, "block": 2, "head": 3, "spatial": 24, "token": 2}
    assert dataset["step"].values.tolist() == [0, 2]
    assert "seed" not in dataset.attrs
    whole = uneven.xarray("prompt_001_vid001", "flower").attention.sel(step=[0, 2])
    np.testing.assert_array_equal(dataset.attention, whole)


def shard(store: attnkit.Store, kind: str = "attention") -> Path:
    array = store.list("steps", video=VIDEO, token="circle")["array"][0]
    (found,) = (Path(store.path, array).parent / kind).glob("c.*")
    return found


def test_nothing_is_read_before_it_is_needed(own: attnkit.Store, values: np.ndarray) -> None:
    path = shard(own)
    hidden = path.rename(path.with_name("hidden"))
    late = own.xarray(VIDEO, "circle", chunks=None).attention.isel(step=4)
    with pytest.raises(attnkit.StoreError, match="circle@.*/attention"):
        late.compute()
    with pytest.raises(attnkit.StoreError):
        own.xarray(VIDEO, "circle").attention[0].compute()
    hidden.rename(path)
    np.testing.assert_array_equal(late, values[4])


def test_only_what_is_needed_is_read(own: attnkit.Store) -> None:
    for kind in ("attention", "mean_head", "mean_block"):
        shard(own, kind).unlink()
    dataset = own.xarray(VIDEO, "circle")
    assert dataset["mean"].shape == (10, 4, 12, 12, 1) and not np.isnan(dataset["mean"].values).any()


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ("auto", {"step": 1}),
        ({"step": 5, "head": 2}, {"step": 5, "head": 2}),
        ({}, {}),
    ],
    ids=str,
)
def test_arrays_are_chunked_for_dask(store: attnkit.Store, chunks: Any, expected: dict[str, int]) -> None:
    dataset = store.xarray(VIDEO, "circle", chunks=chunks)
    for variable in dataset.data_vars.values():
        assert isinstance(variable.data, dask.array.Array)
        for name, size in zip(variable.dims, variable.data.chunksize):
            assert size == expected.get(str(name), SIZES[str(name)])
    assert not any(isinstance(coordinate.data, dask.array.Array) for coordinate in dataset.coords.values())
    assert not isinstance(store.xarray(VIDEO, "circle", chunks=None).attention.variable._data, dask.array.Array)


def late_mean(dataset: xarray.Dataset) -> xarray.DataArray:
    return dataset.attention.astype(float).isel(step=slice(2, None)).mean(["step", "head"])


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "processes"])
def test_any_scheduler_computes_the_same(store: attnkit.Store, values: np.ndarray, scheduler: str) -> None:
    with dask.config.set(scheduler=scheduler, num_workers=2):
        found = late_mean(store.xarray(VIDEO, "circle", chunks={"step": 5})).compute()
    np.testing.assert_allclose(found, values[2:].astype(float).mean(axis=(0, 2)), rtol=1e-12)


@pytest.mark.parametrize("chunks", ["auto", None], ids=str)
def test_datasets_travel_between_processes(store: attnkit.Store, values: np.ndarray, chunks: Any) -> None:
    dataset = store.xarray(VIDEO, "circle", chunks=chunks)
    packed = pickle.dumps(dataset)
    assert len(packed) < values.nbytes / 2, "the values travel too"
    xarray.testing.assert_identical(pickle.loads(packed).compute(), dataset.compute())


def test_a_dataset_is_written_to_zarr(store: attnkit.Store, tmp_path: Path, values: np.ndarray) -> None:
    store.xarray(VIDEO, "circle").to_zarr(tmp_path / "copy.zarr", consolidated=False)
    np.testing.assert_array_equal(xarray.open_zarr(tmp_path / "copy.zarr", consolidated=False).attention, values)


@pytest.mark.parametrize(("video", "token"), [(VIDEO, "triangle"), ("prompt_999_vid001", "circle"), (VIDEO, "c*")])
def test_an_unknown_word_is_not_found(store: attnkit.Store, video: str, token: str) -> None:
    with pytest.raises(attnkit.NotFoundError) as error:
        store.xarray(video, token)
    assert video in str(error.value) and token in str(error.value)


@pytest.mark.parametrize(
    "out_of_range", [lambda array: array[10], lambda array: array.isel(block=[6]), lambda array: array.sel(step=10)]
)
def test_indices_out_of_range_are_refused(
    store: attnkit.Store, out_of_range: Callable[[xarray.DataArray], xarray.DataArray]
) -> None:
    with pytest.raises((IndexError, KeyError)):
        out_of_range(store.xarray(VIDEO, "circle", chunks=None).attention).compute()


def test_chosen_blocks_are_selected_by_their_numbers(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).random((4, 1, 24, 1), dtype=np.float32)
    chosen = {"block_idx": [6, 8, 10, 12], "head_idx": 3}
    with attnkit.StoreWriter(tmp_path / "maps.store", VIDEO, "a flower", metadata=chosen) as writer:
        writer.append("flower", 0, 999, maps)
        with pytest.raises(attnkit.WriteError, match="of blocks 6, 8, 10, 12, head 3"):
            writer.append("flower", 1, 998, maps, metadata={"block_idx": [6, 8, 10, 11]})
    store = attnkit.open(tmp_path / "maps.store")
    (group,) = (tmp_path / "maps.store/maps" / VIDEO).glob("flower@*")
    for dataset in (store.xarray(VIDEO, "flower"), xarray.open_zarr(group, consolidated=False)):
        assert dataset.block.values.tolist() == [6, 8, 10, 12] and dataset["head"].values.tolist() == [3]
        np.testing.assert_array_equal(dataset.attention.sel(block=10, head=3).values.ravel(), maps[2].ravel())
    assert sorted(set(zip(store.heads["block"].tolist(), store.heads["head"].tolist()))) == [
        (6, 3),
        (8, 3),
        (10, 3),
        (12, 3),
    ]
    answer = store.average(over=["step"], where="block > 8")
    assert answer["block"].tolist() == [10, 12]
    np.testing.assert_array_equal(answer.to_numpy().reshape(2, 24), maps[2:].reshape(2, 24))
    assert store.average(over=["step"]).to_xarray().block.values.tolist() == [6, 8, 10, 12]
