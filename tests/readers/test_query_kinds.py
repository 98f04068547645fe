"""Every question and every grouping over dumps of several kinds: sides that differ, that are of one member or lack
steps, maps with ties and zeros, unknown seeds. Values are numpy's and scipy's, from the dump itself; notes say what is
not as it seems.
"""

import random
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from asking import GRID, KEYS, chosen, grouped, source_maps, values_of
from source_dump import write_dump
from test_query_compare import ALL_METRICS, assert_measured, measured
from test_query_series import assert_series

TEXTS = {"prompt_000": "a cat and a dog", "prompt_001": "two cats"}
VIDEOS = ("prompt_000_vid001", "prompt_000_vid002", "prompt_001_vid001", "prompt_001_vid002")
WEIGHTS = {"prompt_000": "1.0", "prompt_001": "2.0"}
SIZE = {"video_frames": 13, "video_height": 192, "video_width": 192}


def smooth(random):
    return random.gamma(0.3, 1e-2, (2, 3, 576, 1)).astype(np.float32)


def with_ties(random):
    return random.integers(0, 3, (2, 3, 576, 1)).astype(np.float32)


def one_hot(random):
    maps = np.zeros((2, 3, 576, 1), np.float32)
    maps[:, :, random.integers(0, 576)] = 1
    return maps


def write(directory, make=smooth, without=lambda video, word, step: False, seeds=(1, 2, 1, 2), more=None):
    """Four videos, of two texts, weights and seeds, with two words and three steps; but for those left out."""
    random, arrays = np.random.default_rng(5), {}
    for video, seed in [*zip(VIDEOS, seeds), *(more or {}).items()]:
        prompt = video[:10]
        for word in ("cat", "dog"):
            for step in range(3):
                known = {"seed": seed, "prompt": TEXTS[prompt], "timestep": 900 - 300 * step}
                if not (without(video, word, step) or (video not in VIDEOS and step > 0)):
                    arrays[video, f"{word}:{WEIGHTS[prompt]}", step] = make(random), known
    return write_dump(directory, arrays, **SIZE)


KINDS = {
    "alike": {},
    "a word in some videos": {"without": lambda video, word, step: word == "dog" and video != VIDEOS[0]},
    "one video a side": {"without": lambda video, word, step: video in (VIDEOS[1], VIDEOS[2])},
    "a step in some videos": {"without": lambda video, word, step: step == 2 and video.startswith("prompt_001")},
    "ties": {"make": with_ties},
    "one position each": {"make": one_hot},
    "zeros": {"make": lambda random: smooth(random) * (random.random() > 0.4)},
    "an unknown seed": {"seeds": (1, 2, None, 2)},
    # Seed 1 has one text of the four maps more often.
    "other shares": {"without": lambda video, word, step: False, "more": {"prompt_001_vid003": 1}},
    "other steps": {"without": lambda video, word, step: word == "dog" and step > 0},
}
# Sides, with the column that tells them apart, and the words that are selected.
ACROSS = {
    "prompt": ("prompt", "cat"), "video": ("video_id", "cat"), "seed": ("seed", "cat"), "token": ("token", None),
    "weight": ("weight", "cat"), "step": ("step", "cat"), "block": ("block", "cat"), "head": ("head", "cat"),
}  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def dump(request, tmp_path_factory):
    return write(tmp_path_factory.mktemp("kinds") / request.param.replace(" ", "_"), **KINDS[request.param])


def of_words(dump, word):
    maps = source_maps(dump)
    return chosen(maps, f"token == '{word}'") if word else maps


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("align", ["step", "mean"])
@pytest.mark.parametrize("across", ACROSS)
def test_sides_are_compared_as_numpy_does(ask, store_of, dump, across, align):
    key, word = ACROSS[across]
    maps = of_words(dump, word)
    if across == "seed":
        maps = chosen(maps, "seed == seed")
    if across == "weight":  # each against the one nearest to 1
        pairs = lambda sides: [(side, 1.0) for side in sides]
    else:
        pairs = lambda sides: combinations(sides, 2)
    expected = measured(maps, key, steps=across != "step" and align == "step", pairs=pairs)
    options = ["--across", across, "--align", align, "--no-rollups", *ALL_METRICS, *(["--token", word] if word else [])]
    answer = ask("compare", store_of(dump), *options)
    assert_measured(answer, expected)


