"""Ingest and questions, against numpy in float64 on the files of the dump."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attnkit
import numpy as np
import pandas as pd
import polars as pl
import pytest
import zarr
from conftest import interrupt, write_dump
from scipy import stats
from scipy.spatial import distance

VIDEO = "prompt_000_vid001"
GRID = (4, 12, 12)
KEYS = {"video": "video_id", "token": "token", "step": "step", "block": "block", "head": "head"}
#: A video whose 24 positions are 2 x 2 x 6.
SIZE = {"video_frames": 5, "video_height": 32, "video_width": 96}


class Dump:
    """Every map of the bundled dump: `table` has its keys, `values` `[map, spatial]` in float64."""

    def __init__(self, root: Path) -> None:
        rows, values = [], []
        for path in sorted(root.glob("*/token_*/step_*.npy")):
            document = json.loads(path.with_name(f"{path.stem}_metadata.json").read_text())
            array = np.load(path).astype(np.float64)
            for block, head in np.ndindex(array.shape[:2]):
                keys = {"video_id": document["video_id"], "token": document["token_word"], "step": document["step"]}
                told = {name: document[name] for name in ("prompt", "seed", "timestep")}
                rows.append({**keys, "block": block, "head": head, **told})
                values.append(array[block, head, :, 0])
        self.table = pd.DataFrame(rows)
        self.values = np.stack(values)

    def groups(self, keys: list[str], chosen: np.ndarray | None = None) -> list[tuple[tuple[Any, ...], np.ndarray]]:
        """(key, maps of it) of the chosen maps, in the order of the keys."""
        table = self.table if chosen is None else self.table[chosen]
        if not keys:
            return [((), self.values[table.index])]
        return [(key, self.values[rows.index]) for key, rows in table.groupby(keys, sort=True)]


@pytest.fixture(scope="module")
def dump(fixtures: Path) -> Dump:
    return Dump(fixtures / "dataset/attention_maps")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A dump of four steps `[2, 3, 24, 1]`."""
    write_dump(tmp_path / "tiny", 4, (2, 3, 24, 1), **SIZE)
    return tmp_path / "tiny"


def numpy_of(root: Path, video: str = VIDEO, token: str = "flower") -> np.ndarray:
    """What the files of a word hold: `[step, block, head, spatial, token]`."""
    return np.stack([np.load(path) for path in sorted((root / video / f"token_{token}").glob("step_*.npy"))])


def zarr_of(store: attnkit.Store, row: int = 0) -> np.ndarray:
    """The array of a word, as zarr-python reads it."""
    return np.asarray(zarr.open_array(Path(store.path) / store.steps["array"][row], mode="r")[:])


def keys_of(result: attnkit.Result, names: list[str] | None = None) -> list[tuple[Any, ...]]:
    """The key of each row, without the position of the word."""
    columns = [result[name].tolist() for name in names or result.keys if name != "token_index"]
    return [tuple(column[row] for column in columns) for row in range(len(result))]


def mass(maps: np.ndarray) -> np.ndarray:
    return maps / maps.sum(axis=-1, keepdims=True)


def js(a: np.ndarray, b: np.ndarray) -> float:
    return float(distance.jensenshannon(a, b) ** 2)


# Ingest.


def test_the_report_counts_what_was_ingested(fixtures: Path, tmp_path: Path) -> None:
    report = attnkit.ingest(fixtures / "dataset", tmp_path / "maps.store")
    files = list((fixtures / "dataset").rglob("step_*.npy"))
    assert (report.ingested, report.skipped, report.quarantined, report.warnings) == (len(files), 0, [], [])
    assert report.bytes_in == sum(path.stat().st_size for path in files)
    assert 0 < report.bytes_out <= sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert report.seconds > 0
    assert repr(report).startswith("<attnkit.IngestReport: 280 steps ingested, 0 already there, 0 left out")


def test_prompts_fill_templates_and_weights(fixtures: Path, tmp_path: Path) -> None:
    report = attnkit.ingest(fixtures / "dataset", tmp_path / "a.store", prompts=fixtures / "dataset/templates.txt")
    assert report.prompts == {"matched": 16, "unmatched": 0}
    steps = pd.read_parquet(tmp_path / "a.store/index/steps/prompt_006_vid001.parquet")
    circle = steps[steps.token == "circle"].iloc[0]
    assert (circle.weight, circle.variation) == (1.5, 0)
    assert circle.template == "a red [(circle:1.5)|(circle:0.5)] above a blue (square)"
    with pytest.raises(FileNotFoundError, match=r"missing\.txt"):
        attnkit.ingest(fixtures / "dataset", tmp_path / "a.store", prompts=tmp_path / "missing.txt")
    with pytest.raises(ValueError, match=r"not a tokenizer\.json"):
        attnkit.ingest(fixtures / "dataset", tmp_path / "a.store", tokenizer=fixtures / "dataset/templates.txt")


def test_a_second_ingest_skips_what_is_there(tiny: Path, tmp_path: Path) -> None:
    store = tmp_path / "maps.store"
    assert attnkit.ingest(str(tiny), str(store)).ingested == 4
    again = attnkit.ingest(tiny, store)
    assert (again.ingested, again.skipped, again.bytes_in) == (0, 4, 0)


def test_new_steps_join_those_that_are_there(tiny: Path, tmp_path: Path) -> None:
    store = tmp_path / "maps.store"
    last = sorted((tiny / VIDEO / "token_flower").glob("step_003*"))
    hidden = [path.rename(tmp_path / path.name) for path in last]
    attnkit.ingest(tiny, store)
    for path, place in zip(hidden, last):
        path.rename(place)
    report = attnkit.ingest(tiny, store)
    assert (report.ingested, report.skipped) == (1, 3)
    np.testing.assert_array_equal(zarr_of(attnkit.open(store)), numpy_of(tiny))


