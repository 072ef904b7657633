"""A tiny encoder, a tiny task as a file, short protocols over them, and one comparison that is run once for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foretune.comparison import Protocol
from foretune.comparison.cells import Cells
from foretune.comparison.harness import opened
from foretune.comparison.worker import work
from foretune.testing import toys

Make = Callable[..., Protocol]


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.checkpoint(tmp_path_factory.mktemp("models") / "bert", "bert")


@pytest.fixture(scope="session")
def kind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.table(tmp_path_factory.mktemp("data") / "kind.csv", toys.rows("classification"))


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of another domain, with the same labels."""
    rows = [{**row, "text": f"one two {row['text']} it"} for row in toys.rows("classification")]
    return toys.table(tmp_path_factory.mktemp("data") / "other.csv", rows[::2])


@pytest.fixture(scope="session")
def protocol(bert: Path, kind: Path) -> Make:
    """``protocol(methods=["lora"], ...)``: a comparison of a few steps."""

    def make(**given: Any) -> Protocol:
        short = {
            "tasks": [str(kind)],
            "methods": ["lora", "full"],
            "model": str(bert),
            "shots": [4],
            "data_seeds": [0, 1],
            "steps": 3,
            "batch_size": 4,
        }
        return Protocol.from_json({**short, **given})

    return make


@pytest.fixture(scope="session")
def done(protocol: Make, kind: Path, other: Path, tmp_path_factory: pytest.TempPathFactory) -> Cells:
    """A finished comparison: two methods, three seeds, an out-of-domain set."""
    task = {"source": str(kind), "ood": {"other": str(other)}}
    asked = protocol(tasks=[task], shots=[4], data_seeds=[0, 1, 2], steps=12, methods=RATES)
    cells = opened(asked, store=tmp_path_factory.mktemp("store"))
    work(cells)
    return cells


RATES = [{"name": "lora", "lr": 2e-2}, {"name": "full", "lr": 2e-3}]
