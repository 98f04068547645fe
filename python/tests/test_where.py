"""Which maps are asked for: said once, used in many questions, and never silently otherwise than it was said."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attnkit
import numpy as np
import pytest
from attnkit.where import Asked
from conftest import write_dump
from mypy import api as mypy

VIDEO = "prompt_000_vid001"
QUESTIONS = ["list", "average", "map", "evolution", "compare"]


def same(found: attnkit.Result, expected: attnkit.Result) -> None:
    assert found.columns == expected.columns and found.notes == expected.notes and len(found) == len(expected)
    for name in found.columns:
        np.testing.assert_array_equal(found[name], expected[name])
    if found.has_maps:
        np.testing.assert_array_equal(found.to_numpy(), expected.to_numpy())


def test_one_where_serves_every_question(store: attnkit.Store) -> None:
    early = attnkit.Where("step < 4", token="circle", video=VIDEO)
    told: dict[str, Any] = {"where": "step < 4", "token": "circle", "video": VIDEO}
    same(store.list("heads", where=early), store.list("heads", **told))
    same(store.average(where=early), store.average(**told))
    same(store.average(["step", "block"], early), store.average(["step", "block"], **told))
    same(store.evolution(early), store.evolution(**told))
    same(store.compare("step", early), store.compare("step", **told))
    same(store.map(step=2, where=early), store.map(step=2, **told))
    assert store.explain("average", where=early) == store.explain("average", **told)


def test_what_stands_beside_a_where_narrows_it(store: attnkit.Store) -> None:
    bright = attnkit.Where("top5 > 0.1", token="circle")
    found = store.list("heads", where=bright, block=3, video=VIDEO)
    rows = store.list("heads")
    wanted = (rows["top5"] > 0.1) & (rows["token"] == "circle") & (rows["block"] == 3) & (rows["video_id"] == VIDEO)
    assert 0 < len(found) == int(wanted.sum())
    np.testing.assert_array_equal(found["gini"], rows["gini"][wanted])
    same(store.list("heads", where=bright.narrow(block=3, video=VIDEO)), found)
    assert bright == attnkit.Where("top5 > 0.1", token="circle"), "it is left as it was"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("step < 3 OR step > 7", "block = 2 OR head = 1"),
        ("step < 3 -- the first ones", "block = 2"),
        ("step < 3 /* first */", "token = 'a -- b' OR head = 1"),
    ],
)
def test_conditions_that_both_hold_keep_their_own_ors_and_comments(store: attnkit.Store, one: str, other: str) -> None:
    both = store.list("heads", where=attnkit.Where(one).narrow(other))
    keys = ["video_id", "token", "step", "block", "head"]

    def rows(result: attnkit.Result) -> set[tuple[Any, ...]]:
        return set(zip(*(result[key].tolist() for key in keys)))

    assert rows(both) == rows(store.list("heads", where=one)) & rows(store.list("heads", where=other))
    assert len(both) > 0


@pytest.mark.parametrize(
    ("said", "beside"),
    [
        ({"token": "circle"}, {"token": "square"}),
        ({"video": VIDEO}, {"video": "prompt_001_vid001"}),
        ({"step": 3}, {"step": 4}),
        ({"block": 0}, {"block": 1}),
        ({"head": 0}, {"head": 1}),
        ({"reducer": "max"}, {"reducer": "mean"}),
        ({"skipna": True}, {"skipna": False}),
        ({"rollups": False}, {"rollups": True}),
    ],
    ids=str,
)
def test_what_contradicts_a_where_is_an_error_and_not_an_empty_answer(
    store: attnkit.Store, said: dict[str, Any], beside: dict[str, Any]
) -> None:
    ((name, value),) = beside.items()
    with pytest.raises(ValueError, match=f"{name}: {value!r} contradicts"):
        store.average(where=attnkit.Where(**said), **beside)
    same(store.average(where=attnkit.Where(**said), **said), store.average(**said))


def test_names_in_their_places_narrow_a_where_too(store: attnkit.Store) -> None:
    circle = attnkit.Where(video=VIDEO, token="circle", step=3)
    same(store.map(where=circle), store.map(VIDEO, "circle", 3))
    for named in (("prompt_001_vid001",), (VIDEO, "square"), (VIDEO, "circle", 4)):
        with pytest.raises(ValueError, match="contradicts"):
            store.map(*named, where=circle)


def test_a_word_is_the_same_however_its_characters_are_composed(tmp_path: Path) -> None:
    write_dump(tmp_path / "dump", 1, (1, 2, 24, 1), token="caf\u00e9")
    attnkit.ingest(tmp_path / "dump", tmp_path / "maps.store")
    store = attnkit.open(tmp_path / "maps.store")
    assert len(store.list(where=attnkit.Where(token="cafe\u0301"), token="caf\u00e9")) == 1


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: attnkit.Where("entrpy < 6"), attnkit.QueryError, "`entrpy`"),
        (lambda: attnkit.Where("step < 3) OR (step > 5"), attnkit.QueryError, "cannot be used"),
        (lambda: attnkit.Where(3), TypeError, "where: 3 is neither"),
        (lambda: attnkit.Where(video=["a"]), TypeError, "video: ['a'] is not one name"),
        (lambda: attnkit.Where(step=1.0), TypeError, "step: 1.0 is not an integer"),
        (lambda: attnkit.Where(step=2**63), ValueError, "step: 9223372036854775808 does not fit"),
        (lambda: attnkit.Where(reducer="meen"), ValueError, "did you mean `mean`?"),
        (lambda: attnkit.Where(tokn="a"), TypeError, "tokn"),
    ],
    ids=range(8),
)
def test_what_cannot_be_asked_is_refused_where_it_is_said(make: Callable[[], Any], error: Any, message: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert message in str(caught.value)


def test_a_condition_joined_to_another_cannot_leave_its_parentheses() -> None:
    sound = attnkit.Where("step < 3")
    with pytest.raises(attnkit.QueryError, match="cannot be used"):
        sound.narrow("TRUE) OR (TRUE")


@pytest.mark.parametrize("how", [{"reducer": "max"}, {"skipna": True}, {"rollups": False}], ids=str)
def test_rows_and_whole_steps_are_not_reduced_and_say_so(
    store: attnkit.Store, tmp_path: Path, how: dict[str, Any]
) -> None:
    (name,) = how
    reduced = attnkit.Where("step = 0", **how)
    asks: list[Callable[[], object]] = [
        lambda: store.list(where=reduced),
        lambda: store.verify(where=reduced),
        lambda: store.export(tmp_path / "out", reduced),
    ]
    for ask in asks:
        with pytest.raises(ValueError, match=f"^{name}: "):
            ask()
    assert not (tmp_path / "out").exists()


def test_an_argument_that_is_misspelt_names_the_function_and_the_one_that_is_meant(store: attnkit.Store) -> None:
    with pytest.raises(TypeError, match=r"average\(\) got an unexpected .* 'tokn' \(did you mean 'token'\?\)"):
        store.average(tokn="circle")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"list\(\) got an unexpected keyword argument 'reducer'"):
        store.list(reducer="max")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"ingest\(\) got an unexpected keyword argument 'codek'"):
        attnkit.ingest("dump", "store", codek="fast")  # type: ignore[call-overload]


def test_a_where_is_a_value(store: attnkit.Store) -> None:
    one = attnkit.Where("step < 4", token="circle", head=np.int64(2), reducer="max")
    assert repr(one) == "attnkit.Where('step < 4', token='circle', head=2, reducer='max')"
    assert one == eval(repr(one)) and len({one, eval(repr(one))}) == 1
    assert pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) == one
    assert attnkit.Where("step < 4").narrow("step < 4") == attnkit.Where("step < 4")
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.token = "square"  # type: ignore[misc]


@pytest.mark.parametrize("question", QUESTIONS)
def test_completion_and_help_show_every_argument(question: str) -> None:
    method = getattr(attnkit.Store, question)
    parameters = inspect.signature(method).parameters
    everywhere = {"where", "video", "token", "step", "block", "head"}
    reduced = set() if question == "list" else {"reducer", "skipna", "rollups"}
    assert everywhere | reduced <= parameters.keys() and "more" not in parameters
    assert not any(one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL) for one in parameters.values())
    assert question == "list" or parameters["reducer"].default == "mean"
    assert "SQL condition over the columns of both tables" in method.__doc__ and "**" not in method.__doc__
    assert ("What becomes of the values at a position" in method.__doc__) == (question != "list")


def test_keywords_and_where_have_the_same_arguments() -> None:
    assert [field.name for field in dataclasses.fields(attnkit.Where)] == ["where", *Asked.__annotations__]


CALLS = """
import attnkit
store = attnkit.open("maps.store")
early = attnkit.Where("step < 10", token="flower")
store.average(over=["block", "head"], where="top5 > 0.3", video="v1", skipna=True, values=False)
store.average("block", early, block=3, reducer="max", rollups=False)
store.map("v1", "flower", 3, block=1, where=early, size=(24, 36))
store.evolution(early.narrow(head=2), by="block")
store.compare("seed", "prompt_id = 'a'", token="flower", metric=["js"])
store.list("heads", where=early, columns=["step"])
store.verify(where=early), store.export("out", token="flower"), store.explain("average", where=early)
reveal_type(attnkit.ingest("dump", "maps.store", codec="fast"))
reveal_type(attnkit.ingest("dump", "maps.store", dry_run=True, every=5))
reveal_type(attnkit.expand_prompts("a cat")[0])
attnkit.watch("dump", "maps.store", until_idle=600, tokens="flower")
attnkit.estimate(model="wan2.1-1.3b", tokens=5)
"""
MISTAKES = """
import attnkit
store = attnkit.open("maps.store")
store.average(tokn="a")
store.list(reducer="max")
store.evolution(reducer="avg")
store.average(where=3)
attnkit.ingest("dump", "maps.store", codec="zip")
"""


def checked(path: Path, text: str) -> str:
    path.write_text(text)
    cache = ["--cache-dir", str(path.parent / "cache")]
    return mypy.run(["--strict", "--no-error-summary", *cache, str(path)])[0]


def test_calls_are_typed_for_their_callers(tmp_path: Path) -> None:
    said = checked(tmp_path / "calls.py", CALLS)
    assert "error" not in said, said
    for kind in ("reports.IngestReport", "reports.DryRun", "prompts.Prompt"):
        assert f'"attnkit.{kind}"' in said
    said = checked(tmp_path / "mistakes.py", MISTAKES)
    lines = {int(line.split(":")[1]) for line in said.splitlines() if ": error:" in line}
    assert lines == {4, 5, 6, 7, 8}, said
