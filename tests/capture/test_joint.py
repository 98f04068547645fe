"""Maps of joint softmaxes, and of text with a mask, against whole softmaxes that are computed here, in float64."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import attnkit
import diffusers
import pytest
import tiny_joint
import torch
from attnkit.capturing import fused as fused_attention
from tiny import PROMPT, seeded
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

#: Rows of T5's text.
ROWS = 16
VIDEO: dict[str, Any] = {"height": 32, "width": 48, "num_frames": 9}
IMAGE: dict[str, Any] = {"height": 64, "width": 96}
LTX: dict[str, Any] = {"height": 64, "width": 96, "num_frames": 17}


@dataclass(frozen=True)
class Kind:
    """A pipeline, and what is known of it by hand."""

    make: Callable[[], Any]
    call: dict[str, Any]
    grid: tuple[int, int, int]
    #: Those of the fused calls of a forward that are wanted, of three blocks.
    calls: tuple[int, int, int] = (0, 1, 2)
    #: First and last but one: queries of the image, keys of the text.
    image: tuple[int, int | None] = (ROWS, None)
    text: tuple[int, int] = (0, ROWS)
    #: Of `flower` and `tree` on the text axis.
    positions: tuple[int, int] = (1, 4)
    #: How many videos of each prompt are asked for, and made.
    each: tuple[str, int] = ("num_images_per_prompt", 2)
    is_joint: bool = True
    video_size: tuple[int, int, int] | None = None
    #: Of so many forwards the first is of the prompt.
    forwards: int = 1
    context: Callable[[], Any] = contextlib.nullcontext
    tolerance: float = 1e-5


# It makes one video of each prompt, whatever it is asked for.
COGVIDEOX = Kind(tiny_joint.cogvideox, VIDEO, (3, 2, 3), each=("num_videos_per_prompt", 1), video_size=(9, 32, 48))
FLUX = Kind(tiny_joint.flux, IMAGE, (1, 4, 6))
# 24 rows of the image, then CLIP's text, then T5's. The second call is of the image alone.
SD3 = Kind(
    tiny_joint.sd3, IMAGE, (1, 4, 6), calls=(0, 2, 3), image=(0, 24), text=(24, 24 + 10 + ROWS), positions=(11, 14)
)
# The image attends to itself before it attends to the text.
LTX_VIDEO = Kind(
    tiny_joint.ltx,
    LTX,
    (3, 2, 3),
    calls=(1, 3, 5),
    image=(0, None),
    each=("num_videos_per_prompt", 2),
    is_joint=False,
)
MODELS = {"CogVideoX": COGVIDEOX, "Flux": FLUX, "Stable Diffusion 3": SD3, "LTX-Video": LTX_VIDEO}
NEGATIVE = {"negative_prompt": "a cat", "true_cfg_scale": 3.0}
KINDS = {
    **MODELS,
    "CogVideoX 1.5": replace(
        COGVIDEOX, make=lambda: tiny_joint.cogvideox(patch_size_t=2), grid=(2, 2, 3), video_size=None
    ),
    "without guidance": replace(COGVIDEOX, call={**VIDEO, "guidance_scale": 1.0}),
    "another kernel": replace(COGVIDEOX, context=lambda: sdpa_kernel(SDPBackend.MATH)),
    "fused projections": replace(COGVIDEOX, make=lambda: fused(tiny_joint.cogvideox())),
    "Flux, negative prompt": replace(FLUX, call={**IMAGE, **NEGATIVE}, forwards=2),
    "bfloat16": replace(FLUX, make=lambda: tiny_joint.flux(torch.bfloat16), tolerance=1e-4),
    "autocast": replace(COGVIDEOX, context=lambda: torch.autocast("cpu", torch.bfloat16)),
    "CUDA": replace(FLUX, make=lambda: tiny_joint.flux(torch.bfloat16).to("cuda"), tolerance=1e-4),
    "Stable Diffusion 3 without T5": replace(SD3, make=lambda: tiny_joint.sd3(t5=False), positions=(2, 5)),
}


def fused(pipe: Any) -> Any:
    pipe.transformer.fuse_qkv_projections()
    return pipe


class Spy(TorchFunctionMode):
    """Whole softmaxes `[batch, head, query, key]` of all fused attention within a transformer, by forward."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.forwards: list[list[torch.Tensor]] = []
        self._runs = False
        model.register_forward_pre_hook(lambda *_: self._set(True))
        model.register_forward_hook(lambda *_: self._set(False))

    def _set(self, runs: bool) -> None:
        self._runs = runs
        if runs:
            self.forwards.append([])

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention and self._runs:
            named = {**dict(zip(("query", "key", "value", "attn_mask"), args)), **given}
            query, key = named["query"], named["key"]
            if torch.is_autocast_enabled("cpu"):
                query, key = query.bfloat16(), key.bfloat16()
            query, key = query.double(), key.double()
            logits = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
            if named.get("attn_mask") is not None:
                logits += named["attn_mask"].double()
            self.forwards[-1].append(logits.softmax(-1).cpu())
        return func(*args, **given)


