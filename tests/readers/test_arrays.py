"""zarr-python and tensorstore open the arrays with no plugin and see the values of the dump."""

import shutil

import numpy as np
import pytest
import tensorstore
import zarr
from committed import coordinate, words
from source_dump import DATASET, VARIANTS, same_bits, step_arrays

VARIANT = {path.name: path for path in VARIANTS}
DIMENSIONS = {
    "attention": ("step", "block", "head", "spatial", "token"),
    "mean_head": ("step", "block", "spatial", "token"),
    "mean_block": ("step", "head", "spatial", "token"),
    "mean": ("step", "spatial", "token"),
    "step": ("step",),
    "timestep": ("step",),
}


def read_with_zarr(path):
    array = zarr.open_array(path, mode="r")
    return array[...], tuple(array.metadata.dimension_names)


def read_with_tensorstore(path):
    array = tensorstore.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/"}}, read=True).result()
    return array.read().result(), array.domain.labels


@pytest.mark.parametrize("read", [read_with_zarr, read_with_tensorstore])
def test_attention_is_the_dump_bit_for_bit(dump, store, read):
    expected = step_arrays(dump)
    for video, token, group, rows in words(store):
        attention, _ = read(group / "attention")
        assert coordinate(group, "step", lambda path: read(path)[0]) == [row["step"] for row in rows]
        for row in rows:
            assert same_bits(attention[row["row"]], expected.pop((video, token, row["step"]))), (
                video,
                token,
                row["step"],
            )
    assert not expected, "steps of the dump that the store does not hold"


@pytest.mark.parametrize("read", [read_with_zarr, read_with_tensorstore])
def test_every_array_names_its_dimensions(dataset_store, read):
    for _, _, group, rows in words(dataset_store):
        for name, dimensions in DIMENSIONS.items():
            values, labels = read(group / name)
            assert labels == dimensions and values.shape[0] == len(rows), (group, name)


def test_timesteps_are_those_of_the_dump(store):
    for _, _, group, rows in words(store):
        timesteps = coordinate(group, "timestep", lambda path: read_with_zarr(path)[0])
        assert timesteps == [row["timestep"] for row in rows]


@pytest.mark.parametrize("steps, are_arrays", [((0, 1, 2), False), ((0, 1, 2, 3), True), ((0, 2), True), ((1,), True)])
def test_of_a_few_steps_that_count_from_0_there_are_no_arrays(attnkit, tmp_path, steps, are_arrays):
    word = DATASET / "attention_maps/prompt_000_vid001/token_circle"
    kept = tmp_path / "dump/prompt_000_vid001/token_circle"
    kept.mkdir(parents=True)
    for path in (path for step in steps for path in word.glob(f"step_{step:03}*")):
        shutil.copy(path, kept)
    attnkit("ingest", tmp_path / "dump", "--store", tmp_path / "store")
    ((_, _, group, _),) = words(tmp_path / "store")
    expected = {"attention", *(("step", "timestep") if are_arrays else ())}
    assert {path.name for path in group.iterdir() if path.is_dir()} == expected
    if are_arrays:
        assert [read_with_zarr(group / name)[0].dtype for name in ("step", "timestep")] == [np.int32, np.float64]


@pytest.mark.parametrize(
    "shape, expected",
    [
        ((30, 12, 1170, 1), {"mean"}),
        ((30, 1, 4680, 1), set()),
        ((40, 40, 64, 1), set()),
        ((26, 26, 200, 1), {"mean"}),
        ((50, 51, 60, 1), {"mean_head", "mean_block", "mean"}),
    ],
    ids=str,
)
def test_rollups_that_cost_little_are_kept(attnkit, tmp_path, shape, expected):
    """Those of at most 4 % of the maps' bytes, float32 against float16, of steps of 256 KiB and more."""
    word = tmp_path / "dump/prompt_000_vid001/token_flower"
    word.mkdir(parents=True)
    np.save(word / "step_000.npy", np.random.default_rng(5).random(shape).astype(np.float16))
    (word / "step_000_metadata.json").write_text("{}")
    attnkit("ingest", tmp_path / "dump", "--store", tmp_path / "store")
    ((_, _, group, _),) = words(tmp_path / "store")
    assert {path.name for path in group.iterdir() if path.is_dir()} == {"attention"} | expected


@pytest.mark.parametrize("read", [read_with_zarr, read_with_tensorstore])
def test_rollups_are_the_float64_means(store, read):
    for _, _, group, _ in words(store):
        attention = read(group / "attention")[0].astype(np.float64)
        for name, axes in {"mean_head": 2, "mean_block": 1, "mean": (1, 2)}.items():
            rollup, _ = read(group / name)
            mean = attention.mean(axis=axes).astype(np.float32)
            assert rollup.dtype == np.float32 and rollup.shape == mean.shape
            assert np.all(np.abs(rollup - mean) <= np.spacing(mean)), (group, name)


@pytest.mark.parametrize(
    "variant", ["nested", "gzip", "torch", "torch_gzip", "fortran_big_endian", "aggregate", "split"]
)
def test_variants_of_one_video_give_the_same_arrays(dataset_store, store_of, variant):
    original = {(v, t): (group, rows) for v, t, group, rows in words(dataset_store)}
    for video, token, group, rows in words(store_of(VARIANT[variant])):
        whole, of_step = original[video, token]
        picked = [row["row"] for row in of_step if row["step"] in {r["step"] for r in rows}]
        assert len(picked) == len(rows) == 3
        for name in ("attention", "mean_head", "mean_block", "mean"):
            found, _ = read_with_zarr(group / name)
            assert same_bits(found, read_with_zarr(whole / name)[0][picked]), (variant, name)
        for name in ("step", "timestep"):
            read = [coordinate(of, name, lambda path: read_with_zarr(path)[0]) for of in (group, whole)]
            assert read[0] == [read[1][row] for row in picked], (variant, name)


def test_bfloat16_is_widened_to_float32_exactly(store_of):
    original = step_arrays(DATASET)
    for video, token, group, rows in words(store_of(VARIANT["torch_bfloat16"])):
        attention, _ = read_with_zarr(group / "attention")
        assert attention.dtype == np.float32
        assert not np.any(attention.view(np.uint32) & 0xFFFF), "a bfloat16 value has no low mantissa bits"
        for row in rows:
            bits = original[video, token, row["step"]].astype(np.float32).view(np.uint32)
            rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
            assert same_bits(attention[row["row"]], rounded.view(np.float32)), (token, row["step"])