@pytest.mark.parametrize("codec", ["fast", "balanced", "small", "none"])
def test_every_codec_keeps_every_bit(tiny: Path, tmp_path: Path, codec: Any) -> None:
    attnkit.ingest(tiny, tmp_path / "maps.store", codec=codec)
    stored = zarr_of(attnkit.open(tmp_path / "maps.store"))
    np.testing.assert_array_equal(stored.view(np.uint16), numpy_of(tiny).view(np.uint16))
    documents = [path.read_text() for path in tmp_path.rglob("attention/zarr.json")]
    assert ["blosc" in document for document in documents] == [codec != "none"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"dtype": "float32"}, lambda maps: maps.astype(np.float32)),
        ({"every": 2}, lambda maps: maps[::2]),
        ({"average": ["heads"]}, lambda maps: maps.mean(axis=2, keepdims=True, dtype=np.float64).astype(np.float16)),
        (
            {"average": ["blocks", "heads"], "dtype": "float32"},
            lambda maps: maps.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(np.float32),
        ),
        (
            {"downsample": 2, "dtype": "float64"},
            lambda maps: maps.astype(float).reshape(4, 2, 3, 2, 1, 2, 3, 2).mean(axis=(5, 7)).reshape(4, 2, 3, 6, 1),
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_what_is_stored_is_what_the_options_ask_for(
    tiny: Path, tmp_path: Path, options: dict[str, Any], expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    attnkit.ingest(tiny, tmp_path / "maps.store", **options)
    stored = zarr_of(attnkit.open(tmp_path / "maps.store"))
    wanted = expected(numpy_of(tiny))
    assert stored.shape == wanted.shape
    np.testing.assert_array_equal(stored, wanted.astype(stored.dtype))


@pytest.mark.parametrize(
    ("options", "videos", "tokens"),
    [
        ({"tokens": ["c*", "triangle"]}, 14, ["circle", "triangle"]),
        ({"videos": ["prompt_003_*", "*_000_vid001"]}, 3, ["circle", "square"]),
        ({"videos": ["prompt_003_vid002"], "tokens": ["square"]}, 1, ["square"]),
    ],
)
def test_globs_choose_videos_and_words(
    fixtures: Path, tmp_path: Path, options: dict[str, Any], videos: int, tokens: list[str]
) -> None:
    attnkit.ingest(fixtures / "dataset", tmp_path / "maps.store", **options)
    info = attnkit.open(tmp_path / "maps.store").info()
    assert (len(info.videos), info.tokens) == (videos, tokens)


def test_a_grid_can_be_named_where_metadata_is_silent(tmp_path: Path) -> None:
    values = write_dump(tmp_path / "dump", 1, (2, 3, 24, 1))
    attnkit.ingest(tmp_path / "dump", tmp_path / "flat.store")
    attnkit.ingest(tmp_path / "dump", tmp_path / "maps.store", grid=(2, 3, 4))
    assert attnkit.open(tmp_path / "flat.store").map().to_numpy().shape == (24,)
    named = attnkit.open(tmp_path / "maps.store").map(block=1, head=2).to_numpy()
    np.testing.assert_array_equal(named, values[0, 1, 2, :, 0].reshape(2, 3, 4).astype(np.float32))


def test_settings_of_the_generator_apply_unless_arguments_say_otherwise(tiny: Path, tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("attention_analysis_settings:\n  storage_interval: 3\n  storage_dtype: float32\n")
    attnkit.ingest(tiny, tmp_path / "a.store", settings=settings)
    attnkit.ingest(tiny, tmp_path / "b.store", settings=settings, every=2)
    a, b = (attnkit.open(tmp_path / name).steps for name in ("a.store", "b.store"))
    assert (a["step"].tolist(), b["step"].tolist()) == ([0, 3], [0, 2])
    assert {*a["dtype"], *b["dtype"]} == {"float32"}


def test_several_dumps_make_one_store(tmp_path: Path) -> None:
    dumps = [tmp_path / name for name in ("one", "two")]
    for number, root in enumerate(dumps):
        write_dump(root, 2, (2, 3, 24, 1), video=f"prompt_000_vid00{number}")
    report = attnkit.ingest(iter(dumps), tmp_path / "maps.store")
    assert report.ingested == 4
    store = attnkit.open(tmp_path / "maps.store")
    assert [video["video_id"] for video in store.info().videos] == ["prompt_000_vid000", "prompt_000_vid001"]


def test_runs_of_the_same_name_are_kept_apart_by_a_prefix_or_replaced(tiny: Path, tmp_path: Path) -> None:
    other, store = tmp_path / "other", tmp_path / "maps.store"
    values = write_dump(other, 2, (2, 3, 24, 1), **SIZE) * np.float16(0.5)
    for step in range(2):
        np.save(other / VIDEO / f"token_flower/step_{step:03d}.npy", values[step])
    attnkit.ingest(tiny, store)
    attnkit.ingest(other, store, prefix="second")
    opened = attnkit.open(store)
    assert [video["video_id"] for video in opened.info().videos] == [VIDEO, f"second/{VIDEO}"]
    assert attnkit.ingest(other, store, replace=True).ingested == 2
    for video in (VIDEO, f"second/{VIDEO}"):
        stored = opened.xarray(video, "flower").attention.values
        np.testing.assert_array_equal(stored.reshape(values.shape), values)


def test_an_element_of_a_batch_is_chosen_or_averaged(tmp_path: Path) -> None:
    write_dump(tmp_path / "dump", 1, (2, 3, 24, 1))
    path = tmp_path / "dump" / VIDEO / "token_flower/step_000.npy"
    batch = np.random.default_rng(0).random((2, 2, 3, 24, 1)).astype(np.float32)  # [block, batch, head, spatial, token]
    np.save(path, batch)
    expected = {0: batch[:, 0], 1: batch[:, 1], "mean": batch.mean(axis=1, dtype=np.float64).astype(np.float32)}
    for choice, values in expected.items():
        attnkit.ingest(tmp_path / "dump", tmp_path / f"{choice}.store", batch=choice)
        np.testing.assert_array_equal(zarr_of(attnkit.open(tmp_path / f"{choice}.store"))[0], values)


def test_a_damaged_file_is_reported_and_the_others_are_used(tiny: Path, tmp_path: Path) -> None:
    damaged = tiny / VIDEO / "token_flower/step_002.npy"
    damaged.write_bytes(damaged.read_bytes()[:100])
    report = attnkit.ingest(tiny, tmp_path / "maps.store", on_error="quarantine")
    assert report.ingested == 3
    assert [Path(one["path"]) for one in report.quarantined] == [damaged]
    assert report.quarantined[0]["error"]
    assert attnkit.open(tmp_path / "maps.store").steps["step"].tolist() == [0, 1, 3]
    with pytest.raises(attnkit.DumpError, match=str(damaged)):
        attnkit.ingest(tiny, tmp_path / "strict.store", on_error="raise")


def test_a_report_speaks_of_arguments_not_of_options(tiny: Path, tmp_path: Path) -> None:
    path = tiny / VIDEO / "token_flower/step_001.npy"
    np.save(path, np.ones((2, 2, 3, 24, 1), np.float16))  # a batch of two
    report = attnkit.ingest(tiny, tmp_path / "maps.store", grid=(5, 5, 5))
    said = [remark["message"] for remark in report.warnings] + [one["error"] for one in report.quarantined]
    assert any("grid" in text for text in said) and any("batch" in text for text in said)
    assert not any("--" in text for text in said), said


@pytest.mark.parametrize(
    "options",
    [
        {"codec": "zip"},
        {"average": ["steps"]},
        {"dtype": "int8"},
        {"batch": "first"},
        {"batch": -1},
        {"on_error": "ignore"},
        {"every": 0},
        {"every": -1},
        {"downsample": 0},
        {"threads": -1},
        {"grid": (2, 12)},
        {"tokens": ["[circle"]},
        {"videos": ["nothing_like_this"]},
    ],
    ids=str,
)
def test_a_wrong_option_is_named(tiny: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="circle" if "tokens" in options else next(iter(options))):
        attnkit.ingest(tiny, tmp_path / "maps.store", **options)


# Progress.


def long_work(name: str, root: Path, store: attnkit.Store, **options: Any) -> None:
    """One of the calls that tell their progress."""
    if name == "ingest":
        attnkit.ingest(root / "dataset", Path(store.path).parent / f"{os.urandom(4).hex()}.store", **options)
    elif name == "average":
        store.average(rollups=False, **options)
    elif name == "map":
        store.map(VIDEO, "circle", 3, **options)
    elif name == "evolution":
        store.evolution(by="head", **options)
    else:
        store.compare("token", **options)


LONG_WORK = ["ingest", "average", "map", "evolution", "compare"]


@pytest.fixture
def own(store: attnkit.Store, tmp_path: Path) -> attnkit.Store:
    """A copy of the store, to be harmed."""
    return attnkit.open(shutil.copytree(store.path, tmp_path / "own.store"))


@pytest.mark.parametrize("work", LONG_WORK)
def test_progress_grows_until_all_is_done(fixtures: Path, own: attnkit.Store, work: str) -> None:
    told: list[tuple[int, int]] = []
    long_work(work, fixtures, own, progress=lambda *both, told=told: told.append(both))
    assert told == sorted(told)
    done, all = told[-1]
    assert done == all > 0


@pytest.mark.parametrize("kept", [0, 100, 300], ids="{} bytes left".format)
def test_progress_counts_files_that_are_left_out_or_there_already(tiny: Path, tmp_path: Path, kept: int) -> None:
    damaged = tiny / VIDEO / "token_flower/step_002.npy"
    damaged.write_bytes(damaged.read_bytes()[:kept])
    for _ in range(2):
        told: list[tuple[int, int]] = []
        attnkit.ingest(tiny, tmp_path / "maps.store", progress=lambda done, all: told.append((done, all)))
        assert told[-1][0] == told[-1][1] > 0


@pytest.mark.parametrize("work", LONG_WORK)
def test_what_a_progress_function_raises_stops_the_work(fixtures: Path, own: attnkit.Store, work: str) -> None:
    def stop(done: int, all: int) -> None:
        raise RuntimeError("seen enough")

    with pytest.raises(RuntimeError, match="seen enough"):
        long_work(work, fixtures, own, progress=stop)


def test_progress_is_shown_by_tqdm(own: attnkit.Store, capsys: pytest.CaptureFixture[str]) -> None:
    from tqdm import tqdm

    for progress in (True, tqdm):
        own.average(rollups=False, progress=progress)
        shown = capsys.readouterr().err
        assert "average" in shown and "100%" in shown and "7.74M/7.74M" in shown


# What is in a store.


def test_info_counts_what_is_there(store: attnkit.Store, fixtures: Path) -> None:
    root = fixtures / "dataset/attention_maps"
    info = store.info()
    files = list(root.rglob("step_*.npy"))
    assert info.steps == len(files)
    assert info.tokens == ["circle", "square", "triangle"]
    assert [video["video_id"] for video in info.videos] == sorted(path.name for path in root.iterdir())
    assert info.bytes["raw"] == sum(np.load(path).nbytes for path in files)
    for video in info.videos:
        words = {path.name.removeprefix("token_") for path in (root / video["video_id"]).glob("token_*")}
        assert {word["token"] for word in video["tokens"]} == words
        document = json.loads(next((root / video["video_id"]).rglob("*_metadata.json")).read_text())
        assert (video["prompt"], video["seed"]) == (document["prompt"], document["seed"])
        for word in video["tokens"]:
            assert (word["steps"], word["shape"], word["dtype"]) == (list(range(10)), [6, 4, 576, 1], "float16")
            assert word["grid"] == {"frames": 4, "height": 12, "width": 12}


def test_info_is_a_dictionary_a_line_and_a_table(store: attnkit.Store) -> None:
    info = store.info()
    contents = info.to_dict()
    assert json.loads(json.dumps(contents)) == contents
    assert (contents["videos"], contents["steps"], contents["bytes"]) == (info.videos, info.steps, info.bytes)
    assert contents["path"] == info.path == store.path
    for text in (repr(info), repr(store)):
        assert "16 videos, 3 words, 280 steps, 7,741,440 bytes" in text and store.path in text
        assert "circle, square, triangle" in text and "\n" not in text
    html = store._repr_html_()
    assert html == info._repr_html_()
    words, more = 28, re.search(r"and (\d+) more", html)
    assert html.count("<tr>") == 1 + words - (int(more[1]) if more else 0)
    assert "<td>a red circle above a blue square</td>" in html and "<td>4 x 12 x 12</td>" in html


def test_prompts_are_escaped_in_notebooks(tmp_path: Path) -> None:
    write_dump(tmp_path / "dump", 1, (2, 3, 24, 1), prompt="<b>bold</b> & <script>")
    attnkit.ingest(tmp_path / "dump", tmp_path / "maps.store")
    html = attnkit.open(tmp_path / "maps.store")._repr_html_()
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; &lt;script&gt;" in html and "<script>" not in html


def test_a_store_travels_between_processes(store: attnkit.Store) -> None:
    copy = pickle.loads(pickle.dumps(store))
    assert copy.path == store.path
    assert len(copy.steps) == len(store.steps) == 280


def test_a_store_of_a_relative_path_is_found_from_another_directory(
    store: attnkit.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(store.path).parent)
    sent = pickle.dumps(attnkit.open(Path(store.path).name))
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(sent).info().steps == 280


# Tables.


def test_the_steps_table_says_what_the_metadata_says(store: attnkit.Store, fixtures: Path) -> None:
    paths = sorted((fixtures / "dataset/attention_maps").rglob("step_*_metadata.json"))
    documents = [json.loads(path.read_text()) for path in paths]
    steps = pl.DataFrame(store.steps).sort("video_id", "token", "step")
    assert steps.height == len(documents)
    told = ["video_id", "prompt", "seed", "cfg_scale", "token_ids", "token_texts", "step", "timestep", "total_steps"]
    for name in (*told, "aggregation_method", "num_blocks", "num_heads", "video_width", "video_height", "video_frames"):
        assert steps[name].to_list() == [document[name] for document in documents], name
    assert steps["source"].to_list() == [str(path).replace("_metadata.json", ".npy") for path in paths]
    assert steps["weight"].is_null().all() and steps["template"].is_null().all()


def test_the_heads_table_has_the_statistics_of_every_map(store: attnkit.Store, dump: Dump) -> None:
    heads = pl.DataFrame(store.heads).sort("video_id", "token", "step", "block", "head")
    assert heads.select(KEYS.values()).to_dict(as_series=False) == dump.table[list(KEYS.values())].to_dict("list")
    values, size = dump.values, dump.values.shape[1]
    ordered = np.sort(values, axis=1)
    weight = 2 * np.arange(1, size + 1) - size - 1
    share = mass(values)
    places = np.indices(GRID).reshape(3, size)
    centre = share @ places.T
    away = ((places[1:, None] - centre.T[1:, :, None]) ** 2).sum(axis=0)
    expected = {
        "sum": values.sum(axis=1),
        "std": values.std(axis=1),
        "max": values.max(axis=1),
        "entropy": stats.entropy(values, axis=1),
        "entropy_norm": stats.entropy(values, axis=1) / np.log(size),
        "gini": (ordered * weight).sum(axis=1) / (size * values.sum(axis=1)),
        "top1": ordered[:, -6:].sum(axis=1) / values.sum(axis=1),
        "top5": ordered[:, -29:].sum(axis=1) / values.sum(axis=1),
        "centroid_frame": centre[:, 0],
        "centroid_x": centre[:, 2],
        "spread": np.sqrt((share * away).sum(axis=1)),
    }
    for name, statistic in expected.items():
        np.testing.assert_allclose(heads[name], statistic, rtol=1e-9, err_msg=name)
    peak = np.ravel_multi_index([heads[f"argmax_{axis}"] for axis in ("frame", "y", "x")], GRID)
    np.testing.assert_array_equal(peak, values.argmax(axis=1))


@pytest.mark.parametrize("table", ["steps", "heads"])
def test_rows_are_chosen_sorted_and_cut(store: attnkit.Store, table: Any) -> None:
    asked: dict[str, Any] = {"where": "seed = 22 AND token <> 'circle'", "sort": ["token:desc", "step"]}
    rows = store.list(table, **asked, columns=["token", "step"])
    assert rows.columns == ["token", "step"]
    whole = pl.DataFrame(store.list(table, columns=["video_id", "seed", "token", "step"]))
    expected = whole.filter((pl.col("seed") == 22) & (pl.col("token") != "circle"))
    expected = expected.sort("token", "step", descending=[True, False], maintain_order=True).select("token", "step")
    assert pl.DataFrame(rows).equals(expected) and expected.height > 0
    cut = store.list(table, **asked, limit=7)
    assert pl.DataFrame(cut).select("token", "step").equals(expected.head(7))


@pytest.mark.parametrize(("sort", "descending"), [("top5", False), ("top5:desc", True)])
def test_maps_are_ranked_by_a_statistic(store: attnkit.Store, sort: str, descending: bool) -> None:
    ranked = store.list("heads", sort=sort, limit=25)["top5"]
    expected = pl.DataFrame(store.heads)["top5"].sort(descending=descending)
    np.testing.assert_array_equal(ranked, expected[:25])


@pytest.mark.parametrize(
    ("asked", "where"),
    [
        ({"video": VIDEO}, f"video_id = '{VIDEO}'"),
        ({"token": "square", "step": 4}, "token = 'square' AND step = 4"),
        ({"block": 2, "head": 3}, "block = 2 AND head = 3"),
        ({"token": "circle", "where": "step < 3 OR step > 8"}, "token = 'circle' AND (step < 3 OR step > 8)"),
    ],
    ids=str,
)
def test_arguments_are_short_for_conditions(store: attnkit.Store, asked: dict[str, Any], where: str) -> None:
    short, long = pl.DataFrame(store.list("heads", **asked)), pl.DataFrame(store.list("heads", where=where))
    assert short.equals(long) and 0 < short.height < 6720


def test_names_with_quotes_are_text_not_sql(tmp_path: Path) -> None:
    write_dump(tmp_path / "dump", 1, (2, 3, 24, 1), token='it\'s -- a "word"')
    attnkit.ingest(tmp_path / "dump", tmp_path / "maps.store")
    store = attnkit.open(tmp_path / "maps.store")
    assert len(store.list("heads", token='it\'s -- a "word"')) == 6
    with pytest.raises(attnkit.NothingSelectedError):
        store.average(token="x' OR '1' = '1")


def test_sql_answers_as_duckdb_does(store: attnkit.Store) -> None:
    import duckdb

    statement = "SELECT token, block, count(*) AS n, max(top5) AS top5 FROM heads WHERE step = 9 GROUP BY token, block"
    heads = store.heads  # noqa: F841, read by DuckDB
    expected = sorted(duckdb.sql(statement).fetchall())
    assert sorted(pl.DataFrame(store.sql(statement)).rows()) == expected


def test_columns_lists_those_of_both_tables(store: attnkit.Store) -> None:
    listed = pl.DataFrame(store.columns())
    for table, result in (("steps", store.steps), ("heads", store.heads)):
        assert listed.filter(pl.col("table") == table)["column"].to_list() == result.columns


# Averages.


@pytest.mark.parametrize("rollups", [False, True], ids=["arrays", "rollups"])
@pytest.mark.parametrize(
    "over", [list(over) for size in range(6) for over in itertools.combinations(KEYS, size)], ids="-".join
)
def test_means_over_any_dimensions_are_those_of_float64(
    store: attnkit.Store, dump: Dump, over: list[Any], rollups: bool
) -> None:
    result = store.average(over=over, where="seed = 11", rollups=rollups)
    chosen = (dump.table["seed"] == 11).to_numpy()
    groups = dump.groups([column for name, column in KEYS.items() if name not in over], chosen)
    assert keys_of(result) == [key for key, _ in groups]
    assert result["n"].tolist() == [len(maps) for _, maps in groups]
    expected = np.stack([maps.mean(axis=0) for _, maps in groups]).astype(np.float32)
    maps = result.to_numpy()
    assert maps.shape == (len(groups), *GRID)
    np.testing.assert_array_max_ulp(maps.reshape(len(groups), -1), expected, maxulp=1)


@pytest.mark.parametrize("rollups", [False, True], ids=["arrays", "rollups"])
@pytest.mark.parametrize(
    "over", [["token_index"], ["token_index", "block"], ["block", "head"], ["token_index", "step"]], ids="-".join
)
def test_positions_of_a_word_are_kept_apart_or_averaged(tmp_path: Path, over: list[Any], rollups: bool) -> None:
    values = write_dump(tmp_path / "dump", 3, (2, 3, 24, 2)).astype(np.float64)  # [step, block, head, spatial, token]
    attnkit.ingest(tmp_path / "dump", tmp_path / "maps.store")
    result = attnkit.open(tmp_path / "maps.store").average(over=over, rollups=rollups)
    axes = {"token_index": 0, "step": 1, "block": 2, "head": 3}
    expected = np.moveaxis(values, -1, 0).mean(axis=tuple(axes[name] for name in over)).reshape(-1, 24)
    assert ("token_index" in result.keys) == ("token_index" not in over)
    np.testing.assert_array_max_ulp(result.to_numpy(), expected.astype(np.float32), maxulp=1)


@pytest.mark.parametrize(
    ("reducer", "of", "tolerance"),
    [
        ("sum", np.sum, 1e-7),
        ("max", np.max, 0),
        ("min", np.min, 0),
        ("std", np.std, 1e-6),
        ("median", np.median, 1e-7),
    ],
)
@pytest.mark.parametrize("over", [["block", "head"], ["step", "video"]], ids="-".join)
def test_reducers_are_those_of_numpy(
    store: attnkit.Store, dump: Dump, reducer: Any, of: Callable[..., np.ndarray], tolerance: float, over: list[Any]
) -> None:
    result = store.average(over=over, reducer=reducer, where="token = 'circle'")
    keys = [column for name, column in KEYS.items() if name not in over]
    groups = dump.groups(keys, (dump.table["token"] == "circle").to_numpy())
    assert keys_of(result) == [key for key, _ in groups]
    expected = np.stack([of(maps, axis=0) for _, maps in groups])
    np.testing.assert_allclose(result.to_numpy().reshape(len(groups), -1), expected, rtol=tolerance)


@pytest.mark.parametrize(
    "where",
    [
        "top5 > 0.3",
        "entropy_norm < 0.9 AND token <> 'square'",
        "gini BETWEEN 0.3 AND 0.35 OR argmax_frame = 2",
        "spread < 3",
    ],
)
@pytest.mark.parametrize("over", [["block", "head"], ["block", "head", "step", "video"]], ids="-".join)
def test_a_condition_on_statistics_selects_single_maps(
    store: attnkit.Store, dump: Dump, where: str, over: list[Any]
) -> None:
    heads = pl.DataFrame(store.heads).sort("video_id", "token", "step", "block", "head")
    chosen = heads.select(pl.sql_expr(where)).to_series().to_numpy()
    assert 0 < chosen.sum() < len(chosen)
    groups = dump.groups([column for name, column in KEYS.items() if name not in over], chosen)
    result = store.average(over=over, where=where)
    assert keys_of(result) == [key for key, _ in groups]
    assert result["n"].tolist() == [len(maps) for _, maps in groups]
    expected = np.stack([maps.mean(axis=0) for _, maps in groups]).astype(np.float32)
    np.testing.assert_array_max_ulp(result.to_numpy().reshape(len(groups), -1), expected, maxulp=1)


def test_conditions_on_steps_and_maps_go_together(store: attnkit.Store, dump: Dump) -> None:
    where = "prompt LIKE '%triangle%' AND seed = 11 AND timestep > 500 AND block IN (1, 4)"
    result = store.average(over=["block", "head", "step", "video"], where=where, head=2)
    table = dump.table
    chosen = table["prompt"].str.contains("triangle") & (table["seed"] == 11) & (table["timestep"] > 500)
    chosen &= table["block"].isin([1, 4]) & (table["head"] == 2)
    groups = dump.groups(["token"], chosen.to_numpy())
    assert result["token"].tolist() == [key for (key,), _ in groups] == ["circle", "triangle"]
    expected = np.stack([maps.mean(axis=0) for _, maps in groups]).astype(np.float32)
    np.testing.assert_array_max_ulp(result.to_numpy().reshape(2, -1), expected, maxulp=1)


def test_statistics_without_maps_are_those_of_the_maps(store: attnkit.Store) -> None:
    whole = store.average(over=["block", "step"], token="triangle")
    table = store.average(over=["block", "step"], token="triangle", values=False)
    assert whole.has_maps and not table.has_maps
    assert pl.DataFrame(table).equals(pl.DataFrame(whole))
    maps = whole.to_numpy().reshape(len(whole), -1).astype(np.float64)
    np.testing.assert_allclose(table["mean"], maps.mean(axis=1), rtol=1e-9)
    np.testing.assert_allclose(table["entropy"], stats.entropy(maps, axis=1), rtol=1e-9)


def test_maps_follow_their_rows_when_sorted_and_cut(store: attnkit.Store) -> None:
    whole = store.average(over=["step", "head"])
    order = np.argsort(-whole["top5"], kind="stable")[:9]
    best = store.average(over=["step", "head"], sort="top5:desc", limit=9)
    assert pl.DataFrame(best).equals(pl.DataFrame(whole)[order])
    np.testing.assert_array_equal(best.to_numpy(), whole.to_numpy()[order])
    np.testing.assert_array_equal(np.stack(best.maps), whole.to_numpy()[order])


@pytest.mark.parametrize("over", ["head", ["head"], ("head",)], ids=repr)
def test_one_dimension_needs_no_list(store: attnkit.Store, over: Any) -> None:
    assert store.average(over, token="circle", step=0).keys == ["video_id", "token", "token_index", "step", "block"]


def test_nan_propagates_unless_it_is_left_out(tmp_path: Path) -> None:
    write_dump(tmp_path / "dump", 1, (2, 3, 24, 1))
    path = tmp_path / "dump" / VIDEO / "token_flower/step_000.npy"
    values = np.load(path)
    values[0, 1, 5], values[1, 2, 7] = np.nan, np.inf
    np.save(path, values)
    attnkit.ingest(tmp_path / "dump", tmp_path / "maps.store")
    store = attnkit.open(tmp_path / "maps.store")
    exact = values.astype(np.float64)
    with np.errstate(invalid="ignore"):
        plain = exact.mean(axis=(0, 1)).ravel().astype(np.float32)
    np.testing.assert_array_equal(store.average().to_numpy()[0], plain)
    assert store.average()["nonfinite"].tolist() == [2]
    finite = np.nanmean(np.where(np.isfinite(exact), exact, np.nan), axis=(0, 1)).ravel()
    np.testing.assert_array_max_ulp(store.average(skipna=True).to_numpy()[0], finite.astype(np.float32), maxulp=1)
    assert store.average(skipna=True)["nonfinite"].tolist() == [0]


# One map.


@pytest.mark.parametrize("place", [{}, {"block": 4}, {"head": 1}, {"block": 4, "head": 0}], ids=str)
@pytest.mark.parametrize("reducer", ["mean", "max"])
def test_a_map_is_of_the_blocks_and_heads_asked_for(
    store: attnkit.Store, dump: Dump, place: dict[str, int], reducer: Any
) -> None:
    table = dump.table
    chosen = (table["video_id"] == VIDEO) & (table["token"] == "circle") & (table["step"] == 7)
    for name, number in place.items():
        chosen &= table[name] == number
    maps = dump.values[chosen]
    found = store.map(VIDEO, "circle", 7, **place, reducer=reducer)
    assert found["n"].tolist() == [len(maps)]
    expected = maps.mean(axis=0) if reducer == "mean" else maps.max(axis=0)
    assert found.to_numpy().shape == GRID
    np.testing.assert_array_max_ulp(found.to_numpy().ravel(), expected.astype(np.float32), maxulp=1)


def linearly(values: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Resampled as torch's interpolate does with align_corners=False."""
    old = values.shape[axis]
    places = (np.arange(size) + 0.5) * old / size - 0.5
    return np.apply_along_axis(lambda line: np.interp(places, np.arange(old), line), axis, values)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"size": (192, 192), "frames": 13}, (13, 192, 192)),
        ({"size": (30, 7)}, (4, 30, 7)),
        ({"frames": 2}, (2, 12, 12)),
    ],
    ids=str,
)
def test_a_map_is_resampled_to_the_size_of_the_video(
    store: attnkit.Store, options: dict[str, Any], shape: tuple[int, int, int]
) -> None:
    latent = store.map(VIDEO, "square", 2, block=3).to_numpy().astype(np.float64)
    resampled = store.map(VIDEO, "square", 2, block=3, time="even", **options)
    expected = linearly(linearly(linearly(latent, 0, shape[0]), 1, shape[1]), 2, shape[2])
    assert resampled.to_numpy().shape == shape
    assert [resampled[name].tolist() for name in ("frames", "height", "width")] == [[size] for size in shape]
    np.testing.assert_allclose(resampled.to_numpy(), expected, rtol=2e-7)


