"""Forgetting: the language model's loss on held texts with what was learned, against the base model's own.

"Off" is ``Tuner.disabled``; where the base is overwritten (full fine-tuning) it is read from its folder again. After a
stage of continued pretraining the base is the model that the stage began with, so that what the stage lost counts too.
Texts, windows and masks are the same both times, in fp32: the two losses differ by the weights alone
(``objectives/language.py``).

PEFT's method comparison measures the same rise, of one run on 100 texts, under the name of forgetting.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from foretune.errors import ModelError, UsageError
from foretune.models import build, open_checkpoint
from foretune.objectives.language import Language
from foretune.records import UNLABELLED, Forgetting
from foretune.tasks.unlabelled import Texts, open_held
from foretune.training.meters import Stopwatch
from foretune.training.prepare import Prepared

if TYPE_CHECKING:
    from torch import nn

    from foretune.models import Checkpoint
    from foretune.objectives import Objective
    from foretune.tuners.base import Tuner


def held_texts(run: Prepared, data_dir: str | None = None) -> Texts | None:
    """The texts that ``run.config.held`` asks for, opened before anything is trained; None where nothing is asked.

    Raises:
        UsageError, ModelError: the run has no language-model head that it could harm.
        DataError: the texts cannot be read, or are not those of the config.
    """
    if run.config.held is None:
        return None
    require_forgettable(run.engine.objective, run.engine.tuner, run.engine.checkpoint)
    return open_held(run.config.held, run.task, data_dir)


def require_forgettable(objective: Objective, tuner: Tuner, checkpoint: Checkpoint) -> None:
    """Refuse to measure on held texts where there is no language-model head that a run could harm.

    Raises:
        UsageError, ModelError: what stands in the way, and the way out.
    """
    if not objective.language:
        raise UsageError(
            f"What a language model forgets is measured on its own head, but the objective `{objective.name}` puts "
            "another one in its place. Leave the held texts out, or use `--objective pattern`."
        )
    if not tuner.trains:
        raise UsageError(f"`{tuner.name}` trains nothing and forgets nothing. Leave the held texts out.")
    if checkpoint.family == "encoder-decoder":
        raise ModelError(
            "The loss of held texts is that of a masked or a causal language model, but "
            f"`{checkpoint.ref.name}` is an encoder-decoder. Leave the held texts out."
        )


def measure_forgetting(run: Prepared, texts: Texts | None) -> Forgetting | None:
    """The loss on ``texts`` with what was learned and without it; None where there are no texts."""
    if texts is None:
        return None
    watch, checkpoint = Stopwatch(), run.engine.checkpoint
    with watch("forgetting"):
        encoded = Language().encode(texts.table, None, checkpoint)
        engine = replace(run.engine, objective=Language().fitted(encoded, checkpoint), bf16=False)
        _, after = engine.outputs(encoded)
        with _base(run) as base:
            _, before = replace(engine, model=base, bare=base).outputs(encoded)
    assert encoded.targets is not None
    predicted = int(encoded.targets.sum())
    return Forgetting(texts.table.num_rows, predicted, before, after, watch.seconds["forgetting"])


@contextmanager
def _base(run: Prepared) -> Iterator[nn.Module]:
    """The model without anything that was learned from labels or in a stage."""
    engine, stage = run.engine, run.config.pretraining
    if stage is None and engine.tuner.reversible:
        with engine.tuner.disabled(engine.bare) as base:
            yield base
        return
    checkpoint = engine.checkpoint if stage is None else open_checkpoint(stage.model, UNLABELLED)
    yield build(checkpoint, 0).module.to(engine.accelerator.device)
