"""The language side of the experiment: a small decoder pretrained on one domain, and texts of others as tasks.

No pretrained decoder comes with foretune, so one is made here, seeded, and known by the hash of its weights. Of a text
the first words are the prompt, the next ones the response. What counts is the loss of the response; what the model
would write is not looked at. The prompt cannot be empty or constant: rows of equal prompts count as copies.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from foretune.records import Part
from foretune.tasks import Task
from foretune.tasks.schema import SPLIT_COLUMNS, Schema

OBJECTIVE = Part("response", {"max_new_tokens": 1})
PAD, UNKNOWN, END = "[PAD]", "[UNK]", "[END]"
DONE = "pretraining.json"


def text_task(name: str, words: dict[str, int], data: str) -> Task:
    """The texts of a catalog task as prompts and responses; those that hardly exceed the prompt are left out."""
    opened = Task.from_source(name, data_dir=data)
    splits = {split: _continued(table, **words) for split, table in opened.splits.items() if split != "dev"}
    return Task.from_splits(f"{name} texts", Schema("generation", metric="chrf"), splits)


def _continued(table: pa.Table, read: int, written: int) -> pa.Table:
    rows = []
    for number, text in zip(table["row"].to_pylist(), table["text"].to_pylist(), strict=True):
        words = text.split()
        if len(words) >= read + 3:
            first, rest = " ".join(words[:read]), " ".join(words[read : read + written])
            rows.append({"row": number, "text": first, "pair": None, "choices": None, "label": rest})
    return pa.Table.from_pylist(rows, SPLIT_COLUMNS)


def test_loss(folder: Path, task: Task) -> float:
    """Nats per token of the responses of ``task``'s test rows, of the run that was saved in ``folder``."""
    from foretune.training.predictor import Predictor

    engine = Predictor.load(folder).engine
    encoded = engine.objective.encode(task.splits["test"], None, engine.checkpoint)
    return engine.outputs(encoded)[1]


def pretrained(plan: dict[str, Any], data: str, cache: Path) -> tuple[Path, str]:
    """The folder of the decoder that ``plan`` describes, pretrained if it is not there; and the hash of its weights."""
    folder = cache / hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:12]
    if not (folder / DONE).exists():
        _pretrain(plan, data, folder)
    with (folder / "model.safetensors").open("rb") as file:
        return folder, hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _pretrain(plan: dict[str, Any], data: str, folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    task = Task.from_source(plan["task"], data_dir=data)
    passages = sorted({text for table in task.splits.values() for text in table["pair"].to_pylist()})
    order = np.random.default_rng(plan["seed"]).permutation(len(passages))
    held, seen = ([passages[i] for i in part] for part in np.split(order, [plan["held_out"]]))
    tokenizer = _tokenizer(seen, plan["vocabulary"])
    blocks, judged = (_blocks(tokenizer, texts, plan["length"]) for texts in (seen, held))
    torch.manual_seed(plan["seed"])
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=plan["hidden"],
            intermediate_size=3 * plan["hidden"],
            num_hidden_layers=plan["layers"],
            num_attention_heads=plan["heads"],
            num_key_value_heads=plan["heads"],
            max_position_embeddings=2 * plan["length"],
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan["lr"], betas=(0.9, 0.95), weight_decay=0.1)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, total_iters=20)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, plan["steps"])
    draws = np.random.default_rng(plan["seed"])
    epochs = -(-plan["steps"] * plan["batch_size"] // len(blocks))
    places = np.concatenate([draws.permutation(len(blocks)) for _ in range(epochs)])
    for step in range(plan["steps"]):
        batch = blocks[places[step * plan["batch_size"] : (step + 1) * plan["batch_size"]]]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        fall.step()
        warm.step()
        if (step + 1) % 50 == 0:
            print(f"pretraining: step {step + 1} of {plan['steps']}, loss {loss.item():.3f}", flush=True)
    model.eval()
    with torch.inference_mode():
        held_loss = float(model(input_ids=judged, labels=judged).loss)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    (folder / DONE).write_text(json.dumps({**plan, "held_out_loss": held_loss}) + "\n")


def _tokenizer(texts: list[str], vocabulary: int) -> Any:
    """Word pieces of lower-cased words: white space means nothing, so prompt and response join as the text did."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pieces = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=[PAD, UNKNOWN, END], show_progress=False)
    pieces.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=pieces, pad_token=PAD, unk_token=UNKNOWN, eos_token=END)


def _blocks(tokenizer: Any, texts: list[str], length: int) -> Any:
    """The texts one behind the other, each with its end, ``(n, length)``; what does not fill a block is left out."""
    import torch

    ids = [i for text in tokenizer(texts)["input_ids"] for i in (*text, tokenizer.eos_token_id)]
    return torch.tensor(ids[: len(ids) // length * length]).view(-1, length)
