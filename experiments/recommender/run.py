"""Run what is missing of ``protocol.yaml``, append one JSON line per task, seed and arm, resume after a kill.

    python -m experiments.recommender.run --data-dir DATA --work WORK [--minutes 60] [--part 0/2]

``WORK`` keeps the record of every run, so that nothing runs twice. Only the store that ships with foretune is
consulted: the user's own is replaced by an empty one. ``--part i/k`` takes every k-th task and seed.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from foretune.errors import ForetuneError, Interrupted
from foretune.pipeline.draft import Draft, prepare_plan
from foretune.pipeline.options import TuneOptions
from foretune.pipeline.trials import observation
from foretune.pipeline.tune import tune
from foretune.recommenders import TPE, RandomSearch, Recommender, Trial, make_pool
from foretune.records import Plan, Recommendation, RunRecord
from foretune.store.bundled import FOLDER as BUNDLED
from foretune.store.collections import TABLES
from foretune.store.folder import RUN_FILE, read_run
from foretune.store.journal import JournalStore
from foretune.tasks import Task
from foretune.tasks.cut import cut
from foretune.training.run import train

HERE = Path(__file__).parent
RESULTS = HERE / "results"
LEAST_BUDGET = 30.0
"""Seconds of a play, however short ten runs at random were."""


def protocol() -> tuple[dict[str, Any], dict[str, str]]:
    """The protocol, and the digests of it and of the store that is consulted.

    Raises:
        SystemExit: this installation ships no store.
    """
    text = (HERE / "protocol.yaml").read_bytes()
    tables = [BUNDLED / f"{name}.parquet" for name in TABLES]
    if not all(path.exists() for path in tables):
        raise SystemExit("No store ships with this installation: see experiments/bundled_store.")
    store = hashlib.sha256(b"".join(path.read_bytes() for path in tables))
    return yaml.safe_load(text), {"protocol": hashlib.sha256(text).hexdigest()[:12], "store": store.hexdigest()[:12]}


def lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a results file; a line that a kill cut short is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


@dataclass
class Cell:
    """One task with one seed: every run on it happens once, whichever arms ask for it.

    Attributes:
        draft: what foretune would run, and the recommender that said so.
        planned: seconds until it was said.
        work: where the records and the folders of runs under way lie.
    """

    plan: dict[str, Any]
    name: str
    seed: int
    task: Task
    work: Path
    draft: Draft = field(init=False)
    planned: float = field(init=False)

    def __post_init__(self) -> None:
        began = time.monotonic()
        self.draft = prepare_plan(self.task, self.options(), measure=True)
        self.planned = time.monotonic() - began

    def options(self, **more: Any) -> TuneOptions:
        """What a user would ask for."""
        shots = self.plan["tasks"][self.name]
        asked = {"model": self.plan["model"], "max_length": self.plan["max_length"], "shots": shots, "seed": self.seed}
        return TuneOptions(**asked, **more)

    def run(self, pipeline: Recommendation) -> RunRecord:
        """The record of one run to its end, failed or not."""
        made = {"tuner": pipeline.tuner, "objective": pipeline.objective, "schedule": pipeline.schedule}
        config = replace(self.draft.config, **made)
        store = JournalStore(self.work / "store")
        if (found := store.find(config.digest)) is not None and found.status != "stopped":
            return found
        folder = self.work / "runs" / config.digest
        record = _record(lambda: train(config, task=self.task, folder=folder, floors=False), folder)
        store.append(record)
        return record

    def arms(self) -> Iterator[dict[str, Any]]:
        """What came of every arm, in the protocol's order."""
        ranked, unplanned = self.draft.plan.ranked, prepare_plan(self.task, self.options(recommender="default"))
        yield self._line("default", [self.run(unplanned.plan.best)])
        first = [self.run(each) for each in ranked[: self.plan["ranked"]]]
        yield self._line("recommended", first[:1], self.planned) | foretold(self.draft.plan, ranked[0])
        other = unguarded(ranked)
        yield self._line("unguarded", [self.run(other)], self.planned) | foretold(self.draft.plan, other)
        yield self._line(f"recommended-{self.plan['ranked']}", first, self.planned)
        most = max(self.plan["random"])
        drawn = [record for record, _ in itertools.islice(self._searched(RandomSearch), most)]
        for count in self.plan["random"]:
            yield self._line(f"random-{count}", drawn[:count])
        budget = max(LEAST_BUDGET, seconds(drawn))
        yield self._line("tpe", *within(self._searched(TPE), budget)) | {"budget": budget}
        yield self._played(budget)

    def _searched(self, kind: type[Recommender]) -> Iterator[tuple[RunRecord, float]]:
        """The runs that a search without memory asks for, each with the seconds that asking took."""
        assert self.draft.adviser is not None
        pool = make_pool(self.draft.adviser.situation, seed=self.seed)
        search = kind(pool.runs, default=0, seed=self.seed)
        while True:
            began = time.monotonic()
            trial = search.ask()
            asking = time.monotonic() - began
            if trial is None:
                return
            record = self.run(pool.offered[trial.place])
            yield record, asking
            search.tell(observation(Trial(trial.place), record))

    def _played(self, budget: float) -> dict[str, Any]:
        """A play from its beginning, for it is its seconds that count: one that was killed is begun anew."""
        folder = self.work / "played" / f"{self.name}-{self.seed}"
        shutil.rmtree(folder, ignore_errors=True)
        began = time.monotonic()
        asked = self.options(mode="grey-box", budget=f"{budget:.0f}s")
        record = _record(lambda: tune(self.task, options=asked, out=folder, remember=False).record, folder)
        spent = {"budget": budget, "seconds": round(time.monotonic() - began, 2)}
        return self._line("grey-box", [record]) | spent

    def _line(self, arm: str, runs: Sequence[RunRecord], planning: float = 0.0) -> dict[str, Any]:
        best = max(runs, key=lambda record: dev(record))
        return {
            "task": self.name,
            "seed": self.seed,
            "arm": arm,
            "runs": len(runs),
            "failed": sum(record.status != "ok" for record in runs),
            "seconds": round(seconds(runs) + planning, 2),
            "metric": best.metric,
            "dev": round(dev(best), 5) if best.status == "ok" else None,
            "test": best.evaluations["test"].scores[best.metric] if best.status == "ok" else None,
            "tuner": best.config.tuner.name,
            "digest": best.digest,
        }


