"""Figures of results: what is drawn is what numpy and pandas make of the dump and the tables."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attnkit
import numpy as np
import pytest
from attnkit.result import Result
from conftest import FIXTURES, SIZES, write_dump

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from attnkit.plotting import Wishes  # noqa: E402

MAPS = FIXTURES / "dataset/attention_maps"
VIDEO = "prompt_000_vid001"
CIRCLES = sorted(path.parent.name for path in MAPS.glob("*/token_circle*"))
SAME_TEXT = {0.5: "prompt_007", 1.0: "prompt_000", 1.5: "prompt_006", 2.5: "prompt_004"}


@pytest.fixture(autouse=True)
def _figures_are_closed() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def weighted(tmp_path_factory: pytest.TempPathFactory) -> attnkit.Store:
    """The bundled dataset with the weights of its words."""
    path = tmp_path_factory.mktemp("weighted") / "maps.store"
    attnkit.ingest(FIXTURES / "dataset", path, prompts=FIXTURES / "dataset/templates.txt")
    return attnkit.open(path)


@pytest.fixture
def drawn(tmp_path: Path) -> Callable[..., attnkit.Store]:
    """A store of words with given maps, `[step, frame, height, width]`, in every block and head."""

    def make(words: dict[str, Any], video: str = VIDEO, timesteps: Any = None, **video_of: Any) -> attnkit.Store:
        with attnkit.StoreWriter(
            tmp_path / "drawn.store", video_id=video, **{"prompt": "a circle", **video_of}
        ) as writer:
            for word, maps in words.items():
                for step, one in enumerate(np.asarray(maps, np.float32)):
                    timestep = 999.0 - 100 * step if timesteps is None else timesteps[step]
                    writer.append(word, step, timestep, np.broadcast_to(one.reshape(1, 1, -1, 1), (2, 2, one.size, 1)))
        return attnkit.open(tmp_path / "drawn.store")

    return make


def word(video: str, token: str = "circle") -> np.ndarray:
    """`[step, block, head, frame, height, width]` of the dump, float64."""
    (directory,) = MAPS.glob(f"{video}/token_{token}*")
    steps = [np.load(path) for path in sorted(directory.glob("step_*.npy"))]
    return np.stack(steps).reshape(tuple(SIZES.values()))[..., 0].astype(np.float64)


def entropy_norm(maps: np.ndarray) -> np.ndarray:
    """Of the last three axes."""
    mass = maps.reshape(*maps.shape[:-3], -1)
    mass = mass / mass.sum(axis=-1, keepdims=True)
    return -(mass * np.log(mass, where=mass > 0, out=np.zeros_like(mass))).sum(axis=-1) / np.log(mass.shape[-1])


def top5(maps: np.ndarray) -> np.ndarray:
    values = np.sort(maps.reshape(*maps.shape[:-3], -1), axis=-1)
    return values[..., -29:].sum(axis=-1) / values.sum(axis=-1)  # the highest 29 of 576


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (maps.reshape(*maps.shape[:-3], -1) for maps in (a, b))
    return (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1))


def image(axes: Any) -> np.ndarray:
    (shown,) = axes.images
    return np.ma.filled(shown.get_array().astype(np.float64), np.nan)


def band(axes: Any, number: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, low and high of a band."""
    (path,) = axes.collections[number].get_paths()
    x, y = path.vertices.T
    places = np.unique(x)
    return places, *(np.array([pick(y[x == place]) for place in places]) for pick in (np.min, np.max))


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def legend(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


# Evolutions.


def test_a_word_is_a_line_over_the_steps(store: attnkit.Store) -> None:
    axes = store.evolution(video=VIDEO, token="circle").plot()
    (line,) = axes.lines
    np.testing.assert_array_equal(line.get_xdata(), np.arange(10))
    np.testing.assert_allclose(line.get_ydata(), entropy_norm(word(VIDEO).mean(axis=(1, 2))), rtol=1e-6)
    assert axes.get_xlabel() == "denoising step" and axes.get_ylabel() == "entropy / ln(positions)"
    assert axes.get_title() == f"circle, {VIDEO}"
    assert not axes.collections and axes.get_legend() is None
    other = store.evolution(video=VIDEO, token="circle").plot(y="js_previous")
    assert np.isnan(other.lines[0].get_ydata()[0]) and "(nats)" in other.get_ylabel()


@pytest.mark.parametrize("kind", ["ci95", "sd", "range", None])
def test_of_several_videos_there_is_the_mean_in_a_band(store: attnkit.Store, kind: Any) -> None:
    axes = store.evolution(token="circle").plot(y="top5", band=kind)
    each = np.stack([top5(word(video).mean(axis=(1, 2))) for video in CIRCLES])
    assert each.shape == (14, 10)
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_ydata(), each.mean(axis=0), rtol=1e-6)
    assert "mean of 14 videos" in axes.get_title()
    if kind is None:
        assert not axes.collections
        return
    deviation = each.std(axis=0, ddof=1)
    reach = {"ci95": 1.96 * deviation / np.sqrt(14), "sd": deviation}
    ends = (each.min(axis=0), each.max(axis=0))
    low, high = ends if kind == "range" else (each.mean(axis=0) - reach[kind], each.mean(axis=0) + reach[kind])
    x, lower, upper = band(axes)
    np.testing.assert_array_equal(x, np.arange(10))
    np.testing.assert_allclose(lower, low, rtol=1e-6)
    np.testing.assert_allclose(upper, high, rtol=1e-6)
    assert {"ci95": "95 %", "sd": "standard deviation", "range": "lowest to highest"}[kind] in axes.get_title()


