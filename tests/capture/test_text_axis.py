"""Groups of keys, the unconditional call, and statistics of the whole text axis, against whole float64 softmaxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attnkit
import numpy as np
import pytest
import tiny
import torch
from test_capture import BruteForce, captured
from tiny import CALL, PROMPT, seeded

#: Pieces of `a flower near a tree` and of `red sun`, with the end token.
LENGTHS = {"cond": 6, "uncond": 3}
NEGATIVE = "red sun"
KEYS: dict[str, dict[str, list[int]]] = {
    "cond": {"flower": [1], "tree": [4], ":eos": [5], ":rest": [0, 2, 3], ":pad": list(range(6, 512))},
    "uncond": {
        "uncond:sun": [1],
        "uncond::eos": [2],
        "uncond::rest": [0],
        "uncond::pad": list(range(3, 512)),
    },
}
OPTIONS: dict[str, Any] = {
    "words": ["flower", "tree"],
    "negative_words": "sun",
    "calls": ("cond", "uncond"),
    "groups": True,
}


def whole(call: str, make: Any = tiny.wan, **more: Any) -> BruteForce:
    pipe = make()
    brute = BruteForce(pipe, call)
    pipe(prompt=PROMPT, negative_prompt=NEGATIVE, generator=seeded(), **CALL, **more)
    return brute


@pytest.mark.parametrize("boundary", [None, 0.9])
def test_words_and_groups_of_both_calls_are_sums_of_the_softmax_and_1_together(boundary: float | None) -> None:
    make = lambda: tiny.wan(boundary_ratio=boundary)
    steps = captured(make(), call={**CALL, "negative_prompt": NEGATIVE}, **OPTIONS)
    assert [(step.step, step.call) for step in steps] == [(n, call) for n in range(3) for call in ("cond", "uncond")]
    for call in ("cond", "uncond"):
        brute = whole(call, make)
        for step in (step for step in steps if step.call == call):
            exact = brute.step(step.step)
            assert step.text_length == LENGTHS[call] and list(step.maps) == list(KEYS[call])
            for word, keys in KEYS[call].items():
                expected = exact[..., keys].sum(-1, keepdim=True)
                assert expected.std() > 1e-3
                assert (step.maps[word] - expected).abs().max() < 1e-5
            total = sum(step.maps[word] for word in KEYS[call])
            assert (total - 1).abs().max() < 1e-5
            assert step.text is not None and float(step.text.sum_error.max()) < 1e-5


def test_statistics_are_those_of_the_whole_softmax() -> None:
    steps = captured(tiny.wan(), call={**CALL, "negative_prompt": NEGATIVE}, **OPTIONS)
    for call in ("cond", "uncond"):
        brute = whole(call)
        for step in (step for step in steps if step.call == call):
            shares = brute.step(step.step).numpy()
            entropy = -(shares * np.log(shares)).sum(-1).mean(-1)
            masses = shares.mean(2)
            assert step.text is not None and step.text.blocks == [0, 1, 2] and step.text.heads == [0, 1]
            assert np.allclose(step.text.entropy, entropy, atol=1e-5)
            assert np.allclose(step.text.sink_mass, masses.max(-1), atol=1e-6)
            assert step.text.sink_key.tolist() == masses.argmax(-1).tolist()
            # Were padding one key, it would often be the sink.
            assert (np.delete(masses, np.s_[LENGTHS[call] + 1 :], 2).argmax(-1) == step.text.sink_key.numpy()).all()


def test_the_tables_have_calls_groups_and_statistics(tmp_path: Path) -> None:
    path = tmp_path / "maps.store"
    pipe = tiny.wan()
    steps: list[attnkit.CapturedStep] = []
    with attnkit.capture(pipe, path, on_step=steps.append, heads=[1], **OPTIONS):
        pipe(prompt=PROMPT, negative_prompt=NEGATIVE, generator=seeded(), **CALL)
    store = attnkit.open(path)
    assert store.verify().ok
    rows = store.list("steps", where="step = 1").to_polars().rows_by_key("token", named=True, unique=True)
    assert set(rows) == {*KEYS["cond"], *KEYS["uncond"]}
    for call, words in KEYS.items():
        for word, keys in words.items():
            row = rows[word]
            assert (row["call"], row["model"], row["text_length"]) == (call, "transformer", LENGTHS[call])
            assert (row["pieces"], row["pooling"]) == (
                len(keys),
                "sum" if ":" in word.removeprefix("uncond:") else "each",
            )
            assert row["positions"] == (None if word.endswith(":pad") else keys)
            assert (row["scheduler"], row["guidance_scale"], row["skipped"]) == ("UniPCMultistepScheduler", 5.0, None)
            assert '"torch"' in row["library_versions"] and row["model_id"] is None and row["head_numbers"] == [1]
    text = store.sql("SELECT * FROM text ORDER BY step, call, block").to_polars()
    assert text["video_id"].unique().to_list() == ["prompt_000_vid001"] and text["head"].unique().to_list() == [1]
    expected = [
        (step.step, step.call, block, float(step.text.entropy[block, 0]), int(step.text.sink_key[block, 0]))
        for step in steps
        if step.text is not None
        for block in range(3)
    ]
    assert text.select("step", "call", "block", "text_entropy", "sink_key").rows() == expected
    # Every question takes a group as it takes a word.
    mean = store.average(token=":pad", over=["step", "block", "head"])
    exact = torch.stack([step.maps[":pad"].float() for step in steps if step.call == "cond"]).mean()
    assert abs(float(mean["mean"][0]) - float(exact)) < 1e-6


def test_a_word_of_several_pieces_and_one_within_another_are_counted_once() -> None:
    steps = captured(tiny.wan(), "a butterflies near a tree", words=["a butterflies", "butterflies"], groups=True)
    for step in steps:
        assert step.text is not None and float(step.text.sum_error.max()) < 1e-5
        assert step.maps["a butterflies"].shape[-1] == step.maps["butterflies"].shape[-1] + 1 > 2
        assert torch.equal(step.maps["a butterflies"][..., 1:], step.maps["butterflies"])


def test_embeddings_that_were_made_elsewhere_have_padding_too() -> None:
    embeds = tiny.wan().encode_prompt(PROMPT, max_sequence_length=512, do_classifier_free_guidance=False)[0]
    pipe = tiny.wan()
    steps = captured(pipe, None, {**CALL, "prompt_embeds": embeds}, words=[], positions={"x": [1]}, groups=True)
    expected = captured(tiny.wan(), words=["flower"], groups=True)
    for step, other in zip(steps, expected, strict=True):
        assert list(step.maps) == ["x", ":rest", ":pad"], "which is the end token is not known"
        assert torch.allclose(step.maps[":pad"], other.maps[":pad"], atol=1e-4)
        assert torch.allclose(step.maps["x"], other.maps["flower"], rtol=1e-4)
    with pytest.raises(ValueError, match="has 4 pieces, its embeddings have 6 rows"):
        with attnkit.capture(tiny.wan(), words="tree", prompt="red flower tree", groups=True, on_step=print) as capture:
            capture._pipe(prompt_embeds=embeds, generator=seeded(), **CALL)


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"calls": "both"}, {}, "none of cond, uncond"),
    ({"calls": ()}, {}, "calls: none"),
    ({"calls": ("cond", "uncond")}, {}, "nothing to capture"),
    ({"negative_words": "sun"}, {}, "negative_words"),
    ({**OPTIONS, "negative_words": "moon"}, {}, "'red sun' has no word 'moon'"),
    (OPTIONS, {"guidance_scale": 1.0}, "guidance is off"),
    ({"positions": {":pad": [3]}, "words": []}, {}, "':pad' is a name of"),
    ({"positions": {"x": [600]}, "words": []}, {}, "'x' is beyond the text, which has 512 rows"),
]


@pytest.mark.parametrize("options, call, said", REFUSED)
def test_what_there_is_not_is_refused(options: dict[str, Any], call: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        captured(tiny.wan(), call={**CALL, "negative_prompt": NEGATIVE, **call}, **options)


def test_embeddings_that_are_changed_between_two_runs_are_looked_at_again() -> None:
    pipe = tiny.wan()
    embeds = pipe.encode_prompt(PROMPT, max_sequence_length=512, do_classifier_free_guidance=False)[0]
    steps: list[attnkit.CapturedStep] = []
    call = {**CALL, "prompt_embeds": embeds, "negative_prompt": ""}
    with attnkit.capture(pipe, words=[], positions={"x": [1]}, groups=True, on_step=steps.append):
        pipe(generator=seeded(), **call)
        embeds[:, 3:] = 0
        pipe(generator=seeded(), **call)
    # Behind the row that is named: the one before it and the one behind it.
    assert [len(step.words[1].positions) for step in steps] == [5] * 3 + [2] * 3
    assert [len(step.words[2].positions) for step in steps] == [506] * 3 + [509] * 3


def test_the_end_token_may_be_a_position_of_its_own() -> None:
    for step in captured(tiny.wan(), words=["flower"], positions={"end": [5]}, groups=True):
        assert list(step.maps) == ["end", "flower", ":rest", ":pad"]
        assert step.text is not None and float(step.text.sum_error.max()) < 1e-5


@pytest.mark.parametrize("scale", [1.0, 30.0, 3000.0])
def test_entropies_of_large_logits_are_exact(scale: float) -> None:
    from attnkit.capturing.softmax import Keys, columns_and_statistics

    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn((2, count, 8), generator=generator) for count in (50, 9))
    key = torch.cat([key, key[:, -1:].expand(2, 20, 8)], 1) * scale
    keys = Keys(29, 21, [list(range(8)), list(range(8, 29))], query.device)
    found = columns_and_statistics(query, key, keys, torch.empty(2, 50, 2))
    # Of the same logits, which float32 rounds.
    logits = torch.matmul(query, (key[:, :9] * 8**-0.5).transpose(1, 2)).double()
    shares = torch.cat([logits, logits[..., -1:].expand(2, 50, 20)], -1).log_softmax(-1)
    exact = -(shares.exp() * shares).sum(-1).mean(-1)
    assert torch.allclose(found.entropy, exact, atol=2e-5) and float(found.sum_error.max()) < 1e-4
