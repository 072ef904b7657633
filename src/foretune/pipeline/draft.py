"""Draft: the opened task, the plan and the config that follows from plan and options; nothing is trained yet."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from foretune.errors import ResourceError, UsageError
from foretune.models import Checkpoint, open_checkpoint
from foretune.models.locate import DEMO
from foretune.models.network import require_memory
from foretune.objectives import make as make_objective
from foretune.pipeline.advice import Adviser, adviser, measured_by
from foretune.pipeline.options import TuneOptions, make_options, parse_budget
from foretune.pipeline.settings import as_run, objective_of, run_config, typed
from foretune.records import HeldTexts, ModelRef, Part, Plan, RunConfig, Seeds
from foretune.tasks import Draw, Task, audit, draw
from foretune.tasks.unlabelled import Texts, evaluation_rows, open_held, open_texts
from foretune.training.forgetting import require_forgettable
from foretune.training.precision import about_emulated
from foretune.training.prepare import require_untrained, tables_of
from foretune.training.probe import Probe, probe
from foretune.training.stages import stage_config
from foretune.tuners import make as make_tuner

Say = Callable[[str], None]


@dataclass(frozen=True)
class Draft:
    """What would be run.

    Attributes:
        task: opened, with its notes.
        plan: the recommendation with the user's own options over its best, and what it rests on.
        config: what ``train`` gets: the best of ``plan`` on these rows with this model.
        probe: what a few steps on this machine took; None when none were run.
        notes: about the budget and this machine, one sentence each.
        adviser: who was asked; None where the plan was given or kept.
    """

    task: Task
    plan: Plan
    config: RunConfig
    probe: Probe | None = None
    notes: tuple[str, ...] = ()
    adviser: Adviser | None = None

    def sentence(self) -> str:
        """What will be run, in one line."""
        tuner, course = self.config.tuner, self.config.schedule
        options = ", ".join(f"{name} {value}" for name, value in tuner.options.items())
        return (
            f"Plan: {tuner.name}{f' ({options})' if options else ''} on `{self.config.model.name}`, {course.steps} "
            f"steps of {course.batch_size} rows, learning rate {course.lr:g}, {course.precision}. "
            "`foretune recommend` says what this rests on."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``--dry-run --json``."""
        return {
            "plan": self.plan.to_json(),
            "config": self.config.to_json(),
            "probe": asdict(self.probe) if self.probe else None,
            "notes": list(self.notes),
        }


def recommend(
    task: Task | str | os.PathLike[str], *, model: str = "demo", budget: str | None = None, **options: Any
) -> Plan:
    """The ranked plan for ``task``; trains nothing but a few steps, to time them. Options are those of ``tune``.

    Raises:
        ForetuneError: the task, the model or an option cannot be.
    """
    asked = make_options({"model": model, **({"budget": budget} if budget else {}), **options})
    return prepare_plan(task, asked, measure=True).plan


def check_method(options: TuneOptions, planned: bool = False) -> None:
    """Refuse a tuner, a tuner's option, an objective or a revision that does not exist: no data need be read for that.

    Args:
        planned: whether a plan names the tuner.

    Raises:
        UsageError: with the nearest name there is.
    """
    if options.option and options.tuner is None and not planned:
        name, value = next(iter(options.option.items()))
        raise UsageError(
            f"`--option {name}={value}` is of a tuner, but none is named: the recommender chooses among all. Name one "
            "with `--tuner`, or leave the option out."
        )
    if options.revision is not None and (options.model == DEMO or Path(options.model).expanduser().exists()):
        raise UsageError(
            f"`--revision` is of a Hub id, but `{options.model}` lies on this machine. Leave one of them out."
        )
    if options.tuner is not None:
        make_tuner(Part(options.tuner, options.option))
    if options.objective is not None:
        typed(Part(options.objective, options.objective_option))


def open_task(source: Task | str | os.PathLike[str], options: TuneOptions) -> Task:
    """The task that ``source`` names, read as ``options`` say.

    Raises:
        UsageError: ``source`` is open already, and an option says how to read it.
        DataError: the data break a rule.
    """
    if isinstance(source, Task):
        late = [name for name in options.given() if name in READING]
        if late:
            raise UsageError(
                f"`{late[0]}` says how a file is read, but the task is open already. Give it to `Task.from_csv`."
            )
        return source
    ood: dict[str, str] = {}
    for item in options.ood:
        path, name = named(item)
        if name in ood:
            raise UsageError(f"Two out-of-domain sets are called `{name}`. Name them apart: `--ood {path}:other-name`.")
        ood[name] = path
    asked = {name: getattr(options, name) or None for name in _COLUMNS}
    choices = options.choices[0] if len(options.choices) == 1 else options.choices or None
    return Task.from_source(os.fspath(source), **asked, choices=choices, ood=ood, data_dir=options.data_dir)