def test_blocks_and_words_have_lines_of_their_own(store: attnkit.Store) -> None:
    blocks = store.evolution(token="circle", by="block").plot(y="top5")
    assert legend(blocks) == list("012345") and blocks.get_legend().get_title().get_text() == "block"
    each = np.stack([top5(word(video).mean(axis=2)[:, 4]) for video in CIRCLES])
    np.testing.assert_allclose(blocks.lines[4].get_ydata(), each.mean(axis=0), rtol=1e-6)
    words = store.evolution().plot()
    assert legend(words) == ["circle (14 videos)", "square (10 videos)", "triangle (4 videos)"]
    assert len(words.collections) == 3


def test_a_video_counts_once_however_many_maps_it_has(store: attnkit.Store) -> None:
    axes = store.evolution(token="circle", by="block").plot(y="top5", by="token")
    each = np.stack([top5(word(video).mean(axis=2)).mean(axis=1) for video in CIRCLES])
    told = "circle mean of 14 videos, mean of 6 rows in each, 95 % interval of the mean"
    assert axes.get_title().replace("\n", " ") == told
    np.testing.assert_allclose(axes.lines[0].get_ydata(), each.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(band(axes)[2], each.mean(0) + 1.96 * each.std(0, ddof=1) / np.sqrt(14), rtol=1e-6)


def test_of_many_lines_some_are_drawn_and_the_legend_says_so(store: attnkit.Store) -> None:
    axes = store.evolution(token="circle").plot(by="video_id")
    assert len(axes.lines) == 12 and axes.get_legend().get_title().get_text() == "video (12 of 14)"
    assert legend(axes) == CIRCLES[:12]
    steps = store.heads.plot(x="block", y="top5", by=["head", "step"], kind="line")
    assert steps.get_legend().get_title().get_text() == "(12 of 40)"


def test_timesteps_run_as_the_noise_is_removed(store: attnkit.Store) -> None:
    result = store.evolution(token="circle")
    axes = result.plot(x="timestep")
    one = store.evolution(video=VIDEO, token="circle")["timestep"]
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), one)
    assert axes.xaxis_inverted() and axes.get_xlabel() == "scheduler timestep"
    result.plot(axes, x="timestep")
    assert axes.xaxis_inverted()


