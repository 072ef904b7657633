"""fit(run): ONE plain loop for every method, read top to bottom.

A method is a tuner (where the trainable numbers live) and an objective (what is minimised); nothing here asks for the
name of either. Data order, dropout and initial weights are pure functions of named seeds and the step number, so a
resumed run ends with the bits of an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foretune.errors import DivergedError, Interrupted, StoreError
from foretune.evaluation import METRICS
from foretune.records import Point, Schedule
from foretune.training import state as saved
from foretune.training.batches import Order, micro_batches, share
from foretune.training.interrupt import stop_requests
from foretune.training.measure import score_dev
from foretune.training.meters import PeakMemory, Stopwatch
from foretune.training.optimizer import learning_rate, make_optimizer, moments, restore_moments
from foretune.training.prepare import Prepared, trainable
from foretune.training.progress import Progress
from foretune.training.state import State, Tensors
from foretune.training.surroundings import stream

if TYPE_CHECKING:
    from torch.optim import Optimizer

SAVE_EVERY_SECONDS = 15.0
"""Least seconds of training between two saves: what a kill can cost."""


class Paused(Interrupted):
    """A run has come as far as was asked for, and can go on from there."""


def fit(
    run: Prepared,
    *,
    checkpoints: Path | None = None,
    progress: Progress | None = None,
    deadline_seconds: float | None = None,
    memory: PeakMemory | None = None,
    save_every: float = SAVE_EVERY_SECONDS,
    follow: Callable[[State], None] = lambda state: None,
    until: int | None = None,
    pause: bool = False,
) -> State:
    """Run ``run.config.schedule`` and leave ``run.engine.bare`` with the weights of the best evaluation on dev.

    Args:
        run: from ``prepare``.
        checkpoints: where the unfinished state is kept; a state found there is continued. None keeps nothing.
        progress: told of every step.
        deadline_seconds: stop after this much training and evaluation; the weights so far are judged as usual.
        memory: sampled at every evaluation.
        save_every: least seconds between two saves.
        follow: given the state before the first step; it changes while the run goes on.
        until: train no further than this step; the schedule spans the full run all the same. None is the full run.
        pause: keep the state there and raise ``Paused``, so that the run can go on, in place of returning.

    Returns:
        The final state: step, curve, best, seconds by phase.

    Raises:
        DivergedError: the loss is no longer a number.
        Interrupted: SIGINT or SIGTERM; the state was saved first.
        Paused: ``until`` is reached, and ``pause`` was asked for.
        StoreError: the state found in ``checkpoints`` is of another run, or cannot be read or written.
    """
    progress = progress or Progress()
    schedule, accelerator = run.config.schedule, run.engine.accelerator
    tuner, bare, optimizer = run.engine.tuner, run.engine.bare, make_optimizer(run)
    order = Order(run.learning.lengths, schedule.batch_size, stream("order", run.config.seeds.order))
    measured = evaluation_steps(schedule)
    state, best = _resume(checkpoints, run, optimizer)
    if state.step == 0:
        state.points += _monitored(run, 0, 0.0)
    follow(state)
    watch, last_save = Stopwatch(state.seconds), time.monotonic()
    last = schedule.steps if until is None else min(until, schedule.steps)
    finished = state.step >= last or _exhausted(schedule, state)
    progress.start(last, state.step)

    with stop_requests() as stop, run.engine.training():
        while not finished:
            with watch("train"):
                rows = order.step(state.step)
                loss = optimizer_step(run, optimizer, rows, state.step)
                state.step += 1
                state.tokens += int(run.learning.sizes[rows].sum())
            spent = watch.seconds["train"] + watch.seconds["eval"]
            progress.step(state.step, loss, spent / state.step * (schedule.steps - state.step))

            late = _any(run, deadline_seconds is not None and spent > deadline_seconds)
            state.points.append(Point(state.step, "train", "loss", loss, watch.seconds["train"]))
            if state.step in measured or late:
                with watch("eval"):
                    better = _measure(run, state, watch.seconds["train"], progress)
                if better or not best:
                    best = {name: tensor.detach().clone() for name, tensor in tuner.learned(bare).items()}
                if memory:
                    memory.sample()
            state.seconds = dict(watch.seconds)
            finished = state.step >= last or late or _exhausted(schedule, state)
            stopped = not finished and _any(run, stop())
            due = stopped or (finished and pause) or (time.monotonic() - last_save > save_every and not finished)
            if checkpoints and due:
                _keep_between(run, state, state.step + 1)
                if accelerator.is_main_process:
                    learned, parameters = tuner.learned(bare), trainable(bare)
                    saved.save(checkpoints, state, learned, best or learned, moments(optimizer, parameters))
                last_save = time.monotonic()
            if stopped:
                progress.finish()
                raise Interrupted(f"Stopped at step {state.step} of {schedule.steps}.")

    progress.finish()
    if pause:
        raise Paused(f"Paused at step {state.step} of {schedule.steps}.")
    if best:
        tuner.put(bare, best)
    return state


def optimizer_step(run: Prepared, optimizer: Optimizer, rows: np.ndarray, step: int) -> float:
    """One optimizer step on the examples ``rows``; returns the mean loss.

    Args:
        step: counted from 0: the place in the schedule and in the dropout stream.

    Raises:
        DivergedError: the loss is no longer a number; the weights were not touched.
    """
    import torch

    schedule = run.config.schedule
    rate = learning_rate(schedule, step)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * rate
    loss = _backward(run, rows, step)
    if not math.isfinite(loss):
        raise DivergedError(
            f"The training loss became {loss} at step {step + 1} of {schedule.steps} with a learning rate of "
            f"{schedule.lr:g}. Try a lower `--lr`, or `--precision fp32`."
        )
    if schedule.clip is not None:
        clipped = [parameter for group in optimizer.param_groups if group["clip"] for parameter in group["params"]]
        torch.nn.utils.clip_grad_norm_(clipped, schedule.clip)
    optimizer.step()
    run.engine.tuner.after_step(run.engine.bare, step + 1)
    optimizer.zero_grad(set_to_none=True)
    return loss


def _backward(run: Prepared, rows: np.ndarray, step: int) -> float:
    """Gradients of the mean loss over the global batch, and that loss."""
    import torch

    accelerator, encoded = run.engine.accelerator, run.learning
    tuner, bare = run.engine.tuner, run.engine.bare
    world, rank = accelerator.num_processes, accelerator.process_index
    weight = run.engine.objective.weight(encoded, rows)
    parts = micro_batches(share(rows, rank, world), run.config.schedule.micro_batch)
    run.engine.model.train()
    total = torch.zeros((), device=accelerator.device)
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        real = len(part) > 0
        part = part if real else rows[:1]
        torch.manual_seed(stream("dropout", run.config.seeds.dropout, step, i, rank))
        tuner.before_pass(
            bare, stream("members", run.config.seeds.dropout, step, i, rank), np.diff(encoded.groups)[part]
        )
        batch = run.engine.batch(encoded, part)
        with nullcontext() if last else accelerator.no_sync(run.engine.model), run.engine.autocast():
            loss = run.engine.objective.loss(run.engine.model, batch, run.engine.virtual_tokens) * (
                1.0 if real else 0.0
            )
        mean = loss * (world / weight)
        if last and (penalty := tuner.penalty(bare)) is not None:
            mean = mean + penalty
        accelerator.backward(mean)
        total += loss.detach()
    return float(accelerator.reduce(total, "sum")) / weight


def _measure(run: Prepared, state: State, seconds: float, progress: Progress) -> bool:
    """Judge dev, extend the curve, and say whether these weights are the best so far."""
    _keep_between(run, state, state.step)
    state.points += _monitored(run, state.step, seconds)
    if "dev" not in run.encoded:
        state.best, state.stale = (0.0, 0.0, -state.step), 0
        return True
    metric = run.task.schema.metric
    scored = score_dev(run)
    value, loss = scored[metric], scored["loss"]
    state.points += [Point(state.step, "dev", name, number, seconds) for name, number in scored.items()]
    merit = value if METRICS[metric].greater_is_better else -value
    key = (merit if math.isfinite(value) else -math.inf, -loss if math.isfinite(loss) else -math.inf, -state.step)
    better = state.best is None or key > state.best
    state.best, state.stale = (key, 0) if better else (state.best, state.stale + 1)
    progress.evaluated(state.step, metric, value, loss, better)
    return better


def _monitored(run: Prepared, step: int, seconds: float) -> list[Point]:
    numbers = run.engine.tuner.monitor(run.engine.bare)
    return [Point(step, "train", name, number, seconds) for name, number in numbers.items()]


def _keep_between(run: Prepared, state: State, end: int) -> None:
    """Put into the curve, where they belong, what the tuner has kept of the steps before ``end``."""
    found = run.engine.tuner.between(run.engine.bare)
    seconds = {point.step: point.seconds for point in state.points if (point.split, point.metric) == ("train", "loss")}
    for step, numbers in found.items():
        if step < end:
            state.points += [Point(step, "train", name, value, seconds[step]) for name, value in numbers.items()]
    state.points.sort(key=lambda point: point.step)


def evaluation_steps(schedule: Schedule) -> set[int]:
    """The steps after which dev is measured: equal fractions of the run, the last step always among them."""
    count = max(1, min(schedule.evaluations, schedule.steps))
    return {round(schedule.steps * (i + 1) / count) for i in range(count)}


def _any(run: Prepared, flag: bool) -> bool:
    """Whether ``flag`` is set in any process: clocks and signals differ between them, and all must do the same."""
    accelerator = run.engine.accelerator
    if accelerator.num_processes == 1:
        return flag
    import torch

    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum") > 0)


def _exhausted(schedule: Schedule, state: State) -> bool:
    return schedule.patience is not None and state.stale >= schedule.patience


def _resume(checkpoints: Path | None, run: Prepared, optimizer: Optimizer) -> tuple[State, Tensors]:
    """The saved state, put into the model and ``optimizer``, and the best weights so far; or a new state and none."""
    found, digest = saved.load(checkpoints) if checkpoints else None, run.config.digest
    if found is None:
        return State(digest), {}
    state, held, best, kept = found
    if state.run != digest:
        raise StoreError(
            f"`{checkpoints}` holds the checkpoint of another run ({state.run}; this one is {digest}). Give another "
            "folder, or delete it."
        )
    run.engine.tuner.put(run.engine.bare, held)
    restore_moments(optimizer, trainable(run.engine.bare), kept)
    return state, best if state.best else {}
