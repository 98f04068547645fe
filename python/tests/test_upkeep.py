"""Keeping a store in order from Python: what verify, export and gc find, write and remove, and that they say so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attnkit
import numpy as np
import pytest
from conftest import interrupt, write_dump

VIDEO = "prompt_000_vid001"


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """A dump of two videos with three steps each."""
    for number in range(2):
        write_dump(tmp_path / "dump", 3, (2, 3, 24, 1), video=f"prompt_00{number}_vid001", seed=2**64 - 1 - number)
    return tmp_path / "dump"


@pytest.fixture
def own(dump: Path, tmp_path: Path) -> attnkit.Store:
    """Its store."""
    attnkit.ingest(dump, tmp_path / "maps.store")
    return attnkit.open(tmp_path / "maps.store")


def flip(path: Path) -> None:
    """Turns over one byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def shard(store: attnkit.Store, video: str = VIDEO, kind: str = "attention") -> Path:
    (found,) = (path for path in Path(store.path, "maps", video).glob(f"*/{kind}/c.*") if path.is_file())
    return found


def command_line(*arguments: object) -> Any:
    """What the command prints as JSON."""
    command = [os.environ["ATTNKIT_BIN"], *map(str, arguments)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)


# Verify.


def test_a_sound_store_is_said_to_be_so_as_on_the_command_line(own: attnkit.Store, dump: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = own.verify(dump, progress=lambda done, all: seen.append((done, all)))
    assert report and report.ok and report.faults == [] and report.lacking == []
    assert (report.videos, report.steps, report.compared, report.not_in_store) == (2, 6, 6, 0)
    assert report.bytes == 6 * 24 * 6 * 2, "every value"
    assert seen[-1] == (6, 6)
    printed = command_line("verify", own.path, "--against", dump, "--json")
    assert {**report.to_dict(), "seconds": 0} == {**printed, "seconds": 0}
    assert repr(report).startswith("<attnkit.VerifyReport: 0 faults in 6 steps of 2 videos; 6 compared with the dump")


def test_damage_is_named_and_makes_the_report_false(own: attnkit.Store) -> None:
    flip(shard(own))
    report = own.verify()
    assert not report and not report.ok
    of = {(fault["video_id"], fault["token"], fault["in_dump"]) for fault in report.faults}
    assert of == {(VIDEO, "flower", False)}
    assert all("attention" in fault["path"] for fault in report.faults)
    others = own.verify(video="prompt_001_vid001")
    assert others and (others.videos, others.steps) == (1, 3)


def test_conditions_choose_what_is_verified(own: attnkit.Store) -> None:
    assert own.verify(where="step < 2").steps == 4
    assert own.verify(where=attnkit.Where("step < 2", video=VIDEO), step=1).steps == 1
    with pytest.raises(attnkit.NothingSelectedError, match="missing"):
        own.verify(token="missing")


def test_what_the_dump_has_and_the_store_lacks_is_named(own: attnkit.Store, dump: Path) -> None:
    write_dump(dump, 2, (2, 3, 24, 1), video="prompt_007_vid001")
    report = own.verify([dump])
    assert not report and report.faults == [] and report.not_in_store == 2
    files = {str(path) for path in (dump / "prompt_007_vid001").rglob("*.npy")}
    assert {one["path"] for one in report.lacking} == files


def test_values_that_are_not_those_of_the_dump_are_faults_of_the_dump(own: attnkit.Store, dump: Path) -> None:
    path = dump / VIDEO / "token_flower/step_001.npy"
    np.save(path, np.load(path) + np.float16(1))
    (fault,) = own.verify(dump).faults
    assert fault["in_dump"] and fault["step"] == 1


@pytest.mark.parametrize("against", ["another dump", "an empty directory", "nothing", "the prefix forgotten"])
def test_a_comparison_in_which_nothing_was_compared_is_no_success(dump: Path, tmp_path: Path, against: str) -> None:
    prefix = "batch" if against == "the prefix forgotten" else None
    attnkit.ingest(dump, tmp_path / "other.store", prefix=prefix)
    store = attnkit.open(tmp_path / "other.store")
    moved = shutil.move(dump, tmp_path / "moved")
    path = tmp_path / against
    if against == "another dump":
        write_dump(path, 1, (2, 3, 24, 1), video="prompt_009_vid001")
    elif against == "an empty directory":
        path.mkdir()
    elif prefix:
        path = Path(moved)
        assert store.verify(path, prefix=prefix)
    with pytest.raises(attnkit.NotFoundError) as caught:
        store.verify(path)
    assert against == "nothing" or "nothing was compared" in str(caught.value)
    assert "--" not in str(caught.value)


def test_an_empty_store_has_no_faults_and_is_no_copy_of_a_dump(dump: Path, tmp_path: Path) -> None:
    attnkit.StoreWriter(tmp_path / "empty.store", VIDEO, "a flower").close()
    store = attnkit.open(tmp_path / "empty.store")
    assert store.verify() and store.verify().steps == 0
    with pytest.raises(attnkit.NotFoundError, match="6 steps there"):
        store.verify(dump)


# Export.


@pytest.mark.parametrize("layout", ["flat", "nested"])
@pytest.mark.parametrize("format", ["npy", "npy.gz"])
def test_an_export_is_the_dump_again(own: attnkit.Store, dump: Path, tmp_path: Path, layout: Any, format: Any) -> None:
    report = own.export(tmp_path / "out [1]", layout=layout, format=format)
    assert (report.videos, report.steps, report.resumed) == (2, 6, 0)
    video = VIDEO if layout == "flat" else "prompt_000/vid001"
    (written,) = (tmp_path / "out [1]/attention_maps" / video / "token_flower").glob(f"step_002.{format}")
    if format == "npy":
        np.testing.assert_array_equal(np.load(written), np.load(dump / VIDEO / "token_flower/step_002.npy"))
    analyzer = attnkit.AttentionAnalyzer(tmp_path / "out [1]")
    original = attnkit.AttentionAnalyzer(dump)
    np.testing.assert_array_equal(analyzer.load_all_steps(VIDEO, "flower"), original.load_all_steps(VIDEO, "flower"))
    assert analyzer.load_metadata(VIDEO, "flower", 1)["seed"] == 2**64 - 1
    assert own.verify(tmp_path / "out [1]")


def test_conditions_choose_what_is_exported(own: attnkit.Store, tmp_path: Path) -> None:
    late = attnkit.Where("step > 0")
    report = own.export(tmp_path / "out", late, video=VIDEO)
    assert (report.videos, report.steps) == (1, 2)
    names = sorted(path.name for path in (tmp_path / "out").rglob("*.npy"))
    assert names == ["step_001.npy", "step_002.npy"]
    with pytest.raises(attnkit.NothingSelectedError):
        own.export(tmp_path / "none", token="missing")
    with pytest.raises(attnkit.QueryError, match="`entrpy`"):
        own.export(tmp_path / "none", "entrpy < 3")
    assert not (tmp_path / "none").exists()


PLACES: dict[str, Callable[[attnkit.Store, Path], Path]] = {
    "not empty": lambda _, root: root / "dump",
    "inside the store": lambda store, _: Path(store.path, "out"),
    "below a file": lambda _, root: next((root / "dump").rglob("step_000.npy")) / "out",
}


@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_written_over_and_the_place_is_named(own: attnkit.Store, tmp_path: Path, place: str) -> None:
    path = PLACES[place](own, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(attnkit.ExportError) as caught:
        own.export(path)
    assert str(path) in str(caught.value) and isinstance(caught.value, OSError)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_damaged_step_ends_the_export_and_a_damaged_video_is_warned_of(own: attnkit.Store, tmp_path: Path) -> None:
    flip(shard(own))
    with pytest.raises(attnkit.StoreError, match="attention"):
        own.export(tmp_path / "out")
    part = Path(own.path, "index/steps", f"{VIDEO}.parquet")
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.warns(attnkit.DamageWarning, match=part.name):
        report = own.export(tmp_path / "rest")
    assert report.videos == 1


@pytest.mark.parametrize(("option", "value"), [("layout", "deep"), ("format", "npz")])
def test_an_option_that_there_is_not_is_named(own: attnkit.Store, tmp_path: Path, option: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{option}: .*`{value}`"):
        own.export(tmp_path / "out", **{option: value})


INTERRUPTED = """
import sys, attnkit
store, out, work = attnkit.open(sys.argv[1]), *sys.argv[2:]
def tell(done, all):
    print(done, all, flush=True)
try:
    store.export(out, format="npy.gz", progress=tell) if work == "export" else store.verify(progress=tell)
    print("ended")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 24 steps of 8 MB."""
    root = tmp_path_factory.mktemp("large")
    write_dump(root / "dump", 1, (30, 12, 12000, 1))
    directory = root / "dump" / VIDEO / "token_flower"
    document = json.loads((directory / "step_000_metadata.json").read_text())
    for step in range(1, 24):
        os.link(directory / "step_000.npy", directory / f"step_{step:03d}.npy")
        (directory / f"step_{step:03d}_metadata.json").write_text(json.dumps({**document, "step": step}))
    attnkit.ingest(root / "dump", root / "maps.store", codec="fast")
    return root / "maps.store"


@pytest.mark.parametrize("work", ["verify", "export"])
def test_ctrl_c_stops_it_and_an_export_goes_on_where_it_stopped(large: Path, tmp_path: Path, work: str) -> None:
    said = interrupt(INTERRUPTED, large, tmp_path / "out", work).splitlines()
    assert said[-1] == "interrupted"
    if work == "export":
        report = attnkit.open(large).export(tmp_path / "out", format="npy.gz")
        assert report.steps == 24 and 0 < report.resumed < 24


def test_an_error_of_the_progress_function_stops_the_work(own: attnkit.Store, tmp_path: Path) -> None:
    def refuse(done: int, all: int) -> None:
        raise RuntimeError("enough")

    for work in (lambda: own.verify(progress=refuse), lambda: own.export(tmp_path / "out", progress=refuse)):
        with pytest.raises(RuntimeError, match="enough"):
            work()


# Garbage.


def test_what_no_commit_names_is_said_and_removed(own: attnkit.Store, dump: Path) -> None:
    path = dump / VIDEO / "token_flower/step_001.npy"
    np.save(path, np.load(path) + np.float16(1))
    old = set(Path(own.path, "maps", VIDEO).glob("flower@*"))
    attnkit.ingest(dump, own.path)
    left = [path for path in old if path.exists()]
    ahead = own.gc(dry_run=True)
    assert ahead.dry_run and {one["path"] for one in ahead.removed} == {str(path) for path in left}
    assert ahead.bytes == sum(path.stat().st_size for one in left for path in one.rglob("*") if path.is_file())
    assert all(path.exists() for path in left), "nothing is removed yet"
    done = own.gc()
    assert done.removed == ahead.removed and not done.dry_run and not any(path.exists() for path in left)
    assert own.gc().removed == [] and own.verify(dump)
    assert repr(ahead).endswith("to remove>") and repr(done).endswith("removed>")


def test_nothing_is_removed_while_somebody_writes(own: attnkit.Store) -> None:
    with attnkit.StoreWriter(own.path, "prompt_005_vid001", "a flower") as writer:
        writer.append("flower", 0, 999.0, np.zeros((2, 3, 24, 1), np.float16))
        with pytest.raises(attnkit.StoreError, match="writing into this store"):
            own.gc()
        assert own.gc(dry_run=True).removed == []
    assert own.gc().removed == []


def test_a_video_whose_table_is_damaged_keeps_its_maps(own: attnkit.Store) -> None:
    part = Path(own.path, "index/steps", f"{VIDEO}.parquet")
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.warns(attnkit.DamageWarning, match=part.name):
        assert own.gc().removed == []
    assert shard(own).is_file()
    report = own.verify()
    assert not report and {fault["video_id"] for fault in report.faults} == {VIDEO}


# Packing and rollups.


def test_packed_tables_say_what_they_said_before(own: attnkit.Store, dump: Path) -> None:
    def said(store: attnkit.Store) -> list[Any]:
        tables = [repr({name: table[name].tolist() for name in table.columns}) for table in (store.steps, store.heads)]
        return [*tables, store.average().to_numpy().tobytes()]

    before = said(own)
    seen: list[tuple[int, int]] = []
    report = own.compact(progress=lambda done, all: seen.append((done, all)))
    assert (report.videos, report.packs, report.files) == (2, 1, (4, 3)) and report.bytes[1] < report.bytes[0]
    assert repr(report) == "<attnkit.CompactReport: 2 videos in 1 packs; 4 files of tables before, 3 now>"
    assert seen[-1][0] == seen[-1][1] > 0
    assert said(attnkit.open(own.path)) == before == said(own)
    assert own.verify(dump) and own.compact().videos == 0
    # A packed video that gets more is in files of its own.
    shutil.rmtree(dump / VIDEO)
    write_dump(dump, 4, (2, 3, 24, 1), video=VIDEO, seed=2**64 - 1)
    assert attnkit.ingest(dump, own.path, pack=False).ingested == 4
    assert len(list(Path(own.path, "index/steps").glob("*.parquet"))) == 2
    assert attnkit.open(own.path).verify(dump)


def test_rollups_are_added_and_taken_away(own: attnkit.Store, dump: Path) -> None:
    kinds = {path.name for path in Path(own.path, "maps", VIDEO).glob("*/*") if path.is_dir()}
    assert not any(kind.startswith("mean") for kind in kinds)
    before = own.average().to_numpy()
    shutil.move(dump, dump.with_name("gone"))
    report = own.rollup("all", videos=VIDEO)
    assert (report.words, report.steps, report.unchanged, report.quarantined) == (1, 3, 0, [])
    assert report.bytes[0] == 0 < report.bytes[1] and repr(report).startswith(
        "<attnkit.RollupReport: 1 words of 3 steps"
    )
    assert shard(own, kind="mean_head").is_file()
    np.testing.assert_array_equal(attnkit.open(own.path).average().to_numpy(), before)
    assert attnkit.open(own.path).verify(dump.with_name("gone"))
    assert own.rollup("none").words == 1 and own.rollup("none").unchanged == 2
    with pytest.raises(ValueError, match="nothing is selected"):
        own.rollup("all", tokens="no*")
    with pytest.raises(ValueError, match="rollups"):
        own.rollup("some")  # type: ignore[arg-type]


# Names.


@pytest.mark.parametrize("name", ["seed=99", "[a]*?", "a b\n c", "été", "--where", "%20", "'quoted'"])
def test_paths_with_odd_names_are_paths(dump: Path, tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    root.mkdir()
    moved, path = Path(shutil.move(dump, root / name)), root / "maps.store"
    assert attnkit.ingest(moved, path, dry_run=True).ingest == 6
    assert attnkit.watch(moved, path, poll=0.05, until_idle=0.2).ingested == 6
    store = attnkit.open(path)
    assert store.verify(moved) and store.export(root / "out").steps == 6 and store.gc().removed == []
    assert store.verify(root / "out").compared == 6
    sizes = attnkit.estimate(moved)
    assert sizes.generation["videos"] == 2
