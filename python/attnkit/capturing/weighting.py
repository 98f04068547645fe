"""Weights of a prompt's words, on the rows of its embeddings."""

from __future__ import annotations

import inspect
import re
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from .. import _check, _native
from ..tokenizing import _only_prompt, tokens
from .models import clean_prompt
from .softmax import equal_tail

if TYPE_CHECKING:
    import torch

    from ..prompts import Prompt

Method = Literal["multiply", "interpolate", "norm"]

#: Their `encode_prompt` gives a row to each piece of the cleaned prompt, the end token's last, and zeros behind.
_KNOWN = ("diffusers.pipelines.wan.", "diffusers.pipelines.skyreels_v2.")

#: In a prompt whose choices are made; a `\` before a parenthesis makes it one of the text.
_IN_PARENTHESES = re.compile(r"(?<!\\)\((?:[^()\\]|\\[()]?)*(?<!\\)\)")


@dataclass(frozen=True)
class Emphasis:
    """A word in parentheses, where it is.

    Attributes
    ----------
    word, weight : str, float
        The word, and its weight.
    rows : list of int
        Of its pieces, on the text axis.
    """

    word: str
    weight: float
    rows: list[int]


@dataclass(frozen=True)
class _Made:
    """What embeddings were made of, and which of their versions."""

    weighted_prompt: str
    #: None of a negative prompt, which no weights act on.
    method: Method | None
    version: int | None


#: By their `id`, as tensors are not compared by it: embeddings that were made here and are there still.
_made: dict[int, tuple[weakref.ref[torch.Tensor], _Made]] = {}


def inputs(
    pipe: Any,
    prompt: Prompt,
    *,
    method: Method = "multiply",
    negative_prompt: str | None = None,
    guidance: bool = True,
    num_videos_per_prompt: int = 1,
    max_sequence_length: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> dict[str, torch.Tensor]:
    """What a pipeline is called with: see `attnkit.Prompt.inputs`."""
    import torch

    _require_known(pipe)
    if method not in get_args(Method):
        raise ValueError(f"method: {method!r} is none of {', '.join(get_args(Method))}")
    if negative_prompt is not None and not guidance:
        raise ValueError("negative_prompt: there is none without guidance")
    length = _check.positive("max_sequence_length", max_sequence_length) or default_length(pipe)
    found = emphases(pipe, prompt, length)
    pieces = tokens(pipe.tokenizer, clean_prompt(pipe)(prompt.prompt), [], max_length=length).ids
    if method == "interpolate" and pieces[-1] != pipe.tokenizer.eos_token_id:
        raise TypeError(f"{type(pipe.tokenizer).__name__} puts no end token behind a prompt, to interpolate towards")
    chosen = {name: value for name, value in (("device", device), ("dtype", dtype)) if value is not None}
    with torch.no_grad():
        embeds, negative = pipe.encode_prompt(
            prompt=prompt.prompt,
            negative_prompt=negative_prompt,
            do_classifier_free_guidance=guidance,
            num_videos_per_prompt=_check.positive("num_videos_per_prompt", num_videos_per_prompt),
            max_sequence_length=length,
            **chosen,
        )
        rows = {embeds.shape[1] - zeros for zeros in equal_tail(embeds)}
        if rows != {len(pieces)}:
            raise RuntimeError(
                f"{type(pipe).__name__} makes {sorted(rows)} rows of {prompt.prompt!r}; expected one of each of the "
                f"{len(pieces)} pieces that its tokenizer cuts it into"
            )
        embeds = apply(embeds, _by_row(found), len(pieces), method)
    _remember(embeds, _Made(prompt.weighted_prompt, method, _version(embeds)))
    if negative is not None:
        _remember(negative, _Made(negative_prompt or "", None, _version(negative)))
    return {"prompt_embeds": embeds} | ({} if negative is None else {"negative_prompt_embeds": negative})


def apply(embeds: torch.Tensor, weights: dict[int, float], pieces: int, method: Method) -> torch.Tensor:
    """Embeddings with weights on their rows; themselves where all weights are 1.

    Parameters
    ----------
    embeds : tensor
        `[video, row, dim]`.
    weights : dict
        Of rows.
    pieces : int
        Rows of the prompt, of which the end token's is the last.
    method : str
        As for `attnkit.Prompt.inputs`, which has the formulas.
    """
    import torch

    changed = {row: weight for row, weight in weights.items() if weight != 1}
    if not changed:
        return embeds
    # One rounding, whatever the type is.
    wide = torch.promote_types(embeds.dtype, torch.float32)
    rows = list(changed)
    factors = torch.tensor(list(changed.values()), dtype=wide, device=embeds.device).unsqueeze(-1)
    of_prompt = embeds[:, :pieces].to(wide)
    # The point that a weight of 0 moves a row to.
    origin = of_prompt[:, -1:] if method == "interpolate" else 0
    weighted = of_prompt.clone()
    weighted[:, rows] = origin + factors * (of_prompt[:, rows] - origin)
    if method == "norm":
        before, after = (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) for x in (of_prompt, weighted))
        weighted *= before / after
        rows = list(range(pieces))
    result = embeds.clone()
    result[:, rows] = weighted[:, rows].to(embeds.dtype)
    if not torch.isfinite(result).all():
        raise ValueError(f"weights: {sorted(changed.values())} make embeddings that {embeds.dtype} cannot hold")
    return result


