"""Weights of words, against embeddings that are multiplied here, by hand, in float64."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import attnkit
import diffusers
import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from tiny import CALL, seeded

TEMPLATE = "a beautiful [(flower:2.5) near a tree|(tree:3) next to a flower]"

# A prompt, and the weights of the rows of its pieces, the end token's the last.
ROWS: list[tuple[str, list[float]]] = [
    ("a beautiful (flower:2.5) near a tree", [1, 1, 2.5, 1, 1, 1, 1]),
    ("a (flower:2.5) near a (tree:0.5)", [1, 2.5, 1, 1, 0.5, 1]),
    ("(two people:0.8) near a (sunflower:3)", [0.8, 0.8, 1, 1, 3, 3, 1]),
    ("a flower near a (flower:0)", [1, 1, 1, 1, 0, 1]),
    ("a (flower:2) near a (flower:3) and a flower", [1, 2, 1, 1, 3, 1, 1, 1, 1]),
    (r"a (\(red\):2)  and (butterflys:1.5)", [1, 2, 2, 2, 2, 2, 1, 1.5, 1.5, 1.5, 1]),
    ("a &lt;b&gt; near  the ( dog : 2) (cat)", [1, 1, 1, 1, 1, 1, 1, 2, 1, 1]),
]
ALIKE = "(a:1) beautiful (flower) near a (tree:1.0)"


def prompt_of(weighted: str) -> attnkit.Prompt:
    [prompt] = attnkit.expand_prompts(weighted)
    return prompt


def own(pipe: Any, text: str, **more: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The pipeline's own embeddings, as many rows as it makes when it is called."""
    with torch.no_grad():
        return pipe.encode_prompt(**{"prompt": text, "max_sequence_length": 512, **more})


def numbers(embeds: torch.Tensor) -> np.ndarray[Any, Any]:
    return embeds[0].double().numpy()


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def pipe(request: pytest.FixtureRequest) -> Any:
    return tiny.wan(request.param)


@pytest.mark.parametrize("method", ["multiply", "interpolate", "norm"])
@pytest.mark.parametrize("weighted, weights", ROWS)
def test_a_weight_is_on_the_rows_of_its_word_and_on_no_others(
    pipe: Any, weighted: str, weights: list[float], method: Any
) -> None:
    prompt = prompt_of(weighted)
    before, negative = own(pipe, prompt.prompt, negative_prompt="a dog")
    after = prompt.inputs(pipe, method=method, negative_prompt="a dog")
    assert torch.equal(after["negative_prompt_embeds"], negative)
    embeds = after["prompt_embeds"]
    assert embeds.dtype == before.dtype and embeds.shape == before.shape and not embeds.requires_grad
    factors, pieces = np.array(weights)[:, None], len(weights)
    rows, end = numbers(before)[:pieces], numbers(before)[pieces - 1]
    assert np.abs(rows[-1]).max() > 0 and not numbers(before)[pieces:].any()
    expected = {
        "multiply": rows * factors,
        "interpolate": rows * factors + end * (1 - factors),
        "norm": rows * factors * np.sqrt((rows**2).sum() / ((rows * factors) ** 2).sum()),
    }[method]
    epsilon = torch.finfo(embeds.dtype).eps
    np.testing.assert_allclose(numbers(embeds)[:pieces], expected, rtol=epsilon, atol=4e-6 * np.abs(rows).max())
    assert torch.count_nonzero(embeds[:, pieces:]) == 0
    if method != "norm":
        kept = [row for row, weight in enumerate(weights) if weight == 1]
        assert torch.equal(embeds[:, kept], before[:, kept])


PIPELINES: dict[str, Any] = {
    "WAN 2.1": tiny.wan,
    "WAN 2.2": lambda: tiny.wan(boundary_ratio=0.9),
    "VACE": tiny.wan_vace,
    "WAN 2.1 I2V": tiny.wan_i2v,
    "bfloat16": lambda: tiny.wan(torch.bfloat16),
}


