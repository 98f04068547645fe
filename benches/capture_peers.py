"""What is captured of a pipeline in one way, for capture.py to compare.

Usage: capture_peers.py versions PEER
       capture_peers.py WAY SCENE PEER WORK RUNS

PEER is the directory that attention-map-diffusers was installed into. Prints one line, {"seconds": of each run,
"own_seconds": those of them that are the capture's own, "blocks_seconds": of all blocks without them, "peak_bytes": N,
"map_error": E, "mean_error": E}, or {"missing": why}. Errors are the largest ones of a share, against softmaxes of the
conditional call in float64. Seconds are of the CPU, with one thread; peak memory is what the process needed beyond what
it had before the runs. The pipelines are those of the tests of capture: torch and diffusers are needed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/capture"))

import tiny
import torch
from diffusers import WanTransformer3DModel

PROMPT = "a flower near a tree and two people"
#: Words and their rows of the text.
WORDS = {"flower": 1, "near": 2, "tree": 4, "two": 6, "people": 7}
VIDEO = "prompt_000_vid001"
#: Of 6 x 26 x 30, that is 4,680 positions.
SIZE = {"height": 416, "width": 480, "num_frames": 21, "output_type": "latent"}
MEMORY_UNIT = 1 if sys.platform == "darwin" else 1024

#: `[block, head, spatial, word]` of each step.
Maps = list[torch.Tensor]


def main(way: str, *about: str) -> None:
    if way == "versions":
        print(json.dumps(versions(Path(about[0]))))
    else:
        scene, peer, work, runs = about
        print(json.dumps(measure(way, scene, Path(peer), Path(work), int(runs))))


def tiny_pipeline() -> tuple[Any, dict[str, Any]]:
    """The tests' pipeline: 3 blocks of 2 heads of 12; both calls of guidance, 3 steps."""
    return tiny.wan(), {**SIZE, "num_inference_steps": 3}


def one_block() -> tuple[Any, dict[str, Any]]:
    """A block of WAN 2.1 1.3B, 12 heads of 128, and one call of it."""
    torch.manual_seed(0)
    model = WanTransformer3DModel(
        num_attention_heads=12, attention_head_dim=128, ffn_dim=8960, num_layers=1, text_dim=32
    ).eval()
    with torch.no_grad():
        for norm in (model.blocks[0].attn2.norm_q, model.blocks[0].attn2.norm_k):
            norm.weight.copy_(1 + torch.rand_like(norm.weight))
    pipe = tiny.wan()
    pipe.transformer = model
    return pipe, {**SIZE, "num_inference_steps": 1, "guidance_scale": 1.0}


SCENES: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {"pipeline": tiny_pipeline, "block": one_block}


def measure(way: str, scene: str, peer: Path, work: Path, runs: int) -> dict[str, Any]:
    pipe, call = SCENES[scene]()
    generate = lambda **more: pipe(prompt=PROMPT, generator=tiny.seeded(), **{**call, **more}).frames
    sys.path.append(str(peer))
    clock, store = Clock(pipe.transformer), work / "maps.store"
    capture = ways_of(pipe, generate, clock, store)[way]
    results: dict[str, list[float]] = {"seconds": [], "own_seconds": [], "blocks_seconds": []}
    # What only a first run makes.
    generate(num_inference_steps=1)
    forget_peak()
    before = peak_bytes()
    for _ in range(runs):
        shutil.rmtree(store, ignore_errors=True)
        read = None
        clock.start()
        started = time.process_time()
        try:
            made, read = capture()
        except ImportError as missing:
            return {"missing": str(missing)}
        results["seconds"].append(time.process_time() - started)
        results["own_seconds"].append(clock.own)
        results["blocks_seconds"].append(clock.blocks_alone)
    peak = peak_bytes() - before
    exact, expected = softmaxes(pipe, generate)
    if not torch.equal(made, expected):
        raise SystemExit(f"{way}: the pipeline's output is another one")
    errors = (None, None) if read is None else errors_of(*read(), exact)
    return {**results, "peak_bytes": peak, "map_error": errors[0], "mean_error": errors[1]}


