"""Every way in which a pipeline of WAN is run: maps against whole float64 softmaxes, the output untouched."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attnkit
import diffusers
import pytest
import tiny
import torch
from PIL import Image
from test_capture import FLOWER, TREE, BruteForce, captured
from tiny import CALL, GRID, PROMPT, need, seeded

#: Enough steps for caches to leave some out.
SIX = {**CALL, "num_inference_steps": 6}
RED = Image.new("RGB", (48, 32), "red")
CPU = torch.device("cpu")


def lora(pipe: Any) -> None:
    peft = pytest.importorskip("peft", exc_type=ImportError)
    torch.manual_seed(3)
    layers = ["to_q", "to_k", "to_v", "to_out.0"]
    pipe.transformer.add_adapter(peft.LoraConfig(r=4, init_lora_weights=False, target_modules=layers))


def model_offload(pipe: Any) -> None:
    import accelerate

    _, first = accelerate.cpu_offload_with_hook(pipe.text_encoder, CPU)
    accelerate.cpu_offload_with_hook(pipe.transformer, CPU, prev_module_hook=first)


def sequential_offload(pipe: Any) -> None:
    import accelerate

    accelerate.cpu_offload(pipe.transformer, execution_device=CPU)


def group_offload(kind: str) -> Callable[[Any], None]:
    def change(pipe: Any) -> None:
        need("apply_group_offloading")
        more = {"num_blocks_per_group": 1} if kind == "block_level" else {}
        devices = {"onload_device": CPU, "offload_device": CPU}
        diffusers.hooks.apply_group_offloading(pipe.transformer, offload_type=kind, **devices, **more)

    return change


def casting(*patterns: str) -> Callable[[Any], None]:
    def change(pipe: Any) -> None:
        need("apply_layerwise_casting")
        dtypes = {"storage_dtype": torch.float8_e4m3fn, "compute_dtype": torch.float32}
        diffusers.hooks.apply_layerwise_casting(pipe.transformer, **dtypes, skip_modules_pattern=patterns)

    return change


def method(name: str, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
    def change(pipe: Any) -> None:
        need(name)
        getattr(pipe.transformer, name)(*args, **kwargs)

    return change


def compiled(pipe: Any) -> None:
    pipe.transformer = torch.compile(pipe.transformer, backend="eager")


def compiled_and_run(pipe: Any) -> None:
    pipe.transformer.compile(backend="eager")
    pipe(prompt=PROMPT, **CALL)


def as_it_is(pipe: Any) -> None:
    pass


#: Backends that are left out run on no CPU (`_native_cudnn`, `_native_efficient`, `_native_npu`, `_native_xla`) or need
#: packages of their own (`flash`, `sage`, `xformers`, …).
BACKENDS = ("native", "_native_math", "_native_flash", "flex")
WAYS: dict[str, Callable[[Any], None]] = {
    "LoRA": lora,
    "model offload": model_offload,
    "sequential offload": sequential_offload,
    "group offload of blocks": group_offload("block_level"),
    "group offload of layers": group_offload("leaf_level"),
    "stored as fp8": casting("patch_embedding", "condition_embedder", "norm"),
    "stored as fp8, norms too": casting("patch_embedding", "condition_embedder"),
    "channels last": lambda pipe: pipe.transformer.to(memory_format=torch.channels_last_3d),
    "fused projections": method("fuse_qkv_projections"),
    **{f"backend {name}": method("set_attention_backend", name) for name in BACKENDS},
    "compiled": compiled,
    "compiled in place": method("compile", backend="eager"),
    "compiled and run before": compiled_and_run,
    "compiled blocks": method("compile_repeated_blocks", backend="eager"),
    "autocast": as_it_is,
    "inference mode": as_it_is,
}
AROUND: dict[str, Callable[[], Any]] = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
}


def changed(change: Callable[[Any], None]) -> Any:
    pipe = tiny.wan()
    change(pipe)
    return pipe


@pytest.mark.parametrize("way", WAYS)
def test_however_a_pipeline_is_run_maps_are_the_softmax_and_the_output_is_untouched(way: str) -> None:
    change, around = WAYS[way], AROUND.get(way, contextlib.nullcontext)
    with around():
        plain = changed(change)(prompt=PROMPT, generator=seeded(), **CALL).frames
    steps: list[attnkit.CapturedStep] = []
    pipe = changed(change)
    with around(), attnkit.capture(pipe, words=["flower", "tree"], dtype="float32", on_step=steps.append):
        assert torch.equal(plain, pipe(prompt=PROMPT, generator=seeded(), **CALL).frames)
    # What is compiled is compared with what is not: the processors of brute force would be compiled, too.
    exact = changed(as_it_is if "compiled" in way else change)
    brute = BruteForce(exact)
    with around():
        assert torch.equal(plain, exact(prompt=PROMPT, generator=seeded(), **CALL).frames)
    assert [step.step for step in steps] == [0, 1, 2]
    for step in steps:
        for word, positions in (("flower", FLOWER), ("tree", TREE)):
            expected = brute.step(step.step)[..., positions]
            assert (step.maps[word] - expected).abs().max() < 1e-5 and expected.std() > 1e-3
        assert step.skipped == []


def timestep_of(pipe: Any) -> Callable[[], Any]:
    return lambda: pipe._current_timestep


#: Of each cache its settings, and the blocks that it leaves out at six steps, where that can be told.
CACHES: dict[str, tuple[str, Callable[[Any], dict[str, Any]], list[list[int]] | None]] = {
    "first block": ("FirstBlockCacheConfig", lambda pipe: {"threshold": 1e6}, [[]] + [[1, 2]] * 5),
    # It counts the calls of both kinds together: of the twelve of six steps the first, fourth, seventh and tenth run.
    "attention broadcast": (
        "PyramidAttentionBroadcastConfig",
        lambda pipe: {
            "cross_attention_block_skip_range": 3,
            "cross_attention_timestep_skip_range": (0, 1000),
            "cross_attention_block_identifiers": ("blocks",),
            "current_timestep_callback": timestep_of(pipe),
        },
        [[], [0, 1, 2], [0, 1, 2]] * 2,
    ),
    "broadcast of self-attention": (
        "PyramidAttentionBroadcastConfig",
        lambda pipe: {
            "spatial_attention_block_skip_range": 2,
            "spatial_attention_timestep_skip_range": (0, 1000),
            "spatial_attention_block_identifiers": ("blocks",),
            "current_timestep_callback": timestep_of(pipe),
        },
        [[]] * 6,
    ),
    "FasterCache of self-attention": (
        "FasterCacheConfig",
        lambda pipe: {
            "spatial_attention_block_skip_range": 2,
            "spatial_attention_timestep_skip_range": (-1, 900),
            "is_guidance_distilled": True,
            "spatial_attention_block_identifiers": ("blocks",),
            "tensor_format": "BCFHW",
            "current_timestep_callback": timestep_of(pipe),
        },
        [[]] * 6,
    ),
    "MagCache": (
        "MagCacheConfig",
        lambda pipe: {
            "num_inference_steps": 6,
            "mag_ratios": torch.ones(6),
            "threshold": 0.5,
            "max_skip_steps": 2,
            "retention_ratio": 0.2,
        },
        [[], [0, 1, 2], [0, 1, 2]] * 2,
    ),
    "TaylorSeer": (
        "TaylorSeerCacheConfig",
        lambda pipe: {
            "cache_interval": 3,
            "disable_cache_before_step": 1,
            "max_order": 1,
            "cache_identifiers": [r"blocks.[01].attn2"],
        },
        None,
    ),
    "SeaCache": ("SeaCacheConfig", lambda pipe: {"threshold": 1e6}, None),
    "cache of the text": ("TextKVCacheConfig", lambda pipe: {}, [[]] * 6),
}


@pytest.mark.parametrize("kind", CACHES)
def test_what_a_step_cache_leaves_out_is_told_and_what_it_computes_is_right(kind: str) -> None:
    config, settings, left_out = CACHES[kind]
    # Before diffusers 0.35, which has contexts, caches did not know which attention of WAN is which.
    need(config, "cache_context")

    def made() -> Any:
        pipe = tiny.wan()
        pipe.transformer.enable_cache(getattr(diffusers, config)(**settings(pipe)))
        return pipe

    plain = made()(prompt=PROMPT, generator=seeded(), **SIX).frames
    steps: list[attnkit.CapturedStep] = []
    pipe = made()
    with attnkit.capture(pipe, words=["flower"], dtype="float32", on_step=steps.append):
        assert torch.equal(plain, pipe(prompt=PROMPT, generator=seeded(), **SIX).frames)
    exact = made()
    brute = BruteForce(exact)
    exact(prompt=PROMPT, generator=seeded(), **SIX)
    assert left_out is None or [step.skipped for step in steps] == left_out
    assert left_out is not None or any(step.skipped for step in steps)
    for step in steps:
        ran = sorted(brute.maps[step.step])
        assert step.skipped == [block for block in range(3) if block not in ran]
        assert step.maps["flower"][step.skipped].isnan().all()
        for block in ran:
            expected = brute.maps[step.step][block][0][..., FLOWER]
            assert (step.maps["flower"][block] - expected).abs().max() < 1e-5


def test_a_cache_that_splits_the_batch_is_refused() -> None:
    need("FasterCacheConfig")
    pipe = tiny.wan()
    config = diffusers.FasterCacheConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(-1, 900),
        unconditional_batch_timestep_skip_range=(-1, 1000),
        tensor_format="BCFHW",
        current_timestep_callback=timestep_of(pipe),
    )
    pipe.transformer.enable_cache(config)
    with pytest.raises(RuntimeError, match="splits its batch or its positions, such as FasterCache"):
        captured(pipe, call={**SIX, "num_videos_per_prompt": 2, "generator": [seeded(0), seeded(1)]})


def test_both_evaluations_of_heun_are_steps_of_their_own(tmp_path: Path) -> None:
    heun = lambda: diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0)
    steps = captured(tiny.wan(scheduler=heun()), store=tmp_path / "maps.store")
    exact = tiny.wan(scheduler=heun())
    brute = BruteForce(exact)
    exact(prompt=PROMPT, generator=seeded(), **CALL)
    assert [step.step for step in steps] == [0, 1, 2, 3, 4]
    assert {step.total_steps for step in steps} == {5} == {len(brute.maps)}
    first, second, third = sorted({step.timestep for step in steps}, reverse=True)
    assert [step.timestep for step in steps] == [first, second, second, third, third]
    for step in steps:
        assert (step.maps["flower"] - brute.step(step.step)[..., FLOWER]).abs().max() < 1e-5
    assert attnkit.open(tmp_path / "maps.store").verify().ok


def test_video_to_video_keeps_the_numbers_of_the_whole_schedule() -> None:
    call = {name: value for name, value in CALL.items() if name != "num_frames"} | {"video": [RED] * 9, "strength": 0.7}
    plain = tiny.wan_v2v()(prompt=PROMPT, generator=seeded(), **call).frames
    pipe = tiny.wan_v2v()
    steps: list[attnkit.CapturedStep] = []
    options = {"words": "flower", "calls": ("cond", "uncond"), "groups": True, "dtype": "float32"}
    with attnkit.capture(pipe, on_step=steps.append, **options):
        assert torch.equal(plain, pipe(prompt=PROMPT, generator=seeded(), **call).frames)
    assert [(step.step, step.call) for step in steps] == [(n, call) for n in (1, 2) for call in ("cond", "uncond")]
    assert {(step.total_steps, step.grid, step.video_size) for step in steps} == {(3, GRID, (9, 32, 48))}
    for of_call, word, keys in (("cond", "flower", FLOWER), ("uncond", "uncond::pad", slice(1, None))):
        exact = tiny.wan_v2v()
        brute = BruteForce(exact, of_call)
        exact(prompt=PROMPT, generator=seeded(), **call)
        for number, step in enumerate(step for step in steps if step.call == of_call):
            expected = brute.step(number)[..., keys].sum(-1, keepdim=True)
            assert (step.maps[word] - expected).abs().max() < 1e-5


def test_maps_of_vace_are_of_the_video_and_not_of_what_it_refers_to() -> None:
    call = {**CALL, "reference_images": [RED, RED]}
    steps = captured(tiny.wan_vace(), call=call)
    exact = tiny.wan_vace()
    brute = BruteForce(exact)
    exact(prompt=PROMPT, generator=seeded(), **call)
    for step in steps:
        assert (step.grid, step.video_size) == (GRID, (9, 32, 48))
        expected = brute.step(step.step)[..., FLOWER]
        assert expected.shape[2] == 18 + 2 * 6
        assert (step.maps["flower"] - expected[:, :, 12:]).abs().max() < 1e-5


def test_groups_of_prompts_of_several_lengths_are_each_of_its_own() -> None:
    prompts = [PROMPT, "red flower", "a beautiful flower near the sun and two people"]
    call = {**CALL, "generator": [seeded(number) for number in range(3)]}
    steps = captured(tiny.wan(), prompts, call, groups=True)
    exact = tiny.wan()
    brute = BruteForce(exact)
    exact(prompt=prompts, **{**CALL, "generator": [seeded(number) for number in range(3)]})
    for place, step in enumerate(steps):
        number, video = divmod(place, 3)
        assert (step.step, step.prompt, step.seed) == (number, prompts[video], video)
        length = (6, 3, 10)[video]
        shares = brute.step(number, video)
        for word, keys in ((":eos", [length - 1]), (":pad", slice(length, None))):
            assert (step.maps[word] - shares[..., keys].sum(-1, keepdim=True)).abs().max() < 1e-5
        assert (sum(step.maps[word].sum(-1) for word in step.maps) - 1).abs().max() < 1e-5


def test_runs_of_one_capture_differ_in_size_scheduler_and_end(tmp_path: Path) -> None:
    pipe, steps = tiny.wan(), []
    path = tmp_path / "maps.store"
    with attnkit.capture(pipe, path, ["flower"], dtype="float32", on_step=steps.append):
        with pytest.raises(ZeroDivisionError):
            pipe(prompt=PROMPT, callback_on_step_end=lambda *_: 1 // 0, **CALL)
        pipe.scheduler = tiny.euler()
        pipe(prompt=PROMPT, generator=seeded(), **{**CALL, "height": 64, "num_frames": 5})
    assert [(step.video_id[-3:], step.step, step.grid) for step in steps] == [
        ("001", 0, GRID),
        *[("002", number, (2, 4, 3)) for number in range(3)],
    ]
    store = attnkit.open(path)
    assert store.verify().ok
    rows = store.list("steps", sort=["video_id", "step"]).to_polars()
    assert rows["scheduler"].to_list() == ["UniPCMultistepScheduler"] + ["FlowMatchEulerDiscreteScheduler"] * 3
    expected = captured(tiny.wan(scheduler=tiny.euler()), call={**CALL, "height": 64, "num_frames": 5})
    for step, other in zip(steps[1:], expected, strict=True):
        assert torch.equal(step.maps["flower"], other.maps["flower"]) and step.timestep == other.timestep


def test_where_guidance_ends_in_the_middle_there_is_no_further_unconditional_call() -> None:
    def end(pipe: Any, step: int, timestep: Any, given: Any) -> Any:
        pipe._guidance_scale = 1.0
        return given

    options: dict[str, Any] = {"calls": ("cond", "uncond"), "groups": True}
    steps = captured(tiny.wan(), call={**CALL, "callback_on_step_end": end}, **options)
    assert [(step.step, step.call, step.guidance_scale) for step in steps] == [
        (0, "cond", 5.0),
        (0, "uncond", 5.0),
        (1, "cond", 1.0),
        (2, "cond", 1.0),
    ]


def test_models_of_several_sizes_are_not_steps_of_one_stored_video(tmp_path: Path) -> None:
    make = lambda: tiny.wan(boundary_ratio=0.9, second={"num_layers": 2, "num_attention_heads": 1})
    steps = captured(make())
    assert [step.maps["flower"].shape[:2] for step in steps] == [(3, 2), (2, 1), (2, 1)]
    path = tmp_path / "maps.store"
    with pytest.raises(ValueError, match="transformer 3 blocks of 2 heads and transformer_2 2 blocks of 1 heads"):
        captured(make(), store=path)
    chosen = captured(make(), store=path, blocks=[1], heads=[0])
    for step, other in zip(chosen, steps, strict=True):
        assert torch.equal(step.maps["flower"], other.maps["flower"][[1]][:, [0]])
    with pytest.raises(ValueError, match=r"blocks: \[2\] are not among the model's, 0 to 1"):
        captured(make(), blocks=[2])


def test_a_grid_that_changes_in_a_run_is_an_error() -> None:
    call = {**CALL, "image": RED, "enable_temporal_reasoning": True, "num_temporal_reasoning_steps": 2}
    assert [step.step for step in captured(tiny.chronoedit(), call=call, steps=[0, 1])] == [0, 1]
    with pytest.raises(RuntimeError, match=r"grid \(2, 2, 3\) at step 2, and had \(3, 2, 3\) before"):
        captured(tiny.chronoedit(), call=call)


@pytest.mark.parametrize("scheduler", ["the same", "its own"])
@pytest.mark.parametrize("before", [False, True])
def test_another_pipeline_of_the_same_model_is_an_error(scheduler: str, before: bool) -> None:
    pipe = tiny.wan()
    parts = dict(pipe.components) if scheduler == "the same" else {**pipe.components, "scheduler": tiny.unipc()}
    other = diffusers.WanPipeline(**parts)
    with attnkit.capture(pipe, words="flower", on_step=lambda step: None):
        if before:
            pipe(prompt=PROMPT, **CALL)
        with pytest.raises(RuntimeError, match="does another pipeline that has the same model run"):
            other(prompt="a cat", **CALL)


def test_a_model_that_is_exchanged_or_compiled_since_is_an_error() -> None:
    pipe = tiny.wan()
    with attnkit.capture(pipe, words="flower", on_step=print):
        model, pipe.transformer = pipe.transformer, tiny.transformer()
        with pytest.raises(RuntimeError, match="transformer is another model than when the capture began"):
            pipe(prompt=PROMPT, **CALL)
        pipe.transformer = torch.compile(model, backend="eager")
        with pytest.raises(RuntimeError, match="transformer was compiled since the capture began"):
            pipe(prompt=PROMPT, **CALL)


def test_a_pipeline_is_captured_once_at_a_time() -> None:
    pipe = tiny.wan()
    first, second = (attnkit.capture(pipe, words=word, on_step=lambda step: None) for word in ("flower", "tree"))
    with first, pytest.raises(RuntimeError, match="WanPipeline is being captured already"), second:
        pass
    with second:
        pipe(prompt=PROMPT, **CALL)
    assert second.videos == ["prompt_000_vid001"]


def test_a_call_of_an_unknown_name_is_an_error() -> None:
    need("cache_context")
    pipe = tiny.wan()
    with attnkit.capture(pipe, words="flower", on_step=print):
        context = pipe.transformer.cache_context
        pipe.transformer.__dict__["cache_context"] = lambda call, *args, **kwargs: context("pred_" + call)
        with pytest.raises(RuntimeError, match="calls transformer for 'pred_cond'; expected cond or uncond"):
            pipe(prompt=PROMPT, **CALL)
        pipe.transformer.__dict__["cache_context"] = context


@pytest.mark.parametrize("kind", ["", "ImageToVideo", "VideoToVideo"])
def test_diffusion_forcing_is_refused_by_name(kind: str) -> None:
    name = f"SkyReelsV2DiffusionForcing{kind}Pipeline"
    with pytest.raises(TypeError, match=f"{name} cannot be captured: each frame has a timestep of its own"):
        captured(tiny.skyreels(name))


def test_modular_pipelines_and_segments_are_refused_by_name() -> None:
    need("WanModularPipeline", "WanAnimatePipeline")
    from diffusers.modular_pipelines.wan import WanBlocks

    with pytest.raises(TypeError, match="WanModularPipeline cannot be captured: .* make a pipeline such as diffusers"):
        captured(WanBlocks().init_pipeline())
    animate = object.__new__(diffusers.WanAnimatePipeline)
    with pytest.raises(TypeError, match="WanAnimatePipeline cannot be captured: a video is made in segments"):
        captured(animate)
