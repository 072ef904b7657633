"""From a frozen config to a model on its device with every split tokenised: the part before the first step."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretune.errors import DataError, ModelError, UsageError
from foretune.models import Checkpoint, build, open_checkpoint
from foretune.objectives import Encoded, Objective
from foretune.objectives import make as make_objective
from foretune.records import UNLABELLED, RunConfig, Schedule
from foretune.tasks import Draw, Task, draw
from foretune.training.engine import Engine, make_accelerator
from foretune.training.surroundings import stream
from foretune.training.teaching import TEACHERS, Lessons, ask
from foretune.tuners import Tuner
from foretune.tuners import make as make_tuner

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import nn


DECAYS = ("linear", "cosine", "constant")
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Prepared:
    """All that the loop needs.

    Attributes:
        config: as given, with the fingerprints filled in.
        engine: the tuned model with its objective, on the device.
        tables, encoded: split (``train``, ``dev``, ``test``, ``ood:NAME``) -> rows, tokenised rows.
        learning: what the optimizer sees: the training rows, or what a teacher answered.
        lessons: what the teacher said, where there is one.
        fresh: the modules that started at random.
        initial_hash: hash of the trainable weights before the first step.
    """

    config: RunConfig
    task: Task
    draw: Draw
    engine: Engine
    tables: Mapping[str, pa.Table]
    encoded: Mapping[str, Encoded]
    learning: Encoded
    lessons: Lessons | None
    fresh: tuple[str, ...]
    initial_hash: str


def prepare(
    config: RunConfig, task: Task | None = None, data_dir: str | None = None, store: Path | None = None
) -> Prepared:
    """Open the task and the checkpoint, draw the rows, build and attach, tokenise.

    Args:
        config: what to run.
        task: the task, where it is already open (or has no file, ``source="memory"``).
        data_dir: where catalog tasks lie.
        store: where a teacher's answers are kept; None: the folder of remembered runs.

    Raises:
        DataError, ModelError, ResourceError, UsageError: before any weights are read wherever that can be known.
    """
    import torch

    task = task if task is not None else Task.from_ref(config.task, data_dir=data_dir)
    rows = draw_rows(config, task)
    kind = task.schema.kind
    tuner, objective = make_tuner(config.tuner), make_objective(config.objective)
    require_schedule(config.schedule, tuner)
    if kind not in objective.kinds:
        raise UsageError(
            f"The objective `{objective.name}` serves {', '.join(objective.kinds)} tasks, but this is a {kind} task. "
            "Leave the objective out to choose by kind."
        )
    require_untrained(objective, tuner)
    ref = replace(config.model, pooling="none") if objective.language else config.model
    checkpoint = open_checkpoint(ref, kind)
    tables = tables_of(rows, task)
    objective = objective.for_task(task.schema, tables, config.seeds, checkpoint)
    config = replace(
        config,
        model=checkpoint.ref,
        task=replace(task.ref, **_draw_fields(config)),
    )

    accelerator = make_accelerator()
    torch.manual_seed(stream("init", config.seeds.init))
    network = build(checkpoint, objective.outputs(len(task.schema.labels)), objective.fresh_head)
    lesson = objective.lesson(task, tables, config.seeds, checkpoint, data_dir)
    lessons = None
    if lesson is not None:
        place = store / TEACHERS if store else None
        lessons = ask(lesson, network.module, tables, checkpoint, accelerator.device, place)
    bare = tuner.attach(network.module, network.fresh)
    bare.to(accelerator.device)
    virtual = tuner.virtual_tokens(bare)
    _require_pool(objective, tuner.answering_members(bare), tuner.dev_members(bare))

    encoded: dict[str, Encoded] = {}
    for name, table in tables.items():
        encoded[name] = objective.encode(table, _targets(task, name, table), checkpoint)
        if name == "train":
            objective = objective.fitted(encoded["train"], checkpoint)
    require_whole_prompts(objective, {name: e for name, e in encoded.items() if name != "train"})
    learning = encoded["train"]
    if lesson and lessons:
        texts = objective.encode(lesson.table, None, checkpoint)
        learning = objective.learning(learning, replace(texts, taught=lessons.taught))
    _require_positions(checkpoint, max(objective.longest(e) for e in (*encoded.values(), learning)), virtual)
    return Prepared(
        config=config,
        task=task,
        draw=rows,
        engine=Engine(
            checkpoint=checkpoint,
            tuner=tuner,
            objective=objective,
            accelerator=accelerator,
            model=accelerator.prepare_model(bare) if accelerator.num_processes > 1 and tuner.trains else bare,
            bare=bare,
            virtual_tokens=virtual,
            bf16=config.schedule.precision == "bf16",
        ),
        tables=tables,
        encoded=encoded,
        learning=learning,
        lessons=lessons,
        fresh=network.fresh,
        initial_hash=weights_hash(bare),
    )


def draw_rows(config: RunConfig, task: Task) -> Draw:
    """The rows of this run: a pure function of the task's contents, the label budget and the data seed."""
    wanted = config.task
    return draw(
        task,
        shots=wanted.shots,
        dev_fraction=wanted.dev_fraction,
        test_fraction=wanted.test_fraction,
        seed=config.seeds.data,
    )


