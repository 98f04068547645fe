"""What is captured of a text: words, and groups of keys, by their positions on the text axis."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..tokenizing import emphasised, tokens
from .weighting import Emphasis, literal, place_in_parentheses, weight_of

#: What the tokens of the unconditional call are called: those of the negative prompt, and its groups.
UNCONDITIONAL = "uncond:"


@dataclass(frozen=True)
class TrackedWord:
    """A word of a prompt or a group of keys, and where it is.

    Attributes
    ----------
    word : str
        The word, or the name of chosen positions. Groups are `:eos`, the end token; `:rest`, the text that is in none
        of the words; `:pad`, what is behind the text. Those of the unconditional call begin with `uncond:`.
    weight : float or None
        Its weight, if it was asked for with one.
    positions : list of int
        Its rows on the text axis.
    token_ids, token_texts : list
        Of each position, in the tokenizer's vocabulary; empty where positions were chosen, and of groups.
    pooling : str
        What the maps have of them: `each`, a token for each position, or `sum`, their sum.
    """

    word: str
    weight: float | None
    positions: list[int]
    token_ids: list[int] = field(default_factory=list)
    token_texts: list[str] = field(default_factory=list)
    pooling: Literal["each", "sum"] = "each"


@dataclass(frozen=True)
class WantedText:
    """What is wanted of the text of one call of one video.

    Attributes
    ----------
    prompt : str or None
        The text, if it is known.
    words : list of TrackedWord
        Words, and chosen positions.
    length : int or None
        Its pieces, the end token among them, as far as the tokenizer tells.
    """

    prompt: str | None
    words: list[TrackedWord]
    length: int | None

    def check_length(self, length: int) -> None:
        """Refuses embeddings that have another number of rows than the text has pieces."""
        if self.prompt is not None and self.length != length:
            raise ValueError(
                f"the prompt {self.prompt!r} has {self.length} pieces, its embeddings have {length} rows: it is not "
                "what they stand for"
            )

    def with_groups(self, length: int, count: int) -> list[TrackedWord]:
        """The words and all other keys, once the text is embedded: `length` rows of `count` are not padding."""
        tracked = {position for word in self.words for position in word.positions}
        end = [] if self.prompt is None or length - 1 in tracked else [length - 1]
        groups = {
            ":eos": end,
            ":rest": [position for position in range(length) if position not in tracked and position not in end],
            ":pad": [position for position in range(length, count) if position not in tracked],
        }
        summed = [TrackedWord(name, None, positions, pooling="sum") for name, positions in groups.items() if positions]
        return self.words + summed


def named_for(call: str, words: list[TrackedWord]) -> list[TrackedWord]:
    """The words of a call as they are stored: a store's tokens are of both."""
    return words if call == "cond" else [replace(word, word=UNCONDITIONAL + word.word) for word in words]


def summed(words: list[TrackedWord]) -> list[TrackedWord]:
    """Words of several pieces with one token each, their sum."""
    return [replace(word, pooling="sum") if len(word.positions) > 1 else word for word in words]


def find_words(
    tokenizer: Any,
    clean: Callable[[str], str],
    prompt: str,
    asked: Sequence[tuple[str, float | None]] | None,
    *,
    occurrence: int | Literal["all"],
    max_length: int | None,
    argument: str,
    first: int = 0,
    emphases: list[Emphasis] | None = None,
) -> tuple[list[TrackedWord], int]:
    """The words of a prompt, by default those it has in parentheses, and its number of pieces. Of a variation, the
    emphases are known: they tell which of equal words are meant, and the weights. The first row of the text is `first`.

    Raises
    ------
    ValueError
        If the prompt lacks one of them.
    """
    by_default = asked is None and emphases is None
    if asked is None:
        asked = emphasised(prompt) if emphases is None else [(word, None) for word in {one.word: 0 for one in emphases}]
    words = list(asked)
    cut = tokens(tokenizer, clean(prompt), [literal(clean(word)) for word, _ in words], max_length=max_length)
    found = []
    for (word, weight), where in zip(words, cut.words):
        places = [one.rows for one in emphases or [] if one.word == word] or where.occurrences
        if by_default and len(places) > 1:
            places = places[place_in_parentheses(clean(word), cut.prompt) :]
        if not places:
            whole = tokens(tokenizer, cut.prompt, literal(clean(word))).words[0].occurrences
            if whole:
                raise ValueError(
                    f"{argument}: {word!r} is cut off, as the pipeline takes {len(cut.ids)} pieces of its text; a "
                    "larger max_sequence_length keeps it"
                )
            raise ValueError(f"{argument}: {cut.prompt!r} has no word {word!r}{_near(word, cut.prompt)}")
        if occurrence != "all" and occurrence >= len(places):
            raise ValueError(
                f"occurrence: {word!r} is in {cut.prompt!r} {len(places)} times, and {occurrence} is asked for, "
                "counted from 0"
            )
        chosen = places if occurrence == "all" else [places[occurrence]]
        rows = [row for place in chosen for row in place]
        if emphases is not None:
            weight = weight_of(word, weight, rows, emphases)
        ids, texts = [cut.ids[row] for row in rows], [cut.pieces[row] for row in rows]
        found.append(TrackedWord(word, weight, [first + row for row in rows], ids, texts))
    return found, first + len(cut.ids)


def check_names(words: list[TrackedWord], argument: str) -> None:
    """Refuses words that would be stored under one name."""
    names = [unicodedata.normalize("NFC", word.word) for word in words]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{argument}: {', '.join(twice)} is asked for twice")
    groups = [name for name in names if name.startswith((":", UNCONDITIONAL))]
    if groups:
        raise ValueError(f"{argument}: {groups[0]!r} is a name of what attnkit finds itself")


def _near(word: str, prompt: str) -> str:
    """A word of the prompt that differs only in its capitals."""
    found = re.search(re.escape(word), prompt, re.IGNORECASE)
    if found is None:
        return ""
    at = found[0]
    return f" (did you mean {at!r}?)" if at != word else f": {at!r} is a part of another word"
