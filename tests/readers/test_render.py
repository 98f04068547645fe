"""Drawings show what the arrays hold, where it is: marks are read back from the pixels that were written, colours are
compared with matplotlib's, resampled planes with scipy's and OpenCV's definitions, films with other decoders."""

import html
import os
import re
import shlex
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import imageio_ffmpeg
import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageSequence
from source_dump import DATASET, write_dump

FRAMES, HEIGHT, WIDTH = 4, 5, 7
# A latent frame, row and column that no flip, transposition or shift leaves where it is.
MARK = (2, 1, 5)
VIDEO = "prompt_000_vid001"
DARK, BRIGHT = (68, 1, 84), (253, 231, 37)
PLAIN = ("--title", "", "--range", "0:1", "--dpi", "96")


def marked(*places, low=0.0, shape=(FRAMES, HEIGHT, WIDTH)):
    values = np.full(shape, low, np.float32)
    for place in places or [MARK]:
        values[place] = 1.0
    return values


@pytest.fixture
def made(attnkit, tmp_path):
    """A store of one video: maps `[block, head, spatial, 1]` by word and step."""

    def make(words):
        dump = tmp_path / "dump"
        write_maps(dump, words)
        store = tmp_path / "store"
        attnkit("ingest", dump, "--store", store)
        return store

    return make


def write_maps(dump, words, prompt="a test"):
    arrays = {}
    for word, steps in words.items():
        for step, maps in steps.items():
            maps = np.asarray(maps, np.float32)
            maps = maps[None, None] if maps.ndim == 3 else maps
            blocks, heads, frames, height, width = maps.shape
            size = {"video_frames": 4 * (frames - 1) + 1, "video_height": 16 * height, "video_width": 16 * width}
            arrays[VIDEO, word, step] = (maps.reshape(blocks, heads, -1, 1), size)
    write_dump(dump, arrays, prompt=prompt, seed=11)


@pytest.fixture
def render(attnkit, tmp_path):
    """The pixels `[row, column, 4]` of a drawing."""

    def draw(kind, store, *options, to="drawing.png"):
        attnkit("render", kind, store, *options, "-o", tmp_path / to)
        return np.asarray(Image.open(tmp_path / to).convert("RGBA"))

    return draw


def boxes_of(pixels, colours=(DARK, BRIGHT)):
    """Rectangles of a map's colours: (top, left, bottom, right), in reading order."""
    is_map = np.zeros(pixels.shape[:2], bool)
    for colour in colours:
        is_map |= np.abs(pixels[..., :3].astype(int) - colour).max(axis=-1) <= 2
    seen, boxes = np.zeros_like(is_map), []
    for top, left in np.argwhere(is_map):
        if seen[top, left]:
            continue
        right = left + int(np.argmin(np.append(is_map[top, left:], False)))
        bottom = top + int(np.argmin(np.append(is_map[top:, left], False)))
        seen[top:bottom, left:right] = True
        if bottom - top > 8 and right - left > 11:  # not a colour bar
            boxes.append((top, left, bottom, right))
    return boxes


def mark_in(pixels, box, colour=BRIGHT, tolerance=2):
    """Where in a panel the mark is, as shares of its height and width: centre, and its extent."""
    top, left, bottom, right = box
    panel = pixels[top:bottom, left:right, :3].astype(int)
    found = np.argwhere(np.abs(panel - colour).max(axis=-1) <= tolerance)
    if not len(found):
        return None
    (y0, x0), (y1, x1) = found.min(axis=0), found.max(axis=0) + 1
    height, width = bottom - top, right - left
    return (y0 + y1) / 2 / height, (x0 + x1) / 2 / width, (y1 - y0) / height, (x1 - x0) / width


def assert_marked(found, y, x, height=HEIGHT, width=WIDTH, tolerance=0.01):
    assert found is not None
    expected = ((y + 0.5) / height, (x + 0.5) / width, 1 / height, 1 / width)
    assert np.allclose(found, expected, atol=tolerance), (found, expected)


# Where things are.


def test_frames_go_right_rows_down_and_columns_right(made, render):
    pixels = render("heatmap", made({"flower": {0: marked()}}), *PLAIN)
    boxes = boxes_of(pixels)
    assert len(boxes) == FRAMES
    marks = [mark_in(pixels, box) for box in boxes]
    assert [mark is not None for mark in marks] == [frame == MARK[0] for frame in range(FRAMES)]
    assert_marked(marks[MARK[0]], *MARK[1:])


@pytest.mark.parametrize("layout", ["auto", "row", "grid"])
def test_many_frames_stay_in_reading_order(made, render, layout):
    values = marked((10, 1, 5), shape=(13, HEIGHT, WIDTH))
    pixels = render("heatmap", made({"flower": {0: values}}), *PLAIN, "--layout", layout)
    boxes = boxes_of(pixels)
    assert len(boxes) == 13
    marks = [mark_in(pixels, box) for box in boxes]
    assert [frame for frame, mark in enumerate(marks) if mark] == [10]
    assert_marked(marks[10], 1, 5, tolerance=0.03)