def tables_of(rows: Draw, task: Task) -> dict[str, pa.Table]:
    """Split -> rows, without empty splits: what is drawn, and every out-of-domain set whole."""
    tables = {name: t for name, t in (("train", rows.train), ("dev", rows.dev), ("test", rows.test)) if len(t)}
    return tables | {f"ood:{name}": table for name, table in task.ood.items()}


def trainable(model: nn.Module) -> dict[str, Any]:
    """Name -> parameter of everything that trains."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def weights_hash(model: nn.Module) -> str:
    """A hash of the trainable weights: equal for equal seeds, and the proof of it in the record."""
    sha = hashlib.sha256()
    for name, parameter in sorted(trainable(model).items()):
        sha.update(name.encode())
        sha.update(parameter.detach().float().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()[:16]


def _draw_fields(config: RunConfig) -> dict[str, Any]:
    return {name: getattr(config.task, name) for name in ("shots", "dev_fraction", "test_fraction")}


def _targets(task: Task, split: str, table: pa.Table) -> Any:
    if task.schema.kind in ("generation", UNLABELLED):
        return None
    return task.targets(table, split.removeprefix("ood:") if split.startswith("ood:") else None)


def require_schedule(schedule: Schedule, tuner: Tuner) -> None:
    """Raise ``UsageError`` unless every field of ``schedule`` has a meaning for ``tuner``."""
    rules = {
        "steps >= 1": schedule.steps >= 1 or not tuner.trains,
        f"steps = 0 (`{tuner.name}` trains nothing)": schedule.steps == 0 or tuner.trains,
        "batch_size >= 1": schedule.batch_size >= 1,
        "micro_batch >= 1": schedule.micro_batch is None or schedule.micro_batch >= 1,
        "lr > 0": schedule.lr > 0 or not tuner.trains,
        "head_lr > 0": schedule.head_lr is None or schedule.head_lr > 0,
        "weight_decay >= 0": schedule.weight_decay >= 0,
        "0 <= warmup <= 1": 0 <= schedule.warmup <= 1,
        f"decay one of {', '.join(DECAYS)}": schedule.decay in DECAYS,
        "clip > 0": schedule.clip is None or schedule.clip > 0,
        "evaluations >= 1": schedule.evaluations >= 1,
        "patience >= 1": schedule.patience is None or schedule.patience >= 1,
        f"precision one of {', '.join(PRECISIONS)}": schedule.precision in PRECISIONS,
    }
    broken = [rule for rule, kept in rules.items() if not kept]
    if broken:
        got = ", ".join(f"{name}={vars(schedule)[name]!r}" for name in vars(schedule) if any(name in b for b in broken))
        raise UsageError(f"The schedule must have {'; '.join(broken)}, but got {got}.")


def require_untrained(objective: Objective, tuner: Tuner) -> None:
    """Raise ``UsageError`` where examples are shown and ``tuner`` would train."""
    if objective.in_context and tuner.trains:
        raise UsageError(
            f"Examples in the context are shown, not learned from, but `{tuner.name}` would train on the very rows "
            "that are shown. Use `--tuner frozen`, or no demonstrations."
        )


def require_whole_prompts(objective: Objective, encoded: Mapping[str, Encoded]) -> None:
    """Raise ``DataError`` where examples are shown and a row to be judged does not fit behind them.

    Cut contexts would be compared with whole ones.
    """
    long = {name: e for name, e in encoded.items() if e.cut}
    if objective.in_context and long:
        limit = next(iter(long.values())).limit
        counts = ", ".join(f"{e.cut} of {len(e)} rows of {name.removeprefix('ood:')}" for name, e in long.items())
        raise DataError(
            f"Demonstrations and row must fit into {limit} tokens together, but {counts} do not. Use a larger "
            "`--max-length` (if the model has the positions), fewer demonstrations, or drop the long rows."
        )


def _require_pool(objective: Objective, count: int, on_dev: int) -> None:
    if on_dev > 1 and not objective.judges_members:
        raise UsageError(
            f"{on_dev} members are to judge dev, but the objective `{objective.name}` as it is set scores one model at "
            "a time. Use `--option dev_samples=1`, or leave `calibrate` and `normalise=prior` out."
        )
    if count > 1 and not objective.pools:
        raise UsageError(
            f"{count} members are to answer together, but the answers of the objective `{objective.name}` have no "
            "mean. Let the midpoint answer: leave the option `predict` out."
        )


def _require_positions(checkpoint: Checkpoint, longest: int, virtual: int) -> None:
    if checkpoint.positions is not None and longest + virtual > checkpoint.positions:
        raise ModelError(
            f"`{checkpoint.ref.name}` has {checkpoint.positions} positions, but the longest text takes {longest} and "
            f"the virtual tokens {virtual}. Use `--max-length {checkpoint.positions - virtual}` or fewer of them."
        )
