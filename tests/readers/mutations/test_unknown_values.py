"""What is unknown is no value: no side of a comparison, no timestep, no grid."""

from itertools import combinations

import numpy as np
import pytest
from answers import rows_of
from good_dump import STEPS, maps
from source_dump import write_dump


def store_of_videos(answered, place, videos):
    """A store of videos of one word; each is given by its timesteps, its word and other keys of its metadata."""
    arrays = {}
    for number, video in enumerate(videos):
        known = {"prompt": "a cat", "seed": number, "video_width": 64, "video_height": 64, "video_frames": 5, **video}
        timesteps, word = known.pop("timesteps", (1000.0, 700.0, 400.0)), known.pop("word", "cat")
        for step, timestep in enumerate(timesteps):
            array = maps(10 * number + step, dtype=np.float32)
            arrays[f"v{number}", word, step] = array, {**known, "timestep": timestep}
    answered("ingest", write_dump(place / "dump", arrays), "--store", place / "store", "--quiet")
    return place / "store"


def mean_map(*places):
    """The mean of all maps of these (number of the video, step)."""
    arrays = [maps(10 * number + step, dtype=np.float32).astype(np.float64) for number, step in places]
    return np.mean(arrays, axis=(0, 1, 2)).ravel()


def cosine(a, b):
    return pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-6)


# What tells sides apart: by the name of each side, what a video of it has.
GROUPS = {
    "seed": {"11": {"seed": 11}, "22": {"seed": 22}, f"{2**63}": {"seed": 2**63}, f"{2**63 + 1}": {"seed": 2**63 + 1}},
    "prompt": {prompt: {"prompt": prompt} for prompt in ("a cat", "b cat", "a cat ", 'c, "cat"')},
    "weight": {f"{weight}": {"word": f"cat:{weight}"} for weight in (1.0, 2.0, 0.5, 1.25)},
}
UNKNOWN_SIDE = {"seed": {"seed": None}, "prompt": {"prompt": None}, "weight": {"word": "cat"}}
# Of the sides of a group by their places; U is unknown.
U = None
SIDES = [(U, U), (0, U), (U, 0), (0, 0), (0, 1, U), (2, 3), (0, 1, 2, 3), (U, 0, 0, U, 1)]


@pytest.mark.parametrize("sides", SIDES, ids=str)
@pytest.mark.parametrize("across", GROUPS)
def test_what_is_unknown_is_no_side_of_a_comparison(run, answered, directory, across, sides):
    names = [*GROUPS[across]]
    videos = [UNKNOWN_SIDE[across] if side is U else GROUPS[across][names[side]] for side in sides]
    store = store_of_videos(answered, directory, videos)
    ran = run("query", "compare", store, "--across", across, "--align", "mean", "--metric", "cosine", "--no-rollups")

    places = {}
    for number, side in enumerate(sides):
        if side is not U:
            places.setdefault(names[side], []).extend((number, step) for step in STEPS)
    pairs = [*combinations(places, 2)]
    if across == "weight" and pairs:
        nearest = min(places, key=lambda weight: abs(float(weight) - 1))
        pairs = [pair for pair in pairs if nearest in pair]
    expected = {}
    for a, b in pairs:
        value = cosine(mean_map(*places[a]), mean_map(*places[b]))
        expected[frozenset((a, b))] = value, 6 * len(places[a] + places[b])
    rows = [row for row in rows_of(ran.out) if row["a"] != row["b"]]
    assert {frozenset((row["a"], row["b"])): (float(row["value"]), int(row["n"])) for row in rows} == expected, ran.said
    assert (ran.code == 0) == bool(pairs), ran.said
    count = f"{3 * sides.count(U)} of {3 * len(sides)} steps" if places else ""
    assert U not in sides or (across in ran.err and count in ran.err), ran.said


X = None
# The timesteps of two videos; for each row of the answer the pairs of steps it may be of; whether timesteps are named.
TIMESTEPS = {
    "equal": ((1000, 700, 400), (1000, 700, 400), [[(0, 0)], [(1, 1)], [(2, 2)]], False),
    "shifted": ((1000, 700, 400), (990, 420), [[(0, 0)], [(2, 1)]], True),
    "rising": ((0, 300, 900), (0, 300, 900), [[(0, 0)], [(1, 1)], [(2, 2)]], False),
    "visited twice": ((999, 999, 666, 666, 333), (999, 666, 333), [[(0, 0), (1, 0)], [(2, 1), (3, 1)], [(4, 2)]], None),
    "unknown on both sides": ((X, X, X), (X, X, X), [], True),
    "unknown on the left": ((X, X, X), (1000, 700, 400), [], True),
    "unknown on the right": ((1000, 700, 400), (X, X, X), [], True),
    "NaN on the right": ((1000, 700, 400), (np.nan, np.nan, np.nan), [], True),
    "texts on the right": ((1000, 700, 400), ("1000", "700", "400"), [], True),
    "unknown for one step": ((1000, X, 400), (1000, 700, 400), [[(0, 0)], [(2, 2)]], True),
    "unknown but for one step": ((X, X, 400), (1000, 700, 400), [[(2, 2)]], True),
    "one and the same on both sides": ((999, 999, 999), (999, 999, 999), [], True),
    "one and the same on the left": ((999, 999, 999), (1000, 700, 400), [], True),
    "one and the same on the right": ((1000, 700, 400), (-1, -1, -1), [], True),
    "neither falling nor rising": ((1000, 400, 700), (1000, 700, 400), [], True),
    "neither falling nor rising on the right": ((1000, 700, 400), (1000, 400, 700), [], True),
}


