"""A stage before the task: go on with pretraining, on texts without labels, and leave a model folder to start from.

The stage is a run of its own (full tuning, a language-modelling objective) in the same loop, so it resumes as any run
does. What it leaves is an ordinary checkpoint folder, and the run that follows takes it for its model: nothing else in
foretune needs to know that there was a stage. The folder is named by the digest of the stage's config (base model,
texts, steps, rate, seed), lies beside the remembered runs, and is made once: every run of a comparison that asks for
the same stage finds it there. A run that comes while another makes it waits.

Gururangan et al. 2020, Don't Stop Pretraining (arXiv 2004.10964), is the method, and the source of the default rate.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from foretune.errors import ModelError, StoreError, UsageError
from foretune.models.locate import parameter_count
from foretune.models.network import quiet
from foretune.objectives.language import Language
from foretune.records import Cost, ModelRef, Part, RunConfig, Schedule, Seeds, Stage
from foretune.store.folder import sync_folder
from foretune.store.journal import default_folder
from foretune.tasks import Task
from foretune.tasks.unlabelled import Texts, evaluation_rows, open_texts, require_same
from foretune.training.costs import cost_of
from foretune.training.engine import make_accelerator
from foretune.training.loop import SAVE_EVERY_SECONDS, fit
from foretune.training.meters import PeakMemory, Stopwatch
from foretune.training.prepare import Prepared, prepare
from foretune.training.probe import require_room
from foretune.training.progress import Progress
from foretune.training.state import State
from foretune.training.surroundings import is_main
from foretune.tuners.patch import Full

if TYPE_CHECKING:
    import torch

STEPS, LR, BATCH_SIZE = 500, 1e-4, 32
"""What is not asked. The length and the batch are our choice, the rate is that of task-adaptive pretraining of RoBERTa
(Gururangan et al. 2020, appendix)."""

STAGES = "pretrained"
"""The folder of stages in a store."""

MODEL, DONE = "model", "stage.json"


def stage_config(
    model: ModelRef, texts: Texts, *, steps: int = STEPS, lr: float = LR, seed: int = 0, precision: str = "fp32"
) -> RunConfig:
    """The stage that trains ``model`` on ``texts``: what ``RunConfig.pretraining`` holds.

    Args:
        model: opened, that is with its fingerprint; see ``Checkpoint.ref``.
        texts: freed of evaluation rows.
        seed: of order, masks, dropout and a fresh head. It is not the seed of the run that follows, so that runs of
            many seeds start from one stage.
        precision: ``fp32`` or ``bf16``.

    Raises:
        UsageError: ``model`` was not opened.
    """
    if model.fingerprint is None:
        raise UsageError("A stage names its base by what it holds: give the `ref` of an opened checkpoint.")
    return RunConfig(
        model=replace(model, pooling="none"),
        task=texts.task().ref,
        tuner=Full().part,
        objective=Part(Language.name),
        schedule=Schedule(
            steps=steps,
            batch_size=BATCH_SIZE,
            lr=lr,
            warmup=0.06,
            evaluations=min(5, steps),
            precision=precision,
        ),
        seeds=Seeds.all(seed),
    )


def pretrained(
    config: RunConfig,
    task: Task,
    *,
    folder: Path | None = None,
    data_dir: str | None = None,
    progress: Progress | None = None,
    save_every: float = SAVE_EVERY_SECONDS,
) -> tuple[RunConfig, Stage]:
    """``config`` with the model that its stage leaves, and what the stage took; it runs unless its result is there.

    Args:
        config: with ``pretraining``.
        task: the task that follows: its evaluation rows are left out of the texts.
        folder: where stages are kept; None: ``pretrained`` in the folder of remembered runs.
        data_dir: where catalog tasks lie.
        progress, save_every: as for ``train``.

    Raises:
        ForetuneError: as ``train``; the state is kept and the same call goes on.
    """
    asked = config.pretraining
    assert asked is not None
    place = ((folder or default_folder() / STAGES) / asked.digest).absolute()  # an adapter says where its model lies
    with _alone(place):
        make_accelerator().wait_for_everyone()
        stage = _found(place)
        if stage is None:
            texts = open_texts(asked.task.source, task.schema, data_dir)
            texts = texts.without(evaluation_rows(task, config.task.test_fraction))
            require_same(texts, asked.task.fingerprint)
            stage = _run(asked, texts, place, progress or Progress(), save_every)
    return replace(config, model=replace(config.model, name=str(place / MODEL), revision=None, fingerprint=None)), stage


def _run(asked: RunConfig, texts: Texts, place: Path, progress: Progress, save_every: float) -> Stage:
    import torch

    watch = Stopwatch()
    with watch("setup"):
        progress.phase(f"continued pretraining: {texts.table.num_rows:,} texts, {asked.schedule.steps:,} steps")
        memory = PeakMemory(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        run = prepare(asked, texts.task())
        if run.config.digest != asked.digest:
            raise ModelError(
                f"The base model `{asked.model.name}` must have the fingerprint {asked.model.fingerprint}, but has "
                f"{run.config.model.fingerprint}: it has changed since this run began. Restore it, or begin anew."
            )
        require_room(run)
    with watch("eval"):
        before = _loss(run)
    state = fit(run, checkpoints=place / "checkpoint", progress=progress, memory=memory, save_every=save_every)
    with watch("eval"):
        after = _loss(run)
    memory.sample()
    cost = cost_of(run, state, watch, memory)
    if is_main():
        size = _save(run, place)
        stage = _told(run, texts, state, (before, after), replace(cost, adapter_bytes=size))
        _write(place / DONE, {"config": asked.to_json(), "stage": asdict(stage)})
        shutil.rmtree(place / "checkpoint", ignore_errors=True)
    run.engine.accelerator.wait_for_everyone()
    found = _found(place)
    assert found is not None
    return replace(found, reused=False)


def _loss(run: Prepared) -> float:
    """Of the held-out texts, in fp32 and under the same masks whenever it is measured."""
    return replace(run.engine, bf16=False).outputs(run.encoded["dev"])[1]


def _told(run: Prepared, texts: Texts, state: State, losses: tuple[float, float], cost: Cost) -> Stage:
    cut = sum(encoded.cut for encoded in run.encoded.values())
    limit = run.config.model.max_length
    return Stage(
        digest=run.config.digest,
        texts=len(run.tables["train"]),
        held_out=len(run.tables["dev"]),
        left_out=len(texts.left_out),
        steps=state.step,
        loss_before=losses[0],
        loss_after=losses[1],
        fresh=run.fresh,
        cost=cost,
        warnings=(f"{cut} unlabelled texts are longer than {limit} tokens and lost their end.",) if cut else (),
    )


def _save(run: Prepared, place: Path) -> int:
    """Write the model folder, whole or not at all; returns the bytes of its weights."""
    from safetensors import SafetensorError

    checkpoint = run.engine.checkpoint
    new, final = place / f"{MODEL}.new", place / MODEL
    try:
        shutil.rmtree(new, ignore_errors=True)
        model = run.engine.tuner.merge(run.engine.bare).cpu()
        with quiet():
            model.save_pretrained(new, state_dict={**model.state_dict(), **_beside(run)})
        checkpoint.tokenizer.save_pretrained(new)
        for settings in _pooling_files(checkpoint.folder):
            (new / settings.parent).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(checkpoint.folder / settings, new / settings)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(new, final)
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"The model of the stage could not be written to `{final}` ({error}). Free some space and run the same "
            "command again: training is kept beside it."
        ) from error
    return 4 * parameter_count(final)


def _beside(run: Prepared) -> dict[str, torch.Tensor]:
    """Weights of the base that a language model has no use for, and a task's head may have: BERT's pooler."""
    import transformers

    checkpoint, network = run.engine.checkpoint, run.engine.bare
    with quiet():
        base, info = transformers.AutoModel.from_pretrained(
            checkpoint.folder,
            dtype="float32",
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=checkpoint.ref.trust_remote_code,
        )
    prefix, own = f"{network.base_model_prefix}.", set(network.state_dict())
    held = {f"{prefix}{key}": value for key, value in base.state_dict().items() if key not in info["missing_keys"]}
    return {key: value for key, value in held.items() if key not in own}


def _pooling_files(folder: Path) -> Iterator[Path]:
    """What a sentence-transformers folder says of its pooling, as paths in it."""
    modules = Path("modules.json")
    if (folder / modules).exists():
        yield modules
        for module in json.loads((folder / modules).read_text(encoding="utf-8")):
            settings = Path(module["path"]) / "config.json"
            if module["path"] and (folder / settings).exists():
                yield settings


def _found(place: Path) -> Stage | None:
    path = place / DONE
    if not path.exists():
        return None
    try:
        return replace(Stage.from_json(json.loads(path.read_text(encoding="utf-8"))["stage"]), reused=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"`{path}` cannot be read ({error}). Delete `{place}`, and the stage runs again.") from error


def _write(path: Path, plain: dict[str, object]) -> None:
    new = path.with_suffix(".new")
    try:
        new.write_text(json.dumps(plain, indent=2), encoding="utf-8")
        os.replace(new, path)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"`{path}` cannot be written: {error.strerror or error}. Free some space.") from error


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """One process at a time makes a stage; the lock goes with the process that held it."""
    if not is_main():
        yield
        return
    from filelock import FileLock

    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place / ".lock")
        lock.acquire()
    except OSError as error:
        raise StoreError(
            f"The folder `{place}` cannot be written: {error.strerror or error}. Name another one with FORETUNE_STORE."
        ) from error
    try:
        yield
    finally:
        lock.release()
