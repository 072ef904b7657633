"""A run of a subset leaves its displacement in the record, of the weights that were kept, and the report shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from foretune.records import Part, RunConfig
from foretune.report import page
from foretune.store.folder import read_run
from foretune.tasks import Task
from foretune.training.run import train
from foretune.tuners.subset.overlap import overlap

Config = Callable[..., RunConfig]
Tasks = Callable[..., Task]


@pytest.mark.parametrize("name", ["dynamic-subset", "static-subset"])
def test_check_20_churn_and_displacement_of_the_kept_weights_are_recorded_and_shown(
    name: str, config: Config, task: Tasks, tmp_path: Path
) -> None:
    from safetensors import safe_open

    asked = config(tuner=Part(name, {"density": 0.05}), steps=6, evaluations=3)
    record = train(asked, task=task(), folder=tmp_path, floors=False)
    assert read_run(tmp_path) == record
    found = record.displacement
    assert found is not None
    assert record.curve.of("train", "churn")[0] == [1, 2, 3, 4, 5, 6]
    assert record.curve.of("train", "least_displacement")[0] == [2, 4, 6]
    with safe_open(tmp_path / "adapter" / "adapter_model.safetensors", framework="np") as file:
        stored = [key.removesuffix(".dst_values") for key in file.keys() if key.endswith(".dst_values")]  # noqa: SIM118
        moved = sum(
            np.abs(file.get_tensor(f"{key}.dst_values").astype(np.float64) - file.get_tensor(f"{key}.dst_base")).sum()
            for key in stored
        )
    assert found.tensors == len(stored)
    assert found.total.moved == pytest.approx(float(moved), rel=1e-4)
    assert found.total.chosen == overlap(tmp_path, tmp_path).first
    assert 'id="displacement"' in page.write(tmp_path).read_text(encoding="utf-8")


def test_a_method_beside_the_base_records_none(config: Config, task: Tasks) -> None:
    record = train(config(steps=1, evaluations=1), task=task(), floors=False)
    assert record.displacement is None
    assert "displacement" not in record.to_json()
