"""`AttentionAnalyzer` on dumps and their stores, held against the files of the dumps as numpy reads them."""

from __future__ import annotations

import functools
import gzip
import importlib.util
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import attnkit
import numpy as np
import pytest
from attnkit import AttentionAnalyzer
from conftest import FIXTURES, write_dump

Array = np.ndarray[Any, Any]
Open = Callable[..., AttentionAnalyzer]

VIDEO, WORD = "prompt_000_vid001", "flower"
SHAPE = (2, 3, 12, 1)
DUMPS = ["dataset", *sorted(f"variants/{path.name}" for path in (FIXTURES / "variants").iterdir())]
STEP_BYTES = 30 * 12 * 23850 * 2


class Step(NamedTuple):
    array: Array
    metadata: dict[str, Any]


def read_array(path: Path) -> Array:
    """A step file without attnkit; bfloat16 as float32."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if ".npy" in path.suffixes:
        array = np.load(io.BytesIO(content))
        return np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    torch = pytest.importorskip("torch", reason="the dump is torch's")
    tensor = torch.load(io.BytesIO(content))
    return np.asarray(tensor.float() if tensor.dtype is torch.bfloat16 else tensor)


@functools.cache
def read_dump(root: Path) -> dict[tuple[str, str], dict[int, Step]]:
    """(video, word) -> step -> what its files hold; files of single blocks and heads are put together."""
    parts: dict[tuple[str, str, int], list[Step]] = {}
    for path in sorted(root.rglob("step_*_metadata.json")):
        metadata = json.loads(path.read_text())
        stem = path.name.removesuffix("_metadata.json")
        (file,) = path.parent.glob(f"{stem}.*")
        key = metadata["video_id"], metadata["token_word"], metadata["step"]
        parts.setdefault(key, []).append(Step(read_array(file), metadata))
    words: dict[tuple[str, str], dict[int, Step]] = {}
    for (video, word, step), files in parts.items():
        words.setdefault((video, word), {})[step] = files[0] if len(files) == 1 else put_together(files)
    return words


def put_together(files: list[Step]) -> Step:
    blocks, heads = (1 + max(file.metadata[key] for file in files) for key in ("block_idx", "head_idx"))
    array = np.concatenate([file.array for file in files]).reshape(blocks, heads, *files[0].array.shape[2:])
    whole = {"block_idx": None, "head_idx": None, "num_blocks": blocks, "num_heads": heads}
    described = {**whole, "attention_shape": list(array.shape), "aggregation_method": "per_step_full"}
    return Step(array, {**files[0].metadata, **described})


def assert_same(array: Array, expected: Array) -> None:
    """Bit for bit, NaN and -0.0 too."""
    assert (array.dtype, array.shape, array.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


def assert_mean(result: Array, values: Array, axis: int | tuple[int, ...]) -> None:
    """The float64 mean, rounded to float32."""
    exact = np.asarray(values.mean(axis=axis, dtype=np.float64)).astype(np.float32)
    assert (result.dtype, result.shape) == (np.float32, exact.shape)
    np.testing.assert_array_max_ulp(result, exact, 1)


@pytest.fixture(params=["dump", "store"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_as(kind: str, tmp_path: Path) -> Open:
    """Opens a dump as it is, or the store that is made of it."""

    def open(dump: Path, batch: Any = None) -> AttentionAnalyzer:
        if kind == "dump":
            return AttentionAnalyzer(dump, batch=batch)
        attnkit.ingest(dump, tmp_path / "maps.store", batch=batch)
        return AttentionAnalyzer(tmp_path / "maps.store")

    return open


@pytest.fixture
def opened(kind: str, dump: str, store_of: Callable[[str], attnkit.Store]) -> AttentionAnalyzer:
    """A bundled dump as it is, and its store."""
    return AttentionAnalyzer(FIXTURES / dump if kind == "dump" else store_of(dump).path)


@pytest.fixture(scope="module")
def analyzer() -> AttentionAnalyzer:
    """For what does not matter which dump it is of."""
    return AttentionAnalyzer(FIXTURES / "variants/averaged")


# What there is, and its arrays.


@pytest.mark.parametrize("dump", DUMPS)
def test_a_dump_and_its_store_hold_what_the_files_hold(opened: AttentionAnalyzer, dump: str) -> None:
    words = read_dump(FIXTURES / dump)
    assert opened.get_available_videos() == sorted({video for video, _ in words})
    for video in opened.get_available_videos():
        assert opened.get_available_tokens(video) == sorted(word for of, word in words if of == video)
    for (video, word), steps in words.items():
        assert opened.get_available_steps(video, word) == sorted(steps)
        for step, (array, _) in steps.items():
            assert_same(opened.load_step(video, word, step), array)
        assert_same(opened.load_all_steps(video, word), np.stack([steps[step].array for step in sorted(steps)]))


@pytest.mark.parametrize("dump", DUMPS)
def test_metadata_has_the_keys_and_values_of_the_json_files(opened: AttentionAnalyzer, dump: str) -> None:
    for (video, word), steps in read_dump(FIXTURES / dump).items():
        for step, (_, metadata) in steps.items():
            found = opened.load_metadata(video, word, step)
            # This file calls bfloat16 float16; a store says what it holds.
            differing = {"dtype"} if dump.endswith("bfloat16") else set()
            assert found.keys() >= metadata.keys()
            assert {key for key in found.keys() | metadata.keys() if found.get(key) != metadata.get(key)} <= differing


@pytest.mark.parametrize("dump", DUMPS)
def test_the_description_of_a_video_is_that_of_its_files(opened: AttentionAnalyzer, dump: str) -> None:
    for (video, word), steps in read_dump(FIXTURES / dump).items():
        first = steps[min(steps)]
        info = opened.get_video_info(video)
        assert (info["video_id"], info["tokens"].keys()) == (video, set(opened.get_available_tokens(video)))
        assert [info[key] for key in ("prompt", "seed", "cfg_scale")] == [
            first.metadata[key] for key in ("prompt", "seed", "cfg_scale")
        ]
        assert info["tokens"][word] == {"steps": sorted(steps), "shape": first.array.shape, "grid": (4, 12, 12)}
        summaries = [json.loads(path.read_text()) for path in (FIXTURES / dump).rglob(f"{video}/summary.json")]
        assert info["summary"] == (summaries[0] if summaries else None)


@pytest.mark.parametrize("dump", DUMPS)
def test_means_are_the_exact_means_of_the_files(opened: AttentionAnalyzer, dump: str) -> None:
    for (video, word), steps in read_dump(FIXTURES / dump).items():
        values = np.stack([steps[step].array for step in sorted(steps)])
        assert_mean(opened.compute_average_attention(video, word), values, (0, 1, 2))
        assert_mean(opened.get_temporal_evolution(video, word), values, (1, 2))
        assert_mean(opened.get_layer_analysis(video, word), values, 2)
        assert_mean(opened.get_head_analysis(video, word), values, 1)
        assert_mean(opened.get_layer_analysis(video, word, 4), steps[4].array, 1)
        assert_mean(opened.get_head_analysis(video, word, 4), steps[4].array, 0)
        assert_mean(opened.compute_average_attention(video, word, [9, 0]), values[[0, -1]], (0, 1, 2))
        maps = values.mean(axis=(1, 2, 4), dtype=np.float64).reshape(-1, 4, 12, 12)
        np.testing.assert_array_max_ulp(opened.get_spatial_attention_map(video, word), maps.astype(np.float32), 1)


@pytest.mark.parametrize("variant", ["torch", "torch_gzip", "torch_bfloat16"])
def test_torch_files_are_read_without_torch(variant: str) -> None:
    analyzer = AttentionAnalyzer(FIXTURES / "variants" / variant)
    for (video, word), steps in read_dump(FIXTURES / "variants/gzip").items():
        for step, (array, _) in steps.items():
            found = analyzer.load_step(video, word, step)
            if variant == "torch_bfloat16":  # seven bits of mantissa, none below
                assert found.dtype == np.float32 and not np.any(found.view(np.uint32) & 0xFFFF)
                np.testing.assert_allclose(found, array, rtol=2**-8, atol=2**-25)
            else:
                assert_same(found, array)


# Layouts and formats that generators write.


def each_step(dump: Path, rewrite: Callable[[Path, Array], None]) -> None:
    """Replaces the step files."""
    for path in sorted(dump.rglob("step_*.npy")):
        array = np.load(path)
        path.unlink()
        rewrite(path, array)


def replace_steps(dump: Path, arrays: Array | Sequence[Array]) -> None:
    each_step(dump, lambda path, _: np.save(path, arrays[int(path.stem.removeprefix("step_"))]))


def as_npy(version: tuple[int, int], change: Callable[[Array], Array]) -> Callable[[Path], None]:
    def rewrite(path: Path, array: Array) -> None:
        with path.open("wb") as file:
            np.lib.format.write_array(file, change(array), version)

    return lambda dump: each_step(dump, rewrite)


def as_npz(dump: Path) -> None:
    each_step(dump, lambda path, array: np.savez(path.with_suffix(".npz"), other=array[:1], attention=array))


def as_npz_of_one_array(dump: Path) -> None:
    each_step(dump, lambda path, array: np.savez_compressed(path.with_suffix(".npz"), maps=array))


def as_gzip(dump: Path) -> None:
    def rewrite(path: Path, array: Array) -> None:
        np.save(path, array)
        path.with_suffix(".npy.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()

    each_step(dump, rewrite)


def as_plain_beside_gzip(dump: Path) -> None:
    def rewrite(path: Path, array: Array) -> None:
        np.save(path, array * 2)
        path.with_suffix(".npy.gz").write_bytes(gzip.compress(path.read_bytes()))
        np.save(path, array)

    each_step(dump, rewrite)


def split_by(*axes: str) -> Callable[[Path], None]:
    """One file for each block, each head, or each of both."""

    def rewrite(path: Path, array: Array) -> None:
        beside = path.with_name(f"{path.stem}_metadata.json")
        metadata = json.loads(beside.read_text())
        beside.unlink()
        blocks, heads = (range(size) if axis in axes else [None] for axis, size in zip(("block", "head"), array.shape))
        for block, head in itertools.product(blocks, heads):
            part = array if block is None else array[block : block + 1]
            part = part if head is None else part[:, head : head + 1]
            stem = path.stem
            stem += "" if block is None else f"_block_{block:02d}"
            stem += "" if head is None else f"_head_{head:02d}"
            np.save(path.with_name(f"{stem}.npy"), part)
            described = {"block_idx": block, "head_idx": head, "attention_shape": list(part.shape)}
            path.with_name(f"{stem}_metadata.json").write_text(json.dumps({**metadata, **described}))

    return lambda dump: each_step(dump, rewrite)


def moved_to(*names: str) -> Callable[[Path], None]:
    def move(dump: Path) -> None:
        shutil.copytree(dump / VIDEO, dump.joinpath(*names))
        shutil.rmtree(dump / VIDEO)

    return move


def with_batch_of_one(dump: Path) -> None:
    each_step(dump, lambda path, array: np.save(path, array[:, None]))


def with_aggregate(dump: Path) -> None:
    for name in ("aggregate.npy", "aggregate.numpy.npy"):
        np.save(dump / VIDEO / f"token_{WORD}" / name, np.zeros((1, 1, 4, 1), np.float32))


FORMS: dict[str, Callable[[Path], object]] = {
    "documented": lambda dump: None,
    "npy 1, big-endian": as_npy((1, 0), lambda array: array.astype(">f2")),
    "npy 2, Fortran": as_npy((2, 0), np.asfortranarray),
    "npy 3, Fortran, big-endian": as_npy((3, 0), lambda array: np.asfortranarray(array.astype(">f2"))),
    "npz": as_npz,
    "npz of one array": as_npz_of_one_array,
    "gzip": as_gzip,
    "plain beside gzip": as_plain_beside_gzip,
    "by block": split_by("block"),
    "by head": split_by("head"),
    "by block and head": split_by("block", "head"),
    "nested": moved_to("prompt_000", "vid001"),
    "nested, older": moved_to("prompt_000", "vid_001"),
    "below a batch": moved_to("batch_name", "attention_maps", VIDEO),
    "batch of one": with_batch_of_one,
    "aggregates": with_aggregate,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_dump_gives_the_same_arrays(tmp_path: Path, open_as: Open, form: str) -> None:
    dump = tmp_path / "dump"
    values = write_dump(dump, 3, SHAPE)
    FORMS[form](dump)
    analyzer = open_as(dump)
    assert analyzer.get_available_videos() == [VIDEO]
    assert analyzer.get_available_tokens(VIDEO) == [WORD]
    assert_same(analyzer.load_all_steps(VIDEO, WORD), values)
    assert_same(analyzer.load_step(VIDEO, WORD, 1), values[1])
    assert analyzer.get_video_info(VIDEO)["tokens"][WORD]["shape"] == SHAPE
    assert_mean(analyzer.compute_average_attention(VIDEO, WORD), values, (0, 1, 2))


@pytest.mark.parametrize("below", [".", *(f"attention_maps/{path}" for path in (".", VIDEO, f"{VIDEO}/token_{WORD}"))])
def test_a_dump_may_be_named_by_any_directory_from_the_batch_to_the_word(tmp_path: Path, below: str) -> None:
    values = write_dump(tmp_path / "attention_maps", 2, SHAPE)
    (tmp_path / "configs").mkdir()
    (tmp_path / "batch_metadata.json").write_text("{}")
    for path in (str(tmp_path / below), tmp_path / below):
        assert_same(AttentionAnalyzer(path).load_all_steps(VIDEO, WORD), values)


@pytest.mark.parametrize("video", ["p000_b001_s000", "a video, ünïcode 視頻"])
@pytest.mark.parametrize(
    ("directory", "word"),
    [("flower:2.5", "flower"), *((word, word) for word in ("two people", "café 花 🌸", "cafe\u0301", "a:b", "%2F"))],
)
def test_words_and_videos_have_the_names_that_were_tracked(
    tmp_path: Path, open_as: Open, video: str, directory: str, word: str
) -> None:
    values = write_dump(tmp_path / "dump/prompt_000", 2, SHAPE, video, directory, token_word=word)
    analyzer = open_as(tmp_path / "dump")
    assert analyzer.get_available_videos() == [video]
    assert analyzer.get_available_tokens(video) == [word]
    assert_same(analyzer.load_all_steps(video, word), values)


def numbered(dump: Path, numbers: list[int]) -> None:
    """Gives the steps of a dump other numbers."""
    directory = dump / VIDEO / f"token_{WORD}"
    for old, new in reversed(list(enumerate(numbers))):
        document = json.loads((directory / f"step_{old:03d}_metadata.json").read_text())
        (directory / f"step_{old:03d}_metadata.json").unlink()
        (directory / f"step_{old:03d}.npy").rename(directory / f"step_{new:03d}.npy")
        (directory / f"step_{new:03d}_metadata.json").write_text(json.dumps({**document, "step": new}))


def test_steps_are_ordered_by_number_and_may_have_gaps(tmp_path: Path, open_as: Open) -> None:
    values = write_dump(tmp_path / "dump", 4, SHAPE)
    numbered(tmp_path / "dump", [0, 50, 999, 1000])
    analyzer = open_as(tmp_path / "dump")
    assert analyzer.get_available_steps(VIDEO, WORD) == [0, 50, 999, 1000]
    assert_same(analyzer.load_all_steps(VIDEO, WORD), values)
    assert_same(analyzer.load_step(VIDEO, WORD, 1000), values[3])
    assert analyzer.load_metadata(VIDEO, WORD, 999)["step"] == 999
    with pytest.raises(attnkit.NotFoundError, match="step 100 "):
        analyzer.load_step(VIDEO, WORD, 100)


def test_a_step_that_is_not_there_is_not_mistaken_for_a_damaged_one(tmp_path: Path) -> None:
    write_dump(tmp_path, 2, SHAPE)
    numbered(tmp_path, [0, 1000])
    (tmp_path / VIDEO / f"token_{WORD}/step_1000_metadata.json").unlink()
    analyzer = AttentionAnalyzer(tmp_path)
    with pytest.raises(attnkit.DumpError, match="step_1000_metadata.json"):
        analyzer.load_step(VIDEO, WORD, 1000)
    with pytest.raises(attnkit.NotFoundError, match="step 100 "):
        analyzer.load_step(VIDEO, WORD, 100)


def test_a_batch_axis_is_chosen_from_and_never_guessed_at(tmp_path: Path, open_as: Open) -> None:
    values = np.random.default_rng(3).random((2, 4, 3, 12, 1)).astype(np.float16)
    write_dump(tmp_path / "dump", 2, SHAPE, num_heads=4, attention_shape=[2, 4, 3, 12, 1])
    replace_steps(tmp_path / "dump", [values, values])
    with pytest.raises(attnkit.DumpError, match=r"step_000\.npy.*\[2, 4, 3, 12, 1\].*batch") as error:
        AttentionAnalyzer(tmp_path / "dump").load_step(VIDEO, WORD, 0)
    assert "--" not in str(error.value)
    with pytest.raises(attnkit.DumpError, match="4"):
        AttentionAnalyzer(tmp_path / "dump", batch=4).load_step(VIDEO, WORD, 0)
    analyzer = open_as(tmp_path / "dump", batch=1)
    assert_same(analyzer.load_step(VIDEO, WORD, 0), values[:, 1])
    assert analyzer.get_video_info(VIDEO)["tokens"][WORD]["shape"] == SHAPE


def test_a_batch_axis_is_averaged_if_asked_for(tmp_path: Path, open_as: Open) -> None:
    values = np.random.default_rng(3).random((2, 4, 3, 12, 1)).astype(np.float16)
    write_dump(tmp_path / "dump", 2, SHAPE)
    replace_steps(tmp_path / "dump", [values, values])
    mean = values.mean(axis=1, dtype=np.float64).astype(np.float16)
    assert_same(open_as(tmp_path / "dump", batch="mean").load_all_steps(VIDEO, WORD), np.stack([mean, mean]))


@pytest.mark.parametrize("batch", ["first", -1])
def test_a_batch_that_is_none_is_refused(batch: Any) -> None:
    with pytest.raises(ValueError, match="batch"):
        AttentionAnalyzer(FIXTURES / "dataset", batch=batch)


def test_the_shape_of_a_word_is_that_of_its_arrays_whatever_the_metadata_says(tmp_path: Path, open_as: Open) -> None:
    lies: dict[str, Any] = {"attention_shape": [1, 1, 12, 1], "num_blocks": 1, "num_heads": 1}
    values = write_dump(tmp_path / "dump", 2, SHAPE, aggregation_method="averaged", **lies)
    analyzer = open_as(tmp_path / "dump")
    assert_same(analyzer.load_all_steps(VIDEO, WORD), values)
    assert analyzer.get_video_info(VIDEO)["tokens"][WORD]["shape"] == SHAPE


def test_a_video_whose_words_were_not_found_has_its_summary(tmp_path: Path, open_as: Open) -> None:
    write_dump(tmp_path / "dump", 1, SHAPE)
    summary = {"stored_steps": [], "total_stored": 0, "target_tokens": {}, "storage_format": "numpy"}
    (tmp_path / "dump/prompt_001_vid001").mkdir()
    (tmp_path / "dump/prompt_001_vid001/summary.json").write_text(json.dumps(summary))
    analyzer = open_as(tmp_path / "dump")
    assert analyzer.get_available_videos() == [VIDEO, "prompt_001_vid001"]
    info = analyzer.get_video_info("prompt_001_vid001")
    assert (info["tokens"], info["prompt"], info["summary"]) == ({}, None, summary)


# Damage.


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_gzip(path: Path) -> None:
    packed = gzip.compress(path.read_bytes())
    path.with_suffix(".npy.gz").write_bytes(packed[:-9])
    path.unlink()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": halved,
    "empty": lambda path: path.write_bytes(b""),
    "another format": lambda path: path.write_bytes(b"GIF89a" * 40),
    "of integers": lambda path: np.save(path, np.ones(SHAPE, np.int32)),
    "of three axes": lambda path: np.save(path, np.ones(SHAPE[1:], np.float16)),
    "cut gzip": cut_gzip,
    "tensor gone": lambda path: path.unlink(),
    "metadata gone": lambda path: path.with_name(f"{path.stem}_metadata.json").unlink(),
}


@pytest.mark.parametrize("step", [0, 1, 2])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_step_is_named_and_the_others_are_read(
    tmp_path: Path, open_as: Open, kind: str, damage: str, step: int
) -> None:
    values = write_dump(tmp_path / "dump", 3, SHAPE)
    DAMAGES[damage](tmp_path / "dump" / VIDEO / f"token_{WORD}/step_{step:03d}.npy")
    analyzer = open_as(tmp_path / "dump")
    others = [other for other in range(3) if other != step]
    assert set(others) <= set(analyzer.get_available_steps(VIDEO, WORD))
    for other in others:
        assert_same(analyzer.load_step(VIDEO, WORD, other), values[other])
    assert_same(analyzer.load_all_steps(VIDEO, WORD, others), values[others])
    assert_mean(analyzer.compute_average_attention(VIDEO, WORD, others), values[others], (0, 1, 2))
    # Ingest left the step out, and said so.
    error = attnkit.DumpError if kind == "dump" else attnkit.NotFoundError
    said = f"step_{step:03d}" if kind == "dump" else f"step {step}"
    with pytest.raises(error, match=said):
        analyzer.load_step(VIDEO, WORD, step)
    with pytest.raises(error, match=said):
        analyzer.compute_average_attention(VIDEO, WORD, [0, 1, 2])


@pytest.mark.parametrize("damage", ["truncated", "empty", "metadata gone"])
def test_a_damaged_first_step_does_not_hide_the_grid_and_the_description(tmp_path: Path, damage: str) -> None:
    values = write_dump(tmp_path, 3, (2, 3, 576, 1), video_frames=13, video_height=192, video_width=192)
    DAMAGES[damage](tmp_path / VIDEO / f"token_{WORD}/step_000.npy")
    analyzer = AttentionAnalyzer(tmp_path)
    expected = values[1].mean(axis=(0, 1), dtype=np.float64).reshape(1, 4, 12, 12).astype(np.float32)
    np.testing.assert_array_max_ulp(analyzer.get_spatial_attention_map(VIDEO, WORD, step=1), expected, 1)
    assert analyzer.get_video_info(VIDEO)["tokens"][WORD]["shape"] == (2, 3, 576, 1)


def test_metadata_that_does_not_parse_is_named_and_the_array_is_read(tmp_path: Path) -> None:
    values = write_dump(tmp_path, 2, SHAPE)
    halved(tmp_path / VIDEO / f"token_{WORD}/step_000_metadata.json")
    analyzer = AttentionAnalyzer(tmp_path)
    with pytest.raises(attnkit.DumpError, match="step_000_metadata.json"):
        analyzer.load_metadata(VIDEO, WORD, 0)
    assert_same(analyzer.load_all_steps(VIDEO, WORD), values)
    assert analyzer.load_metadata(VIDEO, WORD, 1)["step"] == 1
    maps = analyzer.get_spatial_attention_map(VIDEO, WORD, height=3, width=4, frames=1)
    assert maps.shape == (2, 1, 3, 4)


@pytest.mark.parametrize("missing", ["block_00_head_01", "block_01_head_02"])
def test_a_split_step_is_read_only_if_all_its_parts_are_there(tmp_path: Path, missing: str) -> None:
    values = write_dump(tmp_path, 2, SHAPE)
    split_by("block", "head")(tmp_path)
    (tmp_path / VIDEO / f"token_{WORD}" / f"step_000_{missing}.npy").unlink()
    analyzer = AttentionAnalyzer(tmp_path)
    with pytest.raises(attnkit.DumpError, match=f"step_000.*{missing}"):
        analyzer.load_step(VIDEO, WORD, 0)
    assert_same(analyzer.load_step(VIDEO, WORD, 1), values[1])


def test_nan_and_infinity_are_kept_and_stay_where_they_are(tmp_path: Path, open_as: Open) -> None:
    values = write_dump(tmp_path / "dump", 2, SHAPE)
    values[0, 0, 0, 1], values[0, 1, 2, 2], values[1, 0, 1, 3], values[1, 1, 1, 4] = np.nan, np.inf, -np.inf, -0.0
    values[0, 0, 0, 5].view(np.uint16)[:] = 0x7E55  # a NaN with a payload
    replace_steps(tmp_path / "dump", values)
    analyzer = open_as(tmp_path / "dump")
    assert_same(analyzer.load_all_steps(VIDEO, WORD), values)
    mean = analyzer.compute_average_attention(VIDEO, WORD)[:, 0]
    assert np.isnan(mean).nonzero()[0].tolist() == [1, 5]
    assert (mean[2], mean[3]) == (np.inf, -np.inf)
    finite = [0, 4, *range(6, 12)]
    assert_mean(mean[finite], values[..., finite, 0], (0, 1, 2))


@pytest.mark.parametrize("odd", [np.ones((2, 3, 13, 1), np.float16), np.ones(SHAPE, np.float32)], ids=["shape", "type"])
def test_steps_that_do_not_stack_are_named_and_load_one_by_one(tmp_path: Path, odd: Array) -> None:
    values = write_dump(tmp_path, 3, SHAPE)
    np.save(tmp_path / VIDEO / f"token_{WORD}/step_001.npy", odd)
    analyzer = AttentionAnalyzer(tmp_path)
    with pytest.raises(attnkit.DumpError, match="step 1 .*step 0 ") as error:
        analyzer.load_all_steps(VIDEO, WORD)
    assert str(list(SHAPE)) in str(error.value) and str(list(odd.shape)) in str(error.value)
    assert_same(analyzer.load_step(VIDEO, WORD, 1), odd)
    assert_same(analyzer.load_all_steps(VIDEO, WORD, [0, 2]), values[[0, 2]])
    if odd.shape == SHAPE:  # means are float32 of any type
        both = np.stack([values[0], odd, values[2]])
        assert_mean(analyzer.compute_average_attention(VIDEO, WORD), both, (0, 1, 2))
    else:
        with pytest.raises(attnkit.DumpError, match="step 1 .*step 0 "):
            analyzer.compute_average_attention(VIDEO, WORD)


@pytest.mark.parametrize("path", ["gone", "a_file", "empty"])
def test_a_path_with_neither_a_store_nor_a_dump_is_said_to_be_so(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a_file").write_text("")
    with pytest.raises(attnkit.NotFoundError, match=path):
        AttentionAnalyzer(tmp_path / path)


# Loading.


@pytest.mark.parametrize("steps", [[2, 0, 3], (1,), np.array([3, 1]), [0, 0], range(1, 4)])
def test_steps_come_in_the_order_asked_for(tmp_path: Path, open_as: Open, steps: Any) -> None:
    values = write_dump(tmp_path / "dump", 4, SHAPE)
    arrays, metadata = open_as(tmp_path / "dump").load_all_steps(VIDEO, WORD, steps=steps, with_metadata=True)
    assert_same(arrays, values[list(steps)])
    assert [document["step"] for document in metadata] == list(steps)


def test_metadata_comes_with_the_array_if_asked_for(tmp_path: Path, open_as: Open) -> None:
    values = write_dump(tmp_path / "dump", 2, SHAPE)
    analyzer = open_as(tmp_path / "dump")
    array, metadata = analyzer.load_step(VIDEO, WORD, 1, with_metadata=True)
    assert_same(array, values[1])
    assert (metadata["timestep"], metadata["token_ids"], metadata["seed"]) == (998.0, [93643], 999)
    _, documents = analyzer.load_all_steps(VIDEO, WORD, with_metadata=True)
    assert documents == [analyzer.load_metadata(VIDEO, WORD, 0), metadata]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_keep_their_type_and_are_the_callers_own(tmp_path: Path, open_as: Open, dtype: type) -> None:
    values: Array = np.random.default_rng(1).random((2, *SHAPE)).astype(dtype)
    write_dump(tmp_path / "dump", 2, SHAPE, dtype=f"torch.{np.dtype(dtype)}")
    replace_steps(tmp_path / "dump", values)
    analyzer = open_as(tmp_path / "dump")
    for array, expected in (
        (analyzer.load_step(VIDEO, WORD, 1), values[1]),
        (analyzer.load_all_steps(VIDEO, WORD), values),
    ):
        assert_same(array, expected)
        array[...] = 0  # raises if it cannot be written
    assert_same(analyzer.load_all_steps(VIDEO, WORD), values)
    assert_mean(analyzer.compute_average_attention(VIDEO, WORD), values, (0, 1, 2))


@pytest.mark.parametrize(
    ("ask", "there"),
    [
        (lambda analyzer: analyzer.get_available_tokens("v9"), VIDEO),
        (lambda analyzer: analyzer.get_video_info("v9"), VIDEO),
        (lambda analyzer: analyzer.get_available_steps(VIDEO, "tree"), WORD),
        (lambda analyzer: analyzer.load_all_steps(VIDEO, "tree"), WORD),
        (lambda analyzer: analyzer.get_spatial_attention_map(VIDEO, "tree"), WORD),
        (lambda analyzer: analyzer.load_step(VIDEO, WORD, 7), "0, 1, 2"),
        (lambda analyzer: analyzer.load_step(VIDEO, WORD, -1), "0, 1, 2"),
        (lambda analyzer: analyzer.load_metadata(VIDEO, WORD, 7), "0, 1, 2"),
        (lambda analyzer: analyzer.load_all_steps(VIDEO, WORD, [0, 7]), "0, 1, 2"),
        (lambda analyzer: analyzer.load_all_steps(VIDEO, WORD, []), "0, 1, 2"),
        (lambda analyzer: analyzer.compute_average_attention(VIDEO, WORD, [7]), "0, 1, 2"),
        (lambda analyzer: analyzer.get_layer_analysis(VIDEO, WORD, 7), "0, 1, 2"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(
    tmp_path: Path, open_as: Open, ask: Callable[[AttentionAnalyzer], object], there: str
) -> None:
    write_dump(tmp_path / "dump", 3, SHAPE)
    with pytest.raises(attnkit.NotFoundError, match=there) as error:
        ask(open_as(tmp_path / "dump"))
    assert isinstance(error.value, LookupError) and isinstance(error.value, FileNotFoundError)


@pytest.mark.parametrize("method", ["load_all_steps", "compute_average_attention"])
def test_half_a_step_is_not_taken_for_a_whole_one(tmp_path: Path, method: str) -> None:
    write_dump(tmp_path, 3, SHAPE)
    with pytest.raises((TypeError, LookupError)):
        getattr(AttentionAnalyzer(tmp_path), method)(VIDEO, WORD, [1.5])


# Means of arrays in memory.

METHODS = {"aggregate_blocks": -4, "aggregate_heads": -3, "aggregate_tokens": -1, "aggregate_steps": 0}
ORDERS: dict[str, Callable[[Array], Array]] = {
    "C": lambda array: array,
    "Fortran": np.asfortranarray,
    "strided": lambda array: np.repeat(array, 2, axis=-2)[..., ::2, :],
    "reversed": lambda array: array[::-1, ..., ::-1, :],
    "transposed": lambda array: np.ascontiguousarray(array.swapaxes(0, -2)).swapaxes(0, -2),
    "read-only": lambda array: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(30, 12, 50, 2), (3, 30, 12, 50, 2)], ids=["a step", "steps"])
def test_means_of_arrays_are_exact_and_leave_them_alone(
    analyzer: AttentionAnalyzer, method: str, order: str, dtype: type, shape: tuple[int, ...]
) -> None:
    values = ORDERS[order](np.random.default_rng(5).gamma(0.3, 1e-3, shape).astype(dtype))
    before = values.copy()
    assert_mean(getattr(analyzer, method)(values), values, METHODS[method])
    np.testing.assert_array_equal(values, before)


def test_arrays_of_another_byte_order_are_averaged(analyzer: AttentionAnalyzer) -> None:
    for path in (FIXTURES / "variants/fortran_big_endian").rglob("*.npy"):
        array = np.load(path)
        assert array.dtype == ">f2"
        assert_mean(analyzer.aggregate_blocks(array), array, 0)


@pytest.mark.parametrize("method", METHODS)
def test_sums_may_leave_the_range_of_float16(analyzer: AttentionAnalyzer, method: str) -> None:
    values = np.full((4, 30, 12, 5, 3), 60000, np.float16)
    np.testing.assert_array_equal(getattr(analyzer, method)(values), np.float32(60000))


def test_sums_may_leave_the_range_and_the_precision_of_float32(analyzer: AttentionAnalyzer) -> None:
    large = np.full((30, 2, 5, 1), 3e38, np.float32)
    np.testing.assert_array_equal(analyzer.aggregate_blocks(large), np.float32(3e38))
    spread = np.array([2.0**30, 1.0, -(2.0**30), 1.0], np.float32).reshape(4, 1, 1, 1)
    assert analyzer.aggregate_blocks(spread).item() == 0.5


def test_blocks_then_heads_is_the_mean_over_both(analyzer: AttentionAnalyzer) -> None:
    values = np.random.default_rng(5).gamma(0.3, 1e-3, (3, 6, 4, 50, 1)).astype(np.float16)
    both = analyzer.aggregate_heads(analyzer.aggregate_blocks(values))
    assert both.shape == (3, 50, 1)
    np.testing.assert_allclose(both, values.mean(axis=(1, 2), dtype=np.float64), rtol=2e-7)


@pytest.mark.parametrize(
    ("method", "axes"),
    [("aggregate_blocks", 3), ("aggregate_heads", 2), ("aggregate_tokens", 0), ("aggregate_steps", 0)],
)
def test_arrays_of_too_few_axes_are_refused(analyzer: AttentionAnalyzer, method: str, axes: int) -> None:
    with pytest.raises(ValueError, match=method.removeprefix("aggregate_") + "|axis|shape"):
        getattr(analyzer, method)(np.ones((2,) * axes, np.float32))


@pytest.mark.parametrize("dtype", [np.int64, bool, np.complex64])
def test_arrays_that_are_not_of_floats_are_refused_in_words(analyzer: AttentionAnalyzer, dtype: type) -> None:
    with pytest.raises(TypeError, match="float16, float32 or float64"):
        analyzer.aggregate_blocks(np.ones(SHAPE, dtype))


# Grids.

SIZES: dict[str, dict[str, int]] = {
    "of the metadata": {},
    "in pixels": {"frames": 13, "height": 192, "width": 192},
    "latent": {"frames": 4, "height": 12, "width": 12},
    "pixels, latent frames": {"frames": 4, "height": 192, "width": 192},
    "of the 5B model": {"frames": 13, "height": 384, "width": 384},
    "not square": {"frames": 13, "height": 96, "width": 384},
    "partly of the metadata": {"frames": 4},
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", [None, 1])
def test_maps_unflatten_by_pixels_or_latent_sizes(tmp_path: Path, open_as: Open, size: str, step: int | None) -> None:
    values = write_dump(tmp_path / "dump", 3, (2, 3, 576, 2), video_frames=13, video_height=192, video_width=192)
    maps = open_as(tmp_path / "dump").get_spatial_attention_map(VIDEO, WORD, step, **SIZES[size])
    means = values.mean(axis=(1, 2, 4), dtype=np.float64)[slice(None) if step is None else [step]]
    grid = (4, 6, 24) if size == "not square" else (4, 12, 12)
    assert (maps.shape, maps.dtype) == ((len(means), *grid), np.float32)
    np.testing.assert_allclose(maps.reshape(means.shape), means, rtol=2e-7)


@pytest.mark.parametrize(
    ("spatial", "size", "said"),
    [
        (576, {"frames": 5, "height": 100, "width": 100}, ["2x6x6", "2x3x3", "2x100x100", "5x6x6", "5x100x100"]),
        (576, {}, ["height", "width", "frames"]),
        (576, {"height": 192}, ["height", "width", "frames"]),
        (4, {"frames": 4, "height": 32, "width": 32}, ["1x2x2", "4x1x1"]),
        (576, {"frames": 4, "height": -12, "width": 12}, ["height"]),
        (576, {"frames": 4, "height": 0, "width": 12}, ["height"]),
    ],
    ids=["none fits", "unknown", "partly unknown", "several fit", "negative", "zero"],
)
def test_a_grid_that_cannot_be_told_is_an_error_that_says_why(
    tmp_path: Path, open_as: Open, spatial: int, size: dict[str, int], said: list[str]
) -> None:
    write_dump(tmp_path / "dump", 2, (2, 3, spatial, 1))
    with pytest.raises(ValueError) as error:
        open_as(tmp_path / "dump").get_spatial_attention_map(VIDEO, WORD, **size)
    assert all(word in str(error.value) for word in said), error.value
    assert "--" not in str(error.value), "this is Python, not a command line"


def test_metadata_that_does_not_fit_is_said_and_can_be_overridden(tmp_path: Path, open_as: Open) -> None:
    write_dump(tmp_path / "dump", 2, (2, 3, 577, 1), video_frames=13, video_height=192, video_width=192)
    analyzer = open_as(tmp_path / "dump")
    with pytest.raises(ValueError, match="4x12x12"):
        analyzer.get_spatial_attention_map(VIDEO, WORD)
    assert analyzer.get_spatial_attention_map(VIDEO, WORD, frames=1, height=1, width=577).shape == (2, 1, 1, 577)
    assert analyzer.get_video_info(VIDEO)["tokens"][WORD]["grid"] is None


# Long work.


@pytest.fixture(scope="module")
def large_dump(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """20 steps of a WAN 2.1 video, 343 MB."""
    root = tmp_path_factory.mktemp("large") / "dump"
    values = write_dump(root, 1, (30, 12, 23850, 1))[0]
    directory = root / VIDEO / f"token_{WORD}"
    document = json.loads((directory / "step_000_metadata.json").read_text())
    for step in range(1, 20):
        np.save(directory / f"step_{step:03d}.npy", np.roll(values, step, axis=2))
        (directory / f"step_{step:03d}_metadata.json").write_text(json.dumps({**document, "step": step}))
    yield root
    shutil.rmtree(root.parent)


@pytest.fixture(scope="module")
def large(request: pytest.FixtureRequest, large_dump: Path) -> Path:
    """The same as a store, with rollups or not."""
    if request.param == "dump":
        return large_dump
    store = large_dump.parent / f"{request.param}.store"
    if not store.exists():
        attnkit.ingest(large_dump, store, codec="fast", rollups="all" if request.param == "store" else "none")
    return store


# What `getrusage` says of a process began with what its parent held; VmHWM is its own.
MEASURE_MEMORY = """
import re, sys
from pathlib import Path
import numpy as np
import attnkit

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])

