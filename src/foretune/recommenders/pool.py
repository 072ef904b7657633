"""Pool: what a recommender chooses among, as runs of the new task that nobody has started.

Place 0 is the published default, always. Then pipelines that did well elsewhere, in the order of a greedy portfolio, as
far as they can be run here. The rest are sampled from what the tuners offer. What the user has fixed is laid over every
one of them before they are compared, so that a candidate is what would be run; equal ones are one candidate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from foretune.errors import UsageError
from foretune.recommenders.known import known_regrets
from foretune.recommenders.portfolio import greedy
from foretune.recommenders.published import EVALUATIONS, published
from foretune.recommenders.sample import sample
from foretune.recommenders.situation import Situation
from foretune.records import MetaRun, MetaTask, Part, Recommendation, RunCollection, Schedule, Value
from foretune.store.metadata import plain_settings
from foretune.store.metadataset import MetaDataset, metadataset

SIZE = 512
KNOWN = 16
"""Most pipelines that are taken over from earlier runs."""

DEFAULT, PORTFOLIO, SAMPLED = "default", "portfolio", "sampled"


@dataclass(frozen=True)
class Pool:
    """Candidates for one task.

    Attributes:
        runs: the candidates, none of them started; place 0 is the published default.
        offered: ``runs`` as pipelines, each with its origin and nothing foretold.
        known: the places of the portfolio, in its order; the default's may be among them.
        sources: sentences on where the numbers of the default are from.
        standard: whether the default is as published: neither cut to a budget nor changed by what the user has fixed.
    """

    runs: MetaDataset
    offered: tuple[Recommendation, ...]
    known: tuple[int, ...]
    sources: tuple[str, ...]
    standard: bool = True


def make_pool(situation: Situation, past: MetaDataset | None = None, size: int = SIZE, seed: int = 0) -> Pool:
    """At most ``size`` candidates for ``situation``; fewer where what the user has fixed makes them equal.

    Args:
        past: runs on other tasks, of which the portfolio is made.
        seed: of the sampled ones.

    Raises:
        UsageError: an unknown tuner, or a situation without the description of its task.
        ResourceError: nothing fits the budget.
    """
    if situation.task is None:
        raise UsageError("candidates are compared with past runs, but the situation does not describe its task.")
    default, sources = published(situation)
    found: dict[str, Recommendation] = {}
    names: list[dict[str, Value]] = []
    known: list[str] = []
    for each in _candidates(situation, default, past, size, seed):
        settled = replace(situation.settle(each), origin=each.origin)
        config = plain_of(settled, situation)
        key = MetaRun("", "", config, "stopped", 1).config_id
        if key not in found:
            found[key] = settled
            names.append(config)
        if each.origin == PORTFOLIO:
            known.append(key)
        if len(found) == size:
            break
    offered, place = tuple(found.values()), {key: number for number, key in enumerate(found)}
    runs = unstarted(situation.task, names, [each.schedule.steps for each in offered])
    whole, _ = published(replace(situation, budget_seconds=None))
    return Pool(
        runs, offered, tuple(dict.fromkeys(place[key] for key in known)), sources, _alike(offered[0], whole, situation)
    )


def _alike(one: Recommendation, other: Recommendation, situation: Situation) -> bool:
    """Whether two pipelines are the same but for how fast they multiply and how often they are judged."""

    def settings(pipeline: Recommendation) -> dict[str, Value]:
        schedule = replace(pipeline.schedule, precision=one.schedule.precision, evaluations=1)
        return plain_of(replace(pipeline, schedule=schedule), situation)

    return settings(one) == settings(other)


def _candidates(
    situation: Situation, default: Recommendation, past: MetaDataset | None, size: int, seed: int
) -> Iterable[Recommendation]:
    yield replace(default, seconds=None, origin=DEFAULT)
    if default.schedule.steps == 0:  # what was asked for trains nothing: there is nothing to choose
        return
    if past is not None and len(past):
        yield from (replace(each, origin=PORTFOLIO) for each in _portfolio(situation, past)[:KNOWN])
    for each in sample(situation, size, seed):
        yield replace(each, origin=SAMPLED)


def _portfolio(situation: Situation, past: MetaDataset) -> list[Recommendation]:
    """Pipelines of earlier runs that can be run here, in the order of the greedy portfolio."""
    configs = {str(key): config for key, config in zip(past.config_ids, past.configs, strict=True)}
    made = [(config, pipeline_of(config, situation)) for config in configs.values()]
    can_run = [(config, pipeline) for config, pipeline in made if pipeline is not None]
    if not can_run or situation.task is None:
        return []
    candidates = unstarted(situation.task, [config for config, _ in can_run], [p.schedule.steps for _, p in can_run])
    return [can_run[place][1] for place in greedy(*known_regrets(candidates, past))]


def plain_of(pipeline: Recommendation, situation: Situation) -> dict[str, Value]:
    """The plain settings of ``pipeline`` in ``situation``: the form in which past runs are compared."""
    return plain_settings(
        _complete(pipeline.tuner, situation),
        pipeline.objective,
        pipeline.schedule,
        situation.pooling,
        situation.max_length,
        situation.pretrained_further,
    )


def _complete(tuner: Part, situation: Situation) -> Part:
    """The tuner with the options that nobody gave."""
    method: Any = situation.methods.get(tuner.name)
    if not is_dataclass(method):
        return tuner
    return Part(tuner.name, {**{field.name: field.default for field in fields(method)}, **tuner.options})


def unstarted(task: MetaTask, configs: Sequence[Mapping[str, Value]], steps: Sequence[int]) -> MetaDataset:
    """Runs of ``task`` of which nothing is known but their configurations and lengths."""
    runs = tuple(
        MetaRun(str(place), task.task_id, config, "stopped", max(length, 1))
        for place, (config, length) in enumerate(zip(configs, steps, strict=True))
    )
    return metadataset([RunCollection("pool", (task,), runs)])


def pipeline_of(config: Mapping[str, Value], situation: Situation) -> Recommendation | None:
    """The pipeline that plain settings of a past run say, as it would be run in ``situation``; None where it cannot be.

    It cannot where its tuner or one of its options is not known here or is not the one the user chose, where it
    minimises something else, trains nothing, or takes batches larger than the rows.
    """
    method = situation.methods.get(str(config.get("tuner")))
    if method is None or method.lr == 0 or situation.tuner not in (None, method.name):
        return None
    options = _options(config, method)
    schedule = _schedule(config)
    if options is None or schedule is None or config.get("objective") != situation.objective.name:
        return None
    if schedule.batch_size > situation.rows:
        return None
    return Recommendation(Part(method.name, options), situation.objective, schedule)


def _options(config: Mapping[str, Value], method: Any) -> dict[str, Any] | None:
    """The tuner's options of ``config`` that differ from its defaults; None where one of them cannot be told."""
    if not is_dataclass(method):
        return None
    defaults = {field.name: field.default for field in fields(method)}
    options: dict[str, Any] = {}
    for name, value in config.items():
        if not name.startswith("tuner."):
            continue
        option = name.removeprefix("tuner.")
        if option not in defaults or isinstance(defaults[option], tuple):
            return None
        if value != defaults[option]:
            options[option] = value
    return options


def _schedule(config: Mapping[str, Value]) -> Schedule | None:
    """The schedule of plain settings; what they do not hold is None where it may be, else makes no schedule."""
    whole = ("steps", "batch_size", "patience")
    values: dict[str, Any] = {}
    for name in ("steps", "batch_size", "lr", "weight_decay", "warmup", "decay"):
        if name not in config:
            return None
    for field in fields(Schedule):
        value = config.get(field.name)
        values[field.name] = int(value) if field.name in whole and isinstance(value, int | float) else value
    steps = values["steps"]
    if not isinstance(steps, int) or steps < 1:
        return None
    values["evaluations"] = min(EVALUATIONS, steps)
    values["precision"] = values["precision"] or Schedule(1).precision
    return Schedule(**values)
