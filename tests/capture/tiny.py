"""Whole pipelines of random weights that run on a CPU in a second; nothing is downloaded.

Made as diffusers' own tests make them, with a tokenizer and a text encoder made in place.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
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


def transformer(kind: type = WanTransformer3DModel, *, in_channels: int = 16, seed: int = 0, **more: Any) -> Any:
    """Three blocks of two heads; the norms of cross-attention are sharpened: with fresh ones attention is all but
    uniform, and a wrong formula would pass."""
    torch.manual_seed(seed)
    model = kind(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=in_channels,
        out_channels=16,
        text_dim=32,
        freq_dim=256,
        ffn_dim=32,
        num_layers=3,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
        **more,
    ).eval()
    with torch.no_grad():
        for block in model.blocks:
            for norm in (block.attn2.norm_q, block.attn2.norm_k):
                norm.weight.copy_(1 + 4 * torch.rand_like(norm.weight))
    return model


def _parts(dtype: torch.dtype) -> dict[str, Any]:
    torch.manual_seed(1)
    vae = AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    ).eval()
    return {"tokenizer": tokenizer(), "text_encoder": text_encoder().to(dtype), "vae": vae}


def _ready(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def wan(dtype: torch.dtype = torch.float32, *, boundary_ratio: float | None = None, euler: bool = False) -> Any:
    """Text to video: WAN 2.1, or 2.2 with two transformers where a boundary is given."""
    unipc = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    second = {} if boundary_ratio is None else {"transformer_2": transformer(seed=7), "boundary_ratio": boundary_ratio}
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0) if euler else unipc
    return _ready(WanPipeline(transformer=transformer().to(dtype), scheduler=scheduler, **_parts(dtype), **second))


def wan_i2v() -> Any:
    """Image to video: the image's keys have a softmax of their own."""
    vision = CLIPVisionConfig(
        hidden_size=4,
        projection_dim=4,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        intermediate_size=16,
        patch_size=2,
    )
    return _ready(
        WanImageToVideoPipeline(
            transformer=transformer(in_channels=36, image_dim=4, added_kv_proj_dim=24),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            image_encoder=CLIPVisionModelWithProjection(vision).eval(),
            image_processor=CLIPImageProcessor(crop_size=32, size=32),
            **_parts(torch.float32),
        )
    )


def wan_vace() -> Any:
    """VACE: blocks of its own beside those of the transformer."""
    return _ready(
        WanVACEPipeline(
            transformer=transformer(WanVACETransformer3DModel, vace_layers=[0, 2], vace_in_channels=96),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            **_parts(torch.float32),
        )
    )


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)
