"""The published default: what the literature would run, by kind of task and model, and where each number is from.

It has seen no run of this model on this task, so it foretells no score. It is also the fallback of every recommender
that abstains, and the pipeline that a learned one has to beat. Sources, as the evidence names them:

* Hu et al. 2021, LoRA, arXiv 2106.09685, table 9: rank 8 for RoBERTa on GLUE.
* Mosbach et al. 2021, On the Stability of Fine-tuning BERT, arXiv 2006.04884: on small data 20 epochs, warm-up over
  10 % of the steps, linear decay.
* Dettmers et al. 2023, QLoRA, arXiv 2305.14314: every linear layer adapted; table 9: 2e-4 and batch 16 for 7B, 1e-4
  from 33B on.
* Taori et al. 2023, Stanford Alpaca: 3 epochs, cosine, warm-up over 3 %, no weight decay.
* Liu et al. 2022, P-Tuning v2, arXiv 2110.07602: soft prompts train for 60 epochs and more on a small task.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from foretune.errors import ResourceError
from foretune.recommenders.situation import Method, Situation
from foretune.records import Part, Recommendation, Schedule
from foretune.registry import find

BATCH_SIZE = 16
FEWEST_STEPS, MOST_STEPS = 200, 2_000
EVALUATIONS = 10
HEAD_LR = {"full": 5e-4, "adaptive": 5e-4}
FROZEN_HEAD_LR = 2e-3
"""Of a fresh head: the lower rate where the body trains whole and can be pulled out of shape by a head in a hurry."""
LARGE = 33_000_000_000
TUNER = "lora"
SOFT_PROMPTS = ("prompt-tuning", "prefix-tuning")


@dataclass(frozen=True)
class Recipe:
    """How long and in which shape to train; ``share`` is the warm-up's share of the steps.

    Attributes:
        length: the source of ``epochs`` and of the batch.
        shape: the source of the rest.
    """

    epochs: int
    share: float
    decay: str
    weight_decay: float
    length: str
    shape: str


MOSBACH = "Mosbach et al. 2021, for encoders and small data"
ENCODER = Recipe(20, 0.1, "linear", 0.01, MOSBACH, MOSBACH)
GENERATIVE = Recipe(
    3,
    0.03,
    "cosine",
    0.0,
    "Taori et al. 2023, the batch from Dettmers et al. 2023",
    "Taori et al. 2023 (Stanford Alpaca)",
)
SOFT = Recipe(
    60,
    0.1,
    "linear",
    0.0,
    "Liu et al. 2022, P-Tuning v2",
    f"{MOSBACH}; but weight decay would pull the vectors to zero",
)


@dataclass(frozen=True)
class Rate:
    """A tuner's options and learning rate, and why."""

    lr: float
    why: str
    options: dict[str, Any] = field(default_factory=dict)


def published(situation: Situation) -> tuple[Recommendation, tuple[str, ...]]:
    """The pipeline that the literature would run in ``situation``, and what each of its numbers rests on.

    Raises:
        UsageError: the user's own choice cannot be.
        ResourceError: nothing fits the budget.

    >>> from types import SimpleNamespace
    >>> from foretune.records import Part, TaskCard
    >>> lora = SimpleNamespace(name="lora", lr=5e-4)
    >>> card = TaskCard("reviews", "classification", {"train": 96}, classes=2)
    >>> best, why = published(Situation(card, "encoder", 22_700_000, {"lora": lora}, Part("head")))
    >>> best.tuner.name, best.tuner.options["rank"], best.schedule.lr, best.schedule.steps
    ('lora', 8, 0.0005, 200)
    """
    method = find("tuner", situation.tuner or TUNER, situation.methods)
    if method.lr == 0:
        batch = min(BATCH_SIZE, situation.rows)
        idle = Schedule(steps=0, batch_size=batch, lr=0.0)
        why = f"`{method.name}` was asked for, which trains nothing: no steps, no rate."
        return Recommendation(Part(method.name), situation.objective, idle), (why,)
    recipe = SOFT if method.name in SOFT_PROMPTS else ENCODER if situation.family == "encoder" else GENERATIVE
    rate = _rate(method, situation)
    batch = min(BATCH_SIZE, situation.rows)
    steps, about_steps = _steps(situation, recipe, batch)
    head_lr, about_head = _head(method, situation)
    schedule = Schedule(
        steps=steps,
        batch_size=batch,
        lr=rate.lr,
        head_lr=head_lr,
        weight_decay=recipe.weight_decay,
        warmup=recipe.share,
        decay=recipe.decay,
        evaluations=min(EVALUATIONS, steps),
    )
    seconds = steps * situation.seconds_per_step if situation.seconds_per_step else None
    evidence = (
        _about_choice(situation),
        rate.why,
        *about_head,
        f"{recipe.decay.capitalize()} decay after a warm-up of {recipe.share:.0%}, weight decay "
        f"{recipe.weight_decay:g}: {recipe.shape}.",
        *about_steps,
    )
    return Recommendation(Part(method.name, rate.options), situation.objective, schedule, seconds=seconds), evidence


