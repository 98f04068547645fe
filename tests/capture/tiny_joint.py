"""Whole pipelines of random weights whose image and text have one softmax, and LTX-Video's, whose text has a mask.

None has an autoencoder: what they make is latents.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tiny import text_encoder, tokenizer
from tokenizers import processors
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerFast

#: Rows of CLIP's text, the first ones of Stable Diffusion 3's.
CLIP_ROWS = 10


def clip_tokenizer() -> PreTrainedTokenizerFast:
    """With a start token, as CLIP's, so that each word is one position behind where it is among T5's."""
    made = tokenizer()
    special = [("<s>", 2), ("</s>", 1)]
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=special)
    made.model_max_length = CLIP_ROWS
    return made


def _clip(kind: type) -> Any:
    torch.manual_seed(3)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer()),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CLIP_ROWS,
        projection_dim=16,
        bos_token_id=2,
        eos_token_id=1,
    )
    return kind(config).eval()


def _sharp(model: Any, norms: str) -> Any:
    """Norms of queries and keys are sharpened: with fresh ones attention is all but uniform."""
    torch.manual_seed(7)
    model = model.eval()
    with torch.no_grad():
        for name, module in model.named_modules():
            if norms in name and name.rsplit(".", 1)[-1].startswith(("norm_q", "norm_k", "norm_added")):
                module.weight.copy_(1 + torch.rand_like(module.weight))
    return model


def _ready(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def cogvideox(dtype: torch.dtype = torch.float32, *, patch_size_t: int | None = None) -> Any:
    torch.manual_seed(0)
    model = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=32,
        num_layers=3,
        sample_width=6,
        sample_height=4,
        sample_frames=9,
        patch_size=2,
        patch_size_t=patch_size_t,
        max_text_seq_length=16,
        use_rotary_positional_embeddings=True,
    )
    return _ready(
        CogVideoXPipeline(
            tokenizer=tokenizer(),
            text_encoder=text_encoder().to(dtype),
            vae=None,
            transformer=_sharp(model, "attn1").to(dtype),
            scheduler=CogVideoXDDIMScheduler(),
        )
    )


def flux(dtype: torch.dtype = torch.float32) -> Any:
    """Two blocks of two streams, and one of a single stream."""
    torch.manual_seed(0)
    model = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=2,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 4, 8),
    )
    return _ready(
        FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=None,
            text_encoder=_clip(CLIPTextModel).to(dtype),
            tokenizer=clip_tokenizer(),
            text_encoder_2=text_encoder().to(dtype),
            tokenizer_2=tokenizer(),
            transformer=_sharp(model, "attn").to(dtype),
        )
    )


def sd3(*, t5: bool = True) -> Any:
    """With a second attention of the image alone in its first block, as version 3.5 has."""
    torch.manual_seed(0)
    model = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        out_channels=4,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    return _ready(
        StableDiffusion3Pipeline(
            transformer=_sharp(model, "attn"),
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=None,
            text_encoder=_clip(CLIPTextModelWithProjection),
            tokenizer=clip_tokenizer(),
            text_encoder_2=_clip(CLIPTextModelWithProjection),
            tokenizer_2=clip_tokenizer(),
            text_encoder_3=text_encoder() if t5 else None,
            tokenizer_3=tokenizer() if t5 else None,
        )
    )


def ltx() -> Any:
    torch.manual_seed(0)
    model = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        num_layers=3,
        caption_channels=32,
    )
    return _ready(
        LTXPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=None,
            text_encoder=text_encoder(),
            tokenizer=tokenizer(),
            transformer=_sharp(model, "attn2"),
        )
    )
