"""What benchmarks that take turns in one process share: models, batches, turns, ratios within a round.

Contenders that are timed against each other run pass by pass in turn, so that a busy machine slows them alike; a ratio
is the median over rounds of the ratios within a round, with its quartiles.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

TOKENS, CLASSES = 32, 2


def network(name: str):
    """The packaged MiniLM, or BERT-base's shape at random, as a classifier on the device."""
    import torch
    from transformers import AutoModelForSequenceClassification, BertConfig
    from transformers.utils import logging

    from foretune.models.locate import locate
    from foretune.records import ModelRef

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    auto = AutoModelForSequenceClassification
    if name == "bert-base":
        made = auto.from_config(BertConfig(num_labels=CLASSES))
    else:
        made = auto.from_pretrained(locate(ModelRef(name)), num_labels=CLASSES, dtype="float32")
    return made.to(device())


def device():
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def batch(rows: int, labelled: bool = True):
    """Random tokens, padded on the right, so that no implementation can do without its mask."""
    import torch

    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(TOKENS // 2, TOKENS + 1, (rows, 1), generator=generator)
    lengths[0] = TOKENS
    mask = (torch.arange(TOKENS)[None] < lengths).long()
    made = {"input_ids": torch.randint(1000, 20000, (rows, TOKENS), generator=generator) * mask, "attention_mask": mask}
    if labelled:
        made["labels"] = torch.randint(0, CLASSES, (rows,), generator=generator)
    return {key: value.to(device()) for key, value in made.items()}


@dataclass(frozen=True)
class Turns:
    """How contenders are timed: so many rounds, by this clock."""

    rounds: int
    clock: Callable[[], float]

    def seconds(self, work: Callable[[], None]) -> float:
        import torch

        start = self.clock()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return self.clock() - start

    def __call__(self, works: dict[str, Callable[[], None]], warm: int = 2) -> dict[str, list[float]]:
        """Seconds of each, taking turns in an order that moves on by one each round, after some rounds to warm up."""
        taken: dict[str, list[float]] = {name: [] for name in works}
        names = list(works)
        for i in range(self.rounds + warm):
            for name in names[i % len(names) :] + names[: i % len(names)]:
                took = self.seconds(works[name])
                if i >= warm:
                    taken[name].append(took)
        return taken


def show(what: str, taken: dict[str, list[float]], against: str, aim: float) -> None:
    for name, values in taken.items():
        if name == against:
            print(f"{what:34} {name:13} {statistics.median(values) * 1000:8.1f} ms")
            continue
        ratios = [own / other for own, other in zip(values, taken[against], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        milliseconds = statistics.median(values) * 1000
        print(f"{what:34} {name:13} {milliseconds:8.1f} ms   {middle:.3f} [{low:.3f}, {high:.3f}]   (aim <= {aim:.2f})")
