"""Tiny random checkpoints of every family in the hub's format: real classes, real tokenizers, untrained weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
TEXT = "a photo of the cat dog sofa couch sky grass house tree car boat sun ball red green blue small large"
CLIP_CONTEXT = 40
_VIT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
SIGLIP_CONTEXT = 40


def build_tokenizer(*, context: int, lowercase: bool = True) -> Any:
    """A byte-level BPE tokenizer with CLIP's special tokens, trained on a few words; every string can be encoded."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    start, end = "<|startoftext|>", "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE())
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[start, end],
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    ids = [(start, tokenizer.token_to_id(start)), (end, tokenizer.token_to_id(end))]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{start} $A {end}", special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=start,
        eos_token=end,
        pad_token=end,
        unk_token=end,
        model_max_length=context,
    )


def write_preprocessor(folder: Path, *, mean: list[float], std: list[float], resample: int, **more: Any) -> None:
    """Write preprocessor_config.json as the hub's checkpoints have it."""
    content = {"image_mean": mean, "image_std": std, "resample": resample, "do_normalize": True, **more}
    (folder / "preprocessor_config.json").write_text(json.dumps(content, indent=2), encoding="utf-8")


def make_clip(folder: Path, *, seed: int = 0) -> Path:
    """CLIP: 32-pixel input, patch 8, 3 layers, text space of 24."""
    from transformers import CLIPConfig, CLIPModel

    tokenizer = build_tokenizer(context=CLIP_CONTEXT)
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": CLIP_CONTEXT,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,  # CLIP pools at this token
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    _save(CLIPModel, config, folder, seed=seed)
    tokenizer.save_pretrained(folder)
    write_preprocessor(folder, mean=CLIP_MEAN, std=CLIP_STD, resample=3, size={"shortest_edge": 32})
    return folder


def make_siglip(folder: Path, *, seed: int = 0) -> Path:
    """SigLIP: 32-pixel input, patch 8, 2 layers, text space of 32."""
    from transformers import SiglipConfig, SiglipModel

    tokenizer = build_tokenizer(context=SIGLIP_CONTEXT, lowercase=False)
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": SIGLIP_CONTEXT,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    _save(SiglipModel, SiglipConfig(text_config=text, vision_config=vision), folder, seed=seed)
    tokenizer.save_pretrained(folder)
    write_preprocessor(folder, mean=[0.5] * 3, std=[0.5] * 3, resample=2, size={"height": 32, "width": 32})
    return folder


def make_dinov2(folder: Path, *, registers: int = 0, seed: int = 0) -> Path:
    """DINOv2, with registers when their number is above 0: 32-pixel input, patch 8, 2 layers, 32 channels."""
    from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    if registers:
        config = Dinov2WithRegistersConfig(**sizes, num_register_tokens=registers)
        _save(Dinov2WithRegistersModel, config, folder, seed=seed)
    else:
        _save(Dinov2Model, Dinov2Config(**sizes), folder, seed=seed)
    write_preprocessor(
        folder,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        resample=3,
        size={"shortest_edge": 40},
        crop_size={"height": 32, "width": 32},
    )
    return folder


def make_dinov3(folder: Path, *, seed: int = 0) -> Path:
    """DINOv3: patch 8, 2 layers, 32 channels, 2 registers."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    config = DINOv3ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        num_register_tokens=2,
    )
    _save(DINOv3ViTModel, config, folder, seed=seed)
    write_preprocessor(folder, mean=IMAGENET_MEAN, std=IMAGENET_STD, resample=2, size={"height": 32, "width": 32})
    return folder


def make_dinov3_convnext(folder: Path, *, seed: int = 0) -> Path:
    """DINOv3's ConvNeXt: four stages, so patches of 32; 32 channels, 64-pixel input."""
    from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

    config = DINOv3ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], image_size=64)
    _save(DINOv3ConvNextModel, config, folder, seed=seed)
    write_preprocessor(folder, mean=IMAGENET_MEAN, std=IMAGENET_STD, resample=2, size={"height": 64, "width": 64})
    return folder


