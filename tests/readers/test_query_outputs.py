"""Answers open in everyone's readers, say the same in every format, and agree with SQL on the tables."""

import io
import json
import warnings

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorstore
import xarray
import zarr
from asking import GRID, values_of
from source_dump import VARIANTS, write_dump

VARIANT = {path.name: path for path in VARIANTS}
# Of (circle, square) x (0, 4, 9), as many rows as combinations; of the dataset, words that not every video has.
PRODUCT = ("--where", "step IN (0, 4, 9)", "--video", "prompt_000_vid001")
NO_PRODUCT = ("--where", "step = 0")


READERS = {
    "parquet": {
        "pyarrow": pq.read_table,
        "pandas": lambda path: pa.Table.from_pandas(pd.read_parquet(path)),
        "polars": lambda path: pl.read_parquet(path).to_arrow(),
        "duckdb": lambda path: duckdb.read_parquet(str(path)).to_arrow_table(),
    },
    "arrow": {
        "pyarrow": lambda path: pa.ipc.open_file(path).read_all(),
        "pandas": lambda path: pa.Table.from_pandas(pd.read_feather(path)),
        "polars": lambda path: pl.read_ipc(path).to_arrow(),
        "duckdb": lambda path: duckdb.from_arrow(pa.ipc.open_file(path).read_all()).to_arrow_table(),
    },
}


@pytest.mark.parametrize("format, reader", [(format, reader) for format in READERS for reader in READERS[format]])
def test_every_reader_finds_the_maps_as_lists_of_float32(ask, dataset_store, tmp_path, format, reader):
    expected = ask("average", dataset_store, *NO_PRODUCT, to="npy")
    ask("average", dataset_store, *NO_PRODUCT, to=format)
    answer = READERS[format][reader](tmp_path / f"answer.{format}")
    lists = answer["values"]
    assert lists.type.value_type == pa.float32() and set(pa.compute.list_value_length(lists).to_pylist()) == {576}
    assert np.array_equal(np.array(lists.to_pylist(), np.float32), expected.reshape(len(expected), -1))
    rows = json.loads((tmp_path / "answer.json").read_bytes())["rows"]
    assert answer["video_id"].to_pylist() == [row["video_id"] for row in rows]
    assert (
        answer["step"].type == pa.int32() and answer["n"].type == pa.int64() and answer["entropy"].type == pa.float64()
    )


def test_npy_comes_with_the_rows_of_its_maps(ask, dataset_store, tmp_path):
    maps = ask("average", dataset_store, *PRODUCT, to="npy")
    beside = json.loads((tmp_path / "answer.json").read_bytes())
    assert maps.shape == (6, *GRID) and maps.dtype == np.float32 and maps.flags.c_contiguous
    rows = beside.pop("rows")
    assert beside == {
        "array": "answer.npy",
        "dtype": "float32",
        "shape": [6, *GRID],
        "dimensions": ["map", "frame", "height", "width"],
        "keys": ["video_id", "token", "token_index", "step"],
    }
    answer = ask("average", dataset_store, *PRODUCT)
    pd.testing.assert_frame_equal(pd.DataFrame(rows), answer.drop(columns="values"), check_dtype=False, rtol=1e-15)


def plain(table):
    """The same with one kind of null and no types: CSV and JSON have neither."""
    return table.astype(object).where(table.notna(), None)