def test_a_sheet_has_its_maps_where_its_names_say(made, render):
    # Word by step: only one of them has the mark.
    words = {
        word: {step: marked() * (word == "tree" and step == 2) for step in range(3)} for word in ("flower", "tree")
    }
    store = made(words)
    pixels = render("sheet", store, *PLAIN, "--rows", "token", "--cols", "step", "--frame", MARK[0])
    marks = [mark_in(pixels, box) for box in boxes_of(pixels)]
    assert [bool(mark) for mark in marks] == [False, False, False, False, False, True]
    assert_marked(marks[5], *MARK[1:], tolerance=0.02)
    turned = render("sheet", store, *PLAIN, "--rows", "step", "--cols", "token", "--frame", MARK[0])
    assert [bool(mark_in(turned, box)) for box in boxes_of(turned)] == [False] * 5 + [True]
    frames = render("sheet", store, *PLAIN, "--rows", "token", "--cols", "frame", "--step", 2)
    assert [bool(mark_in(frames, box)) for box in boxes_of(frames)] == [False] * 6 + [True, False]


def test_thumbnails_of_heads_are_blocks_down_and_heads_right(made, render):
    maps = np.zeros((3, 2, FRAMES, HEIGHT, WIDTH), np.float32)
    maps[2, 0][MARK] = 1
    pixels = render("heads", made({"flower": {0: maps}}), *PLAIN, "--value", "map", "--frame", MARK[0])
    marks = [mark_in(pixels, box) for box in boxes_of(pixels)]
    assert [bool(mark) for mark in marks] == [False] * 4 + [True, False]
    assert_marked(marks[4], *MARK[1:], tolerance=0.03)


def test_the_matrix_of_heads_has_the_numbers_that_sql_gives(attnkit, dataset_store, tmp_path, ask):
    svg = tmp_path / "heads.svg"
    attnkit("render", "heads", dataset_store, "--token", "circle", "--value", "top5", "-o", svg)
    statement = "SELECT block, head, avg(top5) AS top5 FROM heads WHERE token = 'circle' GROUP BY block, head"
    table = ask("sql", dataset_store, statement).sort_values(["block", "head"])
    assert_written(svg, table["top5"], 2)


def test_a_comparison_shows_each_side_and_their_difference(made, render):
    one, other = marked((0, 0, 1)), marked((0, 3, 6))
    store = made({"flower": {0: one}, "tree": {0: other}})
    pixels = render("compare", store, *PLAIN, "--across", "token", "--a", "flower", "--b", "tree")
    boxes = boxes_of(pixels)
    first, second = [boxes[0], boxes[FRAMES]] if len(boxes) >= 2 * FRAMES else pytest.fail(str(boxes))
    assert_marked(mark_in(pixels, first), 0, 1, tolerance=0.02)
    assert_marked(mark_in(pixels, second), 3, 6, tolerance=0.02)
    # Of the difference, what A has more is red, what B has more is blue.
    top = second[0] + (second[0] - first[0])
    box = (top, first[1], top + first[2] - first[0], first[3])
    assert_marked(mark_in(pixels, box, (180, 4, 38)), 0, 1, tolerance=0.03)
    assert_marked(mark_in(pixels, box, (59, 76, 192)), 3, 6, tolerance=0.03)


def write_frames(place, count, size=(80, 112), colour=(40, 40, 40)):
    place.mkdir()
    for frame in range(count):
        Image.new("RGB", size[::-1], colour).save(place / f"frame_{frame}.png")
    return place


@pytest.mark.parametrize("count", [13, 57, 81])
def test_a_latent_frame_lies_over_the_frames_that_the_vae_makes_of_it(attnkit, made, tmp_path, count):
    latent = (count - 1) // 4 + 1
    marked_frame = 2
    values = np.zeros((latent, HEIGHT, WIDTH), np.float32)
    values[marked_frame, 1, 5] = 1
    store = made({"flower": {0: values}})
    frames = write_frames(tmp_path / "frames", count)
    film = tmp_path / "film.png"
    options = ("--title", "", "--range", "0:1", "--dpi", "96", "--alpha", "1", "--scale", "nearest", "--size", "80x112")
    attnkit("render", "film", store, "--frames-dir", frames, *options, "-o", film)
    shown = [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(Image.open(film))]
    assert len(shown) == count
    has_mark = []
    for pixels in shown:
        (box,) = boxes_of(pixels)
        mark = mark_in(pixels, box)
        has_mark.append(mark is not None)
        if mark:
            assert_marked(mark, 1, 5)
    # Latent frame k >= 1 stands for the frames 4k - 3 to 4k.
    assert [frame for frame, mark in enumerate(has_mark) if mark] == [5, 6, 7, 8]


def test_evenly_placed_frames_are_where_they_are_said_to_be(attnkit, made, tmp_path):
    store = made({"flower": {0: marked((1, 1, 5), shape=(2, HEIGHT, WIDTH))}})
    options = ("--title", "", "--range", "0:1", "--dpi", "96", "--size", "80x112", "--time", "even", "--frames", "6")
    attnkit("render", "film", store, *options, "-o", tmp_path / "film.png")
    shown = [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(Image.open(tmp_path / "film.png"))]
    # Centres of the two halves at 1 and 4 of 0 to 5; in between in proportion.
    expected = np.interp(np.arange(6), [1, 4], [0, 1])
    viridis = (matplotlib.colormaps["viridis"](np.linspace(0, 1, 256))[:, :3] * 255).round()
    found = []
    for pixels in shown:
        box = boxes_of(shown[0])[0]
        top, left, bottom, right = box
        y, x = int(top + 1.5 / HEIGHT * (bottom - top)), int(left + 5.5 / WIDTH * (right - left))
        found.append(np.abs(viridis - pixels[y, x, :3]).max(axis=1).argmin() / 255)
    assert np.allclose(found, expected, atol=0.01), (found, expected)