path, out = sys.argv[1:]
analyzer = attnkit.AttentionAnalyzer(path)
start = peak()
mean = analyzer.compute_average_attention("prompt_000_vid001", "flower")
evolution = analyzer.get_temporal_evolution("prompt_000_vid001", "flower")
averaged = peak()
np.savez(out, mean=mean, evolution=evolution)
analyzer.load_all_steps("prompt_000_vid001", "flower")
print(averaged - start, peak() - start)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("large", ["dump", "store", "store without rollups"], indirect=True)
def test_means_hold_a_few_steps_at_a_time(large: Path, large_dump: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEASURE_MEMORY, str(large), str(tmp_path / "means.npz")]
    environment = {**os.environ, "RAYON_NUM_THREADS": "2"}
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    averaging, loading = map(int, printed.split())
    assert averaging < 200e6 < 20 * STEP_BYTES < loading
    means = np.load(tmp_path / "means.npz")
    first = np.load(large_dump / VIDEO / f"token_{WORD}/step_000.npy").mean(axis=(0, 1), dtype=np.float64)
    rolled = np.stack([np.roll(first, step, axis=0) for step in range(20)])
    np.testing.assert_allclose(means["evolution"], rolled, rtol=2e-7)
    np.testing.assert_allclose(means["mean"], rolled.mean(axis=0), rtol=2e-7)


