"""Source: a finished run as an export sees it, opened without its weights so that every refusal comes first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretune.errors import ModelError, UsageError
from foretune.models import Checkpoint, build
from foretune.models.locate import DEMO
from foretune.objectives import Objective
from foretune.objectives import make as make_objective
from foretune.objectives.distillation import Distillation
from foretune.objectives.pattern import PatternObjective
from foretune.records import Part
from foretune.training.predictor import open_base, read_recipe, restore
from foretune.tuners import Tuner
from foretune.tuners import make as make_tuner

if TYPE_CHECKING:
    from torch import nn

DEMO_HUB = "sentence-transformers/all-MiniLM-L6-v2"
"""The Hub id of the checkpoint that the ``demo`` extra packages."""


RANK = 16
"""Of a low-rank approximation, unless the user says otherwise."""


@dataclass(frozen=True)
class Source:
    """A finished run.

    Attributes:
        run: the run folder.
        adapter: its adapter folder.
        recipe: the contents of ``adapter/foretune.json``.
        checkpoint: the base model, opened.
        point: which one of several models is handed over, where the tuner holds several; None: the only one.
        chosen: whether the user chose it; then its predictions need not be those that the run recorded.
        rank: of the matrices, where the format approximates.
        tolerance: the largest difference from the wanted predictions that is allowed; None: the gate's own.
    """

    run: Path
    adapter: Path
    recipe: Mapping[str, Any]
    checkpoint: Checkpoint
    tuner: Tuner
    objective: Objective
    point: str | None = None
    chosen: bool = False
    rank: int = RANK
    tolerance: float | None = None

    @classmethod
    def open(
        cls,
        run: Path,
        model: str | None = None,
        collapse: str | None = None,
        rank: int | None = None,
        tolerance: float | None = None,
    ) -> Source:
        """Open ``run``; ``model`` says where the base model lies now, if elsewhere, ``collapse`` which point is meant.

        Raises:
            StoreError: no finished run is there. ModelError: the base model is absent or not the one that was tuned, or
                the run answers in a way that no format holds. UsageError: a point of a run that holds one model.
        """
        recipe, adapter = read_recipe(run)
        tuner, objective = make_tuner(Part(**recipe["tuner"])), make_objective(Part(**recipe["objective"]))
        if objective.language and recipe["kind"] not in ("generation", "classification"):
            raise ModelError(
                f"A run with the objective `{objective.name}` judges texts by the language model's loss, which no "
                "export format computes. `adapter/` holds what was trained."
            )
        if collapse and not tuner.collapsible:
            raise UsageError(
                f"`--collapse` picks one of several models, but `{tuner.name}` holds one. Leave `--collapse` out."
            )
        point = collapse or ("midpoint" if tuner.collapsible else None)
        return cls(
            run,
            adapter,
            recipe,
            open_base(recipe, model),
            tuner,
            objective,
            point,
            chosen=bool(collapse),
            rank=RANK if rank is None else rank,
            tolerance=tolerance,
        )

    @property
    def kind(self) -> str:
        """The kind of task, one of ``records.KINDS``."""
        return str(self.recipe["kind"])

    @property
    def reader(self) -> PatternObjective | None:
        """How a row is read where the language model's words answer; None where a head of the task's own does."""
        if isinstance(self.objective, Distillation):
            return self.objective.student
        return self.objective if isinstance(self.objective, PatternObjective) else None

    def require_no_words(self, form: str) -> None:
        """Raise ``ModelError`` where words answer: the format holds a model, but neither its prompt nor the words."""
        if self.reader:
            raise ModelError(
                f"This run's objective `{self.objective.name}` answers with words of the language model in a prompt, "
                f"which `--to {form}` does not hold. Use `--to decision`."
            )

    @property
    def outputs(self) -> int:
        """Logits per pooled text; 0 for a language model."""
        return self.objective.outputs(len(self.recipe["labels"]))

    @property
    def hub(self) -> str | None:
        """The base model's Hub id; None for a local folder, whose path is nobody else's business."""
        name = self.checkpoint.ref.name
        if name == DEMO:
            return DEMO_HUB
        return None if Path(name).expanduser().exists() else name

    @property
    def base_name(self) -> str:
        """The base model as others know it: the Hub id, or the last part of a local path on one line."""
        return self.hub or " ".join(Path(self.checkpoint.ref.name).expanduser().resolve().name.split())

    def restored(self) -> nn.Module:
        """The tuned model on the CPU, at its point, in evaluation mode. Reads the weights.

        Raises:
            StoreError: the adapter's file is not what safetensors wrote. ModelError: it does not fit the base model.
            UsageError: there is no such point, or several members answered in the run and no point was chosen.
        """
        model = restore(self.tuner, build(self.checkpoint, self.outputs).module, self.adapter)
        if self.point is None:
            return model
        if not self.chosen and (count := self.tuner.answering_members(model)) > 1:
            raise UsageError(
                f"{count} members answer together in this run, but an export holds one model. `--collapse midpoint` "
                "hands over the one in their middle, whose answers are not quite those that the run recorded."
            )
        return self.tuner.collapse(model, self.point)

    @property
    def wanted(self) -> str:
        """The predictions that an export must reproduce, in words."""
        return f"predictions that foretune makes at `{self.point}`" if self.chosen else "recorded predictions"

    def description(self, form: str) -> dict[str, Any]:
        """What ``export.json`` says of the run: all that ``reload.py``, or anybody, needs to predict as it did."""
        ref, options = self.checkpoint.ref, self.recipe["objective"]["options"]
        found: dict[str, Any] = {
            "format": form,
            "kind": self.kind,
            "labels": self.recipe["labels"],
            "pairs": "pair" in self.recipe["columns"],
            "pooling": ref.pooling,
            "outputs": self.outputs,
            "temperature": self.recipe["temperature"],
            "max_length": ref.max_length,
            "base": {"name": self.base_name, "revision": ref.revision, "fingerprint": ref.fingerprint},
            "trust_remote_code": ref.trust_remote_code,
            "digest": self.recipe["digest"],
            "tuner": self.tuner.name,
        }
        if self.point:
            found["point"] = self.point
        if self.kind == "regression":
            found |= {name: options[name] for name in ("center", "scale")}
        if self.kind == "generation":
            found |= {name: options[name] for name in ("seq2seq", "chat", "separator", "max_new_tokens")}
        return found
