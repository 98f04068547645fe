"""Chosen blocks and heads are asked for by their own numbers."""

import numpy as np
from answers import rows_of
from good_dump import ARRAY, VIDEO, WORD
from of_parts import parts


def test_blocks_and_heads_are_asked_for_by_their_numbers(run, answered, copy):
    parts([6, 8], [3, 5, 7])(copy)
    answered("ingest", copy.root, "--store", copy.store)
    place = ("--video", VIDEO, "--token", WORD)
    chosen, asked_for = "step = 1 AND block = 8 AND head = 5", ("--step", 1, "--block", 8, "--head", 5)
    answered(
        "query", "average", copy.store, *place, "--over", "block,head", "--where", chosen, "-o", copy.place / "a.npy"
    )
    answered("query", "map", copy.store, *place, *asked_for, "-o", copy.place / "b.npy")
    for name in ("a.npy", "b.npy"):
        assert np.array_equal(np.load(copy.place / name).ravel(), ARRAY[1, 1, :, 0].astype(np.float32)), name
    sides = rows_of(
        answered("query", "compare", copy.store, *place, "--across", "block", "--align", "mean", "--metric", "l2")
    )
    assert [(row["a"], row["b"]) for row in sides] == [("6", "8")]
    ran = run("query", "map", copy.store, *place, "--step", 1, "--block", 1, "-o", copy.place / "c.npy")
    assert ran.code != 0 and "block" in ran.err, ran.said
