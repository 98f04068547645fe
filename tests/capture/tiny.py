"""Whole pipelines of random weights that run on a CPU in a second; nothing is downloaded.

Made as diffusers' own tests make them, with a tokenizer and a text encoder made in place.
"""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
    hooks,
)
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PreTrainedTokenizerFast,
    UMT5Config,
    UMT5EncoderModel,
)

# Several threads wait for one another longer than one computes.
torch.set_num_threads(1)

PROMPT = "a flower near a tree"
#: What a tiny pipeline is called with.
CALL: dict[str, Any] = {
    "num_inference_steps": 3,
    "height": 32,
    "width": 48,
    "num_frames": 9,
    "output_type": "latent",
}
#: (frames, height, width) of its maps.
GRID = (3, 2, 3)

_WORDS = "a the an red blue beautiful flower tree near next to above two people cat dog and sun butter in of ( ) : 2.5"
_PIECES = ["flower", "fly", "s", "ing", "er"]
_CHARACTERS = [chr(code) for code in range(33, 127)] + list("éüß“”…")


def need(*names: str) -> None:
    """Skips a test of what this diffusers does not have: classes, hooks, or methods of WAN's transformer."""
    missing = [name for name in names if not any(hasattr(of, name) for of in (diffusers, hooks, WanTransformer3DModel))]
    if missing:
        pytest.skip(f"diffusers {diffusers.__version__} has no {' and '.join(missing)}")


def _of(kind: Any, **parts: Any) -> Any:
    """An object of diffusers; a test is skipped whose parts it does not know."""
    lacking = parts.keys() - inspect.signature(kind.__init__).parameters.keys()
    if lacking:
        pytest.skip(f"{kind.__name__} of diffusers {diffusers.__version__} has no {' and '.join(sorted(lacking))}")
    return kind(**parts)


