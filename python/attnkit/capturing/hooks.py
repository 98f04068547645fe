"""What is hooked into a pipeline of diffusers while it generates.

Hooks on the outputs of `attn2.norm_q` and `attn2.norm_k` see the very queries and keys of the softmax, whatever the
attention backend, the processor or the projections: no weight is read, nothing is computed twice, and nothing of the
pipeline is replaced, so that its output is the same to the bit.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from . import models, softmax

if TYPE_CHECKING:
    import torch

    from . import Capture

#: Attributes of pipelines that hold a transformer: WAN 2.2 has two.
TRANSFORMERS = ("transformer", "transformer_2")


def attach(pipe: Any, capture: Capture) -> contextlib.ExitStack:
    """Hooks a capture into a pipeline; closing what is returned takes all of it out again.

    Raises
    ------
    TypeError
        If it is no pipeline whose attention is understood.
    """
    with contextlib.ExitStack() as stack:
        if not hasattr(pipe, "encode_prompt") or not hasattr(pipe, "scheduler"):
            raise TypeError(f"{type(pipe).__name__} has no encode_prompt and scheduler: it is no pipeline of diffusers")
        found = {name: getattr(pipe, name, None) for name in TRANSFORMERS}
        found = {name: model for name, model in found.items() if model is not None}
        if not found:
            raise TypeError(f"{type(pipe).__name__} has no transformer")
        for name, model in found.items():
            _Forwards(name, getattr(model, "_orig_mod", model), capture, stack)
        _wrap(stack, pipe, "encode_prompt", functools.partial(_encoding, capture=capture))
        if hasattr(pipe, "prepare_latents"):
            _wrap(stack, pipe, "prepare_latents", functools.partial(_making_noise, capture=capture))
        if any(_is_compiled(model) for model in found.values()):
            import torch

            # Code that was compiled before knows no hooks.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        return stack.pop_all()


def _is_compiled(model: torch.nn.Module) -> bool:
    of_modules = (getattr(module, "_compiled_call_impl", None) for module in model.modules())
    return hasattr(model, "_orig_mod") or any(compiled is not None for compiled in of_modules)


def _wrap(stack: contextlib.ExitStack, owner: Any, name: str, wrapper: Callable[[Any], Any]) -> None:
    """An attribute of the instance that hides its method, until the stack is closed."""
    before = vars(owner).get(name)
    # Modules of torch and pipelines have a __setattr__ of their own.
    vars(owner)[name] = wrapper(getattr(owner, name))

    def restore() -> None:
        if before is None:
            vars(owner).pop(name, None)
        else:
            vars(owner)[name] = before

    stack.callback(restore)


def _encoding(original: Callable[..., Any], capture: Capture) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def encode_prompt(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        prompts, embeds = given.get("prompt"), given.get("prompt_embeds")
        each = given.get("num_videos_per_prompt") or 1
        capture._begin_run(prompts, None if embeds is None else embeds.shape[0], each, given.get("max_sequence_length"))
        return original(*args, **kwargs)

    return encode_prompt


def _making_noise(original: Callable[..., Any], capture: Capture) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def prepare_latents(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        capture._seed(given.get("generator"), given.get("latents") is not None)
        return original(*args, **kwargs)

    return prepare_latents


def clean_prompt(pipe: Any) -> Callable[[str], str]:
    """What a pipeline does to a prompt before it is cut into pieces."""
    for kind in type(pipe).__mro__:
        clean = getattr(sys.modules.get(kind.__module__), "prompt_clean", None)
        if clean is not None:
            return clean  # type: ignore[no-any-return]
    return lambda prompt: prompt


class _Forwards:
    """The forwards of one transformer: hooked, and handed to the capture when they end."""

    def __init__(self, name: str, model: Any, capture: Capture, stack: contextlib.ExitStack) -> None:
        self._name, self._capture = name, capture
        self._call: str | None = None
        self._record: _Record | None = None
        self._query: torch.Tensor | None = None
        attentions = models.cross_attentions(model)
        if not hasattr(model, "cache_context"):
            raise TypeError(
                f"{name} does not say which call of guidance is the conditional one, as models of diffusers 0.35 and "
                "later do"
            )
        if getattr(model, "is_cache_enabled", False):
            raise TypeError(f"{name} has a cache that leaves out blocks at some steps: {name}.disable_cache() first")
        self._blocks = capture._numbers("blocks", len(attentions))
        self._heads = capture._numbers("heads", attentions[0].heads)
        self._text: tuple[torch.Tensor, list[int]] | None = None
        _wrap(stack, model, "cache_context", self._context)
        handles = [
            model.register_forward_pre_hook(self._begin, with_kwargs=True),
            model.register_forward_hook(self._end),
        ]
        for row, number in enumerate(self._blocks):
            attention = attentions[number]
            handles.append(attention.norm_q.register_forward_hook(self._see_query))
            see_key = functools.partial(self._see_key, row=row, heads=attention.heads)
            handles.append(attention.norm_k.register_forward_hook(see_key))
        for handle in handles:
            stack.callback(handle.remove)

    def _context(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @contextlib.contextmanager
        def cache_context(call: str, *args: Any, **kwargs: Any) -> Iterator[None]:
            before, self._call = self._call, call
            try:
                with original(call, *args, **kwargs):
                    yield
            finally:
                self._call = before

        return cache_context

    def _begin(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._record = self._query = None
        if self._call is None:
            raise RuntimeError(
                f"the pipeline does not say which call of {self._name} is the conditional one, so that nothing could "
                "be captured: pipelines of a later diffusers do"
            )
        if self._call != "cond" or not self._capture._begin_step():
            return
        given = inspect.signature(type(model).forward).bind_partial(model, *args, **kwargs).arguments
        latents, text = given["hidden_states"], given["encoder_hidden_states"]
        videos = self._capture._targets
        if latents.shape[0] != len(videos):
            raise RuntimeError(f"{self._name} runs {latents.shape[0]} videos at once; expected {len(videos)}")
        if self._text is None or self._text[0] is not text:
            # Looked at once for all steps, as it waits for the device.
            self._text = (text, softmax.equal_tail(text))
        self._record = _Record(self, models.grid_of(model, latents), tuple(latents.shape[2:]), text.shape[1])

    def _see_query(self, _: Any, args: Any, query: torch.Tensor) -> None:
        if self._record is not None:
            self._query = query

    def _see_key(self, _: Any, args: Any, key: torch.Tensor, *, row: int, heads: int) -> None:
        if self._record is None or self._query is None or self._text is None:
            return
        import torch

        query, self._query = self._query, None
        if key.shape[1] != self._record.text:
            raise RuntimeError(f"{self._name} has {key.shape[1]} keys for {self._record.text} rows of text")
        with torch.no_grad():
            # [video, position, head x dim] -> [video, head, position, dim]
            query, key = (of_heads.unflatten(2, (heads, -1)).transpose(1, 2) for of_heads in (query, key))
            if len(self._heads) < heads:
                query, key = query[:, self._heads], key[:, self._heads]
            self._record.add(row, query, key, self._text[1])

    def _end(self, model: Any, args: Any, output: Any) -> None:
        record, self._record = self._record, None
        if record is None:
            return
        missing = [number for row, number in enumerate(self._blocks) if row not in record.seen]
        if missing:
            raise RuntimeError(
                f"blocks {missing} of {self._name} did not run: something skips them (a step cache?), or runs code "
                "that was compiled before the capture began"
            )
        self._capture._end_step(self._name, record.grid, record.latents, record.finish())


class _Record:
    """The maps of one forward while its blocks run."""

    def __init__(self, of: _Forwards, grid: tuple[int, int, int], latents: tuple[int, int, int], text: int) -> None:
        import torch

        self.grid, self.latents, self.text = grid, latents, text
        self.seen: set[int] = set()
        capture = of._capture
        self._targets, self._dtype = capture._targets, capture._torch_dtype()
        self._over_blocks, self._over_heads = (axis in capture._average for axis in ("blocks", "heads"))
        self._count = len(of._blocks)
        blocks = 1 if self._over_blocks else len(of._blocks)
        heads = 1 if self._over_heads else len(of._heads)
        # Means are of float32, whatever is stored.
        dtype = torch.float32 if self._over_blocks else self._dtype
        shapes = ((blocks, heads, math.prod(grid), len(target.positions)) for target in self._targets)
        self._maps = [torch.zeros(shape, dtype=dtype) for shape in shapes]

    def add(self, row: int, query: torch.Tensor, key: torch.Tensor, alike: list[int]) -> None:
        """The softmax of one block."""
        import torch

        is_averaged = self._over_blocks or self._over_heads
        for video, (target, maps) in enumerate(zip(self._targets, self._maps)):
            shape = (query.shape[1], query.shape[2], len(target.positions))
            of_block = torch.empty(shape) if is_averaged else maps[row]
            softmax.columns(query[video], key[video], target.positions, alike=alike[video], out=of_block)
            if not is_averaged:
                continue
            mean = of_block.mean(0, keepdim=True) if self._over_heads else of_block
            if self._over_blocks:
                maps[0] += mean
            else:
                maps[row] = mean
        self.seen.add(row)

    def finish(self) -> list[torch.Tensor]:
        """Of each video the maps of all its positions."""
        if self._over_blocks:
            return [(maps / self._count).to(self._dtype) for maps in self._maps]
        return self._maps
