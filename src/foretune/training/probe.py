"""A few timed steps of a config on this machine, before the run: what budgets and predictions of seconds rest on."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace

import numpy as np

from foretune.errors import ResourceError
from foretune.records import RunConfig
from foretune.tasks import Task
from foretune.training.batches import by_length
from foretune.training.loop import optimizer_step
from foretune.training.meters import free_memory, memory_estimate
from foretune.training.optimizer import make_optimizer
from foretune.training.prepare import Prepared, prepare

WARM, TIMED, FEWEST, SECONDS = 3, 20, 5, 1.0
"""Steps that warm up, steps that are timed at most and at least, and the seconds after which ``FEWEST`` are enough: a
recommendation that takes minutes is not asked for, and the median of five long steps is as good as of twenty short."""


@dataclass(frozen=True)
class Probe:
    """What was measured or follows from it.

    Attributes:
        setup_seconds: to open, build, attach and tokenise.
        step_seconds: median of one optimizer step; 0 where nothing is trained.
        example_seconds: of judging one example.
        evaluated: rows of dev, times the members that judge each; ``judged``: those of all that is judged at the end.
        bytes: estimated memory of training, above the idle process.
        trainable, parameters: weights.
    """

    setup_seconds: float
    step_seconds: float
    example_seconds: float
    evaluated: int
    judged: int
    bytes: int
    trainable: int
    parameters: int

    def reserve(self) -> float:
        """Seconds that the end of a run needs: judging every split once, and the floors' frozen features."""
        return 2.0 * self.example_seconds * self.judged + 2.0

    def total(self, steps: int, evaluations: int) -> float:
        """Expected seconds of a whole run."""
        on_the_way = evaluations * self.evaluated * self.example_seconds
        return self.setup_seconds + steps * self.step_seconds + on_the_way + self.reserve()


def probe(config: RunConfig, task: Task | None = None, data_dir: str | None = None) -> Probe:
    """Time ``TIMED`` steps, or fewer that take ``SECONDS``, after ``WARM`` warm ones on a throw-away model. Trains
    nothing that is kept."""
    before = time.perf_counter()
    short = config.schedule if config.schedule.steps == 0 else replace(config.schedule, steps=WARM + TIMED)
    run = prepare(replace(config, schedule=short), task, data_dir)
    setup = time.perf_counter() - before
    needed = require_room(run)
    optimizer = make_optimizer(run)
    train = run.learning
    rng = np.random.Generator(np.random.PCG64(0))
    taken: list[float] = []
    for step in range(short.steps):
        rows = rng.permutation(len(train))[: config.schedule.batch_size]
        start = time.perf_counter()
        optimizer_step(run, optimizer, rows, step)
        taken.append(time.perf_counter() - start)
        if step + 1 >= WARM + FEWEST and sum(taken[WARM:]) > SECONDS:
            break
    judged = {split: rows for split, rows in run.encoded.items() if split != "train"}
    name = "dev" if "dev" in judged else next(iter(judged), "train")
    start = time.perf_counter()
    run.engine.outputs(run.encoded[name])
    each = (time.perf_counter() - start) / len(run.encoded[name])
    tuner, bare, dev = run.engine.tuner, run.engine.bare, len(judged.get("dev", ()))
    landscape = tuner.landscape(bare)
    places = landscape.count if landscape else 0
    return Probe(
        setup_seconds=setup,
        step_seconds=statistics.median(taken[WARM:]) if taken else 0.0,
        example_seconds=each,
        evaluated=dev * tuner.dev_members(bare),
        judged=sum(len(rows) for rows in judged.values()) * tuner.answering_members(bare) + dev * places,
        bytes=needed,
        trainable=tuner.size(bare),
        parameters=sum(p.numel() for p in bare.parameters()),
    )


def require_room(run: Prepared) -> int:
    """The estimated memory of training ``run``, once it is known to fit beside the weights that are loaded already.

    Raises:
        ResourceError: it does not; nothing was trained.
    """
    import torch

    needed = estimate_bytes(run)
    device = run.engine.accelerator.device
    loaded = sum(p.numel() * p.element_size() for p in run.engine.bare.parameters())
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    if needed - loaded > free:
        if not run.engine.tuner.trains:
            raise ResourceError(
                f"Judging rows this long would need {needed / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB of memory "
                "are free. Use fewer demonstrations, a shorter `--max-length` or a smaller model."
            )
        batch = run.config.schedule.micro_batch or run.config.schedule.batch_size
        raise ResourceError(
            f"Training in batches of {batch} texts would need {needed / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB of "
            f"memory are free. Use `--micro-batch {max(1, batch // 4)}` (same result, less memory), a shorter "
            "`--max-length` or a smaller model."
        )
    return needed


def estimate_bytes(run: Prepared) -> int:
    """Estimated memory of training ``run`` above the idle process, from its shapes alone.

    Where nothing is trained, of judging it: one layer's activations at a time, and logits without their gradient.
    """
    shape = run.engine.checkpoint.config.get_text_config()
    layers = shape.num_hidden_layers + int(shape.to_dict().get("num_decoder_layers") or 0)
    trains, words = run.engine.tuner.trains, shape.vocab_size if run.config.model.pooling == "none" else 0
    rows, longest = _training_batch(run) if trains else _judging_batch(run)
    return memory_estimate(
        sum(p.numel() for p in run.engine.bare.parameters()),
        run.engine.tuner.training_bytes(run.engine.bare, run.config.schedule),
        hidden=shape.hidden_size,
        layers=layers if trains else 1,
        heads=shape.num_attention_heads,
        outputs=words if trains else words // 3,
        rows=rows,
        length=longest + run.engine.virtual_tokens,
    )


def _training_batch(run: Prepared) -> tuple[int, int]:
    """Sequences and tokens of the largest training pass."""
    schedule, encoded = run.config.schedule, run.learning
    rows = schedule.micro_batch or schedule.batch_size
    return rows * int(np.diff(encoded.groups).max()), int(encoded.lengths.max())


def _judging_batch(run: Prepared) -> tuple[int, int]:
    """The same of the largest pass of evaluation."""
    largest = (0, 1)
    for encoded in run.encoded.values():
        each = int(np.diff(encoded.groups).max())
        passes = ((len(rows) * each, int(encoded.lengths[rows[-1]])) for rows in by_length(encoded.lengths))
        largest = max(largest, *passes, key=lambda size: size[0] * size[1])
    return largest
