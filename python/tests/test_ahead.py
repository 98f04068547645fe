"""What will be, before it is: dry runs, sizes, prompts, plans of questions."""

from __future__ import annotations

import copy
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attnkit
import numpy as np
import pytest
from conftest import write_dump

VIDEO = "prompt_000_vid001"


def command_line(*arguments: object) -> str:
    done = subprocess.run([os.environ["ATTNKIT_BIN"], *map(str, arguments)], capture_output=True, text=True, check=True)
    return done.stdout


# Dry runs.


def test_a_dry_run_says_what_the_ingest_does_and_writes_nothing(fixtures: Path, tmp_path: Path) -> None:
    path = tmp_path / "maps.store"
    seen: list[tuple[int, int]] = []
    told = {"dry_run": True, "progress": lambda done, all: seen.append((done, all))}
    ahead = attnkit.ingest(fixtures / "dataset", path, tokens="circle", **told)
    assert seen[-1][0] == seen[-1][1] > 0
    assert not path.exists() and isinstance(ahead, attnkit.DryRun)
    done = attnkit.ingest(fixtures / "dataset", path, tokens="circle")
    assert (ahead.ingest, ahead.skip, ahead.bytes_in) == (done.ingested, 0, done.bytes_in)
    assert done.contents is not None and ahead.videos == done.contents["videos"]
    assert 0.5 < ahead.bytes_out_estimate / done.bytes_out < 2
    before = {path: path.stat().st_mtime_ns for path in path.rglob("*")}
    again = attnkit.ingest(fixtures / "dataset", path, dry_run=True)
    assert (again.ingest, again.skip) == (280 - done.ingested, done.ingested)
    assert {path: path.stat().st_mtime_ns for path in path.rglob("*")} == before
    assert repr(again).startswith(f"<attnkit.DryRun: {again.ingest} steps of ")


def test_a_dry_run_names_what_would_be_left_out_and_fails_where_the_ingest_does(tmp_path: Path) -> None:
    write_dump(tmp_path / "dump", 3, (1, 2, 24, 1))
    broken = tmp_path / "dump" / VIDEO / "token_flower/step_001.npy"
    broken.write_bytes(b"no array")
    ahead = attnkit.ingest(tmp_path / "dump", tmp_path / "maps.store", dry_run=True)
    assert ahead.ingest == 2 and [one["path"] for one in ahead.quarantined] == [str(broken)]
    with pytest.raises(attnkit.NotFoundError):
        attnkit.ingest(tmp_path / "missing", tmp_path / "maps.store", dry_run=True)
    with pytest.raises(attnkit.NotAStoreError):
        attnkit.ingest(tmp_path / "dump", tmp_path / "dump", dry_run=True)


# Sizes.


def test_sizes_follow_from_numbers() -> None:
    found = attnkit.estimate(blocks=30, heads=12, grid=(15, 30, 53), steps=50, tokens=5, videos=100)
    full = found.settings[-1]
    assert full["shape"] == [30, 12, 23850, 1]
    assert full["values_bytes"] == 30 * 12 * 23850 * 2 * 50 * 5 * 100
    assert full["dump_files"] == 2 * 50 * 5 * 100 + 100
    assert {store["codec"] for store in full["stores"]} == {"fast", "balanced", "small", "none"}
    means = attnkit.estimate(blocks=30, heads=12, grid=(15, 30, 53), rollups="none").settings[-1]["stores"][0]
    assert means["rollups_bytes"] == 0
    assert str(full["shape"][2]) in repr(found) and "<table>" in found._repr_html_()