def test_videos_of_other_timesteps_have_no_mean_over_them(drawn: Callable[..., attnkit.Store]) -> None:
    maps = np.random.default_rng(1).random((3, 1, 2, 3))
    drawn({"circle": maps}, video_size=(1, 32, 48))
    store = drawn({"circle": maps}, "prompt_000_vid002", [999.0, 500.0, 1.0], video_size=(1, 32, 48))
    with pytest.raises(ValueError, match="different timesteps"):
        store.evolution().plot(x="timestep")
    axes = store.evolution().plot(x="timestep", by="video_id")
    assert [line.get_xdata().tolist() for line in axes.lines] == [[999, 899, 799], [999, 500, 1]]


def test_values_without_neighbours_are_points(store: attnkit.Store, drawn: Callable[..., attnkit.Store]) -> None:
    axes = store.evolution(where="step = 3").plot()
    assert [line.get_xdata().tolist() for line in axes.lines if line.get_marker() == "o"] == [[3]] * 3
    bars = axes.containers  # where a band has no width
    each = np.stack([entropy_norm(word(video)[3].mean(axis=(0, 1))) for video in CIRCLES])
    (segment,) = bars[0].lines[2][0].get_segments()
    reach = 1.96 * each.std(ddof=1) / np.sqrt(14)
    np.testing.assert_allclose(segment[:, 1], [each.mean() - reach, each.mean() + reach], rtol=1e-6)
    maps = np.random.default_rng(1).random((30, 1, 2, 3))
    maps[11], maps[13] = np.nan, np.nan
    gap = drawn({"circle": maps}, video_size=(1, 32, 48)).evolution().plot()
    assert gap.lines[0].get_marker() == "o"
    assert np.flatnonzero(np.isnan(gap.lines[0].get_ydata())).tolist() == [11, 13]


def test_a_constant_line_does_not_show_noise(drawn: Callable[..., attnkit.Store]) -> None:
    axes = drawn({"circle": np.full((4, 1, 2, 3), 0.3)}, video_size=(1, 32, 48)).evolution().plot()
    low, high = axes.get_ylim()
    np.testing.assert_allclose(axes.lines[0].get_ydata(), 1)
    assert low < 0.96 and high > 1.04


# Maps.


def test_a_map_lies_as_the_video_does(drawn: Callable[..., attnkit.Store]) -> None:
    maps = np.full((1, 3, 4, 6), 0.1)
    maps[0, 1, 0, 4] = 0.9  # the second frame: uppermost row, fifth column
    store = drawn({"circle": maps}, video_size=(9, 64, 96))
    axes = store.map(VIDEO, "circle", 0).plot(range=(0, 1))
    assert [one.get_title() for one in axes] == ["frame 0", "frame 1", "frame 2"]
    np.testing.assert_array_equal(image(axes[1]), maps[0, 1].astype(np.float32))
    assert np.unravel_index(image(axes[1]).argmax(), (4, 6)) == (0, 4)
    assert all(one.get_aspect() == 1 for one in axes)
    figure = axes[1].figure
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())
    brightness = {}
    for row in range(4):
        for column in range(6):
            x, y = axes[1].transData.transform((column, row))
            brightness[row, column] = int(pixels[len(pixels) - 1 - int(y), int(x), 1])
    assert max(brightness, key=lambda place: brightness[place]) == (0, 4)
    (top, bottom), (left, right) = (
        [axes[1].transAxes.inverted().transform(axes[1].transData.transform(place))[way] for place in places]
        for way, places in ((1, [(0, 0), (0, 3)]), (0, [(0, 0), (5, 0)]))
    )
    assert top > bottom and left < right