_COLUMNS = ("text", "pair", "label", "prompt", "response", "kind", "metric", "dev", "test")
READING = (*_COLUMNS, "choices", "ood", "data_dir")
"""The options that say how a source is read, and nothing once it is open."""


def prepare_plan(
    source: Task | str | os.PathLike[str],
    options: TuneOptions,
    *,
    plan: Plan | None = None,
    measure: bool = False,
    say: Say = lambda line: None,
    began: float | None = None,
    texts: Texts | None = None,
    apart: HeldTexts | None = None,
) -> Draft:
    """Open everything, ask the recommender, and lay the user's options over its answer.

    Args:
        plan: what to run; None asks the recommender.
        measure: time a few steps on this machine, which loads the model once more. A budget always does.
        say: told what was detected.
        began: when the budget began to run, on the monotonic clock; None is now.
        texts: from ``unlabelled``, where they are read already.
        apart: from ``held``, likewise.

    Raises:
        ForetuneError: the task, the model or an option cannot be, or the memory or the budget is not enough.
    """
    began = time.monotonic() if began is None else began
    check_method(options, plan is not None)
    task = open_task(source, options)
    for line in (*task.describe_schema(), *task.notes):
        say(line)
    rows = draw_rows(task, options)
    findings = described(task, rows)
    for line in findings:
        say(line)
    task = replace(task, notes=(*task.notes, *findings))
    say(_about_rows(rows, task))
    texts = texts or unlabelled(task, options)
    objective = objective_of(task, options, plan)
    language = make_objective(objective).language
    checkpoint = open_checkpoint(_model(options, language), task.schema.kind)
    require_memory(checkpoint.parameters * 4, f"The weights of `{options.model}`")
    made = make_objective(objective).for_task(task.schema, tables_of(rows, task), Seeds.all(options.seed), checkpoint)
    asks = None if plan else adviser(task, rows, checkpoint, objective, options, say)
    asked = plan or _asked(asks)
    config = run_config(task, checkpoint.ref, asked, options, len(rows.train))
    config = replace(config, held=apart or held(task, options))
    tuner = make_tuner(config.tuner)
    require_untrained(made, tuner)
    if config.held is not None:
        require_forgettable(made, tuner, checkpoint)
    if texts is not None:
        say(_about_texts(texts))
        task = replace(task, notes=(*task.notes, _about_texts(texts)))
        config = replace(config, pretraining=_stage(checkpoint, texts, options, config.schedule.precision))
    slow = about_emulated(config.schedule.precision)
    draft = Draft(task, as_run(asked, config, options), config, adviser=asks, notes=(slow,) if slow else ())
    if options.budget is None and not measure:
        return _remarked(draft)
    draft = replace(draft, probe=probe(config, task))
    if options.budget is not None:
        draft = _fitted(draft, asks, options, len(rows.train), began)
    elif asks is not None and draft.plan.recommender != "default":
        draft = _timed(draft, asks, options, len(rows.train))
    return _remarked(_expecting(draft))


def _asked(asks: Adviser | None) -> Plan:
    assert asks is not None
    return asks.plan()


def draw_rows(task: Task, options: TuneOptions) -> Draw:
    """The rows that ``options`` ask for."""
    return draw(
        task,
        shots=options.shots,
        dev_fraction=options.dev_fraction,
        test_fraction=options.test_fraction,
        seed=options.seed,
    )


def unlabelled(task: Task, options: TuneOptions) -> Texts | None:
    """The texts that the model is to be trained on before the task, freed of evaluation rows; None: not asked.

    Raises:
        DataError: they cannot be read, or too few are left.
    """
    if options.pretrain is None:
        return None
    texts = open_texts(options.pretrain, task.schema, options.data_dir)
    return texts.without(evaluation_rows(task, options.test_fraction))


def held(task: Task, options: TuneOptions) -> HeldTexts | None:
    """The texts on which forgetting is measured, with their fingerprint; None: not asked.

    Raises:
        DataError: they cannot be read, or too few are left beside the rows of the task.
    """
    if options.held_text is None:
        return None
    asked = HeldTexts(options.held_text)
    return replace(asked, fingerprint=open_held(asked, task, options.data_dir).fingerprint)


def described(task: Task, rows: Draw) -> tuple[str, ...]:
    """What a reader should know of the rows: what was left out, what contradicts, what leaks, with row numbers.

    Copies within train are in ``rows.notes`` already: they are not drawn.
    """
    found = audit(task)
    copies = {split: groups for split, groups in found.duplicates.items() if split != "train"}
    return (*rows.notes, *replace(found, duplicates=copies).sentences())