def test_a_model_and_a_dump_are_estimated_as_on_the_command_line(fixtures: Path) -> None:
    printed = command_line("estimate", "--model", "wan2.1-14b", "--tokens", 3, "--dtype", "float32", "--json")
    assert attnkit.estimate(model="wan2.1-14b", tokens=3, dtype="float32").to_dict() == json.loads(printed)
    printed = command_line("estimate", "--from", fixtures / "dataset", "--throughput", "500MB", "--json")
    assert attnkit.estimate(fixtures / "dataset", throughput=500e6).to_dict() == json.loads(printed)


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({}, ValueError, "blocks, heads, grid: missing"),
        ({"blocks": 3, "grid": (1, 2, 3)}, ValueError, "heads: missing"),
        ({"model": "wan2.1-1.3b", "heads": 3}, ValueError, "heads: says nothing beside model"),
        ({"dump": "x", "steps": 3}, ValueError, "steps: says nothing beside dump"),
        ({"blocks": 1, "heads": 1, "grid": (1, 1, 1), "size": (4, 4)}, ValueError, "size: is of a model's videos"),
        ({"model": "wan3"}, ValueError, "`wan3` is not one of"),
        ({"model": "wan2.1-1.3b", "size": (4, 4)}, ValueError, "too small"),
        ({"model": "wan2.1-1.3b", "dtype": "int8"}, ValueError, "dtype"),
        ({"model": "wan2.1-1.3b", "throughput": float("nan")}, ValueError, "throughput"),
        ({"model": "wan2.1-1.3b", "steps": 2**64}, ValueError, "steps: 18446744073709551616 is not from 1 to"),
        ({"model": "wan2.1-1.3b", "videos": 0}, ValueError, "videos: 0 is not from 1 to"),
        ({"model": "wan2.1-1.3b", "tokens": 1.5}, TypeError, "tokens: 1.5 is not an integer"),
        ({"model": "wan2.1-14b", "steps": 2**32 - 1, "videos": 2**32 - 1}, ValueError, "exabyte"),
        ({"blocks": 2, "heads": 2, "grid": (2**20, 2**20, 2**20)}, ValueError, "more values"),
        ({"blocks": 2, "heads": 2, "grid": (2, 2)}, ValueError, "grid: (2, 2) is not (frames, height, width)"),
    ],
    ids=str,
)
def test_sizes_that_cannot_be_are_named(given: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error) as caught:
        attnkit.estimate(**given)
    assert told in str(caught.value)


def test_a_dump_that_is_none_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(attnkit.NotFoundError, match="no attention maps"):
        attnkit.estimate(tmp_path)
    with pytest.raises(attnkit.NotFoundError, match="missing"):
        attnkit.estimate(tmp_path / "missing")


# Prompts.


def test_prompts_are_the_product_of_the_choices() -> None:
    prompts = attnkit.expand_prompts("a [red|blue] [(cat:2)|dog] [1|2|3]")
    product = itertools.product(["red", "blue"], ["cat", "dog"], ["1", "2", "3"])
    assert [one.prompt for one in prompts] == [f"a {' '.join(words)}" for words in product]
    assert len(prompts) == prompts.count == 12 and prompts
    assert [one.prompt_id for one in prompts] == [f"prompt_{number:03d}" for number in range(12)]
    first = prompts[0]
    assert first.weighted_prompt == "a red (cat:2) 1" and first.tokens == [{"word": "cat", "weight": 2.0}]
    assert prompts[-1] == prompts[11] and prompts[np.int64(3)] == prompts[3]
    assert [one.variation for one in prompts[2:9:3]] == [2, 5, 8] and prompts[20:] == []
    for number in (12, -13, 2**64, -(2**64)):
        with pytest.raises(IndexError, match="there are 12"):
            prompts[number]


def test_prompts_are_those_of_the_command_line(fixtures: Path) -> None:
    path = fixtures / "dataset/templates.txt"
    printed = json.loads(command_line("prompt", "expand", path, "--format", "json"))
    assert [one.to_dict() for one in attnkit.expand_prompts(path)] == printed
    texts = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    assert [one.to_dict() for one in attnkit.expand_prompts(texts)] == printed
    assert attnkit.expand_prompts(texts).templates == texts


def test_more_prompts_than_there_is_room_for_are_made_as_they_are_asked_for() -> None:
    many = attnkit.expand_prompts("[a|b] " * 100)
    assert many.count == 2**64 - 1 and many
    assert many[2].prompt.split() == ["a"] * 98 + ["b", "a"]
    assert [one.variation for one in itertools.islice(many, 3)] == [0, 1, 2]
    assert [one.variation for one in many[2**40 : 2**40 + 2]] == [2**40, 2**40 + 1]
    with pytest.raises(OverflowError, match="count"):
        len(many)
    assert repr(copy.deepcopy(many)) == repr(many)


