"""SQL as people write it: what DuckDB makes of the same statement over the store's files, where both know its words."""

import io
import os
import pty
import subprocess
import termios

import duckdb
import numpy as np
import pandas as pd
import pytest
from source_dump import write_dump
from test_docs import read_terminal


@pytest.fixture(scope="module")
def store(attnkit, tmp_path_factory):
    """Two words of two videos; some maps are constant or zero, so that some of their statistics are undefined."""
    place, random, arrays = tmp_path_factory.mktemp("sql"), np.random.default_rng(7), {}
    for video, seed in (("a", 11), ("b", 22)):
        for token in ("cat", "dog"):
            for step in range(3):
                array = random.gamma(0.3, 1e-2, (2, 3, 24, 1)).astype(np.float32)
                array[0, step] = 0
                arrays[video, token, step] = (
                    array,
                    {"seed": seed, "timestep": 900 - step, "prompt": f"a {token}\nand\tmore"},
                )
    attnkit(
        "ingest",
        write_dump(place / "dump", arrays, video_frames=5, video_height=48, video_width=64),
        "--store",
        place / "store",
    )
    return place / "store"


@pytest.fixture
def sql(attnkit, store):
    return lambda statement: pd.read_csv(io.StringIO(attnkit("query", "sql", store, statement)))


def by_duckdb(store, statement):
    """With NaN as null, as attnkit has it."""
    tables = {}
    for name in ("steps", "heads"):
        table = duckdb.sql(
            f"SELECT * FROM read_parquet('{store}/index/{name}/*.parquet', hive_partitioning = false)"
        ).df()
        tables[name] = table.astype({"seed": "Int64"}) if "seed" in table else table
    heads, connection = tables["heads"], duckdb.connect()
    for name in heads.select_dtypes("float"):
        heads[name] = heads[name].astype("Float64")
        heads.loc[heads[name].isna(), name] = pd.NA
    for name, table in tables.items():
        connection.register(name, table)
    return connection.sql(statement).df()


STATEMENTS = [
    "SELECT COUNT(*) AS n FROM heads WHERE mean > 1e-3 AND mean < 2.5E-3",
    "SELECT COUNT(*) AS n FROM heads WHERE mean * 1e3 > 2",
    "-- of all\nSELECT token, COUNT(*) AS n FROM steps GROUP BY token ORDER BY token",
    "/* of all */ SELECT token, COUNT(*) AS n FROM steps GROUP BY token ORDER BY token",
    "SELECT video_id, COUNT(*) AS n FROM steps WHERE seed IN (11, 22.0) GROUP BY video_id ORDER BY video_id",
    "SELECT Video_ID, STEP FROM STEPS WHERE Token = 'cat' AND SEED = 11 ORDER BY Step",
    "SELECT Heads.BLOCK, COUNT(*) AS n FROM Heads GROUP BY Heads.BLOCK ORDER BY BLOCK",
    "SELECT step AS Gini FROM heads ORDER BY Gini DESC LIMIT 2",
    "SELECT video_id, step * -1 AS Step FROM steps ORDER BY Step, video_id LIMIT 3",
    "SELECT token, AVG(top5) AS Top5 FROM heads GROUP BY token ORDER BY Top5 DESC",
    "SELECT SUM(Step) AS n FROM (SELECT step * 10 AS Step FROM heads) AS a",
    "WITH t AS (SELECT block AS Head FROM heads) SELECT Head, COUNT(*) AS n FROM t GROUP BY Head ORDER BY Head",
    "SELECT COUNT(*) AS n FROM steps WHERE timestep IN (900, 898.5)",
    "SELECT COUNT(*) AS n FROM heads WHERE block IN (1, 2.5)",
    "SELECT h.Block AS Block, AVG(h.Mean) AS m FROM heads AS h GROUP BY h.Block ORDER BY h.Block",
    "SELECT COUNT(entropy) AS n, AVG(entropy) AS e, MAX(entropy) AS m FROM heads",
    "SELECT block, head, AVG(entropy_norm) AS e FROM heads GROUP BY block, head ORDER BY block, head",
    "SELECT COUNT(*) AS n FROM heads WHERE entropy > 0",
    "SELECT COUNT(*) AS n FROM heads WHERE NOT (entropy > 0)",
    "SELECT COUNT(*) AS n FROM heads WHERE entropy IS NULL",
    "SELECT block FROM heads WHERE step = 0 AND token = 'cat' AND video_id = 'a' ORDER BY entropy DESC NULLS LAST, "
    "block, head",
]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_statements_are_answered_as_duckdb_does(sql, store, statement):
    found, expected = sql(statement), by_duckdb(store, statement)
    found.columns, expected.columns = found.columns.str.lower(), expected.columns.str.lower()
    pd.testing.assert_frame_equal(found, expected.astype(found.dtypes.to_dict()), rtol=1e-9)