def test_an_overlay_shows_the_mark_over_its_frame(made, render, tmp_path):
    store = made({"flower": {0: marked()}})
    frames = write_frames(tmp_path / "frames", 13)
    options = (*PLAIN, "--alpha", "1", "--scale", "nearest", "--size", "80x112", "--frame", "0,4,5,8,9")
    pixels = render("overlay", store, "--frames-dir", frames, *options)
    marks = [mark_in(pixels, box) for box in boxes_of(pixels)]
    assert [bool(mark) for mark in marks] == [False, False, True, True, False]
    assert_marked(marks[2], *MARK[1:])


def test_alpha_blends_as_it_says(made, render, tmp_path):
    store = made({"flower": {0: marked(low=0.5)}})
    frames = write_frames(tmp_path / "frames", 13, colour=(10, 200, 90))
    options = (*PLAIN, "--scale", "nearest", "--size", "80x112", "--frame", "5", "--colormap", "gray")
    for alpha, weights in [("0.25", (0.25, 0.25)), ("value:0.8", (0.4, 0.8)), ("value", (0.4, 0.8)), ("1", (1, 1))]:
        pixels = render("overlay", store, "--frames-dir", frames, *options, "--alpha", alpha).astype(int)
        at = {}
        for name, value, weight in (("low", 127.5, weights[0]), ("mark", 255, weights[1])):
            at[name] = np.array([10, 200, 90]) * (1 - weight) + value * weight
            near = np.abs(pixels[..., :3] - at[name]).max(axis=-1) <= 1.6
            assert near.sum() > 100, (alpha, name, at[name])


def test_a_video_is_read_by_ffmpeg_and_a_film_written_by_it(finished, made, tmp_path, monkeypatch):
    monkeypatch.setenv("ATTNKIT_FFMPEG", imageio_ffmpeg.get_ffmpeg_exe())
    store = made({"flower": {0: marked()}})
    frames = write_frames(tmp_path / "frames", 13)
    video = tmp_path / "video.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-framerate", "16", "-i", frames / "frame_%d.png", video]
    subprocess.run(command, check=True)
    options = ("--title", "", "--range", "0:1", "--dpi", "96", "--alpha", "1", "--scale", "nearest", "--size", "80x112")
    for name in ("film.mp4", "film.webm"):
        film = tmp_path / name
        finished("render", "film", store, "--video-file", video, *options, "-o", film)
        reader = imageio_ffmpeg.read_frames(film)
        width, height = next(reader)["source_size"]
        shown = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
        assert len(shown) == 13
        is_bright = [bool((np.abs(frame.astype(int) - BRIGHT).max(axis=-1) < 40).sum() > 40) for frame in shown]
        # The colour bar is bright at its end in all of them.
        bright = [int((np.abs(frame.astype(int) - BRIGHT).max(axis=-1) < 40).sum()) for frame in shown]
        assert all(is_bright[frame] for frame in (5, 6, 7, 8))
        assert min(bright[5:9]) > max(bright[:5] + bright[9:]) + 100


def test_without_ffmpeg_it_is_said_what_to_do(finished, made, tmp_path, monkeypatch):
    monkeypatch.setenv("ATTNKIT_FFMPEG", str(tmp_path / "nowhere"))
    store = made({"flower": {0: marked()}})
    said = finished("render", "film", store, "-o", tmp_path / "film.mp4", code=1).stderr
    assert "not installed" in said and "apt install ffmpeg" in said and ".gif" in said
    assert not (tmp_path / "film.mp4").exists()


# What colours stand for.


@pytest.mark.parametrize("name", ["viridis", "magma", "inferno", "plasma", "cividis", "gray", "coolwarm", "turbo"])
def test_colours_are_those_of_matplotlib(made, render, name):
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 1, 64)
    options = ("--size", "8x64", "--scale", "nearest", "--colormap", name)
    pixels = render("heatmap", made({"flower": {0: values}}), *PLAIN, *options)
    expected = (matplotlib.colormaps[name](values[0, 0])[:, :3] * 255).round()
    rows = pixels[..., :3].astype(int)
    found = [
        (y, x)
        for y in range(rows.shape[0] - 1)
        for x in range(rows.shape[1] - 64)
        if np.abs(rows[y, x : x + 64] - expected).max() <= 3
    ]
    assert found


