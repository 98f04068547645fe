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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from . import models
from .layouts import plain
from .maps import Columns, Grid, Maps

if TYPE_CHECKING:
    import torch

    from . import Capture

#: Attributes of pipelines that hold a transformer: WAN 2.2 has two.
TRANSFORMERS = ("transformer", "transformer_2")
#: Of a pipeline that is being captured.
_CAPTURED = "_attnkit_captures"


def attach(pipe: Any, capture: Capture) -> contextlib.ExitStack:
    """Hooks a capture into a pipeline; closing what is returned takes all of it out again.

    Raises
    ------
    TypeError
        If it is no pipeline whose attention is understood.
    RuntimeError
        If it is being captured already.
    """
    models.require_steps(pipe)
    with contextlib.ExitStack() as stack:
        if not hasattr(pipe, "encode_prompt") or not hasattr(pipe, "scheduler"):
            raise TypeError(f"{type(pipe).__name__} has no encode_prompt and scheduler: it is no pipeline of diffusers")
        found = {name: getattr(pipe, name, None) for name in TRANSFORMERS}
        found = {name: model for name, model in found.items() if model is not None}
        if not found:
            raise TypeError(f"{type(pipe).__name__} has no transformer")
        claim(pipe, stack)
        forwards = [_Forwards(name, plain(model), capture, stack) for name, model in found.items()]
        _require_one_size(forwards, capture)
        if hasattr(pipe, "preprocess_conditions"):
            _wrap(stack, pipe, "preprocess_conditions", functools.partial(_referring, forwards=forwards))
        if hasattr(pipe, "check_inputs"):
            _wrap(stack, pipe, "check_inputs", functools.partial(beginning, capture=capture))
        _wrap(stack, pipe, "encode_prompt", functools.partial(_encoding, capture=capture, hooked=found))
        if hasattr(pipe, "prepare_latents"):
            _wrap(stack, pipe, "prepare_latents", functools.partial(_making_noise, capture=capture))
        if any(_is_compiled(model) for model in found.values()):
            import torch

            if not hasattr(torch.compiler, "set_stance"):
                raise TypeError(f"a compiled model is captured with torch 2.6 or later; found {torch.__version__}")

            # Code that was compiled before knows no hooks.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        return stack.pop_all()


def claim(pipe: Any, stack: contextlib.ExitStack) -> None:
    """Marks a pipeline as captured, until the stack is closed; refuses one that is."""
    if _CAPTURED in vars(pipe):
        raise RuntimeError(f"{type(pipe).__name__} is being captured already: name all words in one capture")
    vars(pipe)[_CAPTURED] = True
    stack.callback(vars(pipe).pop, _CAPTURED)


def beginning(original: Callable[..., Any], capture: Capture) -> Callable[..., Any]:
    """`check_inputs`, with which each call of a pipeline begins: other texts may be encoded while it runs."""

    @functools.wraps(original)
    def check_inputs(*args: Any, **kwargs: Any) -> Any:
        capture._begins = True
        return original(*args, **kwargs)

    return check_inputs


def _require_one_size(forwards: list[_Forwards], capture: Capture) -> None:
    """Refuses models whose maps would be of several sizes, where these are stored as the steps of one video."""
    average = capture._options.average
    sizes = {
        (1 if "blocks" in average else len(one._blocks), 1 if "heads" in average else len(one._heads))
        for one in forwards
    }
    if capture._store is not None and len(sizes) > 1:
        found = " and ".join(f"{one._name} {len(one._blocks)} blocks of {len(one._heads)} heads" for one in forwards)
        raise ValueError(
            f"of {found} would be captured; expected as many of each model, as the steps of a video are stored: choose "
            "them with blocks= and heads=, or average="
        )


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


