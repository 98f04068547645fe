"""Where the words of a prompt are on the text axis of a model's cross-attention."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Union

from . import _check, _native
from .errors import PromptError

#: What cuts texts: a `tokenizer.json`, a `tokenizers.Tokenizer`, or a fast tokenizer of transformers.
Tokenizer = Union[str, "os.PathLike[str]", Any]


@dataclass(frozen=True)
class Word:
    """A word of a prompt.

    Attributes
    ----------
    word : str
        The word, or several.
    weight : float or None
        Its weight, if it was asked for with one: `(flower:2.5)`.
    occurrences : list of list of int
        Of each place where it is a word of its own, the positions of its pieces.
    """

    word: str
    weight: float | None
    occurrences: list[list[int]]

    @property
    def positions(self) -> list[int]:
        """Positions of its first occurrence; none if the prompt does not have it."""
        return self.occurrences[0] if self.occurrences else []


@dataclass(frozen=True)
class Tokens:
    """A prompt as a tokenizer cuts it.

    Attributes
    ----------
    prompt : str
        What was cut.
    ids, pieces : list of int, list of str
        Of each position of the text axis, the end token's included: id and name in the vocabulary.
    words : list of Word
        The words that were asked for.
    """

    prompt: str
    ids: list[int]
    pieces: list[str]
    words: list[Word]

    def __getitem__(self, word: str) -> Word:
        """One of the words."""
        for one in self.words:
            if one.word == word:
                return one
        raise KeyError(f"{word!r} was not asked for; the words are {[one.word for one in self.words]}")

    def to_dict(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


def tokens(
    tokenizer: Tokenizer, prompt: str, words: str | Iterable[str] | None = None, *, max_length: int | None = None
) -> Tokens:
    """Where words of a prompt are among the pieces that a tokenizer cuts it into.

    Parameters
    ----------
    tokenizer : path, tokenizers.Tokenizer or fast tokenizer of transformers
        The model's. Paths are of a `tokenizer.json`.
    prompt : str
        As the model gets it: pipelines of diffusers clean prompts, and know no emphasis.
    words : str or sequence of str, optional
        Words of the prompt, or several words in a row; `(flower:2.5)` has a weight. Default: those that the prompt has
        in parentheses, as `a (flower:2.5) near a tree`.
    max_length : int, optional
        Pieces that the model takes, the end token included: what is behind is cut off.

    Returns
    -------
    Tokens
        A word that the prompt does not have has no occurrences: `flower` is none of `a sunflower`.

    Raises
    ------
    TypeError
        If the tokenizer does not tell which characters its pieces are for.

    Examples
    --------
    >>> attnkit.tokens("tokenizer.json", "a flower near a tree", ["flower"])["flower"].positions  # doctest: +SKIP
    [1]
    """
    if not isinstance(prompt, str):
        raise TypeError(f"prompt: {prompt!r} is not a text")
    asked = emphasised(prompt) if words is None else [weighted(word) for word in _check.names("words", words)]
    ids, pieces, characters = _cut(tokenizer, prompt, _check.positive("max_length", max_length))
    found = [Word(word, weight, _occurrences(word, prompt, characters)) for word, weight in asked]
    return Tokens(prompt, ids, pieces, found)


def emphasised(prompt: str) -> list[tuple[str, float | None]]:
    """The words that a prompt has in parentheses, and their weights, each word once."""
    words: dict[str, float | None] = {}
    for token in _only_prompt(prompt)["tokens"]:
        words.setdefault(token["word"], token["weight"])
    return list(words.items())


def weighted(word: str) -> tuple[str, float | None]:
    """A word, and its weight if it is written as `(flower:2.5)`."""
    text = word.strip()
    if not text:
        raise ValueError(f"words: {word!r} is no word")
    if not (text.startswith("(") and text.endswith(")")):
        return text, None
    found = _only_prompt(text)["tokens"]
    if len(found) != 1:
        raise PromptError(f"words: {word!r} is not one word with a weight, such as (flower:2.5)")
    return found[0]["word"], found[0]["weight"]


def _only_prompt(text: str) -> dict[str, Any]:
    templates = _native.Templates([text], 3)
    if templates.count != 1:
        raise PromptError(
            f"{text!r} is a template of {templates.count} prompts", "attnkit.expand_prompts(...) lists its prompts"
        )
    prompt: dict[str, Any] = json.loads(templates.get(0) or "{}")
    return prompt


def _cut(tokenizer: Tokenizer, text: str, max_length: int | None) -> tuple[list[int], list[str], list[tuple[int, int]]]:
    """Ids, pieces, and the characters that each is for."""
    if isinstance(tokenizer, (str, os.PathLike)):
        tokenizer = _native.Tokenizer(_check.path(tokenizer))
    if isinstance(tokenizer, _native.Tokenizer):
        return _truncated(tokenizer.cut(text), max_length)
    if callable(tokenizer) and hasattr(tokenizer, "convert_ids_to_tokens"):
        if not getattr(tokenizer, "is_fast", False):
            raise TypeError(
                f"{type(tokenizer).__name__} does not tell which characters its pieces are for; "
                "AutoTokenizer.from_pretrained(..., use_fast=True) gives one that does"
            )
        limit = {} if max_length is None else {"truncation": True, "max_length": max_length}
        got = tokenizer(text, return_offsets_mapping=True, add_special_tokens=True, **limit)
        offsets = [(int(start), int(end)) for start, end in got["offset_mapping"]]
        return list(got["input_ids"]), tokenizer.convert_ids_to_tokens(got["input_ids"]), offsets
    if hasattr(tokenizer, "encode") and hasattr(tokenizer, "token_to_id"):
        got = tokenizer.encode(text)
        special = got.special_tokens_mask
        offsets = [(0, 0) if is_special else place for place, is_special in zip(got.offsets, special)]
        return _truncated(list(zip(got.ids, got.tokens, offsets)), max_length)
    raise TypeError(
        f"tokenizer: {type(tokenizer).__name__} is neither a path of a tokenizer.json, nor a tokenizers.Tokenizer, nor "
        "a fast tokenizer of transformers"
    )


def _truncated(
    cut: list[tuple[int, str, tuple[int, int]]], max_length: int | None
) -> tuple[list[int], list[str], list[tuple[int, int]]]:
    """As models cut what is too long: the special pieces at its end stay."""
    if max_length is not None and len(cut) > max_length:
        ending = next((count for count, piece in enumerate(reversed(cut)) if piece[2] != (0, 0)), len(cut))
        cut = cut[: max(0, max_length - ending)] + cut[len(cut) - ending :]
    return [one[0] for one in cut], [one[1] for one in cut], [one[2] for one in cut]


def _occurrences(word: str, text: str, characters: list[tuple[int, int]]) -> list[list[int]]:
    """Positions of each occurrence, however the word's characters are composed."""
    for spelling in dict.fromkeys([word, *(unicodedata.normalize(form, word) for form in ("NFC", "NFD"))]):
        places = _native.occurrences(spelling, text, characters)
        if places:
            return places
    return []