def test_a_range_is_from_percentile_to_percentile_of_all_that_is_shown(made, attnkit, tmp_path):
    random = np.random.default_rng(3)
    values = random.gamma(0.4, 1e-3, (FRAMES, HEIGHT, WIDTH)).astype(np.float32)
    store = made({"flower": {0: values}})
    for option, (low, high) in {
        "percentile:1:99": np.percentile(values, [1, 99]),
        "percentile:5:80": np.percentile(values, [5, 80]),
        "shown": (values.min(), values.max()),
        "0.001:0.002": (0.001, 0.002),
    }.items():
        path = tmp_path / "map.png"
        options = ("--title", "", "--dpi", "96", "--size", "50x70", "--range", option, "--scale", "nearest")
        attnkit("render", "heatmap", store, *options, "--colormap", "gray", "--frame", "1", "-o", path)
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        of_frame = values[1]
        if option.startswith("percentile"):
            low, high = np.percentile(of_frame, [float(end) for end in option.split(":")[1:]])
        elif option == "shown":
            low, high = of_frame.min(), of_frame.max()
        expected = (np.clip((of_frame - low) / (high - low), 0, 1) * 255).round()
        expected = np.repeat(np.repeat(expected, 10, axis=0), 10, axis=1)
        found = any(
            np.abs(pixels[y : y + 50, x : x + 70, 0] - expected).max() <= 1
            for y in range(pixels.shape[0] - 49)
            for x in range(pixels.shape[1] - 69)
        )
        assert found, option


def test_a_constant_map_and_one_of_nan_say_so(finished, made, tmp_path):
    constant = np.full((2, HEIGHT, WIDTH), 0.25, np.float32)
    nothing = np.full((2, HEIGHT, WIDTH), np.nan, np.float32)
    store = made({"flower": {0: constant}, "tree": {0: nothing}})
    for word, said in (("flower", "constant 0.25"), ("tree", "no finite value")):
        svg = tmp_path / f"{word}.svg"
        finished("render", "heatmap", store, "--token", word, "-o", svg)
        assert said in svg.read_text()


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("sum", lambda maps: maps["flower"] / maps["flower"].sum()),
        ("max", lambda maps: maps["flower"] / maps["flower"].max()),
        ("words", lambda maps: maps["flower"] / (maps["flower"] + maps["tree"])),
    ],
)
def test_maps_are_normalised_as_they_say(made, attnkit, tmp_path, option, expected):
    random = np.random.default_rng(5)
    maps = {word: random.random((1, HEIGHT, WIDTH)).astype(np.float32) for word in ("flower", "tree")}
    store = made({word: {0: values} for word, values in maps.items()})
    path = tmp_path / "map.png"
    options = ("--title", "", "--dpi", "96", "--size", "50x70", "--range", "0:1", "--scale", "nearest")
    attnkit("render", "heatmap", store, *options, "--colormap", "gray", "--normalise", option, "-o", path)
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    wanted = np.repeat(np.repeat((expected(maps)[0] * 255).round(), 10, axis=0), 10, axis=1)
    assert any(
        np.abs(pixels[y : y + 50, x : x + 70, 0] - wanted).max() <= 1
        for y in range(pixels.shape[0] - 49)
        for x in range(pixels.shape[1] - 69)
    )


def test_what_is_below_a_threshold_is_not_shown(made, render):
    values = np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(1, HEIGHT, WIDTH)
    store = made({"flower": {0: values}})
    options = (*PLAIN, "--size", "50x70", "--scale", "nearest", "--colormap", "gray", "--transparent")
    for threshold, least in [("0.5", 0.5), ("p80", np.percentile(values, 80)), ("mean", values.mean())]:
        pixels = render("heatmap", store, *options, "--threshold", threshold)
        shown = np.repeat(np.repeat(values[0] >= np.float32(least), 10, axis=0), 10, axis=1)
        assert any(
            np.array_equal(pixels[y : y + 50, x : x + 70, 3] == 255, shown)
            for y in range(pixels.shape[0] - 49)
            for x in range(pixels.shape[1] - 69)
        ), threshold


def test_a_logarithmic_scale_spreads_small_values(made, render):
    values = np.array([1e-4, 1e-3, 1e-2, 1e-1, 1], np.float32).reshape(1, 1, 5)
    options = ("--title", "", "--dpi", "96", "--size", "20x100", "--scale", "nearest", "--colormap", "gray")
    pixels = render("heatmap", made({"flower": {0: values}}), *options, "--range", "0.0001:1", "--log").astype(int)
    expected = np.repeat((np.linspace(0, 1, 5) * 255).round(), 20)
    assert any(np.abs(row[x : x + 100, 0] - expected).max() <= 1 for row in pixels for x in range(pixels.shape[1] - 99))


# Curves.


def points_of(svg):
    """The vertices of each line of more than two."""
    lines = [line.get("points") for line in ET.parse(svg).iter("{http://www.w3.org/2000/svg}polyline")]
    parsed = [np.array([point.split(",") for point in line.split()], float) for line in lines]
    return [line for line in parsed if len(line) > 3]


