"""From a frozen config to a model on its device with every split tokenised: the part before the first step."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from foretune.errors import ModelError
from foretune.models import Checkpoint, build, open_checkpoint
from foretune.objectives import Encoded
from foretune.objectives import make as make_objective
from foretune.records import RunConfig
from foretune.tasks import Draw, Task, draw
from foretune.training.engine import Engine
from foretune.training.surroundings import stream
from foretune.tuners import make as make_tuner

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import nn


@dataclass(frozen=True)
class Prepared:
    """All that the loop needs.

    Attributes:
        config: as given, with the fingerprints filled in.
        engine: the tuned model with its objective, on the device.
        tables, encoded: split (``train``, ``dev``, ``test``, ``ood:NAME``) -> rows, tokenised rows.
        fresh: the modules that started at random.
        initial_hash: hash of the trainable weights before the first step.
    """

    config: RunConfig
    task: Task
    draw: Draw
    engine: Engine
    tables: Mapping[str, pa.Table]
    encoded: Mapping[str, Encoded]
    fresh: tuple[str, ...]
    initial_hash: str


def prepare(config: RunConfig, task: Task | None = None, data_dir: str | None = None) -> Prepared:
    """Open the task and the checkpoint, draw the rows, build and attach, tokenise.

    Args:
        config: what to run.
        task: the task, where it is already open (or has no file, ``source="memory"``).
        data_dir: where catalog tasks lie.

    Raises:
        DataError, ModelError, ResourceError, UsageError: before any weights are read wherever that can be known.
    """
    import torch
    from accelerate import Accelerator

    task = task if task is not None else Task.from_ref(config.task, data_dir=data_dir)
    rows = draw_rows(config, task)
    checkpoint = open_checkpoint(config.model, config.task.kind)
    tuner, objective = make_tuner(config.tuner), make_objective(config.objective)
    if config.task.kind not in objective.kinds:
        raise ModelError(
            f"The objective `{objective.name}` serves {', '.join(objective.kinds)} tasks, but this is a {config.task.kind} "
            "task. Leave the objective out to choose by kind."
        )
    config = replace(
        config,
        model=checkpoint.ref,
        task=replace(task.ref, **_draw_fields(config)),
    )

    precision = "bf16" if config.schedule.precision == "bf16" else "no"
    accelerator = Accelerator(mixed_precision=precision, cpu=not torch.cuda.is_available())
    torch.manual_seed(stream("init", config.seeds.init))
    network = build(checkpoint, objective.outputs(len(task.schema.labels)))
    bare = tuner.attach(network.module, network.fresh)
    bare.to(accelerator.device)
    virtual = tuner.virtual_tokens(bare)

    tables = {name: t for name, t in (("train", rows.train), ("dev", rows.dev), ("test", rows.test)) if len(t)}
    tables |= {f"ood:{name}": table for name, table in task.ood.items()}
    encoded: dict[str, Encoded] = {}
    for name, table in tables.items():
        encoded[name] = objective.encode(table, _targets(task, name, table), checkpoint)
        if name == "train":
            objective = objective.fitted(encoded["train"], checkpoint)
    _require_positions(checkpoint, encoded, virtual)
    return Prepared(
        config=config,
        task=task,
        draw=rows,
        engine=Engine(
            checkpoint=checkpoint,
            tuner=tuner,
            objective=objective,
            accelerator=accelerator,
            model=accelerator.prepare_model(bare) if accelerator.num_processes > 1 else bare,
            bare=bare,
            virtual_tokens=virtual,
        ),
        tables=tables,
        encoded=encoded,
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
    if task.schema.kind == "generation":
        return None
    return task.targets(table, split.removeprefix("ood:") if split.startswith("ood:") else None)


def _require_positions(checkpoint: Checkpoint, encoded: Mapping[str, Encoded], virtual: int) -> None:
    if checkpoint.positions is None:
        return
    longest = max((int(e.lengths.max(initial=0)) for e in encoded.values()), default=0)
    if longest + virtual > checkpoint.positions:
        raise ModelError(
            f"`{checkpoint.ref.name}` has {checkpoint.positions} positions, but the longest text takes {longest} and the "
            f"tuner's virtual tokens {virtual}. Use `--max-length {checkpoint.positions - virtual}` or fewer virtual tokens."
        )