def test_frames_are_placed_as_the_vae_decodes_them(store: attnkit.Store) -> None:
    latent = store.map(VIDEO, "square", 2, block=3).to_numpy()
    frames = [0, *np.repeat([1, 2, 3], 4)]
    assert np.array_equal(store.map(VIDEO, "square", 2, block=3, frames=13).to_numpy(), latent[frames])
    with pytest.raises(ValueError, match="12 frames"):
        store.map(VIDEO, "square", 2, block=3, frames=12)


@pytest.mark.parametrize("options", [{"size": (0, 12)}, {"size": (12, 0)}, {"size": (-1, 12)}, {"frames": 0}], ids=str)
def test_no_map_is_of_no_pixels(store: attnkit.Store, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="circle" if "tokens" in options else next(iter(options))):
        store.map(VIDEO, "circle", 0, **options)


# Evolution.


@pytest.mark.parametrize("by", [None, "head", "block"])
def test_an_evolution_tells_how_each_series_changes(store: attnkit.Store, dump: Dump, by: Any) -> None:
    result = store.evolution(by=by, token="triangle", rollups=False)
    keys = ["video_id", "token", *([by] if by else []), "step"]
    groups = dump.groups(keys, (dump.table["token"] == "triangle").to_numpy())
    assert keys_of(result) == [key for key, _ in groups]
    table = result.to_pandas()
    maps = np.stack([maps.mean(axis=0) for _, maps in groups]).reshape(-1, 10, 576)  # [series, step, spatial]
    for series, rows in enumerate(table.groupby(keys[:-1]).indices.values()):
        part = table.iloc[rows].reset_index(drop=True)
        now, before, last = maps[series], maps[series][:-1], maps[series][-1]
        np.testing.assert_allclose(part["mean"], now.mean(axis=1), rtol=1e-6)
        np.testing.assert_allclose(part["entropy"], stats.entropy(now, axis=1), rtol=1e-6)
        np.testing.assert_allclose(part["cosine_last"], [1 - distance.cosine(a, last) for a in now], rtol=1e-6)
        np.testing.assert_allclose(part["js_last"], [js(a, last) for a in now], rtol=1e-3, atol=1e-12)
        changes = [js(a, b) for a, b in zip(now[1:], before)]
        np.testing.assert_allclose(part["js_previous"][1:], changes, rtol=1e-3)
        centres = mass(now) @ np.indices(GRID).reshape(3, -1)[1:].T
        shifts = np.linalg.norm(np.diff(centres, axis=0), axis=1)
        np.testing.assert_allclose(part["centroid_shift_previous"][1:], shifts, rtol=1e-3, atol=1e-6)
        assert part.filter(like="_previous").iloc[0].isna().all()
    assert not np.isnan(result["cosine_last"]).any()


