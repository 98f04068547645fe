"""The tables of a store as readers find them, and what `attnkit query` prints, by step."""

import csv
import io

import pyarrow.dataset


def table(store, name):
    """A table, as readers find it that are given its directory."""
    return pyarrow.dataset.dataset(store / "index" / name, format="parquet", partitioning=None).to_table().to_pylist()


def rows_of(printed):
    return csv.DictReader(io.StringIO(printed, newline=""))


def by_step(rows):
    found = {}
    for row in rows:
        found.setdefault((row.pop("video_id"), row.pop("token"), int(row.pop("step"))), []).append(row)
    return found


LISTED = [
    *("prompt_id", "prompt", "seed", "weight", "timestep", "frames", "height", "width", "dtype"),
    *("num_blocks", "num_heads", "spatial", "row"),
]
QUESTIONS = {
    "list": ("--columns", ",".join(["video_id", "token", "step", *LISTED])),
    "average": (),
    "sql": (
        "SELECT video_id, token, step, COUNT(*) AS maps, SUM(nonfinite) AS odd, MAX(max) AS highest, MIN(gini) AS gini "
        "FROM heads GROUP BY video_id, token, step",
    ),
}


def asked(answered, store):
    """What the questions print, by step."""
    printed = {question: answered("query", question, store, *options) for question, options in QUESTIONS.items()}
    return {question: by_step(rows_of(text)) for question, text in printed.items()}
