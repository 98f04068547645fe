"""What a store holds and answers, held against steps that it must hold."""

from itertools import groupby, product

import numpy as np
import pytest
import zarr
from answers import LISTED, asked, by_step, table
from committed import coordinate, coordinates
from good_dump import GOOD
from outcomes import Among
from source_dump import same_bits


def assert_holds(answered, store, steps, good):
    """The store holds these steps, for other readers and for those who ask it."""
    assert_arrays(store, steps, assert_rows(store, steps))
    assert_heads(store, steps, good)
    assert_answers(answered, store, steps, good)


def assert_rows(store, steps):
    """The rows of `steps` are these; returns them."""
    found, expected = by_step(table(store, "steps")), full_rows(steps)
    assert {key: len(rows) for key, rows in found.items()} == dict.fromkeys(expected, 1)
    found = {key: {**dict(zip(("video_id", "token", "step"), key)), **row} for key, [row] in found.items()}
    assert wrong_ones(found, expected) == {}
    return found


def assert_arrays(store, steps, rows):
    """The arrays that the rows name have the bits of the steps, and their coordinates."""
    by_array = {}
    for step in sorted(steps, key=lambda step: step.key):
        by_array.setdefault(rows[step.key]["array"], []).append(step)
    for path, of_array in by_array.items():
        group = (store / path).parent
        read = lambda name, group=group: zarr.open_array(group / name, mode="r")[...]
        attention = read("attention")
        assert len(attention) == len(of_array)
        assert [step.key for step, found in zip(of_array, attention) if not same_bits(found, step.array)] == []
        if all(step in GOOD for step in of_array):
            continue  # its coordinates are looked at once, in the good store
        told = {name: coordinate(group, name, lambda path, read=read: read(path.name)) for name in coordinates(group)}
        assert told.pop("step") == [step.row["step"] for step in of_array]
        timesteps = np.array([step.row["timestep"] for step in of_array], float)
        assert np.array_equal(np.array(told.pop("timestep"), float), timesteps, equal_nan=True)
        numbers = {"block": of_array[0].blocks, "head": of_array[0].heads}
        assert told == {axis: of_axis for axis, of_axis in numbers.items() if of_axis is not None}


def assert_heads(store, steps, good):
    found = by_step(table(store, "heads"))
    assert found.keys() == {step.key for step in steps}
    for step in steps:
        expected = map_rows(step, good)
        assert len(found[step.key]) == len(expected), step.key
        assert wrong_ones(dict(enumerate(found[step.key])), dict(enumerate(expected))) == {}, step.key


def assert_answers(answered, store, steps, good):
    answers, rows = asked(answered, store), full_rows(steps)
    for question, found in answers.items():
        assert found.keys() == rows.keys(), question
    listed = {(*key, name): (answers["list"][key][0][name], row[name]) for key, row in rows.items() for name in LISTED}
    assert {place: fields for place, fields in listed.items() if not reads_as(*fields)} == {}
    for question in ("average", "sql"):
        expected = {step.key: good.asked[question][step.like] for step in steps if step.like}
        assert {key: answers[question][key] for key in expected} == expected, question


def full_rows(steps):
    """The rows of `steps`, by step: with what the arrays tell."""
    rows = {}
    for _, of_word in groupby(sorted(steps, key=lambda step: step.key), lambda step: step.key[:2]):
        for place, step in enumerate(of_word):
            shape = dict(zip(("num_blocks", "num_heads", "spatial", "tokens"), step.array.shape))
            rows[step.key] = {"dtype": step.array.dtype.name, "row": place, **shape, **step.row}
    return rows


def wrong_ones(found, expected):
    """(found, expected) of all columns that are not as expected, by their rows."""
    wrong = {
        key: {name: (found[key].get(name), value) for name, value in row.items() if found[key].get(name) != value}
        for key, row in expected.items()
    }
    return {key: of_row for key, of_row in wrong.items() if of_row}


def map_rows(step, good):
    """The rows of `heads`: those of the good dump under their numbers, or as far as numpy knows them."""
    blocks, heads, _, tokens = step.array.shape
    places = [*product(range(tokens), range(blocks), range(heads))]
    if step.like:
        known = good.heads[step.like]
    else:
        known = [measured(step.array[block, head, :, token]) for token, block, head in places]
    return [
        {**row, "token_index": token, "block": step.number(0, block), "head": step.number(1, head)}
        for row, (token, block, head) in zip(known, places, strict=True)
    ]


def measured(values):
    finite = values[np.isfinite(values)].astype(np.float64)
    if not len(finite):
        return {"nonfinite": len(values)}
    total = pytest.approx(finite.sum(), rel=1e-12, abs=1e-300)
    return {"nonfinite": len(values) - len(finite), "min": finite.min(), "max": finite.max(), "sum": total}


def reads_as(text, value):
    """Whether a field of CSV is this value."""
    match value:
        case Among():
            return any(reads_as(text, one) for one in value.values)
        case float():
            return text != "" and float(text) == value
        case None:
            return text == ""
    return text == str(value)