def open_without_warnings(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return xarray.open_zarr(path).load()


def test_xarray_opens_a_full_product_with_a_dimension_for_each_key(ask, dataset_store):
    rows, maps = (ask("average", dataset_store, *PRODUCT, to=format) for format in ("parquet", "npy"))
    dataset = open_without_warnings(ask("average", dataset_store, *PRODUCT, to="zarr"))
    assert dataset.attention.dims == ("video_id", "token", "step", "frame", "height", "width")
    assert dataset.attention.dtype == np.float32
    assert {name: values.tolist() for name, values in dataset.indexes.items()} == {
        "video_id": ["prompt_000_vid001"],
        "token": ["circle", "square"],
        "step": [0, 4, 9],
        **{axis: list(range(size)) for axis, size in zip(("frame", "height", "width"), GRID)},
    }
    assert dataset["token_index"].dims == () and dataset["token_index"] == 0
    for row, expected in zip(rows.to_dict("records"), maps):
        assert np.array_equal(dataset.attention.sel({key: row[key] for key in ("video_id", "token", "step")}), expected)


def test_xarray_opens_other_answers_with_a_row_for_each_map(ask, dataset_store):
    rows, maps = (ask("average", dataset_store, *NO_PRODUCT, to=format) for format in ("parquet", "npy"))
    dataset = open_without_warnings(ask("average", dataset_store, *NO_PRODUCT, to="zarr"))
    assert dataset.attention.dims == ("map", "frame", "height", "width")
    assert np.array_equal(dataset.attention, maps)
    assert set(dataset.coords) == {"video_id", "token", "token_index", "step", "frame", "height", "width"}
    for key in ("video_id", "token", "step"):
        assert dataset[key].dims == ("map",) and dataset[key].values.tolist() == rows[key].tolist()
    assert dataset["token_index"].dims == () and set(rows["token_index"]) == {0}


@pytest.mark.parametrize(
    "variant, over, dimensions",
    [
        ("averaged", "step", ("video_id", "token")),
        ("per_head", "step", ("video_id", "token", "head")),
        ("split", "step", ("video_id", "token", "block", "head")),
        ("split", "video,token,step,block,head", ()),
    ],
)
def test_axes_that_are_not_there_are_no_dimensions(ask, store_of, variant, over, dimensions):
    store = store_of(VARIANT[variant])
    dataset = open_without_warnings(ask("average", store, "--over", over, to="zarr"))
    assert dataset.attention.dims == (*dimensions, "frame", "height", "width")
    maps = ask("average", store, "--over", over, to="npy")
    assert np.array_equal(dataset.attention.values.reshape(maps.shape), maps)


def test_maps_of_an_unknown_grid_stay_flat(ask, store_of, tmp_path):
    values = np.random.default_rng(3).random((2, 2, 30, 1), np.float32)
    store = store_of(
        write_dump(tmp_path / "dump", {("prompt_000_vid001", "flower", step): (values * step, {}) for step in (1, 2)})
    )
    maps = ask("average", store, to="npy")
    assert maps.shape == (2, 30)
    assert json.loads((tmp_path / "answer.json").read_bytes())["dimensions"] == ["map", "spatial"]
    dataset = open_without_warnings(ask("average", store, to="zarr"))
    assert dataset.attention.dims == ("video_id", "token", "step", "spatial")
    assert np.array_equal(dataset.attention[0, 0], maps)
    answer = ask("average", store)
    assert (
        answer[["frames", "height", "width", "argmax_y", "centroid_x", "spread"]].isna().all(axis=None)
        and (answer["shape"] == "30").all()
    )


@pytest.mark.parametrize("selection", [PRODUCT, NO_PRODUCT])
def test_zarr_and_tensorstore_read_the_maps_of_an_answer(ask, dataset_store, selection):
    maps = ask("average", dataset_store, *selection, to="npy")
    path = ask("average", dataset_store, *selection, to="zarr")
    array = zarr.open_group(path, mode="r")["attention"]
    assert array.metadata.dimension_names[-3:] == ("frame", "height", "width")
    assert np.array_equal(array[...].reshape(maps.shape), maps)
    found = tensorstore.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/attention/"}}, read=True
    ).result()
    assert found.domain.labels == array.metadata.dimension_names
    assert np.array_equal(found.read().result().reshape(maps.shape), maps)


QUESTIONS = {
    "average": ["average", "--over", "block,step"],
    "evolution": ["evolution", "--token", "circle"],
    "compare": ["compare", "--across", "block", "--token", "square", "--align", "mean"],
    "list": ["list", "--table", "heads", "--columns", "video_id,step,block,head,entropy,prompt,seed,weight"],
}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("variant", ["split", "per_head"])
def test_every_format_says_the_same(ask, store_of, variant, question):
    name, *options = QUESTIONS[question]
    if variant == "per_head":
        options = ["head" if option == "block" else option for option in options]
    expected, *others = (
        plain(ask(name, store_of(VARIANT[variant]), *options, to=format).drop(columns="values", errors="ignore"))
        for format in ("parquet", "arrow", "csv", "json", "jsonl")
    )
    for found in others:
        pd.testing.assert_frame_equal(found, expected, rtol=1e-14)


def test_the_tables_keep_their_lists_and_times_in_every_format(ask, dataset_store):
    columns = ["video_id", "token", "step", "token_ids", "token_texts", "source_modified", "prompt_id"]
    rows = ask("list", dataset_store, "--columns", ",".join(columns))
    for format in ("csv", "json", "jsonl"):
        found = ask("list", dataset_store, "--columns", ",".join(columns), to=format)
        assert found.columns.tolist() == columns
        for column in ("token_ids", "token_texts"):
            lists = found[column].map(json.loads) if format == "csv" else found[column]
            assert [list(cell) for cell in lists] == [list(cell) for cell in rows[column]], format
        assert (pd.to_datetime(found["source_modified"], utc=True) == rows["source_modified"]).all(), format


