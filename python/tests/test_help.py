"""`help()` tells every parameter of what is public."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import attnkit
import pytest
from attnkit import result

CLASSES = [
    attnkit.Store,
    attnkit.StoreWriter,
    attnkit.StepBuffer,
    attnkit.AttentionAnalyzer,
    attnkit.Where,
    result.Result,
]


def public() -> Iterator[tuple[str, Callable[..., Any], str]]:
    """Name, callable and documentation; what makes an instance is documented with its class."""
    for name in ("capture", "estimate", "expand_prompts", "ingest", "open", "tokens", "watch"):
        function = getattr(attnkit, name)
        yield name, function, function.__doc__ or ""
    for of in CLASSES:
        if of not in (attnkit.StepBuffer, result.Result):  # made by others alone
            yield of.__name__, of, of.__doc__ or ""
        for name, method in vars(of).items():
            if inspect.isfunction(method) and not name.startswith("_"):
                yield f"{of.__name__}.{name}", method, method.__doc__ or ""


@pytest.mark.parametrize(("name", "function", "text"), [pytest.param(*entry, id=entry[0]) for entry in public()])
def test_every_parameter_is_documented(name: str, function: Callable[..., Any], text: str) -> None:
    assert text.strip(), name
    entries = [line.strip().split(" : ")[0] for line in text.splitlines() if " : " in line or line.strip()]
    documented = {part.strip() for entry in entries for part in entry.split(",")}
    parameters = [name for name in inspect.signature(function).parameters if name not in ("self", "args", "kwargs")]
    assert [parameter for parameter in parameters if parameter not in documented] == []