def test_all_pictures_have_one_range_of_colours(store: attnkit.Store) -> None:
    axes = store.average(video=VIDEO, token="circle", where="block = 4 AND head = 0 AND step IN (0, 9)").plot()
    assert axes.shape == (2, 4)
    maps = word(VIDEO)[[0, 9], 4, 0]
    for row, step in enumerate(maps):
        for column, frame in enumerate(step):
            np.testing.assert_allclose(image(axes[row, column]), frame, rtol=1e-6)
            np.testing.assert_allclose(axes[row, column].images[0].get_clim(), np.percentile(maps, [1, 99]), rtol=1e-6)
    assert [one.get_ylabel() for one in axes[:, 0]] == ["step 0", "step 9"]
    figure = axes[0, 0].figure
    assert figure.get_suptitle() == f"circle, {VIDEO}"
    (bar,) = [one for one in figure.axes if one not in axes.ravel().tolist()]
    assert bar.get_ylabel() == "attention"


def test_frames_and_colours_are_chosen(store: attnkit.Store) -> None:
    result = store.map(VIDEO, "circle", 9, block=4, head=0)
    axes = result.plot(frames=[2], range=(0, 0.5), cmap="magma")
    np.testing.assert_allclose(image(axes), word(VIDEO)[9, 4, 0, 2], rtol=1e-6)
    assert axes.images[0].get_clim() == (0, 0.5) and axes.images[0].get_cmap().name == "magma"
    assert axes.get_title() == f"circle, {VIDEO}, step 9, frame 2"
    assert [one.get_title() for one in result.plot(frames=[3, 1])] == ["frame 3", "frame 1"]
    usual = result.plot(frames=[2]).images[0].get_clim()
    np.testing.assert_allclose(usual, np.percentile(word(VIDEO)[9, 4, 0, 2], [1, 99]), rtol=1e-6)
    with pytest.raises(ValueError, match="no frame 4; 0 to 3"):
        result.plot(frames=[4])
    long = store.map(VIDEO, "circle", 9, frames=81, time="even").plot()
    assert len(long) == 24 and (long[0].get_title(), long[-1].get_title()) == ("frame 0", "frame 80")
    assert "24 of 81 frames" in long[0].figure.get_supxlabel()


def test_of_many_maps_some_are_drawn_and_a_line_says_so(
    store: attnkit.Store, drawn: Callable[..., attnkit.Store]
) -> None:
    every = store.average(where="block = 4 AND head = 0").plot()
    assert every.shape == (12, 4) and "12 of 280 maps" in every[0, 0].figure.get_supxlabel()
    maps = np.arange(23.0)[:, None, None, None] + np.random.default_rng(1).random((23, 1, 2, 3))
    axes = drawn({"circle": maps}, video_size=(1, 32, 48)).average().plot()
    assert [one.get_title() for one in axes[:, 0]] == [f"step {step}" for step in range(0, 23, 2)]
    np.testing.assert_allclose(image(axes[5, 0]), maps[10, 0], rtol=1e-6)


def test_differences_are_coloured_about_zero(store: attnkit.Store) -> None:
    axes = store.compare("token", video=VIDEO, form="maps", where="block = 4 AND head = 0 AND step = 9").plot()
    expected = word(VIDEO)[9, 4, 0] - word(VIDEO, "square")[9, 4, 0]
    for one, frame in zip(axes, expected):
        np.testing.assert_allclose(image(one), frame, atol=1e-7)
    farther = np.abs(np.percentile(expected, [1, 99])).max()
    np.testing.assert_allclose(axes[0].images[0].get_clim(), (-farther, farther), rtol=1e-5)
    assert axes[0].images[0].get_cmap().name == "RdBu_r"
    assert axes[0].figure.get_suptitle() == "circle − square, step 9"


def test_maps_that_show_nothing_say_why(drawn: Callable[..., attnkit.Store]) -> None:
    some = np.random.default_rng(1).random((1, 2, 2, 3))
    some[0, 1, 0, 2] = np.nan
    words = {"flat": np.full((1, 2, 2, 3), 0.25), "gone": np.full((1, 2, 2, 3), np.nan), "some": some}
    store = drawn(words, video_size=(5, 32, 48))
    for name, told in (("flat", "constant\n0.25"), ("gone", "no finite\nvalue")):
        axes = store.map(VIDEO, name, 0).plot()
        assert [texts(one) for one in axes] == [[told], [told]]
    axes = store.map(VIDEO, "some", 0).plot()
    assert [one.get_xlabel() for one in axes] == ["", "1 not finite (grey)"]
    assert np.isnan(image(axes[1])[0, 2]) and np.isnan(image(axes[1])).sum() == 1
    np.testing.assert_allclose(axes[0].images[0].get_clim(), np.nanpercentile(some, [1, 99]), rtol=1e-6)
    every = store.average().plot()
    every[0, 0].figure.canvas.draw()


