"""What a run took, once it is over."""

from __future__ import annotations

from foretune.records import Cost
from foretune.training.meters import PeakMemory, Stopwatch, training_flops
from foretune.training.prepare import Prepared
from foretune.training.state import State


def cost_of(
    run: Prepared, state: State, watch: Stopwatch, memory: PeakMemory, item_seconds: float | None = None
) -> Cost:
    """The cost of ``run``: steps and dev by ``state``, everything else by ``watch``, without a teacher's passes."""
    told = run.lessons.told if run.lessons and not run.lessons.told.reused else None
    teacher = told.seconds + told.judged_seconds if told else 0.0
    total = sum(p.numel() for p in run.engine.bare.parameters())
    trained = run.engine.tuner.size(run.engine.bare)
    gradients = run.engine.tuner.gradients_made(run.engine.bare)
    read = next(run.encoded[split] for split in ("test", "dev", "train") if split in run.encoded)
    embedded = run.engine.bare.get_input_embeddings().weight.numel()  # type: ignore[operator]
    return Cost(
        train_seconds=state.seconds.get("train", 0.0),
        eval_seconds=state.seconds.get("eval", 0.0) + watch.seconds["eval"],
        setup_seconds=watch.seconds["setup"] - teacher,
        floor_seconds=watch.seconds["floors"],
        peak_bytes=memory.peak,
        tokens=state.tokens,
        trainable_parameters=trained,
        total_parameters=total,
        flops=training_flops(total - embedded, min(gradients, total - embedded), state.tokens),
        prompt_tokens=float(read.sizes.mean()),
        item_seconds=item_seconds,
    )
