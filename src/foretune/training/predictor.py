"""Predictor: a finished run's adapter on its base model, ready for new rows: for ``predict`` and every export check."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from foretune.errors import DataError, ModelError, StoreError, UsageError
from foretune.models import Checkpoint, build, open_checkpoint
from foretune.objectives import Encoded
from foretune.objectives import make as make_objective
from foretune.records import ModelRef, Part
from foretune.training.engine import Engine, make_accelerator
from foretune.training.folder import RECIPE, RECIPE_FORMAT, prediction_rows
from foretune.training.measure import predicted
from foretune.training.prepare import require_whole_prompts
from foretune.tuners import Tuner
from foretune.tuners import make as make_tuner

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Predictor:
    """A model that was tuned by foretune, restored.

    Attributes:
        recipe: the contents of ``adapter/foretune.json``.
        engine: the restored model with its objective.
    """

    recipe: Mapping[str, Any]
    engine: Engine

    @classmethod
    def load(cls, folder: str | Path, model: str | None = None, point: str | None = None) -> Predictor:
        """Restore the adapter of a run folder (or an adapter folder itself).

        Args:
            folder: what ``tune`` wrote.
            model: where the base model lies now, when it is no longer where it was.
            point: which one of several models, see ``Tuner.collapse``; None: whatever answered in the run.

        Raises:
            StoreError: no finished run is there, or its adapter is spoiled.
            ModelError: the base model is absent or not the one that was tuned.
        """
        recipe, adapter = read_recipe(Path(folder))
        checkpoint = open_base(recipe, model)
        tuner, objective = make_tuner(Part(**recipe["tuner"])), make_objective(Part(**recipe["objective"]))
        accelerator = make_accelerator()
        network = build(checkpoint, objective.outputs(len(recipe["labels"])))
        restored = restore(tuner, network.module, adapter)
        restored = (tuner.collapse(restored, point) if point else restored).to(accelerator.device)
        virtual = tuner.virtual_tokens(restored)
        return cls(recipe, Engine(checkpoint, tuner, objective, accelerator, restored, restored, virtual))

    def raw(self, table: pa.Table) -> Any:
        """Probabilities ``(n, C)`` (temperature applied), values ``(n,)`` or texts for normalised rows."""
        return self._guess(self.engine.answers(self._encoded(table)))

    def __call__(self, table: pa.Table, split: str = "new") -> pa.Table:
        """The rows of ``predictions.parquet`` for ``table`` (columns of ``tasks.schema.SPLIT_COLUMNS``)."""
        return prediction_rows(split, table, tuple(self.recipe["labels"]), self.raw(table), self.recipe["kind"])

    def spread(self, table: pa.Table, members: int) -> pa.Table:
        """What ``members`` of the method's models answer together, and how far they are apart.

        The answer is that of their mean probability (or logit, as the run says; or value). Equal tables get equal
        answers: a row's members hang on its place in the table and the run's own seed.

        Returns:
            the columns of ``__call__``, and ``members``, ``spread``: the standard deviation over members of the
            probability of the answer (of the value, in a regression), ``agreement``: the share of members that give
            the answer themselves (null in a regression).

        Raises:
            UsageError: fewer than two members, texts to write, or a method that holds one model.
        """
        require_members(self.recipe, members)
        outputs = self.engine.members(self._encoded(table), members)
        each = np.stack([self._guess(member) for member in outputs])
        pooled = self._guess(self.engine.objective.pool(outputs, self.engine.tuner.averaging))
        found = prediction_rows("new", table, tuple(self.recipe["labels"]), pooled, self.recipe["kind"])
        spread, agreement = apart(each, pooled)
        more = {"members": pa.array([members] * len(table)), "spread": pa.array(spread), "agreement": agreement}
        return pa.table({**{name: found[name] for name in found.column_names}, **more})

    def _encoded(self, table: pa.Table) -> Encoded:
        if not len(table):
            raise DataError("There must be rows to predict, but there are none. Give at least one.")
        encoded = self.engine.objective.encode(table, None, self.engine.checkpoint)
        require_whole_prompts(self.engine.objective, {"new": encoded})
        return encoded

    def _guess(self, outputs: np.ndarray) -> Any:
        objective, checkpoint = self.engine.objective, self.engine.checkpoint
        return predicted(objective, checkpoint, self.recipe["kind"], outputs, self.recipe["temperature"])


def require_members(recipe: Mapping[str, Any], members: int) -> None:
    """Raise ``UsageError`` unless a run of this recipe can be asked for so many members; reads no weights."""
    if members < 2:
        raise UsageError(f"A spread takes at least 2 members, but got {members}. Give `--members 10`, or leave it out.")
    objective = make_objective(Part(**recipe["objective"]))
    if not objective.pools:
        raise UsageError(
            f"Members answer together by their mean, but what `{objective.name}` writes has none. "
            "Leave `--members` out: the midpoint writes."
        )


def apart(each: np.ndarray, pooled: np.ndarray) -> tuple[np.ndarray, pa.Array]:
    """Spread and agreement ``(n,)`` of members around their common answer.

    Args:
        each: probabilities ``(members, n, C)``, or values ``(members, n)``.
        pooled: the same of the ensemble, ``(n, C)`` or ``(n,)``.

    >>> each = np.array([[[0.9, 0.1]], [[0.7, 0.3]], [[0.2, 0.8]]])
    >>> spread, agreement = apart(each, each.mean(0))
    >>> round(float(spread[0]), 3), round(agreement[0].as_py(), 3)
    (0.361, 0.667)
    """
    if pooled.ndim == 1:
        return each.std(axis=0, ddof=1), pa.nulls(len(pooled), pa.float64())
    best = pooled.argmax(1)
    return each[:, range(len(best)), best].std(axis=0, ddof=1), pa.array((each.argmax(2) == best).mean(0))


def restore(tuner: Tuner, network: PreTrainedModel, adapter: Path) -> nn.Module:
    """The tuned model of an adapter folder on a fresh ``network``, in evaluation mode.

    Raises:
        StoreError: the adapter's file is absent, or not what safetensors wrote.
        ModelError: it does not fit ``network``.
    """
    from safetensors import SafetensorError

    try:
        return tuner.restore(network, adapter).eval()
    except (SafetensorError, FileNotFoundError) as error:
        raise StoreError(f"The adapter in `{adapter}` cannot be read: {error}. Restore it from a copy.") from error


def open_base(recipe: Mapping[str, Any], model: str | None = None) -> Checkpoint:
    """The base model of a recipe, opened (weights unread); ``model`` says where it lies now, if elsewhere.

    Raises:
        ModelError: it is absent, or it is not the one that was tuned.
    """
    ref = ModelRef(**{f.name: recipe["model"][f.name] for f in fields(ModelRef)} | ({"name": model} if model else {}))
    checkpoint = open_checkpoint(ref, recipe["kind"])
    if checkpoint.ref.fingerprint != recipe["model"]["fingerprint"]:
        raise ModelError(
            f"The adapter was trained on a base model with fingerprint {recipe['model']['fingerprint']}, but "
            f"`{ref.name}` has {checkpoint.ref.fingerprint}. Name the original with `--model`."
        )
    return checkpoint


def read_recipe(folder: Path) -> tuple[dict[str, Any], Path]:
    """The recipe of a run or adapter folder, and the adapter folder itself.

    Raises:
        StoreError: none is there, it cannot be read, or a newer foretune wrote it.
    """
    for adapter in (folder / "adapter", folder):
        path = adapter / RECIPE
        if path.exists():
            break
    else:
        state = (
            " Its run is unfinished: the same `foretune tune` command goes on."
            if (folder / "run.json").exists()
            else ""
        )
        raise StoreError(
            f"`{folder}` holds no trained adapter.{state or ' Give the folder that `foretune tune` wrote.'}"
        )
    try:
        recipe: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = int(recipe["format"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"`{path}` cannot be read ({error}). Restore it from a copy, or train again.") from error
    if found > RECIPE_FORMAT:
        raise StoreError(f"`{path}` has format {found}, this foretune reads up to {RECIPE_FORMAT}. Upgrade foretune.")
    return recipe, adapter
