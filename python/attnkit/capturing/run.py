"""One call of a pipeline: its videos, and what is wanted of their texts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from . import weighting
from .layouts import text_of
from .maps import Columns
from .models import clean_prompt
from .options import Options
from .softmax import equal_tail
from .wanted import TrackedWord, WantedText, check_names, find_words, summed

if TYPE_CHECKING:
    import torch


class Run:
    """What a pipeline was called with.

    Attributes
    ----------
    texts, embeds : str or list of str or None, tensor or None
        Prompts or their embeddings, whichever were given.
    prompts, negative_prompts, seeds : list
        Of each video, both prompts and the seed, as far as they are known.
    wanted : dict
        Of each call of guidance that is captured, what is wanted of each video.

    Raises
    ------
    ValueError
        If a text lacks what is wanted of it: before anything is computed.
    """

    def __init__(self, pipe: Any, options: Options, given: Mapping[str, Any]) -> None:
        """Of the arguments of `encode_prompt`."""
        self._pipe, self._options = pipe, options
        if "uncond" in options.calls and not given.get("do_classifier_free_guidance", True):
            raise ValueError(
                "calls: guidance is off (guidance_scale 1 or less), so that there is no unconditional call"
            )
        self.texts, self.embeds = given.get("prompt"), given.get("prompt_embeds")
        known = options.prompt if self.texts is None else self.texts
        if known is None and options.words != [] and "cond" in options.calls:
            raise ValueError(
                "the pipeline gets prompt_embeds: say what they stand for with prompt=, or which rows are wanted with "
                "positions= and words=[]"
            )
        prompts: list[str | None] = [known] if known is None or isinstance(known, str) else list(known)
        if options.variation is not None:
            prompts = [options.variation.prompt] * len(prompts)
        if self.embeds is None:
            each, max_length = given.get("num_videos_per_prompt") or 1, given.get("max_sequence_length")
        else:
            # They hold the repeats already, and have rows for what was not cut off.
            each, max_length = max(1, self.embeds.shape[0] // len(prompts)), self.embeds.shape[1]
            if any(bool((of_prompt != of_prompt[:1]).any()) for of_prompt in self.embeds.split(each)):
                raise ValueError(
                    f"prompt: {len(prompts)} for {self.embeds.shape[0]} embeddings that are not alike; expected one "
                    "for each, as a list"
                )
        of_negative = _negative_texts(given, len(prompts))
        of_calls: dict[str, tuple[list[str | None], Callable[[str | None, int | None], WantedText]]] = {
            "cond": (prompts, self._of_prompt),
            "uncond": (of_negative, self._of_negative),
        }
        self.wanted: dict[str, list[WantedText]] = {}
        for call in options.calls:
            texts, find = of_calls[call]
            found = {text: find(text, max_length) for text in dict.fromkeys(texts)}
            self.wanted[call] = [found[text] for text in texts for _ in range(each)]
        self.prompts = [prompt for prompt in prompts for _ in range(each)]
        is_guided = given.get("do_classifier_free_guidance", True)
        self.negative_prompts = [text if is_guided else None for text in of_negative for _ in range(each)]
        self._warn_of_weights()
        self.seeds: list[int | None] = [None] * len(self.prompts)

    def seed(self, generator: Any, has_latents: bool) -> None:
        """Takes the seeds of the videos, where each has a generator of its own that made nothing yet."""
        generators = generator if isinstance(generator, list) else [generator]
        if not has_latents and len(generators) == len(self.seeds):
            self.seeds = [None if one is None else _fresh_seed(one) for one in generators]

    def columns(self, call: str, text: torch.Tensor, *, is_padded: bool = False) -> list[Columns]:
        """What is wanted of each video's embedded text, `[video, text, dim]`: padded with zeros, or as it is."""
        count = text.shape[1]
        columns = []
        # Others are multiplied key by key.
        tails = equal_tail(text) if is_padded else [1] * text.shape[0]
        for wanted, alike in zip(self.wanted[call], tails):
            if is_padded:
                wanted.check_length(count - alike)
            words = wanted.with_groups(count - alike, count) if self._options.groups else wanted.words
            beyond = [word.word for word in words if max(word.positions) >= count]
            if beyond:
                raise ValueError(f"positions: {beyond[0]!r} is beyond the text, which has {count} rows")
            columns.append(Columns(words, count, alike, text.device))
        return columns

    def _of_prompt(self, prompt: str | None, max_length: int | None) -> WantedText:
        options = self._options
        words = [TrackedWord(name, None, positions) for name, positions in options.positions.items()]
        if prompt is None:
            check_names(words, "positions")
            return WantedText(None, self._pooled(words), None)
        variation = options.variation
        emphases = None if variation is None else weighting.emphases(self._pipe, variation, max_length)
        found, length = self._find(prompt, options.words, max_length, "words", emphases)
        if not found and not words and not options.groups:
            raise ValueError(f"words: {prompt!r} has no word in parentheses; name those to capture with words=[...]")
        check_names(words + found, "words")
        return WantedText(prompt, self._pooled(words + found), length)

    def _of_negative(self, prompt: str | None, max_length: int | None) -> WantedText:
        asked = self._options.negative_words
        if prompt is None:
            if asked:
                raise ValueError("negative_words: the pipeline gets negative_prompt_embeds, whose words are not known")
            return WantedText(None, [], None)
        found, length = self._find(prompt, asked, max_length, "negative_words")
        check_names(found, "negative_words")
        return WantedText(prompt, self._pooled(found), length)

    def _pooled(self, words: list[TrackedWord]) -> list[TrackedWord]:
        return summed(words) if self._options.pooling == "sum" else words

    def _warn_of_weights(self) -> None:
        """Says so where weights are stored that the pipeline knows nothing of."""
        if self._options.variation is not None or self.embeds is not None:
            return
        words = {word.word: word.weight for wanted in self.wanted.get("cond", []) for word in wanted.words}
        weighted = [f"({word}:{weight:g})" for word, weight in words.items() if weight not in (None, 1)]
        if weighted:
            warnings.warn(
                f"the weights of {', '.join(weighted)} are stored and do not act: pipelines know none. With "
                "attnkit.expand_prompts, variation= and Prompt.inputs they do (docs/capture.md, Weights)",
                stacklevel=2,
            )

    def _find(
        self,
        prompt: str,
        words: list[tuple[str, float | None]] | None,
        max_length: int | None,
        argument: str,
        emphases: list[weighting.Emphasis] | None = None,
    ) -> tuple[list[TrackedWord], int]:
        text = text_of(self._pipe)
        return find_words(
            text.tokenizer,
            clean_prompt(self._pipe),
            prompt,
            words,
            occurrence=self._options.occurrence,
            max_length=max_length,
            argument=argument,
            first=text.first,
            emphases=emphases,
        )


def _negative_texts(given: Mapping[str, Any], count: int) -> list[str | None]:
    """The negative prompt of each prompt; None where embeddings stand for it that were made elsewhere."""
    texts, embeds = given.get("negative_prompt"), given.get("negative_prompt_embeds")
    if texts is None:
        texts = "" if embeds is None else weighting.negative_of(embeds)
    return list(texts) if isinstance(texts, (list, tuple)) else [texts] * count


def _fresh_seed(generator: Any) -> int | None:
    """The seed of a generator that made nothing yet: of one that did, it does not tell what comes."""
    import torch

    seed = int(generator.initial_seed())
    fresh = torch.Generator(generator.device).manual_seed(seed)
    return seed if torch.equal(fresh.get_state(), generator.get_state()) else None