def test_undefined_statistics_are_asked_for_by_name(sql):
    for name in ("is_nan", "IS_NAN", "isnan"):
        assert sql(f"SELECT COUNT(*) AS n FROM heads WHERE {name}(entropy)")["n"][0] == 12
        assert sql(f"SELECT COUNT(*) AS n FROM heads WHERE NOT {name}(entropy + 1)")["n"][0] == 60
        assert sql(f"SELECT COUNT(*) AS n FROM heads WHERE {name}(SQRT(min - 1))")["n"][0] == 72
        assert sql(f"SELECT COUNT(*) AS n FROM heads WHERE {name}(step)")["n"][0] == 0
        assert sql(f"SELECT COUNT(*) AS n FROM HEADS WHERE {name}(Entropy + 1e0)")["n"][0] == 12


def test_conditions_and_statements_select_the_same_rows(attnkit, sql, store):
    for condition in (
        "entropy > 1e-1",
        "NOT is_nan(entropy)",
        "NOT entropy > 2",
        "ENTROPY < 1e300",
        "seed IN (11.0, 3)",
    ):
        tables = "heads JOIN steps USING (video_id, token, step)" if "seed" in condition else "heads"
        printed = attnkit("query", "list", store, "--table", "heads", "--where", condition, "--columns", "block, head")
        assert len(printed.splitlines()) - 1 == sql(f"SELECT COUNT(*) AS n FROM {tables} WHERE {condition}")["n"][0], (
            condition
        )


def test_a_count_is_called_count_and_has_64_bits(attnkit, sql, store, tmp_path):
    assert sql("SELECT COUNT(*) FROM steps").columns.tolist() == ["count"]
    assert sql("SELECT token, COUNT(*) FROM steps GROUP BY token").columns.tolist() == ["token", "count"]
    assert sql("SELECT token, COUNT(*) FROM steps GROUP BY token ORDER BY count")["count"].tolist() == [6, 6]
    assert sql("SELECT count FROM (SELECT COUNT(*) FROM steps) AS a")["count"].tolist() == [12]
    assert sql("SELECT token AS Token, MAX(top5) AS Top5 FROM heads GROUP BY token").columns.tolist() == [
        "Token",
        "Top5",
    ]
    attnkit("query", "sql", store, "SELECT COUNT(*) FROM steps", "-o", tmp_path / "n.parquet")
    assert pd.read_parquet(tmp_path / "n.parquet")["count"].dtype == np.int64


def test_a_column_of_the_other_table_is_told(finished, sql, store):
    for statement, said in (
        ("SELECT seed FROM heads", "`seed` is a column of `steps`; add JOIN steps USING (video_id, token, step)"),
        ("SELECT gini FROM steps", "`gini` is a column of `heads`; add JOIN heads USING (video_id, token, step)"),
    ):
        assert said in finished("query", "sql", store, statement, code=2).stderr
    grouped = "SELECT block, avg(gini) FROM heads GROUP BY block HAVING block > 0"
    assert "conditions on what is grouped by go into WHERE" in finished("query", "sql", store, grouped, code=2).stderr
    joined = sql("SELECT seed, COUNT(*) AS n FROM heads JOIN steps USING (video_id, token, step) GROUP BY seed")
    assert joined.to_numpy().tolist() == [[11, 36], [22, 36]]


