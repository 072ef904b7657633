"""StochasticDevCallback: dev judged by sampled members under ``transformers.Trainer``, to choose a checkpoint by.

The Trainer evaluates at the midpoint and hands its metrics to callbacks before it compares them, so what is added to
them here is what ``metric_for_best_model`` and early stopping find.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import EvalPrediction, TrainerCallback
from transformers.trainer_pt_utils import nested_concat

from foretune.errors import UsageError
from foretune.tuners.prefix.attention import evaluating
from foretune.tuners.prefix.members import SimplexEnsemble
from foretune.tuners.prefix_subspace import as_prefix

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from foretune.tuners.prefix.model import PrefixModel


class StochasticDevCallback(TrainerCallback):
    """At every evaluation, each example is judged by ``samples`` members of the simplex, by the same ones every time.

    The metrics of the evaluation (prefix ``eval``) get, and so does ``trainer.state.log_history``:

    - ``eval_members_loss``: the model's own mean loss over all pairs of member and example;
    - for every number that ``compute_metrics`` gives, say ``accuracy``: ``eval_members_accuracy``, which is that of all
      pairs, ``eval_members_accuracy_mean``, the mean over members of the metric of each, and
      ``eval_members_accuracy_monte_carlo_error``, the standard deviation over members over the root of their number.

    So ``metric_for_best_model="members_accuracy"`` chooses by the region and not by the midpoint. An early stopping
    callback stands behind this one in the Trainer's list. Each process judges all of dev, without autocast.

    Args:
        compute_metrics: as the Trainer's own: an ``EvalPrediction`` with logits and labels -> name -> number.
        samples: members for each example; at least 2.
        seed: of their weights.

    >>> StochasticDevCallback(samples=1)
    Traceback (most recent call last):
    foretune.errors.UsageError: `samples >= 2` must hold, for one member has no spread, but got samples=1.
    """

    def __init__(
        self,
        compute_metrics: Callable[[EvalPrediction], Mapping[str, float]] | None = None,
        *,
        samples: int = 10,
        seed: int = 0,
    ) -> None:
        if samples < 2:
            raise UsageError(f"`samples >= 2` must hold, for one member has no spread, but got samples={samples}.")
        self.compute_metrics, self.samples, self.seed = compute_metrics, samples, seed

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """The Trainer's hook: raises ``UsageError`` before the first step where the model is no simplex of prefixes."""
        assert model is not None
        as_prefix(model)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        model: torch.nn.Module | None = None,
        eval_dataloader: DataLoader | None = None,
        **kwargs: Any,
    ) -> None:
        """The Trainer's hook: adds to ``metrics``.

        Raises:
            UsageError: dev has no length or no labels.
        """
        assert metrics is not None
        assert model is not None
        assert eval_dataloader is not None
        prefix = min((name for name in metrics if name.endswith("_runtime")), key=len).removesuffix("_runtime")
        scores = self._scores(*self._outputs(as_prefix(model), eval_dataloader, args))
        told = {f"{prefix}_members_{name}": value for name, value in scores.items()}
        metrics.update(told)
        state.log_history.append({**told, "epoch": state.epoch, "step": state.global_step})

    def _outputs(
        self, model: PrefixModel, loader: DataLoader, args: TrainingArguments
    ) -> tuple[list[np.ndarray], np.ndarray, float]:
        """Logits ``(n, ...)`` of each member (none where no metric reads them), labels ``(n, ...)``, the mean loss.

        In the order of the data set, which the Trainer's own loader may change and deal out to processes: so it is made
        anew.
        """
        dataset = loader.dataset
        if not isinstance(dataset, Sized):
            raise UsageError(f"Members are drawn for each example of dev, but {type(dataset).__name__} has no length.")
        size, label = len(dataset), (args.label_names or ["labels"])[0]
        ensemble = SimplexEnsemble(model.mixture, size, self.samples, self.seed)
        loss, start = 0.0, 0
        held: list[torch.Tensor] = []
        with evaluating(model), torch.inference_mode():
            for batch in DataLoader(dataset, args.per_device_eval_batch_size, collate_fn=loader.collate_fn):
                if label not in batch:
                    raise UsageError(f"Dev must have `{label}` to be judged, but has {', '.join(batch)}.")
                batch = {name: tensor.to(args.device) for name, tensor in batch.items()}
                examples = np.arange(start, start + len(batch[label]))
                found = [batch[label].cpu()]
                for member in range(self.samples):
                    with ensemble.at([member], examples):
                        output = model(**batch)
                    loss += float(output.loss) * len(examples) / (size * self.samples)
                    found += [output.logits.float().cpu()] if self.compute_metrics else []
                held = nested_concat(held, found) if held else found
                start += len(examples)
        labels, *logits = (tensor.numpy() for tensor in held)
        return logits, labels, loss

    def _scores(self, logits: list[np.ndarray], labels: np.ndarray, loss: float) -> dict[str, float]:
        told = {"loss": loss}
        if self.compute_metrics is None:
            return told
        pairs = EvalPrediction(np.concatenate(logits), np.concatenate([labels] * self.samples))
        each = [self.compute_metrics(EvalPrediction(member, labels)) for member in logits]
        for name, value in self.compute_metrics(pairs).items():
            scores = np.array([float(one[name]) for one in each])
            told[name] = float(value)
            told[f"{name}_mean"] = float(scores.mean())
            told[f"{name}_monte_carlo_error"] = float(scores.std(ddof=1) / np.sqrt(self.samples))
        return told