def emphases(pipe: Any, prompt: Prompt, max_length: int | None) -> list[Emphasis]:
    """The words that a prompt has in parentheses, each at the place where it is in them.

    Raises
    ------
    ValueError
        If a word is not one of its own there, is cut off, or has pieces in common with one of another weight.
    """
    clean = clean_prompt(pipe)
    text = clean(prompt.prompt)
    characters = [(at, at + 1) for at in range(len(text))]
    found = []
    for before, word, weight in _in_parentheses(prompt):
        cleaned, start = clean(word), len(clean(before))
        start += len(text[start:]) - len(text[start:].lstrip())
        if not text.startswith(clean(before)) or not text.startswith(cleaned, start):
            raise ValueError(f"words: where ({word}) is cannot be told, as the pipeline cleans its prompt to {text!r}")
        places = _native.occurrences(cleaned, text, characters)
        number = next((number for number, place in enumerate(places) if place[0] == start), None)
        if number is None:
            raise ValueError(f"words: ({word}) is a part of another word of {text!r}, and has no rows of its own")
        every, kept = (
            tokens(pipe.tokenizer, text, [literal(cleaned)], max_length=limit).words[0].occurrences
            for limit in (None, max_length)
        )
        if len(every) != len(places):
            raise ValueError(f"words: the tokenizer has no pieces for {word!r} at some places of {text!r}")
        if every[number] not in kept:
            raise ValueError(
                f"words: {word!r} is cut off, as the pipeline takes {max_length} pieces of a prompt; a larger "
                "max_sequence_length or a shorter prompt keeps it"
            )
        found.append(Emphasis(word, weight, every[number]))
    _by_row(found)
    return found


def weight_of(word: str, asked: float | None, rows: list[int], found: list[Emphasis]) -> float:
    """The weight that acts on the rows of a word: 1 where it is in no parentheses."""
    weights = _by_row(found)
    known = {weights.get(row, 1.0) for row in rows}
    if len(known) > 1:
        raise ValueError(
            f"words: {word!r} has pieces of weights {sorted(known)}; name words of one weight each, or say with "
            "occurrence= which one is meant"
        )
    [weight] = known
    if asked not in (None, weight):
        raise ValueError(f"words: {word!r} is asked for with weight {asked:g}; the variation has it with {weight:g}")
    return weight


