"""Run what is missing of ``protocol.yaml``, append one JSON line per cell, resume after a kill.

    python -m experiments.dynamic_subset.run --data-dir DATA --cache CACHE [--minutes 60] [--part 0/2] [--plan]

First the decoder is pretrained into CACHE, then the rates are tuned (``results/tuning*.jsonl``), then cells run in the
protocol's order (``results/cells*.jsonl``). ``--part i/k`` takes every k-th method to tune and every k-th group of
cells, for several processes; ``--plan`` prints what there is to do and ends. A failed cell is a line with its error.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from experiments.prefix_subspaces.run import append, code_hash, lines

HERE = Path(__file__).parent
RESULTS = HERE / "results"
Row = dict[str, Any]


def protocol() -> tuple[dict[str, Any], str]:
    """The protocol and its digest."""
    text = (HERE / "protocol.yaml").read_bytes()
    return yaml.safe_load(text), hashlib.sha256(text).hexdigest()[:12]


def results(kind: str) -> list[Row]:
    """Every line of ``kind`` (``tuning`` or ``cells``), of all parts."""
    return [row for path in sorted(RESULTS.glob(f"{kind}*.jsonl")) for row in lines(path)]


@dataclass(frozen=True)
class Method:
    """What has a rate of its own: an arm at a density, or a reference (``density`` None), in one domain."""

    domain: str
    arm: str
    density: float | None

    def __str__(self) -> str:
        return f"{self.domain}|{self.arm}" + (f"|{self.density:g}" if self.density else "")


@dataclass(frozen=True)
class Cell:
    """One run of a method; ``rate`` is None where nothing is trained."""

    method: Method
    task: str
    seed: int
    rate: float | None

    @property
    def key(self) -> str:
        """A cell's name in the results: the rate does not count, for a method has one."""
        return f"{self.method}|{self.task}|{self.seed}"


def methods(plan: Row, density: float | None) -> Iterator[Method]:
    """The arms at ``density``, or the references, of both domains in the order of the protocol."""
    for domain in plan["domains"]:
        if density:
            yield from (Method(domain, arm, density) for arm in plan["arms"])
        else:
            for arm, reference in plan["references"].items():
                if domain in reference.get("domains", plan["domains"]):
                    yield Method(domain, arm, None)


def tuned_methods(plan: Row) -> list[Method]:
    """Every method that needs a rate."""
    every = [method for density in (*plan["densities"], None) for method in methods(plan, density)]
    return [method for method in every if arm_of(plan, method)["tuner"]]


def arm_of(plan: Row, method: Method) -> Row:
    """The tuner and the options of a method."""
    found: Row = (plan["references"] if method.density is None else plan["arms"])[method.arm]
    return found


def groups(plan: Row) -> Iterator[list[tuple[Method, str, int]]]:
    """What is compared, arm by arm: one seed, density and task; in the order of the protocol."""
    for seed in plan["seeds"]:
        for density in (*plan["densities"], None):
            for domain, settings in plan["domains"].items():
                arms = [method for method in methods(plan, density) if method.domain == domain]
                yield from ([(method, task, seed) for method in arms] for task in settings["tasks"])


def merits(plan: Row, trials: Sequence[Row], method: Method) -> dict[float, float]:
    """Rate -> mean dev loss, negative so that more is better, of every rate whose tuning runs are all there."""
    runs = len(plan["domains"][method.domain]["tuning"]) * len(plan["tuning"]["seeds"])
    found: dict[float, list[float]] = {}
    for row in trials:
        if row["method"] == str(method):
            found.setdefault(row["rate"], []).append(-row["dev"] if row["status"] == "ok" else float("-inf"))
    return {rate: statistics.mean(values) for rate, values in found.items() if len(values) == runs}


def best_rate(plan: Row, known: Mapping[float, float]) -> float:
    """Of the rates whose merit is within the tolerance of the highest, the highest; the lowest if all failed."""
    top = max(known.values())
    if math.isinf(top):
        return min(known)
    return max(rate for rate, merit in known.items() if merit >= top - plan["tuning"]["tolerance"])


def next_rate(plan: Row, method: Method, known: Mapping[float, float]) -> float | None:
    """The next rate to try; None where both neighbours of the best on the ladder were tried."""
    start, ladder = plan["tuning"]["start"], plan["tuning"]["ladder"]
    for rate in start.get(method.arm, start["subsets"]):
        if rate not in known:
            return float(rate)
    at = ladder.index(best_rate(plan, known))
    beside = ladder[max(0, at - 1) : at + 2]
    return next((float(rate) for rate in beside if rate not in known), None)


