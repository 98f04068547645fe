"""Dumps that are captured: what is in their files, and that an ingest of them is the store that would be captured."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import attnkit
import numpy as np
import pytest
import tiny
import torch
from attnkit.capturing.dumping import DumpOfVideos, directories_of, videos_of
from attnkit.capturing.pooling import Pooling
from attnkit.capturing.writing import CapturedStep
from steps import step
from tiny import CALL, PROMPT, seeded

FORMATS = {("numpy", False): ".npy", ("numpy", True): ".npy.gz", ("torch", False): ".pt", ("torch", True): ".pt.gz"}
PROMPTS = ["two people and a flower", "a flower and two people"]
#: Columns that tell where and when a row was written, and the hash of what it was read from.
OF_SOURCE = ["array", "source", "source_bytes", "source_modified", "source_signature", "content_hash"]


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny.wan()


def captured(pipe: Any, store: Path, dump: DumpOfVideos, **options: Any) -> list[CapturedStep]:
    """Generates two videos, and captures them into a store and a dump at once."""
    steps: list[CapturedStep] = []

    def on_step(step: CapturedStep) -> None:
        steps.append(step)
        dump.write(step)

    words = ["(flower:2.5)", "two people"]
    with attnkit.capture(pipe, store, words, on_step=on_step, metadata={"note": "é"}, **options):
        pipe(prompt=PROMPTS, generator=[seeded(7), seeded(8)], **CALL)
    dump.close()
    return steps


def files(dump: Path) -> dict[str, bytes]:
    return {str(path.relative_to(dump)): path.read_bytes() for path in dump.rglob("*") if path.is_file()}


CHOICES: list[dict[str, Any]] = [
    {},
    {"dtype": "float32"},
    {"average": "heads"},
    {"average": "blocks", "dtype": "float32"},
    {"average": ["blocks", "heads"]},
    {"blocks": [2, 0], "every": 2},
    {"blocks": [1, 2], "average": "heads"},
]


@pytest.mark.parametrize(
    "storage_format, compress, options",
    [(*kind, {}) for kind in FORMATS if kind != ("numpy", False)] + [("numpy", False, options) for options in CHOICES],
)
def test_an_ingest_of_a_dump_is_the_store(
    pipe: Any, tmp_path: Path, storage_format: str, compress: bool, options: dict[str, Any]
) -> None:
    path = tmp_path / "dump"
    dump = DumpOfVideos(str(path), storage_format=storage_format, compress=compress, metadata={"note": "é"})
    steps = captured(pipe, tmp_path / "captured", dump, **options)
    report = attnkit.ingest(path, tmp_path / "ingested")
    assert report.quarantined == [] and report.warnings == []
    expected, found = (
        attnkit.open(tmp_path / name).list("steps", sort=["video_id", "token", "step"]).to_polars().drop(OF_SOURCE)
        for name in ("captured", "ingested")
    )
    assert found.schema == expected.schema and found.rows() == expected.rows()
    assert len(found) == 2 * len(steps) > 0
    store, analyzer = attnkit.open(tmp_path / "ingested"), attnkit.AttentionAnalyzer(path)
    for one in steps:
        for word, maps in one.maps.items():
            whole = store.xarray(one.video_id, word, dtype="stored")["attention"]
            assert one.blocks is None or whole["block"].to_numpy().tolist() == one.blocks
            stored = whole.sel(step=one.step).to_numpy().reshape(maps.shape)
            read, metadata = analyzer.load_step(one.video_id, word, one.step, with_metadata=True)
            for array in (stored, read):
                assert array.dtype == maps.numpy().dtype and np.array_equal(array, maps.numpy())
            assert (metadata["note"], metadata["model"]) == ("é", "transformer")
    info = analyzer.get_video_info("prompt_001_vid001")
    assert (info["prompt"], info["seed"], sorted(info["tokens"])) == (PROMPTS[1], 8, ["flower", "two people"])
    assert info["tokens"]["flower"]["grid"] == tiny.GRID
    assert videos_of(str(path)) == [("prompt_000_vid001", PROMPTS[0]), ("prompt_001_vid001", PROMPTS[1])]


@pytest.mark.parametrize("storage_format, compress", FORMATS)
def test_files_are_as_documented_and_others_read_them(tmp_path: Path, storage_format: str, compress: bool) -> None:
    suffix = FORMATS[storage_format, compress]
    dump = DumpOfVideos(str(tmp_path), storage_format=storage_format, compress=compress)
    # Views of more than they show, in another order.
    maps = torch.rand((18, 2, 3, 64), generator=seeded()).half().permute(1, 2, 0, 3)[..., 1:2]
    shown = step(1, ("flower",), maps={"flower": maps})
    dump.write(shown)
    dump.write(step(1000, ("flower",)))
    assert sorted(files(tmp_path)) == [
        f"v/token_flower/step_001{suffix}",
        "v/token_flower/step_001_metadata.json",
        f"v/token_flower/step_1000{suffix}",
        "v/token_flower/step_1000_metadata.json",
    ]
    dump.close()
    path = tmp_path / "v" / "token_flower" / f"step_001{suffix}"
    with gzip.open(path) if compress else open(path, "rb") as file:
        found = torch.from_numpy(np.load(file)) if storage_format == "numpy" else torch.load(file, weights_only=True)
    assert found.dtype == maps.dtype and torch.equal(found, maps)
    assert path.stat().st_size < 3_000
    metadata = json.loads((path.parent / "step_001_metadata.json").read_text())
    # The documented keys, and those that generators add.
    documented = {
        "video_id": "v",
        "step": 1,
        "timestep": 998.5,
        "total_steps": 3,
        "token_word": "flower",
        "token_ids": [7],
        "token_texts": ["x"],
        "aggregation_method": "per_step_full",
        "attention_shape": [2, 3, 18, 1],
        "spatial_resolution": [18, 1],
        "num_blocks": 2,
        "num_heads": 3,
        "threshold_applied": None,
        "block_idx": None,
        "head_idx": None,
        "dtype": "torch.float16",
        "prompt": "a flower near a tree",
        "seed": 2**64 - 1,
        "cfg_scale": 6.5,
        "video_width": 48,
        "video_height": 32,
        "video_frames": 9,
    }
    assert documented.items() <= metadata.items()
    assert set(metadata) - set(documented) == {
        "call",
        "model",
        "guidance_scale",
        "text_length",
        "positions",
        "pieces",
        "pooling",
        "attnkit",
    }
    summary = json.loads((tmp_path / "v" / "summary.json").read_text())
    assert (summary["stored_steps"], summary["total_stored"]) == ([1, 1000], 2)
    assert summary["target_tokens"] == {"flower": {"token_ids": [7], "positions": [0]}}
    assert (summary["storage_format"], summary["compressed"]) == (storage_format, compress)
    assert summary["config"]["store_per_head"] and summary["config"]["storage_dtype"] == "float16"


@pytest.mark.parametrize("blocks, heads, chosen, method", [
    (2, 3, None, "per_step_full"),
    (2, 1, None, "heads_averaged"),
    (1, 3, None, "blocks_averaged"),
    (1, 1, None, "blocks_and_heads_averaged"),
    # One that was chosen is none that was averaged.
    (1, 3, [4], "per_step_full"),
    (1, 1, [4], "heads_averaged"),
])  # fmt: skip
def test_what_was_averaged_is_what_metadata_says(
    tmp_path: Path, blocks: int, heads: int, chosen: list[int] | None, method: str
) -> None:
    dump = DumpOfVideos(str(tmp_path))
    dump.write(step(0, ("flower",), maps={"flower": torch.rand(blocks, heads, 18, 1)}, blocks=chosen))
    dump.close()
    metadata = json.loads((tmp_path / "v/token_flower/step_000_metadata.json").read_text())
    assert (metadata["aggregation_method"], metadata["block_idx"]) == (method, chosen)
    config = json.loads((tmp_path / "v/summary.json").read_text())["config"]
    assert (config["store_per_block"], config["store_per_head"]) == (chosen is not None or blocks > 1, heads > 1)


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    def write(*steps: CapturedStep, **options: Any) -> None:
        dump = DumpOfVideos(str(tmp_path), **options)
        for one in steps:
            dump.write(one)
        dump.close()

    write(step(0), step(1))
    before = files(tmp_path)
    write(step(0), step(1))
    assert files(tmp_path) == before
    other_maps = step(0, maps={word: maps + 1 for word, maps in step(0).maps.items()})
    refused: list[tuple[CapturedStep, dict[str, Any], str]] = [
        (other_maps, {}, r"step_000.npy: is there with other contents"),
        (step(0), {"storage_format": "torch"}, r"step_000.npy: is this step in another format"),
        (step(0), {"compress": True}, r"step_000.npy: is this step in another format"),
        (step(2, seed=3), {}, r"is of another run: its seed is 18446744073709551615, now 3"),
        (step(2, prompt="a tree"), {}, "its prompt is"),
        (step(2, blocks=[4, 5]), {}, "its block_idx is None, now .4, 5."),
        (step(2, grid=(3, 3, 2)), {}, "its attnkit is"),
        (step(0, timestep=1.0), {}, "step_000_metadata.json: is there with other contents"),
    ]
    for one, options, said in refused:
        with pytest.raises(attnkit.ExportError, match=said):
            write(one, **options)
        assert files(tmp_path) == before
    write(step(2))
    summary = json.loads((tmp_path / "v" / "summary.json").read_text())
    assert (summary["stored_steps"], summary["total_stored"]) == ([0, 1, 2], 3)
    assert {name: text for name, text in files(tmp_path).items() if name in before and name != "v/summary.json"} == {
        name: text for name, text in before.items() if name != "v/summary.json"
    }


@pytest.mark.parametrize("storage_format, compress", FORMATS)
def test_the_same_step_is_the_same_bytes_at_any_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage_format: str, compress: bool
) -> None:
    for time in (1e9, 1.5e9):
        monkeypatch.setattr("time.time", lambda time=time: time)
        DumpOfVideos(str(tmp_path), storage_format=storage_format, compress=compress).write(step(0))


def test_another_word_in_a_directory_is_of_another_run(tmp_path: Path) -> None:
    for first, second in [("a/b", "a_b"), ("a_b", "a:b")]:
        path = tmp_path / first.replace("/", "slash")
        DumpOfVideos(str(path)).write(step(0, (first,)))
        with pytest.raises(attnkit.ExportError, match="its token_word is"):
            DumpOfVideos(str(path)).write(step(1, (second,)))


def test_a_video_has_a_summary_once_it_is_finished(tmp_path: Path) -> None:
    dump = DumpOfVideos(str(tmp_path))
    for video_id in ("finished", "cut"):
        dump.write(step(0, video_id=video_id))
    dump.write(step(2, video_id="finished"))
    assert (tmp_path / "finished" / "summary.json").exists()
    dump.close(interrupted=True)
    assert not (tmp_path / "cut" / "summary.json").exists()
    dump.close()
    assert json.loads((tmp_path / "cut" / "summary.json").read_text())["stored_steps"] == [0]


class Killed(BaseException):
    """The process is there no more: it cleans nothing up."""


@pytest.mark.parametrize("placed", [False, True], ids=["before", "behind"])
def test_wherever_it_is_killed_no_step_reads_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, placed: bool
) -> None:
    # Of two words, three steps: metadata and tensor of each, and the summary.
    for last in range(13):
        path, calls = tmp_path / f"dump{last}", iter(range(100))
        with monkeypatch.context() as patched:
            for name in ("link", "replace"):
                original = getattr(os, name)

                def call(*paths: Any, original: Any = original, calls: Any = calls, last: int = last) -> None:
                    is_last = next(calls) == last
                    if placed or not is_last:
                        original(*paths)
                    if is_last:
                        patched.setattr(Path, "unlink", lambda *_, **__: None)
                        raise Killed

                patched.setattr(os, name, call)
            dump = DumpOfVideos(str(path))
            with pytest.raises(Killed):
                for number in range(3):
                    dump.write(step(number))
        # A step has four files, the second and the last are the tensors.
        done = last + 1 if placed else last
        expected = {
            "flower": [n for n in range(3) if done >= 4 * n + 2],
            "tree": [n for n in range(3) if done >= 4 * n + 4],
        }
        store = tmp_path / f"store{last}"
        if any(expected.values()):
            attnkit.ingest(path, store)
            rows = attnkit.open(store).list("steps", columns=["token", "step"]).to_polars().rows()
            assert sorted(rows) == sorted((word, n) for word, steps in expected.items() for n in steps)
            for word, n in rows:
                read = attnkit.AttentionAnalyzer(path).load_step("v", word, n)
                assert np.array_equal(read, step(n).maps[word].numpy())
        # Some readers look at tensors alone.
        tensors = list(path.rglob("step_*.npy"))
        assert all(tensor.with_name(f"{tensor.stem}_metadata.json").exists() for tensor in tensors)
        assert (path / "v" / "summary.json").exists() == (done == 13)
        again = DumpOfVideos(str(path))
        for number in range(3):
            again.write(step(number))
        again.close()
        report = attnkit.ingest(path, store)
        assert report.quarantined == [] and attnkit.open(store).info().steps == 6


def test_what_cannot_be_written_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dump = DumpOfVideos(str(tmp_path))
    dump.write(step(0))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", full)
        with pytest.raises(OSError, match="No space left"):
            dump.write(step(1))
    assert sorted(name for name in files(tmp_path) if "001" in name or "attnkit" in name) == [
        "v/token_flower/step_001_metadata.json"
    ]
    # File systems without links.
    monkeypatch.setattr(os, "link", full)
    dump.write(step(1))
    with pytest.raises(attnkit.ExportError, match="other contents"):
        dump.write(step(1, timestep=3.0))
    assert np.array_equal(np.load(tmp_path / "v/token_tree/step_001.npy"), step(1).maps["tree"].numpy())


NAMES = [
    ("prompt_000_vid001", "flower"),
    ("p000_b001_s000", "two people"),
    ("vid001", "flower:2.5"),
    ("a:b", "16:9"),
    ("batch/prompt_003_vid001", "a/b"),
    ("../../x", ".."),
    ("token_x", "token_x"),
    (".hidden", ".x"),
    ("Thumbs.db", "__MACOSX"),
    ("..", "..."),
    ("é 花", "花"),
]


@pytest.mark.parametrize("video_id, word", NAMES)
def test_names_are_those_of_an_export_and_an_ingest_has_them_back(tmp_path: Path, video_id: str, word: str) -> None:
    path = tmp_path / "dump" / "attention_maps"
    one = step(0, (word,), video_id=video_id)
    dump = DumpOfVideos(str(path))
    dump.write(one)
    dump.close()
    with attnkit.StoreWriter(tmp_path / "store", video_id, one.prompt) as writer:
        writer.append(word, 0, 1.0, one.maps[word])
    attnkit.open(tmp_path / "store").export(tmp_path / "exported")
    assert set(files(tmp_path / "exported")) == set(files(tmp_path / "dump")) - {
        name for name in files(tmp_path / "dump") if name.endswith("summary.json")
    }
    attnkit.ingest(tmp_path / "dump", tmp_path / "ingested")
    found = attnkit.open(tmp_path / "ingested").list("steps", columns=["video_id", "token", "weight"]).to_polars()
    assert found.rows() == [(video_id, word, None)]


@pytest.mark.parametrize("words, said", [
    (["a/b", "a_b"], "'a/b' and 'a_b' would be written into one directory"),
    (["Flower", "flower"], "'Flower' and 'flower' would be"),
    (["café", unicodedata.normalize("NFD", "café")], "would be written into one directory"),
    (["a" * 201], "has 201 bytes, and a directory's name 200 at most"),
    (["花" * 67], "has 201 bytes"),
    (["\ud83d"], "half a character"),
])  # fmt: skip
def test_what_can_have_no_directory_is_refused(tmp_path: Path, words: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        directories_of(words)
    with pytest.raises(ValueError, match=said):
        DumpOfVideos(str(tmp_path)).write(step(0, tuple(words)))
    assert files(tmp_path) == {}


def test_a_dump_is_not_written_into_a_store(tmp_path: Path) -> None:
    with attnkit.StoreWriter(tmp_path, "v", None) as writer:
        writer.append("flower", 0, 1.0, step(0).maps["flower"])
    with pytest.raises(ValueError, match="is a store"):
        DumpOfVideos(str(tmp_path))
    with pytest.raises(ValueError, match="neither numpy nor torch"):
        DumpOfVideos(str(tmp_path / "dump"), storage_format="npz")
    assert videos_of(str(tmp_path / "nothing")) == []


@pytest.mark.parametrize("factor", [1, 2, 3, 7, 1_000_000])
@pytest.mark.parametrize("whole", [(3, 4, 6), (2, 5, 7), (1, 1, 3), (4, 3, 1)])
def test_pooled_maps_are_the_sums_of_windows_over_their_size(whole: tuple[int, int, int], factor: int) -> None:
    frames, height, width = whole
    pooling = Pooling(factor, whole)
    maps = torch.rand((2, 3, frames * height * width, 2), generator=seeded())
    found = pooling.pool(maps).double().numpy()
    planes = maps.double().numpy().reshape(2, 3, *whole, 2)
    rows, columns = range(0, height, factor), range(0, width, factor)
    assert pooling.grid == (frames, len(rows), len(columns))
    expected = np.zeros((2, 3, frames, len(rows), len(columns), 2))
    for y, row in enumerate(rows):
        for x, column in enumerate(columns):
            window = planes[:, :, :, row : row + factor, column : column + factor]
            expected[:, :, :, y, x] = window.sum((3, 4)) / factor**2
    assert found.shape == (2, 3, frames * len(rows) * len(columns), 2)
    assert np.allclose(found.reshape(expected.shape), expected, rtol=1e-6, atol=0)


def test_an_ingest_of_a_pooled_dump_is_a_pooling_ingest_of_a_whole_one(tmp_path: Path) -> None:
    whole, pooled = DumpOfVideos(str(tmp_path / "whole")), DumpOfVideos(str(tmp_path / "pooled"))
    pooling = Pooling(2, (3, 3, 5))
    for number in range(3):
        maps = torch.rand((2, 3, 45, 2), generator=seeded(number))
        one = step(number, ("flower",), maps={"flower": maps}, grid=pooling.whole, video_size=(9, 48, 80))
        whole.write(one)
        maps = pooling.pool(maps)
        pooled.write(dataclasses.replace(one, maps={"flower": maps}, grid=pooling.grid, pooled=pooling))
    for dump in (whole, pooled):
        dump.close()
    assert json.loads((tmp_path / "pooled/v/summary.json").read_text())["config"]["spatial_downsample_factor"] == 2
    attnkit.ingest(tmp_path / "whole", tmp_path / "expected", downsample=2)
    assert attnkit.ingest(tmp_path / "pooled", tmp_path / "found").warnings == []
    expected, found = (attnkit.open(tmp_path / name) for name in ("expected", "found"))
    [one_word], [other] = (store.info().videos[0]["tokens"] for store in (expected, found))
    assert one_word["lossy"] == other["lossy"] != {} and one_word["grid"] == other["grid"]
    arrays, others = (store.xarray("v", "flower")["attention"].to_numpy() for store in (expected, found))
    assert arrays.shape == (3, 2, 3, 3, 2, 3, 2) and np.allclose(arrays, others, rtol=1e-6, atol=0)


def test_a_pooled_store_says_so_as_a_pooling_ingest_of_a_whole_dump_does(tmp_path: Path) -> None:
    call = {**CALL, "height": 48, "width": 80}
    for name, options in [("whole", {"format": "dump"}), ("found", {"downsample": 2})]:
        pipe = tiny.wan()
        with attnkit.capture(pipe, tmp_path / name, ["flower"], dtype="float32", **options):
            pipe(prompt=PROMPT, generator=seeded(), **call)
    attnkit.ingest(tmp_path / "whole", tmp_path / "expected", downsample=2)
    expected, found = (attnkit.open(tmp_path / name) for name in ("expected", "found"))
    assert found.verify().ok
    [one_word], [other] = (store.info().videos[0]["tokens"] for store in (expected, found))
    assert one_word["lossy"] == other["lossy"] != {} and one_word["grid"] == other["grid"]
    arrays, others = (
        store.xarray("prompt_000_vid001", "flower")["attention"].to_numpy() for store in (expected, found)
    )
    assert np.allclose(arrays, others, rtol=1e-6, atol=0)


def test_a_capture_by_settings_is_the_dump_that_they_ask_for(tmp_path: Path, pipe: Any) -> None:
    call = {**CALL, "height": 48, "width": 80, "num_inference_steps": 4}
    block = {
        "storage_interval": 2,
        "storage_format": "torch",
        "compress_attention": True,
        "storage_dtype": "float32",
        "spatial_downsample_factor": 2,
        "store_per_head": False,
    }
    whole: list[CapturedStep] = []
    for options in ({"on_step": whole.append, "dtype": "float32"}, {"format": "dump", "settings": block}):
        path = tmp_path / "dump" if "format" in options else None
        with attnkit.capture(pipe, path, ["flower"], **options):
            pipe(prompt="a flower", generator=seeded(), **call)
    with attnkit.capture(pipe, tmp_path / "dump", ["flower"], settings=block, format="dump", average=[]) as second:
        pipe(prompt="a flower", generator=seeded(), **call)
    assert second.videos == ["prompt_000_vid002"]
    assert [name for name in sorted(files(tmp_path / "dump")) if name.endswith(".pt.gz")] == [
        f"prompt_000_vid00{video}/token_flower/step_00{n}.pt.gz" for video in (1, 2) for n in (0, 2)
    ]
    dump = attnkit.AttentionAnalyzer(tmp_path / "dump")
    for number in (0, 2):
        maps = whole[number].maps["flower"].double().reshape(3, 2, 3, 3, 5, 1)
        padded = torch.nn.functional.pad(maps, (0, 0, 0, 1, 0, 1))
        pooled = sum(padded[:, :, :, y::2, x::2] for y in (0, 1) for x in (0, 1)) / 4
        every = pooled.reshape(3, 2, 18, 1).numpy()
        kept, mean = (dump.load_step(f"prompt_000_vid00{video}", "flower", number) for video in (2, 1))
        assert kept.dtype == np.float32 and np.allclose(kept, every, rtol=1e-5, atol=0)
        assert np.allclose(mean, every.mean(1, keepdims=True), rtol=1e-5, atol=0)
    assert attnkit.ingest(tmp_path / "dump", tmp_path / "store").warnings == []
    of_words = [video["tokens"][0] for video in attnkit.open(tmp_path / "store").info().videos]
    assert [(word["grid"], word["lossy"]["downsample"]) for word in of_words] == [
        ({"frames": 3, "height": 2, "width": 3}, 2)
    ] * 2


def test_what_no_dump_can_hold_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    pipe = tiny.wan()
    pipe.transformer.forward = None
    for options in ({"words": ["a", "A"]}, {"words": ["a"], "positions": {"A": [1]}}):
        with attnkit.capture(pipe, tmp_path, format="dump", **options):
            with pytest.raises(ValueError, match="would be written into one directory"):
                pipe(prompt="a flower and A tree", **CALL)
    for options, said in [
        ({"format": "zarr"}, "neither store nor dump"),
        ({"storage_format": "torch"}, "storage_format: is of a dump"),
        ({"downsample": 0}, "downsample: 0 is less than 1"),
        ({"format": "dump", "codec": "lossy:bits=4"}, "rounds what a store has"),
    ]:
        with pytest.raises(ValueError, match=said):
            attnkit.capture(pipe, tmp_path / "s", ["flower"], **options)


def test_a_generation_that_fails_leaves_a_video_without_a_summary(tmp_path: Path, pipe: Any) -> None:
    def fail(pipe: Any, number: int, *_: Any) -> Any:
        return {} if number < 1 else 1 // 0

    with pytest.raises(ZeroDivisionError), attnkit.capture(pipe, tmp_path, ["flower"], format="dump"):
        pipe(prompt="a flower", callback_on_step_end=fail, **CALL)
    assert {Path(name).name for name in files(tmp_path)} >= {"step_000.npy", "step_001.npy"}
    assert "prompt_000_vid001/summary.json" not in files(tmp_path)
