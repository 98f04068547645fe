"""`attnkit query evolution` and `attnkit query map` against numpy and scipy on the dump."""

import itertools

import numpy as np
import pandas as pd
import pytest
from asking import GRID, KEYS, LATENT, chosen, grouped, means, source_maps
from definitions import METRICS, assert_statistics
from scipy import ndimage
from source_dump import DATASET, VARIANTS, write_dump

VARIANT = {path.name: path for path in VARIANTS}
CHANGES = {"cosine": "cosine", "js": "js", "centroid_shift": "centroid"}


def keys_by(by):
    return [key for key in KEYS if key in ("video_id", "token", "token_index", "step", by)]


def change(metric, maps, other):
    return METRICS[metric](maps.reshape(GRID), other.reshape(GRID))


def assert_series(answer, maps, by):
    """Every row has the statistics of its map, and its change against the map before it and the last one of its
    series."""
    keys = keys_by(by)
    series_keys = [key for key in ("video_id", "token", "token_index", by) if key in keys]
    rows, _ = grouped(maps, [*series_keys, "step"])
    pd.testing.assert_frame_equal(answer[[*series_keys, "step", "n"]], rows, check_dtype=False)
    mean = means(maps, [*series_keys, "step"])
    assert_statistics(answer, np.stack(list(mean.values())), GRID)
    for _, series in answer.groupby(series_keys, dropna=False):
        of_series = [mean[key] for key in series[[*series_keys, "step"]].itertuples(index=False, name=None)]
        for column, metric in CHANGES.items():
            previous = [np.nan, *(change(metric, own, before) for before, own in itertools.pairwise(of_series))]
            np.testing.assert_allclose(series[f"{column}_previous"], previous, rtol=1e-6, atol=1e-12, err_msg=column)
            last = [change(metric, own, of_series[-1]) for own in of_series]
            np.testing.assert_allclose(series[f"{column}_last"], last, rtol=1e-6, atol=1e-12, err_msg=column)


@pytest.mark.parametrize("by", [None, "block", "head"])
@pytest.mark.parametrize("options", [[], ["--no-rollups"]], ids=["rollups", "arrays"])
def test_evolution_follows_a_word_through_the_steps(ask, dataset_store, by, options):
    answer = ask("evolution", dataset_store, "--token", "square", *(["--by", by] if by else []), *options)
    assert_series(answer, chosen(source_maps(DATASET), "token == 'square'"), by)


@pytest.mark.parametrize("variant", ["split", "float32", "torch_bfloat16"])
@pytest.mark.parametrize("by", [None, "block"])
def test_evolution_of_a_dump_with_few_steps_compares_the_ones_there_are(ask, store_of, variant, by):
    answer = ask("evolution", store_of(VARIANT[variant]), *(["--by", by] if by else []))
    assert_series(answer, source_maps(VARIANT[variant]), by)
    assert answer["step"].unique().tolist() == [0, 4, 9]


def test_evolution_knows_the_timesteps_and_the_grid(ask, dataset_store):
    answer = ask("evolution", dataset_store, "--video", "prompt_003_vid001")
    known, _ = chosen(source_maps(DATASET), "video_id == 'prompt_003_vid001'")
    of_step = known.drop_duplicates(["token", "step"]).sort_values(["token", "step"])
    assert answer["timestep"].tolist() == of_step["timestep"].tolist()
    assert (answer[list(LATENT)] == list(LATENT.values())).all(axis=None)


def test_evolution_of_chosen_maps_is_of_them_alone(ask, dataset_store):
    answer = ask("evolution", dataset_store, "--token", "triangle", "--where", "block >= 4 AND step <> 5")
    assert_series(answer, chosen(source_maps(DATASET), "token == 'triangle' and block >= 4 and step != 5"), None)


def test_sparklines_draw_a_row_for_each_series(attnkit, dataset_store):
    lines = attnkit(
        "query", "evolution", dataset_store, "--token", "triangle", "--sparkline", "--format", "csv"
    ).splitlines()
    assert len(lines) == 1 + 4 and lines[0].startswith("video_id,token,steps,n,mean")
    assert all(",0-9," in line and "█" in line and "▁" in line for line in lines[1:])