def test_templates_that_do_not_parse_say_where(tmp_path: Path) -> None:
    wrong = [("a [b", "at character 3"), ("", "found nothing"), ([], "no template"), (["a", "(b"], "(b")]
    for templates, told in wrong:
        with pytest.raises(attnkit.PromptError) as caught:
            attnkit.expand_prompts(templates)
        assert told in str(caught.value) and isinstance(caught.value, ValueError)
    (tmp_path / "t.txt").write_text("a cat\n\na [b\n")
    with pytest.raises(attnkit.PromptError, match=r"t\.txt:3: at character 3"):
        attnkit.expand_prompts(tmp_path / "t.txt")
    with pytest.raises(FileNotFoundError, match="missing"):
        attnkit.expand_prompts(tmp_path / "missing.txt")
    with pytest.raises(attnkit.PromptError, match="nested"):
        attnkit.expand_prompts("[a|[b|c]]", max_depth=1)
    with pytest.raises(ValueError, match="max_depth: 65 is not from 0 to 64"):
        attnkit.expand_prompts("a", max_depth=65)


# Plans.


@pytest.mark.parametrize(
    ("question", "arguments", "command"),
    [
        ("list", {"table": "heads", "where": "gini > 0.4", "limit": 3},
         ["--table", "heads", "--where", "gini > 0.4", "--limit", 3]),
        ("average", {"over": ["block", "head"], "where": "step < 4"}, ["--over", "block,head", "--where", "step < 4"]),
        ("average", {"over": "step", "rollups": False, "reducer": "median"},
         ["--over", "step", "--no-rollups", "--with", "median"]),
        ("evolution", {"token": "circle", "by": "head"}, ["--token", "circle", "--by", "head"]),
        ("map", {"video": VIDEO, "token": "circle", "step": 3, "size": (24, 24)},
         ["--video", VIDEO, "--token", "circle", "--step", 3, "--size", "24x24"]),
        ("compare", {"across": "seed", "token": "circle"}, ["--across", "seed", "--token", "circle"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_plan_is_that_of_the_command_line(
    store: attnkit.Store, question: Any, arguments: dict[str, Any], command: list[object]
) -> None:
    told = store.explain(question, **arguments)
    assert told + "\n" == command_line("query", question, store.path, *command, "--explain")


def test_a_plan_counts_what_a_where_selects(store: attnkit.Store) -> None:
    told = store.explain("average", over=["block", "head"], where=attnkit.Where("step < 4"), token="circle")
    steps = store.list("steps", where="step < 4 AND token = 'circle'")
    assert f"{len(steps) * 24} maps: {len(steps)} steps" in told and "mean (" in told
    statement = "SELECT token, count(*) FROM heads GROUP BY token"
    told = store.explain("sql", statement=statement)
    assert told + "\n" == command_line("query", "sql", store.path, statement, "--explain")


def test_a_plan_that_cannot_be_is_refused_as_the_question_is(store: attnkit.Store) -> None:
    with pytest.raises(ValueError, match="question: 'info' is not one of list, sql, average"):
        store.explain("info")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"average\(\) got an unexpected .* 'ovr' \(did you mean 'over'\?\)"):
        store.explain("average", ovr=["block"])
    with pytest.raises(attnkit.NothingSelectedError):
        store.explain("average", token="missing")
    with pytest.raises(attnkit.QueryError, match="`entrpy`"):
        store.explain("average", where="entrpy > 3")


def test_help_in_a_fresh_interpreter_needs_nothing_optional() -> None:
    script = """
import sys
for name in ("xarray", "dask", "pandas", "polars", "pyarrow", "tqdm"):
    sys.modules[name] = None
import attnkit
print(attnkit.Where("step < 3"), attnkit.expand_prompts("a [b|c]").count)
"""
    done = subprocess.run([sys.executable, "-OO", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "attnkit.Where('step < 3') 2\n"