def applied(pipe: Any, prompt: Prompt, texts: str | list[str] | None, embeds: torch.Tensor | None) -> Method | None:
    """How the weights of a prompt act on what a pipeline was called with, texts or embeddings; None if unknown.

    Raises
    ------
    ValueError
        If it was called with something else.
    """
    call = "call it with **variation.inputs(pipe)"
    if embeds is None:
        clean = clean_prompt(pipe)
        other = [text for text in _check.names("prompt", texts or []) if clean(text) != clean(prompt.prompt)]
        if other:
            raise ValueError(f"variation: the pipeline got {other[0]!r}, and not {prompt.prompt!r}: {call}")
        weights = [f"{token['word']}:{token['weight']:g}" for token in prompt.tokens if token["weight"] != 1]
        if weights:
            raise ValueError(f"variation: the pipeline got no weights, and {', '.join(weights)} do not act: {call}")
        return None
    made = _known(embeds)
    if made is None:
        return None
    if made.weighted_prompt != prompt.weighted_prompt:
        raise ValueError(
            f"variation: the pipeline got the embeddings of {made.weighted_prompt!r}, and not of "
            f"{prompt.weighted_prompt!r}: {call}"
        )
    return made.method


def negative_of(embeds: torch.Tensor) -> str | None:
    """The negative prompt that embeddings were made of, where that was done here."""
    made = _known(embeds)
    return made.weighted_prompt if made is not None and made.method is None else None


def default_length(pipe: Any) -> int:
    """Rows that a pipeline makes when it is called; `encode_prompt` has another default."""
    return int(inspect.signature(type(pipe).__call__).parameters["max_sequence_length"].default)


def _require_known(pipe: Any) -> None:
    if not any(kind.__module__.startswith(_KNOWN) for kind in type(pipe).__mro__):
        raise TypeError(
            f"{type(pipe).__name__}: the rows of its embeddings are not understood; those of pipelines of WAN and "
            "SkyReels-V2 are"
        )


def _in_parentheses(prompt: Prompt) -> list[tuple[str, str, float]]:
    """Of each word in parentheses: the prompt before it, the word and its weight."""
    written, text, behind = prompt.weighted_prompt, "", 0
    found = []
    for place in _IN_PARENTHESES.finditer(written):
        text += _unescaped(written[behind : place.start()])
        inner = _only_prompt(place[0])
        found += [(text, token["word"], float(token["weight"])) for token in inner["tokens"]]
        text += inner["prompt"]
        behind = place.end()
    text += _unescaped(written[behind:])
    tracked = [(token["word"], token["weight"]) for token in prompt.tokens]
    if text != prompt.prompt or [(word, weight) for _, word, weight in found] != tracked:
        raise ValueError(
            f"weighted_prompt: {written!r} stands for {text!r} and {[one[1:] for one in found]}; expected "
            f"{prompt.prompt!r} and {tracked}"
        )
    return found


def _unescaped(text: str) -> str:
    return re.sub(r"\\([()])", r"\1", text)


def literal(word: str) -> str:
    """A word as `words` takes it, where it may begin and end with parentheses of its own."""
    escaped = re.sub(r"([()])", r"\\\1", word)
    return f"({escaped}:1)" if escaped != word else word


def place_in_parentheses(word: str, text: str) -> int:
    """Which of the occurrences of a word in a text is the first in parentheses."""
    characters = [(at, at + 1) for at in range(len(text))]
    starts = [place[0] for place in _native.occurrences(word, text, characters)]
    spans = [place.span() for place in _IN_PARENTHESES.finditer(text)]
    inside = (number for number, start in enumerate(starts) if any(first < start < last for first, last in spans))
    return next(inside, 0)


def _by_row(found: list[Emphasis]) -> dict[int, float]:
    weights: dict[int, float] = {}
    for one in found:
        for row in one.rows:
            if weights.setdefault(row, one.weight) != one.weight:
                raise ValueError(f"words: {one.word!r} has a piece in common with a word of another weight")
    return weights


def _remember(embeds: torch.Tensor, made: _Made) -> None:
    key = id(embeds)
    _made[key] = (weakref.ref(embeds, lambda _: _made.pop(key, None)), made)


def _known(embeds: torch.Tensor) -> _Made | None:
    """What embeddings were made of, if they were made here and not changed since."""
    reference, made = _made.get(id(embeds), (None, None))
    is_same = reference is not None and reference() is embeds
    return made if made is not None and is_same and made.version == _version(embeds) else None


def _version(embeds: torch.Tensor) -> int | None:
    """Counts changes in place, which tensors of inference mode do not."""
    return None if embeds.is_inference() else embeds._version
