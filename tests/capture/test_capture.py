"""Maps that are captured, against softmaxes that are computed here, in float64, with all keys and no tricks."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import attnkit
import diffusers
import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from tiny import CALL, GRID, PROMPT, need, seeded

FLOWER, TREE = [1], [4]


class BruteForce:
    """Whole softmaxes of one of the calls, by wrapping the attention processors; calls are told by their text."""

    def __init__(self, pipe: Any, wanted: str = "cond") -> None:
        self.maps: list[dict[int, torch.Tensor]] = []
        self._wanted, self._is_wanted = wanted, False
        self._texts: dict[str, torch.Tensor | None] = {}
        self._encode = pipe.encode_prompt
        pipe.encode_prompt = self._encoding
        for name in ("transformer", "transformer_2"):
            model = getattr(pipe, name, None)
            if model is not None:
                model.register_forward_pre_hook(self._begin, with_kwargs=True)
                for number, block in enumerate(model.blocks):
                    block.attn2.processor = self._processor(number, block.attn2.processor)

    def _encoding(self, *args: Any, **kwargs: Any) -> Any:
        encoded = self._encode(*args, **kwargs)
        self._texts = dict(zip(("cond", "uncond"), encoded))
        return encoded

    def _begin(self, model: Any, args: Any, kwargs: dict[str, Any]) -> None:
        text = kwargs["encoder_hidden_states"]
        expected = self._texts[self._wanted]
        self._is_wanted = expected is not None and torch.equal(text, expected.to(text))
        if self._is_wanted:
            self.maps.append({})

    def _processor(self, number: int, original: Any) -> Any:
        def process(attention: Any, hidden: Any, text: Any = None, *args: Any, **kwargs: Any) -> Any:
            text = kwargs.pop("encoder_hidden_states", text)
            if self._is_wanted:
                of_text = text[:, -512:] if attention.add_k_proj is not None else text
                query = attention.norm_q(attention.to_q(hidden))
                key = attention.norm_k(attention.to_k(of_text))
                if torch.is_autocast_enabled("cpu"):
                    query, key = query.to(torch.bfloat16), key.to(torch.bfloat16)
                query, key = (x.double().unflatten(2, (attention.heads, -1)).transpose(1, 2) for x in (query, key))
                with torch.autocast("cpu", enabled=False):
                    logits = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
                self.maps[-1][number] = logits.softmax(-1)
            return original(attention, hidden, text, *args, **kwargs)

        return process

    def step(self, step: int, video: int = 0) -> torch.Tensor:
        """`[block, head, spatial, text]`"""
        return torch.stack([maps[video] for _, maps in sorted(self.maps[step].items())])


IMAGE = {"image": Image.new("RGB", (48, 32), "red")}
#: Of twice as many pixels to a position.
WIDE = {"height": 64, "width": 96}
PIPELINES: dict[str, Any] = {
    "WAN 2.1": (tiny.wan, {}),
    "WAN 2.1, Euler": (lambda: tiny.wan(scheduler=tiny.euler()), {}),
    "WAN 2.2": (lambda: tiny.wan(boundary_ratio=0.9), {}),
    "WAN 2.1 I2V": (tiny.wan_i2v, IMAGE),
    "WAN 2.2, 5B": (tiny.wan_5b, WIDE),
    "WAN 2.2, 5B I2V": (lambda: tiny.wan_5b("WanImageToVideoPipeline"), {**WIDE, **IMAGE}),
    "VACE": (tiny.wan_vace, {}),
    "SkyReels-V2": (tiny.skyreels, {}),
    "SkyReels-V2 I2V": (lambda: tiny.skyreels("SkyReelsV2ImageToVideoPipeline"), IMAGE),
    "ChronoEdit": (tiny.chronoedit, {**IMAGE, "enable_temporal_reasoning": True, "num_temporal_reasoning_steps": 9}),
    "bfloat16": (lambda: tiny.wan(torch.bfloat16), {}),
    "without guidance": (tiny.wan, {"guidance_scale": 1.0}),
}


@pytest.mark.parametrize("kind", PIPELINES)
def test_maps_are_the_softmax_and_the_output_is_untouched(kind: str) -> None:
    make, more = PIPELINES[kind]
    call = {**CALL, **more}
    plain = make()(prompt=PROMPT, generator=seeded(), **call).frames
    steps: list[attnkit.CapturedStep] = []
    pipe = make()
    with attnkit.capture(pipe, words=["flower", "tree"], dtype="float32", on_step=steps.append):
        captured = pipe(prompt=PROMPT, generator=seeded(), **call).frames
    assert torch.equal(plain, captured)
    assert [step.step for step in steps] == [0, 1, 2]
    exact = make()
    brute = BruteForce(exact)
    exact(prompt=PROMPT, generator=seeded(), **call)
    tolerance = 1e-5 if kind != "bfloat16" else 1e-4
    for step in steps:
        assert step.grid == GRID and step.seed == 0
        assert step.video_size == (call["num_frames"], call["height"], call["width"])
        for word, positions in (("flower", FLOWER), ("tree", TREE)):
            found, expected = step.maps[word].double(), brute.step(step.step)[..., positions]
            assert found.shape == expected.shape == (3, 2, 18, 1)
            assert (found - expected).abs().max() < tolerance
            assert expected.std() > 1e-3, "a test of uniform maps would prove nothing"
    if kind == "WAN 2.2":
        assert [step.model for step in steps] == ["transformer", "transformer_2", "transformer_2"]


def captured(
    pipe: Any, prompt: Any = PROMPT, call: dict[str, Any] = CALL, **options: Any
) -> list[attnkit.CapturedStep]:
    """The steps of a run, float32."""
    steps: list[attnkit.CapturedStep] = []
    with attnkit.capture(pipe, **{"words": ["flower"], "dtype": "float32", "on_step": steps.append, **options}):
        pipe(prompt=prompt, **{"generator": seeded(), **call})
    return steps


class OfAnotherKind(diffusers.WanPipeline):
    """A pipeline whose order of calls nobody knows."""


def test_where_the_calls_have_no_names_the_first_is_the_conditional_one() -> None:
    expected = captured(tiny.wan(), calls=["cond", "uncond"], groups=True)
    pipe = tiny.wan()
    # As before diffusers 0.35.
    nameless = lambda *_, **__: contextlib.nullcontext()
    pipe.transformer.__dict__["cache_context"] = nameless
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(pipe.transformer), "cache_context", nameless, raising=False)
        steps: list[attnkit.CapturedStep] = []
        options = {"words": ["flower"], "calls": ["cond", "uncond"], "groups": True, "dtype": "float32"}
        with attnkit.capture(pipe, on_step=steps.append, **options):
            pipe.transformer.__dict__["cache_context"] = nameless
            pipe(prompt=PROMPT, generator=seeded(), **CALL)
            pipe(prompt=PROMPT, generator=seeded(), **CALL)
    assert [step.call for step in steps] == ["cond", "uncond"] * 6
    for step, other in zip(steps, expected * 2, strict=True):
        assert all(torch.equal(step.maps[word], other.maps[word]) for word in other.maps)
    pipe.__class__ = OfAnotherKind
    with attnkit.capture(pipe, words=["flower"], on_step=print):
        pipe.transformer.__dict__["cache_context"] = nameless
        with pytest.raises(RuntimeError, match="which call of transformer"):
            pipe(prompt=PROMPT, **CALL)


def test_a_step_cache_is_a_recorded_fact(tmp_path: Path) -> None:
    need("FirstBlockCacheConfig")
    steps = {"num_inference_steps": 6}
    pipe = tiny.wan()
    pipe.transformer.enable_cache(diffusers.FirstBlockCacheConfig(threshold=1e6))
    cached = captured(pipe, call={**CALL, **steps})
    assert [step.skipped for step in cached] == [[]] + [[1, 2]] * 5
    for step in cached:
        assert not step.maps["flower"][0].isnan().any()
        assert step.maps["flower"][step.skipped].isnan().all()
    for average, of_blocks in [("blocks", slice(0, 1)), (["blocks", "heads"], slice(0, 1))]:
        pipe = tiny.wan()
        pipe.transformer.enable_cache(diffusers.FirstBlockCacheConfig(threshold=1e6))
        means = captured(pipe, call={**CALL, **steps}, average=average)
        for step, mean in list(zip(cached, means, strict=True))[1:]:
            expected = step.maps["flower"][of_blocks]
            expected = expected if average == "blocks" else expected.mean(1, keepdim=True)
            assert mean.skipped == [1, 2] and torch.allclose(mean.maps["flower"], expected, atol=1e-7)
    path = tmp_path / "maps.store"
    pipe = tiny.wan()
    pipe.transformer.enable_cache(diffusers.FirstBlockCacheConfig(threshold=1e6))
    with attnkit.capture(pipe, path, ["flower"], groups=True):
        pipe(prompt=PROMPT, **CALL)
    rows = attnkit.open(path).sql("SELECT DISTINCT step, skipped FROM steps ORDER BY step")
    assert rows["skipped"].tolist() == [None, [1, 2], [1, 2]]
    blocks = attnkit.open(path).sql(
        "SELECT step, COUNT(*) AS n, MAX(block) AS last FROM text GROUP BY step ORDER BY step"
    )
    assert (blocks["n"].tolist(), blocks["last"].tolist()) == ([6, 2, 2], [2, 0, 0])


KILLED = """
import os, signal, sys
import attnkit, tiny
pipe = tiny.wan()
def end(pipe, step, timestep, given):
    if step == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return given
