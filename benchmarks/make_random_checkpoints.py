"""Make full-size checkpoints with random weights, for measuring speed and memory where no weights can be fetched.

    python benchmarks/make_random_checkpoints.py FOLDER [--seed N] [--only NAME ...]

Each is of the published architecture (widths, depths, patch and input sizes of the transformers configs), in the hub's
format, so that every command takes its folder where it takes a hub name. What such models say is nonsense; how long
they take and how much memory they need is real. The tokenizer is byte-level, of CLIP's vocabulary size, and its merges
are made up: a prompt has about twice the tokens that it has for CLIP. Existing folders are kept.

| folder | architecture | size |
|---|---|---|
| clip-vit-base-patch16 | CLIP ViT-B/16, 224 pixels | 0.6 GB |
| dinov2-base | DINOv2 ViT-B/14, 518 pixels | 0.35 GB |
| dinov2-small | DINOv2 ViT-S/14, 518 pixels | 0.1 GB |
| sam-vit-base | SAM ViT-B/16, 1024 pixels | 0.4 GB |
| sam2.1-hiera-tiny | SAM 2.1 Hiera-T, 1024 pixels, images only | 0.15 GB |
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CLIP_VOCABULARY = 49408
START, END = "<|startoftext|>", "<|endoftext|>"


def make_clip(folder: Path) -> None:
    """CLIP ViT-B/16 as openai/clip-vit-base-patch16."""
    from transformers import CLIPConfig, CLIPModel

    tokenizer = make_tokenizer()
    text = {
        "vocab_size": CLIP_VOCABULARY,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    CLIPModel(CLIPConfig(text_config=text, vision_config={"patch_size": 16})).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_preprocessor(folder, mean=CLIP_MEAN, std=CLIP_STD, resample=3)


def make_dinov2_base(folder: Path) -> None:
    """DINOv2 ViT-B/14 as facebook/dinov2-base."""
    _make_dinov2(folder, hidden_size=768, num_attention_heads=12)


def make_dinov2_small(folder: Path) -> None:
    """DINOv2 ViT-S/14 as facebook/dinov2-small."""
    _make_dinov2(folder, hidden_size=384, num_attention_heads=6)


def make_sam(folder: Path) -> None:
    """SAM ViT-B/16 as facebook/sam-vit-base."""
    from transformers import SamConfig, SamModel

    vision = {"initializer_range": 0.02}  # the default of 1e-10 leaves all pixels alike
    SamModel(SamConfig(vision_config=vision)).save_pretrained(folder)
    write_preprocessor(folder, mean=IMAGENET_MEAN, std=IMAGENET_STD, resample=2)


def make_sam2(folder: Path) -> None:
    """SAM 2.1 Hiera-T as facebook/sam2.1-hiera-tiny, without the memory for videos."""
    from transformers import Sam2Config, Sam2Model

    Sam2Model(Sam2Config()).save_pretrained(folder)
    write_preprocessor(folder, mean=IMAGENET_MEAN, std=IMAGENET_STD, resample=2)


MAKERS: dict[str, Callable[[Path], None]] = {
    "clip-vit-base-patch16": make_clip,
    "dinov2-base": make_dinov2_base,
    "dinov2-small": make_dinov2_small,
    "sam-vit-base": make_sam,
    "sam2.1-hiera-tiny": make_sam2,
}


def make_tokenizer() -> Any:
    """A byte-level BPE tokenizer of CLIP's size and special tokens, lower case, every string allowed."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pairs = [
        (first, second) for first in letters for second in letters
    ]  # two letters a token, in the order of the alphabet
    tokens = [START, END, *alphabet, *("".join(pair) for pair in pairs)]
    fillers = [f"<|unused{number}|>" for number in range(CLIP_VOCABULARY - len(tokens))]
    vocabulary = {token: index for index, token in enumerate([*tokens, *fillers])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    ends = [(START, vocabulary[START]), (END, vocabulary[END])]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        unk_token=END,
        model_max_length=77,
    )


def write_preprocessor(folder: Path, *, mean: list[float], std: list[float], resample: int) -> None:
    """Write preprocessor_config.json: mean, standard deviation, Pillow's number of the resizing filter."""
    content = {"image_mean": mean, "image_std": std, "resample": resample}
    (folder / "preprocessor_config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def make_checkpoint(name: str, folder: Path, *, seed: int) -> None:
    """Make one checkpoint in a folder of its own, whole or not at all."""
    import torch

    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    torch.manual_seed(seed)
    MAKERS[name](unfinished)
    unfinished.rename(folder)


def main() -> None:
    """Make the checkpoints named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="scratch folder, made when it is not there")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes (default 0)")
    parser.add_argument("--only", nargs="+", choices=list(MAKERS), default=list(MAKERS), metavar="NAME")
    arguments = parser.parse_args()
    for name in arguments.only:
        folder = arguments.folder / name
        if not folder.exists():
            make_checkpoint(name, folder, seed=arguments.seed)
        sys.stdout.write(f"{folder}\n")


def _make_dinov2(folder: Path, *, hidden_size: int, num_attention_heads: int) -> None:
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=hidden_size, num_attention_heads=num_attention_heads, image_size=518, patch_size=14
    )
    Dinov2Model(config).save_pretrained(folder)
    write_preprocessor(folder, mean=IMAGENET_MEAN, std=IMAGENET_STD, resample=3)


if __name__ == "__main__":
    main()
