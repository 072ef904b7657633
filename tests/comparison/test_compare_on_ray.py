"""On a Ray cluster of two nodes a comparison comes to the tables of one machine, whichever worker is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from foretune.comparison import Protocol, compare
from foretune.comparison.cells import Cells
from foretune.comparison.harness import opened
from foretune.comparison.verdict import judge
from foretune.comparison.worker import work
from foretune.records.verdict import Verdict
from foretune.testing import toys
from foretune.training.ray_cluster import on_ray

pytest.importorskip("ray")
pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def asked(
    protocol: Callable[..., Protocol], kind: Path, other: Path, tmp_path_factory: pytest.TempPathFactory
) -> Protocol:
    """Rates are chosen on a task of their own, so that some runs are known only once others have ended."""
    rows = [{**row, "text": f"three four {row['text']} it"} for row in toys.rows("classification")]
    tuning = toys.table(tmp_path_factory.mktemp("tuning") / "tuning.csv", rows)
    task = {"source": str(kind), "ood": {"other": str(other)}}
    return protocol(tasks=[task], tuning_tasks=[str(tuning)], tuning_trials=2, tuning_seeds=[100])


@pytest.fixture(scope="module")
def local(asked: Protocol, tmp_path_factory: pytest.TempPathFactory) -> Cells:
    cells = opened(asked, store=tmp_path_factory.mktemp("local"))
    work(cells)
    return cells


def figures(verdict: Verdict) -> str:
    """Scores and contrasts of a verdict; no seconds, no memory."""
    cells = [(c.method, c.task, c.shots, [(run.run, run.score) for run in c.runs]) for c in verdict.cells]
    contrasts = [asdict(replace(contrast, ratios={})) for contrast in verdict.contrasts]
    return json.dumps([cells, contrasts], sort_keys=True)


def kept(cells: Cells) -> dict[str, list[str]]:
    """Digest -> the files that a run has left."""
    folders = (cells.root / "cells").iterdir()
    return {folder.name: sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) for folder in folders}


def test_two_nodes_come_to_the_tables_of_one_machine_and_a_killed_worker_is_replaced(
    cluster: str, asked: Protocol, local: Cells, tmp_path: Path, killing: Any
):
    events, watch = killing
    verdict = compare(asked, store=tmp_path, watch=watch, backend=on_ray(cluster))
    assert figures(verdict) == figures(judge(local))
    assert kept(Cells(local.plan, tmp_path)) == kept(local)
    kinds = [event.event for event in events]
    assert kinds.count("begin") == kinds.count("end") + 1
    assert kinds.count("end") == len(list(local.store))


def test_the_command_takes_a_cluster_and_goes_on_where_it_was(
    cluster: str, asked: Protocol, local: Cells, tmp_path: Path
):
    file, store = tmp_path / "protocol.yaml", tmp_path / "store"
    file.write_text(asked.to_yaml(), encoding="utf-8")
    for job in list(local.known())[:2]:
        Cells(local.plan, store).store.append(local.record(job))
        (store / "cells" / job.digest).mkdir(parents=True)
        for path in local.folder(job.digest).iterdir():
            (store / "cells" / job.digest / path.name).write_bytes(path.read_bytes())
    words = [sys.executable, "-m", "foretune", "compare", str(file), "--store", str(store), "--json"]
    words += ["--out", str(tmp_path / "out"), "--ray", cluster, "--workers", "1"]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", timeout=250)
    assert done.returncode == 0, done.stderr
    assert figures(judge(Cells(local.plan, store))) == figures(judge(local))
    held = [record.digest for record in Cells(local.plan, store).store]
    assert len(held) == len(set(held)) == len(list(local.store))
