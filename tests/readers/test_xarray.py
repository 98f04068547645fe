"""xarray opens a word's group as a labelled Dataset."""

import numpy as np
import xarray
from committed import words
from source_dump import same_bits, step_arrays


def open_word(group):
    return xarray.open_zarr(group, consolidated=False)


def test_a_word_is_a_dataset_with_named_dimensions(dump, store):
    for _, _, group, rows in words(store):
        dataset = open_word(group)
        blocks, heads, spatial, tokens = (rows[0][size] for size in ("num_blocks", "num_heads", "spatial", "tokens"))
        assert dataset.sizes == {"step": len(rows), "block": blocks, "head": heads, "spatial": spatial, "token": tokens}
        assert dataset.attention.dims == ("step", "block", "head", "spatial", "token")
        assert dataset.mean_head.dims == ("step", "block", "spatial", "token")
        assert dataset.mean_block.dims == ("step", "head", "spatial", "token")
        assert dataset["mean"].dims == ("step", "spatial", "token")
        if "coordinates" not in dataset.attrs["attnkit"]:
            assert dataset["timestep"].dims == ("step",)


def test_step_is_an_index_that_selects(dump, store):
    expected = step_arrays(dump)
    for video, token, group, rows in words(store):
        dataset = open_word(group)
        assert dataset.indexes["step"].tolist() == [row["step"] for row in rows]
        assert dataset.step.dtype == np.int32, "steps stay whole numbers"
        assert same_bits(dataset.attention.sel(step=4).values, expected[video, token, 4])
        assert dataset["timestep"].sel(step=4) == rows[[row["step"] for row in rows].index(4)]["timestep"]


def test_the_grid_in_the_attributes_unflattens_spatial(dataset_store):
    for _, _, group, rows in words(dataset_store):
        dataset = open_word(group)
        grid = dataset.attrs["attnkit"]["grid"]
        assert grid == {"frames": 4, "height": 12, "width": 12} == {side: rows[0][side] for side in grid}
        assert np.prod(list(grid.values())) == dataset.sizes["spatial"]