def within(runs: Iterator[tuple[RunRecord, float]], budget: float) -> tuple[list[RunRecord], float]:
    """The runs that end within so many seconds, at least one, and the seconds that asking for them took."""
    counted: list[RunRecord] = []
    spent = asked = 0.0
    for record, asking in runs:
        spent += record.cost.seconds + asking
        if counted and spent > budget:
            break
        counted.append(record)
        asked += asking
    return counted, asked


def unguarded(ranked: Sequence[Recommendation]) -> Recommendation:
    """What would come first if the published default had no precedence; the default where it stands alone."""
    return next((each for each in ranked if each.origin != "default"), ranked[0])


def foretold(plan: Plan, run: Recommendation) -> dict[str, Any]:
    """What was said of ``run`` before it ran: its score and interval on dev, its seconds."""
    said = {"foretold": run.score, "interval": run.interval, "foretold_seconds": run.seconds}
    return {"recommender": plan.recommender, "origin": run.origin, "tied": plan.tied, **said}


def dev(record: RunRecord) -> float:
    """The dev score by which runs are chosen; the lowest of all where a run failed."""
    return record.evaluations["dev"].scores[record.metric] if record.status == "ok" else -math.inf


def seconds(runs: Sequence[RunRecord]) -> float:
    """What the runs took together."""
    return sum(record.cost.seconds for record in runs)


def _record(run: Callable[[], RunRecord], folder: Path) -> RunRecord:
    """What ``run`` returns, or what it left in its folder when it failed."""
    try:
        return run()
    except Interrupted:
        raise SystemExit("Stopped: the same command goes on.") from None
    except ForetuneError:
        if not (folder / RUN_FILE).exists():
            raise
        return read_run(folder)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--part", default="0/1", help="i/k: every k-th task and seed from the i-th")
    asked = parser.parse_args()
    part, parts = (int(n) for n in asked.part.split("/"))
    plan, stamp = protocol()
    os.environ["FORETUNE_STORE"] = tempfile.mkdtemp()
    end = time.monotonic() + 60 * asked.minutes
    done = set()
    for path in RESULTS.glob("cells*.jsonl"):
        rows = lines(path)
        if any(row[name] != stamp[name] for row in rows for name in stamp):
            raise SystemExit(f"{path} holds results of another protocol or store: move them away.")
        done |= {(row["task"], row["seed"]) for row in rows if row["arm"] == "grey-box"}
    mine = RESULTS / ("cells.jsonl" if parts == 1 else f"cells-{part}.jsonl")
    for number, (seed, name) in enumerate(itertools.product(plan["seeds"], plan["tasks"])):
        if number % parts != part or (name, seed) in done:
            continue
        if time.monotonic() > end:
            break
        task = cut(Task.from_source(name, data_dir=asked.data_dir), plan["test_rows"])
        cell = Cell(plan, name, seed, task, asked.work)
        made = [row | stamp for row in cell.arms()]
        RESULTS.mkdir(exist_ok=True)
        with mine.open("a") as file:  # all arms of a cell at once: a killed cell begins anew, with its runs kept
            file.write("".join(json.dumps(row) + "\n" for row in made))
        print(name, seed, {row["arm"]: row["test"] for row in made}, flush=True)


if __name__ == "__main__":
    main()
