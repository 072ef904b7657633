"""PEFT's published method comparison, by acceptance check 14: what its seconds hold, and what it cannot claim.

The result files are public data outside the repository: the test runs where ``FORETUNE_DATA`` names their folder.
"""

from __future__ import annotations

import os
from itertools import combinations
from pathlib import Path

import pytest

from foretune.evaluation import wilson
from foretune.records import Contrast, Measured, MetaRun, RunCollection
from foretune.store.importers.peft_comparison import read_peft_comparison

FOLDER = Path(os.environ.get("FORETUNE_DATA", ".")) / "peft_metamathqa"
ITEMS = 1_319
"""Test questions of GSM8K."""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not FOLDER.is_dir(), reason="needs FORETUNE_DATA")]


@pytest.fixture(scope="module")
def published() -> RunCollection:
    return read_peft_comparison(FOLDER)


def score(run: MetaRun) -> float:
    return run.line("test", "accuracy").values[0]


def test_check_14_the_loop_takes_520_to_3_317_seconds_where_878_to_6_926_are_printed(published: RunCollection):
    printed = [run.cost["printed_seconds"] for run in published.runs]
    loop = [run.cost["train_seconds"] for run in published.runs]
    assert len(loop) == len(printed) == 63
    assert (round(min(loop)), round(max(loop))) == (520, 3_317)
    assert (round(min(printed)), round(max(printed))) == (878, 6_926)


def test_check_14_lora_and_full_tuning_are_not_to_be_called_better(published: RunCollection):
    """One run each: no contrast of theirs claims anything, and the intervals of the rows alone overlap."""
    chosen = {
        "full": [run for run in published.runs if run.config["method"] == "full"],
        "lora": [run for run in published.runs if run.config["method"] == "lora" and run.config["method.r"] == 32],
    }
    chosen["lora"] = [run for run in chosen["lora"] if round(score(run), 3) == 0.478]
    assert {name: round(score(run), 3) for name, (run,) in chosen.items()} == {"full": 0.472, "lora": 0.478}
    for (one, (first,)), (two, (second,)) in combinations(chosen.items(), 2):
        difference = Measured(score(first) - score(second), 0.001, 1.0, n_seeds=1)
        made = Contrast(one, two, "gsm8k", None, difference, 0.0, 0.0, 1, 0.0)
        assert made.kind == "refused"
        intervals = [wilson(round(score(run) * ITEMS), ITEMS) for run in (first, second)]
        assert max(low for low, _ in intervals) < min(high for _, high in intervals)