@pytest.mark.parametrize("kind", PIPELINES)
@pytest.mark.parametrize("method", ["multiply", "interpolate", "norm"])
def test_with_all_weights_one_the_model_gets_what_the_pipeline_gives_it(kind: str, method: Any) -> None:
    pipe, prompt = PIPELINES[kind](), prompt_of(ALIKE)
    call = {**CALL, "image": Image.new("RGB", (48, 32), "red")} if kind == "WAN 2.1 I2V" else CALL
    texts: list[torch.Tensor] = []

    def keep(model: Any, args: Any, kwargs: dict[str, Any]) -> None:
        texts.append(kwargs["encoder_hidden_states"])

    for name in ("transformer", "transformer_2"):
        if getattr(pipe, name, None) is not None:
            getattr(pipe, name).register_forward_pre_hook(keep, with_kwargs=True)
    expected = pipe(prompt=prompt.prompt, negative_prompt="a dog", generator=seeded(), **call).frames
    theirs, texts[:] = list(texts), []
    found = pipe(**prompt.inputs(pipe, method=method, negative_prompt="a dog"), generator=seeded(), **call).frames
    assert torch.equal(found, expected)
    assert len(texts) == 6 and all(torch.equal(*pair) for pair in zip(texts, theirs, strict=True))


def test_what_encode_prompt_takes_is_passed_on(pipe: Any) -> None:
    prompt = prompt_of("a (flower:2) near a tree")
    found = prompt.inputs(
        pipe, num_videos_per_prompt=3, max_sequence_length=20, negative_prompt="a dog", dtype=torch.float64
    )
    more = {"num_videos_per_prompt": 3, "max_sequence_length": 20, "negative_prompt": "a dog", "dtype": torch.float64}
    before, negative = own(pipe, prompt.prompt, **more)
    before[:, 1] *= 2
    assert torch.equal(found["prompt_embeds"], before) and before.shape == (3, 20, 32)
    assert torch.equal(found["negative_prompt_embeds"], negative)
    assert list(prompt.inputs(pipe, guidance=False)) == ["prompt_embeds"]


def given(weighted: str, *weights: float) -> attnkit.Prompt:
    """A prompt that no template stands for."""
    prompt = prompt_of(weighted)
    return replace(prompt, tokens=[{**token, "weight": weight} for token, weight in zip(prompt.tokens, weights)])


REFUSED: list[tuple[attnkit.Prompt, dict[str, Any], str]] = [
    (prompt_of("(sun:2)flower near the sun"), {}, r"\(sun\) is a part of another word"),
    (prompt_of("a (flower:2) near a (tree:2)"), {"max_sequence_length": 5}, "'tree' is cut off.* takes 5 pieces"),
    (prompt_of("a (sunflower:2)"), {"max_sequence_length": 3}, "'sunflower' is cut off"),
    (prompt_of("flower " * 511 + "(flower:2)"), {}, "'flower' is cut off.* takes 512 pieces"),
    (prompt_of("(红:2)(花:3)"), {}, "'花' has a piece in common"),
    (given("a (flower:2)", float("nan")), {}, "weighted_prompt"),
    (replace(prompt_of("a (flower:2)"), prompt="a tree"), {}, "weighted_prompt.* stands for 'a flower'"),
    (prompt_of("a (flower:1" + "0" * 39 + ")"), {}, "cannot hold"),
    (prompt_of("a (flower:2)"), {"method": "add"}, "'add' is none of multiply, interpolate, norm"),
    (prompt_of("a (flower:2)"), {"guidance": False, "negative_prompt": "a dog"}, "none without guidance"),
]