OVER = ["none", "block,head", "video", "token", "step", "video,block,head", "video,token,step,block,head", "head"]


@pytest.mark.parametrize("reducer", ["mean", "median"])
@pytest.mark.parametrize("over", OVER)
def test_averages_are_those_of_numpy(ask, store_of, dump, over, reducer):
    gone = [{"video": "video_id"}.get(name, name) for name in over.split(",")]
    keys = [key for key in KEYS if key not in gone and not (key == "token_index" and "token" in gone)]
    answer = ask("average", store_of(dump), "--over", over, "--with", reducer, "--no-rollups")
    rows, groups = grouped(source_maps(dump), keys)
    pd.testing.assert_frame_equal(answer[[*keys, "n"]], rows[[*keys, "n"]], check_dtype=False)
    expected = np.stack([getattr(np, reducer)(group, axis=0) for group in groups])
    np.testing.assert_allclose(values_of(answer), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("by", [None, "block", "head"])
def test_series_are_those_of_numpy(ask, store_of, dump, by):
    answer = ask("evolution", store_of(dump), "--no-rollups", *(["--by", by] if by else []))
    assert_series(answer, source_maps(dump), by)


@pytest.mark.parametrize("block, head", [(None, None), (1, None), (None, 2), (0, 1)])
def test_maps_are_those_of_numpy(ask, store_of, dump, block, head):
    places = [*(["--block", block] if block is not None else []), *(["--head", head] if head is not None else [])]
    found = ask("map", store_of(dump), "--video", VIDEOS[0], "--token", "cat", "--step", 1, *places, to="npy")
    condition = f"video_id == '{VIDEOS[0]}' and token == 'cat' and step == 1"
    condition += f" and block == {block}" * (block is not None) + f" and head == {head}" * (head is not None)
    _, values = chosen(source_maps(dump), condition)
    np.testing.assert_allclose(found.ravel(), values.mean(axis=0), rtol=1e-6, atol=1e-12)
    assert found.shape == GRID


# What is said of sides: for each kind, of which comparisons.
DIFFERING = "the sides differ in more than the"
SAID = {
    ("alike", "token"): "each side is one mean map, taken over up to 4 videos (2 texts, 2 seeds, 2 weights)",
    ("alike", "prompt"): ("prompt", "weights of the word (prompt_000 has 1, prompt_001 has 2)"),
    ("alike", "seed"): "each side is one mean map, taken over up to 2 videos (2 texts, 1 seed, 2 weights)",
    ("alike", "weight"): ("weight", 'texts (1 has "a cat and a dog", 2 has "two cats")'),
    ("alike", "step"): "each side is one mean map, taken over up to 4 videos (2 texts, 2 seeds, 2 weights)",
    ("alike", "block"): "each side is one mean map, taken over up to 4 videos (2 texts, 2 seeds, 2 weights)",
    ("a word in some videos", "token"): (
        "word", "videos (cat has 4 (prompt_000_vid001, prompt_000_vid002, prompt_001_vid001, …), dog has "
                "prompt_000_vid001; 1 in common)",
    ),
    ("one video a side", "prompt"): ("prompt", "seeds (prompt_000 has 1, prompt_001 has 2)"),
    ("one video a side", "seed"): ("seed", 'texts (1 has "a cat and a dog", 2 has "two cats")'),
    ("a step in some videos", "step"): (
        "step", "videos (0 and 1 have 4 (prompt_000_vid001, prompt_000_vid002, prompt_001_vid001, …), 2 has "
                "prompt_000_vid001 and prompt_000_vid002; 2 in common)",
    ),
    ("an unknown seed", "prompt"): "whether the sides differ in seeds is not known",
    ("an unknown seed", "block"): "taken over up to 4 videos (2 texts, 2 seeds and unknown ones, 2 weights)",
    ("other shares", "seed"): (
        "seed", 'texts (1 has "a cat and a dog" in 33 % and "two cats" in 67 %, 2 has "a cat and a dog" in 50 % and '
                '"two cats" in 50 %; at 1 of 3 steps)',
    ),
    ("other steps", "token"): ("word", "steps (cat has 0, 1 and 2, dog has 0; 1 in common)"),
}  # fmt: skip


@pytest.mark.parametrize("kind, across", SAID, ids=str)
def test_what_else_the_sides_differ_in_is_said(finished, store_of, tmp_path_factory, kind, across):
    dump = write(tmp_path_factory.mktemp("said") / "dump", **KINDS[kind])
    _, word = ACROSS[across]
    told = finished(
        "query",
        "compare",
        store_of(dump),
        "--across",
        across,
        *(["--token", word] if word else []),
        *(["--align", "mean"] if kind == "other steps" else []),
    ).stderr
    said = SAID[kind, across]
    if isinstance(said, tuple):
        kept, said = said
        assert f"{DIFFERING} {kept}, and what is compared is that, too: " in told
    assert said in told


PAIRED = [
    ("token", ["--video", VIDEOS[0]]),
    ("seed", ["--token", "cat", "--where", "prompt_id = 'prompt_000'"]),
    ("block", ["--token", "cat", "--video", VIDEOS[0]]),
    ("step", ["--token", "cat", "--video", VIDEOS[0]]),
    ("weight", ["--token", "cat", "--where", f"video_id IN ('{VIDEOS[0]}', 'same_text')"]),
]


@pytest.mark.parametrize("across, options", PAIRED, ids=str)
def test_of_sides_that_differ_in_nothing_else_nothing_is_said(finished, attnkit, tmp_path, across, options):
    dump = write(tmp_path / "dump")
    array, known = smooth(np.random.default_rng(1)), {"seed": 1, "prompt": "a (cat:2) and a dog", "timestep": 900}
    write_dump(dump, {("same_text", "cat:2.0", 0): (array, known)}, **SIZE)
    attnkit("ingest", dump, "--store", tmp_path / "store")
    assert "sides" not in finished("query", "compare", tmp_path / "store", "--across", across, *options).stderr


def test_steps_aligned_by_time_have_the_timesteps_of_both_sides(ask, attnkit, tmp_path):
    random, arrays = np.random.default_rng(3), {}
    for video, timesteps in {"a": (999.0, 500.0, 20.0), "b": (990.0, 700.0, 510.0, 30.0)}.items():
        for step, timestep in enumerate(timesteps):
            arrays[video, "cat", step] = smooth(random), {"seed": 1, "timestep": timestep}
    attnkit("ingest", write_dump(tmp_path / "dump", arrays, **SIZE), "--store", tmp_path / "store")
    answer = ask("compare", tmp_path / "store", "--across", "video", "--align", "timestep", "--metric", "l2")
    assert answer[["step", "timestep_a", "timestep_b"]].to_numpy().tolist() == [
        [0, 999, 990],
        [1, 500, 510],
        [2, 20, 30],
    ]


def test_prompts_of_two_batches_are_two_prompts(ask, attnkit, tmp_path):
    random = np.random.default_rng(4)
    for batch, text in {"one": "a cat", "two": "cats and dogs"}.items():
        arrays = {("prompt_000_vid001", "cat", 0): (smooth(random), {"seed": 1, "prompt": text, "timestep": 1})}
        write_dump(tmp_path / "dumps" / batch / "attention_maps", arrays, **SIZE)
    attnkit("ingest", tmp_path / "dumps", "--store", tmp_path / "together")
    for batch in ("one", "two"):
        attnkit("ingest", tmp_path / "dumps" / batch, "--store", tmp_path / "prefixed", "--prefix", batch)
    for store in ("together", "prefixed"):
        rows = ask("list", tmp_path / store)
        assert rows["prompt_id"].tolist() == ["one/prompt_000", "two/prompt_000"]
        answer = ask("compare", tmp_path / store, "--across", "prompt", "--metric", "l2")
        assert answer[["a", "b", "n"]].to_numpy().tolist() == [["one/prompt_000", "two/prompt_000", 12]]
        attnkit("export", tmp_path / store, "--out", tmp_path / f"{store}_exported")
        attnkit("ingest", tmp_path / f"{store}_exported", "--store", tmp_path / f"{store}_again")
        assert ask("list", tmp_path / f"{store}_again")["prompt_id"].tolist() == ["one/prompt_000", "two/prompt_000"]


def test_maps_that_are_chosen_by_their_statistics_are_other_ones_on_each_side(finished, store_of, tmp_path_factory):
    store = store_of(write(tmp_path_factory.mktemp("chosen") / "dump"))
    asked = ("--token", "cat", "--where", "prompt_id = 'prompt_000' AND top5 > 0.36")
    told = finished("query", "compare", store, "--across", "seed", *asked).stderr
    assert f"{DIFFERING} seed" in told and "blocks and heads (1 has " in told


def test_maps_of_a_pooled_store_lie_where_they_lay(ask, attnkit, tmp_path):
    maps = np.zeros((1, 1, 49, 1), np.float32)
    maps[..., -1, 0] = 1
    size = {"video_frames": 1, "video_height": 112, "video_width": 112}
    dump = write_dump(tmp_path / "dump", {("v", "cat", 0): (maps, {"seed": 1, "timestep": 1})}, **size)
    attnkit("ingest", dump, "--store", tmp_path / "pooled", "--downsample", "4")
    found = ask("map", tmp_path / "pooled", "--size", "112x112", to="npy")[0]
    # Of 7 rows the last cell has three, of pixels 64 to 112; it held 1 / 9 of its maximum at each.
    centres = np.array([2, 5.5]) * 16
    line = np.interp(np.arange(112) + 0.5, centres, [0, 1])
    np.testing.assert_allclose(found, np.outer(line, line) / 9, rtol=1e-5, atol=1e-7)


def test_what_a_narrower_type_loses_is_said(finished, tmp_path):
    maps = np.full((1, 1, 16, 1), 1e-9, np.float32)
    maps[..., :3, 0] = 1e6
    dump = write_dump(
        tmp_path / "dump",
        {("v", "cat", 0): (maps, {"seed": 1, "timestep": 1})},
        video_frames=1,
        video_height=64,
        video_width=64,
    )
    told = finished("ingest", dump, "--store", tmp_path / "store", "--dtype", "float16").stderr
    assert "as float16, 3 of its 16 values become infinite and 13 become 0" in told


@pytest.mark.parametrize(
    "align, said", [("mean", "weights of the word (cat has 1, dog has 2)"), ("last", "steps (cat has 0, dog has 1)")]
)
def test_words_of_other_weights_and_last_steps_are_told(finished, attnkit, tmp_path, align, said):
    random, known = np.random.default_rng(6), {"seed": 1, "prompt": "a cat and a dog", "timestep": 1}
    arrays = {
        ("v", word, step): (smooth(random), known) for word, step in (("cat:1.0", 0), ("dog:2.0", 0), ("dog:2.0", 1))
    }
    attnkit("ingest", write_dump(tmp_path / "dump", arrays, **SIZE), "--store", tmp_path / "store")
    assert said in finished("query", "compare", tmp_path / "store", "--across", "token", "--align", align).stderr


@pytest.mark.parametrize(
    "across, said",
    [
        ("block", "blocks and heads (0 has 1 of 1 x 3 maps, 1 has 2 of 1 x 3 maps)"),
        ("head", "blocks and heads (0 has 1 of 2 x 1 maps, 1 has all of 2 x 1 maps)"),
    ],
)
def test_blocks_that_are_paired_with_other_heads_are_told(finished, store_of, tmp_path_factory, across, said):
    store = store_of(write(tmp_path_factory.mktemp("paired") / "dump"))
    asked = (
        "--token",
        "cat",
        "--video",
        VIDEOS[0],
        "--where",
        "(block = 0 AND head = 1) OR (block = 1 AND head IN (0, 1))",
    )
    told = finished("query", "compare", store, "--across", across, *asked).stderr
    assert f"{DIFFERING} {across}" in told and said in told


def test_last_steps_are_in_the_row(ask, attnkit, tmp_path):
    random, arrays = np.random.default_rng(7), {}
    for video, steps in {"a": 2, "b": 3, "c": 3}.items():
        for step in range(steps):
            arrays[video, "cat", step] = smooth(random), {"seed": int(video == "a"), "timestep": 1}
    attnkit("ingest", write_dump(tmp_path / "dump", arrays, **SIZE), "--store", tmp_path / "store")
    asked = lambda across, *where: ask(
        "compare", tmp_path / "store", "--across", across, "--align", "last", "--metric", "l2", *where
    )
    assert asked("video")[["a", "b", "step_a", "step_b"]].to_numpy().tolist() == [
        ["a", "b", 1, 2],
        ["a", "c", 1, 2],
        ["b", "c", 2, 2],
    ]
    assert asked("seed")[["a", "b", "step_a", "step_b"]].to_numpy().tolist() == [[0, 1, 2, 1]]
    # A side of several last steps has none.
    assert asked("head")["step_a"].isna().all()


SERIES_NOTES = [
    ("top5 > 0.36", "in 1 of 1 series the condition selects other blocks and heads at some steps"),
    ("step < 2", "in 1 of 1 series …_last is against the last step that is selected, not the last of the word (in "
                 "prompt_000_vid001: step 1 of 2)"),
    ("block = 1", None),
]  # fmt: skip


@pytest.mark.parametrize("condition, note", SERIES_NOTES, ids=str)
def test_series_of_other_maps_or_cut_short_say_so(ask, finished, store_of, tmp_path_factory, condition, note):
    store = store_of(write(tmp_path_factory.mktemp("series") / "dump"))
    asked = ("evolution", store, "--video", VIDEOS[0], "--token", "cat", "--where", condition)
    said = finished("query", *asked).stderr
    assert note in said if note else "series" not in said
    trend = finished("query", *asked, "--sparkline").stdout
    counts = [str(n) for n in sorted(set(ask(*asked)["n"]))]
    assert "-".join([counts[0], *counts[-1:]] if len(counts) > 1 else counts) in trend.splitlines()[1].split(",")


def drawn_dump(directory, chance):
    """Videos of drawn texts, seeds and weights, which have drawn words and steps."""
    arrays = {}
    for video in range(chance.randint(2, 5)):
        known = {"seed": chance.choice([1, 2, 2, None]), "prompt": chance.choice(["a cat", "dogs"])}
        prompt = chance.randint(0, 1)
        for word in chance.sample(["cat", "dog"], chance.randint(1, 2)):
            weight = chance.choice(["1.0", "2.0"])
            for step in chance.sample(range(3), chance.randint(1, 3)):
                array = np.random.default_rng(video).random((2, 2, 16, 1), np.float32)
                metadata = {key: value for key, value in known.items() if value is not None} | {"timestep": 900 - step}
                arrays[f"prompt_00{prompt}_vid00{video}", f"{word}:{weight}", step] = array, metadata
    return write_dump(directory, arrays, video_frames=1, video_height=64, video_width=64)


# What is named of sides, the column that tells it, and of which comparisons it is not.
DIFFERENCES = [
    ("videos (", "video_id", {"prompt", "video", "seed", "weight"}), ("texts (", "prompt", {"prompt"}), ("seeds (",
     "seed", {"seed"}),
    ("weights of the word (", "weight", {"weight"}),
]  # fmt: skip


def differ(units, key, column, shares=True):
    """Whether the sides of a unit, as far as they are known, have other values of a column, or others shares of
    them."""
    for unit in units:
        known = [values for _, values in unit.groupby(key)[column] if values.notna().all()]
        sides = [values.value_counts(normalize=True).round(12).to_dict() if shares else set(values) for values in known]
        if any(side != sides[0] for side in sides[1:]):
            return True
    return False


@pytest.mark.parametrize("align", ["step", "mean"])
@pytest.mark.parametrize("number", range(5))
def test_differences_are_told_where_pandas_finds_them(ask, finished, store_of, tmp_path, number, align):
    store, told = store_of(drawn_dump(tmp_path / "dump", random.Random(number))), 0
    rows = ask("list", store)
    for across, (key, word) in ACROSS.items():
        key = "prompt_id" if across == "prompt" else key
        if across in ("block", "head"):
            continue
        chosen_rows = rows if word is None else rows[rows["token"] == word]
        by_step = align == "step" and across != "step"
        units = [unit for _, unit in chosen_rows.groupby("step")] if by_step else [chosen_rows]
        units = [unit for unit in units if unit[key].nunique() > 1]
        if not units:
            continue
        said = finished(
            "query", "compare", store, "--across", across, "--align", align, *(["--token", word] if word else [])
        ).stderr
        note = next((line for line in said.splitlines() if DIFFERING in line), "")
        expected = {what: differ(units, key, column) for what, column, without in DIFFERENCES if across not in without}
        if not by_step and across != "step":
            expected[" steps ("] = differ(units, key, "step", shares=False)
        assert {what: what in note for what in expected} == expected, said
        told += len(expected)
    assert told > 0
