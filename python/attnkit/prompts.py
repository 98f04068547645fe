"""Prompt templates, and the prompts that they stand for."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, overload

import numpy as np

from . import _check, _native

if TYPE_CHECKING:
    import torch

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

    @property
    def words(self) -> list[str]:
        """The words in parentheses and their weights, as `attnkit.capture` takes them: `(flower:2.5)`."""
        return [f"({_escaped(token['word'])}:{_digits(token['weight'])})" for token in self.tokens]

    def inputs(
        self,
        pipe: Any,
        *,
        method: Literal["multiply", "interpolate", "norm"] = "multiply",
        negative_prompt: str | None = None,
        guidance: bool = True,
        num_videos_per_prompt: int = 1,
        max_sequence_length: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> dict[str, torch.Tensor]:
        """The prompt's embeddings, with the weight of each word in parentheses on the rows of its own pieces.

        With `w` a word's weight and `e` a row of the pipeline's own embeddings `E` of the prompt:

        - `multiply`: `w * e`.
        - `interpolate`: `e_end + w * (e - e_end)`, where `e_end` is the end token's row.
        - `norm`: `E' * |E| / |E'|`, where `E'` is what `multiply` makes of `E`, and `|E|` the root of the sum of its
          squares. All rows of the prompt change.

        Where all weights are 1, these are the pipeline's own embeddings, bit for bit, and rows of padding stay zeros.

        Parameters
        ----------
        pipe : pipeline of diffusers
            For WAN or SkyReels-V2.
        method : str
            `multiply`, `interpolate` or `norm`.
        negative_prompt : str, optional
            As the pipeline takes it; no weights act on it.
        guidance : bool
            Whether to embed the negative prompt too, which a `guidance_scale` of 1 does without.
        num_videos_per_prompt : int
            How many videos are made: the embeddings of each are in the result, so the pipeline is not told.
        max_sequence_length : int, optional
            Rows of the embeddings. Default: what the pipeline has when it is called.
        device, dtype : optional
            As `pipe.encode_prompt` takes them.

        Returns
        -------
        dict
            `prompt_embeds` and `negative_prompt_embeds`, `[video, row, dim]`, for `pipe(**prompt.inputs(pipe))`.

        Raises
        ------
        TypeError
            If the rows of the pipeline's embeddings are not understood.
        ValueError
            If a word in parentheses is part of another one, is cut off, has pieces in common with one of another
            weight, or has a weight that is too large for the embeddings' type.

        Examples
        --------
        >>> for prompt in attnkit.expand_prompts("a [(flower:2.5)|(tree:3)]"):  # doctest: +SKIP
        ...     with attnkit.capture(pipe, "maps.store", variation=prompt):
        ...         pipe(**prompt.inputs(pipe))
        """
        from .capturing import weighting

        return weighting.inputs(
            pipe,
            self,
            method=method,
            negative_prompt=negative_prompt,
            guidance=guidance,
            num_videos_per_prompt=num_videos_per_prompt,
            max_sequence_length=max_sequence_length,
            device=device,
            dtype=dtype,
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it: an object of what `attnkit prompt expand --format json` prints."""
        return asdict(self)


def _escaped(word: str) -> str:
    return word.replace("(", r"\(").replace(")", r"\)")


def _digits(weight: float) -> str:
    """A number as the grammar has it: without an exponent."""
    return str(np.format_float_positional(weight, trim="-"))


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
