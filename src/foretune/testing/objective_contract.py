"""ObjectiveContract: what every objective must do, as tests that a plug-in inherits.

An objective from another package proves itself in a few lines::

    class TestMine(ObjectiveContract):
        objective = Mine()
        checkpoints = (("bert", "mean"), ("llama", "last"))

Whatever is minimised, runs are comparable only if the loss of a batch is the sum over its examples,
nothing depends on padding, and a prediction does not depend on whether the label is known.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pytest

from foretune.errors import UsageError
from foretune.models import Checkpoint, build, open_checkpoint
from foretune.objectives import Encoded, Objective, make
from foretune.records import KINDS, UNLABELLED, ModelRef, Part, Seeds
from foretune.tasks import Schema, Task
from foretune.tasks.unlabelled import open_texts
from foretune.testing import toys

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from transformers import PreTrainedModel

STEPS, RATE = 30, 1e-2

At = tuple[Objective, str, str]


@dataclass(frozen=True)
class Opened:
    """An objective at work: on a toy checkpoint, with the toy task of its kind encoded."""

    objective: Objective
    checkpoint: Checkpoint
    table: pa.Table
    encoded: Encoded
    model: PreTrainedModel

    def batch(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """The examples ``rows``, padded together."""
        return self.objective.batch(self.encoded, rows, self.checkpoint)

    def all_rows(self) -> np.ndarray:
        """Every example of the task."""
        return np.arange(len(self.encoded))


class ObjectiveContract:
    """The loss falls, is a sum, ignores padding; predictions are answers, labels or no labels; options are checked.

    Attributes:
        objective: what is tested, before it is fitted.
        checkpoints: (architecture, pooling) of the toys that it serves; see ``toys.checkpoint``.
    """

    objective: ClassVar[Objective]
    checkpoints: ClassVar[Sequence[tuple[str, str]]]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test that takes ``at_work`` once per checkpoint."""
        if "at_work" in metafunc.fixturenames:
            cases = [pytest.param((self.objective, *case), id="-".join(case)) for case in self.checkpoints]
            metafunc.parametrize("at_work", cases, scope="class")

    def test_the_loss_falls_on_the_toy_task(self, at_work: At) -> None:
        import torch

        opened = open_at(*at_work)
        model = copy.deepcopy(opened.model).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
        batch, losses = opened.batch(opened.all_rows()), []
        for _ in range(STEPS):
            loss = opened.objective.loss(model, batch) / opened.objective.weight(opened.encoded, opened.all_rows())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
        assert min(losses[-3:]) < 0.7 * losses[0], losses

    def test_the_loss_of_a_batch_is_the_sum_over_its_examples(self, at_work: At) -> None:
        import torch

        opened = open_at(*at_work)
        rows = opened.all_rows()[:5]
        objective, encoded = opened.objective, opened.encoded
        with torch.no_grad():
            whole = objective.loss(opened.model, opened.batch(rows))
            parts = [objective.loss(opened.model, opened.batch(rows[i : i + 1])) for i in range(len(rows))]
        assert whole.shape == ()
        assert whole.dtype == torch.float32
        torch.testing.assert_close(whole, torch.stack(parts).sum(), rtol=1e-5, atol=1e-5)
        assert objective.weight(encoded, rows) == sum(objective.weight(encoded, rows[i : i + 1]) for i in range(5)) > 0

    def test_padding_changes_no_prediction(self, at_work: At) -> None:
        opened = open_at(*at_work)
        together = answers(opened, opened.encoded, opened.all_rows())
        for row in (0, 2, 25):
            alone = answers(opened, opened.encoded, np.array([row]))
            if opened.objective.kinds[0] == "generation":
                assert alone.tolist() == [together[row]]
            else:
                np.testing.assert_allclose(alone, together[row : row + 1], rtol=1e-5, atol=1e-5)

    def test_a_prediction_does_not_need_the_label(self, at_work: At) -> None:
        import pyarrow as pa

        opened = open_at(*at_work)
        place = opened.table.schema.get_field_index("label")
        bare = opened.table.set_column(place, "label", pa.nulls(len(opened.table), pa.string()))
        encoded = opened.objective.encode(bare, None, opened.checkpoint)
        assert encoded.targets is None or opened.objective.kinds == (UNLABELLED,)
        rows = opened.all_rows()[:5]
        np.testing.assert_array_equal(answers(opened, encoded, rows), answers(opened, opened.encoded, rows))

    def test_one_pass_gives_what_two_give(self, at_work: At) -> None:
        import torch

        opened = open_at(*at_work)
        batch = opened.batch(opened.all_rows()[:5])
        with torch.no_grad():
            outputs, loss = opened.objective.evaluate(opened.model, batch)
            torch.testing.assert_close(outputs, opened.objective.predict(opened.model, batch))
            torch.testing.assert_close(loss, opened.objective.loss(opened.model, batch))

    def test_there_is_one_prediction_per_row_in_the_terms_of_the_kind(self, at_work: At) -> None:
        opened = open_at(*at_work)
        found = answers(opened, opened.encoded, opened.all_rows())
        assert len(found) == len(opened.table)
        if opened.objective.kinds[0] == "generation":
            assert all(isinstance(text, str) for text in found)
        elif opened.objective.kinds[0] == "choice":
            offered = [len(row) for row in opened.table["choices"].to_pylist()]
            assert np.isfinite(found).sum(1).tolist() == offered
        else:
            assert np.isfinite(found).all()
            assert found.shape[1:] == ((2,) if opened.objective.kinds[0] == "classification" else ())

    def test_options_survive_a_record(self, at_work: At) -> None:
        opened = open_at(*at_work)
        for objective in (self.objective, opened.objective):
            assert make(Part(objective.name, asdict(objective))) == objective

    def test_an_option_that_is_none_is_refused_by_name(self) -> None:
        with pytest.raises(UsageError, match="no_such_option"):
            make(Part(self.objective.name, {"no_such_option": 1}))

    def test_the_kinds_are_known(self) -> None:
        assert self.objective.kinds
        assert set(self.objective.kinds) <= {*KINDS, UNLABELLED}


