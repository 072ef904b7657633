"""train(config) -> RunRecord: prepare, fit, judge, save; whatever happens, what happened is a record."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from foretune.errors import DivergedError, Interrupted, ModelError, ResourceError
from foretune.evaluation import fit_temperature, gap, temperature_note
from foretune.models import model_card
from foretune.records import Evaluation, Gap, RunConfig, RunRecord, TaskCard, Teaching
from foretune.tasks import Task
from foretune.tasks.describe import card
from foretune.training.costs import cost_of
from foretune.training.floors import Floors, frozen_of, measure_floors
from foretune.training.folder import save_adapter, save_predictions
from foretune.training.forgetting import held_texts, measure_forgetting
from foretune.training.landmarks import landmarks
from foretune.training.landscape import measure_landscape
from foretune.training.loop import SAVE_EVERY_SECONDS, fit
from foretune.training.measure import gold, judged, predictions
from foretune.training.meters import PeakMemory, Stopwatch
from foretune.training.prepare import Prepared, prepare
from foretune.training.probe import require_room
from foretune.training.progress import Progress
from foretune.training.references import judge_teacher, told
from foretune.training.stages import STAGES, pretrained
from foretune.training.state import State
from foretune.training.surroundings import is_main, surroundings

if TYPE_CHECKING:
    import numpy as np


def train(
    config: RunConfig,
    *,
    task: Task | None = None,
    folder: Path | None = None,
    data_dir: str | None = None,
    progress: Progress | None = None,
    deadline_seconds: float | None = None,
    floors: bool = True,
    save_every: float = SAVE_EVERY_SECONDS,
    until: int | None = None,
    pause: bool = False,
    seen: Mapping[str, float] | None = None,
    store: Path | None = None,
) -> RunRecord:
    """Run ``config`` from rows to record.

    Args:
        config: what to run; fingerprints may be absent, the record's config has them.
        task: the opened task, required when ``config.task.source`` is ``"memory"``.
        folder: where the run folder is written; an unfinished run found there is continued. None writes nothing.
        data_dir: where catalog tasks lie.
        progress: told of every phase and step.
        deadline_seconds: largest training and evaluation time of the loop, where ``config.seconds`` is not less.
        floors: also measure the majority, TF-IDF and frozen-embedding floors.
        save_every: least seconds of training between two saves of the unfinished state: what a kill can cost.
        until: train no further than this step, as if the time were over then. None is the full run.
        pause: stop there unjudged, with the status ``stopped``; the same call with a later step goes on.
        seen: the landmarks of the task, where they are known; otherwise they are measured with the floors.
        store: where stages and teachers' answers are kept for other runs; None: the folder of remembered runs.

    Raises:
        ForetuneError: what went wrong, in words. The folder then holds a record with the status ``stopped``,
            ``diverged``, ``oom`` or ``failed``.
    """
    progress = progress or Progress()
    started, watch = _now(), Stopwatch()
    note = _Note(folder if is_main() else None, RunRecord(config, "running", started=started))
    try:
        if config.pretraining is not None:
            task = task if task is not None else Task.from_ref(config.task, data_dir=data_dir)
            place = store / STAGES if store else None
            config, stage = pretrained(
                config, task, folder=place, data_dir=data_dir, progress=progress, save_every=save_every
            )
            note.keep(replace(note.record, stage=stage))
        with watch("setup"):
            progress.phase("preparing the data and the model")
            memory, run = _prepare(config, task, data_dir, store)
            note.keep(_describe(note.record, run))
            held = held_texts(run, data_dir)
            require_room(run)
        state = fit(
            run,
            checkpoints=folder / "checkpoint" if folder else None,
            progress=progress,
            deadline_seconds=min((s for s in (deadline_seconds, config.seconds) if s is not None), default=None),
            memory=memory,
            save_every=save_every,
            follow=note.follow,
            until=until,
            pause=pause,
        )
        with watch("eval"):
            progress.phase("evaluating")
            outcome = judge_all(run)
            landscape = measure_landscape(run, state)
        memory.sample()
        forgetting = measure_forgetting(run, held)
        with watch("floors"):
            if floors:
                progress.phase("measuring the floors")
            below, card = (
                _below(run, note.record.card, folder, seen) if floors and is_main() else ({}, note.record.card)
            )
        record = replace(
            note.so_far(),
            status="ok",
            card=card,
            evaluations=outcome.evaluations,
            floors=below,
            gaps=outcome.gaps,
            landscape=landscape,
            teaching=outcome.teaching,
            forgetting=forgetting,
            warnings=(*note.record.warnings, *outcome.warnings),
            displacement=run.engine.tuner.displacement(run.engine.bare),
            temperature=outcome.temperature,
            chosen_step=-state.best[2] if state.best else state.step,
            notes=(*note.record.notes, *_stopped_early(run, state), *outcome.notes),
            cost=cost_of(run, state, watch, memory, outcome.item_seconds),
            finished=_now(),
        )
        if folder and is_main():
            size = save_adapter(run, record, folder)
            record = replace(record, cost=replace(record.cost, adapter_bytes=size))
            save_predictions(run, outcome.outputs, outcome.temperature, folder)
        note.finish(record)
        return record
    except BaseException as error:
        note.fail(error)
        if _out_of_memory(error) and not isinstance(error, ResourceError):
            size = config.schedule.micro_batch or config.schedule.batch_size
            raise ResourceError(
                f"The memory was not enough for batches of {size} texts. "
                "Use `--micro-batch 4` (same result, less memory), a shorter `--max-length` or a smaller model."
            ) from error
        raise


@dataclass(frozen=True)
class Outcome:
    """The judged outputs: evaluations and raw outputs by split, gaps, the temperature fitted on dev, what the teacher
    scores, what a reader should know of these, and how long one row took to be answered."""

    evaluations: Mapping[str, Evaluation]
    outputs: Mapping[str, np.ndarray]
    gaps: tuple[Gap, ...]
    temperature: float | None
    notes: tuple[str, ...] = ()
    teaching: Teaching | None = None
    warnings: tuple[str, ...] = ()
    item_seconds: float | None = None


def judge_all(run: Prepared) -> Outcome:
    """Judge dev, test and every out-of-domain split with the weights that ``run.engine.bare`` has now, in fp32.

    Training may run in bf16; what is recorded must be what any other process finds with the saved weights.
    """
    schema, engine = run.task.schema, replace(run.engine, bf16=False)
    answered, began = {split: rows for split, rows in run.encoded.items() if split != "train"}, time.perf_counter()
    outputs = {split: engine.answers(rows) for split, rows in answered.items()}
    taken, rows = time.perf_counter() - began, sum(map(len, answered.values()))
    temperature, notes = None, []
    if schema.kind in ("classification", "choice") and "dev" in outputs:
        temperature = fit_temperature(outputs["dev"], gold(run, "dev"))
        notes = [note for note in [temperature_note(outputs["dev"], gold(run, "dev"))] if note]
    guesses = {split: predictions(run, raw, temperature) for split, raw in outputs.items()}
    evaluations = {split: judged(run, split, guess) for split, guess in guesses.items()}
    inside = "test" if "test" in outputs else "dev"
    gaps = tuple(
        gap(name, schema.metric, evaluations[inside], evaluations[split])
        for split in outputs
        if (name := split.removeprefix("ood:")) != split and inside in outputs
    )
    teaching = judge_teacher(run)
    said, raised = told(teaching, schema.metric, evaluations) if teaching else ((), ())
    each = taken / rows if rows else None
    return Outcome(evaluations, outputs, gaps, temperature, (*notes, *said), teaching, raised, each)


class _Note:
    """The record so far, on disk whenever there is a folder, so that no outcome goes unrecorded."""

    def __init__(self, folder: Path | None, record: RunRecord) -> None:
        self.folder, self.record = folder, record
        self.state = State()

    def follow(self, state: State) -> None:
        """What training has done so far is read from ``state`` whenever it is needed."""
        self.state = state

    def so_far(self) -> RunRecord:
        """The record with the curve and the cost of the training so far."""
        state, cost = self.state, self.record.cost
        cost = replace(
            cost,
            train_seconds=state.seconds.get("train", 0.0),
            eval_seconds=state.seconds.get("eval", 0.0),
            tokens=state.tokens,
        )
        return replace(self.record, curve=state.curve, steps_done=state.step, cost=cost)

    def keep(self, record: RunRecord) -> None:
        from foretune.store.folder import write_run

        self.record = record
        if self.folder:
            write_run(self.folder, record)

    def finish(self, record: RunRecord) -> None:
        import shutil

        self.keep(record)
        if self.folder:
            shutil.rmtree(self.folder / "checkpoint", ignore_errors=True)

    def fail(self, error: BaseException) -> None:
        stopped = isinstance(error, Interrupted | KeyboardInterrupt | SystemExit)
        status = "stopped" if stopped else "oom" if _out_of_memory(error) else "failed"
        status = "diverged" if isinstance(error, DivergedError) else status
        self.keep(replace(self.so_far(), status=status, error=f"{type(error).__name__}: {error}", finished=_now()))


def _prepare(
    config: RunConfig, task: Task | None, data_dir: str | None, store: Path | None
) -> tuple[PeakMemory, Prepared]:
    import peft  # noqa: F401 - libraries are no part of what a run takes
    import torch
    import transformers  # noqa: F401

    memory = PeakMemory(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return memory, prepare(config, task, data_dir, store)


def _describe(record: RunRecord, run: Prepared) -> RunRecord:
    rows = {split: len(table) for split, table in run.tables.items()}
    cut = {split: e.cut for split, e in run.encoded.items() if e.cut and not run.engine.objective.in_context}
    limit, stage = run.config.model.max_length, record.stage
    remarks = run.engine.tuner.remarks(run.config.schedule)
    return replace(
        record,
        config=run.config,
        metric=run.task.schema.metric,
        card=card(run.task.name, run.task.schema, run.tables["train"], rows, run.task.sketch),
        model=model_card(run.engine.checkpoint),
        labels=run.task.schema.labels,
        stock_refusal=_stock_refusal(run),
        initial_hash=run.initial_hash,
        sample=run.draw.sha256,
        tuner=run.engine.tuner.part,
        surroundings=surroundings(str(run.engine.accelerator.device), run.engine.accelerator.num_processes),
        notes=tuple(dict.fromkeys((*run.task.notes, *run.draw.notes, *remarks, *(stage.sentences() if stage else ())))),
        warnings=(stage.warnings if stage else ())
        + tuple(
            f"{n} of {len(run.encoded[split])} texts in {split} are longer than {limit} tokens and lose their end."
            for split, n in cut.items()
        ),
    )


def _below(
    run: Prepared, card: TaskCard | None, folder: Path | None, seen: Mapping[str, float] | None
) -> tuple[Floors, TaskCard | None]:
    """The floors, and the card with what the frozen base model makes of the training rows."""
    frozen = frozen_of(run)
    below = measure_floors(run, frozen, folder)
    if card is None:
        return below, None
    seen = seen or landmarks(run.task, run.tables["train"], frozen)
    return below, replace(card, features={**card.features, **seen})


def _stock_refusal(run: Prepared) -> str | None:
    engine = run.engine
    if engine.objective.language and run.task.schema.kind == "classification":
        return (
            f"The objective `{engine.objective.name}` answers with words of the language model, in a prompt that "
            "foretune writes."
        )
    try:
        engine.tuner.require_stock(engine.checkpoint.config)
    except ModelError as error:
        return str(error)
    members = engine.tuner.answering_members(engine.bare)
    return f"{members} members answered together, of which stock PEFT loads one model." if members > 1 else None


def _stopped_early(run: Prepared, state: State) -> tuple[str, ...]:
    wanted = run.config.schedule.steps
    if state.step >= wanted:
        return ()
    patience = run.config.schedule.patience
    why = f"{patience} evaluations without a gain" if patience and state.stale >= patience else "the time budget ended"
    return (f"Training stopped at step {state.step} of {wanted}: {why}.",)


def _out_of_memory(error: BaseException) -> bool:
    named = isinstance(error, MemoryError | ResourceError) or type(error).__name__ == "OutOfMemoryError"
    return named or "can't allocate memory" in str(error)


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
