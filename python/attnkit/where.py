"""Which maps a question is about, and how they become one: what all questions take, written once."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, TypedDict, TypeVar

from . import _check, _native
from ._shared import takes

if TYPE_CHECKING:
    from typing_extensions import Unpack

Function = TypeVar("Function", bound=Callable[..., Any])
Reducer = Literal["mean", "sum", "max", "min", "std", "median"]

#: What holds where nothing is said of how maps become one.
DEFAULTS: Mapping[str, Any] = json.loads(_native.usual_reduction())


class _OfSteps(TypedDict, total=False):
    video: str | None
    token: str | None
    step: SupportsIndex | None


class _OfMaps(TypedDict, total=False):
    block: SupportsIndex | None
    head: SupportsIndex | None


class _Reduced(TypedDict, total=False):
    reducer: Reducer
    skipna: bool
    rollups: bool


class Selected(_OfSteps, _OfMaps, total=False):
    """Which maps, beside a condition."""


class OfOneMap(_OfMaps, _Reduced, total=False):
    """What is asked of one map, whose video, word and step are named apart."""


class Asked(_OfSteps, _OfMaps, _Reduced, total=False):
    """Which maps, beside a condition, and how they become one."""


@dataclass(frozen=True, repr=False)
class Where:
    """Which maps a question is about, and how they become one: to be said once and used in many questions.

    Every question takes one as `where`, and takes the same arguments itself; those narrow it: both must hold.

    Parameters
    ----------
    where : str or Where, optional
        SQL condition over the columns of both tables, such as `"step < 10 AND top5 > 0.3"`. Questions take an
        `attnkit.Where` as well, which may say all of these; what is said beside it must hold too.
    video, token : str, optional
        Only this video, only this word.
    step, block, head : int, optional
        Only this step, block or head, by its number.
    reducer : str
        What becomes of the values at a position: `mean`, `sum`, `max`, `min`, `std` (of the population) or `median`.
    skipna : bool
        Leave out NaN and infinite values, which propagate otherwise.
    rollups : bool
        Take stored means where they answer exactly; False computes from the full arrays.

    Raises
    ------
    QueryError
        If the condition cannot be used.
    TypeError, ValueError
        If an argument cannot be.

    Examples
    --------
    >>> early = attnkit.Where("step < 10", token="flower")  # doctest: +SKIP
    >>> store.average(where=early, block=12)  # doctest: +SKIP
    """

    where: str | None = None
    _: KW_ONLY
    video: str | None = None
    token: str | None = None
    step: SupportsIndex | None = None
    block: SupportsIndex | None = None
    head: SupportsIndex | None = None
    reducer: Reducer | None = None
    skipna: bool | None = None
    rollups: bool | None = None

    def __post_init__(self) -> None:
        if self.where is not None and not isinstance(self.where, str):
            raise TypeError(f"where: {self.where!r} is neither an SQL condition nor an attnkit.Where")
        for name, column in (("video", "video_id"), ("token", "token")):
            _check.one_name(name, column, getattr(self, name))
        for name in ("step", "block", "head"):
            # Numbers of numpy are plain ones from here on.
            object.__setattr__(self, name, _check.one_number(name, getattr(self, name)))
        _native.Question(_check.question("average", self._asked())).check()

    def narrow(self, where: str | Where | None = None, **more: Unpack[Asked]) -> Where:
        """This and more: both must hold.

        Parameters
        ----------
        **more : see above

        Raises
        ------
        ValueError
            If the two contradict each other.
        """
        narrowed = self._and(where if isinstance(where, Where) else Where(where))
        return narrowed._and(Where(**more)) if more else narrowed

    def _and(self, other: Where) -> Where:
        both = dict(self._said())
        for name, value in other._said():
            known = both.setdefault(name, value)
            if name == "where" and known != value:
                both[name] = f"{_in_parentheses(known)} AND {_in_parentheses(value)}"
            elif name != "where" and _comparable(known) != _comparable(value):
                raise ValueError(f"{name}: {value!r} contradicts {known!r}, which is asked for as well")
        return Where(**both)

    def _said(self) -> list[tuple[str, Any]]:
        named = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return [(name, value) for name, value in named if value is not None]

    def _asked(self) -> dict[str, dict[str, Any]]:
        """As a question has it: what is not said is left out."""
        said = self._said()
        return {
            "filter": {name: value for name, value in said if name not in DEFAULTS},
            "reduction": {name: value for name, value in said if name in DEFAULTS},
        }

    def __repr__(self) -> str:
        said = [repr(value) if name == "where" else f"{name}={value!r}" for name, value in self._said()]
        return f"attnkit.Where({', '.join(said)})"


def asks(shared: type) -> Callable[[Function], Function]:
    """Shows what is asked of maps as arguments of a question."""
    return takes(shared, Where.__doc__, DEFAULTS)


def asked(where: str | Where | None, more: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a question asks, checked: its fields `filter` and `reduction`."""
    whole = where.narrow(**more) if isinstance(where, Where) else Where(where, **more)
    return whole._asked()


def selected(where: str | Where | None, more: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The field `filter` alone, where maps are taken as they are: nothing can be said of how they become one."""
    if isinstance(where, Where):
        for name in DEFAULTS:
            if getattr(where, name) is not None:
                raise ValueError(f"{name}: {where!r} says how maps become one; {what}")
    return asked(where, more)["filter"]


def _in_parentheses(condition: str) -> str:
    # A comment at its end must not take the parenthesis with it.
    return f"({condition}\n)" if "--" in condition else f"({condition})"


def _comparable(value: Any) -> Any:
    """Names are the same however their characters are composed."""
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


Where.narrow = asks(Asked)(Where.narrow)  # type: ignore[method-assign]
