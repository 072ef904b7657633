"""The final score of TaskSet's runs, foretold by the deep kernels and by the last value, on tasks that were left out.

    python benchmarks/deep_kernel.py FOLDER [--tasks 0,3,7,10] [--variants qt,qtt] [--ahead end] [--published]
        [--seed 0]

Scores are .75 - min(loss, .75), as the best dev loss so far; Spearman, mean absolute error and coverage of the 80 %
interval are over the successful runs of the task, all of whose configurations are known on the other tasks.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy.stats import spearmanr

from foretune.store.importers import read_taskset
from foretune.store.metadataset import MetaDataset, metadataset
from foretune.surrogates.base import Forecast
from foretune.surrogates.dkl import DeepKernel

CAP = 0.75
SEEN = (0, 2, 5)


def gained(loss: np.ndarray) -> np.ndarray:
    """``(n,)`` capped losses as scores of which more is better."""
    return CAP - np.fmin(loss, CAP)


def last_value(pool: MetaDataset, cells: int) -> Forecast:
    """The best so far goes on to the end."""
    seen = np.column_stack([pool.start["score"], pool.curves["score"][:, :cells]])
    best = np.fmin.reduce(seen, axis=1)
    return Forecast(-best, best, best, best)


def row(name: str, task: int, cells: int, told: Forecast, pool: MetaDataset) -> tuple[float, ...]:
    """Print and return Spearman, error and coverage."""
    truth = gained(pool.score)
    low, mean, high = (gained(values) for values in (told.high, told.mean, told.low))
    rho = spearmanr(mean, truth).statistic if cells or name != "last value" else np.nan
    figures = (rho, np.abs(mean - truth).mean(), ((low <= truth) & (truth <= high)).mean())
    print(
        f"{name:12} task {task:2}  {cells} of 10 cells  {figures[0]:.3f} / {figures[1]:.4f} / {figures[2]:.2f}",
        flush=True,
    )
    return figures


def kernel(variant: str, ahead: str, published: bool) -> DeepKernel:
    """Ours, or as the programs have it."""
    if not published:
        return DeepKernel(variant, ahead=ahead)
    rate = 1e-4 if variant == "qt" else 1e-3
    return DeepKernel(variant, ahead=ahead, prior="constant", task_columns=True, rate=rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--tasks", default="0,3,7,10")
    parser.add_argument("--variants", default="qt,qtt")
    parser.add_argument("--ahead", default="end")
    parser.add_argument("--published", action="store_true", help="prior, task columns and rates of the programs")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    runs = metadataset([read_taskset(asked.folder)])
    tasks = [int(task) for task in asked.tasks.split(",")]
    table: dict[tuple[str, int], list[tuple[float, ...]]] = {}
    for task in tasks:
        past, pool = runs.take(runs.task != task), runs.take((runs.task == task) & runs.succeeded)
        for cells in SEEN:
            table.setdefault(("last value", cells), []).append(
                row("last value", task, cells, last_value(pool, cells), pool)
            )
        for variant in asked.variants.split(","):
            began = time.process_time()
            fitted = kernel(variant, asked.ahead, asked.published).fit(past, asked.seed)
            print(f"dkl-{variant}: fitted in {time.process_time() - began:.0f} s of processor time", flush=True)
            for cells in SEEN:
                told = fitted.predict(pool, np.full(len(pool), cells))
                table.setdefault((variant, cells), []).append(row(f"dkl-{variant}", task, cells, told, pool))
    print(f"\nmean over {len(tasks)} tasks: Spearman / error / coverage")
    for (name, cells), figures in table.items():
        rho, error, cover = np.mean(figures, axis=0)
        print(f"{name:12} {cells} of 10 cells  {rho:.3f} / {error:.4f} / {cover:.2f}")


if __name__ == "__main__":
    main()