def test_curves_are_the_means_over_videos(attnkit, dataset_store, tmp_path, ask):
    svg = tmp_path / "evolution.svg"
    attnkit("render", "evolution", dataset_store, "--token", "circle", "--value", "gini", "-o", svg)
    table = ask("evolution", dataset_store, "--token", "circle")
    expected = table.groupby("step")["gini"].mean()
    (line,) = points_of(svg)
    fit = np.polyfit(line[:, 1], expected, 1)
    assert fit[0] < 0 and np.allclose(np.polyval(fit, line[:, 1]), expected, atol=1e-3 * np.ptp(expected) + 1e-6)
    assert np.allclose(np.diff(line[:, 0]), np.diff(line[:, 0])[0], atol=0.02)
    (band,) = [area.get("points") for area in ET.parse(svg).iter("{http://www.w3.org/2000/svg}polygon")]
    band = np.polyval(fit, np.array([point.split(",") for point in band.split()], float)[:, 1])
    half = 1.96 * table.groupby("step")["gini"].std() / np.sqrt(table.groupby("step")["gini"].count())
    above, below = band[: len(half)], band[len(half) :][::-1]
    assert np.allclose(above, expected + half, atol=2e-3 * np.ptp(expected))
    assert np.allclose(below, expected - half, atol=2e-3 * np.ptp(expected))


@pytest.mark.parametrize("options", [("--range", "0.3:0.5"), ("--log", "--range", "0:1"), ("--log", "--range", "-1:0")])
def test_what_is_beyond_an_axis_is_not_drawn_on_it(attnkit, dataset_store, tmp_path, options):
    svg = tmp_path / "gini.svg"
    attnkit("render", "evolution", dataset_store, "--token", "circle", "--value", "gini", *options, "-o", svg)
    if "--log" in options:
        assert len(points_of(svg)) == 1
    else:
        assert not points_of(svg) and "10 values are beyond the axis" in svg.read_text()


def test_a_bar_points_where_values_are_beyond_it(made, attnkit, tmp_path):
    store, svg = made({"flower": {0: marked(low=0.5)}}), tmp_path / "map.svg"
    ends = {"0:2": 0, "0.6:2": 1, "0.6:0.7": 2}
    for span, count in ends.items():
        attnkit("render", "heatmap", store, "--range", span, "-o", svg)
        assert len(list(ET.parse(svg).iter("{http://www.w3.org/2000/svg}polygon"))) == count


def test_the_profile_of_frames_is_each_frames_share(attnkit, made, tmp_path):
    values = marked() + np.arange(FRAMES, dtype=np.float32)[:, None, None]
    store = made({"flower": {0: values}})
    svg = tmp_path / "frames.svg"
    attnkit("render", "frames", store, "--range", "0:1", "-o", svg)
    share = values.sum(axis=(1, 2)) / values.sum()
    (line,) = points_of(svg)
    fit = np.polyfit(line[:, 1], share, 1)
    assert fit[0] < 0 and np.allclose(np.polyval(fit, line[:, 1]), share, atol=1e-3)


def test_matrices_have_the_numbers_of_the_comparison(attnkit, dataset_store, tmp_path, ask):
    options = ("--across", "seed", "--token", "circle", "--where", "step > 4")
    svg = tmp_path / "matrix.svg"
    attnkit("render", "matrix", dataset_store, *options, "-o", svg)
    table = ask("compare", dataset_store, *options, "--matrix", "--metric", "cosine")
    assert_written(svg, table.iloc[:, 2:].to_numpy().ravel(), 4)


def assert_written(svg, values, most):
    """The numbers are written one after the other, with so many decimal places at the most."""
    texts = [text.text or "" for text in ET.parse(svg).iter("{http://www.w3.org/2000/svg}text")]
    for places in range(1, most + 1):
        expected = [f"{value:.{places}f}" for value in values]
        if any(texts[at : at + len(expected)] == expected for at in range(len(texts))):
            return
    pytest.fail(f"{texts} have not {list(values)}")


# Files.


@pytest.mark.parametrize(
    "kind",
    [
        ("heatmap", "--video", VIDEO),
        ("sheet", "--video", VIDEO),
        ("heads",),
        ("evolution",),
        ("frames",),
        ("matrix", "--across", "prompt", "--token", "circle"),
        ("compare", "--across", "seed", "--token", "circle"),
        ("overlay", "--video", VIDEO, "--frames-dir", DATASET / "frames" / VIDEO),
    ],
)
def test_every_kind_is_written_in_every_format(attnkit, dataset_store, tmp_path, kind):
    sizes = set()
    for extension in ("png", "webp"):
        path = tmp_path / f"drawing.{extension}"
        attnkit("render", *kind, dataset_store, "-o", path)
        with Image.open(path) as picture:
            picture.load()
            sizes.add(picture.size)
    assert len(sizes) == 1
    path = tmp_path / "drawing.svg"
    attnkit("render", *kind, dataset_store, "-o", path)
    root = ET.parse(path).getroot()
    assert root.tag.endswith("svg") and any(text.tag.endswith("text") for text in root.iter())
    width, height = sizes.pop()
    assert abs(float(root.get("width")) * 2 - width) <= 2 and abs(float(root.get("height")) * 2 - height) <= 2


