"""Packs are the tables of many videos in a few files: whoever reads sees the rows that were there before, each once."""

import json
import os
import shutil
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import second_reader
import xxhash
import zarr
from committed import parts, table, words
from source_dump import DATASET, REPOSITORY, VARIANTS, same_bits, step_arrays, write_dump
from test_tables import ARROW, columns

VARIANT = {path.name: path for path in VARIANTS}
TABLES = ("steps", "heads", "text")
KEYS = {
    "steps": ["video_id", "token", "step"],
    "heads": ["video_id", "token", "step", "token_index", "block", "head"],
    "text": ["video_id", "step", "call", "block", "head"],
    "records": ["video_id"],
}
ODD = ["Z", "é", "_a", "a b (1)", "a~b", "a", "con", "v=1", "[w]*?", "{x}", "pack", "pack~~0123456789abcdef", "x" * 200]
# How often videos are replaced and packed while others read.
ROUNDS = 25

every_table = pytest.mark.parametrize("name", TABLES)


def schema(name):
    return pa.schema([pa.field(of["name"], ARROW[of["type"]], of["nullable"]) for of in columns(name)])


def random_step(seed, shape=(2, 2, 16, 1)):
    return np.random.default_rng(seed).random(shape).astype(np.float16)


def odd_dump(directory):
    """Videos with odd names, with values that are no numbers, and one that has a summary and no steps."""
    arrays = {
        (video, token, step): (random_step([at, step]), {"seed": -(2**40), "odd": 3**60, "step_time": 1e-7})
        for at, video in enumerate(ODD)
        for token in ("cat", "Dog")
        for step in range(1 + at % 5)
    }
    none = random_step(0)
    none[0, 0, 0, 0], none[0, 1, 3, 0], none[1, 0] = np.nan, np.inf, -0.0
    arrays |= {("not numbers", "cat", step): (none, {"seed": 2**64 - 1}) for step in range(2)}
    (directory / "nothing").mkdir(parents=True)
    (directory / "nothing" / "summary.json").write_text('{"target_tokens": {"flower": [1]}, "n": 1e400, "m": 0.10}')
    return write_dump(directory, arrays)


def write_part(part, rows, keys):
    """A part as a second writer writes it."""
    zeros = keys | {"attnkit.checksum": "0" * 32}
    pq.write_table(rows.replace_schema_metadata(zeros), part, compression="zstd", use_compliant_nested_type=False)
    whole = part.read_bytes()
    assert whole.count(b"0" * 32) == 1
    part.write_bytes(whole.replace(b"0" * 32, xxhash.xxh3_128_hexdigest(whole).encode()))