#: The pipeline's output; and what reads the maps, and their mean over steps, blocks and heads, `[spatial, word]`.
Captured = tuple[torch.Tensor, Callable[[], tuple[Maps, torch.Tensor]] | None]


def ways_of(
    pipe: Any, generate: Callable[..., torch.Tensor], clock: Clock, store: Path
) -> dict[str, Callable[[], Captured]]:
    def nothing() -> Captured:
        with clock.blocks():
            return generate(), None

    def attnkit(*, into: Path | None = None, groups: bool = False) -> Captured:
        import attnkit

        steps: list[attnkit.CapturedStep] = []
        options: dict[str, Any] = {"dtype": "float32", "groups": groups}
        options |= {"on_step": steps.append} if into is None else {"store": into}
        with clock.hooks(), attnkit.capture(pipe, words=list(WORDS), **options), clock.blocks():
            made = generate()
        if into is None:
            maps = [torch.cat([step.maps[word] for word in WORDS], -1) for step in steps]
            return made, lambda: (maps, means(maps))
        return made, lambda: read_store(into)

    def peer(mode: str) -> Captured:
        from attention_map_diffusers import AttentionCapture, AttentionCollector
        from attention_map_diffusers.visualization import _aggregate_compatible, _select_guidance_records

        # The same maps: of all steps, blocks and heads, and of the words alone.
        asked = {"timesteps": "all", "heads": "all", "key_indices": list(WORDS.values())}
        collect = clock.timed(AttentionCollector.capture_qk)
        with mock.patch.object(AttentionCollector, "capture_qk", collect), clock.hooks():
            with AttentionCapture(pipe, relations="video->text", mode=mode, **asked) as capture, clock.blocks():
                made = generate()
        records = clock.timed(capture.compute)().records

        def read() -> tuple[Maps, torch.Tensor]:
            # What its `save` makes pictures of.
            _, drawn, _ = _aggregate_compatible(_select_guidance_records(records, None), None)
            return conditional(records), drawn[0]

        return made, read

    return {
        "no capture": nothing,
        "attnkit.capture, to a function": attnkit,
        "attnkit.capture, into a store": partial(attnkit, into=store),
        "attnkit.capture, groups=True": partial(attnkit, groups=True),
        "attention-map-diffusers, fast": partial(peer, "fast"),
        "attention-map-diffusers, exact": partial(peer, "exact"),
    }


def read_store(path: Path) -> tuple[Maps, torch.Tensor]:
    import attnkit

    store = attnkit.open(path)
    words = [torch.from_numpy(store.xarray(VIDEO, word).attention.values).flatten(3, 5) for word in WORDS]
    averages = [store.average(token=word, over=["step", "block", "head"]).to_numpy() for word in WORDS]
    mean = torch.stack([torch.from_numpy(average).flatten() for average in averages], -1)
    return list(torch.cat(words, -1)), mean


def conditional(records: list[Any]) -> Maps:
    """Of each step what the records of its first call have: that WAN's is the conditional one, users have to know."""
    of_steps: dict[int, list[torch.Tensor]] = {}
    for record in records:
        if record.metadata["denoiser_call_index"] == 0:
            of_steps.setdefault(record.step_index, []).append(record.data[0])
    return [torch.stack(blocks) for _, blocks in sorted(of_steps.items())]


def means(maps: Maps) -> torch.Tensor:
    return torch.stack(maps).double().mean((0, 1, 2))


