"""`attnkit query average` gives what numpy computes from the dump in float64."""

import numpy as np
import pandas as pd
import pytest
from asking import GRID, KEYS, LATENT, chosen, grouped, source_maps, values_of
from committed import table
from definitions import assert_statistics
from source_dump import DATASET, VARIANTS, write_dump

VARIANT = {path.name: path for path in VARIANTS}
REDUCERS = {"mean": np.mean, "max": np.max, "min": np.min, "sum": np.sum, "median": np.median, "std": np.std}
GONE = {"video": ["video_id"], "token": ["token", "token_index"]}
OVER = ["block", "head", "block,head", "block,head,step", "step", "video,block,head", "video,token,step,block,head"]


def keys_without(over):
    gone = [key for dimension in over.split(",") for key in GONE.get(dimension, [dimension])]
    return [key for key in KEYS if key not in gone]


def ways(reducer, over):
    """Means over blocks or heads may come from rollups, and must be the same without."""
    return [[], ["--no-rollups"]] if reducer == "mean" and {"block", "head"} & set(over.split(",")) else [[]]


def assert_reduced(answer, rows, groups, reducer, of_numpy):
    keys = rows.columns.drop("n").tolist()
    pd.testing.assert_frame_equal(answer[[*keys, "n"]], rows, check_dtype=False)
    expected = np.stack([of_numpy(group, axis=0) for group in groups])
    if reducer in ("median", "std"):
        np.testing.assert_allclose(values_of(answer), expected, rtol=1e-6, atol=1e-15, err_msg=reducer)
    else:
        np.testing.assert_array_max_ulp(values_of(answer), expected.astype(np.float32), maxulp=1)


def reductions(dump, over):
    """All for the dataset. For each variant the mean, and another one for each `over`: so every dump meets every
    reducer."""
    if dump == DATASET:
        return [(reducer, options) for reducer in REDUCERS for options in ways(reducer, over)]
    others = [reducer for reducer in REDUCERS if reducer != "mean"]
    return [("mean", []), (others[OVER.index(over) % len(others)], [])]


@pytest.mark.parametrize("over", OVER)
def test_every_reduction_is_the_one_that_numpy_makes_of_the_dump(ask, dump, store, over):
    expected = grouped(source_maps(dump), keys_without(over))
    for reducer, options in reductions(dump, over):
        answer = ask("average", store, "--over", over, "--with", reducer, *options)
        assert_reduced(answer, *expected, reducer, REDUCERS[reducer])


def test_every_reduced_map_comes_with_its_grid_and_statistics(ask, dump, store):
    answer = ask("average", store, "--over", "head")
    for side, cells in LATENT.items():
        assert (answer[side] == cells).all()
    assert (answer["shape"] == "4x12x12").all()
    assert_statistics(answer, values_of(answer).astype(np.float64), GRID)


def test_a_map_without_mass_has_no_entropy_and_no_centroid(ask, store_of):
    answer = ask("average", store_of(VARIANT["averaged"]), "--over", "head", "--with", "std")
    assert not values_of(answer).any()
    assert_statistics(answer, values_of(answer).astype(np.float64), GRID)


@pytest.mark.parametrize(
    "variant, axes", [("per_head", ["block"]), ("per_block", ["head"]), ("averaged", ["block", "head"]), ("split", [])]
)
def test_an_axis_averaged_in_the_dump_is_null_and_noted_once(finished, ask, store_of, variant, axes):
    store = store_of(VARIANT[variant])
    answer = ask("average", store, "--over", "step")
    assert [axis for axis in ("block", "head") if answer[axis].isna().all()] == axes
    notes = finished("query", "average", store, "--over", "block,head").stderr.splitlines()
    assert len(notes) == len(axes) and all(
        note.startswith(f"note: {axis}s are averaged") for note, axis in zip(notes, axes)
    )
    assert finished("query", "average", store, "--over", "step").stderr == ""


# SQL, and the same for pandas over a row of `heads` and what the dump tells of its step.
CONDITIONS = {
    "block = 3": "block == 3",
    "block BETWEEN 1 AND 3 AND head <> 2": "1 <= block <= 3 and head != 2",
    "block IN (0, 5) OR head = 1": "block in (0, 5) or head == 1",
    "entropy < 6.2": "entropy < 6.2",
    "top5 > 0.2 AND step >= 4": "top5 > 0.2 and step >= 4",
    "token = 'circle' AND entropy_norm < 0.95 AND block >= 2": "token == 'circle' and entropy_norm < 0.95 and block "
    ">= 2",
    "centroid_y < 5 OR (centroid_y > 6 AND seed = 11)": "centroid_y < 5 or (centroid_y > 6 and seed == 11)",
    "max > 4 * mean AND timestep < 900": "max > 4 * mean and timestep < 900",
    "NOT (gini < 0.3 OR block = 0) AND token LIKE 'c%'": "not (gini < 0.3 or block == 0) and token == 'circle'",
    "argmax_y < 6 AND prompt_id = 'prompt_000' AND step < 2 + block": "argmax_y < 6 and prompt == 'prompt_000' and "
    "step < 2 + block",
}


@pytest.fixture(scope="session")
def measured_maps(dataset_store):
    """The maps of the dataset, each with its row of `heads`."""
    known, values = source_maps(DATASET)
    heads = table(dataset_store, "heads").to_pandas()
    together = known.merge(heads, on=KEYS, how="left", validate="one_to_one")
    assert len(together) == len(heads) == len(values) and together["entropy"].notna().all()
    return together, values