def give_text(store, video, rows):
    """Makes a video one that was captured: with rows of `text`, random ones."""
    steps = store / "index" / "steps" / f"{second_reader.encode(video)}.parquet"
    told = {key: value for key, value in second_reader.footer(steps).items() if key.startswith("attnkit.")}
    told["attnkit.video"] = json.dumps(json.loads(told["attnkit.video"]) | {"has_text": True})
    of_steps = pq.ParquetFile(steps).read()
    write_part(steps, of_steps, told)
    chance, at = np.random.default_rng(rows), np.arange(rows)
    numbers = np.unique(of_steps["step"])
    of_one = -(-rows // len(numbers))
    of = {
        "video_id": [video] * rows,
        "call": [None] * rows,
        "step": numbers[at // of_one],
        "block": at % of_one // 2,
        "head": at % of_one % 2,
        "text_entropy": chance.random(rows),
        "sink_key": chance.integers(0, 512, rows),
        "sink_mass": chance.random(rows),
        "sum_error": [None, *chance.random(rows - 1)],
    }
    text = store / "index" / "text" / steps.name
    text.parent.mkdir(exist_ok=True)
    write_part(text, pa.table(of, schema("text")), {"attnkit.generation": told["attnkit.generation"]})


@pytest.fixture(scope="module")
def unpacked(attnkit, tmp_path_factory):
    """A store with parts for each video, of several dumps, below a directory whose name looks like a pattern."""
    directory = tmp_path_factory.mktemp("packs")
    store = directory / "seed=99" / "[before]" / "store"
    store.parent.mkdir(parents=True)
    attnkit("ingest", DATASET, "--store", store, "--videos", "prompt_00[0-3]_*", "--rollups", "all")
    attnkit("ingest", odd_dump(directory / "dump"), "--store", store)
    for variant in ("float32", "averaged", "split", "torch_bfloat16", "aggregate"):
        attnkit("ingest", VARIANT[variant], "--store", store, "--prefix", variant.title())
    give_text(store, "prompt_001_vid001", 40)
    give_text(store, "Z", 300)
    give_text(store, "é", 8)
    attnkit("verify", store)
    return store


@pytest.fixture(scope="module")
def packed(attnkit, unpacked):
    """The same after `compact`."""
    store = unpacked.parents[1] / "[after]" / "store"
    shutil.copytree(unpacked, store)
    attnkit("compact", store)
    assert [len(parts(store, name)) for name in (*TABLES, "records")] == [1] * 4
    return store


def canonical(rows, name):
    """Rows in one order, whatever reader they are of; values that are no numbers are equal where their bits are."""
    rows = pa.table({of.name: rows[of.name].cast(of.type) for of in schema(name)}).combine_chunks()
    rows = rows.sort_by([(key, "ascending") for key in KEYS[name]]).combine_chunks()
    is_float = lambda column: pa.types.is_floating(column.type)
    bits = lambda column: column.combine_chunks().view(pa.int64()) if is_float(column) else column
    return pa.table({of: bits(rows[of]) for of in rows.column_names}).combine_chunks()


def pattern(directory):
    escaped = "".join(f"[{letter}]" if letter in "[*?{" else letter for letter in str(directory))
    return f"{escaped}/*.parquet"


def by_duckdb(directory):
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.read_parquet(pattern(directory), hive_partitioning=False).to_arrow_table()


def by_pandas(directory):
    frame = pd.read_parquet(directory, partitioning=None, dtype_backend="pyarrow")
    return pa.Table.from_pandas(frame, preserve_index=False)


READERS = {
    "duckdb": by_duckdb,
    "pandas": by_pandas,
    "pyarrow": lambda directory: pq.read_table(directory, partitioning=None),
    "polars": lambda directory: pl.scan_parquet(directory, hive_partitioning=False, glob=False).collect().to_arrow(),
    "glob": lambda directory: pa.concat_tables(
        pq.ParquetFile(part).read() for part in sorted(Path(directory).glob("*.parquet"))
    ),
}
every_reader = pytest.mark.parametrize("reader", READERS)


@every_table
@every_reader
def test_every_reader_finds_the_same_rows_in_packs(unpacked, packed, name, reader):
    expected = canonical(table(unpacked, name), name)
    found = canonical(READERS[reader](packed / "index" / name), name)
    assert found.num_rows == expected.num_rows > 8
    assert [of for of in expected.column_names if not found[of].equals(expected[of])] == []


@pytest.mark.parametrize("condition", ["entropy > 4", "NOT entropy < 4", "isnan(entropy)", "max > 60000", "step = 1"])
def test_a_filter_finds_the_same_rows_in_packs(unpacked, packed, condition):
    counts = [
        duckdb.sql(
            f"SELECT count(*), count(DISTINCT video_id) FROM '{pattern(of / 'index' / 'heads')}' WHERE {condition}"
        )
        for of in (unpacked, packed)
    ]
    assert counts[0].fetchall() == counts[1].fetchall()


def test_every_array_that_rows_of_packs_name_opens(packed):
    rows = table(packed, "steps").to_pylist()
    arrays = {path: zarr.open_array(packed / path, mode="r") for path in {row["array"] for row in rows}}
    for row in rows:
        shape = tuple(row[axis] for axis in ("num_blocks", "num_heads", "spatial", "tokens"))
        assert arrays[row["array"]][row["row"]].shape == shape


def test_a_second_reader_finds_of_each_packed_video_what_its_own_parts_had(unpacked, packed):
    expected, found = second_reader.committed(unpacked), second_reader.committed(packed)
    assert found.keys() == expected.keys() >= {*ODD, "nothing", "not numbers"}
    for video, of in found.items():
        assert of["generation"] == expected[video]["generation"]
        assert json.loads(of["record"], parse_float=str) == json.loads(expected[video]["record"], parse_float=str)
        for name in TABLES:
            own = expected[video][name]
            assert (of[name] is None) == (own is None)
            assert own is None or (of[name].schema == own.schema and of[name].num_rows == own.num_rows)
            assert own is None or canonical(of[name], name).equals(canonical(own, name)), (video, name)
    assert {video for video, of in found.items() if of["text"]} == {"prompt_001_vid001", "Z", "é"}
    assert found["nothing"]["steps"].num_rows == found["nothing"]["heads"].num_rows == 0


def test_records_are_byte_for_byte_what_the_parts_of_attnkit_had(unpacked, packed):
    expected, found = second_reader.committed(unpacked), second_reader.committed(packed)
    for video, of in found.items():
        assert of["text"] is not None or of["record"] == expected[video]["record"], video


def test_a_second_reader_finds_every_value_that_is_packed(packed):
    dump = {key: array for key, array in step_arrays(DATASET).items() if key[0] < "prompt_004"}
    for video, token, group, rows in words(packed):
        if video.startswith("prompt_"):
            attention = second_reader.read_array(group / "attention")
            for row in rows:
                assert same_bits(attention[row["row"]], dump.pop((video, token, row["step"])))
    assert not dump


QUESTIONS = {
    "list": ["query", "list"],
    "list heads": ["query", "list", "--table", "heads"],
    "list first": ["query", "list", "--limit", "9"],
    "list sorted": ["query", "list", "--table", "heads", "--sort", "top5:desc", "--limit", "40"],
    "list where": ["query", "list", "--where", "entropy > 2.5 AND step > 0"],
    "list video": ["query", "list", "--video", "a*"],
    "average": ["query", "average", "--over", "block,head,step"],
    "average one": ["query", "average", "--where", "video_id = 'Z' AND head = 1"],
    "evolution": ["query", "evolution"],
    "evolution of a word": ["query", "evolution", "--token", "circle"],
    "map": ["query", "map", "--video", "a~b", "--token", "Dog", "--step", "1"],
    "compare": ["query", "compare", "--across", "token", "--video", "é"],
    "sql steps": ["query", "sql", "SELECT * FROM steps ORDER BY video_id, token, step"],
    "sql heads": ["query", "sql", "SELECT video_id, token, count(*), avg(gini), min(max), max(entropy), sum(nonfinite) "
                  "FROM heads GROUP BY video_id, token ORDER BY video_id, token"],
    "sql text": ["query", "sql", "SELECT * FROM text ORDER BY video_id, step, block, head"],
    "sql one video": ["query", "sql", "SELECT * FROM heads WHERE video_id = 'é' AND token = 'Dog' "
                      "ORDER BY step, block, head"],
    "info": ["info", "--json"],
    "info all": ["info", "--all", "--json"],
    "verify": ["verify", "--json"],
    "gc": ["gc", "--dry-run"],
}  # fmt: skip


def said(answer, store):
    """What a command answered, without what may differ: where the store is, what its tables take, and seconds."""
    code, out, err = answer.returncode, answer.stdout, answer.stderr.replace(str(store), "STORE")
    if not out.startswith("{"):
        return code, out.replace(str(store), "STORE"), err
    found = json.loads(out)
    for key in ("path", "seconds"):
        found.pop(key, None)
    found.get("bytes", {}) if isinstance(found.get("bytes"), int) else found.get("bytes", {}).pop("index", None)
    return code, found, err


@pytest.mark.parametrize("question", QUESTIONS)
def test_answers_are_the_same_before_and_after(finished, unpacked, packed, question):
    command = QUESTIONS[question]
    at = 2 if command[0] == "query" else 1
    before, after = (
        said(finished(*command[:at], store, *command[at:], code=None), store) for store in (unpacked, packed)
    )
    assert before[0] == 0 and before == after


@pytest.mark.parametrize("where", [[], ["--where", "step = 0 AND entropy > 2.6"]], ids=" ".join)
def test_exports_are_the_same_before_and_after(finished, unpacked, packed, tmp_path, where):
    trees = []
    for name, store in {"before": unpacked, "after": packed}.items():
        finished("export", store, "--out", tmp_path / name, *where)
        files = [path for path in (tmp_path / name).rglob("*") if path.is_file()]
        trees.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
    assert len(trees[0]) > 20 and trees[0] == trees[1]


def test_a_store_that_is_partly_packed_answers_as_one_that_is_not(finished, attnkit, tmp_path):
    answers = []
    for packs in (False, True):
        store = tmp_path / str(packs) / "store"
        attnkit("ingest", DATASET, "--store", store, "--videos", "prompt_00[25]_*", "--rollups", "all")
        if packs:
            attnkit("compact", store)
        attnkit("ingest", DATASET, "--store", store, "--videos", "prompt_00[2-6]_*", "--rollups", "all")
        asked = ["list", "--columns", "video_id,token,step,content_hash"], ["list", "--table", "heads"]
        # Rows that are not sorted come as they lie.
        listed = [sorted(finished("query", of, store, *rest).stdout.splitlines()) for of, *rest in asked]
        answers.append([*listed, finished("query", "average", store).stdout])
    assert answers[0] == answers[1]


def test_nothing_is_packed_twice(attnkit, packed):
    before = listing(packed)
    assert attnkit("compact", packed) == "nothing to pack\n" and listing(packed) == before


def test_a_store_of_an_earlier_version_is_packed(attnkit, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(REPOSITORY / "fixtures" / "stores" / "version_1", store)
    attnkit("ingest", DATASET, "--store", store, "--videos", "prompt_00[56]_*")
    before = second_reader.committed(store)
    attnkit("compact", store)
    assert len(parts(store, "steps")) == 1
    after = second_reader.committed(store)
    assert after.keys() == before.keys() and len(after) == 5
    for video, of in after.items():
        assert of["generation"] == before[video]["generation"]
        assert json.loads(of["record"]) == json.loads(before[video]["record"])
        assert canonical(of["heads"], "heads").equals(canonical(before[video]["heads"], "heads"))
        own = before[video]["steps"]
        assert of["steps"].select(own.column_names).equals(own)
        assert all(of["steps"][name].null_count == len(own) for name in {*schema("steps").names} - {*own.column_names})
    attnkit("verify", store)


# What a file of a pack is like


def columns_of_records():
    described = json.loads((REPOSITORY / "schemas" / "records.columns.json").read_text())
    return pa.schema([pa.field(of["name"], ARROW[of["type"]], of["nullable"]) for of in described])


@pytest.fixture(scope="module")
def large(attnkit, tmp_path_factory):
    """A pack of more rows than one row group may have, in each table."""
    directory = tmp_path_factory.mktemp("large")
    videos = {f"v{at:04}": 8 for at in range(1030)}
    array = random_step(1, (4, 4, 4, 1))
    arrays = {(video, "cat", step): (array, {}) for video, steps in videos.items() for step in range(steps)}
    attnkit("ingest", write_dump(directory / "dump", arrays), "--store", directory / "store", "--no-pack")
    give_text(directory / "store", "v0500", 140_000)
    assert len(parts(directory / "store", "steps")) == 1030
    attnkit("compact", directory / "store")
    return directory / "store"


def files_of_packs(store):
    files = {name: parts(store, name) for name in (*TABLES, "records")}
    assert all(len(of) == 1 and second_reader.PACK.fullmatch(of[0].name) for of in files.values())
    return {name: of[0] for name, of in files.items()}


def chunks(metadata):
    return [
        metadata.row_group(group).column(column)
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    ]


@pytest.mark.parametrize("name", [*TABLES, "records"])
def test_files_of_a_pack_have_the_columns_of_the_contract(packed, name):
    found = pq.read_schema(files_of_packs(packed)[name]).remove_metadata()
    assert found == (columns_of_records() if name == "records" else schema(name))


@pytest.mark.parametrize("of", ["packed", "large"])
def test_a_pack_is_sorted_as_the_contract_says(request, of):
    for name, part in files_of_packs(request.getfixturevalue(of)).items():
        keys = pq.ParquetFile(part).read(KEYS[name]).select(KEYS[name])
        assert keys.equals(keys.sort_by([(key, "ascending") for key in KEYS[name]])), name
        assert len(keys.group_by(KEYS[name]).aggregate([])) == len(keys), name


def test_row_groups_are_as_large_as_they_may_be_and_no_larger(large):
    rows = {"steps": 8240, "heads": 8240 * 16, "text": 140_000, "records": 1030}
    for name, part in files_of_packs(large).items():
        metadata, most = pq.ParquetFile(part).metadata, second_reader.GROUPS[name]
        of_groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        assert of_groups == [most, rows[name] - most]


@pytest.mark.parametrize("of", ["packed", "large"])
def test_each_column_chunk_has_statistics_that_are_true(request, of):
    for name, part in files_of_packs(request.getfixturevalue(of)).items():
        path = f"{pattern(part.parent).rpartition('/')[0]}/{part.name}"
        told = duckdb.sql("FROM parquet_metadata(?)", params=[path])
        told = {(of["row_group_id"], of["path_in_schema"]): of for of in told.to_arrow_table().to_pylist()}
        file = pq.ParquetFile(part)
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group)
            for column in schema(name) if name != "records" else columns_of_records():
                path = f"{column.name}, list, item" if pa.types.is_list(column.type) else column.name
                of_chunk = told.pop((group, path))
                values = rows[column.name].combine_chunks()
                values = values.flatten() if pa.types.is_list(column.type) else values
                if not pa.types.is_list(column.type):
                    assert of_chunk["stats_null_count"] == values.null_count, (name, column)
                values = [value for value in values.drop_null().to_pylist() if value == value]
                if not values:
                    continue
                if pa.types.is_integer(values_type := column.type) or pa.types.is_string(values_type):
                    least, most = of_chunk["stats_min_value"], of_chunk["stats_max_value"]
                    kind = int if pa.types.is_integer(values_type) else str
                    assert (kind(least) <= min(values) and max(values) <= kind(most)) or kind is str, (name, column)
                elif pa.types.is_floating(values_type):
                    assert float(of_chunk["stats_min_value"]) <= min(values), (name, column)
                    assert float(of_chunk["stats_max_value"]) >= max(values), (name, column)
        assert not told, name


@pytest.mark.parametrize("of", ["packed", "large"])
def test_the_footer_of_a_pack_has_a_checksum_and_the_hash_of_each_column_chunk(request, of):
    files = files_of_packs(request.getfixturevalue(of))
    assert len({part.name for part in files.values()}) == 1
    for part in files.values():
        raw, told = part.read_bytes(), second_reader.footer(part)
        assert {key for key in told if key.startswith("attnkit.")} == {
            "attnkit.generation", "attnkit.checksum", "attnkit.chunks"
        }  # fmt: skip
        assert part.name == f"pack~~{told['attnkit.generation']}.parquet"
        end, hashes = 4, ""
        for chunk in chunks(pq.ParquetFile(part).metadata):
            pages = [page for page in (chunk.dictionary_page_offset, chunk.data_page_offset) if page]
            assert min(pages) == end
            end += chunk.total_compressed_size
            hashes += xxhash.xxh3_64_hexdigest(raw[min(pages) : end])
        assert told["attnkit.chunks"] == hashes
        assert end + int.from_bytes(raw[-8:-4], "little") + 8 == len(raw), "the footer is behind the last chunk"
        rest = (raw[:4] + raw[end:]).replace(told["attnkit.checksum"].encode(), b"0" * 32)
        assert xxhash.xxh3_128_hexdigest(rest) == told["attnkit.checksum"]


PLACES = {
    "the first byte": 0,
    "the first column chunk": 4,
    "a chunk": 0.4,
    "the footer": -9,
    "its size": -5,
    "the end": -1,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", [*TABLES, "records"])
def test_verify_names_the_file_of_a_pack_in_which_a_byte_is_flipped(finished, packed, name, place):
    part = files_of_packs(packed)[name]
    sound = part.read_bytes()
    at = int(len(sound) * PLACES[place]) if isinstance(PLACES[place], float) else PLACES[place]
    damaged = bytearray(sound)
    damaged[at] ^= 0x20
    try:
        part.write_bytes(damaged)
        told = json.loads(finished("verify", packed, "--json", code=1).stdout)
        assert {Path(of["path"]).name for of in told["faults"]} & {part.name}
        assert any(of["path"].endswith(f"index/{name}/{part.name}") for of in told["faults"]), told["faults"]
    finally:
        part.write_bytes(sound)
    assert finished("verify", packed, code=None).returncode == 0


@pytest.mark.parametrize("name", [*TABLES, "records"])
def test_verify_names_the_file_of_a_pack_that_is_missing(finished, packed, tmp_path, name):
    part, aside = files_of_packs(packed)[name], tmp_path / "aside"
    part.rename(aside)
    try:
        told = json.loads(finished("verify", packed, "--json", code=1).stdout)
        assert any(of["path"].endswith(f"index/{name}/{part.name}") for of in told["faults"]), told["faults"]
    finally:
        aside.rename(part)


# Packing by ingests


def listing(store):
    """Names of the files of the index, and which files these are."""
    files = [path for path in (store / "index").rglob("*") if path.is_file()]
    return {path.relative_to(store / "index"): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def own_parts(store):
    own = (part for part in parts(store, "steps") if not second_reader.PACK.fullmatch(part.name))
    return [part.stem.split("@")[0] for part in own]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A dump of 260 videos."""
    arrays = {(f"v{at:03}", "cat", 0): (random_step(at, (1, 2, 4, 1)), {}) for at in range(260)}
    return write_dump(tmp_path_factory.mktemp("tiny") / "dump", arrays)


@pytest.fixture
def many(attnkit, tiny, tmp_path):
    """The store of a copy of that dump, which was packed by the ingest."""
    shutil.copytree(tiny, tmp_path / "dump")
    attnkit("ingest", tmp_path / "dump", "--store", tmp_path / "store")
    return tmp_path / "store"


def values_of(store):
    """Every stored array of one step, by its video, word and step."""
    return {
        (video, token, row["step"]): zarr.open_array(group / "attention", mode="r")[row["row"]]
        for video, token, group, rows in words(store)
        for row in rows
    }


def assert_is(store, dump):
    """The store has the values of the dump, and statistics of these."""
    found, expected = values_of(store), step_arrays(dump)
    assert found.keys() == expected.keys() and all(same_bits(found[key], expected[key]) for key in found)
    heads = table(store, "heads")
    assert len(heads) == sum(array.shape[0] * array.shape[1] for array in expected.values())
    for row in heads.to_pylist():
        of_map = expected[row["video_id"], row["token"], row["step"]][row["block"] or 0, row["head"]]
        assert row["max"] == of_map.max() and row["min"] == of_map.min()
    assert second_reader.committed(store).keys() == {video for video, *_ in expected}


def test_an_ingest_of_many_videos_packs_them(attnkit, tiny, many):
    assert own_parts(many) == [] and len(parts(many, "steps")) == 1
    assert_is(many, tiny)
    attnkit("verify", many, "--against", many.parent / "dump")


def test_an_ingest_that_is_told_not_to_pack_does_not(attnkit, tiny, tmp_path):
    attnkit("ingest", tiny, "--store", tmp_path / "store", "--no-pack")
    assert len(own_parts(tmp_path / "store")) == 260 and not (tmp_path / "store" / "index" / "records").exists()
    assert_is(tmp_path / "store", tiny)


def test_fewer_than_256_videos_stay_in_parts_of_their_own(attnkit, tiny, tmp_path):
    attnkit("ingest", tiny, "--store", tmp_path / "store", "--videos", "v[01]*")
    assert len(own_parts(tmp_path / "store")) == 200
    attnkit("ingest", tiny, "--store", tmp_path / "store", "--videos", "v2[0-4]*", "--videos", "v25[0-4]")
    assert len(own_parts(tmp_path / "store")) == 255
    attnkit("ingest", tiny, "--store", tmp_path / "store")
    assert own_parts(tmp_path / "store") == []
    assert_is(tmp_path / "store", tiny)


def test_a_second_ingest_of_a_packed_dump_does_nothing(attnkit, many):
    before = listing(many)
    report = many.parent / "report.json"
    attnkit("ingest", many.parent / "dump", "--store", many, "--report", report)
    told = json.loads(report.read_text())
    assert (told["ingested"], told["skipped"]) == (0, 260) and listing(many) == before


def test_a_step_that_is_added_takes_its_video_alone_out_of_the_pack(attnkit, many):
    dump, before = many.parent / "dump", second_reader.committed(many)
    write_dump(dump, {("v123", "cat", 1): (random_step(9, (1, 2, 4, 1)), {})})
    attnkit("ingest", dump, "--store", many)
    assert own_parts(many) == ["v123"] and len(parts(many, "steps")) == 2
    after = second_reader.committed(many)
    assert {video for video in after if after[video] != before[video]} == {"v123"}
    assert_is(many, dump)
    attnkit("verify", many, "--against", dump)
    attnkit("compact", many)
    assert own_parts(many) == [] and len(parts(many, "steps")) == 1 and second_reader.committed(many) == after


def test_values_that_are_replaced_replace_those_in_the_pack(attnkit, finished, many):
    other = many.parent / "other"
    kept = {key: (array, {}) for key, array in step_arrays(many.parent / "dump").items()}
    new = {(f"v{at:03}", "cat", 0): (random_step(1000 + at, (1, 2, 4, 1)), {}) for at in range(0, 260, 50)}
    write_dump(other, new)
    refused, before = finished("ingest", other, "--store", many, code=None), listing(many)
    assert refused.returncode != 0
    attnkit("ingest", other, "--store", many, "--replace")
    assert sorted(own_parts(many)) == sorted(video for video, *_ in new) and listing(many) != before
    assert_is(many, write_dump(many.parent / "both", kept | new))


# Reading while others pack


WHILE_PACKING = ("duckdb", "pandas", "pyarrow", "glob")


def is_missing(error):
    """Whether a reader says that a file, or all of them, is not there."""
    told = ("No such file", "No files found", "Must pass at least one table")
    return isinstance(error, FileNotFoundError) or any(text in str(error) for text in told)


@pytest.fixture(scope="module")
def seen(attnkit, tmp_path_factory):
    """What readers saw while another process replaced steps of packed videos, and packed again: by reader and table,
    how often which, `whole`, `gone`, or what was wrong."""
    store = tmp_path_factory.mktemp("race") / "store"
    dump, step = store.parent / "dump", lambda at: (np.full((2, 2, 4, 1), at, np.float16), {})
    keys = [(f"v{video:02}", token, step) for video in range(24) for token in ("cat", "dog") for step in range(3)]
    maps = [(*key, 0, block, head) for key in keys for block in range(2) for head in range(2)]
    expected = {"steps": Counter(keys), "heads": Counter(maps)}
    attnkit("ingest", write_dump(dump, {key: step(0) for key in keys}), "--store", store)
    has_ended, failed, seen = threading.Event(), [], {reader: Counter() for reader in WHILE_PACKING}

    def write():
        try:
            for at in range(1, ROUNDS):
                attnkit("compact", store)
                replaced = [keys[at * 7 % len(keys)], keys[at * 31 % len(keys)]]
                write_dump(dump, {key: step(at) for key in replaced})
                for video, token, number in replaced:
                    os.utime(dump / video / f"token_{token}" / f"step_{number:03}.npy", ns=(at * 10**9, at * 10**9))
                attnkit("ingest", dump, "--store", store)
        except BaseException as error:
            failed.append(error)
        finally:
            has_ended.set()

    def look(reader, name):
        try:
            rows = READERS[reader](store / "index" / name)
        except (OSError, duckdb.IOException, pa.ArrowInvalid) as error:
            return "gone" if is_missing(error) else repr(error)
        # Of an index that was exchanged between the listing and the look at its first file, pyarrow makes a table
        # without columns, which nobody takes for one of steps.
        if not rows.num_columns:
            return "gone"
        found = Counter(zip(*(rows[key].to_pylist() for key in KEYS[name])))
        lacking, twice = (expected[name] - found).total(), (found - expected[name]).total()
        return f"{lacking} rows lacking, {twice} too many" if lacking or twice else "whole"

    writer = threading.Thread(target=write)
    writer.start()
    while not has_ended.is_set():
        for reader in WHILE_PACKING:
            seen[reader].update((name, look(reader, name)) for name in expected)
    writer.join()
    assert not failed, failed
    attnkit("verify", store, "--against", dump)
    return seen


@pytest.mark.parametrize("reader", WHILE_PACKING)
def test_who_reads_while_others_pack_sees_each_row_once_or_is_told_that_a_file_is_gone(seen, reader):
    assert seen[reader]["steps", "whole"] and seen[reader]["heads", "whole"]
    assert {what for _, what in seen[reader]} <= {"whole", "gone"}, seen[reader]


def test_who_lists_while_others_pack_lists_one_index_or_the_other(attnkit, tiny, tmp_path):
    attnkit("ingest", tiny, "--store", tmp_path / "store", "--videos", "v00*")
    before = {part.name for part in parts(tmp_path / "store", "steps")}
    places = [tmp_path / str(number) for number in range(5)]
    for place in places:
        shutil.copytree(tmp_path / "store", place)

    def listed_meanwhile(store):
        command = [os.environ["ATTNKIT_BIN"], "compact", store]
        with os.scandir(store / "index" / "steps") as opened, subprocess.Popen(command) as packing:
            while not (store / "index" / "records").exists() and packing.poll() is None:
                time.sleep(0.001)
            return {entry.name for entry in opened}

    # The former index stays for a moment; how long that is on a busy machine nobody knows.
    assert any(listed_meanwhile(place) == before for place in places)


def test_nothing_is_left_of_an_index_once_it_is_exchanged(attnkit, many):
    write_dump(many.parent / "dump", {("v007", "cat", 1): (random_step(9, (1, 2, 4, 1)), {})})
    attnkit("ingest", many.parent / "dump", "--store", many)
    attnkit("compact", many)
    attnkit("gc", many)
    assert not [path.name for path in many.iterdir() if path.name.startswith(".index")]