def exact(kind: Kind, **call: Any) -> list[torch.Tensor]:
    """Of each step `[block, batch, head, image, key]`."""
    pipe = kind.make()
    with kind.context(), Spy(pipe.transformer) as spy:
        run(kind, pipe, **call)
    of_prompt = spy.forwards[:: kind.forwards]
    return [torch.stack([calls[call][:, :, slice(*kind.image)] for call in kind.calls]) for calls in of_prompt]


def run(kind: Kind, pipe: Any, **call: Any) -> torch.Tensor:
    given = {"prompt": PROMPT, "generator": seeded(), "num_inference_steps": 3, "output_type": "latent"}
    made = pipe(**{**given, "max_sequence_length": ROWS, **kind.call, **call}, return_dict=False)[0]
    assert isinstance(made, torch.Tensor)
    return made


def captured(kind: Kind, pipe: Any, call: dict[str, Any] | None = None, **options: Any) -> list[attnkit.CapturedStep]:
    steps: list[attnkit.CapturedStep] = []
    options = {"words": ["flower", "tree"], "dtype": "float32", **options}
    with attnkit.capture(pipe, on_step=steps.append, **options):
        run(kind, pipe, **(call or {}))
    return steps


ON_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[ON_CUDA] if name == "CUDA" else []) for name in KINDS])
def test_maps_are_columns_of_the_softmax_and_the_output_is_untouched(name: str) -> None:
    kind = KINDS[name]
    steps: list[attnkit.CapturedStep] = []
    with kind.context():
        plain = run(kind, kind.make())
        pipe = kind.make()
        with attnkit.capture(pipe, words=["flower", "tree"], dtype="float32", on_step=steps.append):
            watched = run(kind, pipe)
    assert torch.equal(plain, watched)
    assert [step.step for step in steps] == [0, 1, 2]
    assert [step.timestep for step in steps] == pipe.scheduler.timesteps.tolist()
    for step, whole in zip(steps, exact(kind), strict=True):
        assert (step.grid, step.seed, step.video_size) == (kind.grid, 0, kind.video_size)
        assert [word.positions for word in step.words] == [[position] for position in kind.positions]
        # The conditional one is the last of its batch.
        of_text = whole[:, -1, ..., slice(*kind.text)]
        for word, position in zip(("flower", "tree"), kind.positions):
            found, expected = step.maps[word].double(), of_text[..., [position]]
            assert found.shape == expected.shape
            assert (found - expected).abs().max() < kind.tolerance
            assert expected.std() > 1e-2, "a test of uniform maps would prove nothing"
        assert (step.text_share is not None) == kind.is_joint
        if step.text_share is not None:
            share = of_text.sum(-1).mean(-1)
            assert (step.text_share.double() - share).abs().max() < kind.tolerance
            assert share.min() > 0.01 and share.max() < 0.95