@pytest.mark.parametrize("condition", CONDITIONS)
def test_only_the_maps_that_match_are_averaged(ask, dataset_store, measured_maps, condition):
    selected = chosen(measured_maps, CONDITIONS[condition])
    assert 0 < len(selected[0]) < len(measured_maps[0])
    for reducer, over in [("mean", "block,head"), ("max", "step")]:
        for options in ways(reducer, over):
            answer = ask("average", dataset_store, "--where", condition, "--over", over, "--with", reducer, *options)
            assert_reduced(answer, *grouped(selected, keys_without(over)), reducer, REDUCERS[reducer])


def test_video_and_token_narrow_like_conditions(ask, dataset_store, measured_maps):
    selected = chosen(measured_maps, "video_id == 'prompt_006_vid002' and token == 'square' and head == 1")
    answer = ask(
        "average",
        dataset_store,
        "--video",
        "prompt_006_vid002",
        "--token",
        "square",
        "--where",
        "head = 1",
        "--over",
        "step",
    )
    assert_reduced(answer, *grouped(selected, keys_without("step")), "mean", np.mean)


@pytest.mark.parametrize("condition", ["block IS NULL AND head = 2", "head = 2"])
def test_maps_without_a_block_can_be_chosen_by_head(ask, store_of, condition):
    answer = ask("average", store_of(VARIANT["per_head"]), "--where", condition, "--over", "step")
    selected = chosen(source_maps(VARIANT["per_head"]), "head == 2")
    assert_reduced(answer, *grouped(selected, keys_without("step")), "mean", np.mean)


@pytest.fixture(scope="session", params=["float16", "float32"])
def broken_dump(request, tmp_path_factory):
    """Words of two token positions with NaN, infinite and opposed infinite values, some of them in every map."""
    random = np.random.default_rng(7)
    arrays = {}
    for video in ("prompt_000_vid001", "prompt_000_vid002"):
        for step in range(3):
            array = random.random((2, 3, 24, 2)).astype(request.param)
            array[0, 1, 2, 0] = np.nan
            array[1, 0, 3] = np.inf
            array[0, 2, 4, 1] = -np.inf
            array[1, step, 5] = np.inf, -np.inf
            array[0, step, 5] = -np.inf, np.inf
            array[:, :, 6] = np.nan, np.inf
            array[:, 1, 7, step % 2] = -np.inf
            array[..., 8, 0] = [[np.nan, np.inf, -np.inf], [np.nan, 1, 2]]
            arrays[video, "flower", step] = (array, {"timestep": 900 - step, "seed": int(video[-1])})
    video_size = {"video_frames": 5, "video_height": 48, "video_width": 64}
    return write_dump(tmp_path_factory.mktemp(f"broken_{request.param}"), arrays, **video_size)


SKIPPING = {
    "mean": np.nanmean,
    "max": np.nanmax,
    "min": np.nanmin,
    "sum": np.nansum,
    "median": np.nanmedian,
    "std": np.nanstd,
}
odd_values = pytest.mark.filterwarnings("ignore::RuntimeWarning")
some_over = pytest.mark.parametrize("over", ["head", "step", "video,block,head"])


@odd_values
@some_over
def test_values_that_are_not_finite_propagate_as_in_numpy(ask, store_of, broken_dump, over):
    expected = grouped(source_maps(broken_dump), keys_without(over))
    for reducer, of_numpy in REDUCERS.items():
        for options in ways(reducer, over):
            answer = ask("average", store_of(broken_dump), "--over", over, "--with", reducer, *options)
            assert_reduced(answer, *expected, reducer, of_numpy)
            np.testing.assert_array_equal(answer["nonfinite"], (~np.isfinite(values_of(answer))).sum(axis=1))


@odd_values
@some_over
def test_skipna_leaves_out_every_value_that_is_not_finite(ask, store_of, broken_dump, over):
    known, values = source_maps(broken_dump)
    expected = grouped((known, np.where(np.isfinite(values), values, np.nan)), keys_without(over))
    for reducer, of_numpy in SKIPPING.items():
        answer = ask("average", store_of(broken_dump), "--over", over, "--with", reducer, "--skipna")
        assert_reduced(answer, *expected, reducer, of_numpy)


def test_token_positions_are_kept_apart_until_they_are_reduced(ask, store_of, broken_dump):
    apart = ask("average", store_of(broken_dump), "--with", "max")
    assert apart["token_index"].tolist() == [0, 0, 0, 1, 1, 1] * 2 and apart["shape"].unique() == ["2x3x4"]
    together = ask("average", store_of(broken_dump), "--over", "block,head,token_index", "--with", "max")
    assert_reduced(together, *grouped(source_maps(broken_dump), ["video_id", "token", "step"]), "max", np.max)


@pytest.mark.parametrize("reducer", ["mean", "std"])
def test_the_bits_do_not_depend_on_the_threads(ask, dataset_store, reducer):
    options = ["--over", "video,token,step,block,head", "--with", reducer, "--no-rollups"]
    one, several = (ask("average", dataset_store, *options, "--threads", threads, to="npy") for threads in (1, 5))
    assert np.array_equal(one, several)


@pytest.mark.parametrize(
    "names, over", [(("prompt_000_vid001", "prompt_000_vid002"), "video"), (("tree", "flower"), "token")]
)
@pytest.mark.parametrize("reducer", ["mean", "median"])
def test_maps_of_different_sizes_are_never_taken_together(finished, store_of, tmp_path, names, over, reducer):
    def name(of):
        return (of, "flower", 0) if over == "video" else ("prompt_000_vid001", of, 0)

    maps = {name(of): (np.full((2, 2, positions, 1), 0.5, np.float32), {}) for of, positions in zip(names, (24, 48))}
    store = store_of(write_dump(tmp_path / "dump", maps))
    refused = finished("query", "average", store, "--over", over, "--with", reducer, code=1)
    assert refused.stdout == "" and "different grids" in refused.stderr
