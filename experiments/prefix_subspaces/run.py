"""Run what is missing of ``protocol.yaml``, append one JSON line per cell, resume after a kill.

    python experiments/prefix_subspaces/run.py --data-dir DATA [--minutes 60] [--part 0/2]

First the rates are tuned (``results/tuning.jsonl``), then cells run in the protocol's order (``results/cells*.jsonl``;
``--part i/k`` takes every k-th seed, for several processes). A failed cell is a line with its error.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def protocol() -> tuple[dict[str, Any], str]:
    """The protocol and its digest."""
    text = (HERE / "protocol.yaml").read_bytes()
    return yaml.safe_load(text), hashlib.sha256(text).hexdigest()[:12]


def lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a results file; a line that a kill cut short is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def append(path: Path, row: dict[str, Any]) -> None:
    """One line, at once."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def tuning_cells(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every trial of every method."""
    tuning = plan["tuning"]
    of_method = {arm["rate"]: arm for arm in plan["arms"].values()}
    for seed in tuning["seeds"]:
        for task, shots in tuning["tasks"].items():
            for method, rates in tuning["rates"].items():
                for rate in rates:
                    arm = of_method[method]
                    options = {k: v for k, v in arm["options"].items() if k != "dev_samples"}
                    options |= {"dev_samples": 1} if "n_vertices" in options else {}
                    yield {
                        "key": f"{method}|{rate:g}|{task}|{seed}", "method": method, "rate": rate, "task": task,
                        "seed": seed, "shots": shots, "dev_fraction": tuning["dev_fraction"], "tuner": arm["tuner"],
                        "options": options, "evaluations": 1,
                    }  # fmt: skip


def chosen_rates(plan: dict[str, Any], trials: list[dict[str, Any]]) -> dict[str, float]:
    """The rate of each method with the highest mean dev score."""
    best: dict[str, float] = {}
    for method, rates in plan["tuning"]["rates"].items():
        means = {}
        for rate in rates:
            scores = [t["dev"] for t in trials if t["method"] == method and t["rate"] == rate and t["status"] == "ok"]
            means[rate] = sum(scores) / len(scores) if scores else float("-inf")
        best[method] = max(means, key=lambda rate: means[rate])
    return best


