"""Integers as large as their columns hold do not wrap, whatever is asked of them."""

import json
import os
from itertools import product

import duckdb
import numpy as np
import pytest
from answers import rows_of
from good_dump import maps
from source_dump import REPOSITORY, write_dump


def integer_columns(name):
    columns = json.loads((REPOSITORY / "schemas" / f"{name}.columns.json").read_text())
    return [column["name"] for column in columns if column["type"].startswith(("int", "decimal"))]


INTEGERS = {name: integer_columns(name) for name in ("steps", "heads")}
COLUMNS = [(name, column) for name in INTEGERS for column in INTEGERS[name]]
ORDER = {"steps": "video_id, step", "heads": "video_id, step, block, head"}
LARGE, LAST_STEP = (2**64 - 1, 2**63), 2**31 - 1
SIZES = [
    {"video_width": 2**31 - 1, "video_height": 46341, "video_frames": 2**30, "prompt": "a cat"},
    {"video_width": 64, "video_height": 64, "video_frames": 5, "prompt": "a dog"},
]


@pytest.fixture(scope="module")
def integers(place, answered):
    """A store of integers as large as their columns hold."""
    arrays, place = {}, place / "integers"
    for number, step in product((0, 1), (0, 5, LAST_STEP)):
        array = maps(number + step % 7, dtype=np.float32)
        array[0, 0, : number + 1] = np.nan
        arrays[f"v{number}", "cat", step] = array, {"seed": LARGE[number], **SIZES[number]}
    alike = {"total_steps": 2**31 - 1, "token_ids": [2**63 - 1], "block_idx": [4000, 4095], "head_idx": [7, 2000, 4000]}
    dump = write_dump(place / "dump", arrays, **alike)
    for path in dump.rglob("step_*"):
        os.utime(path, (1_711_843_200, 1_711_843_200))  # 2024-03-31
    (place / "prompts.txt").write_text("a [cat|dog]\n")
    answered("ingest", dump, "--store", place / "store", "--prompts", place / "prompts.txt", "--quiet")
    return place / "store"


def exactly(store, name, expressions):
    """What DuckDB makes of expressions over a table with every integer of 128 bits; None where these are too few."""
    widened = ", ".join(f"CAST({column} AS HUGEINT) AS {column}" for column in INTEGERS[name])
    parts = f"read_parquet('{store}/index/{name}/*.parquet', hive_partitioning = false)"
    table, columns = f"(SELECT * REPLACE ({widened}) FROM {parts} ORDER BY {ORDER[name]})", []
    for expression in expressions:
        try:
            columns.append([value for [value] in duckdb.sql(f"SELECT {expression} FROM {table}").fetchall()])
        except duckdb.Error:
            columns.append(None)
    return columns


def in_64_bits(value):
    return isinstance(value, int) and -(2**63) <= value < 2**63


def number(text):
    return None if text == "" else float(text) if set(text) & set(".eE") else int(text)


OF_ROWS = (
    *(
        "{0}",
        "-{0}",
        "ABS(-{0})",
        "{0} + 2147483647",
        "{0} - 4294967296",
        "2147483647 - {0}",
        "{0} * 65536",
        "{0} * {0}",
    ),
    *("{0} // 7", "{0} % 7", "3000000000 * {0}"),
)
OF_ALL = (
    *("SUM({0})", "MIN({0})", "MAX({0})", "SUM(-{0})", "SUM({0} * 65536)", "SUM({0} * {0})", "SUM({0}) * 1000"),
    *("COUNT({0}) - 100", "COUNT({0}) * 3000000000", "COUNT(DISTINCT {0}) - 100", "MAX({0}) - MIN({0}) - 4294967296"),
    "AVG({0} * 65536)",
)


@pytest.mark.parametrize("operations", [OF_ROWS, OF_ALL], ids=["rows", "aggregates"])
@pytest.mark.parametrize("name, column", COLUMNS, ids=str)
def test_integers_do_not_wrap(run, integers, name, column, operations):
    """What 64 bits hold is exact; what they do not is exact or an error."""
    expressions = [operation.format(column) for operation in operations]
    expected = dict(zip(expressions, exactly(integers, name, expressions)))

    def is_held(expression):
        if column == "seed":  # whose sums and products are beyond 64 bits on the way
            return expression in (column, f"MIN({column})", f"MAX({column})", f"COUNT(DISTINCT {column}) - 100")
        values = expected[expression]
        return values and all(value is None or isinstance(value, float) or in_64_bits(value) for value in values)

    held = [expression for expression in expressions if is_held(expression)]
    order, wrong = f" ORDER BY {ORDER[name]}" if operations is OF_ROWS else "", {}
    for together in [held, *[[expression] for expression in expressions if expression not in held]]:
        select = ", ".join(f"{expression} AS c{place}" for place, expression in enumerate(together))
        ran = run("query", "sql", integers, f"SELECT {select} FROM {name}{order}")
        assert ran.code == 0 or together is not held, ran.said
        rows = [*rows_of(ran.out)]
        for place, expression in enumerate(together if ran.code == 0 else []):
            found = [number(row[f"c{place}"]) for row in rows]
            exact = [value if in_64_bits(value) else pytest.approx(value) for value in expected[expression] or []]
            wrong.update({} if found == exact else {expression: (found[:6], exact[:6])})
    assert wrong == {}


