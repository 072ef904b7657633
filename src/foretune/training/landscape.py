"""Scores over the space that a method trained, with the weights that were kept: at fixed points, and around them.

The landscape is measured in every run, on dev alone. Flatness costs dozens of passes, so it is measured when asked for.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from foretune.evaluation import judge
from foretune.records import Flatness, Landscape, Place
from foretune.training.measure import gold, predictions
from foretune.training.prepare import Prepared
from foretune.training.state import State


def measure_landscape(run: Prepared, state: State) -> Landscape | None:
    """Score dev at the points that the tuner names, in fp32; None without such points or without dev.

    The members' standard deviation is that of the evaluation which chose the weights: it was measured there already.
    """
    engine, schema = replace(run.engine, bf16=False), run.task.schema
    points = engine.tuner.landscape(engine.bare) if "dev" in run.encoded else None
    if points is None:
        return None
    outputs, _ = engine.member_outputs(run.encoded["dev"], points, labelled=False)
    places = []
    for weights, raw in zip(points.weights, outputs, strict=True):
        guess = predictions(run, raw)
        scores = judge(schema.kind, gold(run, "dev"), guess, metric=schema.metric, with_intervals=False).scores
        places.append(Place(weights, scores[schema.metric], scores.get("nll")))
    members = engine.tuner.dev_members(engine.bare)
    chosen = -state.best[2] if state.best else state.step
    errors = dict(zip(*state.curve.of("dev", f"{schema.metric}_monte_carlo_error"), strict=True))
    spread = errors[chosen] * math.sqrt(members) if chosen in errors else None
    return Landscape(schema.metric, "dev", tuple(places), members, spread)


def measure_flatness(run: Prepared, split: str = "dev", **options: Any) -> Flatness | None:
    """The task's metric and the loss on ``split`` of the model that is exported and of models around it, in fp32.

    Args:
        run: after ``fit``.
        split: one of the encoded splits.
        options: of ``Tuner.flatness``: for prefixes those of ``tuners.prefix.flatness``.

    Returns:
        None where the method cannot be moved about.
    """
    engine, schema = replace(run.engine, bf16=False), run.task.schema

    def score() -> dict[str, float]:
        outputs, loss = engine.outputs(run.encoded[split])
        guess = predictions(run, outputs)
        scores = judge(schema.kind, gold(run, split), guess, metric=schema.metric, with_intervals=False).scores
        return {schema.metric: scores[schema.metric], "loss": loss}

    return engine.tuner.flatness(engine.bare, score, **options)