def test_maps_of_different_and_of_no_grids_are_drawn(tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    write_dump(dump, 1, (2, 2, 24, 1), video="prompt_000_vid001", video_frames=5, video_height=32, video_width=96)
    write_dump(dump, 1, (2, 2, 60, 1), video="prompt_001_vid001", video_frames=9, video_height=64, video_width=80)
    flat = write_dump(dump, 1, (2, 2, 24, 1), video="prompt_002_vid001")
    attnkit.ingest(dump, tmp_path / "mixed.store")
    store = attnkit.open(tmp_path / "mixed.store")
    axes = store.average().plot()
    assert axes.shape == (3, 3) and len(axes[1, 2].images) == 1 and not axes[0, 2].images
    alone = store.average(video="prompt_002_vid001").plot()
    np.testing.assert_allclose(image(alone)[0], flat[0].astype(np.float64).mean(axis=(0, 1))[:, 0], rtol=1e-6)
    assert "no grid" in alone.get_title()
    alone.figure.canvas.draw()


# Comparisons.


def test_pairs_are_lines_over_the_steps(store: attnkit.Store) -> None:
    axes = store.compare("token", video=VIDEO, metric=["cosine", "mass_ratio"]).plot()
    assert axes.shape == (2,) and axes[0].figure.get_suptitle() == "circle – square"
    circle, square = (word(VIDEO, token).mean(axis=(1, 2)) for token in ("circle", "square"))
    np.testing.assert_allclose(axes[0].lines[0].get_ydata(), cosine(circle, square), rtol=1e-6)
    ratio = circle.sum(axis=(1, 2, 3)) / square.sum(axis=(1, 2, 3))
    np.testing.assert_allclose(axes[1].lines[0].get_ydata(), ratio, rtol=1e-6)
    assert [one.get_ylabel() for one in axes] == ["cosine similarity", "ratio of attention, a / b"]
    blocks = store.compare("block", video=VIDEO, token="circle").plot(metric="cosine")
    assert blocks.get_legend().get_title().get_text() == "pair (12 of 15)" and legend(blocks)[0] == "0 – 1"
    one = word(VIDEO).mean(axis=2)
    np.testing.assert_allclose(blocks.lines[1].get_ydata(), cosine(one[:, 0], one[:, 2]), rtol=1e-6)
    against = store.compare("block", video=VIDEO, token="circle", against=5, metric="cosine").plot()
    assert legend(against) == list("01234") and against.get_legend().get_title().get_text() == "against 5"


def test_pairs_without_steps_are_bars(store: attnkit.Store) -> None:
    axes = store.compare("block", video=VIDEO, token="circle", align="last", metric=["cosine", "js"]).plot()
    last = word(VIDEO)[9].mean(axis=1)
    pairs = [(a, b) for a in range(6) for b in range(a + 1, 6)]
    widths = [bar.get_width() for bar in axes[0].patches]
    np.testing.assert_allclose(widths, [cosine(last[a], last[b]) for a, b in pairs], rtol=1e-6)
    assert [text.get_text() for text in axes[0].get_yticklabels()] == [f"{a} – {b}" for a, b in pairs]
    assert axes[0].get_xlabel() == "cosine similarity" and "(nats)" in axes[1].get_xlabel()
    steps = store.compare("step", video=VIDEO, token="circle", metric="cosine").plot()
    assert len(steps.patches) == 30 and "30 of 45 pairs" in steps.get_xlabel()


def test_a_metric_without_a_value_says_so(tmp_path: Path) -> None:
    write_dump(tmp_path / "dump", 2, (2, 2, 24, 1))  # of no known grid, so that there is no centroid
    attnkit.ingest(tmp_path / "dump", tmp_path / "flat.store")
    axes = attnkit.open(tmp_path / "flat.store").compare("block", metric=["cosine", "centroid"]).plot()
    assert [texts(one) for one in axes] == [[], ["no finite value"]]
    assert np.isfinite(axes[0].lines[0].get_ydata()).all()


def test_weights_are_on_the_axis(weighted: attnkit.Store) -> None:
    where = "prompt = 'a red circle above a blue square'"
    result = weighted.compare("weight", token="circle", where=where, align="mean", metric="mass_ratio")
    axes = result.plot()
    sums = {
        weight: np.mean([word(f"{prompt}_vid00{seed}").mean(axis=(0, 1, 2)).sum() for seed in (1, 2)])
        for weight, prompt in SAME_TEXT.items()
    }
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), list(sums))
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [one / sums[1.0] for one in sums.values()], rtol=1e-6)
    assert axes.get_xlabel().startswith("weight of the word") and axes.lines[1].get_xdata() == [1, 1]
    each = weighted.compare("weight", token="circle", where=where, metric="mass_ratio")
    assert legend(each.plot()) == [str(step) for step in range(10)]
    assert legend(each.plot(x="step")) == ["0.5", "1", "1.5", "2.5"]
    with pytest.raises(ValueError, match="align='step'"):
        result.plot(x="step")


