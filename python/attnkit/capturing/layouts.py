"""Where image and text are in the attention of models that are read where it is computed: which queries, which keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Text:
    """What the text axis of a pipeline is made of.

    Attributes
    ----------
    tokenizer : tokenizer
        That cuts its prompts.
    first : int
        The row of its first piece: before it are those of another text encoder.
    argument : str
        What `encode_prompt` calls its prompts, where they are others than `prompt`.
    max_length : int or None
        Pieces that it takes, where the pipeline cannot be told.
    """

    tokenizer: Any
    first: int = 0
    argument: str = "prompt"
    max_length: int | None = None


@dataclass(frozen=True)
class Layout:
    """A kind of transformer.

    Attributes
    ----------
    blocks : tuple of str
        The model's lists of blocks, in the order in which they run.
    attention : str
        The attention of a block.
    text : "first", "last" or "apart"
        Where the keys of the text are: before or behind those of the image, or the only ones.
    grid : function of (model, arguments of its forward)
        (frames, height, width) of the image's queries.
    latents : function of the arguments
        (frames, height, width) of the latents, where they tell the size of the video.
    text_of : function of the pipeline
        Its text axis.
    """

    blocks: tuple[str, ...]
    attention: str
    text: Literal["first", "last", "apart"]
    grid: Callable[[Any, Mapping[str, Any]], tuple[int, int, int]]
    latents: Callable[[Any, Mapping[str, Any]], tuple[int, int, int] | None]
    text_of: Callable[[Any], Text]

    def attentions(self, model: Any) -> list[torch.nn.Module]:
        """The attention of each block."""
        return [getattr(block, self.attention) for blocks in self.blocks for block in getattr(model, blocks)]

    def places(self, spatial: int, text: int) -> tuple[slice, slice, int, int]:
        """Queries of the image and keys of the text, and how many queries and keys there are."""
        if self.text == "apart":
            return slice(0, spatial), slice(0, text), spatial, text
        both = spatial + text
        if self.text == "first":
            return slice(text, both), slice(0, text), both, both
        return slice(0, spatial), slice(spatial, both), both, both


def layout_of(model: Any) -> Layout | None:
    """The layout of a model, if it is read where its attention is computed."""
    return LAYOUTS.get(type(plain(model)).__name__)


def text_of(pipe: Any) -> Text:
    """The text axis of a pipeline."""
    layout = layout_of(getattr(pipe, "transformer", None))
    return Text(pipe.tokenizer) if layout is None else layout.text_of(pipe)


def plain(model: Any) -> Any:
    """A model that may be compiled, as it was."""
    return getattr(model, "_orig_mod", model)


def _cogvideox_grid(model: Any, given: Mapping[str, Any]) -> tuple[int, int, int]:
    # [video, frame, channel, height, width]
    frames, _, height, width = given["hidden_states"].shape[1:]
    patch = model.config.patch_size
    return frames // (model.config.patch_size_t or 1), height // patch, width // patch


def _cogvideox_latents(model: Any, given: Mapping[str, Any]) -> tuple[int, int, int] | None:
    frames, _, height, width = given["hidden_states"].shape[1:]
    # Version 1.5 puts frames in front, that patches of several frames be full, and throws them away at the end.
    return (frames, height, width) if model.config.patch_size_t is None else None


def _flux_grid(model: Any, given: Mapping[str, Any]) -> tuple[int, int, int]:
    ids = given["img_ids"]
    ids = ids[0] if ids.ndim == 3 else ids
    height, width = (int(ids[:, axis].max()) + 1 for axis in (1, 2))
    if ids[:, 0].any() or len(ids) != height * width:
        raise RuntimeError(
            f"transformer gets {len(ids)} rows for {height} x {width} patches of an image: images that are referred to "
            "are not understood"
        )
    return 1, height, width


def _sd3_grid(model: Any, given: Mapping[str, Any]) -> tuple[int, int, int]:
    height, width = given["hidden_states"].shape[2:]
    return 1, height // model.config.patch_size, width // model.config.patch_size


def _ltx_grid(model: Any, given: Mapping[str, Any]) -> tuple[int, int, int]:
    sizes = [given.get(name) for name in ("num_frames", "height", "width")]
    if None in sizes:
        raise RuntimeError("transformer is not told the sizes of the video: latents of conditions are not understood")
    patches = (model.config.patch_size_t, model.config.patch_size, model.config.patch_size)
    frames, height, width = (size // patch for size, patch in zip(sizes, patches))
    return frames, height, width


def _unknown(model: Any, given: Mapping[str, Any]) -> None:
    return None


def _sd3_text(pipe: Any) -> Text:
    if pipe.text_encoder_3 is None:
        return Text(pipe.tokenizer, max_length=pipe.tokenizer_max_length)
    # The rows of both CLIP encoders are the first ones.
    return Text(pipe.tokenizer_3, first=pipe.tokenizer_max_length, argument="prompt_3")


#: By the class of the transformer.
LAYOUTS = {
    "CogVideoXTransformer3DModel": Layout(
        ("transformer_blocks",),
        "attn1",
        "first",
        _cogvideox_grid,
        _cogvideox_latents,
        lambda pipe: Text(pipe.tokenizer),
    ),
    "FluxTransformer2DModel": Layout(
        ("transformer_blocks", "single_transformer_blocks"),
        "attn",
        "first",
        _flux_grid,
        _unknown,
        lambda pipe: Text(pipe.tokenizer_2, argument="prompt_2"),
    ),
    "SD3Transformer2DModel": Layout(("transformer_blocks",), "attn", "last", _sd3_grid, _unknown, _sd3_text),
    "LTXVideoTransformer3DModel": Layout(
        ("transformer_blocks",), "attn2", "apart", _ltx_grid, _unknown, lambda pipe: Text(pipe.tokenizer)
    ),
}