def _made(pipeline: str, **parts: Any) -> Any:
    """A pipeline of diffusers, if there is one of that name."""
    need(pipeline)
    pipe = _of(getattr(diffusers, pipeline), **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tokenizer() -> PreTrainedTokenizerFast:
    """Unigram with `▁` before words and a closing `</s>`, as umt5's, of a few words: `sunflower` is `▁sun` `flower`."""
    scores = {"<pad>": 0.0, "</s>": 0.0, "<s>": 0.0, "<unk>": 0.0, "▁": -3.0}
    of_kinds = [(["▁" + word for word in _WORDS.split()], -2.0), (_PIECES, -2.5), (_CHARACTERS, -8.0)]
    for pieces, score in of_kinds:
        for piece in pieces:
            scores.setdefault(piece, score)
    made = Tokenizer(models.Unigram(list(scores.items()), unk_id=3, byte_fallback=False))
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    made.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


def text_encoder() -> UMT5EncoderModel:
    torch.manual_seed(2)
    config = UMT5Config(
        vocab_size=len(tokenizer()),
        d_model=32,
        d_kv=8,
        d_ff=37,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=8,
        decoder_start_token_id=0,
    )
    return UMT5EncoderModel(config).eval()


def transformer(kind: Any = WanTransformer3DModel, *, seed: int = 0, **more: Any) -> Any:
    """Three blocks of two heads; the norms of cross-attention are sharpened: with fresh ones attention is all but
    uniform, and a wrong formula would pass."""
    torch.manual_seed(seed)
    sizes = {
        "patch_size": (1, 2, 2),
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 16,
        "out_channels": 16,
        "text_dim": 32,
        "freq_dim": 256,
        "ffn_dim": 32,
        "num_layers": 3,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "rope_max_seq_len": 32,
    }
    model = kind(**{**sizes, **more}).eval()
    with torch.no_grad():
        for block in model.blocks:
            for norm in (block.attn2.norm_q, block.attn2.norm_k):
                norm.weight.copy_(1 + 4 * torch.rand_like(norm.weight))
    return model


def _parts(dtype: torch.dtype, **vae: Any) -> dict[str, Any]:
    torch.manual_seed(1)
    sizes = {"base_dim": 3, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, "temperal_downsample": [False, True, True]}
    autoencoder = _of(AutoencoderKLWan, z_dim=16, **sizes, **vae).eval()
    return {"tokenizer": tokenizer(), "text_encoder": text_encoder().to(dtype), "vae": autoencoder}


def _of_images() -> dict[str, Any]:
    vision = CLIPVisionConfig(
        hidden_size=4,
        projection_dim=4,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        intermediate_size=16,
        patch_size=2,
    )
    return {
        "image_encoder": CLIPVisionModelWithProjection(vision).eval(),
        "image_processor": CLIPImageProcessor(crop_size=32, size=32),
    }


def unipc() -> Any:
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


def euler() -> Any:
    return FlowMatchEulerDiscreteScheduler(shift=3.0)


def wan(
    dtype: torch.dtype = torch.float32,
    *,
    boundary_ratio: float | None = None,
    scheduler: Any = None,
    second: dict[str, Any] | None = None,
) -> Any:
    """Text to video: WAN 2.1, or 2.2 with two transformers where a boundary is given, the second one of other sizes."""
    of_second = {}
    if boundary_ratio is not None:
        model = transformer(seed=7, **(second or {})).to(dtype)
        of_second = {"transformer_2": model, "boundary_ratio": boundary_ratio}
    model = transformer().to(dtype)
    return _made("WanPipeline", transformer=model, scheduler=scheduler or unipc(), **_parts(dtype), **of_second)


def wan_i2v() -> Any:
    """Image to video: the image's keys have a softmax of their own."""
    model = transformer(in_channels=36, image_dim=4, added_kv_proj_dim=24)
    parts = {**_parts(torch.float32), **_of_images()}
    return _made("WanImageToVideoPipeline", transformer=model, scheduler=euler(), **parts)


def wan_5b(kind: str = "WanPipeline") -> Any:
    """WAN 2.2 5B: a timestep for each token, patches of 16 pixels in the autoencoder."""
    vae = {"in_channels": 12, "out_channels": 12, "is_residual": True, "patch_size": 2, "scale_factor_spatial": 16}
    parts = {**_parts(torch.float32, **vae), "expand_timesteps": True}
    of_image = {} if kind == "WanPipeline" else {"image_encoder": None, "image_processor": None}
    model = transformer()
    return _made(kind, transformer=model, scheduler=unipc(), **parts, **of_image)


def wan_v2v() -> Any:
    """Video to video."""
    parts = _parts(torch.float32)
    return _made("WanVideoToVideoPipeline", transformer=transformer(), scheduler=unipc(), **parts)


def wan_vace() -> Any:
    """VACE: blocks of its own beside those of the transformer."""
    need("WanVACETransformer3DModel")
    model = transformer(diffusers.WanVACETransformer3DModel, vace_layers=[0, 2], vace_in_channels=96)
    return _made("WanVACEPipeline", transformer=model, scheduler=euler(), **_parts(torch.float32))


def skyreels(kind: str = "SkyReelsV2Pipeline") -> Any:
    """SkyReels-V2: its transformer has another class, and the same attention."""
    need("SkyReelsV2Transformer3DModel")
    of_image = kind == "SkyReelsV2ImageToVideoPipeline"
    more = {"in_channels": 36, "image_dim": 4, "added_kv_proj_dim": 24} if of_image else {}
    model = transformer(diffusers.SkyReelsV2Transformer3DModel, **more)
    parts = {**_parts(torch.float32), **(_of_images() if of_image else {})}
    return _made(kind, transformer=model, scheduler=unipc(), **parts)


def chronoedit() -> Any:
    """ChronoEdit, which edits an image by the frames on the way to another one."""
    need("ChronoEditTransformer3DModel")
    more = {"in_channels": 36, "image_dim": 4, "added_kv_proj_dim": 24}
    model = transformer(diffusers.ChronoEditTransformer3DModel, **more)
    parts = {**_parts(torch.float32), **_of_images()}
    return _made("ChronoEditPipeline", transformer=model, scheduler=unipc(), **parts)


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)