def cells(plan: dict[str, Any], rates: dict[str, float], classes: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Every cell in the protocol's order."""
    for seed in plan["seeds"]:
        for k in plan["k_total"]:
            for task in plan["tasks"]:
                for name, arm in plan["arms"].items():
                    yield {
                        "key": f"{name}|{task}|{k}|{seed}", "arm": name, "task": task, "k": k, "seed": seed,
                        "shots": k // classes[task], "dev_fraction": plan["dev_fraction"], "tuner": arm["tuner"],
                        "options": arm["options"], "rate": rates[arm["rate"]],
                        "evaluations": plan["schedule"]["evaluations"],
                    }  # fmt: skip


class Runner:
    """Runs cells in this process: one opened task and one model cache, a fresh model for every cell."""

    def __init__(self, plan: dict[str, Any], data: str) -> None:
        self.plan, self.data, self.tasks = plan, data, {}

    def task(self, name: str, rows: int) -> Any:
        """The catalog task ``name`` with at most ``rows`` of its test rows, opened once."""
        import numpy as np

        from foretune.tasks import Task

        if name not in self.tasks:
            task = Task.from_source(name, data_dir=self.data)
            test = task.splits["test"]
            places = np.sort(np.random.default_rng(0).permutation(len(test))[:rows])
            splits = {"train": task.splits["train"], "test": test.take(places)}
            self.tasks[name] = Task.from_splits(name, task.schema, splits)
        return self.tasks[name]

    def run(self, cell: dict[str, Any]) -> dict[str, Any]:
        """What came of one cell: scores, cost, identity."""
        from foretune.errors import ForetuneError, Interrupted
        from foretune.records import ModelRef, Part, RunConfig, Schedule, Seeds
        from foretune.training.run import train

        task = self.task(cell["task"], self.plan["test_rows"])
        heads = self.plan["head_lr"]
        schedule = Schedule(
            **{**self.plan["schedule"], "evaluations": cell["evaluations"]},
            lr=cell["rate"],
            head_lr=heads.get(cell["tuner"], heads["default"]) if cell["tuner"] != "head" else cell["rate"],
        )
        config = RunConfig(
            ModelRef(self.plan["model"]),
            replace(task.ref, shots=cell["shots"], dev_fraction=cell["dev_fraction"]),
            Part(cell["tuner"], cell["options"]),
            Part("head"),
            schedule,
            Seeds.all(cell["seed"]),
        )
        start = time.perf_counter()
        kept = {name: cell[name] for name in cell if name not in ("options", "tuner", "evaluations", "dev_fraction")}
        try:
            record = train(config, task=task, data_dir=self.data, floors=False)
        except Interrupted:
            raise SystemExit("stopped: the cell under way is not recorded") from None
        except ForetuneError as error:
            return {**kept, "status": "failed", "error": str(error)}
        metric, tests = record.metric, record.evaluations["test"].scores
        steps, chosen_by = record.curve.of("dev", metric)
        return {
            **kept, "status": record.status, "digest": record.digest, "metric": metric, "test": tests[metric],
            "dev": record.evaluations["dev"].scores[metric], "nll": tests.get("nll"), "ece": tests.get("ece"),
            "dev_curve": [round(float(v), 5) for v in chosen_by], "steps": [int(s) for s in steps],
            "chosen_step": record.chosen_step, "initial": record.initial_hash,
            "train_seconds": round(record.cost.train_seconds, 2), "eval_seconds": round(record.cost.eval_seconds, 2),
            "seconds": round(time.perf_counter() - start, 2), "parameters": record.cost.trainable_parameters,
        }  # fmt: skip


def code_hash() -> str:
    """Of the source that ran: a result names what made it."""
    import foretune

    root = Path(foretune.__file__).parent
    sha = hashlib.sha256()
    rooms = ("tuners", "training", "objectives", "models", "tasks")
    for path in sorted(path for room in rooms for path in (root / room).rglob("*.py")):
        sha.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return sha.hexdigest()[:12]


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--part", default="0/1", help="i/k: every k-th seed from the i-th")
    asked = parser.parse_args()
    part, parts = (int(n) for n in asked.part.split("/"))
    plan, digest = protocol()
    stamp = {"protocol": digest, "code": code_hash()}
    runner, end = Runner(plan, asked.data_dir), time.monotonic() + 60 * asked.minutes
    mine = RESULTS / ("cells.jsonl" if parts == 1 else f"cells-{part}.jsonl")
    for path in RESULTS.glob("*.jsonl"):
        if others := {row["protocol"] for row in lines(path)} - {digest}:
            raise SystemExit(f"{path} holds results of protocol {', '.join(others)}, not {digest}: move them away.")

    tuned = RESULTS / "tuning.jsonl"
    done = {row["key"] for row in lines(tuned)}
    for cell in tuning_cells(plan):
        if cell["key"] not in done:
            if parts > 1:
                raise SystemExit("The rates are not tuned yet: run without --part first.")
            trial = runner.run(cell)
            append(tuned, {key: v for key, v in trial.items() if key not in ("test", "nll", "ece")} | stamp)
    rates = chosen_rates(plan, lines(tuned))
    print("rates", rates, flush=True)

    done = {row["key"] for path in RESULTS.glob("cells*.jsonl") for row in lines(path)}
    classes = {name: len(runner.task(name, plan["test_rows"]).schema.labels) for name in plan["tasks"]}
    for cell in cells(plan, rates, classes):
        if cell["key"] in done or plan["seeds"].index(cell["seed"]) % parts != part:
            continue
        if time.monotonic() > end:
            break
        append(mine, {**runner.run(cell), **stamp})


if __name__ == "__main__":
    main()
