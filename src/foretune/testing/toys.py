"""Tiny random networks of ten architectures, made from configurations: two layers, width 16, a vocabulary of 40.

They prove plumbing, not accuracy. Equal arguments give equal weights; no file and no network connection is needed.
"""

from __future__ import annotations

import copy
import csv
import itertools
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretune.models.network import quiet
from foretune.records import UNLABELLED

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

VOCABULARY = 40
PADDING = 0
WORDS = (
    *("good", "nice", "fine", "great"),
    *("bad", "poor", "sad", "awful"),
    *("the", "film", "was", "food", "a", "very", "and", "it", "one", "two", "three", "four"),
)
"""What the toys' tokenizer knows besides its three special tokens; the first four are kind, the next four are not."""

CHAT = "{{ bos_token }}{% for turn in messages %}a {{ turn['content'] }} {% endfor %}the"
"""A chat template in words of the toys: it opens with the start token and ends where the answer begins."""

LENGTH = 32
"""Positions of the models that have a table of them (RoBERTa's usable ones: one less)."""

WINDOW = 8
"""What the first layer of Gemma 3 sees of a text; its second sees all."""

ENCODERS = ("bert", "roberta", "distilbert", "modernbert", "deberta-v2")
DECODERS = ("llama", "qwen3", "gpt2", "gemma3")
ARCHITECTURES = (*ENCODERS, *DECODERS, "t5")

KINDS = ("sequence", "token", "language")
"""One row of logits per text; one per token; a model that writes (decoders and T5)."""


def network(
    name: str, kind: str = "sequence", *, labels: int = 3, dropout: float = 0.0, seed: int = 0
) -> PreTrainedModel:
    """A random network in evaluation mode.

    Args:
        name: one of ``ARCHITECTURES``.
        kind: one of ``KINDS``.
        labels: logits per text or token; unused by language models.
        dropout: at every place where the architecture has one.
        seed: of the weights; torch's global generator is left as it was.

    >>> network("bert").config.num_labels
    3
    """
    import torch
    import transformers

    auto = {
        "sequence": transformers.AutoModelForSequenceClassification,
        "token": transformers.AutoModelForTokenClassification,
        "language": transformers.AutoModelForSeq2SeqLM if name == "t5" else transformers.AutoModelForCausalLM,
    }
    made = copy.deepcopy(config(name, dropout))
    if kind != "language":
        made.num_labels = labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return auto[kind].from_config(made).eval()


def loud(model: PreTrainedModel, times: float = 10.0) -> PreTrainedModel:
    """The same network with its matrices multiplied: what it computes then depends visibly on every input."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(times)
    return model


def fresh(model: PreTrainedModel) -> tuple[str, ...]:
    """What a checkpoint trained on plain text would lack: the modules beside the backbone, and BERT's pooler.

    >>> fresh(network("distilbert"))
    ('pre_classifier', 'classifier')
    """
    if "Classification" not in type(model).__name__:
        return ()
    names = tuple(n for n, m in model.named_children() if m is not model.base_model and list(m.parameters()))
    return ("bert.pooler", *names) if type(model).__name__ == "BertForSequenceClassification" else names


def batch(
    model: PreTrainedModel, lengths: tuple[int, ...] = (6, 4, 5), *, width: int | None = None, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Random token ids, padded on the right to ``width`` (the longest), with their mask; the decoder's ids for T5.

    Every text ends in token 1, the end token of the toys.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), width or max(lengths))
    ids = torch.randint(2, VOCABULARY, (len(lengths), max(lengths)), generator=generator)
    ids = torch.nn.functional.pad(ids, (0, shape[1] - ids.shape[1]))
    ends = torch.tensor(lengths)[:, None]
    places = torch.arange(shape[1])[None, :]
    ids = ids.masked_fill(places == ends - 1, 1).masked_fill(places >= ends, PADDING)
    made = {"input_ids": ids, "attention_mask": (places < ends).long()}
    if type(model).__name__.endswith("ForConditionalGeneration"):
        made["decoder_input_ids"] = ids[:, :3].clone()
    return made


def tokenizer(name: str, chat: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words for the toy ``name``, with the special tokens where its family has them.

    Ids 0, 1 and 2 are padding, start and end at once, and unknown; the last one is an encoder's mask.

    >>> tokenizer("bert")("good film")["input_ids"], tokenizer("llama")("good film")["input_ids"]
    ([1, 3, 12, 1], [1, 3, 12])
    """
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    masks = ("[MASK]",) if name in ENCODERS else ()
    known = {word: i for i, word in enumerate(("[PAD]", "</s>", "[UNK]", *WORDS, *masks))}
    words = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    single, pair = {
        "encoder": ("</s> $A </s>", "</s> $A </s> $B:1 </s>:1"),
        "decoder": ("</s> $A", "</s> $A $B:1"),
        "t5": ("$A </s>", "$A </s> $B:1 </s>:1"),
    }["encoder" if name in ENCODERS else "decoder" if name in DECODERS else "t5"]
    words.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=[("</s>", 1)])
    types = ["token_type_ids"] if name == "bert" else []
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="[PAD]",
        bos_token="</s>",
        eos_token="</s>",
        unk_token="[UNK]",
        mask_token=masks[0] if masks else None,
        model_input_names=["input_ids", *types, "attention_mask"],
    )
    made.chat_template = CHAT if chat else None
    return made