def test_films_of_every_format_have_the_same_pictures(attnkit, dataset_store, tmp_path):
    options = ("--video", VIDEO, "--along", "steps", "--size", "48x48")
    lossless = {}
    for extension in ("png", "webp", "gif"):
        path = tmp_path / f"film.{extension}"
        attnkit("render", "film", dataset_store, *options, "-o", path)
        with Image.open(path) as film:
            lossless[extension] = [
                np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(film)
            ]
    assert len(lossless["png"]) == len(lossless["webp"]) == len(lossless["gif"]) == 10
    for png, webp, gif in zip(*lossless.values(), strict=True):
        assert np.array_equal(png, webp) and np.abs(png - gif).mean() < 6
    place = tmp_path / "pictures"
    attnkit("render", "film", dataset_store, *options, "-o", f"{place}/")
    pictures = sorted(place.iterdir())
    assert len(pictures) == 10 and np.array_equal(
        np.asarray(Image.open(pictures[3]).convert("RGB")), lossless["png"][3]
    )


def test_what_cannot_be_drawn_is_refused_and_leaves_nothing(finished, dataset_store, made, tmp_path):
    said = {
        ("heatmap",): "no file to draw into",
        ("heatmap", "-o", tmp_path / "map.bmp"): "names no format",
        ("heatmap", "-o", tmp_path / "none" / "map.png"): "no such directory",
        ("heatmap", "-o", dataset_store / "map.png"): "is in the store",
        ("heatmap", "--token", "nobody", "-o", tmp_path / "a.png"): "no",
        ("heatmap", "--frame", "9", "--video", VIDEO, "-o", tmp_path / "a.png"): "there is no latent frame 9",
        ("overlay", "-o", tmp_path / "a.png"): "no frames of the video are named",
        ("evolution", "--normalise", "words", "-o", tmp_path / "a.png"): "`normalise` says nothing of lines",
        ("heads", "--threshold", "0.1", "-o", tmp_path / "a.png"): "`threshold` says nothing of a statistic",
        ("film", "--video", VIDEO, "--range", "frame", "-o", tmp_path / "a.gif"): "from its first picture to its last",
        ("overlay", "--frames-dir", tmp_path, "--video", VIDEO, "-o", tmp_path / "a.png"): "no frame in it",
        ("overlay", "--frames-dir", DATASET / "frames" / VIDEO, "-o", tmp_path / "a.png"): "maps of several",
        ("heads", "--value", "tpo5", "-o", tmp_path / "a.png"): "near it: top5",
        ("evolution", "--value", "ginni", "-o", tmp_path / "a.png"): "did you mean `gini`",
        ("sheet", "--rows", "step", "--cols", "step", "-o", tmp_path / "a.png"): "both by step",
        ("matrix", "--across", "wieght", "-o", tmp_path / "a.png"): "weight",
        ("compare", "--across", "prompt", "-o", tmp_path / "a.png"): "of two sides",
        ("heatmap", "--range", "3:1", "-o", tmp_path / "a.png"): "is none of",
        ("heatmap", "--colormap", "jet", "-o", tmp_path / "a.png"): "is none of viridis",
        ("film", "--video", VIDEO, "--fps", "0", "-o", tmp_path / "a.gif"): "no number from 0.01 to 1000",
        ("film", "--video", VIDEO, "-o", tmp_path / "a.avi"): "names no format for films",
    }
    for arguments, expected in said.items():
        kind, *options = arguments
        ended = finished("render", kind, dataset_store, *options, code=None)
        assert ended.returncode in (1, 2) and expected in ended.stderr, (arguments, ended.stderr)
        assert not list(tmp_path.glob("a.*"))


def test_frames_that_no_decoder_makes_are_refused(finished, made, tmp_path):
    store = made({"flower": {0: marked()}})
    frames = write_frames(tmp_path / "frames", 14)
    said = finished("render", "film", store, "--frames-dir", frames, "-o", tmp_path / "a.gif", code=2).stderr
    assert "14 frames" in said and "--time even" in said
    finished("render", "film", store, "--frames-dir", frames, "--time", "even", "-o", tmp_path / "a.gif")


def test_a_view_shows_the_marks_colours(attnkit, made, monkeypatch):
    store = made({"flower": {0: marked()}})
    monkeypatch.setenv("COLORTERM", "truecolor")
    shown = attnkit("view", store, "--graphics", "blocks", "--range", "0:1")
    colours = {tuple(map(int, found)) for found in re.findall(r"[34]8;2;(\d+);(\d+);(\d+)", shown)}
    assert any(np.abs(np.array(colour) - DARK).max() <= 8 for colour in colours)
    assert any(np.abs(np.array(colour) - BRIGHT).max() <= 30 for colour in colours)


# Reports.