@pytest.mark.parametrize("name, column", COLUMNS, ids=str)
def test_integers_do_not_wrap_in_conditions(answered, integers, name, column):
    """The rows that have the last one's value have it after every operation."""
    expressions = [operation.format(column) for operation in OF_ROWS]
    known = dict(zip(expressions, exactly(integers, name, expressions)))
    last = {expression: values[-1] for expression, values in known.items() if values and in_64_bits(values[-1])}
    conditions = [f"{expression} = {value} AND {expression} < {value + 1}" for expression, value in last.items()]
    condition = " AND ".join(conditions) or f"{column} IS NULL"
    printed = answered("query", "list", integers, "--table", name, f"--where={condition}", "--columns", "step")
    assert len([*rows_of(printed)]) == known[column].count(known[column][-1]), condition


# What is selected from `steps`, and the number that comes of it.
EXPRESSIONS = {
    **{"COUNT(*) - 100": -94, "COUNT(*) * 3000000000": 18 * 10**9, "-COUNT(*)": -6, "COUNT(DISTINCT step) - 100": -97},
    **{"MIN(LENGTH(token)) - 10": -7, "MIN(LENGTH(token)) * 3000000000": 9 * 10**9, "MIN(STRPOS(token, 't')) - 10": -7},
    **{"MIN(ARRAY_LENGTH(token_ids)) - 10": -9, "MAX(EXTRACT(YEAR FROM source_modified)) * 10000000": 20_240_000_000},
    **{"MAX(EXTRACT(MONTH FROM source_modified)) * 100": 300, "MAX(EXTRACT(DAY FROM source_modified)) * 100": 3100},
    **{"MAX(EXTRACT(DOY FROM source_modified)) * 1000": 91_000, "MAX(step) + 1": 2**31, "MAX(step) * 2": 2**32 - 2},
    **{
        "MAX(step + 1)": 2**31,
        "MAX(step * 2)": 2**32 - 2,
        "MIN(-step - 2)": -(2**31) - 1,
        "MIN(0 - step * 3)": -3 * LAST_STEP,
    },
    **{
        "MAX(2147483647 + 1)": 2**31,
        "MAX(2147483647 * 2147483647)": LAST_STEP**2,
        "MIN(-2147483648 - 1)": -(2**31) - 1,
    },
    **{
        "SUM(1)": 6,
        "SUM(1) - 100": -94,
        "SUM(2147483647)": 6 * LAST_STEP,
        "AVG(3)": 3,
        "COUNT(1)": 6,
        "SUM(step * 0 + 1)": 6,
    },
    **{
        "SUM(CASE WHEN step > 5 THEN 2147483647 ELSE 0 END)": 2 * LAST_STEP,
        "MAX(GREATEST(step, 3000000000))": 3 * 10**9,
    },
    **{"SUM(CASE WHEN step * 2 > 3000000000 THEN 1 ELSE 0 END)": 2, "MAX(COALESCE(frames, 3000000000))": 3 * 10**9},
    **{
        "MAX(CAST(step AS BIGINT) * 4)": 4 * LAST_STEP,
        "MAX(CAST(step AS INTEGER) * 4)": 4 * LAST_STEP,
        "MAX(MOD(step, 7))": 5,
    },
    **{"SUM(step * num_blocks * num_heads)": 12 * (LAST_STEP + 5)},
}
# Whole statements, and the number that comes of them.
STATEMENTS = {
    "SELECT SUM(2 * a) FROM (SELECT step * 2 AS a FROM steps) AS doubled": 8 * (LAST_STEP + 5),
    "SELECT SUM(steps.step) FROM steps JOIN heads USING (video_id, token, step)": 12 * (LAST_STEP + 5),
    "SELECT COUNT(*) FROM steps WHERE step * 2 > 3000000000": 2,
    "SELECT COUNT(*) FROM steps WHERE step + 1 > 2147483647": 2,
    "SELECT COUNT(*) FROM heads WHERE block * 1000000 = 4000000000": 18,
    "SELECT COUNT(*) FROM heads WHERE step * block > 4294967296": 12,
    "SELECT step FROM steps ORDER BY step * 2 DESC LIMIT 1": LAST_STEP,
    "SELECT SUM(1) AS a FROM steps GROUP BY video_id LIMIT 1": 3,
    "SELECT SUM(step) AS a FROM steps GROUP BY token HAVING SUM(step) > 3000000000": 2 * (LAST_STEP + 5),
    "SELECT SUM(step) OVER () AS a FROM steps LIMIT 1": 2 * (LAST_STEP + 5),
    "SELECT ROW_NUMBER() OVER (ORDER BY seed, step) - 20 AS a FROM steps ORDER BY a LIMIT 1": -19,
    "SELECT MAX(a) FROM (SELECT MAX(step) AS a FROM steps UNION ALL SELECT 3000000000 AS a FROM steps) AS b": 3 * 10**9,
}
# What 64 bits do not hold: a number must be this one.
BEYOND = {
    **{"SUM(step * 9223372036854775807)": 2 * (LAST_STEP + 5) * (2**63 - 1), "MAX(step * step * step)": LAST_STEP**3},
    **{"MAX(9223372036854775807 + 1)": 2**63, "MIN(-9223372036854775807 - 2)": -(2**63) - 1, "MAX(seed + 1)": 2**64},
    **{
        "MAX(4294967296 * 4294967296)": 2**64,
        "SUM(total_steps * total_steps * 4)": 24 * LAST_STEP**2,
        "MIN(-seed)": -LARGE[0],
    },
    **{
        "SUM(9223372036854775807)": 6 * (2**63 - 1),
        "MAX(ABS(-9223372036854775807 - 1))": 2**63,
        "MAX(seed * seed)": LARGE[0] ** 2,
    },
    **{
        "SUM(seed)": 3 * sum(LARGE),
        "MAX(seed - 18446744073709551616)": -1,
        "COUNT(*) * 9223372036854775807": 6 * (2**63 - 1),
    },
    **{
        "MAX(CAST(seed AS BIGINT))": LARGE[0],
        "MAX(CAST(step AS SMALLINT))": LAST_STEP,
        "MAX(CAST(step AS TINYINT))": LAST_STEP,
    },
    **{"SUM(video_width * video_height * video_frames)": 3 * ((2**31 - 1) * 46341 * 2**30 + 64 * 64 * 5)},
}


