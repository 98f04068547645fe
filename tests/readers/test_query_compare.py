"""`attnkit query compare` measures what scipy and scikit-image measure between the mean maps of the dump."""

import json
import shutil
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from asking import GRID, chosen, grouped, load, means, source_maps, values_of
from definitions import METRICS
from source_dump import DATASET, VARIANTS, write_dump

VARIANT = {path.name: path for path in VARIANTS}
ALL_METRICS = ("--metric", ",".join(METRICS))


def measured(maps, across, steps, pairs=lambda sides: combinations(sides, 2), metrics=METRICS, grid=GRID):
    """What `compare` answers: rows of (a, b, step, metric, value, n) for the pairs of sides, at each step if
    `steps`."""
    keys = [across, "step"] if steps else [across]
    mean = means(maps, keys)
    n = grouped(maps, keys)[0].set_index(keys)["n"]
    step_of = [()] if not steps else [(step,) for step in sorted(set(maps[0]["step"]))]
    name = (lambda side, step: (side, *step)) if steps else lambda side, step: side
    return pd.DataFrame(
        [
            {
                "a": a,
                "b": b,
                "step": step[0] if step else np.nan,
                "metric": metric,
                "value": of(*both),
                "n": n[name(a, step)] + n[name(b, step)],
            }
            for a, b in pairs(sorted(set(maps[0][across])))
            for metric, of in metrics.items()
            for step in step_of
            if {name(a, step), name(b, step)} <= mean.keys()
            for both in [[mean[name(side, step)].reshape(grid) for side in (a, b)]]
        ]
    )


# Of the same mean maps. Means of several rollups can be 1 ulp beside, and what is small beside the maps keeps fewer
# digits.
EXACT, FROM_ROLLUPS = 1e-6, 1e-5


def assert_measured(answer, expected, metrics=METRICS, tolerance=EXACT):
    """The same rows, and the same values metric by metric."""
    others = ["a", "b", "step", "metric", "n"]
    pd.testing.assert_frame_equal(answer[others], expected[others], check_dtype=False)
    for metric in metrics:
        of_metric = (answer["metric"] == metric).to_numpy()
        np.testing.assert_allclose(
            answer["value"][of_metric], expected["value"][of_metric], rtol=tolerance, atol=1e-12, err_msg=metric
        )


# What is compared: options, the same for pandas, the column that tells the sides apart, and whether step by step.
QUESTIONS = {
    "prompt": ("token = 'circle' AND prompt_id <> 'prompt_007' AND step IN (0, 8)", "token == 'circle' and prompt != "
        "'prompt_007' and step in (0, 8)", "prompt"),
    "video": ("token = 'triangle' AND step > 6", "token == 'triangle' and step > 6", "video_id"),
    "seed": ("token = 'square'", "token == 'square'", "seed"),
    "token": ("prompt_id IN ('prompt_000', 'prompt_001') AND step >= 5", "prompt in ('prompt_000', 'prompt_001') and "
        "step >= 5", "token"),
    "step": ("token = 'square' AND prompt_id = 'prompt_003' AND step % 2 = 0", "token == 'square' and prompt == "
        "'prompt_003' and step % 2 == 0", "step"),
    "block": ("token = 'square' AND video_id = 'prompt_005_vid001' AND step IN (1, 9)", "token == 'square' and "
        "video_id == 'prompt_005_vid001' and step in (1, 9)", "block"),
    "head": ("token = 'circle' AND block > 2 AND prompt_id = 'prompt_004'", "token == 'circle' and block > 2 and "
        "prompt == 'prompt_004'", "head"),
}  # fmt: skip


@pytest.mark.parametrize("across", QUESTIONS)
@pytest.mark.parametrize(
    "options, tolerance", [([], FROM_ROLLUPS), (["--no-rollups"], EXACT)], ids=["rollups", "arrays"]
)
def test_every_metric_is_that_of_scipy_between_the_mean_maps(ask, dataset_store, across, options, tolerance):
    sql, condition, key = QUESTIONS[across]
    answer = ask("compare", dataset_store, "--across", across, "--where", sql, *ALL_METRICS, *options)
    assert_measured(
        answer, measured(chosen(source_maps(DATASET), condition), key, steps=across != "step"), tolerance=tolerance
    )


@pytest.mark.parametrize("variant", ["float32", "torch_bfloat16", "per_head", "averaged"])
def test_words_are_compared_whatever_the_dump_holds(ask, store_of, variant):
    answer = ask("compare", store_of(VARIANT[variant]), "--across", "token", *ALL_METRICS)
    assert_measured(answer, measured(source_maps(VARIANT[variant]), "token", steps=True))


@pytest.mark.parametrize("across", ["seed", "prompt"])
def test_mean_aligns_by_averaging_all_steps(ask, dataset_store, across):
    answer = ask("compare", dataset_store, "--across", across, "--token", "triangle", "--align", "mean", *ALL_METRICS)
    assert_measured(answer, measured(chosen(source_maps(DATASET), "token == 'triangle'"), across, steps=False))