def test_a_pipe_gets_clean_csv(finished, ask, store_of):
    question = ["average", store_of(VARIANT["per_head"]), "--over", "block,head"]
    piped = finished("query", *question)
    assert "note:" in piped.stderr and "note:" not in piped.stdout and "\x1b" not in piped.stdout + piped.stderr
    found = pd.read_csv(io.StringIO(piped.stdout))
    pd.testing.assert_frame_equal(found, ask(*question, to="csv"))
    assert piped.stdout == finished("query", *question, "--format", "csv", "--quiet").stdout


@pytest.mark.parametrize(
    "sort, limit",
    [
        (["entropy"], None),
        (["entropy:desc"], 4),
        (["step:desc", "token"], None),
        (["step", "mean:desc"], 5),
        ([], 3),
        (["token:desc"], 99),
    ],
)
def test_maps_are_sorted_and_cut_with_their_rows(ask, dataset_store, tmp_path, sort, limit):
    unsorted = ask("average", dataset_store, *PRODUCT)
    columns = [column.removesuffix(":desc") for column in sort]
    ascending = [not column.endswith(":desc") for column in sort]
    expected = unsorted.sort_values(columns, ascending=ascending, kind="stable") if sort else unsorted
    expected = expected.head(limit or len(expected)).reset_index(drop=True)

    options = [
        *PRODUCT,
        *(option for column in sort for option in ("--sort", column)),
        *(["--limit", limit] if limit else []),
    ]
    answer = ask("average", dataset_store, *options)
    pd.testing.assert_frame_equal(answer.drop(columns="values"), expected.drop(columns="values"))
    assert np.array_equal(values_of(answer), values_of(expected))
    assert np.array_equal(
        ask("average", dataset_store, *options, to="npy").reshape(len(expected), -1), values_of(expected)
    )
    attention = open_without_warnings(ask("average", dataset_store, *options, to="zarr")).attention
    if attention.dims[0] == "map":
        assert np.array_equal(attention.values.reshape(len(expected), -1), values_of(expected))
    else:
        for row in expected.to_dict("records"):
            assert np.array_equal(np.ravel(attention.sel(step=row["step"], token=row["token"])), row["values"])


@pytest.fixture(scope="session")
def tables(dataset_store):
    """The tables of the dataset's store in DuckDB, as anyone would read them."""
    connection = duckdb.connect()
    for name in ("steps", "heads"):
        connection.sql(f"CREATE TABLE {name} AS FROM '{dataset_store}/index/{name}/*.parquet'")
    return connection


def assert_same_rows(found, expected):
    """The same rows, in whatever order."""
    assert found.columns.tolist() == expected.columns.tolist() and len(found) == len(expected) > 0
    in_order = [plain(table.sort_values(table.columns.tolist(), ignore_index=True)) for table in (found, expected)]
    pd.testing.assert_frame_equal(*in_order, rtol=1e-12)


CONDITIONS = [
    "token = 'circle'",
    "token IN ('square', 'triangle') AND step < 3",
    "seed = 22 AND NOT step BETWEEN 2 AND 8",
    "prompt LIKE '%green%' OR prompt_id = 'prompt_005'",
    "timestep > 800.5 AND timestep <= 999",
    "weight IS NULL AND step % 3 = 1",
    "block = 4 AND head = 2 AND step = 7",
    "(block < 2 OR head >= 3) AND token <> 'circle' AND step = 9",
    "entropy < 5.8",
    "top5 > 0.3 AND prompt_id = 'prompt_001'",
    "gini > 0.5 OR (step = 0 AND block = 0)",
    "max > 6 * mean AND spread < 4.5 AND seed = 11",
    "argmax_y >= 6 AND argmax_x - argmax_y > 3",
    "abs(centroid_y - 5.5) > 2 AND centroid_frame < frames / 2.0",
    "nonfinite = 0 AND block = head AND step = block + 1",
]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_list_finds_the_rows_that_duckdb_finds(ask, dataset_store, tables, condition):
    columns = "video_id,token,step,token_index,block,head,entropy,top5,prompt,seed"
    found = ask("list", dataset_store, "--table", "heads", "--where", condition, "--columns", columns)
    assert_same_rows(
        found,
        tables.sql(f"SELECT {columns} FROM heads JOIN steps USING (video_id, token, step) WHERE {condition}").df(),
    )

    matching = f"SELECT video_id, token, step FROM heads JOIN steps USING (video_id, token, step) WHERE {condition}"
    columns = "video_id,token,step,seed,timestep,row,content_hash"
    found = ask("list", dataset_store, "--where", condition, "--columns", columns)
    assert_same_rows(
        found, tables.sql(f"SELECT {columns} FROM steps WHERE (video_id, token, step) IN ({matching})").df()
    )


