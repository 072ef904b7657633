"""Run what is missing of ``protocol.yaml`` with ``foretune.compare``; the same command goes on after a kill.

    python -m experiments.comparison.run --data-dir DATA --model-dir MODEL --work WORK [--minutes 60] [--plan]

In WORK, a folder of this experiment's own, lie the tasks as plain files, a link to the masked language model and the
store. First rates are chosen, then runs follow seed by seed. Two processes that are started alike share the work.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from experiments.comparison import tasks
from experiments.prefix_subspaces.run import code_hash
from foretune.comparison import Protocol
from foretune.comparison.arena import Event, run_missing
from foretune.comparison.cells import Cells
from foretune.comparison.harness import opened
from foretune.errors import Interrupted

HERE = Path(__file__).parent
MASKED = "masked-lm"
"""What the protocol calls the masked language model: a link of that name in WORK."""

STORE, STAMP, RATES = "store", "stamp.json", "rates.json"
RESULTS = HERE / "results"
LOSSES = RESULTS / "rates.jsonl"
"""The dev losses that chose the rates, once all were measured: another machine then need not measure them again."""
SECONDS = 30.0
"""Of one run on one core, for the estimate before anything ran."""


@dataclass(frozen=True)
class Design:
    """The frozen file, read."""

    plain: Mapping[str, Any]
    digest: str

    @classmethod
    def read(cls) -> Design:
        text = (HERE / "protocol.yaml").read_bytes()
        return cls(yaml.safe_load(text), hashlib.sha256(text).hexdigest()[:12])

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.plain["parts"])

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(self.plain["all"]["data_seeds"])

    def part(self, name: str, rates: Mapping[str, float], seeds: int | None = None) -> Protocol:
        """A part with its rates, on its first ``seeds`` draws."""
        part = self.plain["parts"][name]
        pool = {f"{self.plain['tasks'][task]['source'].removesuffix('.csv')}-pool.csv" for task in part["tasks"]}
        pairs = part["contrasts"]
        if isinstance(pairs, Mapping):
            pairs = [[first, pairs["second"]] for first in pairs["first"]]
        count = len(self.seeds) if seeds is None else seeds
        fields = {**self.plain["all"], **part["settings"], "contrasts": pairs if count > 1 else "none"}
        fields["data_seeds"] = list(self.seeds[:count])
        made = [self._method(each, part, sorted(pool)[0]) for each in part["methods"]]
        for each in made:
            if "lr" in each:
                each["lr"] = [rates[rate_name(part["model"]["name"], each["name"])]]
        return self._protocol(part, part["tasks"], made, fields)

    def tuning(self) -> Iterator[Protocol]:
        """What chooses the rates: for each model and tuning task one protocol of all methods that train."""
        settings = self.plain["tuning"]["settings"]
        for model in dict.fromkeys(part["model"]["name"] for part in self.plain["parts"].values()):
            mine = [part for part in self.plain["parts"].values() if part["model"]["name"] == model]
            names = dict.fromkeys(name for part in mine for name in part["methods"])
            trained = [name for name in names if "lr" in self.plain["methods"][name]]
            for task in self.plain["tuning"]["tasks"]:
                made = [self._method(name, {"tasks": [task]}, f"{task}-pool.csv") for name in trained]
                fields = {**self.plain["all"], **settings, "contrasts": "none"}
                fields["tuning_trials"] = len(made[0]["lr"])
                yield self._protocol(mine[0], [task], made, fields)

    def about_rates(self) -> str:
        """What every table has to say of them."""
        asked = self.plain["tuning"]["settings"]
        tried = next(len(method["lr"]) for method in self.plain["methods"].values() if "lr" in method)
        names = " and ".join(self.plain["tuning"]["tasks"])
        return (
            f"The rate of every method that trains is the best of {tried} by the dev loss of one draw of {names}, "
            f"{asked['shots'][0]} labels per class each, which are in no table: no cell counts these runs, their "
            "seconds or their labels."
        )

    def _method(self, name: str, part: Mapping[str, Any], pool: str) -> dict[str, Any]:
        paired = not {"cola", "order"} & set(part["tasks"])
        told = {"@pattern": self.plain["patterns"]["pair" if paired else "single"], "@pool": pool}
        made = dict(self.plain["methods"][name])
        if "objective_options" in made:
            made["objective_options"] = {k: told.get(v, v) for k, v in made["objective_options"].items()}
        return made

    def _protocol(self, part: Mapping[str, Any], names: list[str], methods: list[Any], fields: Any) -> Protocol:
        from foretune.records import ModelRef

        found = [self.plain["tasks"][name] for name in names]
        return Protocol.from_json({**fields, "model": ModelRef(**part["model"]), "tasks": found, "methods": methods})


def rate_name(model: str, method: str) -> str:
    """What has a rate of its own."""
    return f"{model}: {method}"


def dev_losses(protocol: Protocol, store: str = STORE) -> dict[str, dict[float, float]]:
    """Method -> rate -> dev loss, infinite where a run failed; methods of which a trial is missing are left out."""
    found: dict[str, dict[float, float]] = {}
    cells = opened(protocol, store=store)
    for method in protocol.methods:
        (cell,) = cells.plan.cells(method.name, protocol.tasks[0].called, protocol.shots[0])
        records = [cells.record(job) for job in cells.trials(cell)]
        if all(records):
            ended = [record for record in records if record is not None and record.status == "ok"]
            losses = {record.config.schedule.lr: record.evaluations["dev"].scores["nll"] for record in ended}
            found[rate_name(protocol.model.name, method.name)] = {r: losses.get(r, float("inf")) for r in method.lr}
    return found


Tried = dict[str, list[dict[float, float]]]
"""What has a rate -> its dev losses on every tuning task, as far as they were measured."""


def tried(design: Design) -> Tried:
    """From the store, or all of them from ``LOSSES``."""
    return recorded(design) or measured(design)


def measured(design: Design) -> Tried:
    """From the store alone."""
    every: Tried = {}
    for protocol in design.tuning():
        for name, losses in dev_losses(protocol).items():
            every.setdefault(name, []).append(losses)
    return every


def recorded(design: Design, path: Path = LOSSES) -> Tried:
    """From ``LOSSES``; none of another protocol, and none unless a rate was chosen of everything."""
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if {row["protocol"] for row in rows} != {design.digest}:
        return {}
    wanted = {rate_name(p.model.name, m.name) for p in design.tuning() for m in p.methods}
    if {row["method"] for row in rows if row["chosen"]} != wanted:
        return {}
    found: Tried = {}
    for row in rows:
        losses = found.setdefault(row["method"], [{} for _ in row["dev_nll"]])
        for mine, loss in zip(losses, row["dev_nll"], strict=True):
            mine[row["rate"]] = loss
    return found


def chosen(design: Design) -> dict[str, float]:
    """The rate with the lowest mean dev loss over the tuning tasks, of all that were tried on each of them."""
    count = len(design.plain["tuning"]["tasks"])
    best = {}
    for name, losses in tried(design).items():
        if len(losses) == count:
            means = {rate: statistics.fmean(each[rate] for each in losses) for rate in losses[0]}
            best[name] = min(means, key=lambda rate: means[rate])
    return best


def set_up(design: Design, work: Path, data: str, model: Path) -> None:
    """Tasks, link and stamp; refuses a folder that another protocol or another model made. The stamp lists the code of
    every start."""
    from foretune.models.locate import fingerprint

    tasks.write(work, data)
    link = work / MASKED
    if not link.exists():
        link.symlink_to(model.resolve(), target_is_directory=True)
    stamp = {"protocol": design.digest, "model": fingerprint(link.resolve())}
    path = work / STAMP
    made = json.loads(path.read_text()) if path.exists() else {**stamp, "code": ""}
    if {name: made[name] for name in stamp} != stamp:
        raise SystemExit(f"`{path}` says {made}, but this is {stamp}: name another --work.")
    ran = dict.fromkeys([*made["code"].split(), code_hash()])
    path.write_text(json.dumps({**stamp, "code": " ".join(ran)}))


def stages(design: Design) -> Iterator[tuple[str, Protocol]]:
    """What is run one after another; the parts are known once the rates are."""
    if not recorded(design):
        for protocol in design.tuning():
            yield f"rates of {protocol.model.name} on {protocol.tasks[0].called}", protocol
    rates = chosen(design)
    Path(RATES).write_text(json.dumps(rates, indent=1))
    for count in range(1, len(design.seeds) + 1):
        for name in design.parts:
            yield f"seed {design.seeds[count - 1]}, {name}", design.part(name, rates, count)


def cells_of(protocol: Protocol) -> Cells:
    """The runs of a protocol in the experiment's store."""
    return opened(protocol, store=STORE)


