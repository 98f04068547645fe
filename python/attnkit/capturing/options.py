"""What can be chosen of a capture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, SupportsIndex

from .. import _check
from ..prompts import Prompt
from ..tokenizing import weighted

#: The calls of classifier-free guidance, as pipelines of diffusers name them.
CALLS = ("cond", "uncond")


@dataclass(frozen=True)
class Options:
    """The arguments of `attnkit.capture` that say what is computed, checked."""

    words: list[tuple[str, float | None]] | None
    negative_words: list[tuple[str, float | None]]
    positions: dict[str, list[int]]
    prompt: str | list[str] | None
    occurrence: int | Literal["all"]
    pooling: Literal["each", "sum"]
    calls: tuple[str, ...]
    groups: bool
    blocks: list[int] | None
    heads: list[int] | None
    steps: set[int] | None
    every: int
    dtype: str
    average: set[str]
    downsample: int
    variation: Prompt | None

    @classmethod
    def checked(
        cls,
        *,
        words: str | Iterable[str] | None,
        negative_words: str | Iterable[str],
        positions: Mapping[str, Sequence[int]] | None,
        prompt: str | Sequence[str] | None,
        occurrence: int | Literal["all"],
        pooling: Literal["each", "sum"],
        calls: str | Iterable[str],
        groups: bool,
        blocks: int | Iterable[int] | None,
        heads: int | Iterable[int] | None,
        steps: int | Iterable[int] | None,
        every: int,
        dtype: str,
        average: str | Iterable[str],
        downsample: int,
        variation: Prompt | None,
    ) -> Options:
        """Of what was given.

        Raises
        ------
        ValueError
            If a value is none that it can have.
        """
        if dtype not in ("float16", "float32"):
            raise ValueError(f"dtype: {dtype!r} is neither float16 nor float32")
        if pooling not in ("each", "sum"):
            raise ValueError(f"pooling: {pooling!r} is neither each nor sum")
        if variation is not None and not isinstance(variation, Prompt):
            raise TypeError(
                f"variation: {type(variation).__name__} is none; it is one of those that attnkit.expand_prompts gives"
            )
        if variation is not None and prompt not in (None, variation.prompt):
            raise ValueError(f"prompt: {prompt!r} is not that of the variation, {variation.prompt!r}")
        of_calls = _chosen_names("calls", calls, CALLS)
        if not of_calls:
            raise ValueError("calls: none; the conditional one is 'cond'")
        asked = None if words is None else _weighted("words", words)
        of_negative = _weighted("negative_words", negative_words)
        if of_negative and "uncond" not in of_calls:
            raise ValueError("negative_words: the call that has them is captured with calls=('cond', 'uncond')")
        if "uncond" in of_calls and not of_negative and not groups:
            raise ValueError(
                "calls: of the unconditional call there is nothing to capture; name negative_words, or groups=True"
            )
        if "cond" not in of_calls and (asked or positions):
            raise ValueError("words: these are of the conditional call; say calls=('cond', 'uncond')")
        if asked == [] and not positions and not groups and "cond" in of_calls:
            raise ValueError("words: none, and neither positions nor groups")
        fixed = {
            name: [_check.within("positions", row, 0, 2**31) for row in rows]
            for name, rows in (positions or {}).items()
        }
        for name, rows in fixed.items():
            try:
                name.encode()
            except UnicodeEncodeError:
                raise ValueError(f"positions: {name!r} has half a character (a lone surrogate)") from None
            if not rows or len(set(rows)) < len(rows):
                raise ValueError(f"positions: {name!r} has {rows}; expected different positions, at least one")
        return cls(
            words=asked,
            negative_words=of_negative,
            positions=fixed,
            prompt=_texts(prompt if variation is None else variation.prompt),
            occurrence=occurrence if occurrence == "all" else _check.within("occurrence", occurrence, 0, 2**31),
            pooling=pooling,
            calls=of_calls,
            groups=groups,
            blocks=_numbers("blocks", blocks),
            heads=_numbers("heads", heads),
            steps=None if steps is None else set(_numbers("steps", steps) or []),
            every=_check.positive("every", every) or 1,
            dtype=dtype,
            average=set(_chosen_names("average", average, ("blocks", "heads"))),
            downsample=_check.positive("downsample", downsample) or 1,
            variation=variation,
        )

    def wants(self, step: int) -> bool:
        """Whether maps of a step are wanted."""
        return step % self.every == 0 and (self.steps is None or step in self.steps)

    def numbers(self, axis: Literal["blocks", "heads"], count: int) -> list[int]:
        """The blocks or heads that are wanted of a model's so many."""
        chosen: list[int] | None = getattr(self, axis)
        if chosen is None:
            return list(range(count))
        beyond = [number for number in chosen if number >= count]
        if beyond:
            raise ValueError(f"{axis}: {beyond} are not among the model's, 0 to {count - 1}")
        return chosen

    def listed(self, axis: Literal["blocks", "heads"]) -> list[int] | None:
        """The numbers along an axis of the maps, where they are chosen ones."""
        chosen: list[int] | None = getattr(self, axis)
        return None if axis in self.average else chosen


def _texts(prompt: str | Sequence[str] | None) -> str | list[str] | None:
    return prompt if prompt is None or isinstance(prompt, str) else _check.names("prompt", prompt)


def _weighted(argument: str, words: str | Iterable[str]) -> list[tuple[str, float | None]]:
    return [weighted(word) for word in _check.names(argument, words)]


def _chosen_names(argument: str, names: str | Iterable[str], known: tuple[str, ...]) -> tuple[str, ...]:
    given = set(_check.names(argument, names))
    if not given <= set(known):
        raise ValueError(f"{argument}: {sorted(given - set(known))} are none of {', '.join(known)}")
    return tuple(name for name in known if name in given)


def _numbers(argument: str, numbers: int | Iterable[int] | None) -> list[int] | None:
    if numbers is None:
        return None
    if isinstance(numbers, SupportsIndex):
        numbers = [int(numbers)]
    if not isinstance(numbers, Iterable):
        raise TypeError(f"{argument}: {numbers!r} is neither a number nor several")
    found = sorted(_check.within(argument, number, 0, 2**31) for number in numbers)
    if not found or len(set(found)) < len(found):
        raise ValueError(f"{argument}: {found} are to be different numbers, at least one")
    return found