@pytest.mark.parametrize("model", MODELS)
def test_each_video_has_the_maps_of_its_own_prompt(model: str) -> None:
    kind = MODELS[model]
    each, count = kind.each
    # `flower` is the second piece of the one, and the last of the other.
    prompts = ["a flower near a tree", "a tree next to a flower"]
    call = {"prompt": prompts, each: 2}
    steps = captured(kind, kind.make(), call)
    videos = list(dict.fromkeys(step.video_id for step in steps))
    assert videos == [f"prompt_{prompt:03}_vid{number:03}" for prompt in (0, 1) for number in range(1, count + 1)]
    whole = exact(kind, **call)
    for number, video in enumerate(videos):
        position = kind.positions[0] + (0, 4)[number // count]
        of_video = [step for step in steps if step.video_id == video]
        for step, maps in zip(of_video, whole, strict=True):
            assert step.prompt == prompts[number // count]
            assert step.words[0].positions == [position]
            expected = maps[:, maps.shape[1] - len(videos) + number, ..., slice(*kind.text)][..., [position]]
            assert (step.maps["flower"].double() - expected).abs().max() < 1e-5


def test_what_is_chosen_and_averaged_is_what_all_would_give() -> None:
    every = captured(FLUX, FLUX.make())[1]
    maps, share = every.maps["tree"], every.text_share
    assert share is not None
    some = captured(FLUX, FLUX.make(), blocks=[2, 0], heads=[1], steps=[1])[0]
    assert torch.equal(some.maps["tree"], maps[[0, 2]][:, [1]])
    assert some.text_share is not None and torch.equal(some.text_share, share[[0, 2]][:, [1]])
    for average, axes in (("blocks", (0,)), ("heads", (1,)), (("blocks", "heads"), (0, 1))):
        mean = captured(FLUX, FLUX.make(), average=average)[1]
        assert (mean.maps["tree"] - maps.double().mean(axes, keepdim=True)).abs().max() < 1e-6
        assert mean.text_share is not None
        assert (mean.text_share - share.double().mean(axes, keepdim=True)).abs().max() < 1e-6


@pytest.mark.parametrize("model", MODELS)
def test_pieces_may_be_summed(model: str) -> None:
    kind = MODELS[model]
    options: dict[str, Any] = {"words": [], "positions": {"two": [0, 2], "one": [1]}}
    each = captured(kind, kind.make(), **options)
    for step, other in zip(captured(kind, kind.make(), pooling="sum", **options), each, strict=True):
        assert torch.allclose(step.maps["two"], other.maps["two"].sum(-1, keepdim=True), atol=1e-6)
        assert torch.allclose(step.maps["one"], other.maps["one"], atol=1e-7)


@pytest.mark.parametrize("model", MODELS)
def test_a_store_says_whether_the_softmax_is_joint(model: str, tmp_path: Path) -> None:
    kind = MODELS[model]
    path = tmp_path / "maps.store"
    steps: list[attnkit.CapturedStep] = []
    pipe = kind.make()
    with attnkit.capture(pipe, path, ["flower"], on_step=steps.append):
        run(kind, pipe)
    stored = attnkit.AttentionAnalyzer(path)
    for step in steps:
        metadata = stored.load_metadata(step.video_id, "flower", step.step)
        assert metadata["positions"] == [kind.positions[0]]
        if step.text_share is None:
            assert not {"attention", "renormalised", "text_share"} & metadata.keys()
        else:
            assert (metadata["attention"], metadata["renormalised"]) == ("joint", False)
            assert (torch.tensor(metadata["text_share"]) - step.text_share).abs().max() < 1e-6
    rows = attnkit.open(path).list("steps").to_polars()
    assert set(rows.select("frames", "height", "width").rows()) == {kind.grid}


MASK = torch.tensor([True] * 6 + [False] * 2)
CALLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scale": {"scale": 1.5},
    "mask": {"attn_mask": MASK.expand(1, 1, 1, 8)},
    "bias": {"attn_mask": torch.arange(3 * 5 * 8.0).reshape(1, 3, 5, 8) % 3},
}


@pytest.mark.parametrize("name", CALLS)
def test_columns_are_what_the_kernel_weighs_values_with(name: str) -> None:
    generator = seeded()
    query, key = torch.randn(1, 3, 5, 8, generator=generator), torch.randn(1, 3, 8, 8, generator=generator)
    seen: list[tuple[fused_attention.Attention, torch.Tensor | None]] = []
    with fused_attention.watch(lambda attention, total: seen.append((attention, total))):
        # Of the identity they are the output.
        values = torch.eye(8).expand(1, 3, 8, 8)
        weights = torch.nn.functional.scaled_dot_product_attention(query, key, values, **CALLS[name])[0]
    ((attention, total),) = seen
    assert (total is None) == ("attn_mask" in CALLS[name])
    out = torch.empty(3, 5, 2)
    share = fused_attention.columns(
        query[0],
        key[0],
        slice(2, 7),
        [3, 1],
        scale=CALLS[name].get("scale", 8**-0.5),
        bias=attention.bias(0, slice(None), slice(None)),
        total=None if total is None else total[0],
        out=out,
    )
    assert (out - weights[..., [5, 3]]).abs().max() < 1e-6
    assert (share - weights[..., 2:7].sum(-1).mean(-1)).abs().max() < 1e-6


def test_autocast_rounds_what_is_multiplied() -> None:
    query, key = torch.randn(2, 1, 1, 5, 8, generator=seeded())
    seen: list[tuple[fused_attention.Attention, torch.Tensor | None]] = []
    with (
        torch.autocast("cpu", torch.bfloat16),
        fused_attention.watch(lambda attention, total: seen.append((attention, total))),
    ):
        made = torch.nn.functional.scaled_dot_product_attention(query, key, key)
    ((attention, total),) = seen
    assert made.dtype == attention.query.dtype == attention.key.dtype == torch.bfloat16 and total is None


def test_code_that_was_compiled_before_is_watched_too() -> None:
    expected = captured(COGVIDEOX, tiny_joint.cogvideox(), steps=[0])
    pipe = tiny_joint.cogvideox()
    pipe.transformer.compile(backend="eager")
    run(COGVIDEOX, pipe, num_inference_steps=1)
    found = captured(COGVIDEOX, pipe, steps=[0])
    for word in ("flower", "tree"):
        assert (found[0].maps[word] - expected[0].maps[word]).abs().max() < 1e-5


def test_nothing_is_left_in_the_pipeline() -> None:
    pipe = tiny_joint.flux()
    run(FLUX, pipe)
    before = (vars(pipe).keys(), vars(pipe.transformer).keys(), hooks_of(pipe))
    with pytest.raises(ZeroDivisionError):
        captured(FLUX, pipe, {"callback_on_step_end": lambda *_: 1 // 0})
    pipe.transformer.transformer_blocks[1].attn.to_out[0].forward = lambda hidden: 1 // 0
    with pytest.raises(ZeroDivisionError):
        captured(FLUX, pipe)
    assert (vars(pipe).keys(), vars(pipe.transformer).keys(), hooks_of(pipe)) == before
    assert torch.overrides._get_current_function_mode() is None


def hooks_of(pipe: Any) -> int:
    modules = list(pipe.transformer.modules())
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)


def by_hand(pipe: Any) -> None:
    """Attention of the second block without torch's function, as other backends do."""
    attention = pipe.transformer.transformer_blocks[1].attn1

    def process(attn: Any, hidden_states: Any, encoder_hidden_states: Any, **_: Any) -> Any:
        return hidden_states, encoder_hidden_states

    attention.processor = process


def other_text(pipe: Any) -> None:
    pipe.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: (args, {**kwargs, "encoder_hidden_states": kwargs["encoder_hidden_states"] * 2}),
        with_kwargs=True,
    )


def causal(pipe: Any) -> None:
    original = torch.nn.functional.scaled_dot_product_attention
    attention = pipe.transformer.transformer_blocks[0].attn1.processor

    class Causal(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = dict(kwargs or {})
            return func(*args, **{**given, "is_causal": True} if func is original else given)

    def process(*args: Any, **kwargs: Any) -> Any:
        with Causal():
            return attention(*args, **kwargs)

    pipe.transformer.transformer_blocks[0].attn1.processor = process


def cached(pipe: Any) -> None:
    pipe.transformer.enable_cache(diffusers.FirstBlockCacheConfig(threshold=0.2))


NOT_UNDERSTOOD: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "attention by hand": (by_hand, {}, RuntimeError, r"blocks \[1\] of transformer did not attend by torch's"),
    "another text": (other_text, {}, RuntimeError, "another text than encode_prompt made"),
    "causal": (causal, {}, RuntimeError, "attends causally"),
    "a cache": (cached, {}, TypeError, "disable_cache"),
    "a position of the image": (
        None,
        {"positions": {"mine": [16]}},
        ValueError,
        "'mine' is beyond the text, which has 16 rows",
    ),
    "no such word": (None, {"words": ["cat"]}, ValueError, "has no word 'cat'"),
    "no such block": (None, {"blocks": [3]}, ValueError, "0 to 2"),
}


@pytest.mark.parametrize("name", NOT_UNDERSTOOD)
def test_what_is_not_understood_is_an_error(name: str) -> None:
    change, options, kind, said = NOT_UNDERSTOOD[name]
    pipe = tiny_joint.cogvideox()
    if change is not None:
        change(pipe)
    with pytest.raises(kind, match=said):
        captured(COGVIDEOX, pipe, **options)


def test_an_image_that_is_referred_to_is_an_error() -> None:
    pipe = tiny_joint.flux()

    def with_reference(_: Any, args: Any, kwargs: Any) -> Any:
        ids, hidden = kwargs["img_ids"], kwargs["hidden_states"]
        reference = ids + torch.tensor([1, 0, 0])
        return args, {**kwargs, "img_ids": torch.cat([ids, reference]), "hidden_states": torch.cat([hidden] * 2, 1)}

    pipe.transformer.register_forward_pre_hook(with_reference, with_kwargs=True)
    with pytest.raises(RuntimeError, match="48 rows for 4 x 6 patches"):
        captured(FLUX, pipe)


def learned(pipe: Any) -> None:
    """A name that stands for two embeddings, as textual inversion makes it."""
    pipe.tokenizer_2.add_tokens(["<x>", "<x>_1"])
    pipe.text_encoder_2.resize_token_embeddings(len(pipe.tokenizer_2))


# `<x> <x>_1` has a piece between its two.
@pytest.mark.parametrize(
    "call, expected",
    [
        ({"prompt": "a cat", "prompt_2": "a tree near a flower"}, ("a tree near a flower", [[4], [1]])),
        ({"prompt": "<x> flower near a tree"}, ("<x> <x>_1 flower near a tree", [[3], [6]])),
    ],
    ids=["a prompt of its own", "a learned name"],
)
def test_words_are_where_the_last_text_encoder_gets_them(call: Any, expected: Any) -> None:
    pipe = tiny_joint.flux()
    learned(pipe)
    step = captured(FLUX, pipe, call)[0]
    assert (step.prompt, [word.positions for word in step.words]) == expected


def test_embeddings_stand_for_a_prompt() -> None:
    pipe = tiny_joint.flux()
    with torch.no_grad():
        embeds, pooled, _ = pipe.encode_prompt(PROMPT, max_sequence_length=ROWS)
    given = {"prompt": None, "prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
    expected = captured(FLUX, pipe)
    for step, other in zip(captured(FLUX, pipe, given, prompt=PROMPT), expected, strict=True):
        assert torch.equal(step.maps["flower"], other.maps["flower"])
    with pytest.raises(ValueError, match="prompt="):
        captured(FLUX, pipe, given)


@pytest.mark.parametrize("name", ["HunyuanVideoTransformer3DModel", "MochiTransformer3DModel"])
def test_other_models_are_refused_by_name(name: str) -> None:
    pipe = tiny_joint.cogvideox()
    pipe.transformer.__class__ = type(name, (type(pipe.transformer),), {})
    with pytest.raises(TypeError, match=f"{name}.*CogVideoXTransformer3DModel"):
        captured(COGVIDEOX, pipe)
