"""A mutation: a line of a table, and a test of its own."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from changes import Literal
from outcomes import Outcome


@dataclass(frozen=True)
class M:
    """A mutation: done to a copy of the good dump by `change`, which returns a list of what is to be named, or nothing.

    Items of that list are files, or several of which one is to be named. `outcome` may be several, of which one must
    come. `says` is a part of why each of them was left out (or of why all is refused), `warns` of the warning for one
    of them; lists have a part for each. Without `warns` there is no warning, with ANYTHING there may be.
    """

    name: str
    change: Callable
    outcome: Outcome | tuple
    says: str | list = ""
    warns: str | list | None = None
    options: tuple = ()

    @property
    def outcomes(self):
        return self.outcome if isinstance(self.outcome, tuple) else (self.outcome,)


def several(names):
    """Names as a part of a mutation's own, cut off where they are long."""
    text = ", ".join(name if isinstance(name, Literal) else repr(name) for name in names)
    return text if len(text) < 80 else text[:77] + "..."


def each(mutations):
    """A test for each, under its name."""
    names = [mutation.name for mutation in mutations]
    assert len(set(names)) == len(names), [name for name in set(names) if names.count(name) > 1]
    return pytest.mark.parametrize("mutation", [pytest.param(mutation, id=mutation.name) for mutation in mutations])
