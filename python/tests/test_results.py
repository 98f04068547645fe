"""What questions give: numpy, dataframes, files and pictures of one answer agree."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import attnkit
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest
import xarray
from conftest import write_dump
from PIL import Image
from polars.testing import assert_frame_equal

VIDEO = "prompt_000_vid001"
VIRIDIS_BEGINS, VIRIDIS_ENDS = (68, 1, 84), (253, 231, 37)


@pytest.fixture
def average(store: attnkit.Store) -> attnkit.Result:
    return store.average(over=["block", "head", "video"])


@pytest.fixture
def single(store: attnkit.Store) -> attnkit.Result:
    return store.map(VIDEO, "circle", 9, block=4, head=0)


@pytest.fixture
def mixed(tmp_path: Path) -> attnkit.Store:
    """Three videos, of 2 x 2 x 6, 3 x 4 x 5 and 24 positions of no known grid; the last prompt is hostile."""
    dump = tmp_path / "dump"
    small: dict[str, Any] = {"video_frames": 5, "video_height": 32, "video_width": 96}
    large: dict[str, Any] = {"video_frames": 9, "video_height": 64, "video_width": 80}
    write_dump(dump, 2, (2, 2, 24, 1), video="prompt_000_vid001", **small)
    write_dump(dump, 2, (2, 2, 60, 1), video="prompt_001_vid001", **large)
    write_dump(dump, 2, (2, 2, 24, 1), video="prompt_002_vid001", prompt='<b>a</b> & "b",\n;c')
    attnkit.ingest(dump, tmp_path / "mixed.store")
    return attnkit.open(tmp_path / "mixed.store")


QUESTIONS: dict[str, Callable[[attnkit.Store], attnkit.Result]] = {
    "steps": lambda store: store.steps,
    "heads": lambda store: store.heads,
    "columns": lambda store: store.columns(),
    "sql": lambda store: store.sql("SELECT token, step, avg(gini) AS gini FROM heads GROUP BY 1, 2 ORDER BY 1, 2"),
    "average": lambda store: store.average(),
    "map": lambda store: store.map(VIDEO, "circle", 9),
    "evolution": lambda store: store.evolution(by="block", token="square"),
    "pairs": lambda store: store.compare("token", video=VIDEO),
    "matrix": lambda store: store.compare("token", video=VIDEO, form="matrix"),
    "maps": lambda store: store.compare("token", video=VIDEO, form="maps"),
    "nothing": lambda store: store.list("steps", where="step > 99"),
}


@pytest.fixture
def ask(store: attnkit.Store) -> Callable[[str], attnkit.Result]:
    return lambda question: QUESTIONS[question](store)


# Maps.


def test_maps_are_never_copied(average: attnkit.Result, single: attnkit.Result) -> None:
    for result in (average, single):
        maps = result.to_numpy()
        assert np.shares_memory(maps, result.to_numpy())
        assert all(np.shares_memory(maps, one) for one in result.maps)
        assert maps.dtype == np.float32 and maps.flags.c_contiguous
        np.testing.assert_array_equal(maps.reshape(len(result), 4, 12, 12), np.stack(result.maps))


def test_maps_outlive_their_result(store: attnkit.Store) -> None:
    maps = store.average(over=["block", "head"]).to_numpy()
    again = store.average(over=["block", "head"])
    np.testing.assert_array_equal(maps, again.to_numpy())
    assert not np.shares_memory(maps, again.to_numpy())


def test_tensors_share_the_memory_of_the_maps(average: attnkit.Result) -> None:
    pytest.importorskip("torch")
    tensor = average.to_torch()
    assert tensor.shape == average.to_numpy().shape and tensor.data_ptr() == average.to_numpy().ctypes.data


def test_a_single_map_has_no_axis_of_maps(store: attnkit.Store, single: attnkit.Result) -> None:
    assert single.to_numpy().shape == (4, 12, 12)
    one = store.average(over=["block", "head"], video=VIDEO, token="circle", step=9)
    assert one.to_numpy().shape == (1, 4, 12, 12)
    np.testing.assert_array_equal(one.to_numpy()[0], store.map(VIDEO, "circle", 9).to_numpy())


def test_maps_of_different_grids_are_given_one_by_one(mixed: attnkit.Store) -> None:
    result = mixed.average()
    assert [one.shape for one in result.maps] == [(2, 2, 6)] * 2 + [(3, 4, 5)] * 2 + [(24,)] * 2
    for question in (result.to_numpy, result.to_xarray):
        with pytest.raises(ValueError, match="2 x 2 x 6") as error:
            question()
        assert all(told in str(error.value) for told in ("24", "3 x 4 x 5", "`maps`"))
    chosen = mixed.average(where="frames = 3")
    assert chosen.to_numpy().shape == (2, 3, 4, 5)


def test_maps_of_no_known_grid_are_flat(mixed: attnkit.Store) -> None:
    result = mixed.average(where="frames IS NULL")
    assert result.to_numpy().shape == (2, 24)
    assert np.isnan(result["frames"]).all() and result["shape"].tolist() == ["24", "24"]
    assert np.isnan(result["centroid_x"]).all() and not np.isnan(result["entropy"]).any()


def test_a_table_has_no_maps(ask: Callable[[str], attnkit.Result]) -> None:
    for question in ("steps", "sql", "pairs", "matrix", "evolution"):
        result = ask(question)
        assert not result.has_maps
        with pytest.raises(ValueError, match=result.columns[0]):
            result.maps
        with pytest.raises(ValueError):
            result.png()


def test_a_table_in_numpy_has_a_field_for_each_column(store: attnkit.Store) -> None:
    rows = store.list("heads", sort="entropy", limit=50).to_numpy()
    heads = pl.DataFrame(store.list("heads", sort="entropy", limit=50))
    assert rows.shape == (50,) and list(rows.dtype.names) == heads.columns
    for name in heads.columns:
        np.testing.assert_array_equal(rows[name], heads[name].to_numpy(), err_msg=name)
    assert store.list("steps", where="step > 99").to_numpy().shape == (0,)


# Tables.


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_library_reads_the_same_table(ask: Callable[[str], attnkit.Result], question: str) -> None:
    result = ask(question)
    table = pl.DataFrame(result)
    assert (table.columns, table.height) == (result.columns, len(result))
    assert_frame_equal(result.to_polars(), table)
    assert_frame_equal(pl.DataFrame(result.to_arrow()), table)
    assert_frame_equal(pl.DataFrame(pa.table(result)), table)
    by_duckdb = duckdb.sql("SELECT * FROM result").to_arrow_table()
    assert_frame_equal(pl.DataFrame(by_duckdb).cast(dict(table.schema)), table)
    assert_frame_equal(pl.DataFrame(result.to_arrow().to_pylist(), schema=table.schema), table)
    frame = result.to_pandas()
    # Seeds are decimals to Arrow, and integers to pandas.
    by_arrow = pd.DataFrame.from_arrow(result)
    seeds = dict.fromkeys(name for name in frame if name == "seed")
    assert all(isinstance(seed, Decimal) for name in seeds for seed in by_arrow[name])
    pd.testing.assert_frame_equal(frame, by_arrow.astype(dict.fromkeys(seeds, "int64")))
    assert list(frame.columns) == table.columns
    for name, column in zip(table.columns, table.with_columns(pl.selectors.float().fill_nan(None))):
        if column.dtype.is_numeric() or column.dtype == pl.String:
            assert frame[name].dropna().tolist() == column.drop_nulls().to_list(), name
            assert frame[name].isna().tolist() == column.is_null().to_list(), name


def test_lists_and_times_survive(tmp_path: Path) -> None:
    texts = ["two", " people", "ö<>"]
    write_dump(tmp_path / "dump", 1, (1, 2, 24, 3), token="two people", token_ids=[7, 8, 1 << 40], token_texts=texts)
    attnkit.ingest(tmp_path / "dump", tmp_path / "maps.store")
    steps = attnkit.open(tmp_path / "maps.store").steps
    assert (steps["token_ids"].tolist(), steps["token_texts"].tolist()) == ([[7, 8, 1 << 40]], [texts])
    modified = max(path.stat().st_mtime_ns for path in (tmp_path / "dump").rglob("step*"))
    utc = np.datetime64(modified // 1000, "us").item()
    assert steps["source_modified"].dtype == np.dtype("datetime64[us]")
    assert steps["source_modified"].tolist() == [utc]
    for frame in (pl.DataFrame(steps), pl.DataFrame(pa.table(steps)), pl.DataFrame(steps.to_arrow())):
        assert frame["token_ids"].to_list() == [[7, 8, 1 << 40]] and frame["token_texts"].to_list() == [texts]
        assert frame["source_modified"].dt.replace_time_zone(None).to_list() == [utc]
        assert frame.schema["source_modified"] == pl.Datetime("us", "UTC")
    for frame in (steps.to_pandas(), pd.DataFrame.from_arrow(steps)):
        assert [list(ids) for ids in frame["token_ids"]] == [[7, 8, 1 << 40]]
        assert [list(texts) for texts in frame["token_texts"]] == [texts]
        assert frame["source_modified"].dt.tz_localize(None).tolist() == [pd.Timestamp(utc)]


def test_numbers_are_not_copied_on_the_way_to_arrow(ask: Callable[[str], attnkit.Result]) -> None:
    for question in ("heads", "evolution"):
        result = ask(question)
        tables = [pa.table(result), pa.table(result), result.to_arrow()]
        numbers = pl.DataFrame(result).select(pl.selectors.numeric()).columns
        assert len(numbers) > 10
        for name in numbers:
            columns = [table.column(name).chunks for table in tables]
            addresses = {tuple(chunk.buffers()[1].address for chunk in chunks) for chunks in columns}
            assert len(addresses) == 1, name


def test_text_is_not_copied_for_readers_of_string_views(store: attnkit.Store) -> None:
    heads = store.heads
    one, other = (pa.table(heads).column("video_id").chunks for _ in range(2))
    assert [chunk.buffers()[1].address for chunk in one] == [chunk.buffers()[1].address for chunk in other]
    assert pa.types.is_large_string(heads.to_arrow().schema.field("video_id").type)


def test_arrow_outlives_the_result(store: attnkit.Store) -> None:
    expected = store.heads["entropy"].tolist()
    table = pa.table(store.heads)
    store.average(over=[])
    assert table.column("entropy").to_pylist() == expected


def test_columns_are_arrays_of_their_type(store: attnkit.Store) -> None:
    steps = store.steps
    kinds = {
        "video_id": "O", "token_texts": "O", "template": "O", "seed": "int64", "cfg_scale": "float64", "step": "int32",
        "timestep": "float64", "weight": "float64", "variation": "float64", "source_modified": "datetime64[us]",
    }  # fmt: skip
    assert {name: str(steps[name].dtype).replace("object", "O") for name in kinds} == kinds
    assert np.isnan(steps["weight"]).all() and np.isnan(steps["variation"]).all()
    assert set(steps["template"]) == {None}
    table = pl.DataFrame(steps)
    for name in ("video_id", "seed", "timestep", "source_bytes", "token_ids"):
        assert steps[name].tolist() == table[name].to_list()
    times = table["source_modified"].dt.replace_time_zone(None).to_numpy()
    np.testing.assert_array_equal(steps["source_modified"], times)
    assert store.sql("SELECT top5 > 0.3 AS sharp FROM heads")["sharp"].sum() == (store.heads["top5"] > 0.3).sum()
    with pytest.raises(KeyError, match="entrpy.*video_id"):
        steps["entrpy"]


def test_a_column_is_where_it_was_known_and_nan_elsewhere(mixed: attnkit.Store) -> None:
    assert mixed.steps["frames"].tolist()[:4] == [2.0, 2.0, 3.0, 3.0]
    assert np.isnan(mixed.steps["frames"][4:]).all()


# Files.


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("answer.csv", pl.read_csv),
        ("answer.csv", lambda path: pl.from_pandas(pd.read_csv(path))),
        ("answer.json", lambda path: pl.DataFrame(json.loads(path.read_text()))),
        ("answer.jsonl", pl.read_ndjson),
        ("answer.jsonl", lambda path: pl.DataFrame(duckdb.read_json(str(path)).to_arrow_table())),
        ("answer.parquet", pl.read_parquet),
        ("answer.parquet", lambda path: pl.DataFrame(pyarrow.parquet.read_table(path))),
        ("answer.parquet", lambda path: pl.DataFrame(duckdb.read_parquet(str(path)).to_arrow_table())),
        ("answer.arrow", pl.read_ipc),
        ("answer.arrow", lambda path: pl.DataFrame(pyarrow.ipc.open_file(path).read_all())),
    ],
)
@pytest.mark.parametrize("question", ["heads", "evolution", "average"])
def test_files_hold_the_table(
    ask: Callable[[str], attnkit.Result], tmp_path: Path, question: str, name: str, read: Callable[[Path], pl.DataFrame]
) -> None:
    result = ask(question)
    assert result.write(tmp_path / name) == []
    found = read(tmp_path / name)
    if question == "average" and name.endswith(("parquet", "arrow")):
        maps = np.stack([np.asarray(values, np.float32) for values in found["values"].to_list()])
        np.testing.assert_array_equal(maps, result.to_numpy().reshape(len(result), -1))
        found = found.drop("values")
    # Text has no NaN, and not every reader keeps the order of columns.
    nan_is_null = pl.selectors.float().fill_nan(None)
    expected, found = pl.DataFrame(result).with_columns(nan_is_null), found.with_columns(nan_is_null)
    assert set(found.columns) == set(expected.columns)
    assert_frame_equal(found.select(expected.columns), expected, check_dtypes=False, rel_tol=1e-12)


def test_an_npy_has_its_rows_beside_it(average: attnkit.Result, tmp_path: Path) -> None:
    beside = average.write(tmp_path / "answer.npy")
    assert beside == [tmp_path / "answer.json"]
    np.testing.assert_array_equal(np.load(tmp_path / "answer.npy"), average.to_numpy())
    rows = json.loads(beside[0].read_text())["rows"]
    assert [row["step"] for row in rows] == average["step"].tolist()
    assert [row["token"] for row in rows] == average["token"].tolist()


def test_a_zarr_is_the_labelled_array(average: attnkit.Result, tmp_path: Path) -> None:
    average.write(tmp_path / "answer.zarr")
    opened = xarray.open_zarr(tmp_path / "answer.zarr")["attention"]
    assert_same_labels(opened, average.to_xarray())


def test_a_zarr_of_one_map_has_its_keys_without_a_dimension(store: attnkit.Store, tmp_path: Path) -> None:
    single = store.map(VIDEO, "circle", 9, block=4)
    single.write(tmp_path / "map.zarr")
    assert_same_labels(xarray.open_zarr(tmp_path / "map.zarr")["attention"], single.to_xarray())


def assert_same_labels(found: xarray.DataArray, expected: xarray.DataArray) -> None:
    assert found.dims == expected.dims
    np.testing.assert_array_equal(found.values, expected.values)
    assert set(found.coords) == set(expected.coords)
    for name in expected.coords:
        assert found[name].dims == expected[name].dims
        assert found[name].values.tolist() == expected[name].values.tolist(), name


def test_a_single_map_is_written_without_an_axis_of_maps(single: attnkit.Result, tmp_path: Path) -> None:
    single.write(str(tmp_path / "map.npy"))
    np.testing.assert_array_equal(np.load(tmp_path / "map.npy"), single.to_numpy())
    single.write(tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes() == single.png()


def test_a_format_is_named_where_the_extension_does_not(average: attnkit.Result, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"answer\.xyz.*parquet"):
        average.write(tmp_path / "answer.xyz")
    with pytest.raises(ValueError, match="excel.*parquet"):
        average.write(tmp_path / "answer.xyz", format="excel")
    average.write(tmp_path / "answer.xyz", format="parquet")
    assert pl.read_parquet(tmp_path / "answer.xyz").height == len(average)
    average.write(tmp_path / "answer.txt")
    text = (tmp_path / "answer.txt").read_text()
    assert "entropy_norm" in text and "--" not in text


def test_a_file_that_cannot_be_written_is_an_error_of_the_system(average: attnkit.Result, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "missing/answer.csv")):
        average.write(tmp_path / "missing/answer.csv")


@pytest.mark.parametrize(
    ("name", "question"), [("t.npy", "steps"), ("t.png", "steps"), ("t.png", "average"), ("t.zarr", "sql")]
)
def test_a_format_that_does_not_fit_is_refused(
    ask: Callable[[str], attnkit.Result], tmp_path: Path, name: str, question: str
) -> None:
    with pytest.raises(ValueError):
        ask(question).write(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


# Pictures.


def test_a_word_of_several_pieces_has_their_pictures_below_each_other(tmp_path: Path) -> None:
    write_dump(tmp_path / "dump", 1, (2, 3, 576, 2), video_frames=13, video_height=192, video_width=192)
    attnkit.ingest(tmp_path / "dump", tmp_path / "maps.store")
    result = attnkit.open(tmp_path / "maps.store").map(step=0)
    result.write(tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes() == result.png()
    one = attnkit.open(tmp_path / "maps.store").map(step=0, where="token_index = 1")
    both, alone = (np.asarray(Image.open(io.BytesIO(of.png()))) for of in (result, one))
    assert abs(both.shape[1] - alone.shape[1]) < 40 and both.shape[0] > 1.5 * alone.shape[0]


@pytest.mark.parametrize(
    ("frames", "size"), [(None, None), (1, (8, 20)), (2, (7, 5))], ids=["4x12x12", "1x8x20", "2x7x5"]
)
def test_a_picture_is_brightest_where_the_map_is(
    store: attnkit.Store, frames: int | None, size: tuple[int, int] | None
) -> None:
    result = store.map(VIDEO, "circle", 9, block=4, head=0, frames=frames, size=size, time="even")
    maps = result.to_numpy()
    picture = Image.open(io.BytesIO(result.png()))
    assert (picture.format, picture.mode) == ("PNG", "RGB")
    pixels = np.asarray(picture).astype(int)
    # The first panel begins where its first position's colour does, below the title and the captions.
    count, height, width = maps.shape
    brightest = np.unravel_index(maps.argmax(), maps.shape)
    is_end = np.abs(pixels - VIRIDIS_ENDS).max(axis=-1) <= 1
    panels = panels_of(pixels)
    assert len(panels) == count
    for frame, (top, left, bottom, right) in enumerate(panels):
        rows, columns = (bottom - top) / height, (right - left) / width
        seen = np.array(
            [
                pixels[int(top + (y + 0.5) * rows), int(left + (x + 0.5) * columns)]
                for y in range(height)
                for x in range(width)
            ]
        )
        greens = seen[np.argsort(maps[frame], axis=None), 1]  # grow all along viridis
        assert (np.diff(greens) >= 0).all()
        if frame == brightest[0]:
            y, x = brightest[1:]
            assert is_end[int(top + (y + 0.5) * rows), int(left + (x + 0.5) * columns)]


def panels_of(pixels: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Rectangles of colour that are neither text nor a colour bar: (top, left, bottom, right)."""
    is_gray = np.ptp(pixels, axis=-1) < 8
    columns = np.flatnonzero((~is_gray).sum(axis=0) > 10)
    runs = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    panels = []
    for run in runs:
        rows = np.flatnonzero((~is_gray[:, run[0] : run[-1] + 1]).mean(axis=1) > 0.5)
        if len(run) > 40:
            panels.append((int(rows[0]), int(run[0]), int(rows[-1]) + 1, int(run[-1]) + 1))
    return panels


