"""Arguments that are checked before native code gets them, so that messages name them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from numbers import Real
from operator import index
from typing import Any, SupportsIndex

import numpy as np

#: In seconds.
YEAR = 366 * 86_400


def floats(array: Any) -> np.ndarray[Any, Any]:
    """An array or CPU tensor as a float array of a type that stores know, in the machine's byte order.

    bfloat16 tensors, which numpy has no type for, become float32: it holds every value of theirs.
    """
    if hasattr(array, "detach"):
        tensor = array.detach().cpu()
        array = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    values: np.ndarray[Any, Any] = np.asarray(array)
    if values.dtype.kind != "f" or values.dtype.itemsize > 8:
        raise TypeError(f"the array is {values.dtype}; expected float16, float32 or float64")
    # Aligned and contiguous too: a field of packed records has strides that no float array has.
    return np.require(values.astype(values.dtype.newbyteorder("="), copy=False), requirements=["C", "A"])


def paths(given: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str]:
    """Paths as text; a single one need not be in a list."""
    return [path(one) for one in ([given] if isinstance(given, (str, os.PathLike)) else given)]


def path(path: str | os.PathLike[str]) -> str:
    """A path as text; `~` at its start is the home directory."""
    return os.path.expanduser(os.fspath(path))


def optional_path(given: str | os.PathLike[str] | None) -> str | None:
    """The same, if there is one."""
    return None if given is None else path(given)


def integer(name: str, number: SupportsIndex | None) -> int | None:
    """A whole number, which a float is not, however round, and no truth value."""
    if number is None:
        return None
    try:
        if not isinstance(number, bool):
            return index(number)
    except TypeError:
        pass
    raise TypeError(f"{name}: {number!r} is not an integer")


def one_name(name: str, column: str, value: str | None) -> str | None:
    """A name that rows have in a column."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name}: {value!r} is not one name; where=\"{column} IN ('a', 'b')\" selects several")
    return value


def one_number(name: str, value: SupportsIndex | None) -> int | None:
    """A number that rows have in a column."""
    try:
        number = integer(name, value)
    except TypeError as error:
        raise TypeError(f'{error}; where="{name} IN (1, 2)" selects several') from None
    if number is not None and not -(2**63) <= number < 2**63:
        raise ValueError(f"{name}: {number} does not fit into 64 bits")
    return number


def positive(name: str, number: SupportsIndex | None, least: int = 1) -> int | None:
    """A whole number of at least `least`."""
    found = integer(name, number)
    if found is None:
        return None
    if found < least:
        raise ValueError(f"{name}: {found if found > -(2**63) else 'the number'} is less than {least}")
    if found >= 2**63:
        raise ValueError(f"{name}: the number does not fit into 64 bits")
    return found


def within(name: str, number: SupportsIndex, least: int, most: int) -> int:
    """A whole number from `least` to `most`."""
    found = integer(name, number) or 0
    if not least <= found <= most:
        raise ValueError(f"{name}: {found} is not from {least} to {most}")
    return found


def seconds(name: str, time: float | timedelta) -> float:
    """A time, which is neither negative nor longer than a year."""
    if not isinstance(time, (Real, timedelta)):
        raise TypeError(f"{name}: {time!r} is neither a number of seconds nor a timedelta")
    length = time.total_seconds() if isinstance(time, timedelta) else float(time)
    if not 0 <= length <= YEAR:
        raise ValueError(f"{name}: {time!r} is not from 0 seconds to a year")
    return length


def sizes(name: str, numbers: Sequence[SupportsIndex] | None, axes: str) -> tuple[int, ...] | None:
    """Sizes of as many axes as are named, each at least 1."""
    if numbers is None:
        return None
    if not isinstance(numbers, (Sequence, np.ndarray)) or isinstance(numbers, (str, bytes)):
        raise TypeError(f"{name}: {numbers!r} is not ({axes})")
    # Before any is looked at: there may be more than memory holds.
    found = [positive(name, number) for number in numbers] if len(numbers) == len(axes.split(", ")) else []
    if not found or None in found:
        raise ValueError(f"{name}: {numbers!r} is not ({axes})")
    return tuple(number for number in found if number is not None)


def names(name: str, names: str | Iterable[str]) -> list[str]:
    """Names; a single one need not be in a list."""
    if isinstance(names, str):
        return [names]
    if not isinstance(names, Iterable) or isinstance(names, (Mapping, bytes)):
        raise TypeError(f"{name}: {names!r} is neither a text nor a list of texts")
    found = list(names)
    odd = next((one for one in found if not isinstance(one, str)), None)
    if odd is not None:
        raise TypeError(f"{name}: {odd!r} is no text")
    return found


def side(name: str, value: str | float | None) -> str | None:
    """A side of a comparison as text; weights and numbers of steps are numbers."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Real) and not isinstance(value, bool):
        return str(value)
    raise TypeError(f"{name}: {value!r} is neither a text nor a number")


def question(name: str, fields: Mapping[str, Any]) -> str:
    """A question as JSON, by its fields."""
    return json.dumps({"question": name, **{field: _plain(field, value) for field, value in fields.items()}})


def _plain(name: str, value: Any) -> Any:
    """A value that JSON has: numbers of numpy are those of Python."""
    if isinstance(value, Mapping):
        return {field: _plain(field, inner) for field, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(name, inner) for inner in value]
    if isinstance(value, str):
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise ValueError(f"{name}: {value!r} has half a character (a lone surrogate)")
        return value
    if isinstance(value, (np.bool_, np.integer, np.floating)) and np.dtype(value.dtype).itemsize <= 8:
        return _plain(name, value.item())
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError(f"{name}: the number does not fit into 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}: {value!r} is not finite")
    if value is None or isinstance(value, (int, float)):
        return value
    raise TypeError(f"{name}: {value!r} is not what a question can ask for")


def as_json(name: str, values: Mapping[str, Any]) -> str:
    """A JSON object, which has no NaN and no infinity."""
    for key, value in values.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {key} is {value!r}, which JSON does not have: {error}") from None
    return json.dumps(dict(values))