def test_tables_and_their_columns_are_shown(finished, sql, store):
    assert sorted(sql("SHOW TABLES").iloc[:, 0]) == ["heads", "steps", "text"]
    for table in ("steps", "HEADS"):
        columns = sql(f"DESCRIBE {table}")["column"].tolist()
        assert (
            columns
            == duckdb.sql(
                f"SELECT * FROM read_parquet('{store}/index/{table.lower()}/*.parquet', hive_partitioning = false)"
            ).columns
        )
    assert "no table `maps`" in finished("query", "sql", store, "DESCRIBE maps", code=2).stderr


@pytest.mark.parametrize(
    "option, several", [("a*", "token LIKE 'a%'"), ("cat,dog", "token IN ('cat', 'dog')"), ("o'?", "token LIKE 'o''_'")]
)
@pytest.mark.parametrize("question", ["list", "average"])
def test_one_name_that_looks_like_several_is_told_so(finished, store, question, option, several):
    assert several in finished("query", question, store, "--token", option, code=0 if question == "list" else 1).stderr


# What is shown.


def on_terminal(columns, *arguments):
    """What `attnkit ARGS…` prints on a terminal of that many columns."""
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (60, columns))
    command = [os.environ["ATTNKIT_BIN"], *map(str, arguments)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=terminal, stderr=subprocess.DEVNULL, start_new_session=True
    )
    os.close(terminal)
    printed = b""
    while more := read_terminal(controller):
        printed += more
    os.close(controller)
    assert process.wait() == 0
    return printed.decode().replace("\r\n", "\n")


def test_a_prompt_with_line_breaks_stays_one_row(attnkit, store):
    printed = attnkit("query", "list", store, "--columns", "video_id,token,step,prompt", "--format", "table")
    rows = printed.splitlines()
    assert len(rows) == 1 + 12 and all(row.endswith((r"a cat\nand\tmore", r"a dog\nand\tmore")) for row in rows[1:])


@pytest.mark.parametrize(
    "question, wanted",
    [(["evolution"], ["video_id", "token", "step", "mean", "cosine_previous", "entropy_norm", "cosine_last"]),
     (["evolution", "--sparkline"], ["video_id", "token", "steps", "n", "mean"]), (["list"], ["video_id", "token",
      "step", "seed", "timestep"]),
     (["list", "--table", "heads"], ["video_id", "token", "step", "block", "head"]), (["average"], ["video_id",
      "token", "step"])],
    ids=str,
)  # fmt: skip
def test_narrow_tables_have_the_columns_that_answer(attnkit, store, question, wanted):
    header = on_terminal(100, "query", question[0], store, *question[1:]).splitlines()[0]
    assert len(header) <= 100 and [name for name in wanted if name not in header.split()] == []


def test_no_row_is_an_answer_that_says_what_there_is(finished, store):
    told = finished("query", "list", store, "--token", "bird")
    assert (
        len(told.stdout.splitlines()) == 1
        and "no row matches `token = 'bird'`" in told.stderr
        and "words cat, dog" in told.stderr
    )


def test_names_in_lists_may_have_spaces_beside_them(attnkit, store):
    spaced = attnkit(
        "query",
        "average",
        store,
        "--over",
        "block, head , step",
        "--columns",
        "video_id, token ,n",
        "--sort",
        " n : desc",
    )
    assert spaced == attnkit("query", "average", store, "--over", "block,head,step", "--columns", "video_id,token,n")
    metrics = ("compare", store, "--across", "token", "--video", "a", "--align", "last")
    assert attnkit("query", *metrics, "--metric", "l2, cosine") == attnkit("query", *metrics, "--metric", "l2,cosine")


@pytest.mark.parametrize("nothing", ["", "none"])
def test_averages_may_be_over_nothing(attnkit, store, nothing):
    rows = attnkit("query", "average", store, "--over", nothing, "--columns", "n").splitlines()
    assert rows == ["n", *["1"] * 72]
