"""Landmarks: what the frozen base model makes of a task's training rows, in seconds and before anything is trained.

Features of the task *with this model*, for the task's card: how the tokenizer cuts the text, how far a linear model
on the frozen embedding gets, LogME, and the loss of the untrained model. Training rows alone are read, at most
``ROWS`` of them, evenly spaced, so that it is a function of the rows and costs the same for any data set. What a
model or a task does not have (a language-model head, labels) is absent.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from foretune.errors import DataError, ModelError, ResourceError
from foretune.evaluation import logme, probe
from foretune.evaluation.metrics import spearman
from foretune.models import Checkpoint, FrozenModel, build, open_checkpoint
from foretune.objectives import Encoded, Objective, for_kind
from foretune.objectives import make as make_objective
from foretune.records import UNLABELLED, Part
from foretune.tasks import Task
from foretune.training.floors import frozen_features

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

ROWS, ZERO_SHOT, FOLDS = 256, 64, 3

JUDGED = 0.5
"""Share of the rows that the probe must be able to judge. A class with a single row is in no fit that leaves this row
out, so it cannot be answered; below half of the rows a score would be that of a task with fewer classes."""


def landmarks(task: Task, train: pa.Table, frozen: FrozenModel) -> dict[str, float]:
    """Features of ``train`` as ``frozen`` sees it, by name; ``docs/meta_data.md`` says what each is.

    Args:
        task: whose schema says what the labels are.
        train: the rows that may be learned from.
        frozen: the base model.
    """
    kind, checkpoint = task.schema.kind, frozen.checkpoint
    rows = _spread(train, ROWS)
    encoded = make_objective(Part(for_kind(kind))).encode(rows, None, checkpoint)
    found = _tokens(rows, encoded, checkpoint)
    if kind in ("classification", "regression") and len(encoded) == len(rows):
        found |= _embedding(task, rows, encoded, frozen)
    return found | _zero_shot(kind, _spread(train, ZERO_SHOT), checkpoint, frozen.device)


def _spread(table: pa.Table, most: int) -> pa.Table:
    """At most ``most`` rows, evenly spaced."""
    return table.take(np.unique(np.linspace(0, len(table) - 1, min(most, len(table))).astype(np.int64)))


def _tokens(rows: pa.Table, encoded: Encoded, checkpoint: Checkpoint) -> dict[str, float]:
    """How the tokenizer reads the rows; special tokens are counted, as the model reads them too."""
    starts = np.concatenate([[0], np.cumsum(encoded.tokens.lengths)])
    lengths = np.diff(starts[encoded.groups]).astype(float)
    p50, p95 = np.percentile(lengths, [50, 95])
    found = {"tokens_mean": lengths.mean(), "tokens_p50": p50, "tokens_p95": p95, "tokens_max": lengths.max()}
    texts = [
        f"{text or ''} {pair or ''}"
        for text, pair in zip(*(rows[n].to_pylist() for n in ("text", "pair")), strict=True)
    ]
    ids = checkpoint.tokenizer(texts, add_special_tokens=False)["input_ids"]
    pieces, words = sum(map(len, ids)), sum(len(text.split()) for text in texts)
    if words and pieces:
        unknown = checkpoint.tokenizer.unk_token_id
        found["tokens_per_word"] = pieces / words
        found["unknown_rate"] = sum(i == unknown for line in ids for i in line) / pieces
    return {name: float(value) for name, value in found.items()}


def _embedding(task: Task, rows: pa.Table, encoded: Encoded, frozen: FrozenModel) -> dict[str, float]:
    """LogME and the out-of-fold score of a linear model, on the frozen embedding."""
    kind, targets = task.schema.kind, task.targets(rows)
    vectors = frozen_features(frozen, encoded)
    found = {"landmark_logme": logme(vectors, targets, kind)}
    fold = np.empty(len(targets), np.int64)
    fold[np.argsort(targets, kind="stable")] = np.arange(len(targets)) % FOLDS  # equal shares of every class
    parts = [(fold != part, fold == part) for part in range(FOLDS)]
    if any(len(np.unique(targets[learn])) < 2 or not judge.any() for learn, judge in parts):
        return found
    classes = len(task.schema.labels)
    guesses = [probe(vectors[learn], targets[learn], vectors[judge], kind, classes) for learn, judge in parts]
    truth = np.concatenate([targets[judge] for _, judge in parts])
    guess = np.concatenate(guesses)
    if kind == "classification":
        known = np.concatenate([np.isin(targets[judge], targets[learn]) for learn, judge in parts])
        right = guess.argmax(1) == truth
        return found | ({"landmark_probe": float(right[known].mean())} if known.mean() >= JUDGED else {})
    agreed = spearman(truth, guess)
    return found | {"landmark_probe": agreed} if np.isfinite(agreed) else found


def _zero_shot(kind: str, rows: pa.Table, checkpoint: Checkpoint, device: torch.device) -> dict[str, float]:
    """Mean and standard deviation over rows of the untrained model's loss per token; nothing without a head.

    The loss of the response where there is one, else that of the text (masked for an encoder).
    """
    import torch

    objective = make_objective(Part(for_kind(kind if kind == "generation" else UNLABELLED)))
    try:
        opened = open_checkpoint(replace(checkpoint.ref, pooling="none"), kind)
        encoded = objective.encode(rows, None, opened)
        network = build(opened, 0)
    except (ModelError, DataError, ResourceError):
        return {}
    network.module.to(device).eval()
    objective = objective.fitted(encoded, opened)
    with torch.inference_mode():
        losses = [_loss(objective, network.module, encoded, place, opened, device) for place in range(len(encoded))]
    known = np.array([loss for loss in losses if np.isfinite(loss)])
    return {"zero_shot_loss": float(known.mean()), "zero_shot_spread": float(known.std())} if known.size else {}


def _loss(
    objective: Objective,
    model: torch.nn.Module,
    encoded: Encoded,
    place: int,
    checkpoint: Checkpoint,
    device: torch.device,
) -> float:
    index = np.array([place])
    batch = {name: value.to(device) for name, value in objective.batch(encoded, index, checkpoint).items()}
    return float(objective.loss(model, batch)) / max(objective.weight(encoded, index), 1)