@pytest.mark.parametrize("prompt, options, said", REFUSED)
def test_weights_that_cannot_act_are_refused(
    pipe: Any, prompt: attnkit.Prompt, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        prompt.inputs(pipe, **options)


def test_pipelines_whose_rows_are_not_understood_are_refused() -> None:
    prompt = prompt_of("a (flower:2)")
    with pytest.raises(TypeError, match="LTXPipeline.*not understood"):
        prompt.inputs(diffusers.LTXPipeline.__new__(diffusers.LTXPipeline))
    pipe = tiny.wan()
    encode = pipe.encode_prompt
    pipe.__dict__["encode_prompt"] = lambda **call: encode(**{**call, "prompt": "a " + call["prompt"]})
    with pytest.raises(RuntimeError, match=r"makes \[4\] rows .* the 3 pieces"):
        prompt.inputs(pipe)
    pipe = tiny.wan()
    pipe.tokenizer.eos_token = "<s>"
    with pytest.raises(TypeError, match="no end token"):
        prompt.inputs(pipe, method="interpolate")


def test_words_are_what_capture_takes() -> None:
    prompt = prompt_of(r"a (flower:2.50) (two people:0.00001) (\(a\) 16:9:12) (tree)")
    assert prompt.words == ["(flower:2.5)", "(two people:0.00001)", r"(\(a\) 16:9:12)", "(tree:1)"]
    found = attnkit.tokens(tiny.tokenizer(), prompt.prompt, prompt.words).words
    assert [{"word": word.word, "weight": word.weight} for word in found] == prompt.tokens
    assert pickle.loads(pickle.dumps(prompt)) == prompt
    keys = "prompt_id template variation prompt weighted_prompt tokens choices"
    assert list(prompt.to_dict()) == keys.split()


def test_videos_of_a_template_have_their_own_word_each_and_its_weight(tmp_path: Path) -> None:
    pipe, path = tiny.wan(), tmp_path / "maps.store"
    videos: list[str] = []
    for variation in attnkit.expand_prompts(TEMPLATE):
        with attnkit.capture(pipe, path, variation=variation, dtype="float32") as capture:
            pipe(**variation.inputs(pipe, method="interpolate"), generator=seeded(4), **CALL)
        videos += capture.videos
    assert videos == ["prompt_000_vid001", "prompt_001_vid001"]
    store = attnkit.open(path)
    columns = "video_id, prompt_id, prompt, template, variation, token, weight"
    rows = store.sql(f"SELECT DISTINCT {columns} FROM steps ORDER BY video_id").to_polars().rows()
    first, second = "a beautiful flower near a tree", "a beautiful tree next to a flower"
    assert rows == [
        ("prompt_000_vid001", "prompt_000", first, TEMPLATE, 0, "flower", 2.5),
        ("prompt_001_vid001", "prompt_001", second, TEMPLATE, 1, "tree", 3.0),
    ]
    analyzer = attnkit.AttentionAnalyzer(path)
    metadata = analyzer.load_metadata("prompt_001_vid001", "tree", 2)
    assert metadata["weighting"] == "interpolate" and metadata["positions"] == [2]
    # The maps are those of embeddings that are weighted here.
    embeds, negative = own(pipe, first)
    embeds[:, 2] = embeds[:, 6] + 2.5 * (embeds[:, 2] - embeds[:, 6])
    steps: list[attnkit.CapturedStep] = []
    with attnkit.capture(pipe, words=[], positions={"mine": [2]}, dtype="float32", on_step=steps.append):
        pipe(prompt_embeds=embeds, negative_prompt_embeds=negative, generator=seeded(4), **CALL)
    stored = store.xarray("prompt_000_vid001", "flower")["attention"]
    for step in steps:
        expected = step.maps["mine"].numpy()
        found = stored.sel(step=step.step).to_numpy().reshape(expected.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert store.verify().ok


def captured(pipe: Any, variation: attnkit.Prompt, call: dict[str, Any], **options: Any) -> attnkit.CapturedStep:
    steps: list[attnkit.CapturedStep] = []
    with attnkit.capture(pipe, variation=variation, steps=[0], on_step=steps.append, **options):
        pipe(**call, **CALL)
    return steps[0]


# A prompt, what is asked for, and the weight and the rows of the word.
PLACES: list[tuple[str, dict[str, Any], list[tuple[str, float, list[int]]]]] = [
    ("a flower near a (flower:2)", {}, [("flower", 2, [4])]),
    ("a flower near a (flower:2)", {"words": ["flower"]}, [("flower", 2, [4])]),
    ("a (flower:2) near a (flower:3)", {}, [("flower", 2, [1])]),
    ("a (flower:2) near a (flower:3)", {"occurrence": 1}, [("flower", 3, [4])]),
    ("a (flower:2) near a (flower:2)", {"occurrence": "all"}, [("flower", 2, [1, 4])]),
    ("a (flower:2) near a tree", {"words": ["tree", "(flower:2)"]}, [("tree", 1, [4]), ("flower", 2, [1])]),
    ("a (red flower:2) near a tree", {"words": ["flower"]}, [("flower", 2, [2])]),
]


@pytest.mark.parametrize("weighted, options, words", PLACES)
def test_a_word_is_captured_where_it_is_in_parentheses(
    weighted: str, options: dict[str, Any], words: list[tuple[str, float, list[int]]]
) -> None:
    pipe, variation = tiny.wan(), prompt_of(weighted)
    step = captured(pipe, variation, variation.inputs(pipe), **options)
    assert [(word.word, word.weight, word.positions) for word in step.words] == words
    assert step.weighting == "multiply" and step.prompt == variation.prompt


FLOWER = prompt_of("a (flower:2) near a tree")


@pytest.mark.parametrize(
    "call, options, said",
    [
        (lambda pipe: {"prompt": FLOWER.prompt}, {}, "no weights, and flower:2 do not act"),
        (
            lambda pipe: {"prompt": "a flower near a dog"},
            {},
            "got 'a flower near a dog', and not 'a flower near a tree'",
        ),
        (lambda pipe: {"prompt": FLOWER.weighted_prompt}, {}, "and not 'a flower near a tree'"),
        (
            lambda pipe: prompt_of("a (flower:3) near a tree").inputs(pipe),
            {},
            "embeddings of 'a .flower:3. near a tree'",
        ),
        (FLOWER.inputs, {"words": ["(flower:3)"]}, "weight 3; the variation has it with 2"),
        (FLOWER.inputs, {"words": ["cat"]}, "has no word 'cat'"),
        (FLOWER.inputs, {"prompt": "a flower"}, "not that of the variation"),
    ],
)
def test_what_is_not_the_variation_is_refused(call: Any, options: dict[str, Any], said: str) -> None:
    pipe = tiny.wan()
    with pytest.raises(ValueError, match=said):
        captured(pipe, FLOWER, call(pipe), **options)


@pytest.mark.parametrize(
    "weighted, options, said",
    [
        ("a (flower:2) near a (flower:3)", {"occurrence": "all"}, r"'flower' has pieces of weights \[2.0, 3.0\]"),
        ("a red (flower:2)", {"words": ["red flower"]}, r"'red flower' has pieces of weights \[1.0, 2.0\]"),
    ],
)
def test_what_has_several_weights_is_not_stored_with_one(weighted: str, options: dict[str, Any], said: str) -> None:
    pipe, variation = tiny.wan(), prompt_of(weighted)
    with pytest.raises(ValueError, match=said):
        captured(pipe, variation, variation.inputs(pipe), **options)


def test_how_weights_act_is_told_where_it_is_known() -> None:
    pipe = tiny.wan()
    alike = prompt_of(ALIKE)
    assert captured(pipe, alike, {"prompt": alike.prompt}, words=["flower"]).weighting is None
    call = FLOWER.inputs(pipe, method="norm")
    assert captured(pipe, FLOWER, call).weighting == "norm"
    call["prompt_embeds"][:, 1] *= 2
    assert captured(pipe, FLOWER, call).weighting is None
    copied = {name: embeds.clone() for name, embeds in FLOWER.inputs(pipe).items()}
    assert captured(pipe, FLOWER, copied).weighting is None


def test_embeddings_may_be_made_within_a_capture_and_hold_several_videos(tmp_path: Path) -> None:
    pipe, path = tiny.wan(), tmp_path / "maps.store"
    with attnkit.capture(pipe, path, variation=FLOWER) as capture:
        pipe(**FLOWER.inputs(pipe, num_videos_per_prompt=2, max_sequence_length=20), **CALL)
        pipe(**FLOWER.inputs(pipe), **CALL)
    with attnkit.capture(pipe, path, variation=FLOWER) as again:
        pipe(**FLOWER.inputs(pipe), **CALL)
    assert capture.videos + again.videos == [f"prompt_000_vid00{number}" for number in (1, 2, 3, 4)]
    with pytest.raises(ValueError, match="prompt_000_vid001, which is there, is of 'a flower near a tree'"):
        attnkit.capture(pipe, path, variation=prompt_of("a (cat:2)"))


def test_words_behind_the_last_row_of_embeddings_are_refused() -> None:
    pipe, variation = tiny.wan(), prompt_of("a (flower:2) near a tree")
    call = variation.inputs(pipe, max_sequence_length=5)
    with pytest.raises(ValueError, match="'tree' is cut off"):
        captured(pipe, variation, call, words=["flower", "tree"])


def test_the_negative_prompt_of_a_variation_has_words_too(tmp_path: Path) -> None:
    [prompt] = attnkit.expand_prompts("a (flower:2.5) near a tree")
    pipe, steps = tiny.wan(), []
    options: dict[str, Any] = {"calls": ("cond", "uncond"), "negative_words": ["sun"], "groups": True}
    with attnkit.capture(pipe, variation=prompt, on_step=steps.append, **options):
        pipe(**prompt.inputs(pipe, negative_prompt="red sun"), generator=seeded(), **CALL)
    with_embeddings = [step for step in steps if step.call == "uncond"]
    assert {step.negative_prompt for step in steps} == {"red sun"}
    assert list(with_embeddings[0].maps) == ["uncond:sun", "uncond::eos", "uncond::rest", "uncond::pad"]
    assert [word.positions for word in with_embeddings[0].words[:3]] == [[1], [2], [0]]