INTERRUPTED = """
import sys
import attnkit

analyzer = attnkit.AttentionAnalyzer(sys.argv[1])
print("ready", flush=True)
try:
    while True:
        {work}
except KeyboardInterrupt:
    print("stopped", analyzer.load_step("prompt_000_vid001", "flower", 3).shape, flush=True)
"""


@pytest.mark.parametrize(
    "work",
    [
        "analyzer.load_all_steps('prompt_000_vid001', 'flower')",
        "analyzer.compute_average_attention('prompt_000_vid001', 'flower', steps=list(range(20)) * 10000)",
        "analyzer.get_temporal_evolution('prompt_000_vid001', 'flower')",
    ],
    ids=["load_all_steps", "one long mean", "get_temporal_evolution"],
)
@pytest.mark.parametrize("large", ["dump", "store without rollups"], indirect=True)
def test_ctrl_c_stops_long_work_at_once_and_leaves_the_analyzer_usable(large: Path, work: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED.format(work=work), str(large)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        rest, _ = process.communicate(timeout=30)
        assert (process.returncode, rest) == (0, "stopped (30, 12, 23850, 1)\n")
        assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    "work",
    [
        lambda analyzer: analyzer.load_all_steps("prompt_000_vid001", "circle"),
        lambda analyzer: analyzer.compute_average_attention("prompt_000_vid001", "circle"),
        lambda analyzer: analyzer.get_spatial_attention_map("prompt_000_vid001", "circle"),
    ],
)
def test_progress_is_told_in_steps_up_to_the_last(work: Callable[[AttentionAnalyzer], object]) -> None:
    told: list[tuple[int, int]] = []
    work(AttentionAnalyzer(FIXTURES / "dataset", progress=lambda done, all: told.append((done, all))))
    assert told[-1] == (10, 10) and told == sorted(told) and {all for _, all in told} == {10}