def chosen_rates(plan: Row, trials: Sequence[Row]) -> dict[Method, float]:
    """The rate of every method whose search has ended."""
    known = {method: merits(plan, trials, method) for method in tuned_methods(plan)}
    return {method: best_rate(plan, k) for method, k in known.items() if next_rate(plan, method, k) is None}


class Runner:
    """Runs cells in this process: tasks opened once, a fresh model for every cell."""

    def __init__(self, plan: Row, data: str, base: Path) -> None:
        self.plan, self.data, self.base = plan, data, base
        self.tasks: dict[str, Any] = {}

    def task(self, name: str, domain: str) -> Any:
        """The task ``name`` without its dev split, for dev rows are drawn from what is paid for.

        With the protocol's test rows where it is evaluated, else with a few that nobody looks at: without any, some of
        train would be held out.
        """
        import numpy as np

        from experiments.dynamic_subset.language import text_task
        from foretune.tasks import Task

        if name not in self.tasks:
            settings = self.plan["domains"][domain]
            words, rows = settings.get("words"), self.plan["test_rows"] if name in settings["tasks"] else 8
            task = text_task(name, words, self.data) if words else Task.from_source(name, data_dir=self.data)
            test = task.splits["test"]
            places = np.sort(np.random.default_rng(0).permutation(len(test))[:rows])
            splits = {"train": task.splits["train"], "test": test.take(places)}
            self.tasks[name] = Task.from_splits(name, task.schema, splits)
        return self.tasks[name]

    def config(self, cell: Cell, task: Any, shots: int, dev_fraction: float) -> Any:
        """The run's whole configuration."""
        from experiments.dynamic_subset.language import OBJECTIVE
        from foretune.records import ModelRef, Part, RunConfig, Schedule, Seeds

        settings, arm = self.plan["domains"][cell.method.domain], arm_of(self.plan, cell.method)
        language = "words" in settings
        options = {name: cell.seed if value == "seed" else value for name, value in arm["options"].items()}
        if cell.method.density:
            options["density"] = cell.method.density
        rate, heads = cell.rate or 1.0, settings.get("head_lr", {})
        schedule = Schedule(
            **self.plan["schedule"],
            batch_size=settings["batch_size"],
            lr=rate,
            head_lr=rate if arm["tuner"] == "head" else heads.get(arm["tuner"], heads.get("default")),
        )
        model = ModelRef(str(self.base) if language else settings["model"], max_length=settings["max_length"])
        return RunConfig(
            model,
            replace(task.ref, shots=shots, dev_fraction=dev_fraction),
            Part(arm["tuner"] or "full", options),
            OBJECTIVE if language else Part("head"),
            schedule,
            Seeds.all(cell.seed),
        )

    def trial(self, cell: Cell) -> Row:
        """The dev loss of one rate; what is found on test rows is not kept."""
        settings = self.plan["domains"][cell.method.domain]
        task = self.task(cell.task, cell.method.domain)
        record, found = self._train(
            self.config(cell, task, settings["tuning"][cell.task], settings["tuning_dev_fraction"]), task
        )
        if record is not None:
            found["dev"] = record.curve.of("dev", "loss")[1][-1]
        return self._line(cell, found)

    def cell(self, cell: Cell) -> Row:
        """The test scores of the model after the last step, in which no dev row had a say."""
        from experiments.dynamic_subset.language import test_loss

        settings = self.plan["domains"][cell.method.domain]
        task = self.task(cell.task, cell.method.domain)
        config = self.config(cell, task, settings["tasks"][cell.task], 0.0)
        if cell.rate is None:
            return self._line(cell, {"status": "ok", "test": untuned_loss(config, task)})
        if "words" not in settings:
            record, found = self._train(config, task)
            if record is not None:
                tests = record.evaluations["test"].scores
                found |= {"test": tests[settings["score"]], "nll": tests["nll"], "ece": tests["ece"]}
            return self._line(cell, found)
        with tempfile.TemporaryDirectory() as folder:
            record, found = self._train(config, task, Path(folder))
            if record is not None:
                found["test"] = test_loss(Path(folder), task)
        return self._line(cell, found)

    def _train(self, config: Any, task: Any, folder: Path | None = None) -> tuple[Any, Row]:
        from foretune.errors import ForetuneError, Interrupted
        from foretune.training.run import train

        start, used = time.perf_counter(), time.process_time()
        try:
            record = train(config, task=task, folder=folder, data_dir=self.data, floors=False)
        except Interrupted:
            raise SystemExit("stopped: the cell under way is not recorded") from None
        except ForetuneError as error:
            return None, {"status": "failed", "error": str(error)}
        curve = record.curve
        followed = [name for split, name in curve.lines() if split == "train" and name != "loss"]
        return record, {
            "status": record.status, "digest": record.digest, "initial": record.initial_hash,
            "train_loss": curve.of("train", "loss")[1][-1],
            "followed": {name: [round(value, 6) for value in curve.of("train", name)[1]] for name in followed},
            "parameters": record.cost.trainable_parameters, "train_seconds": round(record.cost.train_seconds, 2),
            "seconds": round(time.perf_counter() - start, 2), "cpu_seconds": round(time.process_time() - used, 2),
        }  # fmt: skip

    def _line(self, cell: Cell, found: Row) -> Row:
        named = {**asdict(cell.method), "method": str(cell.method), "task": cell.task, "seed": cell.seed}
        return {"key": cell.key, **named, "rate": cell.rate, **found}


