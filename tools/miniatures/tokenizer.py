"""A small byte-pair tokenizer of CLIP's kind, learned from Toytown's captions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchword.errors import PatchwordError
from patchword.toytown.classes import COLOURS
from patchword.toytown.world import Scene
from tools.miniatures.captions import caption, describe

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(scenes: list[Scene], *, out: Path, size: int, context: int, seed: int = 0) -> CLIPTokenizer:
    """Learn byte pairs from captions and save the tokenizer in the hub's format.

    Args:
        scenes: whose captions are the text.
        out: folder to save to.
        size: most tokens, the two special ones included; 512 of them are single bytes.
        context: longest prompt in tokens.
        seed: of the captions.

    Returns:
        the tokenizer; text outside the captions falls back to single bytes.

    Raises:
        PatchwordError: on a size too small for them.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    endings = [token + "</w>" for token in alphabet]
    least = len(alphabet) + len(endings) + 2
    if size < least:
        raise PatchwordError(f"a tokenizer of {size} tokens; it needs at least {least}")
    trainer = trainers.BpeTrainer(
        vocab_size=size - 2,
        initial_alphabet=alphabet,
        # The learner breaks ties by number, and numbers word endings in the order of a hash unless they come numbered.
        special_tokens=endings,
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
    merges = _merges(learner)
    tokens = dict.fromkeys([*alphabet, *endings, *("".join(pair) for pair in merges), START, END])
    vocabulary = {token: number for number, token in enumerate(tokens)}
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


def _merges(learner: Any) -> list[tuple[str, str]]:
    """The learned pairs in order; only the learner's own file has them, as lists or, in older versions, as strings."""
    pairs = json.loads(learner.to_str())["model"]["merges"]
    return [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in pairs]