def test_an_evolution_has_the_times_of_the_scheduler(store: attnkit.Store, dump: Dump) -> None:
    result = store.evolution(video=VIDEO, where="step >= 4", token="circle")
    times = dump.table.drop_duplicates("step").set_index("step")["timestep"]
    assert result["step"].tolist() == list(range(4, 10))
    np.testing.assert_array_equal(result["timestep"], times.loc[4:])


# Comparisons.


def sides(dump: Dump, across: str, chosen: Any, by: list[str]) -> dict[Any, dict[Any, np.ndarray]]:
    """Mean map of each side, by step."""
    found: dict[Any, dict[Any, np.ndarray]] = {}
    for key, maps in dump.groups([across, *by], chosen.to_numpy()):
        found.setdefault(key[0], {})[key[1:]] = maps.mean(axis=0).astype(np.float32).astype(np.float64)
    return found


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "cosine": lambda a, b: 1 - distance.cosine(a, b),
    "pearson": lambda a, b: stats.pearsonr(a, b).statistic,
    "spearman": lambda a, b: stats.spearmanr(a, b).statistic,
    "js": js,
    "kl": lambda a, b: float(stats.entropy(a, b)),
    "iou@0.8": lambda a, b: float(
        np.sum((a > np.quantile(a, 0.8)) & (b > np.quantile(b, 0.8)))
        / np.sum((a > np.quantile(a, 0.8)) | (b > np.quantile(b, 0.8)))
    ),
    "topk@0.1": lambda a, b: len({*np.argsort(-a, kind="stable")[:58]} & {*np.argsort(-b, kind="stable")[:58]}) / 58,
    "l2": lambda a, b: float(np.linalg.norm(a - b)),
    "mass_ratio": lambda a, b: float(a.sum() / b.sum()),
}


