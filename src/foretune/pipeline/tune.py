"""tune: recommend, train once, judge, report, save. The main job, start to end."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from foretune.errors import ForetuneError, Interrupted, StoreError, UsageError
from foretune.pipeline.draft import Draft, open_task, prepare_plan
from foretune.pipeline.options import TuneOptions, make_options, parse_budget
from foretune.pipeline.result import Result, read_plan
from foretune.records import Plan, RunConfig, RunRecord, digest
from foretune.report import markdown, page
from foretune.store.folder import read_run
from foretune.store.journal import JournalStore, default_folder
from foretune.tasks import Task
from foretune.training.progress import Progress
from foretune.training.run import train

REQUEST = "request.json"
Say = Callable[[str], None]


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
        plan: from ``recommend``; its best is run. None asks the recommender.
        out: the run folder; default ``runs/<task>-<tuner>-<identity of the request>``.
        options: everything that can be asked; instead of it, the fields of ``TuneOptions`` as keyword arguments.
        overwrite: remove another run from ``out``.
        remember: append the record to the local store.
        progress, say: told of steps and of what was detected.

    Raises:
        ForetuneError: what went wrong and the way out; the folder holds a record of it.
    """
    began = time.monotonic()
    if options is not None and asked:
        raise UsageError(f"Give `options` or keyword arguments, not both: got {', '.join(asked)}.")
    options = options or make_options(asked)
    opened = open_task(task, options)
    request = {"task": opened.fingerprint, "options": options.given(), "plan": plan.to_json() if plan else None}
    folder = Path(out) if out is not None else _default_folder(opened, options, request)
    found = _found(folder, request, overwrite)
    if found is not None and found.status == "ok":
        say(f"`{folder}` holds this very run, finished: nothing to do. Use `--overwrite` to run it again.")
        return Result(found, folder, read_plan(folder))
    if found is not None:
        config, kept = found.config, read_plan(folder)
        say(f"`{folder}` holds this run, {found.status} after {found.steps_done} steps or more: going on.")
    else:
        draft = _draft(opened, options, plan, say, time.monotonic() - began)
        config, kept, opened = draft.config, draft.plan, draft.task
        for note in draft.notes:
            say(note)
        opened = replace(opened, notes=(*opened.notes, *draft.notes))
        _write_request(folder, request, kept)
    budget = parse_budget(options.budget)
    record = _train(config, opened, folder, progress, options, remember, say, budget, began)
    _write_card(folder, record)
    page.write(folder)
    return Result(record, folder, kept)


def _train(
    config: RunConfig,
    task: Task,
    folder: Path,
    progress: Progress | None,
    options: TuneOptions,
    remember: bool,
    say: Say,
    budget: float | None,
    began: float,
) -> RunRecord:
    left = None if budget is None else max(1.0, 0.9 * (budget - (time.monotonic() - began)))
    try:
        return train(
            config, task=task, folder=folder, data_dir=options.data_dir, progress=progress, deadline_seconds=left
        )
    except (Interrupted, KeyboardInterrupt) as stop:
        raise Interrupted(
            f"{stop or 'Stopped before the first step.'} The state is kept in `{folder}`: the same command goes on."
        ) from stop
    finally:
        if remember:
            _remember(folder, say)


def _remember(folder: Path, say: Say) -> None:
    """Append the folder's record to the local store; a store that cannot be written costs no result."""
    try:
        record = read_run(folder)
        if record.status != "running":
            JournalStore(default_folder()).append(record)
    except ForetuneError as error:
        say(f"The run was not added to the local store: {error}")


def _draft(task: Task, options: TuneOptions, plan: Plan | None, say: Say, spent: float) -> Draft:
    draft = prepare_plan(task, options, say, spent)
    if plan is None:
        return draft
    best = plan.best
    config = replace(draft.config, tuner=best.tuner, objective=best.objective, schedule=best.schedule)
    return replace(draft, plan=plan, config=config)


def _default_folder(task: Task, options: TuneOptions, request: dict[str, Any]) -> Path:
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in task.name)[:40] or "task"
    return Path("runs") / f"{name}-{options.tuner or 'recommended'}-{digest(request, 8)}"


def _found(folder: Path, request: dict[str, Any], overwrite: bool) -> RunRecord | None:
    """The record of the same request in ``folder``; None when the folder is free.

    Raises:
        UsageError: the folder holds something else and ``overwrite`` was not said.
    """
    if not folder.exists() or not any(folder.iterdir()):
        return None
    if not folder.is_dir() or not (folder / REQUEST).exists():
        raise UsageError(f"`{folder}` holds files that are not a run of foretune. Give another folder with `--out`.")
    if overwrite:
        shutil.rmtree(folder)
        return None
    before = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    if before != json.loads(json.dumps(request)):
        raise UsageError(
            f"`{folder}` holds another run ({_difference(before, request)}). "
            "Give another folder with `--out`, or begin anew there with `--overwrite`."
        )
    return read_run(folder) if (folder / "run.json").exists() else None


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    if before.get("task") != now["task"]:
        return "the data differ"
    old, new = before.get("options", {}), json.loads(json.dumps(now["options"]))
    parts = [f"`{k}` was {old.get(k, 'not given')}, is {new.get(k, 'not given')}" for k in {*old, *new} if old.get(k) != new.get(k)]
    return "; ".join(sorted(parts)) or "the plan differs"


def _write_request(folder: Path, request: dict[str, Any], plan: Plan) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_text(json.dumps(plan.to_json(), indent=2), encoding="utf-8")
        (folder / REQUEST).write_text(json.dumps(request, indent=2), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"The run folder `{folder}` cannot be written: {error.strerror or error}.") from error


def _write_card(folder: Path, record: RunRecord) -> None:
    (folder / "adapter" / "README.md").write_text(markdown.card(record), encoding="utf-8")
