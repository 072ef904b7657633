"""The verdict in words. What may be claimed follows from intervals, never from the two numbers alone.

The one rule that everything here keeps: a sentence says "better" only when the interval of the difference lies wholly
above zero on test, and "worse" only when it lies wholly below. In between, no difference was found, and that is said.
A dev score chose the checkpoint, so it is optimistic by construction and no claim rests on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from foretune.records import Evaluation, Gap, Plan, Recommendation, RunRecord
from foretune.report import units

STATUS = {
    "running": "This run is not finished",
    "stopped": "This run was stopped early",
    "failed": "This run failed",
    "diverged": "This run diverged (its loss is no finite number)",
    "oom": "This run ran out of memory",
}

TRIVIAL = {
    "majority": "always giving the most frequent training label",
    "mean": "always giving the mean of the training labels",
}
"""The floors that look at no text at all, and what they do."""

FEW = 1000
"""Below so many examples the calibration error of perfect probabilities is still some points."""


@dataclass(frozen=True)
class Difference:
    """Result minus floor of one metric, with the 95 % interval of the difference.

    Attributes:
        floor: the floor's name.
        greater: whether a greater value is a better one; False for errors and losses.
        paired: True when both were judged example by example; False when only the two intervals were at hand, whose
            combination (result's low minus floor's high, and the reverse) is wider than 95 % needs.
    """

    floor: str
    metric: str
    value: float
    low: float
    high: float
    paired: bool
    greater: bool = True

    @property
    def gain(self) -> float:
        """The difference, turned so that more is better."""
        return self.value if self.greater else -self.value

    @property
    def direction(self) -> int:
        """1 when the interval lies on the good side of zero, -1 on the bad one, 0 when it covers zero or is unknown.

        >>> Difference("tfidf", "accuracy", 0.1, 0.02, 0.18, True).direction
        1
        >>> Difference("tfidf", "accuracy", 0.1, -0.02, 0.22, True).direction
        0
        """
        if not all(math.isfinite(v) for v in (self.value, self.low, self.high)):
            return 0
        side = 1 if self.low > 0 else -1 if self.high < 0 else 0
        return side if self.greater else -side


def headline(record: RunRecord, split: str | None) -> str:
    """The one line above everything."""
    if split is None:
        return f"{STATUS.get(record.status, 'This run has no evaluation')}."
    judged = record.evaluations[split]
    examples = units.plural(judged.n, f"{units.split_title(split)} example")
    value = _value(judged, record.metric)
    if value is None:
        return f"No score on {examples}"
    return f"{units.score(record.metric, value)} {units.metric(record.metric).title} on {examples}"


def verdict(
    record: RunRecord, split: str | None, differences: Sequence[Difference], constant: str | None = None
) -> tuple[str, ...]:
    """What may be said of the run, the most important first.

    Args:
        split: what the verdict rests on: ``test``, ``dev`` where there is no test split, None where nothing was judged.
        differences: to each floor on that split.
        constant: the one label that is always predicted, if there is only one.
    """
    said = []
    if record.status != "ok":
        said.append(_status(record, split))
    if split is None:
        return tuple(said or ["Nothing was evaluated, so there is no score and nothing to claim."])
    judged = record.evaluations[split]
    if constant is not None:
        said.append(
            f"The model gives one answer, {units.quoted(constant)}, to every {split} example: "
            "it does not tell the examples apart."
        )
    said += _against_majority(record, split, differences)
    if split == "test":
        said += _against_best(differences)
    else:
        said.append(
            "There is no test split: this dev score also chose the checkpoint, is therefore optimistic, and no claim "
            "rests on it. Keep some labelled rows aside with “--test”."
        )
    said.append(_certainty(record, judged))
    if record.forgetting is not None:
        said.append(record.forgetting.sentence())
    return tuple(said)


def best(differences: Sequence[Difference]) -> Difference | None:
    """The difference to the strongest floor: the smallest gain."""
    known = [d for d in differences if math.isfinite(d.value)]
    return min(known, key=lambda d: d.gain, default=None)


def _against_best(differences: Sequence[Difference]) -> list[str]:
    nearest = best(differences)
    if nearest is None:
        return ["There is no floor to compare with, so the score stands alone."]
    floor = f"the strongest floor ({units.floor_title(nearest.floor)})"
    bounds = units.interval(nearest.metric, (nearest.low, nearest.high))
    how = "paired over the same examples" if nearest.paired else "from the two intervals, which is conservative"
    if nearest.direction:
        word = "Better" if nearest.direction > 0 else "Worse"
        return [f"{word} than {floor} by {_size(nearest.metric, nearest.value, nearest.low, nearest.high)}, {how}."]
    by = units.difference(nearest.metric, nearest.value)
    if not bounds:
        return [f"The difference to {floor} is {by}, without an interval: no claim can be made."]
    return [f"No difference found from {floor}: {by} {bounds}, {how}; the interval covers zero."]


def _size(name: str, value: float, low: float, high: float) -> str:
    """A difference without its sign, and its interval, for sentences that say the direction in words."""
    if value < 0:
        value, low, high = -value, -high, -low
    return f"{units.difference(name, value).lstrip('+')} {units.interval(name, (low, high))}"


def _against_majority(record: RunRecord, split: str, differences: Sequence[Difference]) -> list[str]:
    found = next((d for d in differences if d.floor in TRIVIAL and d.gain <= 0), None)
    if found is None:
        return []
    value = units.score(record.metric, _value(record.floors[found.floor][split], record.metric))
    return [
        f"The score is {'at' if found.value == 0 else 'not above'} the {units.floor_title(found.floor)} floor "
        f"({value}): {TRIVIAL[found.floor]} would do as well. Do not use this model."
    ]


def _certainty(record: RunRecord, judged: Evaluation) -> str:
    bounds = units.interval(record.metric, judged.intervals.get(record.metric))
    if not bounds:
        return "There is no interval for this score, and there is one seed: take it as a hint."
    return (
        f"The 95 % interval {bounds} covers the choice of these {units.plural(judged.n, 'example')} only. There is one "
        "seed: another draw of the training rows, or another initialisation, moves the score further."
    )


def _status(record: RunRecord, split: str | None) -> str:
    at = f"step {units.count(record.steps_done)} of {units.count(record.config.schedule.steps)}"
    if split is None:
        return f"It came to {at}. Nothing was evaluated, so there is no score and nothing to claim."
    return f"{STATUS.get(record.status, record.status)}, at {at}. What follows describes the weights kept by then."


def expectation(plan: Plan | None, record: RunRecord) -> str:
    """How the expectation and the result stand to one another, on dev: no recommender ever saw a test score."""
    if plan is None:
        return "The pipeline was given by hand: no recommender was asked and nothing was expected."
    chosen = followed(plan, record)
    changed = None if chosen else _changed(plan, record)
    if changed:
        return (
            f"The run changes what {units.quoted(plan.recommender)} planned ({changed}), so nothing was expected of it."
        )
    if chosen is None:
        return f"The run does not follow the plan: {units.quoted(plan.recommender)} named other pipelines only."
    if chosen.score is None:
        return f"No expectation: {units.quoted(plan.recommender)} names a pipeline without foretelling its score."
    dev = record.evaluations.get("dev")
    own = None if dev is None else _value(dev, record.metric)
    told = units.scored(record.metric, chosen.score, chosen.interval)
    if own is None:
        return f"{units.quoted(plan.recommender)} expected {told}; without a dev score it cannot be checked."
    reached = (
        f"{units.quoted(plan.recommender)} expected {told}; the run reached {units.score(record.metric, own)} on dev"
    )
    if chosen.interval is None:
        return f"{reached}."
    low, high = chosen.interval
    where = "inside" if low <= own <= high else "above" if own > high else "below"
    return f"{reached}, {where} the expected interval."


def achieved(plan: Plan, record: RunRecord) -> str | None:
    """Score, seconds and bytes, expected and achieved, in a line; None where nothing was expected of this run."""
    chosen = followed(plan, record)
    if chosen is None:
        return None
    told = []
    dev = record.evaluations.get("dev")
    own = None if dev is None else _value(dev, record.metric)
    if chosen.score is not None and own is not None:
        bounds = units.scored(record.metric, chosen.score, chosen.interval)
        told.append(f"{units.metric(record.metric).title} on dev {units.score(record.metric, own)} (expected {bounds})")
    if chosen.seconds is not None:
        told.append(f"whole run {units.seconds(record.cost.seconds)} (expected {units.seconds(chosen.seconds)})")
    if chosen.bytes is not None and record.cost.peak_bytes:
        told.append(f"memory {units.size(record.cost.peak_bytes)} (expected {units.size(chosen.bytes)})")
    return f"Expected and achieved: {'; '.join(told)}." if told else None


def followed(plan: Plan, record: RunRecord) -> Recommendation | None:
    """The entry of the plan that was run, tuner, objective and schedule alike; None when there is none."""
    config = record.config
    own = (config.tuner, config.objective, config.schedule)
    return next((r for r in plan.ranked if (r.tuner, r.objective, r.schedule) == own), None)


def _changed(plan: Plan, record: RunRecord) -> str:
    """Where the run differs from the first entry of its own tuner and objective; empty without such an entry."""
    config = record.config
    for entry in plan.ranked:
        if (entry.tuner.name, entry.objective.name) == (config.tuner.name, config.objective.name):
            planned = {**asdict(entry.schedule), **entry.tuner.options, **entry.objective.options}
            own = {**asdict(config.schedule), **config.tuner.options, **config.objective.options}
            names = [name for name in {**planned, **own} if planned.get(name) != own.get(name)]
            return ", ".join(name.replace("_", " ") for name in names)
    return ""


def gap(found: Gap, greater: bool = True) -> str:
    """One out-of-domain set beside the test split; ``greater`` says whether more is better in its metric."""
    name = units.quoted(found.name)
    bounds = units.interval(found.metric, (found.low, found.high))
    if not bounds or not math.isfinite(found.value):
        return f"For {name} the gap has no interval, so nothing can be claimed."
    if found.low <= 0 <= found.high:
        return f"No gap found for {name}: the interval of the difference, {bounds}, covers zero."
    lost = (found.low > 0) == greater
    size = _size(found.metric, found.value, found.low, found.high)
    return f"On {name} the run is {'weaker' if lost else 'stronger'} than on test, by {size}."


def calibration(before: float | None, after: float, temperature: float | None, n: int) -> tuple[str, ...]:
    """The expected calibration error as saved, before the temperature where that is known, and its bias on few rows."""
    now = units.score("ece", after)
    if before is None or temperature is None:
        said = f"The expected calibration error is {now}; no temperature was fitted."
    else:
        said = (
            f"A temperature of {temperature:.2f}, fitted on dev, takes the expected calibration error from "
            f"{units.score('ece', before)} to {now}."
        )
    if n >= FEW:
        return (said,)
    few = f"On {units.plural(n, 'example')} it is biased upward: even perfect probabilities would show some points."
    return said, few


def constant_answer(predictions: Sequence[str]) -> str | None:
    """The single answer given to every example, or None.

    >>> constant_answer(["a", "a"]), constant_answer(["a", "b"]), constant_answer(["a"])
    ('a', None, None)
    """
    return predictions[0] if len(predictions) > 1 and len(set(predictions)) == 1 else None


def _value(evaluation: Evaluation, name: str) -> float | None:
    value = evaluation.scores.get(name)
    return value if value is not None and math.isfinite(value) else None


def judged_split(evaluations: Mapping[str, Evaluation]) -> str | None:
    """The split that the verdict rests on: test, else dev, else none.

    >>> judged_split({"dev": Evaluation(8), "test": Evaluation(90)}), judged_split({})
    ('test', None)
    """
    return next((split for split in ("test", "dev") if split in evaluations), None)


def course(record: RunRecord) -> str:
    """What the learning curve says: how often dev was measured, which step was kept, what its last step gave."""
    steps, values = record.curve.of("dev", record.metric)
    name = units.metric(record.metric).title
    known = [(s, v) for s, v in zip(steps, values, strict=True) if math.isfinite(v)]
    if not known:
        return "Dev was never measured, so no step was chosen by it."
    total = units.count(record.config.schedule.steps)
    said = (
        f"Dev was measured {units.plural(len(steps), 'time')} over {units.count(record.steps_done)} of {total} steps."
    )
    if record.chosen_step is None:
        return said
    at = dict(known).get(record.chosen_step)
    kept = f" The weights of step {units.count(record.chosen_step)} were kept"
    if at is not None:
        kept += f", where {name} on dev was {units.score(record.metric, at)}"
    if known[-1][0] == record.chosen_step:
        return f"{said}{kept}; it was the last one, so a longer run may still gain."
    return f"{said}{kept}; the last step gave {units.score(record.metric, known[-1][1])}."


def flags(record: RunRecord) -> tuple[str, ...]:
    """What the evaluations flag (``name: figures``), as sentences that name their split.

    >>> from foretune.report.sentences import _flag
    >>> _flag("test", "ood_at_chance: accuracy 0.5")
    'On test, ood at chance: accuracy 0.5.'
    """
    return tuple(_flag(split, flag) for split, judged in record.evaluations.items() for flag in judged.flags)


def _flag(split: str, flag: str) -> str:
    name, colon, figures = flag.partition(":")
    return f"On {units.split_title(split)}, {name.replace('_', ' ')}{colon}{figures}."
