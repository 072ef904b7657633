"""Surrogates on made-up stores: seconds to fit, seconds to foretell 512 candidates, and peak memory, each in a process.

The aims: a fit on 20,000 points of learning curves in less than 60 s and a forecast of 512 candidates in less than 1
s, on two cores and in less than 1 GB; a million points still usable. ``--store FOLDER`` takes TaskSet's files in the
place of the made-up store.

``plan`` is no surrogate: it is ``foretune recommend`` after start-up, a plan over 512 candidates from the runs that
ship with the package (about 20,000 points), where ``fit`` is the first one, which learns.

    python benchmarks/surrogates.py --points 20000 1000000
    OMP_NUM_THREADS=1 python benchmarks/surrogates.py --cpu-time --names transfer
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

CANDIDATES, TASKS, PLAN = 512, 20, "plan"
AIMS = {"fit": 60.0, "predict": 1.0, "peak GB": 1.0}


def one(name: str, points: int, store: str, cpu: bool) -> dict[str, float]:
    """Measure one model in this process."""
    from foretune.store.importers import read_taskset
    from foretune.store.metadataset import CELLS, metadataset
    from foretune.surrogates import SURROGATES, CostModel, FailureModel
    from foretune.testing.surrogate_contract import hidden, made_store

    past = metadataset([read_taskset(store)]) if store else made_store(TASKS, -(-points // (TASKS * CELLS)))
    pool = made_store(1, CANDIDATES, first=TASKS, seed=1)
    if store:
        last = past.task == len(past.tasks) - 1
        past, pool = past.take(~last), past.take(np.flatnonzero(last)[:CANDIDATES])
    clock = time.process_time if cpu else time.perf_counter
    model = {"failure": FailureModel, "cost": CostModel, **SURROGATES}[name]()
    if name == "cost" and not np.isfinite(past.seconds).any():
        return {}
    start = clock()
    model.fit(past)
    middle = clock()
    seen = np.arange(len(pool)) % CELLS
    if isinstance(model, CostModel):
        model.seconds(hidden(pool, seen), seen, seen + 1)
    else:
        model.predict(hidden(pool, seen), seen)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"fit": middle - start, "predict": clock() - middle, "peak GB": peak}


def planned(cpu: bool) -> dict[str, float]:
    """Measure plans for one of the shipped tasks, from the runs on the others, in this process."""
    from foretune.pipeline.without_past import without_past
    from foretune.recommenders import Planner, Situation
    from foretune.recommenders.recorded import marked
    from foretune.records import Part, TaskCard
    from foretune.store.bundled import bundled
    from foretune.store.metadataset import metadataset
    from foretune.tuners import TUNERS

    shipped = bundled()
    if shipped is None:
        return {}
    data = metadataset([shipped])
    task = next(each for each in data.tasks if each.name == "sst2")
    past = marked(data.take(data.groups != task.group_key), without_past)
    rows, classes = dict(task.rows), int(task.features["classes"])
    card = TaskCard(task.name, task.kind, rows, classes=classes)
    assert task.model is not None
    size = task.model.parameters or 0
    situation = Situation(card, "encoder", size, TUNERS, Part("head"), task=task, pooling="mean")
    clock = time.process_time if cpu else time.perf_counter
    asked = Planner(past, size=CANDIDATES)
    start = clock()
    asked.plan(situation)
    middle = clock()
    asked.plan(situation)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"fit": middle - start, "predict": clock() - middle, "peak GB": peak}


def main() -> None:
    names = ("transfer", "extra-trees", "quantile-boosting", "failure", "cost", "constant", "last-value", "mean-table",
             PLAN)  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[20_000, 1_000_000])
    parser.add_argument("--names", nargs="+", default=names, choices=names)
    parser.add_argument("--store", default="")
    parser.add_argument("--cpu-time", action="store_true", help="seconds of processors, not of the clock")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        name, points = given.names[0], given.points[0]
        print(json.dumps(planned(given.cpu_time) if name == PLAN else one(name, points, given.store, given.cpu_time)))
        return
    for points in given.points[:1] if given.store else given.points:
        print("TaskSet" if given.store else f"{points:,} points", AIMS)
        for name in given.names:
            own = ["--names", name, "--points", str(points), *(["--store", given.store] if given.store else [])]
            own += ["--cpu-time"] if given.cpu_time else []
            said = subprocess.run(
                [sys.executable, __file__, "--child", *own], stdout=subprocess.PIPE, text=True, check=True
            )
            measured = json.loads(said.stdout)
            print(f"  {name:18}", "   ".join(f"{what} {value:8.3f}" for what, value in measured.items()), flush=True)


if __name__ == "__main__":
    main()
