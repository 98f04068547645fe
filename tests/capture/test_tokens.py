"""Words among the pieces of a tokenizer, whichever library holds it."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import attnkit
import pytest
import tiny
from diffusers.pipelines.wan.pipeline_wan import prompt_clean

KINDS = ["transformers", "tokenizers", "file"]


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    of_transformers = tiny.tokenizer()
    if request.param == "transformers":
        return of_transformers
    if request.param == "tokenizers":
        return of_transformers.backend_tokenizer
    of_transformers.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


# A prompt, a word, and the pieces of each of its occurrences.
CASES: list[tuple[str, str, list[list[str]]]] = [
    ("a flower near a tree", "flower", [["▁flower"]]),
    ("a flower near a tree and a flower", "flower", [["▁flower"], ["▁flower"]]),
    ("a sunflower", "flower", []),
    ("a sunflower near a flower", "sunflower", [["▁sun", "flower"]]),
    ("two people near a tree", "two people", [["▁two", "▁people"]]),
    ("a (flower:2.5) near a tree", "(flower:2.5)", [["flower"]]),
    ("a flower, near a tree.", "flower", [["▁flower"]]),
    ("a tree", "a", [["▁a"]]),
    ("a tree", "cat", []),
    ("two butterflys", "butterflys", [["▁butter", "fly", "s"]]),
    ("near 红花", "花", [["<unk>"]]),
    ("a “flower”", "flower", [["flower"]]),
]


@pytest.mark.parametrize("prompt, word, pieces", CASES)
def test_words_are_where_their_pieces_are(tokenizer: Any, prompt: str, word: str, pieces: list[list[str]]) -> None:
    found = attnkit.tokens(tokenizer, prompt, word)
    [one] = found.words
    named = [[found.pieces[position] for position in places] for places in one.occurrences]
    if word == "花":
        # What the vocabulary does not have is one piece for all that is unknown in a row.
        assert [len(places) for places in named] == [1]
    else:
        assert named == pieces
    assert one.positions == (one.occurrences[0] if one.occurrences else [])
    assert found.pieces[-1] == "</s>" and found.ids[-1] == 1


def test_a_word_is_found_however_its_characters_are_composed(tokenizer: Any) -> None:
    for form in ("NFC", "NFD"):
        prompt = unicodedata.normalize(form, "a café dog")
        for other in ("NFC", "NFD"):
            word = attnkit.tokens(tokenizer, prompt, unicodedata.normalize(other, "café")).words[0]
            assert len(word.occurrences) == 1


def test_what_is_cut_off_is_nowhere(tokenizer: Any) -> None:
    prompt = "flower " * 600 + "sunflower tree"
    found = attnkit.tokens(tokenizer, prompt, ["flower", "sunflower", "tree"], max_length=512)
    assert len(found.ids) == 512 and found.pieces[-1] == "</s>"
    assert len(found["flower"].occurrences) == 511
    assert found["sunflower"].occurrences == found["tree"].occurrences == []
    # Between the pieces of a word.
    cut = attnkit.tokens(tokenizer, "a sunflower", ["sunflower", "sun"], max_length=3)
    assert cut.pieces == ["▁a", "▁sun", "</s>"]
    assert cut["sunflower"].occurrences == cut["sun"].occurrences == []


def test_words_default_to_those_of_the_prompt(tokenizer: Any) -> None:
    found = attnkit.tokens(tokenizer, "a (flower:2.5) near a (tree) and a (flower:2)")
    assert [(word.word, word.weight) for word in found.words] == [("flower", 2.5), ("tree", 1.0)]
    assert len(found["flower"].occurrences) == 2
    assert attnkit.tokens(tokenizer, "a flower").words == []


def test_what_cannot_be_cut_is_refused(tokenizer: Any) -> None:
    with pytest.raises(attnkit.PromptError, match="a template of 2 prompts"):
        attnkit.tokens(tokenizer, "a [flower|tree]")
    with pytest.raises(attnkit.PromptError, match="not one word"):
        attnkit.tokens(tokenizer, "a flower", "(a) (b)")
    with pytest.raises(TypeError, match="prompt"):
        attnkit.tokens(tokenizer, ["a"], "a")
    with pytest.raises(KeyError, match="was not asked for"):
        attnkit.tokens(tokenizer, "a flower", "a")["flower"]


def test_a_tokenizer_without_offsets_is_refused() -> None:
    class Slow:
        is_fast = False

        def __call__(self, text: str) -> None: ...

        def convert_ids_to_tokens(self, ids: list[int]) -> None: ...

    with pytest.raises(TypeError, match="use_fast=True"):
        attnkit.tokens(Slow(), "a flower", "a")
    with pytest.raises(TypeError, match="neither a path"):
        attnkit.tokens(3, "a flower", "a")


def test_quotes_that_a_pipeline_cleans_are_found_as_it_cleans_them() -> None:
    prompt, word = prompt_clean("a ‘flower’s petal"), prompt_clean("flower’s")
    assert prompt != "a ‘flower’s petal"
    [found] = attnkit.tokens(tiny.tokenizer(), prompt, word).words
    assert len(found.occurrences) == 1