def _timed(draft: Draft, asks: Adviser, options: TuneOptions, rows: int, budget: float | None = None) -> Draft:
    """The draft planned again, now that steps were timed here; what comes first then is timed itself."""
    assert draft.probe is not None
    plan = asks.plan(measured_by(draft.probe, draft.config), budget)
    config = run_config(draft.task, draft.config.model, plan, options, rows)
    config = replace(config, pretraining=draft.config.pretraining, held=draft.config.held)
    made = replace(draft, plan=as_run(plan, config, options), config=config)
    costly = [(each.tuner, each.schedule.batch_size) for each in (draft.config, config)]
    return made if costly[0] == costly[1] else replace(made, probe=probe(config, draft.task))


def _fitted(draft: Draft, asks: Adviser | None, options: TuneOptions, rows: int, began: float) -> Draft:
    """The draft with as many steps as the budget holds; without ``asks`` its own plan stays, and is warned of."""
    budget, measured, config = parse_budget(options.budget), draft.probe, draft.config
    assert budget is not None
    assert measured is not None
    wanted, before = config.schedule.steps, config.tuner
    spent, around = time.monotonic() - began, measured.total(0, config.schedule.evaluations)
    left = budget - spent - around
    if left <= measured.step_seconds:
        raise ResourceError(
            f"The budget of {budget:g} s does not hold one training step: {spent:.1f} s are spent, "
            f"and loading, evaluation and floors need {around:.1f} s more. "
            f"Give `--budget {math.ceil(budget - left + 1 + 20 * measured.step_seconds)}s` or more."
        )
    if asks is not None and wanted:
        draft = _timed(draft, asks, options, rows, left)
        config, measured = draft.config, draft.probe
        assert measured is not None
    steps = config.schedule.steps
    note = ""
    if config.tuner != before:
        note = f"What would come first without a budget does not fit {budget:g} s: this is the first that does."
    elif steps < wanted:
        note = f"The budget of {budget:g} s leaves time for {steps} steps, not the {wanted} that would be recommended."
    elif steps * measured.step_seconds > left:
        note = (
            f"{steps} steps take about {steps * measured.step_seconds:.0f} s, but {left:.0f} s of the budget are left "
            "for them: training will stop when they are over."
        )
    return replace(draft, notes=(*draft.notes, note)) if note else draft


def _remarked(draft: Draft) -> Draft:
    """The draft with what its tuner has to say about its schedule."""
    said = make_tuner(draft.config.tuner).remarks(draft.config.schedule)
    return replace(draft, notes=(*draft.notes, *said))


def _expecting(draft: Draft) -> Draft:
    """The draft whose best says what it should take on this machine."""
    measured, schedule = draft.probe, draft.config.schedule
    assert measured is not None
    seconds = measured.total(schedule.steps, schedule.evaluations)
    best = replace(draft.plan.best, seconds=seconds, bytes=measured.bytes, measured=True)
    return replace(draft, plan=replace(draft.plan, ranked=(best, *draft.plan.ranked[1:])))


def _model(options: TuneOptions, language: bool) -> ModelRef:
    return ModelRef(
        name=options.model,
        revision=options.revision,
        pooling="none" if language else options.pooling or "auto",
        max_length=options.max_length or ModelRef("").max_length,
        trust_remote_code=options.trust_remote_code,
    )


def _stage(checkpoint: Checkpoint, texts: Texts, options: TuneOptions, precision: str) -> RunConfig:
    asked = {name: getattr(options, f"pretrain_{name}") for name in ("steps", "lr", "seed")}
    given = {name: value for name, value in asked.items() if value is not None}
    return stage_config(checkpoint.ref, texts, precision=precision, **given)


def _about_texts(texts: Texts) -> str:
    left_out = len(texts.left_out)
    without = f"; {left_out:,} more repeat an evaluation row of the task and are left out" if left_out else ""
    return f"Unlabelled texts to go on pretraining on: {texts.table.num_rows:,} of `{texts.source}`{without}."


def named(item: str) -> tuple[str, str]:
    """``path`` and name of ``path:name``; a path that exists is never split, nor a drive letter."""
    path, colon, name = item.rpartition(":")
    if not colon or Path(item).exists() or len(path) < 2 or "/" in name or "\\" in name:
        return item, Path(item).stem
    return path, name


def _about_rows(rows: Draw, task: Task) -> str:
    counts = f"{len(rows.train)} rows train, {len(rows.dev)} select (dev), {len(rows.test)} test"
    return counts + "".join(f", {len(table)} test out of domain ({name})" for name, table in task.ood.items()) + "."