def test_pairs_are_measured_as_scipy_does(store: attnkit.Store, dump: Dump) -> None:
    result = store.compare("token", video=VIDEO, metric=list(METRICS), rollups=False, block=4)
    assert result.columns == ["a", "b", "step", "metric", "value", "n"]
    of = sides(dump, "token", (dump.table["video_id"] == VIDEO) & (dump.table["block"] == 4), ["step"])
    expected = {
        ("circle", "square", step, name): metric(of["circle"][(step,)], of["square"][(step,)])
        for name, metric in METRICS.items()
        for step in range(10)
    }
    found = dict(zip(keys_of(result, ["a", "b", "step", "metric"]), result["value"]))
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, rel=1e-6)
    assert set(result["n"]) == {8}


def test_one_metric_needs_no_list(store: attnkit.Store) -> None:
    one = store.compare("seed", token="circle", metric="l2", align="mean")
    assert (one["a"].tolist(), one["b"].tolist(), one["metric"].tolist()) == ([11], [22], ["l2"])


def test_a_matrix_has_the_mean_of_every_pair_over_the_steps(store: attnkit.Store, dump: Dump) -> None:
    result = store.compare("block", token="circle", metric=["cosine", "kl"], form="matrix", rollups=False)
    of = sides(dump, "block", dump.table["token"] == "circle", ["step"])
    assert (result.columns, result.keys) == (["metric", "a", *"012345"], ["metric", "a"])
    for row, (name, a) in enumerate(itertools.product(["cosine", "kl"], range(6))):
        for b in range(6):
            value = np.mean([METRICS[name](of[a][step], of[b][step]) for step in of[a]])
            assert result[str(b)][row] == pytest.approx(value, rel=1e-5, abs=1e-9)


