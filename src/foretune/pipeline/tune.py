"""tune: recommend, train once, judge, report, save. The main job, start to end."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from foretune.errors import ForetuneError, Interrupted, StoreError, UsageError
from foretune.pipeline import request as requests
from foretune.pipeline import trials
from foretune.pipeline.advice import measured_by
from foretune.pipeline.draft import (
    READING,
    Draft,
    check_method,
    described,
    draw_rows,
    held,
    open_task,
    prepare_plan,
    unlabelled,
)
from foretune.pipeline.options import TuneOptions, make_options, parse_budget
from foretune.pipeline.places import require_place
from foretune.pipeline.result import Result
from foretune.records import Plan, RunRecord, digest
from foretune.report import markdown, page
from foretune.store.folder import RUN_FILE, read_run
from foretune.store.journal import JournalStore, default_folder
from foretune.tasks import Task
from foretune.training.progress import Progress
from foretune.training.run import train

Say = Callable[[str], None]

LEAST_SECONDS = 1.0
"""Of training, however little a budget leaves on a second start: a run that goes on takes a step at least."""


def tune(
    task: Task | str | os.PathLike[str],
    *,
    plan: Plan | None = None,
    out: str | os.PathLike[str] | None = None,
    options: TuneOptions | None = None,
    overwrite: bool = False,
    remember: bool = True,
    progress: Progress | None = None,
    say: Say = lambda line: None,
    **asked: Any,
) -> Result:
    """Recommend, train once, evaluate, report, save.

    An unfinished run in ``out`` with the same request goes on; a finished one is returned as it is.

    Args:
        task: an opened task, or what ``Task.from_source`` takes.
        plan: from ``recommend``; its best is run, with the options over it. None asks the recommender.
        out: the run folder; default ``runs/<task>-<tuner>-<identity of the request>``.
        options: everything that can be asked; instead of it, the fields of ``TuneOptions`` as keyword arguments.
        overwrite: remove another run from ``out``, once the new one is known to be possible.
        remember: append the record to the local store.
        progress, say: told of steps and of what was detected.

    Raises:
        ForetuneError: what went wrong and the way out; the folder holds a record of it.
    """
    began = time.monotonic()
    if options is not None and asked:
        raise UsageError(f"Give `options` or keyword arguments, not both: got {', '.join(asked)}.")
    options = options or make_options(asked)
    check_method(options, plan is not None)
    opened = open_task(task, options)
    request = {"task": opened.fingerprint, "options": options.given(), "plan": plan.to_json() if plan else None}
    texts = unlabelled(opened, options)
    if texts is not None:
        request["texts"] = texts.fingerprint
    apart = held(opened, options)
    if apart is not None:
        request["held"] = apart.fingerprint
    folder = Path(out) if out is not None else default_out(opened, options, request)
    found = requests.found(folder, request, overwrite)
    if found is not None and found.status == "ok":
        say(f"`{folder}` holds this very run, finished: nothing to do. Use `--overwrite` to run it again.")
        if not (folder / page.PAGE).exists():
            _write_up(folder, found)
        return Result(found, folder, requests.read_plan(folder))
    if found is not None:
        say(f"`{folder}` holds this run, {_state(found)}: going on.")
        draft = _kept(opened, options, found, folder)
    else:
        require_place(folder, folder=True)
        draft = prepare_plan(opened, _opened(options), plan=plan, say=say, began=began, texts=texts, apart=apart)
        for line in (draft.sentence(), *draft.notes):
            say(line)
        draft = replace(draft, task=replace(draft.task, notes=(*draft.task.notes, *draft.notes)))
        if overwrite or not (folder / trials.FOLDER).exists():
            requests.begin(folder, request, draft.plan)
        if options.mode != "one-shot":
            draft = _played(draft, folder, options, began, progress, remember, say)
    record = _train(draft, folder, progress, _deadline(draft, options, began), remember, say)
    _write_up(folder, record)
    return Result(record, folder, draft.plan)


def default_out(task: Task, options: TuneOptions, request: dict[str, Any]) -> Path:
    """``runs/<task>-<tuner>-<identity of the request>``: the same command finds its folder again."""
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in task.name)[:40] or "task"
    return Path("runs") / f"{name}-{options.tuner or 'recommended'}-{digest(request, 8)}"


def _opened(options: TuneOptions) -> TuneOptions:
    """``options`` without those that have been read to open the task."""
    blank = TuneOptions()
    return replace(options, **{name: getattr(blank, name) for name in READING})


def _kept(task: Task, options: TuneOptions, found: RunRecord, folder: Path) -> Draft:
    """The draft of an unfinished run: its own config and notes, so that it ends as it would have."""
    plan = requests.read_plan(folder)
    if plan is None:
        raise StoreError(f"`{folder}` has lost its {requests.PLAN}. Restore it, or begin anew with `--overwrite`.")
    notes = found.notes or (*task.notes, *described(task, draw_rows(task, options)))
    return Draft(replace(task, notes=notes), plan, found.config)


def _state(found: RunRecord) -> str:
    return {"running": "unfinished", "stopped": "stopped"}.get(found.status, f"{found.status} ({found.error})")


def _deadline(draft: Draft, options: TuneOptions, began: float) -> float | None:
    """Seconds that the loop may take: what the budget leaves beside loading, the last evaluation and the floors."""
    budget = parse_budget(options.budget)
    if budget is None:
        return None
    left = budget - (time.monotonic() - began)
    around = draft.probe.setup_seconds + draft.probe.reserve() if draft.probe else 0.1 * left
    return max(LEAST_SECONDS, left - around)


def _train(
    draft: Draft, folder: Path, progress: Progress | None, deadline: float | None, remember: bool, say: Say
) -> RunRecord:
    try:
        return train(
            draft.config,
            task=draft.task,
            folder=folder,
            progress=progress,
            deadline_seconds=deadline,
            until=trials.until_of(folder, draft.config),
            seen=draft.adviser.seen if draft.adviser and draft.config.pretraining is None else None,
        )
    except (Interrupted, KeyboardInterrupt) as stop:
        said = str(stop) or "Stopped."
        raise Interrupted(f"{said} What is done is kept in `{folder}`: the same command goes on.") from stop
    finally:
        if remember and (folder / RUN_FILE).exists():
            _remember(folder, say)


def _played(
    draft: Draft,
    folder: Path,
    options: TuneOptions,
    began: float,
    progress: Progress | None,
    remember: bool,
    say: Say,
) -> Draft:
    """The draft of the candidate that a play keeps; the draft itself where there is nothing to play."""
    asks, probe, budget = draft.adviser, draft.probe, parse_budget(options.budget)
    if asks is None or draft.plan.recommender != "transfer":
        say("Too little is known to play candidates against each other: the plan is run as it is.")
        return draft
    overhead, around = (probe.setup_seconds, probe.setup_seconds + probe.reserve()) if probe else (0.0, 0.0)
    spent_before = trials.spent(folder)

    def left() -> float:
        return math.inf if budget is None else budget - (time.monotonic() - began) - around

    measured, whole = measured_by(probe, draft.config) if probe else None, options.mode == "portfolio"
    pool, recommender, seconds = asks.to_play(measured, left() if whole and budget is not None else None, overhead)
    play = trials.Play(
        folder,
        draft.config,
        draft.task,
        pool,
        recommender,
        seconds,
        left=None if budget is None else lambda: left() - spent_before,
        most=trials.TRIED if whole and budget is None else None,
        overhead=overhead,
        say=say,
        progress=progress,
    )
    try:
        kept = play.run(draft.plan)
    except (Interrupted, KeyboardInterrupt) as stop:
        raise Interrupted(f"Stopped. The trials so far are kept in `{folder}`: the same command goes on.") from stop
    finally:
        for record in trials.records(folder) if remember else ():
            _append(record, say)
    if kept is None:
        return draft
    trials.hand_over(folder, kept)
    requests.write_text(folder / requests.PLAN, json.dumps(kept.plan.to_json(), indent=2))
    return replace(draft, plan=kept.plan, config=kept.config)


def _remember(folder: Path, say: Say) -> None:
    """Append the folder's record to the local store; a store that cannot be written costs no result."""
    try:
        record = read_run(folder)
    except ForetuneError as error:
        say(f"The run was not added to the local store: {error}")
        return
    _append(record, say)


def _append(record: RunRecord, say: Say) -> None:
    try:
        if record.status != "running":
            JournalStore(default_folder()).append(record)
    except ForetuneError as error:
        say(f"The run was not added to the local store: {error}")


def _write_up(folder: Path, record: RunRecord) -> None:
    requests.write_text(folder / "adapter" / "README.md", markdown.card(record, page.verdict(folder)))
    page.write(folder)
