"""Seeds of all 64 bits are told apart."""

from decimal import Decimal

import duckdb
import numpy as np
import pytest
from answers import rows_of, table
from good_dump import maps
from source_dump import write_dump

# Of videos of these seeds, by name.
BY_SEED = {
    **{"a": 2**64 - 1, "b": 2**64 - 2, "c": 2**63, "d": 2**63 - 1, "e": 2**53 + 1, "f": 0, "g": -1, "h": -(2**63)},
    "i": None,
}
SEED_CONDITIONS = {
    **{"seed = 18446744073709551615": "a", "seed = 18446744073709551614": "b", "18446744073709551615 = seed": "a"},
    **{
        "seed > 9223372036854775807": "abc",
        "seed >= 9223372036854775808": "abc",
        "seed < 0": "gh",
        "NOT seed < 0": "abcdef",
    },
    **{
        "seed IN (18446744073709551615, 0)": "af",
        "seed NOT IN (18446744073709551615, 0)": "bcdegh",
        "seed IS NULL": "i",
    },
    **{"seed <> 9223372036854775808": "abdefgh", "seed IS NOT NULL": "abcdefgh", "seed = -9223372036854775808": "h"},
    **{"seed BETWEEN 9223372036854775807 AND 18446744073709551614": "bcd", "seed = 11.5": "", "seed > 0.5": "abcde"},
    **{"seed = 9007199254740993": "e", "seed = 9007199254740992": "", "seed % 2 = 1 AND seed > 0": "ade"},
    **{"seed = 18446744073709551616": "", "seed > 18446744073709551615": "", "seed < 18446744073709551616": "abcdefgh"},
    **{
        "seed - 1 = 18446744073709551614": "a",
        "seed = 18446744073709551614 + 1": "a",
        "ABS(seed) = 9223372036854775808": "ch",
    },
    **{"CAST(seed AS VARCHAR) = '18446744073709551615'": "a"},
    **{
        "seed = 18446744073709551615.0": "",
        "seed = 9007199254740992.0": "",
        "seed > 9007199254740992.0": "abcde",
        "seed >= 9223372036854775808.0": "abc",
        "seed = -9223372036854775808.0": "h",
    },
    **{
        "seed IN (9007199254740993, 9007199254740992.0)": "e",
        "seed IN (0.0, 1.0)": "f",
        "seed NOT IN (0.0)": "abcdegh",
    },
    **{"CAST(seed AS UBIGINT) = 18446744073709551615 AND seed >= 0": "a", "TRY_CAST(seed AS UBIGINT) > 1": "abcde"},
}
SEED_STATEMENTS = {
    "SELECT video_id FROM steps ORDER BY seed DESC NULLS LAST": [*"abcdefghi"],
    "SELECT video_id FROM steps ORDER BY seed NULLS LAST": [*"hgfedcbai"],
    "SELECT seed FROM steps ORDER BY video_id": [*["" if seed is None else str(seed) for seed in BY_SEED.values()]],
    "SELECT COUNT(DISTINCT seed) FROM steps": ["8"],
    "SELECT MAX(seed) FROM steps": [f"{2**64 - 1}"],
    "SELECT MIN(seed) FROM steps": [f"{-(2**63)}"],
    "SELECT seed FROM steps WHERE seed > 18446744073709551614 GROUP BY seed": [f"{2**64 - 1}"],
    "SELECT DISTINCT seed FROM steps WHERE seed > 9223372036854775808 ORDER BY seed": [f"{2**64 - 2}", f"{2**64 - 1}"],
    "SELECT COUNT(*) FROM steps GROUP BY seed": ["1"] * 9,
    "SELECT COUNT(*) FROM steps AS a JOIN steps AS b ON a.seed = b.seed": ["8"],
    "SELECT video_id FROM steps WHERE seed IN (SELECT MAX(seed) FROM steps)": ["a"],
    "SELECT COUNT(*) FROM steps AS a JOIN heads AS b USING (video_id) WHERE a.seed = 18446744073709551615": ["6"],
}