@pytest.mark.parametrize("a, b, rows, is_said", TIMESTEPS.values(), ids=TIMESTEPS)
def test_steps_are_paired_by_known_timesteps_alone(run, answered, directory, a, b, rows, is_said):
    store = store_of_videos(answered, directory, [{"timesteps": a}, {"timesteps": b}])
    options = ("--align", "timestep", "--metric", "cosine", "--no-rollups")
    ran = run("query", "compare", store, "--across", "video", *options)
    found = [float(row["value"]) for row in rows_of(ran.out)]
    allowed = [[cosine(mean_map((0, of_a)), mean_map((1, of_b))) for of_a, of_b in pairs] for pairs in rows]
    is_all = len(found) == len(allowed) and all(value in values for value, values in zip(found, allowed))
    assert is_all or (is_said and not found), ran.said
    assert (ran.code == 0) == bool(found), ran.said
    assert is_said is None or ("timestep" in ran.err) == is_said, ran.said


UNSIZED, OTHERWISE = {"video_width": None}, {"video_width": 128, "video_height": 32}
OF_BOTH = [
    ("average", "--over", "video,block,head"),
    ("average", "--over", "video", "--with", "max"),
    ("compare", "--across", "video", "--metric", "centroid"),
]


@pytest.mark.parametrize("other", [UNSIZED, OTHERWISE], ids=["unknown", "another"])
@pytest.mark.parametrize("question", OF_BOTH, ids=" ".join)
def test_maps_of_several_grids_are_not_taken_together(run, answered, directory, question, other):
    store = store_of_videos(answered, directory, [{}, other])
    ran = run("query", question[0], store, *question[1:])
    assert ran.code != 0 and not ran.out and "grid" in ran.err, ran.said


# Statements that put rows into groups; what of them is unknown, and the count of such rows.
GROUPINGS = {
    "SELECT seed, COUNT(*) AS n FROM steps GROUP BY seed": ("seed", 6, 9),
    "SELECT COUNT(*) AS n FROM steps GROUP BY seed": ("seed", 6, 9),
    "SELECT seed AS s, COUNT(*) AS n FROM steps GROUP BY s": ("s", 6, 9),
    "SELECT COUNT(*) AS n FROM (SELECT seed AS x FROM steps) AS a GROUP BY x": ("x", 6, 9),
    "SELECT seed, AVG(mean) AS n FROM heads JOIN steps USING (video_id, token, step) GROUP BY seed": ("seed", 36, 54),
    "SELECT step, COUNT(*) OVER (PARTITION BY seed) AS n FROM steps": ("seed", 6, 9),
    "WITH a AS (SELECT prompt, COUNT(*) AS n FROM steps GROUP BY prompt) SELECT n FROM a": ("prompt", 3, 9),
    "SELECT DISTINCT seed FROM steps": ("seed", 6, 9),
    "SELECT COUNT(*) AS n FROM (SELECT DISTINCT seed FROM steps) AS a": ("seed", 6, 9),
    "SELECT token, COUNT(*) AS n FROM steps GROUP BY token": None,
    "SELECT seed, COUNT(*) AS n FROM steps WHERE seed IS NOT NULL GROUP BY seed": None,
    "SELECT COUNT(*) AS n FROM steps GROUP BY seed IS NULL": None,
    "SELECT block, COUNT(*) AS n FROM heads GROUP BY block": None,
}


@pytest.mark.parametrize("sql, unknown", GROUPINGS.items(), ids=GROUPINGS)
def test_sql_says_what_is_unknown_of_its_groups(run, answered, directory, sql, unknown):
    videos = [{"seed": None, "prompt": None}, {"seed": None}, {"seed": 5}]
    ran = run("query", "sql", store_of_videos(answered, directory, videos), sql)
    assert ran.code == 0, ran.said
    if unknown is None:
        assert "note" not in ran.err, ran.said
    else:
        name, count, rows = unknown
        assert f"{name} is not known (null) in {count} of {rows} rows" in ran.err, ran.said


@pytest.mark.parametrize("axis", ["block", "head"])
def test_averaged_blocks_and_heads_are_no_side_of_a_comparison(run, answered, directory, axis):
    arrays = {}
    for video, is_averaged in {"v0": False, "v1": True}.items():
        array = maps(0, dtype=np.float32)
        array = array.mean(axis=("block", "head").index(axis), keepdims=True) if is_averaged else array
        arrays[video, "cat", 0] = array, {"prompt": "a cat", "video_width": 64, "video_height": 64, "video_frames": 5}
    answered("ingest", write_dump(directory / "dump", arrays), "--store", directory / "store", "--quiet")
    ran = run("query", "compare", directory / "store", "--across", axis, "--align", "mean", "--metric", "l2")
    assert ran.code == 0 and f"1 of 2 steps, whose {axis}s are averaged" in ran.err, ran.said
    sides = {side for row in rows_of(ran.out) for side in (row["a"], row["b"])}
    assert sides == {str(number) for number in range(maps(0).shape[("block", "head").index(axis)])}
    averaged = run("query", "compare", directory / "store", "--across", axis, "--video", "v1", "--align", "mean")
    assert averaged.code != 0 and f"{axis}s are averaged" in averaged.err, averaged.said