def test_a_matrix_is_a_square_with_its_numbers(store: attnkit.Store) -> None:
    result = store.compare("block", video=VIDEO, token="circle", align="last", form="matrix", metric=["cosine", "js"])
    axes = result.plot()
    assert [one.get_title() for one in axes] == ["cosine similarity", "Jensen-Shannon divergence (nats)"]
    last = word(VIDEO)[9].mean(axis=1)
    expected = np.array([[cosine(a, b) for b in last] for a in last])
    np.testing.assert_allclose(image(axes[0]), expected, rtol=1e-6)
    apart = expected[~np.eye(6, dtype=bool)]
    np.testing.assert_allclose(axes[0].images[0].get_clim(), (apart.min(), apart.max()), rtol=1e-6)
    assert texts(axes[0]) == [f"{value:.2f}" for value in expected.ravel()]
    for ticks in (axes[0].get_xticklabels(), axes[0].get_yticklabels()):
        assert [text.get_text() for text in ticks] == list("012345")
    only = result.plot(metric="js", range=(0, 0.2))
    assert only.images[0].get_clim() == (0, 0.2)
    with pytest.raises(ValueError, match="no 'emd'; the result has cosine, js"):
        result.plot(metric="emd")


def test_sides_that_are_alike_lie_beside_each_other(store: attnkit.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scipy")
    result = store.compare("video", token="circle", where="seed = 11 OR prompt_id < 'prompt_002'", form="matrix")
    usual, ordered = (result.plot(metric="cosine", order=order) for order in (None, "cluster"))
    names = [[text.get_text() for text in axes.get_xticklabels()] for axes in (usual, ordered)]
    assert names[0] != names[1] and sorted(names[0]) == sorted(names[1])
    moved = [names[0].index(name) for name in names[1]]
    np.testing.assert_array_equal(image(ordered), image(usual)[np.ix_(moved, moved)])

    def apart(table: np.ndarray) -> float:
        return float(np.diagonal(table, 1).sum())

    assert apart(image(ordered)) > apart(image(usual))
    monkeypatch.setitem(sys.modules, "scipy.cluster", None)
    with pytest.raises(ImportError, match="pip install scipy"):
        result.plot(metric="cosine", order="cluster")


# Tables.


def test_rows_are_points(store: attnkit.Store) -> None:
    result = store.list("heads", where="token = 'circle' AND step = 9")
    axes = result.plot(x="entropy_norm", y="top5", by="block")
    table = result.to_polars()
    for number, points in enumerate(axes.collections):
        rows = table.filter(table["block"] == number)
        np.testing.assert_array_equal(points.get_offsets(), rows.select("entropy_norm", "top5").to_numpy())
    assert legend(axes) == list("012345")
    scale = result.plot(x="entropy_norm", y="top5", by="gini")
    np.testing.assert_array_equal(scale.collections[0].get_array(), result["gini"])
    assert scale.get_legend() is None
    names = result.plot(x="video_id", y="top5")
    assert [text.get_text() for text in names.get_xticklabels()] == CIRCLES


def test_rows_are_lines_and_bars_of_means_over_videos(store: attnkit.Store) -> None:
    table = store.heads.to_pandas()
    videos = table.groupby(["token", "block", "video_id"])["top5"].mean().groupby(["token", "block"])
    mean, reach = videos.mean(), 1.96 * videos.std() / np.sqrt(videos.count())
    lines = store.heads.plot(x="block", y="top5", by="token", kind="line")
    bars = store.heads.plot(x="block", y="top5", by="token", kind="bar")
    for number, token in enumerate(("circle", "square", "triangle")):
        np.testing.assert_allclose(lines.lines[number].get_ydata(), mean[token])
        np.testing.assert_allclose(band(lines, number)[1], (mean - reach)[token])
        heights = [bar.get_height() for bar in bars.patches[6 * number : 6 * number + 6]]
        np.testing.assert_allclose(heights, mean[token])
    assert legend(bars) == legend(lines) == ["circle (14 videos)", "square (10 videos)", "triangle (4 videos)"]
    averaged = store.average(over=["block", "head"], token="circle").plot(x="step", y="top5", kind="line")
    evolution = store.evolution(token="circle").plot(y="top5")
    np.testing.assert_allclose(averaged.lines[0].get_ydata(), evolution.lines[0].get_ydata())
    sql = store.sql("SELECT block, step, avg(top5) AS share FROM heads GROUP BY block, step ORDER BY block, step")
    axes = sql.plot(x="step", y="share", by="block", kind="line")
    expected = table.groupby(["block", "step"])["top5"].mean()
    np.testing.assert_allclose(axes.lines[4].get_ydata(), expected[4])
    with pytest.raises(ValueError, match="6 rows have step = 0 .* `by`"):
        sql.plot(x="step", y="share", kind="line")


def test_names_are_where_the_ticks_say(store: attnkit.Store) -> None:
    rows = store.sql(
        "SELECT token, prompt, avg(top5) AS top5 FROM steps JOIN heads USING (video_id, token, step) "
        "GROUP BY token, prompt ORDER BY token DESC, prompt DESC"
    )
    table = rows.to_pandas()
    for kind in ("line", "scatter", "bar"):
        axes = rows.plot(x="prompt", y="top5", by="token", kind=kind)
        ticks = [text.get_text() for text in axes.get_xticklabels()]
        for number, token in enumerate(legend(axes)):
            if kind == "bar":
                bars = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in axes.containers[number]]
                drawn = {ticks[round(x)]: y for x, y in bars}
            else:
                points = axes.lines[number].get_xydata() if kind == "line" else axes.collections[number].get_offsets()
                drawn = {ticks[int(x)]: y for x, y in points}
            rest = table[table["token"] == token]
            assert len(drawn) == len(rest)
            for prompt, value in zip(rest["prompt"], rest["top5"]):
                (tick,) = [
                    tick for tick in drawn if prompt.startswith(tick.split("…")[0]) and prompt.endswith(tick[-5:])
                ]
                assert drawn[tick] == pytest.approx(value)