def untuned_loss(config: Any, task: Any) -> float:
    """Test loss of the model before any step, in nats per token."""
    from foretune.training.prepare import prepare

    run = prepare(config, task)
    loss: float = replace(run.engine, bf16=False).outputs(run.encoded["test"])[1]
    return loss


def missing_cells(plan: Row, part: int, parts: int) -> list[tuple[Method, str, int]]:
    """What this process has still to run, in the order of the protocol."""
    done = {row["key"] for row in results("cells")}
    mine = [cell for i, group in enumerate(groups(plan)) if i % parts == part for cell in group]
    return [cell for cell in mine if Cell(*cell, None).key not in done]


def describe(plan: Row, part: int, parts: int) -> str:
    """What is left for this process, in cells and minutes of one core that does nothing else."""
    trials, left = results("tuning"), missing_cells(plan, part, parts)
    per = {}
    for domain in plan["domains"]:
        ran = [
            row["cpu_seconds"] for row in (*trials, *results("cells")) if row["domain"] == domain and row.get("digest")
        ]
        per[domain] = statistics.mean(ran) if ran else plan["seconds"][domain]
    rates = chosen_rates(plan, trials)
    searched = [method for method in tuned_methods(plan)[part::parts] if method not in rates]
    # most often the best of three rates lies at one end, and a fourth is enough
    runs = {m: len(plan["domains"][m.domain]["tuning"]) * max(1, 4 - len(merits(plan, trials, m))) for m in searched}
    minutes = sum(per[method.domain] * n for method, n in runs.items()) / 60
    text = [f"tuning: {len(runs)} methods, about {sum(runs.values())} runs, {minutes:.0f} min"]
    for seed in plan["seeds"]:
        mine = [method for method, _, s in left if s == seed]
        minutes = sum(per[method.domain] for method in mine) / 60
        text.append(f"seed {seed}: {len(mine)} cells, {minutes:.0f} min")
    return "\n".join(text)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--cache", type=Path, required=True, help="where the pretrained decoder is kept")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--part", default="0/1", help="i/k: every k-th method and group from the i-th")
    parser.add_argument("--plan", action="store_true", help="print what is left and end")
    asked = parser.parse_args()
    part, parts = (int(n) for n in asked.part.split("/"))
    plan, digest = protocol()
    print(describe(plan, part, parts), flush=True)
    if asked.plan:
        return
    end = time.monotonic() + 60 * asked.minutes
    from experiments.dynamic_subset.language import pretrained

    base, weights = pretrained(plan["domains"]["language"]["base"], asked.data_dir, asked.cache)
    stamp = {"protocol": digest, "code": code_hash(), "base": weights}
    for row in (*results("tuning"), *results("cells")):
        if (row["protocol"], row["base"]) != (digest, weights):
            raise SystemExit(
                f"The results hold a line of protocol {row['protocol']} and decoder {row['base']}, not {digest} and "
                f"{weights}: move them away."
            )
    runner, suffix = Runner(plan, asked.data_dir, base), "" if parts == 1 else f"-{part}"

    for method in tuned_methods(plan)[part::parts]:
        while (rate := next_rate(plan, method, merits(plan, results("tuning"), method))) is not None:
            ran = {(row["method"], row["rate"], row["task"], row["seed"]) for row in results("tuning")}
            for seed in plan["tuning"]["seeds"]:
                for task in plan["domains"][method.domain]["tuning"]:
                    if time.monotonic() > end:
                        return
                    if (str(method), rate, task, seed) not in ran:
                        trial = runner.trial(Cell(method, task, seed, rate))
                        append(RESULTS / f"tuning{suffix}.jsonl", {**trial, **stamp})
    rates = chosen_rates(plan, results("tuning"))
    if waiting := [str(method) for method in tuned_methods(plan) if method not in rates]:
        raise SystemExit(f"{len(waiting)} methods of other parts have no rate yet: run again after them.")

    for method, task, seed in missing_cells(plan, part, parts):
        if time.monotonic() > end:
            return
        append(RESULTS / f"cells{suffix}.jsonl", {**runner.cell(Cell(method, task, seed, rates.get(method))), **stamp})


if __name__ == "__main__":
    main()