def make_mae(folder: Path, *, seed: int = 0) -> Path:
    """MAE as published, decoder included: 32-pixel input, patch 8, 2 layers, 32 channels, three quarters masked."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    decoder = {
        "decoder_hidden_size": 16,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 32,
    }
    config = ViTMAEConfig(**_VIT, **decoder, mask_ratio=0.75)
    _save(ViTMAEForPreTraining, config, folder, seed=seed)
    write_preprocessor(folder, mean=IMAGENET_MEAN, std=IMAGENET_STD, resample=3, size={"height": 32, "width": 32})
    return folder


def make_vit(folder: Path, *, seed: int = 0) -> Path:
    """ViT with a pooler: 32-pixel input, patch 8, 2 layers, 32 channels."""
    from transformers import ViTConfig, ViTModel

    _save(ViTModel, ViTConfig(**_VIT), folder, seed=seed)
    write_preprocessor(folder, mean=[0.5] * 3, std=[0.5] * 3, resample=2, size={"height": 32, "width": 32})
    return folder


def make_sam(folder: Path, *, image_size: int = 96, seed: int = 0) -> Path:
    """SAM: 96-pixel input, patch 8, 2 layers (one of windows, one global), 16 channels."""
    from transformers import SamConfig, SamModel

    vision = {
        "hidden_size": 32,
        "output_channels": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": image_size,
        "patch_size": 8,
        "window_size": 5,
        "global_attn_indexes": [1],
        "num_pos_feats": 8,
        "mlp_dim": 64,
        "initializer_range": 0.05,
    }
    prompt = {"hidden_size": 16, "image_size": image_size, "patch_size": 8, "mask_input_channels": 8}
    decoder = {"hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    _save(SamModel, config, folder, seed=seed)
    write_preprocessor(
        folder,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        resample=2,
        size={"longest_edge": image_size},
        pad_size={"height": image_size, "width": image_size},
    )
    return folder


def make_sam2(folder: Path, *, image_size: int = 128, video: bool = False, seed: int = 0) -> Path:
    """SAM 2: 128-pixel input, cells of 16, five blocks, 32 channels.

    With `video` the checkpoint is one of `Sam2VideoModel`, with the memory for videos: such are the published ones.
    """
    from transformers import (
        Sam2Config,
        Sam2HieraDetConfig,
        Sam2Model,
        Sam2VideoConfig,
        Sam2VideoModel,
        Sam2VisionConfig,
    )

    backbone = Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[image_size, image_size],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 2],
        window_size_per_stage=[8, 4, 4, 2],
        global_attention_blocks=[3],  # never a stage's first block, which pools its queries
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[image_size // stride] * 2 for stride in (4, 8, 16)],
        fpn_hidden_size=32,
    )
    prompt = {"hidden_size": 32, "image_size": image_size, "patch_size": 16, "mask_input_channels": 8}
    decoder = {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    parts: dict[str, Any] = {
        "vision_config": vision,
        "prompt_encoder_config": prompt,
        "mask_decoder_config": decoder,
    }
    if video:
        memory: dict[str, Any] = {
            "image_size": image_size,
            "memory_attention_hidden_size": 32,
            "memory_attention_num_layers": 1,
            "memory_attention_feed_forward_hidden_size": 32,
            "memory_attention_rope_feat_sizes": [image_size // 16] * 2,
            "memory_encoder_hidden_size": 32,
            "memory_encoder_output_channels": 16,
            "mask_downsampler_embed_dim": 32,
            "memory_fuser_num_layers": 1,
            "memory_fuser_embed_dim": 32,
            "memory_fuser_intermediate_dim": 32,
        }
        _save(Sam2VideoModel, Sam2VideoConfig(**parts, **memory), folder, seed=seed)
    else:
        _save(Sam2Model, Sam2Config(**parts), folder, seed=seed)
    write_preprocessor(
        folder, mean=IMAGENET_MEAN, std=IMAGENET_STD, resample=2, size={"height": image_size, "width": image_size}
    )
    return folder


def _randomise(parameter: torch.nn.Parameter) -> None:
    """Give every weight a value that matters: zeros (positions, biases) and tiny scales would hide mistakes."""
    if parameter.ndim < 2:
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    else:
        parameter.data.normal_(std=parameter[0].numel() ** -0.5)


def _save(model_class: Any, config: Any, folder: Path, *, seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config)
        for parameter in model.parameters():
            _randomise(parameter)
    model.save_pretrained(folder)