def _about_choice(situation: Situation) -> str:
    article = "a" if situation.family == "decoder" else "an"
    case = f"{situation.card.kind} with {article} {situation.family}"
    if situation.tuner:
        return f"`{situation.tuner}` was asked for; its settings are the published ones for {case}."
    return f"`{TUNER}` is the published default for {case} (Hu et al. 2021); the data had no say in it."


def _rate(method: Method, situation: Situation) -> Rate:
    if method.name not in ("lora", "dora"):
        return Rate(
            method.lr, f"Learning rate {method.lr:g}: the default of `{method.name}`; its docstring has the source."
        )
    if situation.family == "encoder":
        why = (
            f"Rank 8, learning rate {method.lr:g}: RoBERTa on GLUE (Hu et al. 2021, table 9); alpha is twice the rank."
        )
        return Rate(method.lr, why, {"rank": 8, "alpha": 16.0, "targets": "all-linear"})
    lr, size = (1e-4, "33 billion parameters or more") if situation.parameters >= LARGE else (2e-4, "under 33 billion")
    why = (
        f"Learning rate {lr:g}, every linear layer: models of {size} (Dettmers et al. 2023, table 9); "
        "rank 16 and alpha 32: the defaults of TRL."
    )
    return Rate(lr, why, {"rank": 16, "alpha": 32.0, "targets": "all-linear"})


def _head(method: Method, situation: Situation) -> tuple[float | None, tuple[str, ...]]:
    """The rate of a head that the checkpoint does not hold, and the sentence about it."""
    if not situation.fresh_head or situation.card.kind == "generation" or method.name == "head":
        return None, ()
    lr = HEAD_LR.get(method.name, FROZEN_HEAD_LR)
    return lr, (f"Learning rate {lr:g} for a fresh head: our choice, on training rows of two tasks (LOG.md).",)


def _steps(situation: Situation, recipe: Recipe, batch: int) -> tuple[int, tuple[str, ...]]:
    """How many optimizer steps, and the sentences about them."""
    epoch = math.ceil(situation.rows / batch)
    published = recipe.epochs * epoch
    steps = min(max(published, FEWEST_STEPS), MOST_STEPS)
    size = f"{recipe.epochs} epochs of {situation.rows:,} rows in batches of {batch}"
    said = [f"{published:,} steps: {size} ({recipe.length})."]
    if steps > published:
        said.append(f"Raised to {steps:,} steps, the fewest we plan: on so few rows an epoch is too short a unit.")
    if steps < published:
        said.append(f"Cut to {steps:,} steps, the most we plan: on so many rows fewer passes do.")
    if situation.budget_seconds is None:
        return steps, tuple(said)
    if situation.seconds_per_step is None:
        return steps, (*said, "The budget is not applied yet: the time of a step is not known.")
    fitting = _fitting(situation.budget_seconds, situation.seconds_per_step, epoch)
    if fitting < steps:
        budget, each = f"{situation.budget_seconds:.3g} s", f"{situation.seconds_per_step:.3g} s"
        said.append(f"Cut to {fitting:,} steps to fit {budget} at {each} a step; the decay spans the shorter run.")
    if fitting < min(epoch, steps):
        said.append(f"That is less than one epoch ({epoch:,} steps): the budget is too small to see every row once.")
    return min(fitting, steps), tuple(said)


def _fitting(budget: float, each: float, epoch: int) -> int:
    if budget < each:
        raise ResourceError(
            f"a budget of {budget:.3g} s holds no optimizer step: one takes {each:.3g} s here. "
            f"One pass over the rows takes {epoch * each:.3g} s: give --budget at least that, or use a smaller model."
        )
    return int(budget / each)