def describe(design: Design) -> Iterator[str]:
    """What is left, in runs and in minutes of one core that does nothing else."""
    counted: set[str] = set()
    for label, protocol in stages_known(design):
        cells = cells_of(protocol)
        jobs = {job.digest: job for job in cells.known() if job.digest not in counted}
        counted |= set(jobs)
        left = [job for job in jobs.values() if not cells.finished(job)]
        yield f"{label}: {len(left)} of {len(jobs)} runs left, about {len(left) * SECONDS / 60:.0f} min"


def stages_known(design: Design) -> Iterator[tuple[str, Protocol]]:
    """As ``stages``, with the first rate of each method where none is chosen yet: it is only counted."""
    rates = {rate_name(p.model.name, m.name): m.lr[0] for p in design.tuning() for m in p.methods}
    rates |= chosen(design)
    for protocol in () if recorded(design) else design.tuning():
        yield f"rates of {protocol.model.name} on {protocol.tasks[0].called}", protocol
    for count in range(1, len(design.seeds) + 1):
        for name in design.parts:
            yield f"seed {design.seeds[count - 1]}, {name}", design.part(name, rates, count)


def told(end: float) -> Any:
    """Prints what ends, and stops at ``end`` as Ctrl-C would: the run under way goes on from its state next time."""

    def watch(event: Event) -> None:
        if event.event == "end":
            where = f"{event.method} {event.task} {event.shots} data {event.data_seed} init {event.init_seed}"
            ended = f"{event.status} {event.error or ''}".strip()
            print(f"{time.strftime('%H:%M:%S')} {event.done}/{event.total} {where} {event.rate:g}: {ended}", flush=True)
        if time.monotonic() > end:
            raise KeyboardInterrupt

    return watch


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--model-dir", required=True, type=Path, help="the masked language model")
    parser.add_argument("--work", required=True, type=Path, help="a folder of this experiment's own")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--plan", action="store_true", help="print what is left and end")
    asked = parser.parse_args()
    design, end = Design.read(), time.monotonic() + 60 * asked.minutes
    set_up(design, asked.work, os.path.abspath(asked.data_dir), asked.model_dir)
    os.chdir(asked.work)  # protocols name files by their own names, so that no digest knows where WORK lies
    if asked.plan:
        print("\n".join(describe(design)))
        return
    try:
        for label, protocol in stages(design):
            print(label, flush=True)
            run_missing(cells_of(protocol), workers=asked.workers, watch=told(end))
            if time.monotonic() > end:
                return
    except Interrupted:
        print("Stopped; the same command goes on.")


if __name__ == "__main__":
    main()
