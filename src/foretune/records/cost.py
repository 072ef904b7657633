"""Cost: what a run took. Seconds of training, evaluation and set-up are kept apart, for only the first transfers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Every figure is measured but ``flops``, which is the estimate 6 N T (2 N T forward) of the literature.

    Attributes:
        train_seconds: optimizer steps alone.
        eval_seconds: dev, test and out-of-domain evaluation.
        setup_seconds: loading, tokenising, building the model.
        floor_seconds: the floors (majority, TF-IDF, frozen embedding).
        peak_bytes: highest memory (of the process; of the device on a GPU) minus that before the model was loaded.
        tokens: training tokens seen, padding excluded.
        adapter_bytes: size on disk of what was learned.
        flops: estimated floating-point operations of the training.
        prompt_tokens: tokens that the model reads to answer one example, on average: the price of a long prompt. None
            in records from before it was counted.
        item_seconds: to answer one row, in batches, with nothing else in it. None in records from before it was timed.
    """

    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    setup_seconds: float = 0.0
    floor_seconds: float = 0.0
    peak_bytes: int = 0
    tokens: int = 0
    trainable_parameters: int = 0
    total_parameters: int = 0
    adapter_bytes: int = 0
    flops: float = 0.0
    prompt_tokens: float | None = None
    item_seconds: float | None = None

    @property
    def seconds(self) -> float:
        """All seconds together.

        >>> Cost(train_seconds=2.0, eval_seconds=1.0).seconds
        3.0
        """
        return self.train_seconds + self.eval_seconds + self.setup_seconds + self.floor_seconds