def test_a_statistic_that_is_undefined_matches_no_comparison(ask, store_of, tmp_path):
    values = np.ones((2, 1, 30, 1), np.float32)
    values[1] = 0
    store = store_of(write_dump(tmp_path / "dump", {("prompt_000_vid001", "flower", 0): (values, {})}))
    for condition, blocks in [("entropy > 1", [0]), ("entropy < 1", []), ("top5 <= 1 OR mean = 0", [0, 1])]:
        found = ask("list", store, "--table", "heads", "--where", condition, "--columns", "block,entropy")
        assert found["block"].tolist() == blocks, condition


def test_list_shows_whole_tables(ask, dataset_store, tables):
    assert_same_rows(ask("list", dataset_store, "--table", "heads"), tables.sql("FROM heads").df())
    plain = "SELECT * EXCLUDE (token_ids, token_texts, source_modified) FROM steps"
    found = ask("list", dataset_store).drop(columns=["token_ids", "token_texts", "source_modified"])
    assert_same_rows(found, tables.sql(plain).df())


@pytest.mark.parametrize(
    "options, order",
    [
        (["--sort", "top5:desc"], "top5 DESC"),
        (["--sort", "step:desc", "--sort", "entropy"], "step DESC, entropy"),
        (["--sort", "seed", "--sort", "gini:desc", "--limit", 7], "seed, gini DESC LIMIT 7"),
    ],
)
def test_list_sorts_and_cuts_as_duckdb_orders(ask, dataset_store, tables, options, order):
    columns = "video_id,token,step,block,head,entropy,top5"
    found = ask("list", dataset_store, "--table", "heads", "--where", "block > 3", "--columns", columns, *options)
    expected = tables.sql(
        f"SELECT {columns} FROM heads JOIN steps USING (video_id, token, step) WHERE block > 3 ORDER BY {order}"
    )
    pd.testing.assert_frame_equal(found, expected.df(), check_dtype=False)


STATEMENTS = [
    "SELECT token, avg(entropy) AS entropy, count(*) AS maps FROM heads GROUP BY token",
    "SELECT token, block, max(top5) AS top5, min(gini) AS gini FROM heads GROUP BY token, block HAVING max(top5) > 0.2",
    "SELECT video_id, step, timestep FROM steps WHERE token = 'circle' AND step < 2 ORDER BY video_id, step",
    "SELECT s.seed, avg(h.top5) AS top5 FROM heads h JOIN steps s USING (video_id, token, step) GROUP BY s.seed",
    "SELECT s.prompt, h.head, sum(h.sum) AS mass FROM heads h JOIN steps s USING (video_id, token, step) WHERE "
    "s.step = 9 GROUP BY s.prompt, h.head",
    "SELECT DISTINCT prompt_id, seed FROM steps",
    "SELECT count(*) AS steps, sum(source_bytes) AS bytes, min(timestep) AS first, max(total_steps) AS total FROM "
    "steps",
    "SELECT video_id, token, step, block, head, entropy FROM heads WHERE entropy < 6 AND block IN (1, 3) ORDER BY "
    "entropy LIMIT 5",
    "WITH last AS (SELECT video_id, token, max(step) AS step FROM steps GROUP BY video_id, token) "
    "SELECT h.token, avg(h.entropy) AS entropy FROM heads h JOIN last USING (video_id, token, step) GROUP BY h.token",
    "SELECT a.video_id, a.step, a.entropy - b.entropy AS difference FROM heads a JOIN heads b USING (video_id, "
    "token, step, block, head) WHERE b.token = 'circle' AND a.block = 0 AND a.head = 0",
    "SELECT token, CASE WHEN step < 5 THEN 'early' ELSE 'late' END AS half, avg(spread) AS spread FROM heads GROUP "
    "BY token, half",
    "SELECT upper(token) AS word, round(avg(max), 3) AS peak FROM heads WHERE head = 0 GROUP BY token",
    "SELECT video_id, token FROM steps WHERE step = 0 UNION ALL SELECT prompt_id, token FROM steps WHERE step = 1",
    "SELECT num_blocks * num_heads AS maps, spatial / (frames * height) AS width FROM steps LIMIT 1",
]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_sql_answers_what_duckdb_answers(ask, dataset_store, tables, statement):
    assert_same_rows(ask("sql", dataset_store, statement), tables.sql(statement).df())
