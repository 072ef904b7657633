"""A collection by two workers against the same by one, as whole commands that take turns: how many times as fast.

    python benchmarks/collection.py --runs 40 --rounds 2
    python benchmarks/collection.py --ray auto

Every command begins with an empty store; its start, that of a Ray cluster included, is part of its time. A worker has
one thread, so two cores must be free. The aim is 1.7 times.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = {
    "meals": ["soup", "bread", "salt", "oven", "spoon", "plate", "taste", "lunch", "sauce", "cook"],
    "trains": ["track", "rail", "coach", "ticket", "station", "delay", "seat", "platform", "signal", "line"],
}
COMMON = ["the", "a", "was", "my", "very", "late", "good", "bad", "new", "old", "today", "again", "never"]


def table(path: Path, rows: int = 80) -> None:
    """Two classes of made-up texts."""
    chance = random.Random(0)
    lines = ["text,label"]
    for i in range(rows):
        label = sorted(WORDS)[i % 2]
        lines.append(" ".join(chance.choices(WORDS[label] + COMMON, k=chance.randint(6, 30))) + f",{label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def plan(folder: Path, runs: int) -> Path:
    table(folder / "rows.csv")
    made = {
        "models": [{"name": "demo", "max_length": 64}],
        "tasks": [{"source": str(folder / "rows.csv")}],
        "shots": [20],
        "tuners": ["lora", "full", "adaptive", "dynamic-subset"],
        "configs": runs,
        "repeats": 0,
        "steps": [20, 40],
    }
    path = folder / "plan.yaml"
    path.write_text(json.dumps(made), encoding="utf-8")
    return path


def seconds(asked: Path, workers: int, ray: str, runs: int) -> float:
    """One command from beginning to end."""
    with tempfile.TemporaryDirectory() as store:
        command = [sys.executable, "-m", "foretune", "collect", str(asked), "--store", store, "--json"]
        command += ["--workers", str(workers), *(["--ray", ray] if ray else [])]
        start = time.perf_counter()
        said = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=True)
        took = time.perf_counter() - start
        statuses = json.loads(said.stdout)["statuses"]
        if sum(statuses.values()) < runs:
            raise SystemExit(f"Expected {runs} runs, but got {statuses}.")
        return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ray", default="", metavar="ADDRESS", help="by actors on Ray in the place of processes")
    asked = parser.parse_args()
    taken: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        made = plan(Path(folder), asked.runs)
        for i in range(asked.rounds):
            for workers in (1, 2) if i % 2 == 0 else (2, 1):
                taken[workers].append(seconds(made, workers, asked.ray, asked.runs))
                print(f"{workers} workers   {taken[workers][-1]:7.1f} s", flush=True)
    ratios = [one / two for one, two in zip(taken[1], taken[2], strict=True)]
    low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
    print(f"two workers {middle:.2f} times as fast [{low:.2f}, {high:.2f}]   (aim >= 1.70)")


if __name__ == "__main__":
    main()