def test_difference_maps_are_a_minus_b(store: attnkit.Store, dump: Dump) -> None:
    result = store.compare("token", video=VIDEO, form="maps", rollups=False)
    assert result.keys == ["a", "b", "step"]
    of = sides(dump, "token", dump.table["video_id"] == VIDEO, ["step"])
    expected = np.stack([of["circle"][(step,)] - of["square"][(step,)] for step in range(10)])
    assert result.to_numpy().shape == (10, *GRID)
    np.testing.assert_allclose(result.to_numpy().reshape(10, -1), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("against", ["prompt_003_vid001", "prompt_000_vid002"])
def test_all_are_compared_with_the_one_named(store: attnkit.Store, against: str) -> None:
    result = store.compare("video", token="square", against=against, align="last", metric="cosine")
    assert set(result["b"]) == {against}
    others = set(store.list("steps", token="square")["video_id"]) - {against}
    assert sorted(result["a"]) == sorted(others)


@pytest.mark.parametrize("against", [11, 11.0, "11"], ids=repr)
def test_a_side_is_named_as_number_or_text(store: attnkit.Store, against: Any) -> None:
    result = store.compare("seed", token="circle", against=against, align="last", metric="cosine")
    assert (result["a"].tolist(), result["b"].tolist()) == ([22], [11])


@pytest.mark.parametrize(
    ("align", "pairs"), [("step", [(0, 0), (1, 1)]), ("timestep", [(0, 0), (3, 1)]), ("last", [(4, 1)])]
)
def test_runs_of_different_lengths_are_aligned(tmp_path: Path, align: Any, pairs: list[tuple[int, int]]) -> None:
    dumped = {}
    for video, steps, stride in (("prompt_000_vid001", 5, 1), ("prompt_001_vid001", 2, 3)):
        values = write_dump(tmp_path / "dump", steps, (2, 3, 24, 1), video=video)
        dumped[video] = values.mean(axis=(1, 2), dtype=np.float64)
        for path in (tmp_path / "dump" / video).rglob("*_metadata.json"):
            document = json.loads(path.read_text())
            path.write_text(json.dumps({**document, "timestep": 999.0 - stride * document["step"]}))
    attnkit.ingest(tmp_path / "dump", tmp_path / "maps.store")
    result = attnkit.open(tmp_path / "maps.store").compare("video", metric="l2", align=align, rollups=False)
    a, b = (maps[:, :, 0].astype(np.float32) for maps in dumped.values())
    expected = [float(np.linalg.norm(a[i].astype(np.float64) - b[j])) for i, j in pairs]
    np.testing.assert_allclose(result["value"], expected, rtol=1e-5)


def test_weights_make_a_curve(tmp_path: Path) -> None:
    for number, weight in enumerate([0.5, 1.0, 2.0]):
        video = f"prompt_00{number}_vid001"
        values = write_dump(tmp_path / "dump", 1, (2, 3, 24, 1), video=video, token=f"flower:{weight}")
        path = tmp_path / "dump" / video / f"token_flower:{weight}/step_000.npy"
        np.save(path, (values[0].astype(np.float32) * weight))
    attnkit.ingest(tmp_path / "dump", tmp_path / "maps.store")
    result = attnkit.open(tmp_path / "maps.store").compare("weight", metric="mass_ratio")
    assert result["a"].tolist() == [0.5, 1.0, 2.0] and set(result["b"]) == {1.0}
    np.testing.assert_allclose(result["value"], [0.5, 1.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(result["slope"], 1.0, rtol=1e-6)
    assert set(result["trend"]) == {"rising"}


# Long work.

STEPS = 16
INGEST = "attnkit.ingest(dump, store, codec='small', progress=tell)"
MEDIAN = "attnkit.open(store).average(over=['block', 'head', 'step', 'video'], reducer='median', progress=tell)"
INTERRUPTED = f"""
import sys, attnkit
dump, store, work = sys.argv[1:]
def tell(done, all):
    print(done, all, flush=True)
try:
    {INGEST} if work == "ingest" else {MEDIAN}
    print("ended")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.fixture(scope="module")
def long_dump(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Four videos of four steps `[30, 12, 23850, 1]`, 275 MB to read: all steps are links to one file."""
    root = tmp_path_factory.mktemp("long") / "dump"
    write_dump(root, 1, (30, 12, 23850, 1))
    first = root / VIDEO / "token_flower"
    document = json.loads((first / "step_000_metadata.json").read_text())
    for video, step in itertools.product(range(4), range(STEPS // 4)):
        directory = root / f"video_{video}" / "token_flower"
        directory.mkdir(parents=True, exist_ok=True)
        os.link(first / "step_000.npy", directory / f"step_{step:03d}.npy")
        text = json.dumps({**document, "video_id": f"video_{video}", "step": step})
        (directory / f"step_{step:03d}_metadata.json").write_text(text)
    shutil.rmtree(root / VIDEO)
    yield root
    shutil.rmtree(root.parent)


@pytest.fixture(scope="module")
def interrupted(long_dump: Path) -> tuple[Path, str, int]:
    """A store whose ingest was interrupted, what the ingest said, and the steps it had committed."""
    store = long_dump.parent / "long.store"
    said = interrupt(INTERRUPTED, long_dump, store, "ingest")
    return store, said, len(attnkit.open(store).steps)


@pytest.fixture(scope="module")
def long_store(long_dump: Path, interrupted: tuple[Path, str, int]) -> Path:
    attnkit.ingest(long_dump, interrupted[0])
    return interrupted[0]


def test_an_interrupted_ingest_goes_on_to_the_end(long_dump: Path, interrupted: tuple[Path, str, int]) -> None:
    path, said, kept = interrupted
    assert said.splitlines()[-1] == "interrupted"
    assert kept < STEPS, "it ended before it was stopped"
    report = attnkit.ingest(long_dump, path)
    assert (report.ingested, report.skipped) == (STEPS - kept, kept)
    stored = attnkit.open(path).xarray("video_3", "flower").attention
    assert stored.shape[0] == STEPS // 4
    np.testing.assert_array_equal(stored[-1].values, np.load(long_dump / "video_3/token_flower/step_003.npy"))


def test_a_question_stops_at_ctrl_c(long_dump: Path, long_store: Path) -> None:
    said = interrupt(INTERRUPTED, long_dump, long_store, "average").splitlines()
    assert said[-1] == "interrupted"
    done, all = map(int, said[-2].split())
    assert done < all


def test_many_threads_ask_at_once(store: attnkit.Store) -> None:
    def ask(head: int) -> np.ndarray:
        return store.average(over=["block", "step"], head=head % 4, rollups=False).to_numpy()

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, range(16)))
    for head, answer in enumerate(answers):
        np.testing.assert_array_equal(answer, ask(head))


@pytest.mark.parametrize("work", ["ingest", "average"])
def test_other_threads_run_meanwhile(long_dump: Path, long_store: Path, tmp_path: Path, work: str) -> None:
    ticks: list[float] = []
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(0.002):
            ticks.append(time.perf_counter())

    other = threading.Thread(target=tick)
    other.start()
    start = time.perf_counter()
    try:
        if work == "ingest":
            attnkit.ingest(long_dump, tmp_path / "other.store", videos=["video_0", "video_1"])
        else:
            attnkit.open(long_store).average(over=["block", "head", "step"], reducer="median", video="video_0")
        stop = time.perf_counter()
    finally:
        ended.set()
        other.join()
        shutil.rmtree(tmp_path / "other.store", ignore_errors=True)
    tenth = (stop - start) / 10
    # With the lock held there would be some before and after the work, and none meanwhile.
    assert sum(any(start + n * tenth <= at < start + (n + 1) * tenth for at in ticks) for n in range(1, 9)) >= 4