def test_an_error_of_the_progress_function_stops_the_work() -> None:
    def stop(done: int, all: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        AttentionAnalyzer(FIXTURES / "dataset", progress=stop).load_all_steps("prompt_000_vid001", "circle")


def test_progress_is_shown_by_tqdm(capsys: pytest.CaptureFixture[str]) -> None:
    tqdm = pytest.importorskip("tqdm").tqdm
    for progress in (True, tqdm):
        AttentionAnalyzer(FIXTURES / "dataset", progress=progress).load_all_steps("prompt_000_vid001", "circle")
        assert "load circle: 100%" in capsys.readouterr().err


# torch.


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed")
def test_torch_is_missed_when_the_analyzer_is_made() -> None:
    with pytest.raises(ImportError, match="torch"):
        AttentionAnalyzer(FIXTURES / "dataset", framework="torch")


def test_another_framework_is_refused() -> None:
    with pytest.raises(ValueError, match="jax"):
        AttentionAnalyzer(FIXTURES / "dataset", framework="jax")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "dtype"),
    [
        (lambda analyzer: analyzer.load_step("prompt_000_vid001", "circle", 4), "float16"),
        (lambda analyzer: analyzer.load_all_steps("prompt_000_vid001", "circle"), "float16"),
        (lambda analyzer: analyzer.get_temporal_evolution("prompt_000_vid001", "circle"), "float32"),
        (lambda analyzer: analyzer.get_spatial_attention_map("prompt_000_vid001", "circle"), "float32"),
        (lambda analyzer: analyzer.get_layer_analysis("prompt_000_vid001", "circle", 4), "float32"),
        (lambda analyzer: analyzer.get_head_analysis("prompt_000_vid001", "circle"), "float32"),
        (lambda analyzer: analyzer.compute_average_attention("prompt_000_vid001", "circle"), "float32"),
    ],
)
def test_tensors_have_the_values_of_the_arrays(method: Callable[[AttentionAnalyzer], Any], dtype: str) -> None:
    torch = pytest.importorskip("torch")
    tensor = method(AttentionAnalyzer(FIXTURES / "variants/gzip", framework="torch"))
    assert isinstance(tensor, torch.Tensor) and tensor.dtype is getattr(torch, dtype)
    assert_same(tensor.numpy(), method(AttentionAnalyzer(FIXTURES / "variants/gzip")))
    tensor.zero_()  # raises if it cannot be written


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("kind", ["plain", "requires_grad", "transposed", "expanded"])
def test_means_of_tensors_are_exact_tensors(analyzer: AttentionAnalyzer, method: str, dtype: str, kind: str) -> None:
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(5).gamma(0.3, 1e-3, (3, 30, 12, 50, 2))
    tensor = torch.from_numpy(values).to(getattr(torch, dtype))
    if kind == "requires_grad":
        tensor.requires_grad_()
    elif kind == "transposed":
        tensor = tensor.transpose(0, 3).contiguous().transpose(0, 3)
    elif kind == "expanded":
        tensor = tensor[:, :1].expand(3, 30, 12, 50, 2)
    result = getattr(analyzer, method)(tensor)
    assert isinstance(result, torch.Tensor) and result.dtype is torch.float32
    assert_mean(result.numpy(), tensor.detach().double().numpy(), METHODS[method])


@pytest.mark.parametrize(("dtype", "value"), [("float16", 60000.0), ("bfloat16", 2.0**127), ("float32", 2.0**127)])
def test_sums_of_tensors_may_leave_the_range_of_their_type(
    analyzer: AttentionAnalyzer, dtype: str, value: float
) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.full((30, 12, 5, 1), value).to(getattr(torch, dtype))
    assert analyzer.aggregate_blocks(tensor).unique().tolist() == [tensor[0, 0, 0, 0].item()]