@pytest.fixture(scope="module")
def seeds(place, answered):
    arrays = {(name, "cat", 0): (maps(1, dtype=np.float32), {"seed": seed}) for name, seed in BY_SEED.items()}
    dump = write_dump(place / "seeds" / "dump", arrays)
    answered("ingest", dump, "--store", place / "seeds" / "store", "--quiet")
    return place / "seeds" / "store"


@pytest.mark.parametrize("condition, expected", SEED_CONDITIONS.items(), ids=SEED_CONDITIONS)
def test_seeds_of_64_bits_are_told_apart_by_conditions(run, seeds, condition, expected):
    """By those of `list`, of `sql`, and of `average`, which ends with an error where no map matches."""
    sql = f"SELECT video_id FROM steps WHERE {condition} ORDER BY video_id"
    for question in (
        ("list", seeds, f"--where={condition}"),
        ("sql", seeds, sql),
        ("average", seeds, f"--where={condition}"),
    ):
        ran = run("query", *question)
        found = "".join(row["video_id"] for row in rows_of(ran.out))
        assert found == expected and (ran.code == 0 or (question[0] == "average" and not expected)), ran.said


@pytest.mark.parametrize("sql, expected", SEED_STATEMENTS.items(), ids=SEED_STATEMENTS)
def test_seeds_of_64_bits_are_told_apart_by_statements(answered, seeds, sql, expected):
    assert [next(iter(row.values())) for row in rows_of(answered("query", "sql", seeds, sql))] == expected


def test_seeds_of_64_bits_are_what_other_readers_find(seeds):
    found = {row["video_id"]: row["seed"] for row in table(seeds, "steps")}
    assert found == {name: seed if seed is None else Decimal(seed) for name, seed in BY_SEED.items()}
    rows = duckdb.sql(f"SELECT video_id, CAST(seed AS VARCHAR) FROM '{seeds}/index/steps/*.parquet'").fetchall()
    assert dict(rows) == {name: seed if seed is None else str(seed) for name, seed in BY_SEED.items()}


@pytest.mark.parametrize("against", ["18446744073709551615", "18446744073709551614", "9007199254740993", "-1", "0"])
def test_a_seed_is_compared_against_by_its_digits(answered, seeds, against):
    question = ("compare", seeds, "--across", "seed", "--metric", "l2", "--where", "seed IS NOT NULL")
    rows = [*rows_of(answered("query", *question, "--against", against))]
    assert {row["b"] for row in rows} == {against}
    assert {row["a"] for row in rows} == {str(seed) for seed in BY_SEED.values() if seed is not None} - {against}


@pytest.mark.parametrize("against", ["9007199254740992", "18446744073709551615.0", "1.8446744073709552e19", "1"])
def test_a_seed_that_is_only_near_is_none(run, seeds, against):
    question = ("compare", seeds, "--across", "seed", "--metric", "l2", "--where", "seed IS NOT NULL")
    ran = run("query", *question, "--against", against)
    assert ran.code != 0 and against in ran.err, ran.said


# With floats beside them seeds would be rounded.
ROUNDING = [
    "SELECT video_id FROM steps WHERE seed IN (9007199254740992.5)",
    "SELECT video_id FROM steps WHERE seed IN (SELECT 9007199254740992.0 AS x)",
    "SELECT video_id FROM steps WHERE seed = 9007199254740992 + 0.0",
    "SELECT seed AS x FROM steps UNION SELECT cfg_scale AS x FROM steps",
    "SELECT COALESCE(seed, cfg_scale) AS x FROM steps",
    "SELECT CASE WHEN seed IS NULL THEN cfg_scale ELSE seed END AS x FROM steps",
    "SELECT GREATEST(seed, cfg_scale) AS x FROM steps",
]


@pytest.mark.parametrize("sql", ROUNDING)
def test_seeds_are_not_mixed_with_floats(run, seeds, sql):
    ran = run("query", "sql", seeds, sql)
    assert ran.code == 2 and not ran.out, ran.said