def _encoding(original: Callable[..., Any], capture: Capture, hooked: dict[str, Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)
    compiled = [name for name, model in hooked.items() if _is_compiled(model)]

    @functools.wraps(original)
    def encode_prompt(*args: Any, **kwargs: Any) -> Any:
        if not capture._begins:
            return original(*args, **kwargs)
        for name in TRANSFORMERS:
            model = getattr(capture._pipe, name, None)
            if plain(model) is not plain(hooked.get(name)):
                raise RuntimeError(f"{name} is another model than when the capture began: begin one behind that")
            if model is not None and _is_compiled(model) and name not in compiled:
                raise RuntimeError(f"{name} was compiled since the capture began: compile it before")
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        capture._begin_run(bound.arguments)
        capture._begins = not hasattr(capture._pipe, "check_inputs")
        return original(*args, **kwargs)

    return encode_prompt


def _making_noise(original: Callable[..., Any], capture: Capture) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def prepare_latents(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        capture._run.seed(given.get("generator"), given.get("latents") is not None)
        return original(*args, **kwargs)

    return prepare_latents


def _referring(original: Callable[..., Any], forwards: list[_Forwards]) -> Callable[..., Any]:
    """VACE's images that are referred to: each is a frame of the latents, in front of those of the video."""

    @functools.wraps(original)
    def preprocess_conditions(*args: Any, **kwargs: Any) -> Any:
        video, mask, images = original(*args, **kwargs)
        for of_model in forwards:
            of_model.references = len(images[0])
        return video, mask, images

    return preprocess_conditions


@dataclass(frozen=True)
class Forward:
    """What a transformer was run for.

    Attributes
    ----------
    model : str
        `transformer` or `transformer_2`.
    call : str
        `cond` or `uncond`.
    grid, latents : tuple of int
        (frames, height, width) of its queries, and of its latents where they tell the size of the video.
    blocks, heads : list of int
        Numbers of those that are captured.
    skipped : list of int
        Blocks that did not run.
    """

    model: str
    call: Literal["cond", "uncond"]
    grid: Grid
    latents: tuple[int, int, int] | None
    blocks: list[int]
    heads: list[int]
    skipped: list[int]


class Contexts:
    """Which call of guidance a pipeline says that a model runs for, in its `cache_context`.

    Attributes
    ----------
    call : str or None
        Its name; None if the pipeline does not say.
    """

    def __init__(self, model: Any, stack: contextlib.ExitStack) -> None:
        self.call: str | None = None
        if hasattr(model, "cache_context"):
            _wrap(stack, model, "cache_context", self._watch)

    def _watch(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @contextlib.contextmanager
        def cache_context(call: str, *args: Any, **kwargs: Any) -> Iterator[None]:
            before, self.call = self.call, call
            try:
                with original(call, *args, **kwargs):
                    yield
            finally:
                self.call = before

        return cache_context


class _Forwards:
    """The forwards of one transformer: hooked, and handed to the capture when they end."""

    def __init__(self, name: str, model: Any, capture: Capture, stack: contextlib.ExitStack) -> None:
        self._name, self._model, self._capture = name, model, capture
        #: Frames in front of those of the video.
        self.references = 0
        self._context = Contexts(model, stack)
        #: Of each call, the run and the step that it was at last.
        self._places: dict[str, tuple[int, int]] = {}
        #: The run that was captured at last, and its grid.
        self._grid: tuple[int, Grid | None] = (0, None)
        self._record: _Record | None = None
        self._query: torch.Tensor | None = None
        attentions = models.cross_attentions(model)
        self._blocks = capture._options.numbers("blocks", len(attentions))
        self._heads = capture._options.numbers("heads", attentions[0].heads)
        #: Of each call: the run and the text that it had at last, the text's version, and what is wanted of it.
        self._texts: dict[str, tuple[int, torch.Tensor, int | None, list[Columns]]] = {}
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

    def _call(self, place: tuple[int, int]) -> Literal["cond", "uncond"]:
        """Which call of guidance a forward is, at a step of a run."""
        call: Any = self._context.call
        if call is None:
            if type(self._capture._pipe).__name__ not in models.CONDITIONAL_FIRST:
                raise RuntimeError(
                    f"the pipeline does not say which call of {self._name} is the conditional one, so that nothing "
                    "could be captured: pipelines of a later diffusers do"
                )
            return "uncond" if self._places.get("cond") == place else "cond"
        if call not in ("cond", "uncond"):
            raise RuntimeError(f"the pipeline calls {self._name} for {call!r}; expected cond or uncond")
        return "cond" if call == "cond" else "uncond"

    def _begin(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._record = self._query = None
        step, steps = self._capture._step(), len(self._capture._pipe.scheduler.timesteps)
        place = (self._capture._runs, step)
        call = self._call(place)
        if place <= self._places.get(call, (1, -1)) or step >= steps:
            raise RuntimeError(
                f"{self._name} runs for call {call} of step {step} of {steps}, which was done, or no prompt was "
                "encoded; expected each step once, in order: does another pipeline that has the same model run?"
            )
        self._places[call] = place
        if call not in self._capture._options.calls or not self._capture._begin_step():
            return
        given = inspect.signature(type(model).forward).bind_partial(model, *args, **kwargs).arguments
        latents, text = given["hidden_states"], given["encoder_hidden_states"]
        wanted = self._capture._run.wanted[call]
        if latents.shape[0] != len(wanted):
            raise RuntimeError(f"{self._name} runs {latents.shape[0]} videos at once; expected {len(wanted)}")
        columns = self._columns(call, text, place[0])
        frames, height, width = models.grid_of(model, latents)
        grid = (frames - self.references, height, width)
        if self._grid[0] == place[0] and self._grid[1] != grid:
            raise RuntimeError(
                f"{self._name} has the grid {grid} at step {step}, and had {self._grid[1]} before; expected one for "
                "all steps of a video: choose those before with steps="
            )
        self._grid = (place[0], grid)
        of_video = (latents.shape[2] - self.references, *latents.shape[3:])
        first = self.references * height * width
        sizes = (len(self._blocks), len(self._heads), grid)
        maps = [Maps(self._capture._options, of_text, *sizes, latents.device) for of_text in columns]
        self._record = _Record(call, grid, of_video, first, text.shape[1], maps, set())

    def _columns(self, call: str, text: torch.Tensor, run: int) -> list[Columns]:
        """What is wanted of a text, which is looked at once for all steps of a run, as that waits for the device."""
        import torch

        before, known, was, columns = self._texts.get(call, (0, None, None, []))
        version = None if text.is_inference() else text._version
        if before == run and known is text and was == version:
            return columns
        if before == run and known is not None and (known is text or not torch.equal(known.to(text), text)):
            raise RuntimeError(
                f"the text of call {call} is another one than at the step before, so that nobody knows where its words "
                "are: capture one text in a run"
            )
        columns = self._capture._run.columns(call, text, is_padded=True)
        self._texts[call] = (run, text, version, columns)
        return columns

    def _see_query(self, _: Any, args: Any, query: torch.Tensor) -> None:
        if self._record is not None:
            self._query = query

    def _see_key(self, _: Any, args: Any, key: torch.Tensor, *, row: int, heads: int) -> None:
        record = self._record
        if record is None or self._query is None:
            return
        import torch

        query, self._query = self._query, None
        found = (*query.shape[:2], *key.shape[:2])
        expected = (len(record.maps), record.first + math.prod(record.grid), len(record.maps), record.text)
        if found != expected:
            raise RuntimeError(
                f"{self._name} attends with queries and keys of {found} videos and positions; expected {expected}: "
                "something splits its batch or its positions, such as FasterCache or context parallelism"
            )
        if torch.is_autocast_enabled(query.device.type):
            # As the attention's are: before diffusers 0.35 the norms give float32 nevertheless.
            dtype = torch.get_autocast_dtype(query.device.type)
            query, key = query.to(dtype), key.to(dtype)
        # Under autocast, what is computed here would be of few digits.
        with torch.no_grad(), torch.autocast(query.device.type, enabled=False):
            # [video, position, head x dim] -> [video, head, position, dim]
            query, key = (of_heads.unflatten(2, (heads, -1)).transpose(1, 2) for of_heads in (query, key))
            if len(self._heads) < heads:
                query, key = query[:, self._heads], key[:, self._heads]
            for video, maps in enumerate(record.maps):
                maps.add(row, query[video, :, record.first :], key[video])
        record.seen.add(row)

    def _end(self, model: Any, args: Any, output: Any) -> None:
        record, self._record = self._record, None
        if record is None:
            return
        skipped = [number for row, number in enumerate(self._blocks) if row not in record.seen]
        if skipped and not getattr(self._model, "is_cache_enabled", False):
            raise RuntimeError(
                f"blocks {skipped} of {self._name} did not run: something skips them, or runs code that was compiled "
                "before the capture began"
            )
        forward = Forward(self._name, record.call, record.grid, record.latents, self._blocks, self._heads, skipped)
        self._capture._end_forward(forward, record.maps)


@dataclass
class _Record:
    """The maps of one forward while its blocks run."""

    call: Literal["cond", "uncond"]
    grid: Grid
    latents: tuple[int, int, int]
    #: The first query that is of the video.
    first: int
    #: Rows of its text.
    text: int
    #: Of each video.
    maps: list[Maps]
    #: Rows of the blocks that ran.
    seen: set[int]