@pytest.fixture(scope="module")
def page(attnkit, dataset_store, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    attnkit("report", dataset_store, "-o", path)
    return path


def test_a_report_is_one_file_without_network(page):
    text = page.read_text()
    assert len(text) < 10_000_000
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    assert "Content-Security-Policy" in text and "default-src 'none'" in text
    for title in ("What is in the store", "Words", "Mean maps", "Heads", "Across prompts and seeds", "Videos"):
        assert f">{title}</h2>" in text or title in text


def test_each_figure_of_a_report_is_made_by_its_command(page, attnkit, tmp_path):
    commands = [
        html.unescape(found)
        for found in re.findall(r"<pre[^>]*><code>(attnkit .*?)</code></pre>", page.read_text(), re.DOTALL)
    ]
    assert len(commands) > 8
    for number, command in enumerate(commands):
        words = shlex.split(command)[1:]
        if words[0] == "render":
            at = words.index("-o")
            words[at + 1] = str(tmp_path / f"{number}{os.path.splitext(words[at + 1])[1]}")
            attnkit(*words)
            assert os.path.getsize(words[at + 1]) > 500
        else:
            assert attnkit(*words)


def test_a_report_of_hostile_names_runs_nothing(attnkit, tmp_path):
    store, page = tmp_path / "store", tmp_path / "page.html"
    write_maps(tmp_path / "dump", {"flower": {0: marked()}}, prompt="</script><img src=x onerror=alert(1)>")
    attnkit("ingest", tmp_path / "dump", "--store", store)
    attnkit("report", store, "-o", page)
    assert "<img src=x" not in page.read_text()


# Golden pictures, and every option.

GOLDEN = Path(__file__).parent / "golden"
KINDS = {
    "heatmap": ("heatmap", "--video", VIDEO, "--token", "circle", "--block", "4", "--head", "0"),
    "overlay": ("overlay", "--video", VIDEO, "--block", "4", "--head", "0", "--frames-dir", DATASET / "frames" / VIDEO),
    "sheet": ("sheet", "--video", VIDEO, "--rows", "token", "--cols", "step", "--range", "row"),
    "thumbnails": ("heads", "--video", VIDEO, "--token", "circle", "--value", "map"),
    "heads": ("heads", "--token", "circle"),
    "evolution": ("evolution", "--value", "top5"),
    "frames": ("frames", "--token", "circle", "--each", "--where", "seed = 11"),
    "matrix": ("matrix", "--across", "prompt", "--token", "circle", "--where", "seed = 11", "--cluster"),
    "compare": ("compare", "--across", "seed", "--token", "circle"),
    "dark": ("evolution", "--value", "gini", "--dark"),
}


@pytest.mark.parametrize("name", KINDS)
def test_drawings_look_as_they_did(attnkit, dataset_store, tmp_path, name):
    """`GOLDEN=write` writes them anew: look at them before they are committed."""
    kind, *options = KINDS[name]
    path = tmp_path / f"{name}.png"
    attnkit("render", kind, dataset_store, *options, "--dpi", "72", "-o", path)
    golden = GOLDEN / path.name
    if os.environ.get("GOLDEN") == "write":
        golden.write_bytes(path.read_bytes())
    with Image.open(golden) as before, Image.open(path) as now:
        assert before.size == now.size
        difference = np.abs(np.asarray(before.convert("RGB")).astype(int) - np.asarray(now.convert("RGB")))
    # Edges of letters may be drawn otherwise on another machine; what is elsewhere may not.
    assert difference.mean() < 1 and (difference.max(axis=-1) > 60).mean() < 0.002


@pytest.fixture(scope="module")
def plain(attnkit, dataset_store, tmp_path_factory):
    """A drawing of one head with options: its pixels."""
    place = tmp_path_factory.mktemp("options")

    def draw(*options):
        path = place / "map.png"
        attnkit("render", *KINDS["heatmap"][:1], dataset_store, *KINDS["heatmap"][1:], *options, "-o", path)
        return np.asarray(Image.open(path).convert("RGBA")).astype(int)

    return draw


def test_look_options_do_what_they_say(plain):
    usual = plain()
    assert np.array_equal(
        plain("--dpi", "192", "--font-size", "9", "--scale", "nearest", "--colormap", "viridis"), usual
    )
    half = plain("--dpi", "96")
    assert np.allclose(np.array(half.shape[:2]) * 2, usual.shape[:2], atol=4)
    assert usual[0, 0].tolist() == [255] * 4 and plain("--dark")[0, 0, :3].max() < 40
    assert plain("--transparent")[0, 0, 3] == 0 and usual[..., 3].min() == 255
    assert plain("--font-size", "14").shape[0] > usual.shape[0]
    assert plain("--title", "").shape[0] < usual.shape[0]
    titled = plain("--title", "another title")
    assert titled.shape == usual.shape and not np.array_equal(titled, usual)
    sized = plain("--size", "60x90", "--title", "")
    assert (boxes := boxes_of(sized, [tuple(sized[30, 20, :3])])) is not None and sized.shape[1] > 4 * 90 + len(boxes)
    for option in (
        ("--scale", "bicubic"),
        ("--scale", "lanczos"),
        ("--scale", "bilinear"),
        ("--log",),
        ("--range", "frame"),
    ):
        assert not np.array_equal(plain(*option), usual)


@pytest.mark.parametrize(
    ("scale", "filter"),
    [("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC), ("lanczos", Image.LANCZOS), ("nearest", Image.NEAREST)],
)
def test_planes_are_resampled_as_pillow_does(made, render, scale, filter):
    values = np.random.default_rng(9).random((1, HEIGHT, WIDTH)).astype(np.float32)
    options = ("--size", "60x77", "--scale", scale, "--colormap", "gray", "--range", "-0.5:1.5")
    pixels = render("heatmap", made({"flower": {0: values}}), "--title", "", "--dpi", "96", *options).astype(int)
    resized = np.asarray(Image.fromarray(values[0]).resize((77, 60), filter))
    expected = (np.clip((resized + 0.5) / 2, 0, 1) * 255).round()
    assert any(
        np.abs(pixels[y : y + 60, x : x + 77, 0] - expected).max() <= 2
        for y in range(pixels.shape[0] - 59)
        for x in range(pixels.shape[1] - 76)
    )


def test_weights_are_drawn_where_they_are(attnkit, tmp_path, ask):
    store, svg = tmp_path / "store", tmp_path / "weights.svg"
    attnkit("ingest", DATASET, "--store", store, "--prompts", DATASET / "templates.txt")
    options = ("--token", "circle", "--where", "prompt = 'a red circle above a blue square'")
    attnkit("render", "weights", store, *options, "-o", svg)
    table = ask("compare", store, "--across", "weight", *options, "--align", "mean", "--metric", "mass_ratio")
    table = table.sort_values("a")
    (line,) = points_of(svg)
    assert len(line) == len(table) == 4
    for drawn, name in ((line[:, 0], "a"), (line[:, 1], "value")):
        expected = table[name].to_numpy()
        fit = np.polyfit(drawn, expected, 1)
        assert np.allclose(np.polyval(fit, drawn), expected, atol=2e-3 * np.ptp(expected))


# What would lie.


def test_a_sheet_goes_through_numbers_in_their_order(made, attnkit, tmp_path):
    store, svg = made({"a": {0: marked(), 4: marked()}, "b": {10: marked(), 2: marked()}}), tmp_path / "sheet.svg"
    attnkit("render", "sheet", store, "-o", svg)
    texts = [text.text for text in ET.parse(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert [text for text in texts if text.startswith("step ")] == ["step 0", "step 2", "step 4", "step 10"]


def test_sides_are_found_by_their_very_names(made, attnkit, tmp_path):
    store, svg = (
        made({"7": {0: marked()}, "007": {0: marked((0, 0, 0))}, "08": {0: marked((1, 1, 1))}}),
        tmp_path / "a.svg",
    )
    attnkit("render", "compare", store, "--across", "token", "--a", "7", "--b", "08", "-o", svg)
    assert "A: 7<" in svg.read_text() and "B: 08<" in svg.read_text()


def test_maps_of_other_grids_are_not_divided_by_each_other(made, attnkit, render):
    one, other = np.full((1, 2, 3), 0.25, np.float32), np.full((1, 4, 4), 0.5, np.float32)
    store = made({"a": {0: one}, "b": {0: other}})
    # Each is alone on its grid: all of the share is its own.
    pixels = render("heatmap", store, *PLAIN, "--by", "token", "--normalise", "words")
    assert len(boxes_of(pixels, [BRIGHT])) >= 2


def test_a_film_does_not_write_over_pictures(finished, made, tmp_path):
    store = made({"flower": {0: marked()}})
    frames = tmp_path / "frames"
    frames.mkdir()
    for frame in range(13):
        Image.new("RGB", (112, 80), (40, frame, 40)).save(frames / f"frame_{frame:04}.png")
    before = {path.name: path.read_bytes() for path in frames.iterdir()}
    said = finished("render", "film", store, "--frames-dir", frames, "-o", f"{frames}/", code=2).stderr
    assert "has pictures" in said and before == {path.name: path.read_bytes() for path in frames.iterdir()}


@pytest.mark.parametrize("along", ["frames", "steps"])
def test_frames_of_another_video_are_refused(finished, made, tmp_path, along):
    store = made({"flower": {0: marked(), 1: marked()}})
    frames = write_frames(tmp_path / "frames", 14)
    options = ("--step", "0") if along == "frames" else ()
    command = ("render", "film", store, "--frames-dir", frames, "--along", along, *options, "-o", tmp_path / "a.gif")
    assert "14 frames" in finished(*command, code=2).stderr
    odd = write_frames(tmp_path / "odd", 13)
    Image.new("RGB", (50, 90)).save(odd / "frame_7.png")
    command = ("render", "film", store, "--frames-dir", odd, "--step", "0", "-o", tmp_path / "a.gif")
    assert "frame 7 is of 50 x 90 pixels" in finished(*command, code=1).stderr
    assert not (tmp_path / "a.gif").exists()


def test_colours_are_about_0_only_where_the_range_is(made, render):
    values = np.linspace(-1, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(1, HEIGHT, WIDTH)
    store = made({"flower": {0: values}})
    options = ("--title", "", "--dpi", "96", "--size", "50x70")
    about = render("heatmap", store, *options, "--range", "-1:1").astype(int)
    beside = render("heatmap", store, *options, "--range", "-1:3").astype(int)
    red = (180, 4, 38)
    assert (np.abs(about[..., :3] - red).max(axis=-1) <= 3).any()
    assert not (np.abs(beside[..., :3] - red).max(axis=-1) <= 3).any()


def test_a_report_goes_on_where_a_frame_is_broken(finished, made, tmp_path):
    store = made({"flower": {0: marked()}})
    place = tmp_path / "frames" / VIDEO
    place.parent.mkdir()
    write_frames(place, 13)
    (place / "frame_6.png").write_bytes(b"no picture")
    said = finished("report", store, "--frames-dir", place.parent, "-o", tmp_path / "page.html", code=3).stderr
    assert "1 figure could not be drawn" in said and "frame_6.png" in (tmp_path / "page.html").read_text()
