"""Prompt templates, and the prompts that they stand for."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, SupportsIndex, overload

from . import _check, _native

#: Warnings of one template.
_WARNINGS = 10


@dataclass(frozen=True)
class Prompt:
    """One of the prompts that templates stand for.

    Attributes
    ----------
    prompt_id : str
        What the names of its videos begin with: `prompt_007`.
    template, variation : str, int
        The template, and the number of the prompt among its variations.
    prompt, weighted_prompt : str
        The prompt without any syntax, and with its emphasis.
    tokens : list of dict
        The words in parentheses: `word`, `weight`.
    choices : list of dict
        What was chosen: `bracket`, `option`, `text`, `weight`.
    """

    prompt_id: str
    template: str
    variation: int
    prompt: str
    weighted_prompt: str
    tokens: list[dict[str, Any]]
    choices: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """All of it: an object of what `attnkit prompt expand --format json` prints."""
        return asdict(self)


class Prompts:
    """All prompts of some templates, the leftmost choice slowest; made as asked for, so that millions take no room.

    Attributes
    ----------
    templates : list of str
        The templates.
    count : int
        How many prompts there are; 2**64 - 1 stands for that many and more.
    warnings : list of str
        What is probably not what the author of a template meant.
    """

    def __init__(self, templates: Iterable[str], max_depth: int) -> None:
        self._max_depth = max_depth
        self._native = _native.Templates(list(templates), max_depth)
        self.warnings = self._native.warnings(_WARNINGS)

    @classmethod
    def _read(cls, path: str, max_depth: int) -> Prompts:
        read = _native.Templates.read(path, max_depth)
        prompts = cls(read.texts, max_depth)
        # These name the lines.
        prompts.warnings = read.warnings(_WARNINGS)
        return prompts

    @property
    def templates(self) -> list[str]:
        """The templates."""
        return self._native.texts

    @property
    def count(self) -> int:
        """How many prompts there are; 2**64 - 1 stands for that many and more."""
        return self._native.count

    def __len__(self) -> int:
        if self.count > sys.maxsize:
            raise OverflowError(f"there are {self.count} prompts or more, which len() cannot say; `count` can")
        return self.count

    def __bool__(self) -> bool:
        return True

    @overload
    def __getitem__(self, number: SupportsIndex) -> Prompt: ...
    @overload
    def __getitem__(self, number: slice) -> list[Prompt]: ...
    def __getitem__(self, number: SupportsIndex | slice) -> Prompt | list[Prompt]:
        if isinstance(number, slice):
            # Of as many as there are, also where a range is too long to be told its length.
            return [self[place] for place in range(self.count)[number]]
        place = _check.integer("number", number) or 0
        found = self._native.get(place + self.count if place < 0 else place) if abs(place) <= self.count else None
        if found is None:
            raise IndexError(f"there is no prompt {place}; there are {self.count}")
        return Prompt(**json.loads(found))

    def __iter__(self) -> Iterator[Prompt]:
        place = 0
        while (found := self._native.get(place)) is not None:
            yield Prompt(**json.loads(found))
            place += 1

    def to_dict(self) -> dict[str, Any]:
        """What it is made of: `templates`, `count`, `warnings`. The prompts have `to_dict` themselves."""
        return {"templates": self.templates, "count": self.count, "warnings": list(self.warnings)}

    def __getstate__(self) -> dict[str, Any]:
        return {"templates": self.templates, "max_depth": self._max_depth, "warnings": self.warnings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._max_depth = state["max_depth"]
        self._native = _native.Templates(state["templates"], self._max_depth)
        self.warnings = state["warnings"]

    def __repr__(self) -> str:
        first = self[0].weighted_prompt
        odd = f", {len(self.warnings)} warnings" if self.warnings else ""
        return f"<attnkit.Prompts: {self.count} of {len(self.templates)} templates{odd}; the first: {first!r}>"


def expand_prompts(templates: str | os.PathLike[str] | Iterable[str], *, max_depth: SupportsIndex = 3) -> Prompts:
    """All prompts of a template, such as `"a [(flower:2.5)|tree]"`, or of several, as generators number them.

    Parameters
    ----------
    templates : str, iterable of str or path
        A template, templates, or the `pathlib.Path` of a file of templates, one a line.
    max_depth : int
        How deep brackets may be nested; generators take 3.

    Returns
    -------
    Prompts
        A sequence of `Prompt`.

    Raises
    ------
    PromptError
        If a template does not parse, or there are none.
    OSError
        If the file cannot be read.
    """
    depth = _check.within("max_depth", max_depth, 0, 64)
    if isinstance(templates, str):
        return Prompts([templates], depth)
    if isinstance(templates, os.PathLike):
        return Prompts._read(_check.path(templates), depth)
    return Prompts(templates, depth)
