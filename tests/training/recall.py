"""A language model that looks up its context, made by hand: what was said after this word the last time? Not a test.

Two attention layers without anything else (an induction head: Elhage et al. 2021, Olsson et al. 2022). The first
copies to every word the one before it; the second finds the places whose word before is the present one, and copies
what stands there. So the meaning of a symbol is what its context says, and without a context there is none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

SYMBOLS, NOISE = ("ruby", "opal", "jade", "onyx"), tuple(f"n{i}" for i in range(40))
RULE = {"ruby": "warm", "opal": "cold", "jade": "cold", "onyx": "warm"}
LABELS = ("cold", "warm")
WORDS = ("[PAD]", "</s>", "[UNK]", "so", *LABELS, *SYMBOLS, *NOISE)
POSITIONS = 64
PATTERN = {"pattern": "{text} {answer}", "separator": " so "}


def rows(first: int = 0, last: int = len(NOISE)) -> list[dict[str, str]]:
    """Rows of the planted rule: a word that says nothing, a symbol, and what the symbol means."""
    return [{"text": f"{noise} {symbol}", "label": RULE[symbol]} for noise in NOISE[first:last] for symbol in SYMBOLS]


def checkpoint(folder: Path) -> Path:
    """Save the model, as a GPT-2 of two layers, with its tokenizer of whole words."""
    size = len(WORDS)
    config = transformers.GPT2Config(
        vocab_size=size, n_embd=3 * size + POSITIONS, n_layer=2, n_head=1, n_inner=8, n_positions=POSITIONS,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=1, eos_token_id=1, pad_token_id=0,
        tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config)
    with torch.no_grad():
        _fill(model, size)
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def _fill(model: Any, size: int) -> None:
    """The width holds the word, the word before, what was found, and the place, each as a one among zeros."""
    word, before, found = slice(0, size), slice(size, 2 * size), slice(2 * size, 3 * size)
    place, width = slice(3 * size, 3 * size + POSITIONS), 3 * size + POSITIONS
    body, sharp = model.transformer, 20.0 * width**0.25
    body.wte.weight.zero_()[:, word] = torch.eye(size)
    body.wpe.weight.zero_()[:, place] = torch.eye(POSITIONS)
    for ones, block in zip((2, 3), body.h, strict=True):
        mean = ones / width
        block.ln_1.weight.fill_((mean - mean**2) ** 0.5)
        block.ln_1.bias.fill_(mean)
        block.attn.c_attn.weight.zero_()
        block.attn.c_attn.bias.zero_()
        block.attn.c_proj.weight.copy_(torch.eye(width))
        block.mlp.c_proj.weight.zero_()
    query, key, value = slice(0, width), slice(width, 2 * width), slice(2 * width, 3 * width)
    first, second = (block.attn.c_attn.weight for block in body.h)
    first[:, query][place, place] = sharp * torch.diag(torch.ones(POSITIONS - 1), -1)
    first[:, key][place, place] = sharp * torch.eye(POSITIONS)
    first[:, value][word, before] = torch.eye(size)
    second[:, query][word, word] = sharp * torch.eye(size)
    second[:, key][before, word] = sharp * torch.eye(size)
    second[:, value][word, found] = torch.eye(size)
    model.lm_head.weight.zero_()[:, found] = torch.eye(size)


def _tokenizer() -> transformers.PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", bos_token="</s>", eos_token="</s>", unk_token="[UNK]"
    )