@pytest.fixture(scope="session")
def degenerate_dump(tmp_path_factory):
    """Words whose one map is ordinary, constant, zero in one half, zero everywhere, or not a number at one position."""
    ordinary = np.random.default_rng(2).random(112, np.float32)
    maps = {
        "constant": np.full(112, 0.25, np.float32),
        "half": np.where(np.arange(112) < 56, ordinary, 0),
        "nan": np.where(np.arange(112) == 5, np.nan, ordinary),
        "ordinary": ordinary,
        "zero": np.zeros(112, np.float32),
    }
    arrays = {
        ("prompt_000_vid001", word, 0): (np.float32(of_word).reshape(1, 1, 112, 1), {"timestep": 1, "seed": 1})
        for word, of_word in maps.items()
    }
    return write_dump(tmp_path_factory.mktemp("degenerate"), arrays, video_frames=5, video_height=112, video_width=128)


@pytest.mark.filterwarnings("ignore")
def test_what_scipy_finds_infinite_or_undefined_is_undefined(ask, store_of, degenerate_dump):
    answer = ask(
        "compare",
        store_of(degenerate_dump),
        "--across",
        "token",
        "--where",
        "token NOT IN ('nan', 'zero')",
        *ALL_METRICS,
    )
    expected = measured(
        chosen(source_maps(degenerate_dump), "token not in ('nan', 'zero')"), "token", steps=True, grid=(2, 7, 8)
    )
    assert expected["value"].isna().any() and not np.isinf(answer["value"]).any()
    assert_measured(answer, expected)


def test_a_map_that_is_not_finite_or_empty_is_like_no_other(ask, store_of, degenerate_dump):
    value = ask(
        "compare", store_of(degenerate_dump), "--across", "token", "--against", "ordinary", *ALL_METRICS
    ).set_index(["a", "metric"])["value"]
    assert value["nan"].isna().all()
    assert set(value["zero"].index[value["zero"].notna()]) == {"ssim", "l2", "mass_ratio"}
    assert (
        ask("compare", store_of(degenerate_dump), "--across", "token", "--against", "zero", "--metric", "mass_ratio")[
            "value"
        ]
        .isna()
        .all()
    )


@pytest.fixture(scope="session")
def uneven_dump(tmp_path_factory):
    """Two videos of one grid that were denoised in 4 and in 7 steps."""
    random = np.random.default_rng(11)
    video_size = {"video_frames": 5, "video_height": 112, "video_width": 128}
    timesteps = {
        "prompt_000_vid001": [999.0, 750.5, 480.25, 120.0],
        "prompt_000_vid002": [999, 870, 760, 610, 500, 300, 90],
    }
    arrays = {
        (video, "flower", step): (random.random((3, 2, 112, 1), np.float32), {"timestep": timestep})
        for video, of_video in timesteps.items()
        for step, timestep in enumerate(of_video)
    }
    assert all(array.shape[2] == 2 * 7 * 8 for array, _ in arrays.values())
    return write_dump(tmp_path_factory.mktemp("uneven"), arrays, seed=1, **video_size)


# For each alignment the step of the longer video that each step of the shorter one is compared with.
ALIGNED = {"step": {0: 0, 1: 1, 2: 2, 3: 3}, "timestep": {0: 0, 1: 2, 2: 4, 3: 6}, "last": {3: 6}}


@pytest.mark.parametrize("align", [*ALIGNED, "mean"])
def test_videos_of_different_schedules_are_aligned(finished, ask, store_of, uneven_dump, align):
    known, values = source_maps(uneven_dump)
    if align in ALIGNED:
        partner = {step: short for short, step in ALIGNED[align].items()}
        aligned = known["step"].where(known["video_id"] == "prompt_000_vid001", known["step"].map(partner))
        kept = aligned.isin(ALIGNED[align]).to_numpy()
        known, values = known.assign(step=aligned)[kept].reset_index(drop=True).astype({"step": int}), values[kept]
    expected = measured((known, values), "video_id", steps=align in ("step", "timestep"), grid=(2, 7, 8))

    question = ["compare", store_of(uneven_dump), "--across", "video", "--align", align, *ALL_METRICS]
    assert_measured(ask(*question), expected)
    notes = finished("query", *question).stderr
    assert ("steps that are not in every video: 3" in notes) == (align == "step")