def test_a_picture_is_of_one_map(average: attnkit.Result) -> None:
    with pytest.raises(ValueError, match=str(len(average))):
        average.png()


def test_a_map_of_no_known_grid_is_one_line(mixed: attnkit.Store) -> None:
    result = mixed.map("prompt_002_vid001", step=0)
    picture = Image.open(io.BytesIO(result.png()))
    assert picture.width > 2 * picture.height


# In notebooks and terminals.


def test_a_notebook_shows_the_picture_of_a_single_map_only(
    single: attnkit.Result, average: attnkit.Result, store: attnkit.Store
) -> None:
    assert single._repr_html_().startswith('<img src="data:image/png;base64,iVBOR')
    for result in (average, store.steps, store.average(video=VIDEO, token="circle", step=9, values=False)):
        assert "<img" not in result._repr_html_()
        assert result._repr_html_().count("<tr>") == min(len(result), 10) + 1
    assert "280 rows" in store.steps._repr_html_()


def test_text_is_escaped_in_notebooks(mixed: attnkit.Store) -> None:
    rows = mixed.list("steps", columns=["prompt", "step"], video="prompt_002_vid001")
    assert "&lt;b&gt;a&lt;/b&gt; &amp; &quot;b&quot;" in rows._repr_html_()
    assert "<b>" not in rows._repr_html_()
    named = mixed.sql('SELECT step AS "<i>", prompt FROM steps')
    assert "&lt;i&gt;" in named._repr_html_() and "<i>" not in named._repr_html_()


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_result_fits_the_terminal(
    ask: Callable[[str], attnkit.Result], monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = repr(ask(question)).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert len(lines) >= 1 + min(len(ask(question)), 10)


def test_a_result_tells_how_much_it_does_not_show(store: attnkit.Store) -> None:
    assert "… 280 rows in all" in repr(store.steps)
    assert "rows in all" not in repr(store.list("steps", limit=10))


def test_notes_say_what_one_should_know(tmp_path: Path) -> None:
    for number, steps in enumerate((3, 2)):
        write_dump(tmp_path / "dump", steps, (2, 2, 24, 1), video=f"prompt_00{number}_vid001")
    attnkit.ingest(tmp_path / "dump", tmp_path / "maps.store")
    result = attnkit.open(tmp_path / "maps.store").compare("video", metric="cosine")
    lonely, grids = result.notes
    assert "align=timestep" in lonely and "grids of 2 videos are not known" in grids
    assert not any("--" in note for note in result.notes)
    assert result.notes[0].split(";")[0] in result._repr_html_()
    assert result.to_xarray().attrs["notes"] == result.notes


@pytest.mark.parametrize("question", sorted(QUESTIONS.keys() - {"sql", "nothing"}))
def test_keys_tell_rows_apart(ask: Callable[[str], attnkit.Result], question: str) -> None:
    result = ask(question)
    assert result.keys and set(result.keys) <= set(result.columns)
    assert not pl.DataFrame(result).select(result.keys).is_duplicated().any()


def test_columns_are_no_keys_unless_all_are_there(store: attnkit.Store) -> None:
    assert store.heads.keys == ["video_id", "token", "step", "token_index", "block", "head"]
    assert store.list("heads", columns=["video_id", "step", "entropy"]).keys == []
    assert store.sql("SELECT * FROM steps").keys == []