# What can go wrong, and what stays as it was.


def test_errors_name_what_would_do(store: attnkit.Store) -> None:
    with pytest.raises(attnkit.NothingSelectedError, match="no rows"):
        store.list("steps", where="step > 99").plot(x="step", y="weight")
    with pytest.raises(attnkit.QueryError, match="x= and y=(.|\n)*entropy_norm"):
        store.heads.plot()
    with pytest.raises(attnkit.QueryError, match="y: there is no column `entrpy`(.|\n)*entropy,"):
        store.evolution().plot(y="entrpy")
    with pytest.raises(attnkit.QueryError, match="`shape` has no numbers(.|\n)*gini"):
        store.evolution().plot(y="shape")
    series, single = store.evolution(video=VIDEO, token="circle"), store.map(VIDEO, "circle", 9)
    for result, wrong, told in (
        (series, {"cmap": "magma"}, "cmap"),
        (series, {"x": "block"}, "timestep"),
        (series, {"band": "se"}, "ci95"),
        (series, {"kind": "pie", "x": "step", "y": "gini"}, "scatter"),
        (single, {"y": "gini"}, "kind="),
        (single, {"range": (1, 0)}, "lowest"),
        (single, {"cmap": "no such"}, "no such"),
        (store.compare("token", video=VIDEO), {"x": "weight"}, "step"),
    ):
        with pytest.raises(ValueError, match=told):
            result.plot(**wrong)
    with pytest.raises(TypeError, match="lowest"):
        single.plot(range=3)
    with pytest.raises(TypeError, match="frames"):
        single.plot(frames=3)
    with pytest.raises(ValueError, match="frames is nothing"):
        series.plot(frames=np.arange(2))
    single.plot(frames=np.arange(2), range=np.array([0, 1]))
    plt.close("all")
    _, two = plt.subplots(1, 2)
    with pytest.raises(ValueError, match="4 axes are needed, 2 given"):
        single.plot(two)
    with pytest.raises(TypeError, match="no Axes"):
        series.plot("left")
    assert plt.get_fignums() == [two[0].figure.number]  # what is refused leaves no figure