class Clock:
    """Seconds of the CPU in the blocks of a transformer, and of what a capture does.

    Attributes
    ----------
    own : float
        Those of the capture.
    blocks_alone : float
        Those of the blocks, without what the capture does in them.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.start()

    def start(self) -> None:
        self.own = self.blocks_alone = 0.0
        self._is_in_block = False

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, as a part of the capture."""

        def run(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                seconds = time.process_time() - started
                self.own += seconds
                self.blocks_alone -= seconds if self._is_in_block else 0.0

        return run

    @contextlib.contextmanager
    def hooks(self) -> Iterator[None]:
        """What is hooked into modules meanwhile is a part of the capture."""
        module = torch.nn.Module
        names = ("register_forward_pre_hook", "register_forward_hook")
        with contextlib.ExitStack() as stack:
            for name in names:
                register = getattr(module, name)

                def hooked(of: Any, hook: Any, *, register: Any = register, **more: Any) -> Any:
                    return register(of, self.timed(hook), **more)

                stack.enter_context(mock.patch.object(module, name, hooked))
            yield

    @contextlib.contextmanager
    def blocks(self) -> Iterator[None]:
        """Counts the seconds of the blocks."""
        with contextlib.ExitStack() as stack:
            for block in self._model.blocks:
                stack.enter_context(mock.patch.object(block, "forward", self._counted(block.forward)))
            yield

    def _counted(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            self._is_in_block, started = True, time.process_time()
            output = forward(*args, **kwargs)
            self.blocks_alone += time.process_time() - started
            self._is_in_block = False
            return output

        return run


def softmaxes(pipe: Any, generate: Callable[..., torch.Tensor]) -> tuple[Maps, torch.Tensor]:
    """The whole softmax of the conditional call in float64, of which the words' columns are kept; and the output."""
    model, maps = pipe.transformer, []
    calls: list[str] = []
    context = model.cache_context

    def cache_context(call: str, **more: Any) -> Any:
        calls.append(call)
        if call == "cond":
            maps.append([])
        return context(call, **more)

    def look(attention: Any, given: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> None:
        if calls[-1] != "cond":
            return
        hidden, text = given[0], given[1] if len(given) > 1 else kwargs["encoder_hidden_states"]
        query, key = attention.norm_q(attention.to_q(hidden)), attention.norm_k(attention.to_k(text))
        query, key = (of.double().unflatten(2, (attention.heads, -1)).transpose(1, 2)[0] for of in (query, key))
        shares = [(q @ key.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) for q in query.split(256, dim=1)]
        maps[-1].append(torch.cat([share[..., list(WORDS.values())] for share in shares], 1))

    with contextlib.ExitStack() as stack, torch.no_grad():
        stack.enter_context(mock.patch.dict(vars(model), {"cache_context": cache_context}))
        for block in model.blocks:
            stack.callback(block.attn2.register_forward_hook(look, with_kwargs=True).remove)
        output = generate()
    return [torch.stack(blocks) for blocks in maps], output


def errors_of(maps: Maps, mean: torch.Tensor, exact: Maps) -> tuple[float, float]:
    """The largest error of a map, and of the mean."""
    shapes = [[[*of.shape] for of in all_steps] for all_steps in (maps, exact)]
    if shapes[0] != shapes[1] or mean.shape != exact[0].shape[2:]:
        raise SystemExit(f"maps of shapes {shapes[0]}, expected {shapes[1]}")
    return max(float((a - b).abs().max()) for a, b in zip(maps, exact)), float((mean - means(exact)).abs().max())


def forget_peak() -> None:
    """Gives back what is free, and forgets the peak: only Linux can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MEMORY_UNIT


def versions(peer: Path) -> dict[str, str]:
    import attnkit
    import diffusers

    found = {"attnkit": attnkit.__version__, "python": platform.python_version(), "torch": torch.__version__}
    found["diffusers"] = diffusers.__version__
    sys.path.append(str(peer))
    with contextlib.suppress(ImportError):
        import attention_map_diffusers

        found["attention-map-diffusers"] = attention_map_diffusers.__version__
    return found


if __name__ == "__main__":
    if len(sys.argv) not in (3, 6):
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
