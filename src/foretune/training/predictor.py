"""Predictor: a finished run's adapter on its base model, ready for new rows: for ``predict`` and every export check."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretune.errors import DataError, ModelError, StoreError
from foretune.models import Checkpoint, build, open_checkpoint
from foretune.objectives import make as make_objective
from foretune.records import ModelRef, Part
from foretune.training.engine import Engine, make_accelerator
from foretune.training.folder import RECIPE, RECIPE_FORMAT, prediction_rows
from foretune.training.measure import predicted
from foretune.tuners import Tuner
from foretune.tuners import make as make_tuner

if TYPE_CHECKING:
    import pyarrow as pa
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
    def load(cls, folder: str | Path, model: str | None = None) -> Predictor:
        """Restore the adapter of a run folder (or an adapter folder itself).

        Args:
            folder: what ``tune`` wrote.
            model: where the base model lies now, when it is no longer where it was.

        Raises:
            StoreError: no finished run is there, or its adapter is spoiled.
            ModelError: the base model is absent or not the one that was tuned.
        """
        recipe, adapter = read_recipe(Path(folder))
        checkpoint = open_base(recipe, model)
        tuner, objective = make_tuner(Part(**recipe["tuner"])), make_objective(Part(**recipe["objective"]))
        accelerator = make_accelerator()
        network = build(checkpoint, objective.outputs(len(recipe["labels"])))
        restored = restore(tuner, network.module, adapter).to(accelerator.device)
        virtual = tuner.virtual_tokens(restored)
        return cls(recipe, Engine(checkpoint, tuner, objective, accelerator, restored, restored, virtual))

    def raw(self, table: pa.Table) -> Any:
        """Probabilities ``(n, C)`` (temperature applied), values ``(n,)`` or texts for normalised rows."""
        engine = self.engine
        if not len(table):
            raise DataError("There must be rows to predict, but there are none. Give at least one.")
        encoded = engine.objective.encode(table, None, engine.checkpoint)
        outputs, _ = engine.outputs(encoded, labelled=False)
        return predicted(engine.objective, engine.checkpoint, self.recipe["kind"], outputs, self.recipe["temperature"])

    def __call__(self, table: pa.Table, split: str = "new") -> pa.Table:
        """The rows of ``predictions.parquet`` for ``table`` (columns of ``tasks.schema.SPLIT_COLUMNS``)."""
        return prediction_rows(split, table, tuple(self.recipe["labels"]), self.raw(table), self.recipe["kind"])


def restore(tuner: Tuner, network: PreTrainedModel, adapter: Path) -> nn.Module:
    """The tuned model of an adapter folder on a fresh ``network``, in evaluation mode.

    Raises:
        StoreError: the adapter's file is not what safetensors wrote. ModelError: it does not fit ``network``.
    """
    from safetensors import SafetensorError

    try:
        return tuner.restore(network, adapter).eval()
    except SafetensorError as error:
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
