"""Keyword arguments that several functions take: written and documented once, shown by each function as its own."""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])

#: The entry of `**keywords` in a docstring, with the lines that are set in below it.
_ENTRY = re.compile(r"^(?P<indent> *)\*\*\w+.*\n(?:(?P=indent) +\S.*\n)*", re.MULTILINE)


def takes(shared: type, documented: str | None, defaults: Mapping[str, Any]) -> Callable[[Function], Function]:
    """Shows the keys of a TypedDict, which a function takes as `**keywords`, as keyword arguments of the function.

    `inspect.signature`, `help()` and completion see them, with what is passed where they are not given. The entry of
    `**keywords` in the function's docstring becomes those parameters of the docstring `documented` that the function
    has. Others are refused as if all were written out.
    """
    annotations = {name: getattr(kind, "__forward_arg__", kind) for name, kind in shared.__annotations__.items()}

    def decorate(function: Function) -> Function:
        own = inspect.signature(function)
        positional = [one for one in own.parameters.values() if one.kind is one.POSITIONAL_OR_KEYWORD]
        keyword = [one for one in own.parameters.values() if one.kind is one.KEYWORD_ONLY]
        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name), annotation=annotation)
            for name, annotation in annotations.items()
        ]
        signature = own.replace(parameters=[*positional, *added, *keyword])

        @functools.wraps(function)
        def taking(*args: Any, **given: Any) -> Any:
            for name in given:
                if name not in signature.parameters:
                    near = difflib.get_close_matches(name, signature.parameters, 1)
                    meant = f" (did you mean {near[0]!r}?)" if near else ""
                    raise TypeError(f"{function.__name__}() got an unexpected keyword argument {name!r}{meant}")
            return function(*args, **given)

        taking.__signature__ = signature  # type: ignore[attr-defined]
        taking.__doc__ = _with_parameters(function.__doc__, documented, set(signature.parameters))
        return cast(Function, taking)

    return decorate


def _with_parameters(text: str | None, documented: str | None, names: set[str]) -> str | None:
    """A docstring with parameters that are documented elsewhere in place of `**keywords`. Python may drop both."""
    if text is None or documented is None:
        return text
    section = inspect.cleandoc(documented).partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^\S.*\n?(?:^ .*\n?)*", section, re.MULTILINE)
    wanted = [entry for entry in entries if names.issuperset(entry.partition(" : ")[0].split(", "))]
    lines = "".join(f"{entry.rstrip()}\n" for entry in wanted).splitlines()
    return _ENTRY.sub(lambda entry: "".join(f"{entry['indent']}{line}\n" for line in lines), text, count=1)