def test_the_matrix_is_the_mean_over_the_steps_of_every_pair(ask, dataset_store):
    metrics = {name: METRICS[name] for name in ("cosine", "kl", "mass_ratio", "emd")}
    options = ["--across", "block", "--video", "prompt_001_vid001", "--token", "circle", "--where", "step < 3"]
    answer = ask("compare", dataset_store, *options, "--metric", ",".join(metrics), "--matrix")
    maps = chosen(source_maps(DATASET), "video_id == 'prompt_001_vid001' and token == 'circle' and step < 3")
    every_pair = measured(
        maps, "block", steps=True, pairs=lambda sides: [(a, b) for a in sides for b in sides], metrics=metrics
    )
    expected = every_pair.pivot_table(index=["metric", "a"], columns="b", values="value", sort=False)

    assert answer.columns.tolist() == ["metric", "a", "0", "1", "2", "3", "4", "5"]
    assert list(answer[["metric", "a"]].itertuples(index=False, name=None)) == expected.index.tolist()
    np.testing.assert_allclose(answer.drop(columns=["metric", "a"]), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("across, against", [("head", 3), ("token", "square"), ("step", 9)])
def test_all_are_compared_against_one(ask, dataset_store, across, against):
    options = [
        "--no-rollups",
        "--where",
        "prompt_id = 'prompt_000'",
        *(["--token", "circle"] if across != "token" else []),
    ]
    answer = ask("compare", dataset_store, "--across", across, "--against", against, *options)
    condition = "prompt == 'prompt_000'" + (" and token == 'circle'" if across != "token" else "")
    defaults = {name: METRICS[name] for name in ("cosine", "js", "iou@0.8", "centroid", "mass_ratio")}
    with_one = lambda sides: [(a, against) for a in sides if a != against]
    maps = chosen(source_maps(DATASET), condition)
    assert_measured(answer, measured(maps, across, across != "step", with_one, defaults), defaults)


@pytest.mark.parametrize("suffix", ["npy", "parquet", "arrow"])
def test_difference_maps_are_the_first_less_the_second(attnkit, dataset_store, tmp_path, suffix):
    path = tmp_path / f"differences.{suffix}"
    attnkit(
        "query",
        "compare",
        dataset_store,
        "--across",
        "seed",
        "--token",
        "triangle",
        "--no-rollups",
        "-o",
        tmp_path / "pairs.csv",
        "--maps",
        path,
    )
    mean = means(chosen(source_maps(DATASET), "token == 'triangle'"), ["seed", "step"])
    expected = [mean[11, step] - mean[22, step] for step in range(10)]
    found = load(path)
    if suffix == "npy":
        rows = pd.DataFrame(json.loads(path.with_suffix(".json").read_bytes())["rows"])
        assert found.shape == (10, *GRID)
        values = found.reshape(10, -1)
    else:
        rows, values = found, values_of(found)
    assert (rows["a"] == 11).all() and (rows["b"] == 22).all() and rows["step"].tolist() == list(range(10))
    np.testing.assert_array_equal(values, np.float32(expected))


def test_the_rows_of_difference_maps_never_replace_the_answer(finished, store_of, tmp_path):
    question = ["query", "compare", store_of(VARIANT["split"]), "--across", "token"]
    finished(*question, "-o", tmp_path / "answer.json")
    alone = (tmp_path / "answer.json").read_bytes()
    finished(*question, "-o", tmp_path / "answer.json", "--maps", tmp_path / "answer.npy", code=None)
    assert (tmp_path / "answer.json").read_bytes() == alone


# Videos of the dataset that differ in the weight of `circle` alone.
WEIGHTS = {"prompt_007": 0.5, "prompt_000": 1, "prompt_006": 1.5, "prompt_004": 2.5}


@pytest.fixture(scope="session")
def weighted_dump(tmp_path_factory):
    """The videos of both seeds, `circle` under the name that carries its weight."""
    dump = tmp_path_factory.mktemp("weighted") / "attention_maps"
    for prompt, weight in WEIGHTS.items():
        for seed in ("vid001", "vid002"):
            source = DATASET / "attention_maps" / f"{prompt}_{seed}" / "token_circle"
            shutil.copytree(source, dump / f"{prompt}_{seed}" / f"token_circle:{weight}")
    return dump.parent


@pytest.mark.parametrize("align", ["step", "mean", "last"])
@pytest.mark.parametrize("against", [None, 2.5])
def test_weights_have_a_response_curve_with_the_slope_of_numpy(ask, store_of, weighted_dump, align, against):
    asked = ["--against", against] if against else []
    answer = ask(
        "compare", store_of(weighted_dump), "--across", "weight", "--align", align, "--no-rollups", *asked, *ALL_METRICS
    )
    maps = source_maps(weighted_dump)
    maps = chosen(maps, "step == 9") if align == "last" else maps
    reference = against or 1
    expected = measured(maps, "weight", align == "step", lambda sides: [(a, reference) for a in sides])
    assert_measured(answer, expected)
    for (metric, _), curve in answer.groupby(["metric", "step"], dropna=False):
        slope = np.polyfit(curve["a"], curve["value"], 1)[0]
        np.testing.assert_allclose(curve["slope"], slope, rtol=1e-6, atol=1e-12, err_msg=metric)
        rises = np.diff(curve["value"])
        trend = (
            "flat"
            if not rises.any()
            else "rising"
            if (rises >= 0).all()
            else "falling"
            if (rises <= 0).all()
            else "mixed"
        )
        assert set(curve["trend"]) == {trend}, metric
