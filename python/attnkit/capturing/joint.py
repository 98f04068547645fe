"""What is hooked into pipelines whose attention is read where it is computed: joint attention, and what has a mask.

Queries and keys get their rotary embedding behind all modules, so that the call of fused attention itself is watched,
within the attention of each block. The very same kernel runs, and the pipeline's output is the same to the bit.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import fused, hooks
from .layouts import layout_of, plain
from .maps import Maps

if TYPE_CHECKING:
    import torch

    from . import Capture


def understands(pipe: Any) -> bool:
    """Whether a pipeline's attention is read here."""
    return layout_of(getattr(pipe, "transformer", None)) is not None


def attach(pipe: Any, capture: Capture) -> contextlib.ExitStack:
    """Hooks a capture into a pipeline that is understood; closing what is returned takes all of it out again.

    Raises
    ------
    TypeError
        If the pipeline does something else with the model than is understood.
    """
    missing = [name for name in ("encode_prompt", "check_inputs", "scheduler") if not hasattr(pipe, name)]
    if missing:
        raise TypeError(f"{type(pipe).__name__} has no {' and '.join(missing)}: it is no pipeline that is understood")
    if hasattr(pipe, "do_perturbed_attention_guidance"):
        raise TypeError(f"{type(pipe).__name__} perturbs attention in a part of its batch, which is not understood")
    with contextlib.ExitStack() as stack:
        hooks.claim(pipe, stack)
        forwards = _Forwards(plain(pipe.transformer), capture, stack)
        hooks._wrap(stack, pipe, "check_inputs", functools.partial(hooks.beginning, capture=capture))
        hooks._wrap(stack, pipe, "encode_prompt", forwards.encoding)
        if hasattr(pipe, "prepare_latents"):
            hooks._wrap(stack, pipe, "prepare_latents", functools.partial(hooks._making_noise, capture=capture))
        if hooks._is_compiled(pipe.transformer):
            import torch

            # Code that was compiled before is not watched.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        return stack.pop_all()


