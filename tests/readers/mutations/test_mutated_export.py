"""Names, weights and numbers of mutated dumps survive `attnkit export`."""

import json

import pytest
from additions import add_steps
from answers import by_step, table
from changes import Copy, Literal, content, dumped, metadata
from contents import assert_arrays, assert_rows
from good_dump import GOOD, VIDEO
from ingested import ingest
from mutation import each
from of_names import NAMES
from of_parts import PARTS


@each([mutation for mutation in [*NAMES, *PARTS] if not mutation.warns and not mutation.says])
def test_names_weights_and_numbers_survive_export_and_ingest(run, answered, copy, mutation):
    ingest(run, copy, mutation)
    exported, again = copy.place / "exported", copy.place / "again"
    answered("export", copy.store, "--out", exported)
    answered("ingest", exported, "--store", again)
    held, found = [outcome.holds(GOOD) for outcome in mutation.outcomes], {*by_step(table(again, "steps"))}
    steps = next((steps for steps in held if {step.key for step in steps} == found), held[0])
    assert_arrays(again, steps, assert_rows(again, steps))


NUMBERS = (
    *(
        "0",
        "-0",
        "-0.0",
        "0.10",
        "3.0",
        "1E2",
        "1e+02",
        "1e-05",
        "1e400",
        "-1e400",
        "1e-400",
        "5e-324",
        "0.1000000000000000055",
    ),
    *(
        "9007199254740993",
        "9223372036854775808",
        "18446744073709551616",
        "-9223372036854775809",
        "1" + "0" * 40,
        "0." + "1" * 40,
    ),
    *(
        "12345678901234567890.12345678901234567890",
        "2147483648",
        "4294967296",
        "-1",
        "100000000000000000000000.0",
        "1.0e0",
    ),
)

NUMBERED = ("seed", "timestep", "cfg_scale", "total_steps", "video_width", "num_blocks", "step", "extra")


def with_digits(text):
    """JSON with every number as it is written."""
    return json.loads(text, parse_int=str, parse_float=str)


@pytest.mark.parametrize("key", NUMBERED)
def test_export_gives_every_number_back_digit_for_digit(answered, copy, key):
    described = [files[1] for files in add_steps(*[{key: Literal(text)} for text in NUMBERS])(copy)]
    answered("ingest", copy.root, "--store", copy.store, "--quiet")
    answered("export", copy.store, "--out", copy.place / "exported")
    exported = copy.place / "exported" / "attention_maps" / VIDEO / "token_cat"
    found = {path.name: with_digits((exported / path.name).read_bytes()) for path in described}
    for document in found.values():
        document.pop("attnkit", None)  # what the store knows beyond the generator's keys: here the grid
    assert found == {path.name: with_digits(path.read_bytes()) for path in described}


def test_export_gives_numbers_in_lists_and_summaries_back_digit_for_digit(answered, copy):
    numbers = Literal(f"[{', '.join(NUMBERS)}]")
    metadata(token_ids=numbers, attention_shape=numbers, extra=Literal(f'{{"a": [{numbers}]}}'))(copy)
    content(lambda text: dumped(json.loads(text), {"config": Literal(f'{{"a": {numbers}}}')}), Copy.summary)(copy)
    answered("ingest", copy.root, "--store", copy.store, "--quiet")
    answered("export", copy.store, "--out", copy.place / "exported")
    for path in (copy.metadata(), copy.summary()):
        exported = copy.place / "exported" / path.relative_to(copy.root)
        assert with_digits(exported.read_bytes()) == with_digits(path.read_bytes())
