"""What the runs that ended say. Prints Markdown, from ``results/``.

    python -m experiments.comparison.analyse
    python -m experiments.comparison.analyse --work WORK      # judges the store there first, and writes ``results/``

``results/PART.json`` is the verdict of a part on its whole draws, with every figure; ``results/runs.jsonl`` has a line
for each run, ``results/rates.jsonl`` the dev losses that chose the rates.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.comparison.run import LOSSES, RESULTS, STAMP, Design, cells_of, chosen, measured, recorded
from foretune.records import RunRecord
from foretune.records.verdict import Verdict
from foretune.report import comparison_page, table_files
from foretune.report import verdict_tables as tables

RUNS = RESULTS / "runs.jsonl"


def export(design: Design, work: Path) -> None:
    """Judge the store in ``work`` and write ``results/``."""
    os.chdir(work)
    stamp = json.loads(Path(STAMP).read_text())
    RESULTS.mkdir(exist_ok=True)
    rates = chosen(design)
    if not recorded(design):
        losses = [
            {"method": name, "rate": rate, "dev_nll": [each[rate] for each in known], "chosen": rates.get(name) == rate}
            for name, known in sorted(measured(design).items())
            for rate in known[0]
        ]
        lines(LOSSES, ({**row, **stamp} for row in losses))
    if len(rates) < len(known_rates(design)):
        print(f"Rates are chosen for {len(rates)} of {len(known_rates(design))} methods.")
        return
    runs: list[dict[str, Any]] = []
    for part in design.parts:
        whole = whole_seeds(design, part, rates)
        cells = cells_of(design.part(part, rates))
        for job in {job.digest: job for job in cells.known()}.values():
            record = cells.record(job)
            if record is not None:
                runs.append({"part": part, **vars(job.cell), "rate": job.rate, **flat(record), **stamp})
        if whole:
            from foretune.comparison.verdict import judge

            judged = judge(cells_of(design.part(part, rates, whole)))
            verdict = replace(judged, notes=(*judged.notes, design.about_rates()))
            text = json.dumps(verdict.to_json(), ensure_ascii=False, allow_nan=False)
            (RESULTS / f"{part}.json").write_text(text + "\n", encoding="utf-8")
    lines(RUNS, runs)


def known_rates(design: Design) -> set[str]:
    """Every method that needs a rate, with its model."""
    return {f"{protocol.model.name}: {method.name}" for protocol in design.tuning() for method in protocol.methods}


def whole_seeds(design: Design, part: str, rates: Mapping[str, float]) -> int:
    """How many draws of a part ran whole, from the first one on; runs that failed have run."""
    for count in range(len(design.seeds), 0, -1):
        if not cells_of(design.part(part, rates, count)).missing():
            return count
    return 0


def flat(record: RunRecord) -> dict[str, Any]:
    """A run in one line: what it is, what came of it and what it took."""
    scores = {
        split: {name: round(value, 6) for name, value in judged.scores.items()}
        for split, judged in record.evaluations.items()
    }
    floors = {
        name: {split: round(found.scores[record.metric], 6) for split, found in by_split.items()}
        for name, by_split in record.floors.items()
    }
    cost = record.cost
    return {
        "digest": record.digest, "status": record.status, "error": record.error, "scores": scores, "floors": floors,
        "sample": record.sample, "initial": record.initial_hash, "trained": cost.trainable_parameters,
        "seconds": {n: round(getattr(cost, f"{n}_seconds"), 2) for n in ("train", "eval", "setup", "floor")},
        "peak_bytes": cost.peak_bytes, "prompt_tokens": cost.prompt_tokens,
    }  # fmt: skip


def lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object per line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of lines; none where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def shown(verdict: Verdict) -> Iterator[Any]:
    """The tables that stand in LOG.md."""
    for task in verdict.tasks:
        yield tables.details(verdict, task)
        yield tables.costs(verdict, task)
        if (found := tables.contrasts(verdict, task)) is not None:
            yield found
    yield from tables.outside(verdict)
    yield from tables.parts(verdict)


def extent(verdict: Verdict, design: Design) -> str:
    """How many draws, runs of a cell and test rows the tables of a part speak of."""
    draws = len({run.data_seed for cell in verdict.cells for run in cell.runs})
    runs = max(len(cell.runs) for cell in verdict.cells)
    rows = {cell.task: cell.score.n_items for cell in verdict.cells if cell.score and cell.score.n_items}
    told = ", ".join(f"{count} test rows of {task}" for task, count in rows.items())
    return f"{draws} of {len(design.seeds)} draws, {runs} runs a cell, {told or 'no means over rows'}"


def head(design: Design) -> Iterator[str]:
    """What ran, of what, and what failed."""
    runs, rates = read(RUNS), read(LOSSES)
    made = {name: ", ".join(sorted({row[name] for row in (*runs, *rates)})) for name in ("protocol", "code", "model")}
    yield (
        f"Protocol {design.digest} (of the lines: {made['protocol']}), code {made['code']}, masked language model "
        f"{made['model'][:12]}."
    )
    failed = [row for row in runs if row["status"] != "ok"]
    yield f"{len(runs)} runs, {len(failed)} failed."
    yield from (f"- {r['part']} {r['method']} {r['task']} {r['shots']} {r['data_seed']}: {r['error']}" for r in failed)
    yield "\n| model: method | dev loss on order, snli by rate | chosen |\n|---|---|---|"
    for name in dict.fromkeys(row["method"] for row in rates):
        mine = [row for row in rates if row["method"] == name]
        told = "; ".join(f"{row['rate']:g}: {', '.join(f'{loss:.3f}' for loss in row['dev_nll'])}" for row in mine)
        best = next((row["rate"] for row in mine if row["chosen"]), None)
        edge = " (end of the grid)" if best in (mine[0]["rate"], mine[-1]["rate"]) else ""
        yield f"| {name} | {told} | {'' if best is None else f'{best:g}'}{edge} |"


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="the folder of the runs")
    asked = parser.parse_args()
    design = Design.read()
    if asked.work:
        export(design, asked.work)
    print("\n".join(head(design)))
    for part in design.parts:
        path = RESULTS / f"{part}.json"
        if path.exists():
            verdict = comparison_page.read(path)
            print("\n" + table_files.as_markdown(shown(verdict), f"{part}: {extent(verdict, design)}"))
            print("\n".join(f"- {line}" for line in comparison_page.summary(verdict)))


if __name__ == "__main__":
    main()
