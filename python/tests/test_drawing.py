"""Drawings from Python: the same as the command line makes, shown in notebooks, saved as asked."""

import io
import os
import subprocess

import attnkit
import numpy as np
import pytest
from conftest import FIXTURES
from PIL import Image, ImageSequence

VIDEO = "prompt_000_vid001"
FRAMES = FIXTURES / "dataset" / "frames" / VIDEO


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


@pytest.mark.parametrize(
    ("kind", "arguments", "options"),
    [
        ("heatmap", {"video": VIDEO}, ["--video", VIDEO]),
        (
            "heatmap",
            {"token": "circle", "by": ["seed"], "range": (0, 0.3)},
            ["--token", "circle", "--by", "seed", "--range", "0:0.3"],
        ),
        (
            "sheet",
            {"video": VIDEO, "rows": "token", "cols": "step"},
            ["--video", VIDEO, "--rows", "token", "--cols", "step"],
        ),
        ("heads", {"token": "circle", "value": "gini"}, ["--token", "circle", "--value", "gini"]),
        ("heads", {"video": VIDEO, "value": "map", "dark": True}, ["--video", VIDEO, "--value", "map", "--dark"]),
        ("evolution", {"where": "step < 5"}, ["--where", "step < 5"]),
        ("frames", {"token": "circle", "each": True}, ["--token", "circle", "--each"]),
        (
            "matrix",
            {"across": "seed", "token": "circle", "metric": "js"},
            ["--across", "seed", "--token", "circle", "--metric", "js"],
        ),
        ("compare", {"across": "seed", "token": "circle"}, ["--across", "seed", "--token", "circle"]),
    ],
)
def test_a_drawing_is_that_of_the_command_line(store, tmp_path, kind, arguments, options):
    path = tmp_path / "drawing.png"
    subprocess.run([os.environ["ATTNKIT_BIN"], "render", kind, store.path, *options, "-o", path, "-q"], check=True)
    figure = store.render(kind, **arguments)
    assert np.array_equal(pixels(figure._repr_png_()), pixels(path.read_bytes()))


def test_a_figure_is_saved_in_each_format(store, tmp_path):
    figure = store.render("heads", token="circle")
    for extension in ("png", "webp", "svg"):
        figure.save(tmp_path / f"heads.{extension}")
    assert np.array_equal(pixels((tmp_path / "heads.png").read_bytes()), pixels((tmp_path / "heads.webp").read_bytes()))
    assert (tmp_path / "heads.svg").read_text() == figure.svg()
    with pytest.raises(ValueError, match=r"\.bmp is none of \.png"):
        figure.save(tmp_path / "heads.bmp")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heads.png", "heads.svg", "heads.webp"]
    assert "circle" in repr(figure)


def test_an_overlay_and_a_film_lie_over_the_frames(store, tmp_path):
    over = store.overlay(FRAMES, video=VIDEO, show=[0, 5], block=4, head=0)
    assert pixels(over.png()).std() > 10
    film = store.film(video=VIDEO, frames=FRAMES, block=4, head=0, size=(96, 96))
    film.save(tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as saved:
        assert sum(1 for _ in ImageSequence.Iterator(saved)) == 13
    assert film._repr_html_().startswith('<img src="data:image/webp;base64,UklGR')
    steps = store.film(video=VIDEO, token="circle", along="steps", frame=1, size=(48, 48))
    told = []
    steps.save(tmp_path / "steps.webp", progress=lambda done, all: told.append((done, all)))
    with Image.open(tmp_path / "steps.webp") as saved:
        assert saved.n_frames == 10
    assert told[-1] == (10, 10)


def test_a_result_is_saved_as_a_drawing(store, tmp_path):
    result = store.map(VIDEO, "circle", 4)
    result.save(tmp_path / "map.svg", title="a circle")
    assert "a circle" in (tmp_path / "map.svg").read_text()
    result.save(tmp_path / "map.png", colormap="magma")
    assert pixels((tmp_path / "map.png").read_bytes()).std() > 10
    result.save(tmp_path / "map.gif", size=(48, 48), fps=2)
    with Image.open(tmp_path / "map.gif") as saved:
        assert sum(1 for _ in ImageSequence.Iterator(saved)) == 4 and saved.info["duration"] == 500
    result.save(tmp_path / "map.npy")
    assert np.array_equal(np.load(tmp_path / "map.npy"), result.to_numpy())


def test_a_report_is_written(store, tmp_path):
    store.report(tmp_path / "report.html", token="circle", title="of circles")
    text = (tmp_path / "report.html").read_text()
    assert "<h1" in text and "of circles" in text and "store.render(" in text


def test_averages_are_kept_apart_by_what_is_asked(store):
    by = store.average(by=["seed", "token"], where="step < 3").to_pandas()
    assert sorted(zip(by["seed"], by["token"], strict=True)) == sorted(set(zip(by["seed"], by["token"], strict=True)))
    each = store.average(over=["block", "head", "step"], where="step < 3")
    table = each.to_pandas()
    seeds = {video["video_id"]: video["seed"] for video in store.info().videos}
    maps = np.stack(each.maps).astype(np.float64)
    for row, (seed, token) in enumerate(zip(by["seed"], by["token"], strict=True)):
        chosen = [
            (seeds[video], word) == (seed, token) for video, word in zip(table["video_id"], table["token"], strict=True)
        ]
        expected = maps[chosen].mean(axis=0)
        found = store.average(by=["seed", "token"], where="step < 3").maps[row]
        assert np.allclose(found, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda store: store.render("heatmpa"), "heatmpa"),
        (lambda store: store.render("sheet", rows="weiht"), "weiht"),
        (lambda store: store.render("heads", value="tpo5"), "near it: top5"),
        (lambda store: store.render("heatmap", colormap="jet"), "jet"),
        (lambda store: store.render("heatmap", range=(2, 1)), "percentile"),
        (lambda store: store.render("heatmap", nonsense=1), "nonsense"),
        (lambda store: store.overlay("nowhere", video=VIDEO), "no such file"),
        (lambda store: store.film(video=VIDEO, time="never"), "neither 'vae' nor 'even'"),
        (lambda store: store.film(video=VIDEO, alpha="dense"), "alpha"),
    ],
)
def test_what_cannot_be_drawn_is_refused(store, call, message):
    with pytest.raises((ValueError, OSError, TypeError, attnkit.QueryError), match=message):
        call(store)


def test_a_film_that_cannot_be_drawn_leaves_nothing(store, tmp_path):
    with pytest.raises((ValueError, attnkit.AttnkitError)):
        store.film(token="circle").save(tmp_path / "film.gif")
    with pytest.raises(ValueError, match="names no format"):
        store.film(video=VIDEO).save(tmp_path / "film.avi")
    assert not list(tmp_path.iterdir())