def test_nothing_but_the_axes_changes(store: attnkit.Store) -> None:
    figure, axes = plt.subplots(1, 4)
    elsewhere = plt.figure()
    settings = dict(matplotlib.rcParams)
    assert store.evolution(token="circle").plot(axes[0]) is axes[0]
    returned = store.map(VIDEO, "circle", 9).plot(axes)
    assert returned.tolist() == axes.tolist() and all(one.images for one in axes)
    assert store.compare("token", video=VIDEO).plot(axes[1], metric="js") is axes[1]
    assert len(plt.get_fignums()) == 2 and plt.gcf() is elsewhere
    assert dict(matplotlib.rcParams) == settings
    figure.canvas.draw()


@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_of_any_kind_are_drawn(drawn: Callable[..., attnkit.Store]) -> None:
    words = ["_hidden", "cost $5 and $6", "花", "🌸 flower", "x" * 200, "x" * 100 + "y" + "x" * 100, "a\nb"]
    rng = np.random.default_rng(1)
    store = drawn({name: rng.random((2, 2, 2, 3)) for name in words}, video_size=(5, 32, 48), prompt="p $x_{ " * 90)
    axes = store.evolution().plot()
    axes.figure.canvas.draw()
    assert len(legend(axes)) == len(set(legend(axes))) == 7
    assert max(map(len, legend(axes))) < 40 and sum("…" in label for label in legend(axes)) == 2
    for drawn_axes in (
        store.average().plot()[0, 0],
        store.compare("token").plot()[0],
        store.compare("token", form="matrix").plot()[0],
        store.compare("token", align="last").plot()[0],
        store.steps.plot(x="token", y="step", by="prompt"),
        store.steps.plot(x="prompt", y="step", by="token", kind="bar"),
    ):
        drawn_axes.figure.canvas.draw()


def test_matplotlib_is_only_needed_to_draw(store: attnkit.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = store.evolution()
    with pytest.raises(ImportError, match="pip install matplotlib"):
        result.plot()


def test_plot_takes_what_its_wishes_are() -> None:
    taken = inspect.signature(Result.plot).parameters
    wished = inspect.signature(Wishes).parameters
    assert [*taken][2:] == [*wished]
    assert all(taken[name].default == wished[name].default for name in wished)
