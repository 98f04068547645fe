"""docs/store-format.md says enough to read a store, and says the truth."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import second_reader
import xxhash
from committed import coordinate, has_step_arrays, parts, words
from source_dump import DATASET, same_bits, step_arrays, step_files

ARRAYS = ("attention", "mean_head", "mean_block", "mean")
COORDINATES = ("step", "timestep")


def footer(part):
    return {key.decode(): value.decode() for key, value in pq.ParquetFile(part).metadata.metadata.items()}


def test_a_second_reader_finds_every_value(dump, store):
    expected = step_arrays(dump)
    for video, token, group, rows in words(store):
        attention = second_reader.read_array(group / "attention")
        for row in rows:
            assert same_bits(attention[row["row"]], expected.pop((video, token, row["step"])))
        exact = attention.astype(np.float64)
        for name, axes in {"mean_head": 2, "mean_block": 1, "mean": (1, 2)}.items():
            assert same_bits(second_reader.read_array(group / name), exact.mean(axis=axes).astype(np.float32)), name
        for name in ("step", "timestep"):
            assert coordinate(group, name, second_reader.read_array) == [row[name] for row in rows]
    assert not expected


def test_paths_are_encoded_names_and_a_generation(store):
    for video, token, group, rows in words(store):
        assert rows[0]["array"] == f"{group.relative_to(store).as_posix()}/attention"
        maps, video_part, last = group.relative_to(store).parts
        token_part, generation = last.split("@")
        assert (maps, video_part, token_part) == ("maps", second_reader.encode(video), second_reader.encode(token))
        assert second_reader.GENERATION.fullmatch(generation)
        for index in ("steps", "heads"):
            assert (store / "index" / index / f"{video_part}.parquet").is_file()


NAMES = {
    "flower": "flower",
    "two people": "two~20people",
    "Tower": "~54ower",
    "花": "~e8~8a~b1",
    "v1.5": "v1.5",
    ".hidden.": "~2ehidden~2e",
    "con": "~63on",
    "nul.txt": "~6eul.txt",
    "zarr.json": "~7aarr.json",
    "zarr.json.x": "zarr.json.x",
    "console": "console",
    "a~b": "a~7eb",
    "": "~",
    "x" * 160: "x" * 160,
    "x" * 161: "x" * 120 + "~~" + xxhash.xxh3_128_hexdigest(b"x" * 161),
    "xx" + "é" * 60: "xx" + "~c3~a9" * 19 + "~c3" + "~~" + xxhash.xxh3_128_hexdigest(("xx" + "é" * 60).encode()),
}


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:12] or "empty")
def test_names_are_encoded_reversibly(name):
    assert second_reader.encode(name) == NAMES[name]
    assert second_reader.decode(NAMES[name]) == (None if "~~" in NAMES[name] else name)


def test_odd_words_are_stored_under_their_encoded_names(attnkit, tmp_path):
    source = DATASET / "attention_maps" / "prompt_000_vid001" / "token_circle"
    odd = {name for name in NAMES if 0 < len(name.encode()) < 240}
    for name in odd:
        directory = tmp_path / "dump" / "prompt_000_vid001" / f"token_{name}"
        directory.mkdir(parents=True)
        shutil.copy(source / "step_000.npy", directory)
        metadata = json.loads((source / "step_000_metadata.json").read_text()) | {
            "token_word": name,
            "token_texts": [name],
        }
        (directory / "step_000_metadata.json").write_text(json.dumps(metadata))
    attnkit("ingest", tmp_path / "dump", "--store", tmp_path / "store")
    stored = {token: group for _, token, group, _ in words(tmp_path / "store")}
    assert set(stored) == odd
    for token, group in stored.items():
        assert group.name.split("@")[0] == second_reader.encode(token)
        attributes = json.loads((group / "zarr.json").read_text())["attributes"]["attnkit"]
        assert attributes["token"] == token


def test_the_root_document_carries_its_checksum(store):
    attributes = json.loads((store / "zarr.json").read_text())["attributes"]["attnkit"]
    assert second_reader.checksum_of(store / "zarr.json", attributes["checksum"]) == attributes["checksum"]


@pytest.mark.parametrize("index", ["steps", "heads"])
def test_parts_carry_their_checksum(store, index):
    for part in parts(store, index):
        checksum = footer(part)["attnkit.checksum"]
        assert second_reader.checksum_of(part, checksum) == checksum


def test_both_parts_of_a_video_are_of_one_generation(store):
    for steps, heads in zip(parts(store, "steps"), parts(store, "heads"), strict=True):
        generation = footer(steps)["attnkit.generation"]
        assert steps.name == heads.name and footer(heads)["attnkit.generation"] == generation
        assert second_reader.GENERATION.fullmatch(generation)


def test_the_commit_lists_the_hash_of_every_document(store):
    listed = {}
    for part in parts(store, "steps"):
        listed |= json.loads(footer(part)["attnkit.video"])["documents"]
    expected = {
        (group.relative_to(store) / name / "zarr.json").as_posix()
        for _, _, group, rows in words(store)
        for name in ("", *ARRAYS, *(COORDINATES if has_step_arrays([row["step"] for row in rows]) else ()))
    }
    assert set(listed) == expected
    for document, expected in listed.items():
        assert xxhash.xxh3_128_hexdigest((store / document).read_bytes()) == expected, document


def test_the_commit_tells_the_sizes_of_arrays(store):
    records = [json.loads(footer(part)["attnkit.video"]) for part in parts(store, "steps")]
    told = {(record["video_id"], token): of for record in records for token, of in record["arrays"].items()}
    for video, token, group, _ in words(store):
        sizes = {name: sum(path.stat().st_size for path in (group / name).iterdir()) for name in ARRAYS}
        attention = sizes.pop("attention")
        lossy = json.loads((group / "zarr.json").read_text())["attributes"]["attnkit"]["lossy"]
        expected = {"attention": attention, "rollups": sum(sizes.values()), "lossy": lossy}
        assert told.pop((video, token)) == expected
    assert not told


def test_the_commit_holds_the_summary_of_its_video(dataset_store):
    for part in parts(dataset_store, "steps"):
        video = json.loads(footer(part)["attnkit.video"])
        summary = DATASET / "attention_maps" / video["video_id"] / "summary.json"
        assert video["summary"] == json.loads(summary.read_text())


def test_every_row_says_which_files_it_came_from(dump, store):
    files = step_files(dump)
    for part in parts(store, "steps"):
        rows = pq.ParquetFile(part).read()
        modified = rows["source_modified"].cast(pa.int64()).to_pylist()
        for row, microseconds in zip(rows.to_pylist(), modified):
            tensors, metadata = zip(*(of_part[2:] for of_part in files[row["video_id"], row["token"], row["step"]]))
            assert Path(row["source"]).name == tensors[0].name
            assert row["source_bytes"] == sum(path.stat().st_size for path in tensors)
            latest = max(path.stat().st_mtime_ns for path in (*tensors, *metadata))
            assert microseconds == latest // 1000
            assert row["source_signature"] == second_reader.signature_of(zip(tensors, metadata))
            content = b"".join(path.read_bytes() for path in (*sorted(tensors), *sorted(metadata)))
            assert row["content_hash"] == xxhash.xxh3_128_hexdigest(content)