with attnkit.capture(pipe, sys.argv[1], ["flower"]):
    pipe(prompt=tiny.PROMPT, callback_on_step_end=end, **{**tiny.CALL, "num_inference_steps": 5})
"""


def test_a_killed_generator_loses_only_what_was_on_its_way(tmp_path: Path) -> None:
    path = tmp_path / "maps.store"
    # Beside `tiny`, and with the attnkit of these tests.
    search = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(path)], env={**os.environ, "PYTHONPATH": search}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    store = attnkit.open(path)
    assert store.verify().ok
    steps = store.list("steps", columns=["step"]).to_polars()["step"].to_list()
    # The last may have been on its way.
    assert steps in ([0, 1], [0, 1, 2])


ENDLESS = """
import sys
import attnkit, tiny
pipe = tiny.wan()
def end(pipe, step, timestep, given):
    print(step, flush=True)
    return given
with attnkit.capture(pipe, sys.argv[1], ["flower", "tree"], groups=True, video_id="v"):
    call = {**tiny.CALL, "num_inference_steps": 40}
    pipe(prompt=tiny.PROMPT, callback_on_step_end=end, generator=tiny.seeded(), **call)
"""


@pytest.mark.parametrize("seed", range(3))
def test_wherever_a_generator_is_killed_all_but_the_last_steps_are_there(seed: int, tmp_path: Path) -> None:
    path, random = tmp_path / "maps.store", np.random.default_rng(seed)
    search = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [sys.executable, "-c", ENDLESS, str(path)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": search}, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(int(random.integers(2, 12))):
        process.stdout.readline()
    time.sleep(float(random.uniform(0, 0.05)))
    process.kill()
    ended = [int(line) for line in process.communicate()[0].split()]
    store = attnkit.open(path)
    of_steps = "SELECT step, COUNT(*) AS words FROM steps GROUP BY step ORDER BY step"
    # What had ended before the last of those that were said to have ended is there.
    assert not ended or len(store.sql(of_steps)) >= ended[-1]
    # A commit may have been killed between the renames of its tables: that is seen, and finished.
    assert all("of another commit" in fault.error for fault in store.verify().faults)
    store.gc()
    store = attnkit.open(path)
    rows = store.sql(of_steps)
    steps, words = rows["step"].tolist(), set(rows["words"].tolist())
    text = store.sql("SELECT DISTINCT step FROM text ORDER BY step")["step"].tolist()
    assert store.verify().ok and words == {5} and steps == text == list(range(len(steps)))


def test_nothing_is_left_in_the_pipeline() -> None:
    pipe = tiny.wan()
    pipe(prompt=PROMPT, **CALL)
    before = (dict(vars(pipe)), dict(vars(pipe.transformer)))
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in pipe.transformer.modules()]
    with attnkit.capture(pipe, words=["flower"], on_step=lambda step: None), pytest.raises(ZeroDivisionError):
        pipe(prompt=PROMPT, callback_on_step_end=lambda *_: 1 // 0, **CALL)
    assert vars(pipe).keys() == before[0].keys() and vars(pipe.transformer).keys() == before[1].keys()
    assert hooks == [len(one._forward_hooks) + len(one._forward_pre_hooks) for one in pipe.transformer.modules()]


def test_a_store_has_what_the_steps_had(tmp_path: Path) -> None:
    pipe, steps = tiny.wan(), []
    path = tmp_path / "maps.store"
    words = ["(flower:2.5)", "two people"]
    prompt = "two people and a flower"
    with attnkit.capture(pipe, path, words, on_step=steps.append, metadata={"note": "é"}) as capture:
        pipe(prompt=[prompt, "a flower and two people"], generator=[seeded(7), seeded(8)], **CALL)
    assert capture.videos == ["prompt_000_vid001", "prompt_001_vid001"]
    store = attnkit.open(path)
    rows = store.list("steps", sort=["video_id", "token", "step"]).to_polars()
    assert rows["video_id"].unique(maintain_order=True).to_list() == capture.videos
    assert rows["token"].unique(maintain_order=True).to_list() == ["flower", "two people"]
    assert rows["seed"].cast(int).to_list() == [7] * 6 + [8] * 6
    assert rows["weight"].to_list() == ([2.5] * 3 + [None] * 3) * 2
    assert rows["total_steps"].to_list() == [3] * 12
    assert rows["frames"].to_list() == [3] * 12 and rows["height"].to_list() == [2] * 12
    for step in steps:
        for word in ("flower", "two people"):
            stored = store.xarray(step.video_id, word)["attention"].sel(step=step.step).to_numpy()
            assert np.array_equal(stored.reshape(step.maps[word].shape), step.maps[word].float().numpy())
            assert step.maps[word].dtype == torch.float16
    assert steps[0].maps["two people"].shape == (3, 2, 18, 2)
    timesteps = rows.filter(rows["video_id"] == capture.videos[0])["timestep"].to_list()[:3]
    assert timesteps == [float(timestep) for timestep in pipe.scheduler.timesteps]
    assert store.verify().ok


def test_videos_are_numbered_behind_those_of_the_store(tmp_path: Path) -> None:
    pipe, path = tiny.wan(), tmp_path / "maps.store"
    with attnkit.capture(pipe, path, ["flower"]) as first:
        pipe(prompt=PROMPT, num_videos_per_prompt=2, **CALL)
        pipe(prompt="a red flower", **CALL)
    with attnkit.capture(pipe, path, ["flower"]) as second:
        pipe(prompt=["a flower", PROMPT], **CALL)
    assert first.videos == ["prompt_000_vid001", "prompt_000_vid002", "prompt_001_vid001"]
    assert second.videos == ["prompt_002_vid001", "prompt_000_vid003"]
    with attnkit.capture(pipe, path, ["flower"], video_id=lambda prompt, number: f"v{number} {prompt}") as third:
        pipe(prompt=PROMPT, **CALL)
    assert third.videos == [f"v0 {PROMPT}"]
    assert len(attnkit.open(path).info().videos) == 6


def test_what_is_chosen_is_what_is_captured(tmp_path: Path) -> None:
    every: list[attnkit.CapturedStep] = []
    pipe = tiny.wan()
    with attnkit.capture(pipe, words=["flower"], dtype="float32", on_step=every.append):
        pipe(prompt=PROMPT, generator=seeded(), **CALL)

    def captured(**options: Any) -> list[attnkit.CapturedStep]:
        steps: list[attnkit.CapturedStep] = []
        with attnkit.capture(pipe, words=["flower"], dtype="float32", on_step=steps.append, **options):
            pipe(prompt=PROMPT, generator=seeded(), **CALL)
        return steps

    some = captured(blocks=[2, 0], heads=[1], steps=[2, 1])
    assert [step.step for step in some] == [1, 2]
    assert (some[0].blocks, some[0].heads) == ([0, 2], [1])
    assert torch.equal(some[1].maps["flower"], every[2].maps["flower"][[0, 2]][:, [1]])
    assert [step.step for step in captured(every=2)] == [0, 2]
    for average, axes in (("blocks", (0,)), ("heads", (1,)), (("blocks", "heads"), (0, 1))):
        mean = captured(average=average)[1].maps["flower"]
        expected = every[1].maps["flower"].double().mean(axes, keepdim=True)
        assert mean.shape == expected.shape
        assert (mean - expected).abs().max() < 1e-7
    path = tmp_path / "some.store"
    with attnkit.capture(pipe, path, ["flower"], blocks=[2, 0], heads=[1]):
        pipe(prompt=PROMPT, generator=seeded(), **CALL)
    heads = attnkit.open(path).list("heads", where="step = 0").to_polars()
    assert heads.select("block", "head").rows() == [(0, 1), (2, 1)]


def test_embeddings_stand_for_a_prompt_or_have_positions() -> None:
    pipe, steps = tiny.wan(), []
    embeds, negative = pipe.encode_prompt(prompt=PROMPT, max_sequence_length=512)
    given = {"prompt_embeds": embeds, "negative_prompt_embeds": negative, "generator": seeded(), **CALL}
    with attnkit.capture(pipe, words=["flower"], prompt=PROMPT, on_step=steps.append):
        pipe(**given)
    with attnkit.capture(pipe, words=[], positions={"mine": [1]}, on_step=steps.append):
        pipe(**{**given, "generator": seeded()})
    assert torch.equal(steps[0].maps["flower"], steps[3].maps["mine"])
    assert steps[3].prompt is None
    with attnkit.capture(pipe, words=["flower"], on_step=steps.append), pytest.raises(ValueError, match="prompt="):
        pipe(**given)
    with attnkit.capture(pipe, words=["flower"], prompt=PROMPT, on_step=steps.append) as capture:
        embeds, _ = pipe.encode_prompt(prompt=PROMPT, max_sequence_length=512)
        pipe(**{**given, "prompt_embeds": embeds})
    assert capture.videos == ["prompt_000_vid001"]


def test_a_seed_is_of_a_fresh_generator_of_one_video() -> None:
    pipe, steps = tiny.wan(), []
    used = seeded(3)
    with attnkit.capture(pipe, words=["flower"], steps=[0], on_step=steps.append):
        pipe(prompt=PROMPT, generator=used, **CALL)
        pipe(prompt=PROMPT, generator=used, **CALL)
        pipe(prompt=PROMPT, **CALL)
        pipe(prompt=PROMPT, num_videos_per_prompt=2, generator=seeded(3), **CALL)
    assert [step.seed for step in steps] == [3, None, None, None, None]


def test_words_default_to_those_in_parentheses_and_each_occurrence_can_be_had() -> None:
    pipe, steps = tiny.wan(), []
    with attnkit.capture(pipe, on_step=steps.append):
        pipe(prompt="a (flower:2.5) near a tree", **CALL)
    assert [(word.word, word.weight, word.token_texts) for word in steps[0].words] == [("flower", 2.5, ["flower"])]
    both: list[attnkit.CapturedStep] = []
    with attnkit.capture(pipe, words=["a"], occurrence="all", on_step=both.append):
        pipe(prompt=PROMPT, **CALL)
    assert both[0].words[0].positions == [0, 3]


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"words": ["cat"]}, PROMPT, "has no word 'cat'"),
    ({"words": ["flower"]}, "a Flower", "did you mean 'Flower'"),
    ({"words": ["flower"]}, "a sunflower", "'flower' is a part of another word"),
    ({"words": ["a"], "occurrence": 2}, PROMPT, "2 times, and 2 is asked for"),
    ({}, PROMPT, "no word in parentheses"),
    ({"words": ["flower", "flower"]}, PROMPT, "flower is asked for twice"),
    ({"words": ["flower"], "video_id": "v"}, [PROMPT, PROMPT], "'v' is given to two videos"),
    ({"words": ["flower"], "video_id": ["v"]}, [PROMPT, PROMPT], "1 ids, and there is a further video"),
]


@pytest.mark.parametrize("options, prompt, said", REFUSED)
def test_what_the_prompt_lacks_is_refused_before_anything_is_computed(
    options: dict[str, Any], prompt: Any, said: str
) -> None:
    pipe = tiny.wan()
    pipe.transformer.forward = None
    with attnkit.capture(pipe, on_step=print, **options), pytest.raises(ValueError, match=said):
        pipe(prompt=prompt, **CALL)


def test_what_is_not_understood_is_refused_by_name(tmp_path: Path) -> None:
    pipe = tiny.wan()
    for options, said in [
        ({"blocks": [3]}, "blocks: .3. are not among the model's, 0 to 2"),
        ({"heads": []}, "heads"),
        ({"average": "tokens"}, "none of blocks, heads"),
        ({"dtype": "bfloat16"}, "neither float16 nor float32"),
    ]:
        with pytest.raises(ValueError, match=said), attnkit.capture(pipe, words=["flower"], on_step=print, **options):
            pass
    with pytest.raises(ValueError, match="on_step"):
        attnkit.capture(pipe, words=["flower"])
    with pytest.raises(TypeError, match="no encode_prompt"), attnkit.capture(object(), tmp_path / "s", ["flower"]):
        pass
    pipe.transformer.blocks[1].attn2.norm_k = None
    with pytest.raises(TypeError, match=r"blocks \[1\]"), attnkit.capture(pipe, tmp_path / "s", ["flower"]):
        pass
    pipe = tiny.wan()
    pipe.transformer.__class__ = type("OtherTransformer", (type(pipe.transformer),), {})
    with pytest.raises(TypeError, match="OtherTransformer"), attnkit.capture(pipe, tmp_path / "s", ["flower"]):
        pass


def test_a_block_that_does_not_run_is_an_error() -> None:
    pipe = tiny.wan()
    block = pipe.transformer.blocks[1]
    block.forward = lambda hidden, *args, **kwargs: hidden
    with attnkit.capture(pipe, words=["flower"], on_step=print), pytest.raises(RuntimeError, match=r"blocks \[1\]"):
        pipe(prompt=PROMPT, **CALL)


def test_a_store_that_cannot_be_written_ends_the_generation(tmp_path: Path) -> None:
    pipe = tiny.wan()
    path = tmp_path / "maps.store"
    with attnkit.capture(pipe, path, ["flower"], video_id="v"):
        pipe(prompt=PROMPT, generator=seeded(0), **CALL)
    with pytest.raises(attnkit.WriteError), attnkit.capture(pipe, path, ["flower"], video_id="v"):
        pipe(prompt=PROMPT, generator=seeded(1), **CALL)
    assert attnkit.open(path).verify().ok


def test_where_nothing_is_captured_it_is_said(tmp_path: Path) -> None:
    pipe = tiny.wan()
    with pytest.warns(UserWarning, match="WanPipeline was not called in the block"):
        with attnkit.capture(pipe, tmp_path / "s", ["flower"]):
            pass
    with pytest.raises(ValueError, match=r"steps: \[3, 7\] are beyond the schedule, which has 3"):
        with attnkit.capture(pipe, tmp_path / "s", ["flower"], steps=[1, 3, 7]):
            pipe(prompt=PROMPT, **CALL)


def test_a_word_of_several_pieces_may_be_one_token_its_share(tmp_path: Path) -> None:
    prompt = "a sunflower near a tree"
    each = captured(tiny.wan(), prompt, words=["sunflower", "tree"])
    summed = captured(tiny.wan(), prompt, words=["sunflower", "tree"], pooling="sum")
    for step, other in zip(summed, each, strict=True):
        assert [word.pooling for word in step.words] == ["sum", "each"]
        assert step.maps["sunflower"].shape == (3, 2, 18, 1) and other.maps["sunflower"].shape == (3, 2, 18, 2)
        assert torch.allclose(step.maps["sunflower"], other.maps["sunflower"].sum(-1, keepdim=True), atol=1e-6)
        assert torch.equal(step.maps["tree"], other.maps["tree"])
    ratios = {}
    for pooling in ("each", "sum"):
        path = tmp_path / pooling
        with attnkit.capture(tiny.wan(), path, ["sunflower", "tree"], pooling=pooling, dtype="float32") as capture:
            capture._pipe(prompt=prompt, generator=seeded(), **CALL)
        store = attnkit.open(path)
        answer = store.compare("token", align="mean", metric="mass_ratio")
        ratios[pooling] = float(answer["value"][0])
        assert ("share is their sum" in " ".join(answer.notes)) == (pooling == "each")
        rows = store.sql("SELECT DISTINCT token, pieces, pooling FROM steps ORDER BY token")
        assert rows["pieces"].tolist() == [2, 1] and rows["pooling"].tolist() == [pooling, "each"]
    assert ratios["sum"] == pytest.approx(2 * ratios["each"])


@pytest.mark.parametrize(
    "options, prompt", [({"words": ["(flower:2.5)"]}, PROMPT), ({"words": None}, "a (flower:2.5)")]
)
def test_weights_that_do_not_act_are_said(options: dict[str, Any], prompt: str) -> None:
    with pytest.warns(UserWarning, match=r"the weights of \(flower:2.5\) are stored and do not act"):
        captured(tiny.wan(), prompt, **options)


def test_a_word_that_is_cut_off_is_told_from_one_that_is_not_there() -> None:
    for length, said in [(5, "'flower' is cut off, as the pipeline takes 5 pieces"), (512, "has no word 'cat'")]:
        word = "flower" if length == 5 else "cat"
        with pytest.raises(ValueError, match=said):
            captured(tiny.wan(), "a red tree and a flower", {**CALL, "max_sequence_length": length}, words=[word])


def test_arguments_and_paths_that_cannot_be_are_refused_by_name(tmp_path: Path) -> None:
    pipe = tiny.wan()
    (tmp_path / "file").write_text("x")
    (tmp_path / "dump" / "v").mkdir(parents=True)
    prompts = attnkit.expand_prompts("a (flower:2.5)")
    for error, said, options in [
        (TypeError, "steps: slice", {"steps": slice(0, 1)}),
        (TypeError, "variation: str is none", {"variation": "a (flower:2.5)"}),
        (TypeError, "variation: Prompts is none", {"variation": prompts}),
        (TypeError, "on_step: int is no function", {"on_step": 1}),
        (ValueError, "pooling: 'mean' is neither", {"pooling": "mean"}),
        (ValueError, "file is a file", {"store": tmp_path / "file"}),
        (ValueError, "other things in it", {"store": tmp_path / "dump"}),
    ]:
        with pytest.raises(error, match=said):
            attnkit.capture(pipe, **{"store": tmp_path / "s", "words": ["flower"], **options})
    step = captured(pipe, blocks=1, heads=0, steps=2)[0]
    assert step.maps["flower"].shape == (1, 1, 18, 1) and (step.blocks, step.heads, step.step) == ([1], [0], 2)
    assert len(repr(step)) < 1500 and step == step and step != captured(pipe, steps=2)[0] and len({step}) == 1


def test_negative_prompts_are_told(tmp_path: Path) -> None:
    pipe, path = tiny.wan(), tmp_path / "maps.store"
    for number, negative in enumerate(["red", "blue"]):
        with attnkit.capture(pipe, path, ["flower"], video_id=f"v{number}"):
            pipe(prompt=PROMPT, negative_prompt=negative, generator=seeded(), **CALL)
    with attnkit.capture(pipe, path, ["flower"], video_id="v2"):
        pipe(prompt=PROMPT, negative_prompt="red", guidance_scale=1.0, **CALL)
    rows = attnkit.open(path).sql("SELECT DISTINCT video_id, negative_prompt AS n FROM steps ORDER BY video_id")
    assert rows["n"].tolist() == ["red", "blue", None]


@pytest.mark.parametrize("is_used", [False, True])
def test_a_text_that_is_encoded_in_mid_run_is_not_the_runs(is_used: bool) -> None:
    def end(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        if step == 0:
            other = pipe.encode_prompt("two people and a red cat", max_sequence_length=512)[0]
            return {"prompt_embeds": other} if is_used else given
        return given

    pipe, steps = tiny.wan(), []
    with attnkit.capture(pipe, words=["flower"], on_step=steps.append, dtype="float32") as capture:
        run = lambda: pipe(prompt=PROMPT, generator=seeded(), callback_on_step_end=end, **CALL)
        if is_used:
            with pytest.raises(RuntimeError, match="the text of call cond is another one"):
                run()
            return
        run()
    assert capture.videos == ["prompt_000_vid001"] and {step.prompt for step in steps} == {PROMPT}
    for step, other in zip(steps, captured(tiny.wan()), strict=True):
        assert torch.equal(step.maps["flower"], other.maps["flower"])


def test_embeddings_that_change_in_place_are_looked_at_again() -> None:
    pipe, steps = tiny.wan(), []
    first, second = (
        pipe.encode_prompt(prompt, max_sequence_length=512, do_classifier_free_guidance=False)[0]
        for prompt in (PROMPT, "a red flower near two people and a blue tree")
    )
    buffer = first.clone()
    call = {**CALL, "prompt_embeds": buffer, "negative_prompt": ""}
    with attnkit.capture(pipe, words=[], positions={"x": [1]}, on_step=steps.append, dtype="float32"):
        pipe(generator=seeded(), **call)
        buffer.copy_(second)
        pipe(generator=seeded(), **call)
    expected = captured(tiny.wan(), "a red flower near two people and a blue tree", words=["red"])
    for step, other in zip(steps[3:], expected, strict=True):
        assert torch.allclose(step.maps["x"], other.maps["red"], atol=1e-5)

    def end(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        buffer.copy_(first)
        return given

    with attnkit.capture(pipe, words=[], positions={"x": [1]}, on_step=print):
        with pytest.raises(RuntimeError, match="is another one than at the step before"):
            pipe(callback_on_step_end=end, **call)


def test_a_prompt_that_embeddings_do_not_stand_for_is_refused() -> None:
    pipe = tiny.wan()
    tree, flower = (pipe.encode_prompt(prompt, max_sequence_length=512)[0] for prompt in ("a tree", PROMPT))
    for embeds, prompt, said in [
        (tree, PROMPT, "has 6 pieces, its embeddings have 3 rows"),
        (torch.cat([flower, tree]), PROMPT, "embeddings that are not alike; expected one for each"),
    ]:
        with attnkit.capture(pipe, words=["tree"], prompt=prompt, on_step=print), pytest.raises(ValueError, match=said):
            pipe(prompt_embeds=embeds, negative_prompt="", **CALL)
    steps: list[attnkit.CapturedStep] = []
    with attnkit.capture(pipe, words=["tree"], prompt=[PROMPT, "a tree"], on_step=steps.append):
        pipe(prompt_embeds=torch.cat([flower, tree]), negative_prompt_embeds=torch.cat([tree, tree]), **CALL)
    assert [(step.prompt, step.words[0].positions) for step in steps[:2]] == [(PROMPT, [4]), ("a tree", [1])]


def test_a_default_word_is_the_one_in_parentheses_and_parentheses_may_be_part_of_a_word() -> None:
    pipe = tiny.wan()
    with pytest.warns(UserWarning, match="do not act"):
        [step, *_] = captured(pipe, "a flower near a (flower:2.5)", words=None)
    assert step.words[0].token_texts == ["flower"] and step.words[0].positions[0] > 4
    [step, *_] = captured(pipe, "a flower near a (flower) tree", words=[r"(\(flower\):2)"])
    assert step.words[0].word == "(flower)" and len(step.words[0].positions) == 3


def test_captures_that_are_made_together_have_ids_of_their_own(tmp_path: Path) -> None:
    pipe, path = tiny.wan(), tmp_path / "maps.store"
    captures = [attnkit.capture(pipe, path, [word]) for word in ("flower", "tree")]
    for capture in captures:
        with capture:
            pipe(prompt=PROMPT, **CALL)
    assert [capture.videos for capture in captures] == [["prompt_000_vid001"], ["prompt_000_vid002"]]
    rows = attnkit.open(path).sql("SELECT DISTINCT video_id, token FROM steps ORDER BY video_id")
    assert rows["token"].tolist() == ["flower", "tree"]


def test_a_video_is_not_gone_on_with_by_another_schedule(tmp_path: Path) -> None:
    path = tmp_path / "maps.store"
    options: dict[str, Any] = {"store": path, "words": ["flower"], "video_id": "v"}
    with attnkit.capture(tiny.wan(), steps=[0], **options) as capture:
        capture._pipe(prompt=PROMPT, generator=seeded(), **CALL)
    for pipe, more, said in [(tiny.wan(), {"num_inference_steps": 6}, "total_steps 3, and this is 6")]:
        with pytest.raises(attnkit.WriteError, match=said), attnkit.capture(pipe, **options):
            pipe(prompt=PROMPT, generator=seeded(), **{**CALL, **more})


def test_what_attnkit_tells_cannot_be_said_otherwise(tmp_path: Path) -> None:
    for key in ("block_idx", "skipped", "positions"):
        with pytest.raises(ValueError, match=f"metadata: '{key}' is what attnkit tells itself"):
            attnkit.capture(tiny.wan(), tmp_path / "s", ["flower"], metadata={key: [1]})
