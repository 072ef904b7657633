"""Small files in the formats of other projects, made up: for tests of importers and of what learns from them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

HP = ("learning_rate", "beta1", "l2")


def taskset(folder: Path, runs: int = 6, steps: int = 51, broken: dict[str, int] | None = None) -> Path:
    """Two tasks; ``broken``: task -> how many of its first runs end in numbers that are none."""
    rng = np.random.default_rng(0)
    settings = [{name: float(rng.uniform(0.001, 0.5)) for name in HP} for _ in range(runs)]
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(("Fixed_imdb_patch32_GRU64_avg_bs128", "Fixed_imdb_patch128_LSTM128_bs64")):
        entries = []
        for number, hp in enumerate(settings):
            losses = {}
            for split in ("train", "valid", "test"):
                loss = list(0.7 - 0.3 * hp["l2"] * np.linspace(0, 1, steps) + 0.01 * rng.normal(size=steps) + place)
                if number < (broken or {}).get(name, 0):
                    loss[-2:] = [float("nan"), float("inf") if split == "test" else 1e34]
                losses[split] = {"loss": loss}
            entries.append({"hp": hp, **losses})
        with gzip.open(folder / f"{name}.json.gz", "wt") as file:
            json.dump(entries, file)
    return folder


def peft(folder: Path, method: str | None = "LORA", accuracy: float = 0.4, status: str = "success", **own: Any) -> Path:
    """One result file of method_comparison, of 20 evaluations."""
    records = [
        {
            "step": 250 * n,
            "valid accuracy": accuracy * n / 20,
            "train loss": 1 / n,
            "train time": 10.0 + n,
            "eval time": 2.0,
        }
        for n in range(1, 21)
    ]
    last = {"step": 5000, "test accuracy": accuracy, "train loss": 0.05, "forgetting": 0.1, "train total tokens": 4000}
    plain = {
        "run_info": {
            "experiment_name": f"{method}/{accuracy}",
            "train_config": {
                "model_id": "meta-llama/Llama-3.2-3B", "batch_size": 4, "max_steps": 5000, "seed": 0,
                "optimizer_kwargs": {"lr": 1e-4}, "lr_scheduler": "cosine",
            },
            "peft_config": method and {"peft_type": method, "r": 8, "target_modules": ["v_proj", "q_proj"], **own},
            "error_msg": "" if status == "success" else "no memory",
        },
        "train_info": {
            "train_time": 9999.0, "accelerator_memory_max": 1000, "file_size": 10, "num_trainable_params": 5,
            "num_total_params": 105, "status": status, "metrics": [*records, last],
        },
        "meta_info": {"dataset_info": {"gsm8k": {}, "metamath": {}}, "system_info": {"accelerator": "NVIDIA L40S"}},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{method}-{accuracy}.json").write_text(json.dumps(plain))
    return folder


def qtt(
    folder: Path,
    curve: Sequence[str],
    config: Sequence[str],
    meta: Sequence[str] | None = None,
    cost: Sequence[str] | None = None,
) -> Path:
    """Quick-Tune's tables from lines of CSV without the index, which is added."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in (("curve", curve), ("config", config), ("meta", meta), ("cost", cost)):
        if lines is not None:
            text = [f",{lines[0]}", *(f"{n},{line}" for n, line in enumerate(lines[1:], 1))]
            (folder / f"{name}.csv").write_text("\n".join(text) + "\n")
    return folder
