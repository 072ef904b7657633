"""Two processes give what one gives with the same global batch, and one of them writes.

The launcher is torch's own, which ``accelerate launch`` calls for GPUs; on CPUs that one needs ``mpirun``, and without
it starts a single process whatever ``--num_processes`` says.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from foretune.records import RunConfig
from foretune.store.folder import read_run
from foretune.tasks import Task
from foretune.testing import toys
from foretune.training.batches import by_length
from foretune.training.run import train


def test_two_processes_give_the_metrics_of_one(config: Callable[..., RunConfig], tmp_path: Path) -> None:
    rows = toys.rows("classification")
    more = [{**row, "text": f"{row['text']} {end}"} for row in rows for end in ("one", "two", "three")]
    for name, part in (("train", rows), ("test", more)):
        table = pa.table({key: [row[key] for row in part] for key in ("text", "label")})
        pyarrow.csv.write_csv(table, tmp_path / f"{name}.csv")
    task = Task.from_csv(tmp_path / "train.csv", test=tmp_path / "test.csv")
    assert len(list(by_length(np.full(len(more), 8)))) > 2
    asked = replace(config(steps=10, evaluations=5, batch_size=8, micro_batch=3, lr=1e-2, clip=0.2), task=task.ref)
    one = train(asked, task=task, folder=tmp_path / "one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    script = str(Path(__file__).with_name("distributed_run.py"))
    done = subprocess.run(
        [*launch, script, json.dumps(asked.to_json()), str(tmp_path / "two")],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "bf16", "HF_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    two = read_run(tmp_path / "two")
    assert two.status == "ok"
    assert two.surroundings["processes"] == "2"
    assert (two.digest, two.initial_hash, two.chosen_step) == (one.digest, one.initial_hash, one.chosen_step)
    assert two.cost.tokens == one.cost.tokens
    assert two.cost.peak_bytes > 0
    for line in one.curve.lines():
        np.testing.assert_allclose(two.curve.of(*line)[1], one.curve.of(*line)[1], atol=1e-4)
    for split, judged in one.evaluations.items():
        assert two.evaluations[split].scores == pytest.approx(dict(judged.scores), abs=1e-4)
    assert set(two.floors) == set(one.floors)
    names = [sorted(str(p.relative_to(tmp_path / n)) for p in (tmp_path / n).rglob("*")) for n in ("one", "two")]
    assert names[0] == names[1]
    answers = [pq.read_table(tmp_path / n / "predictions.parquet")["probabilities"].to_pylist() for n in ("one", "two")]
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-4)