CHOICES = {
    "all": ([], "step == 4"),
    "block": (["--block", 3], "step == 4 and block == 3"),
    "head": (["--head", 1], "step == 4 and head == 1"),
    "one map": (["--block", 0, "--head", 2], "step == 4 and block == 0 and head == 2"),
    "statistics": (["--where", "block > 1"], "step == 4 and block > 1"),
}
PLACE = ("--video", "prompt_002_vid002", "--token", "circle", "--step", 4)


def source_map(condition):
    _, values = chosen(source_maps(DATASET), f"video_id == 'prompt_002_vid002' and token == 'circle' and {condition}")
    return values.mean(axis=0).astype(np.float32).reshape(GRID)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_map_is_unflattened_to_frames_rows_and_columns(ask, dataset_store, choice):
    options, condition = CHOICES[choice]
    found = ask("map", dataset_store, *PLACE, *options, to="npy")
    assert found.dtype == np.float32 and np.array_equal(found, source_map(condition))


@pytest.mark.parametrize(
    "frames, size",
    [
        (None, (192, 192)),
        (13, None),
        (13, (192, 192)),
        (7, (31, 50)),
        (2, (5, 7)),
        (1, (1, 1)),
        (4, (12, 12)),
        (9, (12, 40)),
    ],
)
@pytest.mark.parametrize("choice", ["all", "one map"])
def test_an_evenly_placed_map_is_resampled_as_scipy_zooms(ask, dataset_store, frames, size, choice):
    options, condition = CHOICES[choice]
    shape = (frames or GRID[0], *(size or GRID[1:]))
    asked = [
        *(["--frames", frames, "--time", "even"] if frames else []),
        *(["--size", f"{size[0]}x{size[1]}"] if size else []),
    ]
    found = ask("map", dataset_store, *PLACE, *options, *asked, to="npy")
    factors = [to / of for to, of in zip(shape, GRID)]
    expected = ndimage.zoom(source_map(condition).astype(np.float64), factors, order=1, mode="nearest", grid_mode=True)
    assert found.shape == expected.shape == shape and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("frames, stride", [(13, 4), (25, 8), (4, 1), (7, 2)])
def test_frames_lie_where_a_causal_vae_decodes_them(ask, dataset_store, frames, stride):
    found = ask("map", dataset_store, *PLACE, "--frames", frames, to="npy")
    latent = [0] + [k for k in range(1, GRID[0]) for _ in range(stride)]
    assert np.array_equal(found, source_map(CHOICES["all"][1])[latent])


@pytest.mark.parametrize("frames", [1, 3, 5, 12, 14])
def test_frames_that_no_causal_vae_makes_are_refused(finished, dataset_store, frames):
    refused = finished("query", "map", dataset_store, *PLACE, *CHOICES["all"][0], "--frames", frames, code=2)
    assert "--time even" in refused.stderr


def test_a_resampled_map_is_measured_anew(ask, dataset_store):
    options = [*PLACE, "--frames", 13, "--size", "24x36"]
    [row] = ask("map", dataset_store, *options).to_dict("records")
    maps = ask("map", dataset_store, *options, to="npy")
    assert (row["frames"], row["height"], row["width"], row["shape"], row["n"]) == (13, 24, 36, "13x24x36", 24)
    assert np.array_equal(row["values"], maps.ravel())
    assert_statistics(pd.DataFrame([row]), maps.reshape(1, -1).astype(np.float64), maps.shape)


def test_a_word_of_several_tokens_has_a_map_for_each(ask, store_of, tmp_path):
    values = np.random.default_rng(5).random((2, 3, 24, 2)).astype(np.float16)
    metadata = {"video_frames": 5, "video_height": 48, "video_width": 64}
    store = store_of(write_dump(tmp_path / "dump", {("prompt_000_vid001", "flower", 0): (values, {})}, **metadata))
    found = ask("map", store, "--step", 0, to="npy")
    expected = values.astype(np.float64).mean(axis=(0, 1)).astype(np.float32).T.reshape(2, 2, 3, 4)
    assert np.array_equal(found, expected)