def checkpoint(folder: Path, name: str, *, chat: bool = False, seed: int = 0, **settings: Any) -> Path:
    """Save the toy ``name`` as a pretrained checkpoint: weights of the language model, configuration, tokenizer.

    Args:
        folder: where to; created.
        name: one of ``ARCHITECTURES``.
        chat: the tokenizer has a chat template.
        seed: of the weights.
        settings: fields of the configuration to be set otherwise, such as ``hidden_dropout_prob=0.1``.

    Returns:
        ``folder``.
    """
    import torch
    import transformers

    made = copy.deepcopy(config(name))
    made.update(settings)
    auto = transformers.AutoModelForSeq2SeqLM if name == "t5" else transformers.AutoModelForCausalLM
    auto = transformers.AutoModelForMaskedLM if name in ENCODERS else auto
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        auto.from_config(made).save_pretrained(folder)
    tokenizer(name, chat).save_pretrained(folder)
    return folder


def rows(kind: str) -> list[dict[str, Any]]:
    """48 rows of ``kind`` (one of ``records.KINDS``) that a toy can learn: is the word in them kind or not?

    A choice offers two or three candidates, of which one is kind. ``records.UNLABELLED`` rows are the texts alone.

    >>> rows("classification")[0], rows("choice")[1]["choices"]
    ({'text': 'the good film was', 'label': 'good'}, ['film', 'good', 'bad'])
    """
    made: list[dict[str, Any]] = []
    for i, (place, noun, very) in enumerate(itertools.product(range(8), ("film", "food"), range(3))):
        text = f"the {WORDS[place]} {noun} was" + " very" * very
        own, other = WORDS[place % 4], WORDS[place % 4 + 4]
        label, number = ("good", "1.5") if place < 4 else ("bad", "-0.5")
        row: dict[str, dict[str, Any]] = {
            "classification": {"text": text, "label": label},
            "regression": {"text": text, "label": number},
            "choice": {
                "text": f"one {noun} was" + " and" * place + " very" * very,
                "choices": [[own, other], [noun, own, other], [other, own]][i % 3],
                "label": str(int(i % 3 > 0)),
            },
            "generation": {"prompt": text, "response": label},
            UNLABELLED: {"text": text},
        }
        made.append(row[kind])
    return made


def table(path: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    """Write ``records``, which have the columns of the first, as CSV to ``path``; returns it."""
    records = list(records)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    return path


@cache
def config(name: str, dropout: float = 0.0) -> PreTrainedConfig:
    """The configuration behind ``network``; copy it before changing it."""
    import transformers

    size: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_token_id": PADDING, "bos_token_id": 1, "eos_token_id": 1}
    stack = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    hidden = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    match name:
        case "bert":
            return transformers.BertConfig(**size, **stack, **hidden, max_position_embeddings=LENGTH)
        case "roberta":
            return transformers.RobertaConfig(
                **size, **stack, **hidden, max_position_embeddings=LENGTH, type_vocab_size=1
            )
        case "distilbert":
            return transformers.DistilBertConfig(
                **size,
                dim=16,
                n_layers=2,
                n_heads=2,
                hidden_dim=24,
                dropout=dropout,
                attention_dropout=dropout,
                seq_classif_dropout=dropout,
                max_position_embeddings=LENGTH,
            )
        case "modernbert":
            return transformers.ModernBertConfig(
                **size,
                **stack,
                cls_token_id=1,
                sep_token_id=1,
                attention_dropout=dropout,
                mlp_dropout=dropout,
                embedding_dropout=dropout,
                classifier_dropout=dropout,
                max_position_embeddings=LENGTH,
            )
        case "deberta-v2":
            return transformers.DebertaV2Config(
                **size,
                **stack,
                **hidden,
                pooler_dropout=dropout,
                relative_attention=True,
                position_biased_input=False,
                pos_att_type=["p2c", "c2p"],
                max_position_embeddings=LENGTH,
            )
        case "llama":
            return transformers.LlamaConfig(
                **size, **stack, num_key_value_heads=1, attention_dropout=dropout, max_position_embeddings=LENGTH
            )
        case "qwen3":
            return transformers.Qwen3Config(
                **size,
                **stack,
                num_key_value_heads=1,
                head_dim=8,
                attention_dropout=dropout,
                max_position_embeddings=LENGTH,
            )
        case "gemma3":
            return transformers.Gemma3TextConfig(
                **size,
                **stack,
                num_key_value_heads=1,
                head_dim=8,
                query_pre_attn_scalar=8,
                attention_dropout=dropout,
                max_position_embeddings=LENGTH,
                sliding_window=WINDOW,
                layer_types=["sliding_attention", "full_attention"],
            )
        case "gpt2":
            return transformers.GPT2Config(
                **size,
                n_embd=16,
                n_layer=2,
                n_head=2,
                n_inner=24,
                n_positions=LENGTH,
                resid_pdrop=dropout,
                embd_pdrop=dropout,
                attn_pdrop=dropout,
                classifier_dropout=dropout,
            )
        case "t5":
            return transformers.T5Config(
                **size,
                d_model=16,
                d_kv=8,
                d_ff=24,
                num_layers=2,
                num_heads=2,
                dropout_rate=dropout,
                classifier_dropout=dropout,
                decoder_start_token_id=PADDING,
            )
    raise KeyError(f"`{name}` is not a toy. Known: {', '.join(ARCHITECTURES)}.")