@lru_cache(maxsize=1)
def open_at(objective: Objective, name: str, pooling: str) -> Opened:
    """``objective`` on the toy ``name``, fitted on the toy task of its kind; kept while one class of tests runs."""
    import torch

    kind = objective.kinds[0]
    table, targets, schema = _toy_task(kind)
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        checkpoint = open_checkpoint(ModelRef(str(toys.checkpoint(Path(folder), name)), pooling=pooling), kind)
        model = build(checkpoint, objective.outputs(len(schema.labels))).module
    objective = objective.for_task(schema, {"train": table}, Seeds(), checkpoint)
    encoded = objective.encode(table, targets, checkpoint)
    return Opened(objective.fitted(encoded, checkpoint), checkpoint, table, encoded, model)


def _toy_task(kind: str) -> tuple[pa.Table, np.ndarray | None, Schema]:
    """The rows of the toy task of ``kind``, their targets and what they mean."""
    if kind == UNLABELLED:
        return open_texts(toys.rows(kind)).table, None, Schema(UNLABELLED)
    task = Task.from_records(toys.rows(kind), kind=kind)
    table = task.splits["train"]
    return table, None if kind == "generation" else task.targets(table), task.schema


def answers(opened: Opened, encoded: Encoded, rows: np.ndarray) -> np.ndarray:
    """Decoded predictions for ``rows`` of ``encoded``; texts as an array of objects."""
    import torch

    with torch.no_grad():
        outputs = opened.objective.predict(opened.model, opened.objective.batch(encoded, rows, opened.checkpoint))
    padded = opened.objective.padded(outputs, encoded)
    found = opened.objective.decode(padded.numpy(), opened.checkpoint)
    return np.array(found, dtype=object) if isinstance(found, list) else np.asarray(found)
