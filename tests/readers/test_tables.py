"""pandas, polars and DuckDB read both tables as they are, and numpy finds the same statistics."""

import json

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from committed import parts, table
from definitions import assert_statistics
from source_dump import DATASET, REPOSITORY, VARIANTS, step_arrays

VARIANT = {path.name: path for path in VARIANTS}
ARROW = {
    "string": pa.string(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "decimal(20, 0)": pa.decimal128(20, 0),
    "list<int32>": pa.list_(pa.int32()),
    "list<int64>": pa.list_(pa.int64()),
    "list<string>": pa.list_(pa.string()),
    "timestamp(us, UTC)": pa.timestamp("us", "UTC"),
}
POLARS = {
    "string": pl.String,
    "int32": pl.Int32,
    "int64": pl.Int64,
    "float64": pl.Float64,
    "decimal(20, 0)": pl.Decimal(20, 0),
    "list<int32>": pl.List(pl.Int32),
    "list<int64>": pl.List(pl.Int64),
    "list<string>": pl.List(pl.String),
    "timestamp(us, UTC)": pl.Datetime("us", "UTC"),
}
DUCKDB = {
    "string": "VARCHAR",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "decimal(20, 0)": "DECIMAL(20,0)",
    "list<int32>": "INTEGER[]",
    "list<int64>": "BIGINT[]",
    "list<string>": "VARCHAR[]",
    "timestamp(us, UTC)": "TIMESTAMP WITH TIME ZONE",
}

both_tables = pytest.mark.parametrize("name", ["steps", "heads"])


def columns(name):
    return json.loads((REPOSITORY / "schemas" / f"{name}.columns.json").read_text())


def glob(store, name):
    return f"{store}/index/{name}/*.parquet"


@both_tables
def test_every_part_has_the_columns_of_the_contract(store, name):
    for part in parts(store, name):
        schema = pq.read_schema(part)
        assert schema.names == [column["name"] for column in columns(name)]
        for field, column in zip(schema, columns(name)):
            assert field.type.equals(ARROW[column["type"]]), field
            assert field.nullable == column["nullable"], field


@both_tables
def test_polars_scans_the_directory_by_glob(dataset_store, name):
    found = pl.scan_parquet(glob(dataset_store, name)).collect()
    assert list(found.schema.items()) == [(column["name"], POLARS[column["type"]]) for column in columns(name)]
    assert found.height == table(dataset_store, name).num_rows


@both_tables
def test_duckdb_reads_the_directory_by_glob(dataset_store, name):
    found = duckdb.sql(f"FROM '{glob(dataset_store, name)}'")
    assert list(zip(found.columns, map(str, found.types))) == [(c["name"], DUCKDB[c["type"]]) for c in columns(name)]
    assert duckdb.sql(f"SELECT count(*) FROM '{glob(dataset_store, name)}'").fetchall() == [
        (table(dataset_store, name).num_rows,)
    ]


@both_tables
def test_pandas_reads_the_directory(dataset_store, name):
    found = pd.read_parquet(dataset_store / "index" / name)
    assert found.columns.tolist() == [column["name"] for column in columns(name)]
    assert len(found) == table(dataset_store, name).num_rows
    joined = pd.concat([pd.read_parquet(part) for part in parts(dataset_store, name)])
    assert len(joined) == len(found)


def test_duckdb_joins_steps_with_heads(dataset_store):
    steps, heads = glob(dataset_store, "steps"), glob(dataset_store, "heads")
    [(maps, expected)] = duckdb.sql(
        f"""SELECT (SELECT count(*) FROM '{steps}' JOIN '{heads}' USING (video_id, token, step)),
                   (SELECT sum(num_blocks * num_heads * tokens) FROM '{steps}')"""
    ).fetchall()
    assert maps == expected > 0
    [(prompt, *_)] = duckdb.sql(
        f"""SELECT prompt, block, head, avg(entropy) AS entropy
            FROM '{steps}' JOIN '{heads}' USING (video_id, token, step)
            WHERE token = 'circle' GROUP BY ALL ORDER BY entropy LIMIT 1"""
    ).fetchall()
    assert "circle" in prompt


@both_tables
def test_parts_are_sorted_as_the_contract_says(store, name):
    order = {"steps": ("token", "step"), "heads": ("token", "step", "token_index", "block", "head")}[name]
    for part in parts(store, name):
        keys = [
            tuple(-1 if row[key] is None else row[key] for key in order)
            for row in pq.ParquetFile(part).read().to_pylist()
        ]
        assert keys == sorted(keys) and len(keys) == len(set(keys))


@pytest.mark.parametrize(
    "variant, axes",
    [("per_head", {"block"}), ("per_block", {"head"}), ("averaged", {"block", "head"}), ("split", set())],
)
def test_an_averaged_axis_is_null_in_heads(store_of, variant, axes):
    heads = table(store_of(VARIANT[variant]), "heads")
    for axis in ("block", "head"):
        assert heads[axis].null_count == (heads.num_rows if axis in axes else 0)


@pytest.mark.parametrize(
    "dump, videos",
    [
        (DATASET, ["prompt_000_vid001", "prompt_003_vid002"]),
        (VARIANT["float32"], ["prompt_000_vid001"]),
        (VARIANT["torch_bfloat16"], ["prompt_000_vid001"]),
        (VARIANT["averaged"], ["prompt_000_vid001"]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_statistics_are_what_numpy_finds(store_of, dump, videos):
    heads = pl.from_arrow(table(store_of(dump), "heads"))
    for (video, token, step), array in step_arrays(dump).items():
        if video not in videos:
            continue
        rows = heads.filter(video_id=video, token=token, step=step)
        maps = array.astype(np.float64).transpose(3, 0, 1, 2)  # token, block, head, spatial: the order of the rows
        assert rows.height == maps[..., 0].size
        assert_statistics(rows, maps.reshape(-1, maps.shape[-1]), grid=(4, 12, 12))