class _Forwards:
    """The forwards of a transformer: watched, and handed to the capture when they end."""

    def __init__(self, model: Any, capture: Capture, stack: contextlib.ExitStack) -> None:
        layout = layout_of(model)
        assert layout is not None
        name = type(model).__name__
        if capture._options.groups:
            raise TypeError(
                f"{name}: groups of keys are captured where the text has a softmax of its own, without a mask"
            )
        if capture._options.calls != ("cond",):
            raise TypeError(f"{name}: of its calls, only the conditional one is captured")
        if getattr(model, "is_cache_enabled", False):
            raise TypeError("transformer has a cache that leaves out blocks at some steps: transformer.disable_cache()")
        self._layout, self._capture = layout, capture
        self._encoded: torch.Tensor | None = None
        #: The text that was found to be what was encoded.
        self._text: torch.Tensor | None = None
        self._record: _Record | None = None
        attentions = layout.attentions(model)
        self._blocks = capture._options.numbers("blocks", len(attentions))
        self._heads = capture._options.numbers("heads", attentions[0].heads)
        self._watched = contextlib.ExitStack()
        self._context = hooks.Contexts(model, stack)
        handles = [
            model.register_forward_pre_hook(self._begin, with_kwargs=True),
            model.register_forward_hook(self._end),
        ]
        for row, number in enumerate(self._blocks):
            handles.append(attentions[number].register_forward_pre_hook(functools.partial(self._enter, row=row)))
            handles.append(attentions[number].register_forward_hook(self._leave, always_call=True))
        for handle in handles:
            stack.callback(handle.remove)

    # A call of the pipeline.

    def encoding(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """`encode_prompt`, which Flux calls for the negative prompt too, behind the prompt."""
        signature = inspect.signature(original)

        @functools.wraps(original)
        def encode_prompt(*args: Any, **kwargs: Any) -> Any:
            if not self._capture._begins:
                return original(*args, **kwargs)
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            self._begin_run(bound.arguments)
            encoded = original(*args, **kwargs)
            self._encoded, self._text, self._capture._begins = encoded[0], None, False
            return encoded

        return encode_prompt

    def _begin_run(self, given: dict[str, Any]) -> None:
        pipe = self._capture._pipe
        text = self._layout.text_of(pipe)
        prompts = given.get(text.argument) or given.get("prompt")
        if prompts is not None and hasattr(pipe, "maybe_convert_prompt"):
            # A name of several learned embeddings becomes as many.
            prompts = pipe.maybe_convert_prompt(prompts, text.tokenizer)
        each = given.get("num_videos_per_prompt") or given.get("num_images_per_prompt") or 1
        max_length = text.max_length or given.get("max_sequence_length")
        own = {"prompt": prompts, "num_videos_per_prompt": each, "max_sequence_length": max_length}
        self._capture._begin_run({**given, **own})

    # A forward of the transformer.

    @property
    def _videos(self) -> int:
        return len(self._capture._run.wanted["cond"])

    def _begin(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._record = None
        given = inspect.signature(type(model).forward).bind_partial(model, *args, **kwargs).arguments
        # A further call with some blocks left out guides away from what these do.
        if self._context.call == "uncond" or given.get("skip_layers") is not None:
            return
        text, videos = given["encoder_hidden_states"], self._videos
        if text.shape[0] not in (videos, 2 * videos):
            raise RuntimeError(
                f"transformer runs {text.shape[0]} texts at once; expected {videos}, or {2 * videos} with those of "
                "guidance in front"
            )
        self._check_text(text, videos)
        if not self._capture._begin_step():
            return
        self._record = _Record(self, model, given, text.shape[0])

    def _check_text(self, text: torch.Tensor, videos: int) -> None:
        """The conditional texts, the last ones, are to be those of the prompts: compared once for all steps."""
        import torch

        if self._text is text:
            return
        encoded, last = self._encoded, text[text.shape[0] - videos :]
        if encoded is None or encoded.shape != last.shape or not torch.equal(encoded.to(last), last):
            raise RuntimeError(
                "transformer gets another text than encode_prompt made of the prompt, so that nobody knows where its "
                "words are"
            )
        self._text = text

    def _enter(self, attention: Any, args: Any, *, row: int) -> None:
        if self._record is not None:
            self._watched.enter_context(fused.watch(functools.partial(self._record.see, row)))

    def _leave(self, attention: Any, args: Any, output: Any) -> None:
        self._watched.close()

    def _end(self, model: Any, args: Any, output: Any) -> None:
        record, self._record = self._record, None
        if record is None:
            return
        missing = [number for row, number in enumerate(self._blocks) if row not in record.seen]
        if missing:
            raise RuntimeError(
                f"blocks {missing} of transformer did not attend by torch's scaled_dot_product_attention: something "
                "skips them (a step cache?), or runs compiled code, or another backend, which "
                'transformer.set_attention_backend("native") sets back'
            )
        forward = hooks.Forward("transformer", "cond", record.grid, record.latents, self._blocks, self._heads, [])
        self._capture._end_forward(forward, record.maps)


class _Record:
    """The maps of one forward while its blocks run."""

    def __init__(self, of: _Forwards, model: Any, given: dict[str, Any], batch: int) -> None:
        layout = of._layout
        self.grid, self.latents = layout.grid(model, given), layout.latents(model, given)
        self.seen: set[int] = set()
        self._layout, self._batch = layout, batch
        self._model_heads = layout.attentions(model)[0].heads
        #: The heads that are wanted, as an index that copies none where all are.
        self._index: Any = slice(None) if len(of._heads) == self._model_heads else of._heads
        text = given["encoder_hidden_states"]
        self._text = text.shape[1]
        sizes = (len(of._blocks), len(of._heads), self.grid)
        columns = of._capture._run.columns("cond", text[batch - of._videos :])
        self.maps = [Maps(of._capture._options, of_video, *sizes, text.device) for of_video in columns]

    def see(self, row: int, attention: fused.Attention, total: torch.Tensor | None) -> None:
        """Takes the maps of a block from the call of its attention."""
        import torch

        image, text, queries, keys = self._layout.places(math.prod(self.grid), self._text)
        query, key = attention.query, attention.key
        if (query.shape[2], key.shape[2]) != (queries, keys):
            # Another one of the same module, such as that of an image prompt.
            return
        expected = [self._batch, self._model_heads]
        odd = "causally" if attention.is_causal else "twice" if row in self.seen else None
        if odd is not None or not list(query.shape[:2]) == list(key.shape[:2]) == expected:
            raise RuntimeError(
                f"a block of transformer attends {odd or 'once'}, with queries {list(query.shape)} and keys "
                f"{list(key.shape)}; expected once, not causally, with {expected} of batch and heads"
            )
        scale = query.shape[-1] ** -0.5 if attention.scale is None else attention.scale
        first, heads = self._batch - len(self.maps), self._index
        for video, maps in enumerate(self.maps):
            of_video = first + video
            columns = maps.columns
            with maps.of_block(row) as out:
                # Of words of several pieces, the sum may be wanted.
                sizes = (*out.shape[:2], len(columns.positions))
                chosen = query.new_empty(sizes, dtype=torch.float32) if columns.keys.is_sums else out
                share = fused.columns(
                    query[of_video, heads, image],
                    key[of_video, heads],
                    text,
                    columns.positions,
                    scale=scale,
                    bias=attention.bias(of_video, heads, image),
                    total=None if total is None else total[of_video, heads, image],
                    out=chosen,
                )
                if chosen is not out:
                    out.copy_(chosen @ columns.sums)
            if self._layout.text != "apart":
                maps.shares[row] = share
        self.seen.add(row)