def one_number(ran):
    [[printed]] = [row.values() for row in rows_of(ran.out)]
    return number(printed)


@pytest.mark.parametrize("sql", [*[f"SELECT {expression} FROM steps" for expression in EXPRESSIONS], *STATEMENTS])
def test_expressions_do_not_wrap(run, integers, sql):
    ran = run("query", "sql", integers, sql)
    expected = STATEMENTS.get(sql, EXPRESSIONS.get(sql.removeprefix("SELECT ").removesuffix(" FROM steps")))
    assert ran.code == 0 and one_number(ran) == expected, ran.said


@pytest.mark.parametrize("expression", BEYOND)
def test_what_64_bits_do_not_hold_is_exact_or_an_error(run, integers, expression):
    ran = run("query", "sql", integers, f"SELECT {expression} FROM steps")
    assert ran.code != 0 or one_number(ran) == BEYOND[expression], ran.said


# Conditions on what 64 bits do not hold, and the rows of which they are true.
CONDITIONS = {
    **{"step * 9223372036854775807 > 0": 4, "step * step * step * step > 0": 4, "step + 9223372036854775807 < 0": 0},
    **{"seed * seed * seed > 0": 6, "seed + 9223372036854775807 > 0": 6, "-seed < 0": 6},
}


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("question", ["list", "average", "sql"])
def test_conditions_on_what_64_bits_do_not_hold_are_right_or_an_error(run, integers, question, condition):
    if question == "sql":
        ran = run("query", "sql", integers, f"SELECT step FROM steps WHERE {condition}")
    else:
        ran = run("query", question, integers, f"--where={condition}")
    assert ran.code != 0 or len([*rows_of(ran.out)]) == CONDITIONS[condition], ran.said


# Types whose numbers polars would wrap, and lists that it would compute with one by one.
REFUSED = (
    *(
        "CAST('170141183460469231731687303715884105727' AS HUGEINT) + 1",
        "CAST(mean AS HUGEINT)",
        "CAST(1e30 AS INT128)",
    ),
    *("CAST(step AS TINYINT) * 2", "CAST(step AS SMALLINT)", "CAST(step AS UTINYINT)", "CAST(step AS USMALLINT)"),
    *("CAST(step AS UHUGEINT)", "CAST(step AS DECIMAL(38, 0)) * CAST(step AS DECIMAL(38, 0))"),
    *("SUM(CAST(step AS DECIMAL(38, 9)))", "token_ids + 1", "-token_ids", "token_ids * token_ids", "ABS(token_ids)"),
)


@pytest.mark.parametrize("expression", REFUSED)
def test_what_may_wrap_is_refused(run, integers, expression):
    columns = "steps JOIN heads USING (video_id, token, step)" if "mean" in expression else "steps"
    ran = run("query", "sql", integers, f"SELECT {expression} AS n FROM {columns}")
    assert ran.code == 2 and not ran.out, ran.said
    if "mean" not in expression and "SUM" not in expression:
        ran = run("query", "list", integers, f"--where=({expression}) > 0")
        assert ran.code == 2 and not ran.out, ran.said


def test_unsigned_integers_of_64_bits_do_not_wrap(run, integers):
    ran = run("query", "sql", integers, "SELECT MAX(CAST(seed AS UBIGINT) + CAST(seed AS UBIGINT)) AS n FROM steps")
    assert ran.code == 0 and one_number(ran) == 2 * LARGE[0], ran.said
    ran = run("query", "sql", integers, "SELECT MAX(CAST(seed AS UBIGINT) * CAST(seed AS UBIGINT)) AS n FROM steps")
    assert ran.code != 0 or one_number(ran) == LARGE[0] ** 2, ran.said
