"""One good dump, and hundreds of small mutations of it: names, JSON, arrays, archives, links, clocks.

Of each comes one of three things: the answers of the good dump; a report that names the file and what is wrong with it,
while all other steps are ingested as they were; or a stated other value. A mutation is one line of a table: its name,
what is done to a fresh copy, what must come of it, what must be said. Mutations that are alike share a line, each with
a further step, word or video of its own. What is expected is numpy's, or follows from the mutation; what is found is
read by other projects.
"""

from dataclasses import replace

import numpy as np
import pytest
from contents import assert_holds
from good_dump import ARRAYS, GOOD
from ingested import assert_comes, ingest
from mutation import each
from of_arguments import GIVEN
from of_clocks import CLOCKS
from of_file_kinds import KINDS_OF_FILE
from of_foreign_files import FOREIGN
from of_gzip import GZIP
from of_metadata import JSON
from of_names import NAMES
from of_npy import NPY
from of_npz import NPZ
from of_parts import PARTS
from of_step_names import STEP_NAMES
from of_summaries import SUMMARIES

MUTATIONS = [
    *(*STEP_NAMES, *NAMES, *FOREIGN, *JSON, *SUMMARIES, *NPY, *NPZ, *GZIP, *PARTS),
    *(*KINDS_OF_FILE, *CLOCKS, *GIVEN),
]


def test_the_good_dump_is_in_its_store_as_numpy_has_it(answered, good):
    """What the others are held against."""
    assert_holds(answered, good.store, [replace(step, like=None) for step in GOOD], good)
    for key, [answer] in good.asked["average"].items():
        mean = ARRAYS[key].astype(np.float64).mean(axis=(0, 1, 3))
        assert float(answer["sum"]) == pytest.approx(mean.sum(), rel=1e-6)
        assert float(answer["max"]) == pytest.approx(mean.max(), rel=1e-6)


@each(MUTATIONS)
def test_a_mutation_gives_the_same_answers_or_is_named_or_gives_what_it_says(run, answered, good, copy, mutation):
    named, ran = ingest(run, copy, mutation)
    *others, last = mutation.outcomes
    for outcome in others:
        try:
            return assert_comes(run, answered, copy, good, mutation, outcome, named, ran)
        except AssertionError:
            continue
    assert_comes(run, answered, copy, good, mutation, last, named, ran)
