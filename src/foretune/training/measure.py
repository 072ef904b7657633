"""Judge a prepared run on one of its splits: raw outputs, the truth, and predictions in the task's own terms."""

from __future__ import annotations

from typing import Any

import numpy as np

from foretune.evaluation import collapse, judge, softmax
from foretune.models import Checkpoint
from foretune.objectives import Objective
from foretune.records import Evaluation
from foretune.tasks.checks import ood_labels
from foretune.training.prepare import Prepared


def gold(run: Prepared, split: str) -> Any:
    """What ``evaluation`` compares with: class indices, numbers, or lists of accepted responses."""
    schema = run.task.schema
    if schema.kind != "generation":
        return run.encoded[split].targets
    labels = run.tables[split]["label"].to_pylist()
    return [[label] if schema.references is None else label.split(schema.references) for label in labels]


def predicted(
    objective: Objective, checkpoint: Checkpoint, kind: str, outputs: np.ndarray, temperature: float | None = None
) -> Any:
    """Raw outputs as probabilities ``(n, C)``, values ``(n,)`` or texts, by the kind of the task."""
    answers = objective.decode(outputs, checkpoint)
    return softmax(answers, temperature or 1.0) if kind in ("classification", "choice") else answers


def predictions(run: Prepared, outputs: np.ndarray, temperature: float | None = None) -> Any:
    """``predicted`` for the rows of a prepared run."""
    return predicted(run.engine.objective, run.engine.checkpoint, run.task.schema.kind, outputs, temperature)


def score_dev(run: Prepared) -> dict[str, float]:
    """The task's metric and the loss on dev, by which a checkpoint is chosen.

    Where the tuner holds several models, each example is judged by several of them: the metric is that of all pairs of
    member and example, or the mean over members, as ``Tuner.dev_pooling`` says. Beside it stand the mean with its
    Monte-Carlo error, and the pooled metric where it does not choose. Accuracy is the same pooled or meaned;
    correlations and F1 are not.
    """
    engine, schema, encoded = run.engine, run.task.schema, run.encoded["dev"]
    count = engine.tuner.dev_members(engine.bare)
    ensemble = engine.tuner.ensemble(engine.bare, len(encoded), count) if count > 1 else None
    outputs, loss = engine.member_outputs(encoded, ensemble)
    truth, guesses = gold(run, "dev"), [predictions(run, member) for member in outputs]

    def score(truth: Any, guess: Any) -> float:
        return judge(schema.kind, truth, guess, metric=schema.metric, with_intervals=False).scores[schema.metric]

    if ensemble is None:
        return {schema.metric: score(truth, guesses[0]), "loss": loss}
    each = np.array([score(truth, guess) for guess in guesses])
    pooled, mean = score(_joined([truth] * count), _joined(guesses)), float(each.mean())
    told = {
        "loss": loss,
        f"{schema.metric}_member_mean": mean,
        f"{schema.metric}_monte_carlo_error": float(each.std(ddof=1) / np.sqrt(count)),
    }
    if engine.tuner.dev_pooling == "mean":
        return {schema.metric: mean, **told, f"{schema.metric}_pooled": pooled}
    return {schema.metric: pooled, **told}


def _joined(parts: list[Any]) -> Any:
    """Arrays, or the lists that texts come in, one behind the other."""
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else [one for part in parts for one in part]


def judged(run: Prepared, split: str, guess: Any) -> Evaluation:
    """Judge ``guess`` on ``split``, with intervals and flags.

    Where an out-of-domain set has coarser classes than the task, the answer is given first and renamed after, as McCoy
    et al. (2019) judge three-class models on HANS; probabilities are summed.
    """
    schema = run.task.schema
    ood = split.removeprefix("ood:") if split.startswith("ood:") else None
    labels, answers = schema.labels, None
    if ood is not None and ood in schema.ood_label_map:
        labels = ood_labels(schema, ood)
        answers = run.task.class_map(ood)[np.asarray(guess).argmax(1)]
        guess = collapse(guess, schema.labels, labels, schema.ood_label_map[ood])
    return judge(
        schema.kind,
        gold(run, split),
        guess,
        metric=schema.metric,
        labels=labels,
        answers=answers,
        seed=run.config.seeds.data,
        ood=ood is not None,
    )
