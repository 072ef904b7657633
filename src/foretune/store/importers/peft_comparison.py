"""PEFT's method_comparison: a folder of result files, one JSON per run of a method on one task with one model.

The seconds of a run are the sum of ``train time`` over its evaluation records. ``train_info.train_time`` is wall time
minus the periodic evaluations only: the final test generation and the preparation of the data are still in it, 38 % of
it at the median of the published runs. It is kept beside them as ``printed_seconds``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from foretune.errors import DataError
from foretune.records import Line, MetaRun, MetaTask, ModelCard, RunCollection, Value
from foretune.store.importers.columns import family_of
from foretune.store.importers.plain import plain_config

_LINES = {"valid accuracy": ("dev", "accuracy"), "train loss": ("train", "loss")}
_TEST = {"test accuracy": ("test", "accuracy"), "forgetting": ("test", "forgetting")}
_COST = {
    "accelerator_memory_max": "peak_bytes",
    "file_size": "adapter_bytes",
    "num_trainable_params": "trainable_parameters",
    "num_total_params": "total_parameters",
}
_MACHINERY = {
    "model_id", "max_steps", "eval_steps", "batch_size_eval", "seed", "query_template", "generation_kwargs",
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "peft_type",
}  # fmt: skip
"""Fields that are no setting of a fine-tuning: what was run, how it was watched, which version wrote it."""


def read_peft_comparison(folder: str | os.PathLike[str]) -> RunCollection:
    """The runs of every ``*.json`` in ``folder``; a task is the data sets and the model that a file names.

    Raises:
        DataError: no such files, or one that is not of this form.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.json"))
    if not files:
        raise DataError(f"`{folder}` holds no result of PEFT's method_comparison. Give its folder of `*.json` files.")
    found = [_read(path) for path in files]
    tasks = {task.task_id: task for task, _ in found}
    runs = tuple(run for _, run in found)
    return RunCollection("peft-comparison", tuple(_with_size(task, runs) for task in tasks.values()), runs)


def _read(path: Path) -> tuple[MetaTask, MetaRun]:
    try:
        plain = json.loads(path.read_bytes())
        info, trained, meta = plain["run_info"], plain["train_info"], plain["meta_info"]
        task = _task(info["train_config"]["model_id"], sorted(meta["dataset_info"]))
        return task, _run(path, info, trained, meta, task.task_id)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"`{path}` is no result file of PEFT's method_comparison ({type(error).__name__}: {error}). "
            "Give a folder that holds nothing else."
        ) from error


def _task(model: str, data: list[str]) -> MetaTask:
    name = "+".join(data)
    return MetaTask(
        task_id=f"{name} with {model}",
        name=name,
        group_key=name,
        metric="accuracy",
        kind="generation",
        model=ModelCard(model, family_of(model), reading="decoder"),
        source="peft-comparison",
    )


def _with_size(task: MetaTask, runs: tuple[MetaRun, ...]) -> MetaTask:
    """The task with its model's size: the smallest total, for a total includes what a method added."""
    totals = [
        run.cost["total_parameters"] for run in runs if run.task_id == task.task_id if "total_parameters" in run.cost
    ]
    if task.model is None or not totals:
        return task
    return replace(task, model=replace(task.model, parameters=int(min(totals))))


def _run(path: Path, info: Any, trained: Any, meta: Any, task_id: str) -> MetaRun:
    settings, records = info["train_config"], trained["metrics"]
    evaluated = [record for record in records if "train time" in record]
    seconds = tuple(accumulate(float(record["train time"]) for record in evaluated))
    lines = [_line(evaluated, key, *what, seconds) for key, what in _LINES.items()]
    lines += [_line(records, key, *what) for key, what in _TEST.items()]
    cost = {name: float(trained[key]) for key, name in _COST.items() if trained.get(key) is not None}
    if evaluated:
        cost["train_seconds"] = seconds[-1]
        cost["eval_seconds"] = sum(float(record.get("eval time", 0.0)) for record in evaluated)
    if trained.get("train_time") is not None:
        cost["printed_seconds"] = float(trained["train_time"])
    if records and "train total tokens" in records[-1]:
        cost["tokens"] = float(records[-1]["train total tokens"])
    succeeded = trained["status"] == "success"
    return MetaRun(
        run_id=info.get("experiment_name") or path.stem,
        task_id=task_id,
        config=_config(settings, info.get("peft_config")),
        status="ok" if succeeded else "failed",
        max_steps=int(settings["max_steps"]),
        lines=tuple(line for line in lines if line.steps) if succeeded else (),
        seed=int(settings["seed"]),
        cost=cost,
        hardware=str(meta.get("system_info", {}).get("accelerator", "")),
        error="" if succeeded else str(info.get("error_msg") or trained["status"]),
    )


def _line(records: list[Any], key: str, split: str, metric: str, seconds: tuple[float, ...] = ()) -> Line:
    having = [number for number, record in enumerate(records) if key in record]
    return Line(
        split,
        metric,
        tuple(int(records[number]["step"]) for number in having),
        tuple(float(records[number][key]) for number in having),
        tuple(seconds[number] for number in having) if seconds else (),
    )


def _config(settings: Mapping[str, Any], method: Mapping[str, Any] | None) -> dict[str, Value]:
    """Settings of the training under their own names, those of the method under ``method.``."""
    name = "full" if method is None else str(method["peft_type"]).lower()
    own = {key: value for key, value in (method or {}).items() if key not in _MACHINERY}
    training = {key: value for key, value in settings.items() if key not in _MACHINERY}
    return {"method": name, **plain_config(training), **plain_config(own, "method.")}
