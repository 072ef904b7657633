"""The teacher's passes: the untrained model answers unlabelled texts and the splits that are judged, once.

Its answers are kept beside the remembered runs, in a file named by what was asked (model, contexts, texts, splits,
temperature): a resumed run and runs with another tuner or another rate read them there.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foretune.errors import DataError, StoreError
from foretune.evaluation import softmax
from foretune.models import Checkpoint
from foretune.objectives.distillation import answer_logits
from foretune.objectives.pattern import PatternObjective
from foretune.objectives.taught import Lesson, Taught, kept, mixed
from foretune.records import Teaching, digest
from foretune.store.journal import default_folder
from foretune.tasks.keys import digest_rows
from foretune.training.batches import by_length
from foretune.training.surroundings import is_main

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torch import nn

TEACHERS = "teachers"
"""The folder of kept answers in a store."""

FORMAT = 2
"""Of the kept answers; in the first one the seconds of the references were among those of learning."""

ROWS, TOKENS = 32, 8192
"""Texts and padded tokens of one pass: contexts are long."""


@dataclass(frozen=True)
class Lessons:
    """What the teacher said.

    Attributes:
        told: for the record; without scores yet.
        taught: of the unlabelled texts.
        with_context, without_context: split -> probabilities of the labels' words ``(n, C)``, which sum to 1.
    """

    told: Teaching
    taught: Taught
    with_context: Mapping[str, np.ndarray]
    without_context: Mapping[str, np.ndarray]


def ask(
    lesson: Lesson,
    model: nn.Module,
    tables: Mapping[str, pa.Table],
    checkpoint: Checkpoint,
    device: torch.device,
    folder: Path | None = None,
) -> Lessons:
    """Ask the untrained ``model``, or read what it said when the same was asked before.

    Args:
        tables: split -> rows; all but ``train`` are answered, with contexts and without.
        folder: where answers are kept; None: ``teachers`` in the folder of remembered runs.

    Raises:
        DataError: demonstrations and a row do not fit into the length limit together.
        StoreError: the answers cannot be read or written.
    """
    judged = {name: table for name, table in tables.items() if name != "train"}
    key = digest(
        {
            "model": asdict(replace(checkpoint.ref, name="", revision=None)),
            "readers": [asdict(reader) for reader in (lesson.student, *lesson.teachers)],
            "texts": digest_rows(lesson.table),
            "splits": {name: digest_rows(table) for name, table in judged.items()},
            "tau": lesson.tau,
            "top": lesson.top,
            "format": FORMAT,
        }
    )
    path = (folder or default_folder() / TEACHERS) / f"{key}.safetensors"
    found = _read(path, key)
    if found is None:
        model.to(device).eval()
        found = _asked(lesson, model, judged, checkpoint, device, key)
        if is_main():
            _write(path, found)
    return found


def _asked(
    lesson: Lesson,
    model: nn.Module,
    judged: Mapping[str, pa.Table],
    checkpoint: Checkpoint,
    device: torch.device,
    key: str,
) -> Lessons:
    began, tokens, judged_tokens = time.perf_counter(), 0, 0
    ids: np.ndarray | None = None
    shares = np.zeros((len(lesson.table), 0), np.float32)
    for rows, logits, read in _passes(lesson.teachers, model, lesson.table, checkpoint, device):
        best, chance = kept(mixed(logits, lesson.tau), lesson.top)
        if ids is None:
            ids = np.zeros((len(lesson.table), best.shape[1]), np.int64)
            shares = np.zeros((len(lesson.table), chance.shape[1]), np.float32)
        ids[rows], shares[rows] = best.cpu().numpy(), chance.cpu().numpy()
        tokens += read
    assert ids is not None
    taught = time.perf_counter()
    answers: dict[str, dict[str, np.ndarray]] = {"with": {}, "without": {}}
    words = [answer[0] for answer in lesson.student.answers]
    for name, table in judged.items():
        for side, readers in (("with", lesson.teachers), ("without", (lesson.student,))):
            scores = np.zeros((len(table), len(words)))
            for rows, logits, read in _passes(readers, model, table, checkpoint, device):
                scores[rows] = mixed(logits)[:, words].log().double().cpu().numpy()
                judged_tokens += read
            answers[side][name] = softmax(scores)
    told = Teaching(
        key,
        texts=len(lesson.table),
        left_out=lesson.left_out,
        shown=tuple(teacher.shown for teacher in lesson.teachers),
        seconds=taught - began,
        tokens=tokens,
        judged_seconds=time.perf_counter() - taught,
        judged_tokens=judged_tokens,
    )
    return Lessons(told, Taught(ids, shares, np.ones(len(ids), bool)), answers["with"], answers["without"])


def _passes(
    readers: Sequence[PatternObjective],
    model: nn.Module,
    table: pa.Table,
    checkpoint: Checkpoint,
    device: torch.device,
) -> Iterator[tuple[np.ndarray, list[torch.Tensor], int]]:
    """Places of rows, the logits ``(b, vocabulary)`` that each reader gets for them, and the tokens that were read."""
    import torch

    encoded = [reader.encode(table, None, checkpoint) for reader in readers]
    long = max(each.cut for each in encoded)
    if long and readers[0].in_context:
        raise DataError(
            f"Demonstrations and text must fit into {checkpoint.ref.max_length} tokens together, but {long} of "
            f"{len(table)} texts do not. Use a larger `--max-length` (if the model has the positions), fewer "
            "demonstrations, or drop the long texts."
        )
    longest = np.max([e.lengths for e in encoded], axis=0)
    for rows in by_length(longest, ROWS, TOKENS):
        logits = []
        with torch.inference_mode():
            for reader, each in zip(readers, encoded, strict=True):
                batch = reader.batch(each, rows, checkpoint)
                logits.append(answer_logits(model, {name: tensor.to(device) for name, tensor in batch.items()}))
        yield rows, logits, int(sum(each.sizes[rows].sum() for each in encoded))


def _read(path: Path, key: str) -> Lessons | None:
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            told = Teaching.from_json(json.loads(file.metadata()["told"]))
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        sides = {
            side: {name.partition("/")[2]: each for name, each in held.items() if name.startswith(f"{side}/")}
            for side in ("with", "without")
        }
        taught = Taught(held["ids"], held["shares"], np.ones(len(held["ids"]), bool))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise StoreError(f"`{path}` cannot be read ({error}). Delete it, and the teacher is asked again.") from error
    return Lessons(replace(told, reused=True), taught, sides["with"], sides["without"])


def _write(path: Path, found: Lessons) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    held = {"ids": found.taught.ids, "shares": found.taught.shares}
    for side, answers in (("with", found.with_context), ("without", found.without_context)):
        held |= {f"{side}/{name}": each for name, each in answers.items()}
    new = path.with_suffix(f".{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(held, new, metadata={"told": json.dumps(asdict(found.told))})
        os.replace(new, path)
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"The teacher's answers could not be written to `{path}` ({error}). Free some space, or name another "
            "folder with FORETUNE_STORE."
        ) from error
