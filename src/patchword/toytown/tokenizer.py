"""A small byte-pair tokenizer of CLIP's kind, learned from Toytown's captions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from transformers import CLIPTokenizer

from patchword.toytown.captions import caption, describe
from patchword.toytown.world import COLOURS, Scene

START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(scenes: list[Scene], *, out: Path, size: int, context: int, seed: int = 0) -> CLIPTokenizer:
    """Learn byte pairs from captions and save the tokenizer in the hub's format.

    Args:
        scenes: whose captions are the text.
        out: folder to save to.
        size: number of tokens, the two special ones included.
        context: longest prompt in tokens.
        seed: of the captions.

    Returns:
        the tokenizer; text outside the captions falls back to single bytes.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(alphabet) - 2,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    generator = np.random.default_rng(seed)
    lines = [caption(describe(scene, generator=generator), generator=generator) for scene in scenes]
    lines += [f"a photo of a {colour}." for colour in COLOURS] * 20
    # The pre-tokenizer of CLIP drops blanks; learning from bare words keeps them out of the merges.
    learner.train_from_iterator(
        (word for line in lines for word in line.replace(".", " .").replace(",", " ,").split()), trainer
    )
    merges = [tuple(pair) for pair in _merges(learner)]
    tokens = sorted(alphabet) + [token + "</w>" for token in sorted(alphabet)] + ["".join(pair) for pair in merges]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys([*tokens, START, END]))}
    tokenizer = CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        unk_token=END,
        model_max_length=context,
    )
    tokenizer.save_pretrained(out)
    return tokenizer


def _merges(learner: object) -> list[list[str]]:
    import json

    return [
        pair if isinstance(pair, list) else pair.split(" ") for pair in json.loads(learner.to_str())["model"]["merges"]
    ]  # type: ignore[attr-defined]
